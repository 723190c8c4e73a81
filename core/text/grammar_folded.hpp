// The vocabulary's trie as one automaton sees it: words that it cannot tell apart are one. A pattern names few letters,
// so the words of a vocabulary are of a few hundred to some thousand sorts, and those are soon stepped, whatever the
// automaton does with them.
#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "core/text/grammar_dfa.hpp"
#include "core/text/grammar_sweep.hpp"
#include "core/text/grammar_trie.hpp"

namespace dsv4 {

/// Immutable and thread-safe.
class FoldedTrie {
public:
    /// nullptr when too much is left. Without `exits` none will be asked for.
    static std::unique_ptr<const FoldedTrie> make(const Sweep &sweep, const Dfa &dfa, bool exits = true);

    size_t nodes() const { return parent_.size(); }
    /// Of a mask; a node of a sweep is 1.
    size_t cost() const { return nodes() * 2 + tokens_.size() / 4; }
    /// As Sweep::tokens, for the automaton that it was made for.
    TokenMask tokens(const Dfa &dfa, int32_t state, std::vector<uint32_t> *exits) const;
    /// As Sweep::tokens_by_level.
    std::vector<TokenMask> tokens_by_level(const Dfa &dfa, int32_t state, const std::vector<uint8_t> &codes,
                                           size_t levels) const;

private:
    FoldedTrie() = default;
    void keep(const std::vector<uint32_t> &nodes_of_tokens);
    std::unique_ptr<int32_t[]> run(const Dfa &dfa, int32_t state) const;
    template <class In>
    TokenMask gather(const In &in) const;

    struct Exit {
        uint32_t node, full;  // position here and in the whole trie
    };
    struct Crowd {
        uint32_t node;
        TokenMask tokens;
    };
    std::vector<uint32_t> parent_;    // [nodes] stands before its children; the first node is dead, the second the root
    std::vector<uint8_t> class_;      // [nodes] one of the automaton's classes that lead there
    std::vector<Exit> exits_;         // nodes of the whole trie, with children, at which some state accepts
    std::vector<uint32_t> begin_;     // [nodes + 1] where the node's tokens are
    std::vector<uint32_t> tokens_;    // but for crowds
    std::vector<Crowd> crowds_;       // nodes of so many tokens that a mask is smaller
    TokenMask all_, listed_;          // with crowds, and tokens_ alone
};

}  // namespace dsv4
