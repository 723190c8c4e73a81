// The kernels under linear.cu and moe.cu. All compute the same sums in the same order (linear.hpp):
//
//   few      up to 8 columns: the subgroups of a block take the segments of k; one block has all of a row
//   some     a block takes one segment of 128 rows, partial sums go to memory, `add_segments` finishes
//   many     tiles of 128 rows whose weights are decoded once into shared memory (tiles.hpp) or, where four subgroups
//            multiply together, into the registers of that multiplication (wide.hpp)
//   plain    float32, any type and size (plain.hpp)
//
// "Rows" are those of the weights, "columns" the tokens. A Source says what a block works on (Work).
//
// Operand order. Weights are the A operand: lane 4g + t holds rows g and g + 8. Of each group of 32 * F::slabs values
// of a row (64 bytes in every format) thread t loads 16 bytes with one instruction, F::slabs pieces of 8 values. Slab s
// of a group is piece s of the four threads: 32 values, the k of two multiplications. Activations lie in shared memory
// slab after slab, thread after thread, so that a thread's share of a slab is 16 bytes too.
#pragma once
#include "backends/gpu/formats.hpp"

#if defined(DSV4_GPU_CUDA)
#define DSV4_PARAMETER const __grid_constant__
#else
#define DSV4_PARAMETER const
#endif

namespace dsv4::gpu {

constexpr int segment = 512;
constexpr int block_threads = 256, block_subgroups = block_threads / subgroup_size;

__host__ __device__ constexpr int segments_of(int columns) { return (columns + segment - 1) / segment; }
/// Rows of k as they lie in packed activations: whole groups of every format.
__host__ __device__ constexpr int padded(int columns) { return (columns + 127) / 128 * 128; }
/// In shared memory, 64 bytes more: two neighbouring rows lie in different banks.
__host__ __device__ constexpr int pitch_of(int columns) { return padded(columns) + 32; }

struct Work {
    Matrix w;
    const uint8_t *second, *second_scale; // few: of a matrix like w; y = weight * swiglu(w x, second x). Or NULL
    int32_t first, rows;                  // of w: [first, first + rows)
    int32_t block, repeat;                // which block of rows; how often it goes on to the next (height_of)
    int32_t column, columns;              // this block's: [column, columns)
    const float *x;                       // float32 input; the gate where `up` is set
    const float *up;                      // input = weight * swiglu(x, up)
    const float *weight;                  // of routed pairs, or NULL: 1
    float limit;                          // of swiglu
    const uint16_t *packed;               // or the input in operand order, rows of padded(k)
    int64_t ldx;
    const int32_t *gather;         // column -> pair: input row pair / divisor, output row pair; NULL: base + column
    int32_t base, divisor, active; // active: pairs of a token
    float *y;                      // column's row, element n - first
    int64_t ldy;
    float *partial; // [segments, column_count, rows]
    int32_t column_count;
    bool round_output;
    bool residual; // of the input what rounding it to bf16 loses

    __device__ __forceinline__ int32_t output_row(int32_t c) const { return gather ? gather[c] : base + c; }
    __device__ __forceinline__ int32_t input_row(int32_t c) const { return output_row(c) / divisor; }
};

enum Kernel { KERNEL_FEW, KERNEL_SOME, KERNEL_MANY, KERNEL_PLAIN };

/// How many subgroups share a row of KERNEL_PLAIN: a power of two, 512 values of k each or more.
__host__ __device__ inline int ways_of(int columns) {
    int ways = 1;
    while (ways < block_subgroups && ways * 2 * segment <= columns) ways *= 2;
    return ways;
}
/// Row tiles of a block of KERNEL_FEW, so that its subgroups have a segment each.
__host__ __device__ inline int tiles_of(int columns) {
    const int n = segments_of(columns);
    return n >= block_subgroups ? 1 : block_subgroups / n;
}

/// How often a block of KERNEL_FEW goes on, so that `blocks` of them become one wave, or as near as that gets: the next
/// rows are then on their way while these are multiplied, and activations are staged once for all.
inline int few_repeats(int64_t blocks, int64_t at_once) {
    return int(blocks < 8 * at_once ? (blocks + at_once - 1) / at_once : 8);
}
constexpr int few_blocks_per_processor = 2;

/// Rows of a block; `tile`: of a row tile of KERNEL_FEW, 16 or 8. Tiles of 8 leave half of a multiplication empty, and
/// give small matrices twice the blocks. `repeat`: how often a block goes on to the next rows (KERNEL_FEW,
/// KERNEL_PLAIN).
__host__ __device__ inline int height_of(Kernel kernel, int columns, int tile = 16, int repeat = 1) {
    switch (kernel) {
    case KERNEL_FEW: return tile * tiles_of(columns) * repeat;
    case KERNEL_SOME:
    case KERNEL_MANY: return 128;
    case KERNEL_PLAIN: return block_subgroups / ways_of(columns) * repeat;
    }
    return 1;
}

/// silu(gate) * up, both clamped (0: not), times the weight of the expert.
__device__ __forceinline__ float swiglu(float gate, float up, float limit, float weight) {
    if (limit > 0) {
        gate = fminf(gate, limit); // the gate has no lower bound
        up = fminf(fmaxf(up, -limit), limit);
    }
    return weight * (gate / (1.0f + expf(-gate)) * up);
}

/// The weight of pair p in a route buffer: rows of k experts, then their k weights.
__device__ __forceinline__ float weight_of_pair(const float *route, int32_t pair, int32_t active) {
    return route[int64_t(pair / active) * 2 * active + active + pair % active];
}

/// Piece q (of 4 * slabs of k) of an input row in operand order: where it begins.
template <class F> __device__ __forceinline__ int piece_start(int q) {
    const int slab = q / 4, t = q % 4;
    return slab / F::slabs * 32 * F::slabs + t * 8 * F::slabs + slab % F::slabs * 8;
}

template <class F> __device__ __forceinline__ uint4 pack_piece(const float (&v)[8]) {
    return make_uint4(pack_bf16(v[F::order(0)], v[F::order(1)]), pack_bf16(v[F::order(2)], v[F::order(3)]),
                      pack_bf16(v[F::order(4)], v[F::order(5)]), pack_bf16(v[F::order(6)], v[F::order(7)]));
}

/// Eight input values of a column at k (< w.columns), whatever the input is made of.
__device__ __forceinline__ void load_input(const Work &work, int32_t column, int k, float (&v)[8]) {
    const int64_t at = work.input_row(column) * work.ldx + k;
    load_eight(work.x + at, v);
    if (work.residual)
#pragma unroll
        for (int i = 0; i < 8; ++i) v[i] -= round_bf16(v[i]);
    if (!work.up) return;
    float up[8];
    load_eight(work.up + at, up);
    const float weight = work.weight ? weight_of_pair(work.weight, work.output_row(column), work.active) : 1.0f;
#pragma unroll
    for (int i = 0; i < 8; ++i) v[i] = swiglu(v[i], up[i], work.limit, weight);
}

/// Columns [column, column + count) at k in [begin, end) into shared memory; zeros behind the end of k.
template <class F>
__device__ __forceinline__ void stage_inputs(const Work &work, int column, int count, int begin, int end, uint16_t *to,
                                             int pitch) {
    const int pieces = (end - begin) / 8;
#pragma unroll 1
    for (int i = int(threadIdx.x); i < count * pieces; i += block_threads) {
        const int c = i / pieces, q = i % pieces, k = begin + piece_start<F>(q);
        float v[8] = {};
        if (k < work.w.columns) load_input(work, column + c, k, v);
        *reinterpret_cast<uint4 *>(to + c * pitch + q * 8) = pack_piece<F>(v);
    }
}

/// The raw bytes of two rows of a thread for `groups` groups of 64 bytes, with their scales. Rows behind the end repeat
/// the last: nobody stores what comes of them.
template <class F> struct Raw {
    static constexpr int groups = 2; // of a chunk; two chunks are in registers
    uint4 row[2][groups];
    uint32_t scales[2]; // a byte per group

    /// Chunk `chunk` of segment `s`. A tile of 8 leaves the second row out, or takes it from the second matrix.
    __device__ __forceinline__ void load(const Work &work, int row0, int s, int chunk, int tile = 16) {
        const Matrix &w = work.w;
        const int row_end = work.first + work.rows;
        const int lane = lane_of_subgroup(), g = lane / 4, t = lane % 4;
        const int group0 = s * (segment / (32 * F::slabs)) + chunk * groups,
                  k0 = group0 * 32 * F::slabs + t * 8 * F::slabs;
        const int shift = F::slabs > 1 && w.scale_dtype ? scale_shift(w) : 0;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const bool other = half == 1 && work.second;
            const int r = min(row0 + g + (other ? 0 : 8 * half), row_end - 1);
            const uint8_t *data = other ? work.second : w.data;
            const auto *at = reinterpret_cast<const uint4 *>(data + r * w.row_bytes + group0 * 64 + t * 16);
            scales[half] = 0x7F7F7F7Fu;
#pragma unroll
            for (int i = 0; i < groups; ++i) {
                const bool there = k0 + i * 32 * F::slabs < w.columns && (half == 0 || tile == 16 || other);
                row[half][i] = there ? load_once(at + i * 4) : make_uint4(0, 0, 0, 0);
            }
            if (F::slabs > 1 && w.scale_dtype) {
                const uint8_t *scale = scale_row(w, r, other ? work.second_scale : w.scale);
                scales[half] = 0;
#pragma unroll
                for (int i = 0; i < groups; ++i)
                    if (const int k = k0 + i * 32 * F::slabs; k < w.columns)
                        scales[half] |= uint32_t(__ldg(scale + (k >> shift))) << (8 * i);
            }
        }
    }
};

__device__ __forceinline__ uint32_t word_of(const uint4 &v, int i) {
    return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
}

/// sums += rows x columns over one chunk of a segment; xs: shared memory, this chunk's first slab of column 0.
template <class F, int tiles, bool large_scales>
__device__ __forceinline__ void multiply_groups(const Raw<F> &raw, const uint16_t *xs, int pitch, int columns,
                                                int groups_left, float (&sums)[tiles][4]) {
    const int lane = lane_of_subgroup(), g = lane / 4, t = lane % 4;
#pragma unroll
    for (int i = 0; i < Raw<F>::groups; ++i) {
        if (i >= groups_left) break; // the same for the whole subgroup
        const PairScale scale[2] = {scale_of<F, large_scales>(raw.scales[0] >> (8 * i) & 255u),
                                    scale_of<F, large_scales>(raw.scales[1] >> (8 * i) & 255u)};
#pragma unroll
        for (int s = 0; s < F::slabs; ++s) {
            uint32_t a[2][4];
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                uint32_t words[F::words];
#pragma unroll
                for (int j = 0; j < F::words; ++j) words[j] = word_of(raw.row[half][i], s * F::words + j);
                decode_piece<F, large_scales>(words, scale[half], a[half]);
            }
            const uint32_t first[4] = {a[0][0], a[1][0], a[0][1], a[1][1]};
            const uint32_t second[4] = {a[0][2], a[1][2], a[0][3], a[1][3]};
#pragma unroll
            for (int n = 0; n < tiles; ++n) {
                const int c = n * 8 + g;
                uint4 b = make_uint4(0, 0, 0, 0);
                if (c < columns) b = *reinterpret_cast<const uint4 *>(xs + c * pitch + (i * F::slabs + s) * 32 + t * 8);
                const uint32_t b0[2] = {b.x, b.y}, b1[2] = {b.z, b.w};
                mma_bf16_m16n8k16(sums[n], first, b0);
                mma_bf16_m16n8k16(sums[n], second, b1);
            }
        }
    }
}

template <class F, int tiles>
__device__ __forceinline__ void multiply_chunk(const Raw<F> &raw, const uint16_t *xs, int pitch, int columns,
                                               int groups_left, float (&sums)[tiles][4]) {
    if (F::slabs > 1 && subgroup_ballot(any_large<F>(raw.scales[0]) || any_large<F>(raw.scales[1])))
        multiply_groups<F, tiles, true>(raw, xs, pitch, columns, groups_left, sums);
    else multiply_groups<F, tiles, false>(raw, xs, pitch, columns, groups_left, sums);
}

template <class F> struct Chunks {
    static constexpr int per_segment = segment / (32 * F::slabs * Raw<F>::groups); // FP4 2, FP8 4, bf16 8
    /// Groups of chunk `chunk` of segment s that hold any k.
    __device__ static __forceinline__ int groups(int columns, int s, int chunk) {
        const int begin = s * segment + chunk * Raw<F>::groups * 32 * F::slabs;
        return (columns - begin + 32 * F::slabs - 1) / (32 * F::slabs);
    }
};

/// A row tile and a segment of k.
struct Unit {
    int row0, segment, tile;
};

/// One unit. raw holds its chunk 0 already, and that of `following` afterwards (row0 < 0: there is none); xs begins at
/// the segment.
template <class F, int tiles>
__device__ __forceinline__ void multiply_unit(const Work &work, Raw<F> &raw, const Unit &unit, const Unit &following,
                                              const uint16_t *xs, int pitch, int columns, float (&sums)[tiles][4]) {
    const int s = unit.segment;
#pragma unroll
    for (int n = 0; n < tiles; ++n) sums[n][0] = sums[n][1] = sums[n][2] = sums[n][3] = 0;
#pragma unroll
    for (int chunk = 0; chunk < Chunks<F>::per_segment; ++chunk) {
        Raw<F> next = raw;
        if (chunk + 1 < Chunks<F>::per_segment) next.load(work, unit.row0, s, chunk + 1, unit.tile);
        else if (following.row0 >= 0) next.load(work, following.row0, following.segment, 0, following.tile);
        multiply_chunk<F, tiles>(raw, xs + chunk * Raw<F>::groups * F::slabs * 32, pitch, columns,
                                 Chunks<F>::groups(work.w.columns, s, chunk), sums);
        raw = next;
    }
}

// ---- few ------------------------------------------------------------------------------------------------------------

/// Bytes of shared memory that are not activations: the sums of every segment of a block, [16 rows, 8 columns] each.
__host__ __device__ inline int sums_bytes(int columns, int repeat) {
    return segments_of(columns) * tiles_of(columns) * repeat * 16 * 8 * 4;
}

template <class F> __device__ __forceinline__ void few_block(const Work &work, int columns_at_once, int tile_height) {
    const int K = work.w.columns, count = segments_of(K), pitch = pitch_of(K), tiles = tiles_of(K) * work.repeat;
    const int subgroup = subgroup_of_block(), lane = lane_of_subgroup(), g = lane / 4, t = lane % 4;
    const int row_block = work.first + work.block * tiles * tile_height, row_end = work.first + work.rows;
    float *sums = dynamic_shared<float>();
    auto *xs = reinterpret_cast<uint16_t *>(dynamic_shared<uint8_t>() + sums_bytes(K, work.repeat));
    const auto unit_of = [&](int u) {
        return u < tiles * count ? Unit{row_block + u / count * tile_height, u % count, tile_height}
                                 : Unit{-1, 0, tile_height};
    };
    for (int column = work.column; column < work.columns; column += columns_at_once) {
        const int columns = min(columns_at_once, work.columns - column);
        Raw<F> raw;
        Unit unit = unit_of(subgroup);
        if (unit.row0 >= 0) // weights are on their way while activations are staged
            raw.load(work, unit.row0, unit.segment, 0, tile_height);
        if (column == work.column) wait_for_former();
        else __syncthreads();
        stage_inputs<F>(work, column, columns, 0, padded(K), xs, pitch);
        __syncthreads();
#pragma unroll 1
        for (int u = subgroup; u < tiles * count; u += block_subgroups) {
            const Unit following = unit_of(u + block_subgroups);
            float c[1][4];
            multiply_unit<F, 1>(work, raw, unit, following, xs + unit.segment * segment, pitch, columns, c);
            unit = following;
            float *to = sums + u * 128;
            to[2 * t * 16 + g] = c[0][0], to[(2 * t + 1) * 16 + g] = c[0][1];
            to[2 * t * 16 + g + 8] = c[0][2], to[(2 * t + 1) * 16 + g + 8] = c[0][3];
        }
        __syncthreads();
        for (int i = int(threadIdx.x); i < tiles * tile_height * columns; i += block_threads) {
            const int row = i % tile_height, tile = i / tile_height % tiles, c = i / (tile_height * tiles);
            const float *from = sums + tile * count * 128 + c * 16 + row;
            const auto whole = [&](int second) {
                float sum = from[second];
                for (int s = 1; s < count; ++s) sum += from[s * 128 + second];
                return sum;
            };
            const int n = row_block + tile * tile_height + row, at = work.output_row(column + c);
            if (n >= row_end) continue;
            float v = whole(0);
            if (work.second) {
                const float weight = work.weight ? weight_of_pair(work.weight, at, work.active) : 1.0f;
                v = swiglu(v, whole(8), work.limit, weight);
            }
            work.y[at * work.ldy + n - work.first] = v;
        }
    }
}

/// bf16: of nothing but bf16, which needs fewer registers.
template <class Source, bool bf16>
__global__ void __launch_bounds__(block_threads, bf16 ? 3 : few_blocks_per_processor)
    multiply_few(DSV4_PARAMETER Source source, int columns_at_once, int tile_height) {
    Work work;
    let_next_begin();
    if (Source::of_the_step) wait_for_former();
    const bool found = source.find(work, KERNEL_FEW, 0);
    if (!found) {
        wait_for_former();
        return;
    }
    if constexpr (bf16) {
        few_block<Bf16>(work, columns_at_once, tile_height);
    } else {
        switch (work.w.dtype) {
        case DSV4_FP4_E2M1: few_block<Fp4>(work, columns_at_once, tile_height); break;
        case DSV4_FP8_E4M3: few_block<Fp8>(work, columns_at_once, tile_height); break;
        default: few_block<Bf16>(work, columns_at_once, tile_height);
        }
    }
}

// ---- some -----------------------------------------------------------------------------------------------------------

/// Where element (row, column) of segment s goes: to y where there is but one.
__device__ __forceinline__ void store_sum(const Work &work, bool partial, int s, int row, int column, float v) {
    if (row >= work.first + work.rows || column >= work.columns) return;
    if (partial) work.partial[(int64_t(s) * work.column_count + column) * work.rows + row - work.first] = v;
    else work.y[work.output_row(column) * work.ldy + row - work.first] = v;
}

template <int tiles>
__device__ __forceinline__ void store_fragment(const Work &work, bool partial, int s, int row0, int column,
                                               const float (&c)[tiles][4]) {
    const int lane = lane_of_subgroup(), g = lane / 4, t = lane % 4;
#pragma unroll
    for (int n = 0; n < tiles; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i)
            store_sum(work, partial, s, row0 + g + i / 2 * 8, column + n * 8 + 2 * t + i % 2, c[n][i]);
}

template <class F, int tiles> __device__ __forceinline__ void some_block(const Work &work, int s) {
    constexpr int pitch = pitch_of(segment);
    const int row0 = work.first + work.block * 128 + subgroup_of_block() * 16;
    const int columns = min(tiles * 8, work.columns - work.column);
    auto *xs = dynamic_shared<uint16_t>();
    Raw<F> raw;
    raw.load(work, row0, s, 0);
    stage_inputs<F>(work, work.column, columns, s * segment, min((s + 1) * segment, padded(work.w.columns)), xs, pitch);
    __syncthreads();
    float c[tiles][4];
    multiply_unit<F, tiles>(work, raw, Unit{row0, s, 16}, Unit{-1, 0, 0}, xs, pitch, columns, c);
    store_fragment<tiles>(work, segments_of(work.w.columns) > 1, s, row0, work.column, c);
}

/// Grid: row blocks, column blocks of 8 * tiles, segments.
template <class Source, int tiles>
__global__ void __launch_bounds__(block_threads, tiles > 4 ? 1 : 2) multiply_some(DSV4_PARAMETER Source source) {
    enter_kernel();
    Work work;
    const int s = int(blockIdx.z);
    if (!source.find(work, KERNEL_SOME, tiles * 8) || s >= segments_of(work.w.columns)) return;
    switch (work.w.dtype) {
    case DSV4_FP4_E2M1: some_block<Fp4, tiles>(work, s); break;
    case DSV4_FP8_E4M3: some_block<Fp8, tiles>(work, s); break;
    default: some_block<Bf16, tiles>(work, s);
    }
}

} // namespace dsv4::gpu
