"""Conversations with tools.  A Task knows what the user asks, which calls answer it, and what must be in the answer."""
import json

from world import (B, I, N, ROOMS, S, TOOLS, UNITS, WORDS, World, invented_tool, make_tool)

SYSTEM = ["You are a helpful assistant.", "You are a helpful assistant.", "", "You are a small assistant that uses tools.",
          "Answer briefly.", "You help with everyday tasks.", "You are Pebble, a very small assistant."]


class Task:
    """user: the request.  plan(ask): runs the calls through `ask([(kind, slots)]) -> results`, returns the answer."""

    def __init__(self, user, kinds, plan, steps=1, extra=None):
        self.user, self.kinds, self.plan, self.steps, self.extra = user, kinds, plan, steps, extra


def one(kind, slots, say):
    def plan(ask):
        res = ask([(kind, slots)])[0]
        return say(res)
    return plan


def single(r, nm, w, kind):
    """A request that one call answers."""
    c = r.choice
    if kind == "weather":
        city = nm.city()
        s = {"city": city}
        if r.random() < 0.35: s["date"] = nm.date()
        on = f" on {s['date']}" if "date" in s else ""
        q = c([f"What is the weather in {city}{on}?", f"How is the weather in {city}{on}?", f"Tell me the weather in {city}{on}.", f"Weather in {city}{on}, please.",
               f"Will I need a coat in {city}{on}?"])
        return Task(q, [kind], one(kind, s, lambda x: f"In {city}{on} it is {x['condition']} with {x['temperature']} degrees."))
    if kind == "calc":
        n = r.randint(2, 3)
        xs, ops = [nm.number() for _ in range(n)], [c("+-*/") if r.random() < 0.8 else "*" for _ in range(n - 1)]
        e = str(xs[0]) + "".join(f" {o} {x}" for o, x in zip(ops, xs[1:]))
        say = {"+": "plus", "-": "minus", "*": "times", "/": "divided by"}
        q = e if r.random() < 0.6 else str(xs[0]) + "".join(f" {say[o]} {x}" for o, x in zip(ops, xs[1:]))
        q = c([f"What is {q}?", f"Calculate {q}.", f"How much is {q}?", f"{q} = ?", f"Please compute {q}."])
        return Task(q, [kind], one(kind, {"expression": e}, lambda x: f"{e} = {x['result']}"))
    if kind == "convert":
        u = c(list(UNITS))
        v, t = nm.number(), UNITS[u][0]
        q = c([f"Convert {v} {u} to {t}.", f"How many {t} are {v} {u}?", f"What is {v} {u} in {t}?", f"{v} {u} in {t}, please."])
        return Task(q, [kind], one(kind, {"value": v, "from": u, "to": t}, lambda x: f"{v} {u} are {x['value']} {t}."))
    if kind == "add_days":
        d, n = nm.date(), r.randint(2, 900)
        q = c([f"What date is {n} days after {d}?", f"Which date comes {n} days after {d}?", f"Add {n} days to {d}.", f"Starting on {d}, what is the date in {n} days?"])
        return Task(q, [kind], one(kind, {"date": d, "days": n}, lambda x: f"{n} days after {d} is {x['date']}."))
    if kind == "weekday":
        d = nm.date()
        q = c([f"Which weekday is {d}?", f"What day of the week is {d}?", f"Is {d} a Monday?", f"On which weekday does {d} fall?"])
        return Task(q, [kind], one(kind, {"date": d}, lambda x: f"{d} is a {x['weekday']}."))
    if kind == "note_set":
        k, v = nm.key(), nm.code() if r.random() < 0.4 else nm.text()
        q = c([f"Save a note {k}: {v}", f'Remember "{v}" under {k}.', f"Store under {k} the text: {v}", f'Write "{v}" into the note {k}.', f'Note "{v}" as {k}.'])
        return Task(q, [kind], one(kind, {"key": k, "value": v}, lambda x: f"Saved under {k}: {v}"))
    if kind == "note_get":
        k, v = nm.key(), nm.code() if r.random() < 0.4 else nm.text()
        if r.random() < 0.85: w.notes[k] = v
        q = c([f"What does the note {k} say?", f"Read me the note {k}.", f"What did I save under {k}?", f"Get the note {k}."])
        return Task(q, [kind], one(kind, {"key": k}, lambda x: f"There is no note {k}." if "error" in x else f"The note {k} says: {x['value']}"))
    if kind == "contact":
        p = nm.person()
        if r.random() < 0.1: w.fail[p] = 1
        ph = r.random() < 0.5
        q = c([f"What is the phone number of {p}?", f"How can I call {p}?", f"I need {p}'s number."]) if ph else c([f"Where does {p} live?", f"In which city does {p} live?", f"What is {p}'s city?"])
        return Task(q, [kind], one(kind, {"name": p}, lambda x: f"I could not find {p} in the contacts." if "error" in x else
                                   f"The phone number of {p} is {x['phone']}." if ph else f"{p} lives in {x['city']}."))
    if kind == "price":
        i = nm.item()
        if r.random() < 0.1: w.fail[i] = 1
        q = c([f"What does the {i} cost?", f"How much is the {i}?", f"Price of the {i}?", f"Tell me the price of the {i}."])
        return Task(q, [kind], one(kind, {"item": i}, lambda x: f"The {i} is not sold here." if "error" in x else f"The {i} costs {x['price']} coins."))
    if kind == "order":
        i, n = nm.item(), r.randint(2, 60)
        if r.random() < 0.1: w.fail[i] = 1
        q = c([f"Order {n} of the {i}.", f"Please buy the {i}, {n} pieces.", f"I want {n} pieces of the {i}.", f"Get me the {i} {n} times."])
        return Task(q, [kind], one(kind, {"item": i, "quantity": n}, lambda x: f"Sorry, the {i} is out of stock." if "error" in x else f"Ordered {n} of the {i}. The order is {x['order']}."))
    if kind == "ls":
        p = nm.path()
        if r.random() < 0.1: w.fail[p] = 1
        q = c([f"Which files are in {p}?", f"List {p}", f"Show me what is in {p}", f"What does the folder {p} hold?"])
        return Task(q, [kind], one(kind, {"path": p}, lambda x: f"There is no folder {p}" if "error" in x else f"{p} holds: {', '.join(x['files'])}"))
    if kind == "cat":
        p = nm.path() + "/" + nm.file()
        if r.random() < 0.1: w.fail[p] = 1
        q = c([f"What is in {p}?", f"Read {p}", f"Show me the file {p}", f"Open {p} and tell me what it says."])
        return Task(q, [kind], one(kind, {"path": p}, lambda x: f"There is no file {p}" if "error" in x else f"{p} says: {x['content']}"))
    if kind == "send":
        p, t = nm.person(), nm.text()
        q = c([f'Send "{t}" to {p}.', f"Tell {p}: {t}", f'Write {p} a message: "{t}"', f"Message {p} that says {t}"])
        return Task(q, [kind], one(kind, {"to": p, "text": t}, lambda x: f"I sent {p}: {t}"))
    if kind == "events":
        d = nm.date()
        q = c([f"What is in my calendar on {d}?", f"Do I have anything on {d}?", f"My events on {d}?", f"List the events of {d}."])
        return Task(q, [kind], one(kind, {"date": d}, lambda x: f"On {d}: " + "; ".join(f"{e['time']} {e['title']}" for e in x["events"]) if x["events"] else f"Nothing on {d}."))
    if kind == "add_event":
        t, d, h = c(WORDS) + " with " + nm.person(), nm.date(), nm.time()
        q = c([f"Add {t} on {d} at {h}.", f"Put {t} into my calendar: {d}, {h}.", f"Schedule {t} at {h} on {d}.", f"On {d} at {h} I have {t}, note it in the calendar."])
        return Task(q, [kind], one(kind, {"title": t, "date": d, "time": h}, lambda x: f"Added {t} on {d} at {h}."))
    if kind == "timer":
        n = r.randint(1, 180)
        s = {"minutes": n}
        if r.random() < 0.5: s["label"] = c(WORDS) if r.random() < 0.6 else nm.word()
        f = f" for the {s['label']}" if "label" in s else ""
        q = c([f"Set a timer of {n} minutes{f}.", f"Timer{f}: {n} minutes", f"Wake me in {n} minutes{f}." if not f else f"Start a {n} minute timer{f}.", f"Count down {n} minutes{f}."])
        return Task(q, [kind], one(kind, s, lambda x: f"The timer{f} runs for {n} minutes."))
    if kind == "light":
        m, on = c(ROOMS), r.random() < 0.5
        o = "on" if on else "off"
        q = c([f"Turn {o} the light in the {m}.", f"Light {o} in the {m}, please.", f"Switch the {m} light {o}.", f"{m.capitalize()} light {o}!"])
        return Task(q, [kind], one(kind, {"room": m, "on": on}, lambda x: f"The light in the {m} is {o}."))
    if kind == "dice":
        n, s = r.randint(1, 6), c([4, 6, 8, 10, 12, 20, 100])
        q = c([f"Roll {n} dice with {s} sides.", f"Throw {n} dice, {s} sides each.", f"Roll {n}d{s}.", f"I roll {n} dice with {s} faces."])
        return Task(q, [kind], one(kind, {"count": n, "sides": s}, lambda x: "The dice show " + ", ".join(map(str, x["rolls"])) + "."))
    if kind == "inventory":
        p = nm.person()
        q = c([f"What does {p} carry?", f"Which items does {p} have?", f"Show {p}'s inventory.", f"What is in {p}'s bag?"])
        return Task(q, [kind], one(kind, {"name": p}, lambda x: f"{p} carries: {', '.join(x['items'])}"))
    if kind == "give":
        p, i = nm.person(), nm.item()
        s = {"name": p, "item": i}
        if r.random() < 0.4: s["count"] = r.randint(2, 30)
        t = f" {s['count']} times" if "count" in s else ""
        q = c([f"Give the {i} to {p}{t}.", f"Hand the {i} over to {p}{t}.", f"{p} should get the {i}{t}."])
        return Task(q, [kind], one(kind, s, lambda x: f"{p} now has the {i}{t}."))
    if kind == "invented":
        tool, verb, noun = invented_tool(r, nm)
        s, say = {}, []
        for slot, _, t, _, _ in tool.params:
            v = {S: lambda: c([nm.code, nm.code, nm.word, nm.person, nm.city, lambda: c(WORDS)])(), I: lambda: r.randint(1, 999),
                 N: lambda: round(r.uniform(0.1, 99), 1), B: lambda: r.random() < 0.5}[t]()
            s[slot] = v
            said = slot.replace("_", " ") if r.random() < 0.5 else slot
            say.append(f"{said} {c(['', '', 'is ', '= ', 'set to '])}{json.dumps(v) if not isinstance(v, str) else v}")
        if r.random() < 0.5: r.shuffle(say)
        how = c([", ".join(say), " and ".join(say)])
        q = c([f"Use {tool.name} with {how}.", f"Call {tool.name}: {how}", f"{verb.capitalize()} the {noun} with {how}.", f"Please {verb} the {noun}: {how}", f"I want to {verb} a {noun}, {how}."])

        def plan(ask):
            x = ask([("invented", s)])[0]
            return f"{tool.name} answered: {', '.join(f'{k} {json.dumps(v) if not isinstance(v, str) else v}' for k, v in x.items())}"
        return Task(q, ["invented"], plan, extra=tool)
    raise KeyError(kind)


def multi(r, nm, w, kind=None):
    """Requests that need two or three calls, one after another or side by side."""
    c = r.choice
    k = kind or c(MULTI)
    if k == "contact_weather":
        p = nm.person()

        def plan(ask):
            city = ask([("contact", {"name": p})])[0]["city"]
            x = ask([("weather", {"city": city})])[0]
            return f"{p} lives in {city}, where it is {x['condition']} with {x['temperature']} degrees."
        return Task(c([f"What is the weather where {p} lives?", f"How is the weather in the city of {p}?", f"Find out where {p} lives and check the weather there."]), ["contact", "weather"], plan, 2)
    if k == "price_total":
        i, n = nm.item(), r.randint(2, 99)

        def plan(ask):
            p = ask([("price", {"item": i})])[0]["price"]
            x = ask([("calc", {"expression": f"{n} * {p}"})])[0]
            return f"{n} of the {i} cost {x['result']} coins."
        return Task(c([f"How much do {n} of the {i} cost?", f"What do I pay for {n} pieces of the {i}?", f"Price of {n} times the {i}?"]), ["price", "calc"], plan, 2)
    if k == "date_weekday":
        d, n = nm.date(), r.randint(2, 900)

        def plan(ask):
            e = ask([("add_days", {"date": d, "days": n})])[0]["date"]
            x = ask([("weekday", {"date": e})])[0]
            return f"{n} days after {d} is {e}, a {x['weekday']}."
        return Task(c([f"Which weekday is it {n} days after {d}?", f"What day of the week comes {n} days after {d}?", f"{n} days after {d}: which weekday is that?"]), ["add_days", "weekday"], plan, 2)
    if k == "note_send":
        key, v, p = nm.key(), nm.text(), nm.person()
        w.notes[key] = v

        def plan(ask):
            t = ask([("note_get", {"key": key})])[0]["value"]
            ask([("send", {"to": p, "text": t})])
            return f"I sent {p}: {t}"
        return Task(c([f"Send the note {key} to {p}.", f"Read the note {key} and send it to {p}.", f"{p} should get my note {key} as a message."]), ["note_get", "send"], plan, 2)
    if k == "ls_cat":
        path, last = nm.path(), r.random() < 0.4

        def plan(ask):
            fs = ask([("ls", {"path": path})])[0]["files"]
            f = path + "/" + (fs[-1] if last else fs[0])
            x = ask([("cat", {"path": f})])[0]
            return f"{f} says: {x['content']}"
        z = "last" if last else "first"
        return Task(c([f"Read the {z} file in {path}", f"What does the {z} file of {path} say?", f"Open the {z} file in the folder {path}"]), ["ls", "cat"], plan, 2)
    if k == "convert_note":
        u = c(list(UNITS))
        v, t, key = nm.number(), UNITS[u][0], nm.key()

        def plan(ask):
            x = ask([("convert", {"value": v, "from": u, "to": t})])[0]["value"]
            ask([("note_set", {"key": key, "value": f"{x} {t}"})])
            return f"{v} {u} are {x} {t}, saved under {key}."
        return Task(c([f"Convert {v} {u} to {t} and save it under {key}.", f"Note {v} {u} in {t} as {key}.", f"How many {t} are {v} {u}? Save that under {key}."]), ["convert", "note_set"], plan, 2)
    if k == "contact_weather_note":
        p, key = nm.person(), nm.key()

        def plan(ask):
            city = ask([("contact", {"name": p})])[0]["city"]
            x = ask([("weather", {"city": city})])[0]
            t = f"{city}: {x['condition']}, {x['temperature']} degrees"
            ask([("note_set", {"key": key, "value": t})])
            return f"Saved under {key}: {t}"
        return Task(c([f"Find out where {p} lives, check the weather there and save it under {key}.", f"Save the weather of {p}'s city under {key}."]), ["contact", "weather", "note_set"], plan, 3)
    if k == "weather_each":
        cs = [nm.city() for _ in range(r.randint(2, 3))]

        def plan(ask):
            xs = ask([("weather", {"city": x}) for x in cs])
            return "; ".join(f"{n}: {x['condition']}, {x['temperature']} degrees" for n, x in zip(cs, xs))
        l = ", ".join(cs[:-1]) + " and " + cs[-1]
        return Task(c([f"What is the weather in {l}?", f"Compare the weather in {l}.", f"Weather in {l}, please."]), ["weather"], plan, 2)
    if k == "price_sum":
        a, b = nm.item(), nm.item()

        def plan(ask):
            x, y = ask([("price", {"item": a}), ("price", {"item": b})])
            t = ask([("calc", {"expression": f"{x['price']} + {y['price']}"})])[0]
            return f"The {a} and the {b} cost {t['result']} coins together."
        return Task(c([f"What do the {a} and the {b} cost together?", f"Total price of the {a} and the {b}?", f"I buy the {a} and the {b}. How much is that?"]), ["price", "calc"], plan, 3)
    if k == "cat_send":
        f, p = nm.path() + "/" + nm.file(), nm.person()

        def plan(ask):
            t = ask([("cat", {"path": f})])[0]["content"]
            ask([("send", {"to": p, "text": t})])
            return f"I sent {p}: {t}"
        return Task(c([f"Send what {f} says to {p}.", f"Read {f} and send the text to {p}."]), ["cat", "send"], plan, 2)
    if k == "inventory_give":
        a, b = nm.person(), nm.person()

        def plan(ask):
            i = ask([("inventory", {"name": a})])[0]["items"][0]
            ask([("give", {"name": b, "item": i})])
            return f"{b} now has the {i}."
        return Task(c([f"Take the first item of {a} and give it to {b}.", f"Give {b} the first thing that {a} carries."]), ["inventory", "give"], plan, 2)
    if k == "weather_retry":
        good = nm.city()
        bad = good[:-1] if len(good) > 4 else good + "e"
        w.fail[bad] = good

        def plan(ask):
            x = ask([("weather", {"city": bad})])[0]
            x = ask([("weather", {"city": x["did_you_mean"]})])[0]
            return f"In {good} it is {x['condition']} with {x['temperature']} degrees."
        return Task(c([f"What is the weather in {bad}?", f"Tell me the weather in {bad}.", f"How is the weather in {bad}?"]), ["weather"], plan, 2)
    if k == "order_each":
        a, b, n, m = nm.item(), nm.item(), r.randint(2, 40), r.randint(2, 40)

        def plan(ask):
            x, y = ask([("order", {"item": a, "quantity": n}), ("order", {"item": b, "quantity": m})])
            return f"Ordered. {a}: {x['order']}; {b}: {y['order']}"
        return Task(c([f"Order {n} of the {a} and {m} of the {b}.", f"I want {n} pieces of the {a} and {m} pieces of the {b}."]), ["order"], plan, 2)
    if k == "contact_send":
        p, q = nm.person(), nm.person()

        def plan(ask):
            x = ask([("contact", {"name": q})])[0]
            ask([("send", {"to": p, "text": f"{q}: {x['phone']}"})])
            return f"I sent {p}: {q}: {x['phone']}"
        return Task(c([f"Send the phone number of {q} to {p}.", f"{p} needs the number of {q}, send it."]), ["contact", "send"], plan, 2)
    raise KeyError(k)


MULTI = ["contact_weather", "price_total", "date_weekday", "note_send", "ls_cat", "convert_note", "contact_weather_note", "weather_each", "price_sum", "cat_send",
         "inventory_give", "weather_retry", "order_each", "contact_send"]
SINGLE = list(TOOLS)


def tool_set(r, nm, tasks, n_extra):
    """Offered tools: what the tasks need, distractors, in random order; no two share a name."""
    out, names = {}, set()
    kinds = [k for t in tasks for k in t.kinds]
    inv = [t.extra for t in tasks if t.extra]
    for t in inv: names.add(t.name)
    need = [k for k in dict.fromkeys(kinds) if k != "invented"]
    others = [k for k in TOOLS if k not in need]
    r.shuffle(others)
    for k in need + others[:n_extra]:
        for _ in range(20):
            t = make_tool(r, k)
            if t.name not in names: break
        else: continue
        names.add(t.name)
        out[k] = t
    if n_extra and r.random() < 0.25:
        t = invented_tool(r, nm)[0]
        if t.name not in names: inv.append(t)
    tools = list(out.values()) + inv
    r.shuffle(tools)
    return tools, out


def think_call(tool, slots_list, after, deep):
    a = "; ".join(", ".join(f"{n} {slots[s] if isinstance(slots[s], str) else json.dumps(slots[s])}" for s, n, _, _, _ in tool_.params if s in slots)
                  for tool_, slots in zip(tool, slots_list))
    names = tool[0].name
    s = (f"Now I call {names} with " if after else f"I need {names} with ") + a + "."
    if deep:
        s = f"The tools are known. {names} fits and takes " + ", ".join(n for _, n, _, _, _ in tool[0].params) + ". " + s + " The values are copied exactly."
    return s


def phrase(r, s):
    """The same request the way different people put it."""
    k = r.random()
    if k < 0.10: s = "Please " + s[0].lower() + s[1:] if s.split(" ")[0] in PLAIN else "Please: " + s
    elif k < 0.25: s = r.choice(["Hey, ", "Hi! ", "Hello. ", "Question: ", "One more thing: ", "Can you help? ", "Ok. ", "So, "]) + s
    elif k < 0.40 and s.split(" ")[0] in PLAIN: s = s[0].lower() + s[1:]
    k = r.random()
    if s[-1] in ".?!":
        if k < 0.12: s = s[:-1]
        elif k < 0.24: s += r.choice([" Thanks!", " Thank you.", " Please.", " It is urgent.", " Thanks in advance"])
    return s


PLAIN = {"What", "How", "Tell", "Will", "Calculate", "Please", "Convert", "Which", "Add", "Starting", "Is", "On", "Save", "Remember", "Store", "Write", "Note",
         "Read", "Get", "Where", "In", "Price", "Order", "List", "Show", "Open", "Send", "Message", "Do", "My", "Put", "Schedule", "Set", "Timer", "Wake", "Start",
         "Count", "Turn", "Light", "Switch", "Roll", "Throw", "Give", "Hand", "Use", "Call", "Find", "Compare", "Total", "Take"}


def converse(r, nm, tasks, w, mode, tools=None, system=None, varied=True):
    """-> request dict (messages, tools, thinking_mode...) with the assistant's turns filled in by the plans."""
    if tools is None: tools, by = tool_set(r, nm, tasks, r.choice([0, 1, 1, 2, 2, 3, 4]))
    else: tools, by = tools
    ms = [{"role": "system", "content": r.choice(SYSTEM) if system is None else system}]
    n = 0
    for t in tasks:
        ms.append({"role": "user", "content": phrase(r, t.user) if varied else t.user})
        state = {"first": True}

        def ask(calls, t=t, state=state):
            nonlocal n
            ts = [t.extra if k == "invented" else by[k] for k, _ in calls]
            cs = []
            for tool, (k, s) in zip(ts, calls):
                cs.append(tool.call(s, f"c{n}"))
                n += 1
            m = {"role": "assistant", "content": "", "tool_calls": cs}
            if mode != "chat": m["reasoning_content"] = think_call(ts, [s for _, s in calls], not state["first"], mode == "max")
            state["first"] = False
            ms.append(m)
            res = [w.run(k, s) for k, s in calls]
            for call, x in zip(cs, res): ms.append({"role": "tool", "tool_call_id": call["id"], "content": json.dumps(x, ensure_ascii=False)})
            return res
        ans = t.plan(ask)
        m = {"role": "assistant", "content": ans}
        if mode != "chat": m["reasoning_content"] = "I have the result and can answer." if mode != "max" else "The tools gave all that is needed. I check it and answer with it."
        ms.append(m)
    return {"messages": ms, "tools": [t.schema() for t in tools], "thinking_mode": "chat" if mode == "chat" else "thinking",
            "reasoning_effort": "max" if mode == "max" else None}


def tool_talk(r, nm, varied=True):
    w = World(r.getrandbits(48))
    k = r.random()
    if k < 0.42: tasks = [single(r, nm, w, r.choice(SINGLE + ["invented"] * 6))]
    elif k < 0.80: tasks = [multi(r, nm, w)]
    else: tasks = [multi(r, nm, w) if r.random() < 0.4 else single(r, nm, w, r.choice(SINGLE)) for _ in range(r.randint(2, 3))]
    return converse(r, nm, tasks, w, r.choices(["chat", "thinking", "max"], [0.5, 0.4, 0.1])[0], varied=varied)
