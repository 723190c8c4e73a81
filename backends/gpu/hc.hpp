// Manifold-constrained hyper-connections, the part that a layer and the head share: streams to one row.
#pragma once
#include "backends/gpu/objects.hpp"

namespace dsv4::gpu {

struct Collapse {
    Matrix fn;                        // [mixes, M*D]
    const float *base, *scale, *norm; // [mixes], [3 or 1], [D]
    float *streams;                   // [T, M, D]
    const int32_t *gather;            // row -> token; NULL: the same
    float *x;                         // [rows, D]: rmsnorm of the collapsed streams
    float *mix;                       // [rows, M + M*M]: post, comb; NULL: the head has none
    int32_t streams_count, hidden, sinkhorn_iters;
    float rms_eps, hc_eps;
    bool official;
    // Streams that an expansion is still due to (post): what it adds, its weights and a copy of these; NULL: none.
    const float *y = nullptr, *due = nullptr;
    float *due_copy = nullptr;
};

/// Two launches; uses the scratch slot PARTIAL_2, and `due_copy`.
void collapse_streams(dsv4_queue &queue, const Rows &rows, const Collapse &work);

} // namespace dsv4::gpu
