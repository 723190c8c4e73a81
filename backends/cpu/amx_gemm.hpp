// Products on bf16 activations in AMX tiles. The weights are the left operand, 16 rows by 32 columns straight from the
// checkpoint's row-major bytes, so that decoding is a lookup and a store; the tokens are the columns of the right one.
// An element of the result is the same chain of tile products over k whatever the number of columns, so one token alone
// and the same token among hundreds give the same bits.
#pragma once
#include "backends/cpu/amx.hpp"
#include "backends/cpu/simd_bf16.hpp"

namespace dsv4::cpu {
namespace {

constexpr int32_t tile_rows = 16, panel_rows = 32;
constexpr int32_t step_cols = 128;  // decoded at a time for few tokens: one line of FP4, two of FP8 per row
constexpr int32_t block_cols = 512; // decoded at a time for many

// Packed activations: blocks of 16 tokens; in a block [cols / 32][16 pairs of columns][width tokens][2], width being
// the number of tokens when they fit one block, else 16 with zeros at the end.
DSV4_INLINE int32_t block_width(int32_t tokens) { return tokens < 16 ? tokens : 16; }

size_t amx_pack_bytes(const Matrix *w, int32_t tokens) {
    const size_t width = size_t(block_width(tokens));
    return (size_t(tokens) + width - 1) / width * width * size_t(w->cols) * 2;
}

DSV4_INLINE void transpose16(__m512i r[16]) {
    __m512i t[16];
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    for (int i = 0; i < 16; i += 8)
        for (int j = 0; j < 4; ++j) {
            t[i + j] = _mm512_shuffle_i32x4(r[i + j], r[i + j + 4], 0x88);
            t[i + j + 4] = _mm512_shuffle_i32x4(r[i + j], r[i + j + 4], 0xdd);
        }
    for (int j = 0; j < 8; ++j) {
        r[j] = _mm512_shuffle_i32x4(t[j], t[j + 8], 0x88);
        r[j + 8] = _mm512_shuffle_i32x4(t[j], t[j + 8], 0xdd);
    }
}

void amx_pack(const PackArgs *a) {
    const int32_t cols = a->w->cols, width = block_width(a->tokens), count = a->last - a->first;
    uint8_t *block = (uint8_t *)a->out + int64_t(a->first / 16) * 16 * cols * 2;
    const float *rows[16];
    for (int32_t t = 0; t < count; ++t)
        rows[t] = a->x + int64_t(a->index ? a->index[a->first + t] : a->first + t) * a->ldx;
    for (int32_t k = 0; k < cols; k += 128) {
        __m512i lanes[16][4];
        const int32_t groups = cols - k < 128 ? (cols - k) / 32 : 4;
        for (int32_t t = 0; t < width; ++t) {
            if (t >= count) {
                for (int i = 0; i < 4; ++i) lanes[t][i] = _mm512_setzero_si512();
            } else if (groups == 4) {
                activation_lanes(rows[t] + k, a->w->type, lanes[t]);
            } else {
                float tail[128] = {};
                memcpy(tail, rows[t] + k, size_t(groups) * 128);
                activation_lanes(tail, a->w->type, lanes[t]);
            }
        }
        for (int32_t i = 0; i < groups; ++i) {
            uint8_t *out = block + int64_t(k / 32 + i) * 64 * width;
            if (width == 16) {
                __m512i r[16];
                for (int t = 0; t < 16; ++t) r[t] = lanes[t][i];
                transpose16(r);
                for (int p = 0; p < 16; ++p) _mm512_storeu_si512(out + 64 * p, r[p]);
            } else if (width == 1) {
                _mm512_storeu_si512(out, lanes[0][i]);
            } else {
                const __m512i at = _mm512_mullo_epi32(
                    _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0), _mm512_set1_epi32(width));
                for (int32_t t = 0; t < width; ++t) _mm512_i32scatter_epi32(out + 4 * t, at, lanes[t][i], 4);
            }
        }
    }
}

/// `rows` (at most 16) rows from n, columns [k0, k0 + count): tile j of 32 columns at out + j * stride. FP4 and FP8.
DSV4_INLINE void decode_tiles(const Tables *t, const Matrix *w, int32_t n, int32_t rows, int32_t k0, int32_t count,
                              uint8_t *out, const int64_t stride, int64_t ahead) {
    const uint8_t *data = w->data + int64_t(n) * w->row_bytes;
    if (w->type == WEIGHT_FP4) {
        for (int32_t k = 0; k < count; k += 128, out += 4 * stride) {
            const uint8_t *row = data + (k0 + k) / 2, *scale = w->scale + n * w->scale_stride + (k0 + k) / 32;
            uint8_t *to = out;
            for (int32_t r = 0; r < rows; ++r) {
                if (ahead) _mm_prefetch((const char *)row + ahead, _MM_HINT_T0);
                _mm512_store_si512(to, fp4_lanes(row, t->e2m1_bf16[scale[0]]));
                _mm512_store_si512(to + stride, fp4_lanes(row + 16, t->e2m1_bf16[scale[1]]));
                _mm512_store_si512(to + 2 * stride, fp4_lanes(row + 32, t->e2m1_bf16[scale[2]]));
                _mm512_store_si512(to + 3 * stride, fp4_lanes(row + 48, t->e2m1_bf16[scale[3]]));
                row += w->row_bytes, scale += w->scale_stride, to += 64;
            }
        }
        return;
    }
    const bool one_row_of_blocks = n / w->block_rows == (n + rows - 1) / w->block_rows;
    for (int32_t k = 0; k < count; k += 128) {
        const uint8_t *row = data + k0 + k;
        const uint8_t *scale = w->scale + int64_t(n / w->block_rows) * w->scale_stride + (k0 + k) / w->block_cols;
        Fp8Table table = fp8_table(t, *scale);
        for (int32_t r = 0; r < rows; ++r, row += w->row_bytes) {
            if (!one_row_of_blocks)
                table = fp8_table(t, w->scale[int64_t((n + r) / w->block_rows) * w->scale_stride +
                                              (k0 + k) / w->block_cols]);
            if (ahead) {
                _mm_prefetch((const char *)row + ahead, _MM_HINT_T0);
                _mm_prefetch((const char *)row + ahead + 64, _MM_HINT_T0);
            }
            uint8_t *to = out + k / 32 * stride + r * 64;
            for (int i = 0; i < 2; ++i, to += 2 * stride) {
                __m512i a, b;
                fp8_lanes(row + 64 * i, &table, &a, &b);
                _mm512_store_si512(to, a);
                _mm512_store_si512(to + stride, b);
            }
        }
    }
}

/// bf16 rows copied as tiles, for the last rows of a matrix, where a tile load would read past its end.
DSV4_INLINE void copy_tiles(const Matrix *w, int32_t n, int32_t rows, int32_t k0, int32_t count, uint8_t *out,
                            int64_t stride) {
    for (int32_t r = 0; r < rows; ++r)
        for (int32_t j = 0; j < count / 32; ++j)
            _mm512_store_si512(out + j * stride + r * 64, _mm512_loadu_si512(w->data + int64_t(n + r) * w->row_bytes +
                                                                            int64_t(k0 + 32 * j) * 2));
}

/// A stored accumulator [16 weight rows][width tokens] into y rows of tokens.
DSV4_INLINE void write_tile(const float *c, int32_t width, int32_t tokens, int32_t rows, float *y, int64_t ldy) {
    if (width == 16 && rows == 16) {
        __m512i r[16];
        for (int i = 0; i < 16; ++i) r[i] = _mm512_load_si512(c + 16 * i);
        transpose16(r);
        for (int32_t t = 0; t < tokens; ++t) _mm512_storeu_si512(y + t * ldy, r[t]);
        return;
    }
    for (int32_t t = 0; t < tokens; ++t)
        for (int32_t i = 0; i < rows; ++i) y[t * ldy + i] = c[i * width + t];
}

/// One step of a full panel for at most 16 tokens: 32 rows by 128 columns are decoded into `now` while the tiles of the
/// step before, in `before`, are multiplied. A tile's work comes after every four rows, so that both kinds lie within
/// the processor's window. x: the packed activations of the step before; NULL: there is none.
template <int type>
DSV4_INLINE void few_step(const GemmArgs *a, int32_t n, int32_t k0, uint8_t *now, const uint8_t *before, const uint8_t *x,
                          int64_t ahead) {
    const Matrix *w = a->w;
    const Tables *t = a->tables;
    const int64_t row_bytes = w->row_bytes, x_tile = 64 * int64_t(a->tokens), x_stride = 4 * int64_t(a->tokens);
    const uint8_t *row = w->data + n * row_bytes + (type == WEIGHT_FP4 ? k0 / 2 : k0);
    const int64_t scale_stride = w->scale_stride;
    const uint8_t *scale = type == WEIGHT_FP4 ? w->scale + n * scale_stride + k0 / 32
                                              : w->scale + n / w->block_rows * scale_stride + k0 / w->block_cols;
    Fp8Table table;
    if (type == WEIGHT_FP8) table = fp8_table(t, *scale);
    for (int32_t q = 0; q < 8; ++q) {
        uint8_t *to = now + q / 4 * 1024 + q % 4 * 256;
#pragma GCC unroll 4
        for (int32_t r = 0; r < 4; ++r, row += row_bytes, to += 64) {
            _mm_prefetch((const char *)row + ahead, _MM_HINT_T0);
            if (type == WEIGHT_FP4) {
                _mm512_store_si512(to, fp4_lanes(row, t->e2m1_bf16[scale[0]]));
                _mm512_store_si512(to + 2048, fp4_lanes(row + 16, t->e2m1_bf16[scale[1]]));
                _mm512_store_si512(to + 4096, fp4_lanes(row + 32, t->e2m1_bf16[scale[2]]));
                _mm512_store_si512(to + 6144, fp4_lanes(row + 48, t->e2m1_bf16[scale[3]]));
                scale += scale_stride;
            } else {
                __m512i lanes[4];
                _mm_prefetch((const char *)row + ahead + 64, _MM_HINT_T0);
                fp8_lanes(row, &table, &lanes[0], &lanes[1]);
                fp8_lanes(row + 64, &table, &lanes[2], &lanes[3]);
                for (int i = 0; i < 4; ++i) _mm512_store_si512(to + 2048 * i, lanes[i]);
            }
        }
        if (!x) continue;
        const uint8_t *tile = before + q / 2 * 2048;
        if (q & 1) {
            DSV4_TILE_LOAD(5, tile + 1024, 64);
            DSV4_TILE_DOT(1, 5, 6);
        } else {
            DSV4_TILE_LOAD(6, x + q / 2 * x_tile, x_stride);
            DSV4_TILE_LOAD(4, tile, 64);
            DSV4_TILE_DOT(0, 4, 6);
        }
    }
}

/// At most 16 tokens: the work of a step hides behind the memory that the next one waits for.
void amx_gemm_few(const GemmArgs *a) {
    const Matrix *w = a->w;
    const int32_t width = a->tokens, cols = w->cols, stride_b = 4 * width;
    const uint8_t *x = (const uint8_t *)a->x;
    uint8_t *panel = (uint8_t *)a->scratch;                       // [2 steps][4 tiles][2 halves][1 KiB]
    float *c = (float *)(panel + 2 * panel_rows * step_cols * 2); // [2][16][width]
    const int32_t steps = (cols + step_cols - 1) / step_cols;
    const int64_t step_bytes = w->row_bytes * step_cols / cols;
    const int32_t distance = w->type == WEIGHT_FP4 ? 6 : 3; // steps that memory is asked for ahead
    tile_configure(width, width);
    for (int32_t n = a->row0; n < a->row1; n += panel_rows) {
        const int32_t left = a->row1 - n;
        const int32_t rows0 = left < tile_rows ? left : tile_rows, rows1 = left < panel_rows ? left - rows0 : tile_rows;
        DSV4_TILE_ZERO(0);
        DSV4_TILE_ZERO(1);
        if (w->type == WEIGHT_BF16 && rows1 == tile_rows) {
            const uint8_t *top = w->data + int64_t(n) * w->row_bytes, *bottom = top + tile_rows * w->row_bytes;
            for (int32_t k = 0; k < cols; k += 32) {
                for (int r = 0; r < panel_rows; ++r) _mm_prefetch((const char *)top + r * w->row_bytes + k * 2 + 512, _MM_HINT_T0);
                DSV4_TILE_LOAD(4, top + k * 2, w->row_bytes);
                DSV4_TILE_LOAD(6, x + int64_t(k / 32) * 64 * width, stride_b);
                DSV4_TILE_LOAD(5, bottom + k * 2, w->row_bytes);
                DSV4_TILE_DOT(0, 4, 6);
                DSV4_TILE_DOT(1, 5, 6);
            }
        } else {
            const bool fast = rows1 == tile_rows && w->type != WEIGHT_BF16 &&
                              (w->type == WEIGHT_FP4 || n / w->block_rows == (n + panel_rows - 1) / w->block_rows);
            for (int32_t s = 0; s <= steps; ++s) {
                uint8_t *now = panel + (s & 1) * panel_rows * step_cols * 2;
                const uint8_t *before = panel + ((s & 1) ^ 1) * panel_rows * step_cols * 2;
                const int32_t k0 = s * step_cols, count = cols - k0 < step_cols ? cols - k0 : step_cols;
                int64_t ahead = distance * step_bytes;
                if (s + distance >= steps) ahead += (panel_rows - 1) * w->row_bytes; // the same step of the next panel
                const uint8_t *xs = s ? x + int64_t(s - 1) * step_cols * 2 * width : nullptr;
                if (s < steps && fast) {
                    if (w->type == WEIGHT_FP4) few_step<WEIGHT_FP4>(a, n, k0, now, before, xs, ahead);
                    else few_step<WEIGHT_FP8>(a, n, k0, now, before, xs, ahead);
                    continue;
                }
                const int32_t tiles = s == steps && cols % step_cols ? cols % step_cols / 32 : step_cols / 32;
                for (int half = 0; half < 2; ++half) {
                    const int32_t rows = half ? rows1 : rows0;
                    if (s < steps && rows > 0) {
                        uint8_t *out = now + half * 1024;
                        if (w->type == WEIGHT_BF16) copy_tiles(w, n + half * tile_rows, rows, k0, count, out, 2048);
                        else decode_tiles(a->tables, w, n + half * tile_rows, rows, k0, step_cols, out, 2048, ahead);
                    }
                    if (!s) continue;
                    for (int32_t j = 2 * half; j < 2 * half + 2 && j < tiles; ++j) {
                        DSV4_TILE_LOAD(6, x + (int64_t(s - 1) * (step_cols / 32) + j) * 64 * width, stride_b);
                        DSV4_TILE_LOAD(4, before + j * 2048, 64);
                        DSV4_TILE_LOAD(5, before + j * 2048 + 1024, 64);
                        DSV4_TILE_DOT(0, 4, 6);
                        DSV4_TILE_DOT(1, 5, 6);
                    }
                }
            }
        }
        DSV4_TILE_STORE(0, c, stride_b);
        DSV4_TILE_STORE(1, c + 16 * width, stride_b);
        write_tile(c, width, width, rows0, a->y + (n - a->row0), a->ldy);
        if (rows1 > 0) write_tile(c + 16 * width, width, width, rows1, a->y + (n - a->row0) + tile_rows, a->ldy);
    }
    tile_release();
}

/// sum tiles += the 32 panel rows at top and bottom times one or two blocks of 16 tokens.
struct ManyStep {
    const uint8_t *top, *bottom; // first tile of each half
    int64_t next_tile, stride;   // bytes between tiles of one half, and between the rows of a tile
    int32_t tiles;
};
DSV4_INLINE void many_tiles(const ManyStep &s, const uint8_t *x0, const uint8_t *x1, bool two, bool first, float *c) {
    if (first) {
        DSV4_TILE_ZERO(0);
        DSV4_TILE_ZERO(1);
        DSV4_TILE_ZERO(2);
        DSV4_TILE_ZERO(3);
    } else {
        DSV4_TILE_LOAD(0, c, 64);
        DSV4_TILE_LOAD(1, c + 256, 64);
        DSV4_TILE_LOAD(2, c + 512, 64);
        DSV4_TILE_LOAD(3, c + 768, 64);
    }
    const uint8_t *top = s.top, *bottom = s.bottom;
    if (two) {
        for (int32_t j = 0; j < s.tiles; ++j, top += s.next_tile, bottom += s.next_tile) {
            DSV4_TILE_LOAD(4, top, s.stride);
            DSV4_TILE_LOAD(6, x0 + j * 1024, 64);
            DSV4_TILE_DOT(0, 4, 6);
            DSV4_TILE_LOAD(5, bottom, s.stride);
            DSV4_TILE_DOT(1, 5, 6);
            DSV4_TILE_LOAD(7, x1 + j * 1024, 64);
            DSV4_TILE_DOT(2, 4, 7);
            DSV4_TILE_DOT(3, 5, 7);
        }
    } else {
        for (int32_t j = 0; j < s.tiles; ++j, top += s.next_tile, bottom += s.next_tile) {
            DSV4_TILE_LOAD(4, top, s.stride);
            DSV4_TILE_LOAD(6, x0 + j * 1024, 64);
            DSV4_TILE_DOT(0, 4, 6);
            DSV4_TILE_LOAD(5, bottom, s.stride);
            DSV4_TILE_DOT(1, 5, 6);
        }
    }
    DSV4_TILE_STORE(0, c, 64);
    DSV4_TILE_STORE(1, c + 256, 64);
    if (!two) return;
    DSV4_TILE_STORE(2, c + 512, 64);
    DSV4_TILE_STORE(3, c + 768, 64);
}

/// Many tokens: 128 rows by 512 columns are decoded once and meet all of them, two blocks of 16 at a time. Panel and
/// sums stay in the second-level cache; the activations stream past once per 128 rows.
void amx_gemm_many(const GemmArgs *a) {
    const Matrix *w = a->w;
    const int32_t cols = w->cols;
    constexpr int64_t part_bytes = panel_rows * block_cols * 2;  // of 32 rows: [16 tiles][2 halves][1 KiB]
    constexpr int32_t parts = 4, part_sums = 32 * kernel_token_chunk;
    uint8_t *panel = (uint8_t *)a->scratch;
    float *sums = (float *)(panel + parts * part_bytes);         // [parts][token blocks][2 halves][16][16]
    tile_configure(16, 16);
    for (int32_t t0 = 0; t0 < a->tokens; t0 += kernel_token_chunk) {
        const int32_t tokens = a->tokens - t0 < kernel_token_chunk ? a->tokens - t0 : kernel_token_chunk;
        const int32_t blocks = (tokens + 15) / 16;
        const int64_t block_bytes = int64_t(16) * cols * 2;
        const uint8_t *x = (const uint8_t *)a->x + int64_t(t0 / 16) * block_bytes;
        for (int32_t n0 = a->row0; n0 < a->row1; n0 += parts * panel_rows) {
            const int32_t rows = a->row1 - n0 < parts * panel_rows ? a->row1 - n0 : parts * panel_rows;
            const int32_t used = (rows + panel_rows - 1) / panel_rows;
            for (int32_t k0 = 0; k0 < cols; k0 += block_cols) {
                const int32_t count = cols - k0 < block_cols ? cols - k0 : block_cols;
                ManyStep step[parts];
                for (int32_t p = 0; p < used; ++p) {
                    const int32_t n = n0 + p * panel_rows;
                    uint8_t *to = panel + p * part_bytes;
                    step[p] = {to, to + 1024, 2048, 64, count / 32};
                    if (w->type == WEIGHT_BF16 && a->row1 - n >= panel_rows) { // tiles straight from the checkpoint
                        const uint8_t *top = w->data + int64_t(n) * w->row_bytes + int64_t(k0) * 2;
                        step[p] = {top, top + tile_rows * w->row_bytes, 64, w->row_bytes, count / 32};
                        continue;
                    }
                    for (int half = 0; half < 2; ++half) {
                        const int32_t first = n + half * tile_rows, left = a->row1 - first;
                        const int32_t height = left < tile_rows ? left : tile_rows;
                        if (height <= 0) continue;
                        if (w->type == WEIGHT_BF16) copy_tiles(w, first, height, k0, count, to + half * 1024, 2048);
                        else decode_tiles(a->tables, w, first, height, k0, count, to + half * 1024, 2048, 0);
                    }
                }
                if (w->type != WEIGHT_BF16) { // what the next turn decodes
                    const int64_t bytes = w->row_bytes * count / cols;
                    const bool last = k0 + block_cols >= cols;
                    const char *next = (const char *)w->data + int64_t(n0 + (last ? parts * panel_rows : 0)) * w->row_bytes +
                                       (last ? 0 : w->row_bytes * (k0 + block_cols) / cols);
                    for (int32_t r = 0; r < rows; ++r)
                        for (int64_t b = 0; b < bytes; b += 64) _mm_prefetch(next + r * w->row_bytes + b, _MM_HINT_T1);
                }
                for (int32_t b = 0; b < blocks; b += 2) {
                    const uint8_t *x0 = x + b * block_bytes + int64_t(k0 / 32) * 1024;
                    for (int32_t p = 0; p < used; ++p)
                        many_tiles(step[p], x0, x0 + block_bytes, b + 1 < blocks, k0 == 0, sums + p * part_sums + b * 512);
                }
            }
            for (int32_t p = 0; p < used; ++p)
                for (int32_t b = 0; b < blocks; ++b)
                    for (int half = 0; half < 2; ++half) {
                        const int32_t n = n0 + p * panel_rows + half * tile_rows, left = a->row1 - n;
                        if (left <= 0) continue;
                        write_tile(sums + p * part_sums + b * 512 + half * 256, 16,
                                   tokens - 16 * b < 16 ? tokens - 16 * b : 16, left < tile_rows ? left : tile_rows,
                                   a->y + int64_t(t0 + 16 * b) * a->ldy + (n - a->row0), a->ldy);
                    }
        }
    }
    tile_release();
}

void amx_gemm(const GemmArgs *a) { a->tokens <= 16 ? amx_gemm_few(a) : amx_gemm_many(a); }

} // namespace
} // namespace dsv4::cpu
