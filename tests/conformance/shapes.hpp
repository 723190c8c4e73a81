// The models that the suite makes up: Flash, Pro and odd ones.
#pragma once
#include <cstdint>
#include <string>
#include <vector>
#include "dsv4/dsv4_backend.h"

namespace dsv4::conformance {

struct Formats { // element types, DSV4_*
    int32_t dense = DSV4_FP8_E4M3;
    int32_t experts = DSV4_FP4_E2M1;
    int32_t plain = DSV4_BF16; // what published checkpoints never quantize: norms, gate, compressors, embedding, head
    int32_t dense_scale = DSV4_E8M0;
};

struct Case {
    std::string name;
    dsv4_shape shape{};
    Formats formats;
    int32_t shared_inter = 0;         // Is
    std::vector<int32_t> ratios;      // the kinds of layer to run
    std::vector<int32_t> lengths;     // of the sequences of a ratio-0 or ratio-4 run; longer ratios get one more window
    int32_t last = 0;                 // tokens of each sequence that the compared step brings
    bool wide = false;                // true width: only what a scalar reference can do in seconds
};

/// Without full: small and odd shapes, seconds in all. With it the true widths of Flash and Pro, with few experts.
std::vector<Case> cases(bool full);

} // namespace dsv4::conformance
