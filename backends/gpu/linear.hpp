// Matrix products of a step: y[t, n - first] = sum_k x[t, k] w[n, k].
//
// Native numerics decode weights to bf16, which is exact, round activations to bf16 and multiply on the matrix units
// with float32 sums; weights that bf16 cannot hold (float16, float32, float32 scales) and rows that are not whole
// 16-byte pieces go through float32. Exact and official numerics use float32 throughout.
//
// A row of x has the same result in any company: k is cut into segments of 512, each is one chain of sums, and the
// segments are added in ascending order, whichever kernel runs.
#pragma once
#include "backends/gpu/objects.hpp"

namespace dsv4::gpu {

struct Product {
    Matrix w;
    const float *x;
    int64_t ldx;
    float *y;
    int64_t ldy;
    int32_t first, rows; // of w
    bool float_input;    // float32 activations whatever the numerics
    bool unrounded;      // official: the input is not rounded to FP8
    bool keep_output;    // official: the output is not rounded to bf16
    bool residual;       // native: of x what bf16 leaves of it
};

inline Product whole(const Matrix &w, const float *x, int64_t ldx, float *y, int64_t ldy) {
    return {w, x, ldx, y, ldy, 0, w.rows, false, false, false, false};
}
inline Product whole(const Matrix &w, const float *x, float *y) { return whole(w, x, w.columns, y, w.rows); }

constexpr int most_products = 16;

/// What is known about a launch: LINEAR_SMALL, matrices of few rows that together are not so few (low.hpp);
/// LINEAR_BESIDE, short kernels run beside it and need room on the card.
enum Linear { LINEAR_ALONE, LINEAR_SMALL, LINEAR_BESIDE };

/// All of them on `rows` rows, in one launch where the batch is small. Uses the scratch slots PARTIAL and ROUNDED.
void linear(dsv4_queue &queue, const Rows &rows, const Product *products, int count, Linear how = LINEAR_ALONE);
inline void linear(dsv4_queue &queue, const Rows &rows, const Product &product, Linear how = LINEAR_ALONE) {
    linear(queue, rows, &product, 1, how);
}

/// x [rows, n] -> out, every 128 values rounded to FP8: what official numerics feed to quantized weights.
void round_rows(dsv4_queue &queue, const Rows &rows, const float *x, int64_t ldx, int32_t n, float *out);

} // namespace dsv4::gpu
