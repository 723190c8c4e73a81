// Family ends: ids to streams, streams to logits.
#include "backends/gpu/formats.hpp"
#include "backends/gpu/hc.hpp"
#include "backends/gpu/linear.hpp"
#include "backends/gpu/ops.hpp"

namespace dsv4::gpu {

namespace {

/// Eight channels a thread, M copies. Grid: tokens, channels.
__global__ void embed_rows(Matrix table, const int32_t *token, float *streams, int M, Rows rows) {
    enter_kernel();
    const int c = int(blockIdx.y * blockDim.x + threadIdx.x) * 8, D = table.columns;
    const int64_t t = blockIdx.x;
    if (t >= rows.live() || c >= D) return;
    float v[8];
    eight_elements(table, token[t], c, v);
    for (int m = 0; m < M; ++m)
        for (int i = 0; i < 8; ++i)
            if (c + i < D) streams[(t * M + m) * D + c + i] = v[i];
}

dsv4_status embed(dsv4_queue *queue, const dsv4_batch *batch, const dsv4_block *ends, dsv4_buffer *streams,
                  dsv4_error *err) {
    return on_device(err, *queue, [&] {
        const Matrix &table = ends->matrix(DSV4_ROLE_EMBED);
        const Rows rows = batch->token_rows();
        launch_early(embed_rows, dim3(unsigned(rows.grid), unsigned(ceil_div(table.columns, 8 * 128))), dim3(128), 0,
                     queue->stream(), table, batch->view.token, streams->row(0), ends->shape.streams, rows);
    });
}

dsv4_status head(dsv4_queue *queue, const dsv4_batch *batch, const dsv4_block *ends, const dsv4_block *from,
                 const dsv4_buffer *streams, dsv4_buffer *logits, dsv4_error *err) {
    return on_device(err, *queue, [&] {
        const dsv4_shape &s = ends->shape;
        const Rows rows = batch->output_rows();
        if (logits->rows < batch->outputs)
            throw Failure(DSV4_E_INVALID, "head: " + std::to_string(batch->outputs) + " outputs into a buffer of " +
                                              std::to_string(logits->rows) + " rows");
        const Matrix &w = ends->matrix(DSV4_ROLE_HEAD);
        float *x = queue->scratch<float>(SCRATCH_A, size_t(rows.grid) * size_t(s.hidden));
        collapse_streams(*queue, rows,
                         {from->matrix(DSV4_ROLE_HC_HEAD_FN), from->vector(DSV4_ROLE_HC_HEAD_BASE),
                          from->vector(DSV4_ROLE_HC_HEAD_SCALE), from->vector(DSV4_ROLE_NORM), streams->row(0),
                          batch->view.output_row, x, nullptr, s.streams, s.hidden, 1, s.rms_eps, s.hc_eps,
                          queue->device.official()});
        Product p = whole(w, x, logits->row(0));
        p.unrounded = p.keep_output = true;
        linear(*queue, rows, p);
    });
}

} // namespace

const dsv4_ends_ops &ends_ops() {
    static const dsv4_ends_ops table = {sizeof(dsv4_ends_ops), 0, embed, head};
    return table;
}

} // namespace dsv4::gpu
