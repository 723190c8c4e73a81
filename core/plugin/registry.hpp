// The backends that one runtime found, and why it did not take the others.
#pragma once
#include "core/plugin/loader.hpp"
#include "core/plugin/search_path.hpp"
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace dsv4 {

struct LoadedBackend {
    const dsv4_backend *table = nullptr;
    std::string name, build;
    std::string manifest; // path
    uint32_t devices = 0, score = 0;
    std::string why_not; // the backend's own words; not empty when score is 0
};

struct PluginFailure {
    std::string manifest; // path; of the folder, when the folder was the trouble
    std::string reason;
};

/// Reads every dsv4-*.json of the folders in order (sorted by name inside a folder), loads and probes what fits. A bad
/// plugin costs nobody else anything: it becomes a PluginFailure. Of two plugins with one name the first that loads
/// wins. All backend objects must be gone before the registry is.
class PluginRegistry {
  public:
    PluginRegistry(std::vector<std::filesystem::path> folders, LogSink log);
    ~PluginRegistry();
    PluginRegistry(const PluginRegistry &) = delete;
    PluginRegistry &operator=(const PluginRegistry &) = delete;

    const std::vector<LoadedBackend> &backends() const { return backends_; }
    const std::vector<PluginFailure> &failures() const { return failures_; }

    /// "" = the highest score, the first found of equals. Throws Error saying what was found and why the rest was not.
    const LoadedBackend &select(std::string_view name) const;

  private:
    void scan(const std::filesystem::path &folder);
    void load(const std::filesystem::path &manifest);

    LogSink log_; // outlives handles_
    std::vector<PluginHandle> handles_;
    std::vector<LoadedBackend> backends_;
    std::vector<PluginFailure> failures_;
};

} // namespace dsv4
