// The published tokenizer and the vectors made with it lie beside the source tree, not in it.
#pragma once
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>

namespace dsv4::test {

inline std::string shared_path(const std::string &name) { return DSV4_SOURCE_DIR "/../shared/" + name; }

/// The file's bytes. Without it, the whole test program says so and exits as ctest's "skipped".
inline std::string read_shared(const std::string &name) {
    std::ifstream file(shared_path(name), std::ios::binary);
    if (!file) {
        std::fprintf(stderr, "SKIPPED: %s is not there; nothing was compared with the published data\n",
                     shared_path(name).c_str());
        std::exit(77);
    }
    std::ostringstream text;
    text << file.rdbuf();
    return text.str();
}

} // namespace dsv4::test
