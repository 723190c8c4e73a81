// Which experts a token goes to, and with what weights (MODEL.md "MoE").
#include "backends/gpu/formats.hpp"
#include "backends/gpu/linear.hpp"
#include "backends/gpu/ops.hpp"

namespace dsv4::gpu {
namespace {

struct Route {
    StepView step;
    const float *logits, *rest; // [T, E]; what x's rounding to bf16 left out, or NULL
    const float *bias;          // [E], NULL: by token id
    const int32_t *by_token;    // [V, k]
    float *route;               // [T, 2k]
    int32_t experts, active, vocab;
    float scale;
};

/// A subgroup takes a token. Grid: tokens / 4.
__global__ void __launch_bounds__(128) route_kernel(Route a) {
    enter_kernel();
    const int subgroup = subgroup_of_block(), lane = lane_of_subgroup(), E = a.experts, k = a.active;
    const auto t = int32_t(blockIdx.x) * 4 + subgroup;
    if (t >= a.step.tokens()) return; // a whole subgroup
    float *score = dynamic_shared<float>() + subgroup * 2 * E, *rank = score + E;
    for (int e = lane; e < E; e += subgroup_size) {
        float x = a.logits[int64_t(t) * E + e];
        if (a.rest) x += a.rest[int64_t(t) * E + e];
        score[e] = sqrtf(x > 20.0f ? x : log1pf(expf(x)));
        rank[e] = a.bias ? score[e] + a.bias[e] : 0.0f; // the bias selects, never weighs
    }
    sync_subgroup();
    auto *chosen = reinterpret_cast<int32_t *>(a.route + int64_t(t) * 2 * k);
    float *weight = a.route + int64_t(t) * 2 * k + k, sum = 0;
    const int32_t *given = a.by_token ? a.by_token + int64_t(min(max(a.step.token[t], 0), a.vocab - 1)) * k : nullptr;
    for (int i = 0; i < k; ++i) {
        int best = given ? given[i] : E;
        if (!given) {
            float top = -INFINITY;
            for (int e = lane; e < E; e += subgroup_size)
                if (best == E || rank[e] > top) best = e, top = rank[e];
            for (int mask = 16; mask; mask /= 2) {
                const float other_top = shuffle_xor(top, mask);
                const int other = shuffle_xor(best, mask);
                if (other < E && (best == E || other_top > top || (other_top == top && other < best)))
                    best = other, top = other_top;
            }
            if (lane == best % subgroup_size) rank[best] = -INFINITY;
            sync_subgroup();
        }
        sum += score[best];
        if (lane == 0) chosen[i] = best, weight[i] = score[best];
    }
    sync_subgroup();
    if (lane == 0)
        for (int i = 0; i < k; ++i) weight[i] = weight[i] / sum * a.scale;
}

} // namespace

dsv4_status moe_route(dsv4_queue *queue, const dsv4_batch *batch, const dsv4_block *block, const dsv4_buffer *x,
                      dsv4_buffer *route, dsv4_error *err) {
    return on_device(err, *queue, [&] {
        const dsv4_shape &s = block->shape;
        const int32_t E = s.experts, tokens = batch->grid_tokens;
        if (!tokens) return;
        // A rounding here can change the choice of experts: x is float32, or two bf16 on the matrix units.
        const Matrix &gate = block->matrix(DSV4_ROLE_GATE);
        const bool parts = queue->device.native() && takes_matrix_units(gate);
        const size_t count = size_t(tokens) * size_t(E);
        auto *logits = queue->scratch<float>(SCRATCH_A, parts ? 2 * count : count);
        Product products[2] = {whole(gate, x->row(0), logits), whole(gate, x->row(0), logits + count)};
        products[0].float_input = !parts, products[1].residual = true;
        products[0].unrounded = products[0].keep_output = true;
        linear(*queue, batch->token_rows(), products, parts ? 2 : 1);
        const float *bias = block->tid2eid ? nullptr : block->vector(DSV4_ROLE_GATE_BIAS);
        launch_early(route_kernel, dim3(unsigned(ceil_div(tokens, 4))), 128, size_t(E) * 4 * 2 * 4, queue->stream(),
                     Route{batch->view, logits, parts ? logits + count : nullptr, bias, block->tid2eid, route->row(0),
                           E, s.active_experts, s.vocab, s.routed_scale});
    });
}

} // namespace dsv4::gpu
