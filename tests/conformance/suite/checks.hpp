// What the parts of the suite share: numerics pairs, tolerances, comparisons, and the parts themselves.
#pragma once
#include "driver.hpp"
#include "program.hpp"
#include "suite.hpp"
#include <chrono>
#include <functional>
#include <string>
#include <vector>

namespace dsv4::conformance {

/// Which mode of the candidate is compared with which of the reference.
struct Numerics {
    int32_t candidate = DSV4_NUMERICS_EXACT, reference = DSV4_NUMERICS_EXACT;
    std::string label;
};

/// How far apart two right implementations may be, as NMSE. Measured reasons:
///   exact     float32 sums in another order: 1e-12; a fast exp adds 1e-12. 1e-8 is four digits.
///   official  the same, until a bf16, FP8 or FP4 rounding falls to the other side.
///   native    against exact: bf16 activations 3e-6 each; FP8 activations into a matrix product, which a backend may
///             use and say so, 7e-4 each; FP8 cache rows 7e-4; FP4 indexer keys 1.5e-2.
enum class Kind { copy, plain, dense, cached, index_key, layer };
double tolerance(const Numerics &numerics, Kind kind);

/// sum (a - b)^2 / sum b^2; infinite when a is not finite where b is.
double nmse(const std::vector<float> &a, const std::vector<float> &b);
/// Elements whose bits differ.
size_t differing_bits(const std::vector<float> &a, const std::vector<float> &b);

class Suite {
  public:
    Suite(const dsv4_backend *candidate, const dsv4_backend *reference, const Options &options)
        : candidate_(candidate), reference_(reference), options_(options) {}
    std::vector<Row> run();

  private:
    // check_operators.cpp
    void operators(const Numerics &numerics, const Case &c);
    void ends(const Numerics &numerics, const Case &c);
    // check_long.cpp
    void long_positions(const Numerics &numerics, const Case &c, int32_t ratio);
    // check_layer.cpp
    void layer(const Numerics &numerics, const Case &c, int32_t ratio);
    void unread(const Numerics &numerics, const Case &c, int32_t ratio, const Device &device, const Weights &weights,
                const std::vector<int32_t> &length);
    // check_rows.cpp
    void row_independence(const Numerics &numerics, const Case &c, int32_t ratio);
    void ends_rows(const Numerics &numerics, const Case &c);
    // check_positions.cpp
    void positions(const Numerics &numerics, const Case &c, int32_t ratio);
    // check_sample.cpp
    void sampling(const Case &c);
    // check_contract.cpp
    void contract(const Case &c);
    void memory(const Case &c);
    void residency(const Numerics &numerics, const Case &c);
    // check_random.cpp
    void random_weights(const Case &c);

    DeviceChoice choice(int32_t numerics, int32_t threads = 0) const;
    void report(Row row);
    /// Runs a part; what it throws becomes a failed row of that name.
    void guarded(const std::string &check, const std::string &op, const std::string &shape, const std::string &numerics,
                 const std::function<void()> &part);

    const dsv4_backend *candidate_, *reference_;
    const Options &options_;
    uint32_t capabilities_ = 0;
    std::vector<Row> rows_;
};

/// A sequence of a made-up run.
struct Span {
    Content content;
    int32_t place, from, to;
};
/// Steps that bring every span up to `chunk` tokens at a time, until all are done.
Schedule in_chunks(const std::vector<Span> &spans, int32_t chunk);

/// Sequence lengths for a layer of this ratio: past several windows, at a boundary, shorter than one.
std::vector<int32_t> lengths(const Case &c, int32_t ratio);

/// Scattered: slots and blocks in no order, with spare ones between; `salt` changes which.
Geometry scattered(const Case &c, int32_t ratio, const std::vector<int32_t> &lengths, int32_t window_rows,
                   int32_t state_slack, uint64_t salt);

/// "odd-a r4": with the tokens of the step where there is one.
std::string describe(const Case &c, int32_t ratio, int32_t tokens = 0);

/// Seconds of the best call of a few.
double best_time(const std::function<void()> &call, double budget);

} // namespace dsv4::conformance
