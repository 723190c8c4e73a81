// safetensors headers that are wrong in every way a header can be wrong.
#include <string>
#include <vector>

#include "core/error.hpp"
#include "core/model/safetensors.hpp"
#include "tests/catch.hpp"
#include "tests/support/checkpoint_writer.hpp"

using namespace dsv4;
using dsv4::test::container;

namespace {

/// What reading these bytes says; "" when they are fine.
std::string verdict(const std::string &file) {
    TensorTable table;
    try {
        read_safetensors_header({reinterpret_cast<const unsigned char *>(file.data()), file.size()}, "f.safetensors", 0,
                                table);
    } catch (const Error &e) {
        CHECK(e.status == DSV4_E_MODEL);
        CHECK(std::string(e.what()).size() < 240); // fits dsv4_error, nothing is cut off
        return e.what();
    }
    return "";
}

std::string entry(const std::string &dtype, const std::string &shape, const std::string &offsets) {
    return "{\"dtype\":\"" + dtype + "\",\"shape\":" + shape + ",\"data_offsets\":" + offsets + "}";
}

const std::string kData(64, '\1');

} // namespace

TEST_CASE("well-formed safetensors files are read") {
    CHECK(verdict(container("{}", "")).empty());
    CHECK(verdict(container("{\"__metadata__\":{\"a\":\"b\"},\"t\":" + entry("F32", "[4,4]", "[0,64]") + "}   ", kData))
              .empty());
    CHECK(verdict(container("{\"t\":" + entry("F32", "[]", "[60,64]") + "}", kData)).empty());
    CHECK(verdict(container("{\"t\":" + entry("F32", "[0,9223372036854775807]", "[8,8]") + "}", kData)).empty());
    CHECK(verdict(container("{\"t\":" + entry("F4", "[2,8]", "[0,8]") + "}", kData)).empty());
    // Holes and trailing bytes are somebody's alignment.
    CHECK(verdict(container("{\"a\":" + entry("I8", "[2]", "[0,2]") + ",\"b\":" + entry("I8", "[2]", "[32,34]") + "}",
                            kData))
              .empty());
    // Types that are not known matter only where they are needed.
    CHECK(verdict(container("{\"t\":" + entry("F6_E2M3", "[4]", "[0,3]") + "}", kData)).empty());
}

TEST_CASE("a header whose length is wrong") {
    const std::string good = container("{\"t\":" + entry("F32", "[16]", "[0,64]") + "}", kData);
    CHECK(verdict("").find("f.safetensors: expected a safetensors file, at least 8 bytes, found 0") == 0);
    CHECK(verdict(good.substr(0, 7)).find("found 7") != std::string::npos);
    CHECK(verdict(good.substr(0, 20)).find("the file has 12 after its length: truncated") != std::string::npos);
    CHECK(verdict(std::string(8, '\xFF') + good).find("found a length of 18446744073709551615") != std::string::npos);
    std::string oversized = good;
    oversized[4] = 1; // 4 GiB
    CHECK(verdict(oversized).find("at most 100000000 bytes") != std::string::npos);
    CHECK(verdict(container("", "")).find("header: expected '{' at byte 0, found the end") != std::string::npos);
    // Every truncation is noticed.
    for (size_t size = 0; size < good.size(); ++size) {
        INFO(size);
        CHECK_FALSE(verdict(good.substr(0, size)).empty());
    }
}

TEST_CASE("a tensor that is wrong names itself, what was expected and what was found") {
    struct Case {
        std::string value, says;
    };
    const std::vector<Case> cases{
        {entry("F32", "[16]", "[0,65]"), "data_offsets [0, 65): expected to end within the 64 data bytes"},
        {entry("F32", "[16]", "[64,128]"), "expected to end within the 64 data bytes"},
        {entry("F32", "[16]", "[18446744073709551600,18446744073709551615]"),
         "expected to end within the 64 data bytes"},
        {entry("F32", "[1]", "[8,4]"), "expected begin <= end, found [8, 4)"},
        {entry("F32", "[15]", "[0,64]"), "expected 60 bytes for F32 [15], found 64"},
        {entry("BF16", "[4,4]", "[0,64]"), "expected 32 bytes for BF16 [4, 4], found 64"},
        {entry("F4", "[3]", "[0,1]"), "found 1"},
        {entry("F32", "[4294967296,4294967296,4294967296]", "[0,64]"),
         "shape [4294967296, 4294967296, 4294967296] overflows"},
        {entry("I8", "[9223372036854775807,3]", "[0,64]"), "overflows"},
        {entry("I8", "[18446744073709551615]", "[0,64]"), "overflows"},
        {entry("I8", "[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]", "[0,1]"), "at most 16 dimensions"},
        {"{\"shape\":[1],\"data_offsets\":[0,4]}", "expected a dtype, found none"},
        {"{\"dtype\":\"F32\",\"data_offsets\":[0,4]}", "expected a shape, found none"},
        {"{\"dtype\":\"F32\",\"shape\":[1]}", "expected data_offsets, found none"},
        {entry("F32", "[1]", "[0]"), "expected 2 offsets, found 1"},
        {entry("F32", "[1]", "[0,4,8]"), "expected 2 offsets, found 3"},
        {"{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}", "once each, found \"dtype\""},
        {"{\"dtype\":\"F32\",\"stride\":[1]}", "once each, found \"stride\""}};
    for (const Case &c : cases) {
        INFO(c.value);
        const std::string said = verdict(container("{\"layers.0.attn.wkv.weight\":" + c.value + "}", kData));
        CHECK(said.find("f.safetensors: layers.0.attn.wkv.weight: ") == 0);
        CHECK(said.find(c.says) != std::string::npos);
    }
}

TEST_CASE("a header that is not the JSON it should be names the byte") {
    for (const std::string &header :
         {std::string("[]"), std::string("{\"t\":[]}"), std::string("{\"t\":" + entry("F32", "[-1]", "[0,4]") + "}"),
          std::string("{\"t\":" + entry("F32", "[1.0]", "[0,4]") + "}"),
          std::string("{\"t\":" + entry("F32", "{}", "[0,4]") + "}"),
          std::string("{\"t\":" + entry("F32", "[1]", "[0,\"4\"]") + "}"), std::string("{\"t\":{\"dtype\":7}}"),
          std::string("{\"t\":" + entry("F32", "[1]", "[0,4]") + "} x"), std::string("{\"t\xFF\":1}"),
          std::string("{\"__metadata__\":") + std::string(100000, '['), std::string(1000, '\0')}) {
        INFO(header.substr(0, 60));
        CHECK(verdict(container(header, kData)).find("f.safetensors: header: expected ") == 0);
    }
}

TEST_CASE("tensors that share bytes are refused") {
    const std::string header =
        "{\"a\":" + entry("F32", "[8]", "[0,32]") + ",\"b\":" + entry("F32", "[9]", "[28,64]") + "}";
    CHECK(verdict(container(header, kData)) ==
          "f.safetensors: b: expected bytes of its own, found them overlapping a by 4 bytes");
    const std::string inside = "{\"a\":" + entry("F32", "[16]", "[0,64]") + ",\"b\":" + entry("F32", "[1]", "[16,20]") +
                               ",\"c\":" + entry("F32", "[1]", "[40,44]") + "}";
    CHECK(verdict(container(inside, kData)).find("overlapping a by 4 bytes") != std::string::npos);
}

TEST_CASE("hostile names do not reach messages raw") {
    const std::string name = "x\\n\\u0007" + std::string(5000, 'y');
    const std::string said = verdict(container("{\"" + name + "\":" + entry("F32", "[1]", "[0,5]") + "}", kData));
    CHECK(said.size() < 240);
    CHECK(said.find("f.safetensors: x??yyy") == 0);
}
