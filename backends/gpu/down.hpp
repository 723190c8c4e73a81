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
        return size_t(units()) * 64 + (shared_pitch + size_t(active) * size_t(pitch_of(like.columns))) * 2;
    }
};

/// A unit of matrix `w`: the sums of its 16 rows.
template <class F>
__device__ __forceinline__ void down_unit(const Matrix &w, int row0, int s, const uint16_t *xs, float *sums) {
    Work work = {};
    work.w = w, work.rows = w.rows;
    Raw<F> raw;
    raw.load(work, row0, s, 0);
    float c[1][4];
    multiply_unit<F, 1>(work, raw, Unit{row0, s, 16}, Unit{-1, 0, 0}, xs + s * segment, 0, 1, c);
    const int lane = lane_of_subgroup();
    if (lane % 4 == 0) sums[lane / 4] = c[0][0], sums[lane / 4 + 8] = c[0][2];
}
__device__ __forceinline__ void down_unit(const Matrix &w, int row0, int s, const uint16_t *xs, float *sums) {
    switch (w.dtype) {
    case DSV4_FP4_E2M1: down_unit<Fp4>(w, row0, s, xs, sums); break;
    case DSV4_FP8_E4M3: down_unit<Fp8>(w, row0, s, xs, sums); break;
    default: down_unit<Bf16>(w, row0, s, xs, sums);
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
    DSV4_SHARED(const uint8_t *, places, [2][most_active]);
    if (!a.step.tokens()) return;
    float *sums = dynamic_shared<float>();
    const int shared_count = a.shared_units(), count = segments_of(a.like.columns), pitch = pitch_of(a.like.columns);
    auto *shared_xs = reinterpret_cast<uint16_t *>(sums + a.units() * 16);
    uint16_t *xs = shared_xs + (a.shared.data ? pitch_of(a.shared.columns) : 0);
    const int row0 = int(blockIdx.x) * 16;
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
#pragma unroll 1
    for (int u = subgroup_of_block(); u < a.units(); u += block_subgroups) {
        const bool is_shared = u < shared_count;
        const int pair = is_shared ? 0 : (u - shared_count) / count, s = is_shared ? u : (u - shared_count) % count;
        Matrix w = is_shared ? a.shared : a.like;
        if (!is_shared) w.data = places[0][pair], w.scale = places[1][pair];
        if (w.data) down_unit(w, row0, s, is_shared ? shared_xs : xs + pair * pitch, sums + u * 16);
    }
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
