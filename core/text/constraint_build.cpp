// The grammar of a whole completion: reasoning, content or a JSON value, calls, end of sentence.
#include "core/error.hpp"
#include "core/text/constraint_cache.hpp"
#include "core/text/constraint_state.hpp"
#include "core/text/schema_compile.hpp"

namespace dsv4 {
namespace {

using Choice = ConstraintOptions::ToolChoice;

/// Automata of a constraint with a folded vocabulary: each takes some milliseconds and up to half a megabyte. Without it a
/// mask may take a sweep.
constexpr size_t kMostFolded = 64;

struct Builder {
    Grammar &grammar;
    const Vocabulary &vocabulary;
    std::vector<std::string> &unsupported;

    uint32_t dsml(uint32_t next) { return grammar.symbol(Symbol::dsml, next); }

    /// From the word after the block's marker to the end of sentence.
    uint32_t block(const SchemaJson &tools, const ConstraintOptions &options) {
        if (vocabulary.symbol(Symbol::dsml) < 0)
            throw Error(DSV4_E_UNSUPPORTED, "tools: the vocabulary has no token for the call marker");
        const uint32_t close = grammar.text("</", dsml(grammar.text("invoke>\n", grammar.end())));
        const uint32_t close_empty = grammar.text("\n</", dsml(grammar.text("invoke>\n", grammar.end())));
        std::vector<uint32_t> invokes;
        for (size_t i = 0; i < tools.items().size(); ++i) {
            const std::string where = "tools[" + std::to_string(i) + "]";
            const SchemaJson &tool = tools.items()[i], &function = tool.contains("function") ? tool["function"] : tool;
            if (!function.is_object() || !function.contains("name") || !function["name"].is_string())
                throw Error(DSV4_E_INVALID, where + ": expected a function with a string \"name\"");
            const std::string &name = function["name"].text();
            if (options.tool_choice == Choice::named && name != options.tool_name) continue;
            if (name.empty() || name.find_first_of("\"<>\n") != std::string::npos)
                throw Error(DSV4_E_INVALID, where + ": the name \"" + name + "\" cannot be written in a tag");
            const SchemaJson none = SchemaJson::object({{"type", SchemaJson::string("object")}, {"properties", SchemaJson::object()}});
            const SchemaJson &schema = function.contains("parameters") && !function["parameters"].is_null()
                                           ? function["parameters"]
                                           : none;
            SchemaCompiler compiler(grammar, vocabulary, schema, false, unsupported);
            invokes.push_back(grammar.text("invoke name=\"" + name + "\">\n",
                                           compiler.parameters(schema, name, close_empty, close)));
        }
        if (invokes.empty())
            throw Error(DSV4_E_INVALID, options.tool_choice == Choice::named
                                            ? "tool_choice: no tool is named \"" + options.tool_name + "\""
                                            : std::string("tool_choice: expected tools, found none"));
        GrammarList list{};
        list.first = list.again = grammar.text("<", dsml(grammar.choice(std::move(invokes))));
        list.close = grammar.text("</", dsml(grammar.text("tool_calls>", grammar.symbol(Symbol::eos, grammar.end()))));
        list.min = 1;
        list.max = options.parallel_calls ? UINT32_MAX : 1;
        return grammar.text("tool_calls>\n", grammar.list(list));
    }
};

}  // namespace

Constraint::Constraint() : cache_(std::make_unique<MaskCache>()) {}
Constraint::~Constraint() = default;

std::shared_ptr<const Constraint> Constraint::compile(std::shared_ptr<const Vocabulary> vocabulary,
                                                      const ConstraintOptions &options) {
    const std::shared_ptr<Constraint> out(new Constraint());
    out->vocabulary_ = vocabulary;
    Grammar &grammar = out->grammar_;
    Builder builder{grammar, *vocabulary, out->unsupported_};
    const uint32_t eos = grammar.symbol(Symbol::eos, grammar.end());

    const SchemaJson tools = options.tools.empty() ? SchemaJson::array() : parse_schema_json(options.tools, "tools");
    if (!tools.is_array()) throw Error(DSV4_E_INVALID, "tools: expected a JSON array");
    const bool must_call = options.tool_choice == Choice::required || options.tool_choice == Choice::named;
    const bool may_call = must_call || (options.tool_choice == Choice::automatic && !tools.empty());

    const SchemaJson format = options.response_format.empty() ? SchemaJson()
                                                              : parse_schema_json(options.response_format, "response_format");
    SchemaJson schema;  // must outlive the compiler
    std::vector<uint32_t> answers;
    bool json = false;
    if (!format.is_null()) {
        const std::string type = format.is_object() && format.contains("type") && format["type"].is_string()
                                     ? format["type"].text()
                                     : std::string();
        if (type == "json_schema") {
            if (format.contains("json_schema") && format["json_schema"].is_object() && format["json_schema"].contains("schema"))
                schema = format["json_schema"]["schema"];
            else if (format.contains("schema")) schema = format["schema"];
            else throw Error(DSV4_E_INVALID, "response_format: expected json_schema.schema");
        } else if (type != "json_object" && type != "text") {
            throw Error(DSV4_E_INVALID, "response_format: expected type text, json_object or json_schema");
        }
        json = type != "text";
        if (json && !must_call) {
            SchemaCompiler compiler(grammar, *vocabulary, schema, true, out->unsupported_);
            const uint32_t value = type == "json_object" ? compiler.any_object() : compiler.json_value(schema, "response_format");
            answers.push_back(grammar.call(value, eos));
        }
    }
    if (!must_call && !json) answers.push_back(grammar.leaf(vocabulary->common(CommonText::content), eos));
    if (may_call) {
        const uint32_t block = builder.dsml(builder.block(tools, options));
        answers.push_back(must_call || json ? grammar.text("\n\n<", block)
                                            : grammar.leaf(vocabulary->common(CommonText::content_open), block));
    }
    uint32_t root = grammar.choice(std::move(answers));
    if (options.thinking) {
        if (vocabulary->symbol(Symbol::think_end) < 0)
            throw Error(DSV4_E_UNSUPPORTED, "thinking: the vocabulary has no token that ends reasoning");
        root = grammar.leaf(vocabulary->common(CommonText::reasoning), grammar.symbol(Symbol::think_end, root));
    }
    grammar.root = root;
    if (!grammar.finish()) throw Error(DSV4_E_INVALID, "constraint: no finite completion satisfies the schemas");
    size_t folded = 0;
    for (const std::unique_ptr<Leaf> &leaf : grammar.owned)
        if (folded < kMostFolded) folded += leaf->prepare(*vocabulary);
    return out;
}

}  // namespace dsv4
