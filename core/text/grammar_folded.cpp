#include "core/text/grammar_folded.hpp"

#include <algorithm>
#include <array>
#include <map>
#include <string>
#include <unordered_map>

namespace dsv4 {
namespace {

constexpr size_t kWorthwhile = 8;  // a folded node costs as much as some of a sweep's
constexpr uint32_t kDead = 0, kRoot = 1, kUnknown = UINT32_MAX, kTooMany = UINT32_MAX - 1;

uint64_t mix(uint64_t hash, uint64_t value) {
    hash = (hash ^ value) * 0x9E3779B97F4A7C15u;
    return hash ^ hash >> 29;
}

/// The automaton's classes, those that no state tells apart joined. Column 0 is of those that every state dies of.
struct Columns {
    std::array<uint16_t, 256> of_byte;
    std::vector<uint8_t> representative;  // [columns] a class; meaningless for column 0
    std::vector<bool> accepting;          // [columns] leads to an accepting state from somewhere
    size_t size() const { return representative.size(); }
};

Columns columns_of(const Dfa &dfa) {
    const size_t n = dfa.size();
    const auto at = [&](size_t state, size_t c) { return dfa.row(static_cast<int32_t>(state))[c]; };
    std::vector<uint64_t> hash(dfa.classes, 0);
    std::vector<uint8_t> alive(dfa.classes, 0), accepting(dfa.classes, 0);
    for (size_t s = 0; s < n; ++s)
        for (size_t c = 0; c < dfa.classes; ++c) {
            const int32_t to = at(s, c);
            hash[c] = mix(hash[c], static_cast<uint32_t>(to));
            alive[c] |= to >= 0;
            accepting[c] |= to >= dfa.first_accepting;
        }
    const auto equal = [&](size_t a, size_t b) {
        if (hash[a] != hash[b]) return false;
        for (size_t s = 0; s < n; ++s)
            if (at(s, a) != at(s, b)) return false;
        return true;
    };
    Columns out{{}, {0}, {false}};
    std::vector<uint16_t> of_class(dfa.classes, 0);
    for (size_t c = 0; c < dfa.classes; ++c) {
        if (!alive[c]) continue;
        size_t k = 1;
        while (k < out.size() && !equal(c, out.representative[k])) ++k;
        if (k == out.size()) {
            out.representative.push_back(static_cast<uint8_t>(c));
            out.accepting.push_back(accepting[c] != 0);
        }
        of_class[c] = static_cast<uint16_t>(k);
    }
    for (size_t b = 0; b < 256; ++b) out.of_byte[b] = of_class[dfa.class_of[b]];
    return out;
}

/// What both ways of folding build.
struct Folding {
    explicit Folding(const Columns &c) : columns(c), child(2 * c.size(), kUnknown) {
        std::fill_n(child.begin(), c.size(), kDead);
    }
    uint32_t add(uint32_t from, size_t column) {
        parent.push_back(from);
        class_of.push_back(columns.representative[column]);
        child.resize(child.size() + columns.size(), kUnknown);
        return static_cast<uint32_t>(parent.size() - 1);
    }
    uint32_t &child_of(uint32_t node, size_t column) { return child[node * columns.size() + column]; }

    const Columns &columns;
    std::vector<uint32_t> parent = {kDead, kDead};
    std::vector<uint8_t> class_of = {0, 0};
    std::vector<uint32_t> child;  // [nodes, columns]
};

/// Words are one when they lead every state to the same one. For automata of few states and short memory.
struct ByEffect : Folding {
    static constexpr size_t kMostStates = 1024, kMostWork = 1u << 23;

    ByEffect(const Dfa &dfa, const Columns &c) : Folding(c), states(dfa.size()), effects(2 * states, -1) {
        for (size_t s = 0; s < states; ++s) effects[states + s] = static_cast<int16_t>(s);
        steps.assign(columns.size() * (states + 1), -1);
        for (size_t k = 1; k < columns.size(); ++k)
            for (size_t s = 0; s < states; ++s)
                steps[k * (states + 1) + s + 1] =
                    static_cast<int16_t>(dfa.row(static_cast<int32_t>(s))[columns.representative[k]]);
        known.emplace(hash_of(kDead), kDead);
        known.emplace(hash_of(kRoot), kRoot);
    }

    uint32_t step(uint32_t node, size_t column) {
        if (const uint32_t to = child_of(node, column); to != kUnknown) return to;
        work += states;
        if (work > kMostWork) return kTooMany;
        const auto last = static_cast<uint32_t>(effects.size() / states);
        effects.resize(effects.size() + states);
        const int16_t *const from = &effects[node * states], *const by = &steps[column * (states + 1)];
        int16_t *const made = &effects[last * states];
        for (size_t s = 0; s < states; ++s) made[s] = by[from[s] + 1];
        const uint64_t hash = hash_of(last);
        const auto [begin, end] = known.equal_range(hash);
        const auto same = std::find_if(begin, end, [&](const auto &k) {
            return std::equal(made, made + states, &effects[k.second * states]);
        });
        if (same != end) {
            effects.resize(last * states);
            return child_of(node, column) = same->second;
        }
        known.emplace(hash, last);
        add(node, column);
        return child_of(node, column) = last;
    }

private:
    uint64_t hash_of(size_t node) const {
        uint64_t hash = 0;
        for (size_t s = 0; s < states; ++s) hash = mix(hash, static_cast<uint16_t>(effects[node * states + s]));
        return hash;
    }

    const size_t states;
    size_t work = 0;
    std::vector<int16_t> effects;  // [nodes, states]
    std::vector<int16_t> steps;    // [columns, 1 + states], first where the dead state goes
    std::unordered_multimap<uint64_t, uint32_t> known;
};

/// Words are one when, byte for byte, no state in which the automaton may then be tells them apart. States are of one
/// type that tell the same columns apart; a node knows the types there may be.
struct ByContext : Folding {
    static constexpr size_t kMostTypes = 64;

    ByContext(const Dfa &dfa, const Columns &c, size_t most) : Folding(c), most_nodes(most) {
        const size_t n = dfa.size(), width = columns.size();
        std::vector<uint8_t> type(n);
        std::unordered_map<std::string, uint8_t> types;
        std::string labels(width, '\0'), own(width, '\0');
        for (size_t k = 0; k < width; ++k) own[k] = static_cast<char>(k);
        std::vector<uint32_t> seen(n + 1, 0), first(n + 1, 0);  // by target: in which row last seen, at which column
        for (size_t s = 0; s < n; ++s) {
            for (size_t k = 1; k < width; ++k) {
                const auto to = static_cast<size_t>(dfa.row(static_cast<int32_t>(s))[columns.representative[k]] + 1);
                if (seen[to] != s + 1) seen[to] = static_cast<uint32_t>(s + 1), first[to] = static_cast<uint32_t>(k);
                labels[k] = to == 0 ? '\0' : static_cast<char>(first[to]);
            }
            const bool full = tells.size() + 1 >= kMostTypes;  // the last type tells all apart
            const auto found = types.find(labels);
            if (found != types.end()) {
                type[s] = found->second;
                continue;
            }
            type[s] = static_cast<uint8_t>(full ? kMostTypes - 1 : tells.size());
            if (full) labels = own;
            if (!types.emplace(labels, type[s]).second) continue;
            tells.push_back(labels);
        }
        leads.assign(kMostTypes * width, 0);
        for (size_t s = 0; s < n; ++s)
            for (size_t k = 1; k < width; ++k) {
                const int32_t to = dfa.row(static_cast<int32_t>(s))[columns.representative[k]];
                if (to >= 0) leads[type[s] * width + k] |= uint64_t{1} << type[static_cast<size_t>(to)];
            }
        context = {0, context_of(tells.size() == kMostTypes ? UINT64_MAX : (uint64_t{1} << tells.size()) - 1)};
    }

    uint32_t step(uint32_t node, size_t column) {
        const size_t width = columns.size();
        column = joined[context[node] * width + column];
        if (const uint32_t to = child_of(node, column); to != kUnknown) return to;
        uint64_t set = 0;
        for (size_t t = 0; t < tells.size(); ++t)
            if (sets[context[node]] >> t & 1) set |= leads[t * width + column];
        if (parent.size() >= most_nodes) return kTooMany;
        const uint32_t to = set ? add(node, column) : kDead;
        if (set) context.push_back(context_of(set));
        return child_of(node, column) = to;
    }

private:
    /// The number of a set of types.
    uint32_t context_of(uint64_t set) {
        const auto [it, fresh] = numbers.emplace(set, static_cast<uint32_t>(sets.size()));
        if (!fresh) return it->second;
        sets.push_back(set);
        std::map<std::string, uint8_t> same;
        for (size_t k = 0; k < columns.size(); ++k) {
            std::string told;
            for (size_t t = 0; t < tells.size(); ++t)
                if (set >> t & 1) told += tells[t][k];
            joined.push_back(same.emplace(told, static_cast<uint8_t>(k)).first->second);
        }
        return it->second;
    }

    const size_t most_nodes;
    std::vector<std::string> tells;  // [types, columns] equal where the type's states go to the same one
    std::vector<uint64_t> leads;     // [types, columns] set of types
    std::vector<uint64_t> sets;
    std::vector<uint8_t> joined;     // [sets, columns] the first column that is the same to all types
    std::unordered_map<uint64_t, uint32_t> numbers;
    std::vector<uint32_t> context;   // [nodes]
};

/// For each of the sweep's nodes the folded one; empty when there are too many.
template <class How>
std::vector<uint32_t> fold(const Sweep &sweep, How &how) {
    std::vector<uint32_t> out(sweep.nodes(), kRoot);
    for (size_t k = 1; k < out.size(); ++k) {
        const size_t column = how.columns.of_byte[sweep.byte(k)];
        const uint32_t from = out[sweep.parent(k)];
        out[k] = column == 0 || from == kDead ? kDead : how.step(from, column);
        if (out[k] == kTooMany) return {};
    }
    return out;
}

}  // namespace

std::unique_ptr<const FoldedTrie> FoldedTrie::make(const Sweep &sweep, const Dfa &dfa, bool exits) {
    const Columns columns = columns_of(dfa);
    if (columns.size() > 256) return nullptr;  // every byte by itself
    std::unique_ptr<FoldedTrie> out(new FoldedTrie());
    std::vector<uint32_t> folded;
    const auto attempt = [&](auto &&how) {
        folded = fold(sweep, how);
        out->parent_ = std::move(how.parent);
        out->class_ = std::move(how.class_of);
    };
    if (dfa.size() <= ByEffect::kMostStates) attempt(ByEffect(dfa, columns));
    if (folded.empty()) attempt(ByContext(dfa, columns, sweep.nodes() / kWorthwhile));
    if (folded.empty()) return nullptr;
    for (size_t k = 1; exits && k < sweep.nodes(); ++k)
        if (folded[k] != kDead && sweep.inner(k) && columns.accepting[columns.of_byte[sweep.byte(k)]])
            out->exits_.push_back({folded[k], sweep.full(k)});
    std::vector<uint32_t> nodes_of_tokens = sweep.nodes_of_tokens();
    for (uint32_t &node : nodes_of_tokens) node = node ? folded[node] : kDead;
    out->keep(nodes_of_tokens);
    return out;
}

void FoldedTrie::keep(const std::vector<uint32_t> &nodes_of_tokens) {
    const size_t tokens = nodes_of_tokens.size(), crowd = tokens / 32 + 1;
    std::vector<uint32_t> count(nodes(), 0);
    for (const uint32_t node : nodes_of_tokens) ++count[node];
    count[kDead] = 0;
    std::vector<size_t> crowd_of(nodes(), SIZE_MAX);
    begin_.assign(nodes() + 1, 0);
    for (uint32_t k = 0; k < nodes(); ++k) {
        begin_[k + 1] = begin_[k] + (count[k] < crowd ? count[k] : 0);
        if (count[k] < crowd) continue;
        crowd_of[k] = crowds_.size();
        crowds_.push_back({k, TokenMask(tokens / 64, 0)});
    }
    all_.assign(tokens / 64, 0);
    listed_ = all_;
    tokens_.resize(begin_.back());
    std::vector<uint32_t> next = begin_;
    for (uint32_t t = 0; t < tokens; ++t) {
        const uint32_t node = nodes_of_tokens[t];
        if (node == kDead) continue;
        mask_set(all_, t);
        if (crowd_of[node] != SIZE_MAX) {
            mask_set(crowds_[crowd_of[node]].tokens, t);
        } else {
            mask_set(listed_, t);
            tokens_[next[node]++] = t;
        }
    }
}

/// [nodes] where the automaton is after each.
std::unique_ptr<int32_t[]> FoldedTrie::run(const Dfa &dfa, int32_t state) const {
    const size_t n = nodes();
    std::unique_ptr<int32_t[]> at(new int32_t[n]);
    const int32_t *const rows = dfa.row(0);
    const auto classes = static_cast<ptrdiff_t>(dfa.classes);
    at[kDead] = Dfa::kDead;
    at[kRoot] = state;
    for (size_t k = kRoot + 1; k < n; ++k) at[k] = rows[at[parent_[k]] * classes + class_[k]];
    return at;
}

/// The tokens of the nodes that are in, which the dead one never is.
template <class In>
TokenMask FoldedTrie::gather(const In &in) const {
    // From all to these or from nothing, whichever takes less writing; crowds and listed tokens each by themselves.
    const size_t n = nodes();
    size_t some = 0, crowds = 0;
    for (size_t k = kRoot; k < n; ++k) some += in(k) ? begin_[k + 1] - begin_[k] : 0;
    for (const Crowd &crowd : crowds_) crowds += in(crowd.node);
    const bool most = some * 2 > tokens_.size(), most_crowds = crowds * 2 > crowds_.size();
    TokenMask out = most_crowds ? all_ : most ? listed_ : TokenMask(listed_.size(), 0);
    if (most_crowds && !most)
        for (size_t w = 0; w < out.size(); ++w) out[w] ^= listed_[w];
    for (size_t k = kRoot; k < n; ++k)
        if (in(k) != most)
            for (uint32_t i = begin_[k]; i < begin_[k + 1]; ++i) out[tokens_[i] >> 6] ^= uint64_t{1} << (tokens_[i] & 63);
    for (const Crowd &crowd : crowds_)
        if (in(crowd.node) != most_crowds)
            for (size_t w = 0; w < out.size(); ++w) out[w] ^= crowd.tokens[w];
    return out;
}

TokenMask FoldedTrie::tokens(const Dfa &dfa, int32_t state, std::vector<uint32_t> *exits) const {
    const std::unique_ptr<int32_t[]> at = run(dfa, state);
    if (exits)
        for (const Exit &exit : exits_)
            if (at[exit.node] >= dfa.first_accepting) exits->push_back(exit.full);
    return gather([&](size_t k) { return at[k] >= 0; });
}

std::vector<TokenMask> FoldedTrie::tokens_by_level(const Dfa &dfa, int32_t state, const std::vector<uint8_t> &codes,
                                                   size_t levels) const {
    const std::unique_ptr<int32_t[]> at = run(dfa, state);
    const std::unique_ptr<uint8_t[]> code(new uint8_t[nodes()]);
    uint64_t some = 0;
    for (size_t k = 0; k < nodes(); ++k) {
        code[k] = codes[static_cast<size_t>(at[k] + 1)];
        some |= uint64_t{1} << code[k];
    }
    std::vector<TokenMask> out(levels);
    for (size_t level = 0; level < levels; ++level)
        if (some >> (level + 1) & 1) out[level] = gather([&](size_t k) { return code[k] == level + 1; });
    return out;
}

}  // namespace dsv4
