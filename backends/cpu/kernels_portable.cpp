#include "backends/cpu/simd_portable.hpp"
#include "backends/cpu/kernels_body.hpp"

namespace dsv4::cpu {

namespace {
const Kernels table = {"portable",  DSV4_KERNELS_F32, 0, nullptr, nullptr, nullptr, nullptr, nullptr, attend, index_prepare_bytes,
                       index_prepare, index_score, DSV4_KERNELS_REST};
}

const Kernels *kernels_portable() { return &table; }

} // namespace dsv4::cpu
