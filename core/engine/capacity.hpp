// How much a loaded model can take at once: one rule for loading and for planning, so that the plan names the bytes
// that loading reserves.
#pragma once
#include <vector>
#include "core/model/config.hpp"
#include "core/model/forward.hpp"

namespace dsv4 {

/// ratios: compress ratios of every block that has a cache. Throws Error (DSV4_E_INVALID) naming the option.
Capacity choose_capacity(const Config &config, const std::vector<int32_t> &ratios, const dsv4_model_options &options);

/// Over all those blocks, as the backend says.
struct CacheBytes {
    uint64_t per_slot = 0, per_block = 0;
    uint64_t of(uint64_t slots, uint64_t blocks) const { return per_slot * slots + per_block * blocks; }
};
CacheBytes cache_bytes(const Device &device, const dsv4_shape &shape, const std::vector<int32_t> &ratios,
                       const dsv4_cache_desc &cache);

}  // namespace dsv4
