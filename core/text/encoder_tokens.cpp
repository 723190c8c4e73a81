#include "core/text/encoder_tokens.hpp"
#include <algorithm>
#include <numeric>

namespace dsv4 {

namespace {

/// The value with every object's members in key order: callers' JSON libraries reorder them.
JsonValue canonical(const JsonValue &value) {
    if (value.is_array()) {
        JsonValue made = JsonValue::make_array();
        for (const JsonValue &item : value.items()) made.push_back(canonical(item));
        return made;
    }
    if (!value.is_object()) return value;
    std::vector<size_t> order(value.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return value.keys()[a] < value.keys()[b]; });
    JsonValue made = JsonValue::make_object();
    for (const size_t i : order) made.append_unchecked(value.keys()[i], canonical(value.items()[i]));
    return made;
}

/// What identifies an answer apart from its reasoning. Absent, null and empty are the same thing to the encoder.
std::string key_of(const JsonValue &message) {
    std::string key;
    const JsonValue *content = message.find("content");
    if (content && content->truthy()) append_python_json(key, *content);
    const JsonValue *calls = message.find("tool_calls");
    if (!calls || !calls->is_array()) return key;
    for (const JsonValue &call : calls->items()) {
        key += '\n';
        const JsonValue *function = call.find("function");
        for (const JsonValue *part : {call.find("id"), function ? function->find("name") : nullptr}) {
            if (part) append_python_json(key, *part);
            key += ' ';
        }
        const JsonValue *arguments = function ? function->find("arguments") : nullptr;
        if (!arguments) continue;
        JsonValue parsed;
        if (arguments->is_string() && try_parse_python_json(arguments->text(), parsed))
            append_python_json(key, canonical(parsed));
        else append_python_json(key, canonical(*arguments));
    }
    return key;
}

std::string reasoning_of(const JsonValue &message) {
    const JsonValue *reasoning = message.find("reasoning_content");
    return reasoning && reasoning->is_string() ? reasoning->text() : std::string();
}

} // namespace

size_t TurnMemory::Entry::bytes() const {
    // The key is held twice; the rest is a list node and a hash node.
    return 2 * key.size() + reasoning.size() + tokens.capacity() * sizeof(TokenId) + sizeof(Entry) + 128;
}

void TurnMemory::forget(Entries::iterator entry) {
    const auto [first, last] = by_key_.equal_range(entry->key);
    for (auto at = first; at != last; ++at)
        if (at->second == entry) {
            by_key_.erase(at);
            break;
        }
    bytes_ -= entry->bytes();
    entries_.erase(entry);
}

void TurnMemory::remember(const JsonValue &message, std::vector<TokenId> tokens) {
    tokens.shrink_to_fit();
    Entry made{key_of(message), reasoning_of(message), std::move(tokens)};
    const auto [first, last] = by_key_.equal_range(made.key);
    for (auto at = first; at != last; ++at)
        if (at->second->reasoning == made.reasoning) {
            forget(at->second);
            break;
        }
    if (made.bytes() > max_bytes_) return;
    bytes_ += made.bytes();
    entries_.push_front(std::move(made));
    by_key_.emplace(entries_.front().key, entries_.begin());
    while (bytes_ > max_bytes_) forget(std::prev(entries_.end()));
}

const std::vector<TokenId> *TurnMemory::recall(const JsonValue &message, bool with_reasoning) {
    const auto [first, last] = by_key_.equal_range(key_of(message));
    if (first == last) return nullptr;
    const std::string reasoning = reasoning_of(message);
    auto found = entries_.end();
    for (auto at = first; at != last; ++at) {
        if (at->second->reasoning == reasoning) {
            found = at->second;
            break;
        }
        // With reasoning left out, or not to be written at all, another answer of the same text will do ...
        if (with_reasoning && !reasoning.empty()) continue;
        // ... unless it would bring its reasoning along and there are several to choose from.
        if (with_reasoning && found != entries_.end()) return nullptr;
        found = at->second;
    }
    if (found == entries_.end()) return nullptr;
    entries_.splice(entries_.begin(), entries_, found);
    return &found->tokens;
}

std::vector<ByteRange> untrusted_ranges(const EncodedPrompt &prompt, OriginSet untrusted) {
    std::vector<ByteRange> ranges;
    for (const EncodedPrompt::Content &content : prompt.contents) {
        if (!(untrusted & origin_bit(content.origin))) continue;
        if (!ranges.empty() && ranges.back().end == content.begin) ranges.back().end = content.end;
        else ranges.push_back({content.begin, content.end});
    }
    return ranges;
}

std::vector<TokenId> encode_tokens(const Conversation &conversation, const Dialect &dialect, const Tokenizer &tokenizer,
                                   TurnMemory *memory) {
    return encode_tokens(encode_prompt(conversation, dialect), conversation, dialect, tokenizer, memory);
}

std::vector<TokenId> encode_tokens(const EncodedPrompt &prompt, const Conversation &conversation, const Dialect &dialect,
                                   const Tokenizer &tokenizer, TurnMemory *memory) {
    const std::vector<ByteRange> untrusted = untrusted_ranges(prompt, conversation.options.untrusted);
    std::vector<TokenId> out;
    out.reserve(prompt.text.size() / 4);

    const auto encode_part = [&](size_t begin, size_t end) {
        std::vector<ByteRange> inside;
        for (const ByteRange &range : untrusted) {
            const ByteRange cut{std::max(range.begin, begin), std::min(range.end, end)};
            if (cut.begin < cut.end) inside.push_back({cut.begin - begin, cut.end - begin});
        }
        tokenizer.encode_append(std::string_view(prompt.text).substr(begin, end - begin), inside, out);
    };

    const TokenId eos = tokenizer.find_token(dialect.eos), think_close = tokenizer.find_token(dialect.think_close);
    size_t done = 0;
    for (const EncodedPrompt::Answer &answer : prompt.answers) {
        if (!memory || eos < 0 || think_close < 0) break;
        const std::vector<TokenId> *sampled = memory->recall(conversation.messages()[answer.message], answer.thinking);
        if (!sampled) continue;
        // Sampled in thinking mode: reasoning, </think>, answer. A prompt that has no place for one part leaves it out;
        // one that wants reasoning where none was sampled cannot use these tokens.
        const auto close = std::find(sampled->begin(), sampled->end(), think_close);
        const bool thought = close != sampled->end();
        if (answer.thinking && !thought) continue;
        auto begin = thought && !answer.thinking ? close + 1 : sampled->begin(), end = sampled->end();
        if (end != begin && *(end - 1) == eos) --end;
        encode_part(done, answer.begin);
        out.insert(out.end(), begin, end);
        if (answer.eos) out.push_back(eos);
        done = answer.end;
    }
    encode_part(done, prompt.text.size());
    return out;
}

} // namespace dsv4
