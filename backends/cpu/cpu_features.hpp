// Which instruction sets this machine and its operating system offer.
#pragma once
#include "backends/cpu/kernels.hpp"

namespace dsv4::cpu {

struct Variant {
    const char *name;
    const Kernels *(*kernels)();
    bool usable;
    bool by_name_only = false;
};

/// All that were compiled in, the best last; those that give up row independence are taken by name only. Asks CPUID; for AMX also the kernel for the permission to use its state.
struct Variants {
    Variant list[6];
    int count;
};
Variants variants();

} // namespace dsv4::cpu
