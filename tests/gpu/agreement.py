#!/usr/bin/env python3
"""The default model on two backends: the same greedy text for every conversation of its quick evaluation, and the same
first choice token by token where both read the same text.

    agreement.py --dsv4 PATH [--first cpu] [--second cuda] [--model DIR] [--least 0.98]

Exit code 1 when the share of equal first choices is below --least. Texts that part company once differ from there on, so
their share is reported and no condition. Needs nothing beyond Python itself.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

TINY = Path(__file__).resolve().parents[2] / "samples" / "tiny-model"


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--dsv4", required=True)
    p.add_argument("--first", default="cpu")
    p.add_argument("--second", default="cuda")
    p.add_argument("--model", default=str(TINY))
    p.add_argument("--least", type=float, default=0.98)
    p.add_argument("--jobs", type=int, default=min(8, os.cpu_count() or 1))
    a = p.parse_args()

    def run(command, *args, text=""):
        r = subprocess.run([a.dsv4, command, "--model", a.model, *args], input=text.encode(), capture_output=True)
        if r.returncode:
            raise SystemExit(f"dsv4 {command} {' '.join(args)}: exit code {r.returncode}: {r.stderr.decode(errors='replace')[-500:]}")
        return r.stdout.decode()

    def read(command, *args, text=""):
        return json.loads(run(command, "--quiet", "--json", *args, text=text))

    def prompt(request):
        return json.loads(run("tokenize", text=run("encode", text=json.dumps(request, ensure_ascii=False))))

    requests = [json.loads(line)["request"] for line in (TINY / "quick.jsonl").read_text().splitlines()]

    def write(job):
        backend, request = job
        return read("generate", "--messages", "-", "--temperature", "0", "--max-tokens", "200", "--threads", "1",
                    "--backend", backend, text=json.dumps(request, ensure_ascii=False))["ids"]

    def first_choices(backend, files):
        return [t["each"]["top"] for t in read("perplexity", "--tokens", *files, "--each", "--backend", backend)["texts"]]

    with ThreadPoolExecutor(a.jobs) as pool:
        prompts = list(pool.map(prompt, requests))
        written = {b: list(pool.map(write, [(b, q) for q in requests])) for b in (a.first, a.second)}
    equal = sum(x == y for x, y in zip(written[a.first], written[a.second]))
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for i, ids in enumerate(prompts):
            files.append(os.path.join(folder, str(i)))
            Path(files[-1]).write_text(" ".join(map(str, ids + written[a.first][i])))
        tops = [first_choices(b, files) for b in (a.first, a.second)]
    same = total = 0
    answers = answer_tokens = 0
    for i, (x, y) in enumerate(zip(*tops)):
        agree = [u == v for u, v in zip(x, y)]
        same, total = same + sum(agree), total + len(agree)
        own = agree[len(prompts[i]) - 1:]
        answers, answer_tokens = answers + sum(own), answer_tokens + len(own)
    print(f"{a.first} and {a.second}: {equal} of {len(requests)} texts equal; same first choice at {same} of {total} tokens "
          f"({100 * same / total:.2f} %), at {answers} of {answer_tokens} of the answers ({100 * answers / answer_tokens:.2f} %)")
    return same < a.least * total


if __name__ == "__main__":
    sys.exit(main())
