// Patterns: parsed into a tree, emitted as an NFA over the bytes of either form.
#include <algorithm>
#include <array>
#include <memory>

#include "core/error.hpp"
#include "core/text/dsml_json.hpp"
#include "core/text/grammar_text.hpp"

namespace dsv4 {
namespace {

using Range = std::pair<uint32_t, uint32_t>;
using Ranges = std::vector<Range>;

Ranges normalize(Ranges ranges) {
    std::sort(ranges.begin(), ranges.end());
    Ranges out;
    for (const Range &r : ranges) {
        if (!out.empty() && r.first <= out.back().second + 1) out.back().second = std::max(out.back().second, r.second);
        else out.push_back(r);
    }
    return out;
}

Ranges complement(const Ranges &ranges) {
    Ranges out;
    uint32_t next = 0;
    for (const Range &r : normalize(ranges)) {
        if (r.first > next) out.emplace_back(next, r.first - 1);
        next = r.second + 1;
    }
    if (next <= 0x10FFFF) out.emplace_back(next, 0x10FFFF);
    return out;
}

const Ranges kDigits = {{'0', '9'}};
const Ranges kWords = {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}};
const Ranges kSpaces = {{9, 13}, {32, 32}, {0xA0, 0xA0}, {0x1680, 0x1680}, {0x2000, 0x200A}, {0x2028, 0x2029},
                        {0x202F, 0x202F}, {0x205F, 0x205F}, {0x3000, 0x3000}, {0xFEFF, 0xFEFF}};
const Ranges kLineEnds = {{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}};

size_t encode(uint32_t c, std::array<uint8_t, 4> &out) {
    if (c < 0x80) return out[0] = static_cast<uint8_t>(c), 1;
    if (c < 0x800) {
        out = {static_cast<uint8_t>(0xC0 | (c >> 6)), static_cast<uint8_t>(0x80 | (c & 63))};
        return 2;
    }
    if (c < 0x10000) {
        out = {static_cast<uint8_t>(0xE0 | (c >> 12)), static_cast<uint8_t>(0x80 | ((c >> 6) & 63)),
               static_cast<uint8_t>(0x80 | (c & 63))};
        return 3;
    }
    out = {static_cast<uint8_t>(0xF0 | (c >> 18)), static_cast<uint8_t>(0x80 | ((c >> 12) & 63)),
           static_cast<uint8_t>(0x80 | ((c >> 6) & 63)), static_cast<uint8_t>(0x80 | (c & 63))};
    return 4;
}

/// UTF-8 of a range: split until the two ends differ in full trailing bytes only.
void utf8_edges(Nfa &nfa, uint32_t from, uint32_t low, uint32_t high, uint32_t to) {
    if (low > high) return;
    for (const uint32_t limit : {0x7Fu, 0x7FFu, 0xD7FFu, 0xDFFFu, 0xFFFFu})
        if (low <= limit && high > limit) {
            utf8_edges(nfa, from, low, limit, to);
            utf8_edges(nfa, from, limit + 1, high, to);
            return;
        }
    if (low >= 0xD800 && low <= 0xDFFF) return;  // no surrogates in UTF-8
    std::array<uint8_t, 4> a{}, b{};
    const size_t n = encode(low, a);
    encode(high, b);
    for (size_t tail = 1; tail < n; ++tail) {
        const uint32_t mask = (1u << (6 * tail)) - 1;
        if ((low & ~mask) == (high & ~mask)) continue;
        if (low & mask) {
            utf8_edges(nfa, from, low, low | mask, to);
            utf8_edges(nfa, from, (low | mask) + 1, high, to);
            return;
        }
        if ((high & mask) != mask) {
            utf8_edges(nfa, from, low, (high & ~mask) - 1, to);
            utf8_edges(nfa, from, high & ~mask, high, to);
            return;
        }
    }
    for (size_t i = 0; i < n; ++i) {
        const uint32_t target = i + 1 == n ? to : nfa.state();
        nfa.edge(from, a[i], b[i], target);
        from = target;
    }
}

void set_edges(Nfa &nfa, uint32_t from, const Ranges &set, uint32_t to, TextForm form) {
    if (form == TextForm::raw) {
        for (const Range &r : set) utf8_edges(nfa, from, r.first, r.second, to);
        return;
    }
    for (const Range &r : set) {
        uint32_t low = r.first;
        for (; low <= r.second && low < 0x20; ++low) nfa.text(from, encode_text(std::string(1, static_cast<char>(low)), form), to);
        for (const uint32_t c : {uint32_t{'"'}, uint32_t{'\\'}})
            if (low <= c && c <= r.second) {
                utf8_edges(nfa, from, low, c - 1, to);
                nfa.text(from, encode_text(std::string(1, static_cast<char>(c)), form), to);
                low = c + 1;
            }
        if (low <= r.second) utf8_edges(nfa, from, low, r.second, to);
    }
}

struct Tree {
    enum class Kind { set, sequence, choice, repeat } kind = Kind::sequence;
    Ranges set;
    std::vector<Tree> parts;
    size_t min = 0, max = 0;  // SIZE_MAX: endless
};

struct Unsupported {
    std::string reason;
};

class Parser {
public:
    explicit Parser(std::string_view text) {
        for (size_t i = 0; i < text.size();) {  // UTF-8 to code points; the caller checked it
            const auto c = static_cast<unsigned char>(text[i]);
            const size_t n = c < 0x80 ? 1 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : 4;
            uint32_t value = n == 1 ? c : c & (0xFFu >> (n + 1));
            for (size_t k = 1; k < n; ++k) value = value << 6 | (static_cast<unsigned char>(text[i + k]) & 63u);
            text_.push_back(value);
            i += n;
        }
    }

    /// Alternatives, each anchored or not at its ends.
    Tree pattern() {
        Tree all;
        all.kind = Tree::Kind::choice;
        do {
            Tree whole;
            const bool head = take('^');
            Tree inner = sequence(0);
            const bool tail = take('$');
            if (!head) whole.parts.push_back(anything());
            whole.parts.push_back(std::move(inner));
            if (!tail) whole.parts.push_back(anything());
            all.parts.push_back(std::move(whole));
        } while (take('|'));
        if (at_ != text_.size()) throw Unsupported{"an anchor or bracket in the middle"};
        return all;
    }

private:
    static Tree anything() {
        Tree any, repeat;
        any.kind = Tree::Kind::set;
        any.set = {{0, 0x10FFFF}};
        repeat.kind = Tree::Kind::repeat;
        repeat.max = SIZE_MAX;
        repeat.parts.push_back(std::move(any));
        return repeat;
    }
    bool done() const { return at_ == text_.size(); }
    uint32_t peek() const { return text_[at_]; }
    bool take(uint32_t c) {
        if (done() || peek() != c) return false;
        ++at_;
        return true;
    }
    uint32_t need() {
        if (done()) throw Unsupported{"it ends too early"};
        return text_[at_++];
    }

    Tree choice(size_t depth) {
        Tree out;
        out.kind = Tree::Kind::choice;
        do out.parts.push_back(sequence(depth));
        while (take('|'));
        return out;
    }

    Tree sequence(size_t depth) {
        if (depth > 100) throw Unsupported{"groups nested more than 100 deep"};
        Tree out;
        while (!done() && peek() != '|' && peek() != ')' && peek() != '$') out.parts.push_back(repeated(depth));
        return out;
    }

    Tree repeated(size_t depth) {
        Tree item = atom(depth);
        while (!done()) {
            size_t min, max;
            if (take('*')) min = 0, max = SIZE_MAX;
            else if (take('+')) min = 1, max = SIZE_MAX;
            else if (take('?')) min = 0, max = 1;
            else if (!(peek() == '{' && counts(min, max))) break;
            take('?');  // lazy or greedy: the same language
            Tree outer;
            outer.kind = Tree::Kind::repeat;
            outer.min = min;
            outer.max = max;
            outer.parts.push_back(std::move(item));
            item = std::move(outer);
        }
        return item;
    }

    bool counts(size_t &min, size_t &max) {
        const size_t back = at_;
        ++at_;
        const auto number = [&](size_t &value) {
            const size_t first = at_;
            value = 0;
            while (!done() && peek() >= '0' && peek() <= '9' && value < 100000) value = value * 10 + (text_[at_++] - '0');
            return at_ > first;
        };
        if (number(min)) {
            max = min;
            if (take(',') && !number(max)) max = SIZE_MAX;
            if (take('}')) {
                if (max < min) throw Unsupported{"a repetition with its limits swapped"};
                if (min > 1000 || (max != SIZE_MAX && max > 1000)) throw Unsupported{"a repetition of more than 1000"};
                return true;
            }
        }
        at_ = back;
        return false;
    }

    Tree atom(size_t depth) {
        Tree out;
        const uint32_t c = need();
        if (c == '(') {
            if (take('?') && !take(':')) throw Unsupported{"a look-around or named group"};
            out = choice(depth + 1);
            if (!take(')')) throw Unsupported{"an open group, or an anchor inside one"};
            return out;
        }
        out.kind = Tree::Kind::set;
        if (c == '[') out.set = bracket();
        else if (c == '.') out.set = complement(kLineEnds);
        else if (c == '\\') out.set = escape(false);
        else if (c == '^' || c == '*' || c == '+' || c == '?' || c == '{' || c == ')')
            throw Unsupported{"an operator without an operand, or an anchor in the middle"};
        else out.set = {{c, c}};
        return out;
    }

    Ranges escape(bool in_class) {
        const uint32_t c = need();
        const auto hex = [&](int digits) {
            uint32_t value = 0;
            for (int i = 0; i < digits; ++i) {
                const uint32_t d = need();
                if (d >= '0' && d <= '9') value = value * 16 + d - '0';
                else if ((d | 32) >= 'a' && (d | 32) <= 'f') value = value * 16 + (d | 32) - 'a' + 10;
                else throw Unsupported{"a bad hexadecimal escape"};
            }
            return value;
        };
        switch (c) {
        case 'd': return kDigits;
        case 'D': return complement(kDigits);
        case 'w': return kWords;
        case 'W': return complement(kWords);
        case 's': return kSpaces;
        case 'S': return complement(kSpaces);
        case 't': return {{9, 9}};
        case 'n': return {{10, 10}};
        case 'v': return {{11, 11}};
        case 'f': return {{12, 12}};
        case 'r': return {{13, 13}};
        case '0': return {{0, 0}};
        case 'x': {
            const uint32_t v = hex(2);
            return {{v, v}};
        }
        case 'u': {
            const uint32_t v = hex(4);
            if (v >= 0xD800 && v < 0xE000) throw Unsupported{"a surrogate escape"};
            return {{v, v}};
        }
        case 'b':
            if (in_class) return {{8, 8}};
            break;
        default: break;
        }
        const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '1' && c <= '9');
        if (letter) throw Unsupported{"the escape \\" + std::string(1, static_cast<char>(c))};
        return {{c, c}};
    }

    Ranges bracket() {
        const bool negative = take('^');
        Ranges out;
        while (!take(']')) {
            uint32_t c = need();
            Ranges item = c == '\\' ? escape(true) : Ranges{{c, c}};
            const bool single = item.size() == 1 && item[0].first == item[0].second;
            if (single && at_ + 1 < text_.size() && peek() == '-' && text_[at_ + 1] != ']') {
                ++at_;
                const uint32_t d = need();
                const Ranges end = d == '\\' ? escape(true) : Ranges{{d, d}};
                if (end.size() != 1 || end[0].first != end[0].second || end[0].first < item[0].first)
                    throw Unsupported{"a bad range in a class"};
                item[0].second = end[0].first;
            }
            out.insert(out.end(), item.begin(), item.end());
        }
        return negative ? complement(out) : normalize(out);
    }

    std::vector<uint32_t> text_;
    size_t at_ = 0;
};

class Emitter {
public:
    Emitter(Nfa &nfa, TextForm form) : nfa_(nfa), form_(form) {}
    void emit(const Tree &tree, uint32_t from, uint32_t to) {
        if (nfa_.size() > 200000) throw Unsupported{"it is too large"};
        switch (tree.kind) {
        case Tree::Kind::set: set_edges(nfa_, from, tree.set, to, form_); break;
        case Tree::Kind::choice:
            for (const Tree &part : tree.parts) emit(part, from, to);
            break;
        case Tree::Kind::sequence:
            for (const Tree &part : tree.parts) {
                const uint32_t next = nfa_.state();
                emit(part, from, next);
                from = next;
            }
            nfa_.epsilon(from, to);
            break;
        case Tree::Kind::repeat: {
            const Tree &part = tree.parts[0];
            for (size_t i = 0; i < tree.min; ++i) {
                const uint32_t next = nfa_.state();
                emit(part, from, next);
                from = next;
            }
            if (tree.max == SIZE_MAX) {
                const uint32_t loop = nfa_.state();
                nfa_.epsilon(from, loop);
                emit(part, loop, loop);
                nfa_.epsilon(loop, to);
                break;
            }
            for (size_t i = tree.min; i < tree.max; ++i) {
                nfa_.epsilon(from, to);
                const uint32_t next = nfa_.state();
                emit(part, from, next);
                from = next;
            }
            nfa_.epsilon(from, to);
        }
        }
    }

private:
    Nfa &nfa_;
    TextForm form_;
};

}  // namespace

std::string encode_text(std::string_view text, TextForm form) {
    if (form == TextForm::raw) return std::string(text);
    std::string out;
    append_json_escaped(out, text);
    return out;
}

Dfa any_text(TextForm form) {
    Nfa nfa;
    const uint32_t loop = nfa.state();
    if (form == TextForm::raw) {
        set_edges(nfa, loop, {{0, 0x10FFFF}}, loop, form);
        return nfa.determinize(loop, loop, "text");
    }
    utf8_edges(nfa, loop, 0x20, '"' - 1, loop);
    utf8_edges(nfa, loop, '"' + 1, '\\' - 1, loop);
    utf8_edges(nfa, loop, '\\' + 1, 0x10FFFF, loop);
    const uint32_t escape = nfa.state(), hex0 = nfa.state(), d = nfa.state(), hex1 = nfa.state(), hex2 = nfa.state(),
                   hex3 = nfa.state();
    nfa.edge(loop, '\\', '\\', escape);
    for (const char c : {'"', '\\', '/', 'b', 'f', 'n', 'r', 't'})
        nfa.edge(escape, static_cast<uint8_t>(c), static_cast<uint8_t>(c), loop);
    nfa.edge(escape, 'u', 'u', hex0);
    const auto hex = [&](uint32_t from, uint32_t to) {
        nfa.edge(from, '0', '9', to);
        nfa.edge(from, 'a', 'f', to);
        nfa.edge(from, 'A', 'F', to);
    };
    // Surrogate escapes are left out: half a pair is no character.
    for (const auto &[low, high] : {std::pair{'0', '9'}, {'a', 'c'}, {'e', 'f'}, {'A', 'C'}, {'E', 'F'}})
        nfa.edge(hex0, static_cast<uint8_t>(low), static_cast<uint8_t>(high), hex1);
    nfa.edge(hex0, 'd', 'd', d);
    nfa.edge(hex0, 'D', 'D', d);
    nfa.edge(d, '0', '7', hex2);
    hex(hex1, hex2);
    hex(hex2, hex3);
    hex(hex3, loop);
    return nfa.determinize(loop, loop, "text");
}

std::optional<Dfa> pattern_text(std::string_view pattern, TextForm form, std::string &reason) {
    try {
        if (pattern.size() > 4096) throw Unsupported{"it is longer than 4096 bytes"};
        Nfa nfa;
        const uint32_t start = nfa.state(), end = nfa.state();
        Emitter(nfa, form).emit(Parser(pattern).pattern(), start, end);
        return nfa.determinize(start, end, "pattern");
    } catch (const Unsupported &u) {
        reason = u.reason;
    } catch (const Error &e) {
        if (e.status != DSV4_E_UNSUPPORTED) throw;
        reason = e.what();
    }
    return std::nullopt;
}

std::string_view format_pattern(std::string_view format) {
    static constexpr std::string_view date =
        "(?:19|20)\\d\\d-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\\d|3[01])|(?:0[469]|11)-(?:0[1-9]|[12]\\d|30)|02-(?:0[1-9]|1\\d|2[0-8]))";
    static constexpr std::string_view time = "(?:[01]\\d|2[0-3]):[0-5]\\d:[0-5]\\d(?:\\.\\d{1,6})?(?:Z|[+-](?:0\\d|1[0-3]):[0-5]\\d)";
    static const std::string full_date = "^" + std::string(date) + "$", full_time = "^" + std::string(time) + "$",
                             full_both = "^" + std::string(date) + "T" + std::string(time) + "$";
    static const std::string byte = "(?:25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)";
    static const std::string ipv4 = "^(?:" + byte + "\\.){3}" + byte + "$";
    static constexpr std::pair<std::string_view, std::string_view> table[] = {
        {"uuid", "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"},
        {"email", "^[A-Za-z0-9_+-]+(?:\\.[A-Za-z0-9_+-]+)*@[A-Za-z0-9](?:[A-Za-z0-9-]{0,40}[A-Za-z0-9])?(?:\\.[A-Za-z]{2,12})+$"},
        {"hostname", "^[A-Za-z0-9](?:[A-Za-z0-9-]{0,40}[A-Za-z0-9])?(?:\\.[A-Za-z0-9](?:[A-Za-z0-9-]{0,40}[A-Za-z0-9])?){0,3}$"},
        {"ipv6", "^(?:[0-9a-f]{1,4}:){7}[0-9a-f]{1,4}$"},
        {"uri", "^[a-z][a-z0-9+.-]{0,20}://[A-Za-z0-9.-]+(?::\\d{1,5})?(?:/[A-Za-z0-9._~!$&'()*+,;=:@-]*)*$"},
        {"duration", "^P(?:\\d{1,4}D|(?:\\d{1,4}D)?T(?:\\d{1,4}H(?:\\d{1,2}M)?(?:\\d{1,2}S)?|\\d{1,4}M(?:\\d{1,2}S)?|\\d{1,4}S))$"},
    };
    if (format == "date") return full_date;
    if (format == "time") return full_time;
    if (format == "date-time") return full_both;
    if (format == "ipv4") return ipv4;
    for (const auto &[name, pattern] : table)
        if (format == name) return pattern;
    return {};
}

}  // namespace dsv4
