// A model on one backend with its operators in reach, for the benchmark and the tests of the CPU backend.
#pragma once
#include <dlfcn.h>
#include <time.h>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>
#include "core/error.hpp"
#include "core/model/forward.hpp"
#include "core/model/inventory.hpp"
#include "core/model/synthetic.hpp"
#include "core/plugin/device.hpp"

namespace dsv4::rig {

inline std::string &plugin_folder() {
    static std::string folder = DSV4_PLUGIN_DIR;
    return folder;
}
inline std::vector<std::string> &log_lines() { // what plugins said
    static std::vector<std::string> lines;
    return lines;
}

inline const dsv4_backend &open_plugin(std::string_view name) { // no reference: -Wdangling-reference of g++ 14
    const std::string path = plugin_folder() + "/libdsv4-" + std::string(name) + ".so";
    void *library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!library) throw Error(DSV4_E_UNSUPPORTED, dlerror());
    const auto entry = reinterpret_cast<dsv4_backend_entry_fn>(dlsym(library, DSV4_BACKEND_ENTRY));
    static dsv4_host host = {sizeof(dsv4_host), DSV4_BACKEND_ABI, nullptr, [](void *, int32_t, dsv4_str line) {
                                   log_lines().emplace_back(line.data, line.size);
                               }};
    const dsv4_backend *out = nullptr;
    call(entry, 1u, DSV4_BACKEND_ABI, static_cast<const dsv4_host *>(&host), &out);
    return *out;
}

/// Weights from a checkpoint directory, or made up for a spec ("flash:layers=2", a config.json).
struct Weights {
    Config config;
    ModelWeights weights;
    std::shared_ptr<const void> memory;
};
inline Weights from_checkpoint(const std::string &directory) {
    Weights w;
    w.weights = map_weights(Checkpoint::open(directory));
    w.config = w.weights.config();
    return w;
}
inline Weights from_spec(const std::string &spec) {
    SyntheticModel m = make_synthetic(spec);
    return {m.config, std::move(m.weights), m.memory};
}

struct Choice {
    std::string backend = "cpu", variant;
    int32_t numerics = DSV4_NUMERICS_DEFAULT, threads = 0, tier = DSV4_TIER_DEVICE;
    uint64_t expert_budget = 0;
};

/// Seconds of the clock, or of this thread's processor time.
inline bool &cpu_time() {
    static bool on = false;
    return on;
}
inline double now() {
    timespec t;
    clock_gettime(cpu_time() ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
    return double(t.tv_sec) + double(t.tv_nsec) * 1e-9;
}

class Rig {
  public:
    Rig(const Weights &weights, const Choice &choice, int32_t tokens, int32_t sequences, int32_t context)
        : device_(open_plugin(choice.backend), options(choice)), shape_(weights.config.shape), tokens_(tokens) {
        network_ = load_network(device_, shape_, weights.weights, choice.tier, {});
        block_tokens_ = 128;
        per_sequence_ = (context + block_tokens_ - 1) / block_tokens_;
        DSV4_INIT(cache_);
        cache_.slots = sequences;
        cache_.blocks = sequences * per_sequence_;
        cache_.block_tokens = block_tokens_;
        cache_.window_rows = shape_.window + tokens;
        cache_.state_slack = 8;
        for (const int32_t r : network_.layer_ratio) caches_.push_back(device_.cache(shape_, r, cache_));
        batch_ = device_.batch(shape_, tokens, sequences, per_sequence_);
        for (int i = 0; i < 8; ++i) buffers_.push_back(device_.buffer(shape_, kinds[i], tokens));
        logits_ = device_.buffer(shape_, DSV4_BUFFER_LOGITS, sequences);
    }

    const Device &device() const { return device_; }
    const dsv4_shape &shape() const { return shape_; }
    int32_t layers() const { return int32_t(network_.layers.size()); }
    int32_t ratio(int32_t layer) const { return network_.layer_ratio[size_t(layer)]; }
    dsv4_cache *cache(int32_t layer) const { return caches_[size_t(layer)].get(); }
    std::vector<int32_t> blocks_of(int32_t slot) const {
        std::vector<int32_t> b;
        for (int32_t i = 0; i < per_sequence_; ++i) b.push_back(slot * per_sequence_ + i);
        return b;
    }

    void begin(Step &step) {
        const dsv4_step view = step.view();
        call(device_.model->batch_set, device_.queue(), batch_.get(), &view);
    }
    void embed() { timed("embed", [&] { call(device_.ends->embed, device_.queue(), batch_.get(), network_.ends.get(), at(0)); }); }
    void head() {
        timed("head", [&] {
            call(device_.ends->head, device_.queue(), batch_.get(), network_.ends.get(), network_.ends.get(), at(0),
                 logits_.get());
        });
    }
    std::vector<float> logits(int32_t rows) { return read(logits_.get(), rows, shape_.vocab); }
    std::vector<float> streams(int32_t rows) { return read(at(0), rows, int64_t(shape_.streams) * shape_.hidden); }
    void write_streams(const std::vector<float> &values, int32_t rows) {
        call(device_.memory->buffer_write, device_.queue(), at(0), 0, rows, values.data());
    }

    void layer(int32_t l) {
        const auto *w = network_.layers[size_t(l)].get();
        dsv4_cache *cache = caches_[size_t(l)].get();
        dsv4_queue *q = device_.queue();
        const dsv4_batch *b = batch_.get();
        const int32_t r = network_.layer_ratio[size_t(l)];
        dsv4_buffer *X = at(0), *x = at(1), *mix = at(2), *query = at(3), *qr = at(4), *sel = at(5), *route = at(6), *y = at(7);
        const std::string kind = r == 0 ? " window" : r == 4 ? " csa" : " hca";
        timed("hc.pre", [&] { call(device_.hc->pre, q, b, w, int32_t(DSV4_HC_ATTN), X, x, mix); });
        timed("project", [&] { call(device_.attention->project, q, b, w, cache, x, query, qr); });
        if (r) timed("compress" + kind, [&] { call(device_.attention->compress, q, b, w, cache, x); });
        if (r == 4) timed("select", [&] { call(device_.attention->select, q, b, w, cache, x, qr, sel); });
        timed("attend" + kind,
              [&] { call(device_.attention->attend, q, b, w, cache, query, r == 4 ? sel : nullptr, query); });
        timed("output", [&] { call(device_.attention->output, q, b, w, query, y); });
        timed("hc.post", [&] { call(device_.hc->post, q, b, y, mix, X); });
        timed("hc.pre", [&] { call(device_.hc->pre, q, b, w, int32_t(DSV4_HC_FFN), X, x, mix); });
        timed("route", [&] { call(device_.moe->route, q, b, w, x, route); });
        timed("experts", [&] { call(device_.moe->experts, q, b, w, x, route, y); });
        timed("hc.post", [&] { call(device_.hc->post, q, b, y, mix, X); });
    }

    void run(Step &step) {
        begin(step);
        embed();
        for (int32_t l = 0; l < layers(); ++l) layer(l);
        if (step.outputs()) head();
    }

    std::map<std::string, double> seconds; // by operator, since last cleared

  private:
    static constexpr int32_t kinds[8] = {DSV4_BUFFER_STREAMS,    DSV4_BUFFER_HIDDEN,    DSV4_BUFFER_MIX,
                                         DSV4_BUFFER_QUERY,      DSV4_BUFFER_QUERY_LORA, DSV4_BUFFER_SELECTION,
                                         DSV4_BUFFER_ROUTE,      DSV4_BUFFER_HIDDEN};
    static dsv4_device_options options(const Choice &c) {
        dsv4_device_options o;
        DSV4_INIT(o);
        o.numerics = c.numerics;
        o.threads = c.threads;
        o.expert_budget = c.expert_budget;
        o.variant = {c.variant.data(), c.variant.size()};
        return o;
    }
    dsv4_buffer *at(int i) const { return buffers_[size_t(i)].get(); }
    std::vector<float> read(dsv4_buffer *buffer, int32_t rows, int64_t width) {
        std::vector<float> v(size_t(rows) * size_t(width));
        call(device_.memory->buffer_read, device_.queue(), static_cast<const dsv4_buffer *>(buffer), 0, rows, v.data());
        return v;
    }
    template <class Body> void timed(const std::string &name, Body &&body) {
        const double from = now();
        body();
        seconds[name] += now() - from;
    }

    Device device_;
    dsv4_shape shape_;
    int32_t tokens_, block_tokens_ = 0, per_sequence_ = 0;
    dsv4_cache_desc cache_;
    Network network_;
    std::vector<Cache> caches_;
    Batch batch_{nullptr, nullptr};
    std::vector<Buffer> buffers_;
    Buffer logits_{nullptr, nullptr};
};

} // namespace dsv4::rig
