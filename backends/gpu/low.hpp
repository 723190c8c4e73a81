// KERNEL_FEW for matrices of few rows: blocks have 8 rows to a tile, and all of their weights are on their way into
// shared memory before the kernel before this one is over. What is left to do then is short.
#pragma once
#include "backends/gpu/multiply.hpp"

namespace dsv4::gpu {

constexpr int low_rows = 8;

/// What a block holds: sums and zeros, activations, scales, weights.
struct LowLayout {
    int groups, pitch, scale_pitch; // groups of 64 bytes of a row; bytes from row to row
    int inputs, scales, weights;    // where they begin, in bytes; their end
    int end;
    __host__ __device__ LowLayout(const Matrix &w, int columns) {
        const int slabs = slabs_of(w.dtype), rows = tiles_of(w.columns) * low_rows;
        groups = (w.columns + 32 * slabs - 1) / (32 * slabs);
        pitch = (groups + 1) / 2 * 128 + 64; // two neighbouring rows lie in different banks
        scale_pitch = w.scale_dtype ? (w.scale_columns + 3) / 4 * 4 : 0;
        inputs = sums_bytes(w.columns, 1);
        scales = inputs + columns * pitch_of(w.columns) * 2;
        weights = (scales + rows * scale_pitch + 127) / 128 * 128;
        end = weights + rows * pitch;
    }
};

template <class F> __device__ __forceinline__ void low_block(const Work &work) {
    constexpr int group_values = 32 * F::slabs;
    const Matrix &w = work.w;
    const int K = w.columns, count = segments_of(K), tiles = tiles_of(K), columns = work.columns;
    const int subgroup = subgroup_of_block(), lane = lane_of_subgroup(), g = lane / 4, t = lane % 4;
    const int row_block = work.first + work.block * tiles * low_rows, last = work.first + work.rows - 1;
    const LowLayout at(w, columns);
    auto *memory = dynamic_shared<uint8_t>();
    auto *sums = reinterpret_cast<float *>(memory);
    auto *zeros = reinterpret_cast<uint16_t *>(sums + tiles * count * 128 + 16);
    auto *xs = reinterpret_cast<uint16_t *>(memory + at.inputs);
    const int pitch = pitch_of(K), row_bytes = (K + group_values / 4 - 1) / (group_values / 4) * 16;
#pragma unroll 1
    for (int row = subgroup; row < tiles * low_rows; row += block_subgroups) {
        const int n = min(row_block + row, last);
        const uint8_t *from = w.data + n * w.row_bytes;
        uint8_t *to = memory + at.weights + row * at.pitch;
#pragma unroll 4
        for (int i = lane * 16; i < at.groups * 64; i += subgroup_size * 16)
            if (i < row_bytes) copy_async_16(to + i, from + i);
            else *reinterpret_cast<uint4 *>(to + i) = make_uint4(0, 0, 0, 0);
    }
    copy_commit();
    if (F::slabs > 1 && w.scale_dtype)
#pragma unroll 1
        for (int row = subgroup; row < tiles * low_rows; row += block_subgroups) {
            const uint8_t *from = scale_row(w, min(row_block + row, last), w.scale);
            for (int i = lane; i < w.scale_columns; i += subgroup_size)
                memory[at.scales + row * at.scale_pitch + i] = __ldg(from + i);
        }
    if (threadIdx.x < zeros_bytes / 4) reinterpret_cast<uint32_t *>(zeros)[threadIdx.x] = 0;
    enter_product();
    stage_inputs<F>(work, 0, columns, 0, padded(K), xs, pitch);
    copy_wait<0>();
    __syncthreads();
    const int shift = F::slabs > 1 && w.scale_dtype ? scale_shift(w) : 0;
#pragma unroll 1
    for (int u = subgroup; u < tiles * count; u += block_subgroups) {
        const int s = u % count, row = u / count * low_rows + g, first = s * (segment / group_values);
        const uint8_t *weights = memory + at.weights + row * at.pitch + first * 64 + t * 16;
        const uint8_t *scales = memory + at.scales + row * at.scale_pitch;
        const uint16_t *b = (g < columns ? xs + g * pitch + s * segment : zeros) + t * 8;
        const int step = g < columns ? group_values : 0, groups = min(at.groups - first, segment / group_values);
        float c[4] = {};
#pragma unroll F::slabs == 1 ? 4 : 2
        for (int i = 0; i < groups; ++i) {
            const uint4 raw = *reinterpret_cast<const uint4 *>(weights + i * 64);
            uint32_t code = 127;
            if (F::slabs > 1 && w.scale_dtype)
                code = scales[min(((first + i) * group_values + t * 8 * F::slabs) >> shift, w.scale_columns - 1)];
            const PairScale scale = F::scale(code);
#pragma unroll
            for (int slab = 0; slab < F::slabs; ++slab) {
                uint32_t words[F::words], a[4];
#pragma unroll
                for (int j = 0; j < F::words; ++j) words[j] = word_of(raw, slab * F::words + j);
                decode_piece<F>(words, scale, a);
                const uint4 v = *reinterpret_cast<const uint4 *>(b + slab * 32);
                const uint32_t one[4] = {a[0], 0, a[1], 0}, two[4] = {a[2], 0, a[3], 0};
                const uint32_t b0[2] = {v.x, v.y}, b1[2] = {v.z, v.w};
                mma_bf16_m16n8k16(c, one, b0);
                mma_bf16_m16n8k16(c, two, b1);
            }
            b += step;
        }
        store_unit(sums + u * 128, c);
    }
    __syncthreads();
    add_units(work, sums, row_block, low_rows, tiles, count, 0, columns);
}

template <class Source> __global__ void __launch_bounds__(block_threads, 2) multiply_low(DSV4_PARAMETER Source source) {
    Work work;
    if (!source.find(work, KERNEL_FEW, 0)) return wait_for_former();
    switch (work.w.dtype) {
    case DSV4_FP4_E2M1: low_block<Fp4>(work); break;
    case DSV4_FP8_E4M3: low_block<Fp8>(work); break;
    default: low_block<Bf16>(work);
    }
}

} // namespace dsv4::gpu
