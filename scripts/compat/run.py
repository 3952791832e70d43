"""Compares our binary with nats-server through other people's eyes. See README.md in this folder.

For each suite and group: which tests pass on nats-server 2.15.x (recorded in expected/, or run now), which pass on
ours, and which differ. Exit status 1 if a test that passes on nats-server fails on ours and skip.txt does not name it
with a reason; 2 if something could not be run at all.
"""
import argparse
import concurrent.futures
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import sandbox
import suites
import tools

EXPECTED = os.path.join(tools.HERE, "expected")
ALONE = "# passes alone, or now and then: "


class Expected:
    """expected/SUITE.GROUP.txt: the tests that nats-server passes, one a line; those that needed another try marked."""

    def __init__(self, suite, group):
        self.path = os.path.join(EXPECTED, f"{suite}.{group}.txt")

    def read(self):
        if not os.path.exists(self.path):
            return None
        with open(self.path) as f:
            lines = [line.rstrip("\n") for line in f]
        return {line for line in lines if line and not line.startswith("#")}

    def write(self, results, version):
        passed = sorted(t for t, r in results.items() if r["outcome"] == "passed")
        late = [t for t in passed if results[t]["tries"] > 1]
        failed = sorted(t for t, r in results.items() if r["outcome"] == "failed")
        os.makedirs(EXPECTED, exist_ok=True)
        with open(self.path, "w") as f:
            f.write(f"# {len(passed)} of {len(results)} pass on {version}. Written by scripts/compat.sh --record.\n")
            for title, tests in (("needed more than one try", late), ("fail", failed)):
                if tests:
                    f.write(f"# {title}: {' '.join(tests)}\n")
            f.writelines(t + "\n" for t in passed)


def read_skips():
    """{(suite, test): reason}"""
    skips = {}
    with open(os.path.join(tools.HERE, "skip.txt")) as f:
        for n, line in enumerate(f, 1):
            if line.strip() and not line.startswith("#"):
                parts = line.split(None, 2)
                if len(parts) < 3:
                    sys.exit(f"skip.txt:{n}: a skipped test needs a reason")
                skips[parts[0], parts[1]] = parts[2].strip()
    return skips


def environment(binary, links):
    """Our environment with `nats-server` being the binary under test, wherever it lies and whatever its name."""
    os.makedirs(links, exist_ok=True)
    link = os.path.join(links, "nats-server")
    if os.path.lexists(link):
        os.unlink(link)
    os.symlink(os.path.realpath(binary), link)
    return {**os.environ, "PATH": links + os.pathsep + os.environ["PATH"], "NATS_SERVER_VERSION": "v2.15.1"}


def logs_of(suite, label):
    return os.path.join(tools.WORK, "logs", suite, label)


def log_of(suite, label, test):
    return os.path.join(logs_of(suite, label), re.sub(r"[^\w.-]+", "_", test)[-180:] + ".log")


def run_suite(suite, ids, env, o, label):
    """Runs the tests, and those that failed again by themselves. {id: {outcome, tries}}"""
    logs = logs_of(suite.name, label)
    shutil.rmtree(logs, ignore_errors=True)
    os.makedirs(logs)
    results = {}
    jobs = o.jobs if sandbox.available() else 1
    for attempt in range(1, o.tries + 1):
        todo = [t for t in ids if t not in results or results[t]["outcome"] == "failed"]
        if not todo:
            break
        batches = suite.batches(todo) if attempt == 1 else [[t] for t in todo]
        with concurrent.futures.ThreadPoolExecutor(jobs if attempt == 1 else max(1, jobs // 2)) as pool:
            running = {pool.submit(suite.run, b, env): b for b in batches}
            done = 0
            for f in concurrent.futures.as_completed(running):
                got, output = f.result()
                for t, outcome in got.items():
                    results[t] = {"outcome": outcome, "tries": attempt}
                bad = [t for t, outcome in got.items() if outcome == "failed"]
                for t in bad:
                    with open(log_of(suite.name, label, t), "w") as log:
                        log.write(output)
                done += len(got)
                if o.verbose:
                    print(f"  {suite.name} {label} {attempt}: {done}/{len(todo)} {' '.join(bad)}", file=sys.stderr, flush=True)
    return results


def save(suite, group, label, results):
    folder = os.path.join(tools.WORK, "results")
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, f"{suite}.{group}.{label}.json"), "w") as f:
        json.dump(results, f, indent=1, sort_keys=True)


def our_binary():
    if os.environ.get("FULMAR_BIN"):
        return os.environ["FULMAR_BIN"]
    if subprocess.run(["cargo", "build", "--release", "--quiet", "-p", "fulmar"], cwd=tools.ROOT).returncode != 0:
        sys.exit("compat: our own build failed")
    return os.path.join(tools.TARGET, "release", "fulmar")


def options():
    p = argparse.ArgumentParser(prog="scripts/compat.sh", description=__doc__.split("\n\n")[0])
    p.add_argument("--suite", default="", help="comma-separated names (see --list); all by default")
    p.add_argument("--groups", default="core", help=f"comma-separated, of {' '.join(suites.GROUPS)}; or all")
    p.add_argument("--filter", default="", help="only tests whose id matches this regular expression")
    p.add_argument("--bin", help="our binary; default FULMAR_BIN, or a release build")
    p.add_argument("--reference", action="store_true", help="run nats-server too, instead of trusting expected/")
    p.add_argument("--record", action="store_true", help="run only nats-server and write expected/ from it")
    p.add_argument("--nats-py", default=os.environ.get("NATS_PY_SRC"), help="a checkout of the nats.py repository (NATS_PY_SRC)")
    p.add_argument("--jobs", type=int, default=2 * (os.cpu_count() or 1), help="tests at once, each in a network namespace of its own")
    p.add_argument("--tries", type=int, default=3, help="a failing test is run again, alone, until it has been run so often")
    p.add_argument("--list", action="store_true", help="list suites, groups and their number of tests")
    p.add_argument("-v", "--verbose", action="store_true", help="progress")
    return p.parse_args()


def stop(*_):
    sandbox.end_all()
    os._exit(130)


def main():
    o = options()
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    known = {s.name: s for s in suites.SUITES}
    chosen = [n for n in o.suite.split(",") if n] or list(known)
    groups = suites.GROUPS if o.groups == "all" else o.groups.split(",")
    for n in chosen:
        if n not in known:
            sys.exit(f"compat: no suite {n}; there are {' '.join(known)}")
    for g in groups:
        if g not in suites.GROUPS:
            sys.exit(f"compat: no group {g}; there are {' '.join(suites.GROUPS)}")
    if not sandbox.available():
        print("compat: no right to make network namespaces: one test at a time, on the machine's own ports", file=sys.stderr)
    skips = read_skips()
    links = tempfile.mkdtemp(prefix="compat-bin-")
    reference = environment(subprocess.check_output([os.path.join(tools.HERE, "reference")], text=True).strip(), os.path.join(links, "reference"))
    ours = None
    if not o.record and not o.list:
        ours = environment(o.bin or our_binary(), os.path.join(links, "ours"))
    version = subprocess.check_output(["nats-server", "--version"], env=reference, text=True).strip()
    rows, bad, broken = [], 0, False
    try:
        for name in chosen:
            suite = known[name]
            if isinstance(suite, suites.Pytest):
                suite.checkout = o.nats_py and os.path.abspath(o.nats_py)
            try:
                suite.prepare()
                tests = suite.tests()
            except tools.Skip as why:
                print(f"skipped: {name}: {why}", flush=True)
                # What comes from a registry must run; a checkout may be absent.
                broken |= getattr(suite, "project", None) is None
                continue
            if o.list:
                for g in suites.GROUPS:
                    n = sum(x == g for x in tests.values())
                    if n:
                        print(f"{name:18} {g:10} {n}")
                continue
            for group in groups:
                ids = [t for t, g in tests.items() if g == group and re.search(o.filter, t)]
                if not ids:
                    continue
                start = time.monotonic()
                expected = Expected(name, group)
                want = expected.read()
                if o.record or o.reference or want is None:
                    got = run_suite(suite, ids, reference, o, f"{group}.reference")
                    save(name, group, "reference", got)
                    want = {t for t, r in got.items() if r["outcome"] == "passed"}
                    if o.record and not o.filter:
                        expected.write(got, version)
                want = {t for t in want if re.search(o.filter, t)}
                row = {"suite": name, "group": group, "tests": len(ids), "reference": len(want)}
                if ours:
                    got = run_suite(suite, ids, ours, o, f"{group}.ours")
                    save(name, group, "ours", got)
                    passed = {t for t, r in got.items() if r["outcome"] == "passed"}
                    excused = {t for t in want - passed if (name, t) in skips}
                    row.update(ours=len(passed), differ=sorted(want - passed - excused), excused=sorted(excused),
                               late=sorted(t for t in passed if got[t]["tries"] > 1), more=sorted(passed - want),
                               left_out=sorted(t for t in want - passed if got.get(t, {}).get("outcome") == "skipped"),
                               idle=sorted(t for t in passed if (name, t) in skips))
                    bad += len(row["differ"])
                row["seconds"] = time.monotonic() - start
                rows.append(row)
                report(row, skips)
    finally:
        shutil.rmtree(links, ignore_errors=True)
    if rows:
        table(rows, version)
    if broken:
        sys.exit(2)
    sys.exit(1 if bad else 0)


def report(row, skips):
    print(f"{row['suite']} {row['group']}: {row['tests']} tests, {row['reference']} pass on the reference"
          + (f", {row['ours']} on ours" if "ours" in row else "") + f" ({row['seconds']:.0f} s)", flush=True)
    for t in row.get("left_out", []):
        print(f"  left out by the suite itself on ours (it skips what it takes for missing): {t}", flush=True)
    for key, text in (("differ", "FAILS ON OURS"), ("excused", "skipped"), ("late", "needed more than one try"),
                      ("more", "passes on ours only"), ("idle", "passes, so skip.txt need not name it")):
        for t in row.get(key, []):
            why = f": {skips[row['suite'], t]}" if key == "excused" else ""
            print(f"  {text}: {t}{why}", flush=True)
            if key == "differ":
                last_lines(log_of(row["suite"], f"{row['group']}.ours", t))


def last_lines(log, n=20):
    """Where only what was printed is kept, the logs are gone."""
    try:
        with open(log, errors="replace") as f:
            lines = f.read().splitlines()
    except OSError:
        return
    for line in lines[-n:]:
        print(f"    | {line[:300]}", flush=True)


def table(rows, version):
    print(f"\n| suite | group | tests | pass on {version} | pass on ours | differ | skipped with a reason | s |\n|---|---|---|---|---|---|---|---|")
    for r in rows:
        ours = [r["ours"], len(r["differ"]), len(r["excused"])] if "ours" in r else ["-"] * 3
        print("| " + " | ".join(map(str, [r["suite"], r["group"], r["tests"], r["reference"], *ours, f"{r['seconds']:.0f}"])) + " |")
    logs = os.path.relpath(os.path.join(tools.WORK, "logs"))
    print(f"\nlogs of what failed: {logs}/SUITE/GROUP.(ours|reference)/, all outcomes: {os.path.join(os.path.dirname(logs), 'results')}/")


if __name__ == "__main__":
    main()
