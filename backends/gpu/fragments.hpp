// Fragments of mma_bf16_m16n8k16 from row-major bf16 in shared memory; rows begin at multiples of 16 bytes. A pitch of
// 16 bytes more than a multiple of 128 puts eight rows into different banks. Collectives of a subgroup.
#pragma once
#include "backends/gpu/portable.hpp"

namespace dsv4::gpu {

/// Elements from one row to the next for rows of `columns`.
__host__ __device__ constexpr int fragment_pitch(int columns) { return (columns + 63) / 64 * 64 + 8; }

#if defined(DSV4_GPU_CUDA) && defined(__CUDA_ARCH__)
template <bool transposed> __device__ __forceinline__ void load_matrices(uint32_t (&r)[4], const uint16_t *mine) {
    const auto at = static_cast<unsigned>(__cvta_generic_to_shared(mine));
    if constexpr (transposed)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                     : "r"(at)
                     : "memory");
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                     : "r"(at)
                     : "memory");
}
#endif

/// A: 16 rows by 16 k at `base`.
__device__ __forceinline__ void load_a(uint32_t (&r)[4], const uint16_t *base, int pitch) {
    const int lane = lane_of_subgroup();
#if defined(DSV4_GPU_CUDA) && defined(__CUDA_ARCH__)
    load_matrices<false>(r, base + (lane / 8 % 2 * 8 + lane % 8) * pitch + lane / 16 * 8);
#else
    const uint16_t *at = base + lane / 4 * pitch + lane % 4 * 2;
    for (int i = 0; i < 4; ++i) r[i] = *reinterpret_cast<const uint32_t *>(at + i % 2 * 8 * pitch + i / 2 * 8);
#endif
}

/// B of two multiplications, for storage by column: 8 columns by 32 k at `base`.
__device__ __forceinline__ void load_b(uint32_t (&r)[4], const uint16_t *base, int pitch) {
    const int lane = lane_of_subgroup();
#if defined(DSV4_GPU_CUDA) && defined(__CUDA_ARCH__)
    load_matrices<false>(r, base + lane % 8 * pitch + lane / 8 * 8);
#else
    const uint16_t *at = base + lane / 4 * pitch + lane % 4 * 2;
    for (int i = 0; i < 4; ++i) r[i] = *reinterpret_cast<const uint32_t *>(at + i * 8);
#endif
}

/// B of two neighbouring tiles of 8 columns, for storage by k: 16 k by 16 columns at `base`.
__device__ __forceinline__ void load_b_transposed(uint32_t (&r)[4], const uint16_t *base, int pitch) {
    const int lane = lane_of_subgroup();
#if defined(DSV4_GPU_CUDA) && defined(__CUDA_ARCH__)
    load_matrices<true>(r, base + (lane / 8 % 2 * 8 + lane % 8) * pitch + lane / 16 * 8);
#else
    const uint16_t *at = base + lane % 4 * 2 * pitch + lane / 4;
    for (int i = 0; i < 4; ++i) {
        const uint16_t *pair = at + i % 2 * 8 * pitch + i / 2 * 8;
        r[i] = uint32_t(pair[0]) | uint32_t(pair[pitch]) << 16;
    }
#endif
}

} // namespace dsv4::gpu
