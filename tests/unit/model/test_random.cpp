// The bytes of random weights are those that dsv4_backend.h documents: values that a script made from that page alone,
// in rational numbers (python3: r = lambda s, i: the four lines of SplitMix64 masked to 64 bits; a NORMAL element is
// struct's '<f' of float(Fraction(mean) + Fraction(deviation) * x / 65536)), and what is said of how they are spread.
#include <cmath>
#include <cstring>
#include <set>
#include <vector>
#include "core/error.hpp"
#include "core/model/random_bytes.hpp"
#include "tests/catch.hpp"

using dsv4::make_random_bytes;

namespace {

dsv4_tensor tensor(int32_t dtype, int32_t kind, uint64_t seed, int64_t rows, int64_t columns, uint64_t bytes) {
    dsv4_tensor t{};
    t.dtype = dtype;
    t.shape[0] = rows;
    t.shape[1] = columns;
    t.bytes = bytes;
    t.random.kind = kind;
    t.random.seed = seed;
    return t;
}

template <class T> std::vector<T> made(const dsv4_tensor &t) {
    std::vector<T> out(t.bytes / sizeof(T));
    make_random_bytes(t, out.data(), nullptr);
    return out;
}

}  // namespace

TEST_CASE("the generator is SplitMix64") {
    // The first five of seed 1234567, as every implementation of it gives them.
    const uint64_t right[] = {6457827717110365317u, 3203168211198807973u, 9817491932198370423u, 4593380528125082431u,
                              16408922859458223821u};
    for (uint64_t i = 0; i < 5; ++i) CHECK(dsv4::random_word(1234567, i) == right[i]);
}

TEST_CASE("random weights are the documented bytes") {
    dsv4_tensor t = tensor(DSV4_F32, DSV4_RANDOM_NORMAL, 0xDEADBEEF, 5, 1, 20);
    t.random.mean = 1;
    t.random.deviation = 0.2f;
    CHECK(made<uint32_t>(t) == std::vector<uint32_t>{0x3F9C4A80, 0x3F2EC89A, 0x3FA7AEB3, 0x3F89FAB3, 0x3FA567B3});
    t.dtype = DSV4_BF16;
    t.bytes = 10;
    CHECK(made<uint16_t>(t) == std::vector<uint16_t>{0x3F9C, 0x3F2F, 0x3FA8, 0x3F8A, 0x3FA5});

    // A word and three bytes; the first code of FP8 would be a NaN.
    t = tensor(DSV4_FP4_E2M1, DSV4_RANDOM_CODES, 13, 1, 22, 11);
    CHECK(made<uint8_t>(t) ==
          std::vector<uint8_t>{0xFF, 0x8A, 0xAD, 0xF8, 0xB7, 0x37, 0xCA, 0xC4, 0x71, 0xA0, 0x36});
    t = tensor(DSV4_FP8_E4M3, DSV4_RANDOM_CODES, 13, 1, 11, 11);
    CHECK(made<uint8_t>(t) ==
          std::vector<uint8_t>{0xFE, 0x8A, 0xAD, 0xF8, 0xB7, 0x37, 0xCA, 0xC4, 0x71, 0xA0, 0x36});
    t.scale_dtype = DSV4_E8M0;
    t.scale_bytes = 11;
    t.random.scale_low = 120;
    t.random.scale_range = 3;
    std::vector<uint8_t> data(11), scale(11);
    make_random_bytes(t, data.data(), scale.data());
    CHECK(scale == std::vector<uint8_t>{121, 122, 122, 122, 122, 121, 122, 122, 120, 122, 121});
    t.random.scale_range = 1;
    make_random_bytes(t, data.data(), scale.data());
    CHECK(scale == std::vector<uint8_t>(11, 120));

    t = tensor(DSV4_I64, DSV4_RANDOM_ROWS, 99, 2, 6, 96);
    t.random.range = 256;
    CHECK(made<int64_t>(t) == std::vector<int64_t>{66, 108, 150, 192, 234, 20, 8, 50, 92, 134, 176, 218});
    t = tensor(DSV4_I64, DSV4_RANDOM_ROWS, 99, 3, 3, 72);
    t.random.range = 4;
    CHECK(made<int64_t>(t) == std::vector<int64_t>{1, 2, 3, 0, 1, 2, 3, 0, 1});
}

TEST_CASE("random weights are spread as they are said to be") {
    constexpr int64_t n = 1 << 16;
    dsv4_tensor t = tensor(DSV4_F32, DSV4_RANDOM_NORMAL, 5, n, 1, 4 * n);
    t.random.mean = 3;
    t.random.deviation = 2;
    double sum = 0, squares = 0, within = 0;
    for (const float v : made<float>(t)) {
        sum += v;
        squares += (v - 3.0) * (v - 3.0);
        within += std::abs(v - 3) < 2;
    }
    CHECK(sum / n == Approx(3).margin(0.03)); // four standard errors of 2 / 256
    CHECK(std::sqrt(squares / n) == Approx(2).epsilon(0.01));
    CHECK(within / n == Approx(2.0 / 3).margin(0.01)); // of a sum of three uniform numbers; 0.683 were it normal

    std::vector<int> count(256);
    for (const uint8_t code : made<uint8_t>(tensor(DSV4_FP8_E4M3, DSV4_RANDOM_CODES, 6, n, 1, n))) ++count[code];
    CHECK(count[0x7F] == 0);
    CHECK(count[0xFF] == 0);
    for (int c = 0; c < 256; ++c) {
        INFO("code " << c);
        const double expected = (c & 0x7F) == 0x7F ? 0 : (c & 0x7F) == 0x7E ? 512 : 256;
        CHECK(std::abs(count[size_t(c)] - expected) <= 5 * std::sqrt(expected));
    }
    std::vector<int> nibbles(16);
    for (const uint8_t two : made<uint8_t>(tensor(DSV4_FP4_E2M1, DSV4_RANDOM_CODES, 7, n, 2, n)))
        ++nibbles[two & 15], ++nibbles[two >> 4];
    for (const int c : nibbles) CHECK(std::abs(c - 8192) < 5 * 90);

    t = tensor(DSV4_I64, DSV4_RANDOM_ROWS, 8, 4096, 6, 4096 * 48);
    t.random.range = 256;
    const std::vector<int64_t> table = made<int64_t>(t);
    std::vector<int> uses(256);
    for (size_t i = 0; i < table.size(); i += 6) {
        CHECK(std::set<int64_t>(&table[i], &table[i] + 6).size() == 6);
        for (size_t j = i; j < i + 6; ++j) {
            REQUIRE((table[j] >= 0 && table[j] < 256));
            ++uses[size_t(table[j])];
        }
    }
    for (const int u : uses) CHECK(std::abs(u - 96) < 60);
}

TEST_CASE("what describes no weight is refused") {
    unsigned char out[64];
    const auto refused = [&](dsv4_tensor t) { CHECK_THROWS_AS(make_random_bytes(t, out, out), dsv4::Error); };
    refused(tensor(DSV4_F16, DSV4_RANDOM_NORMAL, 1, 4, 1, 8));
    refused(tensor(DSV4_F32, DSV4_RANDOM_CODES, 1, 4, 1, 16));
    refused(tensor(DSV4_F32, 0, 1, 4, 1, 16));
    dsv4_tensor t = tensor(DSV4_I64, DSV4_RANDOM_ROWS, 1, 2, 3, 48);
    t.random.range = 2; // three different numbers below two
    refused(t);
    t = tensor(DSV4_FP4_E2M1, DSV4_RANDOM_CODES, 1, 1, 32, 16);
    t.scale_dtype = DSV4_E8M0;
    t.scale_bytes = 1;
    t.random.scale_low = 250;
    t.random.scale_range = 6; // 255 is NaN
    refused(t);
    t.random.scale_low = 0;
    t.scale_dtype = DSV4_F32;
    refused(t);
}
