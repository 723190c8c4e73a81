// What a checkpoint needs and where it fits, in bytes, from headers alone.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "core/model/host_memory.hpp"
#include "core/model/inventory.hpp"

namespace dsv4 {

/// A device that could run the model. memory_free is what a process could allocate there now.
struct PlanDevice {
    std::string name, backend;
    uint64_t memory_total = 0, memory_free = 0;
    bool is_host = false; // computes in the machine's memory, on the mapped checkpoint or a copy of it

    // What the backend itself says (block_bytes and cache_bytes of dsv4_model_ops), 0 where it was not asked: then the
    // checkpoint's own bytes and the published cache formats count.
    uint64_t weights_bytes = 0;    // of everything but the routed experts
    uint64_t experts_bytes = 0;    // of the routed experts
    uint64_t slot_bytes = 0;       // of one session, whatever its context
    uint64_t block_bytes = 0;      // of block_tokens tokens of context
    uint64_t block_tokens = 0;
};

struct PlanOptions {
    uint64_t context = 0; // tokens per session; 0 = the model's maximum
    uint64_t sessions = 1;
    HostMemory host; // host_memory()
    std::vector<PlanDevice> devices;
};

struct PlanGroup {
    const char *name;
    uint64_t tensors = 0, bytes = 0; // scales included
    uint64_t scale_bytes = 0;
    uint64_t read_per_token = 0; // bytes of it that one decoded token reads, drafting off
};

/// Cache of one session in the published formats: FP8 rows with rotated dims in bf16, FP4 index keys, float32
/// compressor state.
struct PlanCache {
    uint64_t row_bytes = 0, index_row_bytes = 0;
    double bytes_per_token = 0; // grows with the context
    uint64_t window_bytes = 0, state_bytes = 0;
    uint64_t context = 0, entry_bytes = 0; // entries and index keys of so many tokens
    uint64_t read_per_token = 0;           // when decoding at the end of the context
    uint64_t session_bytes() const { return window_bytes + state_bytes + entry_bytes; }
};

enum class Fit {
    kResident, // weights and cache in the device's memory
    kExperts,  // all but some routed experts, which stay in host memory or on disk
    kMapped,   // host: cache in memory, weights read from disk again and again
    kNo
};
const char *fit_name(Fit fit);

struct Placement {
    PlanDevice device;
    Fit fit = Fit::kNo;
    uint64_t cache = 0;   // of all sessions, in this backend's formats
    uint64_t needed = 0;  // weights and cache
    uint64_t missing = 0; // of needed, beyond memory_free
    uint64_t least = 0;   // the smallest memory_free that runs at all
    uint64_t experts_on_device = 0, experts_total = 0, experts_outside_bytes = 0;
    bool outside_in_host_memory = false; // else those experts are read from disk
    uint64_t context_that_fits = 0;      // tokens per session with which it runs at all; 0 = none
    uint64_t context_resident = 0;       // the same with all weights in memory
    std::string words;
};

struct Plan {
    std::string directory;
    uint64_t files = 0, total_tensors = 0, total_bytes = 0;
    std::vector<PlanGroup> groups; // sum to used_*
    uint64_t used_tensors = 0, used_bytes = 0, scale_bytes = 0;
    uint64_t unused_tensors = 0, unused_bytes = 0; // used + unused == total
    std::vector<UnusedGroup> unused;
    std::vector<std::string> degradations;
    dsv4_shape shape{};
    uint64_t window_layers = 0, csa_layers = 0, hca_layers = 0, mtp_blocks = 0;
    PlanCache cache;
    uint64_t sessions = 1, cache_bytes = 0; // of all sessions
    uint64_t read_per_token = 0;            // weights
    HostMemory host;
    std::vector<Placement> placements;
};

/// Throws Error (DSV4_E_CONTEXT) when options.context is more than the model has, DSV4_E_INVALID for 0 sessions.
Plan make_plan(const ModelWeights &weights, const PlanOptions &options);
/// One JSON object, UTF-8, indented.
std::string plan_json(const Plan &plan);

} // namespace dsv4
