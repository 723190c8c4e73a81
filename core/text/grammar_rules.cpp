#include "core/text/grammar_rules.hpp"

#include <algorithm>
#include <bit>

#include "core/error.hpp"

namespace dsv4 {

using Kind = GrammarNode::Kind;
namespace {
constexpr uint64_t kWritten = uint64_t{1} << 63;
constexpr size_t kMaxNodes = 1u << 20;
}  // namespace

uint32_t Grammar::add(Kind kind, uint32_t index, uint32_t next) {
    if (nodes.size() >= kMaxNodes)
        throw Error(DSV4_E_UNSUPPORTED, "schema: needs a grammar of more than " + std::to_string(kMaxNodes) + " nodes");
    nodes.push_back({kind, index, next, {}});
    return static_cast<uint32_t>(nodes.size() - 1);
}

uint32_t Grammar::leaf(const Leaf &leaf, uint32_t next) {
    leaves.push_back(&leaf);
    return add(Kind::leaf, static_cast<uint32_t>(leaves.size() - 1), next);
}

uint32_t Grammar::leaf(Dfa dfa, uint32_t next) {
    owned.push_back(std::make_unique<Leaf>(std::move(dfa)));
    return leaf(*owned.back(), next);
}

uint32_t Grammar::leaf(std::unique_ptr<const CountedText> text, uint32_t next) {
    owned.push_back(std::make_unique<Leaf>(std::move(text)));
    return leaf(*owned.back(), next);
}

uint32_t Grammar::text(std::string_view text, uint32_t next, const std::string &what) {
    return leaf(dfa_of_texts({std::string(text)}, what), next);
}

uint32_t Grammar::choice(std::vector<uint32_t> choices) {
    const uint32_t node = add(Kind::choice, 0, kNoNode);
    nodes[node].choices = std::move(choices);
    return node;
}

uint32_t Grammar::list(GrammarList list) {
    lists.push_back(list);
    return add(Kind::list, static_cast<uint32_t>(lists.size() - 1), kNoNode);
}

uint32_t Grammar::object(GrammarObject object) {
    object.ordered = object.members.size() > 63;
    objects.push_back(std::move(object));
    return add(Kind::object, static_cast<uint32_t>(objects.size() - 1), kNoNode);
}

bool Grammar::may_close(uint32_t node, uint64_t data) const {
    if (nodes[node].kind == Kind::list) return data >= lists[nodes[node].index].min;
    const GrammarObject &object = objects[nodes[node].index];
    if (object.ordered) {
        for (size_t i = data & ~kWritten; i < object.members.size(); ++i)
            if (object.members[i].required) return false;
        return true;
    }
    for (size_t i = 0; i < object.members.size(); ++i)
        if (object.members[i].required && !(data >> i & 1)) return false;
    return static_cast<uint32_t>(std::popcount(data & ~kWritten)) >= object.min;
}

bool Grammar::may_add(uint32_t node, uint64_t data, size_t member) const {
    if (nodes[node].kind == Kind::list) return data < lists[nodes[node].index].max;
    const GrammarObject &object = objects[nodes[node].index];
    if (object.ordered) {
        const size_t next = data & ~kWritten;
        if (member < next) return false;
        for (size_t i = next; i < member; ++i)
            if (object.members[i].required) return false;
        return true;
    }
    if ((data >> member & 1) && !object.members[member].repeatable) return false;
    if (object.max == UINT32_MAX) return true;
    // Room for this one and for every required one still missing.
    uint32_t used = static_cast<uint32_t>(std::popcount(data & ~kWritten)) + !(data >> member & 1);
    for (size_t i = 0; i < object.members.size(); ++i)
        if (i != member && object.members[i].required && !(data >> i & 1)) ++used;
    return used <= object.max;
}

uint64_t Grammar::after(uint32_t node, uint64_t data, size_t member) const {
    if (nodes[node].kind == Kind::list) {
        const GrammarList &list = lists[nodes[node].index];
        // Counting on without a limit would make every item a new state.
        const uint64_t most = list.max == UINT32_MAX ? std::max(list.min, 1u) : list.max;
        return std::min<uint64_t>(data + 1, most);
    }
    const GrammarObject &object = objects[nodes[node].index];
    if (object.ordered) return (member + 1) | kWritten;
    return data | uint64_t{1} << member | kWritten;
}

uint32_t Grammar::cost_of_member(const GrammarObject &object, size_t member) const {
    return cost[object.members[member].again];
}

uint32_t Grammar::cost_of(uint32_t node, uint64_t data) const {
    const GrammarNode &n = nodes[node];
    if (n.kind == Kind::list) {
        const GrammarList &list = lists[n.index];
        uint64_t total = cost[list.close];
        if (total == kNever) return kNever;
        if (data < list.min) {
            if (cost[list.first] == kNever || cost[list.again] == kNever) return kNever;
            total += data == 0 ? cost[list.first] : 0;
            total += uint64_t{cost[list.again]} * (list.min - std::max<uint64_t>(data, 1));
        }
        return static_cast<uint32_t>(std::min<uint64_t>(total, kNever - 1));
    }
    if (n.kind == Kind::object) {
        const GrammarObject &object = objects[n.index];
        uint32_t total = cost[object.close];
        if (data == 0 && may_close(node, data)) total = std::min(total, cost[object.close_empty]);
        const size_t next = data & ~kWritten;
        std::vector<uint32_t> spare;
        for (size_t i = 0; i < object.members.size(); ++i) {
            const bool missing = object.ordered ? i >= next : !(data >> i & 1);
            if (!missing) continue;
            if (object.members[i].required) total = cost_sum(total, cost[object.members[i].again]);
            else spare.push_back(cost[object.members[i].again]);
        }
        if (!object.ordered && object.min) {
            size_t have = static_cast<size_t>(std::popcount(data & ~kWritten));
            for (size_t i = 0; i < object.members.size(); ++i) have += object.members[i].required && !(data >> i & 1);
            std::sort(spare.begin(), spare.end());
            for (size_t i = 0; have < object.min; ++have, ++i) total = cost_sum(total, i < spare.size() ? spare[i] : kNever);
        }
        return total;
    }
    return cost[node];
}

bool Grammar::finish() {
    cost.assign(nodes.size(), kNever);
    // Costs only fall, and every pass settles at least one more level of calls.
    for (bool changed = true; changed;) {
        changed = false;
        for (uint32_t i = static_cast<uint32_t>(nodes.size()); i-- > 0;) {
            const GrammarNode &n = nodes[i];
            uint32_t value = kNever;
            switch (n.kind) {
            case Kind::end: value = 0; break;
            case Kind::leaf: {
                const Leaf &leaf = *leaves[n.index];
                value = cost_sum(leaf.distance(leaf.start()), cost[n.next]);
                break;
            }
            case Kind::symbol: value = cost_sum(1, cost[n.next]); break;
            case Kind::call: value = cost_sum(cost[n.index], cost[n.next]); break;
            case Kind::choice:
                for (const uint32_t c : n.choices) value = std::min(value, cost[c]);
                break;
            case Kind::list:
            case Kind::object: value = cost_of(i, 0); break;
            }
            if (value < cost[i]) cost[i] = value, changed = true;
        }
    }
    return cost[root] != kNever;
}

}  // namespace dsv4
