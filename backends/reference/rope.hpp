// Rotary embedding of the last R of d values, interleaved pairs.
#pragma once
#include "backends/reference/linear.hpp"

namespace dsv4::reference {

/// The angle is float32(position) * float32(frequency): a double-precision angle does not match near position 1M.
inline void rotate(const dsv4_block &block, float *x, int64_t d, int64_t position, bool inverse) {
    const int32_t R = block.shape.rope_dims;
    if (int32_t(block.rope_frequency.size()) != R / 2)
        fail(DSV4_E_INVALID, "block %d: rope_frequency was not given", block.index);
    float *tail = x + d - R;
    for (int32_t i = 0; i < R / 2; ++i) {
        const float angle = float(position) * block.rope_frequency[size_t(i)];
        const float c = std::cos(angle), s = inverse ? -std::sin(angle) : std::sin(angle);
        const float a = tail[2 * i], b = tail[2 * i + 1];
        tail[2 * i] = bf(block.official, a * c - b * s);
        tail[2 * i + 1] = bf(block.official, a * s + b * c);
    }
}

/// What the released code stores of a key: the first d - R values through FP8 in blocks of 64.
inline void round_key(const dsv4_block &block, float *kv) {
    if (!block.official) return;
    const int64_t n = block.shape.head_dim - block.shape.rope_dims;
    fake_fp8(kv, n, 64);
    bf(true, kv, n);
}

}  // namespace dsv4::reference
