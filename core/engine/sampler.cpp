#include "core/engine/sampler.hpp"
#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include "core/error.hpp"

namespace dsv4 {
namespace {

/// SplitMix64 (Steele, Lea, Flood 2014): one well-mixed number per (seed, position).
double uniform(uint64_t seed, uint64_t position) {
    uint64_t z = seed + (position + 1) * 0x9E3779B97F4A7C15ull;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return double((z ^ (z >> 31)) >> 11) * 0x1p-53;
}

void expect(bool ok, const std::string &what) {
    if (!ok) throw Error(DSV4_E_INVALID, what);
}

}  // namespace

void check_sampling(const SamplingOptions &o, int32_t vocab) {
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

int32_t Sampler::sample(float *logits, int32_t vocab, uint64_t position, const uint64_t *allowed) {
    constexpr float never = -std::numeric_limits<float>::infinity();
    for (const auto &[token, bias] : options_.logit_bias) logits[token] += bias;
    if (allowed)
        for (int32_t i = 0; i < vocab; ++i)
            if (!(allowed[i / 64] >> (i % 64) & 1)) logits[i] = never;
    int32_t best = -1;
    for (int32_t i = 0; i < vocab; ++i)
        if (logits[i] > never && (best < 0 || logits[i] > logits[best])) best = i;
    if (best < 0) {
        if (std::any_of(logits, logits + vocab, [](float x) { return std::isnan(x); }))
            throw Error(DSV4_E_MODEL, "sampling: the model's logits are not numbers; its weights hold NaN or infinities");
        throw Error(DSV4_E_INVALID, "sampling: logit_bias and the grammar together forbid every token");
    }
    if (options_.temperature == 0) return best;

    // Candidates by probability relative to the likeliest. What is under exp(-80) of it, with no filter on, changes
    // nothing that a double can hold of the sum's order.
    const float top = logits[best], rate = 1.0f / options_.temperature;
    const float floor = options_.min_p > 0 ? std::max(options_.min_p, 1e-35f) : 1e-35f;
    candidates_.clear();
    for (int32_t i = 0; i < vocab; ++i)
        if (logits[i] > never)
            // The likeliest is 1 by definition: where it is infinite, or the rate is, the formula says NaN.
            if (const float p = logits[i] == top ? 1.0f : std::exp((logits[i] - top) * rate); p >= floor)
                candidates_.emplace_back(p, i);
    const auto likelier = [](const auto &a, const auto &b) {
        return a.first != b.first ? a.first > b.first : a.second < b.second;
    };
    if (options_.top_k && options_.top_k < candidates_.size()) {
        const auto end = candidates_.begin() + ptrdiff_t(options_.top_k);
        std::nth_element(candidates_.begin(), end, candidates_.end(), likelier);
        candidates_.resize(options_.top_k);
    }
    double sum = 0;
    if (options_.top_p > 0 && options_.top_p < 1) {
        // Smallest set of likeliest tokens whose probabilities reach top_p; the one that crosses it is in.
        std::sort(candidates_.begin(), candidates_.end(), likelier);
        double total = 0, kept = 0;
        for (const auto &c : candidates_) total += c.first;
        size_t n = 0;
        while (n < candidates_.size() && (n == 0 || kept < options_.top_p * total)) kept += candidates_[n++].first;
        candidates_.resize(n);
    } else {
        std::sort(candidates_.begin(), candidates_.end(), [](const auto &a, const auto &b) { return a.second < b.second; });
    }
    for (const auto &c : candidates_) sum += c.first;
    double left = uniform(options_.seed, position) * sum;
    for (const auto &c : candidates_)
        if ((left -= c.first) < 0) return c.second;
    return candidates_.back().second;
}

}  // namespace dsv4
