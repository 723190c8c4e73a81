// Family moe (MODEL.md "MoE").
#include <algorithm>
#include "backends/reference/linear.hpp"
#include "backends/reference/ops.hpp"

namespace dsv4::reference {
namespace {

float softplus(float x) { return x > 20.0f ? x : std::log1p(std::exp(x)); }

dsv4_status route(dsv4_queue *, const dsv4_batch *batch, const dsv4_block *block, const dsv4_buffer *x,
                  dsv4_buffer *route, dsv4_error *err) {
    return guard(err, [&] {
        const dsv4_shape &s = block->shape;
        const int32_t T = batch->tokens, E = s.experts, k = s.active_experts;
        const Weight &gate = block->need(DSV4_ROLE_GATE);
        const Weight *by_token = block->find(DSV4_ROLE_GATE_TID2EID);
        expect_shape(*block, DSV4_ROLE_GATE, gate, E, s.hidden);
        std::vector<float> score(size_t(T) * size_t(E)), bias(static_cast<size_t>(E));
        product(gate, 0, E, x->row(0), s.hidden, T, score.data(), E);  // float32, never rounded
        for (float &v : score) v = std::sqrt(softplus(v));
        if (!by_token) block->need(DSV4_ROLE_GATE_BIAS).decode_row(0, bias.data());
        std::vector<int32_t> order(static_cast<size_t>(E));
        for (int32_t t = 0; t < T; ++t) {
            const float *st = score.data() + int64_t(t) * E;
            for (int32_t e = 0; e < E; ++e) order[size_t(e)] = e;
            if (by_token) {
                for (int32_t i = 0; i < k; ++i) {
                    const int64_t e = by_token->integer(int64_t(batch->token[size_t(t)]) * k + i);
                    if (e < 0 || e >= E) fail(DSV4_E_MODEL, "tid2eid names expert %lld of %d", static_cast<long long>(e), E);
                    order[size_t(i)] = int32_t(e);
                }
            } else {  // the bias selects, never weighs
                const auto better = [&](int32_t a, int32_t b) {
                    const float sa = st[a] + bias[size_t(a)], sb = st[b] + bias[size_t(b)];
                    return sa != sb ? sa > sb : a < b;
                };
                std::partial_sort(order.begin(), order.begin() + k, order.end(), better);
            }
            float sum = 0, *out = route->row(t);
            for (int32_t i = 0; i < k; ++i) sum += st[order[size_t(i)]];
            for (int32_t i = 0; i < k; ++i) {
                out[i] = float(order[size_t(i)]);
                out[k + i] = st[order[size_t(i)]] / sum * s.routed_scale;
            }
        }
    });
}

/// x [n, D] through one expert: w2(weight * silu(min(w1 x, limit)) * clamp(w3 x, limit)) -> y [n, D]
void expert(const dsv4_block &block, const Weight &w1, const Weight &w2, const Weight &w3, const float *x, int32_t n,
            const float *weight, std::vector<float> &y) {
    const int64_t inter = w1.rows(), D = block.shape.hidden;
    const float limit = block.shape.swiglu_limit;
    expect_shape(block, w1.tensor.role, w1, inter, D);
    expect_shape(block, w3.tensor.role, w3, inter, D);
    expect_shape(block, w2.tensor.role, w2, D, inter);
    std::vector<float> gate(size_t(n * inter)), up(gate.size());
    linear(block.official, w1, x, n, gate.data());
    linear(block.official, w3, x, n, up.data());
    for (int64_t i = 0; i < n * inter; ++i) {
        float g = gate[size_t(i)], u = up[size_t(i)];
        if (limit > 0) {
            g = std::fmin(g, limit);  // the gate has no lower bound
            u = std::fmin(std::fmax(u, -limit), limit);
        }
        const float h = g / (1.0f + std::exp(-g)) * u;
        gate[size_t(i)] = bf(block.official, weight ? weight[i / inter] * h : h);
    }
    y.resize(size_t(n * D));
    linear(block.official, w2, gate.data(), n, y.data());
}

dsv4_status experts(dsv4_queue *, const dsv4_batch *batch, const dsv4_block *block, const dsv4_buffer *x,
                    const dsv4_buffer *route, dsv4_buffer *y, dsv4_error *err) {
    return guard(err, [&] {
        const dsv4_shape &s = block->shape;
        const int32_t T = batch->tokens, D = s.hidden, k = s.active_experts;
        std::fill(y->row(0), y->row(0) + int64_t(T) * D, 0.0f);
        std::vector<float> in, weight, out;
        std::vector<int32_t> token;
        for (int32_t e = 0; e < s.experts; ++e) {  // each token adds its experts in ascending order
            in.clear(), weight.clear(), token.clear();
            for (int32_t t = 0; t < T; ++t)
                for (int32_t i = 0; i < k; ++i)
                    if (int32_t(route->row(t)[i]) == e) {
                        token.push_back(t);
                        weight.push_back(route->row(t)[k + i]);
                        in.insert(in.end(), x->row(t), x->row(t) + D);
                    }
            if (token.empty()) continue;
            const int32_t i1 = block->expert_w1[size_t(e)], i2 = block->expert_w2[size_t(e)],
                          i3 = block->expert_w3[size_t(e)];
            if (i1 < 0 || i2 < 0 || i3 < 0) fail(DSV4_E_INVALID, "block %d: expert %d was not given", block->index, e);
            expert(*block, block->weights[size_t(i1)], block->weights[size_t(i2)], block->weights[size_t(i3)],
                   in.data(), int32_t(token.size()), weight.data(), out);
            for (size_t n = 0; n < token.size(); ++n)
                for (int32_t c = 0; c < D; ++c) y->row(token[n])[c] += out[n * size_t(D) + size_t(c)];
        }
        if (block->find(DSV4_ROLE_SHARED_W1)) {
            expert(*block, block->need(DSV4_ROLE_SHARED_W1), block->need(DSV4_ROLE_SHARED_W2),
                   block->need(DSV4_ROLE_SHARED_W3), x->row(0), T, nullptr, out);
            for (int64_t i = 0; i < int64_t(T) * D; ++i) y->row(0)[i] += out[size_t(i)];
        }
        bf(block->official, y->row(0), int64_t(T) * D);
    });
}

}  // namespace

const dsv4_moe_ops moe_ops = {sizeof(dsv4_moe_ops), 0, route, experts};

}  // namespace dsv4::reference
