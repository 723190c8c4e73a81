// Runs a fuzz target over a folder of inputs, and over damaged copies of each (the same ones every time), without
// libFuzzer: what a fuzzer once found stays found on every compiler.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

namespace {

void run(const std::string &input) {
    // A copy of the exact size, so that a sanitizer sees every byte read past the end.
    const std::vector<uint8_t> exact(input.begin(), input.end());
    LLVMFuzzerTestOneInput(exact.data(), exact.size());
}

std::string damaged(std::string input, std::mt19937 &random) {
    for (unsigned changes = 1 + random() % 3; changes > 0 && !input.empty(); --changes) {
        const size_t at = random() % input.size(), length = std::min<size_t>(input.size() - at, 1 + random() % 8);
        switch (random() % 5) {
        case 0: input[at] = static_cast<char>(random()); break;
        case 1: input.erase(at, length); break;
        case 2: input.insert(at, input.substr(at, length)); break;
        case 3: input.resize(at); break;
        default: input.insert(at, 1, "\"\\[]{}:,0-\xEF"[random() % 11]); break;
        }
    }
    return input;
}

} // namespace

int main(int argc, char **argv) {
    if (argc != 2) {
        std::fprintf(stderr, "usage: %s CORPUS_DIR\n", argv[0]);
        return 2;
    }
    std::vector<std::filesystem::path> files;
    for (const auto &entry : std::filesystem::directory_iterator(argv[1]))
        if (entry.is_regular_file()) files.push_back(entry.path());
    std::sort(files.begin(), files.end());
    if (files.empty()) {
        std::fprintf(stderr, "%s: no inputs\n", argv[1]);
        return 1;
    }
    run("");
    size_t runs = 1;
    for (const auto &path : files) {
        std::ifstream file(path, std::ios::binary);
        const std::string input{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
        run(input);
        std::mt19937 random(static_cast<unsigned>(input.size()));
        for (int i = 0; i < 100; ++i, ++runs) run(damaged(input, random));
    }
    std::printf("%zu files, %zu runs\n", files.size(), runs);
    return 0;
}
