#include "core/text/grammar_dfa.hpp"

#include <algorithm>
#include <functional>
#include <map>
#include <unordered_map>

#include "core/error.hpp"

namespace dsv4 {
namespace {

[[noreturn]] void too_large(const std::string &what) {
    throw Error(DSV4_E_UNSUPPORTED, what + ": needs an automaton of more than " + std::to_string(kMaxDfaStates) +
                                        " states or " + std::to_string(kMaxDfaEntries) + " entries; use tighter limits");
}

void guard(const Dfa &dfa, const std::string &what) {
    if (dfa.accept.size() > kMaxDfaStates || dfa.table.size() > kMaxDfaEntries) too_large(what);
}

/// The classes of `dfa` and no states.
Dfa empty_like(const Dfa &dfa) {
    Dfa out;
    out.class_of = dfa.class_of;
    out.classes = dfa.classes;
    out.table.assign(out.classes, Dfa::kDead);
    return out;
}

/// Removes states that cannot reach acceptance, puts accepting ones last and fills `distance`.
void trim(Dfa &dfa, const std::string &what) {
    const size_t n = dfa.size();
    std::vector<std::vector<uint32_t>> before(n);
    for (size_t s = 0; s < n; ++s)
        for (size_t c = 0; c < dfa.classes; ++c)
            if (const int32_t t = dfa.row(static_cast<int32_t>(s))[c]; t >= 0)
                if (before[static_cast<size_t>(t)].empty() || before[static_cast<size_t>(t)].back() != s)
                    before[static_cast<size_t>(t)].push_back(static_cast<uint32_t>(s));
    constexpr uint32_t far = UINT32_MAX;
    std::vector<uint32_t> distance(n, far), queue;
    for (size_t s = 0; s < n; ++s)
        if (dfa.accept[s]) distance[s] = 0, queue.push_back(static_cast<uint32_t>(s));
    for (size_t head = 0; head < queue.size(); ++head)
        for (const uint32_t p : before[queue[head]])
            if (distance[p] == far) distance[p] = distance[queue[head]] + 1, queue.push_back(p);
    if (n == 0 || distance[static_cast<size_t>(dfa.start)] == far)
        throw Error(DSV4_E_INVALID, what + ": no text can satisfy it");
    std::vector<int32_t> renamed(n, Dfa::kDead);
    Dfa out = empty_like(dfa);
    std::vector<size_t> kept;
    for (const bool accepting : {false, true}) {
        if (accepting) out.first_accepting = static_cast<int32_t>(kept.size());
        for (size_t s = 0; s < n; ++s)
            if (distance[s] != far && (dfa.accept[s] != 0) == accepting) {
                renamed[s] = static_cast<int32_t>(kept.size());
                kept.push_back(s);
                out.accept.push_back(dfa.accept[s]);
                out.distance.push_back(distance[s]);
            }
    }
    for (const size_t s : kept)
        for (size_t c = 0; c < dfa.classes; ++c) {
            const int32_t t = dfa.row(static_cast<int32_t>(s))[c];
            out.table.push_back(t < 0 ? Dfa::kDead : renamed[static_cast<size_t>(t)]);
        }
    out.start = renamed[static_cast<size_t>(dfa.start)];
    dfa = std::move(out);
}

/// Byte classes from the bytes at which some range begins.
void set_classes(Dfa &dfa, const std::array<bool, 257> &cuts) {
    size_t current = 0;
    for (size_t b = 0; b < 256; ++b) {
        if (b > 0 && cuts[b]) ++current;
        dfa.class_of[b] = static_cast<uint8_t>(current);
    }
    dfa.classes = current + 1;
    dfa.table.assign(dfa.classes, Dfa::kDead);
}

/// The first byte of every class.
std::vector<uint8_t> representatives(const Dfa &dfa) {
    std::vector<uint8_t> out(dfa.classes);
    for (size_t b = 256; b-- > 0;) out[dfa.class_of[b]] = static_cast<uint8_t>(b);
    return out;
}

/// Explores a deterministic product whose states are keys; `step` gives the next key or kDeadKey.
constexpr uint64_t kDeadKey = UINT64_MAX;
Dfa explore(Dfa out, uint64_t start, const std::function<uint64_t(uint64_t, uint8_t)> &step,
            const std::function<bool(uint64_t)> &accepts, const std::string &what) {
    const std::vector<uint8_t> bytes = representatives(out);
    std::unordered_map<uint64_t, int32_t> ids;
    std::vector<uint64_t> keys;
    const auto id = [&](uint64_t key) {
        const auto [it, fresh] = ids.emplace(key, static_cast<int32_t>(keys.size()));
        if (fresh) {
            keys.push_back(key);
            out.accept.push_back(accepts(key));
        }
        return it->second;
    };
    out.start = id(start);
    for (size_t s = 0; s < keys.size(); ++s) {
        for (size_t c = 0; c < out.classes; ++c) {
            const uint64_t to = step(keys[s], bytes[c]);
            out.table.push_back(to == kDeadKey ? Dfa::kDead : id(to));
        }
        guard(out, what);
    }
    trim(out, what);
    return out;
}

std::array<bool, 257> cuts_of(const Dfa &dfa) {
    std::array<bool, 257> cuts{};
    for (size_t b = 1; b < 256; ++b) cuts[b] = dfa.class_of[b] != dfa.class_of[b - 1];
    return cuts;
}

uint64_t pair_key(int64_t a, int64_t b) { return static_cast<uint64_t>(a) << 32 | static_cast<uint64_t>(b); }
int32_t high(uint64_t key) { return static_cast<int32_t>(key >> 32); }
int32_t low(uint64_t key) { return static_cast<int32_t>(key & 0xFFFFFFFFu); }

}  // namespace

int32_t Dfa::run(int32_t state, std::string_view text) const {
    for (const char c : text) {
        if (state < 0) break;
        state = next(state, static_cast<uint8_t>(c));
    }
    return state;
}

bool Dfa::matches(std::string_view text) const {
    const int32_t state = run(start, text);
    return state >= 0 && accept[static_cast<size_t>(state)];
}

uint32_t Nfa::state() {
    states_.emplace_back();
    return static_cast<uint32_t>(states_.size() - 1);
}
void Nfa::edge(uint32_t from, uint8_t low, uint8_t high, uint32_t to) { states_[from].edges.push_back({low, high, to}); }
void Nfa::epsilon(uint32_t from, uint32_t to) { states_[from].epsilons.push_back(to); }
void Nfa::text(uint32_t from, std::string_view bytes, uint32_t to) {
    for (size_t i = 0; i < bytes.size(); ++i) {
        const uint32_t target = i + 1 == bytes.size() ? to : state();
        edge(from, static_cast<uint8_t>(bytes[i]), static_cast<uint8_t>(bytes[i]), target);
        from = target;
    }
    if (bytes.empty()) epsilon(from, to);
}

Dfa Nfa::determinize(uint32_t start, uint32_t end, const std::string &what) const {
    Dfa out;
    std::array<bool, 257> cuts{};
    for (const State &state : states_)
        for (const Edge &edge : state.edges) cuts[edge.low] = cuts[edge.high + 1u] = true;
    set_classes(out, cuts);

    std::vector<uint32_t> mark(states_.size(), 0);
    uint32_t round = 0;
    size_t work = 0;
    const auto close = [&](std::vector<uint32_t> set) {
        ++round;
        std::vector<uint32_t> kept;
        for (size_t i = 0; i < set.size(); ++i) {
            const uint32_t s = set[i];
            if (mark[s] == round) continue;
            mark[s] = round;
            if (!states_[s].edges.empty() || s == end) kept.push_back(s);  // others only pass through
            set.insert(set.end(), states_[s].epsilons.begin(), states_[s].epsilons.end());
        }
        work += set.size();
        std::sort(kept.begin(), kept.end());
        return kept;
    };
    std::map<std::vector<uint32_t>, int32_t> ids;
    std::vector<const std::vector<uint32_t> *> sets;
    const auto id = [&](std::vector<uint32_t> set) {
        const auto [it, fresh] = ids.emplace(std::move(set), static_cast<int32_t>(sets.size()));
        if (fresh) {
            sets.push_back(&it->first);
            out.accept.push_back(std::binary_search(it->first.begin(), it->first.end(), end));
        }
        return it->second;
    };
    out.start = id(close({start}));
    std::vector<std::vector<uint32_t>> reached(out.classes);
    for (size_t s = 0; s < sets.size(); ++s) {
        for (auto &r : reached) r.clear();
        for (const uint32_t n : *sets[s])
            for (const Edge &edge : states_[n].edges)
                for (size_t c = out.class_of[edge.low]; c <= out.class_of[edge.high]; ++c) reached[c].push_back(edge.to);
        for (size_t c = 0; c < out.classes; ++c)
            out.table.push_back(reached[c].empty() ? Dfa::kDead : id(close(reached[c])));
        guard(out, what);
        if (work > (1u << 24)) too_large(what);
    }
    trim(out, what);
    return out;
}

Dfa intersect(const Dfa &a, const Dfa &b, const std::string &what) {
    std::array<bool, 257> cuts = cuts_of(a);
    const std::array<bool, 257> other = cuts_of(b);
    for (size_t i = 0; i < cuts.size(); ++i) cuts[i] = cuts[i] || other[i];
    Dfa out;
    set_classes(out, cuts);
    return explore(
        std::move(out), pair_key(a.start, b.start),
        [&](uint64_t key, uint8_t byte) {
            const int32_t x = a.next(high(key), byte), y = b.next(low(key), byte);
            return x < 0 || y < 0 ? kDeadKey : pair_key(x, y);
        },
        [&](uint64_t key) { return a.accept[static_cast<size_t>(high(key))] && b.accept[static_cast<size_t>(low(key))]; },
        what);
}

Dfa dfa_of_texts(const std::vector<std::string> &texts, const std::string &what) {
    Nfa nfa;
    const uint32_t start = nfa.state(), end = nfa.state();
    size_t bytes = 0;
    for (const std::string &text : texts) {
        bytes += text.size() + 1;
        if (bytes > (1u << 18)) throw Error(DSV4_E_UNSUPPORTED, what + ": more than 256 KiB of fixed texts");
        nfa.text(start, text, end);
    }
    return nfa.determinize(start, end, what);
}

Dfa dfa_avoiding(const std::vector<std::string> &patterns) {
    // Aho-Corasick: a state is a pattern prefix; prefixes are numbered as they are found.
    std::vector<std::string> prefixes = {""};
    for (const std::string &pattern : patterns)
        for (size_t n = 1; n < pattern.size(); ++n)
            if (std::find(prefixes.begin(), prefixes.end(), pattern.substr(0, n)) == prefixes.end())
                prefixes.push_back(pattern.substr(0, n));
    std::array<bool, 257> cuts{};
    for (const std::string &pattern : patterns)
        for (const char c : pattern) cuts[static_cast<uint8_t>(c)] = cuts[static_cast<uint8_t>(c) + 1u] = true;
    Dfa out;
    set_classes(out, cuts);
    return explore(
        std::move(out), 0,
        [&](uint64_t key, uint8_t byte) -> uint64_t {
            const std::string text = prefixes[key] + static_cast<char>(byte);
            for (const std::string &pattern : patterns)
                if (text.size() >= pattern.size() && text.compare(text.size() - pattern.size(), pattern.size(), pattern) == 0)
                    return kDeadKey;
            uint64_t best = 0;
            for (size_t i = 1; i < prefixes.size(); ++i)
                if (prefixes[i].size() > prefixes[best].size() && text.size() >= prefixes[i].size() &&
                    text.compare(text.size() - prefixes[i].size(), prefixes[i].size(), prefixes[i]) == 0)
                    best = i;
            return best;
        },
        [](uint64_t) { return true; }, "text");
}

Dfa dfa_counted(const Dfa &characters, size_t min, size_t max, const std::string &what) {
    const bool endless = max == SIZE_MAX;
    if ((endless ? min : max) >= kMaxDfaStates) too_large(what);
    return explore(
        empty_like(characters), pair_key(characters.start, 0),
        [&](uint64_t key, uint8_t byte) {
            const int32_t to = characters.next(high(key), byte);
            if (to < 0) return kDeadKey;
            size_t count = static_cast<size_t>(low(key));
            if (characters.accept[static_cast<size_t>(to)]) {
                ++count;
                if (endless) count = std::min(count, min);
                else if (count > max) return kDeadKey;
            } else if (!endless && count == max) {
                return kDeadKey;
            }
            return pair_key(to, static_cast<int64_t>(count));
        },
        [&](uint64_t key) {
            return characters.accept[static_cast<size_t>(high(key))] && static_cast<size_t>(low(key)) >= min;
        },
        what);
}

Dfa dfa_followed_by(const Dfa &a, std::string_view tail, const std::string &what) {
    Nfa nfa;
    for (size_t s = 0; s < a.size(); ++s) nfa.state();
    const uint32_t end = nfa.state();
    for (size_t s = 0; s < a.size(); ++s) {
        for (size_t b = 0, first = 0; b < 256; b = first) {
            const int32_t to = a.next(static_cast<int32_t>(s), static_cast<uint8_t>(b));
            for (first = b + 1; first < 256 && a.next(static_cast<int32_t>(s), static_cast<uint8_t>(first)) == to;) ++first;
            if (to >= 0)
                nfa.edge(static_cast<uint32_t>(s), static_cast<uint8_t>(b), static_cast<uint8_t>(first - 1),
                         static_cast<uint32_t>(to));
        }
        if (a.accept[s]) nfa.text(static_cast<uint32_t>(s), tail, end);
    }
    return nfa.determinize(static_cast<uint32_t>(a.start), end, what);
}

Dfa dfa_without(const Dfa &a, const std::vector<std::string> &texts, const std::string &what) {
    if (texts.empty()) return a;
    const Dfa b = dfa_of_texts(texts, what);
    std::array<bool, 257> cuts = cuts_of(a);
    const std::array<bool, 257> other = cuts_of(b);
    for (size_t i = 0; i < cuts.size(); ++i) cuts[i] = cuts[i] || other[i];
    Dfa out;
    set_classes(out, cuts);
    // b's dead state must stay alive here: number it one past its last.
    const auto gone = static_cast<int32_t>(b.size());
    return explore(
        std::move(out), pair_key(a.start, b.start),
        [&](uint64_t key, uint8_t byte) {
            const int32_t x = a.next(high(key), byte);
            const int32_t y = low(key) == gone ? gone : b.next(low(key), byte);
            return x < 0 ? kDeadKey : pair_key(x, y < 0 ? gone : y);
        },
        [&](uint64_t key) {
            return a.accept[static_cast<size_t>(high(key))] &&
                   (low(key) == gone || !b.accept[static_cast<size_t>(low(key))]);
        },
        what);
}

}  // namespace dsv4
