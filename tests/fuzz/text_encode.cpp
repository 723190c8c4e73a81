// Any bytes as text, the first two as an untrusted range.
#include "core/error.hpp"
#include "core/text/byte_level.hpp"
#include "core/text/tokenizer.hpp"
#include "tests/fuzz/expect.hpp"
#include "tests/unit/text/train_bpe.hpp"
#include <algorithm>

using namespace dsv4;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const Tokenizer tokenizer = Tokenizer::from_json(test::train_tokenizer_json(
        "the quick brown fox jumps over the lazy dog 今天天气很好今天 aaaa aaaa    \n\n\n\n return return 0;", 60,
        {"<s>", "<|user|>", "｜T｜", "<|user|>x", "</think>"}));
    if (size < 2) return 0;
    const std::string_view text(reinterpret_cast<const char *>(data) + 2, size - 2);
    ByteRange untrusted{std::min<size_t>(data[0], text.size()), 0};
    untrusted.end = std::min(text.size(), untrusted.begin + data[1]);
    try {
        const std::vector<TokenId> ids = tokenizer.encode(text), ordinary = tokenizer.encode_ordinary(text);
        FUZZ_EXPECT(find_invalid_utf8(text) == text.size());
        FUZZ_EXPECT(tokenizer.decode(ids) == text);
        FUZZ_EXPECT(tokenizer.decode(ordinary) == text);
        FUZZ_EXPECT(std::none_of(ordinary.begin(), ordinary.end(), [](TokenId id) { return tokenizer.is_added(id); }));
        if (std::none_of(ids.begin(), ids.end(), [](TokenId id) { return tokenizer.is_added(id); }))
            FUZZ_EXPECT(ids == ordinary);
        const std::vector<TokenId> guarded = tokenizer.encode(text, std::span(&untrusted, 1));
        FUZZ_EXPECT(tokenizer.decode(guarded) == text);
        size_t at = 0;
        for (const TokenId id : guarded) {
            const size_t end = at + tokenizer.token_bytes(id).size();
            if (tokenizer.is_added(id))
                FUZZ_EXPECT(end <= untrusted.begin || at >= untrusted.end || untrusted.begin == untrusted.end);
            at = end;
        }
    } catch (const Error &) {
        FUZZ_EXPECT(find_invalid_utf8(text) != text.size());
    }
    return 0;
}
