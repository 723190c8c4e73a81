// Models of true shape with random weights, for measuring without a checkpoint.
#pragma once
#include <memory>
#include <string>
#include "core/model/inventory.hpp"

namespace dsv4 {

struct SyntheticModel {
    Config config;
    ModelWeights weights;                // checkpoint is NULL
    std::shared_ptr<const void> memory;  // keeps the weights valid
};

/// spec: "flash", "pro" or the path of a config.json, then, if wanted, ":layers=N" to keep the first N layers. Weights
/// are in the published formats (FP8 projections, FP4 experts), drawn so that activations stay of order one. The same
/// spec gives the same weights. Throws Error.
SyntheticModel make_synthetic(const std::string &spec);

}  // namespace dsv4
