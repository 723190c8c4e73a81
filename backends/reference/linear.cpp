#include "backends/reference/linear.hpp"
#include <array>

namespace dsv4::reference {
namespace {

struct Tables {
    std::array<float, 256> e4m3, e8m0;
    Tables() {
        for (int i = 0; i < 256; ++i) {
            e4m3[size_t(i)] = e4m3_decode(uint8_t(i));
            e8m0[size_t(i)] = e8m0_decode(uint8_t(i));
        }
    }
};
const Tables &tables() {
    static const Tables t;
    return t;
}

template <class T> T load(const void *base, int64_t index) {
    T v;
    std::memcpy(&v, static_cast<const uint8_t *>(base) + index * int64_t(sizeof(T)), sizeof(T));
    return v;
}

float scale_at(const dsv4_tensor &t, int64_t row, int64_t column) {
    const int64_t i = row / t.scale_block[0] * t.scale_shape[1] + column / t.scale_block[1];
    return t.scale_dtype == DSV4_E8M0 ? tables().e8m0[load<uint8_t>(t.scale, i)] : load<float>(t.scale, i);
}

}  // namespace

void Weight::decode_row(int64_t r, float *out) const {
    const int64_t n = columns();
    const auto *bytes = static_cast<const uint8_t *>(tensor.data);
    switch (tensor.dtype) {
    case DSV4_F32: std::memcpy(out, bytes + r * n * 4, size_t(n) * 4); break;
    case DSV4_BF16:
        for (int64_t i = 0; i < n; ++i) out[i] = bf16_decode(load<uint16_t>(bytes, r * n + i));
        break;
    case DSV4_F16:
        for (int64_t i = 0; i < n; ++i) out[i] = f16_decode(load<uint16_t>(bytes, r * n + i));
        break;
    case DSV4_FP8_E4M3:
        for (int64_t i = 0; i < n; ++i) out[i] = tables().e4m3[bytes[r * n + i]];
        break;
    case DSV4_FP4_E2M1:
        for (int64_t i = 0; i < n; ++i) out[i] = e2m1_decode((bytes[(r * n + i) / 2] >> (i % 2 * 4)) & 15);
        break;
    default: fail(DSV4_E_INVALID, "role %d: dtype %d is not one a weight can have", tensor.role, tensor.dtype);
    }
    if (!tensor.scale_dtype) return;
    const int64_t block = tensor.scale_block[1];
    for (int64_t b = 0; b < n; b += block) {
        const float s = scale_at(tensor, r, b);
        for (int64_t i = b; i < n && i < b + block; ++i) out[i] *= s;
    }
}

int64_t Weight::integer(int64_t index) const {
    return tensor.dtype == DSV4_I64 ? load<int64_t>(tensor.data, index) : load<int32_t>(tensor.data, index);
}

void product(const Weight &w, int64_t first, int64_t count, const float *x, int64_t x_stride, int32_t rows, float *y,
             int64_t y_stride) {
    const int64_t n = w.columns();
    std::vector<float> row(static_cast<size_t>(n));
    for (int64_t o = 0; o < count; ++o) {
        w.decode_row(first + o, row.data());
        for (int32_t t = 0; t < rows; ++t) y[t * y_stride + o] = dot(row.data(), x + t * x_stride, n);
    }
}

void linear(bool official, const Weight &w, const float *x, int32_t rows, float *y) {
    const int64_t in = w.columns(), out = w.rows();
    std::vector<float> rounded;
    if (official && w.quantised()) {
        rounded.assign(x, x + rows * in);
        for (int32_t t = 0; t < rows; ++t) fake_fp8(rounded.data() + t * in, in, 128);
        x = rounded.data();
    }
    product(w, 0, out, x, in, rows, y, out);
    bf(official, y, rows * out);
}

void rms_norm(bool official, const Weight &g, float eps, const float *x, int64_t n, float *y) {
    const float r = 1.0f / std::sqrt(mean_square(x, n) + eps);
    std::vector<float> gain(static_cast<size_t>(n));
    g.decode_row(0, gain.data());
    for (int64_t i = 0; i < n; ++i) y[i] = bf(official, x[i] * r * gain[size_t(i)]);
}

void expect_shape(const dsv4_block &block, int32_t role, const Weight &w, int64_t rows, int64_t columns) {
    if (w.rows() != rows || w.columns() != columns)
        fail(DSV4_E_INVALID, "block %d, role %d: expected [%lld, %lld], given [%lld, %lld]", block.index, role,
             static_cast<long long>(rows), static_cast<long long>(columns), static_cast<long long>(w.rows()),
             static_cast<long long>(w.columns()));
}

}  // namespace dsv4::reference
