// Family memory: device memory, queues with their scratch space, buffers of rows.
#include "backends/gpu/ops.hpp"
#include <algorithm>

namespace dsv4::gpu {

Memory::Memory(const dsv4_device &device, size_t bytes, const std::string &what, bool pinned)
    : size_(bytes), device_(device.index), pinned_(pinned) {
    if (!bytes) return;
    data_ = static_cast<uint8_t *>(pinned ? pinned_malloc(bytes, what) : device_malloc(bytes, what));
}

Memory::~Memory() {
    if (!data_) return;
    try {
        const Current current(device_);
        if (pinned_) pinned_free(data_);
        else device_free(data_);
    } catch (const Failure &) { // the device is lost, and its memory with it
    }
}

namespace {

int64_t buffer_width(const dsv4_shape &s, int32_t kind) {
    switch (kind) {
    case DSV4_BUFFER_STREAMS: return int64_t(s.streams) * s.hidden;
    case DSV4_BUFFER_HIDDEN: return s.hidden;
    case DSV4_BUFFER_MIX: return int64_t(s.streams) * (1 + s.streams);
    case DSV4_BUFFER_QUERY: return int64_t(s.heads) * s.head_dim;
    case DSV4_BUFFER_QUERY_LORA: return s.q_lora;
    case DSV4_BUFFER_SELECTION: return s.index_topk;
    case DSV4_BUFFER_ROUTE: return int64_t(2) * s.active_experts;
    case DSV4_BUFFER_LOGITS: return s.vocab;
    }
    throw Failure(DSV4_E_UNSUPPORTED, "buffer kind " + std::to_string(kind) + " is not known");
}

void check_rows(const dsv4_buffer *buffer, int32_t first, int32_t rows, const char *call) {
    if (!buffer || first < 0 || rows < 0 || first > buffer->rows - rows)
        throw Failure(DSV4_E_INVALID, std::string(call) + ": rows " + std::to_string(first) + " + " +
                                          std::to_string(rows) + " of a buffer of " +
                                          std::to_string(buffer ? buffer->rows : 0));
}

/// How many leading elements of a row are integers.
int64_t integer_part(const dsv4_buffer &b) {
    return b.kind == DSV4_BUFFER_SELECTION ? b.width : b.kind == DSV4_BUFFER_ROUTE ? b.width / 2 : 0;
}

dsv4_status queue_create(dsv4_device *device, dsv4_queue **out, dsv4_error *err) {
    *out = nullptr;
    return on_device(err, *device, [&] { *out = new dsv4_queue(*device); });
}
void queue_release(dsv4_queue *queue) { delete queue; }
dsv4_status queue_wait(dsv4_queue *queue, dsv4_error *err) {
    return on_device(err, *queue, [&] { stream_wait(queue->stream()); });
}

dsv4_status buffer_create(dsv4_device *device, const dsv4_shape *shape, int32_t kind, int32_t rows, dsv4_buffer **out,
                          dsv4_error *err) {
    *out = nullptr;
    return on_device(err, *device, [&] {
        const dsv4_shape s = read_sized(shape, "dsv4_shape");
        if (rows < 0) throw Failure(DSV4_E_INVALID, "a buffer of " + std::to_string(rows) + " rows");
        auto b = std::make_unique<dsv4_buffer>();
        b->kind = kind;
        b->rows = rows;
        b->width = buffer_width(s, kind);
        b->memory = Memory(*device, size_t(b->width) * size_t(rows) * 4,
                           "a buffer of kind " + std::to_string(kind) + " for " + std::to_string(rows) + " tokens");
        *out = b.release();
    });
}
void buffer_release(dsv4_buffer *buffer) { delete buffer; }

dsv4_status buffer_write(dsv4_queue *queue, dsv4_buffer *buffer, int32_t first, int32_t rows, const float *values,
                         dsv4_error *err) {
    return on_device(err, *queue, [&] {
        check_rows(buffer, first, rows, "buffer_write");
        const int64_t ints = integer_part(*buffer), width = buffer->width;
        const size_t bytes = size_t(rows) * size_t(width) * 4;
        if (!ints) return copy_to_device(buffer->row(first), values, bytes, queue->stream());
        std::vector<int32_t> mixed(size_t(rows) * size_t(width));
        for (int64_t i = 0; i < int64_t(mixed.size()); ++i)
            if (i % width < ints) mixed[size_t(i)] = int32_t(values[i]);
            else std::memcpy(&mixed[size_t(i)], values + i, 4);
        copy_to_device(buffer->row(first), mixed.data(), bytes, queue->stream());
    });
}

dsv4_status buffer_read(dsv4_queue *queue, const dsv4_buffer *buffer, int32_t first, int32_t rows, float *values,
                        dsv4_error *err) {
    return on_device(err, *queue, [&] {
        check_rows(buffer, first, rows, "buffer_read");
        const int64_t ints = integer_part(*buffer), width = buffer->width;
        copy_to_host(values, buffer->row(first), size_t(rows) * size_t(width) * 4, queue->stream());
        for (int64_t r = 0; ints && r < rows; ++r)
            for (int64_t k = 0; k < ints; ++k) {
                int32_t i;
                std::memcpy(&i, values + r * width + k, 4);
                values[r * width + k] = float(i);
            }
    });
}

dsv4_status buffer_copy(dsv4_queue *queue, const dsv4_buffer *from, int32_t from_row, dsv4_buffer *to, int32_t to_row,
                        int32_t rows, dsv4_error *err) {
    return on_device(err, *queue, [&] {
        check_rows(from, from_row, rows, "buffer_copy");
        check_rows(to, to_row, rows, "buffer_copy");
        if (from->kind != to->kind || from->width != to->width)
            throw Failure(DSV4_E_INVALID, "buffer_copy between buffers of different kinds");
        copy_on_device(to->row(to_row), from->row(from_row), size_t(from->width) * size_t(rows) * 4, queue->stream());
    });
}

} // namespace

const dsv4_memory_ops &memory_ops() {
    static const dsv4_memory_ops table = {sizeof(dsv4_memory_ops),
                                          0,
                                          queue_create,
                                          queue_release,
                                          queue_wait,
                                          buffer_create,
                                          buffer_release,
                                          buffer_write,
                                          buffer_read,
                                          buffer_copy};
    return table;
}

} // namespace dsv4::gpu

dsv4_queue::dsv4_queue(const dsv4_device &d) : device(d), stream_(dsv4::gpu::stream_create()) {}

dsv4_queue::~dsv4_queue() {
    try {
        const dsv4::gpu::Current current(device.index);
        beside_.reset(); // its work may still wait for events of this one
        dsv4::gpu::stream_release(stream_);
        for (const auto event : stamps) dsv4::gpu::event_release(event);
        for (const auto event : events_)
            if (event) dsv4::gpu::event_release(event);
    } catch (const dsv4::gpu::Failure &) { // the device is lost
    }
}

dsv4::gpu::Event &dsv4_queue::event(int which) {
    if (!events_[which]) events_[which] = dsv4::gpu::event_create();
    return events_[which];
}

dsv4::gpu::Stream dsv4_queue::stream() {
    forked_ = false, noted_ = {};
    if (put_off_.written) {
        put_off_work_(stream_);
        put_off_ = {};
    }
    if (running_beside_) {
        dsv4::gpu::event_record(event(JOINED), beside_->stream_);
        dsv4::gpu::stream_follow(stream_, event(JOINED));
        running_beside_ = false;
    }
    return stream_;
}

void dsv4_queue::put_off(const Result &what, Work work) {
    put_off_work_ = std::move(work);
    put_off_ = what;
}
dsv4_queue::Work dsv4_queue::take_put_off(const Result &what) {
    if (!(put_off_ == what)) return {};
    put_off_ = {};
    return std::move(put_off_work_);
}

void dsv4_queue::abandon_recording() noexcept {
    forked_ = running_beside_ = false; // what ran beside was part of it
    put_off_ = noted_ = {};
    dsv4::gpu::capture_abandon(stream_);
}

void dsv4_queue::fork() { dsv4::gpu::event_record(event(FORK), stream()); }
void dsv4_queue::fork_later() { dsv4::gpu::event_record(event(FORK_LATER), stream()); }

dsv4_queue &dsv4_queue::beside(bool needs_later) {
    if (!forked_) return *this;
    if (!beside_) beside_ = std::make_unique<dsv4_queue>(device);
    event(JOINED); // so that joining cannot fail for want of memory
    if (!running_beside_) dsv4::gpu::stream_follow(beside_->stream_, event(FORK));
    running_beside_ = true;
    if (needs_later) dsv4::gpu::stream_follow(beside_->stream_, event(FORK_LATER));
    return *beside_;
}

uint8_t *dsv4_queue::scratch_bytes(dsv4::gpu::Scratch slot, size_t bytes) {
    dsv4::gpu::Memory &m = slots_[slot];
    if (m.size() < bytes) {
        // Graphs hold the old address, and kernels may be running on it: it stays until the queue goes.
        const size_t grown = std::max(bytes, m.size() + m.size() / 2);
        dsv4::gpu::Memory larger(device, grown, "the scratch memory of a step");
        if (m.data()) retired_.push_back(std::move(m));
        m = std::move(larger);
    }
#if defined(DSV4_GPU_EMULATED)
    dsv4::gpu::fill_bytes(m.data(), 0xFF, bytes, stream_); // whoever reads what the slot held before finds NaN
#endif
    return m.data();
}
