// A tokenizer.json of unknown origin: it loads, or an Error says why not; a loaded one keeps its promises.
#include "core/error.hpp"
#include "core/text/tokenizer.hpp"
#include "tests/fuzz/expect.hpp"

using namespace dsv4;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    try {
        const Tokenizer tokenizer = Tokenizer::from_json({reinterpret_cast<const char *>(data), size});
        const std::string text = "Hello, 世界! \n\n  x = 12345;</s> the end\t";
        FUZZ_EXPECT(tokenizer.decode(tokenizer.encode(text)) == text);
        for (const TokenId id : tokenizer.encode_ordinary(text)) FUZZ_EXPECT(!tokenizer.is_added(id));
    } catch (const Error &e) {
        FUZZ_EXPECT(e.what()[0] != '\0');
    }
    return 0;
}
