// dsv4 generate: tokens in, tokens out.
#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>
#include <CLI/CLI.hpp>
#include "support.hpp"

namespace tool {
namespace {

struct Arguments {
    ModelArguments model;
    std::string tokens, ids;
    uint32_t max_tokens = 128, top_k = 0;
    float temperature = 0, top_p = 0, min_p = 0;
    uint64_t seed = 0;
    uint32_t chunk = 0;
    bool stream = false, json = false, ignore_eos = false;
};

struct Printer {
    bool stream;
    std::vector<int32_t> ids;
    dsv4_event done;
};

int32_t on_event(void *user, const dsv4_event *e) {
    auto &p = *static_cast<Printer *>(user);
    if (e->kind == DSV4_EVENT_TOKEN) {
        p.ids.push_back(e->token);
        if (p.stream) {
            std::printf(p.ids.size() == 1 ? "%d" : " %d", e->token);
            std::fflush(stdout);
        }
    } else if (e->kind == DSV4_EVENT_DONE) {
        p.done = *e;
    }
    return 0;
}

void run(const Arguments &a) {
    std::vector<int32_t> prompt = parse_ids(a.ids, "--ids");
    if (!a.tokens.empty()) {
        const auto more = parse_ids(read_file(a.tokens), a.tokens);
        prompt.insert(prompt.end(), more.begin(), more.end());
    }
    ModelArguments model_arguments = a.model;
    model_arguments.sessions = 1;
    const auto runtime = open_runtime(a.model.plugins, a.model.quiet);
    const auto model = open_model(runtime.get(), model_arguments);
    dsv4_session_options session_options;
    DSV4_INIT(session_options);
    session_options.prefill_chunk = a.chunk;
    const auto session = own<dsv4_session>(
        [&](auto **out, auto *err) { return dsv4_session_create(model.get(), &session_options, out, err); });
    dsv4_generate_options options;
    DSV4_INIT(options);
    options.flags = a.ignore_eos ? uint32_t(DSV4_GENERATE_IGNORE_EOS) : 0;
    options.ids = prompt.data();
    options.id_count = prompt.size();
    options.max_tokens = a.max_tokens;
    options.temperature = a.temperature;
    options.top_p = a.top_p;
    options.min_p = a.min_p;
    options.top_k = a.top_k;
    options.seed = a.seed;
    Printer printer{a.stream && !a.json, {}, {}};
    dsv4_error error;
    DSV4_INIT(error);
    check(dsv4_generate(session.get(), &options, nullptr, on_event, &printer, &error), error);
    static constexpr const char *finish[] = {"", "stop", "length", "context"};
    if (a.json) {
        const dsv4_event &d = printer.done;
        std::cout << nlohmann::json{{"ids", printer.ids},
                                    {"finish", finish[d.finish]},
                                    {"prompt_tokens", d.prompt_tokens},
                                    {"cached_tokens", d.cached_tokens},
                                    {"output_tokens", d.output_tokens},
                                    {"seed", d.seed},
                                    {"prefill_seconds", double(d.prefill_ns) * 1e-9},
                                    {"decode_seconds", double(d.decode_ns) * 1e-9}}
                         .dump()
                  << "\n";
        return;
    }
    if (!printer.stream)
        for (size_t i = 0; i < printer.ids.size(); ++i) std::printf(i ? " %d" : "%d", printer.ids[i]);
    std::printf("\n");
}

}  // namespace

void add_generate(CLI::App &app, int &) {
    auto *command = app.add_subcommand("generate", "Generate from a prompt");
    auto a = std::make_shared<Arguments>();
    a->model.add_to(*command);
    command->add_option("--ids", a->ids, "The prompt, as token ids");
    command->add_option("--tokens", a->tokens, "File with the prompt's token ids, - for standard input");
    command->add_option("--max-tokens", a->max_tokens, "0: until the context is full");
    command->add_option("--temperature", a->temperature, "0: greedy");
    command->add_option("--top-p", a->top_p);
    command->add_option("--top-k", a->top_k);
    command->add_option("--min-p", a->min_p);
    command->add_option("--seed", a->seed, "0: a fresh one");
    command->add_option("--chunk", a->chunk, "Prompt tokens of one step");
    command->add_flag("--ignore-eos", a->ignore_eos);
    command->add_flag("--stream", a->stream, "Print tokens as they come");
    command->add_flag("--json", a->json, "One JSON object on stdout");
    command->callback([a] { run(*a); });
}

}  // namespace tool
