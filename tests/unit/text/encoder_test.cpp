// The rules of the prompt format, each with the smallest conversation that shows it.
#include "core/error.hpp"
#include "core/text/encoder.hpp"
#include "tests/catch.hpp"

using namespace dsv4;

namespace {

const std::string bos = "<｜begin▁of▁sentence｜>", eos = "<｜end▁of▁sentence｜>", user = "<｜User｜>",
                  assistant = "<｜Assistant｜>";

/// `messages` is the array's JSON, `more` further members of the request.
std::string encode(const std::string &messages, const std::string &more = "", const char *dialect = "preview") {
    const std::string request = "{\"messages\": " + messages + (more.empty() ? "" : ", ") + more + "}";
    const EncodedPrompt prompt = encode_prompt(Conversation::from_request(request), find_dialect(dialect));
    size_t last = 0;
    for (const auto &content : prompt.contents) {
        CHECK(content.begin >= last);
        CHECK(content.end > content.begin);
        last = content.end;
    }
    CHECK(last <= prompt.text.size());
    return prompt.text;
}

std::string error_of(const std::string &messages, const std::string &more = "") {
    try {
        encode(messages, more);
    } catch (const Error &e) {
        CHECK(e.status == DSV4_E_INVALID);
        return e.what();
    }
    return "no error";
}

bool starts(const std::string &text, const std::string &with) { return text.rfind(with, 0) == 0; }
bool has(const std::string &text, const std::string &part) { return text.find(part) != std::string::npos; }

const std::string thinking = R"("thinking_mode": "thinking")";

} // namespace

TEST_CASE("headers and think tokens") {
    CHECK(encode("[]") == bos);
    CHECK(encode("[]", R"("add_default_bos_token": false)").empty());
    CHECK(encode(R"([{"role":"user","content":"a"}])") == bos + user + "a" + assistant + "</think>");
    CHECK(encode(R"([{"role":"user","content":"a"}])", thinking) == bos + user + "a" + assistant + "<think>");
    CHECK(
        encode(
            R"([{"role":"system","content":"s"},{"role":"user","content":"a"},{"role":"assistant","content":"b"}])") ==
        bos + "s" + user + "a" + assistant + "</think>b" + eos);
    CHECK(
        encode(
            R"([{"role":"user","content":"a"},{"role":"assistant","content":"b","reasoning_content":"r"},{"role":"assistant","content":"c"}])",
            thinking) == bos + user + "a" + assistant + "<think>r</think>b" + eos + "</think>c" + eos);
    CHECK(
        encode(
            R"([{"role":"user","content":"a"},{"role":"assistant","content":"b","reasoning_content":"r","wo_eos":true}])") ==
        bos + user + "a" + assistant + "</think>b");
    // A trailing system or latest_reminder asks for nothing.
    CHECK(encode(R"([{"role":"user","content":"a"},{"role":"system","content":"s"}])") == bos + user + "as");
    CHECK(encode(R"([{"role":"user","content":"a"},{"role":"latest_reminder","content":"now"}])") ==
          bos + user + "a" + assistant + "</think><｜latest_reminder｜>now");
    CHECK(encode(R"([{"role":"user"},{"role":"assistant"}])") == bos + user + assistant + "</think>" + eos);
}

TEST_CASE("user turns join, tool results are sorted into them") {
    CHECK(encode(R"([{"role":"user","content":"a"},{"role":"user","content":"b"}])") ==
          bos + user + "a\n\nb" + assistant + "</think>");
    CHECK(encode(R"([{"role":"tool","content":"t"},{"role":"user","content":" b "}])") ==
          bos + user + "<tool_result>t</tool_result>\n\n b " + assistant + "</think>");
    CHECK(
        encode(
            R"([{"role":"tool"},{"role":"tool","content":null},{"role":"tool","content":[{"type":"text","text":"x"},{"type":"image_url"},{"type":"text"}]}])") ==
        bos + user +
            "<tool_result></tool_result>\n\n<tool_result>None</tool_result>\n\n<tool_result>x\n\n[Unsupported "
            "image_url]\n\n</tool_result>" +
            assistant + "</think>");
    const std::string calls =
        R"({"role":"assistant","tool_calls":[{"id":"p","function":{"name":"f","arguments":"{}"}},{"id":"q","function":{"name":"f","arguments":"{}"}},{"id":"r","function":{"name":"f","arguments":"{}"}}]},)";
    const auto order = [&](const std::string &results) {
        const std::string text = encode("[" + calls + results + "]");
        return text.substr(text.find(eos + user) + (eos + user).size());
    };
    CHECK(
        order(
            R"({"role":"tool","tool_call_id":"r","content":"3"},{"role":"user","content":"u"},{"role":"tool","tool_call_id":"q","content":"2"})") ==
        "<tool_result>2</tool_result>\n\nu\n\n<tool_result>3</tool_result>" + assistant + "</think>");
    // An unknown id ranks with the first call; equals keep their order.
    CHECK(
        order(
            R"({"role":"tool","tool_call_id":"q","content":"2"},{"role":"tool","tool_call_id":"?","content":"x"},{"role":"tool","tool_call_id":"p","content":"1"})") ==
        "<tool_result>x</tool_result>\n\n<tool_result>1</tool_result>\n\n<tool_result>2</tool_result>" + assistant +
            "</think>");
}

TEST_CASE("tasks") {
    CHECK(encode(R"([{"role":"user","content":"a","task":"title"}])", thinking) == bos + user + "a<｜title｜>");
    CHECK(encode(R"([{"role":"user","content":"a","task":"action"}])", thinking) ==
          bos + user + "a" + assistant + "<think><｜action｜>");
    CHECK(encode(R"([{"role":"user","content":"a","task":"action"},{"role":"assistant","content":"Search"}])") ==
          bos + user + "a" + assistant + "</think><｜action｜>Search" + eos);
    // The answer to a task has no thinking part; a task keeps a user message from joining, not a tool result.
    CHECK(
        encode(
            R"([{"role":"user","content":"a","task":"query"},{"role":"assistant","content":"q","reasoning_content":"r"}])",
            thinking) == bos + user + "a<｜query｜>q" + eos);
    CHECK(encode(R"([{"role":"user","content":"a","task":"query"},{"role":"user","content":"b"}])") ==
          bos + user + "a" + user + "b" + assistant + "</think>");
    CHECK(encode(R"([{"role":"user","content":"a","task":"query"},{"role":"tool","content":"b"}])") ==
          bos + user + "a\n\n<tool_result>b</tool_result><｜query｜>");
    CHECK(encode(R"([{"role":"user","content":"a"},{"role":"assistant","content":"b","task":"title"}])") ==
          bos + user + "a" + assistant + "</think>b" + eos + "<｜title｜>");
}

TEST_CASE("dropping earlier thinking") {
    const std::string two =
        R"([{"role":"user","content":"a"},{"role":"assistant","content":"b","reasoning_content":"r"},{"role":"developer","content":"d"},{"role":"assistant","content":"e","reasoning_content":"s"},{"role":"user","content":"c"}])";
    CHECK(encode(two, thinking) ==
          bos + user + "a" + assistant + "</think>b" + eos + "e" + eos + user + "c" + assistant + "<think>");
    CHECK(encode(two, thinking + R"(, "drop_thinking": false)") ==
          bos + user + "a" + assistant + "<think>r</think>b" + eos + user + "d" + assistant + "<think>s</think>e" +
              eos + user + "c" + assistant + "<think>");
    CHECK(encode(two).find(user + "d") != std::string::npos); // chat mode removes no one
    const std::string with_tools =
        R"([{"role":"system","tools":[{"function":{"name":"f"}}]},{"role":"user","content":"a"},{"role":"assistant","content":"b","reasoning_content":"r"},{"role":"user","content":"c"}])";
    CHECK(has(encode(with_tools, thinking), "<think>r</think>b"));
    // A tool result counts as a user turn; unknown roles before it are forgotten with the developer messages.
    CHECK(encode(R"([{"role":"robot"},{"role":"assistant","reasoning_content":"r"},{"role":"tool","content":"t"}])",
                 thinking) == bos + eos + user + "<tool_result>t</tool_result>" + assistant + "<think>");
}

TEST_CASE("a context is not written again") {
    const std::string context =
        R"("context": [{"role":"system","content":"s"},{"role":"user","content":"a"},{"role":"assistant","tool_calls":[{"id":"1","function":{"name":"f","arguments":"{}"}},{"id":"2","function":{"name":"f","arguments":"{}"}}]}])";
    CHECK(
        encode(R"([{"role":"tool","tool_call_id":"2","content":"y"},{"role":"tool","tool_call_id":"1","content":"x"}])",
               context) ==
        user + "<tool_result>x</tool_result>\n\n<tool_result>y</tool_result>" + assistant + "</think>");
    CHECK(encode("[]", context).empty());
    CHECK(encode(R"([{"role":"user","content":"a"}])", R"("context": [])") ==
          bos + user + "a" + assistant + "</think>");
}

TEST_CASE("reasoning effort by dialect") {
    const std::string m = R"([{"role":"user","content":"a"}])", none = encode(m, thinking);
    const auto effort = [&](const char *level, const char *dialect, const std::string &mode = thinking) {
        return encode(m, mode + R"(, "reasoning_effort": ")" + level + "\"", dialect);
    };
    const std::string absolute = bos + "Reasoning Effort: Absolute maximum with no shortcuts permitted.\n",
                      beyond = bos + "Reasoning Effort: Beyond maximum — exhaustive, relentless, and uncompromising.\n";
    CHECK(effort("high", "preview") == none);
    CHECK(starts(effort("max", "preview"), absolute));
    CHECK(effort("low", "0731") == none);
    CHECK(effort("high", "0731") == effort("max", "preview"));
    CHECK(starts(effort("max", "0813"), beyond));
    CHECK(has(effort("max", "0813"), "\n\n" + user + "a"));
    CHECK(encode(m, thinking, "0731") == none);
    CHECK(effort("max", "preview", R"("thinking_mode": "chat")") == encode(m));
    CHECK_THROWS_AS(effort("low", "preview"), Error);
    CHECK_THROWS_AS(effort("medium", "0731"), Error);
    CHECK_THROWS_AS(find_dialect("0999"), Error);
    CHECK_FALSE(has(encode(m, thinking + R"(, "reasoning_effort": "max", "context": [{"role":"user","content":"z"}])"),
                    "Effort"));
}

TEST_CASE("arguments become parameters, their text untouched") {
    const auto call = [](const std::string &arguments) {
        const std::string text =
            encode(R"([{"role":"assistant","content":"c","tool_calls":[{"function":{"name":"f","arguments":)" +
                   arguments + "}}]}]");
        const std::string open = "c\n\n<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"f\">\n",
                          close = "\n</｜DSML｜invoke>\n</｜DSML｜tool_calls>";
        const size_t begin = text.find(open) + open.size();
        return text.substr(begin, text.find(close, begin) - begin);
    };
    const auto parameter = [](const std::string &name, bool string, const std::string &value) {
        return "<｜DSML｜parameter name=\"" + name + "\" string=\"" + (string ? "true" : "false") + "\">" + value +
               "</｜DSML｜parameter>";
    };
    CHECK(call(R"("{}")").empty());
    CHECK(call(R"("{\"a\": \" x<>&\\n\", \"q\\\"q\": [1.50, 1e2, {\"k\": \"é\"}], \"n\": null}")") ==
          parameter("a", true, " x<>&\n") + "\n" + parameter("q\"q", false, "[1.5, 100.0, {\"k\": \"é\"}]") + "\n" +
              parameter("n", false, "null"));
    CHECK(call(R"("{\"a\": 1, \"b\": 2, \"a\": 3}")") ==
          parameter("a", false, "3") + "\n" + parameter("b", false, "2"));
    CHECK(call(R"("not json")") == parameter("arguments", true, "not json"));
    CHECK(call(R"("")") == parameter("arguments", true, ""));
    CHECK(call(R"("{\"a\": 1")") == parameter("arguments", true, "{\"a\": 1"));
    CHECK(call(R"({"a": "x"})") == parameter("a", true, "x"));
    CHECK(call("null") == parameter("arguments", false, "null"));
    const std::string deep = std::string(10'000, '[') + std::string(10'000, ']');
    CHECK(call("\"" + deep + "\"") == parameter("arguments", true, deep));
}

TEST_CASE("tools and response formats") {
    const std::string with_both = encode(
        R"([{"role":"system","content":"s","tools":[{"type":"function","function":{"name":"a","strict":true}},{"function":{"name":"b"}}],"response_format":{"x":1.0}}])");
    CHECK(starts(with_both, bos + "s\n\n## Tools\n\nYou have access"));
    CHECK(has(with_both,
              "### Available Tool Schemas\n\n{\"name\": \"a\", \"strict\": true}\n{\"name\": \"b\"}\n\nYou MUST "
              "strictly follow the above defined tool name and parameter schemas to invoke tool calls.\n"
              "\n\n## Response Format:\n\nYou MUST strictly adhere to the following schema to reply:\n{\"x\": 1.0}"));
    CHECK(encode(R"([{"role":"system","content":"s","tools":[],"response_format":{}}])") == bos + "s");
    // Beside the messages: on the first system or developer message, or on one made for them.
    const std::string tools = R"("tools": [{"function": {"name": "a"}}])";
    CHECK(
        encode(R"([{"role":"system","content":"s"},{"role":"user","content":"u"}])", tools) ==
        encode(
            R"([{"role":"system","content":"s","tools":[{"function":{"name":"a"}}]},{"role":"user","content":"u"}])"));
    CHECK(starts(encode(R"([{"role":"developer","content":"d"}])", tools), bos + user + "d\n\n## Tools"));
    CHECK(encode(R"([{"role":"user","content":"u"}])", tools) ==
          encode(
              R"([{"role":"system","content":"","tools":[{"function":{"name":"a"}}]},{"role":"user","content":"u"}])"));
    CHECK(has(error_of(R"([{"role":"system","tools":[{"function":{}}]}])", tools), "messages[0]"));
}

TEST_CASE("errors name the message, by the caller's count") {
    const std::string u = R"({"role":"user","content":"u"},)";
    CHECK(error_of("[" + u + u + R"({"role":"robot"}])") == "messages[2]: unknown role \"robot\"");
    CHECK(error_of("[" + u + R"({"content":"x"}])") == "messages[1]: unknown role none");
    CHECK(starts(error_of("[" + u + u + u + R"({"role":"developer","content":""}])"),
                 "messages[3]: a developer message needs content"));
    CHECK(starts(error_of("[" + u + R"({"role":"user","content":"x","task":"nap"}])"), "messages[0]: ") == false);
    CHECK(starts(error_of("[" + u + R"({"role":"assistant"},{"role":"user","content":"x","task":"nap"}])"),
                 "messages[2]: unknown task \"nap\""));
    CHECK(starts(error_of("[" + u + R"({"role":"user","content":null}])"),
                 "messages[1]: content: expected a string, found null"));
    CHECK(starts(error_of("[" + u + R"({"role":"tool","content":5}])"), "messages[1]: content"));
    CHECK(starts(error_of("[" + u + R"({"role":"tool","content":[5]}])"), "messages[1]: content[0]"));
    CHECK(starts(error_of("[" + u + "7]"), "messages[1]: expected an object"));
    CHECK(starts(error_of("[" + u + R"({"role":"assistant","content":[1]}])"), "messages[1]: content"));
    CHECK(starts(error_of("[" + u + R"({"role":"assistant","tool_calls":{"a":1}}])"), "messages[1]: tool_calls"));
    CHECK(starts(error_of("[" + u + R"({"role":"assistant","tool_calls":[3]}])"), "messages[1]: tool_calls[0]"));
    CHECK(starts(error_of("[" + u + R"({"role":"assistant","tool_calls":[{"function":{"arguments":"{}"}}]}])"),
                 "messages[1]: tool_calls[0].function.name"));
    CHECK(starts(error_of("[" + u + R"({"role":"assistant","tool_calls":[{"function":{"name":"f"}}]}])"),
                 "messages[1]: tool_calls"));
    CHECK(starts(
        error_of("[" + u + R"({"role":"assistant","tool_calls":[{"function":{"name":"f","arguments":"[1]"}}]}])"),
        "messages[1]: tool_calls"));
    CHECK(starts(error_of("[" + u + R"({"role":"system","tools":[{"name":"f"}]}])"), "messages[1]: tools[0]"));
    // The system message made for tools is not counted.
    CHECK(starts(error_of("[" + u + R"({"role":"robot"}])", R"("tools": [{"function": {}}])"),
                 "messages[1]: unknown role"));
    CHECK(starts(error_of("[5]", R"("tools": [{"function": {}}])"), "messages[0]"));
    CHECK(starts(error_of("[]", R"("context": [3])"), "context[0]"));
}

TEST_CASE("the parts of a prompt are told apart") {
    Conversation conversation;
    conversation.options.thinking = true;
    conversation.add_system("sys")
        .add_tool(R"({"name": "f"})")
        .add_user("one")
        .add_user("two")
        .add_assistant("answer", "why")
        .add_tool_call("1", "f", R"({"k": "v"})")
        .add_tool_result("1", "res");
    const EncodedPrompt prompt = encode_prompt(conversation, find_dialect("preview"));
    std::vector<std::pair<Origin, std::string>> parts;
    for (const auto &c : prompt.contents) parts.emplace_back(c.origin, prompt.text.substr(c.begin, c.end - c.begin));
    CHECK(parts == std::vector<std::pair<Origin, std::string>>{{Origin::system, "sys"},
                                                               {Origin::tool_schema, R"({"name": "f"})"},
                                                               {Origin::user, "one"},
                                                               {Origin::user, "two"},
                                                               {Origin::reasoning, "why"},
                                                               {Origin::assistant, "answer"},
                                                               {Origin::tool_call, "f"},
                                                               {Origin::tool_call, "k"},
                                                               {Origin::tool_call, "v"},
                                                               {Origin::tool_result, "res"}});
    REQUIRE(prompt.answers.size() == 1);
    const auto &answer = prompt.answers[0];
    CHECK(answer.message == 3);
    CHECK(answer.thinking);
    CHECK(answer.eos);
    const std::string said = prompt.text.substr(answer.begin, answer.end - answer.begin);
    CHECK(starts(said, "why</think>answer\n\n<｜DSML｜tool_calls>"));
    CHECK(said.substr(said.size() - eos.size()) == eos);
}
