// A backend's device with its tables checked once, and owners for the objects it hands out.
#pragma once
#include <memory>
#include <string>
#include "core/error.hpp"
#include "dsv4/dsv4_backend.h"

namespace dsv4 {

/// Calls a backend function with an error to fill, and throws what it says. `call(backend_fn, args...)` appends err.
template <class Fn, class... Args> void call(Fn fn, Args... args) {
    dsv4_error err;
    DSV4_INIT(err);
    if (const dsv4_status status = fn(args..., &err); status < 0)
        throw Error(status, err.message[0] ? err.message : "the backend failed without saying why", err.native_code);
}

template <class T> using Handle = std::unique_ptr<T, void (*)(T *)>;
using Buffer = Handle<dsv4_buffer>;
using Block = Handle<dsv4_block>;
using Cache = Handle<dsv4_cache>;
using Batch = Handle<dsv4_batch>;
using Queue = Handle<dsv4_queue>;
using DeviceSampler = Handle<dsv4_sampler>;

/// One opened device. Everything made from it must be gone before it is.
class Device {
  public:
    Device(const dsv4_backend &backend, const dsv4_device_options &options);
    ~Device();
    Device(const Device &) = delete;
    Device &operator=(const Device &) = delete;

    const dsv4_device_info &info() const { return info_; } // as it was opened
    dsv4_device_info query() const;                        // as it is now [any thread]
    const std::string &backend_name() const { return name_; }
    dsv4_queue *queue() const { return queue_.get(); }
    bool has_mtp() const { return mtp != nullptr; }

    Buffer buffer(const dsv4_shape &shape, int32_t kind, int32_t rows) const;
    Block block(const dsv4_shape &shape, const dsv4_block_desc &desc) const;
    Cache cache(const dsv4_shape &shape, int32_t ratio, const dsv4_cache_desc &desc) const;
    Batch batch(const dsv4_shape &shape, int32_t max_tokens, int32_t max_sequences, int32_t max_blocks) const;
    DeviceSampler sampler(const dsv4_shape &shape, int32_t max_rows, int32_t max_biases) const;  // only with `sample`

    // The families. Required ones are never NULL and complete; the optional ones may be NULL.
    const dsv4_memory_ops *memory = nullptr;
    const dsv4_model_ops *model = nullptr;
    const dsv4_ends_ops *ends = nullptr;
    const dsv4_hc_ops *hc = nullptr;
    const dsv4_attention_ops *attention = nullptr;
    const dsv4_moe_ops *moe = nullptr;
    const dsv4_mtp_ops *mtp = nullptr;
    const dsv4_layer_ops *layer = nullptr;
    const dsv4_graph_ops *graph = nullptr;
    const dsv4_sample_ops *sample = nullptr;

    dsv4_device *handle() const { return device_; }

  private:
    void take_tables();

    const dsv4_backend &backend_;
    std::string name_;
    dsv4_device *device_ = nullptr;
    dsv4_device_info info_{};
    Queue queue_{nullptr, nullptr};
};

}  // namespace dsv4
