#include <chrono>
#include <stdexcept>
#include <sys/resource.h>

#include "core/error.hpp"
#include "core/model/plan.hpp"
#include "tests/catch.hpp"
#include "tests/support/checkpoint_writer.hpp"

using namespace dsv4;
using namespace dsv4::test;
using Json = nlohmann::ordered_json;

namespace {

#ifdef DSV4_SANITIZED
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

ModelWeights mapped(const std::string &directory) { return map_weights(Checkpoint::open(directory)); }

const PlanGroup &group(const Plan &plan, const std::string &name) {
    for (const PlanGroup &g : plan.groups)
        if (g.name == name) return g;
    throw std::runtime_error(name);
}

/// Peak resident bytes of this process so far.
uint64_t peak_memory() {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    return static_cast<uint64_t>(usage.ru_maxrss) * 1024;
}

/// Planning is cheap: 0.5 s at most on a quiet machine; here with room for a busy one.
void check_cost(std::chrono::steady_clock::time_point start) {
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    CHECK(took.count() < (kSanitized ? 60.0 : 5.0));
    if (!kSanitized) CHECK(peak_memory() < 250'000'000);
}

} // namespace

TEST_CASE("the plan of a checkpoint of Pro's true size") {
    TempDir dir;
    save(make_model(pro_config()), dir.path(), {"", "scale", 64, true, true});
    const auto start = std::chrono::steady_clock::now();
    const Plan plan = make_plan(mapped(dir.path()), {});
    check_cost(start);
    CHECK(plan.total_tensors == 145116);
    CHECK(plan.total_bytes == 864704792696);
    CHECK(plan.used_tensors == 145116);
    CHECK(plan.csa_layers == 30);
    CHECK(plan.hca_layers == 31);
    CHECK(static_cast<uint64_t>(plan.cache.bytes_per_token) == 5031);
    CHECK(static_cast<double>(plan.cache.state_bytes) == Approx(18.7e6).epsilon(0.01));
    CHECK(static_cast<double>(plan.cache.session_bytes()) == Approx(5.30e9).epsilon(0.002));
}

// A pruned checkpoint with a three-stage drafter as they are published: 160 experts, 46 ratios, and a config.json that
// announces one MTP block.
TEST_CASE("the plan of a pruned checkpoint with a drafter that this build does not run") {
    Json config = flash_config();
    config["n_routed_experts"] = 160;
    config["compress_ratios"].push_back(0);
    config["compress_ratios"].push_back(0);
    config["dspark_block_size"] = 5;
    config["dspark_target_layer_ids"] = {40, 41, 42};
    config["num_nextn_predict_layers"] = 3;
    TestModel model = make_model(config);
    model.config["num_nextn_predict_layers"] = 1;
    std::erase_if(model.tensors, [](const FileTensor &t) {
        if (t.name.rfind("mtp.", 0) != 0) return false;
        const std::string rest = t.name.substr(6);
        for (const char *part : {"e_proj.", "h_proj.", "enorm.", "hnorm."})
            if (rest.rfind(part, 0) == 0) return true;
        return t.name[4] != '2' && (rest.rfind("hc_head", 0) == 0 || rest == "norm.weight");
    });
    for (const FileTensor &t :
         std::vector<FileTensor>{{"mtp.0.main_norm.weight", "BF16", {4096}, {}},
                                 {"mtp.0.main_proj.weight", "F8_E4M3", {4096, 12288}, {}},
                                 {"mtp.0.main_proj.scale", "F8_E8M0", {32, 96}, {}},
                                 {"mtp.2.confidence_head.proj.weight", "BF16", {1, 4352}, {}},
                                 {"mtp.2.markov_head.markov_w1.weight", "BF16", {129280, 256}, {}},
                                 {"mtp.2.markov_head.markov_w2.weight", "BF16", {129280, 256}, {}}})
        model.tensors.push_back(t);
    TempDir dir;
    save(model, dir.path(), {"", "scale", 48, true, true});
    const auto start = std::chrono::steady_clock::now();
    const Plan plan = make_plan(mapped(dir.path()), {});
    check_cost(start);
    CHECK(plan.total_tensors == 45821);
    CHECK(plan.total_bytes == 107803320952);
    CHECK(plan.used_tensors == 42844);
    CHECK(plan.unused_tensors == 45821 - 42844);
    CHECK(plan.mtp_blocks == 0);
    REQUIRE(plan.degradations.size() == 1);
    CHECK(plan.degradations[0].find("DSpark drafter of 3 stage(s) (mtp.0 to mtp.2, block 5)") != std::string::npos);
    CHECK(plan.degradations[0].find("generation is not affected") != std::string::npos);
}

TEST_CASE("the plan of a checkpoint of Flash's true size") {
    TempDir dir;
    save(make_model(flash_config()), dir.path(), {"", "scale", 46, true, true});
    const auto start = std::chrono::steady_clock::now();
    const ModelWeights weights = mapped(dir.path());
    PlanOptions options;
    options.host = {64'000'000'000, 60'000'000'000};
    options.devices = {{"host", "cpu", 64'000'000'000, 60'000'000'000, true},
                       {"card", "cuda", 150'000'000'000, 149'000'000'000, false},
                       {"large card", "cuda", 300'000'000'000, 290'000'000'000, false},
                       {"small card", "cuda", 12'000'000'000, 11'000'000'000, false}};
    const Plan plan = make_plan(weights, options);
    const std::string json = plan_json(plan);
    check_cost(start);
    CHECK(plan.total_tensors == 69187);
    CHECK(plan.total_bytes == 159609485896);
    CHECK(plan.used_tensors == 69187);
    CHECK(plan.unused_tensors == 0);
    CHECK(plan.degradations.empty());
    CHECK(plan.window_layers == 2);
    CHECK(plan.csa_layers == 21);
    CHECK(plan.hca_layers == 20);

    CHECK(plan.cache.row_bytes == 584);
    CHECK(plan.cache.index_row_bytes == 68);
    CHECK(static_cast<uint64_t>(plan.cache.bytes_per_token) == 3514);
    CHECK(plan.cache.context == 1048576);
    CHECK(static_cast<double>(plan.cache.state_bytes) == Approx(12.2e6).epsilon(0.01));
    CHECK(static_cast<double>(plan.cache.session_bytes()) == Approx(3.70e9).epsilon(0.002));
    CHECK(static_cast<double>(plan.read_per_token) == Approx(11.2e9).epsilon(0.005));
    CHECK(static_cast<double>(group(plan, "attention").read_per_token) == Approx(4.6e9).epsilon(0.01));
    CHECK(static_cast<double>(group(plan, "routed experts").read_per_token) == Approx(3.45e9).epsilon(0.01));
    CHECK(static_cast<double>(group(plan, "shared experts").read_per_token) == Approx(1.08e9).epsilon(0.01));

    REQUIRE(plan.placements.size() == 4);
    CHECK(plan.placements[0].fit == Fit::kMapped);
    CHECK(plan.placements[0].missing == plan.used_bytes + plan.cache_bytes - 60'000'000'000);
    const Placement &card = plan.placements[1];
    CHECK(card.fit == Fit::kExperts);
    CHECK(card.experts_total == 11008);
    CHECK(card.experts_outside_bytes >= card.missing);
    CHECK(card.experts_outside_bytes < card.missing + 2 * 13'400'000);
    CHECK(card.outside_in_host_memory);
    CHECK(plan.placements[2].fit == Fit::kResident);
    CHECK(plan.placements[2].missing == 0);
    CHECK(plan.placements[2].context_that_fits == 1048576);
    CHECK(plan.placements[3].fit == Fit::kNo);
    CHECK(plan.placements[3].least > 11'000'000'000);

    const Json parsed = Json::parse(json);
    CHECK(parsed["checkpoint"]["tensors"] == 69187);
    CHECK(parsed["cache"]["session_bytes"] == plan.cache.session_bytes());
    CHECK(parsed["placements"][1]["fit"] == "experts outside");
    uint64_t bytes = 0;
    for (const Json &g : parsed["groups"]) bytes += g["bytes"].get<uint64_t>();
    CHECK(bytes == 159609485896);
}

TEST_CASE("the plan follows context, sessions and what a backend measured") {
    TempDir dir;
    save(make_model(tiny_config()), dir.path(), {"", "scale", 0, true, true});
    const ModelWeights weights = mapped(dir.path());
    PlanOptions options;
    options.context = 1000;
    options.sessions = 3;
    const Plan plan = make_plan(weights, options);
    // 64 + 2*32 + 1 bytes a row, padded to 8; index keys 16 + 1
    CHECK(plan.cache.row_bytes == 136);
    CHECK(plan.cache.index_row_bytes == 17);
    CHECK(plan.cache.entry_bytes == 2 * 250 * (136 + 17) + 2 * 7 * 136);
    CHECK(plan.cache.window_bytes == 7 * 16 * 136);
    CHECK(plan.cache.state_bytes == 2 * 8 * (2 * 96 + 2 * 32) * 8 + 2 * 128 * 96 * 8);
    CHECK(plan.cache_bytes == 3 * plan.cache.session_bytes());

    PlanDevice device{"d", "b", 1'000'000'000, 1'000'000'000, true};
    device.weights_bytes = 900'000'000;
    device.experts_bytes = 90'000'000;
    device.slot_bytes = 1'000'000;
    device.block_bytes = 2'000'000;
    device.block_tokens = 256;  // 1000 tokens take 4 blocks
    options.devices = {device};
    const Placement p = make_plan(weights, options).placements.at(0);
    CHECK(p.cache == 3 * (1'000'000 + 4 * 2'000'000));
    CHECK(p.needed == 990'000'000 + 27'000'000);
    CHECK(p.missing == 17'000'000);
    CHECK(p.fit == Fit::kMapped);
    CHECK(p.context_resident == 256);             // 10 MB for three sessions: a slot and one block each
    CHECK(p.context_that_fits == 166 * 256);       // mapped weights need no room: 1 GB for three sessions
}

TEST_CASE("a plan that makes no sense is refused") {
    TempDir dir;
    save(make_model(tiny_config()), dir.path(), {"", "scale", 0, true, true});
    const ModelWeights weights = mapped(dir.path());
    PlanOptions options;
    options.context = 1048577;
    try {
        make_plan(weights, options);
        FAIL("a context beyond the model's");
    } catch (const Error &e) {
        CHECK(e.status == DSV4_E_CONTEXT);
        CHECK(std::string(e.what()) ==
              "plan: expected a context of at most 1048576 tokens (max_position_embeddings), found 1048577");
    }
    options.context = 0;
    options.sessions = 0;
    CHECK_THROWS_AS(make_plan(weights, options), Error);
}

TEST_CASE("this machine has memory") {
    const HostMemory m = host_memory();
    CHECK(m.total > 100'000'000);
    CHECK(m.available > 0);
    CHECK(m.available <= m.total);
}
