// The threads of one device. A job is one function run once for every part; part i is thread i's, so that what a thread
// read last time is near it the next time, and part 0 the caller's. Nobody waits for a thread that is not there: parts
// whose threads have not begun when the caller is through with its own are the caller's too. A thread that waits spins
// for some microseconds, because the next job usually comes at once, and then sleeps in the kernel, because programs
// that spin on the same processors ruin each other.
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
    /// threads >= 1; processors: where they stay, thread i on number i, round and round; empty: wherever they like.
    Pool(int threads, std::vector<int> processors, size_t scratch_bytes);
    ~Pool();
    Pool(const Pool &) = delete;
    Pool &operator=(const Pool &) = delete;

    int threads() const { return threads_; }
    /// Puts the calling thread where thread 0 is to stay, if it is to; the same thread again costs nothing.
    void keep_caller();
    void *scratch(int thread) const { return scratch_[size_t(thread)]; }

    /// body(part) for every part, threads() of them, then returns; the first exception of any is thrown here. Two parts
    /// may run one after the other on the same thread: they must not wait for each other.
    template <class Body> void run(Body &&body) {
        using Plain = std::remove_reference_t<Body>;
        run_erased([](void *context, int thread) { (*static_cast<Plain *>(context))(thread); },
                   const_cast<void *>(static_cast<const void *>(&body)));
    }
    /// body(item, part) for every item, whichever thread is free.
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
    using Job = void (*)(void *context, int part);
    struct alignas(64) Claim {
        std::atomic<uint32_t> round{0}; // the last one in which somebody took this part
    };
    void run_erased(Job job, void *context);
    void work(int part);
    bool claim(int part, uint32_t round);
    void execute(int part) noexcept;
    void stop() noexcept;

    int threads_;
    std::vector<int> processors_;
    std::thread::id kept_;
    std::vector<void *> scratch_;
    std::vector<std::thread> workers_;
    std::vector<Claim> claims_;
    Job job_ = nullptr;
    void *context_ = nullptr;
    std::atomic<bool> stop_{false};
    alignas(64) std::atomic<uint32_t> round_{0};    // raised to start a job
    alignas(64) std::atomic<uint32_t> finished_{0}; // parts of this round that workers have finished
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
