#!/usr/bin/env python3
"""Runs natsload's scenarios against one or two servers, in turns, and prints a table. See README.md."""
import argparse, json, os, re, shlex, shutil, signal, socket, statistics, subprocess, sys, time, urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
TARGET = os.environ.get("CARGO_TARGET_DIR", os.path.join(HERE, "target"))

# name: (configuration, the steps). A step is natsload's arguments, or a restart of the server.
# A scenario can print more rows than one; --scenarios picks scenarios, the table shows rows.
JS, FSYNC, CORE, CL, CLC = "js", "js-fsync", "core", "cluster", "cluster-core"
S = {
    "verify": (CORE, ["verify"]),
    "core-pub-16": (CORE, ["core-pub --size 16"]),
    "core-pub-128": (CORE, ["core-pub --size 128"]),
    "core-pub-1k": (CORE, ["core-pub --size 1024"]),
    "core-pub-64k": (CORE, ["core-pub --size 65536"]),
    "core-1to1-16": (CORE, ["core-1to1 --size 16"]),
    "core-1to1-128": (CORE, ["core-1to1 --size 128"]),
    "core-1to1-1k": (CORE, ["core-1to1 --size 1024"]),
    "core-1to1-64k": (CORE, ["core-1to1 --size 65536"]),
    "core-fanout-10": (CORE, ["core-fanout --subs 10"]),
    "core-fanout-100": (CORE, ["core-fanout --subs 100"]),
    "core-queue-8": (CORE, ["core-queue --subs 8"]),
    "core-wild": (CORE, ["core-wild"]),
    "core-many-200": (CORE, ["core-many --pairs 200"]),
    "reqrep-1": (CORE, ["reqrep --window 1"]),
    "reqrep-64": (CORE, ["reqrep --window 64"]),
    "subs-scale": (CORE, ["subs-scale"]),
    "conns-scale": (CORE, ["conns-scale"]),
    "js-pub-sync": (JS, ["js-pub --window 1"]),
    "js-pub-async-128": (JS, ["js-pub --window 1000 --size 128"]),
    "js-pub-async-1k": (JS, ["js-pub --window 1000 --size 1024"]),
    "js-pub-fsync-w1": (FSYNC, ["js-pub --window 1"]),
    "js-pub-fsync-w1000": (FSYNC, ["js-pub --window 1000"]),
    "js-pub-mem": (JS, ["js-pub --window 1000 --storage memory"]),
    "js-dedup": (JS, ["js-pub --window 1000 --msgid 1 --dup-every 10"]),
    "js-batch": (JS, ["js-batch"]),
    "js-fast": (JS, ["js-fast"]),
    "js-read": (JS, ["js-read --deadline 180"]),
    "js-workqueue": (JS, ["js-workqueue"]),
    "kv": (JS, ["kv"]),
    "obj": (JS, ["obj"]),
    # restart with the default duplicate window (2 min: all of the messages are inside it), and with one
    # of a second (none is); the kill comes after 50,000 more messages, so that no shutdown wrote them down
    "js-recover": (JS, ["js-fill --count 2000000 --subjects 100000 --deadline 240 --name js-recover-fill",
                        ("restart", signal.SIGTERM, "--msgs 2000000", "js-recover-clean")]),
    "js-recover-old": (JS, ["js-fill --count 2000000 --subjects 100000 --dupwin-ms 1000 --deadline 240 --name js-recover-old-fill",
                            ("restart", signal.SIGTERM, "--msgs 2000000", "js-recover-old-clean"),
                            "js-fill --append 1 --count 50000 --subjects 100000 --name js-recover-append",
                            ("restart", signal.SIGKILL, "--msgs 2050000", "js-recover-old-kill")]),
    "js-manysubj": (JS, ["js-pub --window 1000 --subjects 1000000 --count 1000000 --secs 120 --warm 0 --deadline 180"]),
    "js-manystreams": (JS, ["js-manystreams --count 2000",
                            ("restart", signal.SIGTERM, "--streams 2000", "js-manystreams-restart")]),
    "cluster-pub-w1": (CL, ["js-pub --replicas 3 --window 1"]),
    "cluster-pub-w1000": (CL, ["js-pub --replicas 3 --window 1000"]),
    "cluster-kv": (CL, ["kv --replicas 3 --prefix cluster-"]),
    "route-forward": (CLC, ["core-1to1 --size 128 --first-two 1"]),
}
ONE_ROW = lambda n: not n.startswith(("js-read", "kv", "obj", "cluster-kv", "subs-scale", "conns-scale", "js-manystreams", "js-recover"))


def free_ports(n):
    ss = [socket.socket() for _ in range(n)]
    for s in ss:
        s.bind(("127.0.0.1", 0))
    ps = [s.getsockname()[1] for s in ss]
    for s in ss:
        s.close()
    return ps


class Server:
    """One process under test: started from its template, pinned, and ended by its pid."""

    def __init__(self, template, cores, nice, kind, root, i, ports, routes, sync=None):
        self.template, self.cores, self.nice, self.kind = template, cores, nice, kind
        self.port, self.http, self.cport = ports
        self.dir = os.path.join(root, f"n{i}")
        self.store = os.path.join(self.dir, "store")
        self.name = f"n{i}"
        self.hwm = 0
        self.p = None
        os.makedirs(self.store, exist_ok=True)
        self.sync = "always" if kind == FSYNC else (sync or "")
        conf = [f"server_name: {self.name}", f"listen: 127.0.0.1:{self.port}", f"http: 127.0.0.1:{self.http}", "max_pending: 512MB"]
        if kind in (JS, FSYNC, CL):
            sync = f", sync_interval: {self.sync}" if self.sync else ""
            conf.append(f'jetstream {{ store_dir: "{self.store}", max_mem: 8GB, max_file: 40GB{sync} }}')
        if kind in (CL, CLC):
            conf.append(f"cluster {{ name: C, listen: 127.0.0.1:{self.cport}, routes: [{', '.join(routes)}] }}")
        self.conf = os.path.join(self.dir, "server.conf")
        with open(self.conf, "w") as f:
            f.write("\n".join(conf) + "\n")
        self.fill = {"port": self.port, "http": self.http, "store": self.store, "conf": self.conf, "name": self.name,
                     "cluster_port": self.cport, "routes": ",".join(routes), "sync": self.sync or "2m", "dir": self.dir}

    def start(self):
        cmd = re.sub(r"\{(\w+)\}", lambda m: str(self.fill[m.group(1)]) if m.group(1) in self.fill else m.group(0), self.template)
        self.log = open(os.path.join(self.dir, "log"), "ab")

        def child():
            os.sched_setaffinity(0, self.cores)
            if self.nice:
                os.setpriority(os.PRIO_PROCESS, 0, self.nice)

        self.t0 = time.monotonic_ns()
        self.p = subprocess.Popen(shlex.split(cmd), stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL, preexec_fn=child)
        return self

    def wait(self, secs=30):
        end = time.time() + secs
        while time.time() < end:
            if self.p.poll() is not None:
                with open(os.path.join(self.dir, "log"), errors="replace") as f:
                    raise RuntimeError(f"the server ended at once ({self.p.returncode}): {' '.join(f.read()[-300:].split())}")
            try:
                with socket.create_connection(("127.0.0.1", self.port), 1) as s:
                    s.settimeout(2)
                    if s.recv(4096).startswith(b"INFO"):
                        return
            except OSError:
                pass
            time.sleep(0.01)
        raise RuntimeError("the server does not answer")

    def peak(self):
        try:
            with open(f"/proc/{self.p.pid}/status") as f:
                m = re.search(r"VmHWM:\s+(\d+)", f.read())
            self.hwm = max(self.hwm, int(m.group(1)) / 1024 if m else 0)
        except OSError:
            pass
        return self.hwm

    def stop(self, sig=signal.SIGTERM):
        """Ends this process alone, by its pid; returns the seconds that took."""
        if self.p is None or self.p.poll() is not None:
            return 0.0
        self.peak()
        t = time.time()
        self.p.send_signal(sig)
        try:
            self.p.wait(30)
        except subprocess.TimeoutExpired:
            self.p.kill()
            self.p.wait(10)
        self.log.close()
        return time.time() - t

    def varz(self):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.http}/varz", timeout=5) as r:
                return json.load(r)
        except Exception:
            return None


def put_away(root, trash):
    """Empties a run's files and moves them aside; they are removed when all is over. (Unlinking them here
    would slow the next run's file creation: ext4 steps over each inode deleted in the last half minute.)"""
    if not os.path.isdir(root):
        return
    for d, _, fs in os.walk(root):
        for f in fs:
            try:
                os.truncate(os.path.join(d, f), 0)
            except OSError:
                pass
    os.makedirs(trash, exist_ok=True)
    os.rename(root, os.path.join(trash, str(time.monotonic_ns())))


def busy_cores():
    def read():
        with open("/proc/stat") as f:
            v = [int(x) for x in f.readline().split()[1:9]]
        return sum(v) - v[3] - v[4], sum(v)
    a = read()
    time.sleep(0.4)
    b = read()
    return (b[0] - a[0]) / max(b[1] - a[1], 1) * os.cpu_count()


def wait_quiet(o):
    end = time.time() + o.wait_quiet
    while time.time() < end and busy_cores() > 0.25:
        time.sleep(1)


def missing(template, kind):
    """What a template lacks for this kind of scenario."""
    if "{conf}" in template:
        return None
    need = {CORE: ["{port}"], JS: ["{port}", "{store}"], FSYNC: ["{port}", "{store}", "{sync}"],
            CL: ["{port}", "{store}", "{routes}", "{cluster_port}"], CLC: ["{port}", "{routes}", "{cluster_port}"]}[kind]
    lack = [n for n in need if n not in template]
    return f"the template has neither {{conf}} nor {' '.join(lack)}" if lack else None


def natsload(o, args, addrs, pids, deadline):
    cmd = [o.bin, *args, "--addr", ",".join(addrs), "--pid", ",".join(map(str, pids)), "--core", str(o.gen_core)]
    for k, v in o.opt:
        if f"--{k}" not in cmd:
            cmd += [f"--{k}", v]
    if "--deadline" not in cmd:
        cmd += ["--deadline", str(deadline)]
    nice = (lambda: os.setpriority(os.PRIO_PROCESS, 0, o.nice)) if o.nice else None
    p = subprocess.Popen(cmd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=nice)
    try:
        out, err = p.communicate(timeout=deadline + 120)
    except subprocess.TimeoutExpired:
        p.kill()
        out, err = p.communicate()
    rows, totals = [], None
    for line in out.splitlines():
        try:
            v = json.loads(line)
        except ValueError:
            continue
        if "totals" in v:
            totals = v["totals"]
        else:
            rows.append(v)
    if not rows:
        rows = [{"scenario": args[0], "ok": False, "error": (err or "no output").strip()[-300:]}]
    return rows, totals


def run(o, name, template, root, sync=None):
    """One scenario against one server (or cluster), from nothing. Returns its rows."""
    kind, steps = S[name]
    lack = missing(template, kind)
    if lack:
        return [{"scenario": name, "ok": True, "skipped": lack}]
    n = 3 if kind in (CL, CLC) else 1
    ports = free_ports(3 * n)
    routes = [f"nats-route://127.0.0.1:{ports[3 * i + 2]}" for i in range(n)] if n > 1 else []
    servers = [Server(template, o.server_cores, o.nice, kind, root, i + 1, ports[3 * i:3 * i + 3], routes, sync) for i in range(n)]
    rows = []
    try:
        os.sync()
        wait_quiet(o)
        for s in servers:
            s.start()
        for s in servers:
            s.wait()
        time.sleep(o.settle)
        for step in steps:
            if isinstance(step, tuple):
                _, sig, want, label = step
                down = servers[0].stop(sig)
                os.sync()
                wait_quiet(o)
                s = servers[0].start()
                r, _ = natsload(o, ["wait-info", *want.split(), "--t0", str(s.t0), "--http", str(s.http), "--name", label],
                                [f"127.0.0.1:{s.port}"], [s.p.pid], o.deadline)
                r[0]["stop_s"] = round(down, 3)
                rows += r
                continue
            args = step.split()
            addrs = [f"127.0.0.1:{s.port}" for s in servers]
            if "--first-two" in args:
                i = args.index("--first-two")
                del args[i:i + 2]
                addrs = addrs[:2]
            if ONE_ROW(name):
                args += ["--name", name]
            v0 = servers[0].varz() if kind == CORE else None
            r, totals = natsload(o, args, addrs, [s.p.pid for s in servers], o.deadline)
            if v0 and totals:
                # the server's own counters must agree with the generator's
                want = (totals["published"], totals["received"])
                for _ in range(20):
                    v1 = servers[0].varz() or {}
                    got = (v1.get("in_msgs", 0) - v0.get("in_msgs", 0), v1.get("out_msgs", 0) - v0.get("out_msgs", 0))
                    if got == want:
                        break
                    time.sleep(0.1)
                slow = v1.get("slow_consumers", 0) - v0.get("slow_consumers", 0)
                for x in r:
                    x.setdefault("checks", {})["varz"] = {"ok": got == want and slow == 0, "got": f"in, out {got}, slow consumers {slow}; generator {want}"}
                    x["ok"] = x["ok"] and got == want and slow == 0
            rows += r
        hwm = sum(s.peak() for s in servers)
        for x in rows:
            x["peak_rss_mb"] = round(hwm, 1)
        extra = {"js-manysubj": ("rss_mb", "MiB RSS"), "js-manystreams": ("rss_delta_mb", "MiB RSS")}.get(name)
        if extra and extra[0] in rows[0]:
            rows.append({"scenario": name + "-rss", "ok": True, "value": rows[0][extra[0]], "unit": extra[1], "better": "lower",
                         "peak_rss_mb": round(hwm, 1)})
    except Exception as e:
        rows.append({"scenario": name, "ok": False, "error": str(e)})
    finally:
        for s in servers:
            s.stop()
        if o.keep:
            os.rename(root, f"{root}.{name}.{time.monotonic_ns()}")
        else:
            put_away(root, root + ".trash")
    return rows


def num(x):
    if x is None or x == "":
        return ""
    if isinstance(x, str):
        return x
    a = abs(x)
    if a >= 100:
        return f"{x:,.0f}"
    return f"{x:.3g}"


def med(rs, k):
    v = [r[k] for r in rs if isinstance(r.get(k), (int, float)) and r.get("ok")]
    return statistics.median(v) if v else None


def table(res, order, sides):
    two = len(sides) == 2
    head = ["scenario", "unit"]
    if two:
        head += ["A", "B", "A/B", "A CPU ns/msg", "B CPU ns/msg", "A/B", "A peak RSS MiB", "B peak RSS MiB", "bound A/B", "notes"]
    else:
        head += ["median", "range", "CPU ns/msg", "range", "gen ns/msg", "server busy", "foreign", "peak RSS MiB", "bound", "notes"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    js = []
    for name in order:
        r = {s: res[s].get(name, []) for s in sides}
        any_row = next((x for s in sides for x in r[s] if x.get("unit")), None)
        notes = []
        for s in sides:
            bad = [x for x in r[s] if not x.get("ok")]
            if bad:
                e = bad[0].get("error") or "; ".join(f"{k}: {v['got']}" for k, v in bad[0].get("checks", {}).items() if not v["ok"])
                notes.append(f"{s} FAILED {len(bad)}/{len(r[s])}: {str(e)[:120]}")
            sk = [x for x in r[s] if x.get("skipped")]
            if sk:
                notes.append(f"{s} skipped: {sk[0]['skipped'][:100]}")
        for s in sides:
            if med(r[s], "p99_us") is not None:
                notes.append((f"{s} " if two else "") + f"p50 {num(med(r[s], 'p50_us'))} p99 {num(med(r[s], 'p99_us'))} p99.9 {num(med(r[s], 'p999_us'))} us")
            if med(r[s], "info_ms") is not None:
                st = med(r[s], "stop_s")
                notes.append((f"{s} " if two else "") + (f"stop {num(st)} s, " if st and st > 1 else "") + f"connect {num(med(r[s], 'connect_ms'))} info {num(med(r[s], 'info_ms'))} healthz {num(med(r[s], 'healthz_ms'))} ms, CPU {num(med(r[s], 'srv_cpu_ms'))} ms")
        if two:
            n = [med(r[s], "neighbour_busy") for s in sides]
            if None not in n and abs(n[0] - n[1]) > 0.2:
                notes.append(f"neighbour core unequally busy ({n[0]:.2f}, {n[1]:.2f})")
        f = [x for x in (med(r[s], "foreign_cores") for s in sides) if x is not None]
        if two and f and max(f) > 0.3:
            notes.append(f"noisy: {max(f):.1f} cores busy with others")
        bound = "/".join((statistics.mode([x["bound"] for x in r[s] if x.get("bound")]) if any(x.get("bound") for x in r[s]) else "-") for s in sides)
        unit = any_row.get("unit", "") if any_row else ""
        arrow = {"higher": "↑", "lower": "↓"}.get(any_row.get("better") if any_row else "", "")
        v = {s: med(r[s], "value") for s in sides}
        c = {s: med(r[s], "cpu_ns_per_msg") for s in sides}
        p = {s: med(r[s], "peak_rss_mb") for s in sides}
        div = lambda d: round(d["A"] / d["B"], 3) if two and d["A"] and d["B"] else None
        e = {"scenario": name, "unit": unit, "better": any_row.get("better") if any_row else None, "value": v, "ratio": div(v),
             "cpu_ns_per_msg": c, "cpu_ratio": div(c), "peak_rss_mb": p, "bound": bound, "notes": notes,
             "ok": {s: bool(r[s]) and all(x.get("ok") for x in r[s]) for s in sides}, "rounds": {s: len(r[s]) for s in sides}}
        if two:
            pairs = [round(a["value"] / b["value"], 3) for a, b in zip(r["A"], r["B"]) if a.get("value") and b.get("value") and a["ok"] and b["ok"]]
            e["ratios"] = pairs
            cells = [num(v["A"]), num(v["B"]), num(e["ratio"]), num(c["A"]), num(c["B"]), num(e["cpu_ratio"]), num(p["A"]), num(p["B"])]
        else:
            rng = lambda k: (lambda w: f"{num(min(w))}–{num(max(w))}" if len(w) > 1 else "")([x[k] for x in r["A"] if isinstance(x.get(k), (int, float)) and x.get("ok")])
            cells = [num(v["A"]), rng("value"), num(c["A"]), rng("cpu_ns_per_msg"), num(med(r["A"], "gen_ns_per_msg")), num(med(r["A"], "srv_busy")),
                     num(med(r["A"], "foreign_cores")), num(p["A"])]
        lines.append("| " + " | ".join([name, f"{unit} {arrow}", *cells, bound, "; ".join(notes)]) + " |")
        js.append(e)
    return "\n".join(lines), js


def main():
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("--a", required=True, help="command line of server A: a template with {port} {store} {conf} {http} {name} {sync} {cluster_port} {routes}")
    ap.add_argument("--b", help="command line of server B")
    ap.add_argument("--a-sync", help="A's sync_interval where a scenario does not set it, e.g. 2m (lazy) or always; without it the server's default")
    ap.add_argument("--b-sync", help="the same for B")
    ap.add_argument("--rounds", type=int, default=3)
    ap.add_argument("--scenarios", default=".*", help="comma-separated regular expressions over scenario names; -NAME leaves out")
    ap.add_argument("--server-cores", default="0", help="cores for the servers, e.g. 0 or 0,1")
    ap.add_argument("--gen-core", type=int, default=1)
    ap.add_argument("--nice", type=int, default=0, help="priority of server and generator, e.g. -10 on a shared machine")
    ap.add_argument("--wait-quiet", type=float, default=0, help="seconds to wait, before each run, for the machine to be quiet")
    ap.add_argument("--settle", type=float, default=0.3)
    ap.add_argument("--deadline", type=float, default=120)
    ap.add_argument("--store-root", default=os.path.join(TARGET, "store"), help="where the servers keep their files; put it on the disk that is to be measured")
    ap.add_argument("--bin", default=None)
    ap.add_argument("--ref", action="store_true", help="measure the machine's own limits too")
    ap.add_argument("--json", help="write all rows and medians here")
    ap.add_argument("--md", help="write the table here")
    ap.add_argument("--keep", action="store_true", help="keep stores and logs")
    ap.add_argument("--list", action="store_true")
    ap.add_argument("--opt", action="append", default=[], help="NAME=VALUE for natsload, e.g. secs=1")
    o = ap.parse_args()
    o.opt = [tuple(x.split("=", 1)) for x in o.opt]
    o.server_cores = {int(x) for x in o.server_cores.split(",")}
    pats = o.scenarios.split(",")
    plus = [p for p in pats if not p.startswith("-")] or [".*"]
    minus = [p[1:] for p in pats if p.startswith("-")]
    names = [n for n in S if any(re.fullmatch(p, n) for p in plus) and not any(re.fullmatch(p, n) for p in minus)]
    if o.list:
        print("\n".join(names))
        return
    import resource

    def end(*_):
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    h = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (h, h))
    if o.bin is None:
        subprocess.run(["cargo", "build", "--release", "-q"], cwd=HERE, env={**os.environ, "CARGO_TARGET_DIR": TARGET}, check=True)
        o.bin = os.path.join(TARGET, "release", "natsload")
    sides = ["A", "B"] if o.b else ["A"]
    templates = {"A": o.a, "B": o.b}
    res = {s: {} for s in sides}
    order, ref = [], []
    root = os.path.join(o.store_root, str(os.getpid()))
    t0 = time.time()

    def save():
        t, js = table(res, order, sides)
        if o.json:
            with open(o.json + ".part", "w") as f:
                json.dump({"servers": {s: templates[s] for s in sides}, "rounds": o.rounds, "median": js, "ref": ref, "rows": res, "secs": time.time() - t0}, f, indent=1)
            os.replace(o.json + ".part", o.json)
        if o.md:
            with open(o.md, "w") as f:
                f.write(t + "\n")
        return t

    try:
        if o.ref:
            wait_quiet(o)
            os.makedirs(o.store_root, exist_ok=True)
            r = subprocess.run([o.bin, "ref", "--core", str(o.gen_core), "--server-core", str(min(o.server_cores)), "--dir", o.store_root],
                               capture_output=True, text=True)
            ref += [json.loads(l) for l in r.stdout.splitlines()]
            for x in ref:
                print("ref", x["scenario"], num(x.get("value")), x.get("unit"), flush=True)
        for name in names:
            for rnd in range(o.rounds):
                for side in sides if rnd % 2 == 0 else sides[::-1]:
                    for row in run(o, name, templates[side], root, o.a_sync if side == "A" else o.b_sync):
                        n = row["scenario"]
                        row["round"] = rnd
                        if n not in order:
                            order.append(n)
                        res[side].setdefault(n, []).append(row)
                        msg = row.get("error") or row.get("skipped") or f"{num(row.get('value'))} {row.get('unit')}, CPU {num(row.get('cpu_ns_per_msg'))} ns/msg, bound {row.get('bound', '-')}, foreign {num(row.get('foreign_cores'))}"
                        bad = "" if row.get("ok") else "  NOT OK " + "; ".join(f"{k}: {v['got']}" for k, v in row.get("checks", {}).items() if not v["ok"])
                        print(f"[{time.time() - t0:6.0f}s] {rnd + 1}/{o.rounds} {side} {n}: {msg}{bad}", file=sys.stderr, flush=True)
            save()
    except KeyboardInterrupt:
        pass
    finally:
        shutil.rmtree(root + ".trash", ignore_errors=True)
    print(save())
    sys.exit(0 if all(x.get("ok") for s in sides for r in res[s].values() for x in r) else 1)


main()
