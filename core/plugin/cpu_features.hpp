// What this machine's CPU and operating system can do, by the names that manifests use.
#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace dsv4 {

/// "x86_64", "aarch64", ...: the names of Linux's `uname -m`, of this build.
std::string_view host_arch();

/// Empty when the CPU and the operating system (saved registers) have all of them; else why not, in words.
std::string missing_cpu_features(const std::vector<std::string> &needed);

} // namespace dsv4
