// Family model, caches: where rows, state, entries and keys are, and how a row is read back.
#include "backends/gpu/formats.hpp"
#include "backends/gpu/ops.hpp"

namespace dsv4::gpu {

namespace {

struct Sizes { // bytes
    size_t window, state, index_state; // of one slot
    size_t entries, keys;              // of one block
};

/// The layout of a cache, without its memory.
dsv4_cache cache_layout(const dsv4_device &device, const dsv4_shape *shape, int32_t ratio, const dsv4_cache_desc *desc,
                        Sizes &sizes) {
    dsv4_cache c;
    const dsv4_shape s = c.shape = read_sized(shape, "dsv4_shape");
    const dsv4_cache_desc d = c.desc = read_sized(desc, "dsv4_cache_desc");
    if (ratio < 0 || d.slots < 1 || d.blocks < 0 || d.window_rows < s.window || d.state_slack < 0 ||
        (ratio && (d.block_tokens < 1 || d.block_tokens % ratio)))
        throw Failure(DSV4_E_INVALID, "cache: " + std::to_string(d.slots) + " slots, " + std::to_string(d.blocks) +
                                          " blocks of " + std::to_string(d.block_tokens) + " tokens, window_rows " +
                                          std::to_string(d.window_rows) + " do not fit ratio " + std::to_string(ratio) +
                                          " and window " + std::to_string(s.window));
    CacheView &v = c.view;
    v.ratio = ratio;
    v.head_dim = s.head_dim;
    v.rope_dims = s.rope_dims;
    v.index_dim = s.index_dim;
    v.window_rows = d.window_rows;
    v.block_tokens = d.block_tokens;
    v.rows_are_float = device.exact();
    const int32_t rounded = s.head_dim - s.rope_dims;
    v.row_bytes = v.rows_are_float ? s.head_dim * 4
                                   : int32_t(round_up(rounded + 2 * s.rope_dims + ceil_div(rounded, 64), 8));
    if (ratio) {
        v.channels = (ratio == 4 ? 2 : 1) * s.head_dim;
        v.state_rows = (ratio == 4 ? 8 : ratio) + d.state_slack;
        v.entries_per_block = d.block_tokens / ratio;
    }
    if (ratio == 4) {
        v.keys_are_float = device.exact() || s.index_dim % 32 != 0;
        v.key_bytes = v.keys_are_float ? s.index_dim * 4 : s.index_dim / 2 + s.index_dim / 32;
    }
    sizes.window = size_t(v.window_rows) * size_t(v.row_bytes);
    sizes.state = size_t(v.state_rows) * 2 * size_t(v.channels) * 4;
    sizes.index_state = ratio == 4 ? size_t(v.state_rows) * 4 * size_t(s.index_dim) * 4 : 0;
    sizes.entries = size_t(v.entries_per_block) * size_t(v.row_bytes);
    sizes.keys = size_t(v.entries_per_block) * size_t(v.key_bytes);
    return c;
}

void decode_row(const CacheView &v, const uint8_t *row, float *out) {
    const int32_t d = v.head_dim, R = v.rope_dims, rounded = d - R;
    if (v.rows_are_float) {
        std::memcpy(out, row, size_t(d) * 4);
        return;
    }
    const uint8_t *scale = row + rounded + 2 * R;
    for (int32_t i = 0; i < rounded; ++i) out[i] = e4m3_decode(row[i]) * e8m0_decode(scale[i / 64]);
    for (int32_t i = 0; i < R; ++i) {
        uint16_t h;
        std::memcpy(&h, row + rounded + 2 * i, 2);
        out[rounded + i] = from_bf16(h);
    }
}

void decode_key(const CacheView &v, const uint8_t *key, float *out) {
    const int32_t n = v.index_dim;
    if (v.keys_are_float) {
        std::memcpy(out, key, size_t(n) * 4);
        return;
    }
    for (int32_t i = 0; i < n; ++i)
        out[i] = e2m1_decode(uint32_t(key[i / 2]) >> (i % 2 * 4) & 15u) * e8m0_decode(key[n / 2 + i / 32]);
}

} // namespace

dsv4_status cache_bytes(dsv4_device *device, const dsv4_shape *shape, int32_t ratio, const dsv4_cache_desc *desc,
                        uint64_t *per_slot, uint64_t *per_block, dsv4_error *err) {
    return boundary(err, [&] {
        Sizes s;
        cache_layout(*device, shape, ratio, desc, s);
        *per_slot = s.window + s.state + s.index_state;
        *per_block = s.entries + s.keys;
    });
}

dsv4_status cache_create(dsv4_device *device, const dsv4_shape *shape, int32_t ratio, const dsv4_cache_desc *desc,
                         dsv4_cache **out, dsv4_error *err) {
    *out = nullptr;
    return on_device(err, *device, [&] {
        Sizes s;
        auto c = std::make_unique<dsv4_cache>(cache_layout(*device, shape, ratio, desc, s));
        const size_t slots = size_t(c->desc.slots), blocks = size_t(c->desc.blocks);
        const size_t bytes[5] = {slots * s.window, slots * s.state, slots * s.index_state, blocks * s.entries,
                                 blocks * s.keys};
        size_t at[6] = {0};
        for (int i = 0; i < 5; ++i) at[i + 1] = at[i] + size_t(round_up(int64_t(bytes[i]), 256));
        c->memory = Memory(*device, at[5],
                           "a cache of " + std::to_string(slots) + " slots and " + std::to_string(blocks) + " blocks");
        uint8_t *base = c->memory.data();
        c->view.window = base;
        c->view.state = reinterpret_cast<float *>(base + at[1]);
        c->view.index_state = reinterpret_cast<float *>(base + at[2]);
        c->view.entries = base + at[3];
        c->view.keys = base + at[4];
        *out = c.release();
    });
}
void cache_release(dsv4_cache *cache) { delete cache; }

dsv4_status cache_read(dsv4_queue *queue, const dsv4_cache *c, int32_t part, int32_t owner, int32_t first, int32_t rows,
                       float *values, dsv4_error *err) {
    return on_device(err, *queue, [&] {
        const CacheView &v = c->view;
        const bool window = part == DSV4_CACHE_WINDOW, keys = part == DSV4_CACHE_INDEX_KEYS;
        const int32_t have = window ? v.window_rows : v.entries_per_block;
        const int32_t owners = window ? c->desc.slots : c->desc.blocks;
        if ((!window && !keys && part != DSV4_CACHE_ENTRIES) || (keys && v.ratio != 4) || owner < 0 ||
            owner >= owners || first < 0 || rows < 0 || first > have - rows)
            throw Failure(DSV4_E_INVALID, "cache_read: part " + std::to_string(part) + ", owner " +
                                              std::to_string(owner) + ", rows " + std::to_string(first) + " + " +
                                              std::to_string(rows) + " of " + std::to_string(have));
        const int32_t bytes = keys ? v.key_bytes : v.row_bytes, width = keys ? v.index_dim : v.head_dim;
        const uint8_t *from = (window ? v.window : keys ? v.keys : v.entries) +
                              (int64_t(owner) * have + first) * bytes;
        std::vector<uint8_t> raw(size_t(rows) * size_t(bytes));
        copy_to_host(raw.data(), from, raw.size(), queue->stream());
        for (int32_t r = 0; r < rows; ++r)
            if (keys) decode_key(v, raw.data() + int64_t(r) * bytes, values + int64_t(r) * width);
            else decode_row(v, raw.data() + int64_t(r) * bytes, values + int64_t(r) * width);
    });
}

} // namespace dsv4::gpu
