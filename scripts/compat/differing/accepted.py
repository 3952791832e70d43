"""Differences that are known and meant, each with its reason (docs/design/0015-jetstream.md says more).

A rule names the place and the path, and a test on the two values; keep each narrow. `ends` is for those that the rest of a
sequence would follow from: it stops there.
"""
import re
from collections import namedtuple

Rule = namedtuple("Rule", "name reason where path test ends")
ABSENT = "(absent)"


def without_zero(theirs):
    return [seq for seq in theirs if seq] or ABSENT


RULES = [
    Rule("no floor time", "ack_floor.last_active does not follow deletions and purges", "state", r"\.ack_floor\.last_active$",
         lambda t, o, op: True, False),
    Rule("message 0", "nats-server sometimes counts the message 0 of an empty stream as deleted", "", r"\.state\.deleted(\.length)?$",
         lambda t, o, op: isinstance(t, list) and 0 in t and without_zero(t) == o, False),
    Rule("message 0", "as above, counted", "", r"\.state\.num_deleted$",
         lambda t, o, op: t == 1 and o == ABSENT, False),
]


def find(where, op, found, theirs, ours):
    path, t, o = found
    for rule in RULES:
        if rule.where in ("", where) and re.search(rule.path, path) and rule.test(t, o, op):
            return rule
    return None


def event(side, told):
    return False
