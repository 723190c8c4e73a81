// Sampling on the device and on the host give the same text: the engine over a backend whose family "sample" is there,
// and over the same one with the family taken away.
// DSV4_TEST_BACKEND asks another plugin than the reference.
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>

#include "core/engine/engine.hpp"
#include "core/model/synthetic.hpp"
#include "core/plugin/registry.hpp"
#include "tests/catch.hpp"
#include "tests/support/tiny_models.hpp"

using namespace dsv4;

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();

const dsv4_backend &plugin() {
    static const PluginRegistry registry({DSV4_PLUGIN_DIR}, nullptr);
    const char *name = std::getenv("DSV4_TEST_BACKEND");
    return *registry.select(name ? name : "reference").table;
}

/// The plugin with its family "sample" or without, and a count of who asked for what.
std::atomic<bool> offered{true};
std::atomic<int> sampled{0}, rows_read{0};
dsv4_memory_ops memory;
dsv4_sample_ops sampling;

const void *ops(dsv4_device *device, uint32_t family) {
    const void *own = plugin().ops(device, family);
    if (family == DSV4_FAMILY_MEMORY) {
        memory = *static_cast<const dsv4_memory_ops *>(own);
        memory.buffer_read = [](dsv4_queue *queue, const dsv4_buffer *buffer, int32_t first, int32_t rows,
                                float *values, dsv4_error *err) {
            rows_read += rows;
            return static_cast<const dsv4_memory_ops *>(plugin().ops(nullptr, DSV4_FAMILY_MEMORY))
                ->buffer_read(queue, buffer, first, rows, values, err);
        };
        return &memory;
    }
    if (family == DSV4_FAMILY_SAMPLE) {
        if (!offered) return nullptr;
        sampling = *static_cast<const dsv4_sample_ops *>(own);
        sampling.read = [](dsv4_queue *queue, const dsv4_sampler *sampler, int32_t rows, int32_t *id,
                           dsv4_error *err) {
            ++sampled;
            return static_cast<const dsv4_sample_ops *>(plugin().ops(nullptr, DSV4_FAMILY_SAMPLE))
                ->read(queue, sampler, rows, id, err);
        };
        return &sampling;
    }
    return own;
}

const dsv4_backend &backend() {
    static const dsv4_backend table = [] {
        dsv4_backend t = plugin();
        t.ops = ops;
        return t;
    }();
    return table;
}

/// Allows every third token, another third after each, or nothing from the `end`th on.
class Thirds : public TokenFilter {
  public:
    Thirds(int32_t vocab, int end) : mask_(size_t(vocab + 63) / 64), vocab_(vocab), end_(end) {}
    const uint64_t *allowed() override {
        if (accepted_ == 1) return nullptr;
        std::fill(mask_.begin(), mask_.end(), 0);
        for (int32_t i = 0; i < vocab_ && accepted_ < end_; ++i)
            if (i % 3 == accepted_ % 3) mask_[size_t(i) / 64] |= uint64_t{1} << (i % 64);
        return mask_.data();
    }
    void accept(int32_t token) override {
        if (accepted_ != 1 && token % 3 != accepted_ % 3) throw Error(DSV4_E_INTERNAL, "a token that is not allowed");
        ++accepted_;
    }

  private:
    std::vector<uint64_t> mask_;
    int32_t vocab_;
    int end_, accepted_ = 0;
};

struct World {
    explicit World(bool on_device)
        : model(make_synthetic(spec())), device((offered = on_device, backend()), options()) {
        model.weights.mtp.clear();
        network = load_network(device, model.config.shape, model.weights, DSV4_TIER_DEVICE, {});
        Capacity c{};
        c.tokens = 24;
        c.sequences = 8;
        c.outputs = 10;
        DSV4_INIT(c.cache);
        c.cache.slots = 8;
        c.cache.block_tokens = 128;
        c.cache.blocks = 8;
        c.blocks_per_sequence = 1;
        c.cache.window_rows = model.config.shape.window + c.tokens;
        c.cache.state_slack = 16;
        engine = std::make_unique<Engine>(std::make_unique<Forward>(device, network, c), vocab());
    }
    int32_t vocab() const { return model.config.shape.vocab; }

    static std::string spec() {
        static const test::TempDir folder;
        return test::synthetic_model(folder).substr(sizeof "synthetic:" - 1);
    }
    static dsv4_device_options options() {
        dsv4_device_options o;
        DSV4_INIT(o);
        return o;
    }

    SyntheticModel model;
    Device device;
    Network network;
    std::unique_ptr<Engine> engine;
};

/// One request and its sequence.
struct Job {
    Sequence sequence;
    std::shared_ptr<Request> request = std::make_shared<Request>();

    Job(World &w, int32_t number, uint32_t tokens) {
        for (int32_t i = 0; i < 3 + 2 * number; ++i)
            sequence.tokens.push_back((5 + 17 * number + 3 * i * i) % w.vocab());
        sequence.slot = w.engine->pool().take_slot();
        sequence.context = 100;
        sequence.chunk = 16;
        request->sequence = &sequence;
        request->generates = true;
        request->max_tokens = tokens;
        request->run_ahead = 1000;
    }
};

struct Outcome {
    std::vector<std::vector<int32_t>> tokens;
    std::vector<std::string> failures;
    std::vector<float> logits;  // of the request that only evaluates
    bool operator==(const Outcome &o) const {
        return tokens == o.tokens && failures == o.failures && logits.size() == o.logits.size() &&
               std::memcmp(logits.data(), o.logits.data(), logits.size() * sizeof(float)) == 0;
    }
};

/// Every way to be sampled, all in one batch, and an evaluation among them.
Outcome run(bool on_device) {
    World w(on_device);
    std::vector<std::unique_ptr<Job>> jobs;
    const auto add = [&](SamplingOptions o) -> Request & {
        o.seed = 77 + jobs.size();
        jobs.push_back(std::make_unique<Job>(w, int32_t(jobs.size()), 8));
        check_sampling(o, w.vocab());
        jobs.back()->request->sampler.emplace(std::move(o));
        return *jobs.back()->request;
    };
    add({});
    add({1.0f, 0, 0, 0, 0, {}});
    add({1.3f, 0.9f, 0.01f, 20, 0, {{3, 4.0f}, {7, -infinity}, {3, 0.25f}}});
    add({0.8f, 0.7f, 0, 0, 0, {}}).filter = std::make_unique<Thirds>(w.vocab(), 1000);
    add({}).filter = std::make_unique<Thirds>(w.vocab(), 1000);
    add({2.0f, 0, 0, 0, 0, {}}).filter = std::make_unique<Thirds>(w.vocab(), 5);
    add({1.0f, 0, 0.2f, 0, 0, std::vector<dsv4_logit_bias>(size_t(Forward::most_biases) + 1, {11, 1e-3f})});
    jobs.push_back(std::make_unique<Job>(w, 2, 0));
    jobs.back()->request->generates = false;
    jobs.back()->request->wants = [](int32_t p) { return p % 2 == 1; };
    for (const auto &j : jobs) w.engine->submit(j->request);
    Outcome out;
    for (const auto &j : jobs) {
        Request &r = *j->request;
        for (bool done = false; !done; w.engine->nudge())
            w.engine->watch(true, [&] {
                if (r.rows.empty() && !r.done) return false;
                for (; !r.rows.empty(); r.rows.pop_front())
                    out.logits.insert(out.logits.end(), r.rows.front().logits.begin(), r.rows.front().logits.end());
                done = r.done;
                return true;
            });
        w.engine->withdraw(j->request);
        out.tokens.emplace_back(r.tokens.begin(), r.tokens.end());
        out.failures.push_back(r.failure ? std::to_string(r.failure->status) + r.failure->what() : "");
    }
    return out;
}

}  // namespace

TEST_CASE("text sampled on the device is text sampled on the host", "[sampler]") {
    sampled = 0;
    const Outcome there = run(true);
    CHECK(sampled >= 8);
    sampled = 0;
    const Outcome here = run(false);
    CHECK(sampled == 0);
    CHECK(there == here);
    for (const size_t i : {0, 1, 2, 3, 4, 6}) {
        CHECK(there.tokens[i].size() == 8);
        CHECK(there.failures[i].empty());
    }
    CHECK(there.tokens[5].size() == 5);  // then nothing is allowed
    CHECK(there.failures[5] == "-1sampling: logit_bias and the grammar together forbid every token");
    CHECK(there.logits.size() == 3 * 96);
    CHECK(std::count(there.tokens[2].begin(), there.tokens[2].end(), 7) == 0);
}

TEST_CASE("of sampled rows no logits are read", "[sampler]") {
    for (const bool on_device : {true, false}) {
        World w(on_device);
        Job job(w, 1, 6);
        job.request->sampler.emplace(SamplingOptions{1.0f, 0.9f, 0, 0, 5, {}});
        rows_read = 0;
        w.engine->submit(job.request);
        w.engine->watch(true, [&] { return job.request->done; });
        w.engine->withdraw(job.request);
        CHECK(job.request->tokens.size() == 6);
        CHECK(rows_read == (on_device ? 0 : 6));
    }
}

TEST_CASE("a row of a device is what the sampler makes of the same logits", "[sampler]") {
    offered = true;
    const SyntheticModel model = make_synthetic(World::spec());
    dsv4_shape shape = model.config.shape;
    shape.vocab = 1500;
    const Device device(backend(), World::options());
    const DeviceSampler sampler = device.sampler(shape, 1, 8);
    const Batch batch = device.batch(shape, 1, 1, 1);
    const Buffer buffer = device.buffer(shape, DSV4_BUFFER_LOGITS, 1);
    Step step;
    const int32_t token = 0;
    step.add(&token, 1, 0, 0, {0}, {0});
    const dsv4_step view = step.view();
    call(device.model->batch_set, device.queue(), batch.get(), &view);
    uint64_t state = 1;
    const auto roll = [&](uint64_t n) {
        state = state * 6364136223846793005ull + 1442695040888963407ull;
        return (state >> 33) % n;
    };
    int different = 0;
    for (int i = 0; i < 300; ++i) {
        SamplingOptions o;
        o.temperature = roll(8) ? 0.05f * float(roll(60)) : i % 2 ? 1e-45f : 3.4e38f;
        o.top_k = roll(2) ? 0 : uint32_t(1 + roll(100));
        o.top_p = roll(2) ? 0 : float(roll(1001)) / 1000;
        o.min_p = roll(2) ? 0 : float(roll(100)) / 1000;
        o.seed = roll(1u << 30);
        for (uint64_t b = roll(8); b > 0; --b) o.logit_bias.push_back({int32_t(roll(1500)), float(roll(20)) - 10});
        std::vector<float> logits(1500);
        for (float &x : logits)
            x = roll(200) == 0 ? std::nanf("") : roll(2) ? float(roll(40)) / 2 - 10 : float(roll(1u << 24)) * 0x1p-20f;
        std::vector<uint64_t> allowed(24);
        for (uint64_t &word : allowed) word = roll(1u << 31) * roll(1u << 31) | roll(7);
        check_sampling(o, shape.vocab);
        Sampler host(o);
        const dsv4_sample_row row = host.row(uint64_t(i), roll(2) ? allowed.data() : nullptr);
        call(device.memory->buffer_write, device.queue(), buffer.get(), 0, 1,
             static_cast<const float *>(logits.data()));
        call(device.sample->set, device.queue(), sampler.get(), 1, &row, uint32_t(sizeof row));
        call(device.sample->sample, device.queue(), static_cast<const dsv4_batch *>(batch.get()), sampler.get(),
             static_cast<const dsv4_buffer *>(buffer.get()));
        int32_t id = -99;
        call(device.sample->read, device.queue(), static_cast<const dsv4_sampler *>(sampler.get()), 1, &id);
        const int32_t mine = host.sample(logits.data(), shape.vocab, uint64_t(i), row.allowed);
        INFO("row " << i << ", temperature " << o.temperature << ", top_k " << o.top_k << ", top_p " << o.top_p);
        CHECK(id == mine);
        different += mine != 0;
    }
    CHECK(different > 250);
}
