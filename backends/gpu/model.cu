// Family model, weights: a block is one allocation that holds the checkpoint's bytes, each tensor aligned, with the
// small vectors as float32 and an array of the experts for the kernels to index. Weights that are described as random
// (dsv4_random) are made where they will lie.
#include <algorithm>
#include <cstddef>
#include "backends/gpu/formats.hpp"
#include "backends/gpu/ops.hpp"
#include "backends/gpu/random.hpp"

namespace dsv4::gpu {

namespace {

constexpr size_t alignment = 256;

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

int expert_part(int32_t role) {
    return role == DSV4_ROLE_EXPERT_W1 ? 0 : role == DSV4_ROLE_EXPERT_W2 ? 1 : role == DSV4_ROLE_EXPERT_W3 ? 2 : -1;
}

/// The shape a matrix of this role must have; 0: any.
void expected_shape(const dsv4_shape &s, int32_t ratio, int32_t role, int64_t &rows, int64_t &columns) {
    const int64_t D = s.hidden, M = s.streams, d = s.head_dim, c = ratio == 4 ? 2 : 1;
    rows = columns = 0;
    switch (role) {
    case DSV4_ROLE_EMBED: case DSV4_ROLE_HEAD: rows = s.vocab, columns = D; break;
    case DSV4_ROLE_HC_HEAD_FN: rows = M, columns = M * D; break;
    case DSV4_ROLE_HC_ATTN_FN: case DSV4_ROLE_HC_FFN_FN: rows = (2 + M) * M, columns = M * D; break;
    case DSV4_ROLE_WQ_A: rows = s.q_lora, columns = D; break;
    case DSV4_ROLE_WQ_B: rows = s.heads * d, columns = s.q_lora; break;
    case DSV4_ROLE_WKV: rows = d, columns = D; break;
    case DSV4_ROLE_WO_A: rows = int64_t(s.o_groups) * s.o_lora, columns = s.heads * d / s.o_groups; break;
    case DSV4_ROLE_WO_B: rows = D, columns = int64_t(s.o_groups) * s.o_lora; break;
    case DSV4_ROLE_COMP_WKV: case DSV4_ROLE_COMP_WGATE: rows = c * d, columns = D; break;
    case DSV4_ROLE_INDEX_WQ_B: rows = int64_t(s.index_heads) * s.index_dim, columns = s.q_lora; break;
    case DSV4_ROLE_INDEX_WEIGHTS: rows = s.index_heads, columns = D; break;
    case DSV4_ROLE_INDEX_COMP_WKV: case DSV4_ROLE_INDEX_COMP_WGATE: rows = 2 * s.index_dim, columns = D; break;
    case DSV4_ROLE_GATE: rows = s.experts, columns = D; break;
    case DSV4_ROLE_EXPERT_W1: case DSV4_ROLE_EXPERT_W3: rows = s.expert_inter, columns = D; break;
    case DSV4_ROLE_EXPERT_W2: rows = D, columns = s.expert_inter; break;
    case DSV4_ROLE_SHARED_W1: case DSV4_ROLE_SHARED_W3: columns = D; break;
    case DSV4_ROLE_SHARED_W2: rows = D; break;
    case DSV4_ROLE_E_PROJ: case DSV4_ROLE_H_PROJ: rows = D, columns = D; break;
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

[[noreturn]] void refuse(const dsv4_block &b, const dsv4_tensor &t, const std::string &why) {
    throw Failure(DSV4_E_MODEL, b.name() + ", role " + std::to_string(t.role) +
                                    (t.expert >= 0 ? ", expert " + std::to_string(t.expert) : std::string()) + ": " +
                                    why);
}

/// The matrix without its addresses; scale_bytes: what its scales take.
Matrix matrix_of(const dsv4_block &b, const dsv4_tensor &t, size_t &scale_bytes) {
    Matrix m{};
    if (t.rank != 2 || t.shape[0] <= 0 || t.shape[1] <= 0 || t.shape[0] > INT32_MAX || t.shape[1] > INT32_MAX)
        refuse(b, t, "a matrix was expected");
    if (t.dtype != DSV4_F32 && t.dtype != DSV4_BF16 && t.dtype != DSV4_F16 && t.dtype != DSV4_FP8_E4M3 &&
        t.dtype != DSV4_FP4_E2M1)
        refuse(b, t, "element type " + std::to_string(t.dtype) + " is not one this backend multiplies");
    if (t.dtype == DSV4_FP4_E2M1 && t.shape[1] % 2) refuse(b, t, "an FP4 row has an odd number of elements");
    m.dtype = t.dtype;
    m.rows = int32_t(t.shape[0]);
    m.columns = int32_t(t.shape[1]);
    m.row_bytes = element_bytes(t.dtype, t.shape[1]);
    m.scale_block_rows = m.scale_block_columns = 1;
    if (t.bytes < uint64_t(m.row_bytes) * uint64_t(m.rows))
        refuse(b, t,
               "has " + std::to_string(t.bytes) + " bytes, its shape needs " + std::to_string(m.row_bytes * m.rows));
    int64_t rows = 0, columns = 0;
    expected_shape(b.shape, b.ratio, t.role, rows, columns);
    if ((rows && rows != m.rows) || (columns && columns != m.columns))
        refuse(b, t, "expected [" + std::to_string(rows) + ", " + std::to_string(columns) + "], found [" +
                         std::to_string(m.rows) + ", " + std::to_string(m.columns) + "]");
    scale_bytes = 0;
    if (!t.scale_dtype) return m;
    if (t.scale_dtype != DSV4_E8M0 && t.scale_dtype != DSV4_F32) refuse(b, t, "scale type is not known");
    if (t.scale_block[0] <= 0 || t.scale_block[1] <= 0) refuse(b, t, "scale block is empty");
    m.scale_dtype = t.scale_dtype;
    m.scale_block_rows = t.scale_block[0];
    m.scale_block_columns = t.scale_block[1];
    m.scale_columns = int32_t(t.scale_shape[1]);
    const int64_t need = ceil_div(m.rows, m.scale_block_rows);
    scale_bytes = size_t(need * t.scale_shape[1]) * (t.scale_dtype == DSV4_F32 ? 4 : 1);
    if (t.scale_shape[0] < need || t.scale_shape[1] < ceil_div(m.columns, m.scale_block_columns) ||
        t.scale_bytes < scale_bytes)
        refuse(b, t, "has too few scales");
    return m;
}

bool alike(const Matrix &a, const Matrix &b) {
    return a.dtype == b.dtype && a.scale_dtype == b.scale_dtype && a.rows == b.rows && a.columns == b.columns &&
           a.scale_block_rows == b.scale_block_rows && a.scale_block_columns == b.scale_block_columns &&
           a.scale_columns == b.scale_columns;
}

std::vector<float> vector_of(const dsv4_block &b, const dsv4_tensor &t) {
    const int64_t n = t.shape[0] * (t.rank > 1 ? t.shape[1] : 1), need = expected_length(b.shape, b.ratio, t.role);
    if (n <= 0 || (t.dtype != DSV4_F32 && t.dtype != DSV4_BF16 && t.dtype != DSV4_F16))
        refuse(b, t, "a float vector was expected");
    if (t.bytes < uint64_t(element_bytes(t.dtype, n))) refuse(b, t, "has too few bytes");
    if (need && n != need)
        refuse(b, t, "expected " + std::to_string(need) + " elements, found " + std::to_string(n));
    std::vector<float> out(static_cast<size_t>(n));
    const auto *p = static_cast<const uint8_t *>(t.data);
    for (int64_t i = 0; i < n; ++i) {
        uint16_t h = 0;
        if (t.dtype == DSV4_F32) std::memcpy(&out[size_t(i)], p + 4 * i, 4);
        else std::memcpy(&h, p + 2 * i, 2), out[size_t(i)] = t.dtype == DSV4_BF16 ? from_bf16(h) : f16_decode(h);
    }
    return out;
}

/// Expert numbers by token id, checked here because no kernel could refuse them.
std::vector<int32_t> experts_by_token(const dsv4_block &b, const dsv4_tensor &t) {
    const int64_t n = t.shape[0] * t.shape[1];
    if ((t.dtype != DSV4_I64 && t.dtype != DSV4_I32) || t.rank != 2 || t.shape[1] != b.shape.active_experts ||
        t.shape[0] < b.shape.vocab)
        refuse(b, t,
               "expected integers, " + std::to_string(b.shape.active_experts) + " per token id of a vocabulary of " +
                   std::to_string(b.shape.vocab));
    if (t.bytes < uint64_t(element_bytes(t.dtype, n))) refuse(b, t, "has too few bytes");
    std::vector<int32_t> out(static_cast<size_t>(n));
    const auto *p = static_cast<const uint8_t *>(t.data);
    for (int64_t i = 0; i < n; ++i) {
        int64_t wide = 0;
        int32_t narrow = 0;
        if (t.dtype == DSV4_I64) std::memcpy(&wide, p + 8 * i, 8);
        else std::memcpy(&narrow, p + 4 * i, 4), wide = narrow;
        if (wide < 0 || wide >= b.shape.experts)
            refuse(b, t, "names expert " + std::to_string(wide) + " of " + std::to_string(b.shape.experts));
        out[size_t(i)] = int32_t(wide);
    }
    return out;
}

/// A tensor of the core, which may be older and know fewer fields.
dsv4_tensor tensor_at(const dsv4_block_desc &desc, uint32_t i) {
    dsv4_tensor t{};
    std::memcpy(&t, reinterpret_cast<const uint8_t *>(desc.tensors) + size_t(i) * desc.tensor_stride,
                std::min(sizeof t, size_t(desc.tensor_stride)));
    return t;
}

/// What goes into a block's memory, found before any of it is taken.
class Plan {
  public:
    Plan(const dsv4_shape &shape, const dsv4_block_desc &desc, dsv4_block &block);
    size_t device_bytes() const { return bytes_[0]; }
    size_t host_bytes() const { return bytes_[1]; }
    /// Takes the memory, fills it, and gives the block its addresses.
    void fill(const dsv4_device &device, dsv4_block &block);

  private:
    struct Piece {
        const void *from; // NULL: made there, or filled by fill()
        size_t bytes, at;
        int where; // 0: device, 1: pinned host memory
        RandomBytes random;
    };
    struct Use {
        int32_t role, expert;
        Matrix matrix;
        size_t data, scale; // pieces; scale 0: none (piece 0 is never a scale)
    };
    size_t add(const void *from, size_t bytes, int where, const RandomBytes &random = {}) {
        pieces_.push_back({from, bytes, bytes_[where], where, random});
        bytes_[where] += size_t(round_up(int64_t(bytes), alignment));
        return pieces_.size() - 1;
    }
    template <class T> size_t keep(std::vector<T> values) { // small things made here
        kept_.emplace_back(values.size() * sizeof(T));
        std::memcpy(kept_.back().data(), values.data(), kept_.back().size());
        return add(kept_.back().data(), kept_.back().size(), 0);
    }

    std::vector<Piece> pieces_;
    std::vector<Use> uses_;
    std::vector<std::pair<int32_t, size_t>> vectors_;
    std::vector<std::vector<uint8_t>> kept_;
    size_t bytes_[2] = {0, 0}, rope_ = 0, tid2eid_ = 0, lists_[3] = {};
    std::vector<Matrix> experts_[3];
};

Plan::Plan(const dsv4_shape &shape, const dsv4_block_desc &desc, dsv4_block &block) {
    block.shape = shape;
    block.kind = desc.kind;
    block.index = desc.index;
    block.ratio = desc.compress_ratio;
    if (desc.expert_tier == DSV4_TIER_DISK)
        throw Failure(DSV4_E_UNSUPPORTED, "experts on disk: this backend keeps them on the device or in host memory");
    rope_ = desc.rope_frequency
                ? keep(std::vector<float>(desc.rope_frequency, desc.rope_frequency + shape.rope_dims / 2))
                : keep(std::vector<float>(1));
    if (desc.rope_frequency) block.rope = reinterpret_cast<const float *>(1); // its address comes with the memory
    for (uint32_t i = 0; i < desc.tensor_count; ++i) {
        dsv4_tensor t = tensor_at(desc, i);
        if (t.role <= 0 || t.role >= role_count) continue; // a role of a newer core: no operator here asks for it
        const bool table = t.role == DSV4_ROLE_GATE_TID2EID;
        if (table || is_vector(t.role)) {
            std::vector<uint8_t> made;
            if (!t.data) {
                made = table ? random_rows(t) : random_on_host(random_data(t), t.bytes);
                t.data = made.data();
            }
            if (table) tid2eid_ = keep(experts_by_token(block, t));
            else vectors_.push_back({t.role, keep(vector_of(block, t))});
            continue;
        }
        size_t scale_bytes = 0;
        Use use{t.role, t.expert, matrix_of(block, t, scale_bytes), 0, 0};
        const int part = expert_part(t.role), where = part >= 0 && desc.expert_tier == DSV4_TIER_HOST;
        if (part >= 0) {
            if (t.expert < 0 || t.expert >= shape.experts) refuse(block, t, "expert number out of range");
            Matrix &like = (part == 0 ? block.w1 : part == 1 ? block.w2 : block.w3).like;
            if (!like.rows) like = use.matrix;
            else if (!alike(like, use.matrix))
                refuse(block, t, "differs in type or scales from the experts before it; all of a layer must be alike");
            experts_[part].resize(size_t(shape.experts));
        }
        use.data = add(t.data, size_t(use.matrix.row_bytes) * size_t(use.matrix.rows), where,
                       t.data ? RandomBytes() : random_data(t));
        if (scale_bytes) use.scale = add(t.scale, scale_bytes, where, t.data ? RandomBytes() : random_scale(t));
        uses_.push_back(use);
    }
    for (int part = 0; part < 3; ++part) {
        if (experts_[part].empty()) continue;
        lists_[part] = add(nullptr, experts_[part].size() * sizeof(Matrix), 0);
    }
}

void Plan::fill(const dsv4_device &device, dsv4_block &block) {
    block.memory = Memory(device, bytes_[0], block.name());
    block.host_memory = Memory(device, bytes_[1], "the experts of " + block.name(), true);
    const auto address = [&](size_t piece) {
        const Piece &p = pieces_[piece];
        return (p.where ? block.host_memory : block.memory).data() + p.at;
    };
    for (const Use &u : uses_) {
        Matrix m = u.matrix;
        m.data = address(u.data);
        m.scale = u.scale ? address(u.scale) : nullptr;
        const int part = expert_part(u.role);
        if (part < 0) block.matrices[u.role] = m;
        else experts_[part][size_t(u.expert)] = m;
    }
    for (const auto &[role, piece] : vectors_) block.vectors[role] = reinterpret_cast<const float *>(address(piece));
    if (block.rope) block.rope = reinterpret_cast<const float *>(address(rope_));
    if (tid2eid_) block.tid2eid = reinterpret_cast<const int32_t *>(address(tid2eid_));
    for (int part = 0; part < 3; ++part) {
        if (!lists_[part]) continue;
        dsv4_block::Experts &e = part == 0 ? block.w1 : part == 1 ? block.w2 : block.w3;
        pieces_[lists_[part]].from = experts_[part].data();
        const bool whole =
            std::all_of(experts_[part].begin(), experts_[part].end(), [](const Matrix &m) { return m.data; });
        if (whole)
            e.list = reinterpret_cast<const Matrix *>(address(lists_[part])); // else moe.experts says which lacks
    }

    // Through two halves of pinned memory, so that reading the checkpoint and the bus overlap.
    constexpr size_t half = size_t(8) << 20;
    const size_t largest = std::min(half, std::max(bytes_[0], alignment));
    const Memory staging(device, 2 * largest, "the upload of weights", true);
    const struct Upload { // waits on every way out
        Stream stream = stream_create();
        Event done[2] = {event_create(), event_create()};
        ~Upload() {
            stream_release(stream);
            for (const Event e : done) event_release(e);
        }
    } upload;
    bool used[2] = {};
    int turn = 0;
    for (const Piece &p : pieces_) {
        if (p.random.kind) {
            const Memory &memory = p.where ? block.host_memory : block.memory;
            random_on_device(p.random, memory.data() + p.at, p.bytes, upload.stream);
            continue;
        }
        if (p.where) {
            std::memcpy(block.host_memory.data() + p.at, p.from, p.bytes);
            continue;
        }
        for (size_t done = 0; done < p.bytes; done += largest, turn ^= 1) {
            const size_t bytes = std::min(largest, p.bytes - done);
            uint8_t *through = staging.data() + size_t(turn) * largest;
            if (used[turn]) event_wait(upload.done[turn]);
            used[turn] = true;
            std::memcpy(through, static_cast<const uint8_t *>(p.from) + done, bytes);
            copy_pinned(block.memory.data() + p.at + done, through, bytes, upload.stream);
            event_record(upload.done[turn], upload.stream);
        }
    }
    stream_wait(upload.stream);
}

void check_shape(const dsv4_shape &s) {
    if (s.streams < 1 || s.streams > most_streams)
        throw Failure(DSV4_E_UNSUPPORTED, "hc_mult is " + std::to_string(s.streams) + ", at most " +
                                              std::to_string(most_streams) + " streams are supported");
    if (s.rope_dims % 2 || s.rope_dims > s.head_dim)
        throw Failure(DSV4_E_MODEL, "rope dims " + std::to_string(s.rope_dims) + " of a head of " +
                                        std::to_string(s.head_dim));
}

Plan plan_of(const dsv4_shape *shape, const dsv4_block_desc *given, dsv4_block &block) {
    const dsv4_shape s = read_sized(shape, "dsv4_shape");
    check_shape(s);
    const dsv4_block_desc d = read_sized(given, "dsv4_block_desc");
    constexpr size_t needed = offsetof(dsv4_tensor, random);
    if (d.tensor_stride < needed)
        throw Failure(DSV4_E_INVALID, "dsv4_block_desc: tensor_stride is " + std::to_string(d.tensor_stride) +
                                          ", at least " + std::to_string(needed) + " was expected");
    return Plan(s, d, block);
}

} // namespace

dsv4_status block_bytes(dsv4_device *, const dsv4_shape *shape, const dsv4_block_desc *desc, uint64_t *device_bytes,
                        uint64_t *host_bytes, dsv4_error *err) {
    return boundary(err, [&] {
        dsv4_block block;
        const Plan plan = plan_of(shape, desc, block);
        *device_bytes = plan.device_bytes();
        *host_bytes = plan.host_bytes() + sizeof(dsv4_block);
    });
}

dsv4_status block_create(dsv4_device *device, const dsv4_shape *shape, const dsv4_block_desc *desc, dsv4_block **out,
                         dsv4_error *err) {
    *out = nullptr;
    return on_device(err, *device, [&] {
        auto block = std::make_unique<dsv4_block>();
        plan_of(shape, desc, *block).fill(*device, *block);
        *out = block.release();
    });
}
void block_release(dsv4_block *block) { delete block; }

const dsv4_model_ops &model_ops() {
    static const dsv4_model_ops table = {sizeof(dsv4_model_ops), 0, block_bytes, block_create, block_release,
                                        cache_bytes, cache_create, cache_release, cache_read, batch_create,
                                        batch_release, batch_set};
    return table;
}

} // namespace dsv4::gpu

std::string dsv4_block::name() const {
    return kind == DSV4_BLOCK_ENDS  ? std::string("the ends")
           : kind == DSV4_BLOCK_MTP ? "MTP block " + std::to_string(index)
                                    : "layer " + std::to_string(index);
}

const dsv4::gpu::Matrix &dsv4_block::matrix(int32_t role) const {
    if (!matrices[role].data)
        throw dsv4::gpu::Failure(DSV4_E_MODEL, name() + " has no tensor of role " + std::to_string(role));
    return matrices[role];
}

const float *dsv4_block::vector(int32_t role) const {
    if (!vectors[role])
        throw dsv4::gpu::Failure(DSV4_E_MODEL, name() + " has no tensor of role " + std::to_string(role));
    return vectors[role];
}

const float *dsv4_block::rope_frequency() const {
    if (!rope) throw dsv4::gpu::Failure(DSV4_E_MODEL, name() + ": rope_frequency was not given");
    return rope;
}
