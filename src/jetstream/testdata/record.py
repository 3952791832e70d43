#!/usr/bin/env python3
"""Asks a real nats-server the questions below and writes what it answers, with times and random names normalised.

    python3 record.py PATH_TO_NATS_SERVER

Writes beside itself: `api.jsonl` (requests and answers), `events.jsonl` (advisories and metrics), `wire.jsonl` (publish
acknowledgements, direct get answers and status lines). The tests of `src/jetstream/api` compare with these files.
"""
import json, os, re, shutil, socket, subprocess, sys, tempfile, time

HERE = os.path.dirname(os.path.abspath(__file__))


class Client:
    """As much of a NATS client as the questions need."""

    def __init__(self, port, user=None):
        self.sock = socket.create_connection(("127.0.0.1", port))
        self.sock.settimeout(3)
        self.buf, self.n, self.others = b"", 0, []
        self.line()
        connect = {"verbose": False, "pedantic": False, "headers": True, "no_responders": True, "lang": "probe",
                   "version": "1", "name": "probe", "protocol": 1}
        if user:
            connect["user"] = connect["pass"] = user
        self.sock.sendall(b"CONNECT " + json.dumps(connect).encode() + b"\r\n")
        self.sub("_INBOX.probe.*")
        self.flush()

    def fill(self):
        data = self.sock.recv(65536)
        if not data:
            raise EOFError
        self.buf += data

    def line(self):
        while b"\r\n" not in self.buf:
            self.fill()
        head, self.buf = self.buf.split(b"\r\n", 1)
        return head

    def take(self, n):
        while len(self.buf) < n + 2:
            self.fill()
        data, self.buf = self.buf[:n], self.buf[n + 2:]
        return data

    def sub(self, subject):
        self.n += 1
        self.sock.sendall(b"SUB %s %d\r\n" % (subject.encode(), self.n))

    def pub(self, subject, body=b"", reply="", headers=None):
        body = body.encode() if isinstance(body, str) else body
        if headers:
            block = b"NATS/1.0\r\n" + b"".join(("%s: %s\r\n" % h).encode() for h in headers) + b"\r\n"
            head = "HPUB %s %s %d %d\r\n" % (subject, reply, len(block), len(block) + len(body))
            self.sock.sendall(head.encode() + block + body + b"\r\n")
        else:
            self.sock.sendall(("PUB %s %s %d\r\n" % (subject, reply, len(body))).encode() + body + b"\r\n")

    def message(self):
        """The next message: subject, reply, header block, payload."""
        while True:
            line = self.line()
            if line == b"PING":
                self.sock.sendall(b"PONG\r\n")
            parts = line.split(b" ")
            if parts[0] == b"MSG":
                return parts[1].decode(), parts[3].decode() if len(parts) > 4 else "", b"", self.take(int(parts[-1]))
            if parts[0] == b"HMSG":
                head, total = int(parts[-2]), int(parts[-1])
                data = self.take(total)
                return parts[1].decode(), parts[3].decode() if len(parts) > 5 else "", data[:head], data[head:]
            if parts[0] == b"PONG":
                return None

    def flush(self):
        """All messages until the server has seen what was sent."""
        self.sock.sendall(b"PING\r\n")
        got = []
        while (m := self.message()) is not None:
            got.append(m)
        self.others += got
        return got

    def request(self, subject, body=b"", headers=None, timeout=3.0):
        self.n += 1
        inbox = "_INBOX.probe.%d" % self.n
        self.pub(subject, body, inbox, headers)
        self.sock.settimeout(timeout)
        try:
            while True:
                m = self.message()
                if m and m[0] == inbox:
                    return m
                if m:
                    self.others.append(m)
        except socket.timeout:
            return None

    def gather(self, seconds):
        """Messages until none came for that long."""
        got, self.others = self.others, []
        self.sock.settimeout(seconds)
        try:
            while True:
                m = self.message()
                if m:
                    got.append(m)
        except socket.timeout:
            return got


class Server:
    def __init__(self, binary, conf="", extra=()):
        self.dir = tempfile.mkdtemp()
        probe = socket.socket()
        probe.bind(("127.0.0.1", 0))
        self.port = probe.getsockname()[1]
        probe.close()
        path = os.path.join(self.dir, "conf")
        with open(path, "w") as f:
            f.write("server_name: srv\nlisten: \"127.0.0.1:%d\"\n" % self.port)
            f.write((conf or "jetstream {store_dir: DIR}\n").replace("DIR", json.dumps(self.dir + "/js")))
        self.proc = subprocess.Popen([binary, "-c", path, "-l", self.dir + "/log", *extra])
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                return
            except OSError:
                time.sleep(0.05)
        raise SystemExit("the server did not start: " + open(self.dir + "/log").read())

    def stop(self):
        self.proc.terminate()
        self.proc.wait()
        shutil.rmtree(self.dir, ignore_errors=True)


ZERO = "0001-01-01T00:00:00Z"


def normal(text, names=True):
    """Times, identities and durations that differ from run to run become fixed ones."""
    keep = "\x00"
    text = text.replace(ZERO, keep)
    text = re.sub(r"(?<=\":\")20[0-9]{2}-[0-9]{2}-[0-9]{2}T[0-9:]{8}(\.[0-9]+)?Z(?=\\?\")(?<!2031-02-03T04:05:06Z)",
                  "2026-11-21T07:00:00.123456789Z", text)
    text = text.replace(keep, ZERO)
    text = re.sub(r'("id":")[A-Za-z0-9]{22}"', r'\1AAAAAAAAAAAAAAAAAAAAAA"', text)
    text = re.sub(r'("pinned_(?:client_)?id":")[A-Za-z0-9]{22}"', r'\1AAAAAAAAAAAAAAAAAAAAAA"', text)
    text = re.sub(r'("id":)[0-9]+', r"\g<1>7", text)
    text = re.sub(r'("(?:rtt|pause_remaining|active|ack_time)":)[1-9][0-9]*', r"\g<1>1234567", text)
    text = re.sub(r'("server_id":|"peer":)"[A-Za-z0-9]+"', r'\1"PEER"', text)
    text = re.sub(r'(RESTORE\.[A-Z]+\.)[A-Za-z0-9]{22}', r"\1AAAAAAAAAAAAAAAAAAAAAA", text)
    return text


class Book:
    def __init__(self, name):
        self.path, self.rows = os.path.join(HERE, name), []

    def add(self, **row):
        self.rows.append(json.dumps(row, ensure_ascii=True))

    def close(self):
        with open(self.path, "w") as f:
            f.write("\n".join(self.rows) + "\n")
        print(self.path, len(self.rows))


API, EVENTS, WIRE = Book("api.jsonl"), Book("events.jsonl"), Book("wire.jsonl")


class Asker:
    def __init__(self, client, prefix="$JS.API.", mode="strict"):
        self.c, self.prefix, self.mode = client, prefix, mode

    def __call__(self, subject, body="", headers=None, timeout=3.0, record=True):
        m = self.c.request(self.prefix + subject, body, headers, timeout)
        if record:
            text = body.decode("latin-1") if isinstance(body, bytes) else body
            row = {"mode": self.mode, "subject": self.prefix + subject, "body": text}
            if isinstance(body, bytes):
                row["latin1"] = True
            if headers:
                row["headers"] = headers
            row["reply"] = None if m is None else normal(m[3].decode())
            API.add(**row)
        return None if m is None else m[3].decode()


def J(value):
    return json.dumps(value, separators=(",", ":"))


def bad_json(ask):
    """What is said of bodies that are no JSON, or not the JSON that was expected."""
    stream = [
        "", "{", "{}", "nope", "null", "[1]", '"x"', "5", "true", "  ", "\t\n", "[", "[]", "{]", "nul", "nulL", "tru", "fals ", "-", "-x", "1.",
        "1.x", "1e", "1ex", "1e+", "0x", ".5", "+1", "'a'", "{'a':1}", '{"a"}', '{"a":}', '{"a":1,', '{"a":1,}', '{"a" 1}', "{,}", "{1:2}", '{"a":1}}',
        '{"name":"X","foo":1}', '{"name":"X","foo":{"a":[1,{}]}}', '{"name":"X","subjects":["x"]} trailing', '{"name":"X"}]', '{"name":"X"} 5',
        '{"name":"X"}{"foo":1}', '{"name":"X","max_msgs":"5"}', '{"name":"X","max_msgs":5.5}', '{"name":"X","max_msgs":-0}', '{"name":5}',
        '{"name":["a"]}', '{"name":{"a":1}}', '{"name":true}', '{"name":false}', '{"name":5.25}', '{"name":-1}', '{"name":1e400}',
        '{"name":"X","storage":"zip"}', '{"name":"X","storage":5}', '{"name":"X","storage":["file"]}', '{"name":"X","storage":{"a":"b<c>"}}',
        '{"name":"X","storage":"a\\"b"}', '{"name":"X","storage":true}', '{"name":"X","storage":null,"zzz":1}', '{"name":"X","retention":"x"}',
        '{"name":"X","retention":" limits"}', '{"name":"X","discard":"x"}', '{"name":"X","persist_mode":"x"}', '{"name":"X","compression":"x"}',
        '{"name":"X","compression":5}', '{"name":"X","compression":["s2"]}', '{"name":"X","compression":{}}', '{"name":"X","compression":true}',
        '{"name":"X","subjects":"x"}', '{"name":"X","subjects":[5]}', '{"name":"X","subjects":["a",5,true]}', '{"name":"X","subjects":[["a"]]}',
        '{"name":"X","subjects":{}}', '{"name":"X","subjects":["a",]}', '{"name":"X","subjects":["a" "b"]}', '{"name":"X","subjects":["a"',
        '{"name":"X","max_msgs":99999999999999999999}', '{"name":"X","max_msgs":9223372036854775808}', '{"name":"X","max_msg_size":2147483648}',
        '{"name":"X","max_msg_size":-2147483649}', '{"name":"X","num_replicas":"a"}', '{"name":"X","num_replicas":[]}', '{"name":"X","num_replicas":true}',
        '{"name":"X","placement":{"cluster":5}}', '{"name":"X","placement":{"bad":5}}', '{"name":"X","placement":5}', '{"name":"X","placement":[]}',
        '{"name":"X","placement":{"tags":[1]}}', '{"name":"X","mirror":"a"}', '{"name":"X","mirror":{"name":5}}', '{"name":"X","mirror":{"external":{"foo":1}}}',
        '{"name":"X","mirror":{"external":{"api":1}}}', '{"name":"X","mirror":{"opt_start_time":"bad"}}', '{"name":"X","mirror":{"opt_start_seq":-5}}',
        '{"name":"X","sources":[{"name":5}]}', '{"name":"X","sources":[5]}', '{"name":"X","sources":{}}', '{"name":"X","sources":[{"name":"a"},{"zip":5}]}',
        '{"name":"X","sources":[{"subject_transforms":[{"src":1}]}]}', '{"name":"X","sources":[{"subject_transforms":5}]}',
        '{"name":"X","sources":[{"opt_start_time":"bad"}]}', '{"name":"X","sources":[{"opt_start_time":5}]}', '{"name":"X","sources":[{"opt_start_time":true}]}',
        '{"name":"X","sources":[{"opt_start_time":""}]}', '{"name":"X","sources":[{"opt_start_time":"2024-13-01T00:00:00Z"}]}',
        '{"name":"X","sources":[{"opt_start_time":"2024-01-01"}]}', '{"name":"X","sources":[{"opt_start_time":"2024-01-01T00:00:00"}]}',
        '{"name":"X","sources":[{"opt_start_time":"2024-01-01 00:00:00Z"}]}', '{"name":"X","sources":[{"opt_start_time":"2024-02-30T00:00:00Z"}]}',
        '{"name":"X","sources":[{"opt_start_time":"2024-01-01T25:00:00Z"}]}', '{"name":"X","sources":[{"opt_start_time":"2024-01-01T00:61:00Z"}]}',
        '{"name":"X","sources":[{"opt_start_time":"2024-01-01T00:00:00+25:00"}]}', '{"name":"X","sources":[{"opt_start_time":"2024-01-01T0:00:00Z"}]}',
        '{"name":"X","sources":[{"opt_start_time":"2024-01-01T00:00:00Zx"}]}', '{"name":"X","sources":[{"opt_start_time":"2024-01-01T00:00:00,5Z"}]}',
        '{"name":"X","metadata":{"a":5}}', '{"name":"X","metadata":5}', '{"name":"X","metadata":["a"]}', '{"name":"X","metadata":{"a":{"b":1}}}',
        '{"name":"X","sealed":1}', '{"name":"X","sealed":"true"}', '{"name":"X","no_ack":{}}', '{"name":"X","first_seq":-1}', '{"name":"X","first_seq":1.5}',
        '{"name":"X","max_age":"1s"}', '{"name":"X","max_age":1e3}', '{"name":"X","max_consumers":1.0}', '{"name":"X","duplicate_window":{}}',
        '{"name":"X","subject_transform":{"src":1}}', '{"name":"X","subject_transform":5}', '{"name":"X","republish":5}', '{"name":"X","republish":{"headers_only":5}}',
        '{"name":"X","consumer_limits":{"max_ack_pending":"a"}}', '{"name":"X","consumer_limits":5}', '{"name":"X","consumer_limits":{"x":5}}',
        '{"name":"X","pedantic":5}', '{"name":"X","subject_delete_marker_ttl":"a"}', '{"name":"X","max_msgs":"a","foo":1}', '{"name":"X","foo":1,"max_msgs":"a"}',
        '{"name":"X","max_msgs":"a","max_bytes":"b"}', '{"name":"X","storage":"q","max_bytes":"b"}', '{"name":"X","max_bytes":"b","storage":"q"}',
        '{"name":"X","foo":1,"storage":"q"}', '{"name":"X","bar":1,"foo":2}', '{"NAME":"Y"}', '{"Name":5}', '{"NAME":5}', '{"nAmE":"X","MAX_MSGS":"a"}',
        '{"name":"X","name":5}', '{"name":5,"name":"X"}', '{"name":"X\\n"}', '{"name":"X\n"}', '{"name":"a\\x"}', '{"name":"a\\u12"}', '{"name":"a\\u12g4"}',
        '{"name":"a\x01b"}', '{"name":"a\x7fb"}', '{"name":"\\ud800"}', '{"x', '{"name', '{"name"', '{"name":', '{"name":"X', '{"name":"X"', '{"name":tru}',
        '{"name":nul}', '{"name":falsy}', '{"a":01}', '{"a":1.}', '{"a":1.a}', '{"a":1e}', '{"a":-}', '{"a":-a}', '{"a":+1}', '{"a":.1}', '{"a":1 2}',
        '{"name":"X" "subjects":["a"]}', '{"name" "X"}', '{"name":"X";}', '  {"name":"W","subjects":["w"]}  \n', "[" * 40 + "]" * 40, '{"a":' * 10001,
        '{"caf\u00e9":1}', '{"a\\u00e9b":1}', '{"a\\"b":1}', '{"a<b>&":1}', '{"\\u2028":1}', "\u00e9", '{"name":"X",\u00e9}', '{"name":\u00e9}', '\ufeff{}',
        "{\u00a0}", "\x00", '{"a":\x00}', '"', '"\\', '{"\\u', '{"name":"X"}"', "\v{}", "\\", '{"":1}',
    ]
    for body in stream:
        ask("STREAM.CREATE.X", body)
    for body in [b'{"name":"\xff"}', b'{"\xff":1}', b"\xff", b'{"name":\xff}', b'{"name":"\xc3"}']:
        ask("STREAM.CREATE.X", body)
    consumer = [
        "", "{}", "nope", "null", "[]", '"a"', '{"a":1}', '{"stream_name":5}', '{"stream_name":"S","config":5}', '{"stream_name":"S","config":{"x":1}}', '{"config":[]}',
        '{"stream_name":"S","config":{"durable_name":5}}', '{"stream_name":"S","config":{"ack_policy":"x"}}', '{"stream_name":"S","config":{"ack_policy":5}}',
        '{"stream_name":"S","config":{"deliver_policy":"x"}}', '{"stream_name":"S","config":{"deliver_policy":5}}', '{"stream_name":"S","config":{"replay_policy":"x"}}',
        '{"stream_name":"S","config":{"priority_policy":"x"}}', '{"stream_name":"S","config":{"priority_policy":5}}', '{"stream_name":"S","config":{"backoff":5}}',
        '{"stream_name":"S","config":{"backoff":["1s"]}}', '{"stream_name":"S","config":{"backoff":[1,2.5]}}', '{"stream_name":"S","config":{"filter_subjects":"a"}}',
        '{"stream_name":"S","config":{"filter_subjects":[1]}}', '{"stream_name":"S","config":{"opt_start_time":"x"}}', '{"stream_name":"S","config":{"pause_until":5}}',
        '{"stream_name":"S","config":{"metadata":{"a":1}}}', '{"stream_name":"S","config":{"priority_groups":[1]}}', '{"stream_name":"S","config":{"rate_limit_bps":-1}}',
        '{"stream_name":"S","config":{"max_waiting":"a"}}', '{"stream_name":"S","config":{"ack_wait":1.5}}', '{"stream_name":"S","config":{"sample_freq":5}}',
        '{"stream_name":"S","action":"x"}', '{"stream_name":"S","action":5}', '{"stream_name":"S","action":null}', '{"stream_name":"S","action":{}}', '{"stream_name":"S","pedantic":"x"}',
        '{"stream_name":"S","config":{"priority_timeout":"a"}}', '{"stream_name":"S","config":{"flow_control":1}}', '{"stream_name":"S","config":{"num_replicas":"1"}}',
    ]
    for body in consumer:
        ask("CONSUMER.CREATE.S", body)
    others = {
        "STREAM.NAMES": ['{"offset":"a"}', '{"offset":1.5}', '{"x":1}', "[]", "5", '"x"', " {}", "{", '{"subject":5}', "null", "nope", '{"offset":-5}'],
        "STREAM.LIST": ['{"offset":"a"}', '{"x":1}', "[]", "5", '{"subject":5}', '{"offset":-5}'],
        "STREAM.INFO.S": ['{"offset":"a"}', '{"x":1}', "[]", "5", '{"deleted_details":5}', '{"subjects_filter":5}', '{"offset":-5}'],
        "STREAM.PURGE.S": ['{"seq":"a"}', '{"x":1}', "[]", "5", '{"keep":-5}', '{"filter":5}', '{"seq":1,"keep":1}'],
        "STREAM.DELETE.S": ["{}", "[]", "null", "5", '{"a":1}', " ", " {}", "{ }", "{}x", "x", "[ ]", "{\n}"],
        "STREAM.MSG.GET.S": ["", "{}", "5", "[]", "null", '{"seq":"a"}', '{"x":1}', '{"seq":1,"last_by_subj":"a"}', '{"batch":5,"seq":1}', '{"max_bytes":5,"seq":1}',
                             '{"start_time":"x"}', '{"seq":1,"start_time":"2024-01-01T00:00:00Z"}', '{"last_by_subj":"a","next_by_subj":"b"}', '{"multi_last":5}',
                             '{"last_by_subj":"a","start_time":"2024-01-01T00:00:00Z"}', '{"multi_last":["a"]}', '{"multi_last":[5]}', '{"up_to_time":5}', '{"no_hdr":5}', '{"batch":"a"}'],
        "STREAM.MSG.DELETE.S": ["", "{}", "5", "[]", "null", '{"seq":"a"}', '{"seq":-1}', '{"x":1}', '{"no_erase":5}'],
        "STREAM.SNAPSHOT.S": ["", "{}", "5", "[]", '{"deliver_subject":5}', '{"x":1}', '{"chunk_size":"a"}', '{"window_size":"a"}', '{"no_consumers":5}', '{"jsck":5}', '{"deliver_subject":"a.*"}'],
        "STREAM.RESTORE.S": ["", "{}", "5", "[]", '{"config":5}', '{"config":{"name":"Q"}}', '{"config":{"x":1}}', '{"state":{"x":1}}', '{"state":5}', '{"state":{"messages":"a"}}',
                             '{"state":{"first_ts":"a"}}', '{"state":{"lost":{"msgs":["a"]}}}', '{"state":{"subjects":{"a":"b"}}}', '{"state":{"deleted":["a"]}}', '{"state":{"num_subjects":"a"}}'],
        "CONSUMER.NAMES.S": ['{"offset":"a"}', '{"x":1}', "[]", "5"],
        "CONSUMER.LIST.S": ['{"offset":"a"}', '{"x":1}', "[]", "5"],
        "CONSUMER.INFO.S.C": ["{}", "[]", "null", "5", '{"a":1}', "x"],
        "CONSUMER.DELETE.S.C": ["{}", "[]", "5", '{"a":1}'],
        "CONSUMER.PAUSE.S.C": ['{"pause_until":5}', '{"pause_until":"x"}', '{"x":1}', "[]", "5", "null", "{}"],
        "CONSUMER.UNPIN.S.C": ["", "{}", "[]", '{"group":5}', '{"group":""}', '{"group":"a b"}', '{"x":1}', '{"group":"a"} x', "nope", "{", '{"group":"01234567890123456"}', '{"group":"a","x":1}'],
        "CONSUMER.RESET.S.C": ['{"seq":"a"}', '{"seq":-1}', '{"x":1}', "[]", "5", "nope", "null", "{}"],
        "STREAM.LEADER.STEPDOWN.S": ["", '{"placement":5}', '{"x":1}'],
        "CONSUMER.LEADER.STEPDOWN.S.C": ["", '{"placement":5}'],
        "STREAM.PEER.REMOVE.S": ["", '{"peer":5}', '{"peer":"a"}'],
        "STREAM.PEER.EVACUATE.S": ["", '{"peer":5}', '{"peer":"a"}'],
        "CONSUMER.PEER.REMOVE.S.C": ["", '{"peer":"a"}'],
        "CONSUMER.PEER.EVACUATE.S.C": ["", '{"peer":"a"}'],
        "STREAM.CANCEL_MOVE.S": ["", "{}", "5"],
        "INFO": ["{}", "5", "x"],
    }
    for subject, bodies in others.items():
        for body in bodies:
            ask(subject, body)


NO_SUCH = ["STREAM.INFO.NOPE", "STREAM.DELETE.NOPE", "STREAM.PURGE.NOPE", "CONSUMER.NAMES.NOPE", "CONSUMER.LIST.NOPE", "CONSUMER.INFO.NOPE.C", "CONSUMER.INFO.S.NOPE",
           "CONSUMER.DELETE.NOPE.C", "CONSUMER.DELETE.S.NOPE", "CONSUMER.PAUSE.NOPE.C", "CONSUMER.PAUSE.S.NOPE", "CONSUMER.RESET.NOPE.C", "CONSUMER.RESET.S.NOPE"]


def every_subject():
    return ["INFO", "STREAM.CREATE.S", "STREAM.UPDATE.S", "STREAM.NAMES", "STREAM.LIST", "STREAM.INFO.S", "STREAM.DELETE.S", "STREAM.PURGE.S", "STREAM.MSG.GET.S",
            "STREAM.MSG.DELETE.S", "STREAM.SNAPSHOT.S", "STREAM.RESTORE.S", "STREAM.PEER.REMOVE.S", "STREAM.PEER.EVACUATE.S", "STREAM.CANCEL_MOVE.S", "STREAM.LEADER.STEPDOWN.S",
            "CONSUMER.CREATE.S", "CONSUMER.CREATE.S.C", "CONSUMER.CREATE.S.C.f.>", "CONSUMER.DURABLE.CREATE.S.C", "CONSUMER.NAMES.S", "CONSUMER.LIST.S", "CONSUMER.INFO.S.C",
            "CONSUMER.DELETE.S.C", "CONSUMER.PAUSE.S.C", "CONSUMER.UNPIN.S.C", "CONSUMER.RESET.S.C", "CONSUMER.LEADER.STEPDOWN.S.C", "CONSUMER.PEER.REMOVE.S.C",
            "CONSUMER.PEER.EVACUATE.S.C"]


def levels(ask):
    for value in ["6", "5", "99", "x", "-1", "", "5.5", " 6 "]:
        ask("INFO", "", [("Nats-Required-Api-Level", value)])
    for subject in every_subject():
        body = "{}" if "CREATE" in subject and "CONSUMER" in subject else ""
        ask(subject, body, [("Nats-Required-Api-Level", "6")])


def create(ask):
    c = ask.c
    ask("INFO")
    ask("STREAM.NAMES")
    ask("STREAM.LIST")
    ask("STREAM.CREATE.S", J({"name": "S", "subjects": ["s.>"]}))
    ask("STREAM.CREATE.S", J({"name": "S", "subjects": ["s.>"]}))
    ask("STREAM.CREATE.S", J({"name": "S", "subjects": ["s.*"]}))
    ask("STREAM.CREATE.OTHER", J({"name": "S"}))
    ask("STREAM.CREATE.a/b", J({"name": "a/b"}))
    ask("STREAM.CREATE.a\\b", J({"name": "a\\b"}))
    ask("STREAM.CREATE.SEALED", J({"name": "SEALED", "sealed": True}))
    ask("STREAM.CREATE.MD", J({"name": "MD", "mirror_direct": True}))
    full = {"name": "FULL", "description": "d <&> \u00e9 \"q\" \\ \u2028 \u007f", "subjects": ["f.*", "g.>"], "retention": "workqueue", "max_consumers": 7, "max_msgs": 1000,
            "max_bytes": 1000000, "max_age": 3600000000000, "max_msgs_per_subject": 10, "max_msg_size": 5000, "discard": "new", "storage": "memory", "num_replicas": 1,
            "no_ack": True, "duplicate_window": 60000000000, "first_seq": 100, "subject_transform": {"src": "f.*", "dest": "h.{{wildcard(1)}}"},
            "republish": {"src": "g.>", "dest": "r.>", "headers_only": True}, "allow_direct": True, "discard_new_per_subject": True, "deny_delete": True, "deny_purge": False,
            "allow_rollup_hdrs": True, "consumer_limits": {"inactive_threshold": 5000000000, "max_ack_pending": 50}, "allow_msg_ttl": True, "placement": {"cluster": "", "tags": []},
            "metadata": {"b": "2", "a": "1 <x>"}, "allow_batched": True, "allow_atomic": True}
    ask("STREAM.CREATE.FULL", J(full))
    ask("STREAM.CREATE.FILE", J({"name": "FILE", "subjects": ["file"], "compression": "s2", "allow_msg_schedules": True, "subject_delete_marker_ttl": 5000000000, "max_msg_size": -1, "republish": {"dest": "rr.>"}}))
    ask("STREAM.CREATE.ASYNC", J({"name": "ASYNC", "subjects": ["async"], "persist_mode": "async"}))
    ask("STREAM.CREATE.DEFMODE", J({"name": "DEFMODE", "subjects": ["defmode"], "persist_mode": "default"}))
    ask("STREAM.CREATE.COUNT", J({"name": "COUNT", "subjects": ["count.>"], "allow_msg_counter": True, "retention": "limits"}))
    ask("STREAM.CREATE.INT", J({"name": "INT", "subjects": ["int.>"], "retention": "interest"}))
    ask("STREAM.CREATE.MIR", J({"name": "MIR", "mirror": {"name": "S", "opt_start_seq": 1, "filter_subject": "s.a"}, "mirror_direct": True}))
    ask("STREAM.CREATE.SRC", J({"name": "SRC", "sources": [{"name": "S", "opt_start_time": "2024-01-01T01:02:03.4500+02:00", "subject_transforms": [{"src": "s.*", "dest": "t.{{wildcard(1)}}"}]},
                                                         {"name": "ELSE", "external": {"api": "$JS.x.API", "deliver": "deliver.x"}}]}))
    time.sleep(0.5)
    for name in ["S", "FULL", "MIR", "SRC"]:
        ask("STREAM.INFO." + name)
    for i in range(5):
        c.request("s.%d" % (i % 3), "hello %d" % i)
    c.request("s.h", "with headers", [("A", "b"), ("A", "c")])
    c.request("s.empty", "")
    ask("STREAM.MSG.DELETE.S", '{"seq":2}')
    ask("STREAM.MSG.DELETE.S", '{"seq":2}')
    ask("STREAM.MSG.DELETE.S", '{"seq":0}')
    ask("STREAM.MSG.DELETE.S", '{"seq":99}')
    ask("STREAM.MSG.DELETE.S", '{"seq":4,"no_erase":true}')
    ask("STREAM.MSG.DELETE.FULL", '{"seq":4}')
    for body in ["", '{"deleted_details":true}', '{"subjects_filter":">"}', '{"subjects_filter":"s.*","offset":1}', '{"subjects_filter":"s.0","offset":10}', '{"subjects_filter":"none.>"}',
                 '{"deleted_details":true,"subjects_filter":"s.*"}']:
        ask("STREAM.INFO.S", body)
    for body in ['{"seq":1}', '{"seq":2}', '{"seq":6}', '{"seq":6,"no_hdr":true}', '{"seq":7}', '{"last_by_subj":"s.0"}', '{"last_by_subj":"s.>"}', '{"last_by_subj":"none"}',
                 '{"next_by_subj":"s.1"}', '{"next_by_subj":"s.*","seq":3}', '{"next_by_subj":"s.*","seq":99}', '{"start_time":"2024-01-01T00:00:00Z"}',
                 '{"start_time":"2999-01-01T00:00:00Z"}', '{"next_by_subj":"s.2","start_time":"2024-01-01T00:00:00Z"}', '{"seq":99}', '{"seq":1,"next_by_subj":"s.0"}']:
        ask("STREAM.MSG.GET.S", body)
    ask("STREAM.MSG.GET.NOPE", '{"seq":1}')
    ask("STREAM.MSG.DELETE.NOPE", '{"seq":1}')
    for subject in NO_SUCH:
        ask(subject)
    ask("CONSUMER.UNPIN.NOPE.C", '{"group":"a"}')
    ask("CONSUMER.UNPIN.S.NOPE", '{"group":"a"}')
    ask("STREAM.SNAPSHOT.NOPE", '{"deliver_subject":"a"}')
    ask("STREAM.RESTORE.S", J({"config": {"name": "S", "subjects": ["zzz"]}, "state": {}}))
    # Updates.
    ask("STREAM.UPDATE.NOPE", J({"name": "NOPE", "subjects": ["nope"]}))
    ask("STREAM.UPDATE.S", J({"name": "Q", "subjects": ["q"]}))
    ask("STREAM.UPDATE.S", J({"name": "", "subjects": ["q"]}))
    ask("STREAM.UPDATE.S", J({"name": "S", "subjects": ["s.>"], "max_msgs": 100, "description": "changed"}))
    ask("STREAM.UPDATE.S", J({"name": "S", "subjects": ["s.>"], "storage": "memory"}))
    ask("STREAM.LIST")
    ask("STREAM.LIST", '{"subject":"s.a"}')
    ask("STREAM.LIST", '{"offset":5}')
    ask("STREAM.LIST", '{"offset":500}')
    ask("STREAM.NAMES")
    ask("STREAM.NAMES", '{"subject":"s.a"}')
    ask("STREAM.NAMES", '{"subject":"none.at.all"}')
    ask("STREAM.NAMES", '{"offset":5}')
    ask("STREAM.NAMES", '{"offset":500}')
    ask("INFO")


def consumers(ask):
    c = ask.c

    def cons(subject, config, **more):
        return ask("CONSUMER." + subject, J({"stream_name": "S", "config": config, **more}))

    ask("CONSUMER.NAMES.S")
    ask("CONSUMER.LIST.S")
    cons("CREATE.S.C", {"name": "C", "durable_name": "C", "ack_policy": "explicit"})
    cons("CREATE.S.C", {"name": "C", "durable_name": "C", "ack_policy": "explicit"})
    cons("CREATE.S.C", {"name": "C", "durable_name": "C", "ack_policy": "none"})
    cons("CREATE.S.C", {"name": "C", "durable_name": "C", "ack_policy": "explicit", "max_deliver": 4}, action="create")
    cons("CREATE.S.NEW", {"name": "NEW", "durable_name": "NEW", "ack_policy": "explicit"}, action="update")
    cons("CREATE.S.C", {"name": "C", "durable_name": "C", "ack_policy": "explicit", "description": "up"}, action="update")
    ask("CONSUMER.CREATE.S.C", J({"stream_name": "T", "config": {"durable_name": "C"}}))
    ask("CONSUMER.CREATE.T.C", J({"stream_name": "T", "config": {"durable_name": "C"}}))
    cons("CREATE.S.D", {"durable_name": "E"})
    cons("CREATE.S.D", {"name": "E"})
    cons("CREATE.S", {"durable_name": "E"})
    cons("CREATE.S.a/b", {"name": "a/b"})
    cons("CREATE.S.a\\b", {"name": "a\\b"})
    cons("CREATE.S.F.s.x", {"name": "F", "filter_subject": "s.y"})
    cons("CREATE.S.F.s.x", {"name": "F"})
    cons("CREATE.S.F.s.x", {"name": "F", "filter_subjects": ["s.x"]})
    cons("CREATE.S.F.s.x", {"name": "F", "filter_subject": "s.x", "filter_subjects": ["s.x"]})
    cons("CREATE.S.F.s.*", {"name": "F", "filter_subject": "s.*", "ack_policy": "all", "inactive_threshold": 500000000000})
    cons("DURABLE.CREATE.S.L", {"ack_policy": "explicit"})
    cons("DURABLE.CREATE.S.L", {"durable_name": "M", "ack_policy": "explicit"})
    cons("DURABLE.CREATE.S.L", {"durable_name": "L", "ack_policy": "explicit"})
    cons("DURABLE.CREATE.S", {"durable_name": "L", "ack_policy": "explicit"})
    cons("DURABLE.CREATE.S.L.x", {"durable_name": "L", "ack_policy": "explicit"})
    cons("CREATE.S.R3", {"durable_name": "R3", "num_replicas": 3})
    c.sub("deliver.push")
    cons("CREATE.S.PUSH", {"name": "PUSH", "durable_name": "PUSH", "description": "a <b>", "deliver_subject": "deliver.push", "deliver_group": "", "ack_policy": "all", "flow_control": True,
                           "idle_heartbeat": 5000000000, "headers_only": True, "rate_limit_bps": 100000, "sample_freq": "50%", "max_deliver": 3, "backoff": [1000000000, 2000000000],
                           "filter_subjects": ["s.0", "s.1"], "replay_policy": "instant", "deliver_policy": "by_start_sequence", "opt_start_seq": 1, "max_ack_pending": 5, "metadata": {"x": "y"}})
    cons("CREATE.S.PULL", {"durable_name": "PULL", "deliver_policy": "by_start_time", "opt_start_time": "2031-02-03T04:05:06Z", "ack_policy": "explicit", "ack_wait": 5000000000,
                           "max_waiting": 5, "max_batch": 10, "max_expires": 5000000000, "max_bytes": 1000, "inactive_threshold": 500000000000, "mem_storage": True, "num_replicas": 1,
                           "replay_policy": "original"})
    cons("CREATE.S.PIN", {"durable_name": "PIN", "ack_policy": "explicit", "priority_policy": "pinned_client", "priority_groups": ["g1"], "priority_timeout": 60000000000})
    cons("CREATE.S.OVER", {"durable_name": "OVER", "ack_policy": "explicit", "priority_policy": "overflow", "priority_groups": ["g1"]})
    cons("CREATE.S.PRI", {"durable_name": "PRI", "ack_policy": "explicit", "priority_policy": "prioritized", "priority_groups": ["g1"]})
    cons("CREATE.S.PAUSED", {"durable_name": "PAUSED", "ack_policy": "explicit", "pause_until": "2031-02-03T04:05:06Z"})
    cons("CREATE.S.LPS", {"durable_name": "LPS", "deliver_policy": "last_per_subject", "filter_subject": "s.>"})
    cons("CREATE.S.FC", {"durable_name": "FC", "ack_policy": "flow_control", "deliver_subject": "d.fc", "flow_control": True, "idle_heartbeat": 1000000000, "max_ack_pending": 10})
    for name in ["C", "F", "PUSH", "PULL", "PIN", "PAUSED", "LPS"]:
        ask("CONSUMER.INFO.S." + name)
    c.pub("$JS.API.CONSUMER.MSG.NEXT.S.C", J({"batch": 2, "expires": 1000000000}), "_INBOX.probe.next")
    c.pub("$JS.API.CONSUMER.MSG.NEXT.S.C", J({"batch": 50, "expires": 60000000000}), "_INBOX.probe.next")
    c.pub("$JS.API.CONSUMER.MSG.NEXT.S.PIN", J({"batch": 1, "expires": 60000000000, "group": "g1"}), "_INBOX.probe.pin")
    got = c.gather(0.3)
    acks = [m[1] for m in got if m[1].startswith("$JS.ACK.S.C.")]
    c.pub(acks[0], "+ACK")
    c.pub(acks[2], "-NAK {\"delay\": 60000000000}")
    c.gather(0.3)
    ask("CONSUMER.INFO.S.C")
    ask("CONSUMER.INFO.S.PIN")
    ask("CONSUMER.LIST.S")
    ask("CONSUMER.LIST.S", '{"offset":5}')
    ask("CONSUMER.LIST.S", '{"offset":500}')
    ask("CONSUMER.NAMES.S")
    ask("CONSUMER.NAMES.S", '{"offset":3}')
    ask("CONSUMER.NAMES.S", '{"offset":500}')
    ask("CONSUMER.PAUSE.S.C", '{"pause_until":"2031-02-03T04:05:06Z"}')
    ask("CONSUMER.INFO.S.C")
    ask("CONSUMER.PAUSE.S.C", '{"pause_until":"2001-02-03T04:05:06.5Z"}')
    ask("CONSUMER.PAUSE.S.C", "")
    ask("CONSUMER.PAUSE.S.C", "null")
    ask("CONSUMER.UNPIN.S.PIN", '{"group":"g1"}')
    ask("CONSUMER.UNPIN.S.PIN", '{"group":"g2"}')
    ask("CONSUMER.UNPIN.S.C", '{"group":"g1"}')
    ask("CONSUMER.RESET.S.C")
    ask("CONSUMER.RESET.S.C", '{"seq":3}')
    ask("CONSUMER.RESET.S.C", '{"seq":99}')
    ask("CONSUMER.RESET.S.PUSH", '{"seq":1}')
    ask("CONSUMER.DELETE.S.L")
    ask("CONSUMER.DELETE.S.L")
    ask("STREAM.INFO.S")
    ask("STREAM.LEADER.STEPDOWN.S")
    ask("CONSUMER.LEADER.STEPDOWN.S.C")
    ask("STREAM.PURGE.S", '{"filter":"s.0"}')
    ask("STREAM.PURGE.S", '{"seq":4}')
    ask("STREAM.PURGE.S", '{"keep":1}')
    ask("STREAM.PURGE.S")
    ask("STREAM.PURGE.S")
    ask("STREAM.INFO.S")
    ask("STREAM.UPDATE.FULL", J({"name": "FULL", "subjects": ["f.*", "g.>"], "retention": "workqueue", "sealed": True, "storage": "memory"}))
    ask("STREAM.CREATE.DP", J({"name": "DP", "subjects": ["dp"], "deny_purge": True, "deny_delete": True}))
    ask("STREAM.PURGE.DP")
    ask("STREAM.MSG.DELETE.DP", '{"seq":1}')
    ask("STREAM.UPDATE.DP", J({"name": "DP", "subjects": ["dp"], "deny_purge": True, "deny_delete": True, "sealed": True}))
    ask("STREAM.PURGE.DP")
    ask("STREAM.MSG.DELETE.DP", '{"seq":1}')
    ask("STREAM.DELETE.DP")
    ask("STREAM.DELETE.DP")


def backup(ask):
    c = ask.c
    ask("STREAM.CREATE.B", J({"name": "B", "subjects": ["b.>"]}))
    for i in range(3):
        c.request("b.%d" % i, "x" * 10)
    ask("CONSUMER.CREATE.B.BC", J({"stream_name": "B", "config": {"durable_name": "BC", "ack_policy": "explicit"}}))
    c.sub("snap.in")
    answer = json.loads(ask("STREAM.SNAPSHOT.B", '{"deliver_subject":"snap.in"}'))
    chunks = b""
    deadline = time.time() + 5
    while time.time() < deadline:
        m = c.others.pop(0) if c.others else c.message()
        if m is None or m[0] != "snap.in":
            continue
        if not m[3]:
            WIRE.add(kind="snapshot_end", headers=m[2].decode("latin-1"))
            break
        chunks += m[3]
        if m[1]:
            c.pub(m[1])
    time.sleep(0.2)
    ask("STREAM.DELETE.B")
    restore = json.loads(ask("STREAM.RESTORE.B", J({"config": answer["config"], "state": answer["state"]})))
    c.request(restore["deliver_subject"], chunks)
    m = c.request(restore["deliver_subject"], "")
    API.add(mode="strict", subject="$JS.API.STREAM.RESTORE.B", body="<end>", reply=normal(m[3].decode()))
    ask("STREAM.DELETE.B")


def paging(ask):
    for i in range(258):
        ask("STREAM.CREATE.P%03d" % i, J({"name": "P%03d" % i, "subjects": ["p.%d" % i], "storage": "memory"}), record=False)
    for body in ["", '{"offset":256}']:
        text = json.loads(ask("STREAM.LIST", body, record=False))
        API.add(mode="paging", subject="$JS.API.STREAM.LIST", body=body, total=text["total"], offset=text["offset"], limit=text["limit"], count=len(text["streams"]))
        text = json.loads(ask("STREAM.NAMES", body, record=False))
        API.add(mode="paging", subject="$JS.API.STREAM.NAMES", body=body, total=text["total"], offset=text["offset"], limit=text["limit"], count=len(text["streams"]))


def unknown(ask):
    for subject in ["NOPE", "STREAM.CREATE", "STREAM.CREATE.a.b", "STREAM.NOPE.S", "CONSUMER.CREATE", "CONSUMER.INFO.S", "STREAM.INFO", "CONSUMER.DELETE.S", "STREAM.INFO.S.x",
                    "STREAM.NAMES.x", "CONSUMER.DURABLE.CREATE.S", "META.LEADER.STEPDOWN", "SERVER.REMOVE", "ACCOUNT.PURGE.A", "META.RESCUE", "SERVER.EVACUATE"]:
        ask(subject.rstrip("."), "", timeout=0.3)


def header_text(block):
    return block.decode("latin-1")


def wire(server):
    """Publish acknowledgements, direct gets and status lines."""
    c = Client(server.port)

    def pub(subject, body="", headers=None, note=""):
        m = c.request(subject, body, headers, 1.0)
        WIRE.add(kind="puback", note=note, subject=subject, headers=headers or [], body=body, reply_headers=header_text(m[2]) if m else None, reply=m[3].decode() if m else None)

    def mk(name, **config):
        c.request("$JS.API.STREAM.CREATE." + name, J({"name": name, **config}))

    mk("K", subjects=["k.>"], allow_direct=True, allow_msg_ttl=True, allow_atomic=True, max_msg_size=100, allow_rollup_hdrs=True, allow_batched=True)
    mk("COUNTER", subjects=["ctr.>"], allow_msg_counter=True)
    mk("LIM", subjects=["lim.>"], discard="new", max_msgs=1)
    pub("k.1", "a")
    pub("k.1", "b", [("Nats-Msg-Id", "m1")])
    pub("k.1", "b", [("Nats-Msg-Id", "m1")], "duplicate")
    pub("k.2", "c", [("Nats-Expected-Last-Sequence", "9")])
    pub("k.2", "c", [("Nats-Expected-Stream", "NOT")])
    pub("k.2", "c", [("Nats-Expected-Last-Subject-Sequence", "7")])
    pub("k.2", "c", [("Nats-Expected-Last-Msg-Id", "zz")])
    pub("k.2", "x" * 200)
    pub("k.2", "c", [("Nats-TTL", "bad")])
    pub("lim.1", "a")
    pub("lim.2", "a")
    pub("ctr.a", "", [("Nats-Incr", "5")])
    pub("ctr.a", "", [("Nats-Incr", "-7")])
    pub("ctr.a", "x", [])
    pub("k.b", "1", [("Nats-Batch-Id", "uuid"), ("Nats-Batch-Sequence", "1")], "batch open")
    pub("k.b", "2", [("Nats-Batch-Id", "uuid"), ("Nats-Batch-Sequence", "2"), ("Nats-Batch-Commit", "1")], "batch commit")
    pub("k.b", "2", [("Nats-Batch-Id", "uuid2"), ("Nats-Batch-Sequence", "2"), ("Nats-Batch-Commit", "1")], "batch unknown")
    pub("k.a", "x", [("Nats-Required-Api-Level", "6")])
    pub("k.hh", "with", [("X", "1"), ("Y", "two")])
    c.request("$JS.API.STREAM.MSG.DELETE.K", '{"seq":2}')

    def direct(subject, body="", headers=None):
        c.n += 1
        inbox = "_INBOX.probe.%d" % c.n
        c.pub("$JS.API.DIRECT.GET." + subject, body, inbox, headers)
        got = c.gather(0.15)
        fix = lambda h: re.sub(r"20[0-9]{2}-[0-9]{2}-[0-9]{2}T[0-9:]{8}(\.[0-9]+)?Z", "2026-11-21T07:00:00.123456789Z", header_text(h))
        WIRE.add(kind="direct", subject="$JS.API.DIRECT.GET." + subject, headers=headers or [], body=body, replies=[[fix(m[2]), m[3].decode()] for m in got if m[0] == inbox])

    for body in ['', '{}', '5', '{"seq":1}', '{"seq":2}', '{"seq":99}', '{"last_by_subj":"k.1"}', '{"last_by_subj":"k.*"}', '{"last_by_subj":"k.none"}', '{"next_by_subj":"k.*","seq":2}',
                 '{"next_by_subj":"k.hh"}', '{"next_by_subj":"k.none"}', '{"batch":2,"seq":1}', '{"batch":10,"seq":3}', '{"batch":10,"next_by_subj":"k.b","seq":1}', '{"batch":5,"seq":99}',
                 '{"batch":2}', '{"batch":-1,"seq":1}', '{"batch":10,"seq":1,"max_bytes":1}', '{"multi_last":["k.*"]}', '{"multi_last":["k.1","k.hh"],"batch":1}', '{"multi_last":["none.>"]}',
                 '{"multi_last":["k.*"],"up_to_seq":3}', '{"multi_last":["k.*"],"up_to_time":"2999-01-01T00:00:00Z"}', '{"multi_last":["k.*"],"up_to_seq":1,"up_to_time":"2999-01-01T00:00:00Z"}',
                 '{"multi_last":["k.*"],"seq":1}', '{"multi_last":["k.*"],"last_by_subj":"k.1"}', '{"multi_last":["k.*"],"next_by_subj":"k.1"}', '{"multi_last":["k.*"],"max_bytes":1}',
                 '{"multi_last":["k.*"],"no_hdr":true}', '{"multi_last":["k.*"],"start_time":"2024-01-01T00:00:00Z"}', '{"multi_last":["k.*"],"up_to_time":"2024-01-01T00:00:00Z"}',
                 '{"multi_last":[]}', '{"seq":1,"no_hdr":true}', '{"no_hdr":true}', '{"seq":1,"last_by_subj":"k.1"}',
                 '{"last_by_subj":"k.1","next_by_subj":"k.2"}', '{"start_time":"2024-01-01T00:00:00Z"}', '{"start_time":"2024-01-01T00:00:00Z","batch":2}', '{"start_time":"2999-01-01T00:00:00Z"}',
                 '{"start_time":"2999-01-01T00:00:00Z","batch":2}', '{"start_time":"bad"}', '{"seq":1,"start_time":"2024-01-01T00:00:00Z"}', '{"batch":2,"last_by_subj":"k.1"}', '{"max_bytes":10,"seq":1}', '{"x":1}', '{"seq":"a"}',
                 'nope', '[]', 'null', '{"last_by_subj":"k.1","start_time":"2024-01-01T00:00:00Z"}', '{"next_by_subj":"k.1","start_time":"2024-01-01T00:00:00Z"}', '{"batch":2,"seq":1,"no_hdr":true}',
                 '{"up_to_seq":2,"seq":1}', '{"up_to_seq":3,"batch":5,"seq":1}', '{"up_to_time":"2024-01-01T00:00:00Z","seq":1}', '{"seq":0,"batch":2,"next_by_subj":"k.>"}']:
        direct("K", body)
    for subject, body in [("K.k.1", ""), ("K.k.hh", ""), ("K.k.none", ""), ("K.k.*", ""), ("K.k.hh", '{"no_hdr":true}'), ("K.k.1", '{"x":1}'), ("K.k.1", '{"seq":1}'), ("K.k.1", "5"),
                          ("K.k.1", "nope"), ("K.k.1", '{"last_by_subj":"k.2"}'), ("NOPE", '{"seq":1}'), ("LIM", '{"seq":1}'), ("K.k.1", '{"batch":2}'), ("K.k.1", '{"no_hdr":5}'), ("K.k.1", "{")]:
        direct(subject, body)
    direct("K", '{"seq":1}', [("Nats-Required-Api-Level", "6")])
    direct("K.k.1", "", [("Nats-Required-Api-Level", "6")])
    c.sub("rep.>")
    mk("REP", subjects=["rp.>"], republish={"src": "rp.>", "dest": "rep.>"})
    mk("REPH", subjects=["rh.>"], republish={"src": "rh.>", "dest": "rep.h.>", "headers_only": True})
    c.request("rp.a", "one")
    c.request("rp.a", "two", [("X", "1")])
    c.request("rp.b", "three")
    c.request("rh.a", "onee", [("X", "1")])
    c.request("rh.a", "")
    for m in c.gather(0.3):
        if m[0].startswith("rep."):
            WIRE.add(kind="republish", subject=m[0], headers=re.sub(r"20[0-9]{2}-[^\r]*Z", "2026-11-21T07:00:00.123456789Z", header_text(m[2])), body=m[3].decode())


def events(server):
    c, w = Client(server.port), Client(server.port)
    w.sub("$JS.EVENT.>")
    w.flush()
    ask = Asker(c)
    quiet = lambda *a, **k: ask(*a, record=False, **k)
    quiet("STREAM.CREATE.E", J({"name": "E", "subjects": ["e.>"], "allow_atomic": True}))
    quiet("STREAM.UPDATE.E", J({"name": "E", "subjects": ["e.>"], "max_msgs": 50, "allow_atomic": True}))
    quiet("STREAM.CREATE.E", "{")
    quiet("CONSUMER.CREATE.E.C", J({"stream_name": "E", "config": {"durable_name": "C", "ack_policy": "explicit", "max_deliver": 1, "ack_wait": 200000000, "sample_freq": "100%"}}))
    quiet("CONSUMER.CREATE.E.P", J({"stream_name": "E", "config": {"durable_name": "P", "ack_policy": "explicit", "priority_policy": "pinned_client", "priority_groups": ["g"]}}))
    for i in range(4):
        c.request("e.%d" % i, "x")
    c.pub("$JS.API.CONSUMER.MSG.NEXT.E.P", J({"batch": 1, "expires": 60000000000, "group": "g"}), "_INBOX.probe.pin")
    c.pub("$JS.API.CONSUMER.MSG.NEXT.E.C", J({"batch": 4, "expires": 1000000000}), "_INBOX.probe.next")
    acks = [m[1] for m in c.gather(0.1) if m[1].startswith("$JS.ACK.E.C.")]
    c.pub(acks[0], "+ACK")
    c.pub(acks[1], "-NAK")
    c.pub(acks[2], "+TERM because <of> it")
    quiet("CONSUMER.PAUSE.E.C", '{"pause_until":"2031-02-03T04:05:06Z"}')
    quiet("CONSUMER.PAUSE.E.C", "")
    quiet("CONSUMER.UNPIN.E.P", '{"group":"g"}')
    c.request("e.b", "1", [("Nats-Batch-Id", "uuid"), ("Nats-Batch-Sequence", "1")])
    c.request("e.b", "1", [("Nats-Batch-Id", "uuid"), ("Nats-Batch-Sequence", "3")])
    quiet("INFO")
    quiet("STREAM.INFO.E")
    quiet("STREAM.NAMES")
    quiet("STREAM.LIST")
    quiet("STREAM.INFO.NOPE")
    quiet("STREAM.MSG.GET.E", '{"seq":1}')
    quiet("STREAM.MSG.GET.E", '{"seq":100}')
    quiet("STREAM.MSG.DELETE.E", '{"seq":1}')
    quiet("CONSUMER.INFO.E.C")
    quiet("CONSUMER.LIST.E")
    quiet("CONSUMER.NAMES.E")
    c.sub("snap.in")
    quiet("STREAM.SNAPSHOT.E", '{"deliver_subject":"snap.in"}')
    end = False
    while not end:
        m = c.others.pop(0) if c.others else c.message()
        if m and m[0] == "snap.in":
            end = not m[3]
            if not end:
                data = m[3]
                if m[1]:
                    c.pub(m[1])
    config = json.loads(quiet("STREAM.INFO.E"))["config"]
    time.sleep(0.6)
    quiet("CONSUMER.DELETE.E.C")
    quiet("STREAM.PURGE.E")
    quiet("STREAM.DELETE.E")
    restore = json.loads(quiet("STREAM.RESTORE.E", J({"config": config, "state": {}})))
    c.request(restore["deliver_subject"], data)
    c.request(restore["deliver_subject"], "")
    quiet("STREAM.DELETE.E")
    for m in w.gather(0.7):
        EVENTS.add(subject=m[0], body=normal(m[3].decode()))


def main():
    binary = sys.argv[1]
    s = Server(binary)
    try:
        ask = Asker(Client(s.port))
        bad_json(ask)
        levels(ask)
        unknown(ask)
    finally:
        s.stop()
    s = Server(binary)
    try:
        ask = Asker(Client(s.port))
        create(ask)
        consumers(ask)
        backup(ask)
    finally:
        s.stop()
    s = Server(binary, "jetstream {store_dir: DIR, strict: false}\n")
    try:
        bad_json(Asker(Client(s.port), mode="lenient"))
    finally:
        s.stop()
    conf = """jetstream {store_dir: DIR, domain: hub}
accounts {
  SYS: {users: [{user: sys, password: sys}]}
  WITHOUT: {users: [{user: bob, password: bob}]}
  WITH: {jetstream: {max_mem: 100M, max_file: 1G, max_streams: 2, max_consumers: 3, max_ack_pending: 7, mem_max_stream_bytes: 10M, disk_max_stream_bytes: 20M, max_bytes_required: true},
        users: [{user: alice, password: alice}]}
}
system_account: SYS
"""
    for book in (API,):
        book.close()
    s = Server(binary, conf)
    try:
        ask = Asker(Client(s.port, "bob"), mode="disabled")
        for subject in every_subject():
            for body in ["", "{}", "{"]:
                ask(subject, body, timeout=0.3)
        ask = Asker(Client(s.port, "alice"), mode="domain")
        ask("INFO")
        ask("STREAM.CREATE.D", J({"name": "D", "subjects": ["d"]}))
        ask("STREAM.CREATE.D", J({"name": "D", "subjects": ["d"], "max_bytes": 1000000}))
        ask("STREAM.INFO.D")
        ask("STREAM.UPDATE.D", J({"name": "D", "subjects": ["d"], "max_bytes": 1000000}))
        ask("STREAM.LIST")
        m = ask.c.request("d", "x")
        WIRE.add(kind="puback", note="domain", subject="d", headers=[], body="x", reply_headers="", reply=m[3].decode())
        m = ask.c.request("d", "x", [("Nats-Msg-Id", "m")])
        m = ask.c.request("d", "x", [("Nats-Msg-Id", "m")])
        WIRE.add(kind="puback", note="domain duplicate", subject="d", headers=[], body="x", reply_headers="", reply=m[3].decode())
        ask("INFO")
        ask = Asker(Client(s.port, "alice"), "$JS.hub.API.", mode="domain")
        ask("INFO")
        ask = Asker(Client(s.port, "sys"), mode="system")
        for subject in ["INFO", "STREAM.NAMES", "META.LEADER.STEPDOWN", "SERVER.REMOVE", "ACCOUNT.PURGE.WITH", "META.RESCUE"]:
            ask(subject, "", timeout=0.3)
    finally:
        s.stop()
    s = Server(binary)
    try:
        wire(s)
        events(s)
    finally:
        s.stop()
    s = Server(binary)
    try:
        paging(Asker(Client(s.port)))
    finally:
        s.stop()
    for book in (API, EVENTS, WIRE):
        book.close()


main()
