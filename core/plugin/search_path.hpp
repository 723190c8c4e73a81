// Where plugins are looked for. Nothing here reads the environment: the caller hands the value in.
#pragma once
#include <filesystem>
#include <string_view>
#include <vector>

namespace dsv4 {

/// The folder of the shared library (or program) that this code is linked into; empty when it cannot be found.
std::filesystem::path library_directory();

/// An application that names its folder gets that folder and no other. Otherwise <library_directory>/dsv4/plugins, then
/// the colon-separated folders of `env_value` (DSV4_PLUGIN_PATH; the caller passes "" in a setuid process). Relative
/// folders stay in the list, so that the registry can say why it did not look there.
std::vector<std::filesystem::path> plugin_search_path(std::string_view explicit_dir, std::string_view env_value);

} // namespace dsv4
