#include "support.hpp"
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>
#include <CLI/CLI.hpp>

namespace tool {

dsv4_status check(dsv4_status status, const dsv4_error &error) {
    if (status < 0) throw Failure(error.message[0] ? error.message : "status " + std::to_string(status));
    return status;
}

std::string read_file(const std::string &path) {
    const bool standard = path == "-";
    const auto fail = [&](const char *what) {
        throw Failure((standard ? "standard input" : path) + ": cannot be " + what + ": " + std::strerror(errno));
    };
    const std::unique_ptr<std::FILE, void (*)(std::FILE *)> file(standard ? stdin : std::fopen(path.c_str(), "rb"),
                                                                [](std::FILE *f) { f == stdin || std::fclose(f); });
    if (!file) fail("opened");
    std::string text;
    char piece[1 << 16];
    while (const size_t n = std::fread(piece, 1, sizeof piece, file.get())) text.append(piece, n);
    if (std::ferror(file.get())) fail("read");
    return text;
}

void write_file(const std::string &path, std::string_view bytes) {
    std::FILE *const file = std::fopen(path.c_str(), "wb");
    bool good = file && std::fwrite(bytes.data(), 1, bytes.size(), file) == bytes.size() && std::fflush(file) == 0;
    if (file) good &= std::fclose(file) == 0;
    if (!good) throw Failure(path + ": cannot be written: " + std::strerror(errno));
}

std::vector<int32_t> parse_ids(std::string_view text, const std::string &where, const std::string &what) {
    std::vector<int32_t> ids;
    const char *p = text.data(), *end = p + text.size();
    while (true) {
        while (p != end && (std::isspace(static_cast<unsigned char>(*p)) || *p == ',' || *p == '[' || *p == ']')) ++p;
        if (p == end) return ids;
        int32_t id = 0;
        const auto [next, e] = std::from_chars(p, end, id);
        if (e != std::errc())
            throw Failure(where + ": expected " + what + ", found '" +
                          std::string(p, std::min<size_t>(20, size_t(end - p))) + "'");
        ids.push_back(id);
        p = next;
    }
}

namespace {

template <class T>
CLI::Option *add_whole(CLI::App &command, const std::string &option, T &to, const std::string &help, T least) {
    const auto take = [option, &to, least](const std::string &text) {
        T value = 0;
        const auto [end, e] = std::from_chars(text.data(), text.data() + text.size(), value);
        if (e != std::errc() || end != text.data() + text.size() || value < least)
            throw CLI::ValidationError(option, "expected a whole number from " + std::to_string(least) + " to " +
                                                   std::to_string(std::numeric_limits<T>::max()) + ", found '" +
                                                   text + "'");
        to = value;
    };
    return command.add_option_function<std::string>(option, take, help)->type_name("N");
}

} // namespace

CLI::Option *add_number(CLI::App &command, const std::string &option, uint32_t &to, const std::string &help,
                        uint32_t least) {
    return add_whole(command, option, to, help, least);
}
CLI::Option *add_number(CLI::App &command, const std::string &option, uint64_t &to, const std::string &help) {
    return add_whole<uint64_t>(command, option, to, help, 0);
}
CLI::Option *add_number(CLI::App &command, const std::string &option, int32_t &to, const std::string &help) {
    return add_whole<int32_t>(command, option, to, help, 0);
}

CLI::Option *add_name(CLI::App &command, const std::string &option, std::string &to, const std::string &help) {
    return command.add_option(option, to, help)->check([](const std::string &text) {
        return std::string(text.empty() ? "expected a name, found an empty one" : "");
    });
}

void ModelArguments::add_to(CLI::App &command, bool path_required) {
    auto *model = add_name(command, "--model", path, "Folder with config.json and safetensors files");
    if (path_required) model->required();
    add_name(command, "--backend", backend, "Compute plugin to use; the best found otherwise");
    add_name(command, "--plugins", plugins, "Folder to look for plugins in");
    command.add_option("--numerics", numerics, "exact, official or native; the backend's choice otherwise")
        ->check(CLI::IsMember({"exact", "official", "native"}));
    add_number(command, "--threads", threads, "Threads of a CPU backend; one per core otherwise");
    add_number(command, "--cache-tokens", cache_tokens, "Tokens that all sessions together can hold");
    add_number(command, "--expert-budget", expert_budget,
               "Keep routed experts on disk, with so many bytes of them in memory");
    command.add_flag("--quiet", quiet, "No log lines on stderr");
}

Owned<dsv4_runtime> open_runtime(const std::string &plugins, bool quiet) {
    dsv4_runtime_options options;
    DSV4_INIT(options);
    // The library takes absolute folders only; whoever types one here means the current directory.
    const std::string folder = plugins.empty() ? "" : std::filesystem::absolute(plugins).string();
    options.plugin_dir = str(folder);
    if (!quiet)
        options.log = [](void *, int32_t level, dsv4_str line) {
            static constexpr const char *name[] = {"error", "warning", "info"};
            if (level <= DSV4_LOG_WARNING)
                std::fprintf(stderr, "dsv4: %s: %.*s\n", name[level < 0 ? 0 : level], int(line.size), line.data);
        };
    return own<dsv4_runtime>([&](auto **out, auto *err) { return dsv4_runtime_create(&options, out, err); });
}

nlohmann::json backends_of(const dsv4_runtime *runtime) {
    const auto blob = own<dsv4_blob>([&](auto **out, auto *err) { return dsv4_runtime_backends(runtime, out, err); });
    const dsv4_str json = dsv4_blob_data(blob.get());
    return nlohmann::json::parse(json.data, json.data + json.size);
}

void expect_backends(const dsv4_runtime *runtime, const std::string &plugins) {
    const auto found = backends_of(runtime);
    if (!found["backends"].empty()) return;
    std::string why = "no backend is loaded:";
    for (const auto &f : found["failures"])
        why += "\n  " + f["manifest"].get<std::string>() + ": " + f["reason"].get<std::string>();
    if (found["failures"].empty())
        why += " no plugin manifest (dsv4-*.json) " +
               (plugins.empty() ? "beside libdsv4 or in DSV4_PLUGIN_PATH"
                                : "in " + std::filesystem::absolute(plugins).string());
    throw Failure(why);
}

Owned<dsv4_model> open_model(dsv4_runtime *runtime, const ModelArguments &a) {
    expect_backends(runtime, a.plugins);
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
