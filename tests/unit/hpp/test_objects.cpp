#include "tests/catch.hpp"
#include "tests/unit/hpp/fixture.hpp"

TEST_CASE("dsv4.hpp: the runtime says which backends there are") {
    dsv4::Runtime runtime;
    CHECK(runtime.backends().find("\"reference\"") != std::string::npos);
    CHECK(dsv4::version() == DSV4_VERSION);
}

TEST_CASE("dsv4.hpp: the log hears of a plugin that cannot be loaded, and may throw") {
    dsv4::test::TempDir folder;
    dsv4::test::write_file(folder / "dsv4-broken.json", "{");
    dsv4::RuntimeOptions options;
    options.plugin_dir = folder.path();
    std::string heard;
    options.log = [&](std::int32_t level, std::string_view line) {
        if (level == DSV4_LOG_WARNING) heard += line;
        throw std::runtime_error("a log that fails");
    };
    dsv4::Runtime runtime(options);
    CHECK(heard.find("dsv4-broken.json") != std::string::npos);
    CHECK(runtime.backends().find("dsv4-broken.json") != std::string::npos);

    dsv4::Runtime moved(std::move(runtime));
    runtime = dsv4::Runtime();
    CHECK(moved.backends().find("dsv4-broken.json") != std::string::npos);
}

TEST_CASE("dsv4.hpp: errors carry status and message") {
    dsv4::Runtime runtime;
    try {
        runtime.load("/nowhere/at/all");
        FAIL("a folder that is not there was loaded");
    } catch (const dsv4::Error &error) {
        CHECK(error.status() == DSV4_E_MODEL);
        CHECK(std::string(error.what()).find("/nowhere/at/all") != std::string::npos);
    }
    CHECK(thrown([&] { runtime.plan("/nowhere/at/all"); }) == DSV4_E_MODEL);
}

TEST_CASE("dsv4.hpp: model info and plan") {
    Tiny tiny;
    const dsv4::ModelInfo info = tiny.model.info();
    CHECK(info.vocab_size == 96);
    CHECK(info.layers == 6);
    CHECK(dsv4::view(info.backend) == "reference");

    dsv4::test::TempDir checkpoint;
    dsv4::test::TestModel files = dsv4::test::make_model(dsv4::test::tiny_config());
    files.fill(1);
    dsv4::test::save(files, checkpoint.path());
    CHECK(tiny.runtime.plan(checkpoint.path()).find("reference") != std::string::npos);
}

TEST_CASE("dsv4.hpp: progress is told, stops, and throws through the load") {
    dsv4::Runtime runtime;
    dsv4::test::TempDir folder;
    dsv4::test::TestModel files = dsv4::test::make_model(dsv4::test::tiny_config());
    files.fill(1);
    dsv4::test::save(files, folder.path());
    std::uint64_t last = 0, total = 0;
    runtime.load(folder.path(), Tiny::reference(), [&](std::uint64_t done, std::uint64_t all) {
        CHECK(done >= last);
        last = done;
        total = all;
    });
    CHECK(total > 0);
    CHECK(last == total);
    CHECK(thrown([&] { runtime.load(folder.path(), Tiny::reference(), [](auto, auto) { return true; }); }) ==
          DSV4_E_CANCELLED);
    struct Mine {};
    CHECK_THROWS_AS(runtime.load(folder.path(), Tiny::reference(), [](auto, auto) { throw Mine(); }), Mine);
}

TEST_CASE("dsv4.hpp: children keep what they need alive") {
    dsv4::test::TempDir folder;
    auto runtime = std::make_unique<dsv4::Runtime>();
    auto model = std::make_unique<dsv4::Model>(runtime->load(dsv4::test::synthetic_model(folder), Tiny::reference()));
    auto session = std::make_unique<dsv4::Session>(model->session());
    dsv4::Stream stream = session->generate({5, 17}, Tiny::tokens(4));
    runtime.reset();
    model.reset();
    session.reset();
    CHECK(Tiny::collect(std::move(stream)).size() == 4);
}
