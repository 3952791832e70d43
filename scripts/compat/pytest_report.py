"""A pytest plugin: one JSON line per test in the file that COMPAT_REPORT names, as soon as the test is over, so that
a run that hangs or crashes still tells what came before."""
import json
import os
import unittest.mock  # Some tests of nats.py use it without importing it, and so fail when run alone.

_worst = {}
_order = {"passed": 0, "skipped": 1, "failed": 2}


def pytest_runtest_logreport(report):
    seen = _worst.get(report.nodeid, "passed")
    outcome = report.outcome
    if hasattr(report, "wasxfail"):
        outcome = "skipped"
    if _order[outcome] >= _order[seen]:
        _worst[report.nodeid] = seen = outcome
    if report.when == "teardown":
        with open(os.environ["COMPAT_REPORT"], "a") as f:
            f.write(json.dumps({"id": report.nodeid, "outcome": seen}) + "\n")
