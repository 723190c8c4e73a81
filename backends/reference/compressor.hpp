// Gated pooling of r tokens into one cache entry (MODEL.md "CSA", "HCA"); the indexer's keys come from a second one.
#pragma once
#include "backends/reference/objects.hpp"

namespace dsv4::reference {

/// The orthonormal Hadamard transform of n = 2^m values (Sylvester order).
void hadamard(bool official, float *x, int64_t n);

dsv4_status compress(dsv4_queue *queue, const dsv4_batch *batch, const dsv4_block *block, dsv4_cache *cache,
                     const dsv4_buffer *x, dsv4_error *err);

}  // namespace dsv4::reference
