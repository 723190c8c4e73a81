#include <algorithm>
#include <cstring>
#include <fstream>
#include <map>
#include <set>

#include "core/model/inventory.hpp"
#include "core/model/rope.hpp"
#include "tests/catch.hpp"
#include "tests/support/checkpoint_writer.hpp"

using namespace dsv4;
using namespace dsv4::test;
using Json = nlohmann::ordered_json;

namespace {

ModelWeights mapped(const std::string &directory) { return map_weights(Checkpoint::open(directory)); }

/// Every mapped tensor holds the bytes that were written under its name.
void check_bytes(const TestModel &model, const ModelWeights &w, const std::string &prefix = "") {
    std::map<std::string, const FileTensor *> written;
    for (const FileTensor &t : model.tensors) written[prefix + t.name] = &t;
    size_t seen = 0;
    const auto check = [&](const BlockWeights &b) {
        REQUIRE(b.tensors.size() == b.sources.size());
        for (size_t i = 0; i < b.tensors.size(); ++i) {
            const dsv4_tensor &t = b.tensors[i];
            const TensorEntry &e = w.checkpoint->tensors()[b.sources[i].weight];
            const FileTensor *original = written[std::string(e.name)];
            REQUIRE(original);
            REQUIRE(t.bytes == original->data.size());
            CHECK(std::memcmp(t.data, original->data.data(), t.bytes) == 0);
            const int64_t per_byte = t.dtype == DSV4_FP4_E2M1 && original->dtype != "F4" ? 2 : 1;
            CHECK(t.shape[0] == original->shape[0]);
            if (t.rank == 2) CHECK(t.shape[1] == original->shape[1] * per_byte);
            ++seen;
            if (!t.scale) continue;
            const TensorEntry &s = w.checkpoint->tensors()[b.sources[i].scale];
            CHECK(s.bytes == t.scale_bytes);
            CHECK(t.scale == w.checkpoint->data(s));
            ++seen;
        }
    };
    check(w.ends);
    for (const BlockWeights &b : w.layers) check(b);
    for (const BlockWeights &b : w.mtp) check(b);
    CHECK(seen == model.tensors.size());
}

} // namespace

TEST_CASE("generated checkpoints of every kind map completely") {
    for (const char *dtype : {"fp4", "fp8", "bf16"}) {
        INFO(dtype);
        TempDir dir;
        TestModel model = make_model(tiny_config(dtype));
        model.fill(3);
        save(model, dir.path());
        const ModelWeights w = mapped(dir.path());
        CHECK(w.layers.size() == 6);
        CHECK(w.mtp.size() == 1);
        CHECK(w.unused.empty());
        CHECK(w.degradations.empty());
        CHECK(w.total_tensors == model.tensors.size());
        CHECK(w.used_tensors == w.total_tensors);
        CHECK(w.used_bytes == w.total_bytes);
        check_bytes(model, w);
        check_scales(w);
        const dsv4_tensor *expert = w.layers[3].find(DSV4_ROLE_EXPERT_W2, 5);
        REQUIRE(expert);
        CHECK(expert->shape[0] == 128);
        CHECK(expert->shape[1] == 64);
        const std::string kind = dtype;
        CHECK(expert->dtype == (kind == "fp4" ? DSV4_FP4_E2M1 : kind == "fp8" ? DSV4_FP8_E4M3 : DSV4_BF16));
        CHECK(expert->scale_block[0] == (kind == "fp4" ? 1 : kind == "fp8" ? 128 : 0));
        CHECK(expert->scale_block[1] == (kind == "fp4" ? 32 : kind == "fp8" ? 128 : 0));
    }
}

TEST_CASE("a block says what it is") {
    TempDir dir;
    TestModel model = make_model(tiny_config());
    model.fill(4);
    save(model, dir.path());
    const ModelWeights w = mapped(dir.path());
    CHECK(w.ends.kind == DSV4_BLOCK_ENDS);
    CHECK(w.ends.tensors.size() == 6);
    const int32_t ratios[] = {0, 0, 4, 128, 4, 128};
    for (int32_t l = 0; l < 6; ++l) {
        const BlockWeights &b = w.layers[static_cast<size_t>(l)];
        const dsv4_block_desc d = b.desc(DSV4_TIER_HOST);
        CHECK(d.struct_size == sizeof d);
        CHECK(d.kind == DSV4_BLOCK_LAYER);
        CHECK(d.index == l);
        CHECK(d.compress_ratio == ratios[l]);
        CHECK(d.tensor_count == b.tensors.size());
        CHECK(d.tensor_stride == sizeof(dsv4_tensor));
        CHECK(d.expert_tier == DSV4_TIER_HOST);
        CHECK(std::vector<float>(d.rope_frequency, d.rope_frequency + 16) == rope_frequencies(w.config(), ratios[l]));
        CHECK((b.find(DSV4_ROLE_GATE_TID2EID) != nullptr) == (l < 2));
        CHECK((b.find(DSV4_ROLE_GATE_BIAS) != nullptr) == (l >= 2));
        CHECK((b.find(DSV4_ROLE_COMP_APE) != nullptr) == (ratios[l] != 0));
        CHECK((b.find(DSV4_ROLE_INDEX_WQ_B) != nullptr) == (ratios[l] == 4));
        std::set<std::pair<int32_t, int32_t>> roles;
        for (const dsv4_tensor &t : b.tensors) CHECK(roles.insert({t.role, t.expert}).second);
    }
    CHECK(w.mtp[0].kind == DSV4_BLOCK_MTP);
    CHECK(w.mtp[0].find(DSV4_ROLE_E_PROJ));
    CHECK(w.mtp[0].find(DSV4_ROLE_HC_HEAD_FN));
    CHECK(std::string(w.layers[0].tensors[0].path) == dir / "model.safetensors");
}

TEST_CASE("other spellings of the same checkpoint map alike") {
    TestModel model = make_model(tiny_config("fp8"));
    model.fill(5);
    const SaveOptions spellings[] = {{"model.", "weight_scale_inv", 0, true, false},
                                     {"model.", "scale", 3, true, false},
                                     {"", "weight_scale_inv", 4, false, false},
                                     {"", "scale_inv", 5, true, false}};
    for (const SaveOptions &spelling : spellings) {
        INFO(spelling.prefix << " " << spelling.scale_suffix << " " << spelling.shards << " " << spelling.index);
        TempDir dir;
        save(model, dir.path(), spelling);
        const ModelWeights w = mapped(dir.path());
        CHECK(w.used_tensors == model.tensors.size());
        CHECK(w.checkpoint->file_count() == std::max<size_t>(spelling.shards, 1));
        check_bytes(model, w, spelling.prefix);
    }
}

TEST_CASE("scales may be float32, FP4 may be typed F4 or U8, expert tables int32, plain weights float16") {
    TempDir dir;
    Json config = tiny_config();
    config.erase("n_shared_experts"); // then its own tensors say how wide the shared expert is
    TestModel model = make_model(config);
    model.at("layers.0.attn.wkv.scale").dtype = "F32";
    model.at("layers.1.ffn.experts.0.w1.weight").dtype = "U8";
    model.at("layers.1.ffn.experts.1.w1.weight").dtype = "F4";
    model.at("layers.1.ffn.experts.1.w1.weight").shape[1] *= 2;
    model.at("layers.1.ffn.gate.tid2eid").dtype = "I32";
    model.at("layers.2.attn.wq_a.weight").dtype = "F16";
    model.erase("layers.2.attn.wq_a.scale");
    model.at("layers.0.ffn.shared_experts.w1.weight").shape[0] = 128; // a shared expert wider than the routed ones
    model.at("layers.0.ffn.shared_experts.w3.weight").shape[0] = 128;
    model.at("layers.0.ffn.shared_experts.w2.weight").shape[1] = 128;
    model.fill(6);
    for (uint8_t &b : model.at("layers.1.ffn.gate.tid2eid").data) b = 0;
    save(model, dir.path());
    const ModelWeights w = mapped(dir.path());
    CHECK(w.layers[0].find(DSV4_ROLE_WKV)->scale_dtype == DSV4_F32);
    CHECK(w.layers[1].find(DSV4_ROLE_EXPERT_W1, 0)->dtype == DSV4_FP4_E2M1);
    CHECK(w.layers[1].find(DSV4_ROLE_EXPERT_W1, 1)->shape[1] == 128);
    CHECK(w.layers[1].find(DSV4_ROLE_GATE_TID2EID)->dtype == DSV4_I32);
    CHECK(w.layers[2].find(DSV4_ROLE_WQ_A)->dtype == DSV4_F16);
    CHECK(w.layers[2].find(DSV4_ROLE_WQ_A)->scale == nullptr);
    CHECK(w.layers[0].find(DSV4_ROLE_SHARED_W2)->shape[1] == 128);
    CHECK(w.unused.empty());
    check_scales(w);
}

TEST_CASE("what nothing reads is named, and a drafter that is not built is a stated degradation") {
    TempDir dir;
    Json config = tiny_config();
    config["dspark_block_size"] = 5;
    TestModel model = make_model(config);
    std::erase_if(model.tensors, [](const FileTensor &t) {
        return t.name.rfind("mtp.0.e_proj", 0) == 0 || t.name.rfind("mtp.0.h_proj", 0) == 0;
    });
    model.tensors.push_back({"mtp.0.main_proj.weight", "BF16", {128, 384}, {}});
    model.tensors.push_back({"mtp.1.norm.weight", "BF16", {128}, {}});
    model.tensors.push_back({"vision.blocks.0.w", "F32", {2, 2, 2}, {}});
    model.tensors.push_back({"vision.blocks.1.w", "F32", {0}, {}});
    model.tensors.push_back({"layers.3.extra.weight", "BF16", {7}, {}});
    model.fill(7);
    save(model, dir.path());
    const ModelWeights w = mapped(dir.path());
    CHECK(w.mtp.empty());
    REQUIRE(w.degradations.size() == 1);
    CHECK(w.degradations[0] ==
          "config.json announces 1 MTP block(s), the files hold a DSpark drafter of 2 stage(s) "
          "(mtp.0 to mtp.1, block 5): drafting is not available with this build; generation is not "
          "affected");
    uint64_t tensors = w.used_tensors, bytes = w.used_bytes;
    std::map<std::string, uint64_t> groups;
    for (const UnusedGroup &u : w.unused) {
        groups[u.name] = u.tensors;
        tensors += u.tensors;
        bytes += u.bytes;
    }
    CHECK(tensors == w.total_tensors);
    CHECK(bytes == w.total_bytes);
    CHECK(groups["vision.*"] == 2);
    CHECK(groups["layers.3.extra.*"] == 1);
    CHECK(groups["mtp.0.main_proj.*"] == 1);
    CHECK(groups["mtp.1.norm.*"] == 1);
    CHECK(groups["mtp.0.hc_head_fn"] == 1);
}

TEST_CASE("MTP blocks: what the files hold decides, and differences are stated") {
    TestModel model = make_model(tiny_config());
    model.fill(8);
    SECTION("announced but absent") {
        std::erase_if(model.tensors, [](const FileTensor &t) { return t.name.rfind("mtp.", 0) == 0; });
        TempDir dir;
        save(model, dir.path());
        const ModelWeights w = mapped(dir.path());
        CHECK(w.mtp.empty());
        REQUIRE(w.degradations.size() == 1);
        CHECK(w.degradations[0].find("announces 1 MTP block(s), the files hold 0") != std::string::npos);
    }
    SECTION("present but not announced") {
        model.config["num_nextn_predict_layers"] = 0;
        TempDir dir;
        save(model, dir.path());
        const ModelWeights w = mapped(dir.path());
        CHECK(w.mtp.empty());
        REQUIRE(w.degradations.size() == 1);
        CHECK(w.degradations[0].find("announces 0 MTP block(s), the files hold 1 more or other (mtp.0)") !=
              std::string::npos);
    }
}

TEST_CASE("tensors that the index does not name are unused") {
    TempDir dir;
    TestModel model = make_model(tiny_config());
    model.fill(9);
    save(model, dir.path(), {"", "scale", 2, true, false});
    FileTensor stray{"layers.0.attn.wkv.weight", "F32", {1}, {0, 0, 0, 0}};
    write_file(dir / "model-00003-of-00002.safetensors",
               container(header_of({stray, {"other", "I8", {1}, {1}}}), "12345"));
    const std::string index = dir / "model.safetensors.index.json";
    std::ifstream in(index);
    Json j = Json::parse(in);
    j["weight_map"]["other"] = "model-00003-of-00002.safetensors";
    write_file(index, j.dump());
    const ModelWeights w = mapped(dir.path());
    CHECK(w.unused.size() == 2);
    CHECK(w.layers[0].find(DSV4_ROLE_WKV)->dtype == DSV4_FP8_E4M3);
}

TEST_CASE("weights outlive the names they were opened by") {
    ModelWeights w;
    {
        TempDir dir;
        TestModel model = make_model(tiny_config());
        model.fill(10);
        save(model, dir.path());
        w = mapped(dir.path());
    }
    check_scales(w); // the files are gone from the directory, not from the mapping
    CHECK(w.layers[5].find(DSV4_ROLE_WO_B)->bytes > 0);
}
