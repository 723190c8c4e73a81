// The experts. Tokens are grouped by expert on the device, so that the weights of an expert are read once per step; a
// (token, expert) pair keeps its own rows throughout, and the last kernel adds the pairs of a token in the order of its
// route, the shared expert last. No sum depends on the grouping.
#include "backends/gpu/linear.hpp"
#include "backends/gpu/norm.hpp"
#include "backends/gpu/ops.hpp"
#include "backends/gpu/plain.hpp"
#include "backends/gpu/scan.hpp"
#include "backends/gpu/tiles.hpp"
#include <algorithm>

namespace dsv4::gpu {
namespace {

constexpr int tile_columns = 64; // pairs of an expert in one tile

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

/// Block e finds the pairs of expert e and everything that lies before them. Grid: experts.
__global__ void __launch_bounds__(block_threads)
    plan_kernel(const int32_t *route, StepView step, int32_t active, Lists lists, Plan plan) {
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
        tile += int(ceil_div(counts[i], tile_columns));
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
        int32_t rows, columns; // of a matrix
    };
    StepView step;
    Plan plan;
    Matrix like[2], shared_matrix[2]; // like: of every expert, without addresses
    Side routed, shared;
    const float *route;
    int32_t matrices, first_matrix; // of Group
    int32_t active, divisor;        // divisor: active where x has a row per token, 1 where it has one per pair
    int32_t groups, tiles;          // most there can be
    float limit;
    bool round_output;

    __device__ __forceinline__ bool find(Work &work, Kernel kernel, int width) const {
        const auto y = int32_t(blockIdx.y), most = width ? tiles : groups;
        const bool is_shared = y >= most;
        const Side &side = is_shared ? shared : routed;
        const int height = height_of(kernel, side.columns), blocks = (side.rows + height - 1) / height;
        const int matrix = int(blockIdx.x) / blocks;
        work = {};
        work.block = int(blockIdx.x) % blocks;
        if (matrix >= matrices) return false;
        if (is_shared) {
            work.w = shared_matrix[matrix];
            work.column = (y - most) * width, work.columns = step.tokens();
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
            work.w = like[matrix];
            work.w.data = group.data[first_matrix + matrix], work.w.scale = group.scale[first_matrix + matrix];
            work.column = (y - group.first_tile) * width, work.columns = group.count;
            work.gather = plan.pairs + group.first, work.divisor = divisor;
            work.weight = route, work.active = active;
        }
        work.rows = side.rows;
        work.x = side.x, work.up = side.up, work.packed = side.packed, work.ldx = side.ldx, work.limit = limit;
        work.y = side.y[matrix], work.ldy = side.ldy;
        work.round_output = round_output;
        return work.column < work.columns;
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
        work.w = like, work.x = x, work.up = up, work.weight = route, work.ldx = ldx, work.active = active,
        work.limit = limit;
        return row < live.live();
    }
};

/// gate = weight * swiglu(gate, up) in place; official: as bf16 and, for quantized weights, rounded to FP8 per 128.
__global__ void __launch_bounds__(block_threads)
    swiglu_kernel(float *gate, const float *up, const float *route, int32_t n, int32_t active, float limit,
                  bool official, bool fp8, Rows live) {
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
    const auto t = int32_t(blockIdx.y), c = int32_t(blockIdx.x) * block_threads + int32_t(threadIdx.x);
    if (t >= live.live() || c >= n) return;
    float sum = 0;
#pragma unroll 4
    for (int32_t i = 0; i < active; ++i) sum += routed[(int64_t(t) * active + i) * n + c];
    if (shared) sum += shared[int64_t(t) * n + c];
    y[int64_t(t) * n + c] = settled(sum, official);
}

/// One call of moe.experts: what its launches share.
class Call {
  public:
    Call(dsv4_queue &queue, const dsv4_batch &batch, const dsv4_block &block, const dsv4_buffer &x,
         const dsv4_buffer &route, dsv4_buffer &y)
        : queue_(queue), batch_(batch), block_(block), shape_(block.shape), route_(route.row(0)), input_(x.row(0)),
          y_(y.row(0)) {
        if (!block.w1.list || !block.w2.list || !block.w3.list)
            throw Failure(DSV4_E_MODEL, block.name() + " has no experts");
        has_shared_ = block.has(DSV4_ROLE_SHARED_W1);
        tokens_ = size_t(batch.grid_tokens);
        pairs_ = tokens_ * size_t(shape_.active_experts);
        if (has_shared_) {
            shared_[0] = block.matrix(DSV4_ROLE_SHARED_W1), shared_[1] = block.matrix(DSV4_ROLE_SHARED_W3);
            shared_[2] = block.matrix(DSV4_ROLE_SHARED_W2);
        }
    }

    void run() {
        make_plan();
        units_ = queue_.device.native() && takes_matrix_units(block_.w1.like) && takes_matrix_units(block_.w2.like) &&
                 takes_matrix_units(block_.w3.like);
        if (has_shared_)
            for (const Matrix &m : shared_) units_ = units_ && takes_matrix_units(m);
        const auto inter = size_t(block_.w1.like.rows), shared_inter = size_t(has_shared_ ? shared_[0].rows : 0);
        float *gate = queue_.scratch<float>(SCRATCH_B, pairs_ * inter),
              *up = queue_.scratch<float>(SCRATCH_C, pairs_ * inter);
        float *shared_gate = nullptr, *shared_up = nullptr;
        if (has_shared_) {
            shared_gate = queue_.scratch<float>(SCRATCH_D, tokens_ * shared_inter);
            shared_up = queue_.scratch<float>(SCRATCH_E, tokens_ * shared_inter);
        }
        const int32_t D = shape_.hidden;

        Experts first = source(0, 2, shape_.active_experts);
        first.like[0] = block_.w1.like, first.like[1] = block_.w3.like;
        first.shared_matrix[0] = shared_[0], first.shared_matrix[1] = shared_[1];
        first.routed = {input_, nullptr, nullptr, D, {gate, up}, int64_t(inter), int32_t(inter), D};
        first.shared = {
            input_, nullptr, nullptr, D, {shared_gate, shared_up}, int64_t(shared_inter), int32_t(shared_inter), D};
        multiply(first, block_.w1.like, shared_[0], batch_.token_rows());

        float *out = queue_.scratch<float>(SCRATCH_F, pairs_ * size_t(D)), *shared_out = nullptr;
        if (has_shared_) shared_out = queue_.scratch<float>(SCRATCH_G, tokens_ * size_t(D));
        Experts second = source(2, 1, 1);
        second.like[0] = block_.w2.like;
        second.shared_matrix[0] = shared_[2];
        second.routed = {gate, up, nullptr, int64_t(inter), {out, nullptr}, D, D, int32_t(inter)};
        second.shared = {shared_gate,           shared_up, nullptr, int64_t(shared_inter),
                         {shared_out, nullptr}, D,         D,       int32_t(shared_inter)};
        if (!units_) { // the others do this where they read it
            activate(gate, up, route_, int32_t(inter), is_quantized(block_.w2.like),
                     batch_.token_rows(shape_.active_experts));
            if (has_shared_)
                activate(shared_gate, shared_up, nullptr, int32_t(shared_inter), is_quantized(shared_[2]),
                         batch_.token_rows());
            second.routed.up = second.shared.up = nullptr;
        }
        multiply(second, block_.w2.like, shared_[2], batch_.token_rows(shape_.active_experts));
        launch(combine_kernel, dim3(unsigned(ceil_div(D, block_threads)), unsigned(tokens_)), block_threads, 0,
               queue_.stream, out, shared_out, y_, D, shape_.active_experts, queue_.device.official(),
               batch_.token_rows());
    }

  private:
    void make_plan() {
        const auto experts = size_t(shape_.experts);
        groups_ = int32_t(std::min(pairs_, experts));
        tiles_ = int32_t(pairs_ / tile_columns) + groups_;
        auto *groups = queue_.scratch<Group>(SCRATCH_A, experts + ceil_div(int64_t(pairs_ + 2) * 4, sizeof(Group)));
        auto *counts = reinterpret_cast<int32_t *>(groups + experts);
        plan_ = {counts, groups, counts + 2};
        launch(plan_kernel, dim3(unsigned(experts)), block_threads, experts * 4, queue_.stream,
               reinterpret_cast<const int32_t *>(route_), batch_.view, shape_.active_experts,
               Lists{{block_.w1.list, block_.w3.list, block_.w2.list}}, plan_);
    }

    Experts source(int32_t first_matrix, int32_t matrices, int32_t divisor) const {
        Experts e = {};
        e.step = batch_.view, e.plan = plan_, e.route = route_;
        e.first_matrix = first_matrix, e.matrices = matrices, e.active = shape_.active_experts, e.divisor = divisor;
        e.groups = groups_, e.tiles = tiles_, e.limit = shape_.swiglu_limit;
        e.round_output = queue_.device.official();
        return e;
    }

    void activate(float *gate, const float *up, const float *route, int32_t n, bool quantized, const Rows &rows) {
        const bool official = queue_.device.official();
        launch(swiglu_kernel, dim3(unsigned(ceil_div(n, 128 * block_subgroups)), unsigned(rows.grid)), block_threads, 0,
               queue_.stream, gate, up, route, n, shape_.active_experts, shape_.swiglu_limit, official,
               official && quantized, rows);
    }

    unsigned row_blocks(const Experts &e, Kernel kernel) const {
        const auto of = [&](const Experts::Side &side) { return ceil_div(side.rows, height_of(kernel, side.columns)); };
        return unsigned(e.matrices * std::max(of(e.routed), has_shared_ ? of(e.shared) : 0));
    }

    const uint16_t *pack(const Experts::Side &side, const Matrix &like, const float *route, const Rows &rows,
                         uint16_t *to) {
        launch(pack_inputs<PackRows>,
               dim3(unsigned(ceil_div(padded(side.columns) / 8, block_threads)), unsigned(rows.grid)), block_threads, 0,
               queue_.stream,
               PackRows{like, side.x, side.up, route, side.ldx, rows, shape_.active_experts, shape_.swiglu_limit}, to);
        return to;
    }

    /// `rows`: of the routed experts' input.
    void multiply(Experts e, const Matrix &like, const Matrix &shared_like, const Rows &rows) {
        const auto shared_groups = unsigned(has_shared_),
                   token_tiles = unsigned(ceil_div(int64_t(tokens_), tile_columns));
        const dim3 tiles(0, unsigned(e.tiles) + (has_shared_ ? token_tiles : 0));
        if (!units_) return multiply_plain_all(e, like, shared_like, rows, tiles);
        const int32_t longest = std::max(e.routed.columns, has_shared_ ? e.shared.columns : 0);
        const size_t room = std::min(queue_.device.properties.shared_bytes, size_t(100) * 1024),
                     pitch = size_t(pitch_of(longest)) * 2;
        const auto sums =
            size_t(std::max(sums_bytes(e.routed.columns), has_shared_ ? sums_bytes(e.shared.columns) : 0));
        const size_t at_once = sums < room ? std::min({size_t(8), tokens_, (room - sums) / pitch}) : 0;
        if (tokens_ <= 64 && at_once) {
            launch(multiply_few<Experts>, dim3(row_blocks(e, KERNEL_FEW), unsigned(e.groups) + shared_groups),
                   block_threads, sums + at_once * pitch, queue_.stream, e, int(at_once), 16);
            return;
        }
        const size_t routed = size_t(rows.grid) * size_t(padded(e.routed.columns)),
                     shared = has_shared_ ? tokens_ * size_t(padded(e.shared.columns)) : 0;
        auto *packed = queue_.scratch<uint16_t>(SCRATCH_H, routed + shared);
        e.routed.packed = pack(e.routed, like, route_, rows, packed);
        if (has_shared_) e.shared.packed = pack(e.shared, shared_like, nullptr, batch_.token_rows(), packed + routed);
        launch(multiply_many<Experts, tile_columns>, dim3(row_blocks(e, KERNEL_MANY), tiles.y), block_threads,
               tile_bytes(tile_columns), queue_.stream, e);
    }

    void multiply_plain_all(Experts e, const Matrix &like, const Matrix &shared_like, const Rows &rows,
                            const dim3 &tiles) {
        if (queue_.device.official() && e.matrices == 2) { // w2's input was rounded when it was made
            const bool quantized = is_quantized(like), shared_quantized = has_shared_ && is_quantized(shared_like);
            if (quantized || shared_quantized) {
                auto *rounded = queue_.scratch<float>(SCRATCH_ROUNDED, tokens_ * size_t(shape_.hidden));
                round_rows(queue_, rows, input_, shape_.hidden, shape_.hidden, rounded);
                if (quantized) e.routed.x = rounded;
                if (shared_quantized) e.shared.x = rounded;
            }
        }
        launch(multiply_plain<Experts>, dim3(row_blocks(e, KERNEL_PLAIN), tiles.y), block_threads, 0, queue_.stream, e,
               tile_columns, 1);
    }

    dsv4_queue &queue_;
    const dsv4_batch &batch_;
    const dsv4_block &block_;
    const dsv4_shape &shape_;
    const float *route_, *input_;
    float *y_;
    size_t tokens_, pairs_;
    bool has_shared_, units_ = false;
    Matrix shared_[3] = {}; // w1, w3, w2
    Plan plan_{};
    int32_t groups_ = 0, tiles_ = 0;
};

} // namespace

dsv4_status moe_experts(dsv4_queue *queue, const dsv4_batch *batch, const dsv4_block *block, const dsv4_buffer *x,
                        const dsv4_buffer *route, dsv4_buffer *y, dsv4_error *err) {
    return boundary(err, [&] {
        if (batch->grid_tokens) Call(*queue, *batch, *block, *x, *route, *y).run();
    });
}

} // namespace dsv4::gpu
