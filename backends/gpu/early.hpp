// The products that compress and select begin with. In small steps project does them (dsv4_queue::Early): those of the
// layer's input in the launch that has its own, those of the query latent before the product that takes all of the
// card. What is left of compress and select is short, and finds room beside that.
#pragma once
#include "backends/gpu/linear.hpp"
#include "backends/gpu/ops.hpp"

namespace dsv4::gpu {

struct EarlyProducts {
    Product products[4];
    int count;
};

/// Of x: values and scores of the entries' compressor and, with r = 4, of the keys'. Their outputs [T, channels] take
/// `count` slots from `first`.
inline EarlyProducts compress_products(dsv4_queue &queue, Scratch first, const dsv4_block &block, const float *x,
                                       size_t tokens) {
    static constexpr int32_t roles[4] = {DSV4_ROLE_COMP_WKV, DSV4_ROLE_COMP_WGATE, DSV4_ROLE_INDEX_COMP_WKV,
                                         DSV4_ROLE_INDEX_COMP_WGATE};
    EarlyProducts p = {};
    p.count = block.ratio == 4 ? 4 : 2;
    for (int i = 0; i < p.count; ++i) {
        const Matrix &m = block.matrix(roles[i]);
        p.products[i] = whole(m, x, queue.scratch<float>(Scratch(first + i), tokens * size_t(m.rows)));
        p.products[i].unrounded = p.products[i].keep_output = true; // float32 up to the pooled value
    }
    return p;
}

/// Queries [T, Hi, di] of qr, and their weights [T, Hi] of x. Two slots from `first`.
inline EarlyProducts index_products(dsv4_queue &queue, Scratch first, const dsv4_block &block, const float *x,
                                    const float *qr, size_t tokens) {
    const Matrix &queries = block.matrix(DSV4_ROLE_INDEX_WQ_B), &weights = block.matrix(DSV4_ROLE_INDEX_WEIGHTS);
    EarlyProducts p = {};
    p.count = 2;
    p.products[0] = whole(queries, qr, queue.scratch<float>(first, tokens * size_t(queries.rows)));
    p.products[1] = whole(weights, x, queue.scratch<float>(Scratch(first + 1), tokens * size_t(weights.rows)));
    return p;
}

} // namespace dsv4::gpu
