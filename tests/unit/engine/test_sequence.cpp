// Slots and blocks, and what cutting a sequence back costs.
#include <algorithm>

#include "core/engine/sequence.hpp"
#include "tests/catch.hpp"

using namespace dsv4;

namespace {

Capacity capacity(int32_t slots, int32_t blocks) {
    Capacity c{};
    c.cache.slots = slots;
    c.cache.blocks = blocks;
    return c;
}

Sequence sequence(int32_t computed, int32_t written, size_t tokens) {
    Sequence q;
    q.tokens.assign(tokens, 1);
    q.computed = computed;
    q.written = written;
    return q;
}

} // namespace

TEST_CASE("slots are handed out once and come back", "[engine]") {
    CachePool pool(capacity(2, 0));
    const int32_t a = pool.take_slot(), b = pool.take_slot();
    CHECK(a != b);
    CHECK(pool.take_slot() == -1);
    pool.give_slot(a);
    CHECK(pool.take_slot() == a);
    CHECK(pool.take_slot() == -1);
}

TEST_CASE("blocks grow all or nothing and shrink to what is asked", "[engine]") {
    CachePool pool(capacity(1, 5));
    std::vector<int32_t> a, b;
    REQUIRE(pool.grow(a, 3));
    CHECK(a.size() == 3);
    CHECK(pool.blocks_left() == 2);
    CHECK_FALSE(pool.grow(b, 3));
    CHECK(b.empty());
    CHECK(pool.blocks_left() == 2);
    CHECK(pool.grow(a, 2));  // has them
    CHECK(a.size() == 3);
    const auto kept = a[0];
    pool.shrink(a, 1);
    CHECK(a == std::vector<int32_t>{kept});
    CHECK(pool.grow(b, 4));
    CHECK(std::find(b.begin(), b.end(), kept) == b.end());
    pool.shrink(a, 0);
    pool.shrink(b, 0);
    CHECK(pool.blocks_left() == 5);
}

TEST_CASE("cutting back within the rings keeps what is computed, further does not", "[engine]") {
    constexpr int32_t reach = 16;
    SECTION("to the last row that the rings hold") {
        auto q = sequence(100, 100, 100);
        q.truncate(84, reach);
        CHECK(q.tokens.size() == 84);
        CHECK(q.computed == 84);
        CHECK(q.written == 100);
    }
    SECTION("one further") {
        auto q = sequence(100, 100, 100);
        q.truncate(83, reach);
        CHECK(q.tokens.size() == 83);
        CHECK(q.computed == 0);
        CHECK(q.written == 0);
    }
    SECTION("in two steps: rows written before still count") {
        auto q = sequence(100, 100, 100);
        q.truncate(90, reach);
        q.truncate(84, reach);
        CHECK(q.computed == 84);
        q.truncate(83, reach);
        CHECK(q.computed == 0);
    }
    SECTION("tokens that were never computed cost nothing") {
        auto q = sequence(40, 40, 100);
        q.truncate(40, reach);
        CHECK(q.computed == 40);
    }
    SECTION("everything") {
        auto q = sequence(10, 10, 10);
        q.truncate(0, reach);
        CHECK(q.tokens.empty());
        CHECK(q.computed == 0);
    }
}
