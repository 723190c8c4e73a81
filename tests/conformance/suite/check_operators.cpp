// Every operator alone: both backends get the same inputs and the same history, and their outputs are compared.
#include "checks.hpp"
#include "scores.hpp"
#include <algorithm>
#include <cmath>
#include <functional>

namespace dsv4::conformance {
namespace {

/// One backend's objects for the operators of a layer.
struct Side {
    const Device &device;
    Block block;
    Cache cache;
    Batch batch;
    Buffer streams, x, y, mix, q, qr, o, selection, route;

    Side(const Device &d, const Case &c, const Weights &w, const Geometry &g, int32_t tokens)
        : device(d), block(d.block(c.shape, w.desc())), cache(d.cache(c.shape, w.ratio, g.desc)) {
        size_t longest = 1;
        for (const Place &place : g.places) longest = std::max(longest, place.blocks.size());
        batch = d.batch(c.shape, tokens, static_cast<int32_t>(g.places.size()), static_cast<int32_t>(longest));
        const auto make = [&](int32_t kind) { return d.buffer(c.shape, kind, tokens); };
        streams = make(DSV4_BUFFER_STREAMS), x = make(DSV4_BUFFER_HIDDEN), y = make(DSV4_BUFFER_HIDDEN);
        mix = make(DSV4_BUFFER_MIX), q = make(DSV4_BUFFER_QUERY), qr = make(DSV4_BUFFER_QUERY_LORA);
        o = make(DSV4_BUFFER_QUERY), selection = make(DSV4_BUFFER_SELECTION), route = make(DSV4_BUFFER_ROUTE);
    }
    void project(const Step &step, const dsv4_shape &shape) {
        device.set(batch, step.view());
        device.write(x, step.tokens(), step.inputs(DSV4_BUFFER_HIDDEN, shape));
        expect("attention.project", [&](dsv4_error *e) {
            return device.attention->project(device.queue, batch, block, cache, x, q, qr, e);
        });
    }
    void compress() {
        expect("attention.compress",
               [&](dsv4_error *e) { return device.attention->compress(device.queue, batch, block, cache, x, e); });
    }
};

using SideCall = std::function<dsv4_status(Side &, dsv4_error *)>;

/// The rows of a cache that the sequences of a run wrote, in an order of positions.
std::vector<float> written(Side &side, const Case &c, const Geometry &g, int32_t ratio,
                           const std::vector<int32_t> &lengths, int32_t part) {
    std::vector<float> all;
    for (size_t s = 0; s < lengths.size(); ++s) {
        const Place &place = g.places[s];
        if (part == DSV4_CACHE_WINDOW) {
            for (int32_t p = std::max(0, lengths[s] - g.desc.window_rows); p < lengths[s]; ++p) {
                const auto row =
                    side.device.read_cache(side.cache, part, place.slot, p % g.desc.window_rows, 1, c.shape.head_dim);
                all.insert(all.end(), row.begin(), row.end());
            }
            continue;
        }
        const int64_t width = part == DSV4_CACHE_ENTRIES ? c.shape.head_dim : c.shape.index_dim;
        for (int32_t e = 0; e < lengths[s] / ratio; ++e) {
            const int32_t p = e * ratio, block = place.blocks[static_cast<size_t>(p / g.desc.block_tokens)];
            const auto row = side.device.read_cache(side.cache, part, block, p % g.desc.block_tokens / ratio, 1, width);
            all.insert(all.end(), row.begin(), row.end());
        }
    }
    return all;
}

} // namespace

void Suite::operators(const Numerics &n, const Case &c) {
    const Device candidate(candidate_, choice(n.candidate));
    const Device reference(reference_, {0, n.reference, 0, ""});
    const dsv4_shape &shape = c.shape;
    const double budget = c.wide ? 0.2 : 0.01;
    bool first_ratio = true;

    for (int32_t ratio : c.ratios) {
        const Weights weights = make_layer(c, ratio, /*hash_routing=*/!first_ratio && ratio == 4, options_.seed + 10);
        const bool hash = weights.find(DSV4_ROLE_GATE_TID2EID) != nullptr;
        const std::vector<int32_t> length = lengths(c, ratio);
        constexpr int32_t chunk = 33;
        // As tight as the contract allows, so that the rings wrap; the compared step may be run again, for its speed.
        const Geometry g = scattered(c, ratio, length, shape.window - 1 + chunk, c.last, static_cast<uint64_t>(ratio));
        const auto sequences = static_cast<int32_t>(length.size());
        Side a(candidate, c, weights, g, chunk * sequences), b(reference, c, weights, g, chunk * sequences);

        std::vector<Span> history;
        std::vector<Chunk> last;
        for (int32_t s = 0; s < sequences; ++s) {
            const int32_t from = std::max(0, length[static_cast<size_t>(s)] - c.last);
            history.push_back({options_.seed * 7 + static_cast<Content>(s) + 1, s, 0, from});
            last.push_back({history.back().content, s, from, length[static_cast<size_t>(s)] - from});
        }
        for (const auto &chunks : in_chunks(history, chunk)) {
            const Step step(chunks, g.places, shape.vocab);
            for (Side *side : {&a, &b}) {
                side->project(step, shape);
                if (ratio) side->compress();
            }
        }

        const Step step(last, g.places, shape.vocab);
        const int32_t T = step.tokens();
        const std::string where = describe(c, ratio, T);
        a.device.set(a.batch, step.view());
        b.device.set(b.batch, step.view());

        const auto row = [&](const std::string &op) {
            Row r;
            r.check = "operator", r.op = op, r.shape = where, r.numerics = n.label, r.measure = "nmse";
            return r;
        };
        const auto settle = [&](Row r, double error, double allowed) {
            r.error = error, r.tolerance = allowed;
            r.verdict = error <= allowed ? Verdict::pass : Verdict::fail;
            report(std::move(r));
        };
        const auto write = [&](Buffer Side::*buffer, int32_t kind, uint64_t salt) {
            const std::vector<float> rows = step.inputs(kind, shape, salt);
            a.device.write(a.*buffer, T, rows);
            b.device.write(b.*buffer, T, rows);
        };
        /// Runs on both; times the candidate. A step may be run again within the slack of the rings.
        const auto run = [&](const char *name, const SideCall &call, Row &timed) {
            const auto on = [&](Side &side) {
                expect(name, [&](dsv4_error *err) { return call(side, err); });
                side.device.wait();
            };
            on(b);
            on(a);
            timed.seconds = best_time([&] { on(a); }, budget);
            timed.rows_per_second = T / timed.seconds;
        };
        const auto compare = [&](Buffer Side::*buffer, int32_t kind) {
            const int64_t width = buffer_width(shape, kind);
            return nmse(a.device.read(a.*buffer, T, width), b.device.read(b.*buffer, T, width));
        };

        if (first_ratio) { // what does not depend on the kind of attention
            for (const int32_t site : {DSV4_HC_ATTN, DSV4_HC_FFN}) {
                const std::string op = site == DSV4_HC_ATTN ? "hc.pre attn" : "hc.pre ffn";
                write(&Side::streams, DSV4_BUFFER_STREAMS, 1);
                Row r = row(op + ": x");
                run(
                    "hc.pre",
                    [&](Side &s, dsv4_error *e) {
                        return s.device.hc->pre(s.device.queue, s.batch, s.block, site, s.streams, s.x, s.mix, e);
                    },
                    r);
                settle(r, compare(&Side::x, DSV4_BUFFER_HIDDEN), tolerance(n, Kind::plain));
                settle(row(op + ": mix"), compare(&Side::mix, DSV4_BUFFER_MIX), tolerance(n, Kind::plain));
            }
            write(&Side::y, DSV4_BUFFER_HIDDEN, 2);
            write(&Side::mix, DSV4_BUFFER_MIX, 2);
            const auto post = [&](Side &s, dsv4_error *e) {
                return s.device.hc->post(s.device.queue, s.batch, s.y, s.mix, s.streams, e);
            };
            Row r = row("hc.post");
            run("hc.post", post, r); // for its speed; then once more from fresh streams, for its result
            write(&Side::streams, DSV4_BUFFER_STREAMS, 3);
            for (Side *s : {&b, &a}) expect("hc.post", [&](dsv4_error *e) { return post(*s, e); });
            settle(r, compare(&Side::streams, DSV4_BUFFER_STREAMS), tolerance(n, Kind::plain));
        }

        write(&Side::x, DSV4_BUFFER_HIDDEN, 0); // the same rows as the history's, so that caches continue
        {
            Row r = row("attention.project: q");
            run(
                "attention.project",
                [&](Side &s, dsv4_error *e) {
                    return s.device.attention->project(s.device.queue, s.batch, s.block, s.cache, s.x, s.q, s.qr, e);
                },
                r);
            settle(r, compare(&Side::q, DSV4_BUFFER_QUERY), tolerance(n, Kind::dense));
            settle(row("attention.project: qr"), compare(&Side::qr, DSV4_BUFFER_QUERY_LORA), tolerance(n, Kind::dense));
            settle(row("attention.project: window"),
                   nmse(written(a, c, g, ratio, length, DSV4_CACHE_WINDOW),
                        written(b, c, g, ratio, length, DSV4_CACHE_WINDOW)),
                   tolerance(n, Kind::cached));
        }
        if (ratio) {
            Row r = row("attention.compress: entries");
            run(
                "attention.compress",
                [&](Side &s, dsv4_error *e) {
                    return s.device.attention->compress(s.device.queue, s.batch, s.block, s.cache, s.x, e);
                },
                r);
            settle(r,
                   nmse(written(a, c, g, ratio, length, DSV4_CACHE_ENTRIES),
                        written(b, c, g, ratio, length, DSV4_CACHE_ENTRIES)),
                   tolerance(n, Kind::cached));
            if (ratio == 4)
                settle(row("attention.compress: keys"),
                       nmse(written(a, c, g, ratio, length, DSV4_CACHE_INDEX_KEYS),
                            written(b, c, g, ratio, length, DSV4_CACHE_INDEX_KEYS)),
                       tolerance(n, Kind::index_key));
        }
        if (ratio == 4) {
            const int32_t K = shape.index_topk, di = shape.index_dim;
            const std::vector<float> x = step.inputs(DSV4_BUFFER_HIDDEN, shape);
            write(&Side::qr, DSV4_BUFFER_QUERY_LORA, 4);
            const std::vector<float> qr = step.inputs(DSV4_BUFFER_QUERY_LORA, shape, 4);
            Row r = row("attention.select");
            run(
                "attention.select",
                [&](Side &s, dsv4_error *e) {
                    return s.device.attention->select(s.device.queue, s.batch, s.block, s.cache, s.x, s.qr, s.selection,
                                                      e);
                },
                r);
            const std::vector<float> chosen = a.device.read(a.selection, T, K),
                                     right = b.device.read(b.selection, T, K);
            std::vector<std::vector<float>> keys(static_cast<size_t>(g.desc.blocks));
            const int32_t per_block = g.desc.block_tokens / 4;
            ChoiceReport choices;
            for (int32_t t = 0; t < T; ++t) {
                std::vector<const float *> visible;
                for (int32_t e = 0; e < (step.position(t) + 1) / 4; ++e) {
                    const auto block = static_cast<size_t>(step.place(t).blocks[static_cast<size_t>(e / per_block)]);
                    if (keys[block].empty())
                        keys[block] = b.device.read_cache(b.cache, DSV4_CACHE_INDEX_KEYS, static_cast<int32_t>(block),
                                                          0, per_block, di);
                    visible.push_back(&keys[block][static_cast<size_t>(e % per_block * di)]);
                }
                const std::vector<double> scores = index_scores(
                    weights, shape, &x[static_cast<size_t>(t) * static_cast<size_t>(shape.hidden)],
                    &qr[static_cast<size_t>(t) * static_cast<size_t>(shape.q_lora)], step.position(t), visible);
                judge_selection(scores, visible, K, &chosen[static_cast<size_t>(t * K)],
                                &right[static_cast<size_t>(t * K)], choices);
            }
            r.measure = "deficit"; // of the worst choice, in deviations of the scores
            r.note = choices.broken.empty() ? "least overlap with the reference " +
                                                  std::to_string(std::lround(choices.overlap * 100)) + " %"
                                            : choices.broken;
            // The suite scores with unrounded queries; official rounds them to FP4, native may.
            const double allowed = n.candidate == DSV4_NUMERICS_EXACT ? 1e-3 : 1.0;
            settle(r, choices.broken.empty() ? choices.worst_deficit : INFINITY, allowed);
            a.device.write(a.selection, T, right); // from here on both attend to the same entries
        }
        {
            write(&Side::q, DSV4_BUFFER_QUERY, 5);
            Row r = row("attention.attend");
            run(
                "attention.attend",
                [&](Side &s, dsv4_error *e) {
                    return s.device.attention->attend(s.device.queue, s.batch, s.block, s.cache, s.q,
                                                      ratio == 4 ? s.selection.get() : nullptr, s.o, e);
                },
                r);
            settle(r, compare(&Side::o, DSV4_BUFFER_QUERY), tolerance(n, Kind::cached));
            // o may be q
            const std::vector<float> apart = a.device.read(a.o, T, buffer_width(shape, DSV4_BUFFER_QUERY));
            expect("attention.attend", [&](dsv4_error *e) {
                return a.device.attention->attend(a.device.queue, a.batch, a.block, a.cache, a.q,
                                                  ratio == 4 ? a.selection.get() : nullptr, a.q, e);
            });
            Row in_place = row("attention.attend in place");
            in_place.measure = "differing values";
            settle(in_place,
                   static_cast<double>(
                       differing_bits(apart, a.device.read(a.q, T, buffer_width(shape, DSV4_BUFFER_QUERY)))),
                   0);
        }
        if (first_ratio) {
            write(&Side::o, DSV4_BUFFER_QUERY, 6);
            Row r = row("attention.output");
            run(
                "attention.output",
                [&](Side &s, dsv4_error *e) {
                    return s.device.attention->output(s.device.queue, s.batch, s.block, s.o, s.y, e);
                },
                r);
            settle(r, compare(&Side::y, DSV4_BUFFER_HIDDEN), tolerance(n, Kind::dense));
        }
        if (first_ratio || hash) {
            const int32_t k = shape.active_experts;
            write(&Side::x, DSV4_BUFFER_HIDDEN, 7);
            const std::vector<float> x = step.inputs(DSV4_BUFFER_HIDDEN, shape, 7);
            Row r = row(hash ? "moe.route by token" : "moe.route by score");
            run(
                "moe.route",
                [&](Side &s, dsv4_error *e) {
                    return s.device.moe->route(s.device.queue, s.batch, s.block, s.x, s.route, e);
                },
                r);
            std::vector<float> chosen = a.device.read(a.route, T, 2 * k), right = b.device.read(b.route, T, 2 * k);
            ChoiceReport choices;
            std::vector<float> weight, expected;
            for (int32_t t = 0; t < T; ++t) {
                float *mine = &chosen[static_cast<size_t>(t * 2 * k)], *theirs = &right[static_cast<size_t>(t * 2 * k)];
                sort_route(mine, k);
                sort_route(theirs, k);
                std::vector<double> plain, biased;
                route_scores(weights, shape, &x[static_cast<size_t>(t) * static_cast<size_t>(shape.hidden)], plain,
                             biased);
                judge_route(biased, hash, k, mine, theirs, choices);
                if (!choices.broken.empty()) break;
                // Weights as the definition has them for whatever was chosen: a near tie does not excuse them.
                double sum = 0;
                for (int32_t i = 0; i < k; ++i) sum += plain[static_cast<size_t>(mine[i])];
                for (int32_t i = 0; i < k; ++i) {
                    weight.push_back(mine[k + i]);
                    expected.push_back(
                        static_cast<float>(plain[static_cast<size_t>(mine[i])] / sum * shape.routed_scale));
                }
            }
            r.measure = "deficit";
            r.note = choices.broken;
            settle(r, choices.broken.empty() ? choices.worst_deficit : INFINITY,
                   n.candidate == DSV4_NUMERICS_NATIVE ? 2e-2 : 1e-3);
            settle(row(hash ? "moe.route by token: weights" : "moe.route by score: weights"), nmse(weight, expected),
                   tolerance(n, Kind::plain));

            a.device.write(a.route, T, right);
            b.device.write(b.route, T, right);
            Row moe = row("moe.experts");
            run(
                "moe.experts",
                [&](Side &s, dsv4_error *e) {
                    return s.device.moe->experts(s.device.queue, s.batch, s.block, s.x, s.route, s.y, e);
                },
                moe);
            settle(moe, compare(&Side::y, DSV4_BUFFER_HIDDEN), tolerance(n, Kind::dense));
        }
        first_ratio = false;
    }
}

void Suite::ends(const Numerics &n, const Case &c) {
    const Device candidate(candidate_, choice(n.candidate));
    const Device reference(reference_, {0, n.reference, 0, ""});
    const dsv4_shape &s = c.shape;
    const double budget = c.wide ? 0.2 : 0.01;
    const Weights ends_weights = make_ends(c, options_.seed), mtp_weights = make_mtp(c, options_.seed + 1);
    const std::vector<Place> places(2);
    const Step step({{options_.seed, 0, 5, 4}, {options_.seed + 1, 1, 0, 3}}, places, s.vocab, {0, 2, 3, 6});
    const int32_t T = step.tokens(), outputs = step.view().outputs;
    const std::vector<float> streams = step.inputs(DSV4_BUFFER_STREAMS, s);

    struct Result {
        std::vector<float> embedded, logits, mtp_logits, joined;
        double embed_time = 0, head_time = 0, join_time = 0;
    };
    const auto run = [&](const Device &d, bool timed) {
        Result r;
        const Block ends = d.block(s, ends_weights.desc()), mtp = d.block(s, mtp_weights.desc());
        const Batch batch = d.batch(s, T, 2, 1);
        d.set(batch, step.view());
        const Buffer x = d.buffer(s, DSV4_BUFFER_STREAMS, T), out = d.buffer(s, DSV4_BUFFER_STREAMS, T);
        const Buffer logits = d.buffer(s, DSV4_BUFFER_LOGITS, outputs);
        const int64_t wide = buffer_width(s, DSV4_BUFFER_STREAMS);
        const auto call = [&](const char *name, const std::function<dsv4_status(dsv4_error *)> &f) {
            const auto once = [&] {
                expect(name, f);
                d.wait();
            };
            once();
            return timed ? best_time(once, budget) : 0;
        };
        r.embed_time = call("ends.embed", [&](dsv4_error *e) { return d.ends->embed(d.queue, batch, ends, out, e); });
        r.embedded = d.read(out, T, wide);
        d.write(x, T, streams);
        r.head_time =
            call("ends.head", [&](dsv4_error *e) { return d.ends->head(d.queue, batch, ends, ends, x, logits, e); });
        r.logits = d.read(logits, outputs, s.vocab);
        if (d.mtp) {
            call("ends.head", [&](dsv4_error *e) { return d.ends->head(d.queue, batch, ends, mtp, x, logits, e); });
            r.mtp_logits = d.read(logits, outputs, s.vocab);
            r.join_time =
                call("mtp.join", [&](dsv4_error *e) { return d.mtp->join(d.queue, batch, ends, mtp, x, out, e); });
            r.joined = d.read(out, T, wide);
        }
        return r;
    };
    const Result a = run(candidate, true), b = run(reference, false);
    const auto settle = [&](const char *op, double error, double allowed, double seconds, int32_t rows) {
        Row r;
        r.check = "operator", r.op = op, r.shape = c.name + " T=" + std::to_string(rows), r.numerics = n.label;
        r.measure = "nmse", r.error = error, r.tolerance = allowed;
        r.verdict = error <= allowed ? Verdict::pass : Verdict::fail;
        r.seconds = seconds;
        r.rows_per_second = seconds > 0 ? rows / seconds : 0;
        report(std::move(r));
    };
    settle("ends.embed", nmse(a.embedded, b.embedded), tolerance(n, Kind::copy), a.embed_time, T);
    settle("ends.head", nmse(a.logits, b.logits), tolerance(n, Kind::plain), a.head_time, outputs);
    if (candidate.mtp && reference.mtp) {
        settle("ends.head of MTP", nmse(a.mtp_logits, b.mtp_logits), tolerance(n, Kind::plain), 0, outputs);
        settle("mtp.join", nmse(a.joined, b.joined), tolerance(n, Kind::dense), a.join_time, T);
    } else {
        Row r;
        r.check = "operator", r.op = "mtp.join", r.shape = c.name, r.numerics = n.label;
        r.verdict = Verdict::skipped;
        r.note = "DSV4_FAMILY_MTP is not offered: MTP blocks will not be run";
        report(std::move(r));
    }
}

} // namespace dsv4::conformance
