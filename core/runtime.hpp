// The plugins and the log of one host.
#pragma once
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include "core/plugin/registry.hpp"
#include "dsv4/dsv4.h"

namespace dsv4 {

/// The host's log callback. Shared by all who may log; silent from close() on.
class Log {
  public:
    explicit Log(const dsv4_runtime_options &options);
    /// From here on close() calls the host's log_release. Until then user_data is the host's to free.
    void own(void (*release)(void *));
    ~Log() { close(); }
    void line(int32_t level, std::string_view text);  // [any thread]
    /// Waits for a line that is being written, then lets the callback go.
    void close();

  private:
    std::mutex mutex_;
    void (*log_)(void *, int32_t, dsv4_str);
    void *user_data_;
    void (*release_)(void *) = nullptr;
};

class Runtime {
  public:
    explicit Runtime(const dsv4_runtime_options &options);
    PluginRegistry &registry() const { return *registry_; }
    Log &log() const { return *log_; }

    std::string backends_json() const;

  private:
    std::shared_ptr<Log> log_;
    std::unique_ptr<PluginRegistry> registry_;
};

}  // namespace dsv4

struct dsv4_runtime {
    std::shared_ptr<dsv4::Runtime> runtime;
};
struct dsv4_blob {
    std::string bytes;
};
