#include "core/model/host_memory.hpp"

#include <algorithm>
#include <fstream>
#include <string>
#include <sys/sysinfo.h>

namespace dsv4 {

namespace {

/// A file that holds one number; false for "max" and for no such file.
bool read_number(const std::string &path, uint64_t &value) {
    std::ifstream in(path);
    return static_cast<bool>(in >> value);
}

HostMemory machine() {
    HostMemory m;
    std::ifstream in("/proc/meminfo");
    std::string key, unit;
    for (uint64_t kib = 0; in >> key >> kib; std::getline(in, unit)) {
        if (key == "MemTotal:") m.total = kib * 1024;
        if (key == "MemAvailable:") m.available = kib * 1024;
    }
    if (m.total) return m;
    struct sysinfo info {};
    if (::sysinfo(&info) == 0) {
        m.total = uint64_t{info.totalram} * info.mem_unit;
        m.available = (uint64_t{info.freeram} + info.bufferram) * info.mem_unit;
    }
    return m;
}

/// Lowers m to a group's limit; what the group's file cache holds could be dropped and is not counted as used.
void apply_limit(HostMemory &m, uint64_t limit, uint64_t used, const std::string &stat_path, const char *cache_key) {
    if (limit >= m.total) return;
    std::ifstream in(stat_path);
    std::string key;
    for (uint64_t value = 0; in >> key >> value;)
        if (key == cache_key) used -= std::min(used, value);
    m.total = limit;
    m.available = std::min(m.available, limit - std::min(limit, used));
}

}  // namespace

HostMemory host_memory() {
    HostMemory m = machine();
    std::ifstream in("/proc/self/cgroup");
    for (std::string line; std::getline(in, line);) {
        // "4:memory:/group" (version 1) or "0::/group" (version 2)
        const size_t first = line.find(':'), second = line.find(':', first + 1);
        if (first == line.npos || second == line.npos) continue;
        const std::string controllers = line.substr(first + 1, second - first - 1);
        const bool v2 = controllers.empty();
        if (!v2 && ("," + controllers + ",").find(",memory,") == line.npos) continue;
        const std::string root = v2 ? "/sys/fs/cgroup" : "/sys/fs/cgroup/memory";
        // Every ancestor's limit holds too. Inside a container the path may be that of the host: then only the root is
        // there, and it is the container's own.
        for (std::string group = line.substr(second + 1);; group = group.substr(0, group.find_last_of('/'))) {
            if (group == "/") group.clear();
            const std::string folder = root + group + "/";
            uint64_t limit = 0, used = 0;
            if (read_number(folder + (v2 ? "memory.max" : "memory.limit_in_bytes"), limit)) {
                read_number(folder + (v2 ? "memory.current" : "memory.usage_in_bytes"), used);
                apply_limit(m, limit, used, folder + "memory.stat", v2 ? "inactive_file" : "total_inactive_file");
            }
            if (group.empty()) break;
        }
    }
    return m;
}

}  // namespace dsv4
