// Reading ranges of files in the background: with io_uring where the build and the kernel have it, else with a few
// threads that block in pread. Past the page cache (O_DIRECT) where the file system can.
#pragma once
#include <cstdint>
#include <deque>
#include <memory>
#include <string>

namespace dsv4::cpu {

/// A file as its reads see it. Closed by its destructor.
struct DiskFile {
    static constexpr uint64_t alignment = 4096; // of O_DIRECT reads: file offset, length and address
    static uint64_t down(uint64_t n) { return n / alignment * alignment; }
    static uint64_t up(uint64_t n) { return down(n + alignment - 1); }

    explicit DiskFile(std::string name); // throws DSV4_E_DEVICE
    ~DiskFile();
    DiskFile(const DiskFile &) = delete;
    DiskFile &operator=(const DiskFile &) = delete;

    std::string path;
    int plain = -1, direct = -1; // direct: -1 where O_DIRECT is not to be had
};

/// Ranges that are wanted together. All must have arrived before it is destroyed or moved.
struct DiskRequest {
    int32_t pending = 0;    // pieces that have not arrived
    int32_t native = 0;     // errno of the first that failed
    std::string failure;    // what failed, with offset, reason and path; empty: nothing so far
    bool done() const { return pending == 0; }
};

/// Not thread-safe: all calls from one thread at a time, which may change between calls.
class DiskReader {
  public:
    virtual ~DiskReader() = default; // waits for what is under way

    /// Queues [offset, offset + bytes) of the file, which goes to `to` + offset % alignment: reads begin and end at
    /// multiples of the alignment, and `to` is such a multiple with room for all of it.
    void read(const DiskFile &file, uint64_t offset, uint64_t bytes, uint8_t *to, DiskRequest &request);
    /// Hands over what is queued, notes what has arrived. Never waits for the disk.
    void poll();
    /// Returns when the request is done.
    void wait(DiskRequest &request);

    virtual const char *name() const = 0;

  protected:
    struct Piece {
        const DiskFile *file;
        DiskRequest *request;
        uint64_t at, end; // what is still to be read; end: the last byte wanted, not aligned
        uint8_t *to;
        int fd;
        int32_t tries;
        uint64_t length() const { return DiskFile::up(end) - at; }
    };
    /// Starts as many as it can hold now, from the front.
    virtual void submit(std::deque<Piece> &queue) = 0;
    /// Calls settle() for what has arrived; waits for one if told so. Never called with nothing under way.
    virtual void collect(bool wait, std::deque<Piece> &queue) = 0;
    /// After a read of the piece returned `got` bytes or -errno. The rest of it, if any, goes back to the queue.
    void settle(Piece piece, int64_t got, std::deque<Piece> &queue);

    int64_t under_way_ = 0;

  private:
    std::deque<Piece> queue_;
};

enum class DiskMethod { BEST, URING, THREADS };

/// BEST: io_uring, or threads where it is not to be had: why_not then says why. URING: NULL instead.
std::unique_ptr<DiskReader> open_disk_reader(DiskMethod method, std::string &why_not);

/// NULL and the reason where the kernel refuses or the build is without it.
std::unique_ptr<DiskReader> open_uring_reader(std::string &why_not);

} // namespace dsv4::cpu
