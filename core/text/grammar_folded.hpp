// The vocabulary's trie as one automaton sees it. Bytes that no state tells apart become one, and so do paths that then
// read the same. A pattern names few letters, so the words of a vocabulary fall into some thousands of shapes, and those
// are soon stepped, whatever the automaton does with them.
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
    /// nullptr when more than `most` nodes would be left.
    static std::unique_ptr<const FoldedTrie> make(const Sweep &sweep, const Dfa &dfa, size_t most);

    size_t nodes() const { return parent_.size(); }
    /// As Sweep::tokens, for the automaton that it was made for.
    TokenMask tokens(const Dfa &dfa, int32_t state, std::vector<uint32_t> *exits) const;

private:
    FoldedTrie() = default;

    struct Exit {
        uint32_t node, full;  // position here and in the whole trie
    };
    std::vector<uint32_t> parent_;  // [nodes] stands before its children; the first node is dead, the second the root
    std::vector<uint8_t> class_;    // [nodes] one of the automaton's classes that lead there
    std::vector<uint32_t> begin_;   // [nodes + 1] where the node's tokens are
    std::vector<uint32_t> tokens_;  // but for those that no state survives
    std::vector<Exit> exits_;       // nodes of the whole trie, with children, at which some state accepts
    TokenMask all_;                 // tokens_ as a mask
};

}  // namespace dsv4
