// The kernel for many columns (multiply.hpp): a tile of 128 rows by `width` columns. Weights go through registers two
// stages ahead, are decoded once and put into shared memory; activations, packed in operand order before, are copied
// there asynchronously. A stage is 64 values of k: two slabs.
#pragma once
#include "backends/gpu/wide.hpp"

namespace dsv4::gpu {

constexpr int tile_rows = 128, stage_values = 64, stages_of_segment = segment / stage_values;
constexpr int weight_buffers = 2, input_buffers = 3;

constexpr size_t tile_bytes(int width) {
    return size_t(weight_buffers * tile_rows + input_buffers * width) * stage_values * 2;
}

/// Where a thread's 16 bytes of a slab lie in a buffer of rows of 128 bytes; neighbouring rows use the two halves in
/// turn.
__device__ __forceinline__ int tile_offset(int row, int slab, int t) {
    return row * stage_values + (slab ^ (row & 1)) * 32 + t * 8;
}

/// A thread's share of the weights of one stage: two rows' pieces of two slabs. bf16 needs no decoding and no
/// registers: copy_weights.
template <class F> struct TileRaw {
    static constexpr int pairs = tile_rows * 4 / block_threads;
    uint32_t words[pairs][2][F::words];
    uint8_t scale[pairs];

    __device__ __forceinline__ void load(const Matrix &w, int row0, int row_end, int stage) {
#pragma unroll
        for (int j = 0; j < pairs; ++j) {
            const int p = int(threadIdx.x) + j * block_threads, row = min(row0 + p / 4, row_end - 1), t = p % 4;
            const uint8_t *at = w.data + row * w.row_bytes + t * 16;
            const int group = stage * 2 / F::slabs, k = group * 32 * F::slabs + t * 8 * F::slabs;
            const bool there = k < w.columns;
            if constexpr (F::slabs == 4) {
                uint2 v = make_uint2(0, 0);
                if (there) v = __ldg(reinterpret_cast<const uint2 *>(at + group * 64 + stage % 2 * 8));
                words[j][0][0] = v.x, words[j][1][0] = v.y;
            } else {
                uint4 v = make_uint4(0, 0, 0, 0);
                if (there) v = __ldg(reinterpret_cast<const uint4 *>(at + group * 64));
                words[j][0][0] = v.x, words[j][0][1] = v.y, words[j][1][0] = v.z, words[j][1][1] = v.w;
            }
            scale[j] =
                there && w.scale_dtype ? __ldg(scale_row(w, row, w.scale) + (k >> scale_shift(w))) : uint8_t(127);
        }
    }

    __device__ __forceinline__ void store(uint16_t *to) const {
#pragma unroll
        for (int j = 0; j < pairs; ++j) {
            const int p = int(threadIdx.x) + j * block_threads, row = p / 4, t = p % 4;
            const PairScale s = F::scale(scale[j]);
#pragma unroll
            for (int slab = 0; slab < 2; ++slab) {
                uint32_t out[4];
                decode_piece<F>(words[j][slab], s, out);
                *reinterpret_cast<uint4 *>(to + tile_offset(row, slab, t)) = make_uint4(out[0], out[1], out[2], out[3]);
            }
        }
    }
};

template <> struct TileRaw<Bf16> {
    __device__ __forceinline__ void load(const Matrix &, int, int, int) {}
    __device__ __forceinline__ void store(uint16_t *) const {}
};

__device__ __forceinline__ void copy_weights(const Matrix &w, int row0, int row_end, int stage, uint16_t *to) {
#pragma unroll
    for (int j = 0; j < tile_rows / 32; ++j) {
        const int p = int(threadIdx.x) + j * block_threads, row = p / 8, k = stage * stage_values + p % 8 * 8;
        uint16_t *at = to + tile_offset(row, p % 8 / 4, p % 4);
        if (k < w.columns) copy_async_16(at, w.data + min(row0 + row, row_end - 1) * w.row_bytes + k * 2);
        else *reinterpret_cast<uint4 *>(at) = make_uint4(0, 0, 0, 0);
    }
}

/// A subgroup's part of a tile: 32 rows by width / 2 columns, its chain of the current segment and the sum of the
/// former.
template <int width> struct TileSums {
    static constexpr int across = width / 16;
    float chain[2][across][4], sum[2][across][4];

    __device__ __forceinline__ void clear() {
#pragma unroll
        for (int m = 0; m < 2; ++m)
#pragma unroll
            for (int n = 0; n < across; ++n)
#pragma unroll
                for (int i = 0; i < 4; ++i) chain[m][n][i] = sum[m][n][i] = 0;
    }
    __device__ __forceinline__ void end_segment() {
#pragma unroll
        for (int m = 0; m < 2; ++m)
#pragma unroll
            for (int n = 0; n < across; ++n)
#pragma unroll
                for (int i = 0; i < 4; ++i) sum[m][n][i] += chain[m][n][i], chain[m][n][i] = 0;
    }
    __device__ __forceinline__ void multiply(const uint16_t *weights, const uint16_t *inputs) {
        const int lane = lane_of_subgroup(), g = lane / 4, t = lane % 4;
        const int row0 = subgroup_of_block() % 4 * 32, column0 = subgroup_of_block() / 4 * (width / 2);
#pragma unroll
        for (int slab = 0; slab < 2; ++slab) {
            uint4 a[2][2];
#pragma unroll
            for (int m = 0; m < 2; ++m)
#pragma unroll
                for (int half = 0; half < 2; ++half)
                    a[m][half] =
                        *reinterpret_cast<const uint4 *>(weights + tile_offset(row0 + m * 16 + half * 8 + g, slab, t));
#pragma unroll
            for (int n = 0; n < across; ++n) {
                const uint4 b = *reinterpret_cast<const uint4 *>(inputs + tile_offset(column0 + n * 8 + g, slab, t));
                const uint32_t b0[2] = {b.x, b.y}, b1[2] = {b.z, b.w};
#pragma unroll
                for (int m = 0; m < 2; ++m) {
                    const uint32_t first[4] = {a[m][0].x, a[m][1].x, a[m][0].y, a[m][1].y};
                    const uint32_t second[4] = {a[m][0].z, a[m][1].z, a[m][0].w, a[m][1].w};
                    mma_bf16_m16n8k16(chain[m][n], first, b0);
                    mma_bf16_m16n8k16(chain[m][n], second, b1);
                }
            }
        }
    }
};

/// Stage `stage` of the tile's columns. Columns that are not there repeat the last: nobody stores what comes of them.
template <int width>
__device__ __forceinline__ void copy_inputs(const Work &work, const int32_t (&rows)[width / 32], int stage,
                                            uint16_t *to) {
#pragma unroll
    for (int j = 0; j < width / 32; ++j) {
        const int p = int(threadIdx.x) + j * block_threads, c = p / 8, piece = p % 8;
        const uint16_t *from =
            work.packed + int64_t(rows[j]) * padded(work.w.columns) + stage * stage_values + piece * 8;
        copy_async_16(to + tile_offset(c, piece / 4, piece % 4), from);
    }
}

/// Stages [begin, end) of k, both even.
template <class F, int width>
__device__ __forceinline__ void many_block(const Work &work, int begin, int end, bool partial, int s) {
    auto *weights = dynamic_shared<uint16_t>();
    uint16_t *inputs = weights + weight_buffers * tile_rows * stage_values;
    const int row0 = work.first + work.block * tile_rows, row_end = work.first + work.rows;
    constexpr bool copied = F::slabs == 1;
    int32_t rows[width / 32];
#pragma unroll
    for (int j = 0; j < width / 32; ++j) {
        const int c = (int(threadIdx.x) + j * block_threads) / 8;
        rows[j] = work.input_row(min(work.column + c, work.columns - 1));
    }
    const auto weight_buffer = [&](int i) { return weights + i * tile_rows * stage_values; };
    const auto input_buffer = [&](int stage) {
        return inputs + (stage - begin) % input_buffers * width * stage_values;
    };
    const auto fetch = [&](TileRaw<F> &raw, int stage) {
        if (stage < end) {
            raw.load(work.w, row0, row_end, stage);
            copy_inputs<width>(work, rows, stage, input_buffer(stage));
        }
        if (copied && stage > begin && stage <= end) // there are two weight buffers: one stage ahead, not two
            copy_weights(work.w, row0, row_end, stage - 1, weight_buffer((stage - 1) % 2));
        copy_commit();
    };
    TileRaw<F> even = {}, odd = {};
    TileSums<width> sums;
    sums.clear();
    fetch(even, begin);
    fetch(odd, begin + 1);
    even.store(weight_buffer(0));
    copy_wait<copied ? 0 : 1>();
    __syncthreads();
    for (int stage = begin; stage < end; stage += 2) {
        fetch(even, stage + 2);
        sums.multiply(weight_buffer(0), input_buffer(stage));
        odd.store(weight_buffer(1));
        copy_wait<copied ? 0 : 1>();
        __syncthreads();
        fetch(odd, stage + 3);
        sums.multiply(weight_buffer(1), input_buffer(stage + 1));
        if ((stage + 2) % stages_of_segment == 0) sums.end_segment();
        even.store(weight_buffer(0));
        copy_wait<copied ? 0 : 1>();
        __syncthreads();
    }
    if (end % stages_of_segment) sums.end_segment();
    const int r = row0 + subgroup_of_block() % 4 * 32, c = work.column + subgroup_of_block() / 4 * (width / 2);
#pragma unroll
    for (int m = 0; m < 2; ++m) store_fragment<TileSums<width>::across>(work, partial, s, r + m * 16, c, sums.sum[m]);
}

/// Grid: row blocks, column blocks, and either 1 (a block walks all of k) or the segments.
template <class Source, int width>
__global__ void __launch_bounds__(block_threads, 1) multiply_many(DSV4_PARAMETER Source source) {
    enter_kernel();
    Work work;
    if (!source.find(work, KERNEL_MANY, width)) return;
    int begin = 0, end = padded(work.w.columns) / stage_values;
    const bool split = gridDim.z > 1;
    const int s = int(blockIdx.z);
    if (split) {
        begin = s * stages_of_segment;
        if (begin >= end) return;
        end = min(end, begin + stages_of_segment);
    }
    const bool partial = split && segments_of(work.w.columns) > 1;
    switch (work.w.dtype) {
    case DSV4_FP4_E2M1: many_block<Fp4, width>(work, begin, end, partial, s); break;
    case DSV4_FP8_E4M3: many_block<Fp8, width>(work, begin, end, partial, s); break;
    default: many_block<Bf16, width>(work, begin, end, partial, s);
    }
}

/// The inputs of `work` into operand order: [columns, padded(k)] bf16; `wide`: for multiply_wide.
template <class F> __device__ __forceinline__ void pack_row(const Work &work, int32_t row, uint16_t *to, bool wide) {
    const int K = work.w.columns, q = int(blockIdx.x) * block_threads + int(threadIdx.x), k = piece_start<F>(q);
    if (q >= padded(K) / 8) return;
    float v[8] = {};
    if (k < K) load_input(work, row, k, v);
    to += int64_t(row) * padded(K);
    if (wide) pack_wide(to, q, pack_piece<F>(v));
    else *reinterpret_cast<uint4 *>(to + q * 8) = pack_piece<F>(v);
}

/// Grid: pieces of k, rows.
template <class Source>
__global__ void __launch_bounds__(block_threads) pack_inputs(DSV4_PARAMETER Source source, uint16_t *to, bool wide) {
    enter_kernel();
    Work work;
    const auto row = int32_t(blockIdx.y);
    if (!source.find_row(work, row)) return;
    switch (work.w.dtype) {
    case DSV4_FP4_E2M1: pack_row<Fp4>(work, row, to, wide); break;
    case DSV4_FP8_E4M3: pack_row<Fp8>(work, row, to, wide); break;
    default: pack_row<Bf16>(work, row, to, wide);
    }
}

/// Which of the two kernels for many columns a device runs: multiply_wide where it can.
struct Tiles {
    explicit Tiles(const Properties &p)
        : wide(p.warpgroups && p.shared_bytes >= wide_bytes(64)), shared_bytes(p.shared_bytes) {}

    size_t bytes(int width) const { return wide ? wide_bytes(width) : tile_bytes(width); }
    bool fit(int width) const { return bytes(width) <= shared_bytes; }
    /// width: 64, or 128 where that fits. Inputs are packed for `wide`.
    template <class Source> void launch(dsv4_queue &queue, int width, dim3 grid, const Source &source) const {
        const auto kernel = wide ? (width > 64 ? multiply_wide<Source, 128> : multiply_wide<Source, 64>)
                                 : (width > 64 ? multiply_many<Source, 128> : multiply_many<Source, 64>);
        launch_early(kernel, grid, block_threads, bytes(width), queue.stream(), source);
    }

    bool wide;
    size_t shared_bytes;
};

} // namespace dsv4::gpu
