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
static_assert(block_subgroups == 8); // tiles_of

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
    uint16_t *packed_y;  // or bf16, in the operand order of inputs of `packed_type`
    int32_t packed_type; // DSV4_FP4_E2M1 ...
    float *partial;      // [segments, column_count, rows]
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
    return n == 1 ? 8 : n == 2 ? 4 : n <= 4 ? 2 : 1;
}

constexpr int most_repeats = 8;
/// How often a block of KERNEL_FEW goes on, so that `blocks` of them become one wave, or as near as that gets: the next
/// rows are then on their way while these are multiplied, and activations are staged once for all.
inline int few_repeats(int64_t blocks, int64_t at_once) {
    return int(blocks < most_repeats * at_once ? (blocks + at_once - 1) / at_once : most_repeats);
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

/// Where value k of an input row lies in operand order.
template <class F> __device__ __forceinline__ int operand_place(int k) {
    constexpr int values = 8 * F::slabs; // of a thread, of a group of four threads
    return (k / (4 * values) * F::slabs + k % values / 8) * 32 + k % (4 * values) / values * 8 + F::place(k % 8);
}
__device__ __forceinline__ int operand_place(int32_t type, int k) {
    return type == DSV4_FP4_E2M1   ? operand_place<Fp4>(k)
           : type == DSV4_FP8_E4M3 ? operand_place<Fp8>(k)
                                   : operand_place<Bf16>(k);
}

template <class F> __device__ __forceinline__ uint4 pack_piece(const float (&v)[8]) {
    return make_uint4(pack_bf16(v[F::order(0)], v[F::order(1)]), pack_bf16(v[F::order(2)], v[F::order(3)]),
                      pack_bf16(v[F::order(4)], v[F::order(5)]), pack_bf16(v[F::order(6)], v[F::order(7)]));
}

/// Eight input values of a column at k (< w.columns), as they lie in memory.
template <bool fresh = false>
__device__ __forceinline__ void load_plain_input(const Work &work, int32_t column, int k, float (&v)[8]) {
    load_eight<fresh>(work.x + work.input_row(column) * work.ldx + k, v);
    if (work.residual)
#pragma unroll
        for (int i = 0; i < 8; ++i) v[i] -= round_bf16(v[i]);
}
/// The same, whatever the input is made of.
__device__ __forceinline__ void load_input(const Work &work, int32_t column, int k, float (&v)[8]) {
    load_plain_input(work, column, k, v);
    if (!work.up) return;
    float up[8];
    load_eight(work.up + work.input_row(column) * work.ldx + k, up);
    const float weight = work.weight ? weight_of_pair(work.weight, work.output_row(column), work.active) : 1.0f;
#pragma unroll
    for (int i = 0; i < 8; ++i) v[i] = swiglu(v[i], up[i], work.limit, weight);
}

/// Columns [column, column + count) at k in [begin, end) into shared memory; zeros behind the end of k. Inputs of one
/// buffer (work.up is NULL). fresh: past the first-level cache.
template <class F, bool fresh = false>
__device__ __forceinline__ void stage_inputs(const Work &work, int column, int count, int begin, int end, uint16_t *to,
                                             int pitch) {
    constexpr int together = 2; // pieces of a thread whose loads are in flight together
    const int pieces = (end - begin) / 8;
#pragma unroll 1
    for (int c = 0; c < count; ++c)
#pragma unroll 1
        for (int first = int(threadIdx.x); first < pieces; first += together * block_threads) {
            float v[together][8];
#pragma unroll
            for (int n = 0; n < together; ++n) {
                const int q = first + n * block_threads, k = begin + piece_start<F>(q);
#pragma unroll
                for (int i = 0; i < 8; ++i) v[n][i] = 0;
                if (q < pieces && k < work.w.columns) load_plain_input<fresh>(work, column + c, k, v[n]);
            }
#pragma unroll
            for (int n = 0; n < together; ++n)
                if (const int q = first + n * block_threads; q < pieces)
                    *reinterpret_cast<uint4 *>(to + c * pitch + q * 8) = pack_piece<F>(v[n]);
        }
}

/// A row tile and a segment of k.
struct Unit {
    int row0, segment, tile;
};

/// The two rows of a thread in a unit. Rows behind the end repeat the last: nobody stores what comes of them. A tile of
/// 8 takes the second from the second matrix, or has none (and gets the first again).
struct RowPair {
    const uint8_t *row[2], *scale[2]; // scale NULL: 1
    bool two;

    __device__ __forceinline__ RowPair(const Work &work, const Unit &unit, bool scaled) {
        const Matrix &w = work.w;
        const int first = min(unit.row0 + lane_of_subgroup() / 4, work.first + work.rows - 1);
        two = unit.tile == 16 || work.second;
        const int other = unit.tile == 16 ? min(first + 8, work.first + work.rows - 1) : first;
        row[0] = w.data + first * w.row_bytes;
        row[1] = (work.second ? work.second : w.data) + other * w.row_bytes;
        scale[0] = scaled ? scale_row(w, first, w.scale) : nullptr;
        scale[1] = scaled ? scale_row(w, other, work.second ? work.second_scale : w.scale) : nullptr;
    }
};

/// Where a thread reads next: its 16 bytes in two rows, and their scales.
template <class F> struct Cursor {
    static constexpr int group_values = 32 * F::slabs; // 64 bytes
    const uint8_t *row[2], *scale[2];
    int32_t k, shift; // of this thread in the group at hand; from k to its scale
    bool two;

    __device__ __forceinline__ void begin(const Work &work, const Unit &unit) {
        const bool scaled = F::slabs > 1 && work.w.scale_dtype;
        const RowPair pair(work, unit, scaled);
        const int t = lane_of_subgroup() % 4;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            row[half] = pair.row[half] + int64_t(unit.segment) * (segment / group_values * 64) + t * 16;
            scale[half] = pair.scale[half];
        }
        k = unit.segment * segment + t * (8 * F::slabs);
        shift = scaled ? scale_shift(work.w) : 0;
        two = pair.two;
    }
    __device__ __forceinline__ void advance(int groups) {
        row[0] += groups * 64, row[1] += groups * 64;
        k += groups * group_values;
    }
};

/// The raw bytes of a thread's two rows for `groups` groups of 64 bytes, with their scales.
template <class F> struct Raw {
    static constexpr int groups = 2; // of a chunk; two chunks are in registers
    uint4 row[2][groups];
    uint32_t scale[2][groups]; // E8M0 bytes

    __device__ __forceinline__ void load(const Cursor<F> &from, int32_t columns) {
#pragma unroll
        for (int half = 0; half < 2; ++half)
#pragma unroll
            for (int i = 0; i < groups; ++i) {
                const int32_t k = from.k + i * Cursor<F>::group_values;
                row[half][i] = make_uint4(0, 0, 0, 0), scale[half][i] = 127;
                if (k >= columns || (half == 1 && !from.two)) continue;
                row[half][i] = load_once(reinterpret_cast<const uint4 *>(from.row[half] + i * 64));
                if (F::slabs > 1 && from.scale[half]) scale[half][i] = __ldg(from.scale[half] + (k >> from.shift));
            }
    }
    /// Whether a scale may be above what one bf16 factor can hold (never seen, but legal).
    __device__ __forceinline__ bool any_large() const {
        uint32_t all = 0;
#pragma unroll
        for (int i = 0; i < groups; ++i) all |= scale[0][i] | scale[1][i]; // at least the largest
        return F::slabs > 1 && all >= 255u - uint32_t(F::bias);
    }
};

__device__ __forceinline__ uint32_t word_of(const uint4 &v, int i) {
    return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
}

/// Slab s of a group of two rows, 16 bytes of each: the A operands of its two multiplications.
template <class F, bool large_scales>
__device__ __forceinline__ void decode_rows(const uint4 &low, const uint4 &high, const PairScale (&scale)[2], int s,
                                            uint32_t (&first)[4], uint32_t (&second)[4]) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        uint32_t words[F::words], a[4];
#pragma unroll
        for (int j = 0; j < F::words; ++j) words[j] = word_of(half ? high : low, s * F::words + j);
        decode_piece<F, large_scales>(words, scale[half], a);
        first[half] = a[0], first[2 + half] = a[1];
        second[half] = a[2], second[2 + half] = a[3];
    }
}

/// sums += rows x columns over one chunk of a segment; xs: shared memory, this chunk's first slab of column 0.
template <class F, int tiles, bool large_scales>
__device__ __forceinline__ void multiply_groups(const Raw<F> &raw, const uint16_t *xs, int pitch, int columns,
                                                int groups_left, float (&sums)[tiles][4]) {
    const int lane = lane_of_subgroup(), g = lane / 4, t = lane % 4;
#pragma unroll
    for (int i = 0; i < Raw<F>::groups; ++i) {
        if (i >= groups_left) break; // the same for the whole subgroup
        const PairScale scale[2] = {scale_of<F, large_scales>(raw.scale[0][i]),
                                    scale_of<F, large_scales>(raw.scale[1][i])};
#pragma unroll
        for (int s = 0; s < F::slabs; ++s) {
            uint32_t first[4], second[4];
            decode_rows<F, large_scales>(raw.row[0][i], raw.row[1][i], scale, s, first, second);
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
    if (F::slabs > 1 && subgroup_ballot(raw.any_large()))
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

/// What is read of a unit by any_segment().
template <class F> struct AnyUnit {
    Raw<F> raw; // its first chunk
    Cursor<F> cursor;
    int32_t segment;

    __device__ __forceinline__ AnyUnit(const Work &work, const Unit &unit) : segment(unit.segment) {
        cursor.begin(work, unit);
        raw.load(cursor, work.w.columns);
    }
};

/// sums of one unit, `columns` columns, of any matrix; xs, in shared memory, begins at its segment. One column:
/// a loop, since a step runs such code once a layer and has to fetch its instructions from wherever they are by then.
template <class F, int tiles>
__device__ __forceinline__ void any_segment(AnyUnit<F> &unit, int32_t k_end, const uint16_t *xs, int pitch, int columns,
                                            float (&sums)[tiles][4]) {
    [[maybe_unused]] constexpr int together = tiles > 1 ? Chunks<F>::per_segment : 1;
#pragma unroll
    for (int n = 0; n < tiles; ++n) sums[n][0] = sums[n][1] = sums[n][2] = sums[n][3] = 0;
#pragma unroll together
    for (int chunk = 0; chunk < Chunks<F>::per_segment; ++chunk) {
        Raw<F> next = unit.raw;
        unit.cursor.advance(Raw<F>::groups);
        if (chunk + 1 < Chunks<F>::per_segment) next.load(unit.cursor, k_end);
        multiply_chunk<F, tiles>(unit.raw, xs + chunk * Raw<F>::groups * F::slabs * 32, pitch, columns,
                                 Chunks<F>::groups(k_end, unit.segment, chunk), sums);
        unit.raw = next;
    }
}

/// The units of a subgroup, one after the other, of a matrix with rows of whole rounds of groups and with scales as
/// published checkpoints have them: nothing is asked on the way, and a round of every thread is in flight. Up to 8
/// columns; those that are not there are multiplied with zeros.
template <class F> class RegularReader {
  public:
    static constexpr int scale_values = F::slabs == 4 ? 32 : 128; // of a row
    static constexpr int ahead = 4;                               // groups, a round
    static constexpr int group_values = 32 * F::slabs, round_values = ahead * group_values;

    __device__ static __forceinline__ bool takes(const Matrix &w) {
        if (w.columns % round_values) return false;
        return F::slabs == 1 || (w.scale_dtype && w.scale_block_columns == scale_values);
    }
    /// What is aimed at is on its way.
    __device__ __forceinline__ void start() {
#pragma unroll
        for (int i = 0; i < ahead; ++i) load(i);
        advance();
    }
    __device__ __forceinline__ void aim(const Work &work, const Unit &unit) {
        const RowPair pair(work, unit, F::slabs > 1);
        const int t = lane_of_subgroup() % 4;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            row_[half] = pair.row[half] + int64_t(unit.segment) * (segment / group_values * 64) + t * 16;
            if (F::slabs > 1)
                scale_[half] =
                    pair.scale[half] + unit.segment * (segment / scale_values) + t * (8 * F::slabs) / scale_values;
        }
    }
    /// From the end of a unit to the same segment `rows` rows further: of whole tiles, whose scales lie in the same
    /// rows or in rows of their own.
    __device__ __forceinline__ void step(const Matrix &w, int rows) {
        const int64_t bytes = rows * w.row_bytes - segment / group_values * 64;
        const int scales = (w.scale_block_rows > 1 ? 0 : rows * w.scale_columns) - segment / scale_values;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            row_[half] += bytes;
            if (F::slabs > 1) scale_[half] += scales;
        }
    }
    /// sums of segment s; xs, in shared memory, begins at it, zeros are zeros_bytes there. go_on(reader) aims at the
    /// next unit, or returns false. Returns whether they are right: not if a scale is above what one bf16 factor can
    /// hold (never seen, but legal).
    template <class GoOn>
    __device__ __forceinline__ bool multiply(int32_t k_end, int s, GoOn &&go_on, const uint16_t *xs, int pitch,
                                             int columns, const uint16_t *zeros, float (&sums)[4]) {
        const int g = lane_of_subgroup() / 4, t = lane_of_subgroup() % 4;
        const uint16_t *b = (g < columns ? xs + g * pitch : zeros) + t * 8;
        const int step = g < columns ? group_values : 0;
        uint32_t scales = 0; // at least the largest
        sums[0] = sums[1] = sums[2] = sums[3] = 0;
#pragma unroll 1
        for (int left = min(k_end - s * segment, segment) / round_values; left; --left) {
            const bool more = left > 1 || go_on(*this);
#pragma unroll
            for (int i = 0; i < ahead; ++i) {
                if (F::slabs > 1) scales |= scale_of_[i][0] | scale_of_[i][1];
                multiply_group(i, b, sums);
                b += step;
                if (more) load(i);
            }
            advance();
        }
        return !(F::slabs > 1 && subgroup_ballot(scales >= 255u - F::bias));
    }

  private:
    __device__ __forceinline__ void load(int i) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            raw_[i][half] = load_once(reinterpret_cast<const uint4 *>(row_[half] + i * 64));
            if (F::slabs > 1) // a group of FP4 has four scales, one for each thread; two of FP8 have one
                scale_of_[i][half] = __ldg(scale_[half] + i * group_values / scale_values);
        }
    }
    __device__ __forceinline__ void advance() {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            row_[half] += ahead * 64;
            if (F::slabs > 1) scale_[half] += round_values / scale_values;
        }
    }
    __device__ __forceinline__ void multiply_group(int i, const uint16_t *b, float (&sums)[4]) {
        PairScale scale[2] = {};
        if (F::slabs > 1)
            scale[0] = scale_of<F, false>(scale_of_[i][0]), scale[1] = scale_of<F, false>(scale_of_[i][1]);
#pragma unroll
        for (int s = 0; s < F::slabs; ++s) {
            uint32_t first[4], second[4];
            decode_rows<F, false>(raw_[i][0], raw_[i][1], scale, s, first, second);
            const uint4 v = *reinterpret_cast<const uint4 *>(b + s * 32);
            const uint32_t b0[2] = {v.x, v.y}, b1[2] = {v.z, v.w};
            mma_bf16_m16n8k16(sums, first, b0);
            mma_bf16_m16n8k16(sums, second, b1);
        }
    }

    uint4 raw_[ahead][2] = {};
    uint32_t scale_of_[ahead][2] = {}; // E8M0 bytes
    const uint8_t *row_[2] = {}, *scale_[2] = {};
};
constexpr int zeros_bytes = 512; // as many as a group of any format takes of a column

// ---- few ------------------------------------------------------------------------------------------------------------

/// Bytes of shared memory that are not activations: the sums of every segment of a block, [8 columns, 16 rows] each,
/// and zeros, which begin 64 bytes further: in other banks than the first column.
__host__ __device__ inline int sums_bytes(int columns, int repeat) {
    return segments_of(columns) * tiles_of(columns) * repeat * 16 * 8 * 4 + 128 + zeros_bytes;
}

/// A thread's part of the sums of a unit into shared memory: [8 columns, 16 rows].
__device__ __forceinline__ void store_unit(float *to, const float (&c)[4]) {
    const int g = lane_of_subgroup() / 4, t = lane_of_subgroup() % 4;
    to[2 * t * 16 + g] = c[0], to[(2 * t + 1) * 16 + g] = c[1];
    to[2 * t * 16 + g + 8] = c[2], to[(2 * t + 1) * 16 + g + 8] = c[3];
}

/// The segments of every row added in order, and the rows' values to memory, by the whole block.
__device__ __forceinline__ void add_units(const Work &work, const float *sums, int row_block, int tile_height,
                                          int tiles, int count, int column, int columns) {
#pragma unroll 1
    for (int i = int(threadIdx.x); i < tiles * tile_height * columns; i += block_threads) {
        const int row = i % tile_height, tile = i / tile_height % tiles, c = i / (tile_height * tiles);
        const float *from = sums + tile * count * 128 + c * 16 + row;
        const auto whole = [&](int second) {
            float sum = from[second];
            for (int s = 1; s < count; ++s) sum += from[s * 128 + second];
            return sum;
        };
        const int n = row_block + tile * tile_height + row, at = work.output_row(column + c);
        if (n >= work.first + work.rows) continue;
        float v = whole(0);
        if (work.second) {
            const float weight = work.weight ? weight_of_pair(work.weight, at, work.active) : 1.0f;
            v = swiglu(v, whole(8), work.limit, weight);
        }
        const int element = n - work.first;
        if (!work.packed_y) work.y[at * work.ldy + element] = v;
        else work.packed_y[at * work.ldy + operand_place(work.packed_type, element)] = uint16_t(pack_bf16(v, 0));
    }
}

/// What a block of KERNEL_FEW may read before the kernel before this one is over: weights alone (or it has waited), its
/// input too but not the route that says whose weights, or both.
enum Known { KNOWN_NOTHING, KNOWN_INPUT, KNOWN_ALL };

template <class F, class Source>
__device__ __forceinline__ void few_block(const Source &source, Work &work, Known known, int columns_at_once,
                                          int tile_height) {
    const int K = work.w.columns, count = segments_of(K), pitch = pitch_of(K), tiles = tiles_of(K) * work.repeat;
    const int units = tiles * count, row_block = work.first + work.block * tiles * tile_height;
    float *sums = dynamic_shared<float>();
    auto *xs = reinterpret_cast<uint16_t *>(dynamic_shared<uint8_t>() + sums_bytes(K, work.repeat));
    auto *zeros = reinterpret_cast<uint16_t *>(sums + units * 128 + 16);
    const bool regular = RegularReader<F>::takes(work.w), even = K % segment == 0;
    const auto settle = [&](Unit &unit) { // segments beyond the last are those of the next tiles
        while (unit.segment >= count) unit.segment -= count, unit.row0 += tile_height;
    };
    if (threadIdx.x < zeros_bytes / 4) reinterpret_cast<uint32_t *>(zeros)[threadIdx.x] = 0;
    if constexpr (Source::of_the_step)
        if (known == KNOWN_INPUT) { // one column
            stage_inputs<F, true>(work, work.column, 1, 0, padded(K), xs, pitch);
            enter_product();
            if (!source.find_weights(work)) return;
        }
#pragma unroll 1
    for (int column = work.column; column < work.columns; column += columns_at_once) {
        const int columns = min(columns_at_once, work.columns - column);
        int u = subgroup_of_block();
        Unit unit{row_block, u, tile_height};
        settle(unit);
        RegularReader<F> reader;
        if (regular && u < units) reader.aim(work, unit), reader.start(); // on its way while activations are staged
        if (column != work.column) __syncthreads();
        else if (known == KNOWN_NOTHING) enter_product();
        if (known != KNOWN_INPUT) stage_inputs<F, Source::of_the_step>(work, column, columns, 0, padded(K), xs, pitch);
        __syncthreads();
        bool right = regular;
#pragma unroll 1
        for (; regular && u < units; u += block_subgroups) {
            Unit next = unit;
            next.segment += block_subgroups;
            settle(next);
            const auto go_on = [&](RegularReader<F> &to) {
                if (u + block_subgroups >= units) return false;
                const int further = next.row0 - unit.row0, end = next.row0 + tile_height,
                          every = work.w.scale_block_rows;
                const bool steps = even && next.segment == unit.segment && end <= work.first + work.rows &&
                                   (every == 1 || !((unit.row0 ^ (end - 1)) & -every));
                if (steps) to.step(work.w, further);
                else to.aim(work, next);
                return true;
            };
            float c[4];
            right &= reader.multiply(K, unit.segment, go_on, xs + unit.segment * segment, pitch, columns, zeros, c);
            store_unit(sums + u * 128, c);
            unit = next;
        }
        if (!right)
#pragma unroll 1
            for (u = subgroup_of_block(); u < units; u += block_subgroups) {
                unit = Unit{row_block + u / count * tile_height, u % count, tile_height};
                AnyUnit<F> any(work, unit);
                float c[1][4];
                any_segment<F, 1>(any, K, xs + unit.segment * segment, pitch, columns, c);
                store_unit(sums + u * 128, c[0]);
            }
        __syncthreads();
        add_units(work, sums, row_block, tile_height, tiles, count, column, columns);
    }
}

/// only: the type of all weights, or -1: any. Less code to fetch.
template <class Source, int32_t only>
__global__ void __launch_bounds__(block_threads, few_blocks_per_processor)
    multiply_few(DSV4_PARAMETER Source source, int columns_at_once, int tile_height) {
    Work work;
    Known known = KNOWN_NOTHING;
    if constexpr (Source::of_the_step) {
        if (!source.input_there) enter_product(); // find() reads the route
    }
    if (!source.find(work, KERNEL_FEW, 0)) return wait_for_former();
    if constexpr (Source::of_the_step)
        known = !source.input_there ? KNOWN_NOTHING : work.w.data ? KNOWN_ALL : KNOWN_INPUT;
    switch (only < 0 ? work.w.dtype : only) {
    case DSV4_FP4_E2M1: few_block<Fp4>(source, work, known, columns_at_once, tile_height); break;
    case DSV4_FP8_E4M3: few_block<Fp8>(source, work, known, columns_at_once, tile_height); break;
    default: few_block<Bf16>(source, work, known, columns_at_once, tile_height);
    }
    if (Source::of_the_step && known == KNOWN_ALL) enter_product();
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
    AnyUnit<F> unit(work, {row0, s, 16});
    stage_inputs<F>(work, work.column, columns, s * segment, min((s + 1) * segment, padded(work.w.columns)), xs, pitch);
    __syncthreads();
    float c[tiles][4];
    any_segment<F, tiles>(unit, work.w.columns, xs, pitch, columns, c);
    store_fragment<tiles>(work, segments_of(work.w.columns) > 1, s, row0, work.column, c);
}

/// Grid: row blocks, column blocks of 8 * tiles, segments.
template <class Source, int tiles>
__global__ void __launch_bounds__(block_threads, tiles > 4 ? 1 : 2) multiply_some(DSV4_PARAMETER Source source) {
    enter_product();
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
