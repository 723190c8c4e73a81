// The threading contract of dsv4.h, through the wrappers; run under TSan too.
#include "tests/catch.hpp"
#include "tests/unit/hpp/fixture.hpp"
#include <atomic>
#include <thread>

using Ids = std::vector<std::int32_t>;

TEST_CASE("dsv4.hpp: sessions of one model on threads of their own do not change each other's text") {
    Tiny tiny;
    const std::vector<Ids> prompts = {{5, 17, 3}, {40, 41, 42, 43, 44, 45, 46}, {9}};
    std::vector<Ids> alone, together(prompts.size());
    for (const Ids &prompt : prompts)
        alone.push_back(Tiny::collect(tiny.model.session().generate(prompt, Tiny::tokens(10))));
    std::vector<std::thread> threads;
    for (std::size_t i = 0; i < prompts.size(); ++i)
        threads.emplace_back([&, i] {
            dsv4::Session session = tiny.model.session();
            together[i] = Tiny::collect(session.generate(prompts[i], Tiny::tokens(10)));
        });
    for (std::thread &thread : threads) thread.join();
    CHECK(together == alone);
}

TEST_CASE("dsv4.hpp: cancelled from another thread, looked at from a third") {
    Tiny tiny;
    dsv4::Session session = tiny.model.session();
    dsv4::Cancel cancel;
    std::atomic<bool> started{false};
    std::thread canceller([&started, cancel] {
        while (!started) std::this_thread::yield();
        cancel.now();
    });
    std::thread watcher([&] {
        while (!cancel.is_set()) session.tokens(); // const: allowed while the stream runs
    });
    dsv4_status status = 0;
    {
        dsv4::Stream stream = session.generate({5, 17}, Tiny::tokens(900), cancel);
        status = thrown([&] {
            dsv4::Event event;
            while (stream.next(event))
                if (event.kind == DSV4_EVENT_TOKEN) started = true;
        });
        started = true;
    }
    canceller.join();
    watcher.join();
    CHECK(status == DSV4_E_CANCELLED);
}

TEST_CASE("dsv4.hpp: a stream moves to another thread and is released there") {
    Tiny tiny;
    dsv4::Session session = tiny.model.session();
    Ids ids;
    std::thread([&, stream = session.generate({5}, Tiny::tokens(5))]() mutable {
        ids = Tiny::collect(std::move(stream));
    }).join();
    CHECK(ids.size() == 5);
    CHECK(session.tokens().size() == 6);
}
