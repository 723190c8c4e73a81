#include "core/engine/sampler.hpp"
#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include "core/error.hpp"
#include "core/model/random_bytes.hpp"

namespace dsv4 {
namespace {

constexpr int32_t most_tokens = 1 << 24;             // a vocabulary has fewer: their weights add up to less than 2^64
constexpr uint64_t full_weight = uint64_t{1} << 40;  // of the likeliest token
constexpr float no_distance = 41 << 24;              // tokens so far from the likeliest, and farther ones, are out

/// floor(a * b / 2^64)
uint64_t high_product(uint64_t a, uint64_t b) {
    const uint64_t a0 = uint32_t(a), a1 = a >> 32, b0 = uint32_t(b), b1 = b >> 32;
    const uint64_t middle = a1 * b0 + (a0 * b0 >> 32), other = a0 * b1 + uint32_t(middle);
    return a1 * b1 + (middle >> 32) + (other >> 32);
}

void expect(bool ok, const std::string &what) {
    if (!ok) throw Error(DSV4_E_INVALID, what);
}

}  // namespace

void check_sampling(const SamplingOptions &o, int32_t vocab) {
    if (vocab >= most_tokens)
        throw Error(DSV4_E_UNSUPPORTED, "sampling: expected fewer than " + std::to_string(most_tokens) +
                                            " tokens, the vocabulary has " + std::to_string(vocab));
    expect(o.temperature >= 0 && std::isfinite(o.temperature),
           "temperature: expected 0 (greedy) or more, found " + std::to_string(o.temperature));
    expect(o.top_p >= 0 && o.top_p <= 1, "top_p: expected 0 (off) to 1, found " + std::to_string(o.top_p));
    expect(o.min_p >= 0 && o.min_p <= 1, "min_p: expected 0 (off) to 1, found " + std::to_string(o.min_p));
    for (const auto &[token, bias] : o.logit_bias) {
        expect(token >= 0 && token < vocab, "logit_bias: token " + std::to_string(token) + " is not in [0, " +
                                                std::to_string(vocab) + ")");
        expect(!std::isnan(bias), "logit_bias: the bias of token " + std::to_string(token) + " is not a number");
    }
}

uint64_t sample_weight(uint32_t t) {
    static constexpr uint32_t C[] = DSV4_SAMPLE_POLYNOMIAL;
    const uint32_t v = t << 8;
    uint32_t a = C[5];
    for (int j = 4; j >= 0; --j) a = C[j] - uint32_t(uint64_t{a} * v >> 32);
    const uint64_t m = (uint64_t{1} << 31) - (uint64_t{a} * v >> 33);
    return m << 9 >> (t >> 24);
}

Sampler::Sampler(SamplingOptions options) : options_(std::move(options)) {
    const SamplingOptions &o = options_;
    constexpr double log2_e = 0x1.71547652b82fep+0;
    row_.kind = o.temperature > 0 ? DSV4_SAMPLE_DRAW : DSV4_SAMPLE_LARGEST;
    row_.top_k = o.top_k;
    if (o.top_p > 0 && o.top_p < 1) row_.top_p = std::max(uint32_t(double(o.top_p) * 0x1p32), 1u);
    // Beyond float's range is infinite, which leaves the likeliest and its equals: a conversion need not say so.
    const double scale = o.temperature > 0 ? 0x1p24 * log2_e / double(o.temperature) : 0;
    constexpr float most = std::numeric_limits<float>::max();
    row_.scale = scale > double(most) ? std::numeric_limits<float>::infinity() : float(scale);
    row_.least = std::max(uint64_t(double(o.min_p) * double(full_weight)), uint64_t{1});
}

dsv4_sample_row Sampler::row(uint64_t position, const uint64_t *allowed) const {
    dsv4_sample_row row = row_;
    row.random = random_word(options_.seed, position); // one well-mixed number per (seed, position)
    row.allowed = allowed;
    row.bias = options_.logit_bias.data();
    row.bias_count = uint32_t(options_.logit_bias.size());
    return row;
}

int32_t Sampler::checked(int32_t sampled) {
    if (sampled == DSV4_SAMPLED_NOT_A_NUMBER)
        throw Error(DSV4_E_MODEL, "sampling: the model's logits are not numbers; its weights hold NaN or infinities");
    if (sampled == DSV4_SAMPLED_FORBIDDEN)
        throw Error(DSV4_E_INVALID, "sampling: logit_bias and the grammar together forbid every token");
    if (sampled < 0)
        throw Error(DSV4_E_INTERNAL, "sampling: the backend gave " + std::to_string(sampled) + " for a token");
    return sampled;
}

int32_t Sampler::sample(float *logits, int32_t vocab, uint64_t position, const uint64_t *allowed) {
    constexpr float never = -std::numeric_limits<float>::infinity();
    const dsv4_sample_row r = row(position, allowed);
    for (const auto &[token, bias] : options_.logit_bias) logits[token] += bias;
    if (allowed)
        for (int32_t i = 0; i < vocab; ++i)
            if (!(allowed[i / 64] >> (i % 64) & 1)) logits[i] = never;
    int32_t best = -1;
    for (int32_t i = 0; i < vocab; ++i)
        if (logits[i] > never && (best < 0 || logits[i] > logits[best])) best = i;
    if (best < 0) {
        const bool nan = std::any_of(logits, logits + vocab, [](float x) { return std::isnan(x); });
        return checked(nan ? DSV4_SAMPLED_NOT_A_NUMBER : DSV4_SAMPLED_FORBIDDEN);
    }
    if (r.kind == DSV4_SAMPLE_LARGEST) return best;

    const float top = logits[best];
    candidates_.clear();
    for (int32_t i = 0; i < vocab; ++i) {
        if (!(logits[i] > never)) continue;
        // The likeliest is 0 by definition: where it is infinite, or the scale is, the formula says NaN.
        const float distance = logits[i] == top ? 0.0f : (top - logits[i]) * r.scale;
        if (distance < no_distance && sample_weight(uint32_t(distance)) >= r.least)
            candidates_.push_back({uint32_t(distance), i});
    }
    const auto likelier = [](const Candidate &a, const Candidate &b) { return a.t != b.t ? a.t < b.t : a.id < b.id; };
    const auto by_id = [](const Candidate &a, const Candidate &b) { return a.id < b.id; };
    const auto sum = [&] {
        uint64_t s = 0;
        for (const Candidate &c : candidates_) s += sample_weight(c.t);
        return s;
    };
    const bool narrowed = (r.top_k && r.top_k < candidates_.size()) || r.top_p;
    if (r.top_k && r.top_k < candidates_.size()) {
        const auto end = candidates_.begin() + ptrdiff_t(r.top_k);
        std::nth_element(candidates_.begin(), end, candidates_.end(), likelier);
        candidates_.resize(r.top_k);
    }
    if (r.top_p) {
        // Smallest set of likeliest tokens whose probabilities reach top_p; the one that crosses it is in.
        std::sort(candidates_.begin(), candidates_.end(), likelier);
        const uint64_t wanted = std::max(high_product(sum(), uint64_t{r.top_p} << 32), uint64_t{1});
        uint64_t kept = 0;
        size_t n = 0;
        while (kept < wanted) kept += sample_weight(candidates_[n++].t);
        candidates_.resize(n);
    }
    if (narrowed) std::sort(candidates_.begin(), candidates_.end(), by_id);
    const uint64_t place = high_product(r.random, sum());
    uint64_t passed = 0;
    for (const Candidate &c : candidates_)
        if ((passed += sample_weight(c.t)) > place) return c.id;
    return candidates_.back().id;  // place is less than the sum
}

}  // namespace dsv4
