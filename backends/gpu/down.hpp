// w2 of all experts of a single token, the shared one last, added in the order of the route: what multiply_few and
// combine_kernel do for more tokens, sum for sum, in one launch and without the rows between them.
#pragma once
#include "backends/gpu/multiply.hpp"

namespace dsv4::gpu {

constexpr int most_active = 64;

struct Down {
    StepView step;
    const Matrix *list;                     // [E]
    Matrix like, shared;                    // like: of every expert, without addresses; shared.data NULL: there is none
    const float *route;                     // k experts, then their weights
    const float *hidden, *shared_hidden;    // [k, I], [Is]
    const uint16_t *packed, *shared_packed; // or the same in operand order, where that has no gaps
    float *y;
    int32_t active, experts;

    /// Units of a row tile: the shared expert's segments, then those of every pair.
    __host__ __device__ int shared_units() const { return shared.data ? segments_of(shared.columns) : 0; }
    __host__ __device__ int units() const { return shared_units() + active * segments_of(like.columns); }
    /// Of the subgroups of a block, those that take the shared expert: as many as it has of the bytes, in pairs, which
    /// where waves have 64 threads go together.
    __host__ __device__ int shared_subgroups() const {
        if (!shared.data) return 0;
        const int64_t all = shared.row_bytes + active * like.row_bytes;
        const int pairs = int((block_subgroups / 2 * shared.row_bytes + all / 2) / all);
        return 2 * (pairs < 1 ? 1 : pairs < block_subgroups / 2 ? pairs : block_subgroups / 2 - 1);
    }
    size_t bytes() const {
        const size_t shared_pitch = shared.data ? size_t(pitch_of(shared.columns)) : 0;
        return size_t(units()) * 64 + 192 + zeros_bytes +
               (shared_pitch + size_t(active) * size_t(pitch_of(like.columns))) * 2;
    }
};

/// The block's own: where the experts' matrices are.
struct DownShared {
    const uint8_t *data[most_active], *scale[most_active];
};

/// What a subgroup does: units first, first + every, ... of `units` of matrices like `like`, `count` to a matrix. Its
/// first weights are on their way before the kernel before this one is over, and before activations are staged.
template <class F, class Stage>
__device__ __forceinline__ void down_units(const Matrix &like, const uint8_t *const *data, const uint8_t *const *scale,
                                           int first, int every, int units, int row0, const uint16_t *xs,
                                           const uint16_t *zeros, float *sums, Stage &&stage) {
    const int count = segments_of(like.columns), pitch = pitch_of(like.columns), lane = lane_of_subgroup();
    const bool regular = RegularReader<F>::takes(like);
    Work work = {};
    work.w = like, work.rows = like.rows;
    struct Place {
        int unit, matrix, segment;
    };
    const auto settle = [&](Place &at) { // the next unit, from `unit` on, whose matrix is there
        while (at.unit < units) {
            while (at.segment >= count) at.segment -= count, ++at.matrix;
            if (data[at.matrix]) break;
            at.unit += every, at.segment += every;
        }
        return at.unit < units;
    };
    const auto aim = [&](RegularReader<F> &reader, const Place &at) {
        work.w.data = data[at.matrix], work.w.scale = scale[at.matrix];
        reader.aim(work, {row0, at.segment, 16});
    };
    Place at{first, 0, first};
    RegularReader<F> reader;
    if (settle(at) && regular) aim(reader, at), reader.start();
    stage();
    const auto store = [&](int unit, const float(&c)[4]) {
        float *to = sums + unit * 16;
        if (lane % 4 == 0) to[lane / 4] = c[0], to[lane / 4 + 8] = c[2];
    };
    bool right = regular;
#pragma unroll 1
    while (regular && at.unit < units) {
        Place next{at.unit + every, at.matrix, at.segment + every};
        const bool more = settle(next);
        const auto go_on = [&](RegularReader<F> &to) {
            if (more) aim(to, next);
            return more;
        };
        float c[4];
        right &= reader.multiply(like.columns, at.segment, go_on, xs + at.matrix * pitch + at.segment * segment, pitch,
                                 1, zeros, c);
        store(at.unit, c);
        at = next;
    }
    if (right) return;
    at = Place{first, 0, first};
#pragma unroll 1
    while (settle(at)) {
        work.w.data = data[at.matrix], work.w.scale = scale[at.matrix];
        AnyUnit<F> any(work, {row0, at.segment, 16});
        float c[1][4];
        any_segment<F, 1>(any, like.columns, xs + at.matrix * pitch + at.segment * segment, pitch, 1, c);
        store(at.unit, c[0]);
        at.unit += every, at.segment += every;
    }
}

__device__ __forceinline__ void copy_down(const Matrix &like, const uint16_t *x, int rows, uint16_t *to) {
#pragma unroll 1
    for (int row = 0; row < rows; ++row)
#pragma unroll 1
        for (int k = int(threadIdx.x) * 8; k < like.columns; k += block_threads * 8)
            copy_async_16(to + row * pitch_of(like.columns) + k, x + int64_t(row) * like.columns + k);
}
__device__ __forceinline__ void stage_down(const Matrix &like, const float *x, int rows, uint16_t *to) {
    Work work = {};
    work.w = like, work.divisor = 1, work.x = x, work.ldx = like.columns;
    const int K = like.columns;
    switch (like.dtype) {
    case DSV4_FP4_E2M1: stage_inputs<Fp4>(work, 0, rows, 0, padded(K), to, pitch_of(K)); break;
    case DSV4_FP8_E4M3: stage_inputs<Fp8>(work, 0, rows, 0, padded(K), to, pitch_of(K)); break;
    default: stage_inputs<Bf16>(work, 0, rows, 0, padded(K), to, pitch_of(K));
    }
}

/// Grid: row tiles. The kernel before this one is a product, and the route was there before it (enter_product).
__global__ void __launch_bounds__(block_threads, 2) down_kernel(DSV4_PARAMETER Down a) {
    let_next_begin();
    DSV4_SHARED(DownShared, at, [1]);
    if (!a.step.tokens()) return wait_for_former();
    const int shared_count = a.shared_units(), count = segments_of(a.like.columns), me = subgroup_of_block();
    float *sums = dynamic_shared<float>();
    auto *zeros = reinterpret_cast<uint16_t *>(sums + (a.units() + 1) / 2 * 32 + 16); // in other banks than shared_xs
    uint16_t *shared_xs = zeros + 32 + zeros_bytes / 2;
    uint16_t *xs = shared_xs + (a.shared.data ? pitch_of(a.shared.columns) : 0);
    const int row0 = int(blockIdx.x) * 16;
    if (threadIdx.x < zeros_bytes / 4) reinterpret_cast<uint32_t *>(zeros)[threadIdx.x] = 0;
    if (int(threadIdx.x) < a.active) {
        const int32_t e = load_fresh(reinterpret_cast<const int32_t *>(a.route) + threadIdx.x);
        const bool there = e >= 0 && e < a.experts;
        at->data[threadIdx.x] = there ? a.list[e].data : nullptr;
        at->scale[threadIdx.x] = there ? a.list[e].scale : nullptr;
    }
    __syncthreads();
    const auto stage = [&] {
        wait_for_former();
        if (a.packed) {
            copy_down(a.like, a.packed, a.active, xs);
            if (a.shared.data) copy_down(a.shared, a.shared_packed, 1, shared_xs);
            copy_commit();
            copy_wait<0>();
        } else {
            stage_down(a.like, a.hidden, a.active, xs);
            if (a.shared.data) stage_down(a.shared, a.shared_hidden, 1, shared_xs);
        }
        __syncthreads();
    };
    const int sharing = a.shared_subgroups();
    const bool shares = me < sharing;
    const Matrix &like = shares ? a.shared : a.like;
    const uint8_t *const *data = shares ? &a.shared.data : at->data, *const *scale =
                                                                         shares ? &a.shared.scale : at->scale;
    const int first = shares ? me : me - sharing, every = shares ? sharing : block_subgroups - sharing;
    const int units = shares ? shared_count : a.active * count;
    const uint16_t *x = shares ? shared_xs : xs;
    float *to = sums + (shares ? 0 : shared_count * 16);
    switch (like.dtype) { // every subgroup stages once, wherever it is
    case DSV4_FP4_E2M1: down_units<Fp4>(like, data, scale, first, every, units, row0, x, zeros, to, stage); break;
    case DSV4_FP8_E4M3: down_units<Fp8>(like, data, scale, first, every, units, row0, x, zeros, to, stage); break;
    default: down_units<Bf16>(like, data, scale, first, every, units, row0, x, zeros, to, stage);
    }
    __syncthreads();
    const int row = row0 + int(threadIdx.x);
    if (threadIdx.x >= 16 || row >= a.like.rows) return;
    const float *from = sums + threadIdx.x;
    const auto whole = [&](int first, int segments) {
        float sum = from[first * 16];
#pragma unroll 4
        for (int s = 1; s < segments; ++s) sum += from[(first + s) * 16];
        return sum;
    };
    float sum = 0;
#pragma unroll 1
    for (int pair = 0; pair < a.active; ++pair)
        if (at->data[pair]) sum += whole(shared_count + pair * count, count);
    if (shared_count) sum += whole(0, shared_count);
    a.y[row] = sum;
}

} // namespace dsv4::gpu
