// Family sample: logits to tokens, as dsv4_backend.h defines it, by sorting.
#include <algorithm>
#include <cmath>
#include <cstring>
#include "backends/reference/ops.hpp"
#include "backends/sampling.hpp"

namespace dsv4::reference {
namespace {

struct Wish {
    dsv4_sample_row row; // its pointers are not used
    std::vector<uint64_t> allowed;
    std::vector<dsv4_logit_bias> bias;
};

} // namespace
} // namespace dsv4::reference

struct dsv4_sampler {
    int32_t vocab, max_rows, max_biases;
    std::vector<dsv4::reference::Wish> wishes;
    std::vector<int32_t> ids;
};

namespace dsv4::reference {
namespace {

struct Candidate {
    uint32_t t;
    int32_t id;
    uint64_t weight() const { return sampling::weight(t); }
};

uint64_t sum_of(const std::vector<Candidate> &candidates) {
    uint64_t sum = 0;
    for (const Candidate &c : candidates) sum += c.weight();
    return sum;
}

int32_t sample_one(const Wish &wish, const float *logits, int32_t vocab) {
    const dsv4_sample_row &r = wish.row;
    if (r.kind == DSV4_SAMPLE_NOTHING) return DSV4_SAMPLED_NOTHING;
    std::vector<float> x(logits, logits + vocab);
    for (const dsv4_logit_bias &b : wish.bias) x[size_t(b.token)] += b.bias;
    bool nan = false;
    int32_t best = -1;
    for (int32_t i = 0; i < vocab; ++i) {
        float &v = x[size_t(i)];
        if (!wish.allowed.empty() && !(wish.allowed[size_t(i) / 64] >> (i % 64) & 1)) v = -INFINITY;
        nan |= std::isnan(v);
        if (v > -INFINITY && (best < 0 || v > x[size_t(best)])) best = i;
    }
    if (best < 0) return nan ? DSV4_SAMPLED_NOT_A_NUMBER : DSV4_SAMPLED_FORBIDDEN;
    if (r.kind == DSV4_SAMPLE_LARGEST) return best;

    const float top = x[size_t(best)];
    std::vector<Candidate> left;
    for (int32_t i = 0; i < vocab; ++i) {
        if (!(x[size_t(i)] > -INFINITY)) continue;
        const Candidate c{sampling::distance(top, x[size_t(i)], r.scale), i};
        if (c.t != sampling::out && c.weight() >= std::max<uint64_t>(r.least, 1)) left.push_back(c);
    }
    std::sort(left.begin(), left.end(),
              [](const Candidate &a, const Candidate &b) { return a.t != b.t ? a.t < b.t : a.id < b.id; });
    if (r.top_k && r.top_k < left.size()) left.resize(r.top_k);
    if (r.top_p) {
        const uint64_t wanted = sampling::wanted_sum(sum_of(left), r.top_p);
        uint64_t kept = 0;
        size_t n = 0;
        while (kept < wanted) kept += left[n++].weight();
        left.resize(n);
    }
    std::sort(left.begin(), left.end(), [](const Candidate &a, const Candidate &b) { return a.id < b.id; });
    const uint64_t place = sampling::high_product(r.random, sum_of(left));
    uint64_t passed = 0;
    for (const Candidate &c : left)
        if ((passed += c.weight()) > place) return c.id;
    return left.back().id; // place is less than the sum
}

dsv4_status sampler_create(dsv4_device *, const dsv4_shape *shape, int32_t max_rows, int32_t max_biases,
                           dsv4_sampler **out, dsv4_error *err) {
    return guard(err, [&] {
        if (max_rows < 0 || max_biases < 0)
            fail(DSV4_E_INVALID, "a sampler of %d rows, %d biases", max_rows, max_biases);
        if (shape->vocab < 1 || shape->vocab > sampling::most_tokens)
            fail(DSV4_E_UNSUPPORTED, "sampling from %d tokens; at most %d", shape->vocab, sampling::most_tokens);
        *out = new dsv4_sampler{shape->vocab, max_rows, max_biases, {}, std::vector<int32_t>(size_t(max_rows))};
    });
}
void sampler_release(dsv4_sampler *sampler) { delete sampler; }

dsv4_status set(dsv4_queue *, dsv4_sampler *sampler, int32_t rows, const dsv4_sample_row *row, uint32_t row_stride,
                dsv4_error *err) {
    return guard(err, [&] {
        if (rows < 0 || rows > sampler->max_rows)
            fail(DSV4_E_INVALID, "%d rows for a sampler of %d", rows, sampler->max_rows);
        const auto words = size_t(sampler->vocab + 63) / 64;
        uint64_t biases = 0;
        std::vector<Wish> wishes;
        for (int32_t i = 0; i < rows; ++i) {
            Wish w{};
            std::memcpy(&w.row, reinterpret_cast<const char *>(row) + size_t(i) * row_stride,
                        std::min<size_t>(row_stride, sizeof w.row));
            if (w.row.kind < DSV4_SAMPLE_NOTHING || w.row.kind > DSV4_SAMPLE_DRAW)
                fail(DSV4_E_UNSUPPORTED, "sampling of kind %d", w.row.kind);
            if (w.row.kind == DSV4_SAMPLE_DRAW && (!(w.row.scale > 0) || w.row.least > uint64_t{1} << 40))
                fail(DSV4_E_INVALID, "row %d: scale %g, least weight %llu", i, double(w.row.scale),
                     static_cast<unsigned long long>(w.row.least));
            if (w.row.allowed) w.allowed.assign(w.row.allowed, w.row.allowed + words);
            for (uint32_t b = 0; b < w.row.bias_count; ++b) {
                if (w.row.bias[b].token < 0 || w.row.bias[b].token >= sampler->vocab)
                    fail(DSV4_E_INVALID, "a bias of token %d of %d", w.row.bias[b].token, sampler->vocab);
                w.bias.push_back(w.row.bias[b]);
            }
            if ((biases += w.row.bias_count) > uint64_t(sampler->max_biases))
                fail(DSV4_E_INVALID, "more biases than the %d of the sampler", sampler->max_biases);
            wishes.push_back(std::move(w));
        }
        sampler->wishes = std::move(wishes);
    });
}

dsv4_status sample(dsv4_queue *, const dsv4_batch *batch, dsv4_sampler *sampler, const dsv4_buffer *logits,
                   dsv4_error *err) {
    return guard(err, [&] {
        if (batch->outputs > sampler->max_rows || batch->outputs > logits->rows || logits->width != sampler->vocab)
            fail(DSV4_E_INVALID, "%d outputs of %d logits, for a sampler of %d and %d", batch->outputs,
                 int(logits->width), sampler->max_rows, sampler->vocab);
        for (int32_t o = 0; o < batch->outputs; ++o)
            sampler->ids[size_t(o)] = size_t(o) < sampler->wishes.size()
                                          ? sample_one(sampler->wishes[size_t(o)], logits->row(o), sampler->vocab)
                                          : int32_t(DSV4_SAMPLED_NOTHING);
    });
}

dsv4_status read(dsv4_queue *, const dsv4_sampler *sampler, int32_t rows, int32_t *id, dsv4_error *err) {
    return guard(err, [&] {
        if (rows < 0 || rows > sampler->max_rows)
            fail(DSV4_E_INVALID, "%d rows of a sampler of %d", rows, sampler->max_rows);
        std::copy_n(sampler->ids.begin(), rows, id);
    });
}

}  // namespace

const dsv4_sample_ops sample_ops = {sizeof(dsv4_sample_ops), 0, sampler_create, sampler_release, set, sample, read};

}  // namespace dsv4::reference
