// The fragments of mma.m16n8k16 (backends/cuda/platform.hpp) multiplied without matrix units: through shuffles, k
// ascending, one fused multiply-add each. Included by platforms that have no such instruction; needs their shuffle().
#pragma once
#include <cstdint>

namespace dsv4::gpu {

__device__ __forceinline__ void mma_by_shuffles(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    const unsigned lane = (threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) % 32;
    const int g = int(lane / 4), t = int(lane % 4);
    const auto half = [](uint32_t pair, int k) { return float_of(k & 1 ? pair & 0xFFFF0000u : pair << 16); };
    for (int upper = 0; upper < 2; ++upper)
        for (int pair = 0; pair < 4; ++pair) {
            const uint32_t top = shuffle(a[2 * upper], 4 * g + pair), bottom = shuffle(a[2 * upper + 1], 4 * g + pair);
            const uint32_t left = shuffle(b[upper], 8 * t + pair), right = shuffle(b[upper], 8 * t + 4 + pair);
            for (int k = 0; k < 2; ++k) {
                c[0] = fmaf(half(top, k), half(left, k), c[0]);
                c[1] = fmaf(half(top, k), half(right, k), c[1]);
                c[2] = fmaf(half(bottom, k), half(left, k), c[2]);
                c[3] = fmaf(half(bottom, k), half(right, k), c[3]);
            }
        }
}

} // namespace dsv4::gpu
