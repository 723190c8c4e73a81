// A conversation -> tokens, reusing the very tokens the model sampled for its earlier answers. Text written back by a
// caller need not tokenize to what was sampled, and each difference would cost the cached prefix from there on.
#pragma once
#include "core/text/encoder.hpp"
#include "core/text/tokenizer.hpp"
#include <cstddef>
#include <list>
#include <string>
#include <unordered_map>
#include <vector>

namespace dsv4 {

/// Sampled answers by what callers send back of them: their tool call ids, or their text. Least recently used answers
/// are forgotten beyond a number of bytes. One call at a time.
class TurnMemory {
  public:
    explicit TurnMemory(size_t max_bytes = size_t{16} << 20) : max_bytes_(max_bytes) {}

    /// `message`: the assistant message as handed to the caller. `tokens`: all that was sampled after the generation
    /// header, control tokens included, with or without EOS. A message remembered twice keeps the newer tokens.
    void remember(const JsonValue &message, std::vector<TokenId> tokens);

    /// The tokens of the answer that `message` is. Equal are: content, calls (ids, names, arguments as JSON, whatever
    /// their spacing and key order) and, where `with_reasoning`, the reasoning; a caller that leaves the reasoning out
    /// means the only answer known with the rest. Null when there is none, or when it is not clear which.
    const std::vector<TokenId> *recall(const JsonValue &message, bool with_reasoning);

    size_t bytes() const { return bytes_; }
    size_t size() const { return entries_.size(); }

  private:
    struct Entry {
        std::string key, reasoning;
        std::vector<TokenId> tokens;
        size_t bytes() const;
    };
    using Entries = std::list<Entry>; // most recently used first
    void forget(Entries::iterator entry);

    size_t max_bytes_, bytes_ = 0;
    Entries entries_;
    std::unordered_multimap<std::string, Entries::iterator> by_key_;
};

/// The stretches of a prompt whose words come from `untrusted` origins, as Tokenizer::encode wants them.
std::vector<ByteRange> untrusted_ranges(const EncodedPrompt &prompt, OriginSet untrusted);

/// The tokens of `prompt`, which is encode_prompt(conversation, dialect). Text of `conversation.options.untrusted`
/// origins never gives a control token. With a memory, remembered answers are written with their own tokens: the text is
/// then what the model said, which may differ from the prompt's in spelling but not in meaning.
std::vector<TokenId> encode_tokens(const EncodedPrompt &prompt, const Conversation &conversation, const Dialect &dialect,
                                   const Tokenizer &tokenizer, TurnMemory *memory = nullptr);
/// The same for callers that have no other use of the text.
std::vector<TokenId> encode_tokens(const Conversation &conversation, const Dialect &dialect, const Tokenizer &tokenizer,
                                   TurnMemory *memory = nullptr);

} // namespace dsv4
