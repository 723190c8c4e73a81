#include "core/model/random_bytes.hpp"
#include <algorithm>
#include <cstring>
#include <string>
#include "core/error.hpp"

namespace dsv4 {
namespace {

/// next(i) is word i, whose bytes are written lowest first (the library runs on little endian machines alone).
template <class Next> void write_words(unsigned char *at, uint64_t bytes, Next next) {
    const uint64_t whole = bytes / 8;
    for (uint64_t i = 0; i < whole; ++i) {
        const uint64_t w = next(i);
        std::memcpy(at + 8 * i, &w, 8);
    }
    const uint64_t w = next(whole);
    std::memcpy(at + 8 * whole, &w, bytes % 8);
}

void normal(const dsv4_tensor &t, unsigned char *at) {
    const dsv4_random &r = t.random;
    const bool wide = t.dtype == DSV4_F32;
    const uint64_t n = t.bytes / (wide ? 4 : 2);
    for (uint64_t i = 0; i < n; ++i) {
        const uint64_t w = random_word(r.seed, i);
        const auto sum = int32_t(w & 0xFFFF) + int32_t(w >> 16 & 0xFFFF) + int32_t(w >> 32 & 0xFFFF);
        const auto v = float(double(r.mean) + double(r.deviation) * (double(2 * sum - 196605) * 0x1p-16));
        uint32_t bits;
        std::memcpy(&bits, &v, 4);
        const auto half = uint16_t((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
        if (wide) std::memcpy(at + 4 * i, &bits, 4);
        else std::memcpy(at + 2 * i, &half, 2);
    }
}

void codes(const dsv4_tensor &t, unsigned char *at) {
    const uint64_t seed = t.random.seed;
    if (t.dtype == DSV4_FP4_E2M1) return write_words(at, t.bytes, [=](uint64_t i) { return random_word(seed, i); });
    write_words(at, t.bytes, [=](uint64_t i) {
        const uint64_t w = random_word(seed, i);
        const uint64_t nan = ((w & 0x7F7F7F7F7F7F7F7Full) + 0x0101010101010101ull) & 0x8080808080808080ull;
        return w - (nan >> 7);
    });
}

void rows(const dsv4_tensor &t, unsigned char *at) {
    const int64_t k = t.shape[1], range = t.random.range, step = std::max<int64_t>(1, range / k);
    for (int64_t i = 0; i < t.shape[0]; ++i) {
        const auto first = int64_t((random_word(t.random.seed, uint64_t(i)) >> 32) * uint64_t(range) >> 32);
        for (int64_t j = 0; j < k; ++j) {
            const int64_t v = (first + j * step) % range;
            std::memcpy(at + 8 * (i * k + j), &v, 8);
        }
    }
}

void scales(const dsv4_tensor &t, unsigned char *at) {
    const dsv4_random &r = t.random;
    if (r.scale_range == 1) return void(std::memset(at, r.scale_low, t.scale_bytes));
    for (uint64_t i = 0; i < t.scale_bytes; i += 8) {
        const uint64_t w = random_word(~r.seed, i / 8);
        for (uint64_t j = 0; j < std::min<uint64_t>(8, t.scale_bytes - i); ++j)
            at[i + j] = uint8_t(r.scale_low + (int32_t(w >> 8 * j & 0xFF) * r.scale_range >> 8));
    }
}

}  // namespace

void make_random_bytes(const dsv4_tensor &t, void *data, void *scale) {
    auto *at = static_cast<unsigned char *>(data);
    const dsv4_random &r = t.random;
    const bool floats = t.dtype == DSV4_F32 || t.dtype == DSV4_BF16;
    const bool quantized = t.dtype == DSV4_FP8_E4M3 || t.dtype == DSV4_FP4_E2M1;
    if (r.kind == DSV4_RANDOM_NORMAL && floats) normal(t, at);
    else if (r.kind == DSV4_RANDOM_CODES && quantized) codes(t, at);
    else if (r.kind == DSV4_RANDOM_ROWS && t.dtype == DSV4_I64 && t.shape[1] >= 1 && t.shape[1] <= r.range &&
             t.bytes == uint64_t(t.shape[0]) * uint64_t(t.shape[1]) * 8)
        rows(t, at);
    else
        throw Error(DSV4_E_INTERNAL, "a tensor of role " + std::to_string(t.role) + " and element type " +
                                         std::to_string(t.dtype) + " is described as random of kind " +
                                         std::to_string(r.kind));
    if (!t.scale_dtype) return;
    if (t.scale_dtype != DSV4_E8M0 || r.scale_low < 0 || r.scale_range < 1 || r.scale_range > 256 ||
        r.scale_low + r.scale_range > 255)
        throw Error(DSV4_E_INTERNAL, "random scales of a tensor of role " + std::to_string(t.role) +
                                         ": not of this kind");
    scales(t, static_cast<unsigned char *>(scale));
}

}  // namespace dsv4
