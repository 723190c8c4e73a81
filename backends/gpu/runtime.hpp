// The runtime that kernels run under, behind names of our own: what CUDA, HIP and the emulation offer alike. Every
// function here throws Failure; nothing prints or ends the process.
#pragma once
#include "backends/gpu/failure.hpp"
#include <cstddef>
#include <cstdint>
#include <string>

namespace dsv4::gpu {

struct Properties {
    std::string name;        // "NVIDIA H200"
    std::string variant;     // "sm_90a", "gfx90a", "emulated"
    int32_t processors;      // multiprocessors or compute units
    int32_t major, minor;    // compute capability; HIP: of the gfx number
    size_t shared_bytes;     // dynamic shared memory that a block may ask for
    bool warpgroups = false; // it multiplies by warpgroups, and the plugin has the code (warpgroup.hpp)
};

int device_count(); // throws where no card can be reached, saying why
Properties device_properties(int index);
void memory_info(size_t &free_bytes, size_t &total_bytes); // of the current device

/// Makes a device current for this thread, and the former one again at the end.
class Current {
  public:
    explicit Current(int index);
    ~Current();
    Current(const Current &) = delete;
    Current &operator=(const Current &) = delete;

  private:
    int former_, index_;
};

/// `what` names the memory in the message: what was needed, what was free.
void *device_malloc(size_t bytes, const std::string &what);
void device_free(void *pointer) noexcept; // waits for what is running
/// Host memory that copies run from at full speed and that kernels can read.
void *pinned_malloc(size_t bytes, const std::string &what);
void pinned_free(void *pointer) noexcept;

Stream stream_create();
void stream_release(Stream stream) noexcept; // waits
void stream_wait(Stream stream);

/// In order of the stream. copy_to_device has read the host's memory when it returns; copy_pinned takes memory of
/// pinned_malloc, which must stay as it is until the copy has run.
void copy_to_device(void *device, const void *host, size_t bytes, Stream stream);
void copy_pinned(void *device, const void *host, size_t bytes, Stream stream);
void copy_to_host(void *host, const void *device, size_t bytes, Stream stream); // waits
void copy_on_device(void *to, const void *from, size_t bytes, Stream stream);
void fill_bytes(void *device, int value, size_t bytes, Stream stream);

Event event_create();
void event_release(Event event) noexcept;
void event_record(Event event, Stream stream);
void event_wait(Event event); // the host waits; the event has been recorded
/// What is put on the stream from now on comes after what the event was recorded after; while that is recorded into a
/// graph, so is the stream's, until capture_end.
void stream_follow(Stream stream, Event event);
double event_seconds(Event from, Event to);

/// Between begin and end, what is put on the stream is recorded instead of run.
void capture_begin(Stream stream);
Graph capture_end(Stream stream);
void capture_abandon(Stream stream) noexcept; // after a failure between the two
void graph_launch(Graph graph, Stream stream);
void graph_release(Graph graph) noexcept;

} // namespace dsv4::gpu
