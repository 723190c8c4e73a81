#include "core/error.hpp"
#include "core/plugin/manifest.hpp"
#include "tests/catch.hpp"
#include <nlohmann/json.hpp>

using dsv4::Error;
using dsv4::parse_manifest;
using Json = nlohmann::json;

namespace {

Json good() {
    return {{"manifest", 1}, {"name", "cpu"}, {"version", "0.1.0"}, {"library", "libdsv4-cpu.so"},
            {"abi_min", 1},  {"abi_max", 3},  {"arch", "x86_64"},   {"cpu_features", {"avx2", "fma"}}};
}

std::string why_refused(const std::string &text) {
    try {
        parse_manifest(text, "/plugins/dsv4-cpu.json");
    } catch (const Error &e) {
        CHECK(e.status == DSV4_E_UNSUPPORTED);
        return e.what();
    }
    return "accepted";
}

std::string with(const char *key, const Json &value) {
    Json json = good();
    json[key] = value;
    return why_refused(json.dump());
}

bool has(const std::string &text, const char *part) { return text.find(part) != std::string::npos; }

} // namespace

TEST_CASE("a manifest says what a plugin is") {
    const auto m = parse_manifest(good().dump(), "/plugins/dsv4-cpu.json");
    CHECK(m.name == "cpu");
    CHECK(m.version == "0.1.0");
    CHECK(m.library_path() == "/plugins/libdsv4-cpu.so");
    CHECK(m.abi_min == 1);
    CHECK(m.abi_max == 3);
    CHECK(m.arch == "x86_64");
    CHECK(m.cpu_features == std::vector<std::string>{"avx2", "fma"});
}

TEST_CASE("keys of a newer manifest of the same format are ignored") {
    Json json = good();
    json["homepage"] = "https://example.org";
    CHECK_NOTHROW(parse_manifest(json.dump(), "/p/dsv4-cpu.json"));
}

TEST_CASE("a manifest that lacks a key names the key") {
    const Json whole = good();
    for (const auto &item : whole.items()) {
        Json json = whole;
        json.erase(item.key());
        CHECK(why_refused(json.dump()) == "manifest lacks \"" + item.key() + "\"");
    }
}

TEST_CASE("a manifest that is not one is refused") {
    CHECK(why_refused("") == "manifest is not JSON: expected a value at byte 0, found the end of the text");
    CHECK(why_refused("{\"manifest\": 1,") ==
          "manifest is not JSON: expected a string at byte 15, found the end of the text");
    CHECK(why_refused("\x7f"
                      "ELF") == "manifest is not JSON: expected a value at byte 0, found '?ELF'");
    CHECK(why_refused("{\"name\": \"\xff\xfe\"}") ==
          "manifest is not JSON: expected valid UTF-8 at byte 10, found '??\"}'");
    CHECK(why_refused("[1, 2]") == "manifest is not a JSON object");
    CHECK(has(with("manifest", 2), "format 2"));
    CHECK(has(with("manifest", "1"), "whole number"));
    CHECK(has(with("manifest", 1.5), "whole number"));
    CHECK(has(why_refused(std::string(100000, ' ')), "100000 bytes"));
    CHECK(why_refused(std::string(60000, '[')).rfind("manifest is not JSON: expected at most 64 nested values", 0) == 0); // deep nesting must not end the process
}

TEST_CASE("a manifest names a neighbour and nothing else") {
    for (const char *library : {"../x.so", "/tmp/x.so", "sub/x.so", "..", ".", "a\\b.so"})
        CHECK(has(with("library", library), "not a path"));
    CHECK(has(with("library", std::string("a\0b.so", 6)), "not a path"));
    CHECK(has(with("library", ""), "0 bytes"));
    CHECK(has(with("library", std::string(300, 'a')), "300 bytes"));
    CHECK(has(with("library", 7), "must be a string"));
}

TEST_CASE("names, ranges and features are bounded") {
    CHECK(has(with("name", "CPU 1"), "may hold"));
    CHECK(has(with("name", std::string(33, 'a')), "33 bytes"));
    CHECK(has(with("abi_min", -1), "whole number"));
    CHECK(has(with("abi_min", 0), "empty"));
    CHECK(has(with("abi_min", 4), "empty"));
    CHECK(has(with("abi_max", 4294967296), "whole number"));
    CHECK(has(with("cpu_features", "avx2"), "list"));
    CHECK(has(with("cpu_features", Json::array({1})), "names"));
    CHECK(has(with("cpu_features", std::vector<std::string>(65, "avx2")), "at most 64"));
}
