"""The network's shape (it becomes config.json) and the recipe."""

MODEL = dict(
    architectures=["DeepseekV4ForCausalLM"], model_type="deepseek_v4", torch_dtype="bfloat16",
    bos_token_id=0, eos_token_id=1, attention_bias=False, attention_dropout=0.0, hidden_act="silu",
    initializer_range=0.02, rms_norm_eps=1e-6, use_cache=True, tie_word_embeddings=False,
    vocab_size=2560, hidden_size=256, num_hidden_layers=7, compress_ratios=[0, 0, 4, 128, 4, 128, 4, 0], num_hash_layers=2,
    num_attention_heads=8, num_key_value_heads=1, head_dim=128, qk_rope_head_dim=64, q_lora_rank=128,
    o_groups=4, o_lora_rank=128, sliding_window=128, index_n_heads=8, index_head_dim=128, index_topk=16,
    n_routed_experts=8, n_shared_experts=1, num_experts_per_tok=2, moe_intermediate_size=128,
    norm_topk_prob=True, scoring_func="sqrtsoftplus", topk_method="noaux_tc", routed_scaling_factor=1.5, swiglu_limit=10.0,
    expert_dtype="fp4", hc_mult=4, hc_eps=1e-6, hc_sinkhorn_iters=20,
    max_position_embeddings=1048576, rope_theta=10000, compress_rope_theta=160000,
    rope_scaling=dict(type="yarn", factor=16, beta_fast=32, beta_slow=1, original_max_position_embeddings=65536),
    quantization_config=dict(activation_scheme="dynamic", fmt="e4m3", quant_method="fp8", scale_fmt="ue8m0",
                             weight_block_size=[128, 128]),
    num_nextn_predict_layers=1)

# Rows of both kinds hold the same number of tokens per step: 42 x 1536 = 7 x 9216.
RECIPE = dict(
    seed=1, short_len=1536, short_rows=42, long_len=9216, long_rows=7,
    seconds=395,                 # training time; the schedule follows the clock so that a slower card still finishes
    warmup=0.02, decay_from=0.55,
    long_from=0.08, long_share=0.25,
    # Before that CSA layers attend to every entry while the indexer learns to follow. Short: as long as CSA sees everything, 32
    # times finer than HCA, HCA has nothing to add and learns to say nothing.
    sparse_from=0.2,
    qat_from=0.72,               # FP4 / FP8 weights, FP8 activations and cache rows, FP4 indexer
    lr_muon=6e-3, lr_adam=3e-3, weight_decay=0.02, mtp_weight=0.3, kl_weight=0.5, bias_rate=2e-3, clip=1.0)

# A shorter second stage from the first one's weights: votes too, freer phrasing, everything sparse and quantised.
STAGE2 = dict(seed=2, seconds=345, warmup=0.04, decay_from=0.35, long_from=0.0, long_share=0.35, sparse_from=0.0, qat_from=0.3, lr_muon=4e-3, lr_adam=2e-3)
