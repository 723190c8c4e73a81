// Values: types, constants, strings, numbers, arrays, objects.
#include "core/text/schema_compile.hpp"

#include <algorithm>

#include "core/error.hpp"
#include "core/text/dsml_json.hpp"
#include "core/text/dsml_strict.hpp"

namespace dsv4 {
namespace {

constexpr size_t kFreeDepth = 16;

[[noreturn]] void invalid(const std::string &path, const std::string &what) {
    throw Error(DSV4_E_INVALID, path + ": " + what);
}

/// As the prompt shows JSON.
std::string json_text(const SchemaJson &value) {
    std::string out;
    value.append_to(out, ", ", ": ");
    return out;
}

}  // namespace

// ---- entry points

uint32_t SchemaCompiler::json_value(const SchemaJson &schema, const std::string &path) {
    return value(schema, path, true);
}

uint32_t SchemaCompiler::parameter(const SchemaJson &schema, const std::string &path) {
    std::vector<uint32_t> choices;
    std::string reason = "no value can satisfy it";
    const auto attempt = [&](auto &&make) {
        try {
            choices.push_back(make());
        } catch (const Error &e) {
            if (e.status != DSV4_E_INVALID) throw;
            reason = e.what();
        }
    };
    attempt([&] { return grammar_.text("true\">", raw(schema, path)); });
    attempt([&] {
        const uint32_t rule = value(schema, path, false);
        return grammar_.text("false\">", grammar_.call(rule, grammar_.text("</", grammar_.end())));
    });
    if (choices.empty()) throw Error(DSV4_E_INVALID, reason);
    return grammar_.choice(std::move(choices));
}

/// All alternatives of a schema, each for every type it may have, memoized by the schema's own text.
uint32_t SchemaCompiler::value(const SchemaJson &schema, const std::string &path, bool strings) {
    const std::string text = schema.dump() + (strings ? "*" : "");
    work_ += text.size();
    if (work_ > (64u << 20)) throw Error(DSV4_E_UNSUPPORTED, path + ": the schema is too large to compile");
    const auto [known, fresh] = rules_.emplace(text, 0);
    if (!fresh) return known->second;
    const uint32_t rule = known->second = grammar_.choice({});
    std::set<std::string> open;
    std::vector<uint32_t> choices, texts;  // texts: of strings, which begin alike
    std::string reason = path + ": no value can satisfy it";
    for (const SchemaJson &simple : alternatives(schema, path, open)) {
        std::set<std::string> allowed = types(simple, path);
        if (!strings) allowed.erase("string");
        try {
            if (simple.contains("enum") || simple.contains("const")) {
                std::vector<std::string> fixed;
                for (const SchemaJson &constant : enumerated(simple, allowed, path)) fixed.push_back(json_text(constant));
                choices.push_back(constants(fixed, path));
                continue;
            }
        } catch (const Error &e) {
            if (e.status != DSV4_E_INVALID) throw;
            reason = e.what();
            continue;
        }
        if (allowed.count("number")) allowed.erase("integer");
        for (const std::string &type : allowed) {
            try {
                if (type == "string") texts.push_back(string_text(simple, TextForm::json, path));
                else choices.push_back(one(simple, type, path));
            } catch (const Error &e) {
                if (e.status != DSV4_E_INVALID) throw;
                reason = e.what();
            }
        }
    }
    if (!texts.empty())
        choices.push_back(grammar_.text("\"", texts.size() == 1 ? texts[0] : grammar_.choice(std::move(texts))));
    if (choices.empty()) {
        rules_.erase(text);
        throw Error(DSV4_E_INVALID, reason);
    }
    grammar_.nodes[rule].choices = std::move(choices);
    return rule;
}

uint32_t SchemaCompiler::one(const SchemaJson &schema, const std::string &type, const std::string &path) {
    if (type == "number") return number(schema, false, path);
    if (type == "integer") return number(schema, true, path);
    if (type == "boolean") return grammar_.leaf(dfa_of_texts({"true", "false"}, path), grammar_.end());
    if (type == "null") return grammar_.text("null", grammar_.end());
    if (type == "array") return array(schema, path);
    return object(schema, path);
}

// ---- constants

uint32_t SchemaCompiler::constants(const std::vector<std::string> &texts, const std::string &path) {
    if (texts.empty()) invalid(path, "no value of enum or const satisfies the other keywords");
    for (const std::string &text : texts) check_text(text, path);
    return grammar_.leaf(dfa_of_texts(texts, path), grammar_.end());
}

std::vector<SchemaJson> SchemaCompiler::enumerated(const SchemaJson &schema, const std::set<std::string> &allowed,
                                                   const std::string &path) {
    std::vector<SchemaJson> given, out;
    if (schema.contains("const")) given.push_back(schema["const"]);
    else if (schema["enum"].is_array()) given = schema["enum"].items();
    else invalid(path, "expected enum to be an array");
    for (const SchemaJson &value : given) {
        std::string type = value.is_string()    ? "string"
                           : value.is_boolean() ? "boolean"
                           : value.is_null()    ? "null"
                           : value.is_array()   ? "array"
                           : value.is_object()  ? "object"
                                                : "number";
        if (type == "number" && !allowed.count("number") &&
            (value.is_integer() || value.number() == static_cast<double>(static_cast<int64_t>(
                                                                     std::clamp(value.number(), -9e15, 9e15)))))
            type = "integer";
        if (!allowed.count(type)) continue;
        if (schema.contains("const") && schema.contains("enum") && !holds(schema["enum"], value)) continue;
        if (satisfies(value, schema, path)) out.push_back(value);
    }
    return out;
}

/// The keywords beside enum that are cheap to check on a value; the others are reported.
bool SchemaCompiler::satisfies(const SchemaJson &value, const SchemaJson &schema, const std::string &path) {
    if (value.is_string()) {
        const std::string &text = value.text();
        const std::optional<Dfa> language =
            string_language(string_keywords(schema, TextForm::raw, path), TextForm::raw, path);
        return !language || language->matches(text);
    }
    if (value.is_number()) {
        const std::optional<std::string> number = plain_decimal(value.dump());
        for (const char *name : {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}) {
            if (!schema.contains(name) || !schema[name].is_number()) continue;
            const std::optional<std::string> bound = plain_decimal(schema[name].dump());
            if (!number || !bound) {
                report(path, std::string(name) + " beside enum");
                continue;
            }
            const int c = compare_decimals(*number, *bound);
            const bool open = name[0] == 'e', low = std::string_view(name).find("inimum") != std::string_view::npos;
            if ((low ? c < 0 : c > 0) || (open && c == 0)) return false;
        }
        return true;
    }
    if (value.is_array() || value.is_object())
        for (const char *name : {"properties", "required", "items", "minItems", "maxItems", "additionalProperties"})
            if (schema.contains(name)) report(path, std::string(name) + " beside enum or const");
    return true;
}

// ---- raw strings; schema_strings.cpp has their languages

/// A parameter's text as it is, and the "</" after it.
uint32_t SchemaCompiler::raw(const SchemaJson &schema, const std::string &path) {
    const std::string key = schema.dump() + "raw";
    const auto [known, fresh] = rules_.emplace(key, 0);
    if (!fresh) return known->second;
    const uint32_t rule = known->second = grammar_.choice({});
    std::set<std::string> open;
    std::vector<uint32_t> choices;
    std::string reason = path + ": no text can satisfy it";
    for (const SchemaJson &simple : alternatives(schema, path, open)) {
        if (!types(simple, path).count("string")) continue;
        try {
            if (simple.contains("enum") || simple.contains("const")) {
                std::vector<std::string> texts;
                for (const SchemaJson &value : enumerated(simple, {"string"}, path)) {
                    texts.push_back(value.text());
                    check_text(texts.back(), path);
                    texts.back() += "</";
                }
                choices.push_back(constants(texts, path));
                continue;
            }
            choices.push_back(string_text(simple, TextForm::raw, path));
        } catch (const Error &e) {
            if (e.status != DSV4_E_INVALID) throw;
            reason = e.what();
        }
    }
    if (choices.empty()) {
        rules_.erase(key);
        throw Error(DSV4_E_INVALID, reason);
    }
    grammar_.nodes[rule].choices = std::move(choices);
    return rule;
}

// ---- numbers

uint32_t SchemaCompiler::number(const SchemaJson &schema, bool integer, const std::string &path) {
    NumberRange range;
    range.integer = integer;
    const auto bound = [&](const char *name, bool low, bool open) {
        if (!schema.contains(name)) return;
        if (schema[name].is_boolean()) {  // draft 4: exclusiveMinimum: true
            if (schema[name].boolean()) report(path, std::string(name) + " as a boolean");
            return;
        }
        if (!schema[name].is_number()) invalid(path, std::string(name) + ": expected a number");
        const std::optional<std::string> value = plain_decimal(schema[name].dump());
        if (!value) return report(path, std::string(name) + " with more than 40 digits");
        std::optional<std::string> &known = low ? range.low : range.high;
        bool &known_open = low ? range.low_open : range.high_open;
        const int c = known ? compare_decimals(*value, *known) : 0;
        if (!known || (low ? c > 0 : c < 0) || (c == 0 && open)) {
            known = value;
            known_open = open;
        }
    };
    bound("minimum", true, false);
    bound("exclusiveMinimum", true, true);
    bound("maximum", false, false);
    bound("exclusiveMaximum", false, true);
    if (schema.contains("multipleOf") && !(integer && schema["multipleOf"].number() == 1)) report(path, "multipleOf");
    if (range.low && range.high && compare_decimals(*range.low, *range.high) > 0)
        invalid(path, "minimum is greater than maximum");
    if (!range.low && !range.high && !integer)
        return grammar_.leaf(vocabulary_.common(CommonText::number), grammar_.end());
    return grammar_.leaf(number_text(range, path), grammar_.end());
}

// ---- arrays and objects

uint32_t SchemaCompiler::space(uint32_t next) {
    return grammar_.leaf(vocabulary_.common(CommonText::space), next);
}

uint32_t SchemaCompiler::close_with(char bracket, bool spaced) {
    const uint32_t close = grammar_.text(std::string(1, bracket), grammar_.end());
    return spaced ? space(close) : close;
}

uint32_t SchemaCompiler::array(const SchemaJson &schema, const std::string &path) {
    for (const char *name : {"uniqueItems", "contains", "prefixItems", "minContains", "maxContains", "unevaluatedItems"})
        if (schema.contains(name) && !(schema[name] == false)) report(path, name);
    GrammarList list{};
    list.min = static_cast<uint32_t>(std::min<size_t>(size_keyword(schema, "minItems", 0, path), UINT32_MAX - 1));
    list.max = static_cast<uint32_t>(std::min<size_t>(size_keyword(schema, "maxItems", UINT32_MAX, path), UINT32_MAX));
    if (list.min > list.max) invalid(path, "minItems is greater than maxItems");
    SchemaJson items = schema.contains("items") ? schema["items"] : SchemaJson(true);
    if (items.is_array()) {
        report(path, "items as a list");
        items = true;
    }
    uint32_t item = kNoNode;
    try {
        item = items == true || items == SchemaJson::object() ? free_form(1, false) : json_value(items, path + "[]");
    } catch (const Error &e) {
        if (e.status != DSV4_E_INVALID || list.min > 0) throw;
        list.max = 0;  // only the empty array is left
    }
    list.close = close_with(']', true);
    list.first = list.again = list.close;
    if (item != kNoNode) {
        list.first = space(grammar_.call(item, grammar_.end()));
        list.again = grammar_.text(",", space(grammar_.call(item, grammar_.end())));
    }
    return grammar_.text("[", grammar_.list(list));
}

uint32_t SchemaCompiler::member(uint32_t key_then, bool again) {
    const uint32_t spaced = space(key_then);
    return again ? grammar_.text(",", spaced) : spaced;
}

/// The quoted key, at most 64 characters without escapes, none of the declared ones.
uint32_t SchemaCompiler::undeclared_key(const std::vector<std::string> &declared, uint32_t next) {
    if (declared.empty()) return grammar_.text("\"", grammar_.leaf(vocabulary_.common(CommonText::key), next));
    const Leaf *&known = keys_[declared];
    if (!known) {
        std::vector<std::string> quoted = declared;
        for (std::string &name : quoted) name += '"';
        grammar_.owned.push_back(
            std::make_unique<Leaf>(dfa_without(vocabulary_.common(CommonText::key).automaton(), quoted, "properties")));
        known = grammar_.owned.back().get();
    }
    return grammar_.text("\"", grammar_.leaf(*known, next));
}

uint32_t SchemaCompiler::object(const SchemaJson &schema, const std::string &path) {
    for (const char *name : {"patternProperties", "propertyNames", "dependentRequired", "dependentSchemas",
                             "dependencies", "unevaluatedProperties"})
        if (schema.contains(name)) report(path, name);
    const SchemaJson properties = schema.contains("properties") ? schema["properties"] : SchemaJson::object();
    if (!properties.is_object()) invalid(path, "properties: expected an object");
    std::vector<std::string> required;
    if (schema.contains("required")) {
        if (!schema["required"].is_array()) invalid(path, "required: expected an array");
        for (const SchemaJson &name : schema["required"].items()) {
            if (!name.is_string()) invalid(path, "required: expected strings");
            if (std::find(required.begin(), required.end(), name.text()) == required.end())
                required.push_back(name.text());
        }
    }
    const SchemaJson extra = schema.contains("additionalProperties") ? schema["additionalProperties"] : SchemaJson();
    const bool closed = extra == false;
    GrammarObject out{};
    out.min = static_cast<uint32_t>(std::min<size_t>(size_keyword(schema, "minProperties", 0, path), UINT32_MAX - 1));
    out.max = static_cast<uint32_t>(std::min<size_t>(size_keyword(schema, "maxProperties", UINT32_MAX, path), UINT32_MAX));
    if (out.min > out.max || required.size() > out.max) invalid(path, "more properties are needed than are allowed");

    std::vector<std::string> declared;
    const auto add = [&](const std::string &name, const SchemaJson &inner, bool needed) {
        const std::string where = path + "." + name;
        try {
            check_text(name, where);
            const uint32_t rule = json_value(inner, where);
            std::string key;
            append_json_string(key, name);
            const uint32_t pair = grammar_.text(key + ":", space(grammar_.call(rule, grammar_.end())), where);
            out.members.push_back({member(pair, false), member(pair, true), needed, false});
        } catch (const Error &e) {
            if (e.status != DSV4_E_INVALID || needed) throw;  // an impossible optional property just never appears
        }
        declared.push_back(name);
    };
    for (const auto &[name, inner] : properties.members())
        add(name, inner, std::find(required.begin(), required.end(), name) != required.end());
    for (const std::string &name : required)
        if (!properties.contains(name)) {
            if (closed) invalid(path, "required property " + name + " is not allowed by additionalProperties");
            add(name, extra.is_object() ? extra : SchemaJson(true), true);
        }
    const bool free = properties.empty() && required.empty() && extra.is_null();
    if (free || extra == true || extra.is_object()) {
        // Keys may repeat, so the number of properties cannot be counted.
        if (out.members.size() > 62 || out.min > required.size() || out.max != UINT32_MAX)
            report(path, "undeclared properties together with minProperties, maxProperties or more than 62 properties");
        else {
            const uint32_t rule = extra.is_object() && !extra.empty() ? json_value(extra, path + ".*")
                                                                      : free_form(1, false);
            const uint32_t pair =
                undeclared_key(declared, grammar_.text(":", space(grammar_.call(rule, grammar_.end()))));
            out.members.push_back({member(pair, false), member(pair, true), false, true});
        }
    }
    if (out.members.size() > 63 && (out.min > required.size() || out.max < out.members.size())) {
        report(path, "minProperties or maxProperties with more than 63 properties");
        out.min = 0;
        out.max = UINT32_MAX;
    }
    out.close_empty = close_with('}', false);
    out.close = close_with('}', true);
    return grammar_.text("{", grammar_.object(std::move(out)));
}

/// Any JSON down to kFreeDepth levels.
uint32_t SchemaCompiler::free_form(size_t depth, bool object_only) {
    const auto [known, fresh] = free_.emplace(std::pair(depth, object_only ? 1 : 0), 0);
    if (!fresh) return known->second;
    const uint32_t rule = known->second = grammar_.choice({});
    std::vector<uint32_t> choices;
    if (!object_only) {
        choices.push_back(grammar_.text("\"", string_text(SchemaJson::object(), TextForm::json, "value")));
        choices.push_back(number(SchemaJson::object(), false, "value"));
        choices.push_back(grammar_.leaf(dfa_of_texts({"true", "false", "null"}, "value"), grammar_.end()));
    }
    if (depth < kFreeDepth) {
        const uint32_t inner = free_form(depth + 1, false);
        if (!object_only) {
            GrammarList list{};
            list.close = close_with(']', true);
            list.first = space(grammar_.call(inner, grammar_.end()));
            list.again = grammar_.text(",", space(grammar_.call(inner, grammar_.end())));
            choices.push_back(grammar_.text("[", grammar_.list(list)));
        }
        const Leaf &keys = vocabulary_.common(content_ ? CommonText::json_content_string : CommonText::json_string);
        const uint32_t pair =
            grammar_.text("\"", grammar_.leaf(keys, grammar_.text(":", space(grammar_.call(inner, grammar_.end())))));
        GrammarObject object{};
        object.members.push_back({member(pair, false), member(pair, true), false, true});
        object.close_empty = close_with('}', false);
        object.close = close_with('}', true);
        choices.push_back(grammar_.text("{", grammar_.object(std::move(object))));
    }
    grammar_.nodes[rule].choices = std::move(choices);
    return rule;
}

}  // namespace dsv4
