#!/usr/bin/env python3
"""Makes tests/golden/fixtures again: three small checkpoints of odd shapes with what the oracle computes on them.

    tests/golden/make_fixtures.py [NAME ...]

Between them: quantised to FP4 + FP8, to FP8 alone, and not at all; layers without entries, with 4 and with 128 tokens
to an entry; routing by token id and by score; head_dim, windows, groups, streams, Sinkhorn steps, eps, limits, rope and
YaRN constants that no published checkpoint has.
"""
import sys

import vectors

FIXTURES = {
    # window shorter than two entries, no YaRN, one expert, top-k larger than the number of entries, tight clamp
    "narrow": ("tiny-base", 11, 70, dict(
        vocab_size=131, hidden_size=128, num_hidden_layers=2, compress_ratios=[0, 4, 0], num_hash_layers=1,
        num_attention_heads=2, head_dim=192, q_lora_rank=128, o_groups=1, o_lora_rank=128, sliding_window=5,
        index_n_heads=8, index_topk=40, n_routed_experts=3, num_experts_per_tok=1, hc_mult=2, hc_eps=1e-4,
        hc_sinkhorn_iters=3, rms_norm_eps=1e-20, rope_scaling=None, swiglu_limit=1.5)),
    # a hidden size that is no power of two, a group per head, no clamp, another YaRN
    "wide": ("tiny-flash", 12, 80, dict(
        vocab_size=129, hidden_size=384, num_hidden_layers=1, compress_ratios=[4, 0], num_hash_layers=0,
        num_attention_heads=8, head_dim=96, qk_rope_head_dim=32, q_lora_rank=128, o_groups=8, o_lora_rank=16,
        sliding_window=33, index_n_heads=8, index_head_dim=64, index_topk=7, n_routed_experts=3,
        num_experts_per_tok=2, hc_mult=2, hc_sinkhorn_iters=7, rms_norm_eps=1e-5,
        rope_scaling=dict(type="yarn", factor=4, beta_fast=16, beta_slow=2, original_max_position_embeddings=512),
        compress_rope_theta=20000, swiglu_limit=0.0)),
    # sizes that are no multiple of anything, three streams, one Sinkhorn step, a layer of 128 tokens to an entry
    "plain": ("tiny-bf16", 13, 150, dict(
        vocab_size=160, hidden_size=96, num_hidden_layers=3, compress_ratios=[128, 4, 4, 0], num_hash_layers=0,
        num_attention_heads=2, head_dim=80, qk_rope_head_dim=16, q_lora_rank=48, o_groups=2, o_lora_rank=24,
        sliding_window=9, index_n_heads=12, index_head_dim=32, index_topk=5, n_routed_experts=5,
        num_experts_per_tok=3, moe_intermediate_size=40, hc_mult=3, hc_sinkhorn_iters=1, hc_eps=1e-3,
        routed_scaling_factor=0.7,
        rope_scaling=dict(type="yarn", factor=40, beta_fast=8, beta_slow=1, original_max_position_embeddings=64))),
}

# What the tests compare; the rest of what the oracle writes stays out of the repository.
KEPT = ("prompt", "positions", "logits_exact", "draft_positions", "draft_logits_exact", "greedy_exact",
        "greedy_exact_margin", "streams.")
KEPT_TAPS = (".experts", ".selected", ".margin")


def main():
    for name in sys.argv[1:] or FIXTURES:
        preset, seed, tokens, overrides = FIXTURES[name]
        folder = vectors.HERE / "fixtures" / name
        print(name, vectors.make_checkpoint(preset, folder, seed, tokens, overrides), sep="\n")
        kept = {n: t for n, t in vectors.read(folder / "vectors.safetensors").items()
                if n.startswith(KEPT) or (n.startswith("tap.") and n.endswith(KEPT_TAPS))}
        vectors.write(folder / "vectors.safetensors", kept)


if __name__ == "__main__":
    main()
