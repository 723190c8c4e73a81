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

DSV4, MODEL = map(os.path.abspath, sys.argv[1:3])


def run(*args, stdin=b"", stdout=subprocess.PIPE, **more):
    return subprocess.run([DSV4, *args], input=stdin, stdout=stdout, stderr=subprocess.PIPE, **more)


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

    def bad_with(self, words, code, *args, stdin=b""):
        said = self.bad(code, *args, stdin=stdin)
        for word in words:
            self.assertIn(word, said, args)

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
        self.bad(1, "generate", "--model", MODEL, "--messages", "-", stdin=b"not json")

    def request(self, more, *args):
        """What `generate` makes of "Hello!" with these further keys, as (arguments, stdin)."""
        text = '{"messages": [{"role": "user", "content": "Hello!"}]%s}' % "".join(
            f', "{key}": {value}' for key, value in more.items())
        return ("generate", "--model", MODEL, "--messages", "-", "--json", *args), text.encode()

    def ids_of(self, more, *args):
        args, stdin = self.request(more, *args)
        return json.loads(self.good(*args, stdin=stdin))["ids"]

    def test_request_values_taken(self):
        whole = self.ids_of({})
        nulls = dict.fromkeys(("max_tokens", "max_completion_tokens", "temperature", "top_p", "top_k", "min_p", "seed", "stop",
                               "tool_choice"), "null")
        self.assertEqual(self.ids_of(nulls), whole)
        self.assertEqual(self.ids_of({"stop": "[]", "tool_choice": '"none"'}), whole)
        self.assertGreater(len(whole), 4)
        self.assertEqual(self.ids_of({"max_tokens": "3"}), whole[:3])
        self.assertEqual(self.ids_of({"max_tokens": "3.0"}), whole[:3])
        self.assertEqual(self.ids_of({"max_completion_tokens": "3"}), whole[:3])
        self.assertEqual(self.ids_of({"max_completion_tokens": "3", "max_tokens": "2"}), whole[:3])
        self.assertEqual(self.ids_of({"max_completion_tokens": "3"}, "--max-tokens", "2"), whole[:2])
        seeded = [self.ids_of({"seed": s, "temperature": "3", "max_tokens": "12"}) for s in ("18446744073709551615", "7")]
        self.assertNotEqual(*seeded)
        self.assertEqual(self.ids_of({"temperature": "3", "max_tokens": "12"}, "--seed", "7"), seeded[1])

    def test_request_values_refused(self):
        count = ["-3", "0", "1e30", "1e400", "2.7", '"x"', "true", "[]", "4294967296"]
        for key, values in {
                "max_tokens": count, "max_completion_tokens": count, "top_k": ["-1", "0.5", "1e300", '"x"'],
                "seed": ["1.5", "-1", "18446744073709551616", "1e30", '"7"', "{}"],
                "temperature": ["-1", "1e300", '"hot"', "false"], "top_p": ["1.5", "-0.1", '"x"', "[1]"],
                "min_p": ["1.5", "-0.1", '"x"', "[1]"],
                "stop": ["5", '""', "{}", "[1]", '["a", null]', '[""]'],
                "tool_choice": ['"bogus"', "5", "[]", "{}", '{"function": "f"}', '{"function": {}}',
                                '{"function": {"name": 5}}', '{"type": "custom", "function": {"name": "f"}}']}.items():
            for value in values:
                args, stdin = self.request({key: value})
                said = self.bad(1, *args, stdin=stdin)
                self.assertNotIn("json.exception", said)
                if value != "1e400":  # no number at all for most readers of JSON
                    self.assertRegex(said, r"request\.%s\S*: expected .*, found ." % key)
        for value in "NaN", "1e400", r'"\ud800"':
            args, stdin = self.request({"user": value, "max_tokens": "-3"})
            self.bad_with(["request: expected JSON"], 1, *args, stdin=stdin)
        args, stdin = self.request({"tool_choice": '{"function": {"name": 5}}'})
        self.bad_with(["request.tool_choice.function.name", "found 5"], 1, *args, stdin=stdin)
        args, stdin = self.request({"stop": '["a", 1]'})
        self.bad_with(["request.stop[1]", "found 1"], 1, *args, stdin=stdin)

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
        self.bad(2)
        self.assertIn(b"generate", self.good("--help"))
        self.bad_with(["no-such-command"], 2, "no-such-command")
        self.bad_with(["no-such-command"], 2, "no-such-command", "--model", MODEL)

    COMMANDS = {  # command: (arguments that are enough, arguments that make it bad input, standard input of the latter)
        "logits": (["--model", MODEL, "--tokens", "-", "--out", "/dev/null"], [], b"x"),
        "perplexity": (["--model", MODEL, "--tokens", "-", "--quiet"], [], b"x"),
        "generate": (["--model", MODEL, "--raw", "x"], ["--temperature", "-1"], b""),
        "chat": (["--model", MODEL], ["--temperature", "-1"], b"Hi\n"),
        "plan": (["--model", MODEL], ["--backend", "nobody"], b""),
        "bench": (["--model", MODEL], ["--backend", "nobody"], b""),
        "backends": ([], None, b""),  # has nothing to be bad
        "conformance": (["--backend", "nobody"], [], b""),
        "tokenize": (["--model", MODEL], [], b"\xff"),
        "detokenize": (["--model", MODEL], [], b"x"),
        "encode": ([], [], b"{"),
        "parse": (["--thinking-mode", "chat"], [], "<｜DSML｜tool_calls>".encode()),
    }

    def test_exit_codes(self):
        self.assertEqual([c for c in self.COMMANDS if f"\n  {c} " not in self.good("--help").decode()], [])
        for command, (enough, wrong, stdin) in self.COMMANDS.items():
            self.assertTrue(self.good(command, "--help"))
            if wrong is not None:
                self.bad(1, command, *enough, *wrong, stdin=stdin)
            # What is wrong comes before what is missing.
            self.bad_with(["--bogus", command], 2, command, "--bogus")
            self.bad_with(["--bogus"], 2, command, *enough, "--bogus", "5")
            self.bad_with(["stray"], 2, command, *enough, "stray")
            if enough:
                self.bad_with([enough[0]], 2, command, enough[0], "", *enough[2:])
                self.bad_with([enough[0], "expected" if command == "bench" else "required"], 2, command)

    def test_numbers(self):
        generate, plan = ["generate", "--model", MODEL, "-p", "x"], ["plan", "--model", MODEL]
        bench, suite = ["bench", "--model", MODEL], ["conformance", "--backend", "reference"]
        for command, options in (
                (generate, ["--max-tokens", "--top-k", "--seed", "--thinking-budget", "--chunk", "--cache-tokens", "--threads",
                            "--expert-budget"]),
                (plan, ["--context", "--sessions"]), (bench, ["--prompt", "--decode", "--batch", "--repeat"]),
                (suite, ["--device", "--threads", "--seed"]),
                (["logits", "--model", MODEL, "--tokens", "-", "--out", "/dev/null"], ["--chunk"])):
            for option in options:
                for value in ("-1", "1.5", "", "x", "0x10", "99999999999999999999") if option in options[:1] else ("-1",):
                    self.bad_with([f"{option}: expected a whole number", f"found '{value}'"], 2, *command, option, value)
        for command, option in ((plan, "--sessions"), (bench, "--batch"), (bench, "--repeat")):
            self.bad_with([f"{option}: expected a whole number from 1 to 4294967295, found '0'"], 2, *command, option, "0")
        self.bad_with(["--seed"], 2, "generate", "--seed", "-7")  # --model is missing too

    def test_empty_values(self):
        generate = ["generate", "--model", MODEL, "--json", "--max-tokens", "4"]
        request = json.dumps({"messages": [{"role": "user", "content": ""}]}).encode()
        self.assertEqual(json.loads(self.good(*generate, "-p", ""))["ids"],
                         json.loads(self.good(*generate, "--messages", "-", stdin=request))["ids"])
        self.bad_with(["--raw", "empty"], 1, *generate, "--raw", "")
        self.bad_with(["--ids", "found none"], 1, *generate, "--ids", "")
        self.bad_with(["/dev/null", "found none"], 1, *generate, "--tokens", "/dev/null")
        self.bad_with(["found 2"], 2, *generate, "-p", "", "--ids", "")
        self.bad_with(["found 0"], 2, *generate)
        for option in "--messages", "--tokens", "--tool-name", "--backend", "--plugins":
            self.bad_with([f"{option}: expected a name"], 2, *generate, option, "")
        for option in "--backend", "--plugins", "--variant":
            self.bad_with([f"{option}: expected a name"], 2, "conformance", "--backend", "reference", option, "")

    def test_files(self):
        logits = ["logits", "--model", MODEL, "--out"]
        with tempfile.TemporaryDirectory() as folder:
            self.bad_with([f"{folder}: cannot be read: Is a directory"], 1, *logits, "/dev/null", "--tokens", folder)
            self.bad_with([f"{folder}: cannot be written: Is a directory"], 1, *logits, folder, "--tokens", "-", stdin=b"5")
            self.bad_with([f"{folder}/none: cannot be opened: No such file"], 1, *logits, "/dev/null", "--tokens",
                          f"{folder}/none")
        self.bad_with(["/dev/full: cannot be written: No space"], 1, *logits, "/dev/full", "--tokens", "-", stdin=b"5")
        self.bad_with(["/dev/null: expected token ids, found none"], 1, *logits, "/dev/null", "--tokens", "/dev/null")
        positions = [*logits, "/dev/null", "--tokens", "-", "--positions"]
        self.bad_with(["--positions: expected positions, found 'a'"], 1, *positions, "a", stdin=b"5")
        self.bad_with(["--positions: expected positions, found none"], 1, *positions, ",", stdin=b"5")

    def test_plugins(self):
        manifests = [b["manifest"] for b in json.loads(self.good("backends", "--json"))["backends"]]
        above, folder = os.path.split(os.path.dirname(manifests[0]))
        for plugins in folder, os.path.join(".", folder):
            r = run("generate", "--model", MODEL, "-p", "Hi", "--plugins", plugins, cwd=above)
            self.assertEqual((r.returncode, r.stderr), (0, b""))
            r = run("conformance", "--backend", "nobody", "--plugins", plugins, cwd=above)
            self.assertEqual(r.returncode, 1)
            self.assertIn(b"reference", r.stderr)
        with tempfile.TemporaryDirectory() as folder:
            for command in (["generate", "--model", MODEL, "-p", "Hi", "--quiet"], ["conformance", "--backend", "reference"]):
                self.bad_with(["no backend is loaded", "dsv4-*.json", folder], 1, *command, "--plugins", folder)
                self.bad_with(["no backend is loaded", f"{folder}/none: folder cannot be read"], 1, *command, "--plugins",
                              f"{folder}/none")
            names = [f"dsv4-{'long' * 20}-{i}.json" for i in range(4)]  # more than one of the library's messages holds
            for name in names:
                with open(os.path.join(folder, name), "w") as f:
                    f.write("{")
            for command in (["generate", "--model", MODEL, "-p", "Hi", "--quiet"], ["conformance", "--backend", "reference"]):
                self.bad_with(["no backend is loaded", *names], 1, *command, "--plugins", folder)

    def test_output_that_is_lost(self):
        generate = ["generate", "--model", MODEL, "-p", "Hi", "--max-tokens", "4"]
        for args, stdin in (
                (["plan", "--model", MODEL], b""), (["backends"], b""), (["backends", "--json"], b""), (generate, b""),
                ([*generate, "--json"], b""), ([*generate, "--stream"], b""), (["chat", "--model", MODEL], b"Hi\nHi\n"),
                (["tokenize", "--model", MODEL], b"x"), (["detokenize", "--model", MODEL], b"5"),
                (["encode"], b'{"messages": [{"role": "user", "content": "Hi"}]}'),
                (["parse", "--thinking-mode", "chat"], "x<｜end▁of▁sentence｜>".encode()),
                (["logits", "--model", MODEL, "--tokens", "-", "--out", "/dev/null", "--json"], b"5"),
                (["conformance", "--backend", "reference", "--shape", "odd-c"], b""),
                (["bench", "--model", MODEL, "--prompt", "4", "--decode", "2", "--repeat", "1"], b""),
                (["--help"], b""), (["--version"], b""), (["plan", "--help"], b"")):
            with open("/dev/full", "wb") as full:
                r = run(*args, stdin=stdin, stdout=full)
            self.assertEqual(r.returncode, 1, args)
            self.assertIn(b"standard output cannot be written", r.stderr, args)


unittest.main(argv=sys.argv[:1])
