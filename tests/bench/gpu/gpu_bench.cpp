// gpu_bench: what each operator of a backend takes at true widths, and how far that is from reading its bytes once.
//   --backend NAME      cuda
//   --variant NAME      of the backend's; the card's best
//   --shape NAME        flash, pro, or a small one of the conformance suite
//   --context N         positions before the decode step (4096)
//   --experts N         routed experts of a layer (64; the published models have more, and a batch then touches more)
//   --batch A,B,..      decode steps of so many sequences (1,8,32)
//   --prefill A,B,..    prompts of so many tokens (2048,8192)
//   --ratios A,B,..     kinds of layer (0,4,128)
// Times are the device's own where the backend offers timers, medians of repeated runs on random data. Weights are
// there several times over and used in turn, so that no cache holds them; a backend that can makes them itself. The
// bandwidth they are compared with is measured first: a copy on the device, bytes read and written together.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <map>
#include <numeric>
#include <set>
#include <string>
#include "core/plugin/registry.hpp"
#include "tests/conformance/suite/driver.hpp"
#include "tests/conformance/suite/program.hpp"

using namespace dsv4::conformance;

namespace {

struct Options {
    std::string backend = "cuda", shape = "flash", variant;
    int32_t context = 4096, experts = 64, copies = 2, repeats = 15;
    std::vector<int32_t> batch = {1, 8, 32}, prefill = {2048, 8192}, ratios = {0, 4, 128};
};

std::vector<int32_t> list_of(const char *text) {
    std::vector<int32_t> out;
    for (const char *p = text; *p; p = std::strchr(p, ',') ? std::strchr(p, ',') + 1 : "") out.push_back(std::atoi(p));
    return out;
}

double median(std::vector<double> v) {
    std::nth_element(v.begin(), v.begin() + ptrdiff_t(v.size() / 2), v.end());
    return v[v.size() / 2];
}

/// Seconds of a piece of work on a queue, by the device's clock if it has one.
class Clock {
  public:
    Clock(const dsv4_backend *backend, const Device &device) : device_(device) {
        timer_ = static_cast<const dsv4_timer_ops *>(backend->ops(device.device, DSV4_FAMILY_TIMER));
        graph_ = static_cast<const dsv4_graph_ops *>(backend->ops(device.device, DSV4_FAMILY_GRAPH));
    }
    bool of_device() const { return timer_ != nullptr; }
    const dsv4_graph_ops *graph() const { return graph_; }

    template <class Work> double once(Work &&work) const {
        device_.wait();
        const auto start = std::chrono::steady_clock::now();
        if (timer_) expect("stamp", [&](dsv4_error *e) { return timer_->stamp(device_.queue, 0, e); });
        work();
        if (timer_) expect("stamp", [&](dsv4_error *e) { return timer_->stamp(device_.queue, 1, e); });
        device_.wait();
        double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
        if (timer_)
            expect("elapsed", [&](dsv4_error *e) { return timer_->elapsed(device_.queue, 0, 1, &seconds, e); });
        return seconds;
    }
    /// The median of one call among `repeats` runs of `calls` calls; work(i) is the i-th. recordable: as a graph, so
    /// that what the host takes to launch stays out.
    template <class Work>
    double per_call(dsv4_batch *batch, const dsv4_graph_limits *limits, int calls, int repeats, Work &&work) const {
        const auto all = [&] {
            for (int i = 0; i < calls; ++i) work(i);
        };
        all(); // everything is loaded, scratch memory has its size
        device_.wait();
        std::vector<double> seconds;
        dsv4_graph *graph = nullptr;
        if (graph_ && limits) {
            expect("graph begin", [&](dsv4_error *e) { return graph_->begin(device_.queue, batch, limits, e); });
            all();
            expect("graph end", [&](dsv4_error *e) { return graph_->end(device_.queue, &graph, e); });
        }
        for (int r = 0; r < repeats; ++r)
            seconds.push_back(once([&] {
                if (graph) expect("launch", [&](dsv4_error *e) { return graph_->launch(device_.queue, graph, e); });
                else all();
            }) / calls);
        if (graph) graph_->release(graph);
        return median(seconds);
    }

  private:
    const Device &device_;
    const dsv4_timer_ops *timer_;
    const dsv4_graph_ops *graph_;
};

struct Line {
    std::string op;
    double seconds, bytes;
};

double copy_bandwidth(const Device &d, const Clock &clock, const dsv4_shape &shape, bool small) {
    const int64_t row = buffer_width(shape, DSV4_BUFFER_STREAMS) * 4;
    const auto rows = int32_t((small ? int64_t(8) << 20 : int64_t(2) << 30) / row);
    const Buffer a = d.buffer(shape, DSV4_BUFFER_STREAMS, rows), b = d.buffer(shape, DSV4_BUFFER_STREAMS, rows);
    std::vector<float> values(static_cast<size_t>(row / 4 * 64));
    Random random(1);
    for (float &v : values) v = random.gaussian();
    for (int32_t r = 0; r + 64 <= rows; r += 64)
        expect("write", [&](dsv4_error *e) { return d.memory->buffer_write(d.queue, a, r, 64, values.data(), e); });
    const double seconds = clock.per_call(nullptr, nullptr, 4, 9, [&](int) {
        expect("copy", [&](dsv4_error *e) { return d.memory->buffer_copy(d.queue, a, 0, b, 0, rows, e); });
    });
    return 2.0 * double(rows) * double(row) / seconds;
}

/// One kind of layer with its caches, ready to run steps at a context.
class LayerBench {
  public:
    LayerBench(const Device &device, const Clock &clock, const Case &c, const Options &o, int32_t ratio,
               int32_t sequences)
        : d_(device), clock_(clock), s_(c.shape), o_(o), ratio_(ratio), positions_(o.context),
          weights_(make_layer(c, ratio, false, 5, device.claims(DSV4_CAP_RANDOM_WEIGHTS))) {
        for (int i = 0; i < o.copies; ++i) blocks_.push_back(d_.block(s_, weights_.desc()));
        block_tokens_ = ratio > 4 ? ratio : 128;
        const int32_t each = std::max(positions_, most_tokens_of(o)) / block_tokens_ + 1;
        dsv4_cache_desc desc;
        DSV4_INIT(desc);
        desc.slots = sequences;
        desc.blocks = sequences * each;
        desc.block_tokens = block_tokens_;
        desc.window_rows = s_.window - 1 + most_tokens_of(o);
        desc.state_slack = 8;
        cache_ = d_.cache(s_, ratio, desc);
        tokens_ = std::max(most_tokens_of(o), sequences);
        batch_ = d_.batch(s_, tokens_, sequences, each);
        for (int32_t s = 0; s < sequences; ++s) {
            Place place;
            place.slot = s;
            for (int32_t b = 0; b < each; ++b) place.blocks.push_back(s * each + b);
            places_.push_back(place);
        }
        const int32_t kinds[] = {DSV4_BUFFER_STREAMS, DSV4_BUFFER_HIDDEN, DSV4_BUFFER_MIX,       DSV4_BUFFER_QUERY,
                                 DSV4_BUFFER_QUERY_LORA, DSV4_BUFFER_SELECTION, DSV4_BUFFER_QUERY, DSV4_BUFFER_HIDDEN,
                                 DSV4_BUFFER_ROUTE};
        for (const int32_t kind : kinds) buffers_.push_back(d_.buffer(s_, kind, tokens_));
    }

    static int32_t most_tokens_of(const Options &o) {
        int32_t most = 1;
        for (const int32_t n : o.prefill) most = std::max(most, n);
        return most;
    }

    /// Positions [0, positions) of every sequence in the cache.
    void fill(int32_t sequences) {
        for (int32_t s = 0; s < sequences; ++s)
            for (int32_t p = 0; p < positions_; p += tokens_) {
                const Step step({{uint64_t(7 + s), s, p, std::min(tokens_, positions_ - p)}}, places_, s_.vocab);
                set(step);
                run("project", 0);
                if (ratio_) run("compress", 0);
            }
        d_.wait();
    }

    /// One step of `count` tokens: of one sequence from position 0, or of so many sequences at the context.
    std::vector<Line> measure(int32_t count, bool prefill) {
        std::vector<Chunk> chunks;
        if (prefill) chunks.push_back({7, 0, 0, count});
        else
            for (int32_t s = 0; s < count; ++s) chunks.push_back({uint64_t(7 + s), s, positions_, 1});
        const Step step(chunks, places_, s_.vocab);
        set(step);
        dsv4_graph_limits limits;
        DSV4_INIT(limits);
        limits.tokens = limits.sequences = count;
        limits.positions = positions_ + 1;
        std::vector<Line> lines;
        for (const char *op :
             {"hc.pre", "project", "compress", "select", "attend", "output", "hc.post", "route", "experts"}) {
            if ((!std::strcmp(op, "compress") && !ratio_) || (!std::strcmp(op, "select") && ratio_ != 4)) continue;
            const int calls = prefill ? 1 : 2 * o_.copies;
            const double seconds = clock_.per_call(batch_, prefill ? nullptr : &limits, calls, prefill ? 5 : o_.repeats,
                                                   [&](int i) { run(op, i); });
            const bool twice = !std::strncmp(op, "hc.", 3); // a layer has two of each
            lines.push_back({op, seconds * (twice ? 2 : 1), bytes(op, count, prefill) * (twice ? 2 : 1)});
        }
        const double whole = clock_.per_call(batch_, prefill ? nullptr : &limits, prefill ? 1 : o_.copies,
                                             prefill ? 5 : o_.repeats, [&](int i) { layer(i); });
        double all = 0;
        for (const Line &l : lines) all += l.bytes;
        lines.push_back({"layer", whole, all});
        return lines;
    }

  private:
    void set(const Step &step) {
        d_.set(batch_, step.view());
        d_.write(at(0), step.tokens(), step.inputs(DSV4_BUFFER_STREAMS, s_));
        d_.write(at(1), step.tokens(), step.inputs(DSV4_BUFFER_HIDDEN, s_));
        d_.write(at(2), step.tokens(), step.inputs(DSV4_BUFFER_MIX, s_));
    }
    dsv4_buffer *at(int i) const { return buffers_[size_t(i)]; }
    void layer(int i) {
        for (const char *op : {"hc.pre", "project", "compress", "select", "attend", "output", "hc.post", "hc.pre",
                               "route", "experts", "hc.post"}) {
            if ((!std::strcmp(op, "compress") && !ratio_) || (!std::strcmp(op, "select") && ratio_ != 4)) continue;
            run(op, i);
        }
    }
    void run(const char *op, int i) {
        const dsv4_block *w = blocks_[size_t(i) % blocks_.size()];
        dsv4_queue *q = d_.queue;
        dsv4_buffer *X = at(0), *x = at(1), *mix = at(2), *query = at(3), *qr = at(4), *selection = at(5), *o = at(6),
                    *y = at(7), *route = at(8);
        const std::string name = op;
        expect(op, [&](dsv4_error *e) {
            return name == "hc.pre"     ? d_.hc->pre(q, batch_, w, DSV4_HC_ATTN, X, x, mix, e)
                   : name == "hc.post"  ? d_.hc->post(q, batch_, y, mix, X, e)
                   : name == "project"  ? d_.attention->project(q, batch_, w, cache_, x, query, qr, e)
                   : name == "compress" ? d_.attention->compress(q, batch_, w, cache_, x, e)
                   : name == "select"   ? d_.attention->select(q, batch_, w, cache_, x, qr, selection, e)
                   : name == "attend"   ? d_.attention->attend(q, batch_, w, cache_, query, selection, o, e)
                   : name == "output"   ? d_.attention->output(q, batch_, w, o, y, e)
                   : name == "route"    ? d_.moe->route(q, batch_, w, x, route, e)
                                        : d_.moe->experts(q, batch_, w, x, route, y, e);
        });
    }

    double of_roles(std::initializer_list<int32_t> roles) const {
        double sum = 0;
        for (const int32_t role : roles)
            if (const dsv4_tensor *t = weights_.find(role)) sum += double(t->bytes + t->scale_bytes);
        return sum;
    }
    /// What the operator must read: weights and cache rows once, its input rows.
    double bytes(const std::string &op, int32_t count, bool prefill) const {
        const double T = count, D = s_.hidden, M = s_.streams, d = s_.head_dim, R = s_.rope_dims;
        const double row = d - R + 2 * R + std::ceil((d - R) / 64), key = s_.index_dim / 2.0 + s_.index_dim / 32.0;
        const double entries = ratio_ ? (prefill ? count : positions_ + 1) / ratio_ : 0;
        const double lists = prefill ? 1 : T; // sequences whose cache is read
        if (op == "hc.pre") return of_roles({DSV4_ROLE_HC_ATTN_FN}) + T * M * D * 4;
        if (op == "hc.post") return T * (M + 1) * D * 4;
        if (op == "project") return of_roles({DSV4_ROLE_WQ_A, DSV4_ROLE_WQ_B, DSV4_ROLE_WKV}) + T * D * 4;
        if (op == "compress")
            return of_roles({DSV4_ROLE_COMP_WKV, DSV4_ROLE_COMP_WGATE, DSV4_ROLE_INDEX_COMP_WKV,
                             DSV4_ROLE_INDEX_COMP_WGATE}) + T * D * 4;
        if (op == "select")
            return of_roles({DSV4_ROLE_INDEX_WQ_B, DSV4_ROLE_INDEX_WEIGHTS}) + T * (D + s_.q_lora) * 4 +
                   lists * entries * key;
        if (op == "attend") {
            const double kept = ratio_ == 4 && !prefill ? std::min(entries, double(s_.index_topk)) : entries;
            const double window = prefill ? T : std::min(double(s_.window), double(positions_ + 1));
            return T * s_.heads * d * 4 + lists * (window + kept) * row;
        }
        if (op == "output") return of_roles({DSV4_ROLE_WO_A, DSV4_ROLE_WO_B}) + T * s_.heads * d * 4;
        if (op == "route") return of_roles({DSV4_ROLE_GATE}) + T * D * 4;
        const std::vector<float> route = d_.read(at(8), count, 2 * s_.active_experts);
        std::set<int32_t> used;
        for (int32_t t = 0; t < count; ++t)
            for (int32_t i = 0; i < s_.active_experts; ++i)
                used.insert(int32_t(route[size_t(t * 2 * s_.active_experts + i)]));
        double one = 0;
        for (const int32_t role : {DSV4_ROLE_EXPERT_W1, DSV4_ROLE_EXPERT_W2, DSV4_ROLE_EXPERT_W3}) {
            const dsv4_tensor *t = weights_.find(role, 0);
            one += double(t->bytes + t->scale_bytes);
        }
        return double(used.size()) * one + of_roles({DSV4_ROLE_SHARED_W1, DSV4_ROLE_SHARED_W2, DSV4_ROLE_SHARED_W3}) +
               T * D * 4;
    }

    const Device &d_;
    const Clock &clock_;
    const dsv4_shape s_;
    const Options &o_;
    const int32_t ratio_, positions_;
    const Weights weights_;
    int32_t block_tokens_ = 0, tokens_ = 0;
    std::vector<Block> blocks_;
    Cache cache_;
    Batch batch_;
    std::vector<Place> places_;
    std::vector<Buffer> buffers_;
};

/// The head alone: it is larger than any cache, so one copy does.
Line head_line(const Device &d, const Clock &clock, const Case &c, int32_t count, int repeats) {
    const dsv4_shape &s = c.shape;
    const Weights weights = make_ends(c, 9, d.claims(DSV4_CAP_RANDOM_WEIGHTS));
    const Block ends = d.block(s, weights.desc());
    const Batch batch = d.batch(s, count, count, 1);
    std::vector<Place> places(static_cast<size_t>(count));
    std::vector<Chunk> chunks;
    std::vector<int32_t> outputs;
    for (int32_t i = 0; i < count; ++i) {
        places[size_t(i)] = {i, {0}};
        chunks.push_back({uint64_t(i), i, 0, 1});
        outputs.push_back(i);
    }
    const Step step(chunks, places, s.vocab, outputs);
    d.set(batch, step.view());
    const Buffer streams = d.buffer(s, DSV4_BUFFER_STREAMS, count), logits = d.buffer(s, DSV4_BUFFER_LOGITS, count);
    d.write(streams, count, step.inputs(DSV4_BUFFER_STREAMS, s));
    dsv4_graph_limits limits;
    DSV4_INIT(limits);
    limits.tokens = limits.sequences = limits.outputs = count;
    limits.positions = 1;
    const double seconds = clock.per_call(batch, &limits, 2, repeats, [&](int) {
        expect("head", [&](dsv4_error *e) { return d.ends->head(d.queue, batch, ends, ends, streams, logits, e); });
    });
    const dsv4_tensor *head = weights.find(DSV4_ROLE_HEAD);
    return {"head", seconds, double(head->bytes + head->scale_bytes) + double(count) * s.streams * s.hidden * 4};
}

/// Sampling of `count` rows of logits as wide as a model's, spread as a model's are: the largest, and top-p of the lot.
std::vector<Line> sample_lines(const Device &d, const Clock &clock, const Case &c, int32_t count, int repeats) {
    if (!d.sample) return {};
    const dsv4_shape &s = c.shape;
    dsv4_sampler *made = nullptr;
    expect("sampler_create", [&](dsv4_error *e) { return d.sample->sampler_create(d.device, &s, count, 0, &made, e); });
    const Owned<dsv4_sampler> sampler(made, d.sample->sampler_release);
    const Batch batch = d.batch(s, count, count, 1);
    const Buffer logits = d.buffer(s, DSV4_BUFFER_LOGITS, count);
    std::vector<Place> places;
    std::vector<Chunk> chunks;
    std::vector<int32_t> outputs;
    for (int32_t i = 0; i < count; ++i) {
        places.push_back({i, {0}});
        chunks.push_back({1, i, 0, 1});
        outputs.push_back(i);
    }
    const Step step(chunks, places, s.vocab, outputs);
    d.set(batch, step.view());
    std::vector<float> values(static_cast<size_t>(count) * static_cast<size_t>(s.vocab));
    Random random(17);
    for (float &v : values) v = 3 * random.gaussian();
    d.write(logits, count, values);
    dsv4_graph_limits limits;
    DSV4_INIT(limits);
    limits.tokens = limits.sequences = limits.outputs = count;
    limits.positions = 1;
    std::vector<Line> lines;
    for (const bool greedy : {true, false}) {
        dsv4_sample_row row{};
        row.kind = greedy ? DSV4_SAMPLE_LARGEST : DSV4_SAMPLE_DRAW;
        row.scale = 0x1p24f * 1.4426950f;
        row.top_p = greedy ? 0 : 0xF3333333u; // 0.95
        row.least = 1;
        std::vector<dsv4_sample_row> rows(static_cast<size_t>(count), row);
        for (dsv4_sample_row &r : rows) r.random = random.next();
        expect("sample.set", [&](dsv4_error *e) {
            return d.sample->set(d.queue, sampler, count, rows.data(), sizeof(dsv4_sample_row), e);
        });
        const double seconds = clock.per_call(batch, &limits, 4, repeats, [&](int) {
            expect("sample", [&](dsv4_error *e) { return d.sample->sample(d.queue, batch, sampler, logits, e); });
        });
        lines.push_back({greedy ? "largest" : "top-p", seconds, double(count) * s.vocab * 4});
    }
    return lines;
}

void print(const std::string &step, const std::vector<Line> &lines, double bandwidth) {
    for (const Line &l : lines)
        std::printf("%-24s %-9s %10.1f us %10.2f MB %8.0f GB/s %6.1f %%\n", step.c_str(), l.op.c_str(), l.seconds * 1e6,
                    l.bytes * 1e-6, l.bytes / l.seconds * 1e-9, 100 * l.bytes / l.seconds / bandwidth);
    std::fflush(stdout);
}

int run(const Options &o) {
    const dsv4::PluginRegistry registry({DSV4_PLUGIN_DIR}, nullptr);
    const dsv4_backend *backend = registry.select(o.backend).table;
    Case c;
    for (const Case &known : cases(true))
        if (known.name == o.shape) c = known;
    if (c.name.empty()) throw std::runtime_error("no shape " + o.shape + "; there are those of the conformance suite");
    if (c.wide) c.shape.experts = o.experts;
    DeviceChoice choice;
    choice.variant = o.variant;
    const Device device(backend, choice);
    const Clock clock(backend, device);
    const dsv4_device_info info = device.info();
    const double bandwidth = copy_bandwidth(device, clock, c.shape, !c.wide);
    std::printf("%s, %s, %s; times by %s%s; copy %.0f GB/s\n", backend->name, info.name, info.variant,
                clock.of_device() ? "the device" : "the host", clock.graph() ? ", decode as graphs" : "",
                bandwidth * 1e-9);

    const int32_t most = *std::max_element(o.batch.begin(), o.batch.end());
    std::map<std::string, std::map<int32_t, Line>> whole; // by step, by ratio
    std::vector<std::string> steps;
    for (const int32_t ratio : o.ratios) {
        LayerBench bench(device, clock, c, o, ratio, most);
        const std::string kind = " r" + std::to_string(ratio);
        for (const int32_t n : o.prefill) {
            const std::string name = "prefill " + std::to_string(n);
            const auto lines = bench.measure(n, true);
            print(name + kind, lines, bandwidth);
            whole[name][ratio] = lines.back();
            if (std::find(steps.begin(), steps.end(), name) == steps.end()) steps.push_back(name);
        }
        bench.fill(most);
        for (const int32_t n : o.batch) {
            const std::string name = "decode " + std::to_string(n);
            const auto lines = bench.measure(n, false);
            print(name + kind, lines, bandwidth);
            whole[name][ratio] = lines.back();
            if (std::find(steps.begin(), steps.end(), name) == steps.end()) steps.push_back(name);
        }
    }
    for (const int32_t n : o.batch) {
        const Line line = head_line(device, clock, c, n, o.repeats);
        print("decode " + std::to_string(n), {line}, bandwidth);
        print("decode " + std::to_string(n), sample_lines(device, clock, c, n, o.repeats), bandwidth);
        whole["decode " + std::to_string(n)][-1] = line;
    }
    // The published model has so many layers of each kind, and one head.
    const std::map<int32_t, int32_t> layers = o.shape == "pro"
                                                  ? std::map<int32_t, int32_t>{{-1, 1}, {4, 30}, {128, 31}}
                                                  : std::map<int32_t, int32_t>{{-1, 1}, {0, 2}, {4, 21}, {128, 20}};
    std::printf("\nall layers of %s, and the head where a step decodes; %d routed experts a layer:\n", o.shape.c_str(),
                c.shape.experts);
    for (const std::string &step : steps) {
        double seconds = 0, bytes = 0;
        for (const auto &[ratio, count] : layers) {
            const auto found = whole[step].find(ratio);
            if (found == whole[step].end()) continue;
            seconds += count * found->second.seconds;
            bytes += count * found->second.bytes;
        }
        const double tokens = std::atof(step.c_str() + step.find(' '));
        std::printf("%-16s %9.3f ms %9.1f tok/s %9.2f GB %6.1f %% of the limit\n", step.c_str(), seconds * 1e3,
                    tokens / seconds, bytes * 1e-9, 100 * bytes / bandwidth / seconds);
    }
    return 0;
}

} // namespace

int main(int argc, char **argv) {
    Options o;
    try {
        for (int i = 1; i + 1 < argc; i += 2) {
            const std::string name = argv[i];
            const char *value = argv[i + 1];
            if (name == "--backend") o.backend = value;
            else if (name == "--variant") o.variant = value;
            else if (name == "--shape") o.shape = value;
            else if (name == "--context") o.context = std::atoi(value);
            else if (name == "--experts") o.experts = std::atoi(value);
            else if (name == "--batch") o.batch = list_of(value);
            else if (name == "--prefill") o.prefill = list_of(value);
            else if (name == "--ratios") o.ratios = list_of(value);
            else if (name == "--repeats") o.repeats = std::atoi(value);
            else throw std::runtime_error("unknown option " + name);
        }
        return run(o);
    } catch (const std::exception &e) {
        std::fprintf(stderr, "gpu_bench: %s\n", e.what());
        return 1;
    }
}
