// Thirty-two bf16 lanes on top of simd_avx512.hpp: weights decoded into registers, activations laid out to match.
// FP4 and FP8 codes come out of the decoders in an order of their own inside groups of 32 (FP4) or 64 (FP8) columns;
// the activations are permuted the same way when they are packed, which costs nothing per weight.
#pragma once
#include "backends/cpu/simd_avx512.hpp"

namespace dsv4::cpu {
namespace {

int32_t bf16_supports(const Matrix *w) {
    switch (w->type) {
    case WEIGHT_BF16: return !w->scale && w->cols % 32 == 0;
    case WEIGHT_FP8: return w->scale && !w->scale_is_float && w->block_cols % 128 == 0 && w->cols % 128 == 0;
    case WEIGHT_FP4:
        return w->scale && !w->scale_is_float && w->block_rows == 1 && w->block_cols == 32 && w->cols % 128 == 0;
    }
    return 0;
}

/// 16 bytes of FP4 codes of one scale; column 4 (p % 8) + p / 8 lands in lane p.
DSV4_INLINE __m512i fp4_lanes(const uint8_t *codes, const uint16_t *table) {
    const __m512i shift = _mm512_set_epi16(12, 12, 12, 12, 12, 12, 12, 12, 8, 8, 8, 8, 8, 8, 8, 8, 4, 4, 4, 4, 4, 4, 4,
                                           4, 0, 0, 0, 0, 0, 0, 0, 0);
    const __m512i words = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)codes));
    return _mm512_permutexvar_epi16(_mm512_srlv_epi16(words, shift), _mm512_load_si512(table));
}

struct Fp8Table {
    __m512i low0, low1, high0, high1;
};
DSV4_INLINE Fp8Table fp8_table(const Tables *t, uint8_t scale) {
    const uint8_t *p = t->e4m3_bf16[scale][0];
    return {_mm512_load_si512(p), _mm512_load_si512(p + 64), _mm512_load_si512(p + 128), _mm512_load_si512(p + 192)};
}

/// 64 FP8 codes; column 16 (p / 8) + p % 8 lands in lane p of *a, eight further on in lane p of *b.
DSV4_INLINE void fp8_lanes(const uint8_t *codes, const Fp8Table *t, __m512i *a, __m512i *b) {
    const __m512i c = _mm512_loadu_si512(codes);
    const __m512i low = _mm512_permutex2var_epi8(t->low0, c, t->low1);
    const __m512i magnitude = _mm512_permutex2var_epi8(t->high0, c, t->high1);
    // magnitude | (c & 0x80)
    const __m512i high = _mm512_ternarylogic_epi32(magnitude, c, _mm512_set1_epi8(int8_t(0x80)), 0xF8);
    *a = _mm512_unpacklo_epi8(low, high);
    *b = _mm512_unpackhi_epi8(low, high);
}

/// 128 activations as four groups of 32 bf16 in the order in which the weights of this type are decoded.
DSV4_INLINE void activation_lanes(const float *x, int32_t type, __m512i out[4]) {
    for (int i = 0; i < 4; ++i)
        out[i] = (__m512i)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(x + 32 * i + 16), _mm512_loadu_ps(x + 32 * i));
    if (type == WEIGHT_FP4) {
        const __m512i order = _mm512_set_epi16(31, 27, 23, 19, 15, 11, 7, 3, 30, 26, 22, 18, 14, 10, 6, 2, 29, 25, 21, 17,
                                               13, 9, 5, 1, 28, 24, 20, 16, 12, 8, 4, 0);
        for (int i = 0; i < 4; ++i) out[i] = _mm512_permutexvar_epi16(order, out[i]);
    } else if (type == WEIGHT_FP8) {
        const __m512i even = _mm512_set_epi64(13, 12, 9, 8, 5, 4, 1, 0), odd = _mm512_set_epi64(15, 14, 11, 10, 7, 6, 3, 2);
        for (int i = 0; i < 4; i += 2) {
            const __m512i a = _mm512_permutex2var_epi64(out[i], even, out[i + 1]);
            const __m512i b = _mm512_permutex2var_epi64(out[i], odd, out[i + 1]);
            out[i] = a, out[i + 1] = b;
        }
    }
}

} // namespace
} // namespace dsv4::cpu
