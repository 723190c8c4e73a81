"""The trained network: DeepSeek-V4 at a small size, for many packed conversations at once.

B rows of T tokens (T a multiple of 128); conversations inside a row start at multiples of 128, so that no
compression window straddles two of them and a conversation sees exactly what it would see alone at position 0.
D hidden, H heads, d head_dim, R rope dims, M streams, E experts of width I.

Numerics:  train     bf16 operators, float32 where the model asks for it
           qat       the same with FP8 / FP4 roundings of weights, activations, cache rows, straight-through
           exact     float32 on the quantised weights, nothing else rounded
           official  float32 arithmetic with every rounding of the released code
"""
import math

import torch
import torch.nn.functional as F
from torch import nn

from formats import (decode_weight, encode_fp4_weight, encode_fp8_weight, fake_fp4, fake_fp8, quant_fp4_rows,  # fake_*: in COMPILED
                     quant_tiles, tile, untile)
from sinkhorn import sinkhorn

CHUNK = 128


DT = {"train": torch.bfloat16, "qat": torch.bfloat16, "exact": torch.float32, "official": torch.float32}


def bf(x, kind):
    """To the operator's working type; `official` rounds to bf16 wherever the released code stores bf16."""
    return x.bfloat16().float() if kind == "official" else x.to(DT[kind])


class Straight(torch.autograd.Function):
    """f forward, identity backward."""

    @staticmethod
    def forward(ctx, x, f, block):
        return f(x, block).to(x.dtype)

    @staticmethod
    def backward(ctx, g):
        return g, None, None


class Numerics:
    def __init__(self, kind, fn):
        self.kind, self.fn = kind, fn
        self.dt = DT[kind]
        self.q = kind in ("qat", "official")

    def bf(self, x):
        return bf(x, self.kind)

    def act(self, x):                                  # into a quantised GEMM
        return Straight.apply(x, self.fn["fake_fp8"], 128) if self.q else x

    def row(self, kv, rope):                           # cache row: FP8 but for the rope dims
        if not self.q:
            return kv
        return torch.cat([Straight.apply(kv[..., :-rope], self.fn["fake_fp8"], 64), kv[..., -rope:]], -1)

    def fp4(self, x):
        return Straight.apply(x, self.fn["fake_fp4"], 32) if self.q else x


def rmsnorm(x, g, eps):
    y = x.float()
    y = y * torch.rsqrt(y.square().mean(-1, keepdim=True) + eps)
    return y if g is None else y * g.float()


def rotate(x, cos, sin):
    """Interleaved pairs of the last R dims; cos, sin broadcast over the middle dims, [..., R/2]."""
    r = 2 * cos.shape[-1]
    a, b = x[..., -r::2].float(), x[..., -r + 1::2].float()
    y = torch.stack([a * cos - b * sin, a * sin + b * cos], -1).flatten(-2)
    return torch.cat([x[..., :-r], y.to(x.dtype)], -1)


def rope_freqs(c, ratio):
    r = c["qk_rope_head_dim"]
    base = c["compress_rope_theta"] if ratio else c["rope_theta"]
    inv = 1.0 / (base ** (torch.arange(0, r, 2, dtype=torch.float32) / r))
    rs = c.get("rope_scaling") or {}
    if ratio and rs.get("original_max_position_embeddings", 0) > 0:
        orig = rs["original_max_position_embeddings"]
        corr = lambda n: r * math.log(orig / (n * 2 * math.pi)) / (2 * math.log(base))
        lo, hi = max(math.floor(corr(rs["beta_fast"])), 0), min(math.ceil(corr(rs["beta_slow"])), r - 1)
        ramp = ((torch.arange(r // 2, dtype=torch.float32) - lo) / ((hi - lo) or 0.001)).clamp(0, 1)
        inv = inv / rs["factor"] * ramp + inv * (1 - ramp)
    return inv


def hadamard_matrix(n):
    h = torch.ones(1, 1)
    while h.shape[0] < n:
        h = torch.cat([torch.cat([h, h], 1), torch.cat([h, -h], 1)], 0)
    return h * n ** -0.5


class Embed(torch.autograd.Function):
    """Lookup whose gradient is a matrix product: no sort, no host round trip."""

    @staticmethod
    def forward(ctx, ids, w):
        ctx.save_for_backward(ids)
        ctx.n = w.shape[0]
        return w[ids]

    @staticmethod
    def backward(ctx, g):
        ids, = ctx.saved_tensors
        hot = (ids[:, None] == torch.arange(ctx.n, device=ids.device)).to(g.dtype)
        return None, hot.T @ g


class Meta:
    """Where each token stands: pos [B, T] within its conversation, start [B, T] row index where that began."""

    freqs = {}

    def __init__(self, c, start):
        b, t = start.shape
        dev = start.device
        ar = torch.arange(t, device=dev)
        self.pos, self.start, self.t = ar - start, start, ar
        self.cos, self.sin = {}, {}
        for r in (0, 1):
            key = (str(dev), r, c["rope_theta"], c["compress_rope_theta"], str(c.get("rope_scaling")))
            if key not in Meta.freqs: Meta.freqs[key] = rope_freqs(c, r).to(dev)
            ang = self.pos.float()[..., None] * Meta.freqs[key]
            self.cos[r], self.sin[r] = ang.cos(), ang.sin()
        i = torch.arange(CHUNK, device=dev)[:, None] + CHUNK
        j = torch.arange(2 * CHUNK, device=dev)[None]
        band = (j <= i) & (j > i - c["sliding_window"])
        first = (self.pos[:, ::CHUNK] == 0)[..., None, None]                   # chunk opens a conversation
        self.window = band & ~(first & (j < CHUNK))                            # [B, nC, 128, 256]

    def entries(self, ratio):
        """lo [B, T], hi [T]: entries lo <= e < hi are visible."""
        return self.start // ratio, (self.t + 1) // ratio


# ---------------------------------------------------------------- pieces worth compiling on their own
def hc_mix(x, fn, base, scale, eps_n, eps):
    """x [N, M, D] -> pre [N, M], post [N, M], the matrix before its normalisations [N, M, M], float32."""
    m = x.shape[-2]
    f = x.flatten(-2).float()
    mix = F.linear(f, fn) * torch.rsqrt(f.square().mean(-1, keepdim=True) + eps_n)
    pre = torch.sigmoid(mix[..., :m] * scale[0] + base[:m]) + eps
    post = 2 * torch.sigmoid(mix[..., m:2 * m] * scale[1] + base[m:2 * m])
    return pre, post, (mix[..., 2 * m:] * scale[2] + base[2 * m:]).unflatten(-1, (m, m)).softmax(-1) + eps


def collapse_norm(x, pre, g, eps, kind):
    y = bf((pre[..., None] * x.float()).sum(-2), kind)
    return bf(rmsnorm(y, g, eps), kind)


def hc_post(y, x, post, cm, kind):
    """out_k = post_k y + sum_j comb[j, k] x_j"""
    xf = x.float()
    m = x.shape[-2]
    out = post[..., None] * y.float()[..., None, :]
    for j in range(m): out = out + cm[..., j, :, None] * xf[..., j, None, :]
    return bf(out, kind)


def norm(x, g, eps, kind):
    return bf(rmsnorm(x, g, eps), kind)


def turn(x, cos, sin, kind):
    return bf(rotate(bf(x, kind), cos, sin), kind)


def norm_turn(x, g, cos, sin, eps, kind):
    return bf(rotate(bf(rmsnorm(x, g, eps), kind), cos, sin), kind)


def softmax_parts(sw, se, wmask, emask, sink):
    """Unnormalised probabilities of window and entries and 1/denominator; all last-dim logits float32.
    sw [B,T,H,256], se [B,T,H,n] or None; masks broadcast over H."""
    sw = sw.float().masked_fill(~wmask, -math.inf)
    m = sw.amax(-1, keepdim=True)
    if se is not None:
        se = se.float().masked_fill(~emask, -math.inf)
        m = torch.maximum(m, se.amax(-1, keepdim=True))
    m = m.detach()
    pw = (sw - m).exp()
    z = pw.sum(-1, keepdim=True) + (sink[:, None] - m).exp()
    pe = None
    if se is not None:
        pe = (se - m).exp()
        z = z + pe.sum(-1, keepdim=True)
    return pw, pe, z, m


def attend(q, kv, ent, wmask, emask, sink, scale):
    """q [B,T,H,d], kv [B,T,d], ent [B,n,d]; -> o [B,T,H,d], z, m [B,T,H,1]."""
    b, t, h, d = q.shape
    nc = t // CHUNK
    kc = kv.view(b, nc, CHUNK, d)
    keys = torch.cat([F.pad(kc[:, :-1], (0, 0, 0, 0, 1, 0)), kc], 2)                       # [B,nC,256,d]
    sw = (q.view(b, nc, CHUNK * h, d) @ keys.transpose(-1, -2) * scale).view(b, t, h, 2 * CHUNK)
    se = None
    if ent is not None:
        se = (q.reshape(b, t * h, d) @ ent.transpose(-1, -2) * scale).view(b, t, h, -1)
    pw, pe, z, m = softmax_parts(sw, se, wmask, emask, sink)
    o = (pw.to(q.dtype).view(b, nc, CHUNK * h, 2 * CHUNK) @ keys).view(b, t, h, d).float()
    if pe is not None:
        o = o + (pe.to(q.dtype).view(b, t * h, -1) @ ent).view(b, t, h, d).float()
    return o / z, z.detach(), m


def entry(kv, sc, ape, first, overlap, g, cos, sin, eps, kind):
    """kv, sc [B, n, r, co*d] -> entries [B, n, d]; first [B, n]: no window before this one."""
    kv, sc = kv.float(), sc.float() + ape
    if overlap:
        d = kv.shape[-1] // 2
        pk = F.pad(kv[:, :-1, :, :d], (0, 0, 0, 0, 1, 0))
        ps = F.pad(sc[:, :-1, :, :d], (0, 0, 0, 0, 1, 0)).masked_fill(first[..., None, None], -math.inf)
        kv, sc = torch.cat([pk, kv[..., d:]], 2), torch.cat([ps, sc[..., d:]], 2)
    return norm_turn(bf((kv * sc.softmax(2)).sum(2), kind), g, cos, sin, eps, kind)


def index_scores(iq, ik, iw):
    """iq [B,T,Hi,di], ik [B,n,di], iw [B,T,Hi] -> [B,T,n]"""
    b, t, h, _ = iq.shape
    s = (iq.reshape(b, t * h, -1) @ ik.transpose(-1, -2)).view(b, t, h, -1).relu()
    return (s.float() * iw[..., None].float()).sum(2)


def index_kl(s, vis, q, ent, z, m, scale):
    """KL from what attention looked at (all heads together, entries only) to the indexer's softmax, weighted
    by how much attention went to entries at all.  s [B,t,n]; q [B,t,H,d] of the same rows; z, m its softmax."""
    b, t, h, d = q.shape
    se = (q.reshape(b, t * h, d) @ ent.transpose(-1, -2) * scale).view(b, t, h, -1).float()
    p = ((se - m).exp().masked_fill(~vis[:, :, None], 0) / z).sum(2)
    mass = p.sum(-1)
    tgt = p / mass.clamp_min(1e-9)[..., None]
    ls = s.masked_fill(~vis, -1e30).log_softmax(-1)
    kl = (tgt * (tgt.clamp_min(1e-9).log() - ls)).masked_fill(~vis, 0).sum(-1)
    w = (mass / h + 0.02) * (vis.sum(-1) > 1)
    return (kl * w).sum() / w.sum().clamp_min(1e-6)


def glu(g, u, wt, width, lim, kind):
    """g, u [N, E*I]; wt [N, E]: experts' weights, 0 where not routed."""
    g, u = g.float().clamp(max=lim), u.float().clamp(-lim, lim)
    return bf(((F.silu(g) * u).unflatten(-1, (-1, width)) * wt[..., None]).flatten(-2), kind)


def cross_entropy(hid, head, tgt, wt):
    return (F.cross_entropy(F.linear(hid, head).float(), tgt, reduction="none") * wt).sum()


COMPILED = ("hc_mix", "collapse_norm", "hc_post", "norm", "turn", "norm_turn", "attend", "entry", "index_scores", "index_kl", "glu",
            "cross_entropy", "fake_fp8", "fake_fp4")


# ---------------------------------------------------------------- parameters
class Block(nn.Module):
    """Raw float32 parameters of one layer; names follow the checkpoint, '_' for '.'."""

    def __init__(self, c, layer, gen):
        super().__init__()
        D, H, d, M = c["hidden_size"], c["num_attention_heads"], c["head_dim"], c["hc_mult"]
        ql, g, r, E, I = c["q_lora_rank"], c["o_groups"], c["o_lora_rank"], c["n_routed_experts"], c["moe_intermediate_size"]
        ratio = c["compress_ratios"][layer]
        rn = lambda *s, gain=1.0: nn.Parameter(torch.randn(*s, generator=gen) * gain * s[-1] ** -0.5)
        ones = lambda n: nn.Parameter(torch.ones(n))
        self.attn_norm, self.ffn_norm, self.q_norm, self.kv_norm = ones(D), ones(D), ones(ql), ones(d)
        self.wq_a, self.wq_b, self.wkv = rn(ql, D), rn(H * d, ql), rn(d, D)
        self.wo_a, self.wo_b = rn(g * r, H * d // g), rn(D, g * r, gain=0.3)
        self.attn_sink = nn.Parameter(torch.zeros(H))
        if ratio:
            co = 2 if ratio == 4 else 1
            self.comp_wkv, self.comp_wgate, self.comp_ape, self.comp_norm = \
                rn(co * d, D), rn(co * d, D, gain=0.3), nn.Parameter(torch.zeros(ratio, co * d)), ones(d)
        if ratio == 4:
            Hi, di = c["index_n_heads"], c["index_head_dim"]
            self.idx_wq_b, self.idx_weights_proj = rn(Hi * di, ql), rn(Hi, D)
            self.idx_wkv, self.idx_wgate, self.idx_ape, self.idx_norm = \
                rn(2 * di, D), rn(2 * di, D, gain=0.3), nn.Parameter(torch.zeros(4, 2 * di)), ones(di)
        self.gate = rn(E, D)
        if layer < c["num_hash_layers"]:
            k = c["num_experts_per_tok"]
            self.register_buffer("tid2eid", torch.stack([torch.randperm(E, generator=gen)[:k] for _ in range(c["vocab_size"])]))
        else:
            self.register_buffer("bias", torch.zeros(E))
        self.ew1, self.ew3, self.ew2 = rn(E, I, D), rn(E, I, D), rn(E, D, I, gain=0.5)
        self.sw1, self.sw3, self.sw2 = rn(I, D), rn(I, D), rn(D, I, gain=0.5)
        n = (2 + M) * M
        for s in ("attn", "ffn"):
            # read mostly one stream, write to all, keep streams apart
            base = torch.randn(n, generator=gen) * 0.1
            base[:M] += -1.0
            base[(2 * layer + (s == "ffn")) % M] += 2.0
            base[2 * M:] += 4.0 * torch.eye(M).flatten()
            setattr(self, f"hc_{s}_fn", nn.Parameter(torch.randn(n, M * D, generator=gen) * (M * D) ** -0.5))
            setattr(self, f"hc_{s}_base", nn.Parameter(base))
            setattr(self, f"hc_{s}_scale", nn.Parameter(torch.full((3,), 0.1)))


FP4 = ("ew1", "ew3", "ew2")
FP8 = ("wq_a", "wq_b", "wkv", "wo_a", "wo_b", "idx_wq_b", "sw1", "sw3", "sw2", "e_proj", "h_proj")
F32 = ("attn_sink", "comp_ape", "idx_ape", "hc_attn_fn", "hc_attn_base", "hc_attn_scale", "hc_ffn_fn", "hc_ffn_base",
       "hc_ffn_scale", "hc_head_fn", "hc_head_base", "hc_head_scale")


class Head(nn.Module):
    def __init__(self, c, gen):
        super().__init__()
        D, M = c["hidden_size"], c["hc_mult"]
        self.norm = nn.Parameter(torch.ones(D))
        self.hc_head_fn = nn.Parameter(torch.randn(M, M * D, generator=gen) * (M * D) ** -0.5)
        self.hc_head_base = nn.Parameter(torch.zeros(M))
        self.hc_head_scale = nn.Parameter(torch.full((1,), 0.1))


class Model(nn.Module):
    def __init__(self, c, seed=0):
        super().__init__()
        gen = torch.Generator().manual_seed(seed)
        D, V, L = c["hidden_size"], c["vocab_size"], c["num_hidden_layers"]
        self.c = c
        self.embed = nn.Parameter(torch.randn(V, D, generator=gen) * 0.5)
        self.head = nn.Parameter(torch.randn(V, D, generator=gen) * D ** -0.5)
        self.out = Head(c, gen)
        self.layers = nn.ModuleList(Block(c, l, gen) for l in range(L + c["num_nextn_predict_layers"]))
        if c["num_nextn_predict_layers"]:
            rn = lambda: nn.Parameter(torch.randn(D, D, generator=gen) * D ** -0.5)
            m = Head(c, gen)
            m.e_proj, m.h_proj = rn(), rn()
            m.enorm, m.hnorm = nn.Parameter(torch.ones(D)), nn.Parameter(torch.ones(D))
            self.mtp = m
        self.register_buffer("hadamard", hadamard_matrix(c["index_head_dim"]), persistent=False)
        self.ablate = set()               # "hca", "window", "random_topk": evaluation only
        self.fn = {n: globals()[n] for n in COMPILED}

    # -- effective weights: what the checkpoint will hold, differentiable
    def weights(self, num, quantised):
        """One dict per layer (plus 'out', 'mtp', 'embed', 'head').  quantised: put them on the FP4 / FP8 grid."""
        groups = [("L", i, m) for i, m in enumerate(self.layers)] + [("out", 0, self.out)]
        if hasattr(self, "mtp"):
            groups.append(("mtp", 0, self.mtp))
        W, f4, f8 = {}, [], []
        for tag, i, mod in groups:
            w = W[(tag, i)] = {}
            for n, p in list(mod.named_parameters(recurse=False)) + list(mod.named_buffers(recurse=False)):
                if n in FP4 and quantised: f4.append((w, n, p))
                elif n in FP8 and quantised: f8.append((w, n, p))
                elif n in F32 or n in ("tid2eid", "bias"): w[n] = p
                else: w[n] = self._bf16(p, num, quantised)
        if f4:
            flat = torch.cat([p.reshape(-1, 32) for _, _, p in f4])
            with torch.no_grad():
                q, s = quant_fp4_rows(flat)
                q = (q * s).flatten(-2)
            flat = (flat + (q - flat).detach()).to(num.dt)
            for (w, n, p), part in zip(f4, flat.split([p.numel() // 32 for _, _, p in f4])):
                w[n] = part.reshape(p.shape)
        if f8:
            tiles = [tile(p) for _, _, p in f8]
            flat = torch.cat(tiles)
            with torch.no_grad():
                q, s = quant_tiles(flat)
                q = q * s[:, None, None]
            flat = (flat + (q - flat).detach()).to(num.dt)
            for (w, n, p), part in zip(f8, flat.split([t.shape[0] for t in tiles])):
                w[n] = untile(part, *p.shape)
        W["embed"], W["head"] = self._bf16(self.embed, num, quantised), self._bf16(self.head, num, quantised)
        return W

    @staticmethod
    def _bf16(p, num, quantised):
        return p.bfloat16().to(num.dt) if quantised else p.to(num.dt)

    # -- operators
    def compress(self, num, x, wkv, wgate, ape, g, ratio, meta):
        b, t, _ = x.shape
        n = t // ratio
        kv, sc = F.linear(x, wkv).view(b, n, ratio, -1), F.linear(x, wgate).view(b, n, ratio, -1)
        return self.fn["entry"](kv, sc, ape, meta.pos[:, ::ratio] == 0, ratio == 4, g, meta.cos[1][:, ::ratio], meta.sin[1][:, ::ratio],
                                self.c["rms_norm_eps"], num.kind)

    def attention(self, num, w, ratio, x, meta, sparse, aux):
        c, fn = self.c, self.fn
        b, t, _ = x.shape
        H, d, R, eps = c["num_attention_heads"], c["head_dim"], c["qk_rope_head_dim"], c["rms_norm_eps"]
        rr = 1 if ratio else 0
        cos, sin = meta.cos[rr], meta.sin[rr]
        cosh, sinh = cos[:, :, None], sin[:, :, None]
        xa = num.act(x)
        qa = num.act(fn["norm"](num.bf(F.linear(xa, w["wq_a"])), w["q_norm"], eps, num.kind))
        q = fn["norm_turn"](num.bf(F.linear(qa, w["wq_b"])).view(b, t, H, d), None, cosh, sinh, eps, num.kind)
        kv = num.row(fn["norm_turn"](num.bf(F.linear(xa, w["wkv"])), w["kv_norm"], cos, sin, eps, num.kind), R)
        ent = emask = vis = None
        if ratio and "hca" in self.ablate and ratio != 4: ratio = 0
        if ratio:
            ent = num.row(self.compress(num, x, w["comp_wkv"], w["comp_wgate"], w["comp_ape"], w["comp_norm"], ratio, meta), R)
            lo, hi = meta.entries(ratio)
            e = torch.arange(t // ratio, device=x.device)
            vis = (e >= lo[..., None]) & (e < hi[:, None])
            emask = vis
            if ratio == 4:
                train = self.training and torch.is_grad_enabled()
                if sparse or not train:
                    with torch.no_grad():
                        emask = self.select(self.index(num, w, x, qa, cosh, sinh, meta), vis)
                emask = emask & vis
            emask = emask[:, :, None]
        wmask = meta.window
        if "window" in self.ablate:                       # the own token only
            wmask = wmask & (torch.arange(2 * CHUNK, device=x.device)[None] == torch.arange(CHUNK, device=x.device)[:, None] + CHUNK)
        wmask = wmask.reshape(b, t, 1, 2 * CHUNK)
        o, z, m = fn["attend"](q, kv, ent, wmask, emask, w["attn_sink"], d ** -0.5)
        if ratio == 4 and self.training and torch.is_grad_enabled() and aux is not None:
            st = aux["stride"]
            off = aux["offset"]
            sub = slice(off, None, st)
            s = self.index(num, w, x.detach(), qa.detach(), cosh[:, sub], sinh[:, sub], meta, sub)
            v = (emask[:, :, 0] if sparse else vis)[:, sub]
            aux["kl"].append(fn["index_kl"](s, v, q.detach()[:, sub], ent.detach(), z[:, sub], m[:, sub], d ** -0.5))
        o = fn["turn"](o, cosh, -sinh, num.kind)
        g = c["o_groups"]
        o = torch.einsum("btgd,grd->btgr", o.reshape(b, t, g, -1), w["wo_a"].view(g, c["o_lora_rank"], -1))
        return num.bf(F.linear(num.act(num.bf(o).flatten(2)), w["wo_b"]))

    def index(self, num, w, x, qa, cosh, sinh, meta, sub=slice(None)):
        c = self.c
        Hi, di = c["index_n_heads"], c["index_head_dim"]
        had = self.hadamard.to(num.dt)
        iq = num.bf(F.linear(qa[:, sub], w["idx_wq_b"])).unflatten(-1, (Hi, di))
        iq = num.fp4(num.bf(self.fn["turn"](iq, cosh, sinh, num.kind) @ had))
        ik = self.compress(num, x, w["idx_wkv"], w["idx_wgate"], w["idx_ape"], w["idx_norm"], 4, meta)
        ik = num.fp4(num.bf(ik @ had))
        iw = num.bf(F.linear(x[:, sub], w["idx_weights_proj"])) * (di ** -0.5 * Hi ** -0.5)
        return self.fn["index_scores"](iq, ik, iw)

    def select(self, s, vis):
        k = self.c["index_topk"]
        if s.shape[-1] <= k: return vis
        if "random_topk" in self.ablate: s = torch.rand_like(s)
        s = s.masked_fill(~vis, -math.inf)
        return (s >= s.topk(k, -1, sorted=False).values.amin(-1, keepdim=True)) & vis

    def moe(self, num, w, x, ids, aux):
        c = self.c
        k, E, I = c["num_experts_per_tok"], c["n_routed_experts"], c["moe_intermediate_size"]
        score = F.softplus(F.linear(x.float(), w["gate"].float())).sqrt()
        idx = w["tid2eid"][ids] if "tid2eid" in w else (score.detach() + w["bias"]).topk(k, -1).indices
        if aux is not None and "bias" in w: aux["load"].append((w["bias"], idx))
        wt = score.gather(-1, idx)
        wt = wt / wt.sum(-1, keepdim=True) * c["routed_scaling_factor"]
        wt = F.pad(torch.zeros_like(score).scatter(-1, idx, wt), (0, 1), value=1.0)                                        # the shared expert, always on
        xa = num.act(x)
        w1 = torch.cat([w["ew1"].flatten(0, 1), w["sw1"]])
        w3 = torch.cat([w["ew3"].flatten(0, 1), w["sw3"]])
        h = self.fn["glu"](num.bf(F.linear(xa, w1)), num.bf(F.linear(xa, w3)), wt, I, c["swiglu_limit"], num.kind)
        h = num.act(h)
        if num.kind != "official":
            w2 = torch.cat([w["ew2"], w["sw2"][None]]).permute(1, 0, 2).flatten(1)
            return F.linear(h, w2)
        h = h.unflatten(-1, (-1, I))                                             # the released code rounds per expert
        y = num.bf(torch.einsum("nei,edi->ned", h, torch.cat([w["ew2"], w["sw2"][None]])))
        return num.bf(y.sum(1))

    def block(self, num, w, ratio, x, ids, meta, sparse, aux):
        """x [N, M, D] with N = B*T; ids [B, T]"""
        c, fn, (b, t) = self.c, self.fn, ids.shape
        for s in ("attn", "ffn"):
            pre, post, cm = fn["hc_mix"](x, w[f"hc_{s}_fn"], w[f"hc_{s}_base"], w[f"hc_{s}_scale"], c["rms_norm_eps"], c["hc_eps"])
            cm = sinkhorn(cm, c["hc_sinkhorn_iters"], c["hc_eps"])
            y = fn["collapse_norm"](x, pre, w[s + "_norm"], c["rms_norm_eps"], num.kind)
            if s == "attn": y = self.attention(num, w, ratio, y.view(b, t, -1), meta, sparse, aux).flatten(0, 1)
            else: y = self.moe(num, w, y, ids.flatten(), aux)
            x = fn["hc_post"](y, x, post, cm, num.kind)
        return x

    def top(self, num, w, x):
        c = self.c
        f = x.flatten(-2).float()
        mix = F.linear(f, w["hc_head_fn"]) * torch.rsqrt(f.square().mean(-1, keepdim=True) + c["rms_norm_eps"])
        pre = torch.sigmoid(mix * w["hc_head_scale"] + w["hc_head_base"]) + c["hc_eps"]
        return self.fn["collapse_norm"](x, pre, w["norm"], c["rms_norm_eps"], num.kind)

    def forward(self, ids, meta, num, W, sparse=True, aux=None, mtp=True):
        """-> hidden [B, T, D] before the head, and the draft's hidden (row t drafts token t+2) or None."""
        c = self.c
        b, t = ids.shape
        x = num.bf(Embed.apply(ids.flatten(), W["embed"]))[:, None].repeat(1, c["hc_mult"], 1)
        L = c["num_hidden_layers"]
        for l in range(L):
            x = self.block(num, W["L", l], c["compress_ratios"][l], x, ids, meta, sparse, aux)
        hid = self.top(num, W["out", 0], x)
        if not mtp or ("mtp", 0) not in W:
            return hid.view(b, t, -1), None
        w = W["mtp", 0]
        nxt = F.pad(ids[:, 1:], (0, 1))
        eps = c["rms_norm_eps"]
        e = num.act(self.fn["norm"](num.bf(Embed.apply(nxt.flatten(), W["embed"])), w["enorm"], eps, num.kind))
        h = num.act(self.fn["norm"](x, w["hnorm"], eps, num.kind))
        y = num.bf(num.bf(F.linear(e, w["e_proj"]))[:, None] + num.bf(F.linear(h, w["h_proj"])))
        y = self.block(num, W["L", L], c["compress_ratios"][L], y, nxt, meta, sparse, aux)
        return hid.view(b, t, -1), self.top(num, w, y).view(b, t, -1)


# ---------------------------------------------------------------- checkpoint layout
def names(c):
    """(module path, parameter, checkpoint name) of everything in the file."""
    L = c["num_hidden_layers"]
    for l in range(L + c["num_nextn_predict_layers"]):
        p = f"layers.{l}." if l < L else f"mtp.{l - L}."
        a = p + "attn."
        for n in ("wq_a", "wq_b", "wkv", "wo_a", "wo_b", "q_norm", "kv_norm"):
            yield l, n, a + n + ".weight"
        yield l, "attn_sink", a + "attn_sink"
        ratio = c["compress_ratios"][l]
        if ratio:
            for n, q in (("comp_wkv", "wkv.weight"), ("comp_wgate", "wgate.weight"), ("comp_ape", "ape"), ("comp_norm", "norm.weight")):
                yield l, n, a + "compressor." + q
        if ratio == 4:
            yield l, "idx_wq_b", a + "indexer.wq_b.weight"
            yield l, "idx_weights_proj", a + "indexer.weights_proj.weight"
            for n, q in (("idx_wkv", "wkv.weight"), ("idx_wgate", "wgate.weight"), ("idx_ape", "ape"), ("idx_norm", "norm.weight")):
                yield l, n, a + "indexer.compressor." + q
        yield l, "gate", p + "ffn.gate.weight"
        yield (l, "tid2eid", p + "ffn.gate.tid2eid") if l < c["num_hash_layers"] else (l, "bias", p + "ffn.gate.bias")
        for n in ("w1", "w2", "w3"):
            yield l, "e" + n, p + "ffn.experts.{}." + n + ".weight"
            yield l, "s" + n, p + f"ffn.shared_experts.{n}.weight"
        yield l, "attn_norm", p + "attn_norm.weight"
        yield l, "ffn_norm", p + "ffn_norm.weight"
        for s in ("attn", "ffn"):
            for q in ("fn", "base", "scale"):
                yield l, f"hc_{s}_{q}", f"{p}hc_{s}_{q}"
    for tag, p in (("out", ""), ("mtp", "mtp.0."))[:1 + c["num_nextn_predict_layers"]]:
        for n in ("hc_head_fn", "hc_head_base", "hc_head_scale"):
            yield tag, n, p + n
        yield tag, "norm", p + "norm.weight"
    if c["num_nextn_predict_layers"]:
        for n in ("e_proj", "h_proj", "enorm", "hnorm"):
            yield "mtp", n, f"mtp.0.{n}.weight"
    yield "", "embed", "embed.weight"
    yield "", "head", "head.weight"


def _module(m, where):
    return m.layers[where] if isinstance(where, int) else (getattr(m, where) if where else m)


def export(m):
    """name -> (tensor, dtype tag), in the published layout."""
    out = {}
    for where, n, name in names(m.c):
        t = getattr(_module(m, where), n).detach().float().cpu() if n != "tid2eid" else m.layers[where].tid2eid.cpu()
        if n in FP4:
            for e in range(t.shape[0]):
                q, s = encode_fp4_weight(t[e])
                out[name.format(e)], out[name.format(e)[:-6] + "scale"] = (q, "I8"), (s, "F8_E8M0")
        elif n in FP8:
            q, s = encode_fp8_weight(t)
            out[name], out[name[:-6] + "scale"] = (q, "F8_E4M3"), (s, "F8_E8M0")
        elif n == "tid2eid": out[name] = (t, "I64")
        elif n in F32 or n == "bias": out[name] = (t, "F32")
        else: out[name] = (t.bfloat16(), "BF16")
    return out


@torch.no_grad()
def load_into(m, raw):
    for where, n, name in names(m.c):
        dst = getattr(_module(m, where), n)
        if n in FP4:
            for e in range(dst.shape[0]): dst[e] = decode_weight(raw, name.format(e)[:-7])
        elif n in FP8: dst.copy_(decode_weight(raw, name[:-7]))
        else: dst.copy_(raw[name][0])
    return m
