// Attention of one latent row per key, shared by all heads (MODEL.md "Attention"). The keys of a token are listed
// window first, then entries, and cut into splits of `key_count`: each split is a softmax of its own, and splits are
// merged in ascending order, whether one block walks them all (large batches) or each has a block (small ones).
#include "backends/gpu/attend.hpp"
#include "backends/gpu/ops.hpp"
#include <algorithm>

namespace dsv4::gpu {
namespace {

constexpr size_t most_partial_bytes = size_t(256) << 20, most_score_floats = size_t(64) << 20;

constexpr int merge_threads = 256, merged_together = 5; // splits whose sums are in flight together: half of 640 keys'

/// Grid: heads, tokens. The sums of all splits, merged.
__global__ void __launch_bounds__(merge_threads) merge_kernel(Attend a) {
    let_next_begin();
    static_assert(2 * merge_threads >= most_head_dim);
    const auto t = int32_t(blockIdx.y), h = int32_t(blockIdx.x);
    const int32_t d = a.cache.head_dim, plain = d - a.cache.rope_dims, i = 2 * int32_t(threadIdx.x);
    if (t >= a.step.tokens() || i >= d) return wait_for_former();
    const int32_t splits = (KeyList(a, t).count + a.key_count - 1) / a.key_count;
    const float *stats = a.stats + (int64_t(t) * a.splits * a.heads + h) * 2;
    const float *from = a.partial + (int64_t(t) * a.splits * a.heads + h) * d + i, sink = a.sink[h];
    const Turn turn = i < plain ? Turn{1, 0} : turn_at(a.step.position[t], a.rope[(i - plain) / 2]);
    wait_for_former();
    Softmax state;
    float2 sum = make_float2(0, 0);
#pragma unroll 1
    for (int32_t s0 = 0; s0 < splits; s0 += merged_together) {
        float2 v[merged_together], stat[merged_together];
#pragma unroll
        for (int n = 0; n < merged_together; ++n)
            if (s0 + n < splits) {
                v[n] = *reinterpret_cast<const float2 *>(from + int64_t(s0 + n) * a.heads * d);
                stat[n] = *reinterpret_cast<const float2 *>(stats + int64_t(s0 + n) * a.heads * 2);
            }
#pragma unroll
        for (int n = 0; n < merged_together; ++n)
            if (s0 + n < splits) {
                const Merge m = state.merge(stat[n].x, stat[n].y);
                sum.x = m.apply(sum.x, v[n].x), sum.y = m.apply(sum.y, v[n].y);
            }
    }
    const float whole = state.denominator(sink);
    sum.x /= whole, sum.y /= whole;
    if (i >= plain) sum = turned_back(sum, turn);
    *reinterpret_cast<float2 *>(a.o + (int64_t(t) * a.heads + h) * d + i) = sum;
}

/// float32, any size, any row format. A block takes a head of a token: scores, softmax, sum. Grid: heads, tokens.
__global__ void __launch_bounds__(128) plain_kernel(Attend a, int32_t first_token, bool official) {
    enter_kernel();
    DSV4_SHARED(float, scratch, [2][32]);
    const auto t = first_token + int32_t(blockIdx.y), h = int32_t(blockIdx.x);
    if (t >= a.step.tokens()) return;
    const KeyList keys(a, t);
    const int32_t d = a.cache.head_dim, n = keys.count, plain = d - a.cache.rope_dims;
    const int lane = lane_of_subgroup();
    const int64_t at = (int64_t(t) * a.heads + h) * d;
    float *score = a.partial + (int64_t(blockIdx.y) * a.heads + h) * a.splits * a.key_count;
    float *q = dynamic_shared<float>(), *out = q + d;
    for (int i = int(threadIdx.x); i < d; i += 128) q[i] = a.q[at + i];
    __syncthreads();
    float top = -INFINITY, sum = 0;
    for (int32_t k = subgroup_of_block(); k < n; k += 4) {
        const uint8_t *row = keys.row(k);
        float dot = 0;
        if (row)
            for (int i = lane; i < d; i += subgroup_size) dot = fmaf(q[i], latent_value(a.cache, row, i), dot);
        const float v = row ? subgroup_sum(dot) * a.scale : -INFINITY;
        if (lane == 0) score[k] = v;
        top = fmaxf(top, v);
    }
    top = block_max(top, scratch[0]);
    __syncthreads(); // every score is there
    for (int32_t k = int(threadIdx.x); k < n; k += 128) sum += score[k] = expf(score[k] - top);
    sum = block_sum(sum, scratch[1]);
    __syncthreads();
    const float whole = sum + expf(a.sink[h] - top);
    for (int i = int(threadIdx.x); i < d; i += 128) {
        float v = 0;
        for (int32_t k = 0; k < n; ++k)
            if (const uint8_t *row = keys.row(k)) v = fmaf(score[k], latent_value(a.cache, row, i), v);
        out[i] = settled(v / whole, official);
    }
    __syncthreads();
    const int32_t position = a.step.position[t];
    for (int i = int(threadIdx.x); i < d / 2; i += 128) {
        float2 v = make_float2(out[2 * i], out[2 * i + 1]);
        if (2 * i >= plain) {
            v = turned_back(v, turn_at(position, a.rope[i - plain / 2]));
            v = make_float2(settled(v.x, official), settled(v.y, official));
        }
        *reinterpret_cast<float2 *>(a.o + at + 2 * i) = v;
    }
}

/// By the matrix units: rows of E4M3 and bf16, heads that fill fragments.
bool takes_matrix_units(const dsv4_device &device, const CacheView &cache) {
    return device.native() && !cache.rows_are_float && cache.head_dim % 16 == 0 && cache.head_dim <= most_head_dim &&
           cache.rope_dims % 8 == 0;
}

template <class S, bool whole> void attend_splits(dsv4_queue &queue, const Attend &a, int32_t tokens) {
    const dim3 grid(unsigned(ceil_div(a.heads, S::heads)), whole ? 1u : unsigned(a.splits), unsigned(tokens));
    launch_early(split_kernel<S, whole>, grid, S::threads, attend_bytes(S::row_tiles, S::keys, a.cache.head_dim),
                 queue.stream(), a);
}
using Low = Shape<1, 4, 64>;    // one row tile, few splits of keys: 16 heads
using Spread = Shape<1, 8, 64>; // more subgroups for them
using Tall = Shape<2, 4, 64>;
using Narrow = Shape<1, 4, 32>; // for little shared memory

void attend_plain(dsv4_queue &queue, Attend a, int32_t tokens) {
    a.key_count = 1;
    const size_t per_token = size_t(a.heads) * size_t(a.splits);
    const auto slice = int32_t(std::clamp<size_t>(most_score_floats / per_token, 1, size_t(tokens)));
    a.partial = queue.scratch<float>(SCRATCH_A, per_token * size_t(slice));
    for (int32_t t = 0; t < tokens; t += slice)
        launch_early(plain_kernel, dim3(unsigned(a.heads), unsigned(std::min(slice, tokens - t))), 128,
                     size_t(a.cache.head_dim) * 8, queue.stream(), a, t, queue.device.official());
}

} // namespace

dsv4_status attention_attend(dsv4_queue *queue, const dsv4_batch *batch, const dsv4_block *block,
                             const dsv4_cache *cache, const dsv4_buffer *q, const dsv4_buffer *selection,
                             dsv4_buffer *o, dsv4_error *err) {
    return on_device(err, *queue, [&] {
        const dsv4_shape &s = block->shape;
        const int32_t r = block->ratio, tokens = batch->grid_tokens;
        if (!tokens) return;
        if (r == 4 && !selection) throw Failure(DSV4_E_INVALID, "attend: a CSA layer needs the selection");
        const int32_t entries = !r       ? 0
                                : r == 4 ? std::min(s.index_topk, batch->grid_positions / 4)
                                         : batch->grid_positions / r;
        const int32_t most_keys = std::min(s.window, batch->grid_positions) + entries;
        Attend a = {};
        a.step = batch->view, a.cache = cache->view;
        a.q = q->row(0), a.o = o->row(0);
        a.selection = r == 4 ? selection->ints(0) : nullptr;
        a.sink = block->vector(DSV4_ROLE_ATTN_SINK), a.rope = block->rope_frequency();
        a.heads = s.heads, a.window = s.window, a.topk = s.index_topk, a.ratio = r;
        a.scale = 1.0f / std::sqrt(float(s.head_dim));
        a.splits = most_keys;
        if (!takes_matrix_units(queue->device, cache->view)) return attend_plain(*queue, a, tokens);

        const dsv4::gpu::Properties &p = queue->device.properties;
        const bool wide = attend_bytes(1, 64, s.head_dim) <= p.shared_bytes;
        a.key_count = wide ? 64 : 32;
        a.splits = int32_t(ceil_div(most_keys, a.key_count));
        const size_t sums = size_t(tokens) * size_t(a.splits) * size_t(s.heads);
        const bool whole = a.splits == 1 || sums * size_t(s.head_dim) * 4 > most_partial_bytes ||
                           int64_t(tokens) * ceil_div(s.heads, 32) >= 2 * p.processors;
        if (!whole) {
            a.partial = queue->scratch<float>(SCRATCH_A, sums * size_t(s.head_dim));
            a.stats = queue->scratch<float>(SCRATCH_B, sums * 2);
        }
        a.eps = s.rms_eps;
        a.raw = !whole && s.rope_dims <= 2 * subgroup_size && bool(queue->take_put_off({q->row(0), batch, block}));
        const bool tall = s.heads > 16 && attend_bytes(2, 64, s.head_dim) <= p.shared_bytes;
        const auto attend = !wide    ? (whole ? attend_splits<Narrow, true> : attend_splits<Narrow, false>)
                            : !whole ? attend_splits<Spread, false>
                            : tall   ? attend_splits<Tall, true>
                                     : attend_splits<Low, true>;
        attend(*queue, a, tokens);
        if (!whole)
            launch_early(merge_kernel, dim3(unsigned(s.heads), unsigned(tokens)), merge_threads, 0, queue->stream(), a);
    });
}

} // namespace dsv4::gpu
