#include "backends/cpu/disk_reader.hpp"
#include <fcntl.h>
#include <unistd.h>
#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <thread>
#include <vector>
#include "backends/cpu/boundary.hpp"

namespace dsv4::cpu {

namespace {

// Large enough for the disk's full speed, small enough that the first expert of several arrives early.
constexpr uint64_t piece_bytes = uint64_t(1) << 20;
constexpr int32_t most_tries = 64; // of one piece, where the kernel asks to try again

/// Threads that block in pread; no more than a disk needs to be busy.
class ThreadReader : public DiskReader {
  public:
    ThreadReader() {
        try {
            for (int i = 0; i < thread_count; ++i) threads_.emplace_back([this] { work(); });
        } catch (...) {
            stop();
            throw;
        }
    }
    ~ThreadReader() override { stop(); }
    const char *name() const override { return "4 threads"; }

  protected:
    void submit(std::deque<Piece> &queue) override {
        if (queue.empty()) return;
        {
            const std::lock_guard<std::mutex> hold(lock_);
            done_.reserve(size_t(under_way_) + queue.size()); // no thread of ours may run out of memory
            under_way_ += int64_t(queue.size());
            while (!queue.empty()) {
                waiting_.push_back(queue.front());
                queue.pop_front();
            }
        }
        work_.notify_all();
    }

    void collect(bool wait, std::deque<Piece> &queue) override {
        std::vector<Arrival> arrived;
        {
            std::unique_lock<std::mutex> hold(lock_);
            if (wait) arrived_.wait(hold, [&] { return !done_.empty(); });
            arrived = done_;
            done_.clear(); // and keeps its room
        }
        under_way_ -= int64_t(arrived.size());
        for (const Arrival &a : arrived) settle(a.piece, a.got, queue);
    }

  private:
    static constexpr int thread_count = 4;
    struct Arrival {
        Piece piece;
        int64_t got;
    };

    void work() {
        std::unique_lock<std::mutex> hold(lock_);
        for (;;) {
            work_.wait(hold, [&] { return stop_ || !waiting_.empty(); });
            if (waiting_.empty()) return;
            const Piece p = waiting_.front();
            waiting_.pop_front();
            hold.unlock();
            const ssize_t got = pread(p.fd, p.to, size_t(p.length()), off_t(p.at));
            const int64_t result = got < 0 ? -int64_t(errno) : got;
            hold.lock();
            done_.push_back({p, result});
            arrived_.notify_one();
        }
    }
    void stop() {
        {
            const std::lock_guard<std::mutex> hold(lock_);
            stop_ = true;
            waiting_.clear();
        }
        work_.notify_all();
        for (std::thread &t : threads_) t.join();
    }

    std::mutex lock_;
    std::condition_variable work_, arrived_;
    std::deque<Piece> waiting_;
    std::vector<Arrival> done_;
    bool stop_ = false;
    std::vector<std::thread> threads_;
};

} // namespace

DiskFile::DiskFile(std::string name) : path(std::move(name)) {
    plain = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (plain < 0) {
        const int code = errno;
        throw Error(DSV4_E_DEVICE,
                    std::string("cpu: opening a file of experts: ") + std::strerror(code) + ": " + path, code);
    }
#ifdef O_DIRECT
    direct = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECT);
#endif
}

DiskFile::~DiskFile() {
    if (direct >= 0) close(direct);
    if (plain >= 0) close(plain);
}

void DiskReader::read(const DiskFile &file, uint64_t offset, uint64_t bytes, uint8_t *to, DiskRequest &request) {
    const uint64_t begin = DiskFile::down(offset), end = offset + bytes;
    for (uint64_t at = begin; at < end; at += piece_bytes) {
        const uint64_t last = at + piece_bytes < end ? at + piece_bytes : end;
        const int fd = file.direct >= 0 ? file.direct : file.plain;
        queue_.push_back({&file, &request, at, last, to + (at - begin), fd, 0});
        ++request.pending;
    }
}

void DiskReader::poll() {
    submit(queue_);
    if (under_way_) collect(false, queue_);
    submit(queue_);
}

void DiskReader::wait(DiskRequest &request) {
    poll();
    while (!request.done()) {
        collect(true, queue_);
        submit(queue_);
    }
}

void DiskReader::settle(Piece p, int64_t got, std::deque<Piece> &queue) {
    const auto fail = [&](int32_t code, const char *reason) {
        if (p.request->failure.empty()) {
            p.request->native = code;
            p.request->failure =
                "cpu: reading an expert at offset " + std::to_string(p.at) + ": " + reason + ": " + p.file->path;
        }
        --p.request->pending;
    };
    const auto again = [&] {
        if (++p.tries > most_tries) return fail(EAGAIN, "tried 64 times");
        queue.push_front(p);
    };
    // ECANCELED: the thread that submitted it has ended.
    if (got == -EINTR || got == -EAGAIN || got == -ECANCELED) return again();
    if (got == -EINVAL && p.fd == p.file->direct) { // an alignment that this device does not take
        p.fd = p.file->plain;
        return again();
    }
    if (got < 0) return fail(int32_t(-got), std::strerror(int(-got)));
    if (got == 0) return fail(0, "the file ends there");
    p.at += uint64_t(got);
    p.to += got;
    if (p.at >= p.end) {
        --p.request->pending;
        return;
    }
    if (p.at % DiskFile::alignment) p.fd = p.file->plain; // a short read leaves no aligned place
    p.tries = 0;
    queue.push_front(p);
}

std::unique_ptr<DiskReader> open_disk_reader(DiskMethod method, std::string &why_not) {
    if (method == DiskMethod::THREADS) return std::make_unique<ThreadReader>();
    std::unique_ptr<DiskReader> uring = open_uring_reader(why_not);
    if (uring || method == DiskMethod::URING) return uring;
    return std::make_unique<ThreadReader>();
}

} // namespace dsv4::cpu
