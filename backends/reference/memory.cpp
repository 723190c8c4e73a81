// Family memory: queues that run at once, buffers of float32 rows.
#include <cstring>
#include "backends/reference/ops.hpp"

namespace dsv4::reference {
namespace {

int64_t buffer_width(const dsv4_shape &s, int32_t kind) {
    const int64_t M = s.streams;
    switch (kind) {
    case DSV4_BUFFER_STREAMS: return M * s.hidden;
    case DSV4_BUFFER_HIDDEN: return s.hidden;
    case DSV4_BUFFER_MIX: return M + M * M;
    case DSV4_BUFFER_QUERY: return int64_t(s.heads) * s.head_dim;
    case DSV4_BUFFER_QUERY_LORA: return s.q_lora;
    case DSV4_BUFFER_SELECTION: return s.index_topk;
    case DSV4_BUFFER_ROUTE: return 2 * int64_t(s.active_experts);
    case DSV4_BUFFER_LOGITS: return s.vocab;
    }
    fail(DSV4_E_UNSUPPORTED, "buffer kind %d is not known to this backend", kind);
}

void check_rows(const dsv4_buffer *buffer, int32_t first, int32_t rows) {
    if (first < 0 || rows < 0 || first > buffer->rows - rows)
        fail(DSV4_E_INVALID, "rows [%d, %d) of a buffer of %d", first, first + rows, buffer->rows);
}

dsv4_status queue_create(dsv4_device *device, dsv4_queue **out, dsv4_error *err) {
    return guard(err, [&] { *out = new dsv4_queue{device}; });
}
void queue_release(dsv4_queue *queue) { delete queue; }
dsv4_status queue_wait(dsv4_queue *, dsv4_error *) { return DSV4_OK; }

dsv4_status buffer_create(dsv4_device *, const dsv4_shape *shape, int32_t kind, int32_t rows, dsv4_buffer **out,
                          dsv4_error *err) {
    return guard(err, [&] {
        if (rows < 0) fail(DSV4_E_INVALID, "a buffer of %d rows", rows);
        const int64_t width = buffer_width(*shape, kind);
        *out = new dsv4_buffer{kind, rows, width, lazy_floats(uint64_t(width) * uint64_t(rows))};
    });
}
void buffer_release(dsv4_buffer *buffer) { delete buffer; }

dsv4_status buffer_write(dsv4_queue *, dsv4_buffer *buffer, int32_t first, int32_t rows, const float *values,
                         dsv4_error *err) {
    return guard(err, [&] {
        check_rows(buffer, first, rows);
        std::memcpy(buffer->row(first), values, size_t(rows) * size_t(buffer->width) * sizeof(float));
    });
}

dsv4_status buffer_read(dsv4_queue *, const dsv4_buffer *buffer, int32_t first, int32_t rows, float *values,
                        dsv4_error *err) {
    return guard(err, [&] {
        check_rows(buffer, first, rows);
        std::memcpy(values, buffer->row(first), size_t(rows) * size_t(buffer->width) * sizeof(float));
    });
}

dsv4_status buffer_copy(dsv4_queue *, const dsv4_buffer *from, int32_t from_row, dsv4_buffer *to, int32_t to_row,
                        int32_t rows, dsv4_error *err) {
    return guard(err, [&] {
        check_rows(from, from_row, rows);
        check_rows(to, to_row, rows);
        if (from->kind != to->kind || from->width != to->width) fail(DSV4_E_INVALID, "buffer_copy between two kinds");
        std::memmove(to->row(to_row), from->row(from_row), size_t(rows) * size_t(to->width) * sizeof(float));
    });
}

}  // namespace

const dsv4_memory_ops memory_ops = {sizeof(dsv4_memory_ops), 0, queue_create, queue_release, queue_wait,
                                    buffer_create, buffer_release, buffer_write, buffer_read, buffer_copy};

}  // namespace dsv4::reference
