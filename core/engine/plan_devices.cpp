#include "core/engine/plan_devices.hpp"
#include <algorithm>
#include "core/engine/capacity.hpp"

namespace dsv4 {
namespace {

/// Sums what the backend would take for one block into d.
void add_block(PlanDevice &d, const Device &device, const dsv4_shape &shape, const BlockWeights &block) {
    uint64_t on_device = 0, on_host = 0, routed = 0, rest = 0;
    for (const dsv4_tensor &t : block.tensors) (t.expert < 0 ? rest : routed) += t.bytes + t.scale_bytes;
    const dsv4_block_desc desc = block.desc(DSV4_TIER_DEVICE);
    call(device.model->block_bytes, device.handle(), &shape, &desc, &on_device, &on_host);
    // A host computes on the mapped bytes and keeps on_host beside them; a device's own bytes include the experts.
    d.experts_bytes += routed;
    d.weights_bytes += d.is_host ? rest + on_host : std::max(on_device, routed) - routed;
}

PlanDevice describe(const LoadedBackend &backend, uint32_t index, const ModelWeights &weights, uint64_t sessions) {
    dsv4_device_options options;
    DSV4_INIT(options);
    options.index = index;
    const Device device(*backend.table, options);
    const dsv4_shape &shape = weights.config().shape;
    PlanDevice d;
    d.name = device.info().name;
    d.backend = backend.name;
    d.memory_total = device.info().memory_total;
    d.memory_free = device.info().memory_free;
    d.is_host = device.info().capabilities & DSV4_CAP_MAPPED_WEIGHTS;
    std::vector<int32_t> ratios;
    add_block(d, device, shape, weights.ends);
    const auto add = [&](const BlockWeights &block) {
        add_block(d, device, shape, block);
        ratios.push_back(block.compress_ratio);
    };
    for (const BlockWeights &block : weights.layers) add(block);
    if (device.has_mtp())
        for (const BlockWeights &block : weights.mtp) add(block);
    dsv4_model_options load;
    DSV4_INIT(load);
    load.max_sessions = uint32_t(std::min<uint64_t>(sessions, 4096));
    const Capacity capacity = choose_capacity(weights.config(), ratios, load);
    const CacheBytes cache = cache_bytes(device, shape, ratios, capacity.cache);
    d.slot_bytes = cache.per_slot;
    d.block_bytes = cache.per_block;
    d.block_tokens = uint64_t(capacity.cache.block_tokens);
    return d;
}

}  // namespace

std::vector<PlanDevice> devices_for_plan(const Runtime &runtime, const std::string &backend, const ModelWeights &weights,
                                         uint64_t sessions) {
    std::vector<PlanDevice> devices;
    if (!backend.empty()) runtime.registry().select(backend);  // a name that is not there is an error
    for (const LoadedBackend &b : runtime.registry().backends()) {
        if ((!backend.empty() && b.name != backend) || !b.score) continue;
        for (uint32_t i = 0; i < b.devices; ++i) try {
                devices.push_back(describe(b, i, weights, sessions));
            } catch (const Error &e) {
                runtime.log().line(DSV4_LOG_WARNING, "plan: " + b.name + ", device " + std::to_string(i) + ": " + e.what());
            }
    }
    return devices;
}

}  // namespace dsv4
