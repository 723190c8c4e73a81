#include "core/text/grammar_vocabulary.hpp"

#include <algorithm>
#include <array>
#include <numeric>
#include <span>

#include "core/error.hpp"
#include "core/text/dsml_strict.hpp"
#include "core/text/grammar_text.hpp"

namespace dsv4 {
namespace {

constexpr size_t kVisitCost = 4;       // of a node visited by a walk; swept: 1
constexpr size_t kTriedStates = 32;
constexpr size_t kFoldFrom = 12;       // folding pays where a walk visits this part of the trie

std::unique_ptr<Leaf> leaf(Dfa dfa, bool exits = true) { return std::make_unique<Leaf>(std::move(dfa), exits); }

/// The trie in two: without what is below `root`, a child of the root, and that alone.
std::array<TokenBranch, 2> split(const std::vector<TrieNode> &trie, uint32_t root, const std::vector<int32_t> &same,
                                 size_t tokens) {
    std::array<std::vector<TrieNode>, 2> nodes;
    std::array<std::vector<uint32_t>, 2> full;
    nodes[1].push_back({trie[root].end - root, -1, 0, 0});
    full[1].push_back(root);
    for (uint32_t i = 0; i < trie.size(); ++i) {
        TrieNode node = trie[i];
        if (i == root) continue;
        const bool below = i > root && i < trie[root].end;
        if (below) node.end -= root, --node.depth;
        else if (node.end > root) node.end -= trie[root].end - root;
        nodes[below].push_back(node);
        full[below].push_back(i);
    }
    return {make_branch(nodes[0], full[0], same, tokens), make_branch(nodes[1], full[1], same, tokens)};
}

}  // namespace

std::vector<std::string> control_texts() {
    return {std::string(kBosText), std::string(kEosText), std::string(kThinkBegin), std::string(kThinkEnd),
            std::string(kDsmlToken)};
}

const Dfa &plain_keys() {
    static const Dfa keys = [] {
        std::string reason;
        return intersect(*pattern_text("^[^\"\\\\\\u0000-\\u001f]{1,64}$", TextForm::raw, reason),
                         dfa_avoiding(control_texts()), "key");
    }();
    return keys;
}

std::shared_ptr<const LeafMask> Leaf::mask(const Vocabulary &vocabulary, int32_t state) const {
    {
        const std::lock_guard lock(mutex_);
        if (const auto *const found = masks_.find(state)) return *found;
    }
    std::shared_ptr<const LeafMask> made = make(vocabulary, state);
    const std::lock_guard lock(mutex_);
    return masks_.put(state, std::move(made));  // users keep theirs alive
}

/// Adds what the automaton survives from `state`, at the root of the slice's rest. The mask has a spare bit at `spare`.
void Leaf::walk(const Vocabulary &vocabulary, const TokenSlice &slice, int32_t state, size_t spare, LeafMask &made) const {
    uint64_t *const words = made.inside.data();
    const std::vector<TrieNode> &trie = slice.rest;
    std::array<int32_t, 256> states;
    states[0] = state;
    for (uint32_t i = 1; i < trie.size();) {
        const TrieNode &node = trie[i];
        const int32_t to = dfa.next(states[node.depth - 1u], node.byte);
        if (to < 0) {
            i = node.end;
            continue;
        }
        states[node.depth] = to;
        // Nodes without a token write to the spare bit: half of them have one, in no order that a branch could foresee.
        const size_t token = node.token < 0 ? spare : static_cast<size_t>(node.token);
        words[token >> 6] |= uint64_t{1} << (token & 63);
        if (node.shared) vocabulary.allow(made.inside, node);
        if (exits_ && to >= dfa.first_accepting && vocabulary.trie()[slice.full[i]].end > slice.full[i] + 1)
            made.exits.push_back(slice.full[i]);
        ++i;
    }
}

Leaf::Parts Leaf::parts(const Vocabulary &vocabulary, int32_t state) const {
    Parts out;
    for (const bool spaced : {false, true}) {
        const int32_t from = spaced ? dfa.next(state, ' ') : state;
        if (from < 0) continue;
        const SliceUse use = uses_.states[static_cast<size_t>(from)];
        const TokenBranch &branch = vocabulary.branch(spaced);
        out.all[out.n++] = {&branch, &branch.slices[use.slice], use, from};
        out.nodes += branch.slices[use.slice].rest.size();
    }
    return out;
}

bool Leaf::visits_more(const Parts &parts, size_t most) const {
    if (parts.nodes <= most) return false;
    size_t visits = 0;
    for (size_t i = 0; i < parts.n; ++i) visits += parts.all[i].slice->sample.visits(dfa, parts.all[i].state);
    return visits > most;
}

bool Leaf::prepare(const Vocabulary &vocabulary) {
    const Sweep &sweep = vocabulary.sweep();
    // Some states, in an order that no regularity of theirs follows.
    const size_t n = dfa.size(), tries = std::min(n, kTriedStates);
    for (size_t i = 0; i < tries; ++i) {
        const size_t state = tries == n ? i : (static_cast<size_t>(dfa.start) + i * 2654435761u) % n;
        if (!visits_more(parts(vocabulary, static_cast<int32_t>(state)), sweep.nodes() / kFoldFrom)) continue;
        folded_ = FoldedTrie::make(sweep, dfa);
        break;
    }
    return folded_ != nullptr;
}

std::shared_ptr<LeafMask> Leaf::make(const Vocabulary &vocabulary, int32_t state) const {
    auto made = std::make_shared<LeafMask>();
    const Parts parts = this->parts(vocabulary, state);
    const Sweep &sweep = vocabulary.sweep();
    if (visits_more(parts, (folded_ ? folded_->cost() : sweep.nodes()) / kVisitCost)) {
        std::vector<uint32_t> *const exits = exits_ ? &made->exits : nullptr;
        made->inside = folded_ ? folded_->tokens(dfa, state, exits) : sweep.tokens(dfa, state, exits);
        return made;
    }
    const std::span<const Part> used(parts.all.data(), parts.n);
    const size_t spare = vocabulary.words() * 64;
    made->inside.assign(vocabulary.words() + 1, 0);
    for (const Part &part : used) part.slice->allow(made->inside, part.use.characters);
    for (const Part &part : used) {
        const PlainBytes &without = uses_.sets[part.use.without];
        for (size_t b = 0; without.any() && b < without.size(); ++b) {
            if (!without[b]) continue;
            const TokenMask &containing = part.branch->containing[b];
            for (size_t w = 0; w < containing.size(); ++w) made->inside[w] &= ~containing[w];
        }
    }
    for (const Part &part : used) walk(vocabulary, *part.slice, part.state, spare, *made);
    if (const uint32_t space = vocabulary.space(); parts.n == 2) {
        vocabulary.allow(made->inside, vocabulary.trie()[space]);
        if (exits_ && parts.all[1].state >= dfa.first_accepting && vocabulary.trie()[space].end > space + 1)
            made->exits.push_back(space);
    }
    made->inside.pop_back();
    return made;
}

Vocabulary::Vocabulary(VocabularySource source) : source_(std::move(source)) {
    const size_t n = size();
    if (n == 0 || n > (1u << 24)) throw Error(DSV4_E_INVALID, "vocabulary: expected 1 to 16777216 tokens");
    if (!source_.added.empty() && source_.added.size() != n)
        throw Error(DSV4_E_INVALID, "vocabulary: expected one `added` entry per token");
    for (const int32_t id : {source_.dsml, source_.think_end, source_.eos})
        if (id >= static_cast<int32_t>(n)) throw Error(DSV4_E_INVALID, "vocabulary: a control token's id is out of range");
    if (source_.eos < 0) throw Error(DSV4_E_INVALID, "vocabulary: expected an end-of-sentence token");
    std::vector<uint32_t> order;
    for (uint32_t t = 0; t < n; ++t) {
        const auto id = static_cast<int32_t>(t);
        const bool symbol = id == source_.dsml || id == source_.think_end || id == source_.eos;
        if (!symbol && !added(t) && !bytes(t).empty() && bytes(t).size() < 255) order.push_back(t);
    }
    std::sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) { return bytes(a) < bytes(b); });
    same_.assign(n, -1);
    trie_.push_back({0, -1, 0, 0});
    std::vector<uint32_t> path = {0};  // nodes from the root to the last token's
    std::string_view last;
    for (const uint32_t t : order) {
        const std::string_view text = bytes(t);
        size_t common = 0;
        while (common < last.size() && common < text.size() && last[common] == text[common]) ++common;
        for (; path.size() > common + 1; path.pop_back()) trie_[path.back()].end = static_cast<uint32_t>(trie_.size());
        for (size_t i = common; i < text.size(); ++i) {
            path.push_back(static_cast<uint32_t>(trie_.size()));
            trie_.push_back({0, -1, static_cast<uint8_t>(text[i]), static_cast<uint8_t>(i + 1)});
        }
        Node &node = trie_[path.back()];
        same_[t] = node.token;
        node.shared = node.token >= 0;
        node.token = static_cast<int32_t>(t);
        last = text;
    }
    for (; !path.empty(); path.pop_back()) trie_[path.back()].end = static_cast<uint32_t>(trie_.size());
    size_t single = 0;
    for (uint32_t i = 1; i < trie_.size(); i = trie_[i].end) single += trie_[i].token >= 0;
    if (single != 256)
        throw Error(DSV4_E_INVALID, "vocabulary: expected a token for every single byte, found " + std::to_string(single));

    for (space_ = 1; trie_[space_].byte != ' ';) space_ = trie_[space_].end;
    branches_ = split(trie_, space_, same_, n);
    sweep_ = std::make_unique<const Sweep>(trie_, same_, n);

    const std::vector<std::string> all = control_texts(), marker = {std::string(kDsmlToken)};
    const Dfa plain = intersect(any_text(TextForm::raw), dfa_avoiding(all), "text");
    const Dfa value = intersect(any_text(TextForm::raw), dfa_avoiding(marker), "text");
    common_.push_back(leaf(plain, false));
    common_.push_back(leaf(plain, false));
    common_.push_back(leaf(dfa_followed_by(plain, "\n\n<", "text")));
    common_.push_back(leaf(dfa_followed_by(value, "</", "text")));
    for (const auto &avoided : {marker, all})
        common_.push_back(leaf(dfa_followed_by(
            intersect(any_text(TextForm::json), dfa_avoiding(avoided), "text"), "\"", "text")));
    common_.push_back(leaf(dfa_followed_by(plain_keys(), "\"", "key")));
    std::string reason;
    common_.push_back(leaf(*pattern_text("^(?: |\\n[ \\t]{0,24})?$", TextForm::raw, reason)));
    common_.push_back(leaf(number_text(NumberRange{}, "number")));
}

}  // namespace dsv4
