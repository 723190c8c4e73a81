// Whether a file is a whole shared library of this machine's kind, from its headers alone.
#pragma once
#include <filesystem>

namespace dsv4 {

/// dlopen maps what the headers promise and touches it: a file cut short (a full disk, a broken download) ends the
/// process with SIGBUS instead of an error. Throws Error naming what is wrong; nothing of the file is executed.
void check_shared_library(const std::filesystem::path &path);

} // namespace dsv4
