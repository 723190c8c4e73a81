// From a manifest to a checked table of functions: the only file that opens shared libraries.
#pragma once
#include "core/plugin/manifest.hpp"
#include "dsv4/dsv4_backend.h"
#include <cstdint>
#include <functional>
#include <string_view>

namespace dsv4 {

/// One line, no newline; level: 0 error, 1 warning, 2 info. From any thread; one line at a time per plugin.
using LogSink = std::function<void(int32_t level, std::string_view line)>;

constexpr uint32_t host_abi_min = 1, host_abi_max = DSV4_BACKEND_ABI;

/// Everything that can be known without running any of the plugin's code: ABI range, arch, CPU features, the library's
/// presence, kind and completeness. Throws Error.
void check_before_open(const Manifest &manifest);

/// Whether a table that an entry handed out may be used as `name`. Throws Error.
void check_table(const dsv4_backend *table, std::string_view name);

/// One registry's hold on one plugin.
///
/// A plugin is mapped once per process however many runtimes load it, and has one static table. So its state here is
/// process-wide, counted by user: the dynamic loader's own state is global, and shutdown() must come after the *last*
/// runtime let go, not after the first. This is the only global of the library; it holds no configuration and no log of
/// anybody who has let go, and entry and shutdown of one plugin never overlap. (Two copies of libdsv4 in one process
/// cannot see each other's counts; shutdown() with live objects of a foreign host is why the ABI asks a plugin to count
/// its own objects.)
///
/// What a plugin logs goes to every registry that holds it: it has no notion of which one a line is for.
class PluginHandle {
  public:
    /// Checks, opens, calls the entry, checks the table. `log` must stay valid until this handle is gone.
    PluginHandle(const Manifest &manifest, const LogSink &log);
    ~PluginHandle();
    PluginHandle(PluginHandle &&other) noexcept;
    PluginHandle &operator=(PluginHandle &&) = delete;

    const dsv4_backend *table() const { return table_; }

  private:
    struct Shared;
    struct Process;
    static Process &process();

    Shared *shared_ = nullptr;
    const LogSink *log_ = nullptr;
    const dsv4_backend *table_ = nullptr;
};

} // namespace dsv4
