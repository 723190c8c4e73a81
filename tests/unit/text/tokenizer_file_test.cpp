// Damaged and foreign tokenizer.json files: always an Error, soon, and with little memory.
#include "core/error.hpp"
#include "core/text/tokenizer.hpp"
#include "tests/catch.hpp"
#include "tests/unit/text/train_bpe.hpp"
#include <cstdlib>
#include <functional>
#include <memory>

using namespace dsv4;
using test::object;
using test::text;

namespace {

const test::TrainedBpe &small() {
    static const test::TrainedBpe bpe = test::train_bpe("the cat and the hat and the cat sat and the hat sat", 20);
    return bpe;
}

struct Verdict {
    dsv4_status status;
    std::string message;
};

Verdict load(std::string_view json) {
    try {
        Tokenizer::from_json(json, "t.json");
    } catch (const Error &e) {
        return {e.status, e.what()};
    }
    return {DSV4_OK, ""};
}

JsonValue member(const JsonValue &value, const char *key) { return *value.find(key); }

/// Loads the good file after `change` has been at its model.
Verdict with_model(const std::function<void(JsonValue &)> &change) {
    JsonValue file = test::tokenizer_file(small(), {"<s>", "<x>"});
    JsonValue model = member(file, "model");
    change(model);
    file.set("model", model);
    return load(dump_python_json(file));
}

Verdict with(const char *key, JsonValue value) {
    JsonValue file = test::tokenizer_file(small(), {"<s>", "<x>"});
    file.set(key, std::move(value));
    return load(dump_python_json(file));
}

void check(const Verdict &verdict, dsv4_status status, const std::string &part) {
    CAPTURE(verdict.message, part);
    CHECK(verdict.status == status);
    CHECK(verdict.message.rfind("t.json", 0) == 0);
    CHECK(verdict.message.find(part) != std::string::npos);
}

JsonValue integer(int64_t value) { return JsonValue::make_integer(value); }

JsonValue added_list(std::vector<JsonValue> tokens) {
    JsonValue list = JsonValue::make_array();
    for (JsonValue &token : tokens) list.push_back(std::move(token));
    return list;
}

} // namespace

TEST_CASE("every cut of a file is an error") {
    const std::string good = test::train_tokenizer_json("the cat and the hat", 5, {"<s>"});
    REQUIRE(load(good).status == DSV4_OK);
    for (size_t cut = 0; cut < good.size(); cut += cut < 200 ? 1 : 61)
        check(load(good.substr(0, cut)), DSV4_E_MODEL, "expected");
}

TEST_CASE("what is no tokenizer at all") {
    check(load(""), DSV4_E_MODEL, "expected a JSON value at byte 0");
    check(load("[]"), DSV4_E_MODEL, "expected a JSON object");
    check(load("{}"), DSV4_E_MODEL, "no \"model\"");
    check(load(std::string(100'000, '[')), DSV4_E_MODEL, "at most 1000");
    check(load("{\"model\": " + std::string(10'000, '[') + std::string(10'000, ']') + "}"), DSV4_E_MODEL,
          "at most 1000");
    check(load("{\"a\": \"\xFF\"}"), DSV4_E_MODEL, "valid UTF-8");
}

TEST_CASE("a file beyond the limit is refused unread") {
    // Never touched, so never in memory.
    const size_t size = (size_t{256} << 20) + 1;
    const std::unique_ptr<void, void (*)(void *)> pages(std::calloc(size, 1), std::free);
    REQUIRE(pages);
    check(load({static_cast<const char *>(pages.get()), size}), DSV4_E_MODEL, "expected at most 268435456 bytes");
}

/// A merge makes a longer token of two, so no order of them goes in circles: a later one may make an earlier one's parts.
TEST_CASE("merges in any order load, and encoding ends") {
    JsonValue file = test::tokenizer_file(small(), {"<s>", "<x>"}), model = member(file, "model");
    const std::vector<JsonValue> given = member(model, "merges").items();
    JsonValue merges = JsonValue::make_array();
    for (size_t round = 0; round < 2; ++round)
        for (size_t i = given.size(); i-- > 0;) merges.push_back(given[i]);
    model.set("merges", merges);
    file.set("model", model);
    const Tokenizer tokenizer = Tokenizer::from_json(dump_python_json(file), "t.json");
    std::string long_text;
    while (long_text.size() < 100'000) long_text += "the cat and the hat sat";
    CHECK(tokenizer.decode(tokenizer.encode(long_text)) == long_text);
}

TEST_CASE("vocabularies that contradict themselves") {
    check(with_model([](JsonValue &m) { m.set("vocab", JsonValue::make_array()); }), DSV4_E_MODEL, "model.vocab");
    check(with_model([](JsonValue &m) { m.set("vocab", JsonValue::make_object()); }), DSV4_E_MODEL,
          "no token for byte 0");
    const auto with_entry = [](const char *key, JsonValue id) {
        return with_model([&](JsonValue &m) {
            JsonValue vocab = member(m, "vocab");
            vocab.set(key, std::move(id));
            m.set("vocab", vocab);
        });
    };
    check(with_entry("zz", integer(5)), DSV4_E_MODEL, "id 5 is already used");
    check(with_entry("zz", integer(-1)), DSV4_E_MODEL, "expected an id");
    check(with_entry("zz", integer(INT64_MAX)), DSV4_E_MODEL, "expected an id");
    check(with_entry("zz", integer(400'000'000)), DSV4_E_MODEL, "expected an id");
    check(with_entry("zz", text("7")), DSV4_E_MODEL, "expected an id");
    check(with_entry("zz", parse_python_json("1.5", "t")), DSV4_E_MODEL, "expected an id");
    check(with_entry("zz", parse_python_json("123456789012345678901234567890", "t")), DSV4_E_MODEL, "expected an id");
    CHECK(with_entry("zz", integer(900)).status == DSV4_OK); // a gap in the ids is not a contradiction
}

TEST_CASE("merges of unknown tokens, or that are no merges") {
    const auto with_merge = [](JsonValue merge) {
        return with_model([&](JsonValue &m) {
            JsonValue merges = member(m, "merges");
            merges.push_back(std::move(merge));
            m.set("merges", merges);
        });
    };
    const auto pair = [](const char *left, const char *right) {
        JsonValue list = JsonValue::make_array();
        list.push_back(text(left));
        list.push_back(text(right));
        return list;
    };
    check(with_merge(text("zz a")), DSV4_E_MODEL, "\"zz\" is not in model.vocab");
    check(with_merge(text("z z")), DSV4_E_MODEL, "\"zz\" is not in model.vocab");
    check(with_merge(text("a")), DSV4_E_MODEL, "expected two tokens");
    check(with_merge(text("a b c")), DSV4_E_MODEL, "expected two tokens");
    check(with_merge(text(" ")), DSV4_E_MODEL, "expected two tokens");
    check(with_merge(integer(3)), DSV4_E_MODEL, "expected two tokens");
    check(with_merge(pair("t", "")), DSV4_E_MODEL, "expected two tokens");
    CHECK(with_merge(pair(small().merges[0].first.c_str(), small().merges[0].second.c_str())).status == DSV4_OK);
    check(with_model([](JsonValue &m) { m.set("merges", JsonValue()); }), DSV4_E_MODEL, "model.merges");
}

TEST_CASE("added tokens that contradict the vocabulary") {
    const auto token = [](int64_t id, const char *content) {
        return object({{"id", integer(id)}, {"content", text(content)}});
    };
    check(with("added_tokens", integer(1)), DSV4_E_MODEL, "expected an array");
    check(with("added_tokens", added_list({integer(1)})), DSV4_E_MODEL, "expected an object");
    check(with("added_tokens", added_list({token(900, "")})), DSV4_E_MODEL, "expected a text");
    check(with("added_tokens", added_list({token(5, "<y>")})), DSV4_E_MODEL, "id 5 is already used");
    check(with("added_tokens", added_list({token(900, "<y>"), token(900, "<z>")})), DSV4_E_MODEL,
          "id 900 is already used");
    check(with("added_tokens", added_list({token(900, "<y>"), token(901, "<y>")})), DSV4_E_MODEL, "is that of id 900");
    check(with("added_tokens", added_list({token(900, "the")})), DSV4_E_MODEL, "in model.vocab");
    check(with("added_tokens", added_list({token(int64_t{1} << 40, "<y>")})), DSV4_E_MODEL, "expected an id");
    check(with("added_tokens", added_list({object({{"id", integer(900)}})})), DSV4_E_MODEL, "no \"content\"");
    check(with("added_tokens",
               added_list(
                   {object({{"id", integer(900)}, {"content", text("<y>")}, {"lstrip", JsonValue::make_bool(true)}})})),
          DSV4_E_UNSUPPORTED, "lstrip");
    // encode_ordinary promises that text cannot spell an added token; a merge or a byte could.
    const Tokenizer good = Tokenizer::from_json(dump_python_json(test::tokenizer_file(small(), {})));
    check(with("added_tokens", added_list({token(good.find_token("the"), "the")})), DSV4_E_UNSUPPORTED,
          "makes the added token");
    check(with("added_tokens", added_list({token(good.find_token("t"), "t")})), DSV4_E_UNSUPPORTED, "single byte");
}

TEST_CASE("other kinds of tokenizers are refused, not approximated") {
    for (const char *type : {"WordPiece", "Unigram", "WordLevel"})
        check(with_model([&](JsonValue &m) { m.set("type", text(type)); }), DSV4_E_UNSUPPORTED, type);
    check(with_model([](JsonValue &m) { m.set("byte_fallback", JsonValue::make_bool(true)); }), DSV4_E_UNSUPPORTED,
          "byte_fallback");
    check(with_model([](JsonValue &m) { m.set("dropout", parse_python_json("0.1", "t")); }), DSV4_E_UNSUPPORTED,
          "dropout");
    check(with_model([](JsonValue &m) { m.set("end_of_word_suffix", text("</w>")); }), DSV4_E_UNSUPPORTED,
          "end_of_word_suffix");
    check(with("normalizer", object({{"type", text("NFC")}})), DSV4_E_UNSUPPORTED, "NFC");
    CHECK(with("normalizer", object({{"type", text("Sequence")}, {"normalizers", JsonValue::make_array()}})).status ==
          DSV4_OK);
    check(with("decoder", object({{"type", text("Metaspace")}})), DSV4_E_UNSUPPORTED, "Metaspace");
    check(with("pre_tokenizer", JsonValue()), DSV4_E_MODEL, "pre_tokenizer");
    check(with("pre_tokenizer", object({{"type", text("Whitespace")}})), DSV4_E_UNSUPPORTED, "Whitespace");
    const auto split = [](const char *behavior, const char *pattern) {
        return object(
            {{"type", text("Split")}, {"behavior", text(behavior)}, {"pattern", object({{"Regex", text(pattern)}})}});
    };
    check(with("pre_tokenizer", split("Removed", "a")), DSV4_E_UNSUPPORTED, "Removed");
    check(with("pre_tokenizer", split("Isolated", "a")), DSV4_E_UNSUPPORTED, "ByteLevel");
    const JsonValue byte_level =
        object({{"type", text("ByteLevel")}, {"add_prefix_space", JsonValue::make_bool(false)}});
    const auto sequence = [](std::vector<JsonValue> stages) {
        return object({{"type", text("Sequence")}, {"pretokenizers", added_list(std::move(stages))}});
    };
    check(with("pre_tokenizer", sequence({split("Isolated", "(a"), byte_level})), DSV4_E_MODEL, "(a");
    check(with("pre_tokenizer", sequence({split("Isolated", "[a[b]]"), byte_level})), DSV4_E_UNSUPPORTED,
          "class inside");
    check(with("pre_tokenizer", sequence({byte_level, split("Isolated", "a")})), DSV4_E_UNSUPPORTED,
          "after \"ByteLevel\"");
    check(with("pre_tokenizer", sequence(std::vector<JsonValue>(100, split("Isolated", "a")))), DSV4_E_UNSUPPORTED,
          "ByteLevel");
    check(
        with("pre_tokenizer", object({{"type", text("ByteLevel")}, {"add_prefix_space", JsonValue::make_bool(true)}})),
        DSV4_E_UNSUPPORTED, "add_prefix_space");
    CHECK(with("pre_tokenizer", byte_level).status == DSV4_OK);
}

TEST_CASE("ByteLevel's own pattern and literal patterns") {
    JsonValue file = test::tokenizer_file(small(), {});
    file.set("pre_tokenizer", object({{"type", text("ByteLevel")}, {"add_prefix_space", JsonValue::make_bool(false)}}));
    const Tokenizer gpt2 = Tokenizer::from_json(dump_python_json(file));
    CHECK(gpt2.decode(gpt2.encode("they're 12 cats\n\n  x")) == "they're 12 cats\n\n  x");
    file = test::tokenizer_file(small(), {});
    JsonValue stages = JsonValue::make_array();
    stages.push_back(object(
        {{"type", text("Split")}, {"behavior", text("Isolated")}, {"pattern", object({{"String", text("h.")}})}}));
    stages.push_back(object({{"type", text("ByteLevel")},
                             {"add_prefix_space", JsonValue::make_bool(false)},
                             {"use_regex", JsonValue::make_bool(false)}}));
    file.set("pre_tokenizer", object({{"type", text("Sequence")}, {"pretokenizers", stages}}));
    const Tokenizer literal = Tokenizer::from_json(dump_python_json(file));
    CHECK(literal.encode("the").size() == 1);
    const std::vector<TokenId> cut = literal.encode("th."); // "th" would merge, but "h." is cut off first
    REQUIRE(cut.size() == 3);
    CHECK(literal.token_bytes(cut[0]) == "t");
}
