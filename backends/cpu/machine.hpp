// What the operating system tells about this machine and this process's share of it.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace dsv4::cpu {

/// Bytes that this process could still take without swapping: the kernel's estimate, which counts the page cache
/// (mapped checkpoints fill it), or less where a control group says so. 0: not known.
uint64_t available_memory();

/// Bytes of this process's own pages that are in memory, files not counted. 0: not known.
uint64_t resident_memory();

/// A memory node and the processors nearest to it that this process may use, in ascending order.
struct Node {
    int id;
    std::vector<int> processors;
};
/// Those with a processor of ours. One, number -1, where the system tells of none.
using Nodes = std::vector<Node>;
Nodes memory_nodes(const std::string &folder = "/sys/devices/system/node");

/// "0-3,8" as numbers; what cannot be read ends the list.
std::vector<int> parse_cpu_list(const std::string &text);

} // namespace dsv4::cpu
