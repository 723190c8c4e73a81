// Row independence, bit for bit: the same conversations in other batches, other cuts, beside other neighbours, on other
// numbers of threads. The candidate is compared with itself.
#include "checks.hpp"
#include <algorithm>
#include <array>

namespace dsv4::conformance {
namespace {

/// Tokens whose rows differ, per stage.
std::array<size_t, stage_count> differing(const Trace &a, const Trace &b) {
    std::array<size_t, stage_count> count{};
    for (const auto &[key, rows] : a) {
        const auto other = b.find(key);
        for (size_t stage = 0; stage < stage_count; ++stage)
            count[stage] += other == b.end() || differing_bits(rows[stage], other->second[stage]) != 0;
    }
    return count;
}

} // namespace

void Suite::row_independence(const Numerics &n, const Case &c, int32_t ratio) {
    const Device device(candidate_, choice(n.candidate));
    const std::string shape = describe(c, ratio);
    if (!device.claims(DSV4_CAP_ROW_INDEPENDENT)) {
        Row r;
        r.check = "rows", r.op = "layer", r.shape = shape, r.numerics = n.label;
        r.verdict = Verdict::skipped;
        r.note = "DSV4_CAP_ROW_INDEPENDENT is not claimed: speculation, batching and resuming may change text";
        return report(std::move(r));
    }
    const Weights weights = make_layer(c, ratio, false, options_.seed + 30);
    const std::vector<int32_t> length = lengths(c, ratio);
    constexpr int32_t chunk = 64;
    const int32_t rows = c.shape.window - 1 + chunk;
    const auto content = [&](size_t s) { return options_.seed * 57 + s; };
    const auto span = [&](size_t s, int32_t place) { return Span{content(s), place, 0, length[s]}; };
    const size_t S = length.size();

    // The plainest way first: one sequence after the other, in the largest steps.
    const Geometry one = scattered(c, ratio, length, rows, 0, 5);
    Trace plain;
    std::vector<std::vector<float>> caches;
    {
        LayerProgram program(device, c, weights, one, chunk);
        for (size_t s = 0; s < S; ++s) program.run(in_chunks({span(s, static_cast<int32_t>(s))}, chunk), plain);
        for (size_t s = 0; s < S; ++s) caches.push_back(program.visible_cache(one.places[s], length[s]));
    }

    std::array<size_t, stage_count> worst{};
    std::array<std::string, stage_count> which;
    size_t worst_cache = 0;
    std::string which_cache;
    const auto variant = [&](const std::string &name, const Device &on, const Geometry &g, int32_t tokens,
                             const Schedule &schedule, bool fused_only = false) {
        Trace trace;
        LayerProgram program(on, c, weights, g, tokens);
        if (fused_only) program.run_fused(schedule, trace);
        else program.run(schedule, trace);
        const auto count = differing(plain, trace);
        for (size_t stage = 0; stage < stage_count; ++stage)
            if (count[stage] > worst[stage]) worst[stage] = count[stage], which[stage] = name;
        size_t bits = 0;
        for (size_t s = 0; s < S; ++s) bits += differing_bits(caches[s], program.visible_cache(g.places[s], length[s]));
        if (bits > worst_cache) worst_cache = bits, which_cache = name;
    };

    std::vector<Span> together, backwards, copies;
    for (size_t s = 0; s < S; ++s) together.push_back(span(s, static_cast<int32_t>(s)));
    backwards.assign(together.rbegin(), together.rend());
    const auto all = static_cast<int32_t>(S) * chunk;
    variant("token by token", device, one, 1, [&] {
        Schedule steps;
        for (const Span &s : together)
            for (const auto &step : in_chunks({s}, 1)) steps.push_back(step);
        return steps;
    }());
    variant("all sequences in one batch, steps of 7", device, scattered(c, ratio, length, rows, 1, 6), all,
            in_chunks(together, 7));
    variant("all in one batch, other order, steps of 64", device, scattered(c, ratio, length, rows, 3, 8), all,
            in_chunks(backwards, chunk));
    {
        // Other neighbours, coming and going; steps of one, of a few and of many, mixed in one batch.
        std::vector<int32_t> longer = length;
        for (int i = 0; i < 3; ++i) longer.push_back(29);
        Schedule mixed;
        std::vector<int32_t> done(S, 0);
        const int32_t cuts[] = {1, 13, 64, 2, 31, 5};
        for (size_t step = 0;; ++step) {
            std::vector<Chunk> chunks;
            for (size_t i = 0; i < 3; ++i)
                if (step % (i + 2) == 0 && step < 29)
                    chunks.push_back({options_.seed + 900 + i, static_cast<int32_t>(S + i),
                                      static_cast<int32_t>(step / (i + 2)), 1});
            bool left = false;
            for (size_t s = 0; s < S; ++s) {
                const int32_t take = std::min(cuts[(step + s * 2) % 6], length[s] - done[s]);
                if (take > 0)
                    chunks.insert(chunks.begin() + static_cast<std::ptrdiff_t>(chunks.size() / 2),
                                  {content(s), static_cast<int32_t>(s), done[s], take});
                done[s] += take;
                left |= done[s] < length[s];
            }
            if (!chunks.empty()) mixed.push_back(chunks);
            if (!left) break;
        }
        Geometry g = scattered(c, ratio, longer, rows, 2, 10);
        variant("uneven steps among strangers", device, g, all + 3, mixed);
    }
    for (const int32_t threads : {1, 3}) {
        const Device other(candidate_, choice(n.candidate, threads));
        variant("threads=" + std::to_string(threads), other, one, all, in_chunks(together, 19));
    }

    for (size_t stage = 0; stage < stage_count; ++stage) {
        if (stage == SELECT && ratio != 4) continue;
        Row r;
        r.check = "rows", r.op = stage_name(static_cast<int>(stage)), r.shape = shape, r.numerics = n.label;
        r.measure = "differing tokens", r.error = static_cast<double>(worst[stage]);
        r.verdict = worst[stage] ? Verdict::fail : Verdict::pass;
        if (worst[stage]) r.note = "of " + std::to_string(plain.size()) + ", with: " + which[stage];
        report(std::move(r));
    }
    Row r;
    r.check = "rows", r.op = "cache", r.shape = shape, r.numerics = n.label, r.measure = "differing values";
    r.error = static_cast<double>(worst_cache);
    r.verdict = worst_cache ? Verdict::fail : Verdict::pass;
    if (worst_cache) r.note = "with: " + which_cache;
    report(std::move(r));

    if (!device.layer) return;
    Trace fused_plain;
    {
        LayerProgram program(device, c, weights, one, chunk);
        for (size_t s = 0; s < S; ++s)
            program.run_fused(in_chunks({span(s, static_cast<int32_t>(s))}, chunk), fused_plain);
    }
    Trace fused;
    LayerProgram(device, c, weights, scattered(c, ratio, length, rows, 1, 6), all)
        .run_fused(in_chunks(backwards, 7), fused);
    Row f;
    f.check = "rows", f.op = "layer fused", f.shape = shape, f.numerics = n.label, f.measure = "differing tokens";
    f.error = static_cast<double>(differing(fused_plain, fused)[LAYER_STREAMS]);
    f.verdict = f.error > 0 ? Verdict::fail : Verdict::pass;
    report(std::move(f));
}

void Suite::ends_rows(const Numerics &n, const Case &c) {
    const Device d(candidate_, choice(n.candidate));
    if (!d.claims(DSV4_CAP_ROW_INDEPENDENT)) return; // said once, by the layers' rows
    const dsv4_shape &s = c.shape;
    const Weights ends_weights = make_ends(c, options_.seed), mtp_weights = make_mtp(c, options_.seed + 1);
    const Block ends = d.block(s, ends_weights.desc()), mtp = d.block(s, mtp_weights.desc());
    constexpr int32_t T = 37;
    const std::vector<Place> places(1);
    const int64_t wide = buffer_width(s, DSV4_BUFFER_STREAMS);

    struct Rows {
        std::vector<float> embedded, logits, joined;
    };
    const auto run = [&](int32_t first, int32_t count) {
        std::vector<int32_t> outputs;
        for (int32_t i = 0; i < count; ++i) outputs.push_back(i);
        const Step step({{options_.seed, 0, first, count}}, places, s.vocab, outputs);
        const Batch batch = d.batch(s, count, 1, 1);
        d.set(batch, step.view());
        const Buffer x = d.buffer(s, DSV4_BUFFER_STREAMS, count), out = d.buffer(s, DSV4_BUFFER_STREAMS, count);
        const Buffer logits = d.buffer(s, DSV4_BUFFER_LOGITS, count);
        Rows r;
        expect("ends.embed", [&](dsv4_error *e) { return d.ends->embed(d.queue, batch, ends, out, e); });
        r.embedded = d.read(out, count, wide);
        d.write(x, count, step.inputs(DSV4_BUFFER_STREAMS, s));
        expect("ends.head", [&](dsv4_error *e) { return d.ends->head(d.queue, batch, ends, ends, x, logits, e); });
        r.logits = d.read(logits, count, s.vocab);
        if (d.mtp) {
            expect("mtp.join", [&](dsv4_error *e) { return d.mtp->join(d.queue, batch, ends, mtp, x, out, e); });
            r.joined = d.read(out, count, wide);
        }
        return r;
    };
    const Rows together = run(0, T);
    Rows apart;
    for (int32_t t = 0, count = 1; t < T; t += count, count = std::min(count % 5 + 1, T - t)) {
        const Rows part = run(t, count);
        const auto append = [](std::vector<float> &to, const std::vector<float> &from) {
            to.insert(to.end(), from.begin(), from.end());
        };
        append(apart.embedded, part.embedded);
        append(apart.logits, part.logits);
        append(apart.joined, part.joined);
    }
    const auto settle = [&](const char *op, const std::vector<float> &a, const std::vector<float> &b) {
        Row r;
        r.check = "rows", r.op = op, r.shape = c.name, r.numerics = n.label, r.measure = "differing values";
        r.error = static_cast<double>(differing_bits(a, b));
        r.verdict = r.error > 0 ? Verdict::fail : Verdict::pass;
        report(std::move(r));
    };
    settle("ends.embed", together.embedded, apart.embedded);
    settle("ends.head", together.logits, apart.logits);
    if (d.mtp) settle("mtp.join", together.joined, apart.joined);
}

} // namespace dsv4::conformance
