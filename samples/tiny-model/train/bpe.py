"""Byte-level BPE: learn it, write it as a Hugging Face tokenizer.json, apply it.

Pieces come from the published pre-tokenizer.  Pieces of digits are never merged: every digit is one token, so that
numbers are copied digit by digit whatever their length.
"""
import heapq
import json
from collections import Counter, defaultdict

import regex

P_NUM = r"\p{N}{1,3}"
P_CJK = "[一-龥\u3040-ゟ゠-ヿ]+"
P_TEXT = ("[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
          "| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+")
FIRST = ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>"]
LAST = ["<｜fim▁hole｜>", "<｜fim▁begin｜>", "<｜fim▁end｜>", "<｜User｜>", "<｜Assistant｜>", "<think>", "</think>", "｜DSML｜",
        "<｜latest_reminder｜>", "<｜action｜>", "<｜query｜>", "<｜authority｜>", "<｜domain｜>", "<｜title｜>", "<｜read_url｜>"]


def byte_chars():
    """byte -> printable character, as GPT-2 chose them."""
    keep = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    rest = [b for b in range(256) if b not in keep]
    return {**{b: chr(b) for b in keep}, **{b: chr(256 + i) for i, b in enumerate(rest)}}


CHARS = byte_chars()


def _split(pattern, text):
    """Isolated: matches and what lies between them."""
    out, at = [], 0
    for m in pattern.finditer(text):
        if m.start() > at: out.append((text[at:m.start()], False))
        out.append((m.group(), True))
        at = m.end()
    if at < len(text): out.append((text[at:], False))
    return out


NUM, CJK, TEXT = regex.compile(P_NUM), regex.compile(P_CJK), regex.compile(P_TEXT)


def pieces(text):
    out = []
    for a, hit in _split(NUM, text):
        if hit:
            out.append(a)
            continue
        for b, hit in _split(CJK, a):
            if hit: out.append(b)
            else: out.extend(p for p, _ in _split(TEXT, b))
    return out


def train(texts, merges):
    """-> list of (left, right) strings over the byte alphabet."""
    special = regex.compile("|".join(regex.escape(s) for s in FIRST + LAST))
    count = Counter()
    for t in texts:
        for part in special.split(t): count.update(pieces(part))
    words = [([CHARS[b] for b in w.encode()], n) for w, n in count.items() if not NUM.fullmatch(w) and n > 1]
    pair, where = Counter(), defaultdict(set)
    for i, (w, n) in enumerate(words):
        for p in zip(w, w[1:]):
            pair[p] += n
            where[p].add(i)
    heap = [(-n, p) for p, n in pair.items()]
    heapq.heapify(heap)
    out = []
    while len(out) < merges and heap:
        n, p = heapq.heappop(heap)
        if pair[p] != -n:
            if pair[p] > 0: heapq.heappush(heap, (-pair[p], p))
            continue
        out.append(p)
        touched = set()
        for i in where.pop(p):
            w, k = words[i]
            new, j = [], 0
            while j < len(w):
                if j + 1 < len(w) and (w[j], w[j + 1]) == p:
                    new.append(w[j] + w[j + 1])
                    j += 2
                else:
                    new.append(w[j])
                    j += 1
            for q in zip(w, w[1:]): pair[q] -= k
            for q in zip(new, new[1:]):
                pair[q] += k
                where[q].add(i)
                touched.add(q)
            words[i] = (new, k)
        del pair[p]
        for q in touched:
            if pair[q] > 0: heapq.heappush(heap, (-pair[q], q))
    return out


def write(path, merges):
    vocab = {}
    for c in sorted(CHARS.values()): vocab[c] = len(FIRST) + len(vocab)
    for a, b in merges: vocab[a + b] = len(FIRST) + len(vocab)
    top = len(FIRST) + len(vocab)
    added = [(i, s, True) for i, s in enumerate(FIRST)] + [(top + i, s, False) for i, s in enumerate(LAST)]
    flags = dict(single_word=False, lstrip=False, rstrip=False)
    bl = dict(type="ByteLevel", add_prefix_space=True, trim_offsets=False, use_regex=True)
    split = lambda p: {"type": "Split", "pattern": {"Regex": p}, "behavior": "Isolated", "invert": False}
    doc = {"version": "1.0", "truncation": None, "padding": None,
           "added_tokens": [{"id": i, "content": s, **flags, "normalized": not sp, "special": sp} for i, s, sp in added],
           "normalizer": {"type": "Sequence", "normalizers": []},
           "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split(P_NUM), split(P_CJK), split(P_TEXT), {
               "type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}]},
           "post_processor": bl, "decoder": dict(bl, trim_offsets=True),
           "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                     "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
                     "vocab": {**{s: i for i, s in enumerate(FIRST)}, **vocab},
                     "merges": [f"{a} {b}" for a, b in merges]}}
    with open(path, "w", encoding="utf-8") as f: json.dump(doc, f, ensure_ascii=False, separators=(",", ":"))


class Tokenizer:
    def __init__(self, path):
        with open(path, encoding="utf-8") as f: doc = json.load(f)
        self.vocab = doc["model"]["vocab"]
        self.rank = {tuple(m.split(" ")): i for i, m in enumerate(doc["model"]["merges"])}
        self.special = {a["content"]: a["id"] for a in doc["added_tokens"]}
        self.split = regex.compile("(" + "|".join(regex.escape(s) for s in self.special) + ")")
        self.cache, self.segments = {}, {}
        back = {c: b for b, c in CHARS.items()}
        self.bytes = {i: bytes(back[c] for c in s) for s, i in self.vocab.items() if s not in self.special}
        self.bytes.update({i: s.encode() for s, i in self.special.items()})
        self.size = max(self.bytes) + 1

    def _piece(self, p):
        ids = self.cache.get(p)
        if ids is None:
            w = [CHARS[b] for b in p.encode()]
            while len(w) > 1:
                r, i = min((self.rank.get(q, 1 << 30), i) for i, q in enumerate(zip(w, w[1:])))
                if r == 1 << 30: break
                w[i:i + 2] = [w[i] + w[i + 1]]
            ids = [self.vocab[x] for x in w]
            if len(self.cache) < 400000: self.cache[p] = ids
        return ids

    def _segment(self, s):
        """Text between special tokens and digits: repeats a lot in templates."""
        ids = self.segments.get(s)
        if ids is None:
            ids = []
            for b, hit in _split(CJK, s):
                if hit: ids += self._piece(b)
                else:
                    for p, _ in _split(TEXT, b): ids += self._piece(p)
            if len(self.segments) < 200000: self.segments[s] = ids
        return ids

    def encode(self, text):
        out = []
        for part in self.split.split(text):
            if not part: continue
            sp = self.special.get(part)
            if sp is not None:
                out.append(sp)
                continue
            at = 0
            for m in NUM.finditer(part):
                if m.start() > at: out += self._segment(part[at:m.start()])
                out += self._piece(m.group())
                at = m.end()
            if at < len(part): out += self._segment(part[at:])
        return out

    def decode(self, ids):
        return b"".join(self.bytes[i] for i in ids).decode("utf-8", "replace")
