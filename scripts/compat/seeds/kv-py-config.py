"""The bucket `config` of the articles with nats-py: put, compare and set, watch by wildcard, history, delete."""
import asyncio
import os

import nats
from nats.js.errors import KeyNotFoundError, KeyWrongLastSequenceError


async def main():
    nc = await nats.connect(os.environ["NATS_URL"])
    js = nc.jetstream()
    kv = await js.create_key_value(bucket="config", ttl=3600, history=3)
    await kv.put("database.host", b"pg.internal")
    await kv.put("database.port", b"5432")
    entry = await kv.get("database.host")
    assert (entry.value, entry.revision) == (b"pg.internal", 1)
    assert await kv.update("database.host", b"pg2.internal", last=entry.revision) == 3
    try:
        await kv.update("database.host", b"pg3.internal", last=entry.revision)
    except KeyWrongLastSequenceError:
        pass
    else:
        raise AssertionError("an update with an old revision was accepted")

    watcher = await kv.watch("database.*")
    seen = []
    while (update := await watcher.updates(timeout=5)) is not None:
        seen.append((update.key, update.value, update.revision))
    assert seen == [("database.port", b"5432", 2), ("database.host", b"pg2.internal", 3)], seen
    await kv.put("cache.size", b"unseen")
    await kv.put("database.host", b"pg4.internal")
    update = await watcher.updates(timeout=5)
    assert (update.key, update.value) == ("database.host", b"pg4.internal")
    await watcher.stop()

    history = [e.value for e in await kv.history("database.host")]
    assert history == [b"pg.internal", b"pg2.internal", b"pg4.internal"], history
    assert sorted(await kv.keys()) == ["cache.size", "database.host", "database.port"]
    await kv.delete("database.host")
    try:
        await kv.get("database.host")
    except KeyNotFoundError:
        pass
    else:
        raise AssertionError("a deleted key was found")
    await js.delete_key_value("config")
    await nc.drain()


asyncio.run(main())
