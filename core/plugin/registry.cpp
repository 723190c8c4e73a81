#include "core/plugin/registry.hpp"
#include "core/error.hpp"
#include "core/folder.hpp"
#include <algorithm>
#include <new>
#include <system_error>
#include <utility>

namespace dsv4 {
namespace fs = std::filesystem;
namespace {

bool is_manifest(const fs::path &file) {
    const std::string name = file.filename().string();
    return name.size() > 10 && name.rfind("dsv4-", 0) == 0 && file.extension() == ".json";
}

void probe(LoadedBackend &backend) {
    dsv4_error err;
    DSV4_INIT(err);
    const dsv4_status status = backend.table->probe(&backend.devices, &backend.score, &err);
    err.message[sizeof err.message - 1] = '\0';
    if (status < 0) backend.score = 0;
    if (backend.score == 0) {
        backend.devices = 0;
        backend.why_not = err.message[0] ? err.message : "the backend gave no reason";
    }
}

} // namespace

PluginRegistry::PluginRegistry(std::vector<fs::path> folders, LogSink log) : log_(std::move(log)) {
    for (const fs::path &folder : folders) scan(folder);
}

PluginRegistry::~PluginRegistry() = default;

void PluginRegistry::scan(const fs::path &folder) {
    const auto fail = [&](const char *why) { failures_.push_back({folder.string(), why}); };
    // A relative folder would mean whatever the current directory happens to be: a way to load strangers' code.
    if (!folder.is_absolute()) return fail("not an absolute path; not searched");
    std::vector<std::string> names;
    if (const int code = list_folder(folder.string(), names))
        return fail(("folder cannot be read: " + std::generic_category().message(code)).c_str());
    std::vector<fs::path> manifests;
    for (const std::string &name : names)
        if (fs::path file = folder / name; is_manifest(file)) manifests.push_back(std::move(file));
    std::sort(manifests.begin(), manifests.end());
    for (const fs::path &manifest : manifests) load(manifest);
}

void PluginRegistry::load(const fs::path &path) {
    try {
        const Manifest manifest = read_manifest(path);
        const auto taken = std::find_if(backends_.begin(), backends_.end(),
                                        [&](const LoadedBackend &b) { return b.name == manifest.name; });
        if (taken != backends_.end())
            throw Error(DSV4_E_INVALID,
                        "a backend named \"" + manifest.name + "\" is already loaded from " + taken->manifest);
        PluginHandle handle(manifest, log_);
        LoadedBackend backend;
        backend.table = handle.table();
        backend.name = manifest.name;
        backend.build = handle.table()->build ? handle.table()->build : "";
        backend.manifest = path.string();
        probe(backend);
        handles_.push_back(std::move(handle));
        backends_.push_back(std::move(backend));
    } catch (const std::bad_alloc &) { // says nothing about the plugin
        throw;
    } catch (const std::exception &e) {
        failures_.push_back({path.string(), e.what()});
        if (log_) log_(1, path.filename().string() + ": " + e.what());
    }
}

const LoadedBackend &PluginRegistry::select(std::string_view name) const {
    const LoadedBackend *best = nullptr;
    for (const LoadedBackend &backend : backends_) {
        if (!name.empty() && backend.name == name) {
            if (backend.score == 0)
                throw Error(DSV4_E_DEVICE, "backend \"" + backend.name + "\" cannot run here: " + backend.why_not);
            return backend;
        }
        if (name.empty() && backend.score > 0 && (!best || backend.score > best->score)) best = &backend;
    }
    if (best) return *best;

    // What was asked for comes first, then what there is, then what failed: the message has room for 239 bytes only.
    std::string why = name.empty() ? "no backend can run here" : "no backend \"" + std::string(name) + "\"";
    why += backends_.empty() ? "; none loaded" : "; loaded:";
    for (const LoadedBackend &backend : backends_)
        why += " " + backend.name + (backend.score ? "" : " (" + backend.why_not + ")");
    for (const PluginFailure &failure : failures_) {
        const fs::path file = failure.manifest;
        why += "; " + (is_manifest(file) ? file.filename().string() : failure.manifest) + ": " + failure.reason;
    }
    throw Error(DSV4_E_UNSUPPORTED, why);
}

} // namespace dsv4
