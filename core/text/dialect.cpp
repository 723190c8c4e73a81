#include "core/text/dialect.hpp"
#include "core/error.hpp"
#include <string>

namespace dsv4 {

namespace {

constexpr Dialect::Named tasks[] = {
    {"action", "<｜action｜>"}, {"query", "<｜query｜>"}, {"authority", "<｜authority｜>"},
    {"domain", "<｜domain｜>"}, {"title", "<｜title｜>"}, {"read_url", "<｜read_url｜>"},
};

// The preview's "max" became the later release's "high".
constexpr std::string_view effort_absolute =
    "Reasoning Effort: Absolute maximum with no shortcuts permitted.\n"
    "You MUST be very thorough in your thinking and comprehensively decompose the problem to resolve the root cause, "
    "rigorously stress-testing your logic against all potential paths, edge cases, and adversarial scenarios.\n"
    "Explicitly write out your entire deliberation process, documenting every intermediate step, considered "
    "alternative, "
    "and rejected hypothesis to ensure absolutely no assumption is left unchecked.\n\n";

constexpr std::string_view effort_beyond =
    "Reasoning Effort: Beyond maximum — exhaustive, relentless, and uncompromising.\n"
    "You MUST reason with the utmost depth and rigor, leaving absolutely nothing to chance: exhaustively decompose the "
    "problem into its most fundamental components, trace every causal chain to its root, and resolve the underlying "
    "cause "
    "rather than any surface symptom.\n"
    "Do not stop reasoning until you have independently verified the solution from multiple angles and are certain "
    "that "
    "no assumption remains unchecked and no error remains undiscovered.\n\n";

constexpr Dialect::Named preview_efforts[] = {{"high", ""}, {"max", effort_absolute}};
constexpr Dialect::Named later_efforts[] = {{"low", ""}, {"high", effort_absolute}, {"max", effort_beyond}};

constexpr std::string_view tools_before =
    "## Tools\n\n"
    "You have access to a set of tools to help answer the user's question. You can invoke tools by writing a "
    "\"<｜DSML｜tool_calls>\" block like the following:\n\n"
    "<｜DSML｜tool_calls>\n"
    "<｜DSML｜invoke name=\"$TOOL_NAME\">\n"
    "<｜DSML｜parameter name=\"$PARAMETER_NAME\" string=\"true|false\">$PARAMETER_VALUE</｜DSML｜parameter>\n"
    "...\n"
    "</｜DSML｜invoke>\n"
    "<｜DSML｜invoke name=\"$TOOL_NAME2\">\n"
    "...\n"
    "</｜DSML｜invoke>\n"
    "</｜DSML｜tool_calls>\n\n"
    "String parameters should be specified as is and set `string=\"true\"`. For all other types (numbers, booleans, "
    "arrays, objects), pass the value in JSON format and set `string=\"false\"`.\n\n"
    "If thinking_mode is enabled (triggered by <think>), you MUST output your complete reasoning inside "
    "<think>...</think> BEFORE any tool calls or final response.\n\n"
    "Otherwise, output directly after </think> with tool calls or final response.\n\n"
    "### Available Tool Schemas\n\n";

constexpr std::string_view tools_after =
    "\n\nYou MUST strictly follow the above defined tool name and parameter schemas to invoke tool calls.\n";

constexpr Dialect make_dialect(std::string_view name, std::span<const Dialect::Named> efforts) {
    Dialect d{};
    d.name = name;
    d.bos = "<｜begin▁of▁sentence｜>";
    d.eos = "<｜end▁of▁sentence｜>";
    d.user = "<｜User｜>";
    d.assistant = "<｜Assistant｜>";
    d.latest_reminder = "<｜latest_reminder｜>";
    d.think_open = "<think>";
    d.think_close = "</think>";
    d.tasks = tasks;
    d.efforts = efforts;
    d.tools_before = tools_before;
    d.tools_after = tools_after;
    d.response_format = "## Response Format:\n\nYou MUST strictly adhere to the following schema to reply:\n";
    d.tool_result_open = "<tool_result>";
    d.tool_result_close = "</tool_result>";
    d.calls_open = "\n\n<｜DSML｜tool_calls>\n";
    d.calls_close = "\n</｜DSML｜tool_calls>";
    d.invoke_open = "<｜DSML｜invoke name=\"";
    d.invoke_named = "\">\n";
    d.invoke_close = "\n</｜DSML｜invoke>";
    d.parameter_open = "<｜DSML｜parameter name=\"";
    d.parameter_string = "\" string=\"true\">";
    d.parameter_json = "\" string=\"false\">";
    d.parameter_close = "</｜DSML｜parameter>";
    return d;
}

constexpr Dialect preview = make_dialect("preview", preview_efforts);
constexpr Dialect later = make_dialect("0731", later_efforts);

} // namespace

const Dialect &find_dialect(std::string_view name) {
    if (name == preview.name) return preview;
    if (name == later.name || name == "0813") return later;
    throw Error(DSV4_E_INVALID,
                "prompt dialect: expected preview, 0731 or 0813, found \"" + std::string(name.substr(0, 40)) + '"');
}

} // namespace dsv4
