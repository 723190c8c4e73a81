"""Train the default model: one command, one GPU, well under 30 minutes.

    sh train.sh DIR           both stages: config.json, tokenizer.json, model.safetensors and scores.json
"""
import argparse
import json
import os
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F

import bpe
import config
import data
import model as net
import optim
from formats import save_safetensors


def make_tokenizer(path, c, seed=5):
    texts = data.corpus(seed, 4_000_000)
    bpe.write(path, bpe.train(texts, c["vocab_size"] - 259 - len(bpe.LAST)))


def compile_parts(m):
    import torch._dynamo as dy
    for k in ("cache_size_limit", "recompile_limit", "accumulated_cache_size_limit", "accumulated_recompile_limit"):
        if hasattr(dy.config, k): setattr(dy.config, k, 256)
    m.fn = {n: torch.compile(f, dynamic=False) for n, f in m.fn.items()}


class Trainer:
    def __init__(self, c, r, device, compiled, init=None):
        torch.manual_seed(r["seed"])
        self.c, self.r, self.dev = c, r, device
        self.m = net.Model(c, r["seed"])
        if init: load_master(self.m, init)
        self.m.to(device).train()
        if compiled: compile_parts(self.m)
        self.muon, self.adam = optim.build(self.m)
        self.lr = torch.zeros((), device=device)                       # the schedule's factor
        self.acc = torch.zeros(3, device=device)                       # sums of loss, draft loss, indexer loss
        self.static, self.graphs, self.pool, self.graphed = {}, {}, None, False

    def step(self, batch, lr_scale, sparse, qat):
        """One update.  On a GPU a step of each kind is captured once as a graph and replayed: thousands of small kernels."""
        shape = batch[0].shape
        if shape not in self.static: self.static[shape] = [torch.zeros_like(torch.from_numpy(x)).to(self.dev) for x in batch]
        for dst, src in zip(self.static[shape], batch):
            src = torch.from_numpy(src)
            dst.copy_(src.pin_memory() if dst.is_cuda else src, non_blocking=True)
        self.lr.fill_(lr_scale)
        if not self.graphed: return self._step(self.static[shape], sparse, qat)
        key = (shape, sparse, qat)
        if key not in self.graphs:
            g = torch.cuda.CUDAGraph()
            if self.pool is None: self.pool = torch.cuda.graph_pool_handle()
            with torch.cuda.graph(g, pool=self.pool): self._step(self.static[shape], sparse, qat)
            self.graphs[key] = g
        self.graphs[key].replay()

    def _step(self, batch, sparse, qat):
        r, m = self.r, self.m
        ids, wt, start = batch
        ids, start, wt = ids.long(), start.long(), wt.float()
        meta = net.Meta(self.c, start)
        wt = wt * (meta.pos > 0)
        w1 = F.pad(wt[:, 1:], (0, 1))
        w2 = F.pad(wt[:, 2:] * (meta.pos[:, 2:] >= 2), (0, 2))
        num = net.Numerics("qat" if qat else "train", m.fn)
        W = m.weights(num, qat)
        aux = dict(kl=[], load=[], stride=5 if ids.shape[1] < 4096 else 17, offset=2)      # odd strides meet every phase of a window
        h, d = m(ids, meta, num, W, sparse, aux)
        ce = lambda h, s, w: m.fn["cross_entropy"](h.flatten(0, 1), W["head"], F.pad(ids[:, s:], (0, s)).flatten(), w.flatten()) / w.sum().clamp_min(1)
        loss, draft = ce(h, 1, w1), ce(d, 2, w2)
        kl = torch.stack(aux["kl"]).sum() if aux["kl"] else torch.zeros_like(loss)
        (loss + r["mtp_weight"] * draft + r["kl_weight"] * kl).backward()
        torch.nn.utils.clip_grad_norm_([p for g in self.adam.param_groups for p in g["params"]], r["clip"])
        for g in self.adam.param_groups:
            lr = self.lr * (r["lr_adam"] * g["rel"])
            if torch.is_tensor(g["lr"]): g["lr"].copy_(lr)
            else: g["lr"] = float(lr)
        self.muon.step(self.lr * r["lr_muon"], r["weight_decay"])
        self.adam.step()
        with torch.no_grad():
            for b, idx in aux["load"]:
                n = (idx[..., None] == torch.arange(b.shape[0], device=b.device)).sum((0, 1)).float()
                b += r["bias_rate"] * self.lr * torch.sign(n.mean() - n)
            self.acc += torch.stack([loss.detach(), draft.detach(), kl.detach()])
        m.zero_grad(set_to_none=True)

    def forget(self, weights):
        """Back to `weights` and an optimizer that has seen nothing, in place."""
        self.m.load_state_dict(weights)
        for b in self.muon.buf.values(): b.zero_()
        for s in self.adam.state.values():
            for v in s.values():
                if torch.is_tensor(v): v.zero_()
        self.acc.zero_()

    @torch.no_grad()
    def own_loss(self, batch, qat):
        """Mean loss over what the assistant wrote."""
        ids, wt, start = (torch.from_numpy(x).to(self.dev) for x in batch)
        ids, start = ids.long(), start.long()
        keep, self.m.fn = self.m.fn, {n: getattr(net, n) for n in net.COMPILED}        # other shapes: not worth compiling
        num = net.Numerics("qat" if qat else "train", self.m.fn)
        W = self.m.weights(num, qat)
        meta = net.Meta(self.c, start)
        h, _ = self.m(ids, meta, num, W, True, None, mtp=False)
        w = F.pad(((wt >= 1) & (meta.pos > 0))[:, 1:], (0, 1)).flatten()
        hs, tg = h.flatten(0, 1)[w], F.pad(ids[:, 1:], (0, 1)).flatten()[w]
        lg = F.linear(hs, W["head"]).float()
        self.m.fn = keep
        return F.cross_entropy(lg, tg).item(), (lg.argmax(-1) == tg).float().mean().item()


def schedule(f, r):
    if f < r["warmup"]: return max(f / r["warmup"], 0.02)
    if f < r["decay_from"]: return 1.0
    return max((1 - f) / (1 - r["decay_from"]), 0.01)


def save_master(m, path, parts=2):
    """bf16 copies of the training weights, to continue from; split so that each file stays small."""
    st = [(k, v.bfloat16() if v.is_floating_point() else v) for k, v in m.state_dict().items()]
    half = sum(v.numel() for _, v in st) / parts
    out, size = [{}], 0
    for k, v in st:
        if size > half * len(out) and len(out) < parts: out.append({})
        out[-1][k] = (v, "BF16" if v.dtype == torch.bfloat16 else "I64")
        size += v.numel()
    for i, o in enumerate(out): save_safetensors(f"{path}.{i}", o)


def load_master(m, path):
    from formats import load_safetensors
    st, i = {}, 0
    while os.path.exists(f"{path}.{i}"):
        st.update({k: v for k, (v, _) in load_safetensors(f"{path}.{i}").items()})
        i += 1
    m.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in st.items()})


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--out", required=True)
    a.add_argument("--seconds", type=float)
    a.add_argument("--tokenizer", help="use this one instead of learning it")
    a.add_argument("--init", help="continue from saved training weights")
    a.add_argument("--stage", type=int, default=1, choices=[1, 2])
    a.add_argument("--recipe", default="{}", help="JSON of overrides")
    a.add_argument("--shape", default="{}", help="JSON of overrides of the network's shape")
    a.add_argument("--no-compile", action="store_true")
    a.add_argument("--no-graphs", action="store_true")
    a.add_argument("--workers", type=int, default=max(2, (os.cpu_count() or 4) - 3))
    a.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    a.add_argument("--save-master", action="store_true")
    a.add_argument("--eval", default="full", choices=["full", "quick", "none"])
    a.add_argument("--max-steps", type=int, default=10 ** 9)
    a = a.parse_args()
    c, r = dict(config.MODEL, **json.loads(a.shape)), dict(config.RECIPE, **(config.STAGE2 if a.stage == 2 else {}), **json.loads(a.recipe))
    a.seconds = a.seconds or r["seconds"]
    out = Path(a.out)
    out.mkdir(parents=True, exist_ok=True)
    t0 = time.time()
    tp = str(out / "tokenizer.json")
    if a.tokenizer: Path(tp).write_bytes(Path(a.tokenizer).read_bytes())
    else: make_tokenizer(tp, c)
    nl = max(1, a.workers // 4)
    short = data.Loader(tp, r["seed"], r["short_len"], r["short_rows"], False, a.workers - nl, a.stage, part=max(1, r["short_rows"] // 7))
    long = data.Loader(tp, r["seed"] + 1, r["long_len"], r["long_rows"], True, nl, a.stage, part=1)
    held = next_held(tp, r)
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    if a.device == "cpu": net.DT["train"] = net.DT["qat"] = torch.float32          # bf16 is slow there
    tr = Trainer(c, r, a.device, not a.no_compile, a.init)
    print(f"ready after {time.time() - t0:.1f}s, {sum(p.numel() for p in tr.m.parameters()) / 1e6:.2f}M parameters", flush=True)
    # visit every shape and phase before the clock starts, so that compilation is not on it
    if not a.no_compile:
        keep = {k: v.clone() for k, v in tr.m.state_dict().items()}
        side = torch.cuda.Stream()
        for b in (short.next(), long.next()):
            for sp, q in ((False, False), (True, False), (True, True)):
                t = time.time()
                side.wait_stream(torch.cuda.current_stream())
                with torch.cuda.stream(side): tr.step(b, 0.0, sp, q)
                torch.cuda.synchronize()
                print(f"warm {tuple(b[0].shape)} sparse={sp} qat={q} {time.time() - t:.1f}s", flush=True)
        tr.graphed = not a.no_graphs
        tr.forget(keep)
        torch.cuda.empty_cache()
    t1, n, seen, mark = time.time(), 0, 0, time.time()
    credit, since = 0.0, 0
    while n < a.max_steps:
        f = (time.time() - t1) / a.seconds
        if f >= 1: break
        credit += r["long_share"] if f >= r["long_from"] else 0.0
        if credit >= 1: b, credit = long.next(), credit - 1
        else: b = short.next()
        tr.step(b, schedule(f, r), f >= r["sparse_from"], f >= r["qat_from"])
        n, since, seen = n + 1, since + 1, seen + b[0].size
        if n % 20 == 0 and a.device == "cuda": torch.cuda.synchronize()        # keeps the clock honest
        if n % (200 if a.device == "cuda" else 5) == 0 or n == a.max_steps:
            v = (tr.acc / since).tolist()
            tr.acc.zero_()
            print(f"{n} {time.time() - t1:.0f}s f={f:.3f} loss {v[0]:.4f} draft {v[1]:.4f} kl {v[2]:.4f} tok/s {seen / (time.time() - mark):.0f} queues {short.q.qsize()}/{long.q.qsize()}", flush=True)
            mark, seen, since = time.time(), 0, 0
            if n % 1000 == 0 and a.device == "cuda":
                tr.m.eval()
                print(f"   held-out: short {tr.own_loss(held[0], f >= r['qat_from'])} long {tr.own_loss(held[1], f >= r['qat_from'])}", flush=True)
                tr.m.train()
    short.close()
    long.close()
    print(f"trained {n} steps in {time.time() - t1:.1f}s, {time.time() - t0:.1f}s in all", flush=True)
    tr.m.eval()
    save_safetensors(out / "model.safetensors", net.export(tr.m))
    (out / "config.json").write_text(json.dumps(c, indent=1) + "\n")
    if a.save_master: save_master(tr.m, str(out / "master"))
    if a.eval != "none":
        import evaluate
        torch.backends.cuda.matmul.allow_tf32 = False
        m, tok = evaluate.load(out, a.device)
        res = evaluate.full(m, tok, a.eval, True, show=3)
        (out / "scores.json").write_text(json.dumps(res, indent=1) + "\n")
    print(f"done after {time.time() - t0:.1f}s", flush=True)


def next_held(tp, r):
    """Two fixed batches from other seeds, small."""
    tok = bpe.Tokenizer(tp)
    import numpy as np
    a, b = data.rows(tok, 990001, r["short_len"], False), data.rows(tok, 990002, r["long_len"], True)
    st = lambda it, n: tuple(np.stack(x) for x in zip(*[next(it) for _ in range(n)]))
    return st(a, min(12, r["short_rows"])), st(b, min(2, r["long_rows"]))


if __name__ == "__main__":
    sys.exit(main())
