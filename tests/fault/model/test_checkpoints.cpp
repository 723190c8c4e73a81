// Directories that are not the checkpoint they claim to be: every error names file, tensor, expected and found, and the
// same call on a good directory works afterwards.
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <sys/stat.h>
#include <unistd.h>

#include "core/error.hpp"
#include "core/model/inventory.hpp"
#include "tests/catch.hpp"
#include "tests/support/checkpoint_writer.hpp"

using namespace dsv4;
using namespace dsv4::test;
using Json = nlohmann::ordered_json;
namespace fs = std::filesystem;

namespace {

struct Refusal {
    dsv4_status status = DSV4_OK;
    int32_t native_code = 0;
    std::string message;
    bool says(const std::string &part) const { return message.find(part) != std::string::npos; }
};

Refusal refusal(const std::string &directory) {
    try {
        check_scales(map_weights(Checkpoint::open(directory)));
    } catch (const Error &e) {
        return {e.status, e.native_code, e.what()};
    }
    return {};
}

TestModel filled(const std::string &expert_dtype = "fp4") {
    TestModel model = make_model(tiny_config(expert_dtype));
    model.fill(1);
    return model;
}

/// Saves what change made of a good checkpoint, and expects it to be refused with every one of these words.
void expect_refused(const std::function<void(TestModel &)> &change, const std::vector<std::string> &words,
                    const std::string &expert_dtype = "fp4") {
    TestModel model = filled(expert_dtype);
    change(model);
    for (FileTensor &t : model.tensors) t.data.resize(t.bytes());
    TempDir dir;
    save(model, dir.path());
    const Refusal r = refusal(dir.path());
    INFO(r.message);
    CHECK(r.status == DSV4_E_MODEL);
    CHECK(r.message.size() < 240);
    for (const std::string &word : words) {
        INFO(word);
        CHECK(r.says(word));
    }
    TempDir good;
    save(filled(), good.path());
    CHECK(refusal(good.path()).status == DSV4_OK);
}

const std::string kFile = "model.safetensors: ";

} // namespace

TEST_CASE("a directory without a checkpoint") {
    TempDir dir;
    Refusal r = refusal(dir / "nowhere");
    CHECK(r.status == DSV4_E_MODEL);
    CHECK(r.native_code == ENOENT);
    CHECK(r.says("nowhere: expected a directory"));

    write_file(dir / "file", "x");
    r = refusal(dir / "file");
    CHECK(r.native_code == ENOTDIR);

    r = refusal(dir.path());
    CHECK(r.says("config.json: expected a readable file"));
    CHECK(r.native_code == ENOENT);

    write_file(dir / "config.json", tiny_config().dump());
    r = refusal(dir.path());
    CHECK(r.says("expected model.safetensors, model.safetensors.index.json or model-*.safetensors, found none"));
    CHECK(refusal("").status == DSV4_E_MODEL);
}

TEST_CASE("files that cannot be read say why") {
    TempDir dir;
    save(filled(), dir.path());
    SECTION("a link that goes nowhere") {
        fs::remove(dir / "model.safetensors");
        fs::create_symlink("gone", dir / "model.safetensors");
        const Refusal r = refusal(dir.path());
        CHECK(r.native_code == ENOENT);
        CHECK(r.says("model.safetensors: expected a readable file"));
    }
    SECTION("a link to itself") {
        fs::remove(dir / "config.json");
        fs::create_symlink("config.json", dir / "config.json");
        const Refusal r = refusal(dir.path());
        CHECK(r.native_code == ELOOP);
        CHECK(r.says("config.json: expected a readable file"));
    }
    SECTION("a directory in a file's place") {
        fs::remove(dir / "model.safetensors");
        fs::create_directory(dir / "model.safetensors");
        const Refusal r = refusal(dir.path());
        CHECK(r.native_code == EISDIR);
        CHECK(r.says("model.safetensors: expected a regular file"));
    }
    SECTION("a pipe, which must not hang the caller") {
        fs::remove(dir / "model.safetensors");
        REQUIRE(::mkfifo((dir / "model.safetensors").c_str(), 0600) == 0);
        CHECK(refusal(dir.path()).says("expected a regular file"));
    }
    SECTION("no permission") {
        if (::geteuid() == 0) return; // root may read everything; the links above cover the path
        fs::permissions(dir / "model.safetensors", fs::perms::none);
        CHECK(refusal(dir.path()).native_code == EACCES);
    }
    SECTION("an empty file") {
        write_file(dir / "model.safetensors", "");
        CHECK(refusal(dir.path()).says("model.safetensors: expected a safetensors file, at least 8 bytes, found 0"));
    }
    SECTION("a file that lost its end") {
        const auto size = fs::file_size(dir / "model.safetensors");
        fs::resize_file(dir / "model.safetensors", size - 1);
        const Refusal r = refusal(dir.path());
        CHECK(r.says("model.safetensors: mtp.0.hc_head_scale: data_offsets"));
        CHECK(r.says("truncated"));
    }
    SECTION("config.json is not JSON") {
        write_file(dir / "config.json", "{\"vocab_size\": ");
        CHECK(refusal(dir.path()).says("config.json: expected a value at byte 15, found the end of the text"));
    }
}

TEST_CASE("a shard index that does not match its shards") {
    TempDir dir;
    save(filled(), dir.path(), {"", "scale", 3, true, false});
    const std::string index = dir / "model.safetensors.index.json";
    const std::string second = "model-00002-of-00003.safetensors";
    REQUIRE(refusal(dir.path()).status == DSV4_OK);
    std::ifstream in(index);
    Json j = Json::parse(in);
    SECTION("a shard is missing") {
        fs::remove(dir / second);
        const Refusal r = refusal(dir.path());
        CHECK(r.status == DSV4_E_MODEL);
        CHECK(r.native_code == ENOENT);
        CHECK(r.says(second + ": expected the shard that model.safetensors.index.json names"));
    }
    SECTION("a tensor is not in its shard") {
        j["weight_map"]["layers.9.gone"] = second;
        write_file(index, j.dump());
        CHECK(
            refusal(dir.path())
                .says(second +
                      ": layers.9.gone: expected in this shard by model.safetensors.index.json, found no such tensor"));
    }
    SECTION("a tensor is said to be in another shard") {
        j["weight_map"]["embed.weight"] = second;
        write_file(index, j.dump());
        CHECK(refusal(dir.path()).says(second + ": embed.weight: expected in this shard"));
    }
    SECTION("a shard outside the directory") {
        for (const char *name : {"../x.safetensors", "/etc/passwd", "", ".", ".."}) {
            j["weight_map"]["embed.weight"] = name;
            write_file(index, j.dump());
            CHECK(refusal(dir.path()).says("expected the name of a file beside it"));
        }
    }
    SECTION("a name twice") {
        write_file(index, "{\"weight_map\":{\"a\":\"" + second + "\",\"a\":\"" + second + "\"}}");
        CHECK(refusal(dir.path()).says("model.safetensors.index.json: a: expected once, found twice"));
    }
    SECTION("no weight_map") {
        write_file(index, "{\"metadata\":{}}");
        CHECK(refusal(dir.path()).says("weight_map: expected an object, found no such key"));
    }
    SECTION("not JSON, or of another shape") {
        for (const char *text : {"", "[]", "{\"weight_map\":[]}", "{\"weight_map\":{\"a\":1}}", "{\"weight_map\":{}"}) {
            write_file(index, text);
            CHECK(refusal(dir.path()).says("model.safetensors.index.json: expected"));
        }
    }
    SECTION("a name in two shards, without an index") {
        fs::remove(index);
        fs::copy(dir / second, dir / "model-00009.safetensors");
        const Refusal r = refusal(dir.path());
        CHECK(r.says("model-00009.safetensors: "));
        CHECK(r.says("expected once, found again after " + second));
    }
}

TEST_CASE("a tensor that is missing, of another shape or type") {
    expect_refused([](TestModel &m) { m.erase("layers.3.attn.wq_b.weight"); },
                   {"layers.3.attn.wq_b.weight: expected BF16, F16, F32, F8_E4M3 or packed FP4 [384, 64]",
                    "num_attention_heads * head_dim, q_lora_rank of config.json", "found no such tensor"});
    expect_refused(
        [](TestModel &m) {
            m.at("layers.4.attn.wkv.weight").shape = {48, 256};
        },
        {kFile + "layers.4.attn.wkv.weight: expected F8_E4M3 [96, 128]", "found F8_E4M3 [48, 256]"});
    expect_refused(
        [](TestModel &m) {
            m.at("layers.0.attn_norm.weight").shape = {128, 1};
        },
        {kFile + "layers.0.attn_norm.weight: expected BF16 [128]", "found BF16 [128, 1]"});
    expect_refused(
        [](TestModel &m) {
            m.at("layers.0.ffn.experts.7.w2.weight").shape = {128, 64};
        },
        {kFile + "layers.0.ffn.experts.7.w2.weight: expected two FP4 per byte of [128, 64]", "found I8 [128, 64]"});
    expect_refused([](TestModel &m) { m.at("layers.2.hc_attn_fn").dtype = "BF16"; },
                   {kFile + "layers.2.hc_attn_fn: expected F32 [24, 512]", "found BF16 [24, 512]"});
    expect_refused([](TestModel &m) { m.at("layers.2.attn.compressor.wkv.weight").dtype = "F8_E4M3"; },
                   {kFile + "layers.2.attn.compressor.wkv.weight: expected BF16, F16 or F32", "found F8_E4M3"});
    expect_refused([](TestModel &m) { m.at("head.weight").dtype = "I64"; },
                   {kFile + "head.weight: expected BF16, F16 or F32 [96, 128]", "found I64"});
    expect_refused(
        [](TestModel &m) {
            m.at("mtp.0.h_proj.weight").shape = {128, 64};
        },
        {kFile + "mtp.0.h_proj.weight: expected F8_E4M3 [128, 128]", "found F8_E4M3 [128, 64]"});
    expect_refused([](TestModel &m) { m.erase("mtp.0.e_proj.weight"); },
                   {"mtp.0.e_proj.weight: expected", "found no such tensor"});
}

TEST_CASE("a type nobody knows, where the tensor is needed") {
    TestModel model = filled();
    TempDir dir;
    save(model, dir.path());
    std::ifstream in(dir / "model.safetensors", std::ios::binary);
    std::string bytes((std::istreambuf_iterator<char>(in)), {});
    const std::string known = "\"embed.weight\":{\"dtype\":\"BF16\"", unknown = "\"embed.weight\":{\"dtype\":\"ZF16\"";
    const size_t at = bytes.find(known);
    REQUIRE(at != std::string::npos);
    bytes.replace(at, known.size(), unknown);
    write_file(dir / "model.safetensors", bytes);
    const Refusal r = refusal(dir.path());
    CHECK(r.says(kFile + "embed.weight: expected BF16, F16 or F32 [96, 128]"));
    CHECK(r.says("found ZF16 [96, 128]"));
}

TEST_CASE("scales that are missing, of another shape or type, or not numbers") {
    expect_refused(
        [](TestModel &m) { m.erase("layers.1.attn.wo_a.scale"); },
        {"layers.1.attn.wo_a.scale: expected F8_E8M0 or F32 [1, 2], one scale per 128x128 of F8_E4M3 [64, 192]",
         "found no such tensor"});
    expect_refused(
        [](TestModel &m) { m.erase("layers.1.ffn.experts.3.w1.scale"); },
        {"layers.1.ffn.experts.3.w1.scale: expected F8_E8M0 or F32 [64, 4], one scale per 1x32 of I8 [64, 128]"});
    expect_refused(
        [](TestModel &m) {
            m.at("layers.1.attn.wo_a.scale").shape = {2, 2};
        },
        {kFile + "layers.1.attn.wo_a.scale: expected F8_E8M0 or F32 [1, 2]", "found F8_E8M0 [2, 2]"});
    expect_refused([](TestModel &m) { m.at("layers.1.attn.wo_a.scale").dtype = "BF16"; },
                   {kFile + "layers.1.attn.wo_a.scale: expected F8_E8M0 or F32 [1, 2]", "found BF16 [1, 2]"});
    expect_refused(
        [](TestModel &m) { m.at("layers.5.ffn.experts.3.w1.scale").data[77] = 255; },
        {kFile +
         "layers.5.ffn.experts.3.w1.scale: expected powers of two, found NaN (byte 255) at index 77 of [64, 4]"});
    const auto float_scale = [](uint32_t bits) {
        return [bits](TestModel &m) {
            FileTensor &t = m.at("mtp.0.attn.wo_a.scale");
            t.dtype = "F32";
            t.data.assign(8, 0);
            std::memcpy(t.data.data() + 4, &bits, 4);
        };
    };
    expect_refused(float_scale(0x7FC00000),
                   {kFile + "mtp.0.attn.wo_a.scale: expected finite scales, found NaN at index 1 of [1, 2]"});
    expect_refused(float_scale(0xFF800000), {"expected finite scales, found an infinity at index 1"});
}

TEST_CASE("a NaN in a small tensor would poison everything after it") {
    const auto put = [](const char *name, uint32_t bits, size_t bytes) {
        return [=](TestModel &m) { std::memcpy(m.at(name).data.data() + 2 * bytes, &bits, bytes); };
    };
    expect_refused(put("layers.3.hc_attn_scale", 0x7FC00001, 4),
                   {kFile + "layers.3.hc_attn_scale: expected finite numbers, found NaN at index 2 of [3]"});
    expect_refused(put("layers.0.attn.attn_sink", 0xFF800000, 4), {"attn_sink: expected finite numbers, found an infinity"});
    expect_refused(put("norm.weight", 0x7F81, 2), {"norm.weight: expected finite numbers, found NaN at index 2"});
    expect_refused(put("layers.1.ffn_norm.weight", 0x7F80, 2), {"found an infinity at index 2"});
}

TEST_CASE("config.json contradicts the experts") {
    const auto says = [](const char *key, const Json &value) {
        return [=](TestModel &m) { m.config[key] = value; };
    };
    expect_refused(says("expert_dtype", "fp8"), {"config.json: expert_dtype: expected what the tensors say, found fp8",
                                                 "layers.0.ffn.experts.7.w3.weight is fp4"});
    expect_refused(says("expert_dtype", "zz"), {"expert_dtype", "found zz"});
    expect_refused(says("expert_dtype", "fp4"), {"expert_dtype", "is bf16"}, "bf16");
    expect_refused(says("n_shared_experts", 2), {"n_shared_experts: expected what the tensors say, found 2", "64 rows"});
}

TEST_CASE("a table of experts that names one which does not exist") {
    const auto entry = [](int64_t id) {
        return [id](TestModel &m) { std::memcpy(m.at("layers.1.ffn.gate.tid2eid").data.data() + 8 * 13, &id, 8); };
    };
    expect_refused(entry(8),
                   {kFile + "layers.1.ffn.gate.tid2eid: expected experts from 0 to 7, found 8 at index 13 of [96, 2]"});
    expect_refused(entry(-1), {"found -1 at index 13"});
    expect_refused(entry(int64_t{1} << 40), {"found 1099511627776 at index 13"});
}

TEST_CASE("a config.json that contradicts the tensors names both") {
    const auto with = [](const char *key, const Json &value) {
        return [key, value](TestModel &m) { m.config[key] = value; };
    };
    expect_refused(with("n_routed_experts", 9),
                   {kFile + "layers.0.ffn.gate.weight: expected BF16 [9, 128] (n_routed_experts, hidden_size of "
                            "config.json), found BF16 [8, 128]"});
    expect_refused(with("n_routed_experts", 7),
                   {"layers.0.ffn.gate.weight: expected BF16 [7, 128]", "found BF16 [8, 128]"});
    expect_refused(
        [](TestModel &m) {
            const FileTensor one = m.at("layers.4.ffn.experts.0.w1.weight");
            m.tensors.push_back(one);
            m.tensors.back().name = "layers.4.ffn.experts.8.w1.weight";
        },
        {"config.json: n_routed_experts: ", "found 8", "layers.4.ffn.experts.8.w1.weight exists"});
    expect_refused(
        with("hidden_size", 256),
        {kFile +
         "embed.weight: expected BF16 [96, 256] (vocab_size, hidden_size of config.json), found BF16 [96, 128]"});
    expect_refused(with("num_hidden_layers", 5), {"config.json: num_hidden_layers: ", "found 5", "layers.5."});
    expect_refused(
        [](TestModel &m) {
            m.config["num_hidden_layers"] = 7;
            m.config["compress_ratios"].push_back(0);
        },
        {"layers.6.hc_attn_fn: expected F32 [24, 512]", "found no such tensor"});
    expect_refused(with("num_hash_layers", 1),
                   {"config.json: num_hash_layers: ", "found 1", "layers.1.ffn.gate.tid2eid exists"});
    expect_refused(with("num_hash_layers", 3),
                   {"config.json: num_hash_layers: ", "found 3", "layers.2.ffn.gate.tid2eid does not exist"});
    expect_refused(with("compress_ratios", {0, 0, 0, 128, 4, 128, 0}),
                   {"config.json: compress_ratios[2]: ", "layers.2.attn.compressor.norm.weight exists"});
    expect_refused(
        with("compress_ratios", {0, 0, 4, 128, 128, 128, 0}),
        {"config.json: compress_ratios[4]: ", "found 128", "layers.4.attn.indexer.compressor.norm.weight exists"});
    expect_refused(with("compress_ratios", {0, 128, 4, 128, 4, 128, 0}),
                   {"layers.1.attn.compressor.wkv.weight: expected", "found no such tensor"});
    expect_refused(with("compress_ratios", {0, 0, 4, 64, 4, 128, 0}),
                   {kFile + "layers.3.attn.compressor.ape: expected F32 [64, 96]", "found F32 [128, 96]"});
    expect_refused(with("num_experts_per_tok", 3),
                   {kFile + "layers.0.ffn.gate.tid2eid: expected I64 [96, 3]", "found I64 [96, 2]"});
    expect_refused(
        [](TestModel &m) {
            m.config["quantization_config"]["weight_block_size"] = {64, 64};
        },
        {"scale: expected F8_E8M0 or F32 ", "one scale per 64x64"});
}
