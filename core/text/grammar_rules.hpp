// A pushdown grammar over bytes and control symbols. Nodes consume an automaton's language or a symbol, call rules, or
// run loops whose counters live in the stack, so that nesting, repetition and "each property once" need no unrolling.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/text/grammar_vocabulary.hpp"

namespace dsv4 {

inline constexpr uint32_t kNoNode = UINT32_MAX;
inline constexpr uint32_t kNever = UINT32_MAX;  ///< cost of what cannot be finished

struct GrammarNode {
    enum class Kind : uint8_t { leaf, symbol, call, choice, list, object, end } kind = Kind::end;
    uint32_t index = 0;         ///< leaf, symbol, or the rule's first node (call), list, object
    uint32_t next = kNoNode;    ///< leaf, symbol, call
    std::vector<uint32_t> choices;
};

/// first, then `again` for every further item; the counter is in the frame.
struct GrammarList {
    uint32_t first, again, close;
    uint32_t min = 0, max = UINT32_MAX;
};

/// Members in any order, each at most once: the frame's word has one bit per member (up to 63; with more, members keep
/// their declared order and the word is the next index). Bit 63: something was written.
struct GrammarObject {
    struct Member {
        uint32_t first, again;  ///< rules; `again` begins with the separator
        bool required = false;
        bool repeatable = false;  ///< undeclared members of a JSON object
    };
    std::vector<Member> members;
    uint32_t close_empty, close;
    uint32_t min = 0, max = UINT32_MAX;  ///< number of members
    bool ordered = false;
};

struct Grammar {
    std::vector<GrammarNode> nodes;
    std::vector<const Leaf *> leaves;            // owned below or by the vocabulary
    std::vector<std::unique_ptr<Leaf>> owned;
    std::vector<GrammarList> lists;
    std::vector<GrammarObject> objects;
    uint32_t root = kNoNode;
    std::vector<uint32_t> cost;                  // per node: least symbols to its rule's end, loops from their start

    uint32_t add(GrammarNode::Kind kind, uint32_t index, uint32_t next);
    uint32_t end() { return add(GrammarNode::Kind::end, 0, kNoNode); }
    uint32_t leaf(const Leaf &leaf, uint32_t next);
    uint32_t leaf(Dfa dfa, uint32_t next);
    uint32_t leaf(std::unique_ptr<const CountedText> text, uint32_t next);
    uint32_t text(std::string_view text, uint32_t next, const std::string &what = "text");
    uint32_t symbol(Symbol s, uint32_t next) { return add(GrammarNode::Kind::symbol, static_cast<uint32_t>(s), next); }
    uint32_t call(uint32_t rule, uint32_t next) { return add(GrammarNode::Kind::call, rule, next); }
    uint32_t choice(std::vector<uint32_t> choices);
    uint32_t list(GrammarList list);
    uint32_t object(GrammarObject object);

    /// Fills `cost`. False when the root can never be finished.
    bool finish();
    /// Least symbols from the node to its rule's end when its loop stands at `data`.
    uint32_t cost_of(uint32_t node, uint64_t data) const;
    uint32_t cost_of_member(const GrammarObject &object, size_t member) const;
    /// What the loops may do next: the member or item rules that may start, and whether the loop may close.
    bool may_close(uint32_t node, uint64_t data) const;
    bool may_add(uint32_t node, uint64_t data, size_t member) const;
    uint64_t after(uint32_t node, uint64_t data, size_t member) const;
};

inline uint32_t cost_sum(uint32_t a, uint32_t b) { return a == kNever || b == kNever || a > kNever - 1 - b ? kNever : a + b; }

}  // namespace dsv4
