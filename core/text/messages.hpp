// A conversation as callers give it: OpenAI-format messages, from JSON or from a builder.
#pragma once
#include "core/text/python_json.hpp"
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace dsv4 {

/// Whose words a stretch of prompt text is. What no Origin covers was written by the encoder.
enum class Origin : uint8_t {
    system,
    developer,
    user,
    tool_result,
    latest_reminder,
    assistant, ///< an earlier answer
    reasoning, ///< an earlier answer's thinking
    tool_call, ///< names and arguments of earlier calls
    tool_schema,
    response_format,
};
using OriginSet = uint32_t;
constexpr OriginSet origin_bit(Origin origin) { return OriginSet{1} << static_cast<unsigned>(origin); }
inline constexpr OriginSet every_origin = (OriginSet{1} << 10) - 1;

struct PromptOptions {
    bool thinking = false;        ///< thinking_mode: "thinking", else "chat"
    std::string reasoning_effort; ///< one of the dialect's, or empty
    bool drop_thinking = true;    ///< forget the reasoning before the last user turn (never when there are tools)
    bool add_bos = true;          ///< not written after a context either way
    OriginSet untrusted = 0;      ///< whose text may not contain control tokens: it stays ordinary text
};

/// Messages stay JSON, so that nothing a caller wrote is lost before the encoder has looked at it.
class Conversation {
  public:
    PromptOptions options;

    /// {"messages", "tools"?, "thinking_mode"?, "reasoning_effort"?, "drop_thinking"?, "add_default_bos_token"?,
    /// "context"?}, or just the array of messages. Other members are ignored, as they are the server's business.
    /// What the request does not say is as in `defaults`.
    static Conversation from_request(std::string_view json, const std::string &name = "request",
                                     const PromptOptions &defaults = {});
    static Conversation from_request(const JsonValue &request, const std::string &name = "request",
                                     const PromptOptions &defaults = {});

    Conversation &add_system(std::string_view text);
    Conversation &add_developer(std::string_view text);
    Conversation &add_user(std::string_view text);
    Conversation &add_latest_reminder(std::string_view text);
    Conversation &add_assistant(std::string_view text, std::string_view reasoning = {});
    /// Adds a call to the assistant message that is last, or to a new empty one. `arguments` is a JSON object's text.
    Conversation &add_tool_call(std::string_view id, std::string_view name, std::string_view arguments);
    Conversation &add_tool_result(std::string_view call_id, std::string_view text);
    /// Any OpenAI-format message, as JSON text.
    Conversation &add_message(std::string_view json);
    /// Offers a tool: {"type": "function", "function": {...}}, or only the inner object.
    Conversation &add_tool(std::string_view json_schema);
    /// Marks the last message with a task ("action", "title", ...).
    Conversation &set_task(std::string_view task);
    /// Puts the schema answers must follow on the last message, which must be a system or developer message.
    Conversation &set_response_format(std::string_view json);

    const std::vector<JsonValue> &messages() const { return messages_; }
    const std::vector<JsonValue> &context() const { return context_; } ///< already in the model, not written again
    const std::vector<JsonValue> &tools() const { return tools_; }     ///< given beside the messages

  private:
    JsonValue &last_message(const char *what);
    Conversation &add(const char *role, std::string_view text);

    std::vector<JsonValue> messages_, context_, tools_;
};

} // namespace dsv4
