// Synthetic models: what a device makes from descriptions computes what the host's bytes compute, and nothing is made
// in host memory for a device that makes it itself.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include "core/model/forward.hpp"
#include "core/model/synthetic.hpp"
#include "core/plugin/registry.hpp"
#include "tests/catch.hpp"
#include "tests/support/tiny_models.hpp"

using namespace dsv4;

namespace {

const dsv4_backend &backend(const std::string &name) {
    static const PluginRegistry registry({DSV4_PLUGIN_DIR}, nullptr);
    return *registry.select(name).table;
}

std::string spec(const std::string &more = "") {
    static const test::TempDir folder;
    return test::synthetic_model(folder).substr(sizeof "synthetic:" - 1) + more;
}

dsv4_device_options default_options() {
    dsv4_device_options o;
    DSV4_INIT(o);
    return o;
}

/// The logits of the last of a few tokens.
std::vector<float> run(const Device &device, const SyntheticModel &model) {
    const dsv4_shape &shape = model.config.shape;
    const Network network = load_network(device, shape, model.weights, DSV4_TIER_DEVICE, {});
    Capacity c{};
    c.tokens = 24;
    c.sequences = c.outputs = c.blocks_per_sequence = 1;
    DSV4_INIT(c.cache);
    c.cache.slots = c.cache.blocks = 1;
    c.cache.block_tokens = 128;
    c.cache.window_rows = shape.window + c.tokens;
    Forward forward(device, network, c);
    std::vector<int32_t> ids(24);
    for (size_t i = 0; i < ids.size(); ++i) ids[i] = int32_t(i * 37 % size_t(shape.vocab));
    Step step;
    step.add(ids.data(), int32_t(ids.size()), 0, 0, {0}, {int32_t(ids.size()) - 1});
    std::vector<float> logits;
    forward.run(step, logits);
    return logits;
}

uint64_t all_bytes(const ModelWeights &w) {
    uint64_t sum = 0;
    const auto add = [&](const BlockWeights &b) {
        for (const dsv4_tensor &t : b.tensors) sum += t.bytes + t.scale_bytes;
    };
    add(w.ends);
    for (const BlockWeights &b : w.layers) add(b);
    return sum;
}

bool has_bytes(const SyntheticModel &m) {
    return std::all_of(m.weights.layers[0].tensors.begin(), m.weights.layers[0].tensors.end(),
                       [](const dsv4_tensor &t) { return t.data && (!t.scale_dtype || t.scale) && !t.random.kind; });
}

/// A backend that makes weights, with its claim or its memory as the test wants them.
struct Altered {
    explicit Altered(const std::string &name) : table(backend(name)) {
        query = table.device_query;
        table.device_query = [](dsv4_device *device, dsv4_device_info *info, dsv4_error *err) {
            const dsv4_status status = query(device, info, err);
            info->capabilities &= ~hidden;
            info->memory_free = std::min(info->memory_free, most_free);
            return status;
        };
        hidden = 0;
        most_free = UINT64_MAX;
    }
    dsv4_backend table;
    static inline dsv4_status (*query)(dsv4_device *, dsv4_device_info *, dsv4_error *);
    static inline uint32_t hidden;
    static inline uint64_t most_free;
};

}  // namespace

TEST_CASE("a device makes the weights that the host makes") {
    for (const char *name : {"reference", "gpu_emulated"}) {
        INFO(name);
        const Device device(backend(name), default_options());
        REQUIRE(device.info().capabilities & DSV4_CAP_RANDOM_WEIGHTS);
        SyntheticModel described = describe_synthetic(spec()), made = make_synthetic(spec());
        provide_weights(described, device, DSV4_TIER_DEVICE);
        CHECK_FALSE(has_bytes(described));
        CHECK(has_bytes(made));
        CHECK(all_bytes(described.weights) == all_bytes(made.weights));
        const std::vector<float> ours = run(device, described), right = run(device, made);
        REQUIRE(ours.size() == size_t(made.config.shape.vocab));
        for (const float v : right) REQUIRE(std::isfinite(v));
        CHECK(std::memcmp(ours.data(), right.data(), ours.size() * sizeof(float)) == 0);
    }
}

TEST_CASE("a device that does not make weights is given bytes") {
    Altered altered("reference");
    Altered::hidden = DSV4_CAP_RANDOM_WEIGHTS;
    for (const dsv4_backend *table : {&backend("cpu"), static_cast<const dsv4_backend *>(&altered.table)}) {
        const Device device(*table, default_options());
        REQUIRE_FALSE(device.info().capabilities & DSV4_CAP_RANDOM_WEIGHTS);
        SyntheticModel m = describe_synthetic(spec());
        provide_weights(m, device, DSV4_TIER_DEVICE);
        CHECK(has_bytes(m));
        for (const float v : run(device, m)) REQUIRE(std::isfinite(v));
    }
}

TEST_CASE("a device without room for the weights is found out before any is made") {
    Altered altered("gpu_emulated");
    Altered::most_free = 100000;
    const Device device(altered.table, default_options());
    SyntheticModel m = describe_synthetic(spec());
    try {
        provide_weights(m, device, DSV4_TIER_DEVICE);
        FAIL("it was taken");
    } catch (const Error &e) {
        CHECK(e.status == DSV4_E_NO_MEMORY);
        CHECK(std::string(e.what()).find("100000") != std::string::npos);
        CHECK(std::string(e.what()).find("fewer layers") != std::string::npos);
    }
    // Flash is more than this host has; described, it is a list.
    m = describe_synthetic("flash");
    CHECK(m.weights.layers.size() == 43);
    CHECK(all_bytes(m.weights) > uint64_t(140) << 30);
}

TEST_CASE("a model of fewer layers has the first ones of a model of more") {
    const SyntheticModel all = make_synthetic(spec()), again = make_synthetic(spec());
    const SyntheticModel one = make_synthetic(spec(":layers=1"));
    REQUIRE(all.weights.layers.size() > 1);
    REQUIRE(one.weights.layers.size() == 1);
    const auto same = [](const BlockWeights &a, const BlockWeights &b) {
        REQUIRE(a.tensors.size() == b.tensors.size());
        for (size_t i = 0; i < a.tensors.size(); ++i) {
            const dsv4_tensor &x = a.tensors[i], &y = b.tensors[i];
            REQUIRE((x.role == y.role && x.bytes == y.bytes && x.scale_bytes == y.scale_bytes));
            if (std::memcmp(x.data, y.data, x.bytes) || (x.scale_bytes && std::memcmp(x.scale, y.scale, x.scale_bytes)))
                return false;
        }
        return true;
    };
    CHECK(same(one.weights.ends, all.weights.ends));
    CHECK(same(one.weights.layers[0], all.weights.layers[0]));
    for (size_t l = 0; l < all.weights.layers.size(); ++l) CHECK(same(all.weights.layers[l], again.weights.layers[l]));
    // And no two weights are alike.
    std::map<uint64_t, int> starts;
    for (const BlockWeights &b : all.weights.layers)
        for (const dsv4_tensor &t : b.tensors) {
            if (t.bytes < 64) continue;
            uint64_t first;
            std::memcpy(&first, t.data, 8);
            ++starts[first];
        }
    for (const auto &[first, count] : starts) CHECK(count == 1);
}
