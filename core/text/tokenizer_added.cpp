#include "core/text/tokenizer_added.hpp"
#include <algorithm>
#include <utility>

namespace dsv4 {

int32_t AddedTokenMatcher::child(int32_t node, uint8_t byte) const {
    if (node == 0) return roots_[byte];
    int32_t at = nodes_[static_cast<size_t>(node)].first_child;
    while (at >= 0 && nodes_[static_cast<size_t>(at)].byte != byte) at = nodes_[static_cast<size_t>(at)].sibling;
    return at;
}

void AddedTokenMatcher::add(std::string_view text, TokenId id) {
    int32_t node = 0;
    for (const char c : text) {
        const auto byte = static_cast<uint8_t>(c);
        int32_t next = child(node, byte);
        if (next < 0) {
            next = static_cast<int32_t>(nodes_.size());
            Node made;
            made.byte = byte;
            if (node == 0) roots_[byte] = next;
            else made.sibling = std::exchange(nodes_[static_cast<size_t>(node)].first_child, next);
            nodes_.push_back(made);
        }
        node = next;
    }
    nodes_[static_cast<size_t>(node)].id = id;
}

AddedTokenMatcher::Match AddedTokenMatcher::find(std::string_view text, size_t from, size_t to,
                                                 std::span<const ByteRange> forbidden) const {
    // The first forbidden range that ends after `from`; it moves on with the scan.
    size_t range = static_cast<size_t>(
        std::partition_point(forbidden.begin(), forbidden.end(), [&](const ByteRange &r) { return r.end <= from; }) -
        forbidden.begin());
    for (size_t at = from; at < to; ++at) {
        int32_t node = roots_[static_cast<uint8_t>(text[at])];
        if (node < 0) continue;
        while (range < forbidden.size() &&
               (forbidden[range].end <= at || forbidden[range].begin == forbidden[range].end))
            ++range;
        size_t limit = to;
        if (range < forbidden.size()) {
            if (forbidden[range].begin <= at) {
                at = std::min(to, forbidden[range].end) - 1;
                continue;
            }
            limit = std::min(to, forbidden[range].begin);
        }
        Match best;
        for (size_t end = at + 1; node >= 0; ++end) {
            if (nodes_[static_cast<size_t>(node)].id >= 0) best = {at, end, nodes_[static_cast<size_t>(node)].id};
            if (end == limit) break;
            node = child(node, static_cast<uint8_t>(text[end]));
        }
        if (best.id >= 0) return best;
    }
    return {};
}

} // namespace dsv4
