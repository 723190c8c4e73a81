// The languages of values: texts, JSON strings, numbers, and the regular subset of patterns and formats. Each comes raw
// (a DSML parameter with string="true") or as the inside of a JSON string.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/text/grammar_dfa.hpp"

namespace dsv4 {

enum class TextForm { raw, json };  ///< as is, or escaped as inside a JSON string

/// Any well-formed UTF-8 (any JSON string body); accepting between characters. A JSON body may use every escape.
Dfa any_text(TextForm form);
/// The texts that match an ECMA-262 pattern anywhere, as JSON Schema means it. nullopt and a reason when the pattern is
/// outside the regular subset (look-around, back references, \b, anchors inside groups).
std::optional<Dfa> pattern_text(std::string_view pattern, TextForm form, std::string &reason);
/// A pattern for a JSON Schema `format`, or an empty view when there is none. Sound, not complete: every text it
/// matches is valid, some valid ones (29 February, leap seconds, comments in mail addresses) are left out.
std::string_view format_pattern(std::string_view format);
/// The text in that form.
std::string encode_text(std::string_view text, TextForm form);

struct NumberRange {
    std::optional<std::string> low, high;  ///< plain decimals: -12.5
    bool low_open = false, high_open = false;
    bool integer = false;
};
/// Decimal texts without exponent in the range (with a two-digit exponent too when there are no bounds). Digits are
/// limited (18 before the point, 17 after) so that no number is endless.
Dfa number_text(const NumberRange &range, const std::string &what);
/// A JSON number's text as a plain decimal; nullopt beyond 40 digits.
std::optional<std::string> plain_decimal(std::string_view json_number);
/// -1, 0, 1 for plain decimals.
int compare_decimals(std::string_view a, std::string_view b);

}  // namespace dsv4
