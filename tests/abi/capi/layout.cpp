// The layouts and numbers of dsv4.h, frozen. Fields are only ever appended and struct_size tells: a number that is here
// never changes; what is new is added, in a new version.
#include "dsv4/dsv4.h"

#define AT(type, field, offset) static_assert(offsetof(type, field) == (offset), #type "." #field " has moved")
#define SIZE(type, size) static_assert(sizeof(type) == (size), #type " has another size: append here what was appended")
#define VALUE(name, value) static_assert((name) == (value), #name " has another value")

#if defined(__LP64__) || defined(_WIN64)

AT(dsv4_str, data, 0);
AT(dsv4_str, size, 8);
SIZE(dsv4_str, 16);

AT(dsv4_error, struct_size, 0);
AT(dsv4_error, status, 4);
AT(dsv4_error, native_code, 8);
AT(dsv4_error, reserved, 12);
AT(dsv4_error, message, 16);
SIZE(dsv4_error, 256);

AT(dsv4_runtime_options, struct_size, 0);
AT(dsv4_runtime_options, flags, 4);
AT(dsv4_runtime_options, plugin_dir, 8);
AT(dsv4_runtime_options, log, 24);
AT(dsv4_runtime_options, log_user_data, 32);
AT(dsv4_runtime_options, log_release, 40);
SIZE(dsv4_runtime_options, 48);

AT(dsv4_model_options, struct_size, 0);
AT(dsv4_model_options, flags, 4);
AT(dsv4_model_options, backend, 8);
AT(dsv4_model_options, device, 24);
AT(dsv4_model_options, numerics, 28);
AT(dsv4_model_options, threads, 32);
AT(dsv4_model_options, max_sessions, 36);
AT(dsv4_model_options, max_batch_tokens, 40);
AT(dsv4_model_options, reserved, 44);
AT(dsv4_model_options, cache_tokens, 48);
AT(dsv4_model_options, progress, 56);
AT(dsv4_model_options, progress_user_data, 64);
AT(dsv4_model_options, expert_budget, 72);
SIZE(dsv4_model_options, 80);

AT(dsv4_model_info, struct_size, 0);
AT(dsv4_model_info, vocab_size, 4);
AT(dsv4_model_info, layers, 8);
AT(dsv4_model_info, hidden_size, 12);
AT(dsv4_model_info, max_context, 16);
AT(dsv4_model_info, max_sessions, 20);
AT(dsv4_model_info, bos, 24);
AT(dsv4_model_info, eos, 28);
AT(dsv4_model_info, draft_blocks, 32);
AT(dsv4_model_info, numerics, 36);
AT(dsv4_model_info, weight_bytes, 40);
AT(dsv4_model_info, decode_bytes, 48);
AT(dsv4_model_info, cache_bytes, 56);
AT(dsv4_model_info, backend, 64);
AT(dsv4_model_info, device, 80);
AT(dsv4_model_info, variant, 96);
AT(dsv4_model_info, expert_hits, 112);
AT(dsv4_model_info, expert_ahead, 120);
AT(dsv4_model_info, expert_misses, 128);
AT(dsv4_model_info, expert_bytes_read, 136);
AT(dsv4_model_info, expert_wait_ns, 144);
SIZE(dsv4_model_info, 152);

AT(dsv4_plan_options, struct_size, 0);
AT(dsv4_plan_options, sessions, 4);
AT(dsv4_plan_options, context_tokens, 8);
AT(dsv4_plan_options, backend, 16);
SIZE(dsv4_plan_options, 32);

AT(dsv4_session_options, struct_size, 0);
AT(dsv4_session_options, context_tokens, 4);
AT(dsv4_session_options, prefill_chunk, 8);
AT(dsv4_session_options, reserved, 12);
SIZE(dsv4_session_options, 16);

AT(dsv4_evaluate_options, struct_size, 0);
AT(dsv4_evaluate_options, flags, 4);
AT(dsv4_evaluate_options, positions, 8);
AT(dsv4_evaluate_options, position_count, 16);
SIZE(dsv4_evaluate_options, 24);

AT(dsv4_prompt_options, struct_size, 0);
AT(dsv4_prompt_options, flags, 4);
AT(dsv4_prompt_options, reasoning_effort, 8);
AT(dsv4_prompt_options, dialect, 24);
SIZE(dsv4_prompt_options, 40);

AT(dsv4_logit_bias, token, 0);
AT(dsv4_logit_bias, bias, 4);
SIZE(dsv4_logit_bias, 8);

AT(dsv4_generate_options, struct_size, 0);
AT(dsv4_generate_options, flags, 4);
AT(dsv4_generate_options, ids, 8);
AT(dsv4_generate_options, id_count, 16);
AT(dsv4_generate_options, prompt, 24);
AT(dsv4_generate_options, text, 32);
AT(dsv4_generate_options, max_tokens, 48);
AT(dsv4_generate_options, temperature, 52);
AT(dsv4_generate_options, top_p, 56);
AT(dsv4_generate_options, min_p, 60);
AT(dsv4_generate_options, top_k, 64);
AT(dsv4_generate_options, reserved, 68);
AT(dsv4_generate_options, seed, 72);
AT(dsv4_generate_options, logit_bias, 80);
AT(dsv4_generate_options, logit_bias_count, 88);
AT(dsv4_generate_options, stop_ids, 96);
AT(dsv4_generate_options, stop_id_count, 104);
AT(dsv4_generate_options, stop_strings, 112);
AT(dsv4_generate_options, stop_string_count, 120);
AT(dsv4_generate_options, tool_choice, 128);
AT(dsv4_generate_options, thinking_budget, 132);
AT(dsv4_generate_options, tool_name, 136);
SIZE(dsv4_generate_options, 152);

AT(dsv4_event, struct_size, 0);
AT(dsv4_event, kind, 4);
AT(dsv4_event, token, 8);
AT(dsv4_event, finish, 12);
AT(dsv4_event, prompt_tokens, 16);
AT(dsv4_event, cached_tokens, 20);
AT(dsv4_event, prefilled_tokens, 24);
AT(dsv4_event, output_tokens, 28);
AT(dsv4_event, seed, 32);
AT(dsv4_event, prefill_ns, 40);
AT(dsv4_event, decode_ns, 48);
AT(dsv4_event, text, 56);
AT(dsv4_event, tool_id, 72);
AT(dsv4_event, tool_name, 88);
AT(dsv4_event, call, 104);
AT(dsv4_event, complete, 108);
AT(dsv4_event, flags, 112);
AT(dsv4_event, reserved, 116);
SIZE(dsv4_event, 120);

#endif

VALUE(DSV4_OK, 0);
VALUE(DSV4_END, 1);
VALUE(DSV4_PENDING, 2);
VALUE(DSV4_E_INVALID, -1);
VALUE(DSV4_E_CANCELLED, -2);
VALUE(DSV4_E_NO_MEMORY, -3);
VALUE(DSV4_E_CONTEXT, -4);
VALUE(DSV4_E_MODEL, -5);
VALUE(DSV4_E_UNSUPPORTED, -6);
VALUE(DSV4_E_DEVICE, -7);
VALUE(DSV4_E_INTERNAL, -8);

VALUE(DSV4_LOG_ERROR, 0);
VALUE(DSV4_LOG_WARNING, 1);
VALUE(DSV4_LOG_INFO, 2);

VALUE(DSV4_NUMERICS_DEFAULT, 0);
VALUE(DSV4_NUMERICS_EXACT, 1);
VALUE(DSV4_NUMERICS_OFFICIAL, 2);
VALUE(DSV4_NUMERICS_NATIVE, 3);

VALUE(DSV4_MODEL_DRAFTS, 1);
VALUE(DSV4_MODEL_PIN_THREADS, 2);

VALUE(DSV4_LOGITS_NEXT, 1);
VALUE(DSV4_LOGITS_DRAFT, 2);

VALUE(DSV4_EVALUATE_ALL, 1);
VALUE(DSV4_EVALUATE_DRAFTS, 2);

VALUE(DSV4_ENCODE_ORDINARY, 1);

VALUE(DSV4_PROMPT_THINKING, 1);
VALUE(DSV4_PROMPT_KEEP_THINKING, 2);
VALUE(DSV4_PROMPT_NO_BOS, 4);
VALUE(DSV4_PROMPT_UNTRUSTED, 8);

VALUE(DSV4_PARSE_THINKING, 1);
VALUE(DSV4_PARSE_LENIENT, 2);

VALUE(DSV4_GENERATE_CONTINUE, 1);
VALUE(DSV4_GENERATE_IGNORE_EOS, 2);
VALUE(DSV4_GENERATE_TOKENS, 4);
VALUE(DSV4_GENERATE_FREE, 8);

VALUE(DSV4_TOOLS_AUTO, 0);
VALUE(DSV4_TOOLS_NONE, 1);
VALUE(DSV4_TOOLS_REQUIRED, 2);
VALUE(DSV4_TOOLS_NAMED, 3);

VALUE(DSV4_EVENT_TOKEN, 1);
VALUE(DSV4_EVENT_PREFILL, 2);
VALUE(DSV4_EVENT_DONE, 3);
VALUE(DSV4_EVENT_TEXT, 4);
VALUE(DSV4_EVENT_REASONING, 5);
VALUE(DSV4_EVENT_TOOL_BEGIN, 6);
VALUE(DSV4_EVENT_TOOL_ARGUMENTS, 7);
VALUE(DSV4_EVENT_TOOL_END, 8);

VALUE(DSV4_FINISH_STOP, 1);
VALUE(DSV4_FINISH_LENGTH, 2);
VALUE(DSV4_FINISH_TOOLS, 4);
VALUE(DSV4_FINISH_CONTEXT, 3);

static_assert(sizeof(dsv4_status) == 4, "dsv4_status is an int32_t");
