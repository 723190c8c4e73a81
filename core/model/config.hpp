// What config.json says about a model, checked: after parse_config every number is in a range that the rest of the
// library may multiply and allocate with.
//
// Size letters used throughout core/model: T tokens, D hidden, M residual streams, V vocabulary, H heads, d head_dim,
// R rotated dims, G output groups, W window, Hi and di indexer heads and dim, K indexer top-k, E routed experts,
// k active experts, I expert width, L layers, r compress ratio.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "dsv4/dsv4_backend.h"

namespace dsv4 {

struct Yarn {
    double factor;
    double original_positions;
    double beta_fast, beta_slow;
};

/// The block drafter of later checkpoints, as config.json announces it.
struct DsparkConfig {
    int32_t block_size = 0;
    int32_t markov_rank = 0;
    int32_t noise_token = -1;
    std::vector<int32_t> target_layers;
};

struct Config {
    dsv4_shape shape{};                   // struct_size set
    std::vector<int32_t> compress_ratios; // at least L entries; those after L are for the MTP blocks
    int32_t hash_layers = 0;              // layers that choose experts by token id
    int32_t mtp_blocks = 0;               // num_nextn_predict_layers
    double rope_theta = 0, compress_rope_theta = 0;
    std::optional<Yarn> yarn;
    int32_t bos = -1; // -1: none
    std::vector<int32_t> eos;
    int32_t max_positions = 0;
    std::string expert_dtype;            // as written, "" when absent: "fp4", "fp8", "bf16"
    int32_t shared_experts = 0;          // each of expert_inter; 0: not said
    int32_t scale_block[2] = {128, 128}; // of FP8 weights: rows, columns
    std::optional<DsparkConfig> dspark;
    std::string model_type;

    /// Entries past the end of compress_ratios are 0 (window only): checkpoints list more or fewer MTP blocks than
    /// they hold.
    int32_t mtp_compress_ratio(int32_t depth) const;
};

/// name: what messages call the file. Throws Error (DSV4_E_MODEL, or DSV4_E_UNSUPPORTED for a variant of the
/// architecture that this build does not compute) naming file, key, expected and found.
Config parse_config(std::string_view json, std::string_view name);

} // namespace dsv4
