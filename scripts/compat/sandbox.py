"""Runs one command so that tests cannot meet each other or anybody else on the machine.

Owns: a network namespace per command (many suites bind fixed ports such as 4222, and two servers under test must not
see each other), a private TMPDIR and HOME, the time limit, and the end of every process that the command left behind.
Does not: know what it runs.

Without the right to make namespaces (`available()` is false) commands still run, but only one at a time is safe.
Run as a program, this file makes the namespace and then becomes the command: `sandbox.py COMMAND ARG...`.
"""
import ctypes
import fcntl
import functools
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
SIOCSIFFLAGS, SIOCSIFADDR, IFF_UP, IFF_RUNNING = 0x8914, 0x8916, 0x1, 0x40
# Servers that listen on every address advertise only those that are not loopback, and clients discover the other
# members of a cluster by them; so the namespace has one (of the block for documentation, RFC 5737).
ADDRESS = "192.0.2.1"


def enter_namespace():
    """A network namespace of our own with loopback up; as root directly, else through a user namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    uid, gid = os.getuid(), os.getgid()
    if libc.unshare(CLONE_NEWNET) != 0:
        if libc.unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "unshare")
        for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
            with open(f"/proc/self/{name}", "w") as f:
                f.write(text)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        fcntl.ioctl(s, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP | IFF_RUNNING))
        fcntl.ioctl(s, SIOCSIFADDR, struct.pack("16sHH4s8x", b"lo:1", socket.AF_INET, 0, socket.inet_aton(ADDRESS)))


@functools.cache
def available():
    r = subprocess.run([sys.executable, "-I", "-S", __file__, "true"], capture_output=True)
    return r.returncode == 0


_live = set()


def end_all():
    """Kills what is running now, for a caller that was told to stop."""
    for pid in list(_live):
        try:
            os.killpg(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


class Outcome:
    """How a command ended: `code` is its exit status (None if it ran out of time), `output` what it printed."""

    def __init__(self, code, output, seconds):
        self.code, self.output, self.seconds = code, output, seconds


def run(argv, cwd, env, limit_seconds):
    """Runs a command to its end or its time limit; its whole process group is killed afterwards in either case."""
    private = tempfile.mkdtemp(prefix="compat-")
    env = {**env, "TMPDIR": private, "HOME": private}
    if available():
        argv = [sys.executable, "-I", "-S", __file__, *argv]
    start = time.monotonic()
    # A file, not a pipe: a server that a test left behind would hold a pipe open for ever.
    with open(os.path.join(private, "output"), "w+b") as out:
        p = subprocess.Popen(argv, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
                             start_new_session=True)
        _live.add(p.pid)
        try:
            code = p.wait(limit_seconds)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            try:
                os.killpg(p.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            p.wait()
            _live.discard(p.pid)
        out.seek(0)
        text = out.read().decode(errors="replace")
    seconds = time.monotonic() - start
    shutil.rmtree(private, ignore_errors=True)
    return Outcome(code, text, seconds)


if __name__ == "__main__":
    enter_namespace()
    os.execvp(sys.argv[1], sys.argv[1:])
