#include "core/engine/capacity.hpp"
#include <algorithm>
#include <numeric>

namespace dsv4 {
namespace {

/// Rows that a ring keeps beyond what one token needs: how far a sequence can be cut back (unfetched tokens, rejected
/// drafts) without computing anything again.
constexpr int32_t slack = 16;
/// Rows of logits of one step; scoring a long text comes back for more.
constexpr int32_t min_outputs = 64;

uint64_t limit(const char *name, uint64_t value, uint64_t fallback, uint64_t most) {
    if (value > most)
        throw Error(DSV4_E_INVALID,
                    std::string(name) + ": at most " + std::to_string(most) + ", found " + std::to_string(value));
    return value ? value : fallback;
}

}  // namespace

Capacity choose_capacity(const Config &config, const std::vector<int32_t> &ratios, const dsv4_model_options &o) {
    Capacity c{};
    c.tokens = int32_t(limit("max_batch_tokens", o.max_batch_tokens, 512, 65536));
    c.sequences = int32_t(limit("max_sessions", o.max_sessions, 8, 4096));
    c.sequences = std::min(c.sequences, c.tokens);
    c.outputs = std::min(std::max(min_outputs, c.sequences), c.tokens);
    DSV4_INIT(c.cache);
    c.cache.slots = int32_t(limit("max_sessions", o.max_sessions, 8, 4096));
    int64_t block = 128;
    for (const int32_t r : ratios)
        if (r) block = std::lcm(block, int64_t(r));
    if (block > 65536) throw Error(DSV4_E_UNSUPPORTED, "compress ratios with no common block of 65536 tokens or less");
    c.cache.block_tokens = int32_t(block);
    const auto most = uint64_t(config.max_positions) * uint64_t(c.cache.slots);
    const uint64_t tokens = limit("cache_tokens", o.cache_tokens, std::min<uint64_t>(65536, uint64_t(config.max_positions)),
                                  std::min<uint64_t>(most, uint64_t{1} << 30));
    c.cache.blocks = int32_t((tokens + uint64_t(block) - 1) / uint64_t(block));
    c.blocks_per_sequence = int32_t(std::min<int64_t>(c.cache.blocks, (config.max_positions + block - 1) / block));
    c.cache.state_slack = slack;
    c.cache.window_rows = config.shape.window + std::max(c.tokens, slack);
    return c;
}

CacheBytes cache_bytes(const Device &device, const dsv4_shape &shape, const std::vector<int32_t> &ratios,
                       const dsv4_cache_desc &cache) {
    CacheBytes sum;
    for (const int32_t r : ratios) {
        uint64_t per_slot = 0, per_block = 0;
        call(device.model->cache_bytes, device.handle(), &shape, r, &cache, &per_slot, &per_block);
        sum.per_slot += per_slot;
        sum.per_block += per_block;
    }
    return sum;
}

}  // namespace dsv4
