// A loaded model: checkpoint, device, weights on it, and the engine that runs them.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include "core/engine/engine.hpp"
#include "core/engine/filter.hpp"
#include "core/text/tokenizer.hpp"
#include "core/model/inventory.hpp"
#include "core/runtime.hpp"

namespace dsv4 {

class Model {
  public:
    Model(std::shared_ptr<Runtime> runtime, const std::string &path, const dsv4_model_options &options);

    const Config &config() const { return config_; }
    const Runtime &runtime() const { return *runtime_; }
    const Device &device() const { return *device_; }
    Engine &engine() const { return *engine_; }
    int32_t max_context() const { return max_context_; }
    int32_t max_sessions() const { return engine_->capacity().cache.slots; }
    dsv4_model_info info() const;
    /// The checkpoint's tokenizer.json, read when it is first asked for. [any thread]
    std::shared_ptr<const Tokenizer> tokenizer() const;
    /// Grammars over its vocabulary. [any thread]
    Constraints &constraints() const;
    /// Which prompt format the checkpoint was trained on.
    std::string_view dialect() const { return config_.dspark ? "0731" : "preview"; }

  private:
    // Destroyed in reverse: the engine's thread first, then what it works on.
    std::shared_ptr<Runtime> runtime_;
    std::string path_;
    mutable std::mutex tokenizer_mutex_;
    mutable std::shared_ptr<const Tokenizer> tokenizer_;
    mutable std::unique_ptr<Constraints> constraints_;
    Config config_;
    ModelWeights weights_;
    std::shared_ptr<const void> synthetic_;  // keeps made-up weights valid; NULL: there is a checkpoint
    std::unique_ptr<Device> device_;
    Network network_;
    std::unique_ptr<Engine> engine_;
    int32_t max_context_ = 0;
    uint64_t cache_bytes_ = 0, decode_bytes_ = 0, weight_bytes_ = 0;
    uint32_t draft_blocks_ = 0;
};

}  // namespace dsv4

struct dsv4_model {
    std::shared_ptr<dsv4::Model> model;
};
