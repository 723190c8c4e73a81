// Cost of a token mask: mask_bench [tokenizer.json [words]]. Without a tokenizer, a made-up vocabulary of the same size;
// with words, only workloads that have them in their names.
// "first": maybe a state never seen by this constraint; "again": seen before. Exit status 1: a mask took more than 1 ms
// of processor time. A shared machine adds as much to any of them now and then, so one that did is asked for twice more,
// each time with a vocabulary and a constraint made anew, and the least counts.
#include <algorithm>
#include <cstdio>
#include <ctime>

#include "tests/unit/dsml/sampling.hpp"
#include "tests/unit/dsml/vocabulary.hpp"

using namespace dsv4;

namespace {

/// Seconds of processor time: a shared machine's other work does not count.
double now() {
    timespec t{};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

double us(double begin) { return (now() - begin) * 1e6; }

void report(const char *name, std::vector<double> &t) {
    std::sort(t.begin(), t.end());
    if (t.empty()) return;
    std::printf("  %-22s n=%-6zu median %8.2f us   p90 %8.2f   p99 %8.2f   max %8.2f\n", name, t.size(), t[t.size() / 2],
                t[t.size() * 9 / 10], t[t.size() * 99 / 100], t.back());
}

ConstraintOptions tool(const std::string &parameters) {
    ConstraintOptions out;
    out.tool_choice = ConstraintOptions::ToolChoice::required;
    out.tools = R"([{"type":"function","function":{"name":"edit","parameters":)" + parameters + "}}]";
    return out;
}

std::string numbered_enum(int n) {
    std::string out = "\"enum\":[";
    for (int i = 0; i < n; ++i) out += (i ? ",\"the value " : "\"the value ") + std::to_string(i * 7919 % n) + " of many\"";
    return out + "]";
}

std::string chosen;  // words of the workloads to run
bool any = false;    // of them was there
VocabularySource source;
constexpr double kWorst = 1000;  // us

/// The mask after these tokens, from nothing.
double first_mask(const ConstraintOptions &options, const std::vector<uint32_t> &tokens) {
    const auto constraint = Constraint::compile(std::make_shared<const Vocabulary>(source), options);
    ConstraintState state = constraint->start();
    for (const uint32_t t : tokens) {
        (void)state.allowed();
        state.advance(t);
    }
    const double begin = now();
    (void)state.allowed();
    return us(begin);
}

/// Random completions under the constraint; false when a state's first mask takes more than kWorst.
bool bench(const char *name, const std::shared_ptr<const Vocabulary> &vocabulary, const ConstraintOptions &options) {
    constexpr int kRuns = 16, kSteps = 300;
    if (std::string(name).find(chosen) == std::string::npos) return true;
    any = true;
    std::mt19937 random(3);
    std::vector<double> cold, warm, walk;
    double worst = 0, compile = 0;
    std::vector<double> repeated;
    std::string at;
    std::shared_ptr<const Constraint> constraint;
    for (int run = 0; run < kRuns; ++run) {
        // Caches of the constraint start empty in every fourth run; those of the vocabulary stay, as in a server.
        if (run % 4 == 0) {
            const double begin = now();
            constraint = Constraint::compile(vocabulary, options);
            compile = us(begin);
        }
        ConstraintState state = constraint->start();
        std::string text;
        std::vector<uint32_t> taken;
        for (int step = 0; step < kSteps && !state.is_terminal(); ++step) {
            double begin = now();
            const auto mask = state.allowed();
            double first = us(begin);
            if (first > kWorst) {
                repeated.push_back(first);
                for (int i = 0; i < 2; ++i) first = std::min(first, first_mask(options, taken));
            }
            cold.push_back(first);
            if (first > worst) worst = first, at = text.size() > 60 ? text.substr(text.size() - 60) : text;
            begin = now();
            (void)state.allowed();
            warm.push_back(us(begin));
            const std::vector<uint32_t> tokens = test::tokens_of(*mask);
            uint32_t token = tokens[random() % tokens.size()];
            if (random() % 3 == 0) {  // towards the end, so that every part of the grammar is seen
                uint32_t best = UINT32_MAX;
                for (int i = 0; i < 50; ++i) {
                    const uint32_t t = tokens[random() % tokens.size()];
                    ConstraintState next = state;
                    next.advance(t);
                    const uint32_t left = next.is_terminal() ? 0 : next.least_remaining();
                    if (left < best) best = left, token = t;
                }
            }
            begin = now();
            state.advance(token);
            walk.push_back(us(begin));
            taken.push_back(token);
            text += vocabulary->bytes(token);
        }
    }
    std::printf("%s: compile %.1f ms\n", name, compile / 1e3);
    report("mask, first", cold);
    report("mask, again", warm);
    report("advance", walk);
    for (char &c : at)
        if (c == '\n') c = ' ';
    std::printf("  slowest after: %s\n", at.c_str());
    if (!repeated.empty())
        std::printf("  asked for again: %zu masks that took up to %.0f us\n", repeated.size(),
                    *std::max_element(repeated.begin(), repeated.end()));
    return worst <= kWorst;
}

}  // namespace

int main(int argc, char **argv) {
    const std::string path = argc > 1 ? argv[1] : DSV4_SOURCE_DIR "/../shared/data/tokenizer/tokenizer.json";
    if (argc > 2) chosen = argv[2];
    if (!test::published_source(path, source)) {
        std::printf("%s is absent: made-up vocabulary\n", path.c_str());
        source = test::made_up_source(129280);
    }
    const double begin = now();
    const auto vocabulary = std::make_shared<const Vocabulary>(source);
    std::printf("vocabulary: %zu tokens, %zu trie nodes, %.1f ms\n", vocabulary->size(), vocabulary->trie().size(), us(begin) / 1e3);
    bool good = bench("tool with limits", vocabulary, tool(R"({"type":"object","required":["path","edits"],
        "properties":{"path":{"type":"string"},"mode":{"type":"string","enum":["append","replace"]},"limit":{"type":"integer","minimum":1,"maximum":5000},
        "title":{"type":"string","maxLength":80},"when":{"type":"string","format":"date-time"},"id":{"type":"string","pattern":"^[a-z][a-z0-9_]*$"},
        "edits":{"type":"array","minItems":2,"items":{"type":"object","required":["old","new"],"properties":{"old":{"type":"string"},"new":{"type":"string"},
        "note":{"type":["string","null"],"maxLength":40},"line":{"type":"number"},"extra":{}}}}}})"));
    const std::vector<std::string> strings = {
        R"("maxLength":300)", R"("minLength":20,"maxLength":25)", R"("minLength":40)", R"("pattern":"^[a-z]+$")",
        R"("pattern":"^[A-Za-z0-9_-]{1,64}$")", R"("pattern":"^[^,]*$")", R"("pattern":"foo.*bar")", R"("pattern":"^https?://.+$")",
        R"("pattern":"^[A-Z][^0-9]*$","maxLength":50)", R"("pattern":"^.{3,30}$")", R"("format":"email")", R"("format":"uri")",
        R"("pattern":"^([A-Za-z]+ )*[A-Za-z]+$")", R"("pattern":"^[^a]*$","maxLength":12)", R"("pattern":"^\\S+$")",
        // Meant to break the ready-made parts: letters forbidden, and forbidden only after others or in some places,
        // separators, alternations, half of Unicode, many constants.
        R"("pattern":"^[^ae]*$","minLength":30,"maxLength":200)", R"("pattern":"^([^a]|a[^b])*$","maxLength":100)",
        R"("pattern":"^([^aeiou]?[^a-y]?[^ ])*$")", R"("pattern":"^([^ ,]+(, | )?)*$")", R"("pattern":"^[0-9]{1,3}(,[0-9]{3})*$")",
        R"("pattern":"^(the|a|in|of|[b-y]+ )*$","maxLength":60)", R"("pattern":"^([A-Z][a-z]*[ .-])+$","maxLength":90)",
        R"("pattern":"^[\\u0000-\\u4fff]*$","maxLength":64)", R"("pattern":"^[^aeiou]*(ing|[^g])*$")",
        R"("pattern":"^([^a]{2}a?)*$","maxLength":48)", R"("pattern":"^([^a]|a[^b]|ab[^c])*$")",
        R"("pattern":"^([^aeinst]|a[^b]|e[^f]|i[^j]|n[^k]|s[^l]|t[^m])*$")",
        R"("pattern":"^([^aeinst]|a[^be]|e[^fi]|i[^jn]|n[^ks]|s[^lt]|t[^ma]|[A-Z][^o]|[0-9][^ ])*$","maxLength":120)",
        numbered_enum(500)};
    std::string nested = R"({"type":"string","pattern":"^[^a]{0,20}$"})", several;
    for (int i = 0; i < 24; ++i) nested = R"({"type":"object","required":["n"],"properties":{"n":)" + nested + "}}";
    good &= bench("24 nested objects", vocabulary, tool(R"({"type":"object","required":["o"],"properties":{"o":)" + nested + "}}"));
    for (const char *letter : {"a", "e", "i", "n", "s", "t"})
        several += (several.empty() ? "" : ",") + (R"({"type":"string","pattern":"^([^)" + std::string(letter)) +
                   R"(]|)" + letter + R"([^b])*$"})";
    good &= bench("anyOf 6 patterns", vocabulary, tool(R"({"type":"object","required":["s"],"properties":{"s":{"anyOf":[)" + several + "]}}}"));
    for (const char *more : {"", R"(,"maxLength":100)"}) {
        std::string twelve;
        for (const char *letters : {"ab", "ec", "id", "nf", "sg", "th", "oj", "rk", "lm", "uq", "dv", "cx"})
            twelve += (twelve.empty() ? "" : ",") + (R"({"type":"string","pattern":"^([^)" + std::string(1, letters[0])) + "]|" +
                      letters[0] + "[^" + letters[1] + "])*$\"" + more + "}";
        twelve = R"({"anyOf":[)" + twelve + "]}";
        good &= bench(*more ? "anyOf 12 patterns, maxLength 100" : "anyOf 12 patterns", vocabulary,
            tool(R"({"type":"object","required":["raw","in"],"properties":{"raw":)" + twelve + R"(,"in":{"type":"array","minItems":2,"items":)" +
                 twelve + "}}}"));
    }
    std::string eight;
    for (const char letter : std::string("aeiourst"))
        eight += (eight.empty() ? "\"" : ",\"") + std::string(1, letter) + R"(":{"type":"string","pattern":"^([^)" + letter + "]{2}" + letter +
                 R"(?|x[^)" + letter + R"(])*$"})";
    good &= bench("3 to 5 of 8 properties with patterns", vocabulary, tool(R"({"type":"object","minProperties":2,"properties":{"o":{"type":"object",
        "minProperties":3,"maxProperties":5,"properties":{)" + eight + "}}," + eight + "}}"));
    for (const std::string &keywords : strings) {
        const std::string text = R"({"type":"string",)" + keywords + "}";
        good &= bench(("string " + keywords.substr(0, 60)).c_str(), vocabulary, tool(R"({"type":"object","required":["raw","in"],"properties":{"raw":)" +
            text + R"(,"in":{"type":"array","minItems":2,"items":)" + text + "}}}"));
    }
    ConstraintOptions free;
    free.thinking = true;
    free.tools = tool(R"({"type":"object"})").tools;
    good &= bench("reasoning, content", vocabulary, free);
    free = {};
    free.response_format = R"({"type":"json_object"})";
    good &= bench("any JSON object", vocabulary, free);
    if (!any) {
        std::fprintf(stderr, "no workload is called '%s'\n", chosen.c_str());
        return 2;
    }
    return good ? 0 : 1;
}
