#include "core/text/constraint_state.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <deque>
#include <unordered_map>

#include "core/error.hpp"
#include "core/text/constraint_cache.hpp"

namespace dsv4 {

using Kind = GrammarNode::Kind;

namespace {
/// Ways to read the text so far that are followed at once. Dropping one only narrows what may come: each can be
/// finished by itself.
constexpr size_t kMaxPlaces = 512;
}  // namespace

// A stack thousands deep must not be freed by recursion.
ConstraintState::Frame::~Frame() {
    std::shared_ptr<const Frame> next = std::move(below);
    while (next && next.use_count() == 1) {
        std::shared_ptr<const Frame> further = std::move(const_cast<Frame &>(*next).below);
        next = std::move(further);
    }
}

bool ConstraintState::same(const Stack &a, const Stack &b) {
    const Frame *x = a.get(), *y = b.get();
    for (; x != y; x = x->below.get(), y = y->below.get())
        if (!x || !y || x->depth != y->depth || x->node != y->node || x->data != y->data) return false;
    return true;
}

/// Follows everything that takes no input, down to places that do.
struct ConstraintState::Expansion {
    const Grammar &grammar;
    Places &out;
    struct Seen {
        uint32_t node;
        uint64_t data;
        const Frame *stack;
    };
    std::vector<Seen> seen;  // within one expansion: cycles of calls that consume nothing

    void add(uint32_t node, int32_t state, const Stack &stack) {
        if (out.size() >= kMaxPlaces) return;
        for (const Place &place : out)
            if (place.node == node && place.state == state && ConstraintState::same(place.stack, stack)) return;
        out.push_back({node, state, stack});
    }

    void enter(uint32_t node, uint64_t data, const Stack &stack) {
        const GrammarNode &n = grammar.nodes[node];
        if (grammar.cost_of(node, data) == kNever) return;
        switch (n.kind) {
        case Kind::leaf: return at_leaf(node, grammar.leaves[n.index]->start(), stack);
        case Kind::symbol: return add(node, 0, stack);
        case Kind::end:
            if (!stack) return add(kNoNode, 0, stack);
            return enter(stack->node, stack->data, stack->below);
        default: break;
        }
        for (const Seen &s : seen)
            if (s.node == node && s.data == data && s.stack == stack.get()) return;
        seen.push_back({node, data, stack.get()});
        switch (n.kind) {
        case Kind::call:
            // A call in the last place needs no frame, so recursion to the right does not grow the stack.
            if (grammar.nodes[n.next].kind == Kind::end) return enter(n.index, 0, stack);
            return push(n.index, n.next, 0, stack);
        case Kind::choice:
            for (const uint32_t c : n.choices) enter(c, 0, stack);
            return;
        case Kind::list: {
            const GrammarList &list = grammar.lists[n.index];
            if (grammar.may_close(node, data)) enter(list.close, 0, stack);
            if (grammar.may_add(node, data, 0))
                push(data == 0 ? list.first : list.again, node, grammar.after(node, data, 0), stack);
            return;
        }
        case Kind::object: {
            const GrammarObject &object = grammar.objects[n.index];
            if (grammar.may_close(node, data)) enter(data == 0 ? object.close_empty : object.close, 0, stack);
            for (size_t i = 0; i < object.members.size(); ++i)
                if (grammar.may_add(node, data, i))
                    push(data == 0 ? object.members[i].first : object.members[i].again, node,
                         grammar.after(node, data, i), stack);
            return;
        }
        default: return;
        }
    }

    void push(uint32_t rule, uint32_t node, uint64_t data, const Stack &stack) {
        if (grammar.cost[rule] == kNever || grammar.cost_of(node, data) == kNever) return;
        enter(rule, 0, std::make_shared<const Frame>(node, data, stack));
    }

    void at_leaf(uint32_t node, int32_t state, const Stack &stack) {
        const GrammarNode &n = grammar.nodes[node];
        add(node, state, stack);
        if (grammar.leaves[n.index]->accepts(state)) enter(n.next, 0, stack);
    }
};

void ConstraintState::settle(const Places &places) { places_ = places; }

bool ConstraintState::step(uint8_t byte) {
    const Grammar &grammar = constraint_->grammar_;
    Places next;
    Expansion expansion{grammar, next, {}};
    for (const Place &place : places_) {
        if (place.node == kNoNode || grammar.nodes[place.node].kind != Kind::leaf) continue;
        const int32_t to = grammar.leaves[grammar.nodes[place.node].index]->next(place.state, byte);
        if (to < 0) continue;
        expansion.seen.clear();
        expansion.at_leaf(place.node, to, place.stack);
    }
    places_ = std::move(next);
    return !places_.empty();
}

bool ConstraintState::take(uint32_t token) {
    const Vocabulary &vocabulary = constraint_->vocabulary();
    if (token >= vocabulary.size()) return false;
    for (size_t s = 0; s < kSymbols; ++s) {
        if (vocabulary.symbol(static_cast<Symbol>(s)) != static_cast<int32_t>(token)) continue;
        const Grammar &grammar = constraint_->grammar_;
        Places next;
        Expansion expansion{grammar, next, {}};
        for (const Place &place : places_) {
            if (place.node == kNoNode) continue;
            const GrammarNode &n = grammar.nodes[place.node];
            if (n.kind != Kind::symbol || n.index != s) continue;
            expansion.seen.clear();
            expansion.enter(n.next, 0, place.stack);
        }
        places_ = std::move(next);
        return !places_.empty();
    }
    const std::string &bytes = vocabulary.bytes(token);
    if (vocabulary.added(token) || bytes.empty() || bytes.size() >= 255) return false;
    for (const char c : bytes)
        if (!step(static_cast<uint8_t>(c))) return false;
    return true;
}

bool ConstraintState::accepts(uint32_t token) const { return ConstraintState(*this).take(token); }

void ConstraintState::advance(uint32_t token) {
    ConstraintState next(*this);
    if (!next.take(token))
        throw Error(DSV4_E_INVALID, "constraint: token " + std::to_string(token) + " is not allowed here");
    places_ = std::move(next.places_);
}

bool ConstraintState::is_terminal() const {
    return std::all_of(places_.begin(), places_.end(), [](const Place &p) { return p.node == kNoNode; });
}

bool ConstraintState::may_stop() const {
    const Grammar &grammar = constraint_->grammar_;
    return std::any_of(places_.begin(), places_.end(), [&](const Place &p) {
        return p.node != kNoNode && grammar.nodes[p.node].kind == Kind::symbol &&
               grammar.nodes[p.node].index == static_cast<uint32_t>(Symbol::eos);
    });
}

uint32_t ConstraintState::least_remaining() const {
    const Grammar &grammar = constraint_->grammar_;
    uint32_t best = kNever;
    for (const Place &place : places_) {
        if (place.node == kNoNode) return 0;
        const GrammarNode &n = grammar.nodes[place.node];
        uint32_t total = 1;
        if (n.kind == Kind::leaf) total = grammar.leaves[n.index]->distance(place.state);
        total = cost_sum(total, grammar.cost[n.next]);
        for (const Frame *f = place.stack.get(); f && total < best; f = f->below.get())
            total = cost_sum(total, grammar.cost_of(f->node, f->data));
        best = std::min(best, total);
    }
    return best;
}

/// Places and their stacks, written out: equal keys mean equal masks.
std::string ConstraintState::key() const {
    std::string out;
    const auto put = [&](uint64_t value) { out.append(reinterpret_cast<const char *>(&value), sizeof value); };
    for (const Place &place : places_) {
        const bool leaf = place.node != kNoNode && constraint_->grammar_.nodes[place.node].kind == Kind::leaf;
        const int32_t state =
            leaf ? constraint_->grammar_.leaves[constraint_->grammar_.nodes[place.node].index]->alike(place.state)
                 : place.state;
        put(uint64_t{place.node} << 32 | static_cast<uint32_t>(state));
        for (const Frame *f = place.stack.get(); f; f = f->below.get()) {
            put(f->node);
            put(f->data);
        }
        put(UINT64_MAX);
    }
    return out;
}

/// Walks the trie for every place by itself and joins the bits: what one reading allows is allowed. Alternatives that go
/// on alike are walked together from where they end.
struct ConstraintState::MaskMaker {
    const Constraint &constraint;
    TokenMask &mask;
    const Grammar &grammar = constraint.grammar_;
    const Vocabulary &vocabulary = constraint.vocabulary();
    struct Beyond {
        uint32_t node;  // after a leaf
        Stack stack;
        Places places;
        std::array<bool, 256> first;
        bool any;       // some byte may follow
    };
    std::deque<Beyond> known{};  // each is asked for from many nodes of the trie
    struct Ending {
        const Beyond *beyond;
        std::vector<uint32_t> exits;  // the trie's nodes
        TokenMask seen{};             // the same as bits, where more than one leaf ends so
    };
    std::vector<Ending> endings{};

    void root(const Place &place) {
        if (place.node == kNoNode) return;
        const GrammarNode &n = grammar.nodes[place.node];
        if (n.kind == Kind::symbol) {
            const int32_t id = vocabulary.symbol(static_cast<Symbol>(n.index));
            if (id >= 0) mask_set(mask, static_cast<uint32_t>(id));
            return;
        }
        const std::shared_ptr<const LeafMask> leaf = grammar.leaves[n.index]->mask(vocabulary, place.state);
        for (size_t w = 0; w < mask.size(); ++w) mask[w] |= leaf->inside[w];
        if (leaf->exits.empty()) return;
        const Beyond &next = beyond(place);
        if (!next.any) return;
        const auto same = std::find_if(endings.begin(), endings.end(), [&](const Ending &e) {
            return std::equal(e.beyond->places.begin(), e.beyond->places.end(), next.places.begin(), next.places.end(),
                              [](const Place &a, const Place &b) {
                                  return a.node == b.node && a.state == b.state && ConstraintState::same(a.stack, b.stack);
                              });
        });
        if (same == endings.end()) {
            endings.push_back({&next, leaf->exits});
            return;
        }
        if (same->seen.empty()) {
            same->seen.assign(vocabulary.trie().size() / 64 + 1, 0);
            for (const uint32_t exit : same->exits) mask_set(same->seen, exit);
        }
        for (const uint32_t exit : leaf->exits) {
            if (mask_has(same->seen, exit)) continue;
            mask_set(same->seen, exit);
            same->exits.push_back(exit);
        }
    }

    /// After every root: tokens that leave a leaf and go on.
    void finish() {
        for (const Ending &e : endings)
            for (const uint32_t exit : e.exits) below(*e.beyond, exit);
    }

    /// What follows a leaf is the same wherever it is left.
    const Beyond &beyond(const Place &place) {
        const uint32_t node = grammar.nodes[place.node].next;
        for (const Beyond &b : known)
            if (b.node == node && b.stack == place.stack) return b;
        Beyond &made = known.emplace_back(Beyond{node, place.stack, {}, {}, false});
        Expansion expansion{grammar, made.places, {}};
        expansion.enter(node, 0, place.stack);
        for (const Place &next : made.places) {
            if (next.node == kNoNode || grammar.nodes[next.node].kind != Kind::leaf) continue;
            grammar.leaves[grammar.nodes[next.node].index]->add_first(next.state, made.first);
        }
        made.any = std::find(made.first.begin(), made.first.end(), true) != made.first.end();
        return made;
    }

    /// The children of a trie node.
    void below(const Beyond &next, uint32_t at) {
        const auto &trie = vocabulary.trie();
        bool any = false;
        for (uint32_t child = at + 1; !any && child < trie[at].end; child = trie[child].end)
            any = next.first[trie[child].byte];
        if (!any) return;
        for (const Place &place : next.places) walk(place, at);
    }

    void walk(const Place &place, uint32_t at) {
        if (place.node == kNoNode) return;
        const GrammarNode &n = grammar.nodes[place.node];
        if (n.kind != Kind::leaf) return;
        const auto &trie = vocabulary.trie();
        const Leaf &leaf = *grammar.leaves[n.index];
        std::array<int32_t, 256> states;
        states[trie[at].depth] = place.state;
        const Beyond *next = nullptr;
        for (uint32_t i = at + 1; i < trie[at].end;) {
            const Vocabulary::Node &node = trie[i];
            const int32_t to = leaf.next(states[node.depth - 1u], node.byte);
            if (to < 0) {
                i = node.end;
                continue;
            }
            states[node.depth] = to;
            vocabulary.allow(mask, node);
            if (leaf.accepts(to) && node.end > i + 1) {
                if (!next) next = &beyond(place);
                below(*next, i);
            }
            ++i;
        }
    }
};

std::shared_ptr<const TokenMask> ConstraintState::allowed() const {
    const std::string key = this->key();
    if (auto known = constraint_->cache_->find(key)) return known;
    auto mask = std::make_shared<TokenMask>(constraint_->vocabulary().words(), 0);
    MaskMaker maker{*constraint_, *mask};
    for (const Place &place : places_) maker.root(place);
    maker.finish();
    constraint_->cache_->put(key, mask);
    return mask;
}

int32_t ConstraintState::forced() const {
    const std::shared_ptr<const TokenMask> mask = allowed();
    int32_t token = -1;
    for (size_t w = 0; w < mask->size(); ++w) {
        const uint64_t word = (*mask)[w];
        if (!word) continue;
        if (token >= 0 || (word & (word - 1))) return -1;
        token = static_cast<int32_t>(w * 64 + static_cast<size_t>(std::countr_zero(word)));
    }
    return token;
}

ConstraintState Constraint::start() const {
    ConstraintState state(shared_from_this());
    ConstraintState::Places places;
    ConstraintState::Expansion expansion{grammar_, places, {}};
    expansion.enter(grammar_.root, 0, nullptr);
    state.settle(places);
    return state;
}

}  // namespace dsv4
