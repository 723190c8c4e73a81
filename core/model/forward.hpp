// The model on a device: its weights, its caches, the activations of a step, and the forward pass over them.
#pragma once
#include <functional>
#include <memory>
#include <vector>
#include "core/model/inventory.hpp"
#include "core/model/step.hpp"
#include "core/model/step_graph.hpp"
#include "core/plugin/device.hpp"

namespace dsv4 {

/// The weights as the backend holds them.
struct Network {
    dsv4_shape shape;
    Block ends{nullptr, nullptr};
    std::vector<Block> layers, mtp;
    std::vector<int32_t> layer_ratio, mtp_ratio;
};

/// on_progress(bytes done, bytes total) returns false to stop the load (DSV4_E_CANCELLED).
using Progress = std::function<bool(uint64_t, uint64_t)>;
Network load_network(const Device &device, const dsv4_shape &shape, const ModelWeights &weights, int32_t expert_tier,
                     const Progress &on_progress);

/// How much a forward pass can take at once, and what its caches hold.
struct Capacity {
    int32_t tokens;        // T of a step
    int32_t sequences;     // S of a step
    int32_t outputs;       // rows of logits of a step
    dsv4_cache_desc cache; // struct_size set
    int32_t blocks_per_sequence;
};

class Forward {
  public:
    /// Keeps references to both. Caches are made for the MTP blocks that the network has.
    Forward(const Device &device, const Network &network, const Capacity &capacity);
    Forward(const Forward &) = delete;
    Forward &operator=(const Forward &) = delete;
    /// Waits: nothing of a step may be left to do on what is released.
    ~Forward();

    const Capacity &capacity() const { return capacity_; }

    /// One step through every layer. logits: [step.outputs(), V], filled when the step has outputs.
    void run(Step &step, std::vector<float> &logits);

    /// The same, and what rows [step.outputs()] want is sampled on the device: ids [step.outputs()], tokens or
    /// DSV4_SAMPLED_*. The logits of rows that want nothing are read instead: [so many, V], in the order of the
    /// outputs. Where the device does not sample, no row may want anything.
    void run(Step &step, const std::vector<dsv4_sample_row> &rows, std::vector<int32_t> &ids,
             std::vector<float> &logits);
    bool samples() const { return sampler_ != nullptr; }
    /// Biases that the rows of one step may have together.
    static constexpr int32_t most_biases = 4096;

    /// After run() on tokens [start, start + count) of one sequence, whose ids are `tokens` and all known: the drafts
    /// that these streams allow. Row t drafts token t + 2 and needs token t + 1; it must follow rows 0 .. t - 1 of the
    /// same sequence. on_draft(position, logits [V]) for the positions that are wanted.
    void draft(int32_t depth, const std::vector<int32_t> &tokens, int32_t start, int32_t count, int32_t slot,
               const std::vector<int32_t> &blocks, const std::function<bool(int32_t)> &wanted,
               const std::function<void(int32_t, const float *)> &on_draft);

    // The parts of run(), for tests that feed one layer alone.
    void begin(Step &step);
    void layer(int32_t index);
    dsv4_buffer *streams() const { return streams_.get(); }
    dsv4_buffer *selection() const { return selection_.get(); }  // of the last CSA layer
    dsv4_buffer *route() const { return route_.get(); }          // of the last layer
    StepGraphs &graphs() { return graphs_; }

  private:
    void block(const dsv4_block *weights, dsv4_cache *cache, int32_t ratio, dsv4_buffer *streams);
    void read_logits(const std::vector<dsv4_sample_row> &rows, std::vector<float> &logits);

    const Device &device_;
    const Network &network_;
    Capacity capacity_;
    std::vector<Cache> layer_cache_, mtp_cache_;
    Batch batch_{nullptr, nullptr};
    Buffer streams_, x_, mix_, q_, qr_, o_, selection_, route_, y_, logits_;
    DeviceSampler sampler_{nullptr, nullptr};  // NULL: the device does not sample
    Buffer mtp_in_{nullptr, nullptr}, mtp_streams_{nullptr, nullptr};
    bool ran_ = false;   // a step: something of it may be left to do
    StepGraphs graphs_;  // of run(); last, because they point at all of the above
};

}  // namespace dsv4
