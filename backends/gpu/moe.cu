// The experts. Tokens are grouped by expert on the device, so that the weights of an expert are read once per step; a
// (token, expert) pair keeps its own rows throughout, and the last kernel adds the pairs of a token in the order of its
// route, the shared expert last. No sum depends on the grouping.
#include "backends/gpu/down.hpp"
#include "backends/gpu/experts.hpp"
#include "backends/gpu/linear.hpp"
#include "backends/gpu/ops.hpp"
#include <algorithm>

namespace dsv4::gpu {
namespace {

/// One call of moe.experts: what its launches share.
class Call {
  public:
    Call(dsv4_queue &queue, const dsv4_batch &batch, const dsv4_block &block, const dsv4_buffer &x,
         const dsv4_buffer &route, dsv4_buffer &y)
        : queue_(queue), batch_(batch), block_(block), shape_(block.shape), route_(route.row(0)), input_(x.row(0)),
          y_(y.row(0)), kernels_(queue.device.properties) {
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
        units_ = queue_.device.native() && takes_matrix_units(block_.w1.like) && takes_matrix_units(block_.w2.like) &&
                 takes_matrix_units(block_.w3.like);
        if (has_shared_)
            for (const Matrix &m : shared_) units_ = units_ && takes_matrix_units(m);
        const int32_t D = shape_.hidden, inter = block_.w1.like.rows, shared_inter = has_shared_ ? shared_[0].rows : 0;
        // Few tokens: gate and up are taken together, what comes of them alone goes to memory.
        few_ = units_ && tokens_ <= 64 && alike(block_.w1.like, block_.w3.like) && alike(shared_[0], shared_[1]) &&
               at_once(D) && at_once(std::max(inter, shared_inter));
        Down down = single_down();
        const bool single =
            few_ && tokens_ == 1 && down.active <= most_active && down.bytes() + sizeof(DownShared) <= room();
        const bool input_there = single && queue_.still({input_, &batch_, &block_}); // route was made of it
        if (single) groups_ = shape_.active_experts; // every pair has its own blocks: nothing to group
        else make_plan();
        float *gate = queue_.scratch<float>(SCRATCH_B, pairs_ * size_t(inter)), *up = nullptr, *shared_gate = nullptr,
              *shared_up = nullptr;
        if (!few_) up = queue_.scratch<float>(SCRATCH_C, pairs_ * size_t(inter));
        if (has_shared_) shared_gate = queue_.scratch<float>(SCRATCH_D, tokens_ * size_t(shared_inter));
        if (has_shared_ && !few_) shared_up = queue_.scratch<float>(SCRATCH_E, tokens_ * size_t(shared_inter));

        Experts first = source(0, few_ ? 1 : 2, shape_.active_experts);
        first.paired = few_;
        first.like[0] = block_.w1.like, first.like[1] = block_.w3.like;
        if (single) first.single[0] = block_.w1.list, first.single[1] = block_.w3.list;
        first.input_there = input_there;
        first.shared_matrix[0] = shared_[0], first.shared_matrix[1] = shared_[1];
        first.routed = {input_, nullptr, nullptr, D, {gate, up}, inter, inter, D, 1};
        first.shared = {input_, nullptr, nullptr, D, {shared_gate, shared_up}, shared_inter, shared_inter, D, 1};
        const bool packed = single && padded(inter) == inter && padded(shared_inter) == shared_inter;
        if (packed) { // half as many bytes for every block of what comes next, and nothing to convert
            first.routed.packed_y = reinterpret_cast<uint16_t *>(gate);
            first.routed.packed_type = block_.w2.like.dtype;
            first.shared.packed_y = reinterpret_cast<uint16_t *>(shared_gate);
            first.shared.packed_type = shared_[2].dtype;
        }
        multiply(first, block_.w1.like, shared_[0], batch_.token_rows());
        if (single) {
            down.step = batch_.view, down.hidden = gate, down.shared_hidden = shared_gate;
            if (packed) down.packed = first.routed.packed_y, down.shared_packed = first.shared.packed_y;
            launch_early(down_kernel, dim3(unsigned(ceil_div(D, 16))), block_threads, down.bytes(), queue_.stream(),
                         down);
            return;
        }

        float *out = queue_.scratch<float>(SCRATCH_F, pairs_ * size_t(D)), *shared_out = nullptr;
        if (has_shared_) shared_out = queue_.scratch<float>(SCRATCH_G, tokens_ * size_t(D));
        Experts second = source(2, 1, 1);
        second.like[0] = block_.w2.like;
        second.shared_matrix[0] = shared_[2];
        second.routed = {gate, up, nullptr, inter, {out, nullptr}, D, D, inter, 1};
        second.shared = {shared_gate, shared_up, nullptr, shared_inter, {shared_out, nullptr}, D, D, shared_inter, 1};
        if (!units_) { // the matrix units' inputs are made while they are packed
            activate(gate, up, route_, inter, is_quantized(block_.w2.like), batch_.token_rows(shape_.active_experts));
            if (has_shared_)
                activate(shared_gate, shared_up, nullptr, shared_inter, is_quantized(shared_[2]), batch_.token_rows());
            second.routed.up = second.shared.up = nullptr;
        }
        multiply(second, block_.w2.like, shared_[2], batch_.token_rows(shape_.active_experts));
        launch_early(combine_kernel, dim3(unsigned(ceil_div(D, block_threads)), unsigned(tokens_)), block_threads, 0,
                     queue_.stream(), out, shared_out, y_, D, shape_.active_experts, queue_.device.official(),
                     batch_.token_rows());
    }

  private:
    size_t room() const { return std::min(queue_.device.properties.shared_bytes, size_t(100) * 1024); }

    static bool alike(const Matrix &a, const Matrix &b) {
        return a.dtype == b.dtype && a.scale_dtype == b.scale_dtype && a.scale_block_rows == b.scale_block_rows &&
               a.scale_block_columns == b.scale_block_columns && a.scale_columns == b.scale_columns;
    }

    /// Columns of so many inputs that a block of multiply_few has room for, beside the sums of these or shorter ones.
    size_t at_once(int32_t inputs) const {
        const size_t sums = size_t(std::max(sums_bytes(inputs, 1), 8 * 512 + 128 + zeros_bytes)),
                     pitch = size_t(pitch_of(inputs)) * 2;
        return sums < room() ? std::min({size_t(8), tokens_, (room() - sums) / pitch}) : 0;
    }

    Down single_down() const {
        Down d = {};
        d.list = block_.w2.list, d.like = block_.w2.like, d.shared = shared_[2];
        d.route = route_, d.y = y_;
        d.active = shape_.active_experts, d.experts = shape_.experts;
        return d;
    }

    void make_plan() {
        const auto experts = size_t(shape_.experts);
        groups_ = int32_t(std::min(pairs_, experts));
        width_ = kernels_.fit(128) && pairs_ > 64 * experts ? 128 : 64;
        tiles_ = int32_t(pairs_ / size_t(width_)) + groups_;
        auto *groups = queue_.scratch<Group>(SCRATCH_A, experts + ceil_div(int64_t(pairs_ + 2) * 4, sizeof(Group)));
        auto *counts = reinterpret_cast<int32_t *>(groups + experts);
        plan_ = {counts, groups, counts + 2};
        launch_early(plan_kernel, dim3(unsigned(experts)), block_threads, experts * 4, queue_.stream(),
                     reinterpret_cast<const int32_t *>(route_), batch_.view, shape_.active_experts,
                     Lists{{block_.w1.list, block_.w3.list, block_.w2.list}}, plan_, width_);
    }

    Experts source(int32_t first_matrix, int32_t matrices, int32_t divisor) const {
        Experts e = {};
        e.step = batch_.view, e.plan = plan_, e.route = route_;
        e.first_matrix = first_matrix, e.matrices = matrices, e.active = shape_.active_experts, e.divisor = divisor;
        e.experts = shape_.experts, e.limit = shape_.swiglu_limit;
        e.round_output = queue_.device.official();
        return e;
    }

    void activate(float *gate, const float *up, const float *route, int32_t n, bool quantized, const Rows &rows) {
        const bool official = queue_.device.official();
        launch_early(swiglu_kernel, dim3(unsigned(ceil_div(n, 128 * block_subgroups)), unsigned(rows.grid)),
                     block_threads, 0, queue_.stream(), gate, up, route, n, shape_.active_experts, shape_.swiglu_limit,
                     official, official && quantized, rows);
    }

    /// One wave of blocks, each with as many bytes to read as any other, and those that need not wait for the route
    /// with a quarter more (of four rounds and up).
    void set_repeats(Experts &e, const Matrix &like, const Matrix &shared_like) const {
        const int64_t at_once = int64_t(few_blocks_per_processor) * queue_.device.properties.processors;
        const auto blocks = [&](const Experts::Side &side) {
            return ceil_div(side.rows, height_of(KERNEL_FEW, side.columns, e.paired ? 8 : 16));
        };
        const auto cost = [](const Matrix &m) { return 4 / slabs_of(m.dtype); }; // in half bytes a value
        const int64_t routed = groups_ * blocks(e.routed) * cost(like),
                      shared = has_shared_ ? blocks(e.shared) * cost(shared_like) : 0;
        const int repeats = few_repeats(routed + shared, at_once), more = e.input_there ? repeats / 4 : 0;
        e.routed.repeat = std::max(1, repeats / cost(like));
        if (has_shared_) e.shared.repeat = std::max(1, (repeats + more) / cost(shared_like));
    }

    unsigned row_blocks(const Experts &e, Kernel kernel) const {
        const auto of = [&](const Experts::Side &side) { return ceil_div(side.rows, height_of(kernel, side.columns)); };
        return unsigned(e.matrices * std::max(of(e.routed), has_shared_ ? of(e.shared) : 0));
    }

    const uint16_t *pack(const Experts::Side &side, const Matrix &like, const float *route, const Rows &rows,
                         uint16_t *to) {
        launch_early(pack_inputs<PackRows>,
                     dim3(unsigned(ceil_div(padded(side.columns) / 8, block_threads)), unsigned(rows.grid)),
                     block_threads, 0, queue_.stream(),
                     PackRows{like, side.x, side.up, route, side.ldx, rows, shape_.active_experts, shape_.swiglu_limit},
                     to, kernels_.wide);
        return to;
    }

    /// `rows`: of the routed experts' input.
    void multiply(Experts e, const Matrix &like, const Matrix &shared_like, const Rows &rows) {
        e.shared_blocks = has_shared_ ? int32_t(ceil_div(int64_t(tokens_), width_)) : 0;
        const auto tiles = unsigned(tiles_ + e.shared_blocks);
        if (!units_) return multiply_plain_all(e, like, shared_like, rows, tiles);
        if (few_) {
            const int32_t longest = std::max(e.routed.columns, has_shared_ ? e.shared.columns : 0);
            const size_t staged = at_once(longest) * size_t(pitch_of(longest)) * 2;
            const auto sums = [&] {
                return size_t(std::max(sums_bytes(e.routed.columns, e.routed.repeat),
                                       has_shared_ ? sums_bytes(e.shared.columns, e.shared.repeat) : 0));
            };
            e.shared_blocks = has_shared_;
            set_repeats(e, like, shared_like);
            while (std::max(e.routed.repeat, e.shared.repeat) > 1 && sums() + staged > room())
                e.routed.repeat = std::max(1, e.routed.repeat - 1), e.shared.repeat = std::max(1, e.shared.repeat - 1);
            const int tile = e.paired ? 8 : 16;
            for (Experts::Side *side : {&e.routed, &e.shared})
                if (side->rows)
                    side->blocks = int32_t(
                        ceil_div(side->rows, height_of(KERNEL_FEW, side->columns, tile, std::max(1, side->repeat))));
            launch_early(multiply_few<Experts, -1>,
                         dim3(unsigned(groups_ * e.routed.blocks + e.shared_blocks * e.shared.blocks)), block_threads,
                         sums() + staged, queue_.stream(), e, int(at_once(longest)), tile);
            return;
        }
        const size_t routed = size_t(rows.grid) * size_t(padded(e.routed.columns)),
                     shared = has_shared_ ? tokens_ * size_t(padded(e.shared.columns)) : 0;
        auto *packed = queue_.scratch<uint16_t>(SCRATCH_H, routed + shared);
        e.routed.packed = pack(e.routed, like, route_, rows, packed);
        if (has_shared_) e.shared.packed = pack(e.shared, shared_like, nullptr, batch_.token_rows(), packed + routed);
        kernels_.launch(queue_, width_, dim3(row_blocks(e, KERNEL_MANY), tiles), e);
    }

    void multiply_plain_all(Experts e, const Matrix &like, const Matrix &shared_like, const Rows &rows,
                            unsigned tiles) {
        if (queue_.device.official() && e.matrices == 2) { // w2's input was rounded when it was made
            const bool quantized = is_quantized(like), shared_quantized = has_shared_ && is_quantized(shared_like);
            if (quantized || shared_quantized) {
                auto *rounded = queue_.scratch<float>(SCRATCH_ROUNDED, tokens_ * size_t(shape_.hidden));
                round_rows(queue_, rows, input_, shape_.hidden, shape_.hidden, rounded);
                if (quantized) e.routed.x = rounded;
                if (shared_quantized) e.shared.x = rounded;
            }
        }
        launch_early(multiply_plain<Experts>, dim3(row_blocks(e, KERNEL_PLAIN), tiles), block_threads, 0,
                     queue_.stream(), e, width_, 1);
    }

    dsv4_queue &queue_;
    const dsv4_batch &batch_;
    const dsv4_block &block_;
    const dsv4_shape &shape_;
    const float *route_, *input_;
    float *y_;
    size_t tokens_, pairs_;
    bool has_shared_, units_ = false, few_ = false;
    Matrix shared_[3] = {}; // w1, w3, w2
    Plan plan_{};
    Tiles kernels_;
    int32_t groups_ = 0, tiles_ = 0, width_ = 64; // groups, their tiles, the most columns of a tile
};

} // namespace

dsv4_status moe_experts(dsv4_queue *queue, const dsv4_batch *batch, const dsv4_block *block, const dsv4_buffer *x,
                        const dsv4_buffer *route, dsv4_buffer *y, dsv4_error *err) {
    return on_device(err, *queue, [&] {
        if (batch->grid_tokens) Call(*queue, *batch, *block, *x, *route, *y).run();
    });
}

} // namespace dsv4::gpu
