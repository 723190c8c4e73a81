// The parts of mHC that the head shares with the layers.
#pragma once
#include "backends/reference/objects.hpp"

namespace dsv4::reference {

/// x = sum_j weight_j X_j, streams [M, D] -> x [D]
void collapse(bool official, const float *streams, const float *weight, int32_t M, int32_t D, float *x);

/// hc_head of the ends or of an MTP block: streams [M, D] -> x [D]
void head_collapse(const dsv4_block &block, const float *streams, float *x);

}  // namespace dsv4::reference
