// Family mtp: what enters an MTP block.
#include "backends/gpu/formats.hpp"
#include "backends/gpu/linear.hpp"
#include "backends/gpu/ops.hpp"

namespace dsv4::gpu {

namespace {

constexpr int norm_threads = 256;

struct Join {
    Matrix table;
    const int32_t *token;
    const float *streams, *e_norm, *h_norm;
    float *e, *h; // [T, D], [T, M, D]
    int32_t streams_count;
    float eps;
    bool official;
};

/// rmsnorm of the embedding and of every stream, unrounded inputs. Grid: tokens, M + 1.
__global__ void join_norms(Join w, Rows rows) {
    enter_kernel();
    DSV4_SHARED(float, scratch, [32]);
    const int64_t t = blockIdx.x, m = int64_t(blockIdx.y) - 1;
    if (t >= rows.live()) return;
    const int D = w.table.columns;
    const float *X = w.streams + (t * w.streams_count + m) * D, *norm = m < 0 ? w.e_norm : w.h_norm;
    float *out = m < 0 ? w.e + t * D : w.h + (t * w.streams_count + m) * D, squares = 0;
    for (int c = int(threadIdx.x); c < D; c += norm_threads) {
        const float v = m < 0 ? element(w.table, w.token[t], c) : X[c];
        squares = fmaf(v, v, squares);
        out[c] = v;
    }
    const float r = 1.0f / sqrtf(block_sum(squares, scratch) / float(D) + w.eps);
    for (int c = int(threadIdx.x); c < D; c += norm_threads) { // each thread its own
        const float v = out[c] * r * norm[c];
        out[c] = w.official ? round_bf16(v) : v;
    }
}

/// out [T, M, D] += e [T, D]. Grid: T*M, channels.
__global__ void add_embedding(float *out, const float *e, int M, int D, bool official, Rows rows) {
    enter_kernel();
    const int c = int(blockIdx.y * blockDim.x + threadIdx.x);
    const int64_t row = blockIdx.x;
    if (row >= rows.live() || c >= D) return;
    const float v = e[row / M * D + c] + out[row * D + c];
    out[row * D + c] = official ? round_bf16(v) : v;
}

dsv4_status join(dsv4_queue *queue, const dsv4_batch *batch, const dsv4_block *ends, const dsv4_block *block,
                 const dsv4_buffer *streams, dsv4_buffer *out, dsv4_error *err) {
    return on_device(err, *queue, [&] {
        const dsv4_shape &s = block->shape;
        const int D = s.hidden, M = s.streams;
        const Rows tokens = batch->token_rows(), rows = batch->token_rows(M);
        const size_t count = size_t(tokens.grid) * size_t(D);
        float *e = queue->scratch<float>(SCRATCH_A, count), *projected = queue->scratch<float>(SCRATCH_B, count);
        float *h = queue->scratch<float>(SCRATCH_C, count * size_t(M));
        launch_early(join_norms, dim3(unsigned(tokens.grid), unsigned(M + 1)), dim3(norm_threads), 0, queue->stream(),
                     Join{ends->matrix(DSV4_ROLE_EMBED), batch->view.token, streams->row(0),
                          block->vector(DSV4_ROLE_E_NORM), block->vector(DSV4_ROLE_H_NORM), e, h, M, s.rms_eps,
                          queue->device.official()},
                     tokens);
        linear(*queue, tokens, whole(block->matrix(DSV4_ROLE_E_PROJ), e, projected));
        linear(*queue, rows, whole(block->matrix(DSV4_ROLE_H_PROJ), h, out->row(0)));
        launch_early(add_embedding, dim3(unsigned(rows.grid), unsigned(ceil_div(D, 128))), dim3(128), 0, queue->stream(),
                     out->row(0), projected, M, D, queue->device.official(), rows);
    });
}

} // namespace

const dsv4_mtp_ops &mtp_ops() {
    static const dsv4_mtp_ops table = {sizeof(dsv4_mtp_ops), 0, join};
    return table;
}

} // namespace dsv4::gpu
