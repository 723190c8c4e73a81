#include "core/engine/answer.hpp"
#include <algorithm>
#include "dsv4/dsv4.h"

namespace dsv4 {

Answer::Answer(std::shared_ptr<const Tokenizer> tokenizer, AnswerOptions options)
    : tokenizer_(std::move(tokenizer)), options_(std::move(options)) {
    if (options_.conversation) {
        DsmlStreamOptions parser;
        parser.thinking = options_.thinking;
        parser.tools = options_.tools;
        parser_ = std::make_unique<DsmlStreamParser>(std::move(parser));
    }
}

void Answer::push(int32_t token) {
    std::string bytes;
    if (tokenizer_->has_token(token)) decoder_.push(tokenizer_->token_bytes(token), bytes);
    text(bytes, false);
}

void Answer::finish() {
    if (finished_) return;
    finished_ = true;
    std::string bytes;
    decoder_.finish(bytes);
    text(bytes, true);
    if (parser_) {
        std::vector<DsmlEvent> events;
        parser_->finish(events);
        parsed(std::move(events));
    }
}

/// Through the stop strings, then to the parser. A tail that may still become a stop string waits.
void Answer::text(const std::string &bytes, bool final) {
    if (stopped_) return;
    std::string ready;
    if (options_.stop_strings.empty()) {
        ready = bytes;
    } else {
        held_ += bytes;
        size_t cut = std::string::npos;
        for (const std::string &s : options_.stop_strings) cut = std::min(cut, held_.find(s));
        if (cut != std::string::npos) {
            stopped_ = true;
            ready = held_.substr(0, cut);
            held_.clear();
        } else {
            size_t keep = 0;
            if (!final)
                for (const std::string &s : options_.stop_strings)
                    for (size_t n = std::min(s.size() - 1, held_.size()); n > keep; --n)
                        if (held_.compare(held_.size() - n, n, s, 0, n) == 0) keep = n;
            ready = held_.substr(0, held_.size() - keep);
            held_.erase(0, held_.size() - keep);
        }
    }
    if (ready.empty()) return;
    if (parser_) {
        std::vector<DsmlEvent> events;
        parser_->feed(ready, events);
        parsed(std::move(events));
    } else {
        content_ += ready;
        emit(DSV4_EVENT_TEXT, std::move(ready));
    }
}

void Answer::parsed(std::vector<DsmlEvent> events) {
    for (DsmlEvent &e : events) {
        using Kind = DsmlEvent::Kind;
        switch (e.kind) {
        case Kind::content:
            content_ += e.text;
            emit(DSV4_EVENT_TEXT, std::move(e.text));
            break;
        case Kind::reasoning:
            reasoning_ += e.text;
            emit(DSV4_EVENT_REASONING, std::move(e.text));
            break;
        case Kind::call_begin:
            calls_.push_back({call_id(e.call), e.text, {}, false});
            events_.push_back({DSV4_EVENT_TOOL_BEGIN, {}, calls_.back().id, e.text, e.call, e.flags, false});
            break;
        case Kind::arguments:
            calls_.back().arguments += e.text;
            events_.push_back({DSV4_EVENT_TOOL_ARGUMENTS, std::move(e.text), calls_.back().id, calls_.back().name, e.call, 0, false});
            break;
        case Kind::call_end:
            calls_.back().complete = e.complete;
            if (!e.complete || (e.flags & ~uint32_t(kDsmlUnknownTool))) faithful_ = false;
            events_.push_back({DSV4_EVENT_TOOL_END, calls_.back().arguments, calls_.back().id, calls_.back().name,
                               e.call, e.flags, e.complete});
            break;
        case Kind::discarded: faithful_ = false; break;
        case Kind::message_end:
            if (e.flags) faithful_ = false;
            break;
        }
    }
}

void Answer::emit(int32_t kind, std::string text) {
    if (!events_.empty() && events_.back().kind == kind) {
        events_.back().text += text;
        return;
    }
    AnswerEvent event;
    event.kind = kind;
    event.text = std::move(text);
    events_.push_back(std::move(event));
}

bool Answer::has_calls() const {
    return std::any_of(calls_.begin(), calls_.end(), [](const Call &c) { return c.complete; });
}

bool Answer::next(AnswerEvent &event) {
    if (events_.empty()) return false;
    event = std::move(events_.front());
    events_.pop_front();
    return true;
}

/// Not secret and not guessed at: different in each answer, so that results find their calls.
std::string Answer::call_id(uint32_t call) const {
    uint64_t z = options_.id_seed + (call + 1) * 0x9E3779B97F4A7C15ull;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    z ^= z >> 31;
    std::string id = "call_";
    for (int i = 0; i < 16; ++i, z >>= 4) id += "0123456789abcdef"[z & 15];
    return id;
}

JsonValue Answer::message() const {
    JsonValue m = JsonValue::make_object();
    m.set("role", JsonValue::make_string("assistant"));
    m.set("content", JsonValue::make_string(content_));
    if (!reasoning_.empty()) m.set("reasoning_content", JsonValue::make_string(reasoning_));
    JsonValue calls = JsonValue::make_array();
    for (const Call &c : calls_) {
        if (!c.complete) continue;  // never to be executed, so never to be sent back either
        JsonValue function = JsonValue::make_object();
        function.set("name", JsonValue::make_string(c.name));
        function.set("arguments", JsonValue::make_string(c.arguments));
        JsonValue call = JsonValue::make_object();
        call.set("id", JsonValue::make_string(c.id));
        call.set("type", JsonValue::make_string("function"));
        call.set("function", std::move(function));
        calls.push_back(std::move(call));
    }
    if (calls.size()) m.set("tool_calls", std::move(calls));
    return m;
}

}  // namespace dsv4
