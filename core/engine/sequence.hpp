// What a session holds: its tokens, how many of them the caches hold too, and where.
#pragma once
#include <cstdint>
#include <mutex>
#include <vector>
#include "core/model/forward.hpp"

namespace dsv4 {

/// Slots and blocks of the model's caches, handed out one by one. [any thread]
class CachePool {
  public:
    explicit CachePool(const Capacity &capacity);
    /// -1: none left.
    int32_t take_slot();
    void give_slot(int32_t slot);
    /// Grows `blocks` to `count`; false, and nothing changed, when that many are not left.
    bool grow(std::vector<int32_t> &blocks, size_t count);
    /// Takes back all but the first `count` blocks.
    void shrink(std::vector<int32_t> &blocks, size_t count) noexcept;
    size_t blocks_left() const;

  private:
    mutable std::mutex mutex_;
    std::vector<int32_t> slots_, blocks_;
};

/// Guarded by the engine's mutex while a request on it is running; by its session's owner otherwise.
struct Sequence {
    std::vector<int32_t> tokens;   // the conversation
    int32_t computed = 0;          // leading tokens whose rows are in the caches
    int32_t written = 0;           // one past the highest position written since the rows before `computed` were whole
    int32_t slot = -1;
    std::vector<int32_t> blocks;
    int32_t context = 0;           // most tokens it may hold
    int32_t chunk = 0;             // most tokens of one step

    /// Forgets all but the first n tokens. Rings hold the last rows only: cutting back further than they reach means
    /// computing the beginning again, which is noted here and done by the next step.
    void truncate(int32_t n, int32_t reach) {
        tokens.resize(size_t(n));
        if (computed > n) computed = n;
        if (written - computed > reach) computed = written = 0;
    }
};

}  // namespace dsv4
