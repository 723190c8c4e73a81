// The release's verdict on a whole completion: the same object or an error, nothing repaired.
#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace dsv4 {

/// Texts of the tokens that structure a completion.
inline constexpr std::string_view kDsmlToken = "\xEF\xBD\x9C" "DSML" "\xEF\xBD\x9C";  // ｜DSML｜
inline constexpr std::string_view kThinkBegin = "<think>";
inline constexpr std::string_view kThinkEnd = "</think>";
inline constexpr std::string_view kBosText =
    "<\xEF\xBD\x9C" "begin\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>";  // <｜begin▁of▁sentence｜>
inline constexpr std::string_view kEosText =
    "<\xEF\xBD\x9C" "end\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>";  // <｜end▁of▁sentence｜>

struct DsmlCall {
    std::string name;
    std::string arguments;  ///< JSON text as the release prints it; values with string="false" are copied unread
};

struct DsmlMessage {
    std::string content, reasoning_content;
    std::vector<DsmlCall> tool_calls;
};

/// `thinking`: the prompt ended in <think>, so the text starts with reasoning. Throws Error (DSV4_E_INVALID) with the
/// release's message where the release raises, and for text that is not UTF-8 (which the release cannot be given).
DsmlMessage parse_completion_strict(std::string_view text, bool thinking);

/// {"role": "assistant", "content", "reasoning_content", "tool_calls": [...]} as Python's json.dumps writes it.
std::string message_to_json(const DsmlMessage &message);

}  // namespace dsv4
