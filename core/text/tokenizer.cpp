#include "core/text/tokenizer.hpp"
#include "core/error.hpp"
#include "core/text/byte_level.hpp"
#include <limits>

namespace dsv4 {

/// One encode call: its scratch memory and where its tokens go.
class Tokenizer::Encoder final : public PieceSink {
  public:
    Encoder(const Tokenizer &tokenizer, std::string_view text, std::span<const ByteRange> untrusted,
            std::vector<TokenId> &out)
        : tokenizer_(tokenizer), text_(text), untrusted_(untrusted), out_(out) {}

    /// Looks for the added tokens of `matchers_[phase]` in text[begin, end) and hands what is between to the next
    /// phase.
    void encode(size_t phase, size_t begin, size_t end) {
        if (begin == end) return;
        if (phase == std::size(tokenizer_.matchers_))
            return tokenizer_.pretokenizer_->split(text_.substr(begin, end - begin), scratch_, *this);
        while (begin < end) {
            const auto match = tokenizer_.matchers_[phase].find(text_, begin, end, untrusted_);
            if (match.id < 0) break;
            encode(phase + 1, begin, match.begin);
            out_.push_back(match.id);
            begin = match.end;
        }
        encode(phase + 1, begin, end);
    }

    void piece(std::string_view bytes) override {
        // The index holds just the tokens that their own bytes merge into, so this is what merging would give.
        const TokenId whole = tokenizer_.vocabulary_.find(bytes);
        if (whole >= 0) out_.push_back(whole);
        else tokenizer_.merges_.encode(bytes, merge_scratch_, out_);
    }

  private:
    const Tokenizer &tokenizer_;
    std::string_view text_;
    std::span<const ByteRange> untrusted_;
    std::vector<TokenId> &out_;
    Pretokenizer::Scratch scratch_;
    MergeTable::Scratch merge_scratch_;
};

void Tokenizer::encode_append(std::string_view text, std::span<const ByteRange> untrusted,
                              std::vector<TokenId> &out) const {
    if (text.size() > static_cast<size_t>(std::numeric_limits<int32_t>::max()))
        throw Error(DSV4_E_INVALID,
                    "text to encode: expected at most 2147483647 bytes, got " + std::to_string(text.size()));
    const size_t bad = find_invalid_utf8(text);
    if (bad != text.size())
        throw Error(DSV4_E_INVALID, "text to encode: expected UTF-8, found byte " +
                                        std::to_string(static_cast<unsigned char>(text[bad])) + " at offset " +
                                        std::to_string(bad) + " of " + std::to_string(text.size()));
    size_t last = 0;
    for (const ByteRange &range : untrusted) {
        if (range.begin < last || range.end < range.begin || range.end > text.size())
            throw Error(DSV4_E_INVALID, "untrusted ranges: expected sorted, disjoint ranges inside the text, found " +
                                            std::to_string(range.begin) + ".." + std::to_string(range.end));
        last = range.end;
    }
    Encoder(*this, text, untrusted, out).encode(0, 0, text.size());
}

std::vector<TokenId> Tokenizer::encode(std::string_view text) const { return encode(text, {}); }

std::vector<TokenId> Tokenizer::encode(std::string_view text, std::span<const ByteRange> untrusted) const {
    std::vector<TokenId> out;
    out.reserve(text.size() / 4 + 4);
    encode_append(text, untrusted, out);
    return out;
}

std::vector<TokenId> Tokenizer::encode_ordinary(std::string_view text) const {
    const ByteRange all{0, text.size()};
    return encode(text, std::span(&all, 1));
}

std::string_view Tokenizer::token_bytes(TokenId id) const {
    if (!vocabulary_.used(id))
        throw Error(DSV4_E_INVALID, "token id " + std::to_string(id) + ": not in the vocabulary of " +
                                        std::to_string(vocabulary_.size()));
    return vocabulary_.bytes(id);
}

std::string Tokenizer::decode(std::span<const TokenId> ids, bool skip_special) const {
    std::string out;
    for (const TokenId id : ids) {
        const std::string_view bytes = token_bytes(id);
        if (!skip_special || !is_special(id)) out += bytes;
    }
    return out;
}

TokenId Tokenizer::find_token(std::string_view bytes) const {
    for (const AddedTokenMatcher &matcher : matchers_) {
        const auto match = matcher.find(bytes, 0, bytes.size(), {});
        if (match.id >= 0 && match.begin == 0 && match.end == bytes.size()) return match.id;
    }
    const TokenId whole = vocabulary_.find(bytes);
    if (whole >= 0) return whole;
    // A token that merging never makes is not in the index; such tokens are few and asked for rarely.
    for (size_t id = 0; id < vocabulary_.size(); ++id)
        if (vocabulary_.used(static_cast<TokenId>(id)) && vocabulary_.bytes(static_cast<TokenId>(id)) == bytes)
            return static_cast<TokenId>(id);
    return -1;
}

} // namespace dsv4
