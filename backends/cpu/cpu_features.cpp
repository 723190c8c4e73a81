#include "backends/cpu/cpu_features.hpp"
#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace dsv4::cpu {

#if defined(__x86_64__)
namespace {

bool bit(unsigned word, int n) { return (word >> n) & 1u; }

uint64_t enabled_state() {
    unsigned low, high;
    asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t(high) << 32) | low;
}

/// Linux lends the tile registers on request only (since 5.16); the grant is the process's and harmless to ask twice.
bool tile_permission() {
    constexpr long request_permission = 0x1023, tile_data = 18; // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
}

} // namespace

Variants variants() {
    unsigned a, b, c, d;
    bool avx2 = false, avx512 = false, bf16 = false, amx = false;
    if (__get_cpuid(1, &a, &b, &c, &d) && bit(c, 27)) {
        const bool fma = bit(c, 12), f16c = bit(c, 29);
        const uint64_t state = enabled_state();
        const bool ymm = (state & 0x6) == 0x6, zmm = (state & 0xe6) == 0xe6, tiles = (state & 0x60000) == 0x60000;
        unsigned b7 = 0, c7 = 0, d7 = 0, a71 = 0;
        if (__get_cpuid_count(7, 0, &a, &b7, &c7, &d7)) {
            unsigned x, y, z;
            if (a >= 1) __get_cpuid_count(7, 1, &a71, &x, &y, &z);
        }
        avx2 = ymm && fma && f16c && bit(b7, 5);
        avx512 = avx2 && zmm && bit(b7, 16) && bit(b7, 17) && bit(b7, 30) && bit(b7, 31); // F, DQ, BW, VL
        bf16 = avx512 && bit(a71, 5) && bit(c7, 1);                                       // BF16, VBMI
        amx = bf16 && tiles && bit(d7, 22) && bit(d7, 24) && tile_permission();           // AMX-BF16, AMX-TILE
    }
    return {{{"portable", kernels_portable, true},
             {"avx2", kernels_avx2, avx2},
             {"avx512", kernels_avx512, avx512},
             {"avx512_bf16", kernels_avx512_bf16, bf16},
             {"onednn", kernels_onednn, bf16 && kernels_onednn(), true},
             {"amx", kernels_amx, amx}},
            6};
}
#else
Variants variants() { return {{{"portable", kernels_portable, true}, {}, {}, {}, {}, {}}, 1}; }
#endif

} // namespace dsv4::cpu
