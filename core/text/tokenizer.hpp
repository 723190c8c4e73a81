// Byte-level BPE as tokenizer.json files describe it.
#pragma once
#include "core/text/pretokenizer.hpp"
#include "core/text/tokenizer_added.hpp"
#include "core/text/tokenizer_merge.hpp"
#include "core/text/tokenizer_vocabulary.hpp"
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace dsv4 {

/// Immutable after loading: every member is const and may be called from several threads at once.
class Tokenizer {
  public:
    /// Reads a tokenizer.json of the Hugging Face format: a BPE model over bytes, Split and ByteLevel pre-tokenizers,
    /// no normalizer. Anything that would change the ids or lose bytes and is not implemented is refused, not ignored.
    /// Errors start with `name`. Status DSV4_E_MODEL: the file is damaged; DSV4_E_UNSUPPORTED: another kind of
    /// tokenizer.
    static Tokenizer from_json(std::string_view json, const std::string &name = "tokenizer.json");

    /// Text must be UTF-8: otherwise Error(DSV4_E_INVALID) names the offset of the first bad byte. Added tokens are
    /// recognised everywhere. No BOS is added. decode(encode(text)) == text.
    std::vector<TokenId> encode(std::string_view text) const;
    /// The same, but no added token that touches a byte of `untrusted` (sorted, disjoint) is recognised: text from
    /// outside cannot forge control tokens. Where the ranges hold no token's text, the ids are those of encode(text).
    std::vector<TokenId> encode(std::string_view text, std::span<const ByteRange> untrusted) const;
    /// No added token is recognised anywhere, and none comes out.
    std::vector<TokenId> encode_ordinary(std::string_view text) const;
    void encode_append(std::string_view text, std::span<const ByteRange> untrusted, std::vector<TokenId> &out) const;

    /// The tokens' bytes, in order; they need not be UTF-8 (see StreamDecoder). Throws for an id that is not in the
    /// file.
    std::string decode(std::span<const TokenId> ids, bool skip_special = false) const;

    /// One more than the largest id.
    size_t vocab_size() const { return vocabulary_.size(); }
    bool has_token(TokenId id) const { return vocabulary_.used(id); }
    /// The bytes of an id; throws for one that is not in the file. Valid as long as the tokenizer.
    std::string_view token_bytes(TokenId id) const;
    /// The token whose bytes are exactly these (added tokens first), or -1.
    TokenId find_token(std::string_view bytes) const;
    /// An added token, special or not: one that encode() recognises in raw text.
    bool is_added(TokenId id) const { return flag(id) & added_flag; }
    /// Marked "special" in the file: decode can skip it.
    bool is_special(TokenId id) const { return flag(id) & special_flag; }

  private:
    friend class TokenizerLoader;
    class Encoder;
    static constexpr uint8_t added_flag = 1, special_flag = 2;
    uint8_t flag(TokenId id) const {
        return id >= 0 && static_cast<size_t>(id) < flags_.size() ? flags_[static_cast<size_t>(id)] : uint8_t{0};
    }
    Tokenizer() = default;

    TokenTable vocabulary_;
    std::vector<uint8_t> flags_; // [id]
    MergeTable merges_;
    /// Added tokens are looked for in the raw text, first those the file marks "normalized": false, then the others in
    /// what is left between.
    AddedTokenMatcher matchers_[2];
    std::unique_ptr<const Pretokenizer> pretokenizer_;
};

} // namespace dsv4
