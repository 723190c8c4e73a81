// Random weights in the formats of checkpoints, made directly in code: gaussian codes under sensible scales, so that
// activations keep unit size, softmaxes are neither flat nor one-hot and clamps are hit.
#pragma once
#include "dsv4/dsv4_backend.h"
#include "shapes.hpp"
#include <cstdint>
#include <memory>
#include <vector>

namespace dsv4::conformance {

/// Counter-based: the n-th number of a stream depends on nothing but the key, so a token's row is the same in any
/// batch.
class Random {
  public:
    explicit Random(uint64_t key) : state_(key * 0x9e3779b97f4a7c15ull + 0x632be59bd9b4e019ull) {}
    uint64_t next() {
        uint64_t z = (state_ += 0x9e3779b97f4a7c15ull);
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
        return z ^ (z >> 31);
    }
    float uniform() { return static_cast<float>(next() >> 40) * 0x1p-24f; } // [0, 1)
    float gaussian();                                                       // close to N(0, 1), within +-3.5

  private:
    uint64_t state_;
};

float round_to_bf16(float value);

/// One block's tensors and the memory they point at.
struct Weights {
    std::vector<dsv4_tensor> tensors;
    std::vector<std::vector<uint8_t>> memory;
    std::vector<float> rope;
    int32_t kind = 0, index = 0, ratio = 0;

    const dsv4_tensor *find(int32_t role, int32_t expert = -1) const;
    dsv4_block_desc desc() const;
};

/// described: what a dsv4_random can describe is that, without bytes: float32, bf16, FP8 and FP4 under E8M0 scales, the
/// table of experts.
Weights make_ends(const Case &c, uint64_t seed, bool described = false);
Weights make_layer(const Case &c, int32_t ratio, bool hash_routing, uint64_t seed, bool described = false);
Weights make_mtp(const Case &c, uint64_t seed);

/// Row `row` of a matrix (or a whole vector, as row 0), dequantized.
void dequantize_row(const dsv4_tensor &tensor, int64_t row, float *out);

} // namespace dsv4::conformance
