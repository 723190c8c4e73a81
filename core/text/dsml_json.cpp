#include "core/text/dsml_json.hpp"

#include <array>
#include <bit>
#include <cstdint>
#include <cstring>

namespace dsv4 {
namespace {

bool is_space(char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }

int hex_digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

size_t skip_space(std::string_view s, size_t i) {
    while (i < s.size() && is_space(s[i])) ++i;
    return i;
}

constexpr size_t npos = std::string_view::npos;

/// First byte at or after `i` that a JSON string must escape (a control, a quote, a backslash), or the size.
size_t skip_unescaped(std::string_view s, size_t i) {
    constexpr uint64_t ones = 0x0101010101010101u, tops = 0x8080808080808080u;
    // A byte of x is zero: the lowest such byte is found exactly, which is all that is needed.
    const auto zero = [](uint64_t x) { return (x - ones) & ~x & tops; };
    for (; i + 8 <= s.size(); i += 8) {
        uint64_t word;
        std::memcpy(&word, s.data() + i, 8);
        const uint64_t below_space = (word - ones * 0x20) & ~word & tops;
        const uint64_t found = below_space | zero(word ^ (ones * '"')) | zero(word ^ (ones * '\\'));
        if (!found) continue;
        if constexpr (std::endian::native == std::endian::little) return i + static_cast<size_t>(std::countr_zero(found)) / 8;
        break;
    }
    for (; i < s.size(); ++i) {
        const auto c = static_cast<unsigned char>(s[i]);
        if (c < 0x20 || c == '"' || c == '\\') break;
    }
    return i;
}

/// End of the string whose opening quote is at `i`, or npos.
size_t scan_string(std::string_view s, size_t i) {
    for (i = skip_unescaped(s, i + 1); i < s.size(); i = skip_unescaped(s, i + 1)) {
        const auto c = static_cast<unsigned char>(s[i]);
        if (c == '"') return i + 1;
        if (c < 0x20) return npos;
        if (c != '\\') continue;
        if (++i >= s.size()) return npos;
        if (s[i] == 'u') {
            for (int k = 0; k < 4; ++k)
                if (++i >= s.size() || hex_digit(s[i]) < 0) return npos;
        } else if (std::strchr("\"\\/bfnrt", s[i]) == nullptr || s[i] == '\0') {
            return npos;
        }
    }
    return npos;
}

size_t scan_number(std::string_view s, size_t i) {
    if (i < s.size() && s[i] == '-') ++i;
    if (i >= s.size() || !is_digit(s[i])) return npos;
    if (s[i] == '0') ++i;
    else
        while (i < s.size() && is_digit(s[i])) ++i;
    if (i < s.size() && s[i] == '.') {
        const size_t first = ++i;
        while (i < s.size() && is_digit(s[i])) ++i;
        if (i == first) return npos;
    }
    if (i < s.size() && (s[i] == 'e' || s[i] == 'E')) {
        ++i;
        if (i < s.size() && (s[i] == '+' || s[i] == '-')) ++i;
        const size_t first = i;
        while (i < s.size() && is_digit(s[i])) ++i;
        if (i == first) return npos;
    }
    return i;
}

/// End of the value that starts at `i`; npos when malformed. `verdict` tells malformed from too deep.
size_t scan_value(std::string_view s, size_t i, size_t max_depth, JsonVerdict &verdict) {
    std::vector<bool> objects;  // one bit per open container: is it an object?
    verdict = JsonVerdict::invalid;
    bool want_value = true;
    while (true) {
        i = skip_space(s, i);
        if (i >= s.size()) return npos;
        if (want_value) {
            const char c = s[i];
            if (c == '{' || c == '[') {
                if (objects.size() >= max_depth) {
                    verdict = JsonVerdict::too_deep;
                    return npos;
                }
                objects.push_back(c == '{');
                i = skip_space(s, i + 1);
                if (i >= s.size()) return npos;
                if (s[i] == (c == '{' ? '}' : ']')) {
                    want_value = false;
                } else if (c == '{') {
                    if (s[i] != '"' || (i = scan_string(s, i)) == npos) return npos;
                    i = skip_space(s, i);
                    if (i >= s.size() || s[i] != ':') return npos;
                    ++i;
                }
                continue;
            }
            if (c == '"') i = scan_string(s, i);
            else if ((c == '-') | is_digit(c)) i = scan_number(s, i);
            else if (s.substr(i, 4) == "true" || s.substr(i, 4) == "null") i += 4;
            else i = s.substr(i, 5) == "false" ? i + 5 : npos;
            if (i == npos) return npos;
            if (objects.empty()) return i;
            want_value = false;
            continue;
        }
        const bool object = objects.back();
        if (s[i] == (object ? '}' : ']')) {
            objects.pop_back();
            ++i;
            if (objects.empty()) return i;
            continue;
        }
        if (s[i] != ',') return npos;
        ++i;
        if (object) {
            i = skip_space(s, i);
            if (i >= s.size() || s[i] != '"' || (i = scan_string(s, i)) == npos) return npos;
            i = skip_space(s, i);
            if (i >= s.size() || s[i] != ':') return npos;
            ++i;
        }
        want_value = true;
    }
}

void append_utf8(std::string &out, uint32_t c) {
    if (c < 0x80) {
        out += static_cast<char>(c);
    } else if (c < 0x800) {
        out += static_cast<char>(0xC0 | (c >> 6));
        out += static_cast<char>(0x80 | (c & 63));
    } else if (c < 0x10000) {
        out += static_cast<char>(0xE0 | (c >> 12));
        out += static_cast<char>(0x80 | ((c >> 6) & 63));
        out += static_cast<char>(0x80 | (c & 63));
    } else {
        out += static_cast<char>(0xF0 | (c >> 18));
        out += static_cast<char>(0x80 | ((c >> 12) & 63));
        out += static_cast<char>(0x80 | ((c >> 6) & 63));
        out += static_cast<char>(0x80 | (c & 63));
    }
}

std::string decode_string(std::string_view quoted) {
    std::string out;
    const auto unit = [&](size_t i) {
        uint32_t v = 0;
        for (size_t k = 0; k < 4; ++k) v = v * 16 + static_cast<uint32_t>(hex_digit(quoted[i + k]));
        return v;
    };
    for (size_t i = 1; i + 1 < quoted.size(); ++i) {
        if (quoted[i] != '\\') {
            out += quoted[i];
            continue;
        }
        switch (quoted[++i]) {
        case 'b': out += '\b'; break;
        case 'f': out += '\f'; break;
        case 'n': out += '\n'; break;
        case 'r': out += '\r'; break;
        case 't': out += '\t'; break;
        case 'u': {
            uint32_t c = unit(i + 1);
            i += 4;
            if (c >= 0xD800 && c < 0xDC00 && quoted.substr(i + 1, 2) == "\\u") {
                const uint32_t low = unit(i + 3);
                if (low >= 0xDC00 && low < 0xE000) {
                    c = 0x10000 + ((c - 0xD800) << 10) + (low - 0xDC00);
                    i += 6;
                }
            }
            append_utf8(out, c >= 0xD800 && c < 0xE000 ? 0xFFFD : c);
            break;
        }
        default: out += quoted[i];
        }
    }
    return out;
}

/// Length of the well-formed character at `i`; 0 when the text ends inside one; -n for an ill-formed maximal subpart
/// of n bytes (Unicode 15, table 3-7).
inline int utf8_length(std::string_view s, size_t i) {
    const auto at = [&](size_t k) { return static_cast<unsigned char>(s[k]); };
    const unsigned char c = at(i);
    if (c < 0x80) return 1;
    // Most of what is not ASCII: three bytes without the corners of E0 and ED.
    if (c > 0xE0 && c < 0xF0 && c != 0xED && i + 2 < s.size() && (at(i + 1) & 0xC0) == 0x80 && (at(i + 2) & 0xC0) == 0x80)
        return 3;
    int need = 0;
    unsigned char low = 0x80, high = 0xBF;
    if (c >= 0xC2 && c <= 0xDF) need = 1;
    else if (c >= 0xE0 && c <= 0xEF) {
        need = 2;
        if (c == 0xE0) low = 0xA0;
        if (c == 0xED) high = 0x9F;
    } else if (c >= 0xF0 && c <= 0xF4) {
        need = 3;
        if (c == 0xF0) low = 0x90;
        if (c == 0xF4) high = 0x8F;
    } else {
        return -1;
    }
    for (int k = 1; k <= need; ++k) {
        if (i + static_cast<size_t>(k) >= s.size()) return 0;
        const unsigned char d = at(i + static_cast<size_t>(k));
        if (d < low || d > high) return -k;
        low = 0x80;
        high = 0xBF;
    }
    return need + 1;
}

/// First byte >= 0x80 at or after `i`, or the size.
size_t skip_ascii(std::string_view s, size_t i) {
    for (; i + 8 <= s.size(); i += 8) {
        uint64_t word;
        std::memcpy(&word, s.data() + i, 8);
        if (word & 0x8080808080808080u) break;
    }
    while (i < s.size() && static_cast<unsigned char>(s[i]) < 0x80) ++i;
    return i;
}

}  // namespace

namespace {

/// Writes what a JSON string has for a byte that it must escape.
char *write_escape(char *to, unsigned char c) {
    static constexpr char hex[] = "0123456789abcdef";
    *to++ = '\\';
    switch (c) {
    case '"':
    case '\\': *to++ = static_cast<char>(c); break;
    case '\b': *to++ = 'b'; break;
    case '\f': *to++ = 'f'; break;
    case '\n': *to++ = 'n'; break;
    case '\r': *to++ = 'r'; break;
    case '\t': *to++ = 't'; break;
    default:
        for (const char d : {'u', '0', '0', hex[c >> 4], hex[c & 15]}) *to++ = d;
    }
    return to;
}

}  // namespace

void append_json_escaped(std::string &out, std::string_view text) {
    // Source code has something to escape every few bytes: short runs are put together here before they are appended.
    constexpr size_t kShort = 64, kEscape = 6;
    std::array<char, 4 * (kShort + kEscape)> made;
    char *to = made.data(), *const full = made.data() + made.size() - (kShort + kEscape);
    const auto flush = [&] {
        out.append(made.data(), static_cast<size_t>(to - made.data()));
        to = made.data();
    };
    for (size_t i = 0; i < text.size();) {
        const size_t end = skip_unescaped(text, i);
        if (end - i > kShort) {
            flush();
            out.append(text, i, end - i);
        } else {
            std::memcpy(to, text.data() + i, end - i);
            to += end - i;
        }
        if (end < text.size()) to = write_escape(to, static_cast<unsigned char>(text[end]));
        if (to > full) flush();
        i = end + 1;
    }
    flush();
}

void append_json_string(std::string &out, std::string_view text) {
    out += '"';
    append_json_escaped(out, text);
    out += '"';
}

JsonVerdict check_json(std::string_view text, size_t max_depth) {
    JsonVerdict verdict;
    const size_t end = scan_value(text, 0, max_depth, verdict);
    if (end == npos) return verdict;
    return skip_space(text, end) == text.size() ? JsonVerdict::valid : JsonVerdict::invalid;
}

std::string_view trim_json_space(std::string_view text) {
    while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
    while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
    return text;
}

bool json_object_members(std::string_view text, std::vector<JsonMember> &members) {
    members.clear();
    text = trim_json_space(text);
    if (text.empty() || text.front() != '{') return false;
    size_t i = skip_space(text, 1);
    while (text[i] != '}') {
        const size_t key_end = scan_string(text, i);
        JsonMember member;
        member.key = decode_string(text.substr(i, key_end - i));
        i = skip_space(text, skip_space(text, key_end) + 1);  // past the colon
        JsonVerdict verdict;
        const size_t end = scan_value(text, i, npos, verdict);
        member.value = text.substr(i, end - i);
        members.push_back(std::move(member));
        i = skip_space(text, end);
        if (text[i] == ',') i = skip_space(text, i + 1);
    }
    return true;
}

void Utf8Cleaner::feed(std::string_view bytes, std::string &out) {
    std::string joined;
    if (!held_.empty()) {
        // Finish the held character with as few new bytes as it needs, so that big chunks are never copied.
        while (!bytes.empty() && !held_.empty()) {
            held_ += bytes.front();
            bytes.remove_prefix(1);
            const int n = utf8_length(held_, 0);
            if (n == 0) continue;
            if (n > 0) {
                out += held_;
                held_.clear();
            } else {
                out += "\xEF\xBF\xBD";
                joined = held_.substr(static_cast<size_t>(-n));  // the byte that broke it starts anew
                held_.clear();
                if (!joined.empty()) {
                    if (utf8_length(joined, 0) > 0) out += joined;
                    else if (utf8_length(joined, 0) < 0) out += "\xEF\xBF\xBD";
                    else held_ = joined;
                }
            }
        }
        if (bytes.empty()) return;
    }
    size_t done = 0;
    for (size_t i = skip_ascii(bytes, 0); i < bytes.size();) {
        const int n = utf8_length(bytes, i);
        if (n > 0) {
            i += static_cast<size_t>(n);
            if (i < bytes.size() && static_cast<unsigned char>(bytes[i]) < 0x80) i = skip_ascii(bytes, i);
            continue;
        }
        out.append(bytes, done, i - done);
        if (n == 0) {
            held_.assign(bytes.substr(i));
            return;
        }
        out += "\xEF\xBF\xBD";
        i += static_cast<size_t>(-n);
        done = i;
    }
    out.append(bytes, done, bytes.size() - done);
}

void Utf8Cleaner::finish(std::string &out) {
    if (!held_.empty()) out += "\xEF\xBF\xBD";
    held_.clear();
}

}  // namespace dsv4
