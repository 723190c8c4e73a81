// Why masks of wide states are cheap. A slice is the tokens made of whole characters of some plain kinds. From
// most states either every plain text of up to n characters survives and every longer one dies (a string with n
// characters left), or all survive. Then the slice's part of the mask is ready made, and only tokens outside the slice
// (markup, quotes, escapes, pieces of characters) are walked.
#pragma once
#include <array>
#include <bitset>
#include <cstdint>
#include <string_view>
#include <vector>

#include "core/text/grammar_dfa.hpp"
#include "core/text/grammar_sweep.hpp"
#include "core/text/grammar_trie.hpp"

namespace dsv4 {

/// Plain characters by kind. Wide ones are well-formed UTF-8 beyond ASCII but those that patterns and markers single
/// out: spaces and line ends (U+0080 to U+00BF, U+1680 to U+16BF, U+2000 to U+2FFF, U+3000 to U+303F) and U+F000 to
/// U+FFFF (the markers' bar). Punctuation is ASCII's but " \ / < >, with which strings, tails and control texts begin
/// or end.
enum class Plain : uint8_t { lower, upper, digit, space, wide, punctuation };
inline constexpr size_t kPlainKinds = 6;
/// Sets of kinds (bit = kind) that automata tend to let through whole; later ones are preferred.
inline constexpr std::array<uint8_t, 10> kSlices = {0x3E, 0x01, 0x03, 0x07, 0x0B, 0x0F, 0x37, 0x1F, 0x3B, 0x3F};

/// The kinds in the text, 0xFF when it has something else, and its number of characters.
struct Spelling {
    uint8_t kinds;
    size_t characters;
    bool within(uint8_t slice) const { return (kinds & ~slice) == 0; }
};
Spelling spelling_of(std::string_view text);

/// A branch's tokens of one slice, and the trie of all others.
struct TokenSlice {
    static constexpr size_t kMasks = 32;  // longer tokens are few: 16 KiB a mask at 129,280 tokens
    struct Longer {
        uint32_t characters, token;
    };
    std::vector<TokenMask> up_to;    ///< [n]: tokens of at most n characters, n < kMasks
    std::vector<Longer> longer;      ///< the others, by length
    std::vector<TrieNode> rest;
    std::vector<uint32_t> full;      ///< rest's nodes in the whole trie
    WalkSample sample;               ///< of the rest

    /// Adds tokens of at most `characters` characters to the mask.
    void allow(TokenMask &mask, size_t characters) const;
};

using PlainBytes = std::bitset<128>;  ///< plain ASCII characters

/// Tokens with a common beginning, seen after it. Half of a vocabulary's words come with a space before them; kept apart,
/// each half is as regular as words are.
struct TokenBranch {
    std::vector<TokenSlice> slices;       ///< by kSlices; the last one has no tokens, its rest is the whole branch
    std::vector<TokenMask> containing;    ///< [128] tokens with that plain ASCII character; empty for other bytes
};
/// `full`: the trie's nodes in the whole trie. `same` links tokens of equal bytes, -1 at the end.
TokenBranch make_branch(const std::vector<TrieNode> &trie, const std::vector<uint32_t> &full,
                        const std::vector<int32_t> &same, size_t tokens);

/// What an automaton's state does to slices.
struct SliceUse {
    static constexpr uint8_t kEndless = UINT8_MAX;
    uint8_t slice = kSlices.size();  ///< the largest slice (index) that is all or nothing by length; or none
    uint8_t characters = 0;  ///< tokens of it up to this length survive, longer ones do not; kEndless: all do
    uint8_t without = 0;     ///< but for tokens with one of these characters (index into SliceUses::sets): none survives
};
struct SliceUses {
    std::vector<SliceUse> states;
    std::vector<PlainBytes> sets;  ///< the first is empty
};
/// `minded` [states]: not 0 where masks must tell which tokens get there. Such states count as dangerous.
SliceUses slice_uses(const Dfa &dfa, const std::vector<uint8_t> &minded);

}  // namespace dsv4
