"""The evaluation set through the library, on the CPU: the same scores as evaluate.py, from `dsv4 perplexity` and `dsv4 generate`.
Needs nothing beyond Python itself.

    python3 evaluate_cli.py [--dsv4 PATH] [--model DIR] [--set full|test|quick] [--groups single,multi] [--skip N] [--limit N] [--jobs 2]
                            [--check] [--json OUT] [-- more options for dsv4]

Greedy writing equals the right text exactly when every first choice along that text does, which one scoring shows; every conversation
that leaves it, and the first --written of each kind, are really written, the tools answering: freely, and those with tools once more held to
the grammar. --check: exit code 1 when a figure is below LEAST or above MOST.
"""
import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import encoding
import evalset
from play import play, rate

HERE = Path(__file__).resolve().parent
EOS_ID = 1
# A little under (over) what the default model scores: of the 21 conversations of the test one answer may be wrong.
LEAST = {"answer": 0.94, "calls": 0.90, "accept": 0.99, "grammar_answer": 0.90, "grammar_calls": 0.90}
MOST = {"perplexity": 1.003, "malformed": 0.01, "grammar_malformed": 0.0}


class Library:
    """A model behind the dsv4 tool; `jobs` processes of one thread."""

    def __init__(self, dsv4, model, jobs, extra):
        self.dsv4, self.model, self.jobs, self.extra = dsv4, model, jobs, extra

    def run(self, command, *args, text=""):
        p = subprocess.run([self.dsv4, command, "--model", self.model, *args], input=text.encode(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        if p.returncode: raise SystemExit(f"dsv4 {command} failed: {p.stderr.decode(errors='replace')[-500:]}")
        return p.stdout

    def each(self, f, xs):
        with ThreadPoolExecutor(self.jobs) as ex: return list(ex.map(f, xs))

    def tokenize(self, text): return json.loads(self.run("tokenize", text=text))

    def write(self, requests, grammar=False):
        """Greedy completions of requests, EOS included when reached."""
        def one(q):
            out = json.loads(self.run("generate", "--messages", "-", "--temperature", "0", "--max-tokens", "400", "--threads", "1", "--json", "--quiet",
                                      *([] if grammar else ["--unconstrained"]), *self.extra, text=json.dumps(q, ensure_ascii=False)))
            ids = [i for i in out["ids"] if i != EOS_ID] + ([EOS_ID] if out["finish"] in ("stop", "tool_calls") else [])
            return self.run("detokenize", text=json.dumps(ids)).decode(errors="replace")
        return self.each(one, requests)

    def score(self, texts):
        """Per text: right [n] bool, nll [n], draft equal to the model's own choice [n] bool, over what the assistant wrote."""
        assistant, = self.tokenize(encoding.ASSISTANT)
        rows = self.each(self.tokenize, texts)
        # The longest first, dealt out in turn: every process gets about the same.
        order = sorted(range(len(rows)), key=lambda i: -len(rows[i]))
        out = [None] * len(rows)

        def some(part):
            with tempfile.TemporaryDirectory() as folder:
                files = [os.path.join(folder, str(i)) for i in part]
                for f, i in zip(files, part): Path(f).write_text(" ".join(map(str, rows[i])))
                return part, json.loads(self.run("perplexity", "--tokens", *files, "--draft", "--each", "--json", "--threads", "1", "--quiet", *self.extra))
        for part, r in self.each(some, [order[j::self.jobs] for j in range(min(self.jobs, len(order)))]):
            for i, t in zip(part, r["texts"]):
                e, mine = t["each"], own(rows[i], assistant)
                out[i] = {"right": [e["top"][p - 1] == rows[i][p] for p in mine], "nll": [e["loss"][p - 1] for p in mine],
                          "draft": [e["draft"][p - 1] == e["top"][p - 1] for p in mine if e["draft"][p - 1] >= 0]}
        return out


def own(ids, assistant):
    """Positions of what the assistant wrote: after its header's <think> or </think>, to EOS included."""
    out, mine = [], False
    for p, t in enumerate(ids):
        if mine: out.append(p)
        if t == EOS_ID: mine = False
        elif p and ids[p - 1] == assistant: mine = True
    return out


def gold_text(x): return encoding.encode(dict(x["request"], messages=x["request"]["messages"] + x["gold"]))


def evaluate(lib, group, items, written, show):
    """-> figures of this group, and the counts behind them"""
    t0, sc = time.time(), lib.score([gold_text(x) for x in items])
    st = Counter(n=len(items), tokens=sum(len(s["nll"]) for s in sc), drafts=sum(len(s["draft"]) for s in sc))
    st["accepted"], nll = sum(map(sum, (s["draft"] for s in sc))), sum(sum(s["nll"]) for s in sc)
    on = [all(s["right"]) for s in sc]
    if group in ("needle4k", "needle8k"): written = 0          # the same prefill once more, for a line
    pick = [i for i in range(len(items)) if not on[i] or i < written]
    vs = [dict(calls=True, answer=True, malformed=False)] * len(items)
    for i, v in zip(pick, play(lib.write, [items[i] for i in pick])): vs[i] = v
    r = {"n": len(items), "answer": rate(vs, "answer"), "loss": nll / st["tokens"], "accept": st["accepted"] / st["drafts"], "written": len(pick)}
    sums = {"answer": vs}
    if "world" in items[0]:
        r["calls"], r["malformed"] = rate(vs, "calls"), rate(vs, "malformed")
        held = play(lambda qs: lib.write(qs, grammar=True), [items[i] for i in pick])
        if held: r["grammar"] = {"n": len(held), **{k: rate(held, k) for k in ("answer", "calls", "malformed")}}
        sums.update(calls=vs, malformed=vs, grammar=held)
    r["seconds"] = round(time.time() - t0, 1)
    if show:
        for i, v in zip(pick, (vs[i] for i in pick)):
            if not v["answer"]: print("  MISS", items[i]["id"], json.dumps(v, ensure_ascii=False))
        for i, v in zip(pick, sums.get("grammar", [])):
            if not v["answer"]: print("  MISS with grammar", items[i]["id"], json.dumps(v, ensure_ascii=False))
    for i in pick:
        if on[i] and not vs[i]["answer"]: raise SystemExit(f"{items[i]['id']}: every first choice is right and yet something else was written: {vs[i]}")
    return r, st, nll, sums


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--dsv4", default="dsv4")
    a.add_argument("--model", default=str(HERE.parent))
    a.add_argument("--set", default="quick", choices=evalset.SETS)
    a.add_argument("--groups")
    a.add_argument("--skip", type=int, default=0, help="leave out so many of each kind")
    a.add_argument("--limit", type=int, default=10 ** 9, help="and stop after this one")
    a.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    a.add_argument("--written", type=int, default=20, help="so many of each kind are really written, right or not")
    a.add_argument("--check", action="store_true", help="exit with 1 when the scores are not what they should be")
    a.add_argument("--json", help="file for the figures")
    a.add_argument("--show", action="store_true")
    a, extra = a.parse_known_args()
    lib = Library(a.dsv4, a.model, a.jobs, [x for x in extra if x != "--"])
    res, total, nll, sums = {}, Counter(), 0.0, {"answer": [], "calls": [], "malformed": [], "grammar": []}
    for g, n in evalset.SETS[a.set].items():
        if a.groups and g not in a.groups.split(","): continue
        items = list(evalset.items(g, min(n, a.limit)))[a.skip:]
        if not items: raise SystemExit(f"{g}: nothing is left of {n} with --skip {a.skip} --limit {a.limit}; --limit is the number of the last one")
        res[g], st, loss, ss = evaluate(lib, g, items, a.written, a.show)
        print(g, json.dumps(res[g]), flush=True)
        if g in ("whole", "votes", "far"): continue                # with scores of their own
        total.update(st)
        nll += loss
        for k, v in ss.items(): sums[k] += v
    all_ = {}
    if total: all_ = res["all"] = {"n": total["n"], "answer": rate(sums["answer"], "answer"), "accept": total["accepted"] / total["drafts"],
                                   "perplexity": math.exp(nll / total["tokens"])}
    for k in ("calls", "malformed"):
        if sums[k]: all_[k] = rate(sums[k], k)
    for k in ("answer", "calls", "malformed"):
        if sums["grammar"]: all_["grammar_" + k] = rate(sums["grammar"], k)
    print("all", json.dumps(all_), flush=True)
    if a.json: Path(a.json).write_text(json.dumps(res, indent=1) + "\n")
    bad = [f"{k} {all_[k]:.4f} < {v}" for k, v in LEAST.items() if k in all_ and all_[k] < v]
    bad += [f"{k} {all_[k]:.4f} > {v}" for k, v in MOST.items() if k in all_ and all_[k] > v]
    if a.check and bad: print("not good enough: " + ", ".join(bad))
    return 1 if a.check and bad else 0


if __name__ == "__main__": sys.exit(main())
