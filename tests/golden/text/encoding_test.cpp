#include "core/error.hpp"
#include "core/text/encoder.hpp"
#include "core/text/encoder_tokens.hpp"
#include "tests/catch.hpp"
#include "tests/golden/text/shared_data.hpp"

using namespace dsv4;

TEST_CASE("the four published conversations encode to the published prompts") {
    for (int i = 1; i <= 4; ++i) {
        const std::string n = std::to_string(i);
        Conversation conversation =
            Conversation::from_request(test::read_shared("vectors/encoding/test_input_" + n + ".json"));
        conversation.options.thinking = i != 4; // as the release's own test calls it
        CAPTURE(i);
        CHECK(encode_prompt(conversation, find_dialect("preview")).text ==
              test::read_shared("vectors/encoding/test_output_" + n + ".txt"));
    }
}

TEST_CASE("random conversations encode as the released encoder does") {
    std::istringstream cases(test::read_shared("vectors/encoding/cases.jsonl"));
    size_t prompts = 0, errors = 0;
    for (std::string line; std::getline(cases, line);) {
        const JsonValue value = parse_python_json(line, "cases.jsonl");
        if (value.find("kind")->text() != "encode") continue;
        CAPTURE(prompts, errors, line.substr(0, 400));
        const JsonValue &request = *value.find("request");
        if (const JsonValue *error = value.find("error")) {
            CAPTURE(error->text());
            ++errors;
            REQUIRE_THROWS_AS(encode_prompt(Conversation::from_request(request), find_dialect("preview")), Error);
            continue;
        }
        ++prompts;
        const EncodedPrompt prompt = encode_prompt(Conversation::from_request(request), find_dialect("preview"));
        REQUIRE(prompt.text == value.find("prompt")->text());
        // The later release differs in the effort texts alone.
        if (!request.find("reasoning_effort")->truthy())
            CHECK(encode_prompt(Conversation::from_request(request), find_dialect("0731")).text == prompt.text);
    }
    CHECK(prompts == 133);
    CHECK(errors == 19);
}

TEST_CASE("marking harmless text as untrusted changes no token") {
    const Tokenizer tokenizer = Tokenizer::from_json(test::read_shared("data/tokenizer/tokenizer.json"));
    std::istringstream cases(test::read_shared("vectors/encoding/cases.jsonl"));
    size_t same = 0;
    for (std::string line; std::getline(cases, line);) {
        const JsonValue value = parse_python_json(line, "cases.jsonl");
        if (!value.find("prompt")) continue;
        Conversation conversation = Conversation::from_request(*value.find("request"));
        const EncodedPrompt prompt = encode_prompt(conversation, find_dialect("preview"));
        const std::vector<TokenId> flat = tokenizer.encode(prompt.text);
        CHECK(encode_tokens(conversation, find_dialect("preview"), tokenizer) == flat);
        conversation.options.untrusted = every_origin;
        const std::vector<TokenId> guarded = encode_tokens(conversation, find_dialect("preview"), tokenizer);
        CHECK(tokenizer.decode(guarded) == prompt.text);
        bool harmless = true;
        for (const EncodedPrompt::Content &content : prompt.contents)
            for (const TokenId id :
                 tokenizer.encode(std::string_view(prompt.text).substr(content.begin, content.end - content.begin)))
                harmless = harmless && !tokenizer.is_added(id);
        same += harmless;
        CHECK((guarded == flat) == harmless);
    }
    CHECK(same > 10);
}
