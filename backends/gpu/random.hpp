// Weights that are described instead of given (dsv4_random in dsv4_backend.h), in pieces of eight bytes, each a
// function of its number: small ones are made on the host, matrices by a kernel where they will lie.
#pragma once
#include <vector>
#include "backends/gpu/objects.hpp"

namespace dsv4::gpu {

/// The data or the scales of one tensor.
struct RandomBytes {
    enum Kind : int32_t { NONE, F32, BF16, FP8, FP4, SCALE } kind = NONE;
    int32_t low = 0, range = 1;    // SCALE
    float mean = 0, deviation = 0; // F32, BF16
    uint64_t seed = 0;
};

/// Throw for a description that is not one of these. rows: the bytes of DSV4_RANDOM_ROWS.
RandomBytes random_data(const dsv4_tensor &t);
RandomBytes random_scale(const dsv4_tensor &t);
std::vector<uint8_t> random_rows(const dsv4_tensor &t);

std::vector<uint8_t> random_on_host(const RandomBytes &r, size_t bytes);
/// `at`, aligned to 16, has room for round_up(bytes, 16); device memory, or pinned.
void random_on_device(const RandomBytes &r, uint8_t *at, size_t bytes, Stream stream);

} // namespace dsv4::gpu
