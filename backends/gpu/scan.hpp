// Prefix sums of a block.
#pragma once
#include "backends/gpu/portable.hpp"

namespace dsv4::gpu {

/// The sum of v over the threads before this one of a one-dimensional block, and over all of them. scratch: 32 shared
/// values, free again at the next call.
template <class T> __device__ __forceinline__ T exclusive_sum(T v, T *scratch, T &all) {
    const int lane = lane_of_subgroup(), groups = int(blockDim.x) / subgroup_size;
    T sum = v;
    for (int step = 1; step < subgroup_size; step *= 2) {
        const T other = shuffle(sum, max(lane - step, 0));
        if (lane >= step) sum += other;
    }
    __syncthreads();
    if (lane == subgroup_size - 1) scratch[subgroup_of_block()] = sum;
    __syncthreads();
    T before = 0;
    all = 0;
#pragma unroll 4
    for (int i = 0; i < groups; ++i) {
        if (i < subgroup_of_block()) before += scratch[i];
        all += scratch[i];
    }
    return before + sum - v;
}

} // namespace dsv4::gpu
