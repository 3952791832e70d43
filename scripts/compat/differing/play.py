"""Does a sequence of operations on two servers, step by step, and says where they first part.

Owns: what each kind of operation is, when it counts as done, and what is looked at after it. Everything that comes in is
compared in the order in which it came to its subscription, whatever operation it belongs to; then the state of all streams
and consumers is asked for until both show the same, or stand still and do not.
Does not: decide what is done (draw.py) or what may differ (accepted.py).
"""
import concurrent.futures
import json
import os
import re
import shutil
import signal
import time

from . import accepted, plain, wire

SAME_LIMIT = 4.0
STILL = 1.2
QUIET = 0.4
# Reading changes nothing; and this tool itself reads all the time.
READING = re.compile(r"\$JS\.API\.(INFO|\w+\.(INFO|LIST|NAMES|MSG\.GET)|DIRECT\.|CONSUMER\.MSG\.NEXT)")


class Difference(Exception):
    def __init__(self, index, op, where, found):
        self.index, self.op, self.where, self.found = index, op, where, found

    @property
    def signature(self):
        kind = self.op.get("do", "end")
        if kind == "ask":
            tokens = self.op["subject"].split(".")
            kind = ".".join(tokens[2:5 if tokens[3:4] == ["MSG"] else 4]) if tokens[0] == "$JS" and len(tokens) > 3 else "publish"
        if self.where != "answers":
            kind = self.where
        path, theirs, ours = self.found[0]
        path = re.sub(r"\b(S|C|M|E)\d+\b|%E\d+%", r"\1", path)
        both = re.sub(r"\d+", "#", f"{theirs!r}|{ours!r}")[:160] if path.endswith((".description", ".error", ".length", ".body", "headers[]")) else ""
        return f"{kind} {path} {both}".strip()

    def show(self):
        lines = [f"operation {self.index}: {json.dumps(self.op)}", f"in: {self.where}"]
        for path, theirs, ours in self.found[:12]:
            lines += [f"  at {path or '(all)'}", f"    nats-server: {json.dumps(theirs)[:1500]}", f"    ours:        {json.dumps(ours)[:1500]}"]
        return "\n".join(lines)


class Side:
    """A server, its client and what is only known by its names."""

    def __init__(self, server):
        self.server = server
        self.client = server.start()
        self.names, self.listening = [], {}
        self.tokens = 0
        self.basics()

    def basics(self):
        self.client.subscribe("inbox", "_R.>")
        self.client.subscribe("events", "$JS.EVENT.>")
        self.client.subscribe("republished", "rp.>")

    def restart(self, sig):
        logs = self.client.logs
        self.server.stop(sig)
        self.client.close()
        self.client = self.server.start()
        self.client.logs = logs
        self.basics()
        for name, (subject, queue) in self.listening.items():
            self.client.subscribe(name, subject, queue)

    def fill(self, s):
        return re.sub(r"%E(\d+)%", lambda m: self.names[int(m.group(1))] if int(m.group(1)) < len(self.names) else "none", s)

    def ask(self, subject, body=b"", limit=5):
        """An answer for the tool itself."""
        self.tokens += 1
        name = f"t{self.tokens}"
        self.client.publish(subject, f"_R.{name}", b"", body)
        with self.client.lock:
            if not self.client.lock.wait_for(lambda: self.client.logs.get(name), limit):
                return {"none": subject}
            got = self.client.logs.pop(name)[0]
        try:
            return json.loads(got.body)
        except ValueError:
            return {"unreadable": plain.message(got, self.names)}

    def state(self):
        """All streams and consumers, by name. Lists are asked for too: they have to say the same."""
        streams = {}
        for listed in self.ask("$JS.API.STREAM.LIST").get("streams") or []:
            name = listed["config"]["name"]
            one = self.ask(f"$JS.API.STREAM.INFO.{name}", b'{"deleted_details":true,"subjects_filter":">"}')
            consumers = self.ask(f"$JS.API.CONSUMER.LIST.{name}").get("consumers") or []
            # A copy within a server may have one or not.
            copying = [c for c in consumers if plain.COPYING.match(c["name"])]
            if "state" in one:
                one["state"]["consumer_count"] -= len(copying)
            consumers = [c for c in consumers if c not in copying]
            streams[name] = {"info": plain.value(one, self.names),
                             "consumers": {plain.text(c["name"], self.names): plain.value(c, self.names) for c in consumers}}
        return {"streams": streams}

    def messages(self):
        """All messages of all streams."""
        found = {}
        for listed in self.ask("$JS.API.STREAM.LIST").get("streams") or []:
            name, state = listed["config"]["name"], listed["state"]
            for seq in range(max(1, state["first_seq"], state["last_seq"] - 40), state["last_seq"] + 1):
                got = self.ask(f"$JS.API.STREAM.MSG.GET.{name}", b'{"seq":%d}' % seq)
                found[f"{name}.{seq}"] = plain.value(got, self.names)
        return found

    def account(self):
        info = self.ask("$JS.API.INFO")
        return plain.value(info, self.names)

    def events(self):
        out = []
        for m in self.client.logs.get("events", []):
            if m.subject.startswith("$JS.EVENT.ADVISORY.API"):
                try:
                    told = json.loads(m.body)
                except ValueError:
                    told = {}
                if READING.match(told.get("subject", "")) or plain.COPYING.match(told.get("subject", "") + str(told.get("request"))):
                    continue
                plain.audited(told, self.names)
                m = wire.Message(m.subject, m.reply, m.headers, json.dumps(told).encode())
            if plain.COPYING.search(m.subject):
                continue
            out.append(plain.message(m, self.names))
        return out


def block(op):
    if "block" in op:
        return op["block"].encode("utf-8", "backslashreplace")
    if op.get("headers"):
        return ("NATS/1.0\r\n" + "".join(f"{k}: {v}\r\n" for k, v in op["headers"]) + "\r\n").encode()
    return b""


class Game:
    """Two fresh servers and a sequence. `trace` is called with each operation that is about to be done."""

    def __init__(self, folder, binaries, ports, trace=None):
        shutil.rmtree(folder, ignore_errors=True)
        self.trace = trace or (lambda op: None)
        self.pool = concurrent.futures.ThreadPoolExecutor(2)
        servers = [wire.Server(name, binaries[name], os.path.join(folder, name), port) for name, port in zip(("theirs", "ours"), ports)]
        try:
            self.theirs, self.ours = self.sides = list(self.pool.map(Side, servers))
        except BaseException:
            for s in servers:
                s.stop(signal.SIGKILL)
            raise
        self.compared, self.ended_by, self.used = {}, None, set()
        self.words, self.restarted, self.purged, self.refused = [], False, False, False

    def both(self, f):
        return list(self.pool.map(f, self.sides))

    def close(self):
        for side in self.sides:
            side.client.close()
            side.server.stop(signal.SIGKILL)
        self.pool.shutdown()

    def play(self, ops):
        """Raises Difference: the first that matters, else the first in the words of errors. Returns the accepted difference
        that ended the sequence early, if one did."""
        ended = self.play_all(ops)
        if self.words:
            raise self.words[0]
        return ended

    def play_all(self, ops):
        for index, op in enumerate(ops):
            self.trace(op)
            self.index, self.op = index, op
            getattr(self, "do_" + op["do"])(op)
            if self.look():
                return self.ended_by
        self.index, self.op = len(ops), {"do": "end"}
        if self.judge("messages", lambda side: side.messages()) or self.judge("account", lambda side: side.account()):
            return self.ended_by
        self.judge_events()
        return self.ended_by

    @property
    def subject(self):
        return self.op.get("subject", "")

    # --- what is looked at

    def weigh(self, where, theirs, ours):
        """The differences that are not accepted. Says by `ended_by` if one is accepted that others follow from."""
        left = []
        for found in plain.differences(theirs, ours):
            rule = accepted.find(where, self, found)
            if rule is None:
                left.append(found)
            else:
                self.used.add(rule.name)
                if rule.ends:
                    self.ended_by = rule.name
        return left

    def judge(self, where, read):
        """Asks both until they say the same, or stand still and do not. True if the sequence ends here."""
        start = still_since = time.monotonic()
        last = None
        while True:
            now = self.both(read)
            left = self.weigh(where, *now)
            if self.ended_by:
                return True
            if not left:
                return False
            t = time.monotonic()
            if now != last:
                last, still_since = now, t
            # Theirs looks only every few seconds whether an origin that was not there has come.
            slow = 8 if '"name": "S' in json.dumps([s["info"].get(k) for s in now[0].get("streams", {}).values() for k in ("sources", "mirror")]) else 0
            if t - start > SAME_LIMIT + slow or t - still_since > STILL + slow:
                raise Difference(self.index, self.op, where, left)
            time.sleep(0.05)

    def judge_events(self):
        def sort(events):
            return sorted(events, key=lambda e: json.dumps(e, sort_keys=True))

        end = time.monotonic() + 2
        while True:
            theirs, ours = ([json.dumps(e, sort_keys=True) for e in s.events()] for s in self.sides)
            rest, extra = list(theirs), []
            for e in ours:
                if e in rest:
                    rest.remove(e)
                else:
                    extra.append(e)
            rest, extra = ([json.loads(e) for e in side] for side in (rest, extra))
            rest = [e for e in rest if not accepted.event("theirs", e)]
            extra = [e for e in extra if not accepted.event("ours", e)]
            if not rest and not extra:
                return
            if time.monotonic() > end:
                break
            time.sleep(0.1)
        found = []
        for e in rest:
            match = next((o for o in extra if o["subject"] == e["subject"]), None)
            if match:
                extra.remove(match)
                found += [(f"{e['subject']}{d[0]}", *d[1:]) for d in plain.differences(e, match) if not accepted.find("events", self, d)]
            else:
                found.append((f"{e['subject']} only theirs", e, None))
        found += [(f"{e['subject']} only ours", None, e) for e in extra]
        if found:
            raise Difference(self.index, self.op, "events", found)

    def heard(self, side):
        """What came since it was last compared, by subscription; heartbeats come when they come."""
        with side.client.lock:
            logs = {k: list(v) for k, v in side.client.logs.items() if k != "events"}
        return {k: [m for m in v if b"100 Idle Heartbeat" not in m.headers] for k, v in logs.items()}

    def look(self):
        """Compares what was heard, then the state. True if the sequence ends here."""
        self.both(lambda s: s.client.flush())
        end = time.monotonic() + SAME_LIMIT
        while True:
            theirs, ours = (self.heard(s) for s in self.sides)
            uneven = [k for k in {*theirs, *ours} if len(theirs.get(k, [])) != len(ours.get(k, []))]
            if not uneven or time.monotonic() > end:
                break
            time.sleep(0.02)
        new = [{}, {}]
        for k in sorted({*theirs, *ours}):
            start = self.compared.get(k, 0)
            for out, side, logs in zip(new, self.sides, (theirs, ours)):
                if logs.get(k, [])[start:]:
                    out[k] = [plain.message(m, side.names) for m in logs[k][start:]]
            self.compared[k] = min(len(theirs.get(k, [])), len(ours.get(k, [])))
        # Answers have inboxes of their own; for the comparison they are just the answers.
        rename = lambda side: {("inbox" if re.fullmatch(r"a\d+", k) else k): v for k, v in side.items()}
        left = self.weigh("answers", rename(new[0]), rename(new[1]))
        if left and all(".error." in path for path, _, _ in left):
            # Both refuse, in other words: nothing follows from it, and there may be worse to find behind it.
            self.words.append(Difference(self.index, self.op, "answers", left))
        elif left:
            raise Difference(self.index, self.op, "answers", left)
        if self.ended_by:
            return True
        if self.both(lambda s: s.client.closed) != [False, False]:
            raise Difference(self.index, self.op, "connection", [("closed", *(s.client.closed for s in self.sides))])
        complaints = self.ours.server.complaints()
        if complaints:
            raise Difference(self.index, self.op, "log", [("panic", [], complaints)])
        return self.judge("state", lambda side: side.state())

    # --- what is done

    def do_ask(self, op):
        text = op.get("body", "")
        text = text if isinstance(text, str) else json.dumps(text, separators=(",", ":"))
        wait = op.get("wait", "one")
        self.purged |= "STREAM.PURGE" in op["subject"] and ("filter" in text or "keep" in text)
        name = f"a{self.index}"

        def send(side):
            data = side.fill(text).encode("utf-8", "surrogateescape")
            reply = side.fill(op["reply"]) if "reply" in op else f"_R.{name}" if wait != "none" else ""
            side.client.publish(side.fill(op["subject"]), reply, block(op), data)
            side.client.flush()

        self.both(send)
        if wait != "none":
            self.await_answers(name, wait, op.get("quiet", QUIET))
        self.note_names(name)

    def await_answers(self, name, wait, quiet):
        def done(messages):
            if wait == "one":
                return bool(messages)
            return bool(messages) and (messages[-1].headers.split(b"\r\n")[0].split(b" ")[1:2] or [b""])[0] in (b"204", b"400", b"404", b"408", b"409", b"413", b"503", b"423")

        start = last_change = time.monotonic()
        counts = None
        while True:
            logs = [list(s.client.logs.get(name, [])) for s in self.sides]
            t = time.monotonic()
            if all(done(m) for m in logs):
                return
            if [len(m) for m in logs] != counts:
                counts, last_change = [len(m) for m in logs], t
            # One alone that has answered is waited for longer: an answer that is missing is a difference.
            if t - last_change > quiet and (counts[0] == counts[1] or t - start > 3):
                return
            time.sleep(0.003)

    def note_names(self, name):
        """Random names that both gave count as one."""
        found = []
        for side in self.sides:
            m = side.client.logs.get(name)
            try:
                answer = json.loads(m[0].body) if m else {}
            except ValueError:
                answer = {}
            found.append(answer.get("name", "") if isinstance(answer, dict) and "consumer_create" in str(answer.get("type")) else "")
            if m:
                pin = re.search(rb"Nats-Pin-Id: (\w+)", b"".join(x.headers for x in m))
                if pin:
                    found[-1] = pin.group(1).decode()
        if all(found) and found[0] != found[1]:
            for side, n in zip(self.sides, found):
                if n not in side.names:
                    side.names.append(n)

    def deliveries(self, side):
        out = {}
        for log, messages in self.heard(side).items():
            for m in messages:
                if m.reply.startswith("$JS.ACK."):
                    out.setdefault(plain.subject(m.reply, side.names), m.reply)
        return out

    def do_ack(self, op):
        theirs, ours = (self.deliveries(s) for s in self.sides)
        common = [k for k in theirs if k in ours]
        if not common:
            return
        # Recent ones are more often worth it.
        key = common[-1 - op["pick"] % len(common)]
        self.refused |= op["text"].startswith("-NAK")
        name = f"a{self.index}"
        for side, known in zip(self.sides, (theirs, ours)):
            side.client.publish(known[key], f"_R.{name}" if op.get("reply") else "", b"", op["text"].encode())
            side.client.flush()
        if op.get("reply"):
            self.await_answers(name, "one", QUIET)

    def do_listen(self, op):
        for side in self.sides:
            side.client.unsubscribe(op["name"])
            side.client.subscribe(op["name"], op["subject"], op.get("queue", ""))
            side.listening[op["name"]] = (op["subject"], op.get("queue", ""))
            side.client.flush()

    def do_deaf(self, op):
        for side in self.sides:
            side.client.unsubscribe(op["name"])
            side.listening.pop(op["name"], None)
            side.client.flush()

    def do_restart(self, op):
        self.restarted = True
        self.both(lambda s: s.restart(getattr(signal, "SIG" + op["signal"])))

    def do_sleep(self, op):
        time.sleep(op["seconds"])
