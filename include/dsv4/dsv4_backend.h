/* The plugin ABI of libdsv4: what a compute backend implements. C99; a backend needs this header and nothing else of
 * ours, and never links the library.
 *
 * Shape letters, used in every comment:
 *   T tokens of a step   S sequences of a step   D hidden size     M residual streams (hc_mult)   V vocabulary
 *   H heads   d head_dim   R rotated dims (the last R of d)   G output groups   W sliding window
 *   Hi, di indexer heads and dim   K indexer top-k   E routed experts   k active experts   I expert width   r ratio
 *
 * How a step runs (core/model/forward.cpp is the whole program):
 *   batch_set, embed, per block { hc.pre, attention.{project, compress, select, attend, output}, hc.post, hc.pre,
 *   moe.{route, experts}, hc.post }, head, and where the backend samples, sample.
 *
 * Two promises make the rest of the library possible; the conformance suite checks both bit for bit:
 *   Row independence    What an operator writes for a token depends on that token's own sequence alone: not on T or S,
 *                       on its neighbours, on how the prompt was cut into steps, on the number of threads.
 *   Position addressing Window rows, compressor state and entries live at an address computed from the absolute
 *                       position. Nothing is ever shifted, so that truncating a sequence is forgetting its length.
 *
 * Calls on one device come from one thread at a time; different devices may be driven by different threads. Functions
 * that take a queue may return before the work is done, or begun; only what says that it waits must. So whatever they
 * were given is released after their queue was waited for. Every function that takes err fills it when it returns a
 * negative status. No function may print, throw, abort or end the process. */
#ifndef DSV4_BACKEND_H
#define DSV4_BACKEND_H
#include "dsv4/dsv4.h"
#ifdef __cplusplus
extern "C" {
#endif

#define DSV4_BACKEND_ABI 1u /* bump for any change that struct_size cannot express; tests/abi fails if you forget */

/* Defined by the plugin, opaque to the core. */
typedef struct dsv4_device dsv4_device; /* one accelerator, or the CPU */
typedef struct dsv4_queue dsv4_queue;   /* operations in order; owns the scratch memory of the operators it runs */
typedef struct dsv4_buffer dsv4_buffer; /* rows of one kind of activation, in whatever format the backend likes */
typedef struct dsv4_block dsv4_block;   /* the weights of one layer, of one MTP block, or of the two ends */
typedef struct dsv4_cache dsv4_cache;   /* window rows, compressor state, entries and indexer keys of one block */
typedef struct dsv4_batch dsv4_batch;   /* the ragged batch of the current step, resident on the device */
typedef struct dsv4_graph dsv4_graph;   /* operators of a step, recorded once and launched many times */
typedef struct dsv4_sampler dsv4_sampler; /* what is wanted of a step's logits, and the tokens, on the device */

/* ---- the model ------------------------------------------------------------------------------------------------- */

typedef struct dsv4_shape {
    uint32_t struct_size;
    int32_t vocab;          /* V */
    int32_t hidden;         /* D */
    int32_t layers;         /* without MTP blocks */
    int32_t streams;        /* M */
    int32_t sinkhorn_iters; /* the first one normalises columns only */
    int32_t heads;          /* H */
    int32_t head_dim;       /* d */
    int32_t rope_dims;      /* R, even */
    int32_t q_lora;
    int32_t o_groups;       /* G */
    int32_t o_lora;
    int32_t window;         /* W, own token included */
    int32_t index_heads;    /* Hi; 0 when no layer has an indexer */
    int32_t index_dim;      /* di, a power of two */
    int32_t index_topk;     /* K */
    int32_t experts;        /* E */
    int32_t active_experts; /* k */
    int32_t expert_inter;   /* I */
    float rms_eps, hc_eps;
    float routed_scale;
    float swiglu_limit;     /* 0: no clamp */
} dsv4_shape;

enum { /* element types of weights */
    DSV4_F32 = 1,
    DSV4_BF16 = 2,
    DSV4_F16 = 3,
    DSV4_I64 = 4,
    DSV4_I32 = 5,
    DSV4_FP8_E4M3 = 6,
    DSV4_FP4_E2M1 = 7, /* two per byte, even index in the low nibble; shapes count elements */
    DSV4_E8M0 = 8      /* scales: byte b is 2^(b-127), 255 is NaN (the core refuses it) */
};

enum { /* what a weight is. Matrices are [out, in], row-major. */
    DSV4_ROLE_EMBED = 1,       /* [V, D]                                  ends */
    DSV4_ROLE_HEAD = 2,        /* [V, D]                                  ends */
    DSV4_ROLE_NORM = 3,        /* [D] before the head                     ends, MTP */
    DSV4_ROLE_HC_HEAD_FN = 4,  /* [M, M*D] f32                            ends, MTP */
    DSV4_ROLE_HC_HEAD_BASE = 5,  /* [M] f32 */
    DSV4_ROLE_HC_HEAD_SCALE = 6, /* [1] f32 */
    DSV4_ROLE_HC_ATTN_FN = 10,   /* [(2+M)*M, M*D] f32: rows pre M, post M, comb M*M (from-major) */
    DSV4_ROLE_HC_ATTN_BASE = 11, /* [(2+M)*M] f32 */
    DSV4_ROLE_HC_ATTN_SCALE = 12, /* [3] f32: pre, post, comb */
    DSV4_ROLE_HC_FFN_FN = 13,
    DSV4_ROLE_HC_FFN_BASE = 14,
    DSV4_ROLE_HC_FFN_SCALE = 15,
    DSV4_ROLE_ATTN_NORM = 20,  /* [D] */
    DSV4_ROLE_FFN_NORM = 21,   /* [D] */
    DSV4_ROLE_WQ_A = 30,       /* [q_lora, D] */
    DSV4_ROLE_Q_NORM = 31,     /* [q_lora] */
    DSV4_ROLE_WQ_B = 32,       /* [H*d, q_lora] */
    DSV4_ROLE_WKV = 33,        /* [d, D] */
    DSV4_ROLE_KV_NORM = 34,    /* [d] */
    DSV4_ROLE_ATTN_SINK = 35,  /* [H] f32 */
    DSV4_ROLE_WO_A = 36,       /* [G*o_lora, H*d/G]; multiplies unrounded activations, in every numerics */
    DSV4_ROLE_WO_B = 37,       /* [D, G*o_lora] */
    DSV4_ROLE_COMP_WKV = 40,   /* [c*d, D], c = 2 for ratio 4, else 1 */
    DSV4_ROLE_COMP_WGATE = 41, /* [c*d, D] */
    DSV4_ROLE_COMP_APE = 42,   /* [r, c*d] f32 */
    DSV4_ROLE_COMP_NORM = 43,  /* [d] */
    DSV4_ROLE_INDEX_WQ_B = 50, /* [Hi*di, q_lora] */
    DSV4_ROLE_INDEX_WEIGHTS = 51, /* [Hi, D] */
    DSV4_ROLE_INDEX_COMP_WKV = 52, /* [2*di, D] */
    DSV4_ROLE_INDEX_COMP_WGATE = 53,
    DSV4_ROLE_INDEX_COMP_APE = 54,  /* [4, 2*di] f32 */
    DSV4_ROLE_INDEX_COMP_NORM = 55, /* [di] */
    DSV4_ROLE_GATE = 60,       /* [E, D] */
    DSV4_ROLE_GATE_BIAS = 61,  /* [E] f32; layers that choose by score */
    DSV4_ROLE_GATE_TID2EID = 62, /* [V, k] i64; layers that choose by token id */
    DSV4_ROLE_EXPERT_W1 = 63,  /* gate [I, D], with .expert */
    DSV4_ROLE_EXPERT_W2 = 64,  /* down [D, I], with .expert */
    DSV4_ROLE_EXPERT_W3 = 65,  /* up   [I, D], with .expert */
    DSV4_ROLE_SHARED_W1 = 66,  /* [Is, D]; Is may differ from I */
    DSV4_ROLE_SHARED_W2 = 67,
    DSV4_ROLE_SHARED_W3 = 68,
    DSV4_ROLE_E_PROJ = 70,     /* [D, D]                                  MTP */
    DSV4_ROLE_H_PROJ = 71,     /* [D, D] */
    DSV4_ROLE_E_NORM = 72,     /* [D] */
    DSV4_ROLE_H_NORM = 73      /* [D] */
};

/* Weights for measuring, described instead of given: a backend with DSV4_CAP_RANDOM_WEIGHTS takes tensors whose data
 * and scale are NULL and makes the bytes itself, the same on every machine: integers, and roundings as IEEE 754 has
 * them. r(s, i) is number i, from 0, of SplitMix64 begun at s (Steele, Lea, Flood: Fast Splittable Pseudorandom Number
 * Generators, OOPSLA 2014; the constants are those of Vigna's implementation, prng.di.unimi.it), modulo 2^64:
 *   z = s + (i + 1) * 0x9E3779B97F4A7C15    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9
 *   z = (z ^ z >> 27) * 0x94D049BB133111EB    r = z ^ z >> 31 */
enum {
    /* F32, BF16: near normal. With a, b, c the lowest three 16 bits of r(seed, i) and x = 2 (a + b + c) - 196605,
     * element i is mean + deviation * x / 65536 in double (where the product is exact), rounded to float32 and, for
     * BF16, that to bf16, to nearest even. */
    DSV4_RANDOM_NORMAL = 1,
    /* FP8_E4M3, FP4_E2M1: uniform. Bytes 8i to 8i + 7 are r(seed, i), the lowest first; of FP8 the two codes of NaN,
     * 0x7F and 0xFF, become 0x7E and 0xFE. */
    DSV4_RANDOM_CODES = 2,
    /* I64 [n, k]: in every row k different numbers below `range`, k <= range. Element j of row i is
     * (first + j * max(1, range / k)) % range, all integers, first = (r(seed, i) >> 32) * range >> 32. */
    DSV4_RANDOM_ROWS = 3
};
typedef struct dsv4_random {
    int32_t kind;  /* DSV4_RANDOM_*; 0: the bytes are given */
    int32_t range; /* ROWS */
    uint64_t seed;
    float mean, deviation; /* NORMAL */
    /* Scales, E8M0 alone: byte i is scale_low + (b * scale_range >> 8), b byte i of r(~seed, 0), r(~seed, 1), ... as
     * in CODES; scale_range 1..256, scale_low + scale_range <= 255. */
    int32_t scale_low, scale_range;
} dsv4_random;

typedef struct dsv4_tensor {
    int32_t role;
    int32_t expert; /* 0..E-1 for the routed experts, else -1 */
    int32_t dtype;
    int32_t rank;
    int64_t shape[2]; /* in elements; shape[1] is 1 for vectors */
    const void *data; /* little endian, as in the checkpoint; not necessarily aligned. NULL: see random */
    uint64_t bytes;
    int32_t scale_dtype;     /* 0: the weight has none; else DSV4_E8M0 or DSV4_F32 */
    int32_t scale_block[2];  /* one scale covers so many rows and columns: {128, 128} or {1, 32} */
    int32_t reserved;
    int64_t scale_shape[2];
    const void *scale;
    uint64_t scale_bytes;
    const char *path; /* the file that data is mapped from, and where in it; NULL: data is plain memory */
    uint64_t file_offset, scale_file_offset;
    dsv4_random random; /* read where data is NULL; bytes and scale_bytes say how much is made */
} dsv4_tensor;

enum { DSV4_BLOCK_ENDS = 1, DSV4_BLOCK_LAYER = 2, DSV4_BLOCK_MTP = 3 };
enum { DSV4_TIER_DEVICE = 0, DSV4_TIER_HOST = 1, DSV4_TIER_DISK = 2 }; /* where the routed experts live */

typedef struct dsv4_block_desc {
    uint32_t struct_size;
    int32_t kind;            /* DSV4_BLOCK_* */
    int32_t index;           /* layer number, MTP depth, 0 */
    int32_t compress_ratio;  /* r: 0 window only, 4 CSA (overlap and indexer), other HCA */
    const dsv4_tensor *tensors; /* the memory they point at stays valid and unchanged until block_release */
    uint32_t tensor_count;
    uint32_t tensor_stride;  /* sizeof(dsv4_tensor) of the core: what it does not reach is zero */
    const float *rope_frequency; /* [R/2], YaRN applied; the angle is float32(position) * frequency, in float32 */
    int32_t expert_tier;     /* DSV4_TIER_* */
    int32_t reserved;
} dsv4_block_desc;

/* ---- the step -------------------------------------------------------------------------------------------------- */

/* T tokens of S sequences. The tokens of a sequence are adjacent and at consecutive positions. */
typedef struct dsv4_step {
    uint32_t struct_size;
    int32_t tokens, sequences;
    int32_t blocks_per_sequence;  /* row length of block_table */
    int32_t outputs;              /* rows whose logits are wanted */
    const int32_t *token;         /* [T] ids */
    const int32_t *position;      /* [T] absolute */
    const int32_t *sequence;      /* [T] index into the arrays below */
    const int32_t *first;         /* [S+1] first token of each sequence */
    const int32_t *slot;          /* [S] which window ring and compressor state */
    const int32_t *block_table;   /* [S, blocks_per_sequence] entry block of positions [j*block_tokens, ...) */
    const int32_t *output_row;    /* [outputs] ascending token indices */
} dsv4_step;

/* Where rows live. Position p of a sequence:
 *   window row        ring of its slot, row p % window_rows
 *   compressor state  ring of its slot, row p % state_rows, state_rows = (r == 4 ? 8 : r) + state_slack
 *   entry p / r       block block_table[p / block_tokens], row (p % block_tokens) / r
 * A step never brings one sequence more than window_rows - W + 1 tokens, so that a step may write all its window rows
 * before it attends. It may bring more tokens than a state ring holds: compress takes the step's own tokens from x and
 * only earlier ones from the ring. Cutting a sequence back by up to state_slack tokens needs no repair. */
typedef struct dsv4_cache_desc {
    uint32_t struct_size;
    int32_t slots, blocks;
    int32_t block_tokens; /* a multiple of every ratio */
    int32_t window_rows;
    int32_t state_slack;
} dsv4_cache_desc;

enum { /* the parts of a cache, as cache_read shows them, in float32 */
    DSV4_CACHE_WINDOW = 1,      /* by slot:  [window_rows, d] */
    DSV4_CACHE_ENTRIES = 2,     /* by block: [block_tokens / r, d] */
    DSV4_CACHE_INDEX_KEYS = 3   /* by block: [block_tokens / 4, di], CSA only */
};

enum { /* activations; elements per row as buffer_write and buffer_read see them, in float32 */
    DSV4_BUFFER_STREAMS = 1,   /* M*D */
    DSV4_BUFFER_HIDDEN = 2,    /* D */
    DSV4_BUFFER_MIX = 3,       /* M + M*M: post, comb[from][to] */
    DSV4_BUFFER_QUERY = 4,     /* H*d, also what attend writes */
    DSV4_BUFFER_QUERY_LORA = 5, /* q_lora */
    DSV4_BUFFER_SELECTION = 6, /* K entry indices, any order, -1 fills the rest */
    DSV4_BUFFER_ROUTE = 7,     /* 2k: experts, then their weights */
    DSV4_BUFFER_LOGITS = 8     /* V, always float32 inside too */
};

/* ---- operator families ----------------------------------------------------------------------------------------- */

enum {
    DSV4_FAMILY_MEMORY = 1,
    DSV4_FAMILY_MODEL = 2,
    DSV4_FAMILY_ENDS = 3,
    DSV4_FAMILY_HC = 4,
    DSV4_FAMILY_ATTENTION = 5,
    DSV4_FAMILY_MOE = 6,
    DSV4_FAMILY_MTP = 7,  /* optional: without it the MTP block is not run */
    DSV4_FAMILY_LAYER = 8, /* optional: a whole layer in one call; the core composes it from the parts otherwise */
    DSV4_FAMILY_GRAPH = 9, /* optional: small steps are recorded and launched as a whole */
    DSV4_FAMILY_TIMER = 10, /* optional: what operators take on the device, for benchmarks */
    DSV4_FAMILY_SAMPLE = 11 /* optional: logits to tokens on the device; the core reads the logits otherwise */
};

typedef struct dsv4_memory_ops {
    uint32_t struct_size, reserved;
    dsv4_status (*queue_create)(dsv4_device *device, dsv4_queue **out, dsv4_error *err);
    void (*queue_release)(dsv4_queue *queue);
    dsv4_status (*queue_wait)(dsv4_queue *queue, dsv4_error *err);
    dsv4_status (*buffer_create)(dsv4_device *device, const dsv4_shape *shape, int32_t kind, int32_t rows,
                                 dsv4_buffer **out, dsv4_error *err);
    void (*buffer_release)(dsv4_buffer *buffer);
    /* rows are packed float32, DSV4_BUFFER_* elements each; read waits for the queue. A value that the buffer's own
     * format cannot hold is rounded to nearest even. */
    dsv4_status (*buffer_write)(dsv4_queue *queue, dsv4_buffer *buffer, int32_t first_row, int32_t rows,
                                const float *values, dsv4_error *err);
    dsv4_status (*buffer_read)(dsv4_queue *queue, const dsv4_buffer *buffer, int32_t first_row, int32_t rows,
                               float *values, dsv4_error *err);
    /* both of one kind and device; the ranges do not overlap */
    dsv4_status (*buffer_copy)(dsv4_queue *queue, const dsv4_buffer *from, int32_t from_row, dsv4_buffer *to,
                               int32_t to_row, int32_t rows, dsv4_error *err);
} dsv4_memory_ops;

typedef struct dsv4_model_ops {
    uint32_t struct_size, reserved;
    /* What block_create would take, before anything is allocated; beyond the mapped checkpoint itself. Weights that the
     * backend makes (dsv4_random) count. */
    dsv4_status (*block_bytes)(dsv4_device *device, const dsv4_shape *shape, const dsv4_block_desc *desc,
                               uint64_t *device_bytes, uint64_t *host_bytes, dsv4_error *err);
    /* Copies or repacks as it likes; where it keeps pointers into desc->tensors[].data, that is its business. Roles it
     * does not find are an error only when an operator needs them. */
    dsv4_status (*block_create)(dsv4_device *device, const dsv4_shape *shape, const dsv4_block_desc *desc,
                                dsv4_block **out, dsv4_error *err);
    void (*block_release)(dsv4_block *block);
    dsv4_status (*cache_bytes)(dsv4_device *device, const dsv4_shape *shape, int32_t compress_ratio,
                               const dsv4_cache_desc *desc, uint64_t *per_slot, uint64_t *per_block, dsv4_error *err);
    dsv4_status (*cache_create)(dsv4_device *device, const dsv4_shape *shape, int32_t compress_ratio,
                                const dsv4_cache_desc *desc, dsv4_cache **out, dsv4_error *err);
    void (*cache_release)(dsv4_cache *cache);
    /* part DSV4_CACHE_*; owner a slot or a block; for tests and snapshots. Waits for the queue. */
    dsv4_status (*cache_read)(dsv4_queue *queue, const dsv4_cache *cache, int32_t part, int32_t owner,
                              int32_t first_row, int32_t rows, float *values, dsv4_error *err);
    dsv4_status (*batch_create)(dsv4_device *device, const dsv4_shape *shape, int32_t max_tokens,
                                int32_t max_sequences, int32_t max_blocks_per_sequence, dsv4_batch **out,
                                dsv4_error *err);
    void (*batch_release)(dsv4_batch *batch);
    /* step is read before the call returns. block_tokens is that of every cache used with this batch. */
    dsv4_status (*batch_set)(dsv4_queue *queue, dsv4_batch *batch, const dsv4_step *step, dsv4_error *err);
} dsv4_model_ops;

typedef struct dsv4_ends_ops {
    uint32_t struct_size, reserved;
    /* ids -> streams [T, M, D]: the embedding, M times */
    dsv4_status (*embed)(dsv4_queue *queue, const dsv4_batch *batch, const dsv4_block *ends, dsv4_buffer *streams,
                         dsv4_error *err);
    /* For output o: x = hc_head(streams[output_row[o]]), logits[o] = rmsnorm(x) head^T. hc_head and norm come from
     * `from` (the ends, or an MTP block), the head from `ends`. */
    dsv4_status (*head)(dsv4_queue *queue, const dsv4_batch *batch, const dsv4_block *ends, const dsv4_block *from,
                        const dsv4_buffer *streams, dsv4_buffer *logits, dsv4_error *err);
} dsv4_ends_ops;

enum { DSV4_HC_ATTN = 0, DSV4_HC_FFN = 1 };

typedef struct dsv4_hc_ops {
    uint32_t struct_size, reserved;
    /* streams [T, M, D] -> x = rmsnorm(sum_j pre_j X_j) [T, D], mix = post [T, M] and comb [T, M, M] */
    dsv4_status (*pre)(dsv4_queue *queue, const dsv4_batch *batch, const dsv4_block *block, int32_t site,
                       const dsv4_buffer *streams, dsv4_buffer *x, dsv4_buffer *mix, dsv4_error *err);
    /* X'_k = post_k y + sum_j comb[j][k] X_j, in place */
    dsv4_status (*post)(dsv4_queue *queue, const dsv4_batch *batch, const dsv4_buffer *y, const dsv4_buffer *mix,
                        dsv4_buffer *streams, dsv4_error *err);
} dsv4_hc_ops;

typedef struct dsv4_attention_ops {
    uint32_t struct_size, reserved;
    /* x [T, D] -> q [T, H, d] normalised and rotated, qr [T, q_lora]; the window rows go into the cache */
    dsv4_status (*project)(dsv4_queue *queue, const dsv4_batch *batch, const dsv4_block *block, dsv4_cache *cache,
                           const dsv4_buffer *x, dsv4_buffer *q, dsv4_buffer *qr, dsv4_error *err);
    /* r > 0: every entry (and indexer key) that these tokens complete goes into the cache, and their state rows */
    dsv4_status (*compress)(dsv4_queue *queue, const dsv4_batch *batch, const dsv4_block *block, dsv4_cache *cache,
                            const dsv4_buffer *x, dsv4_error *err);
    /* r == 4: the K best of the entries i < (position + 1) / r; ties go to the smaller index */
    dsv4_status (*select)(dsv4_queue *queue, const dsv4_batch *batch, const dsv4_block *block,
                          const dsv4_cache *cache, const dsv4_buffer *x, const dsv4_buffer *qr,
                          dsv4_buffer *selection, dsv4_error *err);
    /* One softmax over W window rows and the visible entries (r == 4: the selected; else all; selection may be NULL
     * then), the sink in the denominator; o [T, H, d] is rotated back. o may be q; what q holds afterwards is the
     * backend's business. */
    dsv4_status (*attend)(dsv4_queue *queue, const dsv4_batch *batch, const dsv4_block *block,
                          const dsv4_cache *cache, const dsv4_buffer *q, const dsv4_buffer *selection, dsv4_buffer *o,
                          dsv4_error *err);
    /* o -> G groups through wo_a, then wo_b -> y [T, D] */
    dsv4_status (*output)(dsv4_queue *queue, const dsv4_batch *batch, const dsv4_block *block, const dsv4_buffer *o,
                          dsv4_buffer *y, dsv4_error *err);
} dsv4_attention_ops;

typedef struct dsv4_moe_ops {
    uint32_t struct_size, reserved;
    /* s = sqrt(softplus(x gate^T)); experts by token id or the k largest of s + bias (ties to the smaller index);
     * weights s / sum(s) * routed_scale */
    dsv4_status (*route)(dsv4_queue *queue, const dsv4_batch *batch, const dsv4_block *block, const dsv4_buffer *x,
                         dsv4_buffer *route, dsv4_error *err);
    /* y = sum over the chosen experts and the shared one */
    dsv4_status (*experts)(dsv4_queue *queue, const dsv4_batch *batch, const dsv4_block *block, const dsv4_buffer *x,
                           const dsv4_buffer *route, dsv4_buffer *y, dsv4_error *err);
} dsv4_moe_ops;

typedef struct dsv4_mtp_ops {
    uint32_t struct_size, reserved;
    /* streams [T, M, D] of tokens t, batch token ids of t+1:
     * out[m] = e_proj(rmsnorm(embed(id))) + h_proj(rmsnorm(streams[m])). out may not be streams. */
    dsv4_status (*join)(dsv4_queue *queue, const dsv4_batch *batch, const dsv4_block *ends, const dsv4_block *block,
                        const dsv4_buffer *streams, dsv4_buffer *out, dsv4_error *err);
} dsv4_mtp_ops;

typedef struct dsv4_layer_ops {
    uint32_t struct_size, reserved;
    dsv4_status (*layer)(dsv4_queue *queue, const dsv4_batch *batch, const dsv4_block *block, dsv4_cache *cache,
                         dsv4_buffer *streams, dsv4_error *err);
} dsv4_layer_ops;

/* What a recorded graph serves: every step of the same batch with so many tokens, sequences and outputs or fewer, none
 * of its tokens at this position or a later one. */
typedef struct dsv4_graph_limits {
    uint32_t struct_size;
    int32_t tokens, sequences, outputs; /* outputs 0: of steps that want none */
    int32_t positions;
} dsv4_graph_limits;

/* Between begin and end the operators called on the queue are recorded and not run; no other call may be made on it or
 * on the batch. A launch runs them on the step that batch_set has put into the batch since: that step, what a sampler
 * was set to, and what lies in the buffers and caches, is all that may differ between launches. Blocks, caches, buffers
 * and the batch must be the recorded ones and outlive the graph. A launch writes what the operators would have written,
 * bit for bit. */
typedef struct dsv4_graph_ops {
    uint32_t struct_size, reserved;
    /* The batch holds a step within the limits. */
    dsv4_status (*begin)(dsv4_queue *queue, dsv4_batch *batch, const dsv4_graph_limits *limits, dsv4_error *err);
    /* out NULL: what was recorded is forgotten, as it must be when an operator failed. */
    dsv4_status (*end)(dsv4_queue *queue, dsv4_graph **out, dsv4_error *err);
    dsv4_status (*launch)(dsv4_queue *queue, dsv4_graph *graph, dsv4_error *err);
    void (*release)(dsv4_graph *graph);
} dsv4_graph_ops;

/* Stamps are numbered 0 to 63 by the caller; one that is set again forgets its former time. */
typedef struct dsv4_timer_ops {
    uint32_t struct_size, reserved;
    /* notes the device's time when everything before it in the queue is done */
    dsv4_status (*stamp)(dsv4_queue *queue, uint32_t number, dsv4_error *err);
    /* seconds from one stamp to a later one; waits for both */
    dsv4_status (*elapsed)(dsv4_queue *queue, uint32_t from, uint32_t to, double *seconds, dsv4_error *err);
} dsv4_timer_ops;

/* Sampling: from a row of logits to a token, by integers and single IEEE operations alone. Sums of integers have no
 * order, so that the same logits give the same token on every backend, whatever the threads and blocks.
 *
 *   x[i]   logits[i]; then each bias of the row, in the order given, is added to its token in float32. A token whose
 *          bit in `allowed` is 0 is out, and so is one whose x is NaN or -infinity. top is the largest x of the others;
 *          0 and -0 are equal.
 *   t[i]   0 where x == top; else (top - x) * scale, two float32 operations, each rounded to nearest, no fused one, no
 *          flush to zero. 41 * 2^24 and more (or NaN): out. Else the fraction is cut off: a number of 2^-24 octaves.
 *   w[i]   about 2^(40 - t / 2^24): with v = (t mod 2^24) * 2^8, C the numbers of DSV4_SAMPLE_POLYNOMIAL, and a = C[5],
 *          then a = C[j] - (a * v >> 32) for j = 4 .. 0 (64-bit products), m = 2^31 - (a * v >> 33), and
 *          w = (m << 9) >> (t >> 24). w < least: out. A larger t never has a larger w, and fewer than 2^24 tokens
 *          cannot overflow a sum.
 *   Order  likeliest first is smaller t first, and of equal t the smaller id.
 *   top_k  the first top_k in that order stay; 0: all.
 *   top_p  With S the sum of their w, the shortest beginning of the order stays whose sum is at least 1 and at least
 *          floor(S * top_p / 2^32); 0: all.
 *   token  With S the sum of what is left, the first id at which the sum of w in the order of ids exceeds
 *          floor(random * S / 2^64). */
#define DSV4_SAMPLE_POLYNOMIAL {0xB17217DFu, 0x3D7F7506u, 0x0E353290u, 0x0274F388u, 0x0054A612u, 0x00078809u}

enum { /* what is wanted of a row */
    DSV4_SAMPLE_NOTHING = 0,
    DSV4_SAMPLE_LARGEST = 1, /* the smallest id whose x is top; of the fields below only allowed and bias are read */
    DSV4_SAMPLE_DRAW = 2
};
enum { /* what comes instead of a token */
    DSV4_SAMPLED_NOTHING = -1,      /* nothing was wanted */
    DSV4_SAMPLED_FORBIDDEN = -2,    /* every token is out */
    DSV4_SAMPLED_NOT_A_NUMBER = -3  /* the same, and some token that is allowed has an x that is NaN */
};

typedef struct dsv4_sample_row {
    int32_t kind;            /* DSV4_SAMPLE_* */
    uint32_t top_k;
    uint32_t top_p;          /* in 2^-32 */
    float scale;             /* 2^24 log2(e) / temperature; positive, may be infinite */
    uint64_t least;          /* smallest weight that stays, 1 to 2^40 */
    uint64_t random;         /* uniform over all 64 bits */
    const uint64_t *allowed; /* V bits, least significant first; NULL: all */
    const dsv4_logit_bias *bias; /* tokens in [0, V), any order, repeated ones too */
    uint32_t bias_count;
    uint32_t reserved;
} dsv4_sample_row;

/* sample may be recorded into a graph: a launch samples as the sampler was set since, for the outputs of the step in
 * the batch. The sampler must outlive the graph, and set is not called while it is recorded. */
typedef struct dsv4_sample_ops {
    uint32_t struct_size, reserved;
    /* For steps of up to max_rows outputs and max_biases biases, all rows together. */
    dsv4_status (*sampler_create)(dsv4_device *device, const dsv4_shape *shape, int32_t max_rows, int32_t max_biases,
                                  dsv4_sampler **out, dsv4_error *err);
    void (*sampler_release)(dsv4_sampler *sampler);
    /* What is wanted of the next step's outputs, one row each; rows that are not given want nothing. Called before the
     * first sample. row_stride is sizeof(dsv4_sample_row) of the core. Everything is read before the call returns. */
    dsv4_status (*set)(dsv4_queue *queue, dsv4_sampler *sampler, int32_t rows, const dsv4_sample_row *row,
                       uint32_t row_stride, dsv4_error *err);
    /* logits [outputs, V] -> a token or DSV4_SAMPLED_* per output, kept in the sampler. The logits stay as they are. */
    dsv4_status (*sample)(dsv4_queue *queue, const dsv4_batch *batch, dsv4_sampler *sampler, const dsv4_buffer *logits,
                          dsv4_error *err);
    /* id [rows] of the last sample, as many as it had outputs or fewer; waits for the queue. */
    dsv4_status (*read)(dsv4_queue *queue, const dsv4_sampler *sampler, int32_t rows, int32_t *id, dsv4_error *err);
} dsv4_sample_ops;

/* ---- the plugin ------------------------------------------------------------------------------------------------ */

enum { /* capability bits */
    DSV4_CAP_ROW_INDEPENDENT = 1 << 0,
    DSV4_CAP_EXACT = 1 << 1,
    DSV4_CAP_OFFICIAL = 1 << 2,
    DSV4_CAP_MAPPED_WEIGHTS = 1 << 3, /* computes on the mapped checkpoint, without a second copy */
    DSV4_CAP_DISK_EXPERTS = 1 << 4,
    DSV4_CAP_RANDOM_WEIGHTS = 1 << 5 /* makes what dsv4_random describes */
};

typedef struct dsv4_device_options {
    uint32_t struct_size;
    uint32_t index;          /* which device */
    int32_t numerics;        /* DSV4_NUMERICS_*; one it cannot do is DSV4_E_UNSUPPORTED */
    int32_t threads;         /* CPU backends: 0 = one per core this process may use */
    uint32_t flags;          /* DSV4_DEVICE_* */
    uint32_t reserved;
    uint64_t expert_budget;  /* bytes of memory for experts on disk; 0 = no limit of ours */
    dsv4_str variant;        /* an instruction set to force, for tests; "" = the best this machine has */
    dsv4_str repack_folder;  /* where repacked weights may be kept between runs; "" = nowhere. A backend that repacks
                                nothing leaves it empty and says so in the log */
} dsv4_device_options;
enum { /* one processor per thread, the thread that calls batch_set included */
    DSV4_DEVICE_PIN_THREADS = 1
};

typedef struct dsv4_device_info {
    uint32_t struct_size;
    uint32_t capabilities;   /* DSV4_CAP_* */
    int32_t numerics;        /* the one in force, never DEFAULT */
    int32_t threads;
    uint64_t memory_total, memory_free; /* bytes; for the CPU, of the machine */
    char name[64];           /* NUL-terminated */
    char variant[32];        /* "avx512", "sm_90a" */
    /* Experts on disk, since the device was opened. A use is one expert in one step; the three kinds sum to all. */
    uint64_t expert_hits;       /* uses that found it in memory since an earlier step */
    uint64_t expert_ahead;      /* uses of one whose reading had begun before its layer did */
    uint64_t expert_misses;     /* uses that had to start reading */
    uint64_t expert_bytes_read;
    uint64_t expert_wait_ns;    /* that operators stood still for the disk */
} dsv4_device_info;

typedef struct dsv4_host { /* what the core lends; valid until shutdown() returns */
    uint32_t struct_size, abi;
    void *self;
    void (*log)(void *self, int32_t level, dsv4_str line); /* [any thread]; level: 0 error, 1 warning, 2 info */
} dsv4_host;

typedef struct dsv4_backend { /* static storage in the plugin */
    uint32_t struct_size;
    uint32_t abi;                  /* the version chosen from the host's range */
    const char *name, *build;      /* "cuda", "13.0 sm_90a sm_100a" */
    dsv4_status (*probe)(uint32_t *devices, uint32_t *score, dsv4_error *err); /* score 0: cannot run here, *err why */
    dsv4_status (*device_open)(const dsv4_device_options *options, dsv4_device **out, dsv4_error *err);
    void (*device_close)(dsv4_device *device);
    /* [any thread], while other calls on the device run */
    dsv4_status (*device_query)(dsv4_device *device, dsv4_device_info *info, dsv4_error *err);
    const void *(*ops)(dsv4_device *device, uint32_t family); /* NULL: not offered */
    void (*shutdown)(void);        /* no objects left; join threads here, not in destructors */
} dsv4_backend;

/* The plugin's only export. It must not touch the device, start threads or allocate. Several hosts in one process may
 * call it; it keeps no more than the last host's log. */
typedef dsv4_status (*dsv4_backend_entry_fn)(uint32_t abi_min, uint32_t abi_max, const dsv4_host *host,
                                             const dsv4_backend **out, dsv4_error *err);
#define DSV4_BACKEND_ENTRY "dsv4_backend_entry"
#if defined(_WIN32)
#define DSV4_BACKEND_EXPORT __declspec(dllexport)
#elif defined(__GNUC__)
#define DSV4_BACKEND_EXPORT __attribute__((visibility("default")))
#else
#define DSV4_BACKEND_EXPORT
#endif

/* May I call it? The peer's struct reaches that far, and it filled the slot. */
#define DSV4_HAS(table, fn)                                                                                            \
    ((table)->struct_size >= (size_t)((const char *)(&(table)->fn + 1) - (const char *)(table)) && (table)->fn != NULL)

#ifdef __cplusplus
}
#endif
#endif
