// An agent with real tools: the model asks for a call, this program runs it and hands the result back, until the answer
// comes as text. Every call is held to its schema by the library, so arguments need no checking for syntax.
//
//   agent MODEL_FOLDER [REQUEST ...]
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>
#include <string_view>
#include <vector>
#include "dsv4/dsv4.hpp"

namespace {

struct Call {
    std::string id, name, arguments;
};

/// Sums and products of plain numbers: what the calculator tool understands.
class Calculator {
  public:
    explicit Calculator(const std::string &text) : at_(text.c_str()) {}
    bool run(double &value) { return sum(value) && (skip(), *at_ == '\0'); }

  private:
    void skip() { while (*at_ == ' ') ++at_; }
    bool number(double &v) {
        skip();
        char *end = nullptr;
        v = std::strtod(at_, &end);
        const bool ok = end != at_;
        at_ = end;
        return ok;
    }
    bool product(double &v) {
        if (!number(v)) return false;
        for (skip(); *at_ == '*' || *at_ == '/'; skip()) {
            const char op = *at_++;
            double right = 0;
            if (!number(right)) return false;
            v = op == '*' ? v * right : v / right;
        }
        return true;
    }
    bool sum(double &v) {
        if (!product(v)) return false;
        for (skip(); *at_ == '+' || *at_ == '-'; skip()) {
            const char op = *at_++;
            double right = 0;
            if (!product(right)) return false;
            v = op == '+' ? v + right : v - right;
        }
        return true;
    }
    const char *at_;
};

/// The value of a string parameter in a JSON object of string parameters. A program with richer tools takes a JSON
/// library.
std::string parameter(const std::string &arguments, const std::string &name) {
    const size_t key = arguments.find("\"" + name + "\"");
    if (key == std::string::npos) return "";
    std::string value;
    for (size_t i = arguments.find('"', arguments.find(':', key)) + 1; i < arguments.size() && arguments[i] != '"'; ++i) {
        if (arguments[i] == '\\' && i + 1 < arguments.size()) ++i;
        value += arguments[i];
    }
    return value;
}

std::string quoted(const std::string &text) {
    std::string out = "\"";
    for (const char c : text) {
        if (c == '"' || c == '\\') out += '\\';
        out += c;
    }
    return out + "\"";
}

constexpr const char *tools[] = {
    R"({"type": "function", "function": {"name": "calculate", "description": "Evaluate an arithmetic expression",
        "parameters": {"type": "object", "properties": {"expression": {"type": "string",
        "description": "The expression, for example 2 + 3"}}, "required": ["expression"]}}})",
    R"({"type": "function", "function": {"name": "save_note", "description": "Save a note under a key",
        "parameters": {"type": "object", "properties": {"key": {"type": "string", "description": "Key of the note"},
        "value": {"type": "string", "description": "Text to store"}}, "required": ["key", "value"]}}})",
    R"({"type": "function", "function": {"name": "read_note", "description": "Read the note under a key",
        "parameters": {"type": "object", "properties": {"key": {"type": "string", "description": "Key of the note"}},
        "required": ["key"]}}})"};

class Notebook {
  public:
    std::string run(const Call &call) {
        if (call.name == "calculate") {
            double value = 0;
            if (!Calculator(parameter(call.arguments, "expression")).run(value)) return R"({"error": "bad expression"})";
            char text[64];
            std::snprintf(text, sizeof text, "{\"result\": %.10g}", value);
            return text;
        }
        const std::string key = parameter(call.arguments, "key");
        if (call.name == "save_note") {
            notes_[key] = parameter(call.arguments, "value");
            return R"({"saved": true})";
        }
        const auto found = notes_.find(key);
        return found == notes_.end() ? R"({"error": "no such note"})" : "{\"value\": " + quoted(found->second) + "}";
    }

  private:
    std::map<std::string, std::string> notes_;
};

void say(std::string_view text) {
    std::fwrite(text.data(), 1, text.size(), stdout);
    std::fflush(stdout);
}

/// One answer, printed as it comes; the calls that it asks for.
std::vector<Call> answer(dsv4::Session &session, dsv4::Prompt &prompt) {
    std::vector<Call> calls;
    dsv4::GenerateOptions options;
    options.max_tokens = 400;
    std::string message;
    for (const dsv4::Event &event : session.generate(prompt, options)) {
        const auto text = [](dsv4_str s) { return std::string_view(s.data ? s.data : "", s.size); };
        switch (event.kind) {
        case DSV4_EVENT_TEXT: say(text(event.text)); break;
        case DSV4_EVENT_TOOL_BEGIN: say("  [calls " + std::string(text(event.tool_name)) + " "); break;
        case DSV4_EVENT_TOOL_ARGUMENTS: say(text(event.text)); break;
        case DSV4_EVENT_TOOL_END:
            say("]\n");
            if (event.complete)
                calls.push_back({std::string(text(event.tool_id)), std::string(text(event.tool_name)),
                                 std::string(text(event.text))});
            break;
        case DSV4_EVENT_DONE: message = text(event.text); break;
        default: break;
        }
    }
    prompt.message(message);
    return calls;
}

}  // namespace

int main(int argc, char **argv) try {
    if (argc < 2) {
        std::fprintf(stderr, "usage: agent MODEL_FOLDER [REQUEST ...]\n");
        return 2;
    }
    std::vector<std::string> requests(argv + 2, argv + argc);
    if (requests.empty()) requests = {"What is 345 + 678?", "Save a note under harbor: old lamp", "What does the note harbor say?",
                    "What is special about Kaldra?"};
    dsv4::Runtime runtime;
    dsv4::Model model = runtime.load(argv[1]);
    dsv4::Session session = model.session();
    Notebook notebook;
    dsv4::Prompt prompt;
    prompt.system("");
    for (const char *tool : tools) prompt.tool(tool);
    for (const std::string &request : requests) {
        say("> " + request + "\n");
        prompt.user(request);
        std::vector<Call> calls;
        for (int turn = 0; turn < 8 && !(calls = answer(session, prompt)).empty(); ++turn)
            for (const Call &call : calls) {
                const std::string result = notebook.run(call);
                say("  [" + call.name + " gives " + result + "]\n");
                prompt.tool_result(call.id, result);
            }
        say("\n");
    }
    return 0;
} catch (const std::exception &error) {
    std::fprintf(stderr, "agent: %s\n", error.what());
    return 1;
}
