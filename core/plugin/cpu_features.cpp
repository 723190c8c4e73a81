#include "core/plugin/cpu_features.hpp"
#include <cstdint>
#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>
#elif defined(__linux__)
#include <sys/auxv.h>
#endif

namespace dsv4 {
namespace {

enum class Has { yes, no, unknown };

#if defined(__x86_64__) || defined(__i386__)

enum Register { EAX, EBX, ECX, EDX };

// A feature is usable when CPUID shows it and the operating system saves its registers (XCR0): bits 1-2 for ymm, 5-7
// for zmm and masks, 17-18 for AMX tiles. Leaves, registers and bits: Intel SDM volume 2A, CPUID.
struct Feature {
    const char *name;
    uint32_t leaf, subleaf;
    Register reg;
    int bit;
    uint64_t xcr0;
};
constexpr uint64_t ymm = 0x6, zmm = 0xe6, tiles = 0x60000;
constexpr Feature features[] = {
    {"sse4_2", 1, 0, ECX, 20, 0},        {"popcnt", 1, 0, ECX, 23, 0},        {"avx", 1, 0, ECX, 28, ymm},
    {"f16c", 1, 0, ECX, 29, ymm},        {"fma", 1, 0, ECX, 12, ymm},         {"avx2", 7, 0, EBX, 5, ymm},
    {"bmi1", 7, 0, EBX, 3, 0},           {"bmi2", 7, 0, EBX, 8, 0},           {"avx512f", 7, 0, EBX, 16, zmm},
    {"avx512dq", 7, 0, EBX, 17, zmm},    {"avx512cd", 7, 0, EBX, 28, zmm},    {"avx512bw", 7, 0, EBX, 30, zmm},
    {"avx512vl", 7, 0, EBX, 31, zmm},    {"avx512_vbmi", 7, 0, ECX, 1, zmm},  {"avx512_vbmi2", 7, 0, ECX, 6, zmm},
    {"avx512_vnni", 7, 0, ECX, 11, zmm}, {"avx512_fp16", 7, 0, EDX, 23, zmm}, {"avx512_bf16", 7, 1, EAX, 5, zmm},
    {"avx_vnni", 7, 1, EAX, 4, ymm},     {"amx_bf16", 7, 0, EDX, 22, tiles},  {"amx_tile", 7, 0, EDX, 24, tiles},
    {"amx_int8", 7, 0, EDX, 25, tiles},
};

uint64_t read_xcr0() {
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & (1u << 27))) return 0; // no OSXSAVE: nothing beyond SSE is saved
    uint32_t low = 0, high = 0;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (static_cast<uint64_t>(high) << 32) | low;
}

Has has(std::string_view name) {
    for (const Feature &feature : features) {
        if (name != feature.name) continue;
        unsigned r[4] = {};
        if (!__get_cpuid_count(feature.leaf, feature.subleaf, &r[EAX], &r[EBX], &r[ECX], &r[EDX])) return Has::no;
        const bool cpu = (r[feature.reg] >> feature.bit) & 1u;
        const bool os = !feature.xcr0 || (read_xcr0() & feature.xcr0) == feature.xcr0;
        return cpu && os ? Has::yes : Has::no;
    }
    return Has::unknown;
}

#elif defined(__aarch64__) && defined(__linux__)

struct Feature {
    const char *name;
    unsigned long type;
    int bit; // of the kernel's arch/arm64/include/uapi/asm/hwcap.h
};
constexpr Feature features[] = {
    {"asimd", AT_HWCAP, 1},    {"fphp", AT_HWCAP, 9},   {"asimdhp", AT_HWCAP, 10},
    {"asimddp", AT_HWCAP, 20}, {"sve", AT_HWCAP, 22},   {"sve2", AT_HWCAP2, 1},
    {"i8mm", AT_HWCAP2, 13},   {"bf16", AT_HWCAP2, 14}, {"sme", AT_HWCAP2, 23},
};

Has has(std::string_view name) {
    for (const Feature &feature : features)
        if (name == feature.name) return (getauxval(feature.type) >> feature.bit) & 1ul ? Has::yes : Has::no;
    return Has::unknown;
}

#else

Has has(std::string_view) { return Has::unknown; }

#endif

} // namespace

std::string_view host_arch() {
#if defined(__x86_64__)
    return "x86_64";
#elif defined(__i386__)
    return "i686";
#elif defined(__aarch64__)
    return "aarch64";
#elif defined(__riscv) && __riscv_xlen == 64
    return "riscv64";
#elif defined(__powerpc64__) && defined(__LITTLE_ENDIAN__)
    return "ppc64le";
#elif defined(__loongarch64)
    return "loongarch64";
#else
    return "unknown";
#endif
}

std::string missing_cpu_features(const std::vector<std::string> &needed) {
    std::string missing, unknown;
    for (const std::string &name : needed) {
        const Has answer = has(name);
        if (answer == Has::no) missing += " " + name;
        if (answer == Has::unknown) unknown += " " + name;
    }
    if (!missing.empty()) return "needs CPU features this machine lacks:" + missing;
    if (!unknown.empty()) return "needs CPU features this library does not know of:" + unknown;
    return {};
}

} // namespace dsv4
