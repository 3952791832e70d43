"""One server under test, and a client of the wire protocol that hides nothing.

Owns: processes, sockets, what came in by subscription, in order.
Does not: know JetStream.
"""
import json
import os
import signal
import socket
import subprocess
import threading
import time

# Room does not hang on this machine's disk, and both are called the same.
CONFIG = """server_name: differ
listen: 127.0.0.1:%d
jetstream { max_memory_store: 1GB, max_file_store: 1TB, store_dir: "%s" }
"""


class Message:
    def __init__(self, subject, reply, headers, body):
        self.subject, self.reply, self.headers, self.body = subject, reply, headers, body


class Client:
    """A connection. `logs[name]` is what came for the subscription of that name; `seen` counts all."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.lock = threading.Condition()
        self.logs, self.names, self.sids = {}, {}, {}
        self.pongs = self.pings = self.last_sid = 0
        self.errors, self.closed = [], False
        self.file = self.socket.makefile("rb")
        self.info = json.loads(self.file.readline()[5:])
        self.send(b'CONNECT {"verbose":false,"pedantic":false,"headers":true,"no_responders":true,"name":"differ","lang":"x","version":"1"}\r\n')
        threading.Thread(target=self.read, daemon=True).start()

    def send(self, data):
        try:
            self.socket.sendall(data)
        except OSError:
            pass

    def subscribe(self, name, subject, queue=""):
        with self.lock:
            self.last_sid += 1
            self.names[str(self.last_sid)] = name
            self.sids[name] = self.last_sid
            self.logs.setdefault(name, [])
        self.send(f"SUB {subject} {queue} {self.last_sid}\r\n".encode())

    def unsubscribe(self, name):
        if name in self.sids:
            self.send(f"UNSUB {self.sids.pop(name)}\r\n".encode())

    def publish(self, subject, reply, headers, body):
        """`headers` is a whole block, or empty."""
        if headers:
            line = f"HPUB {subject} {reply} {len(headers)} {len(headers) + len(body)}\r\n"
        else:
            line = f"PUB {subject} {reply} {len(body)}\r\n"
        self.send(line.encode() + headers + body + b"\r\n")

    def flush(self, limit=5):
        with self.lock:
            self.pings += 1
            wanted = self.pings
        self.send(b"PING\r\n")
        with self.lock:
            return self.lock.wait_for(lambda: self.pongs >= wanted or self.closed, limit)

    def read(self):
        try:
            while True:
                line = self.file.readline()
                if not line:
                    break
                word, _, rest = line.rstrip(b"\r\n").partition(b" ")
                if word in (b"MSG", b"HMSG"):
                    parts = rest.decode().split()
                    sizes = [int(parts.pop()) for _ in range(1 if word == b"MSG" else 2)]
                    data = self.file.read(sizes[0] + 2)[:-2]
                    cut = sizes[1] if len(sizes) == 2 else 0
                    message = Message(parts[0], parts[2] if len(parts) > 2 else "", data[:cut], data[cut:])
                    with self.lock:
                        name = self.names[parts[1]]
                        # Each request has an inbox of its own below one subscription.
                        if name == "inbox":
                            name = message.subject.split(".")[1]
                        self.logs.setdefault(name, []).append(message)
                        self.lock.notify_all()
                elif word == b"PING":
                    self.send(b"PONG\r\n")
                elif word == b"PONG":
                    with self.lock:
                        self.pongs += 1
                        self.lock.notify_all()
                elif word == b"-ERR":
                    self.errors.append(rest.decode())
        except OSError:
            pass
        with self.lock:
            self.closed = True
            self.lock.notify_all()

    def close(self):
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.socket.close()


class Server:
    """A process with a store of its own."""

    def __init__(self, name, binary, folder, port):
        self.name, self.binary, self.folder, self.port = name, binary, folder, port
        os.makedirs(folder, exist_ok=True)
        self.config = os.path.join(folder, "conf")
        with open(self.config, "w") as f:
            f.write(CONFIG % (port, os.path.join(folder, "store")))
        self.log = os.path.join(folder, "log")
        self.process = None

    def start(self):
        # What listens there already is not ours to talk to.
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            s.bind(("127.0.0.1", self.port))
        with open(self.log, "ab") as out:
            self.process = subprocess.Popen([self.binary, "-c", self.config], stdout=out, stderr=out, stdin=subprocess.DEVNULL)
        end = time.monotonic() + 20
        while True:
            try:
                client = Client(self.port)
                if client.flush():
                    return client
            except OSError:
                pass
            if self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{self.name} does not start: see {self.log}")
            time.sleep(0.01)

    def stop(self, sig=signal.SIGTERM):
        if self.process is None:
            return
        self.process.send_signal(sig)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def complaints(self):
        """What must never stand in a log."""
        with open(self.log, errors="replace") as f:
            return [line.strip() for line in f if "panic" in line.lower() or "assertion" in line.lower()]
