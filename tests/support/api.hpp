// The C API as tests use it: owners, options with defaults, and failures as exceptions unless a test asks for the status.
#pragma once
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "dsv4/dsv4.h"

namespace dsv4::test {

struct Release {
    void operator()(dsv4_runtime *p) const { dsv4_runtime_release(p); }
    void operator()(dsv4_model *p) const { dsv4_model_release(p); }
    void operator()(dsv4_session *p) const { dsv4_session_release(p); }
    void operator()(dsv4_stream *p) const { dsv4_stream_release(p); }
    void operator()(dsv4_blob *p) const { dsv4_blob_release(p); }
    void operator()(dsv4_cancel *p) const { dsv4_cancel_release(p); }
};
template <class T> using Owned = std::unique_ptr<T, Release>;
using RuntimePtr = Owned<dsv4_runtime>;
using ModelPtr = Owned<dsv4_model>;
using SessionPtr = Owned<dsv4_session>;
using StreamPtr = Owned<dsv4_stream>;

struct ErrorBox : dsv4_error {
    ErrorBox() { DSV4_INIT(*static_cast<dsv4_error *>(this)); }
};

struct CallFailed : std::runtime_error {
    CallFailed(dsv4_status s, const std::string &what) : std::runtime_error(what), status(s) {}
    dsv4_status status;
};

inline dsv4_str str(const std::string &s) { return {s.data(), s.size()}; }

inline void check(dsv4_status status, const dsv4_error &error) {
    if (status < 0) throw CallFailed(status, std::to_string(status) + ": " + error.message);
}

template <class T, class Make> Owned<T> own(const Make &make) {
    T *out = nullptr;
    ErrorBox error;
    check(make(&out, &error), error);
    return Owned<T>(out);
}

inline RuntimePtr open_runtime(const std::string &plugins) {
    dsv4_runtime_options o;
    DSV4_INIT(o);
    o.plugin_dir = str(plugins);
    return own<dsv4_runtime>([&](auto **out, auto *err) { return dsv4_runtime_create(&o, out, err); });
}

/// DSV4_TEST_BACKEND asks another plugin what the reference is asked otherwise.
inline std::string test_backend() {
    const char *name = std::getenv("DSV4_TEST_BACKEND");
    return name ? name : "reference";
}

struct ModelSpec {
    int32_t numerics = DSV4_NUMERICS_EXACT;
    uint32_t flags = 0, max_sessions = 0, max_batch_tokens = 0;
    uint64_t cache_tokens = 0, expert_budget = 0;
    std::string backend = test_backend();
};

inline ModelPtr load(dsv4_runtime *runtime, const std::string &path, const ModelSpec &spec = {}) {
    dsv4_model_options o;
    DSV4_INIT(o);
    o.backend = str(spec.backend);
    o.numerics = spec.numerics;
    o.flags = spec.flags;
    o.max_sessions = spec.max_sessions;
    o.max_batch_tokens = spec.max_batch_tokens;
    o.cache_tokens = spec.cache_tokens;
    o.expert_budget = spec.expert_budget;
    return own<dsv4_model>([&](auto **out, auto *err) { return dsv4_model_load(runtime, str(path), &o, out, err); });
}

inline SessionPtr new_session(dsv4_model *model, uint32_t chunk = 0, uint32_t context = 0) {
    dsv4_session_options o;
    DSV4_INIT(o);
    o.prefill_chunk = chunk;
    o.context_tokens = context;
    return own<dsv4_session>([&](auto **out, auto *err) { return dsv4_session_create(model, &o, out, err); });
}

inline std::vector<int32_t> tokens_of(const dsv4_session *session) {
    size_t count = 0;
    ErrorBox error;
    check(dsv4_session_tokens(session, nullptr, 0, &count, &error), error);
    std::vector<int32_t> ids(count);
    check(dsv4_session_tokens(session, ids.data(), ids.size(), &count, &error), error);
    return ids;
}

/// What an evaluation hands out: rows of logits in the order of their positions.
struct Logits {
    std::vector<float> next, draft;
    int32_t stop_after = -1;  // rows
    dsv4_cancel *cancel = nullptr;  // fired with the row of that number
    int32_t rows = 0;

    static int32_t take(void *user, uint32_t, int32_t kind, const float *logits, size_t vocab) {
        auto &l = *static_cast<Logits *>(user);
        auto &to = kind == DSV4_LOGITS_DRAFT ? l.draft : l.next;
        to.insert(to.end(), logits, logits + vocab);
        const bool last = ++l.rows == l.stop_after;
        if (last && l.cancel) dsv4_cancel_now(l.cancel);
        return last && !l.cancel;
    }
};

inline dsv4_status try_evaluate(dsv4_session *session, const std::vector<int32_t> &ids, uint32_t flags, Logits &into,
                                dsv4_error *error, dsv4_cancel *cancel = nullptr) {
    dsv4_evaluate_options o;
    DSV4_INIT(o);
    o.flags = flags;
    return dsv4_session_evaluate(session, ids.data(), ids.size(), &o, cancel, Logits::take, &into, error);
}

inline Logits evaluate(dsv4_session *session, const std::vector<int32_t> &ids, uint32_t flags = DSV4_EVALUATE_ALL) {
    Logits got;
    ErrorBox error;
    check(try_evaluate(session, ids, flags, got, &error), error);
    return got;
}

struct GenerateSpec {
    std::vector<int32_t> prompt;
    uint32_t max_tokens = 8, flags = DSV4_GENERATE_IGNORE_EOS, top_k = 0;
    float temperature = 0, top_p = 0, min_p = 0;
    uint64_t seed = 1;
    std::vector<int32_t> stop_ids;
    std::vector<dsv4_logit_bias> bias;

    /// Points into this object.
    dsv4_generate_options options() const {
        dsv4_generate_options o;
        DSV4_INIT(o);
        o.flags = flags;
        o.ids = prompt.data();
        o.id_count = prompt.size();
        o.max_tokens = max_tokens;
        o.temperature = temperature;
        o.top_p = top_p;
        o.min_p = min_p;
        o.top_k = top_k;
        o.seed = seed;
        o.logit_bias = bias.data();
        o.logit_bias_count = bias.size();
        o.stop_ids = stop_ids.data();
        o.stop_id_count = stop_ids.size();
        return o;
    }
};

struct Answer {
    std::vector<int32_t> tokens;
    std::vector<dsv4_event> prefill;
    dsv4_event done{};
    uint32_t stop_after = 0;  // tokens; 0: never

    static int32_t take(void *user, const dsv4_event *e) {
        auto &a = *static_cast<Answer *>(user);
        if (e->kind == DSV4_EVENT_TOKEN) a.tokens.push_back(e->token);
        if (e->kind == DSV4_EVENT_PREFILL) a.prefill.push_back(*e);
        if (e->kind == DSV4_EVENT_DONE) a.done = *e;
        return a.stop_after && a.tokens.size() >= a.stop_after;
    }
};

inline dsv4_status try_generate(dsv4_session *session, const GenerateSpec &spec, Answer &into, dsv4_error *error,
                                dsv4_cancel *cancel = nullptr) {
    const dsv4_generate_options o = spec.options();
    return dsv4_generate(session, &o, cancel, Answer::take, &into, error);
}

inline Answer generate(dsv4_session *session, const GenerateSpec &spec) {
    Answer got;
    ErrorBox error;
    check(try_generate(session, spec, got, &error), error);
    return got;
}

inline StreamPtr open_stream(dsv4_session *session, const GenerateSpec &spec, dsv4_cancel *cancel = nullptr) {
    const dsv4_generate_options o = spec.options();
    return own<dsv4_stream>([&](auto **out, auto *err) { return dsv4_stream_open(session, &o, cancel, out, err); });
}

inline dsv4_event next(dsv4_stream *stream) {
    dsv4_event e;
    DSV4_INIT(e);
    ErrorBox error;
    check(dsv4_stream_next(stream, &e, &error), error);
    return e;
}

} // namespace dsv4::test
