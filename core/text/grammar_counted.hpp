// Texts of so many characters. An automaton multiplied by a count has thousands of states that differ in nothing but
// how long a token may be. Here the count stands beside the automaton, and tokens are looked at for the automaton's
// states alone: how many characters each of them takes, and how many must still follow.
#pragma once
#include <array>
#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "core/text/grammar_dfa.hpp"
#include "core/text/grammar_text.hpp"
#include "core/text/grammar_trie.hpp"

namespace dsv4 {

/// What ends a text: "</" where it stands raw, a quote inside JSON.
std::string_view text_tail(TextForm form);
/// Any text as lengths count it, accepting between characters; inside JSON without \u.
const Dfa &counted_characters(TextForm form);

/// The texts of an automaton with min to max characters, each followed by its tail. States are numbers as an
/// automaton's are, though most of them are never met. Immutable and thread-safe.
class CountedText {
public:
    static constexpr size_t kMostLevels = 62;

    /// `text`: without limits (0 and SIZE_MAX) any automaton, else one of texts of counted_characters() that tells
    /// within a character from between two. nullptr when the tables would be too large, when too many kinds of states
    /// need something to follow, when there is no such text, or when some text can no longer be finished though there
    /// is room for it (3 to 5 of (abcd)*).
    static std::unique_ptr<const CountedText> make(Dfa text, TextForm form, size_t min, size_t max);

    const Dfa text;
    const TextForm form;

    int32_t start() const { return pack({text.start, 0, 0}); }
    int32_t next(int32_t state, uint8_t byte) const;
    /// Sets the bytes that may come next.
    void add_first(int32_t state, std::array<bool, 256> &bytes) const;
    bool accepts(int32_t state) const { return (static_cast<uint32_t>(state) & 3) == tail_.size(); }
    uint32_t distance(int32_t state) const;  ///< bytes to the nearest accepting state

    struct Place {
        int32_t text;    ///< the automaton's state, kDead when only the tail may go on
        uint32_t count;  ///< characters so far; of texts without an upper limit no more than needed
        uint32_t tail;   ///< bytes of the tail that may have been read, 0: none
    };
    Place place(int32_t state) const;
    /// The state that is asked in its place for what tokens do: counts that no token brings near a limit are one.
    int32_t alike(int32_t state) const;

    bool enough(size_t count) const { return count >= min_; }
    /// Characters that may still come.
    size_t room(size_t count) const { return max_ == SIZE_MAX ? SIZE_MAX : max_ - count; }
    /// Of the automaton's states: a character ends there. Where it does not, a token's first byte may be counted as
    /// after a whole one.
    bool whole(int32_t state) const { return whole_[static_cast<size_t>(state)] != 0; }
    bool counts_alike(int32_t state, uint8_t first) const;
    /// Least characters to an end of the text, one that has begun included.
    uint32_t needed(int32_t state) const { return needed_[static_cast<size_t>(state)]; }
    /// [1 + states] 0 for kDead, else 1 + the level of the state: how many characters must follow beside one that has
    /// begun, late()[level].
    const std::vector<uint8_t> &levels() const { return levels_; }
    const std::vector<uint32_t> &late() const { return late_; }

private:
    CountedText(Dfa automaton, TextForm f, size_t min, size_t max)
        : text(std::move(automaton)), form(f), min_(min), max_(max), tail_(text_tail(f)) {}
    struct Edges;
    bool limited() const { return min_ > 0 || max_ != SIZE_MAX; }
    size_t counts() const { return (max_ == SIZE_MAX ? min_ : max_) + 1; }
    int32_t pack(const Place &place) const;
    bool mark_characters();
    bool mark_levels(const Edges &edges);
    void measure(const Edges &edges);
    bool always_ends(const Edges &edges) const;

    const size_t min_, max_;
    const std::string_view tail_;
    uint32_t count_bits_ = 0;
    std::vector<uint8_t> whole_;      // [states]
    std::vector<int32_t> character_;  // [states] state of counted_characters(); empty without limits
    std::vector<uint32_t> needed_;    // [states]
    std::vector<uint8_t> levels_;
    std::vector<uint32_t> late_;
    std::vector<uint32_t> distance_;  // [counts, states] bytes to the end, the tail included
};

/// Tokens by how many characters they take after a whole one, one that is broken off at the end included.
struct TokenLengths {
    static constexpr size_t kMasks = 32;  // longer tokens are few: 16 KiB a mask at 129,280 tokens
    struct Longer {
        uint32_t characters, token;
    };
    std::vector<TokenMask> up_to;  ///< [n]: tokens of at most n characters, n < kMasks
    std::vector<Longer> longer;    ///< the others, the longest first

    TokenLengths() = default;
    /// `same` links tokens of equal bytes, -1 at the end.
    TokenLengths(const std::vector<TrieNode> &trie, const std::vector<int32_t> &same, size_t tokens, TextForm form);
    /// Adds those of `some` that take at most so many; none of them may be in the mask before.
    void add(TokenMask &mask, const TokenMask &some, size_t characters) const;
};

/// The trie's nodes at which a tail, or its beginning, ends, and the ways to them.
struct TailNodes {
    struct Step {
        uint32_t parent;
        uint8_t byte;
    };
    struct End {
        uint32_t step;  ///< before the tail
        uint32_t node;  ///< in the whole trie
        bool complete;  ///< the whole tail, and the node has children
    };
    std::vector<Step> steps;  ///< parents first; the first one is the root
    std::vector<End> ends;

    TailNodes() = default;
    TailNodes(const std::vector<TrieNode> &trie, std::string_view tail);
};

}  // namespace dsv4
