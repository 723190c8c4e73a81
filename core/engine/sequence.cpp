#include "core/engine/sequence.hpp"

namespace dsv4 {

CachePool::CachePool(const Capacity &capacity) {
    for (int32_t i = capacity.cache.slots; i-- > 0;) slots_.push_back(i);
    for (int32_t i = capacity.cache.blocks; i-- > 0;) blocks_.push_back(i);
}

int32_t CachePool::take_slot() {
    const std::lock_guard lock(mutex_);
    if (slots_.empty()) return -1;
    const int32_t slot = slots_.back();
    slots_.pop_back();
    return slot;
}

void CachePool::give_slot(int32_t slot) {
    const std::lock_guard lock(mutex_);
    slots_.push_back(slot);
}

bool CachePool::grow(std::vector<int32_t> &blocks, size_t count) {
    const std::lock_guard lock(mutex_);
    if (count <= blocks.size()) return true;
    if (count - blocks.size() > blocks_.size()) return false;
    blocks.reserve(count);
    while (blocks.size() < count) {
        blocks.push_back(blocks_.back());
        blocks_.pop_back();
    }
    return true;
}

void CachePool::shrink(std::vector<int32_t> &blocks, size_t count) noexcept {
    const std::lock_guard lock(mutex_);
    for (; blocks.size() > count; blocks.pop_back()) blocks_.push_back(blocks.back());  // it held them all once
}

size_t CachePool::blocks_left() const {
    const std::lock_guard lock(mutex_);
    return blocks_.size();
}

}  // namespace dsv4
