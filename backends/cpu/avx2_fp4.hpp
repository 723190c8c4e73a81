// FP4 matrices on AVX2: products on activations rounded to 16-bit integers, one scale for 128 columns of a token. FP4
// values times two are integers, so the sum over one scale's 32 columns is an exact integer and costs ten instructions
// where float32 needs fourteen; and in prefill it spreads over more ports than fused multiply-adds do. The rounding is
// at most 2^-16 of the largest activation of the 128: the release rounds to FP8 there, 2^-4 of each.
//
// A row's sum is: for every 128 columns a chain of four blocks in float32, that chain times the activations' scale
// added to one accumulator in each of eight lanes. It is the same for one token and for many.
#pragma once

namespace dsv4::cpu {
namespace {

constexpr int32_t group_cols = 128, block_cols = 32, integer_cols = 512; // of one activation scale, weight scale, panel
constexpr int32_t panel_blocks = integer_cols / block_cols;
constexpr int32_t pair_rows = 2, few_tokens = 3; // of what registers hold

int32_t fp4_supports(const Matrix *w) {
    return w->type == WEIGHT_FP4 && w->scale && !w->scale_is_float && w->block_rows == 1 &&
           w->block_cols == block_cols && w->cols % group_cols == 0;
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
DSV4_INLINE vf block_sum(__m256i wa, __m256i wb, __m256i xa, __m256i xb) {
    return _mm256_cvtepi32_ps(_mm256_add_epi32(_mm256_madd_epi16(wa, xa), _mm256_madd_epi16(wb, xb)));
}

// Packed: panels of integer_cols columns, each [tokens][columns] int16, then [cols / 128][tokens] float32 scales.
DSV4_INLINE float *packed_scales(const void *packed, int64_t cols, int64_t tokens) {
    return (float *)((int16_t *)packed + cols * tokens);
}

size_t fp4_pack_bytes(const Matrix *w, int32_t tokens) {
    return size_t(tokens) * (size_t(w->cols) * 2 + size_t(w->cols / group_cols) * 4);
}

/// 128 activations; returns their scale, with the 512 of the weights in it. What is not finite makes it not finite.
DSV4_INLINE float pack_group(const float *x, int16_t *out) {
    const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
    __m256i top = _mm256_setzero_si256();
    for (int k = 0; k < group_cols; k += VL)
        top = _mm256_max_epi32(top, _mm256_and_si256(_mm256_castps_si256(vload(x + k)), magnitude));
    int32_t lanes[VL], bits = 0;
    _mm256_storeu_si256((__m256i *)lanes, top);
    for (int i = 0; i < VL; ++i) bits = lanes[i] > bits ? lanes[i] : bits;
    float most;
    memcpy(&most, &bits, sizeof most);
    if (most < 0x1p-100f) { // too small for a reciprocal, and for anything else
        memset(out, 0, group_cols * sizeof *out);
        return 0.0f;
    }
    const vf factor = vset1(32767.0f / most);
    for (int k = 0; k < group_cols; k += 2 * VL, out += 2 * VL) {
        const vf a = vload(x + k), b = vload(x + k + VL);
        const __m256i e = _mm256_cvtps_epi32(even_ones(a, b) * factor), o = _mm256_cvtps_epi32(odd_ones(a, b) * factor);
        _mm256_storeu_si256((__m256i *)out, _mm256_permute4x64_epi64(_mm256_packs_epi32(e, o), 0xD8));
    }
    return most * (1.0f / (512.0f * 32767.0f));
}

void fp4_pack(const PackArgs *a) {
    const int64_t cols = a->w->cols;
    float *scales = packed_scales(a->out, cols, a->tokens);
    for (int64_t k0 = 0; k0 < cols; k0 += integer_cols) {
        const int64_t width = cols - k0 < integer_cols ? cols - k0 : int64_t(integer_cols);
        for (int32_t t = a->first; t < a->last; ++t) {
            const float *x = a->x + (a->index ? a->index[t] : t) * a->ldx + k0;
            int16_t *out = (int16_t *)a->out + k0 * a->tokens + t * width;
            for (int64_t k = 0; k < width; k += group_cols)
                scales[(k0 + k) / group_cols * a->tokens + t] = pack_group(x + k, out + k);
        }
    }
}

/// R rows and TB tokens; the lines of the next R rows are asked for while these are read.
template <int R, int TB> DSV4_INLINE void fp4_rows(const GemmArgs *a, int32_t n, float *y) {
    const Matrix *w = a->w;
    const int64_t stride = w->row_bytes, scale_stride = w->scale_stride;
    const uint8_t *p = w->data + n * stride, *s = w->scale + n * scale_stride;
    const float *x_scale = packed_scales(a->x, w->cols, a->tokens), *e8m0 = a->tables->e8m0;
    vf sum[R][TB];
    for (int r = 0; r < R; ++r)
        for (int t = 0; t < TB; ++t) sum[r][t] = vset1(0.0f);
    for (int32_t k = 0; k < w->cols; k += group_cols) {
        const int32_t inside = k % integer_cols, k0 = k - inside;
        const int32_t width = w->cols - k0 < integer_cols ? w->cols - k0 : integer_cols;
        const int16_t *x = (const int16_t *)a->x + int64_t(k0) * a->tokens + inside;
        for (int r = 0; r < R; ++r) _mm_prefetch((const char *)(p + (R + r) * stride), _MM_HINT_T0);
        vf group[R][TB];
        for (int r = 0; r < R; ++r)
            for (int t = 0; t < TB; ++t) group[r][t] = vset1(0.0f);
        for (int b = 0; b < group_cols / block_cols; ++b) {
#pragma GCC unroll 4
            for (int r = 0; r < R; ++r) {
                __m256i wa, wb;
                fp4_words(p + r * stride + b * 16, &wa, &wb);
                const vf scale = vset1(e8m0[s[r * scale_stride + b]]);
                for (int t = 0; t < TB; ++t) {
                    const __m256i *from = (const __m256i *)(x + t * width + b * block_cols);
                    const vf part = block_sum(wa, wb, _mm256_loadu_si256(from), _mm256_loadu_si256(from + 1));
                    group[r][t] = vfma(part, scale, group[r][t]);
                }
            }
        }
        const float *factor = x_scale + int64_t(k / group_cols) * a->tokens;
        for (int r = 0; r < R; ++r)
            for (int t = 0; t < TB; ++t) sum[r][t] = vfma(group[r][t], vset1(factor[t]), sum[r][t]);
        p += group_cols / 2, s += group_cols / block_cols;
    }
    for (int r = 0; r < R; ++r)
        for (int t = 0; t < TB; ++t) y[t * a->ldy + r] = vsum(sum[r][t]);
}

/// Two decoded rows and TB tokens over one panel. acc[t][r][lane].
template <int TB>
DSV4_INLINE void fp4_tile(const int16_t *x, const float *x_scale, int64_t tokens, int64_t width, const int16_t *panel,
                          const float *scale, float *acc) {
    for (int64_t k = 0; k < width; k += group_cols, x_scale += tokens) {
        vf sum[TB][pair_rows];
        for (int t = 0; t < TB; ++t)
            for (int r = 0; r < pair_rows; ++r) sum[t][r] = vset1(0.0f);
#pragma GCC unroll 4
        for (int b = 0; b < group_cols / block_cols; ++b) {
            const int64_t at = k + b * block_cols;
            const __m256i *w0 = (const __m256i *)(panel + at), *w1 = (const __m256i *)(panel + integer_cols + at);
            const __m256i wa[2] = {w0[0], w1[0]}, wb[2] = {w0[1], w1[1]};
            const vf factor[2] = {vset1(scale[at / block_cols]), vset1(scale[panel_blocks + at / block_cols])};
            for (int t = 0; t < TB; ++t) { // an activation in a register serves both rows
                const __m256i *from = (const __m256i *)(x + t * width + at);
                const __m256i xa = _mm256_loadu_si256(from), xb = _mm256_loadu_si256(from + 1);
                for (int r = 0; r < pair_rows; ++r)
                    sum[t][r] = vfma(block_sum(wa[r], wb[r], xa, xb), factor[r], sum[t][r]);
            }
        }
        for (int t = 0; t < TB; ++t)
            for (int r = 0; r < pair_rows; ++r) {
                float *to = acc + (t * pair_rows + r) * VL;
                vstore(to, vfma(sum[t][r], vset1(x_scale[t]), vload(to)));
            }
    }
}

DSV4_INLINE void fp4_tiles(const int16_t *x, const float *x_scale, int64_t all, int64_t width, int32_t count,
                           const int16_t *panel, const float *scale, float *acc) {
    int32_t t = 0;
    const auto tile = [&](auto step) {
        fp4_tile<decltype(step)::value>(x + t * width, x_scale + t, all, width, panel, scale, acc + t * pair_rows * VL);
        t += decltype(step)::value;
    };
    while (count - t >= few_tokens) tile(Int<few_tokens>{});
    if (count - t >= 2) tile(Int<2>{});
    if (t < count) tile(Int<1>{});
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
            const int32_t whole = int32_t(round_up(rows, pair_rows));
            memset(acc, 0, size_t(tokens) * size_t(whole) * VL * sizeof(float));
            for (int32_t k0 = 0; k0 < w->cols; k0 += integer_cols) {
                const int32_t width = w->cols - k0 < integer_cols ? w->cols - k0 : integer_cols;
                for (int32_t r = 0; r < whole; ++r) {
                    int16_t *out = panel + r * integer_cols;
                    float *to = scale + r * panel_blocks;
                    if (r >= rows) {
                        memset(out, 0, size_t(width) * sizeof *out);
                        memset(to, 0, size_t(width / block_cols) * sizeof *to);
                        continue;
                    }
                    if (k0 + width < w->cols) prefetch_row(w, n + r, k0 + width, width);
                    else prefetch_row(w, n + panel_rows + r, 0, integer_cols);
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
                const float *scales = x_scale + int64_t(k0 / group_cols) * a->tokens + t0;
                for (int32_t t = 0; t < tokens; t += panel_tokens) {
                    const int32_t count = tokens - t < panel_tokens ? tokens - t : panel_tokens;
                    for (int32_t r = 0; r < whole; r += pair_rows)
                        fp4_tiles(x + int64_t(t) * width, scales + t, a->tokens, width, count, panel + r * integer_cols,
                                  scale + r * panel_blocks, acc + (r * tokens + t * pair_rows) * VL);
                }
            }
            for (int32_t t = 0; t < tokens; ++t)
                for (int32_t r = 0; r < rows; ++r) {
                    const float *from = acc + ((r - r % pair_rows) * tokens + t * pair_rows + r % pair_rows) * VL;
                    a->y[(t0 + t) * a->ldy + (n - a->row0) + r] = vsum(vload(from));
                }
        }
    }
}

/// Few tokens, weights decoded in registers: R rows at a time, TB tokens of each.
template <int R, int TB> void fp4_direct(const GemmArgs *a) {
    int32_t n = a->row0;
    for (; n + R <= a->row1; n += R) fp4_rows<R, TB>(a, n, a->y + (n - a->row0));
    for (; n < a->row1; ++n) fp4_rows<1, TB>(a, n, a->y + (n - a->row0));
}

void fp4_gemm(const GemmArgs *a) {
    switch (a->tokens) {
    case 1: return fp4_direct<4, 1>(a);
    case 2: return fp4_direct<4, 2>(a);
    case 3: return fp4_direct<2, 3>(a);
    case 4: return fp4_direct<2, 4>(a);
    default: return fp4_panels(a);
    }
}

} // namespace
} // namespace dsv4::cpu
