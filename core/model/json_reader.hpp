// A pull reader for the two large JSON texts of a checkpoint, safetensors headers and the shard index: up to 150,000
// short objects that must be read in a fraction of a second without a tree being built. Strict RFC 8259, bounded depth.
#pragma once
#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <utility>

namespace dsv4 {

/// Text from a file, made fit for an error message: one line, valid UTF-8, cut after max bytes.
std::string printable(std::string_view text, size_t max = 96);

class JsonReader {
  public:
    static constexpr int kMaxDepth = 64;

    /// where: what messages start with, "model-00001.safetensors: header". Both must outlive the reader; decoded
    /// receives the strings that contain escapes (all others are views into text).
    JsonReader(std::string_view text, std::string where, std::deque<std::string> &decoded)
        : text_(text), where_(std::move(where)), decoded_(decoded) {}

    /// Takes the character if it is next (white space skipped).
    bool take(char c);
    void expect(char c);
    /// A string, unescaped, valid UTF-8.
    std::string_view string();
    /// A non-negative integer without fraction or exponent.
    uint64_t unsigned_integer();
    /// Any value at all, checked for syntax.
    void skip_value();
    /// The same, and what was skipped.
    std::string_view raw_value() {
        skip_space();
        const size_t begin = at_;
        skip_value();
        return text_.substr(begin, at_ - begin);
    }
    /// The next character that is not white space; NUL at the end.
    char peek() {
        skip_space();
        return at_ < text_.size() ? text_[at_] : '\0';
    }
    /// Nothing but white space may follow.
    void end();

    /// Calls on_member(key) with the reader standing at the value, which on_member must read.
    template <class OnMember> void object(OnMember &&on_member) {
        expect('{');
        if (take('}')) return;
        do {
            const std::string_view key = string();
            expect(':');
            on_member(key);
        } while (take(','));
        expect('}');
    }
    /// Calls on_item() with the reader standing at each item.
    template <class OnItem> void array(OnItem &&on_item) {
        expect('[');
        if (take(']')) return;
        do on_item();
        while (take(','));
        expect(']');
    }

    [[noreturn]] void fail(const std::string &expected);

  private:
    void skip_space();
    std::string_view unescape(size_t begin);
    uint32_t hex4();
    void skip_value(int depth);
    void skip_number();

    std::string_view text_;
    std::string where_;
    std::deque<std::string> &decoded_;
    size_t at_ = 0;
};

} // namespace dsv4
