// dsv4 bench: prefill and decode speed of a model, real or synthetic.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <iostream>
#include <thread>
#include <sys/resource.h>
#include <nlohmann/json.hpp>
#include <CLI/CLI.hpp>
#include "support.hpp"

namespace tool {
namespace {

struct BenchArguments {
    ModelArguments model;
    std::string synthetic;
    uint32_t prompt = 512, decode = 32, batch = 1, repeat = 3, chunk = 0;
    bool json = false;
};

double median(std::vector<double> v) {
    std::sort(v.begin(), v.end());
    return v.size() % 2 ? v[v.size() / 2] : (v[v.size() / 2 - 1] + v[v.size() / 2]) / 2;
}

/// One answer of one session, started together with the others'.
struct Answer {
    Owned<dsv4_session> session;
    std::vector<int32_t> prompt;
    double prefill = 0, decode = 0;  // seconds
    std::vector<std::chrono::steady_clock::time_point> token_times;
    std::string failure;
};

void generate(Answer &a, uint32_t tokens) try {
    dsv4_error error;
    DSV4_INIT(error);
    check(dsv4_session_truncate(a.session.get(), 0, &error), error);
    a.token_times.clear();
    dsv4_generate_options options;
    DSV4_INIT(options);
    options.flags = DSV4_GENERATE_IGNORE_EOS;
    options.ids = a.prompt.data();
    options.id_count = a.prompt.size();
    options.max_tokens = tokens;
    const auto on_event = [](void *user, const dsv4_event *e) -> int32_t {
        auto &answer = *static_cast<Answer *>(user);
        if (e->kind == DSV4_EVENT_TOKEN) answer.token_times.push_back(std::chrono::steady_clock::now());
        if (e->kind == DSV4_EVENT_DONE) {
            answer.prefill = double(e->prefill_ns) * 1e-9;
            answer.decode = double(e->decode_ns) * 1e-9;
        }
        return 0;
    };
    check(dsv4_generate(a.session.get(), &options, nullptr, on_event, &a, &error), error);
} catch (const std::exception &e) {
    a.failure = e.what();
}

/// Tokens per second while every session decodes: from the last one's first token to the first one's last.
double full_batch_rate(const std::vector<Answer> &answers) {
    auto begin = answers[0].token_times.front(), end = answers[0].token_times.back();
    for (const Answer &a : answers) {
        begin = std::max(begin, a.token_times.front());
        end = std::min(end, a.token_times.back());
    }
    size_t tokens = 0;
    for (const Answer &a : answers)
        for (const auto t : a.token_times) tokens += t > begin && t <= end;
    if (end <= begin) throw Failure("bench: the sessions did not overlap; raise --decode");
    return double(tokens) / std::chrono::duration<double>(end - begin).count();
}

void run(const BenchArguments &a) {
    ModelArguments model_arguments = a.model;
    if (!a.synthetic.empty()) model_arguments.path = "synthetic:" + a.synthetic;
    if (a.model.path.empty() == a.synthetic.empty())
        throw CLI::ValidationError("bench", "expected either --model DIR or --synthetic SPEC");
    model_arguments.sessions = a.batch;
    model_arguments.batch_tokens = a.chunk;
    const uint64_t per_session = (uint64_t{a.prompt} + a.decode + 127) / 128 * 128;
    model_arguments.cache_tokens = std::max<uint64_t>(model_arguments.cache_tokens, per_session * a.batch);
    const auto runtime = open_runtime(a.model.plugins, a.model.quiet);
    const auto model = open_model(runtime.get(), model_arguments);
    const dsv4_model_info info = info_of(model.get());

    std::vector<Answer> answers(a.batch);
    uint32_t state = 12345;
    for (Answer &answer : answers) {
        answer.session = own<dsv4_session>(
            [&](auto **out, auto *err) { return dsv4_session_create(model.get(), nullptr, out, err); });
        for (uint32_t i = 0; i < std::max(a.prompt, 1u); ++i) {
            state = state * 1664525u + 1013904223u;
            answer.prompt.push_back(int32_t((state >> 8) % info.vocab_size));
        }
    }
    std::vector<double> prefill, decode;
    dsv4_model_info warm = info;
    double seconds = 0;
    for (uint32_t r = 0; r <= a.repeat; ++r) {  // the first run warms up and does not count
        const auto begin = std::chrono::steady_clock::now();
        std::vector<std::thread> threads;
        for (Answer &answer : answers) threads.emplace_back([&] { generate(answer, a.decode + 1); });
        for (auto &t : threads) t.join();
        double slowest = 0;
        for (const Answer &answer : answers) {
            if (!answer.failure.empty()) throw Failure(answer.failure);
            slowest = std::max(slowest, answer.prefill);
        }
        if (r == 0) {
            warm = info_of(model.get());
            continue;
        }
        seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
        prefill.push_back(double(a.prompt) * a.batch / slowest);
        if (a.decode) decode.push_back(a.batch == 1 ? a.decode / answers[0].decode : full_batch_rate(answers));
    }
    const double p = median(prefill), d = decode.empty() ? 0 : median(decode);
    nlohmann::json out = {{"backend", std::string(info.backend.data, info.backend.size)},
                          {"device", std::string(info.device.data, info.device.size)},
                          {"variant", std::string(info.variant.data, info.variant.size)},
                          {"prompt", a.prompt}, {"decode", a.decode}, {"batch", a.batch}, {"repeat", a.repeat},
                          {"prefill_tokens_per_second", p}, {"decode_tokens_per_second", d},
                          {"weight_bytes_per_token", info.decode_bytes},
                          {"weight_bytes_per_second", d / a.batch * double(info.decode_bytes)},
                          {"weight_bytes", info.weight_bytes}, {"cache_bytes", info.cache_bytes}};
    struct rusage usage {};
    if (getrusage(RUSAGE_SELF, &usage) == 0) out["peak_resident_bytes"] = uint64_t(usage.ru_maxrss) * 1024;
    const dsv4_model_info now = info_of(model.get());
    const uint64_t hits = now.expert_hits - warm.expert_hits, ahead = now.expert_ahead - warm.expert_ahead;
    const uint64_t uses = hits + ahead + now.expert_misses - warm.expert_misses;
    const double disk = seconds > 0 ? double(now.expert_bytes_read - warm.expert_bytes_read) / seconds : 0;
    const double waited = seconds > 0 ? double(now.expert_wait_ns - warm.expert_wait_ns) * 1e-9 / seconds : 0;
    if (uses)
        out["experts_on_disk"] = {{"uses", uses}, {"hit_rate", double(hits) / double(uses)},
                                  {"ahead_rate", double(ahead) / double(uses)}, {"bytes_per_second", disk},
                                  {"waited_fraction", waited}};
    if (a.json) {
        std::cout << out.dump() << "\n";
        return;
    }
    std::printf("%s (%s, %s), batch %u, median of %u\n", out["backend"].get<std::string>().c_str(),
                out["device"].get<std::string>().c_str(), out["variant"].get<std::string>().c_str(), a.batch, a.repeat);
    std::printf("prefill %6u tokens  %10.1f tok/s\n", a.prompt, p);
    if (a.decode)
        std::printf("decode  %6u tokens  %10.1f tok/s   %.2f GB of weights per token at batch 1, %.2f GB/s\n", a.decode, d,
                    double(info.decode_bytes) * 1e-9, d / a.batch * double(info.decode_bytes) * 1e-9);
    if (uses)
        std::printf("experts on disk: %.1f %% of %llu uses from memory, %.1f %% read ahead, %.2f GB/s, "
                    "waited %.0f %% of the time\n",
                    100.0 * double(hits) / double(uses), static_cast<unsigned long long>(uses),
                    100.0 * double(ahead) / double(uses), disk * 1e-9, 100 * waited);
}

}  // namespace

void add_bench(CLI::App &app, int &) {
    auto *command = app.add_subcommand("bench", "Speed of prefill and decode");
    auto a = std::make_shared<BenchArguments>();
    a->model.add_to(*command, false);
    add_name(*command, "--synthetic", a->synthetic, "flash, pro or a config.json, with :layers=N if wanted");
    add_number(*command, "--prompt", a->prompt, "Tokens to prefill");
    add_number(*command, "--decode", a->decode, "Tokens to decode");
    add_number(*command, "--batch", a->batch, "Sessions at once", 1);
    add_number(*command, "--chunk", a->chunk, "Tokens of one step; 512 otherwise");
    add_number(*command, "--repeat", a->repeat, "Counted runs, after one that is not", 1);
    command->add_flag("--json", a->json, "One JSON object on stdout");
    command->callback([a] { run(*a); });
}

}  // namespace tool
