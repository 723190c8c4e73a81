#include "driver.hpp"

namespace dsv4::conformance {
namespace {

template <class Table> const Table *table(const dsv4_backend *backend, dsv4_device *device, uint32_t family) {
    return static_cast<const Table *>(backend->ops(device, family));
}

#define DSV4_REQUIRE(family, fn)                                                                                       \
    do {                                                                                                               \
        if (!DSV4_HAS(family, fn)) missing += " " #family "." #fn;                                                     \
    } while (0)

} // namespace

int64_t buffer_width(const dsv4_shape &s, int32_t kind) {
    const int64_t M = s.streams;
    switch (kind) {
    case DSV4_BUFFER_STREAMS: return M * s.hidden;
    case DSV4_BUFFER_HIDDEN: return s.hidden;
    case DSV4_BUFFER_MIX: return M + M * M;
    case DSV4_BUFFER_QUERY: return static_cast<int64_t>(s.heads) * s.head_dim;
    case DSV4_BUFFER_QUERY_LORA: return s.q_lora;
    case DSV4_BUFFER_SELECTION: return s.index_topk;
    case DSV4_BUFFER_ROUTE: return 2 * static_cast<int64_t>(s.active_experts);
    default: return s.vocab;
    }
}

Device::Device(const dsv4_backend *backend, const DeviceChoice &choice) : backend_(backend) {
    dsv4_device_options options;
    DSV4_INIT(options);
    options.index = choice.index;
    options.numerics = choice.numerics;
    options.threads = choice.threads;
    options.variant = {choice.variant.data(), choice.variant.size()};
    expect("device_open", [&](dsv4_error *err) { return backend->device_open(&options, &device, err); });
    try {
        DSV4_INIT(info_);
        expect("device_query", [&](dsv4_error *err) { return backend->device_query(device, &info_, err); });
        memory = table<dsv4_memory_ops>(backend, device, DSV4_FAMILY_MEMORY);
        model = table<dsv4_model_ops>(backend, device, DSV4_FAMILY_MODEL);
        ends = table<dsv4_ends_ops>(backend, device, DSV4_FAMILY_ENDS);
        hc = table<dsv4_hc_ops>(backend, device, DSV4_FAMILY_HC);
        attention = table<dsv4_attention_ops>(backend, device, DSV4_FAMILY_ATTENTION);
        moe = table<dsv4_moe_ops>(backend, device, DSV4_FAMILY_MOE);
        mtp = table<dsv4_mtp_ops>(backend, device, DSV4_FAMILY_MTP);
        layer = table<dsv4_layer_ops>(backend, device, DSV4_FAMILY_LAYER);
        sample = table<dsv4_sample_ops>(backend, device, DSV4_FAMILY_SAMPLE);
        if (mtp && !DSV4_HAS(mtp, join)) mtp = nullptr;
        if (layer && !DSV4_HAS(layer, layer)) layer = nullptr;
        if (!memory || !model || !ends || !hc || !attention || !moe)
            throw CallFailed(DSV4_E_UNSUPPORTED, "a required operator family is not offered");
        if (sample && !(DSV4_HAS(sample, sampler_create) && DSV4_HAS(sample, sampler_release) &&
                        DSV4_HAS(sample, set) && DSV4_HAS(sample, sample) && DSV4_HAS(sample, read)))
            sample = nullptr;
        std::string missing;
        DSV4_REQUIRE(memory, queue_create);
        DSV4_REQUIRE(memory, queue_release);
        DSV4_REQUIRE(memory, queue_wait);
        DSV4_REQUIRE(memory, buffer_create);
        DSV4_REQUIRE(memory, buffer_release);
        DSV4_REQUIRE(memory, buffer_write);
        DSV4_REQUIRE(memory, buffer_read);
        DSV4_REQUIRE(memory, buffer_copy);
        DSV4_REQUIRE(model, block_bytes);
        DSV4_REQUIRE(model, block_create);
        DSV4_REQUIRE(model, block_release);
        DSV4_REQUIRE(model, cache_bytes);
        DSV4_REQUIRE(model, cache_create);
        DSV4_REQUIRE(model, cache_release);
        DSV4_REQUIRE(model, cache_read);
        DSV4_REQUIRE(model, batch_create);
        DSV4_REQUIRE(model, batch_release);
        DSV4_REQUIRE(model, batch_set);
        DSV4_REQUIRE(ends, embed);
        DSV4_REQUIRE(ends, head);
        DSV4_REQUIRE(hc, pre);
        DSV4_REQUIRE(hc, post);
        DSV4_REQUIRE(attention, project);
        DSV4_REQUIRE(attention, compress);
        DSV4_REQUIRE(attention, select);
        DSV4_REQUIRE(attention, attend);
        DSV4_REQUIRE(attention, output);
        DSV4_REQUIRE(moe, route);
        DSV4_REQUIRE(moe, experts);
        if (!missing.empty()) throw CallFailed(DSV4_E_UNSUPPORTED, "required functions are missing:" + missing);
        expect("queue_create", [&](dsv4_error *err) { return memory->queue_create(device, &queue, err); });
    } catch (...) {
        backend->device_close(device);
        throw;
    }
}

Device::~Device() {
    memory->queue_release(queue);
    backend_->device_close(device);
}

Buffer Device::buffer(const dsv4_shape &shape, int32_t kind, int32_t rows) const {
    dsv4_buffer *out = nullptr;
    expect("buffer_create", [&](dsv4_error *e) { return memory->buffer_create(device, &shape, kind, rows, &out, e); });
    return Buffer(out, memory->buffer_release);
}

Block Device::block(const dsv4_shape &shape, const dsv4_block_desc &desc) const {
    dsv4_block *out = nullptr;
    expect("block_create", [&](dsv4_error *err) { return model->block_create(device, &shape, &desc, &out, err); });
    return Block(out, model->block_release);
}

Cache Device::cache(const dsv4_shape &shape, int32_t ratio, const dsv4_cache_desc &desc) const {
    dsv4_cache *out = nullptr;
    expect("cache_create", [&](dsv4_error *e) { return model->cache_create(device, &shape, ratio, &desc, &out, e); });
    return Cache(out, model->cache_release);
}

Batch Device::batch(const dsv4_shape &shape, int32_t tokens, int32_t sequences, int32_t blocks) const {
    dsv4_batch *out = nullptr;
    expect("batch_create",
           [&](dsv4_error *err) { return model->batch_create(device, &shape, tokens, sequences, blocks, &out, err); });
    return Batch(out, model->batch_release);
}

void Device::set(dsv4_batch *batch, const dsv4_step &step) const {
    expect("batch_set", [&](dsv4_error *err) { return model->batch_set(queue, batch, &step, err); });
}

void Device::write(dsv4_buffer *buffer, int32_t rows, const std::vector<float> &values) const {
    expect("buffer_write",
           [&](dsv4_error *err) { return memory->buffer_write(queue, buffer, 0, rows, values.data(), err); });
}

std::vector<float> Device::read(const dsv4_buffer *buffer, int32_t rows, int64_t width) const {
    std::vector<float> values(static_cast<size_t>(rows * width));
    expect("buffer_read",
           [&](dsv4_error *err) { return memory->buffer_read(queue, buffer, 0, rows, values.data(), err); });
    return values;
}

std::vector<float> Device::read_cache(const dsv4_cache *cache, int32_t part, int32_t owner, int32_t first, int32_t rows,
                                      int64_t width) const {
    std::vector<float> values(static_cast<size_t>(rows * width));
    expect("cache_read", [&](dsv4_error *err) {
        return model->cache_read(queue, cache, part, owner, first, rows, values.data(), err);
    });
    return values;
}

void Device::wait() const {
    expect("queue_wait", [&](dsv4_error *err) { return memory->queue_wait(queue, err); });
}

} // namespace dsv4::conformance
