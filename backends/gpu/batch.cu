// The batch of a step: one allocation on the device that never moves, one upload per step from pinned memory.
#include "backends/gpu/ops.hpp"

namespace dsv4::gpu {

namespace {

/// Where the arrays are, in elements of 4 bytes. The block table is last: it alone varies much in length.
struct Layout {
    size_t counts = 0, token, position, sequence, first, slot, output_row, block_table, end;
    Layout(size_t tokens, size_t sequences, size_t blocks) {
        const auto next = [&](size_t from, size_t count) { return size_t(round_up(int64_t(from + count), 4)); };
        token = next(counts, 4);
        position = next(token, tokens);
        sequence = next(position, tokens);
        first = next(sequence, tokens);
        slot = next(first, sequences + 1);
        output_row = next(slot, sequences);
        block_table = next(output_row, tokens);
        end = next(block_table, sequences * blocks);
    }
};

void refuse(const std::string &why) { throw Failure(DSV4_E_INVALID, "batch_set: " + why); }

/// Kernels index with these numbers; nothing there could still refuse them.
void check_step(const dsv4_batch &b, const dsv4_step &s) {
    if (s.tokens < 0 || s.tokens > b.max_tokens || s.sequences < 0 || s.sequences > b.max_sequences ||
        s.blocks_per_sequence < 0 || s.blocks_per_sequence > b.max_blocks || s.outputs < 0 || s.outputs > s.tokens)
        refuse(std::to_string(s.tokens) + " tokens of " + std::to_string(s.sequences) + " sequences, " +
               std::to_string(s.blocks_per_sequence) + " blocks each, do not fit a batch of " +
               std::to_string(b.max_tokens) + ", " + std::to_string(b.max_sequences) + ", " +
               std::to_string(b.max_blocks));
    for (int32_t t = 0; t < s.tokens; ++t) {
        if (s.token[t] < 0 || s.token[t] >= b.vocab)
            refuse("token id " + std::to_string(s.token[t]) + " is outside the vocabulary of " +
                   std::to_string(b.vocab));
        if (s.position[t] < 0 || s.sequence[t] < 0 || s.sequence[t] >= s.sequences)
            refuse("token " + std::to_string(t) + " is at position " + std::to_string(s.position[t]) + " of sequence " +
                   std::to_string(s.sequence[t]));
    }
    for (int32_t o = 0; o < s.outputs; ++o)
        if (s.output_row[o] < 0 || s.output_row[o] >= s.tokens)
            refuse("output row " + std::to_string(s.output_row[o]) + " of " + std::to_string(s.tokens) + " tokens");
}

} // namespace

dsv4_status batch_create(dsv4_device *device, const dsv4_shape *shape, int32_t max_tokens, int32_t max_sequences,
                         int32_t max_blocks, dsv4_batch **out, dsv4_error *err) {
    *out = nullptr;
    return on_device(err, *device, [&] {
        const dsv4_shape s = read_sized(shape, "dsv4_shape");
        if (max_tokens < 0 || max_sequences < 0 || max_blocks < 0)
            throw Failure(DSV4_E_INVALID, "batch_create: " + std::to_string(max_tokens) + " tokens, " +
                                              std::to_string(max_sequences) + " sequences, " +
                                              std::to_string(max_blocks) + " blocks");
        *out = new dsv4_batch(*device, s, max_tokens, max_sequences, max_blocks);
    });
}
void batch_release(dsv4_batch *batch) { delete batch; }

dsv4_status batch_set(dsv4_queue *queue, dsv4_batch *batch, const dsv4_step *step, dsv4_error *err) {
    return on_device(err, *queue, [&] { batch->set(*queue, read_sized(step, "dsv4_step")); });
}

} // namespace dsv4::gpu

dsv4_batch::dsv4_batch(const dsv4_device &device, const dsv4_shape &shape, int32_t tokens_, int32_t sequences_,
                       int32_t blocks)
    : vocab(shape.vocab), max_tokens(tokens_), max_sequences(sequences_), max_blocks(blocks) {
    using namespace dsv4::gpu;
    const Layout at{size_t(tokens_), size_t(sequences_), size_t(blocks)};
    memory_ = Memory(device, at.end * 4, "a batch of " + std::to_string(tokens_) + " tokens");
    for (Memory &m : staging_) m = Memory(device, at.end * 4, "the upload of a step", true);
    for (Event &e : uploaded_) e = event_create();
    const auto *base = reinterpret_cast<const int32_t *>(memory_.data());
    view = {base + at.counts, base + at.token,      base + at.position,   base + at.sequence, base + at.first,
            base + at.slot,   base + at.output_row, base + at.block_table};
}

dsv4_batch::~dsv4_batch() {
    for (const auto e : uploaded_) dsv4::gpu::event_release(e);
}

void dsv4_batch::set(dsv4_queue &queue, const dsv4_step &s) {
    using namespace dsv4::gpu;
    check_step(*this, s);
    if (queue.recording) throw Failure(DSV4_E_INVALID, "batch_set while a graph is recorded");
    const Layout at{size_t(max_tokens), size_t(max_sequences), size_t(max_blocks)};
    Event &uploaded = uploaded_[next_];
    if (used_[next_]) event_wait(uploaded); // the step before the last has left this half
    used_[next_] = true;
    auto *to = reinterpret_cast<int32_t *>(staging_[next_].data());
    next_ ^= 1;
    const int32_t counts[4] = {s.tokens, s.sequences, s.outputs, s.blocks_per_sequence};
    const auto put = [&](size_t where, const int32_t *from, int64_t n) {
        if (n) std::memcpy(to + where, from, size_t(n) * 4);
    };
    const int64_t table = int64_t(s.sequences) * s.blocks_per_sequence;
    put(at.counts, counts, 4);
    put(at.token, s.token, s.tokens);
    put(at.position, s.position, s.tokens);
    put(at.sequence, s.sequence, s.tokens);
    put(at.first, s.first, s.sequences + 1);
    put(at.slot, s.slot, s.sequences);
    put(at.output_row, s.output_row, s.outputs);
    put(at.block_table, s.block_table, table);
    copy_pinned(memory_.data(), to, (at.block_table + size_t(table)) * 4, queue.stream());
    event_record(uploaded, queue.stream());
    tokens = grid_tokens = s.tokens;
    sequences = grid_sequences = s.sequences;
    outputs = grid_outputs = s.outputs;
    blocks_per_sequence = s.blocks_per_sequence;
    positions = 0;
    for (int32_t t = 0; t < s.tokens; ++t) positions = s.position[t] >= positions ? s.position[t] + 1 : positions;
    grid_positions = positions;
}
