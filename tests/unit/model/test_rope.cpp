#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "core/model/config.hpp"
#include "core/model/rope.hpp"
#include "tests/catch.hpp"

using dsv4::Config;
using dsv4::rope_frequencies;

namespace {

Config config(int32_t R, double theta, double compress_theta, dsv4::Yarn yarn) {
    Config c;
    c.shape.rope_dims = R;
    c.rope_theta = theta;
    c.compress_rope_theta = compress_theta;
    c.yarn = yarn;
    return c;
}

int32_t bits(float x) {
    int32_t out = 0;
    std::memcpy(&out, &x, 4);
    return out;
}

/// The formula in double.
std::vector<double> in_double(const Config &c, int32_t ratio) {
    const double R = c.shape.rope_dims, base = ratio ? c.compress_rope_theta : c.rope_theta;
    std::vector<double> out;
    for (int i = 0; i < c.shape.rope_dims / 2; ++i) out.push_back(std::pow(base, -2.0 * i / R));
    if (!ratio || !c.yarn) return out;
    const auto turns = [&](double n) {
        return R * std::log(c.yarn->original_positions / (n * 2 * 3.14159265358979323846)) / (2 * std::log(base));
    };
    const double low = std::max(std::floor(turns(c.yarn->beta_fast)), 0.0);
    const double high = std::min(std::ceil(turns(c.yarn->beta_slow)), R - 1);
    for (size_t i = 0; i < out.size(); ++i) {
        const double width = high == low ? 0.001 : high - low;
        const double ramp = std::min(1.0, std::max(0.0, (static_cast<double>(i) - low) / width));
        out[i] = out[i] / c.yarn->factor * ramp + out[i] * (1 - ramp);
    }
    return out;
}

} // namespace

// Expected bits: the released formula run in PyTorch's float32.
TEST_CASE("rope frequencies of the published models are the released bits") {
    const Config c = config(64, 10000, 160000, {16, 65536, 32, 1});
    const std::vector<float> compressed{
        0x1.0000000000000p+0f,  0x1.6014740000000p-1f,  0x1.e4383e0000000p-2f,  0x1.4cfa020000000p-2f,
        0x1.c9f25c0000000p-3f,  0x1.3ae8ea0000000p-3f,  0x1.b119680000000p-4f,  0x1.29d2c60000000p-4f,
        0x1.99999a0000000p-5f,  0x1.19a9f60000000p-5f,  0x1.8360320000000p-6f,  0x1.0a619c0000000p-6f,
        0x1.6e5b7e0000000p-7f,  0x1.f7db100000000p-8f,  0x1.5a7abc0000000p-8f,  0x1.dc846e0000000p-9f,
        0x1.28f5c20000000p-9f,  0x1.6e29c00000000p-10f, 0x1.bd7b6c0000000p-11f, 0x1.0a619c0000000p-11f,
        0x1.37675e0000000p-12f, 0x1.60b2f00000000p-13f, 0x1.7d209a0000000p-14f, 0x1.7d36be0000000p-15f,
        0x1.47ae180000000p-16f, 0x1.6887a00000000p-18f, 0x1.efd74c0000000p-19f, 0x1.54f7d00000000p-19f,
        0x1.d4effe0000000p-20f, 0x1.4277b80000000p-20f, 0x1.bb7e600000000p-21f, 0x1.30f89a0000000p-21f};
    const std::vector<float> plain{
        0x1.0000000000000p+0f,  0x1.7ff2220000000p-1f,  0x1.1feb340000000p-1f,  0x1.afd1360000000p-2f,
        0x1.43d1360000000p-2f,  0x1.e5a8460000000p-3f,  0x1.6c310e0000000p-3f,  0x1.111aee0000000p-3f,
        0x1.99999a0000000p-4f,  0x1.33281a0000000p-4f,  0x1.ccab840000000p-5f,  0x1.59742a0000000p-5f,
        0x1.030dc60000000p-5f,  0x1.84869e0000000p-6f,  0x1.235a720000000p-6f,  0x1.b4f7e40000000p-7f,
        0x1.47ae140000000p-7f,  0x1.eb73600000000p-8f,  0x1.7089380000000p-8f,  0x1.145cee0000000p-8f,
        0x1.9e7c700000000p-9f,  0x1.36d21a0000000p-9f,  0x1.d22a500000000p-10f, 0x1.5d931c0000000p-10f,
        0x1.0624de0000000p-10f, 0x1.8929180000000p-11f, 0x1.26d42c0000000p-11f, 0x1.ba2e4a0000000p-12f,
        0x1.4b96c00000000p-12f, 0x1.f1502a0000000p-13f, 0x1.74eea60000000p-13f, 0x1.17a8e40000000p-13f};
    CHECK(rope_frequencies(c, 4) == compressed);
    CHECK(rope_frequencies(c, 128) == compressed);
    CHECK(rope_frequencies(c, 0) == plain);
}

TEST_CASE("rope frequencies of other constants are within one unit in the last place of the released ones") {
    const std::vector<float> expected{
        0x1.0000000000000p+0f,  0x1.0805ce0000000p-1f,  0x1.104bf80000000p-2f,  0x1.18d4840000000p-3f,
        0x1.21a1860000000p-4f,  0x1.2ab5220000000p-5f,  0x1.d1f42a0000000p-7f,  0x1.45aa860000000p-8f,
        0x1.6041880000000p-10f, 0x1.0e5bf40000000p-14f, 0x1.16d4f60000000p-15f, 0x1.1f91ee0000000p-16f,
        0x1.2895020000000p-17f, 0x1.31e0640000000p-18f, 0x1.3b76560000000p-19f, 0x1.45592e0000000p-20f};
    const std::vector<float> got = rope_frequencies(config(32, 5e5, 40000, {40, 4096, 16, 2}), 128);
    REQUIRE(got.size() == expected.size());
    for (size_t i = 0; i < got.size(); ++i) CHECK(std::abs(bits(got[i]) - bits(expected[i])) <= 1);
}

TEST_CASE("rope frequencies follow the formula for any constants") {
    for (const int32_t R : {2, 16, 48, 64, 128})
        for (const double theta : {777.0, 10000.0, 8e6})
            for (const double original : {128.0, 4096.0, 65536.0})
                for (const double factor : {1.0, 2.5, 40.0}) {
                    const Config c = config(R, 10000, theta, {factor, original, 32, 1});
                    for (const int32_t ratio : {0, 4, 128}) {
                        const std::vector<float> got = rope_frequencies(c, ratio);
                        const std::vector<double> want = in_double(c, ratio);
                        REQUIRE(got.size() == want.size());
                        for (size_t i = 0; i < got.size(); ++i)
                            // 16 = ln(8e6) times the rounding of the exponent, and a few roundings after it
                            CHECK(std::abs(static_cast<double>(got[i]) - want[i]) <= 1.5e-6 * want[i]);
                    }
                }
}
