// UTF-8, and the alphabet in which byte-level BPE files spell bytes: each of the 256 bytes is one printable code point
// (space is U+0120), so that a vocabulary is readable JSON.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace dsv4 {

/// The offset of the first byte that is not part of a well-formed UTF-8 sequence, or text.size().
size_t find_invalid_utf8(std::string_view text);

/// How many bytes the code point at `at` takes; the text must be valid there.
inline size_t utf8_length(std::string_view text, size_t at) {
    const auto lead = static_cast<unsigned char>(text[at]);
    return lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
}

/// Appends a Unicode scalar value; the caller has excluded surrogates and values above U+10FFFF.
void append_utf8(std::string &out, uint32_t code_point);

/// What `length` bytes at the start of `text` are: how many belong to one code point or to one ill-formed part.
struct Utf8Part {
    size_t length;  ///< bytes to take now; 0 when the text is empty
    bool valid;     ///< they are a whole code point
    bool truncated; ///< they may still become one when more bytes come
};
/// Takes the next code point, or the longest ill-formed part that one U+FFFD stands for (Unicode 3.9, as Python does).
Utf8Part next_utf8_part(std::string_view text);

/// The spelling of a byte in a vocabulary file.
uint32_t byte_to_code_point(uint8_t byte);

/// Turns a vocabulary entry's spelling into its bytes; false when a character is none of the alphabet's 256.
bool bytes_from_spelling(std::string_view spelling, std::string &bytes);

/// The inverse, for writing vocabularies.
std::string spelling_from_bytes(std::string_view bytes);

} // namespace dsv4
