#include "core/text/grammar_folded.hpp"

#include <array>

namespace dsv4 {
namespace {

/// The automaton's classes, those that no state tells apart joined. Column 0 is of those that every state dies of.
struct Columns {
    std::array<uint16_t, 256> of_byte;
    std::vector<uint8_t> representative;  // [columns] a class; meaningless for column 0
    std::vector<bool> accepting;          // [columns] leads to an accepting state from somewhere
};

Columns columns_of(const Dfa &dfa) {
    const size_t n = dfa.size();
    const auto at = [&](size_t state, size_t c) { return dfa.row(static_cast<int32_t>(state))[c]; };
    std::vector<uint64_t> hash(dfa.classes, 0);
    std::vector<bool> alive(dfa.classes, false), accepting(dfa.classes, false);
    for (size_t s = 0; s < n; ++s)
        for (size_t c = 0; c < dfa.classes; ++c) {
            const int32_t to = at(s, c);
            hash[c] = (hash[c] ^ static_cast<uint32_t>(to)) * 0x9E3779B97F4A7C15u;
            hash[c] ^= hash[c] >> 29;
            if (to >= 0) alive[c] = true;
            if (to >= dfa.first_accepting) accepting[c] = true;
        }
    const auto equal = [&](size_t a, size_t b) {
        if (hash[a] != hash[b]) return false;
        for (size_t s = 0; s < n; ++s)
            if (at(s, a) != at(s, b)) return false;
        return true;
    };
    Columns out{{}, {0}, {false}};
    std::vector<uint16_t> of_class(dfa.classes, 0);
    for (size_t c = 0; c < dfa.classes; ++c) {
        if (!alive[c]) continue;
        size_t k = 1;
        while (k < out.representative.size() && !equal(c, out.representative[k])) ++k;
        if (k == out.representative.size()) {
            out.representative.push_back(static_cast<uint8_t>(c));
            out.accepting.push_back(accepting[c]);
        }
        of_class[c] = static_cast<uint16_t>(k);
    }
    for (size_t b = 0; b < 256; ++b) out.of_byte[b] = of_class[dfa.class_of[b]];
    return out;
}

}  // namespace

std::unique_ptr<const FoldedTrie> FoldedTrie::make(const Sweep &sweep, const Dfa &dfa, size_t most) {
    constexpr uint32_t kDead = 0, kRoot = 1, kUnknown = UINT32_MAX;
    const Columns columns = columns_of(dfa);
    const size_t width = columns.representative.size();
    std::unique_ptr<FoldedTrie> out(new FoldedTrie());
    std::vector<uint32_t> child(width, kDead);  // [nodes, width]
    const auto add = [&](uint32_t parent, uint8_t c) {
        out->parent_.push_back(parent);
        out->class_.push_back(c);
        child.resize(child.size() + width, kUnknown);
        child[child.size() - width] = kDead;
    };
    out->parent_.push_back(kDead);
    out->class_.push_back(0);
    add(kDead, 0);
    std::vector<uint32_t> folded(sweep.nodes(), kRoot);
    for (size_t k = 1; k < sweep.nodes(); ++k) {
        const uint32_t parent = folded[sweep.parent(k)];
        const uint16_t column = columns.of_byte[sweep.byte(k)];
        uint32_t to = child[parent * width + column];
        if (to == kUnknown) {
            if (out->nodes() >= most) return nullptr;
            to = child[parent * width + column] = static_cast<uint32_t>(out->nodes());
            add(parent, columns.representative[column]);
        }
        folded[k] = to;
        if (to != kDead && columns.accepting[column] && sweep.inner(k)) out->exits_.push_back({to, sweep.full(k)});
    }
    out->begin_.assign(out->nodes() + 1, 0);
    const std::vector<uint32_t> &node_of = sweep.nodes_of_tokens();
    const auto place = [&](size_t token) { return node_of[token] ? folded[node_of[token]] : kDead; };
    for (size_t t = 0; t < node_of.size(); ++t) out->begin_[place(t) + 1] += place(t) != kDead;
    for (size_t k = 1; k < out->begin_.size(); ++k) out->begin_[k] += out->begin_[k - 1];
    out->tokens_.resize(out->begin_.back());
    out->all_.assign(node_of.size() / 64, 0);
    std::vector<uint32_t> next = out->begin_;
    for (size_t t = 0; t < node_of.size(); ++t) {
        if (place(t) == kDead) continue;
        out->tokens_[next[place(t)]++] = static_cast<uint32_t>(t);
        mask_set(out->all_, static_cast<uint32_t>(t));
    }
    return out;
}

TokenMask FoldedTrie::tokens(const Dfa &dfa, int32_t state, std::vector<uint32_t> *exits) const {
    const size_t n = nodes();
    const std::unique_ptr<int32_t[]> at(new int32_t[n]);
    const int32_t *const rows = dfa.row(0);
    const auto classes = static_cast<ptrdiff_t>(dfa.classes);
    at[0] = Dfa::kDead;
    at[1] = state;
    size_t alive = 0;
    for (size_t k = 2; k < n; ++k) {
        at[k] = rows[at[parent_[k]] * classes + class_[k]];
        alive += at[k] >= 0 ? begin_[k + 1] - begin_[k] : 0;
    }
    if (exits)
        for (const Exit &exit : exits_)
            if (at[exit.node] >= dfa.first_accepting) exits->push_back(exit.full);
    // Whichever are fewer are written one by one.
    const bool most = alive * 2 > tokens_.size();
    TokenMask out = most ? all_ : TokenMask(all_.size(), 0);
    for (size_t k = 2; k < n; ++k)
        if ((at[k] >= 0) != most)
            for (uint32_t i = begin_[k]; i < begin_[k + 1]; ++i) out[tokens_[i] >> 6] ^= uint64_t{1} << (tokens_[i] & 63);
    return out;
}

}  // namespace dsv4
