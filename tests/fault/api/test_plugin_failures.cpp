// A backend whose Nth call fails, for every N: the status passes on, what was being made is gone, the process lives.
#include <dlfcn.h>

#include "refusal.hpp"
#include "tests/golden/golden.hpp"

using namespace dsv4::test;

namespace {

using Arm = int64_t (*)(int64_t after, int32_t status);

/// The switch inside the plugin: the library maps the same file.
Arm arm_of_plugin() {
    void *library = dlopen(DSV4_FAULTY_PLUGIN_DIR "/libdsv4-faulty.so", RTLD_NOW | RTLD_LOCAL);
    REQUIRE(library != nullptr);
    const auto arm = reinterpret_cast<Arm>(dlsym(library, "dsv4_faulty_arm"));
    REQUIRE(arm != nullptr);
    return arm;
}

constexpr int32_t failures[] = {DSV4_E_DEVICE, DSV4_E_NO_MEMORY};

ModelSpec on_faulty() {
    ModelSpec spec;
    spec.backend = "faulty";
    spec.flags = DSV4_MODEL_DRAFTS;
    spec.cache_tokens = 256;
    return spec;
}

void told(dsv4_status status, int32_t failure, const ErrorBox &error) {
    check_refusal(status, failure, error);
    CHECK(std::string(error.message) == "faulty: this call was told to fail");
    CHECK(error.native_code == 719);
}

} // namespace

TEST_CASE("every call of a load fails once", "[plugin]") {
    const Arm arm = arm_of_plugin();
    const auto runtime = open_runtime(DSV4_FAULTY_PLUGIN_DIR);
    arm(-1, 0);
    load(runtime.get(), fixture("narrow"), on_faulty());
    const int64_t calls = arm(-1, 0);
    REQUIRE(calls > 20);
    for (const int32_t failure : failures)
        for (int64_t n = 0; n < calls; ++n) {
            INFO("call " << n << " of " << calls);
            arm(n, failure);
            try {
                load(runtime.get(), fixture("narrow"), on_faulty());
                FAIL_CHECK("the load did not notice");
            } catch (const CallFailed &e) {
                CHECK(e.status == failure);
            }
            arm(-1, 0);
        }
    CHECK(evaluate(new_session(load(runtime.get(), fixture("narrow"), on_faulty()).get()).get(), {1, 2}, 0).rows == 1);
}

TEST_CASE("every call of a generation fails once", "[plugin]") {
    const Arm arm = arm_of_plugin();
    arm(-1, 0);
    const auto runtime = open_runtime(DSV4_FAULTY_PLUGIN_DIR);
    const auto model = load(runtime.get(), fixture("narrow"), on_faulty());
    GenerateSpec g;
    g.prompt = {5, 6, 7, 8, 9, 10, 11, 12};
    g.max_tokens = 2;
    arm(-1, 0);
    const auto expected = generate(new_session(model.get(), 5).get(), g).tokens;
    const int64_t calls = arm(-1, 0);
    REQUIRE(calls > 40);
    for (const int32_t failure : failures) {
        auto session = new_session(model.get(), 5);
        for (int64_t n = 0; n < calls; ++n) {
            INFO("call " << n << " of " << calls << ", status " << failure);
            ErrorBox error;
            check(dsv4_session_truncate(session.get(), 0, &error), error);
            arm(n, failure);
            Answer a;
            told(try_generate(session.get(), g, a, &error), failure, error);
            arm(-1, 0);
            CHECK(a.tokens.size() < expected.size());
            const auto held = tokens_of(session.get());
            CHECK(held.size() <= g.prompt.size() + a.tokens.size());
            if (failure == DSV4_E_DEVICE) {  // this session is dead, the model is not
                ErrorBox again;
                check_refusal(try_generate(session.get(), g, a, &again), DSV4_E_DEVICE, again);
                Logits none;
                check_refusal(try_evaluate(session.get(), {1}, 0, none, &again), DSV4_E_DEVICE, again);
                session = new_session(model.get(), 5);
            }
            CHECK(generate(session.get(), g).tokens == expected);
        }
    }
}

TEST_CASE("every call of an evaluation with drafts fails once", "[plugin]") {
    const Arm arm = arm_of_plugin();
    arm(-1, 0);
    const auto runtime = open_runtime(DSV4_FAULTY_PLUGIN_DIR);
    const auto model = load(runtime.get(), fixture("narrow"), on_faulty());
    constexpr uint32_t flags = DSV4_EVALUATE_ALL | DSV4_EVALUATE_DRAFTS;
    const std::vector<int32_t> ids = {5, 6, 7, 8, 9, 10, 11};
    arm(-1, 0);
    const Logits expected = evaluate(new_session(model.get(), 4).get(), ids, flags);
    const int64_t calls = arm(-1, 0);
    const auto session = new_session(model.get(), 4);
    for (int64_t n = 0; n < calls; ++n) {
        INFO("call " << n << " of " << calls);
        arm(n, DSV4_E_NO_MEMORY);
        Logits some;
        ErrorBox error;
        told(try_evaluate(session.get(), ids, flags, some, &error), DSV4_E_NO_MEMORY, error);
        arm(-1, 0);
        CHECK(tokens_of(session.get()).empty());  // nothing was changed
        const Logits all = evaluate(session.get(), ids, flags);
        CHECK(all.next == expected.next);
        CHECK(all.draft == expected.draft);
        check(dsv4_session_truncate(session.get(), 0, &error), error);
    }
}

TEST_CASE("a step that fails takes those who shared it along, and nobody else", "[plugin]") {
    const Arm arm = arm_of_plugin();
    arm(-1, 0);
    const auto runtime = open_runtime(DSV4_FAULTY_PLUGIN_DIR);
    const auto model = load(runtime.get(), fixture("narrow"), on_faulty());
    const auto idle = new_session(model.get()), busy = new_session(model.get());
    const Logits before = evaluate(idle.get(), {1, 2, 3}, 0);
    arm(10, DSV4_E_DEVICE);
    Logits none;
    ErrorBox error;
    CHECK(try_evaluate(busy.get(), {1, 2, 3}, 0, none, &error) == DSV4_E_DEVICE);
    arm(-1, 0);
    CHECK(tokens_of(idle.get()).size() == 3);
    CHECK(evaluate(idle.get(), {4}, 0).rows == 1);
}
