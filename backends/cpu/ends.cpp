// The two ends of the model, and the entrance of an MTP block.
#include "backends/cpu/formats.hpp"
#include "backends/cpu/objects.hpp"
#include <cstring>

namespace dsv4::cpu {

namespace {

void embed_row(const dsv4_block &ends, int32_t id, float *out) {
    const Matrix &w = ends.matrix(DSV4_ROLE_EMBED);
    if (id < 0 || id >= w.rows)
        throw Error(DSV4_E_INVALID, "cpu: token id " + std::to_string(id) + " is outside the vocabulary of " +
                                        std::to_string(w.rows));
    const uint8_t *row = w.data + id * w.row_bytes;
    for (int32_t k = 0; k < w.cols; ++k) {
        uint16_t h;
        if (w.type == WEIGHT_F32) std::memcpy(out + k, row + 4 * int64_t(k), 4);
        else if (is_quantized(w)) throw Error(DSV4_E_MODEL, "cpu: a quantized embedding is not supported");
        else std::memcpy(&h, row + 2 * int64_t(k), 2), out[k] = w.type == WEIGHT_BF16 ? from_bfloat(h) : from_half(h);
    }
}

dsv4_status embed(dsv4_queue *, const dsv4_batch *batch, const dsv4_block *ends, dsv4_buffer *streams, dsv4_error *err) {
    return boundary(err, [&] {
        const int64_t D = ends->shape.hidden;
        for (int32_t t = 0; t < batch->tokens; ++t) {
            float *row = streams->row(t);
            embed_row(*ends, batch->token[size_t(t)], row);
            for (int32_t m = 1; m < ends->shape.streams; ++m) std::memcpy(row + m * D, row, size_t(D) * 4);
        }
    });
}

dsv4_status head(dsv4_queue *queue, const dsv4_batch *batch, const dsv4_block *ends, const dsv4_block *from,
                 const dsv4_buffer *streams, dsv4_buffer *logits, dsv4_error *err) {
    return boundary(err, [&] {
        const dsv4_device &device = *queue->device;
        const dsv4_shape &s = ends->shape;
        const int64_t D = s.hidden, M = s.streams;
        const int32_t n = batch->outputs;
        const Matrix &fn = from->matrix(DSV4_ROLE_HC_HEAD_FN), &w = ends->matrix(DSV4_ROLE_HEAD);
        const float *norm = from->vector(DSV4_ROLE_NORM);
        if (logits->rows < n) throw Error(DSV4_E_INVALID, "cpu: head: the logits buffer has too few rows");
        float *gathered = queue->floats(SCRATCH_A, size_t(n) * size_t(M * D));
        float *mix = queue->floats(SCRATCH_B, size_t(n) * size_t(M)), *x = queue->floats(SCRATCH_C, size_t(n) * size_t(D));
        for (int32_t o = 0; o < n; ++o)
            std::memcpy(gathered + o * M * D, streams->row(batch->output_row[size_t(o)]), size_t(M * D) * 4);
        Product p = whole(fn, gathered, mix);
        p.float_input = p.unrounded = p.keep_output = true;
        multiply(*queue, n, &p, 1);
        for (int32_t o = 0; o < n; ++o) {
            hc_head_row(device, *from, mix + o * M, gathered + o * M * D, x + o * D);
            norm_row(device, x + o * D, norm, s.rms_eps, D, x + o * D);
        }
        p = whole(w, x, logits->row(0));
        p.keep_output = true;
        multiply(*queue, n, &p, 1);
    });
}

dsv4_status join(dsv4_queue *queue, const dsv4_batch *batch, const dsv4_block *ends, const dsv4_block *block,
                 const dsv4_buffer *streams, dsv4_buffer *out, dsv4_error *err) {
    return boundary(err, [&] {
        const dsv4_device &device = *queue->device;
        const dsv4_shape &s = block->shape;
        const int64_t D = s.hidden, M = s.streams;
        const int32_t T = batch->tokens;
        const float *e_norm = block->vector(DSV4_ROLE_E_NORM), *h_norm = block->vector(DSV4_ROLE_H_NORM);
        float *e = queue->floats(SCRATCH_A, size_t(T) * size_t(D)), *ey = queue->floats(SCRATCH_B, size_t(T) * size_t(D));
        float *h = queue->floats(SCRATCH_C, size_t(T) * size_t(M * D));
        for (int32_t t = 0; t < T; ++t) {
            embed_row(*ends, batch->token[size_t(t)], e + t * D);
            norm_row(device, e + t * D, e_norm, s.rms_eps, D, e + t * D);
            for (int64_t m = 0; m < M; ++m)
                norm_row(device, streams->row(t) + m * D, h_norm, s.rms_eps, D, h + (t * M + m) * D);
        }
        Product p = whole(block->matrix(DSV4_ROLE_E_PROJ), e, ey);
        multiply(*queue, T, &p, 1);
        p = whole(block->matrix(DSV4_ROLE_H_PROJ), h, out->row(0));
        multiply(*queue, T * s.streams, &p, 1);
        for (int32_t t = 0; t < T; ++t)
            for (int64_t m = 0; m < M; ++m) {
                device.kernels->add(out->row(t) + m * D, ey + t * D, D);
                if (device.official()) device.kernels->round_bf16(out->row(t) + m * D, D);
            }
    });
}

} // namespace

const dsv4_ends_ops ends_ops = {sizeof(dsv4_ends_ops), 0, embed, head};
const dsv4_mtp_ops mtp_ops = {sizeof(dsv4_mtp_ops), 0, join};

} // namespace dsv4::cpu
