"""The evaluation set: conversations over held-out names, with what a right model does.

    python3 evalset.py OUT.jsonl [--set full|quick]

One JSON object per line: "request" (what `dsv4 encode` takes, ending with the user's message), "gold" (the assistant and tool messages
that should follow), "tools" (which kind of tool each offered name is), "world" (enough to answer any call: see reply()).
"""
import argparse
import json
import random

import chat
import talk
from world import Names, Tool, World

MODES = (["chat", "thinking", "max"], [0.5, 0.4, 0.1])


def _tool_item(i, group, r, nm):
    w = World(r.getrandbits(48), unseen=True)
    t = talk.single(r, nm, w, r.choice(talk.SINGLE + ["invented"] * 6)) if group == "single" else talk.multi(r, nm, w, talk.MULTI[i % len(talk.MULTI)])
    notes = dict(w.notes)
    tools = talk.tool_set(r, nm, [t], r.choice([0, 1, 1, 2, 2, 3, 4]))
    q = talk.converse(r, nm, [t], w, r.choices(*MODES)[0], tools)
    return {"request": dict(q, messages=q["messages"][:2]), "gold": q["messages"][2:],
            "tools": [{"kind": x.kind, "name": x.name, "params": x.params} for x in tools[0]],
            "world": {"salt": w.salt, "notes": notes, "fail": w.fail}}


def _chat_item(i, group, r, nm):
    while True:
        q = chat.short_chat(r, nm)
        if q["messages"][-1]["content"] and sum(m["role"] == "user" for m in q["messages"]) == 1: break
    return {"request": dict(q, messages=q["messages"][:-1]), "gold": q["messages"][-1:]}


def _needle_item(i, group, r, nm):
    """One fact asked for, its distance from the question in tokens near `group`."""
    want = {"needle1k": 1000, "needle4k": 4000, "needle8k": 8000}[group]
    total = r.uniform(1.02, 1.10) * want
    q, _ = chat.long_text(r, nm, int(total * 3.75), at=min(want / total, 0.98), n_facts=r.randint(6, 24))
    return {"request": dict(q, messages=q["messages"][:2]), "gold": q["messages"][2:3]}


def _whole_item(i, group, r, nm):
    """A question about the whole text, which no single place answers: who leads by 3 to 9 % of the votes."""
    while True:
        q = chat.tally(r, int(r.uniform(1500, 7500)), 0.03, 0.09)
        if len(q["messages"]) == 3: return {"request": dict(q, messages=q["messages"][:2]), "gold": q["messages"][2:]}


GROUPS = {"single": _tool_item, "multi": _tool_item, "chat": _chat_item, "needle1k": _needle_item, "needle4k": _needle_item, "needle8k": _needle_item,
          "whole": _whole_item}
SETS = {"full": {"single": 500, "multi": 200, "chat": 100, "needle1k": 100, "needle4k": 100, "needle8k": 100, "whole": 100},
        "quick": {"single": 8, "multi": 4, "chat": 6, "needle1k": 1},
        "test": {"single": 8, "multi": 4, "chat": 6, "needle1k": 1, "needle4k": 1, "needle8k": 1}}


def items(group, n, seed=77):
    for i in range(n):
        r = random.Random(f"{seed}{group}{i}")
        yield dict(id=f"{group}-{i}", group=group, **GROUPS[group](i, group, r, Names(r, unseen=True)))


def reply(item, calls, notes=None):
    """Tool messages for the calls a model made; what does not fit is answered with an error."""
    w = World(item["world"]["salt"], True, item["world"]["notes"] if notes is None else notes, item["world"]["fail"])
    if notes is not None: w.notes = notes
    by = {t["name"]: Tool(t["kind"], t["name"], "", [tuple(p) for p in t["params"]]) for t in item["tools"]}
    out = []
    for c in calls:
        f = c["function"]
        slots = by[f["name"]].slots(json.loads(f["arguments"])) if f["name"] in by else None
        res = {"error": "bad call"} if slots is None else w.run(by[f["name"]].kind, slots)
        out.append({"role": "tool", "content": json.dumps(res, ensure_ascii=False)})
    return out


if __name__ == "__main__":
    a = argparse.ArgumentParser()
    a.add_argument("out")
    a.add_argument("--set", default="full", choices=SETS)
    a = a.parse_args()
    with open(a.out, "w", encoding="utf-8") as f:
        for g, n in SETS[a.set].items():
            for x in items(g, n): f.write(json.dumps(x, ensure_ascii=False) + "\n")
