#include "core/error.hpp"
#include "core/text/pretokenizer.hpp"
#include "tests/catch.hpp"
#include "tests/unit/text/train_bpe.hpp"
#include <cstring>

using namespace dsv4;
using Pieces = std::vector<std::string>;

namespace {

Pieces split(const std::vector<std::string> &patterns, std::string_view text) {
    struct Sink final : PieceSink {
        Pieces pieces;
        void piece(std::string_view bytes) override { pieces.emplace_back(bytes); }
    } sink;
    Pretokenizer::Scratch scratch;
    Pretokenizer(patterns).split(text, scratch, sink);
    std::string all;
    for (const std::string &piece : sink.pieces) {
        CHECK_FALSE(piece.empty());
        all += piece;
    }
    CHECK(all == text);
    return sink.pieces;
}

} // namespace

TEST_CASE("the published splits") {
    const auto published = [](std::string_view text) { return split(test::published_patterns(), text); };
    CHECK(published("").empty());
    CHECK(published("Hello world, it's 12345!") == Pieces{"Hello", " world", ",", " it", "'s", " ", "123", "45", "!"});
    CHECK(published("a \n\n b") == Pieces{"a", " \n\n", " b"});
    CHECK(published("\r \n") == Pieces{"\r \n"});
    CHECK(published("x   y") == Pieces{"x", "  ", " y"});
    CHECK(published("今天天气很好，走吧") == Pieces{"今天天气很好", "，", "走吧"});
    CHECK(published("ひらがなabc") == Pieces{"ひらがな", "abc"});
    CHECK(published("foo.bar();\n\n}") == Pieces{"foo", ".bar", "();\n\n", "}"});
    CHECK(published("\x01\x02"
                    "a") == Pieces{"\x01", "\x02"
                                           "a"});
    CHECK(published("e\u0301 x") == Pieces{"e\u0301", " x"});
    // White_Space has U+0085 and U+3000, but not U+001C and U+180E. \s*[\r\n]+ tells.
    CHECK(published("\u0085\n") == Pieces{"\u0085\n"});
    CHECK(published("\u3000\n") == Pieces{"\u3000\n"});
    CHECK(published("\x1C\n") == Pieces{"\x1C", "\n"});
    CHECK(published("\u180E\n") == Pieces{"\u180E", "\n"});
}

TEST_CASE("white space in patterns is Unicode's, inside and outside classes") {
    const std::string spaces = "\t\n\v\f\r \u0085\u00A0\u1680\u2000\u200A\u2028\u2029\u202F\u205F\u3000";
    const std::string others = "\x1C\x1F\u180E\u200B\uFEFFa";
    for (const char *pattern : {"\\s+", "[\\s]+", "[^\\S]+", "[[:space:]]+"}) {
        CAPTURE(pattern);
        CHECK(split({pattern}, "<" + spaces + ">") == Pieces{"<", spaces, ">"});
        CHECK(split({pattern}, others) == Pieces{others});
    }
    for (const char *pattern : {"\\S+", "[\\S]+", "[^\\s]+"}) {
        CAPTURE(pattern);
        CHECK(split({pattern}, others + " ") == Pieces{others, " "});
        CHECK(split({pattern}, spaces) == Pieces{spaces});
    }
}

TEST_CASE("patterns of the other dialect are translated or refused") {
    CHECK(split({"\\h+"}, "xyz12afz") == Pieces{"xyz", "12af", "z"});
    CHECK(split({"\\u4e2d"}, "a中b") == Pieces{"a", "中", "b"});
    CHECK(split({quote_pattern("a.b[\\")}, "a.b[\\axb") == Pieces{"a.b[\\", "axb"});
    CHECK(split({quote_pattern("｜ ")}, "x｜ y") == Pieces{"x", "｜ ", "y"});
    CHECK(split({"x*"}, "axxb") == Pieces{"a", "xx", "b"}); // empty matches cut nothing
    CHECK(split({"^b"}, "a\nb") == Pieces{"a\n", "b"});     // lines, as in Ruby
    for (const char *refused : {"[a[bc]]", "[a&&b]", "\\Q.\\E", "\\K", "[]a]", "\\R", "\\u12"}) {
        CAPTURE(refused);
        try {
            Pretokenizer({refused});
            FAIL("accepted");
        } catch (const Error &e) {
            CHECK(e.status == DSV4_E_UNSUPPORTED);
        }
    }
    try {
        Pretokenizer({"(unclosed"});
        FAIL("accepted");
    } catch (const Error &e) {
        CHECK(e.status == DSV4_E_MODEL);
        CHECK(std::strstr(e.what(), "(unclosed") != nullptr);
    }
}

TEST_CASE("a pattern that backtracks without end gives up with an error") {
    CHECK_THROWS_AS(split({"(?:a+)+$"}, std::string(60, 'a') + "b"), Error);
    // Deep but finite: beyond the JIT's stack, within the interpreter's heap.
    CHECK(split({"(?:ab|c)+d"}, std::string(4000, 'c') + "d") == Pieces{std::string(4000, 'c') + "d"});
}

TEST_CASE("long runs stay linear") {
    for (const char *unit : {" ", "\n", "a", "中", "!", "\x01", "1", "\u0301"}) {
        std::string text;
        while (text.size() < 300'000) text += unit;
        CAPTURE(unit);
        CHECK_FALSE(split(test::published_patterns(), text).empty());
        CHECK_FALSE(split(test::published_patterns(), text + "x").empty());
    }
}
