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
    Rule("never used", "a stream that never had a message shows 0/0 and not 1/0", "", r"\.state\.first_seq$",
         lambda t, o, op: (t, o) == (1, 0), False),
    Rule("name of an ephemeral", "nats-server adds a name that it gave to the configuration, but only after a restart", "", r"\.config\.name$",
         lambda t, o, op: str(t).startswith("%E") and o == ABSENT, False),
    Rule("copies at once", "how a copy stands is known at once and not after a first round", "", r"\.(sources\[\]|mirror)\.error$",
         lambda t, o, op: t == ABSENT, False),
    Rule("copies at once", "as above", "answers", r"\.(sources\[\]|mirror)\.lag$",
         lambda t, o, op: True, False),
    Rule("consumers of copies", "a copy within one process has no consumer that could be listed", "answers", r"\.(consumer_count|total)$",
         lambda t, o, op: isinstance(t, int) and t > o, False),
    Rule("lost at a restart", "nats-server does not start a stream again that it has made with an empty republish", "state", r"^\.streams\.\w+$",
         lambda t, o, op: t == ABSENT and "republish" in o["info"]["config"] and "" in o["info"]["config"]["republish"].values(), True),
]


def find(where, op, found, theirs, ours):
    path, t, o = found
    for rule in RULES:
        if rule.where in ("", where) and re.search(rule.path, path) and rule.test(t, o, op):
            return rule
    return None


def event(side, told):
    return False
