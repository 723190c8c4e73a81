#include "core/text/grammar_counted.hpp"

#include <algorithm>
#include <bit>
#include <deque>
#include <string>

namespace dsv4 {
namespace {

constexpr size_t kMostDistances = 1u << 20, kMostSteps = 1u << 23;
constexpr uint32_t kFar = UINT32_MAX;
constexpr size_t kLongestToken = 255;

/// Whether texts go on alike wherever a character ends.
bool forgets(const Dfa &characters) {
    for (size_t s = 0; s < characters.size(); ++s) {
        const int32_t *const row = characters.row(static_cast<int32_t>(s)), *const first =
                                                                                characters.row(characters.start);
        if (characters.accept[s] && !std::equal(row, row + characters.classes, first)) return false;
    }
    return characters.accept[static_cast<size_t>(characters.start)] != 0;
}

}  // namespace

std::string_view text_tail(TextForm form) { return form == TextForm::raw ? "</" : "\""; }

const Dfa &counted_characters(TextForm form) {
    static const std::array<Dfa, 2> all = [] {
        std::string reason;
        return std::array{any_text(TextForm::raw), *pattern_text("^[^]*$", TextForm::json, reason)};
    }();
    return all[form == TextForm::json];
}

/// Where states lead, each state once.
struct CountedText::Edges {
    explicit Edges(const Dfa &dfa) {
        std::vector<uint32_t> seen(dfa.size(), 0);
        for (size_t s = 0; s < dfa.size(); ++s) {
            for (size_t c = 0; c < dfa.classes; ++c) {
                const int32_t t = dfa.row(static_cast<int32_t>(s))[c];
                if (t < 0 || seen[static_cast<size_t>(t)] == s + 1) continue;
                seen[static_cast<size_t>(t)] = static_cast<uint32_t>(s + 1);
                to.push_back(static_cast<uint32_t>(t));
            }
            begin.push_back(to.size());
        }
    }
    std::vector<size_t> begin = {0};  // [states + 1]
    std::vector<uint32_t> to;
};

std::unique_ptr<const CountedText> CountedText::make(Dfa text, TextForm form, size_t min, size_t max) {
    const size_t n = text.size();
    std::unique_ptr<CountedText> out(new CountedText(std::move(text), form, min, max));
    const size_t most = out->counts();
    if (most > kMostDistances || most * n > kMostDistances) return nullptr;
    out->count_bits_ = static_cast<uint32_t>(std::bit_width(most - 1));
    const Edges edges(out->text);
    if (most * edges.to.size() > kMostSteps) return nullptr;
    if (!out->mark_characters() || !out->mark_levels(edges)) return nullptr;
    if (max != SIZE_MAX && out->needed_[static_cast<size_t>(out->text.start)] > max) return nullptr;
    out->measure(edges);
    if (!out->always_ends(edges)) return nullptr;
    return out;
}

/// Which state of counted_characters() each state is in; false when that depends.
bool CountedText::mark_characters() {
    whole_.assign(text.size(), 1);
    if (!limited()) return true;
    const Dfa &characters = counted_characters(form);
    if (!forgets(characters)) return false;
    std::vector<uint8_t> bytes;  // one of each pair of classes
    std::vector<bool> seen(text.classes * characters.classes, false);
    for (size_t b = 0; b < 256; ++b) {
        const size_t both = text.class_of[b] * characters.classes + characters.class_of[b];
        if (!seen[both]) bytes.push_back(static_cast<uint8_t>(b));
        seen[both] = true;
    }
    character_.assign(text.size(), Dfa::kDead);
    character_[static_cast<size_t>(text.start)] = characters.start;
    std::vector<int32_t> queue = {text.start};
    for (size_t head = 0; head < queue.size(); ++head)
        for (const uint8_t b : bytes) {
            const int32_t to = text.next(queue[head], b);
            if (to < 0) continue;
            const int32_t character = characters.next(character_[static_cast<size_t>(queue[head])], b);
            int32_t &known = character_[static_cast<size_t>(to)];
            if (character < 0 || (known >= 0 && known != character)) return false;
            if (known < 0) queue.push_back(to);
            known = character;
        }
    for (size_t s = 0; s < text.size(); ++s) {
        whole_[s] = characters.accept[static_cast<size_t>(character_[s])];
        if (text.accept[s] && !whole_[s]) return false;
    }
    return true;
}

bool CountedText::mark_levels(const Edges &edges) {
    const size_t n = text.size();
    needed_.assign(n, 0);
    levels_.assign(n + 1, 1);
    levels_[0] = 0;
    late_ = {0};
    if (max_ == SIZE_MAX) return true;
    // Backwards from the ends; a step that ends a character costs one, others nothing.
    std::vector<std::vector<uint32_t>> before(n);
    for (size_t s = 0; s < n; ++s)
        for (size_t e = edges.begin[s]; e < edges.begin[s + 1]; ++e)
            before[edges.to[e]].push_back(static_cast<uint32_t>(s));
    std::fill(needed_.begin(), needed_.end(), kFar);
    std::deque<uint32_t> queue;
    for (size_t s = 0; s < n; ++s)
        if (text.accept[s]) needed_[s] = 0, queue.push_back(static_cast<uint32_t>(s));
    while (!queue.empty()) {
        const uint32_t s = queue.front();
        queue.pop_front();
        for (const uint32_t p : before[s]) {
            const uint32_t through = needed_[s] + whole_[s];
            if (through >= needed_[p]) continue;
            needed_[p] = through;
            if (whole_[s]) queue.push_back(p);
            else queue.push_front(p);
        }
    }
    late_.clear();
    const auto late = [&](size_t s) { return needed_[s] - (whole_[s] ? 0u : 1u); };
    for (size_t s = 0; s < n; ++s) late_.push_back(late(s));
    std::sort(late_.begin(), late_.end());
    late_.erase(std::unique(late_.begin(), late_.end()), late_.end());
    if (late_.size() > kMostLevels) return false;
    for (size_t s = 0; s < n; ++s)
        levels_[s + 1] =
            static_cast<uint8_t>(std::lower_bound(late_.begin(), late_.end(), late(s)) - late_.begin() + 1);
    return true;
}

void CountedText::measure(const Edges &edges) {
    const size_t n = text.size();
    const auto tail = static_cast<uint32_t>(tail_.size());
    distance_.assign(counts() * n, kFar);
    for (size_t count = counts(); count-- > 0;) {
        uint32_t *const here = &distance_[count * n];
        if (max_ == SIZE_MAX && count == min_) {
            for (size_t s = 0; s < n; ++s) here[s] = text.distance[s] + tail;
            continue;
        }
        const uint32_t *const above = count + 1 < counts() ? here + n : nullptr;
        for (size_t s = 0; s < n; ++s)
            if (text.accept[s] && enough(count)) here[s] = tail;
        for (bool changed = true; changed;) {  // a character has a few bytes
            changed = false;
            for (size_t s = 0; s < n; ++s)
                for (size_t e = edges.begin[s]; e < edges.begin[s + 1]; ++e) {
                    const uint32_t *const there = whole_[edges.to[e]] ? above : here;
                    if (!there || there[edges.to[e]] == kFar || there[edges.to[e]] + 1 >= here[s]) continue;
                    here[s] = there[edges.to[e]] + 1;
                    changed = true;
                }
        }
    }
}

/// Whether every text that has room for what it needs can be finished. Without a lower limit that is what `needed`
/// means.
bool CountedText::always_ends(const Edges &edges) const {
    if (min_ == 0) return true;
    const size_t n = text.size();
    std::vector<bool> seen(counts() * n, false);
    std::vector<size_t> queue = {static_cast<size_t>(text.start)};
    seen[queue[0]] = true;
    for (size_t head = 0; head < queue.size(); ++head) {
        if (distance_[queue[head]] == kFar) return false;
        const size_t count = queue[head] / n, s = queue[head] % n;
        for (size_t e = edges.begin[s]; e < edges.begin[s + 1]; ++e) {
            const uint32_t to = edges.to[e];
            size_t then = count + whole_[to];
            if (max_ == SIZE_MAX) then = std::min(then, min_);
            else if (then + needed_[to] > max_) continue;
            if (seen[then * n + to]) continue;
            seen[then * n + to] = true;
            queue.push_back(then * n + to);
        }
    }
    return true;
}

int32_t CountedText::pack(const Place &at) const {
    return static_cast<int32_t>((static_cast<uint32_t>(at.text + 1) << count_bits_ | at.count) << 2 | at.tail);
}

CountedText::Place CountedText::place(int32_t state) const {
    const auto bits = static_cast<uint32_t>(state);
    return {static_cast<int32_t>(bits >> 2 >> count_bits_) - 1, bits >> 2 & ((1u << count_bits_) - 1), bits & 3};
}

int32_t CountedText::next(int32_t state, uint8_t byte) const {
    const Place at = place(state);
    Place to = {Dfa::kDead, 0, 0};
    if (at.tail > 0 && at.tail < tail_.size() && byte == static_cast<uint8_t>(tail_[at.tail])) to.tail = at.tail + 1;
    if (at.text >= 0) {
        if (byte == static_cast<uint8_t>(tail_[0]) && at.text >= text.first_accepting && enough(at.count)) to.tail = 1;
        to.text = text.next(at.text, byte);
    }
    if (to.text >= 0) {
        size_t count = at.count + size_t{whole(to.text)};
        if (max_ == SIZE_MAX) count = std::min(count, min_);
        else if (count + needed(to.text) > max_) to.text = Dfa::kDead;
        if (to.text >= 0) to.count = static_cast<uint32_t>(count);
    }
    return to.text < 0 && to.tail == 0 ? Dfa::kDead : pack(to);
}

void CountedText::add_first(int32_t state, std::array<bool, 256> &bytes) const {
    const Place at = place(state);
    std::array<bool, 256> classes{};
    for (size_t c = 0; at.text >= 0 && c < text.classes; ++c) {
        const int32_t to = text.row(at.text)[c];
        classes[c] = to >= 0 && (max_ == SIZE_MAX || at.count + whole(to) + needed(to) <= max_);
    }
    for (size_t b = 0; b < bytes.size(); ++b) bytes[b] |= classes[text.class_of[b]];
    for (const char b : tail_) {
        bool &known = bytes[static_cast<uint8_t>(b)];
        known = known || next(state, static_cast<uint8_t>(b)) >= 0;
    }
}

uint32_t CountedText::distance(int32_t state) const {
    const Place at = place(state);
    const uint32_t through = at.text < 0 ? kFar : distance_[at.count * text.size() + static_cast<size_t>(at.text)];
    return at.tail ? std::min(through, static_cast<uint32_t>(tail_.size()) - at.tail) : through;
}

int32_t CountedText::alike(int32_t state) const {
    Place at = place(state);
    if (at.text < 0 || !enough(at.count) || room(at.count) < kLongestToken + late_.back()) return state;
    at.count = static_cast<uint32_t>(min_);
    return pack(at);
}

bool CountedText::counts_alike(int32_t state, uint8_t first) const {
    if (whole(state)) return true;
    const Dfa &characters = counted_characters(form);
    const int32_t to = characters.next(character_[static_cast<size_t>(state)], first);
    return to >= 0 && to == characters.next(characters.start, first) && characters.accept[static_cast<size_t>(to)];
}

// ---- tables of a vocabulary

TokenLengths::TokenLengths(const std::vector<TrieNode> &trie, const std::vector<int32_t> &same, size_t tokens,
                           TextForm form)
    : up_to(kMasks, TokenMask((tokens + 63) / 64, 0)) {
    const Dfa &characters = counted_characters(form);
    std::array<int32_t, 256> states;
    std::array<uint32_t, 256> counts;
    states[0] = characters.start;
    counts[0] = 0;
    for (uint32_t i = 1; i < trie.size();) {
        const TrieNode &node = trie[i];
        const int32_t to = characters.next(states[node.depth - 1u], node.byte);
        if (to < 0) {
            i = node.end;
            continue;
        }
        const bool whole = characters.accept[static_cast<size_t>(to)];
        states[node.depth] = to;
        counts[node.depth] = counts[node.depth - 1u] + (whole ? 1u : 0u);
        const uint32_t taken = counts[node.depth] + (whole ? 0u : 1u);
        for (int32_t t = node.token; t >= 0; t = same[static_cast<size_t>(t)]) {
            if (taken < kMasks) mask_set(up_to[taken], static_cast<uint32_t>(t));
            else longer.push_back({taken, static_cast<uint32_t>(t)});
        }
        ++i;
    }
    for (size_t n = 1; n < kMasks; ++n)
        for (size_t w = 0; w < up_to[n].size(); ++w) up_to[n][w] |= up_to[n - 1][w];
    std::sort(longer.begin(), longer.end(), [](const auto &a, const auto &b) { return a.characters > b.characters; });
}

void TokenLengths::add(TokenMask &mask, const TokenMask &some, size_t characters) const {
    if (characters < kMasks) {
        const TokenMask &shorter = up_to[characters];
        for (size_t w = 0; w < mask.size(); ++w) mask[w] |= some[w] & shorter[w];
        return;
    }
    for (size_t w = 0; w < mask.size(); ++w) mask[w] |= some[w];
    for (const Longer &l : longer) {
        if (l.characters <= characters) break;
        if (mask_has(some, l.token)) mask[l.token >> 6] &= ~(uint64_t{1} << (l.token & 63));
    }
}

TailNodes::TailNodes(const std::vector<TrieNode> &trie, std::string_view tail) {
    std::array<uint32_t, 256> path{};  // nodes from the root
    std::string bytes;
    std::vector<uint32_t> step_of(trie.size(), UINT32_MAX);
    step_of[0] = 0;
    steps.push_back({0, 0});
    for (uint32_t i = 1; i < trie.size(); ++i) {
        const TrieNode &node = trie[i];
        path[node.depth] = i;
        bytes.resize(node.depth - 1u);
        bytes += static_cast<char>(node.byte);
        for (size_t read = 1; read <= std::min(tail.size(), bytes.size()); ++read) {
            if (bytes.compare(bytes.size() - read, read, tail, 0, read) != 0) continue;
            const size_t before = bytes.size() - read;
            for (size_t depth = 1; depth <= before; ++depth)
                if (uint32_t &step = step_of[path[depth]]; step == UINT32_MAX) {
                    step = static_cast<uint32_t>(steps.size());
                    steps.push_back({step_of[path[depth - 1]], trie[path[depth]].byte});
                }
            ends.push_back({step_of[path[before]], i, read == tail.size() && node.end > i + 1});
        }
    }
}

}  // namespace dsv4
