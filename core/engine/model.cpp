#include "core/engine/model.hpp"
#include <algorithm>
#include <cstring>
#include <numeric>
#include <optional>
#include "core/engine/capacity.hpp"
#include "core/engine/tokenizer_file.hpp"
#include "core/model/synthetic.hpp"

namespace dsv4 {
namespace {

constexpr std::string_view synthetic_prefix = "synthetic:";
/// Weight bytes that one token of one sequence reads: all of a layer but the experts that were not chosen, and one row
/// of the embedding.
uint64_t bytes_per_token(const ModelWeights &weights, const dsv4_shape &shape) {
    uint64_t sum = 0;
    const auto add = [&](const BlockWeights &b) {
        for (const dsv4_tensor &t : b.tensors) {
            const uint64_t bytes = t.bytes + t.scale_bytes;
            if (t.role == DSV4_ROLE_EMBED || t.role == DSV4_ROLE_GATE_TID2EID)
                sum += bytes / uint64_t(t.shape[0]);
            else
                sum += t.expert < 0 ? bytes : bytes * uint64_t(shape.active_experts) / uint64_t(shape.experts);
        }
    };
    add(weights.ends);
    for (const auto &b : weights.layers) add(b);
    return sum;
}

uint64_t bytes_of(const BlockWeights &b) {
    return std::accumulate(b.tensors.begin(), b.tensors.end(), uint64_t{0},
                           [](uint64_t sum, const dsv4_tensor &t) { return sum + t.bytes + t.scale_bytes; });
}

}  // namespace

Model::Model(std::shared_ptr<Runtime> runtime, const std::string &path, const dsv4_model_options &options)
    : runtime_(std::move(runtime)), path_(path) {
    if (options.flags & ~uint32_t(DSV4_MODEL_DRAFTS | DSV4_MODEL_PIN_THREADS))
        throw Error(DSV4_E_UNSUPPORTED, "model flags: found bits newer than this library: " + std::to_string(options.flags));
    expect_unused(options.reserved, "model options");
    std::optional<SyntheticModel> synthetic;
    if (path.rfind(synthetic_prefix, 0) == 0) {
        synthetic = describe_synthetic(path.substr(synthetic_prefix.size()));
    } else {
        weights_ = map_weights(Checkpoint::open(path));
        config_ = weights_.config();
        for (const std::string &d : weights_.degradations) runtime_->log().line(DSV4_LOG_WARNING, path + ": " + d);
        check_scales(weights_);
    }

    const LoadedBackend &backend = runtime_->registry().select({options.backend.data, options.backend.size});
    if (!backend.score)
        throw Error(DSV4_E_DEVICE, "backend '" + backend.name + "' cannot run on this machine: " + backend.why_not);
    dsv4_device_options device;
    DSV4_INIT(device);
    device.index = options.device;
    device.numerics = options.numerics;
    device.threads = options.threads;
    device.flags = options.flags & DSV4_MODEL_PIN_THREADS ? uint32_t(DSV4_DEVICE_PIN_THREADS) : 0;
    device.expert_budget = options.expert_budget;
    device_ = std::make_unique<Device>(*backend.table, device);
    const int32_t expert_tier = options.expert_budget ? DSV4_TIER_DISK : DSV4_TIER_DEVICE;
    if (synthetic) {
        provide_weights(*synthetic, *device_, expert_tier);
        config_ = std::move(synthetic->config);
        weights_ = std::move(synthetic->weights);
        synthetic_ = std::move(synthetic->memory);
    }

    const Progress progress = [&](uint64_t done, uint64_t total) {
        return !options.progress || options.progress(options.progress_user_data, done, total) == 0;
    };
    const bool drafts = options.flags & DSV4_MODEL_DRAFTS;
    if (!drafts || !device_->has_mtp()) weights_.mtp.clear();
    network_ = load_network(*device_, config_.shape, weights_, expert_tier, progress);
    draft_blocks_ = uint32_t(network_.mtp.size());
    decode_bytes_ = bytes_per_token(weights_, config_.shape);
    weight_bytes_ = bytes_of(weights_.ends);
    for (const auto &b : weights_.layers) weight_bytes_ += bytes_of(b);
    for (const auto &b : weights_.mtp) weight_bytes_ += bytes_of(b);

    std::vector<int32_t> ratios = network_.layer_ratio;
    ratios.insert(ratios.end(), network_.mtp_ratio.begin(), network_.mtp_ratio.end());
    const Capacity capacity = choose_capacity(config_, ratios, options);
    cache_bytes_ = cache_bytes(*device_, config_.shape, ratios, capacity.cache)
                       .of(uint64_t(capacity.cache.slots), uint64_t(capacity.cache.blocks));
    max_context_ = int32_t(std::min<int64_t>(config_.max_positions, int64_t(capacity.cache.blocks) * capacity.cache.block_tokens));
    engine_ = std::make_unique<Engine>(std::make_unique<Forward>(*device_, network_, capacity), config_.shape.vocab);
}

std::shared_ptr<const Tokenizer> Model::tokenizer() const {
    const std::lock_guard lock(tokenizer_mutex_);
    if (tokenizer_) return tokenizer_;
    if (synthetic_) throw Error(DSV4_E_MODEL, "a synthetic model has no tokenizer; give it token ids");
    auto tokenizer = load_tokenizer(path_);
    if (int64_t(tokenizer->vocab_size()) > config_.shape.vocab)
        throw Error(DSV4_E_MODEL, path_ + "/tokenizer.json: has " + std::to_string(tokenizer->vocab_size()) +
                                      " tokens, the model " + std::to_string(config_.shape.vocab));
    return tokenizer_ = std::move(tokenizer);
}

Constraints &Model::constraints() const {
    auto tokens = tokenizer();
    const std::lock_guard lock(tokenizer_mutex_);
    if (!constraints_) {
        if (config_.eos.empty()) throw Error(DSV4_E_MODEL, path_ + "/config.json: eos_token_id: a grammar needs one, found none");
        constraints_ = std::make_unique<Constraints>(std::move(tokens), config_.eos[0]);
    }
    return *constraints_;
}

dsv4_model_info Model::info() const {
    dsv4_model_info i;
    DSV4_INIT(i);
    i.vocab_size = uint32_t(config_.shape.vocab);
    i.layers = uint32_t(config_.shape.layers);
    i.hidden_size = uint32_t(config_.shape.hidden);
    i.max_context = uint32_t(max_context_);
    i.max_sessions = uint32_t(max_sessions());
    i.bos = config_.bos;
    i.eos = config_.eos.empty() ? -1 : config_.eos[0];
    i.draft_blocks = draft_blocks_;
    i.numerics = device_->info().numerics;
    i.weight_bytes = weight_bytes_;
    i.decode_bytes = decode_bytes_;
    i.cache_bytes = cache_bytes_;
    i.backend = {device_->backend_name().data(), device_->backend_name().size()};
    const dsv4_device_info &d = device_->info();
    i.device = {d.name, std::strlen(d.name)};
    i.variant = {d.variant, std::strlen(d.variant)};
    const dsv4_device_info now = device_->query();
    i.expert_hits = now.expert_hits;
    i.expert_ahead = now.expert_ahead;
    i.expert_misses = now.expert_misses;
    i.expert_bytes_read = now.expert_bytes_read;
    i.expert_wait_ns = now.expert_wait_ns;
    return i;
}

}  // namespace dsv4
