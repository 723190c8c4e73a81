// The kernel for exact and official numerics, and for weights that bf16 cannot hold: float32 throughout, any type, any
// size. The order of a sum depends on its length alone.
#pragma once
#include "backends/gpu/multiply.hpp"

namespace dsv4::gpu {

__device__ __forceinline__ void load_plain(const float *p, int left, bool together, float (&v)[8]) {
    if (together) return load_eight(p, v);
#pragma unroll
    for (int i = 0; i < 8; ++i) v[i] = i < left ? p[i] : 0.0f;
}

/// ways_of(k) subgroups share a row of w: each takes every ways-th 256 values, a lane eight of them. A block goes on to
/// the next rows `repeat` times, with the same columns.
template <class Source>
__global__ void __launch_bounds__(block_threads, 2)
    multiply_plain(DSV4_PARAMETER Source source, int width, int repeat) {
    enter_product();
    DSV4_SHARED(float, parts, [block_subgroups][8]);
    Work work;
    if (!source.find(work, KERNEL_PLAIN, width)) return;
    const int K = work.w.columns, lane = lane_of_subgroup(), subgroup = subgroup_of_block(), ways = ways_of(K);
    const int height = block_subgroups / ways, row_end = work.first + work.rows;
    const bool together = K % 8 == 0 && work.ldx % 4 == 0;
    const int begin = work.first + work.block * height * repeat, end = min(begin + height * repeat, row_end);
    const int column_end = min(work.columns, work.column + width);
    for (int column = work.column; column < column_end; column += 8) {
        const int columns = min(8, column_end - column);
        const float *x[8];
#pragma unroll
        for (int c = 0; c < 8; ++c) x[c] = work.x + work.input_row(column + (c < columns ? c : 0)) * work.ldx;
        for (int row0 = begin; row0 < end; row0 += height) {
            const int row = min(row0 + subgroup / ways, row_end - 1);
            float sum[8] = {};
#pragma unroll 2
            for (int k = (subgroup % ways * subgroup_size + lane) * 8; k < K; k += ways * 256) {
                float w[8], v[8];
                eight_elements(work.w, row, k, w);
#pragma unroll
                for (int c = 0; c < 8; ++c) {
                    if (c >= columns) break;
                    load_plain(x[c] + k, K - k, together, v);
#pragma unroll
                    for (int i = 0; i < 8; ++i) sum[c] = fmaf(w[i], v[i], sum[c]);
                }
            }
            __syncthreads(); // the former sums have been read
#pragma unroll
            for (int c = 0; c < 8; ++c) {
                if (c >= columns) break;
                const float total = subgroup_sum(sum[c]);
                if (lane == 0) parts[subgroup][c] = total;
            }
            __syncthreads();
            const int r = int(threadIdx.x) % height, c = int(threadIdx.x) / height, n = row0 + r;
            if (c < columns && n < row_end) {
                float total = parts[r * ways][c];
                for (int i = 1; i < ways; ++i) total += parts[r * ways + i][c];
                work.y[work.output_row(column + c) * work.ldy + n - work.first] =
                    work.round_output ? round_bf16(total) : total;
            }
        }
    }
}

} // namespace dsv4::gpu
