// The conformance suite: every operator of a plugin against the reference backend, through the plugin ABI alone.
//
// It is a library, because three programs run it: ctest, `dsv4 conformance`, and a vendor's own. It owns no plugin,
// links no backend, prints nothing, and never stops at a failure: everything it finds becomes a row.
#pragma once
#include "dsv4/dsv4_backend.h"
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace dsv4::conformance {

enum class Verdict {
    pass,
    fail,
    skipped // not offered or not claimed by the candidate; the note says which
};

struct Row {
    std::string check;    // "operator", "rows", "positions", "layer", "sample", "contract"
    std::string op;       // "attention.project: q"
    std::string shape;    // "odd-a r4 T=9"
    std::string numerics; // "exact", "official", "native vs exact"
    std::string measure;  // what `error` is: "nmse", "differing rows", "..."
    double error = 0;     // against the reference (or against the candidate itself, for "rows" and "positions")
    double tolerance = 0; // pass: error <= tolerance
    Verdict verdict = Verdict::pass;
    double seconds = 0; // of one call; 0: not timed
    double rows_per_second = 0;
    std::string note;
};

struct Options {
    uint32_t device = 0;
    int32_t threads = 0;
    std::string variant; // instruction set to force; "" = the best
    bool full = false;   // the true widths of Flash and Pro too: minutes, and about 3 GB
    uint64_t seed = 1;
    std::string only_shape;                  // "" = all
    std::string only_check;                  // of Row::check; "" = all
    std::function<void(const Row &)> on_row; // as they come
};

/// Both tables must have been checked as the loader does. Never throws for what a backend does.
std::vector<Row> run(const dsv4_backend *candidate, const dsv4_backend *reference, const Options &options);

bool passed(const std::vector<Row> &rows); // no row failed, and there are rows
std::string to_table(const std::vector<Row> &rows);
std::string to_json(const std::vector<Row> &rows);

} // namespace dsv4::conformance
