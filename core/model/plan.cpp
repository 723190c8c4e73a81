#include "core/model/plan.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "core/error.hpp"

namespace dsv4 {

namespace {

enum GroupId { kEmbed, kHead, kAttention, kRouted, kShared, kRouter, kCompression, kMixers, kNorms, kMtp, kGroups };
constexpr const char *kGroupNames[kGroups] = {
    "embedding", "head",  "attention", "routed experts", "shared experts", "router", "compressors and indexers",
    "mHC",       "norms", "MTP"};

constexpr uint64_t kMaxSessions = 1u << 20;

GroupId group_of(int32_t role) {
    switch (role) {
    case DSV4_ROLE_EMBED: return kEmbed;
    case DSV4_ROLE_HEAD: return kHead;
    case DSV4_ROLE_NORM:
    case DSV4_ROLE_ATTN_NORM:
    case DSV4_ROLE_FFN_NORM: return kNorms;
    case DSV4_ROLE_GATE:
    case DSV4_ROLE_GATE_BIAS:
    case DSV4_ROLE_GATE_TID2EID: return kRouter;
    case DSV4_ROLE_EXPERT_W1:
    case DSV4_ROLE_EXPERT_W2:
    case DSV4_ROLE_EXPERT_W3: return kRouted;
    case DSV4_ROLE_SHARED_W1:
    case DSV4_ROLE_SHARED_W2:
    case DSV4_ROLE_SHARED_W3: return kShared;
    default: break;
    }
    if (role < DSV4_ROLE_ATTN_NORM) return kMixers; // HC_HEAD_*, HC_ATTN_*, HC_FFN_*
    return role < DSV4_ROLE_COMP_WKV ? kAttention : kCompression;
}

bool is_routed(const dsv4_tensor &t) { return group_of(t.role) == kRouted; }
uint64_t bytes_of(const dsv4_tensor &t) { return t.bytes + t.scale_bytes; }

/// Bytes that one decoded token reads of a tensor; routed experts are counted together by their share.
uint64_t read_of(const dsv4_tensor &t) {
    const bool table = t.role == DSV4_ROLE_EMBED || t.role == DSV4_ROLE_GATE_TID2EID;
    return table ? t.bytes / static_cast<uint64_t>(t.shape[0]) : bytes_of(t);
}

void count_block(Plan &plan, const BlockWeights &block) {
    const dsv4_shape &s = plan.shape;
    uint64_t routed = 0;
    for (const dsv4_tensor &t : block.tensors) {
        PlanGroup &g = plan.groups[block.kind == DSV4_BLOCK_MTP ? kMtp : group_of(t.role)];
        g.tensors += t.scale ? 2 : 1;
        g.bytes += bytes_of(t);
        g.scale_bytes += t.scale_bytes;
        if (block.kind == DSV4_BLOCK_MTP) continue;
        if (is_routed(t)) routed += bytes_of(t);
        else g.read_per_token += read_of(t);
    }
    plan.groups[kRouted].read_per_token +=
        routed / static_cast<uint64_t>(s.experts) * static_cast<uint64_t>(s.active_experts);
}

PlanCache plan_cache(const ModelWeights &weights, uint64_t context) {
    const dsv4_shape &s = weights.config().shape;
    const auto d = static_cast<uint64_t>(s.head_dim), R = static_cast<uint64_t>(s.rope_dims);
    const auto di = static_cast<uint64_t>(s.index_dim), W = static_cast<uint64_t>(s.window);
    PlanCache c;
    c.context = context;
    // 448 bytes FP8 + 64 bf16 + 7 scales, padded to 8 bytes: 584 in the published models; 64 + 4 for an index key.
    c.row_bytes = ((d - R) + 2 * R + (d - R + 63) / 64 + 7) / 8 * 8;
    c.index_row_bytes = s.index_heads ? di / 2 + (di + 31) / 32 : 0;
    const auto add = [&](const BlockWeights &block) {
        const auto r = static_cast<uint64_t>(block.compress_ratio);
        c.window_bytes += W * c.row_bytes;
        c.read_per_token += std::min(W, context) * c.row_bytes;
        if (r == 0) return;
        const bool csa = r == 4;
        const uint64_t entry = c.row_bytes + (csa ? c.index_row_bytes : 0);
        c.bytes_per_token += static_cast<double>(entry) / static_cast<double>(r);
        c.entry_bytes += context / r * entry;
        // key-value and score, float32, of the tokens that the next entry pools
        const uint64_t channels = csa ? 2 * d + 2 * di : d;
        c.state_bytes += (csa ? 8 : r) * channels * 2 * sizeof(float);
        const uint64_t attended =
            csa ? std::min<uint64_t>(context / r, static_cast<uint64_t>(s.index_topk)) : context / r;
        c.read_per_token += attended * c.row_bytes + (csa ? context / r * c.index_row_bytes : 0);
    };
    for (const BlockWeights &block : weights.layers) add(block);
    for (const BlockWeights &block : weights.mtp) add(block);
    return c;
}

std::string gigabytes(uint64_t bytes) {
    char text[48];
    std::snprintf(text, sizeof text, bytes < 10'000'000 ? "%.3f MB" : "%.2f GB",
                  static_cast<double>(bytes) / (bytes < 10'000'000 ? 1e6 : 1e9));
    return text;
}

/// What a session costs: bytes whatever its context, and bytes of so many tokens of it.
struct SessionBytes {
    double fixed, tokens, of_tokens;
};

SessionBytes session_bytes(const Plan &plan, const PlanDevice &device) {
    if (device.block_tokens)  // the backend's own formats
        return {double(device.slot_bytes), double(device.block_tokens), double(device.block_bytes)};
    return {double(plan.cache.window_bytes + plan.cache.state_bytes), 1, plan.cache.bytes_per_token};
}

/// Of all sessions. The published formats are counted exactly, entry by entry.
uint64_t cache_on(const Plan &plan, const PlanDevice &device) {
    if (!device.block_tokens) return plan.cache_bytes;
    const uint64_t blocks = (plan.cache.context + device.block_tokens - 1) / device.block_tokens;
    return plan.sessions * (device.slot_bytes + blocks * device.block_bytes);
}

/// Tokens per session that fit beside `weights` bytes.
uint64_t context_within(const Plan &plan, uint64_t weights, uint64_t max_context, const PlanDevice &device) {
    if (device.memory_free < weights) return 0;
    const SessionBytes session = session_bytes(plan, device);
    const double room = static_cast<double>(device.memory_free - weights) / static_cast<double>(plan.sessions) - session.fixed;
    if (room < 0) return 0;
    if (session.of_tokens <= 0) return max_context;
    return static_cast<uint64_t>(std::min(static_cast<double>(max_context),
                                          std::floor(room / session.of_tokens) * session.tokens));
}

void place_on_host(Placement &p, const Plan &plan, uint64_t cache) {
    p.least = cache;
    if (p.missing == 0) {
        p.fit = Fit::kResident;
        p.words = "weights and cache fit in memory";
    } else if (cache <= p.device.memory_free) {
        p.fit = Fit::kMapped;
        p.words = "the cache fits; weights and cache together are " + gigabytes(p.missing) +
                  " more than is free, so weights are read from the mapped files again and again, up to " +
                  gigabytes(plan.read_per_token) + " per token";
    } else {
        p.words = "the cache alone needs " + gigabytes(cache) + ", " + gigabytes(p.device.memory_free) +
                  " are free: ask for a shorter context";
    }
}

void place_on_device(Placement &p, const Plan &plan, uint64_t dense, uint64_t experts, uint64_t cache) {
    // Enough room for the experts of one token besides, or nothing can be computed.
    const uint64_t one = (experts + p.experts_total - 1) / p.experts_total;
    p.least = dense + cache + one * static_cast<uint64_t>(plan.shape.active_experts);
    if (p.missing == 0) {
        p.fit = Fit::kResident;
        p.experts_on_device = p.experts_total;
        p.words = "weights and cache fit in device memory";
    } else if (p.device.memory_free >= p.least) {
        p.fit = Fit::kExperts;
        p.experts_on_device = std::min(p.experts_total, (p.device.memory_free - dense - cache) / one);
        const uint64_t outside = p.experts_total - p.experts_on_device;
        p.experts_outside_bytes = outside * one;
        p.outside_in_host_memory = p.experts_outside_bytes <= plan.host.available;
        p.words =
            std::to_string(outside) + " of " + std::to_string(p.experts_total) + " routed experts (" +
            gigabytes(p.experts_outside_bytes) + ") do not fit in device memory and stay " +
            (p.outside_in_host_memory ? "in host memory"
                                      : "on disk: host memory has " + gigabytes(plan.host.available) + " available");
    } else {
        p.words = "needs at least " + gigabytes(p.least) + " without any resident expert, " +
                  gigabytes(p.device.memory_free) + " are free";
    }
}

Placement place(const Plan &plan, const PlanDevice &device, uint64_t max_context) {
    Placement p;
    p.device = device;
    uint64_t experts = 0, dense = 0;
    for (size_t g = 0; g < plan.groups.size(); ++g) (g == kRouted ? experts : dense) += plan.groups[g].bytes;
    if (device.weights_bytes) dense = device.weights_bytes;
    if (device.experts_bytes) experts = device.experts_bytes;
    const uint64_t cache = cache_on(plan, device);
    p.experts_total = static_cast<uint64_t>(plan.shape.experts) * static_cast<uint64_t>(plan.shape.layers);
    p.cache = cache;
    p.needed = dense + experts + cache;
    p.missing = p.needed > device.memory_free ? p.needed - device.memory_free : 0;
    p.context_resident = context_within(plan, dense + experts, max_context, device);
    if (device.is_host) place_on_host(p, plan, cache);
    else place_on_device(p, plan, dense, experts, cache);
    p.context_that_fits = context_within(plan, p.least - cache, max_context, device);
    return p;
}

} // namespace

const char *fit_name(Fit fit) {
    switch (fit) {
    case Fit::kResident: return "resident";
    case Fit::kExperts: return "experts outside";
    case Fit::kMapped: return "mapped from disk";
    case Fit::kNo: return "does not fit";
    }
    return "";
}

Plan make_plan(const ModelWeights &weights, const PlanOptions &options) {
    const Config &config = weights.config();
    const auto most = static_cast<uint64_t>(config.max_positions);
    if (options.context > most)
        throw Error(DSV4_E_CONTEXT, "plan: expected a context of at most " + std::to_string(most) +
                                        " tokens (max_position_embeddings), found " + std::to_string(options.context));
    if (options.sessions == 0 || options.sessions > kMaxSessions)
        throw Error(DSV4_E_INVALID, "plan: expected 1 to " + std::to_string(kMaxSessions) + " sessions, found " +
                                        std::to_string(options.sessions));
    Plan plan;
    plan.directory = weights.checkpoint->directory();
    plan.files = weights.checkpoint->file_count();
    plan.total_tensors = weights.total_tensors;
    plan.total_bytes = weights.total_bytes;
    plan.unused = weights.unused;
    plan.degradations = weights.degradations;
    plan.shape = config.shape;
    plan.host = options.host;
    for (const char *name : kGroupNames) plan.groups.push_back({name});
    count_block(plan, weights.ends);
    for (const BlockWeights &b : weights.layers) {
        count_block(plan, b);
        ++(b.compress_ratio == 0 ? plan.window_layers : b.compress_ratio == 4 ? plan.csa_layers : plan.hca_layers);
    }
    for (const BlockWeights &b : weights.mtp) count_block(plan, b);
    plan.mtp_blocks = weights.mtp.size();
    for (const PlanGroup &g : plan.groups) {
        plan.used_tensors += g.tensors;
        plan.used_bytes += g.bytes;
        plan.scale_bytes += g.scale_bytes;
        plan.read_per_token += g.read_per_token;
    }
    for (const UnusedGroup &u : plan.unused) {
        plan.unused_tensors += u.tensors;
        plan.unused_bytes += u.bytes;
    }
    if (plan.used_tensors + plan.unused_tensors != plan.total_tensors ||
        plan.used_bytes + plan.unused_bytes != plan.total_bytes)
        throw Error(DSV4_E_INTERNAL, "plan: " + std::to_string(plan.used_tensors) + " used and " +
                                         std::to_string(plan.unused_tensors) + " unused tensors are not the " +
                                         std::to_string(plan.total_tensors) + " of the files");
    plan.cache = plan_cache(weights, options.context ? options.context : most);
    plan.sessions = options.sessions;
    if (plan.cache.session_bytes() > UINT64_MAX / plan.sessions)
        throw Error(DSV4_E_INVALID, "plan: the cache of " + std::to_string(plan.sessions) + " sessions of " +
                                        std::to_string(plan.cache.session_bytes()) + " bytes overflows");
    plan.cache_bytes = plan.cache.session_bytes() * plan.sessions;
    for (const PlanDevice &device : options.devices) plan.placements.push_back(place(plan, device, most));
    return plan;
}

} // namespace dsv4
