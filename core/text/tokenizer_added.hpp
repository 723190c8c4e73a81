// Finds added tokens ("<|User|>" and the like) in raw text: a trie, walked where a token's first byte stands.
#pragma once
#include "core/text/tokenizer_merge.hpp"
#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace dsv4 {

/// Bytes begin..end of a text.
struct ByteRange {
    size_t begin = 0, end = 0;
};

class AddedTokenMatcher {
  public:
    void add(std::string_view text, TokenId id);
    bool empty() const { return nodes_.size() == 1; }

    struct Match {
        size_t begin = 0, end = 0;
        TokenId id = -1; ///< -1: none
    };
    /// The leftmost match in text[from, to), the longest of those that start there, among the matches that touch no
    /// byte of `forbidden` (sorted, disjoint).
    Match find(std::string_view text, size_t from, size_t to, std::span<const ByteRange> forbidden) const;

  private:
    struct Node {
        int32_t first_child = -1, sibling = -1;
        TokenId id = -1;
        uint8_t byte = 0;
    };
    int32_t child(int32_t node, uint8_t byte) const;

    std::vector<Node> nodes_{Node{}};
    std::array<int32_t, 256> roots_ = [] {
        std::array<int32_t, 256> r;
        r.fill(-1);
        return r;
    }();
};

} // namespace dsv4
