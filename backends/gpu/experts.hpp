// The device side of the experts: grouping pairs of (token, expert) by expert, what the multiplications of a launch
// work on, and the row operations around them.
#pragma once
#include "backends/gpu/norm.hpp"
#include "backends/gpu/plain.hpp"
#include "backends/gpu/scan.hpp"
#include "backends/gpu/tiles.hpp"

namespace dsv4::gpu {

/// The pairs of one expert, plan.pairs[first, first + count), and where its matrices are (w1, w3, w2): a block is one
/// load away from its weights. Pair p is token p / k with its expert p % k.
struct Group {
    const uint8_t *data[3], *scale[3];
    int32_t first, count, first_tile, reserved;
};
struct Lists {
    const Matrix *of[3]; // w1, w3, w2: [E]
};
struct Plan {
    int32_t *counts; // groups, tiles
    Group *groups;   // ascending by expert
    int32_t *pairs;  // ascending within a group
};

/// Block e finds the pairs of expert e and everything that lies before them; `width` pairs of an expert make a tile.
/// Grid: experts.
__global__ void __launch_bounds__(block_threads)
    plan_kernel(const int32_t *route, StepView step, int32_t active, Lists lists, Plan plan, int32_t width) {
    enter_kernel();
    DSV4_SHARED(int, scratch, [4][32]);
    int *counts = dynamic_shared<int>();
    const int experts = int(gridDim.x), e = int(blockIdx.x), pairs = step.tokens() * active, me = int(threadIdx.x);
    const auto expert_of = [&](int p) { return route[int64_t(p / active) * 2 * active + p % active]; };
    for (int i = me; i < experts; i += block_threads) counts[i] = 0;
    __syncthreads();
    for (int p = me; p < pairs; p += block_threads)
        if (const int32_t x = expert_of(p); x >= 0 && x < experts) atomicAdd(&counts[x], 1);
    __syncthreads();
    int first = 0, group = 0, tile = 0;
    const int end = e == 0 ? experts : e; // block 0 has nothing before it and counts the whole
    for (int i = me; i < end; i += block_threads) {
        first += counts[i];
        group += counts[i] > 0;
        tile += int(ceil_div(counts[i], width));
    }
    first = block_sum(first, scratch[0]), group = block_sum(group, scratch[1]), tile = block_sum(tile, scratch[2]);
    if (e == 0) {
        if (me == 0) plan.counts[0] = group, plan.counts[1] = tile;
        first = group = tile = 0;
    }
    if (!counts[e]) return;
    if (me == 0) {
        Group &to = plan.groups[group];
        for (int i = 0; i < 3; ++i) to.data[i] = lists.of[i][e].data, to.scale[i] = lists.of[i][e].scale;
        to.first = first, to.count = counts[e], to.first_tile = tile;
    }
    const int each = int(ceil_div(pairs, block_threads)), from = min(me * each, pairs), to = min(from + each, pairs);
    int mine = 0, all;
    for (int p = from; p < to; ++p) mine += expert_of(p) == e;
    int at = first + exclusive_sum(mine, scratch[3], all);
    for (int p = from; p < to; ++p)
        if (expert_of(p) == e) plan.pairs[at++] = p;
}

/// What the multiplications of one launch work on: one or two matrices of every expert, and of the shared one.
struct Experts {
    struct Side { // of the routed experts, or of the shared one
        const float *x, *up;
        const uint16_t *packed;
        int64_t ldx;
        float *y[2];
        int64_t ldy;
        int32_t rows, columns;  // of a matrix
        int32_t repeat, blocks; // of KERNEL_FEW: of a matrix; the blocks of all matrices lie in one row
        uint16_t *packed_y;     // of KERNEL_FEW: y[0] as the next multiplication takes it, one of `packed_type`
        int32_t packed_type;
    };
    StepView step;
    Plan plan;
    Matrix like[2], shared_matrix[2]; // like: of every expert, without addresses
    Side routed, shared;
    const float *route;
    int32_t matrices, first_matrix; // of Group
    int32_t active, divisor;        // divisor: active where x has a row per token, 1 where it has one per pair
    bool paired;                    // few: y[0] = weight * swiglu of both matrices, of tiles of 8 rows
    int32_t shared_blocks;          // block rows of the shared expert (few: whether there is one); they come first
    const Matrix *single[2];        // the matrices of all experts where there is one token and no plan
    bool input_there;               // single: before this kernel can begin, as when route has just been made of it
    int32_t experts;
    float limit;
    bool round_output;

    static constexpr bool of_the_step = true; // the route says whose weights to read
    __device__ __forceinline__ bool find(Work &work, Kernel kernel, int width) const {
        int32_t x = int32_t(blockIdx.x), y = int32_t(blockIdx.y);
        bool is_shared = y < shared_blocks;
        int matrix = 0;
        if (kernel == KERNEL_FEW) {
            const int32_t before = shared_blocks * shared.blocks;
            is_shared = x < before;
            if (!is_shared) x -= before, y = x / routed.blocks, x -= y * routed.blocks;
        } else {
            if (!is_shared) y -= shared_blocks;
            const Side &side = is_shared ? shared : routed;
            const int height = height_of(kernel, side.columns), blocks = (side.rows + height - 1) / height;
            matrix = x / blocks, x -= matrix * blocks;
        }
        const Side &side = is_shared ? shared : routed;
        work = {};
        work.block = x, work.repeat = side.repeat;
        if (matrix >= matrices) return false;
        if (is_shared) {
            work.w = shared_matrix[matrix];
            if (paired) work.second = shared_matrix[1].data, work.second_scale = shared_matrix[1].scale;
            work.column = y * width, work.columns = step.tokens(), work.divisor = 1;
        } else {
            work.w = like[matrix];
            work.weight = route, work.active = active, work.divisor = divisor;
            if (single[0]) {
                work.base = y, work.columns = 1;
                if (!input_there && !find_weights(work)) return false;
            } else {
                int32_t g = y;
                if (width) { // the last group that begins at this tile or before
                    if (y >= plan.counts[1]) return false;
                    int32_t end = plan.counts[0];
                    for (g = 0; end - g > 1;) {
                        const int32_t middle = (g + end) / 2;
                        if (plan.groups[middle].first_tile <= y) g = middle;
                        else end = middle;
                    }
                }
                if (g >= plan.counts[0]) return false;
                const Group &group = plan.groups[g];
                work.w.data = group.data[first_matrix + matrix], work.w.scale = group.scale[first_matrix + matrix];
                if (paired) work.second = group.data[1], work.second_scale = group.scale[1];
                work.column = (y - group.first_tile) * width, work.columns = group.count;
                work.gather = plan.pairs + group.first;
            }
        }
        work.rows = side.rows;
        work.x = side.x, work.up = side.up, work.packed = side.packed, work.ldx = side.ldx, work.limit = limit;
        work.y = side.y[matrix], work.ldy = side.ldy;
        work.packed_y = side.packed_y, work.packed_type = side.packed_type;
        work.round_output = round_output;
        return work.column < work.columns;
    }
    /// Of a single token's pair: whose weights, by the route.
    __device__ __forceinline__ bool find_weights(Work &work) const {
        const int32_t expert = work.base < active ? reinterpret_cast<const int32_t *>(route)[work.base] : -1;
        if (expert < 0 || expert >= experts) return false;
        const Matrix &m = single[0][expert];
        work.w.data = m.data, work.w.scale = m.scale;
        if (paired) work.second = single[1][expert].data, work.second_scale = single[1][expert].scale;
        return true;
    }
};

/// Rows to pack for the multiplication of large batches.
struct PackRows {
    Matrix like;
    const float *x, *up, *route; // route NULL: weight 1
    int64_t ldx;
    Rows live;
    int32_t active;
    float limit;
    __device__ __forceinline__ bool find_row(Work &work, int32_t row) const {
        work = {};
        work.w = like, work.x = x, work.up = up, work.weight = route, work.ldx = ldx, work.divisor = 1,
        work.active = active, work.limit = limit;
        return row < live.live();
    }
};

/// gate = weight * swiglu(gate, up) in place; official: as bf16 and, for quantized weights, rounded to FP8 per 128.
__global__ void __launch_bounds__(block_threads)
    swiglu_kernel(float *gate, const float *up, const float *route, int32_t n, int32_t active, float limit,
                  bool official, bool fp8, Rows live) {
    enter_kernel();
    const auto row = int32_t(blockIdx.y);
    if (row >= live.live()) return;
    const int begin = (int(blockIdx.x) * block_subgroups + subgroup_of_block()) * 128;
    const float weight = route ? weight_of_pair(route, row, active) : 1.0f;
    float v[4], top = 0;
    for (int i = 0; i < 4; ++i) {
        const int k = begin + i * subgroup_size + lane_of_subgroup();
        const int64_t at = int64_t(row) * n + k;
        v[i] = k < n ? settled(swiglu(gate[at], up[at], limit, weight), official) : 0.0f;
        top = fmaxf(top, fabsf(v[i]));
    }
    const int exponent = fp8_exponent(subgroup_max(top));
    for (int i = 0; i < 4; ++i) {
        const int k = begin + i * subgroup_size + lane_of_subgroup();
        if (k < n) gate[int64_t(row) * n + k] = fp8 ? fake_fp8(v[i], exponent) : v[i];
    }
}

/// y = the outputs of a token's pairs in the order of its route, then the shared expert's. Grid: columns / 256, tokens.
__global__ void __launch_bounds__(block_threads) combine_kernel(const float *routed, const float *shared, float *y,
                                                                int32_t n, int32_t active, bool official, Rows live) {
    enter_kernel();
    const auto t = int32_t(blockIdx.y), c = int32_t(blockIdx.x) * block_threads + int32_t(threadIdx.x);
    if (t >= live.live() || c >= n) return;
    float sum = 0;
#pragma unroll 4
    for (int32_t i = 0; i < active; ++i) sum += routed[(int64_t(t) * active + i) * n + c];
    if (shared) sum += shared[int64_t(t) * n + c];
    y[int64_t(t) * n + c] = settled(sum, official);
}

} // namespace dsv4::gpu
