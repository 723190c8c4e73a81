// The writing half of DsmlStreamParser: events, argument JSON, and the recoveries that look at values.
#include <algorithm>
#include <array>

#include "core/error.hpp"
#include "core/text/dsml_stream.hpp"
#include "core/text/schema_json.hpp"

namespace dsv4 {

using Kind = DsmlEvent::Kind;

namespace {
constexpr size_t kMaxShadow = 1u << 20;  // bytes; a longer quoted block is not recovered
constexpr size_t kMostRoom = 256;        // bytes of a new event
}

void DsmlStreamParser::emit(Kind kind, std::string_view text) {
    const bool piece = kind == Kind::reasoning || kind == Kind::content || kind == Kind::arguments ||
                       kind == Kind::discarded;
    if (piece && text.empty()) return;
    const uint32_t call = kind == Kind::call_begin || kind == Kind::arguments || kind == Kind::call_end ? calls_ - 1 : 0;
    if (piece && !out_->empty() && out_->back().kind == kind && out_->back().call == call) {
        out_->back().text += text;
        return;
    }
    begin_event(kind, call, text, 0);
}

/// With room for `more` bytes or what may join it: growing step by step would cost a small piece more than reading it.
void DsmlStreamParser::begin_event(Kind kind, uint32_t call, std::string_view text, size_t more) {
    std::string made;
    made.reserve(text.size() + std::max(more, std::min(rest().size(), kMostRoom)));
    made += text;
    out_->push_back({kind, false, 0, call, std::move(made)});
}

void DsmlStreamParser::discard(std::string_view text) {
    message_flags_ |= kDsmlDiscarded;
    emit(Kind::discarded, text);
}

void DsmlStreamParser::text(std::string_view text) {
    if (text.empty()) return;
    at_start_ = false;
    if (shadow_on_) {
        if (shadow_.size() + text.size() > kMaxShadow) shadow_on_ = false;
        else shadow_ += text;
    }
    if (state_ == State::reasoning) return emit(Kind::reasoning, text);
    if (was_block_) message_flags_ |= kDsmlTextAfterBlock;
    size_t tail = 0;
    while (tail < 2 && tail < text.size() && text[text.size() - 1 - tail] == '\n') ++tail;
    if (tail == text.size()) {  // nothing but newlines: they join those held
        newlines_ += tail;
        if (newlines_ > 2) {
            emit(Kind::content, std::string(newlines_ - 2, '\n'));
            newlines_ = 2;
        }
        return;
    }
    flush_newlines();
    emit(Kind::content, text.substr(0, text.size() - tail));
    newlines_ = tail;
}

void DsmlStreamParser::flush_newlines() {
    emit(Kind::content, std::string_view("\n\n").substr(0, newlines_));
    newlines_ = 0;
}

void DsmlStreamParser::begin_call(const DsmlTag &tag) {
    ++calls_;
    block_empty_ = false;
    skipping_ = false;
    state_ = State::body;
    call_mark_ = tag.mark;
    call_flags_ = block_lost_ ? static_cast<uint32_t>(kDsmlMissingBlock) : 0u;
    if (!tag.exact_spelling) call_flags_ |= kDsmlMisspelt;
    tool_ = offered(tag.name);
    if (!tool_) call_flags_ |= kDsmlUnknownTool;
    seen_.clear();
    junk_.clear();
    junk_full_ = false;
    written_ = 0;
    wrapper_held_ = false;
    emit(Kind::call_begin, tag.name);
}

bool DsmlStreamParser::has_property(std::string_view name) const {
    return std::any_of(tool_->properties.begin(), tool_->properties.end(),
                       [&](const auto &property) { return property.first == name; });
}

/// {"arguments": {...}}: only when the tool has no such parameter and all inner keys are parameters of it.
bool DsmlStreamParser::unwraps(std::string_view value, std::string_view &inner) const {
    std::vector<JsonMember> members;
    if (!tool_ || !tool_->has_schema || !json_object_members(value, members) || members.empty()) return false;
    for (const JsonMember &member : members)
        if (!has_property(member.key)) return false;
    inner = trim_json_space(value);
    return true;
}

void DsmlStreamParser::end_call(bool complete) {
    if (wrapper_held_ && complete) {
        std::string_view inner;
        unwraps(value_, inner);
        wrapper_held_ = false;
        call_flags_ |= kDsmlUnwrapped;
        emit(Kind::arguments, inner);
    } else {
        flush_wrapper();
        std::vector<JsonMember> members;
        if (complete && !junk_.empty() && !junk_full_ && seen_.empty() && check_json(junk_) == JsonVerdict::valid &&
            json_object_members(junk_, members)) {
            std::string_view body = trim_json_space(junk_), inner;
            call_flags_ |= kDsmlJsonBody;
            if (members.size() == 1 && (members[0].key == "arguments" || members[0].key == "input") && tool_ &&
                !has_property(members[0].key) && unwraps(members[0].value, inner)) {
                call_flags_ |= kDsmlUnwrapped;
                body = inner;
            }
            emit(Kind::arguments, body);
        } else {
            if (!junk_.empty() || junk_full_) {
                // Arguments that cannot be read must not turn into a call without arguments.
                if (seen_.empty()) complete = false;
                call_flags_ |= kDsmlStrayText;
                discard(junk_);
            }
            if (complete) emit(Kind::arguments, written_ ? "}" : "{}");
        }
    }
    if (!complete) call_flags_ |= kDsmlIncomplete;
    emit(Kind::call_end, {});
    out_->back().complete = complete;
    out_->back().flags = call_flags_;
    state_ = State::block;
}

void DsmlStreamParser::begin_parameter(const DsmlTag &tag) {
    flush_wrapper();
    if (!junk_.empty() || junk_full_) {
        call_flags_ |= kDsmlStrayText;
        discard(junk_);
        junk_.clear();
        junk_full_ = false;
    }
    if (!tag.exact_spelling) call_flags_ |= kDsmlMisspelt;
    state_ = State::value;
    value_mark_ = tag.mark;
    key_ = tag.name;
    value_.clear();
    wrapper_candidate_ = false;
    DsmlTag::Type type = tag.type;
    if (type == DsmlTag::Type::absent || type == DsmlTag::Type::unknown) {
        call_flags_ |= kDsmlMissingType;
        type = DsmlTag::Type::string;
        if (tool_)
            for (const auto &[name, known] : tool_->properties)
                if (name == key_ && known == DsmlTool::Type::other) type = DsmlTag::Type::json;
    }
    const bool first = seen_.empty();
    if (!seen_.insert(key_).second) {
        call_flags_ |= kDsmlDuplicate;
        mode_ = Mode::drop;
    } else if (type == DsmlTag::Type::string) {
        mode_ = Mode::string;
        emit_key();
        emit(Kind::arguments, "\"");
    } else {
        mode_ = Mode::buffer;
        wrapper_candidate_ = first && (key_ == "arguments" || key_ == "input") && tool_ && tool_->has_schema &&
                             !has_property(key_);
    }
}

void DsmlStreamParser::emit_key() {
    escaped_ = written_++ ? ", " : "{";
    append_json_string(escaped_, key_);
    escaped_ += ": ";
    emit(Kind::arguments, escaped_);
}

void DsmlStreamParser::value_text(std::string_view text) {
    if (mode_ == Mode::drop) return discard(text);
    if (mode_ == Mode::buffer) {
        if (value_.size() + text.size() <= options_.max_buffered_value) {
            value_ += text;
            return;
        }
        call_flags_ |= kDsmlInvalidJson;
        mode_ = Mode::string;
        emit_key();
        emit(Kind::arguments, "\"");
        emit_escaped(value_);
        value_ = {};
    }
    emit_escaped(text);
}

/// Straight into the last event: argument text is most of what a parser sees.
void DsmlStreamParser::emit_escaped(std::string_view text) {
    if (text.empty()) return;
    if (out_->empty() || out_->back().kind != Kind::arguments || out_->back().call != calls_ - 1)
        begin_event(Kind::arguments, calls_ - 1, {}, text.size() + text.size() / 8);
    append_json_escaped(out_->back().text, text);
}

void DsmlStreamParser::emit_buffered() {
    emit_key();
    if (check_json(value_) == JsonVerdict::valid) return emit(Kind::arguments, value_);
    call_flags_ |= kDsmlInvalidJson;
    escaped_.clear();
    append_json_string(escaped_, value_);
    emit(Kind::arguments, escaped_);
}

void DsmlStreamParser::end_parameter() {
    if (mode_ == Mode::string) return emit(Kind::arguments, "\"");
    if (mode_ != Mode::buffer) return;
    std::string_view inner;
    wrapper_held_ = wrapper_candidate_ && check_json(value_) == JsonVerdict::valid && unwraps(value_, inner);
    if (!wrapper_held_) emit_buffered();
}

void DsmlStreamParser::flush_wrapper() {
    if (!wrapper_held_) return;
    wrapper_held_ = false;
    emit_buffered();
}

/// The completion ended within reasoning or an open fence, and its last thing is a block. Quoted markup is text, and
/// was passed on as text; but a block that is flawless, offered, and final is most likely a call after a forgotten
/// closer, so it is reported as well, flagged, for the host to decide.
void DsmlStreamParser::recover_quoted() {
    shadow_on_ = false;
    DsmlStreamOptions options;
    options.tools = options_.tools;
    options.max_buffered_value = options_.max_buffered_value;
    DsmlStreamParser inner(std::move(options));
    std::vector<DsmlEvent> events;
    inner.feed("\n\n" + shadow_, events);
    inner.finish(events);
    if (inner.calls_ == 0 || events.back().flags & ~static_cast<uint32_t>(kDsmlTextAfterBlock)) return;
    for (const DsmlEvent &event : events) {
        if (event.kind == Kind::call_end && (!event.complete || event.flags)) return;
        if (event.kind == Kind::content && event.text.find_first_not_of(" \r\n\t") != std::string::npos) return;
    }
    const uint32_t base = calls_;
    for (DsmlEvent &event : events) {
        if (event.kind != Kind::call_begin && event.kind != Kind::arguments && event.kind != Kind::call_end) continue;
        if (event.kind == Kind::call_end) event.flags |= kDsmlQuoted;
        event.call += base;
        out_->push_back(std::move(event));
    }
    calls_ += inner.calls_;
}

// ---- whole messages

std::string dsml_flag_names(uint32_t flags) {
    static constexpr std::array<std::pair<uint32_t, const char *>, 20> names = {{
        {kDsmlMissingParameterEnd, "missing_parameter_end"},
        {kDsmlMissingInvokeEnd, "missing_invoke_end"},
        {kDsmlIncomplete, "incomplete"},
        {kDsmlInvalidJson, "invalid_json"},
        {kDsmlUnwrapped, "unwrapped"},
        {kDsmlMisspelt, "misspelt"},
        {kDsmlMissingType, "missing_type"},
        {kDsmlMissingBlock, "missing_block"},
        {kDsmlJsonBody, "json_body"},
        {kDsmlStrayText, "stray_text"},
        {kDsmlDuplicate, "duplicate_parameter"},
        {kDsmlUnknownTool, "unknown_tool"},
        {kDsmlQuoted, "quoted"},
        {kDsmlMissingBlockEnd, "missing_block_end"},
        {kDsmlMissingThinkEnd, "missing_think_end"},
        {kDsmlStrayThink, "stray_think"},
        {kDsmlEmptyBlock, "empty_block"},
        {kDsmlDiscarded, "discarded"},
        {kDsmlSeparator, "separator"},
        {kDsmlTextAfterBlock, "text_after_block"},
    }};
    std::string out;
    for (const auto &[flag, name] : names)
        if (flags & flag) out += (out.empty() ? "" : ",") + std::string(name);
    return out;
}

DsmlLenientMessage collect_dsml_events(const std::vector<DsmlEvent> &events) {
    DsmlLenientMessage message;
    for (const DsmlEvent &event : events) switch (event.kind) {
        case Kind::reasoning: message.reasoning_content += event.text; break;
        case Kind::content: message.content += event.text; break;
        case Kind::discarded: message.discarded += event.text; break;
        case Kind::call_begin:
            message.tool_calls.emplace_back();
            message.tool_calls.back().name = event.text;
            break;
        case Kind::arguments: message.tool_calls.at(event.call).arguments += event.text; break;
        case Kind::call_end:
            message.tool_calls.at(event.call).complete = event.complete;
            message.tool_calls.at(event.call).flags = event.flags;
            break;
        case Kind::message_end: message.flags = event.flags; break;
        }
    return message;
}

DsmlLenientMessage parse_completion_lenient(std::string_view text, DsmlStreamOptions options) {
    std::vector<DsmlEvent> events;
    DsmlStreamParser parser(std::move(options));
    parser.feed(text, events);
    parser.finish(events);
    return collect_dsml_events(events);
}

namespace {
std::string flags_json(uint32_t flags) {
    std::string names = dsml_flag_names(flags), out = "[";
    if (names.empty()) return "[]";
    out += '"';
    for (const char c : names) {
        if (c == ',') out += "\", \"";
        else out += c;
    }
    return out + "\"]";
}
}  // namespace

std::string message_to_json(const DsmlLenientMessage &message) {
    std::string out = "{\"role\": \"assistant\", \"content\": ";
    append_json_string(out, message.content);
    out += ", \"reasoning_content\": ";
    append_json_string(out, message.reasoning_content);
    out += ", \"tool_calls\": [";
    const char *comma = "";
    for (const DsmlLenientCall &call : message.tool_calls) {
        out += comma;
        comma = ", ";
        out += "{\"type\": \"function\", \"function\": {\"name\": ";
        append_json_string(out, call.name);
        out += ", \"arguments\": ";
        append_json_string(out, call.arguments);
        out += "}, \"complete\": ";
        out += call.complete ? "true" : "false";
        out += ", \"flags\": " + flags_json(call.flags) + "}";
    }
    out += "], \"flags\": " + flags_json(message.flags);
    if (!message.discarded.empty()) {
        out += ", \"discarded\": ";
        append_json_string(out, message.discarded);
    }
    return out + "}";
}

std::vector<DsmlTool> dsml_tools_from_json(std::string_view tools_json) {
    const SchemaJson tools = parse_schema_json(tools_json, "tools");
    if (!tools.is_array()) throw Error(DSV4_E_INVALID, "tools: expected a JSON array of {\"type\", \"function\"}");
    std::vector<DsmlTool> out;
    for (const SchemaJson &tool : tools.items()) {
        const SchemaJson &function = tool.contains("function") ? tool["function"] : tool;
        if (!function["name"].is_string())
            throw Error(DSV4_E_INVALID,
                        "tools[" + std::to_string(out.size()) + "]: expected a function with a string \"name\"");
        DsmlTool entry;
        entry.name = function["name"].text();
        const SchemaJson &properties = function["parameters"]["properties"];
        entry.has_schema = properties.is_object();
        for (const auto &[name, schema] : properties.members()) {
            const SchemaJson &type = schema["type"];
            entry.properties.emplace_back(name, !type.is_string()         ? DsmlTool::Type::unknown
                                                : type.text() == "string" ? DsmlTool::Type::string
                                                                          : DsmlTool::Type::other);
        }
        out.push_back(std::move(entry));
    }
    return out;
}

}  // namespace dsv4
