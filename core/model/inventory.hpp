// From named tensors to roles: every weight the model needs, found, its type and shape checked against config.json,
// and handed on as dsv4_tensor, pointing into the mapped files.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/model/checkpoint.hpp"

namespace dsv4 {

/// Which entries of Checkpoint::tensors() a dsv4_tensor came from; scale is Checkpoint::kNone for plain weights.
struct TensorSource {
    uint32_t weight, scale;
};

struct BlockWeights {
    int32_t kind = 0; // DSV4_BLOCK_*
    int32_t index = 0;
    int32_t compress_ratio = 0;
    std::vector<dsv4_tensor> tensors;
    std::vector<TensorSource> sources;  // parallel to tensors
    std::vector<float> rope_frequency;  // [R/2]; empty for the ends

    /// Points into this object and the mapped files.
    dsv4_block_desc desc(int32_t expert_tier) const;
    /// NULL when the block has no such weight.
    const dsv4_tensor *find(int32_t role, int32_t expert = -1) const;
};

/// Tensors that nothing reads, by the leading components of their names.
struct UnusedGroup {
    std::string name; // "mtp.0.main_proj.*", or a whole name
    uint64_t tensors = 0, bytes = 0;
};

struct ModelWeights {
    std::shared_ptr<const Checkpoint> checkpoint; // keeps every pointer below valid
    BlockWeights ends;
    std::vector<BlockWeights> layers; // L
    std::vector<BlockWeights> mtp;    // the MTP blocks that this build runs
    std::vector<UnusedGroup> unused;  // by name
    std::vector<std::string> degradations; // what the checkpoint has or announces and this build does without
    uint64_t total_tensors = 0, total_bytes = 0; // of all files; used + unused
    uint64_t used_tensors = 0, used_bytes = 0;

    const Config &config() const { return checkpoint->config(); }
};

/// Reads headers only. Throws Error naming file, tensor, expected and found for a tensor that is missing, of another
/// type or shape, or at odds with config.json.
ModelWeights map_weights(std::shared_ptr<const Checkpoint> checkpoint);

/// Reads the scales of a block (1/16 of the bytes of FP4 weights) and its table of experts by token id. Throws Error
/// naming file, tensor and index for a scale that is NaN or infinite, and for an expert that does not exist.
void check_values(const ModelWeights &weights, const BlockWeights &block);
/// The same for every block.
void check_scales(const ModelWeights &weights);

}  // namespace dsv4
