#include "core/plugin/loader.hpp"
#include "core/error.hpp"
#include "core/plugin/cpu_features.hpp"
#include "core/plugin/elf_check.hpp"
#include <algorithm>
#include <boost/dll/shared_library.hpp>
#include <cstddef>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <vector>

namespace dsv4 {
namespace {

[[noreturn]] void refuse(const std::string &why) { throw Error(DSV4_E_UNSUPPORTED, why); }

std::string range(uint32_t low, uint32_t high) {
    return low == high ? std::to_string(low) : std::to_string(low) + " to " + std::to_string(high);
}

} // namespace

// Of one mapped library, as long as the process lives.
struct PluginHandle::Shared {
    boost::dll::shared_library library;
    dsv4_host host{};
    std::mutex use; // held over entry and shutdown
    int users = 0;
    const dsv4_backend *table = nullptr; // while users > 0
    // Recursive: a sink that calls back into a plugin which logs again must not deadlock.
    std::recursive_mutex sinks_mutex;
    std::vector<const LogSink *> sinks;

    void add(const LogSink *sink) {
        const std::lock_guard lock(sinks_mutex);
        sinks.push_back(sink);
    }
    void remove(const LogSink *sink) { // when it returns, no line is on its way to the sink
        const std::lock_guard lock(sinks_mutex);
        const auto found = std::find(sinks.begin(), sinks.end(), sink);
        if (found != sinks.end()) sinks.erase(found);
    }
    static void log(void *self, int32_t level, dsv4_str line) noexcept {
        auto *shared = static_cast<Shared *>(self);
        try {
            const std::lock_guard lock(shared->sinks_mutex);
            const std::string_view text(line.data ? line.data : "", line.data ? line.size : 0);
            for (size_t i = 0; i < shared->sinks.size(); ++i)
                if (*shared->sinks[i]) (*shared->sinks[i])(level, text);
        } catch (...) { // a line is not worth an exception through a plugin's frames
        }
    }
};

// Never destroyed, and no library is ever closed: its code may still be on some thread's stack or in an atexit list,
// and unmapping CUDA, OpenMP or C++ runtimes is known to crash at exit.
struct PluginHandle::Process {
    std::mutex mutex;
    std::map<const void *, std::unique_ptr<Shared>> by_native_handle;
};

PluginHandle::Process &PluginHandle::process() {
    static Process *const leaked = new Process;
    return *leaked;
}

void check_before_open(const Manifest &manifest) {
    if (manifest.abi_max < host_abi_min || manifest.abi_min > host_abi_max)
        refuse("speaks plugin ABI " + range(manifest.abi_min, manifest.abi_max) + ", this library " +
               range(host_abi_min, host_abi_max));
    if (manifest.arch != host_arch())
        refuse("is for " + manifest.arch + ", this process is " + std::string(host_arch()));
    if (const std::string why = missing_cpu_features(manifest.cpu_features); !why.empty()) refuse(why);
    check_shared_library(manifest.library_path());
}

void check_table(const dsv4_backend *table, std::string_view name) {
    constexpr size_t required = offsetof(dsv4_backend, shutdown) + sizeof(table->shutdown);
    if (!table) refuse("entry returned success and no table");
    if (table->struct_size < required)
        refuse("table has struct_size " + std::to_string(table->struct_size) + ", expected at least " +
               std::to_string(required));
    if (table->abi < host_abi_min || table->abi > host_abi_max)
        refuse("table says ABI " + std::to_string(table->abi) + ", asked for " + range(host_abi_min, host_abi_max));
    if (!table->name) refuse("table has no name");
    if (table->name != name)
        refuse("table is named \"" + std::string(table->name) + "\", the manifest says \"" + std::string(name) + "\"");
    const char *missing = !table->probe          ? "probe"
                          : !table->device_open  ? "device_open"
                          : !table->device_close ? "device_close"
                          : !table->device_query ? "device_query"
                          : !table->ops          ? "ops"
                          : !table->shutdown     ? "shutdown"
                                                 : nullptr;
    if (missing) refuse(std::string("table has no function ") + missing);
}

PluginHandle::PluginHandle(const Manifest &manifest, const LogSink &log) : log_(&log) {
    check_before_open(manifest);

    // now: a missing symbol is an error here, not a crash in the middle of a step. local: two plugins may both carry
    // a symbol of one name. Boost.DLL takes a path without a slash for ./name; ours is absolute.
    const auto mode = boost::dll::load_mode::rtld_now | boost::dll::load_mode::rtld_local;
    boost::dll::shared_library library;
    try {
        library.load(manifest.library_path(), mode);
    } catch (const std::bad_alloc &) {
        throw;
    } catch (const std::exception &e) {
        refuse(std::string("library cannot be loaded: ") + e.what());
    }

    Shared *shared = nullptr;
    {
        Process &all = process();
        const std::lock_guard lock(all.mutex);
        auto &place = all.by_native_handle[library.native()];
        if (!place) {
            place = std::make_unique<Shared>();
            place->library = std::move(library);
            place->host.struct_size = sizeof(dsv4_host);
            place->host.abi = host_abi_max;
            place->host.self = place.get();
            place->host.log = &Shared::log;
        }
        shared = place.get(); // a second open of the same file only counted up in the dynamic loader; it counts down
    }
    if (!shared->library.has(DSV4_BACKEND_ENTRY)) refuse("library does not export " DSV4_BACKEND_ENTRY);

    const std::lock_guard lock(shared->use);
    shared->add(log_);
    try {
        if (shared->users == 0) {
            const auto entry = reinterpret_cast<dsv4_backend_entry_fn>(
                reinterpret_cast<void *>(&shared->library.get<void()>(DSV4_BACKEND_ENTRY)));
            dsv4_error err;
            DSV4_INIT(err);
            const dsv4_backend *table = nullptr;
            const dsv4_status status = entry(host_abi_min, host_abi_max, &shared->host, &table, &err);
            if (status < 0) {
                err.message[sizeof err.message - 1] = '\0';
                throw Error(status,
                            std::string("entry failed (") + std::to_string(status) +
                                "): " + (err.message[0] ? err.message : "it gave no reason"),
                            err.native_code);
            }
            check_table(table, manifest.name);
            shared->table = table;
        } else {
            check_table(shared->table, manifest.name);
        }
        ++shared->users;
    } catch (...) {
        shared->remove(log_);
        throw;
    }
    shared_ = shared;
    table_ = shared->table;
}

PluginHandle::PluginHandle(PluginHandle &&other) noexcept
    : shared_(other.shared_), log_(other.log_), table_(other.table_) {
    other.shared_ = nullptr;
}

PluginHandle::~PluginHandle() {
    if (!shared_) return;
    const std::lock_guard lock(shared_->use);
    if (--shared_->users == 0) {
        shared_->table->shutdown(); // may still log: the sink goes last
        shared_->table = nullptr;
    }
    shared_->remove(log_);
}

} // namespace dsv4
