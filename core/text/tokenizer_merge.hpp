// Byte-pair encoding of one piece: from its bytes, always join the adjacent pair of lowest rank, the leftmost of
// equals.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace dsv4 {

using TokenId = int32_t;

struct Merge {
    TokenId left, right, result;
};

/// The merges of a vocabulary, rank by rank. Immutable after construction.
class MergeTable {
  public:
    MergeTable() = default;
    /// merges[rank]; byte_ids[b] is the token of the single byte b. A pair named twice keeps its first rank.
    MergeTable(std::vector<Merge> merges, const std::array<TokenId, 256> &byte_ids);

    struct Scratch {
        std::vector<int32_t> ids, ranks;
        std::vector<int32_t> previous, next;
        std::vector<uint64_t> queue;
    };

    /// Appends the tokens of `piece` (any bytes). Short pieces: O(n^2) on a few cache lines; long ones: O(n log n).
    void encode(std::string_view piece, Scratch &scratch, std::vector<TokenId> &out) const;

  private:
    struct Slot {
        TokenId left = -1, right = -1;
        int32_t rank = none;
    };
    static constexpr int32_t none = INT32_MAX;

    static uint32_t hash(TokenId left, TokenId right);
    int32_t rank(TokenId left, TokenId right) const;
    void find_safe_characters(const std::vector<Merge> &merges);
    size_t start(std::string_view piece, Scratch &scratch) const;
    size_t merge_short(size_t n, Scratch &scratch) const;
    size_t merge_long(size_t n, Scratch &scratch) const;

    std::array<TokenId, 256> byte_ids_{};
    std::vector<TokenId> results_;    // [rank]
    std::vector<int32_t> byte_ranks_; // [first byte * 256 + second byte]: the pairs every piece starts from
    std::vector<TokenId> safe_;       // [U+0000..U+FFFF]: the token of a character that merges before all else, or -1
    std::vector<Slot> slots_;         // open addressing, at most half full
    uint32_t mask_ = 0;
};

} // namespace dsv4
