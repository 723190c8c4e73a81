// The threads of one device. Work is handed out as one function run once on every thread; the calling thread is thread
// 0. A thread that waits spins for some microseconds, because the next piece of work usually comes at once, and then
// sleeps in the kernel, because two programs that spin on the same cores ruin each other.
#pragma once
#include <atomic>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

namespace dsv4::cpu {

class Pool {
  public:
    /// threads >= 1; pin: worker i stays on the i-th processor that this process may use (the caller's is its own).
    Pool(int threads, bool pin, size_t scratch_bytes);
    ~Pool();
    Pool(const Pool &) = delete;
    Pool &operator=(const Pool &) = delete;

    int threads() const { return threads_; }
    void *scratch(int thread) const { return scratch_[size_t(thread)]; }

    /// body(thread) on every thread, then returns; the first exception of any thread is thrown here.
    template <class Body> void run(Body &&body) {
        using Plain = std::remove_reference_t<Body>;
        run_erased([](void *context, int thread) { (*static_cast<Plain *>(context))(thread); },
                   const_cast<void *>(static_cast<const void *>(&body)));
    }
    /// body(item, thread) for every item, whichever thread is free.
    template <class Body> void each(int64_t items, Body &&body) {
        if (items <= 1 || threads_ == 1) {
            for (int64_t i = 0; i < items; ++i) body(i, 0);
            return;
        }
        std::atomic<int64_t> next{0};
        run([&](int thread) {
            for (int64_t i = next.fetch_add(1, std::memory_order_relaxed); i < items;
                 i = next.fetch_add(1, std::memory_order_relaxed))
                body(i, thread);
        });
    }

  private:
    using Job = void (*)(void *context, int thread);
    void run_erased(Job job, void *context);
    void work(int thread, bool pin);
    void execute(int thread) noexcept;

    int threads_;
    std::vector<void *> scratch_;
    std::vector<std::thread> workers_;
    Job job_ = nullptr;
    void *context_ = nullptr;
    bool stop_ = false;
    alignas(64) std::atomic<uint32_t> round_{0};   // raised to start a job
    alignas(64) std::atomic<uint32_t> pending_{0}; // workers that have not finished it
    std::mutex failure_lock_;
    std::exception_ptr failure_;
};

/// The processors this process may use.
int usable_processors();

/// Part `index` of `parts` of [0, count), cut at multiples of step.
struct Range {
    int32_t begin, end;
};
inline Range split(int32_t begin, int32_t end, int32_t step, int index, int parts) {
    const int64_t blocks = (int64_t(end) - begin + step - 1) / step;
    const int64_t from = begin + blocks * index / parts * step, to = begin + blocks * (index + 1) / parts * step;
    return {int32_t(from < end ? from : end), int32_t(to < end ? to : end)};
}

} // namespace dsv4::cpu
