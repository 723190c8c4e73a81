// Strings: pattern, format, minLength, maxLength.
#include "core/error.hpp"
#include "core/text/dsml_strict.hpp"
#include "core/text/schema_compile.hpp"

namespace dsv4 {
namespace {

[[noreturn]] void invalid(const std::string &path, const std::string &what) {
    throw Error(DSV4_E_INVALID, path + ": " + what);
}

}  // namespace

SchemaCompiler::Strings SchemaCompiler::string_keywords(const SchemaJson &schema, TextForm form,
                                                        const std::string &path) {
    Strings out;
    const auto narrow = [&](Dfa dfa) {
        out.language = out.language ? intersect(*out.language, dfa, path) : std::move(dfa);
    };
    for (const char *keyword : {"pattern", "format"}) {
        if (!schema.contains(keyword)) continue;
        if (!schema[keyword].is_string()) invalid(path, std::string(keyword) + ": expected a string");
        std::string_view pattern = schema[keyword].text();
        std::string reason;
        if (keyword[0] == 'f') {
            pattern = format_pattern(pattern);
            if (pattern.empty()) {
                report(path, "format " + schema[keyword].text());
                continue;
            }
        }
        std::optional<Dfa> dfa = pattern_text(pattern, form, reason);
        if (dfa) narrow(std::move(*dfa));
        else report(path, "pattern " + std::string(pattern) + ": " + reason);
    }
    out.min = size_keyword(schema, "minLength", 0, path);
    out.max = size_keyword(schema, "maxLength", SIZE_MAX, path);
    if (out.min > out.max) invalid(path, "minLength is greater than maxLength");
    return out;
}

/// Texts that must not be spelled out in strings.
std::vector<std::string> SchemaCompiler::forbidden() const {
    return content_ ? control_texts() : std::vector<std::string>{std::string(kDsmlToken)};
}

/// The language as one automaton; nullopt when there is nothing to enforce.
std::optional<Dfa> SchemaCompiler::string_language(Strings strings, TextForm form, const std::string &path) {
    std::optional<Dfa> &language = strings.language;
    if (strings.limited()) {
        try {
            // Escaped characters count once; \u escapes are left to the unlimited language, which keeps tables small.
            Dfa counted = dfa_counted(counted_characters(form), strings.min, strings.max, path);
            language = language ? intersect(*language, counted, path) : std::move(counted);
        } catch (const Error &e) {
            if (e.status != DSV4_E_UNSUPPORTED) throw;
            report(path, "minLength or maxLength this large");
        }
    }
    if (!language) return std::nullopt;
    return intersect(*language, dfa_avoiding(forbidden()), path);
}

/// A string's text and its tail: they belong together, as only there must a mask look at what follows.
uint32_t SchemaCompiler::string_text(const SchemaJson &schema, TextForm form, const std::string &path) {
    Strings strings = string_keywords(schema, form, path);
    const uint32_t end = grammar_.end();
    const Leaf &any = vocabulary_.common(form == TextForm::raw ? CommonText::value
                                         : content_            ? CommonText::json_content_string
                                                               : CommonText::json_string);
    if (!strings.language && !strings.limited()) return grammar_.leaf(any, end);
    try {
        const Dfa avoiding = dfa_avoiding(forbidden());
        Dfa text = intersect(strings.language ? *strings.language : counted_characters(form), avoiding, path);
        if (strings.limited() && strings.language) text = intersect(text, counted_characters(form), path);
        if (auto counted = CountedText::make(std::move(text), form, strings.min, strings.max))
            return grammar_.leaf(std::move(counted), end);
    } catch (const Error &e) {
        if (e.status != DSV4_E_UNSUPPORTED) throw;
    }
    const std::optional<Dfa> language = string_language(std::move(strings), form, path);
    if (!language) return grammar_.leaf(any, end);
    return grammar_.leaf(dfa_followed_by(*language, text_tail(form), path), end);
}

}  // namespace dsv4
