// dsv4_model_plan against what loading reserves: the same bytes, for every backend of this build.
#include <nlohmann/json.hpp>
#include "catch.hpp"
#include "tests/golden/golden.hpp"
#include "tests/support/api.hpp"

using namespace dsv4::test;

TEST_CASE("the plan names the cache bytes that loading reserves", "[plan]") {
    const auto runtime = open_runtime(DSV4_PLUGIN_DIR);
    const std::string path = fixture("narrow");
    constexpr uint32_t sessions = 3;
    dsv4_plan_options o;
    DSV4_INIT(o);
    o.sessions = sessions;
    o.context_tokens = 1000;  // no whole number of blocks
    dsv4_blob *text = nullptr;
    ErrorBox error;
    check(dsv4_model_plan(runtime.get(), str(path), &o, &text, &error), error);
    const dsv4_str json = dsv4_blob_data(text);
    const auto plan = nlohmann::json::parse(json.data, json.data + json.size);
    dsv4_blob_release(text);
    size_t compared = 0;
    for (const auto &placement : plan["placements"]) {
        CAPTURE(placement.dump());
        ModelSpec spec;
        spec.backend = placement["backend"];
        spec.numerics = DSV4_NUMERICS_DEFAULT;
        spec.flags = DSV4_MODEL_DRAFTS;
        spec.max_sessions = sessions;
        spec.cache_tokens = sessions * 1024;  // blocks of 128 tokens
        const auto model = load(runtime.get(), path, spec);
        dsv4_model_info info;
        DSV4_INIT(info);
        check(dsv4_model_get_info(model.get(), &info, &error), error);
        CHECK(placement["cache_bytes"] == info.cache_bytes);
        CHECK(placement["fit"] == "resident");
        CHECK(placement["context_that_fits"].get<uint64_t>() > 1000);
        CHECK(placement["needed_bytes"].get<uint64_t>() >= info.cache_bytes + info.weight_bytes);
        ++compared;
    }
    CHECK(compared >= 1);
}
