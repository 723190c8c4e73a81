#include <algorithm>

#include "core/error.hpp"
#include "core/text/constraint_state.hpp"
#include "core/text/dsml_stream.hpp"
#include "core/text/grammar_text.hpp"
#include "tests/catch.hpp"
#include "tests/unit/dsml/sampling.hpp"
#include "tests/unit/dsml/vocabulary.hpp"

using namespace dsv4;
using Choice = ConstraintOptions::ToolChoice;

namespace {

std::shared_ptr<const Vocabulary> vocabulary() {
    static const auto made = std::make_shared<const Vocabulary>(test::made_up_source());
    return made;
}

const std::string D(kDsmlToken), E(kEosText);

/// Takes the text byte by byte, control texts as their tokens: "" if all of it is allowed, else what is left.
std::string refused(const Constraint &constraint, const std::string &text) {
    const Vocabulary &v = constraint.vocabulary();
    ConstraintState state = constraint.start();
    for (size_t i = 0; i < text.size();) {
        uint32_t token = static_cast<uint8_t>(text[i]);
        size_t n = 1;
        for (const Symbol s : {Symbol::dsml, Symbol::think_end, Symbol::eos}) {
            const std::string &spelled = v.bytes(static_cast<uint32_t>(v.symbol(s)));
            if (text.compare(i, spelled.size(), spelled) == 0) token = static_cast<uint32_t>(v.symbol(s)), n = spelled.size();
        }
        const bool allowed = mask_has(*state.allowed(), token);
        CHECK(allowed == state.accepts(token));
        if (!allowed) return text.substr(i);
        state.advance(token);
        i += n;
    }
    return state.is_terminal() ? "" : "(more)";
}

std::shared_ptr<const Constraint> for_tools(const std::string &tools, Choice choice = Choice::automatic) {
    ConstraintOptions options;
    options.tools = tools;
    options.tool_choice = choice;
    return Constraint::compile(vocabulary(), options);
}

std::shared_ptr<const Constraint> for_schema(const std::string &schema) {
    ConstraintOptions options;
    options.response_format = "{\"type\": \"json_schema\", \"json_schema\": {\"schema\": " + schema + "}}";
    return Constraint::compile(vocabulary(), options);
}
bool takes(const std::string &schema, const std::string &json) { return refused(*for_schema(schema), json + E).empty(); }
std::vector<std::string> unsupported(const std::string &schema) { return for_schema(schema)->unsupported(); }

std::string tool(const std::string &parameters, const std::string &name = "f") {
    return "[{\"type\": \"function\", \"function\": {\"name\": \"" + name + "\", \"parameters\": " + parameters + "}}]";
}
std::string call(const std::string &parameters, const std::string &name = "f") {
    return "<" + D + "invoke name=\"" + name + "\">\n" + parameters + "</" + D + "invoke>\n";
}
std::string parameter(const std::string &name, const char *string, const std::string &value) {
    return "<" + D + "parameter name=\"" + name + "\" string=\"" + string + "\">" + value + "</" + D + "parameter>\n";
}
std::string block(const std::string &calls) { return "\n\n<" + D + "tool_calls>\n" + calls + "</" + D + "tool_calls>" + E; }

}  // namespace

TEST_CASE("a whole completion: reasoning, content, calls, end") {
    ConstraintOptions options;
    options.thinking = true;
    options.tools = tool(R"({"type": "object", "properties": {"a": {"type": "string"}, "n": {"type": "integer"}}, "required": ["a"]})");
    const auto constraint = Constraint::compile(vocabulary(), options);
    CHECK(constraint->unsupported().empty());
    const std::string a = parameter("a", "true", " x<b></y> \n"), n = parameter("n", "false", "-12");
    CHECK(refused(*constraint, "hm <b></think>Hi" + block(call(a + n) + call(n + a))) == "");
    CHECK(refused(*constraint, "</think>" + E) == "");
    CHECK(refused(*constraint, "</think>Hi" + E) == "");
    CHECK(refused(*constraint, "hm" + E) == E);
    CHECK(refused(*constraint, "<" + D) == D);
    CHECK(refused(*constraint, "</think>\n<" + D) == D);
    CHECK(refused(*constraint, "</think></think>") == "</think>");
    CHECK(refused(*constraint, "</think>" + block(call(n))).substr(0, 1 + D.size()) == "/" + D);  // `a` is required
    CHECK(refused(*constraint, "</think>" + block(call(a + a))).substr(0, 2) == "a\"");            // twice
    CHECK(refused(*constraint, "</think>" + block(call(a))) == "");
    CHECK(refused(*constraint, "</think>" + block(call(a, "g"))).substr(0, 1) == "g");
    CHECK(refused(*constraint, "</think>" + block(call(parameter("n", "true", "1")))).substr(0, 4) == "true");
    CHECK(refused(*constraint, "</think>" + block(call(parameter("n", "false", "01")))).substr(0, 1) == "1");
    CHECK(refused(*constraint, "</think>a" + block(call(a)) + "x") == "x");
    CHECK(refused(*constraint, "</think>" + block("")).substr(0, 1) == "/");
}

TEST_CASE("texts of control tokens cannot be spelled with ordinary tokens") {
    const auto constraint = for_tools(tool("{}"));
    ConstraintState state = constraint->start();
    const std::string marker = "\n\n<" + D;
    for (size_t i = 0; i + 1 < marker.size(); ++i) state.advance(static_cast<uint8_t>(marker[i]));
    CHECK_FALSE(state.accepts(static_cast<uint8_t>(marker.back())));
    CHECK_THROWS_AS(state.advance(static_cast<uint8_t>(marker.back())), Error);
    CHECK(state.accepts(0x9B));  // any other character may still be finished
}

TEST_CASE("tool choice and parallel calls") {
    const std::string two = R"([{"type":"function","function":{"name":"f"}},{"type":"function","function":{"name":"g"}}])";
    CHECK(refused(*for_tools(two), block(call("\n", "g") + call("\n", "f"))) == "");
    CHECK(refused(*for_tools(two, Choice::none), "a" + E) == "");
    CHECK(refused(*for_tools(two, Choice::none), block(call("\n"))).substr(0, D.size()) == D);
    CHECK(refused(*for_tools(two, Choice::required), block(call("\n"))) == "");
    CHECK(refused(*for_tools(two, Choice::required), "a").substr(0, 1) == "a");
    ConstraintOptions options;
    options.tools = two;
    options.tool_choice = Choice::named;
    options.tool_name = "g";
    options.parallel_calls = false;
    const auto named = Constraint::compile(vocabulary(), options);
    CHECK(refused(*named, block(call("\n", "g"))) == "");
    CHECK(refused(*named, block(call("\n", "f"))).substr(0, 1) == "f");
    CHECK(refused(*named, block(call("\n", "g") + call("\n", "g"))).substr(0, D.size()) == D);
    options.tool_name = "h";
    CHECK_THROWS_AS(Constraint::compile(vocabulary(), options), Error);
}

TEST_CASE("schemas, keyword by keyword") {
    CHECK(takes(R"({"type":"object","properties":{"a":{"type":"integer"},"b":{"type":"null"}},"required":["a"]})", R"({"b": null, "a":1})"));
    CHECK_FALSE(takes(R"({"type":"object","properties":{"a":{"type":"integer"}},"required":["a"]})", "{}"));
    CHECK_FALSE(takes(R"({"type":"object","properties":{"a":{"type":"integer"}}})", R"({"a": 1, "a": 2})"));
    CHECK_FALSE(takes(R"({"type":"object","properties":{"a":{"type":"integer"}}})", R"({"b": 1})"));
    CHECK(takes(R"({"type":"object","properties":{"a":{"type":"integer"}},"additionalProperties":{"type":"boolean"}})", R"({"b": true, "a": 1, "c": false})"));
    CHECK_FALSE(takes(R"({"type":"object","properties":{"a":{"type":"integer"}},"additionalProperties":{"type":"boolean"}})", R"({"a": true})"));
    CHECK(takes(R"({"properties":{"a":{},"b":{}},"minProperties":1,"maxProperties":1})", R"({"b": [1, {"x": "y"}]})"));
    CHECK_FALSE(takes(R"({"properties":{"a":{},"b":{}},"minProperties":1})", "{}"));
    CHECK_FALSE(takes(R"({"properties":{"a":{},"b":{}},"maxProperties":1})", R"({"b": 1, "a": 1})"));
    CHECK(takes(R"({"type":"array","items":{"enum":["x",2,{"k":[1]}]},"minItems":2,"maxItems":3})", R"(["x", 2,{"k": [1]}])"));
    CHECK_FALSE(takes(R"({"type":"array","items":{"enum":["x"]},"minItems":2})", R"(["x"])"));
    CHECK_FALSE(takes(R"({"type":"array","items":{"enum":["x"]},"maxItems":1})", R"(["x","x"])"));
    CHECK(takes(R"({"type":["string","null"]})", "null"));
    CHECK(takes(R"({"anyOf":[{"type":"object","properties":{"k":{"const":1}},"required":["k"]},{"type":"object","properties":{"k":{"const":"a"}}}]})", R"({"k": "a"})"));
    CHECK(takes(R"({"allOf":[{"type":"integer","minimum":3},{"maximum":5}]})", "4"));
    CHECK_FALSE(takes(R"({"allOf":[{"type":"integer","minimum":3},{"maximum":5}]})", "6"));
    CHECK(takes(R"({"type":"string","pattern":"^a[\\d\"]+$"})", R"("a1\"2")"));
    CHECK_FALSE(takes(R"({"type":"string","pattern":"^a\\d+$"})", R"("a1b")"));
    CHECK(takes(R"({"type":"string","pattern":"b"})", R"("abc")"));
    CHECK(takes(R"({"type":"string","minLength":2,"maxLength":3})", R"("你\n")"));
    CHECK_FALSE(takes(R"({"type":"string","minLength":2})", R"("你")"));
    CHECK_FALSE(takes(R"({"type":"string","maxLength":3})", R"("abcd")"));
    CHECK(takes(R"({"type":"string","format":"date-time"})", R"("2024-02-28T23:59:59Z")"));
    CHECK_FALSE(takes(R"({"type":"string","format":"date"})", R"("2024-04-31")"));
    CHECK_FALSE(takes(R"({"type":"string"})", "\"\n\""));
    CHECK_FALSE(takes(R"({"type":"string"})", "\"<think>\""));
    CHECK_FALSE(takes(R"({"type":"string"})", "\"\\ud800\""));
    CHECK(takes(R"({"type":"string"})", "\"\\u00e9\\/\""));
}

TEST_CASE("numbers keep to their bounds exactly") {
    const auto schema = [](const char *bounds) { return std::string(R"({"type":"number",)") + bounds + "}"; };
    for (const char *text : {"0.1", "0.9", "0.5", "0.10", "0.899"}) CHECK(takes(schema(R"("minimum":0.1,"maximum":0.9)"), text));
    for (const char *text : {"0", "1", "0.09", "0.91", "0.9001", "-0.5"}) CHECK_FALSE(takes(schema(R"("minimum":0.1,"maximum":0.9)"), text));
    for (const char *text : {"-5", "-4.99", "0", "3.2", "3.19"}) CHECK(takes(schema(R"("minimum":-5,"maximum":3.2)"), text));
    for (const char *text : {"-5.01", "3.21", "-6", "4", "-0", "00"}) CHECK_FALSE(takes(schema(R"("minimum":-5,"maximum":3.2)"), text));
    CHECK_FALSE(takes(schema(R"("exclusiveMinimum":0,"exclusiveMaximum":1)"), "0"));
    CHECK_FALSE(takes(schema(R"("exclusiveMinimum":0,"exclusiveMaximum":1)"), "1"));
    CHECK_FALSE(takes(schema(R"("exclusiveMinimum":0,"exclusiveMaximum":1)"), "0.0"));
    CHECK(takes(schema(R"("exclusiveMinimum":0,"exclusiveMaximum":1)"), "0.001"));
    CHECK(takes(R"({"type":"number"})", "-1.5e-07"));
    for (int i = -30; i <= 130; ++i)
        CHECK(takes(R"({"type":"integer","minimum":-12,"exclusiveMaximum":107})", std::to_string(i)) == (i >= -12 && i < 107));
    CHECK(compare_decimals("-1.5", "-1.25") < 0);
    CHECK(plain_decimal("1.25e2") == std::string("125"));
    CHECK(plain_decimal("-1e-3") == std::string("-0.001"));
}

TEST_CASE("references, recursion and unions that contain themselves") {
    const std::string tree = R"({"$ref":"#/$defs/node","$defs":{"node":{"type":"object","properties":{"v":{"type":"integer"},
        "kids":{"type":"array","items":{"$ref":"#/$defs/node"}}},"required":["v"],"additionalProperties":false}}})";
    CHECK(takes(tree, R"({"v": 1, "kids": [{"v": 2}, {"kids": [], "v": 3}]})"));
    CHECK_FALSE(takes(tree, R"({"v": 1, "kids": [{}]})"));
    CHECK(takes(R"({"anyOf":[{"$ref":"#"},{"type":"null"}]})", "null"));
    CHECK(takes(R"({"anyOf":[{"type":"array","items":{"$ref":"#"}},{"type":"null"}]})", "[[], [null]]"));
}

TEST_CASE("what cannot be enforced is reported") {
    CHECK(unsupported(R"({"type":"object","properties":{"a":{"type":"array","uniqueItems":true}}})") ==
          std::vector<std::string>{"response_format.a: uniqueItems"});
    CHECK(unsupported(R"({"type":"integer","multipleOf":3})").size() == 1);
    CHECK(unsupported(R"x({"type":"string","pattern":"(?=a)"})x").size() == 1);
    CHECK(unsupported(R"({"type":"string","format":"colour"})").size() == 1);
    CHECK(unsupported(R"({"type":"object","patternProperties":{}})").size() == 1);
    CHECK(unsupported(R"({"not":{"type":"null"}})").size() == 1);
    CHECK(unsupported(R"({"oneOf":[{"type":"integer"},{"type":"number"}]})").size() == 1);
    CHECK(unsupported(R"({"oneOf":[{"type":"integer"},{"type":"string"}],"title":"t"})").empty());
}

TEST_CASE("contradictions, endless recursion and oversized schemas are errors, quickly") {
    for (const char *schema :
         {R"({"type":"string","minLength":3,"maxLength":2})", R"({"type":"integer","minimum":3,"maximum":2})",
          R"({"type":"array","minItems":3,"maxItems":2})", R"({"allOf":[{"type":"string"},{"type":"null"}]})", "false",
          R"({"type":"object","required":["a"],"additionalProperties":false})", R"({"enum":[]})",
          R"({"type":"object","properties":{"a":{"$ref":"#"}},"required":["a"]})", R"({"$ref":"#"})",
          R"({"type":"string","enum":[1]})", R"({"$ref":"#/nowhere"})", R"({"$ref":"http://x/y"})", R"({"type":"text"})",
          R"({"type":"string","pattern":"^a$","minLength":2})", R"({"type":"integer","exclusiveMinimum":1,"exclusiveMaximum":2})",
          R"({"const":"<think>"})", "3"}) {
        CAPTURE(schema);
        CHECK_THROWS_AS(for_schema(schema), Error);
    }
    CHECK_THROWS_AS(for_schema(std::string(10000, '[') + std::string(10000, ']')), Error);
    std::string deep = R"({"type":"null"})";
    for (int i = 0; i < 10000; ++i) deep = R"({"items":)" + deep + "}";
    CHECK_THROWS_AS(for_schema(deep), Error);
    std::string huge = R"({"enum":[)";
    for (int i = 0; i < 60000; ++i) huge += "\"value number " + std::to_string(i) + "\",";
    CHECK_THROWS_AS(for_schema(huge + "0]}"), Error);
    std::string wide = R"({"allOf":[)";
    for (int i = 0; i < 12; ++i) wide += R"({"anyOf":[{"properties":{"a":{}}},{"properties":{"b":{}}},{"properties":{"c":{}}}]},)";
    CHECK_THROWS_AS(for_schema(wide + "true]}"), Error);
    CHECK_THROWS_AS(Constraint::compile(vocabulary(), [] {
                        ConstraintOptions o;
                        o.response_format = "{\"type\": \"xml\"}";
                        return o;
                    }()),
                    Error);
}

TEST_CASE("a long enum and many properties compile and work") {
    std::string schema = R"({"enum":[)";
    for (int i = 0; i < 3000; ++i) schema += "\"item-" + std::to_string(i) + "\",";
    CHECK(takes(schema + "0]}", "\"item-2999\""));
    std::string many = R"({"type":"object","required":["p50"],"properties":{)";
    for (int i = 0; i < 100; ++i) many += (i ? ",\"p" : "\"p") + std::to_string(i) + "\":{\"type\":\"null\"}";
    many += "}}";
    CHECK(takes(many, R"({"p3": null, "p50": null, "p99": null})"));
    CHECK_FALSE(takes(many, R"({"p51": null})"));
    CHECK_FALSE(takes(many, R"({"p3": null})"));
}

TEST_CASE("json_object and forced tokens") {
    ConstraintOptions options;
    options.response_format = R"({"type": "json_object"})";
    const auto any = Constraint::compile(vocabulary(), options);
    CHECK(refused(*any, R"({"a": [1, {"b": "x"}], "c":{}})" + E) == "");
    CHECK(refused(*any, "[1]") == "[1]");
    ConstraintState state = any->start();
    state.advance('{');
    state.advance('}');
    CHECK(state.may_stop());
    CHECK(state.forced() == any->vocabulary().symbol(Symbol::eos));
    CHECK(state.least_remaining() == 1);
}

/// Random completions: every mask has exactly the tokens that advance takes. `stride`: every so many tokens are asked.
void check_masks(const Constraint &constraint, int runs, int steps, uint32_t stride = 1) {
    const Vocabulary &v = constraint.vocabulary();
    std::mt19937 random(7);
    for (int run = 0; run < runs; ++run) {
        ConstraintState state = constraint.start();
        for (int step = 0; step < steps && !state.is_terminal(); ++step) {
            const std::shared_ptr<const TokenMask> mask = state.allowed();
            for (uint32_t t = static_cast<uint32_t>(random()) % stride; t < v.size(); t += stride)
                if (mask_has(*mask, t) != state.accepts(t)) {
                    CAPTURE(v.bytes(t), run, step);
                    FAIL("mask and automaton disagree");
                }
            const std::vector<uint32_t> tokens = test::tokens_of(*mask);
            REQUIRE(!tokens.empty());
            // Markup first, or content would go on for ever.
            uint32_t token = tokens[random() % tokens.size()];
            uint32_t best = state.least_remaining();
            for (const uint32_t t : tokens) {
                if (step % 3 || (stride > 1 && random() % (tokens.size() / 64 + 1))) continue;
                ConstraintState next = state;
                next.advance(t);
                if (!next.is_terminal() && next.least_remaining() < best) best = next.least_remaining(), token = t;
            }
            const auto dsml = static_cast<uint32_t>(v.symbol(Symbol::dsml));
            if (mask_has(*mask, dsml)) token = dsml;
            state.advance(token);
        }
    }
    SUCCEED();
}

TEST_CASE("masks equal what advance accepts, token by token") {
    check_masks(*for_tools(tool(R"({"type":"object","properties":{"s":{"type":"string","maxLength":5},"t":{"type":"string"},
        "o":{"type":"object","properties":{"k":{"type":"string","pattern":"^[a-c ]+$"},"n":{"type":"number","maximum":10}}},
        "l":{"type":"array","items":{"anyOf":[{"type":"string"},{"type":"integer"}]}}}})")), 12, 60);
}

const char *const kStringKeywords[] = {
    R"("maxLength":40)", R"("minLength":3,"maxLength":6)", R"("pattern":"^[^,]*$")", R"("pattern":"^.{2,9}$")", R"("pattern":"^\\S+$")",
    R"("pattern":"^[A-Z][^0-9]*$","maxLength":9)", R"("pattern":"^[^a]*$","maxLength":12)", R"("pattern":"ab.*c")",
    R"("pattern":"^([A-Za-z]+ )*[A-Za-z]+$")", R"("pattern":"^(ab?|[0-9]{4}|\u4f60{3})*$")",
    R"("pattern":"^[^ae]*$","minLength":3,"maxLength":40)", R"("pattern":"^([^a]|a[^b])*$","maxLength":30)", R"("pattern":"^[^ ]( ?[^ x])*$")",
    R"("pattern":"^[\\u0000-\\u4fff]*$")", R"("pattern":"^ [b-y]+( [^0-9]{0,7})?$")", R"("pattern":"^([^aeiou]?[^a-y]?[^ ])*$")",
    R"("pattern":"^(the|a|an) [\\u4e00-\\u9fff ]*[^e]*$","maxLength":300)", R"("pattern":"^([^a]|a[^b]|ab[^c])*$")",
    R"("pattern":"^([^aeinst]|a[^b]|e[^f]|i[^j]|n[^k]|s[^l]|t[^m])*$","minLength":2)", R"("pattern":"e.{3}$","maxLength":20)"};

std::string of_strings(const char *keywords) {
    const std::string text = R"({"type":"string",)" + std::string(keywords) + "}";
    return tool(R"({"type":"object","required":["raw","in"],"properties":{"raw":)" + text + R"(,"in":{"type":"array","minItems":2,"items":)" +
                text + "}}}");
}

TEST_CASE("masks of limited strings and patterns are exact") {
    for (const char *keywords : kStringKeywords) {
        CAPTURE(keywords);
        check_masks(*for_tools(of_strings(keywords), Choice::required), 4, 40);
    }
}

/// Alternatives, each forbidding a letter after another one, "n" and the like at the end; `more`: further keywords.
std::string any_of_patterns(const std::string &more) {
    std::string out;
    for (const char *letters : {"ab", "ec", "id", "nf", "sg", "th", "oj", "rk", "lm", "uq", "dv", "cx"})
        out += (out.empty() ? "" : ",") + (R"({"type":"string","pattern":"^([^)" + std::string(1, letters[0])) + "]|" + letters[0] +
               "[^" + letters[1] + "])*" + letters[1] + "$\"" + more + "}";
    out = R"({"anyOf":[)" + out + "]}";
    return tool(R"({"type":"object","required":["raw","in"],"properties":{"raw":)" + out + R"(,"in":{"type":"array","minItems":2,"items":)" +
                out + "}}}");
}

TEST_CASE("masks of many patterns at one place are exact") {
    check_masks(*for_tools(any_of_patterns(""), Choice::required), 4, 40, 3);
    check_masks(*for_tools(any_of_patterns(R"(,"maxLength":30)"), Choice::required), 2, 40, 7);
    check_masks(*for_tools(tool(R"({"type":"object","minProperties":2,"maxProperties":3,"properties":{"a":{"type":"string","pattern":"^([^a]|a[^b])*$"},
        "b":{"type":"string","pattern":"^([^e]|e[^n])+$","maxLength":9},"c":{"type":"object","minProperties":1,"properties":{"x":{"type":"string",
        "pattern":"^[^n]*n$"},"y":{"type":"string","pattern":"^([^s]{2}s?)*$"}}},"d":{"type":"integer"}}})"), Choice::required), 8, 60);
}

TEST_CASE("masks are exact on the published vocabulary") {
    VocabularySource source;
    const std::string path = DSV4_SOURCE_DIR "/../shared/data/tokenizer/tokenizer.json";
    if (!test::published_source(path, source)) {
        WARN("SKIPPED: " + path + " is absent");
        return;
    }
    const auto published = std::make_shared<const Vocabulary>(std::move(source));
    for (const char *keywords : kStringKeywords) {
        CAPTURE(keywords);
        ConstraintOptions options;
        options.tools = of_strings(keywords);
        options.tool_choice = Choice::required;
        check_masks(*Constraint::compile(published, options), 2, 36, 61);
    }
    ConstraintOptions options;
    options.tools = any_of_patterns(R"(,"maxLength":100)");
    options.tool_choice = Choice::required;
    check_masks(*Constraint::compile(published, options), 2, 36, 97);
}

TEST_CASE("slices: what a state lets through whole") {
    CHECK(spelling_of("ab").kinds == 0x01);
    CHECK(spelling_of(" Ab9,\xE4\xBD\xA0").kinds == 0x3F);
    CHECK(spelling_of(" Ab9,\xE4\xBD\xA0").characters == 6);
    for (const char *text : {"a<", "\"", "\\", "\n", "\xE4\xBD", "\xBD", "\xC0\x80", "\xED\xA0\x80", "\xF4\x90\x80\x80",
                             "\xE2\x80\xA8", "\xEF\xBD\x9C", "\xC2\xA0", "\x7F"})
        CHECK(spelling_of(text).kinds == 0xFF);
    const auto use = [](const Dfa &dfa, bool exits = true) {
        return slice_uses(dfa, exits ? dfa.accept : std::vector<uint8_t>(dfa.size(), 0)).states[static_cast<size_t>(dfa.start)];
    };
    const size_t last = kSlices.size() - 1;
    const Dfa any = any_text(TextForm::raw), limited = dfa_counted(any, 0, 7, "test");
    // It accepts everywhere: only where exits do not matter may its masks skip tokens.
    CHECK(use(any).slice == kSlices.size());
    CHECK(use(any, false).slice == last);
    CHECK(use(any, false).characters == SliceUse::kEndless);
    CHECK(use(limited, false).slice == last);
    CHECK(use(limited, false).characters == 7);
    CHECK(use(dfa_followed_by(limited, "</", "test")).characters == 7);
    // One letter kills anywhere.
    const Dfa without_a = intersect(limited, dfa_avoiding({"a"}), "test");
    const SliceUses uses = slice_uses(without_a, std::vector<uint8_t>(without_a.size(), 0));
    const SliceUse start = uses.states[static_cast<size_t>(without_a.start)];
    CHECK(start.slice == last);
    CHECK(start.characters == 7);
    CHECK(uses.sets[start.without] == PlainBytes().set('a'));
    // It kills only after another one: such words must be walked.
    CHECK(use(intersect(limited, dfa_avoiding({"ba"}), "test"), false).slice != last);
}

/// What the automaton does to every token by itself, and the trie's nodes with children at which it accepts.
LeafMask walked(const Vocabulary &v, const Dfa &dfa, int32_t state) {
    LeafMask out{TokenMask(v.words(), 0), {}};
    for (uint32_t t = 0; t < v.size(); ++t)
        if (!v.added(t) && !v.bytes(t).empty() && dfa.run(state, v.bytes(t)) >= 0) mask_set(out.inside, t);
    std::string path;
    for (uint32_t i = 1; i < v.trie().size(); ++i) {
        path.resize(v.trie()[i].depth - 1u);
        path += static_cast<char>(v.trie()[i].byte);
        const int32_t to = dfa.run(state, path);
        if (to >= 0 && dfa.accept[static_cast<size_t>(to)] && v.trie()[i].end > i + 1) out.exits.push_back(i);
    }
    return out;
}

/// Both ways over the whole trie, from every `stride`-th state. The nodes left by folding.
size_t check_whole(const Vocabulary &v, const Dfa &dfa, size_t stride) {
    const auto folded = FoldedTrie::make(v.sweep(), dfa);
    for (size_t s = 0; s < dfa.size(); s += stride) {
        const auto state = static_cast<int32_t>(s);
        const LeafMask expected = walked(v, dfa, state);
        std::vector<uint32_t> exits;
        REQUIRE(v.sweep().tokens(dfa, state, &exits) == expected.inside);
        std::sort(exits.begin(), exits.end());
        REQUIRE(exits == expected.exits);
        if (!folded) continue;
        exits.clear();
        REQUIRE(folded->tokens(dfa, state, &exits) == expected.inside);
        std::sort(exits.begin(), exits.end());
        REQUIRE(exits == expected.exits);
        REQUIRE(folded->tokens(dfa, state, nullptr) == expected.inside);
    }
    return folded ? folded->nodes() : 0;
}

TEST_CASE("a sweep and a folded trie give what a walk gives") {
    const Vocabulary &v = *vocabulary();
    std::string reason;
    const size_t most = v.trie().size() / 8;
    for (const char *pattern : {"^([^a]|a[^b])*$", "^([^a]|a[^b]|ab[^c])*$", "^[a-z]{1,3}$", "^(the|an?) [^x]*$", "^\\d+$", "b$"})
        for (const TextForm form : {TextForm::raw, TextForm::json}) {
            CAPTURE(pattern);
            const Dfa dfa = *pattern_text(pattern, form, reason);
            CHECK(check_whole(v, dfa, 1) < most);
            // With a count there are too many states to fold by what words do to them.
            const Dfa counted = intersect(dfa, dfa_counted(any_text(TextForm::raw), 0, 400, "test"), "test");
            CHECK(check_whole(v, dfa_followed_by(counted, "</", "test"), 97) < most);
        }
    // One letter does nothing, any other byte goes a step towards the end; all words do nothing at all; all bytes are told apart; more types of states than are counted.
    Nfa line;
    for (uint32_t i = 0; i < 9; ++i) line.edge(line.state(), 'q', 'q', i);
    for (uint32_t i = 0; i < 8; ++i) {
        line.edge(i, 0, 'q' - 1, i + 1);
        line.edge(i, 'q' + 1, 255, i + 1);
    }
    CHECK(check_whole(v, line.determinize(0, 8, "test"), 1) == 10);
    Nfa any;
    const uint32_t only = any.state();
    any.edge(only, 0, 255, only);
    CHECK(check_whole(v, any.determinize(only, only, "test"), 1) == 2);
    Nfa all;
    const uint32_t start = all.state(), end = all.state();
    for (unsigned b = 0; b < 256; ++b) {
        const uint32_t next = all.state();
        all.edge(start, static_cast<uint8_t>(b), static_cast<uint8_t>(b), next);
        all.edge(next, static_cast<uint8_t>(b), 255, start);
        all.epsilon(next, end);
    }
    CHECK(check_whole(v, all.determinize(start, end, "test"), 1) == 0);
    std::mt19937 random(5);
    std::vector<std::string> texts;
    for (int i = 0; i < 300; ++i) {
        texts.emplace_back();
        for (int n = 0; n < 8; ++n) texts.back() += static_cast<char>('a' + random() % 12);
    }
    const Dfa enumerated = dfa_of_texts(texts, "test");
    CHECK(enumerated.size() > 1024);
    check_whole(v, enumerated, 11);
}

TEST_CASE("a bounded map lets the oldest go") {
    BoundedMap<int, std::string> map(2);
    CHECK(map.put(1, "a") == "a");
    CHECK(map.put(2, "b") == "b");
    CHECK(map.put(1, "c") == "a");
    CHECK(map.put(3, "d") == "d");
    CHECK(map.find(1) == nullptr);
    REQUIRE(map.find(2) != nullptr);
    CHECK(*map.find(2) == "b");
    CHECK(*map.find(3) == "d");
}

TEST_CASE("vocabularies that cannot spell everything are refused") {
    VocabularySource source = test::made_up_source();
    source.tokens[10].clear();
    CHECK_THROWS_AS(Vocabulary(source), Error);
    source = test::made_up_source();
    source.eos = -1;
    CHECK_THROWS_AS(Vocabulary(source), Error);
}
