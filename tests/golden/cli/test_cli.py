#!/usr/bin/env python3
"""The dsv4 tool's contract: what goes in, what comes out, on which stream, with which exit code.

test_cli.py DSV4 MODEL_FOLDER
"""
import json
import math
import os
import struct
import subprocess
import sys
import tempfile
import unittest

DSV4, MODEL = sys.argv[1:3]


def run(*args, stdin=b""):
    return subprocess.run([DSV4, *args], input=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def tensors(path):
    with open(path, "rb") as f:
        raw = f.read()
    n = struct.unpack("<Q", raw[:8])[0]
    return {k: (v["shape"], raw[8 + n + v["data_offsets"][0]:8 + n + v["data_offsets"][1]])
            for k, v in json.loads(raw[8:8 + n]).items() if k != "__metadata__"}


def rows_of(shape, raw):
    return list(struct.iter_unpack(f"<{shape[1]}f", raw))


class Contract(unittest.TestCase):
    def good(self, *args, stdin=b""):
        r = run(*args, stdin=stdin)
        self.assertEqual((r.returncode, r.stderr), (0, b""), args)
        return r.stdout

    def bad(self, code, *args, stdin=b""):
        r = run(*args, stdin=stdin)
        self.assertEqual(r.returncode, code, (args, r.stderr))
        self.assertEqual(r.stdout, b"")
        self.assertTrue(r.stderr.strip(), args)
        return r.stderr.decode()

    def test_tokenize_and_back(self):
        text = "Kaldra hat 1000 Bienenstöcke. 你好\n\n\t x".encode()
        ids = self.good("tokenize", "--model", MODEL, stdin=text)
        self.assertIsInstance(json.loads(ids), list)
        self.assertEqual(self.good("detokenize", "--model", MODEL, stdin=ids), text)
        self.assertEqual(json.loads(self.good("tokenize", "--model", MODEL)), [])
        self.assertIn("offset 2", self.bad(1, "tokenize", "--model", MODEL, stdin=b"ab\xff"))
        self.bad(1, "detokenize", "--model", MODEL, stdin=b"[99999999]")
        self.bad(1, "detokenize", "--model", MODEL, stdin=b"[1, x]")
        self.bad(1, "tokenize", "--model", "/nowhere")
        self.bad(2, "tokenize")

    def test_encode(self):
        request = {"messages": [{"role": "user", "content": "Hi"}], "thinking_mode": "thinking"}
        out = self.good("encode", stdin=json.dumps(request).encode()).decode()
        self.assertEqual(out, "<｜begin▁of▁sentence｜><｜User｜>Hi<｜Assistant｜><think>")
        self.assertIn("messages[0]", self.bad(1, "encode", stdin=b'{"messages": [{"role": "developer", "content": ""}]}'))
        self.bad(1, "encode", stdin=b"{")
        self.bad(1, "encode", stdin=b"[" * 10000)
        self.bad(2, "encode", "--no-such-option", stdin=b"{}")

    def test_parse(self):
        text = ('Well.\n\n<｜DSML｜tool_calls>\n<｜DSML｜invoke name="f">\n<｜DSML｜parameter name="a" string="true">x '
                '</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜tool_calls><｜end▁of▁sentence｜>')
        message = json.loads(self.good("parse", "--thinking-mode", "chat", stdin=text.encode()))
        self.assertEqual(message, {"role": "assistant", "content": "Well.", "reasoning_content": "", "tool_calls": [
            {"type": "function", "function": {"name": "f", "arguments": '{"a": "x "}'}}]})
        damaged = text.replace("</｜DSML｜parameter>\n", "").encode()
        self.bad(1, "parse", "--thinking-mode", "chat", stdin=damaged)
        lenient = json.loads(self.good("parse", "--thinking-mode", "chat", "--lenient", stdin=damaged))
        self.assertIn("missing_parameter_end", lenient["tool_calls"][0]["flags"])
        self.bad(2, "parse", "--thinking-mode", "loud", stdin=b"x")

    def test_logits(self):
        with tempfile.TemporaryDirectory() as folder:
            ids, out, other = (os.path.join(folder, n) for n in ("ids", "out", "other"))
            with open(ids, "w") as f:
                f.write("5, 17\n3 29 11,7")
            self.good("logits", "--model", MODEL, "--tokens", ids, "--out", out, "--backend", "reference", "--draft")
            whole = tensors(out)
            vocab = whole["logits"][0][1]
            self.assertEqual((whole["logits"][0][0], whole["draft_logits"][0][0]), (6, 5))
            self.good("logits", "--model", MODEL, "--tokens", ids, "--out", other, "--backend", "reference",
                      "--positions", "5,0", "--chunk", "1")
            shape, rows = tensors(other)["logits"]
            self.assertEqual(shape, [2, vocab])
            row = 4 * vocab
            self.assertEqual(rows, whole["logits"][1][5 * row:6 * row] + whole["logits"][1][:row])
            self.assertIn("6", self.bad(1, "logits", "--model", MODEL, "--tokens", ids, "--out", other, "--positions", "6"))
            self.bad(1, "logits", "--model", MODEL, "--tokens", os.path.join(folder, "none"), "--out", other)
            with open(ids, "w") as f:
                f.write(str(vocab))
            self.assertIn(str(vocab), self.bad(1, "logits", "--model", MODEL, "--tokens", ids, "--out", other))

    def test_perplexity(self):
        ids = [5, 17, 3, 29, 11, 7]
        with tempfile.TemporaryDirectory() as folder:
            one, two, short, out = (os.path.join(folder, n) for n in ("one", "two", "short", "out"))
            for path, part in (one, ids), (two, ids[:3]), (short, ids[:1]):
                with open(path, "w") as f:
                    f.write(" ".join(map(str, part)))
            self.good("logits", "--model", MODEL, "--tokens", one, "--out", out, "--backend", "reference", "--draft")
            logits, drafts = (rows_of(*tensors(out)[n]) for n in ("logits", "draft_logits"))
            loss = [math.log(sum(math.exp(x - row[t]) for x in row)) for row, t in zip(logits, ids[1:])]
            top = [max(range(len(row)), key=row.__getitem__) for row in logits[:5]]
            draft = [-1] + [max(range(len(row)), key=row.__getitem__) for row in drafts[:4]]
            r = json.loads(self.good("perplexity", "--model", MODEL, "--tokens", one, two, "--backend", "reference",
                                     "--numerics", "exact", "--draft", "--each", "--json", "--against", "cpu:exact"))
            self.assertEqual((r["tokens"], r["drafts"], len(r["texts"])), (7, 5, 2))
            each = r["texts"][0]["each"]
            self.assertEqual((each["top"], each["draft"]), (top, draft))
            for got, want in zip(each["loss"], loss):
                self.assertAlmostEqual(got, want, places=4)
            self.assertAlmostEqual(r["loss"], (sum(loss) + sum(loss[:2])) / 7, places=4)
            self.assertAlmostEqual(r["perplexity"], math.exp(r["loss"]))
            self.assertEqual((r["against"]["backend"], r["against"]["numerics"], r["top1_equal"]), ("cpu", "exact", 1.0))
            self.assertAlmostEqual(r["ratio"], 1, places=4)
            pairs = [p for t in r["texts"] for p in zip(t["each"]["top"], t["each"]["draft"]) if p[1] >= 0]
            self.assertAlmostEqual(r["draft_accept"], sum(a == b for a, b in pairs) / 5)
            self.assertIn("7 tokens", self.good("perplexity", "--model", MODEL, "--tokens", one, two).decode())
            self.assertIn("2 tokens", self.bad(1, "perplexity", "--model", MODEL, "--tokens", short))
            self.bad(1, "perplexity", "--model", MODEL, "--tokens", os.path.join(folder, "none"))
            self.assertIn("nobody", self.bad(1, "perplexity", "--model", MODEL, "--tokens", one, "--against", "nobody"))
            self.bad(2, "perplexity", "--model", MODEL, "--tokens", one, "--against", "cpu:loud")
            self.bad(2, "perplexity", "--model", MODEL)

    def test_generate(self):
        out = json.loads(self.good("generate", "--model", MODEL, "-p", "What is special about Kaldra?", "--json"))
        self.assertEqual((out["finish"], out["message"]["role"]), ("stop", "assistant"))
        plain = self.good("generate", "--model", MODEL, "-p", "What is special about Kaldra?", "--stream").decode()
        self.assertEqual(plain, out["message"]["content"] + "\n")
        ids = json.loads(self.good("generate", "--model", MODEL, "--ids", "5 17 3", "--max-tokens", "4", "--json",
                                   "--ignore-eos"))
        self.assertEqual((len(ids["ids"]), ids["finish"]), (4, "length"))
        first, second = (json.loads(self.good("generate", "--model", MODEL, "-p", "Hi", "--temperature", "2", "--seed",
                                              "7", "--json", "--max-tokens", "20"))["ids"] for _ in range(2))
        self.assertEqual(first, second)
        self.bad(2, "generate", "--model", MODEL)
        self.bad(2, "generate", "--model", MODEL, "-p", "x", "--ids", "5")
        self.bad(1, "generate", "--model", MODEL, "-p", "x", "--temperature", "-1")
        self.assertIn("nobody", self.bad(1, "generate", "--model", MODEL, "-p", "x", "--backend", "nobody"))
        self.bad(2, "generate", "-p", "x")

    def test_chat(self):
        r = run("chat", "--model", MODEL, stdin="Who is Mira?\nWhere does Mira live?\n\n".encode())
        self.assertEqual(r.returncode, 0)
        self.assertEqual(len(r.stdout.decode().strip().split("\n")), 2)
        lines = self.good("chat", "--model", MODEL, "--json", stdin="Who is Mira?\nWhere does Mira live?\n\n".encode())
        self.assertEqual([json.loads(line)["role"] for line in lines.splitlines()], ["assistant"] * 2)

    def test_request(self):
        tool = {"type": "function", "function": {"name": "set_timer", "parameters": {
            "type": "object", "properties": {"minutes": {"type": "integer"}}, "required": ["minutes"]}}}
        request = {"messages": [{"role": "user", "content": "Hello!"}], "tools": [tool], "tool_choice": "required"}
        out = json.loads(self.good("generate", "--model", MODEL, "--messages", "-", "--json",
                                   stdin=json.dumps(request).encode()))
        self.assertEqual(out["message"]["tool_calls"][0]["function"]["name"], "set_timer")
        request = {"messages": [{"role": "user", "content": "What is special about Kaldra?"}], "stop": "thousand"}
        out = json.loads(self.good("generate", "--model", MODEL, "--messages", "-", "--json",
                                   stdin=json.dumps(request).encode()))
        self.assertEqual(out["message"]["content"], "Kaldra has a ")
        self.bad(1, "generate", "--model", MODEL, "--messages", "-", stdin=b'{"messages": [], "max_tokens": "x"}')
        self.bad(1, "generate", "--model", MODEL, "--messages", "-", stdin=b"not json")

    def test_conformance(self):
        out = json.loads(self.good("conformance", "--backend", "reference", "--shape", "odd-c", "--json"))
        self.assertTrue(out["passed"])
        self.bad(2, "conformance", "--backend", "reference", "--shape", "nope")
        self.bad(1, "conformance", "--backend", "nobody")

    def test_plan_backends_bench(self):
        plan = json.loads(self.good("plan", "--model", MODEL, "--context", "4096"))
        self.assertEqual(plan["unused"], [])
        self.assertTrue(all("needed_bytes" in p for p in plan["placements"]))
        self.bad(1, "plan", "--model", "/nowhere")
        backends = json.loads(self.good("backends", "--json"))
        self.assertIn("reference", [b["name"] for b in backends["backends"]])
        bench = json.loads(self.good("bench", "--model", MODEL, "--prompt", "16", "--decode", "4", "--repeat", "1",
                                     "--json", "--batch", "2"))
        self.assertGreater(bench["decode_tokens_per_second"], 0)
        self.bad(2, "bench")
        self.bad(2, "bench", "--model", MODEL, "--synthetic", "flash")
        self.assertIn("layers", self.bad(1, "bench", "--synthetic", "pro"))  # 860 GB

    def test_usage(self):
        self.bad(2, "no-such-command")
        self.bad(2)
        self.assertIn(b"generate", self.good("--help"))


unittest.main(argv=sys.argv[:1])
