// What the commands of the dsv4 tool share: owners for the C objects, and errors that end the command.
#pragma once
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>
#include <nlohmann/json_fwd.hpp>
#include "dsv4/dsv4.h"

namespace CLI {
class App;
class Option;
}

namespace tool {

/// Bad input (exit code 1), in words for a person.
struct Failure : std::runtime_error {
    using std::runtime_error::runtime_error;
};

struct Release {
    void operator()(dsv4_runtime *p) const { dsv4_runtime_release(p); }
    void operator()(dsv4_model *p) const { dsv4_model_release(p); }
    void operator()(dsv4_session *p) const { dsv4_session_release(p); }
    void operator()(dsv4_stream *p) const { dsv4_stream_release(p); }
    void operator()(dsv4_blob *p) const { dsv4_blob_release(p); }
    void operator()(dsv4_cancel *p) const { dsv4_cancel_release(p); }
    void operator()(dsv4_tokenizer *p) const { dsv4_tokenizer_release(p); }
    void operator()(dsv4_prompt *p) const { dsv4_prompt_release(p); }
};
template <class T> using Owned = std::unique_ptr<T, Release>;

/// Throws Failure with the library's message when status is an error; returns it otherwise.
dsv4_status check(dsv4_status status, const dsv4_error &error);

/// `make(out, err)` is a *_create / _load / _open call.
template <class T, class Make> Owned<T> own(Make &&make) {
    T *out = nullptr;
    dsv4_error error;
    DSV4_INIT(error);
    check(make(&out, &error), error);
    return Owned<T>(out);
}

inline dsv4_str str(std::string_view s) { return {s.data(), s.size()}; }

std::string read_file(const std::string &path);  // "-" is standard input
void write_file(const std::string &path, std::string_view bytes);
/// Ids separated by white space or commas; a JSON array is fine too. `where` and `what` are for the error.
std::vector<int32_t> parse_ids(std::string_view text, const std::string &where, const std::string &what = "token ids");

/// An option with a name or a path, which is not empty: an empty shell variable must not mean "the default".
CLI::Option *add_name(CLI::App &command, const std::string &option, std::string &to, const std::string &help);
/// An option with a whole number, decimal, from `least` to the largest of its type. CLI11's own wrap -1 around.
CLI::Option *add_number(CLI::App &command, const std::string &option, uint32_t &to, const std::string &help,
                        uint32_t least = 0);
CLI::Option *add_number(CLI::App &command, const std::string &option, uint64_t &to, const std::string &help);
CLI::Option *add_number(CLI::App &command, const std::string &option, int32_t &to, const std::string &help);

/// Options that every command with a model takes.
struct ModelArguments {
    std::string path, backend, plugins, numerics;
    int32_t threads = 0;
    uint32_t batch_tokens = 0, sessions = 0;
    uint64_t cache_tokens = 0, expert_budget = 0;
    uint32_t flags = 0;
    bool quiet = false;
    void add_to(CLI::App &command, bool path_required = true);
};

/// `plugins` may be relative to the current directory.
Owned<dsv4_runtime> open_runtime(const std::string &plugins, bool quiet);
nlohmann::json backends_of(const dsv4_runtime *runtime);
/// Throws Failure, with each reason in full, when no plugin was loaded.
void expect_backends(const dsv4_runtime *runtime, const std::string &plugins);
Owned<dsv4_model> open_model(dsv4_runtime *runtime, const ModelArguments &arguments);
dsv4_model_info info_of(const dsv4_model *model);

/// Each command registers itself and its callback.
void add_logits(CLI::App &app, int &exit_code);
void add_perplexity(CLI::App &app, int &exit_code);
void add_generate(CLI::App &app, int &exit_code);
void add_plan(CLI::App &app, int &exit_code);
void add_backends(CLI::App &app, int &exit_code);
void add_bench(CLI::App &app, int &exit_code);
void add_conformance(CLI::App &app, int &exit_code);
void add_text(CLI::App &app, int &exit_code);

}  // namespace tool
