// Blocks, caches and batches. Matrices stay where the core mapped them; small vectors become float32.
#include "backends/cpu/expert_store.hpp"
#include "backends/cpu/formats.hpp"
#include "backends/cpu/objects.hpp"
#include <algorithm>
#include <cstddef>
#include <cstring>

namespace dsv4::cpu {

namespace {

constexpr int32_t most_streams = 16; // hc_expand keeps so many in registers

int64_t element_bytes(int32_t dtype, int64_t count) {
    switch (dtype) {
    case DSV4_F32: case DSV4_I32: return 4 * count;
    case DSV4_BF16: case DSV4_F16: return 2 * count;
    case DSV4_I64: return 8 * count;
    case DSV4_FP8_E4M3: return count;
    case DSV4_FP4_E2M1: return (count + 1) / 2;
    }
    return -1;
}

bool is_vector(int32_t role) {
    switch (role) {
    case DSV4_ROLE_NORM: case DSV4_ROLE_HC_HEAD_BASE: case DSV4_ROLE_HC_HEAD_SCALE: case DSV4_ROLE_HC_ATTN_BASE:
    case DSV4_ROLE_HC_ATTN_SCALE: case DSV4_ROLE_HC_FFN_BASE: case DSV4_ROLE_HC_FFN_SCALE: case DSV4_ROLE_ATTN_NORM:
    case DSV4_ROLE_FFN_NORM: case DSV4_ROLE_Q_NORM: case DSV4_ROLE_KV_NORM: case DSV4_ROLE_ATTN_SINK:
    case DSV4_ROLE_COMP_APE: case DSV4_ROLE_COMP_NORM: case DSV4_ROLE_INDEX_COMP_APE: case DSV4_ROLE_INDEX_COMP_NORM:
    case DSV4_ROLE_GATE_BIAS: case DSV4_ROLE_E_NORM: case DSV4_ROLE_H_NORM: return true;
    }
    return false;
}

[[noreturn]] void refuse(const dsv4_block &b, const dsv4_tensor &t, const std::string &why) {
    throw Error(DSV4_E_MODEL, "cpu: " + b.name() + ", role " + std::to_string(t.role) +
                                  (t.expert >= 0 ? ", expert " + std::to_string(t.expert) : std::string()) + ": " + why);
}

Matrix matrix_of(const dsv4_block &b, const dsv4_tensor &t) {
    Matrix m = {};
    m.data = static_cast<const uint8_t *>(t.data);
    m.rows = int32_t(t.shape[0]);
    m.cols = int32_t(t.shape[1]);
    m.type = t.dtype;
    m.row_bytes = element_bytes(t.dtype, t.shape[1]);
    if (t.rank != 2 || t.shape[0] <= 0 || t.shape[1] <= 0) refuse(b, t, "a matrix was expected");
    if (t.dtype != DSV4_F32 && t.dtype != DSV4_BF16 && t.dtype != DSV4_F16 && t.dtype != DSV4_FP8_E4M3 &&
        t.dtype != DSV4_FP4_E2M1)
        refuse(b, t, "element type " + std::to_string(t.dtype) + " is not one this backend multiplies");
    if (t.dtype == DSV4_FP4_E2M1 && t.shape[1] % 2) refuse(b, t, "an FP4 row has an odd number of elements");
    if (t.bytes < uint64_t(m.row_bytes) * uint64_t(m.rows))
        refuse(b, t, "has " + std::to_string(t.bytes) + " bytes, its shape needs " +
                         std::to_string(m.row_bytes * m.rows));
    if (t.scale_dtype) {
        if (t.scale_dtype != DSV4_E8M0 && t.scale_dtype != DSV4_F32) refuse(b, t, "scale type is not known");
        if (t.scale_block[0] <= 0 || t.scale_block[1] <= 0) refuse(b, t, "scale block is empty");
        m.scale = static_cast<const uint8_t *>(t.scale);
        m.scale_is_float = t.scale_dtype == DSV4_F32;
        m.block_rows = t.scale_block[0];
        m.block_cols = t.scale_block[1];
        m.scale_stride = t.scale_shape[1];
        const int64_t need_rows = (t.shape[0] + m.block_rows - 1) / m.block_rows;
        const int64_t need_cols = (t.shape[1] + m.block_cols - 1) / m.block_cols;
        if (t.scale_shape[0] < need_rows || t.scale_shape[1] < need_cols ||
            t.scale_bytes < uint64_t(need_rows * t.scale_shape[1]) * (m.scale_is_float ? 4 : 1))
            refuse(b, t, "has too few scales");
    } else {
        m.block_rows = m.block_cols = 1;
    }
    return m;
}

std::vector<float> vector_of(const dsv4_block &b, const dsv4_tensor &t) {
    const int64_t n = t.shape[0] * (t.rank > 1 ? t.shape[1] : 1);
    const int64_t need = element_bytes(t.dtype, n);
    if (n <= 0 || (t.dtype != DSV4_F32 && t.dtype != DSV4_BF16 && t.dtype != DSV4_F16))
        refuse(b, t, "a float vector was expected");
    if (t.bytes < uint64_t(need)) refuse(b, t, "has too few bytes");
    std::vector<float> out(static_cast<size_t>(n));
    const auto *p = static_cast<const uint8_t *>(t.data);
    for (int64_t i = 0; i < n; ++i) {
        uint16_t h;
        if (t.dtype == DSV4_F32) std::memcpy(&out[size_t(i)], p + 4 * i, 4);
        else std::memcpy(&h, p + 2 * i, 2), out[size_t(i)] = t.dtype == DSV4_BF16 ? from_bfloat(h) : from_half(h);
    }
    return out;
}

/// The shape a matrix of this role must have; 0: any.
void expected_shape(const dsv4_shape &s, int32_t ratio, int32_t role, int64_t &rows, int64_t &cols) {
    const int64_t D = s.hidden, M = s.streams, d = s.head_dim, c = ratio == 4 ? 2 : 1;
    rows = cols = 0;
    switch (role) {
    case DSV4_ROLE_EMBED: case DSV4_ROLE_HEAD: rows = s.vocab, cols = D; break;
    case DSV4_ROLE_HC_HEAD_FN: rows = M, cols = M * D; break;
    case DSV4_ROLE_HC_ATTN_FN: case DSV4_ROLE_HC_FFN_FN: rows = (2 + M) * M, cols = M * D; break;
    case DSV4_ROLE_WQ_A: rows = s.q_lora, cols = D; break;
    case DSV4_ROLE_WQ_B: rows = s.heads * d, cols = s.q_lora; break;
    case DSV4_ROLE_WKV: rows = d, cols = D; break;
    case DSV4_ROLE_WO_A: rows = int64_t(s.o_groups) * s.o_lora, cols = s.heads * d / s.o_groups; break;
    case DSV4_ROLE_WO_B: rows = D, cols = int64_t(s.o_groups) * s.o_lora; break;
    case DSV4_ROLE_COMP_WKV: case DSV4_ROLE_COMP_WGATE: rows = c * d, cols = D; break;
    case DSV4_ROLE_INDEX_WQ_B: rows = int64_t(s.index_heads) * s.index_dim, cols = s.q_lora; break;
    case DSV4_ROLE_INDEX_WEIGHTS: rows = s.index_heads, cols = D; break;
    case DSV4_ROLE_INDEX_COMP_WKV: case DSV4_ROLE_INDEX_COMP_WGATE: rows = 2 * s.index_dim, cols = D; break;
    case DSV4_ROLE_GATE: rows = s.experts, cols = D; break;
    case DSV4_ROLE_EXPERT_W1: case DSV4_ROLE_EXPERT_W3: rows = s.expert_inter, cols = D; break;
    case DSV4_ROLE_EXPERT_W2: rows = D, cols = s.expert_inter; break;
    case DSV4_ROLE_SHARED_W1: case DSV4_ROLE_SHARED_W3: cols = D; break;
    case DSV4_ROLE_SHARED_W2: rows = D; break;
    case DSV4_ROLE_E_PROJ: case DSV4_ROLE_H_PROJ: rows = D, cols = D; break;
    }
}

int64_t expected_length(const dsv4_shape &s, int32_t ratio, int32_t role) {
    const int64_t M = s.streams, c = ratio == 4 ? 2 : 1;
    switch (role) {
    case DSV4_ROLE_NORM: case DSV4_ROLE_ATTN_NORM: case DSV4_ROLE_FFN_NORM: case DSV4_ROLE_E_NORM:
    case DSV4_ROLE_H_NORM: return s.hidden;
    case DSV4_ROLE_HC_HEAD_BASE: return M;
    case DSV4_ROLE_HC_HEAD_SCALE: return 1;
    case DSV4_ROLE_HC_ATTN_BASE: case DSV4_ROLE_HC_FFN_BASE: return (2 + M) * M;
    case DSV4_ROLE_HC_ATTN_SCALE: case DSV4_ROLE_HC_FFN_SCALE: return 3;
    case DSV4_ROLE_Q_NORM: return s.q_lora;
    case DSV4_ROLE_KV_NORM: case DSV4_ROLE_COMP_NORM: return s.head_dim;
    case DSV4_ROLE_ATTN_SINK: return s.heads;
    case DSV4_ROLE_COMP_APE: return ratio * c * s.head_dim;
    case DSV4_ROLE_INDEX_COMP_APE: return 4 * 2 * int64_t(s.index_dim);
    case DSV4_ROLE_INDEX_COMP_NORM: return s.index_dim;
    case DSV4_ROLE_GATE_BIAS: return s.experts;
    }
    return 0;
}

const dsv4_tensor &tensor_at(const dsv4_block_desc &desc, uint32_t i) {
    return *reinterpret_cast<const dsv4_tensor *>(reinterpret_cast<const uint8_t *>(desc.tensors) +
                                                  size_t(i) * desc.tensor_stride);
}

int expert_part(int32_t role) {
    return role == DSV4_ROLE_EXPERT_W1 ? 0 : role == DSV4_ROLE_EXPERT_W2 ? 1 : role == DSV4_ROLE_EXPERT_W3 ? 2 : -1;
}

void take_tensor(dsv4_block &b, const dsv4_tensor &t) {
    if (t.role <= 0 || t.role >= 80) return; // a role of a newer core: no operator here asks for it
    if (!t.data) refuse(b, t, "has no data; this backend makes none");
    if (is_vector(t.role)) {
        std::vector<float> v = vector_of(b, t);
        const int64_t need = expected_length(b.shape, b.ratio, t.role);
        if (need && int64_t(v.size()) != need)
            refuse(b, t, "expected " + std::to_string(need) + " elements, found " + std::to_string(v.size()));
        b.vectors[t.role] = std::move(v);
        return;
    }
    if (t.role == DSV4_ROLE_GATE_TID2EID) {
        if ((t.dtype != DSV4_I64 && t.dtype != DSV4_I32) || t.shape[1] != b.shape.active_experts)
            refuse(b, t, "expected integers, " + std::to_string(b.shape.active_experts) + " per token id");
        b.tid2eid = static_cast<const uint8_t *>(t.data);
        b.tid2eid_bytes = t.dtype == DSV4_I64 ? 8 : 4;
        b.tid2eid_rows = t.shape[0];
        if (t.bytes < uint64_t(element_bytes(t.dtype, t.shape[0] * t.shape[1]))) refuse(b, t, "has too few bytes");
        return;
    }
    const Matrix m = matrix_of(b, t);
    int64_t rows = 0, cols = 0;
    expected_shape(b.shape, b.ratio, t.role, rows, cols);
    if ((rows && rows != m.rows) || (cols && cols != m.cols))
        refuse(b, t, "expected [" + std::to_string(rows) + ", " + std::to_string(cols) + "], found [" +
                         std::to_string(m.rows) + ", " + std::to_string(m.cols) + "]");
    const int part = expert_part(t.role);
    if (part < 0) {
        b.matrices[t.role] = m;
        return;
    }
    if (t.expert < 0 || t.expert >= b.shape.experts) refuse(b, t, "expert number out of range");
    if (b.experts[part].empty()) b.experts[part].resize(size_t(b.shape.experts), Matrix{});
    b.experts[part][size_t(t.expert)] = m;
}

void check_shape(const dsv4_shape &s) {
    if (s.streams < 1 || s.streams > most_streams)
        throw Error(DSV4_E_UNSUPPORTED, "cpu: hc_mult is " + std::to_string(s.streams) + ", at most " +
                                            std::to_string(most_streams) + " streams are supported");
    if (s.rope_dims % 2 || s.rope_dims > s.head_dim)
        throw Error(DSV4_E_MODEL, "cpu: rope dims " + std::to_string(s.rope_dims) + " of a head of " +
                                      std::to_string(s.head_dim));
}

dsv4_block_desc read_desc(const dsv4_block_desc *given) {
    const dsv4_block_desc d = read_sized(given, "dsv4_block_desc");
    constexpr size_t needed = offsetof(dsv4_tensor, random); // nothing behind it is read
    if (d.tensor_stride < needed)
        throw Error(DSV4_E_INVALID, "cpu: dsv4_block_desc: tensor_stride is " + std::to_string(d.tensor_stride) +
                                        ", at least " + std::to_string(needed) + " was expected");
    return d;
}

dsv4_status block_bytes(dsv4_device *, const dsv4_shape *shape, const dsv4_block_desc *desc, uint64_t *device_bytes,
                        uint64_t *host_bytes, dsv4_error *err) {
    return boundary(err, [&] {
        read_sized(shape, "dsv4_shape");
        const dsv4_block_desc d = read_desc(desc);
        uint64_t small = sizeof(dsv4_block);
        for (uint32_t i = 0; i < d.tensor_count; ++i) {
            const dsv4_tensor &t = tensor_at(d, i);
            if (is_vector(t.role)) small += uint64_t(t.shape[0] * (t.rank > 1 ? t.shape[1] : 1)) * 4;
            if (t.expert >= 0) small += sizeof(Matrix);
        }
        *device_bytes = 0;
        *host_bytes = small;
    });
}

/// Leaves the routed experts of a block on disk: from now on their bytes come through the device's store.
void store_experts(dsv4_device &device, dsv4_block &b, const dsv4_block_desc &desc) {
    struct Parts {
        FilePiece part[ExpertStore::pieces];
    };
    std::vector<Parts> all(size_t(b.shape.experts));
    bool any = false;
    for (uint32_t i = 0; i < desc.tensor_count; ++i) {
        const dsv4_tensor &t = tensor_at(desc, i);
        const int part = expert_part(t.role);
        if (part < 0) continue;
        if (!t.path) refuse(b, t, "experts on disk need tensors that are mapped from a file");
        const int32_t file = device.store->file(t.path);
        FilePiece *to = all[size_t(t.expert)].part;
        to[part] = {file, t.file_offset, t.bytes};
        if (t.scale_dtype) to[3 + part] = {file, t.scale_file_offset, t.scale_bytes};
        any = true;
    }
    if (!any) return;
    b.store = device.store.get();
    for (const Parts &p : all) b.stored.push_back(device.store->add(p.part));
}

dsv4_status block_create(dsv4_device *device, const dsv4_shape *shape, const dsv4_block_desc *desc, dsv4_block **out,
                         dsv4_error *err) {
    *out = nullptr;
    return boundary(err, [&] {
        auto b = std::make_unique<dsv4_block>();
        b->shape = read_sized(shape, "dsv4_shape");
        check_shape(b->shape);
        const dsv4_block_desc d = read_desc(desc);
        b->kind = d.kind;
        b->index = d.index;
        b->ratio = d.compress_ratio;
        if (d.rope_frequency) b->rope.assign(d.rope_frequency, d.rope_frequency + b->shape.rope_dims / 2);
        for (uint32_t i = 0; i < d.tensor_count; ++i) take_tensor(*b, tensor_at(d, i));
        if (d.expert_tier == DSV4_TIER_DISK) store_experts(*device, *b, d);
        register_hash_block(*device, *b);
        place_weights(*device, *b);
        *out = b.release();
    });
}
void block_release(dsv4_block *block) { delete block; }

/// The layout of a cache, without its memory.
dsv4_cache cache_layout(const dsv4_device &device, const dsv4_shape *shape, int32_t ratio, const dsv4_cache_desc *desc) {
    dsv4_cache c;
    c.shape = read_sized(shape, "dsv4_shape");
    c.desc = read_sized(desc, "dsv4_cache_desc");
    c.ratio = ratio;
    if (ratio < 0 || c.desc.window_rows < c.shape.window || (ratio && c.desc.block_tokens % ratio))
        throw Error(DSV4_E_INVALID, "cpu: cache: window_rows " + std::to_string(c.desc.window_rows) + ", block_tokens " +
                                        std::to_string(c.desc.block_tokens) + " do not fit ratio " +
                                        std::to_string(ratio) + " and window " + std::to_string(c.shape.window));
    c.rows_are_float = device.exact();
    c.row_bytes = c.shape.head_dim * (c.rows_are_float ? 4 : 2);
    if (ratio) {
        c.channels = (ratio == 4 ? 2 : 1) * c.shape.head_dim;
        c.state_rows = (ratio == 4 ? 8 : ratio) + c.desc.state_slack;
        c.entries_per_block = c.desc.block_tokens / ratio;
    }
    if (ratio == 4) {
        c.keys_are_float = device.exact() || c.shape.index_dim % 32 != 0;
        c.key_bytes = c.keys_are_float ? c.shape.index_dim * 4 : c.shape.index_dim / 2 + c.shape.index_dim / 32;
    }
    return c;
}

uint64_t slot_bytes(const dsv4_cache &c) {
    return uint64_t(c.desc.window_rows) * uint64_t(c.row_bytes) +
           uint64_t(c.state_rows) * 8 * (uint64_t(c.channels) + (c.ratio == 4 ? 2 * uint64_t(c.shape.index_dim) : 0));
}
uint64_t block_bytes_of(const dsv4_cache &c) {
    return uint64_t(c.entries_per_block) * uint64_t(c.row_bytes + c.key_bytes);
}

dsv4_status cache_bytes(dsv4_device *device, const dsv4_shape *shape, int32_t ratio, const dsv4_cache_desc *desc,
                        uint64_t *per_slot, uint64_t *per_block, dsv4_error *err) {
    return boundary(err, [&] {
        const dsv4_cache c = cache_layout(*device, shape, ratio, desc);
        *per_slot = slot_bytes(c);
        *per_block = block_bytes_of(c);
    });
}

dsv4_status cache_create(dsv4_device *device, const dsv4_shape *shape, int32_t ratio, const dsv4_cache_desc *desc,
                         dsv4_cache **out, dsv4_error *err) {
    *out = nullptr;
    return boundary(err, [&] {
        auto c = std::make_unique<dsv4_cache>(cache_layout(*device, shape, ratio, desc));
        const uint64_t bytes = slot_bytes(*c) * uint64_t(c->desc.slots) + block_bytes_of(*c) * uint64_t(c->desc.blocks);
        c->reserved = Reservation(device->reserved, bytes, "a layer's cache");
        const size_t slots = size_t(c->desc.slots), blocks = size_t(c->desc.blocks), state = size_t(c->state_rows);
        c->window = Pages(slots * size_t(c->desc.window_rows) * size_t(c->row_bytes), "window rows");
        if (ratio) {
            c->state = Pages(slots * state * 2 * size_t(c->channels) * 4, "compressor state");
            c->entries = Pages(blocks * size_t(c->entries_per_block) * size_t(c->row_bytes), "cache entries");
        }
        if (ratio == 4) {
            c->index_state = Pages(slots * state * 4 * size_t(c->shape.index_dim) * 4, "indexer state");
            c->keys = Pages(blocks * size_t(c->entries_per_block) * size_t(c->key_bytes), "indexer keys");
        }
        *out = c.release();
    });
}
void cache_release(dsv4_cache *cache) { delete cache; }

dsv4_status cache_read(dsv4_queue *queue, const dsv4_cache *c, int32_t part, int32_t owner, int32_t first, int32_t rows,
                       float *values, dsv4_error *err) {
    return boundary(err, [&] {
        const bool window = part == DSV4_CACHE_WINDOW, keys = part == DSV4_CACHE_INDEX_KEYS;
        const int32_t have = window ? c->desc.window_rows : c->entries_per_block;
        const int32_t owners = window ? c->desc.slots : c->desc.blocks;
        if ((!window && !keys && part != DSV4_CACHE_ENTRIES) || (keys && c->ratio != 4) || owner < 0 ||
            owner >= owners || first < 0 || rows < 0 || first > have - rows)
            throw Error(DSV4_E_INVALID, "cpu: cache_read: part " + std::to_string(part) + ", owner " +
                                            std::to_string(owner) + ", rows " + std::to_string(first) + " + " +
                                            std::to_string(rows) + " of " + std::to_string(have));
        const dsv4_device &device = *queue->device;
        for (int32_t r = first; r < first + rows; ++r) {
            const int64_t n = keys ? c->shape.index_dim : c->shape.head_dim;
            float *out = values + (r - first) * n;
            if (!keys)
                load_row(device, window ? c->window_row(owner, r) : c->entry(owner, r), n, c->rows_are_float, out);
            else if (c->keys_are_float) std::memcpy(out, c->key(owner, r), size_t(n) * 4);
            else decode_fp4_row(*device.tables, c->key(owner, r), n, out);
        }
    });
}

dsv4_status batch_create(dsv4_device *, const dsv4_shape *shape, int32_t max_tokens, int32_t max_sequences,
                         int32_t max_blocks, dsv4_batch **out, dsv4_error *err) {
    *out = nullptr;
    return boundary(err, [&] {
        read_sized(shape, "dsv4_shape");
        auto b = std::make_unique<dsv4_batch>();
        b->max_tokens = max_tokens;
        b->max_sequences = max_sequences;
        b->max_blocks = max_blocks;
        *out = b.release();
    });
}
void batch_release(dsv4_batch *batch) { delete batch; }

dsv4_status batch_set(dsv4_queue *queue, dsv4_batch *b, const dsv4_step *given, dsv4_error *err) {
    return boundary(err, [&] {
        const dsv4_step s = read_sized(given, "dsv4_step");
        if (s.tokens < 0 || s.tokens > b->max_tokens || s.sequences < 0 || s.sequences > b->max_sequences ||
            s.blocks_per_sequence < 0 || s.blocks_per_sequence > b->max_blocks || s.outputs < 0 ||
            s.outputs > s.tokens)
            throw Error(DSV4_E_INVALID, "cpu: batch_set: " + std::to_string(s.tokens) + " tokens of " +
                                            std::to_string(s.sequences) + " sequences do not fit a batch of " +
                                            std::to_string(b->max_tokens) + " and " + std::to_string(b->max_sequences));
        const auto take = [](std::vector<int32_t> &to, const int32_t *from, int64_t n) {
            if (n) to.assign(from, from + n);
            else to.clear();
        };
        b->tokens = s.tokens;
        b->sequences = s.sequences;
        b->blocks_per_sequence = s.blocks_per_sequence;
        b->outputs = s.outputs;
        take(b->token, s.token, s.tokens);
        take(b->position, s.position, s.tokens);
        take(b->sequence, s.sequence, s.tokens);
        take(b->first, s.first, s.sequences + 1);
        take(b->slot, s.slot, s.sequences);
        take(b->block_table, s.block_table, int64_t(s.sequences) * s.blocks_per_sequence);
        take(b->output_row, s.output_row, s.outputs);
        for (dsv4_batch::Turns &t : b->turns_) t.current = false;
        queue->device->pool->keep_caller(); // the thread that runs steps, not the one that loads
        expect_hash_experts(*queue->device, *b);
    });
}

} // namespace

const dsv4_model_ops model_ops = {sizeof(dsv4_model_ops), 0,           block_bytes,   block_create,  block_release,
                                  cache_bytes,            cache_create, cache_release, cache_read,    batch_create,
                                  batch_release,          batch_set};

} // namespace dsv4::cpu

dsv4_block::~dsv4_block() {
    if (registered_at) dsv4::cpu::forget_hash_block(*registered_at, *this);
    for (const int64_t expert : stored) store->remove(expert);
}

std::string dsv4_block::name() const {
    return kind == DSV4_BLOCK_ENDS  ? std::string("the ends")
           : kind == DSV4_BLOCK_MTP ? "MTP block " + std::to_string(index)
                                    : "layer " + std::to_string(index);
}

const dsv4::cpu::Matrix &dsv4_block::matrix(int32_t role) const {
    if (!matrices[role].data)
        throw dsv4::cpu::Error(DSV4_E_MODEL, "cpu: " + name() + " has no tensor of role " + std::to_string(role));
    return matrices[role];
}

const float *dsv4_block::vector(int32_t role) const {
    if (vectors[role].empty())
        throw dsv4::cpu::Error(DSV4_E_MODEL, "cpu: " + name() + " has no tensor of role " + std::to_string(role));
    return vectors[role].data();
}

const float *dsv4_batch::turns(const std::vector<float> &frequency) const {
    const size_t pairs = frequency.size();
    Turns *found = nullptr;
    for (Turns &t : turns_)
        if (t.frequency == frequency) found = &t;
    if (!found) {
        turns_.emplace_back();
        found = &turns_.back();
        found->frequency = frequency;
    }
    if (!found->current) {
        found->values.resize(size_t(tokens) * 2 * pairs);
        for (int32_t t = 0; t < tokens; ++t)
            dsv4::cpu::turn_at(position[size_t(t)], frequency.data(), int32_t(pairs),
                               found->values.data() + size_t(t) * 2 * pairs);
        found->current = true;
    }
    return found->values.data();
}
