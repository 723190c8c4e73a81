"""The mixing matrix's normalisations: one over columns, then (rows, columns) again and again.

y = x / (sum x + eps) runs backwards from y and the sum alone, so only the sums are kept: 4 floats per normalisation and token.
One Triton kernel each way on a GPU; plain torch elsewhere.
"""
import torch

try:
    import triton
    import triton.language as tl
except ImportError:
    triton = None

if triton:
    @triton.jit
    def _forward(x_ptr, y_ptr, s_ptr, n, eps, iters: tl.constexpr, BLOCK: tl.constexpr):
        t = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        i = tl.arange(0, 4)
        at = t[:, None, None] * 16 + i[None, :, None] * 4 + i[None, None, :]
        ok = (t < n)[:, None, None] & (i >= 0)[None, :, None] & (i >= 0)[None, None, :]
        ok2 = (t < n)[:, None] & (i >= 0)[None, :]
        x = tl.load(x_ptr + at, mask=ok, other=1.0)
        for k in range(2 * iters - 1):
            if k % 2 == 0:
                s = tl.sum(x, 1) + eps
                x = x / s[:, None, :]
            else:
                s = tl.sum(x, 2) + eps
                x = x / s[:, :, None]
            tl.store(s_ptr + (k * n + t)[:, None] * 4 + i[None, :], s, mask=ok2)
        tl.store(y_ptr + at, x, mask=ok)

    @triton.jit
    def _backward(y_ptr, s_ptr, g_ptr, n, iters: tl.constexpr, BLOCK: tl.constexpr):
        t = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        i = tl.arange(0, 4)
        at = t[:, None, None] * 16 + i[None, :, None] * 4 + i[None, None, :]
        ok = (t < n)[:, None, None] & (i >= 0)[None, :, None] & (i >= 0)[None, None, :]
        ok2 = (t < n)[:, None] & (i >= 0)[None, :]
        y = tl.load(y_ptr + at, mask=ok, other=0.25)
        g = tl.load(g_ptr + at, mask=ok, other=0.0)
        for r in range(2 * iters - 1):
            k = 2 * iters - 2 - r
            s = tl.load(s_ptr + (k * n + t)[:, None] * 4 + i[None, :], mask=ok2, other=1.0)
            if k % 2 == 0:
                g = (g - tl.sum(g * y, 1)[:, None, :]) / s[:, None, :]
                y = y * s[:, None, :]
            else:
                g = (g - tl.sum(g * y, 2)[:, :, None]) / s[:, :, None]
                y = y * s[:, :, None]
        tl.store(g_ptr + at, g, mask=ok)

    class _Sinkhorn(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, iters, eps):
            x = x.contiguous()
            n = x.shape[0]
            y, s = torch.empty_like(x), torch.empty(2 * iters - 1, n, 4, device=x.device)
            _forward[(triton.cdiv(n, 64),)](x, y, s, n, eps, iters, 64)
            ctx.save_for_backward(y, s)
            ctx.iters = iters
            return y

        @staticmethod
        def backward(ctx, g):
            y, s = ctx.saved_tensors
            g = g.clone(memory_format=torch.contiguous_format)
            _backward[(triton.cdiv(y.shape[0], 64),)](y, s, g, y.shape[0], ctx.iters, 64)
            return g, None, None


def reference(x, iters, eps):
    x = x / (x.sum(-2, keepdim=True) + eps)
    for _ in range(iters - 1):
        x = x / (x.sum(-1, keepdim=True) + eps)
        x = x / (x.sum(-2, keepdim=True) + eps)
    return x


def sinkhorn(x, iters, eps):
    """x [N, 4, 4] positive, float32"""
    if triton and x.is_cuda and x.shape[-1] == 4: return _Sinkhorn.apply(x, iters, eps)
    return reference(x, iters, eps)
