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


def unbearable(config):
    counts_markers = config.get("allow_msg_counter") and config.get("subject_delete_marker_ttl")
    return counts_markers or "" in config.get("republish", {}).values()


RULES = [
    Rule("no floor time", "ack_floor.last_active does not follow deletions and purges", "", r"\.ack_floor\.last_active$",
         lambda t, o, game: True, False),
    Rule("message 0", "nats-server sometimes counts the message 0 of an empty stream as deleted", "", r"\.state\.deleted(\.length)?$",
         lambda t, o, game: isinstance(t, list) and 0 in t and without_zero(t) == o, False),
    Rule("message 0", "as above, counted", "", r"\.state\.num_deleted$",
         lambda t, o, game: t == 1 and o == ABSENT, False),
    Rule("never used", "a stream that never had a message shows 0/0 and not 1/0", "", r"\.state\.first_seq$",
         lambda t, o, game: (t, o) == (1, 0), False),
    Rule("name of an ephemeral", "nats-server adds a name that it gave to the configuration, but only after a restart", "", r"\.config\.name$",
         lambda t, o, game: str(t).startswith("%E") and o == ABSENT, False),
    Rule("copies at once", "how a copy stands is known at once and not after a first round", "", r"\.(sources\[\]|mirror)\.error$",
         lambda t, o, game: True, False),
    Rule("copies at once", "as above", "answers", r"\.(sources\[\]|mirror)\.lag$",
         lambda t, o, game: True, False),
    Rule("consumers of copies", "a copy within one process has no consumer that could be listed", "", r"\.(consumer_count|total|consumers)$",
         lambda t, o, game: isinstance(t, int) and t > o, False),
    Rule("reset below what is never given", "a consumer's floor is shown not below the first sequence that the stream may give", "", r"\.stream_seq$|\.reset_seq$",
         lambda t, o, game: "CONSUMER.RESET" in game.subject, True),
    Rule("lost at a restart", "nats-server does not start a stream again that it has made and its own checks refuse then", "state", r"^\.streams\.\w+$",
         lambda t, o, game: t == ABSENT and unbearable(o["info"]["config"]), True),
    Rule("where a filter has looked", "delivered.stream_seq is what was delivered, and not how far a filter has looked for nothing", "", r"\.delivered\.stream_seq$",
         lambda t, o, game: t > o, False),
    Rule("consumers after a restart", "what nats-server answers when a consumer is made again is from before the restart; asked for its info it knows better",
         "answers", r"\.inbox\[\]\.body\.(num_|delivered|ack_floor|config|priority|push_bound|paused)",
         lambda t, o, game: "CONSUMER" in game.subject and ".CREATE." in game.subject and game.restarted, False),
    Rule("durable stays durable", "a durable consumer that is updated without saying so stays durable; nats-server's is removed after a restart", "", r"\.config\.durable_name$",
         lambda t, o, game: t == ABSENT, True),
    Rule("floors and purges", "the floor and `delivered` do not follow a purge by filter or `keep`", "", r"\.(ack_floor|delivered)\.stream_seq$",
         lambda t, o, game: t > o and game.purged, False),
    Rule("deliveries below the floor", "with `ack_policy: all` the floor counts the last delivery of what is acknowledged", "", r"\.ack_floor\.consumer_seq$",
         lambda t, o, game: o > t and game.refused, False),
    Rule("end of a fast batch", "one that ends by what came already, after a message was refused for want of room, is acknowledged as others are", "answers", r"^\.f\d+\.length$",
         lambda t, o, game: len(o) == len(t) + 1 and t[-1]["body"].get("type") == "gap", False),
    Rule("kept by interest", "a consumer in memory of a stream that keeps for consumers outlives a restart, or what it has yet to get would be lost", "state", r"\.consumers\.[^.]+$",
         lambda t, o, game: t == ABSENT and o["config"].get("mem_storage") and game.restarted, True),
    Rule("reset beyond the end", "where a consumer was reset to it stands after a restart too, also behind the stream's end", "state", r"\.(ack_floor|delivered)\.stream_seq$",
         lambda t, o, game: t < o and game.restarted, True),
    Rule("first_seq of an update", "an update's `first_seq` has no effect; with nats-server it has one at the next restart of an empty stream", "state", r"\.state\.(first_seq|last_seq)$",
         lambda t, o, game: t > o and game.restarted, True),
    Rule("nobody's time to live", "nats-server does not look at the time to live of what nobody has an interest in", "answers", r"\.inbox\[\]\.body\.(error|seq)$",
         lambda t, o, game: any(k == "Nats-TTL" for k, _ in game.op.get("headers", [])), True),
]


def find(where, game, found):
    path, t, o = found
    for rule in RULES:
        if rule.where in ("", where) and re.search(rule.path, path) and rule.test(t, o, game):
            return rule
    return None


def event(side, told):
    return False
