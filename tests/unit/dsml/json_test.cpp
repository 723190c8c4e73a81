#include "core/text/byte_level.hpp"
#include "core/text/dsml_json.hpp"
#include "tests/catch.hpp"

using namespace dsv4;

TEST_CASE("strings are written as json.dumps(ensure_ascii=False) writes them") {
    std::string out;
    append_json_string(out, std::string("a\"b\\c\n\r\t\b\f\x01\x1f\x7f\0z", 15) + "\xE2\x80\xA8é");
    CHECK(out == "\"a\\\"b\\\\c\\n\\r\\t\\b\\f\\u0001\\u001f\x7f\\u0000z\xE2\x80\xA8é\"");
}

TEST_CASE("valid and invalid JSON are told apart") {
    for (const char *text : {"0", "-0.5e+3", " [1, {\"a\": [ ]} , \"\\u00e9\\\"\" ] ", "{}", "true", "\"\"", "1e9",
                             "123456789012345678901234567890"})
        CHECK(check_json(text) == JsonVerdict::valid);
    for (const char *text : {"", " ", "01", "+1", ".5", "1.", "1e", "-", "NaN", "Infinity", "[1,]", "{,}", "{\"a\"}",
                             "{\"a\":}", "{a:1}", "[1 2]", "\"\n\"", "\"\\x\"", "\"\\u12g4\"", "\"", "[", "]", "1 2",
                             "tru", "nullx", "{\"a\":1,}", "'a'"})
        CHECK(check_json(text) == JsonVerdict::invalid);
}

TEST_CASE("depth is refused by number, not by a stack overflow") {
    const auto nested = [](size_t n) { return std::string(n, '[') + std::string(n, ']'); };
    CHECK(check_json(nested(kMaxJsonDepth)) == JsonVerdict::valid);
    CHECK(check_json(nested(kMaxJsonDepth + 1)) == JsonVerdict::too_deep);
    CHECK(check_json(nested(1000000)) == JsonVerdict::too_deep);
    CHECK(check_json(std::string(1000000, '[')) == JsonVerdict::too_deep);
}

TEST_CASE("members are decoded keys and untouched slices") {
    std::vector<JsonMember> members;
    REQUIRE(json_object_members(" {\"a\\u00e9\\ud83d\\ude00\" : 1.00 , \"b\":{\"x\": [1,2]},\"\":\"q\\\"\" } ", members));
    REQUIRE(members.size() == 3);
    CHECK(members[0].key == "aé😀");
    CHECK(members[0].value == "1.00");
    CHECK(members[1].value == "{\"x\": [1,2]}");
    CHECK(members[2].key.empty());
    CHECK(members[2].value == "\"q\\\"\"");
    CHECK_FALSE(json_object_members("[1]", members));
}

TEST_CASE("ill-formed UTF-8 is replaced as Python does, whatever the chunks") {
    // bytes.decode("utf-8", "replace") of CPython gives these.
    const std::pair<std::string, std::string> cases[] = {
        {"a\xFFz", "a\uFFFDz"},
        {"\xE4\xBD", "\uFFFD"},
        {"\xE4\xBDx", "\uFFFDx"},
        {"\xED\xA0\x80", "\uFFFD\uFFFD\uFFFD"},
        {"\xF0\x9F\x98\x80\xF0\x9F\x98", "😀\uFFFD"},
        {"\xF5\x80\xC0\xAF", "\uFFFD\uFFFD\uFFFD\uFFFD"},
        {"\xE4\xE4\xBD\xA0", "\uFFFD你"},
        {"\xF0\x9F\xC3\xA9", "\uFFFDé"},
    };
    for (const auto &[bytes, want] : cases)
        for (size_t size = 1; size <= bytes.size(); ++size) {
            Utf8Cleaner cleaner;
            std::string out;
            for (size_t i = 0; i < bytes.size(); i += size) cleaner.feed(bytes.substr(i, size), out);
            cleaner.finish(out);
            CHECK(out == want);
            CHECK((find_invalid_utf8(bytes) != bytes.size()));
            CHECK(find_invalid_utf8(out) == out.size());
        }
}
