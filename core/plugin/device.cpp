#include "core/plugin/device.hpp"

namespace dsv4 {
namespace {

/// A table whose last required function is within the peer's struct_size, with no slot of ours left empty.
template <class Ops> const Ops *table(const dsv4_backend &backend, dsv4_device *device, uint32_t family, bool required) {
    const auto *ops = static_cast<const Ops *>(backend.ops(device, family));
    const std::string what = std::string(backend.name) + ": operator family " + std::to_string(family);
    if (!ops) {
        if (!required) return nullptr;
        throw Error(DSV4_E_UNSUPPORTED, what + " is required and not offered");
    }
    if (ops->struct_size < sizeof(Ops))
        throw Error(DSV4_E_UNSUPPORTED, what + ": table of " + std::to_string(ops->struct_size) + " bytes, expected " +
                                            std::to_string(sizeof(Ops)));
    const auto *slots = reinterpret_cast<void (*const *)()>(reinterpret_cast<const char *>(ops) + 2 * sizeof(uint32_t));
    for (size_t i = 0; i < (sizeof(Ops) - 2 * sizeof(uint32_t)) / sizeof(void *); ++i)
        if (!slots[i]) throw Error(DSV4_E_UNSUPPORTED, what + ": function " + std::to_string(i) + " is NULL");
    return ops;
}

}  // namespace

Device::Device(const dsv4_backend &backend, const dsv4_device_options &options)
    : backend_(backend), name_(backend.name) {
    call(backend.device_open, &options, &device_);
    try {
        DSV4_INIT(info_);
        call(backend.device_query, device_, &info_);
        take_tables();
        dsv4_queue *queue = nullptr;
        call(memory->queue_create, device_, &queue);
        queue_ = Queue(queue, memory->queue_release);
    } catch (...) {
        backend_.device_close(device_);
        throw;
    }
}

Device::~Device() {
    queue_.reset();
    backend_.device_close(device_);
}

dsv4_device_info Device::query() const {
    dsv4_device_info now;
    DSV4_INIT(now);
    call(backend_.device_query, device_, &now);
    return now;
}

void Device::take_tables() {
    memory = table<dsv4_memory_ops>(backend_, device_, DSV4_FAMILY_MEMORY, true);
    model = table<dsv4_model_ops>(backend_, device_, DSV4_FAMILY_MODEL, true);
    ends = table<dsv4_ends_ops>(backend_, device_, DSV4_FAMILY_ENDS, true);
    hc = table<dsv4_hc_ops>(backend_, device_, DSV4_FAMILY_HC, true);
    attention = table<dsv4_attention_ops>(backend_, device_, DSV4_FAMILY_ATTENTION, true);
    moe = table<dsv4_moe_ops>(backend_, device_, DSV4_FAMILY_MOE, true);
    mtp = table<dsv4_mtp_ops>(backend_, device_, DSV4_FAMILY_MTP, false);
    layer = table<dsv4_layer_ops>(backend_, device_, DSV4_FAMILY_LAYER, false);
    graph = table<dsv4_graph_ops>(backend_, device_, DSV4_FAMILY_GRAPH, false);
    sample = table<dsv4_sample_ops>(backend_, device_, DSV4_FAMILY_SAMPLE, false);
}

Buffer Device::buffer(const dsv4_shape &shape, int32_t kind, int32_t rows) const {
    dsv4_buffer *out = nullptr;
    call(memory->buffer_create, device_, &shape, kind, rows, &out);
    return Buffer(out, memory->buffer_release);
}

Block Device::block(const dsv4_shape &shape, const dsv4_block_desc &desc) const {
    dsv4_block *out = nullptr;
    call(model->block_create, device_, &shape, &desc, &out);
    return Block(out, model->block_release);
}

Cache Device::cache(const dsv4_shape &shape, int32_t ratio, const dsv4_cache_desc &desc) const {
    dsv4_cache *out = nullptr;
    call(model->cache_create, device_, &shape, ratio, &desc, &out);
    return Cache(out, model->cache_release);
}

Batch Device::batch(const dsv4_shape &shape, int32_t max_tokens, int32_t max_sequences, int32_t max_blocks) const {
    dsv4_batch *out = nullptr;
    call(model->batch_create, device_, &shape, max_tokens, max_sequences, max_blocks, &out);
    return Batch(out, model->batch_release);
}

DeviceSampler Device::sampler(const dsv4_shape &shape, int32_t max_rows, int32_t max_biases) const {
    dsv4_sampler *out = nullptr;
    call(sample->sampler_create, device_, &shape, max_rows, max_biases, &out);
    return DeviceSampler(out, sample->sampler_release);
}

}  // namespace dsv4
