// The model from top to bottom, in backend operators. Read beside MODEL.md: "One layer, in order".
#include "core/model/forward.hpp"
#include <algorithm>

namespace dsv4 {

Network load_network(const Device &device, const dsv4_shape &shape, const ModelWeights &weights, int32_t expert_tier,
                     const Progress &on_progress) {
    Network n;
    n.shape = shape;
    uint64_t done = 0, total = 0;
    const auto bytes = [](const BlockWeights &b) {
        uint64_t sum = 0;
        for (const dsv4_tensor &t : b.tensors) sum += t.bytes + t.scale_bytes;
        return sum;
    };
    total += bytes(weights.ends);
    for (const auto &b : weights.layers) total += bytes(b);
    for (const auto &b : weights.mtp) total += bytes(b);
    const auto create = [&](const BlockWeights &b) {
        Block block = device.block(shape, b.desc(expert_tier));
        done += bytes(b);
        if (on_progress && !on_progress(done, total)) throw Error(DSV4_E_CANCELLED, "the load was stopped by its caller");
        return block;
    };
    n.ends = create(weights.ends);
    for (const auto &b : weights.layers) {
        n.layers.push_back(create(b));
        n.layer_ratio.push_back(b.compress_ratio);
    }
    for (const auto &b : weights.mtp) {
        n.mtp.push_back(create(b));
        n.mtp_ratio.push_back(b.compress_ratio);
    }
    return n;
}

Forward::Forward(const Device &device, const Network &network, const Capacity &capacity)
    : device_(device), network_(network), capacity_(capacity),
      streams_(device.buffer(network.shape, DSV4_BUFFER_STREAMS, capacity.tokens)),
      x_(device.buffer(network.shape, DSV4_BUFFER_HIDDEN, capacity.tokens)),
      mix_(device.buffer(network.shape, DSV4_BUFFER_MIX, capacity.tokens)),
      q_(device.buffer(network.shape, DSV4_BUFFER_QUERY, capacity.tokens)),
      qr_(device.buffer(network.shape, DSV4_BUFFER_QUERY_LORA, capacity.tokens)),
      o_(device.buffer(network.shape, DSV4_BUFFER_QUERY, capacity.tokens)),
      selection_(device.buffer(network.shape, DSV4_BUFFER_SELECTION, capacity.tokens)),
      route_(device.buffer(network.shape, DSV4_BUFFER_ROUTE, capacity.tokens)),
      y_(device.buffer(network.shape, DSV4_BUFFER_HIDDEN, capacity.tokens)),
      logits_(device.buffer(network.shape, DSV4_BUFFER_LOGITS, capacity.outputs)),
      graphs_(device, capacity.tokens, capacity.sequences, capacity.outputs) {
    const dsv4_shape &shape = network.shape;
    batch_ = device.batch(shape, capacity.tokens, capacity.sequences, capacity.blocks_per_sequence);
    if (device.sample) sampler_ = device.sampler(shape, capacity.outputs, most_biases);
    for (const int32_t r : network.layer_ratio) layer_cache_.push_back(device.cache(shape, r, capacity.cache));
    if (network.mtp.empty()) return;
    for (const int32_t r : network.mtp_ratio) mtp_cache_.push_back(device.cache(shape, r, capacity.cache));
    mtp_in_ = device.buffer(shape, DSV4_BUFFER_STREAMS, capacity.tokens);
    mtp_streams_ = device.buffer(shape, DSV4_BUFFER_STREAMS, capacity.tokens);
}

Forward::~Forward() {
    if (!ran_) return;
    dsv4_error ignored;
    DSV4_INIT(ignored);
    (void)device_.memory->queue_wait(device_.queue(), &ignored);
}

void Forward::run(Step &step, std::vector<float> &logits) {
    std::vector<int32_t> ids;
    run(step, std::vector<dsv4_sample_row>(size_t(step.outputs())), ids, logits);
}

// T tokens through every layer: streams X [T, M, D] -> logits of the outputs -> the tokens that are wanted of them.
void Forward::run(Step &step, const std::vector<dsv4_sample_row> &rows, std::vector<int32_t> &ids,
                  std::vector<float> &logits) {
    const int32_t outputs = step.outputs();
    const auto wants = [](const dsv4_sample_row &r) { return r.kind != DSV4_SAMPLE_NOTHING; };
    const bool samples = std::any_of(rows.begin(), rows.end(), wants);
    begin(step);
    if (samples)
        call(device_.sample->set, device_.queue(), sampler_.get(), outputs, rows.data(),
             uint32_t(sizeof(dsv4_sample_row)));
    ran_ = true;
    graphs_.run(batch_.get(), step.view(), samples, [&] {
        call(device_.ends->embed, device_.queue(), batch_.get(), network_.ends.get(), streams_.get());
        for (size_t l = 0; l < network_.layers.size(); ++l) layer(int32_t(l));
        if (outputs)  // hc_head collapses M streams to one, rmsnorm, head
            call(device_.ends->head, device_.queue(), batch_.get(), network_.ends.get(), network_.ends.get(),
                 streams_.get(), logits_.get());
        if (samples) call(device_.sample->sample, device_.queue(), batch_.get(), sampler_.get(), logits_.get());
    });
    ids.assign(size_t(outputs), DSV4_SAMPLED_NOTHING);
    if (samples) call(device_.sample->read, device_.queue(), sampler_.get(), outputs, ids.data());
    if (!outputs) call(device_.memory->queue_wait, device_.queue());
    read_logits(rows, logits);
}

/// Rows that want nothing of the sampler, neighbours together.
void Forward::read_logits(const std::vector<dsv4_sample_row> &rows, std::vector<float> &logits) {
    const auto V = size_t(network_.shape.vocab);
    const auto plain = [](const dsv4_sample_row &r) { return r.kind == DSV4_SAMPLE_NOTHING; };
    logits.resize(size_t(std::count_if(rows.begin(), rows.end(), plain)) * V);
    size_t done = 0;
    for (auto from = rows.begin(); (from = std::find_if(from, rows.end(), plain)) != rows.end();) {
        const auto to = std::find_if_not(from, rows.end(), plain);
        const auto n = int32_t(to - from);
        call(device_.memory->buffer_read, device_.queue(), logits_.get(), int32_t(from - rows.begin()), n,
             logits.data() + done * V);
        done += size_t(n);
        from = to;
    }
}

void Forward::begin(Step &step) {
    const dsv4_step view = step.view();
    call(device_.model->batch_set, device_.queue(), batch_.get(), &view);
}

void Forward::layer(int32_t index) {
    const auto l = size_t(index);
    block(network_.layers[l].get(), layer_cache_[l].get(), network_.layer_ratio[l], streams_.get());
}

// One layer, in order. X: streams [T, M, D], updated in place.
void Forward::block(const dsv4_block *w, dsv4_cache *cache, int32_t ratio, dsv4_buffer *X) {
    dsv4_queue *queue = device_.queue();
    const dsv4_batch *batch = batch_.get();
    if (device_.layer) return call(device_.layer->layer, queue, batch, w, cache, X);

    const auto *hc = device_.hc;
    const auto *attention = device_.attention;
    const auto *moe = device_.moe;
    dsv4_buffer *x = x_.get(), *y = y_.get(), *mix = mix_.get(), *q = q_.get(), *qr = qr_.get(), *o = o_.get();

    // x, post, comb = hc_pre(X); x = rmsnorm(x)
    call(hc->pre, queue, batch, w, int32_t(DSV4_HC_ATTN), X, x, mix);
    // y = attention(x)
    call(attention->project, queue, batch, w, cache, x, q, qr);  // queries, and the window rows into the cache
    dsv4_buffer *selection = nullptr;
    if (ratio) call(attention->compress, queue, batch, w, cache, x);  // entries completed by these tokens
    if (ratio == 4) {                                                 // CSA: the indexer keeps the top-k entries
        selection = selection_.get();
        call(attention->select, queue, batch, w, cache, x, qr, selection);
    }
    call(attention->attend, queue, batch, w, cache, q, selection, o);  // window + entries, one softmax, sink
    call(attention->output, queue, batch, w, o, y);                    // grouped wo_a, wo_b
    // X = hc_post(y, X, post, comb)
    call(hc->post, queue, batch, y, mix, X);

    // x, post, comb = hc_pre(X); y = moe(rmsnorm(x), token ids); X = hc_post(y, X, post, comb)
    call(hc->pre, queue, batch, w, int32_t(DSV4_HC_FFN), X, x, mix);
    call(moe->route, queue, batch, w, x, route_.get());
    call(moe->experts, queue, batch, w, x, route_.get(), y);
    call(hc->post, queue, batch, y, mix, X);
}

// MTP: x = e_proj(rmsnorm(embed(token t+1))) + h_proj(rmsnorm(X_t)) per stream; one block at position t; its own
// hc_head and norm, the shared head; row t predicts token t+2.
void Forward::draft(int32_t depth, const std::vector<int32_t> &tokens, int32_t start, int32_t count, int32_t slot,
                    const std::vector<int32_t> &blocks, const std::function<bool(int32_t)> &wanted,
                    const std::function<void(int32_t, const float *)> &on_draft) {
    if (size_t(depth) >= mtp_cache_.size())
        throw Error(DSV4_E_UNSUPPORTED, "drafts: this model and backend have " + std::to_string(mtp_cache_.size()) +
                                            " MTP blocks that run, block " + std::to_string(depth) + " was asked for");
    dsv4_queue *queue = device_.queue();
    const dsv4_block *weights = network_.mtp[size_t(depth)].get();
    const int32_t end = std::min(start + count, int32_t(tokens.size()) - 1);
    std::vector<float> logits;
    for (int32_t from = start; from < end;) {
        std::vector<int32_t> outputs;
        int32_t n = 0;
        for (; n < end - from; ++n) {
            if (!wanted(from + n)) continue;
            if (int32_t(outputs.size()) == capacity_.outputs) break;
            outputs.push_back(n);
        }
        Step step;
        step.add(tokens.data() + from + 1, n, from, slot, blocks, outputs);
        begin(step);
        call(device_.memory->buffer_copy, queue, streams_.get(), from - start, mtp_in_.get(), 0, n);
        call(device_.mtp->join, queue, batch_.get(), network_.ends.get(), weights, mtp_in_.get(), mtp_streams_.get());
        block(weights, mtp_cache_[size_t(depth)].get(), network_.mtp_ratio[size_t(depth)], mtp_streams_.get());
        if (!outputs.empty()) {
            logits.resize(outputs.size() * size_t(network_.shape.vocab));
            call(device_.ends->head, queue, batch_.get(), network_.ends.get(), weights, mtp_streams_.get(),
                 logits_.get());
            call(device_.memory->buffer_read, queue, logits_.get(), 0, int32_t(outputs.size()), logits.data());
            for (size_t o = 0; o < outputs.size(); ++o)
                on_draft(from + outputs[o], logits.data() + o * size_t(network_.shape.vocab));
        }
        from += n;
    }
}

}  // namespace dsv4
