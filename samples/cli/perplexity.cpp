// dsv4 perplexity: how well a model predicts given texts, and whether another backend or numerics agrees with it.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <iostream>
#include <optional>
#include <nlohmann/json.hpp>
#include <CLI/CLI.hpp>
#include "support.hpp"

namespace tool {
namespace {

struct PerplexityArguments {
    ModelArguments model;
    std::vector<std::string> tokens;
    std::string against;
    bool draft = false, each = false, json = false;
};

struct Text {
    std::string file;
    std::vector<int32_t> ids;
};

/// What one model makes of one text. Arrays go by the token they are about; nothing predicts token 0.
struct Score {
    std::vector<double> loss;          // [T], nats
    std::vector<int32_t> top, draft;   // [T + 1], the model's own choice there and the MTP block's; -1: none
};

int32_t best(const float *logits, size_t size) { return int32_t(std::max_element(logits, logits + size) - logits); }

double log_sum_exp(const float *logits, size_t size) {
    const double most = *std::max_element(logits, logits + size);
    double sum = 0;
    for (size_t i = 0; i < size; ++i) sum += std::exp(double(logits[i]) - most);
    return most + std::log(sum);
}

Score score(dsv4_session *session, const Text &text, bool drafts) {
    struct Reader {
        const std::vector<int32_t> &ids;
        Score score;
    } reader{text.ids, {}};
    const size_t T = text.ids.size();
    reader.score.loss.assign(T, 0);
    reader.score.top.assign(T + 1, -1);
    reader.score.draft.assign(T + 1, -1);
    const auto read = [](void *user, uint32_t position, int32_t kind, const float *logits, size_t size) -> int32_t {
        auto &r = *static_cast<Reader *>(user);
        if (kind == DSV4_LOGITS_DRAFT) {
            r.score.draft[position + 2] = best(logits, size);
            return 0;
        }
        const size_t about = size_t(position) + 1;
        r.score.top[about] = best(logits, size);
        if (about < r.ids.size()) r.score.loss[about] = log_sum_exp(logits, size) - double(logits[r.ids[about]]);
        return 0;
    };
    dsv4_error error;
    DSV4_INIT(error);
    check(dsv4_session_truncate(session, 0, &error), error);
    dsv4_evaluate_options options;
    DSV4_INIT(options);
    options.flags = DSV4_EVALUATE_ALL | (drafts ? DSV4_EVALUATE_DRAFTS : 0);
    check(dsv4_session_evaluate(session, text.ids.data(), T, &options, nullptr, read, &reader, &error), error);
    return std::move(reader.score);
}

/// One model's scores of all texts, and what it ran on.
struct Run {
    std::string backend, device, variant, numerics;
    std::vector<Score> scores;
    size_t tokens = 0, right = 0, drafts = 0, accepted = 0;
    double loss = 0;  // mean

    double perplexity() const { return std::exp(loss); }
};

/// Tokens that are scored, the model's first choices among them, and drafts equal to what the model then chose itself.
void count(const Text &text, const Score &s, Run &run) {
    for (size_t t = 1; t < text.ids.size(); ++t) {
        ++run.tokens;
        run.loss += s.loss[t];
        run.right += s.top[t] == text.ids[t];
        if (s.draft[t] < 0) continue;
        ++run.drafts;
        run.accepted += s.draft[t] == s.top[t];
    }
}

Run evaluate(dsv4_runtime *runtime, ModelArguments a, const std::vector<Text> &texts, bool drafts) {
    size_t longest = 0;
    for (const Text &t : texts) longest = std::max(longest, t.ids.size());
    a.sessions = 1;
    a.flags |= drafts ? uint32_t(DSV4_MODEL_DRAFTS) : 0;
    if (!a.cache_tokens && longest > 65536) a.cache_tokens = longest;
    const auto model = open_model(runtime, a);
    const dsv4_model_info info = info_of(model.get());
    static constexpr const char *numerics[] = {"default", "exact", "official", "native"};
    const auto copy = [](dsv4_str s) { return std::string(s.data, s.size); };
    Run run{copy(info.backend), copy(info.device), copy(info.variant), numerics[info.numerics], {}};
    const auto session = own<dsv4_session>(
        [&](auto **out, auto *err) { return dsv4_session_create(model.get(), nullptr, out, err); });
    for (const Text &t : texts) {
        try {
            run.scores.push_back(score(session.get(), t, drafts));
        } catch (const Failure &e) {
            throw Failure(t.file + ": " + e.what());
        }
        count(t, run.scores.back(), run);
    }
    run.loss /= double(run.tokens);
    return run;
}

double share(size_t part, size_t whole) { return whole ? double(part) / double(whole) : 0; }

nlohmann::json summary(const Run &r) {
    nlohmann::json out = {{"backend", r.backend}, {"variant", r.variant}, {"numerics", r.numerics},
                          {"tokens", r.tokens}, {"loss", r.loss}, {"perplexity", r.perplexity()},
                          {"top1", share(r.right, r.tokens)}};
    if (r.drafts) {
        out["drafts"] = r.drafts;
        out["draft_accept"] = share(r.accepted, r.drafts);
    }
    return out;
}

double top1_equal(const Run &a, const Run &b) {
    size_t equal = 0;
    for (size_t i = 0; i < a.scores.size(); ++i) {
        const auto &x = a.scores[i].top, &y = b.scores[i].top;
        for (size_t t = 1; t + 1 < x.size(); ++t) equal += x[t] == y[t];
    }
    return share(equal, a.tokens);
}

nlohmann::json by_text(const Run &run, const std::vector<Text> &texts, bool each) {
    nlohmann::json out = nlohmann::json::array();
    for (size_t i = 0; i < texts.size(); ++i) {
        Run one{run.backend, run.device, run.variant, run.numerics, {}};
        count(texts[i], run.scores[i], one);
        one.loss /= double(one.tokens);
        nlohmann::json text = {{"file", texts[i].file}, {"tokens", one.tokens}, {"loss", one.loss},
                               {"perplexity", one.perplexity()}, {"top1", share(one.right, one.tokens)}};
        if (each) {
            // About tokens 1 .. T - 1, in six decimals: more would only make the text long.
            const Score &s = run.scores[i];
            const auto from_one = [&](const auto &v) {
                return std::vector(v.begin() + 1, v.begin() + ptrdiff_t(texts[i].ids.size()));
            };
            std::vector<double> loss = from_one(s.loss);
            for (double &x : loss) x = std::round(x * 1e6) * 1e-6;
            text["each"] = {{"loss", loss}, {"top", from_one(s.top)}};
            if (run.drafts) text["each"]["draft"] = from_one(s.draft);
        }
        out.push_back(std::move(text));
    }
    return out;
}

void print(const Run &r) {
    std::printf("%s (%s), %s: %zu tokens, perplexity %.5f, first choice right %.2f %%", r.backend.c_str(),
                r.variant.c_str(), r.numerics.c_str(), r.tokens, r.perplexity(), 100 * share(r.right, r.tokens));
    if (r.drafts) std::printf(", first drafts accepted %.2f %%", 100 * share(r.accepted, r.drafts));
    std::printf("\n");
}

void run(const PerplexityArguments &a) {
    std::vector<Text> texts;
    for (const std::string &file : a.tokens) {
        texts.push_back({file, parse_ids(read_file(file), file)});
        if (texts.back().ids.size() < 2)
            throw Failure(file + ": expected at least 2 tokens, found " + std::to_string(texts.back().ids.size()) +
                          "; the first one is not predicted by anything");
    }
    ModelArguments other = a.model;
    const size_t colon = a.against.find(':');
    other.backend = a.against.substr(0, colon);
    other.numerics = colon == std::string::npos ? "" : a.against.substr(colon + 1);
    if (colon != std::string::npos && other.numerics != "exact" && other.numerics != "official" &&
        other.numerics != "native")
        throw CLI::ValidationError("--against", "expected BACKEND, or BACKEND:exact, :official or :native, found " +
                                                    a.against);

    const auto runtime = open_runtime(a.model.plugins, a.model.quiet);
    const Run mine = evaluate(runtime.get(), a.model, texts, a.draft);
    nlohmann::json out = summary(mine);
    out["texts"] = by_text(mine, texts, a.each);
    std::optional<Run> theirs;
    if (!a.against.empty()) {
        theirs = evaluate(runtime.get(), other, texts, false);
        out["against"] = summary(*theirs);
        out["ratio"] = std::exp(mine.loss - theirs->loss);
        out["top1_equal"] = top1_equal(mine, *theirs);
    }
    if (a.json) {
        std::cout << out.dump() << "\n";
        return;
    }
    print(mine);
    if (!theirs) return;
    print(*theirs);
    std::printf("perplexity ratio %.6f, same first choice %.2f %%\n", out["ratio"].get<double>(),
                100 * out["top1_equal"].get<double>());
}

}  // namespace

void add_perplexity(CLI::App &app, int &) {
    auto *command = app.add_subcommand("perplexity", "How well a model predicts texts; whether two backends agree");
    auto a = std::make_shared<PerplexityArguments>();
    a->model.add_to(*command);
    command->add_option("--tokens", a->tokens, "Files of token ids, each a text of its own; - for standard input")
        ->required();
    add_name(*command, "--against", a->against,
                        "BACKEND[:NUMERICS] to compare with: ratio of perplexities, same first choices");
    command->add_flag("--draft", a->draft, "Also how many of the MTP block's first drafts are the model's own choice");
    command->add_flag("--each", a->each, "With --json: loss, first choice and draft of every token");
    command->add_flag("--json", a->json, "One JSON object on stdout");
    command->callback([a] { run(*a); });
}

}  // namespace tool
