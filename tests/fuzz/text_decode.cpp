// Any bytes as a model's output in chunks: the text must not depend on where the chunks end.
#include "core/text/byte_level.hpp"
#include "core/text/stream_decoder.hpp"
#include "tests/fuzz/expect.hpp"

using namespace dsv4;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0) return 0;
    const std::string_view bytes(reinterpret_cast<const char *>(data) + 1, size - 1);
    const size_t step = 1 + data[0] % 7;
    std::string whole, chunked;
    StreamDecoder decoder;
    decoder.push(bytes, whole);
    decoder.finish(whole);
    for (size_t at = 0; at < bytes.size(); at += step) {
        decoder.push(bytes.substr(at, step), chunked);
        FUZZ_EXPECT(find_invalid_utf8(chunked) == chunked.size());
        FUZZ_EXPECT(decoder.pending() <= 3);
    }
    decoder.finish(chunked);
    FUZZ_EXPECT(chunked == whole);
    FUZZ_EXPECT(find_invalid_utf8(whole) == whole.size());
    if (find_invalid_utf8(bytes) == bytes.size()) FUZZ_EXPECT(whole == bytes);
    std::string spelled_back;
    FUZZ_EXPECT(bytes_from_spelling(spelling_from_bytes(bytes), spelled_back) && spelled_back == bytes);
    return 0;
}
