// The inner loops of the CPU backend as one table of functions per instruction set. Everything else in this folder is
// compiled for the baseline machine and reaches wider instructions only through a table that CPUID has allowed.
//
// This header is included by the translation units that are compiled with -mavx512... flags: it holds plain structs
// only, no templates and no inline functions, so that nothing compiled for a wide machine can be merged by the linker
// into code that a narrow one runs.
#pragma once
#include <stddef.h>
#include <stdint.h>

namespace dsv4::cpu {

constexpr int32_t WEIGHT_F32 = 1, WEIGHT_BF16 = 2, WEIGHT_F16 = 3, WEIGHT_FP8 = 6, WEIGHT_FP4 = 7; // as dsv4_backend.h

/// A weight matrix [rows, cols] as the checkpoint stores it: row-major, not necessarily aligned.
struct Matrix {
    const uint8_t *data;
    const uint8_t *scale;    // E8M0 bytes or float32; NULL: none
    int64_t row_bytes;
    int64_t scale_stride;    // scales in one row of blocks
    int32_t rows, cols, type;
    int32_t scale_is_float;
    int32_t block_rows, block_cols; // what one scale covers
};

/// Number formats as tables, built once per device.
struct Tables {
    float e4m3[256];          // FP8 code -> value (NaN codes -> NaN)
    float e2m1[16];           // FP4 code -> value
    float e8m0[256];          // scale byte -> 2^(b-127)
    // bf16 code words with a scale already folded in: what a decoder looks up.
    alignas(64) uint16_t e2m1_bf16[256][32];   // [scale byte][code, twice over]
    alignas(64) uint8_t e4m3_bf16[256][2][128]; // [scale byte][low byte, high byte][code without its sign]
};

/// Rows of float32 activations to be laid out for the gemm of one matrix.
struct PackArgs {
    const Matrix *w;
    const float *x;          // [*, cols], rows ldx apart
    int64_t ldx;
    const int32_t *index;    // row t of the packed block is x row index[t]; NULL: row t
    int32_t tokens;          // of the whole packed block
    int32_t first, last;     // the tokens to pack now; first is a multiple of 16
    void *out;
};

/// y[t, n] = sum_k x[t, k] w[n, k] for n in [row0, row1): the order of the sum depends on k alone.
struct GemmArgs {
    const Tables *tables;
    const Matrix *w;
    const void *x;           // packed for this matrix
    int32_t tokens, row0, row1;
    float *y;                // y[t * ldy + (n - row0)]
    int64_t ldy;
    void *scratch;           // kernel_scratch_bytes, 64-byte aligned, the thread's own
    void *library;           // the thread's state of another library's kernels; NULL where there is none
};

/// One token, a range of heads: softmax(q K^T * scale, sink) K over n rows given by address.
struct AttendArgs {
    const float *q;          // [heads, dim]
    float *o;                // [heads, dim]; may be q
    const void *const *rows; // [n] latent rows of dim values
    const float *sink;       // [heads]
    int32_t heads, dim, n;
    int32_t rows_are_float;  // else bf16
    int32_t keep_float;      // queries and probabilities stay float32
    float scale;
    void *scratch;
};

/// scores[i] = sum_h weight[h] relu(q[h] . key[i]) for n keys in a row.
struct IndexArgs {
    const Tables *tables;
    const float *q;          // [heads, dim]
    const float *weight;     // [heads]
    const void *prepared;    // what index_prepare made of q and weight
    const uint8_t *keys;     // [n] rows of key_bytes: FP4 codes then E8M0 scales, or float32
    int64_t key_bytes;
    int32_t heads, dim, n;
    int32_t keys_are_float;
    float *scores;
    void *scratch;
};

constexpr size_t kernel_scratch_bytes = size_t(2) << 20;
constexpr int32_t kernel_token_chunk = 512; // gemm works on so many tokens at a time

struct Kernels {
    const char *name;

    // Matrix products on float32 activations, any weight type.
    int32_t f32_row_step;    // threads split the rows at multiples of this
    int32_t (*f32_in_place)(const Matrix *w, int32_t tokens); // rows one after the other need no packing
    size_t (*f32_pack_bytes)(const Matrix *w, int32_t tokens);
    void (*f32_pack)(const PackArgs *args);
    void (*f32_gemm)(const GemmArgs *args);

    // The same on activations rounded to 16 bits, where that is faster: bf16 on machines that multiply it, integers
    // with a scale (avx2_fp4.hpp) elsewhere; NULL: not offered.
    int32_t narrow_row_step;
    int32_t (*narrow_supports)(const Matrix *w);
    size_t (*narrow_pack_bytes)(const Matrix *w, int32_t tokens);
    void (*narrow_pack)(const PackArgs *args);
    void (*narrow_gemm)(const GemmArgs *args);
    /// `rows` rows from row on as bf16, columns in the order of narrow_pack, rows out_cols apart; NULL: not offered.
    void (*bf16_decode)(const Tables *tables, const Matrix *w, int32_t row, int32_t rows, uint16_t *out, int64_t out_cols);

    void (*attend)(const AttendArgs *args);
    size_t (*index_prepare_bytes)(int32_t heads, int32_t dim);
    void (*index_prepare)(const float *q, const float *weight, int32_t heads, int32_t dim, void *out);
    void (*index_score)(const IndexArgs *args);

    float (*sum_squares)(const float *x, int64_t n);
    void (*scale)(const float *x, const float *weight, float factor, int64_t n, float *out); // weight may be NULL
    /// out = sum_j pre[j] X[j]; X [streams, dim]
    void (*hc_collapse)(const float *x, const float *pre, int32_t streams, int64_t dim, float *out);
    /// X'[k] = post[k] y + sum_j comb[j][k] X[j], in place, for `count` of the `dim` elements of every stream
    void (*hc_expand)(float *x, const float *y, const float *post, const float *comb, int32_t streams, int64_t dim,
                      int64_t count);
    /// h = factor * silu(min(gate, limit)) * clamp(up, +-limit); limit 0: no clamp
    void (*swiglu)(const float *gate, const float *up, float factor, float limit, int64_t n, float *h);
    void (*add)(float *y, const float *x, int64_t n);
    void (*round_bf16)(float *x, int64_t n);                      // to nearest even, kept as float32
    void (*to_bf16)(const float *x, int64_t n, uint16_t *out);
    void (*from_bf16)(const uint16_t *x, int64_t n, float *out);
    /// One entry of the compressor: softmax over `rows` rows per channel, then the weighted sum. kv[j], score[j]: [dim];
    /// ape[j]: [dim] added to the score.
    void (*pool)(const float *const *kv, const float *const *score, const float *const *ape, int32_t rows, int64_t dim,
                 float *out);
};

const Kernels *kernels_portable();
const Kernels *kernels_avx2();
const Kernels *kernels_avx512();
const Kernels *kernels_avx512_bf16();
const Kernels *kernels_amx();
const Kernels *kernels_onednn(); // avx512_bf16 with oneDNN for many tokens; NULL when built without it

} // namespace dsv4::cpu
