// Masks by state.
#pragma once
#include <memory>
#include <mutex>
#include <string>

#include "core/text/constraint_state.hpp"
#include "core/text/grammar_bounded.hpp"

namespace dsv4 {

struct Constraint::MaskCache {
    static constexpr size_t kMost = 512;                  // masks, 16 KiB each at 129,280 tokens
    static constexpr size_t kLongestKey = 16u << 10;      // bytes; deeper states are not worth remembering

    std::shared_ptr<const TokenMask> find(const std::string &key) const {
        const std::lock_guard lock(mutex);
        const auto *const found = masks.find(key);
        return found ? *found : nullptr;
    }
    void put(const std::string &key, std::shared_ptr<const TokenMask> mask) {
        if (key.size() > kLongestKey) return;
        const std::lock_guard lock(mutex);
        masks.put(key, std::move(mask));
    }

    mutable std::mutex mutex;
    BoundedMap<std::string, std::shared_ptr<const TokenMask>> masks{kMost};
};

}  // namespace dsv4
