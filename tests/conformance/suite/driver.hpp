// The plugin ABI in C++: objects that release themselves, statuses that become exceptions.
#pragma once
#include "dsv4/dsv4_backend.h"
#include "weights.hpp"
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace dsv4::conformance {

/// A call of the backend failed; the text is its own.
struct CallFailed : std::runtime_error {
    CallFailed(dsv4_status s, const std::string &what) : std::runtime_error(what), status(s) {}
    dsv4_status status;
};

/// expect("attention.project", [&](dsv4_error *err) { return ops.project(..., err); })
template <class Call> void expect(const char *name, Call &&call) {
    dsv4_error err;
    DSV4_INIT(err);
    const dsv4_status status = call(&err);
    err.message[sizeof err.message - 1] = '\0';
    if (status < 0)
        throw CallFailed(status, std::string(name) + " returned " + std::to_string(status) + ": " + err.message);
}

template <class T> class Owned {
  public:
    Owned() = default;
    Owned(T *object, void (*release)(T *)) : object_(object), release_(release) {}
    Owned(Owned &&o) noexcept : object_(o.object_), release_(o.release_) { o.object_ = nullptr; }
    Owned &operator=(Owned &&o) noexcept {
        std::swap(object_, o.object_);
        std::swap(release_, o.release_);
        return *this;
    }
    ~Owned() {
        if (object_) release_(object_);
    }
    T *get() const { return object_; }
    operator T *() const { return object_; }

  private:
    T *object_ = nullptr;
    void (*release_)(T *) = nullptr;
};

using Buffer = Owned<dsv4_buffer>;
using Block = Owned<dsv4_block>;
using Cache = Owned<dsv4_cache>;
using Batch = Owned<dsv4_batch>;

struct DeviceChoice {
    uint32_t index = 0;
    int32_t numerics = DSV4_NUMERICS_DEFAULT;
    int32_t threads = 0;
    std::string variant;
};

/// One open device with one queue and the tables it offers. Missing functions are an error here, once.
class Device {
  public:
    Device(const dsv4_backend *backend, const DeviceChoice &choice);
    ~Device();
    Device(const Device &) = delete;
    Device &operator=(const Device &) = delete;

    dsv4_device_info info() const { return info_; }
    bool claims(uint32_t capability) const { return (info_.capabilities & capability) != 0; }

    Buffer buffer(const dsv4_shape &shape, int32_t kind, int32_t rows) const;
    Block block(const dsv4_shape &shape, const dsv4_block_desc &desc) const;
    Cache cache(const dsv4_shape &shape, int32_t ratio, const dsv4_cache_desc &desc) const;
    Batch batch(const dsv4_shape &shape, int32_t tokens, int32_t sequences, int32_t blocks) const;
    void set(dsv4_batch *batch, const dsv4_step &step) const;
    void write(dsv4_buffer *buffer, int32_t rows, const std::vector<float> &values) const;
    std::vector<float> read(const dsv4_buffer *buffer, int32_t rows, int64_t width) const;
    std::vector<float> read_cache(const dsv4_cache *cache, int32_t part, int32_t owner, int32_t first, int32_t rows,
                                  int64_t width) const;
    void wait() const;

    dsv4_device *device = nullptr;
    dsv4_queue *queue = nullptr;
    const dsv4_memory_ops *memory = nullptr;
    const dsv4_model_ops *model = nullptr;
    const dsv4_ends_ops *ends = nullptr;
    const dsv4_hc_ops *hc = nullptr;
    const dsv4_attention_ops *attention = nullptr;
    const dsv4_moe_ops *moe = nullptr;
    const dsv4_mtp_ops *mtp = nullptr;       // optional
    const dsv4_layer_ops *layer = nullptr;   // optional
    const dsv4_sample_ops *sample = nullptr; // optional

  private:
    const dsv4_backend *backend_;
    dsv4_device_info info_{};
};

/// Elements per row of a buffer.
int64_t buffer_width(const dsv4_shape &shape, int32_t kind);

} // namespace dsv4::conformance
