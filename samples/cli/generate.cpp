// dsv4 generate: one answer. dsv4 chat: a conversation on the terminal.
#include <cmath>
#include <cstdio>
#include <iostream>
#include <limits>
#include <nlohmann/json.hpp>
#include <CLI/CLI.hpp>
#include "support.hpp"

namespace tool {
namespace {

struct GenerateArguments {
    ModelArguments model;
    std::string text, raw, messages, tokens, ids, thinking = "chat", system, tool_choice = "auto", tool_name, dialect;
    uint32_t max_tokens = 0, top_k = 0, thinking_budget = 0;
    float temperature = 0, top_p = 0, min_p = 0;
    uint64_t seed = 0;
    uint32_t chunk = 0;
    std::vector<std::string> stop;
    bool stream = false, json = false, ignore_eos = false, unconstrained = false;
};

/// Prints what is said as it is said, or keeps it.
struct Printer {
    bool stream = false, ids_only = false;
    std::vector<int32_t> ids;
    std::string text;        // as printed without --json
    dsv4_event done{};
    std::string message;     // JSON, of a conversation
    int32_t last_kind = 0;

    void put(std::string_view s) {
        text += s;
        if (!stream) return;
        std::fwrite(s.data(), 1, s.size(), stdout);
        std::fflush(stdout);
    }
};

int32_t on_event(void *user, const dsv4_event *e) {
    auto &p = *static_cast<Printer *>(user);
    const std::string_view text(e->text.data ? e->text.data : "", e->text.size);
    switch (e->kind) {
    case DSV4_EVENT_TOKEN:
        p.ids.push_back(e->token);
        if (p.ids_only) p.put((p.ids.size() == 1 ? "" : " ") + std::to_string(e->token));
        break;
    case DSV4_EVENT_REASONING:
        if (p.last_kind != e->kind) p.put("[thinking]\n");
        p.put(text);
        break;
    case DSV4_EVENT_TEXT:
        if (p.last_kind == DSV4_EVENT_REASONING) p.put("\n[answer]\n");
        p.put(text);
        break;
    case DSV4_EVENT_TOOL_BEGIN:
        p.put((p.text.empty() ? "[call " : "\n[call ") + std::string(e->tool_name.data, e->tool_name.size) + "] ");
        break;
    case DSV4_EVENT_TOOL_ARGUMENTS: p.put(text); break;
    case DSV4_EVENT_TOOL_END:
        if (!e->complete) p.put(" [cut off]");
        break;
    case DSV4_EVENT_DONE:
        p.done = *e;
        p.message = text;
        return 0;
    default: return 0;
    }
    if (e->kind != DSV4_EVENT_TOKEN) p.last_kind = e->kind;
    return std::ferror(stdout);  // nobody can read on: stop
}

const char *finish_name(int32_t finish) {
    static constexpr const char *name[] = {"", "stop", "length", "context", "tool_calls"};
    return finish >= 0 && finish < 5 ? name[finish] : "other";
}

dsv4_prompt_options prompt_options(const GenerateArguments &a) {
    dsv4_prompt_options o;
    DSV4_INIT(o);
    if (a.thinking != "chat") o.flags = DSV4_PROMPT_THINKING;
    o.dialect = str(a.dialect);
    if (a.thinking == "max" || a.thinking == "high" || a.thinking == "low") o.reasoning_effort = str(a.thinking);
    return o;
}

Owned<dsv4_prompt> empty_prompt(const GenerateArguments &a) {
    const dsv4_prompt_options o = prompt_options(a);
    auto prompt = own<dsv4_prompt>([&](auto **out, auto *err) { return dsv4_prompt_create(&o, out, err); });
    dsv4_error error;
    DSV4_INIT(error);
    if (!a.system.empty()) check(dsv4_prompt_add_system(prompt.get(), str(a.system), &error), error);
    return prompt;
}

dsv4_generate_options generate_options(const GenerateArguments &a, std::vector<dsv4_str> &stops) {
    dsv4_generate_options o;
    DSV4_INIT(o);
    o.flags = (a.ignore_eos ? DSV4_GENERATE_IGNORE_EOS : 0) | (a.unconstrained ? DSV4_GENERATE_FREE : 0);
    o.max_tokens = a.max_tokens;
    o.temperature = a.temperature;
    o.top_p = a.top_p;
    o.min_p = a.min_p;
    o.top_k = a.top_k;
    o.seed = a.seed;
    o.thinking_budget = a.thinking_budget;
    o.tool_choice = a.tool_choice == "none"       ? DSV4_TOOLS_NONE
                    : a.tool_choice == "required" ? DSV4_TOOLS_REQUIRED
                    : !a.tool_name.empty()        ? DSV4_TOOLS_NAMED
                                                  : DSV4_TOOLS_AUTO;
    o.tool_name = str(a.tool_name);
    for (const std::string &s : a.stop) stops.push_back(str(s));
    o.stop_strings = stops.data();
    o.stop_string_count = stops.size();
    return o;
}

Owned<dsv4_session> open_session(dsv4_model *model, const GenerateArguments &a) {
    dsv4_session_options options;
    DSV4_INIT(options);
    options.prefill_chunk = a.chunk;
    return own<dsv4_session>([&](auto **out, auto *err) { return dsv4_session_create(model, &options, out, err); });
}

[[noreturn]] void refuse(const std::string &key, const std::string &expected, const nlohmann::json &found) {
    std::string text = found.is_array() ? "an array" : found.is_object() ? "an object" : found.dump(-1, ' ', true);
    if (text.size() > 60) text = text.substr(0, 57) + "...";
    throw Failure("request." + key + ": expected " + expected + ", found " + text);
}

template <class T> T whole_number(const nlohmann::json &value, const std::string &key, uint64_t least) {
    const uint64_t most = std::numeric_limits<T>::max();
    bool good = value.is_number_unsigned();
    uint64_t number = good ? value.get<uint64_t>() : 0;
    if (value.is_number_float()) {  // 5.0 is a whole number too, and exact up to 2^53
        const double d = value.get<double>();
        good = d >= 0 && d <= 0x1p53 && d == std::floor(d);
        if (good) number = uint64_t(d);
    }
    if (!good || number < least || number > most)
        refuse(key, "a whole number from " + std::to_string(least) + " to " + std::to_string(most), value);
    return T(number);
}

float real_number(const nlohmann::json &value, const std::string &key, float most, const char *expected) {
    const double d = value.is_number() ? value.get<double>() : -1;
    if (!(d >= 0 && d <= double(most))) refuse(key, expected, value);
    return float(d);
}

std::string text_of(const nlohmann::json &value, const std::string &key, const char *expected) {
    if (!value.is_string() || value.get_ref<const std::string &>().empty()) refuse(key, expected, value);
    return value.get<std::string>();
}

/// What a request, which dsv4_prompt_from_json took, says beside its messages. The command line goes before it; null is
/// as good as nothing.
void take_request(GenerateArguments &a, const std::string &text, const CLI::App &command) {
    const auto request = nlohmann::json::parse(text, nullptr, false);
    if (request.is_discarded())  // the library, like Python, takes these
        throw Failure("request: expected JSON without NaN, lone surrogates and numbers above 1.8e308");
    if (!request.is_object()) return;
    const auto find = [&](const char *key, const char *option) -> const nlohmann::json * {
        const auto at = request.find(key);
        return at == request.end() || at->is_null() || command.count(option) ? nullptr : &*at;
    };
    for (const char *key : {"max_tokens", "max_completion_tokens"})  // the newer name counts when both are there
        if (const auto *v = find(key, "--max-tokens")) a.max_tokens = whole_number<uint32_t>(*v, key, 1);
    if (const auto *v = find("top_k", "--top-k")) a.top_k = whole_number<uint32_t>(*v, "top_k", 0);
    if (const auto *v = find("seed", "--seed")) a.seed = whole_number<uint64_t>(*v, "seed", 0);
    if (const auto *v = find("temperature", "--temperature"))
        a.temperature = real_number(*v, "temperature", 1e38f, "a number from 0 (greedy) to 1e38");
    if (const auto *v = find("top_p", "--top-p")) a.top_p = real_number(*v, "top_p", 1, "a number from 0 (off) to 1");
    if (const auto *v = find("min_p", "--min-p")) a.min_p = real_number(*v, "min_p", 1, "a number from 0 (off) to 1");
    if (const auto *stop = find("stop", "--stop")) {
        if (!stop->is_array()) a.stop = {text_of(*stop, "stop", "a non-empty text or an array of them")};
        else
            for (size_t i = 0; i < stop->size(); ++i)
                a.stop.push_back(text_of((*stop)[i], "stop[" + std::to_string(i) + "]", "a non-empty text"));
    }
    if (const auto *choice = find("tool_choice", "--tool-choice"); choice && !command.count("--tool-name")) {
        const char *const expected = R"("auto", "none", "required" or {"type": "function", "function": {"name": ...}})";
        if (choice->is_object()) {
            const auto function = choice->find("function");
            if (choice->value("type", nlohmann::json("function")) != "function" || function == choice->end() ||
                !function->is_object() || !function->contains("name"))
                refuse("tool_choice", expected, *choice);
            a.tool_name = text_of((*function)["name"], "tool_choice.function.name", "the name of a tool");
        } else if (*choice == "auto" || *choice == "none" || *choice == "required") {
            a.tool_choice = choice->get<std::string>();
        } else {
            refuse("tool_choice", expected, *choice);
        }
    }
}

void generate(GenerateArguments a, const CLI::App &command) {
    // An empty prompt is one too: what was given is counted, not what is in it.
    const bool user = command.count("--prompt"), messages = command.count("--messages"), raw = command.count("--raw");
    const int given = user + messages + raw + (command.count("--tokens") || command.count("--ids"));
    if (given != 1)
        throw CLI::ValidationError("generate", "expected one prompt (-p, --messages, --raw, --ids or --tokens), found " +
                                                   std::to_string(given));
    if (!a.tool_name.empty() && a.tool_choice != "auto")
        throw CLI::ValidationError("generate", "--tool-name asks for that tool; it does not go with --tool-choice");
    if (raw && a.raw.empty()) throw Failure("--raw: expected a text to continue, found an empty one");
    Owned<dsv4_prompt> prompt;
    if (messages) {
        const std::string request = read_file(a.messages);
        const dsv4_prompt_options o = prompt_options(a);
        prompt = own<dsv4_prompt>(
            [&](auto **out, auto *err) { return dsv4_prompt_from_json(str(request), &o, out, err); });
        take_request(a, request, command);
    }
    std::vector<int32_t> ids = parse_ids(a.ids, "--ids");
    if (!a.tokens.empty()) {
        const auto more = parse_ids(read_file(a.tokens), a.tokens);
        ids.insert(ids.end(), more.begin(), more.end());
    }
    const bool by_ids = !user && !messages && !raw;
    if (by_ids && ids.empty())
        throw Failure((a.tokens.empty() ? "--ids" : a.tokens) + ": expected token ids, found none");
    ModelArguments model_arguments = a.model;
    model_arguments.sessions = 1;
    const auto runtime = open_runtime(a.model.plugins, a.model.quiet);
    const auto model = open_model(runtime.get(), model_arguments);
    const auto session = open_session(model.get(), a);
    std::vector<dsv4_str> stops;
    dsv4_generate_options options = generate_options(a, stops);
    dsv4_error error;
    DSV4_INIT(error);
    Printer printer;
    if (user) {
        prompt = empty_prompt(a);
        check(dsv4_prompt_add_user(prompt.get(), str(a.text), &error), error);
    } else if (raw) {
        options.text = str(a.raw);
    } else if (by_ids) {
        options.ids = ids.data();
        options.id_count = ids.size();
        printer.ids_only = true;
    }
    options.prompt = prompt.get();
    if (a.json) options.flags |= DSV4_GENERATE_TOKENS;
    printer.stream = a.stream && !a.json;
    check(dsv4_generate(session.get(), &options, nullptr, on_event, &printer, &error), error);
    if (!a.json) {
        if (!printer.stream) std::cout << printer.text;
        std::cout << "\n";
        return;
    }
    const dsv4_event &d = printer.done;
    nlohmann::json out = {{"ids", printer.ids}, {"finish", finish_name(d.finish)}, {"prompt_tokens", d.prompt_tokens},
                          {"cached_tokens", d.cached_tokens}, {"output_tokens", d.output_tokens}, {"seed", d.seed},
                          {"prefill_seconds", double(d.prefill_ns) * 1e-9}, {"decode_seconds", double(d.decode_ns) * 1e-9}};
    if (prompt) out["message"] = nlohmann::json::parse(printer.message);
    else if (!printer.ids_only) out["text"] = printer.text;
    std::cout << out.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) << "\n";
}

void chat(const GenerateArguments &a) {
    const auto runtime = open_runtime(a.model.plugins, a.model.quiet);
    ModelArguments model_arguments = a.model;
    model_arguments.sessions = 1;
    const auto model = open_model(runtime.get(), model_arguments);
    const auto session = open_session(model.get(), a);
    auto prompt = empty_prompt(a);
    std::vector<dsv4_str> stops;
    dsv4_generate_options options = generate_options(a, stops);
    dsv4_error error;
    DSV4_INIT(error);
    if (!a.json) std::cerr << "An empty line or the end of input ends the conversation.\n";
    const auto ask = [&] { return a.json || (std::cerr << "> "); };
    for (std::string line; ask() && std::getline(std::cin, line) && !line.empty();) {
        check(dsv4_prompt_add_user(prompt.get(), str(line), &error), error);
        options.prompt = prompt.get();
        Printer printer;
        printer.stream = !a.json;
        check(dsv4_generate(session.get(), &options, nullptr, on_event, &printer, &error), error);
        if (!(std::cout << (a.json ? printer.message : std::string()) << std::endl) || std::ferror(stdout)) return;
        check(dsv4_prompt_add_message(prompt.get(), str(printer.message), &error), error);
    }
}

void add_sampling(CLI::App &command, GenerateArguments &a) {
    a.model.add_to(command);
    command.add_option("--thinking", a.thinking, "chat (none), thinking, low, high or max")
        ->check(CLI::IsMember({"chat", "thinking", "low", "high", "max"}));
    command.add_option("--dialect", a.dialect, "Prompt format, preview or 0731; the model's own otherwise")
        ->check(CLI::IsMember({"preview", "0731", "0813"}));
    command.add_option("--system", a.system, "System message");
    add_number(command, "--max-tokens", a.max_tokens, "0: until the context is full");
    command.add_option("--temperature", a.temperature, "0: greedy");
    command.add_option("--top-p", a.top_p);
    add_number(command, "--top-k", a.top_k, "0: off");
    command.add_option("--min-p", a.min_p);
    add_number(command, "--seed", a.seed, "0: a fresh one");
    command.add_option("--stop", a.stop, "Text that ends the answer; may be repeated");
    add_number(command, "--thinking-budget", a.thinking_budget, "Most tokens of reasoning");
    add_number(command, "--chunk", a.chunk, "Prompt tokens of one step");
    command.add_flag("--unconstrained", a.unconstrained, "Do not hold tool calls and response formats to their grammar");
}

}  // namespace

void add_generate(CLI::App &app, int &) {
    auto *command = app.add_subcommand("generate", "Generate one answer");
    auto a = std::make_shared<GenerateArguments>();
    add_sampling(*command, *a);
    command->add_option("-p,--prompt", a->text, "A user's message");
    add_name(*command, "--messages", a->messages, "File with a request in OpenAI format, - for standard input");
    command->add_option("--raw", a->raw, "A text to be continued, without chat format");
    command->add_option("--ids", a->ids, "The prompt, as token ids");
    add_name(*command, "--tokens", a->tokens, "File with the prompt's token ids, - for standard input");
    command->add_option("--tool-choice", a->tool_choice, "auto, none or required")
        ->check(CLI::IsMember({"auto", "none", "required"}));
    add_name(*command, "--tool-name", a->tool_name, "The one tool that must be called");
    command->add_flag("--ignore-eos", a->ignore_eos);
    command->add_flag("--stream", a->stream, "Print as it comes");
    command->add_flag("--json", a->json, "One JSON object on stdout");
    command->callback([a, command] { generate(*a, *command); });

    auto *chat_command = app.add_subcommand("chat", "A conversation, a line a turn");
    auto c = std::make_shared<GenerateArguments>();
    add_sampling(*chat_command, *c);
    chat_command->add_flag("--json", c->json, "Each answer as one JSON message a line");
    chat_command->callback([c] { chat(*c); });
}

}  // namespace tool
