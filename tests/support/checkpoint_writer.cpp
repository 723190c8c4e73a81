#include "tests/support/checkpoint_writer.hpp"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <stdexcept>

namespace dsv4::test {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

namespace {

int64_t up(int64_t n, int64_t d) { return (n + d - 1) / d; }

/// Appends what the published checkpoints hold for a config.
class Maker {
  public:
    explicit Maker(TestModel &model) : c_(model.config), out_(model.tensors) {}

    void make() {
        const int64_t V = c("vocab_size"), D = c("hidden_size"), L = c("num_hidden_layers");
        add("embed.weight", "BF16", {V, D});
        for (int64_t l = 0; l < L; ++l)
            block("layers." + std::to_string(l) + ".", l, ratio(l), l < c("num_hash_layers"));
        add("norm.weight", "BF16", {D});
        add("head.weight", "BF16", {V, D});
        head("");
        for (int64_t m = 0; m < c("num_nextn_predict_layers"); ++m) {
            const std::string p = "mtp." + std::to_string(m) + ".";
            block(p, L + m, ratio(L + m), false);
            matrix(p + "e_proj", D, D);
            matrix(p + "h_proj", D, D);
            for (const char *n : {"enorm", "hnorm", "norm"}) add(p + n + ".weight", "BF16", {D});
            head(p);
        }
    }

  private:
    int64_t c(const char *key) const { return c_.at(key).get<int64_t>(); }
    int64_t ratio(int64_t l) const { return c_.at("compress_ratios").at(static_cast<size_t>(l)).get<int64_t>(); }

    void add(std::string name, std::string dtype, std::vector<int64_t> shape) {
        out_.push_back({std::move(name), std::move(dtype), std::move(shape), {}});
    }
    void matrix(const std::string &name, int64_t out, int64_t in) {
        if (!c_.contains("quantization_config")) return add(name + ".weight", "BF16", {out, in});
        const Json &block = c_.at("quantization_config").at("weight_block_size");
        add(name + ".weight", "F8_E4M3", {out, in});
        add(name + ".scale", "F8_E8M0", {up(out, block[0].get<int64_t>()), up(in, block[1].get<int64_t>())});
    }
    void expert(const std::string &name, int64_t out, int64_t in) {
        if (c_.at("expert_dtype") != "fp4") return matrix(name, out, in);
        add(name + ".weight", "I8", {out, in / 2});
        add(name + ".scale", "F8_E8M0", {out, in / 32});
    }
    void head(const std::string &p) {
        const int64_t M = c("hc_mult"), D = c("hidden_size");
        add(p + "hc_head_fn", "F32", {M, M * D});
        add(p + "hc_head_base", "F32", {M});
        add(p + "hc_head_scale", "F32", {1});
    }
    void compressor(const std::string &p, int64_t r, int64_t width) {
        const int64_t wide = (r == 4 ? 2 : 1) * width, D = c("hidden_size");
        add(p + "ape", "F32", {r, wide});
        add(p + "wkv.weight", "BF16", {wide, D});
        add(p + "wgate.weight", "BF16", {wide, D});
        add(p + "norm.weight", "BF16", {width});
    }
    void attention(const std::string &a, int64_t r) {
        const int64_t D = c("hidden_size"), H = c("num_attention_heads"), d = c("head_dim"), q = c("q_lora_rank");
        const int64_t G = c("o_groups"), o = c("o_lora_rank");
        add(a + "attn_sink", "F32", {H});
        add(a + "q_norm.weight", "BF16", {q});
        add(a + "kv_norm.weight", "BF16", {d});
        matrix(a + "wq_a", q, D);
        matrix(a + "wq_b", H * d, q);
        matrix(a + "wkv", d, D);
        matrix(a + "wo_a", G * o, H * d / G);
        matrix(a + "wo_b", D, G * o);
        if (r) compressor(a + "compressor.", r, d);
        if (r != 4) return;
        const int64_t Hi = c("index_n_heads"), di = c("index_head_dim");
        matrix(a + "indexer.wq_b", Hi * di, q);
        add(a + "indexer.weights_proj.weight", "BF16", {Hi, D});
        compressor(a + "indexer.compressor.", r, di);
    }
    void block(const std::string &p, int64_t, int64_t r, bool hash) {
        const int64_t D = c("hidden_size"), E = c("n_routed_experts"), I = c("moe_intermediate_size"), M = c("hc_mult");
        attention(p + "attn.", r);
        const std::string f = p + "ffn.";
        add(f + "gate.weight", "BF16", {E, D});
        if (hash) add(f + "gate.tid2eid", "I64", {c("vocab_size"), c("num_experts_per_tok")});
        else add(f + "gate.bias", "F32", {E});
        for (int64_t e = 0; e < E; ++e) {
            const std::string x = f + "experts." + std::to_string(e) + ".";
            expert(x + "w1", I, D);
            expert(x + "w2", D, I);
            expert(x + "w3", I, D);
        }
        matrix(f + "shared_experts.w1", I, D);
        matrix(f + "shared_experts.w2", D, I);
        matrix(f + "shared_experts.w3", I, D);
        add(p + "attn_norm.weight", "BF16", {D});
        add(p + "ffn_norm.weight", "BF16", {D});
        for (const char *site : {"attn", "ffn"}) {
            const std::string h = p + "hc_" + site;
            add(h + "_fn", "F32", {(2 + M) * M, M * D});
            add(h + "_base", "F32", {(2 + M) * M});
            add(h + "_scale", "F32", {3});
        }
    }

    const Json &c_;
    std::vector<FileTensor> &out_;
};

bool ends_with(const std::string &s, const std::string &tail) {
    return s.size() >= tail.size() && s.compare(s.size() - tail.size(), tail.size(), tail) == 0;
}

void write_shard(const std::string &path, const std::vector<FileTensor> &tensors, bool sparse) {
    std::string header = header_of(tensors);
    header.resize((header.size() + 7) / 8 * 8, ' ');
    if (!sparse) {
        std::string data;
        for (const FileTensor &t : tensors) data.append(t.data.begin(), t.data.end());
        return write_file(path, container(header, data));
    }
    uint64_t bytes = 8 + header.size();
    for (const FileTensor &t : tensors) bytes += t.bytes();
    write_file(path, container(header, ""));
    fs::resize_file(path, bytes);
}

} // namespace

TempDir::TempDir() {
    std::string name = (fs::temp_directory_path() / "dsv4-test-XXXXXX").string();
    if (!::mkdtemp(name.data())) throw std::runtime_error("mkdtemp " + name);
    path_ = name;
}

TempDir::~TempDir() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
}

uint64_t FileTensor::bytes() const {
    static const std::map<std::string, uint64_t> bits{{"F32", 32}, {"BF16", 16}, {"F16", 16},    {"I64", 64},
                                                      {"I32", 32}, {"I8", 8},    {"F8_E4M3", 8}, {"F8_E8M0", 8},
                                                      {"U8", 8},   {"F4", 4}};
    uint64_t n = bits.at(dtype);
    for (const int64_t s : shape) n *= static_cast<uint64_t>(s);
    return n / 8;
}

FileTensor &TestModel::at(const std::string &name) {
    for (FileTensor &t : tensors)
        if (t.name == name) return t;
    throw std::runtime_error("no tensor " + name);
}

void TestModel::erase(const std::string &name) {
    const size_t before = tensors.size();
    std::erase_if(tensors, [&](const FileTensor &t) { return t.name == name; });
    if (tensors.size() == before) throw std::runtime_error("no tensor " + name);
}

void TestModel::fill(uint64_t seed) {
    uint64_t x = seed * 2 + 1;
    const auto next = [&] { // xorshift64
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        return x;
    };
    const auto experts = config.at("n_routed_experts").get<uint64_t>();
    for (FileTensor &t : tensors) {
        t.data.resize(t.bytes());
        if (t.dtype == "F8_E8M0") {
            for (uint8_t &b : t.data) b = static_cast<uint8_t>(115 + next() % 8);
        } else if (t.dtype == "I64") {
            for (size_t i = 0; i < t.data.size(); i += 8) {
                const uint64_t id = next() % experts;
                std::memcpy(t.data.data() + i, &id, 8);
            }
        } else if (t.dtype == "F32") {
            for (size_t i = 0; i < t.data.size(); i += 4) {
                const float v = static_cast<float>(next() % 2001) / 1000.0f - 1.0f;
                std::memcpy(t.data.data() + i, &v, 4);
            }
        } else if (t.dtype == "BF16") { // |x| in [0.5, 1)
            for (size_t i = 0; i < t.data.size(); i += 2) {
                const auto v = static_cast<uint16_t>(0x3F00u | (next() & 0x807Fu));
                std::memcpy(t.data.data() + i, &v, 2);
            }
        } else {
            for (uint8_t &b : t.data) b = static_cast<uint8_t>(next() & 0x77);
        }
    }
}

Json tiny_config(const std::string &expert_dtype) {
    Json c = flash_config();
    c["vocab_size"] = 96;
    c["hidden_size"] = 128;
    c["num_hidden_layers"] = 6;
    c["compress_ratios"] = {0, 0, 4, 128, 4, 128, 0};
    c["num_hash_layers"] = 2;
    c["num_attention_heads"] = 4;
    c["head_dim"] = 96;
    c["qk_rope_head_dim"] = 32;
    c["q_lora_rank"] = 64;
    c["o_groups"] = 2;
    c["o_lora_rank"] = 32;
    c["sliding_window"] = 16;
    c["index_n_heads"] = 4;
    c["index_head_dim"] = 32;
    c["index_topk"] = 8;
    c["n_routed_experts"] = 8;
    c["num_experts_per_tok"] = 2;
    c["moe_intermediate_size"] = 64;
    c["expert_dtype"] = expert_dtype;
    if (expert_dtype == "bf16") c.erase("quantization_config");
    return c;
}

Json flash_config() {
    Json ratios = {0, 0};
    for (int i = 0; i < 20; ++i) {
        ratios.push_back(4);
        ratios.push_back(128);
    }
    ratios.push_back(4);
    ratios.push_back(0);
    return {{"architectures", {"DeepseekV4ForCausalLM"}},
            {"model_type", "deepseek_v4"},
            {"vocab_size", 129280},
            {"hidden_size", 4096},
            {"num_hidden_layers", 43},
            {"compress_ratios", ratios},
            {"num_hash_layers", 3},
            {"num_attention_heads", 64},
            {"num_key_value_heads", 1},
            {"head_dim", 512},
            {"qk_rope_head_dim", 64},
            {"q_lora_rank", 1024},
            {"o_groups", 8},
            {"o_lora_rank", 1024},
            {"sliding_window", 128},
            {"index_n_heads", 64},
            {"index_head_dim", 128},
            {"index_topk", 512},
            {"n_routed_experts", 256},
            {"n_shared_experts", 1},
            {"num_experts_per_tok", 6},
            {"moe_intermediate_size", 2048},
            {"routed_scaling_factor", 1.5},
            {"scoring_func", "sqrtsoftplus"},
            {"norm_topk_prob", true},
            {"swiglu_limit", 10.0},
            {"hc_mult", 4},
            {"hc_eps", 1e-6},
            {"hc_sinkhorn_iters", 20},
            {"rms_norm_eps", 1e-6},
            {"max_position_embeddings", 1048576},
            {"rope_theta", 10000},
            {"compress_rope_theta", 160000},
            {"rope_scaling",
             {{"type", "yarn"},
              {"factor", 16},
              {"beta_fast", 32},
              {"beta_slow", 1},
              {"original_max_position_embeddings", 65536}}},
            {"num_nextn_predict_layers", 1},
            {"bos_token_id", 0},
            {"eos_token_id", 1},
            {"expert_dtype", "fp4"},
            {"tie_word_embeddings", false},
            {"quantization_config",
             {{"activation_scheme", "dynamic"},
              {"fmt", "e4m3"},
              {"quant_method", "fp8"},
              {"scale_fmt", "ue8m0"},
              {"weight_block_size", {128, 128}}}}};
}

Json pro_config() {
    Json c = flash_config();
    c["hidden_size"] = 7168;
    c["num_hidden_layers"] = 61;
    c["compress_ratios"] = {128, 128};
    for (int i = 0; i < 29; ++i) {
        c["compress_ratios"].push_back(4);
        c["compress_ratios"].push_back(128);
    }
    c["compress_ratios"].push_back(4);
    c["compress_ratios"].push_back(0);
    c["num_attention_heads"] = 128;
    c["q_lora_rank"] = 1536;
    c["o_groups"] = 16;
    c["index_topk"] = 1024;
    c["n_routed_experts"] = 384;
    c["moe_intermediate_size"] = 3072;
    c["routed_scaling_factor"] = 2.5;
    return c;
}

TestModel make_model(const Json &config) {
    TestModel model{config, {}};
    Maker(model).make();
    return model;
}

void save(const TestModel &model, const std::string &directory, const SaveOptions &options) {
    fs::create_directories(directory);
    write_file(directory + "/config.json", model.config.dump(1));
    std::vector<FileTensor> tensors = model.tensors;
    for (FileTensor &t : tensors) {
        if (ends_with(t.name, ".scale")) t.name = t.name.substr(0, t.name.size() - 5) + options.scale_suffix;
        t.name = options.prefix + t.name;
    }
    if (options.shards == 0) return write_shard(directory + "/model.safetensors", tensors, options.sparse);
    std::string map; // by hand, as the header
    const size_t each = (tensors.size() + options.shards - 1) / options.shards;
    for (size_t i = 0; i < options.shards; ++i) {
        char name[64];
        std::snprintf(name, sizeof name, "model-%05zu-of-%05zu.safetensors", i + 1, options.shards);
        const auto begin = tensors.begin() + static_cast<std::ptrdiff_t>(std::min(i * each, tensors.size()));
        const auto end = tensors.begin() + static_cast<std::ptrdiff_t>(std::min((i + 1) * each, tensors.size()));
        const std::vector<FileTensor> part(begin, end);
        write_shard(directory + "/" + name, part, options.sparse);
        if (options.index)
            for (const FileTensor &t : part) map += (map.empty() ? "\"" : ",\"") + t.name + "\":\"" + name + "\"";
    }
    if (!options.index) return;
    write_file(directory + "/model.safetensors.index.json",
               "{\"metadata\":{\"total_size\":0},\"weight_map\":{" + map + "}}");
}

std::string header_of(const std::vector<FileTensor> &tensors) {
    // Written by hand: an ordered_json object of 70,000 members searches them all at every insertion.
    std::string out = "{\"__metadata__\":{\"format\":\"pt\"}";
    uint64_t at = 0;
    for (const FileTensor &t : tensors) {
        out += ",\"" + t.name + "\":{\"dtype\":\"" + t.dtype + "\",\"shape\":" + Json(t.shape).dump() +
               ",\"data_offsets\":[" + std::to_string(at) + "," + std::to_string(at + t.bytes()) + "]}";
        at += t.bytes();
    }
    return out + "}";
}

std::string container(const std::string &header, const std::string &data) {
    std::string out(8, '\0');
    for (size_t i = 0; i < 8; ++i) out[i] = static_cast<char>(header.size() >> (8 * i));
    return out + header + data;
}

void write_file(const std::string &path, const std::string &bytes) {
    std::ofstream out(path, std::ios::binary);
    out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    if (!out) throw std::runtime_error("cannot write " + path);
}

} // namespace dsv4::test
