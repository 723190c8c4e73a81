#include "backends/cpu/pool.hpp"
#include <cstdlib>
#include <new>
#if defined(__linux__)
#include <pthread.h>
#include <sched.h>
#endif

namespace dsv4::cpu {

namespace {

// About 20 us on the machines we know: longer than the gap between two operators, shorter than a scheduler's slice.
constexpr int spins = 400;

inline void relax() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

template <class Ready> bool spin_until(Ready &&ready) {
    for (int i = 0; i < spins; ++i) {
        if (ready()) return true;
        relax();
    }
    return ready();
}

void pin_to(int which) {
#if defined(__linux__)
    cpu_set_t allowed, one;
    if (sched_getaffinity(0, sizeof allowed, &allowed)) return;
    for (int cpu = 0, seen = 0; cpu < CPU_SETSIZE; ++cpu)
        if (CPU_ISSET(cpu, &allowed) && seen++ == which) {
            CPU_ZERO(&one);
            CPU_SET(cpu, &one);
            pthread_setaffinity_np(pthread_self(), sizeof one, &one);
            return;
        }
#else
    (void)which;
#endif
}

} // namespace

int usable_processors() {
#if defined(__linux__)
    cpu_set_t allowed;
    if (!sched_getaffinity(0, sizeof allowed, &allowed)) return CPU_COUNT(&allowed);
#endif
    const int n = int(std::thread::hardware_concurrency());
    return n > 0 ? n : 1;
}

Pool::Pool(int threads, bool pin, size_t scratch_bytes) : threads_(threads) {
    scratch_.resize(size_t(threads), nullptr);
    try {
        for (void *&s : scratch_) {
            s = std::aligned_alloc(64, (scratch_bytes + 63) / 64 * 64);
            if (!s) throw std::bad_alloc();
        }
        for (int i = 1; i < threads; ++i) workers_.emplace_back([this, i, pin] { work(i, pin); });
    } catch (...) {
        stop_ = true;
        round_.fetch_add(1, std::memory_order_release);
        round_.notify_all();
        for (std::thread &t : workers_) t.join();
        for (void *s : scratch_) std::free(s);
        throw;
    }
}

Pool::~Pool() {
    stop_ = true;
    round_.fetch_add(1, std::memory_order_release);
    round_.notify_all();
    for (std::thread &t : workers_) t.join();
    for (void *s : scratch_) std::free(s);
}

void Pool::work(int thread, bool pin) {
    if (pin) pin_to(thread);
    uint32_t seen = 0;
    for (;;) {
        if (!spin_until([&] { return round_.load(std::memory_order_acquire) != seen; }))
            round_.wait(seen, std::memory_order_acquire);
        const uint32_t now = round_.load(std::memory_order_acquire);
        if (now == seen) continue;
        seen = now;
        if (stop_) return;
        execute(thread);
        if (pending_.fetch_sub(1, std::memory_order_acq_rel) == 1) pending_.notify_one();
    }
}

void Pool::execute(int thread) noexcept {
    try {
        job_(context_, thread);
    } catch (...) {
        const std::lock_guard<std::mutex> hold(failure_lock_);
        if (!failure_) failure_ = std::current_exception();
    }
}

void Pool::run_erased(Job job, void *context) {
    job_ = job;
    context_ = context;
    if (threads_ > 1) {
        pending_.store(uint32_t(threads_ - 1), std::memory_order_relaxed);
        round_.fetch_add(1, std::memory_order_release);
        round_.notify_all();
    }
    execute(0);
    if (threads_ > 1 && !spin_until([&] { return pending_.load(std::memory_order_acquire) == 0; }))
        for (uint32_t left = pending_.load(std::memory_order_acquire); left;
             left = pending_.load(std::memory_order_acquire))
            pending_.wait(left, std::memory_order_acquire);
    if (failure_) {
        const std::exception_ptr failure = failure_;
        failure_ = nullptr;
        std::rethrow_exception(failure);
    }
}

} // namespace dsv4::cpu
