#include "core/text/python_json.hpp"
#include "core/error.hpp"
#include "core/text/byte_level.hpp"
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <limits>

namespace dsv4 {

JsonValue JsonValue::make_bool(bool value) {
    JsonValue v;
    v.kind_ = Kind::boolean;
    v.flag_ = value;
    return v;
}

JsonValue JsonValue::make_integer(int64_t value) {
    JsonValue v;
    v.kind_ = Kind::integer;
    v.text_ = std::to_string(value);
    return v;
}

JsonValue JsonValue::make_string(std::string text) {
    JsonValue v;
    v.kind_ = Kind::string;
    v.text_ = std::move(text);
    return v;
}

JsonValue JsonValue::make_array() {
    JsonValue v;
    v.kind_ = Kind::array;
    return v;
}

JsonValue JsonValue::make_object() {
    JsonValue v;
    v.kind_ = Kind::object;
    return v;
}

const char *JsonValue::kind_name() const {
    switch (kind_) {
    case Kind::null: return "null";
    case Kind::boolean: return "boolean";
    case Kind::integer: return "integer";
    case Kind::real: return "real";
    case Kind::string: return "string";
    case Kind::array: return "array";
    case Kind::object: return "object";
    }
    return "?";
}

bool JsonValue::truthy() const {
    switch (kind_) {
    case Kind::null: return false;
    case Kind::boolean: return flag_;
    case Kind::integer: return text_ != "0";
    case Kind::real: return text_ != "0.0" && text_ != "-0.0";
    case Kind::string: return !text_.empty();
    case Kind::array:
    case Kind::object: return !items_.empty();
    }
    return false;
}

bool JsonValue::to_int64(int64_t &out) const {
    if (kind_ != Kind::integer) return false;
    const auto [end, error] = std::from_chars(text_.data(), text_.data() + text_.size(), out);
    return error == std::errc() && end == text_.data() + text_.size();
}

const JsonValue *JsonValue::find(std::string_view key) const {
    if (kind_ != Kind::object) return nullptr;
    for (size_t i = 0; i < keys_.size(); ++i)
        if (keys_[i] == key) return &items_[i];
    return nullptr;
}

void JsonValue::push_back(JsonValue value) { items_.push_back(std::move(value)); }

void JsonValue::set(std::string_view key, JsonValue value) {
    for (size_t i = 0; i < keys_.size(); ++i)
        if (keys_[i] == key) {
            items_[i] = std::move(value);
            return;
        }
    keys_.emplace_back(key);
    items_.push_back(std::move(value));
}

void JsonValue::append_unchecked(std::string key, JsonValue value) {
    keys_.push_back(std::move(key));
    items_.push_back(std::move(value));
}

namespace {

/// Where a key already is, for objects too large to search: a vocabulary has 128,000 members.
class KeyIndex {
  public:
    /// Returns the place of an equal key, or keys.size() after noting that `key` is about to be put there.
    size_t find_or_note(const std::vector<std::string> &keys, std::string_view key) {
        if (keys.size() < small) {
            for (size_t i = 0; i < keys.size(); ++i)
                if (keys[i] == key) return i;
            return keys.size();
        }
        if ((keys.size() + 1) * 2 > slots_.size()) rebuild(keys);
        uint32_t &slot = probe(keys, key);
        if (slot != 0) return slot - 1;
        slot = static_cast<uint32_t>(keys.size() + 1);
        return keys.size();
    }

  private:
    static constexpr size_t small = 16;

    uint32_t &probe(const std::vector<std::string> &keys, std::string_view key) {
        size_t at = std::hash<std::string_view>{}(key) & (slots_.size() - 1);
        while (slots_[at] != 0 && keys[slots_[at] - 1] != key) at = (at + 1) & (slots_.size() - 1);
        return slots_[at];
    }

    void rebuild(const std::vector<std::string> &keys) {
        slots_.assign(std::max<size_t>(64, slots_.size() * 2), 0);
        for (size_t i = 0; i < keys.size(); ++i) probe(keys, keys[i]) = static_cast<uint32_t>(i + 1);
    }

    std::vector<uint32_t> slots_; // place + 1; 0 is free
};

struct JsonFault {
    size_t offset;
    const char *expected;
};

} // namespace

/// Recursive descent, at most json_max_depth deep; throws JsonFault, which never leaves this file.
class PythonJsonReader {
  public:
    explicit PythonJsonReader(std::string_view text) : text_(text) {}

    JsonValue read_document() {
        const size_t bad = find_invalid_utf8(text_);
        if (bad != text_.size()) throw JsonFault{bad, "valid UTF-8"};
        skip_space();
        JsonValue value;
        read_value(value, 0);
        skip_space();
        if (at_ != text_.size()) throw JsonFault{at_, "the end of the text"};
        return value;
    }

  private:
    char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }
    [[noreturn]] void fail(const char *expected) const { throw JsonFault{at_, expected}; }

    void skip_space() {
        while (at_ < text_.size()) {
            const char c = text_[at_];
            if (c != ' ' && c != '\t' && c != '\n' && c != '\r') break;
            ++at_;
        }
    }

    bool take(std::string_view word) {
        if (text_.substr(at_, word.size()) != word) return false;
        at_ += word.size();
        return true;
    }

    void read_value(JsonValue &out, size_t depth) {
        switch (peek()) {
        case '{': return read_object(out, depth + 1);
        case '[': return read_array(out, depth + 1);
        case '"': out.kind_ = JsonValue::Kind::string; return read_string(out.text_);
        default: break;
        }
        if (take("null")) return;
        if (take("true")) {
            out = JsonValue::make_bool(true);
            return;
        }
        if (take("false")) {
            out = JsonValue::make_bool(false);
            return;
        }
        for (const std::string_view word : {"NaN", "Infinity", "-Infinity"})
            if (take(word)) {
                out.kind_ = JsonValue::Kind::real;
                out.text_ = word;
                return;
            }
        read_number(out);
    }

    void check_depth(size_t depth) const {
        if (depth > json_max_depth) fail("at most 1000 arrays and objects inside each other");
    }

    void read_object(JsonValue &out, size_t depth) {
        check_depth(depth);
        out.kind_ = JsonValue::Kind::object;
        ++at_;
        skip_space();
        if (peek() == '}') {
            ++at_;
            return;
        }
        KeyIndex index;
        for (;;) {
            if (peek() != '"') fail("a key in double quotes");
            std::string key;
            read_string(key);
            skip_space();
            if (peek() != ':') fail("':'");
            ++at_;
            skip_space();
            const size_t place = index.find_or_note(out.keys_, key);
            if (place == out.keys_.size()) {
                out.keys_.push_back(std::move(key));
                out.items_.emplace_back();
            } else {
                out.items_[place] = JsonValue();
            }
            read_value(out.items_[place], depth);
            skip_space();
            if (peek() == '}') break;
            if (peek() != ',') fail("',' or '}'");
            ++at_;
            skip_space();
        }
        ++at_;
    }

    void read_array(JsonValue &out, size_t depth) {
        check_depth(depth);
        out.kind_ = JsonValue::Kind::array;
        ++at_;
        skip_space();
        if (peek() == ']') {
            ++at_;
            return;
        }
        for (;;) {
            out.items_.emplace_back();
            read_value(out.items_.back(), depth);
            skip_space();
            if (peek() == ']') break;
            if (peek() != ',') fail("',' or ']'");
            ++at_;
            skip_space();
        }
        ++at_;
    }

    uint32_t read_hex4() {
        uint32_t value = 0;
        for (int i = 0; i < 4; ++i, ++at_) {
            const char c = peek();
            uint32_t digit;
            if (c >= '0' && c <= '9') digit = static_cast<uint32_t>(c - '0');
            else if (c >= 'a' && c <= 'f') digit = static_cast<uint32_t>(c - 'a' + 10);
            else if (c >= 'A' && c <= 'F') digit = static_cast<uint32_t>(c - 'A' + 10);
            else fail("four hexadecimal digits");
            value = value * 16 + digit;
        }
        return value;
    }

    void read_escape(std::string &out) {
        if (at_ == text_.size()) fail("the end of a string");
        switch (text_[at_++]) {
        case '"': out += '"'; return;
        case '\\': out += '\\'; return;
        case '/': out += '/'; return;
        case 'b': out += '\b'; return;
        case 'f': out += '\f'; return;
        case 'n': out += '\n'; return;
        case 'r': out += '\r'; return;
        case 't': out += '\t'; return;
        case 'u': break;
        default: --at_; fail("an escape of JSON");
        }
        uint32_t code = read_hex4();
        if (code >= 0xD800 && code < 0xDC00 && text_.substr(at_, 2) == "\\u") {
            const size_t before = at_;
            at_ += 2;
            const uint32_t low = read_hex4();
            if (low >= 0xDC00 && low < 0xE000) code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
            else at_ = before;
        }
        if (code >= 0xD800 && code < 0xE000) code = 0xFFFD;
        append_utf8(out, code);
    }

    void read_string(std::string &out) {
        ++at_;
        for (;;) {
            size_t run = at_;
            while (run < text_.size() && text_[run] != '"' && text_[run] != '\\' &&
                   static_cast<unsigned char>(text_[run]) >= 0x20)
                ++run;
            out.append(text_, at_, run - at_);
            at_ = run;
            if (at_ == text_.size()) fail("the end of a string");
            if (text_[at_] == '"') break;
            if (text_[at_] != '\\') fail("no control character inside a string");
            ++at_;
            read_escape(out);
        }
        ++at_;
    }

    size_t digits() {
        const size_t start = at_;
        while (peek() >= '0' && peek() <= '9') ++at_;
        return at_ - start;
    }

    void read_number(JsonValue &out) {
        const size_t start = at_;
        if (peek() == '-') ++at_;
        if (peek() == '0') ++at_;
        else if (digits() == 0) {
            at_ = start;
            fail("a JSON value");
        }
        // As Python reads it, a fraction or exponent without digits is not part of the number.
        bool real = false;
        size_t mark = at_;
        if (peek() == '.') {
            ++at_;
            if (digits() > 0) real = true;
            else at_ = mark;
        }
        mark = at_;
        if (peek() == 'e' || peek() == 'E') {
            ++at_;
            if (peek() == '+' || peek() == '-') ++at_;
            if (digits() > 0) real = true;
            else at_ = mark;
        }
        const std::string_view number = text_.substr(start, at_ - start);
        out.kind_ = real ? JsonValue::Kind::real : JsonValue::Kind::integer;
        if (real) out.text_ = python_float_repr(number);
        else out.text_ = number == "-0" ? std::string_view("0") : number;
    }

    std::string_view text_;
    size_t at_ = 0;
};

JsonValue parse_python_json(std::string_view text, const std::string &name) {
    try {
        return PythonJsonReader(text).read_document();
    } catch (const JsonFault &fault) {
        throw Error(DSV4_E_INVALID, name + ": expected " + fault.expected + " at byte " + std::to_string(fault.offset) +
                                        " of " + std::to_string(text.size()));
    }
}

bool try_parse_python_json(std::string_view text, JsonValue &out) {
    try {
        out = PythonJsonReader(text).read_document();
        return true;
    } catch (const JsonFault &) {
        return false;
    }
}

std::string python_float_repr(std::string_view number_text) {
    double value = 0;
    const auto parsed = std::from_chars(number_text.data(), number_text.data() + number_text.size(), value);
    if (parsed.ec == std::errc::result_out_of_range) {
        // Too large or too small? Count from the first digit that is not zero to the decimal point, plus the exponent.
        const bool negative = number_text.front() == '-';
        const size_t e = number_text.find_first_of("eE");
        const std::string_view mantissa = number_text.substr(0, e);
        const size_t first = mantissa.find_first_of("123456789"), point = std::min(mantissa.find('.'), mantissa.size());
        int64_t exponent = 0;
        if (e != std::string_view::npos) {
            std::string_view digits = number_text.substr(e + 1);
            const bool down = digits.front() == '-';
            if (digits.front() == '+' || down) digits.remove_prefix(1);
            if (std::from_chars(digits.data(), digits.data() + digits.size(), exponent).ec != std::errc())
                exponent = std::numeric_limits<int32_t>::max();
            exponent = down ? -exponent : exponent;
        }
        exponent += static_cast<int64_t>(point) - static_cast<int64_t>(first);
        if (exponent > 0) return negative ? "-Infinity" : "Infinity";
        return negative ? "-0.0" : "0.0";
    }

    // The shortest digits that read back to the same double, as d.ddde+XX; repr() only places the point differently.
    char buffer[40];
    const auto printed = std::to_chars(buffer, buffer + sizeof buffer, std::fabs(value), std::chars_format::scientific);
    std::string_view shortest(buffer, static_cast<size_t>(printed.ptr - buffer));
    const size_t e = shortest.find('e');
    int exponent = 0;
    const char *exponent_text = buffer + e + 1;
    std::from_chars(exponent_text + (*exponent_text == '+'), printed.ptr, exponent);
    std::string digits(1, shortest[0]);
    if (e > 2) digits += shortest.substr(2, e - 2);

    std::string out = std::signbit(value) ? "-" : "";
    if (exponent >= -4 && exponent < 16) {
        if (exponent < 0) {
            out += "0." + std::string(static_cast<size_t>(-exponent - 1), '0') + digits;
        } else {
            const size_t whole = static_cast<size_t>(exponent) + 1;
            if (digits.size() <= whole) out += digits + std::string(whole - digits.size(), '0') + ".0";
            else out += digits.substr(0, whole) + "." + digits.substr(whole);
        }
        return out;
    }
    out += digits[0];
    if (digits.size() > 1) out += "." + digits.substr(1);
    out += exponent < 0 ? "e-" : "e+";
    exponent = std::abs(exponent);
    if (exponent < 10) out += '0';
    return out + std::to_string(exponent);
}

namespace {

void append_string(std::string &out, const std::string &text) {
    static constexpr char hex[] = "0123456789abcdef";
    out += '"';
    for (const char c : text) switch (c) {
        case '"': out += "\\\""; break;
        case '\\': out += "\\\\"; break;
        case '\n': out += "\\n"; break;
        case '\r': out += "\\r"; break;
        case '\t': out += "\\t"; break;
        case '\f': out += "\\f"; break;
        case '\b': out += "\\b"; break;
        default:
            if (static_cast<unsigned char>(c) < 0x20) {
                out += "\\u00";
                out += hex[c >> 4];
                out += hex[c & 15];
            } else {
                out += c;
            }
        }
    out += '"';
}

} // namespace

void append_python_json(std::string &out, const JsonValue &value) {
    switch (value.kind()) {
    case JsonValue::Kind::null: out += "null"; return;
    case JsonValue::Kind::boolean: out += value.boolean() ? "true" : "false"; return;
    case JsonValue::Kind::integer:
    case JsonValue::Kind::real: out += value.text(); return;
    case JsonValue::Kind::string: append_string(out, value.text()); return;
    case JsonValue::Kind::array:
        out += '[';
        for (size_t i = 0; i < value.size(); ++i) {
            if (i) out += ", ";
            append_python_json(out, value.items()[i]);
        }
        out += ']';
        return;
    case JsonValue::Kind::object:
        out += '{';
        for (size_t i = 0; i < value.size(); ++i) {
            if (i) out += ", ";
            append_string(out, value.keys()[i]);
            out += ": ";
            append_python_json(out, value.items()[i]);
        }
        out += '}';
        return;
    }
}

std::string dump_python_json(const JsonValue &value) {
    std::string out;
    append_python_json(out, value);
    return out;
}

} // namespace dsv4
