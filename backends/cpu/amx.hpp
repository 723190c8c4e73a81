// The tile instructions as inline assembly: GCC 12's intrinsics lose the stores before _tile_loadconfig and _tile_loadd,
// and assembly needs no compiler flag. Tiles 0-3 accumulate, 4-5 hold the left operand (rows of weights, keys or
// probabilities), 6-7 the right one.
#pragma once
#include <stdint.h>

namespace dsv4::cpu {
namespace {

struct alignas(64) TileConfig {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
};

/// Tiles 0, 1, 6 have `first` columns of 4 bytes, tiles 2, 3, 7 `second`; 4 and 5 are full.
static inline __attribute__((always_inline)) void tile_configure(int first, int second) {
    TileConfig c = {};
    c.palette = 1;
    for (int i = 0; i < 8; ++i) {
        c.rows[i] = 16;
        c.row_bytes[i] = uint16_t(i == 4 || i == 5 ? 64 : 4 * (i == 2 || i == 3 || i == 7 ? second : first));
    }
    asm volatile("ldtilecfg %0" : : "m"(c) : "memory");
}
static inline __attribute__((always_inline)) void tile_release() { asm volatile("tilerelease" : : : "memory"); }

#define DSV4_TILE_LOAD(tile, from, stride)                                                                             \
    asm volatile("tileloadd (%0,%1,1), %%tmm" #tile : : "r"((const void *)(from)), "r"((int64_t)(stride)) : "memory")
#define DSV4_TILE_STORE(tile, to, stride)                                                                              \
    asm volatile("tilestored %%tmm" #tile ", (%0,%1,1)" : : "r"((void *)(to)), "r"((int64_t)(stride)) : "memory")
#define DSV4_TILE_ZERO(tile) asm volatile("tilezero %%tmm" #tile : : : "memory")
/// sum[m][n] += over pairs of k: left[m][k] right[k][n], bf16 into float32
#define DSV4_TILE_DOT(sum, left, right)                                                                                \
    asm volatile("tdpbf16ps %%tmm" #right ", %%tmm" #left ", %%tmm" #sum : : : "memory")

} // namespace
} // namespace dsv4::cpu
