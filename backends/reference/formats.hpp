// Number formats of the checkpoint and of the released inference code, one value or one row at a time.
//   E4M3  1-4-3, bias 7, max 448, no infinities; E2M1 0 .5 1 1.5 2 3 4 6; E8M0 2^(b-127); bf16 upper half of float32
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

namespace dsv4::reference {

inline float bits_to_float(uint32_t u) {
    float f;
    std::memcpy(&f, &u, 4);
    return f;
}
inline uint32_t float_to_bits(float f) {
    uint32_t u;
    std::memcpy(&u, &f, 4);
    return u;
}

inline float bf16_decode(uint16_t b) { return bits_to_float(uint32_t(b) << 16); }

/// Nearest even; infinities and NaN stay what they are.
inline float round_bf16(float x) {
    const uint32_t u = float_to_bits(x);
    if ((u & 0x7F800000u) == 0x7F800000u) return x;
    return bits_to_float((u + 0x7FFFu + ((u >> 16) & 1u)) & 0xFFFF0000u);
}

inline float f16_decode(uint16_t h) {
    const uint32_t sign = uint32_t(h & 0x8000u) << 16, e = (h >> 10) & 31u, m = h & 1023u;
    if (e == 31) return bits_to_float(sign | 0x7F800000u | (m << 13));
    if (e != 0) return bits_to_float(sign | ((e + 112u) << 23) | (m << 13));
    const float v = std::ldexp(float(m), -24);
    return sign ? -v : v;
}

inline float e8m0_decode(uint8_t b) { return b == 0 ? std::ldexp(1.0f, -127) : bits_to_float(uint32_t(b) << 23); }

inline float e4m3_decode(uint8_t b) {
    const int e = (b >> 3) & 15, m = b & 7;
    if ((b & 0x7F) == 0x7F) return std::nanf("");
    const float v = e == 0 ? std::ldexp(float(m), -9) : std::ldexp(float(8 + m), e - 10);
    return b & 0x80 ? -v : v;
}

inline float e2m1_decode(uint8_t code) {
    static constexpr float value[8] = {0.f, .5f, 1.f, 1.5f, 2.f, 3.f, 4.f, 6.f};
    return code & 8 ? -value[code & 7] : value[code & 7];
}

/// Nearest E4M3 value, ties to even; |x| <= 448.
inline float round_e4m3(float x) {
    const float a = std::fabs(x);
    if (a == 0) return x;
    int e;
    std::frexp(a, &e);                           // a = f * 2^e, f in [0.5, 1)
    const int step = (e - 1 < -6 ? -6 : e - 1) - 3;  // three mantissa bits; subnormals below 2^-6
    return std::copysign(std::ldexp(std::nearbyint(std::ldexp(a, -step)), step), x);
}

/// Nearest E2M1 value, ties to the even mantissa; |x| <= 6.
inline float round_e2m1(float x) {
    const float a = std::fabs(x);
    const float r = a <= .25f   ? 0.f
                    : a < .75f  ? .5f
                    : a <= 1.25f ? 1.f
                    : a < 1.75f ? 1.5f
                    : a <= 2.5f ? 2.f
                    : a < 3.5f  ? 3.f
                    : a <= 5.f  ? 4.f
                                : 6.f;
    return std::copysign(r, x);
}

/// Smallest power of two >= x, from the exponent bits as the released kernels do it; x > 0 and normal.
inline float pow2_ceil(float x) {
    const uint32_t u = float_to_bits(x);
    return std::ldexp(1.0f, int((u >> 23) & 0xFF) - 127 + ((u & 0x7FFFFFu) != 0));
}

/// Quantise and dequantise n values in blocks with a power-of-two scale each, in place.
inline void fake_fp8(float *x, int64_t n, int64_t block) {
    for (int64_t b = 0; b < n; b += block) {
        const int64_t end = b + block < n ? b + block : n;
        float amax = 1e-4f;
        for (int64_t i = b; i < end; ++i) amax = std::fmax(amax, std::fabs(x[i]));
        const float s = pow2_ceil(amax * (1.0f / 448.0f));
        for (int64_t i = b; i < end; ++i) x[i] = round_e4m3(std::fmin(std::fmax(x[i] / s, -448.f), 448.f)) * s;
    }
}

inline void fake_fp4(float *x, int64_t n, int64_t block) {
    for (int64_t b = 0; b < n; b += block) {
        const int64_t end = b + block < n ? b + block : n;
        float amax = std::ldexp(6.0f, -126);
        for (int64_t i = b; i < end; ++i) amax = std::fmax(amax, std::fabs(x[i]));
        const float s = pow2_ceil(amax * (1.0f / 6.0f));
        for (int64_t i = b; i < end; ++i) x[i] = round_e2m1(std::fmin(std::fmax(x[i] / s, -6.f), 6.f)) * s;
    }
}

}  // namespace dsv4::reference
