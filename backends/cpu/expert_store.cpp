#include "backends/cpu/expert_store.hpp"
#include <fcntl.h>
#include <unistd.h>
#include <cerrno>
#include <cstring>

namespace dsv4::cpu {

namespace {

constexpr uint64_t alignment = 4096; // of O_DIRECT reads: file offset, length and address

uint64_t down(uint64_t n) { return n / alignment * alignment; }
uint64_t up(uint64_t n) { return down(n + alignment - 1); }
uint64_t span(const FilePiece &p) { return p.file < 0 ? 0 : up(p.offset + p.bytes) - down(p.offset); }

} // namespace

ExpertStore::~ExpertStore() {
    for (const File &f : files_) {
        if (f.direct >= 0) close(f.direct);
        if (f.plain >= 0) close(f.plain);
    }
}

int32_t ExpertStore::file(const std::string &path) {
    for (size_t i = 0; i < files_.size(); ++i)
        if (files_[i].path == path) return int32_t(i);
    File f;
    f.path = path;
    f.plain = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (f.plain < 0) throw Error(DSV4_E_DEVICE, "cpu: " + path + ": " + std::strerror(errno), errno);
#ifdef O_DIRECT
    f.direct = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECT); // a file system that cannot is read through the cache
#endif
    files_.push_back(f);
    return int32_t(files_.size() - 1);
}

int64_t ExpertStore::add(const FilePiece (&parts)[pieces]) {
    Expert &e = experts_[next_];
    for (int i = 0; i < pieces; ++i) {
        e.part[i] = parts[i];
        e.at[i] = e.bytes;
        e.bytes += span(parts[i]);
    }
    return next_++;
}

void ExpertStore::remove(int64_t expert) {
    const auto found = experts_.find(expert);
    if (found == experts_.end()) return;
    if (found->second.memory.data()) resident_ -= found->second.bytes;
    experts_.erase(found);
}

int64_t ExpertStore::fitting(const std::vector<int64_t> &wanted, size_t from) const {
    uint64_t sum = 0;
    int64_t n = 0;
    for (size_t i = from; i < wanted.size(); ++i, ++n) {
        sum += experts_.at(wanted[i]).bytes;
        if (budget_ && n && sum > budget_) break;
    }
    return n;
}

void ExpertStore::make_room(uint64_t bytes) {
    while (budget_ && resident_ && resident_ + bytes > budget_) {
        Expert *oldest = nullptr;
        for (auto &[id, e] : experts_)
            if (e.memory.data() && e.used != clock_ && (!oldest || e.used < oldest->used)) oldest = &e;
        if (!oldest) return; // all of it belongs to this step
        oldest->memory = Pages();
        resident_ -= oldest->bytes;
    }
}

void ExpertStore::read(const File &file, uint64_t offset, uint64_t bytes, uint8_t *to) const {
    const uint64_t end = offset + bytes;
    int fd = file.direct >= 0 ? file.direct : file.plain;
    uint64_t at = down(offset);
    while (at < end) {
        const uint64_t most = uint64_t(8) << 20, left = up(end) - at;
        const ssize_t got = pread(fd, to + (at - down(offset)), size_t(left < most ? left : most), off_t(at));
        if (got < 0 && errno == EINTR) continue;
        if (got < 0 && errno == EINVAL && fd == file.direct) { // alignment that this device does not take
            fd = file.plain;
            continue;
        }
        if (got <= 0)
            throw Error(DSV4_E_DEVICE, "cpu: " + file.path + ": reading an expert at offset " + std::to_string(at) + ": " +
                                           (got ? std::strerror(errno) : "the file ends there"), got ? errno : 0);
        at += uint64_t(got);
        if (at < end && at % alignment && fd == file.direct) fd = file.plain; // a short read leaves no aligned place
    }
}

void ExpertStore::acquire(const int64_t *wanted, int64_t count, Pool &pool) {
    ++clock_;
    struct Read {
        const File *file;
        uint64_t offset, bytes;
        uint8_t *to;
    };
    std::vector<Read> reads;
    std::vector<Expert *> fresh;
    for (int64_t i = 0; i < count; ++i) experts_.at(wanted[i]).used = clock_;
    for (int64_t i = 0; i < count; ++i) {
        Expert &e = experts_.at(wanted[i]);
        if (e.memory.data()) {
            ++hits_;
            continue;
        }
        ++misses_;
        make_room(e.bytes);
        e.memory = Pages(e.bytes, "an expert read from disk");
        resident_ += e.bytes;
        fresh.push_back(&e);
        for (int p = 0; p < pieces; ++p)
            if (e.part[p].file >= 0) {
                reads.push_back({&files_[size_t(e.part[p].file)], e.part[p].offset, e.part[p].bytes, e.memory.data() + e.at[p]});
                bytes_read_ += e.part[p].bytes;
            }
    }
    try {
        pool.each(int64_t(reads.size()), [&](int64_t i, int) {
            const Read &r = reads[size_t(i)];
            read(*r.file, r.offset, r.bytes, r.to);
        });
    } catch (...) { // nothing half-read may be taken for an expert
        for (Expert *e : fresh) {
            e->memory = Pages();
            resident_ -= e->bytes;
        }
        throw;
    }
}

const uint8_t *ExpertStore::data(int64_t expert, int piece) const {
    const Expert &e = experts_.at(expert);
    const FilePiece &p = e.part[piece];
    return p.file < 0 ? nullptr : e.memory.data() + e.at[piece] + (p.offset - down(p.offset));
}

} // namespace dsv4::cpu
