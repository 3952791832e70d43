"""What the suites need from outside, installed under the target directory on first use: virtual environments from
PyPI, node modules from npm, the async-nats package from crates.io. Every version is pinned here or in a lock file.

Nothing of this is ever committed. Each install is done aside and renamed, so that one that was cut short is not taken
for a whole one.
"""
import glob
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
TARGET = os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target"))
WORK = os.path.join(TARGET, "compat")

ASYNC_NATS = "0.51.0"


class Skip(Exception):
    """A suite that cannot run here; the text says why and what would help."""


def call(argv, **kw):
    """Runs a command quietly; what it printed is shown only when it fails."""
    r = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **kw)
    if r.returncode != 0:
        raise Skip(f"{' '.join(argv[:4])}… failed: {r.stdout[-2000:]}")
    return r.stdout


def digest(*paths):
    h = hashlib.sha256()
    for p in paths:
        with open(p, "rb") as f:
            h.update(f.read())
    return h.hexdigest()[:12]


def python(at_least):
    """A Python of at least this version: this one, or a `python3.N` in PATH or of pyenv."""
    if sys.version_info >= at_least:
        return sys.executable
    for minor in range(at_least[1], at_least[1] + 5):
        name = f"python3.{minor}"
        # A shim of pyenv answers to a name whose version is not chosen, and fails: hence a trial of each.
        for found in filter(None, [shutil.which(name), *sorted(glob.glob(os.path.expanduser(f"~/.pyenv/versions/3.{minor}.*/bin/{name}")))]):
            if subprocess.run([found, "-c", "import venv, ssl"], capture_output=True).returncode == 0:
                return found
    raise Skip(f"needs Python {at_least[0]}.{at_least[1]} or later")


def venv(name, requirements, at_least=(3, 9)):
    """The Python of a virtual environment with exactly these requirements."""
    path = os.path.join(WORK, f"venv-{name}-{digest(requirements)}")
    if not os.path.exists(path):
        base = python(at_least)
        for old in glob.glob(os.path.join(WORK, f"venv-{name}-*")):
            shutil.rmtree(old, ignore_errors=True)
        os.makedirs(WORK, exist_ok=True)
        part = path + ".part"
        call([base, "-m", "venv", part])
        call([os.path.join(part, "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", requirements])
        os.rename(part, path)
    return os.path.join(path, "bin/python")


def node_modules():
    """A folder with node_modules as the lock file says, into which the scripts are copied: an ES module finds its
    imports only in the folders above itself."""
    if not shutil.which("npm") or not shutil.which("node"):
        raise Skip("needs node 20 or later and npm")
    src = os.path.join(HERE, "node")
    path = os.path.join(WORK, "node-" + digest(os.path.join(src, "package.json"), os.path.join(src, "package-lock.json")))
    if not os.path.exists(path):
        part = path + ".part"
        shutil.rmtree(part, ignore_errors=True)
        os.makedirs(part)
        for f in ("package.json", "package-lock.json"):
            shutil.copy(os.path.join(src, f), part)
        call(["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"], cwd=part)
        os.rename(part, path)
    for sub, frm in (("smoke", src), ("seeds", os.path.join(HERE, "seeds"))):
        to = os.path.join(path, sub)
        os.makedirs(to, exist_ok=True)
        for f in glob.glob(os.path.join(to, "*.mjs")):
            os.unlink(f)
        for f in glob.glob(os.path.join(frm, "*.mjs")):
            shutil.copy(f, to)
    return path


def async_nats():
    """async-nats as published, tests and all, unpacked beside our stand-in for the crate that starts the server."""
    path = os.path.join(WORK, f"async-nats-{ASYNC_NATS}")
    if not os.path.exists(path):
        unpack_async_nats(path)
    published, manifest = os.path.join(path, "Cargo.toml.published"), os.path.join(path, "Cargo.toml")
    if not os.path.exists(published):
        os.rename(manifest, published)
    with open(published) as f:
        text = f.read()
    # Written anew whenever it differs: a target directory may serve more than one checkout.
    harness = os.path.join(HERE, "rust/nats-server")
    text += f'\n# Added by scripts/compat: the published package leaves this crate out.\n[workspace]\n\n[dev-dependencies.nats-server]\npath = "{harness}"\n'
    old = None
    if os.path.exists(manifest):
        with open(manifest) as f:
            old = f.read()
    if text != old:
        with open(manifest, "w") as f:
            f.write(text)
    return path


def unpack_async_nats(path):
    # A package that depends on it makes cargo fetch the archive and check it against the registry's index.
    fetch = os.path.join(WORK, "fetch")
    os.makedirs(os.path.join(fetch, "src"), exist_ok=True)
    with open(os.path.join(fetch, "Cargo.toml"), "w") as f:
        f.write(f'[package]\nname = "fetch"\nversion = "0.0.0"\nedition = "2021"\n\n[workspace]\n\n[dependencies]\nasync-nats = "={ASYNC_NATS}"\n')
    with open(os.path.join(fetch, "src/lib.rs"), "w"):
        pass
    call(["cargo", "fetch", "--quiet"], cwd=fetch)
    home = os.environ.get("CARGO_HOME", os.path.expanduser("~/.cargo"))
    crates = glob.glob(os.path.join(home, f"registry/cache/*/async-nats-{ASYNC_NATS}.crate"))
    if not crates:
        raise Skip(f"cargo fetched async-nats {ASYNC_NATS}, but its archive is not under {home}/registry/cache")
    part = os.path.join(WORK, "unpack.part")
    shutil.rmtree(part, ignore_errors=True)
    with tarfile.open(crates[0]) as t:
        t.extractall(part, filter="data")
    inner = os.path.join(part, f"async-nats-{ASYNC_NATS}")
    os.rename(inner, path)
    os.rmdir(part)
