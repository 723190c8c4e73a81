// The sampler of the plugin ABI: one allocation on the device that never moves, uploads from pinned memory in turn.
#include "backends/gpu/sampler.hpp"
#include "backends/sampling.hpp"
#include <algorithm>

dsv4_sampler::dsv4_sampler(const dsv4_device &device, const dsv4_shape &shape, int32_t rows, int32_t biases)
    : vocab(shape.vocab), max_rows(rows), max_biases(biases) {
    using namespace dsv4::gpu;
    const auto next = [](size_t at, size_t bytes) { return size_t(round_up(int64_t(at + bytes), 16)); };
    const size_t words = size_t(ceil_div(vocab, 64));
    wishes_at_ = 16;
    bias_at_ = next(wishes_at_, size_t(rows) * sizeof(Wish));
    allowed_at_ = next(bias_at_, size_t(biases) * sizeof(dsv4_logit_bias));
    end_ = next(allowed_at_, size_t(rows) * words * 8);
    const size_t ids = end_ + size_t(round_up(rows * int64_t(4), 16));
    const std::string what = "a sampler of " + std::to_string(rows) + " rows";
    memory = Memory(device, ids, what);
    result = Memory(device, size_t(rows) * 4, "sampled tokens", true);
    for (Memory &m : staging_) m = Memory(device, end_, "the upload of " + what, true);
    for (Event &e : uploaded_) e = event_create();
    uint8_t *base = memory.data();
    view = {reinterpret_cast<const int32_t *>(base),
            reinterpret_cast<const Wish *>(base + wishes_at_),
            reinterpret_cast<const dsv4_logit_bias *>(base + bias_at_),
            reinterpret_cast<const uint64_t *>(base + allowed_at_),
            int32_t(words),
            reinterpret_cast<int32_t *>(base + end_)};
}

dsv4_sampler::~dsv4_sampler() {
    for (const auto e : uploaded_) dsv4::gpu::event_release(e);
}

void dsv4_sampler::set(dsv4_queue &queue, int32_t rows, const dsv4_sample_row *row, uint32_t stride) {
    using namespace dsv4::gpu;
    const auto refuse = [](const std::string &why) { throw Failure(DSV4_E_INVALID, "sampling: " + why); };
    if (queue.recording) refuse("set while a graph is recorded");
    if (rows < 0 || rows > max_rows)
        refuse(std::to_string(rows) + " rows for a sampler of " + std::to_string(max_rows));
    std::vector<Wish> wishes;
    std::vector<dsv4_logit_bias> biases;
    std::vector<const uint64_t *> allowed;
    for (int32_t i = 0; i < rows; ++i) {
        dsv4_sample_row r{};
        std::memcpy(&r, reinterpret_cast<const char *>(row) + size_t(i) * stride, std::min<size_t>(stride, sizeof r));
        const std::string name = "row " + std::to_string(i) + ": ";
        if (r.kind < DSV4_SAMPLE_NOTHING || r.kind > DSV4_SAMPLE_DRAW)
            throw Failure(DSV4_E_UNSUPPORTED, name + "sampling of kind " + std::to_string(r.kind));
        if (r.kind == DSV4_SAMPLE_DRAW && (!(r.scale > 0) || r.least > uint64_t(1) << 40))
            refuse(name + "scale " + std::to_string(r.scale) + ", least weight " + std::to_string(r.least));
        if (r.bias_count > uint64_t(max_biases) - biases.size())
            refuse(name + "more biases than the " + std::to_string(max_biases) + " of the sampler");
        const auto first = int32_t(biases.size());
        biases.insert(biases.end(), r.bias, r.bias + r.bias_count);
        for (size_t b = size_t(first); b < biases.size(); ++b)
            if (biases[b].token < 0 || biases[b].token >= vocab)
                refuse(name + "a bias of token " + std::to_string(biases[b].token) + " of " + std::to_string(vocab));
        std::stable_sort(biases.begin() + first, biases.end(),
                         [](const dsv4_logit_bias &a, const dsv4_logit_bias &b) { return a.token < b.token; });
        wishes.push_back({r.kind, r.top_k, r.top_p, r.scale, r.least, r.random, r.allowed != nullptr, first,
                          int32_t(biases.size()), 0});
        allowed.push_back(r.allowed);
    }
    Event &uploaded = uploaded_[next_];
    if (used_[next_]) event_wait(uploaded); // the step before the last has left this half
    used_[next_] = true;
    uint8_t *to = staging_[next_].data();
    next_ ^= 1;
    const auto upload = [&](size_t at, const void *from, size_t bytes) {
        if (!bytes) return;
        std::memcpy(to + at, from, bytes);
        copy_pinned(memory.data() + at, to + at, bytes, queue.stream());
    };
    std::memcpy(to, &rows, sizeof rows);
    if (rows) std::memcpy(to + wishes_at_, wishes.data(), wishes.size() * sizeof(Wish));
    copy_pinned(memory.data(), to, wishes_at_ + wishes.size() * sizeof(Wish), queue.stream());
    upload(bias_at_, biases.data(), biases.size() * sizeof(dsv4_logit_bias));
    const size_t words = size_t(view.words) * 8;
    for (size_t i = 0; i < allowed.size(); ++i)
        if (allowed[i]) upload(allowed_at_ + i * words, allowed[i], words);
    event_record(uploaded, queue.stream());
    is_set = true;
}

namespace dsv4::gpu {

dsv4_status sampler_create(dsv4_device *device, const dsv4_shape *shape, int32_t max_rows, int32_t max_biases,
                           dsv4_sampler **out_sampler, dsv4_error *err) {
    *out_sampler = nullptr;
    return on_device(err, *device, [&] {
        const dsv4_shape s = read_sized(shape, "dsv4_shape");
        if (max_rows < 0 || max_biases < 0)
            throw Failure(DSV4_E_INVALID, "a sampler of " + std::to_string(max_rows) + " rows, " +
                                              std::to_string(max_biases) + " biases");
        if (s.vocab < 1 || s.vocab > sampling::most_tokens)
            throw Failure(DSV4_E_UNSUPPORTED, "sampling from " + std::to_string(s.vocab) + " tokens; at most " +
                                                  std::to_string(sampling::most_tokens));
        *out_sampler = new dsv4_sampler(*device, s, max_rows, max_biases);
    });
}
void sampler_release(dsv4_sampler *sampler) { delete sampler; }

dsv4_status sampler_set(dsv4_queue *queue, dsv4_sampler *sampler, int32_t rows, const dsv4_sample_row *row,
                        uint32_t row_stride, dsv4_error *err) {
    return on_device(err, *queue, [&] { sampler->set(*queue, rows, row, row_stride); });
}

dsv4_status sampler_read(dsv4_queue *queue, const dsv4_sampler *sampler, int32_t rows, int32_t *id, dsv4_error *err) {
    return on_device(err, *queue, [&] {
        if (rows < 0 || rows > sampler->max_rows)
            throw Failure(DSV4_E_INVALID, "read: " + std::to_string(rows) + " rows of a sampler of " +
                                              std::to_string(sampler->max_rows));
        copy_to_host(sampler->result.data(), sampler->view.ids, size_t(rows) * 4, queue->stream());
        if (rows) std::memcpy(id, sampler->result.data(), size_t(rows) * 4);
    });
}

} // namespace dsv4::gpu
