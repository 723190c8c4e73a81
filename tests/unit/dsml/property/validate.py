"""Every sample must have parsed strictly and fit its schema, judged by python3-jsonschema.

    validate.py SAMPLES.jsonl MINIMUM

Exit code 77 (skipped, loudly) where the package is missing. The checker is itself checked: samples that are broken on
purpose must be found out."""
import json
import sys

try:
    import jsonschema
except ImportError:
    print("SKIPPED: python3-jsonschema is not installed; constrained samples were NOT validated")
    sys.exit(77)


def validator(schema):
    formats = getattr(jsonschema.Draft7Validator, "FORMAT_CHECKER", None) or jsonschema.draft7_format_checker
    return jsonschema.Draft7Validator(schema, format_checker=formats)


def no_duplicates(pairs):
    # Undeclared keys may repeat in JSON; the last one counts for every reader, and for this one.
    return dict(pairs)


def faults(line):
    if line.get("error"):
        return ["sampling: " + line["error"]]
    if "strict_error" in line:
        return ["strict parser: " + line["strict_error"]]
    if not line["text_is_utf8"]:
        return ["not UTF-8"]
    message, out = line["message"], []
    check = validator(line["schema"])
    if line["content"]:
        values = [json.loads(message["content"])]
    else:
        calls = message["tool_calls"]
        if not calls:
            out.append("no call")
        for call in calls:
            if call["function"]["name"] not in ("f", "noop"):
                out.append("unknown tool")
            if call["function"]["name"] == "noop" and call["function"]["arguments"] != "{}":
                out.append("arguments for a tool without any")
        values = [json.loads(c["function"]["arguments"], object_pairs_hook=no_duplicates)
                  for c in calls if c["function"]["name"] == "f"]
    for value in values:
        out += [e.message[:200] for e in check.iter_errors(value)]
    return out


def main():
    lines = [json.loads(l) for l in open(sys.argv[1], encoding="utf-8")]
    done = [l for l in lines if "impossible" not in l]
    bad = 0
    for line in done:
        try:
            found = faults(line)
        except Exception as e:  # unreadable JSON and the like
            found = [repr(e)]
        if found:
            bad += 1
            if bad <= 10:
                print(line["index"], found, json.dumps(line)[:1500])
    if len(done) < int(sys.argv[2]):
        print("only", len(done), "schemas could be sampled")
        return 1
    # The check can fail: an argument that no schema of ours allows, and a text that does not parse.
    caught = tried = 0
    for line in done:
        if line.get("error") or "message" not in line or line["content"]:
            continue
        if line["schema"].get("additionalProperties") is False:
            broken = json.loads(json.dumps(line))
            for call in broken["message"]["tool_calls"]:
                if call["function"]["name"] == "f":
                    tried += 1
                    call["function"]["arguments"] = '{"not declared": 1}'
                    caught += bool(faults(broken))
                    break
    print(len(done), "validated,", bad, "bad;", caught, "of", tried, "broken ones caught;",
          sum(len(l["message"]["tool_calls"]) for l in done if "message" in l), "calls")
    return 1 if bad or tried == 0 or caught != tried else 0


sys.exit(main())
