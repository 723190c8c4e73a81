#!/usr/bin/env python3
"""`dsv4 logits` against the oracle, and against itself however the prompt is cut.

test_logits.py DSV4 SOURCE_FOLDER

On the fixtures of this repository with both backends that have the numerics `exact`, and on the published tiny
checkpoints, where they are, with the faster one.
"""
import array
import json
import subprocess
import sys
import tempfile
from pathlib import Path

DSV4, SOURCE = sys.argv[1], Path(sys.argv[2])
sys.path.insert(0, str(SOURCE / "tests/golden"))
import sweep  # noqa: E402
import vectors  # noqa: E402

LIMIT = 1e-3


def logits(model, folder, backend, chunk, *more):
    out = folder / "out"
    subprocess.run([DSV4, "logits", "--model", str(model), "--tokens", str(folder / "ids"), "--out", str(out), "--draft",
                    "--numerics", "exact", "--backend", backend, "--chunk", str(chunk), *more], check=True)
    return vectors.read(out)


def ints(tensor):
    return array.array("i", tensor[2]).tolist()


def compare(model, backend):
    """Problems, in words."""
    chunks = [64, 1, 7]
    want, bad = vectors.read(model / "vectors.safetensors"), []
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        prompt, positions, draft_positions = (ints(want[n]) for n in ("prompt", "positions", "draft_positions"))
        (folder / "ids").write_text(" ".join(map(str, prompt)))
        whole = logits(model, folder, backend, chunks[0])
        vocabulary = want["logits_exact"][1][1]
        for name, rows in (("logits", len(prompt)), ("draft_logits", len(prompt) - 1)):
            if whole[name][:2] != ("F32", [rows, vocabulary]):
                return [f"{name}: expected F32 {[rows, vocabulary]}, found {whole[name][:2]}"]
        worst = [sweep.worst(whole[n], at, want[n + "_exact"], len(at))
                 for n, at in (("logits", positions), ("draft_logits", draft_positions))]
        if not max(worst) < LIMIT:
            bad.append(f"worst row {max(worst):.1e} from the oracle, {LIMIT} is allowed")
        bad += [f"--chunk {c} differs from --chunk {chunks[0]}" for c in chunks[1:]
                if logits(model, folder, backend, c) != whole]
        # Some rows, in an order of their own, are those very rows; the last position has no draft.
        asked = [len(prompt) - 1, 0, len(prompt) - 2]
        some = logits(model, folder, backend, chunks[0], "--positions", ",".join(map(str, asked)))
        for name in whole:
            size, data = 4 * vocabulary, whole[name][2]
            rows = [p for p in asked if p < whole[name][1][0]]
            if some[name][1:] != ([len(rows), vocabulary], b"".join(data[p * size:(p + 1) * size] for p in rows)):
                bad.append(f"--positions: {name} are not the rows asked for")
    print(f"{model.name:11} {backend:10} {len(positions)} rows, logits {worst[0]:.1e}, drafts {worst[1]:.1e}, "
          f"chunks {chunks}", flush=True)
    return [f"{model.name}, {backend}: {b}" for b in bad]


def main():
    found = json.loads(subprocess.run([DSV4, "backends", "--json"], check=True, stdout=subprocess.PIPE).stdout)
    usable = [b["name"] for b in found["backends"] if b["score"]]
    backends = [name for name in ("cpu", "reference") if name in usable]
    if "reference" not in backends:
        sys.exit(f"expected the reference among the backends, found {usable}")
    fixtures = sorted(p.parent for p in (SOURCE / "tests/golden/fixtures").glob("*/vectors.safetensors"))
    if not fixtures:
        sys.exit("no fixtures")
    bad = [b for model in fixtures for backend in backends for b in compare(model, backend)]
    published = [SOURCE.parent / "shared/vectors" / f"tiny-{n}" for n in ("flash", "pro", "base", "bf16")]
    for model in published:
        if not model.exists():
            print(f"SKIPPED: {model} is not there")
            continue
        bad += compare(model, backends[0])
    sys.exit("\n".join(bad) or 0)


main()
