// Family hc. The mixing logits are a product in float32 whose k is cut into pieces of 256, one subgroup each, so that
// one token already keeps many multiprocessors reading; a second kernel adds the pieces in order and does the rest.
#include "backends/gpu/formats.hpp"
#include "backends/gpu/hc.hpp"
#include "backends/gpu/norm.hpp"
#include "backends/gpu/ops.hpp"

namespace dsv4::gpu {

namespace {

constexpr int piece = 256, mixes_at_once = 8, tokens_at_once = 8, finish_threads = 512;

__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

/// The sums of eight values over a subgroup, each the sum that subgroup_sum() gives: lanes 4i to 4i + 3 return that of
/// value i. Every exchange halves what is left to add up.
__device__ __forceinline__ float sums_of_eight(float (&v)[8]) {
    const int lane = lane_of_subgroup();
#pragma unroll
    for (int left = 4, mask = 16; left; left /= 2, mask /= 2) {
        const bool upper = lane & mask;
#pragma unroll
        for (int i = 0; i < left; ++i) {
            const float keep = upper ? v[i + left] : v[i], give = upper ? v[i] : v[i + left];
            v[i] = keep + shuffle_xor(give, mask);
        }
    }
    float sum = v[0];
    sum += shuffle_xor(sum, 2);
    return sum + shuffle_xor(sum, 1);
}

/// Element k of stream `to` after an expansion: x the streams' before it, weights as hc.pre left them in mix.
template <bool rounds>
__device__ __forceinline__ float expanded(const float (&x)[4], float y, const float *mix, int to) {
    float sum = mix[to] * y;
#pragma unroll
    for (int j = 0; j < 4; ++j) sum = fmaf(mix[4 + j * 4 + to], x[j], sum);
    return settled(sum, rounds);
}

/// partial [row][piece][mixes + 1]: dot(fn[i], X) over the piece, then sum of squares. A subgroup takes `each` rows,
/// one after the other. Grid: pieces, groups of mixes, rows. plain: float32 weights, rows of whole pieces of 8; due:
/// the expansion of four streams of whole pieces is done on the way; rounds: official numerics.
template <bool plain, bool due, bool rounds>
__global__ void mixing_pieces(Collapse w, Rows rows, float *partial, int each) {
    let_next_begin();
    const int lane = lane_of_subgroup(), mixes = w.fn.rows, pieces = int(gridDim.x);
    const int row0 = (int(blockIdx.z) * int(blockDim.x / subgroup_size) + subgroup_of_block()) * each;
    const int K = w.fn.columns, k = int(blockIdx.x) * piece + lane * 8, first = int(blockIdx.y) * mixes_at_once;
    float weight[mixes_at_once][8]; // all loads first: they are what this waits for
#pragma unroll
    for (int m = 0; m < mixes_at_once; ++m) {
        const int mix = min(first + m, mixes - 1), at = k < K ? k : 0;
        if constexpr (plain) load_eight(reinterpret_cast<const float *>(w.fn.data) + int64_t(mix) * K + at, weight[m]);
        else eight_elements(w.fn, mix, at, weight[m]);
    }
    const int end = min(row0 + each, rows.live());
    wait_for_former();
    for (int row = row0; row < end; ++row) {
        const float *X = w.streams + int64_t(w.gather ? w.gather[row] : row) * K;
        float *out = partial + (int64_t(row) * pieces + int(blockIdx.x)) * (mixes + 1);
        float x[8] = {}, dot[mixes_at_once];
        if constexpr (due) {
            const int D = w.hidden, to = int(blockIdx.x) * piece / D, c = k - to * D;
            const float *mix = w.due + int64_t(row) * 20;
            float streams[4][8], y[8];
#pragma unroll
            for (int j = 0; j < 4; ++j) load_eight(X + j * D + c, streams[j]);
            load_eight(w.y + int64_t(row) * D + c, y);
#pragma unroll
            for (int i = 0; i < 8; ++i) {
                const float all[4] = {streams[0][i], streams[1][i], streams[2][i], streams[3][i]};
                x[i] = expanded<rounds>(all, y[i], mix, to);
            }
            if (blockIdx.x == 0 && blockIdx.y == 0 && lane < 20) w.due_copy[row * 20 + lane] = mix[lane];
        } else if constexpr (plain) {
            if (k < K) load_eight(X + k, x);
        } else {
#pragma unroll
            for (int i = 0; i < 8; ++i) x[i] = k + i < K ? X[k + i] : 0.0f;
        }
#pragma unroll
        for (int m = 0; m < mixes_at_once; ++m) {
            dot[m] = 0;
#pragma unroll
            for (int i = 0; i < 8; ++i) dot[m] = fmaf(weight[m][i], x[i], dot[m]);
        }
        const float sum = sums_of_eight(dot);
        const int mix = first + lane / 4;
        if (lane % 4 == 0 && mix < mixes) out[mix] = sum;
        if (blockIdx.y) continue;
        float squares = 0;
#pragma unroll
        for (int i = 0; i < 8; ++i) squares = fmaf(x[i], x[i], squares);
        squares = subgroup_sum(squares);
        if (lane == 0) out[mixes] = squares;
    }
}

/// comb [M, M], from-major, by one subgroup, `each` elements a thread: softmax over `to` + eps, then columns and rows
/// in turn.
template <int each> __device__ __forceinline__ void sinkhorn(float *comb, int M, int iterations, float eps) {
    const int lane = lane_of_subgroup();
    float next[each] = {};
#pragma unroll
    for (int n = 0; n < each; ++n)
        if (const int e = lane + n * subgroup_size; e < M * M) {
            const float *row = comb + e / M * M;
            float top = row[0], sum = 0;
            for (int j = 1; j < M; ++j) top = fmaxf(top, row[j]);
            for (int j = 0; j < M; ++j) sum += expf(row[j] - top);
            next[n] = expf(comb[e] - top) / sum + eps;
        }
#pragma unroll 1
    for (int step = 0;; ++step) {
        sync_subgroup();
#pragma unroll
        for (int n = 0; n < each; ++n)
            if (const int e = lane + n * subgroup_size; e < M * M) comb[e] = next[n];
        sync_subgroup();
        if (step == 2 * iterations - 1) return;
#pragma unroll
        for (int n = 0; n < each; ++n)
            if (const int e = lane + n * subgroup_size; e < M * M) {
                const float *from = step % 2 ? comb + e / M * M : comb + e % M;
                const int stride = step % 2 ? 1 : M;
                float sum = 0;
                for (int j = 0; j < M; ++j) sum += from[j * stride];
                next[n] = comb[e] / (sum + eps);
            }
    }
}

/// The same for four streams, in registers: every lane has all sixteen, so that no exchange is waited for.
__device__ __forceinline__ void sinkhorn_of_four(float *comb, int iterations, float eps) {
    const auto sum = [](float a, float b, float c, float d) { return (a + b) + (c + d); };
    const int lane = lane_of_subgroup() % 16; // lanes 16 to 31 do the same
    const float *row = comb + lane / 4 * 4, top = fmaxf(fmaxf(row[0], row[1]), fmaxf(row[2], row[3]));
    const float mine = expf(comb[lane] - top);
    sync_subgroup();
    comb[lane] = mine;
    sync_subgroup();
    const float first = mine / sum(row[0], row[1], row[2], row[3]) + eps;
    sync_subgroup();
    comb[lane] = first;
    sync_subgroup();
    float v[4][4];
#pragma unroll
    for (int e = 0; e < 16; ++e) v[e / 4][e % 4] = comb[e];
#pragma unroll 1
    for (int step = 0; step < iterations; ++step) {
        if (step)
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                const float r = reciprocal(sum(v[j][0], v[j][1], v[j][2], v[j][3]) + eps);
#pragma unroll
                for (int k = 0; k < 4; ++k) v[j][k] *= r;
            }
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            const float r = reciprocal(sum(v[0][k], v[1][k], v[2][k], v[3][k]) + eps);
#pragma unroll
            for (int j = 0; j < 4; ++j) v[j][k] *= r;
        }
    }
    sync_subgroup();
#pragma unroll
    for (int e = 0; e < 16; ++e)
        if (lane == e) comb[e] = v[e / 4][e % 4];
    sync_subgroup();
}

/// Four channels of a row, of every stream.
template <int most> struct Channels {
    float4 x[most];
    __device__ __forceinline__ void load(const float *X, int M, int D, int c) {
#pragma unroll
        for (int j = 0; j < most; ++j)
            x[j] = j < M && c < D ? *reinterpret_cast<const float4 *>(X + j * D + c) : make_float4(0, 0, 0, 0);
    }
    /// To what they are after an expansion, in memory too.
    template <bool rounds> __device__ __forceinline__ void expand(float4 y, const float *mix, float *X, int D, int c) {
        float4 next[most];
#pragma unroll
        for (int k = 0; k < most; ++k) {
            const auto of = [&](float a, float b, float c, float d, float y) {
                const float all[4] = {a, b, c, d};
                return expanded<rounds>(all, y, mix, k);
            };
            next[k].x = of(x[0].x, x[1].x, x[2].x, x[3].x, y.x), next[k].y = of(x[0].y, x[1].y, x[2].y, x[3].y, y.y);
            next[k].z = of(x[0].z, x[1].z, x[2].z, x[3].z, y.z), next[k].w = of(x[0].w, x[1].w, x[2].w, x[3].w, y.w);
            *reinterpret_cast<float4 *>(X + k * D + c) = next[k];
        }
#pragma unroll
        for (int k = 0; k < most; ++k) x[k] = next[k];
    }
    template <bool rounds> __device__ __forceinline__ float4 collapse(const float *pre, int M) const {
        float4 sum = make_float4(0, 0, 0, 0);
#pragma unroll
        for (int j = 0; j < most; ++j) {
            if (j >= M) break;
            const float w = pre[j];
            sum.x = fmaf(w, x[j].x, sum.x), sum.y = fmaf(w, x[j].y, sum.y);
            sum.z = fmaf(w, x[j].z, sum.z), sum.w = fmaf(w, x[j].w, sum.w);
        }
        if (rounds) sum = make_float4(round_bf16(sum.x), round_bf16(sum.y), round_bf16(sum.z), round_bf16(sum.w));
        return sum;
    }
};

/// Mixing weights of a row, then (block 0 of a row) collapse and norm, or (block 1) what the way back needs. Grid:
/// rows, 2; the head has no way back and one block.
/// Fours of channels that a thread holds: of four streams, all of a row together; 0: any streams, nothing held. due:
/// the expansion is done on the way. rounds: official numerics.
template <int fours, bool due, bool rounds>
__global__ void __launch_bounds__(finish_threads)
    finish_mixing(Collapse w, Rows rows, const float *partial, int pieces) {
    constexpr bool four = fours > 0;
    constexpr int parts = finish_threads / 32, held = four ? fours : 1;
    DSV4_SHARED(float, sums, [parts][32]);
    DSV4_SHARED(float, logits, [(2 + most_streams) * most_streams + 1]);
    DSV4_SHARED(float, pre, [most_streams]);
    DSV4_SHARED(float, comb, [most_streams * most_streams]);
    DSV4_SHARED(float, scratch, [32]);
    let_next_begin();
    const int row = int(blockIdx.x), thread = int(threadIdx.x), M = four ? 4 : w.streams_count, D = w.hidden;
    const int mixes = w.fn.rows;
    const bool collapses = blockIdx.y == 0;
    const bool live = row < rows.live();
    // Weights, while the kernel before this one runs: of the mix that this thread makes, and of the norm.
    const int first = collapses ? 0 : M, mine = first + thread;
    float base = 0, scale = 0;
    if (mine < (collapses ? M : mixes)) base = w.base[mine], scale = w.scale[mine < M ? 0 : mine < 2 * M ? 1 : 2];
    float4 norm[held];
    if (four && collapses)
#pragma unroll
        for (int i = 0; i < held; ++i)
            if (const int c = (thread + i * finish_threads) * 4; c < D)
                norm[i] = make_float4(w.norm[c], w.norm[c + 1], w.norm[c + 2], w.norm[c + 3]);
    wait_for_former();
    if (!live) return;
    float *X = w.streams + int64_t(w.gather ? w.gather[row] : row) * M * D;
    Channels<four ? 4 : 1> channels[held]; // on their way while the logits are added up
    if (four && collapses)
#pragma unroll
        for (int i = 0; i < held; ++i) channels[i].load(X, M, D, (thread + i * finish_threads) * 4);
    if constexpr (due) {
        if (collapses) {
            const float *mix = w.due_copy + row * 20;
#pragma unroll
            for (int i = 0; i < held; ++i)
                if (const int c = (thread + i * finish_threads) * 4; c < D)
                    channels[i].template expand<rounds>(*reinterpret_cast<const float4 *>(w.y + int64_t(row) * D + c),
                                                        mix, X, D, c);
        }
    }
    const float *p = partial + int64_t(row) * pieces * (mixes + 1);
    const int part = thread / 32, share = (pieces + parts - 1) / parts;
    for (int m0 = 0; m0 <= mixes; m0 += 32) { // runs of pieces, then those in order
        const int m = m0 + thread % 32;
        float sum = 0;
        if (m <= mixes)
#pragma unroll 4
            for (int i = part * share; i < min(pieces, (part + 1) * share); ++i) sum += p[i * (mixes + 1) + m];
        sums[part][thread % 32] = sum;
        __syncthreads();
        if (part == 0 && m <= mixes) {
            sum = sums[0][thread];
#pragma unroll
            for (int i = 1; i < parts; ++i) sum += sums[i][thread];
            logits[m] = sum;
        }
        __syncthreads();
    }
    const float factor = 1.0f / sqrtf(logits[mixes] / float(M * D) + w.rms_eps);
    if (!collapses) {
        float *mix = w.mix + int64_t(row) * (M + M * M);
        static_assert((1 + most_streams) * most_streams <= finish_threads);
        if (mine < mixes) {
            const float logit = logits[mine] * factor * scale + base;
            if (thread < M) mix[thread] = 2.0f * sigmoid(logit);
            else comb[thread - M] = logit;
        }
        __syncthreads();
        if (part) return;
        if constexpr (four) sinkhorn_of_four(comb, w.sinkhorn_iters, w.hc_eps);
        else if (M * M <= subgroup_size) sinkhorn<1>(comb, M, w.sinkhorn_iters, w.hc_eps);
        else sinkhorn<most_streams * most_streams / subgroup_size>(comb, M, w.sinkhorn_iters, w.hc_eps);
#pragma unroll 1
        for (int e = thread; e < M * M; e += subgroup_size) mix[M + e] = comb[e];
        return;
    }
    if (thread < M) pre[thread] = sigmoid(logits[thread] * factor * scale + base) + w.hc_eps;
    __syncthreads();
    float *out = w.x + int64_t(row) * D, squares = 0;
    const auto settle = [](float v) { return settled(v, rounds); };
    if constexpr (four) {
        float4 v[held];
#pragma unroll
        for (int i = 0; i < held; ++i) {
            v[i] = channels[i].template collapse<rounds>(pre, M);
            squares = fmaf(v[i].x, v[i].x, fmaf(v[i].y, v[i].y, squares));
            squares = fmaf(v[i].z, v[i].z, fmaf(v[i].w, v[i].w, squares));
        }
        const float r = 1.0f / sqrtf(block_sum(squares, scratch) / float(D) + w.rms_eps);
#pragma unroll
        for (int i = 0; i < held; ++i) {
            const int c = (thread + i * finish_threads) * 4;
            if (c >= D) break;
            *reinterpret_cast<float4 *>(out + c) =
                make_float4(settle(v[i].x * r * norm[i].x), settle(v[i].y * r * norm[i].y),
                            settle(v[i].z * r * norm[i].z), settle(v[i].w * r * norm[i].w));
        }
    } else {
        for (int c = thread; c < D; c += finish_threads) {
            float sum = 0;
            for (int j = 0; j < M; ++j) sum = fmaf(pre[j], X[j * D + c], sum);
            sum = settle(sum);
            squares = fmaf(sum, sum, squares);
            out[c] = sum;
        }
        const float r = 1.0f / sqrtf(block_sum(squares, scratch) / float(D) + w.rms_eps);
        for (int c = thread; c < D; c += finish_threads) out[c] = settle(out[c] * r * w.norm[c]); // each thread its own
    }
}

/// X'_k = post_k y + sum_j comb[j][k] X_j; a thread has a channel of every stream. Grid: rows, channels.
template <int most>
__global__ void expand(float *streams, const float *y, const float *mix, int M, int D, bool official, Rows rows) {
    enter_kernel();
    const int c = int(blockIdx.y * blockDim.x + threadIdx.x);
    const int64_t row = blockIdx.x;
    if (row >= rows.live() || c >= D) return;
    float *X = streams + row * M * D + c;
    const float *post = mix + row * (M + M * M), *comb = post + M, v = y[row * D + c];
    float x[most];
#pragma unroll
    for (int j = 0; j < most; ++j) x[j] = j < M ? X[j * D] : 0.0f;
#pragma unroll
    for (int k = 0; k < most; ++k) {
        if (k < M) {
            float sum = post[k] * v;
#pragma unroll
            for (int j = 0; j < most; ++j)
                if (j < M) sum = fmaf(comb[j * M + k], x[j], sum);
            X[k * D] = official ? round_bf16(sum) : sum;
        }
    }
}

dsv4_status pre(dsv4_queue *queue, const dsv4_batch *batch, const dsv4_block *block, int32_t site,
                const dsv4_buffer *streams, dsv4_buffer *x, dsv4_buffer *mix, dsv4_error *err) {
    return on_device(err, *queue, [&] {
        const dsv4_shape &s = block->shape;
        const bool attn = site == DSV4_HC_ATTN;
        Collapse work = {block->matrix(attn ? DSV4_ROLE_HC_ATTN_FN : DSV4_ROLE_HC_FFN_FN),
                         block->vector(attn ? DSV4_ROLE_HC_ATTN_BASE : DSV4_ROLE_HC_FFN_BASE),
                         block->vector(attn ? DSV4_ROLE_HC_ATTN_SCALE : DSV4_ROLE_HC_FFN_SCALE),
                         block->vector(attn ? DSV4_ROLE_ATTN_NORM : DSV4_ROLE_FFN_NORM),
                         streams->row(0),
                         nullptr,
                         x->row(0),
                         mix->row(0),
                         s.streams,
                         s.hidden,
                         s.sinkhorn_iters,
                         s.rms_eps,
                         s.hc_eps,
                         queue->device.official()};
        const dsv4_queue::Result expansion{streams->row(0), batch, nullptr};
        dsv4_queue::Work late;
        if (work.fn.dtype == DSV4_F32 && !work.fn.scale_dtype && work.fn.columns == 4 * s.hidden)
            late = queue->take_put_off(expansion);
        try {
            if (late) {
                work.y = queue->expansion.y, work.due = queue->expansion.mix;
                work.due_copy = queue->scratch<float>(SCRATCH_A, size_t(batch->grid_tokens) * 20);
            }
            collapse_streams(*queue, batch->token_rows(), work);
        } catch (...) {
            if (late) queue->put_off(expansion, std::move(late));
            throw;
        }
    });
}

dsv4_status post(dsv4_queue *queue, const dsv4_batch *batch, const dsv4_buffer *y, const dsv4_buffer *mix,
                 dsv4_buffer *streams, dsv4_error *err) {
    return on_device(err, *queue, [&] {
        const int D = int(y->width), M = int(streams->width / y->width), threads = D >= 128 ? 128 : 32;
        const Rows rows = batch->token_rows();
        const dim3 grid(unsigned(rows.grid), unsigned(ceil_div(D, threads)));
        const auto work = [=, official = queue->device.official(), to = streams->row(0), from = y->row(0),
                           weights = mix->row(0)](Stream stream) {
            launch_early(M <= 4 ? expand<4> : expand<most_streams>, grid, dim3(unsigned(threads)), 0, stream, to, from,
                         weights, M, D, official, rows);
        };
        if (rows.grid > 64 || M != 4 || D % piece || D > 16 * finish_threads) return work(queue->stream());
        queue->stream(); // what was put off before
        queue->expansion = {y->row(0), mix->row(0)};
        queue->put_off({streams->row(0), batch, nullptr}, work); // pre does it to what it reads
    });
}

template <bool rounds> auto finishing(const Collapse &work) {
    const bool due = work.y, held = work.streams_count == 4 && work.hidden % 4 == 0;
    return held && work.hidden <= 8 * finish_threads
               ? (due ? finish_mixing<2, true, rounds> : finish_mixing<2, false, rounds>)
           : held && work.hidden <= 16 * finish_threads
               ? (due ? finish_mixing<4, true, rounds> : finish_mixing<4, false, rounds>)
               : finish_mixing<0, false, rounds>;
}

} // namespace

void collapse_streams(dsv4_queue &queue, const Rows &rows, const Collapse &work) {
    if (work.sinkhorn_iters < 1)
        throw Failure(DSV4_E_MODEL, "hc_sinkhorn_iters is " + std::to_string(work.sinkhorn_iters));
    const int pieces = int(ceil_div(work.fn.columns, piece)), mixes = work.fn.rows;
    const int tokens = rows.grid < tokens_at_once ? rows.grid : tokens_at_once, each = rows.grid < 256 ? 1 : 8;
    float *partial = queue.scratch<float>(SCRATCH_PARTIAL_2, size_t(rows.grid) * size_t(pieces) * size_t(mixes + 1));
    if (!rows.grid) return;
    const dim3 grid(unsigned(pieces), unsigned(ceil_div(mixes, mixes_at_once)),
                    unsigned(ceil_div(rows.grid, tokens * each)));
    const bool plain = work.fn.dtype == DSV4_F32 && !work.fn.scale_dtype && work.fn.columns % 8 == 0, due = work.y;
    const auto mixing = due     ? (work.official ? mixing_pieces<true, true, true> : mixing_pieces<true, true, false>)
                        : plain ? mixing_pieces<true, false, false>
                                : mixing_pieces<false, false, false>;
    launch_early(mixing, grid, dim3(unsigned(32 * tokens)), 0, queue.stream(), work, rows, partial, each);
    launch_early(work.official ? finishing<true>(work) : finishing<false>(work),
                 dim3(unsigned(rows.grid), work.mix ? 2u : 1u), dim3(finish_threads), 0, queue.stream(), work, rows,
                 partial, pieces);
}

const dsv4_hc_ops &hc_ops() {
    static const dsv4_hc_ops table = {sizeof(dsv4_hc_ops), 0, pre, post};
    return table;
}

} // namespace dsv4::gpu
