#include "backends/reference/compressor.hpp"
#include <algorithm>
#include <limits>
#include "backends/reference/linear.hpp"
#include "backends/reference/rope.hpp"

namespace dsv4::reference {
namespace {

/// One of the two compressors of a layer, with where its rows sit inside a state row.
struct Compressor {
    const Weight *wkv, *wgate, *ape, *norm;
    int32_t dim;
    int64_t state_offset;  // floats; kv [c*dim], then score [c*dim]
    bool index_keys;
};

/// Rows of state for the tokens of one sequence in this step, and behind them the ring.
struct StateRows {
    const dsv4_cache *cache;
    int32_t slot, start;         // first position of this step
    const float *step;           // [tokens, width]
    int64_t width, ring_offset;  // width = 2*c*dim

    const float *at(int64_t position) const {
        return position >= start ? step + (position - start) * width
                                 : cache->state_row(slot, int32_t(position)) + ring_offset;
    }
};

/// Entry e: softmax per channel over its rows (score + ape), pooled; then norm, rope at r*e, rounding.
/// Overlap (r == 4): rows of window e-1 through channels [0, dim), of window e through [dim, 2*dim).
void pool(const dsv4_block &block, const Compressor &c, const std::vector<float> &ape, const StateRows &rows, int64_t e,
          float *entry) {
    const int32_t r = block.ratio, parts = r == 4 ? 2 : 1, dim = c.dim;
    const int64_t channels = int64_t(parts) * dim;
    std::vector<float> pooled(static_cast<size_t>(dim));
    for (int32_t i = 0; i < dim; ++i) {
        float value[256], score[256];
        int32_t n = 0;
        for (int32_t part = 0; part < parts; ++part)
            for (int32_t j = 0; j < r; ++j) {
                const int64_t position = (e - (parts - 1) + part) * r + j, channel = int64_t(part) * dim + i;
                if (position < 0) continue;  // the window before the first is -inf
                const float *row = rows.at(position);
                value[n] = row[channel];
                score[n++] = row[channels + channel] + ape[size_t(j * channels + channel)];
            }
        float top = -std::numeric_limits<float>::infinity(), sum = 0, total = 0;
        for (int32_t k = 0; k < n; ++k) top = std::fmax(top, score[k]);
        for (int32_t k = 0; k < n; ++k) sum += score[k] = std::exp(score[k] - top);
        for (int32_t k = 0; k < n; ++k) total += value[k] * (score[k] / sum);
        pooled[size_t(i)] = bf(block.official, total);
    }
    rms_norm(block.official, *c.norm, block.shape.rms_eps, pooled.data(), dim, entry);
    rotate(block, entry, dim, e * r, false);
    if (c.index_keys) {
        hadamard(block.official, entry, dim);
        if (block.official) fake_fp4(entry, dim, 32);
    } else {
        round_key(block, entry);
    }
}

}  // namespace

void hadamard(bool official, float *x, int64_t n) {
    for (int64_t half = 1; half < n; half *= 2)
        for (int64_t i = 0; i < n; i += 2 * half)
            for (int64_t j = i; j < i + half; ++j) {
                const float a = x[j], b = x[j + half];
                x[j] = a + b;
                x[j + half] = a - b;
            }
    const float scale = 1.0f / std::sqrt(float(n));
    for (int64_t i = 0; i < n; ++i) x[i] = bf(official, x[i] * scale);
}

dsv4_status compress(dsv4_queue *, const dsv4_batch *batch, const dsv4_block *block, dsv4_cache *cache,
                     const dsv4_buffer *x, dsv4_error *err) {
    return guard(err, [&] {
        const dsv4_shape &s = block->shape;
        const int32_t r = block->ratio, parts = r == 4 ? 2 : 1;
        if (r < 1 || r * parts > 256) fail(DSV4_E_UNSUPPORTED, "compress ratio %d", r);
        if (r != cache->ratio) fail(DSV4_E_INVALID, "block of ratio %d with a cache of ratio %d", r, cache->ratio);
        std::vector<Compressor> compressors;
        compressors.push_back({&block->need(DSV4_ROLE_COMP_WKV), &block->need(DSV4_ROLE_COMP_WGATE),
                               &block->need(DSV4_ROLE_COMP_APE), &block->need(DSV4_ROLE_COMP_NORM), s.head_dim, 0,
                               false});
        if (r == 4)
            compressors.push_back({&block->need(DSV4_ROLE_INDEX_COMP_WKV), &block->need(DSV4_ROLE_INDEX_COMP_WGATE),
                                   &block->need(DSV4_ROLE_INDEX_COMP_APE), &block->need(DSV4_ROLE_INDEX_COMP_NORM),
                                   s.index_dim, 4 * int64_t(s.head_dim), true});
        for (const Compressor &c : compressors) {
            const int64_t channels = int64_t(parts) * c.dim, width = 2 * channels;
            expect_shape(*block, DSV4_ROLE_COMP_WKV, *c.wkv, channels, s.hidden);
            expect_shape(*block, DSV4_ROLE_COMP_WGATE, *c.wgate, channels, s.hidden);
            std::vector<float> ape(size_t(r * channels)), step(size_t(batch->tokens * width));
            for (int32_t j = 0; j < r; ++j) c.ape->decode_row(j, ape.data() + j * channels);
            // float32 up to the pooled value, in both numerics
            product(*c.wkv, 0, channels, x->row(0), s.hidden, batch->tokens, step.data(), width);
            product(*c.wgate, 0, channels, x->row(0), s.hidden, batch->tokens, step.data() + channels, width);
            for (int32_t q = 0; q < batch->sequences; ++q) {
                const int32_t first = batch->first[size_t(q)], end = batch->first[size_t(q) + 1];
                if (first == end) continue;
                const int32_t start = batch->position[size_t(first)], slot = batch->slot[size_t(q)];
                const StateRows rows{cache, slot, start, step.data() + first * width, width, c.state_offset};
                float *base = c.index_keys ? cache->index_keys.get() : cache->entries.get();
                for (int32_t t = first; t < end; ++t) {
                    const int32_t position = batch->position[size_t(t)];
                    if ((position + 1) % r) continue;
                    const int64_t e = position / r;
                    pool(*block, c, ape, rows, e, base + cache->entry_row(batch->table_of(t), e) * c.dim);
                }
                // Last, because the ring still holds rows that the first entries of this step needed.
                for (int32_t t = std::max(first, end - cache->state_rows); t < end; ++t)
                    std::copy_n(step.data() + t * width, width,
                                cache->state_row(slot, batch->position[size_t(t)]) + c.state_offset);
            }
        }
    });
}

}  // namespace dsv4::reference
