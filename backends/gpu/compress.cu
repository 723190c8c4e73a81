// The compressor: every r tokens become one entry of the cache and, with r = 4, one indexer key. The step's own tokens
// are taken from their products, earlier ones from the ring of states, which the step's rows enter last.
#include "backends/gpu/early.hpp"
#include "backends/gpu/norm.hpp"
#include "backends/gpu/ops.hpp"
#include "backends/gpu/rows.hpp"
#include <algorithm>

namespace dsv4::gpu {
namespace {

constexpr int pool_threads = 512, together = 8; // rows whose loads are in flight together

/// One of the two compressors of a layer.
struct Compressor {
    const float *kv, *score; // of the step's tokens: [T, channels]
    const float *ape, *norm; // [r, channels], [dim]
    int32_t dim, channels;   // channels = parts * dim
    bool keys;

    __device__ __forceinline__ float *ring(const CacheView &cache, int32_t slot, int32_t position) const {
        return keys ? cache.index_state_row(slot, position) : cache.state_row(slot, position);
    }
};

struct Pool {
    StepView step;
    CacheView cache;
    Compressor of[2];
    const float *rope;
    float eps;
    bool official, exact;
};

/// A step of so few tokens of a sequence overwrites no ring row that one of its own entries still needs.
__device__ __forceinline__ bool ring_is_safe(const CacheView &cache, int32_t tokens) {
    return tokens <= cache.state_rows - (cache.ratio == 4 ? 8 : cache.ratio) + 1;
}

__device__ __forceinline__ void write_ring(const Pool &a, const Compressor &c, int32_t t, int32_t slot,
                                           int32_t position) {
    float *row = c.ring(a.cache, slot, position);
    const int64_t from = int64_t(t) * c.channels;
#pragma unroll 1
    for (int i = int(threadIdx.x); i < c.channels; i += pool_threads) {
        row[i] = c.kv[from + i];
        row[c.channels + i] = c.score[from + i];
    }
}

/// Channel i of entry e: softmax over its rows (score + ape), pooled. Overlap (r = 4): the rows of window e - 1 through
/// channels [0, dim), those of window e through [dim, 2 dim); the window before the first is -inf.
__device__ __forceinline__ float pooled(const Pool &a, const Compressor &c, int32_t e, int32_t first, int32_t start,
                                        int32_t slot, int i) {
    const int32_t r = a.cache.ratio, parts = c.channels / c.dim;
    const auto at = [&](int32_t part, int32_t j, const float *&value, const float *&score) {
        const int32_t position = (e - (parts - 1) + part) * r + j, channel = part * c.dim + i;
        if (position < 0) return false;
        if (position >= start) {
            const int64_t row = int64_t(first + position - start) * c.channels + channel;
            value = c.kv + row, score = c.score + row;
        } else {
            value = c.ring(a.cache, slot, position) + channel;
            score = value + c.channels;
        }
        return true;
    };
    float top = -INFINITY, sum = 0, total = 0;
#pragma unroll 1
    for (int32_t part = 0; part < parts; ++part)
#pragma unroll 1
        for (int32_t j0 = 0; j0 < r; j0 += together) {
            float v[together], s[together], higher = top;
#pragma unroll
            for (int n = 0; n < together; ++n) {
                const float *value, *score;
                s[n] = -INFINITY, v[n] = 0;
                if (j0 + n < r && at(part, j0 + n, value, score))
                    v[n] = *value, s[n] = *score + c.ape[(j0 + n) * c.channels + part * c.dim + i];
            }
#pragma unroll
            for (int n = 0; n < together; ++n) higher = fmaxf(higher, s[n]);
            if (higher == -INFINITY) continue; // the window before the first
            const float former = expf(top - higher);
            sum *= former, total *= former;
#pragma unroll
            for (int n = 0; n < together; ++n) {
                const float p = expf(s[n] - higher);
                sum += p;
                total = fmaf(v[n], p, total);
            }
            top = higher;
        }
    return total / sum;
}

/// The orthonormal Hadamard transform of n values in shared memory (Sylvester order), by the whole block.
__device__ __forceinline__ void hadamard(float *x, int n, bool official) {
#pragma unroll 1
    for (int half = 1; half < n; half *= 2) {
#pragma unroll 1
        for (int p = int(threadIdx.x); p < n / 2; p += pool_threads) {
            const int i = p / half * 2 * half + p % half;
            const float a = x[i], b = x[i + half];
            x[i] = a + b, x[i + half] = a - b;
        }
        __syncthreads();
    }
    const float scale = 1.0f / sqrtf(float(n));
#pragma unroll 1
    for (int i = int(threadIdx.x); i < n; i += pool_threads) x[i] = settled(x[i] * scale, official);
    __syncthreads();
}

/// Grid: tokens, compressors. A token that completes an entry writes it.
__global__ void __launch_bounds__(pool_threads, 1) pool_kernel(Pool a) {
    let_next_begin();
    DSV4_SHARED(float, scratch, [32]);
    const auto t = int32_t(blockIdx.x);
    if (t >= a.step.tokens()) return wait_for_former();
    const Compressor c = a.of[blockIdx.y];
    const int32_t sequence = a.step.sequence[t], position = a.step.position[t], slot = a.step.slot[sequence];
    const int32_t first = a.step.first[sequence], r = a.cache.ratio;
    const int32_t e = position / r, start = a.step.position[first];
    const bool safe = ring_is_safe(a.cache, a.step.first[sequence + 1] - first), completes = (position + 1) % r == 0;
    float *row = dynamic_shared<float>(), *norm = row + c.dim;
    auto *turns = reinterpret_cast<Turn *>(norm + c.dim);
    if (completes) {
#pragma unroll 1
        for (int i = int(threadIdx.x); i < c.dim; i += pool_threads) norm[i] = c.norm[i];
        make_turns(turns, a.cache.rope_dims, a.rope, e * r);
    }
    wait_for_former();
    if (safe) write_ring(a, c, t, slot, position);
    if (!completes) return;
#pragma unroll 1
    for (int i = int(threadIdx.x); i < c.dim; i += pool_threads)
        row[i] = settled(pooled(a, c, e, first, start, slot, i), a.official);
    __syncthreads();
    const float factor = block_rms(row, c.dim, a.eps, scratch);
    __syncthreads();
#pragma unroll 1
    for (int i = int(threadIdx.x); i < c.dim; i += pool_threads)
        row[i] = settled(row[i] * factor * norm[i], a.official);
    __syncthreads();
    rotate_row(row, c.dim, a.cache.rope_dims, turns, a.official);
    __syncthreads();
    const int32_t *table = a.step.table_of(t);
    if (!c.keys) return store_latent(a.cache, row, a.cache.entry(table, e));
    hadamard(row, c.dim, a.official);
    store_key(a.cache, row, a.cache.key(table, e), !a.exact);
}

/// What pool_kernel could not do without destroying what its other blocks read. Grid: tokens, compressors.
__global__ void __launch_bounds__(pool_threads) ring_kernel(Pool a) {
    enter_kernel();
    const auto t = int32_t(blockIdx.x);
    if (t >= a.step.tokens()) return;
    const int32_t sequence = a.step.sequence[t], first = a.step.first[sequence], end = a.step.first[sequence + 1];
    if (ring_is_safe(a.cache, end - first) || t < end - a.cache.state_rows) return;
    write_ring(a, a.of[blockIdx.y], t, a.step.slot[sequence], a.step.position[t]);
}

} // namespace

dsv4_status attention_compress(dsv4_queue *queue, const dsv4_batch *batch, const dsv4_block *block, dsv4_cache *cache,
                               const dsv4_buffer *x, dsv4_error *err) {
    return on_device(err, *queue, [&] {
        const dsv4_shape &s = block->shape;
        const int32_t r = block->ratio, di = s.index_dim;
        const auto tokens = size_t(batch->grid_tokens);
        if (!r || !tokens) return;
        if (r != cache->view.ratio)
            throw Failure(DSV4_E_INVALID, "a block of ratio " + std::to_string(r) + " with a cache of ratio " +
                                              std::to_string(cache->view.ratio));
        dsv4_queue &q = queue->beside(false);
        const bool csa = r == 4;
        float *out[4] = {};
        if (&q != queue && queue->early.of(batch, block, x->row(0))) {
            std::copy(queue->early.compress, queue->early.compress + 4, out);
        } else {
            const EarlyProducts p = compress_products(q, SCRATCH_A, *block, x->row(0), tokens);
            linear(q, batch->token_rows(), p.products, p.count);
            for (int i = 0; i < p.count; ++i) out[i] = p.products[i].y;
        }
        Pool pool = {
            batch->view,          cache->view, {}, block->rope_frequency(), s.rms_eps, queue->device.official(),
            queue->device.exact()};
        pool.of[0] = {out[0],
                      out[1],
                      block->vector(DSV4_ROLE_COMP_APE),
                      block->vector(DSV4_ROLE_COMP_NORM),
                      s.head_dim,
                      cache->view.channels,
                      false};
        if (csa)
            pool.of[1] = {
                out[2], out[3], block->vector(DSV4_ROLE_INDEX_COMP_APE), block->vector(DSV4_ROLE_INDEX_COMP_NORM), di,
                2 * di, true};
        const dim3 grid(unsigned(tokens), csa ? 2 : 1);
        const int32_t longest = csa && di > s.head_dim ? di : s.head_dim;
        launch_early(pool_kernel, grid, pool_threads, size_t(2 * longest + s.rope_dims) * 4, q.stream(), pool);
        if (int32_t(tokens) > cache->desc.state_slack + 1)
            launch_early(ring_kernel, grid, pool_threads, 0, q.stream(), pool);
    });
}

} // namespace dsv4::gpu
