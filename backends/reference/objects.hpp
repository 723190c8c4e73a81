// What the opaque types of the plugin ABI are in this backend: float32 rows in plain memory, weights as mapped.
#pragma once
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <new>
#include <vector>
#include "dsv4/dsv4_backend.h"

namespace dsv4::reference {

/// Why an operator cannot go on; guard() turns it into a status.
struct Failure {
    dsv4_status status;
    char message[200];
};

[[noreturn]] inline void fail(dsv4_status status, const char *format, ...) {
    Failure f{status, {}};
    va_list args;
    va_start(args, format);
    std::vsnprintf(f.message, sizeof f.message, format, args);
    va_end(args);
    throw f;
}

inline dsv4_status report(dsv4_error *err, dsv4_status status, const char *what) noexcept {
    if (err && err->struct_size >= sizeof *err) {
        err->status = status;
        err->native_code = 0;
        std::snprintf(err->message, sizeof err->message, "reference: %s", what);
    }
    return status;
}

/// Every function of the tables is `return guard(err, [&] { ... });`.
template <class Body> dsv4_status guard(dsv4_error *err, Body &&body) noexcept {
    try {
        body();
        return DSV4_OK;
    } catch (const Failure &f) {
        return report(err, f.status, f.message);
    } catch (const std::bad_alloc &) {
        return report(err, DSV4_E_NO_MEMORY, "out of memory");
    } catch (...) {
        return report(err, DSV4_E_INTERNAL, "unexpected exception");
    }
}

struct FreeDeleter {
    void operator()(float *p) const { std::free(p); }
};
/// Zeroed floats whose pages cost nothing until they are touched: a pool for a long context is mostly never used.
using LazyFloats = std::unique_ptr<float[], FreeDeleter>;
inline LazyFloats lazy_floats(uint64_t count) {
    if (count > SIZE_MAX / sizeof(float)) throw std::bad_alloc();
    auto *p = static_cast<float *>(std::calloc(count ? size_t(count) : 1, sizeof(float)));
    if (!p) throw std::bad_alloc();
    return LazyFloats(p);
}

/// One matrix or vector of the checkpoint, decoded row by row on use.
struct Weight {
    dsv4_tensor tensor;
    bool quantised() const { return tensor.dtype == DSV4_FP8_E4M3 || tensor.dtype == DSV4_FP4_E2M1; }
    int64_t rows() const { return tensor.rank == 1 ? 1 : tensor.shape[0]; }
    int64_t columns() const { return tensor.rank == 1 ? tensor.shape[0] : tensor.shape[1]; }
    /// Row r as float32, dequantised exactly.
    void decode_row(int64_t r, float *out) const;
    int64_t integer(int64_t index) const;
};

/// t.bytes into data and, where t has scales, t.scale_bytes into scale.
void make_random(const dsv4_tensor &t, uint8_t *data, uint8_t *scale);

}  // namespace dsv4::reference

struct dsv4_device {
    bool official;
};

struct dsv4_queue {
    dsv4_device *device;
};

struct dsv4_buffer {
    int32_t kind;
    int32_t rows;
    int64_t width;  // elements per row
    dsv4::reference::LazyFloats data;
    float *row(int64_t r) { return data.get() + r * width; }
    const float *row(int64_t r) const { return data.get() + r * width; }
};

struct dsv4_block {
    bool official;
    dsv4_shape shape;
    int32_t kind, index, ratio;
    std::vector<float> rope_frequency;                      // [R/2]
    std::vector<dsv4::reference::Weight> weights;           // by role
    std::vector<std::unique_ptr<uint8_t[]>> made;           // what was described as random
    std::vector<int32_t> by_role;                           // role -> index in weights, -1 if absent
    std::vector<int32_t> expert_w1, expert_w2, expert_w3;   // expert -> index in weights

    const dsv4::reference::Weight *find(int32_t role) const {
        const int32_t i = role < int32_t(by_role.size()) ? by_role[size_t(role)] : -1;
        return i < 0 ? nullptr : &weights[size_t(i)];
    }
    const dsv4::reference::Weight &need(int32_t role) const {
        const auto *w = find(role);
        if (!w) dsv4::reference::fail(DSV4_E_INVALID, "block %d of kind %d: no weight of role %d was given", index, kind, role);
        return *w;
    }
};

struct dsv4_cache {
    dsv4_shape shape;
    int32_t ratio;
    dsv4_cache_desc desc;
    int32_t state_rows;                      // of one slot
    int64_t state_width;                     // floats: kv and score of the compressor, then of the indexer's
    dsv4::reference::LazyFloats window;      // [slots, window_rows, d]
    dsv4::reference::LazyFloats state;       // [slots, state_rows, state_width]
    dsv4::reference::LazyFloats entries;     // [blocks, block_tokens / r, d]
    dsv4::reference::LazyFloats index_keys;  // [blocks, block_tokens / 4, di]

    float *window_row(int32_t slot, int32_t position) const {
        return window.get() + (int64_t(slot) * desc.window_rows + position % desc.window_rows) * shape.head_dim;
    }
    float *state_row(int32_t slot, int32_t position) const {
        return state.get() + (int64_t(slot) * state_rows + position % state_rows) * state_width;
    }
    int64_t entry_row(const int32_t *block_table, int64_t entry) const {
        const int64_t per_block = desc.block_tokens / ratio;
        return block_table[entry / per_block] * per_block + entry % per_block;
    }
};

struct dsv4_batch {
    int32_t max_tokens, max_sequences, max_blocks;
    int32_t tokens = 0, sequences = 0, blocks_per_sequence = 0, outputs = 0;
    std::vector<int32_t> token, position, sequence, first, slot, block_table, output_row;

    int32_t slot_of(int32_t t) const { return slot[size_t(sequence[size_t(t)])]; }
    const int32_t *table_of(int32_t t) const {
        return block_table.data() + int64_t(sequence[size_t(t)]) * blocks_per_sequence;
    }
};
