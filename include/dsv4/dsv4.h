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
 * Host     Nothing here ends the process, throws, prints, or installs handlers. The environment is read once, by
 *          dsv4_runtime_create: DSV4_PLUGIN_PATH (not in a setuid process). */
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

typedef struct dsv4_error { /* yours, on your stack: no thread-local, nothing to free */
    uint32_t struct_size;
    dsv4_status status;
    int32_t native_code; /* cudaError_t, hipError_t, errno ...; 0 if none */
    uint32_t reserved;
    char message[240]; /* one line, NUL-terminated UTF-8 */
} dsv4_error;

typedef struct dsv4_runtime dsv4_runtime; /* plugins and log: there is no global state */
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
    /* Whole lines, no newline; from any thread, never after dsv4_runtime_release returned. NULL = silent. */
    void (*log)(void *user_data, int32_t level, dsv4_str line);
    void *log_user_data;
    void (*log_release)(void *user_data); /* called once, last; may be NULL */
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
 * shapes, for measuring. options may be NULL. */
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

/* ---- generation ------------------------------------------------------------------------------------------------ */

typedef struct dsv4_logit_bias {
    int32_t token;
    float bias; /* added to the logit; -infinity forbids the token */
} dsv4_logit_bias;

enum {
    DSV4_GENERATE_CONTINUE = 1 << 0,  /* the prompt follows what the session holds, instead of replacing it */
    DSV4_GENERATE_IGNORE_EOS = 1 << 1 /* only max_tokens, the context and stop ids end the answer */
};

typedef struct dsv4_generate_options {
    uint32_t struct_size, flags;   /* DSV4_GENERATE_* */
    const int32_t *ids;            /* the prompt, as tokens; copied */
    size_t id_count;
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
} dsv4_generate_options;

enum {
    DSV4_EVENT_TOKEN = 1,          /* token */
    DSV4_EVENT_PREFILL = 2,        /* prompt_tokens of which cached_tokens + prefilled_tokens are done */
    DSV4_EVENT_DONE = 3            /* finish, counts, seed, timings; token is the stop id, or -1 */
};
enum {
    DSV4_FINISH_STOP = 1,          /* EOS or a stop id */
    DSV4_FINISH_LENGTH = 2,        /* max_tokens */
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
} dsv4_event;

/* Pull is the primitive (a Rust Iterator, a Go iter.Seq2). The prompt is the whole conversation: the longest beginning
 * that the session already holds is not computed again. One stream at a time on a session. The engine runs at most a
 * few tokens ahead of the caller; releasing the stream forgets those, and the tokens handed out stay in the session.
 * DSV4_E_CANCELLED comes within one prefill_chunk. */
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
