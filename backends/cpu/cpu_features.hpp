// Which instruction sets this machine and its operating system offer.
#pragma once
#include "backends/cpu/kernels.hpp"

namespace dsv4::cpu {

struct Variant {
    const char *name;
    const Kernels *(*kernels)();
    bool usable;
};

/// All that were compiled in, the best last. Asks CPUID; for AMX also the kernel for the permission to use its state.
struct Variants {
    Variant list[5];
    int count;
};
Variants variants();

} // namespace dsv4::cpu
