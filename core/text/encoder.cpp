#include "core/text/encoder.hpp"
#include "core/error.hpp"
#include <algorithm>
#include <unordered_map>

namespace dsv4 {

namespace {

enum class Role { system, developer, user, assistant, latest_reminder, other };

/// Where a message came from, for error messages.
struct Source {
    const char *list = "messages";
    size_t index = 0;
};

/// One part of a user turn: a user's text or a tool's result.
struct Block {
    const JsonValue *content; // null: the message has none
    bool tool_result;
    const JsonValue *call_id;
    Source source;
};

/// A message after tool results have become parts of user turns.
struct Turn {
    Role role;
    const JsonValue *message; // null for a user turn that began with a tool result
    std::vector<Block> blocks;
    const JsonValue *task; // null: none
    bool has_tools;
    Source source;
};

[[noreturn]] void fail(const Source &source, const std::string &what) {
    throw Error(DSV4_E_INVALID, std::string(source.list) + '[' + std::to_string(source.index) + "]: " + what);
}

std::string shown(const JsonValue *value) { return value ? dump_python_json(*value).substr(0, 60) : "none"; }

bool truthy(const JsonValue *value) { return value && value->truthy(); }

Role role_of(const JsonValue &message) {
    const JsonValue *role = message.find("role");
    if (!role || !role->is_string()) return Role::other;
    const std::string &name = role->text();
    if (name == "system") return Role::system;
    if (name == "developer") return Role::developer;
    if (name == "user") return Role::user;
    if (name == "assistant") return Role::assistant;
    if (name == "latest_reminder") return Role::latest_reminder;
    return Role::other;
}

const JsonValue *not_null(const JsonValue *value) { return value && !value->is_null() ? value : nullptr; }

/// Tool results join the user turn before them, and a user message joins one that has no task. Where `inserted`, the
/// first message is ours, and the caller's indices do not count it.
void merge_messages(const std::vector<JsonValue> &messages, const char *list, bool inserted, std::vector<Turn> &turns) {
    const size_t first = turns.size();
    for (size_t i = 0; i < messages.size(); ++i) {
        const JsonValue &message = messages[i];
        const Source source{list, inserted && i > 0 ? i - 1 : i};
        if (!message.is_object()) fail(source, std::string("expected an object, found ") + message.kind_name());
        const JsonValue *role = message.find("role");
        const bool tool = role && role->is_string() && role->text() == "tool";
        if (!tool && role_of(message) != Role::user) {
            turns.push_back({role_of(message),
                             &message,
                             {},
                             not_null(message.find("task")),
                             truthy(message.find("tools")),
                             source});
            continue;
        }
        const bool user_before = turns.size() > first && turns.back().role == Role::user;
        if (!user_before || (!tool && turns.back().task)) {
            const JsonValue *task = tool ? nullptr : not_null(message.find("task"));
            turns.push_back({Role::user, tool ? nullptr : &message, {}, task, false, source});
        }
        turns.back().blocks.push_back({message.find("content"), tool, message.find("tool_call_id"), source});
    }
}

std::string id_text(const JsonValue *id) {
    if (!truthy(id)) return {};
    return id->is_string() ? id->text() : dump_python_json(*id);
}

/// The results of a turn stand in the order of the calls they answer.
void sort_tool_results(std::vector<Turn> &turns) {
    std::unordered_map<std::string, size_t> order;
    for (Turn &turn : turns) {
        if (turn.role == Role::assistant && truthy(turn.message->find("tool_calls"))) {
            order.clear();
            const JsonValue &calls = *turn.message->find("tool_calls");
            if (!calls.is_array())
                fail(turn.source, std::string("tool_calls: expected an array, found ") + calls.kind_name());
            for (size_t i = 0; i < calls.size(); ++i) {
                const JsonValue &call = calls.items()[i];
                std::string id = id_text(call.find("id"));
                if (id.empty() && call.find("function")) id = id_text(call.find("function")->find("id"));
                if (!id.empty()) order[id] = i;
            }
        } else if (turn.role == Role::user && !order.empty()) {
            std::vector<Block> results;
            for (const Block &block : turn.blocks)
                if (block.tool_result) results.push_back(block);
            if (results.size() < 2) continue;
            const auto rank = [&](const Block &block) {
                const auto found = order.find(id_text(block.call_id));
                return found == order.end() ? size_t{0} : found->second;
            };
            std::stable_sort(results.begin(), results.end(),
                             [&](const Block &a, const Block &b) { return rank(a) < rank(b); });
            size_t next = 0;
            for (Block &block : turn.blocks)
                if (block.tool_result) block = results[next++];
        }
    }
}

/// The last user or developer turn, or -1.
std::ptrdiff_t last_user(const std::vector<Turn> &turns, size_t count) {
    for (size_t i = count; i-- > 0;)
        if (turns[i].role == Role::user || turns[i].role == Role::developer) return static_cast<std::ptrdiff_t>(i);
    return -1;
}

/// Whether a turn stays when reasoning is dropped. Roles nobody knows go the way of developer messages; only
/// direct_search_results, which no release renders, stays to be an error.
bool survives_dropping(const Turn &turn, size_t index, std::ptrdiff_t last) {
    if (static_cast<std::ptrdiff_t>(index) >= last) return true;
    switch (turn.role) {
    case Role::developer: return false;
    case Role::other: {
        const JsonValue *role = turn.message->find("role");
        return role && role->is_string() && role->text() == "direct_search_results";
    }
    default: return true;
    }
}

class Writer {
  public:
    Writer(const std::vector<Turn> &turns, const PromptOptions &options, const Dialect &dialect, bool drop_thinking)
        : turns_(turns), options_(options), dialect_(dialect), drop_thinking_(drop_thinking),
          last_user_(last_user(turns, turns.size())) {}

    EncodedPrompt out;

    void markup(std::string_view text) { out.text += text; }

    void effort() {
        if (!options_.thinking) return;
        for (const Dialect::Named &effort : dialect_.efforts)
            if (effort.name == options_.reasoning_effort) markup(effort.text);
    }

    void turn(size_t index) {
        const Turn &turn = turns_[index];
        if (index == 0) effort();
        switch (turn.role) {
        case Role::system: system(turn); break;
        case Role::developer: developer(turn); break;
        case Role::user: user(turn); break;
        case Role::latest_reminder:
            markup(dialect_.latest_reminder);
            content(printed(turn.message->find("content"), turn.source, "content"), Origin::latest_reminder);
            break;
        case Role::assistant: assistant(turn, index); break;
        case Role::other: fail(turn.source, "unknown role " + shown(turn.message->find("role")));
        }
        header(turn, index);
    }

  private:
    void content(std::string_view text, Origin origin) {
        if (text.empty()) return;
        const size_t begin = out.text.size();
        out.text += text;
        auto &contents = out.contents;
        if (!contents.empty() && contents.back().end == begin && contents.back().origin == origin)
            contents.back().end = out.text.size();
        else contents.push_back({begin, out.text.size(), origin});
    }

    /// Absent, null or empty: nothing; else it must be a string.
    static std::string_view optional_text(const JsonValue *value, const Source &source, const char *what) {
        if (!truthy(value)) return {};
        if (!value->is_string()) fail(source, std::string(what) + ": expected a string, found " + value->kind_name());
        return value->text();
    }

    /// What Python's str() makes of a value that should be a string: null is "None".
    static std::string_view printed(const JsonValue *value, const Source &source, const char *what) {
        if (!value || value->is_null()) return "None";
        if (!value->is_string()) fail(source, std::string(what) + ": expected a string, found " + value->kind_name());
        return value->text();
    }

    void tools_and_format(const Turn &turn) {
        const JsonValue *tools = turn.message->find("tools");
        if (truthy(tools)) {
            if (!tools->is_array())
                fail(turn.source, std::string("tools: expected an array, found ") + tools->kind_name());
            markup("\n\n");
            markup(dialect_.tools_before);
            for (size_t i = 0; i < tools->size(); ++i) {
                const JsonValue *function = tools->items()[i].find("function");
                if (!function) fail(turn.source, "tools[" + std::to_string(i) + "]: expected \"function\", found none");
                if (i) markup("\n");
                content(dump_python_json(*function), Origin::tool_schema);
            }
            markup(dialect_.tools_after);
        }
        const JsonValue *format = turn.message->find("response_format");
        if (truthy(format)) {
            markup("\n\n");
            markup(dialect_.response_format);
            content(dump_python_json(*format), Origin::response_format);
        }
    }

    void system(const Turn &turn) {
        content(optional_text(turn.message->find("content"), turn.source, "content"), Origin::system);
        tools_and_format(turn);
    }

    void developer(const Turn &turn) {
        const std::string_view text = optional_text(turn.message->find("content"), turn.source, "content");
        if (text.empty()) fail(turn.source, "a developer message needs content, found none");
        markup(dialect_.user);
        content(text, Origin::developer);
        tools_and_format(turn);
    }

    void user(const Turn &turn) {
        markup(dialect_.user);
        for (size_t i = 0; i < turn.blocks.size(); ++i) {
            const Block &block = turn.blocks[i];
            if (i) markup("\n\n");
            if (block.tool_result) {
                tool_result(block);
            } else if (block.content) {
                if (!block.content->is_string())
                    fail(block.source, std::string("content: expected a string, found ") + block.content->kind_name());
                content(block.content->text(), Origin::user);
            }
        }
    }

    void tool_result(const Block &block) {
        markup(dialect_.tool_result_open);
        if (block.content && block.content->is_array()) {
            for (size_t i = 0; i < block.content->size(); ++i) {
                const JsonValue &part = block.content->items()[i];
                if (i) markup("\n\n");
                if (!part.is_object())
                    fail(block.source,
                         "content[" + std::to_string(i) + "]: expected an object, found " + part.kind_name());
                const JsonValue *type = part.find("type");
                if (type && type->is_string() && type->text() == "text") {
                    const JsonValue *text = part.find("text");
                    if (text && !text->is_string())
                        fail(block.source,
                             "content[" + std::to_string(i) + "].text: expected a string, found " + text->kind_name());
                    if (text) content(text->text(), Origin::tool_result);
                } else {
                    markup("[Unsupported ");
                    content(printed(type, block.source, "type of a content part"), Origin::tool_result);
                    markup("]");
                }
            }
        } else if (block.content) {
            content(printed(block.content, block.source, "content"), Origin::tool_result);
        }
        markup(dialect_.tool_result_close);
    }

    void arguments(const JsonValue &function, const Source &source) {
        const JsonValue *given = function.find("arguments");
        if (!given) fail(source, "tool_calls: expected function.arguments, found none");
        JsonValue parsed;
        if (given->is_object()) {
            parsed = *given;
        } else if (!given->is_string() || !try_parse_python_json(given->text(), parsed)) {
            parsed = JsonValue::make_object();
            parsed.set("arguments", *given);
        }
        if (!parsed.is_object())
            fail(source, std::string("tool_calls: expected function.arguments to be an object's JSON, found that of ") +
                             parsed.kind_name());
        for (size_t i = 0; i < parsed.size(); ++i) {
            const JsonValue &value = parsed.items()[i];
            if (i) markup("\n");
            markup(dialect_.parameter_open);
            content(parsed.keys()[i], Origin::tool_call);
            markup(value.is_string() ? dialect_.parameter_string : dialect_.parameter_json);
            content(value.is_string() ? value.text() : dump_python_json(value), Origin::tool_call);
            markup(dialect_.parameter_close);
        }
    }

    void tool_calls(const Turn &turn) {
        const JsonValue *calls = turn.message->find("tool_calls");
        if (!truthy(calls)) return;
        markup(dialect_.calls_open);
        for (size_t i = 0; i < calls->size(); ++i) {
            const JsonValue *function = calls->items()[i].find("function");
            if (!function || !function->is_object())
                fail(turn.source,
                     "tool_calls[" + std::to_string(i) + "]: expected a \"function\" object, found " + shown(function));
            const JsonValue *name = function->find("name");
            if (!name || !name->is_string())
                fail(turn.source,
                     "tool_calls[" + std::to_string(i) + "].function.name: expected a string, found " + shown(name));
            if (i) markup("\n");
            markup(dialect_.invoke_open);
            content(name->text(), Origin::tool_call);
            markup(dialect_.invoke_named);
            arguments(*function, turn.source);
            markup(dialect_.invoke_close);
        }
        markup(dialect_.calls_close);
    }

    void assistant(const Turn &turn, size_t index) {
        const JsonValue &message = *turn.message;
        EncodedPrompt::Answer answer{out.text.size(), 0, turn.source.index, false, !truthy(message.find("wo_eos"))};
        const bool answers_task = index > 0 && turns_[index - 1].task;
        const bool remembered = !drop_thinking_ || static_cast<std::ptrdiff_t>(index) > last_user_;
        answer.thinking = options_.thinking && !answers_task && remembered;
        if (answer.thinking) {
            content(optional_text(message.find("reasoning_content"), turn.source, "reasoning_content"),
                    Origin::reasoning);
            markup(dialect_.think_close);
        }
        content(optional_text(message.find("content"), turn.source, "content"), Origin::assistant);
        tool_calls(turn);
        if (answer.eos) markup(dialect_.eos);
        answer.end = out.text.size();
        out.answers.push_back(answer);
    }

    /// What asks for the next message, where an answer follows or shall follow.
    void header(const Turn &turn, size_t index) {
        if (index + 1 < turns_.size()) {
            const Role next = turns_[index + 1].role;
            if (next != Role::assistant && next != Role::latest_reminder) return;
        }
        const std::string_view think = options_.thinking ? dialect_.think_open : dialect_.think_close;
        if (turn.task) {
            const auto named =
                std::find_if(dialect_.tasks.begin(), dialect_.tasks.end(), [&](const Dialect::Named &task) {
                    return turn.task->is_string() && task.name == turn.task->text();
                });
            if (named == dialect_.tasks.end())
                fail(turn.source, "unknown task " + shown(turn.task) +
                                      "; expected action, query, authority, domain, title or read_url");
            if (named->name == "action") {
                markup(dialect_.assistant);
                markup(think);
            }
            markup(named->text);
        } else if (turn.role == Role::user || turn.role == Role::developer) {
            markup(dialect_.assistant);
            const bool thinks = !drop_thinking_ || static_cast<std::ptrdiff_t>(index) >= last_user_;
            markup(thinks ? think : dialect_.think_close);
        }
    }

    const std::vector<Turn> &turns_;
    const PromptOptions &options_;
    const Dialect &dialect_;
    const bool drop_thinking_;
    const std::ptrdiff_t last_user_;
};

/// Tools given beside the messages belong to the system message that comes first; without one, an empty one is made,
/// since user messages cannot carry them.
std::vector<JsonValue> place_tools(const Conversation &conversation, bool &inserted) {
    std::vector<JsonValue> messages = conversation.messages();
    const Role first = messages.empty() || !messages[0].is_object() ? Role::other : role_of(messages[0]);
    if (first != Role::system && first != Role::developer) {
        JsonValue system = JsonValue::make_object();
        system.set("role", JsonValue::make_string("system"));
        messages.insert(messages.begin(), std::move(system));
        inserted = true;
    }
    if (truthy(messages[0].find("tools")))
        throw Error(DSV4_E_INVALID,
                    "messages[0]: has tools of its own beside those of the request; give them in one place");
    JsonValue tools = JsonValue::make_array();
    for (const JsonValue &tool : conversation.tools()) tools.push_back(tool);
    messages[0].set("tools", std::move(tools));
    return messages;
}

} // namespace

EncodedPrompt encode_prompt(const Conversation &conversation, const Dialect &dialect) {
    const PromptOptions &options = conversation.options;
    const auto known_effort = [&](const Dialect::Named &effort) { return effort.name == options.reasoning_effort; };
    if (!options.reasoning_effort.empty() &&
        std::none_of(dialect.efforts.begin(), dialect.efforts.end(), known_effort)) {
        std::string names;
        for (const Dialect::Named &effort : dialect.efforts) (names += names.empty() ? "" : ", ") += effort.name;
        throw Error(DSV4_E_INVALID, "reasoning_effort: the dialect " + std::string(dialect.name) + " has " + names +
                                        ", found \"" + options.reasoning_effort.substr(0, 40) + '"');
    }

    bool inserted = false;
    std::vector<JsonValue> placed;
    if (!conversation.tools().empty()) placed = place_tools(conversation, inserted);
    std::vector<Turn> turns;
    merge_messages(conversation.context(), "context", false, turns);
    const size_t context_turns = turns.size();
    merge_messages(conversation.tools().empty() ? conversation.messages() : placed, "messages", inserted, turns);
    sort_tool_results(turns);

    const bool drop =
        options.drop_thinking && std::none_of(turns.begin(), turns.end(), [](const Turn &t) { return t.has_tools; });
    size_t first = context_turns;
    if (options.thinking && drop) {
        // The part not written again is as long as the context was when it was encoded by itself, where its own last
        // user turn decided what stayed; so counts the release.
        const std::ptrdiff_t last_in_context = last_user(turns, context_turns), last = last_user(turns, turns.size());
        first = 0;
        for (size_t i = 0; i < context_turns; ++i) first += survives_dropping(turns[i], i, last_in_context);
        std::vector<Turn> kept;
        for (size_t i = 0; i < turns.size(); ++i)
            if (survives_dropping(turns[i], i, last)) kept.push_back(std::move(turns[i]));
        turns = std::move(kept);
    }

    Writer writer(turns, options, dialect, drop);
    if (options.add_bos && context_turns == 0) writer.markup(dialect.bos);
    for (size_t i = first; i < turns.size(); ++i) writer.turn(i);
    return std::move(writer.out);
}

} // namespace dsv4
