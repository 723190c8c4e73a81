// `exact` numerics through the public API against the oracle: logits, drafts and greedy text.
#include <cstdio>

#include "golden.hpp"
#include "tests/catch.hpp"
#include "tests/support/api.hpp"

using namespace dsv4::test;

namespace {

constexpr double tolerance = 1e-3;

/// Rows of `got` [T, vocab] at `positions` against `want` [positions, vocab].
double worst_row(const std::vector<float> &got, const std::vector<int32_t> &positions, const std::vector<float> &want) {
    const size_t vocab = want.size() / positions.size();
    double worst = 0;
    for (size_t i = 0; i < positions.size(); ++i) {
        REQUIRE((size_t(positions[i]) + 1) * vocab <= got.size());
        const double e = relative_error(got.data() + size_t(positions[i]) * vocab, want.data() + i * vocab, vocab);
        INFO("position " << positions[i]);
        CHECK(e < tolerance);
        worst = std::max(worst, e);
    }
    return worst;
}

void compare(const std::string &checkpoint) {
    INFO(checkpoint);
    const Vectors v(checkpoint);
    const auto runtime = open_runtime(DSV4_PLUGIN_DIR);
    ModelSpec spec;
    spec.flags = DSV4_MODEL_DRAFTS;
    const auto model = load(runtime.get(), checkpoint, spec);
    const auto prompt = v.ints("prompt");
    const auto session = new_session(model.get());
    const Logits got = evaluate(session.get(), prompt, DSV4_EVALUATE_ALL | DSV4_EVALUATE_DRAFTS);
    const double logits = worst_row(got.next, v.ints("positions"), v.floats("logits_exact"));
    const double drafts = worst_row(got.draft, v.ints("draft_positions"), v.floats("draft_logits_exact"));

    const auto greedy = v.ints("greedy_exact");
    const auto margin = v.floats("greedy_exact_margin");
    GenerateSpec generation;
    generation.prompt = prompt;
    generation.max_tokens = uint32_t(greedy.size());
    const Answer answer = generate(session.get(), generation);
    REQUIRE(answer.tokens.size() == greedy.size());
    size_t equal = 0;
    while (equal < greedy.size() && answer.tokens[equal] == greedy[equal]) ++equal;
    // Logits have a size of about 3: two of them closer than this may come out in either order.
    if (equal < greedy.size()) CHECK(margin[equal] < 1e-2);
    CHECK(answer.done.cached_tokens == prompt.size() - 1);
    std::printf("%-12s logits %.1e  drafts %.1e  greedy %zu/%zu\n",
                std::filesystem::path(checkpoint).filename().c_str(), logits, drafts, equal, greedy.size());
}

} // namespace

TEST_CASE("logits, drafts and greedy text of our fixtures", "[exact]") {
    REQUIRE(fixtures().size() >= 3);
    for (const std::string &checkpoint : fixtures()) compare(checkpoint);
}

TEST_CASE("logits, drafts and greedy text of the published vectors", "[exact][published]") {
    const auto all = published_vectors();
    if (all.empty()) {
        WARN("SKIPPED: no checkpoints in ../shared/vectors");
        return;
    }
    for (const std::string &checkpoint : all) compare(checkpoint);
}
