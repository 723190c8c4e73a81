// Token id <-> bytes.
#pragma once
#include "core/text/tokenizer_merge.hpp"
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace dsv4 {

/// Ids 0..size()-1, some of which may be unused. Immutable once built.
class TokenTable {
  public:
    /// tokens[id] are the bytes of that token; unused ids are nullopt.
    void build(const std::vector<std::optional<std::string>> &tokens);

    size_t size() const { return starts_.empty() ? 0 : starts_.size() - 1; }
    bool used(TokenId id) const {
        return id >= 0 && static_cast<size_t>(id) < size() && used_[static_cast<size_t>(id)];
    }
    /// The bytes of a used id.
    std::string_view bytes(TokenId id) const {
        const auto i = static_cast<size_t>(id);
        return std::string_view(blob_).substr(starts_[i], starts_[i + 1] - starts_[i]);
    }

    /// Makes `id` the answer for its bytes; the first token of equal bytes stays.
    void index(TokenId id);
    void reserve_index(size_t count);
    /// The indexed token that is exactly these bytes, or -1.
    TokenId find(std::string_view bytes) const;

  private:
    struct Slot {
        uint32_t tag = 0;
        TokenId id = -1;
    };
    std::string blob_;
    std::vector<size_t> starts_;
    std::vector<bool> used_;
    std::vector<Slot> slots_;
    size_t indexed_ = 0;
};

} // namespace dsv4
