// Queries, and the window row of every token (MODEL.md "Queries", "Keys = values").
#include "backends/gpu/early.hpp"
#include "backends/gpu/norm.hpp"
#include "backends/gpu/ops.hpp"
#include "backends/gpu/rows.hpp"

namespace dsv4::gpu {
namespace {

constexpr int latent_threads = 256;

struct Latents {
    StepView step;
    CacheView cache;
    float *qr, *kv; // [T, q_lora], in place; [T, d]
    const float *q_norm, *kv_norm, *rope;
    int32_t q_lora, head_dim, rope_dims;
    float eps;
    bool official;
};

/// Grid: tokens; 0: norm of the query latent, 1: norm, rotation and rounding of the window row, into the cache.
__global__ void __launch_bounds__(latent_threads) latent_kernel(Latents a) {
    let_next_begin();
    DSV4_SHARED(float, scratch, [32]);
    const auto t = int32_t(blockIdx.x);
    const int me = int(threadIdx.x);
    if (t >= a.step.tokens()) return wait_for_former();
    if (blockIdx.y == 0) {
        constexpr int held = 8; // values of a thread that stay in registers
        float *row = a.qr + int64_t(t) * a.q_lora, v[held] = {}, norm[held] = {}, sum = 0;
        const int n = a.q_lora;
#pragma unroll
        for (int i = 0; i < held; ++i)
            if (me + i * latent_threads < n) norm[i] = a.q_norm[me + i * latent_threads];
        wait_for_former();
#pragma unroll
        for (int i = 0; i < held; ++i)
            if (me + i * latent_threads < n) v[i] = row[me + i * latent_threads];
#pragma unroll
        for (int i = 0; i < held; ++i) sum = fmaf(v[i], v[i], sum);
#pragma unroll 1
        for (int i = me + held * latent_threads; i < n; i += latent_threads) sum = fmaf(row[i], row[i], sum);
        const float r = 1.0f / sqrtf(block_sum(sum, scratch) / float(n) + a.eps);
#pragma unroll
        for (int i = 0; i < held; ++i)
            if (const int at = me + i * latent_threads; at < n) row[at] = settled(v[i] * r * norm[i], a.official);
#pragma unroll 1
        for (int i = me + held * latent_threads; i < n; i += latent_threads)
            row[i] = settled(row[i] * r * a.q_norm[i], a.official);
        return;
    }
    const int32_t position = a.step.position[t];
    float *row = dynamic_shared<float>(), *norm = row + a.head_dim;
    auto *turns = reinterpret_cast<Turn *>(norm + a.head_dim);
    uint8_t *to = a.cache.window_row(a.step.slot_of(t), position);
#pragma unroll 1
    for (int i = me; i < a.head_dim; i += latent_threads) norm[i] = a.kv_norm[i];
    make_turns(turns, a.rope_dims, a.rope, position);
    wait_for_former();
    const float *from = a.kv + int64_t(t) * a.head_dim;
    const float r = block_rms(from, a.head_dim, a.eps, scratch);
#pragma unroll 1
    for (int i = me; i < a.head_dim; i += latent_threads) row[i] = settled(from[i] * r * norm[i], a.official);
    __syncthreads();
    rotate_row(row, a.head_dim, a.rope_dims, turns, a.official);
    __syncthreads();
    store_latent(a.cache, row, to);
}

struct Heads {
    StepView step;
    float *q; // [T, H, d], in place
    const float *rope;
    int32_t heads, head_dim, rope_dims;
    float eps;
    bool official;
};

/// A subgroup takes a head: normalised with no weight, then rotated. Grid: heads / 8, tokens.
__global__ void __launch_bounds__(256) head_kernel(Heads a) {
    enter_kernel();
    const auto t = int32_t(blockIdx.y);
    const int h = int(blockIdx.x) * 8 + subgroup_of_block(), lane = lane_of_subgroup(), d = a.head_dim;
    if (t >= a.step.tokens() || h >= a.heads) return; // a whole subgroup
    auto *head = reinterpret_cast<float2 *>(a.q + (int64_t(t) * a.heads + h) * d);
    float sum = 0;
#pragma unroll 8
    for (int i = lane; i < d / 2; i += subgroup_size) {
        const float2 v = head[i];
        sum = fmaf(v.y, v.y, fmaf(v.x, v.x, sum));
    }
    const float r = 1.0f / sqrtf(subgroup_sum(sum) / float(d) + a.eps);
    const int plain = (d - a.rope_dims) / 2;
    const int32_t position = a.step.position[t];
#pragma unroll 8
    for (int i = lane; i < plain; i += subgroup_size) {
        const float2 v = head[i];
        head[i] = make_float2(settled(v.x * r, a.official), settled(v.y * r, a.official));
    }
    for (int i = plain + lane; i < d / 2; i += subgroup_size) {
        const float2 v = head[i];
        head[i] = rotated(make_float2(settled(v.x * r, a.official), settled(v.y * r, a.official)),
                          turn_at(position, a.rope[i - plain]), a.official);
    }
}

} // namespace

dsv4_status attention_project(dsv4_queue *queue, const dsv4_batch *batch, const dsv4_block *block, dsv4_cache *cache,
                              const dsv4_buffer *x, dsv4_buffer *q, dsv4_buffer *qr, dsv4_error *err) {
    return on_device(err, *queue, [&] {
        const dsv4_shape &s = block->shape;
        const bool official = queue->device.official();
        const int32_t d = s.head_dim;
        const auto tokens = unsigned(batch->grid_tokens);
        if (!tokens) return;
        if (d % 2)
            throw Failure(DSV4_E_UNSUPPORTED, "a head of " + std::to_string(d) + " dims: an even number is needed");
        const bool forks = block->ratio && tokens <= 64; // in larger steps one operator alone fills the card
        auto *kv = queue->scratch<float>(SCRATCH_A, size_t(tokens) * size_t(d));
        Product first[6] = {whole(block->matrix(DSV4_ROLE_WQ_A), x->row(0), qr->row(0)),
                            whole(block->matrix(DSV4_ROLE_WKV), x->row(0), kv)};
        int count = 2;
        queue->early = {};
        if (forks) {
            const EarlyProducts p = compress_products(*queue, SCRATCH_C, *block, x->row(0), tokens); // C to F
            queue->early.batch = batch, queue->early.block = block, queue->early.x = x->row(0);
            for (int i = 0; i < p.count; ++i)
                queue->early.compress[i] = p.products[i].y, first[count++] = p.products[i];
        }
        linear(*queue, batch->token_rows(), first, count, LINEAR_SMALL);
        if (forks) queue->fork();
        launch_early(latent_kernel, dim3(tokens, 2), latent_threads, size_t(2 * d + s.rope_dims) * 4, queue->stream(),
                     Latents{batch->view, cache->view, qr->row(0), kv, block->vector(DSV4_ROLE_Q_NORM),
                             block->vector(DSV4_ROLE_KV_NORM), block->rope_frequency(), s.q_lora, d, s.rope_dims,
                             s.rms_eps, official});
        if (forks && block->ratio == 4 && batch->grid_positions / 4 > s.index_topk) { // the step chooses
            const EarlyProducts p = index_products(*queue, SCRATCH_G, *block, x->row(0), qr->row(0), tokens); // G, H
            linear(*queue, batch->token_rows(), p.products, p.count);
            queue->early.qr = qr->row(0);
            queue->early.queries = p.products[0].y, queue->early.weights = p.products[1].y;
        }
        if (forks) queue->fork_later(); // qr is there
        linear(*queue, batch->token_rows(), whole(block->matrix(DSV4_ROLE_WQ_B), qr->row(0), q->row(0)),
               queue->early.queries ? LINEAR_BESIDE : LINEAR_ALONE);
        const Heads heads{batch->view, q->row(0), block->rope_frequency(), s.heads, d, s.rope_dims,
                          s.rms_eps,   official};
        const dim3 grid(unsigned(ceil_div(s.heads, 8)), tokens);
        const auto finish = [heads, grid](Stream stream) { launch_early(head_kernel, grid, 256, 0, stream, heads); };
        if (tokens <= 64) queue->put_off({q->row(0), batch, block}, finish); // attend does it to what it reads
        else finish(queue->stream());
        if (forks) queue->keep_fork(); // compress and select need neither q nor the window
    });
}

} // namespace dsv4::gpu
