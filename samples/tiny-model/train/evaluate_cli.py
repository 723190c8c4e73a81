"""The evaluation set through the library: every completion comes from `dsv4 generate`, greedy and without constrained decoding.
Needs nothing beyond Python itself.

    python3 evaluate_cli.py [--dsv4 PATH] [--model DIR] [--set quick|full] [--groups single,multi] [--limit N] [--jobs 2] [-- more options for dsv4]
"""
import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import evalset
from play import play, rate

HERE = Path(__file__).resolve().parent
EOS_ID = 1


def writer(dsv4, model, jobs, extra):
    """prompts -> completions, each by its own process of one thread."""
    def run(args, text):
        p = subprocess.run([dsv4, *args], input=text.encode(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        if p.returncode: raise SystemExit(f"dsv4 {args[0]} failed: {p.stderr.decode(errors='replace')[-500:]}")
        return p.stdout

    def one(prompt):
        ids = json.loads(run(["tokenize", "--model", model], prompt))
        r = json.loads(run(["generate", "--model", model, "--tokens", "-", "--temperature", "0", "--max-tokens", "400", "--threads", "1", "--json",
                            "--quiet", *extra], " ".join(map(str, ids))))
        ids = [i for i in r["ids"] if i != EOS_ID] + ([EOS_ID] if r["finish"] == "stop" else [])
        return run(["detokenize", "--model", model], json.dumps(ids)).decode(errors="replace")

    def write(prompts):
        with ThreadPoolExecutor(jobs) as ex: return list(ex.map(one, prompts))
    return write


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--dsv4", default="dsv4")
    a.add_argument("--model", default=str(HERE.parent))
    a.add_argument("--set", default="quick", choices=evalset.SETS)
    a.add_argument("--groups")
    a.add_argument("--limit", type=int, default=10 ** 9)
    a.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    a.add_argument("--least", type=float, default=0.0, help="exit with 1 when fewer of all answers are right")
    a.add_argument("--show", action="store_true")
    a, extra = a.parse_known_args()
    write = writer(a.dsv4, a.model, a.jobs, [x for x in extra if x != "--"])
    res, every = {}, []
    for g, n in evalset.SETS[a.set].items():
        if a.groups and g not in a.groups.split(","): continue
        t0, its = time.time(), list(evalset.items(g, min(n, a.limit)))
        vs = play(write, its)
        every += vs
        res[g] = {"n": len(its), "answer": rate(vs, "answer"), "calls": rate(vs, "calls"), "malformed": rate(vs, "malformed"), "seconds": round(time.time() - t0, 1)}
        print(g, json.dumps(res[g]), flush=True)
        if a.show:
            for x, v in zip(its, vs):
                if not v["answer"]: print("  MISS", x["id"], v)
    right = rate(every, "answer")
    print(json.dumps({"answers_right": right, "of": len(every)}))
    return 0 if right >= a.least else 1


if __name__ == "__main__": sys.exit(main())
