// What the opaque types of the plugin ABI are on a GPU, and the views of them that kernels take by value.
#pragma once
#include "backends/gpu/boundary.hpp"
#include "backends/gpu/portable.hpp"
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace dsv4::gpu {

constexpr int most_streams = 16; // M; a token's mixing weights are kept in registers
constexpr int role_count = 80;

/// A weight in the checkpoint's own bytes, in device memory: [rows, columns], row-major, data and scale aligned to 16.
/// FP4 rows are columns / 2 bytes. data NULL: absent.
struct Matrix {
    const uint8_t *data, *scale;
    int32_t dtype, scale_dtype; // DSV4_F32 ..., scale_dtype 0: no scales
    int32_t rows, columns;
    int32_t scale_block_rows, scale_block_columns; // one scale covers so many; 1, 1 without scales
    int32_t scale_columns;                         // row length of the scales
    int64_t row_bytes;
};

inline bool is_quantized(const Matrix &m) { return m.dtype == DSV4_FP8_E4M3 || m.dtype == DSV4_FP4_E2M1; }

/// How many rows a kernel has: the grid is made for `grid`, and rows from live() on do nothing. While a graph is
/// recorded grid is the bucket's, else both are the same.
struct Rows {
    int32_t grid;
    const int32_t *count; // device
    int32_t times;        // rows per counted thing
    __device__ __forceinline__ int32_t live() const { return *count * times; }
};

/// The step on the device; every pointer is device memory that stays where it is for the batch's life.
struct StepView {
    const int32_t *counts;                      // tokens, sequences, outputs, blocks_per_sequence
    const int32_t *token, *position, *sequence; // [tokens]
    const int32_t *first;                       // [sequences + 1]
    const int32_t *slot;                        // [sequences]
    const int32_t *output_row;                  // [outputs]
    const int32_t *block_table;                 // [sequences, blocks_per_sequence]

    __device__ __forceinline__ int32_t tokens() const { return counts[0]; }
    __device__ __forceinline__ int32_t sequences() const { return counts[1]; }
    __device__ __forceinline__ int32_t outputs() const { return counts[2]; }
    __device__ __forceinline__ int32_t slot_of(int32_t t) const { return slot[sequence[t]]; }
    __device__ __forceinline__ const int32_t *table_of(int32_t t) const {
        return block_table + int64_t(sequence[t]) * counts[3];
    }
};

/// A cache on the device. Rows of `row_bytes`: float32, or d - R E4M3 values, R bf16, one E8M0 per 64 of the former,
/// padded to 8 (584 bytes for 512, 64). Keys of `key_bytes`: float32, or di / 2 bytes of E2M1 pairs and di / 32 of
/// E8M0.
struct CacheView {
    uint8_t *window, *entries, *keys;
    float *state, *index_state; // rows of [2][channels] and [2][2 di]: kv, then score
    int32_t ratio, head_dim, rope_dims, index_dim, channels;
    int32_t window_rows, state_rows, entries_per_block, block_tokens;
    int32_t row_bytes, key_bytes;
    bool rows_are_float, keys_are_float;

    __device__ __forceinline__ uint8_t *window_row(int32_t slot, int32_t position) const {
        return window + (int64_t(slot) * window_rows + position % window_rows) * row_bytes;
    }
    __device__ __forceinline__ float *state_row(int32_t slot, int32_t position) const {
        return state + (int64_t(slot) * state_rows + position % state_rows) * 2 * channels;
    }
    __device__ __forceinline__ float *index_state_row(int32_t slot, int32_t position) const {
        return index_state + (int64_t(slot) * state_rows + position % state_rows) * 4 * index_dim;
    }
    /// Entry e of the sequence whose block table this is.
    __device__ __forceinline__ uint8_t *entry(const int32_t *table, int32_t e) const {
        return entries +
               (int64_t(table[e / entries_per_block]) * entries_per_block + e % entries_per_block) * row_bytes;
    }
    __device__ __forceinline__ uint8_t *key(const int32_t *table, int32_t e) const {
        return keys + (int64_t(table[e / entries_per_block]) * entries_per_block + e % entries_per_block) * key_bytes;
    }
};

/// Device memory (or pinned host memory) that goes with its owner.
class Memory {
  public:
    Memory() = default;
    Memory(const dsv4_device &device, size_t bytes, const std::string &what, bool pinned = false);
    ~Memory();
    Memory(Memory &&other) noexcept { *this = std::move(other); }
    Memory &operator=(Memory &&other) noexcept {
        std::swap(data_, other.data_);
        std::swap(size_, other.size_);
        std::swap(device_, other.device_);
        std::swap(pinned_, other.pinned_);
        return *this;
    }
    uint8_t *data() const { return data_; }
    size_t size() const { return size_; }

  private:
    uint8_t *data_ = nullptr;
    size_t size_ = 0;
    int device_ = 0;
    bool pinned_ = false;
};

enum Scratch { // one slot each, so that pieces that live at the same time do not share
    SCRATCH_A,
    SCRATCH_B,
    SCRATCH_C,
    SCRATCH_D,
    SCRATCH_E,
    SCRATCH_F,
    SCRATCH_G,
    SCRATCH_H,
    SCRATCH_PARTIAL,   // of linear: sums of segments
    SCRATCH_PARTIAL_2, // of a second product at the same time
    SCRATCH_ROUNDED,   // of linear: rounded inputs
    SCRATCH_COUNT
};

} // namespace dsv4::gpu

struct dsv4_device {
    int index = 0;
    int32_t numerics = DSV4_NUMERICS_NATIVE;
    dsv4::gpu::Properties properties;
    bool exact() const { return numerics == DSV4_NUMERICS_EXACT; }
    bool official() const { return numerics == DSV4_NUMERICS_OFFICIAL; }
    bool native() const { return numerics == DSV4_NUMERICS_NATIVE; }
};

struct dsv4_queue {
    explicit dsv4_queue(const dsv4_device &d);
    ~dsv4_queue();
    const dsv4_device &device;
    /// Of all that happens in order. What runs beside it is done before what comes next.
    dsv4::gpu::Stream stream();
    dsv4_batch *recording = nullptr; // the batch of the graph that is being recorded
    dsv4_graph_limits limits{};      // of that graph
    std::vector<dsv4::gpu::Event> stamps;

    /// At least `count` elements, aligned to 256; what the slot held before is lost. The address is good until the slot
    /// is asked for again, and inside a graph for ever.
    template <class T> T *scratch(dsv4::gpu::Scratch slot, size_t count) {
        return reinterpret_cast<T *>(scratch_bytes(slot, count * sizeof(T)));
    }

    /// Operators of a layer that do not need each other may run side by side. Everything up to fork(), and up to
    /// fork_later(), is what they may need: beside() is then a queue of its own, with its own scratch memory, as long
    /// as nothing has been put on the stream since keep_fork(); else this one.
    void fork();
    void fork_later();
    void keep_fork() { forked_ = true; }
    dsv4_queue &beside(bool needs_later);

    /// Products that project does for compress and select: with its own first ones, and before the one that takes all
    /// of the card. Of what, and where they are. Good as long as there is a fork.
    struct Early {
        const dsv4_batch *batch;
        const dsv4_block *block;
        const float *x, *qr;      // qr NULL: of compress alone
        float *compress[4];       // in the order of compress_products()
        float *queries, *weights; // index_products()
        bool of(const dsv4_batch *b, const dsv4_block *w, const float *input) const {
            return batch == b && block == w && x == input;
        }
    } early{};

    /// What an operator wrote: where, for what step, with what weights.
    struct Result {
        const void *written; // memory
        const dsv4_batch *batch;
        const dsv4_block *block; // or NULL
        bool operator==(const Result &) const = default;
    };
    /// The end of an operator that the next one may do better on the way: it runs when anything else is put on the
    /// stream. take_put_off(): if it is this the caller does it, or puts it off again; else empty.
    using Work = std::function<void(dsv4::gpu::Stream)>;
    void put_off(const Result &what, Work work);
    Work take_put_off(const Result &what);
    struct Expansion {
        const float *y, *mix;
    } expansion{}; // of hc.post, put off
    /// What the operator says that put something on the stream last, until something else is: this was there before
    /// what it began with, a product (enter_product).
    void note(const Result &what) { noted_ = what; }
    bool still(const Result &what) const { return noted_ == what; }
    /// Forgets the graph that is being recorded, whatever state it is in.
    void abandon_recording() noexcept;

  private:
    enum { FORK, FORK_LATER, JOINED, EVENT_COUNT };
    dsv4::gpu::Stream stream_ = nullptr;
    std::unique_ptr<dsv4_queue> beside_;
    dsv4::gpu::Event events_[EVENT_COUNT] = {};
    bool forked_ = false, running_beside_ = false;
    Result put_off_{}, noted_{};
    Work put_off_work_;
    dsv4::gpu::Event &event(int which);
    uint8_t *scratch_bytes(dsv4::gpu::Scratch slot, size_t bytes);
    dsv4::gpu::Memory slots_[dsv4::gpu::SCRATCH_COUNT];
    std::vector<dsv4::gpu::Memory> retired_; // grown out of; graphs may point at them
};

struct dsv4_buffer {
    int32_t kind = 0, rows = 0;
    int64_t width = 0; // elements of 4 bytes per row: float32; SELECTION int32; ROUTE k int32, then k float32
    dsv4::gpu::Memory memory;
    float *row(int64_t r) const { return reinterpret_cast<float *>(memory.data()) + r * width; }
    int32_t *ints(int64_t r) const { return reinterpret_cast<int32_t *>(row(r)); }
};

struct dsv4_block {
    dsv4_shape shape{};
    int32_t kind = 0, index = 0, ratio = 0;
    dsv4::gpu::Matrix matrices[dsv4::gpu::role_count] = {}; // by role
    const float *vectors[dsv4::gpu::role_count] = {}; // by role, float32: norms, biases, bases, scales, sinks, ape
    struct Experts {
        const dsv4::gpu::Matrix *list = nullptr; // [E], an array in device memory
        dsv4::gpu::Matrix like{};                // what all of them are: types and sizes, no addresses
    };
    Experts w1, w2, w3;
    const int32_t *tid2eid = nullptr;      // [V, k]
    const float *rope = nullptr;           // [R/2]
    dsv4::gpu::Memory memory, host_memory; // everything above; the experts of DSV4_TIER_HOST

    /// Throw where the checkpoint lacks it.
    const dsv4::gpu::Matrix &matrix(int32_t role) const;
    const float *vector(int32_t role) const;
    const float *rope_frequency() const;
    bool has(int32_t role) const { return matrices[role].data || vectors[role]; }
    std::string name() const;
};

struct dsv4_cache {
    dsv4_shape shape{};
    dsv4_cache_desc desc{};
    dsv4::gpu::CacheView view{};
    dsv4::gpu::Memory memory;
};

struct dsv4_batch {
    dsv4_batch(const dsv4_device &device, const dsv4_shape &shape, int32_t tokens, int32_t sequences, int32_t blocks);
    ~dsv4_batch();
    int32_t vocab, max_tokens, max_sequences, max_blocks;
    int32_t tokens = 0, sequences = 0, blocks_per_sequence = 0, outputs = 0;
    int32_t positions = 0; // 1 + the largest of the step

    /// What grids are sized for: the step's own figures, or those of the bucket while a graph is recorded.
    int32_t grid_tokens = 0, grid_sequences = 0, grid_outputs = 0, grid_positions = 0;
    dsv4::gpu::StepView view{};
    dsv4::gpu::Rows token_rows(int32_t times = 1) const { return {grid_tokens * times, view.counts, times}; }
    dsv4::gpu::Rows output_rows() const { return {grid_outputs, view.counts + 2, 1}; }

    void set(dsv4_queue &queue, const dsv4_step &step);

  private:
    dsv4::gpu::Memory memory_, staging_[2]; // staging: pinned, in turn
    dsv4::gpu::Event uploaded_[2] = {};
    bool used_[2] = {};
    int next_ = 0;
};

namespace dsv4::gpu {

/// boundary() with the device made current: what every function that touches the device starts with.
template <class Body> dsv4_status on_device(dsv4_error *err, const dsv4_device &device, Body &&body) noexcept {
    return boundary(err, [&] {
        const Current current(device.index);
        body();
    });
}
template <class Body> dsv4_status on_device(dsv4_error *err, const dsv4_queue &queue, Body &&body) noexcept {
    return on_device(err, queue.device, std::forward<Body>(body));
}

} // namespace dsv4::gpu
