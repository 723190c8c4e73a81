"""Scores of a checkpoint on the evaluation set.

    python3 evaluate.py [MODEL_DIR] [--set full|quick] [--device cpu|cuda] [--ablate] [--json OUT]

A greedy completion equals the gold one exactly when every argmax along the gold text does, which one forward pass shows for all
tokens at once; only where the model leaves that path is it left to write freely, with the tools really answering.
"""
import argparse
import json
import time
from collections import Counter
from pathlib import Path

import torch
import torch.nn.functional as F

import encoding
import evalset
from bpe import Tokenizer
from formats import load_safetensors
from model import CHUNK, Meta, Model, Numerics, load_into
from play import play, rate

HERE = Path(__file__).resolve().parent


def load(path, device="cpu"):
    c = json.loads((Path(path) / "config.json").read_text())
    m = load_into(Model(c), load_safetensors(Path(path) / "model.safetensors")).to(device).eval()
    return m, Tokenizer(str(Path(path) / "tokenizer.json"))


class Runner:
    """A checkpoint ready to score rows of tokens and to write greedily."""

    def __init__(self, model, tok, kind="exact", max_tokens=36864):
        self.m, self.tok, self.num = model, tok, Numerics(kind, model.fn)
        self.dev, self.room = model.embed.device, max_tokens
        with torch.no_grad(): self.W = model.weights(self.num, True)

    def _batches(self, rows):
        """Indices grouped by padded length, at most `room` tokens together."""
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        b, t = [], 0
        for i in order:
            n = -(-len(rows[i]) // CHUNK) * CHUNK
            if b and (len(b) + 1) * n > self.room:
                yield b, t
                b = []
            b.append(i)
            t = n
        if b: yield b, t

    @torch.no_grad()
    def hidden(self, rows, t, mtp=False):
        ids = torch.full((len(rows), t), 2, dtype=torch.long)
        for j, r in enumerate(rows): ids[j, :len(r)] = torch.tensor(r)
        ids = ids.to(self.dev)
        return ids, *self.m(ids, Meta(self.m.c, torch.zeros_like(ids)), self.num, self.W, mtp=mtp)

    @torch.no_grad()
    def score(self, rows, masks, keep_logits=False):
        """rows of ids; masks: which are the assistant's.  Per row: right [n] bool, nll [n], drafts agreeing [n] bool, top [n]."""
        out = [None] * len(rows)
        for b, t in self._batches(rows):
            ids, h, d = self.hidden([rows[i] for i in b], t, mtp=True)
            for j, i in enumerate(b):
                n = len(rows[i])
                pos = torch.tensor([p for p in range(1, n) if masks[i][p]], device=self.dev)
                lg = F.linear(h[j, pos - 1].float(), self.W["head"].float())
                top = lg.argmax(-1)
                nll = F.cross_entropy(lg, ids[j, pos], reduction="none")
                ok = pos >= 2
                dr = F.linear(d[j, (pos - 2).clamp_min(0)].float(), self.W["head"].float()).argmax(-1)
                out[i] = dict(right=(top == ids[j, pos]).cpu(), nll=nll.cpu(), draft=(dr == top)[ok].cpu(), top=top.cpu(), pos=pos.cpu())
        return out

    @torch.no_grad()
    def write(self, prompts, limit=240):
        """Greedy completions (texts, EOS included when reached), all prompts side by side."""
        rows = [self.tok.encode(p) for p in prompts]
        start = [len(r) for r in rows]
        live = set(range(len(rows)))
        for _ in range(limit):
            if not live: break
            for b, t in self._batches([rows[i] for i in sorted(live)]):
                idx = [sorted(live)[k] for k in b]
                _, h, _ = self.hidden([rows[i] for i in idx], t)
                last = h[torch.arange(len(idx)), torch.tensor([len(rows[i]) - 1 for i in idx])]
                for i, v in zip(idx, F.linear(last.float(), self.W["head"].float()).argmax(-1).tolist()): rows[i].append(v)
            live = {i for i in live if rows[i][-1] != 1}
        return [self.tok.decode(r[s:]) for r, s in zip(rows, start)]


def gold_row(tok, item):
    ids, mask, buf = [], [], ""
    for s, mine in encoding.encode(dict(item["request"], messages=item["request"]["messages"] + item["gold"]), spans=True):
        if not mine:
            buf += s
            continue
        a, b = tok.encode(buf), tok.encode(s)
        ids += a + b
        mask += [False] * len(a) + [True] * len(b)
        buf = ""
    return ids, mask


def verdicts(run, items, stats, show=0, seconds=60):
    """stats gathers token figures; returns one verdict per item: those of greedy writing, or failure once `seconds` are spent."""
    rows = [gold_row(run.tok, x) for x in items]
    sc = run.score([r for r, _ in rows], [m for _, m in rows])
    out, off = [None] * len(items), []
    for i, s in enumerate(sc):
        stats["nll"] += float(s["nll"].sum())
        stats["tokens"] += len(s["nll"])
        stats["drafts"] += len(s["draft"])
        stats["accepted"] += int(s["draft"].sum())
        if bool(s["right"].all()): out[i] = dict(malformed=False, calls=True, answer=True)
        else: off.append(i)
    if off:
        write = lambda qs: run.write([encoding.encode(q) for q in qs])
        for i, v in zip(off, play(write, [items[i] for i in off], seconds=seconds)): out[i] = v
    bad = [(items[i], out[i]) for i in range(len(items)) if not (out[i]["answer"] and out[i]["calls"])]
    for x, v in bad[:show]:
        print("  MISS", x["id"], "| gold", (encoding.calls_block(x["gold"][0]["tool_calls"]) if x["gold"][0].get("tool_calls") else "")[-300:], x["gold"][-1]["content"], "| said", v)
    return out


def scores(run, which, show=0):
    res, every, stats = {}, [], Counter()
    for g, n in evalset.SETS[which].items():
        t0, st = time.time(), Counter()
        its = list(evalset.items(g, n))
        vs = verdicts(run, its, st, show)
        stats.update(st)
        r = res[g] = {"n": n, "answer": rate(vs, "answer"), "loss": st["nll"] / st["tokens"], "accept": st["accepted"] / st["drafts"]}
        if g in ("single", "multi"):
            r["calls"], r["malformed"] = rate(vs, "calls"), rate(vs, "malformed")
            every += vs
        print(g, json.dumps(r), f"{time.time() - t0:.1f}s", flush=True)
    res["mtp_accept"] = stats["accepted"] / stats["drafts"]
    if every: res["malformed"] = rate(every, "malformed")
    return res


def compare(model, tok, items):
    """exact against official on the same texts: perplexities, share of equal argmax."""
    rows = [gold_row(tok, x) for x in items]
    a, b = (Runner(model, tok, k).score([r for r, _ in rows], [m for _, m in rows]) for k in ("exact", "official"))
    cat = lambda s, k: torch.cat([x[k] for x in s])
    pa, pb = cat(a, "nll").mean().exp().item(), cat(b, "nll").mean().exp().item()
    return {"tokens": len(cat(a, "nll")), "ppl_exact": pa, "ppl_official": pb, "ratio": pb / pa,
            "top1_equal": (cat(a, "top") == cat(b, "top")).float().mean().item()}


def whole_text(model, tok, items):
    """The same comparison over every token of the texts (prompts too), where the loss is not near zero."""
    rows = [gold_row(tok, x)[0] for x in items]
    masks = [[True] * len(r) for r in rows]
    a, b = (Runner(model, tok, k).score(rows, masks) for k in ("exact", "official"))
    cat = lambda s, k: torch.cat([x[k] for x in s])
    pa, pb = cat(a, "nll").mean().exp().item(), cat(b, "nll").mean().exp().item()
    return {"tokens": len(cat(a, "nll")), "ppl_exact": pa, "ppl_official": pb, "ratio": pb / pa,
            "top1_equal": (cat(a, "top") == cat(b, "top")).float().mean().item()}


def ablations(run, n=30):
    """The same questions with one part of the network taken out."""
    res = {}
    sets = {"single": n, "needle1k": n, "needle4k": n, "needle8k": n, "whole": n}
    for cut in ((), ("hca",), ("random_topk",), ("window",)):
        run.m.ablate = set(cut)
        r = res["+".join(cut) or "whole network"] = {}
        for g, k in sets.items():
            rows = [gold_row(run.tok, x) for x in evalset.items(g, k)]
            sc = run.score([a for a, _ in rows], [b for _, b in rows])
            r[g] = {"exact_match": sum(bool(s["right"].all()) for s in sc) / k, "loss": (sum(s["nll"].sum() for s in sc) / sum(len(s["nll"]) for s in sc)).item()}
        print("ablation", "+".join(cut) or "none", json.dumps(r), flush=True)
    run.m.ablate = set()
    return res


def main():
    a = argparse.ArgumentParser()
    a.add_argument("model", nargs="?", default=str(HERE.parent))
    a.add_argument("--set", default="quick", choices=evalset.SETS)
    a.add_argument("--device", default="cpu")
    a.add_argument("--ablate", action="store_true")
    a.add_argument("--show", type=int, default=0)
    a.add_argument("--json")
    a = a.parse_args()
    m, tok = load(a.model, a.device)
    res = full(m, tok, a.set, a.ablate, a.show)
    if a.json: Path(a.json).write_text(json.dumps(res, indent=1) + "\n")


def full(m, tok, which, ablate, show=0):
    run = Runner(m, tok)
    res = scores(run, which, show)
    its = [x for g in ("single", "multi", "chat") for x in evalset.items(g, 8 if which == "quick" else 60)]
    res["exact_vs_official"] = compare(m, tok, its)
    print("exact_vs_official", json.dumps(res["exact_vs_official"]), flush=True)
    res["exact_vs_official_all_tokens"] = whole_text(m, tok, its)
    print("exact_vs_official_all_tokens", json.dumps(res["exact_vs_official_all_tokens"]), flush=True)
    if ablate: res["ablations"] = ablations(run)
    print(json.dumps({k: v for k, v in res.items() if not isinstance(v, dict)}), flush=True)
    return res


if __name__ == "__main__": main()
