#include "core/model/json_reader.hpp"

#include <cstring>

#include "core/error.hpp"

namespace dsv4 {

namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }

/// Length of the well-formed UTF-8 sequence at the start of s, 0 if there is none (RFC 3629: no surrogates, no overlong
/// forms, nothing above U+10FFFF).
size_t utf8_length(std::string_view s) {
    const auto byte = [&](size_t i) { return i < s.size() ? static_cast<unsigned char>(s[i]) : 0u; };
    const auto next = [&](size_t i) { return (byte(i) & 0xC0u) == 0x80u; };
    const unsigned a = byte(0), b = byte(1);
    if (s.empty()) return 0;
    if (a < 0x80) return 1;
    if (a >= 0xC2 && a <= 0xDF) return next(1) ? 2 : 0;
    if (a >= 0xE0 && a <= 0xEF) {
        if ((a == 0xE0 && b < 0xA0) || (a == 0xED && b > 0x9F)) return 0;
        return next(1) && next(2) ? 3 : 0;
    }
    if (a >= 0xF0 && a <= 0xF4) {
        if ((a == 0xF0 && b < 0x90) || (a == 0xF4 && b > 0x8F)) return 0;
        return next(1) && next(2) && next(3) ? 4 : 0;
    }
    return 0;
}

void append_utf8(std::string &out, uint32_t c) {
    if (c < 0x80) {
        out += static_cast<char>(c);
    } else if (c < 0x800) {
        out += static_cast<char>(0xC0 | (c >> 6));
        out += static_cast<char>(0x80 | (c & 0x3F));
    } else if (c < 0x10000) {
        out += static_cast<char>(0xE0 | (c >> 12));
        out += static_cast<char>(0x80 | ((c >> 6) & 0x3F));
        out += static_cast<char>(0x80 | (c & 0x3F));
    } else {
        out += static_cast<char>(0xF0 | (c >> 18));
        out += static_cast<char>(0x80 | ((c >> 12) & 0x3F));
        out += static_cast<char>(0x80 | ((c >> 6) & 0x3F));
        out += static_cast<char>(0x80 | (c & 0x3F));
    }
}

}  // namespace

std::string printable(std::string_view text, size_t max) {
    std::string out;
    for (size_t i = 0; i < text.size();) {
        const size_t length = utf8_length(text.substr(i));
        if (out.size() + length + 3 > max && i + length < text.size()) return out + "...";
        const bool control = static_cast<unsigned char>(text[i]) < 0x20 || text[i] == 0x7F;
        if (length == 0 || control)
            out += '?';
        else
            out.append(text, i, length);
        i += length ? length : 1;
    }
    return out;
}

void JsonReader::fail(const std::string &expected) {
    std::string found = "the end of the text";
    if (at_ < text_.size()) found = "'" + printable(text_.substr(at_, 12), 20) + "'";
    throw Error(DSV4_E_MODEL,
                where_ + ": expected " + expected + " at byte " + std::to_string(at_) + ", found " + found);
}

void JsonReader::skip_space() {
    while (at_ < text_.size()) {
        const char c = text_[at_];
        if (c != ' ' && c != '\n' && c != '\r' && c != '\t') return;
        ++at_;
    }
}

bool JsonReader::take(char c) {
    skip_space();
    if (at_ >= text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
}

void JsonReader::expect(char c) {
    if (!take(c)) fail(std::string("'") + c + "'");
}

std::string_view JsonReader::string() {
    if (!take('"')) fail("a string");
    const size_t begin = at_;
    while (at_ < text_.size()) {
        const auto c = static_cast<unsigned char>(text_[at_]);
        if (c == '"') return text_.substr(begin, at_++ - begin);
        if (c == '\\') return unescape(begin);
        if (c < 0x20) fail("a string without control characters");
        const size_t length = c < 0x80 ? 1 : utf8_length(text_.substr(at_, 4));
        if (length == 0) fail("valid UTF-8");
        at_ += length;
    }
    fail("the end of a string");
}

uint32_t JsonReader::hex4() {
    uint32_t value = 0;
    for (int i = 0; i < 4; ++i, ++at_) {
        const char c = at_ < text_.size() ? text_[at_] : '\0';
        uint32_t digit = 0;
        if (is_digit(c)) digit = static_cast<uint32_t>(c - '0');
        else if (c >= 'a' && c <= 'f') digit = static_cast<uint32_t>(c - 'a' + 10);
        else if (c >= 'A' && c <= 'F') digit = static_cast<uint32_t>(c - 'A' + 10);
        else fail("four hexadecimal digits");
        value = value * 16 + digit;
    }
    return value;
}

std::string_view JsonReader::unescape(size_t begin) {
    std::string out(text_.substr(begin, at_ - begin));
    while (at_ < text_.size()) {
        const auto c = static_cast<unsigned char>(text_[at_]);
        if (c == '"') {
            ++at_;
            return decoded_.emplace_back(std::move(out));
        }
        if (c < 0x20) fail("a string without control characters");
        if (c != '\\') {
            const size_t length = utf8_length(text_.substr(at_, 4));
            if (length == 0) fail("valid UTF-8");
            out.append(text_, at_, length);
            at_ += length;
            continue;
        }
        ++at_;
        static constexpr char kCodes[] = "\"\\/bfnrt", kMeaning[] = "\"\\/\b\f\n\r\t";
        const char code = at_ < text_.size() ? text_[at_] : '\0';
        if (code == 'u') {
            ++at_;
            uint32_t point = hex4();
            if (point >= 0xD800 && point < 0xDC00) {
                if (text_.substr(at_, 2) != "\\u") fail("the second half of a surrogate pair");
                at_ += 2;
                const uint32_t low = hex4();
                if (low < 0xDC00 || low > 0xDFFF) fail("the second half of a surrogate pair");
                point = 0x10000 + ((point - 0xD800) << 10) + (low - 0xDC00);
            } else if (point >= 0xDC00 && point <= 0xDFFF) {
                fail("the first half of a surrogate pair");
            }
            append_utf8(out, point);
            continue;
        }
        const char *found = code ? std::strchr(kCodes, code) : nullptr;
        if (!found) fail("an escape sequence");
        out += kMeaning[found - kCodes];
        ++at_;
    }
    fail("the end of a string");
}

uint64_t JsonReader::unsigned_integer() {
    skip_space();
    const size_t begin = at_;
    uint64_t value = 0;
    while (at_ < text_.size() && is_digit(text_[at_])) {
        const auto digit = static_cast<uint64_t>(text_[at_] - '0');
        if (value > (UINT64_MAX - digit) / 10) fail("an integer below 2^64");
        value = value * 10 + digit;
        ++at_;
    }
    const bool leading_zero = at_ - begin > 1 && text_[begin] == '0';
    const char next = at_ < text_.size() ? text_[at_] : '\0';
    if (at_ == begin || leading_zero || next == '.' || next == 'e' || next == 'E') {
        at_ = begin;
        fail("a non-negative integer");
    }
    return value;
}

void JsonReader::skip_number() {
    const auto digits = [&] {
        const size_t begin = at_;
        while (at_ < text_.size() && is_digit(text_[at_])) ++at_;
        if (at_ == begin) fail("a digit");
    };
    const auto next = [&](char c) { return at_ < text_.size() && text_[at_] == c; };
    if (next('-')) ++at_;
    if (next('0')) ++at_;
    else digits();
    if (next('.')) {
        ++at_;
        digits();
    }
    if (next('e') || next('E')) {
        ++at_;
        if (next('+') || next('-')) ++at_;
        digits();
    }
}

void JsonReader::skip_value() { skip_value(0); }

void JsonReader::skip_value(int depth) {
    if (depth > kMaxDepth) fail("at most " + std::to_string(kMaxDepth) + " nested values");
    skip_space();
    const char c = at_ < text_.size() ? text_[at_] : '\0';
    const auto word = [&](std::string_view w) {
        if (text_.substr(at_, w.size()) != w) fail("a value");
        at_ += w.size();
    };
    switch (c) {
    case '{': object([&](std::string_view) { skip_value(depth + 1); }); return;
    case '[': array([&] { skip_value(depth + 1); }); return;
    case '"': string(); return;
    case 't': word("true"); return;
    case 'f': word("false"); return;
    case 'n': word("null"); return;
    default:
        if (c != '-' && !is_digit(c)) fail("a value");
        skip_number();
    }
}

void JsonReader::end() {
    skip_space();
    if (at_ != text_.size()) fail("the end of the text");
}

}  // namespace dsv4
