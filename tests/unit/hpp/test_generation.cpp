#include "tests/catch.hpp"
#include "tests/unit/hpp/fixture.hpp"
#include <algorithm>
#include <thread>

using Ids = std::vector<std::int32_t>;

TEST_CASE("dsv4.hpp: a stream gives what dsv4_generate gives") {
    Tiny tiny;
    const Ids prompt = {5, 17, 3, 29, 11};
    dsv4::GenerateOptions options = Tiny::tokens(12);
    options.temperature = 0.9f;
    options.seed = 42;

    dsv4::Session session = tiny.model.session();
    Ids ids;
    std::uint32_t done = 0;
    for (const dsv4::Event &event : session.generate(prompt, options)) {
        CHECK(done == 0);
        if (event.kind == DSV4_EVENT_TOKEN) ids.push_back(event.token);
        if (event.kind == DSV4_EVENT_DONE) {
            ++done;
            CHECK(event.finish == DSV4_FINISH_LENGTH);
            CHECK(event.seed == 42);
            CHECK(event.prefilled_tokens == prompt.size());
            CHECK(event.output_tokens == 12);
        }
    }
    CHECK(done == 1);
    REQUIRE(ids.size() == 12);
    Ids all = prompt;
    all.insert(all.end(), ids.begin(), ids.end());
    CHECK(session.tokens() == all);

    dsv4::Session plain = tiny.model.session();
    Ids expected;
    options.ids = prompt.data();
    options.id_count = prompt.size();
    const auto push = [](void *out, const dsv4_event *event) -> std::int32_t {
        if (event->kind == DSV4_EVENT_TOKEN) static_cast<Ids *>(out)->push_back(event->token);
        return 0;
    };
    REQUIRE(dsv4_generate(plain.get(), &options, nullptr, push, &expected, nullptr) == DSV4_OK);
    CHECK(ids == expected);
}

TEST_CASE("dsv4.hpp: poll never waits and reaches the same end") {
    Tiny tiny;
    dsv4::Session session = tiny.model.session();
    const Ids expected = Tiny::collect(session.generate({5, 17, 3}, Tiny::tokens(8)));
    session.truncate(0);
    dsv4::Stream stream = session.generate({5, 17, 3}, Tiny::tokens(8));
    Ids ids;
    dsv4::Event event;
    for (;;) {
        const dsv4::Stream::Poll found = stream.poll(event);
        if (found == dsv4::Stream::Poll::Ended) break;
        if (found == dsv4::Stream::Poll::Pending) std::this_thread::yield();
        else if (event.kind == DSV4_EVENT_TOKEN) ids.push_back(event.token);
    }
    CHECK(ids == expected);
    CHECK(stream.poll(event) == dsv4::Stream::Poll::Ended);
    CHECK_FALSE(stream.next(event));
}

TEST_CASE("dsv4.hpp: sampling the largest logit oneself is greedy generation") {
    Tiny tiny;
    dsv4::Session session = tiny.model.session();
    const Ids expected = Tiny::collect(session.generate({5, 17, 3}, Tiny::tokens(6)));
    dsv4::Session mine = tiny.model.session();
    Ids ids, next = {5, 17, 3};
    for (int i = 0; i < 6; ++i) {
        const std::vector<float> logits = mine.logits(next);
        REQUIRE(logits.size() == 96);
        next = {static_cast<std::int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin())};
        ids.push_back(next[0]);
    }
    CHECK(ids == expected);
}

TEST_CASE("dsv4.hpp: evaluate hands out the rows asked for, stops and throws") {
    Tiny tiny;
    dsv4::Session session = tiny.model.session();
    dsv4::EvaluateOptions all;
    all.flags = DSV4_EVALUATE_ALL;
    std::vector<std::uint32_t> positions;
    session.evaluate({1, 2, 3, 4}, all, [&](std::uint32_t position, std::int32_t kind, dsv4::Span<const float> logits) {
        CHECK(kind == DSV4_LOGITS_NEXT);
        CHECK(logits.size() == 96);
        positions.push_back(position);
    });
    CHECK(positions == std::vector<std::uint32_t>{0, 1, 2, 3});

    positions.clear();
    session.truncate(0);
    session.evaluate({1, 2, 3, 4}, all, [&](std::uint32_t position, std::int32_t, dsv4::Span<const float>) {
        positions.push_back(position);
        return position == 1;
    });
    CHECK(positions == std::vector<std::uint32_t>{0, 1});

    struct Mine {};
    session.truncate(0);
    CHECK_THROWS_AS(
        session.evaluate({1, 2}, all, [](std::uint32_t, std::int32_t, dsv4::Span<const float>) { throw Mine(); }),
        Mine);
    session.truncate(0);
    CHECK(session.logits({1, 2}).size() == 96);
}

TEST_CASE("dsv4.hpp: one stream at a time, and a dropped one frees the session") {
    Tiny tiny;
    dsv4::Session session = tiny.model.session();
    {
        dsv4::Stream stream = session.generate({5}, Tiny::tokens(50));
        CHECK(thrown([&] { session.generate({5}); }) == DSV4_E_INVALID);
        dsv4::Event event;
        while (stream.next(event) && event.kind != DSV4_EVENT_TOKEN) {
        }
    }
    CHECK(session.tokens().size() == 2); // the prompt and the one token that was handed out
    CHECK(Tiny::collect(session.generate({5}, Tiny::tokens(3))).size() == 3);
}

TEST_CASE("dsv4.hpp: cancel is sticky, and copies are one token") {
    Tiny tiny;
    dsv4::Session session = tiny.model.session();
    dsv4::Cancel cancel;
    const dsv4::Cancel copy = cancel;
    dsv4::Stream stream = session.generate({5, 17}, Tiny::tokens(200), cancel);
    dsv4::Event event;
    REQUIRE(stream.next(event));
    copy.now();
    CHECK(cancel.is_set());
    CHECK(thrown([&] {
              while (stream.next(event)) {
              }
          }) == DSV4_E_CANCELLED);
    stream = dsv4::Stream(std::move(stream));
    CHECK(thrown([&] { stream.next(event); }) == DSV4_E_CANCELLED);
    { const dsv4::Stream gone = std::move(stream); }
    CHECK(thrown([&] { session.generate({5}, {}, cancel); }) == DSV4_E_CANCELLED);
    CHECK(thrown([&] { session.evaluate({5}, {}, cancel, [](auto, auto, auto) {}); }) == DSV4_E_CANCELLED);
}

TEST_CASE("dsv4.hpp: a bad prompt is an error and the session goes on") {
    Tiny tiny;
    dsv4::Session session = tiny.model.session();
    CHECK(thrown([&] { session.generate({96}); }) == DSV4_E_INVALID);
    CHECK(thrown([&] { session.generate({-1}); }) == DSV4_E_INVALID);
    CHECK(thrown([&] { session.generate(Ids()); }) == DSV4_E_INVALID);
    CHECK(thrown([&] { session.truncate(1); }) == DSV4_E_INVALID);
    CHECK(Tiny::collect(session.generate({95}, Tiny::tokens(2))).size() == 2);
}
