// What the opaque types of the plugin ABI are here. All memory is host memory; a queue runs everything at once, so its
// only content is scratch space.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>
#include "backends/cpu/boundary.hpp"
#include "backends/cpu/kernels.hpp"
#include "backends/cpu/pool.hpp"

namespace dsv4::cpu {

class ExpertStore;

/// Zeroed pages straight from the kernel: a cache takes memory only as it fills.
class Pages {
  public:
    Pages() = default;
    Pages(size_t bytes, const char *what); // throws DSV4_E_NO_MEMORY, saying how much `what` needed
    ~Pages();
    Pages(Pages &&other) noexcept;
    Pages &operator=(Pages &&other) noexcept;
    uint8_t *data() const { return data_; }
    size_t size() const { return size_; }

  private:
    uint8_t *data_ = nullptr;
    size_t size_ = 0;
};

/// A promise of memory that fills later: pages are given when they are written, and a machine that has none left then
/// ends the process instead of a call. Together they never promise more than was there.
class Reservation {
  public:
    Reservation() = default;
    /// Throws DSV4_E_NO_MEMORY, saying what was needed, what is promised already and what the machine has.
    Reservation(std::shared_ptr<uint64_t> sum, uint64_t bytes, const char *what);
    ~Reservation();
    Reservation(Reservation &&other) noexcept;
    Reservation &operator=(Reservation &&other) noexcept;

  private:
    std::shared_ptr<uint64_t> sum_; // of the device
    uint64_t bytes_ = 0;
};

enum Scratch { // one slot each, so that pieces that live at the same time do not share
    SCRATCH_PACK, SCRATCH_ROUNDED, SCRATCH_A, SCRATCH_B, SCRATCH_C, SCRATCH_D, SCRATCH_E, SCRATCH_F, SCRATCH_COUNT
};

} // namespace dsv4::cpu

struct dsv4_device {
    dsv4_device();
    ~dsv4_device();
    const dsv4::cpu::Kernels *kernels = nullptr;
    std::unique_ptr<dsv4::cpu::Tables> tables;
    std::unique_ptr<dsv4::cpu::Pool> pool;
    int32_t numerics = DSV4_NUMERICS_NATIVE;
    uint32_t capabilities = 0;
    std::vector<int> node_of_part;     // memory nodes of pinned threads; empty where there is one node, or no pinning
    uint64_t placed = 0;               // bytes that place_weights() has brought to their nodes
    std::vector<std::shared_ptr<void>> libraries; // by thread; empty unless the variant brings some

    std::shared_ptr<uint64_t> reserved = std::make_shared<uint64_t>(0); // bytes of caches
    std::unique_ptr<dsv4::cpu::ExpertStore> store; // experts on disk
    std::vector<dsv4_block *> hash_blocks;         // those on disk that route by token id, in the model's order

    void *library(int thread) const { return libraries.empty() ? nullptr : libraries[size_t(thread)].get(); }
    bool exact() const { return numerics == DSV4_NUMERICS_EXACT; }
    bool official() const { return numerics == DSV4_NUMERICS_OFFICIAL; }
};

struct dsv4_queue {
    dsv4_device *device = nullptr;
    dsv4::cpu::Pages slots[dsv4::cpu::SCRATCH_COUNT];

    /// At least `count` floats, 64-byte aligned; what the slot held before is lost.
    float *floats(dsv4::cpu::Scratch slot, size_t count);
};

struct dsv4_buffer {
    int32_t kind = 0, rows = 0;
    int64_t width = 0;  // elements of 4 bytes per row: float32; SELECTION int32; ROUTE k int32, then k float32
    dsv4::cpu::Pages pages;
    float *row(int64_t r) const { return reinterpret_cast<float *>(pages.data()) + r * width; }
    int32_t *ints(int64_t r) const { return reinterpret_cast<int32_t *>(row(r)); }
};

struct dsv4_block {
    dsv4_shape shape{};
    int32_t kind = 0, index = 0, ratio = 0;
    dsv4::cpu::Matrix matrices[80] = {};          // by role; data NULL: absent
    std::vector<float> vectors[80];               // norms, biases, bases, scales, sinks, ape: float32
    std::vector<dsv4::cpu::Matrix> experts[3];    // w1, w2, w3 by expert
    std::vector<int64_t> stored;                  // by expert, into the store; empty: experts are in memory
    dsv4::cpu::ExpertStore *store = nullptr;
    dsv4_device *registered_at = nullptr;         // among its hash_blocks
    ~dsv4_block();
    const uint8_t *tid2eid = nullptr;
    int32_t tid2eid_bytes = 8;
    int64_t tid2eid_rows = 0;
    std::vector<float> rope;                      // [R/2]

    const dsv4::cpu::Matrix &matrix(int32_t role) const;
    const float *vector(int32_t role) const;
    bool has(int32_t role) const { return matrices[role].data || !vectors[role].empty(); }
    std::string name() const;
};

struct dsv4_cache {
    dsv4_shape shape{};
    dsv4_cache_desc desc{};
    int32_t ratio = 0, channels = 0;              // channels: of one state row's kv, c*d
    int32_t state_rows = 0, entries_per_block = 0, row_bytes = 0, key_bytes = 0;
    bool rows_are_float = false, keys_are_float = false;
    dsv4::cpu::Reservation reserved;
    dsv4::cpu::Pages window, state, index_state, entries, keys;

    uint8_t *window_row(int32_t slot, int32_t position) const {
        return window.data() + (int64_t(slot) * desc.window_rows + position % desc.window_rows) * row_bytes;
    }
    /// [2][channels]: kv, then score
    float *state_row(int32_t slot, int32_t position) const {
        return reinterpret_cast<float *>(state.data()) +
               (int64_t(slot) * state_rows + position % state_rows) * 2 * channels;
    }
    float *index_state_row(int32_t slot, int32_t position) const {
        return reinterpret_cast<float *>(index_state.data()) +
               (int64_t(slot) * state_rows + position % state_rows) * 4 * shape.index_dim;
    }
    uint8_t *entry(int32_t block, int32_t row) const {
        return entries.data() + (int64_t(block) * entries_per_block + row) * row_bytes;
    }
    uint8_t *key(int32_t block, int32_t row) const {
        return keys.data() + (int64_t(block) * entries_per_block + row) * key_bytes;
    }
};

struct dsv4_batch {
    int32_t max_tokens = 0, max_sequences = 0, max_blocks = 0;
    int32_t tokens = 0, sequences = 0, blocks_per_sequence = 0, outputs = 0;
    std::vector<int32_t> token, position, sequence, first, slot, block_table, output_row;

    /// Cosines and sines of every token's position for these frequencies, [T][R]; kept until the next step.
    const float *turns(const std::vector<float> &frequency) const;
    int32_t block_of(int32_t sequence_index, int32_t position_in_blocks) const {
        return block_table[size_t(sequence_index) * size_t(blocks_per_sequence) + size_t(position_in_blocks)];
    }

    struct Turns {
        std::vector<float> frequency, values;
        bool current = false;
    };
    mutable std::vector<Turns> turns_;
};

namespace dsv4::cpu {

/// One matrix product of a step: y[t, n - row0] = sum_k x[t, k] w[n, k].
struct Product {
    const Matrix *w;
    const float *x;
    int64_t ldx;
    float *y;
    int64_t ldy;
    int32_t row0, row1;
    bool float_input = false; // float32 activations whatever the numerics (mHC)
    bool unrounded = false;   // official: the input is not rounded to FP8, the output not to bf16
    bool keep_output = false; // official: the output is not rounded to bf16
};

/// All of them on the same `tokens` rows, in parallel over the rows of the matrices.
void multiply(dsv4_queue &queue, int32_t tokens, const Product *products, int32_t count);

Product whole(const Matrix &w, const float *x, float *y);

bool takes_narrow(const dsv4_device &device, const Matrix &w);
bool is_quantized(const Matrix &w);

/// rmsnorm of one row, in place or not; weight may be NULL; official: rounded to bf16.
void norm_row(const dsv4_device &device, const float *x, const float *weight, float eps, int64_t n, float *out);

/// A latent row of d float32 into a cache row, and back.
void store_row(const dsv4_device &device, const float *x, int64_t n, bool as_float, uint8_t *out);
void load_row(const dsv4_device &device, const uint8_t *row, int64_t n, bool is_float, float *out);

extern const dsv4_memory_ops memory_ops;
extern const dsv4_model_ops model_ops;
extern const dsv4_ends_ops ends_ops;
extern const dsv4_hc_ops hc_ops;
extern const dsv4_attention_ops attention_ops;
extern const dsv4_moe_ops moe_ops;
extern const dsv4_mtp_ops mtp_ops;

/// The parts of attention_ops, one file each.
dsv4_status attention_project(dsv4_queue *, const dsv4_batch *, const dsv4_block *, dsv4_cache *, const dsv4_buffer *,
                              dsv4_buffer *, dsv4_buffer *, dsv4_error *);
dsv4_status attention_compress(dsv4_queue *, const dsv4_batch *, const dsv4_block *, dsv4_cache *, const dsv4_buffer *,
                               dsv4_error *);
dsv4_status attention_select(dsv4_queue *, const dsv4_batch *, const dsv4_block *, const dsv4_cache *,
                             const dsv4_buffer *, const dsv4_buffer *, dsv4_buffer *, dsv4_error *);

/// Experts that stay on disk and are chosen by token ids are read ahead of their layer (prefetch.cpp).
void register_hash_block(dsv4_device &device, dsv4_block &block);
void forget_hash_block(dsv4_device &device, const dsv4_block &block);
void expect_hash_experts(dsv4_device &device, const dsv4_batch &batch);

/// Several memory nodes and pinned threads: brings every matrix's rows to the node of the part that reads them, as far
/// as memory goes (placement.cpp). Otherwise nothing.
void place_weights(dsv4_device &device, const dsv4_block &block);

/// A line for the host's log; 0 error, 1 warning, 2 info.
void log_line(int32_t level, const std::string &line);

/// The head's part that MTP needs too: rmsnorm(hc_head(streams)) of chosen rows is in ends.cpp; this is the collapse.
void hc_head_row(const dsv4_device &device, const dsv4_block &from, const float *mix, const float *streams, float *out);

} // namespace dsv4::cpu
