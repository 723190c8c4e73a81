// Masks by state, bounded: when full, everything goes and the next states fill it anew.
#pragma once
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>

#include "core/text/constraint_state.hpp"

namespace dsv4 {

struct Constraint::MaskCache {
    static constexpr size_t kMost = 512;                  // masks, 16 KiB each at 129,280 tokens
    static constexpr size_t kLongestKey = 16u << 10;      // bytes; deeper states are not worth remembering

    std::shared_ptr<const TokenMask> find(const std::string &key) const {
        const std::lock_guard lock(mutex);
        const auto found = masks.find(key);
        return found == masks.end() ? nullptr : found->second;
    }
    void put(const std::string &key, std::shared_ptr<const TokenMask> mask) {
        if (key.size() > kLongestKey) return;
        const std::lock_guard lock(mutex);
        if (masks.size() >= kMost) masks.clear();
        masks.emplace(key, std::move(mask));
    }

    mutable std::mutex mutex;
    std::unordered_map<std::string, std::shared_ptr<const TokenMask>> masks;
};

}  // namespace dsv4
