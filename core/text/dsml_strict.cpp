#include "core/text/dsml_strict.hpp"
#include "core/text/byte_level.hpp"

#include <initializer_list>
#include <unordered_set>
#include <utility>

#include "core/error.hpp"
#include "core/text/dsml_json.hpp"

namespace dsv4 {
namespace {

constexpr size_t npos = std::string_view::npos;

[[noreturn]] void fail(const std::string &what) { throw Error(DSV4_E_INVALID, what); }

/// Long texts would drown the reason; the release prints them whole.
std::string shown(std::string_view text) {
    if (text.size() <= 160) return std::string(text);
    size_t cut = 160;
    while (cut > 0 && (static_cast<unsigned char>(text[cut]) & 0xC0) == 0x80) --cut;
    return std::string(text.substr(0, cut)) + "...";
}

/// A cursor with the one move the release's parser knows: read up to the first of some stop texts and step over it.
struct Reader {
    explicit Reader(std::string_view whole) : text(whole) {}
    std::string_view text;
    size_t at = 0;
    size_t stop = npos;  // index into the last list of stops, npos = ran to the end

    /// Where `s` comes next. Remembered per stop text, so that a stop which never comes is looked for only once.
    size_t next(std::string_view s) {
        for (auto &[known, position] : known_)
            if (known == s) {
                if (position != npos && position < at) position = text.find(s, at);
                return position;
            }
        known_.emplace_back(s, text.find(s, at));
        return known_.back().second;
    }

    std::string_view until(std::initializer_list<std::string_view> stops) {
        size_t best = text.size(), best_size = 0, index = 0;
        stop = npos;
        for (const std::string_view s : stops) {
            const size_t found = next(s);
            if (found < best) {
                best = found;
                best_size = s.size();
                stop = index;
            }
            ++index;
        }
        const std::string_view before = text.substr(at, best - at);
        at = stop == npos ? text.size() : best + best_size;
        return before;
    }

private:
    std::vector<std::pair<std::string_view, size_t>> known_;
};

/// Bytes of the white-space character (Python's str.isspace) at the front of `s`, 0 if there is none.
size_t python_space(std::string_view s) {
    if (s.empty()) return 0;
    const auto c = static_cast<unsigned char>(s[0]);
    if ((c >= 9 && c <= 13) || (c >= 0x1C && c <= 0x20)) return 1;
    if (s.substr(0, 2) == "\xC2\x85" || s.substr(0, 2) == "\xC2\xA0") return 2;
    const std::string_view three = s.substr(0, 3);
    if (three == "\xE1\x9A\x80" || three == "\xE2\x81\x9F" || three == "\xE3\x80\x80") return 3;
    if (three.size() == 3 && three.substr(0, 2) == "\xE2\x80") {
        const auto last = static_cast<unsigned char>(three[2]);
        if ((last >= 0x80 && last <= 0x8A) || last == 0xA8 || last == 0xA9 || last == 0xAF) return 3;
    }
    return 0;
}

/// ^\s*name="(.*?)">\n$ with DOTALL; `$` also matches before one last newline.
bool match_invoke_name(std::string_view s, std::string_view &name) {
    while (const size_t n = python_space(s)) s.remove_prefix(n);
    constexpr std::string_view head = "name=\"", tail = "\">\n";
    if (s.substr(0, head.size()) != head) return false;
    s.remove_prefix(head.size());
    for (const std::string_view end : {std::string_view("\">\n\n"), tail}) {
        // The lazy group prefers the shorter name, hence the longer tail first.
        if (s.size() >= end.size() && s.substr(s.size() - end.size()) == end) {
            name = s.substr(0, s.size() - end.size());
            return true;
        }
    }
    return false;
}

/// ^ name="(.*?)" string="(true|false)">(.*?)<$ with DOTALL
bool match_parameter(std::string_view s, std::string_view &name, bool &is_string, std::string_view &value) {
    constexpr std::string_view head = " name=\"", attribute = "\" string=\"";
    if (s.substr(0, head.size()) != head) return false;
    s.remove_prefix(head.size());
    if (!s.empty() && s.back() == '\n') s.remove_suffix(1);
    for (size_t at = s.find(attribute); at != npos; at = s.find(attribute, at + 1)) {
        const std::string_view rest = s.substr(at + attribute.size());
        for (const std::string_view word : {std::string_view("true\">"), std::string_view("false\">")}) {
            if (rest.substr(0, word.size()) != word) continue;
            const std::string_view tail = rest.substr(word.size());
            if (tail.empty() || tail.back() != '<') return false;
            name = s.substr(0, at);
            is_string = word.front() == 't';
            value = tail.substr(0, tail.size() - 1);
            return true;
        }
    }
    return false;
}

void parse_calls(Reader &in, std::vector<DsmlCall> &calls) {
    static const std::string invoke = "<" + std::string(kDsmlToken) + "invoke";
    static const std::string invoke_end = "</" + std::string(kDsmlToken) + "invoke";
    static const std::string parameter = "<" + std::string(kDsmlToken) + "parameter";
    static const std::string parameter_end = "/" + std::string(kDsmlToken) + "parameter";
    static const std::string block_end = "</" + std::string(kDsmlToken) + "tool_calls>";
    while (in.at < in.text.size()) {
        std::string_view before = in.until({invoke, block_end});
        if (before != ">\n") fail("Tool call format error: expected '>\\n' but got '" + shown(before) + "'");
        if (in.stop == 1) return;
        if (in.stop == npos) fail("Missing special token in tool calls");

        DsmlCall call;
        before = in.until({parameter, invoke_end});
        std::string_view name;
        if (!match_invoke_name(before, name)) fail("Tool name format error: '" + shown(before) + "'");
        call.name = name;
        std::unordered_set<std::string_view> seen;
        call.arguments = "{";
        while (in.stop == 0) {
            const std::string_view body = in.until({parameter_end});
            std::string_view key, value;
            bool is_string = false;
            if (!match_parameter(body, key, is_string, value))
                fail("Parameter format error: '" + shown(body) + "'");
            if (!seen.empty()) call.arguments += ", ";
            if (!seen.insert(key).second) fail("Duplicate parameter name: '" + shown(key) + "'");
            append_json_string(call.arguments, key);
            call.arguments += ": ";
            if (is_string) append_json_string(call.arguments, value);
            else call.arguments += value;
            before = in.until({parameter, invoke_end});
            if (before != ">\n") fail("Parameter format error: expected '>\\n' but got '" + shown(before) + "'");
        }
        call.arguments += "}";
        calls.push_back(std::move(call));
    }
}

}  // namespace

DsmlMessage parse_completion_strict(std::string_view text, bool thinking) {
    const size_t bad = find_invalid_utf8(text);
    if (bad != text.size()) fail("completion: expected UTF-8, found an ill-formed sequence at byte " + std::to_string(bad));
    static const std::string block = "\n\n<" + std::string(kDsmlToken) + "tool_calls";
    DsmlMessage message;
    Reader in(text);
    if (thinking) {
        message.reasoning_content = in.until({kThinkEnd, block});
        if (in.stop != 0) fail("Invalid thinking format: missing </think>");
    }
    message.content = in.until({kEosText, block});
    bool ended = in.stop == 0;
    if (in.stop == npos) fail("Invalid format: missing EOS token");
    if (in.stop == 1) {
        parse_calls(in, message.tool_calls);
        if (!in.until({kEosText}).empty()) fail("Unexpected content after tool calls");
        ended = true;  // the release takes a block without EOS
    }
    if (!ended || in.at != text.size()) fail("Unexpected content at end");
    for (const std::string_view token : {kBosText, kEosText, kThinkBegin, kThinkEnd, kDsmlToken})
        if (message.content.find(token) != npos || message.reasoning_content.find(token) != npos)
            fail("Unexpected special token '" + std::string(token) + "' in content");
    return message;
}

std::string message_to_json(const DsmlMessage &message) {
    std::string out = "{\"role\": \"assistant\", \"content\": ";
    append_json_string(out, message.content);
    out += ", \"reasoning_content\": ";
    append_json_string(out, message.reasoning_content);
    out += ", \"tool_calls\": [";
    for (size_t i = 0; i < message.tool_calls.size(); ++i) {
        out += i ? ", {\"type\": \"function\", \"function\": {\"name\": " : "{\"type\": \"function\", \"function\": {\"name\": ";
        append_json_string(out, message.tool_calls[i].name);
        out += ", \"arguments\": ";
        append_json_string(out, message.tool_calls[i].arguments);
        out += "}}";
    }
    return out + "]}";
}

}  // namespace dsv4
