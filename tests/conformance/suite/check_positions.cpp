// Position addressing: rows live at addresses computed from absolute positions. Cutting a sequence back is forgetting
// its length; where its rows live, and what lay there before, does not matter. Steps are cut the same way in the runs
// that are compared, so this is asked of every backend, row-independent or not.
#include "checks.hpp"
#include <algorithm>

namespace dsv4::conformance {

void Suite::positions(const Numerics &n, const Case &c, int32_t ratio) {
    const Device device(candidate_, choice(n.candidate));
    const Weights weights = make_layer(c, ratio, false, options_.seed + 40);
    constexpr int32_t chunk = 5, slack = 3;
    const std::vector<int32_t> length = [&] {
        std::vector<int32_t> l = lengths(c, ratio);
        if (ratio <= 4) l[0] = std::min(l[0], 70);
        return l;
    }();
    const auto sequences = static_cast<int32_t>(length.size());
    std::vector<Span> spans;
    for (int32_t s = 0; s < sequences; ++s)
        spans.push_back({options_.seed * 91 + static_cast<Content>(s), s, 0, length[static_cast<size_t>(s)]});
    const Schedule schedule = in_chunks(spans, chunk);
    const int32_t longest = *std::max_element(length.begin(), length.end());
    const int32_t tokens = chunk * sequences;

    struct Outcome {
        Trace trace;
        std::vector<std::vector<float>> caches;
    };
    const auto finish = [&](LayerProgram &program, const Geometry &g, Outcome &out) {
        for (int32_t s = 0; s < sequences; ++s)
            out.caches.push_back(
                program.visible_cache(g.places[static_cast<size_t>(s)], length[static_cast<size_t>(s)]));
    };
    // Rings larger than the sequences: nothing ever wraps.
    const Geometry roomy = scattered(c, ratio, length, longest + 8, longest + 8, 20);
    Outcome right;
    {
        LayerProgram program(device, c, weights, roomy, tokens);
        program.run(schedule, right.trace);
        finish(program, roomy, right);
    }
    const auto settle = [&](const char *op, const Outcome &got) {
        size_t wrong = 0, first_stage = stage_count;
        for (const auto &[key, rows] : right.trace) {
            const auto found = got.trace.find(key);
            bool differs = found == got.trace.end();
            for (size_t stage = 0; !differs && stage < stage_count; ++stage)
                if (differing_bits(rows[stage], found->second[stage])) {
                    differs = true;
                    first_stage = std::min(first_stage, stage);
                }
            wrong += differs;
        }
        size_t values = 0;
        for (size_t s = 0; s < right.caches.size(); ++s) values += differing_bits(right.caches[s], got.caches[s]);
        Row r;
        r.check = "positions", r.op = op, r.shape = describe(c, ratio), r.numerics = n.label;
        r.measure = "differing tokens", r.error = static_cast<double>(wrong);
        r.verdict = wrong || values ? Verdict::fail : Verdict::pass;
        if (first_stage < stage_count) r.note = std::string("first in ") + stage_name(static_cast<int>(first_stage));
        if (values) r.note += (r.note.empty() ? "" : "; ") + std::to_string(values) + " cache values differ";
        report(std::move(r));
    };

    const int32_t tight = c.shape.window - 1 + chunk;
    {
        // The smallest rings allowed, so that they wrap many times; other slots and blocks.
        const Geometry g = scattered(c, ratio, length, tight, 0, 21);
        LayerProgram program(device, c, weights, g, tokens);
        Outcome got;
        program.run(schedule, got.trace);
        finish(program, g, got);
        settle("rings wrap around", got);
    }
    {
        // The same slots and blocks after longer sequences lived there.
        const std::vector<int32_t> all_long(length.size(), longest);
        const Geometry g = scattered(c, ratio, all_long, tight, 0, 22);
        LayerProgram program(device, c, weights, g, tokens);
        Outcome got;
        Trace ignored;
        std::vector<Span> before;
        for (int32_t s = 0; s < sequences; ++s)
            before.push_back({options_.seed + 500 + static_cast<Content>(s), s, 0, longest});
        program.run(in_chunks(before, chunk), ignored);
        program.run(schedule, got.trace);
        finish(program, g, got);
        settle("slots and blocks used before", got);
    }
    {
        // Rejected drafts: before every real step, up to `slack` tokens of something else come and are cut off again.
        const Geometry g = scattered(c, ratio, length, tight + slack, slack, 23);
        LayerProgram program(device, c, weights, g, tokens);
        Outcome got;
        int32_t turn = 0;
        for (const auto &step : schedule) {
            std::vector<Chunk> rejected;
            for (const Chunk &chunk_of : step) {
                const Place &place = g.places[static_cast<size_t>(chunk_of.place)];
                const auto room = static_cast<int32_t>(place.blocks.size()) * g.desc.block_tokens - chunk_of.first;
                const int32_t count = std::min(turn++ % slack + 1, room);
                if (count > 0) rejected.push_back({options_.seed + 700, chunk_of.place, chunk_of.first, count});
            }
            Trace ignored;
            if (!rejected.empty()) program.run({rejected}, ignored);
            program.run({step}, got.trace);
        }
        finish(program, g, got);
        settle("cut back and go on", got);
    }
    {
        // Everything again on top of itself: every write goes where it went, so nothing changes.
        const Geometry g = scattered(c, ratio, length, longest + 8, longest + 8, 24);
        LayerProgram program(device, c, weights, g, tokens);
        Outcome got;
        program.run(schedule, got.trace);
        got.trace.clear();
        program.run(schedule, got.trace);
        finish(program, g, got);
        settle("the same tokens again", got);
    }
}

} // namespace dsv4::conformance
