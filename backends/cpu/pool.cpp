#include "backends/cpu/pool.hpp"
#include <chrono>
#include <cstdlib>
#include <new>
#if defined(__linux__)
#include <pthread.h>
#include <sched.h>
#endif

namespace dsv4::cpu {

namespace {

// Waking a sleeping thread took 30 to 80 us where it was measured, so whoever sleeps in the middle of a step costs more
// than it saves. A worker waits for the next job: longer than the gaps between operators and than its caller takes to
// wake. The caller waits for parts that are being computed: longer than those differ, shorter than a scheduler's slice,
// which is what it would wait for a worker that was pushed off its processor.
constexpr std::chrono::microseconds worker_patience(100), caller_patience(200);

inline void relax() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

template <class Ready> bool spin_until(std::chrono::microseconds patience, Ready &&ready) {
    const auto from = std::chrono::steady_clock::now();
    do
        for (int i = 0; i < 32; ++i) {
            if (ready()) return true;
            relax();
        }
    while (std::chrono::steady_clock::now() - from < patience);
    return ready();
}

#if defined(__linux__)
void stay_on(int processor) {
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(processor, &one);
    pthread_setaffinity_np(pthread_self(), sizeof one, &one); // refused: it stays where it likes
}
#else
void stay_on(int) {}
#endif

} // namespace

int usable_processors() {
#if defined(__linux__)
    cpu_set_t allowed;
    if (!sched_getaffinity(0, sizeof allowed, &allowed)) return CPU_COUNT(&allowed);
#endif
    const int n = int(std::thread::hardware_concurrency());
    return n > 0 ? n : 1;
}

Pool::Pool(int threads, std::vector<int> processors, size_t scratch_bytes)
    : threads_(threads), processors_(std::move(processors)), claims_(size_t(threads)) {
    scratch_.resize(size_t(threads), nullptr);
    try {
        for (void *&s : scratch_) {
            s = std::aligned_alloc(64, (scratch_bytes + 63) / 64 * 64);
            if (!s) throw std::bad_alloc();
        }
        for (int i = 1; i < threads; ++i) workers_.emplace_back([this, i] { work(i); });
    } catch (...) {
        stop();
        throw;
    }
}

Pool::~Pool() { stop(); }

void Pool::stop() noexcept {
    stop_.store(true, std::memory_order_relaxed);
    round_.fetch_add(1, std::memory_order_release);
    round_.notify_all();
    for (std::thread &t : workers_) t.join();
    for (void *s : scratch_) std::free(s);
}

/// Every part is claimed exactly once in every round, so a claim of the round before is the only one that can be taken:
/// a thread that comes late, rounds later even, finds its part gone.
bool Pool::claim(int part, uint32_t round) {
    uint32_t before = round - 1;
    return claims_[size_t(part)].round.compare_exchange_strong(before, round, std::memory_order_acq_rel);
}

void Pool::keep_caller() {
    if (processors_.empty() || kept_ == std::this_thread::get_id()) return;
    stay_on(processors_[0]);
    kept_ = std::this_thread::get_id();
}

void Pool::work(int part) {
    if (!processors_.empty()) stay_on(processors_[size_t(part) % processors_.size()]);
    uint32_t seen = 0;
    for (;;) {
        if (!spin_until(worker_patience, [&] { return round_.load(std::memory_order_acquire) != seen; }))
            round_.wait(seen, std::memory_order_acquire);
        const uint32_t now = round_.load(std::memory_order_acquire);
        if (now == seen) continue;
        seen = now;
        if (stop_.load(std::memory_order_relaxed)) return;
        if (!claim(part, now)) continue;
        execute(part);
        finished_.fetch_add(1, std::memory_order_release);
        finished_.notify_one();
    }
}

void Pool::execute(int part) noexcept {
    try {
        job_(context_, part);
    } catch (...) {
        const std::lock_guard<std::mutex> hold(failure_lock_);
        if (!failure_) failure_ = std::current_exception();
    }
}

void Pool::run_erased(Job job, void *context) {
    job_ = job;
    context_ = context;
    if (threads_ > 1) {
        finished_.store(0, std::memory_order_relaxed);
        const uint32_t round = round_.load(std::memory_order_relaxed) + 1;
        round_.store(round, std::memory_order_release);
        round_.notify_all();
        claims_[0].round.store(round, std::memory_order_relaxed);
        execute(0);
        uint32_t theirs = uint32_t(threads_ - 1);
        for (int part = threads_ - 1; part > 0; --part) {
            if (!claim(part, round)) continue;
            execute(part);
            --theirs;
        }
        if (!spin_until(caller_patience, [&] { return finished_.load(std::memory_order_acquire) == theirs; }))
            for (uint32_t done = finished_.load(std::memory_order_acquire); done != theirs;
                 done = finished_.load(std::memory_order_acquire))
                finished_.wait(done, std::memory_order_acquire);
    } else {
        execute(0);
    }
    if (failure_) {
        const std::exception_ptr failure = failure_;
        failure_ = nullptr;
        std::rethrow_exception(failure);
    }
}

} // namespace dsv4::cpu
