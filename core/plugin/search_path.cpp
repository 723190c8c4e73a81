#include "core/plugin/search_path.hpp"
#include <algorithm>
#include <dlfcn.h>
#include <system_error>

namespace dsv4 {
namespace fs = std::filesystem;

fs::path library_directory() {
    static const char here = 0; // any address inside this library will do
    Dl_info info{};
    if (!dladdr(&here, &info) || !info.dli_fname) return {};
    std::error_code ec;
    fs::path file = fs::canonical(info.dli_fname, ec);
    // In a program (not a library) the name is argv[0], which need not be a path at all.
    if (ec) file = fs::canonical("/proc/self/exe", ec);
    return ec ? fs::path() : file.parent_path();
}

std::vector<fs::path> plugin_search_path(std::string_view explicit_dir, std::string_view env_value) {
    if (!explicit_dir.empty()) return {fs::path(explicit_dir)};
    std::vector<fs::path> folders;
    const auto add = [&](const fs::path &folder) {
        if (std::find(folders.begin(), folders.end(), folder) == folders.end()) folders.push_back(folder);
    };
    if (const fs::path own = library_directory(); !own.empty()) add(own / "dsv4" / "plugins");
    while (!env_value.empty()) {
        const size_t colon = std::min(env_value.find(':'), env_value.size());
        if (colon > 0) add(fs::path(env_value.substr(0, colon)));
        env_value.remove_prefix(std::min(colon + 1, env_value.size()));
    }
    return folders;
}

} // namespace dsv4
