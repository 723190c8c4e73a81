// The numbers that sampling is made of (dsv4_backend.h, "Sampling"), for backends written in C++, host and device code
// alike.
#pragma once
#include "dsv4/dsv4_backend.h"

#if defined(__CUDACC__) || defined(__HIPCC__)
#define DSV4_SAMPLING_FN __host__ __device__ inline
#else
#define DSV4_SAMPLING_FN inline
#endif

namespace dsv4::sampling {

constexpr int32_t most_tokens = (1 << 24) - 1; // of a vocabulary: their weights add up to less than 2^64
constexpr uint32_t out = 0xFFFFFFFFu;          // the distance of a token that is out
constexpr int octaves = 41;                    // distances that are not out are under octaves << 24

/// t of a token whose x is neither NaN nor -infinity.
DSV4_SAMPLING_FN uint32_t distance(float top, float x, float scale) {
    if (x == top) return 0; // infinite ones too, where the formula says NaN
    const float t = (top - x) * scale;
    return t < float(octaves << 24) ? uint32_t(t) : out;
}

/// w of a distance that is not out.
DSV4_SAMPLING_FN uint64_t weight(uint32_t t) {
    constexpr uint32_t C[] = DSV4_SAMPLE_POLYNOMIAL;
    const uint32_t v = t << 8;
    uint32_t a = C[5];
    for (int j = 4; j >= 0; --j) a = C[j] - uint32_t(uint64_t(a) * v >> 32);
    const uint64_t m = (uint64_t(1) << 31) - (uint64_t(a) * v >> 33);
    return m << 9 >> (t >> 24);
}

/// floor(a * b / 2^64)
DSV4_SAMPLING_FN uint64_t high_product(uint64_t a, uint64_t b) {
    const uint64_t a0 = uint32_t(a), a1 = a >> 32, b0 = uint32_t(b), b1 = b >> 32;
    const uint64_t middle = a1 * b0 + (a0 * b0 >> 32), other = a0 * b1 + uint32_t(middle);
    return a1 * b1 + (middle >> 32) + (other >> 32);
}

/// The sum that top_p asks for, of `sum` in all.
DSV4_SAMPLING_FN uint64_t wanted_sum(uint64_t sum, uint32_t top_p) {
    const uint64_t wanted = high_product(sum, uint64_t(top_p) << 32);
    return wanted ? wanted : 1;
}

} // namespace dsv4::sampling
