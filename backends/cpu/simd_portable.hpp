// Four float lanes by the compiler's vector type: SSE2, NEON, or scalar code where there is neither. Included once per
// translation unit, before kernels_body.hpp; everything has internal linkage.
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>
#include "backends/cpu/kernels.hpp"

#define DSV4_INLINE static inline __attribute__((always_inline))

namespace dsv4::cpu {
namespace {

typedef float vf __attribute__((vector_size(16)));
typedef int32_t vi __attribute__((vector_size(16)));
constexpr int32_t VL = 4, row_block = 4, token_block = 2;

DSV4_INLINE vf vload(const float *p) { vf v; memcpy(&v, p, sizeof v); return v; }
DSV4_INLINE void vstore(float *p, vf v) { memcpy(p, &v, sizeof v); }
DSV4_INLINE vf vset1(float x) { return vf{x, x, x, x}; }
DSV4_INLINE vf vfma(vf a, vf b, vf c) { return a * b + c; }
DSV4_INLINE vf vselect(vi mask, vf a, vf b) { return (vf)(((vi)a & mask) | ((vi)b & ~mask)); }
DSV4_INLINE vf vmax(vf a, vf b) { return vselect(a > b, a, b); }
DSV4_INLINE vf vmin(vf a, vf b) { return vselect(a < b, a, b); }
DSV4_INLINE float vsum(vf v) { return (v[0] + v[2]) + (v[1] + v[3]); }
DSV4_INLINE vf vload_bf16(const uint16_t *p) {
    const vi v = {int32_t(uint32_t(p[0]) << 16), int32_t(uint32_t(p[1]) << 16), int32_t(uint32_t(p[2]) << 16),
                  int32_t(uint32_t(p[3]) << 16)};
    return (vf)v;
}
/// Nearest integer for |x| < 2^22, and its integer value.
DSV4_INLINE vf vround(vf x, vi *n) {
    const vf magic = vset1(12582912.0f);
    const vf t = x + magic;
    *n = (vi)t - (vi)magic;
    return t - magic;
}
DSV4_INLINE vf vpow2(vi n) { return (vf)((n + 127) << 23); }

#define DSV4_DECODE_FP8_SCALAR 1
#define DSV4_DECODE_FP4_SCALAR 1

} // namespace
} // namespace dsv4::cpu
