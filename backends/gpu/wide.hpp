// The kernel for many columns on cards that multiply by warpgroups (warpgroup.hpp): a tile of 128 rows by `width`
// columns. Two warpgroups have 64 rows each; a thread decodes the weights of its fragments from the checkpoint's bytes
// while the fragments before them are multiplied. Bytes of weights and packed activations are copied to shared memory
// asynchronously, stages of 128 values of k.
//
// Activations are packed so that the k of a fragment of A are the k of the tile: pack_wide.
#pragma once
#include "backends/gpu/multiply.hpp"
#include "backends/gpu/warpgroup.hpp"

namespace dsv4::gpu {

constexpr int wide_rows = 2 * 64, wide_values = 128, wide_stages_of_segment = segment / wide_values;

/// Shared memory of a block: two blocks of the narrow kernel run on a multiprocessor.
constexpr int wide_room(int width) { return (width > 64 ? 200 : 96) * 1024; }
constexpr size_t wide_bytes(int width) { return size_t(wide_room(width)) + 1024; } // what alignment takes

template <class F, int width> struct WideStage {
    static constexpr int row_bytes = 256 / F::slabs, chunks = row_bytes / 16;
    static constexpr int weight_bytes = wide_rows * row_bytes, bytes = weight_bytes + width * wide_values * 2;
    static constexpr int fits = wide_room(width) / bytes, buffers = fits < 5 ? fits : 5;
    static_assert(buffers >= 2);
    /// Two: a thread decodes while what it decoded before is multiplied. One: other blocks do.
    static constexpr int fragments = width > 64 ? 2 : 1;
    /// A stage's multiplications end with it.
    static constexpr bool drained = buffers == 2 && fragments > 1;
    static constexpr int ahead = buffers == 2 || fragments == 1 ? buffers - 1 : buffers - 2;

    /// Where 16 bytes of a row lie; two neighbouring rows use different banks.
    __device__ static __forceinline__ int place(int row, int chunk) {
        return row * row_bytes + (F::slabs == 4 ? chunk : chunk ^ (row & 1) << 2) * 16;
    }
};

template <class F, int width>
__device__ __forceinline__ void copy_wide_weights(const Matrix &w, int row0, int row_end, int stage, uint8_t *to) {
    using Stage = WideStage<F, width>;
#pragma unroll
    for (int j = 0; j < wide_rows * Stage::chunks / block_threads; ++j) {
        const int p = int(threadIdx.x) + j * block_threads, row = p / Stage::chunks, chunk = p % Stage::chunks;
        uint8_t *at = to + Stage::place(row, chunk);
        if (stage * wide_values + chunk * 8 * F::slabs < w.columns)
            copy_async_16(at,
                          w.data + min(row0 + row, row_end - 1) * w.row_bytes + stage * Stage::row_bytes + chunk * 16);
        else *reinterpret_cast<uint4 *>(at) = make_uint4(0, 0, 0, 0);
    }
}

/// rows: of the columns that this thread copies; 16 threads have one.
template <int width>
__device__ __forceinline__ void copy_wide_inputs(const Work &work, const int32_t (&rows)[width / 16], int stage,
                                                 uint16_t *to) {
    const int chunk = int(threadIdx.x) % 16;
#pragma unroll
    for (int j = 0; j < width / 16; ++j) {
        const int column = int(threadIdx.x) / 16 + j * 16;
        const uint16_t *from =
            work.packed + int64_t(rows[j]) * padded(work.w.columns) + stage * wide_values + chunk * 8;
        copy_async_16(to + chunk / 8 * width * tile_values + tile_place(column, chunk % 8), from);
    }
}

/// E8M0 bytes of a thread's two rows in one stage, a byte for each 16 bytes of codes.
template <class F> struct WideScales {
    static constexpr int groups = 4 / F::slabs;
    uint32_t of[2] = {};

    __device__ __forceinline__ void load(const Matrix &w, const uint8_t *const (&scale)[2], int stage, int t) {
        if constexpr (F::slabs > 1) {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                of[half] = w.scale_dtype ? 0 : 0x7F7Fu;
                if (!w.scale_dtype) continue;
#pragma unroll
                for (int i = 0; i < groups; ++i)
                    if (const int k = stage * wide_values + i * 32 * F::slabs + t * 8 * F::slabs; k < w.columns)
                        of[half] |= uint32_t(__ldg(scale[half] + (k >> scale_shift(w)))) << (8 * i);
            }
        }
    }
};

/// The fragments of 64 values of k, number `half` of a stage: four multiplications.
template <class F, int width, bool large_scales>
__device__ __forceinline__ void decode_wide(const uint8_t *weights, const WideScales<F> &scales, int row, int half,
                                            uint32_t (&a)[4][4]) {
    const int t = lane_of_subgroup() % 4;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        const int slab = 2 * half + i, group = slab / F::slabs;
#pragma unroll
        for (int lower = 0; lower < 2; ++lower) {
            const auto *at = weights + WideStage<F, width>::place(row + 8 * lower, group * 4 + t);
            uint32_t words[F::words], out[4];
            if constexpr (F::slabs == 4) {
                words[0] = reinterpret_cast<const uint32_t *>(at)[slab];
            } else if constexpr (F::slabs == 2) {
                const uint2 v = reinterpret_cast<const uint2 *>(at)[i];
                words[0] = v.x, words[1] = v.y;
            } else {
                const uint4 v = *reinterpret_cast<const uint4 *>(at);
                words[0] = v.x, words[1] = v.y, words[2] = v.z, words[3] = v.w;
            }
            decode_piece<F, large_scales>(words, scale_of<F, large_scales>(scales.of[lower] >> (8 * group) & 255u),
                                          out);
            a[2 * i][lower] = out[0], a[2 * i][2 + lower] = out[1];
            a[2 * i + 1][lower] = out[2], a[2 * i + 1][2 + lower] = out[3];
        }
    }
}

/// Stages [begin, end) of k.
template <class F, int width>
__device__ __forceinline__ void wide_block(const Work &work, int begin, int end, bool partial, int s) {
    using Stage = WideStage<F, width>;
    auto *base = dynamic_shared<uint8_t>();
    base += (1024 - uint32_t(reinterpret_cast<uintptr_t>(base)) % 1024) % 1024;
    const int row0 = work.first + work.block * wide_rows, row_end = work.first + work.rows;
    const int lane = lane_of_subgroup(), t = lane % 4, row_of_tile = subgroup_of_block() * 16 + lane / 4;
    int32_t rows[width / 16];
#pragma unroll
    for (int j = 0; j < width / 16; ++j)
        rows[j] = work.input_row(min(work.column + int(threadIdx.x) / 16 + j * 16, work.columns - 1));
    const uint8_t *scale_rows[2] = {};
    if (F::slabs > 1 && work.w.scale_dtype)
#pragma unroll
        for (int half = 0; half < 2; ++half)
            scale_rows[half] = scale_row(work.w, min(row0 + row_of_tile + 8 * half, row_end - 1), work.w.scale);
    // The tiles of every buffer come first: they are what must be aligned.
    const auto inputs = [&](int buffer) { return reinterpret_cast<uint16_t *>(base) + buffer * width * wide_values; };
    const auto weights = [&](int buffer) {
        return base + Stage::buffers * width * wide_values * 2 + buffer * Stage::weight_bytes;
    };
    int filled = 0; // the buffer that comes next
    const auto fetch = [&](int stage) {
        if (stage < end) {
            copy_wide_weights<F, width>(work.w, row0, row_end, stage, weights(filled));
            copy_wide_inputs<width>(work, rows, stage, inputs(filled));
            filled = filled + 1 == Stage::buffers ? 0 : filled + 1;
        }
        copy_commit();
    };
    WideScales<F> scales, next;
    next.load(work.w, scale_rows, begin, t);
    for (int i = 0; i < Stage::ahead; ++i) fetch(begin + i);

    float chain[width / 8][4], sum[width / 8][4];
#pragma unroll
    for (int n = 0; n < width / 8; ++n) sum[n][0] = sum[n][1] = sum[n][2] = sum[n][3] = 0;
    uint32_t a[Stage::fragments][4][4] = {};
    int buffer = 0;
#pragma unroll 1
    for (int stage = begin; stage < end;) {
        const int end_of_chain = min(end, stage + wide_stages_of_segment);
#pragma unroll
        for (int n = 0; n < width / 8; ++n) chain[n][0] = chain[n][1] = chain[n][2] = chain[n][3] = 0;
#pragma unroll 1
        for (; stage < end_of_chain; ++stage) {
            copy_wait<Stage::ahead - 1>();
            publish_shared();
            __syncthreads(); // the stage is there, and what the stage before the last was read from is free
            fetch(stage + Stage::ahead);
            scales = next;
            const bool large =
                F::slabs > 1 && subgroup_ballot(any_large<F>(scales.of[0]) || any_large<F>(scales.of[1]));
            if (stage + 1 < end) next.load(work.w, scale_rows, stage + 1, t);
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                uint32_t(&mine)[4][4] = a[half % Stage::fragments];
                if (large) decode_wide<F, width, true>(weights(buffer), scales, row_of_tile, half, mine);
                else decode_wide<F, width, false>(weights(buffer), scales, row_of_tile, half, mine);
                keep_registers(mine);
                keep_registers(chain);
                warpgroup_begin();
#pragma unroll
                for (int k16 = 0; k16 < 4; ++k16)
                    warpgroup_multiply(chain, mine[k16], inputs(buffer) + half * width * tile_values, k16);
                warpgroup_commit();
                warpgroup_wait<Stage::fragments - 1>(); // the half before this one
                keep_registers(a[(half + 1) % Stage::fragments]);
            }
            if (Stage::drained) warpgroup_wait<0>();
            buffer = buffer + 1 == Stage::buffers ? 0 : buffer + 1;
        }
        warpgroup_wait<0>();
        keep_registers(chain);
#pragma unroll
        for (int n = 0; n < width / 8; ++n)
#pragma unroll
            for (int i = 0; i < 4; ++i) sum[n][i] += chain[n][i];
    }
    store_fragment<width / 8>(work, partial, s, row0 + subgroup_of_block() * 16, work.column, sum);
}

template <int width>
__device__ __forceinline__ void wide_block(const Work &work, int begin, int end, bool partial, int s) {
    switch (work.w.dtype) {
    case DSV4_FP4_E2M1: wide_block<Fp4, width>(work, begin, end, partial, s); break;
    case DSV4_FP8_E4M3: wide_block<Fp8, width>(work, begin, end, partial, s); break;
    default: wide_block<Bf16, width>(work, begin, end, partial, s);
    }
}

/// Grid: row blocks, column blocks, and either 1 (a block walks all of k) or the segments.
template <class Source, int width>
__global__ void __launch_bounds__(block_threads, width > 64 ? 1 : 2) multiply_wide(DSV4_PARAMETER Source source) {
    enter_kernel();
    Work work;
    if (!source.find(work, KERNEL_MANY, width)) return;
    int begin = 0, end = padded(work.w.columns) / wide_values;
    const bool split = gridDim.z > 1;
    const int s = int(blockIdx.z);
    if (split) {
        begin = s * wide_stages_of_segment;
        if (begin >= end) return;
        end = min(end, begin + wide_stages_of_segment);
    }
    const bool partial = split && segments_of(work.w.columns) > 1;
    if (width > 64 && work.columns - work.column <= 64) wide_block<64>(work, begin, end, partial, s);
    else wide_block<width>(work, begin, end, partial, s);
}

/// A piece of pack_row (tiles.hpp) in the order of tiles: of the 32 values of a slab, the four pairs of thread t go to
/// k 2t, 2t + 8, 2t + 16 and 2t + 24.
__device__ __forceinline__ void pack_wide(uint16_t *row, int q, const uint4 &piece) {
    uint16_t *at = row + q / 4 * 32 + q % 4 * 2;
    *reinterpret_cast<uint32_t *>(at) = piece.x;
    *reinterpret_cast<uint32_t *>(at + 8) = piece.y;
    *reinterpret_cast<uint32_t *>(at + 16) = piece.z;
    *reinterpret_cast<uint32_t *>(at + 24) = piece.w;
}

} // namespace dsv4::gpu
