// Reads in the background, by both methods; and the experts that come through them.
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <random>
#include <unistd.h>
#include "backends/cpu/expert_store.hpp"
#include "tests/catch.hpp"

using namespace dsv4::cpu;

namespace {

constexpr uint64_t page = DiskFile::alignment;

/// A file of pseudo-random bytes that goes with the object.
struct Scrap {
    explicit Scrap(size_t bytes) : data(bytes) {
        std::mt19937_64 random(3);
        for (uint8_t &b : data) b = uint8_t(random());
        path = std::string(DSV4_BINARY_DIR) + "/disk_test." + std::to_string(getpid());
        std::ofstream out(path, std::ios::binary);
        out.write(reinterpret_cast<const char *>(data.data()), std::streamsize(bytes));
    }
    ~Scrap() { unlink(path.c_str()); }
    std::string path;
    std::vector<uint8_t> data;
};

/// io_uring only where this kernel lets us.
std::vector<DiskMethod> methods() {
    std::string why_not;
    std::vector<DiskMethod> out = {DiskMethod::THREADS};
    if (open_disk_reader(DiskMethod::URING, why_not)) out.push_back(DiskMethod::URING);
    else WARN("io_uring is not tested here: " << why_not);
    return out;
}

void ignore(int32_t, const std::string &) {}

/// An expert of six pieces that lie in the file one after the other.
int64_t add_expert(ExpertStore &store, int32_t file, uint64_t offset, uint64_t piece) {
    FilePiece parts[ExpertStore::pieces];
    for (int p = 0; p < ExpertStore::pieces; ++p) parts[p] = {file, offset + uint64_t(p) * piece, piece};
    return store.add(parts);
}

bool holds(const ExpertStore &store, int64_t expert, const Scrap &scrap, uint64_t offset, uint64_t piece) {
    for (int p = 0; p < ExpertStore::pieces; ++p)
        if (std::memcmp(store.data(expert, p), scrap.data.data() + offset + uint64_t(p) * piece, piece)) return false;
    return true;
}

} // namespace

TEST_CASE("ranges arrive whole, wherever they begin and end", "[disk]") {
    const Scrap scrap(5'000'003);
    for (const DiskMethod method : methods()) {
        std::string why_not;
        const auto reader = open_disk_reader(method, why_not);
        DiskFile file(scrap.path);
        for (const bool direct : {true, false}) {
            if (!direct) file.direct = (close(file.direct), -1);
            std::mt19937_64 random(11);
            struct Job {
                uint64_t offset, bytes;
                Pages memory;
                DiskRequest request;
            };
            std::vector<Job> jobs(40);
            for (size_t i = 0; i < jobs.size(); ++i) {
                Job &j = jobs[i];
                j.offset = i == 0 ? 0 : random() % scrap.data.size();
                j.bytes = i == 0 ? scrap.data.size() : 1 + random() % (scrap.data.size() - j.offset);
                j.memory = Pages(size_t(DiskFile::up(j.offset + j.bytes) - DiskFile::down(j.offset)), "a test");
            }
            for (Job &j : jobs) reader->read(file, j.offset, j.bytes, j.memory.data(), j.request);
            for (size_t i = jobs.size(); i-- > 0;) { // not in the order in which they were asked for
                reader->wait(jobs[i].request);
                CHECK(jobs[i].request.failure.empty());
                CHECK(!std::memcmp(jobs[i].memory.data() + jobs[i].offset % page, scrap.data.data() + jobs[i].offset,
                                   jobs[i].bytes));
            }
            if (file.direct < 0) break; // no O_DIRECT on this file system: both turns were the same
        }
    }
}

TEST_CASE("what cannot be read says where and why", "[disk]") {
    const Scrap scrap(100'000);
    for (const DiskMethod method : methods()) {
        std::string why_not;
        const auto reader = open_disk_reader(method, why_not);
        const DiskFile file(scrap.path), self("/proc/self/mem"); // whose first pages are not mapped: EIO
        Pages memory(1 << 20, "a test");
        DiskRequest beyond, broken, good;
        reader->read(file, 90'000, 200'000, memory.data(), beyond);
        reader->wait(beyond);
        CHECK(beyond.failure.find("offset 100000") != std::string::npos);
        CHECK(beyond.failure.find("ends") != std::string::npos);
        CHECK(beyond.failure.find(scrap.path) != std::string::npos);
        reader->read(self, 3 * page, 100, memory.data(), broken);
        reader->wait(broken);
        CHECK(broken.native == EIO);
        CHECK(broken.failure.find("offset " + std::to_string(3 * page)) != std::string::npos);
        CHECK(broken.failure.find("/proc/self/mem") != std::string::npos);
        reader->read(file, 5, 1000, memory.data(), good);
        reader->wait(good);
        CHECK(good.failure.empty());
        CHECK(!std::memcmp(memory.data() + 5, scrap.data.data() + 5, 1000));
    }
    CHECK_THROWS_AS(DiskFile("/nowhere/at/all"), Error);
}

TEST_CASE("reads under way when the reader goes are waited for", "[disk]") {
    const Scrap scrap(5'000'000);
    for (const DiskMethod method : methods())
        for (int i = 0; i < 20; ++i) {
            Pages memory(6 << 20, "a test");
            const DiskFile file(scrap.path);
            DiskRequest request;
            std::string why_not;
            const auto reader = open_disk_reader(method, why_not);
            reader->read(file, 0, 5'000'000, memory.data(), request);
            reader->poll();
        }
}

TEST_CASE("experts under a budget: the right bytes, the least recently used given up", "[store]") {
    constexpr uint64_t piece = 3001, each = 6 * piece;
    const Scrap scrap(20 * each + 17);
    for (const DiskMethod method : methods())
        for (const uint64_t budget : {uint64_t(1), uint64_t(200'000), uint64_t(0)}) { // one; a few; all
            ExpertStore store(budget, ignore, method);
            const int32_t file = store.file(scrap.path);
            CHECK(store.file(scrap.path) == file);
            std::vector<int64_t> ids;
            for (uint64_t e = 0; e < 20; ++e) ids.push_back(add_expert(store, file, 17 + e * each, piece));
            std::mt19937 random(5);
            uint64_t uses = 0;
            for (int step = 0; step < 60; ++step) {
                std::vector<int64_t> wanted, soon;
                for (const int64_t id : ids) {
                    if (random() % 3 == 0) wanted.push_back(id);
                    if (random() % 4 == 0) soon.push_back(id);
                }
                if (step % 2) store.expect(soon);
                uses += wanted.size();
                for (size_t from = 0; from < wanted.size();) {
                    const int64_t n = store.acquire(wanted.data() + from, int64_t(wanted.size() - from));
                    REQUIRE(n >= 1);
                    for (int64_t i = 0; i < n; ++i) {
                        const int64_t id = wanted[from + size_t(i)];
                        REQUIRE(holds(store, id, scrap, 17 + uint64_t(id) * each, piece));
                    }
                    from += size_t(n);
                }
            }
            const StoreCounts c = store.counts();
            CHECK(c.held + c.ahead + c.demanded == uses);
            if (budget == 0) CHECK(c.bytes_read == 20 * each); // once and never again
            else CHECK(c.bytes_read > 20 * each);
        }
}

TEST_CASE("what is expected is read before it is asked for, within the budget", "[store]") {
    constexpr uint64_t piece = 3001, each = 6 * piece;
    const Scrap scrap(8 * each);
    for (const DiskMethod method : methods()) {
        ExpertStore store(0, ignore, method);
        const int32_t file = store.file(scrap.path);
        std::vector<int64_t> ids;
        for (uint64_t e = 0; e < 8; ++e) ids.push_back(add_expert(store, file, e * each, piece));
        store.expect(ids);
        CHECK(store.counts().bytes_read == 8 * each);
        for (size_t from = 0; from < 8;) from += size_t(store.acquire(ids.data() + from, int64_t(8 - from)));
        CHECK(store.counts().ahead == 8);
        CHECK(store.counts().demanded == 0);

        ExpertStore two(2 * 12 * page, ignore, method); // two experts: each piece touches two pages
        const int32_t again = two.file(scrap.path);
        for (uint64_t e = 0; e < 8; ++e) ids[size_t(e)] = add_expert(two, again, e * each, piece);
        two.expect(ids);
        CHECK(two.counts().bytes_read < 8 * each); // those that fit
        for (size_t from = 0; from < 8;) {
            const int64_t n = two.acquire(ids.data() + from, 1);
            REQUIRE(holds(two, ids[from], scrap, from * each, piece));
            from += size_t(n);
        }
        CHECK(two.counts().ahead >= 4); // the others followed as room appeared
        for (size_t e = 0; e < 4; ++e) two.remove(ids[e]);
        CHECK(two.acquire(ids.data() + 5, 1) == 1);
        CHECK(holds(two, ids[5], scrap, 5 * each, piece));
    }
}

TEST_CASE("a read ahead that fails is an error only when the expert is needed", "[store]") {
    constexpr uint64_t piece = 3001, each = 6 * piece;
    Scrap scrap(4 * each);
    for (const DiskMethod method : methods()) {
        ExpertStore store(0, ignore, method);
        const int32_t file = store.file(scrap.path);
        std::vector<int64_t> ids;
        for (uint64_t e = 0; e < 5; ++e) ids.push_back(add_expert(store, file, e * each, piece)); // the last: not there
        store.expect(ids);
        CHECK(store.acquire(ids.data(), 1) == 1);
        for (int again = 0; again < 2; ++again) try {
                store.acquire(ids.data() + 4, 1);
                FAIL("bytes that are not there were read");
            } catch (const Error &e) {
                CHECK(e.status == DSV4_E_DEVICE);
                CHECK(std::string(e.what()).find("offset") != std::string::npos);
                CHECK(std::string(e.what()).find(scrap.path) != std::string::npos);
            }
        CHECK(store.acquire(ids.data() + 1, 1) == 1);
        CHECK(holds(store, ids[1], scrap, each, piece));
    }
}

TEST_CASE("a budget beyond the machine is cut, and said", "[store]") {
    std::vector<std::string> lines;
    const ExpertStore store(uint64_t(1) << 60, [&](int32_t level, const std::string &line) {
        CHECK(level == 1);
        lines.push_back(line);
    });
    REQUIRE(lines.size() == 1);
    CHECK(lines[0].find("cut") != std::string::npos);
    CHECK(store.budget() < uint64_t(1) << 60);
}
