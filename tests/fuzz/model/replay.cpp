// Runs a fuzz target over its seeds and a few thousand mutations of them: always the same ones, so that a failure can
// be repeated anywhere, without libFuzzer.
#include <algorithm>
#include <iterator>

#include "tests/catch.hpp"
#include "tests/fuzz/model/fuzz_target.hpp"

namespace {

struct Random { // xorshift64
    uint64_t x;
    uint64_t operator()() {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        return x;
    }
};

void mutate(std::string &s, Random &random) {
    static const char *const kPieces[] = {"[", "]", "{", "}",     "\"",   ":",   ",",
                                          "-", "0", "9", "1e999", "null", "\\u", "18446744073709551616"};
    const size_t at = s.empty() ? 0 : random() % s.size();
    switch (random() % 6) {
    case 0:
        if (!s.empty()) s[at] = static_cast<char>(random());
        break;
    case 1: s.erase(at, random() % 9); break;
    case 2: s.insert(at, kPieces[random() % std::size(kPieces)]); break;
    case 3: s.resize(at); break;
    case 4: s.insert(at, s.substr(at, random() % 40)); break;
    default:
        if (!s.empty()) s[at] = static_cast<char>(s[at] ^ (1 << (random() % 8)));
    }
}

void run(const std::string &s) {
    // A copy of exactly this size, so that a sanitizer sees a read past the end.
    const std::vector<uint8_t> bytes(s.begin(), s.end());
    LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
}

} // namespace

TEST_CASE("the fuzz target survives its seeds and their mutations") {
    run("");
    Random random{88172645463325252ull};
    size_t runs = 0;
    for (const std::string &seed : fuzz_seeds()) {
        run(seed);
        for (int i = 0; i < 3000; ++i, ++runs) {
            std::string s = seed;
            for (uint64_t n = random() % 4 + 1; n > 0; --n) mutate(s, random);
            run(s);
        }
    }
    CHECK(runs >= 6000);
}
