// Texts of so many characters against the automaton multiplied by the count: state by state, and their masks.
#include <algorithm>
#include <set>

#include "core/error.hpp"
#include "core/text/constraint_state.hpp"
#include "core/text/grammar_counted.hpp"
#include "core/text/grammar_text.hpp"
#include "tests/catch.hpp"
#include "tests/unit/dsml/sampling.hpp"
#include "tests/unit/dsml/vocabulary.hpp"

using namespace dsv4;

namespace {

struct Limits {
    size_t min, max;
};
constexpr size_t kEndless = SIZE_MAX;

/// Without limits as it is, else as lengths count it.
Dfa text_of(const char *pattern, TextForm form, const Limits &limits) {
    std::string reason;
    const Dfa plain = intersect(*pattern_text(pattern, form, reason), dfa_avoiding({std::string(kDsmlToken)}), "test");
    return limits.min == 0 && limits.max == kEndless ? plain : intersect(plain, counted_characters(form), "test");
}

Dfa multiplied(const char *pattern, TextForm form, const Limits &limits) {
    Dfa text = text_of(pattern, form, limits);
    if (limits.min > 0 || limits.max != kEndless)
        text = intersect(text, dfa_counted(counted_characters(form), limits.min, limits.max, "test"), "test");
    return dfa_followed_by(text, text_tail(form), "test");
}

/// With tokens longer than any mask by length has, of one kind of character or mixed, some ending a text.
std::shared_ptr<const Vocabulary> vocabulary() {
    static const auto made = [] {
        VocabularySource source = test::made_up_source(1500, 3);
        const auto add = [&](const std::string &text) {
            source.tokens.push_back(text);
            source.added.push_back(false);
        };
        for (const size_t n : {31u, 32u, 33u, 70u, 200u, 254u}) {
            add(std::string(n, ' '));
            add(std::string(n, 'a') + "</");
            add(std::string(n - 1, 'b') + "\",");
            std::string wide;
            for (size_t i = 0; i + 4 < n; i += 3) wide += "\xE4\xBD\xA0";
            add(wide + "x");
            add(wide + "\xE4\xBD");
        }
        for (const char *text :
             {"n\\n", "\\n\\n", "\\\\", "\"\"", "n\"]", "\xBD\xA0", "\xA0\"}", "\x98\x80</", "/<", "/\n", "<</", "b</", "]]", "]]]", "]]]]", "[[",
              "null]]", "null, [[null]], ", "\"], [\"", "\"],"})
            add(text);
        return std::make_shared<const Vocabulary>(std::move(source));
    }();
    return made;
}

/// Both from their starts: every pair of states that a text leads to. The pairs.
std::vector<std::pair<int32_t, int32_t>> same_language(const CountedText &counted, const Dfa &dfa) {
    std::vector<uint8_t> bytes;
    std::set<std::pair<uint8_t, uint8_t>> classes;
    for (unsigned b = 0; b < 256; ++b)
        if (classes.emplace(counted.text.class_of[b], dfa.class_of[b]).second || b == '<' || b == '/' || b == '"')
            bytes.push_back(static_cast<uint8_t>(b));
    std::vector<std::pair<int32_t, int32_t>> queue = {{counted.start(), dfa.start}};
    std::set<std::pair<int32_t, int32_t>> seen(queue.begin(), queue.end());
    for (size_t head = 0; head < queue.size(); ++head) {
        const auto [a, b] = queue[head];
        if (counted.accepts(a) != (dfa.accept[static_cast<size_t>(b)] != 0)) FAIL("one ends here");
        if (counted.distance(a) != dfa.distance[static_cast<size_t>(b)]) FAIL("distances differ");
        std::array<bool, 256> first{};
        counted.add_first(a, first);
        for (const uint8_t byte : bytes) {
            if (first[byte] != (dfa.next(b, byte) >= 0)) FAIL("first bytes differ");
            const std::pair to(counted.next(a, byte), dfa.next(b, byte));
            if ((to.first < 0) != (to.second < 0)) FAIL("one dies");
            if (to.first >= 0 && seen.insert(to).second) queue.push_back(to);
        }
    }
    return queue;
}

/// What the automaton does to every token by itself, and the trie's nodes with children at which it accepts.
LeafMask walked(const Vocabulary &v, const Dfa &dfa, int32_t state) {
    LeafMask out{TokenMask(v.words(), 0), {}};
    for (uint32_t t = 0; t < v.size(); ++t)
        if (!v.added(t) && !v.bytes(t).empty() && v.bytes(t).size() < 255 && dfa.run(state, v.bytes(t)) >= 0)
            mask_set(out.inside, t);
    std::array<int32_t, 256> states;
    states[0] = state;
    for (uint32_t i = 1; i < v.trie().size();) {
        const TrieNode &node = v.trie()[i];
        const int32_t to = dfa.next(states[node.depth - 1u], node.byte);
        states[node.depth] = to;
        if (to >= 0 && dfa.accept[static_cast<size_t>(to)] && node.end > i + 1) out.exits.push_back(i);
        i = to < 0 ? node.end : i + 1;
    }
    return out;
}

void same_mask(const LeafMask &mask, const LeafMask &expected) {
    REQUIRE(mask.inside == expected.inside);
    std::vector<uint32_t> exits = mask.exits;
    std::sort(exits.begin(), exits.end());
    exits.erase(std::unique(exits.begin(), exits.end()), exits.end());
    REQUIRE(exits == expected.exits);
}

const char *const kPatterns[] = {"", "^([^a]|a[^b])*$", "^(the|an?) [^x]*$", "^[A-Z][^0-9]*$", "^(ab)*cde$", "b$",
    "^.{3,30}$", "^([^a]|a[^b])*n$", "^(|a|e\\u4f60|\\n<)*$", "^[^<]*<?/?$", "^[\\u0000-\\u4fff]*$",
    "^(x.?|[^x]{5,9})$",
    "abc{16}de?$", "^the letters a{33}", "^[\"\\\\]*$"};

}  // namespace

TEST_CASE("counted texts are what multiplying gives, states and masks") {
    const Vocabulary &v = *vocabulary();
    size_t counted_ones = 0;
    for (const char *pattern : kPatterns)
        for (const TextForm form : {TextForm::raw, TextForm::json})
            for (const Limits &limits :
                 {Limits{0, kEndless}, {0, 0}, {0, 1}, {1, 9}, {3, 3}, {5, kEndless}, {0, 40}, {30, 300}}) {
                if (limits.max == 300 && pattern != kPatterns[0] && pattern != kPatterns[1]) continue;  // these take longest
                CAPTURE(pattern, form == TextForm::json, limits.min, limits.max);
                std::unique_ptr<const CountedText> counted;
                try {
                    counted = CountedText::make(text_of(pattern, form, limits), form, limits.min, limits.max);
                } catch (const Error &) {  // nothing of this pattern can be counted
                }
                if (!counted) continue;
                ++counted_ones;
                const Dfa dfa = multiplied(pattern, form, limits);
                const auto pairs = same_language(*counted, dfa);
                Leaf plain(CountedText::make(text_of(pattern, form, limits), form, limits.min, limits.max));
                Leaf folded(std::move(counted));
                folded.prepare(v);
                const size_t stride = pairs.size() / 24 + 1;
                for (size_t i = 0; i < pairs.size(); i += stride) {
                    const LeafMask expected = walked(v, dfa, pairs[i].second);
                    same_mask(*plain.mask(v, pairs[i].first), expected);
                    same_mask(*folded.mask(v, pairs[i].first), expected);
                }
            }
    CHECK(counted_ones > 140);
}

TEST_CASE("what cannot be counted is refused") {
    const auto made = [](const char *pattern, size_t min, size_t max) {
        return CountedText::make(text_of(pattern, TextForm::json, {min, max}), TextForm::json, min, max) != nullptr;
    };
    CHECK(made("^(abcd)*$", 3, 9));
    CHECK_FALSE(made("^(abcd)*$", 5, 7));           // no such text
    CHECK_FALSE(made("^abc$", 0, 2));
    CHECK_FALSE(made("^(x.|y.{5})$", 4, 9));        // "x" has room and cannot be finished
    CHECK(made("^(x.|y.{5})$", 0, 9));
    CHECK(made("^a{61}.*$", 0, 90));
    CHECK_FALSE(made("^a{62}.*$", 0, 90));  // 63 levels
    CHECK(made("^a{62}.*$", 0, kEndless));
    CHECK_FALSE(made("", 0, 1u << 20));
    CHECK_FALSE(made("", 0, kEndless - 1));
    CHECK_FALSE(made("", kEndless - 1, kEndless));
    // A \u escape is one character for JSON and none that is counted.
    std::string reason;
    CHECK(CountedText::make(any_text(TextForm::json), TextForm::json, 0, kEndless) != nullptr);
    CHECK(CountedText::make(any_text(TextForm::json), TextForm::json, 0, 9) == nullptr);
}

TEST_CASE("tokens by level: a sweep, a folded trie and a walk agree") {
    const Vocabulary &v = *vocabulary();
    for (const char *pattern : {"^([^a]|a[^b]|ab[^c])*$", "^(the|an?) [^x]*$", "^([^a]|a[^b])*n$", "abc{16}de?$"})
        for (const TextForm form : {TextForm::raw, TextForm::json}) {
            const auto counted = CountedText::make(text_of(pattern, form, {0, 90}), form, 0, 90);
            REQUIRE(counted);
            const size_t levels = counted->late().size();
            REQUIRE(levels > 1);
            const auto folded = FoldedTrie::make(v.sweep(), counted->text, false);
            REQUIRE(folded);
            for (size_t s = 0; s < counted->text.size(); ++s) {
                const auto state = static_cast<int32_t>(s);
                std::vector<TokenMask> expected(levels, TokenMask(v.words(), 0)), swept, stepped;
                for (uint32_t t = 0; t < v.size(); ++t) {
                    const int32_t to =
                        v.added(t) || v.bytes(t).size() >= 255 ? Dfa::kDead : counted->text.run(state, v.bytes(t));
                    if (to >= 0) mask_set(expected[counted->levels()[static_cast<size_t>(to) + 1] - 1u], t);
                }
                swept = v.sweep().tokens_by_level(counted->text, state, counted->levels(), levels);
                stepped = folded->tokens_by_level(counted->text, state, counted->levels(), levels);
                for (auto *masks : {&swept, &stepped})
                    for (TokenMask &mask : *masks)
                        if (mask.empty()) mask.assign(v.words(), 0);
                REQUIRE(swept == expected);
                REQUIRE(stepped == expected);
            }
        }
}

namespace {

std::shared_ptr<const Constraint> compiled(const std::string &schema) {
    ConstraintOptions options;
    options.tools = R"([{"name":"f","parameters":{"type":"object","required":["raw","in"],"properties":{"raw":)" +
                    schema + R"(,"in":{"type":"array","minItems":2,"items":)" + schema + "}}}}]";
    options.tool_choice = ConstraintOptions::ToolChoice::required;
    return Constraint::compile(vocabulary(), options);
}

void exact_here(const ConstraintState &state, const Vocabulary &v) {
    const std::shared_ptr<const TokenMask> mask = state.allowed();
    for (uint32_t t = 0; t < v.size(); ++t)
        if (mask_has(*mask, t) != state.accepts(t)) {
            CAPTURE(v.bytes(t));
            FAIL("mask and automaton disagree");
        }
}

/// Random completions: every mask has exactly the tokens that advance takes.
void exact(const Constraint &constraint, int runs, int steps) {
    const Vocabulary &v = constraint.vocabulary();
    std::mt19937 random(11);
    for (int run = 0; run < runs; ++run) {
        ConstraintState state = constraint.start();
        for (int step = 0; step < steps && !state.is_terminal(); ++step) {
            CAPTURE(run, step);
            exact_here(state, v);
            const std::vector<uint32_t> tokens = test::tokens_of(*state.allowed());
            REQUIRE(!tokens.empty());
            uint32_t token = tokens[random() % tokens.size()];
            if (step < 9 || step % 4 == 0) {  // to the first text, and then out of each
                uint32_t best = UINT32_MAX;
                for (const uint32_t t : tokens) {
                    ConstraintState next = state;
                    next.advance(t);
                    const uint32_t left = next.is_terminal() ? 0 : next.least_remaining();
                    if (left < best) best = left, token = t;
                }
            }
            state.advance(token);
        }
    }
    SUCCEED();
}

}  // namespace

TEST_CASE("masks of alternatives with limits of their own are exact") {
    for (const char *parts :
         {R"({"maxLength":4},{"pattern":"^([^a]|a[^b])*$","maxLength":7},{"enum":["abc","ab","","a</b"]})",
          R"({"maxLength":0},{"enum":["\"q\"","xyz"]},{"pattern":"^([^e]|e[^n])*n$","maxLength":33})",
          R"({"pattern":"^[^,]*$"},{"minLength":2,"maxLength":2},{"format":"date"},{"enum":["2024-01-02","2024"]})",
          R"({"minLength":12},{"pattern":"^(ab)*cde$","maxLength":9},{"const":"cde"},{"maxLength":300})",
          R"({"pattern":"^a{63}.*$","maxLength":90},{"pattern":"^the name is: [^,]*$","maxLength":40},{"maxLength":1},)"
          R"({"pattern":"^(x.|y.{5})$","minLength":4})"}) {
        CAPTURE(parts);
        std::string typed = parts;
        for (size_t at = 0; (at = typed.find("{\"", at)) != std::string::npos; at += 2)
            typed.insert(at + 1, R"("type":"string",)");
        exact(*compiled(R"({"anyOf":[)" + typed + "]}"), 3, 36);
    }
}

/// At every byte of the text, which ends the answer.
void exact_along(const std::string &schema, const std::string &text) {
    ConstraintOptions options;
    options.response_format = R"({"type":"json_schema","json_schema":{"schema":)" + schema + "}}";
    ConstraintState state = Constraint::compile(vocabulary(), options)->start();
    for (const char c : text) {
        exact_here(state, *vocabulary());
        state.advance(static_cast<uint8_t>(c));
    }
    exact_here(state, *vocabulary());
    CHECK(state.may_stop());
}

TEST_CASE("tokens that go on behind a text follow every way to read what is open") {
    exact_along(R"({"$ref":"#/$defs/t","$defs":{"t":{"type":"array","items":{"anyOf":[{"$ref":"#/$defs/t"},{"type":"null"}]}}}})",
                "[[[null, [], [[null]]], null]]");
    // The same list within two others, of which one is full.
    const std::string list = R"({"type":"array","items":{"type":"string","maxLength":5}})";
    exact_along(R"({"anyOf":[{"type":"array","maxItems":1,"items":)" + list + R"(},{"type":"array","items":)" + list + "}]}",
                R"([["x", "yz"], [""]])");
}
