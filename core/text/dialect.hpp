// The texts of the prompt format, as data: what differs between releases of the model is a row here, not code.
#pragma once
#include <span>
#include <string_view>

namespace dsv4 {

struct Dialect {
    struct Named {
        std::string_view name, text;
    };

    std::string_view name;
    std::string_view bos, eos, user, assistant, latest_reminder, think_open, think_close;
    /// Task name -> the token that asks for it.
    std::span<const Named> tasks;
    /// Accepted values of reasoning_effort -> what is written before the first message in thinking mode.
    std::span<const Named> efforts;
    /// Around the schemas, one JSON object a line.
    std::string_view tools_before, tools_after;
    std::string_view response_format; ///< before the schema
    std::string_view tool_result_open, tool_result_close;
    std::string_view calls_open, calls_close, invoke_open, invoke_named, invoke_close;
    std::string_view parameter_open, parameter_string, parameter_json, parameter_close;
};

/// "preview" (the first release: efforts high and max, high writes nothing), or "0731" (also "0813": low, high, max).
/// Throws Error(DSV4_E_INVALID) for another name.
const Dialect &find_dialect(std::string_view name);

} // namespace dsv4
