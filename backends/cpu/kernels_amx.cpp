#include "backends/cpu/simd_bf16.hpp"
#include "backends/cpu/kernels_body.hpp"
#include "backends/cpu/amx_gemm.hpp"

namespace dsv4::cpu {

namespace {
const Kernels table = {"amx", DSV4_KERNELS_F32, panel_rows, bf16_supports, amx_pack_bytes, amx_pack, amx_gemm, attend,
                       index_prepare_bytes, index_prepare, index_score, DSV4_KERNELS_REST};
}

const Kernels *kernels_amx() { return &table; }

} // namespace dsv4::cpu
