// Masks of leaves: by slices and a walk, by the folded trie or by a sweep, whichever is quicker for the state.
#include <algorithm>
#include <span>

#include "core/text/grammar_vocabulary.hpp"

namespace dsv4 {
namespace {

constexpr size_t kVisitCost = 4;  // of a node visited by a walk; swept: 1
constexpr size_t kTriedStates = 32;
constexpr size_t kFoldFrom = 12;  // folding pays where a walk visits this part of the trie

/// [states] 1 where masks must tell which tokens get there. The first level is that of the texts' ends.
std::vector<uint8_t> minded(const CountedText &text) {
    std::vector<uint8_t> out(text.levels().begin() + 1, text.levels().end());
    for (uint8_t &level : out) level = level > 1;
    return out;
}

bool empty(const TokenMask &mask) {
    return std::all_of(mask.begin(), mask.end(), [](uint64_t word) { return word == 0; });
}

}  // namespace

Leaf::Leaf(Dfa automaton, bool exits)
    : own_(std::move(automaton)), exits_(exits),
      uses_(slice_uses(own_, exits ? own_.accept : std::vector<uint8_t>(own_.size(), 0))), surveys_(0) {}

Leaf::Leaf(std::unique_ptr<const CountedText> text)
    : counted_(std::move(text)), exits_(false), uses_(slice_uses(counted_->text, minded(*counted_))),
      surveys_(kMostMasks / counted_->late().size()) {}

void Leaf::add_first(int32_t state, std::array<bool, 256> &bytes) const {
    if (counted_) return counted_->add_first(state, bytes);
    const int32_t *const row = own_.row(state);
    for (size_t b = 0; b < bytes.size(); ++b) bytes[b] |= row[own_.class_of[b]] >= 0;
}

std::shared_ptr<const LeafMask> Leaf::mask(const Vocabulary &vocabulary, int32_t state) const {
    state = alike(state);
    {
        const std::lock_guard lock(mutex_);
        if (const auto *const found = masks_.find(state)) return *found;
    }
    std::shared_ptr<LeafMask> made;
    if (counted_) {
        made = counted_mask(vocabulary, state);
    } else {
        made = std::make_shared<LeafMask>();
        made->inside = std::move(inside(vocabulary, state, exits_ ? &made->exits : nullptr)[0]);
    }
    const std::lock_guard lock(mutex_);
    return masks_.put(state, std::move(made));  // users keep theirs alive
}

/// Adds what the automaton survives from `state`, at the root of the slice's rest. Masks have a spare word at the end.
template <bool kLevels>
void Leaf::walk(const Vocabulary &vocabulary, const TokenSlice &slice, int32_t state, std::vector<TokenMask> &made,
                std::vector<uint32_t> *exits) const {
    const Dfa &dfa = automaton();
    const size_t spare = vocabulary.words() * 64;
    uint64_t *const words = made[0].data();
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
        size_t level = 0;
        if constexpr (kLevels) {
            level = counted_->levels()[static_cast<size_t>(to) + 1] - 1u;
            if (made[level].empty()) made[level].assign(vocabulary.words() + 1, 0);
        }
        // Nodes without a token write to the spare word: half have one, in no order that a branch could foresee.
        const size_t token = node.token < 0 ? spare : static_cast<size_t>(node.token);
        (kLevels ? made[level].data() : words)[token >> 6] |= uint64_t{1} << (token & 63);
        if (node.shared) vocabulary.allow(made[level], node);
        if (!kLevels && exits && to >= dfa.first_accepting && vocabulary.trie()[slice.full[i]].end > slice.full[i] + 1)
            exits->push_back(slice.full[i]);
        ++i;
    }
}

Leaf::Parts Leaf::parts(const Vocabulary &vocabulary, int32_t state) const {
    Parts out;
    for (const bool spaced : {false, true}) {
        const int32_t from = spaced ? automaton().next(state, ' ') : state;
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
    for (size_t i = 0; i < parts.n; ++i) visits += parts.all[i].slice->sample.visits(automaton(), parts.all[i].state);
    return visits > most;
}

bool Leaf::prepare(const Vocabulary &vocabulary) {
    const Sweep &sweep = vocabulary.sweep();
    const Dfa &dfa = automaton();
    // Some states, in an order that no regularity of theirs follows.
    const size_t n = dfa.size(), tries = std::min(n, kTriedStates);
    for (size_t i = 0; i < tries; ++i) {
        const size_t state = tries == n ? i : (static_cast<size_t>(dfa.start) + i * 2654435761u) % n;
        if (!visits_more(parts(vocabulary, static_cast<int32_t>(state)), sweep.nodes() / kFoldFrom)) continue;
        folded_ = FoldedTrie::make(sweep, dfa, exits_);
        break;
    }
    return folded_ != nullptr;
}

/// Tokens that the automaton survives, by the level that they lead to; those of an automaton by itself have one.
std::vector<TokenMask> Leaf::inside(const Vocabulary &vocabulary, int32_t state, std::vector<uint32_t> *exits) const {
    const Dfa &dfa = automaton();
    const Parts parts = this->parts(vocabulary, state);
    const Sweep &sweep = vocabulary.sweep();
    const size_t levels = counted_ ? counted_->late().size() : 1;
    std::vector<TokenMask> made(levels);
    if (visits_more(parts, (folded_ ? folded_->cost() : sweep.nodes()) / kVisitCost)) {
        if (levels == 1) made[0] = folded_ ? folded_->tokens(dfa, state, exits) : sweep.tokens(dfa, state, exits);
        else if (folded_) made = folded_->tokens_by_level(dfa, state, counted_->levels(), levels);
        else made = sweep.tokens_by_level(dfa, state, counted_->levels(), levels);
        return made;
    }
    const std::span<const Part> used(parts.all.data(), parts.n);
    made[0].assign(vocabulary.words() + 1, 0);  // others when they are met
    // Slices lead to the first level, as others are minded.
    for (const Part &part : used) part.slice->allow(made[0], part.use.characters);
    for (const Part &part : used) {
        const PlainBytes &without = uses_.sets[part.use.without];
        for (size_t b = 0; without.any() && b < without.size(); ++b) {
            if (!without[b]) continue;
            const TokenMask &containing = part.branch->containing[b];
            for (size_t w = 0; w < containing.size(); ++w) made[0][w] &= ~containing[w];
        }
    }
    for (const Part &part : used) {
        if (levels == 1) walk<false>(vocabulary, *part.slice, part.state, made, exits);
        else walk<true>(vocabulary, *part.slice, part.state, made, nullptr);
    }
    if (const uint32_t space = vocabulary.space(); parts.n == 2) {
        const int32_t to = parts.all[1].state;
        const size_t level = levels == 1 ? 0 : counted_->levels()[static_cast<size_t>(to) + 1] - 1u;
        if (made[level].empty()) made[level].assign(vocabulary.words() + 1, 0);
        vocabulary.allow(made[level], vocabulary.trie()[space]);
        if (exits && to >= dfa.first_accepting && vocabulary.trie()[space].end > space + 1) exits->push_back(space);
    }
    for (TokenMask &mask : made)
        if (!mask.empty()) mask.pop_back();
    return made;
}

// ---- texts of so many characters

std::shared_ptr<const Leaf::Survey> Leaf::survey(const Vocabulary &vocabulary, int32_t state) const {
    {
        const std::lock_guard lock(mutex_);
        if (const auto *const found = surveys_.find(state)) return *found;
    }
    const auto made = std::make_shared<Survey>();
    made->by_level = inside(vocabulary, state, nullptr);
    if (!counted_->whole(state)) list_others(vocabulary, state, *made);
    for (TokenMask &mask : made->by_level)
        if (empty(mask)) mask = {};
    list_ended(vocabulary, state, *made);
    const std::lock_guard lock(mutex_);
    return surveys_.put(state, made);
}

/// Moves tokens to the list that count otherwise within a character than after one.
void Leaf::list_others(const Vocabulary &vocabulary, int32_t state, Survey &made) const {
    const Dfa &dfa = automaton();
    const std::vector<TrieNode> &trie = vocabulary.trie();
    TokenMask out(vocabulary.words(), 0);
    std::array<int32_t, 256> states;
    std::array<uint32_t, 256> counts;
    states[0] = state;
    counts[0] = 0;
    for (uint32_t i = 1; i < trie.size();) {
        const TrieNode &node = trie[i];
        const int32_t to = dfa.next(states[node.depth - 1u], node.byte);
        if (to < 0 || (node.depth == 1 && counted_->counts_alike(state, node.byte))) {
            i = node.end;
            continue;
        }
        states[node.depth] = to;
        counts[node.depth] = counts[node.depth - 1u] + (counted_->whole(to) ? 1u : 0u);
        if (node.token >= 0) {
            made.listed.push_back({counts[node.depth] + counted_->needed(to), i});
            vocabulary.allow(out, node);
        }
        ++i;
    }
    for (TokenMask &mask : made.by_level)
        for (size_t w = 0; w < mask.size(); ++w) mask[w] &= ~out[w];
    std::stable_sort(made.listed.begin(), made.listed.end(),
                     [](const auto &a, const auto &b) { return a.needed < b.needed; });
}

void Leaf::list_ended(const Vocabulary &vocabulary, int32_t state, Survey &made) const {
    const Dfa &dfa = automaton();
    const TailNodes &tails = vocabulary.tails(counted_->form);
    struct Reached {
        int32_t state;
        uint32_t characters;
    };
    std::vector<Reached> reached(tails.steps.size(), {Dfa::kDead, 0});
    reached[0] = {state, 0};
    for (size_t k = 1; k < reached.size(); ++k) {
        const Reached &from = reached[tails.steps[k].parent];
        if (from.state < 0) continue;
        const int32_t to = dfa.next(from.state, tails.steps[k].byte);
        if (to >= 0) reached[k] = {to, from.characters + (counted_->whole(to) ? 1u : 0u)};
    }
    for (const TailNodes::End &end : tails.ends)
        if (reached[end.step].state >= dfa.first_accepting)
            made.ended.push_back({reached[end.step].characters, end.node, end.complete});
}

std::shared_ptr<LeafMask> Leaf::counted_mask(const Vocabulary &vocabulary, int32_t state) const {
    auto made = std::make_shared<LeafMask>();
    made->inside.assign(vocabulary.words(), 0);
    const std::vector<TrieNode> &trie = vocabulary.trie();
    const CountedText::Place at = counted_->place(state);
    if (at.text >= 0) {
        const std::shared_ptr<const Survey> survey = this->survey(vocabulary, at.text);
        const size_t room = counted_->room(at.count);
        const TokenLengths &lengths = vocabulary.lengths(counted_->form);
        for (size_t level = 0; level < survey->by_level.size(); ++level)
            if (const size_t late = counted_->late()[level]; !survey->by_level[level].empty() && late <= room)
                lengths.add(made->inside, survey->by_level[level], room - late);
        for (const Survey::Listed &listed : survey->listed) {
            if (listed.needed > room) break;
            vocabulary.allow(made->inside, trie[listed.node]);
        }
        for (const Survey::Ended &ended : survey->ended) {
            if (ended.characters > room || !counted_->enough(at.count + ended.characters)) continue;
            vocabulary.allow(made->inside, trie[ended.node]);
            if (ended.complete) made->exits.push_back(ended.node);
        }
    }
    // The rest of a tail that has begun.
    const std::string_view tail = text_tail(counted_->form);
    uint32_t node = 0;
    for (size_t i = at.tail; at.tail > 0 && i < tail.size(); ++i) {
        const uint32_t end = trie[node].end;
        for (++node; node < end && trie[node].byte != static_cast<uint8_t>(tail[i]);) node = trie[node].end;
        if (node >= end) break;
        vocabulary.allow(made->inside, trie[node]);
        if (i + 1 == tail.size() && trie[node].end > node + 1) made->exits.push_back(node);
    }
    return made;
}

}  // namespace dsv4
