// The kernel dialect on NVIDIA: what backends/gpu/portable.hpp builds on. sm_80 and later.
#pragma once
#include <cstdint>
#include <cstring>
#include <cuda_runtime.h>
#include <tuple>
#include <utility>

#define DSV4_SHARED(type, name, ...) __shared__ type name __VA_ARGS__

namespace dsv4::gpu {

using Stream = cudaStream_t;
using Event = cudaEvent_t;
using Graph = cudaGraphExec_t;

void check(cudaError_t status, const char *call);

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

template <class T> __device__ __forceinline__ T shuffle(T v, int lane) { return __shfl_sync(0xFFFFFFFFu, v, lane); }
template <class T> __device__ __forceinline__ T shuffle_xor(T v, int mask) {
    return __shfl_xor_sync(0xFFFFFFFFu, v, mask);
}
/// Bit i: the value of lane i.
__device__ __forceinline__ uint32_t subgroup_ballot(bool v) { return __ballot_sync(0xFFFFFFFFu, v); }
/// Shared memory that a lane of the subgroup wrote before is what the others read after it.
__device__ __forceinline__ void sync_subgroup() { __syncwarp(); }

/// 1 / x within a unit or two of the last place, where a division would be waited for; x is neither denormal nor huge.
__device__ __forceinline__ float reciprocal(float x) {
    float r;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
    return r;
}

template <class T> __device__ __forceinline__ T *dynamic_shared() {
    extern __shared__ __align__(128) unsigned char dsv4_dynamic_shared[];
    return reinterpret_cast<T *>(dsv4_dynamic_shared);
}

/// c [16, 8] += a [16, 16] b [16, 8] by the 32 lanes of a subgroup, float32 sums. With g = lane / 4, t = lane % 4: a:
/// {row g, k 2t}, {g + 8, 2t}, {g, 2t + 8}, {g + 8, 2t + 8}, two of ascending k each; b: {k 2t, column g}, {2t + 8,
/// g}; c: {g, 2t}, {g, 2t + 1}, {g + 8, 2t}, {g + 8, 2t + 1}.
__device__ __forceinline__ void mma_bf16_m16n8k16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
                 "{%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

/// 16 bytes of global memory into shared memory, both aligned to 16, without waiting; copy_wait<N> leaves the last N
/// committed groups of this thread in flight. A barrier must follow before other threads read.
__device__ __forceinline__ void copy_async_16(void *shared, const void *global) {
    const auto to = static_cast<unsigned>(__cvta_generic_to_shared(shared));
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(global) : "memory");
}
__device__ __forceinline__ void copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N> __device__ __forceinline__ void copy_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

/// Past the first-level cache: what another kernel wrote is there, also before wait_for_former(), if it is over.
/// volatile: on the side of wait_for_former() where it stands.
template <class T> __device__ __forceinline__ T load_fresh(const T *p) {
    static_assert(sizeof(T) == 1 || sizeof(T) == 4 || sizeof(T) == 8 || sizeof(T) == 16);
    uint32_t w[4];
    if constexpr (sizeof(T) == 1) asm volatile("ld.global.cg.u8 %0, [%1];" : "=r"(w[0]) : "l"(p));
    else if constexpr (sizeof(T) == 4) asm volatile("ld.global.cg.u32 %0, [%1];" : "=r"(w[0]) : "l"(p));
    else if constexpr (sizeof(T) == 8)
        asm volatile("ld.global.cg.v2.u32 {%0,%1}, [%2];" : "=r"(w[0]), "=r"(w[1]) : "l"(p));
    else
        asm volatile("ld.global.cg.v4.u32 {%0,%1,%2,%3}, [%4];"
                     : "=r"(w[0]), "=r"(w[1]), "=r"(w[2]), "=r"(w[3])
                     : "l"(p));
    T v;
    memcpy(&v, w, sizeof v);
    return v;
}

/// Weights that are read once: past the first-level cache.
/// volatile: where it stands, and not where it would need fewer registers.
__device__ __forceinline__ uint4 load_once(const uint4 *p) {
    uint4 v;
    asm volatile("ld.global.cs.v4.u32 {%0,%1,%2,%3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(p));
    return v;
}

void allow_shared(const void *kernel, size_t dynamic_bytes);

/// Programmatic dependent launch, sm_90 and later: the next kernel of the stream may begin to run, as far as its own
/// wait_for_former(); and what the kernels before this one wrote is there.
__device__ __forceinline__ void let_next_begin() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
__device__ __forceinline__ void wait_for_former() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/// early: as soon as the kernel before it lets it, where the current device can.
void start(const void *kernel, dim3 grid, dim3 block, void **arguments, size_t dynamic_bytes, Stream stream,
           bool early);

/// Arguments are converted to the kernel's own parameter types and copied before the call returns.
template <class... P, class... A>
void launch_kernel(bool early, void (*kernel)(P...), dim3 grid, dim3 block, size_t dynamic_bytes, Stream stream,
                   A &&...args) {
    static_assert(sizeof...(P) == sizeof...(A), "a kernel's parameters, one for one");
    if (!grid.x || !grid.y || !grid.z) return;
    if (dynamic_bytes > 48 * 1024) allow_shared(reinterpret_cast<const void *>(kernel), dynamic_bytes);
    std::tuple<std::remove_cv_t<P>...> values(static_cast<P>(std::forward<A>(args))...);
    std::apply(
        [&](auto &...v) {
            void *pointers[sizeof...(P) + 1] = {const_cast<void *>(static_cast<const void *>(&v))..., nullptr};
            start(reinterpret_cast<const void *>(kernel), grid, block, pointers, dynamic_bytes, stream, early);
        },
        values);
}

} // namespace dsv4::gpu
