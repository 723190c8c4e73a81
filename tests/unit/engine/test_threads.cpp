// The threading contract of dsv4.h. Run under ThreadSanitizer, which sees what a check cannot.
#include <atomic>
#include <thread>

#include "tests/catch.hpp"
#include "tests/golden/golden.hpp"
#include "tests/support/api.hpp"

using namespace dsv4::test;

namespace {

struct Setup {
    RuntimePtr runtime = open_runtime(DSV4_PLUGIN_DIR);
    ModelPtr model = load(runtime.get(), fixture("narrow"));
    GenerateSpec ask;

    Setup() {
        ask.prompt = Vectors(fixture("narrow")).ints("prompt");
        ask.prompt.resize(24);
        ask.max_tokens = 6;
    }
};

/// Catch2's assertions belong to one thread: others count what went wrong.
template <class Body> void in_threads(int count, const Body &body) {
    std::atomic<int> failures{0};
    std::vector<std::thread> threads;
    for (int i = 0; i < count; ++i)
        threads.emplace_back([&, i] {
            try {
                if (!body(i)) ++failures;
            } catch (const std::exception &) {
                ++failures;
            }
        });
    for (auto &t : threads) t.join();
    CHECK(failures == 0);
}

} // namespace

TEST_CASE("two threads with a session each, one model", "[threads]") {
    const Setup s;
    const auto expected = generate(new_session(s.model.get()).get(), s.ask).tokens;
    in_threads(2, [&](int i) {
        const auto session = new_session(s.model.get(), uint32_t(5 + i));
        for (int round = 0; round < 3; ++round) {
            ErrorBox error;
            check(dsv4_session_truncate(session.get(), 0, &error), error);
            if (generate(session.get(), s.ask).tokens != expected) return false;
            if (tokens_of(session.get()).size() != s.ask.prompt.size() + expected.size()) return false;
        }
        return true;
    });
}

TEST_CASE("cancelling and asking for tokens from another thread", "[threads]") {
    const Setup s;
    const auto session = new_session(s.model.get(), 4);
    const Owned<dsv4_cancel> cancel(dsv4_cancel_create());
    auto endless = s.ask;
    endless.max_tokens = 0;
    std::atomic<bool> over{false};
    auto stream = open_stream(session.get(), endless, cancel.get());
    std::thread other([&] {
        while (tokens_of(session.get()).size() < s.ask.prompt.size() + 3) std::this_thread::yield();
        dsv4_cancel_now(cancel.get());
        while (!over) tokens_of(session.get());  // while the stream is being taken down, too
    });
    size_t said = 0;
    dsv4_event e;
    DSV4_INIT(e);
    ErrorBox error;
    dsv4_status status = DSV4_OK;
    while ((status = dsv4_stream_next(stream.get(), &e, &error)) == DSV4_OK) said += e.kind == DSV4_EVENT_TOKEN;
    CHECK(status == DSV4_E_CANCELLED);
    stream.reset();
    over = true;
    other.join();
    CHECK(tokens_of(session.get()).size() == s.ask.prompt.size() + said);
}

TEST_CASE("runtime and model may be released before sessions and streams", "[threads]") {
    auto s = std::make_unique<Setup>();
    const auto ask = s->ask;
    const auto expected = generate(new_session(s->model.get()).get(), ask).tokens;
    auto session = new_session(s->model.get());
    auto stream = open_stream(session.get(), ask);
    std::thread elsewhere([&] { s->runtime.reset(); });
    s->model.reset();
    session.reset();
    elsewhere.join();
    std::vector<int32_t> got;
    for (;;) {
        const dsv4_event e = next(stream.get());
        if (e.kind == DSV4_EVENT_TOKEN) got.push_back(e.token);
        if (e.kind == DSV4_EVENT_DONE) break;
    }
    CHECK(got == expected);
    std::thread([last = std::move(stream)]() mutable { last.reset(); }).join();  // on a thread of its own
}

TEST_CASE("sessions come and go on many threads", "[threads]") {
    const Setup s;
    in_threads(4, [&](int i) {
        for (int round = 0; round < 6; ++round) {
            const auto session = new_session(s.model.get());
            if (evaluate(session.get(), {1 + i, 2, 3 + round}, 0).rows != 1) return false;
            if (round % 2) {
                auto ask = s.ask;
                ask.prompt.resize(5);
                const auto stream = open_stream(session.get(), ask);
                next(stream.get());
            }
        }
        return true;
    });
}

TEST_CASE("two runtimes in one process, each with its log", "[threads]") {
    struct Log {
        std::atomic<int> released{0};
    } logs[2];
    in_threads(2, [&](int i) {
        dsv4_runtime_options o;
        DSV4_INIT(o);
        const std::string plugins = DSV4_PLUGIN_DIR;
        o.plugin_dir = str(plugins);
        o.log = [](void *, int32_t, dsv4_str) {};
        o.log_user_data = &logs[i];
        o.log_release = [](void *user) { ++static_cast<Log *>(user)->released; };
        auto runtime = own<dsv4_runtime>([&](auto **out, auto *err) { return dsv4_runtime_create(&o, out, err); });
        const auto model = load(runtime.get(), fixture("narrow"));
        const auto session = new_session(model.get());
        if (evaluate(session.get(), {1, 2, 3}, 0).rows != 1) return false;
        if (logs[i].released != 0) return false;
        runtime.reset();
        if (logs[i].released != 1) return false;
        return evaluate(session.get(), {4}, 0).rows == 1;
    });
    CHECK(logs[0].released == 1);
    CHECK(logs[1].released == 1);
}

TEST_CASE("loading, planning and asking what there is at the same time", "[threads]") {
    const Setup s;
    const std::string path = fixture("narrow");
    in_threads(3, [&](int i) {
        ErrorBox error;
        dsv4_blob *blob = nullptr;
        if (i == 0) check(dsv4_runtime_backends(s.runtime.get(), &blob, &error), error);
        if (i == 1) check(dsv4_model_plan(s.runtime.get(), str(path), nullptr, &blob, &error), error);
        const Owned<dsv4_blob> owner(blob);
        dsv4_model_info info;
        DSV4_INIT(info);
        check(dsv4_model_get_info(s.model.get(), &info, &error), error);
        return info.vocab_size == 131 && (i == 2 || dsv4_blob_data(blob).size > 0);
    });
}
