// Callers built with an older dsv4.h (their structs are shorter) or a newer one (longer): every options struct cut at
// every length, with junk where the caller's struct ended, and every result struct likewise.
#include "core/capi/boundary.hpp"
#include "dsv4/dsv4.h"
#include "tests/catch.hpp"
#include "tests/support/tiny_models.hpp"
#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

namespace {

constexpr unsigned char junk = 0xA5;

/// A caller's memory around a T of `size` bytes: zero up to there, junk from there on.
template <class T> class Caller {
  public:
    explicit Caller(size_t size) : bytes_(2 * sizeof(T) + size, junk) {
        std::fill_n(bytes_.begin(), size, static_cast<unsigned char>(0));
        set(0, static_cast<uint32_t>(size));
    }
    template <class V> void set(size_t offset, V value) { std::memcpy(bytes_.data() + offset, &value, sizeof value); }
    T *get() { return reinterpret_cast<T *>(bytes_.data()); }
    bool untouched_from(size_t offset) const {
        return std::all_of(bytes_.begin() + static_cast<std::ptrdiff_t>(offset), bytes_.end(),
                           [](unsigned char b) { return b == junk; });
    }

  private:
    std::vector<unsigned char> bytes_;
};

struct Host {
    dsv4::test::TempDir folder;
    std::string path = dsv4::test::synthetic_model(folder);
    dsv4_runtime *runtime = nullptr;
    dsv4_model *model = nullptr;
    dsv4_session *session = nullptr;
    dsv4_error error;

    Host() {
        DSV4_INIT(error);
        REQUIRE(dsv4_runtime_create(nullptr, &runtime, &error) == DSV4_OK);
        dsv4_model_options options;
        DSV4_INIT(options);
        options.backend = {"reference", 9};
        options.cache_tokens = 1024;
        options.max_batch_tokens = 16;
        INFO(error.message);
        REQUIRE(dsv4_model_load(runtime, {path.data(), path.size()}, &options, &model, &error) == DSV4_OK);
        REQUIRE(dsv4_session_create(model, nullptr, &session, &error) == DSV4_OK);
    }
    ~Host() {
        dsv4_session_release(session);
        dsv4_model_release(model);
        dsv4_runtime_release(runtime);
    }
};

/// call(options) for a T of every length from `first` (what the call cannot do without) to beyond ours.
template <class T, class Prepare, class Call> void every_length(size_t first, Prepare &&prepare, Call &&call) {
    for (size_t size = first; size <= sizeof(T); size += 4) {
        Caller<T> caller(size);
        prepare(caller);
        INFO("an older caller, struct_size " << size);
        CHECK(call(caller.get()) == DSV4_OK);
    }
    Caller<T> newer(sizeof(T) + 24);
    prepare(newer);
    CHECK(call(newer.get()) == DSV4_OK);
    newer.set(sizeof(T) + 16, 1);
    CHECK(call(newer.get()) == DSV4_E_UNSUPPORTED); // a field that this library does not know was set
    for (const uint32_t size : {0u, 3u, 0xFFFFFFFFu}) {
        Caller<T> wrong(sizeof(T));
        prepare(wrong);
        wrong.set(0, size);
        INFO("struct_size " << size);
        CHECK(call(wrong.get()) == DSV4_E_INVALID);
    }
}

} // namespace

TEST_CASE("runtime options of any version") {
    every_length<dsv4_runtime_options>(
        4, [](auto &) {},
        [](const dsv4_runtime_options *options) {
            dsv4_runtime *runtime = nullptr;
            const dsv4_status status = dsv4_runtime_create(options, &runtime, nullptr);
            CHECK((runtime != nullptr) == (status == DSV4_OK));
            dsv4_runtime_release(runtime);
            return status;
        });
}

TEST_CASE("model options of any version") {
    Host host;
    const auto reference = [](Caller<dsv4_model_options> &caller) {
        caller.set(offsetof(dsv4_model_options, backend), dsv4_str{"reference", 9});
    };
    every_length<dsv4_model_options>(
        offsetof(dsv4_model_options, device), reference, [&](const dsv4_model_options *options) {
            dsv4_model *model = nullptr;
            const dsv4_status status =
                dsv4_model_load(host.runtime, {host.path.data(), host.path.size()}, options, &model, &host.error);
            CHECK((model != nullptr) == (status == DSV4_OK));
            dsv4_model_release(model);
            return status;
        });
}

TEST_CASE("plan options of any version") {
    Host host;
    dsv4::test::TempDir folder;
    dsv4::test::TestModel files = dsv4::test::make_model(dsv4::test::tiny_config());
    files.fill(1);
    dsv4::test::save(files, folder.path());
    const std::string path = folder.path();
    every_length<dsv4_plan_options>(
        4, [](auto &) {},
        [&](const dsv4_plan_options *options) {
            dsv4_blob *plan = nullptr;
            const dsv4_status status =
                dsv4_model_plan(host.runtime, {path.data(), path.size()}, options, &plan, &host.error);
            CHECK((dsv4_blob_data(plan).size > 0) == (status == DSV4_OK));
            dsv4_blob_release(plan);
            return status;
        });
}

TEST_CASE("session, evaluate and generate options of any version") {
    Host host;
    every_length<dsv4_session_options>(
        4, [](auto &) {},
        [&](const dsv4_session_options *options) {
            dsv4_session *session = nullptr;
            const dsv4_status status = dsv4_session_create(host.model, options, &session, &host.error);
            CHECK((session != nullptr) == (status == DSV4_OK));
            dsv4_session_release(session);
            return status;
        });
    every_length<dsv4_evaluate_options>(
        4, [](auto &) {},
        [&](const dsv4_evaluate_options *options) {
            const int32_t ids[] = {5, 17};
            REQUIRE(dsv4_session_truncate(host.session, 0, nullptr) == DSV4_OK);
            return dsv4_session_evaluate(host.session, ids, 2, options, nullptr, nullptr, nullptr, &host.error);
        });

    static const int32_t ids[] = {5, 17, 3};
    const auto with_prompt = [&](Caller<dsv4_generate_options> &caller) {
        caller.set(offsetof(dsv4_generate_options, ids), &ids[0]);
        caller.set(offsetof(dsv4_generate_options, id_count), size_t(3));
    };
    every_length<dsv4_generate_options>(
        offsetof(dsv4_generate_options, id_count) + sizeof(size_t), with_prompt,
        [&](const dsv4_generate_options *options) {
            // The oldest callers cannot say max_tokens: stopping is the callback's.
            uint32_t tokens = 0;
            const auto few = [](void *count, const dsv4_event *event) -> int32_t {
                return event->kind == DSV4_EVENT_TOKEN && ++*static_cast<uint32_t *>(count) == 2;
            };
            return dsv4_generate(host.session, options, nullptr, few, &tokens, &host.error);
        });
}

TEST_CASE("events and infos are written no further than the caller's struct") {
    Host host;
    for (size_t size = 4; size <= sizeof(dsv4_model_info); size += 4) {
        Caller<dsv4_model_info> info(size);
        INFO("dsv4_model_info, struct_size " << size);
        REQUIRE(dsv4_model_get_info(host.model, info.get(), &host.error) == DSV4_OK);
        CHECK(info.get()->struct_size == size);
        CHECK(info.untouched_from(size));
        if (size >= offsetof(dsv4_model_info, layers)) CHECK(info.get()->vocab_size == 96);
    }
    Caller<dsv4_model_info> newer(sizeof(dsv4_model_info) + 16);
    REQUIRE(dsv4_model_get_info(host.model, newer.get(), &host.error) == DSV4_OK);
    CHECK(newer.get()->struct_size == sizeof(dsv4_model_info) + 16);
    CHECK(newer.untouched_from(sizeof(dsv4_model_info) + 16));
    Caller<dsv4_model_info> wrong(sizeof(dsv4_model_info));
    wrong.set(0, uint32_t(0));
    CHECK(dsv4_model_get_info(host.model, wrong.get(), &host.error) == DSV4_E_INVALID);

    const int32_t ids[] = {5, 17, 3};
    dsv4_generate_options options;
    DSV4_INIT(options);
    options.ids = ids;
    options.id_count = 3;
    options.flags = DSV4_GENERATE_IGNORE_EOS;
    options.max_tokens = sizeof(dsv4_event) / 4;
    dsv4_stream *stream = nullptr;
    REQUIRE(dsv4_stream_open(host.session, &options, nullptr, &stream, &host.error) == DSV4_OK);
    size_t size = 4;
    for (dsv4_status status = DSV4_OK; status == DSV4_OK; size = size < sizeof(dsv4_event) ? size + 4 : size) {
        Caller<dsv4_event> event(size);
        status = dsv4_stream_next(stream, event.get(), &host.error);
        INFO("dsv4_event, struct_size " << size);
        CHECK(event.untouched_from(size));
        CHECK(event.get()->struct_size == size);
        CHECK(status >= 0);
    }
    CHECK(size == sizeof(dsv4_event));
    dsv4_stream_release(stream);
}

TEST_CASE("a caller's error is written whole or not at all") {
    dsv4_model *model = nullptr;
    dsv4_error error;
    DSV4_INIT(error);
    CHECK(dsv4_model_load(nullptr, {"", 0}, nullptr, &model, &error) == DSV4_E_INVALID);
    CHECK(error.status == DSV4_E_INVALID);
    CHECK(std::strlen(error.message) > 0);

    Caller<dsv4_error> unset(sizeof(dsv4_error));
    unset.set(0, uint32_t(0));
    CHECK(dsv4_model_load(nullptr, {"", 0}, nullptr, &model, unset.get()) == DSV4_E_INVALID);
    CHECK(unset.get()->status == 0);

    Caller<dsv4_error> newer(sizeof(dsv4_error) + 32);
    CHECK(dsv4_model_load(nullptr, {"", 0}, nullptr, &model, newer.get()) == DSV4_E_INVALID);
    CHECK(newer.get()->status == DSV4_E_INVALID);
    CHECK(newer.untouched_from(sizeof(dsv4_error) + 32));
}

TEST_CASE("read_sized cuts where the caller's struct ends") {
    dsv4_session_options options;
    DSV4_INIT(options);
    options.context_tokens = 7;
    options.prefill_chunk = 99; // what stands on an older caller's stack behind its struct
    options.struct_size = offsetof(dsv4_session_options, prefill_chunk);
    CHECK(dsv4::read_sized(&options, "options").context_tokens == 7);
    CHECK(dsv4::read_sized(&options, "options").prefill_chunk == 0);
    options.struct_size = sizeof options;
    CHECK(dsv4::read_sized(&options, "options").prefill_chunk == 99);
    CHECK(dsv4::read_sized<dsv4_session_options>(nullptr, "options").context_tokens == 0);
}
