#include "program.hpp"
#include <algorithm>
#include <cmath>
#include <limits>

namespace dsv4::conformance {

int32_t token_of(Content content, int32_t position, int32_t vocab) {
    Random random(content * 1000003 + static_cast<uint64_t>(position));
    return static_cast<int32_t>(random.next() % static_cast<uint64_t>(vocab));
}

void input_row(Content content, int32_t position, int32_t kind, const dsv4_shape &shape, float *out) {
    const int64_t width = buffer_width(shape, kind);
    Random random((content * 1000003 + static_cast<uint64_t>(position)) ^ (static_cast<uint64_t>(kind) << 56));
    if (kind == DSV4_BUFFER_MIX) { // post in (0, 2), comb doubly stochastic in the mean
        const int64_t M = shape.streams;
        for (int64_t i = 0; i < width; ++i)
            out[i] = round_to_bf16(i < M ? 0.1f + 1.8f * random.uniform()
                                         : (0.2f + 1.6f * random.uniform()) / static_cast<float>(M));
        return;
    }
    for (int64_t i = 0; i < width; ++i) {
        // One channel in a hundred is an outlier, as in trained models: formats with shared scales notice.
        const float size = random.next() % 100 ? 1.f : 6.f;
        const float value = random.gaussian() * size;
        out[i] = round_to_bf16(value == 0 ? 0.25f : value);
    }
}

Step::Step(const std::vector<Chunk> &chunks, const std::vector<Place> &places, int32_t vocab,
           const std::vector<int32_t> &outputs)
    : places_(places), output_(outputs) {
    size_t longest = 1;
    for (const Place &place : places) longest = std::max(longest, place.blocks.size());
    first_.push_back(0);
    for (size_t s = 0; s < chunks.size(); ++s) {
        const Chunk &chunk = chunks[s];
        for (int32_t i = 0; i < chunk.count; ++i) {
            contents_.push_back(chunk.content);
            place_of_.push_back(chunk.place);
            position_.push_back(chunk.first + i);
            token_.push_back(token_of(chunk.content, chunk.first + i, vocab));
            sequence_.push_back(static_cast<int32_t>(s));
        }
        first_.push_back(static_cast<int32_t>(token_.size()));
        const Place &place = places[static_cast<size_t>(chunk.place)];
        slot_.push_back(place.slot);
        table_.insert(table_.end(), place.blocks.begin(), place.blocks.end());
        table_.resize(longest * (s + 1), 0);
    }
    DSV4_INIT(step_);
    step_.tokens = static_cast<int32_t>(token_.size());
    step_.sequences = static_cast<int32_t>(chunks.size());
    step_.blocks_per_sequence = static_cast<int32_t>(longest);
    step_.outputs = static_cast<int32_t>(output_.size());
    step_.token = token_.data();
    step_.position = position_.data();
    step_.sequence = sequence_.data();
    step_.first = first_.data();
    step_.slot = slot_.data();
    step_.block_table = table_.data();
    step_.output_row = output_.data();
}

const Place &Step::place(int32_t row) const {
    return places_[static_cast<size_t>(place_of_[static_cast<size_t>(row)])];
}

std::vector<float> Step::inputs(int32_t kind, const dsv4_shape &shape, uint64_t salt) const {
    const int64_t width = buffer_width(shape, kind);
    std::vector<float> rows(contents_.size() * static_cast<size_t>(width));
    for (size_t t = 0; t < contents_.size(); ++t)
        input_row(contents_[t] ^ (salt << 40), position_[t], kind, shape, &rows[t * static_cast<size_t>(width)]);
    return rows;
}

std::vector<float> moe_output(const Device &d, const dsv4_shape &s, const Batch &batch, const Step &step,
                              const Block &block) {
    const int32_t T = step.tokens();
    const Buffer x = d.buffer(s, DSV4_BUFFER_HIDDEN, T), y = d.buffer(s, DSV4_BUFFER_HIDDEN, T);
    const Buffer route = d.buffer(s, DSV4_BUFFER_ROUTE, T);
    d.write(x, T, step.inputs(DSV4_BUFFER_HIDDEN, s));
    expect("moe.route", [&](dsv4_error *e) { return d.moe->route(d.queue, batch, block, x, route, e); });
    expect("moe.experts", [&](dsv4_error *e) { return d.moe->experts(d.queue, batch, block, x, route, y, e); });
    return d.read(y, T, s.hidden);
}

const char *stage_name(int stage) {
    constexpr const char *names[stage_count] = {
        "hc.pre attn: x",   "hc.pre attn: mix", "attention.project: q", "attention.project: qr", "attention.select",
        "attention.attend", "attention.output", "hc.post attn",         "hc.pre ffn: x",         "hc.pre ffn: mix",
        "moe.route",        "moe.experts",      "hc.post ffn"};
    return names[stage];
}

void sort_selection(float *row, int32_t k) {
    const auto key = [](float i) { return i < 0 ? std::numeric_limits<float>::infinity() : i; };
    std::sort(row, row + k, [&](float a, float b) { return key(a) < key(b); });
}

void sort_route(float *row, int32_t k) {
    std::vector<std::pair<float, float>> pairs;
    for (int32_t i = 0; i < k; ++i) pairs.emplace_back(row[i], row[k + i]);
    std::sort(pairs.begin(), pairs.end());
    for (int32_t i = 0; i < k; ++i) {
        row[i] = pairs[static_cast<size_t>(i)].first;
        row[k + i] = pairs[static_cast<size_t>(i)].second;
    }
}

LayerProgram::LayerProgram(const Device &device, const Case &c, const Weights &weights, const Geometry &geometry,
                           int32_t max_tokens)
    : device_(device), shape_(c.shape), ratio_(weights.ratio), max_tokens_(max_tokens), geometry_(geometry),
      block_(device.block(shape_, weights.desc())), cache_(device.cache(shape_, ratio_, geometry.desc)) {
    size_t longest = 1;
    for (const Place &place : geometry.places) longest = std::max(longest, place.blocks.size());
    batch_ =
        device.batch(shape_, max_tokens, static_cast<int32_t>(geometry.places.size()), static_cast<int32_t>(longest));
    streams_ = device.buffer(shape_, DSV4_BUFFER_STREAMS, max_tokens);
    x_ = device.buffer(shape_, DSV4_BUFFER_HIDDEN, max_tokens);
    y_ = device.buffer(shape_, DSV4_BUFFER_HIDDEN, max_tokens);
    mix_ = device.buffer(shape_, DSV4_BUFFER_MIX, max_tokens);
    q_ = device.buffer(shape_, DSV4_BUFFER_QUERY, max_tokens);
    o_ = device.buffer(shape_, DSV4_BUFFER_QUERY, max_tokens);
    qr_ = device.buffer(shape_, DSV4_BUFFER_QUERY_LORA, max_tokens);
    selection_ = device.buffer(shape_, DSV4_BUFFER_SELECTION, max_tokens);
    route_ = device.buffer(shape_, DSV4_BUFFER_ROUTE, max_tokens);
}

void LayerProgram::run(const Schedule &schedule, Trace &trace) {
    for (const auto &chunks : schedule) step(chunks, Way::parts, trace);
}

void LayerProgram::run_unread(const Schedule &schedule, Trace &trace) {
    for (const auto &chunks : schedule) step(chunks, Way::unread, trace);
}

void LayerProgram::run_fused(const Schedule &schedule, Trace &trace) {
    for (const auto &chunks : schedule) step(chunks, Way::fused, trace);
}

void LayerProgram::step(const std::vector<Chunk> &chunks, Way way, Trace &trace) {
    const Step step(chunks, geometry_.places, shape_.vocab);
    const int32_t T = step.tokens();
    if (T > max_tokens_) throw std::logic_error("conformance: a step larger than its batch");
    const auto record = [&](int stage, const dsv4_buffer *buffer, int32_t kind) {
        if (way == Way::unread && stage != LAYER_STREAMS) return;
        const int64_t width = buffer_width(shape_, kind);
        std::vector<float> rows = device_.read(buffer, T, width);
        for (int32_t t = 0; t < T; ++t) {
            float *row = &rows[static_cast<size_t>(t * width)];
            if (kind == DSV4_BUFFER_SELECTION) sort_selection(row, shape_.index_topk);
            if (kind == DSV4_BUFFER_ROUTE) sort_route(row, shape_.active_experts);
            trace[{step.content(t), step.position(t)}][static_cast<size_t>(stage)].assign(row, row + width);
        }
    };
    const auto &attention = *device_.attention;
    dsv4_queue *queue = device_.queue;
    device_.set(batch_, step.view());
    device_.write(streams_, T, step.inputs(DSV4_BUFFER_STREAMS, shape_));
    if (way == Way::fused) {
        expect("layer",
               [&](dsv4_error *e) { return device_.layer->layer(queue, batch_, block_, cache_, streams_, e); });
        record(LAYER_STREAMS, streams_, DSV4_BUFFER_STREAMS);
        return;
    }

    expect("hc.pre",
           [&](dsv4_error *e) { return device_.hc->pre(queue, batch_, block_, DSV4_HC_ATTN, streams_, x_, mix_, e); });
    record(HC_ATTN_X, x_, DSV4_BUFFER_HIDDEN);
    record(HC_ATTN_MIX, mix_, DSV4_BUFFER_MIX);
    expect("attention.project",
           [&](dsv4_error *e) { return attention.project(queue, batch_, block_, cache_, x_, q_, qr_, e); });
    record(PROJECT_Q, q_, DSV4_BUFFER_QUERY);
    record(PROJECT_QR, qr_, DSV4_BUFFER_QUERY_LORA);
    if (ratio_)
        expect("attention.compress",
               [&](dsv4_error *e) { return attention.compress(queue, batch_, block_, cache_, x_, e); });
    if (ratio_ == 4) {
        expect("attention.select",
               [&](dsv4_error *e) { return attention.select(queue, batch_, block_, cache_, x_, qr_, selection_, e); });
        record(SELECT, selection_, DSV4_BUFFER_SELECTION);
    }
    const dsv4_buffer *selection = ratio_ == 4 ? selection_.get() : nullptr;
    expect("attention.attend",
           [&](dsv4_error *e) { return attention.attend(queue, batch_, block_, cache_, q_, selection, o_, e); });
    record(ATTEND, o_, DSV4_BUFFER_QUERY);
    expect("attention.output", [&](dsv4_error *e) { return attention.output(queue, batch_, block_, o_, y_, e); });
    record(OUTPUT, y_, DSV4_BUFFER_HIDDEN);
    expect("hc.post", [&](dsv4_error *e) { return device_.hc->post(queue, batch_, y_, mix_, streams_, e); });
    record(HC_ATTN_STREAMS, streams_, DSV4_BUFFER_STREAMS);
    expect("hc.pre",
           [&](dsv4_error *e) { return device_.hc->pre(queue, batch_, block_, DSV4_HC_FFN, streams_, x_, mix_, e); });
    record(HC_FFN_X, x_, DSV4_BUFFER_HIDDEN);
    record(HC_FFN_MIX, mix_, DSV4_BUFFER_MIX);
    expect("moe.route", [&](dsv4_error *e) { return device_.moe->route(queue, batch_, block_, x_, route_, e); });
    record(ROUTE, route_, DSV4_BUFFER_ROUTE);
    expect("moe.experts",
           [&](dsv4_error *e) { return device_.moe->experts(queue, batch_, block_, x_, route_, y_, e); });
    record(EXPERTS, y_, DSV4_BUFFER_HIDDEN);
    expect("hc.post", [&](dsv4_error *e) { return device_.hc->post(queue, batch_, y_, mix_, streams_, e); });
    record(LAYER_STREAMS, streams_, DSV4_BUFFER_STREAMS);
}

std::vector<float> LayerProgram::visible_cache(const Place &place, int32_t length) const {
    std::vector<float> all;
    const auto append = [&](int32_t part, int32_t owner, int32_t row, int64_t width) {
        const std::vector<float> values = device_.read_cache(cache_, part, owner, row, 1, width);
        all.insert(all.end(), values.begin(), values.end());
    };
    const dsv4_cache_desc &d = geometry_.desc;
    for (int32_t p = std::max(0, length - shape_.window); p < length; ++p)
        append(DSV4_CACHE_WINDOW, place.slot, p % d.window_rows, shape_.head_dim);
    for (int32_t e = 0; ratio_ && e < length / ratio_; ++e) {
        const int32_t position = e * ratio_, block = place.blocks[static_cast<size_t>(position / d.block_tokens)];
        const int32_t row = position % d.block_tokens / ratio_;
        append(DSV4_CACHE_ENTRIES, block, row, shape_.head_dim);
        if (ratio_ == 4) append(DSV4_CACHE_INDEX_KEYS, block, row, shape_.index_dim);
    }
    return all;
}

} // namespace dsv4::conformance
