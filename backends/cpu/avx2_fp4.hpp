// FP4 matrices on AVX2: products on activations rounded to 16-bit integers, one scale for 512 columns of a token. FP4
// values times two are integers, so the sum over one weight scale's 32 columns is an exact integer and costs ten
// instructions where float32 needs fourteen; and with many tokens it spreads over more ports than fused multiply-adds
// do. The rounding is at most 2^-16 of the largest activation of the 512: the release rounds to FP8, 2^-4 of each.
//
// A row's sum is: for every 512 columns a chain of sixteen blocks in float32, that chain times the activations' scale
// added to one accumulator in each of eight lanes. It is the same for one token and for many.
#pragma once

namespace dsv4::cpu {
namespace {

constexpr int32_t block_cols = 32, integer_cols = 512; // of one weight scale; of one activation scale, and of a panel
constexpr int32_t panel_blocks = integer_cols / block_cols, panel_rows = 32, panel_tokens = 24;
constexpr int32_t visit_rows = 8; // of few tokens: rows between two visits of the activations

int32_t fp4_supports(const Matrix *w) {
    return w->type == WEIGHT_FP4 && w->scale && !w->scale_is_float && w->block_rows == 1 &&
           w->block_cols == block_cols && w->cols % block_cols == 0;
}

/// 16 bytes of codes as 512 times their values: columns 0 2 .. 14 and 1 3 .. 15, then 16 .. and 17 ..
DSV4_INLINE void fp4_words(const uint8_t *codes, __m256i *a, __m256i *b) {
    const __m128i twice = _mm_setr_epi8(0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12);
    const __m256i shift = _mm256_setr_epi32(0, 0, 0, 0, 4, 4, 4, 4), zero = _mm256_setzero_si256();
    const __m256i both = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)codes));
    const __m256i code = _mm256_and_si256(_mm256_srlv_epi32(both, shift), _mm256_set1_epi8(15));
    const __m256i value = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(twice), code);
    *a = _mm256_unpacklo_epi8(zero, value);
    *b = _mm256_unpackhi_epi8(zero, value);
}

/// The exact sum over one block, as float32: at most 4 * 3072 * 32767 < 2^31, a multiple of 256.
DSV4_INLINE vf block_sum(__m256i wa, __m256i wb, const int16_t *x) {
    const __m256i xa = _mm256_loadu_si256((const __m256i *)x), xb = _mm256_loadu_si256((const __m256i *)x + 1);
    return _mm256_cvtepi32_ps(_mm256_add_epi32(_mm256_madd_epi16(wa, xa), _mm256_madd_epi16(wb, xb)));
}

// Packed: panels of integer_cols columns, each [tokens][columns] int16, then [panels][tokens] float32 scales.
DSV4_INLINE float *packed_scales(const void *packed, int64_t cols, int64_t tokens) {
    return (float *)((int16_t *)packed + cols * tokens);
}

size_t fp4_pack_bytes(const Matrix *w, int32_t tokens) {
    return size_t(tokens) * (size_t(w->cols) * 2 + size_t((w->cols + integer_cols - 1) / integer_cols) * 4);
}

/// `width` activations; returns their scale, with the 512 of the weights in it. What is not finite makes it not finite.
DSV4_INLINE float pack_panel(const float *x, int64_t width, int16_t *out) {
    const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
    __m256i top = _mm256_setzero_si256();
    for (int64_t k = 0; k < width; k += VL)
        top = _mm256_max_epi32(top, _mm256_and_si256(_mm256_castps_si256(vload(x + k)), magnitude));
    int32_t lanes[VL], bits = 0;
    _mm256_storeu_si256((__m256i *)lanes, top);
    for (int i = 0; i < VL; ++i) bits = lanes[i] > bits ? lanes[i] : bits;
    float most;
    memcpy(&most, &bits, sizeof most);
    if (most < 0x1p-100f) { // too small for a reciprocal, and for anything else
        memset(out, 0, size_t(width) * sizeof *out);
        return 0.0f;
    }
    const vf factor = vset1(32767.0f / most);
    for (int64_t k = 0; k < width; k += 2 * VL, out += 2 * VL) {
        const vf a = vload(x + k), b = vload(x + k + VL);
        const __m256i e = _mm256_cvtps_epi32(even_ones(a, b) * factor), o = _mm256_cvtps_epi32(odd_ones(a, b) * factor);
        _mm256_storeu_si256((__m256i *)out, _mm256_permute4x64_epi64(_mm256_packs_epi32(e, o), 0xD8));
    }
    return most * (1.0f / (512.0f * 32767.0f));
}

DSV4_INLINE int32_t panel_width(const Matrix *w, int32_t k0) {
    return w->cols - k0 < integer_cols ? w->cols - k0 : integer_cols;
}

void fp4_pack(const PackArgs *a) {
    const int64_t cols = a->w->cols;
    float *scales = packed_scales(a->out, cols, a->tokens);
    for (int32_t k0 = 0; k0 < cols; k0 += integer_cols, scales += a->tokens) {
        const int64_t width = panel_width(a->w, k0);
        int16_t *out = (int16_t *)a->out + int64_t(k0) * a->tokens;
        for (int32_t t = a->first; t < a->last; ++t)
            scales[t] = pack_panel(a->x + (a->index ? a->index[t] : t) * a->ldx + k0, width, out + t * width);
    }
}

/// R rows of one token; the lines of the next R rows are asked for while these are read.
template <int R> DSV4_INLINE void fp4_rows(const GemmArgs *a, int32_t n, float *y) {
    const Matrix *w = a->w;
    const int64_t stride = w->row_bytes, scale_stride = w->scale_stride;
    const uint8_t *p = w->data + n * stride, *s = w->scale + n * scale_stride;
    const float *x_scale = packed_scales(a->x, w->cols, 1), *e8m0 = a->tables->e8m0;
    const int16_t *x = (const int16_t *)a->x;
    vf sum[R];
    for (int r = 0; r < R; ++r) sum[r] = vset1(0.0f);
    for (int32_t k0 = 0; k0 < w->cols; k0 += integer_cols, ++x_scale) {
        const int32_t blocks = panel_width(w, k0) / block_cols;
        vf group[R];
        for (int r = 0; r < R; ++r) group[r] = vset1(0.0f);
        for (int32_t b = 0; b < blocks; ++b, x += block_cols, p += block_cols / 2, ++s) {
            if (b % 4 == 0)
                for (int r = 0; r < R; ++r) _mm_prefetch((const char *)(p + (R + r) * stride), _MM_HINT_T0);
#pragma GCC unroll 4
            for (int r = 0; r < R; ++r) {
                __m256i wa, wb;
                fp4_words(p + r * stride, &wa, &wb);
                group[r] = vfma(block_sum(wa, wb, x), vset1(e8m0[s[r * scale_stride]]), group[r]);
            }
        }
        for (int r = 0; r < R; ++r) sum[r] = vfma(group[r], vset1(*x_scale), sum[r]);
    }
    for (int r = 0; r < R; ++r) y[r] = vsum(sum[r]);
}

void fp4_token(const GemmArgs *a) {
    int32_t n = a->row0;
    for (; n + 4 <= a->row1; n += 4) fp4_rows<4>(a, n, a->y + (n - a->row0));
    for (; n < a->row1; ++n) fp4_rows<1>(a, n, a->y + (n - a->row0));
}

/// R rows, decoded in registers, and TB tokens over one panel. acc[r][t][lane].
template <int R, int TB>
DSV4_INLINE void fp4_few_tile(const GemmArgs *a, int32_t n, int32_t k0, float *acc) {
    const Matrix *w = a->w;
    const int32_t width = panel_width(w, k0);
    const uint8_t *p = w->data + n * w->row_bytes + k0 / 2, *s = w->scale + n * w->scale_stride + k0 / block_cols;
    const int16_t *x = (const int16_t *)a->x + int64_t(k0) * TB;
    const float *x_scale = packed_scales(a->x, w->cols, TB) + k0 / integer_cols * TB;
    vf sum[R][TB];
    for (int r = 0; r < R; ++r)
        for (int t = 0; t < TB; ++t) sum[r][t] = vset1(0.0f);
    for (int32_t k = 0; k < width; k += block_cols, p += block_cols / 2, ++s)
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r) {
            __m256i wa, wb;
            fp4_words(p + r * w->row_bytes, &wa, &wb);
            const vf factor = vset1(a->tables->e8m0[s[r * w->scale_stride]]);
            for (int t = 0; t < TB; ++t) sum[r][t] = vfma(block_sum(wa, wb, x + t * width + k), factor, sum[r][t]);
        }
    for (int r = 0; r < R; ++r)
        for (int t = 0; t < TB; ++t) {
            float *to = acc + (r * TB + t) * VL;
            vstore(to, vfma(sum[r][t], vset1(x_scale[t]), vload(to)));
        }
}

/// Two to eight tokens, whole panels of them in the first-level cache while visit_rows rows pass.
template <int R, int TB> void fp4_few(const GemmArgs *a) {
    const Matrix *w = a->w;
    float *acc = (float *)a->scratch; // [visit_rows][TB][VL]
    for (int32_t n = a->row0; n < a->row1; n += visit_rows) {
        const int32_t rows = a->row1 - n < visit_rows ? a->row1 - n : visit_rows;
        memset(acc, 0, size_t(rows) * TB * VL * sizeof(float));
        prefetch(w->scale + (n + visit_rows) * w->scale_stride, visit_rows * w->scale_stride);
        for (int32_t k0 = 0; k0 < w->cols; k0 += integer_cols) {
            const int32_t width = panel_width(w, k0);
            int32_t r = 0;
            for (; r < rows; r += R) {
                for (int i = 0; i < R; ++i) {
                    const uint8_t *row = w->data + (n + r + i) * w->row_bytes;
                    prefetch(k0 + width < w->cols ? row + (k0 + width) / 2 : row + visit_rows * w->row_bytes,
                             integer_cols / 2);
                }
                if (r + R <= rows) fp4_few_tile<R, TB>(a, n + r, k0, acc + r * TB * VL);
                else for (int32_t i = r; i < rows; ++i) fp4_few_tile<1, TB>(a, n + i, k0, acc + i * TB * VL);
            }
        }
        for (int32_t r = 0; r < rows; ++r)
            for (int t = 0; t < TB; ++t) a->y[t * a->ldy + (n - a->row0) + r] = vsum(vload(acc + (r * TB + t) * VL));
    }
}

// ---- many tokens -------------------------------------------------------------------------------------------------

/// One decoded row and TB tokens over one panel. acc[t][lane].
template <int TB>
DSV4_INLINE void fp4_tile(const int16_t *x, const float *x_scale, int64_t width, const int16_t *row, const float *scale,
                          float *acc) {
    vf sum[TB];
    for (int t = 0; t < TB; ++t) sum[t] = vset1(0.0f);
    for (int64_t k = 0; k < width; k += block_cols, ++scale) {
        const __m256i wa = *(const __m256i *)(row + k), wb = *(const __m256i *)(row + k + 16);
        const vf factor = vset1(*scale);
        for (int t = 0; t < TB; ++t) sum[t] = vfma(block_sum(wa, wb, x + t * width + k), factor, sum[t]);
    }
    for (int t = 0; t < TB; ++t) vstore(acc + t * VL, vfma(sum[t], vset1(x_scale[t]), vload(acc + t * VL)));
}

DSV4_INLINE void fp4_tiles(const int16_t *x, const float *x_scale, int64_t width, int32_t count, const int16_t *row,
                           const float *scale, float *acc) {
    int32_t t = 0;
    const auto tile = [&](auto step) {
        fp4_tile<decltype(step)::value>(x + t * width, x_scale + t, width, row, scale, acc + t * VL);
        t += decltype(step)::value;
    };
    while (count - t >= 6) tile(Int<6>{});
    while (count - t >= 3) tile(Int<3>{});
    while (count - t >= 1) tile(Int<1>{});
}

void fp4_panels(const GemmArgs *a) {
    const Matrix *w = a->w;
    int16_t *panel = (int16_t *)a->scratch;
    float *scale = (float *)(panel + panel_rows * integer_cols), *acc = scale + panel_rows * panel_blocks;
    const float *x_scale = packed_scales(a->x, w->cols, a->tokens);
    for (int32_t t0 = 0; t0 < a->tokens; t0 += token_chunk) {
        const int32_t tokens = a->tokens - t0 < token_chunk ? a->tokens - t0 : token_chunk;
        for (int32_t n = a->row0; n < a->row1; n += panel_rows) {
            const int32_t rows = a->row1 - n < panel_rows ? a->row1 - n : panel_rows;
            memset(acc, 0, size_t(tokens) * size_t(rows) * VL * sizeof(float)); // [rows][tokens][VL]
            for (int32_t k0 = 0; k0 < w->cols; k0 += integer_cols) {
                const int32_t width = panel_width(w, k0);
                for (int32_t r = 0; r < rows; ++r) {
                    int16_t *out = panel + r * integer_cols;
                    float *to = scale + r * panel_blocks;
                    const uint8_t *row = w->data + (n + r) * w->row_bytes;
                    prefetch(k0 + width < w->cols ? row + (k0 + width) / 2 : row + panel_rows * w->row_bytes,
                             integer_cols / 2);
                    const uint8_t *codes = w->data + (n + r) * w->row_bytes + k0 / 2;
                    const uint8_t *s = w->scale + (n + r) * w->scale_stride + k0 / block_cols;
                    for (int32_t k = 0; k < width; k += block_cols) {
                        __m256i wa, wb;
                        fp4_words(codes + k / 2, &wa, &wb);
                        _mm256_store_si256((__m256i *)(out + k), wa);
                        _mm256_store_si256((__m256i *)(out + k + 16), wb);
                        to[k / block_cols] = a->tables->e8m0[s[k / block_cols]];
                    }
                }
                const int16_t *x = (const int16_t *)a->x + int64_t(k0) * a->tokens + int64_t(t0) * width;
                const float *scales = x_scale + int64_t(k0 / integer_cols) * a->tokens + t0;
                for (int32_t t = 0; t < tokens; t += panel_tokens) {
                    const int32_t count = tokens - t < panel_tokens ? tokens - t : panel_tokens;
                    for (int32_t r = 0; r < rows; ++r)
                        fp4_tiles(x + int64_t(t) * width, scales + t, width, count, panel + r * integer_cols,
                                  scale + r * panel_blocks, acc + (r * tokens + t) * VL);
                }
            }
            for (int32_t t = 0; t < tokens; ++t)
                for (int32_t r = 0; r < rows; ++r)
                    a->y[(t0 + t) * a->ldy + (n - a->row0) + r] = vsum(vload(acc + (r * tokens + t) * VL));
        }
    }
}

void fp4_gemm(const GemmArgs *a) {
    switch (a->tokens) {
    case 1: return fp4_token(a);
    case 2: return fp4_few<2, 2>(a);
    case 3: return fp4_few<2, 3>(a);
    case 4: return fp4_few<2, 4>(a);
    case 5: return fp4_few<1, 5>(a);
    case 6: return fp4_few<1, 6>(a);
    case 7: return fp4_few<1, 7>(a);
    case 8: return fp4_few<1, 8>(a);
    default: return fp4_panels(a);
    }
}

} // namespace
} // namespace dsv4::cpu
