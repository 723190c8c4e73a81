#include "support.hpp"
#include <charconv>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <iterator>
#include <sstream>
#include <CLI/CLI.hpp>

namespace tool {

dsv4_status check(dsv4_status status, const dsv4_error &error) {
    if (status < 0) throw Failure(error.message[0] ? error.message : "status " + std::to_string(status));
    return status;
}

std::string read_file(const std::string &path) {
    std::ifstream file;
    if (path != "-") {
        file.open(path, std::ios::binary);
        if (!file) throw Failure(path + ": cannot be opened");
    }
    std::istream &in = path == "-" ? std::cin : file;
    std::string text{std::istreambuf_iterator<char>(in), {}};
    if (in.bad()) throw Failure(path + ": cannot be read");
    return text;
}

void write_file(const std::string &path, std::string_view bytes) {
    std::ofstream out(path, std::ios::binary);
    out.write(bytes.data(), std::streamsize(bytes.size()));
    if (!out.flush()) throw Failure(path + ": cannot be written");
}

std::vector<int32_t> parse_ids(std::string_view text, const std::string &where) {
    std::vector<int32_t> ids;
    const char *p = text.data(), *end = p + text.size();
    while (true) {
        while (p != end && (std::isspace(static_cast<unsigned char>(*p)) || *p == ',' || *p == '[' || *p == ']')) ++p;
        if (p == end) return ids;
        int32_t id = 0;
        const auto [next, e] = std::from_chars(p, end, id);
        if (e != std::errc())
            throw Failure(where + ": expected token ids, found '" + std::string(p, std::min<size_t>(20, size_t(end - p))) + "'");
        ids.push_back(id);
        p = next;
    }
}

void ModelArguments::add_to(CLI::App &command, bool path_required) {
    auto *model = command.add_option("--model", path, "Folder with config.json and safetensors files");
    if (path_required) model->required();
    command.add_option("--backend", backend, "Compute plugin to use; the best found otherwise");
    command.add_option("--plugins", plugins, "Folder to look for plugins in");
    command.add_option("--numerics", numerics, "exact, official or native; the backend's choice otherwise")
        ->check(CLI::IsMember({"exact", "official", "native"}));
    command.add_option("--threads", threads, "Threads of a CPU backend; one per core otherwise");
    command.add_option("--cache-tokens", cache_tokens, "Tokens that all sessions together can hold");
    command.add_option("--expert-budget", expert_budget, "Keep routed experts on disk, with so many bytes of them in memory");
    command.add_flag("--quiet", quiet, "No log lines on stderr");
}

Owned<dsv4_runtime> open_runtime(const std::string &plugins, bool quiet) {
    dsv4_runtime_options options;
    DSV4_INIT(options);
    options.plugin_dir = str(plugins);
    if (!quiet)
        options.log = [](void *, int32_t level, dsv4_str line) {
            static constexpr const char *name[] = {"error", "warning", "info"};
            if (level <= DSV4_LOG_WARNING)
                std::fprintf(stderr, "dsv4: %s: %.*s\n", name[level < 0 ? 0 : level], int(line.size), line.data);
        };
    return own<dsv4_runtime>([&](auto **out, auto *err) { return dsv4_runtime_create(&options, out, err); });
}

Owned<dsv4_model> open_model(dsv4_runtime *runtime, const ModelArguments &a) {
    dsv4_model_options options;
    DSV4_INIT(options);
    options.flags = a.flags;
    options.backend = str(a.backend);
    options.numerics = a.numerics == "exact"      ? DSV4_NUMERICS_EXACT
                       : a.numerics == "official" ? DSV4_NUMERICS_OFFICIAL
                       : a.numerics == "native"   ? DSV4_NUMERICS_NATIVE
                                                  : DSV4_NUMERICS_DEFAULT;
    options.threads = a.threads;
    options.max_batch_tokens = a.batch_tokens;
    options.max_sessions = a.sessions;
    options.cache_tokens = a.cache_tokens;
    options.expert_budget = a.expert_budget;
    return own<dsv4_model>([&](auto **out, auto *err) { return dsv4_model_load(runtime, str(a.path), &options, out, err); });
}

dsv4_model_info info_of(const dsv4_model *model) {
    dsv4_model_info info;
    DSV4_INIT(info);
    dsv4_error error;
    DSV4_INIT(error);
    check(dsv4_model_get_info(model, &info, &error), error);
    return info;
}

}  // namespace tool
