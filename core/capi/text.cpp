#include "core/capi/arguments.hpp"
#include "core/capi/boundary.hpp"
#include "core/engine/prompt.hpp"
#include "core/engine/session.hpp"
#include "core/engine/tokenizer_file.hpp"
#include "core/runtime.hpp"
#include "core/text/dsml_stream.hpp"
#include "core/text/dsml_strict.hpp"
#include "core/text/encoder.hpp"
#include "core/text/stream_decoder.hpp"

using namespace dsv4;

struct dsv4_tokenizer {
    std::shared_ptr<const Tokenizer> tokenizer;
};
struct dsv4_decoder {
    std::shared_ptr<const Tokenizer> tokenizer;
    StreamDecoder decoder;
    std::string text;
};

namespace {

std::string_view view(dsv4_str s, const char *name) {
    if (!s.data && s.size) throw Error(DSV4_E_INVALID, std::string(name) + ": NULL with a size of " + std::to_string(s.size));
    return s.size ? std::string_view(s.data, s.size) : std::string_view();
}

Prompt make_prompt(const dsv4_prompt_options &o) {
    constexpr uint32_t known = DSV4_PROMPT_THINKING | DSV4_PROMPT_KEEP_THINKING | DSV4_PROMPT_NO_BOS | DSV4_PROMPT_UNTRUSTED;
    if (o.flags & ~known) throw Error(DSV4_E_UNSUPPORTED, "prompt flags: found bits newer than this library");
    Prompt p;
    p.dialect = view(o.dialect, "dialect");
    if (!p.dialect.empty()) find_dialect(p.dialect);
    PromptOptions &c = p.conversation.options;
    c.thinking = o.flags & DSV4_PROMPT_THINKING;
    c.drop_thinking = !(o.flags & DSV4_PROMPT_KEEP_THINKING);
    c.add_bos = !(o.flags & DSV4_PROMPT_NO_BOS);
    c.reasoning_effort = view(o.reasoning_effort, "reasoning_effort");
    if (o.flags & DSV4_PROMPT_UNTRUSTED)
        c.untrusted = origin_bit(Origin::user) | origin_bit(Origin::tool_result);
    return p;
}

/// `body(conversation)` behind the checks that every builder call makes.
template <class Body> dsv4_status build(dsv4_prompt *prompt, dsv4_error *err, Body &&body) {
    return boundary(err, [&] {
        require(prompt, "prompt");
        body(prompt->prompt.conversation);
        return DSV4_OK;
    });
}

}  // namespace

extern "C" {

dsv4_status dsv4_tokenizer_load(dsv4_str path, dsv4_tokenizer **out, dsv4_error *err) {
    return boundary(err, [&] {
        clear_out(out);
        *out = new dsv4_tokenizer{load_tokenizer(text(path, "path"))};
        return DSV4_OK;
    });
}

dsv4_status dsv4_model_get_tokenizer(const dsv4_model *model, dsv4_tokenizer **out, dsv4_error *err) {
    return boundary(err, [&] {
        clear_out(out);
        require(model, "model");
        *out = new dsv4_tokenizer{model->model->tokenizer()};
        return DSV4_OK;
    });
}

void dsv4_tokenizer_release(dsv4_tokenizer *tokenizer) { delete tokenizer; }
size_t dsv4_tokenizer_size(const dsv4_tokenizer *tokenizer) { return tokenizer ? tokenizer->tokenizer->vocab_size() : 0; }

dsv4_status dsv4_tokenizer_encode(const dsv4_tokenizer *tokenizer, dsv4_str text, uint32_t flags, int32_t *ids,
                                  size_t capacity, size_t *count, dsv4_error *err) {
    return boundary(err, [&] {
        require(tokenizer, "tokenizer");
        require(count, "count");
        if (flags & ~uint32_t(DSV4_ENCODE_ORDINARY)) throw Error(DSV4_E_UNSUPPORTED, "encode flags newer than this library");
        const std::string_view input = view(text, "text");
        const auto out = flags & DSV4_ENCODE_ORDINARY ? tokenizer->tokenizer->encode_ordinary(input)
                                                      : tokenizer->tokenizer->encode(input);
        *count = out.size();
        if (ids) std::copy_n(out.begin(), std::min(capacity, out.size()), ids);
        return DSV4_OK;
    });
}

dsv4_status dsv4_tokenizer_decode(const dsv4_tokenizer *tokenizer, const int32_t *ids, size_t count, dsv4_blob **out,
                                  dsv4_error *err) {
    return boundary(err, [&] {
        clear_out(out);
        require(tokenizer, "tokenizer");
        if (count) require(ids, "ids");
        *out = new dsv4_blob{tokenizer->tokenizer->decode({ids, count})};
        return DSV4_OK;
    });
}

dsv4_status dsv4_tokenizer_token(const dsv4_tokenizer *tokenizer, int32_t id, dsv4_str *bytes, int32_t *added,
                                 dsv4_error *err) {
    return boundary(err, [&] {
        require(tokenizer, "tokenizer");
        require(bytes, "bytes");
        const std::string_view b = tokenizer->tokenizer->token_bytes(id);
        *bytes = {b.data(), b.size()};
        if (added) *added = tokenizer->tokenizer->is_added(id) ? 1 : 0;
        return DSV4_OK;
    });
}

dsv4_status dsv4_tokenizer_find(const dsv4_tokenizer *tokenizer, dsv4_str bytes, int32_t *id, dsv4_error *err) {
    return boundary(err, [&] {
        require(tokenizer, "tokenizer");
        require(id, "id");
        *id = tokenizer->tokenizer->find_token(view(bytes, "bytes"));
        if (*id < 0) throw Error(DSV4_E_INVALID, "no token has exactly these " + std::to_string(bytes.size) + " bytes");
        return DSV4_OK;
    });
}

dsv4_status dsv4_decoder_create(const dsv4_tokenizer *tokenizer, dsv4_decoder **out, dsv4_error *err) {
    return boundary(err, [&] {
        clear_out(out);
        require(tokenizer, "tokenizer");
        *out = new dsv4_decoder{tokenizer->tokenizer, {}, {}};
        return DSV4_OK;
    });
}

dsv4_status dsv4_decoder_push(dsv4_decoder *decoder, int32_t id, dsv4_str *text, dsv4_error *err) {
    return boundary(err, [&] {
        require(decoder, "decoder");
        require(text, "text");
        decoder->text.clear();
        decoder->decoder.push(decoder->tokenizer->token_bytes(id), decoder->text);
        *text = {decoder->text.data(), decoder->text.size()};
        return DSV4_OK;
    });
}

dsv4_status dsv4_decoder_finish(dsv4_decoder *decoder, dsv4_str *text, dsv4_error *err) {
    return boundary(err, [&] {
        require(decoder, "decoder");
        require(text, "text");
        decoder->text.clear();
        decoder->decoder.finish(decoder->text);
        *text = {decoder->text.data(), decoder->text.size()};
        return DSV4_OK;
    });
}

void dsv4_decoder_release(dsv4_decoder *decoder) { delete decoder; }

dsv4_status dsv4_prompt_create(const dsv4_prompt_options *options, dsv4_prompt **out, dsv4_error *err) {
    return boundary(err, [&] {
        clear_out(out);
        *out = new dsv4_prompt{make_prompt(read_sized(options, "prompt options"))};
        return DSV4_OK;
    });
}

dsv4_status dsv4_prompt_from_json(dsv4_str request, const dsv4_prompt_options *options, dsv4_prompt **out,
                                  dsv4_error *err) {
    return boundary(err, [&] {
        clear_out(out);
        Prompt prompt = make_prompt(read_sized(options, "prompt options"));
        prompt.conversation = Conversation::from_request(view(request, "request"), "request", prompt.conversation.options);
        *out = new dsv4_prompt{std::move(prompt)};
        return DSV4_OK;
    });
}

void dsv4_prompt_release(dsv4_prompt *prompt) { delete prompt; }

dsv4_status dsv4_prompt_add_system(dsv4_prompt *prompt, dsv4_str text, dsv4_error *err) {
    return build(prompt, err, [&](Conversation &c) { c.add_system(view(text, "text")); });
}
dsv4_status dsv4_prompt_add_user(dsv4_prompt *prompt, dsv4_str text, dsv4_error *err) {
    return build(prompt, err, [&](Conversation &c) { c.add_user(view(text, "text")); });
}
dsv4_status dsv4_prompt_add_assistant(dsv4_prompt *prompt, dsv4_str text, dsv4_str reasoning, dsv4_error *err) {
    return build(prompt, err, [&](Conversation &c) { c.add_assistant(view(text, "text"), view(reasoning, "reasoning")); });
}
dsv4_status dsv4_prompt_add_tool_call(dsv4_prompt *prompt, dsv4_str call_id, dsv4_str name, dsv4_str arguments,
                                      dsv4_error *err) {
    return build(prompt, err, [&](Conversation &c) {
        c.add_tool_call(view(call_id, "call_id"), view(name, "name"), view(arguments, "arguments"));
    });
}
dsv4_status dsv4_prompt_add_tool_result(dsv4_prompt *prompt, dsv4_str call_id, dsv4_str text, dsv4_error *err) {
    return build(prompt, err, [&](Conversation &c) { c.add_tool_result(view(call_id, "call_id"), view(text, "text")); });
}
dsv4_status dsv4_prompt_add_message(dsv4_prompt *prompt, dsv4_str json, dsv4_error *err) {
    return build(prompt, err, [&](Conversation &c) { c.add_message(view(json, "json")); });
}
dsv4_status dsv4_prompt_add_tool(dsv4_prompt *prompt, dsv4_str json_schema, dsv4_error *err) {
    return build(prompt, err, [&](Conversation &c) { c.add_tool(view(json_schema, "json_schema")); });
}
dsv4_status dsv4_prompt_set_response_format(dsv4_prompt *prompt, dsv4_str json, dsv4_error *err) {
    return build(prompt, err, [&](Conversation &c) { c.set_response_format(view(json, "json")); });
}

dsv4_status dsv4_prompt_render(const dsv4_prompt *prompt, dsv4_blob **out, dsv4_error *err) {
    return boundary(err, [&] {
        clear_out(out);
        require(prompt, "prompt");
        const Prompt &p = prompt->prompt;
        *out = new dsv4_blob{encode_prompt(p.conversation, p.dialect_or("preview")).text};
        return DSV4_OK;
    });
}

dsv4_status dsv4_session_match(dsv4_session *session, const dsv4_prompt *prompt, size_t *held, size_t *total,
                               dsv4_error *err) {
    return boundary(err, [&] {
        require(session, "session");
        require(prompt, "prompt");
        require(held, "held");
        require(total, "total");
        session->session->match(prompt->prompt, *held, *total);
        return DSV4_OK;
    });
}

dsv4_status dsv4_parse_completion(dsv4_str text, uint32_t flags, dsv4_str tools, dsv4_blob **out, dsv4_error *err) {
    return boundary(err, [&] {
        clear_out(out);
        if (flags & ~uint32_t(DSV4_PARSE_THINKING | DSV4_PARSE_LENIENT))
            throw Error(DSV4_E_UNSUPPORTED, "parse flags newer than this library");
        const std::string_view input = view(text, "text"), offered = view(tools, "tools");
        const bool thinking = flags & DSV4_PARSE_THINKING;
        if (!(flags & DSV4_PARSE_LENIENT)) {
            *out = new dsv4_blob{message_to_json(parse_completion_strict(input, thinking))};
            return DSV4_OK;
        }
        DsmlStreamOptions options;
        options.thinking = thinking;
        if (!offered.empty()) options.tools = dsml_tools_from_json(offered);
        *out = new dsv4_blob{message_to_json(parse_completion_lenient(input, std::move(options)))};
        return DSV4_OK;
    });
}

}  // extern "C"
