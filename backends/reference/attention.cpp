// Family attention (MODEL.md "Queries", "Keys = values", "Indexer", "Attention", "Output").
#include <algorithm>
#include "backends/reference/compressor.hpp"
#include "backends/reference/linear.hpp"
#include "backends/reference/ops.hpp"
#include "backends/reference/rope.hpp"

namespace dsv4::reference {
namespace {

dsv4_status project(dsv4_queue *, const dsv4_batch *batch, const dsv4_block *block, dsv4_cache *cache,
                    const dsv4_buffer *x, dsv4_buffer *q, dsv4_buffer *qr, dsv4_error *err) {
    return guard(err, [&] {
        const dsv4_shape &s = block->shape;
        const bool official = block->official;
        const int32_t T = batch->tokens, H = s.heads, d = s.head_dim;
        const Weight &wq_a = block->need(DSV4_ROLE_WQ_A), &wq_b = block->need(DSV4_ROLE_WQ_B),
                     &wkv = block->need(DSV4_ROLE_WKV);
        expect_shape(*block, DSV4_ROLE_WQ_A, wq_a, s.q_lora, s.hidden);
        expect_shape(*block, DSV4_ROLE_WQ_B, wq_b, int64_t(H) * d, s.q_lora);
        expect_shape(*block, DSV4_ROLE_WKV, wkv, d, s.hidden);

        std::vector<float> latent(size_t(T) * size_t(std::max(s.q_lora, d)));
        linear(official, wq_a, x->row(0), T, latent.data());
        for (int32_t t = 0; t < T; ++t)
            rms_norm(official, block->need(DSV4_ROLE_Q_NORM), s.rms_eps, latent.data() + int64_t(t) * s.q_lora,
                     s.q_lora, qr->row(t));
        linear(official, wq_b, qr->row(0), T, q->row(0));
        for (int32_t t = 0; t < T; ++t)
            for (int32_t h = 0; h < H; ++h) {  // each head normalised, with no weight
                float *head = q->row(t) + int64_t(h) * d;
                const float r = 1.0f / std::sqrt(mean_square(head, d) + s.rms_eps);
                for (int32_t i = 0; i < d; ++i) head[i] = bf(official, head[i] * r);
                rotate(*block, head, d, batch->position[size_t(t)], false);
            }

        linear(official, wkv, x->row(0), T, latent.data());
        for (int32_t t = 0; t < T; ++t) {
            float *row = cache->window_row(batch->slot_of(t), batch->position[size_t(t)]);
            rms_norm(official, block->need(DSV4_ROLE_KV_NORM), s.rms_eps, latent.data() + int64_t(t) * d, d, row);
            rotate(*block, row, d, batch->position[size_t(t)], false);
            round_key(*block, row);
        }
    });
}

/// score(t, i) = sum_h w_h relu(q_h . k_i); the K best of the visible entries, ties to the smaller index.
dsv4_status select(dsv4_queue *, const dsv4_batch *batch, const dsv4_block *block, const dsv4_cache *cache,
                   const dsv4_buffer *x, const dsv4_buffer *qr, dsv4_buffer *selection, dsv4_error *err) {
    return guard(err, [&] {
        const dsv4_shape &s = block->shape;
        const bool official = block->official;
        const int32_t T = batch->tokens, Hi = s.index_heads, di = s.index_dim;
        const Weight &wq_b = block->need(DSV4_ROLE_INDEX_WQ_B), &weights = block->need(DSV4_ROLE_INDEX_WEIGHTS);
        expect_shape(*block, DSV4_ROLE_INDEX_WQ_B, wq_b, int64_t(Hi) * di, s.q_lora);
        expect_shape(*block, DSV4_ROLE_INDEX_WEIGHTS, weights, Hi, s.hidden);
        std::vector<float> q(size_t(T) * size_t(Hi) * size_t(di)), w(size_t(T) * size_t(Hi)), score;
        linear(official, wq_b, qr->row(0), T, q.data());
        linear(official, weights, x->row(0), T, w.data());
        const auto weight_scale = float(std::pow(double(di), -0.5) * std::pow(double(Hi), -0.5));
        std::vector<int32_t> order;
        for (int32_t t = 0; t < T; ++t) {
            const int32_t position = batch->position[size_t(t)];
            float *out = selection->row(t);
            const int32_t visible = (position + 1) / block->ratio;
            std::fill(out, out + s.index_topk, -1.0f);
            order.resize(static_cast<size_t>(visible));
            for (int32_t i = 0; i < visible; ++i) order[size_t(i)] = i;
            if (visible > s.index_topk) {
                for (int32_t h = 0; h < Hi; ++h) {
                    float *head = q.data() + (int64_t(t) * Hi + h) * di;
                    rotate(*block, head, di, position, false);
                    hadamard(official, head, di);
                    if (official) fake_fp4(head, di, 32);
                }
                score.assign(size_t(visible), 0.0f);
                for (int32_t i = 0; i < visible; ++i) {
                    const float *key = cache->index_keys.get() + cache->entry_row(batch->table_of(t), i) * di;
                    for (int32_t h = 0; h < Hi; ++h)
                        score[size_t(i)] += std::fmax(dot(q.data() + (int64_t(t) * Hi + h) * di, key, di), 0.0f) *
                                            (w[size_t(int64_t(t) * Hi + h)] * weight_scale);
                }
                const auto better = [&](int32_t a, int32_t b) {
                    return score[size_t(a)] != score[size_t(b)] ? score[size_t(a)] > score[size_t(b)] : a < b;
                };
                std::nth_element(order.begin(), order.begin() + s.index_topk, order.end(), better);
                order.resize(size_t(s.index_topk));
                std::sort(order.begin(), order.end());
            }
            for (size_t i = 0; i < order.size(); ++i) out[i] = float(order[i]);  // exact below 2^24 entries
        }
    });
}

/// o = sum_k exp(s_k - m) key_k / (sum_k exp(s_k - m) + exp(sink - m)), s = q . key / sqrt(d)
void attend_head(const std::vector<const float *> &keys, const float *q, int32_t d, float sink, std::vector<float> &p,
                 float *o) {
    const auto scale = float(std::pow(double(d), -0.5));
    p.resize(keys.size());
    float top = -INFINITY, sum = 0;
    for (size_t k = 0; k < keys.size(); ++k) top = std::fmax(top, p[k] = dot(q, keys[k], d) * scale);
    for (float &v : p) sum += v = std::exp(v - top);
    std::fill(o, o + d, 0.0f);
    for (size_t k = 0; k < keys.size(); ++k)
        for (int32_t i = 0; i < d; ++i) o[i] += p[k] * keys[k][i];
    const float denominator = sum + std::exp(sink - top);
    for (int32_t i = 0; i < d; ++i) o[i] /= denominator;
}

dsv4_status attend(dsv4_queue *, const dsv4_batch *batch, const dsv4_block *block, const dsv4_cache *cache,
                   const dsv4_buffer *q, const dsv4_buffer *selection, dsv4_buffer *o, dsv4_error *err) {
    return guard(err, [&] {
        const dsv4_shape &s = block->shape;
        const int32_t H = s.heads, d = s.head_dim, r = block->ratio;
        std::vector<float> sink(static_cast<size_t>(H)), p, out(static_cast<size_t>(d));
        block->need(DSV4_ROLE_ATTN_SINK).decode_row(0, sink.data());
        if (r == 4 && !selection) fail(DSV4_E_INVALID, "attend on a CSA layer needs a selection");
        std::vector<const float *> keys;
        for (int32_t t = 0; t < batch->tokens; ++t) {
            const int32_t position = batch->position[size_t(t)];
            keys.clear();
            for (int32_t j = std::max(0, position - s.window + 1); j <= position; ++j)
                keys.push_back(cache->window_row(batch->slot_of(t), j));
            const auto entry = [&](int64_t e) {
                keys.push_back(cache->entries.get() + cache->entry_row(batch->table_of(t), e) * d);
            };
            if (r == 4) {
                for (int32_t i = 0; i < s.index_topk; ++i)
                    if (const float e = selection->row(t)[i]; e >= 0) entry(int64_t(e));
            } else if (r) {
                for (int32_t e = 0; e < (position + 1) / r; ++e) entry(e);
            }
            for (int32_t h = 0; h < H; ++h) {
                attend_head(keys, q->row(t) + int64_t(h) * d, d, sink[size_t(h)], p, out.data());
                bf(block->official, out.data(), d);
                rotate(*block, out.data(), d, position, true);
                std::copy(out.begin(), out.end(), o->row(t) + int64_t(h) * d);
            }
        }
    });
}

/// Group g of the heads through rows [g*o_lora, (g+1)*o_lora) of wo_a, on unrounded activations; then wo_b.
dsv4_status output(dsv4_queue *, const dsv4_batch *batch, const dsv4_block *block, const dsv4_buffer *o, dsv4_buffer *y,
                   dsv4_error *err) {
    return guard(err, [&] {
        const dsv4_shape &s = block->shape;
        const int32_t T = batch->tokens, G = s.o_groups;
        const int64_t in = int64_t(s.heads) * s.head_dim / G, width = int64_t(G) * s.o_lora;
        const Weight &wo_a = block->need(DSV4_ROLE_WO_A), &wo_b = block->need(DSV4_ROLE_WO_B);
        expect_shape(*block, DSV4_ROLE_WO_A, wo_a, width, in);
        expect_shape(*block, DSV4_ROLE_WO_B, wo_b, s.hidden, width);
        std::vector<float> latent(size_t(T) * size_t(width));
        for (int32_t g = 0; g < G; ++g)
            product(wo_a, int64_t(g) * s.o_lora, s.o_lora, o->row(0) + g * in, o->width, T,
                    latent.data() + int64_t(g) * s.o_lora, width);
        bf(block->official, latent.data(), T * width);
        linear(block->official, wo_b, latent.data(), T, y->row(0));
    });
}

}  // namespace

const dsv4_attention_ops attention_ops = {sizeof(dsv4_attention_ops), 0, project, compress, select, attend, output};

}  // namespace dsv4::reference
