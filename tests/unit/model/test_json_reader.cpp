#include <deque>
#include <string>

#include "core/error.hpp"
#include "core/model/json_reader.hpp"
#include "tests/catch.hpp"

using dsv4::JsonReader;

namespace {

/// The message that skipping the whole text ends with, "" when it is JSON.
std::string verdict(const std::string &text) {
    std::deque<std::string> decoded;
    JsonReader reader(text, "t", decoded);
    try {
        reader.skip_value();
        reader.end();
    } catch (const dsv4::Error &e) {
        return e.what();
    }
    return "";
}

std::string string_of(const std::string &text) {
    std::deque<std::string> decoded;
    JsonReader reader(text, "t", decoded);
    return std::string(reader.string());
}

} // namespace

TEST_CASE("the JSON reader accepts what RFC 8259 accepts") {
    for (const char *text :
         {"0", "-0", "1.5e+10", "-12.25E-3", "\"\"", "[]", "{}", " [ 1 , {\"a\" : [null,true,false]} ] ",
          "\"\\u00e9\\ud83d\\ude00\\n\"", "\"\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80\""}) {
        INFO(text);
        CHECK(verdict(text).empty());
    }
}

TEST_CASE("the JSON reader refuses everything else") {
    for (const char *text : {"",
                             " ",
                             "01",
                             "1.",
                             ".5",
                             "+1",
                             "1e",
                             "-",
                             "nul",
                             "tru",
                             "[1,]",
                             "[1 2]",
                             "{\"a\"}",
                             "{a:1}",
                             "{\"a\":1,}",
                             "\"",
                             "\"\\x\"",
                             "\"\\u12\"",
                             "\"\\ud800\"",
                             "\"\\udc00\"",
                             "\"\\ud800\\u0041\"",
                             "\"\x01\"",
                             "\"\xFF\"",
                             "\"\xC0\x80\"",
                             "\"\xED\xA0\x80\"",
                             "\"\xF4\x90\x80\x80\"",
                             "\"\xE2\x82\"",
                             "1 1",
                             "[",
                             "{",
                             "'a'",
                             "NaN"}) {
        INFO(text);
        CHECK_FALSE(verdict(text).empty());
    }
    CHECK(verdict("[1,]").find("t: expected a value at byte 3, found ']'") == 0);
}

TEST_CASE("the JSON reader bounds nesting") {
    CHECK(verdict(std::string(64, '[') + std::string(64, ']')).empty());
    CHECK(verdict(std::string(100000, '[')).find("nested") != std::string::npos);
    std::string objects;
    for (int i = 0; i < 100000; ++i) objects += "{\"a\":";
    CHECK(verdict(objects).find("nested") != std::string::npos);
}

TEST_CASE("the JSON reader unescapes strings") {
    CHECK(string_of("\"plain\"") == "plain");
    CHECK(string_of("\"a\\\"b\\\\c\\/d\\b\\f\\n\\r\\t\"") == "a\"b\\c/d\b\f\n\r\t");
    CHECK(string_of("\"\\u0041\\u00E9\\u20ac\\ud83d\\ude00\"") == "A\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80");
}

TEST_CASE("the JSON reader reads integers to the last bit") {
    std::deque<std::string> decoded;
    const auto integer = [&](const std::string &text) { return JsonReader(text, "t", decoded).unsigned_integer(); };
    CHECK(integer("18446744073709551615") == UINT64_MAX);
    CHECK_THROWS_AS(integer("18446744073709551616"), dsv4::Error);
    for (const char *bad : {"-1", "1.0", "1e3", "00", "", "\"1\""}) CHECK_THROWS_AS(integer(bad), dsv4::Error);
}

TEST_CASE("printable text is one line of bounded, valid UTF-8") {
    CHECK(dsv4::printable("layers.0") == "layers.0");
    CHECK(dsv4::printable("a\nb\x7F\xFF") == "a?b??");
    CHECK(dsv4::printable(std::string(1000, 'x')).size() <= 96);
    CHECK(dsv4::printable("\xC3\xA9\xC3\xA9\xC3\xA9\xC3\xA9", 7) == "\xC3\xA9\xC3\xA9...");
}
