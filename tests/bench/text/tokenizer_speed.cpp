// How fast one core encodes: bench_text_tokenizer [--quick] [TOKENIZER.JSON]
// Prints the median and best of several passes in MB/s of text. Without a file, it trains a small vocabulary on the
// same text, which measures the code but not a real vocabulary's cache misses.
#include "core/text/byte_level.hpp"
#include "core/text/tokenizer.hpp"
#include "tests/unit/text/train_bpe.hpp"
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <fstream>
#include <random>
#include <sstream>

namespace {

/// Processor time: one thread does all the work, and other programs may share the machine.
double seconds_since(std::clock_t start) { return static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC; }

const char *const english_words[] = {
    "the",          "of",           "and",      "to",          "a",          "in",           "is",
    "that",         "for",          "it",       "was",         "on",         "as",           "with",
    "be",           "by",           "at",       "this",        "are",        "from",         "or",
    "have",         "an",           "they",     "which",       "one",        "were",         "all",
    "their",        "there",        "been",     "would",       "when",       "people",       "government",
    "question",     "remember",     "although", "water",       "between",    "several",      "important",
    "development",  "mountain",     "language", "according",   "experience", "understand",   "sometimes",
    "relationship", "environment",  "measured", "temperature", "yesterday",  "constitution", "photograph",
    "researchers",  "unexpectedly", "don't",    "it's",        "Berlin",     "Washington",   "November",
    "the",          "river",        "walked",   "slowly",      "towards",    "harbour",      "lantern",
    "quietly",      "eighteenth"};

const char *const code_lines[] = {"    for (size_t i = 0; i < values.size(); ++i) {\n",
                                  "        total += weight[i] * std::max(0.0f, input[i]);\n",
                                  "    if (error != nullptr) return fail(\"expected %d, found %d\", want, got);\n",
                                  "}\n\n",
                                  "def forward(self, hidden_states, attention_mask=None):\n",
                                  "        return self.proj(torch.cat([q, k], dim=-1))\n",
                                  "#include <unordered_map>\n",
                                  "const auto it = cache_.find(key);\n",
                                  "// see section 4.2 of the specification\n",
                                  "\tfmt.Fprintf(w, \"%s: %v\\n\", name, err)\n",
                                  "    let mut buf = Vec::with_capacity(1 << 16);\n",
                                  "SELECT id, name FROM users WHERE created_at > '2024-01-01';\n",
                                  "assert len(tokens) == 128, tokens[:10]\n",
                                  "static constexpr uint64_t kMultiplier = 0x9E3779B97F4A7C15ull;\n",
                                  "<div class=\"row\"><a href=\"/index.html\">x</a></div>\n"};

const char *const chinese_parts[] = {"今天", "天气", "很",   "好",   "我们",   "一起", "去",   "公园", "散步", "中国",
                                     "人民", "经济", "发展", "的",   "是",     "在",   "了",   "和",   "研究", "表明",
                                     "这个", "问题", "非常", "重要", "科学家", "发现", "一种", "新的", "方法", "可以",
                                     "提高", "效率", "北京", "上海", "历史",   "文化", "技术", "模型", "语言", "学习",
                                     "数据", "因此", "但是", "如果", "没有",   "时候", "孩子", "老师", "学校", "山水"};

std::string english(size_t size, std::mt19937 &random) {
    std::string text;
    while (text.size() < size) {
        const unsigned r = random();
        // Short words are the most frequent ones: squaring a uniform number gives a plausible fall-off.
        const double u = (r & 0xFFFF) / 65536.0;
        text += english_words[static_cast<size_t>(u * u * std::size(english_words))];
        const unsigned end = (r >> 16) % 64;
        if (end < 4) text += ", ";
        else if (end < 8) text += ". ";
        else if (end == 8) text += ".\n\n";
        else if (end == 9) text.append(" ").append(std::to_string(1900 + r % 130)).append(" ");
        else text += ' ';
    }
    return text;
}

template <size_t N>
std::string joined(size_t size, std::mt19937 &random, const char *const (&parts)[N], bool punctuate) {
    std::string text;
    while (text.size() < size) {
        const unsigned r = random();
        text += parts[r % N];
        if (punctuate && (r >> 16) % 8 == 0) text += (r >> 20) % 3 == 0 ? "。" : "，";
    }
    return text;
}

} // namespace

int main(int argc, char **argv) {
    bool quick = false;
    std::string path = DSV4_SOURCE_DIR "/../shared/data/tokenizer/tokenizer.json";
    for (int i = 1; i < argc; ++i)
        if (std::strcmp(argv[i], "--quick") == 0) quick = true;
        else path = argv[i];

    std::mt19937 random(7);
    const size_t size = quick ? 200'000 : 4'000'000;
    const std::pair<const char *, std::string> texts[] = {{"english", english(size, random)},
                                                          {"code", joined(size, random, code_lines, false)},
                                                          {"chinese", joined(size, random, chinese_parts, true)}};
    std::ostringstream read;
    std::ifstream file(path, std::ios::binary);
    if (file) read << file.rdbuf();
    std::string json = read.str();
    if (json.empty()) {
        std::printf("%s: not found, training a small vocabulary instead\n", path.c_str());
        json = dsv4::test::train_tokenizer_json(texts[0].second.substr(0, 20'000) + texts[1].second.substr(0, 20'000) +
                                                    texts[2].second.substr(0, 20'000),
                                                600, {"<s>"});
    }
    const auto loading = std::clock();
    const dsv4::Tokenizer tokenizer = dsv4::Tokenizer::from_json(json);
    std::printf("load      %7.3f s\n", seconds_since(loading));

    for (const auto &[name, text] : texts) {
        std::vector<double> rates;
        size_t tokens = 0;
        for (int pass = 0; pass < (quick ? 3 : 9); ++pass) {
            const auto start = std::clock();
            tokens = tokenizer.encode(text).size();
            rates.push_back(static_cast<double>(text.size()) / 1e6 / seconds_since(start));
        }
        std::sort(rates.begin(), rates.end());
        std::printf("%-8s %7.1f MB/s median, %7.1f best, %.2f bytes per token\n", name, rates[rates.size() / 2],
                    rates.back(), static_cast<double>(text.size()) / static_cast<double>(tokens));
    }
    return 0;
}
