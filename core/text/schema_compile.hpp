// JSON Schema to grammar. What the grammar makes always satisfies the schema, as far as `unsupported` does not say
// otherwise; it need not make everything the schema allows:
//  - properties that are not declared appear only where additionalProperties says so explicitly;
//  - a schema with `properties` (`items`, `pattern` ...) but no type means an object (array, string ...);
//  - white space in JSON is one optional space or line break after `{ [ , :` and before `} ]`;
//  - numbers have at most 18 digits before and 17 after the point; free-form JSON nests at most 16 deep.
#pragma once
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "core/text/grammar_rules.hpp"
#include "core/text/grammar_text.hpp"
#include "core/text/schema_json.hpp"

namespace dsv4 {

class SchemaCompiler {
public:
    /// `root`: what $ref refers into; must outlive the compiler. `content`: the value is message content, where no
    /// control token's text may appear; otherwise it is a parameter, where only ｜DSML｜ may not.
    SchemaCompiler(Grammar &grammar, const Vocabulary &vocabulary, const SchemaJson &root, bool content,
                   std::vector<std::string> &unsupported)
        : grammar_(grammar), vocabulary_(vocabulary), root_(root), content_(content), unsupported_(unsupported) {}

    /// Rule for a JSON text of the schema's values. Error (DSV4_E_INVALID) when there are none.
    uint32_t json_value(const SchemaJson &schema, const std::string &path);
    /// Rule for a DSML parameter from its string attribute's value to the "</" of its closer.
    uint32_t parameter(const SchemaJson &schema, const std::string &path);
    /// The members that a tool's parameters may have: one grammar object per alternative.
    uint32_t parameters(const SchemaJson &schema, const std::string &path, uint32_t close_empty, uint32_t close);
    /// Any JSON object.
    uint32_t any_object() { return free_form(0, true); }

private:
    using Alternatives = std::vector<SchemaJson>;
    Alternatives alternatives(const SchemaJson &schema, const std::string &path, std::set<std::string> &open);
    const SchemaJson &resolve(const std::string &reference, const std::string &path) const;
    bool merge(SchemaJson &into, const SchemaJson &other, const std::string &path);
    void check_keywords(const SchemaJson &schema, const std::string &path);
    void report(const std::string &path, const std::string &what);
    void check_text(std::string_view text, const std::string &path) const;

    std::set<std::string> types(const SchemaJson &schema, const std::string &path) const;
    uint32_t value(const SchemaJson &schema, const std::string &path, bool strings);
    uint32_t one(const SchemaJson &schema, const std::string &type, const std::string &path);
    /// What the string keywords ask for.
    struct Strings {
        std::optional<Dfa> language;  // pattern and format
        size_t min = 0, max = SIZE_MAX;
        bool limited() const { return min > 0 || max != SIZE_MAX; }
    };
    Strings string_keywords(const SchemaJson &schema, TextForm form, const std::string &path);
    std::optional<Dfa> string_language(Strings strings, TextForm form, const std::string &path);
    uint32_t string_text(const SchemaJson &schema, TextForm form, const std::string &path);
    std::vector<std::string> forbidden() const;
    uint32_t raw(const SchemaJson &schema, const std::string &path);
    uint32_t number(const SchemaJson &schema, bool integer, const std::string &path);
    uint32_t array(const SchemaJson &schema, const std::string &path);
    uint32_t object(const SchemaJson &schema, const std::string &path);
    uint32_t constants(const std::vector<std::string> &texts, const std::string &path);
    std::vector<SchemaJson> enumerated(const SchemaJson &schema, const std::set<std::string> &types,
                                       const std::string &path);
    bool satisfies(const SchemaJson &value, const SchemaJson &schema, const std::string &path);
    uint32_t free_form(size_t depth, bool object_only);
    uint32_t member(uint32_t key_then, bool again);
    uint32_t space(uint32_t next);
    uint32_t close_with(char bracket, bool spaced);
    uint32_t undeclared_key(const std::vector<std::string> &declared, uint32_t next);
    size_t size_keyword(const SchemaJson &schema, const char *name, size_t fallback, const std::string &path) const;

    Grammar &grammar_;
    const Vocabulary &vocabulary_;
    const SchemaJson &root_;
    bool content_;
    std::vector<std::string> &unsupported_;
    std::map<std::string, uint32_t> rules_;       // by the schema's text: this is what makes recursion finite
    std::map<std::pair<size_t, int>, uint32_t> free_;
    std::map<std::vector<std::string>, const Leaf *> keys_;  // by the names that they are not
    std::set<std::string> reported_;
    size_t work_ = 0;
};

}  // namespace dsv4
