#include "tests/catch.hpp"
#include "tests/unit/hpp/fixture.hpp"
#include "tests/unit/hpp/tokenizer_file.hpp"

using Ids = std::vector<std::int32_t>;

namespace {

/// A checkpoint with a tokenizer, of random weights.
struct Texts {
    dsv4::test::TempDir folder;
    dsv4::Runtime runtime;
    dsv4::Model model;

    Texts() : model(load()) {}

    dsv4::Model load() {
        auto config = dsv4::test::tiny_config();
        config["vocab_size"] = 512;
        dsv4::test::TestModel files = dsv4::test::make_model(config);
        files.fill(3);
        dsv4::test::save(files, folder.path());
        dsv4::test::write_file(folder / "tokenizer.json", small_tokenizer_json());
        return runtime.load(folder.path(), Tiny::reference());
    }
};

} // namespace

TEST_CASE("dsv4.hpp: tokenizer there and back") {
    dsv4::test::TempDir folder;
    dsv4::test::write_file(folder / "tokenizer.json", small_tokenizer_json());
    const dsv4::Tokenizer tokenizer = dsv4::Tokenizer::load(folder.path());
    const std::string text = "the quick dog — \xE4\xBD\xA0\xE5\xA5\xBD \xF0\x9F\x98\x80, and then 12345";
    const Ids ids = tokenizer.encode(text);
    CHECK(tokenizer.decode(ids) == text);
    CHECK(tokenizer.decode({}).empty());
    CHECK(tokenizer.encode("").empty());
    // Rare characters: more tokens than the first guess of encode() holds.
    std::string rare;
    for (int i = 0; i < 200; ++i) rare += "\xE9\xBE\x98";
    CHECK(tokenizer.encode(rare).size() > rare.size() / 2 + 8);
    CHECK(tokenizer.decode(tokenizer.encode(rare)) == rare);

    const std::int32_t user = tokenizer.find("<｜User｜>");
    CHECK(tokenizer.token(user) == "<｜User｜>");
    CHECK(static_cast<std::size_t>(user) < tokenizer.size());
    CHECK(tokenizer.encode("<｜User｜>") == Ids{user});
    CHECK(tokenizer.encode("<｜User｜>", DSV4_ENCODE_ORDINARY).size() > 1);
    CHECK(thrown([&] { tokenizer.find("no such token"); }) == DSV4_E_INVALID);
    CHECK(thrown([&] { tokenizer.encode("\xFF"); }) == DSV4_E_INVALID);
    CHECK(thrown([&] { dsv4::Tokenizer::load("/nowhere/at/all"); }) < 0);

    dsv4::Decoder decoder(tokenizer);
    std::string pieces;
    for (const std::int32_t id : ids) {
        const std::string_view piece = decoder.push(id);
        CHECK((piece.empty() || (piece[0] & 0xC0) != 0x80)); // starts with a whole code point
        pieces += piece;
    }
    pieces += decoder.finish();
    CHECK(pieces == text);
}

TEST_CASE("dsv4.hpp: a prompt is what its JSON is") {
    dsv4::Prompt built;
    built.system("Be brief.").user("Hello").assistant("Hi").user("Again");
    const dsv4::Prompt read = dsv4::Prompt::from_json(
        R"([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"},
            {"role": "assistant", "content": "Hi"}, {"role": "user", "content": "Again"}])");
    CHECK(built.render() == read.render());
    CHECK(built.render().find("<｜User｜>Hello<｜Assistant｜>") != std::string::npos);
    dsv4::PromptOptions thinking;
    thinking.flags = DSV4_PROMPT_THINKING;
    dsv4::Prompt other(thinking);
    other.user("Hello");
    CHECK(other.render().find("<think>") != std::string::npos);
    CHECK(thrown([&] { built.message("not JSON"); }) == DSV4_E_INVALID);
    CHECK(thrown([&] { dsv4::Prompt::from_json("{"); }) == DSV4_E_INVALID);
    CHECK(dsv4::parse_completion("Hello<｜end▁of▁sentence｜>").find("\"Hello\"") != std::string::npos);
}

TEST_CASE("dsv4.hpp: a conversation goes on where it was") {
    Texts texts;
    dsv4::Session session = texts.model.session();
    dsv4::Prompt prompt;
    prompt.user("the fox");
    std::string streamed, message;
    for (const dsv4::Event &event : session.generate(prompt, Tiny::tokens(6))) {
        if (event.kind == DSV4_EVENT_TEXT) streamed += dsv4::view(event.text);
        if (event.kind == DSV4_EVENT_DONE) message = dsv4::view(event.text);
    }
    REQUIRE(message.find("\"assistant\"") != std::string::npos);
    prompt.message(message).user("and the dog?");
    const auto [held, total] = session.match(prompt);
    CHECK(held > 0);
    CHECK(held < total);
    for (const dsv4::Event &event : session.generate(prompt, Tiny::tokens(2)))
        if (event.kind == DSV4_EVENT_DONE) CHECK(event.cached_tokens > 0);

    std::string completed;
    for (const dsv4::Event &event : texts.model.session().complete("the quick brown", Tiny::tokens(5)))
        if (event.kind == DSV4_EVENT_TEXT) completed += dsv4::view(event.text);
    const dsv4::Tokenizer tokenizer = texts.model.tokenizer();
    CHECK(tokenizer.encode("the quick brown") == dsv4::Tokenizer::load(texts.folder.path()).encode("the quick brown"));
}
