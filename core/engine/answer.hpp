// Sampled tokens -> what the caller sees: text in whole code points, reasoning, tool calls, and the finished message.
#pragma once
#include <deque>
#include <memory>
#include <string>
#include <vector>
#include "core/text/dsml_stream.hpp"
#include "core/text/python_json.hpp"
#include "core/text/stream_decoder.hpp"
#include "core/text/tokenizer.hpp"

namespace dsv4 {

/// One event with the strings that a dsv4_event points to.
struct AnswerEvent {
    int32_t kind = 0;  // DSV4_EVENT_*
    std::string text, tool_id, tool_name;
    uint32_t call = 0, flags = 0;
    bool complete = false;
};

struct AnswerOptions {
    bool conversation = false;  // else one text: everything is TEXT
    bool thinking = false;      // the answer starts with reasoning
    std::vector<DsmlTool> tools;
    std::vector<std::string> stop_strings;
    uint64_t id_seed = 0;       // tool call ids are made from it
};

class Answer {
  public:
    Answer(std::shared_ptr<const Tokenizer> tokenizer, AnswerOptions options);

    void push(int32_t token);
    /// The end: what was held back comes out, an open call is reported as cut off.
    void finish();
    /// A stop string was found: nothing from it on was or will be handed out.
    bool stopped() const { return stopped_; }
    /// A call that may be executed was made.
    bool has_calls() const;
    /// After finish(): the sampled tokens say exactly what message() says. Not when an answer was cut off in its reasoning
    /// or in a call, or when the parser had to repair or leave out anything.
    bool faithful() const { return faithful_ && !stopped_; }

    bool next(AnswerEvent &event);

    /// {"role", "content", "reasoning_content"?, "tool_calls"?}, after finish().
    JsonValue message() const;

  private:
    struct Call {
        std::string id, name, arguments;
        bool complete = false;
    };
    void text(const std::string &bytes, bool final);
    void parsed(std::vector<DsmlEvent> events);
    void emit(int32_t kind, std::string text);
    std::string call_id(uint32_t call) const;

    std::shared_ptr<const Tokenizer> tokenizer_;
    AnswerOptions options_;
    StreamDecoder decoder_;
    std::unique_ptr<DsmlStreamParser> parser_;
    std::deque<AnswerEvent> events_;
    std::string held_;  // decoded text that may be the beginning of a stop string
    bool stopped_ = false, finished_ = false, faithful_ = true;
    std::string content_, reasoning_;
    std::vector<Call> calls_;
};

}  // namespace dsv4
