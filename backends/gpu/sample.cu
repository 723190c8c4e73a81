// Family sample: logits to tokens (dsv4_backend.h, "Sampling"). Three kernels: one finds the largest of every part of a
// row, one weighs the tokens, one chooses. What top_k and top_p leave is found by a search over the bits of the
// distances, with counts and sums of weights per bin: of integers, so that no order of threads shows.
#include "backends/gpu/ops.hpp"
#include "backends/gpu/sampler.hpp"
#include "backends/gpu/scan.hpp"
#include "backends/sampling.hpp"

namespace dsv4::gpu {
namespace {

using sampling::out;
using Sum = unsigned long long; // what atomicAdd knows on every platform

constexpr int part_threads = 256, part_tokens = 4096; // of a block of the first two kernels
constexpr int pick_threads = 1024;
constexpr int coarse_shift = 19, coarse_bins = 41 << (24 - coarse_shift); // 32 bins an octave
constexpr int fine_shift = 9;                                             // then 10 bits, then 9

struct Sample {
    StepView step;
    SamplerView sampler;
    const float *logits; // [outputs, V]
    int32_t vocab, parts;
    int32_t width;      // V rounded up to 4; what is behind the last token is out
    uint32_t *x;        // [outputs, width]: x as bits, -infinity where a token is out; then distances
    uint64_t *best;     // [outputs, parts]: rank of x, then the smaller id; 1: NaN alone; 0: nothing
    uint64_t *part_sum; // [outputs, parts]
    uint32_t *part_count;
    Sum *sums; // [outputs, coarse_bins]
    uint32_t *counts;
};

constexpr uint64_t nan_alone = 1, least_best = uint64_t(1) << 32;

/// Bits that order as numbers do, NaN and -infinity aside; 0 and -0 alike.
__device__ __forceinline__ uint32_t rank_of_number(float x) {
    const uint32_t u = x == 0.0f ? 0u : bits_of(x);
    return u & 0x80000000u ? ~u : u | 0x80000000u;
}
__device__ __forceinline__ float number_of_rank(uint32_t u) { return float_of(u & 0x80000000u ? u & 0x7FFFFFFFu : ~u); }

/// Biases and masks, and the largest of each part. Grid: parts, outputs.
__global__ void __launch_bounds__(part_threads) sample_largest(Sample a) {
    enter_kernel();
    DSV4_SHARED(float, x, [part_tokens]);
    DSV4_SHARED(uint64_t, scratch, [32]);
    const auto me = int32_t(threadIdx.x), part = int32_t(blockIdx.x), row = int32_t(blockIdx.y);
    if (row >= a.step.outputs() || a.sampler.kind(row) == DSV4_SAMPLE_NOTHING) return; // a whole block
    const Wish &wish = a.sampler.wishes[row];
    for (int32_t i = part * part_threads + me; i < coarse_bins; i += a.parts * part_threads) {
        a.sums[int64_t(row) * coarse_bins + i] = 0;
        a.counts[int64_t(row) * coarse_bins + i] = 0;
    }
    const int32_t first = part * part_tokens, n = min(part_tokens, a.vocab - first);
    const float *logits = a.logits + int64_t(row) * a.vocab + first;
    for (int32_t i = me; i < n; i += part_threads) x[i] = logits[i];
    __syncthreads();
    const dsv4_logit_bias *bias = a.sampler.bias;
    for (int32_t b = wish.first_bias + me; b < wish.end_bias; b += part_threads) {
        const int32_t token = bias[b].token;
        if (token < first || token >= first + n || (b > wish.first_bias && bias[b - 1].token == token)) continue;
        for (int32_t c = b; c < wish.end_bias && bias[c].token == token; ++c) x[token - first] += bias[c].bias;
    }
    __syncthreads();
    const uint64_t *allowed = wish.masked ? a.sampler.allowed + int64_t(row) * a.sampler.words : nullptr;
    uint32_t *to = a.x + int64_t(row) * a.width + first;
    if (first + n == a.vocab && me < a.width - a.vocab) to[n + me] = bits_of(-INFINITY);
    uint64_t best = 0;
    for (int32_t i = me; i < n; i += part_threads) {
        const int32_t token = first + i;
        const bool may = !allowed || (allowed[token >> 6] >> (token & 63) & 1);
        const bool in = may && x[i] > -INFINITY; // NaN is not
        if (may && x[i] != x[i]) best = best > nan_alone ? best : nan_alone;
        if (in) {
            const uint64_t mine = uint64_t(rank_of_number(x[i])) << 32 | uint32_t(~token);
            best = mine > best ? mine : best;
        }
        to[i] = bits_of(in ? x[i] : -INFINITY);
    }
    best = block_max(best, scratch);
    if (me == 0) a.best[int64_t(row) * a.parts + part] = best;
}

/// The largest of a row, to every thread of the block.
__device__ __forceinline__ uint64_t best_of_row(const Sample &a, int32_t row, uint64_t *scratch) {
    uint64_t best = 0;
    for (auto p = int32_t(threadIdx.x); p < a.parts; p += int32_t(blockDim.x)) {
        const uint64_t other = a.best[int64_t(row) * a.parts + p];
        best = other > best ? other : best;
    }
    return block_max(best, scratch);
}

/// Distances, and the weights of each part; per coarse bin too where top_k or top_p will ask. Grid: parts, outputs.
__global__ void __launch_bounds__(part_threads) sample_weigh(Sample a) {
    enter_kernel();
    DSV4_SHARED(Sum, sums, [coarse_bins]);
    DSV4_SHARED(uint32_t, counts, [coarse_bins]);
    DSV4_SHARED(uint64_t, scratch, [3][32]);
    const auto me = int32_t(threadIdx.x), part = int32_t(blockIdx.x), row = int32_t(blockIdx.y);
    if (row >= a.step.outputs() || a.sampler.kind(row) != DSV4_SAMPLE_DRAW) return; // a whole block
    const Wish &wish = a.sampler.wishes[row];
    const uint64_t best = best_of_row(a, row, scratch[0]);
    if (best < least_best) return; // a whole block
    const float top = number_of_rank(uint32_t(best >> 32)), scale = wish.scale;
    const uint64_t least = wish.least > 1 ? wish.least : 1;
    const bool bins = wish.top_k || wish.top_p;
    if (bins) {
        for (int32_t i = me; i < coarse_bins; i += part_threads) sums[i] = 0, counts[i] = 0;
        __syncthreads();
    }
    const int32_t first = part * part_tokens, n = min(part_tokens, a.width - first);
    uint32_t *x = a.x + int64_t(row) * a.width + first;
    uint64_t sum = 0;
    uint32_t count = 0;
    for (int32_t i = me; i < n; i += part_threads) {
        const float v = float_of(x[i]);
        uint32_t t = v > -INFINITY ? sampling::distance(top, v, scale) : out;
        const uint64_t w = t == out ? 0 : sampling::weight(t);
        if (w < least) t = out;
        x[i] = t;
        if (t == out) continue;
        sum += w;
        ++count;
        if (bins) {
            atomicAdd(&sums[t >> coarse_shift], Sum(w));
            atomicAdd(&counts[t >> coarse_shift], 1u);
        }
    }
    sum = block_sum(sum, scratch[1]);
    const uint64_t all = block_sum(uint64_t(count), scratch[2]);
    if (me == 0) {
        a.part_sum[int64_t(row) * a.parts + part] = sum;
        a.part_count[int64_t(row) * a.parts + part] = uint32_t(all);
    }
    if (!bins) return; // a whole block
    __syncthreads();
    for (int32_t i = me; i < coarse_bins; i += part_threads)
        if (counts[i]) {
            atomicAdd(&a.sums[int64_t(row) * coarse_bins + i], sums[i]);
            atomicAdd(&a.counts[int64_t(row) * coarse_bins + i], counts[i]);
        }
}

/// A beginning of the order "likeliest first": distances under t, and the first `ties` ids of those that are t.
struct Cut {
    uint32_t t, ties;
    uint64_t sum; // of its weights
};

/// The shared memory of the last kernel.
struct Search {
    Sum sums[coarse_bins];
    uint32_t counts[coarse_bins];
    uint64_t scratch[32];
    uint64_t found[3]; // the bin that reaches the target, count and sum before it
};

/// The bin of `bins` with which the count, or the sum, reaches target; before: what lies in front of the bins.
__device__ __forceinline__ int32_t reaching_bin(Search &s, int bins, bool by_sum, uint64_t target,
                                                uint64_t &count_before, uint64_t &sum_before) {
    static_assert(coarse_bins <= 2 * pick_threads, "a thread has two bins");
    const int first = 2 * int(threadIdx.x);
    uint64_t count[2] = {}, sum[2] = {};
    for (int i = 0; i < 2; ++i)
        if (first + i < bins) count[i] = s.counts[first + i], sum[i] = s.sums[first + i];
    uint64_t all;
    uint64_t counted = count_before + exclusive_sum(count[0] + count[1], s.scratch, all);
    uint64_t summed = sum_before + exclusive_sum(sum[0] + sum[1], s.scratch, all);
    for (int i = 0; i < 2; ++i) {
        const uint64_t before = by_sum ? summed : counted;
        if (before < target && before + (by_sum ? sum[i] : count[i]) >= target)
            s.found[0] = uint64_t(first + i), s.found[1] = counted, s.found[2] = summed;
        counted += count[i];
        summed += sum[i];
    }
    __syncthreads();
    const auto bin = int32_t(s.found[0]);
    count_before = s.found[1];
    sum_before = s.found[2];
    __syncthreads();
    return bin;
}

/// The shortest beginning with so many tokens, or at least such a sum, of a row that has them.
__device__ __forceinline__ Cut find_cut(const Sample &a, int32_t row, Search &s, bool by_sum, uint64_t target) {
    const auto me = int32_t(threadIdx.x);
    const auto *distance = reinterpret_cast<const uint4 *>(a.x + int64_t(row) * a.width);
    uint64_t count = 0, sum = 0;
    for (int32_t i = me; i < coarse_bins; i += pick_threads) {
        s.sums[i] = a.sums[int64_t(row) * coarse_bins + i];
        s.counts[i] = a.counts[int64_t(row) * coarse_bins + i];
    }
    __syncthreads();
    uint32_t t = uint32_t(reaching_bin(s, coarse_bins, by_sum, target, count, sum)) << coarse_shift;
    for (int level = 0; level < 2; ++level) { // the bits from `known` on are
        const int known = level ? fine_shift : coarse_shift, shift = level ? 0 : fine_shift,
                  bins = 1 << (known - shift);
        for (int32_t i = me; i < bins; i += pick_threads) s.sums[i] = 0, s.counts[i] = 0;
        __syncthreads();
        for (int32_t i = me; i < a.width / 4; i += pick_threads) {
            const uint4 four = distance[i];
            const uint32_t four_t[] = {four.x, four.y, four.z, four.w};
            for (int k = 0; k < 4; ++k) {
                const uint32_t d = four_t[k];
                if (d >> known != t >> known) continue; // that of tokens that are out is none of them
                atomicAdd(&s.sums[d >> shift & uint32_t(bins - 1)], Sum(sampling::weight(d)));
                atomicAdd(&s.counts[d >> shift & uint32_t(bins - 1)], 1u);
            }
        }
        __syncthreads();
        t |= uint32_t(reaching_bin(s, bins, by_sum, target, count, sum)) << shift;
    }
    const uint64_t w = sampling::weight(t), ties = by_sum ? (target - sum + w - 1) / w : target - count;
    return {t, uint32_t(ties), sum + ties * w};
}

/// The token. A block has a row; grid: outputs.
__global__ void __launch_bounds__(pick_threads) sample_pick(Sample a) {
    enter_kernel();
    DSV4_SHARED(Search, s, [1]);
    DSV4_SHARED(uint64_t, segment_sum, [32]);
    DSV4_SHARED(uint32_t, segment_ties, [32]);
    DSV4_SHARED(uint64_t, scratch, [3][32]);
    const auto me = int32_t(threadIdx.x), row = int32_t(blockIdx.x);
    if (row >= a.step.outputs()) return;
    const int32_t kind = a.sampler.kind(row);
    if (kind == DSV4_SAMPLE_NOTHING) { // a whole block
        if (me == 0) a.sampler.ids[row] = DSV4_SAMPLED_NOTHING;
        return;
    }
    const Wish &wish = a.sampler.wishes[row];
    const uint64_t best = best_of_row(a, row, scratch[0]);
    if (best < least_best || kind == DSV4_SAMPLE_LARGEST) { // a whole block
        if (me == 0)
            a.sampler.ids[row] = best >= least_best  ? ~int32_t(uint32_t(best))
                                 : best == nan_alone ? int32_t(DSV4_SAMPLED_NOT_A_NUMBER)
                                                     : int32_t(DSV4_SAMPLED_FORBIDDEN);
        return;
    }

    uint64_t sum = 0, count = 0;
    for (int32_t p = me; p < a.parts; p += pick_threads) {
        sum += a.part_sum[int64_t(row) * a.parts + p];
        count += a.part_count[int64_t(row) * a.parts + p];
    }
    Cut cut{out, 0, block_sum(sum, scratch[1])};
    count = block_sum(count, scratch[2]);
    if (wish.top_k && wish.top_k < count) cut = find_cut(a, row, s[0], false, wish.top_k);
    if (wish.top_p) cut = find_cut(a, row, s[0], true, sampling::wanted_sum(cut.sum, wish.top_p));

    // Where in the order of ids: a subgroup has a segment of it, then the block has the segment that it is in.
    const uint64_t place = sampling::high_product(wish.random, cut.sum);
    const uint64_t w_of_ties = cut.ties ? sampling::weight(cut.t) : 0;
    const uint32_t *distance = a.x + int64_t(row) * a.width;
    const auto *fours = reinterpret_cast<const uint4 *>(distance);
    const int32_t each = int32_t(ceil_div(a.width / 4, 32)) * 4;
    {
        const int32_t begin = min(subgroup_of_block() * each, a.width), end = min(begin + each, a.width);
        uint64_t below = 0;
        uint32_t ties = 0;
        for (int32_t i = begin / 4 + lane_of_subgroup(); i < end / 4; i += subgroup_size) {
            const uint4 four = fours[i];
            const uint32_t four_t[] = {four.x, four.y, four.z, four.w};
            for (int k = 0; k < 4; ++k) {
                if (four_t[k] < cut.t) below += sampling::weight(four_t[k]);
                ties += cut.ties && four_t[k] == cut.t;
            }
        }
        below = subgroup_sum(below);
        ties = subgroup_sum(ties);
        if (lane_of_subgroup() == 0) segment_sum[subgroup_of_block()] = below, segment_ties[subgroup_of_block()] = ties;
    }
    __syncthreads();
    uint64_t before = 0;
    uint32_t ties_left = cut.ties;
    int32_t segment = 0;
    for (; segment < 31; ++segment) {
        const uint32_t ties = min(segment_ties[segment], ties_left);
        const uint64_t with = before + segment_sum[segment] + ties * w_of_ties;
        if (with > place) break;
        before = with;
        ties_left -= ties;
    }
    const int32_t end = min((segment + 1) * each, a.width), piece = int32_t(ceil_div(each, pick_threads));
    const int32_t from = min(segment * each + me * piece, end), to = min(from + piece, end);
    uint64_t below = 0, all;
    uint64_t ties = 0;
    for (int32_t i = from; i < to; ++i) {
        const uint32_t t = distance[i];
        if (t < cut.t) below += sampling::weight(t);
        ties += cut.ties && t == cut.t;
    }
    before += exclusive_sum(below, s[0].scratch, all);
    const uint64_t ties_before = exclusive_sum(ties, s[0].scratch, all);
    const uint64_t taken = ties_before < ties_left ? ties_before : ties_left;
    before += taken * w_of_ties;
    ties_left -= uint32_t(taken);
    for (int32_t i = from; i < to; ++i) {
        const uint32_t t = distance[i];
        uint64_t w = 0;
        if (t < cut.t) w = sampling::weight(t);
        else if (ties_left && t == cut.t) w = w_of_ties, --ties_left;
        if (before <= place && place < before + w) a.sampler.ids[row] = i;
        before += w;
    }
}

dsv4_status sample(dsv4_queue *queue, const dsv4_batch *batch, dsv4_sampler *sampler, const dsv4_buffer *logits,
                   dsv4_error *err) {
    return on_device(err, *queue, [&] {
        const int32_t rows = batch->grid_outputs, V = sampler->vocab;
        if (!sampler->is_set) throw Failure(DSV4_E_INVALID, "sample: the sampler was never set");
        if (rows > sampler->max_rows || rows > logits->rows || logits->width != V)
            throw Failure(DSV4_E_INVALID, "sample: " + std::to_string(rows) + " outputs of " +
                                              std::to_string(logits->rows) + " x " + std::to_string(logits->width) +
                                              " logits, for a sampler of " + std::to_string(sampler->max_rows) + " x " +
                                              std::to_string(V));
        const auto parts = int32_t(ceil_div(V, part_tokens));
        const auto R = size_t(rows), P = R * size_t(parts), B = R * size_t(coarse_bins);
        auto *best = queue->scratch<uint64_t>(SCRATCH_B, 3 * P); // [best][sum][count]
        auto *sums = queue->scratch<Sum>(SCRATCH_C, B);
        const auto width = int32_t(round_up(V, 4));
        const Sample a{batch->view,
                       sampler->view,
                       logits->row(0),
                       V,
                       parts,
                       width,
                       queue->scratch<uint32_t>(SCRATCH_A, R * size_t(width)),
                       best,
                       best + P,
                       reinterpret_cast<uint32_t *>(best + 2 * P),
                       sums,
                       queue->scratch<uint32_t>(SCRATCH_D, B)};
        const dim3 grid{unsigned(parts), unsigned(rows)};
        launch_early(sample_largest, grid, dim3(part_threads), 0, queue->stream(), a);
        launch_early(sample_weigh, grid, dim3(part_threads), 0, queue->stream(), a);
        launch_early(sample_pick, dim3(unsigned(rows)), dim3(pick_threads), 0, queue->stream(), a);
    });
}

} // namespace

const dsv4_sample_ops &sample_ops() {
    static const dsv4_sample_ops table = {
        sizeof(dsv4_sample_ops), 0, sampler_create, sampler_release, sampler_set, sample, sampler_read};
    return table;
}

} // namespace dsv4::gpu
