// Masks of states that most tokens survive. A walk by subtrees then visits nearly every node and guesses wrong at many of
// them; a sweep steps all nodes of the trie, parents first, without a branch, and costs the same for every automaton.
#pragma once
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "core/text/grammar_dfa.hpp"
#include "core/text/grammar_trie.hpp"

namespace dsv4 {

/// The trie by depth: a node's parent stands before it. Thread-safe.
class Sweep {
public:
    /// `same` links tokens of equal bytes, -1 at the end.
    Sweep(const std::vector<TrieNode> &trie, const std::vector<int32_t> &same, size_t tokens);

    size_t nodes() const { return byte_.size(); }
    uint8_t byte(size_t k) const { return byte_[k]; }
    uint32_t parent(size_t k) const { return parent_[k]; }
    uint32_t full(size_t k) const { return full_[k]; }  ///< position in the trie
    bool inner(size_t k) const { return inner_[k]; }
    /// [tokens, up to whole words] where each stands here, 0 when it has no node.
    const std::vector<uint32_t> &nodes_of_tokens() const { return node_; }
    /// Tokens that the automaton survives from `state`; where `exits` is not null also the nodes of the trie, with
    /// children, at which it accepts.
    TokenMask tokens(const Dfa &dfa, int32_t state, std::vector<uint32_t> *exits) const;
    /// The same by where they lead: `codes` [1 + states] 0 for kDead, else 1 + a level. [levels]; empty: no token.
    std::vector<TokenMask> tokens_by_level(const Dfa &dfa, int32_t state, const std::vector<uint8_t> &codes,
                                           size_t levels) const;

private:
    /// Fresh pages would cost more than the sweep: memory is kept from one to the next.
    struct Scratch {
        explicit Scratch(size_t nodes) : states(nodes), alive(nodes) {}
        std::vector<int32_t> states;
        std::vector<uint8_t> alive;
    };
    static constexpr size_t kSpare = 4;
    std::unique_ptr<Scratch> take() const;
    void give_back(std::unique_ptr<Scratch> scratch) const;

    mutable std::mutex mutex_;
    mutable std::vector<std::unique_ptr<Scratch>> spare_;
    std::vector<uint8_t> byte_;     // [nodes]
    std::vector<uint32_t> parent_;  // [nodes] position here
    std::vector<uint32_t> full_;    // [nodes] position in the trie
    std::vector<uint32_t> node_;    // [tokens, up to whole words] position here, the root's when it has none
    std::vector<bool> inner_;       // [nodes] has children
};

/// Some of a trie's nodes, evenly spread, to tell what a walk would cost.
class WalkSample {
public:
    WalkSample() = default;
    explicit WalkSample(const std::vector<TrieNode> &trie);
    size_t nodes() const { return nodes_; }
    /// About how many of them a walk by subtrees visits.
    size_t visits(const Dfa &dfa, int32_t state) const;

private:
    static constexpr size_t kPaths = 64;
    std::vector<std::string> paths_;  // to the nodes' parents
    size_t nodes_ = 0;
};

}  // namespace dsv4
