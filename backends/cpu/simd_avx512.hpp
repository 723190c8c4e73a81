// Sixteen float lanes: AVX-512 F, BW, DQ, VL. Same contract as simd_portable.hpp.
#pragma once
#include <immintrin.h>
#include <math.h>
#include <stdint.h>
#include <string.h>
#include "backends/cpu/kernels.hpp"

#define DSV4_INLINE static inline __attribute__((always_inline))

namespace dsv4::cpu {
namespace {

typedef __m512 vf;
typedef __m512i vi;
constexpr int32_t VL = 16, row_block = 8, token_block = 2;

DSV4_INLINE vf vload(const float *p) { return _mm512_loadu_ps(p); }
DSV4_INLINE void vstore(float *p, vf v) { _mm512_storeu_ps(p, v); }
DSV4_INLINE vf vset1(float x) { return _mm512_set1_ps(x); }
DSV4_INLINE vf vfma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
DSV4_INLINE vf vmax(vf a, vf b) { return _mm512_max_ps(a, b); }
DSV4_INLINE vf vmin(vf a, vf b) { return _mm512_min_ps(a, b); }
DSV4_INLINE float vsum(vf v) {
    const __m256 h = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    s = _mm_add_ss(s, _mm_movehdup_ps(s));
    return _mm_cvtss_f32(s);
}
DSV4_INLINE vf vload_bf16(const uint16_t *p) {
    const __m256i h = _mm256_loadu_si256((const __m256i *)p);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}
DSV4_INLINE vf vround(vf x, vi *n) {
    const vf r = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    *n = _mm512_cvtps_epi32(r);
    return r;
}
DSV4_INLINE vf vpow2(vi n) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(n, _mm512_set1_epi32(127)), 23));
}

/// n FP8 codes, a multiple of 16, times scale. The bits of e4m3 moved into a half are the value times 2^-8.
DSV4_INLINE void decode_fp8(const Tables *, const uint8_t *src, int n, float scale, float *out) {
    const vf factor = vset1(scale * 256.0f);
    for (int k = 0; k < n; k += 16) {
        __m256i w = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(src + k)));
        w = _mm256_and_si256(_mm256_slli_epi16(w, 7), _mm256_set1_epi16(int16_t(0xBF80)));
        vstore(out + k, _mm512_mul_ps(_mm512_cvtph_ps(w), factor));
    }
}

/// 32 FP4 codes in 16 bytes.
DSV4_INLINE void decode_fp4(const Tables *tables, const uint8_t *src, float scale, float *out) {
    const vf table = _mm512_mul_ps(_mm512_loadu_ps(tables->e2m1), vset1(scale));
    const __m128i b = _mm_loadu_si128((const __m128i *)src), mask = _mm_set1_epi8(15);
    const __m128i even = _mm_and_si128(b, mask), odd = _mm_and_si128(_mm_srli_epi16(b, 4), mask);
    vstore(out, _mm512_permutexvar_ps(_mm512_cvtepu8_epi32(_mm_unpacklo_epi8(even, odd)), table));
    vstore(out + 16, _mm512_permutexvar_ps(_mm512_cvtepu8_epi32(_mm_unpackhi_epi8(even, odd)), table));
}

} // namespace
} // namespace dsv4::cpu
