// Queries and the window row of every token, and the way out of attention.
#include "backends/cpu/formats.hpp"
#include "backends/cpu/objects.hpp"
#include <algorithm>
#include <cmath>

namespace dsv4::cpu {

dsv4_status attention_project(dsv4_queue *queue, const dsv4_batch *batch, const dsv4_block *block, dsv4_cache *cache,
                              const dsv4_buffer *x, dsv4_buffer *q, dsv4_buffer *qr, dsv4_error *err) {
    return boundary(err, [&] {
        const dsv4_device &device = *queue->device;
        const dsv4_shape &s = block->shape;
        const int32_t T = batch->tokens, d = s.head_dim, R = s.rope_dims;
        const float *q_norm = block->vector(DSV4_ROLE_Q_NORM), *kv_norm = block->vector(DSV4_ROLE_KV_NORM);
        const float *turns = batch->turns(block->rope);
        float *kv = queue->floats(SCRATCH_A, size_t(T) * size_t(d));

        const Product first[2] = {whole(block->matrix(DSV4_ROLE_WQ_A), x->row(0), qr->row(0)),
                                  whole(block->matrix(DSV4_ROLE_WKV), x->row(0), kv)};
        multiply(*queue, T, first, 2);
        device.pool->each(T, [&](int64_t t, int) {
            norm_row(device, qr->row(t), q_norm, s.rms_eps, s.q_lora, qr->row(t));
            float *row = kv + t * d;
            norm_row(device, row, kv_norm, s.rms_eps, d, row);
            rotate(row + d - R, turns + t * R, R / 2, false);
            if (device.official()) {
                device.kernels->round_bf16(row + d - R, R);
                round_fp8(row, d - R, 64);
                device.kernels->round_bf16(row, d - R);
            }
            const int32_t slot = batch->slot[size_t(batch->sequence[size_t(t)])];
            store_row(device, row, d, cache->rows_are_float, cache->window_row(slot, batch->position[size_t(t)]));
        });

        const Product second = whole(block->matrix(DSV4_ROLE_WQ_B), qr->row(0), q->row(0));
        multiply(*queue, T, &second, 1);
        const int32_t per_item = T >= 4 * device.pool->threads() ? s.heads : std::min(s.heads, 16);
        const int32_t groups = (s.heads + per_item - 1) / per_item;
        device.pool->each(int64_t(T) * groups, [&](int64_t item, int) {
            const int64_t t = item / groups;
            const int32_t h0 = int32_t(item % groups) * per_item, h1 = std::min(s.heads, h0 + per_item);
            for (int32_t h = h0; h < h1; ++h) {
                float *head = q->row(t) + int64_t(h) * d;
                norm_row(device, head, nullptr, s.rms_eps, d, head);
                rotate(head + d - R, turns + t * R, R / 2, false);
                if (device.official()) device.kernels->round_bf16(head + d - R, R);
            }
        });
    });
}

namespace {

dsv4_status output(dsv4_queue *queue, const dsv4_batch *batch, const dsv4_block *block, const dsv4_buffer *o,
                   dsv4_buffer *y, dsv4_error *err) {
    return boundary(err, [&] {
        const dsv4_shape &s = block->shape;
        const int32_t T = batch->tokens, G = s.o_groups;
        const Matrix &wo_a = block->matrix(DSV4_ROLE_WO_A);
        const int64_t width = int64_t(G) * s.o_lora;
        float *mid = queue->floats(SCRATCH_A, size_t(T) * size_t(width));
        std::vector<Product> groups;
        for (int32_t g = 0; g < G; ++g) {
            Product p = {&wo_a, o->row(0) + int64_t(g) * wo_a.cols, o->width, mid + int64_t(g) * s.o_lora, width,
                         g * s.o_lora, (g + 1) * s.o_lora};
            p.unrounded = true;
            groups.push_back(p);
        }
        for (int32_t g = 0; g < G; g += 16) multiply(*queue, T, groups.data() + g, std::min(16, G - g));
        const Product last = whole(block->matrix(DSV4_ROLE_WO_B), mid, y->row(0));
        multiply(*queue, T, &last, 1);
    });
}

dsv4_status attend(dsv4_queue *queue, const dsv4_batch *batch, const dsv4_block *block, const dsv4_cache *cache,
                   const dsv4_buffer *q, const dsv4_buffer *selection, dsv4_buffer *o, dsv4_error *err) {
    return boundary(err, [&] {
        const dsv4_device &device = *queue->device;
        const dsv4_shape &s = block->shape;
        const int32_t T = batch->tokens, d = s.head_dim, R = s.rope_dims, ratio = block->ratio;
        const float *sink = block->vector(DSV4_ROLE_ATTN_SINK), *turns = batch->turns(block->rope);
        if (ratio == 4 && !selection) throw Error(DSV4_E_INVALID, "cpu: attend: a CSA layer needs the selection");
        const int32_t threads = device.pool->threads();
        const int32_t per_item = T >= 2 * threads ? s.heads : std::min(s.heads, ((s.heads + threads - 1) / threads + 15) / 16 * 16);
        const int32_t groups = (s.heads + per_item - 1) / per_item;
        std::vector<std::vector<const void *>> rows_of(size_t(device.pool->threads()));
        std::vector<std::vector<int32_t>> chosen_of(size_t(device.pool->threads()));
        device.pool->each(int64_t(T) * groups, [&](int64_t item, int thread) {
            const int64_t t = item / groups;
            const int32_t h0 = int32_t(item % groups) * per_item, count = std::min(s.heads - h0, per_item);
            const int32_t position = batch->position[size_t(t)], sequence = batch->sequence[size_t(t)];
            const int32_t slot = batch->slot[size_t(sequence)];
            std::vector<const void *> &rows = rows_of[size_t(thread)];
            rows.clear();
            for (int32_t p = std::max(0, position - s.window + 1); p <= position; ++p)
                rows.push_back(cache->window_row(slot, p));
            const auto entry = [&](int32_t i) {
                const int32_t per_block = cache->entries_per_block;
                return cache->entry(batch->block_of(sequence, i / per_block), i % per_block);
            };
            if (ratio == 4) {
                std::vector<int32_t> &chosen = chosen_of[size_t(thread)];
                const int32_t *picked = selection->ints(t);
                chosen.assign(picked, picked + selection->width);
                std::sort(chosen.begin(), chosen.end()); // the sum's order is the entries', whoever selected them
                for (const int32_t i : chosen)
                    if (i >= 0) rows.push_back(entry(i));
            } else if (ratio) {
                for (int32_t i = 0; i < (position + 1) / ratio; ++i) rows.push_back(entry(i));
            }
            float *out = o->row(t) + int64_t(h0) * d;
            const AttendArgs args = {q->row(t) + int64_t(h0) * d, out, rows.data(), sink + h0, count, d,
                                     int32_t(rows.size()), cache->rows_are_float, device.official(), 1.0f / std::sqrt(float(d)),
                                     device.pool->scratch(thread)};
            device.kernels->attend(&args);
            for (int32_t h = 0; h < count; ++h) {
                float *head = out + int64_t(h) * d;
                if (device.official()) device.kernels->round_bf16(head, d);
                rotate(head + d - R, turns + t * R, R / 2, true);
                if (device.official()) device.kernels->round_bf16(head + d - R, R);
            }
        });
    });
}

} // namespace

const dsv4_attention_ops attention_ops = {
    sizeof(dsv4_attention_ops), 0, attention_project, attention_compress, attention_select, attend, output};

} // namespace dsv4::cpu
