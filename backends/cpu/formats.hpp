// Number formats of the checkpoint and of the caches, in plain scalar code: tables, rounding, rotation.
#pragma once
#include <cstdint>
#include "backends/cpu/kernels.hpp"

namespace dsv4::cpu {

void fill_tables(Tables &tables);

float from_half(uint16_t bits);
float from_bfloat(uint16_t bits);
uint16_t to_bfloat(float value); // nearest even

/// x[0, n) rounded to FP8 with one power-of-two scale per block (the last may be short), kept as float32.
void round_fp8(float *x, int64_t n, int32_t block);
/// The same for FP4 in blocks of 32.
void round_fp4(float *x, int64_t n);
/// n a multiple of 32: n/2 bytes of codes, then n/32 scale bytes.
void encode_fp4(const float *x, int64_t n, uint8_t *out);
void decode_fp4_row(const Tables &tables, const uint8_t *row, int64_t n, float *out);

/// x times the Hadamard matrix times n^-0.5; n a power of two.
void hadamard(float *x, int64_t n);

/// Rotates interleaved pairs: turn[0, pairs) cosines, turn[pairs, 2 pairs) sines.
void rotate(float *x, const float *turn, int32_t pairs, bool inverse);
void turn_at(int64_t position, const float *frequency, int32_t pairs, float *turn);

} // namespace dsv4::cpu
