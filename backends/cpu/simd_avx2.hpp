// Eight float lanes: AVX2 with FMA and F16C. Same contract as simd_portable.hpp.
#pragma once
#include <immintrin.h>
#include <math.h>
#include <stdint.h>
#include <string.h>
#include "backends/cpu/kernels.hpp"

#define DSV4_INLINE static inline __attribute__((always_inline))

namespace dsv4::cpu {
namespace {

typedef __m256 vf;
typedef __m256i vi;
constexpr int32_t VL = 8, row_block = 4, token_block = 2;

DSV4_INLINE vf vload(const float *p) { return _mm256_loadu_ps(p); }
DSV4_INLINE void vstore(float *p, vf v) { _mm256_storeu_ps(p, v); }
DSV4_INLINE vf vset1(float x) { return _mm256_set1_ps(x); }
DSV4_INLINE vf vfma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
DSV4_INLINE vf vmax(vf a, vf b) { return _mm256_max_ps(a, b); }
DSV4_INLINE vf vmin(vf a, vf b) { return _mm256_min_ps(a, b); }
DSV4_INLINE float vsum(vf v) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    s = _mm_add_ss(s, _mm_movehdup_ps(s));
    return _mm_cvtss_f32(s);
}
DSV4_INLINE vf vload_bf16(const uint16_t *p) {
    const __m128i h = _mm_loadu_si128((const __m128i *)p);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}
DSV4_INLINE vf vround(vf x, vi *n) {
    const vf r = _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    *n = _mm256_cvtps_epi32(r);
    return r;
}
DSV4_INLINE vf vpow2(vi n) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23));
}

/// n FP8 codes, a multiple of 8, times scale. The bits of e4m3 moved into a half are the value times 2^-8, subnormals too.
DSV4_INLINE void decode_fp8(const Tables *, const uint8_t *src, int n, float scale, float *out) {
    const vf factor = vset1(scale * 256.0f);
    for (int k = 0; k < n; k += 8) {
        __m128i w = _mm_cvtepi8_epi16(_mm_loadl_epi64((const __m128i *)(src + k)));
        w = _mm_and_si128(_mm_slli_epi16(w, 7), _mm_set1_epi16(int16_t(0xBF80)));
        vstore(out + k, _mm256_mul_ps(_mm256_cvtph_ps(w), factor));
    }
}

/// 32 FP4 codes in 16 bytes.
DSV4_INLINE void decode_fp4(const Tables *, const uint8_t *src, float scale, float *out) {
    const vf table = _mm256_mul_ps(_mm256_setr_ps(0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f), vset1(scale));
    const __m128i b = _mm_loadu_si128((const __m128i *)src), mask = _mm_set1_epi8(15);
    const __m128i even = _mm_and_si128(b, mask), odd = _mm_and_si128(_mm_srli_epi16(b, 4), mask);
    const __m128i lo = _mm_unpacklo_epi8(even, odd), hi = _mm_unpackhi_epi8(even, odd);
    const __m128i part[4] = {lo, _mm_srli_si128(lo, 8), hi, _mm_srli_si128(hi, 8)};
    for (int j = 0; j < 4; ++j) {
        const __m256i code = _mm256_cvtepu8_epi32(part[j]);
        const __m256i sign = _mm256_slli_epi32(_mm256_srli_epi32(code, 3), 31);
        const vf magnitude = _mm256_permutevar8x32_ps(table, code);
        vstore(out + 8 * j, _mm256_castsi256_ps(_mm256_xor_si256(_mm256_castps_si256(magnitude), sign)));
    }
}

} // namespace
} // namespace dsv4::cpu
