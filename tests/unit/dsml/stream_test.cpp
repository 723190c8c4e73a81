#include "core/error.hpp"
#include "core/text/dsml_stream.hpp"
#include "tests/catch.hpp"
#include "tests/unit/dsml/events.hpp"

using namespace dsv4;

namespace {

const std::string D(kDsmlToken), E(kEosText);
const std::string kOpen = "\n\n<" + D + "tool_calls>\n", kClose = "</" + D + "tool_calls>";
const std::string kInvokeEnd = "</" + D + "invoke>\n", kParameterEnd = "</" + D + "parameter>\n";
std::string invoke(const std::string &name) { return "<" + D + "invoke name=\"" + name + "\">\n"; }
std::string parameter(const std::string &name, const char *string = "true") {
    return "<" + D + "parameter name=\"" + name + "\" string=\"" + string + "\">";
}

DsmlStreamOptions offered() {
    DsmlStreamOptions options;
    options.tools = dsml_tools_from_json(R"([
        {"type": "function", "function": {"name": "run", "parameters": {"type": "object", "properties":
            {"cmd": {"type": "string"}, "n": {"type": "integer"}}}}},
        {"type": "function", "function": {"name": "wrap", "parameters": {"type": "object", "properties":
            {"arguments": {"type": "object"}}}}},
        {"type": "function", "function": {"name": "free"}}])");
    return options;
}

/// "content|reasoning|calls|flags"; a call is name(arguments)[flags], with ! when it is not complete.
std::string told(const std::string &text, DsmlStreamOptions options = offered()) {
    CAPTURE(text);
    CHECK(test::split_that_differs(options, text) == "");
    const DsmlLenientMessage message = parse_completion_lenient(text, options);
    std::string out = message.content + "|" + message.reasoning_content + "|";
    for (const DsmlLenientCall &call : message.tool_calls) {
        out += (call.complete ? "" : "!") + call.name + "(" + call.arguments + ")[" + dsml_flag_names(call.flags) + "]";
        if (call.complete) CHECK(check_json(call.arguments) == JsonVerdict::valid);
    }
    return out + "|" + dsml_flag_names(message.flags);
}

}  // namespace

TEST_CASE("a clean completion needs no flag") {
    DsmlStreamOptions options = offered();
    options.thinking = true;
    CHECK(told("hm</think>Hi" + kOpen + invoke("run") + parameter("cmd") + " ls  \n" + kParameterEnd +
                   parameter("n", "false") + "7" + kParameterEnd + kInvokeEnd + invoke("free") + "\n" + kInvokeEnd + kClose + E,
               options) == "Hi|hm|run({\"cmd\": \" ls  \\n\", \"n\": 7})[]free({})[]|");
}

TEST_CASE("missing closers are closed by what follows") {
    CHECK(told(kOpen + invoke("run") + parameter("cmd") + "a " + parameter("n", "false") + "1" + kInvokeEnd + kClose) ==
          "||run({\"cmd\": \"a \", \"n\": 1})[missing_parameter_end]|");
    CHECK(told(kOpen + invoke("run") + parameter("cmd") + "a" + kParameterEnd + invoke("free") + kInvokeEnd + kClose) ==
          "||run({\"cmd\": \"a\"})[missing_invoke_end]free({})[]|");
    CHECK(told(kOpen + invoke("run") + parameter("cmd") + "a" + kClose + "bye") ==
          "bye||run({\"cmd\": \"a\"})[missing_parameter_end,missing_invoke_end]|text_after_block");
    // A tag without a readable name is a value's text, not its end.
    CHECK(told(kOpen + invoke("run") + parameter("cmd") + "a <" + D + "parameter> b" + kParameterEnd + kInvokeEnd + kClose) ==
          "||run({\"cmd\": \"a <" + D + "parameter> b\"})[]|");
}

TEST_CASE("a call cut off is incomplete and its arguments stay open") {
    CHECK(told(kOpen + invoke("run") + parameter("cmd") + "rm -rf /tm") ==
          "||!run({\"cmd\": \"rm -rf /tm)[incomplete]|missing_block_end");
    CHECK(told(kOpen + invoke("run") + parameter("n", "false") + "[1") == "||!run({\"n\": [1)[incomplete]|missing_block_end");
    CHECK(told(kOpen + invoke("run")) == "||!run()[incomplete]|missing_block_end");
    CHECK(told(kOpen + invoke("run") + parameter("cmd") + "x" + kParameterEnd + E) ==
          "||!run({\"cmd\": \"x\")[incomplete]|missing_block_end");
    CHECK(told("a\n\n<" + D + "tool_") == "a||" "|missing_block_end,empty_block,discarded");
}

TEST_CASE("values: strings are never parsed, JSON that is none becomes a string") {
    CHECK(told(kOpen + invoke("run") + parameter("cmd") + "{\"a\": 1}" + kParameterEnd + parameter("n", "false") +
               "Infinity" + kParameterEnd + kInvokeEnd + kClose) ==
          "||run({\"cmd\": \"{\\\"a\\\": 1}\", \"n\": \"Infinity\"})[invalid_json]|");
    const std::string deep = std::string(10000, '[') + std::string(10000, ']');
    DsmlStreamOptions options = offered();
    const DsmlLenientMessage message = parse_completion_lenient(
        kOpen + invoke("run") + parameter("n", "false") + deep + kParameterEnd + kInvokeEnd + kClose, options);
    CHECK(message.tool_calls.at(0).arguments == "{\"n\": \"" + deep + "\"}");
    CHECK(message.tool_calls.at(0).flags == kDsmlInvalidJson);
    options.max_buffered_value = 10;
    CHECK(told(kOpen + invoke("run") + parameter("n", "false") + "[1, 2, 3, 4]" + kParameterEnd + kInvokeEnd + kClose, options) ==
          "||run({\"n\": \"[1, 2, 3, 4]\"})[invalid_json]|");
    CHECK(told(kOpen + invoke("run") + parameter("n", "false") + "[1, 2, 34]" + kParameterEnd + kInvokeEnd + kClose, options) ==
          "||run({\"n\": [1, 2, 34]})[]|");
    CHECK(told(kOpen + invoke("run") + parameter("n", "false") + "1" + kParameterEnd + parameter("n", "false") + "2" +
               kParameterEnd + kInvokeEnd + kClose) == "||run({\"n\": 1})[duplicate_parameter]|discarded");
}

TEST_CASE("an arguments wrapper is opened only when the schema says it is one") {
    const auto call = [](const char *tool, const char *name, const char *type, const char *value, const char *more = "") {
        return told(kOpen + invoke(tool) + parameter(name, type) + value + kParameterEnd + more + kInvokeEnd + kClose);
    };
    CHECK(call("run", "arguments", "false", "{\"cmd\": \"x\", \"n\": 1.0}") == "||run({\"cmd\": \"x\", \"n\": 1.0})[unwrapped]|");
    CHECK(call("run", "input", "false", " {\"n\":2} ") == "||run({\"n\":2})[unwrapped]|");
    CHECK(call("run", "arguments", "true", "{\"cmd\": \"x\"}") == "||run({\"arguments\": \"{\\\"cmd\\\": \\\"x\\\"}\"})[]|");
    CHECK(call("run", "arguments", "false", "{\"other\": 1}") == "||run({\"arguments\": {\"other\": 1}})[]|");
    CHECK(call("wrap", "arguments", "false", "{\"arguments\": {}}") == "||wrap({\"arguments\": {\"arguments\": {}}})[]|");
    CHECK(call("free", "arguments", "false", "{\"cmd\": 1}") == "||free({\"arguments\": {\"cmd\": 1}})[]|");
    CHECK(call("run", "arguments", "false", "{\"n\": 1}", (parameter("cmd") + "x" + kParameterEnd).c_str()) ==
          "||run({\"arguments\": {\"n\": 1}, \"cmd\": \"x\"})[]|");
}

TEST_CASE("lost and misspelt markers need an offered tool") {
    const std::string bare = "<invoke name=\"run\">\n<parameter name=\"cmd\" string=\"true\">a</b></parameter>\n</invoke>\n";
    CHECK(told(bare) == "||run({\"cmd\": \"a</b>\"})[misspelt,missing_block]|separator");
    CHECK(told(bare, {}) == bare + "||" "|");
    std::string other = bare;
    other.replace(other.find("run"), 3, "ran");
    CHECK(told(other) == other + "||" "|");
    CHECK(told("x\n\n<|DSML|toolcalls>\n<|DSML|invoke name=\"run\">\n<|DSML|parameter name=\"n\" string=\"false\">3"
               "</|DSML|parameter>\n</|DSML|invoke>\n</|DSML|toolcalls>") == "x||run({\"n\": 3})[misspelt]|misspelt");
    CHECK(told("<tool_calls>\n<invoke name=\"run\">\n<parameter name=\"n\">3</parameter>\n</invoke>\n</tool_calls>") ==
          "||run({\"n\": 3})[misspelt,missing_type]|misspelt,separator");
    CHECK(told("<invoke name=\"run\" and more prose") == "<invoke name=\"run\" and more prose||" "|");
    // Inside exact markup, tags without a marker are a string's own business.
    CHECK(told(kOpen + invoke("run") + parameter("cmd") + "<a></parameter></invoke>" + kParameterEnd + kInvokeEnd + kClose) ==
          "||run({\"cmd\": \"<a></parameter></invoke>\"})[]|");
}

TEST_CASE("quoted markup is text") {
    const std::string block = kOpen + invoke("run") + parameter("cmd") + "x" + kParameterEnd + kInvokeEnd + kClose;
    const std::string inner = block.substr(2), piece = block.substr(2, 30);
    CHECK(told("```\n" + inner + "\n```\nso") == "```\n" + inner + "\n```\nso||" "|");
    CHECK(told("~~~~md" + block + "\n~~~\n~~~~\n") == "~~~~md" + block + "\n~~~\n~~~~\n||" "|");
    CHECK(told("say ``" + piece + "`` ok") == "say ``" + piece + "`` ok||" "|");
    // A closed fence or span quotes nothing any more.
    CHECK(told("```\nx\n```" + block) == "```\nx\n```||run({\"cmd\": \"x\"})[]|");
    CHECK(told("it`s" + block) == "it`s||run({\"cmd\": \"x\"})[]|");
    DsmlStreamOptions options = offered();
    options.thinking = true;
    CHECK(told("a" + block + " b</think>c", options) == "c|a" + block + " b||");
}

TEST_CASE("a flawless final block in unfinished reasoning or an open fence is reported, flagged") {
    const std::string block = kOpen + invoke("run") + parameter("cmd") + "x" + kParameterEnd + kInvokeEnd + kClose;
    DsmlStreamOptions options = offered();
    options.thinking = true;
    CHECK(told("a" + block + E, options) == "|a" + block + "|run({\"cmd\": \"x\"})[quoted]|missing_think_end");
    CHECK(told("a" + block + "\nand so on", options) == "|a" + block + "\nand so on||missing_think_end");
    const std::string cut = block.substr(0, block.size() - 3);
    CHECK(told("a" + cut, options) == "|a" + cut + "||missing_think_end");
    CHECK(told("```\ncode\n" + block) == "```\ncode\n" + block + "||run({\"cmd\": \"x\"})[quoted]|");
    options.tools.clear();
    CHECK(told("a" + block + E, options) == "|a" + block + "||missing_think_end");
}

TEST_CASE("text around blocks is content, and the separator is exactly two newlines") {
    const std::string call = invoke("free") + kInvokeEnd;
    CHECK(told("a\n" + kOpen + call + kClose + "\n\nb" + kOpen + call + kClose + E) ==
          "a\n\n\nb||free({})[]free({})[]|text_after_block");
    CHECK(told("a\n<" + D + "tool_calls>\n" + call + kClose) == "a\n||free({})[]|separator");
    CHECK(told(kOpen + call + "Done.") == "Done.||free({})[]|missing_block_end,text_after_block");
    CHECK(told("The <" + D + "tool_calls> marker") == "The <" + D + "tool_calls> marker||" "|");
    CHECK(told("a\n\n\n") == "a\n\n\n||" "|");
    CHECK(told("x" + E + "y") == "x||" "|discarded");
    CHECK(told("<think>r</think>c") == "c|r||stray_think");
}

TEST_CASE("arguments that cannot be read never turn into an empty call") {
    CHECK(told(kOpen + invoke("run") + "cmd=ls\n" + kInvokeEnd + kClose) == "||!run()[incomplete,stray_text]|discarded");
    CHECK(told(kOpen + invoke("run") + "{\"cmd\": \"x\"}\n" + kInvokeEnd + kClose) == "||run({\"cmd\": \"x\"})[json_body]|");
    CHECK(told(kOpen + invoke("run") + "hm " + parameter("n", "false") + "1" + kParameterEnd + kInvokeEnd + kClose) ==
          "||run({\"n\": 1})[stray_text]|discarded");
    CHECK(told(kOpen + parameter("cmd") + "x" + kParameterEnd + kInvokeEnd + kClose) == "|||empty_block,discarded");
    DsmlStreamOptions options = offered();
    options.max_buffered_value = 8;
    CHECK(told(kOpen + invoke("run") + "{\"n\": \"\u4f60\u597d\"}\n" + kInvokeEnd + kClose, options) == "||!run()[incomplete,stray_text]|discarded");
}

TEST_CASE("argument deltas arrive while a value is being written") {
    DsmlStreamParser parser(offered());
    std::vector<DsmlEvent> events;
    parser.feed(kOpen + invoke("run") + parameter("cmd") + "one ", events);
    REQUIRE(events.size() == 2);
    CHECK(events[0].kind == DsmlEvent::Kind::call_begin);
    CHECK(events[1].text == "{\"cmd\": \"one ");
    events.clear();
    parser.feed("two <", events);
    CHECK(events.at(0).text == "two ");  // '<' may open the closer
    events.clear();
    parser.feed("b>", events);
    CHECK(events.at(0).text == "<b>");
}

TEST_CASE("what is held back is bounded") {
    // Openers that never end, wherever they stand: the text must come out again without a finish().
    for (const std::string &lead : {std::string(), kOpen + invoke("run") + parameter("cmd")})
        for (const std::string &opener :
             {"<" + D + "parameter name=\"", std::string("<invoke name=\""), "<" + D + "invoke name=\""}) {
            DsmlStreamParser parser(offered());
            std::vector<DsmlEvent> events;
            parser.feed(lead + opener, events);
            size_t out = 0, in = opener.size();
            for (int i = 0; i < 5000; ++i, ++in) {
                std::vector<DsmlEvent> more;
                parser.feed("a", more);
                for (const DsmlEvent &event : more) out += event.text.size();
                CHECK(in < out + 2 * kMaxDsmlTag);
            }
        }
}

TEST_CASE("tools that are none are refused") {
    CHECK_THROWS_AS(dsml_tools_from_json("{}"), Error);
    CHECK_THROWS_AS(dsml_tools_from_json("[{\"type\": \"function\"}]"), Error);
    CHECK_THROWS_AS(dsml_tools_from_json(std::string(10000, '[')), Error);
}
