// Decoding with the routed experts on disk: tokens per second, hit rate, and the disk's rate against plain O_DIRECT
// reads in the same run. Prints one JSON object.
//
//   disk_bench SPEC [--file F] [--hold PERCENT] [--threads N] [--prompt N] [--decode N] [--repeat N] [--plugins DIR]
// SPEC as for cpu_bench; its experts are written to F (default: ./disk_bench.experts), which is removed at the end.
// --hold: the budget, as a part of all experts. --plugins: another build's plugins, to compare.
#include <sys/mman.h>
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <random>
#include <thread>
#include "tests/bench/cpu/experts_file.hpp"

using namespace dsv4;
using namespace dsv4::rig;

namespace {

double median(std::vector<double> v) {
    std::sort(v.begin(), v.end());
    return v.empty() ? 0.0 : v[v.size() / 2];
}

/// Bytes per second of 4 threads that read 1 MiB at random places, 1 GiB in all.
double plain_reads(const std::string &path, uint64_t file_bytes, unsigned seed) {
    constexpr uint64_t block = uint64_t(1) << 20, total = uint64_t(1) << 30;
    const int fd = open(path.c_str(), O_RDONLY | O_DIRECT);
    if (fd < 0) throw Error(DSV4_E_INTERNAL, path + ": no O_DIRECT here: name a --file on a disk");
    std::mt19937_64 random(seed);
    std::vector<off_t> places;
    for (uint64_t i = 0; i < total / block; ++i) places.push_back(off_t(random() % (file_bytes / block) * block));
    std::atomic<size_t> next{0};
    std::atomic<bool> failed{false};
    const double from = now();
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t)
        threads.emplace_back([&] {
            void *to = mmap(nullptr, block, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
            for (size_t i = next++; i < places.size() && !failed; i = next++)
                if (pread(fd, to, block, places[i]) != ssize_t(block)) failed = true;
            munmap(to, block);
        });
    for (std::thread &t : threads) t.join();
    close(fd);
    if (failed) throw Error(DSV4_E_INTERNAL, path + ": the plain read test failed");
    return double(total) / (now() - from);
}

struct Rates {
    std::vector<double> decode, disk, waited, hit, ahead;
};

} // namespace

int main(int argc, char **argv) try {
    std::string spec, path = "disk_bench.experts";
    Choice choice;
    int prompt = 32, decode = 16, repeat = 3, hold = 50;
    for (int i = 1; i < argc; ++i) {
        const std::string a = argv[i];
        const auto value = [&] { return std::string(i + 1 < argc ? argv[++i] : ""); };
        if (a == "--file") path = value();
        else if (a == "--hold") hold = std::stoi(value());
        else if (a == "--threads") choice.threads = std::stoi(value());
        else if (a == "--prompt") prompt = std::stoi(value());
        else if (a == "--decode") decode = std::stoi(value());
        else if (a == "--repeat") repeat = std::stoi(value());
        else if (a == "--plugins") plugin_folder() = value();
        else spec = a;
    }
    Weights weights = from_spec(spec);
    const ExpertsFile file(path, weights);
    const int32_t layers = int32_t(weights.weights.layers.size()), vocab = weights.config.shape.vocab;
    const uint64_t all = file.expert_bytes() * uint64_t(layers) * uint64_t(weights.config.shape.experts);
    const int32_t context = prompt + decode * (repeat + 1) + 8;
    int position = 0;
    const auto step = [&](Rig &rig, int n) {
        std::vector<int32_t> ids;
        for (int i = 0; i < n; ++i) ids.push_back(int32_t((int64_t(position + i) * 7919) % vocab));
        Step s;
        s.add(ids.data(), n, position, 0, rig.blocks_of(0), {n - 1});
        rig.run(s);
        position += n;
    };
    double in_memory = 0;
    {
        Rig rig(weights, choice, prompt, 1, context);
        step(rig, prompt);
        step(rig, 1);
        const double from = now();
        for (int i = 0; i < decode; ++i) step(rig, 1);
        in_memory = decode / (now() - from);
    }
    Rates r;
    std::vector<double> plain;
    double prefill = 0;
    {
        choice.tier = DSV4_TIER_DISK;
        choice.expert_budget = std::max<uint64_t>(all / 100 * uint64_t(hold), 1);
        Rig rig(weights, choice, prompt, 1, context);
        position = 0;
        double from = now();
        step(rig, prompt);
        prefill = prompt / (now() - from);
        for (int i = 0; i < decode; ++i) step(rig, 1); // warms up
        for (int n = 0; n < repeat; ++n) {
            plain.push_back(plain_reads(path, file.bytes(), unsigned(n)));
            const dsv4_device_info before = rig.device().query();
            from = now();
            for (int i = 0; i < decode; ++i) step(rig, 1);
            const double seconds = now() - from;
            const dsv4_device_info after = rig.device().query();
            const double hits = double(after.expert_hits - before.expert_hits);
            const double ahead = double(after.expert_ahead - before.expert_ahead);
            const double uses = hits + ahead + double(after.expert_misses - before.expert_misses);
            r.decode.push_back(decode / seconds);
            r.disk.push_back(double(after.expert_bytes_read - before.expert_bytes_read) / seconds);
            r.waited.push_back(double(after.expert_wait_ns - before.expert_wait_ns) * 1e-9 / seconds);
            r.hit.push_back(uses > 0 ? hits / uses : 0);
            r.ahead.push_back(uses > 0 ? ahead / uses : 0);
        }
        plain.push_back(plain_reads(path, file.bytes(), unsigned(repeat)));
    }
    std::printf("{\"experts_gb\": %.2f, \"hold\": %d, \"in_memory_tok_s\": %.2f, \"cold_prefill_tok_s\": %.2f, "
                "\"decode_tok_s\": %.3f, \"hit_rate\": %.3f, \"ahead_rate\": %.3f, \"disk_gb_s\": %.3f, "
                "\"plain_gb_s\": %.3f, \"disk_of_plain\": %.3f, \"waited\": %.3f}\n",
                double(all) * 1e-9, hold, in_memory, prefill, median(r.decode), median(r.hit), median(r.ahead),
                median(r.disk) * 1e-9, median(plain) * 1e-9, median(r.disk) / median(plain), median(r.waited));
    for (const std::string &line : log_lines()) std::fprintf(stderr, "%s\n", line.c_str());
    return 0;
} catch (const std::exception &e) {
    std::fprintf(stderr, "disk_bench: %s\n", e.what());
    return 1;
}
