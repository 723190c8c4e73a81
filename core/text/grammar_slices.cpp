#include "core/text/grammar_slices.hpp"

#include <algorithm>
#include <string>

namespace dsv4 {
namespace {

/// The alphabet that adds an ASCII byte.
size_t slice_of(uint8_t b) {
    if (b >= 'a' && b <= 'z') return 0;
    if ((b >= 'A' && b <= 'Z') || (b >= '0' && b <= '9')) return 1;
    if (b == ' ') return 2;
    if (b < 0x20 || b >= 0x7F || b == '"' || b == '\\' || b == '/' || b == '<' || b == '>') return kSlices;
    return 4;
}
constexpr size_t kBeyondAscii = 3;

/// Sequences of bytes in these ranges, one after the other, are plain characters (RFC 3629, section 4; lead EF left out).
struct Range {
    uint8_t low, high;
};
struct Sequences {
    size_t length;
    std::array<Range, 4> bytes;
};
constexpr Range kTail = {0x80, 0xBF};
constexpr std::array<Sequences, 8> kSequences = {{{2, {{{0xC2, 0xDF}, kTail}}},
                                                  {3, {{{0xE0, 0xE0}, {0xA0, 0xBF}, kTail}}},
                                                  {3, {{{0xE1, 0xEC}, kTail, kTail}}},
                                                  {3, {{{0xED, 0xED}, {0x80, 0x9F}, kTail}}},
                                                  {3, {{{0xEE, 0xEE}, kTail, kTail}}},
                                                  {4, {{{0xF0, 0xF0}, {0x90, 0xBF}, kTail, kTail}}},
                                                  {4, {{{0xF1, 0xF3}, kTail, kTail, kTail}}},
                                                  {4, {{{0xF4, 0xF4}, {0x80, 0x8F}, kTail, kTail}}}}};

/// Where one plain character leads.
struct Steps {
    std::vector<int32_t> to;  // alive states
    bool dies = false;        // for some character
    bool exits = false;       // an accepting state is met
};

class Stepper {
public:
    Stepper(const Dfa &dfa, bool mind_exits) : dfa_(dfa), mind_exits_(mind_exits) {
        for (size_t slice = 0; slice < kSlices; ++slice)
            for (size_t b = 0x20; b < 0x7F; ++b)
                if (slice_of(static_cast<uint8_t>(b)) == slice) add(ascii_[slice], b);
        for (size_t s = 0; s < kSequences.size(); ++s)
            for (size_t i = 0; i < kSequences[s].length; ++i)
                for (size_t b = kSequences[s].bytes[i].low; b <= kSequences[s].bytes[i].high; ++b) add(sequences_[s][i], b);
    }

    /// The characters that `slice` adds to the alphabet before it.
    void character(int32_t state, size_t slice, Steps &out) {
        out.to.clear();
        out.dies = out.exits = false;
        if (slice != kBeyondAscii) return take(state, ascii_[slice], out.to, out);
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
        const int32_t *const row = &dfa_.table[static_cast<size_t>(state) * dfa_.classes];
        for (const uint8_t c : classes) {
            const int32_t next = row[c];
            if (next < 0) {
                out.dies = true;
                continue;
            }
            out.exits = out.exits || (mind_exits_ && dfa_.accept[static_cast<size_t>(next)]);
            if (std::find(to.begin(), to.end(), next) == to.end()) to.push_back(next);
        }
    }

    const Dfa &dfa_;
    const bool mind_exits_;
    std::array<Classes, kSlices> ascii_;
    std::array<std::array<Classes, 4>, kSequences.size()> sequences_;
    std::vector<int32_t> at_, next_;
};

}  // namespace

Spelling spelling_of(std::string_view text) {
    Spelling out{0, 0};
    for (size_t i = 0; i < text.size(); ++out.characters) {
        const auto lead = static_cast<uint8_t>(text[i]);
        if (lead < 0x80) {
            out.slice = std::max(out.slice, slice_of(lead));
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
            if (s == kSequences.end()) return {kSlices, 0};
            out.slice = std::max(out.slice, kBeyondAscii);
            i += s->length;
        }
        if (out.slice == kSlices) return {kSlices, 0};
    }
    return out;
}

TokenMask TokenSlice::tokens(size_t characters) const {
    TokenMask out = up_to[std::min(characters, kMasks - 1)];
    for (const Longer &l : longer) {
        if (l.characters > characters) break;
        mask_set(out, l.token);
    }
    return out;
}

std::vector<TokenSlice> make_slices(const std::vector<TrieNode> &trie, const std::vector<int32_t> &same, size_t tokens) {
    std::vector<Spelling> spellings(trie.size(), {kSlices, 0});
    std::string path;
    for (size_t i = 1; i < trie.size(); ++i) {
        path.resize(trie[i].depth - 1u);
        path += static_cast<char>(trie[i].byte);
        if (trie[i].token >= 0) spellings[i] = spelling_of(path);
    }
    std::vector<TokenSlice> out(kSlices);
    for (size_t s = 0; s < kSlices; ++s) {
        TokenSlice &slice = out[s];
        slice.up_to.assign(TokenSlice::kMasks, TokenMask((tokens + 63) / 64, 0));
        // before[i]: nodes before i that lead to a token of the rest.
        std::vector<uint32_t> before(trie.size() + 1, 0), stack;
        std::vector<bool> kept(trie.size(), false);
        kept[0] = true;
        for (size_t i = 0; i < trie.size(); ++i) {
            stack.resize(trie[i].depth);
            stack.push_back(static_cast<uint32_t>(i));
            if (trie[i].token < 0) continue;
            if (spellings[i].slice > s) {
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
            if (spellings[i].slice <= s) node.token = -1, node.shared = false;
            slice.rest.push_back(node);
            slice.full.push_back(static_cast<uint32_t>(i));
        }
    }
    return out;
}

std::vector<SliceUse> slice_uses(const Dfa &dfa, bool exits) {
    constexpr uint8_t endless = SliceUse::kEndless;
    const size_t n = dfa.size();
    std::vector<SliceUse> out(n);
    std::vector<std::vector<int32_t>> before(n);  // states by one character; once per edge
    std::vector<uint32_t> edges(n, 0);
    std::vector<bool> dies(n, false), met(n, false);
    Stepper stepper(dfa, exits);
    Steps steps;
    for (size_t slice = 0; slice < kSlices; ++slice) {
        for (size_t s = 0; s < n; ++s) {
            stepper.character(static_cast<int32_t>(s), slice, steps);
            for (const int32_t to : steps.to) before[static_cast<size_t>(to)].push_back(static_cast<int32_t>(s));
            edges[s] += static_cast<uint32_t>(steps.to.size());
            dies[s] = dies[s] || steps.dies;
            met[s] = met[s] || steps.exits;
        }
        // safe: every text of so many characters survives and meets no exit. Breadth first from danger.
        std::vector<uint8_t> safe(n, endless), most(n, endless);
        std::vector<int32_t> queue;
        for (size_t s = 0; s < n; ++s)
            if (dies[s] || met[s]) safe[s] = 0, queue.push_back(static_cast<int32_t>(s));
        for (size_t head = 0; head < queue.size(); ++head) {
            const auto s = static_cast<size_t>(queue[head]);
            if (safe[s] + 1 >= endless) continue;
            for (const int32_t p : before[s])
                if (safe[static_cast<size_t>(p)] == endless)
                    safe[static_cast<size_t>(p)] = static_cast<uint8_t>(safe[s] + 1), queue.push_back(p);
        }
        // most: no longer text survives. Backwards from states that no character leaves; loops stay endless.
        std::vector<uint32_t> open = edges;
        std::vector<uint32_t> longest(n, 0);
        queue.clear();
        for (size_t s = 0; s < n; ++s)
            if (!met[s] && open[s] == 0) queue.push_back(static_cast<int32_t>(s));
        for (size_t head = 0; head < queue.size(); ++head) {
            const auto s = static_cast<size_t>(queue[head]);
            most[s] = static_cast<uint8_t>(std::min<uint32_t>(longest[s], endless));
            for (const int32_t q : before[s]) {
                const auto p = static_cast<size_t>(q);
                longest[p] = std::max(longest[p], longest[s] + 1);
                if (--open[p] == 0 && !met[p]) queue.push_back(q);
            }
        }
        for (size_t s = 0; s < n; ++s)
            if (safe[s] == most[s] || safe[s] == endless) out[s] = {static_cast<uint8_t>(slice), safe[s]};
    }
    return out;
}

}  // namespace dsv4
