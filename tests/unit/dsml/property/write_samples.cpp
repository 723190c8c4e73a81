// Random schemas, random tokens under their constraints: writes one JSON line per sample for validate.py.
//   write_samples OUT.jsonl SCHEMAS
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>

#include "core/error.hpp"
#include "core/text/byte_level.hpp"
#include "core/text/dsml_json.hpp"
#include "core/text/dsml_strict.hpp"
#include "nlohmann/json.hpp"
#include "tests/unit/dsml/sampling.hpp"
#include "tests/unit/dsml/vocabulary.hpp"

using namespace dsv4;
using json = nlohmann::ordered_json;

namespace {

struct Generator {
    std::mt19937 random;
    size_t below(size_t n) { return random() % n; }
    bool chance(size_t percent) { return below(100) < percent; }

    std::string name() {
        static const char *names[] = {"a", "b", "city", "unit count", "\xE6\x95\xB0", "x-y", "a\"b", "n0", "opts", "q/r"};
        return names[below(10)];
    }

    json string() {
        json out = {{"type", "string"}};
        switch (below(7)) {
        case 0: out["enum"] = {"red", "dark \"green\"", "", "</b>\n", "\xE4\xBD\xA0"}; break;
        case 1: {
            static const char *patterns[] = {"^[a-z]{2,5}$", "^\\d{3}-\\d{4}$", "ab", "^(foo|ba[rz])+$", "^[^\\s\"]*$",
                                             "^\\w+@\\w+\\.(com|org)$", "^.{0,4}x$", "[\\u4e00-\\u9fa5]+$"};
            out["pattern"] = patterns[below(8)];
            if (chance(20)) out["minLength"] = 2;
            break;
        }
        case 2: {
            static const char *formats[] = {"date", "time", "date-time", "uuid", "email", "ipv4", "ipv6", "hostname"};
            out["format"] = formats[below(8)];
            break;
        }
        case 3: {
            const size_t min = below(5);
            if (chance(60)) out["minLength"] = min;
            if (chance(60)) out["maxLength"] = min + below(20);
            break;
        }
        default: break;
        }
        return out;
    }

    json number() {
        json out = {{"type", chance(60) ? "integer" : "number"}};
        const int low = static_cast<int>(below(400)) - 200;
        if (chance(40)) out[chance(70) ? "minimum" : "exclusiveMinimum"] = chance(70) ? json(low) : json(low + 0.25);
        if (chance(40)) out[chance(70) ? "maximum" : "exclusiveMaximum"] = chance(70) ? json(low + 3) : json(low + 2.5);
        return out;
    }

    json object(size_t depth) {
        json out = {{"type", "object"}, {"properties", json::object()}, {"required", json::array()}};
        const size_t n = below(5);
        for (size_t i = 0; i < n; ++i) {
            const std::string key = name();
            if (out["properties"].contains(key)) continue;
            out["properties"][key] = schema(depth + 1);
            if (chance(40)) out["required"].push_back(key);
        }
        if (chance(30)) out["additionalProperties"] = false;
        else if (chance(15)) out["additionalProperties"] = schema(3);
        if (chance(10)) out["minProperties"] = std::min<size_t>(1, out["properties"].size());
        if (chance(10)) out["maxProperties"] = std::max<size_t>(out["required"].size(), 2);
        return out;
    }

    json schema(size_t depth) {
        switch (below(depth > 2 ? 6 : 12)) {
        case 0:
        case 1: return string();
        case 2:
        case 3: return number();
        case 4: return {{"type", "boolean"}};
        case 5: return chance(50) ? json{{"type", {"string", "null"}}} : json{{"const", {{"k", {1, "v", nullptr}}}}};
        case 6:
        case 7: return object(depth);
        case 8: {
            json out = {{"type", "array"}, {"items", schema(depth + 1)}};
            if (chance(40)) out["minItems"] = below(3);
            if (chance(40)) out["maxItems"] = 2 + below(3);
            return out;
        }
        case 9: return {{"anyOf", {schema(depth + 1), schema(depth + 1)}}};
        case 10: return {{"allOf", {number(), {{"type", {"integer", "number", "string"}}}}}};
        default: return chance(50) ? json{{"$ref", "#/$defs/tree"}} : json::object();
        }
    }

    json tool_schema() {
        json out = object(0);
        out["$defs"] = {{"tree",
                         {{"type", "object"},
                          {"properties", {{"v", {{"type", "integer"}}}, {"kids", {{"type", "array"}, {"items", {{"$ref", "#/$defs/tree"}}}}}}},
                          {"required", {"v"}},
                          {"additionalProperties", false}}}};
        return out;
    }
};

}  // namespace

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    std::ofstream out(argv[1], std::ios::binary);
    const int schemas = std::atoi(argv[2]);
    const auto vocabulary = std::make_shared<const Vocabulary>(test::made_up_source(3000, 5));
    Generator generator{std::mt19937(20260)};
    int written = 0, impossible = 0;
    for (int i = 0; i < schemas; ++i) {
        const json schema = generator.tool_schema();
        json line = {{"index", i}, {"schema", schema}};
        ConstraintOptions options;
        const bool content = i % 4 == 3;
        options.thinking = generator.chance(30);
        if (content) {
            options.response_format = json{{"type", "json_schema"}, {"json_schema", {{"schema", schema}}}}.dump();
        } else {
            options.tools = json::array({{{"type", "function"}, {"function", {{"name", "f"}, {"parameters", schema}}}},
                                         {{"type", "function"}, {"function", {{"name", "noop"}}}}})
                                .dump();
            options.tool_choice = ConstraintOptions::ToolChoice::required;
        }
        line["content"] = content;
        line["thinking"] = options.thinking;
        std::shared_ptr<const Constraint> constraint;
        try {
            constraint = Constraint::compile(vocabulary, options);
        } catch (const Error &e) {
            // Legitimate for contradictory random schemas; the validator limits how many.
            line["impossible"] = e.what();
            out << line.dump() << "\n";
            ++impossible;
            continue;
        }
        line["unsupported"] = constraint->unsupported();
        const test::Sample sample = test::sample(*constraint, generator.random, 60 + generator.below(300));
        line["error"] = sample.error;
        line["text_is_utf8"] = find_invalid_utf8(sample.text) == sample.text.size();
        try {
            line["message"] = json::parse(message_to_json(parse_completion_strict(sample.text, options.thinking)));
        } catch (const std::exception &e) {
            line["strict_error"] = e.what();
        }
        out << line.dump(-1, ' ', true, json::error_handler_t::replace) << "\n";
        ++written;
    }
    std::cout << written << " samples, " << impossible << " impossible schemas\n";
    return out ? 0 : 1;
}
