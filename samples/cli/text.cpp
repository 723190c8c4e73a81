// dsv4 tokenize, detokenize, encode, parse: text in and out, no model.
#include <iostream>
#include <nlohmann/json.hpp>
#include <CLI/CLI.hpp>
#include "support.hpp"

namespace tool {
namespace {

Owned<dsv4_tokenizer> open_tokenizer(const std::string &path) {
    return own<dsv4_tokenizer>([&](auto **out, auto *err) { return dsv4_tokenizer_load(str(path), out, err); });
}

void write_blob(const Owned<dsv4_blob> &blob) {
    const dsv4_str bytes = dsv4_blob_data(blob.get());
    std::cout.write(bytes.data, std::streamsize(bytes.size));
}

/// Checkpoints with the block drafter speak the later dialect, as the library decides for a loaded model.
std::string dialect_of(const std::string &folder) {
    const auto config = nlohmann::json::parse(read_file(folder + "/config.json"), nullptr, false);
    return config.is_object() && config.contains("dspark_block_size") ? "0731" : "preview";
}

struct ParseArguments {
    std::string mode, tools;
    bool lenient = false, json = false;
};

}  // namespace

std::vector<int32_t> tokenize(const dsv4_tokenizer *tokenizer, std::string_view text, uint32_t flags) {
    dsv4_error error;
    DSV4_INIT(error);
    size_t count = 0;
    // No token is shorter than a byte.
    std::vector<int32_t> ids(text.size());
    check(dsv4_tokenizer_encode(tokenizer, str(text), flags, ids.data(), ids.size(), &count, &error), error);
    ids.resize(count);
    return ids;
}

void add_text(CLI::App &app, int &) {
    auto *tokenize_command = app.add_subcommand("tokenize", "Text on standard input -> token ids");
    auto path = std::make_shared<std::string>();
    auto ordinary = std::make_shared<bool>(false), json = std::make_shared<bool>(false);
    add_name(*tokenize_command, "--model", *path, "Folder with tokenizer.json")->required();
    tokenize_command->add_flag("--ordinary", *ordinary, "Control tokens spelt out in the text stay text");
    tokenize_command->add_flag("--json", *json, "The ids are always a JSON array");
    tokenize_command->callback([=] {
        const auto ids = tokenize(open_tokenizer(*path).get(), read_file("-"), *ordinary ? DSV4_ENCODE_ORDINARY : 0);
        std::cout << nlohmann::json(ids).dump() << "\n";
    });

    auto *detokenize = app.add_subcommand("detokenize", "Token ids on standard input -> text");
    add_name(*detokenize, "--model", *path, "Folder with tokenizer.json")->required();
    detokenize->add_flag("--json", *json, "A JSON string");
    detokenize->callback([=] {
        const auto tokenizer = open_tokenizer(*path);
        const auto ids = parse_ids(read_file("-"), "standard input");
        const auto blob = own<dsv4_blob>([&](auto **out, auto *err) {
            return dsv4_tokenizer_decode(tokenizer.get(), ids.data(), ids.size(), out, err);
        });
        if (!*json) return write_blob(blob);
        const dsv4_str bytes = dsv4_blob_data(blob.get());
        std::cout << nlohmann::json(std::string(bytes.data, bytes.size))
                         .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace)
                  << "\n";
    });

    auto *encode = app.add_subcommand("encode", "Request JSON on standard input -> the exact prompt text");
    auto dialect = std::make_shared<std::string>();
    add_name(*encode, "--model", *path, "Folder with config.json, which tells the prompt format");
    encode->add_option("--dialect", *dialect, "preview or 0731")->check(CLI::IsMember({"preview", "0731", "0813"}));
    encode->add_flag("--json", *json, "A JSON string");
    encode->callback([=] {
        dsv4_prompt_options options;
        DSV4_INIT(options);
        if (dialect->empty() && !path->empty()) *dialect = dialect_of(*path);
        options.dialect = str(*dialect);
        const std::string request = read_file("-");
        const auto prompt = own<dsv4_prompt>(
            [&](auto **out, auto *err) { return dsv4_prompt_from_json(str(request), &options, out, err); });
        const auto blob = own<dsv4_blob>([&](auto **out, auto *err) { return dsv4_prompt_render(prompt.get(), out, err); });
        if (!*json) return write_blob(blob);
        const dsv4_str bytes = dsv4_blob_data(blob.get());
        std::cout << nlohmann::json(std::string(bytes.data, bytes.size)).dump() << "\n";
    });

    auto *parse = app.add_subcommand("parse", "A completion on standard input -> the assistant message as JSON");
    auto a = std::make_shared<ParseArguments>();
    parse->add_option("--thinking-mode", a->mode, "chat or thinking: where the completion starts")
        ->required()
        ->check(CLI::IsMember({"chat", "thinking"}));
    parse->add_flag("--lenient", a->lenient, "Repair what models get wrong, and flag it");
    add_name(*parse, "--tools", a->tools, "File with the OpenAI tools array that was offered (lenient)");
    parse->add_flag("--json", a->json, "JSON is what this command always prints");
    parse->callback([a] {
        const uint32_t flags = (a->mode == "thinking" ? DSV4_PARSE_THINKING : 0) | (a->lenient ? DSV4_PARSE_LENIENT : 0);
        const std::string text = read_file("-"), tools = a->tools.empty() ? "" : read_file(a->tools);
        write_blob(own<dsv4_blob>(
            [&](auto **out, auto *err) { return dsv4_parse_completion(str(text), flags, str(tools), out, err); }));
        std::cout << "\n";
    });
}

}  // namespace tool
