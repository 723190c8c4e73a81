// io_uring, where liburing was there at build time; whether the kernel lets us is asked at run time (containers often
// forbid it by seccomp, and kernel.io_uring_disabled exists).
#include "backends/cpu/disk_reader.hpp"
#if defined(DSV4_CPU_URING)
#include <liburing.h>
#include <cerrno>
#include <cstring>
#include <vector>
#include "backends/cpu/boundary.hpp"
#endif

namespace dsv4::cpu {

#if defined(DSV4_CPU_URING)

namespace {

constexpr unsigned depth = 64; // pieces under way at most: more would make submission wait for the block layer

class UringReader : public DiskReader {
  public:
    explicit UringReader(const io_uring &ring) : ring_(ring), slots_(depth) {
        for (uint32_t i = 0; i < depth; ++i) free_.push_back(i);
    }
    ~UringReader() override {
        std::deque<Piece> rest;
        try {
            while (under_way_) collect(true, rest);
        } catch (...) { // the ring is broken; the kernel holds the pages it may still write to
        }
        io_uring_queue_exit(&ring_);
    }
    const char *name() const override { return "io_uring"; }

  protected:
    void submit(std::deque<Piece> &queue) override {
        while (!queue.empty() && !free_.empty()) {
            io_uring_sqe *entry = io_uring_get_sqe(&ring_);
            if (!entry) break;
            const uint32_t slot = free_.back();
            free_.pop_back();
            const Piece &p = slots_[slot] = queue.front();
            queue.pop_front();
            io_uring_prep_read(entry, p.fd, p.to, unsigned(p.length()), p.at);
            entry->user_data = slot; // not io_uring_sqe_set_data64: liburing 2.1 (Ubuntu 22.04) has none
            ++under_way_;
        }
        // Interrupted or short of something: what stays in the ring goes with the next call.
        if (io_uring_sq_ready(&ring_)) io_uring_submit(&ring_);
    }

    void collect(bool wait, std::deque<Piece> &queue) override {
        io_uring_cqe *done = nullptr;
        if (wait) {
            const int result = io_uring_submit_and_wait(&ring_, 1);
            if (result < 0 && result != -EINTR && result != -EAGAIN && result != -EBUSY)
                throw Error(DSV4_E_DEVICE, std::string("cpu: reading experts: io_uring: ") + std::strerror(-result),
                            -result);
        }
        while (io_uring_peek_cqe(&ring_, &done) == 0) {
            const auto slot = uint32_t(done->user_data);
            const int32_t got = done->res;
            io_uring_cqe_seen(&ring_, done);
            --under_way_;
            free_.push_back(slot);
            settle(slots_[slot], got, queue);
        }
    }

  private:
    io_uring ring_;
    std::vector<Piece> slots_;
    std::vector<uint32_t> free_;
};

/// One operation through the ring and back: a filter may allow its creation and forbid its use.
int try_ring(io_uring &ring) {
    io_uring_probe *probe = io_uring_get_probe_ring(&ring);
    const bool reads = probe && io_uring_opcode_supported(probe, IORING_OP_READ);
    io_uring_free_probe(probe);
    if (!reads) return -ENOSYS;
    io_uring_prep_nop(io_uring_get_sqe(&ring));
    io_uring_cqe *done = nullptr;
    const int submitted = io_uring_submit_and_wait(&ring, 1);
    if (submitted < 0) return submitted;
    const int result = io_uring_peek_cqe(&ring, &done);
    if (result == 0) io_uring_cqe_seen(&ring, done);
    return result;
}

} // namespace

std::unique_ptr<DiskReader> open_uring_reader(std::string &why_not) {
    io_uring ring;
    int result = io_uring_queue_init(depth, &ring, 0);
    if (result == 0) {
        result = try_ring(ring);
        if (result == 0) return std::make_unique<UringReader>(ring);
        io_uring_queue_exit(&ring);
    }
    why_not = std::string("the kernel refuses io_uring: ") + std::strerror(-result);
    return nullptr;
}

#else

std::unique_ptr<DiskReader> open_uring_reader(std::string &why_not) {
    why_not = "built without liburing";
    return nullptr;
}

#endif

} // namespace dsv4::cpu
