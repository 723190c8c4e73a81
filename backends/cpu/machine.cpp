#include "backends/cpu/machine.hpp"
#include <algorithm>
#include <charconv>
#include <fstream>
#include <sstream>
#include <thread>
#if defined(__linux__)
#include <sched.h>
#endif

namespace dsv4::cpu {

namespace {

bool read_number(const std::string &path, uint64_t &value) {
    std::ifstream in(path);
    return bool(in >> value); // "max" is none
}

uint64_t value_of(const std::string &path, const std::string &wanted) {
    std::ifstream in(path);
    std::string key;
    uint64_t value = 0;
    for (std::string line; std::getline(in, line);)
        if (std::istringstream words(line); words >> key >> value && key == wanted) return value;
    return 0;
}

/// What a control group leaves; its file cache could be dropped and is not counted as used.
uint64_t left_of_group(const std::string &folder, bool v2, uint64_t otherwise) {
    uint64_t limit = 0, used = 0;
    if (!read_number(folder + (v2 ? "memory.max" : "memory.limit_in_bytes"), limit)) return otherwise;
    read_number(folder + (v2 ? "memory.current" : "memory.usage_in_bytes"), used);
    used -= std::min(used, value_of(folder + "memory.stat", v2 ? "inactive_file" : "total_inactive_file"));
    return std::min(otherwise, limit - std::min(limit, used));
}

std::vector<int> allowed_processors() {
    std::vector<int> out;
#if defined(__linux__)
    cpu_set_t allowed;
    if (!sched_getaffinity(0, sizeof allowed, &allowed))
        for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu)
            if (CPU_ISSET(cpu, &allowed)) out.push_back(cpu);
#endif
    const int count = std::max(1, int(std::thread::hardware_concurrency()));
    for (int cpu = 0; out.empty() && cpu < count; ++cpu) out.push_back(cpu);
    return out;
}

} // namespace

uint64_t available_memory() {
    uint64_t bytes = value_of("/proc/meminfo", "MemAvailable:") * 1024;
    std::ifstream in("/proc/self/cgroup");
    for (std::string line; bytes && std::getline(in, line);) {
        // "4:memory:/group" (version 1) or "0::/group" (version 2). Every ancestor's limit holds too; inside a
        // container the path may be that of the host: then only the root is there, and it is the container's own.
        const size_t first = line.find(':'), second = first == line.npos ? first : line.find(':', first + 1);
        if (second == line.npos) continue;
        const std::string controllers = line.substr(first + 1, second - first - 1);
        const bool v2 = controllers.empty();
        if (!v2 && ("," + controllers + ",").find(",memory,") == line.npos) continue;
        const std::string root = v2 ? "/sys/fs/cgroup" : "/sys/fs/cgroup/memory";
        for (std::string group = line.substr(second + 1); !group.empty() && group != "/";
             group.resize(std::min(group.size(), group.rfind('/'))))
            bytes = left_of_group(root + group + "/", v2, bytes);
        bytes = left_of_group(root + "/", v2, bytes);
    }
    return bytes;
}

uint64_t resident_memory() { return value_of("/proc/self/status", "RssAnon:") * 1024; }

std::vector<int> parse_cpu_list(const std::string &text) {
    std::vector<int> out;
    const char *at = text.data(), *end = at + text.size();
    while (at != end) {
        int first = 0, last = 0;
        auto got = std::from_chars(at, end, first);
        if (got.ec != std::errc() || first < 0) break;
        last = first;
        if (got.ptr != end && *got.ptr == '-') {
            got = std::from_chars(got.ptr + 1, end, last);
            if (got.ec != std::errc() || last < first || last > 65535) break;
        }
        for (int i = first; i <= last; ++i) out.push_back(i);
        at = got.ptr;
        if (at == end || *at != ',') break;
        ++at;
    }
    return out;
}

Nodes memory_nodes(const std::string &folder) {
    const std::vector<int> allowed = allowed_processors();
    Nodes nodes;
    size_t placed = 0;
    std::string online;
    std::getline(std::ifstream(folder + "/online") >> std::ws, online);
    for (const int node : parse_cpu_list(online)) {
        std::string list;
        std::getline(std::ifstream(folder + "/node" + std::to_string(node) + "/cpulist") >> std::ws, list);
        std::vector<int> here;
        for (const int cpu : parse_cpu_list(list))
            if (std::binary_search(allowed.begin(), allowed.end(), cpu)) here.push_back(cpu);
        placed += here.size();
        if (!here.empty()) nodes.push_back({node, std::move(here)});
    }
    if (nodes.empty() || placed != allowed.size()) return {{-1, allowed}}; // what does not add up is not trusted
    return nodes;
}

} // namespace dsv4::cpu
