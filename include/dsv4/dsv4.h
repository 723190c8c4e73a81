/* libdsv4: run DeepSeek-V4 inside your own process. This file is the whole public surface; it is C99.
 *
 *   runtime (plugins, log) -> model (weights, shared) -> session (one conversation) -> stream (one answer)
 *
 * Conventions, said once.
 * Sizes    Every struct starts with struct_size; DSV4_INIT sets it and zeroes the rest. Zero means "default".
 * Strings  UTF-8 pointer + size, never NUL-terminated. A string given to you says how long it lives.
 * Owning   *_create/_load/_open hand you an object; _release gives it back, takes NULL, never fails.
 *          Children keep their parents alive, so release order does not matter (finalizers may run in any).
 * Errors   The status says what to do, *err what happened. err may be NULL. On failure *out is NULL.
 * Threads  Objects move freely between threads. const parameter: concurrent calls are fine.
 *          non-const parameter: one call at a time on that object. Exceptions are marked [any thread].
 *          A model runs its own engine thread; sessions of one model may be used from different threads at once, and
 *          their steps are batched. Callbacks run on the thread that made the call, except the log.
 * Host     Nothing here ends the process (but see dsv4_model_load on files that change), throws, prints, or installs
 *          handlers. The environment is read once, by dsv4_runtime_create: DSV4_PLUGIN_PATH (not in a setuid process). */
#ifndef DSV4_DSV4_H
#define DSV4_DSV4_H
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include "dsv4/export.h"
#ifdef __cplusplus
extern "C" {
#endif

#define DSV4_VERSION_MAJOR 0
#define DSV4_VERSION_MINOR 1
#define DSV4_VERSION_PATCH 0
#define DSV4_VERSION 0x00000100u      /* major<<16 | minor<<8 | patch, of this header */
DSV4_API uint32_t dsv4_version(void); /* ... of the library actually loaded. [any thread] */
#define DSV4_INIT(s) (memset(&(s), 0, sizeof(s)), (void)((s).struct_size = (uint32_t)sizeof(s)))

typedef struct dsv4_str {
    const char *data;
    size_t size;
} dsv4_str;

typedef int32_t dsv4_status; /* fixed width: an enum's size is the compiler's business */
enum {
    DSV4_OK = 0,
    DSV4_END = 1,            /* the stream is finished; not an error */
    DSV4_PENDING = 2,        /* poll: nothing yet; not an error */
    DSV4_E_INVALID = -1,     /* the call breaks this header's contract */
    DSV4_E_CANCELLED = -2,   /* the cancel token fired, or a progress callback said stop */
    DSV4_E_NO_MEMORY = -3,   /* host or device; nothing was changed */
    DSV4_E_CONTEXT = -4,     /* prompt + output do not fit; session unchanged */
    DSV4_E_MODEL = -5,       /* the file is not a model this build runs */
    DSV4_E_UNSUPPORTED = -6, /* option, struct field or backend newer than this library */
    DSV4_E_DEVICE = -7,      /* device lost: this session is dead, the process is not */
    DSV4_E_INTERNAL = -8     /* our bug; the message is worth reporting */
};

/* Yours, on your stack: no thread-local, nothing to free. One whose struct_size is smaller than this is left alone. */
typedef struct dsv4_error {
    uint32_t struct_size;
    dsv4_status status;
    int32_t native_code; /* cudaError_t, hipError_t, errno ...; 0 if none */
    uint32_t reserved;
    char message[240]; /* one line, NUL-terminated UTF-8 */
} dsv4_error;

/* Plugins and log. Runtimes share nothing but the code of the plugins they both load: a plugin is mapped once per
 * process, and what it logs goes to every runtime that holds it. */
typedef struct dsv4_runtime dsv4_runtime;
typedef struct dsv4_model dsv4_model;     /* weights and engine; share it */
typedef struct dsv4_session dsv4_session; /* one conversation: its tokens and their cache */
typedef struct dsv4_stream dsv4_stream;   /* one answer being generated */
typedef struct dsv4_cancel dsv4_cancel;
typedef struct dsv4_blob dsv4_blob;       /* bytes that the library made for you */

/* Lives as long as the blob. [any thread] */
DSV4_API dsv4_str dsv4_blob_data(const dsv4_blob *blob);
DSV4_API void dsv4_blob_release(dsv4_blob *blob);

/* ---- runtime --------------------------------------------------------------------------------------------------- */

enum { DSV4_LOG_ERROR = 0, DSV4_LOG_WARNING = 1, DSV4_LOG_INFO = 2 };

typedef struct dsv4_runtime_options {
    uint32_t struct_size, flags; /* flags: 0 */
    dsv4_str plugin_dir;         /* absolute; empty = beside libdsv4 (dsv4/plugins), then DSV4_PLUGIN_PATH */
    /* Whole lines, no newline; from any thread, never after dsv4_runtime_release returned. NULL = silent. It must not
     * call this library. */
    void (*log)(void *user_data, int32_t level, dsv4_str line);
    void *log_user_data;
    /* Called once, last; never for a runtime that could not be made. May be NULL. */
    void (*log_release)(void *user_data);
} dsv4_runtime_options;

/* options may be NULL. A plugin that cannot be loaded is no error here: it is in dsv4_runtime_backends and in the log. */
DSV4_API dsv4_status dsv4_runtime_create(const dsv4_runtime_options *options, dsv4_runtime **out, dsv4_error *err);
DSV4_API void dsv4_runtime_release(dsv4_runtime *runtime);

/* JSON: {"backends": [{"name", "build", "manifest", "devices", "score", "why_not"?, "device": [{"name", "variant",
 * "capabilities": [..], "memory_total", "memory_free"}]}], "failures": [{"manifest", "reason"}]} */
DSV4_API dsv4_status dsv4_runtime_backends(const dsv4_runtime *runtime, dsv4_blob **out, dsv4_error *err);

/* ---- model ----------------------------------------------------------------------------------------------------- */

enum {
    DSV4_NUMERICS_DEFAULT = 0,  /* the backend's own choice; dsv4_model_info says which */
    DSV4_NUMERICS_EXACT = 1,    /* the mathematics in float32 on dequantised weights, nothing rounded */
    DSV4_NUMERICS_OFFICIAL = 2, /* the rounding of the released inference code */
    DSV4_NUMERICS_NATIVE = 3    /* bf16 or float32 activations between operators, caches in their stored formats */
};

enum {
    DSV4_MODEL_DRAFTS = 1 << 0,        /* keep caches for the MTP block, so that dsv4_session_evaluate can draft */
    DSV4_MODEL_PIN_THREADS = 1 << 1    /* CPU backends: one core per thread */
};

typedef struct dsv4_model_options {
    uint32_t struct_size, flags;   /* DSV4_MODEL_* */
    dsv4_str backend;              /* "" = best found */
    uint32_t device;               /* index within the backend */
    int32_t numerics;              /* DSV4_NUMERICS_* */
    int32_t threads;               /* CPU backends: 0 = one per core this process may use */
    uint32_t max_sessions;         /* sessions that may exist at once; 0 = 8 */
    uint32_t max_batch_tokens;     /* tokens of one step, over all sessions; 0 = 512 */
    uint32_t reserved;
    uint64_t cache_tokens;         /* tokens that all sessions together can hold; 0 = 65536 per model, or the model's
                                      context where that is less */
    /* Called on your thread while loading; return nonzero to stop (DSV4_E_CANCELLED). */
    int32_t (*progress)(void *user_data, uint64_t bytes_done, uint64_t bytes_total);
    void *progress_user_data;
    uint64_t expert_budget;        /* bytes of memory for routed experts kept on disk; 0 = experts are not on disk */
} dsv4_model_options;

/* path: a folder with config.json and safetensors files, mapped and never copied by the library; or
 * "synthetic:flash", "synthetic:pro", "synthetic:FILE.json", each with ":layers=N" if wanted: random weights of those
 * shapes, for measuring, made on the device where the backend can ("random_weights" among its capabilities), else in
 * host memory; the same ones. options may be NULL. While the model lives, nobody may shorten or rewrite its files: a
 * mapped page that is no longer there is a SIGBUS, which no library can turn into a status. Replace a checkpoint by
 * renaming. */
DSV4_API dsv4_status dsv4_model_load(dsv4_runtime *runtime, dsv4_str path, const dsv4_model_options *options,
                                     dsv4_model **out, dsv4_error *err);
DSV4_API void dsv4_model_release(dsv4_model *model);

typedef struct dsv4_model_info {
    uint32_t struct_size;
    uint32_t vocab_size, layers, hidden_size;
    uint32_t max_context;          /* tokens that one session can hold here: the model's limit or the cache's */
    uint32_t max_sessions;
    int32_t bos, eos;              /* -1: none */
    uint32_t draft_blocks;         /* MTP blocks that can draft (DSV4_MODEL_DRAFTS) */
    int32_t numerics;              /* DSV4_NUMERICS_*, the one in force */
    uint64_t weight_bytes;         /* tensors in use */
    uint64_t decode_bytes;         /* weight bytes that one decoded token reads */
    uint64_t cache_bytes;          /* reserved for sessions */
    dsv4_str backend, device, variant; /* live as long as the model */
    /* Experts on disk (expert_budget), up to now. A use is one expert in one step; the three kinds sum to all. */
    uint64_t expert_hits;          /* uses that found it in memory since an earlier step */
    uint64_t expert_ahead;         /* uses of one whose reading had begun before its layer did */
    uint64_t expert_misses;        /* uses that had to start reading */
    uint64_t expert_bytes_read;
    uint64_t expert_wait_ns;       /* that computing stood still for the disk */
} dsv4_model_info;
DSV4_API dsv4_status dsv4_model_get_info(const dsv4_model *model, dsv4_model_info *info, dsv4_error *err);

typedef struct dsv4_plan_options {
    uint32_t struct_size;
    uint32_t sessions;             /* 0 = 1 */
    uint64_t context_tokens;       /* of each session; 0 = the model's maximum */
    dsv4_str backend;              /* "" = every backend found */
} dsv4_plan_options;

/* What would go where and what would not fit, in bytes, from headers alone: no weight is read and nothing is
 * allocated. JSON, described in README.md. options may be NULL. */
DSV4_API dsv4_status dsv4_model_plan(const dsv4_runtime *runtime, dsv4_str path, const dsv4_plan_options *options,
                                     dsv4_blob **out, dsv4_error *err);

/* ---- cancel ---------------------------------------------------------------------------------------------------- */

/* Sticky and reference-counted: once cancelled, every use fails, whether before, during or after the call. */
DSV4_API dsv4_cancel *dsv4_cancel_create(void);             /* NULL when out of memory */
DSV4_API void dsv4_cancel_now(dsv4_cancel *cancel);         /* stores a flag, no more. [any thread, signals too] */
DSV4_API int32_t dsv4_cancel_is_set(const dsv4_cancel *cancel); /* [any thread] */
DSV4_API void dsv4_cancel_release(dsv4_cancel *cancel);

/* ---- session --------------------------------------------------------------------------------------------------- */

typedef struct dsv4_session_options {
    uint32_t struct_size;
    uint32_t context_tokens;       /* prompt and output together; 0 = dsv4_model_info.max_context */
    uint32_t prefill_chunk;        /* tokens between two cancel checks; 0 = max_batch_tokens */
    uint32_t reserved;
} dsv4_session_options;

/* A session of its own for each conversation. Blocks of the cache are taken as the conversation grows. options may be
 * NULL. DSV4_E_NO_MEMORY when max_sessions exist. */
DSV4_API dsv4_status dsv4_session_create(dsv4_model *model, const dsv4_session_options *options, dsv4_session **out,
                                         dsv4_error *err); /* [any thread] on one model */
DSV4_API void dsv4_session_release(dsv4_session *session);

/* The tokens that the session holds. ids may be NULL; *count is their number, of which at most capacity are written. */
DSV4_API dsv4_status dsv4_session_tokens(const dsv4_session *session, int32_t *ids, size_t capacity, size_t *count,
                                         dsv4_error *err);
/* Forget all but the first `length` tokens. What that costs later is never a wrong answer, at most a prefill. */
DSV4_API dsv4_status dsv4_session_truncate(dsv4_session *session, size_t length, dsv4_error *err);

enum { DSV4_LOGITS_NEXT = 1, DSV4_LOGITS_DRAFT = 2 };
/* logits [vocab_size], yours until you return: of the token after `position` (NEXT), or, as the MTP block drafts it
 * from the tokens up to position + 1, of the token after that (DRAFT). Return nonzero to stop. */
typedef int32_t (*dsv4_logits_fn)(void *user_data, uint32_t position, int32_t kind, const float *logits,
                                  size_t vocab_size);
enum { DSV4_EVALUATE_ALL = 1 << 0, DSV4_EVALUATE_DRAFTS = 1 << 1 };
typedef struct dsv4_evaluate_options {
    uint32_t struct_size;
    uint32_t flags;                /* ALL: logits of every position; DRAFTS: drafts too (on an empty session only) */
    const uint32_t *positions;     /* ascending absolute positions whose logits are wanted; without ALL and without
                                      these, the last one's */
    size_t position_count;
} dsv4_evaluate_options;

/* Appends tokens to the session and hands out logits: the way to score a text, or to sample yourself. options, cancel
 * and on_logits may be NULL. On cancel and on stop the tokens evaluated so far stay. */
DSV4_API dsv4_status dsv4_session_evaluate(dsv4_session *session, const int32_t *ids, size_t count,
                                           const dsv4_evaluate_options *options, dsv4_cancel *cancel,
                                           dsv4_logits_fn on_logits, void *user_data, dsv4_error *err);

/* ---- text ------------------------------------------------------------------------------------------------------ */

typedef struct dsv4_tokenizer dsv4_tokenizer; /* immutable: every call on it is [any thread] */
typedef struct dsv4_decoder dsv4_decoder;
typedef struct dsv4_prompt dsv4_prompt;

/* path: a tokenizer.json, or a folder that holds one. Nothing else of the folder is read. */
DSV4_API dsv4_status dsv4_tokenizer_load(dsv4_str path, dsv4_tokenizer **out, dsv4_error *err);
/* The model's own; read when it is first asked for. */
DSV4_API dsv4_status dsv4_model_get_tokenizer(const dsv4_model *model, dsv4_tokenizer **out, dsv4_error *err);
DSV4_API void dsv4_tokenizer_release(dsv4_tokenizer *tokenizer);
DSV4_API size_t dsv4_tokenizer_size(const dsv4_tokenizer *tokenizer); /* one more than the largest id */

enum { DSV4_ENCODE_ORDINARY = 1 << 0 }; /* control tokens spelt out in the text stay text: for words from outside */
/* No BOS is added. ids may be NULL; *count is the number of tokens, of which at most capacity are written. Text that is
 * not UTF-8 is DSV4_E_INVALID, with the offset of its first bad byte. */
DSV4_API dsv4_status dsv4_tokenizer_encode(const dsv4_tokenizer *tokenizer, dsv4_str text, uint32_t flags, int32_t *ids,
                                           size_t capacity, size_t *count, dsv4_error *err);
/* The tokens' bytes; they need not be UTF-8. */
DSV4_API dsv4_status dsv4_tokenizer_decode(const dsv4_tokenizer *tokenizer, const int32_t *ids, size_t count,
                                           dsv4_blob **out, dsv4_error *err);
/* *bytes lives as long as the tokenizer; *added (may be NULL): a control token, recognised in text as a whole. */
DSV4_API dsv4_status dsv4_tokenizer_token(const dsv4_tokenizer *tokenizer, int32_t id, dsv4_str *bytes, int32_t *added,
                                          dsv4_error *err);
/* The token of exactly these bytes; DSV4_E_INVALID when there is none. */
DSV4_API dsv4_status dsv4_tokenizer_find(const dsv4_tokenizer *tokenizer, dsv4_str bytes, int32_t *id, dsv4_error *err);

/* Tokens to text as they come, in whole code points: a token may end inside one. *text lives until the next call. */
DSV4_API dsv4_status dsv4_decoder_create(const dsv4_tokenizer *tokenizer, dsv4_decoder **out, dsv4_error *err);
DSV4_API dsv4_status dsv4_decoder_push(dsv4_decoder *decoder, int32_t id, dsv4_str *text, dsv4_error *err);
DSV4_API dsv4_status dsv4_decoder_finish(dsv4_decoder *decoder, dsv4_str *text, dsv4_error *err);
DSV4_API void dsv4_decoder_release(dsv4_decoder *decoder);

/* ---- prompts --------------------------------------------------------------------------------------------------- */

enum {
    DSV4_PROMPT_THINKING = 1 << 0,      /* the model thinks before it answers */
    DSV4_PROMPT_KEEP_THINKING = 1 << 1, /* keep the reasoning of earlier turns, which is forgotten otherwise */
    DSV4_PROMPT_NO_BOS = 1 << 2,
    DSV4_PROMPT_UNTRUSTED = 1 << 3      /* control tokens spelt out in messages of users and tools stay text, so that
                                           nobody can forge a turn or a call. The released encoder does not do this. */
};
typedef struct dsv4_prompt_options {
    uint32_t struct_size, flags;        /* DSV4_PROMPT_* */
    dsv4_str reasoning_effort;          /* "", "high", "max"; the later dialect has "low" too */
    dsv4_str dialect;                   /* "preview" or "0731"; "" = the model's own, or "preview" without a model */
} dsv4_prompt_options;

/* A conversation, message by message. A builder, not an array of structs: a new kind of message is a new function.
 * options may be NULL. Texts are copied. */
DSV4_API dsv4_status dsv4_prompt_create(const dsv4_prompt_options *options, dsv4_prompt **out, dsv4_error *err);
/* From OpenAI-format JSON: {"messages", "tools"?, "thinking_mode"?, "reasoning_effort"?, "drop_thinking"?,
 * "add_default_bos_token"?, "context"?} or just the array of messages. What the JSON says goes before options. */
DSV4_API dsv4_status dsv4_prompt_from_json(dsv4_str request, const dsv4_prompt_options *options, dsv4_prompt **out,
                                           dsv4_error *err);
DSV4_API void dsv4_prompt_release(dsv4_prompt *prompt);

DSV4_API dsv4_status dsv4_prompt_add_system(dsv4_prompt *prompt, dsv4_str text, dsv4_error *err);
DSV4_API dsv4_status dsv4_prompt_add_user(dsv4_prompt *prompt, dsv4_str text, dsv4_error *err);
DSV4_API dsv4_status dsv4_prompt_add_assistant(dsv4_prompt *prompt, dsv4_str text, dsv4_str reasoning, dsv4_error *err);
/* Adds a call to the assistant message that is last. arguments: a JSON object's text. */
DSV4_API dsv4_status dsv4_prompt_add_tool_call(dsv4_prompt *prompt, dsv4_str call_id, dsv4_str name, dsv4_str arguments,
                                               dsv4_error *err);
DSV4_API dsv4_status dsv4_prompt_add_tool_result(dsv4_prompt *prompt, dsv4_str call_id, dsv4_str text, dsv4_error *err);
/* Any OpenAI-format message (developer, latest_reminder, content blocks, tasks ...), as JSON. */
DSV4_API dsv4_status dsv4_prompt_add_message(dsv4_prompt *prompt, dsv4_str json, dsv4_error *err);
/* Offers a tool: {"type": "function", "function": {"name", "description", "parameters"}} or the inner object. */
DSV4_API dsv4_status dsv4_prompt_add_tool(dsv4_prompt *prompt, dsv4_str json_schema, dsv4_error *err);
/* Puts the schema that answers must follow on the last message, a system or developer message. */
DSV4_API dsv4_status dsv4_prompt_set_response_format(dsv4_prompt *prompt, dsv4_str json, dsv4_error *err);
/* The exact text that the model is given. */
DSV4_API dsv4_status dsv4_prompt_render(const dsv4_prompt *prompt, dsv4_blob **out, dsv4_error *err);
/* How many of the prompt's tokens the session already holds (remembered answers are written with the very tokens that
 * were sampled), and how many there are. */
DSV4_API dsv4_status dsv4_session_match(dsv4_session *session, const dsv4_prompt *prompt, size_t *held, size_t *total,
                                        dsv4_error *err);

/* ---- parsing --------------------------------------------------------------------------------------------------- */

enum {
    DSV4_PARSE_THINKING = 1 << 0, /* the completion starts inside the reasoning */
    DSV4_PARSE_LENIENT = 1 << 1   /* repair what models get wrong, and say so; else the release's verdict */
};
/* A whole completion -> JSON {"role", "content", "reasoning_content", "tool_calls"}; lenient adds "flags" and
 * "complete" to each call. tools: the OpenAI array that was offered, or empty. Strict: DSV4_E_INVALID where the
 * released parser raises. */
DSV4_API dsv4_status dsv4_parse_completion(dsv4_str text, uint32_t flags, dsv4_str tools, dsv4_blob **out,
                                           dsv4_error *err);

/* ---- generation ------------------------------------------------------------------------------------------------ */

typedef struct dsv4_logit_bias {
    int32_t token;
    float bias; /* added to the logit; -infinity forbids the token */
} dsv4_logit_bias;

enum {
    DSV4_GENERATE_CONTINUE = 1 << 0,  /* the prompt follows what the session holds, instead of replacing it */
    DSV4_GENERATE_IGNORE_EOS = 1 << 1, /* only max_tokens, the context and stop ids end the answer, and the end of a
                                          grammar where there is one */
    DSV4_GENERATE_TOKENS = 1 << 2,     /* TOKEN events too when the prompt is a conversation or a text */
    DSV4_GENERATE_FREE = 1 << 3        /* do not hold tool calls and response formats to their grammar */
};
enum { DSV4_TOOLS_AUTO = 0, DSV4_TOOLS_NONE = 1, DSV4_TOOLS_REQUIRED = 2, DSV4_TOOLS_NAMED = 3 };

typedef struct dsv4_generate_options {
    uint32_t struct_size, flags;   /* DSV4_GENERATE_* */
    /* The prompt: one of the three. It is read before the call returns. */
    const int32_t *ids;            /* tokens; the answer comes as TOKEN events */
    size_t id_count;
    const dsv4_prompt *prompt;     /* a conversation; the answer comes as REASONING, TEXT and TOOL events */
    dsv4_str text;                 /* a text to be continued, without any chat format; the answer comes as TEXT */
    uint32_t max_tokens;           /* 0 = until the context is full */
    float temperature;             /* 0 = greedy: the largest logit, ties to the smaller id */
    float top_p;                   /* (0, 1]; 0 = off */
    float min_p;                   /* [0, 1]: tokens less likely than min_p times the likeliest are dropped; 0 = off */
    uint32_t top_k;                /* 0 = off */
    uint32_t reserved;
    uint64_t seed;                 /* 0 = a fresh one; the DONE event says which. The same seed and prompt give the same
                                      text, whatever else the engine is doing */
    const dsv4_logit_bias *logit_bias; /* copied */
    size_t logit_bias_count;
    const int32_t *stop_ids;       /* end the answer like EOS; copied */
    size_t stop_id_count;
    const dsv4_str *stop_strings;  /* end the answer where its text first contains one; not handed out; copied */
    size_t stop_string_count;
    int32_t tool_choice;           /* DSV4_TOOLS_* */
    uint32_t thinking_budget;      /* most tokens of reasoning, then it is closed; 0 = no limit */
    dsv4_str tool_name;            /* NAMED */
} dsv4_generate_options;

enum {
    DSV4_EVENT_TOKEN = 1,          /* token */
    DSV4_EVENT_PREFILL = 2,        /* prompt_tokens of which cached_tokens + prefilled_tokens are done */
    DSV4_EVENT_DONE = 3,           /* finish, counts, seed, timings; token is the stop id, or -1; text is, of a
                                      conversation, the whole assistant message as JSON, to be sent back */
    DSV4_EVENT_TEXT = 4,           /* text, in whole code points */
    DSV4_EVENT_REASONING = 5,      /* text */
    DSV4_EVENT_TOOL_BEGIN = 6,     /* call, tool_id, tool_name */
    DSV4_EVENT_TOOL_ARGUMENTS = 7, /* call, text: the next piece of one JSON object */
    DSV4_EVENT_TOOL_END = 8        /* call, tool_id, tool_name, text: all the arguments, complete, flags */
};
enum {
    DSV4_FINISH_STOP = 1,          /* EOS or a stop id */
    DSV4_FINISH_LENGTH = 2,        /* max_tokens */
    DSV4_FINISH_TOOLS = 4,         /* the answer ended with tool calls */
    DSV4_FINISH_CONTEXT = 3        /* the session's context, or the model's cache, is full */
};

typedef struct dsv4_event {
    uint32_t struct_size;          /* you set it; we write no further */
    int32_t kind;                  /* DSV4_EVENT_*; ignore the ones you do not know */
    int32_t token;
    int32_t finish;                /* DSV4_FINISH_* */
    uint32_t prompt_tokens, cached_tokens, prefilled_tokens, output_tokens;
    uint64_t seed;
    uint64_t prefill_ns, decode_ns; /* DONE: until the first token, and from there on */
    dsv4_str text, tool_id, tool_name; /* live until the next call on the stream */
    uint32_t call;                 /* 0, 1, ... within the answer */
    int32_t complete;              /* 0: the call was cut off and must not be executed */
    uint32_t flags;                /* what had to be repaired (core/text/dsml_stream.hpp); 0 when nothing */
    uint32_t reserved;
} dsv4_event;

/* Pull is the primitive (a Rust Iterator, a Go iter.Seq2). The prompt is the whole conversation: the longest beginning
 * that the session already holds is not computed again. One stream at a time on a session. The engine runs at most a
 * few tokens ahead of the caller; releasing the stream forgets those, and the tokens handed out stay in the session.
 * DSV4_E_CANCELLED comes within one step (max_batch_tokens at most), and so does dsv4_stream_release. */
DSV4_API dsv4_status dsv4_stream_open(dsv4_session *session, const dsv4_generate_options *options, dsv4_cancel *cancel,
                                      dsv4_stream **out, dsv4_error *err);
/* Waits for the next event. DSV4_END after the DONE event, again and again. */
DSV4_API dsv4_status dsv4_stream_next(dsv4_stream *stream, dsv4_event *event, dsv4_error *err);
/* The same without waiting: DSV4_PENDING when there is nothing yet. Call it once a frame. */
DSV4_API dsv4_status dsv4_stream_poll(dsv4_stream *stream, dsv4_event *event, dsv4_error *err);
DSV4_API void dsv4_stream_release(dsv4_stream *stream);

/* Called on your thread. Return nonzero to stop. Do not throw, panic, longjmp or re-enter the session. */
typedef int32_t (*dsv4_event_fn)(void *user_data, const dsv4_event *event);
/* The same as a loop over dsv4_stream_next. DSV4_OK also when the callback asked to stop. */
DSV4_API dsv4_status dsv4_generate(dsv4_session *session, const dsv4_generate_options *options, dsv4_cancel *cancel,
                                   dsv4_event_fn on_event, void *user_data, dsv4_error *err);

#ifdef __cplusplus
}
#endif
#endif
