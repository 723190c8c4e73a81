// JSON written front to back into a string. Unlike nlohmann::json, whose noexcept destructor allocates, a writer that
// runs out of memory throws and that is all: nothing the library calls may end the process.
#pragma once
#include <charconv>
#include <concepts>
#include <string>
#include <string_view>
#include <utility>

namespace dsv4 {

/// Containers are opened and closed by the caller, in the order of the text. Strings must be valid UTF-8.
class JsonWriter {
  public:
    /// spaces: of one level of indentation; 0 writes everything on one line.
    explicit JsonWriter(int spaces = 0) : spaces_(spaces) {}

    JsonWriter &begin_object() { return begin('{'); }
    JsonWriter &begin_array() { return begin('['); }
    JsonWriter &end_object() { return end('}'); }
    JsonWriter &end_array() { return end(']'); }

    JsonWriter &key(std::string_view name) {
        next();
        string(name);
        text_ += spaces_ ? ": " : ":";
        after_key_ = true;
        return *this;
    }

    JsonWriter &value(std::string_view text) {
        next();
        string(text);
        return *this;
    }
    JsonWriter &value(const char *text) { return value(std::string_view(text)); }
    template <std::same_as<bool> T> JsonWriter &value(T flag) {
        next();
        text_ += flag ? "true" : "false";
        return *this;
    }
    /// Integers, and finite floats in the fewest digits that give them back.
    template <class T>
        requires((std::integral<T> && !std::same_as<T, bool>) || std::floating_point<T>)
    JsonWriter &value(T number) {
        next();
        char digits[32];
        text_.append(digits, std::to_chars(digits, digits + sizeof digits, number).ptr);
        return *this;
    }
    /// A value that is JSON already.
    JsonWriter &raw(std::string_view json) {
        next();
        text_ += json;
        return *this;
    }
    template <class T> JsonWriter &member(std::string_view name, const T &content) { return key(name).value(content); }

    /// The whole text, once every container is closed.
    std::string take() { return std::move(text_); }

  private:
    JsonWriter &begin(char c) {
        next();
        text_ += c;
        ++depth_;
        empty_ = true;
        return *this;
    }
    JsonWriter &end(char c) {
        --depth_;
        if (!empty_) line();
        text_ += c;
        empty_ = false;
        return *this;
    }
    /// What stands between the last thing and the next.
    void next() {
        if (after_key_) {
            after_key_ = false;
            return;
        }
        if (!empty_) text_ += ',';
        if (depth_) line();
        empty_ = false;
    }
    void line() {
        if (!spaces_) return;
        text_ += '\n';
        text_.append(size_t(depth_ * spaces_), ' ');
    }
    void string(std::string_view text) {
        static constexpr char hex[] = "0123456789abcdef";
        text_ += '"';
        for (const char c : text) {
            const auto byte = static_cast<unsigned char>(c);
            if (c == '"' || c == '\\') {
                text_ += '\\';
                text_ += c;
            } else if (byte < 0x20) {
                text_ += "\\u00";
                text_ += hex[byte >> 4];
                text_ += hex[byte & 15];
            } else {
                text_ += c;
            }
        }
        text_ += '"';
    }

    std::string text_;
    int spaces_, depth_ = 0;
    bool empty_ = true, after_key_ = false;
};

} // namespace dsv4
