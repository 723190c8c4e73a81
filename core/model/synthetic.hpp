// Models of true shape with random weights, for measuring without a checkpoint.
#pragma once
#include <memory>
#include <string>
#include "core/model/inventory.hpp"
#include "core/plugin/device.hpp"

namespace dsv4 {

struct SyntheticModel {
    Config config;
    ModelWeights weights;                // checkpoint is NULL
    std::shared_ptr<const void> memory;  // keeps the weights valid; never NULL
};

/// spec: "flash", "pro" or the path of a config.json, then, if wanted, ":layers=N" to keep the first N layers. Weights
/// are in the published formats (FP8 projections, FP4 experts), drawn so that activations stay of order one. The same
/// spec gives the same weights, fewer layers the same first ones. They are described (dsv4_tensor::random), not made.
/// Throws Error.
SyntheticModel describe_synthetic(const std::string &spec);

/// Makes what was described in host memory. Throws Error (DSV4_E_NO_MEMORY) where there is not enough, before any is
/// taken.
void make_on_host(SyntheticModel &model);

/// The same for a device that does not make weights itself. For one that does (DSV4_CAP_RANDOM_WEIGHTS) they stay
/// descriptions, after a look at whether it has room for them.
void provide_weights(SyntheticModel &model, const Device &device, int32_t expert_tier);

/// Described and made on the host.
SyntheticModel make_synthetic(const std::string &spec);

}  // namespace dsv4
