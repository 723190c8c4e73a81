#include "core/text/tokenizer_merge.hpp"
#include <algorithm>
#include <bit>
#include <cstring>
#include <functional>

namespace dsv4 {

MergeTable::MergeTable(std::vector<Merge> merges, const std::array<TokenId, 256> &byte_ids) : byte_ids_(byte_ids) {
    slots_.resize(std::bit_ceil(std::max<size_t>(2 * merges.size(), 16)));
    mask_ = static_cast<uint32_t>(slots_.size() - 1);
    results_.reserve(merges.size());
    for (const Merge &merge : merges) {
        uint32_t at = hash(merge.left, merge.right) & mask_;
        while (slots_[at].rank != none && (slots_[at].left != merge.left || slots_[at].right != merge.right))
            at = (at + 1) & mask_;
        if (slots_[at].rank == none) slots_[at] = {merge.left, merge.right, static_cast<int32_t>(results_.size())};
        results_.push_back(merge.result);
    }
    byte_ranks_.resize(256 * 256);
    for (size_t pair = 0; pair < byte_ranks_.size(); ++pair)
        byte_ranks_[pair] = rank(byte_ids_[pair >> 8], byte_ids_[pair & 255]);
}

uint32_t MergeTable::hash(TokenId left, TokenId right) {
    const uint64_t key = static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
    return static_cast<uint32_t>((key * 0x9E3779B97F4A7C15u) >> 32);
}

int32_t MergeTable::rank(TokenId left, TokenId right) const {
    for (uint32_t at = hash(left, right) & mask_;; at = (at + 1) & mask_) {
        const Slot &slot = slots_[at];
        if (slot.left == left && slot.right == right) return slot.rank;
        if (slot.rank == none) return none;
    }
}

void MergeTable::encode(std::string_view piece, Scratch &scratch, std::vector<TokenId> &out) const {
    if (piece.size() < 2) {
        for (const char c : piece) out.push_back(byte_ids_[static_cast<uint8_t>(c)]);
    } else if (piece.size() <= 64) {
        encode_short(piece, scratch, out);
    } else {
        encode_long(piece, scratch, out);
    }
}

void MergeTable::encode_short(std::string_view piece, Scratch &scratch, std::vector<TokenId> &out) const {
    const auto byte = [&](size_t i) { return static_cast<uint8_t>(piece[i]); };
    size_t n = piece.size();
    scratch.ids.resize(n);
    scratch.ranks.resize(n);  // ranks[i]: of the pair (i, i + 1); the last is `none`
    int32_t *ids = scratch.ids.data(), *ranks = scratch.ranks.data();
    for (size_t i = 0; i < n; ++i) {
        ids[i] = byte_ids_[byte(i)];
        ranks[i] = i + 1 < n ? byte_ranks_[size_t{byte(i)} << 8 | byte(i + 1)] : none;
    }
    while (n > 1) {
        int32_t best = none;  // a plain minimum first: the compiler makes it a handful of vector instructions
        for (size_t i = 0; i + 1 < n; ++i) best = std::min(best, ranks[i]);
        if (best == none) break;
        size_t at = 0;
        while (ranks[at] != best) ++at;
        ids[at] = results_[static_cast<size_t>(best)];
        std::memmove(ids + at + 1, ids + at + 2, (n - at - 2) * sizeof *ids);
        std::memmove(ranks + at, ranks + at + 1, (n - at - 1) * sizeof *ranks);
        --n;
        if (at > 0) ranks[at - 1] = rank(ids[at - 1], ids[at]);
        if (at + 1 < n) ranks[at] = rank(ids[at], ids[at + 1]);
    }
    out.insert(out.end(), ids, ids + n);
}

void MergeTable::encode_long(std::string_view piece, Scratch &scratch, std::vector<TokenId> &out) const {
    // A doubly linked list of symbols and a heap of candidate pairs, ordered by (rank, position). An entry is stale when
    // the pair at its position has another rank by now; ranks of one position's pairs never repeat.
    const size_t n = piece.size();
    auto &ids = scratch.ids, &ranks = scratch.ranks, &previous = scratch.previous, &next = scratch.next;
    auto &queue = scratch.queue;
    ids.resize(n), ranks.resize(n), previous.resize(n), next.resize(n), queue.clear();
    const auto entry = [](int32_t rank, size_t at) { return static_cast<uint64_t>(rank) << 32 | at; };
    const auto byte = [&](size_t i) { return static_cast<uint8_t>(piece[i]); };
    for (size_t i = 0; i < n; ++i) {
        ids[i] = byte_ids_[byte(i)];
        previous[i] = static_cast<int32_t>(i) - 1;
        next[i] = i + 1 < n ? static_cast<int32_t>(i + 1) : -1;
        ranks[i] = i + 1 < n ? byte_ranks_[size_t{byte(i)} << 8 | byte(i + 1)] : none;
        if (ranks[i] != none) queue.push_back(entry(ranks[i], i));
    }
    std::make_heap(queue.begin(), queue.end(), std::greater<>());
    const auto refresh = [&](int32_t at) {
        const auto i = static_cast<size_t>(at);
        ranks[i] = next[i] < 0 ? none : rank(ids[i], ids[static_cast<size_t>(next[i])]);
        if (ranks[i] == none) return;
        queue.push_back(entry(ranks[i], i));
        std::push_heap(queue.begin(), queue.end(), std::greater<>());
    };
    while (!queue.empty()) {
        std::pop_heap(queue.begin(), queue.end(), std::greater<>());
        const uint64_t top = queue.back();
        queue.pop_back();
        const size_t at = top & 0xFFFFFFFFu;
        if (ranks[at] != static_cast<int32_t>(top >> 32)) continue;
        const auto right = static_cast<size_t>(next[at]);
        ids[at] = results_[static_cast<size_t>(ranks[at])];
        ranks[right] = none;
        next[at] = next[right];
        if (next[at] >= 0) previous[static_cast<size_t>(next[at])] = static_cast<int32_t>(at);
        refresh(static_cast<int32_t>(at));
        if (previous[at] >= 0) refresh(previous[at]);
    }
    for (int32_t at = 0; at >= 0; at = next[static_cast<size_t>(at)]) out.push_back(ids[static_cast<size_t>(at)]);
}

}  // namespace dsv4
