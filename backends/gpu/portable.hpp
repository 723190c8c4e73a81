// The one dialect that the kernels are written in: plain CUDA C++ plus what this header adds, compiled by nvcc, by
// hipcc, or by the host's compiler against an emulation of the execution model (tests only). Nothing here knows the
// model.
//
//   subgroup   32 adjacent threads of a block, on every platform (half a wave where waves have 64)
//   launch()   instead of <<<>>>; grids with a zero do nothing
//   launch_early()  the same for kernels that wait_for_former(), many as the first thing they do (enter_kernel()): the
//              card may bring them in before the former has finished. Every thread waits, also one that has nothing to
//              do: a kernel that is over means that all before it are
//   Shared     DSV4_SHARED(float, sums, [32]) for static shared memory, dynamic_shared<T>() for the rest
//
// Block sizes are multiples of 32. Collectives (shuffle*, subgroup_*, sync_subgroup, mma_*) are called by all 32
// threads of a subgroup, __syncthreads by all threads of a block; the emulation fails where one does not come.
#pragma once
#include <cstddef>
#include <cstdint>
#include <tuple>
#include <type_traits>
#include <utility>

#if defined(DSV4_GPU_EMULATED)
#include "backends/gpu/emulated/device.hpp"
#elif defined(DSV4_GPU_HIP)
#include "backends/hip/platform.hpp"
#elif defined(DSV4_GPU_CUDA)
#include "backends/cuda/platform.hpp"
#else
#error "define DSV4_GPU_CUDA, DSV4_GPU_HIP or DSV4_GPU_EMULATED"
#endif

#include "backends/gpu/runtime.hpp"

namespace dsv4::gpu {

constexpr int subgroup_size = 32;

__device__ __forceinline__ int linear_thread() {
    return int(threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z));
}
__device__ __forceinline__ int lane_of_subgroup() { return linear_thread() % subgroup_size; }
__device__ __forceinline__ int subgroup_of_block() { return linear_thread() / subgroup_size; }

/// Before it, a kernel launched early reads its parameters, weights and the step's numbers alone, and writes nothing,
/// unless it comes after a product.
__device__ __forceinline__ void enter_kernel() {
    let_next_begin();
    wait_for_former();
}
/// The same for products of up to 64 tokens (and query_kernel). What begins after one of them may do more before it
/// waits: read, by load_fresh(), what the stream wrote before the product, and write what nobody has used since. Not so
/// what comes from beside (dsv4_queue): of that nothing is known until the wait, in a graph least of all.
__device__ __forceinline__ void enter_product() {
    wait_for_former();
    let_next_begin();
}

template <class Kernel, class... A>
void launch(Kernel *kernel, dim3 grid, dim3 block, size_t dynamic_bytes, Stream stream, A &&...args) {
    launch_kernel(false, kernel, grid, block, dynamic_bytes, stream, std::forward<A>(args)...);
}
template <class Kernel, class... A>
void launch_early(Kernel *kernel, dim3 grid, dim3 block, size_t dynamic_bytes, Stream stream, A &&...args) {
    launch_kernel(true, kernel, grid, block, dynamic_bytes, stream, std::forward<A>(args)...);
}

/// bf16 as the upper half of float32; rounding is to nearest even, infinities and NaN stay what they are.
__host__ __device__ __forceinline__ float from_bf16(uint16_t b) { return float_of(uint32_t(b) << 16); }
__host__ __device__ __forceinline__ uint16_t to_bf16(float x) {
    const uint32_t u = bits_of(x);
    if ((u & 0x7FFFFFFFu) > 0x7F800000u) return uint16_t((u >> 16) | 0x40u);
    return uint16_t((u + 0x7FFFu + ((u >> 16) & 1u)) >> 16);
}
__host__ __device__ __forceinline__ float round_bf16(float x) { return from_bf16(to_bf16(x)); }
/// Two neighbours in one register, the first in the low half.
__host__ __device__ __forceinline__ uint32_t pack_bf16(float low, float high) {
#if defined(DSV4_GPU_CUDA) && defined(__CUDA_ARCH__)
    uint32_t r; // the same but for the bits of a NaN
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
    return r;
#endif
    return uint32_t(to_bf16(low)) | uint32_t(to_bf16(high)) << 16;
}

#if defined(DSV4_GPU_CUDA) // one instruction for integers
__device__ __forceinline__ uint32_t subgroup_sum(uint32_t v) { return __reduce_add_sync(0xFFFFFFFFu, v); }
__device__ __forceinline__ uint32_t subgroup_max(uint32_t v) { return __reduce_max_sync(0xFFFFFFFFu, v); }
__device__ __forceinline__ int32_t subgroup_min(int32_t v) { return __reduce_min_sync(0xFFFFFFFFu, v); }
#endif
#if !defined(DSV4_GPU_EMULATED) // there these are one collective each, with the same order of sums
template <class T> __device__ __forceinline__ T subgroup_sum(T v) {
    for (int mask = 16; mask; mask /= 2) v += shuffle_xor(v, mask);
    return v;
}
template <class T> __device__ __forceinline__ T subgroup_max(T v) {
    for (int mask = 16; mask; mask /= 2) {
        const T other = shuffle_xor(v, mask);
        v = other > v ? other : v;
    }
    return v;
}
template <class T> __device__ __forceinline__ T subgroup_min(T v) {
    for (int mask = 16; mask; mask /= 2) {
        const T other = shuffle_xor(v, mask);
        v = other < v ? other : v;
    }
    return v;
}
#endif

/// The sum over a block, to every thread: subgroups first, then their sums in order. `scratch` is shared memory for 32
/// values; it may be used again after the next __syncthreads.
template <class T> __device__ __forceinline__ T block_sum(T v, T *scratch) {
    const int groups = int(blockDim.x * blockDim.y * blockDim.z) / subgroup_size;
    v = subgroup_sum(v);
    if (groups == 1) return v;
    if (lane_of_subgroup() == 0) scratch[subgroup_of_block()] = v;
    __syncthreads();
    T sum = scratch[0];
#pragma unroll 4
    for (int g = 1; g < groups; ++g) sum += scratch[g];
    return sum;
}
template <class T> __device__ __forceinline__ T block_max(T v, T *scratch) {
    const int groups = int(blockDim.x * blockDim.y * blockDim.z) / subgroup_size;
    v = subgroup_max(v);
    if (groups == 1) return v;
    if (lane_of_subgroup() == 0) scratch[subgroup_of_block()] = v;
    __syncthreads();
    T top = scratch[0];
    for (int g = 1; g < groups; ++g) top = scratch[g] > top ? scratch[g] : top;
    return top;
}

__host__ __device__ __forceinline__ constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
__host__ __device__ __forceinline__ constexpr int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

} // namespace dsv4::gpu
