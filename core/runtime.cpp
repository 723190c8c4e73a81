// The only file of the library that reads the environment.
#include "core/runtime.hpp"
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <sys/auxv.h>
#include "core/plugin/device.hpp"

namespace dsv4 {
namespace {

std::string_view plugin_path_of_environment() {
    if (getauxval(AT_SECURE)) return {};  // setuid: somebody else's environment must not choose our code
    const char *value = std::getenv("DSV4_PLUGIN_PATH");
    return value ? value : "";
}

nlohmann::json describe_device(const dsv4_backend &table, uint32_t index) {
    dsv4_device_options options;
    DSV4_INIT(options);
    options.index = index;
    const Device device(table, options);
    const dsv4_device_info &info = device.info();
    nlohmann::json capabilities = nlohmann::json::array();
    for (const auto &[bit, name] : {std::pair<uint32_t, const char *>{DSV4_CAP_ROW_INDEPENDENT, "row_independent"},
                                    {DSV4_CAP_EXACT, "exact"},
                                    {DSV4_CAP_OFFICIAL, "official"},
                                    {DSV4_CAP_MAPPED_WEIGHTS, "mapped_weights"},
                                    {DSV4_CAP_DISK_EXPERTS, "disk_experts"}})
        if (info.capabilities & bit) capabilities.push_back(name);
    if (device.has_mtp()) capabilities.push_back("drafts");
    if (device.layer) capabilities.push_back("fused_layers");
    return {{"name", info.name}, {"variant", info.variant}, {"threads", info.threads}, {"capabilities", capabilities},
            {"memory_total", info.memory_total}, {"memory_free", info.memory_free}};
}

}  // namespace

Log::Log(const dsv4_runtime_options &o) : log_(o.log), user_data_(o.log_user_data) {}

void Log::own(void (*release)(void *)) {
    const std::lock_guard lock(mutex_);
    release_ = release;
}

void Log::line(int32_t level, std::string_view text) {
    const std::lock_guard lock(mutex_);
    if (log_) log_(user_data_, level, {text.data(), text.size()});
}

void Log::close() {
    const std::lock_guard lock(mutex_);
    log_ = nullptr;
    if (release_) std::exchange(release_, nullptr)(user_data_);
}

Runtime::Runtime(const dsv4_runtime_options &options) : log_(std::make_shared<Log>(options)) {
    if (options.flags) throw Error(DSV4_E_UNSUPPORTED, "runtime flags: expected 0, found " + std::to_string(options.flags));
    const std::string folder = options.plugin_dir.size ? std::string(options.plugin_dir.data, options.plugin_dir.size) : "";
    registry_ = std::make_unique<PluginRegistry>(
        plugin_search_path(folder, plugin_path_of_environment()),
        [log = log_](int32_t level, std::string_view text) { log->line(level, text); });
    for (const auto &f : registry_->failures())
        log_->line(DSV4_LOG_WARNING, "plugin not loaded: " + f.manifest + ": " + f.reason);
    log_->own(options.log_release);  // last: a runtime that could not be made owns nothing
}

std::string Runtime::backends_json() const {
    nlohmann::json out = {{"backends", nlohmann::json::array()}, {"failures", nlohmann::json::array()}};
    for (const LoadedBackend &b : registry_->backends()) {
        nlohmann::json entry = {{"name", b.name}, {"build", b.build}, {"manifest", b.manifest},
                                {"devices", b.devices}, {"score", b.score}};
        if (!b.why_not.empty()) entry["why_not"] = b.why_not;
        nlohmann::json devices = nlohmann::json::array();
        for (uint32_t i = 0; b.score && i < b.devices; ++i) try {
                devices.push_back(describe_device(*b.table, i));
            } catch (const Error &e) {
                devices.push_back({{"error", e.what()}});
            }
        entry["device"] = devices;
        out["backends"].push_back(entry);
    }
    for (const PluginFailure &f : registry_->failures())
        out["failures"].push_back({{"manifest", f.manifest}, {"reason", f.reason}});
    return out.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace dsv4
