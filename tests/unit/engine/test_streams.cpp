// What a session holds and a stream says, call by call, on a small checkpoint.
#include <algorithm>
#include <chrono>
#include <thread>

#include "tests/catch.hpp"
#include "tests/golden/golden.hpp"
#include "tests/support/api.hpp"

using namespace dsv4::test;

namespace {

struct Fixture {
    RuntimePtr runtime = open_runtime(DSV4_PLUGIN_DIR);
    ModelPtr model;
    std::vector<int32_t> prompt = Vectors(fixture("narrow")).ints("prompt");

    explicit Fixture(const ModelSpec &spec = {}) : model(load(runtime.get(), fixture("narrow"), spec)) {}
    SessionPtr session(uint32_t chunk = 0, uint32_t context = 0) const {
        return new_session(model.get(), chunk, context);
    }
    GenerateSpec ask(uint32_t max_tokens) const {
        GenerateSpec g;
        g.prompt = prompt;
        g.max_tokens = max_tokens;
        return g;
    }
    /// Of any length, within the vocabulary of 131.
    std::vector<int32_t> text(size_t n) const {
        std::vector<int32_t> ids;
        while (ids.size() < n) ids.push_back(int32_t(2 + (ids.size() * 37 + ids.size() / 11) % 120));
        return ids;
    }
};

std::vector<int32_t> operator+(std::vector<int32_t> a, const std::vector<int32_t> &b) {
    a.insert(a.end(), b.begin(), b.end());
    return a;
}

std::vector<int32_t> first(const std::vector<int32_t> &v, size_t n) { return {v.begin(), v.begin() + ptrdiff_t(n)}; }

int32_t next_token(dsv4_stream *stream) {
    for (;;)
        if (const dsv4_event e = next(stream); e.kind != DSV4_EVENT_PREFILL) return e.token;
}

void let_engine_run_ahead() { std::this_thread::sleep_for(std::chrono::milliseconds(60)); }

} // namespace

TEST_CASE("what the engine samples ahead is forgotten at release", "[stream]") {
    const Fixture f;
    const auto whole = generate(f.session().get(), f.ask(10)).tokens;
    const auto session = f.session();
    {
        const auto stream = open_stream(session.get(), f.ask(10));
        CHECK(next_token(stream.get()) == whole[0]);
        CHECK(next_token(stream.get()) == whole[1]);
        let_engine_run_ahead();
        CHECK(tokens_of(session.get()) == f.prompt + first(whole, 2));
    }
    CHECK(tokens_of(session.get()) == f.prompt + first(whole, 2));
    GenerateSpec more;
    more.flags |= DSV4_GENERATE_CONTINUE;
    more.max_tokens = 8;
    const Answer rest = generate(session.get(), more);
    CHECK(first(whole, 2) + rest.tokens == whole);
    CHECK(tokens_of(session.get()) == f.prompt + whole);
    CHECK(rest.done.prompt_tokens == f.prompt.size() + 2);
    CHECK(rest.done.cached_tokens >= f.prompt.size());
}

TEST_CASE("length, stop ids, EOS and the context end an answer", "[stream]") {
    const Fixture f;
    const auto whole = generate(f.session().get(), f.ask(12)).tokens;
    SECTION("max_tokens") {
        const auto session = f.session();
        const auto done = generate(session.get(), f.ask(3)).done;
        CHECK(done.finish == DSV4_FINISH_LENGTH);
        CHECK(done.token == -1);
        CHECK(done.output_tokens == 3);
        CHECK(done.prompt_tokens == f.prompt.size());
        CHECK(done.prefilled_tokens + done.cached_tokens == f.prompt.size());
        CHECK(tokens_of(session.get()) == f.prompt + first(whole, 3));
    }
    SECTION("a stop id is in the session and not in the answer") {
        const auto session = f.session();
        auto g = f.ask(12);
        const auto at = size_t(std::find(whole.begin(), whole.end(), whole[4]) - whole.begin());
        g.stop_ids = {whole[4], 3};
        const Answer a = generate(session.get(), g);
        CHECK(a.done.finish == DSV4_FINISH_STOP);
        CHECK(a.done.token == whole[4]);
        CHECK(a.tokens == first(whole, at));
        CHECK(tokens_of(session.get()) == f.prompt + first(whole, at + 1));
    }
    SECTION("EOS, unless it is to be ignored") {
        auto g = f.ask(4);
        g.bias = {{1, 1000.0f}};
        g.flags = 0;
        const Answer a = generate(f.session().get(), g);
        CHECK(a.tokens.empty());
        CHECK(a.done.finish == DSV4_FINISH_STOP);
        CHECK(a.done.token == 1);
        g.flags = DSV4_GENERATE_IGNORE_EOS;
        CHECK(generate(f.session().get(), g).tokens == std::vector<int32_t>{1, 1, 1, 1});
    }
    SECTION("the context") {
        const auto session = f.session(0, uint32_t(f.prompt.size()) + 3);
        const Answer a = generate(session.get(), f.ask(0));
        CHECK(a.done.finish == DSV4_FINISH_CONTEXT);
        CHECK(a.tokens == first(whole, 3));
        Answer none;
        ErrorBox error;
        auto full = f.ask(1);
        full.prompt = tokens_of(session.get());
        CHECK(try_generate(session.get(), full, none, &error) == DSV4_E_CONTEXT);
        CHECK(tokens_of(session.get()) == full.prompt);
        CHECK(generate(session.get(), f.ask(2)).tokens == first(whole, 2));
    }
    SECTION("a callback that says stop") {
        const auto session = f.session();
        Answer a;
        a.stop_after = 2;
        ErrorBox error;
        CHECK(try_generate(session.get(), f.ask(12), a, &error) == DSV4_OK);
        CHECK(a.tokens == first(whole, 2));
        CHECK(a.done.kind == 0);
        CHECK(tokens_of(session.get()) == f.prompt + a.tokens);
    }
    SECTION("DSV4_END again and again") {
        const auto session = f.session();
        const auto stream = open_stream(session.get(), f.ask(1));
        while (next(stream.get()).kind != DSV4_EVENT_DONE) {}
        dsv4_event e;
        DSV4_INIT(e);
        ErrorBox error;
        for (int i = 0; i < 3; ++i) CHECK(dsv4_stream_next(stream.get(), &e, &error) == DSV4_END);
        CHECK(dsv4_stream_poll(stream.get(), &e, &error) == DSV4_END);
    }
}

TEST_CASE("cancelling leaves what was said", "[stream]") {
    const Fixture f;
    const auto whole = generate(f.session().get(), f.ask(6)).tokens;
    const auto session = f.session(4);
    const Owned<dsv4_cancel> cancel(dsv4_cancel_create());
    dsv4_event e;
    DSV4_INIT(e);
    ErrorBox error;
    {
        const auto stream = open_stream(session.get(), f.ask(6), cancel.get());
        next_token(stream.get());
        dsv4_cancel_now(cancel.get());
        CHECK(dsv4_cancel_is_set(cancel.get()) == 1);
        CHECK(dsv4_stream_next(stream.get(), &e, &error) == DSV4_E_CANCELLED);
        CHECK(dsv4_stream_poll(stream.get(), &e, &error) == DSV4_E_CANCELLED);
    }
    CHECK(tokens_of(session.get()) == f.prompt + first(whole, 1));
    dsv4_stream *none = nullptr;
    const auto g = f.ask(6);
    const auto o = g.options();
    CHECK(dsv4_stream_open(session.get(), &o, cancel.get(), &none, &error) == DSV4_E_CANCELLED);
    CHECK(none == nullptr);
    CHECK(tokens_of(session.get()) == f.prompt + first(whole, 1));
    CHECK(generate(session.get(), g).tokens == whole);
    SECTION("during a prefill, within a chunk") {
        const Owned<dsv4_cancel> again(dsv4_cancel_create());
        auto longer = f.ask(1);
        longer.prompt = f.text(2000);
        {
            const auto stream = open_stream(session.get(), longer, again.get());
            CHECK(next(stream.get()).kind == DSV4_EVENT_PREFILL);
            dsv4_cancel_now(again.get());
            CHECK(dsv4_stream_next(stream.get(), &e, &error) == DSV4_E_CANCELLED);
        }
        const auto held = tokens_of(session.get());
        CHECK(held.size() >= 4);
        CHECK(held.size() < 2000);
        CHECK(held == first(longer.prompt, held.size()));
        CHECK(generate(session.get(), f.ask(6)).tokens == whole);
    }
}

TEST_CASE("prefill events grow, and polling never waits", "[stream]") {
    const Fixture f;
    auto g = f.ask(4);
    g.prompt = f.text(1200);
    const auto expected = generate(f.session().get(), g).tokens;
    const auto session = f.session(16);
    const auto stream = open_stream(session.get(), g);
    std::vector<int32_t> got;
    std::vector<double> took;
    size_t pending = 0, events = 0;
    uint32_t prefilled = 0;
    for (bool done = false; !done;) {
        dsv4_event e;
        DSV4_INIT(e);
        ErrorBox error;
        const auto begin = std::chrono::steady_clock::now();
        const dsv4_status status = dsv4_stream_poll(stream.get(), &e, &error);
        took.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
        REQUIRE(status >= 0);
        if (status == DSV4_PENDING) {
            ++pending;
            std::this_thread::sleep_for(std::chrono::milliseconds(1));
            continue;
        }
        if (e.kind == DSV4_EVENT_PREFILL) {
            ++events;
            CHECK(e.prefilled_tokens > prefilled);
            CHECK(e.prefilled_tokens + e.cached_tokens <= e.prompt_tokens);
            CHECK(e.prompt_tokens == 1200);
            prefilled = e.prefilled_tokens;
        }
        if (e.kind == DSV4_EVENT_TOKEN) got.push_back(e.token);
        done = e.kind == DSV4_EVENT_DONE;
    }
    CHECK(got == expected);
    CHECK(events > 1);
    CHECK(prefilled == 1200);  // the last part too, before the first token
    CHECK(pending > 0);
    std::sort(took.begin(), took.end());
    CHECK(took[took.size() / 2] < 0.002);  // the median: a busy machine may take the thread away once
}

TEST_CASE("a full cache and too many sessions are told, and end when something is released", "[engine]") {
    ModelSpec spec;
    spec.cache_tokens = 256;  // two blocks of 128
    spec.max_sessions = 2;
    const Fixture f(spec);
    dsv4_model_info info;
    DSV4_INIT(info);
    ErrorBox error;
    REQUIRE(dsv4_model_get_info(f.model.get(), &info, &error) == DSV4_OK);
    CHECK(info.max_context == 256);
    CHECK(info.max_sessions == 2);
    const auto a = f.session();
    auto b = f.session();
    dsv4_session *third = nullptr;
    CHECK(dsv4_session_create(f.model.get(), nullptr, &third, &error) == DSV4_E_NO_MEMORY);
    CHECK(third == nullptr);

    evaluate(a.get(), f.text(200), 0);
    Logits none;
    CHECK(try_evaluate(b.get(), f.text(10), 0, none, &error) == DSV4_E_NO_MEMORY);
    CHECK(tokens_of(b.get()).empty());
    SECTION("cutting the other one back makes room") {
        CHECK(dsv4_session_truncate(a.get(), 100, &error) == DSV4_OK);
        evaluate(b.get(), f.text(10), 0);
        // a has one block and b the other: an answer in a ends where its block does
        GenerateSpec g;
        g.prompt = f.text(120);
        g.max_tokens = 0;
        const Answer answer = generate(a.get(), g);
        CHECK(answer.done.finish == DSV4_FINISH_CONTEXT);
        CHECK(answer.tokens.size() == 9);  // positions 120 .. 128; the last one is not in the cache
        CHECK(tokens_of(a.get()) == g.prompt + answer.tokens);
        Answer more;
        g.flags |= DSV4_GENERATE_CONTINUE;
        g.prompt.clear();
        CHECK(try_generate(a.get(), g, more, &error) == DSV4_E_NO_MEMORY);
        b.reset();
        CHECK(try_generate(a.get(), g, more, &error) == DSV4_OK);
    }
    SECTION("so does releasing it") {
        b.reset();
        const auto c = f.session();
        CHECK(try_evaluate(c.get(), f.text(10), 0, none, &error) == DSV4_E_NO_MEMORY);
        CHECK(dsv4_session_truncate(a.get(), 0, &error) == DSV4_OK);
        evaluate(c.get(), f.text(10), 0);
    }
}

TEST_CASE("a prompt that begins like the session is not computed from the start", "[engine]") {
    const Fixture f;
    const auto session = f.session();
    const auto whole = generate(session.get(), f.ask(4)).tokens;
    auto g = f.ask(3);
    SECTION("what follows the last answer") {
        g.prompt = f.prompt + whole + f.text(5);
        const auto done = generate(session.get(), g).done;
        CHECK(done.cached_tokens == f.prompt.size() + 3);  // the last token was sampled and never computed
        CHECK(done.prefilled_tokens == 6);
    }
    SECTION("a part of it") { g.prompt = first(f.prompt, 66) + f.text(9); }
    SECTION("nothing of it") { g.prompt = f.text(30); }
    SECTION("all of it") { g.prompt = f.prompt; }
    SECTION("less than it") { g.prompt = first(f.prompt, 20); }
    const Answer a = generate(session.get(), g);
    CHECK(a.tokens == generate(f.session().get(), g).tokens);
    CHECK(a.done.cached_tokens < g.prompt.size());
    CHECK(tokens_of(session.get()) == g.prompt + a.tokens);
}

TEST_CASE("seeds: a fresh one is told and can be asked for again", "[stream]") {
    const Fixture f;
    auto g = f.ask(8);
    g.temperature = 1.5f;
    g.seed = 0;
    const Answer a = generate(f.session().get(), g);
    REQUIRE(a.done.seed != 0);
    CHECK(generate(f.session().get(), g).done.seed != a.done.seed);
    g.seed = a.done.seed;
    CHECK(generate(f.session().get(), g).tokens == a.tokens);
}

TEST_CASE("drafts and plain scoring share an engine", "[engine]") {
    ModelSpec spec;
    spec.flags = DSV4_MODEL_DRAFTS;
    const Fixture f(spec);
    const auto session = f.session(9);
    const Logits alone = evaluate(session.get(), f.prompt, DSV4_EVALUATE_ALL | DSV4_EVALUATE_DRAFTS);
    CHECK(alone.draft.size() / 131 == f.prompt.size() - 1);
    Logits beside;
    std::thread other([&] {
        const auto s = f.session(9);
        beside = evaluate(s.get(), f.prompt, DSV4_EVALUATE_ALL | DSV4_EVALUATE_DRAFTS);
    });
    const auto answer = generate(f.session(3).get(), f.ask(20));
    other.join();
    CHECK(answer.tokens.size() == 20);
    CHECK(beside.next == alone.next);
    CHECK(beside.draft == alone.draft);
}
