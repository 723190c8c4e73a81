// Family hc: manifold-constrained hyper-connections (MODEL.md "mHC"). Everything here is float32 in both numerics; only
// x and the streams are bf16 in official.
#include "backends/reference/hc.hpp"
#include "backends/reference/linear.hpp"
#include "backends/reference/ops.hpp"

namespace dsv4::reference {
namespace {

float sigmoid(float x) { return 1.0f / (1.0f + std::exp(-x)); }

/// mix = (X_flat fn^T) * rsqrt(mean(X_flat^2) + eps)
void mixing_logits(const dsv4_block &block, const Weight &fn, const float *streams, int64_t width, float *mix) {
    const float r = 1.0f / std::sqrt(mean_square(streams, width) + block.shape.rms_eps);
    product(fn, 0, fn.rows(), streams, width, 1, mix, fn.rows());
    for (int64_t i = 0; i < fn.rows(); ++i) mix[i] *= r;
}

/// comb [M, M]: softmax over the last axis + eps, one column normalisation, then iters - 1 times (row, column).
void sinkhorn(float *comb, int32_t M, int32_t iters, float eps) {
    for (int32_t j = 0; j < M; ++j) {
        float *row = comb + j * M, top = row[0], sum = 0;
        for (int32_t k = 1; k < M; ++k) top = std::fmax(top, row[k]);
        for (int32_t k = 0; k < M; ++k) sum += row[k] = std::exp(row[k] - top);
        for (int32_t k = 0; k < M; ++k) row[k] = row[k] / sum + eps;
    }
    const auto columns = [&] {
        for (int32_t k = 0; k < M; ++k) {
            float sum = 0;
            for (int32_t j = 0; j < M; ++j) sum += comb[j * M + k];
            for (int32_t j = 0; j < M; ++j) comb[j * M + k] /= sum + eps;
        }
    };
    const auto rows = [&] {
        for (int32_t j = 0; j < M; ++j) {
            float sum = 0;
            for (int32_t k = 0; k < M; ++k) sum += comb[j * M + k];
            for (int32_t k = 0; k < M; ++k) comb[j * M + k] /= sum + eps;
        }
    };
    columns();
    for (int32_t i = 1; i < iters; ++i) {
        rows();
        columns();
    }
}

dsv4_status pre(dsv4_queue *, const dsv4_batch *batch, const dsv4_block *block, int32_t site,
                const dsv4_buffer *streams, dsv4_buffer *x, dsv4_buffer *mix, dsv4_error *err) {
    return guard(err, [&] {
        const dsv4_shape &s = block->shape;
        const int32_t M = s.streams, D = s.hidden, base_role = site == DSV4_HC_ATTN ? DSV4_ROLE_HC_ATTN_FN
                                                                                    : DSV4_ROLE_HC_FFN_FN;
        const Weight &fn = block->need(base_role), &norm = block->need(site == DSV4_HC_ATTN ? DSV4_ROLE_ATTN_NORM
                                                                                            : DSV4_ROLE_FFN_NORM);
        expect_shape(*block, base_role, fn, (2 + M) * M, int64_t(M) * D);
        std::vector<float> base(size_t((2 + M) * M)), logits(base.size()), collapsed(static_cast<size_t>(D));
        float scale[3];
        block->need(base_role + 1).decode_row(0, base.data());
        block->need(base_role + 2).decode_row(0, scale);
        for (int32_t t = 0; t < batch->tokens; ++t) {
            mixing_logits(*block, fn, streams->row(t), int64_t(M) * D, logits.data());
            float *post = mix->row(t), *comb = post + M;
            float pre_j[64];
            for (int32_t j = 0; j < M; ++j) {
                pre_j[j] = sigmoid(logits[size_t(j)] * scale[0] + base[size_t(j)]) + s.hc_eps;
                post[j] = 2.0f * sigmoid(logits[size_t(M + j)] * scale[1] + base[size_t(M + j)]);
            }
            for (int32_t i = 0; i < M * M; ++i)
                comb[i] = logits[size_t(2 * M + i)] * scale[2] + base[size_t(2 * M + i)];
            sinkhorn(comb, M, s.sinkhorn_iters, s.hc_eps);
            collapse(block->official, streams->row(t), pre_j, M, D, collapsed.data());
            rms_norm(block->official, norm, s.rms_eps, collapsed.data(), D, x->row(t));
        }
    });
}

dsv4_status post(dsv4_queue *queue, const dsv4_batch *batch, const dsv4_buffer *y, const dsv4_buffer *mix,
                 dsv4_buffer *streams, dsv4_error *err) {
    return guard(err, [&] {
        const auto D = int32_t(y->width), M = int32_t(streams->width / y->width);
        std::vector<float> out(size_t(M) * size_t(D));
        for (int32_t t = 0; t < batch->tokens; ++t) {
            const float *post_k = mix->row(t), *comb = post_k + M, *X = streams->row(t), *yt = y->row(t);
            for (int32_t k = 0; k < M; ++k)
                for (int32_t c = 0; c < D; ++c) {
                    float sum = post_k[k] * yt[c];
                    for (int32_t j = 0; j < M; ++j) sum += comb[j * M + k] * X[int64_t(j) * D + c];
                    out[size_t(int64_t(k) * D + c)] = bf(queue->device->official, sum);
                }
            std::copy(out.begin(), out.end(), streams->row(t));
        }
    });
}

}  // namespace

void collapse(bool official, const float *streams, const float *weight, int32_t M, int32_t D, float *x) {
    for (int32_t c = 0; c < D; ++c) {
        float sum = 0;
        for (int32_t j = 0; j < M; ++j) sum += weight[j] * streams[int64_t(j) * D + c];
        x[c] = bf(official, sum);
    }
}

void head_collapse(const dsv4_block &block, const float *streams, float *x) {
    const dsv4_shape &s = block.shape;
    const int32_t M = s.streams, D = s.hidden;
    const Weight &fn = block.need(DSV4_ROLE_HC_HEAD_FN);
    expect_shape(block, DSV4_ROLE_HC_HEAD_FN, fn, M, int64_t(M) * D);
    float mix[64], base[64], scale[1];
    block.need(DSV4_ROLE_HC_HEAD_BASE).decode_row(0, base);
    block.need(DSV4_ROLE_HC_HEAD_SCALE).decode_row(0, scale);
    mixing_logits(block, fn, streams, int64_t(M) * D, mix);
    for (int32_t j = 0; j < M; ++j) mix[j] = sigmoid(mix[j] * scale[0] + base[j]) + s.hc_eps;
    collapse(block.official, streams, mix, M, D, x);
}

const dsv4_hc_ops hc_ops = {sizeof(dsv4_hc_ops), 0, pre, post};

}  // namespace dsv4::reference
