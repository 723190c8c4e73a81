// The cancel token: a flag that is set once, and a count of who holds it.
#pragma once
#include <atomic>
#include <utility>

struct dsv4_cancel {
    std::atomic<int> holders{1};
    std::atomic<bool> set{false};
};
static_assert(std::atomic<bool>::is_always_lock_free, "dsv4_cancel_now is promised to signal handlers");

namespace dsv4 {

inline void release(dsv4_cancel *c) {
    if (c && c->holders.fetch_sub(1, std::memory_order_acq_rel) == 1) delete c;
}

/// Keeps a token alive; empty when the caller gave none.
class CancelRef {
  public:
    CancelRef() = default;
    explicit CancelRef(dsv4_cancel *c) : cancel_(c) {
        if (c) c->holders.fetch_add(1, std::memory_order_relaxed);
    }
    CancelRef(CancelRef &&other) noexcept : cancel_(std::exchange(other.cancel_, nullptr)) {}
    CancelRef &operator=(CancelRef &&other) noexcept {
        std::swap(cancel_, other.cancel_);
        return *this;
    }
    ~CancelRef() { release(cancel_); }
    bool is_set() const { return cancel_ && cancel_->set.load(std::memory_order_acquire); }

  private:
    dsv4_cancel *cancel_ = nullptr;
};

}  // namespace dsv4
