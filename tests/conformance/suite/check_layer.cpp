// A whole layer, as the core composes it from the parts and, where offered, as FAMILY_LAYER does it in one call.
#include "checks.hpp"
#include <algorithm>
#include <cmath>

namespace dsv4::conformance {
namespace {

/// The same indices, whatever their order was; of a route the weights may differ.
bool same_choice(const std::vector<float> &a, const std::vector<float> &b, size_t count) {
    return a.size() == b.size() &&
           std::equal(a.begin(), a.begin() + static_cast<std::ptrdiff_t>(std::min(count, a.size())), b.begin());
}

} // namespace

void Suite::layer(const Numerics &n, const Case &c, int32_t ratio) {
    const Device candidate(candidate_, choice(n.candidate));
    const Device reference(reference_, {0, n.reference, 0, ""});
    const Weights weights = make_layer(c, ratio, false, options_.seed + 20);
    const std::vector<int32_t> length = lengths(c, ratio);
    constexpr int32_t chunk = 40;
    const auto sequences = static_cast<int32_t>(length.size());
    const Geometry g = scattered(c, ratio, length, c.shape.window - 1 + chunk, 0, 3);
    std::vector<Span> spans;
    for (int32_t s = 0; s < sequences; ++s)
        spans.push_back({options_.seed * 31 + static_cast<Content>(s), s, 0, length[static_cast<size_t>(s)]});
    const Schedule schedule = in_chunks(spans, chunk);

    Trace right, parts;
    LayerProgram(reference, c, weights, g, chunk * sequences).run(schedule, right);
    LayerProgram(candidate, c, weights, g, chunk * sequences).run(schedule, parts);

    // Where a near tie fell to another expert or entry the streams differ for a good reason (the choices themselves are
    // judged by their scores in the operator rows). All other tokens must agree, and they must be most.
    const auto settle = [&](const char *op, const Trace &ours, bool choices_known) {
        std::vector<float> a, b;
        size_t other_choice = 0, off = 0;
        const double allowed = tolerance(n, Kind::layer);
        for (const auto &[key, expected] : right) {
            const TokenRows &mine = parts.at(key), &measured = ours.at(key);
            const bool same = same_choice(mine[SELECT], expected[SELECT], expected[SELECT].size()) &&
                              same_choice(mine[ROUTE], expected[ROUTE], static_cast<size_t>(c.shape.active_experts));
            const double error = nmse(measured[LAYER_STREAMS], expected[LAYER_STREAMS]);
            if (!same) ++other_choice;
            if (same && error > 20 * allowed) ++off; // a token of its own kind of wrong must not drown in a mean
            if (!same && (choices_known || error > allowed)) continue;
            a.insert(a.end(), measured[LAYER_STREAMS].begin(), measured[LAYER_STREAMS].end());
            b.insert(b.end(), expected[LAYER_STREAMS].begin(), expected[LAYER_STREAMS].end());
        }
        const double flips = static_cast<double>(other_choice) / static_cast<double>(right.size());
        const double most = n.candidate == DSV4_NUMERICS_EXACT      ? 0.02
                            : n.candidate == DSV4_NUMERICS_OFFICIAL ? 0.3
                                                                    : 0.8;
        Row r;
        r.check = "layer", r.op = op, r.shape = describe(c, ratio, static_cast<int32_t>(right.size()));
        r.numerics = n.label, r.measure = "nmse", r.tolerance = allowed;
        r.error = nmse(a, b);
        r.verdict = r.error <= allowed && off == 0 && flips <= most ? Verdict::pass : Verdict::fail;
        r.note = std::to_string(other_choice) + " tokens with another choice";
        if (off) r.note += "; " + std::to_string(off) + " with the same choices are far off";
        report(std::move(r));
    };
    settle("layer from parts", parts, true);
    unread(n, c, ratio, candidate, weights, length);

    if (!candidate.layer) {
        Row r;
        r.check = "layer", r.op = "layer fused", r.shape = describe(c, ratio), r.numerics = n.label;
        r.verdict = Verdict::skipped;
        r.note = "DSV4_FAMILY_LAYER is not offered";
        return report(std::move(r));
    }
    Trace fused;
    LayerProgram(candidate, c, weights, g, chunk * sequences).run_fused(schedule, fused);
    settle("layer fused", fused, false);
}

/// A backend may do the end of one operator with the beginning of the next, as long as nobody can tell: prompts, then
/// single tokens of all sequences, the operators' outputs read between them or not.
void Suite::unread(const Numerics &n, const Case &c, int32_t ratio, const Device &device, const Weights &weights,
                   const std::vector<int32_t> &length) {
    constexpr int32_t chunk = 40, last = 3;
    const auto sequences = static_cast<int32_t>(length.size());
    const Geometry g = scattered(c, ratio, length, c.shape.window - 1 + chunk, 0, 3);
    std::vector<Span> prompts, ends;
    for (int32_t s = 0; s < sequences; ++s) {
        const int32_t all = length[static_cast<size_t>(s)], prompt = std::max(1, all - last);
        const Content content = options_.seed * 37 + static_cast<Content>(s);
        prompts.push_back({content, s, 0, prompt});
        if (prompt < all) ends.push_back({content, s, prompt, all});
    }
    Schedule schedule = in_chunks(prompts, chunk);
    for (auto &step : in_chunks(ends, 1)) schedule.push_back(std::move(step));
    Trace read, never;
    LayerProgram(device, c, weights, g, chunk * sequences).run(schedule, read);
    LayerProgram(device, c, weights, g, chunk * sequences).run_unread(schedule, never);
    size_t differing = 0;
    for (const auto &[key, rows] : read)
        if (const auto found = never.find(key);
            found == never.end() || found->second[LAYER_STREAMS] != rows[LAYER_STREAMS])
            ++differing;
    Row r;
    r.check = "layer", r.op = "layer unread", r.shape = describe(c, ratio, static_cast<int32_t>(read.size()));
    r.numerics = n.label, r.measure = "differing tokens", r.error = static_cast<double>(differing);
    r.verdict = !differing ? Verdict::pass : Verdict::fail;
    report(std::move(r));
}

} // namespace dsv4::conformance
