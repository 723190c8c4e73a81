#!/usr/bin/env python3
"""`dsv4 plan` on checkpoints of true size, which are headers and holes: every tensor accounted for, in little memory and time.

test_plan.py DSV4 SOURCE_FOLDER SCRATCH_FOLDER

Exits with 77, ctest's "skipped", where the program that lays the checkpoints out is not.
"""
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

DSV4, SOURCE, SCRATCH = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
SHARED = SOURCE.parent / "shared"
LAYOUT = SHARED / "oracle/sparse_checkpoint.py"
REAP = SHARED / "data/headers/flash-0731-reap.tar.gz"
MEMORY = 250_000_000
SECONDS = 1.0
BUSY = 3  # what else the machine does may cost this factor


def plan(model, out):
    """(seconds, peak resident bytes) of one run, which writes to the file `out`."""
    with open(out, "wb") as f:
        begin = time.monotonic()
        process = subprocess.Popen([DSV4, "plan", "--model", model], stdout=f)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"dsv4 plan --model {model}: exit code {process.returncode}")
    return seconds, usage.ru_maxrss * 1024


def check(name, source, tensors, unused):
    """Problems, in words."""
    bad = []
    with tempfile.TemporaryDirectory(dir=SCRATCH) as folder:
        model, out = os.path.join(folder, "model"), os.path.join(folder, "plan.json")
        subprocess.run([sys.executable, str(LAYOUT), str(source), model], check=True, stdout=subprocess.DEVNULL)
        runs = [plan(model, out) for _ in range(3)]
        got = json.loads(Path(out).read_bytes())
    seconds, peak = min(r[0] for r in runs), max(r[1] for r in runs)
    checkpoint = got["checkpoint"]
    print(f"{name}: {checkpoint['tensors']} tensors of {checkpoint['bytes'] / 1e9:.1f} GB, {checkpoint['unused_tensors']} "
          f"unused; {seconds:.2f} s, peak {peak / 1e6:.0f} MB", flush=True)

    def expect(what, expected, found):
        if expected != found:
            bad.append(f"{name}: {what}: expected {expected}, found {found}")

    expect("tensors", tensors, checkpoint["tensors"])
    expect("unused tensors", unused, checkpoint["unused_tensors"])
    expect("used and unused", tensors, checkpoint["used_tensors"] + checkpoint["unused_tensors"])
    expect("used and unused bytes", checkpoint["bytes"], checkpoint["used_bytes"] + checkpoint["unused_bytes"])
    expect("tensors of the groups", checkpoint["used_tensors"], sum(g["tensors"] for g in got["groups"]))
    expect("tensors of the unused that are named", unused, sum(u["tensors"] for u in got["unused"]))
    expect("bytes of the unused that are named", checkpoint["unused_bytes"], sum(u["bytes"] for u in got["unused"]))
    if unused:
        expect("that the unused are the drafter's", True, all(u["name"].startswith("mtp.") for u in got["unused"]))
        expect("one degradation, which names the drafter", [True], ["DSpark" in d for d in got["degradations"]])
    else:
        expect("degradations", [], got["degradations"])
    if peak >= MEMORY:
        bad.append(f"{name}: peak {peak} bytes of memory, expected less than {MEMORY}")
    if seconds >= SECONDS * BUSY:
        bad.append(f"{name}: {seconds:.2f} s, expected less than {SECONDS} (times {BUSY} on a busy machine)")
    return bad


def main():
    for needed in LAYOUT, REAP:
        if not needed.exists():
            print(f"SKIPPED: {needed} is not there; nothing of true size was planned", file=sys.stderr)
            sys.exit(77)
    bad = check("flash", "flash", 69187, 0) + check("pro", "pro", 145116, 0) + check("flash-0731-reap", REAP, 45821, 2977)
    sys.exit("\n".join(bad) or 0)


main()
