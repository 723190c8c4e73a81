// The bytes of weights that are described by a dsv4_random (dsv4_backend.h has the formulas), for devices that do not
// make them themselves.
#pragma once
#include <cstdint>
#include "dsv4/dsv4_backend.h"

namespace dsv4 {

/// Number i of SplitMix64 (Steele, Lea, Flood 2014) begun at seed.
inline uint64_t random_word(uint64_t seed, uint64_t i) {
    uint64_t z = seed + (i + 1) * 0x9E3779B97F4A7C15ull;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ z >> 27) * 0x94D049BB133111EBull;
    return z ^ z >> 31;
}

/// t.bytes into data and, where t has scales, t.scale_bytes into scale. Throws Error for a description that is none.
void make_random_bytes(const dsv4_tensor &t, void *data, void *scale);

}  // namespace dsv4
