// What the commands of the dsv4 tool share: owners for the C objects, and errors that end the command.
#pragma once
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>
#include "dsv4/dsv4.h"

namespace CLI {
class App;
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
/// Ids separated by white space or commas; a JSON array is fine too.
std::vector<int32_t> parse_ids(std::string_view text, const std::string &where);

/// Options that every command with a model takes.
struct ModelArguments {
    std::string path, backend, plugins, numerics;
    int threads = 0;
    uint32_t batch_tokens = 0, sessions = 0;
    uint64_t cache_tokens = 0, expert_budget = 0;
    uint32_t flags = 0;
    bool quiet = false;
    void add_to(CLI::App &command, bool path_required = true);
};

Owned<dsv4_runtime> open_runtime(const std::string &plugins, bool quiet);
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
