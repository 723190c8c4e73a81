// The compressor: every r tokens become one entry of the cache (and, with r = 4, one indexer key).
#include "backends/cpu/formats.hpp"
#include "backends/cpu/objects.hpp"
#include <algorithm>
#include <cstring>

namespace dsv4::cpu {

namespace {

/// kv and scores of this step's tokens, and where those of earlier tokens lie.
struct Stage {
    const float *kv, *score; // [T, 2 width or width]
    const float *ape;        // [ratio, channels]
    int32_t channels;        // of one row: c * dim
    int32_t dim;             // of the entry
};

/// Pools entry `i` of sequence `s` into out[dim].
template <class Old>
void pool_entry(const dsv4_device &device, const dsv4_batch &batch, const Stage &stage, int32_t ratio, int32_t s,
                int32_t i, Old &&old_row, float *out) {
    const float *kv[256], *score[256], *ape[256];
    const int32_t t0 = batch.first[size_t(s)], p0 = batch.position[size_t(t0)];
    int32_t n = 0;
    const auto take = [&](int32_t position, int32_t channel) {
        const float *k, *g;
        if (position >= p0) {
            const int64_t at = int64_t(t0 + position - p0) * stage.channels;
            k = stage.kv + at, g = stage.score + at;
        } else {
            k = old_row(position), g = k + stage.channels;
        }
        kv[n] = k + channel, score[n] = g + channel;
        ape[n++] = stage.ape + int64_t(position % ratio) * stage.channels + channel;
    };
    if (ratio == 4 && i > 0)
        for (int32_t p = 4 * (i - 1); p < 4 * i; ++p) take(p, 0);
    for (int32_t p = ratio * i; p < ratio * (i + 1); ++p) take(p, ratio == 4 ? stage.dim : 0);
    device.kernels->pool(kv, score, ape, n, stage.dim, out);
    if (device.official()) device.kernels->round_bf16(out, stage.dim);
}

struct Item {
    int32_t sequence, entry;
};

} // namespace

dsv4_status attention_compress(dsv4_queue *queue, const dsv4_batch *batch, const dsv4_block *block, dsv4_cache *cache,
                               const dsv4_buffer *x, dsv4_error *err) {
    return boundary(err, [&] {
        const dsv4_device &device = *queue->device;
        const dsv4_shape &s = block->shape;
        const int32_t T = batch->tokens, r = block->ratio, d = s.head_dim, R = s.rope_dims, di = s.index_dim;
        if (!r || !T) return;
        if (r > 256) throw Error(DSV4_E_UNSUPPORTED, "cpu: compress ratio " + std::to_string(r) + " is above 256");
        const bool csa = r == 4;
        const int32_t channels = cache->channels, index_channels = csa ? 2 * di : 0;
        float *kv = queue->floats(SCRATCH_A, size_t(T) * size_t(channels)),
              *score = queue->floats(SCRATCH_B, size_t(T) * size_t(channels));
        float *ikv = csa ? queue->floats(SCRATCH_C, size_t(T) * size_t(index_channels)) : nullptr,
              *iscore = csa ? queue->floats(SCRATCH_D, size_t(T) * size_t(index_channels)) : nullptr;
        Product products[4] = {whole(block->matrix(DSV4_ROLE_COMP_WKV), x->row(0), kv),
                               whole(block->matrix(DSV4_ROLE_COMP_WGATE), x->row(0), score)};
        if (csa) {
            products[2] = whole(block->matrix(DSV4_ROLE_INDEX_COMP_WKV), x->row(0), ikv);
            products[3] = whole(block->matrix(DSV4_ROLE_INDEX_COMP_WGATE), x->row(0), iscore);
        }
        for (Product &p : products) p.unrounded = p.keep_output = true;
        multiply(*queue, T, products, csa ? 4 : 2);

        const Stage main = {kv, score, block->vector(DSV4_ROLE_COMP_APE), channels, d};
        const Stage index = {ikv, iscore, csa ? block->vector(DSV4_ROLE_INDEX_COMP_APE) : nullptr, index_channels, di};
        const float *norm = block->vector(DSV4_ROLE_COMP_NORM),
                    *index_norm = csa ? block->vector(DSV4_ROLE_INDEX_COMP_NORM) : nullptr;
        std::vector<Item> items;
        for (int32_t q = 0; q < batch->sequences; ++q) {
            const int32_t t0 = batch->first[size_t(q)], t1 = batch->first[size_t(q) + 1];
            if (t0 == t1) continue;
            const int32_t p0 = batch->position[size_t(t0)];
            for (int32_t i = p0 / r; (i + 1) * r <= p0 + t1 - t0; ++i) items.push_back({q, i});
        }
        device.pool->each(int64_t(items.size()), [&](int64_t at, int thread) {
            const Item item = items[size_t(at)];
            const int32_t slot = batch->slot[size_t(item.sequence)], per_block = cache->entries_per_block;
            const int32_t owner = batch->block_of(item.sequence, item.entry / per_block), row = item.entry % per_block;
            float *out = static_cast<float *>(device.pool->scratch(thread)), *turn = out + std::max(d, di);
            turn_at(int64_t(item.entry) * r, block->rope.data(), R / 2, turn);
            pool_entry(device, *batch, main, r, item.sequence, item.entry,
                       [&](int32_t p) { return cache->state_row(slot, p); }, out);
            norm_row(device, out, norm, s.rms_eps, d, out);
            rotate(out + d - R, turn, R / 2, false);
            if (device.official()) {
                device.kernels->round_bf16(out + d - R, R);
                round_fp8(out, d - R, 64);
                device.kernels->round_bf16(out, d - R);
            }
            store_row(device, out, d, cache->rows_are_float, cache->entry(owner, row));
            if (!csa) return;
            pool_entry(device, *batch, index, r, item.sequence, item.entry,
                       [&](int32_t p) { return cache->index_state_row(slot, p); }, out);
            norm_row(device, out, index_norm, s.rms_eps, di, out);
            rotate(out + di - R, turn, R / 2, false);
            if (device.official()) device.kernels->round_bf16(out + di - R, R);
            hadamard(out, di);
            if (device.official()) device.kernels->round_bf16(out, di);
            if (!cache->keys_are_float) {
                encode_fp4(out, di, cache->key(owner, row));
            } else {
                if (!device.exact()) round_fp4(out, di);
                std::memcpy(cache->key(owner, row), out, size_t(di) * 4);
            }
        });

        // Only now may the ring change: the entries above still read the rows of earlier tokens.
        for (int32_t q = 0; q < batch->sequences; ++q) {
            const int32_t t1 = batch->first[size_t(q) + 1];
            for (int32_t t = std::max(batch->first[size_t(q)], t1 - cache->state_rows); t < t1; ++t) {
                const int32_t slot = batch->slot[size_t(q)], position = batch->position[size_t(t)];
                float *to = cache->state_row(slot, position);
                std::memcpy(to, kv + int64_t(t) * channels, size_t(channels) * 4);
                std::memcpy(to + channels, score + int64_t(t) * channels, size_t(channels) * 4);
                if (!csa) continue;
                to = cache->index_state_row(slot, position);
                std::memcpy(to, ikv + int64_t(t) * index_channels, size_t(index_channels) * 4);
                std::memcpy(to + index_channels, iscore + int64_t(t) * index_channels, size_t(index_channels) * 4);
            }
        }
    });
}

} // namespace dsv4::cpu
