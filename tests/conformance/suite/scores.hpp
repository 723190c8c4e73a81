// Whether a set of chosen entries or experts is one that a right implementation may choose: the suite's own scores, in
// double precision on dequantized weights.
#pragma once
#include "driver.hpp"
#include "program.hpp"
#include <string>
#include <vector>

namespace dsv4::conformance {

struct ChoiceReport {
    double worst_deficit = 0; // by how much a chosen one scores below the last that should be, in standard deviations
    double overlap = 1;       // share of the choices that the reference made too
    std::string broken;       // not a valid choice at all: a duplicate, an invisible entry, a wrong count, a lost tie
};

/// Indexer scores of one token over `visible` entries. qr [q_lora], x [D], key(i) the cached key of entry i.
std::vector<double> index_scores(const Weights &w, const dsv4_shape &s, const float *x, const float *qr,
                                 int32_t position, const std::vector<const float *> &keys);

/// chosen and reference: rows of a SELECTION buffer. Equal keys (the same pointer) must go to the smaller index.
void judge_selection(const std::vector<double> &scores, const std::vector<const float *> &keys, int32_t k,
                     const float *chosen, const float *reference, ChoiceReport &report);

/// Router scores: s without bias, and with it.
void route_scores(const Weights &w, const dsv4_shape &s, const float *x, std::vector<double> &plain,
                  std::vector<double> &biased);

/// chosen and reference: rows of a ROUTE buffer. hash: the set is given by the token id, so it must be equal.
void judge_route(const std::vector<double> &biased, bool hash, int32_t k, const float *chosen, const float *reference,
                 ChoiceReport &report);

} // namespace dsv4::conformance
