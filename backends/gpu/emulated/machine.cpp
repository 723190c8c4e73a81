// Fibers: their stacks, their order, their meetings.
#include "backends/gpu/emulated/machine.hpp"
#include <sys/mman.h>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <numeric>
#include <string>
#include <vector>
#include "backends/gpu/failure.hpp"
#if defined(__AVX2__) && defined(__FMA__)
#include <immintrin.h>
#endif
#if !defined(__x86_64__)
#include <ucontext.h>
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <pthread.h>
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace dsv4::gpu::emulated {

Machine machine;

namespace {

constexpr int most_threads = 1024;
constexpr size_t guard_bytes = 4096;
#if defined(__SANITIZE_ADDRESS__) || !defined(NDEBUG)
constexpr size_t stack_bytes = 256 * 1024;
#else
constexpr size_t stack_bytes = 64 * 1024;
#endif

struct Copy {
    void *to;
    const void *from;
    int group;
};
struct Copies {
    std::vector<Copy> pending;
    int committed = 0;
};

struct State {
    uint8_t *stacks = nullptr;
    std::unique_ptr<Fiber[]> fibers{new Fiber[most_threads]};
    std::unique_ptr<Group[]> groups{new Group[most_threads / 32]};
    std::unique_ptr<Copies[]> copies{new Copies[most_threads]};
    std::vector<uint8_t> started = std::vector<uint8_t>(most_threads, 0);
    void *main_stack_pointer = nullptr;
    const std::function<void()> *thread = nullptr;
    int threads = 0, done = 0, at_barrier = 0, barrier_line = 0;
    std::string failure;
    uint64_t order = 0, random = 0;
    int64_t launches = 0, barriers = 0;
#if !defined(__x86_64__)
    ucontext_t main_context, contexts[most_threads];
#endif
#if defined(__SANITIZE_ADDRESS__)
    const void *main_bottom = nullptr;
    size_t main_size = 0;
#endif
    State() {
        if (const char *seed = std::getenv("DSV4_EMULATED_ORDER")) order = std::strtoull(seed, nullptr, 10);
    }
};
State the_state;
inline State &state() { return the_state; }

float float_of(uint32_t u) {
    float f;
    std::memcpy(&f, &u, 4);
    return f;
}

uint64_t next_random(uint64_t &x) {
    x += 0x9E3779B97F4A7C15ull;
    uint64_t z = x;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return z ^ (z >> 31);
}
template <class T> void shuffle_order(T *list, int n, uint64_t &random) {
    for (int i = n; i > 1; --i) std::swap(list[i - 1], list[next_random(random) % uint64_t(i)]);
}

uint8_t *stack_of(int fiber) { return state().stacks + size_t(fiber) * (stack_bytes + guard_bytes) + guard_bytes; }

[[noreturn]] void fiber_main();

#if defined(__x86_64__)
extern "C" void dsv4_emulated_switch(void **save, void *load);
asm(R"(
.text
.hidden dsv4_emulated_switch
.globl dsv4_emulated_switch
.type dsv4_emulated_switch, @function
dsv4_emulated_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size dsv4_emulated_switch, .-dsv4_emulated_switch
)");
#endif

void prepare(int index) {
    State &s = state();
    Fiber &f = s.fibers[size_t(index)];
    f.index = index;
    f.lane = index % 32;
    f.group = &s.groups[size_t(index / 32)];
#if defined(__SANITIZE_ADDRESS__)
    __asan_unpoison_memory_region(stack_of(index), stack_bytes);
#endif
#if defined(__x86_64__)
    // Tops at different offsets, or the stacks of a block would share a few lines of the cache.
    auto *top = reinterpret_cast<uintptr_t *>(stack_of(index) + stack_bytes - size_t(index % 61) * 64 - 64);
    *--top = 0; // what would be the return address of fiber_main
    *--top = reinterpret_cast<uintptr_t>(&fiber_main);
    for (int i = 0; i < 6; ++i) *--top = 0;
    f.stack_pointer = top;
#else
    getcontext(&s.contexts[index]);
    s.contexts[index].uc_stack.ss_sp = stack_of(index);
    s.contexts[index].uc_stack.ss_size = stack_bytes;
    s.contexts[index].uc_link = nullptr;
    makecontext(&s.contexts[index], reinterpret_cast<void (*)()>(&fiber_main), 0);
#endif
    s.started[size_t(index)] = 1;
}

void prepare_all(int threads) {
    State &s = state();
    if (!s.stacks) {
        const size_t each = stack_bytes + guard_bytes;
        void *p = mmap(nullptr, each * most_threads, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (p == MAP_FAILED) throw Failure(DSV4_E_NO_MEMORY, "emulated: no memory for the stacks of a block");
        s.stacks = static_cast<uint8_t *>(p);
        for (int i = 0; i < most_threads; ++i) mprotect(s.stacks + size_t(i) * each, guard_bytes, PROT_NONE);
    }
    for (int i = 0; i < threads; ++i)
        if (!s.started[size_t(i)]) prepare(i);
}

/// From `from` (NULL: the scheduler) to `to`.
inline __attribute__((always_inline)) void change(Fiber *from, Fiber *to) {
    State &s = state();
    machine.current = to;
#if defined(__SANITIZE_ADDRESS__)
    void *fake = nullptr;
    __sanitizer_start_switch_fiber(&fake, to ? stack_of(to->index) : s.main_bottom, to ? stack_bytes : s.main_size);
#endif
#if defined(__x86_64__)
    dsv4_emulated_switch(from ? &from->stack_pointer : &s.main_stack_pointer,
                         to ? to->stack_pointer : s.main_stack_pointer);
#else
    swapcontext(from ? &s.contexts[from->index] : &s.main_context, to ? &s.contexts[to->index] : &s.main_context);
#endif
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
}

/// The running fiber is not ready: to the next of its subgroup that is, or to the scheduler.
inline __attribute__((always_inline)) void switch_away() {
    State &s = state();
    Fiber *self = machine.current;
    const Group &g = *self->group;
    if (!g.ready) return change(self, nullptr);
    const int start = (self->place + 1) & 31;
    const uint32_t turned = start ? g.ready >> start | g.ready << (32 - start) : g.ready;
    const int place = (start + __builtin_ctz(turned)) & 31;
    change(self, &s.fibers[size_t(self->index / 32 * 32 + g.order[place])]);
}

void not_ready() { machine.current->group->ready &= ~(1u << machine.current->place); }

[[noreturn]] void fiber_main() {
    State &s = state();
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(nullptr, nullptr, nullptr);
#endif
    for (;;) {
        (*s.thread)();
        ++s.done;
        not_ready();
        switch_away();
    }
}

const char *name_of(int kind) {
    static const char *const names[] = {"", "sync_subgroup", "shuffle", "subgroup_ballot", "subgroup_sum",
                                        "subgroup_max", "subgroup_min", "mma"};
    return names[kind];
}

/// Leaves the block as it is: the stacks of its fibers hold half-run threads and are made anew before the next.
[[noreturn]] void stop(std::string why) {
    State &s = state();
    std::fill(s.started.begin(), s.started.end(), uint8_t(0));
    s.failure.clear();
    machine.current = nullptr;
    const Dim3 &b = machine.block_index;
    throw Failure(DSV4_E_INTERNAL, "emulated: block (" + std::to_string(b.x) + ", " + std::to_string(b.y) + ", " +
                                       std::to_string(b.z) + "): " + why);
}

void run_block() {
    State &s = state();
    const int groups = s.threads / 32;
    ++machine.block_serial;
    s.done = s.at_barrier = 0;
    uint8_t group_order[most_threads / 32];
    for (int g = 0; g < groups; ++g) group_order[g] = uint8_t(g);
    if (s.order) shuffle_order(group_order, groups, s.random);
    const Dim3 &size = machine.block_size;
    for (int g = 0; g < groups; ++g) {
        Group &group = s.groups[size_t(g)];
        group.parity = group.arrived = 0;
        group.ready = 0xFFFFFFFFu;
        for (int lane = 0; lane < 32; ++lane) group.order[lane] = uint8_t(lane);
        if (s.order) shuffle_order(group.order, 32, s.random);
        for (int p = 0; p < 32; ++p) {
            const int index = g * 32 + group.order[p];
            Fiber &f = s.fibers[size_t(index)];
            f.place = p;
            const auto i = unsigned(index);
            f.thread = {i % size.x, i / size.x % size.y, i / size.x / size.y};
            s.copies[size_t(index)].pending.clear();
            s.copies[size_t(index)].committed = 0;
        }
    }
    for (;;) {
        for (int i = 0; i < groups; ++i) {
            Group &group = s.groups[group_order[i]];
            while (group.ready && s.failure.empty())
                change(nullptr, &s.fibers[size_t(group_order[i] * 32 + group.order[__builtin_ctz(group.ready)])]);
            if (!s.failure.empty()) stop(s.failure);
            if (group.arrived)
                stop(std::to_string(32 - group.arrived) + " threads of a subgroup never come to the " +
                     name_of(group.what) + " (line " + std::to_string(group.line) + ") where " +
                     std::to_string(group.arrived) + " wait");
        }
        if (s.done == s.threads) return;
        if (s.at_barrier != s.threads)
            stop(std::to_string(s.threads - s.at_barrier) + " threads ended while " + std::to_string(s.at_barrier) +
                 " wait at __syncthreads (line " + std::to_string(s.barrier_line) + ")");
        s.at_barrier = 0;
        ++s.barriers;
        for (int g = 0; g < groups; ++g) s.groups[size_t(g)].ready = 0xFFFFFFFFu;
    }
}

} // namespace

namespace {

/// For good: what this fiber's stack still owns would leak, so it owns nothing.
[[noreturn]] void abandon() {
    for (;;) change(machine.current, nullptr);
}

} // namespace

void fail(const char *text) {
    state().failure = text;
    abandon();
}

void Meeting::leave() const {
    not_ready();
    switch_away();
}

void Meeting::diverged() const {
    state().failure = std::string("one thread of a subgroup is at the ") + name_of(kind_) + " of line " +
                      std::to_string(line_) + ", another at the " + name_of(group_->what) + " of line " +
                      std::to_string(group_->line);
    abandon();
}

void block_barrier(int line) {
    State &s = state();
    if (s.at_barrier && s.barrier_line != line) {
        s.failure = "__syncthreads reached at line " + std::to_string(line) + " by one thread, at line " +
                    std::to_string(s.barrier_line) + " by another";
        abandon();
    }
    s.barrier_line = line;
    ++s.at_barrier;
    not_ready();
    switch_away();
}

void poison(void *memory, size_t bytes) { std::memset(memory, 0xFF, bytes); }

void multiply_fragments(uint8_t *lanes) {
    alignas(32) float a[16][16], b[16][8], c[16][8];
    for (int lane = 0; lane < 32; ++lane) {
        const int g = lane / 4, t = lane % 4;
        float own[4];
        uint32_t words[6];
        std::memcpy(own, lanes + lane * exchange_bytes, 16);
        std::memcpy(words, lanes + lane * exchange_bytes + 16, 24);
        const auto low = [&](int i) { return float_of(words[i] << 16); };
        const auto high = [&](int i) { return float_of(words[i] & 0xFFFF0000u); };
        for (int i = 0; i < 4; ++i) {
            a[g + i % 2 * 8][2 * t + i / 2 * 8] = low(i);
            a[g + i % 2 * 8][2 * t + i / 2 * 8 + 1] = high(i);
        }
        for (int i = 0; i < 2; ++i) b[2 * t + 8 * i][g] = low(4 + i), b[2 * t + 8 * i + 1][g] = high(4 + i);
        for (int i = 0; i < 4; ++i) c[g + i / 2 * 8][2 * t + i % 2] = own[i];
    }
#if defined(__AVX2__) && defined(__FMA__)
    for (int half = 0; half < 16; half += 8) {
        __m256 sum[8];
        for (int row = 0; row < 8; ++row) sum[row] = _mm256_load_ps(c[half + row]);
        for (int k = 0; k < 16; ++k) {
            const __m256 bk = _mm256_load_ps(b[k]);
            for (int row = 0; row < 8; ++row)
                sum[row] = _mm256_fmadd_ps(_mm256_set1_ps(a[half + row][k]), bk, sum[row]);
        }
        for (int row = 0; row < 8; ++row) _mm256_store_ps(c[half + row], sum[row]);
    }
#else
    for (int row = 0; row < 16; ++row)
        for (int k = 0; k < 16; ++k)
            for (int n = 0; n < 8; ++n) c[row][n] = std::fmaf(a[row][k], b[k][n], c[row][n]);
#endif
    for (int lane = 0; lane < 32; ++lane) {
        const int g = lane / 4, t = lane % 4;
        const float own[4] = {c[g][2 * t], c[g][2 * t + 1], c[g + 8][2 * t], c[g + 8][2 * t + 1]};
        std::memcpy(lanes + lane * exchange_bytes, own, 16);
    }
}

void copy_later(void *to, const void *from) {
    Copies &c = state().copies[size_t(machine.current->index)];
    c.pending.push_back({to, from, c.committed});
}
void copy_commit() { ++state().copies[size_t(machine.current->index)].committed; }
void copy_wait(int left) {
    Copies &c = state().copies[size_t(machine.current->index)];
    size_t kept = 0;
    for (const Copy &copy : c.pending) {
        if (copy.group < c.committed - left) std::memcpy(copy.to, copy.from, 16);
        else c.pending[kept++] = copy;
    }
    c.pending.resize(kept);
}

size_t shared_limit() {
    static const size_t limit = [] {
        const char *set = std::getenv("DSV4_EMULATED_SHARED");
        return set ? size_t(std::strtoull(set, nullptr, 10)) : size_t(64) * 1024; // AMD's; NVIDIA's least is 99 KiB
    }();
    return limit;
}

void run(const Launch &launch) {
    State &s = state();
    s.threads = int(launch.block.x * launch.block.y * launch.block.z);
    prepare_all(s.threads);
#if defined(__SANITIZE_ADDRESS__)
    pthread_attr_t attributes;
    void *bottom = nullptr;
    pthread_getattr_np(pthread_self(), &attributes);
    pthread_attr_getstack(&attributes, &bottom, &s.main_size);
    pthread_attr_destroy(&attributes);
    s.main_bottom = bottom;
#endif
    void *shared = nullptr;
    if (launch.dynamic_bytes && posix_memalign(&shared, 128, launch.dynamic_bytes))
        throw Failure(DSV4_E_NO_MEMORY, "emulated: no memory for the shared memory of a block");
    const std::unique_ptr<void, decltype(&std::free)> owner(shared, &std::free);
    machine.dynamic_shared = static_cast<uint8_t *>(shared);
    machine.grid_size = launch.grid;
    machine.block_size = launch.block;
    s.thread = &launch.thread;
    ++s.launches;
    s.random = s.order * 0x632BE59BD9B4E019ull + uint64_t(s.launches);
    const uint64_t blocks = uint64_t(launch.grid.x) * launch.grid.y * launch.grid.z;
    // A stride without a common factor visits every block once, in an order that looks like none.
    uint64_t stride = 1, start = 0;
    if (s.order && blocks > 1) {
        start = next_random(s.random) % blocks;
        do stride = next_random(s.random) % blocks;
        while (std::gcd(stride, blocks) != 1);
    }
    for (uint64_t i = 0, b = start; i < blocks; ++i, b = (b + stride) % blocks) {
        machine.block_index = {unsigned(b % launch.grid.x), unsigned(b / launch.grid.x % launch.grid.y),
                               unsigned(b / launch.grid.x / launch.grid.y)};
        if (shared) poison(shared, launch.dynamic_bytes);
        run_block();
    }
    machine.dynamic_shared = nullptr;
}

void set_order(uint64_t seed) { state().order = seed; }
int64_t launches() { return state().launches; }
int64_t meetings() { return state().barriers; }

} // namespace dsv4::gpu::emulated
