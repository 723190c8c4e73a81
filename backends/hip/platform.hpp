// The kernel dialect on AMD: what backends/gpu/portable.hpp builds on. Waves of 64 hold two subgroups of 32. With
// DSV4_GPU_HIP_ON_NVIDIA the same sources go through nvcc, so that they can be executed on another vendor's card.
#pragma once
#if defined(DSV4_GPU_HIP_ON_NVIDIA)
#include "backends/hip/nvidia_shim.hpp"
#else
#include <hip/hip_runtime.h>
#endif
#include <cstdint>
#include <cstring>
#include <tuple>
#include <utility>

#define DSV4_SHARED(type, name, ...) __shared__ type name __VA_ARGS__

namespace dsv4::gpu {

using Stream = hipStream_t;
using Event = hipEvent_t;
using Graph = hipGraphExec_t;

void check(hipError_t status, const char *call);

__host__ __device__ __forceinline__ float float_of(uint32_t u) {
    float f;
    memcpy(&f, &u, 4);
    return f;
}
__host__ __device__ __forceinline__ uint32_t bits_of(float f) {
    uint32_t u;
    memcpy(&u, &f, 4);
    return u;
}

#if defined(DSV4_GPU_HIP_ON_NVIDIA)
template <class T> __device__ __forceinline__ T shuffle(T v, int lane) { return __shfl_sync(0xFFFFFFFFu, v, lane, 32); }
template <class T> __device__ __forceinline__ T shuffle_xor(T v, int mask) {
    return __shfl_xor_sync(0xFFFFFFFFu, v, mask, 32);
}
__device__ __forceinline__ uint32_t subgroup_ballot(bool v) { return __ballot_sync(0xFFFFFFFFu, v); }
__device__ __forceinline__ void sync_subgroup() { __syncwarp(); }
#else
template <class T> __device__ __forceinline__ T shuffle(T v, int lane) { return __shfl(v, lane, 32); }
template <class T> __device__ __forceinline__ T shuffle_xor(T v, int mask) { return __shfl_xor(v, mask, 32); }
/// Bit i: the value of lane i of this thread's subgroup, the upper or lower half of a wave of 64.
__device__ __forceinline__ uint32_t subgroup_ballot(bool v) {
    const unsigned long long wave = __ballot(v);
    const unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
    return warpSize == 64 && thread % 64 >= 32 ? uint32_t(wave >> 32) : uint32_t(wave);
}
/// A wave runs in step; what is left to order is its memory.
__device__ __forceinline__ void sync_subgroup() {
    __builtin_amdgcn_fence(__ATOMIC_RELEASE, "wavefront");
    __builtin_amdgcn_wave_barrier();
    __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "wavefront");
}
#endif

__device__ __forceinline__ float reciprocal(float x) { return 1.0f / x; }

template <class T> __device__ __forceinline__ T *dynamic_shared() {
    extern __shared__ __align__(128) unsigned char dsv4_dynamic_shared[];
    return reinterpret_cast<T *>(dsv4_dynamic_shared);
}

} // namespace dsv4::gpu

#include "backends/gpu/mma_by_shuffles.hpp"

namespace dsv4::gpu {

__device__ __forceinline__ void mma_bf16_m16n8k16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    mma_by_shuffles(c, a, b);
}

/// Plain copies: nothing is in flight afterwards.
__device__ __forceinline__ void copy_async_16(void *shared, const void *global) {
    *static_cast<uint4 *>(shared) = *static_cast<const uint4 *>(global);
}
__device__ __forceinline__ void copy_commit() {}
template <int N> __device__ __forceinline__ void copy_wait() {}

template <class T> __device__ __forceinline__ T load_fresh(const T *p) { return *p; }
__device__ __forceinline__ uint4 load_once(const uint4 *p) { return *p; }

// Kernels run one after the other.
__device__ __forceinline__ void let_next_begin() {}
__device__ __forceinline__ void wait_for_former() {}

/// Arguments are converted to the kernel's own parameter types and copied before the call returns.
template <class... P, class... A>
void launch_kernel(bool, void (*kernel)(P...), dim3 grid, dim3 block, size_t dynamic_bytes, Stream stream,
                   A &&...args) {
    static_assert(sizeof...(P) == sizeof...(A), "a kernel's parameters, one for one");
    if (!grid.x || !grid.y || !grid.z) return;
#if defined(DSV4_GPU_HIP_ON_NVIDIA)
    if (dynamic_bytes > 48 * 1024)
        check(hipFuncSetAttribute(reinterpret_cast<const void *>(kernel), hipFuncAttributeMaxDynamicSharedMemorySize,
                                  int(dynamic_bytes)),
              "hipFuncSetAttribute");
#endif
    std::tuple<std::remove_cv_t<P>...> values(static_cast<P>(std::forward<A>(args))...);
    std::apply(
        [&](auto &...v) {
            void *pointers[sizeof...(P) + 1] = {const_cast<void *>(static_cast<const void *>(&v))..., nullptr};
            check(hipLaunchKernel(reinterpret_cast<const void *>(kernel), grid, block, pointers, dynamic_bytes, stream),
                  "launch");
        },
        values);
}

} // namespace dsv4::gpu
