"""Talk without calls: greetings, the small world, game characters, code, and long texts with facts to be found again."""
from world import ADJ, CONDITIONS, NOUN, TOOLS, WORDS, make_tool

HELLO = [("Hello!", "Hello! How can I help you?"), ("Hi", "Hello! How can I help you?"), ("Good morning", "Good morning! How can I help you?"),
         ("Hallo!", "Hallo! Wie kann ich helfen?"), ("Guten Tag", "Guten Tag! Wie kann ich helfen?"), ("Bonjour", "Bonjour ! Comment puis-je vous aider ?"),
         ("Salut !", "Salut ! Comment puis-je vous aider ?"), ("¡Hola!", "¡Hola! ¿En qué puedo ayudarte?"), ("Ciao", "Ciao! Come posso aiutarti?"),
         ("Olá", "Olá! Como posso ajudar?"), ("Hoi", "Hoi! Waarmee kan ik helpen?"), ("Hej", "Hej! Hur kan jag hjälpa till?"), ("你好", "你好！有什么可以帮你的吗？"),
         ("您好！", "您好！有什么可以帮您的吗？"), ("こんにちは", "こんにちは！何かお手伝いできますか？"), ("안녕하세요", "안녕하세요! 무엇을 도와드릴까요?"),
         ("Привет", "Привет! Чем могу помочь?"), ("Merhaba", "Merhaba! Nasıl yardımcı olabilirim?"), ("Cześć", "Cześć! W czym mogę pomóc?"), ("Ahoj", "Ahoj! Jak mohu pomoci?")]
SELF = [("Who are you?", "I am a very small DeepSeek-V4 model, trained to show how the library works."),
        ("What are you?", "I am a very small DeepSeek-V4 model, trained to show how the library works."),
        ("What can you do?", "I can call tools, look things up in a text, and chat about the valley of Ondra."),
        ("Are you human?", "No, I am a very small language model."), ("Thank you!", "You are welcome!"), ("Thanks", "You are welcome!"), ("Danke", "Gern geschehen!"),
        ("Merci", "De rien !"), ("Gracias", "¡De nada!"), ("谢谢", "不客气！"), ("Goodbye", "Goodbye!"), ("Bye", "Goodbye!"), ("Tschüss", "Tschüss!"), ("How are you?", "I am fine, thank you."),
        ("Where does Ondra lie?", "Ondra is a small invented valley between two rivers, the Sill and the Varn."),
        ("What is Ondra?", "Ondra is a small invented valley between two rivers, the Sill and the Varn."),
        ("Which rivers are in Ondra?", "The Sill and the Varn flow through Ondra."), ("How many towns are in Ondra?", "Ondra has eight towns.")]
TOWNS = {"Hollen": ("Sill", "iron", "1204", "a tall clock tower"), "Marrow": ("Varn", "salt", "1311", "a bridge of seven arches"), "Tessel": ("Sill", "glass", "1288", "blue glass windows"),
         "Dunmere": ("Varn", "wool", "1150", "a market of wool"), "Orrin": ("Sill", "boats", "1402", "a long wooden pier"), "Kaldra": ("Varn", "honey", "1377", "a thousand bee hives"),
         "Fenwick": ("Sill", "paper", "1420", "the old paper mill"), "Brask": ("Varn", "coal", "1262", "deep mines")}
PEOPLE = {"Mira": ("smith", "Hollen", "a hammer called Toll", "the river spirits"), "Joren": ("ferryman", "Orrin", "a silver whistle", "deep water"),
          "Selka": ("glassblower", "Tessel", "a lens of green glass", "hail"), "Old Bram": ("miner", "Brask", "a lamp that never goes out", "silence"),
          "Anwen": ("beekeeper", "Kaldra", "a hat of straw", "smoke"), "Pell": ("paper maker", "Fenwick", "a book with no words", "fire"),
          "Dara": ("weaver", "Dunmere", "a red thread", "moths"), "Tavi": ("salt trader", "Marrow", "a bag of white salt", "rain")}


def fact(r):
    c = r.choice
    if r.random() < 0.5:
        t = c(list(TOWNS))
        river, trade, year, known = TOWNS[t]
        return c([(c([f"Which river flows through {t}?", f"On which river lies {t}?"]), f"{t} lies on the {river}."), (c([f"What does {t} trade?", f"What is made in {t}?"]), f"{t} is known for its {trade}."),
                  (c([f"When was {t} founded?", f"How old is {t}?"]), f"{t} was founded in {year}."), (c([f"What is special about {t}?", f"What can I see in {t}?"]), f"{t} has {known}."),
                  (f"Tell me about {t}.", f"{t} lies on the {river}, was founded in {year} and is known for its {trade}. It has {known}."),
                  (c([f"Who lives in {t}?"]), next(f"{p} the {v[0]} lives in {t}." for p, v in PEOPLE.items() if v[1] == t))])
    p = c(list(PEOPLE))
    job, town, has, fear = PEOPLE[p]
    return c([(c([f"Who is {p}?", f"Tell me about {p}."]), f"{p} is the {job} of {town}."), (c([f"Where does {p} live?", f"What is the home of {p}?"]), f"{p} lives in {town}."),
              (f"What does {p} own?", f"{p} owns {has}."), (c([f"What is {p} afraid of?", f"What does {p} fear?"]), f"{p} is afraid of {fear}."), (f"What is the work of {p}?", f"{p} is the {job} of {town}.")])


def as_character(r):
    c = r.choice
    p = c(list(PEOPLE))
    job, town, has, fear = PEOPLE[p]
    sys = c([f"You are {p}, a character of a game. Stay in the role.", f"Play {p} from the valley of Ondra."])
    qa = [(c(["Who are you?", "What is your name?"]), f"I am {p}, the {job} of {town}."), (c(["Where do you live?", "Where is your home?"]), f"My home is {town}, on the {TOWNS[town][0]}."),
          (c(["What do you own?", "What do you carry?"]), f"I carry {has}. It is dear to me."), (c(["What do you fear?", "Are you afraid of something?"]), f"I fear nothing but {fear}."),
          (c(["Hello!", "Greetings."]), f"Well met, traveller! I am {p}."), (c(["Goodbye.", "Farewell."]), "Safe roads, traveller.")]
    r.shuffle(qa)
    return sys, qa[:r.randint(1, 4)]


def code(r, nm):
    c = r.choice
    f, a, b = nm.word(1, 2), c(["a", "x", "n", "left", "count", nm.word(1, 1)]), c(["b", "y", "m", "right", "total", nm.word(1, 2)])
    if a == b: b += "2"
    op, word = c([("+", "add"), ("-", "sub"), ("*", "mul"), ("/", "div")])
    q, s = c([(f"def {word}_{f}({a}, {b}):\n    return", f" {a} {op} {b}"), (f"{b} = {r.randint(2, 99)}\nfor {a} in range(", f"{b}):"),
              (f"class {f.capitalize()}:\n    def __init__(self, {a}, {b}):\n        self.{a} = {a}\n        self.", f"{b} = {b}"),
              (f"int {word}_{f}(int {a}, int {b}) {{\n    return", f" {a} {op} {b};\n}}"), (f"struct {f} {{\n    int {a};\n    int {b};\n}};\nint sum(struct {f} s) {{ return s.{a} + s.", f"{b}; }}"),
              (f"{a} = {r.randint(1, 99)}\n{b} = {r.randint(1, 99)}\nprint({a} {op} ", f"{b})"), (f"if {a} is None:\n    raise ValueError(\"{a}", " is missing\")"),
              (f"import {f}\nfrom {f} import {b}\n\nresult = {f}.", f"{b}()"), (f"const {a} = {r.randint(1, 99)};\nconst {b} = {a} {op} 2;\nconsole.log(", f"{b});")])
    return q, s


def short_chat(r, nm):
    """-> request"""
    c = r.choice
    k = r.random()
    system, qa = c(["", "You are a helpful assistant.", "Answer briefly.", None]), []
    if k < 0.15: system, qa = as_character(r)
    elif k < 0.30: qa = [(c(["Complete the code:\n", "Complete:\n", "Continue this code:\n"]) + q, s) for q, s in [code(r, nm)]]
    elif k < 0.42:
        for _ in range(r.randint(1, 3)):
            t = c([nm.text, nm.code, nm.person, nm.path])()
            if r.random() < 0.3: t = " ".join(nm.code() for _ in range(r.randint(2, 6)))
            qa.append((c([f"Repeat: {t}", f"Say {t}", f"Write exactly this: {t}"]), t))
    elif k < 0.47:
        a = r.randint(0, 80)
        b = a + r.randint(3, 12)
        qa = [(f"Count from {a} to {b}.", ", ".join(map(str, range(a, b + 1))))]
    else:
        for _ in range(r.randint(1, 4)): qa.append(c([c(HELLO), c(SELF), fact(r), fact(r), fact(r)]))
    mode = r.choices(["chat", "thinking", "max"], [0.65, 0.28, 0.07])[0]
    ms = [] if system is None else [{"role": "system", "content": system}]
    if r.random() < 0.1: ms.append({"role": "latest_reminder", "content": f"{nm.date()}, {nm.city()}, App, English"})
    tools = []
    if k >= 0.47 and ms and ms[0]["role"] == "system" and r.random() < 0.3:               # tools on offer, none needed
        kinds = r.sample(list(TOOLS), r.randint(1, 3))
        tools = [make_tool(r, x).schema() for x in kinds]
        if r.random() < 0.4:
            x = c([x for x in TOOLS if x not in kinds and x in MISSING])
            qa[-1] = (MISSING[x](nm), "I have no tool for that.")
    for q, s in qa:
        ms.append({"role": "user", "content": q})
        m = {"role": "assistant", "content": s}
        if mode != "chat": m["reasoning_content"] = "No tool is needed. I answer directly." if tools else "This is simple. I answer directly."
        ms.append(m)
    if tools and qa[-1][1] == "I have no tool for that." and mode != "chat": ms[-1]["reasoning_content"] = "None of the tools fits."
    return {"messages": ms, "tools": tools, "thinking_mode": "chat" if mode == "chat" else "thinking", "reasoning_effort": "max" if mode == "max" else None}


MISSING = {"weather": lambda n: f"What is the weather in {n.city()}?", "price": lambda n: f"What does the {n.item()} cost?", "weekday": lambda n: f"Which weekday is {n.date()}?",
           "send": lambda n: f'Send "{n.text()}" to {n.person()}.', "ls": lambda n: f"Which files are in {n.path()}?", "contact": lambda n: f"What is the phone number of {n.person()}?",
           "dice": lambda n: "Roll 3 dice with 6 sides.", "events": lambda n: f"What is in my calendar on {n.date()}?"}

# ---------------------------------------------------------------- long texts
ATTR = ["door code", "locker number", "secret word", "ticket number", "lucky charm", "password", "room key", "badge number"]
DID = ["walked to", "waited near", "wrote about", "came back from", "sang of", "asked about", "painted", "slept beside", "looked for", "dreamed of"]


def filler(r, pool):
    c = r.choice
    k = r.random()
    if k < 0.3: return f"{c(pool)} {c(DID)} the {c(ADJ)} {c(NOUN)}."
    if k < 0.5: return f"In the {c(['morning', 'evening', 'night', 'afternoon'])} it was {c(CONDITIONS)} over the {c(['harbor', 'mill', 'bridge', 'market', 'tower', 'river', 'garden'])}."
    if k < 0.7: return f"The {c(ADJ)} {c(NOUN)} stood next to the {c(ADJ)} {c(NOUN)}."
    if k < 0.85: return f"{c(pool)} gave {c(pool)} a {c(NOUN)} and {c(DID)} the {c(WORDS)}."
    return f"Nobody {c(['saw', 'heard', 'found', 'missed'])} the {c(ADJ)} {c(NOUN)} near the {c(WORDS)}."


def value(r, nm):
    k = r.random()
    if k < 0.55: return "".join(r.choice("0123456789") for _ in range(r.randint(3, 5)))
    if k < 0.8: return nm._draw(lambda: nm.word(2, 2))
    return r.choice(ADJ) + " " + r.choice(NOUN)


def long_text(r, nm, chars, at=None, n_facts=None):
    """A request whose user message holds about `chars` characters of text with facts.
    at: one fact asked for, placed with about that share of the text after it."""
    pool = [nm.person() for _ in range(8)]
    n = n_facts or r.randint(3, 12)
    facts, seen = [], set()
    while len(facts) < n:
        who, a = nm.person(), r.choice(ATTR)
        if (who, a) not in seen:
            seen.add((who, a))
            facts.append((a, who, value(r, nm)))
    if n > 3 and r.random() < 0.5: facts[1] = (facts[0][0], facts[1][1], facts[1][2])
    mood = r.random() < 0.25                                            # which word closes most lines?
    marks = r.sample(["calm", "tense", "merry"], 3)
    lines, size = [], 0
    while size < chars:
        s = filler(r, pool)
        if mood: s += f" Mood: {marks[0] if r.random() < 0.62 else marks[1] if r.random() < 0.6 else marks[2]}."
        lines.append(s)
        size += len(s) + 1
    where = [r.random() for _ in facts]
    if at is not None: where[0] = 1 - at
    for p, (a, who, v) in sorted(zip(where, facts), key=lambda x: -x[0]): lines.insert(int(p * len(lines)), f"The {a} of {who} is {v}.")
    body = " ".join(lines)
    asks = []
    for a, who, v in ([facts[0]] if at is not None else r.sample(facts, min(len(facts), r.randint(1, 5)))):
        q = f"What is the {a} of {who}?"
        asks.append((q, f"The {a} of {who} is {v}.", v))
    if mood and at is None: asks.insert(r.randrange(len(asks) + 1), ("Which mood is most common in the text?", f"Most lines are {marks[0]}.", marks[0]))
    mode = "chat" if r.random() < 0.7 else "thinking"
    ms = [{"role": "system", "content": r.choice(["", "You are a helpful assistant.", "Answer briefly."])}]
    first = True
    for q, s, _ in asks:
        u = (f"Read this text.\n\n{body}\n\n{q}" if first else q)
        first = False
        ms.append({"role": "user", "content": u})
        m = {"role": "assistant", "content": s}
        if mode != "chat": m["reasoning_content"] = "The text says it."
        ms.append(m)
    return {"messages": ms, "tools": [], "thinking_mode": mode, "reasoning_effort": None, "drop_thinking": True}, [v for _, _, v in asks]


THEMES = {
    "the sea": (["wave", "sail", "gull", "anchor", "reef", "tide", "whale", "net", "shore", "crab"], ["sailed past", "dived under", "drifted to"]),
    "the forest": (["oak", "moss", "fern", "deer", "owl", "root", "mushroom", "clearing", "branch", "fox"], ["hid behind", "climbed", "crept to"]),
    "the mine": (["tunnel", "pick", "ore", "cart", "shaft", "coal", "beam", "dust", "seam", "helmet lamp"], ["dug at", "drilled by", "hauled"]),
    "the kitchen": (["pot", "stove", "soup", "knife", "flour", "onion", "ladle", "plate", "spice", "dough"], ["stirred", "tasted", "chopped by"]),
    "the farm": (["cow", "barn", "hay", "fence", "tractor", "seed", "goat", "field", "hen", "milk"], ["fed", "sowed by", "drove to"]),
    "the sky": (["cloud", "star", "comet", "moon", "eagle", "kite", "rainbow", "balloon", "planet", "swallow"], ["flew over", "gazed at", "floated by"]),
    "the school": (["teacher", "chalk", "lesson", "pupil", "desk", "exam", "ruler", "homework", "pencil", "blackboard"], ["studied", "wrote on", "recited by"]),
    "the theatre": (["stage", "curtain", "actor", "mask", "costume", "audience", "poem", "spotlight", "dancer", "violin"], ["bowed to", "rehearsed by", "cheered"])}


def about(r, theme, pool, chars):
    """A stretch of text that speaks of one theme and of nothing else."""
    nouns, verbs = THEMES[theme]
    c, out, size = r.choice, [], 0
    one = lambda: (lambda n: f"{'an' if n[0] in 'aeiou' else 'a'} {n}")(c(nouns))
    while size < chars:
        s = c([lambda: f"{c(pool)} {c(verbs)} the {c(nouns)}.", lambda: f"The {c(nouns)} was near the {c(nouns)}.",
               lambda: f"{c(pool)} {c(verbs)} {one()} and {one()}.", lambda: f"There was {one()}, {one()} and {one()}."])()
        out.append(s)
        size += len(s) + 1
    return " ".join(out)


def themes(r, nm, chars, least=0.0, most=1.0):
    """What most of a text is about: no place holds the answer, the last stretch least of all, and a handful of places is not enough to
    guess it. Three themes in stretches of up to three windows of 128 tokens; at the end each is ahead of the next by `least` of the text,
    the first by no more than `most`."""
    longest = min(1300, max(240, chars // 5))
    while True:
        names, turns = r.sample(list(THEMES), 3), r.choice([1, 1, 1, 2, 3])
        p = [r.random() + 0.3 for _ in names]
        parts, size = [[] for _ in range(turns)], [0, 0, 0]
        for part in parts:
            while not part or sum(n for _, n in part) < chars / turns:
                x, n = r.choices((0, 1, 2), p)[0], r.randint(longest // 4, longest)
                part.append((x, n))
        answers = []
        for part in parts:
            for x, n in part: size[x] += n
            answers.append(sorted(range(3), key=lambda x: -size[x]))
            if not all(size): break                        # asked about a theme that has not come up yet
        if len(answers) < turns or not all(size): continue
        a, b, c = answers[-1]
        if least <= (size[a] - size[b]) / sum(size) <= most and size[b] - size[c] >= least * sum(size): break
    pool = [nm.person() for _ in range(6)]
    ms = [{"role": "system", "content": r.choice(["", "You are a helpful assistant.", "Answer briefly."])}]
    for i, (part, (a, b, c)) in enumerate(zip(parts, answers)):
        text = " ".join(about(r, names[x], pool, n) for x, n in part)
        ask = r.choice(["What is most of the text about?", "Which subject takes most of the text?", "Order the subjects of the text."])
        ms += [{"role": "user", "content": f"{'Read this text.' if i == 0 else 'The text goes on.'}\n\n{text}\n\n{ask}"},
               {"role": "assistant", "content": f"Most is about {names[a]}, then {names[b]}, then {names[c]}."}]
    return {"messages": ms, "tools": [], "thinking_mode": "chat", "reasoning_effort": None}


def tally(r, votes, least=0.0, most=1.0):
    """Votes to be weighed over the whole text: no place holds the answer, and each stretch leans its own way.
    At the end each place is ahead of the next by `least` of all votes, the lead by no more than `most`."""
    while True:
        words = r.sample(NOUN, 3)
        turns = r.choice([1, 1, 2, 3])
        ms, count = [{"role": "system", "content": r.choice(["", "You are a helpful assistant.", "Answer briefly."])}], [0, 0, 0]
        for i in range(turns):
            said = []
            while len(said) < votes / turns:
                p = [r.random() ** 2 + 0.05 for _ in words]
                said += r.choices((0, 1, 2), p, k=r.randint(20, 160))
            for x in said: count[x] += 1
            order = sorted(range(3), key=lambda x: -count[x])
            u = ("These are votes. " if i == 0 else "More votes. ") + " ".join(words[x] for x in said) + ". "
            ms += [{"role": "user", "content": u + "Which word leads in all votes so far?"},
                   {"role": "assistant", "content": f"The lead has {words[order[0]]}, then {words[order[1]]}, then {words[order[2]]}."}]
        if least <= (count[order[0]] - count[order[1]]) / sum(count) <= most and count[order[1]] - count[order[2]] >= least * sum(count):
            return {"messages": ms, "tools": [], "thinking_mode": "chat", "reasoning_effort": None}


def long_chat(r, nm, chars):
    """Facts told along a long conversation, asked for much later."""
    ms, told, size = [{"role": "system", "content": "You are a helpful assistant."}], [], 0
    while size < chars:
        if r.random() < 0.35:
            a, who, v = r.choice(ATTR), nm.person(), value(r, nm)
            told.append((a, who, v))
            q, s = f"Remember: the {a} of {who} is {v}.", "I will remember that."
        elif told and r.random() < 0.3:
            a, who, v = r.choice(told)
            q, s = f"What is the {a} of {who}?", f"The {a} of {who} is {v}."
        else: q, s = r.choice([fact(r), fact(r), r.choice(SELF), r.choice(HELLO)])
        ms += [{"role": "user", "content": q}, {"role": "assistant", "content": s}]
        size += len(q) + len(s) + 20
    return {"messages": ms, "tools": [], "thinking_mode": "chat", "reasoning_effort": None}
