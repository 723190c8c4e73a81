// Routed experts that stay on disk: read when a step needs them or is known to need them soon, kept in memory under a
// budget, the least recently used given up first.
#pragma once
#include <atomic>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <string>
#include <vector>
#include "backends/cpu/disk_reader.hpp"
#include "backends/cpu/objects.hpp"

namespace dsv4::cpu {

/// One weight of an expert: codes or scales, as a range of a file.
struct FilePiece {
    int32_t file = -1; // into the store's files; -1: absent
    uint64_t offset = 0, bytes = 0;
};

/// Since the store was made. Every use of an expert in a step counts once.
struct StoreCounts {
    uint64_t held = 0;       // uses of experts that were in memory since an earlier step
    uint64_t ahead = 0;      // uses of experts whose reading had begun before their layer did
    uint64_t demanded = 0;   // uses that started reading
    uint64_t bytes_read = 0; // of weights; unaligned ends and what is read again not counted
    uint64_t waited_ns = 0;  // that operators stood still for the disk
};

/// One thread at a time, except counts().
class ExpertStore {
  public:
    static constexpr int pieces = 6; // w1, w2, w3, then their scales
    using Log = std::function<void(int32_t level, const std::string &line)>;

    /// budget: bytes of memory, 0: no limit. A budget beyond what the machine has is cut, which the log says.
    ExpertStore(uint64_t budget, Log log, DiskMethod method = DiskMethod::BEST);
    ~ExpertStore();
    ExpertStore(const ExpertStore &) = delete;
    ExpertStore &operator=(const ExpertStore &) = delete;

    /// Opens the file once however often it is named.
    int32_t file(const std::string &path);
    /// Returns the expert's number in this store.
    int64_t add(const FilePiece (&parts)[pieces]);
    void remove(int64_t expert);

    /// What the coming layers are known to need, in that order. Reading starts at once as far as the budget holds it
    /// without giving up one of them, and goes on as they are used. Replaces what was expected before.
    void expect(std::vector<int64_t> experts);
    /// Starts reading all of these that are absent, as far as the budget goes; waits for the first; returns how many
    /// from the first on are in memory, at least one. Those stay valid until the next call. Throws DSV4_E_DEVICE naming
    /// the file and the offset that could not be read, DSV4_E_NO_MEMORY.
    int64_t acquire(const int64_t *experts, int64_t count);
    const uint8_t *data(int64_t expert, int piece) const;

    StoreCounts counts() const; // [any thread]
    uint64_t budget() const { return budget_; }

  private:
    enum class State { ABSENT, READING, HELD };
    enum class Origin { HELD, AHEAD, DEMANDED };
    struct Expert {
        FilePiece part[pieces];
        uint64_t at[pieces] = {}; // where the piece's first aligned byte lies in the memory
        uint64_t bytes = 0;       // of memory when not absent
        uint64_t weight_bytes = 0;
        State state = State::ABSENT;
        Origin origin = Origin::HELD; // of the next use
        uint64_t listed = 0;      // number of the last acquire that named it
        bool expected = false;    // to be used by this step, and not yet
        Pages memory;
        DiskRequest request;
        std::list<int64_t>::iterator age; // valid unless absent
    };
    enum class Giving { UNLISTED, EXPECTED, LISTED }; // what may be given up for a read, each with the former

    void open_reader();
    bool admit(int64_t id, Origin origin, Giving giving);
    int64_t victim(Giving giving);
    void drop(Expert &e);
    void finish(Expert &e);
    void go_on_expecting();
    void report_progress();

    Log log_;
    DiskMethod method_;
    uint64_t budget_, taken_ = 0, all_bytes_ = 0, round_ = 0;
    std::vector<std::unique_ptr<DiskFile>> files_;
    std::unique_ptr<DiskReader> reader_; // once there is a file
    std::vector<std::unique_ptr<Expert>> experts_; // NULL: removed
    std::list<int64_t> ages_;            // of those that take memory, the least recently used first
    std::vector<int64_t> expected_;
    size_t next_expected_ = 0;
    std::atomic<uint64_t> held_{0}, ahead_{0}, demanded_{0}, bytes_read_{0}, waited_ns_{0};
    uint64_t reported_ns_ = 0;
    StoreCounts reported_;
};

} // namespace dsv4::cpu
