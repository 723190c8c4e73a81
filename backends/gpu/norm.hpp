// Norms and rotations of rows, by a block or by a subgroup.
#pragma once
#include "backends/gpu/objects.hpp"

namespace dsv4::gpu {

/// bf16 between operators in official numerics, untouched in the others.
__device__ __forceinline__ float settled(float x, bool official) { return official ? round_bf16(x) : x; }

/// 1 / sqrt(mean(x^2) + eps) over a row, to every thread of the block; scratch: 32 shared floats.
__device__ __forceinline__ float block_rms(const float *x, int n, float eps, float *scratch) {
    float sum = 0;
#pragma unroll 1
    for (int i = int(threadIdx.x); i < n; i += int(blockDim.x)) sum = fmaf(x[i], x[i], sum);
    return 1.0f / sqrtf(block_sum(sum, scratch) / float(n) + eps);
}

/// The angle is a float32 product by definition: near position 2^20 a more exact one does not match.
struct Turn {
    float cosine, sine;
};
/// The nearest quarter turn is taken off in double precision, and polynomials (minimax, of sin and cos up to pi / 4) do
/// the rest, to 1e-7 of the values: the library's functions are hundreds of instructions, for large angles.
__device__ __forceinline__ Turn turn_at(int32_t position, float frequency) {
    const double angle = float(position) * frequency, quarter = rint(angle * 0.63661977236758134); // 2 / pi
    const auto x = float(fma(quarter, -6.123233995736766e-17, fma(quarter, -1.5707963267948966, angle)));
    const float y = x * x;
    const float sine = fmaf(x * y, fmaf(y, fmaf(y, -1.9515295891e-4f, 8.3321608736e-3f), -1.6666654611e-1f), x);
    const float cosine =
        fmaf(y * y, fmaf(y, fmaf(y, 2.443315711809948e-5f, -1.388731625493765e-3f), 4.166664568298827e-2f),
             fmaf(y, -0.5f, 1.0f));
    const int turns = int(int64_t(quarter) & 3);
    const float first = turns & 1 ? sine : cosine, second = turns & 1 ? cosine : sine;
    return {turns == 1 || turns == 2 ? -first : first, turns & 2 ? -second : second};
}
__device__ __forceinline__ float2 rotated(float2 v, const Turn &t, bool official) {
    return make_float2(settled(v.x * t.cosine - v.y * t.sine, official),
                       settled(v.x * t.sine + v.y * t.cosine, official));
}

/// The rotations of a row whose last `turned` values turn, by the whole block: turns [turned / 2], in shared memory.
__device__ __forceinline__ void make_turns(Turn *turns, int turned, const float *frequency, int32_t position) {
#pragma unroll 1
    for (int i = int(threadIdx.x); i < turned / 2; i += int(blockDim.x)) turns[i] = turn_at(position, frequency[i]);
}
/// The last `turned` of n values of a row in shared memory, in place; a thread reads but the turns that it made.
__device__ __forceinline__ void rotate_row(float *row, int n, int turned, const Turn *turns, bool official) {
    float *tail = row + n - turned;
#pragma unroll 1
    for (int i = int(threadIdx.x); i < turned / 2; i += int(blockDim.x)) {
        const float2 v = rotated(make_float2(tail[2 * i], tail[2 * i + 1]), turns[i], official);
        tail[2 * i] = v.x, tail[2 * i + 1] = v.y;
    }
}

} // namespace dsv4::gpu
