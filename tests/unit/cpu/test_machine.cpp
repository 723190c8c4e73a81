// What is read of the machine, from folders that look like its own.
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <sys/mman.h>
#include <unistd.h>
#include "backends/cpu/machine.hpp"
#include "backends/cpu/objects.hpp"
#include "backends/cpu/placement.hpp"
#include "tests/catch.hpp"

using namespace dsv4::cpu;

TEST_CASE("lists of processors", "[machine]") {
    CHECK(parse_cpu_list("0-3,8") == std::vector<int>{0, 1, 2, 3, 8});
    CHECK(parse_cpu_list("5") == std::vector<int>{5});
    CHECK(parse_cpu_list("").empty());
    CHECK(parse_cpu_list("x").empty());
    CHECK(parse_cpu_list("3-1").empty());
    CHECK(parse_cpu_list("0,,2") == std::vector<int>{0});
    CHECK(parse_cpu_list("0-99999999").empty());
}

TEST_CASE("memory nodes cover the processors of this process", "[machine]") {
    size_t here = 0;
    for (const Node &node : memory_nodes()) here += node.processors.size();
    REQUIRE(here > 0);
    const std::vector<int> all = [] {
        std::vector<int> cpus;
        for (const Node &node : memory_nodes("/nowhere"))
            cpus.insert(cpus.end(), node.processors.begin(), node.processors.end());
        return cpus;
    }();
    CHECK(memory_nodes("/nowhere").size() == 1); // a system that tells of none has one
    CHECK(all.size() == here);

    const std::filesystem::path folder =
        std::filesystem::temp_directory_path() / ("dsv4-nodes-" + std::to_string(getpid()));
    std::filesystem::create_directories(folder / "node0");
    std::filesystem::create_directories(folder / "node3");
    const auto write = [&](const char *file, const std::string &text) { std::ofstream(folder / file) << text << "\n"; };
    write("online", "0,3");
    // The first processor on one node, the others with some that are not ours on another.
    std::string rest = "60000";
    for (size_t i = 1; i < all.size(); ++i) rest += "," + std::to_string(all[i]);
    write("node0/cpulist", std::to_string(all[0]));
    write("node3/cpulist", rest);
    const Nodes two = memory_nodes(folder.string());
    REQUIRE(two.size() == (all.size() > 1 ? 2u : 1u));
    CHECK((two[0].id == 0 && two[0].processors == std::vector<int>{all[0]}));
    if (all.size() > 1) CHECK((two[1].id == 3 && two[1].processors == std::vector<int>(all.begin() + 1, all.end())));
    write("node3/cpulist", "60000"); // some of ours are nowhere: not trusted
    if (all.size() > 1) CHECK(memory_nodes(folder.string()).size() == 1);
    std::filesystem::remove_all(folder);
}

TEST_CASE("rows are brought to their node: each part's pages, together all of them", "[placement]") {
    constexpr size_t bytes = 1 << 20;
    const std::string path = std::string(DSV4_BINARY_DIR) + "/placement_test." + std::to_string(getpid());
    std::ofstream(path, std::ios::binary) << std::string(bytes, 'x');
    const int fd = open(path.c_str(), O_RDONLY);
    REQUIRE(fd >= 0);
    auto *data = static_cast<uint8_t *>(mmap(nullptr, bytes, PROT_READ, MAP_SHARED, fd, 0));
    REQUIRE(data != MAP_FAILED);
    std::vector<PageRange> ranges;
    Matrix w = {};
    w.data = data + 100; // aligned to nothing
    w.rows = 500;
    w.row_bytes = 2000;
    for (int part = 0; part < 3; ++part) ranges.push_back(pages_of(w, 0, w.rows, 16, part, 3));
    CHECK(ranges[0].begin == data);
    for (int part = 1; part < 3; ++part) CHECK(ranges[size_t(part)].begin == ranges[size_t(part) - 1].end);
    CHECK(ranges[2].end >= w.data + w.rows * w.row_bytes);
    CHECK(ranges[2].end <= data + bytes);
    for (const PageRange &r : ranges) {
        CHECK(uintptr_t(r.begin) % 4096 == 0);
        bring(r, 0); // node 0 is everywhere
        CHECK(!std::memcmp(r.begin, std::string(size_t(r.end - r.begin), 'x').data(), size_t(r.end - r.begin)));
    }
    munmap(data, bytes);
    close(fd);
    unlink(path.c_str());
}

TEST_CASE("memory that is not there is not promised", "[machine]") {
    const uint64_t available = available_memory();
    REQUIRE(available > 0);
    const auto sum = std::make_shared<uint64_t>(0);
    try {
        const Reservation all(sum, available * 2, "a cache of a test");
        FAIL("twice the memory of this machine was promised");
    } catch (const Error &e) {
        CHECK(e.status == DSV4_E_NO_MEMORY);
        const std::string needed = "a cache of a test needs " + std::to_string(available * 2);
        CHECK(std::string(e.what()).find(needed) != std::string::npos);
        CHECK(std::string(e.what()).find("are available") != std::string::npos);
    }
    CHECK(*sum == 0);
    {
        std::vector<Reservation> many; // none of them too much, all of them together
        CHECK_THROWS_AS([&] {
            for (int i = 0; i < 64; ++i) many.emplace_back(sum, available / 4, "part");
        }(), Error);
        CHECK(many.size() >= 2);
        CHECK(*sum == many.size() * (available / 4));
    }
    CHECK(*sum == 0);
}
