"""Draws a sequence of operations from a seed.

Owns: what is tried and how often. A seed draws first which families and options it uses at all (a swarm), so that some
sequences go deep where others do not go. Names are few, so that operations meet.
Does not: know what the servers answer; a sequence is fixed before it is played.
"""
import random

HOUR = 3600 * 10**9
PAST, FUTURE, FAR = "2020-01-01T00:00:00Z", "2036-01-01T00:00:00Z", "2120-01-01T00:00:00Z"
SUBJECTS = ["a.1", "a.2", "a.b.c", "b.1", "b.2", "c", "$KV.K.x", "$KV.K.y"]
FILTERS = ["a.1", "a.*", "a.>", ">", "b.>", "b.1", "*.1", "a.b.*", "c", "zz", "$KV.K.>", "$KV.K.x"]
BAD_SUBJECTS = ["", "a..b", ".a", "a.", "a b", "a.>.b", "$JS.API.>", "$SYS.x", "a*b", "$JS.>", "_INBOX.>", "*"]
JUNK = ["", "{", "[]", "null", "17", "{}", '""', "{\"name\":", "nonsense", '{"seq":"1"}', '{"x":1}', " {} ", '{"name":null}', '{"batch":1.5}', "{\"seq\":-1}"]
WRONG = ["", 0, -1, 1, True, None, "x", [], {}, ["a"], 1.5, 2**63, -(2**40), "1", [1], {"a": 1}, [None]]


class Drawer:
    def __init__(self, seed, family=None):
        self.r = random.Random(seed)
        r = self.r
        self.rates, self.family = {}, family
        names = [n[7:] for n in dir(self) if n.startswith("family_")]
        self.weights = {n: r.choice([0, 0, 1, 3, 8]) for n in names}
        self.weights["publish"] = r.choice([3, 8, 15])
        self.weights["stream_create"] = r.choice([1, 2, 4])
        self.weights["stream_update"] = self.weights["stream_update"] and r.choice([1, 2, 4])
        self.weights["restart"] = r.choice([0, 0, 1])
        self.weights["stream_delete"] = r.choice([0, 0, 0.5])
        if self.weights["ack"]:
            self.weights["pull"] += 4
        if self.weights["pull"] or self.weights["ack"]:
            self.weights["consumer_create"] += 3
        if family:
            self.weights[family] = 15
        self.streams = ["S1", "S2", "S3", "KV_K"][:r.choice([1, 2, 3, 4])]
        self.consumers = ["C1", "C2", "C3"][:r.choice([1, 2, 3])]
        self.badness = r.choice([0, 0, 0.03, 0.1])
        self.configs, self.consumer_configs, self.ephemerals = {}, {}, 0
        self.subjects = r.sample(SUBJECTS, r.choice([2, 4, 8]))

    def some(self, option, high=0.8):
        """Whether an option is used now; each has a rate of its own in each sequence."""
        if option not in self.rates:
            self.rates[option] = self.r.choice([0, 0, 0, 0.1, 0.3, high])
        return self.r.random() < self.rates[option]

    def pick(self, *values):
        return self.r.choice(values)

    def sequence(self):
        ops = [self.stream_create(s) for s in self.streams[:2]]
        names = [n for n, w in self.weights.items() if w]
        weights = [self.weights[n] for n in names]
        for _ in range(self.r.randrange(40, 150)):
            op = getattr(self, "family_" + self.r.choices(names, weights)[0])()
            ops += op if isinstance(op, list) else [op]
        return ops

    # --- names

    def stream(self):
        if self.r.random() < self.badness:
            return self.pick("none", "x.y", "*", "S1*", "a/b", "N" * 256)
        return self.r.choice(self.streams)

    def consumer(self):
        if self.r.random() < self.badness:
            return self.pick("none", "C.1", "*", ">", "C/1", "N" * 256)
        if self.ephemerals and self.r.random() < 0.3:
            return f"%E{self.r.randrange(self.ephemerals)}%"
        return self.r.choice(self.consumers)

    def subject(self):
        return self.r.choice(self.subjects)

    def filter(self):
        if self.r.random() < self.badness:
            return self.r.choice(BAD_SUBJECTS)
        return self.r.choice(FILTERS)

    def seq(self):
        return self.pick(0, 1, 1, 2, 2, 3, 3, 4, 5, 6, 8, 10, 15, 100, 2**53, 2**64 - 1) if self.some("wild seq", 0.5) else self.r.randrange(1, 12)

    def ask(self, subject, body="", **more):
        if self.r.random() < self.badness:
            body = self.spoil(body)
        if self.some("level header", 0.2):
            more["headers"] = [["Nats-Required-Api-Level", self.pick("0", "1", "2", "3", "4", "99", "x", "")]]
        return {"do": "ask", "subject": subject, "body": body, **more}

    def spoil(self, body):
        """A body that is wrong in one place."""
        if not isinstance(body, dict) or self.r.random() < 0.3:
            return self.r.choice(JUNK)
        body = dict(body)
        inner = body
        if isinstance(body.get("config"), dict) and self.r.random() < 0.7:
            inner = body["config"] = dict(body["config"])
        if inner and self.r.random() < 0.7:
            inner[self.r.choice(sorted(inner))] = self.r.choice(WRONG)
        else:
            inner[self.pick("unknown", "Name", "x", "config")] = self.r.choice(WRONG)
        return body

    # --- streams

    def stream_subjects(self, name):
        if name == "KV_K":
            return ["$KV.K.>"]
        base = {"S1": [["a.>"], ["a.*"], ["a.1", "a.2"], ["a.*", "a.b.c"], ["a.>", "c"]],
                "S2": [["b.>"], ["b.1"], ["b.*", "c"], ["b.>", "d.>"]],
                "S3": [["c"], ["c", "e"], ["e.>"], ["a.2"], []]}
        return self.r.choice(base.get(name, [["z"]]))

    STREAM_OPTIONS = {
        "retention": ["limits", "interest", "workqueue"],
        "storage": ["file", "memory"],
        "discard": ["old", "new", "new"],
        "max_msgs": [-1, 0, 1, 2, 3, 5],
        "max_bytes": [-1, 0, 100, 250, 1000, 10],
        "max_msgs_per_subject": [-1, 0, 1, 2, 3],
        "max_msg_size": [-1, 0, 5, 20, 100],
        "max_consumers": [-1, 0, 1, 2],
        "max_age": [0, HOUR, 10**8, 1000],
        "num_replicas": [0, 1, 1, 2, 3, 6, -1],
        "duplicate_window": [0, HOUR, 2 * 60 * 10**9, 10**8, 1, -1],
        "no_ack": [True, False],
        "compression": ["s2", "none"],
        "first_seq": [0, 1, 5, 100],
        "discard_new_per_subject": [True],
        "deny_delete": [True, False],
        "deny_purge": [True, False],
        "allow_rollup_hdrs": [True, False],
        "allow_direct": [True, True, False],
        "mirror_direct": [True, False],
        "allow_msg_ttl": [True, True, False],
        "subject_delete_marker_ttl": [0, HOUR, 10**9, 1, -1],
        "allow_msg_counter": [True],
        "allow_atomic": [True],
        "allow_msg_schedules": [True],
        "allow_batched": [True],
        "persist_mode": ["default", "async", ""],
        "sealed": [True, False],
        "description": ["", "said", "x" * 5000],
        "metadata": [{}, {"k": "v"}, {"_nats.x": "y"}, {"k": "v" * 200000}],
        "consumer_limits": [{}, {"max_ack_pending": 2}, {"inactive_threshold": 2 * HOUR}, {"max_ack_pending": -1}],
        "placement": [{}, {"cluster": "X"}, {"tags": ["t"]}],
        "template_owner": ["x"],
    }
    RARE = {"sealed", "num_replicas", "placement", "template_owner", "persist_mode", "no_ack", "max_age", "allow_msg_counter"}

    def transform(self):
        return self.pick({"src": ">", "dest": "a.>"}, {"src": "a.*", "dest": "b.{{wildcard(1)}}"}, {"src": "a.*", "dest": "a.1.{{partition(3,1)}}"}, {"src": "", "dest": ""},
                         {"src": "a.*", "dest": "q.$1"}, {"src": "x", "dest": "y.{{wildcard(1)}}"}, {"src": "a.1", "dest": "a.2"}, {"src": "", "dest": "a.2"}, {"src": "a.>", "dest": "b.1"})

    def source(self):
        # Theirs looks only now and then whether an origin that was not there has come: longer than a sequence lasts.
        there = sorted(self.configs)
        s = {"name": self.r.choice(there) if there and self.r.random() < 0.97 else self.stream()}
        if self.some("source seq", 0.5):
            s["opt_start_seq"] = self.seq()
        if self.some("source filter", 0.5):
            s["filter_subject"] = self.filter()
        if self.some("source transform", 0.5):
            s["subject_transforms"] = [self.transform() for _ in range(self.pick(1, 1, 2))]
        if self.some("source time", 0.2):
            s["opt_start_time"] = self.pick(PAST, FUTURE)
        if self.some("source external", 0.1):
            s["external"] = self.pick({"api": "$JS.X.API", "deliver": "dx"}, {"api": "", "deliver": ""})
        return s

    def stream_config(self, name):
        c = {"name": name}
        copying = self.weights["copies"] and self.r.random() < 0.4
        if not copying or self.r.random() < 0.3:
            c["subjects"] = self.stream_subjects(name)
        for key, values in self.STREAM_OPTIONS.items():
            if self.some(key, 0.3 if key in self.RARE else 0.8) and (key not in self.RARE or self.r.random() < 0.5):
                c[key] = self.r.choice(values)
        if name == "KV_K" and self.r.random() < 0.7:
            c.update(max_msgs_per_subject=self.pick(1, 3), discard="new", allow_rollup_hdrs=True, deny_delete=True, allow_direct=True)
        if c.get("allow_msg_counter") and self.r.random() < 0.7:
            for key in ("retention", "discard", "allow_msg_ttl", "allow_msg_schedules"):
                c.pop(key, None)
        if self.some("subject_transform", 0.3):
            c["subject_transform"] = self.transform()
        if self.some("republish", 0.5):
            c["republish"] = {"src": self.pick(">", "a.*", "", "zz", "a.1"), "dest": self.pick("rp.>", "rp.x", "rp.$1", "rp.x.>", "a.1")}
            if self.r.random() < 0.3:
                c["republish"]["headers_only"] = True
        if copying:
            if self.r.random() < 0.4:
                c["mirror"] = self.source()
            else:
                c["sources"] = [self.source() for _ in range(self.pick(1, 1, 2))]
        if self.r.random() < self.badness:
            c[self.r.choice(sorted(self.STREAM_OPTIONS))] = self.r.choice(WRONG)
        if self.r.random() < self.badness:
            c["subjects"] = [self.r.choice(BAD_SUBJECTS + FILTERS) for _ in range(self.pick(1, 2))]
        return c

    def stream_create(self, name):
        c = self.stream_config(name)
        self.configs[name] = c
        body = dict(c)
        if self.some("pedantic", 0.5):
            body["pedantic"] = self.pick(True, False)
        return self.ask(f"$JS.API.STREAM.CREATE.{name}", body)

    def family_stream_create(self):
        name = self.stream()
        if name in self.configs and self.r.random() < 0.3:
            return self.ask(f"$JS.API.STREAM.CREATE.{name}", self.configs[name])
        return self.stream_create(name)

    def family_stream_update(self):
        name = self.stream()
        new, c = self.stream_config(name), dict(self.configs.get(name, {"name": name}))
        for key in self.r.sample(sorted({*new, *c, "max_msgs", "subjects"} - {"name"}), self.pick(1, 1, 2)):
            if key in new:
                c[key] = new[key]
            else:
                c.pop(key, None)
        if self.r.random() < 0.7:
            self.configs[name] = c
        return self.ask(f"$JS.API.STREAM.UPDATE.{name}", c)

    def family_stream_read(self):
        name = self.stream()
        kind = self.pick("INFO", "INFO", "NAMES", "LIST")
        body = {}
        if self.r.random() < 0.4:
            body["offset"] = self.pick(0, 1, 2, 5, -1)
        if kind == "INFO":
            if self.r.random() < 0.5:
                body["subjects_filter"] = self.filter()
            if self.r.random() < 0.3:
                body["deleted_details"] = True
            return self.ask(f"$JS.API.STREAM.INFO.{name}", body or "")
        if self.r.random() < 0.6:
            body["subject"] = self.filter()
        return self.ask(f"$JS.API.STREAM.{kind}", body or "")

    def family_stream_delete(self):
        return self.ask(f"$JS.API.STREAM.DELETE.{self.stream()}", self.pick("", "", "{}", "x"))

    def family_purge(self):
        body = {}
        if self.r.random() < 0.5:
            body["filter"] = self.filter()
        if self.r.random() < 0.3:
            body["seq"] = self.seq()
        if self.r.random() < 0.3:
            body["keep"] = self.pick(0, 1, 2, 5)
        # Without a body see "an empty stream that is purged" in accepted.py.
        return self.ask(f"$JS.API.STREAM.PURGE.{self.stream()}", body or self.pick("", "{}"))

    # --- messages

    def publish(self, subject, headers, body="x", **more):
        op = {"do": "ask", "subject": subject, "body": body, **more}
        if headers:
            op["headers"] = headers
        return op

    def family_publish(self):
        h = []
        if self.some("msg id"):
            h.append(["Nats-Msg-Id", self.pick("m1", "m2", "m3", "", "m1" * 50)])
        if self.some("expected stream", 0.3):
            h.append(["Nats-Expected-Stream", self.pick("S1", "S1", "S2", "x")])
        if self.some("expected seq", 0.3):
            h.append(["Nats-Expected-Last-Sequence", self.pick("0", "1", "2", "3", "x", "-1", "", str(self.r.randrange(12)))])
        if self.some("expected subject seq", 0.5):
            h.append(["Nats-Expected-Last-Subject-Sequence", self.pick("0", "0", "1", "2", "3", "x", str(self.r.randrange(12)))])
            if self.r.random() < 0.4:
                h.append(["Nats-Expected-Last-Subject-Sequence-Subject", self.pick(self.subject(), self.filter())])
        if self.some("expected id", 0.3):
            h.append(["Nats-Expected-Last-Msg-Id", self.pick("m1", "m2", "")])
        if self.some("rollup", 0.3):
            h.append(["Nats-Rollup", self.pick("sub", "all", "x", "SUB", "")])
        if self.some("ttl", 0.5):
            h.append(["Nats-TTL", self.pick("1h", "3600", "never", "0", "-1", "x", "", "1ms", "1m30s")])
        if self.some("incr", 0.8):
            h.append(["Nats-Incr", self.pick("1", "+2", "-3", "0", "x", "", "1.5", "9" * 40)])
        if self.some("schedule", 0.4):
            h.append(["Nats-Schedule", self.pick("@at 2036-01-01T00:00:00Z", "@every 1h", "@every 1ms", "0 0 0 1 1 *", "x", "@hourly", "")])
            if self.r.random() < 0.9:
                h.append(["Nats-Schedule-Target", self.pick(self.subject(), self.subject(), "a.*", "")])
            if self.r.random() < 0.2:
                h.append(["Nats-Schedule-TTL", self.pick("1h", "x", "never")])
            if self.r.random() < 0.2:
                h.append(["Nats-Schedule-Source", self.pick(self.subject(), "a.*")])
            if self.r.random() < 0.2:
                h.append(["Nats-Schedule-Time-Zone", self.pick("Europe/Vienna", "x", "UTC")])
        if self.some("own header", 0.3):
            h.append([self.pick("X-A", "KV-Operation", "Nats-Stream-Source", "nats-msg-id", "Nats-Marker-Reason", "Nats-Scheduler", "Nats-Schedule-Next", "Nats-Sequence", "Nats-Required-Api-Level"),
                      self.pick("1", "DEL", "PURGE", "m1", "purge", "")])
        self.r.shuffle(h)
        body = self.pick("x", "y", "", "hello", "z" * 30, "1", '{"val":"3"}')
        more = {"wait": "none"} if self.some("silent", 0.3) else {}
        if self.some("bad block", 0.1):
            more["block"] = self.pick("NATS/1.0\r\n", "NATS/1.0", "\r\n\r\n", "NATS/1.0\r\nNats-Msg-Id m1\r\n\r\n", "NATS/1.0\r\nNats-Msg-Id:m1\r\n\r\n", "NATS/1.0\r\nNats-Rollup:  sub  \r\nX:1\r\n\r\n", "NATS/1.0\r\nA:\r\n\r\n",
                                      "NATS/1.0\r\nnats-rollup: all\r\n\r\n", "NATS/1.0\r\nX-Nats-Msg-Id: m2\r\n\r\n", "NATS/1.0\r\nNats-Msg-Id: m1\r\nNats-Msg-Id: m2\r\n\r\n")
        return self.publish(self.subject(), h, body, **more)

    def family_batch(self):
        """An atomic batch, whole or not."""
        size, ident = self.pick(1, 2, 3, 4), self.pick("b1", "b2", "", "b" * 65)
        ops, subject = [], self.subject()
        for i in range(1, size + 1):
            h = [["Nats-Batch-Id", ident], ["Nats-Batch-Sequence", str(i if self.r.random() < 0.95 else self.pick(0, i + 1, "x"))]]
            if i == size and self.r.random() < 0.85:
                h.append(["Nats-Batch-Commit", self.pick("1", "1", "1", "eob", "0", "")])
            if self.r.random() < 0.2:
                h.append(self.pick(["Nats-Msg-Id", "m1"], ["Nats-Expected-Last-Sequence", str(self.r.randrange(8))], ["Nats-Expected-Last-Subject-Sequence", str(self.r.randrange(5))], ["Nats-Rollup", "sub"], ["Nats-TTL", "1h"], ["Nats-Incr", "1"],
                                   ["Nats-Expected-Last-Msg-Id", "m1"], ["Nats-Expected-Stream", "S1"]))
            more = {"wait": "none"} if 1 < i < size and self.r.random() < 0.5 else {}
            ops.append(self.publish(subject if self.r.random() < 0.6 else self.subject(), h, f"b{i}", **more))
        return ops

    def family_fast(self):
        """A fast batch: its numbers are in the reply subject."""
        size, flow, mode, subject = self.pick(1, 2, 3, 5), self.pick(1, 2, 10), self.pick("ok", "fail"), self.subject()
        token, ops = self.r.randrange(10**6), []
        for i in range(1, size + 1):
            last = i == size and self.r.random() < 0.8
            op = 0 if i == 1 and not last else (self.pick(2, 3) if last else 1)
            seq = i if self.r.random() < 0.93 else i + 1
            ops.append(self.publish(subject, [["Nats-Msg-Id", "m1"]] if self.some("fast id", 0.2) else [], f"f{i}", reply=f"_R.f{token}.u{token}.{flow}.{mode}.{seq}.{op}.$FI", wait="none"))
        return ops

    def family_msg_get(self):
        body = {}
        for _ in range(self.pick(1, 1, 2)):
            self.get_options(body)
        return self.ask(f"$JS.API.STREAM.MSG.GET.{self.stream()}", body)

    def get_options(self, body):
        key = self.pick("seq", "seq", "next_by_subj", "last_by_subj", "start_time", "no_hdr")
        body[key] = {"seq": self.seq(), "start_time": self.pick(PAST, FUTURE), "no_hdr": True}.get(key, self.pick(self.subject(), self.filter()))

    def family_direct_get(self):
        name, body = self.stream(), {}
        if self.r.random() < 0.2:
            return self.ask(f"$JS.API.DIRECT.GET.{name}.{self.pick(self.subject(), self.subject(), self.filter())}", self.pick("", "", '{"seq":1}'), wait="end", quiet=0.25)
        self.get_options(body)
        if self.r.random() < 0.4:
            self.get_options(body)
        if self.r.random() < 0.35:
            body["multi_last"] = [self.pick(self.filter(), self.subject()) for _ in range(self.pick(1, 2))]
            if self.r.random() < 0.7:
                body = {"multi_last": body["multi_last"]}
            if self.r.random() < 0.3:
                body["up_to_seq"] = self.seq()
            if self.r.random() < 0.2:
                body["up_to_time"] = self.pick(PAST, FUTURE)
        if self.r.random() < 0.5:
            body["batch"] = self.pick(0, 1, 2, 3, 100, -1)
        if self.r.random() < 0.2:
            body["max_bytes"] = self.pick(1, 40, 1000, -1)
        return self.ask(f"$JS.API.DIRECT.GET.{name}", body, wait="end", quiet=0.25)

    def family_msg_delete(self):
        body = {"seq": self.seq()}
        if self.r.random() < 0.3:
            body["no_erase"] = True
        return self.ask(f"$JS.API.STREAM.MSG.DELETE.{self.stream()}", body)

    # --- consumers

    CONSUMER_OPTIONS = {
        "deliver_policy": ["all", "last", "new", "by_start_sequence", "by_start_time", "last_per_subject"],
        "ack_policy": ["none", "all", "explicit", "explicit"],
        "ack_wait": [HOUR, 2 * HOUR, 0],
        "max_deliver": [-1, 0, 5, 10],
        "backoff": [[HOUR], [HOUR, 2 * HOUR], []],
        "replay_policy": ["instant"],
        "rate_limit_bps": [0, 10**9],
        "sample_freq": ["100", "100%", "0", "x", "50", "101"],
        "max_waiting": [0, 1, 2, 512],
        "max_ack_pending": [-1, 0, 1, 2, 1000],
        "headers_only": [True],
        "max_batch": [0, 1, 2],
        "max_expires": [0, HOUR, 10**8],
        "max_bytes": [0, 50, 1000],
        "flow_control": [True],
        "idle_heartbeat": [0, HOUR, 10**8],
        "num_replicas": [0, 1, 2, 3],
        "mem_storage": [True],
        "metadata": [{"k": "v"}, {}],
        "description": ["said", "x" * 5000],
        "pause_until": [FUTURE, PAST],
        "direct": [True],
        "opt_start_seq": [0, 1, 3],
        "opt_start_time": [PAST, FUTURE],
        "deliver_group": ["q"],
    }
    RARE_CONSUMER = {"flow_control", "direct", "num_replicas", "description", "idle_heartbeat", "opt_start_seq", "opt_start_time", "deliver_group", "pause_until", "rate_limit_bps"}

    def consumer_config(self):
        c = {"ack_policy": "explicit"}
        for key, values in self.CONSUMER_OPTIONS.items():
            if self.some("consumer " + key, 0.7) and (key not in self.RARE_CONSUMER or self.r.random() < 0.4):
                c[key] = self.r.choice(values)
        if c.get("deliver_policy") == "by_start_sequence" and self.r.random() < 0.9:
            c["opt_start_seq"] = self.seq()
        if c.get("deliver_policy") == "by_start_time" and self.r.random() < 0.9:
            c["opt_start_time"] = self.pick(PAST, FUTURE)
        if self.some("filter", 0.7):
            c["filter_subject"] = self.filter()
        if self.some("filters", 0.3):
            c["filter_subjects"] = self.r.sample(FILTERS, self.pick(1, 2, 2, 3))
        if self.some("push", 0.7):
            c["deliver_subject"] = self.pick("d.1", "d.2", "d.1", "a.1", "d.*", "")
            for key in ("max_waiting", "max_batch", "max_expires", "max_bytes"):
                if self.r.random() < 0.9:
                    c.pop(key, None)
            if self.r.random() < 0.3:
                c["deliver_group"] = "q"
        else:
            for key in ("deliver_group", "idle_heartbeat", "flow_control", "rate_limit_bps"):
                if self.r.random() < 0.9:
                    c.pop(key, None)
            if self.some("priority", 0.6):
                c["priority_policy"] = self.pick("overflow", "pinned_client", "prioritized", "none")
                c["priority_groups"] = self.pick(["A"], ["A"], ["A"], ["A", "B"], [], ["x y"])
                if self.r.random() < 0.3:
                    c["priority_timeout"] = HOUR
        return c

    def family_consumer_create(self):
        stream, c = self.stream(), self.consumer_config()
        name, form = self.consumer(), self.r.random()
        if name.startswith("%E"):
            name = self.consumers[0]
        known = self.consumer_configs.get((stream, name))
        if known and self.r.random() < 0.6:
            # An update, or the same again.
            new, c = c, dict(known)
            if self.r.random() < 0.8:
                for key in self.r.sample(sorted({*new, *c}), 1):
                    if key in new:
                        c[key] = new[key]
                    else:
                        c.pop(key, None)
        body = {"stream_name": stream if self.r.random() > self.badness else "S2", "config": c}
        if self.some("action", 0.5):
            body["action"] = self.pick("create", "update", "")
        if self.some("consumer pedantic", 0.3):
            body["pedantic"] = True
        if form < 0.12:
            # Nobody names it; it has to live as long as the sequence.
            c.setdefault("inactive_threshold", HOUR)
            self.ephemerals += 1
            return self.ask(f"$JS.API.CONSUMER.CREATE.{stream}", body)
        if form < 0.35:
            c["durable_name"] = name if self.r.random() > self.badness else "C9"
            self.consumer_configs[stream, name] = c
            return self.ask(f"$JS.API.CONSUMER.DURABLE.CREATE.{stream}.{name}", body)
        c["name"] = name
        # One that is durable rarely becomes one that is not, or the other way round.
        durable = "durable_name" in known if known and self.r.random() < 0.95 else self.r.random() < 0.8
        if durable:
            c["durable_name"] = name
            c.pop("inactive_threshold", None)
        else:
            c.pop("durable_name", None)
            c["inactive_threshold"] = HOUR
        self.consumer_configs[stream, name] = c
        subject = f"$JS.API.CONSUMER.CREATE.{stream}.{name}"
        if c.get("filter_subject", " ").count(" ") == 0 and self.r.random() < 0.7:
            subject += "." + c["filter_subject"]
        return self.ask(subject, body)

    def family_consumer_read(self):
        stream = self.stream()
        if self.r.random() < 0.4:
            return self.ask(f"$JS.API.CONSUMER.INFO.{stream}.{self.consumer()}", self.pick("", "", "{}", "x"))
        body = {"offset": self.pick(0, 1, 2, -1)} if self.r.random() < 0.5 else ""
        return self.ask(f"$JS.API.CONSUMER.{self.pick('NAMES', 'LIST')}.{stream}", body)

    def family_consumer_delete(self):
        return self.ask(f"$JS.API.CONSUMER.DELETE.{self.stream()}.{self.consumer()}")

    def family_consumer_pause(self):
        return self.ask(f"$JS.API.CONSUMER.PAUSE.{self.stream()}.{self.consumer()}", self.pick({"pause_until": FUTURE}, {"pause_until": PAST}, {}, "", {"pause_until": "0001-01-01T00:00:00Z"}))

    def family_consumer_reset(self):
        return self.ask(f"$JS.API.CONSUMER.RESET.{self.stream()}.{self.consumer()}", self.pick({"seq": self.seq()}, {"seq": self.seq()}, {}, ""))

    def family_consumer_unpin(self):
        return self.ask(f"$JS.API.CONSUMER.UNPIN.{self.stream()}.{self.consumer()}", self.pick({"group": "A"}, {"group": "A"}, {"group": "B"}, {}, "", {"group": ""}))

    def family_pull(self):
        body = {"batch": self.pick(1, 1, 2, 3, 10)}
        if self.r.random() < 0.05:
            body["batch"] = self.pick(0, -1, 100)
        if self.r.random() < 0.65:
            body["no_wait"] = True
        if self.r.random() < 0.4:
            body["expires"] = self.pick(300 * 10**6, HOUR, HOUR, 1, -1)
        if self.some("pull bytes", 0.3):
            body["max_bytes"] = self.pick(1, 50, 100, 1000, -1)
        if self.some("pull heartbeat", 0.3):
            body["idle_heartbeat"] = self.pick(10**8, HOUR // 4, 10**9)
        if self.weights["consumer_unpin"] or self.rates.get("priority"):
            if self.r.random() < 0.7:
                body["group"] = self.pick("A", "A", "A", "B", "")
            if self.r.random() < 0.3:
                body["id"] = self.pick("%E0%", "%E1%", "x", "")
            if self.r.random() < 0.3:
                body[self.pick("min_pending", "min_ack_pending")] = self.pick(1, 3, 0, -1)
            if self.r.random() < 0.3:
                body["priority"] = self.pick(0, 1, 5, 9, 10, -1)
        if self.r.random() < 0.1:
            body = self.pick("", "1", "3", "x", "-1", "{}", '{"batch":"x"}', " 2")
        waits = isinstance(body, dict) and (body.get("no_wait") or body.get("expires") == 300 * 10**6)
        # What waits for an hour is heard when it comes.
        return self.ask(f"$JS.API.CONSUMER.MSG.NEXT.{self.stream()}.{self.consumer()}", body, wait="end", quiet=0.7 if waits and not body.get("no_wait") else 0.15)

    def family_ack(self):
        text = self.pick("+ACK", "+ACK", "+ACK", "", "-NAK", "-NAK", '-NAK {"delay":3600000000000}', "-NAK x", "-NAK 1h", "+TERM", "+TERM why", "+WPI", "+NXT", "+NXT 2", '+NXT {"batch":2,"no_wait":true}', "+OK", "+ACK ", "junk", "-NAK {\"delay\":\"1h\"}")
        if self.r.random() < 0.5:
            text = self.pick("+ACK", "-NAK")
        return {"do": "ack", "pick": self.pick(0, 0, 0, 1, 1, 2, 3, 7), "text": text, "reply": text.startswith("+NXT") or self.r.random() < 0.5}

    def family_listen(self):
        if self.r.random() < 0.25:
            return {"do": "deaf", "name": self.pick("d1", "d2")}
        name = self.pick("d1", "d2")
        return {"do": "listen", "name": name, "subject": "d." + name[1], "queue": self.pick("", "", "q")}

    # --- the rest

    def family_copies(self):
        return self.stream_create(self.r.choice(self.streams))

    def family_account(self):
        return self.ask("$JS.API.INFO", self.pick("", "", "{}", "x"))

    def family_odd(self):
        """Requests that there are not, or not here."""
        s, c = self.stream(), self.consumer()
        return self.ask(self.pick(f"$JS.API.STREAM.LEADER.STEPDOWN.{s}", f"$JS.API.CONSUMER.LEADER.STEPDOWN.{s}.{c}", "$JS.API.META.LEADER.STEPDOWN", f"$JS.API.STREAM.PEER.REMOVE.{s}",
                                  "$JS.API.STREAM.TEMPLATE.NAMES", "$JS.API.SERVER.REMOVE", f"$JS.API.STREAM.INFO.{s}.x", "$JS.API.STREAM.CREATE", "$JS.API.X", f"$JS.API.CONSUMER.CREATE.{s}.{c}.a.>.b", f"$JS.API.CONSUMER.INFO.{s}", "$JS.API",
                                  f"$JS.API.STREAM.UPDATE.{s}", f"$JS.API.STREAM.CREATE.{s}", f"$JS.API.STREAM.PURGE.{s}", f"$JS.API.STREAM.MSG.GET.{s}", f"$JS.API.STREAM.MSG.DELETE.{s}", f"$JS.API.DIRECT.GET.{s}", f"$JS.API.CONSUMER.DURABLE.CREATE.{s}.{c}",
                                  f"$JS.API.CONSUMER.CREATE.{s}.{c}", f"$JS.API.CONSUMER.PAUSE.{s}.{c}", f"$JS.API.CONSUMER.RESET.{s}.{c}", f"$JS.API.CONSUMER.UNPIN.{s}.{c}", f"$JS.API.STREAM.RESTORE.{s}", f"$JS.API.STREAM.SNAPSHOT.{s}"),
                        self.pick("", "{}", self.r.choice(JUNK)))

    def family_restart(self):
        return {"do": "restart", "signal": "TERM"}
