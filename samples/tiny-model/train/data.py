"""Endless packed rows of tokens.  Worker processes generate; the trainer never sees a conversation twice on purpose."""
import multiprocessing as mp
import random

import numpy as np

import chat
import encoding
import talk
from bpe import Tokenizer
from world import Names

PROMPT_WEIGHT = 0.08           # what others wrote is context; what the assistant writes is the task
CHUNK = 128


def tokens(tok, request):
    """-> ids, weight of each token as a target"""
    ids, wt, buf = [], [], ""
    for s, mine in encoding.encode(request, spans=True):
        if not mine:
            buf += s
            continue
        a = tok.encode(buf)
        b = tok.encode(s)
        ids += a + b
        wt += [PROMPT_WEIGHT] * len(a) + [1.0] * len(b)
        buf = ""
    return ids, wt


def short_request(r, nm, stage=2):
    """Stage 1 knows one phrasing per template and no votes; stage 2 is the whole thing.  Themes are there from the start: what HCA is for
    must pay while everything still moves."""
    k = r.random()
    if r.random() < 0.09: return chat.themes(r, nm, int(r.uniform(900, 4200)))
    if stage == 2 and r.random() < 0.05: return chat.tally(r, int(r.uniform(60, 1300)))
    if k < 0.66: return talk.tool_talk(r, nm, stage == 2)
    if k < 0.82: return chat.short_chat(r, nm)
    if k < 0.93: return chat.long_text(r, nm, int(r.uniform(100, 4200)))[0]
    return chat.long_chat(r, nm, int(r.uniform(300, 4000)))


def long_request(r, nm, room, cpt, stage):
    """Something that nearly fills `room` tokens; cpt characters per token."""
    if r.random() < 0.32: return chat.themes(r, nm, int(room * cpt * r.uniform(0.2, 0.9)))
    if stage == 2 and r.random() < 0.12: return chat.tally(r, int(room * r.uniform(0.2, 0.95)))
    if r.random() < 0.75: return chat.long_text(r, nm, int(room * cpt * r.uniform(0.80, 0.97)), n_facts=r.randint(6, 40))[0]
    return chat.long_chat(r, nm, int(room * r.uniform(0.75, 0.93) * cpt * 0.9))


def rows(tok, seed, t, long_rows, stage=2):
    """Yields (ids [t] int16, weight [t] float16, start [t] int16): conversations begin at multiples of 128."""
    r = random.Random(seed)
    nm = Names(r)
    cpt, left = 3.6, []
    while True:
        ids, wt, st = np.full(t, 2, np.int16), np.zeros(t, np.float16), np.zeros(t, np.int16)
        at, misses = 0, 0
        while at + CHUNK <= t and misses < 6:
            room = t - at
            if left and len(left[-1][0]) <= room: a, w = left.pop()
            elif long_rows and at == 0:
                q = long_request(r, nm, room * (1.0 if r.random() < 0.6 else r.uniform(0.2, 1.0)), cpt, stage)
                a, w = tokens(tok, q)
            else:
                a, w = tokens(tok, short_request(r, nm, stage))
            if len(a) > room:
                misses += 1
                if len(left) < 64 and len(a) <= t: left.insert(0, (a, w))
                if long_rows and at == 0: cpt *= 0.97
                continue
            n = len(a)
            ids[at:at + n], wt[at:at + n] = a, w
            end = -(-(at + n) // CHUNK) * CHUNK
            st[at:end] = at
            at = end
        st[at:] = at if at < t else 0
        yield ids, wt, st


def _work(path, seed, t, long_rows, stage, n, q):
    tok = Tokenizer(path)
    it = rows(tok, seed, t, long_rows, stage)
    while True:
        b = [next(it) for _ in range(n)]
        q.put(tuple(np.stack(x) for x in zip(*b)))


class Loader:
    """Batches of B rows from worker processes, one kind of row each."""

    def __init__(self, path, seed, t, batch, long_rows, workers, stage=2, depth=6, part=None):
        ctx = mp.get_context("fork")
        self.n = part or batch
        self.batch = batch
        self.q = ctx.Queue(max(depth * batch // self.n, 2))
        self.ps = [ctx.Process(target=_work, args=(path, seed * 1000 + i, t, long_rows, stage, self.n, self.q), daemon=True) for i in range(workers)]
        for p in self.ps: p.start()

    def next(self):
        bs = [self.q.get() for _ in range(self.batch // self.n)]
        return tuple(np.concatenate(x) for x in zip(*bs))

    def close(self):
        for p in self.ps: p.terminate()


def corpus(seed, n_chars):
    """Text for the tokenizer to learn from."""
    r = random.Random(seed)
    nm = Names(r)
    out, size = [], 0
    while size < n_chars:
        s = encoding.encode(short_request(r, nm, 1))
        out.append(s)
        size += len(s)
    return out
