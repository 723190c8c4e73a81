"""Safetensors and the oracle's programs, as the scripts of this folder need them. Python's library alone."""
import json
import os
import struct
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
# The oracle writes checkpoints and what a right implementation computes on them. It is not part of this repository.
ORACLE = Path(os.environ.get("DSV4_ORACLE", HERE.parents[1].parent / "shared" / "oracle")) / "make_checkpoint.py"
PYTHON = os.environ.get("DSV4_ORACLE_PYTHON", "/usr/bin/python3")  # needs torch


def read(path):
    """name -> (dtype, shape, bytes)"""
    raw = Path(path).read_bytes()
    size = struct.unpack("<Q", raw[:8])[0]
    out = {}
    for name, t in json.loads(raw[8 : 8 + size]).items():
        if name != "__metadata__":
            begin, end = t["data_offsets"]
            out[name] = (t["dtype"], t["shape"], raw[8 + size + begin : 8 + size + end])
    return out


def write(path, tensors):
    header, at = {}, 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    Path(path).write_bytes(struct.pack("<Q", len(text)) + text + b"".join(t[2] for t in tensors.values()))


def make_checkpoint(preset, folder, seed, tokens, overrides, new=12):
    """Runs the oracle. What it prints is returned; a failure raises with it."""
    done = subprocess.run(
        [PYTHON, str(ORACLE), preset, str(folder), "--seed", str(seed), "--tokens", str(tokens), "--new", str(new),
         "--config", json.dumps(overrides)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    if done.returncode:
        raise RuntimeError(f"{ORACLE} {preset}: {done.stdout}")
    return done.stdout
