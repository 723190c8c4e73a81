// Positions near the end of the longest context: 2^20. float32 angles lose bits there, offsets pass 2^31 in careless
// code, and an indexer sees 262144 entries.
#include "checks.hpp"
#include "scores.hpp"
#include <algorithm>
#include <cmath>

namespace dsv4::conformance {

// The history is made of one written block that the block table names again and again, which is legal: prefixes are
// shared. Its repeated entries tie exactly, so the selection must take the copies with the smallest indices.
void Suite::long_positions(const Numerics &n, const Case &c, int32_t ratio) {
    const dsv4_shape &s = c.shape;
    constexpr int32_t end = 1 << 20, bt = 128, tail = 3;
    const int32_t whole = end / bt - 1; // logical blocks before the last
    const Weights weights = make_layer(c, ratio, false, options_.seed + 50);
    enum Physical { filler, last, scrap, physical_count };
    Geometry g;
    DSV4_INIT(g.desc);
    g.desc.slots = 2, g.desc.blocks = physical_count, g.desc.block_tokens = bt;
    g.desc.window_rows = s.window - 1 + bt, g.desc.state_slack = 0;
    Place fill{1, {filler}}, warm{0, {}}, real{0, {}};
    real.blocks.assign(static_cast<size_t>(whole), filler);
    real.blocks.push_back(last);
    warm.blocks = real.blocks;
    warm.blocks[static_cast<size_t>(whole - 1)] = scrap; // where the entry goes that the first few tokens complete
    g.places = {fill, warm, real};

    // The window and the compressor's overlap need the tokens just before the last block; what they complete is scrap.
    const int32_t start = whole * bt, before = std::max(4, s.window);
    const Content content = options_.seed + 77;
    const Schedule history = {
        {{options_.seed + 78, 0, 0, bt}}, {{content, 1, start - before, before}}, {{content, 2, start, bt - tail}}};
    const std::vector<Chunk> final_chunk = {{content, 2, end - tail, tail}};
    const int64_t wide_q = buffer_width(s, DSV4_BUFFER_QUERY);
    struct Result {
        std::vector<float> q, window, entries, keys, selection, o;
    };
    const auto run = [&](const Device &d, const std::vector<float> *selection) {
        Result r;
        const Block block = d.block(s, weights.desc());
        const Cache cache = d.cache(s, ratio, g.desc);
        const Batch batch = d.batch(s, bt, 1, whole + 1);
        const Buffer x = d.buffer(s, DSV4_BUFFER_HIDDEN, bt), q = d.buffer(s, DSV4_BUFFER_QUERY, bt);
        const Buffer qr = d.buffer(s, DSV4_BUFFER_QUERY_LORA, bt), o = d.buffer(s, DSV4_BUFFER_QUERY, bt);
        const Buffer chosen = d.buffer(s, DSV4_BUFFER_SELECTION, bt);
        const auto feed = [&](const std::vector<Chunk> &chunks) {
            const Step step(chunks, g.places, s.vocab);
            d.set(batch, step.view());
            d.write(x, step.tokens(), step.inputs(DSV4_BUFFER_HIDDEN, s));
            expect("attention.project",
                   [&](dsv4_error *e) { return d.attention->project(d.queue, batch, block, cache, x, q, qr, e); });
            if (ratio)
                expect("attention.compress",
                       [&](dsv4_error *e) { return d.attention->compress(d.queue, batch, block, cache, x, e); });
        };
        for (const auto &chunks : history) feed(chunks);
        feed(final_chunk);
        r.q = d.read(q, tail, wide_q);
        const int32_t rows = g.desc.window_rows;
        for (int32_t p = end - bt; p < end; ++p) {
            const auto row = d.read_cache(cache, DSV4_CACHE_WINDOW, 0, p % rows, 1, s.head_dim);
            r.window.insert(r.window.end(), row.begin(), row.end());
        }
        if (ratio) r.entries = d.read_cache(cache, DSV4_CACHE_ENTRIES, last, 0, bt / ratio, s.head_dim);
        if (ratio == 4) {
            for (int32_t b : {filler, last}) {
                const auto keys = d.read_cache(cache, DSV4_CACHE_INDEX_KEYS, b, 0, bt / 4, s.index_dim);
                r.keys.insert(r.keys.end(), keys.begin(), keys.end());
            }
            const Step step(final_chunk, g.places, s.vocab);
            d.write(qr, tail, step.inputs(DSV4_BUFFER_QUERY_LORA, s, 1));
            expect("attention.select",
                   [&](dsv4_error *e) { return d.attention->select(d.queue, batch, block, cache, x, qr, chosen, e); });
            r.selection = d.read(chosen, tail, s.index_topk);
            if (selection) d.write(chosen, tail, *selection);
        }
        const Step step(final_chunk, g.places, s.vocab);
        d.write(q, tail, step.inputs(DSV4_BUFFER_QUERY, s, 1));
        expect("attention.attend", [&](dsv4_error *e) {
            return d.attention->attend(d.queue, batch, block, cache, q, ratio == 4 ? chosen.get() : nullptr, o, e);
        });
        r.o = d.read(o, tail, wide_q);
        return r;
    };
    const Device candidate(candidate_, choice(n.candidate)), reference(reference_, {0, n.reference, 0, ""});
    const Result b = run(reference, nullptr), a = run(candidate, ratio == 4 ? &b.selection : nullptr);

    const auto settle = [&](const char *op, double error, double allowed, const char *measure = "nmse",
                            const std::string &note = "") {
        Row r;
        r.check = "operator", r.op = op, r.shape = describe(c, ratio) + " at 2^20", r.numerics = n.label;
        r.measure = measure, r.error = error, r.tolerance = allowed, r.note = note;
        r.verdict = error <= allowed ? Verdict::pass : Verdict::fail;
        report(std::move(r));
    };
    settle("attention.project: q", nmse(a.q, b.q), tolerance(n, Kind::dense));
    settle("attention.project: window", nmse(a.window, b.window), tolerance(n, Kind::cached));
    if (ratio) settle("attention.compress: entries", nmse(a.entries, b.entries), tolerance(n, Kind::cached));
    if (ratio == 4) {
        settle("attention.compress: keys", nmse(a.keys, b.keys), tolerance(n, Kind::index_key));
        const Step step(final_chunk, g.places, s.vocab);
        const std::vector<float> x = step.inputs(DSV4_BUFFER_HIDDEN, s);
        const std::vector<float> qr = step.inputs(DSV4_BUFFER_QUERY_LORA, s, 1);
        ChoiceReport choices;
        for (int32_t t = 0; t < tail; ++t) {
            std::vector<const float *> keys;
            const int32_t visible = (step.position(t) + 1) / 4, per_block = bt / 4;
            for (int32_t e = 0; e < visible; ++e) {
                const int32_t row = (e / per_block < whole ? 0 : per_block) + e % per_block;
                keys.push_back(&b.keys[static_cast<size_t>(row) * static_cast<size_t>(s.index_dim)]);
            }
            const auto scores =
                index_scores(weights, s, &x[static_cast<size_t>(t) * static_cast<size_t>(s.hidden)],
                             &qr[static_cast<size_t>(t) * static_cast<size_t>(s.q_lora)], step.position(t), keys);
            const auto at = static_cast<size_t>(t) * static_cast<size_t>(s.index_topk);
            judge_selection(scores, keys, s.index_topk, &a.selection[at], &b.selection[at], choices);
        }
        settle("attention.select", choices.broken.empty() ? choices.worst_deficit : INFINITY,
               n.candidate == DSV4_NUMERICS_EXACT ? 1e-3 : 1.0, "deficit", choices.broken);
    }
    settle("attention.attend", nmse(a.o, b.o), tolerance(n, Kind::cached));
}

} // namespace dsv4::conformance
