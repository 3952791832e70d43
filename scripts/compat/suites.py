"""The suites: where each comes from, which of its tests belong to which group, and how a batch of them is run.

A suite answers four questions, and run.py asks nothing else:
  prepare()        installs and builds; raises tools.Skip with the reason if it cannot run here
  tests()          {test id: group}
  batches(ids)     the ids in the portions in which they are run, one process each
  run(ids, env)    runs one portion; {id: "passed" | "failed" | "skipped"} and the output

Groups say what a test needs of the server: core, cluster, jwt, jetstream, kv, object, service. A test that names more
than one belongs to the last of them in the order of GROUPS.
"""
import json
import os
import re
import subprocess
import tempfile

import sandbox
import tools

GROUPS = ["core", "jwt", "service", "jetstream", "kv", "object", "cluster"]
TEST_SECONDS = 90


def chunks(ids, n):
    return [ids[i:i + n] for i in range(0, len(ids), n)]


class AsyncNats:
    """The tests in the package of async-nats on crates.io, a process for each test."""

    name = "async-nats"
    # By test binary; a test's own text can move it (see group()).
    BINARIES = {
        "client_tests": "core", "nkey_tests": "core", "server_pool_tests": "core", "server_pool_parity_tests": "core",
        "subject_validation_test": "core", "tls_tests": "core", "websocket_test": "core", "jwt_tests": "jwt",
        "service_tests": "service", "jetstream_tests": "jetstream", "jetstream_api_timeout_tests": "jetstream",
        "pinned_client_test": "jetstream", "pull_exceeded_max_request_test": "jetstream", "kv_tests": "kv",
        "object_store": "object",
    }
    # Ten updates at ten seconds each.
    SLOW = {"kv_tests::kv::watch_hearbeats_first": 180}

    def prepare(self):
        self.dir = tools.async_nats()
        env = {**os.environ, "CARGO_TARGET_DIR": os.path.join(tools.WORK, "async-nats-build"), "CARGO_PROFILE_DEV_DEBUG": "0"}
        out = subprocess.run(["cargo", "test", "--no-run", "--tests", "--quiet", "--message-format=json"], cwd=self.dir, env=env,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if out.returncode != 0:
            raise tools.Skip(f"cargo could not build async-nats's tests: {out.stderr[-2000:]}")
        self.exe = {}
        for line in out.stdout.splitlines():
            m = json.loads(line)
            if m.get("reason") == "compiler-artifact" and m.get("executable") and m["target"]["name"] in self.BINARIES:
                self.exe[m["target"]["name"]] = m["executable"]

    def tests(self):
        found = {}
        for binary, exe in sorted(self.exe.items()):
            with open(os.path.join(self.dir, "tests", binary + ".rs")) as f:
                source = f.read()
            listing = subprocess.run([exe, "--list", "--format", "terse"], stdout=subprocess.PIPE, text=True, cwd=self.dir, check=True).stdout
            for line in listing.splitlines():
                if line.endswith(": test"):
                    test = line[:-len(": test")]
                    found[f"{binary}::{test}"] = self.group(binary, source, test)
        return found

    def group(self, binary, source, test):
        m = re.search(rf"fn {re.escape(test.split('::')[-1])}\(.*?(?=\n    (?:async )?fn |\n    #\[tokio::test|\Z)", source, re.S)
        body = m.group(0) if m else ""
        group = self.BINARIES[binary]
        if group == "core" and ("jetstream::" in body or "jetstream.conf" in body):
            group = "jetstream"
        if "jwt.conf" in body:
            group = "jwt"
        if "run_cluster" in body:
            group = "cluster"
        return group

    def batches(self, ids):
        return chunks(ids, 1)

    def run(self, ids, env):
        (test,) = ids
        binary, name = test.split("::", 1)
        o = sandbox.run([self.exe[binary], "--exact", name, "--test-threads", "1"], self.dir, env, self.SLOW.get(test, TEST_SECONDS))
        outcome = "passed" if o.code == 0 and "1 passed" in o.output else "skipped" if o.code == 0 else "failed"
        return {test: outcome}, o.output


class Pytest:
    """Tests run by pytest, some to a process. `checkout` suites need a copy of the nats.py repository, whose tests no
    registry carries: its path comes from --nats-py or NATS_PY_SRC."""

    def __init__(self, name, project, rules, default, venv, at_least=(3, 9), paths=(), folder="tests", per_process=8):
        self.name, self.project, self.rules, self.default = name, project, rules, default
        self.venv, self.at_least, self.paths, self.folder, self.per_process = venv, at_least, paths, folder, per_process
        self.checkout = None

    def prepare(self):
        if self.project is None:
            self.dir, paths = os.path.join(tools.HERE, "python"), []
        else:
            if not self.checkout:
                raise tools.Skip("no registry carries nats.py's tests: name a checkout of its repository with --nats-py or NATS_PY_SRC")
            self.dir = os.path.join(self.checkout, self.project)
            paths = [os.path.join(self.checkout, p) for p in self.paths]
            if not os.path.isdir(os.path.join(self.dir, self.folder)):
                raise tools.Skip(f"{self.dir} has no {self.folder}")
        self.python = tools.venv(self.venv, os.path.join(tools.HERE, f"python/{self.venv}.txt"), self.at_least)
        self.env = {"PYTHONPATH": os.pathsep.join([*paths, tools.HERE]), "PYTHONDONTWRITEBYTECODE": "1"}

    def tests(self):
        argv = [self.python, "-m", "pytest", "--rootdir", ".", "--collect-only", "-q", "-p", "no:cacheprovider", self.folder]
        out = subprocess.run(argv, cwd=self.dir, env={**os.environ, **self.env}, stdout=subprocess.PIPE, text=True).stdout
        ids = [line for line in out.splitlines() if "::" in line]
        if not ids:
            raise tools.Skip(f"pytest found no tests: {out[-1000:]}")
        return {t: self.group(t) for t in ids}

    def group(self, test):
        for pattern, group in self.rules:
            if re.search(pattern, test):
                return group
        return self.default

    def batches(self, ids):
        by_class = {}
        for t in ids:
            by_class.setdefault(t.rsplit("::", 1)[0], []).append(t)
        return [c for tests in by_class.values() for c in chunks(tests, self.per_process)]

    def run(self, ids, env):
        fd, report = tempfile.mkstemp(prefix="compat-report-")
        os.close(fd)
        argv = [self.python, "-m", "pytest", "--rootdir", ".", "-q", "-p", "no:cacheprovider", "-p", "pytest_report", "--tb=short", "-o", "addopts=",
                "--timeout", str(TEST_SECONDS), *ids]
        o = sandbox.run(argv, self.dir, {**env, **self.env, "COMPAT_REPORT": report}, TEST_SECONDS * len(ids) + 30)
        with open(report) as f:
            got = {m["id"]: m["outcome"] for m in map(json.loads, f)}
        os.unlink(report)
        return {t: got.get(t, "failed") for t in ids}, o.output


class Node:
    """Our own smoke tests with the @nats-io packages, one file to a process, read from node's TAP output."""

    name = "smoke-node"
    GROUP = {"jetstream": "jetstream", "kv": "kv", "object": "object"}

    def prepare(self):
        self.dir = tools.node_modules()

    def tests(self):
        found = {}
        for f in sorted(os.listdir(os.path.join(self.dir, "smoke"))):
            if f.endswith(".test.mjs"):
                with open(os.path.join(self.dir, "smoke", f)) as s:
                    for name in re.findall(r'^test\("([^"]+)"', s.read(), re.M):
                        found[f"{f}::{name}"] = self.GROUP.get(f.split(".")[0], "core")
        return found

    def batches(self, ids):
        files = {}
        for t in ids:
            files.setdefault(t.split("::")[0], []).append(t)
        return list(files.values())

    def run(self, ids, env):
        file = ids[0].split("::")[0]
        pattern = "^(" + "|".join(re.escape(t.split("::", 1)[1]) for t in ids) + ")$"
        argv = ["node", "--test-reporter=tap", "--test-name-pattern", pattern, os.path.join("smoke", file)]
        o = sandbox.run(argv, self.dir, env, TEST_SECONDS + 30)
        got = {}
        for word, name, directive in re.findall(r"^(ok|not ok) \d+ - ([^#\n]*?)(?: # (\w+).*)?$", o.output, re.M):
            got[f"{file}::{name}"] = "skipped" if directive else "passed" if word == "ok" else "failed"
        return {t: got.get(t, "failed") for t in ids}, o.output


class Seeds:
    """Examples from articles about NATS, as small programs that end with status 0 when all came out as the article
    says. The server is started here with JetStream on for the groups that need it; NATS_URL says where it is."""

    name = "seeds"

    def prepare(self):
        self.node = tools.node_modules()
        self.python = tools.venv("nats-py", os.path.join(tools.HERE, "python/nats-py.txt"))

    def tests(self):
        folder = os.path.join(tools.HERE, "seeds")
        files = [f for f in sorted(os.listdir(folder)) if f.endswith((".mjs", ".py")) and not f.startswith("_")]
        return {f: {"js": "jetstream", "kv": "kv", "obj": "object"}.get(f.split("-")[0], "core") for f in files}

    def batches(self, ids):
        return chunks(ids, 1)

    def run(self, ids, env):
        (test,) = ids
        js = [] if self.tests()[test] == "core" else ["-js"]
        if test.endswith(".py"):
            argv = [self.python, os.path.join(tools.HERE, "seeds", test)]
        else:
            argv = ["node", os.path.join(self.node, "seeds", test)]
        env = {**env, "PYTHONDONTWRITEBYTECODE": "1"}
        o = sandbox.run(["python3", os.path.join(tools.HERE, "with_server.py"), *js, "--", *argv], self.node, env, TEST_SECONDS)
        return {test: "passed" if o.code == 0 else "failed"}, o.output


NEW_PATHS = ["nats-core/src", "nats-server/src", "nats-jetstream/src", "nats-key-value/src"]
CLUSTER, JWT = (r"(?i)cluster", "cluster"), (r"(?i)jwt|creds", "jwt")

SUITES = [
    Pytest("smoke-python", None, [(r"test_jetstream", "jetstream"), (r"test_kv", "kv"), (r"test_object", "object")], "core", "nats-py"),
    Node(),
    Seeds(),
    AsyncNats(),
    # Its configuration files name certificates from the top of the repository.
    Pytest("nats-py", ".", [
        (r"ClusterDiscovery", "cluster"), JWT, (r"test_micro_service", "service"), (r"::KV", "kv"), (r"::ObjectStore", "object"),
        (r"test_js\.py", "jetstream"),
    ], "core", "nats-py", paths=["nats/src"], folder="nats/tests"),
    Pytest("nats-core-py", "nats-core", [CLUSTER, JWT], "core", "nats-core", (3, 13), NEW_PATHS),
    Pytest("nats-server-py", "nats-server", [CLUSTER, (r"(?i)jetstream", "jetstream")], "core", "nats-core", (3, 13), NEW_PATHS),
    Pytest("nats-jetstream-py", "nats-jetstream", [CLUSTER], "jetstream", "nats-core", (3, 13), NEW_PATHS),
    Pytest("nats-key-value-py", "nats-key-value", [CLUSTER], "kv", "nats-core", (3, 13), NEW_PATHS),
]
