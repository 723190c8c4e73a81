"""Muon for matrices, AdamW for the rest.

Muon: Nesterov momentum, orthogonalised by a hybrid Newton-Schulz iteration (fast steps, then two that settle at singular
values of one), scaled to the update size AdamW would have.  Matrices of equal shape run as one batch.
"""
import torch

FAST, SETTLE = (3.4445, -4.7750, 2.0315), (2.0, -1.5, 0.5)


def orthogonal(g, fast=6, settle=2):
    """g [n, a, b] with a <= b -> nearest semi-orthogonal."""
    x = g.bfloat16() if g.is_cuda else g.float()
    x = x / (x.float().norm(dim=(1, 2), keepdim=True) + 1e-7).to(x.dtype)
    for i in range(fast + settle):
        a, b, c = FAST if i < fast else SETTLE
        s = x @ x.transpose(1, 2)
        x = a * x + (b * s + c * (s @ s)) @ x
    return x


class Muon:
    """params: list of (parameter, view) where view(p) is [n, rows, cols]."""

    def __init__(self, params, momentum=0.95):
        groups = {}
        for p, view in params:
            v = view(p)
            groups.setdefault(tuple(sorted(v.shape[1:])), []).append((p, view, v.shape[1] > v.shape[2]))
        self.groups, self.m = groups, momentum
        self.buf = {}

    @torch.no_grad()
    def step(self, lr, wd):
        """lr: a number or a scalar tensor."""
        for key, group in self.groups.items():
            gs = [view(p.grad) for p, view, _ in group]
            g = torch.cat([x.transpose(1, 2) if tr else x for x, (_, _, tr) in zip(gs, group)])
            if key not in self.buf: self.buf[key] = torch.zeros_like(g)
            b = self.buf[key]
            b.mul_(self.m).add_(g, alpha=1 - self.m)
            u = orthogonal(b.mul(self.m).add_(g, alpha=1 - self.m)).float() * (-0.18 * max(key) ** 0.5 * lr)
            ps, us = [], []
            for x, part in zip(group, u.split([x.shape[0] for x in gs])):
                p, view, tr = x
                ps.append(view(p))
                us.append(part.transpose(1, 2) if tr else part)
            for p, u in zip(ps, us): p.mul_(1 - lr * wd).add_(u)


def build(model):
    """-> Muon, AdamW over the model's parameters."""
    og, mats, rest = model.c["o_groups"], [], []
    flat = lambda p: p[None]
    for name, p in model.named_parameters():
        n = name.split(".")[-1]
        if n in ("ew1", "ew3", "ew2"): mats.append((p, lambda p: p))
        elif n == "wo_a": mats.append((p, lambda p: p.view(og, -1, p.shape[1])))
        elif n in ("comp_wkv", "comp_wgate", "idx_wkv", "idx_wgate"): mats.append((p, lambda p: p.view(-1, 128, p.shape[1])))
        elif n in ("wq_a", "wq_b", "wkv", "wo_b", "sw1", "sw2", "sw3", "e_proj", "h_proj", "idx_wq_b"): mats.append((p, flat))
        else: rest.append((name, p))
    slow = [p for n, p in rest if n.endswith(("hc_attn_fn", "hc_ffn_fn", "hc_head_fn"))]
    quick = [p for n, p in rest if n.endswith(("embed", "head")) and p.dim() == 2]
    seen = {id(p) for p in slow + quick}
    other = [p for _, p in rest if id(p) not in seen]
    kw = dict(betas=(0.9, 0.95), eps=1e-10, weight_decay=0.0)
    groups = [dict(params=quick, rel=1.0), dict(params=slow, rel=0.3), dict(params=other, rel=1.0)]
    if next(model.parameters()).is_cuda:                 # learning rates as tensors: a captured graph reads them anew
        kw.update(fused=True, capturable=True)
        for g in groups: g["lr"] = torch.zeros((), device=next(model.parameters()).device)
    return Muon(mats), torch.optim.AdamW(groups, lr=1e-3, **kw)
