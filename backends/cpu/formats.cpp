#include "backends/cpu/formats.hpp"
#include <cmath>
#include <cstring>

namespace dsv4::cpu {

namespace {

uint32_t bits_of(float f) {
    uint32_t u;
    std::memcpy(&u, &f, sizeof u);
    return u;
}

/// The exponent of the smallest power of two >= x, x > 0.
int ceil_log2(float x) {
    const uint32_t b = bits_of(x);
    return int((b >> 23) & 255u) - 127 + ((b & 0x7fffffu) != 0);
}

float e4m3_value(unsigned code) {
    const unsigned e = (code >> 3) & 15u, m = code & 7u;
    if ((code & 127u) == 127u) return NAN;
    const float v = e ? std::ldexp(float(8 + m), int(e) - 10) : std::ldexp(float(m), -9);
    return (code & 128u) ? -v : v;
}

float round_e4m3(float x) { // |x| <= 448
    const float a = std::fabs(x);
    int e = int((bits_of(a) >> 23) & 255u) - 127;
    e = e < -6 ? -6 : e > 8 ? 8 : e;
    const float step = std::ldexp(1.0f, e - 3);
    return std::copysign(std::nearbyint(a / step) * step, x);
}

/// Nearest, a tie to the even mantissa; returns the code without its sign. 0 <= a.
unsigned e2m1_code(float a) {
    if (a <= 0.25f) return 0;
    if (a < 0.75f) return 1;
    if (a <= 1.25f) return 2;
    if (a < 1.75f) return 3;
    if (a <= 2.5f) return 4;
    if (a < 3.5f) return 5;
    return a <= 5.0f ? 6 : 7;
}

constexpr float e2m1_values[8] = {0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f};

int fp4_exponent(const float *x, int64_t n) {
    float top = 6 * 0x1p-126f;
    for (int64_t k = 0; k < n; ++k) top = std::fmax(top, std::fabs(x[k]));
    return ceil_log2(top * (1.0f / 6.0f));
}

} // namespace

float from_half(uint16_t h) {
    const int exponent = (h >> 10) & 31, mantissa = h & 1023;
    const float v = exponent == 0    ? std::ldexp(float(mantissa), -24)
                    : exponent == 31 ? (mantissa ? NAN : INFINITY)
                                     : std::ldexp(float(1024 + mantissa), exponent - 25);
    return (h & 0x8000) ? -v : v;
}

float from_bfloat(uint16_t h) {
    const uint32_t b = uint32_t(h) << 16;
    float f;
    std::memcpy(&f, &b, sizeof f);
    return f;
}

uint16_t to_bfloat(float value) {
    const uint32_t b = bits_of(value);
    if ((b & 0x7fffffffu) > 0x7f800000u) return uint16_t((b >> 16) | 0x40u);
    return uint16_t((b + 0x7fffu + ((b >> 16) & 1u)) >> 16);
}

void fill_tables(Tables &t) {
    for (unsigned c = 0; c < 256; ++c) t.e4m3[c] = e4m3_value(c);
    for (unsigned c = 0; c < 16; ++c) t.e2m1[c] = c & 8u ? -e2m1_values[c & 7u] : e2m1_values[c];
    for (int b = 0; b < 256; ++b) {
        t.e8m0[b] = b == 255 ? NAN : std::ldexp(1.0f, b - 127);
        for (int c = 0; c < 32; ++c) t.e2m1_bf16[b][c] = to_bfloat(t.e2m1[c & 15] * t.e8m0[b]);
        for (int c = 0; c < 128; ++c) {
            const uint16_t w = to_bfloat(t.e4m3[c] * t.e8m0[b]);
            t.e4m3_bf16[b][0][c] = uint8_t(w & 255u);
            t.e4m3_bf16[b][1][c] = uint8_t(w >> 8);
        }
    }
}

void round_fp8(float *x, int64_t n, int32_t block) {
    for (int64_t k0 = 0; k0 < n; k0 += block) {
        const int64_t count = n - k0 < block ? n - k0 : block;
        float top = 1e-4f;
        for (int64_t k = k0; k < k0 + count; ++k) top = std::fmax(top, std::fabs(x[k]));
        const int e = ceil_log2(top * (1.0f / 448.0f));
        const float scale = std::ldexp(1.0f, e), inverse = std::ldexp(1.0f, -e);
        for (int64_t k = k0; k < k0 + count; ++k)
            x[k] = round_e4m3(std::fmin(std::fmax(x[k] * inverse, -448.0f), 448.0f)) * scale;
    }
}

void round_fp4(float *x, int64_t n) {
    for (int64_t k0 = 0; k0 < n; k0 += 32) {
        const int64_t count = n - k0 < 32 ? n - k0 : 32;
        const int e = fp4_exponent(x + k0, count);
        for (int64_t k = k0; k < k0 + count; ++k)
            x[k] = std::copysign(std::ldexp(e2m1_values[e2m1_code(std::ldexp(std::fabs(x[k]), -e))], e), x[k]);
    }
}

void encode_fp4(const float *x, int64_t n, uint8_t *out) {
    for (int64_t g = 0; g < n / 32; ++g) {
        const int e = fp4_exponent(x + 32 * g, 32);
        for (int64_t k = 0; k < 16; ++k) {
            unsigned code[2];
            for (int i = 0; i < 2; ++i) {
                const float v = x[32 * g + 2 * k + i];
                code[i] = e2m1_code(std::ldexp(std::fabs(v), -e)) | (std::signbit(v) ? 8u : 0u);
            }
            out[16 * g + k] = uint8_t(code[0] | (code[1] << 4));
        }
        out[n / 2 + g] = uint8_t(e + 127 < 0 ? 0 : e + 127);
    }
}

void decode_fp4_row(const Tables &tables, const uint8_t *row, int64_t n, float *out) {
    for (int64_t k = 0; k < n; ++k) {
        const uint8_t code = row[k / 2];
        out[k] = tables.e2m1[k & 1 ? code >> 4 : code & 15] * tables.e8m0[row[n / 2 + k / 32]];
    }
}

void hadamard(float *x, int64_t n) {
    for (int64_t step = 1; step < n; step *= 2)
        for (int64_t i = 0; i < n; i += 2 * step)
            for (int64_t k = i; k < i + step; ++k) {
                const float a = x[k], b = x[k + step];
                x[k] = a + b;
                x[k + step] = a - b;
            }
    const float factor = 1.0f / std::sqrt(float(n));
    for (int64_t k = 0; k < n; ++k) x[k] *= factor;
}

void turn_at(int64_t position, const float *frequency, int32_t pairs, float *turn) {
    for (int32_t i = 0; i < pairs; ++i) {
        const float angle = float(position) * frequency[i];
        turn[i] = std::cos(angle);
        turn[pairs + i] = std::sin(angle);
    }
}

void rotate(float *x, const float *turn, int32_t pairs, bool inverse) {
    for (int32_t i = 0; i < pairs; ++i) {
        const float a = x[2 * i], b = x[2 * i + 1], c = turn[i], s = inverse ? -turn[pairs + i] : turn[pairs + i];
        x[2 * i] = a * c - b * s;
        x[2 * i + 1] = a * s + b * c;
    }
}

} // namespace dsv4::cpu
