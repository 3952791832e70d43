"""Starts the `nats-server` in PATH as nats.py's own suite does: flags for the ports and credentials, GET /varz to know
that it serves, SIGKILL to end it. Asks of the server: `-a -p -m --user --pass --auth -c -js -sd=DIR` and /varz.
"""
import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import tempfile
import time
import unittest
import urllib.error
import urllib.request

import nats

LIMIT_SECONDS = 10


async def until(what, check, limit=LIMIT_SECONDS):
    """Polls until `check()` is truthy, and gives that value."""
    end = time.monotonic() + limit
    while True:
        value = check()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"waited {limit} s for {what}")
        await asyncio.sleep(0.01)


async def settle(nc):
    """Returns when the server has seen all that this connection sent. One flush of nats-py is not enough: it writes its
    PING ahead of the commands that it still holds, and those follow before the second."""
    await nc.flush()
    await nc.flush()


def free_ports(n):
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(socket.socket()) for _ in range(n)]
        for s in held:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in held]


class Server:
    def __init__(self, *flags, config=None):
        self.dir = tempfile.TemporaryDirectory(prefix="smoke-")
        self.port, self.http = free_ports(2)
        self.flags = list(flags)
        if config is not None:
            path = os.path.join(self.dir.name, "server.conf")
            with open(path, "w") as f:
                f.write(config)
            self.flags += ["-c", path]
        self.url = f"nats://127.0.0.1:{self.port}"
        self.start()

    def start(self):
        self.log = open(os.path.join(self.dir.name, "log"), "wb+")
        self.process = subprocess.Popen(["nats-server", "-a", "127.0.0.1", "-p", str(self.port), "-m", str(self.http),
                                         f"-sd={self.dir.name}/store", *self.flags], stdout=self.log, stderr=self.log)
        end = time.monotonic() + LIMIT_SECONDS
        while True:
            with contextlib.suppress(urllib.error.URLError, OSError):
                self.get("/varz")
                return
            if self.process.poll() is not None or time.monotonic() > end:
                self.log.seek(0)
                raise AssertionError(f"nats-server does not serve (status {self.process.poll()}):\n{self.log.read().decode()}")
            time.sleep(0.02)

    def get(self, path):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http}{path}", timeout=2) as r:
            return json.load(r)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def lame_duck(self):
        self.process.send_signal(signal.SIGUSR2)

    def close(self):
        self.kill()
        self.log.close()
        self.dir.cleanup()


class ServerTest(unittest.IsolatedAsyncioTestCase):
    """A test with as many servers and connections as it asks for, all gone at its end."""

    def server(self, *flags, config=None):
        s = Server(*flags, config=config)
        self.addCleanup(s.close)
        return s

    async def connect(self, server, **options):
        url = options.pop("url", server.url)
        nc = await nats.connect(url, **options)

        async def close():
            if not nc.is_closed:
                await nc.close()

        self.addAsyncCleanup(close)
        return nc
