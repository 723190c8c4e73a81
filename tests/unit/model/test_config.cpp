#include <string>

#include "core/error.hpp"
#include "core/model/config.hpp"
#include "tests/catch.hpp"
#include "tests/support/checkpoint_writer.hpp"

using dsv4::Config;
using dsv4::parse_config;
using dsv4::test::flash_config;
using dsv4::test::tiny_config;
using Json = nlohmann::ordered_json;

namespace {

dsv4::Error error_of(const std::string &text) {
    try {
        parse_config(text, "config.json");
    } catch (const dsv4::Error &e) {
        return e;
    }
    return dsv4::Error(DSV4_OK, "");
}

bool says(const dsv4::Error &e, const std::string &part) {
    return std::string(e.what()).find(part) != std::string::npos;
}

} // namespace

TEST_CASE("config.json of Flash gives Flash's numbers") {
    const Config c = parse_config(flash_config().dump(), "config.json");
    CHECK(c.shape.struct_size == sizeof(dsv4_shape));
    CHECK(c.shape.vocab == 129280);
    CHECK(c.shape.hidden == 4096);
    CHECK(c.shape.layers == 43);
    CHECK(c.shape.streams == 4);
    CHECK(c.shape.sinkhorn_iters == 20);
    CHECK(c.shape.heads == 64);
    CHECK(c.shape.head_dim == 512);
    CHECK(c.shape.rope_dims == 64);
    CHECK(c.shape.q_lora == 1024);
    CHECK(c.shape.o_groups == 8);
    CHECK(c.shape.o_lora == 1024);
    CHECK(c.shape.window == 128);
    CHECK(c.shape.index_heads == 64);
    CHECK(c.shape.index_dim == 128);
    CHECK(c.shape.index_topk == 512);
    CHECK(c.shape.experts == 256);
    CHECK(c.shape.active_experts == 6);
    CHECK(c.shape.expert_inter == 2048);
    CHECK(c.shape.rms_eps == 1e-6f);
    CHECK(c.shape.hc_eps == 1e-6f);
    CHECK(c.shape.routed_scale == 1.5f);
    CHECK(c.shape.swiglu_limit == 10.0f);
    CHECK(c.compress_ratios.size() == 44);
    CHECK(c.mtp_compress_ratio(0) == 0);
    CHECK(c.mtp_compress_ratio(7) == 0);
    CHECK(c.hash_layers == 3);
    CHECK(c.mtp_blocks == 1);
    REQUIRE(c.yarn);
    CHECK(c.yarn->factor == 16);
    CHECK(c.max_positions == 1048576);
    CHECK(c.bos == 0);
    CHECK(c.eos == std::vector<int32_t>{1});
    CHECK_FALSE(c.dspark);
}

TEST_CASE("config.json may vary where checkpoints vary") {
    Json j = tiny_config();
    j["eos_token_id"] = {1, 5};
    j["rms_norm_eps"] = 1e-20;
    j["rope_scaling"] = nullptr;
    j["rope_theta"] = 10000.0;
    j["hidden_size"] = 128.0;
    j["bos_token_id"] = nullptr;
    j["quantization_config"]["weight_block_size"] = {64, 128};
    j["compress_ratios"].push_back(0);
    j["dspark_block_size"] = 5;
    j["dspark_target_layer_ids"] = {3, 4, 5};
    j["dspark_noise_token_id"] = 90;
    Config c = parse_config(j.dump(), "config.json");
    CHECK(c.eos == std::vector<int32_t>{1, 5});
    CHECK(c.shape.rms_eps == 1e-20f);
    CHECK_FALSE(c.yarn);
    CHECK(c.bos == -1);
    CHECK(c.scale_block[0] == 64);
    REQUIRE(c.dspark);
    CHECK(c.dspark->block_size == 5);
    CHECK(c.dspark->target_layers == std::vector<int32_t>{3, 4, 5});

    // No layer with an indexer: its keys may be missing.
    j["compress_ratios"] = {0, 128, 0, 128, 0, 128};
    for (const char *key : {"index_n_heads", "index_head_dim", "index_topk"}) j.erase(key);
    c = parse_config(j.dump(), "config.json");
    CHECK(c.shape.index_heads == 0);
    CHECK(c.mtp_compress_ratio(0) == 0);
}

TEST_CASE("every key that config.json lacks is named") {
    for (const char *key : {"vocab_size",
                            "hidden_size",
                            "num_hidden_layers",
                            "compress_ratios",
                            "num_hash_layers",
                            "num_attention_heads",
                            "head_dim",
                            "qk_rope_head_dim",
                            "q_lora_rank",
                            "o_groups",
                            "o_lora_rank",
                            "sliding_window",
                            "index_n_heads",
                            "index_head_dim",
                            "index_topk",
                            "n_routed_experts",
                            "num_experts_per_tok",
                            "moe_intermediate_size",
                            "routed_scaling_factor",
                            "scoring_func",
                            "swiglu_limit",
                            "hc_mult",
                            "hc_eps",
                            "hc_sinkhorn_iters",
                            "rms_norm_eps",
                            "max_position_embeddings",
                            "rope_theta",
                            "compress_rope_theta",
                            "eos_token_id"}) {
        INFO(key);
        Json j = tiny_config();
        j.erase(key);
        const dsv4::Error e = error_of(j.dump());
        CHECK(e.status == DSV4_E_MODEL);
        CHECK(says(e, std::string("config.json: ") + key + ": expected "));
        CHECK(says(e, "no such key"));
    }
    Json j = tiny_config();
    j["rope_scaling"].erase("beta_fast");
    CHECK(says(error_of(j.dump()), "config.json: rope_scaling: beta_fast: expected"));
}

TEST_CASE("no value of any key gets through unchecked") {
    const Json hostile[] = {-1,
                            0.5,
                            1e300,
                            -1e300,
                            "a",
                            true,
                            Json::array(),
                            Json::object(),
                            nullptr,
                            9223372036854775807,
                            18446744073709551615ull,
                            -9223372036854775807,
                            Json::array({1, 2, 3}),
                            Json::array({"x"})};
    const Json whole = tiny_config();
    for (const auto &[key, was] : whole.items()) {
        for (const Json &value : hostile) {
            Json j = whole;
            j[key] = value;
            INFO(key << " = " << value.dump());
            try {
                const Config c = parse_config(j.dump(), "config.json");
                // What passed is within bounds that the rest of the library may multiply.
                CHECK(c.shape.vocab > 0);
                CHECK(int64_t{c.shape.heads} * c.shape.head_dim <= (1 << 24));
                CHECK(c.compress_ratios.size() >= static_cast<size_t>(c.shape.layers));
                CHECK(c.shape.active_experts <= c.shape.experts);
            } catch (const dsv4::Error &e) {
                CHECK((e.status == DSV4_E_MODEL || e.status == DSV4_E_UNSUPPORTED));
                CHECK(says(e, "config.json: "));
                CHECK(std::string(e.what()).size() < 240);
            }
        }
    }
}

TEST_CASE("numbers of config.json that contradict each other are refused") {
    const auto with = [](const char *key, Json value) {
        Json j = tiny_config();
        j[key] = std::move(value);
        return std::string(error_of(j.dump()).what());
    };
    CHECK(with("qk_rope_head_dim", 96) == "config.json: qk_rope_head_dim: expected less than head_dim 96, found 96");
    CHECK(with("qk_rope_head_dim", 31).find("even") != std::string::npos);
    CHECK(with("o_groups", 3) == "config.json: o_groups: expected a divisor of num_attention_heads 4, found 3");
    CHECK(with("index_head_dim", 48).find("power of two") != std::string::npos);
    CHECK(with("index_head_dim", 16).find("at least qk_rope_head_dim 32") != std::string::npos);
    CHECK(with("num_experts_per_tok", 9).find("at most n_routed_experts 8") != std::string::npos);
    CHECK(with("num_hash_layers", 7).find("from 0 to 6, found 7") != std::string::npos);
    CHECK(with("compress_ratios", {0, 0, 4}).find("at least num_hidden_layers 6 entries, found 3") !=
          std::string::npos);
    CHECK(with("compress_ratios", {4, 3, 5, 7, 11, 65521}).find("least common multiple") != std::string::npos);
    CHECK(with("eos_token_id", 96).find("from 0 to 95, found 96") != std::string::npos);
    CHECK(with("head_dim", 65536 * 2).find("head_dim") != std::string::npos);
}

TEST_CASE("YaRN is found under either of its names, and never lost in silence") {
    Json j = tiny_config();
    j["rope_parameters"] = j["rope_scaling"];
    j.erase("rope_scaling");
    REQUIRE(dsv4::parse_config(j.dump(), "config.json").yarn);
    CHECK(dsv4::parse_config(j.dump(), "config.json").yarn->factor == 16);
    j["rope_parameters"] = nullptr;
    CHECK_FALSE(dsv4::parse_config(j.dump(), "config.json").yarn);
    j.erase("rope_parameters");
    const dsv4::Error e = error_of(j.dump());
    CHECK(e.status == DSV4_E_MODEL);
    CHECK(says(e, "rope_scaling: expected an object that describes YaRN, or null for none, found no such key"));
}

TEST_CASE("variants that this build does not compute are unsupported, not misread") {
    const std::pair<const char *, Json> variants[] = {{"scoring_func", "sigmoid"},
                                                      {"norm_topk_prob", false},
                                                      {"tie_word_embeddings", true},
                                                      {"num_key_value_heads", 8},
                                                      {"attention_bias", true},
                                                      {"hidden_act", "gelu"},
                                                      {"topk_method", "greedy"},
                                                      {"rope_scaling", {{"type", "linear"}, {"factor", 2}}},
                                                      {"quantization_config", {{"quant_method", "gptq"}}},
                                                      {"quantization_config", {{"fmt", "e5m2"}}}};
    for (const auto &[key, value] : variants) {
        INFO(key);
        Json j = tiny_config();
        j[key] = value;
        const dsv4::Error e = error_of(j.dump());
        CHECK(e.status == DSV4_E_UNSUPPORTED);
        CHECK(says(e, key));
    }
}

TEST_CASE("a config.json that is not JSON is refused with the place") {
    for (const char *text : {"", "{", "not json", "[]", "{\"a\":1}}", "\xFF\xFE", "{\"vocab_size\": 0x10}"}) {
        INFO(text);
        const dsv4::Error e = error_of(text);
        CHECK(e.status == DSV4_E_MODEL);
        CHECK(says(e, "config.json: expected"));
    }
    CHECK(error_of(std::string(1 << 20, '[')).status == DSV4_E_MODEL);
    CHECK(error_of("{\"vocab_size\": 1e99999}").status == DSV4_E_MODEL);
    CHECK(error_of("{\"model_type\": \"llama\"}").what() ==
          std::string("config.json: vocab_size: expected an integer from 1 to 16777216, found no such key (model_type "
                      "is \"llama\")"));
}
