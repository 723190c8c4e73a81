// Every allocation of the library fails once, and then all from some point on: the call says so, nothing leaks, the
// process lives, the next call works. `--all` tries every one of them instead of an even sample.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <new>
#include <thread>

#include "core/capi/boundary.hpp"
#include "core/text/constraint_state.hpp"
#include "tests/golden/golden.hpp"
#include "tests/support/api.hpp"
#include "tests/unit/dsml/vocabulary.hpp"

namespace {

std::atomic<int64_t> left{-1};  // allocations until the failing one; negative: none will fail
std::atomic<bool> and_all_after{false};
std::atomic<int64_t> made{0}, live{0};

// Not inlined: g++ 14 would see free() of what its own operator new returned.
[[gnu::noinline]] void *allocate(size_t size) noexcept {
    const int64_t n = left.load();
    if (n == 0 && and_all_after) return nullptr;
    if (n >= 0 && left.fetch_sub(1) == 0) {
        if (and_all_after) left = 0;
        return nullptr;
    }
    void *p = std::malloc(size ? size : 1);
    if (p) ++made, ++live;
    return p;
}
[[gnu::noinline]] void release(void *p) noexcept {
    if (!p) return;
    --live;
    std::free(p);
}

} // namespace

// The library and its plugins find these first: they belong to the program.
void *operator new(size_t size) {
    if (void *p = allocate(size)) return p;
    throw std::bad_alloc();
}
void *operator new[](size_t size) { return operator new(size); }
void *operator new(size_t size, const std::nothrow_t &) noexcept { return allocate(size); }
void *operator new[](size_t size, const std::nothrow_t &) noexcept { return allocate(size); }
void operator delete(void *p) noexcept { release(p); }
void operator delete[](void *p) noexcept { release(p); }
void operator delete(void *p, size_t) noexcept { release(p); }
void operator delete[](void *p, size_t) noexcept { release(p); }
void operator delete(void *p, const std::nothrow_t &) noexcept { release(p); }
void operator delete[](void *p, const std::nothrow_t &) noexcept { release(p); }

namespace {

using namespace dsv4::test;

int failures = 0;
void expect(bool ok, const char *what, int64_t n, dsv4_status status, const dsv4_error &error) {
    if (ok) return;
    if (++failures <= 20)
        std::printf("FAILED: %s (allocation %lld, status %d: %s)\n", what, static_cast<long long>(n), status,
                    error.message);
}

/// What is live once nothing moves any more: the engine's thread frees a step's memory a moment after it has told
/// everybody, and on a busy machine that moment may be long. Returns at once when it is `wanted`.
int64_t settled(int64_t wanted) {
    int64_t seen = live;
    for (int waited = 0, still = 0; seen != wanted && still < 100 && waited < 10000; ++waited) {
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
        still = live == seen ? still + 1 : 0;
        seen = live;
    }
    return seen;
}

#ifdef __SANITIZE_ADDRESS__
constexpr int64_t thinned = 3; // each run takes fifteen times as long; a released build tries the rest
#else
constexpr int64_t thinned = 1;
#endif

/// `body(err)` under every plan of failures, at most about `runs` of each kind; `recover()` after each. least_told: the
/// share of them, in percent, that must come back as a status.
template <class Body, class Recover>
void fail_each(const char *name, int64_t runs, bool everything, const Body &body, const Recover &recover,
               int64_t least_told = 90) {
    ErrorBox error;
    for (int i = 0; i < 3; ++i) {  // what is made once per process is there, and buffers have grown
        if (body(&error) < 0) return expect(false, name, -1, error.status, error);
        recover();
    }
    made = 0;
    const dsv4_status good = body(&error);
    const int64_t total = made;
    expect(good >= 0, name, -1, good, error);
    recover();
    int64_t rest = settled(-1);
    int64_t tried = 0, told = 0;
    for (const bool all : {false, true})
        for (int64_t n = 0; n < total; n += everything ? 1 : std::max<int64_t>(1, total * thinned / runs)) {
            error = ErrorBox();
            and_all_after = all;
            left = n;
            const dsv4_status status = body(&error);
            left = -1;
            ++tried;
            if (status < 0) ++told;
            expect(status >= 0 || status == DSV4_E_NO_MEMORY, "status", n, status, error);
            expect(status >= 0 || error.message[0], "message", n, status, error);
            recover();
            int64_t now = settled(rest);
            // A buffer that grew, or did not grow, this time is no leak: what leaks does so each time.
            int grew = 0;
            for (int again = 0; again < 4 && now > rest; ++again) {
                rest = now;
                left = n;
                body(&error);
                left = -1;
                recover();
                now = settled(rest);
                if (now > rest) ++grew;
            }
            expect(grew < 4, "something leaked", n, status, error);
            rest = now;
        }
    std::printf("%s: %lld allocations, %lld runs, %lld told E_NO_MEMORY\n", name, static_cast<long long>(total),
                static_cast<long long>(tried), static_cast<long long>(told));
    // Few allocations are allowed to fail unnoticed (a log line, say).
    expect(told * 100 > tried * least_told, "failures go unnoticed", told, 0, error);
}

} // namespace

int main(int argc, char **argv) {
    std::setvbuf(stdout, nullptr, _IOLBF, BUFSIZ);
    const bool everything = argc > 1 && std::string(argv[1]) == "--all";
    const std::string path = fixture("narrow"), plugins = DSV4_PLUGIN_DIR, backend = "reference";
    const dsv4_str dir = str(path);
    dsv4_runtime_options ro;
    DSV4_INIT(ro);
    ro.plugin_dir = str(plugins);
    dsv4_model_options mo;
    DSV4_INIT(mo);
    mo.backend = str(backend);
    mo.flags = DSV4_MODEL_DRAFTS;
    mo.cache_tokens = 256;
    int32_t prompt[9] = {3, 4, 5, 6, 7, 8, 9, 10, 11};
    dsv4_generate_options go;
    DSV4_INIT(go);
    go.ids = prompt;
    go.id_count = 9;
    go.max_tokens = 3;
    go.temperature = 0.7f;
    go.top_p = 0.9f;
    go.seed = 5;
    dsv4_session_options so;
    DSV4_INIT(so);
    so.prefill_chunk = 5;

    fail_each(
        "runtime, load, session", 120, everything,
        [&](dsv4_error *err) {
            dsv4_runtime *runtime = nullptr;
            dsv4_model *model = nullptr;
            dsv4_session *session = nullptr;
            dsv4_status status = dsv4_runtime_create(&ro, &runtime, err);
            if (status >= 0) status = dsv4_model_load(runtime, dir, &mo, &model, err);
            if (status >= 0) status = dsv4_session_create(model, &so, &session, err);
            dsv4_session_release(session);
            dsv4_model_release(model);
            dsv4_runtime_release(runtime);
            return status;
        },
        [] {});

    const auto runtime = open_runtime(plugins);
    fail_each(
        "plan, backends", 60, everything,
        [&](dsv4_error *err) {
            dsv4_blob *text = nullptr;
            dsv4_status status = dsv4_model_plan(runtime.get(), dir, nullptr, &text, err);
            dsv4_blob_release(text);
            text = nullptr;
            if (status >= 0) status = dsv4_runtime_backends(runtime.get(), &text, err);
            dsv4_blob_release(text);
            return status;
        },
        // A device that runs out of memory while it is asked is left out with a warning, or described by its error.
        [] {}, 50);
    const auto vocabulary = std::make_shared<const dsv4::Vocabulary>(made_up_source(600));
    dsv4::ConstraintOptions constraint;
    constraint.tools = R"([{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {
        "a": {"enum": ["x", 1, {"b": [null]}]}, "n": {"type": "integer", "minimum": -3},
        "s": {"type": "array", "items": {"$ref": "#/$defs/s"}}}, "$defs": {"s": {"type": "string", "maxLength": 4}}}}}])";
    fail_each(
        "schemas", 60, everything,
        [&](dsv4_error *err) {
            return dsv4::boundary(err, [&] {
                dsv4::Constraint::compile(vocabulary, constraint);
                return DSV4_OK;
            });
        },
        [] {});
    ModelSpec spec;
    spec.flags = DSV4_MODEL_DRAFTS;
    spec.cache_tokens = 256;
    const auto model = load(runtime.get(), path, spec);
    const auto session = new_session(model.get(), 5);
    const auto take = [](void *user, const dsv4_event *e) -> int32_t {
        int32_t *out = static_cast<int32_t *>(user);
        if (e->kind == DSV4_EVENT_TOKEN && out[0] < 3) out[++out[0]] = e->token;
        return 0;
    };
    int32_t expected[4] = {}, got[4] = {};
    ErrorBox error;
    check(dsv4_generate(session.get(), &go, nullptr, take, expected, &error), error);
    // Always, so that what the session keeps is the same each time.
    const auto next_call_works = [&] {
        dsv4_session_truncate(session.get(), 0, nullptr);
        std::fill_n(got, 4, 0);
        const dsv4_status status = dsv4_generate(session.get(), &go, nullptr, take, got, &error);
        expect(status == DSV4_OK && std::equal(got, got + 4, expected), "the next call gives the same", -1, status, error);
        dsv4_session_truncate(session.get(), 0, nullptr);
    };
    fail_each(
        "generate", 120, everything,
        [&](dsv4_error *err) { return dsv4_generate(session.get(), &go, nullptr, nullptr, nullptr, err); },
        next_call_works);

    dsv4_evaluate_options eo;
    DSV4_INIT(eo);
    eo.flags = DSV4_EVALUATE_ALL | DSV4_EVALUATE_DRAFTS;
    const auto ignore = [](void *, uint32_t, int32_t, const float *, size_t) -> int32_t { return 0; };
    fail_each(
        "evaluate with drafts", 100, everything,
        [&](dsv4_error *err) {
            return dsv4_session_evaluate(session.get(), prompt, 9, &eo, nullptr, ignore, nullptr, err);
        },
        next_call_works);
    std::printf(failures ? "%d failures\n" : "passed\n", failures);
    return failures ? 1 : 0;
}
