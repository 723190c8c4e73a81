// JSON text as the tool-call parser needs it: writing strings, judging and slicing values. Never builds a tree, so big
// integers, number texts and key order survive byte for byte, and never recurses, so depth costs no stack.
#pragma once
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace dsv4 {

/// Nesting beyond this is refused everywhere in tool calls and schemas.
inline constexpr size_t kMaxJsonDepth = 512;

/// Appends `text` (UTF-8) escaped as Python's json.dumps(ensure_ascii=False) does, without the quotes.
void append_json_escaped(std::string &out, std::string_view text);
/// Appends `text` as a JSON string, quotes included.
void append_json_string(std::string &out, std::string_view text);

enum class JsonVerdict { valid, invalid, too_deep };
/// RFC 8259: one value with optional white space around it. NaN and Infinity are not JSON.
JsonVerdict check_json(std::string_view text, size_t max_depth = kMaxJsonDepth);

struct JsonMember {
    std::string key;         ///< decoded
    std::string_view value;  ///< slice of the given text, without surrounding white space
};
/// The members of an object that check_json() called valid; false when the value is not an object.
bool json_object_members(std::string_view text, std::vector<JsonMember> &members);

/// The text without JSON white space at both ends.
std::string_view trim_json_space(std::string_view text);

/// Turns a byte stream into valid UTF-8, holding an unfinished character back; ill-formed sequences become U+FFFD the
/// way Python's errors="replace" does (one per maximal subpart), which is what the released detokenizer shows.
class Utf8Cleaner {
public:
    void feed(std::string_view bytes, std::string &out);
    void finish(std::string &out);

private:
    std::string held_;  // at most 3 bytes
};

}  // namespace dsv4
