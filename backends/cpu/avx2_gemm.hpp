// Matrix products on float32 activations for AVX2, on top of kernels_body.hpp. Every sum is one chain of fused
// multiply-adds over the columns in each of eight lanes, whether one token is multiplied with weights decoded in
// registers or hundreds with decoded panels: that makes a row's bits independent of the batch.
//
// FP8 with power-of-two scales ("pairs") takes a short way into float32: a code's bits moved into a float's sign, low
// exponent and high mantissa bits are its value times 2^-120, subnormal codes included as subnormal floats. No
// conversion instruction is needed, and processors that slow down on subnormals see about one weight in ten thousand
// (normally distributed, the largest of a block at 448). The lost powers of two come back through the scale and at the
// end, exactly. Columns come out in an order of their own inside groups of 32; the activations are packed to match.
#pragma once

namespace dsv4::cpu {
namespace {

template <int N> struct Int { static constexpr int value = N; };

constexpr int32_t float_cols = 512, float_rows = 8; // of a decoded panel: half of a first-level cache
constexpr int32_t token_chunk = 192;
constexpr int32_t most_direct_cols = 1 << 17; // whose scaled activations fit the scratch memory

/// Subnormal weights must count whatever the host's floating-point flags say; the rest of the flags is left alone.
class SubnormalsCount {
  public:
    SubnormalsCount() : saved_(_mm_getcsr()) {
        if (saved_ & flags) _mm_setcsr(saved_ & ~flags);
    }
    ~SubnormalsCount() {
        if (saved_ & flags) _mm_setcsr(saved_);
    }

  private:
    static constexpr unsigned flags = 0x8040; // flush to zero, denormals are zero
    unsigned saved_;
};

DSV4_INLINE bool in_pairs(const Matrix *w) {
    return w->type == WEIGHT_FP8 && w->scale && !w->scale_is_float && w->block_rows % 4 == 0 &&
           w->block_cols % 32 == 0 && w->cols % 32 == 0;
}

/// Whether the scales of row n leave room for the powers of two that the short way moves around.
DSV4_INLINE bool scales_are_moderate(const Matrix *w, int32_t n) {
    const uint8_t *scale = w->scale + int64_t(n / w->block_rows) * w->scale_stride;
    for (int32_t b = 0; b * w->block_cols < w->cols; ++b)
        if (scale[b] < 127 - 60 || scale[b] > 127 + 60) return false;
    return true;
}

constexpr float up = 0x1p60f; // sums of pairs are kept divided by it

/// 32 codes as value times 2^-120: columns 0 2 4 6 16 18 20 22, then 1 3 5 .., 8 10 12 .., 9 11 13 ..
DSV4_INLINE void fp8_pairs(const uint8_t *codes, vf out[4]) {
    const __m256i zero = _mm256_setzero_si256(), mask = _mm256_set1_epi16(int16_t(0x87F0));
    const __m256i c = _mm256_loadu_si256((const __m256i *)codes);
    const __m256i a = _mm256_and_si256(_mm256_srai_epi16(_mm256_unpacklo_epi8(zero, c), 4), mask);
    const __m256i b = _mm256_and_si256(_mm256_srai_epi16(_mm256_unpackhi_epi8(zero, c), 4), mask);
    out[0] = _mm256_castsi256_ps(_mm256_slli_epi32(a, 16));
    out[1] = _mm256_castsi256_ps(_mm256_blend_epi16(a, zero, 0x55));
    out[2] = _mm256_castsi256_ps(_mm256_slli_epi32(b, 16));
    out[3] = _mm256_castsi256_ps(_mm256_blend_epi16(b, zero, 0x55));
}

/// a0 a2 a4 a6 b0 b2 b4 b6; and the others.
DSV4_INLINE vf even_ones(vf a, vf b) {
    return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(_mm256_shuffle_ps(a, b, 0x88)), 0xD8));
}
DSV4_INLINE vf odd_ones(vf a, vf b) {
    return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(_mm256_shuffle_ps(a, b, 0xDD)), 0xD8));
}

/// 32 floats in the order of fp8_pairs.
DSV4_INLINE void order_pairs(const float *x, float *out) {
    for (int half = 0; half < 2; ++half) {
        const vf a = vload(x + 8 * half), b = vload(x + 16 + 8 * half);
        vstore(out + 16 * half, even_ones(a, b));
        vstore(out + 16 * half + 8, odd_ones(a, b));
    }
}

/// A single row of floats is what f32_gemm wants to read, unless the columns change places.
int32_t avx2_f32_in_place(const Matrix *w, int32_t tokens) { return tokens == 1 && w->cols % VL == 0 && !in_pairs(w); }

/// Panels of float_cols columns, each [tokens][columns]: what one pass over a decoded panel reads lies together.
void avx2_f32_pack(const PackArgs *a) {
    const int64_t cols = a->w->cols, padded = round_up(cols, VL);
    const bool pairs = in_pairs(a->w);
    for (int64_t k0 = 0; k0 < padded; k0 += float_cols) {
        const int64_t width = padded - k0 < float_cols ? padded - k0 : int64_t(float_cols);
        const int64_t real = cols - k0 < width ? cols - k0 : width;
        for (int32_t t = a->first; t < a->last; ++t) {
            const float *x = a->x + (a->index ? a->index[t] : t) * a->ldx + k0;
            float *out = (float *)a->out + k0 * a->tokens + t * width;
            if (pairs) {
                for (int64_t k = 0; k < width; k += 32) order_pairs(x + k, out + k);
            } else {
                memcpy(out, x, size_t(real) * sizeof(float));
                memset(out + real, 0, size_t(width - real) * sizeof(float));
            }
        }
    }
}

// ---- few tokens --------------------------------------------------------------------------------------------------

struct Bf16Row {
    static constexpr int32_t bytes = 2;
    static inline __attribute__((always_inline)) vf at(const uint8_t *p) { return vload_bf16((const uint16_t *)p); }
};
struct F32Row {
    static constexpr int32_t bytes = 4;
    static inline __attribute__((always_inline)) vf at(const uint8_t *p) { return vload((const float *)p); }
};

/// R rows of weights without scales, TB tokens from t0 on. The next R rows' lines are asked for while these are read.
template <class Format, int R, int TB> DSV4_INLINE void rows_plain(const GemmArgs *a, int32_t n, int32_t t0, float *y) {
    constexpr int32_t line = 64 / Format::bytes;
    const Matrix *w = a->w;
    const int64_t stride = w->row_bytes;
    const uint8_t *p = w->data + n * stride;
    vf sum[R][TB];
    for (int r = 0; r < R; ++r)
        for (int t = 0; t < TB; ++t) sum[r][t] = vset1(0.0f);
    for (int32_t k0 = 0; k0 < w->cols; k0 += float_cols) {
        const int32_t width = w->cols - k0 < float_cols ? w->cols - k0 : float_cols;
        const float *x = (const float *)a->x + int64_t(k0) * a->tokens + int64_t(t0) * width;
        const auto step = [&](int32_t k) {
            vf xv[TB];
            for (int t = 0; t < TB; ++t) xv[t] = vload(x + t * width + k);
            for (int r = 0; r < R; ++r) {
                const vf v = Format::at(p + r * stride);
                for (int t = 0; t < TB; ++t) sum[r][t] = vfma(v, xv[t], sum[r][t]);
            }
            p += VL * Format::bytes;
        };
        int32_t k = 0;
        for (; k + line <= width; k += line) {
            for (int r = 0; r < R; ++r) _mm_prefetch((const char *)(p + (R + r) * stride), _MM_HINT_T0);
#pragma GCC unroll 4
            for (int32_t j = 0; j < line; j += VL) step(k + j);
        }
        for (; k < width; k += VL) step(k);
    }
    for (int r = 0; r < R; ++r)
        for (int t = 0; t < TB; ++t) y[t * a->ldy + r] = vsum(sum[r][t]);
}

template <class Format, int R, int TB>
DSV4_INLINE void direct_plain(const GemmArgs *a, int32_t n, int32_t end, int32_t t0, float *y) {
    for (; n + R <= end; n += R, y += R) rows_plain<Format, R, TB>(a, n, t0, y);
    for (; n < end; ++n, ++y) rows_plain<Format, 1, TB>(a, n, t0, y);
}

constexpr int32_t few_token_count = 8, few_rows = 16; // decoded in registers; rows between two visits of activations

/// Few tokens, three or four at a time; the rows are still near when the next ones come.
template <class Format> void few_plain(const GemmArgs *a) {
    const int32_t step = a->tokens <= 4 ? a->row1 - a->row0 : few_rows;
    for (int32_t n = a->row0, next; n < a->row1; n = next) {
        next = n + step < a->row1 ? n + step : a->row1;
        for (int32_t t = 0; t < a->tokens;) {
            float *y = a->y + t * a->ldy + (n - a->row0);
            switch (a->tokens - t) {
            case 1: direct_plain<Format, 4, 1>(a, n, next, t, y), t += 1; break;
            case 2: direct_plain<Format, 4, 2>(a, n, next, t, y), t += 2; break;
            case 4: direct_plain<Format, 2, 4>(a, n, next, t, y), t += 4; break;
            default: direct_plain<Format, 4, 3>(a, n, next, t, y), t += 3;
            }
        }
    }
}

/// R rows and TB tokens. x: ordered, the scales of these rows times `up` folded in, tokens w->cols apart.
template <int R, int TB>
DSV4_INLINE void rows_pairs(const Matrix *w, int32_t n, const float *x, float *y, int64_t ldy) {
    const int64_t stride = w->row_bytes;
    const uint8_t *p = w->data + n * stride;
    vf sum[R][TB];
    for (int r = 0; r < R; ++r)
        for (int t = 0; t < TB; ++t) sum[r][t] = vset1(0.0f);
    for (int32_t k = 0; k < w->cols; k += 32, p += 32) {
        if (k % 64 == 0)
            for (int r = 0; r < R; ++r) _mm_prefetch((const char *)(p + (R + r) * stride), _MM_HINT_T0);
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r) {
            vf v[4];
            fp8_pairs(p + r * stride, v);
            for (int i = 0; i < 4; ++i)
                for (int t = 0; t < TB; ++t)
                    sum[r][t] = vfma(v[i], vload(x + int64_t(t) * w->cols + k + 8 * i), sum[r][t]);
        }
    }
    for (int r = 0; r < R; ++r)
        for (int t = 0; t < TB; ++t) y[t * ldy + r] = vsum(sum[r][t]) * up;
}

template <int R, int TB>
DSV4_INLINE void direct_pairs(const GemmArgs *a, int32_t n, int32_t end, const float *x, float *y) {
    for (; n + R <= end; n += R, y += R) rows_pairs<R, TB>(a->w, n, x, y, a->ldy);
    for (; n < end; ++n, ++y) rows_pairs<1, TB>(a->w, n, x, y, a->ldy);
}

/// Rows [n, end) of one row of scale blocks, few tokens, four at a time; the rows are near when the second four come.
void few_pairs(const GemmArgs *a, int32_t n, int32_t end, float *y) {
    const Matrix *w = a->w;
    float *scaled = (float *)a->scratch; // [tokens][cols]
    for (int32_t k0 = 0; k0 < w->cols; k0 += 32) {
        const int64_t panel = k0 - k0 % float_cols;
        const int64_t width = w->cols - panel < float_cols ? w->cols - panel : float_cols;
        const float *x = (const float *)a->x + panel * a->tokens + k0 % float_cols;
        const vf factor = vset1(scale_at(a->tables, w, n, k0) * up);
        for (int32_t t = 0; t < a->tokens; ++t)
            for (int32_t k = 0; k < 32; k += VL)
                vstore(scaled + int64_t(t) * w->cols + k0 + k, vload(x + t * width + k) * factor);
    }
    const int32_t step = a->tokens <= 4 ? end - n : few_rows;
    for (int32_t next; n < end; n = next, y += step) {
        next = n + step < end ? n + step : end;
        for (int32_t t = 0; t < a->tokens; t += 4) {
            const float *x = scaled + int64_t(t) * w->cols;
            float *to = y + t * a->ldy;
            switch (a->tokens - t) {
            case 1: direct_pairs<4, 1>(a, n, next, x, to); break;
            case 2: direct_pairs<4, 2>(a, n, next, x, to); break;
            case 3: direct_pairs<2, 3>(a, n, next, x, to); break;
            default: direct_pairs<2, 4>(a, n, next, x, to);
            }
        }
    }
}

// ---- many tokens -------------------------------------------------------------------------------------------------

DSV4_INLINE void prefetch(const uint8_t *p, int64_t bytes) {
    for (int64_t b = 0; b < bytes; b += 64) _mm_prefetch((const char *)p + b, _MM_HINT_T0);
}

/// Columns [k0, k0 + count) of row n of a matrix in pairs; moderate: divided by `up`.
DSV4_INLINE void decode_pairs(const Tables *t, const Matrix *w, int32_t n, int32_t k0, int32_t count, bool moderate,
                              float *out) {
    for (int32_t k = 0, end; k < count; k = end) {
        end = k + w->block_cols - (k0 + k) % w->block_cols;
        if (end > count) end = count;
        const vf factor = vset1(scale_at(t, w, n, k0 + k) * up);
        for (int32_t i = k; i < end; i += 32) {
            if (moderate) {
                vf v[4];
                fp8_pairs(w->data + n * w->row_bytes + k0 + i, v);
                for (int j = 0; j < 4; ++j) vstore(out + i + 8 * j, v[j] * factor);
            } else {
                float natural[32];
                decode_scalar(t, w, n, k0 + i, 32, natural);
                order_pairs(natural, out + i);
            }
        }
    }
}

/// acc[r][t][lane] += x[t][k + lane] * panel[r][k + lane]; rows of acc are `tokens` apart. Twelve sums at once keep
/// both multipliers busy, eight do not.
template <int R, int TB>
DSV4_INLINE void float_tile(const float *x, int64_t width, const float *panel, float *acc, int64_t tokens) {
    vf sum[R][TB];
    for (int r = 0; r < R; ++r)
        for (int t = 0; t < TB; ++t) sum[r][t] = vload(acc + (r * tokens + t) * VL);
    for (int64_t k = 0; k < width; k += VL) {
        vf xv[TB];
        for (int t = 0; t < TB; ++t) xv[t] = vload(x + t * width + k);
        for (int r = 0; r < R; ++r) {
            const vf wv = vload(panel + r * float_cols + k);
            for (int t = 0; t < TB; ++t) sum[r][t] = vfma(wv, xv[t], sum[r][t]);
        }
    }
    for (int r = 0; r < R; ++r)
        for (int t = 0; t < TB; ++t) vstore(acc + (r * tokens + t) * VL, sum[r][t]);
}

/// All tokens and `rows` rows of a panel, four or eight; four tokens are two and two.
DSV4_INLINE void float_tiles(const float *x, int64_t width, int32_t tokens, const float *panel, int32_t rows,
                             float *acc) {
    int32_t t = 0;
    const auto tiles = [&](auto step) {
        constexpr int TB = decltype(step)::value;
        for (int32_t n = 0; n < rows; n += 4) {
            const float *from = x + t * width;
            float_tile<4, TB>(from, width, panel + n * float_cols, acc + (n * int64_t(tokens) + t) * VL, tokens);
        }
        t += TB;
    };
    while (tokens - t >= 3 && tokens - t != 4) tiles(Int<3>{});
    while (tokens - t >= 2) tiles(Int<2>{});
    if (t < tokens) tiles(Int<1>{});
}

/// Rows [n0, n1), which share their scales where they are in pairs. y: of row n0.
void float_panels(const GemmArgs *a, int32_t n0, int32_t n1, bool pairs, bool moderate, float *y) {
    const Matrix *w = a->w;
    const int64_t padded = round_up(w->cols, VL);
    const int64_t bits = w->type == WEIGHT_F32 ? 32 : w->type == WEIGHT_FP8 ? 8 : w->type == WEIGHT_FP4 ? 4 : 16;
    float *panel = (float *)a->scratch, *acc = panel + float_rows * float_cols;
    for (int32_t t0 = 0; t0 < a->tokens; t0 += token_chunk) {
        const int32_t tokens = a->tokens - t0 < token_chunk ? a->tokens - t0 : token_chunk;
        for (int32_t n = n0; n < n1; n += float_rows) {
            const int32_t rows = n1 - n < float_rows ? n1 - n : float_rows;
            const int32_t whole = int32_t(round_up(rows, 4));
            memset(acc, 0, size_t(tokens) * size_t(whole) * VL * sizeof(float));
            for (int64_t k0 = 0; k0 < padded; k0 += float_cols) {
                const int64_t width = padded - k0 < float_cols ? padded - k0 : int64_t(float_cols);
                const int32_t real = int32_t(w->cols - k0 < width ? w->cols - k0 : width);
                for (int32_t r = 0; r < whole; ++r) {
                    float *out = panel + r * float_cols;
                    if (r >= rows) {
                        memset(out, 0, size_t(width) * sizeof(float));
                        continue;
                    }
                    const uint8_t *row = w->data + (n + r) * w->row_bytes;
                    if (k0 + width < padded) prefetch(row + (k0 + width) * bits / 8, width * bits / 8);
                    else prefetch(row + float_rows * w->row_bytes, width * bits / 8);
                    if (pairs) decode_pairs(a->tables, w, n + r, int32_t(k0), real, moderate, out);
                    else decode_row(a->tables, w, n + r, int32_t(k0), real, out);
                    memset(out + real, 0, size_t(width - real) * sizeof(float));
                }
                const float *x = (const float *)a->x + k0 * a->tokens + t0 * width;
                float_tiles(x, width, tokens, panel, whole, acc);
            }
            const float factor = moderate ? up : 1.0f;
            for (int32_t t = 0; t < tokens; ++t)
                for (int32_t r = 0; r < rows; ++r)
                    y[(t0 + t) * a->ldy + (n - n0) + r] = vsum(vload(acc + (r * tokens + t) * VL)) * factor;
        }
    }
}

void avx2_f32_gemm(const GemmArgs *a) {
    const Matrix *w = a->w;
    const bool direct = a->tokens <= few_token_count && w->cols % VL == 0;
    if (!in_pairs(w)) {
        if (direct && !w->scale && w->type == WEIGHT_BF16)
            few_plain<Bf16Row>(a);
        else if (direct && !w->scale && w->type == WEIGHT_F32)
            few_plain<F32Row>(a);
        else float_panels(a, a->row0, a->row1, false, false, a->y);
        return;
    }
    const bool few = a->tokens <= few_token_count && w->cols <= most_direct_cols / few_token_count;
    const SubnormalsCount here;
    for (int32_t n = a->row0, end; n < a->row1; n = end) {
        end = (n / w->block_rows + 1) * w->block_rows;
        if (end > a->row1) end = a->row1;
        const bool moderate = scales_are_moderate(w, n);
        float *y = a->y + (n - a->row0);
        if (few && moderate) few_pairs(a, n, end, y);
        else float_panels(a, n, end, true, moderate, y);
    }
}

} // namespace
} // namespace dsv4::cpu
