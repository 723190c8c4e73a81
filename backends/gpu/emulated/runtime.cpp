// The runtime on the host: a device that is part of this process's memory, and streams that keep their work until
// somebody waits, as a card may. Device memory is malloc'ed, so that the address sanitizer sees what a kernel reads
// past its end.
#include "backends/gpu/portable.hpp"
#include <chrono>
#include <cstdlib>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <vector>

namespace dsv4::gpu {
namespace emulated {

using Work = std::function<void()>;

struct Graph {
    std::shared_ptr<std::vector<Work>> work = std::make_shared<std::vector<Work>>();
};
struct Stream {
    std::deque<Work> pending;
    std::unique_ptr<Graph> recording;
    Graph *joined = nullptr; // another stream's, that this one's work goes into
    Graph *graph() const { return recording ? recording.get() : joined; }
};
struct Event {
    Stream *stream = nullptr;
    Graph *graph = nullptr; // that it was recorded into
    uint64_t recorded = 0, reached = 0;
    double seconds = 0;
};

namespace {

struct Memory {
    std::recursive_mutex lock; // one grid at a time: shared memory is static
    std::map<void *, size_t> device, pinned;
    std::set<Stream *> streams;
    size_t used = 0, total = size_t(4) << 30;
    int64_t launches_left = -1; // before the device is lost; < 0: it is not
    bool lost = false;
};
Memory &memory() {
    static Memory m;
    return m;
}
using Locked = std::lock_guard<std::recursive_mutex>;

void check_alive() {
    if (memory().lost) throw Failure(DSV4_E_DEVICE, "emulated: the device is lost", 719);
}

void put(Stream *stream, Work work) {
    const Locked locked(memory().lock);
    check_alive();
    if (Graph *graph = stream->graph()) graph->work->push_back(std::move(work));
    else stream->pending.push_back(std::move(work));
}

void run_next(Stream *stream) {
    const Work work = std::move(stream->pending.front());
    stream->pending.pop_front();
    try {
        work();
    } catch (...) {
        stream->pending.clear();
        throw;
    }
}

void drain(Stream *stream) {
    const Locked locked(memory().lock);
    if (stream->graph()) throw Failure(DSV4_E_INTERNAL, "emulated: a wait on a stream that is being recorded", 900);
    while (!stream->pending.empty()) run_next(stream);
    check_alive();
}

void *take(size_t bytes, const std::string &what, std::map<void *, size_t> &owners, size_t room) {
    check_alive();
    void *p = nullptr;
    if (bytes > room || posix_memalign(&p, 256, bytes ? bytes : 1))
        throw Failure(DSV4_E_NO_MEMORY, "out of device memory: " + what + " needs " + std::to_string(bytes) +
                                            " bytes, " + std::to_string(room) + " are free", 2);
    poison(p, bytes);
    owners[p] = bytes;
    return p;
}

void give_back(void *pointer, std::map<void *, size_t> &owners) {
    for (Stream *s : memory().streams) // as cudaFree waits for what is running
        while (!s->pending.empty()) {
            try {
                run_next(s);
            } catch (...) { // nothing is pending then
            }
        }
    owners.erase(pointer);
    std::free(pointer);
}

} // namespace

void enqueue(Stream *stream, Launch launch) {
    const uint64_t threads = uint64_t(launch.block.x) * launch.block.y * launch.block.z;
    if (!threads || threads > 1024 || threads % 32 || launch.block.z > 64)
        throw Failure(DSV4_E_INTERNAL, "emulated: a block of " + std::to_string(threads) + " threads", 9);
    if (launch.grid.x > 0x7FFFFFFFu || launch.grid.y > 65535 || launch.grid.z > 65535)
        throw Failure(DSV4_E_INTERNAL, "emulated: a grid of " + std::to_string(launch.grid.x) + " x " +
                                           std::to_string(launch.grid.y) + " x " + std::to_string(launch.grid.z), 9);
    if (launch.dynamic_bytes > shared_limit())
        throw Failure(DSV4_E_INTERNAL, "emulated: " + std::to_string(launch.dynamic_bytes) +
                                           " bytes of shared memory for a block, the limit is " +
                                           std::to_string(shared_limit()), 1);
    put(stream, [launch = std::move(launch)] {
        Memory &m = memory();
        if (m.launches_left == 0) m.lost = true;
        check_alive();
        if (m.launches_left > 0) --m.launches_left;
        run(launch);
    });
}

void set_memory(size_t bytes) { memory().total = bytes; }
void lose_device_after(int64_t launches) {
    memory().launches_left = launches;
    memory().lost = false;
}

} // namespace emulated

using emulated::Locked;
using emulated::memory;

int device_count() { return 1; }
Properties device_properties(int) {
    const bool warpgroups = std::getenv("DSV4_EMULATED_WARPGROUPS");
    return {"host, emulated", "emulated", 2, 8, 0, emulated::shared_limit(), warpgroups};
}
void memory_info(size_t &free_bytes, size_t &total_bytes) {
    const Locked locked(memory().lock);
    emulated::check_alive();
    total_bytes = memory().total;
    free_bytes = memory().used < memory().total ? memory().total - memory().used : 0;
}

Current::Current(int index) : former_(0), index_(index) {}
Current::~Current() = default;

void *device_malloc(size_t bytes, const std::string &what) {
    const Locked locked(memory().lock);
    size_t room = 0, total = 0;
    memory_info(room, total);
    void *p = emulated::take(bytes, what, memory().device, room);
    memory().used += bytes;
    return p;
}
void device_free(void *pointer) noexcept {
    if (!pointer) return;
    const Locked locked(memory().lock);
    memory().used -= memory().device[pointer];
    emulated::give_back(pointer, memory().device);
}
void *pinned_malloc(size_t bytes, const std::string &what) {
    const Locked locked(memory().lock);
    return emulated::take(bytes, what, memory().pinned, SIZE_MAX);
}
void pinned_free(void *pointer) noexcept {
    if (!pointer) return;
    const Locked locked(memory().lock);
    emulated::give_back(pointer, memory().pinned);
}

Stream stream_create() {
    const Locked locked(memory().lock);
    emulated::check_alive();
    auto *s = new emulated::Stream;
    memory().streams.insert(s);
    return s;
}
void stream_release(Stream stream) noexcept {
    if (!stream) return;
    const Locked locked(memory().lock);
    capture_abandon(stream);
    try {
        emulated::drain(stream);
    } catch (...) {
    }
    memory().streams.erase(stream);
    delete stream;
}
void stream_wait(Stream stream) { emulated::drain(stream); }

void copy_to_device(void *device, const void *host, size_t bytes, Stream stream) {
    if (!bytes) return;
    if (stream->recording)
        throw Failure(DSV4_E_INTERNAL, "emulated: a copy from memory that is not pinned while a stream is recorded",
                      900);
    const auto *p = static_cast<const uint8_t *>(host);
    emulated::put(stream, [device, kept = std::vector<uint8_t>(p, p + bytes)] {
        std::memcpy(device, kept.data(), kept.size());
    });
}
void copy_pinned(void *device, const void *host, size_t bytes, Stream stream) {
    if (!bytes) return;
    const Locked locked(memory().lock);
    const auto after = memory().pinned.upper_bound(const_cast<void *>(host));
    const auto *p = static_cast<const uint8_t *>(host);
    if (after == memory().pinned.begin() ||
        p + bytes > static_cast<uint8_t *>(std::prev(after)->first) + std::prev(after)->second)
        throw Failure(DSV4_E_INTERNAL, "emulated: copy_pinned from memory that is not pinned", 1);
    emulated::put(stream, [=] { std::memcpy(device, host, bytes); });
}
void copy_to_host(void *host, const void *device, size_t bytes, Stream stream) {
    emulated::drain(stream);
    if (bytes) std::memcpy(host, device, bytes);
}
void copy_on_device(void *to, const void *from, size_t bytes, Stream stream) {
    if (bytes) emulated::put(stream, [=] { std::memcpy(to, from, bytes); });
}
void fill_bytes(void *device, int value, size_t bytes, Stream stream) {
    if (bytes) emulated::put(stream, [=] { std::memset(device, value, bytes); });
}

Event event_create() { return new emulated::Event; }
void event_release(Event event) noexcept { delete event; }
void event_record(Event event, Stream stream) {
    event->stream = stream;
    event->graph = stream->graph();
    emulated::put(stream, [event, number = ++event->recorded] {
        event->seconds = std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
        event->reached = std::max(event->reached, number);
    });
}
void event_wait(Event event) {
    if (event->reached < event->recorded) emulated::drain(event->stream);
}
void stream_follow(Stream stream, Event event) {
    const Locked locked(memory().lock);
    if (event->graph) { // the order in which a graph was recorded is one of those that it allows
        if (!stream->recording) stream->joined = event->graph;
        return;
    }
    emulated::put(stream, [event, other = event->stream, number = event->recorded] {
        while (event->reached < number && !other->pending.empty()) emulated::run_next(other);
    });
}
double event_seconds(Event from, Event to) {
    event_wait(from);
    event_wait(to);
    return to->seconds - from->seconds;
}

static void leave_graph(const emulated::Graph *graph) {
    for (emulated::Stream *s : memory().streams)
        if (graph && s->joined == graph) s->joined = nullptr;
}
void capture_begin(Stream stream) {
    const Locked locked(memory().lock);
    if (stream->recording) throw Failure(DSV4_E_INTERNAL, "emulated: the stream is being recorded already", 900);
    stream->recording = std::make_unique<emulated::Graph>();
}
Graph capture_end(Stream stream) {
    const Locked locked(memory().lock);
    if (!stream->recording) throw Failure(DSV4_E_INTERNAL, "emulated: the stream is not being recorded", 901);
    leave_graph(stream->recording.get());
    return stream->recording.release();
}
void capture_abandon(Stream stream) noexcept {
    leave_graph(stream->recording.get());
    stream->recording.reset();
}
void graph_launch(Graph graph, Stream stream) {
    emulated::put(stream, [work = graph->work] {
        for (const auto &w : *work) w();
    });
}
void graph_release(Graph graph) noexcept { delete graph; }

} // namespace dsv4::gpu
