"""Makes a sequence that differs small.

Owns: which operations are left out. A sequence counts as smaller if the same difference remains.
"""


def shrink(ops, found, run, rounds=120):
    """The small sequence and its difference. `run` plays a sequence; it is called at most `rounds` times."""
    best, mark = found, found.signature
    ops = ops[: found.index + 1]
    step = max(1, len(ops) // 2)
    while rounds > 0:
        at, dropped = 0, False
        while at < len(ops) and rounds > 0:
            tried = ops[:at] + ops[at + step:]
            rounds -= 1
            new = run(tried)[0] if tried else None
            if new and new.signature == mark:
                ops, best, dropped = tried[: new.index + 1], new, True
            else:
                at += step
        if step == 1 and not dropped:
            break
        step = max(1, step // 2) if not dropped or step > 1 else 1
    return ops, best
