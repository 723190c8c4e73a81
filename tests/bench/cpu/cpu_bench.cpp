// Speed of the CPU backend: prefill and decode of a whole model, time per operator, and the machine's own read
// bandwidth measured in the same run. Prints one JSON object.
//
//   cpu_bench SPEC|DIR [--backend cpu] [--variant V] [--threads N] [--prompt N] [--decode N] [--batch N] [--context N]
//             [--chunk N] [--repeat N] [--operators] [--cpu-time] [--plugins DIR]
// --cpu-time counts the processor time of the calling thread instead of the clock's: with --threads 1, a figure that
// survives a busy machine, except for what the others take of the memory's bandwidth.
// --context N starts decoding at position N with whatever the empty caches hold: the time does not depend on it.
#include <sys/mman.h>
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <thread>
#include "tests/bench/cpu/rig.hpp"

using namespace dsv4;
using namespace dsv4::rig;

namespace {


double median(std::vector<double> v) {
    std::sort(v.begin(), v.end());
    return v.empty() ? 0.0 : v[v.size() / 2];
}

/// Bytes per second that `threads` threads read together from memory that no cache holds.
class ReadTest {
  public:
    explicit ReadTest(int threads) : threads_(threads) {
        data_ = static_cast<uint64_t *>(mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        madvise(data_, bytes, MADV_HUGEPAGE);
        std::memset(data_, 1, bytes);
    }
    ~ReadTest() { munmap(data_, bytes); }
    /// The best of several ways: machines differ in how many streams their prefetchers follow.
    double run() {
        double best = 0;
        for (const size_t rows : {1, 4, 8, 32}) best = std::max(best, run(rows));
        return best;
    }

  private:
    /// As a matrix is read: panels of so many rows of 8 KiB, a line of every row in turn, with prefetch.
    double run(size_t rows) {
        const double from = now();
        std::vector<std::thread> all;
        for (int i = threads_ - 1; i >= 0; --i) {
            const auto part = [this, i, rows] {
                constexpr size_t line = 8, width = 1024, ahead = 8 * line;
                const size_t n = bytes / 8 / size_t(threads_);
                const uint64_t *p = data_ + n * size_t(i);
                uint64_t s[8] = {};
                for (size_t panel = 0; panel + rows * width <= n; panel += rows * width)
                    for (size_t k = 0; k < width; k += line)
                        for (size_t r = 0; r < rows; ++r) {
                            const uint64_t *at = p + panel + r * width + k;
                            __builtin_prefetch(k + ahead < width ? at + ahead : at + ahead + (rows - 1) * width);
                            for (size_t j = 0; j < line; ++j) s[j] += at[j];
                        }
                for (const uint64_t v : s) sum_ += v;
            };
            if (i) all.emplace_back(part);
            else part();
        }
        for (auto &t : all) t.join();
        return double(bytes) / (now() - from);
    }

    static constexpr size_t bytes = size_t(1) << 30;
    uint64_t *data_;
    int threads_;
    std::atomic<uint64_t> sum_{0};
};

/// What one decoded token must read of the weights.
double bytes_per_token(const Weights &w) {
    double sum = 0;
    const auto add = [&](const BlockWeights &b) {
        for (const dsv4_tensor &t : b.tensors) {
            if (t.role == DSV4_ROLE_EMBED || t.role == DSV4_ROLE_GATE_TID2EID) continue;
            const double part = t.expert >= 0 ? double(w.config.shape.active_experts) / w.config.shape.experts : 1.0;
            sum += part * double(t.bytes + t.scale_bytes);
        }
    };
    add(w.weights.ends);
    for (const auto &b : w.weights.layers) add(b);
    return sum;
}

} // namespace

int main(int argc, char **argv) try {
    std::string spec;
    Choice choice;
    int prompt = 512, decode = 16, batch = 1, context = 0, chunk = 512, repeat = 3;
    bool operators = false;
    for (int i = 1; i < argc; ++i) {
        const std::string a = argv[i];
        const auto value = [&] { return std::string(i + 1 < argc ? argv[++i] : ""); };
        if (a == "--backend") choice.backend = value();
        else if (a == "--variant") choice.variant = value();
        else if (a == "--threads") choice.threads = std::stoi(value());
        else if (a == "--prompt") prompt = std::stoi(value());
        else if (a == "--decode") decode = std::stoi(value());
        else if (a == "--batch") batch = std::stoi(value());
        else if (a == "--context") context = std::stoi(value());
        else if (a == "--chunk") chunk = std::stoi(value());
        else if (a == "--repeat") repeat = std::stoi(value());
        else if (a == "--operators") operators = true;
        else if (a == "--cpu-time") cpu_time() = true;
        else if (a == "--plugins") plugin_folder() = value();
        else spec = a;
    }
    const bool directory = std::filesystem::is_directory(spec);
    const Weights weights = directory ? from_checkpoint(spec) : from_spec(spec);
    const int start = context ? context : prompt;
    Rig rig(weights, choice, std::max(std::min(chunk, std::max(prompt, 1)), batch), batch, start + decode * repeat + 8);
    ReadTest read(rig.device().info().threads);
    std::vector<double> prefill_rate, decode_rate, read_rate;
    std::map<std::string, double> prefill_ops, decode_ops;
    const int vocab = weights.config.shape.vocab;
    const auto id = [&](int position, int s) { return (position * 7919 + s * 104729) % vocab; };
    int position = start;
    for (int r = 0; r < repeat; ++r) {
        read_rate.push_back(read.run());
        if (prompt) {
            rig.seconds.clear();
            const double from = now();
            for (int done = 0; done < prompt;) {
                const int n = std::min(chunk, prompt - done);
                std::vector<int32_t> ids;
                for (int i = 0; i < n; ++i) ids.push_back(id(done + i, 0));
                Step s;
                s.add(ids.data(), n, done, 0, rig.blocks_of(0), done + n == prompt ? std::vector<int32_t>{n - 1} : std::vector<int32_t>{});
                rig.run(s);
                done += n;
            }
            prefill_rate.push_back(prompt / (now() - from));
            for (const auto &[k, v] : rig.seconds) prefill_ops[k] += v / prompt / repeat;
        }
        rig.seconds.clear();
        const double from = now();
        for (int i = 0; i < decode; ++i, ++position) {
            Step s;
            for (int b = 0; b < batch; ++b) {
                const int32_t token = id(position, b);
                s.add(&token, 1, position, b, rig.blocks_of(b), {0});
            }
            rig.run(s);
        }
        decode_rate.push_back(decode * batch / (now() - from));
        for (const auto &[k, v] : rig.seconds) decode_ops[k] += v / decode / repeat;
    }
    read_rate.push_back(read.run());
    const double bytes = bytes_per_token(weights), bandwidth = median(read_rate), rate = median(decode_rate);
    std::printf("{\"variant\": \"%s\", \"threads\": %d, \"batch\": %d, \"prefill_tok_s\": %.1f, \"decode_tok_s\": %.2f, "
                "\"weight_bytes_per_token\": %.0f, \"read_gb_s\": %.2f, \"decode_of_read\": %.3f",
                rig.device().info().variant, rig.device().info().threads, batch, median(prefill_rate), rate, bytes,
                bandwidth / 1e9, batch == 1 ? rate * bytes / bandwidth : 0.0);
    if (operators) {
        std::printf(",\n \"prefill_us_per_token\": {");
        const char *comma = "";
        for (const auto &[k, v] : prefill_ops) std::printf("%s\"%s\": %.1f", comma, k.c_str(), v * 1e6), comma = ", ";
        std::printf("},\n \"decode_us_per_step\": {");
        comma = "";
        for (const auto &[k, v] : decode_ops) std::printf("%s\"%s\": %.1f", comma, k.c_str(), v * 1e6), comma = ", ";
        std::printf("}");
    }
    std::printf("}\n");
    return 0;
} catch (const std::exception &e) {
    std::fprintf(stderr, "cpu_bench: %s\n", e.what());
    return 1;
}
