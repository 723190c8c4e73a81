// The plugin's table and its one export; devices.
#include "backends/gpu/ops.hpp"
#include <algorithm>

#if !defined(DSV4_GPU_BUILD)
#define DSV4_GPU_BUILD "unknown build"
#endif

namespace dsv4::gpu {

#if defined(DSV4_GPU_EMULATED)
const char *const backend_name = "gpu_emulated";
constexpr uint32_t score_of_a_card = 1; // chosen by name only: any other is faster
#elif defined(DSV4_GPU_HIP)
const char *const backend_name = "hip";
#if defined(DSV4_GPU_HIP_ON_NVIDIA)
constexpr uint32_t score_of_a_card = 15; // runs, and is not what an NVIDIA card should run
#else
constexpr uint32_t score_of_a_card = 100;
#endif
#else
const char *const backend_name = "cuda";
constexpr uint32_t score_of_a_card = 100;
#endif

namespace {

#if defined(DSV4_GPU_ARCHITECTURES) // "80 89 90a" or "gfx900 gfx90a"
/// Code for X.Y runs on X.Z with Z >= Y; with a letter, on X.Y alone. AMD's code runs on what it names.
bool runs(const std::string &code, const Properties &p) {
    if (code.compare(0, 3, "gfx") == 0) return code == p.variant;
    const int number = std::stoi(code), major = number / 10, minor = number % 10;
    const bool exact = code.find_first_not_of("0123456789") != std::string::npos;
    return major == p.major && (exact ? minor == p.minor : minor <= p.minor);
}
#endif

/// Why this card cannot run what was compiled, "" when it can.
std::string obstacle(const Properties &p) {
#if defined(DSV4_GPU_ARCHITECTURES)
    const std::string all = DSV4_GPU_ARCHITECTURES;
    for (size_t at = 0; at < all.size();) {
        const size_t end = std::min(all.find(' ', at), all.size());
        if (end > at && runs(all.substr(at, end - at), p)) return "";
        at = end + 1;
    }
    return p.name + " (" + p.variant + ") is none of what this plugin was compiled for: " + all;
#else
    (void)p;
    return "";
#endif
}

} // namespace

dsv4_status probe(uint32_t *devices, uint32_t *score, dsv4_error *err) {
    *devices = *score = 0;
    std::string why = "no device";
    const dsv4_status status = boundary(err, [&] {
        const int count = device_count();
        for (int i = 0; i < count; ++i) {
            const std::string o = obstacle(device_properties(i));
            if (o.empty()) *score = score_of_a_card;
            else why = o;
        }
        *devices = uint32_t(count);
    });
    // No driver is an answer, not a failure: score 0, and err says why.
    if (status < 0) return DSV4_OK;
    if (!*score) report(err, DSV4_E_UNSUPPORTED, 0, why.c_str());
    return DSV4_OK;
}

dsv4_status device_open(const dsv4_device_options *given, dsv4_device **out, dsv4_error *err) {
    *out = nullptr;
    return boundary(err, [&] {
        const dsv4_device_options o = read_sized(given, "dsv4_device_options");
        const int count = device_count();
        if (o.index >= uint32_t(count))
            throw Failure(DSV4_E_INVALID, "device " + std::to_string(o.index) + " of " + std::to_string(count));
        if (o.numerics < DSV4_NUMERICS_DEFAULT || o.numerics > DSV4_NUMERICS_NATIVE)
            throw Failure(DSV4_E_UNSUPPORTED, "numerics " + std::to_string(o.numerics) + " is not known");
        auto device = std::make_unique<dsv4_device>();
        device->index = int(o.index);
        device->numerics = o.numerics == DSV4_NUMERICS_DEFAULT ? int32_t(DSV4_NUMERICS_NATIVE) : o.numerics;
        device->properties = device_properties(device->index);
        if (const std::string why = obstacle(device->properties); !why.empty()) throw Failure(DSV4_E_UNSUPPORTED, why);
        const std::string variant(o.variant.data ? o.variant.data : "", o.variant.size);
        if (Properties &p = device->properties; p.warpgroups && variant + "a" == p.variant)
            p.warpgroups = false, p.variant = variant; // what older cards run
        else if (!variant.empty() && variant != p.variant)
            throw Failure(DSV4_E_UNSUPPORTED, "no variant '" + variant + "'; this card has " + p.variant +
                                                  (p.warpgroups ? ", or without its own letter" : ""));
        {
            const Current current(device->index); // the card answers, and its code is in this plugin
            size_t left = 0, total = 0;
            memory_info(left, total);
        }
        *out = device.release();
    });
}

void device_close(dsv4_device *device) { delete device; }

dsv4_status device_query(dsv4_device *device, dsv4_device_info *info, dsv4_error *err) {
    return on_device(err, *device, [&] {
        dsv4_device_info i;
        DSV4_INIT(i);
        i.capabilities = DSV4_CAP_ROW_INDEPENDENT | DSV4_CAP_EXACT | DSV4_CAP_OFFICIAL | DSV4_CAP_RANDOM_WEIGHTS;
        i.numerics = device->numerics;
        i.threads = device->properties.processors;
        size_t left = 0, total = 0;
        memory_info(left, total);
        i.memory_free = left;
        i.memory_total = total;
        std::snprintf(i.name, sizeof i.name, "%s", device->properties.name.c_str());
        std::snprintf(i.variant, sizeof i.variant, "%s", device->properties.variant.c_str());
        write_sized(info, i, "dsv4_device_info");
    });
}

const void *ops(dsv4_device *, uint32_t family) {
    switch (family) {
    case DSV4_FAMILY_MEMORY: return &memory_ops();
    case DSV4_FAMILY_MODEL: return &model_ops();
    case DSV4_FAMILY_ENDS: return &ends_ops();
    case DSV4_FAMILY_HC: return &hc_ops();
    case DSV4_FAMILY_ATTENTION: return &attention_ops();
    case DSV4_FAMILY_MOE: return &moe_ops();
    case DSV4_FAMILY_MTP: return &mtp_ops();
    case DSV4_FAMILY_GRAPH: return &graph_ops();
    case DSV4_FAMILY_TIMER: return &timer_ops();
    case DSV4_FAMILY_SAMPLE: return &sample_ops();
    }
    return nullptr;
}

const dsv4_attention_ops &attention_ops() {
    static const dsv4_attention_ops table = {sizeof(dsv4_attention_ops),
                                             0,
                                             attention_project,
                                             attention_compress,
                                             attention_select,
                                             attention_attend,
                                             attention_output};
    return table;
}
const dsv4_moe_ops &moe_ops() {
    static const dsv4_moe_ops table = {sizeof(dsv4_moe_ops), 0, moe_route, moe_experts};
    return table;
}

namespace {

void shutdown() {} // no threads, and nothing lives past its objects

const dsv4_backend backend = {sizeof(dsv4_backend), DSV4_BACKEND_ABI, backend_name, DSV4_GPU_BUILD, probe, device_open,
                              device_close,         device_query,     ops,          shutdown};

} // namespace

} // namespace dsv4::gpu

extern "C" DSV4_BACKEND_EXPORT dsv4_status dsv4_backend_entry(uint32_t abi_min, uint32_t abi_max, const dsv4_host *,
                                                              const dsv4_backend **out, dsv4_error *err) {
    *out = nullptr;
    if (abi_min > DSV4_BACKEND_ABI || abi_max < DSV4_BACKEND_ABI)
        return dsv4::gpu::report(err, DSV4_E_UNSUPPORTED, 0, "this plugin speaks plugin ABI 1 only");
    *out = &dsv4::gpu::backend;
    return DSV4_OK;
}
