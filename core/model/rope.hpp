// Rotation frequencies, as the released code computes them.
#pragma once
#include <cstdint>
#include <vector>

namespace dsv4 {

struct Config;

/// [R/2] frequencies of a block with this compress ratio: rope_theta for ratio 0, compress_rope_theta with YaRN
/// interpolation (where the config has it) otherwise. Every step is float32, in the released order: at position one
/// million a frequency that is better in the eighth digit turns the pair by a visible angle.
std::vector<float> rope_frequencies(const Config &config, int32_t compress_ratio);

}  // namespace dsv4
