#include "backends/cpu/simd_avx2.hpp"
#include "backends/cpu/kernels_body.hpp"
#include "backends/cpu/avx2_gemm.hpp"
#include "backends/cpu/avx2_fp4.hpp"

namespace dsv4::cpu {

namespace {
const Kernels table = {"avx2", 4, avx2_f32_in_place, f32_pack_bytes, avx2_f32_pack, avx2_f32_gemm,
                       4, fp4_supports, fp4_pack_bytes, fp4_pack, fp4_gemm, nullptr,
                       attend, index_prepare_bytes, index_prepare, index_score, DSV4_KERNELS_REST};
}

const Kernels *kernels_avx2() { return &table; }

} // namespace dsv4::cpu
