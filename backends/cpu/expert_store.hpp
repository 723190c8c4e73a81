// Routed experts that stay on disk: read when a step needs them, kept in memory under a budget, the least recently
// used given up first. Reads go past the page cache (O_DIRECT) where the file system can, so that streaming a model
// larger than memory does not push everything else out of it.
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <vector>
#include "backends/cpu/objects.hpp"

namespace dsv4::cpu {

/// One weight of an expert: codes and, where it has them, scales, as ranges of files.
struct FilePiece {
    int32_t file = -1; // into the store's files; -1: absent
    uint64_t offset = 0, bytes = 0;
};

class ExpertStore {
  public:
    static constexpr int pieces = 6; // w1, w2, w3, then their scales

    /// budget in bytes; 0: no limit.
    explicit ExpertStore(uint64_t budget) : budget_(budget) {}
    ~ExpertStore();
    ExpertStore(const ExpertStore &) = delete;
    ExpertStore &operator=(const ExpertStore &) = delete;

    /// Opens the file once however often it is named.
    int32_t file(const std::string &path);
    /// Returns the expert's number in this store.
    int64_t add(const FilePiece (&parts)[pieces]);
    void remove(int64_t expert);

    /// How many of these experts fit the budget at once, at least one.
    int64_t fitting(const std::vector<int64_t> &experts, size_t from) const;
    /// Makes them resident; what they held before stays valid until the next call. Throws DSV4_E_DEVICE naming the file
    /// and the offset that could not be read, DSV4_E_NO_MEMORY.
    void acquire(const int64_t *experts, int64_t count, Pool &pool);
    const uint8_t *data(int64_t expert, int piece) const;

    uint64_t hits() const { return hits_; }
    uint64_t misses() const { return misses_; }
    uint64_t bytes_read() const { return bytes_read_; }

  private:
    struct File {
        std::string path;
        int direct = -1, plain = -1;
    };
    struct Expert {
        FilePiece part[pieces];
        uint64_t at[pieces] = {}; // where the piece's first aligned byte lies in the memory
        uint64_t bytes = 0;       // of memory when resident
        uint64_t used = 0;        // clock of the last acquire
        Pages memory;             // empty: on disk
    };
    void make_room(uint64_t bytes);
    void read(const File &file, uint64_t offset, uint64_t bytes, uint8_t *to) const;

    uint64_t budget_, resident_ = 0, clock_ = 0, hits_ = 0, misses_ = 0, bytes_read_ = 0;
    int64_t next_ = 0;
    std::vector<File> files_;
    std::map<int64_t, Expert> experts_;
};

} // namespace dsv4::cpu
