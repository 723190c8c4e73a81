#include "weights.hpp"
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <numeric>

namespace dsv4::conformance {
namespace {

constexpr float e2m1[8] = {0, .5f, 1, 1.5f, 2, 3, 4, 6};

float decode_e4m3(uint8_t code) {
    const int exponent = (code >> 3) & 15, mantissa = code & 7;
    const float size = exponent ? std::ldexp(1 + mantissa / 8.f, exponent - 7) : std::ldexp(mantissa / 8.f, -6);
    return code & 0x80 ? -size : size;
}

float decode_f16(uint16_t bits) {
    const int exponent = (bits >> 10) & 31, mantissa = bits & 1023;
    const float size = exponent ? std::ldexp(1 + mantissa / 1024.f, exponent - 15) : std::ldexp(mantissa / 1024.f, -14);
    return bits & 0x8000 ? -size : size;
}

uint16_t to_bf16(float value) { // finite values only
    const uint32_t bits = std::bit_cast<uint32_t>(value);
    return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

uint16_t to_f16(float value) { // truncating; below the normal range it becomes zero. Good enough for a random weight.
    const uint32_t bits = std::bit_cast<uint32_t>(value);
    const int exponent = static_cast<int>((bits >> 23) & 255) - 127 + 15;
    if (exponent <= 0) return 0;
    return static_cast<uint16_t>(((bits >> 16) & 0x8000u) | (static_cast<uint32_t>(exponent) << 10) |
                                 ((bits >> 13) & 1023u));
}

// Gaussian codes: a random byte picks one of 256.
struct CodeTables {
    std::array<uint8_t, 256> fp8{}; // standard deviation about 112, largest below 448
    std::array<uint8_t, 256> fp4{}; // nibbles; standard deviation about 2
    std::array<float, 4096> gauss{};
    CodeTables() {
        Random random(7);
        for (float &g : gauss) g = random.gaussian();
        for (size_t i = 0; i < 256; ++i) {
            const float wide = gauss[i * 7] * 112, narrow = gauss[i * 11 + 3] * 2;
            int best8 = 0, best4 = 0;
            for (int code = 0; code < 127; ++code) // 127 is NaN
                if (std::fabs(decode_e4m3(static_cast<uint8_t>(code)) - std::fabs(wide)) <
                    std::fabs(decode_e4m3(static_cast<uint8_t>(best8)) - std::fabs(wide)))
                    best8 = code;
            for (int code = 0; code < 8; ++code)
                if (std::fabs(e2m1[code] - std::fabs(narrow)) < std::fabs(e2m1[best4] - std::fabs(narrow)))
                    best4 = code;
            fp8[i] = static_cast<uint8_t>(best8 | (wide < 0 ? 0x80 : 0));
            fp4[i] = static_cast<uint8_t>(best4 | (narrow < 0 ? 8 : 0));
        }
    }
};

const CodeTables &tables() {
    static const CodeTables made;
    return made;
}

class Maker {
  public:
    Maker(Weights &out, uint64_t seed, bool described = false) : out_(out), seed_(seed), described_(described) {}

    /// rows x columns, elements of standard deviation `deviation` about `mean` (mean: float formats only).
    void add(int32_t role, int64_t rows, int64_t columns, int32_t dtype, float deviation, float mean = 0,
             int32_t expert = -1, int32_t scale_dtype = DSV4_E8M0) {
        dsv4_tensor t{};
        t.role = role, t.expert = expert, t.dtype = dtype;
        t.rank = columns == 1 ? 1 : 2;
        t.shape[0] = rows, t.shape[1] = columns;
        Random random(seed_ ^ (static_cast<uint64_t>(role) << 32) ^ (static_cast<uint64_t>(expert + 1) << 48));
        if (described_ && describe(t, random.next(), scale_dtype, deviation, mean)) return out_.tensors.push_back(t);
        if (dtype == DSV4_FP8_E4M3) quantized(t, random, tables().fp8, 128, 128, scale_dtype, deviation / 112);
        else if (dtype == DSV4_FP4_E2M1) quantized(t, random, tables().fp4, 1, 32, DSV4_E8M0, deviation / 2);
        else plain(t, random, deviation, mean);
        out_.tensors.push_back(t);
    }

    /// [V, k] distinct experts per token id
    void add_token_table(int64_t vocab, int64_t active, int64_t experts) {
        dsv4_tensor t{};
        t.role = DSV4_ROLE_GATE_TID2EID, t.expert = -1, t.dtype = DSV4_I64, t.rank = 2;
        t.shape[0] = vocab, t.shape[1] = active;
        if (described_) {
            t.bytes = static_cast<uint64_t>(vocab * active) * 8;
            t.random.kind = DSV4_RANDOM_ROWS, t.random.range = static_cast<int32_t>(experts), t.random.seed = ~seed_;
            return out_.tensors.push_back(t);
        }
        std::vector<uint8_t> bytes(static_cast<size_t>(vocab * active) * 8);
        std::vector<int64_t> order(static_cast<size_t>(experts));
        std::iota(order.begin(), order.end(), 0);
        Random random(seed_ ^ 0x71d2e1d);
        for (int64_t v = 0; v < vocab; ++v)
            for (int64_t j = 0; j < active; ++j) {
                const auto other = static_cast<size_t>(j) + random.next() % static_cast<uint64_t>(experts - j);
                std::swap(order[static_cast<size_t>(j)], order[other]);
                std::memcpy(&bytes[static_cast<size_t>(v * active + j) * 8], &order[static_cast<size_t>(j)], 8);
            }
        hold(t, std::move(bytes));
        out_.tensors.push_back(t);
    }

  private:
    /// False: there is no describing it.
    static bool describe(dsv4_tensor &t, uint64_t seed, int32_t scale_dtype, float deviation, float mean) {
        const bool fp8 = t.dtype == DSV4_FP8_E4M3, fp4 = t.dtype == DSV4_FP4_E2M1;
        const auto count = static_cast<uint64_t>(t.shape[0] * t.shape[1]);
        t.random.seed = seed;
        if (t.dtype == DSV4_F32 || t.dtype == DSV4_BF16) {
            t.random.kind = DSV4_RANDOM_NORMAL, t.random.mean = mean, t.random.deviation = deviation;
            t.bytes = count * (t.dtype == DSV4_F32 ? 4 : 2);
        } else if (fp4 || (fp8 && scale_dtype == DSV4_E8M0)) {
            t.random.kind = DSV4_RANDOM_CODES;
            t.bytes = fp4 ? count / 2 : count;
            scale_blocks(t, fp8 ? 128 : 1, fp8 ? 128 : 32, DSV4_E8M0);
            t.scale_bytes = static_cast<uint64_t>(t.scale_shape[0] * t.scale_shape[1]);
            const float codes = fp8 ? 107 : 2.93f; // root mean square of uniform ones
            t.random.scale_low = 126 + static_cast<int32_t>(std::lround(std::log2(deviation / codes)));
            t.random.scale_range = 3;
        } else {
            return false;
        }
        return true;
    }

    static void scale_blocks(dsv4_tensor &t, int32_t rows, int32_t columns, int32_t scale_dtype) {
        t.scale_block[0] = rows, t.scale_block[1] = columns;
        t.scale_shape[0] = (t.shape[0] + rows - 1) / rows;
        t.scale_shape[1] = (t.shape[1] + columns - 1) / columns;
        t.scale_dtype = scale_dtype;
    }

    void hold(dsv4_tensor &t, std::vector<uint8_t> bytes) {
        out_.memory.push_back(std::move(bytes)); // moving a vector keeps its storage where it is
        t.data = out_.memory.back().data();
        t.bytes = out_.memory.back().size();
    }

    void plain(dsv4_tensor &t, Random &random, float deviation, float mean) {
        const size_t count = static_cast<size_t>(t.shape[0] * t.shape[1]);
        const size_t width = t.dtype == DSV4_F32 ? 4 : 2;
        std::vector<uint8_t> bytes(count * width);
        uint64_t bits = 0;
        for (size_t i = 0; i < count; ++i) {
            bits = i % 5 ? bits >> 12 : random.next();
            const float value = mean + deviation * tables().gauss[bits & 4095];
            const uint16_t half = t.dtype == DSV4_F16 ? to_f16(value) : to_bf16(value);
            if (t.dtype == DSV4_F32) std::memcpy(&bytes[i * 4], &value, 4);
            else std::memcpy(&bytes[i * 2], &half, 2);
        }
        hold(t, std::move(bytes));
    }

    /// Codes under one scale per block of rows x columns; scales are powers of two that differ from block to block.
    void quantized(dsv4_tensor &t, Random &random, const std::array<uint8_t, 256> &codes, int32_t block_rows,
                   int32_t block_columns, int32_t scale_dtype, float scale) {
        const bool packed = t.dtype == DSV4_FP4_E2M1;
        const size_t count = static_cast<size_t>(t.shape[0] * t.shape[1]);
        std::vector<uint8_t> bytes(packed ? count / 2 : count);
        uint64_t bits = 0;
        for (size_t i = 0; i < bytes.size(); ++i) {
            if (packed) {
                bits = i % 4 ? bits >> 16 : random.next();
                bytes[i] = static_cast<uint8_t>(codes[bits & 255] | codes[(bits >> 8) & 255] << 4);
            } else {
                bits = i % 8 ? bits >> 8 : random.next();
                bytes[i] = codes[bits & 255];
            }
        }
        scale_blocks(t, block_rows, block_columns, scale_dtype);
        const size_t scales = static_cast<size_t>(t.scale_shape[0] * t.scale_shape[1]);
        const int exponent = static_cast<int>(std::lround(std::log2(scale)));
        std::vector<uint8_t> scale_bytes(scales * (scale_dtype == DSV4_F32 ? 4 : 1));
        for (size_t i = 0; i < scales; ++i) {
            const int here = exponent + static_cast<int>(random.next() % 3) - 1;
            if (scale_dtype == DSV4_F32) {
                const float value = std::ldexp(1 + random.uniform(), here) * 0.75f;
                std::memcpy(&scale_bytes[i * 4], &value, 4);
            } else {
                scale_bytes[i] = static_cast<uint8_t>(127 + here);
            }
        }
        hold(t, std::move(bytes));
        out_.memory.push_back(std::move(scale_bytes));
        t.scale = out_.memory.back().data();
        t.scale_bytes = out_.memory.back().size();
    }

    Weights &out_;
    uint64_t seed_;
    bool described_;
};

float fan(int64_t inputs) { return 1 / std::sqrt(static_cast<float>(inputs)); }

// The suite checks operators, not YaRN: any falling frequencies will do, as long as both backends get the same.
std::vector<float> rope(int32_t dims, bool compressed) {
    std::vector<float> frequency(static_cast<size_t>(dims / 2));
    const double theta = compressed ? 160000 : 10000;
    for (size_t j = 0; j < frequency.size(); ++j) {
        const double plain = std::pow(theta, -2.0 * static_cast<double>(j) / dims);
        frequency[j] = static_cast<float>(compressed && j > frequency.size() / 2 ? plain / 16 : plain);
    }
    return frequency;
}

void hc_site(Maker &make, const dsv4_shape &s, int32_t fn_role) {
    const int64_t rows = (2 + s.streams) * s.streams, width = static_cast<int64_t>(s.streams) * s.hidden;
    make.add(fn_role, rows, width, DSV4_F32, fan(width));
    make.add(fn_role + 1, rows, 1, DSV4_F32, 1);
    make.add(fn_role + 2, 3, 1, DSV4_F32, 0.2f, 1);
}

void hc_head(Maker &make, const Case &c) {
    const dsv4_shape &s = c.shape;
    const int64_t width = static_cast<int64_t>(s.streams) * s.hidden;
    make.add(DSV4_ROLE_HC_HEAD_FN, s.streams, width, DSV4_F32, fan(width));
    make.add(DSV4_ROLE_HC_HEAD_BASE, s.streams, 1, DSV4_F32, 1);
    make.add(DSV4_ROLE_HC_HEAD_SCALE, 1, 1, DSV4_F32, 0.2f, 1);
    make.add(DSV4_ROLE_NORM, s.hidden, 1, c.formats.plain, 0.2f, 1);
}

void layer(Maker &make, const Case &c, int32_t ratio, bool hash_routing) {
    const dsv4_shape &s = c.shape;
    const Formats &f = c.formats;
    const int64_t D = s.hidden, d = s.head_dim, I = s.expert_inter;
    const auto dense = [&](int32_t role, int64_t rows, int64_t columns, float gain = 1) {
        make.add(role, rows, columns, f.dense, gain * fan(columns), 0, -1, f.dense_scale);
    };
    const auto plain = [&](int32_t role, int64_t rows, int64_t columns) {
        make.add(role, rows, columns, f.plain, fan(columns));
    };
    const auto norm = [&](int32_t role, int64_t width) { make.add(role, width, 1, f.plain, 0.2f, 1); };

    hc_site(make, s, DSV4_ROLE_HC_ATTN_FN);
    hc_site(make, s, DSV4_ROLE_HC_FFN_FN);
    norm(DSV4_ROLE_ATTN_NORM, D);
    norm(DSV4_ROLE_FFN_NORM, D);
    dense(DSV4_ROLE_WQ_A, s.q_lora, D);
    norm(DSV4_ROLE_Q_NORM, s.q_lora);
    dense(DSV4_ROLE_WQ_B, s.heads * d, s.q_lora);
    dense(DSV4_ROLE_WKV, d, D);
    norm(DSV4_ROLE_KV_NORM, d);
    make.add(DSV4_ROLE_ATTN_SINK, s.heads, 1, DSV4_F32, 1, 1);
    dense(DSV4_ROLE_WO_A, static_cast<int64_t>(s.o_groups) * s.o_lora, s.heads * d / s.o_groups);
    dense(DSV4_ROLE_WO_B, D, static_cast<int64_t>(s.o_groups) * s.o_lora);
    if (ratio > 0) {
        const int64_t halves = ratio == 4 ? 2 : 1;
        plain(DSV4_ROLE_COMP_WKV, halves * d, D);
        plain(DSV4_ROLE_COMP_WGATE, halves * d, D);
        make.add(DSV4_ROLE_COMP_APE, ratio, halves * d, DSV4_F32, 1);
        norm(DSV4_ROLE_COMP_NORM, d);
    }
    if (ratio == 4) {
        const int64_t Hi = s.index_heads, di = s.index_dim;
        dense(DSV4_ROLE_INDEX_WQ_B, Hi * di, s.q_lora);
        plain(DSV4_ROLE_INDEX_WEIGHTS, Hi, D);
        plain(DSV4_ROLE_INDEX_COMP_WKV, 2 * di, D);
        plain(DSV4_ROLE_INDEX_COMP_WGATE, 2 * di, D);
        make.add(DSV4_ROLE_INDEX_COMP_APE, 4, 2 * di, DSV4_F32, 1);
        norm(DSV4_ROLE_INDEX_COMP_NORM, di);
    }
    plain(DSV4_ROLE_GATE, s.experts, D);
    if (hash_routing) make.add_token_table(s.vocab, s.active_experts, s.experts);
    else make.add(DSV4_ROLE_GATE_BIAS, s.experts, 1, DSV4_F32, 0.3f);
    // Gate and up of standard deviation 4, so that a clamp at 10 is hit by one value in eighty.
    for (int32_t e = 0; e < s.experts; ++e) {
        make.add(DSV4_ROLE_EXPERT_W1, I, D, f.experts, 4 * fan(D), 0, e, f.dense_scale);
        make.add(DSV4_ROLE_EXPERT_W2, D, I, f.experts, fan(I) / 4, 0, e, f.dense_scale);
        make.add(DSV4_ROLE_EXPERT_W3, I, D, f.experts, 4 * fan(D), 0, e, f.dense_scale);
    }
    dense(DSV4_ROLE_SHARED_W1, c.shared_inter, D, 4);
    dense(DSV4_ROLE_SHARED_W2, D, c.shared_inter, 0.25f);
    dense(DSV4_ROLE_SHARED_W3, c.shared_inter, D, 4);
}

} // namespace

float Random::gaussian() { // the sum of four uniform numbers, at unit variance
    const uint64_t bits = next();
    const int32_t sum =
        static_cast<int32_t>((bits & 0xffff) + ((bits >> 16) & 0xffff) + ((bits >> 32) & 0xffff) + (bits >> 48));
    return static_cast<float>(sum - 131070) * (1.7320508f / 65536);
}

float round_to_bf16(float value) { return std::bit_cast<float>(static_cast<uint32_t>(to_bf16(value)) << 16); }

const dsv4_tensor *Weights::find(int32_t role, int32_t expert) const {
    for (const dsv4_tensor &t : tensors)
        if (t.role == role && t.expert == expert) return &t;
    return nullptr;
}

dsv4_block_desc Weights::desc() const {
    dsv4_block_desc d;
    DSV4_INIT(d);
    d.kind = kind, d.index = index, d.compress_ratio = ratio;
    d.tensors = tensors.data();
    d.tensor_count = static_cast<uint32_t>(tensors.size());
    d.tensor_stride = sizeof(dsv4_tensor);
    d.rope_frequency = rope.data();
    d.expert_tier = DSV4_TIER_DEVICE;
    return d;
}

Weights make_ends(const Case &c, uint64_t seed, bool described) {
    Weights w;
    w.kind = DSV4_BLOCK_ENDS;
    w.rope = rope(c.shape.rope_dims, false);
    Maker make(w, seed, described);
    make.add(DSV4_ROLE_EMBED, c.shape.vocab, c.shape.hidden, c.formats.plain, 1);
    make.add(DSV4_ROLE_HEAD, c.shape.vocab, c.shape.hidden, c.formats.plain, fan(c.shape.hidden));
    hc_head(make, c);
    return w;
}

Weights make_layer(const Case &c, int32_t ratio, bool hash_routing, uint64_t seed, bool described) {
    Weights w;
    w.kind = DSV4_BLOCK_LAYER;
    w.ratio = ratio;
    w.index = hash_routing ? 0 : 3;
    w.rope = rope(c.shape.rope_dims, ratio > 0);
    Maker make(w, seed, described);
    layer(make, c, ratio, hash_routing);
    return w;
}

Weights make_mtp(const Case &c, uint64_t seed) {
    Weights w;
    w.kind = DSV4_BLOCK_MTP;
    w.rope = rope(c.shape.rope_dims, false);
    Maker make(w, seed);
    layer(make, c, 0, false);
    hc_head(make, c);
    const int64_t D = c.shape.hidden;
    make.add(DSV4_ROLE_E_PROJ, D, D, c.formats.dense, fan(D), 0, -1, c.formats.dense_scale);
    make.add(DSV4_ROLE_H_PROJ, D, D, c.formats.dense, fan(D), 0, -1, c.formats.dense_scale);
    make.add(DSV4_ROLE_E_NORM, D, 1, c.formats.plain, 0.2f, 1);
    make.add(DSV4_ROLE_H_NORM, D, 1, c.formats.plain, 0.2f, 1);
    return w;
}

void dequantize_row(const dsv4_tensor &t, int64_t row, float *out) {
    const int64_t columns = t.rank == 1 ? t.shape[0] : t.shape[1];
    const auto *bytes = static_cast<const uint8_t *>(t.data);
    for (int64_t i = 0; i < columns; ++i) {
        const auto at = static_cast<size_t>(row * columns + i);
        uint16_t half = 0;
        if (t.dtype == DSV4_BF16 || t.dtype == DSV4_F16) std::memcpy(&half, bytes + at * 2, 2);
        switch (t.dtype) {
        case DSV4_F32: std::memcpy(&out[i], bytes + at * 4, 4); break;
        case DSV4_BF16: out[i] = std::bit_cast<float>(static_cast<uint32_t>(half) << 16); break;
        case DSV4_F16: out[i] = decode_f16(half); break;
        case DSV4_FP8_E4M3: out[i] = decode_e4m3(bytes[at]); break;
        default: {
            const int code = (bytes[at / 2] >> (at % 2 * 4)) & 15;
            out[i] = code & 8 ? -e2m1[code & 7] : e2m1[code];
        }
        }
        if (!t.scale_dtype) continue;
        const auto scale_at = static_cast<size_t>(row / t.scale_block[0] * t.scale_shape[1] + i / t.scale_block[1]);
        float scale = 0;
        if (t.scale_dtype == DSV4_F32) std::memcpy(&scale, static_cast<const uint8_t *>(t.scale) + scale_at * 4, 4);
        else scale = std::ldexp(1.f, static_cast<const uint8_t *>(t.scale)[scale_at] - 127);
        out[i] *= scale;
    }
}

} // namespace dsv4::conformance
