#include "core/error.hpp"
#include "core/text/python_json.hpp"
#include "tests/catch.hpp"
#include <cmath>
#include <cstring>
#include <random>

using namespace dsv4;

namespace {
std::string again(std::string_view json) { return dump_python_json(parse_python_json(json, "test")); }
std::string error_of(std::string_view json) {
    try {
        parse_python_json(json, "test");
    } catch (const Error &e) {
        CHECK(e.status == DSV4_E_INVALID);
        return e.what();
    }
    return "no error";
}
} // namespace

TEST_CASE("JSON comes out as json.dumps(ensure_ascii=False) prints it") {
    CHECK(again(R"( {"b" : [1,2 , {}],"a":null,"c":[],"d":true,"e":false} )") ==
          R"({"b": [1, 2, {}], "a": null, "c": [], "d": true, "e": false})");
    CHECK(again(R"("\u00e9\ud83e\udd16\/\u0000\u001f\u007f\u2028\b\f\n\r\t\"\\")") ==
          "\"é🤖/\\u0000\\u001f\x7f\u2028\\b\\f\\n\\r\\t\\\"\\\\\"");
    CHECK(again(R"({"a": 1, "b": 2, "a": 3})") == R"({"a": 3, "b": 2})");
    CHECK(again("[NaN, Infinity, -Infinity]") == "[NaN, Infinity, -Infinity]");
    CHECK(again("[123456789012345678901234567890, -0, 0, -17]") == "[123456789012345678901234567890, 0, 0, -17]");
    const std::string long_integer(10'000, '7');
    CHECK(again(long_integer) == long_integer);
    CHECK(again(R"(["\ud83d", "\ude00\ud83d", "\ud83d\u0041"])") == "[\"\uFFFD\", \"\uFFFD\uFFFD\", \"\uFFFDA\"]");
}

TEST_CASE("floats print as Python's repr") {
    for (const auto &[given, expected] :
         std::vector<std::pair<const char *, const char *>>{{"1.0", "1.0"},
                                                            {"100.0", "100.0"},
                                                            {"1e2", "100.0"},
                                                            {"1e-5", "1e-05"},
                                                            {"0.0001", "0.0001"},
                                                            {"0.00001", "1e-05"},
                                                            {"1e-07", "1e-07"},
                                                            {"1e15", "1000000000000000.0"},
                                                            {"1e16", "1e+16"},
                                                            {"1e22", "1e+22"},
                                                            {"1.5e300", "1.5e+300"},
                                                            {"123456789.123", "123456789.123"},
                                                            {"0.30000000000000004", "0.30000000000000004"},
                                                            {"5e-324", "5e-324"},
                                                            {"1.7976931348623157e+308", "1.7976931348623157e+308"},
                                                            {"-0.0", "-0.0"},
                                                            {"0.0", "0.0"},
                                                            {"0e999999999999", "0.0"},
                                                            {"1e400", "Infinity"},
                                                            {"-1e400", "-Infinity"},
                                                            {"1e-400", "0.0"},
                                                            {"-1e-400", "-0.0"},
                                                            {"1e99999999999999999999", "Infinity"},
                                                            {"1e-99999999999999999999", "0.0"},
                                                            {"0.0000000001e330", "Infinity"},
                                                            {"9007199254740993.0", "9007199254740992.0"},
                                                            {"12345678901234567.0", "1.2345678901234568e+16"},
                                                            {"3.14", "3.14"}})
        CHECK(std::string(given) + " " + python_float_repr(given) == std::string(given) + " " + expected);
}

TEST_CASE("what a double prints as reads back as the same double") {
    std::mt19937_64 random(3);
    for (int i = 0; i < 20'000; ++i) {
        const uint64_t bits = random();
        double value;
        std::memcpy(&value, &bits, sizeof value);
        if (!std::isfinite(value)) continue;
        char text[64];
        std::snprintf(text, sizeof text, "%.17g", value);
        const std::string shown = python_float_repr(text);
        CAPTURE(text, shown);
        REQUIRE(std::strtod(shown.c_str(), nullptr) == value);
        REQUIRE(python_float_repr(shown) == shown);
    }
}

TEST_CASE("what json.loads refuses is an error that names the byte") {
    CHECK(error_of("") == "test: expected a JSON value at byte 0 of 0");
    CHECK(error_of("{\"a\": }") == "test: expected a JSON value at byte 6 of 7");
    for (const char *bad : {"nul",
                            "01",
                            "1.",
                            "1.e5",
                            "+1",
                            ".5",
                            "-",
                            "'a'",
                            "[1,]",
                            "{\"a\":1,}",
                            "{a:1}",
                            "[1 2]",
                            "\"a",
                            "\"\\x\"",
                            "\"\\u12g4\"",
                            "\"tab\there\"",
                            "1 2",
                            "{\"a\" 1}",
                            "\xEF\xBB\xBF{}",
                            "\"\xff\"",
                            "\"\xed\xa0\x80\"",
                            "[",
                            "{",
                            "\"\\",
                            "-Inf",
                            "nan"}) {
        CAPTURE(bad);
        CHECK(error_of(bad) != "no error");
        JsonValue value;
        CHECK_FALSE(try_parse_python_json(bad, value));
    }
}

TEST_CASE("depth is bounded before the stack is") {
    const auto nested = [](size_t depth, const char *open, const char *close) {
        std::string text;
        for (size_t i = 0; i < depth; ++i) text += open;
        text += "1";
        for (size_t i = 0; i < depth; ++i) text += close;
        return text;
    };
    CHECK(again(nested(json_max_depth, "[", "]")) == nested(json_max_depth, "[", "]"));
    CHECK(error_of(nested(json_max_depth + 1, "[", "]")).find("at most 1000") != std::string::npos);
    CHECK(error_of(nested(10'000, "{\"a\":", "}")).find("at most 1000") != std::string::npos);
    CHECK(error_of(std::string(5'000'000, '[')).find("at most 1000") != std::string::npos);
}

TEST_CASE("large objects find their duplicate keys") {
    std::string text = "{";
    for (int round = 0; round < 2; ++round)
        for (int i = 0; i < 5000; ++i)
            text.append(text.size() > 1 ? ",\"k" : "\"k")
                .append(std::to_string(i))
                .append("\":")
                .append(std::to_string(i + round));
    const JsonValue value = parse_python_json(text + "}", "test");
    REQUIRE(value.size() == 5000);
    for (size_t i = 0; i < 5000; ++i) {
        REQUIRE(value.keys()[i].substr(1) == std::to_string(i));
        REQUIRE(value.items()[i].text() == std::to_string(i + 1));
    }
}

TEST_CASE("values are built and changed in place") {
    JsonValue object = JsonValue::make_object();
    object.set("a", JsonValue::make_integer(-5));
    object.set("b", JsonValue::make_string("x"));
    object.set("a", JsonValue::make_bool(true));
    CHECK(dump_python_json(object) == R"({"a": true, "b": "x"})");
    CHECK(object.find("c") == nullptr);
    CHECK(JsonValue().find("c") == nullptr);
    int64_t number = 0;
    CHECK(parse_python_json("-12", "test").to_int64(number));
    CHECK(number == -12);
    CHECK_FALSE(parse_python_json("99999999999999999999", "test").to_int64(number));
    CHECK_FALSE(parse_python_json("1.0", "test").to_int64(number));
    for (const char *falsy : {"null", "false", "0", "-0", "0.0", "-0.0", "\"\"", "[]", "{}"})
        CHECK_FALSE(parse_python_json(falsy, "t").truthy());
    for (const char *truthy : {"true", "1", "0.1", "\" \"", "[0]", "{\"a\": 0}", "NaN"})
        CHECK(parse_python_json(truthy, "t").truthy());
}
