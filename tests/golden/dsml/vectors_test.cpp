// The parser against the published vectors (not part of the repository: skipped loudly where they are absent).
#include <fstream>
#include <iostream>
#include <map>
#include <sstream>

#include "core/error.hpp"
#include "core/text/dsml_stream.hpp"
#include "nlohmann/json.hpp"
#include "tests/catch.hpp"
#include "tests/unit/dsml/events.hpp"

using namespace dsv4;
using nlohmann::json;

namespace {

const std::string kVectors = DSV4_SOURCE_DIR "/../shared/vectors/";

bool read(const std::string &name, std::string &text) {
    std::ifstream in(kVectors + name, std::ios::binary);
    if (!in) {
        std::cerr << "SKIPPED: " << kVectors << name << " is absent; this check did not run\n";
        WARN("SKIPPED: vectors are absent");
        return false;
    }
    std::stringstream all;
    all << in.rdbuf();
    text = all.str();
    return true;
}

json calls_json(const std::vector<DsmlCall> &calls) {
    json out = json::array();
    for (const DsmlCall &call : calls)
        out.push_back({{"type", "function"}, {"function", {{"name", call.name}, {"arguments", call.arguments}}}});
    return out;
}

/// The release's message without the exception's type; ours may be shortened with "...".
bool same_error(const std::string &released, const std::string &ours) {
    std::string text = released.substr(released.find(": ") + 2);
    const size_t dots = ours.find("...");
    if (dots == std::string::npos) return text == ours;
    return text.substr(0, dots) == ours.substr(0, dots);
}

}  // namespace

TEST_CASE("strict parsing gives the release's verdict for every case") {
    std::string text;
    if (!read("encoding/cases.jsonl", text)) return;
    std::istringstream lines(text);
    size_t cases = 0, errors = 0;
    for (std::string line; std::getline(lines, line);) {
        const json item = json::parse(line);
        if (item["kind"] != "parse") continue;
        ++cases;
        const std::string completion = item["text"];
        const bool thinking = item["thinking_mode"] == "thinking";
        CAPTURE(completion);
        if (item.contains("error")) {
            ++errors;
            try {
                parse_completion_strict(completion, thinking);
                FAIL("expected " << item["error"]);
            } catch (const Error &e) {
                CHECK(same_error(item["error"], e.what()));
            }
            continue;
        }
        const DsmlMessage message = parse_completion_strict(completion, thinking);
        const json &want = item["message"];
        CHECK(json(message.content) == want["content"]);
        CHECK(json(message.reasoning_content) == want["reasoning_content"]);
        CHECK(calls_json(message.tool_calls) == want["tool_calls"]);
        CHECK(json::parse(message_to_json(message)) == want);
    }
    CHECK(cases == 157);
    CHECK(errors == 31);
}

TEST_CASE("where strict parsing succeeds, lenient parsing agrees") {
    std::string text;
    if (!read("encoding/cases.jsonl", text)) return;
    std::istringstream lines(text);
    size_t compared = 0;
    for (std::string line; std::getline(lines, line);) {
        const json item = json::parse(line);
        if (item["kind"] != "parse") continue;
        const std::string completion = item["text"];
        DsmlStreamOptions options;
        options.thinking = item["thinking_mode"] == "thinking";
        CAPTURE(completion);
        CHECK(test::split_that_differs(options, completion) == "");
        if (item.contains("error")) continue;
        const DsmlLenientMessage message = parse_completion_lenient(completion, options);
        CHECK(json(message.content) == item["message"]["content"]);
        CHECK(json(message.reasoning_content) == item["message"]["reasoning_content"]);
        CHECK(message.flags == 0);
        REQUIRE(message.tool_calls.size() == item["message"]["tool_calls"].size());
        for (size_t i = 0; i < message.tool_calls.size(); ++i) {
            const DsmlLenientCall &call = message.tool_calls[i];
            const json &want = item["message"]["tool_calls"][i]["function"];
            CHECK(json(call.name) == want["name"]);
            CHECK(call.complete);
            // Infinity and NaN are what Python prints, but no JSON: lenient parsing makes them strings and says so.
            if (call.flags & kDsmlInvalidJson)
                CHECK(want["arguments"].get<std::string>().find("NaN") != std::string::npos);
            else CHECK(json(call.arguments) == want["arguments"]);
            CHECK((call.flags & ~(kDsmlUnknownTool | kDsmlInvalidJson)) == 0);
            ++compared;
        }
    }
    CHECK(compared > 50);
}

TEST_CASE("the assistant turns of the published pairs parse strictly and re-read as the request has them") {
    size_t turns = 0;
    for (int n = 1; n <= 4; ++n) {
        std::string input, output;
        if (!read("encoding/test_input_" + std::to_string(n) + ".json", input) ||
            !read("encoding/test_output_" + std::to_string(n) + ".txt", output))
            return;
        const json request = json::parse(input);
        const json &messages = request.is_array() ? request : request["messages"];
        std::vector<json> want;
        for (const json &message : messages)
            if (message["role"] == "assistant") want.push_back(message);
        // A turn runs from the token after the assistant header to its EOS.
        const std::string header = "<\xEF\xBD\x9C" "Assistant\xEF\xBD\x9C>";
        size_t at = 0, turn = 0;
        while ((at = output.find(header, at)) != std::string::npos) {
            at += header.size();
            const size_t end = output.find(kEosText, at);
            if (end == std::string::npos) break;
            std::string text = output.substr(at, end + kEosText.size() - at);
            const bool thinking = text.substr(0, kThinkBegin.size()) == kThinkBegin;
            const std::string_view lead = thinking ? kThinkBegin : kThinkEnd;
            if (text.substr(0, lead.size()) != lead) continue;  // a task's turn has no thinking part
            text.erase(0, lead.size());
            if (text.find("action\xEF\xBD\x9C>") < 8) continue;  // a quick instruction's answer, no message
            CAPTURE(n, text);
            const DsmlMessage message = parse_completion_strict(text, thinking);
            const DsmlLenientMessage lenient = [&] {
                DsmlStreamOptions options;
                options.thinking = thinking;
                return parse_completion_lenient(text, options);
            }();
            CHECK(lenient.content == message.content);
            CHECK(lenient.reasoning_content == message.reasoning_content);
            CHECK(lenient.flags == 0);
            for (; turn < want.size(); ++turn)
                if (want[turn].value("content", json()) == json(message.content) ||
                    (message.content.empty() && want[turn].contains("tool_calls")))
                    break;
            REQUIRE(turn < want.size());
            const json &calls = want[turn].contains("tool_calls") ? want[turn]["tool_calls"] : json::array();
            REQUIRE(message.tool_calls.size() == calls.size());
            for (size_t i = 0; i < calls.size(); ++i) {
                CHECK(json(message.tool_calls[i].name) == calls[i]["function"]["name"]);
                CHECK(json::parse(message.tool_calls[i].arguments) ==
                      json::parse(calls[i]["function"]["arguments"].get<std::string>()));
            }
            ++turns;
        }
    }
    CHECK(turns >= 5);
}

namespace {

std::vector<DsmlTool> sample_tools() {
    using T = DsmlTool::Type;
    std::vector<DsmlTool> tools;
    const auto add = [&](const char *name, std::vector<std::pair<std::string, T>> properties) {
        tools.push_back({name, true, std::move(properties)});
    };
    add("bash", {{"command", T::string}});
    add("Bash", {{"command", T::string}});
    add("w", {{"location", T::string}, {"city", T::string}, {"unit", T::string}});
    add("get_weather", {{"location", T::string}, {"city", T::string}, {"date", T::string}});
    add("f", {{"a", T::string}, {"data", T::other}});
    add("write_file", {{"content", T::string}});
    add("read", {{"path", T::string}, {"filePath", T::string}});
    add("set_flag", {{"enabled", T::other}});
    add("record_item", {{"category", T::string}});
    return tools;
}

struct Outcome {
    const char *content;
    const char *reasoning;
    std::vector<std::string> calls;  // "name arguments flags", "!" in front of an incomplete one
    const char *flags;
};

}  // namespace

// What we make of each damaged completion. Where the sources disagree the reason is beside it.
TEST_CASE("the damaged completions have documented outcomes, whatever the chunks") {
    std::string text;
    if (!read("toolcalls/malformed.json", text)) return;
    const std::map<std::string, Outcome> outcomes = {
        // DeepSeek's stream parser loses the body and reports an executable call without arguments.
        {"direct_json_body_wrapped", {"", "", {"bash {\"command\": \"ls -la\"} unwrapped,json_body"}, "separator"}},
        // Arguments stay a cut-off text: closing them would let a host run a half-written command.
        {"parameter_truncated_mid_closer",
         {"", "", {"!w {\"location\": \"Paris\" incomplete"}, "missing_block_end,discarded,separator"}},
        // The inner value is no object with known keys, so nothing is unwrapped; the host's validation will refuse it.
        {"direct_json_body_bare_scalar",
         {"", "", {"bash {\"arguments\": \"ls -la\"} json_body"}, "separator"}},
        // Other control tokens are text: dropping them would change what the model said.
        {"bos_leak_in_content", {"Hello<｜begin▁of▁sentence｜> world", "", {}, ""}},
        // Exact markup is never shown as content; the engine's grammar is what enforces tool_choice.
        {"tool_choice_none_leak", {"", "", {"Bash {\"command\": \"pwd\"} "}, "separator"}},
        // The strict rule would swallow the second parameter into the value. "Paris " keeps its space.
        {"parameter_end_missing_before_next",
         {"", "", {"get_weather {\"location\": \"Paris \", \"date\": \"tomorrow\"} missing_parameter_end"},
          "separator"}},
        {"parameter_end_misspelt", {"", "", {"w {\"city\": \"Paris\"} misspelt"}, "separator"}},
        {"missing_invoke_end_before_wrapper_end",
         {"", "", {"get_weather {\"location\": \"NYC\"} missing_invoke_end"}, "separator"}},
        {"text_after_block", {"\nDone.", "", {"f {\"a\": \"1\"} "}, "separator,text_after_block"}},
        // vLLM ends reasoning at the block. Markup in reasoning is text here, but a flawless block of an offered tool
        // that is the very last thing is also reported, flagged, so that the call is not lost.
        {"tool_call_in_thinking_no_end_think",
         {"",
          "Let me look up the weather.\n\n<｜DSML｜tool_calls><｜DSML｜invoke name=\"get_weather\">\n<｜DSML｜parameter "
          "name=\"location\" string=\"true\">NYC</｜DSML｜parameter>\n</｜DSML｜invoke></｜DSML｜tool_calls>",
          {"get_weather {\"location\": \"NYC\"} quoted"},
          "missing_think_end"}},
        {"truncated_mid_value",
         {"", "", {"!write_file {\"content\": \"def f():\\n    ret incomplete"}, "missing_block_end,separator"}},
        {"orphan_invoke_then_wrapper_end",
         {"", "", {"get_weather {\"city\": \"Paris\"} missing_block"}, "separator"}},
        {"parameter_end_no_gt",
         {"", "", {"w {\"city\": \"Tokyo\", \"unit\": \"celsius\"} misspelt"}, "separator"}},
        {"empty_block", {"before\nafter", "", {}, "empty_block,text_after_block"}},
        // DeepSeek's stream parser passes broken JSON on; vLLM makes a string, and so do we.
        {"invalid_json_string_false", {"", "", {"f {\"data\": \"[broken\"} invalid_json"}, "separator"}},
        {"double_pipe_v41_spaced",
         {"I'll run a grilling session. First, let me read the skill and gather the facts.\n",
          "",
          {"read {\"path\": \"/Users/xiaodi/.agents/skills/grill-me/SKILL.md\"} misspelt"},
          "misspelt,text_after_block"}},
        {"wrapper_misspelt_toolcalls", {"", "", {"get_weather {\"city\": \"Seoul\"} "}, "misspelt,separator"}},
        // Nothing but a cut-off opener: no call, no markup on the screen.
        {"wrapper_only_truncated",
         {"", "", {}, "misspelt,missing_block_end,empty_block,separator"}},
        // The invoke itself is whole, so the call is complete; the message says that the block was not closed.
        {"unterminated_section",
         {"", "", {"get_weather {\"city\": \"Paris\"} "}, "missing_block_end,separator"}},
        // Closers that close nothing are text, as in DeepSeek's parser: there is no call to attach them to.
        {"stray_closers_in_content",
         {"</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜tool_calls>The result is 4.", "", {}, ""}},
        // A name is never guessed, even if one tool alone would fit.
        {"invoke_opener_missing", {"", "", {}, "empty_block,discarded,separator"}},
        {"arguments_wrapper_bash", {"", "", {"bash {\"command\": \"ls -la\"} unwrapped"}, "separator"}},
        // No invoke follows the misspelt opener, so no name can be matched: all of it stays text.
        {"toolcall_then_fenced_json",
         {"我来调整逐日预测明细表格的宽度，使其更美观。先查看当前表格的宽度设置。\n\n<｜DSML｜toolcall>Read\n\n```json\n"
          "{\"file_path\":\"/tmp/gen_report.js\",\"offset\":100,\"limit\":20}\n``` \n",
          "",
          {},
          ""}},
        // sglang reported an executable {}; the schema says the value is not a string, so `true` is read as JSON.
        {"parameter_no_marker_no_string_attr",
         {"I'll call the `set_flag` function to enable the flag.\n",
          "",
          {"set_flag {\"enabled\": true} misspelt,missing_type"},
          "text_after_block"}},
        {"quoted_markup_in_prose", {"To call a tool write `<｜DSML｜invoke name=\"x\">` and close it.", "", {}, ""}},
        {"bare_invoke_no_dsml_marker",
         {"",
          "",
          {"read {\"filePath\": \"/home/codearea/steelclaw/workspace/coding/mighty-app/frontend/src/lib/api.ts\"} "
           "misspelt,missing_block"},
          "separator"}},
        // The opener never ends: no name, no call, and the prose is not a tool's name.
        {"unterminated_name_with_prose",
         {"", "", {}, "missing_block_end,empty_block,discarded,separator"}},
        {"bare_invoke_with_marker", {"", "", {"get_weather {\"city\": \"Paris\"} missing_block"}, "separator"}},
        {"bare_think_end_in_chat", {"Here is the direct answer.", "", {}, "stray_think"}},
        {"function_calls_block_name", {"", "", {"get_weather {\"city\": \"北京\"} "}, "misspelt,separator"}},
    };
    const json samples = json::parse(text);
    CHECK(samples.size() == outcomes.size());
    for (const json &sample : samples) {
        const std::string id = sample["id"], completion = sample["text"];
        CAPTURE(id);
        const auto outcome = outcomes.find(id);
        REQUIRE(outcome != outcomes.end());
        const Outcome &want = outcome->second;
        DsmlStreamOptions options;
        options.thinking = sample["thinking"];
        options.tools = sample_tools();
        const DsmlLenientMessage message = parse_completion_lenient(completion, options);
        CHECK(message.content == want.content);
        CHECK(message.reasoning_content == want.reasoning);
        CHECK(dsml_flag_names(message.flags) == want.flags);
        std::vector<std::string> calls;
        for (const DsmlLenientCall &call : message.tool_calls) {
            calls.push_back((call.complete ? "" : "!") + call.name + " " + call.arguments + " " +
                            dsml_flag_names(call.flags));
            if (call.complete) CHECK(check_json(call.arguments) == JsonVerdict::valid);
        }
        CHECK(calls == want.calls);
        CHECK(test::split_that_differs(options, completion) == "");
        if (sample["official_strict"].contains("error")) CHECK_THROWS_AS(parse_completion_strict(completion, options.thinking), Error);
    }
}
