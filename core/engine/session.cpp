#include "core/engine/session.hpp"
#include <algorithm>
#include <random>

namespace dsv4 {
namespace {

uint64_t fresh_seed() {
    std::random_device source;
    const uint64_t seed = uint64_t(source()) << 32 | source();
    return seed ? seed : 1;
}

uint64_t nanoseconds(std::chrono::steady_clock::duration d) {
    return uint64_t(std::chrono::duration_cast<std::chrono::nanoseconds>(d).count());
}

}  // namespace

Session::Use::Use(Session &session) : session_(session) {
    if (session.busy_.exchange(true, std::memory_order_acquire))
        throw Error(DSV4_E_INVALID, "the session is in use: release its open stream, or end the other call, first");
}

Session::Session(std::shared_ptr<Model> model, const dsv4_session_options &options)
    : model_(std::move(model)), id_seed_(fresh_seed()) {
    expect_unused(options.reserved, "session options");
    const auto limit = uint32_t(model_->max_context());
    if (options.context_tokens > limit)
        throw Error(DSV4_E_CONTEXT, "context_tokens: the model and its cache allow at most " + std::to_string(limit) +
                                        ", found " + std::to_string(options.context_tokens));
    const auto most = uint32_t(model_->engine().capacity().tokens);
    sequence_.context = int32_t(options.context_tokens ? options.context_tokens : limit);
    sequence_.chunk = int32_t(options.prefill_chunk ? std::min(options.prefill_chunk, most) : most);
    sequence_.slot = model_->engine().pool().take_slot();
    if (sequence_.slot < 0)
        throw Error(DSV4_E_NO_MEMORY, "all " + std::to_string(model_->max_sessions()) +
                                          " sessions of this model exist; release one or raise max_sessions");
}

Session::~Session() {
    CachePool &pool = model_->engine().pool();
    pool.shrink(sequence_.blocks, 0);
    pool.give_slot(sequence_.slot);
}

std::vector<int32_t> Session::tokens() const {
    std::vector<int32_t> out;
    // A stream's engine appends to the sequence meanwhile.
    model_->engine().watch(false, [&] {
        const auto &held = sequence_.tokens;
        out.assign(held.begin(), held.begin() + ptrdiff_t(std::min(held.size(), visible_)));
        return true;
    });
    return out;
}

void Session::match(const Prompt &prompt, size_t &held, size_t &total) {
    const Use use(*this);
    const auto ids = encode_tokens(prompt.conversation, prompt.dialect_or(model_->dialect()), *model_->tokenizer(), &memory_);
    total = ids.size();
    held = size_t(std::mismatch(ids.begin(), ids.end(), sequence_.tokens.begin(), sequence_.tokens.end()).first - ids.begin());
}

void Session::truncate(size_t length) {
    const Use use(*this);
    if (length > sequence_.tokens.size())
        throw Error(DSV4_E_INVALID, "truncate to " + std::to_string(length) + ": the session holds " +
                                        std::to_string(sequence_.tokens.size()) + " tokens");
    locked_cut(length);
}

void Session::locked_cut(size_t n) {
    model_->engine().watch(false, [&] {  // somebody may be asking for the tokens
        cut(n);
        return true;
    });
}

void Session::cut(size_t n) {
    Engine &engine = model_->engine();
    const auto block = size_t(engine.capacity().cache.block_tokens);
    sequence_.truncate(int32_t(n), engine.reach());
    engine.pool().shrink(sequence_.blocks, (n + block - 1) / block);
}

void Session::check_ids(const int32_t *ids, size_t count) const {
    const int32_t vocab = model_->config().shape.vocab;
    if (!ids && count) throw Error(DSV4_E_INVALID, "ids: NULL with a count of " + std::to_string(count));
    for (size_t i = 0; i < count; ++i)
        if (ids[i] < 0 || ids[i] >= vocab)
            throw Error(DSV4_E_INVALID, "token " + std::to_string(i) + ": expected an id in [0, " +
                                            std::to_string(vocab) + "), found " + std::to_string(ids[i]));
}

void Session::check_alive() const {
    if (device_lost_) throw Error(DSV4_E_DEVICE, "the device failed during an earlier call: this session is dead");
}

void Session::evaluate(const int32_t *ids, size_t count, const dsv4_evaluate_options &options, dsv4_cancel *cancel,
                       dsv4_logits_fn on_logits, void *user_data) {
    const Use use(*this);
    check_alive();
    check_ids(ids, count);
    if (options.flags & ~uint32_t(DSV4_EVALUATE_ALL | DSV4_EVALUATE_DRAFTS))
        throw Error(DSV4_E_UNSUPPORTED, "evaluate flags: found bits newer than this library");
    if (count == 0) throw Error(DSV4_E_INVALID, "evaluate: no tokens were given");
    Sequence &q = sequence_;
    const size_t held = q.tokens.size();
    if (count > size_t(q.context) - std::min(held, size_t(q.context)))
        throw Error(DSV4_E_CONTEXT, "the session holds " + std::to_string(held) + " tokens; " + std::to_string(count) +
                                        " more do not fit its context of " + std::to_string(q.context));
    const bool drafts = options.flags & DSV4_EVALUATE_DRAFTS;
    if (drafts && held)
        throw Error(DSV4_E_INVALID, "drafts: expected an empty session, this one holds " + std::to_string(held) + " tokens");
    if (drafts && !model_->info().draft_blocks)
        throw Error(DSV4_E_UNSUPPORTED, "drafts: the model was loaded without DSV4_MODEL_DRAFTS, has no MTP block that "
                                        "this build runs, or the backend has no MTP operators");
    std::vector<int32_t> positions;
    if (options.position_count && !options.positions) throw Error(DSV4_E_INVALID, "positions: NULL with a count");
    for (size_t i = 0; i < options.position_count; ++i) {
        const uint32_t p = options.positions[i];
        if (p < held || p >= held + count || (i && p <= options.positions[i - 1]))
            throw Error(DSV4_E_INVALID, "positions: expected ascending positions in [" + std::to_string(held) + ", " +
                                            std::to_string(held + count) + "), found " + std::to_string(p));
        positions.push_back(int32_t(p));
    }
    if (positions.empty()) positions.push_back(int32_t(held + count) - 1);

    auto request = std::make_shared<Request>();
    request->sequence = &q;
    request->cancel = CancelRef(cancel);
    request->drafts = drafts;
    if (on_logits) {
        // Positions before `held` may be computed again after a far truncation; nobody asked for those.
        if (options.flags & DSV4_EVALUATE_ALL)
            request->wants = [held](int32_t p) { return size_t(p) >= held; };
        else
            request->wants = [positions](int32_t p) { return std::binary_search(positions.begin(), positions.end(), p); };
    }
    if (request->cancel.is_set()) throw Error(DSV4_E_CANCELLED, "cancelled");
    Engine &engine = model_->engine();
    engine.watch(false, [&] {
        q.tokens.insert(q.tokens.end(), ids, ids + count);
        return true;
    });
    try {
        engine.submit(request);
    } catch (...) {
        locked_cut(held);
        throw;
    }

    bool stopped = false;
    try {
        std::deque<LogitsRow> rows;
        bool done = false;
        while (!done && !stopped) {
            engine.watch(true, [&] {
                if (request->cancel.is_set() && !request->done) throw Error(DSV4_E_CANCELLED, "cancelled");
                if (request->rows.empty() && !request->done) return false;
                rows.swap(request->rows);
                done = request->done;
                return true;
            });
            engine.nudge();
            for (const LogitsRow &row : rows)
                if (!stopped && on_logits(user_data, uint32_t(row.position),
                                          row.draft ? DSV4_LOGITS_DRAFT : DSV4_LOGITS_NEXT, row.logits.data(),
                                          row.logits.size()))
                    stopped = true;
            rows.clear();
        }
    } catch (...) {
        engine.withdraw(request);
        locked_cut(std::max(size_t(q.computed), held));
        throw;
    }
    engine.withdraw(request);
    if (stopped || request->failure) locked_cut(std::max(size_t(q.computed), held));
    if (request->failure && !stopped) {
        if (request->failure->status != DSV4_E_CANCELLED) locked_cut(held);
        device_lost_ = request->failure->status == DSV4_E_DEVICE;
        throw *request->failure;
    }
}

Stream::Stream(std::shared_ptr<Session> session, const dsv4_generate_options &o, dsv4_cancel *cancel)
    : session_(std::move(session)), use_(*session_), request_(std::make_shared<Request>()) {
    Model &model = *session_->model_;
    Engine &engine = model.engine();
    Sequence &q = session_->sequence_;
    session_->check_alive();
    constexpr uint32_t known =
        DSV4_GENERATE_CONTINUE | DSV4_GENERATE_IGNORE_EOS | DSV4_GENERATE_TOKENS | DSV4_GENERATE_FREE;
    if (o.flags & ~known) throw Error(DSV4_E_UNSUPPORTED, "generate flags: found bits newer than this library");
    expect_unused(o.reserved, "generate options");
    std::vector<int32_t> prompt = read_prompt(o);
    if (o.flags & DSV4_GENERATE_CONTINUE) prompt.insert(prompt.begin(), q.tokens.begin(), q.tokens.end());
    if (prompt.empty()) throw Error(DSV4_E_INVALID, "the prompt is empty: expected at least one token");
    if (prompt.size() >= size_t(q.context))
        throw Error(DSV4_E_CONTEXT, "the prompt has " + std::to_string(prompt.size()) + " tokens; with one token of output "
                                        "it does not fit the session's context of " + std::to_string(q.context));

    SamplingOptions sampling;
    sampling.temperature = o.temperature;
    sampling.top_p = o.top_p;
    sampling.min_p = o.min_p;
    sampling.top_k = o.top_k;
    sampling.seed = o.seed ? o.seed : fresh_seed();
    if ((o.logit_bias_count && !o.logit_bias) || (o.stop_id_count && !o.stop_ids) ||
        (o.stop_string_count && !o.stop_strings))
        throw Error(DSV4_E_INVALID, "logit_bias, stop_ids or stop_strings: NULL with a count");
    sampling.logit_bias.assign(o.logit_bias, o.logit_bias + o.logit_bias_count);
    check_sampling(sampling, model.config().shape.vocab);
    session_->check_ids(o.stop_ids, o.stop_id_count);

    Request &r = *request_;
    r.sequence = &q;
    r.cancel = CancelRef(cancel);
    r.generates = true;
    r.sampler.emplace(std::move(sampling));
    r.stop_ids.assign(o.stop_ids, o.stop_ids + o.stop_id_count);
    if (!(o.flags & DSV4_GENERATE_IGNORE_EOS))
        r.stop_ids.insert(r.stop_ids.end(), model.config().eos.begin(), model.config().eos.end());
    r.max_tokens = o.max_tokens;
    r.run_ahead = std::min(r.run_ahead, engine.reach());
    start_answer(o);
    if (r.cancel.is_set()) throw Error(DSV4_E_CANCELLED, "cancelled");

    // Keep what the session already holds of this prompt; the last token is computed again if need be, for its logits.
    const auto common = size_t(std::mismatch(q.tokens.begin(), q.tokens.end(), prompt.begin(), prompt.end()).first -
                               q.tokens.begin());
    kept_ = std::min(common, prompt.size() - 1);
    engine.watch(false, [&] {  // somebody may be asking for the session's tokens
        session_->cut(kept_);
        cached_ = reported_ = q.computed;
        q.tokens = std::move(prompt);
        session_->visible_ = prompt_tokens_ = q.tokens.size();
        return true;
    });
    try {
        engine.submit(request_);
    } catch (...) {
        close();
        throw;
    }
}

/// The prompt's tokens, whichever way it was given.
std::vector<int32_t> Stream::read_prompt(const dsv4_generate_options &o) {
    Model &model = *session_->model_;
    if ((o.ids != nullptr) + (o.prompt != nullptr) + (o.text.size != 0) > 1)
        throw Error(DSV4_E_INVALID, "the prompt: expected one of ids, prompt and text, found more");
    if (o.prompt) {
        const Prompt &p = o.prompt->prompt;
        const Dialect &dialect = p.dialect_or(model.dialect());
        conversation_ = true;
        // The header that the prompt ends with says where the answer starts.
        const EncodedPrompt rendered = encode_prompt(p.conversation, dialect);
        thinking_ = std::string_view(rendered.text).ends_with(dialect.think_open);
        return encode_tokens(rendered, p.conversation, dialect, *model.tokenizer(), &session_->memory_);
    }
    if (o.text.size) {
        if (!o.text.data) throw Error(DSV4_E_INVALID, "text: NULL with a size");
        return model.tokenizer()->encode({o.text.data, o.text.size});
    }
    session_->check_ids(o.ids, o.id_count);
    return {o.ids, o.ids + o.id_count};
}

/// What turns tokens into text, and what narrows the sampling.
void Stream::start_answer(const dsv4_generate_options &o) {
    const bool as_text = o.prompt || o.text.size;
    token_events_ = !as_text || (o.flags & DSV4_GENERATE_TOKENS);
    if (!as_text) {
        if (o.stop_string_count) throw Error(DSV4_E_INVALID, "stop_strings: expected a prompt of text, found token ids");
        if (o.tool_choice || o.thinking_budget)
            throw Error(DSV4_E_INVALID, "tool_choice and thinking_budget: expected a conversation, found token ids");
        return;
    }
    AnswerOptions answer;
    answer.conversation = conversation_;
    answer.thinking = thinking_;
    answer.id_seed = session_->id_seed_++;
    for (size_t i = 0; i < o.stop_string_count; ++i) {
        if (!o.stop_strings[i].size || !o.stop_strings[i].data)
            throw Error(DSV4_E_INVALID, "stop_strings: string " + std::to_string(i) + " is empty");
        answer.stop_strings.emplace_back(o.stop_strings[i].data, o.stop_strings[i].size);
    }
    if (conversation_) {
        const std::string tools = o.prompt->prompt.tools_json();
        if (tools != "[]" && o.tool_choice != DSV4_TOOLS_NONE) answer.tools = dsml_tools_from_json(tools);
        constrain(o, tools == "[]" ? "" : tools);
    } else if (o.tool_choice || o.thinking_budget) {
        throw Error(DSV4_E_INVALID, "tool_choice and thinking_budget: expected a conversation, found a text");
    }
    answer_ = std::make_unique<Answer>(session_->model_->tokenizer(), std::move(answer));
}

/// With tools or a response format the answer is held to their grammar, unless the caller wants it free.
void Stream::constrain(const dsv4_generate_options &o, const std::string &tools) {
    if (o.tool_choice < DSV4_TOOLS_AUTO || o.tool_choice > DSV4_TOOLS_NAMED)
        throw Error(DSV4_E_INVALID, "tool_choice: expected DSV4_TOOLS_*, found " + std::to_string(o.tool_choice));
    if (tools.empty() && o.tool_choice > DSV4_TOOLS_NONE)
        throw Error(DSV4_E_INVALID, "tool_choice: a call is required and the prompt offers no tools");
    ConstraintOptions grammar;
    grammar.tools = tools;
    grammar.response_format = o.prompt->prompt.response_format_json();
    grammar.thinking = thinking_;
    using Choice = ConstraintOptions::ToolChoice;
    grammar.tool_choice = o.tool_choice == DSV4_TOOLS_NONE       ? Choice::none
                          : o.tool_choice == DSV4_TOOLS_REQUIRED ? Choice::required
                          : o.tool_choice == DSV4_TOOLS_NAMED    ? Choice::named
                                                                 : Choice::automatic;
    if (o.tool_name.size && !o.tool_name.data) throw Error(DSV4_E_INVALID, "tool_name: NULL with a size");
    if (o.tool_choice == DSV4_TOOLS_NAMED && o.tool_name.size) grammar.tool_name.assign(o.tool_name.data, o.tool_name.size);
    if ((o.flags & DSV4_GENERATE_FREE) && o.tool_choice > DSV4_TOOLS_NONE)
        throw Error(DSV4_E_INVALID, "tool_choice: a required call needs the grammar, which DSV4_GENERATE_FREE turns off");
    const bool wanted = !(o.flags & DSV4_GENERATE_FREE) && (!tools.empty() || !grammar.response_format.empty());
    const bool budget = o.thinking_budget && thinking_;
    if (!wanted && !budget) return;
    const Model &model = *session_->model_;
    Constraints &constraints = model.constraints();
    AnswerFilter::Budget limit;
    if (budget) {
        limit = {o.thinking_budget, constraints.think_end()};
        if (limit.think_end < 0) throw Error(DSV4_E_MODEL, "thinking_budget: the vocabulary has no </think>");
    }
    std::shared_ptr<const Constraint> constraint;
    if (wanted) {
        constraint = constraints.compile(grammar);
        for (const std::string &line : constraint->unsupported())
            model.runtime().log().line(DSV4_LOG_WARNING, "schema: not enforced: " + line);
        // Where the grammar ends, nothing can follow.
        request_->stop_ids.insert(request_->stop_ids.end(), model.config().eos.begin(), model.config().eos.end());
    }
    request_->filter = std::make_unique<AnswerFilter>(std::move(constraint), limit, model.config().shape.vocab);
}

Stream::~Stream() {
    Engine &engine = session_->model_->engine();
    engine.withdraw(request_);
    engine.watch(false, [this] {  // somebody may be asking for the session's tokens
        close();
        return true;
    });
}

/// Leaves the session with what its owner knows of: what the engine sampled ahead was never said, and of a prompt that
/// was not finished the part that was computed stays.
void Stream::close() {
    Sequence &q = session_->sequence_;
    const size_t known = request_->sampled ? session_->visible_ : std::max(size_t(q.computed), kept_);
    if (q.tokens.size() > known) session_->cut(known);
    session_->visible_ = SIZE_MAX;
    if (request_->failure && request_->failure->status == DSV4_E_DEVICE) session_->device_lost_ = true;
}

void Stream::fill(dsv4_event &event, int32_t kind) const {
    DSV4_INIT(event);
    event.kind = kind;
    event.token = -1;
    event.prompt_tokens = uint32_t(prompt_tokens_);
    event.cached_tokens = uint32_t(cached_);
    event.output_tokens = uint32_t(said_.size());
}

dsv4_status Stream::next(bool wait, dsv4_event &event) {
    if (ended_) return DSV4_END;
    Engine &engine = session_->model_->engine();
    while (true) {
        if (request_->cancel.is_set()) throw Error(DSV4_E_CANCELLED, "cancelled");
        if (next_of_answer(event)) return DSV4_OK;
        enum { nothing, prefill, token, done } found = nothing;
        int32_t id = -1, computed = 0;
        engine.watch(wait, [&] {
            Request &r = *request_;
            if (r.cancel.is_set()) throw Error(DSV4_E_CANCELLED, "cancelled");
            if (r.failure && r.tokens.empty()) throw *r.failure;
            computed = std::min(session_->sequence_.computed, int32_t(prompt_tokens_));
            if (computed > reported_) {  // also the last part, before the first token
                found = prefill;
            } else if (!r.tokens.empty()) {
                found = token;
                id = r.tokens.front();
                r.tokens.pop_front();
                ++session_->visible_;
            } else if (r.done) {
                found = done;
                if (r.stop_token >= 0) ++session_->visible_;
            }
            return found != nothing;
        });
        switch (found) {
        case nothing: return DSV4_PENDING;
        case prefill:
            reported_ = computed;
            fill(event, DSV4_EVENT_PREFILL);
            event.prefilled_tokens = uint32_t(computed - cached_);
            return DSV4_OK;
        case token:
            said_.push_back(id);
            engine.nudge();
            if (answer_) answer_->push(id);
            if (answer_ && answer_->stopped()) end_answer();
            if (!token_events_) break;
            fill(event, DSV4_EVENT_TOKEN);
            event.token = id;
            return DSV4_OK;
        case done: end_answer(); break;
        }
    }
}

/// No more tokens: what was held back comes out, and the session remembers what it said.
void Stream::end_answer() {
    finished_ = true;
    if (!answer_) return;
    answer_->finish();
    // Only a whole answer: what was cut off, or had to be repaired, is written anew from the caller's words.
    const auto &eos = session_->model_->config().eos;
    if (!conversation_ || !answer_->faithful() ||
        std::find(eos.begin(), eos.end(), request_->stop_token) == eos.end())
        return;
    std::vector<int32_t> sampled = said_;
    sampled.push_back(request_->stop_token);
    session_->memory_.remember(answer_->message(), std::move(sampled));
}

/// Events that are there already: the answer's, and after them the end.
bool Stream::next_of_answer(dsv4_event &event) {
    if (answer_ && answer_->next(current_)) {
        fill(event, current_.kind);
        event.text = {current_.text.data(), current_.text.size()};
        event.tool_id = {current_.tool_id.data(), current_.tool_id.size()};
        event.tool_name = {current_.tool_name.data(), current_.tool_name.size()};
        event.call = current_.call;
        event.flags = current_.flags;
        event.complete = current_.complete;
        return true;
    }
    if (!finished_) return false;
    ended_ = true;
    const Request &r = *request_;  // done: the engine does not touch it any more, or only what is not read here
    fill(event, DSV4_EVENT_DONE);
    session_->model_->engine().watch(false, [&] {
        event.finish = answer_ && answer_->stopped() ? int32_t(DSV4_FINISH_STOP) : r.finish;
        event.token = answer_ && answer_->stopped() ? -1 : r.stop_token;
        event.seed = r.sampler->options().seed;
        event.prefill_ns = nanoseconds(r.first_token - r.submitted);
        event.decode_ns = nanoseconds(r.last_token - r.first_token);
        return true;
    });
    event.prefilled_tokens = uint32_t(prompt_tokens_) - uint32_t(cached_);
    if (conversation_) {
        if (event.finish == DSV4_FINISH_STOP && !answer_->stopped() && answer_->has_calls()) event.finish = DSV4_FINISH_TOOLS;
        current_.text = dump_python_json(answer_->message());
        event.text = {current_.text.data(), current_.text.size()};
    }
    return true;
}

}  // namespace dsv4
