// Lenient streaming parser: completion bytes in, events out. Any split of the bytes gives the same events once adjacent
// texts of one kind are joined; every repair is a flag. Text is passed on as soon as it cannot become markup any more
// (at most kMaxDsmlTag * 2 bytes are held back); only values with string="false" wait for their end, because whether
// they are JSON is known there.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "core/text/dsml_json.hpp"
#include "core/text/dsml_strict.hpp"
#include "core/text/dsml_tag.hpp"

namespace dsv4 {

/// What a call or a message needed to be understood. 0: written as the release writes it (a sampled call may also
/// carry kDsmlUnknownTool, which is no repair).
enum DsmlFlag : uint32_t {
    kDsmlMissingParameterEnd = 1u << 0,  ///< closed by the next tag
    kDsmlMissingInvokeEnd = 1u << 1,     ///< closed by the next invoke or the block's end
    kDsmlIncomplete = 1u << 2,           ///< the text ended inside the call; its arguments are cut off
    kDsmlInvalidJson = 1u << 3,          ///< a string="false" value was not JSON (or too deep, too long): now a string
    kDsmlUnwrapped = 1u << 4,            ///< a sole `arguments` or `input` object was taken for the arguments
    kDsmlMisspelt = 1u << 5,             ///< lost or misspelt marker, word or '>'
    kDsmlMissingType = 1u << 6,          ///< no readable string attribute: decided by the tool's schema, else a string
    kDsmlMissingBlock = 1u << 7,         ///< an invoke outside a block
    kDsmlJsonBody = 1u << 8,             ///< arguments written as one JSON object instead of parameters
    kDsmlStrayText = 1u << 9,            ///< text between parameters, passed on as discarded
    kDsmlDuplicate = 1u << 10,           ///< a parameter came twice: the first one counts, the other is discarded
    kDsmlUnknownTool = 1u << 11,         ///< the name is not among the offered tools
    kDsmlQuoted = 1u << 12,              ///< the completion ended with this block inside reasoning or a code fence
    // of the message
    kDsmlMissingBlockEnd = 1u << 16,
    kDsmlMissingThinkEnd = 1u << 17,  ///< the text ended in reasoning
    kDsmlStrayThink = 1u << 18,       ///< <think> or </think> opened the text although the mode did not ask for it
    kDsmlEmptyBlock = 1u << 19,
    kDsmlDiscarded = 1u << 20,        ///< there were discarded events
    kDsmlSeparator = 1u << 21,        ///< a block not preceded by exactly two newlines
    kDsmlTextAfterBlock = 1u << 22
};
/// The names of the flags, e.g. "missing_invoke_end,misspelt".
std::string dsml_flag_names(uint32_t flags);

struct DsmlTool {
    enum class Type : uint8_t { unknown, string, other };
    std::string name;
    bool has_schema = false;  ///< `properties` lists the top level
    std::vector<std::pair<std::string, Type>> properties;
};
/// From an OpenAI `tools` array. Throws Error (DSV4_E_INVALID) when it is none.
std::vector<DsmlTool> dsml_tools_from_json(std::string_view tools_json);

struct DsmlEvent {
    enum class Kind : uint8_t {
        reasoning,
        content,
        call_begin,   ///< text is the name
        arguments,    ///< a piece of the arguments' JSON text
        call_end,     ///< complete, flags
        discarded,    ///< markup that is neither content nor a call, so that nothing vanishes unseen
        message_end   ///< flags; the last event
    };
    Kind kind;
    bool complete = false;  ///< call_end: false = never execute; the arguments are then a cut-off JSON text
    uint32_t flags = 0;
    uint32_t call = 0;  ///< index of the call
    std::string text;
    bool operator==(const DsmlEvent &) const = default;
};

struct DsmlStreamOptions {
    bool thinking = false;                     ///< the text starts inside reasoning
    std::vector<DsmlTool> tools;               ///< offered; without any, only exact markup is recognized
    size_t max_buffered_value = 16u << 20;     ///< bytes; a longer string="false" value becomes a string
};

class DsmlStreamParser {
public:
    explicit DsmlStreamParser(DsmlStreamOptions options);
    DsmlStreamParser(DsmlStreamParser &&) = default;  // not copyable: tools_ points into options_
    DsmlStreamParser &operator=(DsmlStreamParser &&) = default;
    /// Appends events to `out`, joining its last one where they continue it.
    void feed(std::string_view bytes, std::vector<DsmlEvent> &out);
    void finish(std::vector<DsmlEvent> &out);

private:
    enum class State { reasoning, content, block, body, junk, value, done };
    enum class Mode { string, buffer, drop };

    /// Follows Markdown quoting well enough to tell quoted markup: fences and code spans of one line.
    struct Quotes {
        size_t scan(std::string_view s, size_t i);  // to the next '<' or the end
        void settle(char next);                     // a run of backticks or tildes is over
        bool quoted() const { return fence_length || span_length; }
        void plain(char c);
        void reset() { *this = Quotes{}; }
        bool line_start = true;
        uint8_t indent = 0;
        char run_char = 0, fence_char = 0;
        size_t run_length = 0, fence_length = 0, span_length = 0;
    };

    std::string_view rest() const { return std::string_view(buffer_).substr(at_); }
    void run(bool final);
    bool step_text(bool final);
    bool step_block(bool final);
    bool step_body(bool final);
    bool step_junk(bool final);
    bool step_value(bool final);
    bool at_markup(std::string_view here, bool final, bool &wait);
    bool open_block(std::string_view here, const DsmlTag &tag, bool final, bool &wait);
    void enter_block(uint32_t flags);
    bool ends_value(const DsmlTag &tag) const;
    bool ends_junk(const DsmlTag &tag) const;
    const DsmlTool *offered(std::string_view name) const;

    void emit(DsmlEvent::Kind kind, std::string_view text);
    void begin_event(DsmlEvent::Kind kind, uint32_t call, std::string_view text, size_t more);
    void text(std::string_view text);
    void flush_newlines();
    void discard(std::string_view text);
    void begin_call(const DsmlTag &tag);
    void end_call(bool complete);
    void begin_parameter(const DsmlTag &tag);
    void value_text(std::string_view text);
    void end_parameter();
    void emit_escaped(std::string_view text);
    void emit_key();
    void emit_buffered();
    void flush_wrapper();
    bool unwraps(std::string_view value, std::string_view &inner) const;
    bool has_property(std::string_view name) const;
    void recover_quoted();

    DsmlStreamOptions options_;
    std::unordered_map<std::string_view, const DsmlTool *> tools_;
    Utf8Cleaner cleaner_;
    std::string buffer_;  // unread text; the part before at_ is consumed
    size_t at_ = 0;
    std::vector<DsmlEvent> *out_ = nullptr;

    State state_;
    bool at_start_ = true;      // nothing but a dropped think tag so far
    bool was_block_ = false;    // a block was seen
    size_t newlines_ = 0;       // 0..2 newlines held back: they belong to a block that may follow
    uint32_t message_flags_ = 0;
    Quotes quotes_;
    bool shadow_on_ = false;    // quoted text since the last block opener, see recover_quoted()
    std::string shadow_;

    bool skipping_ = false;     // in a block, after markup that belongs to no call
    bool block_empty_ = true, block_lost_ = false;

    uint32_t calls_ = 0;        // begun so far
    uint32_t call_flags_ = 0;
    DsmlTag::Mark call_mark_ = DsmlTag::Mark::exact;
    const DsmlTool *tool_ = nullptr;
    std::unordered_set<std::string> seen_;
    std::string junk_;          // text where a parameter should be
    bool junk_full_ = false;
    size_t written_ = 0;        // parameters emitted

    Mode mode_ = Mode::string;
    DsmlTag::Mark value_mark_ = DsmlTag::Mark::exact;
    bool wrapper_candidate_ = false, wrapper_held_ = false;
    std::string key_, value_, escaped_;
};

/// A whole completion at once.
struct DsmlLenientCall : DsmlCall {
    uint32_t flags = 0;
    bool complete = false;
};
struct DsmlLenientMessage {
    std::string content, reasoning_content, discarded;
    std::vector<DsmlLenientCall> tool_calls;
    uint32_t flags = 0;
};
DsmlLenientMessage collect_dsml_events(const std::vector<DsmlEvent> &events);
DsmlLenientMessage parse_completion_lenient(std::string_view text, DsmlStreamOptions options);
/// The strict object with "complete" and "flags" (a list of names) per call, and "flags" and "discarded" if any.
std::string message_to_json(const DsmlLenientMessage &message);

}  // namespace dsv4
