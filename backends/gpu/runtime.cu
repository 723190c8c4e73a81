// runtime.hpp over CUDA or HIP: the same calls under two names. The emulation has its own (emulated/runtime.cpp).
#include "backends/gpu/portable.hpp"
#include <cstdio>
#include <cstdlib>

#if defined(DSV4_GPU_HIP)
#define DSV4_RUNTIME(name) hip##name
#else
#define DSV4_RUNTIME(name) cuda##name
#endif
#if defined(DSV4_GPU_HIP) && !defined(DSV4_GPU_HIP_ON_NVIDIA) // where the two differ in more than the prefix
#define DSV4_PROPERTIES hipDeviceProp_t
#define DSV4_NO_MEMORY hipErrorOutOfMemory
#define DSV4_NO_CODE hipErrorNoBinaryForGpu
#define DSV4_PINNED_MALLOC(p, bytes) hipHostMalloc(p, bytes, hipHostMallocPortable | hipHostMallocMapped)
#define DSV4_PINNED_FREE hipHostFree
#define DSV4_INSTANTIATE(graph, recorded) hipGraphInstantiate(graph, recorded, nullptr, nullptr, 0)
#else
#define DSV4_PROPERTIES cudaDeviceProp
#define DSV4_NO_MEMORY cudaErrorMemoryAllocation
#define DSV4_NO_CODE cudaErrorNoKernelImageForDevice
#define DSV4_PINNED_MALLOC(p, bytes) cudaHostAlloc(p, bytes, cudaHostAllocPortable | cudaHostAllocMapped)
#define DSV4_PINNED_FREE cudaFreeHost
#define DSV4_INSTANTIATE(graph, recorded) cudaGraphInstantiate(graph, recorded, 0)
#endif

namespace dsv4::gpu {

namespace {

using Status = DSV4_RUNTIME(Error_t);
constexpr Status success = DSV4_RUNTIME(Success);

/// What the caller can do about it; anything that is not known to leave the device usable counts as a lost device.
dsv4_status meaning(Status s) {
    if (s == DSV4_NO_MEMORY) return DSV4_E_NO_MEMORY;
    if (s == DSV4_RUNTIME(ErrorNotSupported) || s == DSV4_NO_CODE) return DSV4_E_UNSUPPORTED;
    if (s == DSV4_RUNTIME(ErrorInvalidValue) || s == DSV4_RUNTIME(ErrorInvalidConfiguration) ||
        s == DSV4_RUNTIME(ErrorInvalidDeviceFunction) || s == DSV4_RUNTIME(ErrorInvalidResourceHandle) ||
        s == DSV4_RUNTIME(ErrorStreamCaptureInvalidated) || s == DSV4_RUNTIME(ErrorStreamCaptureUnsupported))
        return DSV4_E_INTERNAL;
    return DSV4_E_DEVICE;
}

} // namespace

void check(Status status, const char *call) {
    if (status == success) return;
    (void)DSV4_RUNTIME(GetLastError)(); // an error that is not sticky must not be found again by the next call
    throw Failure(meaning(status), std::string(call) + ": " + DSV4_RUNTIME(GetErrorString)(status), int32_t(status));
}

#define DSV4_CALL(name, ...) check(DSV4_RUNTIME(name)(__VA_ARGS__), #name)

int device_count() {
    int count = 0;
    const Status s = DSV4_RUNTIME(GetDeviceCount)(&count);
    if (s != success) {
        (void)DSV4_RUNTIME(GetLastError)();
        throw Failure(DSV4_E_DEVICE, std::string("no card can be reached: ") + DSV4_RUNTIME(GetErrorString)(s),
                      int32_t(s));
    }
    return count;
}

Properties device_properties(int index) {
    DSV4_PROPERTIES p{};
    DSV4_CALL(GetDeviceProperties, &p, index);
    Properties out;
    out.name = p.name;
    out.processors = p.multiProcessorCount;
    out.major = p.major;
    out.minor = p.minor;
#if defined(DSV4_GPU_HIP) && !defined(DSV4_GPU_HIP_ON_NVIDIA)
    out.variant = std::string(p.gcnArchName).substr(0, std::string(p.gcnArchName).find(':'));
    out.shared_bytes = p.sharedMemPerBlock;
#else
    out.variant = "sm_" + std::to_string(p.major * 10 + p.minor) + (p.major == 9 ? "a" : "");
    out.shared_bytes = p.sharedMemPerBlockOptin;
#endif
#if defined(DSV4_GPU_CUDA) && defined(DSV4_GPU_WARPGROUPS)
    out.warpgroups = p.major == 9 && p.minor == 0;
#endif
    return out;
}

void memory_info(size_t &free_bytes, size_t &total_bytes) { DSV4_CALL(MemGetInfo, &free_bytes, &total_bytes); }

Current::Current(int index) : former_(index), index_(index) {
    DSV4_CALL(GetDevice, &former_);
    if (former_ != index_) DSV4_CALL(SetDevice, index_);
}
Current::~Current() {
    if (former_ != index_) (void)DSV4_RUNTIME(SetDevice)(former_);
}

void *device_malloc(size_t bytes, const std::string &what) {
    void *p = nullptr;
    const Status s = DSV4_RUNTIME(Malloc)(&p, bytes ? bytes : 1);
    if (s == DSV4_NO_MEMORY) {
        (void)DSV4_RUNTIME(GetLastError)();
        size_t left = 0, total = 0;
        (void)DSV4_RUNTIME(MemGetInfo)(&left, &total);
        throw Failure(DSV4_E_NO_MEMORY,
                      "out of device memory: " + what + " needs " + std::to_string(bytes) + " bytes, " +
                          std::to_string(left) + " are free",
                      int32_t(s));
    }
    check(s, "Malloc");
    return p;
}
void device_free(void *pointer) noexcept {
    if (pointer) (void)DSV4_RUNTIME(Free)(pointer);
}
void *pinned_malloc(size_t bytes, const std::string &what) {
    void *p = nullptr;
    const Status s = DSV4_PINNED_MALLOC(&p, bytes ? bytes : 1);
    if (s == DSV4_NO_MEMORY) {
        (void)DSV4_RUNTIME(GetLastError)();
        throw Failure(DSV4_E_NO_MEMORY,
                      "out of pinned host memory: " + what + " needs " + std::to_string(bytes) + " bytes", int32_t(s));
    }
    check(s, "HostAlloc");
    return p;
}
void pinned_free(void *pointer) noexcept {
    if (pointer) (void)DSV4_PINNED_FREE(pointer);
}

Stream stream_create() {
    Stream s = nullptr;
    DSV4_CALL(StreamCreateWithFlags, &s, DSV4_RUNTIME(StreamNonBlocking));
    return s;
}
void stream_release(Stream stream) noexcept {
    if (!stream) return;
    capture_abandon(stream);
    (void)DSV4_RUNTIME(StreamSynchronize)(stream);
    (void)DSV4_RUNTIME(StreamDestroy)(stream);
}
void stream_wait(Stream stream) { DSV4_CALL(StreamSynchronize, stream); }

void copy_pinned(void *device, const void *host, size_t bytes, Stream stream) {
    if (bytes) DSV4_CALL(MemcpyAsync, device, host, bytes, DSV4_RUNTIME(MemcpyHostToDevice), stream);
}
void copy_to_device(void *device, const void *host, size_t bytes, Stream stream) {
    copy_pinned(device, host, bytes, stream);
    stream_wait(stream); // the runtime may still be reading it
}
void copy_to_host(void *host, const void *device, size_t bytes, Stream stream) {
    if (bytes) DSV4_CALL(MemcpyAsync, host, device, bytes, DSV4_RUNTIME(MemcpyDeviceToHost), stream);
    stream_wait(stream);
}
void copy_on_device(void *to, const void *from, size_t bytes, Stream stream) {
    if (bytes) DSV4_CALL(MemcpyAsync, to, from, bytes, DSV4_RUNTIME(MemcpyDeviceToDevice), stream);
}
void fill_bytes(void *device, int value, size_t bytes, Stream stream) {
    if (bytes) DSV4_CALL(MemsetAsync, device, value, bytes, stream);
}

Event event_create() {
    Event e = nullptr;
    DSV4_CALL(EventCreate, &e);
    return e;
}
void event_release(Event event) noexcept {
    if (event) (void)DSV4_RUNTIME(EventDestroy)(event);
}
void event_record(Event event, Stream stream) { DSV4_CALL(EventRecord, event, stream); }
void stream_follow(Stream stream, Event event) { DSV4_CALL(StreamWaitEvent, stream, event, 0); }
void event_wait(Event event) { DSV4_CALL(EventSynchronize, event); }
double event_seconds(Event from, Event to) {
    event_wait(to);
    float milliseconds = 0;
    DSV4_CALL(EventElapsedTime, &milliseconds, from, to);
    return double(milliseconds) * 1e-3;
}

// Relaxed: scratch memory may grow while a graph is recorded.
void capture_begin(Stream stream) { DSV4_CALL(StreamBeginCapture, stream, DSV4_RUNTIME(StreamCaptureModeRelaxed)); }
Graph capture_end(Stream stream) {
    DSV4_RUNTIME(Graph_t) recorded = nullptr;
    DSV4_CALL(StreamEndCapture, stream, &recorded);
    Graph graph = nullptr;
    const Status s = DSV4_INSTANTIATE(&graph, recorded);
    (void)DSV4_RUNTIME(GraphDestroy)(recorded);
    check(s, "GraphInstantiate");
    return graph;
}
void capture_abandon(Stream stream) noexcept {
    DSV4_RUNTIME(StreamCaptureStatus) status = DSV4_RUNTIME(StreamCaptureStatusNone);
    if (DSV4_RUNTIME(StreamIsCapturing)(stream, &status) != success || status == DSV4_RUNTIME(StreamCaptureStatusNone))
        return;
    DSV4_RUNTIME(Graph_t) recorded = nullptr;
    if (DSV4_RUNTIME(StreamEndCapture)(stream, &recorded) == success && recorded)
        (void)DSV4_RUNTIME(GraphDestroy)(recorded);
    (void)DSV4_RUNTIME(GetLastError)();
}
void graph_launch(Graph graph, Stream stream) { DSV4_CALL(GraphLaunch, graph, stream); }
void graph_release(Graph graph) noexcept {
    if (graph) (void)DSV4_RUNTIME(GraphExecDestroy)(graph);
}

#if !defined(DSV4_GPU_HIP)
namespace {

int attribute_of(int device, cudaDeviceAttr attribute) {
    int value = 0;
    DSV4_CALL(DeviceGetAttribute, &value, attribute, device);
    return value;
}

} // namespace

void start(const void *kernel, dim3 grid, dim3 block, void **arguments, size_t dynamic_bytes, Stream stream,
           bool early) {
    int device = 0;
    if (early) {
        DSV4_CALL(GetDevice, &device);
        early = attribute_of(device, cudaDevAttrComputeCapabilityMajor) >= 9;
    }
    if (!early) return check(cudaLaunchKernel(kernel, grid, block, arguments, dynamic_bytes, stream), "launch");
    cudaLaunchAttribute attributes[2] = {};
    attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[0].val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = grid, config.blockDim = block, config.dynamicSmemBytes = dynamic_bytes, config.stream = stream;
    config.attrs = attributes, config.numAttrs = 1;
#if CUDART_VERSION >= 13000 // some of 12 have it too
    // A multiprocessor has to be empty before it divides its memory anew into first-level cache, which loads in flight
    // need, and shared memory. So the kernels of small steps, of which all blocks fit at once, divide it alike: the
    // next one's blocks then come as soon as there is room. 58 percent are 132 KB on sm_90.
    constexpr size_t percent = 58, reserved = 1024; // reserved: of every block, by the system
    const size_t processors = size_t(attribute_of(device, cudaDevAttrMultiProcessorCount)),
                 blocks = size_t(grid.x) * grid.y * grid.z, each = (blocks + processors - 1) / processors,
                 room = size_t(attribute_of(device, cudaDevAttrMaxSharedMemoryPerMultiprocessor)) * percent / 100;
    attributes[1].id = cudaLaunchAttributePreferredSharedMemoryCarveout;
    attributes[1].val.sharedMemCarveout = percent;
    if (each <= 4 && each * (dynamic_bytes + reserved) <= room) config.numAttrs = 2;
#endif
    check(cudaLaunchKernelExC(&config, kernel, arguments), "launch");
}
void allow_shared(const void *kernel, size_t dynamic_bytes) {
    DSV4_CALL(FuncSetAttribute, kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(dynamic_bytes));
}
#endif

} // namespace dsv4::gpu
