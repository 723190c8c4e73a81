#include "backends/cpu/simd_bf16.hpp"
#include "backends/cpu/kernels_body.hpp"
#include "backends/cpu/amx_gemm.hpp"
#include "backends/cpu/amx_attend.hpp"

namespace dsv4::cpu {

namespace {
const Kernels table = {"amx", DSV4_KERNELS_F32, panel_rows, bf16_supports, amx_pack_bytes, amx_pack, amx_gemm,
                       nullptr, amx_attend, amx_index_prepare_bytes, amx_index_prepare, amx_index_score, DSV4_KERNELS_REST};
}

const Kernels *kernels_amx() { return &table; }

} // namespace dsv4::cpu
