#include "core/text/tokenizer_vocabulary.hpp"
#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

namespace dsv4 {

namespace {

/// Multiply-and-fold over 8-byte words; pieces are a few bytes long, so the last word is nearly all the work.
uint64_t hash_bytes(std::string_view bytes) {
    constexpr uint64_t multiplier = 0x9E3779B97F4A7C15u;
    uint64_t h = bytes.size() * 0xD6E8FEB86659FD93u;
    const char *at = bytes.data();
    size_t left = bytes.size();
    const auto mix = [&](uint64_t word) {
        h = (h ^ word) * multiplier;
        h ^= h >> 32;
    };
    for (; left >= 8; at += 8, left -= 8) {
        uint64_t word;
        std::memcpy(&word, at, 8);
        mix(word);
    }
    if (left >= 4) { // two overlapping halves
        uint32_t low, high;
        std::memcpy(&low, at, 4);
        std::memcpy(&high, at + left - 4, 4);
        mix(uint64_t{high} << 32 | low);
    } else if (left > 0) {
        const auto byte = [&](size_t i) { return static_cast<uint64_t>(static_cast<uint8_t>(at[i])); };
        mix(byte(0) | byte(left / 2) << 8 | byte(left - 1) << 16);
    }
    return h;
}

} // namespace

void TokenTable::build(const std::vector<std::optional<std::string>> &tokens) {
    size_t total = 0;
    for (const auto &token : tokens) total += token ? token->size() : 0;
    blob_.reserve(total);
    starts_.reserve(tokens.size() + 1);
    used_.reserve(tokens.size());
    starts_.push_back(0);
    for (const auto &token : tokens) {
        if (token) blob_ += *token;
        used_.push_back(token.has_value());
        starts_.push_back(blob_.size());
    }
}

void TokenTable::reserve_index(size_t count) {
    const size_t wanted = std::bit_ceil(std::max<size_t>(2 * count, 16));
    if (wanted <= slots_.size()) return;
    const std::vector<Slot> old = std::exchange(slots_, std::vector<Slot>(wanted));
    indexed_ = 0;
    for (const Slot &slot : old)
        if (slot.id >= 0) index(slot.id);
}

void TokenTable::index(TokenId id) {
    if (2 * (indexed_ + 1) > slots_.size()) reserve_index(2 * (indexed_ + 1));
    const std::string_view wanted = bytes(id);
    const uint64_t h = hash_bytes(wanted);
    const auto tag = static_cast<uint32_t>(h >> 32);
    size_t at = h & (slots_.size() - 1);
    for (; slots_[at].id >= 0; at = (at + 1) & (slots_.size() - 1))
        if (slots_[at].tag == tag && bytes(slots_[at].id) == wanted) return;
    slots_[at] = {tag, id};
    ++indexed_;
}

TokenId TokenTable::find(std::string_view wanted) const {
    if (slots_.empty()) return -1;
    const uint64_t h = hash_bytes(wanted);
    const auto tag = static_cast<uint32_t>(h >> 32);
    for (size_t at = h & (slots_.size() - 1); slots_[at].id >= 0; at = (at + 1) & (slots_.size() - 1))
        if (slots_[at].tag == tag && bytes(slots_[at].id) == wanted) return slots_[at].id;
    return -1;
}

} // namespace dsv4
