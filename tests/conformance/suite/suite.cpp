#include "suite.hpp"
#include "checks.hpp"
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <stdexcept>

namespace dsv4::conformance {

double tolerance(const Numerics &n, Kind kind) {
    if (n.candidate == DSV4_NUMERICS_EXACT) return kind == Kind::copy ? 0 : kind == Kind::layer ? 1e-6 : 1e-8;
    if (n.candidate == DSV4_NUMERICS_OFFICIAL) {
        switch (kind) {
        case Kind::copy: return 0;
        case Kind::plain: return 1e-5;
        case Kind::dense: return 1e-4;
        case Kind::cached: return 1e-3;
        case Kind::index_key: return 5e-3;
        case Kind::layer: return 3e-3;
        }
    }
    switch (kind) {
    case Kind::copy: return 1e-5;
    case Kind::plain: return 1e-4;
    case Kind::dense:
    case Kind::cached: return 5e-3;
    case Kind::index_key: return 4e-2;
    case Kind::layer: return 2e-2;
    }
    return 0;
}

double nmse(const std::vector<float> &a, const std::vector<float> &b) {
    if (a.size() != b.size() || a.empty()) return std::numeric_limits<double>::infinity();
    double difference = 0, size = 0;
    for (size_t i = 0; i < a.size(); ++i) {
        const double d = static_cast<double>(a[i]) - b[i];
        difference += d * d;
        size += static_cast<double>(b[i]) * b[i];
    }
    const double ratio = difference == 0 ? 0 : difference / size; // all-zero b with a different a: infinite
    return std::isfinite(ratio) ? ratio : std::numeric_limits<double>::infinity();
}

size_t differing_bits(const std::vector<float> &a, const std::vector<float> &b) {
    if (a.size() != b.size()) return std::max(a.size(), b.size());
    size_t count = 0;
    for (size_t i = 0; i < a.size(); ++i) count += std::bit_cast<uint32_t>(a[i]) != std::bit_cast<uint32_t>(b[i]);
    return count;
}

Schedule in_chunks(const std::vector<Span> &spans, int32_t chunk) {
    Schedule steps;
    for (int32_t done = 0;; done += chunk) {
        std::vector<Chunk> step;
        for (const Span &s : spans)
            if (s.from + done < s.to)
                step.push_back({s.content, s.place, s.from + done, std::min(chunk, s.to - s.from - done)});
        if (step.empty()) return steps;
        steps.push_back(std::move(step));
    }
}

std::vector<int32_t> lengths(const Case &c, int32_t ratio) {
    std::vector<int32_t> all = c.lengths;
    if (ratio > 4) {
        all[0] = c.wide ? ratio + 2 : 2 * ratio + 5;
        if (!c.wide) all[1] = ratio; // the token that completes an entry is the last one
    }
    return all;
}

Geometry scattered(const Case &c, int32_t ratio, const std::vector<int32_t> &lengths, int32_t window_rows,
                   int32_t state_slack, uint64_t salt) {
    Geometry g;
    DSV4_INIT(g.desc);
    const int32_t block_tokens = ratio > 4 ? ratio : salt % 2 ? 24 : 16;
    int32_t blocks = 2;
    for (int32_t length : lengths) blocks += length / block_tokens + 1;
    g.desc.block_tokens = block_tokens;
    g.desc.window_rows = std::max(window_rows, c.shape.window);
    g.desc.state_slack = state_slack;
    g.desc.slots = static_cast<int32_t>(lengths.size()) + 1;
    g.desc.blocks = blocks;
    std::vector<int32_t> slots(static_cast<size_t>(g.desc.slots)), order(static_cast<size_t>(blocks));
    std::iota(slots.begin(), slots.end(), 0);
    std::iota(order.begin(), order.end(), 0);
    Random random(salt + 99);
    const auto shuffle = [&](std::vector<int32_t> &v) {
        for (size_t i = v.size(); i > 1; --i) std::swap(v[i - 1], v[random.next() % i]);
    };
    shuffle(slots);
    shuffle(order);
    size_t next = 0;
    for (size_t s = 0; s < lengths.size(); ++s) {
        Place place;
        place.slot = slots[s];
        for (int32_t b = 0; b <= lengths[s] / block_tokens; ++b) place.blocks.push_back(order[next++]);
        g.places.push_back(std::move(place));
    }
    return g;
}

std::string describe(const Case &c, int32_t ratio, int32_t tokens) {
    std::string text = c.name + " r" + std::to_string(ratio);
    if (tokens) text += " T=" + std::to_string(tokens);
    return text;
}

double best_time(const std::function<void()> &call, double budget) {
    using Clock = std::chrono::steady_clock;
    double best = std::numeric_limits<double>::infinity(), spent = 0;
    for (int i = 0; i < 20 && spent < budget; ++i) {
        const auto start = Clock::now();
        call();
        const double took = std::chrono::duration<double>(Clock::now() - start).count();
        best = std::min(best, took);
        spent += took;
    }
    return best;
}

DeviceChoice Suite::choice(int32_t numerics, int32_t threads) const {
    return {options_.device, numerics, threads ? threads : options_.threads, options_.variant};
}

void Suite::report(Row row) {
    if (options_.on_row) options_.on_row(row);
    rows_.push_back(std::move(row));
}

void Suite::guarded(const std::string &check, const std::string &op, const std::string &shape,
                    const std::string &numerics, const std::function<void()> &part) {
    if (!options_.only_check.empty() && check != options_.only_check && numerics != "default") return;
    try {
        part();
    } catch (const std::exception &e) {
        Row row;
        row.check = check, row.op = op, row.shape = shape, row.numerics = numerics;
        row.measure = "status";
        row.error = 1;
        row.verdict = Verdict::fail;
        row.note = e.what();
        report(std::move(row));
    }
}

std::vector<Row> Suite::run() {
    std::vector<Numerics> modes;
    guarded("contract", "device_open, tables", "", "default", [&] {
        const Device device(candidate_, choice(DSV4_NUMERICS_DEFAULT));
        const dsv4_device_info info = device.info();
        capabilities_ = info.capabilities;
        Row row;
        row.check = "contract", row.op = "device_open, tables", row.numerics = "default", row.measure = "complaints";
        const auto complain = [&](const char *what) {
            row.error += 1;
            row.note += row.note.empty() ? what : std::string("; ") + what;
        };
        if (info.numerics < DSV4_NUMERICS_EXACT || info.numerics > DSV4_NUMERICS_NATIVE)
            complain("device_query does not say which numerics are in force");
        if (!std::memchr(info.name, 0, sizeof info.name) || !info.name[0])
            complain("device name empty or unterminated");
        if (!std::memchr(info.variant, 0, sizeof info.variant)) complain("variant not NUL-terminated");
        if (info.memory_total == 0 || info.memory_free > info.memory_total) complain("memory figures make no sense");
        row.verdict = row.error > 0 ? Verdict::fail : Verdict::pass;
        if (row.note.empty()) row.note = std::string(info.name) + ", " + info.variant;
        report(row);

        // Its own choice first, then whatever else it says it can do.
        const auto add = [&](int32_t numerics) {
            for (const Numerics &known : modes)
                if (known.candidate == numerics) return;
            if (numerics == DSV4_NUMERICS_EXACT) modes.push_back({numerics, DSV4_NUMERICS_EXACT, "exact"});
            else if (numerics == DSV4_NUMERICS_OFFICIAL)
                modes.push_back({numerics, DSV4_NUMERICS_OFFICIAL, "official"});
            else modes.push_back({numerics, DSV4_NUMERICS_EXACT, "native vs exact"});
        };
        add(info.numerics);
        if (device.claims(DSV4_CAP_EXACT)) add(DSV4_NUMERICS_EXACT);
        if (device.claims(DSV4_CAP_OFFICIAL)) add(DSV4_NUMERICS_OFFICIAL);
    });

    const auto every = cases(options_.full);
    if (!options_.only_shape.empty() &&
        std::none_of(every.begin(), every.end(), [&](const Case &c) { return options_.only_shape == c.name; }))
        guarded("contract", "shape", options_.only_shape, "default", [&] {
            throw std::runtime_error("no shape of that name; --full adds the wide ones");
        });
    for (const Case &c : every) {
        if (!options_.only_shape.empty() && options_.only_shape != c.name) continue;
        if (modes.empty()) break;
        if (!c.wide) {
            guarded("contract", "memory", c.name, "default", [&] { memory(c); });
            guarded("contract", "bad calls", c.name, "default", [&] { contract(c); });
            guarded("contract", "random weights", c.name, "default", [&] { random_weights(c); });
        }
        if (c.name != "pro") guarded("sample", "sample", c.name, "all", [&] { sampling(c); });
        for (const Numerics &numerics : modes) {
            guarded("operator", "ends", c.name, numerics.label, [&] { ends(numerics, c); });
            guarded("operator", "layer operators", c.name, numerics.label, [&] { operators(numerics, c); });
            if (c.wide) continue;
            guarded("rows", "ends", c.name, numerics.label, [&] { ends_rows(numerics, c); });
            guarded("contract", "expert residency", c.name, numerics.label, [&] { residency(numerics, c); });
            for (int32_t ratio : c.ratios) {
                const std::string shape = describe(c, ratio);
                guarded("layer", "layer", shape, numerics.label, [&] { layer(numerics, c, ratio); });
                guarded("rows", "layer", shape, numerics.label, [&] { row_independence(numerics, c, ratio); });
                guarded("positions", "layer", shape, numerics.label, [&] { positions(numerics, c, ratio); });
                if (c.name == "small")
                    guarded("operator", "long positions", shape, numerics.label,
                            [&] { long_positions(numerics, c, ratio); });
            }
        }
    }
    return std::move(rows_);
}

std::vector<Row> run(const dsv4_backend *candidate, const dsv4_backend *reference, const Options &options) {
    return Suite(candidate, reference, options).run();
}

} // namespace dsv4::conformance
