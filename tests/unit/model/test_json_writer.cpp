#include <limits>
#include <nlohmann/json.hpp>
#include "catch.hpp"
#include "core/json_writer.hpp"

using dsv4::JsonWriter;

TEST_CASE("what JsonWriter writes, an independent reader reads") {
    for (const int spaces : {0, 2}) {
        JsonWriter json(spaces);
        json.begin_object()
            .member("text", "a \"quoted\" \\ line\n\x01 and \xE2\x82\xAC")
            .member("yes", true)
            .member("least", std::numeric_limits<int64_t>::min())
            .member("most", std::numeric_limits<uint64_t>::max())
            .member("third", 1.0 / 3)
            .member("eighth", 204.125);
        json.key("empty").begin_array().end_array();
        json.key("nothing").begin_object().end_object();
        json.key("list").begin_array().value(1).begin_object().member("a", false).end_object().raw("[2,3]").end_array();
        json.end_object();
        const std::string text = json.take();
        CAPTURE(text);
        CHECK((text.find('\n') == std::string::npos) == (spaces == 0));
        const auto read = nlohmann::json::parse(text);
        CHECK(read["text"] == "a \"quoted\" \\ line\n\x01 and \xE2\x82\xAC");
        CHECK(read["yes"] == true);
        CHECK(read["least"] == std::numeric_limits<int64_t>::min());
        CHECK(read["most"] == std::numeric_limits<uint64_t>::max());
        CHECK(read["third"] == 1.0 / 3);
        CHECK(read["eighth"] == 204.125);
        CHECK(read["empty"] == nlohmann::json::array());
        CHECK(read["nothing"] == nlohmann::json::object());
        CHECK(read["list"] == nlohmann::json::parse(R"([1, {"a": false}, [2, 3]])"));
    }
}
