// The CPU backend on every instruction set that this machine has: against the reference backend, layer by layer, and
// against itself: the same bits whatever the batch, the chunks and the number of threads.
#include <unistd.h>
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <random>
#include "tests/bench/cpu/rig.hpp"
#include "tests/catch.hpp"

using namespace dsv4;
using namespace dsv4::rig;

namespace {

std::vector<std::string> usable_variants() {
    std::vector<std::string> out;
    for (const char *name : {"portable", "avx2", "avx512", "avx512_bf16", "amx"}) {
        dsv4_device_options o;
        DSV4_INIT(o);
        o.variant = {name, std::string(name).size()};
        o.threads = 1;
        dsv4_device *device = nullptr;
        dsv4_error err;
        DSV4_INIT(err);
        const dsv4_backend &b = open_plugin("cpu");
        if (b.device_open(&o, &device, &err) == DSV4_OK) {
            b.device_close(device);
            out.emplace_back(name);
        } else {
            CHECK(err.status == DSV4_E_UNSUPPORTED);
            CHECK(std::string(err.message).find(name) != std::string::npos);
        }
    }
    return out;
}

/// A small model with every kind of layer, enough entries for the indexer to choose among, and a ring that wraps.
Weights small_model() {
    static const char *const config = R"({"model_type": "deepseek_v4", "expert_dtype": "fp4", "vocab_size": 512,
        "hidden_size": 256, "num_hidden_layers": 4, "compress_ratios": [0, 4, 128, 4], "num_hash_layers": 1,
        "num_attention_heads": 20, "num_key_value_heads": 1, "head_dim": 128, "qk_rope_head_dim": 64,
        "q_lora_rank": 128, "o_groups": 2, "o_lora_rank": 128, "sliding_window": 16, "index_n_heads": 16,
        "index_head_dim": 128, "index_topk": 12, "n_routed_experts": 8, "n_shared_experts": 1,
        "num_experts_per_tok": 3, "moe_intermediate_size": 128, "routed_scaling_factor": 1.5,
        "scoring_func": "sqrtsoftplus", "norm_topk_prob": true, "swiglu_limit": 10.0, "hc_mult": 4, "hc_eps": 1e-06,
        "hc_sinkhorn_iters": 20, "rms_norm_eps": 1e-06, "max_position_embeddings": 1048576, "rope_theta": 10000,
        "compress_rope_theta": 160000, "rope_scaling": {"type": "yarn", "factor": 16, "beta_fast": 32,
        "beta_slow": 1, "original_max_position_embeddings": 65536}, "num_nextn_predict_layers": 0,
        "bos_token_id": 0, "eos_token_id": 1, "quantization_config": {"quant_method": "fp8", "fmt": "e4m3",
        "scale_fmt": "ue8m0", "weight_block_size": [128, 128], "activation_scheme": "dynamic"}})";
    const std::string path = std::string(DSV4_BINARY_DIR) + "/cpu_test_config." + std::to_string(getpid()) + ".json";
    std::ofstream(path) << config;
    Weights w = from_spec(path);
    std::remove(path.c_str());
    return w;
}

std::vector<int32_t> prompt(int32_t n, unsigned seed = 7) {
    std::mt19937 random(seed);
    std::vector<int32_t> ids;
    for (int32_t i = 0; i < n; ++i) ids.push_back(int32_t(random() % 500) + 2);
    return ids;
}

/// The median over rows of the relative error of a row: one expert chosen otherwise changes a row, not the verdict.
double relative(const std::vector<float> &a, const std::vector<float> &b, int32_t rows) {
    std::vector<double> errors;
    const size_t width = a.size() / size_t(rows);
    for (size_t r = 0; r < size_t(rows); ++r) {
        double difference = 0, size = 0;
        for (size_t i = r * width; i < (r + 1) * width; ++i) {
            difference += (double(a[i]) - b[i]) * (double(a[i]) - b[i]);
            size += double(b[i]) * b[i];
        }
        errors.push_back(std::sqrt(difference / size));
    }
    std::sort(errors.begin(), errors.end());
    return errors[errors.size() / 2];
}

constexpr int32_t length = 300;

} // namespace

TEST_CASE("every layer equals the reference, its input given") {
    const Weights weights = small_model();
    const std::vector<int32_t> ids = prompt(length);
    for (const auto &[numerics, reference_numerics, limit] :
         {std::tuple{DSV4_NUMERICS_EXACT, DSV4_NUMERICS_EXACT, 2e-5},
          std::tuple{DSV4_NUMERICS_OFFICIAL, DSV4_NUMERICS_OFFICIAL, 6e-3},
          std::tuple{DSV4_NUMERICS_NATIVE, DSV4_NUMERICS_EXACT, 1e-2}}) {
        Choice choice;
        choice.backend = "reference";
        choice.numerics = reference_numerics;
        Rig reference(weights, choice, length, 1, length);
        std::vector<std::unique_ptr<Rig>> rigs;
        const auto variants = usable_variants();
        for (const std::string &v : variants) {
            Choice c;
            c.variant = v;
            c.numerics = numerics;
            c.threads = 2;
            rigs.push_back(std::make_unique<Rig>(weights, c, length, 1, length));
        }
        const auto step = [&] {
            Step s;
            s.add(ids.data(), length, 0, 0, reference.blocks_of(0), {length - 1});
            return s;
        };
        Step s = step();
        reference.begin(s);
        reference.embed();
        for (auto &r : rigs) r->begin(s);
        for (int32_t l = 0; l < reference.layers(); ++l) {
            const std::vector<float> input = reference.streams(length);
            reference.layer(l);
            const std::vector<float> expected = reference.streams(length);
            for (size_t i = 0; i < rigs.size(); ++i) {
                rigs[i]->write_streams(input, length);
                rigs[i]->layer(l);
                const double error = relative(rigs[i]->streams(length), expected, length);
                INFO(variants[i] << ", numerics " << numerics << ", layer " << l << ": relative error " << error);
                std::printf("%-12s numerics %d layer %d error %.2e\n", variants[i].c_str(), numerics, l, error);
                // With FP4 keys the indexer of `native` chooses other entries than `exact`, by design of the model.
                if (numerics != DSV4_NUMERICS_NATIVE || reference.ratio(l) != 4) CHECK(error < limit);
                else CHECK(error < 0.2);
            }
        }
        const std::vector<float> input = reference.streams(length);
        reference.head();
        const std::vector<float> expected = reference.logits(1);
        for (size_t i = 0; i < rigs.size(); ++i) {
            rigs[i]->write_streams(input, length);
            rigs[i]->head();
            CHECK(relative(rigs[i]->logits(1), expected, 1) < limit);
        }
    }
}

TEST_CASE("a token's bits do not depend on batch, chunks or threads") {
    const Weights weights = small_model();
    const std::vector<int32_t> ids = prompt(length), other = prompt(length, 8);
    for (const std::string &variant : usable_variants())
        for (const int32_t numerics : {DSV4_NUMERICS_NATIVE, DSV4_NUMERICS_EXACT}) {
            Choice c;
            c.variant = variant;
            c.numerics = numerics;
            c.threads = 2;
            const int64_t width = int64_t(weights.config.shape.streams) * weights.config.shape.hidden;
            std::vector<float> expected;
            {
                Rig whole(weights, c, length, 1, length);
                Step s;
                s.add(ids.data(), length, 0, 0, whole.blocks_of(0), {length - 1});
                whole.run(s);
                expected = whole.streams(length);
            }
            c.threads = 3;
            Rig pieces(weights, c, 64, 2, length);
            int32_t done = 0, done_other = 0, turn = 0;
            const int32_t sizes[] = {1, 2, 17, 31, 1, 16, 33, 3};
            bool same = true;
            while (done < length) {
                const int32_t n = std::min(sizes[turn % 8], length - done), m = std::min(sizes[(turn + 3) % 8], 64 - n);
                Step s; // the sequence under test is second in the batch on odd turns
                const auto add_other = [&] {
                    if (done_other + m <= length)
                        s.add(other.data() + done_other, m, done_other, 1, pieces.blocks_of(1), {});
                };
                const bool second = turn % 2 && done_other + m <= length;
                if (second) add_other();
                s.add(ids.data() + done, n, done, 0, pieces.blocks_of(0), {});
                if (!second) add_other();
                pieces.run(s);
                const std::vector<float> got = pieces.streams(s.tokens());
                const float *mine = got.data() + (second ? m * width : 0);
                same = same && !std::memcmp(mine, expected.data() + done * width, size_t(n) * size_t(width) * 4);
                if (done_other + m <= length) done_other += m;
                done += n;
                ++turn;
            }
            INFO(variant << ", numerics " << numerics);
            CHECK(same);
        }
}

TEST_CASE("experts on disk give the same bits, under any budget, and a broken disk is an error") {
    Weights weights = small_model();
    const std::string path = std::string(DSV4_BINARY_DIR) + "/cpu_test_experts." + std::to_string(getpid());
    uint64_t expert_bytes = 0, offset = 0;
    {
        std::ofstream file(path, std::ios::binary);
        const auto put = [&](const void *data, uint64_t bytes) {
            const std::string gap(offset % 7 + 1, 'x'); // nothing is aligned in a checkpoint
            file << gap;
            offset += gap.size();
            file.write(static_cast<const char *>(data), std::streamsize(bytes));
            offset += bytes;
            return offset - bytes;
        };
        for (BlockWeights &b : weights.weights.layers)
            for (dsv4_tensor &t : b.tensors) {
                if (t.expert < 0) continue;
                t.path = path.c_str();
                t.file_offset = put(t.data, t.bytes);
                if (t.scale_dtype) t.scale_file_offset = put(t.scale, t.scale_bytes);
                if (t.expert == 0) expert_bytes += t.bytes + t.scale_bytes;
            }
    }
    expert_bytes /= weights.weights.layers.size();
    const std::vector<int32_t> ids = prompt(40);
    const auto run = [&](Rig &rig) {
        Step s;
        s.add(ids.data(), 40, 0, 0, rig.blocks_of(0), {39});
        rig.run(s);
        std::vector<float> out = rig.streams(40);
        Step one;
        one.add(ids.data(), 1, 40, 0, rig.blocks_of(0), {0});
        rig.run(one);
        const std::vector<float> last = rig.streams(1);
        out.insert(out.end(), last.begin(), last.end());
        return out;
    };
    Choice c;
    c.threads = 2;
    Rig memory(weights, c, 40, 1, 64);
    const std::vector<float> expected = run(memory);
    c.tier = DSV4_TIER_DISK;
    for (const uint64_t budget : {uint64_t(1), 3 * expert_bytes, uint64_t(0)}) {
        c.expert_budget = budget;
        Rig disk(weights, c, 40, 1, 64);
        const std::vector<float> got = run(disk);
        INFO("budget " << budget);
        CHECK(!std::memcmp(got.data(), expected.data(), got.size() * 4));
    }
    c.expert_budget = 1;
    Rig disk(weights, c, 40, 1, 64);
    run(disk);
    REQUIRE(truncate(path.c_str(), off_t(offset / 50)) == 0);
    try {
        run(disk);
        FAIL("a file that ends too early went unnoticed");
    } catch (const Error &e) {
        CHECK(e.status == DSV4_E_DEVICE);
        CHECK(std::string(e.what()).find(path) != std::string::npos);
        CHECK(std::string(e.what()).find("offset") != std::string::npos);
    }
    std::remove(path.c_str());
}
