// Attention and the indexer in AMX tiles, one token at a time: its heads are the 16 columns (scores) or rows (values) of
// the tiles, so that a token's result depends on nothing but itself.
#pragma once
#include "backends/cpu/amx_gemm.hpp"

namespace dsv4::cpu {
namespace {

constexpr int32_t span_rows = 512; // latent rows between two rescalings of the running softmax

/// heads rows of dim float32 as right operands: [heads / 16][dim / 32][16 pairs][16 heads][2], zeros for missing heads.
DSV4_INLINE void pack_heads(const float *q, int32_t heads, int32_t dim, int32_t order, uint8_t *out) {
    for (int32_t h0 = 0; h0 < heads; h0 += 16) {
        const int32_t count = heads - h0 < 16 ? heads - h0 : 16;
        for (int32_t k = 0; k < dim; k += 128, out += 4096) {
            __m512i lanes[16][4];
            for (int32_t h = 0; h < 16; ++h) {
                if (h < count) activation_lanes(q + int64_t(h0 + h) * dim + k, order, lanes[h]);
                else
                    for (int i = 0; i < 4; ++i) lanes[h][i] = _mm512_setzero_si512();
            }
            for (int i = 0; i < 4; ++i) {
                __m512i r[16];
                for (int h = 0; h < 16; ++h) r[h] = lanes[h][i];
                transpose16(r);
                for (int p = 0; p < 16; ++p) _mm512_store_si512(out + i * 1024 + 64 * p, r[p]);
            }
        }
    }
}

struct Span {
    uint8_t *q, *keys, *values, *p; // packed queries; 32 rows copied; [rows / 32][dim / 16] tiles; [heads / 16][rows / 32]
    float *s;                       // [heads / 16][rows][16]
    float *o;                       // [heads][dim], columns in tile order
    float *peak, *mass;             // [heads]
};

/// Scores of up to 32 rows against all heads into s, and the rows as right operands of the second product.
DSV4_INLINE void span_block(const AttendArgs *a, const Span &w, int32_t heads, int32_t j0, int32_t first, int32_t count) {
    const int64_t row_bytes = int64_t(a->dim) * 2;
    const uint8_t *top = nullptr;
    const void *const *rows = a->rows + first;
    bool even = count == 32; // the rows lie at one distance from each other: no need to gather them
    const int64_t distance = count > 1 ? (const uint8_t *)rows[1] - (const uint8_t *)rows[0] : row_bytes;
    for (int32_t j = 2; even && j < count; ++j)
        even = (const uint8_t *)rows[j] - (const uint8_t *)rows[j - 1] == distance;
    if (even) {
        top = (const uint8_t *)rows[0];
    } else {
        for (int32_t j = 0; j < count; ++j)
            for (int64_t b = 0; b < row_bytes; b += 64)
                _mm512_store_si512(w.keys + j * row_bytes + b, _mm512_loadu_si512((const uint8_t *)rows[j] + b));
        memset(w.keys + count * row_bytes, 0, size_t((32 - count) * row_bytes));
        top = w.keys;
    }
    const int64_t stride = even ? distance : row_bytes;
    const uint8_t *bottom = top + 16 * stride;
    const int64_t group_bytes = int64_t(16) * row_bytes;
    for (int32_t g = 0; g < heads / 16; g += 2) {
        const bool two = g + 1 < heads / 16;
        const uint8_t *q0 = w.q + g * group_bytes, *q1 = two ? q0 + group_bytes : q0;
        DSV4_TILE_ZERO(0);
        DSV4_TILE_ZERO(1);
        DSV4_TILE_ZERO(2);
        DSV4_TILE_ZERO(3);
        for (int32_t k = 0; k < a->dim / 32; ++k) {
            DSV4_TILE_LOAD(4, top + 64 * k, stride);
            DSV4_TILE_LOAD(6, q0 + 1024 * k, 64);
            DSV4_TILE_DOT(0, 4, 6);
            DSV4_TILE_LOAD(5, bottom + 64 * k, stride);
            DSV4_TILE_DOT(1, 5, 6);
            if (!two) continue;
            DSV4_TILE_LOAD(7, q1 + 1024 * k, 64);
            DSV4_TILE_DOT(2, 4, 7);
            DSV4_TILE_DOT(3, 5, 7);
        }
        float *s = w.s + (int64_t(g) * span_rows + j0) * 16;
        DSV4_TILE_STORE(0, s, 64);
        DSV4_TILE_STORE(1, s + 256, 64);
        if (!two) continue;
        DSV4_TILE_STORE(2, s + span_rows * 16, 64);
        DSV4_TILE_STORE(3, s + span_rows * 16 + 256, 64);
    }
    uint8_t *values = w.values + int64_t(j0 / 32) * 32 * row_bytes;
    for (int32_t j = 0; j < 16; ++j) {
        const uint8_t *r0 = top + 2 * j * stride, *r1 = r0 + stride;
        for (int32_t k = 0; k < a->dim / 32; ++k) {
            const __m512i v0 = _mm512_loadu_si512(r0 + 64 * k), v1 = _mm512_loadu_si512(r1 + 64 * k);
            _mm512_store_si512(values + k * 2048 + 64 * j, _mm512_unpacklo_epi16(v0, v1));
            _mm512_store_si512(values + k * 2048 + 1024 + 64 * j, _mm512_unpackhi_epi16(v0, v1));
        }
    }
}

/// Scores of one group of 16 heads -> probabilities as left operands; the running peak and mass move on, and o shrinks.
DSV4_INLINE void span_softmax(const AttendArgs *a, const Span &w, int32_t g, int32_t count, bool first) {
    const float *s = w.s + int64_t(g) * span_rows * 16;
    const __m512 scale = _mm512_set1_ps(a->scale);
    const __m512 before = _mm512_loadu_ps(w.peak + 16 * g);
    __m512 top = before;
    for (int32_t j = 0; j < count; ++j) top = _mm512_max_ps(top, _mm512_mul_ps(_mm512_load_ps(s + 16 * j), scale));
    __m512 sum = _mm512_setzero_ps();
    const int32_t blocks = (count + 31) / 32;
    for (int32_t b = 0; b < blocks; ++b) {
        __m512i r[16];
        for (int32_t i = 0; i < 16; ++i) {
            __m512 p[2];
            for (int32_t e = 0; e < 2; ++e) {
                const int32_t j = 32 * b + 2 * i + e;
                p[e] = j < count ? vexp(_mm512_fmsub_ps(_mm512_load_ps(s + 16 * j), scale, top)) : _mm512_setzero_ps();
                sum = _mm512_add_ps(sum, p[e]);
            }
            const __m512i even = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(p[0]));
            const __m512i odd = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(p[1]));
            r[i] = _mm512_or_si512(even, _mm512_slli_epi32(odd, 16));
        }
        transpose16(r);
        uint8_t *out = w.p + (int64_t(g) * (span_rows / 32) + b) * 1024;
        for (int32_t h = 0; h < 16; ++h) _mm512_store_si512(out + 64 * h, r[h]);
    }
    float shrink[16];
    const __m512 factor = first ? _mm512_setzero_ps() : vexp(_mm512_sub_ps(before, top));
    _mm512_storeu_ps(shrink, factor);
    _mm512_storeu_ps(w.peak + 16 * g, top);
    _mm512_storeu_ps(w.mass + 16 * g, _mm512_fmadd_ps(_mm512_loadu_ps(w.mass + 16 * g), factor, sum));
    if (first) return;
    for (int32_t h = 0; h < 16; ++h) {
        float *o = w.o + int64_t(16 * g + h) * a->dim;
        for (int32_t k = 0; k < a->dim; k += 16)
            _mm512_store_ps(o + k, _mm512_mul_ps(_mm512_load_ps(o + k), _mm512_set1_ps(shrink[h])));
    }
}

/// o += probabilities times values, two groups of heads by 32 columns at a time.
DSV4_INLINE void span_values(const AttendArgs *a, const Span &w, int32_t heads, int32_t count, bool first) {
    const int64_t ld = int64_t(a->dim) * 4, block_bytes = int64_t(64) * a->dim;
    const int32_t blocks = (count + 31) / 32;
    for (int32_t g = 0; g < heads / 16; g += 2) {
        const bool two = g + 1 < heads / 16;
        const uint8_t *p0 = w.p + int64_t(g) * (span_rows / 32) * 1024, *p1 = two ? p0 + (span_rows / 32) * 1024 : p0;
        for (int32_t k = 0; k < a->dim / 32; ++k) {
            float *o0 = w.o + int64_t(16 * g) * a->dim + 32 * k, *o1 = o0 + 16 * int64_t(a->dim);
            if (first) {
                DSV4_TILE_ZERO(0);
                DSV4_TILE_ZERO(1);
                DSV4_TILE_ZERO(2);
                DSV4_TILE_ZERO(3);
            } else {
                DSV4_TILE_LOAD(0, o0, ld);
                DSV4_TILE_LOAD(2, o0 + 16, ld);
                if (two) {
                    DSV4_TILE_LOAD(1, o1, ld);
                    DSV4_TILE_LOAD(3, o1 + 16, ld);
                }
            }
            for (int32_t b = 0; b < blocks; ++b) {
                const uint8_t *v = w.values + b * block_bytes + k * 2048;
                DSV4_TILE_LOAD(4, p0 + 1024 * b, 64);
                DSV4_TILE_LOAD(6, v, 64);
                DSV4_TILE_DOT(0, 4, 6);
                DSV4_TILE_LOAD(7, v + 1024, 64);
                DSV4_TILE_DOT(2, 4, 7);
                if (!two) continue;
                DSV4_TILE_LOAD(5, p1 + 1024 * b, 64);
                DSV4_TILE_DOT(1, 5, 6);
                DSV4_TILE_DOT(3, 5, 7);
            }
            DSV4_TILE_STORE(0, o0, ld);
            DSV4_TILE_STORE(2, o0 + 16, ld);
            if (!two) continue;
            DSV4_TILE_STORE(1, o1, ld);
            DSV4_TILE_STORE(3, o1 + 16, ld);
        }
    }
}

void amx_attend(const AttendArgs *a) {
    const int32_t heads = (a->heads + 15) / 16 * 16;
    const size_t row = size_t(a->dim);
    const size_t need = size_t(heads) * row * 2 + 32 * row * 2 + span_rows * row * 2 +
                        size_t(heads) * span_rows * (2 + 4) + size_t(heads) * row * 4 + size_t(heads) * 8;
    if (a->rows_are_float || a->keep_float || a->dim % 128 || need > kernel_scratch_bytes) return attend(a);
    Span w;
    w.q = (uint8_t *)a->scratch;
    w.keys = w.q + size_t(heads) * row * 2;
    w.values = w.keys + 32 * row * 2;
    w.p = w.values + span_rows * row * 2;
    w.s = (float *)(w.p + size_t(heads) * span_rows * 2);
    w.o = w.s + size_t(heads) * span_rows;
    w.peak = w.o + size_t(heads) * row;
    w.mass = w.peak + heads;
    pack_heads(a->q, a->heads, a->dim, WEIGHT_BF16, w.q);
    for (int32_t h = 0; h < heads; ++h) w.peak[h] = -INFINITY, w.mass[h] = 0.0f;
    tile_configure(16, 16);
    for (int32_t at = 0; at < a->n; at += span_rows) {
        const int32_t count = a->n - at < span_rows ? a->n - at : span_rows;
        for (int32_t j = 0; j < count; j += 32) span_block(a, w, heads, j, at + j, count - j < 32 ? count - j : 32);
        for (int32_t g = 0; g < heads / 16; ++g) span_softmax(a, w, g, count, at == 0);
        span_values(a, w, heads, count, at == 0);
    }
    tile_release();
    // Columns leave the tiles as [0-3, 8-11, 16-19, 24-27], [4-7, ...] of every 32.
    const __m512i low = _mm512_set_epi32(23, 22, 21, 20, 7, 6, 5, 4, 19, 18, 17, 16, 3, 2, 1, 0);
    const __m512i high = _mm512_set_epi32(31, 30, 29, 28, 15, 14, 13, 12, 27, 26, 25, 24, 11, 10, 9, 8);
    for (int32_t h = 0; h < a->heads; ++h) {
        const __m512 share = _mm512_set1_ps(1.0f / (w.mass[h] + expf(a->sink[h] - w.peak[h])));
        const float *o = w.o + h * row;
        float *out = a->o + h * row;
        for (int32_t k = 0; k < a->dim; k += 32) {
            const __m512 x = _mm512_load_ps(o + k), y = _mm512_load_ps(o + k + 16);
            _mm512_storeu_ps(out + k, _mm512_mul_ps(_mm512_permutex2var_ps(x, low, y), share));
            _mm512_storeu_ps(out + k + 16, _mm512_mul_ps(_mm512_permutex2var_ps(x, high, y), share));
        }
    }
}

// ---- indexer -----------------------------------------------------------------------------------------------------

DSV4_INLINE bool index_in_tiles(int32_t heads, int32_t dim) { return dim == 128 && heads % 32 == 0; }

size_t amx_index_prepare_bytes(int32_t heads, int32_t dim) {
    const size_t tiles = (size_t(heads) * 4 + 63) / 64 * 64 + size_t(heads) * size_t(dim) * 2;
    const size_t plain = index_prepare_bytes(heads, dim);
    return index_in_tiles(heads, dim) ? tiles + plain : plain;
}

/// The plain preparation, for keys kept as float32; then, where the shape allows, weights and queries as tiles.
void amx_index_prepare(const float *q, const float *weight, int32_t heads, int32_t dim, void *out) {
    if (!index_in_tiles(heads, dim)) return index_prepare(q, weight, heads, dim, out);
    memcpy(out, weight, size_t(heads) * 4);
    uint8_t *tiles = (uint8_t *)out + (size_t(heads) * 4 + 63) / 64 * 64;
    pack_heads(q, heads, dim, WEIGHT_FP4, tiles);
    index_prepare(q, weight, heads, dim, tiles + size_t(heads) * size_t(dim) * 2);
}

void amx_index_score(const IndexArgs *a) {
    if (!index_in_tiles(a->heads, a->dim)) return index_score(a);
    const float *weight = (const float *)a->prepared;
    const uint8_t *q = (const uint8_t *)a->prepared + (size_t(a->heads) * 4 + 63) / 64 * 64;
    if (a->keys_are_float) {
        IndexArgs plain = *a;
        plain.prepared = q + size_t(a->heads) * size_t(a->dim) * 2;
        return index_score(&plain);
    }
    uint8_t *keys = (uint8_t *)a->scratch;      // [4 tiles of columns][2 halves][16][64]
    float *dots = (float *)(keys + 8192);       // [heads / 16][32 keys][16 heads]
    tile_configure(16, 16);
    for (int32_t i0 = 0; i0 < a->n; i0 += 32) {
        const int32_t count = a->n - i0 < 32 ? a->n - i0 : 32;
        for (int32_t i = 0; i < count; ++i) {
            const uint8_t *row = a->keys + int64_t(i0 + i) * a->key_bytes;
            for (int j = 0; j < 4; ++j)
                _mm512_store_si512(keys + j * 2048 + i * 64, fp4_lanes(row + 16 * j, a->tables->e2m1_bf16[row[64 + j]]));
        }
        for (int32_t g = 0; g < a->heads / 16; g += 2) {
            const uint8_t *q0 = q + g * 4096, *q1 = q0 + 4096;
            DSV4_TILE_ZERO(0);
            DSV4_TILE_ZERO(1);
            DSV4_TILE_ZERO(2);
            DSV4_TILE_ZERO(3);
            for (int j = 0; j < 4; ++j) {
                DSV4_TILE_LOAD(4, keys + j * 2048, 64);
                DSV4_TILE_LOAD(6, q0 + j * 1024, 64);
                DSV4_TILE_DOT(0, 4, 6);
                DSV4_TILE_LOAD(5, keys + j * 2048 + 1024, 64);
                DSV4_TILE_DOT(1, 5, 6);
                DSV4_TILE_LOAD(7, q1 + j * 1024, 64);
                DSV4_TILE_DOT(2, 4, 7);
                DSV4_TILE_DOT(3, 5, 7);
            }
            float *d = dots + int64_t(g) * 512;
            DSV4_TILE_STORE(0, d, 64);
            DSV4_TILE_STORE(1, d + 256, 64);
            DSV4_TILE_STORE(2, d + 512, 64);
            DSV4_TILE_STORE(3, d + 768, 64);
        }
        for (int32_t i = 0; i < count; ++i) {
            __m512 sum = _mm512_setzero_ps();
            for (int32_t g = 0; g < a->heads / 16; ++g)
                sum = _mm512_fmadd_ps(_mm512_max_ps(_mm512_load_ps(dots + (int64_t(g) * 32 + i) * 16), _mm512_setzero_ps()),
                                      _mm512_loadu_ps(weight + 16 * g), sum);
            a->scores[i0 + i] = vsum(sum);
        }
    }
    tile_release();
}

} // namespace
} // namespace dsv4::cpu
