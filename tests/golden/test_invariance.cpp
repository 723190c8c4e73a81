// How the work is cut into steps, and who shares them, must not change a bit: chunks, decoding, neighbours, truncation,
// calls that failed, in both numerics.
#include <atomic>
#include <thread>

#include "golden.hpp"
#include "tests/catch.hpp"
#include "tests/support/api.hpp"

using namespace dsv4::test;

namespace {

/// A prompt that crosses windows, entries of every ratio and blocks.
std::vector<int32_t> prompt_of(const std::string &checkpoint) { return Vectors(checkpoint).ints("prompt"); }

struct Loaded {
    RuntimePtr runtime = open_runtime(DSV4_PLUGIN_DIR);
    ModelPtr model;
    std::vector<int32_t> prompt;
    std::vector<float> all;  // logits of the prompt in one step

    Loaded(const std::string &name, int32_t numerics) {
        ModelSpec spec;
        spec.numerics = numerics;
        model = load(runtime.get(), fixture(name), spec);
        prompt = prompt_of(fixture(name));
        all = evaluate(new_session(model.get()).get(), prompt).next;
    }
    size_t vocab() const { return all.size() / prompt.size(); }
    std::vector<float> last() const { return {all.end() - ptrdiff_t(vocab()), all.end()}; }
};

std::vector<int32_t> part(const std::vector<int32_t> &v, size_t begin, size_t end) {
    return {v.begin() + ptrdiff_t(begin), v.begin() + ptrdiff_t(end)};
}

template <class Body> void for_each_model(const Body &body) {
    for (const std::string name : {"plain", "narrow"})
        for (const int32_t numerics : {DSV4_NUMERICS_EXACT, DSV4_NUMERICS_OFFICIAL}) {
            INFO(name << ", numerics " << numerics);
            const Loaded m(name, numerics);
            body(m);
        }
}

/// Keeps a model's engine busy with another conversation.
class Neighbour {
  public:
    explicit Neighbour(dsv4_model *model, const std::vector<int32_t> &prompt)
        : session_(new_session(model, 3)), thread_([this, prompt] {
              while (!stop_) {
                  GenerateSpec g;
                  g.prompt = prompt;
                  g.prompt[0] = int32_t((size_t(g.prompt[0]) + answers_ + 1) % 100);  // nothing of it is cached
                  g.max_tokens = 5;
                  generate(session_.get(), g);
                  ++answers_;
              }
          }) {}
    ~Neighbour() {
        stop_ = true;
        thread_.join();
    }
    void wait_for_one() const {
        while (!answers_) std::this_thread::yield();
    }

  private:
    SessionPtr session_;
    std::atomic<bool> stop_{false};
    std::atomic<size_t> answers_{0};
    std::thread thread_;
};

} // namespace

TEST_CASE("chunks of any size and token-by-token decoding give the same bits", "[invariance]") {
    for_each_model([](const Loaded &m) {
        for (const uint32_t chunk : {1u, 7u, 64u}) {
            INFO("chunk " << chunk);
            CHECK(evaluate(new_session(m.model.get(), chunk).get(), m.prompt).next == m.all);
        }
        const auto session = new_session(m.model.get());
        std::vector<float> decoded;
        for (const int32_t id : m.prompt) {
            const auto row = evaluate(session.get(), {id}, 0).next;
            decoded.insert(decoded.end(), row.begin(), row.end());
        }
        CHECK(decoded == m.all);
    });
}

TEST_CASE("truncating and evaluating again gives the same bits", "[invariance]") {
    for_each_model([](const Loaded &m) {
        const auto session = new_session(m.model.get(), 11);
        evaluate(session.get(), m.prompt, 0);
        const size_t T = m.prompt.size();
        ErrorBox error;
        // Within the rings' reach, at the edges of entries and windows, and far beyond what the rings hold.
        for (const size_t keep : {T - 1, T - 4, T - 16, T - 17, T - 33, size_t(33), size_t(5), size_t(1), size_t(0)}) {
            INFO("keep " << keep);
            // Other tokens first, so that what was cut off was really overwritten.
            check(dsv4_session_truncate(session.get(), keep, &error), error);
            evaluate(session.get(), {7, 9, 11, 13, 2}, 0);
            check(dsv4_session_truncate(session.get(), keep, &error), error);
            CHECK(tokens_of(session.get()) == part(m.prompt, 0, keep));
            const auto rest = evaluate(session.get(), part(m.prompt, keep, T)).next;
            CHECK(rest == std::vector<float>(m.all.begin() + ptrdiff_t(keep * m.vocab()), m.all.end()));
        }
    });
}

TEST_CASE("a cancelled, a stopped and a refused call leave a session that goes on with the same bits", "[invariance]") {
    for_each_model([](const Loaded &m) {
        const auto session = new_session(m.model.get(), 8);
        ErrorBox error;
        Logits got;
        got.stop_after = 10;
        const Owned<dsv4_cancel> cancel(dsv4_cancel_create());
        got.cancel = cancel.get();
        REQUIRE(try_evaluate(session.get(), m.prompt, DSV4_EVALUATE_ALL, got, &error, cancel.get()) == DSV4_E_CANCELLED);
        auto held = tokens_of(session.get());
        CHECK(held.size() >= 10);
        CHECK(held.size() < m.prompt.size());
        CHECK(held == part(m.prompt, 0, held.size()));

        Logits stopped;
        stopped.stop_after = 3;
        REQUIRE(try_evaluate(session.get(), part(m.prompt, held.size(), m.prompt.size()), DSV4_EVALUATE_ALL, stopped,
                             &error) == DSV4_OK);
        CHECK(stopped.rows == 3);
        held = tokens_of(session.get());

        CHECK(try_evaluate(session.get(), {1, 2, 1 << 20}, 0, got, &error) == DSV4_E_INVALID);
        CHECK(tokens_of(session.get()) == held);
        const auto rest = evaluate(session.get(), part(m.prompt, held.size(), m.prompt.size())).next;
        CHECK(rest == std::vector<float>(m.all.begin() + ptrdiff_t(held.size() * m.vocab()), m.all.end()));
    });
}

TEST_CASE("sessions that share steps do not change each other's bits", "[invariance]") {
    for_each_model([](const Loaded &m) {
        const Neighbour neighbour(m.model.get(), m.prompt);
        neighbour.wait_for_one();
        CHECK(evaluate(new_session(m.model.get(), 7).get(), m.prompt).next == m.all);
    });
}

TEST_CASE("generation is the argmax of evaluation, step by step", "[invariance]") {
    for_each_model([](const Loaded &m) {
        GenerateSpec g;
        g.prompt = m.prompt;
        g.max_tokens = 12;
        const auto generated = generate(new_session(m.model.get(), 13).get(), g).tokens;
        const auto session = new_session(m.model.get());
        std::vector<float> logits = evaluate(session.get(), m.prompt, 0).next;
        std::vector<int32_t> expected;
        while (expected.size() < generated.size()) {
            expected.push_back(int32_t(std::max_element(logits.begin(), logits.end()) - logits.begin()));
            logits = evaluate(session.get(), {expected.back()}, 0).next;
        }
        CHECK(generated == expected);
    });
}

TEST_CASE("a seed gives the same text whatever else the engine does", "[invariance]") {
    for_each_model([](const Loaded &m) {
        GenerateSpec g;
        g.prompt = m.prompt;
        g.max_tokens = 16;
        g.temperature = 1;
        g.top_p = 0.95f;
        g.seed = 42;
        const auto alone = generate(new_session(m.model.get()).get(), g).tokens;
        {
            const Neighbour neighbour(m.model.get(), m.prompt);
            neighbour.wait_for_one();
            CHECK(generate(new_session(m.model.get(), 5).get(), g).tokens == alone);
        }
        const auto session = new_session(m.model.get());
        CHECK(generate(session.get(), g).tokens == alone);
        CHECK(generate(session.get(), g).tokens == alone);  // now from the session's own cache
        g.seed = 43;
        CHECK(generate(session.get(), g).tokens != alone);
    });
}
