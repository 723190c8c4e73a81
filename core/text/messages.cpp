#include "core/text/messages.hpp"
#include "core/error.hpp"
#include "core/text/byte_level.hpp"

namespace dsv4 {

namespace {

[[noreturn]] void invalid(const std::string &what) { throw Error(DSV4_E_INVALID, what); }

JsonValue text_value(std::string_view text, const char *what) {
    const size_t bad = find_invalid_utf8(text);
    if (bad != text.size())
        invalid(std::string(what) + ": expected UTF-8, found another byte at offset " + std::to_string(bad));
    return JsonValue::make_string(std::string(text));
}

std::vector<JsonValue> read_list(const JsonValue &request, const char *key, const std::string &name) {
    const JsonValue *list = request.find(key);
    if (!list || list->is_null()) return {};
    if (!list->is_array()) invalid(name + '.' + key + ": expected an array, found " + list->kind_name());
    return list->items();
}

bool read_bool(const JsonValue &request, const char *key, bool otherwise, const std::string &name) {
    const JsonValue *value = request.find(key);
    if (!value || value->is_null()) return otherwise;
    if (!value->is_bool()) invalid(name + '.' + key + ": expected true or false, found " + value->kind_name());
    return value->boolean();
}

} // namespace

Conversation Conversation::from_request(std::string_view json, const std::string &name,
                                        const PromptOptions &defaults) {
    return from_request(parse_python_json(json, name), name, defaults);
}

Conversation Conversation::from_request(const JsonValue &request, const std::string &name,
                                        const PromptOptions &defaults) {
    Conversation made;
    made.options = defaults;
    if (request.is_array()) {
        made.messages_ = request.items();
        return made;
    }
    if (!request.is_object())
        invalid(name + ": expected an object or an array of messages, found " + request.kind_name());
    if (!request.find("messages")) invalid(name + ": expected \"messages\", found none");
    made.messages_ = read_list(request, "messages", name);
    made.context_ = read_list(request, "context", name);
    made.tools_ = read_list(request, "tools", name);
    const JsonValue *mode = request.find("thinking_mode");
    if (mode && !mode->is_null()) {
        if (!mode->is_string() || (mode->text() != "chat" && mode->text() != "thinking"))
            invalid(name + ".thinking_mode: expected \"chat\" or \"thinking\", found " +
                    dump_python_json(*mode).substr(0, 60));
        made.options.thinking = mode->text() == "thinking";
    }
    const JsonValue *effort = request.find("reasoning_effort");
    if (effort && !effort->is_null()) {
        if (!effort->is_string() || effort->text().empty())
            invalid(name + ".reasoning_effort: expected null or a level's name, found " +
                    dump_python_json(*effort).substr(0, 60));
        made.options.reasoning_effort = effort->text();
    }
    made.options.drop_thinking = read_bool(request, "drop_thinking", defaults.drop_thinking, name);
    made.options.add_bos = read_bool(request, "add_default_bos_token", defaults.add_bos, name);
    return made;
}

Conversation &Conversation::add(const char *role, std::string_view text) {
    JsonValue message = JsonValue::make_object();
    message.set("role", JsonValue::make_string(role));
    message.set("content", text_value(text, role));
    messages_.push_back(std::move(message));
    return *this;
}

Conversation &Conversation::add_system(std::string_view text) { return add("system", text); }
Conversation &Conversation::add_developer(std::string_view text) { return add("developer", text); }
Conversation &Conversation::add_user(std::string_view text) { return add("user", text); }
Conversation &Conversation::add_latest_reminder(std::string_view text) { return add("latest_reminder", text); }

Conversation &Conversation::add_assistant(std::string_view text, std::string_view reasoning) {
    JsonValue thought = text_value(reasoning, "reasoning");
    add("assistant", text);
    if (!reasoning.empty()) messages_.back().set("reasoning_content", std::move(thought));
    return *this;
}

Conversation &Conversation::add_tool_call(std::string_view id, std::string_view name, std::string_view arguments) {
    JsonValue function = JsonValue::make_object();
    function.set("name", text_value(name, "tool call name"));
    function.set("arguments", text_value(arguments, "tool call arguments"));
    JsonValue call = JsonValue::make_object();
    call.set("type", JsonValue::make_string("function"));
    if (!id.empty()) call.set("id", text_value(id, "tool call id"));
    call.set("function", std::move(function));

    const JsonValue *role = messages_.empty() ? nullptr : messages_.back().find("role");
    if (!role || role->text() != "assistant") add("assistant", "");
    JsonValue &message = messages_.back();
    const JsonValue *calls = message.find("tool_calls");
    JsonValue list = calls && calls->is_array() ? *calls : JsonValue::make_array();
    list.push_back(std::move(call));
    message.set("tool_calls", std::move(list));
    return *this;
}

Conversation &Conversation::add_tool_result(std::string_view call_id, std::string_view text) {
    JsonValue id = text_value(call_id, "tool call id");
    add("tool", text);
    messages_.back().set("tool_call_id", std::move(id));
    return *this;
}

Conversation &Conversation::add_message(std::string_view json) {
    JsonValue message = parse_python_json(json, "message");
    if (!message.is_object()) invalid(std::string("message: expected an object, found ") + message.kind_name());
    messages_.push_back(std::move(message));
    return *this;
}

Conversation &Conversation::add_tool(std::string_view json_schema) {
    JsonValue tool = parse_python_json(json_schema, "tool");
    if (!tool.is_object()) invalid(std::string("tool: expected an object, found ") + tool.kind_name());
    if (!tool.find("function")) {
        if (!tool.find("name")) invalid("tool: expected \"function\" or \"name\", found neither");
        JsonValue wrapped = JsonValue::make_object();
        wrapped.set("type", JsonValue::make_string("function"));
        wrapped.set("function", std::move(tool));
        tool = std::move(wrapped);
    }
    tools_.push_back(std::move(tool));
    return *this;
}

JsonValue &Conversation::last_message(const char *what) {
    if (messages_.empty()) invalid(std::string(what) + ": there is no message yet to put it on");
    return messages_.back();
}

Conversation &Conversation::set_task(std::string_view task) {
    last_message("task").set("task", text_value(task, "task"));
    return *this;
}

Conversation &Conversation::set_response_format(std::string_view json) {
    JsonValue &message = last_message("response_format");
    const JsonValue *role = message.find("role");
    if (!role || (role->text() != "system" && role->text() != "developer"))
        invalid("response_format: expected a system or developer message last, found " +
                (role ? dump_python_json(*role) : std::string("none")));
    message.set("response_format", parse_python_json(json, "response_format"));
    return *this;
}

} // namespace dsv4
