// The names in a folder. Not std::filesystem::directory_iterator: libstdc++ allocates inside a noexcept function of it,
// which ends the process when memory is short.
#pragma once
#include <cerrno>
#include <dirent.h>
#include <memory>
#include <string>
#include <vector>

namespace dsv4 {

/// Unsorted, "." and ".." included. Returns 0 or errno.
inline int list_folder(const std::string &folder, std::vector<std::string> &names) {
    const std::unique_ptr<DIR, int (*)(DIR *)> entries(::opendir(folder.c_str()), ::closedir);
    if (!entries) return errno;
    while (const dirent *entry = ::readdir(entries.get())) names.emplace_back(entry->d_name);
    return 0;
}

} // namespace dsv4
