// The largest of a list of scores, exactly, ties to the earlier: a search for the bits of the smallest of them, two at
// a time in registers or, in long lists, 11, 11 and 10 with a histogram.
#pragma once
#include "backends/gpu/scan.hpp"

namespace dsv4::gpu {

constexpr int choose_threads = 512, choose_bins = 2048, most_held_scores = 8192;

/// Bits that order as the scores do.
__device__ __forceinline__ uint32_t rank_of(float score) {
    const uint32_t u = bits_of(score);
    return u & 0x80000000u ? ~u : u | 0x80000000u;
}

/// Elements begin, begin + 1, ... to end, which the thread has of a list: those above the threshold, and of those at it
/// the first of all threads', until there are `wanted`. rank(e): the bits of element e.
template <class Rank>
__device__ __forceinline__ void take(const Rank &rank, uint32_t threshold, int32_t begin, int32_t end, int32_t wanted,
                                     const float *scores, const int32_t *index, int32_t first, int32_t *out,
                                     float *out_scores) {
    DSV4_SHARED(uint64_t, scratch, [32]);
    uint64_t mine = 0, all; // above the threshold, and in the upper half at it
#pragma unroll 1
    for (int32_t e = begin; e < end; ++e) {
        const uint32_t u = rank(e);
        mine += uint64_t(u > threshold) | uint64_t(u == threshold) << 32;
    }
    const uint64_t before = exclusive_sum(mine, scratch, all);
    const auto equal_wanted = wanted - int32_t(uint32_t(all));
    auto above_before = int32_t(uint32_t(before)), equal_before = int32_t(before >> 32);
#pragma unroll 1
    for (int32_t e = begin; e < end; ++e) {
        const uint32_t u = rank(e);
        if (u > threshold || (u == threshold && equal_before < equal_wanted)) {
            const int at = above_before + min(equal_before, equal_wanted);
            out[at] = index ? index[e] : first + e;
            if (out_scores) out_scores[at] = scores[e];
        }
        above_before += u > threshold;
        equal_before += u == threshold;
    }
}

/// choose() of up to `each` scores a thread, which it holds; ranks: shared memory for as many in all. Two bits of the
/// threshold come of every step, until what reaches them is what is wanted.
template <int each>
__device__ __forceinline__ void choose_held(uint32_t *ranks, const float *scores, const int32_t *index, int32_t first,
                                            int32_t count, int32_t wanted, int32_t *out, float *out_scores) {
    constexpr int subgroups = choose_threads / subgroup_size, bits = 10, mask = (1 << bits) - 1;
    static_assert(each * subgroup_size <= mask && subgroups <= subgroup_size);
    DSV4_SHARED(uint32_t, counts, [2][subgroups]); // of each subgroup, in turn
    const int32_t begin = int32_t(threadIdx.x) * each;
    const int lane = lane_of_subgroup();
    uint32_t mine[each], threshold = 0;
#pragma unroll
    for (int i = 0; i < each; ++i) {
        mine[i] = begin + i < count ? rank_of(scores[begin + i]) : 0; // 0 reaches nothing
        ranks[begin + i] = mine[i];
    }
    bool exact = false;
#pragma unroll 1
    for (int shift = 30; shift >= 0 && !exact; shift -= 2) {
        uint32_t reach = 0; // how many reach the digits 1, 2 and 3
#pragma unroll
        for (int i = 0; i < each; ++i)
#pragma unroll
            for (uint32_t digit = 1; digit < 4; ++digit)
                reach += uint32_t(mine[i] >= (threshold | digit << shift)) << (digit - 1) * bits;
        reach = subgroup_sum(reach);
        uint32_t *turn = counts[shift / 2 % 2];
        if (lane == 0) turn[subgroup_of_block()] = reach;
        __syncthreads();
        reach = lane < subgroups ? turn[lane] : 0;
        uint32_t found = 0;
#pragma unroll
        for (uint32_t digit = 1; digit < 4; ++digit) {
            const auto all = int32_t(subgroup_sum(reach >> (digit - 1) * bits & mask));
            if (all >= wanted) found = digit, exact = all == wanted;
        }
        threshold |= found << shift;
    }
    take([&](int32_t e) { return ranks[e]; }, threshold, begin, min(begin + each, count), wanted, scores, index, first,
         out, out_scores);
}

/// choose() of any number; histogram: choose_bins, in shared memory.
__device__ __forceinline__ void choose_of_many(uint32_t *histogram, const float *scores, const int32_t *index,
                                               int32_t first, int32_t count, int32_t wanted, int32_t *out,
                                               float *out_scores) {
    DSV4_SHARED(int, scratch, [32]);
    DSV4_SHARED(int, found, [2]); // the bin of the threshold, and how many of it are wanted
    const auto me = int32_t(threadIdx.x);
    int32_t left = wanted;
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
            if (pass == 0 || u >> known == threshold >> known) atomicAdd(&histogram[u >> shift & mask], 1u);
        }
        __syncthreads();
        // Bins from the top: thread i has 4 of them.
        int mine[4], sum = 0, all;
        for (int i = 0; i < 4; ++i) sum += mine[i] = int(histogram[choose_bins - 1 - (4 * me + i)]);
        int above = exclusive_sum(sum, scratch, all);
        for (int i = 0; i < 4; ++i) {
            if (above < left && above + mine[i] >= left)
                found[0] = choose_bins - 1 - (4 * me + i), found[1] = left - above;
            above += mine[i];
        }
        __syncthreads();
        threshold |= uint32_t(found[0]) << shift;
        left = found[1];
        __syncthreads();
    }
    const int32_t each = int32_t(ceil_div(count, choose_threads)), begin = min(me * each, count);
    take([&](int32_t e) { return rank_of(scores[e]); }, threshold, begin, min(begin + each, count), wanted, scores,
         index, first, out, out_scores);
}

/// The `wanted` best of `count` > wanted scores, by a block of choose_threads: their indices in the order of the list,
/// to `out`, and the scores, unless NULL. The index of element i is index[i], or first + i.
__device__ __forceinline__ void choose(const float *scores, const int32_t *index, int32_t first, int32_t count,
                                       int32_t wanted, int32_t *out, float *out_scores) {
    constexpr int few = 4, held = most_held_scores / choose_threads;
    DSV4_SHARED(uint32_t, room, [most_held_scores]);
    if (count <= few * choose_threads) choose_held<few>(room, scores, index, first, count, wanted, out, out_scores);
    else if (count <= most_held_scores) choose_held<held>(room, scores, index, first, count, wanted, out, out_scores);
    else choose_of_many(room, scores, index, first, count, wanted, out, out_scores);
}

} // namespace dsv4::gpu
