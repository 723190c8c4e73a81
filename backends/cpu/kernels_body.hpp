// The kernels that every instruction set shares, written over the vector type of the simd_*.hpp included before. Each
// sum has one order, fixed by the length of the vectors alone, so that a row's result never depends on its neighbours.
#pragma once

namespace dsv4::cpu {
namespace {

constexpr int32_t panel_cols = 512, attend_rows = 16;

DSV4_INLINE int64_t round_up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }

DSV4_INLINE vf vload_part(const float *p, int64_t n) {
    float lanes[VL] = {};
    memcpy(lanes, p, size_t(n) * sizeof(float));
    return vload(lanes);
}
DSV4_INLINE void vstore_part(float *p, vf v, int64_t n) {
    float lanes[VL];
    vstore(lanes, v);
    memcpy(p, lanes, size_t(n) * sizeof(float));
}

/// e^x to 2 ulp; below -87 it is e^-87, whose share in any sum of ours is nothing.
DSV4_INLINE vf vexp(vf x) {
    x = vmax(vmin(x, vset1(88.0f)), vset1(-87.0f));
    vi n;
    const vf k = vround(x * vset1(1.44269504088896341f), &n);
    vf r = vfma(k, vset1(-0.693145751953125f), x);
    r = vfma(k, vset1(-1.42860682030941723e-6f), r);
    vf p = vset1(1.0f / 720.0f);
    p = vfma(p, r, vset1(1.0f / 120.0f));
    p = vfma(p, r, vset1(1.0f / 24.0f));
    p = vfma(p, r, vset1(1.0f / 6.0f));
    p = vfma(p, r, vset1(0.5f));
    p = vfma(p, r, vset1(1.0f));
    p = vfma(p, r, vset1(1.0f));
    return p * vpow2(n);
}

DSV4_INLINE float bf16_value(uint16_t h) {
    const uint32_t bits = uint32_t(h) << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

DSV4_INLINE uint16_t bf16_of(float f) {
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return uint16_t((bits >> 16) | 0x40u);
    return uint16_t((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

DSV4_INLINE float f16_value(uint16_t h) {
    const int exponent = (h >> 10) & 31, mantissa = h & 1023;
    float f = exponent == 0    ? ldexpf(float(mantissa), -24)
              : exponent == 31 ? (mantissa ? NAN : INFINITY)
                               : ldexpf(float(1024 + mantissa), exponent - 25);
    return (h & 0x8000) ? -f : f;
}

DSV4_INLINE float scale_at(const Tables *t, const Matrix *w, int32_t n, int32_t k) {
    if (!w->scale) return 1.0f;
    const int64_t at = int64_t(n / w->block_rows) * w->scale_stride + k / w->block_cols;
    if (!w->scale_is_float) return t->e8m0[w->scale[at]];
    float f;
    memcpy(&f, w->scale + at * 4, sizeof f);
    return f;
}

DSV4_INLINE void decode_scalar(const Tables *t, const Matrix *w, int32_t n, int32_t k0, int32_t count, float *out) {
    const uint8_t *row = w->data + int64_t(n) * w->row_bytes;
    for (int32_t i = 0; i < count; ++i) {
        const int32_t k = k0 + i;
        float v = 0.0f;
        uint16_t h;
        switch (w->type) {
        case WEIGHT_F32: memcpy(&v, row + int64_t(k) * 4, 4); break;
        case WEIGHT_BF16: memcpy(&h, row + int64_t(k) * 2, 2), v = bf16_value(h); break;
        case WEIGHT_F16: memcpy(&h, row + int64_t(k) * 2, 2), v = f16_value(h); break;
        case WEIGHT_FP8: v = t->e4m3[row[k]]; break;
        default: v = t->e2m1[k & 1 ? row[k >> 1] >> 4 : row[k >> 1] & 15]; break;
        }
        out[i] = w->scale ? v * scale_at(t, w, n, k) : v;
    }
}

/// Row n, columns [k0, k0 + count) as float32, scales folded in; k0 is a multiple of panel_cols.
DSV4_INLINE void decode_row(const Tables *t, const Matrix *w, int32_t n, int32_t k0, int32_t count, float *out) {
    const uint8_t *row = w->data + int64_t(n) * w->row_bytes;
    int32_t k = 0;
    if (!w->scale) {
        if (w->type == WEIGHT_F32) {
            memcpy(out, row + int64_t(k0) * 4, size_t(count) * 4);
            return;
        }
        if (w->type == WEIGHT_BF16)
            for (; k + VL <= count; k += VL) vstore(out + k, vload_bf16((const uint16_t *)(row + int64_t(k0 + k) * 2)));
    }
#ifndef DSV4_DECODE_FP8_SCALAR
    if (w->type == WEIGHT_FP8 && w->scale && w->block_cols % VL == 0)
        while (k < count / VL * VL) {
            const int32_t block = w->block_cols - (k0 + k) % w->block_cols, rest = count / VL * VL - k;
            const int32_t run = block < rest ? block : rest;
            decode_fp8(t, row + k0 + k, run, scale_at(t, w, n, k0 + k), out + k);
            k += run;
        }
#endif
#ifndef DSV4_DECODE_FP4_SCALAR
    if (w->type == WEIGHT_FP4 && w->scale && w->block_cols % 32 == 0)
        for (; k + 32 <= count; k += 32) decode_fp4(t, row + (k0 + k) / 2, scale_at(t, w, n, k0 + k), out + k);
#endif
    if (k < count) decode_scalar(t, w, n, k0 + k, count - k, out + k);
}

[[maybe_unused]] int32_t f32_in_place(const Matrix *w, int32_t) { return w->cols % 16 == 0; }

size_t f32_pack_bytes(const Matrix *w, int32_t tokens) {
    return size_t(tokens) * size_t(round_up(w->cols, VL)) * sizeof(float);
}

[[maybe_unused]] void f32_pack(const PackArgs *a) {
    const int64_t cols = a->w->cols, padded = round_up(cols, VL);
    for (int32_t t = a->first; t < a->last; ++t) {
        float *out = (float *)a->out + t * padded;
        memcpy(out, a->x + (a->index ? a->index[t] : t) * a->ldx, size_t(cols) * sizeof(float));
        memset(out + cols, 0, size_t(padded - cols) * sizeof(float));
    }
}

/// acc[t][r][lane] += x[t][k + lane] * panel[r][k + lane]
template <int TB>
DSV4_INLINE void f32_tile(const float *x, int64_t ldx, const float *panel, int32_t count, float *acc) {
    vf sum[TB][row_block];
    for (int t = 0; t < TB; ++t)
        for (int r = 0; r < row_block; ++r) sum[t][r] = vload(acc + (t * row_block + r) * VL);
    for (int32_t k = 0; k < count; k += VL) {
        vf xv[TB];
        for (int t = 0; t < TB; ++t) xv[t] = vload(x + t * ldx + k);
        for (int r = 0; r < row_block; ++r) {
            const vf wv = vload(panel + r * panel_cols + k);
            for (int t = 0; t < TB; ++t) sum[t][r] = vfma(wv, xv[t], sum[t][r]);
        }
    }
    for (int t = 0; t < TB; ++t)
        for (int r = 0; r < row_block; ++r) vstore(acc + (t * row_block + r) * VL, sum[t][r]);
}

[[maybe_unused]] void f32_gemm(const GemmArgs *a) {
    const Matrix *w = a->w;
    const int64_t padded = round_up(w->cols, VL);
    float *panel = (float *)a->scratch, *acc = panel + row_block * panel_cols;
    for (int32_t t0 = 0; t0 < a->tokens; t0 += kernel_token_chunk) {
        const int32_t tokens = a->tokens - t0 < kernel_token_chunk ? a->tokens - t0 : kernel_token_chunk;
        const float *x = (const float *)a->x + t0 * padded;
        for (int32_t n = a->row0; n < a->row1; n += row_block) {
            const int32_t rows = a->row1 - n < row_block ? a->row1 - n : row_block;
            memset(acc, 0, size_t(tokens) * row_block * VL * sizeof(float));
            for (int32_t k0 = 0; k0 < padded; k0 += panel_cols) {
                const int32_t count = padded - k0 < panel_cols ? int32_t(padded - k0) : panel_cols;
                const int32_t real = w->cols - k0 < count ? w->cols - k0 : count;
                for (int32_t r = 0; r < row_block; ++r) {
                    float *out = panel + r * panel_cols;
                    if (r < rows) decode_row(a->tables, w, n + r, k0, real, out);
                    const int32_t from = r < rows ? real : 0;
                    memset(out + from, 0, size_t(count - from) * sizeof(float));
                }
                int32_t t = 0;
                for (; t + token_block <= tokens; t += token_block)
                    f32_tile<token_block>(x + t * padded + k0, padded, panel, count, acc + t * row_block * VL);
                for (; t < tokens; ++t)
                    f32_tile<1>(x + t * padded + k0, padded, panel, count, acc + t * row_block * VL);
            }
            for (int32_t t = 0; t < tokens; ++t)
                for (int32_t r = 0; r < rows; ++r)
                    a->y[(t0 + t) * a->ldy + (n - a->row0) + r] = vsum(vload(acc + (t * row_block + r) * VL));
        }
    }
}

// ---- attention ---------------------------------------------------------------------------------------------------

/// s[h][j] = q_h . k_j for 4 heads and `attend_rows` rows, both padded to `dim`.
DSV4_INLINE void attend_scores(const float *q, const float *keys, int64_t dim, float *s) {
    for (int j = 0; j < attend_rows; j += 4)
        for (int h = 0; h < 4; h += 2) {
            vf sum[2][4];
            for (int i = 0; i < 2; ++i)
                for (int c = 0; c < 4; ++c) sum[i][c] = vset1(0.0f);
            for (int64_t k = 0; k < dim; k += VL) {
                const vf q0 = vload(q + h * dim + k), q1 = vload(q + (h + 1) * dim + k);
                for (int c = 0; c < 4; ++c) {
                    const vf key = vload(keys + (j + c) * dim + k);
                    sum[0][c] = vfma(q0, key, sum[0][c]);
                    sum[1][c] = vfma(q1, key, sum[1][c]);
                }
            }
            for (int i = 0; i < 2; ++i)
                for (int c = 0; c < 4; ++c) s[(h + i) * attend_rows + j + c] = vsum(sum[i][c]);
        }
}

void attend(const AttendArgs *a) {
    const int64_t dim = round_up(a->dim, VL);
    const int32_t heads = int32_t(round_up(a->heads, 4));
    float *keys = (float *)a->scratch;               // [attend_rows, dim]
    float *q = keys + attend_rows * dim;             // [heads, dim]
    float *o = q + heads * dim;                      // [heads, dim]
    float *s = o + heads * dim;                      // [heads, attend_rows]
    float *peak = s + heads * attend_rows, *mass = peak + heads;
    memset(keys, 0, size_t(attend_rows + 2 * heads) * size_t(dim) * sizeof(float));
    for (int32_t h = 0; h < a->heads; ++h) memcpy(q + h * dim, a->q + int64_t(h) * a->dim, size_t(a->dim) * 4);
    for (int32_t h = 0; h < heads; ++h) peak[h] = -INFINITY, mass[h] = 0.0f;

    for (int32_t j0 = 0; j0 < a->n; j0 += attend_rows) {
        const int32_t count = a->n - j0 < attend_rows ? a->n - j0 : attend_rows;
        for (int32_t j = 0; j < count; ++j) {
            float *row = keys + j * dim;
            if (a->rows_are_float) {
                memcpy(row, a->rows[j0 + j], size_t(a->dim) * 4);
                continue;
            }
            const uint16_t *from = (const uint16_t *)a->rows[j0 + j];
            int32_t k = 0;
            for (; k + VL <= a->dim; k += VL) vstore(row + k, vload_bf16(from + k));
            for (; k < a->dim; ++k) row[k] = bf16_value(from[k]);
        }
        for (int32_t h = 0; h < heads; h += 4) {
            attend_scores(q + h * dim, keys, dim, s + h * attend_rows);
            for (int32_t i = h; i < h + 4; ++i) {
                float *p = s + i * attend_rows, top = peak[i];
                for (int32_t j = 0; j < count; ++j) p[j] *= a->scale, top = p[j] > top ? p[j] : top;
                for (int32_t j = count; j < attend_rows; ++j) p[j] = -INFINITY;
                const float shrink = expf(peak[i] - top);
                peak[i] = top;
                for (int32_t j = 0; j < attend_rows; j += VL) vstore(p + j, vexp(vload(p + j) - vset1(top)));
                for (int32_t j = count; j < attend_rows; ++j) p[j] = 0.0f;
                float sum = 0.0f;
                for (int32_t j = 0; j < count; ++j) sum += p[j];
                mass[i] = mass[i] * shrink + sum;
                if (shrink != 1.0f)
                    for (int64_t k = 0; k < dim; k += VL) vstore(o + i * dim + k, vload(o + i * dim + k) * vset1(shrink));
            }
            const float *p = s + h * attend_rows;
            for (int64_t k = 0; k < dim; k += VL) {
                vf sum[4];
                for (int i = 0; i < 4; ++i) sum[i] = vload(o + (h + i) * dim + k);
                for (int32_t j = 0; j < count; ++j) {
                    const vf v = vload(keys + j * dim + k);
                    for (int i = 0; i < 4; ++i) sum[i] = vfma(vset1(p[i * attend_rows + j]), v, sum[i]);
                }
                for (int i = 0; i < 4; ++i) vstore(o + (h + i) * dim + k, sum[i]);
            }
        }
    }
    for (int32_t h = 0; h < a->heads; ++h) {
        const float total = mass[h] + expf(a->sink[h] - peak[h]);
        for (int32_t k = 0; k < a->dim; ++k) a->o[int64_t(h) * a->dim + k] = o[h * dim + k] / total;
    }
}

// ---- indexer -----------------------------------------------------------------------------------------------------

size_t index_prepare_bytes(int32_t heads, int32_t dim) {
    return size_t(round_up(heads, VL)) * size_t(dim + 1) * sizeof(float);
}

/// Weights, then q with the heads as lanes: [dim, heads].
void index_prepare(const float *q, const float *weight, int32_t heads, int32_t dim, void *out) {
    const int64_t padded = round_up(heads, VL);
    float *w = (float *)out, *qt = w + padded;
    memset(out, 0, index_prepare_bytes(heads, dim));
    for (int32_t h = 0; h < heads; ++h) {
        w[h] = weight[h];
        for (int32_t k = 0; k < dim; ++k) qt[k * padded + h] = q[int64_t(h) * dim + k];
    }
}

void index_score(const IndexArgs *a) {
    const int64_t padded = round_up(a->heads, VL);
    const float *w = (const float *)a->prepared, *qt = w + padded;
    float *keys = (float *)a->scratch; // [4, dim]
    for (int32_t i0 = 0; i0 < a->n; i0 += 4) {
        const int32_t count = a->n - i0 < 4 ? a->n - i0 : 4;
        memset(keys, 0, size_t(4 * a->dim) * sizeof(float));
        for (int32_t i = 0; i < count; ++i) {
            const uint8_t *row = a->keys + (i0 + i) * a->key_bytes;
            float *key = keys + i * a->dim;
            if (a->keys_are_float) {
                memcpy(key, row, size_t(a->dim) * 4);
                continue;
            }
            for (int32_t g = 0; g < a->dim / 32; ++g) {
                const float scale = a->tables->e8m0[row[a->dim / 2 + g]];
#ifdef DSV4_DECODE_FP4_SCALAR
                for (int32_t k = 0; k < 32; ++k) {
                    const uint8_t code = row[g * 16 + k / 2];
                    key[g * 32 + k] = a->tables->e2m1[k & 1 ? code >> 4 : code & 15] * scale;
                }
#else
                decode_fp4(a->tables, row + g * 16, scale, key + g * 32);
#endif
            }
        }
        vf score[4] = {vset1(0.0f), vset1(0.0f), vset1(0.0f), vset1(0.0f)};
        for (int64_t h = 0; h < padded; h += VL) {
            vf sum[4] = {vset1(0.0f), vset1(0.0f), vset1(0.0f), vset1(0.0f)};
            for (int32_t k = 0; k < a->dim; ++k) {
                const vf qv = vload(qt + k * padded + h);
                for (int i = 0; i < 4; ++i) sum[i] = vfma(qv, vset1(keys[i * a->dim + k]), sum[i]);
            }
            for (int i = 0; i < 4; ++i) score[i] = vfma(vmax(sum[i], vset1(0.0f)), vload(w + h), score[i]);
        }
        for (int32_t i = 0; i < count; ++i) a->scores[i0 + i] = vsum(score[i]);
    }
}

// ---- rows --------------------------------------------------------------------------------------------------------

float sum_squares(const float *x, int64_t n) {
    vf a = vset1(0.0f), b = a, c = a, d = a;
    int64_t k = 0;
    for (; k + 4 * VL <= n; k += 4 * VL) {
        const vf x0 = vload(x + k), x1 = vload(x + k + VL), x2 = vload(x + k + 2 * VL), x3 = vload(x + k + 3 * VL);
        a = vfma(x0, x0, a), b = vfma(x1, x1, b), c = vfma(x2, x2, c), d = vfma(x3, x3, d);
    }
    for (; k < n; k += VL) {
        const vf v = n - k < VL ? vload_part(x + k, n - k) : vload(x + k);
        a = vfma(v, v, a);
    }
    return vsum((a + b) + (c + d));
}

void scale(const float *x, const float *weight, float factor, int64_t n, float *out) {
    if (weight)
        for (int64_t k = 0; k < n; ++k) out[k] = x[k] * factor * weight[k];
    else
        for (int64_t k = 0; k < n; ++k) out[k] = x[k] * factor;
}

void hc_collapse(const float *x, const float *pre, int32_t streams, int64_t dim, float *out) {
    int64_t k = 0;
    for (; k + VL <= dim; k += VL) {
        vf sum = vload(x + k) * vset1(pre[0]);
        for (int32_t j = 1; j < streams; ++j) sum = vfma(vload(x + j * dim + k), vset1(pre[j]), sum);
        vstore(out + k, sum);
    }
    for (; k < dim; ++k) {
        float sum = x[k] * pre[0];
        for (int32_t j = 1; j < streams; ++j) sum += x[j * dim + k] * pre[j];
        out[k] = sum;
    }
}

void hc_expand(float *x, const float *y, const float *post, const float *comb, int32_t streams, int64_t dim,
               int64_t count) {
    constexpr int32_t most = 16; // block_create refuses more streams
    for (int64_t k = 0; k < count; k += VL) {
        const int64_t part = count - k < VL ? count - k : int64_t(VL);
        vf in[most];
        for (int32_t j = 0; j < streams; ++j)
            in[j] = part < VL ? vload_part(x + j * dim + k, part) : vload(x + j * dim + k);
        const vf yv = part < VL ? vload_part(y + k, part) : vload(y + k);
        for (int32_t i = 0; i < streams; ++i) {
            vf sum = yv * vset1(post[i]);
            for (int32_t j = 0; j < streams; ++j) sum = vfma(in[j], vset1(comb[j * streams + i]), sum);
            if (part < VL) vstore_part(x + i * dim + k, sum, part);
            else vstore(x + i * dim + k, sum);
        }
    }
}

void swiglu(const float *gate, const float *up, float factor, float limit, int64_t n, float *h) {
    for (int64_t k = 0; k < n; k += VL) {
        const int64_t part = n - k < VL ? n - k : int64_t(VL);
        vf g = part < VL ? vload_part(gate + k, part) : vload(gate + k);
        vf u = part < VL ? vload_part(up + k, part) : vload(up + k);
        if (limit > 0.0f) {
            g = vmin(g, vset1(limit));
            u = vmax(vmin(u, vset1(limit)), vset1(-limit));
        }
        const vf out = g / (vset1(1.0f) + vexp(vset1(0.0f) - g)) * u * vset1(factor);
        if (part < VL) vstore_part(h + k, out, part);
        else vstore(h + k, out);
    }
}

void add(float *y, const float *x, int64_t n) {
    for (int64_t k = 0; k < n; ++k) y[k] += x[k];
}
void round_bf16(float *x, int64_t n) {
    for (int64_t k = 0; k < n; ++k) x[k] = bf16_value(bf16_of(x[k]));
}
void to_bf16(const float *x, int64_t n, uint16_t *out) {
    for (int64_t k = 0; k < n; ++k) out[k] = bf16_of(x[k]);
}
void from_bf16(const uint16_t *x, int64_t n, float *out) {
    for (int64_t k = 0; k < n; ++k) out[k] = bf16_value(x[k]);
}

void pool(const float *const *kv, const float *const *score, const float *const *ape, int32_t rows, int64_t dim,
          float *out) {
    for (int64_t k = 0; k < dim; k += VL) {
        const int64_t part = dim - k < VL ? dim - k : int64_t(VL);
        vf top = vset1(-INFINITY), mass = vset1(0.0f), sum = vset1(0.0f);
        for (int32_t j = 0; j < rows; ++j) {
            const vf s = part < VL ? vload_part(score[j] + k, part) + vload_part(ape[j] + k, part)
                                   : vload(score[j] + k) + vload(ape[j] + k);
            top = vmax(top, s);
        }
        for (int32_t j = 0; j < rows; ++j) {
            const vf s = part < VL ? vload_part(score[j] + k, part) + vload_part(ape[j] + k, part)
                                   : vload(score[j] + k) + vload(ape[j] + k);
            const vf e = vexp(s - top);
            mass = mass + e;
            sum = vfma(e, part < VL ? vload_part(kv[j] + k, part) : vload(kv[j] + k), sum);
        }
        if (part < VL) vstore_part(out + k, sum / mass, part);
        else vstore(out + k, sum / mass);
    }
}

} // namespace

#define DSV4_KERNELS_F32                                                                                               \
    4, f32_in_place, f32_pack_bytes, f32_pack, f32_gemm
#define DSV4_KERNELS_REST                                                                                              \
    sum_squares, scale, hc_collapse, hc_expand, swiglu, add, round_bf16, to_bf16, from_bf16, pool

} // namespace dsv4::cpu
