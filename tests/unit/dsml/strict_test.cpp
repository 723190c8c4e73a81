#include "core/error.hpp"
#include "core/text/dsml_strict.hpp"
#include "tests/catch.hpp"

using namespace dsv4;

namespace {
const std::string D(kDsmlToken), E(kEosText);
std::string block(const std::string &inside) { return "\n\n<" + D + "tool_calls>\n" + inside + "</" + D + "tool_calls>"; }
std::string invoke(const std::string &name, const std::string &inside) {
    return "<" + D + "invoke name=\"" + name + "\">\n" + inside + "</" + D + "invoke>\n";
}
std::string parameter(const std::string &name, const char *string, const std::string &value) {
    return "<" + D + "parameter name=\"" + name + "\" string=\"" + string + "\">" + value + "</" + D + "parameter>\n";
}
std::string error_of(const std::string &text, bool thinking = false) {
    try {
        parse_completion_strict(text, thinking);
    } catch (const Error &e) {
        CHECK(e.status == DSV4_E_INVALID);
        return e.what();
    }
    return "";
}
}  // namespace

TEST_CASE("content, reasoning and calls come out byte for byte") {
    const std::string text = std::string("why? \n</think>  Hi\n") +
                             block(invoke("f\"x", parameter("p", "true", "  a\"\\\n\t ") + parameter("q", "false", " [1, NaN]")) +
                                   invoke("g", "\n")) +
                             E;
    const DsmlMessage message = parse_completion_strict(text, true);
    CHECK(message.reasoning_content == "why? \n");
    CHECK(message.content == "  Hi\n");
    REQUIRE(message.tool_calls.size() == 2);
    CHECK(message.tool_calls[0].name == "f\"x");
    CHECK(message.tool_calls[0].arguments == "{\"p\": \"  a\\\"\\\\\\n\\t \", \"q\":  [1, NaN]}");
    CHECK(message.tool_calls[1].arguments == "{}");
    CHECK(message_to_json(parse_completion_strict("x" + E, false)) ==
          "{\"role\": \"assistant\", \"content\": \"x\", \"reasoning_content\": \"\", \"tool_calls\": []}");
}

TEST_CASE("corners of the release's patterns") {
    // No EOS is needed after a block, and a text that stops right after a stop text is taken.
    CHECK(parse_completion_strict(block(invoke("f", "\n")), false).tool_calls.size() == 1);
    CHECK(parse_completion_strict("a\n\n<" + D + "tool_calls", false).content == "a");
    CHECK(parse_completion_strict(block("<" + D + "invoke   name=\"f\">\n</" + D + "invoke>\n"), false).tool_calls.size() == 1);
    // A value may hold an opener: only the closer's text ends it.
    const std::string value = "see <" + D + "parameter name=\"x\" string=\"true\">";
    CHECK(parse_completion_strict(block(invoke("f", parameter("p", "true", value))), false).tool_calls[0].arguments ==
          "{\"p\": \"see <" + D + "parameter name=\\\"x\\\" string=\\\"true\\\">\"}");
    // Any newline count beyond two belongs to the content.
    CHECK(parse_completion_strict(std::string("a\n").append(block(invoke("f", "\n"))), false).content == "a\n");
}

TEST_CASE("what the release refuses is refused with its words") {
    CHECK(error_of("x") == "Invalid format: missing EOS token");
    CHECK(error_of("x" + E + "y") == "Unexpected content at end");
    CHECK(error_of("x" + E, true) == "Invalid thinking format: missing </think>");
    CHECK(error_of("a<think>b" + E) == "Unexpected special token '<think>' in content");
    CHECK(error_of("\n<" + D + "tool_calls>" + E) == "Unexpected special token '" + D + "' in content");
    CHECK(error_of(block(invoke("f", parameter("p", "true", "1") + parameter("p", "true", "2")))) == "Duplicate parameter name: 'p'");
    CHECK(error_of(block(invoke("f", parameter("p", "maybe", "1")))).substr(0, 23) == "Parameter format error:");
    CHECK(error_of(block(std::string("x").append(invoke("f", "\n")))).substr(0, 23) == "Tool call format error:");
    CHECK(error_of(block("<" + D + "invoke>\n</" + D + "invoke>\n")).substr(0, 23) == "Tool name format error:");
    CHECK(error_of(block(invoke("f", "\n")) + "x" + E) == "Unexpected content after tool calls");
    CHECK(error_of("\n\n<" + D + "tool_calls>\n<" + D + "x") == "Tool call format error: expected '>\\n' but got '>\n<" + D + "x'");
    CHECK(error_of("\xFF" + E).find("byte 0") != std::string::npos);
}
