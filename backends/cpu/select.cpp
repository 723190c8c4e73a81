// The indexer: which entries of a CSA layer a token attends to.
#include "backends/cpu/formats.hpp"
#include "backends/cpu/objects.hpp"
#include <algorithm>
#include <cmath>
#include <cstring>

namespace dsv4::cpu {

namespace {

/// A key that sorts the better entry first: the larger score, then the smaller index.
uint64_t rank(float score, uint32_t index) {
    uint32_t b;
    std::memcpy(&b, &score, sizeof b);
    b = (b & 0x80000000u) ? b : ~b & 0x7fffffffu; // descending: larger floats become smaller integers
    return (uint64_t(b) << 32) | index;
}

constexpr int64_t score_floats = int64_t(4) << 20; // scores of so many entries at a time, over all tokens

} // namespace

dsv4_status attention_select(dsv4_queue *queue, const dsv4_batch *batch, const dsv4_block *block,
                             const dsv4_cache *cache, const dsv4_buffer *x, const dsv4_buffer *qr,
                             dsv4_buffer *selection, dsv4_error *err) {
    return boundary(err, [&] {
        const dsv4_device &device = *queue->device;
        const dsv4_shape &s = block->shape;
        const int32_t T = batch->tokens, H = s.index_heads, di = s.index_dim, R = s.rope_dims, K = s.index_topk;
        const auto visible = [&](int32_t t) { return (batch->position[size_t(t)] + 1) / 4; };
        std::vector<int32_t> busy; // tokens that see more than they may keep
        for (int32_t t = 0; t < T; ++t) {
            if (visible(t) > K) {
                busy.push_back(t);
                continue;
            }
            int32_t *out = selection->ints(t);
            for (int32_t i = 0; i < K; ++i) out[i] = i < visible(t) ? i : -1;
        }
        if (busy.empty()) return;

        float *q = queue->floats(SCRATCH_A, size_t(T) * size_t(H) * size_t(di));
        float *weight = queue->floats(SCRATCH_B, size_t(T) * size_t(H));
        const Product products[2] = {whole(block->matrix(DSV4_ROLE_INDEX_WQ_B), qr->row(0), q),
                                     whole(block->matrix(DSV4_ROLE_INDEX_WEIGHTS), x->row(0), weight)};
        multiply(*queue, T, products, 2);

        const float *turns = batch->turns(block->rope);
        const size_t prepared_bytes = (device.kernels->index_prepare_bytes(H, di) + 63) / 64 * 64;
        auto *prepared = reinterpret_cast<uint8_t *>(queue->floats(SCRATCH_C, busy.size() * prepared_bytes / 4));
        const float factor = 1.0f / std::sqrt(float(di)) * (1.0f / std::sqrt(float(H)));
        device.pool->each(int64_t(busy.size()), [&](int64_t n, int) {
            const int32_t t = busy[size_t(n)];
            float *row = q + int64_t(t) * H * di, *w = weight + int64_t(t) * H;
            for (int32_t h = 0; h < H; ++h) {
                float *head = row + int64_t(h) * di;
                rotate(head + di - R, turns + int64_t(t) * R, R / 2, false);
                if (device.official()) device.kernels->round_bf16(head + di - R, R);
                hadamard(head, di);
                if (device.official()) device.kernels->round_bf16(head, di);
                if (!device.exact()) round_fp4(head, di);
                w[h] *= factor;
            }
            device.kernels->index_prepare(row, w, H, di, prepared + size_t(n) * prepared_bytes);
        });

        size_t done = 0;
        while (done < busy.size()) {
            // as many tokens as the score memory holds, at least one
            std::vector<int64_t> start;
            int64_t total = 0;
            size_t end = done;
            for (; end < busy.size() && (end == done || total + visible(busy[end]) <= score_floats); ++end) {
                start.push_back(total);
                total += visible(busy[end]);
            }
            float *scores = queue->floats(SCRATCH_D, size_t(total));
            struct Item {
                size_t n;
                int32_t block;
            };
            std::vector<Item> items;
            const int32_t per_block = cache->entries_per_block;
            for (size_t n = done; n < end; ++n)
                for (int32_t b = 0; b * per_block < visible(busy[n]); ++b) items.push_back({n, b});
            device.pool->each(int64_t(items.size()), [&](int64_t at, int thread) {
                const Item item = items[size_t(at)];
                const int32_t t = busy[item.n], first = item.block * per_block;
                const int32_t owner = batch->block_of(batch->sequence[size_t(t)], item.block);
                const IndexArgs args = {device.tables.get(), q + int64_t(t) * H * di, weight + int64_t(t) * H,
                                        prepared + item.n * prepared_bytes, cache->key(owner, 0), cache->key_bytes, H,
                                        di, std::min(per_block, visible(t) - first), cache->keys_are_float,
                                        scores + start[item.n - done] + first, device.pool->scratch(thread)};
                device.kernels->index_score(&args);
            });
            std::vector<std::vector<uint64_t>> order(size_t(device.pool->threads()));
            device.pool->each(int64_t(end - done), [&](int64_t n, int thread) {
                const int32_t t = busy[done + size_t(n)], count = visible(t);
                const float *score = scores + start[size_t(n)];
                std::vector<uint64_t> &keys = order[size_t(thread)];
                keys.resize(size_t(count));
                for (int32_t i = 0; i < count; ++i) keys[size_t(i)] = rank(score[i], uint32_t(i));
                std::nth_element(keys.begin(), keys.begin() + K - 1, keys.end());
                int32_t *out = selection->ints(t);
                for (int32_t i = 0; i < K; ++i) out[i] = int32_t(uint32_t(keys[size_t(i)]));
                std::sort(out, out + K);
            });
            done = end;
        }
    });
}

} // namespace dsv4::cpu
