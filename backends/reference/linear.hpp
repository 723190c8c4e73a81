// Matrix products and norms shared by the operators. The order of every sum is fixed by its length alone.
#pragma once
#include <cmath>
#include <vector>
#include "backends/reference/formats.hpp"
#include "backends/reference/objects.hpp"

namespace dsv4::reference {

/// bf16 between operators in official numerics, untouched in exact.
inline float bf(bool official, float x) { return official ? round_bf16(x) : x; }
inline void bf(bool official, float *x, int64_t n) {
    if (official)
        for (int64_t i = 0; i < n; ++i) x[i] = round_bf16(x[i]);
}

/// Sixteen running sums, then a tree: fast without -ffast-math, and closer than one long chain.
inline float dot(const float *a, const float *b, int64_t n) {
    float lane[16] = {};
    int64_t i = 0;
    for (; i + 16 <= n; i += 16)
        for (int j = 0; j < 16; ++j) lane[j] += a[i + j] * b[i + j];
    for (int j = 0; i < n; ++i, ++j) lane[j] += a[i] * b[i];
    for (int step = 8; step; step /= 2)
        for (int j = 0; j < step; ++j) lane[j] += lane[j + step];
    return lane[0];
}

inline float mean_square(const float *x, int64_t n) { return dot(x, x, n) / float(n); }

/// Rows [first, first + count) of w times x: y[t][o] = dot(w[first + o], x[t]). Nothing is rounded.
void product(const Weight &w, int64_t first, int64_t count, const float *x, int64_t x_stride, int32_t rows, float *y,
             int64_t y_stride);

/// y[t] = x[t] W^T. Official: quantised weights take activations rounded to FP8 per 128, and y is bf16.
void linear(bool official, const Weight &w, const float *x, int32_t rows, float *y);

/// y = x / sqrt(mean(x^2) + eps) * g. Official: y is bf16.
void rms_norm(bool official, const Weight &g, float eps, const float *x, int64_t n, float *y);

/// Checks a weight against the shape an operator is about to use it with.
void expect_shape(const dsv4_block &block, int32_t role, const Weight &w, int64_t rows, int64_t columns);

}  // namespace dsv4::reference
