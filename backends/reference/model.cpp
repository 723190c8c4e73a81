// Family model: weights as mapped, caches addressed by position, the batch of a step.
#include <cstring>
#include "backends/reference/ops.hpp"

namespace dsv4::reference {
namespace {

constexpr int32_t max_role = 128;

/// A tensor of the core, which may be older and know fewer fields.
dsv4_tensor tensor_at(const dsv4_block_desc *desc, uint32_t i) {
    dsv4_tensor t{};
    std::memcpy(&t, reinterpret_cast<const char *>(desc->tensors) + size_t(i) * desc->tensor_stride,
                desc->tensor_stride < sizeof t ? desc->tensor_stride : sizeof t);
    return t;
}

dsv4_status block_bytes(dsv4_device *, const dsv4_shape *, const dsv4_block_desc *desc, uint64_t *device_bytes,
                        uint64_t *host_bytes, dsv4_error *) {
    *device_bytes = 0;  // rows are decoded from the mapped checkpoint on use
    *host_bytes = 0;
    for (uint32_t i = 0; i < desc->tensor_count; ++i)
        if (const dsv4_tensor t = tensor_at(desc, i); !t.data) *host_bytes += t.bytes + t.scale_bytes;
    return DSV4_OK;
}

dsv4_status block_create(dsv4_device *device, const dsv4_shape *shape, const dsv4_block_desc *desc, dsv4_block **out,
                         dsv4_error *err) {
    return guard(err, [&] {
        if (desc->expert_tier == DSV4_TIER_DISK)
            fail(DSV4_E_UNSUPPORTED, "experts on disk; this backend computes on the mapped checkpoint");
        auto block = std::make_unique<dsv4_block>();
        block->official = device->official;
        std::memcpy(&block->shape, shape, shape->struct_size < sizeof *shape ? shape->struct_size : sizeof *shape);
        block->kind = desc->kind;
        block->index = desc->index;
        block->ratio = desc->compress_ratio;
        if (desc->rope_frequency)
            block->rope_frequency.assign(desc->rope_frequency, desc->rope_frequency + shape->rope_dims / 2);
        block->by_role.assign(max_role, -1);
        for (auto *table : {&block->expert_w1, &block->expert_w2, &block->expert_w3})
            table->assign(size_t(shape->experts), -1);
        for (uint32_t i = 0; i < desc->tensor_count; ++i) {
            dsv4_tensor t = tensor_at(desc, i);
            if (t.role < 0 || t.role >= max_role) continue;  // of a newer core
            if (!t.data) {
                block->made.emplace_back(new uint8_t[t.bytes + t.scale_bytes]);
                uint8_t *data = block->made.back().get(), *scale = t.scale_dtype ? data + t.bytes : nullptr;
                make_random(t, data, scale);
                t.data = data;
                t.scale = scale;
            }
            const auto index = int32_t(block->weights.size());
            block->weights.push_back(Weight{t});
            if (t.expert < 0) {
                block->by_role[size_t(t.role)] = index;
                continue;
            }
            if (t.expert >= shape->experts) fail(DSV4_E_INVALID, "expert %d of %d", t.expert, shape->experts);
            auto &table = t.role == DSV4_ROLE_EXPERT_W1   ? block->expert_w1
                          : t.role == DSV4_ROLE_EXPERT_W2 ? block->expert_w2
                                                          : block->expert_w3;
            table[size_t(t.expert)] = index;
        }
        *out = block.release();
    });
}
void block_release(dsv4_block *block) { delete block; }

struct CacheFloats {
    uint64_t window, state, entries, index_keys;  // of one slot, one slot, one block, one block
    int32_t state_rows;
    int64_t state_width;
};

CacheFloats cache_floats(const dsv4_shape &s, int32_t ratio, const dsv4_cache_desc &c) {
    CacheFloats f{};
    f.window = uint64_t(c.window_rows) * uint64_t(s.head_dim);
    if (!ratio) return f;
    f.state_rows = (ratio == 4 ? 8 : ratio) + c.state_slack;
    f.state_width = ratio == 4 ? 4 * int64_t(s.head_dim) + 4 * int64_t(s.index_dim) : 2 * int64_t(s.head_dim);
    f.state = uint64_t(f.state_rows) * uint64_t(f.state_width);
    f.entries = uint64_t(c.block_tokens / ratio) * uint64_t(s.head_dim);
    if (ratio == 4) f.index_keys = uint64_t(c.block_tokens / 4) * uint64_t(s.index_dim);
    return f;
}

dsv4_status cache_bytes(dsv4_device *, const dsv4_shape *shape, int32_t ratio, const dsv4_cache_desc *desc,
                        uint64_t *per_slot, uint64_t *per_block, dsv4_error *) {
    const CacheFloats f = cache_floats(*shape, ratio, *desc);
    *per_slot = (f.window + f.state) * sizeof(float);
    *per_block = (f.entries + f.index_keys) * sizeof(float);
    return DSV4_OK;
}

dsv4_status cache_create(dsv4_device *, const dsv4_shape *shape, int32_t ratio, const dsv4_cache_desc *desc,
                         dsv4_cache **out, dsv4_error *err) {
    return guard(err, [&] {
        if (desc->slots < 1 || desc->blocks < 0 || desc->window_rows < shape->window || desc->state_slack < 0 ||
            desc->block_tokens < 1 || (ratio && desc->block_tokens % ratio))
            fail(DSV4_E_INVALID, "cache: slots %d, blocks %d of %d tokens, window rows %d (W %d), slack %d, ratio %d",
                 desc->slots, desc->blocks, desc->block_tokens, desc->window_rows, shape->window, desc->state_slack,
                 ratio);
        const CacheFloats f = cache_floats(*shape, ratio, *desc);
        auto cache = std::make_unique<dsv4_cache>();
        cache->shape = *shape;
        cache->ratio = ratio;
        cache->desc = *desc;
        cache->state_rows = f.state_rows;
        cache->state_width = f.state_width;
        cache->window = lazy_floats(f.window * uint64_t(desc->slots));
        cache->state = lazy_floats(f.state * uint64_t(desc->slots));
        cache->entries = lazy_floats(f.entries * uint64_t(desc->blocks));
        cache->index_keys = lazy_floats(f.index_keys * uint64_t(desc->blocks));
        *out = cache.release();
    });
}
void cache_release(dsv4_cache *cache) { delete cache; }

dsv4_status cache_read(dsv4_queue *, const dsv4_cache *cache, int32_t part, int32_t owner, int32_t first, int32_t rows,
                       float *values, dsv4_error *err) {
    return guard(err, [&] {
        const int32_t r = cache->ratio;
        const float *data = nullptr;
        int64_t width = cache->shape.head_dim, per_owner = 0, owners = cache->desc.blocks;
        if (part == DSV4_CACHE_WINDOW) {
            data = cache->window.get();
            per_owner = cache->desc.window_rows;
            owners = cache->desc.slots;
        } else if (part == DSV4_CACHE_ENTRIES && r) {
            data = cache->entries.get();
            per_owner = cache->desc.block_tokens / r;
        } else if (part == DSV4_CACHE_INDEX_KEYS && r == 4) {
            data = cache->index_keys.get();
            per_owner = cache->desc.block_tokens / 4;
            width = cache->shape.index_dim;
        } else {
            fail(DSV4_E_INVALID, "cache of ratio %d has no part %d", r, part);
        }
        if (owner < 0 || owner >= owners || first < 0 || rows < 0 || first + int64_t(rows) > per_owner)
            fail(DSV4_E_INVALID, "cache part %d: rows [%d, %d) of %d", part, first, first + rows, owner);
        std::memcpy(values, data + (owner * per_owner + first) * width, size_t(rows) * size_t(width) * sizeof(float));
    });
}

dsv4_status batch_create(dsv4_device *, const dsv4_shape *, int32_t max_tokens, int32_t max_sequences,
                         int32_t max_blocks, dsv4_batch **out, dsv4_error *err) {
    return guard(err, [&] {
        auto batch = std::make_unique<dsv4_batch>();
        batch->max_tokens = max_tokens;
        batch->max_sequences = max_sequences;
        batch->max_blocks = max_blocks;
        *out = batch.release();
    });
}
void batch_release(dsv4_batch *batch) { delete batch; }

dsv4_status batch_set(dsv4_queue *, dsv4_batch *batch, const dsv4_step *s, dsv4_error *err) {
    return guard(err, [&] {
        if (s->tokens < 0 || s->tokens > batch->max_tokens || s->sequences < 0 || s->sequences > batch->max_sequences ||
            s->blocks_per_sequence < 0 || s->blocks_per_sequence > batch->max_blocks || s->outputs < 0 ||
            s->outputs > s->tokens)
            fail(DSV4_E_INVALID, "step of %d tokens, %d sequences, %d blocks, %d outputs; batch made for %d, %d, %d",
                 s->tokens, s->sequences, s->blocks_per_sequence, s->outputs, batch->max_tokens, batch->max_sequences,
                 batch->max_blocks);
        batch->tokens = s->tokens;
        batch->sequences = s->sequences;
        batch->blocks_per_sequence = s->blocks_per_sequence;
        batch->outputs = s->outputs;
        batch->token.assign(s->token, s->token + s->tokens);
        batch->position.assign(s->position, s->position + s->tokens);
        batch->sequence.assign(s->sequence, s->sequence + s->tokens);
        batch->first.assign(s->first, s->first + s->sequences + 1);
        batch->slot.assign(s->slot, s->slot + s->sequences);
        const int64_t entries = int64_t(s->sequences) * s->blocks_per_sequence;
        batch->block_table.assign(s->block_table, s->block_table + entries);
        batch->output_row.assign(s->output_row, s->output_row + s->outputs);
    });
}

}  // namespace

const dsv4_model_ops model_ops = {sizeof(dsv4_model_ops), 0, block_bytes, block_create, block_release, cache_bytes,
                                  cache_create, cache_release, cache_read, batch_create, batch_release, batch_set};

}  // namespace dsv4::reference
