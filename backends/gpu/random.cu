// See random.hpp. Integers, and roundings as IEEE 754 has them: host, device and every other backend make the same
// bytes.
#include <algorithm>
#include <cstring>
#include "backends/gpu/random.hpp"

namespace dsv4::gpu {

namespace {

/// Number i of SplitMix64 begun at seed.
__host__ __device__ __forceinline__ uint64_t random_number(uint64_t seed, uint64_t i) {
    uint64_t z = seed + (i + 1) * 0x9E3779B97F4A7C15ull;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ z >> 27) * 0x94D049BB133111EBull;
    return z ^ z >> 31;
}

__host__ __device__ __forceinline__ float near_normal(const RandomBytes &r, uint64_t i) {
    const uint64_t n = random_number(r.seed, i);
    const auto sum = int32_t((n & 0xFFFF) + (n >> 16 & 0xFFFF) + (n >> 32 & 0xFFFF));
    // The product of 24 and 18 bits is exact: the same with and without a fused multiply-add.
    return float(double(r.mean) + double(r.deviation) * (double(2 * sum - 196605) * (1.0 / 65536)));
}

__host__ __device__ __forceinline__ uint64_t eight_bytes(const RandomBytes &r, uint64_t i) {
    if (r.kind == RandomBytes::F32)
        return bits_of(near_normal(r, 2 * i)) | uint64_t(bits_of(near_normal(r, 2 * i + 1))) << 32;
    if (r.kind == RandomBytes::BF16) {
        uint64_t w = 0;
        for (int j = 0; j < 4; ++j) w |= uint64_t(to_bf16(near_normal(r, 4 * i + uint64_t(j)))) << 16 * j;
        return w;
    }
    const uint64_t n = random_number(r.seed, i);
    if (r.kind == RandomBytes::FP4) return n;
    if (r.kind == RandomBytes::FP8) // the codes of NaN, of either sign, become those below
        return n - ((((n & 0x7F7F7F7F7F7F7F7Full) + 0x0101010101010101ull) & 0x8080808080808080ull) >> 7);
    uint64_t w = 0;
    for (int j = 0; j < 8; ++j)
        w |= uint64_t(uint32_t(r.low) + (uint32_t(n >> 8 * j & 0xFF) * uint32_t(r.range) >> 8)) << 8 * j;
    return w;
}

__global__ void __launch_bounds__(256) fill_random(RandomBytes r, uint4 *out, int64_t count) {
    const int64_t all = int64_t(gridDim.x) * blockDim.x;
    for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += all) {
        const uint64_t a = eight_bytes(r, uint64_t(2 * i)), b = eight_bytes(r, uint64_t(2 * i + 1));
        out[i] = make_uint4(uint32_t(a), uint32_t(a >> 32), uint32_t(b), uint32_t(b >> 32));
    }
}

[[noreturn]] void refuse(const dsv4_tensor &t, const std::string &why) {
    throw Failure(DSV4_E_UNSUPPORTED, "role " + std::to_string(t.role) + " is described as random: " + why);
}

} // namespace

RandomBytes random_data(const dsv4_tensor &t) {
    RandomBytes r;
    r.seed = t.random.seed;
    r.mean = t.random.mean;
    r.deviation = t.random.deviation;
    if (t.random.kind == DSV4_RANDOM_NORMAL)
        r.kind = t.dtype == DSV4_F32 ? RandomBytes::F32 : t.dtype == DSV4_BF16 ? RandomBytes::BF16 : RandomBytes::NONE;
    if (t.random.kind == DSV4_RANDOM_CODES)
        r.kind = t.dtype == DSV4_FP8_E4M3   ? RandomBytes::FP8
                 : t.dtype == DSV4_FP4_E2M1 ? RandomBytes::FP4
                                            : RandomBytes::NONE;
    if (r.kind == RandomBytes::NONE)
        refuse(t,
               "kind " + std::to_string(t.random.kind) + " is not known for element type " + std::to_string(t.dtype));
    return r;
}

RandomBytes random_scale(const dsv4_tensor &t) {
    RandomBytes r;
    r.kind = RandomBytes::SCALE;
    r.seed = ~t.random.seed;
    r.low = t.random.scale_low;
    r.range = t.random.scale_range;
    if (t.scale_dtype != DSV4_E8M0 || r.low < 0 || r.range < 1 || r.range > 256 || r.low + r.range > 255)
        refuse(t, "scales " + std::to_string(r.low) + " + " + std::to_string(r.range) + " of type " +
                      std::to_string(t.scale_dtype));
    return r;
}

std::vector<uint8_t> random_rows(const dsv4_tensor &t) {
    const int64_t k = t.shape[1], range = t.random.range, n = int64_t(t.bytes / 8);
    if (t.random.kind != DSV4_RANDOM_ROWS || t.dtype != DSV4_I64 || k < 1 || k > range)
        refuse(t, "kind " + std::to_string(t.random.kind) + " of " + std::to_string(k) + " numbers below " +
                      std::to_string(range));
    std::vector<uint8_t> out(t.bytes);
    for (int64_t i = 0; i < n; ++i) {
        const auto first = int64_t((random_number(t.random.seed, uint64_t(i / k)) >> 32) * uint64_t(range) >> 32);
        const int64_t v = (first + i % k * std::max<int64_t>(1, range / k)) % range;
        std::memcpy(out.data() + 8 * i, &v, 8);
    }
    return out;
}

std::vector<uint8_t> random_on_host(const RandomBytes &r, size_t bytes) {
    std::vector<uint8_t> out(bytes);
    for (size_t i = 0; i < bytes; i += 8) {
        const uint64_t w = eight_bytes(r, i / 8);
        std::memcpy(out.data() + i, &w, std::min<size_t>(8, bytes - i));
    }
    return out;
}

void random_on_device(const RandomBytes &r, uint8_t *at, size_t bytes, Stream stream) {
    const int64_t count = ceil_div(int64_t(bytes), 16);
    const auto blocks = unsigned(std::min<int64_t>(ceil_div(count, 256), 4096));
    launch(fill_random, blocks, 256, 0, stream, r, reinterpret_cast<uint4 *>(at), count);
}

} // namespace dsv4::gpu
