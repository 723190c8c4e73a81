// The suite finds what it is for: the reference backend with one thing wrong at a time, each found in the row where a
// vendor would look for it.
#include "backends/reference/ops.hpp"
#include "tests/catch.hpp"
#include "tests/conformance/suite/suite.hpp"
#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <set>

namespace {

using namespace dsv4;
using conformance::Row;
using conformance::Verdict;

enum class Wrong {
    nothing,
    comb_transposed,
    weights_unscaled,
    entry_swapped,
    entry_lost,
    batch_size_matters,
    chunk_matters,
    no_slack,
    oversized_batch,
    copy_off_by_one,
    second_sequence_forgotten,
    one_stream_embedded,
    no_shared_expert,
    no_clamp,
    one_sinkhorn_less,
    window_too_wide,
    wrong_eps,
    no_sink,
    wrong_frequency,
    any_numerics,
    last_output_first,
    another_seed,
    other_scales,
    biases_forgotten,
    mask_ignored,
    one_random_number,
    not_claimed
};
Wrong wrong_ = Wrong::nothing; // of the backend under test; one test at a time

bool is(Wrong w) { return wrong_ == w; }

dsv4_status device_open(const dsv4_device_options *options, dsv4_device **out, dsv4_error *err) {
    dsv4_device_options o = *options;
    if (is(Wrong::any_numerics) && o.numerics > DSV4_NUMERICS_NATIVE) o.numerics = DSV4_NUMERICS_EXACT;
    return reference::device_open(&o, out, err);
}

dsv4_status device_query(dsv4_device *device, dsv4_device_info *info, dsv4_error *err) {
    const dsv4_status status = reference::device_query(device, info, err);
    info->capabilities = DSV4_CAP_EXACT | DSV4_CAP_ROW_INDEPENDENT | DSV4_CAP_RANDOM_WEIGHTS;
    if (is(Wrong::not_claimed)) info->capabilities = DSV4_CAP_EXACT;
    return status;
}

dsv4_status buffer_copy(dsv4_queue *queue, const dsv4_buffer *from, int32_t from_row, dsv4_buffer *to, int32_t to_row,
                        int32_t rows, dsv4_error *err) {
    if (is(Wrong::copy_off_by_one)) --from_row;
    return reference::memory_ops.buffer_copy(queue, from, from_row, to, to_row, rows, err);
}

dsv4_status block_create(dsv4_device *device, const dsv4_shape *shape, const dsv4_block_desc *desc, dsv4_block **out,
                         dsv4_error *err) {
    dsv4_shape s = *shape;
    dsv4_block_desc d = *desc;
    static const float faint[64] = {-100, -100, -100, -100, -100, -100};
    std::vector<dsv4_tensor> tensors;
    for (uint32_t i = 0; i < d.tensor_count; ++i) {
        dsv4_tensor t{};
        std::memcpy(&t, reinterpret_cast<const char *>(d.tensors) + i * size_t{d.tensor_stride},
                    std::min(sizeof t, size_t{d.tensor_stride}));
        if (is(Wrong::no_shared_expert) && t.role == DSV4_ROLE_SHARED_W1) continue;
        if (is(Wrong::no_sink) && t.role == DSV4_ROLE_ATTN_SINK) t.data = faint;
        if (is(Wrong::another_seed) && t.role == DSV4_ROLE_EMBED) t.random.seed += 1;
        if (is(Wrong::other_scales) && t.expert == 1) t.random.scale_range += 1;
        tensors.push_back(t);
    }
    std::vector<float> rope(d.rope_frequency, d.rope_frequency + s.rope_dims / 2);
    if (is(Wrong::wrong_frequency)) rope[1] *= 1.001f;
    if (is(Wrong::no_clamp)) s.swiglu_limit = 0;
    if (is(Wrong::one_sinkhorn_less)) --s.sinkhorn_iters;
    if (is(Wrong::window_too_wide)) ++s.window;
    if (is(Wrong::wrong_eps)) s.rms_eps = 1e-3f;
    d.tensors = tensors.data();
    d.tensor_count = static_cast<uint32_t>(tensors.size());
    d.tensor_stride = sizeof(dsv4_tensor);
    d.rope_frequency = rope.data();
    return reference::model_ops.block_create(device, &s, &d, out, err);
}

dsv4_status cache_create(dsv4_device *device, const dsv4_shape *shape, int32_t ratio, const dsv4_cache_desc *desc,
                         dsv4_cache **out, dsv4_error *err) {
    dsv4_cache_desc d = *desc;
    if (is(Wrong::no_slack)) d.state_slack = 0;
    return reference::model_ops.cache_create(device, shape, ratio, &d, out, err);
}

dsv4_status batch_create(dsv4_device *device, const dsv4_shape *shape, int32_t tokens, int32_t sequences,
                         int32_t blocks, dsv4_batch **out, dsv4_error *err) {
    return reference::model_ops.batch_create(device, shape, is(Wrong::oversized_batch) ? 1 << 20 : tokens, sequences,
                                             blocks, out, err);
}

dsv4_status embed(dsv4_queue *queue, const dsv4_batch *batch, const dsv4_block *ends, dsv4_buffer *streams,
                  dsv4_error *err) {
    const dsv4_status status = reference::ends_ops.embed(queue, batch, ends, streams, err);
    if (is(Wrong::one_stream_embedded))
        for (int32_t t = 0; t < batch->tokens; ++t)
            std::fill(streams->row(t) + ends->shape.hidden, streams->row(t) + streams->width, 0.f);
    return status;
}

dsv4_status head(dsv4_queue *queue, const dsv4_batch *batch, const dsv4_block *ends, const dsv4_block *from,
                 const dsv4_buffer *streams, dsv4_buffer *logits, dsv4_error *err) {
    dsv4_batch other = *batch;
    if (is(Wrong::last_output_first)) std::reverse(other.output_row.begin(), other.output_row.end());
    return reference::ends_ops.head(queue, &other, ends, from, streams, logits, err);
}

dsv4_status hc_post(dsv4_queue *queue, const dsv4_batch *batch, const dsv4_buffer *y, const dsv4_buffer *mix,
                    dsv4_buffer *streams, dsv4_error *err) {
    dsv4_buffer turned{mix->kind, mix->rows, mix->width,
                       reference::lazy_floats(static_cast<uint64_t>(mix->rows * mix->width))};
    const auto M = streams->width / y->width;
    for (int32_t t = 0; t < batch->tokens; ++t) {
        std::copy_n(mix->row(t), mix->width, turned.row(t));
        if (is(Wrong::comb_transposed))
            for (int64_t j = 0; j < M; ++j)
                for (int64_t k = 0; k < M; ++k) turned.row(t)[M + j * M + k] = mix->row(t)[M + k * M + j];
    }
    return reference::hc_ops.post(queue, batch, y, &turned, streams, err);
}

dsv4_status compress(dsv4_queue *queue, const dsv4_batch *batch, const dsv4_block *block, dsv4_cache *cache,
                     const dsv4_buffer *x, dsv4_error *err) {
    dsv4_batch other = *batch;
    if (is(Wrong::second_sequence_forgotten)) other.sequences = std::min(other.sequences, 1);
    return reference::attention_ops.compress(queue, &other, block, cache, x, err);
}

dsv4_status select(dsv4_queue *queue, const dsv4_batch *batch, const dsv4_block *block, const dsv4_cache *cache,
                   const dsv4_buffer *x, const dsv4_buffer *qr, dsv4_buffer *selection, dsv4_error *err) {
    const dsv4_status status = reference::attention_ops.select(queue, batch, block, cache, x, qr, selection, err);
    for (int32_t t = 0; t < batch->tokens; ++t) {
        float *row = selection->row(t);
        const std::set<float> chosen(row, row + selection->width);
        if (is(Wrong::entry_lost)) row[0] = -1;
        if (is(Wrong::entry_swapped))
            for (int32_t e = 0; e < (batch->position[static_cast<size_t>(t)] + 1) / 4; ++e)
                if (!chosen.count(static_cast<float>(e))) {
                    row[0] = static_cast<float>(e);
                    break;
                }
    }
    return status;
}

dsv4_status attend(dsv4_queue *queue, const dsv4_batch *batch, const dsv4_block *block, const dsv4_cache *cache,
                   const dsv4_buffer *q, const dsv4_buffer *selection, dsv4_buffer *o, dsv4_error *err) {
    const dsv4_status status = reference::attention_ops.attend(queue, batch, block, cache, q, selection, o, err);
    // As another summation order would: the last bit, far below any tolerance.
    if (is(Wrong::batch_size_matters) && batch->tokens % 2)
        for (int64_t i = 0; i < batch->tokens * o->width; ++i) o->row(0)[i] *= 1 + 0x1p-22f;
    return status;
}

dsv4_status output(dsv4_queue *queue, const dsv4_batch *batch, const dsv4_block *block, const dsv4_buffer *o,
                   dsv4_buffer *y, dsv4_error *err) {
    const dsv4_status status = reference::attention_ops.output(queue, batch, block, o, y, err);
    // The first token of a sequence's part of a step, by a path of its own.
    if (is(Wrong::chunk_matters))
        for (int32_t s = 0; s < batch->sequences; ++s) y->row(batch->first[static_cast<size_t>(s)])[3] *= 1 + 0x1p-22f;
    return status;
}

dsv4_status route(dsv4_queue *queue, const dsv4_batch *batch, const dsv4_block *block, const dsv4_buffer *x,
                  dsv4_buffer *out, dsv4_error *err) {
    const dsv4_status status = reference::moe_ops.route(queue, batch, block, x, out, err);
    if (is(Wrong::weights_unscaled))
        for (int32_t t = 0; t < batch->tokens; ++t)
            for (int64_t i = out->width / 2; i < out->width; ++i) out->row(t)[i] *= 0.99f;
    return status;
}

dsv4_status sample_set(dsv4_queue *queue, dsv4_sampler *sampler, int32_t rows, const dsv4_sample_row *row,
                       uint32_t row_stride, dsv4_error *err) {
    std::vector<dsv4_sample_row> other(row, row + rows);
    for (dsv4_sample_row &r : other) {
        if (is(Wrong::biases_forgotten)) r.bias_count = 0;
        if (is(Wrong::mask_ignored)) r.allowed = nullptr;
        if (is(Wrong::one_random_number)) r.random = other[0].random;
    }
    return reference::sample_ops.set(queue, sampler, rows, other.data(), row_stride, err);
}

const void *ops(dsv4_device *device, uint32_t family) {
    static const auto memory = [] {
        auto t = reference::memory_ops;
        t.buffer_copy = buffer_copy;
        return t;
    }();
    static const auto model = [] {
        auto t = reference::model_ops;
        t.block_create = block_create, t.cache_create = cache_create, t.batch_create = batch_create;
        return t;
    }();
    static const auto ends = [] {
        auto t = reference::ends_ops;
        t.embed = embed, t.head = head;
        return t;
    }();
    static const auto hc = [] {
        auto t = reference::hc_ops;
        t.post = hc_post;
        return t;
    }();
    static const auto attention = [] {
        auto t = reference::attention_ops;
        t.compress = compress, t.select = select, t.attend = attend, t.output = output;
        return t;
    }();
    static const auto moe = [] {
        auto t = reference::moe_ops;
        t.route = route;
        return t;
    }();
    static const auto sample = [] {
        auto t = reference::sample_ops;
        t.set = sample_set;
        return t;
    }();
    switch (family) {
    case DSV4_FAMILY_SAMPLE: return &sample;
    case DSV4_FAMILY_MEMORY: return &memory;
    case DSV4_FAMILY_MODEL: return &model;
    case DSV4_FAMILY_ENDS: return &ends;
    case DSV4_FAMILY_HC: return &hc;
    case DSV4_FAMILY_ATTENTION: return &attention;
    case DSV4_FAMILY_MOE: return &moe;
    default: return reference::ops(device, family);
    }
}

dsv4_status probe(uint32_t *devices, uint32_t *score, dsv4_error *) {
    *devices = *score = 1;
    return DSV4_OK;
}
void shutdown() {}

const dsv4_backend candidate = {sizeof(dsv4_backend), DSV4_BACKEND_ABI,        "wrong",      "",  probe,
                                device_open,          reference::device_close, device_query, ops, shutdown};
const dsv4_backend right = {
    sizeof(dsv4_backend),    DSV4_BACKEND_ABI,        "reference",    "",      probe, reference::device_open,
    reference::device_close, reference::device_query, reference::ops, shutdown};

std::vector<Row> run(Wrong wrong, const char *shape) {
    wrong_ = wrong;
    conformance::Options options;
    options.only_shape = shape;
    std::vector<Row> rows = conformance::run(&candidate, &right, options);
    wrong_ = Wrong::nothing;
    return rows;
}

/// "check: operator" of the rows that failed.
std::set<std::string> failed(const std::vector<Row> &rows) {
    std::set<std::string> names;
    for (const Row &row : rows)
        if (row.verdict == Verdict::fail) names.insert(row.check + ": " + row.op);
    return names;
}

struct Expectation {
    Wrong wrong;
    const char *name, *shape;
    std::vector<const char *> rows;
};

} // namespace

TEST_CASE("a right backend passes") {
    const auto rows = run(Wrong::nothing, "odd-c");
    INFO(conformance::to_table(rows));
    CHECK(failed(rows).empty());
    CHECK(rows.size() > 40);
    CHECK(conformance::passed(rows));
    CHECK_FALSE(conformance::passed({}));
}

TEST_CASE("a backend with one thing wrong fails, in the row that names it") {
    const std::vector<Expectation> all = {
        {Wrong::comb_transposed, "comb transposed", "odd-c", {"operator: hc.post", "layer: layer from parts"}},
        {Wrong::weights_unscaled, "route weights off by 1 %", "odd-c", {"operator: moe.route by score: weights"}},
        {Wrong::entry_swapped, "a worse entry selected", "odd-a", {"operator: attention.select"}},
        {Wrong::entry_lost, "one entry too few", "odd-c", {"operator: attention.select"}},
        {Wrong::batch_size_matters, "last bit depends on T", "odd-c", {"rows: attention.attend"}},
        {Wrong::chunk_matters, "last bit depends on the cut", "odd-c", {"rows: attention.output"}},
        {Wrong::no_slack, "ring without slack", "odd-c", {"positions: cut back and go on"}},
        {Wrong::oversized_batch, "a batch takes more than it has", "odd-c", {"contract: bad calls"}},
        {Wrong::copy_off_by_one, "copy from the wrong row", "odd-c", {"contract: buffers"}},
        {Wrong::second_sequence_forgotten,
         "only the first sequence",
         "odd-c",
         {"operator: attention.compress: entries", "rows: cache"}},
        {Wrong::one_stream_embedded, "one stream", "odd-c", {"operator: ends.embed"}},
        {Wrong::last_output_first, "output rows reversed", "odd-c", {"operator: ends.head"}},
        {Wrong::no_shared_expert, "no shared expert", "odd-c", {"operator: moe.experts"}},
        {Wrong::no_clamp, "no clamp", "odd-c", {"operator: moe.experts"}},
        {Wrong::one_sinkhorn_less, "Sinkhorn too short", "odd-c", {"operator: hc.pre attn: mix"}},
        {Wrong::window_too_wide, "W + 1", "odd-c", {"operator: attention.attend"}},
        {Wrong::wrong_eps, "another eps", "odd-c", {"operator: hc.pre attn: x", "operator: attention.project: qr"}},
        {Wrong::no_sink, "no sink", "odd-c", {"operator: attention.attend"}},
        {Wrong::wrong_frequency,
         "a rope frequency off by 0.1 %",
         "odd-c",
         {"operator: attention.project: q", "operator: attention.project: window"}},
        {Wrong::another_seed, "another seed", "odd-b", {"contract: random weights: ends"}},
        {Wrong::other_scales, "other scales", "tiny", {"contract: random weights: layer by token id"}},
        {Wrong::biases_forgotten, "no biases", "odd-c", {"sample: sample", "sample: sample, bad calls"}},
        {Wrong::mask_ignored, "no mask", "odd-c", {"sample: sample"}},
        {Wrong::one_random_number, "a batch shares its random number", "odd-c", {"sample: sample"}},
        {Wrong::any_numerics, "unknown numerics accepted", "odd-c", {"contract: bad calls"}},
    };
    for (const Expectation &e : all) {
        const auto rows = run(e.wrong, e.shape);
        const auto names = failed(rows);
        INFO(e.name);
        INFO(conformance::to_table(rows));
        for (const char *row : e.rows) CHECK(names.count(row) == 1);
        CHECK_FALSE(conformance::passed(rows));
    }
}

TEST_CASE("last bits are no failure of a backend that does not claim them") {
    const auto rows = run(Wrong::not_claimed, "odd-c");
    CHECK(conformance::passed(rows));
    bool told = false;
    for (const Row &row : rows)
        told |= row.check == "rows" && row.verdict == Verdict::skipped &&
                row.note.find("DSV4_CAP_ROW_INDEPENDENT") != std::string::npos;
    CHECK(told);
}
