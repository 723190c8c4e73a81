// The sampler against probabilities computed the long way.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "core/engine/sampler.hpp"
#include "core/error.hpp"
#include "tests/catch.hpp"

using namespace dsv4;

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
const std::vector<float> example = {1.5f, -0.5f, 3.0f, 0.0f, 2.9f, -4.0f, 1.0f, 2.0f, -1.0f, 0.5f};

int32_t draw(const SamplingOptions &options, std::vector<float> logits, uint64_t position = 0,
             const uint64_t *allowed = nullptr) {
    return Sampler(options).sample(logits.data(), int32_t(logits.size()), position, allowed);
}

/// Softmax at the temperature; tokens under min_p of the likeliest go; then all but the top_k likeliest; then all but
/// the smallest set that reaches top_p.
std::vector<double> expected(const SamplingOptions &o, std::vector<float> logits) {
    for (const auto &[token, bias] : o.logit_bias) logits[size_t(token)] += bias;
    const size_t V = logits.size();
    std::vector<size_t> order(V);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return logits[a] > logits[b]; });
    std::vector<double> p(V);
    for (size_t i = 0; i < V; ++i) p[i] = std::exp((double(logits[i]) - logits[order[0]]) / o.temperature);
    for (double &x : p)
        if (x < o.min_p) x = 0;
    if (o.top_k)
        for (size_t i = o.top_k; i < V; ++i) p[order[i]] = 0;
    double total = std::accumulate(p.begin(), p.end(), 0.0), kept = 0;
    if (o.top_p > 0)
        for (const size_t i : order) {
            if (kept >= o.top_p * total) p[i] = 0;
            kept += p[i];
        }
    total = std::accumulate(p.begin(), p.end(), 0.0);
    for (double &x : p) x /= total;
    return p;
}

void compare(const SamplingOptions &o) {
    constexpr int draws = 60000;
    const auto p = expected(o, example);
    std::vector<int> count(example.size());
    Sampler sampler(o);
    for (int i = 0; i < draws; ++i) {
        auto logits = example;
        ++count[size_t(sampler.sample(logits.data(), int32_t(logits.size()), uint64_t(i), nullptr))];
    }
    double chi_square = 0;
    for (size_t i = 0; i < p.size(); ++i) {
        INFO("token " << i << ", probability " << p[i] << ", drawn " << count[i]);
        if (p[i] == 0) CHECK(count[i] == 0);
        else chi_square += std::pow(count[i] - draws * p[i], 2) / (draws * p[i]);
    }
    CHECK(chi_square < 40);  // of at most 9 degrees of freedom: one in 10^5; the seeds are fixed
}

SamplingOptions at(float temperature, float top_p = 0, uint32_t top_k = 0, float min_p = 0) {
    SamplingOptions o;
    o.temperature = temperature;
    o.top_p = top_p;
    o.top_k = top_k;
    o.min_p = min_p;
    o.seed = 20260101;
    return o;
}

} // namespace

TEST_CASE("sampled frequencies follow the probabilities", "[sampler]") {
    SECTION("temperature") {
        compare(at(1));
        compare(at(0.3f));
        compare(at(5));
    }
    SECTION("top-k") {
        compare(at(1, 0, 1));
        compare(at(1, 0, 4));
        compare(at(2, 0, 1000));
    }
    SECTION("top-p") {
        compare(at(1, 0.01f));
        compare(at(1, 0.7f));
        compare(at(1.5f, 0.95f));
        compare(at(1, 1.0f));
    }
    SECTION("min-p") {
        compare(at(1, 0, 0, 0.2f));
        compare(at(1, 0, 0, 1.0f));
    }
    SECTION("all of them") { compare(at(1.3f, 0.8f, 6, 0.05f)); }
    SECTION("bias") {
        auto o = at(1);
        o.logit_bias = {{5, 6.5f}, {2, -infinity}, {5, 0.5f}};
        compare(o);
    }
}

TEST_CASE("greedy takes the largest logit, and of equals the smaller id", "[sampler]") {
    CHECK(draw(at(0), example) == 2);
    CHECK(draw(at(0), {0, 3, 1, 3}) == 1);
    auto o = at(0);
    o.logit_bias = {{1, -1.0f}};
    CHECK(draw(o, {0, 3, 1, 3}) == 3);
    CHECK(draw(at(1, 0, 1), {0, 3, 1, 3}) == 1);  // top-k 1 among ties
    const float nan = std::nanf("");
    CHECK(draw(at(0), {nan, 1, nan, 2}) == 3);
    CHECK(draw(at(1), {nan, -infinity, nan, 2}) == 3);
}

TEST_CASE("extreme logits, biases and temperatures", "[sampler]") {
    CHECK(draw(at(1), {0, infinity, 1}) == 1);
    auto o = at(1, 0.9f);
    o.logit_bias = {{0, infinity}};
    CHECK(draw(o, {0, 5, 1}) == 0);
    CHECK(draw(at(1e-45f), {0, 5, 4.999f}) == 1);
    CHECK(draw(at(1e38f), {0, 0, 0}) < 3);
    o.logit_bias = {{0, -infinity}, {1, -infinity}, {2, -infinity}};
    CHECK_THROWS_AS(draw(o, {0, 5, 1}), Error);
}

TEST_CASE("a filter leaves only what it allows", "[sampler]") {
    std::vector<uint64_t> allowed(2, 0);
    std::vector<float> logits(100, 1.0f);
    logits[3] = 50;
    allowed[1] |= uint64_t{1} << (70 - 64);
    for (uint64_t position = 0; position < 50; ++position) CHECK(draw(at(1), logits, position, allowed.data()) == 70);
    CHECK(draw(at(0), logits, 0, allowed.data()) == 70);
}

TEST_CASE("weights are powers of two, and no larger at a larger distance", "[sampler]") {
    CHECK(sample_weight(0) == uint64_t{1} << 40);
    CHECK(sample_weight(1u << 24) == uint64_t{1} << 39);
    CHECK(sample_weight(40u << 24) == 1);
    CHECK(sample_weight((40u << 24) + 1) == 0);
    double worst = 0;
    uint64_t former = ~uint64_t{0}, rising = 0;
    for (uint32_t t = 0; t < 2u << 24; ++t) {
        const uint64_t w = sample_weight(t);
        rising += w > former;
        former = w;
        if (t % 64 == 0) worst = std::max(worst, std::abs(double(w) / std::exp2(40 - double(t) * 0x1p-24) - 1));
    }
    CHECK(rising == 0);
    CHECK(worst < 0x1p-26);
}

TEST_CASE("random numbers are a function of seed and position", "[sampler]") {
    auto o = at(2);
    std::vector<int32_t> first, again, other;
    for (uint64_t p = 0; p < 64; ++p) first.push_back(draw(o, example, p));
    for (uint64_t p = 64; p-- > 0;) again.insert(again.begin(), draw(o, example, p));
    o.seed = 1;
    for (uint64_t p = 0; p < 64; ++p) other.push_back(draw(o, example, p));
    CHECK(first == again);
    CHECK(first != other);
}

TEST_CASE("options out of range are refused by name", "[sampler]") {
    const auto refused = [](SamplingOptions o, const char *field) {
        try {
            check_sampling(o, 10);
        } catch (const Error &e) {
            return e.status == DSV4_E_INVALID && std::string(e.what()).rfind(field, 0) == 0;
        }
        return false;
    };
    CHECK(refused(at(-0.1f), "temperature"));
    CHECK(refused(at(infinity), "temperature"));
    CHECK(refused(at(std::nanf("")), "temperature"));
    CHECK(refused(at(1, 1.1f), "top_p"));
    CHECK(refused(at(1, std::nanf("")), "top_p"));
    CHECK(refused(at(1, 0, 0, -1), "min_p"));
    auto o = at(1);
    for (const int32_t token : {-1, 10}) {
        o.logit_bias = {{token, 1.0f}};
        CHECK(refused(o, "logit_bias"));
    }
    o.logit_bias = {{1, std::nanf("")}};
    CHECK(refused(o, "logit_bias"));
    check_sampling(at(1, 1, 5, 1), 10);
}
