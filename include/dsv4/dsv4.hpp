/* libdsv4 for C++17 and later: dsv4.h with owners, exceptions and ranges. Header-only and compiled by you, so no C++
 * type crosses into the library; whatever is said in dsv4.h about threads and lifetimes holds here too.
 *
 *     dsv4::Runtime runtime;
 *     dsv4::Model model = runtime.load("/models/flash");
 *     dsv4::Session session = model.session();
 *     dsv4::Prompt prompt;
 *     prompt.user("Why is the sky blue?");
 *     for (const dsv4::Event &event : session.generate(prompt))
 *         if (event.kind == DSV4_EVENT_TEXT) std::cout << dsv4::view(event.text) << std::flush;
 *
 * Objects     own one C object each, move and do not copy (Cancel copies: all copies are one token). get() is the C
 *             object, for calls that have no wrapper. Objects may be destroyed in any order.
 * Options     are the C structs themselves, sized and zeroed: every field of dsv4.h is there under its name.
 * Errors      are thrown as dsv4::Error; the end of a stream and "nothing yet" are not errors.
 * Callbacks   may throw: the exception stops the call and comes out of it. They return nothing, or true to stop. */
#ifndef DSV4_DSV4_HPP
#define DSV4_DSV4_HPP
#if (!defined(_MSVC_LANG) && __cplusplus < 201703L) || (defined(_MSVC_LANG) && _MSVC_LANG < 201703L)
#error "dsv4.hpp needs C++17; dsv4.h is for C99 and any C++"
#endif
#include "dsv4/dsv4.h"
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <initializer_list>
#include <iterator>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace dsv4 {
// Part of every symbol's name, so that objects compiled against headers of different ABIs can be linked together.
inline namespace v0 {

/// What a call failed with. what() is the library's message; it says what was expected and what was found.
class Error : public std::runtime_error {
  public:
    Error(dsv4_status status, std::int32_t native_code, const std::string &message)
        : std::runtime_error(message), status_(status), native_code_(native_code) {}
    dsv4_status status() const noexcept { return status_; }            ///< DSV4_E_*: what to do about it
    std::int32_t native_code() const noexcept { return native_code_; } ///< cudaError_t, errno ...; 0 if none

  private:
    dsv4_status status_;
    std::int32_t native_code_;
};

/// Version of the library that is loaded, major << 16 | minor << 8 | patch; DSV4_VERSION is the header's.
inline std::uint32_t version() noexcept { return dsv4_version(); }

/// For string fields of options. The characters must live as long as dsv4.h says of that field.
inline dsv4_str str(std::string_view s) noexcept { return {s.data(), s.size()}; }
inline std::string_view view(dsv4_str s) noexcept {
    return s.size ? std::string_view(s.data, s.size) : std::string_view();
}

/// A view of contiguous elements: vectors, arrays, braces. (std::span is C++20.)
template <class T> class Span {
    template <class C>
    using Elements = std::enable_if_t<
        std::is_convertible_v<std::remove_pointer_t<decltype(std::data(std::declval<C &>()))> (*)[], T (*)[]>>;

  public:
    constexpr Span() noexcept = default;
    constexpr Span(T *data, std::size_t size) noexcept : data_(data), size_(size) {}
    template <class C, class = Elements<const C>>
    constexpr Span(const C &container) : data_(std::data(container)), size_(std::size(container)) {}
    /// Valid for the full expression in which the braces stand.
    constexpr Span(std::initializer_list<std::remove_const_t<T>> list) noexcept : Span(list.begin(), list.size()) {}

    constexpr T *data() const noexcept { return data_; }
    constexpr std::size_t size() const noexcept { return size_; }
    constexpr bool empty() const noexcept { return size_ == 0; }
    constexpr T *begin() const noexcept { return data_; }
    constexpr T *end() const noexcept { return data_ + size_; }
    constexpr T &operator[](std::size_t i) const noexcept { return data_[i]; }

  private:
    T *data_ = nullptr;
    std::size_t size_ = 0;
};
using Ids = Span<const std::int32_t>;

/// A struct of dsv4.h with its size set and everything else zero.
template <class T> struct Sized : T {
    Sized() noexcept : T{} { this->struct_size = static_cast<std::uint32_t>(sizeof(T)); }
};
using ModelOptions = Sized<dsv4_model_options>;
using ModelInfo = Sized<dsv4_model_info>;
using PlanOptions = Sized<dsv4_plan_options>;
using SessionOptions = Sized<dsv4_session_options>;
using EvaluateOptions = Sized<dsv4_evaluate_options>;
using PromptOptions = Sized<dsv4_prompt_options>;
using GenerateOptions = Sized<dsv4_generate_options>;
/// Strings of an event live until the next call on its stream.
using Event = Sized<dsv4_event>;

namespace detail {

template <class T, void (*release)(T *)> struct Releaser {
    void operator()(T *object) const noexcept { release(object); }
};
template <class T, void (*release)(T *)> using Handle = std::unique_ptr<T, Releaser<T, release>>;

/// Runs call(&error). Statuses above zero are answers, those below are thrown.
template <class Call> dsv4_status check(Call &&call) {
    Sized<dsv4_error> error;
    const dsv4_status status = call(&error);
    if (status < 0) throw Error(status, error.native_code, error.message);
    return status;
}

/// call(&out, &error) makes an object.
template <class T, class Call> T *make(Call &&call) {
    T *out = nullptr;
    check([&](dsv4_error *error) { return call(&out, error); });
    return out;
}

/// Takes the bytes of call(&blob, &error) out of their blob.
template <class Call> std::string text(Call &&call) {
    const Handle<dsv4_blob, dsv4_blob_release> blob(make<dsv4_blob>(std::forward<Call>(call)));
    return std::string(view(dsv4_blob_data(blob.get())));
}

/// A callable on its way through C: what it throws waits here until the C call is over.
template <class F> class Callback {
  public:
    explicit Callback(F &function) : function_(function) {}
    template <class... A> std::int32_t operator()(A &&...arguments) noexcept {
        try {
            if constexpr (std::is_void_v<decltype(function_(std::forward<A>(arguments)...))>) {
                function_(std::forward<A>(arguments)...);
                return 0;
            } else {
                return function_(std::forward<A>(arguments)...) ? 1 : 0;
            }
        } catch (...) {
            thrown_ = std::current_exception();
            return 1;
        }
    }
    /// As check(), but what the callable threw goes first.
    template <class Call> void run(Call &&call) {
        Sized<dsv4_error> error;
        const dsv4_status status = call(&error);
        if (thrown_) std::rethrow_exception(thrown_);
        if (status < 0) throw Error(status, error.native_code, error.message);
    }

  private:
    F &function_;
    std::exception_ptr thrown_;
};

} // namespace detail

/// Cancels calls from elsewhere. Sticky: once cancelled, every use fails, whether before, during or after the call.
class Cancel {
  public:
    Cancel() : token_(dsv4_cancel_create(), dsv4_cancel_release) {
        if (!token_) throw std::bad_alloc();
    }
    void now() const noexcept { dsv4_cancel_now(token_.get()); } ///< [any thread]
    bool is_set() const noexcept { return dsv4_cancel_is_set(token_.get()) != 0; }
    dsv4_cancel *get() const noexcept { return token_.get(); }

  private:
    std::shared_ptr<dsv4_cancel> token_;
};

/// Text to tokens and back. Immutable: every call is [any thread].
class Tokenizer {
  public:
    /// path: a tokenizer.json, or a folder that holds one.
    static Tokenizer load(std::string_view path) {
        return Tokenizer(detail::make<dsv4_tokenizer>(
            [&](dsv4_tokenizer **out, dsv4_error *e) { return dsv4_tokenizer_load(str(path), out, e); }));
    }

    /// flags: DSV4_ENCODE_*. No BOS is added.
    std::vector<std::int32_t> encode(std::string_view text, std::uint32_t flags = 0) const {
        std::vector<std::int32_t> ids(text.size() / 2 + 8); // a guess; never more than one token to a byte
        std::size_t count = 0;
        const auto into = [&](dsv4_error *e) {
            return dsv4_tokenizer_encode(get(), str(text), flags, ids.data(), ids.size(), &count, e);
        };
        detail::check(into);
        if (count > ids.size()) {
            ids.resize(count);
            detail::check(into);
        }
        ids.resize(count);
        return ids;
    }
    /// The tokens' bytes; they need not be UTF-8 (Decoder makes whole code points of them).
    std::string decode(Ids ids) const {
        return detail::text([&](dsv4_blob **out, dsv4_error *e) {
            return dsv4_tokenizer_decode(get(), ids.data(), ids.size(), out, e);
        });
    }
    std::size_t size() const noexcept { return dsv4_tokenizer_size(get()); } ///< one more than the largest id
    /// The bytes of one token; they live as long as the tokenizer.
    std::string_view token(std::int32_t id) const {
        dsv4_str bytes{};
        detail::check([&](dsv4_error *e) { return dsv4_tokenizer_token(get(), id, &bytes, nullptr, e); });
        return view(bytes);
    }
    /// The token of exactly these bytes; throws DSV4_E_INVALID when there is none.
    std::int32_t find(std::string_view bytes) const {
        std::int32_t id = -1;
        detail::check([&](dsv4_error *e) { return dsv4_tokenizer_find(get(), str(bytes), &id, e); });
        return id;
    }

    dsv4_tokenizer *get() const noexcept { return tokenizer_.get(); }

  private:
    friend class Model;
    explicit Tokenizer(dsv4_tokenizer *tokenizer) noexcept : tokenizer_(tokenizer) {}
    detail::Handle<dsv4_tokenizer, dsv4_tokenizer_release> tokenizer_;
};

/// Tokens to text as they come, in whole code points. What a call returns lives until the next one.
class Decoder {
  public:
    explicit Decoder(const Tokenizer &tokenizer)
        : decoder_(detail::make<dsv4_decoder>(
              [&](dsv4_decoder **out, dsv4_error *e) { return dsv4_decoder_create(tokenizer.get(), out, e); })) {}
    std::string_view push(std::int32_t id) {
        dsv4_str text{};
        detail::check([&](dsv4_error *e) { return dsv4_decoder_push(get(), id, &text, e); });
        return view(text);
    }
    std::string_view finish() {
        dsv4_str text{};
        detail::check([&](dsv4_error *e) { return dsv4_decoder_finish(get(), &text, e); });
        return view(text);
    }

    dsv4_decoder *get() const noexcept { return decoder_.get(); }

  private:
    detail::Handle<dsv4_decoder, dsv4_decoder_release> decoder_;
};

/// A conversation, message by message.
class Prompt {
  public:
    explicit Prompt(const PromptOptions &options = {})
        : prompt_(detail::make<dsv4_prompt>(
              [&](dsv4_prompt **out, dsv4_error *e) { return dsv4_prompt_create(&options, out, e); })) {}
    /// An OpenAI-format request, or just its messages.
    static Prompt from_json(std::string_view request, const PromptOptions &options = {}) {
        return Prompt(detail::make<dsv4_prompt>(
            [&](dsv4_prompt **out, dsv4_error *e) { return dsv4_prompt_from_json(str(request), &options, out, e); }));
    }

    Prompt &system(std::string_view text) { return add(dsv4_prompt_add_system, text); }
    Prompt &user(std::string_view text) { return add(dsv4_prompt_add_user, text); }
    Prompt &assistant(std::string_view text, std::string_view reasoning = {}) {
        return add(dsv4_prompt_add_assistant, text, reasoning);
    }
    /// Adds a call to the assistant message that is last. arguments: a JSON object's text.
    Prompt &tool_call(std::string_view call_id, std::string_view name, std::string_view arguments) {
        return add(dsv4_prompt_add_tool_call, call_id, name, arguments);
    }
    Prompt &tool_result(std::string_view call_id, std::string_view text) {
        return add(dsv4_prompt_add_tool_result, call_id, text);
    }
    /// Any OpenAI-format message, as JSON: the text of a DONE event, for one.
    Prompt &message(std::string_view json) { return add(dsv4_prompt_add_message, json); }
    /// Offers a tool, as OpenAI-format JSON.
    Prompt &tool(std::string_view json_schema) { return add(dsv4_prompt_add_tool, json_schema); }
    /// Puts the schema that answers must follow on the last message, a system or developer message.
    Prompt &response_format(std::string_view json) { return add(dsv4_prompt_set_response_format, json); }
    /// The exact text that the model is given.
    std::string render() const {
        return detail::text([&](dsv4_blob **out, dsv4_error *e) { return dsv4_prompt_render(get(), out, e); });
    }

    dsv4_prompt *get() const noexcept { return prompt_.get(); }

  private:
    explicit Prompt(dsv4_prompt *prompt) noexcept : prompt_(prompt) {}
    template <class Add, class... Text> Prompt &add(Add *function, Text... texts) {
        detail::check([&](dsv4_error *e) { return function(get(), str(texts)..., e); });
        return *this;
    }
    detail::Handle<dsv4_prompt, dsv4_prompt_release> prompt_;
};

/// A whole completion as an OpenAI-format message. flags: DSV4_PARSE_*; tools: the array that was offered, or empty.
inline std::string parse_completion(std::string_view text, std::uint32_t flags = 0, std::string_view tools = {}) {
    return detail::text(
        [&](dsv4_blob **out, dsv4_error *e) { return dsv4_parse_completion(str(text), flags, str(tools), out, e); });
}

/// One answer being generated: a range of events, or next() and poll() by hand. Destroying it stops the generation; the
/// tokens handed out stay in the session, which is free again.
class Stream {
  public:
    enum class Poll { Ready, Pending, Ended };

    /// Waits for an event; false at the end. Throws DSV4_E_CANCELLED when the token fired.
    bool next(Event &event) {
        return detail::check([&](dsv4_error *e) { return dsv4_stream_next(get(), &event, e); }) == DSV4_OK;
    }
    /// The same without waiting: for loops that have a frame to draw.
    Poll poll(Event &event) {
        const dsv4_status status = detail::check([&](dsv4_error *e) { return dsv4_stream_poll(get(), &event, e); });
        return status == DSV4_OK ? Poll::Ready : status == DSV4_PENDING ? Poll::Pending : Poll::Ended;
    }

    struct Sentinel {};
    class Iterator {
      public:
        using iterator_category = std::input_iterator_tag;
        using value_type = Event;
        using difference_type = std::ptrdiff_t;
        using pointer = const Event *;
        using reference = const Event &;

        explicit Iterator(Stream &stream) : stream_(&stream) { ++*this; }
        const Event &operator*() const noexcept { return event_; }
        const Event *operator->() const noexcept { return &event_; }
        Iterator &operator++() {
            more_ = stream_->next(event_);
            return *this;
        }
        void operator++(int) { ++*this; }
        friend bool operator==(const Iterator &i, Sentinel) noexcept { return !i.more_; }
        friend bool operator!=(const Iterator &i, Sentinel) noexcept { return i.more_; }

      private:
        Stream *stream_;
        Event event_;
        bool more_ = false;
    };
    Iterator begin() { return Iterator(*this); }
    Sentinel end() const noexcept { return {}; }

    dsv4_stream *get() const noexcept { return stream_.get(); }

  private:
    friend class Session;
    explicit Stream(dsv4_stream *stream) noexcept : stream_(stream) {}
    detail::Handle<dsv4_stream, dsv4_stream_release> stream_;
};

/// One conversation: its tokens and their cache. One call at a time.
class Session {
  public:
    /// Tokens in, TOKEN events out. The prompt is the whole conversation; what the session already holds of it is not
    /// computed again. With DSV4_GENERATE_CONTINUE in options.flags it follows what the session holds. One stream at a
    /// time.
    Stream generate(Ids ids, const GenerateOptions &options = {}) { return open_ids(ids, options, nullptr); }
    Stream generate(Ids ids, const GenerateOptions &options, const Cancel &cancel) {
        return open_ids(ids, options, cancel.get());
    }
    /// A conversation in; REASONING, TEXT and TOOL events out.
    Stream generate(const Prompt &prompt, const GenerateOptions &options = {}) {
        return open_prompt(prompt, options, nullptr);
    }
    Stream generate(const Prompt &prompt, const GenerateOptions &options, const Cancel &cancel) {
        return open_prompt(prompt, options, cancel.get());
    }
    /// A text to be continued, without any chat format; TEXT events out.
    Stream complete(std::string_view text, const GenerateOptions &options = {}) {
        return open_text(text, options, nullptr);
    }
    Stream complete(std::string_view text, const GenerateOptions &options, const Cancel &cancel) {
        return open_text(text, options, cancel.get());
    }

    /// How many of a prompt's tokens the session already holds, and how many there are.
    std::pair<std::size_t, std::size_t> match(const Prompt &prompt) {
        std::size_t held = 0, total = 0;
        detail::check([&](dsv4_error *e) { return dsv4_session_match(get(), prompt.get(), &held, &total, e); });
        return {held, total};
    }

    /// Appends tokens; on_logits(position, kind, Span<const float>) is called for every row that options ask for.
    template <class F> void evaluate(Ids ids, const EvaluateOptions &options, F &&on_logits) {
        evaluate_with(ids, options, nullptr, on_logits);
    }
    template <class F> void evaluate(Ids ids, const EvaluateOptions &options, const Cancel &cancel, F &&on_logits) {
        evaluate_with(ids, options, cancel.get(), on_logits);
    }
    /// Appends tokens and returns the logits of the token that would follow: the way to sample yourself.
    std::vector<float> logits(Ids ids) {
        std::vector<float> row;
        evaluate(ids, {}, [&](std::uint32_t, std::int32_t, Span<const float> l) { row.assign(l.begin(), l.end()); });
        return row;
    }

    /// The tokens that the session holds.
    std::vector<std::int32_t> tokens() const {
        std::size_t count = 0;
        detail::check([&](dsv4_error *e) { return dsv4_session_tokens(get(), nullptr, 0, &count, e); });
        std::vector<std::int32_t> ids(count);
        detail::check([&](dsv4_error *e) { return dsv4_session_tokens(get(), ids.data(), ids.size(), &count, e); });
        ids.resize(count < ids.size() ? count : ids.size());
        return ids;
    }
    /// Forgets all but the first `length` tokens.
    void truncate(std::size_t length) {
        detail::check([&](dsv4_error *e) { return dsv4_session_truncate(get(), length, e); });
    }

    dsv4_session *get() const noexcept { return session_.get(); }

  private:
    friend class Model;
    explicit Session(dsv4_session *session) noexcept : session_(session) {}

    Stream open_ids(Ids ids, GenerateOptions options, dsv4_cancel *cancel) {
        options.ids = ids.data();
        options.id_count = ids.size();
        return open(options, cancel);
    }
    Stream open_prompt(const Prompt &prompt, GenerateOptions options, dsv4_cancel *cancel) {
        options.prompt = prompt.get();
        return open(options, cancel);
    }
    Stream open_text(std::string_view text, GenerateOptions options, dsv4_cancel *cancel) {
        options.text = str(text);
        return open(options, cancel);
    }
    Stream open(const GenerateOptions &options, dsv4_cancel *cancel) {
        return Stream(detail::make<dsv4_stream>(
            [&](dsv4_stream **out, dsv4_error *e) { return dsv4_stream_open(get(), &options, cancel, out, e); }));
    }
    template <class F> void evaluate_with(Ids ids, const EvaluateOptions &options, dsv4_cancel *cancel, F &on_logits) {
        using Callback = detail::Callback<F>;
        Callback callback(on_logits);
        const dsv4_logits_fn call = [](void *self, std::uint32_t position, std::int32_t kind, const float *logits,
                                       std::size_t vocab_size) noexcept {
            return (*static_cast<Callback *>(self))(position, kind, Span<const float>(logits, vocab_size));
        };
        callback.run([&](dsv4_error *e) {
            return dsv4_session_evaluate(get(), ids.data(), ids.size(), &options, cancel, call, &callback, e);
        });
    }

    detail::Handle<dsv4_session, dsv4_session_release> session_;
};

/// Weights and their engine. Calls are [any thread]: sessions on different threads share a model by reference.
class Model {
  public:
    /// The strings live as long as the model.
    ModelInfo info() const {
        ModelInfo info;
        detail::check([&](dsv4_error *e) { return dsv4_model_get_info(get(), &info, e); });
        return info;
    }
    /// The model's own; read when it is first asked for.
    Tokenizer tokenizer() const {
        return Tokenizer(detail::make<dsv4_tokenizer>(
            [&](dsv4_tokenizer **out, dsv4_error *e) { return dsv4_model_get_tokenizer(get(), out, e); }));
    }
    Session session(const SessionOptions &options = {}) const {
        return Session(detail::make<dsv4_session>(
            [&](dsv4_session **out, dsv4_error *e) { return dsv4_session_create(get(), &options, out, e); }));
    }

    dsv4_model *get() const noexcept { return model_.get(); }

  private:
    friend class Runtime;
    explicit Model(dsv4_model *model) noexcept : model_(model) {}
    detail::Handle<dsv4_model, dsv4_model_release> model_;
};

struct RuntimeOptions {
    std::string plugin_dir; ///< absolute; empty = beside libdsv4, then DSV4_PLUGIN_PATH
    /// Whole lines; from any thread, one at a time; never after the Runtime is destroyed. What it throws is dropped.
    std::function<void(std::int32_t level, std::string_view line)> log;
};

/// Plugins and log: there is no global state.
class Runtime {
  public:
    Runtime() : Runtime(RuntimeOptions()) {}
    explicit Runtime(RuntimeOptions options) {
        Sized<dsv4_runtime_options> o;
        o.plugin_dir = str(options.plugin_dir);
        if (options.log) {
            log_ = std::make_unique<Log>(std::move(options.log));
            o.log = [](void *self, std::int32_t level, dsv4_str line) noexcept {
                try {
                    (*static_cast<Log *>(self))(level, view(line));
                } catch (...) {
                }
            };
            o.log_user_data = log_.get();
        }
        runtime_.reset(detail::make<dsv4_runtime>(
            [&](dsv4_runtime **out, dsv4_error *e) { return dsv4_runtime_create(&o, out, e); }));
    }
    Runtime(Runtime &&) noexcept = default;
    Runtime &operator=(Runtime &&other) noexcept {
        runtime_ = std::move(other.runtime_); // first: the old runtime may log until it is gone
        log_ = std::move(other.log_);
        return *this;
    }

    /// JSON: backends, their devices, and plugins that could not be loaded with the reason.
    std::string backends() const {
        return detail::text([&](dsv4_blob **out, dsv4_error *e) { return dsv4_runtime_backends(get(), out, e); });
    }
    /// JSON: what would go where and what would not fit, from headers alone.
    std::string plan(std::string_view path, const PlanOptions &options = {}) const {
        return detail::text(
            [&](dsv4_blob **out, dsv4_error *e) { return dsv4_model_plan(get(), str(path), &options, out, e); });
    }
    Model load(std::string_view path, const ModelOptions &options = {}) {
        return Model(detail::make<dsv4_model>(
            [&](dsv4_model **out, dsv4_error *e) { return dsv4_model_load(get(), str(path), &options, out, e); }));
    }
    /// progress(bytes_done, bytes_total) is called on this thread and replaces options.progress. When it asks to stop,
    /// load throws DSV4_E_CANCELLED.
    template <class F> Model load(std::string_view path, ModelOptions options, F &&progress) {
        using Callback = detail::Callback<std::remove_reference_t<F>>;
        Callback callback(progress);
        options.progress = [](void *self, std::uint64_t done, std::uint64_t total) noexcept {
            return (*static_cast<Callback *>(self))(done, total);
        };
        options.progress_user_data = &callback;
        Model model(nullptr);
        callback.run([&](dsv4_error *e) {
            dsv4_model *out = nullptr;
            const dsv4_status status = dsv4_model_load(get(), str(path), &options, &out, e);
            model.model_.reset(out);
            return status;
        });
        return model;
    }

    dsv4_runtime *get() const noexcept { return runtime_.get(); }

  private:
    using Log = std::function<void(std::int32_t, std::string_view)>;
    std::unique_ptr<Log> log_; // before runtime_: outlives it
    detail::Handle<dsv4_runtime, dsv4_runtime_release> runtime_;
};

} // namespace v0
} // namespace dsv4
#endif
