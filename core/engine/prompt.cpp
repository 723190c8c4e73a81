#include "core/engine/prompt.hpp"

namespace dsv4 {

std::string Prompt::tools_json() const {
    JsonValue all = JsonValue::make_array();
    for (const JsonValue &tool : conversation.tools()) all.push_back(tool);
    for (const JsonValue &message : conversation.messages())
        if (const JsonValue *tools = message.find("tools"); tools && tools->is_array())
            for (const JsonValue &tool : tools->items()) all.push_back(tool);
    return dump_python_json(all);
}

std::string Prompt::response_format_json() const {
    const JsonValue *format = nullptr;
    for (const JsonValue &message : conversation.messages())
        if (const JsonValue *f = message.find("response_format"); f && f->truthy()) format = f;
    if (!format) return "";
    const JsonValue *type = format->find("type");
    if (type && type->is_string() && (type->text() == "json_object" || type->text() == "json_schema"))
        return dump_python_json(*format);
    if (type && type->is_string() && type->text() == "text") return "";
    JsonValue schema = JsonValue::make_object(), wrapped = JsonValue::make_object();
    schema.set("schema", *format);
    wrapped.set("type", JsonValue::make_string("json_schema"));
    wrapped.set("json_schema", std::move(schema));
    return dump_python_json(wrapped);
}

}  // namespace dsv4
