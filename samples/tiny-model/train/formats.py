"""FP8 (e4m3), FP4 (e2m1) and E8M0 as the published checkpoints use them, and safetensors files.

fake_* quantise and dequantise in one go, for training and for checking; encode_* give the bytes.
Rounding is to nearest, ties to the even mantissa; scales are powers of two, ceil'ed from the exponent bits.
"""
import json
import struct
from pathlib import Path

import torch

F8 = getattr(torch, "float8_e4m3fn", None)          # absent before torch 2.1: arithmetic instead
E2M1 = torch.tensor([0., .5, 1., 1.5, 2., 3., 4., 6., -0., -.5, -1., -1.5, -2., -3., -4., -6.])


def pow2_ceil(x):
    """Smallest power of two >= x (x > 0, normal)."""
    b = x.float().contiguous().view(torch.int32)
    e = ((b >> 23) & 0xFF) + ((b & 0x7FFFFF) != 0).to(torch.int32)
    return (e << 23).view(torch.float32)


def round_e4m3(x):
    """|x| <= 448."""
    if F8 is not None and x.is_cuda:
        return x.to(F8).float()
    e = torch.frexp(x)[1].clamp(-5, 9) - 1           # |x| in [2^e, 2^(e+1)); subnormals share 2^-6
    q = torch.ldexp(torch.ones_like(x), e - 3)
    return torch.round(x / q) * q


def round_e2m1(x):
    """|x| <= 6.  Grid 0 .5 1 1.5 2 3 4 6: steps of .5, 1 and 2, each half-even."""
    a = x.abs()
    step = torch.where(a < 2, 0.5, torch.where(a < 4, 1.0, 2.0))
    return torch.copysign(torch.round(a / step) * step, x)


def fake_fp8(x, block):
    """Activations: one scale per `block` of the last dim."""
    y = x.float().unflatten(-1, (-1, block))
    s = pow2_ceil(y.abs().amax(-1, keepdim=True).clamp_min(1e-4) * (1.0 / 448.0))
    return (round_e4m3((y / s).clamp(-448, 448)) * s).flatten(-2)


def fake_fp4(x, block=32):
    y = x.float().unflatten(-1, (-1, block))
    s = pow2_ceil(y.abs().amax(-1, keepdim=True).clamp_min(6 * 2.0 ** -126) * (1.0 / 6.0))
    return (round_e2m1((y / s).clamp(-6, 6)) * s).flatten(-2)


def tile(w):
    """[O, K] -> [nO*nK, 128, 128] zero-padded tiles."""
    o, k = w.shape
    p = torch.nn.functional.pad(w, (0, -k % 128, 0, -o % 128))
    return p.unflatten(0, (-1, 128)).unflatten(2, (-1, 128)).transpose(1, 2).flatten(0, 1)


def untile(t, o, k):
    nk = -(-k // 128)
    return t.unflatten(0, (-1, nk)).transpose(1, 2).flatten(2, 3).flatten(0, 1)[:o, :k]


def quant_tiles(t):
    """[n, 128, 128] -> values on the e4m3 grid (before the scale), scale [n]."""
    s = pow2_ceil(t.float().abs().amax((1, 2)).clamp_min(1e-6) / 448.0)
    return round_e4m3((t.float() / s[:, None, None]).clamp(-448, 448)), s


def quant_fp4_rows(w):
    """[..., K] -> e2m1 values (before the scale), scale per 32 inputs."""
    y = w.float().unflatten(-1, (-1, 32))
    s = pow2_ceil(y.abs().amax(-1, keepdim=True).clamp_min(1e-6) / 6.0)
    return round_e2m1((y / s).clamp(-6, 6)), s


def encode_e4m3(x):
    a = x.abs()
    e = torch.frexp(a)[1] - 1
    sub = a < 2.0 ** -6
    m = torch.where(sub, a * 512, (torch.ldexp(a, -e) - 1) * 8).round().to(torch.int32)
    ee = torch.where(sub, torch.zeros_like(e), e + 7).to(torch.int32)
    return ((torch.signbit(x).to(torch.int32) << 7) | (ee << 3) | m).to(torch.uint8)


def encode_e2m1(x):
    idx = (x.abs()[..., None] > (E2M1[:8] + 1e-3)).sum(-1).to(torch.int32)
    return (idx | (torch.signbit(x).to(torch.int32) << 3)).to(torch.uint8)


def decode_e8m0(b):
    return torch.pow(2.0, b.double() - 127.0).float()


def encode_e8m0(s):
    return (torch.log2(s) + 127).round().to(torch.uint8)


def decode_e4m3(b):
    u = b.to(torch.int32)
    e, m = (u >> 3) & 15, (u & 7).float()
    v = torch.where(e == 0, m * 2.0 ** -9, torch.ldexp(1 + m / 8, e - 7))
    return torch.where(u & 0x80 != 0, -v, v)


def encode_fp8_weight(w):
    q, s = quant_tiles(tile(w))
    nk = -(-w.shape[1] // 128)
    return encode_e4m3(untile(q, *w.shape)).contiguous(), encode_e8m0(s).view(-1, nk)


def encode_fp4_weight(w):
    q, s = quant_fp4_rows(w)
    c = encode_e2m1(q.flatten(-2))
    return (c[..., 0::2] | (c[..., 1::2] << 4)).to(torch.uint8).contiguous(), encode_e8m0(s[..., 0]).contiguous()


def decode_weight(raw, name):
    """Dequantised float32 weight of a checkpoint read by load_safetensors; name without '.weight'."""
    t, tag = raw[name + ".weight"]
    if tag == "I8":
        t = t.long()
        v = torch.stack([E2M1[t & 15], E2M1[t >> 4]], -1).flatten(-2)
        return v * decode_e8m0(raw[name + ".scale"][0]).repeat_interleave(32, -1)
    if tag == "F8_E4M3":
        s = decode_e8m0(raw[name + ".scale"][0]).repeat_interleave(128, 0).repeat_interleave(128, 1)
        return decode_e4m3(t) * s[:t.shape[0], :t.shape[1]]
    return t.float()


_ST = {"F32": torch.float32, "BF16": torch.bfloat16, "I64": torch.int64, "I8": torch.uint8, "U8": torch.uint8,
       "F8_E4M3": torch.uint8, "F8_E8M0": torch.uint8, "I32": torch.int32}


def load_safetensors(path):
    """name -> (tensor, dtype tag); 8-bit formats come as raw uint8."""
    raw = Path(path).read_bytes()
    n = struct.unpack("<Q", raw[:8])[0]
    out = {}
    for k, v in json.loads(raw[8:8 + n]).items():
        if k != "__metadata__":
            a, b = v["data_offsets"]
            out[k] = (torch.frombuffer(bytearray(raw[8 + n + a:8 + n + b]), dtype=_ST[v["dtype"]])
                      .reshape(v["shape"]), v["dtype"])
    return out


def save_safetensors(path, tensors, metadata=None):
    head, off, blobs = {"__metadata__": metadata or {"format": "pt"}}, 0, []
    for k, (t, tag) in tensors.items():
        b = t.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        head[k] = {"dtype": tag, "shape": list(t.shape), "data_offsets": [off, off + len(b)]}
        off += len(b)
        blobs.append(b)
    h = json.dumps(head, separators=(",", ":")).encode()
    h += b" " * (-len(h) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(h)) + h)
        for b in blobs:
            f.write(b)
