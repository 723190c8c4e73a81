#!/usr/bin/env python3
"""Random shapes against the oracle, in `exact` numerics: logits and drafts at every position the oracle keeps.

    tests/golden/sweep.py --dsv4 build/bin/dsv4 [--count 20] [--seed 1]

Needs the oracle and torch; prints one line for each shape and ends with an error when one is off by more than 1e-3.
Top-k choices are discontinuous: a draw whose smallest margin is under 1e-5 says nothing about a row that differs, and is
drawn again.
"""
import argparse
import array
import json
import math
import random
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import vectors


def shape(r):
    """A preset and overrides: a valid model, however odd."""
    preset = r.choice(["tiny-flash", "tiny-pro", "tiny-base", "tiny-bf16"])
    quantised = preset != "tiny-bf16"
    size = lambda *q: r.choice(q)  # noqa: E731
    layers = r.randint(1, 4)
    heads = size(2, 4, 8)
    rope = size(16, 32, 64)
    experts = r.randint(2, 6)
    ratios = [r.choice([0, 4, 4, 128, 8, 32]) for _ in range(layers)]
    c = dict(
        vocab_size=r.randint(64, 520), num_hidden_layers=layers, compress_ratios=ratios + [0],
        num_hash_layers=r.randint(0, layers), num_attention_heads=heads, qk_rope_head_dim=rope,
        head_dim=rope + size(64, 128, 192), o_groups=size(*[g for g in (1, 2, 4, 8) if heads % g == 0]),
        sliding_window=size(1, 3, 5, 16, 33, 128, 300), index_n_heads=size(8, 16, 24), index_head_dim=size(64, 128),
        index_topk=size(1, 4, 7, 12, 200), n_routed_experts=experts, num_experts_per_tok=r.randint(1, experts),
        routed_scaling_factor=size(0.7, 1.0, 2.5), hc_mult=size(1, 2, 3, 4, 6), hc_sinkhorn_iters=size(1, 3, 7, 20),
        rms_norm_eps=size(1e-20, 1e-6, 1e-5), hc_eps=size(1e-6, 1e-4, 1e-2), swiglu_limit=size(0.0, 0.3, 1.5, 10.0),
        rope_theta=size(500, 10000), compress_rope_theta=size(20000, 160000),
        rope_scaling=r.choice([None, dict(type="yarn", factor=size(2, 16, 40), beta_fast=size(8, 32),
                                          beta_slow=size(1, 2), original_max_position_embeddings=size(64, 512, 65536))]))
    if quantised:  # blocks of 128 inputs
        c.update(hidden_size=size(128, 256, 384), q_lora_rank=size(128, 256), moe_intermediate_size=size(128, 256),
                 o_lora_rank=128 // math.gcd(128, c["o_groups"]) * size(1, 2))
    else:
        c.update(hidden_size=size(48, 96, 200), q_lora_rank=size(24, 100), moe_intermediate_size=size(20, 72),
                 o_lora_rank=size(8, 30))
    return preset, c


def floats(tensor):
    return array.array("f", tensor[2])


def worst(got, at, want, rows):
    columns = want[1][1]
    g, w, out = floats(got), floats(want), 0.0
    for i, p in enumerate(at):
        if i >= rows:
            break
        a, b = g[p * columns:(p + 1) * columns], w[i * columns:(i + 1) * columns]
        d = math.sqrt(sum((x - y) ** 2 for x, y in zip(a, b)) / sum(y * y for y in b))
        if not d <= out:  # NaN too
            out = d
    return out


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--dsv4", required=True)
    a.add_argument("--count", type=int, default=20)
    a.add_argument("--seed", type=int, default=1)
    a = a.parse_args()
    r, done, bad, overall = random.Random(a.seed), 0, 0, 0.0
    if not vectors.ORACLE.exists():
        sys.exit(f"SKIPPED: no oracle at {vectors.ORACLE}")
    while done < a.count:
        preset, overrides = shape(r)
        seed, tokens = r.randrange(1 << 20), r.choice([20, 70, 150, 270])
        with tempfile.TemporaryDirectory() as folder:
            log = vectors.make_checkpoint(preset, folder, seed, tokens, overrides, new=1)
            smallest = min([float(m) for m in re.findall(r"margin': ([0-9.e-]+|inf)", log)] or [math.inf])
            if smallest < 1e-5:
                continue
            v = vectors.read(Path(folder) / "vectors.safetensors")
            ids = Path(folder) / "ids"
            ids.write_text(" ".join(map(str, array.array("i", v["prompt"][2]))))
            out = Path(folder) / "out"
            chunk = r.choice([0, 1, 7, 64])
            run = subprocess.run([a.dsv4, "logits", "--model", folder, "--backend", "reference", "--numerics", "exact",
                                  "--draft", "--tokens", str(ids), "--out", str(out), "--chunk", str(chunk), "--quiet"],
                                 stderr=subprocess.PIPE, text=True)
            if run.returncode:
                print("FAILED", preset, json.dumps(overrides), run.stderr)
                bad, done = bad + 1, done + 1
                continue
            got = vectors.read(out)
            e = [worst(got[n], array.array("i", v[p][2]), v[n + "_exact"], 10**9)
                 for n, p in (("logits", "positions"), ("draft_logits", "draft_positions"))]
        done += 1
        overall = max(overall, *e)
        ok = max(e) < 1e-3
        bad += not ok
        print(f"{'ok    ' if ok else 'WRONG '} logits {e[0]:.1e} drafts {e[1]:.1e}  {preset} T={tokens} chunk={chunk} "
              f"ratios={overrides['compress_ratios'][:-1]} D={overrides['hidden_size']} d={overrides['head_dim']} "
              f"M={overrides['hc_mult']} margin {smallest:.0e}" + ("" if ok else f"  seed={seed} {json.dumps(overrides)}"),
              flush=True)
    print(f"{done} shapes, {bad} wrong, worst {overall:.1e}")
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
