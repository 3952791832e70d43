"""What was heard, without what no two runs have in common.

Owns: the normal form of messages and states, and the comparison of two of them. Everything here says less than what came
in: what is dropped is dropped on both sides.
"""
import base64
import json
import re
from datetime import datetime, timedelta, timezone

# Only times of about now: what an operation named stays as it is.
STAMP = re.compile(r"\b(20\d\d-\d\d-\d\d)T\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)")
DELIVERED = re.compile(r"(\$JS\.ACK(?:\.[^. ]+){5})\.\d{19}\.")
NUID = re.compile(r"\b[A-Za-z0-9]{22}\b")
# Measured, counted per request, or random.
MEASURED = {"pause_remaining", "active", "elapsed", "server_id", "duration", "ack_time", "delivered_time", "rtt"}
DROPPED = {"id", "api", "client", "server", "ts", "host", "server_id", "_nats.ver"}

IDENTITY = re.compile(r"^(Nats-Stream-Source: .* |Nats-Stream-Identity: )\w{8}$")
# Consumers that copies make.
COPYING = re.compile(r".*\bJS_(SRC|MIRROR)_")


def near_now(day):
    today = datetime.now(timezone.utc).date()
    return abs(datetime.strptime(day, "%Y-%m-%d").date() - today) <= timedelta(days=2)


def text(s, names):
    """`names` are the random names that this server gave, in order."""
    for i, name in enumerate(names):
        s = s.replace(name, f"%E{i}%")
    s = STAMP.sub(lambda m: "T" if near_now(m.group(1)) else m.group(0), s)
    return NUID.sub("N", DELIVERED.sub(r"\1.T.", s))


def value(v, names, key=""):
    if key in MEASURED:
        return "D"
    if key == "hdrs" and isinstance(v, str):
        return lines(base64.b64decode(v), names)
    if isinstance(v, dict):
        return {text(k, names): value(w, names, k) for k, w in sorted(v.items()) if k not in DROPPED}
    if isinstance(v, list):
        v = [w for w in v if not COPYING.match(str(w.get("name", "") if isinstance(w, dict) else w))]
        told = [value(w, names) for w in v]
        # Lists are by name, and some names are random.
        named = [w.get("name", "") if isinstance(w, dict) else w for w in told]
        return sorted(told, key=str) if any(str(n).startswith("%E") for n in named) else told
    if isinstance(v, str):
        return text(v, names)
    return v


def subject(s, names):
    tokens = s.split(".")
    if s.startswith("$JS.ACK.") and len(tokens) in (9, 11, 12):
        tokens[7 if len(tokens) == 9 else 9] = "T"
    if s.startswith("$JS.FC."):
        tokens[-1] = "R"
    if s.startswith("$JS.SNAPSHOT.ACK.") or s.startswith("$JS.API.STREAM.RESTORE."):
        tokens[4 if s.startswith("$JS.SNAP") else -1] = "R"
    return text(".".join(tokens), names)


def body(b, names):
    if b[:1] in (b"{", b"["):
        try:
            return value(json.loads(b), names)
        except ValueError:
            pass
    return text(b.decode("utf-8", "backslashreplace"), names)


def lines(block, names):
    """A block of headers. Which stream a copy is from hangs on when that one was made."""
    found = [text(line, names) for line in block.decode("utf-8", "backslashreplace").split("\r\n") if line]
    return [IDENTITY.sub(r"\1I", line) for line in found]


def message(m, names):
    return {
        "subject": subject(m.subject, names),
        "reply": subject(m.reply, names),
        "headers": lines(m.headers, names),
        "body": body(m.body, names),
    }


def audited(told, names):
    """An audit's answer is text. That both refused is enough, and how copies stand is asked elsewhere."""
    try:
        answer = json.loads(told.get("response", ""))
    except ValueError:
        return
    if isinstance(answer, dict):
        answer = {"error": True} if "error" in answer else {k: v for k, v in answer.items() if k not in ("sources", "mirror")}
        if "consumer_create" in str(answer.get("type")):
            # The answer itself has been compared.
            answer = {"name": answer.get("name")}
        told["response"] = value(answer, names)


def differences(theirs, ours, path=""):
    """Where two normal forms differ: paths with what stands there on each side."""
    if type(theirs) is not type(ours):
        return [(path, theirs, ours)]
    if isinstance(theirs, dict):
        out = []
        for key in sorted({*theirs, *ours}):
            at = f"{path}.{key}"
            if key not in theirs:
                out.append((at, "(absent)", ours[key]))
            elif key not in ours:
                out.append((at, theirs[key], "(absent)"))
            else:
                out += differences(theirs[key], ours[key], at)
        return out
    if isinstance(theirs, list):
        if len(theirs) != len(ours):
            return [(f"{path}.length", theirs, ours)]
        return [d for a, b in zip(theirs, ours) for d in differences(a, b, f"{path}[]")]
    return [] if theirs == ours else [(path, theirs, ours)]
