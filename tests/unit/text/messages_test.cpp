#include "core/error.hpp"
#include "core/text/encoder.hpp"
#include "tests/catch.hpp"

using namespace dsv4;

namespace {
std::string prompt_of(const Conversation &conversation) {
    return encode_prompt(conversation, find_dialect("preview")).text;
}
std::string error_of(const char *request) {
    try {
        Conversation::from_request(request);
    } catch (const Error &e) {
        CHECK(e.status == DSV4_E_INVALID);
        return e.what();
    }
    return "no error";
}
} // namespace

TEST_CASE("the builder and the JSON give the same prompt") {
    Conversation built;
    built.options.thinking = true;
    built.add_system("Be brief.")
        .set_response_format(R"({"type": "object"})")
        .add_user("Weather in Paris and Rome?")
        .add_assistant("Looking.", "Two calls.")
        .add_tool_call("c1", "weather", R"({"city": "Paris", "days": 2})")
        .add_tool_call("c2", "weather", R"({"city": "Rome"})")
        .add_tool_result("c2", "rain")
        .add_tool_result("c1", "sun")
        .add_user("And now?")
        .add_latest_reminder("2026-01-01")
        .add_tool(R"({"type": "function", "function": {"name": "weather", "parameters": {}}})")
        .add_tool(R"({"name": "clock"})");
    const Conversation given = Conversation::from_request(R"({
        "thinking_mode": "thinking", "model": "ignored", "temperature": 1,
        "tools": [{"type": "function", "function": {"name": "weather", "parameters": {}}}, {"type": "function", "function": {"name": "clock"}}],
        "messages": [
          {"role": "system", "content": "Be brief.", "response_format": {"type": "object"}},
          {"role": "user", "content": "Weather in Paris and Rome?"},
          {"role": "assistant", "content": "Looking.", "reasoning_content": "Two calls.", "tool_calls": [
            {"type": "function", "id": "c1", "function": {"name": "weather", "arguments": "{\"city\": \"Paris\", \"days\": 2}"}},
            {"type": "function", "id": "c2", "function": {"name": "weather", "arguments": "{\"city\": \"Rome\"}"}}]},
          {"role": "tool", "tool_call_id": "c2", "content": "rain"},
          {"role": "tool", "tool_call_id": "c1", "content": "sun"},
          {"role": "user", "content": "And now?"},
          {"role": "latest_reminder", "content": "2026-01-01"}]})");
    CHECK(prompt_of(built) == prompt_of(given));
    CHECK(prompt_of(built).find("<tool_result>sun</tool_result>\n\n<tool_result>rain</tool_result>\n\nAnd now?") !=
          std::string::npos);
    CHECK(prompt_of(built).find("{\"name\": \"clock\"}\n\nYou MUST strictly follow") != std::string::npos);
}

TEST_CASE("a tool call makes its assistant message when there is none") {
    Conversation conversation;
    conversation.add_user("x").add_tool_call("", "f", "{}");
    CHECK(prompt_of(conversation) == "<｜begin▁of▁sentence｜><｜User｜>x<｜Assistant｜></"
                                     "think>\n\n<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"f\">\n\n"
                                     "</｜DSML｜invoke>\n</｜DSML｜tool_calls><｜end▁of▁sentence｜>");
    CHECK(conversation.messages().size() == 2);
}

TEST_CASE("a request's options") {
    const Conversation plain = Conversation::from_request(R"([{"role": "user", "content": "x"}])");
    CHECK_FALSE(plain.options.thinking);
    CHECK(plain.options.drop_thinking);
    CHECK(plain.options.add_bos);
    CHECK(plain.options.reasoning_effort.empty());
    const Conversation full = Conversation::from_request(
        R"({"messages": [], "thinking_mode": "thinking", "reasoning_effort": "max", "drop_thinking": false, "add_default_bos_token": false, "context": [{"role": "user"}]})");
    CHECK(full.options.thinking);
    CHECK(full.options.reasoning_effort == "max");
    CHECK_FALSE(full.options.drop_thinking);
    CHECK_FALSE(full.options.add_bos);
    CHECK(full.context().size() == 1);
}

TEST_CASE("requests that are none are errors") {
    CHECK(error_of("{}") == "request: expected \"messages\", found none");
    CHECK(error_of("3").find("found integer") != std::string::npos);
    CHECK(error_of(R"({"messages": {}})").find("request.messages: expected an array, found object") !=
          std::string::npos);
    CHECK(error_of(R"({"messages": [], "tools": 1})").find("request.tools") != std::string::npos);
    CHECK(error_of(R"({"messages": [], "thinking_mode": "deep"})").find("\"deep\"") != std::string::npos);
    CHECK(error_of(R"({"messages": [], "drop_thinking": 1})").find("request.drop_thinking") != std::string::npos);
    CHECK(error_of(R"({"messages": [], "reasoning_effort": 3})").find("request.reasoning_effort") != std::string::npos);
    CHECK(error_of(R"({"messages": [)").find("at byte") != std::string::npos);
    CHECK(error_of((std::string(10'000, '[') + std::string(10'000, ']')).c_str()).find("at most 1000") !=
          std::string::npos);
}

TEST_CASE("the builder refuses what cannot become a message") {
    Conversation c;
    CHECK_THROWS_AS(c.add_user("\xFF"), Error);
    CHECK_THROWS_AS(c.add_assistant("ok", "\xFF"), Error);
    CHECK_THROWS_AS(c.add_tool_result("\xFF", "ok"), Error);
    CHECK_THROWS_AS(c.add_tool_call("\xFF", "f", "{}"), Error);
    CHECK_THROWS_AS(c.add_message("[]"), Error);
    CHECK_THROWS_AS(c.add_message("{"), Error);
    CHECK_THROWS_AS(c.add_tool("{\"x\": 1}"), Error);
    CHECK_THROWS_AS(c.set_task("title"), Error);
    CHECK(c.messages().empty());
    CHECK(c.tools().empty());
    c.add_user("x");
    CHECK_THROWS_AS(c.set_response_format("{}"), Error);
    c.set_task("title");
    CHECK(prompt_of(c) == "<｜begin▁of▁sentence｜><｜User｜>x<｜title｜>");
}
