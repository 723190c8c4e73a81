// Sampling on the device, token for token: what the header defines, computed here the long way, against what comes back
// for logits with ties, infinities and NaN, under every kind of narrowing, alone, in batches and in a recorded graph.
#include "checks.hpp"
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

namespace dsv4::conformance {
namespace {

constexpr int32_t most_rows = 7, most_biases = 64;
constexpr float infinity = std::numeric_limits<float>::infinity();
__extension__ using Wide = unsigned __int128;

/// One row of a step: what is wanted, of which logits, and the memory that it points at.
struct Wish {
    dsv4_sample_row row{};
    std::vector<float> logits;
    std::vector<uint64_t> allowed;
    std::vector<dsv4_logit_bias> bias;
    std::string name;

    dsv4_sample_row view() const {
        dsv4_sample_row r = row;
        r.allowed = allowed.empty() ? nullptr : allowed.data();
        r.bias = bias.data();
        r.bias_count = static_cast<uint32_t>(bias.size());
        return r;
    }
};

uint64_t weight(uint64_t t) {
    constexpr uint64_t C[] = DSV4_SAMPLE_POLYNOMIAL;
    const uint64_t v = (t % (1u << 24)) * 256;
    uint64_t a = C[5];
    for (int j = 4; j >= 0; --j) a = C[j] - a * v / 4294967296u;
    const uint64_t m = 2147483648u - a * v / 8589934592u;
    return m * 512 >> t / (1u << 24);
}

/// What the header says, in its order.
int32_t expected(const Wish &wish) {
    const dsv4_sample_row &r = wish.row;
    if (r.kind == DSV4_SAMPLE_NOTHING) return DSV4_SAMPLED_NOTHING;
    const size_t V = wish.logits.size();
    std::vector<float> x = wish.logits;
    for (const dsv4_logit_bias &b : wish.bias) x[static_cast<size_t>(b.token)] += b.bias;
    std::vector<size_t> in;
    bool nan = false;
    for (size_t i = 0; i < V; ++i) {
        if (!wish.allowed.empty() && !(wish.allowed[i / 64] >> i % 64 & 1)) continue;
        nan |= std::isnan(x[i]);
        if (x[i] > -infinity) in.push_back(i);
    }
    if (in.empty()) return nan ? DSV4_SAMPLED_NOT_A_NUMBER : DSV4_SAMPLED_FORBIDDEN;
    const size_t largest = *std::max_element(in.begin(), in.end(), [&](size_t a, size_t b) { return x[a] < x[b]; });
    if (r.kind == DSV4_SAMPLE_LARGEST) return static_cast<int32_t>(largest);

    std::vector<uint64_t> t(V), w(V);
    std::vector<size_t> order;
    for (const size_t i : in) {
        const float difference = x[largest] - x[i];
        const float distance = difference * r.scale;
        if (x[i] != x[largest] && !(distance < 41.0f * 16777216.0f)) continue;
        t[i] = x[i] == x[largest] ? 0 : static_cast<uint64_t>(distance);
        w[i] = weight(t[i]);
        if (w[i] >= r.least) order.push_back(i);
    }
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return t[a] < t[b]; });
    const auto sum = [&] {
        return std::accumulate(order.begin(), order.end(), uint64_t{0}, [&](uint64_t s, size_t i) { return s + w[i]; });
    };
    if (r.top_k && order.size() > r.top_k) order.resize(r.top_k);
    if (r.top_p) {
        const auto wanted = std::max(static_cast<uint64_t>(Wide{sum()} * r.top_p >> 32), uint64_t{1});
        uint64_t kept = 0;
        size_t n = 0;
        while (kept < wanted) kept += w[order[n++]];
        order.resize(n);
    }
    std::sort(order.begin(), order.end());
    const auto place = static_cast<uint64_t>(Wide{sum()} * r.random >> 64);
    uint64_t passed = 0;
    for (const size_t i : order)
        if ((passed += w[i]) > place) return static_cast<int32_t>(i);
    return -100;
}

enum class Logits { normal, few, equal, infinite, some_nan, all_nan, none, zeros, huge, close };

std::vector<float> make_logits(Logits kind, int32_t V, Random &random) {
    std::vector<float> x(static_cast<size_t>(V));
    for (float &v : x) {
        const uint64_t dice = random.next();
        switch (kind) {
        case Logits::normal: v = 4 * random.gaussian(); break;
        case Logits::few: v = static_cast<float>(dice % 5) - 3; break;
        case Logits::equal: v = 1.25f; break;
        case Logits::infinite: v = dice % 7 == 0 ? infinity : dice % 7 < 4 ? -infinity : random.gaussian(); break;
        case Logits::some_nan: v = dice % 3 == 0 ? std::nanf("") : 3 * random.gaussian(); break;
        case Logits::all_nan: v = std::nanf(""); break;
        case Logits::none: v = -infinity; break;
        case Logits::zeros: v = dice % 3 == 0 ? -0.0f : dice % 3 == 1 ? 0.0f : -1e-40f; break;
        case Logits::huge: v = (dice % 2 ? 3e38f : -3e38f) * random.uniform(); break;
        case Logits::close: v = 20 + static_cast<float>(dice % 64) * 0x1p-19f; break;
        }
    }
    return x;
}

/// The conditions that matter, each once, then combinations at random.
std::vector<Wish> wishes(int32_t V, uint64_t seed) {
    Random random(seed);
    std::vector<Wish> all;
    const auto add = [&](const std::string &name, Logits logits, int32_t kind, double temperature, uint32_t top_k = 0,
                         double top_p = 0, double min_p = 0) -> Wish & {
        Wish w;
        w.name = name;
        w.logits = make_logits(logits, V, random);
        w.row.kind = kind;
        w.row.top_k = top_k;
        w.row.top_p = static_cast<uint32_t>(top_p * 4294967296.0);
        w.row.least = std::max(static_cast<uint64_t>(min_p * 1099511627776.0), uint64_t{1});
        const double scale = 16777216.0 * 1.4426950408889634 / temperature;
        w.row.scale = scale > 3e38 ? infinity : static_cast<float>(scale);
        w.row.random = random.next();
        all.push_back(std::move(w));
        return all.back();
    };
    const auto mask = [&](Wish &w, uint64_t one_in) {
        w.allowed.resize(static_cast<size_t>(V + 63) / 64);
        for (int32_t i = 0; i < V; ++i)
            if (random.next() % one_in == 0) w.allowed[static_cast<size_t>(i / 64)] |= uint64_t{1} << i % 64;
    };
    const auto bias = [&](Wish &w, int32_t count) {
        for (int32_t i = 0; i < count; ++i) {
            const auto token = static_cast<int32_t>(random.next() % static_cast<uint64_t>(V));
            const float by = i % 5 == 4 ? -infinity : 6 * random.gaussian();
            w.bias.push_back({token, by});
            if (i % 3 == 0) w.bias.push_back({token, 1e-3f}); // added after, not before
        }
    };
    constexpr int32_t largest = DSV4_SAMPLE_LARGEST, drawn = DSV4_SAMPLE_DRAW;
    const Logits every[] = {Logits::normal,  Logits::few,  Logits::equal, Logits::infinite, Logits::some_nan,
                            Logits::all_nan, Logits::none, Logits::zeros, Logits::huge,     Logits::close};
    for (const Logits kind : every) {
        const std::string name = "logits " + std::to_string(static_cast<int>(kind));
        add(name + ", largest", kind, largest, 1);
        add(name + ", drawn", kind, drawn, 1);
        add(name + ", top-k and top-p", kind, drawn, 2, static_cast<uint32_t>(V / 3 + 1), 0.6);
    }
    for (const double temperature : {1e-45, 1e-3, 0.3, 5.0, 3e38}) {
        add("temperature " + std::to_string(temperature), Logits::normal, drawn, temperature);
        add("temperature and top-p " + std::to_string(temperature), Logits::normal, drawn, temperature, 0, 0.9);
    }
    for (const uint32_t top_k : {1u, 2u, static_cast<uint32_t>(V), ~0u})
        add("top-k " + std::to_string(top_k), Logits::few, drawn, 1, top_k);
    for (const double top_p : {1e-9, 0.01, 0.5, 0.9999999997}) {
        add("top-p " + std::to_string(top_p), Logits::normal, drawn, 1, 0, top_p);
        add("top-p of equals " + std::to_string(top_p), Logits::equal, drawn, 1, 0, top_p);
    }
    for (const double min_p : {0.02, 1.0}) add("min-p", Logits::normal, drawn, 1.5, 0, 0, min_p);
    for (const uint64_t edge : {uint64_t{0}, ~uint64_t{0}})
        for (const Logits kind : {Logits::normal, Logits::equal}) {
            add("first or last", kind, drawn, 1).row.random = edge;
            add("first or last of top-p", kind, drawn, 1, 0, 0.8).row.random = edge;
        }
    mask(add("nothing allowed", Logits::normal, drawn, 1), ~uint64_t{0});
    mask(add("NaN where it is forbidden", Logits::some_nan, largest, 1), 4);
    bias(add("biases, largest", Logits::normal, largest, 1), 6);
    all.emplace_back().name = "nothing wanted";
    all.back().logits = make_logits(Logits::normal, V, random);
    for (int i = 0; i < 24; ++i) {
        const auto roll = [&](uint64_t n) { return random.next() % n; };
        const Logits kinds[] = {Logits::normal, Logits::normal, Logits::few, Logits::some_nan, Logits::close};
        Wish &w = add("combination " + std::to_string(i), kinds[roll(5)], roll(6) ? drawn : largest,
                      std::exp(1.5 * random.gaussian()), static_cast<uint32_t>(roll(3) ? 0 : 1 + roll(40)),
                      roll(2) ? 0 : random.uniform(), roll(3) ? 0 : 0.2 * random.uniform());
        if (roll(3) == 0) mask(w, 1 + roll(6));
        if (roll(3) == 0) bias(w, static_cast<int32_t>(1 + roll(5)));
    }
    return all;
}

/// A sampler over steps of so many tokens, `outputs` of which are sampled.
class Sampling {
  public:
    Sampling(const Device &device, const dsv4_shape &shape) : d_(device), s_(shape) {
        dsv4_sampler *sampler = nullptr;
        expect("sampler_create", [&](dsv4_error *e) {
            return d_.sample->sampler_create(d_.device, &s_, most_rows, most_biases, &sampler, e);
        });
        sampler_ = Owned<dsv4_sampler>(sampler, d_.sample->sampler_release);
        batch_ = d_.batch(s_, 2 * most_rows, 2 * most_rows, 1);
        logits_ = d_.buffer(s_, DSV4_BUFFER_LOGITS, most_rows);
    }

    /// The step of these wishes, up to the operator; every second token of it is an output when `sparse`.
    void prepare(const std::vector<const Wish *> &wishes, bool sparse) {
        std::vector<Place> places;
        std::vector<Chunk> chunks;
        std::vector<int32_t> outputs;
        std::vector<dsv4_sample_row> rows;
        written_.clear();
        for (const Wish *w : wishes) {
            if (sparse) chunks.push_back({1, static_cast<int32_t>(chunks.size()), 0, 1});
            outputs.push_back(static_cast<int32_t>(chunks.size()));
            chunks.push_back({1, static_cast<int32_t>(chunks.size()), 0, 1});
            rows.push_back(w->view());
            written_.insert(written_.end(), w->logits.begin(), w->logits.end());
        }
        for (size_t i = 0; i < chunks.size(); ++i) places.push_back({static_cast<int32_t>(i), {0}});
        const Step step(chunks, places, s_.vocab, outputs);
        count_ = static_cast<int32_t>(rows.size());
        d_.set(batch_, step.view());
        d_.write(logits_, count_, written_);
        // Rows at the end that want nothing need not be given.
        int32_t given = count_;
        while (given && rows[static_cast<size_t>(given - 1)].kind == DSV4_SAMPLE_NOTHING) --given;
        set(given, rows);
    }
    void set(int32_t count, const std::vector<dsv4_sample_row> &rows) {
        expect("sample.set", [&](dsv4_error *e) {
            return d_.sample->set(d_.queue, sampler_, count, rows.data(), sizeof(dsv4_sample_row), e);
        });
    }
    void run() {
        expect("sample", [&](dsv4_error *e) { return d_.sample->sample(d_.queue, batch_, sampler_, logits_, e); });
    }
    std::vector<int32_t> ids() const {
        std::vector<int32_t> ids(static_cast<size_t>(count_), -99);
        expect("sample.read",
               [&](dsv4_error *e) { return d_.sample->read(d_.queue, sampler_, count_, ids.data(), e); });
        return ids;
    }
    bool logits_untouched() const {
        const std::vector<float> now = d_.read(logits_, count_, s_.vocab);
        return std::memcmp(now.data(), written_.data(), now.size() * sizeof(float)) == 0;
    }
    dsv4_sampler *sampler() const { return sampler_; }
    dsv4_batch *batch() const { return batch_; }

  private:
    const Device &d_;
    const dsv4_shape s_;
    Owned<dsv4_sampler> sampler_;
    Batch batch_;
    Buffer logits_;
    std::vector<float> written_;
    int32_t count_ = 0;
};

struct Tally {
    size_t wrong = 0;
    std::string first;
    void add(const Wish &w, int32_t got, int32_t right) {
        if (got == right) return;
        if (!wrong++) first = w.name + ": " + std::to_string(got) + " instead of " + std::to_string(right);
    }
};

} // namespace

void Suite::sampling(const Case &c) {
    const Device d(candidate_, choice(DSV4_NUMERICS_DEFAULT));
    Row r;
    r.check = "sample", r.op = "sample", r.shape = c.name, r.numerics = "all", r.measure = "differing tokens";
    if (!d.sample) {
        r.verdict = Verdict::skipped;
        r.note = "DSV4_FAMILY_SAMPLE is not offered: the core samples";
        return report(std::move(r));
    }
    const auto settle = [&](const char *op, const std::string &shape, const Tally &tally) {
        Row row = r;
        row.op = op, row.shape = shape;
        row.error = static_cast<double>(tally.wrong);
        row.verdict = tally.wrong ? Verdict::fail : Verdict::pass;
        row.note = tally.first;
        report(std::move(row));
    };
    std::vector<int32_t> widths = {c.shape.vocab};
    if (c.name == "tiny") widths = {1, c.shape.vocab, 4097, 9001}; // below, at and past what a block may take
    for (const int32_t V : widths) {
        dsv4_shape shape = c.shape;
        shape.vocab = V;
        const std::string name = c.name + " V=" + std::to_string(V);
        const std::vector<Wish> all = wishes(V, options_.seed + static_cast<uint64_t>(V));
        std::vector<int32_t> right;
        for (const Wish &w : all) right.push_back(expected(w));
        Sampling sampling(d, shape);
        const auto group = [&](size_t from, size_t count) {
            std::vector<const Wish *> out;
            for (size_t i = 0; i < count; ++i) out.push_back(&all[(from + i) % all.size()]);
            return out;
        };

        Tally tokens, others, recorded;
        for (size_t from = 0; from < all.size(); from += most_rows) {
            sampling.prepare(group(from, most_rows), false);
            sampling.run();
            const auto ids = sampling.ids();
            for (size_t i = 0; i < ids.size(); ++i)
                tokens.add(all[(from + i) % all.size()], ids[i], right[(from + i) % all.size()]);
            if (!sampling.logits_untouched()) tokens.add({}, 1, 0), tokens.first += " (the logits were changed)";
        }
        settle("sample", name, tokens);

        // Alone and in threes, the outputs of other tokens.
        for (size_t from = 0, count = 1; from < all.size(); from += count, count = 4 - count) {
            sampling.prepare(group(from, count), true);
            sampling.run();
            const auto ids = sampling.ids();
            for (size_t i = 0; i < ids.size(); ++i)
                others.add(all[(from + i) % all.size()], ids[i], right[(from + i) % all.size()]);
        }
        settle("sample, other batches", name, others);

        const auto *graph = static_cast<const dsv4_graph_ops *>(candidate_->ops(d.device, DSV4_FAMILY_GRAPH));
        if (!graph || !DSV4_HAS(graph, release)) continue;
        dsv4_graph_limits limits;
        DSV4_INIT(limits);
        limits.tokens = limits.sequences = 2 * most_rows;
        limits.outputs = most_rows;
        limits.positions = 1;
        sampling.prepare(group(0, 2), true);
        expect("graph.begin", [&](dsv4_error *e) { return graph->begin(d.queue, sampling.batch(), &limits, e); });
        sampling.run();
        dsv4_graph *made = nullptr;
        expect("graph.end", [&](dsv4_error *e) { return graph->end(d.queue, &made, e); });
        const Owned<dsv4_graph> owner(made, graph->release);
        for (size_t from = 0, count = 2; from < all.size(); from += count, count = count % most_rows + 1) {
            sampling.prepare(group(from, count), count % 2);
            expect("graph.launch", [&](dsv4_error *e) { return graph->launch(d.queue, made, e); });
            const auto ids = sampling.ids();
            for (size_t i = 0; i < ids.size(); ++i)
                recorded.add(all[(from + i) % all.size()], ids[i], right[(from + i) % all.size()]);
        }
        settle("sample, recorded", name, recorded);
    }

    // What cannot be, and that the sampler is what it was after it.
    dsv4_shape shape = c.shape;
    Sampling sampling(d, shape);
    const Wish good = wishes(shape.vocab, 3)[1];
    sampling.prepare({&good}, false);
    Tally bad;
    dsv4_error err;
    DSV4_INIT(err);
    const auto refused = [&](const char *what, int32_t count, const std::vector<dsv4_sample_row> &rows) {
        if (d.sample->set(d.queue, sampling.sampler(), count, rows.data(), sizeof(dsv4_sample_row), &err) >= 0)
            bad.add({}, 1, 0), bad.first = std::string(what) + " was accepted";
    };
    refused("more rows than the sampler has", most_rows + 1, std::vector<dsv4_sample_row>(most_rows + 1, good.view()));
    std::vector<dsv4_logit_bias> biases(most_biases + 1, {0, 1.0f});
    dsv4_sample_row row = good.view();
    row.bias = biases.data();
    row.bias_count = most_biases + 1;
    refused("more biases than the sampler has", 1, {row});
    row.bias_count = 1;
    biases[0].token = shape.vocab;
    refused("a bias of a token that is not there", 1, {row});
    biases[0].token = -1;
    refused("a bias of token -1", 1, {row});
    row = good.view();
    row.kind = 99;
    refused("kind 99", 1, {row});
    sampling.run();
    bad.add(good, sampling.ids()[0], expected(good));
    settle("sample, bad calls", c.name, bad);
}

} // namespace dsv4::conformance
