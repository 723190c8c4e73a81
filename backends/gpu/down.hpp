// w2 of all experts of a single token, the shared one last, added in the order of the route: what multiply_few and
// combine_kernel do for more tokens, sum for sum, in one launch and without the rows between them.
#pragma once
#include "backends/gpu/multiply.hpp"

namespace dsv4::gpu {

constexpr int most_active = 64;

struct Down {
    StepView step;
    const Matrix *list;                  // [E]
    Matrix like, shared;                 // like: of every expert, without addresses; shared.data NULL: there is none
    const float *route;                  // k experts, then their weights
    const float *hidden, *shared_hidden; // [k, I], [Is]
    float *y;
    int32_t active, experts;

    /// Units of a row tile: the shared expert's segments, then those of every pair.
    __host__ __device__ int shared_units() const { return shared.data ? segments_of(shared.columns) : 0; }
    __host__ __device__ int units() const { return shared_units() + active * segments_of(like.columns); }
    size_t bytes() const {
        const size_t shared_pitch = shared.data ? size_t(pitch_of(shared.columns)) : 0;
        return size_t(units()) * 64 + 192 + zeros_bytes + (shared_pitch + size_t(active) * size_t(pitch_of(like.columns))) * 2;
    }
};

/// Units first, first + block_subgroups, ... of `units` of matrices like `like`, `count` to a matrix: the sums of 16
/// rows each.
template <class Reader>
__device__ __forceinline__ void down_units(const Matrix &like, const uint8_t *const *data, const uint8_t *const *scale,
                                           int first, int units, int row0, const uint16_t *xs, int pitch,
                                           const uint16_t *zeros, float *sums) {
    const int count = segments_of(like.columns), lane = lane_of_subgroup();
    Work work = {};
    work.w = like, work.rows = like.rows;
    // At unit u or the next of a matrix that is there; its number.
    const auto find = [&](int u) {
        while (u < units && !data[u / count]) u += block_subgroups;
        if (u < units) work.w.data = data[u / count], work.w.scale = scale[u / count];
        return u;
    };
    Reader reader;
    int u = find(first);
    if (u < units) reader.start(work, {row0, u % count, 16});
#pragma unroll 1
    while (u < units) {
        const int me = u;
        const auto go_on = [&](Reader &to) {
            u = find(me + block_subgroups);
            if (u < units) to.aim(work, {row0, u % count, 16});
            return u < units;
        };
        float c[1][4];
        reader.multiply(like.columns, me % count, go_on, xs + me / count * pitch + me % count * segment, pitch, 1, zeros,
                        c);
        float *to = sums + me * 16;
        if (lane % 4 == 0) to[lane / 4] = c[0][0], to[lane / 4 + 8] = c[0][2];
    }
}
template <class F, class... Rest>
__device__ __forceinline__ void down_units_of(const Matrix &like, const Rest &...rest) {
    if (RegularReader<F>::takes(like)) down_units<RegularReader<F>>(like, rest...);
    else down_units<AnyReader<F>>(like, rest...);
}
template <class... Rest> __device__ __forceinline__ void down_units(const Matrix &like, const Rest &...rest) {
    switch (like.dtype) {
    case DSV4_FP4_E2M1: down_units_of<Fp4>(like, rest...); break;
    case DSV4_FP8_E4M3: down_units_of<Fp8>(like, rest...); break;
    default: down_units_of<Bf16>(like, rest...);
    }
}
__device__ __forceinline__ void stage_down(const Work &work, int columns, uint16_t *to) {
    const int K = work.w.columns;
    switch (work.w.dtype) {
    case DSV4_FP4_E2M1: stage_inputs<Fp4>(work, 0, columns, 0, padded(K), to, pitch_of(K)); break;
    case DSV4_FP8_E4M3: stage_inputs<Fp8>(work, 0, columns, 0, padded(K), to, pitch_of(K)); break;
    default: stage_inputs<Bf16>(work, 0, columns, 0, padded(K), to, pitch_of(K));
    }
}

/// Grid: row tiles.
__global__ void __launch_bounds__(block_threads, 2) down_kernel(DSV4_PARAMETER Down a) {
    enter_kernel();
    DSV4_SHARED(const uint8_t *, places, [2][most_active]);
    if (!a.step.tokens()) return;
    float *sums = dynamic_shared<float>();
    const int shared_count = a.shared_units(), count = segments_of(a.like.columns), pitch = pitch_of(a.like.columns);
    auto *zeros = reinterpret_cast<uint16_t *>(sums + (a.units() + 1) / 2 * 32 + 16); // in other banks than shared_xs
    uint16_t *shared_xs = zeros + 32 + zeros_bytes / 2;
    uint16_t *xs = shared_xs + (a.shared.data ? pitch_of(a.shared.columns) : 0);
    const int row0 = int(blockIdx.x) * 16;
    if (threadIdx.x < zeros_bytes / 4) reinterpret_cast<uint32_t *>(zeros)[threadIdx.x] = 0;
    if (int(threadIdx.x) < a.active) {
        const int32_t e = reinterpret_cast<const int32_t *>(a.route)[threadIdx.x];
        const bool there = e >= 0 && e < a.experts;
        places[0][threadIdx.x] = there ? a.list[e].data : nullptr;
        places[1][threadIdx.x] = there ? a.list[e].scale : nullptr;
    }
    Work work = {};
    work.w = a.like, work.divisor = 1, work.x = a.hidden, work.ldx = a.like.columns;
    stage_down(work, a.active, xs);
    if (a.shared.data) {
        work.w = a.shared, work.x = a.shared_hidden, work.ldx = a.shared.columns;
        stage_down(work, 1, shared_xs);
    }
    __syncthreads();
    const int me = subgroup_of_block();
    if (shared_count) down_units(a.shared, &a.shared.data, &a.shared.scale, me, shared_count, row0, shared_xs, 0,
                   zeros, sums);
    // The subgroups that had none of the shared expert's units begin.
    const int routed = (me + block_subgroups - shared_count % block_subgroups) % block_subgroups;
    down_units(a.like, places[0], places[1], routed, a.active * count, row0, xs, pitch, zeros,
               sums + shared_count * 16);
    __syncthreads();
    const int row = row0 + int(threadIdx.x);
    if (threadIdx.x >= 16 || row >= a.like.rows) return;
    const float *from = sums + threadIdx.x;
    const auto whole = [&](int first, int segments) {
        float sum = from[first * 16];
        for (int s = 1; s < segments; ++s) sum += from[(first + s) * 16];
        return sum;
    };
    float sum = 0;
    for (int pair = 0; pair < a.active; ++pair)
        if (places[0][pair]) sum += whole(shared_count + pair * count, count);
    if (shared_count) sum += whole(0, shared_count);
    a.y[row] = sum;
}

} // namespace dsv4::gpu
