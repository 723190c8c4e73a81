// The only file of the library that reads the environment.
#include "core/runtime.hpp"
#include <cstdlib>
#include <sys/auxv.h>
#include "core/json_writer.hpp"
#include "core/model/json_reader.hpp"
#include "core/plugin/device.hpp"

namespace dsv4 {
namespace {

std::string_view plugin_path_of_environment() {
    if (getauxval(AT_SECURE)) return {};  // setuid: somebody else's environment must not choose our code
    const char *value = std::getenv("DSV4_PLUGIN_PATH");
    return value ? value : "";
}

std::string utf8(std::string_view text) { return printable(text, 4096); }

void describe_device(JsonWriter &json, const dsv4_backend &table, uint32_t index) {
    dsv4_device_options options;
    DSV4_INIT(options);
    options.index = index;
    const Device device(table, options);
    const dsv4_device_info &info = device.info();
    json.begin_object().member("name", utf8(info.name)).member("variant", utf8(info.variant)).member("threads", info.threads);
    json.key("capabilities").begin_array();
    for (const auto &[bit, name] : {std::pair<uint32_t, const char *>{DSV4_CAP_ROW_INDEPENDENT, "row_independent"},
                                    {DSV4_CAP_EXACT, "exact"},
                                    {DSV4_CAP_OFFICIAL, "official"},
                                    {DSV4_CAP_MAPPED_WEIGHTS, "mapped_weights"},
                                    {DSV4_CAP_DISK_EXPERTS, "disk_experts"},
                                    {DSV4_CAP_RANDOM_WEIGHTS, "random_weights"}})
        if (info.capabilities & bit) json.value(name);
    if (device.has_mtp()) json.value("drafts");
    if (device.layer) json.value("fused_layers");
    json.end_array();
    json.member("memory_total", info.memory_total).member("memory_free", info.memory_free).end_object();
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
    if (options.plugin_dir.size && options.plugin_dir.data[0] != '/')
        throw Error(DSV4_E_INVALID, "plugin_dir: expected an absolute path, found " +
                                        printable({options.plugin_dir.data, options.plugin_dir.size}));
    const std::string folder = options.plugin_dir.size ? std::string(options.plugin_dir.data, options.plugin_dir.size) : "";
    registry_ = std::make_unique<PluginRegistry>(
        plugin_search_path(folder, plugin_path_of_environment()),
        [log = log_](int32_t level, std::string_view text) { log->line(level, text); });
    for (const auto &f : registry_->failures())
        log_->line(DSV4_LOG_WARNING, "plugin not loaded: " + f.manifest + ": " + f.reason);
    log_->own(options.log_release);  // last: a runtime that could not be made owns nothing
}

std::string Runtime::backends_json() const {
    JsonWriter json;
    json.begin_object().key("backends").begin_array();
    for (const LoadedBackend &b : registry_->backends()) {
        json.begin_object()
            .member("name", utf8(b.name))
            .member("build", utf8(b.build))
            .member("manifest", utf8(b.manifest))
            .member("devices", b.devices)
            .member("score", b.score);
        if (!b.why_not.empty()) json.member("why_not", utf8(b.why_not));
        json.key("device").begin_array();
        for (uint32_t i = 0; b.score && i < b.devices; ++i) try {
                JsonWriter device;
                describe_device(device, *b.table, i);
                json.raw(device.take());
            } catch (const Error &e) {
                json.begin_object().member("error", utf8(e.what())).end_object();
            }
        json.end_array().end_object();
    }
    json.end_array().key("failures").begin_array();
    for (const PluginFailure &f : registry_->failures())
        json.begin_object().member("manifest", utf8(f.manifest)).member("reason", utf8(f.reason)).end_object();
    json.end_array().end_object();
    return json.take();
}

}  // namespace dsv4
