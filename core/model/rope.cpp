#include "core/model/rope.hpp"

#include <algorithm>
#include <cmath>

#include "core/model/config.hpp"

namespace dsv4 {

namespace {

constexpr double kPi = 3.14159265358979323846;

/// The pair (as a real number) that turns n times within the original context.
double pair_with_turns(double turns, double original_positions, double base, double rope_dims) {
    return rope_dims * std::log(original_positions / (turns * 2 * kPi)) / (2 * std::log(base));
}

}  // namespace

std::vector<float> rope_frequencies(const Config &config, int32_t compress_ratio) {
    const int32_t R = config.shape.rope_dims;
    const double base = compress_ratio ? config.compress_rope_theta : config.rope_theta;
    std::vector<float> frequency(static_cast<size_t>(R / 2));
    for (int32_t i = 0; i < R / 2; ++i) {
        const float exponent = static_cast<float>(2 * i) / static_cast<float>(R);
        // Rounding the double power gives the correctly rounded float32 power on every C library.
        const auto power =
            static_cast<float>(std::pow(static_cast<double>(static_cast<float>(base)), static_cast<double>(exponent)));
        frequency[static_cast<size_t>(i)] = 1.0f / power;
    }
    if (!compress_ratio || !config.yarn) return frequency;

    const Yarn &yarn = *config.yarn;
    const double fast = pair_with_turns(yarn.beta_fast, yarn.original_positions, base, R);
    const double slow = pair_with_turns(yarn.beta_slow, yarn.original_positions, base, R);
    const double low = std::max(std::floor(fast), 0.0), high = std::min(std::ceil(slow), R - 1.0);
    const auto width = static_cast<float>(high == low ? 0.001 : high - low);
    for (int32_t i = 0; i < R / 2; ++i) {
        const float ramp = std::clamp((static_cast<float>(i) - static_cast<float>(low)) / width, 0.0f, 1.0f);
        float &f = frequency[static_cast<size_t>(i)];
        f = f / static_cast<float>(yarn.factor) * ramp + f * (1.0f - ramp);
    }
    return frequency;
}

}  // namespace dsv4
