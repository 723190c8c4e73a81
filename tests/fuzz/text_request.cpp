// A request of unknown origin: a prompt, or an Error.
#include "core/error.hpp"
#include "core/text/byte_level.hpp"
#include "core/text/encoder_tokens.hpp"
#include "tests/fuzz/expect.hpp"
#include "tests/unit/text/train_bpe.hpp"

using namespace dsv4;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const Tokenizer tokenizer = Tokenizer::from_json(
        test::train_tokenizer_json("the user asks the assistant and the assistant answers", 30,
                                   {"<｜end▁of▁sentence｜>", "<｜begin▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>",
                                    "<think>", "</think>", "｜DSML｜"}));
    const std::string_view json(reinterpret_cast<const char *>(data), size);
    JsonValue value;
    if (!try_parse_python_json(json, value)) return 0;
    const std::string printed = dump_python_json(value);
    FUZZ_EXPECT(dump_python_json(parse_python_json(printed, "again")) == printed);
    for (const char *dialect : {"preview", "0731"}) try {
            Conversation conversation = Conversation::from_request(json);
            const EncodedPrompt prompt = encode_prompt(conversation, find_dialect(dialect));
            FUZZ_EXPECT(find_invalid_utf8(prompt.text) == prompt.text.size());
            size_t last = 0;
            for (const EncodedPrompt::Content &content : prompt.contents) {
                FUZZ_EXPECT(content.begin >= last && content.begin < content.end && content.end <= prompt.text.size());
                last = content.end;
            }
            TurnMemory memory(4096);
            for (const EncodedPrompt::Answer &answer : prompt.answers) {
                FUZZ_EXPECT(answer.begin <= answer.end && answer.end <= prompt.text.size());
                // Remembering what would be encoded anyway changes nothing in the text.
                memory.remember(
                    conversation.messages()[answer.message],
                    tokenizer.encode(std::string_view(prompt.text).substr(answer.begin, answer.end - answer.begin)));
                FUZZ_EXPECT(memory.bytes() <= 4096);
            }
            conversation.options.untrusted = every_origin;
            FUZZ_EXPECT(tokenizer.decode(encode_tokens(conversation, find_dialect(dialect), tokenizer)) == prompt.text);
            encode_tokens(conversation, find_dialect(dialect), tokenizer, &memory);
        } catch (const Error &e) {
            FUZZ_EXPECT(e.what()[0] != '\0');
        }
    return 0;
}
