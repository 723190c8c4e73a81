// Steps through recorded graphs are the steps themselves, bit for bit: whole models on a backend that records, and the
// promises of the graph family at the plugin ABI.
// DSV4_TEST_BACKEND names another plugin than the emulated one.
#include "core/model/forward.hpp"
#include "core/model/synthetic.hpp"
#include "core/plugin/registry.hpp"
#include "tests/catch.hpp"
#include "tests/support/tiny_models.hpp"
#include <cstdlib>
#include <numeric>

using namespace dsv4;

namespace {

const dsv4_backend &backend() {
    static const PluginRegistry registry({DSV4_PLUGIN_DIR}, nullptr);
    const char *name = std::getenv("DSV4_TEST_BACKEND");
    return *registry.select(name ? name : "gpu_emulated").table;
}

constexpr int32_t sequences = 3, blocks_each = 3;

/// One model on one device, stepped.
struct Program {
    explicit Program(int32_t numerics, const std::string &of = spec(), int32_t topk = 0)
        : model(make_synthetic(of)), device(backend(), options(numerics)) {
        model.weights.mtp.clear();
        if (topk) model.config.shape.index_topk = topk;
        network = load_network(device, model.config.shape, model.weights, DSV4_TIER_DEVICE, {});
        Capacity c{};
        c.tokens = 48;
        c.sequences = sequences;
        c.outputs = 6;
        DSV4_INIT(c.cache);
        c.cache.slots = sequences;
        c.cache.block_tokens = 128;
        c.cache.blocks = sequences * blocks_each;
        c.blocks_per_sequence = blocks_each;
        c.cache.window_rows = model.config.shape.window + c.tokens;
        c.cache.state_slack = 4;
        forward = std::make_unique<Forward>(device, network, c);
    }

    /// `tokens[s]` further tokens of each sequence, the last of each wanted.
    std::vector<float> step(const std::vector<int32_t> &tokens, bool outputs = true) {
        Step step = next(tokens, outputs);
        std::vector<float> logits;
        forward->run(step, logits);
        return logits;
    }

    /// The same, with all but the first output sampled, the first one's logits at the end.
    std::vector<float> sample(const std::vector<int32_t> &tokens) {
        Step step = next(tokens, true);
        std::vector<dsv4_sample_row> rows(size_t(step.outputs()), dsv4_sample_row{});
        for (size_t o = 1; o < rows.size(); ++o) {
            rows[o].kind = o % 2 ? DSV4_SAMPLE_DRAW : DSV4_SAMPLE_LARGEST;
            rows[o].scale = 3e6f;
            rows[o].least = 1;
            rows[o].top_p = 0xE0000000u;
            rows[o].random = uint64_t(length[0] + 1) * 0x9E3779B97F4A7C15ull;
        }
        std::vector<int32_t> ids;
        std::vector<float> logits;
        forward->run(step, rows, ids, logits);
        std::vector<float> all(ids.begin(), ids.end());
        all.insert(all.end(), logits.begin(), logits.end());
        return all;
    }

    Step next(const std::vector<int32_t> &tokens, bool outputs) {
        Step step;
        for (int32_t s = 0; s < int32_t(tokens.size()); ++s) {
            const int32_t n = tokens[size_t(s)];
            if (!n) continue;
            std::vector<int32_t> ids(static_cast<size_t>(n)), blocks(blocks_each);
            for (int32_t i = 0; i < n; ++i) ids[size_t(i)] = (31 * s + 7 * (length[s] + i) * (length[s] + i)) % vocab();
            std::iota(blocks.begin(), blocks.end(), s * blocks_each);
            step.add(ids.data(), n, length[s], s, blocks,
                     outputs ? std::vector<int32_t>{n - 1} : std::vector<int32_t>{});
            length[s] += n;
        }
        return step;
    }

    int32_t vocab() const { return model.config.shape.vocab; }

    static std::string spec() {
        static const test::TempDir folder;
        return test::synthetic_model(folder).substr(sizeof "synthetic:" - 1);
    }
    static dsv4_device_options options(int32_t numerics) {
        dsv4_device_options o;
        DSV4_INIT(o);
        o.numerics = numerics;
        return o;
    }

    SyntheticModel model;
    Device device;
    Network network;
    std::unique_ptr<Forward> forward;
    int32_t length[sequences] = {};
};

} // namespace

TEST_CASE("a step through a graph writes what its operators write") {
    Program recorded(DSV4_NUMERICS_NATIVE), plain(DSV4_NUMERICS_NATIVE);
    plain.forward->graphs().enable(false);
    // Prompts of their own lengths, then decode steps in batches that come and go, drafted tokens among them.
    const std::vector<std::vector<int32_t>> schedule = {
        {40, 0, 5}, {48},      {40},      {1, 0, 1}, {1, 0, 1}, {1, 0, 1}, {0, 0, 1}, {0, 0, 1},
        {0, 9, 0},  {1, 1, 1}, {1, 1, 1}, {2, 0, 1}, {0, 2, 1}, {1},       {1},       {1},
        {0, 1, 3},  {1, 1, 2}, {3, 1, 0}, {0, 0, 7}, {0, 0, 8}, {1}};
    for (const auto &tokens : schedule) {
        const auto a = recorded.step(tokens), b = plain.step(tokens);
        REQUIRE(a.size() == b.size());
        REQUIRE(std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
    }
    for (int i = 0; i < 2; ++i) { // without outputs: another graph
        recorded.step({1, 1}, false);
        plain.step({1, 1}, false);
    }
    REQUIRE(recorded.step({1, 1, 1}) == plain.step({1, 1, 1}));
    const uint64_t launches = recorded.forward->graphs().launches();
    for (int i = 0; i < 6; ++i) { // and with sampling: another again
        const auto a = recorded.sample({1, 1, 1}), b = plain.sample({1, 1, 1});
        REQUIRE(a.size() == size_t(3 + recorded.vocab()));
        REQUIRE(a == b);
        CHECK(a[0] == float(DSV4_SAMPLED_NOTHING));
        CHECK(a[1] >= 0);
        CHECK(a[2] >= 0);
    }
    CHECK(recorded.forward->graphs().launches() == launches + 5);
    CHECK(recorded.forward->graphs().recorded() >= 4);
    CHECK(recorded.forward->graphs().launches() >= 12);
    CHECK(plain.forward->graphs().launches() == 0);
}

// At these widths kernels are long enough for what begins early, or runs beside, to meet what it must not: in a graph,
// where nothing waits for the host. Entries are chosen anew at every step, and one of 128 tokens is made on the way.
TEST_CASE("a step of Flash's widths through a graph writes what its operators write") {
    if (!std::getenv("DSV4_TEST_BACKEND")) {
        WARN("skipped: the widths of Flash take a card, named by DSV4_TEST_BACKEND");
        return;
    }
    const std::string spec = "flash:layers=4"; // two of the window alone, CSA, HCA
    Program recorded(DSV4_NUMERICS_NATIVE, spec, 16), plain(DSV4_NUMERICS_NATIVE, spec, 16);
    plain.forward->graphs().enable(false);
    std::vector<std::vector<int32_t>> schedule(5, {48}); // to position 240
    schedule.insert(schedule.end(), 40, {1});
    schedule.push_back({0, 28, 20});
    schedule.insert(schedule.end(), 20, {1, 1, 2});
    size_t differing = 0;
    for (const auto &tokens : schedule) differing += recorded.step(tokens) != plain.step(tokens);
    CHECK(differing == 0);
    CHECK(recorded.forward->graphs().launches() > 40);
}

TEST_CASE("a graph takes no step beyond its limits, and what was begun can be forgotten") {
    Program p(DSV4_NUMERICS_NATIVE);
    const Device &d = p.device;
    REQUIRE(d.graph);
    const dsv4_shape &s = p.model.config.shape;
    const Batch batch = d.batch(s, 8, 2, 4);
    const Buffer streams = d.buffer(s, DSV4_BUFFER_STREAMS, 8);
    const auto set = [&](int32_t tokens, int32_t start) {
        Step step;
        std::vector<int32_t> ids(size_t(tokens), 5);
        step.add(ids.data(), tokens, start, 0, {0, 1, 2, 3}, {});
        const dsv4_step view = step.view();
        call(d.model->batch_set, d.queue(), batch.get(), &view);
    };
    dsv4_graph_limits limits;
    DSV4_INIT(limits);
    limits.tokens = 4, limits.sequences = 1, limits.positions = 64;
    dsv4_error err;
    DSV4_INIT(err);
    set(5, 0);
    CHECK(d.graph->begin(d.queue(), batch.get(), &limits, &err) == DSV4_E_INVALID);
    set(3, 0);
    call(d.graph->begin, d.queue(), batch.get(), static_cast<const dsv4_graph_limits *>(&limits));
    CHECK(d.graph->begin(d.queue(), batch.get(), &limits, &err) == DSV4_E_INVALID); // one at a time
    call(d.graph->end, d.queue(), static_cast<dsv4_graph **>(nullptr));
    CHECK(d.graph->end(d.queue(), nullptr, &err) == DSV4_E_INVALID);

    call(d.graph->begin, d.queue(), batch.get(), static_cast<const dsv4_graph_limits *>(&limits));
    call(d.ends->embed, d.queue(), static_cast<const dsv4_batch *>(batch.get()),
         static_cast<const dsv4_block *>(p.network.ends.get()), streams.get());
    dsv4_graph *graph = nullptr;
    call(d.graph->end, d.queue(), &graph);
    const Handle<dsv4_graph> owner(graph, d.graph->release);
    set(4, 60); // other tokens, more of them, elsewhere
    call(d.graph->launch, d.queue(), graph);
    std::vector<float> a(size_t(4 * s.streams * s.hidden)), b(a.size());
    call(d.memory->buffer_read, d.queue(), static_cast<const dsv4_buffer *>(streams.get()), 0, 4, a.data());
    call(d.ends->embed, d.queue(), static_cast<const dsv4_batch *>(batch.get()),
         static_cast<const dsv4_block *>(p.network.ends.get()), streams.get());
    call(d.memory->buffer_read, d.queue(), static_cast<const dsv4_buffer *>(streams.get()), 0, 4, b.data());
    CHECK(a == b);
    set(5, 0);
    CHECK(d.graph->launch(d.queue(), graph, &err) == DSV4_E_INVALID);
    CHECK(std::string(err.message).find("5 tokens") != std::string::npos);
    set(4, 61);
    CHECK(d.graph->launch(d.queue(), graph, &err) == DSV4_E_INVALID);
}
