// The kernel dialect on the host, for tests: the words of CUDA C++, its vector types, and the collectives, each of
// which is a meeting of 32 fibers (machine.hpp). Not fast, not installed; what it is for is finding what is wrong.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include "backends/gpu/emulated/machine.hpp"

#define __global__
#define __device__
#define __host__
#define __constant__ static const
#define __shared__ static
#define __forceinline__ inline
#define __noinline__
#define __launch_bounds__(...)
#define __align__(n) alignas(n)

/// Static shared memory, full of NaN at the start of every block.
#define DSV4_SHARED(type, name, ...)                                                                                   \
    static type name __VA_ARGS__;                                                                                      \
    static uint64_t name##_block = 0;                                                                                  \
    ::dsv4::gpu::emulated::fresh_for_block(name##_block, &name, sizeof name)

#define threadIdx (::dsv4::gpu::emulated::machine.current->thread)
#define blockIdx (::dsv4::gpu::emulated::machine.block_index)
#define blockDim (::dsv4::gpu::emulated::machine.block_size)
#define gridDim (::dsv4::gpu::emulated::machine.grid_size)
#define warpSize 32
#define __syncthreads() ::dsv4::gpu::emulated::block_barrier()
#define __threadfence() ((void)0)
#define __threadfence_block() ((void)0)

using dim3 = dsv4::gpu::emulated::Dim3;

struct alignas(8) float2 { float x, y; };
struct float3 { float x, y, z; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(8) int2 { int32_t x, y; };
struct alignas(16) int4 { int32_t x, y, z, w; };
struct alignas(8) uint2 { uint32_t x, y; };
struct alignas(16) uint4 { uint32_t x, y, z, w; };
struct alignas(4) uchar4 { uint8_t x, y, z, w; };
struct alignas(4) ushort2 { uint16_t x, y; };
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline int2 make_int2(int32_t x, int32_t y) { return {x, y}; }
inline int4 make_int4(int32_t x, int32_t y, int32_t z, int32_t w) { return {x, y, z, w}; }
inline uint2 make_uint2(uint32_t x, uint32_t y) { return {x, y}; }
inline uint4 make_uint4(uint32_t x, uint32_t y, uint32_t z, uint32_t w) { return {x, y, z, w}; }

inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline float __expf(float x) { return std::exp(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline uint32_t __float_as_uint(float f) {
    uint32_t u;
    std::memcpy(&u, &f, 4);
    return u;
}
inline float __uint_as_float(uint32_t u) {
    float f;
    std::memcpy(&f, &u, 4);
    return f;
}
inline int __float_as_int(float f) { return int(__float_as_uint(f)); }
inline float __int_as_float(int i) { return __uint_as_float(uint32_t(i)); }
inline int __popc(uint32_t v) { return __builtin_popcount(v); }
inline int __clz(int v) { return v ? __builtin_clz(uint32_t(v)) : 32; }
inline int __ffs(int v) { return __builtin_ffs(v); }
inline uint32_t __byte_perm(uint32_t a, uint32_t b, uint32_t selector) {
    const uint64_t both = uint64_t(b) << 32 | a;
    uint32_t out = 0;
    for (int i = 0; i < 4; ++i) {
        const uint32_t s = selector >> (4 * i), byte = uint32_t(both >> (8 * (s & 7u))) & 255u;
        out |= (s & 8u ? (byte & 128u ? 255u : 0u) : byte) << (8 * i);
    }
    return out;
}
template <class T> T __ldg(const T *p) { return *p; }
template <class T> T __ldcs(const T *p) { return *p; }

// One fiber runs at a time, and changes only at a meeting: plain code is atomic.
template <class T> T atomicAdd(T *p, T v) { return std::exchange(*p, T(*p + v)); }
template <class T> T atomicMax(T *p, T v) { return std::exchange(*p, *p < v ? v : *p); }
template <class T> T atomicMin(T *p, T v) { return std::exchange(*p, v < *p ? v : *p); }
template <class T> T atomicOr(T *p, T v) { return std::exchange(*p, T(*p | v)); }
template <class T> T atomicExch(T *p, T v) { return std::exchange(*p, v); }
template <class T> T atomicCAS(T *p, T expected, T v) {
    const T old = *p;
    if (old == expected) *p = v;
    return old;
}

using std::max;
using std::min;

namespace dsv4::gpu {

inline float float_of(uint32_t u) { return __uint_as_float(u); }
inline uint32_t bits_of(float f) { return __float_as_uint(f); }

using Stream = emulated::Stream *;
using Event = emulated::Event *;
using Graph = emulated::Graph *;

template <class T> T shuffle(T v, int lane) {
    static_assert(sizeof(T) <= emulated::exchange_bytes && std::is_trivially_copyable_v<T>);
    emulated::Meeting meeting(emulated::SHUFFLE);
    std::memcpy(meeting.mine(), &v, sizeof v);
    meeting.hold();
    std::memcpy(&v, meeting.of(lane & 31), sizeof v);
    return v;
}
template <class T> T shuffle_xor(T v, int mask) { return shuffle(v, emulated::machine.current->lane ^ mask); }

inline void sync_subgroup() { emulated::Meeting(emulated::SYNC).hold(); }

inline uint32_t subgroup_ballot(bool v) {
    emulated::Meeting meeting(emulated::BALLOT);
    *meeting.mine() = v;
    meeting.hold();
    uint32_t bits = 0;
    for (int lane = 0; lane < 32; ++lane) bits |= uint32_t(*meeting.of(lane) != 0) << lane;
    return bits;
}

/// The order of a butterfly of shuffles, in one meeting.
template <class T, class Combine> T butterfly(T v, emulated::Kind kind, Combine combine) {
    emulated::Meeting meeting(kind);
    std::memcpy(meeting.mine(), &v, sizeof v);
    meeting.hold([&] {
        T all[32];
        for (int lane = 0; lane < 32; ++lane) std::memcpy(&all[lane], meeting.of(lane), sizeof(T));
        for (int mask = 16; mask; mask /= 2)
            for (int lane = 0; lane < mask; ++lane) all[lane] = combine(all[lane], all[lane + mask]);
        for (int lane = 0; lane < 32; ++lane) std::memcpy(meeting.of(lane), &all[0], sizeof(T));
    });
    std::memcpy(&v, meeting.mine(), sizeof v);
    return v;
}
template <class T> T subgroup_sum(T v) {
    return butterfly(v, emulated::SUM, [](T a, T b) { return T(a + b); });
}
template <class T> T subgroup_max(T v) {
    return butterfly(v, emulated::MAX, [](T a, T b) { return b > a ? b : a; });
}
template <class T> T subgroup_min(T v) {
    return butterfly(v, emulated::MIN, [](T a, T b) { return b < a ? b : a; });
}

inline float reciprocal(float x) { return 1.0f / x; }

template <class T> T *dynamic_shared() { return reinterpret_cast<T *>(emulated::machine.dynamic_shared); }

inline void mma_bf16_m16n8k16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    emulated::Meeting meeting(emulated::MMA);
    std::memcpy(meeting.mine(), c, 16);
    std::memcpy(meeting.mine() + 16, a, 16);
    std::memcpy(meeting.mine() + 32, b, 8);
    meeting.hold([&] { emulated::multiply_fragments(meeting.of(0)); });
    std::memcpy(c, meeting.mine(), 16);
}

inline void copy_async_16(void *shared, const void *global) {
    if ((reinterpret_cast<uintptr_t>(shared) | reinterpret_cast<uintptr_t>(global)) % 16)
        emulated::fail("copy_async_16: an address is not a multiple of 16");
    emulated::copy_later(shared, global); // lands at copy_wait, so that reading too early shows
}
inline void copy_commit() { emulated::copy_commit(); }
template <int N> void copy_wait() { emulated::copy_wait(N); }

template <class T> T load_fresh(const T *p) { return *p; }
inline uint4 load_once(const uint4 *p) { return *p; }

// Kernels run one after the other; that every thread of a kernel launched early waits is checked.
inline void let_next_begin() {}
inline void wait_for_former() { emulated::machine.current->waited = true; }

template <class... P, class... A>
void launch_kernel(bool early, void (*kernel)(P...), dim3 grid, dim3 block, size_t dynamic_bytes, Stream stream,
                   A &&...args) {
    static_assert(sizeof...(P) == sizeof...(A), "a kernel's parameters, one for one");
    if (!grid.x || !grid.y || !grid.z) return;
    std::tuple<std::remove_cv_t<P>...> values(static_cast<P>(std::forward<A>(args))...);
    emulated::enqueue(stream, {grid, block, dynamic_bytes, [early, kernel, values] {
                                   emulated::machine.current->waited = false;
                                   std::apply(kernel, values);
                                   if (early && !emulated::machine.current->waited)
                                       emulated::fail("a thread of a kernel launched early ended without waiting");
                               }});
}

} // namespace dsv4::gpu
