// Small models for tests that go through the C ABI.
#pragma once
#include "tests/support/checkpoint_writer.hpp"
#include <string>

namespace dsv4::test {

/// A path for dsv4_model_load: random weights of tiny_config()'s shapes, made at load. Valid as long as the folder.
inline std::string synthetic_model(const TempDir &folder) {
    const std::string file = folder / "synthetic.json";
    write_file(file, tiny_config().dump());
    return "synthetic:" + file;
}

} // namespace dsv4::test
