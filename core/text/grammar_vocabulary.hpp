// The vocabulary as a byte trie, and the token masks of automata walked over it.
#pragma once
#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "core/text/grammar_bounded.hpp"
#include "core/text/grammar_counted.hpp"
#include "core/text/grammar_dfa.hpp"
#include "core/text/grammar_folded.hpp"
#include "core/text/grammar_slices.hpp"
#include "core/text/grammar_sweep.hpp"

namespace dsv4 {

/// Added tokens that a constrained completion may use. They are symbols, never spelled out in ordinary tokens.
enum class Symbol : uint32_t { dsml, think_end, eos };
inline constexpr size_t kSymbols = 3;

struct VocabularySource {
    std::vector<std::string> tokens;  ///< bytes of every token id; empty = no such token
    std::vector<bool> added;          ///< added tokens: never produced as text (same size, or empty = none)
    int32_t dsml = -1, think_end = -1, eos = -1;  ///< ids of ｜DSML｜, </think>, end of sentence; -1 = absent
};

class Vocabulary;

/// What an automaton's state does to whole tokens.
struct LeafMask {
    TokenMask inside;                ///< tokens consumed entirely within the automaton
    std::vector<uint32_t> exits;     ///< trie nodes, with children, at which the automaton accepts
};

/// An automaton, or texts of so many characters, in use on a vocabulary; masks are made when first asked for.
/// Thread-safe.
class Leaf {
public:
    /// Without `exits`: only control symbols follow, so where a token could leave the automaton need not be known.
    explicit Leaf(Dfa automaton, bool exits = true);
    explicit Leaf(std::unique_ptr<const CountedText> text);

    int32_t start() const { return counted_ ? counted_->start() : own_.start; }
    int32_t next(int32_t state, uint8_t byte) const { return counted_ ? counted_->next(state, byte) : own_.next(state, byte); }
    bool accepts(int32_t state) const { return counted_ ? counted_->accepts(state) : state >= own_.first_accepting; }
    /// Bytes to the nearest accepting state.
    uint32_t distance(int32_t state) const {
        return counted_ ? counted_->distance(state) : own_.distance[static_cast<size_t>(state)];
    }
    /// Sets the bytes that may come next.
    void add_first(int32_t state, std::array<bool, 256> &bytes) const;
    /// A state of the same masks, the same one for many.
    int32_t alike(int32_t state) const { return counted_ ? counted_->alike(state) : state; }
    /// Without count and tail.
    const Dfa &automaton() const { return counted_ ? counted_->text : own_; }

    std::shared_ptr<const LeafMask> mask(const Vocabulary &vocabulary, int32_t state) const;
    /// Folds the vocabulary's trie where some states' masks would take long without; before the leaf is shared. False
    /// where it is not needed or would not help.
    bool prepare(const Vocabulary &vocabulary);

private:
    static constexpr size_t kMostMasks = 256;  // 16 KiB each at 129,280 tokens
    /// What a mask takes on one of the trie's branches.
    struct Part {
        const TokenBranch *branch;
        const TokenSlice *slice;
        SliceUse use;
        int32_t state;
    };
    struct Parts {
        std::array<Part, 2> all;
        size_t n = 0, nodes = 0;  // to walk at most
    };
    /// What tokens do to texts that are counted, from one state of their automaton.
    struct Survey {
        struct Listed {
            uint32_t needed, node;  // characters, with those that must follow
        };
        struct Ended {
            uint32_t characters, node;  // of the text, before its tail
            bool complete;
        };
        std::vector<TokenMask> by_level;  // tokens that are counted as after a whole character; empty: none
        std::vector<Listed> listed;       // the others
        std::vector<Ended> ended;         // nodes at which the tail, or its beginning, ends
    };
    Parts parts(const Vocabulary &vocabulary, int32_t state) const;
    /// Whether walking them would visit more than so many nodes.
    bool visits_more(const Parts &parts, size_t most) const;
    std::vector<TokenMask> inside(const Vocabulary &vocabulary, int32_t state, std::vector<uint32_t> *exits) const;
    template <bool kLevels>
    void walk(const Vocabulary &vocabulary, const TokenSlice &slice, int32_t state, std::vector<TokenMask> &made,
              std::vector<uint32_t> *exits) const;
    std::shared_ptr<LeafMask> counted_mask(const Vocabulary &vocabulary, int32_t state) const;
    std::shared_ptr<const Survey> survey(const Vocabulary &vocabulary, int32_t state) const;
    void list_others(const Vocabulary &vocabulary, int32_t state, Survey &made) const;
    void list_ended(const Vocabulary &vocabulary, int32_t state, Survey &made) const;

    const std::unique_ptr<const CountedText> counted_;
    const Dfa own_;  // empty where texts are counted
    const bool exits_;
    const SliceUses uses_;
    std::unique_ptr<const FoldedTrie> folded_;
    mutable std::mutex mutex_;
    mutable BoundedMap<int32_t, std::shared_ptr<const LeafMask>> masks_{kMostMasks};
    mutable BoundedMap<int32_t, std::shared_ptr<const Survey>> surveys_;
};

/// The languages that every constraint shares; their masks are kept with the vocabulary.
enum class CommonText {
    reasoning,     ///< text without control tokens' texts; only a control symbol may follow
    content,       ///< the same
    content_open,  ///< the same, ending in "\n\n<"
    value,         ///< a raw parameter, ending in "</"
    json_string,   ///< a JSON string from after its opening quote to its closing one, without the marker's text
    json_content_string,  ///< the same without any control token's text
    key,           ///< an undeclared property's name and its closing quote, see plain_keys()
    space,         ///< nothing, a space, or a line break and up to 24 spaces or tabs
    number,        ///< any number
    count
};

class Vocabulary {
public:
    /// Throws Error (DSV4_E_INVALID): some single byte has no token (then some texts could not be finished), EOS absent.
    explicit Vocabulary(VocabularySource source);

    size_t size() const { return source_.tokens.size(); }
    size_t words() const { return (size() + 63) / 64; }
    const std::string &bytes(uint32_t token) const { return source_.tokens[token]; }
    bool added(uint32_t token) const { return token < source_.added.size() && source_.added[token]; }
    int32_t symbol(Symbol s) const {
        return s == Symbol::dsml ? source_.dsml : s == Symbol::think_end ? source_.think_end : source_.eos;
    }
    const Leaf &common(CommonText text) const { return *common_[static_cast<size_t>(text)]; }

    using Node = TrieNode;
    const std::vector<Node> &trie() const { return trie_; }
    /// Tokens that begin with a space and have more, or all others.
    const TokenBranch &branch(bool spaced) const { return branches_[spaced]; }
    uint32_t space() const { return space_; }  ///< the space's node
    const Sweep &sweep() const { return *sweep_; }
    /// How long tokens are, and which end a text, as texts in that form have it.
    const TokenLengths &lengths(TextForm form) const { return lengths_[form == TextForm::json]; }
    const TailNodes &tails(TextForm form) const { return tails_[form == TextForm::json]; }
    /// Sets the node's token and any other token of the same bytes.
    void allow(TokenMask &mask, const Node &node) const {
        if (node.token < 0) return;
        mask_set(mask, static_cast<uint32_t>(node.token));
        if (node.shared)
            for (int32_t t = same_[static_cast<size_t>(node.token)]; t >= 0; t = same_[static_cast<size_t>(t)])
                mask_set(mask, static_cast<uint32_t>(t));
    }

private:
    VocabularySource source_;
    std::vector<Node> trie_;
    std::vector<int32_t> same_;
    uint32_t space_ = 0;
    std::array<TokenBranch, 2> branches_;
    std::unique_ptr<const Sweep> sweep_;
    std::array<TokenLengths, 2> lengths_;
    std::array<TailNodes, 2> tails_;
    std::vector<std::unique_ptr<Leaf>> common_;
};

/// Texts that must not be spelled out in content: the strict parser refuses or misreads them.
std::vector<std::string> control_texts();
/// Names that undeclared properties may have: 1 to 64 characters that JSON need not escape; no control token's text.
const Dfa &plain_keys();

}  // namespace dsv4
