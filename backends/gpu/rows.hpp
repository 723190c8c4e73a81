// Cache rows: how latent rows and indexer keys are written and read (CacheView in objects.hpp has the layouts).
#pragma once
#include "backends/gpu/formats.hpp"

namespace dsv4::gpu {

/// A latent row of float32 in shared memory into the cache, by the whole block (nothing but whole subgroups).
__device__ __forceinline__ void store_latent(const CacheView &cache, const float *values, uint8_t *row) {
    const int plain = cache.head_dim - cache.rope_dims;
    if (cache.rows_are_float) {
#pragma unroll 1
        for (int i = int(threadIdx.x); i < cache.head_dim; i += int(blockDim.x))
            reinterpret_cast<float *>(row)[i] = values[i];
        return;
    }
    auto *tail = reinterpret_cast<uint16_t *>(row + plain);
    uint8_t *scales = row + plain + 2 * cache.rope_dims;
    const int lane = lane_of_subgroup();
#pragma unroll 1
    for (int block = subgroup_of_block(); block * 64 < plain; block += int(blockDim.x) / subgroup_size) {
        float v[2], top = 0;
        for (int i = 0; i < 2; ++i) {
            const int at = block * 64 + 2 * lane + i;
            v[i] = at < plain ? values[at] : 0.0f;
            top = fmaxf(top, fabsf(v[i]));
        }
        const int exponent = fp8_exponent(subgroup_max(top));
        for (int i = 0; i < 2; ++i) {
            const int at = block * 64 + 2 * lane + i;
            const float scaled = fminf(fmaxf(v[i] * power_of_two(-exponent), -448.f), 448.f);
            if (at < plain) row[at] = e4m3_encode(scaled);
        }
        if (lane == 0) scales[block] = uint8_t(exponent + 127);
    }
#pragma unroll 1
    for (int i = int(threadIdx.x); i < cache.rope_dims; i += int(blockDim.x)) tail[i] = to_bf16(values[plain + i]);
}

/// One value of a latent row.
__device__ __forceinline__ float latent_value(const CacheView &cache, const uint8_t *row, int i) {
    if (cache.rows_are_float) return reinterpret_cast<const float *>(row)[i];
    const int plain = cache.head_dim - cache.rope_dims;
    if (i >= plain) return from_bf16(reinterpret_cast<const uint16_t *>(row + plain)[i - plain]);
    return e4m3_decode(row[i]) * e8m0_decode(row[plain + 2 * cache.rope_dims + i / 64]);
}

/// An indexer key in shared memory into the cache: E2M1 in blocks of 32, or float32 (rounded so when `rounded`).
__device__ __forceinline__ void store_key(const CacheView &cache, const float *values, uint8_t *row, bool rounded) {
    const int n = cache.index_dim, lane = lane_of_subgroup();
#pragma unroll 1
    for (int block = subgroup_of_block(); block * 32 < n; block += int(blockDim.x) / subgroup_size) {
        const int at = block * 32 + lane;
        const float v = at < n ? values[at] : 0.0f;
        const int exponent = fp4_exponent(subgroup_max(fabsf(v)));
        if (cache.keys_are_float) {
            if (at < n) reinterpret_cast<float *>(row)[at] = rounded ? fake_fp4(v, exponent) : v;
            continue;
        }
        const uint32_t code = e2m1_encode(fminf(fmaxf(v * power_of_two(-exponent), -6.f), 6.f));
        const uint32_t next = shuffle_xor(code, 1);
        if (lane % 2 == 0) row[at / 2] = uint8_t(code | next << 4);
        if (lane == 0) row[n / 2 + block] = uint8_t(exponent + 127);
    }
}

__device__ __forceinline__ float key_value(const CacheView &cache, const uint8_t *row, int i) {
    if (cache.keys_are_float) return reinterpret_cast<const float *>(row)[i];
    return e2m1_decode(row[i / 2] >> (i % 2 * 4)) * e8m0_decode(row[cache.index_dim / 2 + i / 32]);
}

} // namespace dsv4::gpu
