// Queues, buffers and the pages under everything.
#include <sys/mman.h>
#include <algorithm>
#include <cstring>
#include <utility>
#include "backends/cpu/machine.hpp"
#include "backends/cpu/objects.hpp"

namespace dsv4::cpu {

Pages::Pages(size_t bytes, const char *what) : size_(bytes) {
    if (!bytes) return;
    void *p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        throw Error(DSV4_E_NO_MEMORY, "cpu: " + std::to_string(bytes) + " bytes for " + what + " are not available");
#ifdef MADV_HUGEPAGE
    if (bytes >= size_t(4) << 20) madvise(p, bytes, MADV_HUGEPAGE); // fewer TLB misses; a refusal costs nothing
#endif
    data_ = static_cast<uint8_t *>(p);
}

Pages::~Pages() {
    if (data_) munmap(data_, size_);
}

Pages::Pages(Pages &&other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

Pages &Pages::operator=(Pages &&other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
}

Reservation::Reservation(std::shared_ptr<uint64_t> sum, uint64_t bytes, const char *what) {
    const uint64_t available = available_memory();
    // What is promised and already written is no longer available: it is counted once, as promised.
    const uint64_t written = std::min(*sum, resident_memory());
    if (available && (bytes > available || *sum - written > available - bytes))
        throw Error(DSV4_E_NO_MEMORY, "cpu: " + std::string(what) + " needs " + std::to_string(bytes) +
                                          " bytes, caches before it " + std::to_string(*sum) + ", " +
                                          std::to_string(available) + " are available");
    sum_ = std::move(sum);
    *sum_ += bytes_ = bytes;
}
Reservation::~Reservation() {
    if (sum_) *sum_ -= bytes_;
}
Reservation::Reservation(Reservation &&other) noexcept
    : sum_(std::move(other.sum_)), bytes_(std::exchange(other.bytes_, 0)) {}
Reservation &Reservation::operator=(Reservation &&other) noexcept {
    std::swap(sum_, other.sum_);
    std::swap(bytes_, other.bytes_);
    return *this;
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
    throw Error(DSV4_E_UNSUPPORTED, "cpu: buffer kind " + std::to_string(kind) + " is not known");
}

void check_rows(const dsv4_buffer *buffer, int32_t first, int32_t rows, const char *call) {
    if (!buffer || first < 0 || rows < 0 || first > buffer->rows - rows)
        throw Error(DSV4_E_INVALID, std::string("cpu: ") + call + ": rows " + std::to_string(first) + " + " +
                                        std::to_string(rows) + " of a buffer of " +
                                        std::to_string(buffer ? buffer->rows : 0));
}

/// How many leading elements of a row are integers.
int64_t integer_part(const dsv4_buffer &b) {
    return b.kind == DSV4_BUFFER_SELECTION ? b.width : b.kind == DSV4_BUFFER_ROUTE ? b.width / 2 : 0;
}

dsv4_status queue_create(dsv4_device *device, dsv4_queue **out, dsv4_error *err) {
    *out = nullptr;
    return boundary(err, [&] {
        *out = new dsv4_queue;
        (*out)->device = device;
    });
}
void queue_release(dsv4_queue *queue) { delete queue; }
dsv4_status queue_wait(dsv4_queue *, dsv4_error *) { return DSV4_OK; }

dsv4_status buffer_create(dsv4_device *, const dsv4_shape *shape, int32_t kind, int32_t rows, dsv4_buffer **out,
                          dsv4_error *err) {
    *out = nullptr;
    return boundary(err, [&] {
        const dsv4_shape s = read_sized(shape, "dsv4_shape");
        auto b = std::make_unique<dsv4_buffer>();
        b->kind = kind;
        b->rows = rows;
        b->width = buffer_width(s, kind);
        b->pages = Pages(size_t(b->width) * size_t(rows) * 4, "a buffer");
        *out = b.release();
    });
}
void buffer_release(dsv4_buffer *buffer) { delete buffer; }

dsv4_status buffer_write(dsv4_queue *, dsv4_buffer *buffer, int32_t first, int32_t rows, const float *values,
                         dsv4_error *err) {
    return boundary(err, [&] {
        check_rows(buffer, first, rows, "buffer_write");
        const int64_t ints = integer_part(*buffer), width = buffer->width;
        for (int32_t r = 0; r < rows; ++r) {
            const float *from = values + r * width;
            for (int64_t k = 0; k < ints; ++k) buffer->ints(first + r)[k] = int32_t(from[k]);
            std::memcpy(buffer->row(first + r) + ints, from + ints, size_t(width - ints) * 4);
        }
    });
}

dsv4_status buffer_read(dsv4_queue *, const dsv4_buffer *buffer, int32_t first, int32_t rows, float *values,
                        dsv4_error *err) {
    return boundary(err, [&] {
        check_rows(buffer, first, rows, "buffer_read");
        const int64_t ints = integer_part(*buffer), width = buffer->width;
        for (int32_t r = 0; r < rows; ++r) {
            float *to = values + r * width;
            for (int64_t k = 0; k < ints; ++k) to[k] = float(buffer->ints(first + r)[k]);
            std::memcpy(to + ints, buffer->row(first + r) + ints, size_t(width - ints) * 4);
        }
    });
}

dsv4_status buffer_copy(dsv4_queue *, const dsv4_buffer *from, int32_t from_row, dsv4_buffer *to, int32_t to_row,
                        int32_t rows, dsv4_error *err) {
    return boundary(err, [&] {
        check_rows(from, from_row, rows, "buffer_copy");
        check_rows(to, to_row, rows, "buffer_copy");
        if (from->kind != to->kind || from->width != to->width)
            throw Error(DSV4_E_INVALID, "cpu: buffer_copy between buffers of different kinds");
        std::memcpy(to->row(to_row), from->row(from_row), size_t(from->width) * size_t(rows) * 4);
    });
}

} // namespace

const dsv4_memory_ops memory_ops = {sizeof(dsv4_memory_ops), 0, queue_create, queue_release, queue_wait, buffer_create,
                                    buffer_release, buffer_write, buffer_read, buffer_copy};

} // namespace dsv4::cpu

float *dsv4_queue::floats(dsv4::cpu::Scratch slot, size_t count) {
    dsv4::cpu::Pages &p = slots[slot];
    if (p.size() < count * sizeof(float)) {
        p = dsv4::cpu::Pages();
        p = dsv4::cpu::Pages(count * sizeof(float), "the scratch memory of a step");
    }
    return reinterpret_cast<float *>(p.data());
}
