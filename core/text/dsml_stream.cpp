#include "core/text/dsml_stream.hpp"

#include <algorithm>
#include <array>
#include <cstring>

namespace dsv4 {
namespace {

using Word = DsmlTag::Word;
using Mark = DsmlTag::Mark;
using Kind = DsmlEvent::Kind;


constexpr size_t kMaxGap = 16;              // white space between a block's opener and its first invoke


enum class Match { no, yes, more };
Match match(std::string_view text, std::string_view literal, bool final) {
    const std::string_view here = text.substr(0, literal.size());
    if (here == literal) return Match::yes;
    return !final && here == literal.substr(0, here.size()) ? Match::more : Match::no;
}

bool is_space(char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }

/// 0 plain, else what Quotes::scan must look at.
constexpr std::array<uint8_t, 256> kQuoteBytes = [] {
    std::array<uint8_t, 256> table{};
    table['<'] = table['\n'] = table['`'] = table['~'] = 1;
    return table;
}();

}  // namespace

// ---- Markdown quoting

void DsmlStreamParser::Quotes::settle(char next) {
    if (!run_length) return;
    if (fence_length) {
        const bool bare = next == '\n' || next == ' ' || next == '\r' || next == '\t';
        if (line_start && bare && run_char == fence_char && run_length >= fence_length) fence_length = 0;
    } else if (line_start && run_length >= 3) {
        fence_char = run_char;
        fence_length = run_length;
    } else if (run_char == '`') {
        if (!span_length) span_length = run_length;
        else if (span_length == run_length) span_length = 0;
    }
    line_start = false;
    run_length = 0;
}

void DsmlStreamParser::Quotes::plain(char c) {
    settle(c);
    if (!line_start) return;
    if (c == ' ' && indent < 3) ++indent;
    else line_start = false;
}

size_t DsmlStreamParser::Quotes::scan(std::string_view s, size_t i) {
    while (i < s.size()) {
        const char c = s[i];
        if (!kQuoteBytes[static_cast<unsigned char>(c)]) {
            plain(c);
            ++i;
            if (!line_start)
                while (i < s.size() && !kQuoteBytes[static_cast<unsigned char>(s[i])]) ++i;
            continue;
        }
        if (c == '<') {
            settle(c);
            return i;
        }
        if (c == '\n') {
            settle(c);
            span_length = 0;
            line_start = true;
            indent = 0;
        } else if (run_length && run_char == c) {
            ++run_length;
        } else {
            settle(c);
            run_char = c;
            run_length = 1;
        }
        ++i;
    }
    return i;
}

// ---- driving

DsmlStreamParser::DsmlStreamParser(DsmlStreamOptions options)
    : options_(std::move(options)), state_(options_.thinking ? State::reasoning : State::content) {
    for (const DsmlTool &tool : options_.tools) tools_.emplace(tool.name, &tool);
}

void DsmlStreamParser::feed(std::string_view bytes, std::vector<DsmlEvent> &out) {
    out_ = &out;
    cleaner_.feed(bytes, buffer_);
    run(false);
}

void DsmlStreamParser::finish(std::vector<DsmlEvent> &out) {
    out_ = &out;
    cleaner_.finish(buffer_);
    run(true);
    flush_newlines();
    quotes_.settle('\n');
    if (state_ == State::value) {
        if (mode_ == Mode::buffer) {
            emit_key();
            emit(Kind::arguments, value_);
        }
        end_call(false);
    } else if (state_ == State::body || state_ == State::junk) {
        end_call(false);
    }
    if (state_ == State::block && !block_lost_) message_flags_ |= kDsmlMissingBlockEnd;
    if (state_ == State::block && block_empty_) message_flags_ |= kDsmlEmptyBlock;
    if (state_ == State::reasoning) message_flags_ |= kDsmlMissingThinkEnd;
    if (shadow_on_ && (state_ == State::reasoning || (state_ == State::content && quotes_.fence_length)))
        recover_quoted();
    emit(Kind::message_end, {});
    out_->back().flags = message_flags_;
    state_ = State::done;
}

void DsmlStreamParser::run(bool final) {
    bool going = true;
    while (going && at_ < buffer_.size()) {
        switch (state_) {
        case State::reasoning:
        case State::content: going = step_text(final); break;
        case State::block: going = step_block(final); break;
        case State::body: going = step_body(final); break;
        case State::junk: going = step_junk(final); break;
        case State::value: going = step_value(final); break;
        case State::done:
            discard(rest());
            at_ = buffer_.size();
            break;
        }
    }
    // What stays is bounded by the longest thing held back, so this moves a bounded amount of text.
    buffer_.erase(0, at_);
    at_ = 0;
}

const DsmlTool *DsmlStreamParser::offered(std::string_view name) const {
    const auto found = tools_.find(name);
    return found == tools_.end() ? nullptr : found->second;
}

// ---- reasoning and content

bool DsmlStreamParser::step_text(bool final) {
    const std::string_view s = rest();
    size_t i;
    if (state_ == State::content) {
        i = quotes_.scan(s, 0);
    } else {
        const void *found = std::memchr(s.data(), '<', s.size());
        i = found ? static_cast<size_t>(static_cast<const char *>(found) - s.data()) : s.size();
    }
    text(s.substr(0, i));
    at_ += i;
    if (i == s.size()) return false;
    bool wait = false;
    if (at_markup(s.substr(i), final, wait)) return true;
    if (wait) return false;
    if (state_ == State::content) quotes_.plain('<');
    text("<");
    ++at_;
    return true;
}

/// At a '<': true when something was consumed or the state changed; `wait` when more text must come first.
bool DsmlStreamParser::at_markup(std::string_view here, bool final, bool &wait) {
    const auto literal = [&](std::string_view word) {
        const Match m = match(here, word, final);
        if (m == Match::more) wait = true;
        return m == Match::yes;
    };
    if (literal(kEosText)) {
        flush_newlines();
        if (state_ == State::reasoning) message_flags_ |= kDsmlMissingThinkEnd;
        at_ += kEosText.size();
        if (shadow_on_ && (state_ == State::reasoning || quotes_.fence_length)) recover_quoted();
        state_ = State::done;
        return true;
    }
    if (state_ == State::reasoning && literal(kThinkEnd)) {
        at_ += kThinkEnd.size();
        state_ = State::content;
        at_start_ = false;
        shadow_on_ = false;
        quotes_.reset();
        return true;
    }
    if (at_start_ && literal(kThinkBegin)) {
        at_ += kThinkBegin.size();
        state_ = State::reasoning;
        at_start_ = false;
        message_flags_ |= kDsmlStrayThink;
        return true;
    }
    if (at_start_ && state_ == State::content && literal(kThinkEnd)) {
        at_ += kThinkEnd.size();
        at_start_ = false;
        message_flags_ |= kDsmlStrayThink;
        return true;
    }
    if (wait) return false;

    DsmlTag tag;
    const TagScan found = scan_dsml_tag(here, final, tag);
    if (found == TagScan::more) {
        wait = true;
        return false;
    }
    if (state_ == State::reasoning || quotes_.quoted()) {
        if (found == TagScan::tag && tag.word == Word::block && !tag.closing && tag.exact_spelling &&
            !options_.tools.empty()) {
            shadow_on_ = true;
            shadow_.clear();
        }
        return false;
    }
    if (found == TagScan::cut && tag.mark == Mark::exact && !tag.closing) {
        // Text that ends in the middle of an opener: an unfinished block, not something to show.
        if (here.substr(1, kDsmlToken.size()) == kDsmlToken) {
            enter_block(0);
            discard(here);
            at_ = buffer_.size();
            return true;
        }
    }
    if (found != TagScan::tag || tag.closing) return false;
    if (tag.word == Word::block) return open_block(here, tag, final, wait);
    if (tag.word == Word::invoke && !tag.malformed && offered(tag.name)) {
        enter_block(0);
        block_lost_ = true;
        return true;  // step_block reads the invoke
    }
    return false;
}

/// A block's opener counts when markup follows it; a misspelt one when an offered tool's invoke does.
bool DsmlStreamParser::open_block(std::string_view here, const DsmlTag &tag, bool final, bool &wait) {
    const bool strong = tag.mark == Mark::exact && (tag.exact_spelling || !tag.has_end);
    size_t next = tag.length;
    while (next < here.size() && next - tag.length < kMaxGap && is_space(here[next])) ++next;
    bool opens = false;
    if (next == here.size()) {
        if (!final) return !(wait = true);
        opens = strong;
    } else if (here[next] == '<') {
        DsmlTag second;
        const TagScan found = scan_dsml_tag(here.substr(next), final, second);
        if (found == TagScan::more) return !(wait = true);
        if (found == TagScan::cut) {
            opens = strong && second.mark != Mark::none;
        } else if (found == TagScan::tag) {
            const bool invoke = second.word == Word::invoke && !second.closing && !second.malformed;
            opens = (strong && second.mark == Mark::exact) || (invoke && offered(second.name));
        }
    }
    if (!opens) return false;
    enter_block(tag.exact_spelling ? 0u : static_cast<uint32_t>(kDsmlMisspelt));
    at_ += tag.length;
    return true;
}

void DsmlStreamParser::enter_block(uint32_t flags) {
    if (newlines_ == 2) {
        newlines_ = 0;  // the release's separator is part of the block
    } else {
        message_flags_ |= kDsmlSeparator;
        flush_newlines();
    }
    message_flags_ |= flags;
    state_ = State::block;
    at_start_ = false;
    was_block_ = true;
    skipping_ = false;
    block_empty_ = true;
    block_lost_ = false;
}

// ---- between invokes

bool DsmlStreamParser::step_block(bool final) {
    const std::string_view s = rest();
    if (is_space(s[0]) && !skipping_) {
        ++at_;
        return true;
    }
    if (s[0] == '<') {
        const Match eos = match(s, kEosText, final);
        if (eos == Match::more) return false;
        DsmlTag tag;
        const TagScan found = eos == Match::yes ? TagScan::text : scan_dsml_tag(s, final, tag);
        if (found == TagScan::more) return false;
        if (found == TagScan::cut && tag.mark != Mark::none) {
            discard(s);
            at_ = buffer_.size();
            return false;
        }
        if (found == TagScan::tag) {
            const bool opener = tag.word == Word::invoke && !tag.closing && !tag.malformed;
            if (opener && (tag.mark == Mark::exact || offered(tag.name))) {
                begin_call(tag);
                at_ += tag.length;
                return true;
            }
            if (tag.word == Word::block && tag.closing) {
                if (!tag.exact_spelling) message_flags_ |= kDsmlMisspelt;
                if (block_empty_) message_flags_ |= kDsmlEmptyBlock;
                at_ += tag.length;
                state_ = State::content;
                quotes_.reset();
                return true;
            }
            if (tag.mark != Mark::none) {
                discard(s.substr(0, tag.length));
                at_ += tag.length;
                skipping_ = true;
                return true;
            }
        }
        if (skipping_ && eos == Match::no) {
            discard("<");
            ++at_;
            return true;
        }
    } else if (skipping_) {
        const size_t end = std::min(s.find('<'), s.size());
        discard(s.substr(0, end));
        at_ += end;
        return true;
    }
    // Ordinary text: the block's closer is missing.
    if (!block_lost_) message_flags_ |= kDsmlMissingBlockEnd;
    if (block_empty_) message_flags_ |= kDsmlEmptyBlock;
    state_ = State::content;
    quotes_.reset();
    return true;
}

// ---- inside an invoke

bool DsmlStreamParser::step_body(bool final) {
    const std::string_view s = rest();
    if (is_space(s[0])) {
        ++at_;
        return true;
    }
    if (s[0] == '<') {
        const Match eos = match(s, kEosText, final);
        if (eos == Match::more) return false;
        if (eos == Match::yes) {
            end_call(false);
            state_ = State::block;
            return true;
        }
        DsmlTag tag;
        const TagScan found = scan_dsml_tag(s, final, tag);
        if (found == TagScan::more) return false;
        if (found == TagScan::cut) {
            discard(s);
            at_ = buffer_.size();
            return false;
        }
        if (found == TagScan::tag && !tag.malformed) {
            if (tag.word == Word::parameter && !tag.closing) {
                begin_parameter(tag);
                at_ += tag.length;
                return true;
            }
            if (tag.closing && tag.word == Word::invoke) {
                if (!tag.exact_spelling) call_flags_ |= kDsmlMisspelt;
                at_ += tag.length;
                end_call(true);
                return true;
            }
            if ((tag.closing && tag.word == Word::block) || (!tag.closing && tag.word == Word::invoke)) {
                call_flags_ |= kDsmlMissingInvokeEnd;
                end_call(true);  // step_block reads the tag
                return true;
            }
            if (tag.closing) {  // a parameter's closer, or something like one, with nothing to close
                call_flags_ |= kDsmlMisspelt;
                discard(s.substr(0, tag.length));
                at_ += tag.length;
                return true;
            }
        }
    }
    state_ = State::junk;
    return true;
}

bool DsmlStreamParser::ends_junk(const DsmlTag &tag) const {
    if (tag.malformed) return false;
    if (tag.closing) return tag.word == Word::invoke || tag.word == Word::block;
    return tag.mark != Mark::none && (tag.word == Word::parameter || tag.word == Word::invoke);
}

/// Text where a parameter should be: kept, because a JSON object there is how some completions write arguments.
bool DsmlStreamParser::step_junk(bool final) {
    const std::string_view s = rest();
    size_t take = std::min(s.find('<'), s.size());
    if (take == 0) {
        DsmlTag tag;
        const TagScan found = scan_dsml_tag(s, final, tag);
        if (found == TagScan::more) return false;
        if (found == TagScan::cut && tag.mark != Mark::none) {
            discard(s);
            at_ = buffer_.size();
            return false;
        }
        if (found == TagScan::tag && ends_junk(tag)) {
            state_ = State::body;
            return true;
        }
        take = 1;
    }
    if (!junk_full_ && junk_.size() + take > options_.max_buffered_value) {
        junk_full_ = true;  // too long to be taken for arguments: all of it passes through, in order
        discard(junk_);
        junk_.clear();
    }
    if (junk_full_) discard(s.substr(0, take));
    else junk_ += s.substr(0, take);
    at_ += take;
    return true;
}

bool DsmlStreamParser::ends_value(const DsmlTag &tag) const {
    const bool trusted = tag.mark == Mark::exact || (tag.mark == Mark::variant && !options_.tools.empty());
    if (tag.closing) {
        if (tag.word == Word::parameter) return trusted || value_mark_ == Mark::none;
        if (tag.word == Word::other) return trusted;
        return trusted || (tag.mark == Mark::none && call_mark_ == Mark::none && value_mark_ == Mark::none);
    }
    if (!trusted || tag.malformed) return false;
    if (tag.word == Word::parameter) return tag.type == DsmlTag::Type::string || tag.type == DsmlTag::Type::json;
    return tag.word == Word::invoke && (options_.tools.empty() || offered(tag.name));
}

bool DsmlStreamParser::step_value(bool final) {
    const std::string_view s = rest();
    DsmlTag tag;
    TagScan scan = TagScan::text;
    size_t i = 0;
    for (; i < s.size(); ++i) {
        const void *const found = std::memchr(s.data() + i, '<', s.size() - i);
        i = found ? static_cast<size_t>(static_cast<const char *>(found) - s.data()) : s.size();
        if (i == s.size()) break;
        scan = scan_dsml_tag(s.substr(i), final, tag);
        if (scan == TagScan::more || (scan == TagScan::cut && tag.mark != Mark::none) || (scan == TagScan::tag && ends_value(tag)))
            break;
    }
    if (i) {
        value_text(s.substr(0, i));
        at_ += i;
    }
    if (i == s.size()) return false;
    if (scan == TagScan::more) return false;
    if (scan == TagScan::cut && tag.mark != Mark::none) {
        if (tag.closing) {  // whatever it closes, the value was over
            end_parameter();
            state_ = State::body;
        }
        discard(s.substr(i));
        at_ = buffer_.size();
        return false;
    }
    if (tag.closing && (tag.word == Word::parameter || tag.word == Word::other)) {
        if (!tag.exact_spelling) call_flags_ |= kDsmlMisspelt;
        at_ += tag.length;
    } else {
        call_flags_ |= kDsmlMissingParameterEnd;  // step_body reads the tag
    }
    end_parameter();
    state_ = State::body;
    return true;
}

}  // namespace dsv4
