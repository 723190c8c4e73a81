// Routing and the experts. Tokens are grouped by expert, so that every expert's weights are read once per step; the sum
// of a token runs over its experts in ascending order and ends with the shared one, whatever else is in the batch.
#include "backends/cpu/expert_store.hpp"
#include "backends/cpu/formats.hpp"
#include "backends/cpu/objects.hpp"
#include <algorithm>
#include <cmath>
#include <cstring>

namespace dsv4::cpu {

namespace {

float softplus(float x) { return x > 20.0f ? x : std::log1p(std::exp(x)); }

dsv4_status route(dsv4_queue *queue, const dsv4_batch *batch, const dsv4_block *block, const dsv4_buffer *x,
                  dsv4_buffer *out, dsv4_error *err) {
    return boundary(err, [&] {
        const dsv4_device &device = *queue->device;
        const dsv4_shape &s = block->shape;
        const int32_t T = batch->tokens, E = s.experts, k = s.active_experts;
        float *score = queue->floats(SCRATCH_A, size_t(T) * size_t(E));
        Product p = whole(block->matrix(DSV4_ROLE_GATE), x->row(0), score);
        p.unrounded = p.keep_output = true;
        p.float_input = !device.official(); // a rounding here can change the choice of experts
        multiply(*queue, T, &p, 1);
        const bool by_id = block->tid2eid != nullptr;
        const float *bias = by_id ? nullptr : block->vector(DSV4_ROLE_GATE_BIAS);
        device.pool->each(T, [&](int64_t t, int) {
            float *v = score + t * E, *weight = out->row(t) + k;
            int32_t *chosen = out->ints(t);
            for (int32_t e = 0; e < E; ++e) v[e] = std::sqrt(softplus(v[e]));
            if (by_id) {
                const int32_t id = batch->token[size_t(t)];
                if (id < 0 || id >= block->tid2eid_rows)
                    throw Error(DSV4_E_INVALID, "cpu: token id " + std::to_string(id) + " has no routing row");
                for (int32_t j = 0; j < k; ++j) {
                    const uint8_t *at = block->tid2eid + (int64_t(id) * k + j) * block->tid2eid_bytes;
                    int64_t e = 0;
                    int32_t narrow;
                    if (block->tid2eid_bytes == 8) std::memcpy(&e, at, 8);
                    else std::memcpy(&narrow, at, 4), e = narrow;
                    if (e < 0 || e >= E)
                        throw Error(DSV4_E_MODEL, "cpu: " + block->name() + ": token id " + std::to_string(id) +
                                                      " is routed to expert " + std::to_string(e));
                    chosen[j] = int32_t(e);
                }
            } else {
                for (int32_t j = 0; j < k; ++j) {
                    int32_t best = -1;
                    for (int32_t e = 0; e < E; ++e) {
                        if (std::find(chosen, chosen + j, e) != chosen + j) continue;
                        if (best < 0 || v[e] + bias[e] > v[best] + bias[best]) best = e;
                    }
                    chosen[j] = best;
                }
            }
            float sum = 0.0f;
            for (int32_t j = 0; j < k; ++j) sum += v[chosen[j]];
            for (int32_t j = 0; j < k; ++j) weight[j] = v[chosen[j]] / sum * s.routed_scale;
        });
    });
}

/// The tokens of one expert, the shared one included.
struct Group {
    int32_t expert;            // -1: the shared one
    Matrix w1, w2, w3;
    int32_t first, count;      // into the lists of tokens and weights
    int64_t x_at, h_at;        // bytes into the packed activations
    int64_t hidden_at;         // floats into the hidden rows
};

struct Plan {
    std::vector<Group> groups; // ascending by expert, the shared one last
    std::vector<int32_t> token;
    std::vector<float> weight;
    std::vector<uint8_t> routed;
};

const Matrix &expert_matrix(const dsv4_block &block, int part, int32_t e) {
    static const char *const names[3] = {"w1", "w2", "w3"};
    if (block.experts[part].empty() || !block.experts[part][size_t(e)].data)
        throw Error(DSV4_E_MODEL, "cpu: " + block.name() + " has no " + names[part] + " of expert " + std::to_string(e));
    return block.experts[part][size_t(e)];
}

Plan plan_groups(const dsv4_block &block, const dsv4_buffer &route, int32_t T) {
    const int32_t E = block.shape.experts, k = block.shape.active_experts;
    Plan plan;
    std::vector<int32_t> count(size_t(E) + 1, 0);
    for (int32_t t = 0; t < T; ++t)
        for (int32_t j = 0; j < k; ++j) {
            const int32_t e = route.ints(t)[j];
            if (e < 0 || e >= E)
                throw Error(DSV4_E_INVALID, "cpu: experts: token " + std::to_string(t) + " is routed to expert " +
                                                std::to_string(e) + " of " + std::to_string(E));
            ++count[size_t(e) + 1];
        }
    for (int32_t e = 0; e < E; ++e) count[size_t(e) + 1] += count[size_t(e)];
    std::vector<int32_t> at(count.begin(), count.end() - 1);
    plan.token.resize(size_t(T) * size_t(k));
    plan.weight.resize(size_t(T) * size_t(k));
    for (int32_t t = 0; t < T; ++t)
        for (int32_t j = 0; j < k; ++j) {
            const int32_t to = at[size_t(route.ints(t)[j])]++;
            plan.token[size_t(to)] = t;
            plan.weight[size_t(to)] = route.row(t)[k + j];
        }
    for (int32_t e = 0; e < E; ++e) {
        const int32_t first = count[size_t(e)], n = count[size_t(e) + 1] - first;
        if (n)
            plan.groups.push_back({e, expert_matrix(block, 0, e), expert_matrix(block, 1, e), expert_matrix(block, 2, e),
                                   first, n, 0, 0, 0});
    }
    if (block.has(DSV4_ROLE_SHARED_W1)) {
        const int32_t first = int32_t(plan.token.size());
        for (int32_t t = 0; t < T; ++t) plan.token.push_back(t), plan.weight.push_back(1.0f);
        plan.groups.push_back({-1, block.matrix(DSV4_ROLE_SHARED_W1), block.matrix(DSV4_ROLE_SHARED_W2),
                               block.matrix(DSV4_ROLE_SHARED_W3), first, T, 0, 0, 0});
    }
    return plan;
}

struct Layout {
    bool narrow;
    size_t (*bytes)(const Matrix *, int32_t);
    void (*pack)(const PackArgs *);
    void (*gemm)(const GemmArgs *);
    int32_t step;
};

Layout layout_for(const dsv4_device &device, const Matrix &w) {
    const Kernels &k = *device.kernels;
    if (takes_narrow(device, w)) return {true, k.narrow_pack_bytes, k.narrow_pack, k.narrow_gemm, k.narrow_row_step};
    return {false, k.f32_pack_bytes, k.f32_pack, k.f32_gemm, k.f32_row_step};
}

/// The groups from `from` on that can be computed now: all of them, or where the experts live on disk as many as have
/// arrived, while the others are being read.
std::vector<Group> next_wave(const dsv4_block &block, const Plan &plan, size_t from) {
    const auto begin = plan.groups.begin() + ptrdiff_t(from);
    if (block.stored.empty()) return {begin, plan.groups.end()};
    std::vector<int64_t> wanted;
    for (auto g = begin; g != plan.groups.end() && g->expert >= 0; ++g) wanted.push_back(block.stored[size_t(g->expert)]);
    const int64_t n = wanted.empty() ? 0 : block.store->acquire(wanted.data(), int64_t(wanted.size()));
    const bool rest = n == int64_t(wanted.size()); // the shared expert ends the last wave
    std::vector<Group> wave(begin, rest ? plan.groups.end() : begin + ptrdiff_t(n));
    for (int64_t i = 0; i < n; ++i) {
        Matrix *const m[3] = {&wave[size_t(i)].w1, &wave[size_t(i)].w2, &wave[size_t(i)].w3};
        for (int part = 0; part < 3; ++part) {
            m[part]->data = block.store->data(wanted[size_t(i)], part);
            if (m[part]->scale) m[part]->scale = block.store->data(wanted[size_t(i)], 3 + part);
        }
    }
    return wave;
}

constexpr int32_t column_chunk = 256; // outputs of w2 that a thread computes before it adds them to y

dsv4_status experts(dsv4_queue *queue, const dsv4_batch *batch, const dsv4_block *block, const dsv4_buffer *x,
                    const dsv4_buffer *route, dsv4_buffer *y, dsv4_error *err) {
    return boundary(err, [&] {
        const dsv4_device &device = *queue->device;
        const Kernels &k = *device.kernels;
        const dsv4_shape &s = block->shape;
        const int32_t T = batch->tokens, D = s.hidden, threads = device.pool->threads();
        if (!T) return;
        Plan plan = plan_groups(*block, *route, T);
        const float *input = x->row(0);
        if (device.official()) {
            float *rounded = queue->floats(SCRATCH_ROUNDED, size_t(T) * size_t(D));
            std::memcpy(rounded, input, size_t(T) * size_t(D) * 4);
            for (int32_t t = 0; t < T; ++t) round_fp8(rounded + int64_t(t) * D, D, 128);
            input = rounded;
        }
        // One wave, unless experts come from disk.
        for (size_t from = 0, to = 0; from < plan.groups.size(); from = to) {
            std::vector<Group> wave = next_wave(*block, plan, from);
            to = from + wave.size();
            int64_t x_bytes = 0, h_bytes = 0, hidden = 0;
            int32_t widest = 0;
            for (Group &g : wave) {
                if (g.w3.rows != g.w1.rows || g.w2.cols != g.w1.rows || g.w3.type != g.w1.type)
                    throw Error(DSV4_E_MODEL, "cpu: " + block->name() + ": w1, w2 and w3 of an expert do not fit together");
                const auto aligned = [](size_t n) { return int64_t((n + 63) / 64 * 64); };
                g.x_at = x_bytes, g.h_at = h_bytes, g.hidden_at = hidden;
                x_bytes += aligned(layout_for(device, g.w1).bytes(&g.w1, g.count));
                h_bytes += aligned(layout_for(device, g.w2).bytes(&g.w2, g.count));
                hidden += int64_t(g.count) * g.w1.rows;
                widest = std::max(widest, g.count);
            }
            auto *packed_x = reinterpret_cast<uint8_t *>(queue->floats(SCRATCH_PACK, size_t(x_bytes) / 4 + 16));
            auto *packed_h = reinterpret_cast<uint8_t *>(queue->floats(SCRATCH_A, size_t(h_bytes) / 4 + 16));
            float *gate = queue->floats(SCRATCH_B, size_t(hidden)), *up = queue->floats(SCRATCH_C, size_t(hidden));
            const size_t part = size_t(widest) * column_chunk;
            float *parts = queue->floats(SCRATCH_D, part * size_t(threads));

            struct Item {
                int32_t group, first;
            };
            std::vector<Item> items;
            for (size_t g = 0; g < wave.size(); ++g)
                for (int32_t t = 0; t < wave[g].count; t += 16) items.push_back({int32_t(g), t});

            const auto pack_x = [&](int64_t at, int) {
                const Item item = items[size_t(at)];
                const Group &g = wave[size_t(item.group)];
                const float *from = is_quantized(g.w1) ? input : x->row(0);
                const PackArgs args = {&g.w1, from, D, plan.token.data() + g.first, g.count, item.first,
                                       std::min(g.count, item.first + 16), packed_x + g.x_at};
                layout_for(device, g.w1).pack(&args);
            };
            if (T == 1)
                for (size_t i = 0; i < items.size(); ++i) pack_x(int64_t(i), 0);
            else device.pool->each(int64_t(items.size()), pack_x);

            device.pool->run([&](int thread) {
                for (const Group &g : wave) {
                    const Layout l = layout_for(device, g.w1);
                    const Range r = split(0, g.w1.rows, l.step, thread, threads);
                    if (r.begin >= r.end) continue;
                    const int64_t I = g.w1.rows;
                    float *pair[2] = {gate + g.hidden_at + r.begin, up + g.hidden_at + r.begin};
                    for (int which = 0; which < 2; ++which) {
                        const GemmArgs args = {device.tables.get(), which ? &g.w3 : &g.w1, packed_x + g.x_at, g.count,
                                               r.begin, r.end, pair[which], I, device.pool->scratch(thread),
                                               device.library(thread)};
                        l.gemm(&args);
                    }
                    for (int32_t i = 0; i < g.count; ++i) {
                        float *a = pair[0] + i * I, *b = pair[1] + i * I;
                        const int32_t n = r.end - r.begin;
                        if (device.official()) k.round_bf16(a, n), k.round_bf16(b, n);
                        k.swiglu(a, b, plan.weight[size_t(g.first + i)], s.swiglu_limit, n, a);
                        if (device.official()) k.round_bf16(a, n);
                    }
                }
            });

            const auto pack_h = [&](int64_t at, int) {
                const Item item = items[size_t(at)];
                const Group &g = wave[size_t(item.group)];
                float *rows = gate + g.hidden_at;
                const int32_t last = std::min(g.count, item.first + 16), I = g.w2.cols;
                if (device.official() && is_quantized(g.w2))
                    for (int32_t i = item.first; i < last; ++i) round_fp8(rows + int64_t(i) * I, I, 128);
                const PackArgs args = {&g.w2, rows, I, nullptr, g.count, item.first, last, packed_h + g.h_at};
                layout_for(device, g.w2).pack(&args);
            };
            if (T == 1)
                for (size_t i = 0; i < items.size(); ++i) pack_h(int64_t(i), 0);
            else device.pool->each(int64_t(items.size()), pack_h);

            device.pool->run([&](int thread) {
                const Range all = split(0, D, 32, thread, threads);
                float *sum = parts + part * size_t(thread);
                for (int32_t n0 = all.begin; n0 < all.end; n0 += column_chunk) {
                    const int32_t n1 = std::min(all.end, n0 + column_chunk), n = n1 - n0;
                    for (int32_t t = 0; from == 0 && t < T; ++t) std::memset(y->row(t) + n0, 0, size_t(n) * 4);
                    for (const Group &g : wave) {
                        const GemmArgs args = {device.tables.get(), &g.w2, packed_h + g.h_at, g.count, n0, n1, sum,
                                               column_chunk, device.pool->scratch(thread), device.library(thread)};
                        layout_for(device, g.w2).gemm(&args);
                        for (int32_t i = 0; i < g.count; ++i) {
                            float *row = sum + int64_t(i) * column_chunk;
                            if (device.official()) k.round_bf16(row, n);
                            k.add(y->row(plan.token[size_t(g.first + i)]) + n0, row, n);
                        }
                    }
                    if (device.official() && to == plan.groups.size())
                        for (int32_t t = 0; t < T; ++t) k.round_bf16(y->row(t) + n0, n);
                }
            });
        }
    });
}

} // namespace

const dsv4_moe_ops moe_ops = {sizeof(dsv4_moe_ops), 0, route, experts};

} // namespace dsv4::cpu
