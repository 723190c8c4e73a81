#include "core/text/tokenizer_merge.hpp"
#include "core/text/byte_level.hpp"
#include <algorithm>
#include <bit>
#include <cstring>
#include <functional>
#include <string>

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
    find_safe_characters(merges);
}

void MergeTable::find_safe_characters(const std::vector<Merge> &merges) {
    // Most text that is not ASCII spends most of its merges on joining the bytes of characters. A character can be
    // taken as joined from the start if that is what happens in every context:
    // - at each step of joining its bytes, of rank r, no merge of rank <= r takes its first part to the left or its
    // last
    //   part to the right, so that nothing crosses its border before it is whole;
    // - no merge of the whole character has a rank below those steps, so that having it early changes no other choice.
    TokenId last = *std::max_element(byte_ids_.begin(), byte_ids_.end());
    for (const Merge &merge : merges) last = std::max({last, merge.left, merge.right, merge.result});
    std::vector<int32_t> as_left(static_cast<size_t>(last) + 1, none), as_right = as_left; // lowest ranks, [id]
    for (size_t at = merges.size(); at-- > 0;) {
        as_left[static_cast<size_t>(merges[at].left)] = static_cast<int32_t>(at);
        as_right[static_cast<size_t>(merges[at].right)] = static_cast<int32_t>(at);
    }
    const auto lowest = [](const std::vector<int32_t> &ranks, TokenId id) { return ranks[static_cast<size_t>(id)]; };
    safe_.assign(0x10000, -1);
    for (uint32_t code = 0x80; code < 0x10000; ++code) {
        if (code >= 0xD800 && code < 0xE000) continue;
        std::string bytes;
        append_utf8(bytes, code);
        TokenId parts[3];
        size_t n = 0;
        for (const char c : bytes) parts[n++] = byte_ids_[static_cast<uint8_t>(c)];
        int32_t highest = -1;
        bool safe = true;
        while (n > 1 && safe) {
            size_t at = 0;
            int32_t best = rank(parts[0], parts[1]);
            if (n == 3 && rank(parts[1], parts[2]) < best) best = rank(parts[1], parts[2]), at = 1;
            safe = best != none && lowest(as_right, parts[0]) > best && lowest(as_left, parts[n - 1]) > best;
            if (!safe) break;
            highest = std::max(highest, best);
            parts[at] = results_[static_cast<size_t>(best)];
            for (size_t i = at + 1; i + 1 < n; ++i) parts[i] = parts[i + 1];
            --n;
        }
        safe = safe && lowest(as_left, parts[0]) > highest && lowest(as_right, parts[0]) > highest;
        if (safe) safe_[code] = parts[0];
    }
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
    if (piece.empty()) return;
    size_t n = start(piece, scratch);
    n = n <= 64 ? merge_short(n, scratch) : merge_long(n, scratch);
    out.insert(out.end(), scratch.ids.begin(), scratch.ids.begin() + static_cast<std::ptrdiff_t>(n));
}

/// Writes the first symbols to scratch.ids and the ranks of the pairs (i, i + 1) to scratch.ranks, the last being
/// `none`.
size_t MergeTable::start(std::string_view piece, Scratch &scratch) const {
    const auto byte = [&](size_t i) { return static_cast<uint8_t>(piece[i]); };
    const auto continues = [&](size_t i) { return i < piece.size() && (byte(i) & 0xC0) == 0x80; };
    if (scratch.ids.size() < piece.size()) {
        scratch.ids.resize(piece.size());
        scratch.ranks.resize(piece.size());
    }
    int32_t *ids = scratch.ids.data(), *ranks = scratch.ranks.data();
    size_t n = 0;
    bool single_before = false; // the symbol before is the byte before, so that the table of byte pairs applies
    for (size_t at = 0; at < piece.size();) {
        const uint8_t lead = byte(at);
        size_t length = 1;
        TokenId id = byte_ids_[lead];
        if (lead >= 0xC2 && lead < 0xF0 && continues(at + 1) && (lead < 0xE0 || continues(at + 2))) {
            const uint32_t code = lead < 0xE0
                                      ? (lead & 0x1Fu) << 6 | (byte(at + 1) & 0x3Fu)
                                      : (lead & 0xFu) << 12 | (byte(at + 1) & 0x3Fu) << 6 | (byte(at + 2) & 0x3Fu);
            // An overlong form is another sequence of bytes than the character it seems to spell.
            const bool shortest = lead < 0xE0 || code >= 0x800;
            if (shortest && safe_[code] >= 0) {
                id = safe_[code];
                length = lead < 0xE0 ? 2 : 3;
            }
        }
        if (n > 0)
            ranks[n - 1] =
                single_before && length == 1 ? byte_ranks_[size_t{byte(at - 1)} << 8 | lead] : rank(ids[n - 1], id);
        single_before = length == 1;
        ids[n++] = id;
        at += length;
    }
    ranks[n - 1] = none;
    return n;
}

size_t MergeTable::merge_short(size_t n, Scratch &scratch) const {
    int32_t *ids = scratch.ids.data(), *ranks = scratch.ranks.data();
    while (n > 1) {
        int32_t best = none; // a plain minimum first: the compiler makes it a handful of vector instructions
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
    return n;
}

size_t MergeTable::merge_long(size_t n, Scratch &scratch) const {
    // A doubly linked list of symbols and a heap of candidate pairs, ordered by (rank, position). An entry is stale
    // when the pair at its position has another rank by now.
    auto &ids = scratch.ids, &ranks = scratch.ranks, &previous = scratch.previous, &next = scratch.next;
    auto &queue = scratch.queue;
    previous.resize(n), next.resize(n), queue.clear();
    const auto entry = [](int32_t rank, size_t at) { return static_cast<uint64_t>(rank) << 32 | at; };
    for (size_t i = 0; i < n; ++i) {
        previous[i] = static_cast<int32_t>(i) - 1;
        next[i] = i + 1 < n ? static_cast<int32_t>(i + 1) : -1;
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
    size_t kept = 0;
    for (int32_t at = 0; at >= 0; at = next[static_cast<size_t>(at)]) ids[kept++] = ids[static_cast<size_t>(at)];
    return kept;
}

} // namespace dsv4
