// Matrix products and the row operations around them.
#include "backends/cpu/formats.hpp"
#include "backends/cpu/objects.hpp"
#include <algorithm>
#include <cmath>
#include <cstring>

namespace dsv4::cpu {

bool is_quantized(const Matrix &w) { return w.type == WEIGHT_FP8 || w.type == WEIGHT_FP4; }

bool takes_narrow(const dsv4_device &device, const Matrix &w) {
    return !device.exact() && device.kernels->narrow_gemm && device.kernels->narrow_supports(&w);
}

Product whole(const Matrix &w, const float *x, float *y) { return {&w, x, w.cols, y, w.rows, 0, w.rows}; }

namespace {

struct Packed {
    const Product *product; // the first that needs it
    bool narrow, rounded;
    const float *x;
    int64_t ldx;
    void *data;
    bool ready;             // the activations are already laid out as the kernel wants them
};

/// The kernels choose the order of the columns by these.
bool same_layout(const Matrix &a, const Matrix &b) {
    return a.type == b.type && a.cols == b.cols && !a.scale == !b.scale && a.scale_is_float == b.scale_is_float &&
           a.block_rows == b.block_rows && a.block_cols == b.block_cols;
}

} // namespace

void multiply(dsv4_queue &queue, int32_t tokens, const Product *products, int32_t count) {
    if (!tokens) return;
    const dsv4_device &device = *queue.device;
    const Kernels &k = *device.kernels;
    Packed packed[16];
    int32_t packs = 0, use[32];
    size_t pack_bytes = 0, round_floats = 0;
    if (count > 32) throw Error(DSV4_E_INTERNAL, "cpu: too many products in one call");
    for (int32_t i = 0; i < count; ++i) {
        const Product &p = products[i];
        const bool narrow = !p.float_input && takes_narrow(device, *p.w);
        const bool rounded = device.official() && !p.unrounded && is_quantized(*p.w);
        int32_t at = 0;
        for (; at < packs; ++at) {
            const Packed &o = packed[at];
            if (o.narrow == narrow && o.rounded == rounded && o.x == p.x && o.ldx == p.ldx &&
                same_layout(*o.product->w, *p.w))
                break;
        }
        use[i] = at;
        if (at < packs) continue;
        if (packs == 16) throw Error(DSV4_E_INTERNAL, "cpu: too many inputs in one call");
        packed[packs++] = {&p, narrow, rounded, p.x, p.ldx, nullptr, false};
        pack_bytes += ((narrow ? k.narrow_pack_bytes(p.w, tokens) : k.f32_pack_bytes(p.w, tokens)) + 63) / 64 * 64;
        if (rounded) round_floats += size_t(tokens) * size_t(p.w->cols);
    }
    auto *to = reinterpret_cast<uint8_t *>(queue.floats(SCRATCH_PACK, pack_bytes / 4 + 16));
    float *rounded = round_floats ? queue.floats(SCRATCH_ROUNDED, round_floats) : nullptr;
    bool any = false;
    for (int32_t i = 0; i < packs; ++i) {
        Packed &p = packed[i];
        const Matrix &w = *p.product->w;
        if (p.rounded) {
            for (int32_t t = 0; t < tokens; ++t) {
                std::memcpy(rounded + int64_t(t) * w.cols, p.x + t * p.ldx, size_t(w.cols) * 4);
                round_fp8(rounded + int64_t(t) * w.cols, w.cols, 128);
            }
            p.x = rounded, p.ldx = w.cols;
            rounded += int64_t(tokens) * w.cols;
        }
        // Rows that are where the kernel wants them.
        if (!p.narrow && (tokens == 1 || p.ldx == w.cols) && k.f32_in_place(&w, tokens)) {
            p.data = const_cast<float *>(p.x);
            p.ready = true;
            continue;
        }
        p.data = to;
        to += ((p.narrow ? k.narrow_pack_bytes(&w, tokens) : k.f32_pack_bytes(&w, tokens)) + 63) / 64 * 64;
        any = true;
    }
    const int32_t groups = (tokens + 15) / 16;
    const auto pack = [&](int64_t item) {
        const Packed &p = packed[item / groups];
        if (p.ready) return;
        const int32_t first = int32_t(item % groups) * 16;
        const PackArgs args = {p.product->w, p.x, p.ldx, nullptr, tokens, first, std::min(tokens, first + 16), p.data};
        p.narrow ? k.narrow_pack(&args) : k.f32_pack(&args);
    };
    if (any && tokens <= 16)
        for (int32_t i = 0; i < packs; ++i) pack(int64_t(i) * groups);
    else if (any) device.pool->each(int64_t(packs) * groups, [&](int64_t item, int) { pack(item); });

    device.pool->run([&](int thread) {
        for (int32_t i = 0; i < count; ++i) {
            const Product &p = products[i];
            const Packed &in = packed[use[i]];
            const Range r = split(p.row0, p.row1, in.narrow ? k.narrow_row_step : k.f32_row_step, thread,
                                  device.pool->threads());
            if (r.begin >= r.end) continue;
            float *y = p.y + (r.begin - p.row0);
            const GemmArgs args = {device.tables.get(), p.w, in.data, tokens, r.begin, r.end, y, p.ldy,
                                   device.pool->scratch(thread), device.library(thread)};
            in.narrow ? k.narrow_gemm(&args) : k.f32_gemm(&args);
            if (device.official() && !p.keep_output)
                for (int32_t t = 0; t < tokens; ++t) k.round_bf16(y + t * p.ldy, r.end - r.begin);
        }
    });
}

void norm_row(const dsv4_device &device, const float *x, const float *weight, float eps, int64_t n, float *out) {
    const float factor = 1.0f / std::sqrt(device.kernels->sum_squares(x, n) / float(n) + eps);
    device.kernels->scale(x, weight, factor, n, out);
    if (device.official()) device.kernels->round_bf16(out, n);
}

void store_row(const dsv4_device &device, const float *x, int64_t n, bool as_float, uint8_t *out) {
    if (as_float) std::memcpy(out, x, size_t(n) * 4);
    else device.kernels->to_bf16(x, n, reinterpret_cast<uint16_t *>(out));
}

void load_row(const dsv4_device &device, const uint8_t *row, int64_t n, bool is_float, float *out) {
    if (is_float) std::memcpy(out, row, size_t(n) * 4);
    else device.kernels->from_bf16(reinterpret_cast<const uint16_t *>(row), n, out);
}

} // namespace dsv4::cpu
