// How a grid of kernel threads runs on the host: blocks one after another, the threads of a block as fibers that change
// only where CUDA lets threads meet. A thread that does not come to a meeting, a shared memory size that no card has, a
// barrier reached at two places at once: each is a Failure that says which block and where. What nobody wrote is NaN.
// DSV4_EMULATED_ORDER=N (N > 0) shuffles the order of blocks, subgroups and threads: results must not change.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>

namespace dsv4::gpu::emulated {

struct Dim3 {
    unsigned x, y, z;
    constexpr Dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {}
};

constexpr int exchange_bytes = 64; // of one lane in one meeting

/// 32 fibers and the place where they exchange values. Two sets of slots: a lane that went on to the next meeting must
/// not overwrite what a slower one still reads.
struct Group {
    alignas(64) uint8_t slots[2][32][exchange_bytes];
    uint32_t ready = 0;      // bit per place in the running order
    uint8_t order[32] = {};  // place -> lane
    int parity = 0, arrived = 0, what = 0, line = 0;
};

struct Fiber {
    Dim3 thread;
    int lane = 0, place = 0;
    Group *group = nullptr;
    void *stack_pointer = nullptr;
    int index = 0;
    bool waited = false; // wait_for_former() was called
};

struct Machine {
    Fiber *current = nullptr;
    Dim3 block_index, block_size, grid_size;
    uint8_t *dynamic_shared = nullptr;
    uint64_t block_serial = 0;
};
extern Machine machine;

/// Ends the launch: the stream's next wait throws `text` with the block's place.
[[noreturn]] void fail(const char *text);

void block_barrier(int line = __builtin_LINE());

enum Kind { SYNC = 1, SHUFFLE, BALLOT, SUM, MAX, MIN, MMA };

/// One collective: fill mine(), hold() until all 32 have, read of(lane).
class Meeting {
  public:
    explicit Meeting(Kind kind, int line = __builtin_LINE())
        : group_(machine.current->group), slots_(group_->slots[group_->parity]), kind_(kind), line_(line) {}
    uint8_t *mine() const { return slots_[machine.current->lane]; }
    uint8_t *of(int lane) const { return slots_[lane]; }
    void hold() {
        if (!arrive()) leave();
    }
    /// `last` runs once, when all have come and none has gone.
    template <class Last> void hold(Last &&last) {
        if (arrive()) last();
        else leave();
    }

  private:
    bool arrive() {
        Group &g = *group_;
        if (!g.arrived) g.what = kind_, g.line = line_;
        else if (g.what != kind_ || g.line != line_) diverged();
        if (++g.arrived < 32) return false;
        g.arrived = 0;
        g.parity ^= 1;
        g.ready = 0xFFFFFFFFu;
        return true;
    }
    void leave() const;
    [[noreturn]] void diverged() const;

    Group *group_;
    uint8_t (*slots_)[exchange_bytes];
    int kind_, line_;
};

/// c, a, b of 32 lanes (16 + 16 + 8 bytes each) -> c; k ascending, one fused multiply-add each.
void multiply_fragments(uint8_t *lanes);

void copy_later(void *to, const void *from);
void copy_commit();
void copy_wait(int left);

void poison(void *memory, size_t bytes);
inline void fresh_for_block(uint64_t &serial, void *memory, size_t bytes) {
    if (serial == machine.block_serial) return;
    serial = machine.block_serial;
    poison(memory, bytes);
}

struct Launch {
    Dim3 grid, block;
    size_t dynamic_bytes;
    std::function<void()> thread; // the whole program of one thread
};
void run(const Launch &launch); // throws Failure

/// The largest dynamic shared memory of a block; that of the smallest card this is built for, unless set.
size_t shared_limit();

struct Stream;
struct Event;
struct Graph;
void enqueue(Stream *stream, Launch launch);

// For tests alone.
void set_order(uint64_t seed);             // 0: ascending
void set_memory(size_t bytes);             // of the whole device
void lose_device_after(int64_t launches);  // that many still work; < 0: never; the device comes back when set again
int64_t launches();                        // kernels run so far
int64_t meetings();                        // block barriers passed so far

} // namespace dsv4::gpu::emulated
