// What a plugin says about itself before anything of it runs: dsv4-NAME.json beside its library.
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace dsv4 {

struct Manifest {
    std::filesystem::path path; // of the manifest; absolute
    std::string name;           // what dsv4_backend::name must say too
    std::string version;        // the plugin's own
    std::string library;        // a file name in the manifest's folder, never a path
    uint32_t abi_min = 0, abi_max = 0;
    std::string arch;                      // "x86_64", "aarch64"
    std::vector<std::string> cpu_features; // all needed before the library may be opened

    std::filesystem::path library_path() const { return path.parent_path() / library; }
};

/// `where` is used in messages and to find the library. Throws Error.
Manifest parse_manifest(std::string_view text, const std::filesystem::path &where);

/// Reads at most 64 KiB; a manifest is a few hundred bytes.
Manifest read_manifest(const std::filesystem::path &path);

} // namespace dsv4
