// Manifold-constrained hyper-connections: four streams collapse to one before a block and are mixed again after it.
#include "backends/cpu/objects.hpp"
#include <algorithm>
#include <cmath>

namespace dsv4::cpu {

namespace {

float sigmoid(float x) { return 1.0f / (1.0f + std::exp(-x)); }

/// comb [M, M], from-major: softmax over `to`, then alternating normalisation of columns and rows.
void sinkhorn(float *comb, int32_t M, int32_t iterations, float eps) {
    for (int32_t i = 0; i < M; ++i) {
        float *row = comb + i * M, top = row[0], sum = 0.0f;
        for (int32_t j = 1; j < M; ++j) top = std::max(top, row[j]);
        for (int32_t j = 0; j < M; ++j) sum += row[j] = std::exp(row[j] - top);
        for (int32_t j = 0; j < M; ++j) row[j] = row[j] / sum + eps;
    }
    const auto columns = [&] {
        for (int32_t j = 0; j < M; ++j) {
            float sum = 0.0f;
            for (int32_t i = 0; i < M; ++i) sum += comb[i * M + j];
            for (int32_t i = 0; i < M; ++i) comb[i * M + j] /= sum + eps;
        }
    };
    columns();
    for (int32_t n = 1; n < iterations; ++n) {
        for (int32_t i = 0; i < M; ++i) {
            float sum = 0.0f;
            for (int32_t j = 0; j < M; ++j) sum += comb[i * M + j];
            for (int32_t j = 0; j < M; ++j) comb[i * M + j] /= sum + eps;
        }
        columns();
    }
}

dsv4_status pre(dsv4_queue *queue, const dsv4_batch *batch, const dsv4_block *block, int32_t site,
                const dsv4_buffer *streams, dsv4_buffer *x, dsv4_buffer *mix, dsv4_error *err) {
    return boundary(err, [&] {
        const dsv4_device &device = *queue->device;
        const dsv4_shape &s = block->shape;
        const bool attn = site == DSV4_HC_ATTN;
        const Matrix &fn = block->matrix(attn ? DSV4_ROLE_HC_ATTN_FN : DSV4_ROLE_HC_FFN_FN);
        const float *base = block->vector(attn ? DSV4_ROLE_HC_ATTN_BASE : DSV4_ROLE_HC_FFN_BASE);
        const float *scale = block->vector(attn ? DSV4_ROLE_HC_ATTN_SCALE : DSV4_ROLE_HC_FFN_SCALE);
        const float *norm = block->vector(attn ? DSV4_ROLE_ATTN_NORM : DSV4_ROLE_FFN_NORM);
        const int32_t M = s.streams, T = batch->tokens, rows = (2 + M) * M;
        const int64_t D = s.hidden;
        float *raw = queue->floats(SCRATCH_A, size_t(T) * size_t(rows));
        Product p = whole(fn, streams->row(0), raw);
        p.float_input = p.unrounded = p.keep_output = true;
        multiply(*queue, T, &p, 1);
        device.pool->each(T, [&](int64_t t, int) {
            const float *X = streams->row(t);
            float *m = raw + t * rows, *post = mix->row(t), *comb = post + M, *out = x->row(t), gate[16];
            const float factor = 1.0f / std::sqrt(device.kernels->sum_squares(X, M * D) / float(M * D) + s.rms_eps);
            for (int32_t j = 0; j < M; ++j) gate[j] = sigmoid(m[j] * factor * scale[0] + base[j]) + s.hc_eps;
            for (int32_t j = 0; j < M; ++j) post[j] = 2.0f * sigmoid(m[M + j] * factor * scale[1] + base[M + j]);
            for (int32_t j = 0; j < M * M; ++j) comb[j] = m[2 * M + j] * factor * scale[2] + base[2 * M + j];
            sinkhorn(comb, M, s.sinkhorn_iters, s.hc_eps);
            device.kernels->hc_collapse(X, gate, M, D, out);
            if (device.official()) device.kernels->round_bf16(out, D);
            norm_row(device, out, norm, s.rms_eps, D, out);
        });
    });
}

dsv4_status post(dsv4_queue *queue, const dsv4_batch *batch, const dsv4_buffer *y, const dsv4_buffer *mix,
                 dsv4_buffer *streams, dsv4_error *err) {
    return boundary(err, [&] {
        const dsv4_device &device = *queue->device;
        const int64_t D = y->width;
        const int32_t M = int32_t(streams->width / D);
        device.pool->each(batch->tokens, [&](int64_t t, int) {
            const float *m = mix->row(t);
            device.kernels->hc_expand(streams->row(t), y->row(t), m, m + M, M, D, D);
            if (device.official()) device.kernels->round_bf16(streams->row(t), M * D);
        });
    });
}

} // namespace

void hc_head_row(const dsv4_device &device, const dsv4_block &from, const float *mix, const float *streams, float *out) {
    const dsv4_shape &s = from.shape;
    const int32_t M = s.streams;
    const int64_t D = s.hidden;
    const float *base = from.vector(DSV4_ROLE_HC_HEAD_BASE), *scale = from.vector(DSV4_ROLE_HC_HEAD_SCALE);
    const float factor = 1.0f / std::sqrt(device.kernels->sum_squares(streams, M * D) / float(M * D) + s.rms_eps);
    float gate[16];
    for (int32_t j = 0; j < M; ++j) gate[j] = sigmoid(mix[j] * factor * scale[0] + base[j]) + s.hc_eps;
    device.kernels->hc_collapse(streams, gate, M, D, out);
    if (device.official()) device.kernels->round_bf16(out, D);
}

const dsv4_hc_ops hc_ops = {sizeof(dsv4_hc_ops), 0, pre, post};

} // namespace dsv4::cpu
