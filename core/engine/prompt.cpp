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

}  // namespace dsv4
