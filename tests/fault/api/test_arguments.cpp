// Calls that break the contract of dsv4.h: each is refused with the documented status and a line that says why, and the
// next call works.
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>

#include "refusal.hpp"
#include "tests/golden/golden.hpp"
#include "tests/support/checkpoint_writer.hpp"

using namespace dsv4::test;

namespace {

struct Setup {
    RuntimePtr runtime = open_runtime(DSV4_PLUGIN_DIR);
    ModelPtr model = load(runtime.get(), fixture("narrow"));
    SessionPtr session = new_session(model.get());

    /// The next call works.
    ~Setup() { CHECK(evaluate(session.get(), {1, 2, 3}, 0).rows == 1); }
};

template <class T> struct Bigger {
    T known;
    unsigned char tail[40];
    Bigger() {
        std::memset(static_cast<void *>(this), 0, sizeof *this);
        known.struct_size = sizeof *this;
    }
};

/// call(options, err) with struct_size 0, too small, smaller than known, larger with a zero tail, larger with junk.
template <class T, class Call> void try_sizes(const Call &call) {
    T options;
    DSV4_INIT(options);
    for (const uint32_t size : {0u, 3u, 1u << 20}) {
        INFO("struct_size " << size);
        options.struct_size = size;
        refused(DSV4_E_INVALID, [&](dsv4_error *err) { return call(&options, err); });
    }
    ErrorBox error;
    options.struct_size = 4;  // an older caller: everything is at its default
    CHECK(call(&options, &error) >= 0);
    Bigger<T> bigger;
    CHECK(call(&bigger.known, &error) >= 0);
    bigger.tail[39] = 1;
    refused(DSV4_E_UNSUPPORTED, [&](dsv4_error *err) { return call(&bigger.known, err); });
}

dsv4_str view(const char *text) { return {text, std::strlen(text)}; }

} // namespace

TEST_CASE("NULL where an object is expected", "[api]") {
    Setup s;
    const auto invalid = [](const auto &call) { refused(DSV4_E_INVALID, call); };
    dsv4_runtime *runtime = nullptr;
    dsv4_model *model = nullptr;
    dsv4_session *session = nullptr;
    dsv4_stream *stream = nullptr;
    dsv4_blob *blob = nullptr;
    dsv4_model_info info;
    DSV4_INIT(info);
    dsv4_event event;
    DSV4_INIT(event);
    const std::string path = fixture("narrow");
    const dsv4_str dir = str(path);
    const dsv4_str nowhere{nullptr, 5};
    const int32_t ids[] = {1, 2};
    dsv4_generate_options ask;
    DSV4_INIT(ask);
    ask.ids = ids;
    ask.id_count = 2;
    ask.max_tokens = 1;

    invalid([&](dsv4_error *e) { return dsv4_runtime_create(nullptr, nullptr, e); });
    invalid([&](dsv4_error *e) { return dsv4_runtime_backends(nullptr, &blob, e); });
    invalid([&](dsv4_error *e) { return dsv4_runtime_backends(s.runtime.get(), nullptr, e); });
    invalid([&](dsv4_error *e) { return dsv4_model_load(nullptr, dir, nullptr, &model, e); });
    invalid([&](dsv4_error *e) { return dsv4_model_load(s.runtime.get(), dir, nullptr, nullptr, e); });
    invalid([&](dsv4_error *e) { return dsv4_model_load(s.runtime.get(), nowhere, nullptr, &model, e); });
    invalid([&](dsv4_error *e) { return dsv4_model_get_info(nullptr, &info, e); });
    invalid([&](dsv4_error *e) { return dsv4_model_get_info(s.model.get(), nullptr, e); });
    invalid([&](dsv4_error *e) { return dsv4_model_plan(nullptr, dir, nullptr, &blob, e); });
    invalid([&](dsv4_error *e) { return dsv4_model_plan(s.runtime.get(), dir, nullptr, nullptr, e); });
    invalid([&](dsv4_error *e) { return dsv4_model_plan(s.runtime.get(), nowhere, nullptr, &blob, e); });
    invalid([&](dsv4_error *e) { return dsv4_session_create(nullptr, nullptr, &session, e); });
    invalid([&](dsv4_error *e) { return dsv4_session_create(s.model.get(), nullptr, nullptr, e); });
    size_t count = 0;
    invalid([&](dsv4_error *e) { return dsv4_session_tokens(nullptr, nullptr, 0, &count, e); });
    invalid([&](dsv4_error *e) { return dsv4_session_tokens(s.session.get(), nullptr, 0, nullptr, e); });
    invalid([&](dsv4_error *e) { return dsv4_session_truncate(nullptr, 0, e); });
    invalid([&](dsv4_error *e) { return dsv4_session_evaluate(nullptr, ids, 2, nullptr, nullptr, nullptr, nullptr, e); });
    invalid([&](dsv4_error *e) {
        return dsv4_session_evaluate(s.session.get(), nullptr, 2, nullptr, nullptr, nullptr, nullptr, e);
    });
    invalid([&](dsv4_error *e) { return dsv4_stream_open(nullptr, &ask, nullptr, &stream, e); });
    invalid([&](dsv4_error *e) { return dsv4_stream_open(s.session.get(), &ask, nullptr, nullptr, e); });
    invalid([&](dsv4_error *e) { return dsv4_stream_open(s.session.get(), nullptr, nullptr, &stream, e); });
    invalid([&](dsv4_error *e) { return dsv4_stream_next(nullptr, &event, e); });
    invalid([&](dsv4_error *e) { return dsv4_stream_poll(nullptr, &event, e); });
    invalid([&](dsv4_error *e) { return dsv4_generate(nullptr, &ask, nullptr, nullptr, nullptr, e); });
    invalid([&](dsv4_error *e) { return dsv4_generate(s.session.get(), nullptr, nullptr, nullptr, nullptr, e); });
    for (int which = 0; which < 3; ++which) {
        auto bad = ask;
        if (which == 0) bad.ids = nullptr;
        if (which == 1) bad.stop_id_count = 1;
        if (which == 2) bad.logit_bias_count = 1;
        invalid([&](dsv4_error *e) { return dsv4_generate(s.session.get(), &bad, nullptr, nullptr, nullptr, e); });
    }
    CHECK((!runtime && !model && !session && !stream && !blob));

    ErrorBox error;
    const auto open = open_stream(s.session.get(), {{1, 2}});
    invalid([&](dsv4_error *e) { return dsv4_stream_next(open.get(), nullptr, e); });
    event.struct_size = 0;
    invalid([&](dsv4_error *e) { return dsv4_stream_next(open.get(), &event, e); });
    // The refused calls took nothing off the stream.
    std::vector<int32_t> got;
    for (dsv4_event e = next(open.get()); e.kind != DSV4_EVENT_DONE; e = next(open.get()))
        if (e.kind == DSV4_EVENT_TOKEN) got.push_back(e.token);
    CHECK(got.size() == 8);

    dsv4_runtime_release(nullptr);
    dsv4_model_release(nullptr);
    dsv4_session_release(nullptr);
    dsv4_stream_release(nullptr);
    dsv4_blob_release(nullptr);
    dsv4_cancel_release(nullptr);
    dsv4_cancel_now(nullptr);
    CHECK(dsv4_cancel_is_set(nullptr) == 0);
    CHECK(dsv4_blob_data(nullptr).size == 0);
}

TEST_CASE("callers of other versions: struct_size", "[api]") {
    Setup s;
    const std::string path = fixture("narrow");
    const std::string plugins = DSV4_PLUGIN_DIR;
    try_sizes<dsv4_runtime_options>([&](dsv4_runtime_options *o, dsv4_error *e) {
        dsv4_runtime *out = nullptr;
        const auto status = dsv4_runtime_create(o, &out, e);
        dsv4_runtime_release(out);
        return status;
    });
    try_sizes<dsv4_model_options>([&](dsv4_model_options *o, dsv4_error *e) {
        dsv4_model *out = nullptr;
        const auto status = dsv4_model_load(s.runtime.get(), str(path), o, &out, e);
        dsv4_model_release(out);
        return status;
    });
    try_sizes<dsv4_plan_options>([&](dsv4_plan_options *o, dsv4_error *e) {
        dsv4_blob *out = nullptr;
        const auto status = dsv4_model_plan(s.runtime.get(), str(path), o, &out, e);
        dsv4_blob_release(out);
        return status;
    });
    try_sizes<dsv4_session_options>([&](dsv4_session_options *o, dsv4_error *e) {
        dsv4_session *out = nullptr;
        const auto status = dsv4_session_create(s.model.get(), o, &out, e);
        dsv4_session_release(out);
        return status;
    });
    const int32_t ids[] = {1, 2};
    try_sizes<dsv4_evaluate_options>([&](dsv4_evaluate_options *o, dsv4_error *e) {
        return dsv4_session_evaluate(s.session.get(), ids, 2, o, nullptr, nullptr, nullptr, e);
    });
    dsv4_generate_options o;
    DSV4_INIT(o);
    o.struct_size = 3;
    refused(DSV4_E_INVALID,
            [&](dsv4_error *e) { return dsv4_generate(s.session.get(), &o, nullptr, nullptr, nullptr, e); });

    SECTION("structs that the library fills: no byte beyond what the caller has") {
        Bigger<dsv4_model_info> info;
        info.known.struct_size = 8;
        info.known.layers = 0xABCD;
        ErrorBox error;
        CHECK(dsv4_model_get_info(s.model.get(), &info.known, &error) == DSV4_OK);
        CHECK(info.known.vocab_size == 131);
        CHECK(info.known.layers == 0xABCD);
        info.known.struct_size = sizeof info;
        info.tail[0] = 0x77;
        CHECK(dsv4_model_get_info(s.model.get(), &info.known, &error) == DSV4_OK);
        CHECK(info.known.layers == 2);
        CHECK(info.tail[0] == 0x77);
    }
    SECTION("an error that is too small is left alone") {
        ErrorBox error;
        error.struct_size = 8;
        CHECK(dsv4_model_get_info(nullptr, nullptr, &error) == DSV4_E_INVALID);
        CHECK(error.status == 0);
        CHECK(error.message[0] == '\0');
    }
}

TEST_CASE("values out of range", "[api]") {
    Setup s;
    ErrorBox error;
    dsv4_session *none = nullptr;
    const auto evaluate_with = [&](std::vector<int32_t> ids, uint32_t flags, std::vector<uint32_t> positions) {
        return [&s, ids, flags, positions](dsv4_error *e) {
            dsv4_evaluate_options o;
            DSV4_INIT(o);
            o.flags = flags;
            o.positions = positions.data();
            o.position_count = positions.size();
            return dsv4_session_evaluate(s.session.get(), ids.data(), ids.size(), &o, nullptr, nullptr, nullptr, e);
        };
    };
    refused(DSV4_E_INVALID, evaluate_with({1, 131}, 0, {}));
    refused(DSV4_E_INVALID, evaluate_with({-1}, 0, {}));
    refused(DSV4_E_INVALID, evaluate_with({INT32_MIN}, 0, {}));
    refused(DSV4_E_INVALID, evaluate_with({}, 0, {}));
    refused(DSV4_E_INVALID, evaluate_with({1, 2}, 0, {2}));
    refused(DSV4_E_INVALID, evaluate_with({1, 2}, 0, {1, 0}));
    refused(DSV4_E_INVALID, evaluate_with({1, 2}, 0, {0, 0}));
    refused(DSV4_E_UNSUPPORTED, evaluate_with({1, 2}, 1u << 20, {}));
    refused(DSV4_E_UNSUPPORTED, evaluate_with({1, 2}, DSV4_EVALUATE_DRAFTS, {}));  // loaded without
    CHECK(tokens_of(s.session.get()).empty());
    refused(DSV4_E_INVALID, [&](dsv4_error *e) { return dsv4_session_truncate(s.session.get(), 1, e); });

    const auto generate_with = [&](const auto &change) {
        GenerateSpec g;
        g.prompt = {1, 2};
        auto o = g.options();
        change(o);
        return [&s, g, o](dsv4_error *e) {
            auto mine = o;
            mine.ids = g.prompt.data();  // g moved here
            return dsv4_generate(s.session.get(), &mine, nullptr, nullptr, nullptr, e);
        };
    };
    const int32_t far_id = 131;
    const dsv4_logit_bias far_bias{131, 1};
    refused(DSV4_E_INVALID, generate_with([](auto &o) { o.id_count = 0; }));
    refused(DSV4_E_INVALID, generate_with([](auto &o) { o.temperature = -1; }));
    refused(DSV4_E_INVALID, generate_with([](auto &o) { o.top_p = 2; }));
    refused(DSV4_E_INVALID, generate_with([](auto &o) { o.min_p = NAN; }));
    refused(DSV4_E_INVALID, generate_with([&](auto &o) { o.stop_ids = &far_id, o.stop_id_count = 1; }));
    refused(DSV4_E_INVALID, generate_with([&](auto &o) { o.logit_bias = &far_bias, o.logit_bias_count = 1; }));
    refused(DSV4_E_UNSUPPORTED, generate_with([](auto &o) { o.flags = 1u << 30; }));
    CHECK(tokens_of(s.session.get()).empty());

    dsv4_session_options so;
    DSV4_INIT(so);
    so.context_tokens = UINT32_MAX;
    refused(DSV4_E_CONTEXT, [&](dsv4_error *e) { return dsv4_session_create(s.model.get(), &so, &none, e); });
    so.context_tokens = 4;
    so.prefill_chunk = UINT32_MAX;  // more than fits a step: as many as do
    REQUIRE(dsv4_session_create(s.model.get(), &so, &none, &error) == DSV4_OK);
    const SessionPtr small(none);
    Logits got;
    refused(DSV4_E_CONTEXT, [&](dsv4_error *e) { return try_evaluate(small.get(), {1, 2, 3, 4, 5}, 0, got, e); });
    CHECK(tokens_of(small.get()).empty());
    evaluate(small.get(), {1, 2, 3, 4}, 0);
    refused(DSV4_E_CONTEXT, [&](dsv4_error *e) { return try_evaluate(small.get(), {5}, 0, got, e); });
    CHECK(tokens_of(small.get()).size() == 4);

    size_t count = 0;
    int32_t two[3] = {-7, -7, -7};
    CHECK(dsv4_session_tokens(small.get(), two, 2, &count, &error) == DSV4_OK);
    CHECK(count == 4);
    CHECK((two[0] == 1 && two[1] == 2 && two[2] == -7));
}

TEST_CASE("fields without a meaning must be zero, so that none is ignored once it has one", "[api]") {
    Setup s;
    refused(DSV4_E_UNSUPPORTED, [&](dsv4_error *e) {
        dsv4_model_options o;
        DSV4_INIT(o);
        o.reserved = 7;
        dsv4_model *out = nullptr;
        const std::string path = fixture("narrow");
        return dsv4_model_load(s.runtime.get(), str(path), &o, &out, e);
    });
    refused(DSV4_E_UNSUPPORTED, [&](dsv4_error *e) {
        dsv4_session_options o;
        DSV4_INIT(o);
        o.reserved = 3;
        dsv4_session *out = nullptr;
        return dsv4_session_create(s.model.get(), &o, &out, e);
    });
    refused(DSV4_E_UNSUPPORTED, [&](dsv4_error *e) {
        const int32_t ids[] = {1, 2};
        dsv4_generate_options o;
        DSV4_INIT(o);
        o.ids = ids;
        o.id_count = 2;
        o.max_tokens = 1;
        o.reserved = 9;
        return dsv4_generate(s.session.get(), &o, nullptr, nullptr, nullptr, e);
    });
}

TEST_CASE("a bias that forbids every token is the caller's mistake", "[api]") {
    Setup s;
    std::vector<dsv4_logit_bias> bias;
    dsv4_model_info info;
    DSV4_INIT(info);
    REQUIRE(dsv4_model_get_info(s.model.get(), &info, nullptr) == DSV4_OK);
    for (uint32_t i = 0; i < info.vocab_size; ++i) bias.push_back({int32_t(i), -std::numeric_limits<float>::infinity()});
    refused(DSV4_E_INVALID, [&](dsv4_error *e) {
        const int32_t ids[] = {1, 2};
        dsv4_generate_options o;
        DSV4_INIT(o);
        o.ids = ids;
        o.id_count = 2;
        o.logit_bias = bias.data();
        o.logit_bias_count = bias.size();
        return dsv4_generate(s.session.get(), &o, nullptr, nullptr, nullptr, e);
    });
}

TEST_CASE("models that cannot be loaded", "[api]") {
    Setup s;
    const TempDir folder;
    const std::string good = fixture("narrow");
    const auto load_with = [&](const std::string &path, const auto &change) {
        return [&s, path, change](dsv4_error *e) {
            dsv4_model_options o;
            DSV4_INIT(o);
            o.backend = view("reference");
            change(o);
            dsv4_model *out = reinterpret_cast<dsv4_model *>(&o);
            const auto status = dsv4_model_load(s.runtime.get(), str(path), &o, &out, e);
            CHECK(out == nullptr);
            return status;
        };
    };
    const auto as_is = [](dsv4_model_options &) {};
    for (const std::string &path : {std::string(), folder / "absent", folder.path(), folder / std::string("a\nb\x01"),
                                    folder / std::string(300, 'x'), folder / (std::string(200, 'x') + "\xC3\xA4\xC3\xA4"),
                                    good + "/config.json"})
        refused(DSV4_E_MODEL, load_with(path, as_is));
    refused(DSV4_E_INVALID, load_with(good + std::string("\0more", 5), as_is));
    refused(DSV4_E_UNSUPPORTED, load_with(good, [](auto &o) { o.backend = view("quantum"); }));
    refused(DSV4_E_INVALID, load_with(good, [](auto &o) { o.backend = {nullptr, 3}; }));
    refused(DSV4_E_INVALID, load_with(good, [](auto &o) { o.device = 7; }));
    refused(DSV4_E_UNSUPPORTED, load_with(good, [](auto &o) { o.numerics = 99; }));
    refused(DSV4_E_UNSUPPORTED, load_with(good, [](auto &o) { o.numerics = -1; }));
    refused(DSV4_E_UNSUPPORTED, load_with(good, [](auto &o) { o.flags = 1u << 31; }));
    refused(DSV4_E_UNSUPPORTED, load_with(good, [](auto &o) { o.expert_budget = 1; }));
    refused(DSV4_E_INVALID, load_with(good, [](auto &o) { o.max_sessions = UINT32_MAX; }));
    refused(DSV4_E_INVALID, load_with(good, [](auto &o) { o.max_batch_tokens = UINT32_MAX; }));
    refused(DSV4_E_INVALID, load_with(good, [](auto &o) { o.cache_tokens = UINT64_MAX; }));

    for (const std::string spec : {"", "flush", "flash:layers=0", "flash:layers=x", "flash:layers=99999999999", "flash:layer=2",
                                   "flash:", "/nowhere.json", ":layers=2", "flash:layers=-1", "flash:layers=2:layers=2"}) {
        INFO("synthetic:" << spec);
        ErrorBox error;
        const auto status = load_with("synthetic:" + spec, as_is)(&error);
        check_refusal(status, status, error);
        CHECK((status == DSV4_E_INVALID || status == DSV4_E_MODEL));
    }

    SECTION("a progress callback that says stop, at its first call and at its last") {
        uint64_t total = 0;
        for (const bool at_once : {true, false}) {
            struct Watch {
                bool at_once;
                uint64_t last = 0, total = 0;
            } watch{at_once};
            refused(DSV4_E_CANCELLED, load_with(good, [&](auto &o) {
                o.progress = [](void *user, uint64_t done, uint64_t all) -> int32_t {
                    auto &w = *static_cast<Watch *>(user);
                    w.last = done;
                    w.total = all;
                    return w.at_once || done == all;
                };
                o.progress_user_data = &watch;
            }));
            CHECK((at_once ? watch.last < watch.total : watch.last == watch.total));
            total = watch.total;
        }
        CHECK(total > 1000000);
    }
}

TEST_CASE("runtimes that cannot be made", "[api]") {
    static int released = 0;
    released = 0;
    dsv4_runtime_options o;
    DSV4_INIT(o);
    o.log_release = [](void *) { ++released; };
    const auto create = [&](dsv4_error *e) {
        dsv4_runtime *out = reinterpret_cast<dsv4_runtime *>(&o);
        const auto status = dsv4_runtime_create(&o, &out, e);
        CHECK(out == nullptr);
        return status;
    };
    o.flags = 1;
    refused(DSV4_E_UNSUPPORTED, create);
    o.flags = 0;
    o.plugin_dir = {nullptr, 1};
    refused(DSV4_E_INVALID, create);
    CHECK(released == 0);  // what was not made owns nothing

    o.plugin_dir = view("relative");
    refused(DSV4_E_INVALID, create);

    // A folder that is not there is told where one looks for backends, and fails the load.
    {
        o.plugin_dir = view("/nowhere/at/all");
        dsv4_runtime *out = nullptr;
        ErrorBox error;
        REQUIRE(dsv4_runtime_create(&o, &out, &error) == DSV4_OK);
        const RuntimePtr runtime(out);
        const std::string path = fixture("narrow");
        refused(DSV4_E_UNSUPPORTED, [&](dsv4_error *e) {
            dsv4_model *model = nullptr;
            dsv4_model_options mo;
            DSV4_INIT(mo);
            mo.backend = view("reference");
            return dsv4_model_load(runtime.get(), str(path), &mo, &model, e);
        });
    }
    CHECK(released == 1);
}

TEST_CASE("one user of a session at a time", "[api]") {
    Setup s;
    Logits got;
    {
        const auto stream = open_stream(s.session.get(), {{1, 2, 3}});
        GenerateSpec g;
        g.prompt = {1};
        const auto o = g.options();
        dsv4_stream *second = nullptr;
        refused(DSV4_E_INVALID, [&](dsv4_error *e) { return dsv4_stream_open(s.session.get(), &o, nullptr, &second, e); });
        CHECK(second == nullptr);
        refused(DSV4_E_INVALID, [&](dsv4_error *e) { return try_evaluate(s.session.get(), {1}, 0, got, e); });
        refused(DSV4_E_INVALID, [&](dsv4_error *e) { return dsv4_session_truncate(s.session.get(), 0, e); });
        refused(DSV4_E_INVALID,
                [&](dsv4_error *e) { return dsv4_generate(s.session.get(), &o, nullptr, nullptr, nullptr, e); });
        size_t tokens = 0;
        for (dsv4_event e = next(stream.get()); e.kind != DSV4_EVENT_DONE; e = next(stream.get()))
            tokens += e.kind == DSV4_EVENT_TOKEN;
        CHECK(tokens == 8);
    }
    struct Reenter {
        dsv4_session *session;
        dsv4_status status = DSV4_OK;
    } again{s.session.get()};
    const int32_t ids[] = {4, 5};
    ErrorBox error;
    CHECK(dsv4_session_evaluate(
              s.session.get(), ids, 2, nullptr, nullptr,
              [](void *user, uint32_t, int32_t, const float *, size_t) -> int32_t {
                  auto &r = *static_cast<Reenter *>(user);
                  r.status = dsv4_session_truncate(r.session, 0, nullptr);
                  return 0;
              },
              &again, &error) == DSV4_OK);
    CHECK(again.status == DSV4_E_INVALID);
}

TEST_CASE("release in any order", "[api]") {
    const std::vector<std::string> orders = {"rmsx", "xsmr", "mrxs", "sxrm", "smrx"};
    for (const std::string &order : orders) {
        INFO(order);
        auto runtime = open_runtime(DSV4_PLUGIN_DIR);
        auto model = load(runtime.get(), fixture("narrow"));
        auto session = new_session(model.get());
        auto stream = open_stream(session.get(), {{1, 2, 3}});
        next(stream.get());
        for (const char what : order) {
            if (what == 'r') runtime.reset();
            if (what == 'm') model.reset();
            if (what == 's') session.reset();
            if (what == 'x') stream.reset();
        }
    }
}

TEST_CASE("a cancel token stays cancelled, whoever holds it", "[api]") {
    Setup s;
    dsv4_cancel *cancel = dsv4_cancel_create();
    REQUIRE(cancel != nullptr);
    CHECK(dsv4_cancel_is_set(cancel) == 0);
    Logits got;
    ErrorBox error;
    CHECK(try_evaluate(s.session.get(), {1, 2}, 0, got, &error, cancel) == DSV4_OK);
    GenerateSpec g;
    g.prompt = {1, 2, 3};
    const auto stream = open_stream(s.session.get(), g, cancel);
    dsv4_cancel_now(cancel);
    dsv4_cancel_now(cancel);
    dsv4_cancel_release(cancel);  // the stream holds it
    dsv4_event e;
    DSV4_INIT(e);
    refused(DSV4_E_CANCELLED, [&](dsv4_error *err) { return dsv4_stream_next(stream.get(), &e, err); });
    const Owned<dsv4_cancel> before(dsv4_cancel_create());
    dsv4_cancel_now(before.get());
    const auto other = new_session(s.model.get());
    Answer a;
    refused(DSV4_E_CANCELLED, [&](dsv4_error *err) { return try_evaluate(other.get(), {1}, 0, got, err, before.get()); });
    refused(DSV4_E_CANCELLED, [&](dsv4_error *err) { return try_generate(other.get(), g, a, err, before.get()); });
    CHECK(tokens_of(other.get()).empty());
}
