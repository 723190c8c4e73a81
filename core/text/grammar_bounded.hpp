// A map of so many entries at most. When it is full the oldest goes: all at once would make one user wait for it.
#pragma once
#include <cstddef>
#include <deque>
#include <unordered_map>
#include <utility>

namespace dsv4 {

template <class Key, class Value>
class BoundedMap {
public:
    explicit BoundedMap(size_t most) : most_(most) {}
    /// NULL when it is absent.
    const Value *find(const Key &key) const {
        const auto found = entries_.find(key);
        return found == entries_.end() ? nullptr : &found->second;
    }
    /// The entry of that key, which may have been there before.
    const Value &put(const Key &key, Value value) {
        const auto [entry, fresh] = entries_.emplace(key, std::move(value));
        if (!fresh) return entry->second;
        order_.push_back(&entry->first);
        if (entries_.size() > most_ && order_.size() > 1) {
            entries_.erase(entries_.find(*order_.front()));
            order_.pop_front();
        }
        return entry->second;
    }

private:
    const size_t most_;
    std::unordered_map<Key, Value> entries_;
    std::deque<const Key *> order_;  // the oldest first
};

}  // namespace dsv4
