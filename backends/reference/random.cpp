// Weights that are described instead of given: dsv4_random of dsv4_backend.h, one element at a time.
#include <cstring>
#include "backends/reference/formats.hpp"
#include "backends/reference/ops.hpp"

namespace dsv4::reference {
namespace {

uint64_t number(uint64_t seed, uint64_t i) {
    uint64_t z = seed + (i + 1) * 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

uint8_t byte(uint64_t seed, uint64_t i) { return uint8_t(number(seed, i / 8) >> i % 8 * 8); }

float near_normal(const dsv4_random &r, uint64_t i) {
    const uint64_t n = number(r.seed, i);
    const int64_t x = 2 * int64_t((n & 0xFFFF) + (n >> 16 & 0xFFFF) + (n >> 32 & 0xFFFF)) - 196605;
    return float(double(r.mean) + double(r.deviation) * (double(x) / 65536));
}

int64_t of_row(const dsv4_random &r, int64_t k, uint64_t i) {
    const uint64_t row = i / uint64_t(k), j = i % uint64_t(k), range = uint64_t(r.range), step = range / uint64_t(k);
    return int64_t(((number(r.seed, row) >> 32) * range / 0x100000000u + j * (step ? step : 1)) % range);
}

}  // namespace

void make_random(const dsv4_tensor &t, uint8_t *data, uint8_t *scale) {
    const dsv4_random &r = t.random;
    if (r.kind == DSV4_RANDOM_NORMAL && t.dtype == DSV4_F32) {
        for (uint64_t i = 0; i < t.bytes / 4; ++i) {
            const float v = near_normal(r, i);
            std::memcpy(data + 4 * i, &v, 4);
        }
    } else if (r.kind == DSV4_RANDOM_NORMAL && t.dtype == DSV4_BF16) {
        for (uint64_t i = 0; i < t.bytes / 2; ++i) {
            const float v = round_bf16(near_normal(r, i));
            std::memcpy(data + 2 * i, reinterpret_cast<const uint8_t *>(&v) + 2, 2);
        }
    } else if (r.kind == DSV4_RANDOM_CODES && (t.dtype == DSV4_FP8_E4M3 || t.dtype == DSV4_FP4_E2M1)) {
        for (uint64_t i = 0; i < t.bytes; ++i) {
            const uint8_t code = byte(r.seed, i);
            data[i] = t.dtype == DSV4_FP8_E4M3 && (code & 0x7F) == 0x7F ? uint8_t(code - 1) : code;
        }
    } else if (r.kind == DSV4_RANDOM_ROWS && t.dtype == DSV4_I64 && t.shape[1] >= 1 && t.shape[1] <= r.range) {
        for (uint64_t i = 0; i < t.bytes / 8; ++i) {
            const int64_t v = of_row(r, t.shape[1], i);
            std::memcpy(data + 8 * i, &v, 8);
        }
    } else {
        fail(DSV4_E_UNSUPPORTED, "role %d: random of kind %d is not known for element type %d", t.role, r.kind, t.dtype);
    }
    if (!t.scale_dtype) return;
    if (t.scale_dtype != DSV4_E8M0 || r.scale_low < 0 || r.scale_range < 1 || r.scale_range > 256 ||
        r.scale_low + r.scale_range > 255)
        fail(DSV4_E_UNSUPPORTED, "role %d: random scales %d + %d of type %d", t.role, r.scale_low, r.scale_range,
             t.scale_dtype);
    for (uint64_t i = 0; i < t.scale_bytes; ++i)
        scale[i] = uint8_t(r.scale_low + byte(~r.seed, i) * r.scale_range / 256);
}

}  // namespace dsv4::reference
