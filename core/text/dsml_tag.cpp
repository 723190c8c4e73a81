#include "core/text/dsml_tag.hpp"

#include <algorithm>
#include <array>
#include <string>

namespace dsv4 {
namespace {

constexpr std::string_view kWideBar = "\xEF\xBD\x9C";
constexpr size_t npos = std::string_view::npos;

/// Reads along the text; `ended` is set when the next thing asked for reaches past its end.
struct Cursor {
    std::string_view text;
    size_t at = 0;
    bool ended = false;

    bool done() {
        if (at < text.size()) return false;
        ended = true;
        return true;
    }
    /// Steps over `word` if it is next; a text that ends within `word` sets `ended`.
    bool take(std::string_view word) {
        const std::string_view here = text.substr(at, word.size());
        if (here == word) {
            at += word.size();
            return true;
        }
        if (here.size() < word.size() && here == word.substr(0, here.size())) ended = true;
        return false;
    }
};

bool word_char(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == '-'; }

/// Levenshtein distance of short words; anything beyond 2 reads as 3.
size_t distance(std::string_view a, std::string_view b) {
    if (a.size() > b.size() + 2 || b.size() > a.size() + 2) return 3;
    std::array<size_t, 32> row{};
    for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
    for (size_t i = 1; i <= a.size(); ++i) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= b.size(); ++j) {
            const size_t above = row[j];
            row[j] = std::min({above + 1, row[j - 1] + 1, diagonal + (a[i - 1] != b[j - 1])});
            diagonal = above;
        }
    }
    return std::min<size_t>(row[b.size()], 3);
}

DsmlTag::Word classify(std::string_view word, bool fuzzy, bool &exact) {
    exact = true;
    if (word == "tool_calls") return DsmlTag::Word::block;
    if (word == "invoke") return DsmlTag::Word::invoke;
    if (word == "parameter") return DsmlTag::Word::parameter;
    exact = false;
    // The older release's block name and the forms seen in reports.
    for (const std::string_view known : {"function_calls", "function_call", "tool_call", "toolcalls", "toolcall"})
        if (word == known) return DsmlTag::Word::block;
    if (!fuzzy) return DsmlTag::Word::other;
    if (word == "calls" || distance(word, "tool_calls") <= 1) return DsmlTag::Word::block;
    if (distance(word, "invoke") <= 1) return DsmlTag::Word::invoke;
    if (word == "param" || distance(word, "parameter") <= 2) return DsmlTag::Word::parameter;
    return DsmlTag::Word::other;
}

/// Bars, DSML, bars. False: there is no marker here (or, with `ended`, not all of it).
bool scan_mark(Cursor &in, DsmlTag &tag) {
    const auto bars = [&](bool &wide) {
        size_t n = 0;
        wide = true;
        while (n < 3 && !in.ended) {
            if (in.take(kWideBar)) ++n;
            else if (in.take("|")) ++n, wide = false;
            else break;
        }
        return n;
    };
    bool wide_left = true, wide_right = true;
    const size_t left = bars(wide_left);
    if (in.ended) return false;
    if (!in.take("DSML")) return false;
    // From here on it can only be a marker: a text cut off now was cut off in markup.
    tag.mark = DsmlTag::Mark::variant;
    const size_t right = bars(wide_right);
    if (in.ended) {
        if (left == 1 && wide_left && right <= 1) tag.mark = DsmlTag::Mark::exact;
        return false;
    }
    if (left + right == 0) return false;
    if (left == 1 && right == 1 && wide_left && wide_right) tag.mark = DsmlTag::Mark::exact;
    else tag.exact_spelling = false;
    return true;
}

/// ` name="N">` or ` name="N" string="B">`.
TagScan scan_attributes(Cursor &in, DsmlTag &tag) {
    const auto malformed = [&] {
        tag.malformed = true;
        tag.exact_spelling = false;
        tag.length = in.at;
        return TagScan::tag;
    };
    size_t spaces = 0;
    while (!in.done() && spaces < 4 && (in.text[in.at] == ' ' || in.text[in.at] == '\n')) ++in.at, ++spaces;
    if (in.ended) return TagScan::more;
    if (spaces != 1 || in.text[in.at - 1] != ' ') tag.exact_spelling = false;
    if (!in.take("name=\"")) return in.ended ? TagScan::more : malformed();
    const std::string_view rest = in.text.substr(in.at, kMaxDsmlName + 32);
    const size_t line = rest.find('\n');
    const size_t end = rest.substr(0, line).find("\">");
    if (end == npos) {
        if (line == npos && rest.size() < kMaxDsmlName + 32) return TagScan::more;
        return malformed();
    }
    tag.name = rest.substr(0, end);
    tag.length = in.at + end + 2;
    if (tag.word == DsmlTag::Word::parameter) {
        constexpr std::string_view attribute = "\" string=\"";
        const size_t at = tag.name.rfind(attribute);
        if (at != npos) {
            const std::string_view value = tag.name.substr(at + attribute.size());
            tag.type = value == "true"    ? DsmlTag::Type::string
                       : value == "false" ? DsmlTag::Type::json
                                          : DsmlTag::Type::unknown;
            tag.name = tag.name.substr(0, at);
        }
        if (tag.type == DsmlTag::Type::absent || tag.type == DsmlTag::Type::unknown) tag.exact_spelling = false;
    }
    if (tag.name.empty() || tag.name.size() > kMaxDsmlName) return malformed();
    return TagScan::tag;
}

/// Whether a tag may have this after its '<': its slash, marker, or a word's first letter. Most texts' '<' have not.
bool may_begin(char c) {
    switch (c) {
    case '/': case '|': case kWideBar.front(): case 'D':  // DSML without bars before it
    case 't': case 'f': case 'i': case 'p': return true;  // the words that classify knows
    default: return false;
    }
}

TagScan scan(Cursor &in, DsmlTag &tag) {
    if (in.done()) return TagScan::more;
    if (in.text[in.at] == '/') {
        tag.closing = true;
        ++in.at;
    }
    if (in.done()) return TagScan::more;
    const bool marked = scan_mark(in, tag);
    if (in.ended) return TagScan::more;
    if (!marked) {
        tag.mark = DsmlTag::Mark::none;
        tag.exact_spelling = false;
        if (in.at != (tag.closing ? 2u : 1u)) return TagScan::text;  // bars or DSML, but no marker
    } else {
        size_t spaces = 0;
        while (!in.done() && spaces < 2 && in.text[in.at] == ' ') ++in.at, ++spaces;
        if (in.ended) return TagScan::more;
        if (spaces) tag.exact_spelling = false;
    }
    const size_t first = in.at;
    while (!in.done() && word_char(in.text[in.at]) && in.at - first <= 24) ++in.at;
    const std::string_view word = in.text.substr(first, in.at - first);
    bool exact_word = false;
    if (in.ended) {
        tag.word = classify(word, false, exact_word);
        if (marked) return TagScan::more;
        for (const std::string_view known : {"tool_calls", "function_calls", "invoke", "parameter", "toolcalls"})
            if (known.substr(0, word.size()) == word) return TagScan::more;
        return TagScan::text;
    }
    if (word.empty() || word.size() > 24) return TagScan::text;
    tag.word = classify(word, marked, exact_word);
    if (!exact_word) tag.exact_spelling = false;
    if (tag.word == DsmlTag::Word::other && !(marked && tag.closing)) return TagScan::text;

    if (!tag.closing && tag.word != DsmlTag::Word::block) {
        const TagScan result = scan_attributes(in, tag);
        return result == TagScan::tag && tag.malformed && !marked ? TagScan::text : result;
    }
    const size_t word_end = in.at;
    size_t spaces = 0;
    while (!in.done() && spaces < 2 && in.text[in.at] == ' ') ++in.at, ++spaces;
    if (in.ended) return TagScan::more;
    if (in.take(">")) {
        if (spaces) tag.exact_spelling = false;
        tag.length = in.at;
        return TagScan::tag;
    }
    if (!marked || tag.word == DsmlTag::Word::other) return TagScan::text;
    tag.has_end = false;
    tag.exact_spelling = false;
    tag.length = word_end;
    return TagScan::tag;
}

}  // namespace

TagScan scan_dsml_tag(std::string_view text, bool final, DsmlTag &tag) {
    tag = DsmlTag{};
    if (text.size() > 1 && !may_begin(text[1])) return TagScan::text;
    Cursor in{text.substr(0, kMaxDsmlTag), 1};
    const TagScan result = scan(in, tag);
    if (result != TagScan::more) return result;
    if (text.size() >= kMaxDsmlTag) return TagScan::text;
    return final ? TagScan::cut : TagScan::more;
}

}  // namespace dsv4
