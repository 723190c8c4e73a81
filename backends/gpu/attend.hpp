// The attention of one token, some heads and some keys on the matrix units (attend.cu says how the pieces fit
// together).
//
// A block holds row_tiles * 16 heads; `parts` subgroups share 16 heads. Scores: each takes its part of the keys; sums:
// its part of the dims. Keys are decoded to bf16 in shared memory once and serve as keys and values. The number of
// parts does not show in the result: what is added up over keys is added tile by tile of 8 keys.
#pragma once
#include "backends/gpu/fragments.hpp"
#include "backends/gpu/norm.hpp"
#include "backends/gpu/rows.hpp"

namespace dsv4::gpu {

constexpr int most_head_dim = 512;
constexpr int key_tile = 8;

/// The sizes of a block.
template <int row_tiles_, int parts_, int keys_> struct Shape {
    static constexpr int row_tiles = row_tiles_, parts = parts_, keys = keys_;
    static constexpr int threads = row_tiles * parts * subgroup_size, heads = row_tiles * 16;
    static constexpr int tiles = keys / key_tile / parts;    // of keys, of a subgroup
    static constexpr int pairs = most_head_dim / 16 / parts; // of tiles of 8 dims, of a subgroup
    static_assert(tiles * parts * key_tile == keys);
};

struct Attend {
    StepView step;
    CacheView cache;
    const float *q;           // [T, H, d]
    float *o;                 // [T, H, d]; may be q
    const int32_t *selection; // [T, topk], -1: none; r = 4
    const float *sink, *rope; // [H], [R/2]
    float *partial, *stats;   // [T, splits, H, d] and [T, splits, H, 2]: sums; largest score and its denominator
    int32_t heads, window, topk, ratio, splits, key_count;
    float scale, eps;
    bool raw; // q: neither normalised nor rotated yet (head_kernel), and the kernel before this is its product
};

/// The keys of a token: its window, then entries.
struct KeyList {
    const Attend &a;
    int32_t slot, first, in_window, count; // first: position of the oldest window row
    int32_t entries_before;                // this step
    const int32_t *table, *selected;

    __device__ __forceinline__ KeyList(const Attend &attend, int32_t t)
        : KeyList(attend, t, attend.step.position[t], attend.step.sequence[t]) {}
    __device__ __forceinline__ KeyList(const Attend &attend, int32_t t, int32_t position, int32_t sequence)
        : a(attend) {
        slot = a.step.slot[sequence];
        in_window = min(position + 1, a.window);
        first = position + 1 - in_window;
        table = a.step.block_table + int64_t(sequence) * a.step.counts[3];
        selected = a.selection ? a.selection + int64_t(t) * a.topk : nullptr;
        const int32_t visible = a.ratio ? (position + 1) / a.ratio : 0;
        entries_before = a.ratio ? a.step.position[a.step.first[sequence]] / a.ratio : 0;
        count = in_window + (selected ? min(visible, a.topk) : visible);
    }
    /// NULL: nothing was selected there.
    __device__ __forceinline__ const uint8_t *row(int32_t k) const {
        if (k < in_window) return a.cache.window_row(slot, first + k);
        const int32_t e = selected ? load_fresh(selected + k - in_window) : k - in_window;
        return e < 0 ? nullptr : a.cache.entry(table, e);
    }
};

/// What two softmaxes over different keys become together.
struct Merge {
    float former, added; // factors
    __device__ __forceinline__ float apply(float sum, float more) const { return fmaf(more, added, sum * former); }
};
struct Softmax {
    float top = -INFINITY, sum = 0;
    __device__ __forceinline__ Merge merge(float other_top, float other_sum) {
        const float higher = fmaxf(top, other_top);
        const Merge m = {top == higher ? 1.0f : expf(top - higher),
                         other_top == higher ? 1.0f : expf(other_top - higher)};
        sum = m.apply(sum, other_sum);
        top = higher;
        return m;
    }
    __device__ __forceinline__ float denominator(float sink) const { return sum + expf(sink - top); }
};

__device__ __forceinline__ float2 turned_back(float2 v, const Turn &t) {
    return rotated(v, {t.cosine, -t.sine}, false);
}

/// Shared memory: addresses of the keys, rotations, statistics of the key tiles, heads, keys, probabilities.
struct AttendShared {
    const uint8_t **rows;
    Turn *turns;
    float *top, *sum; // [row_tiles][key tiles][16]
    uint16_t *q, *keys, *p;
};
__host__ __device__ constexpr size_t attend_bytes(int row_tiles, int keys, int head_dim) {
    return size_t(row_tiles * 16 + keys) * size_t(fragment_pitch(head_dim)) * 2 +
           size_t(row_tiles * 16 * fragment_pitch(keys)) * 2 + size_t(row_tiles * keys / key_tile) * 16 * 8 +
           size_t(head_dim) / 2 * 8 + size_t(keys) * 8;
}
template <class S> __device__ __forceinline__ AttendShared attend_shared(int head_dim) {
    constexpr int stats = S::row_tiles * S::keys / key_tile * 16;
    AttendShared s;
    s.rows = dynamic_shared<const uint8_t *>();
    s.turns = reinterpret_cast<Turn *>(s.rows + S::keys);
    s.top = reinterpret_cast<float *>(s.turns + head_dim / 2);
    s.sum = s.top + stats;
    s.q = reinterpret_cast<uint16_t *>(s.sum + stats);
    s.keys = s.q + S::heads * fragment_pitch(head_dim);
    s.p = s.keys + S::keys * fragment_pitch(head_dim);
    return s;
}

/// Eight values of a latent row: the bytes, and their scale.
struct Latents {
    uint2 a, b; // b: of bf16
    uint32_t scale;
    template <bool fresh> __device__ __forceinline__ void load(const CacheView &cache, const uint8_t *row, int i) {
        const int plain = cache.head_dim - cache.rope_dims;
        const bool tail = i >= plain;
        const auto *p = reinterpret_cast<const uint2 *>(row + (tail ? 2 * i - plain : i));
        const uint8_t *s = row + plain + 2 * cache.rope_dims + i / 64;
        a = fresh ? load_fresh(p) : p[0];
        if (tail) b = fresh ? load_fresh(p + 1) : p[1];
        else scale = fresh ? load_fresh(s) : *s;
    }
    /// As bf16, exactly.
    __device__ __forceinline__ uint4 decoded(const CacheView &cache, int i) const {
        if (i >= cache.head_dim - cache.rope_dims) return make_uint4(a.x, a.y, b.x, b.y);
        const uint32_t words[2] = {a.x, a.y};
        uint32_t out[4];
        decode_piece<Fp8>(words, Fp8::scale(scale), out); // 0 2, 1 3, 4 6, 5 7
        return make_uint4(__byte_perm(out[0], out[1], 0x5410), __byte_perm(out[0], out[1], 0x7632),
                          __byte_perm(out[2], out[3], 0x5410), __byte_perm(out[2], out[3], 0x7632));
    }
};

/// Keys [begin, begin + keys) of the list into shared memory; zeros where there is none. A subgroup takes whole rows.
/// fresh: past the first-level cache.
template <class S, bool fresh>
__device__ __forceinline__ void stage_keys(const KeyList &list, int32_t begin, const AttendShared &s) {
    constexpr int subgroups = S::threads / subgroup_size, together = fresh ? 8 : 4; // rows, their loads in flight
    static_assert(S::keys % (subgroups * together) == 0);
    const CacheView &cache = list.a.cache;
    const int width = (cache.head_dim + 31) / 32 * 32, pitch = fragment_pitch(cache.head_dim);
    if (int(threadIdx.x) < S::keys) {
        const int32_t k = begin + int32_t(threadIdx.x);
        s.rows[threadIdx.x] = k < list.count ? list.row(k) : nullptr;
    }
    __syncthreads();
#pragma unroll 1
    for (int k0 = subgroup_of_block(); k0 < S::keys; k0 += subgroups * together)
#pragma unroll 1
        for (int at = lane_of_subgroup() * 8; at < width; at += subgroup_size * 8) {
            Latents raw[together];
#pragma unroll
            for (int n = 0; n < together; ++n) {
                const uint8_t *row = s.rows[k0 + n * subgroups];
                raw[n] = {};
                if (row && at < cache.head_dim) raw[n].template load<fresh>(cache, row, at);
            }
#pragma unroll
            for (int n = 0; n < together; ++n)
                *reinterpret_cast<uint4 *>(s.keys + (k0 + n * subgroups) * pitch + at) = raw[n].decoded(cache, at);
        }
}

/// Scores of the subgroup's keys -> probabilities in shared memory, relative to the largest score of the split; that
/// score and the sum of all probabilities, for the thread's two rows.
template <class S>
__device__ __forceinline__ void score_keys(const Attend &a, const AttendShared &s, Softmax (&split)[2]) {
    constexpr int tiles = S::tiles, all_tiles = S::keys / key_tile;
    const int lane = lane_of_subgroup(), g = lane / 4, t = lane % 4;
    const int row_tile = subgroup_of_block() / S::parts, first_tile = subgroup_of_block() % S::parts * tiles;
    const int pitch = fragment_pitch(a.cache.head_dim), p_pitch = fragment_pitch(S::keys);
    const uint16_t *q = s.q + row_tile * 16 * pitch;
    float *tops = s.top + row_tile * all_tiles * 16, *sums = s.sum + row_tile * all_tiles * 16;
    float c[tiles][4] = {};
    for (int k = 0; k < a.cache.head_dim; k += 32) {
        uint32_t first[4], second[4];
        load_a(first, q + k, pitch);
        load_a(second, q + k + 16, pitch);
#pragma unroll
        for (int n = 0; n < tiles; ++n) {
            uint32_t b[4];
            load_b(b, s.keys + (first_tile + n) * key_tile * pitch + k, pitch);
            const uint32_t b0[2] = {b[0], b[1]}, b1[2] = {b[2], b[3]};
            mma_bf16_m16n8k16(c[n], first, b0);
            mma_bf16_m16n8k16(c[n], second, b1);
        }
    }
#pragma unroll
    for (int n = 0; n < tiles; ++n) {
        float top[2] = {-INFINITY, -INFINITY};
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const bool there = s.rows[(first_tile + n) * key_tile + 2 * t + i % 2] != nullptr;
            c[n][i] = there ? c[n][i] * a.scale : -INFINITY;
            top[i / 2] = fmaxf(top[i / 2], c[n][i]);
        }
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            top[half] = fmaxf(top[half], shuffle_xor(top[half], 1));
            top[half] = fmaxf(top[half], shuffle_xor(top[half], 2));
            if (t == 0) tops[(first_tile + n) * 16 + g + 8 * half] = top[half];
        }
    }
    __syncthreads();
    float top[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        top[half] = -INFINITY;
#pragma unroll
        for (int n = 0; n < all_tiles; ++n) top[half] = fmaxf(top[half], tops[n * 16 + g + 8 * half]);
    }
    uint16_t *p = s.p + (row_tile * 16 + g) * p_pitch + first_tile * key_tile + 2 * t;
#pragma unroll
    for (int n = 0; n < tiles; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) c[n][i] = c[n][i] == -INFINITY ? 0.0f : expf(c[n][i] - top[i / 2]);
        *reinterpret_cast<uint32_t *>(p + n * key_tile) = pack_bf16(c[n][0], c[n][1]);
        *reinterpret_cast<uint32_t *>(p + 8 * p_pitch + n * key_tile) = pack_bf16(c[n][2], c[n][3]);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            float sum = c[n][2 * half] + c[n][2 * half + 1];
            sum += shuffle_xor(sum, 1);
            sum += shuffle_xor(sum, 2);
            if (t == 0) sums[(first_tile + n) * 16 + g + 8 * half] = sum;
        }
    }
    __syncthreads();
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        float sum = 0;
#pragma unroll
        for (int n = 0; n < all_tiles; ++n) sum += sums[n * 16 + g + 8 * half];
        split[half].top = top[half], split[half].sum = sum;
    }
}

/// Probabilities times the subgroup's dims of the keys: `pairs` tiles of 16 from `first_pair`.
template <class S>
__device__ __forceinline__ void sum_values(const Attend &a, const AttendShared &s, int first_pair, int pairs,
                                           float (&c)[2 * S::pairs][4]) {
    const int row_tile = subgroup_of_block() / S::parts;
    const int pitch = fragment_pitch(a.cache.head_dim), p_pitch = fragment_pitch(S::keys);
#pragma unroll
    for (int n = 0; n < 2 * S::pairs; ++n) c[n][0] = c[n][1] = c[n][2] = c[n][3] = 0;
#pragma unroll
    for (int k = 0; k < S::keys; k += 16) {
        uint32_t p[4];
        load_a(p, s.p + row_tile * 16 * p_pitch + k, p_pitch);
#pragma unroll
        for (int n = 0; n < S::pairs; ++n) {
            if (n >= pairs) break;
            uint32_t b[4];
            load_b_transposed(b, s.keys + k * pitch + (first_pair + n) * 16, pitch);
            const uint32_t b0[2] = {b[0], b[1]}, b1[2] = {b[2], b[3]};
            mma_bf16_m16n8k16(c[2 * n], p, b0);
            mma_bf16_m16n8k16(c[2 * n + 1], p, b1);
        }
    }
}

/// The pair of a raw head that this thread rotates (or one that is not there), and how.
struct RawTurn {
    int pair;
    Turn turn;
    __device__ __forceinline__ RawTurn(const Attend &a, int32_t position) {
        const int plain = (a.cache.head_dim - a.cache.rope_dims) / 2;
        pair = plain + (lane_of_subgroup() + subgroup_size - plain % subgroup_size) % subgroup_size;
        turn = turn_at(position, pair < a.cache.head_dim / 2 ? a.rope[pair - plain] : 0.0f);
    }
};

/// The heads of a block, from `first`, as bf16 into shared memory, as head_kernel leaves them: normalised, then
/// rotated. At most 32 pairs are rotated.
template <class S>
__device__ __forceinline__ void stage_raw_heads(const Attend &a, const AttendShared &s, int32_t token, int first,
                                                const RawTurn &raw) {
    constexpr int held = most_head_dim / 2 / subgroup_size, every = S::threads / subgroup_size, two = 2;
    static_assert(S::heads % (two * every) == 0);
    const int d = a.cache.head_dim, pairs = d / 2, pitch = fragment_pitch(d), lane = lane_of_subgroup();
#pragma unroll 1
    for (int h0 = subgroup_of_block(); h0 < S::heads; h0 += two * every) { // two heads' loads in flight
        float2 v[two][held];
#pragma unroll
        for (int n = 0; n < two; ++n) {
            const int h = h0 + n * every;
            const auto *q = reinterpret_cast<const float2 *>(a.q + (int64_t(token) * a.heads + first + h) * d);
#pragma unroll
            for (int j = 0; j < held; ++j) {
                const int i = lane + j * subgroup_size;
                v[n][j] = first + h < a.heads && i < pairs ? q[i] : make_float2(0, 0);
            }
        }
#pragma unroll
        for (int n = 0; n < two; ++n) {
            float sum = 0;
#pragma unroll
            for (int j = 0; j < held; ++j) sum = fmaf(v[n][j].y, v[n][j].y, fmaf(v[n][j].x, v[n][j].x, sum));
            const float r = 1.0f / sqrtf(subgroup_sum(sum) / float(d) + a.eps);
#pragma unroll
            for (int j = 0; j < held; ++j) {
                const int i = lane + j * subgroup_size;
                float2 x = make_float2(v[n][j].x * r, v[n][j].y * r);
                if (i == raw.pair) x = rotated(x, raw.turn, false);
                if (2 * i < (d + 31) / 32 * 32)
                    *reinterpret_cast<uint32_t *>(s.q + (h0 + n * every) * pitch + 2 * i) = pack_bf16(x.x, x.y);
            }
        }
    }
}

/// Grid: groups of heads; splits, or 1 when `whole`; tokens.
template <class S, bool whole> __global__ void __launch_bounds__(S::threads, 1) split_kernel(Attend a) {
    let_next_begin();
    const auto token = int32_t(blockIdx.z);
    const int32_t position = a.step.position[token], sequence = a.step.sequence[token]; // loads together
    if (token >= a.step.tokens()) return wait_for_former();
    const KeyList list(a, token, position, sequence);
    const int32_t first_split = whole ? 0 : int32_t(blockIdx.y);
    const int32_t end_split = whole ? int32_t(ceil_div(list.count, S::keys)) : first_split + 1;
    if (first_split * S::keys >= list.count) return wait_for_former();
    const int d = a.cache.head_dim, plain = d - a.cache.rope_dims, pitch = fragment_pitch(d);
    const int lane = lane_of_subgroup(), g = lane / 4, t = lane % 4, part = subgroup_of_block() % S::parts;
    const int head0 = int(blockIdx.x) * S::heads, head = head0 + subgroup_of_block() / S::parts * 16 + g;
    const int all_pairs = d / 16, each = (all_pairs + S::parts - 1) / S::parts, first_pair = part * each;
    const int pairs = max(0, min(each, all_pairs - first_pair));
    const AttendShared s = attend_shared<S>(d);

    if constexpr (whole) wait_for_former();
    else {
        const RawTurn turn(a, position);
        // raw: the window is there since before the product (enter_product), and so are entries of earlier steps. Those
        // of this step and what was selected come from beside, of which nothing is known before the wait.
        const int32_t end = min((first_split + 1) * S::keys, list.count);
        const bool early = a.raw && end <= list.in_window + (a.ratio && !a.selection ? list.entries_before : 0);
        if (!early) wait_for_former();
        stage_keys<S, true>(list, first_split * S::keys, s);
        if (early) wait_for_former();
        if (a.raw) stage_raw_heads<S>(a, s, token, head0, turn);
    }
    if (whole || !a.raw)
#pragma unroll 1
        for (int h = subgroup_of_block(); h < S::heads; h += S::threads / subgroup_size)
#pragma unroll 2
            for (int at = lane * 8; at < (d + 31) / 32 * 32; at += subgroup_size * 8) {
                uint4 v = make_uint4(0, 0, 0, 0);
                if (head0 + h < a.heads && at < d) {
                    const auto *p =
                        reinterpret_cast<const float4 *>(a.q + (int64_t(token) * a.heads + head0 + h) * d + at);
                    const float4 x = p[0], y = p[1];
                    v = make_uint4(pack_bf16(x.x, x.y), pack_bf16(x.z, x.w), pack_bf16(y.x, y.y), pack_bf16(y.z, y.w));
                }
                *reinterpret_cast<uint4 *>(s.q + h * pitch + at) = v;
            }
    if (whole)
        for (int i = int(threadIdx.x); i < a.cache.rope_dims / 2; i += S::threads)
            s.turns[i] = turn_at(position, a.rope[i]);

    Softmax state[2];
    float sum[whole ? 2 * S::pairs : 1][4] = {};
    for (int32_t split = first_split; split < end_split; ++split) {
        if (split != first_split) __syncthreads();
        if (whole) stage_keys<S, false>(list, split * S::keys, s);
        __syncthreads();
        Softmax mine[2];
        score_keys<S>(a, s, mine);
        float c[2 * S::pairs][4];
        sum_values<S>(a, s, first_pair, pairs, c);
        if constexpr (whole) {
            const Merge m[2] = {state[0].merge(mine[0].top, mine[0].sum), state[1].merge(mine[1].top, mine[1].sum)};
#pragma unroll
            for (int n = 0; n < 2 * S::pairs; ++n)
#pragma unroll
                for (int i = 0; i < 4; ++i) sum[n][i] = m[i / 2].apply(sum[n][i], c[n][i]);
        } else {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const int h = head + 8 * half;
                if (h >= a.heads) continue;
                const int64_t at = (int64_t(token) * a.splits + split) * a.heads + h;
                if (part == 0 && t == 0) a.stats[2 * at] = mine[half].top, a.stats[2 * at + 1] = mine[half].sum;
#pragma unroll
                for (int n = 0; n < 2 * S::pairs; ++n)
                    if (n < 2 * pairs)
                        *reinterpret_cast<float2 *>(a.partial + at * d + first_pair * 16 + n * 8 + 2 * t) =
                            make_float2(c[n][2 * half], c[n][2 * half + 1]);
            }
        }
    }
    if constexpr (whole) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int h = head + 8 * half;
            if (h >= a.heads) continue;
            const float all = state[half].denominator(a.sink[h]);
            float *out = a.o + (int64_t(token) * a.heads + h) * d;
#pragma unroll
            for (int n = 0; n < 2 * S::pairs; ++n) {
                const int i = first_pair * 16 + n * 8 + 2 * t;
                if (n >= 2 * pairs) continue;
                float2 v = make_float2(sum[n][2 * half] / all, sum[n][2 * half + 1] / all);
                if (i >= plain) v = turned_back(v, s.turns[(i - plain) / 2]);
                *reinterpret_cast<float2 *>(out + i) = v;
            }
        }
    }
}

} // namespace dsv4::gpu
