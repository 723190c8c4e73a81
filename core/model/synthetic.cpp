#include "core/model/synthetic.hpp"
#include <charconv>
#include <cmath>
#include <fstream>
#include <sstream>
#include <sys/mman.h>
#include "core/error.hpp"
#include "core/model/config_value.hpp"
#include "core/model/host_memory.hpp"
#include "core/model/random_bytes.hpp"
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

/// Describes the weights; nothing is made.
class Describer {
  public:
    explicit Describer(const Config &config) : c_(config), s_(config.shape) {}

    BlockWeights layer(int32_t index);
    BlockWeights ends();

  private:
    dsv4_tensor &add(BlockWeights &b, int32_t role, int32_t expert, int32_t dtype, int64_t rows, int64_t columns);
    void vector(BlockWeights &b, int32_t role, int32_t dtype, int64_t n, float mean, float deviation);
    void plain(BlockWeights &b, int32_t role, int32_t dtype, int64_t rows, int64_t columns, float deviation);
    void fp8(BlockWeights &b, int32_t role, int64_t rows, int64_t columns);
    void fp4(BlockWeights &b, int32_t role, int32_t expert, int64_t rows, int64_t columns);
    void hc(BlockWeights &b, int32_t fn_role, int64_t rows);
    void compressor(BlockWeights &b, int32_t first_role, int32_t ratio, int64_t dim);

    const Config &c_;
    const dsv4_shape &s_;
};

uint64_t bytes_of(int32_t dtype, int64_t elements) {
    const auto n = uint64_t(elements);
    switch (dtype) {
    case DSV4_F32: return 4 * n;
    case DSV4_BF16: return 2 * n;
    case DSV4_I64: return 8 * n;
    case DSV4_FP4_E2M1: return n / 2;
    default: return n;
    }
}

/// Of a weight's block, role and expert alone: a model of fewer layers has the same ones.
dsv4_tensor &Describer::add(BlockWeights &b, int32_t role, int32_t expert, int32_t dtype, int64_t rows,
                            int64_t columns) {
    dsv4_tensor t{};
    t.role = role;
    t.expert = expert;
    t.dtype = dtype;
    t.rank = 2;
    t.shape[0] = rows;
    t.shape[1] = columns;
    t.bytes = bytes_of(dtype, rows * columns);
    const uint64_t of_block = random_word(uint64_t(b.kind), uint64_t(b.index));
    t.random.seed = random_word(of_block, uint64_t(role) << 32 | uint64_t(expert + 1));
    b.tensors.push_back(t);
    return b.tensors.back();
}

void Describer::plain(BlockWeights &b, int32_t role, int32_t dtype, int64_t rows, int64_t columns, float deviation) {
    dsv4_tensor &t = add(b, role, -1, dtype, rows, columns);
    t.random.kind = DSV4_RANDOM_NORMAL;
    t.random.deviation = deviation;
}

void Describer::vector(BlockWeights &b, int32_t role, int32_t dtype, int64_t n, float mean, float deviation) {
    plain(b, role, dtype, n, 1, deviation);
    b.tensors.back().rank = 1;
    b.tensors.back().random.mean = mean;
}

/// The exponent byte that brings codes of this root mean square to 1 / sqrt(columns).
int32_t scale_code(int64_t columns, double codes) {
    return int32_t(std::lround(std::log2(std::pow(double(columns), -0.5) / codes))) + 127;
}

/// Uniform codes without NaN have a root mean square of 107.
void Describer::fp8(BlockWeights &b, int32_t role, int64_t rows, int64_t columns) {
    dsv4_tensor &t = add(b, role, -1, DSV4_FP8_E4M3, rows, columns);
    t.random.kind = DSV4_RANDOM_CODES;
    t.scale_dtype = DSV4_E8M0;
    t.scale_block[0] = t.scale_block[1] = 128;
    t.scale_shape[0] = (rows + 127) / 128;
    t.scale_shape[1] = (columns + 127) / 128;
    t.scale_bytes = uint64_t(t.scale_shape[0]) * uint64_t(t.scale_shape[1]);
    t.random.scale_low = scale_code(columns, 107);
    t.random.scale_range = 1;
}

/// Uniform codes have a root mean square of 2.93.
void Describer::fp4(BlockWeights &b, int32_t role, int32_t expert, int64_t rows, int64_t columns) {
    dsv4_tensor &t = add(b, role, expert, DSV4_FP4_E2M1, rows, columns);
    t.random.kind = DSV4_RANDOM_CODES;
    t.scale_dtype = DSV4_E8M0;
    t.scale_block[0] = 1;
    t.scale_block[1] = 32;
    t.scale_shape[0] = rows;
    t.scale_shape[1] = columns / 32;
    t.scale_bytes = uint64_t(rows) * uint64_t(columns) / 32;
    t.random.scale_low = scale_code(columns, 2.93);
    t.random.scale_range = 2;
}

void Describer::hc(BlockWeights &b, int32_t fn_role, int64_t rows) {
    const int64_t width = int64_t(s_.streams) * s_.hidden;
    plain(b, fn_role, DSV4_F32, rows, width, std::pow(float(width), -0.5f));
    vector(b, fn_role + 1, DSV4_F32, rows, 0, 0.7f);
    vector(b, fn_role + 2, DSV4_F32, rows == s_.streams ? 1 : 3, 1, 0.2f);
}

void Describer::compressor(BlockWeights &b, int32_t first_role, int32_t ratio, int64_t dim) {
    const int64_t channels = (ratio == 4 ? 2 : 1) * dim;
    const float d = std::pow(float(s_.hidden), -0.5f);
    plain(b, first_role, DSV4_BF16, channels, s_.hidden, d);
    plain(b, first_role + 1, DSV4_BF16, channels, s_.hidden, 1.5f * d);
    plain(b, first_role + 2, DSV4_F32, ratio, channels, 0.5f);
    vector(b, first_role + 3, DSV4_BF16, dim, 1, 0.2f);
}

BlockWeights Describer::layer(int32_t index) {
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
        dsv4_tensor &t = add(b, DSV4_ROLE_GATE_TID2EID, -1, DSV4_I64, s_.vocab, s_.active_experts);
        t.random.kind = DSV4_RANDOM_ROWS;
        t.random.range = s_.experts;
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

BlockWeights Describer::ends() {
    BlockWeights b;
    b.kind = DSV4_BLOCK_ENDS;
    plain(b, DSV4_ROLE_EMBED, DSV4_BF16, s_.vocab, s_.hidden, 1);
    plain(b, DSV4_ROLE_HEAD, DSV4_BF16, s_.vocab, s_.hidden, 3 * std::pow(float(s_.hidden), -0.5f));
    vector(b, DSV4_ROLE_NORM, DSV4_BF16, s_.hidden, 1, 0.2f);
    hc(b, DSV4_ROLE_HC_HEAD_FN, s_.streams);
    return b;
}

struct Region {
    explicit Region(uint64_t bytes) : size(bytes) {
        data = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (data == MAP_FAILED) throw std::bad_alloc();
    }
    ~Region() { munmap(data, size); }
    Region(const Region &) = delete;
    Region &operator=(const Region &) = delete;
    void *data;
    size_t size;
};
using Regions = std::vector<std::unique_ptr<Region>>;

template <class Visit> void each_block(ModelWeights &weights, Visit &&visit) {
    visit(weights.ends);
    for (BlockWeights &b : weights.layers) visit(b);
}

/// Pages are written as they are made: what is not there would be found out by the whole process.
void expect_host_memory(uint64_t bytes) {
    const HostMemory host = host_memory();
    if (host.available && bytes > host.available - host.available / 16)
        throw Error(DSV4_E_NO_MEMORY, "a synthetic model of " + std::to_string(bytes) + " bytes: " +
                                          std::to_string(host.available) +
                                          " are available; try fewer layers (:layers=N)");
}

}  // namespace

SyntheticModel describe_synthetic(const std::string &spec) {
    const Spec s = read_spec(spec);
    SyntheticModel m;
    m.config = parse_config(s.config, s.name);
    Describer describe(m.config);
    m.weights.ends = describe.ends();
    for (int32_t l = 0; l < m.config.shape.layers; ++l) m.weights.layers.push_back(describe.layer(l));
    m.memory = std::make_shared<Regions>();
    return m;
}

void make_on_host(SyntheticModel &m) {
    uint64_t all = 0;
    each_block(m.weights, [&](const BlockWeights &b) {
        for (const dsv4_tensor &t : b.tensors) all += t.bytes + t.scale_bytes;
    });
    expect_host_memory(all);
    const auto regions = std::make_shared<Regions>();
    const auto allocate = [&](uint64_t bytes) {
        regions->push_back(std::make_unique<Region>(bytes));
        return regions->back()->data;
    };
    each_block(m.weights, [&](BlockWeights &b) {
        for (dsv4_tensor &t : b.tensors) {
            void *data = allocate(t.bytes), *scale = t.scale_dtype ? allocate(t.scale_bytes) : nullptr;
            make_random_bytes(t, data, scale);
            t.data = data;
            t.scale = scale;
            t.random = {};
        }
    });
    m.memory = regions;
}

void provide_weights(SyntheticModel &m, const Device &device, int32_t expert_tier) {
    if (!(device.info().capabilities & DSV4_CAP_RANDOM_WEIGHTS)) return make_on_host(m);
    uint64_t on_device = 0, on_host = 0;
    each_block(m.weights, [&](const BlockWeights &b) {
        const dsv4_block_desc desc = b.desc(expert_tier);
        uint64_t device_bytes = 0, host_bytes = 0;
        call(device.model->block_bytes, device.handle(), static_cast<const dsv4_shape *>(&m.config.shape), &desc,
             &device_bytes, &host_bytes);
        on_device += device_bytes;
        on_host += host_bytes;
    });
    expect_host_memory(on_host);
    if (on_device > device.info().memory_free)
        throw Error(DSV4_E_NO_MEMORY, "a synthetic model of " + std::to_string(on_device) + " bytes on the device: " +
                                          std::to_string(device.info().memory_free) +
                                          " are free; try fewer layers (:layers=N)");
}

SyntheticModel make_synthetic(const std::string &spec) {
    SyntheticModel m = describe_synthetic(spec);
    make_on_host(m);
    return m;
}

}  // namespace dsv4
