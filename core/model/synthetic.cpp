#include "core/model/synthetic.hpp"
#include <charconv>
#include <cmath>
#include <cstring>
#include <fstream>
#include <sstream>
#include <sys/mman.h>
#include "core/error.hpp"
#include "core/model/config_value.hpp"
#include "core/model/host_memory.hpp"
#include "core/model/rope.hpp"

namespace dsv4 {
namespace {

/// The published sizes (technical report, arXiv 2606.19348, and the released config.json).
std::string published(bool pro) {
    std::string ratios = pro ? "128, 128" : "0, 0";
    for (int i = 0; i < (pro ? 29 : 20); ++i) ratios += ", 4, 128";
    const auto pick = [pro](const char *of_pro, const char *of_flash) { return std::string(pro ? of_pro : of_flash); };
    return R"({"model_type": "deepseek_v4", "vocab_size": 129280, "hidden_size": )" + pick("7168", "4096") +
           R"(, "num_hidden_layers": )" + pick("61", "43") + R"(, "compress_ratios": [)" + ratios + R"(, 4, 0],
        "num_hash_layers": 3, "num_attention_heads": )" + pick("128", "64") + R"(, "num_key_value_heads": 1,
        "head_dim": 512, "qk_rope_head_dim": 64, "q_lora_rank": )" + pick("1536", "1024") + R"(,
        "o_groups": )" + pick("16", "8") + R"(, "o_lora_rank": 1024, "sliding_window": 128, "index_n_heads": 64,
        "index_head_dim": 128, "index_topk": )" + pick("1024", "512") + R"(,
        "n_routed_experts": )" + pick("384", "256") + R"(, "n_shared_experts": 1, "num_experts_per_tok": 6,
        "moe_intermediate_size": )" + pick("3072", "2048") + R"(, "routed_scaling_factor": )" + pick("2.5", "1.5") + R"(,
        "scoring_func": "sqrtsoftplus", "norm_topk_prob": true, "swiglu_limit": 10.0, "hc_mult": 4, "hc_eps": 1e-6,
        "hc_sinkhorn_iters": 20, "rms_norm_eps": 1e-6, "max_position_embeddings": 1048576, "rope_theta": 10000,
        "compress_rope_theta": 160000, "bos_token_id": 0, "eos_token_id": 1, "expert_dtype": "fp4",
        "tie_word_embeddings": false, "rope_scaling": {"type": "yarn", "factor": 16, "beta_fast": 32, "beta_slow": 1,
        "original_max_position_embeddings": 65536}, "quantization_config": {"quant_method": "fp8", "fmt": "e4m3",
        "scale_fmt": "ue8m0", "weight_block_size": [128, 128], "activation_scheme": "dynamic"}})";
}

struct Spec {
    std::string config;  // JSON
    std::string name;
};

Spec read_spec(const std::string &spec) {
    std::string name = spec;
    int layers = 0;
    if (const size_t at = spec.rfind(":layers="); at != std::string::npos) {
        const char *begin = spec.data() + at + 8, *end = spec.data() + spec.size();
        if (const auto [p, e] = std::from_chars(begin, end, layers); e != std::errc() || p != end || layers < 1)
            throw Error(DSV4_E_INVALID, "synthetic:" + spec + ": expected :layers=N with N of 1 or more");
        name = spec.substr(0, at);
    }
    std::string config;
    if (name == "flash" || name == "pro") {
        config = published(name == "pro");
    } else {
        std::ifstream file(name);
        std::stringstream text;
        text << file.rdbuf();
        if (!file) throw Error(DSV4_E_MODEL, "synthetic:" + name + ": expected flash, pro or a config.json that can be read", errno);
        config = text.str();
    }
    const ConfigValue read = ConfigValue::parse(config, name);
    if (!read.is_object()) throw Error(DSV4_E_MODEL, name + ": expected a JSON object");
    // Of members of one name the last counts.
    config.resize(config.rfind('}'));
    if (layers) {
        const ConfigValue *have = read.find("num_hidden_layers");
        if (have && have->is_unsigned() && uint64_t(layers) > have->unsigned_integer())
            throw Error(DSV4_E_INVALID, "synthetic:" + spec + ": the model has " + have->shown() + " layers");
        config += ", \"num_hidden_layers\": " + std::to_string(layers);
        const ConfigValue *hash = read.find("num_hash_layers");
        if (hash && hash->is_unsigned() && hash->unsigned_integer() > uint64_t(layers))
            config += ", \"num_hash_layers\": " + std::to_string(layers);
    }
    config += ", \"num_nextn_predict_layers\": 0}";
    return {config, name};
}

class Maker {
  public:
    explicit Maker(const Config &config) : c_(config), s_(config.shape) {}

    SyntheticModel make();

  private:
    struct Region {
        void *data;
        size_t bytes;
        ~Region() { munmap(data, bytes); }
    };
    struct Memory {
        std::vector<std::unique_ptr<Region>> regions;
    };

    uint64_t random() {  // xorshift64* (Vigna 2016)
        state_ ^= state_ >> 12;
        state_ ^= state_ << 25;
        state_ ^= state_ >> 27;
        return state_ * 0x2545F4914F6CDD1Dull;
    }
    float spread() {  // near normal, standard deviation 1
        const uint64_t r = random();
        return (float(r & 0xFFFF) + float(r >> 16 & 0xFFFF) + float(r >> 32 & 0xFFFF) - 98302.5f) * (2.0f / 65535.0f);
    }
    unsigned char *allocate(uint64_t bytes);
    dsv4_tensor &add(BlockWeights &b, int32_t role, int32_t dtype, int64_t rows, int64_t columns, uint64_t bytes);
    void vector(BlockWeights &b, int32_t role, int32_t dtype, int64_t n, float mean, float deviation);
    void plain(BlockWeights &b, int32_t role, int32_t dtype, int64_t rows, int64_t columns, float deviation);
    void fp8(BlockWeights &b, int32_t role, int64_t rows, int64_t columns);
    void fp4(BlockWeights &b, int32_t role, int32_t expert, int64_t rows, int64_t columns);
    void store(unsigned char *at, int32_t dtype, int64_t n, float mean, float deviation);
    void hc(BlockWeights &b, int32_t fn_role, int64_t rows);
    void compressor(BlockWeights &b, int32_t first_role, int32_t ratio, int64_t dim);
    BlockWeights layer(int32_t index);
    BlockWeights ends();

    const Config &c_;
    const dsv4_shape &s_;
    bool measuring_ = false;  // count the bytes of everything, make nothing
    uint64_t measured_ = 0;
    uint64_t state_ = 0x9E3779B97F4A7C15ull;
    std::shared_ptr<Memory> memory_ = std::make_shared<Memory>();
};

unsigned char *Maker::allocate(uint64_t bytes) {
    if (measuring_) {
        measured_ += bytes;
        return nullptr;
    }
    void *p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) throw std::bad_alloc();
    memory_->regions.push_back(std::unique_ptr<Region>(new Region{p, bytes}));
    return static_cast<unsigned char *>(p);
}

dsv4_tensor &Maker::add(BlockWeights &b, int32_t role, int32_t dtype, int64_t rows, int64_t columns, uint64_t bytes) {
    dsv4_tensor t{};
    t.role = role;
    t.expert = -1;
    t.dtype = dtype;
    t.rank = 2;
    t.shape[0] = rows;
    t.shape[1] = columns;
    t.bytes = bytes;
    t.data = allocate(bytes);
    b.tensors.push_back(t);
    return b.tensors.back();
}

void Maker::store(unsigned char *at, int32_t dtype, int64_t n, float mean, float deviation) {
    if (measuring_) return;
    for (int64_t i = 0; i < n; ++i) {
        const float v = mean + deviation * spread();
        uint32_t bits;
        std::memcpy(&bits, &v, 4);
        if (dtype == DSV4_F32) {
            std::memcpy(at + 4 * i, &bits, 4);
        } else {
            const auto half = uint16_t((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
            std::memcpy(at + 2 * i, &half, 2);
        }
    }
}

void Maker::plain(BlockWeights &b, int32_t role, int32_t dtype, int64_t rows, int64_t columns, float deviation) {
    const int64_t n = rows * columns;
    const dsv4_tensor &t = add(b, role, dtype, rows, columns, uint64_t(n) * (dtype == DSV4_F32 ? 4 : 2));
    store(static_cast<unsigned char *>(const_cast<void *>(t.data)), dtype, n, 0, deviation);
}

void Maker::vector(BlockWeights &b, int32_t role, int32_t dtype, int64_t n, float mean, float deviation) {
    dsv4_tensor &t = add(b, role, dtype, n, 1, uint64_t(n) * (dtype == DSV4_F32 ? 4 : 2));
    t.rank = 1;
    store(static_cast<unsigned char *>(const_cast<void *>(t.data)), dtype, n, mean, deviation);
}

/// Uniform codes without NaN have a root mean square of about 122; the scale brings that to 1 / sqrt(columns).
void Maker::fp8(BlockWeights &b, int32_t role, int64_t rows, int64_t columns) {
    const auto bytes = uint64_t(rows) * uint64_t(columns);
    dsv4_tensor &t = add(b, role, DSV4_FP8_E4M3, rows, columns, bytes);
    auto *at = static_cast<unsigned char *>(const_cast<void *>(t.data));
    for (uint64_t i = 0; i < bytes && !measuring_; i += 8) {
        uint64_t w = random();
        const uint64_t nan = ((w & 0x7F7F7F7F7F7F7F7Full) + 0x0101010101010101ull) & 0x8080808080808080ull;
        w -= nan >> 7;  // 0x7F -> 0x7E, 0xFF -> 0xFE
        std::memcpy(at + i, &w, std::min<uint64_t>(8, bytes - i));
    }
    t.scale_dtype = DSV4_E8M0;
    t.scale_block[0] = t.scale_block[1] = 128;
    t.scale_shape[0] = (rows + 127) / 128;
    t.scale_shape[1] = (columns + 127) / 128;
    t.scale_bytes = uint64_t(t.scale_shape[0]) * uint64_t(t.scale_shape[1]);
    unsigned char *scale = allocate(t.scale_bytes);
    if (!measuring_) std::memset(scale, int(std::lround(std::log2(std::pow(double(columns), -0.5) / 122.0))) + 127, t.scale_bytes);
    t.scale = scale;
}

/// Uniform codes have a root mean square of 2.93.
void Maker::fp4(BlockWeights &b, int32_t role, int32_t expert, int64_t rows, int64_t columns) {
    const auto bytes = uint64_t(rows) * uint64_t(columns) / 2;
    dsv4_tensor &t = add(b, role, DSV4_FP4_E2M1, rows, columns, bytes);
    t.expert = expert;
    auto *at = static_cast<unsigned char *>(const_cast<void *>(t.data));
    for (uint64_t i = 0; i < bytes && !measuring_; i += 8) {
        const uint64_t w = random();
        std::memcpy(at + i, &w, std::min<uint64_t>(8, bytes - i));
    }
    t.scale_dtype = DSV4_E8M0;
    t.scale_block[0] = 1;
    t.scale_block[1] = 32;
    t.scale_shape[0] = rows;
    t.scale_shape[1] = columns / 32;
    t.scale_bytes = uint64_t(rows) * uint64_t(columns) / 32;
    unsigned char *scale = allocate(t.scale_bytes);
    const int middle = int(std::lround(std::log2(std::pow(double(columns), -0.5) / 2.93))) + 127;
    for (uint64_t i = 0; i < t.scale_bytes && !measuring_; ++i) scale[i] = uint8_t(middle + int(random() >> 63));
    t.scale = scale;
}

void Maker::hc(BlockWeights &b, int32_t fn_role, int64_t rows) {
    const int64_t width = int64_t(s_.streams) * s_.hidden;
    plain(b, fn_role, DSV4_F32, rows, width, std::pow(float(width), -0.5f));
    vector(b, fn_role + 1, DSV4_F32, rows, 0, 0.7f);
    vector(b, fn_role + 2, DSV4_F32, rows == s_.streams ? 1 : 3, 1, 0.2f);
}

void Maker::compressor(BlockWeights &b, int32_t first_role, int32_t ratio, int64_t dim) {
    const int64_t channels = (ratio == 4 ? 2 : 1) * dim;
    const float d = std::pow(float(s_.hidden), -0.5f);
    plain(b, first_role, DSV4_BF16, channels, s_.hidden, d);
    plain(b, first_role + 1, DSV4_BF16, channels, s_.hidden, 1.5f * d);
    plain(b, first_role + 2, DSV4_F32, ratio, channels, 0.5f);
    vector(b, first_role + 3, DSV4_BF16, dim, 1, 0.2f);
}

BlockWeights Maker::layer(int32_t index) {
    BlockWeights b;
    b.kind = DSV4_BLOCK_LAYER;
    b.index = index;
    b.compress_ratio = c_.compress_ratios[size_t(index)];
    b.rope_frequency = rope_frequencies(c_, b.compress_ratio);
    const int64_t D = s_.hidden, H = s_.heads, d = s_.head_dim, I = s_.expert_inter, E = s_.experts;
    const float unit = std::pow(float(D), -0.5f);
    vector(b, DSV4_ROLE_ATTN_SINK, DSV4_F32, H, 0, 1);
    fp8(b, DSV4_ROLE_WQ_A, s_.q_lora, D);
    vector(b, DSV4_ROLE_Q_NORM, DSV4_BF16, s_.q_lora, 1, 0.2f);
    fp8(b, DSV4_ROLE_WQ_B, H * d, s_.q_lora);
    fp8(b, DSV4_ROLE_WKV, d, D);
    vector(b, DSV4_ROLE_KV_NORM, DSV4_BF16, d, 1, 0.2f);
    fp8(b, DSV4_ROLE_WO_A, int64_t(s_.o_groups) * s_.o_lora, H * d / s_.o_groups);
    fp8(b, DSV4_ROLE_WO_B, D, int64_t(s_.o_groups) * s_.o_lora);
    if (b.compress_ratio) compressor(b, DSV4_ROLE_COMP_WKV, b.compress_ratio, d);
    if (b.compress_ratio == 4) {
        fp8(b, DSV4_ROLE_INDEX_WQ_B, int64_t(s_.index_heads) * s_.index_dim, s_.q_lora);
        plain(b, DSV4_ROLE_INDEX_WEIGHTS, DSV4_BF16, s_.index_heads, D, unit);
        compressor(b, DSV4_ROLE_INDEX_COMP_WKV, 4, s_.index_dim);
    }
    plain(b, DSV4_ROLE_GATE, DSV4_BF16, E, D, 2 * unit);
    if (index < c_.hash_layers) {
        const int64_t k = s_.active_experts, n = int64_t(s_.vocab) * k;
        const dsv4_tensor &t = add(b, DSV4_ROLE_GATE_TID2EID, DSV4_I64, s_.vocab, k, uint64_t(n) * 8);
        auto *table = static_cast<int64_t *>(const_cast<void *>(t.data));
        for (int64_t v = 0; v < s_.vocab && !measuring_; ++v) {  // k different experts: a random first one and a stride
            const auto first = int64_t(random() % uint64_t(E));
            for (int64_t i = 0; i < k; ++i) table[v * k + i] = (first + i * std::max<int64_t>(1, E / k)) % E;
        }
    } else {
        vector(b, DSV4_ROLE_GATE_BIAS, DSV4_F32, E, 0, 0.2f);
    }
    for (int32_t e = 0; e < E; ++e) {
        fp4(b, DSV4_ROLE_EXPERT_W1, e, I, D);
        fp4(b, DSV4_ROLE_EXPERT_W2, e, D, I);
        fp4(b, DSV4_ROLE_EXPERT_W3, e, I, D);
    }
    fp8(b, DSV4_ROLE_SHARED_W1, I, D);
    fp8(b, DSV4_ROLE_SHARED_W2, D, I);
    fp8(b, DSV4_ROLE_SHARED_W3, I, D);
    vector(b, DSV4_ROLE_ATTN_NORM, DSV4_BF16, D, 1, 0.2f);
    vector(b, DSV4_ROLE_FFN_NORM, DSV4_BF16, D, 1, 0.2f);
    hc(b, DSV4_ROLE_HC_ATTN_FN, int64_t(2 + s_.streams) * s_.streams);
    hc(b, DSV4_ROLE_HC_FFN_FN, int64_t(2 + s_.streams) * s_.streams);
    return b;
}

BlockWeights Maker::ends() {
    BlockWeights b;
    b.kind = DSV4_BLOCK_ENDS;
    plain(b, DSV4_ROLE_EMBED, DSV4_BF16, s_.vocab, s_.hidden, 1);
    plain(b, DSV4_ROLE_HEAD, DSV4_BF16, s_.vocab, s_.hidden, 3 * std::pow(float(s_.hidden), -0.5f));
    vector(b, DSV4_ROLE_NORM, DSV4_BF16, s_.hidden, 1, 0.2f);
    hc(b, DSV4_ROLE_HC_HEAD_FN, s_.streams);
    return b;
}

SyntheticModel Maker::make() {
    measuring_ = true;
    ends();
    for (int32_t l = 0; l < s_.layers; ++l) layer(l);
    measuring_ = false;
    // Pages are written as they are made: what is not there would be found out by the whole process.
    const HostMemory host = host_memory();
    if (host.available && measured_ > host.available - host.available / 16)
        throw Error(DSV4_E_NO_MEMORY, "a synthetic model of " + std::to_string(measured_) + " bytes: " +
                                          std::to_string(host.available) + " are available; try fewer layers (:layers=N)");
    SyntheticModel m;
    m.config = c_;
    m.weights.ends = ends();
    for (int32_t l = 0; l < s_.layers; ++l) m.weights.layers.push_back(layer(l));
    m.memory = memory_;
    return m;
}

}  // namespace

SyntheticModel make_synthetic(const std::string &spec) {
    const Spec s = read_spec(spec);
    const Config config = parse_config(s.config, s.name);
    return Maker(config).make();
}

}  // namespace dsv4
