// Multiplication by a warpgroup on sm_90a: what backends/gpu/warpgroup.hpp describes, by wgmma. On this chip a chain of
// wgmma gives the bits of the chain of mma.sync; the conformance suite checks it wherever a row's company changes the
// kernel.
#pragma once
#include <cstdint>

namespace dsv4::gpu {

__device__ __forceinline__ void publish_shared() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
__device__ __forceinline__ void warpgroup_begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void warpgroup_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int N> __device__ __forceinline__ void warpgroup_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}
template <int n> __device__ __forceinline__ void keep_registers(uint32_t (&r)[n][4]) {
#pragma unroll
    for (int i = 0; i < n; ++i) asm volatile("" : "+r"(r[i][0]), "+r"(r[i][1]), "+r"(r[i][2]), "+r"(r[i][3])::"memory");
}
template <int n> __device__ __forceinline__ void keep_registers(float (&r)[n][4]) {
#pragma unroll
    for (int i = 0; i < n; ++i) asm volatile("" : "+f"(r[i][0]), "+f"(r[i][1]), "+f"(r[i][2]), "+f"(r[i][3])::"memory");
}

/// Of a tile: rows of 128 bytes, swizzled, 1024 bytes from eight rows to the next.
__device__ __forceinline__ uint64_t tile_descriptor(const uint16_t *tile) {
    const auto at = static_cast<uint32_t>(__cvta_generic_to_shared(tile));
    return uint64_t((at & 0x3FFFFu) >> 4) | uint64_t(1) << 16 | uint64_t(64) << 32 | uint64_t(1) << 62;
}

#define DSV4_SUMS_8(c, n)                                                                                              \
    "+f"(c[n][0]), "+f"(c[n][1]), "+f"(c[n][2]), "+f"(c[n][3]), "+f"(c[n + 1][0]), "+f"(c[n + 1][1]),                  \
        "+f"(c[n + 1][2]), "+f"(c[n + 1][3])

__device__ __forceinline__ void warpgroup_multiply(float (&c)[8][4], const uint32_t (&a)[4], const uint16_t *tile,
                                                   int k16) {
    asm volatile("{ .reg .pred p; setp.ne.b32 p, 1, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "
                 "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
                 "{%32, %33, %34, %35}, %36, p, 1, 1, 0; }"
                 : DSV4_SUMS_8(c, 0), DSV4_SUMS_8(c, 2), DSV4_SUMS_8(c, 4), DSV4_SUMS_8(c, 6)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(tile_descriptor(tile) + uint64_t(2 * k16)));
}
__device__ __forceinline__ void warpgroup_multiply(float (&c)[16][4], const uint32_t (&a)[4], const uint16_t *tile,
                                                   int k16) {
    asm volatile("{ .reg .pred p; setp.ne.b32 p, 1, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 "
                 "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
                 "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
                 "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
                 "{%64, %65, %66, %67}, %68, p, 1, 1, 0; }"
                 : DSV4_SUMS_8(c, 0), DSV4_SUMS_8(c, 2), DSV4_SUMS_8(c, 4), DSV4_SUMS_8(c, 6), DSV4_SUMS_8(c, 8),
                   DSV4_SUMS_8(c, 10), DSV4_SUMS_8(c, 12), DSV4_SUMS_8(c, 14)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(tile_descriptor(tile) + uint64_t(2 * k16)));
}
#undef DSV4_SUMS_8

} // namespace dsv4::gpu
