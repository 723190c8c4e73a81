#include "core/text/grammar_sweep.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <numeric>

namespace dsv4 {

Sweep::Sweep(const std::vector<TrieNode> &trie, const std::vector<int32_t> &same, size_t tokens) : full_(trie.size()) {
    const size_t n = trie.size();
    std::iota(full_.begin(), full_.end(), 0u);
    std::stable_sort(full_.begin(), full_.end(), [&](uint32_t a, uint32_t b) { return trie[a].depth < trie[b].depth; });
    std::vector<uint32_t> here(n), path(256, 0);
    for (size_t k = 0; k < n; ++k) here[full_[k]] = static_cast<uint32_t>(k);
    byte_.resize(n);
    parent_.assign(n, 0);
    inner_.resize(n);
    node_.assign((tokens + 63) / 64 * 64, 0);  // the root is no token's, and never counts as alive
    for (size_t i = 0; i < n; ++i) {
        const TrieNode &node = trie[i];
        const uint32_t k = here[i];
        path[node.depth] = k;
        byte_[k] = node.byte;
        if (i > 0) parent_[k] = path[node.depth - 1u];
        inner_[k] = node.end > i + 1;
        for (int32_t t = node.token; t >= 0; t = same[static_cast<size_t>(t)]) node_[static_cast<size_t>(t)] = k;
    }
    spare_.reserve(kSpare);
    spare_.push_back(std::make_unique<Scratch>(n));
}

std::unique_ptr<Sweep::Scratch> Sweep::take() const {
    {
        const std::lock_guard lock(mutex_);
        if (!spare_.empty()) {
            std::unique_ptr<Scratch> out = std::move(spare_.back());
            spare_.pop_back();
            return out;
        }
    }
    return std::make_unique<Scratch>(nodes());
}

void Sweep::give_back(std::unique_ptr<Scratch> scratch) const {
    const std::lock_guard lock(mutex_);
    if (spare_.size() < kSpare) spare_.push_back(std::move(scratch));
}

TokenMask Sweep::tokens(const Dfa &dfa, int32_t state, std::vector<uint32_t> *exits) const {
    constexpr size_t block = 64;
    const size_t n = nodes();
    std::unique_ptr<Scratch> scratch = take();
    int32_t *const at = scratch->states.data();
    uint8_t *const alive = scratch->alive.data();  // small enough to stay near when tokens ask for it
    const int32_t *const rows = dfa.row(0);
    const uint32_t *const parent = parent_.data();
    const uint8_t *const byte = byte_.data(), *const class_of = dfa.class_of.data();
    const auto classes = static_cast<ptrdiff_t>(dfa.classes);
    const int32_t accepting = dfa.first_accepting;
    at[0] = state;
    alive[0] = 0;
    for (size_t begin = 1; begin < n; begin += block) {
        const size_t end = std::min(begin + block, n);
        for (size_t k = begin; k < end; ++k) at[k] = rows[at[parent[k]] * classes + class_of[byte[k]]];
        int32_t some = 0;
        for (size_t k = begin; k < end; ++k) {
            alive[k] = at[k] >= 0;
            some |= at[k] >= accepting;
        }
        for (size_t k = begin; some && exits && k < end; ++k)
            if (at[k] >= accepting && inner_[k]) exits->push_back(full_[k]);
    }
    TokenMask out(node_.size() / 64);
    for (size_t w = 0; w < out.size(); ++w) {
        const uint32_t *const node = &node_[w * 64];
        uint64_t word = 0;
        for (size_t b = 64; b-- > 0;) word = word * 2 + alive[node[b]];
        out[w] = word;
    }
    give_back(std::move(scratch));
    return out;
}

std::vector<TokenMask> Sweep::tokens_by_level(const Dfa &dfa, int32_t state, const std::vector<uint8_t> &codes,
                                              size_t levels) const {
    const size_t n = nodes();
    std::unique_ptr<Scratch> scratch = take();
    int32_t *const at = scratch->states.data();
    uint8_t *const code = scratch->alive.data();
    const int32_t *const rows = dfa.row(0);
    const auto classes = static_cast<ptrdiff_t>(dfa.classes);
    at[0] = state;
    code[0] = 0;
    for (size_t k = 1; k < n; ++k) {
        at[k] = rows[at[parent_[k]] * classes + dfa.class_of[byte_[k]]];
        code[k] = codes[static_cast<size_t>(at[k] + 1)];
    }
    std::vector<TokenMask> out(levels);
    for (size_t w = 0; w < node_.size() / 64; ++w) {
        std::array<uint8_t, 64> here;
        uint64_t some = 0;
        for (size_t b = 0; b < 64; ++b) {
            here[b] = code[node_[w * 64 + b]];
            some |= uint64_t{1} << here[b];
        }
        for (some >>= 1; some; some &= some - 1) {
            const auto level = static_cast<size_t>(std::countr_zero(some));
            if (out[level].empty()) out[level].assign(node_.size() / 64, 0);
            uint64_t word = 0;
            for (size_t b = 64; b-- > 0;) word = word * 2 + (here[b] == level + 1);
            out[level][w] = word;
        }
    }
    give_back(std::move(scratch));
    return out;
}

WalkSample::WalkSample(const std::vector<TrieNode> &trie) : nodes_(trie.size()) {
    const size_t step = trie.size() / kPaths + 1;
    std::string path;
    for (size_t i = 1; i < trie.size(); ++i) {
        path.resize(trie[i].depth - 1u);
        if (i % step == step / 2) paths_.push_back(path);
        path += static_cast<char>(trie[i].byte);
    }
}

size_t WalkSample::visits(const Dfa &dfa, int32_t state) const {
    size_t alive = 0;
    for (const std::string &path : paths_) alive += dfa.run(state, path) >= 0;
    return paths_.empty() ? nodes_ : nodes_ * alive / paths_.size();
}

}  // namespace dsv4
