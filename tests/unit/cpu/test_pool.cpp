// Parts of a job: each of them once, whoever is late.
#include <chrono>
#include <stdexcept>
#include <thread>
#include <vector>
#include "backends/cpu/pool.hpp"
#include "tests/catch.hpp"

using namespace dsv4::cpu;

TEST_CASE("every part runs exactly once, in every round", "[pool]") {
    for (const int threads : {1, 2, 3, 7}) {
        Pool pool(threads, {}, 64);
        std::vector<int> ran(size_t(threads), 0); // no atomics: parts of one round are ordered before the next
        constexpr int rounds = 20000;
        for (int r = 0; r < rounds; ++r) {
            // Sleeping workers come late, or rounds later, and must not take a part twice.
            if (r % 5000 == 4999) std::this_thread::sleep_for(std::chrono::milliseconds(1));
            pool.run([&](int part) { ++ran[size_t(part)]; });
        }
        for (const int n : ran) CHECK(n == rounds);
    }
}

TEST_CASE("a caller does not wait for threads that do not come", "[pool]") {
    Pool pool(4, {}, 64);
    std::vector<std::thread::id> who(4);
    // Whoever takes a part, all of them are done when run() returns, and part 0 is the caller's.
    for (int r = 0; r < 200; ++r) {
        for (auto &id : who) id = {};
        pool.run([&](int part) { who[size_t(part)] = std::this_thread::get_id(); });
        CHECK(who[0] == std::this_thread::get_id());
        for (const auto &id : who) CHECK(id != std::thread::id());
    }
}

TEST_CASE("items are shared out, each once; scratch is one part's own", "[pool]") {
    Pool pool(3, {}, 4096);
    std::vector<int> ran(1000, 0);
    pool.each(1000, [&](int64_t item, int part) {
        auto *scratch = static_cast<int64_t *>(pool.scratch(part));
        *scratch = item;
        for (int spin = 0; spin < 50; ++spin)
            if (*static_cast<volatile int64_t *>(scratch) != item) return; // somebody else writes here
        ++ran[size_t(item)];
    });
    for (const int n : ran) CHECK(n == 1);
}

TEST_CASE("an exception of any part reaches the caller, and the pool goes on", "[pool]") {
    Pool pool(3, {}, 64);
    for (int bad = 0; bad < 3; ++bad) {
        CHECK_THROWS_AS(pool.run([&](int part) {
            if (part == bad) throw std::runtime_error("part");
        }), std::runtime_error);
        int ran[3] = {};
        pool.run([&](int part) { ++ran[part]; });
        CHECK((ran[0] == 1 && ran[1] == 1 && ran[2] == 1));
    }
}

TEST_CASE("rows are always the same part's", "[pool]") {
    for (const int parts : {1, 2, 5, 64})
        for (const int32_t rows : {1, 16, 100, 2048}) {
            int32_t next = 0;
            for (int i = 0; i < parts; ++i) {
                const Range r = split(0, rows, 16, i, parts);
                CHECK(r.begin == next);
                CHECK(r.end >= r.begin);
                next = r.end;
            }
            CHECK(next == rows);
        }
}
