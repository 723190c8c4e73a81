#include "core/text/byte_level.hpp"
#include "core/text/stream_decoder.hpp"
#include "tests/catch.hpp"
#include <random>
#include <set>

using namespace dsv4;

TEST_CASE("every scalar value is valid UTF-8 and nothing shorter or damaged is") {
    for (uint32_t c = 0; c < 0x110000; c += c < 0x3000 ? 1 : 37) {
        if (c >= 0xD800 && c < 0xE000) continue;
        std::string text;
        append_utf8(text, c);
        REQUIRE(find_invalid_utf8(text) == text.size());
        REQUIRE(utf8_length(text, 0) == text.size());
        for (size_t cut = 1; cut < text.size(); ++cut) {
            const Utf8Part part = next_utf8_part(std::string_view(text).substr(0, cut));
            REQUIRE((part.truncated && part.length == cut && !part.valid));
        }
    }
    for (const std::string bad : {"\x80", "\xc0\x80", "\xc1\xbf", "\xe0\x9f\xbf", "\xed\xa0\x80", "\xf0\x8f\xbf\xbf",
                                  "\xf4\x90\x80\x80", "\xf5\x80", "\xff"})
        CHECK(find_invalid_utf8("abcdefgh" + bad) == 8);
}

TEST_CASE("the alphabet of bytes is one to one") {
    std::set<uint32_t> seen;
    for (int byte = 0; byte < 256; ++byte) seen.insert(byte_to_code_point(static_cast<uint8_t>(byte)));
    CHECK(seen.size() == 256);
    CHECK(byte_to_code_point(' ') == 0x120);
    CHECK(byte_to_code_point('\n') == 0x10A);
    CHECK(byte_to_code_point('A') == 'A');
    CHECK(byte_to_code_point(0xAD) == 0x143);
    std::string all, back;
    for (int byte = 0; byte < 256; ++byte) all += static_cast<char>(byte);
    CHECK(bytes_from_spelling(spelling_from_bytes(all), back));
    CHECK(back == all);
    for (const char *outside : {" ", "\n", "｜", "\u0144", "\u00AD"}) CHECK_FALSE(bytes_from_spelling(outside, back));
}

TEST_CASE("the stream decoder gives whole code points, whatever the split") {
    const auto decode = [](std::string_view bytes, const std::vector<size_t> &cuts) {
        StreamDecoder decoder;
        std::string out;
        size_t at = 0;
        for (const size_t cut : cuts) {
            decoder.push(bytes.substr(at, cut - at), out);
            CHECK(find_invalid_utf8(out) == out.size());
            CHECK(decoder.pending() <= 3);
            at = cut;
        }
        decoder.push(bytes.substr(at), out);
        decoder.finish(out);
        CHECK(find_invalid_utf8(out) == out.size());
        return out;
    };
    const std::string text = "a🤖é你\U0010FFFF";
    for (size_t cut = 0; cut <= text.size(); ++cut) CHECK(decode(text, {cut}) == text);
    StreamDecoder decoder;
    std::string out;
    decoder.push("x\xF0\x9F", out);
    CHECK(out == "x");
    decoder.push("\xA4", out);
    CHECK(out == "x");
    decoder.push("\x96y", out);
    CHECK(out == "x🤖y");

    // Expected values are those of Python's bytes.decode("utf-8", "replace").
    const std::string r = "\uFFFD";
    CHECK(decode("a\xFFz", {}) == "a" + r + "z");
    CHECK(decode("\xE4\xBD", {}) == r);
    CHECK(decode("\xE4\xBDz", {1}) == r + "z");
    CHECK(decode("\xC0\x80", {1}) == r + r);
    CHECK(decode("\xED\xA0\x80", {2}) == r + r + r);
    CHECK(decode("\xF0\x90\x8D\xE4\xBD\xA0", {3}) == r + "你");

    std::mt19937 random(5);
    for (int round = 0; round < 3000; ++round) {
        static constexpr unsigned char interesting[] = {0x41, 0x80, 0xBF, 0xC2, 0xE0, 0xA0, 0xED, 0x9F,
                                                        0xF0, 0x90, 0xF4, 0x8F, 0xFF, 0xE4, 0xBD};
        std::string bytes;
        for (size_t i = random() % 12; i > 0; --i)
            bytes += static_cast<char>(interesting[random() % sizeof interesting]);
        std::vector<size_t> every;
        for (size_t i = 1; i < bytes.size(); ++i) every.push_back(i);
        CHECK(decode(bytes, every) == decode(bytes, {}));
    }
}
