#include "core/text/grammar_slices.hpp"

#include <algorithm>
#include <string>
#include <unordered_map>

namespace dsv4 {
namespace {

/// A printable ASCII byte's kind; kPlainKinds: not plain.
size_t kind_of(uint8_t b) {
    const auto is = [](Plain kind) { return static_cast<size_t>(kind); };
    if (b >= 'a' && b <= 'z') return is(Plain::lower);
    if (b >= 'A' && b <= 'Z') return is(Plain::upper);
    if (b >= '0' && b <= '9') return is(Plain::digit);
    if (b == ' ') return is(Plain::space);
    if (b < 0x20 || b >= 0x7F || b == '"' || b == '\\' || b == '/' || b == '<' || b == '>') return kPlainKinds;
    return is(Plain::punctuation);
}
constexpr size_t kWide = static_cast<size_t>(Plain::wide);
constexpr Spelling kNotPlain = {0xFF, 0};

/// Sequences of bytes in these ranges, one after the other, are wide characters (RFC 3629, section 4, less what is not
/// plain).
struct Range {
    uint8_t low, high;
};
struct Sequences {
    size_t length;
    std::array<Range, 4> bytes;
};
constexpr Range kTail = {0x80, 0xBF};
constexpr std::array<Sequences, 11> kSequences = {{{2, {{{0xC3, 0xDF}, kTail}}},
                                                   {3, {{{0xE0, 0xE0}, {0xA0, 0xBF}, kTail}}},
                                                   {3, {{{0xE1, 0xE1}, {0x80, 0x99}, kTail}}},
                                                   {3, {{{0xE1, 0xE1}, {0x9B, 0xBF}, kTail}}},
                                                   {3, {{{0xE3, 0xE3}, {0x81, 0xBF}, kTail}}},
                                                   {3, {{{0xE4, 0xEC}, kTail, kTail}}},
                                                   {3, {{{0xED, 0xED}, {0x80, 0x9F}, kTail}}},
                                                   {3, {{{0xEE, 0xEE}, kTail, kTail}}},
                                                   {4, {{{0xF0, 0xF0}, {0x90, 0xBF}, kTail, kTail}}},
                                                   {4, {{{0xF1, 0xF3}, kTail, kTail, kTail}}},
                                                   {4, {{{0xF4, 0xF4}, {0x80, 0x8F}, kTail, kTail}}}}};

/// Where one plain character leads.
struct Steps {
    std::vector<int32_t> to;  // alive states
    bool dies = false;        // for some character
    bool minded = false;      // a minded state is met
};

class Stepper {
public:
    Stepper(const Dfa &dfa, const std::vector<uint8_t> &minded) : dfa_(dfa), minded_(minded) {
        for (size_t b = 0x20; b < 0x7F; ++b)
            if (const size_t kind = kind_of(static_cast<uint8_t>(b)); kind < kPlainKinds) add(ascii_[kind], b);
        for (size_t s = 0; s < kSequences.size(); ++s)
            for (size_t i = 0; i < kSequences[s].length; ++i)
                for (size_t b = kSequences[s].bytes[i].low; b <= kSequences[s].bytes[i].high; ++b)
                    add(sequences_[s][i], b);
    }

    /// One character of that kind.
    void character(int32_t state, size_t kind, Steps &out) {
        out.to.clear();
        out.dies = out.minded = false;
        if (kind != kWide) return take(state, ascii_[kind], out.to, out);
        for (size_t s = 0; s < kSequences.size(); ++s) {
            at_.assign(1, state);
            for (size_t i = 0; i + 1 < kSequences[s].length; ++i, at_.swap(next_)) {
                next_.clear();
                for (const int32_t from : at_) take(from, sequences_[s][i], next_, out);
            }
            for (const int32_t from : at_) take(from, sequences_[s][kSequences[s].length - 1], out.to, out);
        }
    }

private:
    using Classes = std::vector<uint8_t>;
    void add(Classes &classes, size_t byte) const {
        const uint8_t c = dfa_.class_of[byte];
        if (std::find(classes.begin(), classes.end(), c) == classes.end()) classes.push_back(c);
    }
    void take(int32_t state, const Classes &classes, std::vector<int32_t> &to, Steps &out) const {
        const int32_t *const row = dfa_.row(state);
        for (const uint8_t c : classes) {
            const int32_t next = row[c];
            if (next < 0) {
                out.dies = true;
                continue;
            }
            out.minded = out.minded || minded_[static_cast<size_t>(next)];
            if (std::find(to.begin(), to.end(), next) == to.end()) to.push_back(next);
        }
    }

    const Dfa &dfa_;
    const std::vector<uint8_t> &minded_;
    std::array<Classes, kPlainKinds> ascii_;
    std::array<std::array<Classes, 4>, kSequences.size()> sequences_;
    std::vector<int32_t> at_, next_;
};

}  // namespace

Spelling spelling_of(std::string_view text) {
    Spelling out{0, 0};
    for (size_t i = 0; i < text.size(); ++out.characters) {
        size_t kind = kWide;
        if (const auto lead = static_cast<uint8_t>(text[i]); lead < 0x80) {
            kind = kind_of(lead);
            ++i;
        } else {
            const auto fits = [&](const Sequences &s) {
                for (size_t k = 0; k < s.length; ++k) {
                    if (i + k >= text.size()) return false;
                    const auto b = static_cast<uint8_t>(text[i + k]);
                    if (b < s.bytes[k].low || b > s.bytes[k].high) return false;
                }
                return true;
            };
            const auto s = std::find_if(kSequences.begin(), kSequences.end(), fits);
            if (s == kSequences.end()) return kNotPlain;
            i += s->length;
        }
        if (kind == kPlainKinds) return kNotPlain;
        out.kinds = static_cast<uint8_t>(out.kinds | 1u << kind);
    }
    return out;
}

void TokenSlice::allow(TokenMask &mask, size_t characters) const {
    if (up_to.empty()) return;
    const TokenMask &shorter = up_to[std::min(characters, kMasks - 1)];
    for (size_t w = 0; w < shorter.size(); ++w) mask[w] |= shorter[w];
    for (const Longer &l : longer) {
        if (l.characters > characters) break;
        mask_set(mask, l.token);
    }
}

namespace {

TokenSlice make_slice(const std::vector<TrieNode> &trie, const std::vector<uint32_t> &full,
                      const std::vector<Spelling> &spellings, uint8_t kinds, const std::vector<int32_t> &same,
                      size_t tokens) {
    TokenSlice slice;
    slice.up_to.assign(TokenSlice::kMasks, TokenMask((tokens + 63) / 64, 0));
    // before[i]: nodes before i that lead to a token of the rest.
    std::vector<uint32_t> before(trie.size() + 1, 0), stack;
    std::vector<bool> kept(trie.size(), false);
    kept[0] = true;
    for (size_t i = 0; i < trie.size(); ++i) {
        stack.resize(trie[i].depth);
        stack.push_back(static_cast<uint32_t>(i));
        if (trie[i].token < 0) continue;
        if (!spellings[i].within(kinds)) {
            for (size_t k = stack.size(); k-- > 0 && !kept[stack[k]];) kept[stack[k]] = true;
            continue;
        }
        const size_t n = spellings[i].characters;
        for (int32_t t = trie[i].token; t >= 0; t = same[static_cast<size_t>(t)]) {
            if (n < TokenSlice::kMasks) mask_set(slice.up_to[n], static_cast<uint32_t>(t));
            else slice.longer.push_back({static_cast<uint32_t>(n), static_cast<uint32_t>(t)});
        }
    }
    for (size_t n = 1; n < TokenSlice::kMasks; ++n)
        for (size_t w = 0; w < slice.up_to[n].size(); ++w) slice.up_to[n][w] |= slice.up_to[n - 1][w];
    std::sort(slice.longer.begin(), slice.longer.end(),
              [](const auto &a, const auto &b) { return a.characters < b.characters; });
    for (size_t i = 0; i < trie.size(); ++i) before[i + 1] = before[i] + kept[i];
    for (size_t i = 0; i < trie.size(); ++i) {
        if (!kept[i]) continue;
        TrieNode node = trie[i];
        node.end = before[node.end];
        if (spellings[i].within(kinds)) node.token = -1, node.shared = false;
        slice.rest.push_back(node);
        slice.full.push_back(full[i]);
    }
    slice.sample = WalkSample(slice.rest);
    return slice;
}

}  // namespace

TokenBranch make_branch(const std::vector<TrieNode> &trie, const std::vector<uint32_t> &full,
                        const std::vector<int32_t> &same, size_t tokens) {
    std::vector<Spelling> spellings(trie.size(), kNotPlain);
    TokenBranch out;
    out.containing.resize(128);
    for (size_t b = 0; b < 128; ++b)
        if (kind_of(static_cast<uint8_t>(b)) < kPlainKinds) out.containing[b].assign((tokens + 63) / 64, 0);
    std::string path;
    for (size_t i = 1; i < trie.size(); ++i) {
        path.resize(trie[i].depth - 1u);
        path += static_cast<char>(trie[i].byte);
        if (trie[i].token < 0) continue;
        spellings[i] = spelling_of(path);
        for (const char c : path) {
            const auto b = static_cast<uint8_t>(c);
            if (b >= 128 || out.containing[b].empty()) continue;
            for (int32_t t = trie[i].token; t >= 0; t = same[static_cast<size_t>(t)])
                mask_set(out.containing[b], static_cast<uint32_t>(t));
        }
    }
    for (const uint8_t kinds : kSlices) out.slices.push_back(make_slice(trie, full, spellings, kinds, same, tokens));
    TokenSlice none;
    none.rest = trie;
    none.full = full;
    none.sample = WalkSample(trie);
    out.slices.push_back(std::move(none));
    return out;
}

namespace {

/// Sets of characters that states forbid, the most frequent first, after the empty one. Only small ones: each character
/// costs a pass over the mask.
std::vector<PlainBytes> forbidden_sets(const std::vector<PlainBytes> &dead, const PlainBytes &plain) {
    constexpr size_t kMostBytes = 16, kMostSets = 4;
    std::unordered_map<PlainBytes, size_t> counts;
    for (const PlainBytes &d : dead)
        if (const PlainBytes some = d & plain; some.any() && some.count() <= kMostBytes) ++counts[some];
    std::vector<std::pair<size_t, std::string>> order;
    for (const auto &[set, n] : counts) order.emplace_back(n, set.to_string());
    std::sort(order.rbegin(), order.rend());
    std::vector<PlainBytes> out = {PlainBytes()};
    for (size_t i = 0; i < std::min(order.size(), kMostSets); ++i) out.emplace_back(order[i].second);
    return out;
}

}  // namespace

SliceUses slice_uses(const Dfa &dfa, const std::vector<uint8_t> &minded) {
    constexpr uint32_t far = UINT32_MAX;
    const size_t n = dfa.size();
    SliceUses out{std::vector<SliceUse>(n), {PlainBytes()}};
    struct Edge {
        int32_t from, to;
    };
    std::array<std::vector<Edge>, kPlainKinds> steps_of;
    std::array<PlainBytes, kPlainKinds> bytes_of;
    std::vector<uint8_t> dies(n, 0), met(n, 0);  // bit = kind; dies: wide ones only
    std::vector<PlainBytes> dead(n);
    for (size_t b = 0; b < 128; ++b)
        if (const size_t kind = kind_of(static_cast<uint8_t>(b)); kind < kPlainKinds) {
            bytes_of[kind].set(b);
            for (size_t s = 0; s < n; ++s) dead[s][b] = dfa.next(static_cast<int32_t>(s), static_cast<uint8_t>(b)) < 0;
        }
    Stepper stepper(dfa, minded);
    Steps steps;
    for (size_t kind = 0; kind < kPlainKinds; ++kind)
        for (size_t s = 0; s < n; ++s) {
            stepper.character(static_cast<int32_t>(s), kind, steps);
            for (const int32_t to : steps.to) steps_of[kind].push_back({static_cast<int32_t>(s), to});
            if (kind == kWide) dies[s] = static_cast<uint8_t>(unsigned{steps.dies} << kind);
            met[s] = static_cast<uint8_t>(met[s] | unsigned{steps.minded} << kind);
        }
    std::vector<uint32_t> open, longest, begin, safe, most;
    std::vector<int32_t> before, queue;  // before[begin[s]...]: states one character before s, once per edge
    for (size_t slice = 0; slice < kSlices.size(); ++slice) {
        const uint8_t kinds = kSlices[slice];
        PlainBytes plain;
        open.assign(n, 0);
        begin.assign(n + 2, 0);
        for (size_t kind = 0; kind < kPlainKinds; ++kind)
            if (kinds >> kind & 1) {
                plain |= bytes_of[kind];
                for (const Edge &e : steps_of[kind]) {
                    ++open[static_cast<size_t>(e.from)];
                    ++begin[static_cast<size_t>(e.to) + 2];
                }
            }
        for (size_t s = 2; s < begin.size(); ++s) begin[s] += begin[s - 1];
        before.resize(begin.back());
        for (size_t kind = 0; kind < kPlainKinds; ++kind)
            if (kinds >> kind & 1)
                for (const Edge &e : steps_of[kind]) before[begin[static_cast<size_t>(e.to) + 1]++] = e.from;
        // most: no longer text survives. Backwards from states that no character leaves; loops stay endless.
        most.assign(n, far);
        longest.assign(n, 0);
        queue.clear();
        for (size_t s = 0; s < n; ++s)
            if (!(met[s] & kinds) && open[s] == 0) queue.push_back(static_cast<int32_t>(s));
        for (size_t head = 0; head < queue.size(); ++head) {
            const auto s = static_cast<size_t>(queue[head]);
            most[s] = longest[s];
            for (uint32_t k = begin[s]; k < begin[s + 1]; ++k) {
                const auto p = static_cast<size_t>(before[k]);
                longest[p] = std::max(longest[p], longest[s] + 1);
                if (--open[p] == 0 && !(met[p] & kinds)) queue.push_back(before[k]);
            }
        }
        for (const PlainBytes &forbidden : forbidden_sets(dead, plain)) {
            // safe: texts of fewer characters, none forbidden, survive, meet no minded state, and die of a forbidden one after
            // them. Breadth first from danger, at first where a forbidden character survives. The edges of such
            // characters need not be taken out: where there is one nothing is safe, and `most` only grows.
            safe.assign(n, far);
            queue.clear();
            for (size_t s = 0; s < n; ++s)
                if ((forbidden & ~dead[s]).any()) safe[s] = 0, queue.push_back(static_cast<int32_t>(s));
            for (size_t s = 0; s < n; ++s)
                if (safe[s] == far && (((dies[s] | met[s]) & kinds) != 0 || (dead[s] & plain & ~forbidden).any()))
                    safe[s] = 1, queue.push_back(static_cast<int32_t>(s));
            for (size_t head = 0; head < queue.size(); ++head) {
                const auto s = static_cast<size_t>(queue[head]);
                for (uint32_t k = begin[s]; k < begin[s + 1]; ++k) {
                    const auto p = static_cast<size_t>(before[k]);
                    if (safe[p] == far) safe[p] = safe[s] + 1, queue.push_back(before[k]);
                }
            }
            size_t set = 0;
            while (set < out.sets.size() && out.sets[set] != forbidden) ++set;
            if (set > UINT8_MAX) continue;
            bool used = false;
            for (size_t s = 0; s < n; ++s) {
                const bool endless = safe[s] > SliceUse::kEndless;  // no token is that long
                if (!endless && (safe[s] == 0 || safe[s] - 1 != most[s])) continue;
                out.states[s] = {static_cast<uint8_t>(slice), static_cast<uint8_t>(endless ? SliceUse::kEndless : most[s]),
                                 static_cast<uint8_t>(set)};
                used = true;
            }
            if (used && set == out.sets.size()) out.sets.push_back(forbidden);
        }
    }
    return out;
}

}  // namespace dsv4
