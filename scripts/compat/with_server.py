"""Starts the `nats-server` in PATH, runs a command with NATS_URL naming it, and ends with the command's status.

    with_server.py [-js] [SERVER-FLAG...] -- COMMAND ARG...

Asks of the server: `-a -p -m -sd` (and what the caller adds), with -js `-c` too, and GET /healthz.
"""
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request


def free_ports(n):
    held = [socket.socket() for _ in range(n)]
    for s in held:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in held]
    for s in held:
        s.close()
    return ports


def wait_healthy(server, http, log, limit=10):
    end = time.monotonic() + limit
    while time.monotonic() < end:
        if server.poll() is not None:
            break
        try:
            if urllib.request.urlopen(f"http://127.0.0.1:{http}/healthz", timeout=1).status == 200:
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.02)
    with open(log) as f:
        sys.exit(f"the server is not healthy (status {server.poll()}):\n{f.read()}")


# What a stream may reserve does not hang on how much of this machine's disk happens to be free.
LIMITS = "jetstream { max_memory_store: 1GB, max_file_store: 1TB }\n"


def main():
    cut = sys.argv.index("--")
    flags, command = sys.argv[1:cut], sys.argv[cut + 1:]
    with tempfile.TemporaryDirectory(prefix="with-server-") as folder:
        port, http = free_ports(2)
        log = os.path.join(folder, "log")
        if "-js" in flags:
            config = os.path.join(folder, "server.conf")
            with open(config, "w") as f:
                f.write(LIMITS)
            flags += ["-c", config]
        with open(log, "wb") as out:
            server = subprocess.Popen(["nats-server", "-a", "127.0.0.1", "-p", str(port), "-m", str(http), "-sd", os.path.join(folder, "store"), *flags],
                                      stdout=out, stderr=out)
        try:
            wait_healthy(server, http, log)
            url = f"nats://127.0.0.1:{port}"
            code = subprocess.run(command, env={**os.environ, "NATS_URL": url, "NATS_MONITOR": f"http://127.0.0.1:{http}"}).returncode
            if code != 0:
                with open(log) as f:
                    print(f"--- the server's log\n{f.read()}")
        finally:
            server.send_signal(signal.SIGTERM)
            try:
                server.wait(10)
            except subprocess.TimeoutExpired:
                server.kill()
    sys.exit(code)


if __name__ == "__main__":
    main()
