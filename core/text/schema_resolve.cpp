// The structure of schemas: references, unions, intersections, the keywords known and unknown; and tool parameters.
#include <algorithm>
#include <array>

#include "core/error.hpp"
#include "core/text/dsml_strict.hpp"
#include "core/text/schema_compile.hpp"

namespace dsv4 {
namespace {

constexpr size_t kMaxAlternatives = 256;

[[noreturn]] void invalid(const std::string &path, const std::string &what) {
    throw Error(DSV4_E_INVALID, path + ": " + what);
}

constexpr std::array kKnown = {"type", "enum", "const", "properties", "required", "additionalProperties", "items",
    "minItems", "maxItems", "minLength", "maxLength", "pattern", "format", "minimum", "maximum", "exclusiveMinimum",
    "exclusiveMaximum", "multipleOf", "minProperties", "maxProperties", "anyOf", "oneOf", "allOf", "$ref", "$defs",
    "definitions",
    // reported where they apply
    "uniqueItems", "contains", "prefixItems", "minContains", "maxContains", "unevaluatedItems", "patternProperties",
    "propertyNames", "dependentRequired", "dependentSchemas", "dependencies", "unevaluatedProperties",
    // annotations
    "title", "description", "default", "examples", "example", "$schema", "$id", "id", "$comment", "deprecated",
    "readOnly", "writeOnly", "strict"};

}  // namespace

void SchemaCompiler::report(const std::string &path, const std::string &what) {
    const std::string line = path + ": " + what;
    if (reported_.insert(line).second && unsupported_.size() < 1000) unsupported_.push_back(line);
}

void SchemaCompiler::check_text(std::string_view text, const std::string &path) const {
    for (const std::string &control : control_texts())
        if ((content_ || control == kDsmlToken) && text.find(control) != std::string_view::npos)
            invalid(path, "a fixed text contains the control text " + control);
}

size_t SchemaCompiler::size_keyword(const SchemaJson &schema, const char *name, size_t fallback,
                                    const std::string &path) const {
    if (!schema.contains(name)) return fallback;
    const SchemaJson &value = schema[name];
    if (!value.is_number() || value.number() < 0) invalid(path, std::string(name) + ": expected a number >= 0");
    return static_cast<size_t>(std::min(value.number(), 1e15));
}

void SchemaCompiler::check_keywords(const SchemaJson &schema, const std::string &path) {
    for (const auto &[name, value] : schema.members())
        if (std::find(kKnown.begin(), kKnown.end(), name) == kKnown.end()) report(path, name);
}

std::set<std::string> SchemaCompiler::types(const SchemaJson &schema, const std::string &path) const {
    static const std::set<std::string> all = {"string", "number", "integer", "boolean", "null", "array", "object"};
    if (schema.contains("type")) {
        std::set<std::string> out;
        const SchemaJson list = schema["type"].is_array() ? schema["type"] : SchemaJson::array({schema["type"]});
        for (const SchemaJson &type : list.items()) {
            if (!type.is_string() || !all.count(type.text())) invalid(path, "unknown type " + type.dump());
            out.insert(type.text());
        }
        return out;
    }
    if (schema.contains("enum") || schema.contains("const")) return all;
    static const std::vector<std::pair<std::string, std::vector<const char *>>> hints = {
        {"object", {"properties", "required", "additionalProperties", "minProperties", "maxProperties"}},
        {"array", {"items", "minItems", "maxItems"}},
        {"string", {"pattern", "format", "minLength", "maxLength"}},
        {"number", {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}}};
    std::set<std::string> out;
    for (const auto &[type, names] : hints)
        for (const char *name : names)
            if (schema.contains(name)) out.insert(type);
    return out.empty() ? all : out;
}

const SchemaJson &SchemaCompiler::resolve(const std::string &reference, const std::string &path) const {
    if (reference.empty() || reference[0] != '#') invalid(path, "$ref: expected a reference within the schema, found " + reference);
    const SchemaJson *found = root_.at(std::string_view(reference).substr(1));
    if (!found) invalid(path, "$ref: nothing at " + reference);
    return *found;
}

/// Narrows `into` by `other`. False when both cannot hold.
bool SchemaCompiler::merge(SchemaJson &into, const SchemaJson &other, const std::string &path) {
    for (const auto &[name, value] : other.members()) {
        if (!into.contains(name)) {
            into[name] = value;
            continue;
        }
        SchemaJson &mine = into[name];
        if (mine == value) continue;
        if (name == "type") {
            const std::set<std::string> a = types(into, path), b = types(other, path);
            SchemaJson both = SchemaJson::array();
            for (const std::string &type : b)
                if (a.count(type) || (type == "integer" && a.count("number"))) both.items().push_back(SchemaJson::string(type));
            if (b.count("number") && !b.count("integer") && a.count("integer")) both.items().push_back(SchemaJson::string("integer"));
            if (both.empty()) return false;
            mine = both;
        } else if (name == "properties") {
            for (const auto &[key, schema] : value.members()) {
                if (mine.contains(key)) mine[key] = SchemaJson::object({{"allOf", SchemaJson::array({mine[key], schema})}});
                else mine[key] = schema;
            }
        } else if (name == "required" && mine.is_array() && value.is_array()) {
            for (const SchemaJson &key : value.items())
                if (!holds(mine, key)) mine.items().push_back(key);
        } else if (name == "enum" && mine.is_array() && value.is_array()) {
            SchemaJson both = SchemaJson::array();
            for (const SchemaJson &item : mine.items())
                if (holds(value, item)) both.items().push_back(item);
            if (both.empty()) return false;
            mine = both;
        } else if (name == "items") {
            mine = SchemaJson::object({{"allOf", SchemaJson::array({mine, value})}});
        } else if (name == "const") {
            return false;
        } else if (mine.is_number() && value.is_number() &&
                   (name.rfind("min", 0) == 0 || name == "exclusiveMinimum")) {
            if (mine.number() < value.number()) mine = value;
        } else if (mine.is_number() && value.is_number() &&
                   (name.rfind("max", 0) == 0 || name == "exclusiveMaximum")) {
            if (mine.number() > value.number()) mine = value;
        } else if (name == "additionalProperties" && (mine == false || value == false)) {
            report(path, "additionalProperties: false in only one part of allOf, anyOf or oneOf");
            mine = false;
        } else if (name == "pattern" || name == "format" || name == "additionalProperties" || name == "multipleOf") {
            report(path, "two different values of " + name);
        }  // annotations: the first one stays
    }
    return true;
}

/// The schema as a list of schemas without references, unions and intersections.
SchemaCompiler::Alternatives SchemaCompiler::alternatives(const SchemaJson &schema, const std::string &path,
                                                          std::set<std::string> &open) {
    if (schema.is_boolean()) return schema.boolean() ? Alternatives{SchemaJson::object()} : Alternatives{};
    if (!schema.is_object()) invalid(path, "expected a schema, found " + std::string(schema.kind_name()));
    if (open.size() > 64) throw Error(DSV4_E_UNSUPPORTED, path + ": references nest more than 64 deep");
    check_keywords(schema, path);
    SchemaJson own = SchemaJson::object();
    for (const auto &[name, value] : schema.members())
        if (name != "$ref" && name != "anyOf" && name != "oneOf" && name != "allOf" && name != "$defs" && name != "definitions")
            own[name] = value;
    Alternatives out = {own};
    const auto cross = [&](const Alternatives &others) {
        Alternatives both;
        for (const SchemaJson &a : out)
            for (const SchemaJson &b : others) {
                SchemaJson joined = a;
                work_ += 64;
                if (merge(joined, b, path)) both.push_back(std::move(joined));
                if (both.size() > kMaxAlternatives)
                    throw Error(DSV4_E_UNSUPPORTED, path + ": unions combine to more than " +
                                                        std::to_string(kMaxAlternatives) + " alternatives");
            }
        out = std::move(both);
    };
    if (schema.contains("$ref")) {
        if (!schema["$ref"].is_string()) invalid(path, "$ref: expected a string");
        const std::string &reference = schema["$ref"].text();
        // A union that contains itself without anything in between adds nothing to itself.
        if (!open.insert(reference).second) return {};
        cross(alternatives(resolve(reference, path), path, open));
        open.erase(reference);
    }
    for (const char *name : {"anyOf", "oneOf"}) {
        if (!schema.contains(name)) continue;
        if (!schema[name].is_array() || schema[name].empty()) invalid(path, std::string(name) + ": expected a list");
        Alternatives any;
        std::set<std::string> seen;
        bool disjoint = true;
        for (const SchemaJson &part : schema[name].items()) {
            std::set<std::string> here;
            for (SchemaJson &alternative : alternatives(part, path, open)) {
                for (const std::string &type : types(alternative, path)) here.insert(type == "integer" ? "number" : type);
                any.push_back(std::move(alternative));
            }
            for (const std::string &type : here) disjoint = seen.insert(type).second && disjoint;
        }
        if (name[0] == 'o' && !disjoint) report(path, "oneOf: that only one alternative holds");
        cross(any);
    }
    if (schema.contains("allOf")) {
        if (!schema["allOf"].is_array()) invalid(path, "allOf: expected a list");
        for (const SchemaJson &part : schema["allOf"].items()) cross(alternatives(part, path, open));
    }
    return out;
}

uint32_t SchemaCompiler::parameters(const SchemaJson &schema, const std::string &path, uint32_t close_empty,
                                    uint32_t close) {
    std::set<std::string> open;
    std::vector<uint32_t> choices;
    std::string reason = path + ": no arguments can satisfy the schema";
    for (const SchemaJson &simple : alternatives(schema, path, open)) {
        if (simple.contains("type") && !types(simple, path).count("object")) continue;
        for (const char *name : {"patternProperties", "propertyNames", "dependentRequired", "dependentSchemas",
                                 "dependencies", "unevaluatedProperties", "enum", "const"})
            if (simple.contains(name)) report(path, name);
        const SchemaJson properties = simple.contains("properties") ? simple["properties"] : SchemaJson::object();
        if (!properties.is_object()) invalid(path, "properties: expected an object");
        const SchemaJson extra = simple.contains("additionalProperties") ? simple["additionalProperties"] : SchemaJson();
        std::set<std::string> required;
        if (simple.contains("required")) {
            if (!simple["required"].is_array()) invalid(path, "required: expected an array");
            for (const SchemaJson &name : simple["required"].items()) {
                if (!name.is_string()) invalid(path, "required: expected strings");
                required.insert(name.text());
            }
        }
        GrammarObject out{};
        out.min = static_cast<uint32_t>(std::min<size_t>(size_keyword(simple, "minProperties", 0, path), UINT32_MAX - 1));
        out.max = static_cast<uint32_t>(std::min<size_t>(size_keyword(simple, "maxProperties", UINT32_MAX, path), UINT32_MAX));
        std::vector<std::string> declared;
        const uint32_t after = grammar_.symbol(Symbol::dsml, grammar_.text("parameter>\n", grammar_.end()));
        const auto tag = [&](uint32_t name) {
            return grammar_.text("<", grammar_.symbol(Symbol::dsml, grammar_.text("parameter name=\"", name)));
        };
        const auto add = [&](const std::string &name, const SchemaJson &inner) {
            const std::string where = path + "." + name;
            const bool needed = required.count(name) != 0;
            declared.push_back(name);
            try {
                check_text(name, where);
                if (name.find("\" string=\"") != std::string::npos || name.find('\0') != std::string::npos)
                    invalid(where, "this name cannot be written in a tag");
                const uint32_t value = grammar_.call(parameter(inner, where), after);
                const uint32_t rule = tag(grammar_.text(name + "\" string=\"", value, where));
                out.members.push_back({rule, rule, needed, false});
            } catch (const Error &e) {
                if (e.status != DSV4_E_INVALID || needed) throw;
            }
        };
        try {
            for (const auto &[name, inner] : properties.members()) add(name, inner);
            for (const std::string &name : required)
                if (!properties.contains(name)) {
                    if (extra == false) invalid(path, "required parameter " + name + " is not allowed by additionalProperties");
                    add(name, extra.is_object() ? extra : SchemaJson(true));
                }
            if (extra == true || extra.is_object()) {
                // One at most: a second one could repeat its name, which the strict parser refuses.
                report(path, "more than one undeclared parameter");
                std::string pattern_reason;
                const Dfa names = dfa_without(*pattern_text("^[A-Za-z0-9_-]{1,64}$", TextForm::raw, pattern_reason), declared, path);
                const uint32_t value = grammar_.call(parameter(extra.is_object() ? extra : SchemaJson(true), path + ".*"), after);
                const uint32_t rule = tag(grammar_.leaf(names, grammar_.text("\" string=\"", value)));
                out.members.push_back({rule, rule, false, false});
            }
        } catch (const Error &e) {
            if (e.status != DSV4_E_INVALID) throw;
            reason = e.what();
            continue;
        }
        if (out.members.size() > 63 && (out.min > required.size() || out.max < out.members.size())) {
            report(path, "minProperties or maxProperties with more than 63 parameters");
            out.min = 0;
            out.max = UINT32_MAX;
        }
        out.close_empty = close_empty;
        out.close = close;
        choices.push_back(grammar_.object(std::move(out)));
    }
    if (choices.empty()) throw Error(DSV4_E_INVALID, reason);
    return grammar_.choice(std::move(choices));
}

}  // namespace dsv4
