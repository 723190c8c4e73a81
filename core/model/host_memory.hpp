// How much memory this process may use.
#pragma once
#include <cstdint>

namespace dsv4 {

struct HostMemory {
    uint64_t total = 0;     // bytes: of the machine, or the control group's limit where that is lower
    uint64_t available = 0; // without swapping; file pages that can be dropped count as available
};

/// From /proc/meminfo and the limits of the process's control group (versions 1 and 2); sysinfo(2) where there is no
/// /proc. Zero when the system tells nothing.
HostMemory host_memory();

}  // namespace dsv4
