#include "core/text/byte_level.hpp"
#include <array>
#include <cstring>

namespace dsv4 {

Utf8Part next_utf8_part(std::string_view text) {
    if (text.empty()) return {0, true, false};
    const auto at = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
    const unsigned char lead = at(0);
    if (lead < 0x80) return {1, true, false};
    // Table 3-7 of the Unicode standard: only the second byte's range depends on the lead.
    size_t length;
    unsigned char low = 0x80, high = 0xBF;
    if (lead >= 0xC2 && lead <= 0xDF) length = 2;
    else if (lead >= 0xE0 && lead <= 0xEF) {
        length = 3;
        if (lead == 0xE0) low = 0xA0;
        if (lead == 0xED) high = 0x9F;
    } else if (lead >= 0xF0 && lead <= 0xF4) {
        length = 4;
        if (lead == 0xF0) low = 0x90;
        if (lead == 0xF4) high = 0x8F;
    } else {
        return {1, false, false};
    }
    for (size_t i = 1; i < length; ++i, low = 0x80, high = 0xBF) {
        if (i == text.size()) return {i, false, true};
        if (at(i) < low || at(i) > high) return {i, false, false};
    }
    return {length, true, false};
}

size_t find_invalid_utf8(std::string_view text) {
    size_t at = 0;
    while (at < text.size()) {
        // Eight ASCII bytes at a time.
        uint64_t word;
        if (at + sizeof word <= text.size()) {
            std::memcpy(&word, text.data() + at, sizeof word);
            if ((word & 0x8080808080808080u) == 0) {
                at += sizeof word;
                continue;
            }
        }
        const Utf8Part part = next_utf8_part(text.substr(at, 4));
        if (!part.valid) return at;
        at += part.length;
    }
    return at;
}

void append_utf8(std::string &out, uint32_t c) {
    const auto put = [&](uint32_t byte) { out += static_cast<char>(byte); };
    if (c < 0x80) {
        put(c);
    } else if (c < 0x800) {
        put(0xC0 | c >> 6);
        put(0x80 | (c & 0x3F));
    } else if (c < 0x10000) {
        put(0xE0 | c >> 12);
        put(0x80 | (c >> 6 & 0x3F));
        put(0x80 | (c & 0x3F));
    } else {
        put(0xF0 | c >> 18);
        put(0x80 | (c >> 12 & 0x3F));
        put(0x80 | (c >> 6 & 0x3F));
        put(0x80 | (c & 0x3F));
    }
}

namespace {

/// GPT-2's choice: printable Latin-1 bytes stand for themselves, the other 68 take U+0100 onwards in order.
constexpr bool is_printable(uint32_t byte) {
    return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || (byte >= 0xAE && byte <= 0xFF);
}

constexpr std::array<uint16_t, 256> make_alphabet() {
    std::array<uint16_t, 256> alphabet{};
    uint32_t next = 0x100;
    for (uint32_t byte = 0; byte < 256; ++byte)
        alphabet[byte] = static_cast<uint16_t>(is_printable(byte) ? byte : next++);
    return alphabet;
}

constexpr std::array<int16_t, 0x144> make_inverse() {
    std::array<int16_t, 0x144> inverse{};
    for (int16_t &entry : inverse) entry = -1;
    const auto alphabet = make_alphabet();
    for (uint32_t byte = 0; byte < 256; ++byte) inverse[alphabet[byte]] = static_cast<int16_t>(byte);
    return inverse;
}

constexpr auto alphabet_of_bytes = make_alphabet();
constexpr auto bytes_of_alphabet = make_inverse();

} // namespace

uint32_t byte_to_code_point(uint8_t byte) { return alphabet_of_bytes[byte]; }

bool bytes_from_spelling(std::string_view spelling, std::string &bytes) {
    bytes.clear();
    for (size_t at = 0; at < spelling.size();) {
        const auto lead = static_cast<unsigned char>(spelling[at]);
        uint32_t code = lead;
        if (lead >= 0x80) { // the alphabet ends at U+0143: two bytes are the most it needs
            if (lead < 0xC2 || lead > 0xDF || at + 1 == spelling.size()) return false;
            code = (lead & 0x1Fu) << 6 | (static_cast<unsigned char>(spelling[at + 1]) & 0x3Fu);
            ++at;
        }
        ++at;
        if (code >= bytes_of_alphabet.size() || bytes_of_alphabet[code] < 0) return false;
        bytes += static_cast<char>(bytes_of_alphabet[code]);
    }
    return true;
}

std::string spelling_from_bytes(std::string_view bytes) {
    std::string spelling;
    for (const char c : bytes) append_utf8(spelling, byte_to_code_point(static_cast<uint8_t>(c)));
    return spelling;
}

} // namespace dsv4
