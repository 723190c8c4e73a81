#include "core/model/config.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <deque>
#include <numeric>
#include <utility>

#include "core/error.hpp"
#include "core/model/json_reader.hpp"
#include "core/model/config_value.hpp"

namespace dsv4 {

namespace {

using Json = ConfigValue;

constexpr size_t kMaxConfigBytes = size_t{16} << 20;
constexpr int64_t kMaxRow = int64_t{1} << 24;   // elements of one row of activations
constexpr int64_t kMaxBlock = int64_t{1} << 16; // tokens of a cache block, a multiple of every ratio

/// One object of config.json; knows its name for messages.
class Section {
  public:
    Section(const Json &object, std::string where, std::string hint)
        : object_(object), where_(std::move(where)), hint_(std::move(hint)) {}

    bool has(const char *key) const {
        const Json *at = object_.find(key);
        return at && !at->is_null();
    }
    bool mentions(const char *key) const { return object_.find(key) != nullptr; } // be it as null
    const Json &at(const char *key, const std::string &expected) const {
        const Json *found = object_.find(key);
        if (!found) fail(key, expected, "no such key" + hint_);
        return *found;
    }
    int32_t integer(const char *key, int64_t least, int64_t most) const {
        const std::string expected = "an integer from " + std::to_string(least) + " to " + std::to_string(most);
        return integer_of(at(key, expected), key, least, most, expected);
    }
    int32_t integer_or(const char *key, int64_t least, int64_t most, int32_t otherwise) const {
        return has(key) ? integer(key, least, most) : otherwise;
    }
    std::vector<int32_t> integers(const char *key, int64_t least, int64_t most, size_t max_count) const {
        const std::string expected = "a list of integers from " + std::to_string(least) + " to " + std::to_string(most);
        const Json &list = at(key, expected);
        if (!list.is_array()) fail(key, expected, list);
        if (list.items().size() > max_count)
            fail(key, "at most " + std::to_string(max_count) + " entries", std::to_string(list.items().size()));
        std::vector<int32_t> out;
        for (const Json &item : list.items()) out.push_back(integer_of(item, key, least, most, expected));
        return out;
    }
    double number(const char *key, double least, double most) const {
        char expected[80];
        std::snprintf(expected, sizeof expected, "a number from %g to %g", least, most);
        const Json &value = at(key, expected);
        if (!value.is_number()) fail(key, expected, value);
        const double x = value.number();
        if (!(x >= least && x <= most)) fail(key, expected, value); // NaN fails too
        return x;
    }
    std::string text(const char *key) const {
        const Json &value = at(key, "a string");
        if (!value.is_string()) fail(key, "a string", value);
        return value.text();
    }
    /// A choice of the architecture that this build computes in one way only.
    void only(const char *key, const Json &wanted, bool required = false) const {
        if (!required && !has(key)) return;
        const Json &value = at(key, wanted.shown());
        if (!(value == wanted))
            throw Error(DSV4_E_UNSUPPORTED, where_ + ": " + key + ": this build computes " + wanted.shown() +
                                                " only, found " + shown(value));
    }
    Section section(const char *key) const {
        const Json &value = at(key, "an object");
        if (!value.is_object()) fail(key, "an object", value);
        return Section(value, where_ + ": " + key, "");
    }
    [[noreturn]] void fail(const char *key, const std::string &expected, const std::string &found) const {
        throw Error(DSV4_E_MODEL, where_ + ": " + key + ": expected " + expected + ", found " + found);
    }
    [[noreturn]] void fail(const char *key, const std::string &expected, const Json &found) const {
        fail(key, expected, shown(found));
    }
    [[noreturn]] void unsupported(const char *key, const std::string &what) const {
        throw Error(DSV4_E_UNSUPPORTED, where_ + ": " + key + ": " + what);
    }

  private:
    static std::string shown(const Json &value) { return printable(value.shown(), 40); }
    int32_t integer_of(const Json &value, const char *key, int64_t least, int64_t most,
                       const std::string &expected) const {
        // Some writers put 10000.0 for 10000.
        const double x = value.number();
        if (!value.is_number() || std::nearbyint(x) != x) fail(key, expected, value);
        if (!(x >= static_cast<double>(least) && x <= static_cast<double>(most))) fail(key, expected, value);
        return static_cast<int32_t>(x);
    }

    const Json &object_;
    std::string where_, hint_;
};

void require_row(const Section &c, const char *key, int64_t a, int64_t b, const char *product) {
    if (a * b > kMaxRow) c.fail(key, std::string(product) + " up to " + std::to_string(kMaxRow), std::to_string(a * b));
}

void read_attention(const Section &c, Config &out) {
    dsv4_shape &s = out.shape;
    c.only("num_key_value_heads", 1);
    c.only("attention_bias", false);
    s.heads = c.integer("num_attention_heads", 1, 1 << 16);
    s.head_dim = c.integer("head_dim", 1, 1 << 16);
    s.rope_dims = c.integer("qk_rope_head_dim", 2, 1 << 16);
    s.q_lora = c.integer("q_lora_rank", 1, kMaxRow);
    s.o_groups = c.integer("o_groups", 1, 1 << 16);
    s.o_lora = c.integer("o_lora_rank", 1, kMaxRow);
    s.window = c.integer("sliding_window", 1, 1 << 20);
    if (s.rope_dims % 2 != 0) c.fail("qk_rope_head_dim", "an even number", std::to_string(s.rope_dims));
    if (s.rope_dims >= s.head_dim)
        c.fail("qk_rope_head_dim", "less than head_dim " + std::to_string(s.head_dim), std::to_string(s.rope_dims));
    if (s.heads % s.o_groups != 0)
        c.fail("o_groups", "a divisor of num_attention_heads " + std::to_string(s.heads), std::to_string(s.o_groups));
    require_row(c, "head_dim", s.heads, s.head_dim, "num_attention_heads * head_dim");
    require_row(c, "o_lora_rank", s.o_groups, s.o_lora, "o_groups * o_lora_rank");
}

void read_compression(const Section &c, Config &out) {
    dsv4_shape &s = out.shape;
    out.compress_ratios = c.integers("compress_ratios", 0, kMaxBlock, 2 << 16);
    if (out.compress_ratios.size() < static_cast<size_t>(s.layers))
        c.fail("compress_ratios", "at least num_hidden_layers " + std::to_string(s.layers) + " entries",
               std::to_string(out.compress_ratios.size()));
    int64_t block = 1;
    for (const int32_t ratio : out.compress_ratios) {
        if (ratio) block = std::lcm(block, int64_t{ratio});
        if (block > kMaxBlock)
            c.unsupported("compress_ratios",
                          "the least common multiple of the ratios exceeds " + std::to_string(kMaxBlock) + " tokens");
    }
    const auto &ratios = out.compress_ratios;
    if (std::find(ratios.begin(), ratios.end(), 4) == ratios.end()) return;
    s.index_heads = c.integer("index_n_heads", 1, 1 << 16);
    s.index_dim = c.integer("index_head_dim", 2, 1 << 16);
    s.index_topk = c.integer("index_topk", 1, 1 << 24);
    if ((s.index_dim & (s.index_dim - 1)) != 0 || s.index_dim < s.rope_dims)
        c.fail("index_head_dim", "a power of two, at least qk_rope_head_dim " + std::to_string(s.rope_dims),
               std::to_string(s.index_dim));
    require_row(c, "index_head_dim", s.index_heads, s.index_dim, "index_n_heads * index_head_dim");
}

void read_experts(const Section &c, Config &out) {
    dsv4_shape &s = out.shape;
    c.only("scoring_func", "sqrtsoftplus", true);
    c.only("norm_topk_prob", true);
    c.only("topk_method", "noaux_tc");
    c.only("hidden_act", "silu");
    c.only("n_group", 1);
    s.experts = c.integer("n_routed_experts", 1, 1 << 16);
    s.active_experts = c.integer("num_experts_per_tok", 1, 1 << 16);
    s.expert_inter = c.integer("moe_intermediate_size", 1, kMaxRow);
    s.routed_scale = static_cast<float>(c.number("routed_scaling_factor", 0, 1e6));
    s.swiglu_limit = static_cast<float>(c.number("swiglu_limit", 0, 1e30));
    if (s.active_experts > s.experts)
        c.fail("num_experts_per_tok", "at most n_routed_experts " + std::to_string(s.experts),
               std::to_string(s.active_experts));
    out.hash_layers = c.integer("num_hash_layers", 0, s.layers);
    if (c.has("expert_dtype")) out.expert_dtype = c.text("expert_dtype");
    out.shared_experts = c.integer_or("n_shared_experts", 1, 1 << 10, 0);
    if (!c.has("quantization_config")) return;
    const Section q = c.section("quantization_config");
    if (q.has("quant_method") && q.text("quant_method") != "fp8")
        q.unsupported("quant_method",
                      "this build reads \"fp8\", found \"" + printable(q.text("quant_method"), 40) + "\"");
    if (q.has("fmt") && q.text("fmt") != "e4m3")
        q.unsupported("fmt", "this build reads \"e4m3\", found \"" + printable(q.text("fmt"), 40) + "\"");
    if (!q.has("weight_block_size")) return;
    const std::vector<int32_t> block = q.integers("weight_block_size", 1, 1 << 20, 2);
    if (block.size() != 2) q.fail("weight_block_size", "two integers", std::to_string(block.size()));
    out.scale_block[0] = block[0];
    out.scale_block[1] = block[1];
}

void read_positions(const Section &c, Config &out) {
    out.max_positions = c.integer("max_position_embeddings", 1, 1 << 30);
    out.rope_theta = c.number("rope_theta", 1.0001, 1e30);
    const auto &ratios = out.compress_ratios;
    const bool compressed = std::any_of(ratios.begin(), ratios.end(), [](int32_t r) { return r != 0; });
    out.compress_rope_theta =
        compressed || c.has("compress_rope_theta") ? c.number("compress_rope_theta", 1.0001, 1e30) : out.rope_theta;
    // "rope_parameters" is what newer converters call it. null switches YaRN off; a missing key is a damaged file, since
    // without YaRN every position of a compressed layer is wrong, a little.
    const char *scaling = c.mentions("rope_parameters") ? "rope_parameters" : "rope_scaling";
    if (compressed) c.at(scaling, "an object that describes YaRN, or null for none");
    if (!c.has(scaling)) return;
    const Section y = c.section(scaling);
    for (const char *key : {"type", "rope_type"})
        if (y.has(key) && y.text(key) != "yarn")
            y.unsupported(key, "this build computes \"yarn\" only, found \"" + printable(y.text(key), 40) + "\"");
    // 0 switches YaRN off in the released code.
    const double original = y.number("original_max_position_embeddings", 0, 1 << 30);
    if (original == 0) return;
    out.yarn = Yarn{y.number("factor", 1e-6, 1e6), original, y.number("beta_fast", 1e-6, 1e6),
                    y.number("beta_slow", 1e-6, 1e6)};
}

void read_tokens(const Section &c, Config &out) {
    const int64_t last = out.shape.vocab - 1;
    out.bos = c.integer_or("bos_token_id", 0, last, -1);
    const Json &eos = c.at("eos_token_id", "a token id or a list of them");
    if (eos.is_array()) out.eos = c.integers("eos_token_id", 0, last, 1024);
    else if (!eos.is_null()) out.eos = {c.integer("eos_token_id", 0, last)};
}

void read_drafters(const Section &c, Config &out) {
    out.mtp_blocks = c.integer_or("num_nextn_predict_layers", 0, 64, 0);
    if (!c.has("dspark_block_size")) return;
    DsparkConfig d;
    d.block_size = c.integer("dspark_block_size", 1, 1024);
    d.markov_rank = c.integer_or("dspark_markov_rank", 0, kMaxRow, 0);
    d.noise_token = c.integer_or("dspark_noise_token_id", 0, out.shape.vocab - 1, -1);
    if (c.has("dspark_target_layer_ids"))
        d.target_layers = c.integers("dspark_target_layer_ids", 0, out.shape.layers - 1, 1024);
    out.dspark = std::move(d);
}

} // namespace

int32_t Config::mtp_compress_ratio(int32_t depth) const {
    const auto at = static_cast<size_t>(shape.layers) + static_cast<size_t>(depth);
    return at < compress_ratios.size() ? compress_ratios[at] : 0;
}

Config parse_config(std::string_view json, std::string_view name) {
    const std::string where = printable(name);
    if (json.size() > kMaxConfigBytes)
        throw Error(DSV4_E_MODEL, where + ": expected at most " + std::to_string(kMaxConfigBytes) + " bytes, found " +
                                      std::to_string(json.size()));
    const Json root = Json::parse(json, where);
    if (!root.is_object()) throw Error(DSV4_E_MODEL, where + ": expected a JSON object");

    Config out;
    const Json *type = root.find("model_type");
    if (type && type->is_string()) out.model_type = type->text();
    const Section c(root, where,
                    out.model_type.empty() ? "" : " (model_type is \"" + printable(out.model_type, 40) + "\")");
    dsv4_shape &s = out.shape;
    s.struct_size = sizeof s;
    c.only("tie_word_embeddings", false);
    s.vocab = c.integer("vocab_size", 1, kMaxRow);
    s.hidden = c.integer("hidden_size", 1, kMaxRow);
    s.layers = c.integer("num_hidden_layers", 1, 1 << 14);
    s.streams = c.integer("hc_mult", 1, 64);
    s.sinkhorn_iters = c.integer("hc_sinkhorn_iters", 1, 10000);
    s.hc_eps = static_cast<float>(c.number("hc_eps", 0, 1));
    s.rms_eps = static_cast<float>(c.number("rms_norm_eps", 0, 1));
    require_row(c, "hidden_size", s.streams, s.hidden, "hc_mult * hidden_size");
    read_attention(c, out);
    read_compression(c, out);
    read_experts(c, out);
    read_positions(c, out);
    read_tokens(c, out);
    read_drafters(c, out);
    return out;
}

} // namespace dsv4
