// Multiplication by a warpgroup: four subgroups, the first at a multiple of four of its block, give c [64, 8 n] +=
// a [64, 16] b [16, 8 n], each the 16 rows of its place. Fragments of a and c are those of mma_bf16_m16n8k16, and so
// are the sums, bit for bit. Where a card multiplies so itself the sums are there only after warpgroup_wait().
//
// b lies in shared memory as a tile [8 n columns, 64 k] of bf16, aligned to 1024 bytes: 128 bytes a column, whose 16
// bytes number i are at place i ^ (column % 8). k16 says which 16 of its k.
#pragma once
#include "backends/gpu/portable.hpp"

namespace dsv4::gpu {

constexpr int tile_values = 64; // k of a tile

/// Where 16 bytes of a column lie, in elements of a tile.
__host__ __device__ constexpr int tile_place(int column, int i) {
    return column * tile_values + (i ^ (column & 7)) * 8;
}

} // namespace dsv4::gpu

#if defined(DSV4_GPU_CUDA) && defined(__CUDA_ARCH_FEAT_SM90_ALL)
#include "backends/cuda/warpgroup.hpp"
#else

namespace dsv4::gpu {

/// What this thread wrote to shared memory is what warpgroup_multiply reads after the next barrier.
__device__ __forceinline__ void publish_shared() {}
/// Before multiplications whose registers were written since.
__device__ __forceinline__ void warpgroup_begin() {}
__device__ __forceinline__ void warpgroup_commit() {}
/// All but the last N committed groups are done: their sums may be read, their registers and tiles written.
template <int N> __device__ __forceinline__ void warpgroup_wait() {}
/// Registers that were in flight until the wait before this.
template <class T, int n> __device__ __forceinline__ void keep_registers(T (&)[n][4]) {}

template <int n>
__device__ __forceinline__ void warpgroup_multiply(float (&c)[n][4], const uint32_t (&a)[4], const uint16_t *tile,
                                                   int k16) {
    const int lane = lane_of_subgroup(), g = lane / 4, t = lane % 4;
#pragma unroll
    for (int i = 0; i < n; ++i) {
        const int column = i * 8 + g;
        const uint32_t b[2] = {*reinterpret_cast<const uint32_t *>(tile + tile_place(column, 2 * k16) + 2 * t),
                               *reinterpret_cast<const uint32_t *>(tile + tile_place(column, 2 * k16 + 1) + 2 * t)};
        mma_bf16_m16n8k16(c[i], a, b);
    }
}

} // namespace dsv4::gpu
#endif
