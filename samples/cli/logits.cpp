// dsv4 logits: a text's logits into a safetensors file.
#include <algorithm>
#include <cstring>
#include <iostream>
#include <nlohmann/json.hpp>
#include <CLI/CLI.hpp>
#include "support.hpp"

namespace tool {
namespace {

struct LogitsArguments {
    ModelArguments model;
    std::string tokens, out, positions;
    uint32_t chunk = 0;
    bool draft = false, json = false;
};

/// F32 matrices in the safetensors format: u64 header size, JSON header, data.
std::string safetensors(const std::vector<std::pair<std::string, std::vector<float>>> &tensors, size_t columns) {
    nlohmann::ordered_json header;
    std::string data;
    for (const auto &[name, values] : tensors) {
        const size_t begin = data.size(), bytes = values.size() * sizeof(float);
        header[name] = {{"dtype", "F32"},
                        {"shape", {values.size() / columns, columns}},
                        {"data_offsets", {begin, begin + bytes}}};
        data.append(reinterpret_cast<const char *>(values.data()), bytes);
    }
    std::string text = header.dump();
    text.resize((text.size() + 7) / 8 * 8, ' ');
    const uint64_t size = text.size();
    std::string out(sizeof size, '\0');
    std::memcpy(out.data(), &size, sizeof size);
    return out + text + data;
}

struct Collected {
    std::vector<float> logits, drafts;
};

void run(const LogitsArguments &a) {
    const std::vector<int32_t> ids = parse_ids(read_file(a.tokens), a.tokens);
    if (ids.empty()) throw Failure(a.tokens + ": expected token ids, found none");
    std::vector<uint32_t> positions;
    for (const int32_t p : parse_ids(a.positions, "--positions", "positions")) {
        if (p < 0 || size_t(p) >= ids.size())
            throw Failure("--positions: expected positions in [0, " + std::to_string(ids.size()) + "), found " + std::to_string(p));
        positions.push_back(uint32_t(p));
    }
    if (positions.empty() && !a.positions.empty()) throw Failure("--positions: expected positions, found none");
    // Rows are written in the order in which they were asked for; the library wants them ascending, once each.
    std::vector<uint32_t> ascending = positions;
    std::sort(ascending.begin(), ascending.end());
    ascending.erase(std::unique(ascending.begin(), ascending.end()), ascending.end());

    ModelArguments model_arguments = a.model;
    model_arguments.flags |= a.draft ? uint32_t(DSV4_MODEL_DRAFTS) : 0;
    model_arguments.sessions = 1;
    model_arguments.batch_tokens = a.chunk > 512 ? a.chunk : 0;
    if (!model_arguments.cache_tokens && ids.size() > 65536) model_arguments.cache_tokens = ids.size();
    const auto runtime = open_runtime(a.model.plugins, a.model.quiet);
    const auto model = open_model(runtime.get(), model_arguments);
    const size_t vocab = info_of(model.get()).vocab_size;
    dsv4_session_options session_options;
    DSV4_INIT(session_options);
    session_options.prefill_chunk = a.chunk;
    const auto session = own<dsv4_session>(
        [&](auto **out, auto *err) { return dsv4_session_create(model.get(), &session_options, out, err); });

    dsv4_evaluate_options options;
    DSV4_INIT(options);
    options.flags = (ascending.empty() ? DSV4_EVALUATE_ALL : 0) | (a.draft ? DSV4_EVALUATE_DRAFTS : 0);
    options.positions = ascending.data();
    options.position_count = ascending.size();
    Collected got;
    const auto collect = [](void *user, uint32_t, int32_t kind, const float *logits, size_t size) -> int32_t {
        auto &c = *static_cast<Collected *>(user);
        auto &to = kind == DSV4_LOGITS_DRAFT ? c.drafts : c.logits;
        to.insert(to.end(), logits, logits + size);
        return 0;
    };
    dsv4_error error;
    DSV4_INIT(error);
    check(dsv4_session_evaluate(session.get(), ids.data(), ids.size(), &options, nullptr, collect, &got, &error), error);

    const auto in_asked_order = [&](std::vector<float> rows) {
        if (positions == ascending) return rows;
        std::vector<float> out;
        for (const uint32_t p : positions) {
            const auto row = size_t(std::lower_bound(ascending.begin(), ascending.end(), p) - ascending.begin());
            if (row < rows.size() / vocab)
                out.insert(out.end(), rows.begin() + ptrdiff_t(row * vocab), rows.begin() + ptrdiff_t((row + 1) * vocab));
        }
        return out;
    };
    std::vector<std::pair<std::string, std::vector<float>>> tensors;
    tensors.emplace_back("logits", in_asked_order(std::move(got.logits)));
    if (a.draft) tensors.emplace_back("draft_logits", in_asked_order(std::move(got.drafts)));
    write_file(a.out, safetensors(tensors, vocab));
    if (a.json) {
        nlohmann::json summary = {{"out", a.out}, {"tokens", ids.size()}, {"vocab", vocab}};
        for (const auto &[name, values] : tensors) summary["rows"][name] = values.size() / vocab;
        std::cout << summary.dump() << "\n";
    }
}

}  // namespace

void add_logits(CLI::App &app, int &) {
    auto *command = app.add_subcommand("logits", "Logits of a text, and drafts, into a safetensors file");
    auto a = std::make_shared<LogitsArguments>();
    a->model.add_to(*command);
    add_name(*command, "--tokens", a->tokens, "File of token ids, - for standard input")->required();
    add_name(*command, "--out", a->out, "File to write")->required();
    add_number(*command, "--chunk", a->chunk, "Tokens of one step");
    add_name(*command, "--positions", a->positions, "Comma-separated; all otherwise");
    command->add_flag("--draft", a->draft, "draft_logits too: row t drafts token t+2");
    command->add_flag("--json", a->json, "A summary on stdout");
    command->callback([a] { run(*a); });
}

}  // namespace tool
