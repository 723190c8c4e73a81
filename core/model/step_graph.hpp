// Small steps as one launch: where the backend records graphs, the operators of a decode step are recorded once per
// bucket of sizes and launched from then on. What a step writes is the same either way, bit for bit; a backend without
// graphs, and every step that no bucket takes, runs its operators one by one.
#pragma once
#include <cstdint>
#include <functional>
#include <list>
#include "core/plugin/device.hpp"

namespace dsv4 {

class StepGraphs {
  public:
    /// tokens, sequences, outputs: the most a step may bring.
    StepGraphs(const Device &device, int32_t tokens, int32_t sequences, int32_t outputs)
        : device_(device), tokens_(tokens), sequences_(sequences), outputs_(outputs) {}

    /// Runs `operators` on the step that `batch` holds. They may call operators on the device's queue and nothing else,
    /// and must be the same for the same batch, the same answer to "any outputs?" and the same `kind`.
    void run(dsv4_batch *batch, const dsv4_step &step, int32_t kind, const std::function<void()> &operators);

    void enable(bool on) { enabled_ = on; }
    uint64_t launches() const { return launches_; }
    uint64_t recorded() const { return recorded_; }

  private:
    struct Recorded {
        dsv4_batch *batch;
        int32_t kind;
        dsv4_graph_limits limits;
        Handle<dsv4_graph> graph; // NULL after the bucket's first step, which runs plainly: it may stay the only one
    };
    bool bucket(const dsv4_step &step, dsv4_graph_limits &limits) const;
    bool record(Recorded &entry, const std::function<void()> &operators);

    const Device &device_;
    int32_t tokens_, sequences_, outputs_;
    bool enabled_ = true;
    std::list<Recorded> entries_; // the last used first
    uint64_t launches_ = 0, recorded_ = 0;
};

}  // namespace dsv4
