// The thread pool: what handing out work costs, and what two programs on the same processors do to each other. Prints
// one JSON object.
//
//   pool_bench [--seconds S] [--processes N]
// handover_ns: one run() of nothing, by threads, after the caller computed alone for so many microseconds.
// alone: steps of one such process, over what the processors could do; beside_hog: with a busy single-threaded program
// as company, against alone.
// shared: N processes at once, each with one thread per processor, doing what decoding does (a serial piece, then a
// parallel one, again and again), all of them together against one alone; 1 is no loss.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>
#include "backends/cpu/pool.hpp"

using dsv4::cpu::Pool;

namespace {

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

/// Dependent additions: time that no other thread's memory traffic changes.
void compute(int64_t rounds) {
    volatile uint64_t x = 1;
    uint64_t y = x;
    for (int64_t i = 0; i < rounds; ++i) y = y * 6364136223846793005u + 1442695040888963407u;
    x = y;
}

int64_t rounds_of(double seconds) {
    static const double rate = [] {
        compute(1000000);
        double best = 0;
        for (int i = 0; i < 5; ++i) {
            const double from = now();
            compute(2000000);
            best = std::max(best, 2e6 / (now() - from));
        }
        return best;
    }();
    return int64_t(seconds * rate);
}

/// Median nanoseconds of run() beyond the serial piece before it.
double handover(Pool &pool, double gap) {
    const int64_t rounds = rounds_of(gap);
    std::vector<double> took;
    for (int i = 0; i < 400; ++i) {
        if (rounds) compute(rounds);
        const double from = now();
        pool.run([](int) {});
        took.push_back((now() - from) * 1e9);
    }
    std::sort(took.begin(), took.end());
    return took[took.size() / 2];
}

/// Steps per second of a loop that looks like decoding: 5 us alone, then 40 us on every thread.
double steps_per_second(double seconds) {
    Pool pool(dsv4::cpu::usable_processors(), {}, 64);
    const int64_t serial = rounds_of(5e-6), parallel = rounds_of(40e-6);
    const double from = now();
    int64_t steps = 0;
    while (now() - from < seconds) {
        compute(serial);
        pool.run([&](int) { compute(parallel); });
        ++steps;
    }
    return double(steps) / (now() - from);
}

/// The sum over that many processes at once.
double together(int processes, double seconds, int hogs = 0) {
    rounds_of(0); // measured before anything else runs
    std::vector<pid_t> busy;
    for (int h = 0; h < hogs; ++h) {
        busy.push_back(fork());
        if (busy.back() == 0)
            for (;;) compute(1000000);
    }
    int ends[2];
    if (pipe(ends)) return 0;
    for (int p = 0; p < processes; ++p)
        if (fork() == 0) {
            const double rate = steps_per_second(seconds);
            _exit(write(ends[1], &rate, sizeof rate) == ssize_t(sizeof rate) ? 0 : 1);
        }
    double sum = 0;
    for (int p = 0; p < processes; ++p) {
        double rate = 0;
        if (read(ends[0], &rate, sizeof rate) == ssize_t(sizeof rate)) sum += rate;
        wait(nullptr);
    }
    for (const pid_t pid : busy) {
        kill(pid, SIGKILL);
        waitpid(pid, nullptr, 0);
    }
    close(ends[0]);
    close(ends[1]);
    return sum;
}

} // namespace

int main(int argc, char **argv) {
    double seconds = 1.5;
    int processes = 2;
    for (int i = 1; i + 1 < argc; i += 2) {
        if (std::string(argv[i]) == "--seconds") seconds = std::atof(argv[i + 1]);
        if (std::string(argv[i]) == "--processes") processes = std::atoi(argv[i + 1]);
    }
    std::printf("{\"handover_ns\": {");
    for (const int threads : {1, 2, 4}) {
        Pool pool(threads, {}, 64);
        std::printf("%s\"%d\": {", threads == 1 ? "" : ", ", threads);
        for (const double gap : {0.0, 2e-6, 10e-6, 30e-6, 100e-6, 500e-6})
            std::printf("%s\"%.0f\": %.0f", gap == 0 ? "" : ", ", gap * 1e6, handover(pool, gap));
        std::printf("}");
    }
    std::vector<double> alone, all, hogged;
    for (int i = 0; i < 3; ++i) {
        alone.push_back(together(1, seconds));
        all.push_back(together(processes, seconds));
        hogged.push_back(together(1, seconds, 1));
    }
    for (auto *v : {&alone, &all, &hogged}) std::sort(v->begin(), v->end());
    std::printf("}, \"alone\": %.3f, \"processes\": %d, \"shared\": %.3f, \"beside_hog\": %.3f}\n",
                alone[1] * 45e-6, processes, all[1] / alone[1], hogged[1] / alone[1]);
    return 0;
}
