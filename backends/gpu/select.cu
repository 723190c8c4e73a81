// The indexer: which entries of a CSA layer a token attends to (MODEL.md "Indexer"). Queries are rotated, transformed
// and rounded to FP4 once per step; scores of all visible entries go to memory; the K largest come out of a radix
// search over their bits, ties to the smaller index. Tokens that see no more than K entries take them all.
#include "backends/gpu/choose.hpp"
#include "backends/gpu/early.hpp"
#include "backends/gpu/multiply.hpp"
#include "backends/gpu/norm.hpp"
#include "backends/gpu/ops.hpp"
#include "backends/gpu/rows.hpp"
#include <algorithm>

namespace dsv4::gpu {
namespace {

constexpr int most_packed_dim = 128, packed_pitch = most_packed_dim + 32; // one group of FP4; in shared memory
constexpr int most_score_tiles = 4;                                       // of 8 keys, of a subgroup
constexpr int32_t chunk = 8192;                                           // of scores, where there are more
constexpr size_t most_scores = size_t(32) << 20;

static_assert(chunk <= most_held_scores);

struct Select {
    StepView step;
    CacheView cache;
    float *q, *weights; // [T, Hi, di], prepared in place; [T, Hi], scaled in place
    uint16_t *packed;   // [T, Hi, 128]: q in FP4's operand order, or NULL
    const float *rope;
    float *scores;          // [tokens of a slice, columns]
    int32_t *selection;     // [T, topk]
    float *candidate_score; // [tokens of a slice, candidates]: the best of every chunk of scores
    int32_t *candidate_index;
    int32_t heads, rope_dims, topk, columns, candidates, first_token;
    float weight_scale;
    bool official, exact;

    __device__ __forceinline__ int32_t visible(int32_t t) const { return (step.position[t] + 1) / 4; }
    /// Whether the token has to choose.
    __device__ __forceinline__ bool chooses(int32_t t) const { return t < step.tokens() && visible(t) > topk; }
};

/// A query of n values, prepared into v, in shared memory.
__device__ __forceinline__ void query_of_any(const Select &a, const float *q, float *v, const Turn *turns) {
    const int n = a.cache.index_dim, lane = lane_of_subgroup();
    for (int i = lane; i < n; i += subgroup_size) v[i] = q[i];
    sync_subgroup();
    float *tail = v + n - a.rope_dims;
    for (int i = lane; i < a.rope_dims / 2; i += subgroup_size) {
        const float2 x = rotated(make_float2(tail[2 * i], tail[2 * i + 1]), turns[i], a.official);
        tail[2 * i] = x.x, tail[2 * i + 1] = x.y;
    }
    sync_subgroup();
#pragma unroll 1
    for (int half = 1; half < n; half *= 2) {
        for (int p = lane; p < n / 2; p += subgroup_size) {
            const int i = p / half * 2 * half + p % half;
            const float x = v[i], y = v[i + half];
            v[i] = x + y, v[i + half] = x - y;
        }
        sync_subgroup();
    }
    const float scale = 1.0f / sqrtf(float(n));
#pragma unroll 1
    for (int block = 0; block * 32 < n; ++block) {
        const int i = block * 32 + lane;
        const float x = i < n ? settled(v[i] * scale, a.official) : 0.0f;
        const int exponent = fp4_exponent(subgroup_max(fabsf(x)));
        if (i < n) v[i] = a.exact ? x : fake_fp4(x, exponent);
    }
}

/// The same for 128 values, the same sums of them, in registers: lane l has values l, l + 32, ...
__device__ __forceinline__ void query_of_four(const Select &a, const float *q, float *v, const Turn *turns) {
    constexpr int n = 4 * subgroup_size;
    const int lane = lane_of_subgroup(), plain = n - a.rope_dims;
    float x[4];
#pragma unroll
    for (int j = 0; j < 4; ++j) x[j] = q[j * subgroup_size + lane];
#pragma unroll
    for (int j = 0; j < 4; ++j) {
        const int at = j * subgroup_size + lane;
        const float other = shuffle_xor(x[j], 1);
        if (at < plain) continue;
        const bool odd = at % 2;
        const float2 both =
            rotated(odd ? make_float2(other, x[j]) : make_float2(x[j], other), turns[(at - plain) / 2], a.official);
        x[j] = odd ? both.y : both.x;
    }
#pragma unroll
    for (int half = 1; half < subgroup_size; half *= 2)
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            const float other = shuffle_xor(x[j], half);
            x[j] = lane & half ? other - x[j] : x[j] + other;
        }
    const float low[2] = {x[0] + x[1], x[0] - x[1]}, high[2] = {x[2] + x[3], x[2] - x[3]};
    x[0] = low[0] + high[0], x[1] = low[1] + high[1], x[2] = low[0] - high[0], x[3] = low[1] - high[1];
    const float scale = 1.0f / sqrtf(float(n));
#pragma unroll
    for (int j = 0; j < 4; ++j) {
        const float y = settled(x[j] * scale, a.official);
        const int exponent = fp4_exponent(subgroup_max(fabsf(y)));
        v[j * subgroup_size + lane] = a.exact ? y : fake_fp4(y, exponent);
    }
}

/// A subgroup takes a query: rotation, Hadamard transform, rounding. Grid: heads / 8, tokens.
__global__ void __launch_bounds__(block_threads) query_kernel(Select a) {
    const auto t = int32_t(blockIdx.y);
    const int h = int(blockIdx.x) * block_subgroups + subgroup_of_block(), lane = lane_of_subgroup(),
              n = a.cache.index_dim;
    const bool chooses = a.chooses(t);
    auto *turns = dynamic_shared<Turn>();
    if (chooses) make_turns(turns, a.rope_dims, a.rope, a.step.position[t]);
    enter_product(); // the scores' kernel reads keys
    if (!chooses) return;
    __syncthreads();
    if (h >= a.heads) return; // a whole subgroup
    float *v = reinterpret_cast<float *>(turns + a.rope_dims / 2) + subgroup_of_block() * n;
    float *q = a.q + (int64_t(t) * a.heads + h) * n;
    if (n == 4 * subgroup_size) query_of_four(a, q, v, turns);
    else query_of_any(a, q, v, turns);
    sync_subgroup();
    if (lane == 0) a.weights[int64_t(t) * a.heads + h] *= a.weight_scale;
    if (!a.packed) {
        for (int i = lane; i < n; i += subgroup_size) q[i] = v[i];
        return;
    }
    if (lane < most_packed_dim / 8) {
        const int k = piece_start<Fp4>(lane);
        float x[8];
        for (int i = 0; i < 8; ++i) x[i] = k + i < n ? v[k + i] : 0.0f;
        auto *to = reinterpret_cast<uint4 *>(a.packed + (int64_t(t) * a.heads + h) * most_packed_dim);
        to[lane] = pack_piece<Fp4>(x);
    }
}

/// The 16 bytes of codes that thread t of a quad has of a key, and their scale.
__device__ __forceinline__ uint4 load_codes(const CacheView &cache, const uint8_t *row, int t, uint32_t &scale) {
    const uint8_t *at = row + t * 16;
    uint32_t w[4];
    if (cache.key_bytes % 4 == 0) {
#pragma unroll
        for (int i = 0; i < 4; ++i) w[i] = load_fresh(reinterpret_cast<const uint32_t *>(at) + i);
    } else {
#pragma unroll
        for (int i = 0; i < 4; ++i)
            w[i] = load_fresh(at + 4 * i) | load_fresh(at + 4 * i + 1) << 8 | load_fresh(at + 4 * i + 2) << 16 |
                   uint32_t(load_fresh(at + 4 * i + 3)) << 24;
    }
    scale = load_fresh(row + cache.index_dim / 2 + t);
    return make_uint4(w[0], w[1], w[2], w[3]);
}

/// Scores on the matrix units: sum_h w_h relu(q_h . k). A subgroup takes `tiles` * 8 keys. Grid: keys / (64 * tiles),
/// tokens of the slice.
template <int tiles> __global__ void __launch_bounds__(block_threads) score_kernel(Select a) {
    let_next_begin();
    constexpr int score_keys = block_subgroups * tiles * 8;
    const auto row = int32_t(blockIdx.y), token = a.first_token + row;
    const int32_t visible = a.chooses(token) ? a.visible(token) : 0, block_key = int32_t(blockIdx.x) * score_keys;
    if (block_key >= visible) return wait_for_former();
    const int padded_heads = (a.heads + 15) / 16 * 16, lane = lane_of_subgroup(), g = lane / 4, t = lane % 4;
    auto *q = dynamic_shared<uint16_t>();
    auto *weights = reinterpret_cast<float *>(q + padded_heads * packed_pitch);
    // The keys are there since before query_kernel (enter_product).
    const int32_t *table = a.step.table_of(token);
    const int32_t key0 = block_key + subgroup_of_block() * tiles * 8;
    uint32_t b[tiles][4][4];
#pragma unroll
    for (int n = 0; n < tiles; ++n) {
        const int32_t e = key0 + n * 8 + g;
        uint4 raw = make_uint4(0, 0, 0, 0);
        uint32_t scale = 127;
        if (e < visible && t * 32 < a.cache.index_dim) raw = load_codes(a.cache, a.cache.key(table, e), t, scale);
        const PairScale s = Fp4::scale(scale);
#pragma unroll
        for (int slab = 0; slab < 4; ++slab) {
            const uint32_t word[1] = {word_of(raw, slab)};
            decode_piece<Fp4>(word, s, b[n][slab]);
        }
    }
    wait_for_former();
#pragma unroll 4
    for (int i = int(threadIdx.x); i < padded_heads * 16; i += block_threads) {
        const int h = i / 16, piece = i % 16;
        uint4 v = make_uint4(0, 0, 0, 0);
        if (h < a.heads)
            v = reinterpret_cast<const uint4 *>(a.packed + (int64_t(token) * a.heads + h) * most_packed_dim)[piece];
        *reinterpret_cast<uint4 *>(q + h * packed_pitch + piece * 8) = v;
    }
    for (int h = int(threadIdx.x); h < padded_heads; h += block_threads)
        weights[h] = h < a.heads ? a.weights[int64_t(token) * a.heads + h] : 0.0f;
    __syncthreads();
    float total[tiles][2] = {};
    for (int h0 = 0; h0 < padded_heads; h0 += 16) {
        float c[tiles][4] = {};
#pragma unroll
        for (int slab = 0; slab < 4; ++slab) {
            const uint16_t *at = q + (h0 + g) * packed_pitch + slab * 32 + t * 8;
            const uint4 low = *reinterpret_cast<const uint4 *>(at),
                        high = *reinterpret_cast<const uint4 *>(at + 8 * packed_pitch);
            const uint32_t first[4] = {low.x, high.x, low.y, high.y}, second[4] = {low.z, high.z, low.w, high.w};
#pragma unroll
            for (int n = 0; n < tiles; ++n) {
                const uint32_t b0[2] = {b[n][slab][0], b[n][slab][1]}, b1[2] = {b[n][slab][2], b[n][slab][3]};
                mma_bf16_m16n8k16(c[n], first, b0);
                mma_bf16_m16n8k16(c[n], second, b1);
            }
        }
        const float low = weights[h0 + g], high = weights[h0 + g + 8];
#pragma unroll
        for (int n = 0; n < tiles; ++n)
#pragma unroll
            for (int i = 0; i < 2; ++i)
                total[n][i] = fmaf(fmaxf(c[n][i + 2], 0.0f), high, fmaf(fmaxf(c[n][i], 0.0f), low, total[n][i]));
    }
#pragma unroll
    for (int n = 0; n < tiles; ++n)
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            float v = total[n][i];
            v += shuffle_xor(v, 4);
            v += shuffle_xor(v, 8);
            v += shuffle_xor(v, 16);
            const int32_t e = key0 + n * 8 + 2 * t + i;
            if (g == 0 && e < visible) a.scores[int64_t(row) * a.columns + e] = v + 0.0f; // -0 ties with 0
        }
}

/// Scores in float32, any key format. A subgroup takes a key. Grid: keys / 64, tokens of the slice.
__global__ void __launch_bounds__(block_threads) plain_score_kernel(Select a) {
    enter_kernel();
    constexpr int each = 8;
    const auto row = int32_t(blockIdx.y), token = a.first_token + row;
    if (!a.chooses(token)) return;
    const int32_t visible = a.visible(token), *table = a.step.table_of(token);
    const int lane = lane_of_subgroup(), n = a.cache.index_dim;
    const float *q = a.q + int64_t(token) * a.heads * n;
    const int32_t first = (int32_t(blockIdx.x) * block_subgroups + subgroup_of_block()) * each;
    for (int32_t e = first; e < min(first + each, visible); ++e) {
        const uint8_t *key = a.cache.key(table, e);
        float total = 0; // lane l: heads l, l + 32, ...
        for (int h = lane; h < a.heads; h += subgroup_size) {
            float dot = 0;
            for (int i = 0; i < n; ++i) dot = fmaf(q[h * n + i], key_value(a.cache, key, i), dot);
            total = fmaf(fmaxf(dot, 0.0f), a.weights[int64_t(token) * a.heads + h], total);
        }
        total = subgroup_sum(total);
        if (lane == 0) a.scores[int64_t(row) * a.columns + e] = total + 0.0f;
    }
}

/// Long lists first lose what is not among the best of its own chunk: nothing that is among the best of all. Grid:
/// chunks, tokens of the slice.
__global__ void __launch_bounds__(choose_threads) narrow_kernel(Select a) {
    enter_kernel();
    const auto row = int32_t(blockIdx.y), token = a.first_token + row, first = int32_t(blockIdx.x) * chunk;
    if (!a.chooses(token)) return;
    const int32_t count = min(a.visible(token) - first, chunk);
    if (count <= 0 || a.visible(token) <= chunk) return;
    const float *scores = a.scores + int64_t(row) * a.columns + first;
    const int64_t at = int64_t(row) * a.candidates + int64_t(blockIdx.x) * a.topk;
    DSV4_SHARED(uint32_t, ranks, [chunk]);
    if (count > a.topk)
        return choose_held<chunk / choose_threads>(ranks, scores, nullptr, first, count, a.topk, a.candidate_index + at,
                                                   a.candidate_score + at);
    for (int32_t i = int32_t(threadIdx.x); i < count; i += choose_threads) {
        a.candidate_index[at + i] = first + i;
        a.candidate_score[at + i] = scores[i];
    }
}

/// Grid: tokens (of the slice, when there are scores).
__global__ void __launch_bounds__(choose_threads) choose_kernel(Select a) {
    let_next_begin();
    const auto row = int32_t(blockIdx.x), token = a.first_token + row;
    if (token >= a.step.tokens()) return wait_for_former();
    const int32_t visible = a.visible(token);
    wait_for_former();
    int32_t *out = a.selection + int64_t(token) * a.topk;
    if (visible <= a.topk) {
        for (int32_t i = int32_t(threadIdx.x); i < a.topk; i += choose_threads) out[i] = i < visible ? i : -1;
        return;
    }
    const float *scores = a.scores + int64_t(row) * a.columns;
    const int32_t *index = nullptr;
    int32_t count = visible;
    if (a.candidates && visible > chunk) { // topk of every chunk, and of the last what it has
        const int64_t at = int64_t(row) * a.candidates;
        scores = a.candidate_score + at, index = a.candidate_index + at;
        count = visible / chunk * a.topk + min(visible % chunk, a.topk);
    }
    choose(scores, index, 0, count, a.topk, out, nullptr);
}

} // namespace

dsv4_status attention_select(dsv4_queue *queue, const dsv4_batch *batch, const dsv4_block *block,
                             const dsv4_cache *cache, const dsv4_buffer *x, const dsv4_buffer *qr,
                             dsv4_buffer *selection, dsv4_error *err) {
    return on_device(err, *queue, [&] {
        const dsv4_shape &s = block->shape;
        const dsv4_device &device = queue->device;
        const int32_t H = s.index_heads, di = s.index_dim, tokens = batch->grid_tokens;
        if (!tokens) return;
        dsv4_queue &q = queue->beside(true);
        Select a = {};
        a.step = batch->view, a.cache = cache->view;
        a.selection = selection->ints(0);
        a.heads = H, a.rope_dims = s.rope_dims, a.topk = s.index_topk;
        a.official = device.official(), a.exact = device.exact();
        const int32_t longest = batch->grid_positions / 4;
        if (longest <= s.index_topk) { // nobody chooses
            launch_early(choose_kernel, dim3(unsigned(tokens)), choose_threads, 0, q.stream(), a);
            return;
        }
        const size_t queries = size_t(tokens) * size_t(H);
        const dsv4_queue::Early &early = queue->early;
        if (&q != queue && early.of(batch, block, x->row(0)) && early.qr == qr->row(0)) {
            a.q = early.queries, a.weights = early.weights;
            queue->early = {}; // what follows changes them in place
        } else {
            const EarlyProducts p = index_products(q, SCRATCH_A, *block, x->row(0), qr->row(0), size_t(tokens));
            linear(q, batch->token_rows(), p.products, p.count);
            a.q = p.products[0].y, a.weights = p.products[1].y;
        }
        a.rope = block->rope_frequency();
        a.weight_scale = float(std::pow(double(di), -0.5) * std::pow(double(H), -0.5));
        const bool packed = device.native() && !cache->view.keys_are_float && di % 32 == 0 && di <= most_packed_dim;
        if (packed) a.packed = q.scratch<uint16_t>(SCRATCH_C, queries * most_packed_dim);
        launch_early(query_kernel, dim3(unsigned(ceil_div(H, block_subgroups)), unsigned(tokens)), block_threads,
                     size_t(block_subgroups * di + s.rope_dims) * 4, q.stream(), a);

        a.columns = int32_t(round_up(longest, 4));
        const auto slice = int32_t(std::clamp<size_t>(most_scores / size_t(a.columns), 1, size_t(tokens)));
        a.scores = q.scratch<float>(SCRATCH_D, size_t(slice) * size_t(a.columns));
        const auto chunks = unsigned(ceil_div(longest, chunk));
        if (chunks > 1 && s.index_topk <= chunk) {
            a.candidates = int32_t(chunks) * s.index_topk;
            a.candidate_score = q.scratch<float>(SCRATCH_E, size_t(slice) * size_t(a.candidates));
            a.candidate_index = q.scratch<int32_t>(SCRATCH_F, size_t(slice) * size_t(a.candidates));
        }
        for (a.first_token = 0; a.first_token < tokens; a.first_token += slice) {
            const auto count = unsigned(std::min(slice, tokens - a.first_token));
            if (packed) {
                const auto padded_heads = size_t(round_up(H, 16));
                // A block for 64 keys until these fill the card.
                const bool few = ceil_div(longest, 64) * count <= device.properties.processors;
                const int keys = few ? 64 : 64 * most_score_tiles;
                launch_early(few ? score_kernel<1> : score_kernel<most_score_tiles>,
                             dim3(unsigned(ceil_div(longest, keys)), count), block_threads,
                             padded_heads * (packed_pitch * 2 + 4), q.stream(), a);
            } else {
                launch_early(plain_score_kernel, dim3(unsigned(ceil_div(longest, block_subgroups * 8)), count),
                             block_threads, 0, q.stream(), a);
            }
            if (a.candidates) launch_early(narrow_kernel, dim3(chunks, count), choose_threads, 0, q.stream(), a);
            launch_early(choose_kernel, dim3(count), choose_threads, 0, q.stream(), a);
        }
    });
}

} // namespace dsv4::gpu
