"""Holding the evaluation's conversations with anything that completes requests.  Needs no torch."""
import json
import time

import encoding
import evalset


def calls_of(m):
    return [(c["function"]["name"], json.loads(c["function"]["arguments"])) for c in m.get("tool_calls") or []]


def play(write, items, rounds=5, seconds=1e9):
    """Let `write(requests) -> completions` hold the conversations, tools answering.  Per item: verdict and what it said."""
    state = [dict(ms=list(x["request"]["messages"]), first=None, final=None, bad=False, notes=dict(x.get("world", {}).get("notes", {}))) for x in items]
    t0 = time.time()
    for _ in range(rounds):
        live = [i for i, s in enumerate(state) if s["final"] is None and not s["bad"]]
        if not live or time.time() - t0 > seconds: break
        texts = write([dict(items[i]["request"], messages=state[i]["ms"]) for i in live])
        for i, text in zip(live, texts):
            s, think = state[i], items[i]["request"]["thinking_mode"] == "thinking"
            try: m = encoding.parse_completion(text, think)
            except ValueError as e:
                s["bad"], s["why"], s["text"] = True, str(e), text
                continue
            if s["first"] is None: s["first"] = m
            if m["tool_calls"]:
                for k, c in enumerate(m["tool_calls"]): c["id"] = f"m{len(s['ms'])}_{k}"
                s["ms"].append(m)
                try: rs = evalset.reply(items[i], m["tool_calls"], s["notes"]) if "world" in items[i] else None
                except Exception as e: rs, s["why"] = None, repr(e)
                if rs is None: s["bad"] = True
                else: s["ms"] += [dict(r, tool_call_id=c["id"]) for r, c in zip(rs, m["tool_calls"])]
            else: s["final"] = m["content"]
    out = []
    for x, s in zip(items, state):
        gold = x["gold"]
        v = dict(malformed=s["bad"] and "text" in s, final=s["final"], why=s.get("why", ""))
        v["calls"] = s["first"] is not None and calls_of(s["first"]) == calls_of(gold[0])
        v["answer"] = s["final"] == gold[-1]["content"]
        v["said"] = s.get("text") or (encoding.calls_block(s["first"]["tool_calls"]) if s["first"] and s["first"]["tool_calls"] else s["final"])
        out.append(v)
    return out


def rate(vs, key): return sum(bool(v[key]) for v in vs) / max(len(vs), 1)
