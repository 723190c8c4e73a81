// The largest of a list of scores, exactly: a radix search over their bits, 11, 11 and 10 at a time, ties to the
// earlier.
#pragma once
#include "backends/gpu/scan.hpp"

namespace dsv4::gpu {

constexpr int choose_threads = 512, choose_bins = 2048, most_kept = 8192; // scores that a block keeps at hand

/// Bits that order as the scores do.
__device__ __forceinline__ uint32_t rank_of(float score) {
    const uint32_t u = bits_of(score);
    return u & 0x80000000u ? ~u : u | 0x80000000u;
}

/// The `wanted` best of `count` > wanted scores, by a block of choose_threads: their indices in the order of the list,
/// to `out`, and the scores, unless NULL. The index of element i is index[i], or first + i.
__device__ __forceinline__ void choose(const float *given, const int32_t *index, int32_t first, int32_t count,
                                       int32_t wanted, int32_t *out, float *out_scores) {
    DSV4_SHARED(float, kept, [most_kept]);
    DSV4_SHARED(int, histogram, [choose_bins]);
    DSV4_SHARED(int, scratch, [32]);
    DSV4_SHARED(int, found, [2]); // the bin of the threshold, and how many of it are wanted
    const auto me = int32_t(threadIdx.x);
    const float *scores = given;
    if (count <= most_kept) {
#pragma unroll 4
        for (int32_t e = me; e < count; e += choose_threads) kept[e] = given[e];
        scores = kept;
    }
    uint32_t threshold = 0; // its upper bits, as far as they are known
#pragma unroll 1
    for (int pass = 0; pass < 3; ++pass) {
        const int shift = pass == 0 ? 21 : pass == 1 ? 10 : 0, known = pass == 1 ? 21 : 10;
        const uint32_t mask = pass == 2 ? 1023u : 2047u;
        for (int i = me; i < choose_bins; i += choose_threads) histogram[i] = 0;
        __syncthreads();
#pragma unroll 1
        for (int32_t e = me; e < count; e += choose_threads) {
            const uint32_t u = rank_of(scores[e]);
            if (pass == 0 || u >> known == threshold >> known) atomicAdd(&histogram[u >> shift & mask], 1);
        }
        __syncthreads();
        // Bins from the top: thread i has 4 of them.
        int mine[4], sum = 0, all;
        for (int i = 0; i < 4; ++i) sum += mine[i] = histogram[choose_bins - 1 - (4 * me + i)];
        int above = exclusive_sum(sum, scratch, all);
        for (int i = 0; i < 4; ++i) {
            if (above < wanted && above + mine[i] >= wanted)
                found[0] = choose_bins - 1 - (4 * me + i), found[1] = wanted - above;
            above += mine[i];
        }
        __syncthreads();
        threshold |= uint32_t(found[0]) << shift;
        wanted = found[1];
        __syncthreads();
    }
    // Everything above the threshold, and the first `wanted` at it.
    const int32_t each = int32_t(ceil_div(count, choose_threads)), begin = min(me * each, count),
                  end = min(begin + each, count);
    int above = 0, equal = 0, all;
#pragma unroll 1
    for (int32_t e = begin; e < end; ++e) {
        const uint32_t u = rank_of(scores[e]);
        above += u > threshold;
        equal += u == threshold;
    }
    int above_before = exclusive_sum(above, scratch, all), equal_before = exclusive_sum(equal, scratch, all);
#pragma unroll 1
    for (int32_t e = begin; e < end; ++e) {
        const uint32_t u = rank_of(scores[e]);
        if (u > threshold || (u == threshold && equal_before < wanted)) {
            const int at = above_before + min(equal_before, wanted);
            out[at] = index ? index[e] : first + e;
            if (out_scores) out_scores[at] = scores[e];
        }
        above_before += u > threshold;
        equal_before += u == threshold;
    }
}

} // namespace dsv4::gpu
