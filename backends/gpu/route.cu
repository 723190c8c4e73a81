// Which experts a token goes to, and with what weights (MODEL.md "MoE").
#include "backends/gpu/choose.hpp"
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

constexpr int route_threads = 256, most_held = 64; // experts of a thread when the best are looked for

/// A block takes a token: scores by all of it, the best by its first subgroup, which has `held` experts a thread. Grid:
/// tokens.
template <int held> __global__ void __launch_bounds__(route_threads) route_kernel(Route a) {
    let_next_begin();
    const int lane = lane_of_subgroup(), E = a.experts, k = a.active;
    const auto t = int32_t(blockIdx.x);
    const bool live = t < a.step.tokens();
    const int32_t *given =
        a.by_token && live ? a.by_token + int64_t(min(max(a.step.token[t], 0), a.vocab - 1)) * k : nullptr;
    float *score = dynamic_shared<float>(), *picked = score + E, bias[held] = {}; // [E], [k]
    if (!a.by_token && !subgroup_of_block())
#pragma unroll
        for (int i = 0; i < held; ++i)
            if (const int e = lane + i * subgroup_size; e < E) bias[i] = a.bias[e];
    wait_for_former();
    if (!live) return;
#pragma unroll 1
    for (int e = int(threadIdx.x); e < E; e += route_threads) {
        float x = a.logits[int64_t(t) * E + e];
        if (a.rest) x += a.rest[int64_t(t) * E + e];
        score[e] = sqrtf(x > 20.0f ? x : log1pf(expf(x)));
    }
    __syncthreads();
    if (subgroup_of_block()) return;
    uint32_t rank[held]; // of experts lane, lane + 32, ...; 0: none, or chosen already
    if (!a.by_token)
#pragma unroll
        for (int i = 0; i < held; ++i) {
            const int e = lane + i * subgroup_size; // the bias selects, never weighs
            rank[i] = e < E ? rank_of(score[e] + bias[i]) : 0;
        }
    auto *chosen = reinterpret_cast<int32_t *>(a.route + int64_t(t) * 2 * k);
    float *weight = a.route + int64_t(t) * 2 * k + k, sum = 0;
#pragma unroll 1
    for (int i = 0; i < k; ++i) {
        int32_t best = given ? given[i] : E;
        if (!given) {
            uint32_t top = 0;
#pragma unroll
            for (int n = 0; n < held; ++n)
                if (rank[n] > top) top = rank[n], best = lane + n * subgroup_size;
            const uint32_t highest = subgroup_max(top);
            best = min(subgroup_min(top == highest ? best : E), E - 1); // of equals the first
#pragma unroll
            for (int n = 0; n < held; ++n)
                if (lane + n * subgroup_size == best) rank[n] = 0;
        }
        sum += score[best];
        if (lane == 0) chosen[i] = best, picked[i] = score[best];
    }
    sync_subgroup();
    for (int i = lane; i < k; i += subgroup_size) weight[i] = picked[i] / sum * a.scale;
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
        if (E > most_held * subgroup_size)
            throw Failure(DSV4_E_UNSUPPORTED, std::to_string(E) + " experts: at most " +
                                                  std::to_string(most_held * subgroup_size) + " can be chosen from");
        launch_early(E <= 8 * subgroup_size    ? route_kernel<8>
                     : E <= 16 * subgroup_size ? route_kernel<16>
                                               : route_kernel<most_held>,
                     dim3(unsigned(tokens)), route_threads, size_t(E + s.active_experts) * 4, queue->stream(),
                     Route{batch->view, logits, parts ? logits + count : nullptr, bias, block->tid2eid, route->row(0),
                           E, s.active_experts, s.vocab, s.routed_scale});
        queue->note({x->row(0), batch, block}); // there before the product, and so before what follows route_kernel
    });
}

} // namespace dsv4::gpu
