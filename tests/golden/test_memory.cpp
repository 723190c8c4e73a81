// Loading is mmap: what `dsv4 generate` keeps in memory at most, measured on the program itself.
#include <cstdio>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "golden.hpp"
#include "tests/catch.hpp"

using namespace dsv4::test;

namespace {

/// Runs the tool in a child; returns its peak resident bytes.
uint64_t peak_of(const std::vector<std::string> &arguments) {
    std::vector<char *> argv;
    for (const std::string &a : arguments) argv.push_back(const_cast<char *>(a.c_str()));
    argv.push_back(nullptr);
    const pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        const int nothing = open("/dev/null", O_WRONLY);
        dup2(nothing, 1);
        execv(argv[0], argv.data());
        _exit(127);
    }
    int status = 0;
    struct rusage usage {};
    REQUIRE(wait4(child, &status, 0, &usage) == child);
    INFO(arguments[0] << " " << arguments[1] << ": wait status " << status);
    REQUIRE((WIFEXITED(status) && WEXITSTATUS(status) == 0));
    return uint64_t(usage.ru_maxrss) * 1024;
}

} // namespace

TEST_CASE("peak resident memory of generate is the checkpoint and at most 100 MB", "[memory]") {
    auto all = fixtures();
    const auto published = published_vectors();
    all.insert(all.end(), published.begin(), published.end());
    for (const std::string &checkpoint : all) {
        INFO(checkpoint);
        uint64_t size = 0;
        for (const auto &file : std::filesystem::directory_iterator(checkpoint))
            if (file.path().filename() != "vectors.safetensors") size += file.file_size();
        const uint64_t peak = peak_of({DSV4_TOOL, "generate", "--model", checkpoint, "--backend", "reference", "--plugins",
                                       DSV4_PLUGIN_DIR, "--ids", "5 6 7 8 9 10 11 12", "--max-tokens", "8", "--ignore-eos"});
        std::printf("%-12s checkpoint %.1f MB, peak %.1f MB\n", std::filesystem::path(checkpoint).filename().c_str(),
                    double(size) * 1e-6, double(peak) * 1e-6);
        CHECK(peak < size + 100'000'000);
    }
}
