// Products on bf16 activations with VDPBF16PS: each lane sums pairs of columns into float32.
#include "backends/cpu/simd_bf16.hpp"
#include "backends/cpu/kernels_body.hpp"

namespace dsv4::cpu {

namespace {

constexpr int32_t rows_at_once = 4, tokens_at_once = 4, chunk = 512; // columns of a decoded panel

size_t bf16_pack_bytes(const Matrix *w, int32_t tokens) { return size_t(tokens) * size_t(round_up(w->cols, 128)) * 2; }

/// [T][cols] bf16, zeros up to a multiple of 128.
void bf16_pack(const PackArgs *a) {
    const int64_t cols = a->w->cols, padded = round_up(cols, 128);
    for (int32_t t = a->first; t < a->last; ++t) {
        const float *x = a->x + (a->index ? a->index[t] : t) * a->ldx;
        uint16_t *out = (uint16_t *)a->out + t * padded;
        for (int64_t k = 0; k < padded; k += 128) {
            float tail[128] = {};
            const float *from = x + k;
            if (cols - k < 128) memcpy(tail, from, size_t(cols - k) * 4), from = tail;
            __m512i lanes[4];
            activation_lanes(from, a->w->type, lanes);
            for (int i = 0; i < 4; ++i) _mm512_storeu_si512(out + k + 32 * i, lanes[i]);
        }
    }
}

/// One row, columns [k0, k0 + count), count a multiple of 32; zeros up to a multiple of 128.
DSV4_INLINE void bf16_decode(const Tables *t, const Matrix *w, int32_t n, int32_t k0, int32_t count, uint16_t *out) {
    const uint8_t *row = w->data + int64_t(n) * w->row_bytes;
    const uint8_t *scale = w->scale + int64_t(n / w->block_rows) * w->scale_stride;
    int32_t k = 0;
    if (w->type == WEIGHT_FP4) {
        for (; k < count; k += 32)
            _mm512_store_si512(out + k, fp4_lanes(row + (k0 + k) / 2, t->e2m1_bf16[scale[(k0 + k) / 32]]));
    } else if (w->type == WEIGHT_FP8) {
        for (; k < count; k += 128) {
            const Fp8Table table = fp8_table(t, scale[(k0 + k) / w->block_cols]);
            for (int i = 0; i < 128; i += 64) {
                __m512i a, b;
                fp8_lanes(row + k0 + k + i, &table, &a, &b);
                _mm512_store_si512(out + k + i, a);
                _mm512_store_si512(out + k + i + 32, b);
            }
        }
    } else {
        for (; k < count; k += 32)
            _mm512_store_si512(out + k, _mm512_loadu_si512(row + int64_t(k0 + k) * 2));
    }
    for (; k % 128; k += 32) _mm512_store_si512(out + k, _mm512_setzero_si512());
}

template <int TB>
DSV4_INLINE void bf16_tile(const uint16_t *x, int64_t ldx, const uint16_t *panel, int32_t count, float *acc) {
    __m512 sum[TB][rows_at_once];
    for (int t = 0; t < TB; ++t)
        for (int r = 0; r < rows_at_once; ++r) sum[t][r] = _mm512_load_ps(acc + (t * rows_at_once + r) * 16);
    for (int32_t k = 0; k < count; k += 32) {
        __m512bh w[rows_at_once];
        for (int r = 0; r < rows_at_once; ++r) w[r] = (__m512bh)_mm512_load_si512(panel + r * chunk + k);
        for (int t = 0; t < TB; ++t) {
            const __m512bh xv = (__m512bh)_mm512_loadu_si512(x + t * ldx + k);
            for (int r = 0; r < rows_at_once; ++r) sum[t][r] = _mm512_dpbf16_ps(sum[t][r], w[r], xv);
        }
    }
    for (int t = 0; t < TB; ++t)
        for (int r = 0; r < rows_at_once; ++r) _mm512_store_ps(acc + (t * rows_at_once + r) * 16, sum[t][r]);
}

void bf16_gemm(const GemmArgs *a) {
    const Matrix *w = a->w;
    const int64_t padded = round_up(w->cols, 128);
    uint16_t *panel = (uint16_t *)a->scratch;
    float *acc = (float *)(panel + rows_at_once * chunk);
    memset(panel, 0, rows_at_once * chunk * 2);
    for (int32_t t0 = 0; t0 < a->tokens; t0 += kernel_token_chunk) {
        const int32_t tokens = a->tokens - t0 < kernel_token_chunk ? a->tokens - t0 : kernel_token_chunk;
        const uint16_t *x = (const uint16_t *)a->x + t0 * padded;
        for (int32_t n = a->row0; n < a->row1; n += rows_at_once) {
            const int32_t rows = a->row1 - n < rows_at_once ? a->row1 - n : rows_at_once;
            memset(acc, 0, size_t(tokens) * rows_at_once * 64);
            for (int32_t k0 = 0; k0 < padded; k0 += chunk) {
                const int32_t count = padded - k0 < chunk ? int32_t(padded - k0) : chunk;
                const int32_t real = w->cols - k0 < count ? w->cols - k0 : count;
                for (int32_t r = 0; r < rows; ++r) {
                    const uint8_t *ahead = w->data + int64_t(n + r + rows_at_once) * w->row_bytes +
                                           int64_t(k0) * w->row_bytes / w->cols;
                    for (int32_t b = 0; b < int64_t(count) * w->row_bytes / w->cols; b += 64)
                        _mm_prefetch((const char *)ahead + b, _MM_HINT_T0);
                    bf16_decode(a->tables, w, n + r, k0, real, panel + r * chunk);
                }
                int32_t t = 0;
                for (; t + tokens_at_once <= tokens; t += tokens_at_once)
                    bf16_tile<tokens_at_once>(x + t * padded + k0, padded, panel, count, acc + t * rows_at_once * 16);
                for (; t < tokens; ++t) bf16_tile<1>(x + t * padded + k0, padded, panel, count, acc + t * rows_at_once * 16);
            }
            for (int32_t t = 0; t < tokens; ++t)
                for (int32_t r = 0; r < rows; ++r)
                    a->y[(t0 + t) * a->ldy + (n - a->row0) + r] = vsum(vload(acc + (t * rows_at_once + r) * 16));
        }
    }
}

void decode_rows(const Tables *t, const Matrix *w, int32_t row, int32_t rows, uint16_t *out, int64_t out_cols) {
    for (int32_t r = 0; r < rows; ++r) bf16_decode(t, w, row + r, 0, w->cols, out + r * out_cols);
}

const Kernels table = {"avx512_bf16", DSV4_KERNELS_F32, rows_at_once, bf16_supports, bf16_pack_bytes, bf16_pack,
                       bf16_gemm, decode_rows, attend, index_prepare_bytes, index_prepare, index_score, DSV4_KERNELS_REST};

} // namespace

const Kernels *kernels_avx512_bf16() { return &table; }

} // namespace dsv4::cpu
