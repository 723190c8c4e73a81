// Weights are decoded to bf16 (or taken as they are) and multiplied by oneDNN, each thread of the pool on rows of its
// own. oneDNN is told to use one OpenMP thread there: its workers would otherwise spin on the processors that our own
// threads want, and OMP_WAIT_POLICY is not ours to set in somebody's process.
#include "backends/cpu/onednn.hpp"
#include <algorithm>
#include <cstring>
#include "backends/cpu/boundary.hpp"
#include "backends/cpu/kernels.hpp"

#ifdef DSV4_CPU_ONEDNN
#include <dnnl.hpp>
#include <omp.h>
#include <map>
#include <tuple>
#include <unordered_map>

namespace dsv4::cpu {

namespace {

constexpr int32_t fewest_tokens = 32, panel_rows = 128;

class SingleThreaded {
  public:
    SingleThreaded() : before_(omp_get_max_threads()) { omp_set_num_threads(1); }
    ~SingleThreaded() { omp_set_num_threads(before_); }
    SingleThreaded(const SingleThreaded &) = delete;
    SingleThreaded &operator=(const SingleThreaded &) = delete;

  private:
    int before_;
};

struct State {
    dnnl::engine engine{dnnl::engine::kind::cpu, 0};
    dnnl::stream stream{engine};
    std::map<std::tuple<int64_t, int64_t, int64_t, int64_t, int64_t>, dnnl::matmul> primitives;

    /// y [tokens, rows] float32, ldy apart = x [tokens, cols] bf16, ldx apart, times w [rows, cols] bf16 transposed
    void multiply(const void *x, const void *w, float *y, int64_t tokens, int64_t rows, int64_t cols, int64_t ldx,
                  int64_t ldy) {
        using dnnl::memory;
        const memory::desc xd({tokens, cols}, memory::data_type::bf16, memory::dims{ldx, 1});
        const memory::desc wd({cols, rows}, memory::data_type::bf16, memory::dims{1, ldx});
        const memory::desc yd({tokens, rows}, memory::data_type::f32, memory::dims{ldy, 1});
        const auto key = std::make_tuple(tokens, rows, cols, ldx, ldy);
        auto found = primitives.find(key);
        if (found == primitives.end()) {
            if (primitives.size() > 256) primitives.clear(); // a server's chunks have many sizes
#if DNNL_VERSION_MAJOR >= 3
            const dnnl::matmul::primitive_desc pd(engine, xd, wd, yd);
#else
            const dnnl::matmul::primitive_desc pd(dnnl::matmul::desc(xd, wd, yd), engine);
#endif
            found = primitives.emplace(key, dnnl::matmul(pd)).first;
        }
        found->second.execute(stream, {{DNNL_ARG_SRC, memory(xd, engine, const_cast<void *>(x))},
                                       {DNNL_ARG_WEIGHTS, memory(wd, engine, const_cast<void *>(w))},
                                       {DNNL_ARG_DST, memory(yd, engine, y)}});
        stream.wait();
    }
};

void gemm(const GemmArgs *a) {
    const Kernels *own = kernels_avx512_bf16();
    const Matrix *w = a->w;
    if (a->tokens < fewest_tokens) return own->narrow_gemm(a);
    State &state = *static_cast<State *>(a->library);
    const SingleThreaded scope;
    const int64_t padded = (int64_t(w->cols) + 127) / 128 * 128;
    if (w->type == WEIGHT_BF16 && padded == w->cols)
        return state.multiply(a->x, w->data + a->row0 * w->row_bytes, a->y, a->tokens, a->row1 - a->row0, w->cols,
                              padded, a->ldy);
    auto *panel = static_cast<uint16_t *>(a->scratch);
    const int64_t fit = int64_t(kernel_scratch_bytes) / 2 / padded;
    const int32_t step = int32_t(std::max<int64_t>(1, std::min<int64_t>(panel_rows, fit)));
    for (int32_t n = a->row0; n < a->row1; n += step) {
        const int32_t rows = std::min(step, a->row1 - n);
        own->bf16_decode(a->tables, w, n, rows, panel, padded);
        state.multiply(a->x, panel, a->y + (n - a->row0), a->tokens, rows, padded, padded, a->ldy);
    }
}

Kernels table() {
    Kernels k = *kernels_avx512_bf16();
    k.name = "onednn";
    k.narrow_gemm = gemm;
    return k;
}

} // namespace

const Kernels *kernels_onednn() {
    static const Kernels k = table();
    return &k;
}

std::shared_ptr<void> onednn_state() { return std::make_shared<State>(); }

} // namespace dsv4::cpu

#else

namespace dsv4::cpu {

const Kernels *kernels_onednn() { return nullptr; }

std::shared_ptr<void> onednn_state() {
    throw Error(DSV4_E_UNSUPPORTED, "cpu: this plugin was built without oneDNN");
}

} // namespace dsv4::cpu

#endif
