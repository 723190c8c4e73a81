// The plugin's only export, and its one device: the processors that this process may use.
#include "backends/cpu/cpu_features.hpp"
#include "backends/cpu/expert_store.hpp"
#include "backends/cpu/formats.hpp"
#include "backends/cpu/machine.hpp"
#include "backends/cpu/objects.hpp"
#include "backends/cpu/onednn.hpp"
#include <unistd.h>
#include <cstdio>
#include <cstring>

namespace dsv4::cpu {

namespace {

dsv4_host host_log = {}; // the last host's

double part(uint64_t n, uint64_t of) { return of ? 100.0 * double(n) / double(of) : 0.0; }

dsv4_status probe(uint32_t *devices, uint32_t *score, dsv4_error *err) {
    return boundary(err, [&] {
        *devices = 1;
        *score = 10; // every machine has one: any accelerator that works is preferred
    });
}

const Variant &choose(const Variants &all, const std::string &wanted) {
    const Variant *best = nullptr;
    std::string known;
    for (int i = 0; i < all.count; ++i) {
        const Variant &v = all.list[i];
        known += std::string(i ? ", " : "") + v.name + (v.usable ? "" : " (not on this processor)");
        if (wanted.empty() ? v.usable && !v.by_name_only : wanted == v.name) best = &v;
    }
    if (!best) throw Error(DSV4_E_UNSUPPORTED, "cpu: no variant '" + wanted + "'; there are " + known);
    if (!best->usable)
        throw Error(DSV4_E_UNSUPPORTED, "cpu: variant '" + wanted + "' needs instructions that this processor or "
                                        "its operating system does not offer; there are " + known);
    return *best;
}

dsv4_status device_open(const dsv4_device_options *given, dsv4_device **out, dsv4_error *err) {
    *out = nullptr;
    return boundary(err, [&] {
        const dsv4_device_options o = read_sized(given, "dsv4_device_options");
        if (o.index) throw Error(DSV4_E_INVALID, "cpu: device " + std::to_string(o.index) + ": there is one, number 0");
        if (o.flags & ~uint32_t(DSV4_DEVICE_PIN_THREADS))
            throw Error(DSV4_E_UNSUPPORTED, "cpu: device flags " + std::to_string(o.flags) + " are not known");
        if (o.threads < 0 || o.threads > 1024)
            throw Error(DSV4_E_INVALID, "cpu: " + std::to_string(o.threads) + " threads; 0 to 1024 were expected");
        if (o.numerics < DSV4_NUMERICS_DEFAULT || o.numerics > DSV4_NUMERICS_NATIVE)
            throw Error(DSV4_E_UNSUPPORTED, "cpu: numerics " + std::to_string(o.numerics) + " is not known");
        if (o.repack_folder.size)
            log_line(1, "cpu: repack_folder is not used: this backend computes on the checkpoint's own bytes; nothing "
                        "is repacked and nothing was written there");
        const Variants all = variants();
        auto device = std::make_unique<dsv4_device>();
        const std::string wanted(o.variant.data ? o.variant.data : "", o.variant.size);
        const Variant &variant = choose(all, wanted); // a temporary here: -Wdangling-reference of g++ 14
        device->kernels = variant.kernels();
        device->numerics = o.numerics == DSV4_NUMERICS_DEFAULT ? int32_t(DSV4_NUMERICS_NATIVE) : o.numerics;
        device->capabilities =
            DSV4_CAP_ROW_INDEPENDENT | DSV4_CAP_EXACT | DSV4_CAP_OFFICIAL | DSV4_CAP_MAPPED_WEIGHTS | DSV4_CAP_DISK_EXPERTS;
        device->store = std::make_unique<ExpertStore>(o.expert_budget, log_line);
        device->tables = std::make_unique<Tables>();
        fill_tables(*device->tables);
        std::vector<int> processors; // node by node, so that neighbouring parts share one
        if (o.flags & DSV4_DEVICE_PIN_THREADS) {
            const Nodes nodes = memory_nodes();
            std::vector<int> ids;
            for (const Node &node : nodes) {
                processors.insert(processors.end(), node.processors.begin(), node.processors.end());
                ids.insert(ids.end(), node.processors.size(), node.id);
            }
            for (int i = 0; i < (o.threads ? o.threads : usable_processors()) && nodes.size() > 1; ++i)
                device->node_of_part.push_back(ids[size_t(i) % ids.size()]);
        }
        device->pool = std::make_unique<Pool>(o.threads ? o.threads : usable_processors(), std::move(processors),
                                              kernel_scratch_bytes);
        if (variant.by_name_only) { // oneDNN sums in an order of its own, which depends on the number of rows
            device->capabilities &= ~uint32_t(DSV4_CAP_ROW_INDEPENDENT);
            for (int i = 0; i < device->pool->threads(); ++i) device->libraries.push_back(onednn_state());
        }
        *out = device.release();
    });
}

void device_close(dsv4_device *device) {
    if (!device) return;
    const StoreCounts c = device->store->counts();
    if (const uint64_t all = c.held + c.ahead + c.demanded) {
        char line[200];
        std::snprintf(line, sizeof line,
                      "cpu: experts on disk: %llu used, %.1f %% from memory, %.1f %% read ahead; %.1f GB read, "
                      "%.1f s waited",
                      static_cast<unsigned long long>(all), part(c.held, all), part(c.ahead, all),
                      double(c.bytes_read) * 1e-9, double(c.waited_ns) * 1e-9);
        log_line(2, line);
    }
    delete device;
}

dsv4_status device_query(dsv4_device *device, dsv4_device_info *info, dsv4_error *err) {
    return boundary(err, [&] {
        dsv4_device_info i;
        DSV4_INIT(i);
        i.capabilities = device->capabilities;
        i.numerics = device->numerics;
        i.threads = device->pool->threads();
        const auto page = uint64_t(sysconf(_SC_PAGESIZE));
        i.memory_total = uint64_t(sysconf(_SC_PHYS_PAGES)) * page;
        const uint64_t available = available_memory();
        i.memory_free = available ? available : uint64_t(sysconf(_SC_AVPHYS_PAGES)) * page;
        const StoreCounts c = device->store->counts();
        i.expert_hits = c.held;
        i.expert_ahead = c.ahead;
        i.expert_misses = c.demanded;
        i.expert_bytes_read = c.bytes_read;
        i.expert_wait_ns = c.waited_ns;
        std::snprintf(i.name, sizeof i.name, "CPU, %d threads", i.threads);
        std::snprintf(i.variant, sizeof i.variant, "%s", device->kernels->name);
        write_sized(info, i, "dsv4_device_info");
    });
}

const void *ops(dsv4_device *, uint32_t family) {
    switch (family) {
    case DSV4_FAMILY_MEMORY: return &memory_ops;
    case DSV4_FAMILY_MODEL: return &model_ops;
    case DSV4_FAMILY_ENDS: return &ends_ops;
    case DSV4_FAMILY_HC: return &hc_ops;
    case DSV4_FAMILY_ATTENTION: return &attention_ops;
    case DSV4_FAMILY_MOE: return &moe_ops;
    case DSV4_FAMILY_MTP: return &mtp_ops;
    }
    return nullptr;
}

void shutdown() { host_log = {}; } // threads end with their device

const dsv4_backend backend = {sizeof(dsv4_backend), DSV4_BACKEND_ABI, "cpu", DSV4_CPU_BUILD, probe, device_open,
                              device_close, device_query, ops, shutdown};

void keep_host(const dsv4_host *host) {
    if (host && DSV4_HAS(host, log)) host_log = *host;
}

} // namespace

void log_line(int32_t level, const std::string &line) {
    if (host_log.log) host_log.log(host_log.self, level, {line.data(), line.size()});
}

dsv4_status enter(uint32_t abi_min, uint32_t abi_max, const dsv4_host *host, const dsv4_backend **out, dsv4_error *err) {
    *out = nullptr;
    if (abi_min > DSV4_BACKEND_ABI || abi_max < DSV4_BACKEND_ABI)
        return report(err, DSV4_E_UNSUPPORTED, 0, "cpu: this plugin speaks ABI 1 only");
    keep_host(host);
    *out = &backend;
    return DSV4_OK;
}

} // namespace dsv4::cpu

dsv4_device::dsv4_device() = default;
dsv4_device::~dsv4_device() = default;

extern "C" DSV4_BACKEND_EXPORT dsv4_status dsv4_backend_entry(uint32_t abi_min, uint32_t abi_max, const dsv4_host *host,
                                                              const dsv4_backend **out, dsv4_error *err) {
    return dsv4::cpu::enter(abi_min, abi_max, host, out, err);
}
