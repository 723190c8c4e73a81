// Weights that a backend makes from a description: bit for bit what it computes with the bytes that dsv4_backend.h says
// they are, written out here once more, a byte or an element at a time.
#include "checks.hpp"
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <numeric>

namespace dsv4::conformance {
namespace {

uint64_t splitmix(uint64_t seed, uint64_t i) {
    uint64_t z = seed + 0x9E3779B97F4A7C15u * (i + 1);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

uint8_t byte_of(uint64_t seed, size_t i) { return static_cast<uint8_t>(splitmix(seed, i / 8) >> (8 * (i % 8))); }

std::vector<uint8_t> data_bytes(const dsv4_tensor &t) {
    const dsv4_random &r = t.random;
    std::vector<uint8_t> out(t.bytes);
    if (r.kind == DSV4_RANDOM_CODES) {
        for (size_t i = 0; i < out.size(); ++i) {
            out[i] = byte_of(r.seed, i);
            if (t.dtype == DSV4_FP8_E4M3 && (out[i] == 0x7F || out[i] == 0xFF)) --out[i];
        }
        return out;
    }
    const size_t count = static_cast<size_t>(t.shape[0] * t.shape[1]), width = out.size() / count;
    for (size_t i = 0; i < count; ++i) {
        uint64_t bits = 0;
        if (r.kind == DSV4_RANDOM_ROWS) {
            const auto k = static_cast<uint64_t>(t.shape[1]), range = static_cast<uint64_t>(r.range);
            const uint64_t first = (splitmix(r.seed, i / k) >> 32) * range >> 32;
            bits = (first + i % k * std::max<uint64_t>(1, range / k)) % range;
        } else {
            const uint64_t n = splitmix(r.seed, i);
            const auto sum = static_cast<double>((n & 65535) + ((n >> 16) & 65535) + ((n >> 32) & 65535));
            const auto value = static_cast<float>(r.mean + r.deviation * ((2 * sum - 196605) / 65536));
            bits = std::bit_cast<uint32_t>(t.dtype == DSV4_BF16 ? round_to_bf16(value) : value);
            if (t.dtype == DSV4_BF16) bits >>= 16;
        }
        std::memcpy(&out[i * width], &bits, width); // the lowest bytes first
    }
    return out;
}

std::vector<uint8_t> scale_bytes(const dsv4_tensor &t) {
    std::vector<uint8_t> out(t.scale_bytes);
    for (size_t i = 0; i < out.size(); ++i)
        out[i] = static_cast<uint8_t>(t.random.scale_low + byte_of(~t.random.seed, i) * t.random.scale_range / 256);
    return out;
}

/// The same weights with bytes in place of descriptions.
Weights written_out(const Weights &described) {
    Weights w;
    w.tensors = described.tensors, w.rope = described.rope;
    w.kind = described.kind, w.index = described.index, w.ratio = described.ratio;
    for (dsv4_tensor &t : w.tensors) {
        if (t.data) continue; // the other's memory
        w.memory.push_back(data_bytes(t));
        t.data = w.memory.back().data();
        if (t.scale_dtype) {
            w.memory.push_back(scale_bytes(t));
            t.scale = w.memory.back().data();
        }
        t.random = {};
    }
    return w;
}

/// Values that differ, or are none: two NaN would be alike whatever they came from.
double differing(const std::vector<float> &right, const std::vector<float> &ours) {
    const auto none = std::count_if(right.begin(), right.end(), [](float v) { return !std::isfinite(v); });
    return static_cast<double>(differing_bits(right, ours)) + static_cast<double>(none);
}

} // namespace

void Suite::random_weights(const Case &c) {
    const Device d(candidate_, choice(DSV4_NUMERICS_DEFAULT));
    const dsv4_shape &s = c.shape;
    const auto row = [&](const std::string &op) {
        Row r;
        r.check = "contract", r.op = op, r.shape = c.name, r.numerics = "default", r.measure = "differing values";
        return r;
    };
    if (!d.claims(DSV4_CAP_RANDOM_WEIGHTS)) {
        Row r = row("random weights");
        r.verdict = Verdict::skipped;
        r.note = "DSV4_CAP_RANDOM_WEIGHTS is not claimed";
        return report(std::move(r));
    }
    const auto settle = [&](const std::string &op, double error, const std::string &note = "") {
        Row r = row("random weights: " + op);
        r.error = error, r.note = note;
        r.verdict = error > 0 ? Verdict::fail : Verdict::pass;
        report(std::move(r));
    };

    // A layer that routes by token id, with everything a layer can have, and one that routes by score.
    for (const bool hash : {true, false}) {
        const int32_t ratio = hash ? 4 : 0, length = 20;
        const Weights described = make_layer(c, ratio, hash, options_.seed + 80, true), bytes = written_out(described);
        const Geometry g = scattered(c, ratio, {length}, s.window + length, 0, 2);
        const Schedule schedule = in_chunks({{options_.seed + 5, 0, 0, length}}, length);
        Trace right, ours;
        LayerProgram given(d, c, bytes, g, length), made(d, c, described, g, length);
        given.run(schedule, right);
        made.run(schedule, ours);
        double off = differing(given.visible_cache(g.places[0], length), made.visible_cache(g.places[0], length));
        for (const auto &[key, rows] : right)
            for (size_t stage = 0; stage < stage_count; ++stage) off += differing(rows[stage], ours.at(key)[stage]);
        settle(hash ? "layer by token id" : "layer by score", off);

        uint64_t least = 0, sizes[2] = {};
        for (const dsv4_tensor &t : described.tensors)
            if (!t.data && t.expert >= 0) least += t.bytes + t.scale_bytes;
        const dsv4_block_desc desc = described.desc();
        expect("block_bytes",
               [&](dsv4_error *e) { return d.model->block_bytes(d.device, &s, &desc, &sizes[0], &sizes[1], e); });
        if (sizes[0] + sizes[1] < least) settle("block_bytes", 1, "leaves out what the backend makes");
    }

    {
        const Weights described = make_ends(c, options_.seed + 81, true), bytes = written_out(described);
        constexpr int32_t T = 9;
        const std::vector<Place> places(1);
        std::vector<int32_t> outputs(T);
        std::iota(outputs.begin(), outputs.end(), 0);
        const Step step({{options_.seed, 0, 0, T}}, places, s.vocab, outputs);
        const Batch batch = d.batch(s, T, 1, 1);
        d.set(batch, step.view());
        const auto run = [&](const Weights &w) {
            const Block ends = d.block(s, w.desc());
            const Buffer x = d.buffer(s, DSV4_BUFFER_STREAMS, T), logits = d.buffer(s, DSV4_BUFFER_LOGITS, T);
            expect("ends.embed", [&](dsv4_error *e) { return d.ends->embed(d.queue, batch, ends, x, e); });
            expect("ends.head", [&](dsv4_error *e) { return d.ends->head(d.queue, batch, ends, ends, x, logits, e); });
            return d.read(logits, T, s.vocab);
        };
        settle("ends", differing(run(bytes), run(described)));
    }

    {
        // Routed experts in host memory, where the backend has them there.
        const Weights described = make_layer(c, 0, false, options_.seed + 82, true), bytes = written_out(described);
        const std::vector<Place> places(1);
        const Step step({{options_.seed, 0, 0, 6}}, places, s.vocab);
        const int32_t T = step.tokens();
        const Batch batch = d.batch(s, T, 1, 1);
        d.set(batch, step.view());
        const auto run = [&](const Weights &w) {
            dsv4_block_desc desc = w.desc();
            desc.expert_tier = DSV4_TIER_HOST;
            const Block block = d.block(s, desc);
            return moe_output(d, s, batch, step, block);
        };
        try {
            settle("experts in host memory", differing(run(bytes), run(described)));
        } catch (const CallFailed &e) {
            if (e.status != DSV4_E_UNSUPPORTED) throw;
            Row r = row("random weights: experts in host memory");
            r.verdict = Verdict::skipped, r.note = e.what();
            report(std::move(r));
        }
    }

    // What is no description is refused, and nothing is made of it.
    double taken = 0;
    std::string which;
    const auto refused = [&](const char *what, const auto &change) {
        Weights wrong = make_ends(c, options_.seed + 81, true);
        for (dsv4_tensor &t : wrong.tensors)
            if (t.role == DSV4_ROLE_HC_HEAD_FN) change(t);
        const dsv4_block_desc desc = wrong.desc();
        dsv4_block *out = nullptr;
        dsv4_error err;
        DSV4_INIT(err);
        if (d.model->block_create(d.device, &s, &desc, &out, &err) < 0 && err.message[0]) return;
        if (out) d.model->block_release(out);
        taken += 1;
        which += (which.empty() ? "" : "; ") + std::string(what);
    };
    refused("neither data nor a description", [](dsv4_tensor &t) { t.random = {}; });
    refused("codes of float32", [](dsv4_tensor &t) { t.random.kind = DSV4_RANDOM_CODES; });
    refused("a kind of a newer core", [](dsv4_tensor &t) { t.random.kind = 1000; });
    settle("no descriptions", taken, which);
}

} // namespace dsv4::conformance
