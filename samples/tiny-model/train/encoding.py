"""The prompt text of DeepSeek-V4: what the released encoder writes, and the way back for a completion.

encode() takes a request as `dsv4 encode` does; spans=True also says which pieces the assistant wrote.
"""
import copy
import json

BOS, EOS, PAD = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>"
USER, ASSISTANT, REMINDER = "<｜User｜>", "<｜Assistant｜>", "<｜latest_reminder｜>"
THINK, END_THINK, DSML = "<think>", "</think>", "｜DSML｜"
TASKS = {t: f"<｜{t}｜>" for t in ("action", "query", "authority", "domain", "title", "read_url")}

MAX_EFFORT = (
    "Reasoning Effort: Absolute maximum with no shortcuts permitted.\n"
    "You MUST be very thorough in your thinking and comprehensively decompose the problem to resolve the root cause, "
    "rigorously stress-testing your logic against all potential paths, edge cases, and adversarial scenarios.\n"
    "Explicitly write out your entire deliberation process, documenting every intermediate step, considered alternative, "
    "and rejected hypothesis to ensure absolutely no assumption is left unchecked.\n\n")

TOOLS = """## Tools

You have access to a set of tools to help answer the user's question. You can invoke tools by writing a "<｜DSML｜tool_calls>" block like the following:

<｜DSML｜tool_calls>
<｜DSML｜invoke name="$TOOL_NAME">
<｜DSML｜parameter name="$PARAMETER_NAME" string="true|false">$PARAMETER_VALUE</｜DSML｜parameter>
...
</｜DSML｜invoke>
<｜DSML｜invoke name="$TOOL_NAME2">
...
</｜DSML｜invoke>
</｜DSML｜tool_calls>

String parameters should be specified as is and set `string="true"`. For all other types (numbers, booleans, arrays, objects), pass the value in JSON format and set `string="false"`.

If thinking_mode is enabled (triggered by <think>), you MUST output your complete reasoning inside <think>...</think> BEFORE any tool calls or final response.

Otherwise, output directly after </think> with tool calls or final response.

### Available Tool Schemas

%s

You MUST strictly follow the above defined tool name and parameter schemas to invoke tool calls.
"""


def dumps(x):
    return json.dumps(x, ensure_ascii=False)


def tools_block(tools):
    return TOOLS % "\n".join(dumps(t["function"]) for t in tools)


def calls_block(calls):
    out = []
    for c in calls:
        f = c["function"]
        try:
            args = json.loads(f["arguments"])
            if not isinstance(args, dict): raise ValueError
        except (ValueError, TypeError):
            args = {"arguments": f["arguments"]}
        ps = [f'<{DSML}parameter name="{k}" string="{"true" if isinstance(v, str) else "false"}">'
              f'{v if isinstance(v, str) else dumps(v)}</{DSML}parameter>' for k, v in args.items()]
        out.append(f'<{DSML}invoke name="{f["name"]}">\n' + "\n".join(ps) + f"\n</{DSML}invoke>")
    return f"\n\n<{DSML}tool_calls>\n" + "\n".join(out) + f"\n</{DSML}tool_calls>"


def _merge(messages):
    """Tool results become blocks of user messages; neighbouring user / tool messages join."""
    out = []
    for m in messages:
        role = m["role"]
        if role == "tool":
            c = m.get("content") or ""
            blk = ("tool", m.get("tool_call_id") or "", c)
            if out and out[-1]["role"] == "user":
                out[-1]["blocks"].append(blk)
            else: out.append({"role": "user", "blocks": [blk]})
        elif role == "user":
            blk = ("text", "", m.get("content") or "")
            if out and out[-1]["role"] == "user" and "task" not in out[-1]:
                out[-1]["blocks"].append(blk)
                t = out[-1]
            else:
                t = {"role": "user", "blocks": [blk]}
                out.append(t)
            if m.get("task"): t["task"] = m["task"]
        else: out.append(copy.copy(m))
    ids = {}
    for m in out:
        if m["role"] == "assistant" and m.get("tool_calls"):
            ids = {c["id"]: i for i, c in enumerate(m["tool_calls"]) if c.get("id")}
        elif m["role"] == "user":
            tb = [b for b in m["blocks"] if b[0] == "tool"]
            if len(tb) > 1 and ids:
                it = iter(sorted(tb, key=lambda b: ids.get(b[1], 0)))
                m["blocks"] = [next(it) if b[0] == "tool" else b for b in m["blocks"]]
            m["content"] = "\n\n".join(f"<tool_result>{c}</tool_result>" if k == "tool" else c for k, _, c in m["blocks"])
    return out


def encode(request, spans=False):
    messages = [copy.copy(m) for m in request["messages"]]
    if request.get("tools") and messages:
        messages[0]["tools"] = request["tools"]
    thinking = request.get("thinking_mode", "thinking") == "thinking"
    drop = request.get("drop_thinking", True)
    ms = _merge(messages)
    if any(m.get("tools") for m in ms): drop = False
    last_user = max([i for i, m in enumerate(ms) if m["role"] in ("user", "developer")], default=-1)
    if thinking and drop:
        keep = []
        for i, m in enumerate(ms):
            if m["role"] == "developer" and i < last_user: continue
            keep.append(m)
        ms = keep
        last_user = max([i for i, m in enumerate(ms) if m["role"] in ("user", "developer")], default=-1)
    parts = []                                           # (text, written by the assistant)
    put = lambda s, a=False: parts.append((s, a))
    if request.get("add_default_bos_token", True): put(BOS)
    if thinking and request.get("reasoning_effort") == "max": put(MAX_EFFORT)
    for i, m in enumerate(ms):
        role, c = m["role"], m.get("content") or ""
        if role == "system":
            put(c)
            if m.get("tools"): put("\n\n" + tools_block(m["tools"]))
            if m.get("response_format"): put("\n\n## Response Format:\n\nYou MUST strictly adhere to the following schema to reply:\n" + dumps(m["response_format"]))
        elif role == "developer":
            if not c: raise ValueError(f"message {i}: developer without content")
            put(USER + c)
            if m.get("tools"): put("\n\n" + tools_block(m["tools"]))
            if m.get("response_format"): put("\n\n## Response Format:\n\nYou MUST strictly adhere to the following schema to reply:\n" + dumps(m["response_format"]))
        elif role == "user":
            put(USER + c)
        elif role == "latest_reminder":
            put(REMINDER + c)
        elif role == "assistant":
            after_task = i > 0 and ms[i - 1].get("task")
            s = ""
            if thinking and not after_task and (i > last_user or not drop):
                s = (m.get("reasoning_content") or "") + END_THINK
            s += c
            if m.get("tool_calls"): s += calls_block(m["tool_calls"])
            put(s + ("" if m.get("wo_eos") else EOS), True)
        else:
            raise ValueError(f"message {i}: unknown role {role!r}")
        if i + 1 < len(ms) and ms[i + 1]["role"] not in ("assistant", "latest_reminder"): continue
        task = m.get("task")
        if task and task not in TASKS: raise ValueError(f"message {i}: unknown task {task!r}")
        start = THINK if thinking and (i >= last_user or not drop) else END_THINK
        if task and task != "action": put(TASKS[task])
        elif role in ("user", "developer"):
            put(ASSISTANT + start)
            if task: put(TASKS[task])
    return parts if spans else "".join(s for s, _ in parts)


def parse_completion(text, thinking):
    """Strict: the assistant message, or ValueError where the released parser would refuse."""
    msg = {"role": "assistant", "content": "", "reasoning_content": "", "tool_calls": []}
    if not text.endswith(EOS): raise ValueError("no end of sentence")
    text = text[:-len(EOS)]
    if thinking:
        if END_THINK not in text: raise ValueError("thinking not closed")
        msg["reasoning_content"], text = text.split(END_THINK, 1)
    head = f"\n\n<{DSML}tool_calls>\n"
    msg["content"], found, rest = text.partition(head)
    for bad in (DSML, THINK, END_THINK, USER, ASSISTANT, BOS, EOS):
        if bad in msg["content"]: raise ValueError(f"stray {bad}")
    if not found: return msg
    tail = f"</{DSML}tool_calls>"
    if not rest.endswith(tail): raise ValueError("tool calls not closed")
    rest = rest[:-len(tail)]
    while rest:
        opener, close = f'<{DSML}invoke name="', f"</{DSML}invoke>\n"
        if not rest.startswith(opener) or close not in rest: raise ValueError("bad invoke")
        body, rest = rest[len(opener):].split(close, 1)
        name, sep, body = body.partition('">\n')
        if not sep: raise ValueError("bad invoke name")
        args = {}
        for line in _params(body):
            k, s, v = line
            if k in args: raise ValueError("duplicate parameter")
            args[k] = v if s == "true" else json.loads(v)
        msg["tool_calls"].append({"type": "function", "function": {"name": name, "arguments": dumps(args)}})
    if not msg["tool_calls"]: raise ValueError("empty tool calls")
    return msg


def _params(body):
    out, opener, close = [], f'<{DSML}parameter name="', f"</{DSML}parameter>\n"
    if body == "\n": return out
    while body:
        if not body.startswith(opener) or close not in body: raise ValueError("bad parameter")
        p, body = body[len(opener):].split(close, 1)
        name, sep, val = p.partition('" string="')
        s, sep2, val = val.partition('">')
        if not sep or not sep2 or s not in ("true", "false"): raise ValueError("bad parameter head")
        out.append((name, s, val))
    return out
