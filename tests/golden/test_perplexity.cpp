// Does every backend, in every numerics and on every instruction set, predict held-out text as well as the reference?
// The text: the default model's evaluation conversations (samples/tiny-model/quick.jsonl), whose names training never
// saw, with the right answers.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <future>
#include <numeric>
#include <optional>
#include <nlohmann/json.hpp>

#include "core/engine/tokenizer_file.hpp"
#include "core/model/forward.hpp"
#include "core/plugin/registry.hpp"
#include "core/text/encoder.hpp"
#include "tests/catch.hpp"

using namespace dsv4;

namespace {

const std::string folder = DSV4_SOURCE_DIR "/samples/tiny-model";

using Texts = std::vector<std::vector<int32_t>>;

/// The conversations whose id starts with one of these, as the model reads them.
Texts conversations(const std::vector<std::string> &ids) {
    const auto tokenizer = load_tokenizer(folder);
    std::ifstream file(folder + "/quick.jsonl");
    Texts out;
    for (std::string line; std::getline(file, line);) {
        auto item = nlohmann::ordered_json::parse(line);  // the order of a schema's members is part of the prompt
        const auto id = item["id"].get<std::string>();
        if (std::none_of(ids.begin(), ids.end(), [&](const auto &p) { return id.rfind(p, 0) == 0; })) continue;
        auto &request = item["request"];
        for (auto &m : item["gold"]) request["messages"].push_back(std::move(m));
        const auto prompt = encode_prompt(Conversation::from_request(request.dump()), find_dialect("preview"));
        out.push_back(tokenizer->encode(prompt.text));
    }
    return out;
}

/// Of all tokens but each text's first, which nothing predicts.
struct Score {
    std::vector<double> loss;   // nats
    std::vector<int32_t> top;   // the first choice
    std::vector<bool> sure;     // which has more than half of the probability
};

Score score(const dsv4_backend &backend, int32_t numerics, const std::string &variant, const Texts &texts,
            bool damaged = false) {
    dsv4_device_options options;
    DSV4_INIT(options);
    options.numerics = numerics;
    options.variant = {variant.data(), variant.size()};
    const Device device(backend, options);
    ModelWeights weights = map_weights(Checkpoint::open(folder));
    weights.mtp.clear();
    dsv4_shape shape = weights.config().shape;
    if (damaged) {
        shape.window = 32;
        shape.index_topk = 1;
    }
    const Network network = load_network(device, shape, weights, DSV4_TIER_DEVICE, {});
    Capacity c{};
    c.tokens = c.outputs = 256;
    c.sequences = 1;
    DSV4_INIT(c.cache);
    c.cache.slots = 1;
    c.cache.block_tokens = 128;
    for (const auto &t : texts) c.cache.blocks = std::max(c.cache.blocks, int32_t(t.size() + 127) / 128);
    c.blocks_per_sequence = c.cache.blocks;
    c.cache.window_rows = shape.window + c.tokens;
    c.cache.state_slack = 16;
    std::vector<int32_t> blocks(size_t(c.cache.blocks));
    std::iota(blocks.begin(), blocks.end(), 0);

    Forward forward(device, network, c);
    Score s;
    for (const auto &ids : texts) {
        const auto last = int32_t(ids.size()) - 1;
        for (int32_t start = 0; start < last; start += c.tokens) {
            std::vector<int32_t> rows(size_t(std::min(c.tokens, last - start)));
            std::iota(rows.begin(), rows.end(), 0);
            Step step;
            step.add(ids.data() + start, int32_t(rows.size()), start, 0, blocks, rows);
            std::vector<float> logits;
            forward.run(step, logits);
            for (size_t i = 0; i < rows.size(); ++i) {
                const float *row = logits.data() + i * size_t(shape.vocab), *end = row + shape.vocab;
                const float *most = std::max_element(row, end);
                double sum = 0;
                for (const float *x = row; x != end; ++x) sum += std::exp(double(*x) - double(*most));
                s.loss.push_back(double(*most) + std::log(sum) - double(row[ids[size_t(start) + i + 1]]));
                s.top.push_back(int32_t(most - row));
                s.sure.push_back(sum < 2);
            }
        }
    }
    return s;
}

/// Tokens [begin, end) of the scores.
struct Part {
    const char *name;
    size_t begin, end;
    double perplexity;  // what the reference measured when the model was made
    double least_same;
};

struct Comparison {
    double ratio, same, same_sure;
};

double perplexity(const Score &s, const Part &p) {
    const double sum = std::accumulate(s.loss.begin() + ptrdiff_t(p.begin), s.loss.begin() + ptrdiff_t(p.end), 0.0);
    return std::exp(sum / double(p.end - p.begin));
}

Comparison compare(const std::string &what, const Part &part, const Score &s, const Score &reference) {
    size_t same = 0, sure = 0, same_sure = 0;
    for (size_t i = part.begin; i < part.end; ++i) {
        const bool equal = s.top[i] == reference.top[i];
        same += equal;
        sure += reference.sure[i];
        same_sure += equal && reference.sure[i];
    }
    const double mine = perplexity(s, part);
    const Comparison c{mine / perplexity(reference, part), double(same) / double(part.end - part.begin),
                       double(same_sure) / double(sure)};
    std::printf("%-24s %-14s perplexity %.5f  ratio %.5f  same first choice %6.2f %%, where sure %6.2f %%\n",
                what.c_str(), part.name, mine, c.ratio, 100 * c.same, 100 * c.same_sure);
    return c;
}

/// One scoring of the CPU backend; nothing on a processor without that instruction set.
std::optional<Score> on_cpu(const dsv4_backend &cpu, int32_t numerics, const char *variant, const Texts &texts) {
    try {
        return score(cpu, numerics, variant, texts);
    } catch (const Error &e) {
        if (std::string(e.what()).find("instructions that this processor") == std::string::npos) throw;
        return std::nullopt;
    }
}

void compare_all(const Texts &texts, const std::vector<Part> &parts) {
    const PluginRegistry registry({DSV4_PLUGIN_DIR}, {});
    const dsv4_backend &reference = *registry.select("reference").table, &cpu = *registry.select("cpu").table;
    auto later = std::async(std::launch::async, [&] { return score(reference, DSV4_NUMERICS_OFFICIAL, "", texts); });
    const Score exact = score(reference, DSV4_NUMERICS_EXACT, "", texts);
    const Score official = later.get();
    const auto check = [&](const std::string &what, const Score &s, double tolerance) {
        for (const Part &part : parts) {
            const Comparison c = compare(what, part, s, exact);
            INFO(what << ", " << part.name);
            CHECK(std::abs(c.ratio - 1) < tolerance);
            CHECK(c.same >= part.least_same);
            CHECK(c.same_sure >= 0.99);
        }
    };
    for (const Part &part : parts) {
        compare("reference exact", part, exact, exact);
        CHECK(perplexity(exact, part) / part.perplexity == Approx(1).margin(0.01));
    }
    check("reference official", official, 0.01);

    int variants = 0;
    for (const char *variant : {"portable", "avx2", "avx512", "avx512_bf16", "amx", "onednn"}) {
        for (const auto &[numerics, name] : {std::pair<int32_t, const char *>{DSV4_NUMERICS_NATIVE, "native"},
                                            {DSV4_NUMERICS_EXACT, "exact"},
                                            {DSV4_NUMERICS_OFFICIAL, "official"}}) {
            const auto got = on_cpu(cpu, numerics, variant, texts);
            if (!got) break;
            variants += numerics == DSV4_NUMERICS_NATIVE;
            check("cpu " + std::string(variant) + " " + name, *got, 0.005);
        }
    }
    CHECK(variants >= 1);

    // The measure sees damage: a quarter of the window, and an indexer that keeps one entry.
    const Score damaged = score(cpu, DSV4_NUMERICS_EXACT, "", texts, true);
    for (const Part &part : parts) {
        const Comparison c = compare("cpu, damaged", part, damaged, exact);
        CHECK(std::abs(c.ratio - 1) > 0.01);
        CHECK(c.same < part.least_same);
        CHECK(c.same_sure < 0.99);
    }
}

/// Of these conversations and, last in the file, a long text with a fact in it: words drawn at random, so that the
/// first choice among equally likely ones is a matter of rounding, and only the sure choices must be the same.
void compare_conversations_and_text(const std::vector<std::string> &ids, double of_conversations, double of_text) {
    std::vector<std::string> all = ids;
    all.push_back("needle1k-0");
    const Texts texts = conversations(all);
    REQUIRE(texts.size() > ids.size());
    size_t tokens = 0;
    for (const auto &t : texts) tokens += t.size() - 1;
    const size_t text = texts.back().size() - 1;
    std::printf("%zu conversations, %zu tokens; a text, %zu tokens\n", texts.size() - 1, tokens - text, text);
    compare_all(texts, {{"conversations", 0, tokens - text, of_conversations, 0.98},
                        {"text", tokens - text, tokens, of_text, 0.92}});
}

}  // namespace

TEST_CASE("held-out conversations and a long text") {
    compare_conversations_and_text({"single-4", "multi-0", "chat"}, 1.38564, 5.02933);
}

TEST_CASE("all held-out conversations in the repository", "[.all]") {
    compare_conversations_and_text({"single", "multi", "chat"}, 1.22657, 5.02933);
}
