// The layouts of the plugin ABI, frozen. Fields are only ever appended, and struct_size tells: an offset here never
// changes. A change that struct_size cannot express needs a new DSV4_BACKEND_ABI, and only then new numbers here.
#include "dsv4/dsv4_backend.h"
#include <cstddef>

static_assert(DSV4_BACKEND_ABI == 1u, "the numbers below are those of ABI 1");

#define AT(type, field, offset) static_assert(offsetof(type, field) == (offset), #type "." #field " has moved")
#define SIZE(type, size) static_assert(sizeof(type) == (size), #type " has another size: append here what was appended")

#if defined(__LP64__) || defined(_WIN64)

AT(dsv4_shape, struct_size, 0);
AT(dsv4_shape, vocab, 4);
AT(dsv4_shape, hidden, 8);
AT(dsv4_shape, layers, 12);
AT(dsv4_shape, streams, 16);
AT(dsv4_shape, sinkhorn_iters, 20);
AT(dsv4_shape, heads, 24);
AT(dsv4_shape, head_dim, 28);
AT(dsv4_shape, rope_dims, 32);
AT(dsv4_shape, q_lora, 36);
AT(dsv4_shape, o_groups, 40);
AT(dsv4_shape, o_lora, 44);
AT(dsv4_shape, window, 48);
AT(dsv4_shape, index_heads, 52);
AT(dsv4_shape, index_dim, 56);
AT(dsv4_shape, index_topk, 60);
AT(dsv4_shape, experts, 64);
AT(dsv4_shape, active_experts, 68);
AT(dsv4_shape, expert_inter, 72);
AT(dsv4_shape, rms_eps, 76);
AT(dsv4_shape, hc_eps, 80);
AT(dsv4_shape, routed_scale, 84);
AT(dsv4_shape, swiglu_limit, 88);
SIZE(dsv4_shape, 92);

AT(dsv4_tensor, role, 0);
AT(dsv4_tensor, expert, 4);
AT(dsv4_tensor, dtype, 8);
AT(dsv4_tensor, rank, 12);
AT(dsv4_tensor, shape, 16);
AT(dsv4_tensor, data, 32);
AT(dsv4_tensor, bytes, 40);
AT(dsv4_tensor, scale_dtype, 48);
AT(dsv4_tensor, scale_block, 52);
AT(dsv4_tensor, reserved, 60);
AT(dsv4_tensor, scale_shape, 64);
AT(dsv4_tensor, scale, 80);
AT(dsv4_tensor, scale_bytes, 88);
AT(dsv4_tensor, path, 96);
AT(dsv4_tensor, file_offset, 104);
AT(dsv4_tensor, scale_file_offset, 112);
AT(dsv4_tensor, random, 120);
SIZE(dsv4_tensor, 152);

AT(dsv4_random, kind, 0);
AT(dsv4_random, range, 4);
AT(dsv4_random, seed, 8);
AT(dsv4_random, mean, 16);
AT(dsv4_random, deviation, 20);
AT(dsv4_random, scale_low, 24);
AT(dsv4_random, scale_range, 28);
SIZE(dsv4_random, 32);

AT(dsv4_block_desc, struct_size, 0);
AT(dsv4_block_desc, kind, 4);
AT(dsv4_block_desc, index, 8);
AT(dsv4_block_desc, compress_ratio, 12);
AT(dsv4_block_desc, tensors, 16);
AT(dsv4_block_desc, tensor_count, 24);
AT(dsv4_block_desc, tensor_stride, 28);
AT(dsv4_block_desc, rope_frequency, 32);
AT(dsv4_block_desc, expert_tier, 40);
AT(dsv4_block_desc, reserved, 44);
SIZE(dsv4_block_desc, 48);

AT(dsv4_step, struct_size, 0);
AT(dsv4_step, tokens, 4);
AT(dsv4_step, sequences, 8);
AT(dsv4_step, blocks_per_sequence, 12);
AT(dsv4_step, outputs, 16);
AT(dsv4_step, token, 24);
AT(dsv4_step, position, 32);
AT(dsv4_step, sequence, 40);
AT(dsv4_step, first, 48);
AT(dsv4_step, slot, 56);
AT(dsv4_step, block_table, 64);
AT(dsv4_step, output_row, 72);
SIZE(dsv4_step, 80);

AT(dsv4_cache_desc, struct_size, 0);
AT(dsv4_cache_desc, slots, 4);
AT(dsv4_cache_desc, blocks, 8);
AT(dsv4_cache_desc, block_tokens, 12);
AT(dsv4_cache_desc, window_rows, 16);
AT(dsv4_cache_desc, state_slack, 20);
SIZE(dsv4_cache_desc, 24);

AT(dsv4_memory_ops, struct_size, 0);
AT(dsv4_memory_ops, reserved, 4);
AT(dsv4_memory_ops, queue_create, 8);
AT(dsv4_memory_ops, queue_release, 16);
AT(dsv4_memory_ops, queue_wait, 24);
AT(dsv4_memory_ops, buffer_create, 32);
AT(dsv4_memory_ops, buffer_release, 40);
AT(dsv4_memory_ops, buffer_write, 48);
AT(dsv4_memory_ops, buffer_read, 56);
AT(dsv4_memory_ops, buffer_copy, 64);
SIZE(dsv4_memory_ops, 72);

AT(dsv4_model_ops, struct_size, 0);
AT(dsv4_model_ops, reserved, 4);
AT(dsv4_model_ops, block_bytes, 8);
AT(dsv4_model_ops, block_create, 16);
AT(dsv4_model_ops, block_release, 24);
AT(dsv4_model_ops, cache_bytes, 32);
AT(dsv4_model_ops, cache_create, 40);
AT(dsv4_model_ops, cache_release, 48);
AT(dsv4_model_ops, cache_read, 56);
AT(dsv4_model_ops, batch_create, 64);
AT(dsv4_model_ops, batch_release, 72);
AT(dsv4_model_ops, batch_set, 80);
SIZE(dsv4_model_ops, 88);

AT(dsv4_ends_ops, struct_size, 0);
AT(dsv4_ends_ops, reserved, 4);
AT(dsv4_ends_ops, embed, 8);
AT(dsv4_ends_ops, head, 16);
SIZE(dsv4_ends_ops, 24);

AT(dsv4_hc_ops, struct_size, 0);
AT(dsv4_hc_ops, reserved, 4);
AT(dsv4_hc_ops, pre, 8);
AT(dsv4_hc_ops, post, 16);
SIZE(dsv4_hc_ops, 24);

AT(dsv4_attention_ops, struct_size, 0);
AT(dsv4_attention_ops, reserved, 4);
AT(dsv4_attention_ops, project, 8);
AT(dsv4_attention_ops, compress, 16);
AT(dsv4_attention_ops, select, 24);
AT(dsv4_attention_ops, attend, 32);
AT(dsv4_attention_ops, output, 40);
SIZE(dsv4_attention_ops, 48);

AT(dsv4_moe_ops, struct_size, 0);
AT(dsv4_moe_ops, reserved, 4);
AT(dsv4_moe_ops, route, 8);
AT(dsv4_moe_ops, experts, 16);
SIZE(dsv4_moe_ops, 24);

AT(dsv4_mtp_ops, struct_size, 0);
AT(dsv4_mtp_ops, reserved, 4);
AT(dsv4_mtp_ops, join, 8);
SIZE(dsv4_mtp_ops, 16);

AT(dsv4_layer_ops, struct_size, 0);
AT(dsv4_layer_ops, reserved, 4);
AT(dsv4_layer_ops, layer, 8);
SIZE(dsv4_layer_ops, 16);

AT(dsv4_graph_limits, struct_size, 0);
AT(dsv4_graph_limits, tokens, 4);
AT(dsv4_graph_limits, sequences, 8);
AT(dsv4_graph_limits, outputs, 12);
AT(dsv4_graph_limits, positions, 16);
SIZE(dsv4_graph_limits, 20);

AT(dsv4_graph_ops, struct_size, 0);
AT(dsv4_graph_ops, reserved, 4);
AT(dsv4_graph_ops, begin, 8);
AT(dsv4_graph_ops, end, 16);
AT(dsv4_graph_ops, launch, 24);
AT(dsv4_graph_ops, release, 32);
SIZE(dsv4_graph_ops, 40);

AT(dsv4_timer_ops, struct_size, 0);
AT(dsv4_timer_ops, reserved, 4);
AT(dsv4_timer_ops, stamp, 8);
AT(dsv4_timer_ops, elapsed, 16);
SIZE(dsv4_timer_ops, 24);

AT(dsv4_sample_row, kind, 0);
AT(dsv4_sample_row, top_k, 4);
AT(dsv4_sample_row, top_p, 8);
AT(dsv4_sample_row, scale, 12);
AT(dsv4_sample_row, least, 16);
AT(dsv4_sample_row, random, 24);
AT(dsv4_sample_row, allowed, 32);
AT(dsv4_sample_row, bias, 40);
AT(dsv4_sample_row, bias_count, 48);
AT(dsv4_sample_row, reserved, 52);
SIZE(dsv4_sample_row, 56);

AT(dsv4_sample_ops, struct_size, 0);
AT(dsv4_sample_ops, reserved, 4);
AT(dsv4_sample_ops, sampler_create, 8);
AT(dsv4_sample_ops, sampler_release, 16);
AT(dsv4_sample_ops, set, 24);
AT(dsv4_sample_ops, sample, 32);
AT(dsv4_sample_ops, read, 40);
SIZE(dsv4_sample_ops, 48);

AT(dsv4_device_options, struct_size, 0);
AT(dsv4_device_options, index, 4);
AT(dsv4_device_options, numerics, 8);
AT(dsv4_device_options, threads, 12);
AT(dsv4_device_options, flags, 16);
AT(dsv4_device_options, reserved, 20);
AT(dsv4_device_options, expert_budget, 24);
AT(dsv4_device_options, variant, 32);
AT(dsv4_device_options, repack_folder, 48);
SIZE(dsv4_device_options, 64);

AT(dsv4_device_info, struct_size, 0);
AT(dsv4_device_info, capabilities, 4);
AT(dsv4_device_info, numerics, 8);
AT(dsv4_device_info, threads, 12);
AT(dsv4_device_info, memory_total, 16);
AT(dsv4_device_info, memory_free, 24);
AT(dsv4_device_info, name, 32);
AT(dsv4_device_info, variant, 96);
AT(dsv4_device_info, expert_hits, 128);
AT(dsv4_device_info, expert_ahead, 136);
AT(dsv4_device_info, expert_misses, 144);
AT(dsv4_device_info, expert_bytes_read, 152);
AT(dsv4_device_info, expert_wait_ns, 160);
SIZE(dsv4_device_info, 168);

AT(dsv4_host, struct_size, 0);
AT(dsv4_host, abi, 4);
AT(dsv4_host, self, 8);
AT(dsv4_host, log, 16);
SIZE(dsv4_host, 24);

AT(dsv4_backend, struct_size, 0);
AT(dsv4_backend, abi, 4);
AT(dsv4_backend, name, 8);
AT(dsv4_backend, build, 16);
AT(dsv4_backend, probe, 24);
AT(dsv4_backend, device_open, 32);
AT(dsv4_backend, device_close, 40);
AT(dsv4_backend, device_query, 48);
AT(dsv4_backend, ops, 56);
AT(dsv4_backend, shutdown, 64);
SIZE(dsv4_backend, 72);

#endif

// What travels in these structs as numbers.
static_assert(DSV4_F32 == 1 && DSV4_BF16 == 2 && DSV4_F16 == 3 && DSV4_I64 == 4 && DSV4_I32 == 5 &&
                  DSV4_FP8_E4M3 == 6 && DSV4_FP4_E2M1 == 7 && DSV4_E8M0 == 8,
              "element types");
static_assert(DSV4_BLOCK_ENDS == 1 && DSV4_BLOCK_LAYER == 2 && DSV4_BLOCK_MTP == 3, "block kinds");
static_assert(DSV4_TIER_DEVICE == 0 && DSV4_TIER_HOST == 1 && DSV4_TIER_DISK == 2, "expert tiers");
static_assert(DSV4_CACHE_WINDOW == 1 && DSV4_CACHE_ENTRIES == 2 && DSV4_CACHE_INDEX_KEYS == 3, "cache parts");
static_assert(DSV4_BUFFER_STREAMS == 1 && DSV4_BUFFER_HIDDEN == 2 && DSV4_BUFFER_MIX == 3 && DSV4_BUFFER_QUERY == 4 &&
                  DSV4_BUFFER_QUERY_LORA == 5 && DSV4_BUFFER_SELECTION == 6 && DSV4_BUFFER_ROUTE == 7 &&
                  DSV4_BUFFER_LOGITS == 8,
              "buffer kinds");
static_assert(DSV4_FAMILY_MEMORY == 1 && DSV4_FAMILY_MODEL == 2 && DSV4_FAMILY_ENDS == 3 && DSV4_FAMILY_HC == 4 &&
                  DSV4_FAMILY_ATTENTION == 5 && DSV4_FAMILY_MOE == 6 && DSV4_FAMILY_MTP == 7 && DSV4_FAMILY_LAYER == 8 &&
                  DSV4_FAMILY_GRAPH == 9 && DSV4_FAMILY_TIMER == 10 && DSV4_FAMILY_SAMPLE == 11,
              "operator families");
static_assert(DSV4_SAMPLE_NOTHING == 0 && DSV4_SAMPLE_LARGEST == 1 && DSV4_SAMPLE_DRAW == 2 &&
                  DSV4_SAMPLED_NOTHING == -1 && DSV4_SAMPLED_FORBIDDEN == -2 && DSV4_SAMPLED_NOT_A_NUMBER == -3,
              "sampling");
static_assert(DSV4_NUMERICS_DEFAULT == 0 && DSV4_NUMERICS_EXACT == 1 && DSV4_NUMERICS_OFFICIAL == 2 &&
                  DSV4_NUMERICS_NATIVE == 3,
              "numerics");
static_assert(DSV4_CAP_ROW_INDEPENDENT == 1 && DSV4_CAP_EXACT == 2 && DSV4_CAP_OFFICIAL == 4 &&
                  DSV4_CAP_MAPPED_WEIGHTS == 8 && DSV4_CAP_DISK_EXPERTS == 16 &&
                  DSV4_CAP_RANDOM_WEIGHTS == 32,
              "capabilities");
static_assert(DSV4_RANDOM_NORMAL == 1 && DSV4_RANDOM_CODES == 2 && DSV4_RANDOM_ROWS == 3, "kinds of random weights");

#define ROLE(name, value) static_assert(DSV4_ROLE_##name == (value), "role " #name " has another number")
ROLE(EMBED, 1);
ROLE(HEAD, 2);
ROLE(NORM, 3);
ROLE(HC_HEAD_FN, 4);
ROLE(HC_HEAD_BASE, 5);
ROLE(HC_HEAD_SCALE, 6);
ROLE(HC_ATTN_FN, 10);
ROLE(HC_ATTN_BASE, 11);
ROLE(HC_ATTN_SCALE, 12);
ROLE(HC_FFN_FN, 13);
ROLE(HC_FFN_BASE, 14);
ROLE(HC_FFN_SCALE, 15);
ROLE(ATTN_NORM, 20);
ROLE(FFN_NORM, 21);
ROLE(WQ_A, 30);
ROLE(Q_NORM, 31);
ROLE(WQ_B, 32);
ROLE(WKV, 33);
ROLE(KV_NORM, 34);
ROLE(ATTN_SINK, 35);
ROLE(WO_A, 36);
ROLE(WO_B, 37);
ROLE(COMP_WKV, 40);
ROLE(COMP_WGATE, 41);
ROLE(COMP_APE, 42);
ROLE(COMP_NORM, 43);
ROLE(INDEX_WQ_B, 50);
ROLE(INDEX_WEIGHTS, 51);
ROLE(INDEX_COMP_WKV, 52);
ROLE(INDEX_COMP_WGATE, 53);
ROLE(INDEX_COMP_APE, 54);
ROLE(INDEX_COMP_NORM, 55);
ROLE(GATE, 60);
ROLE(GATE_BIAS, 61);
ROLE(GATE_TID2EID, 62);
ROLE(EXPERT_W1, 63);
ROLE(EXPERT_W2, 64);
ROLE(EXPERT_W3, 65);
ROLE(SHARED_W1, 66);
ROLE(SHARED_W2, 67);
ROLE(SHARED_W3, 68);
ROLE(E_PROJ, 70);
ROLE(H_PROJ, 71);
ROLE(E_NORM, 72);
ROLE(H_NORM, 73);
