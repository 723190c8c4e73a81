// Number formats on the device: single values as backends/reference/formats.hpp defines them, and the pieces of a
// weight row that the matrix units take. Everything is integer tricks on the bits, so that every platform computes the
// same.
#pragma once
#include "backends/gpu/objects.hpp"

namespace dsv4::gpu {

// ---- single values ------------------------------------------------------------------------------------------------

__host__ __device__ __forceinline__ float power_of_two(int exponent) { // -126 ... 127
    return float_of(uint32_t(exponent + 127) << 23);
}

__host__ __device__ __forceinline__ float e8m0_decode(uint8_t b) {
    return float_of(b ? uint32_t(b) << 23 : 0x00400000u); // 2^-127 is subnormal
}

__host__ __device__ __forceinline__ float e4m3_decode(uint8_t b) {
    if ((b & 0x7F) == 0x7F) return float_of(0x7FC00000u);
    const float size = float_of(uint32_t(b & 0x7F) << 20) * power_of_two(120); // subnormals come out right
    return b & 0x80 ? -size : size;
}

__host__ __device__ __forceinline__ float e2m1_decode(uint32_t code) {
    const float size = float_of((code & 7u) << 22) * power_of_two(126);
    return code & 8u ? -size : size;
}

__host__ __device__ __forceinline__ float f16_decode(uint16_t h) {
    const uint32_t size = uint32_t(h & 0x7FFF) << 13, sign = uint32_t(h & 0x8000) << 16;
    if ((h & 0x7C00) == 0x7C00) return float_of(sign | size | 0x7F800000u);
    return float_of(sign | bits_of(float_of(size) * power_of_two(112)));
}

/// The code of the nearest E4M3 value, ties to even; |x| <= 448.
__device__ __forceinline__ uint8_t e4m3_encode(float x) {
    const uint32_t u = bits_of(x), size = u & 0x7FFFFFFFu;
    const uint32_t code = size < 0x3C800000u // 2^-6: below it the step is 2^-9
                              ? uint32_t(rintf(float_of(size) * 512.0f))
                              : ((size + 0x7FFFFu + ((size >> 20) & 1u)) >> 20) - (120u << 3);
    return uint8_t(code | (u >> 24 & 0x80u));
}
__device__ __forceinline__ float round_e4m3(float x) { return e4m3_decode(e4m3_encode(x)); }

/// The code of the nearest E2M1 value, ties to the even mantissa; |x| <= 6.
__device__ __forceinline__ uint32_t e2m1_encode(float x) {
    const float a = fabsf(x);
    const uint32_t code = uint32_t(a > .25f) + uint32_t(a >= .75f) + uint32_t(a > 1.25f) + uint32_t(a >= 1.75f) +
                          uint32_t(a > 2.5f) + uint32_t(a >= 3.5f) + uint32_t(a > 5.f);
    return code | (bits_of(x) >> 28 & 8u);
}
__device__ __forceinline__ float round_e2m1(float x) { return e2m1_decode(e2m1_encode(x)); }

/// The exponent of the smallest power of two >= x, from the bits as the released kernels do it; x > 0 and normal.
__device__ __forceinline__ int exponent_above(float x) {
    const uint32_t u = bits_of(x);
    return int(u >> 23 & 0xFF) - 127 + ((u & 0x7FFFFFu) != 0);
}
/// The exponent of the scale of a block whose largest magnitude is `top`.
__device__ __forceinline__ int fp8_exponent(float top) { return exponent_above(fmaxf(top, 1e-4f) * (1.0f / 448.0f)); }
__device__ __forceinline__ int fp4_exponent(float top) {
    return exponent_above(fmaxf(top, 6.0f * power_of_two(-126)) * (1.0f / 6.0f));
}
/// What remains of x in a block of that scale.
__device__ __forceinline__ float fake_fp8(float x, int exponent) {
    const float scaled = fminf(fmaxf(x * power_of_two(-exponent), -448.f), 448.f);
    return round_e4m3(scaled) * power_of_two(exponent);
}
__device__ __forceinline__ float fake_fp4(float x, int exponent) {
    const float scaled = fminf(fmaxf(x * power_of_two(-exponent), -6.f), 6.f);
    return round_e2m1(scaled) * power_of_two(exponent);
}

/// Eight float32 neighbours, 16-byte aligned. Not through the read-only path: that is for memory which nobody writes
/// while the kernel lives, and a kernel launched early lives while the former still writes. fresh: load_fresh().
template <bool fresh = false> __device__ __forceinline__ void load_eight(const float *p, float (&out)[8]) {
    const auto *q = reinterpret_cast<const float4 *>(p);
    const float4 a = fresh ? load_fresh(q) : q[0], b = fresh ? load_fresh(q + 1) : q[1];
    out[0] = a.x, out[1] = a.y, out[2] = a.z, out[3] = a.w;
    out[4] = b.x, out[5] = b.y, out[6] = b.z, out[7] = b.w;
}

// ---- weights, one value or eight at a time ------------------------------------------------------------------------

__host__ __device__ __forceinline__ float scale_at(const Matrix &m, int32_t row, int32_t column) {
    if (!m.scale_dtype) return 1.0f;
    const int64_t i = int64_t(row / m.scale_block_rows) * m.scale_columns + column / m.scale_block_columns;
    return m.scale_dtype == DSV4_E8M0 ? e8m0_decode(m.scale[i]) : reinterpret_cast<const float *>(m.scale)[i];
}

__host__ __device__ __forceinline__ float element(const Matrix &m, int32_t row, int32_t column) {
    const uint8_t *p = m.data + row * m.row_bytes;
    float v = 0;
    switch (m.dtype) {
    case DSV4_F32: v = reinterpret_cast<const float *>(p)[column]; break;
    case DSV4_BF16: v = from_bf16(reinterpret_cast<const uint16_t *>(p)[column]); break;
    case DSV4_F16: v = f16_decode(reinterpret_cast<const uint16_t *>(p)[column]); break;
    case DSV4_FP8_E4M3: v = e4m3_decode(p[column]); break;
    case DSV4_FP4_E2M1: v = e2m1_decode(p[column / 2] >> (column % 2 * 4)); break;
    }
    return v * scale_at(m, row, column);
}

/// Eight neighbours, zeros behind the end of the row; column is a multiple of 8.
__device__ __forceinline__ void eight_elements(const Matrix &m, int32_t row, int32_t column, float (&out)[8]) {
    const bool together = m.columns % 8 == 0 && (!m.scale_dtype || m.scale_block_columns % 8 == 0);
    if (!together) {
#pragma unroll
        for (int i = 0; i < 8; ++i) out[i] = column + i < m.columns ? element(m, row, column + i) : 0.0f;
        return;
    }
    const uint8_t *p = m.data + row * m.row_bytes;
    switch (m.dtype) {
    case DSV4_F32: {
        const float4 *q = reinterpret_cast<const float4 *>(p + column * 4);
        const float4 a = __ldg(q), b = __ldg(q + 1);
        out[0] = a.x, out[1] = a.y, out[2] = a.z, out[3] = a.w;
        out[4] = b.x, out[5] = b.y, out[6] = b.z, out[7] = b.w;
        break;
    }
    case DSV4_BF16:
    case DSV4_F16: {
        const uint4 q = __ldg(reinterpret_cast<const uint4 *>(p + column * 2));
        const uint32_t words[4] = {q.x, q.y, q.z, q.w};
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            const auto half = uint16_t(words[i / 2] >> (i % 2 * 16));
            out[i] = m.dtype == DSV4_BF16 ? from_bf16(half) : f16_decode(half);
        }
        break;
    }
    case DSV4_FP8_E4M3: {
        const uint2 q = __ldg(reinterpret_cast<const uint2 *>(p + column));
#pragma unroll
        for (int i = 0; i < 8; ++i) out[i] = e4m3_decode(uint8_t((i < 4 ? q.x : q.y) >> (i % 4 * 8)));
        break;
    }
    case DSV4_FP4_E2M1: {
        const uint32_t q = __ldg(reinterpret_cast<const uint32_t *>(p + column / 2));
#pragma unroll
        for (int i = 0; i < 8; ++i) out[i] = e2m1_decode(q >> (i * 4));
        break;
    }
    default:
#pragma unroll
        for (int i = 0; i < 8; ++i) out[i] = 0.0f;
    }
    if (!m.scale_dtype) return;
    const float scale = scale_at(m, row, column);
#pragma unroll
    for (int i = 0; i < 8; ++i) out[i] *= scale;
}

// ---- pieces for the matrix units ----------------------------------------------------------------------------------

/// Both bf16 halves of a times those of b; exact where the product is a bf16 value.
__device__ __forceinline__ uint32_t multiply_pair(uint32_t a, uint32_t b) {
#if defined(DSV4_GPU_CUDA) && defined(__CUDA_ARCH__)
    uint32_t r;
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(r) : "r"(a), "r"(b), "r"(0x80008000u));
    return r;
#else
    const float low = float_of(a << 16) * float_of(b << 16),
                high = float_of(a & 0xFFFF0000u) * float_of(b & 0xFFFF0000u);
    return bits_of(low) >> 16 | (bits_of(high) & 0xFFFF0000u);
#endif
}

/// A power of two as a pair of bf16, and what does not fit into it (1: nothing).
struct PairScale {
    uint32_t first, rest;
};
/// 2^(bias + code - 127), code an E8M0 byte; bias brings the raw bits of a format to their value.
__device__ __forceinline__ PairScale pair_scale(uint32_t code, uint32_t bias) {
    const uint32_t field = code + bias, fits = field < 254u ? field : 254u;
    return {fits << 7 | fits << 23, (127u + field - fits) << 7 | (127u + field - fits) << 23};
}
__device__ __forceinline__ uint32_t scaled(uint32_t pair, const PairScale &s) { return multiply_pair(pair, s.first); }

// A piece is eight neighbours of a row, decoded to four words of two bf16 each. Which of the eight share a word is the
// format's business (what is cheapest to decode); activations are put in the same order (order()), and a sum does not
// care. `slabs` pieces make the 16 bytes that one thread loads.
struct Fp4 {
    static constexpr int slabs = 4, words = 1;
    static constexpr uint32_t bias = 126; // of the raw bits' exponent
    __device__ static constexpr int order(int i) { return i / 2 + i % 2 * 4; } // 0 4 1 5 2 6 3 7
    __device__ static constexpr int place(int i) { return i % 4 * 2 + i / 4; } // order(place(i)) = i
    __device__ static __forceinline__ PairScale scale(uint32_t code) { return pair_scale(code, bias); }
    __device__ static __forceinline__ void decode(const uint32_t *raw, const PairScale &s, uint32_t (&out)[4]) {
        // A nibble seem goes to s at bit 15 and eem at bits 8..6 of its half: two shifts, added by one multiplication.
        const uint32_t low = raw[0], high = raw[0] >> 8, keep = 0x81C081C0u;
        out[0] = scaled((low & 0x000F000Fu) * 0x1040u & keep, s);
        out[1] = scaled((low & 0x00F000F0u) * 0x0104u & keep, s);
        out[2] = scaled((high & 0x000F000Fu) * 0x1040u & keep, s);
        out[3] = scaled((high & 0x00F000F0u) * 0x0104u & keep, s);
    }
};

struct Fp8 {
    static constexpr int slabs = 2, words = 2;
    static constexpr uint32_t bias = 120;
    __device__ static constexpr int order(int i) { return i / 4 * 4 + i % 4 / 2 + i % 2 * 2; } // 0 2 1 3 4 6 5 7
    __device__ static constexpr int place(int i) { return order(i); }
    __device__ static __forceinline__ PairScale scale(uint32_t code) { return pair_scale(code, bias); }
    __device__ static __forceinline__ void decode(const uint32_t *raw, const PairScale &s, uint32_t (&out)[4]) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            const uint32_t even = raw[i], odd = raw[i] >> 4;
            out[2 * i] = scaled((even << 8 & 0x80008000u) | (even << 4 & 0x07F007F0u), s);
            out[2 * i + 1] = scaled((even & 0x80008000u) | (odd & 0x07F007F0u), s);
        }
    }
};

struct Bf16 {
    static constexpr int slabs = 1, words = 4;
    static constexpr uint32_t bias = 0; // none, and no scales
    __device__ static constexpr int order(int i) { return i; }
    __device__ static constexpr int place(int i) { return i; }
    __device__ static __forceinline__ PairScale scale(uint32_t) { return {0, 0}; }
    __device__ static __forceinline__ void decode(const uint32_t *raw, const PairScale &, uint32_t (&out)[4]) {
#pragma unroll
        for (int i = 0; i < 4; ++i) out[i] = raw[i];
    }
};

/// Whether one of four E8M0 bytes is above what one bf16 factor can hold (never seen, but legal).
template <class F> __device__ __forceinline__ bool any_large(uint32_t codes) {
    constexpr uint32_t least = 255u - F::bias - 128u; // of the lower seven bits, the eighth being set
    return F::slabs > 1 && (codes & ((codes & 0x7F7F7F7Fu) + (128u - least) * 0x01010101u) & 0x80808080u);
}
/// The scale of an E8M0 byte; `large`: it may be one of those.
template <class F, bool large> __device__ __forceinline__ PairScale scale_of(uint32_t code) {
    if (large) return F::scale(code);
    return {(code + F::bias) * 0x00800080u, 0};
}
/// decode, and once more for what does not fit into the first factor.
template <class F, bool large = true>
__device__ __forceinline__ void decode_piece(const uint32_t *raw, const PairScale &s, uint32_t (&out)[4]) {
    F::decode(raw, s, out);
    if (large && s.rest > 0x3F803F80u)
#pragma unroll
        for (int i = 0; i < 4; ++i) out[i] = multiply_pair(out[i], s.rest);
}

/// How many pieces a 16-byte load of this type holds; 0: not one for the matrix units.
__host__ __device__ constexpr int slabs_of(int32_t dtype) {
    return dtype == DSV4_FP4_E2M1   ? Fp4::slabs
           : dtype == DSV4_FP8_E4M3 ? Fp8::slabs
           : dtype == DSV4_BF16     ? Bf16::slabs
                                    : 0;
}

/// Exact in bf16 with power-of-two scales, rows of whole 16-byte pieces, one scale for each, scale blocks that shifts
/// find.
inline bool takes_matrix_units(const Matrix &m) {
    const int piece = 8 * slabs_of(m.dtype);
    if (!piece || m.columns % piece) return false;
    if (!m.scale_dtype) return true;
    const auto is_power = [](int n) { return n > 0 && (n & (n - 1)) == 0; };
    return m.dtype != DSV4_BF16 && m.scale_dtype == DSV4_E8M0 && m.scale_block_columns % piece == 0 &&
           is_power(m.scale_block_columns) && is_power(m.scale_block_rows);
}

/// Row `row` of the E8M0 scales of a matrix that takes_matrix_units(), and the shift from k to its place there.
__device__ __forceinline__ const uint8_t *scale_row(const Matrix &m, int row, const uint8_t *scale) {
    return scale + int64_t(row >> (31 - __clz(m.scale_block_rows))) * m.scale_columns;
}
__device__ __forceinline__ int scale_shift(const Matrix &m) { return 31 - __clz(m.scale_block_columns); }

} // namespace dsv4::gpu
