"""Key-value buckets as nats-py sees them."""
import asyncio

from nats.js.api import KeyValueConfig
from nats.js.errors import (
    BucketNotFoundError, KeyNotFoundError, KeyWrongLastSequenceError, NoKeysError,
)
from server import ServerTest


class KeyValue(ServerTest):
    async def start(self, **config):
        nc = await self.connect(self.server("-js"))
        js = nc.jetstream(timeout=10)
        return js, await js.create_key_value(KeyValueConfig(bucket="config", **config))

    async def test_put_get_and_revisions(self):
        js, kv = await self.start(history=5)
        self.assertEqual(await kv.put("log.level", b"info"), 1)
        entry = await kv.get("log.level")
        self.assertEqual((entry.value, entry.revision), (b"info", 1))
        self.assertEqual(await kv.update("log.level", b"debug", last=1), 2)
        with self.assertRaises(KeyWrongLastSequenceError):
            await kv.update("log.level", b"warn", last=1)
        with self.assertRaises(KeyWrongLastSequenceError):
            await kv.create("log.level", b"x")
        self.assertEqual(await kv.create("new", b"x"), 3)
        self.assertEqual((await kv.get("log.level", revision=1)).value, b"info")
        with self.assertRaises(KeyNotFoundError):
            await kv.get("absent")
        self.assertEqual((await js.key_value("config")).__class__, kv.__class__)
        with self.assertRaises(BucketNotFoundError):
            await js.key_value("other")

    async def test_history_delete_and_purge(self):
        _, kv = await self.start(history=3)
        with self.assertRaises(NoKeysError):
            await kv.keys()
        for i in range(5):
            await kv.put("k", str(i).encode())
        self.assertEqual([(e.revision, e.value) for e in await kv.history("k")], [(3, b"2"), (4, b"3"), (5, b"4")])
        await kv.put("other", b"y")
        await kv.delete("k")
        with self.assertRaises(KeyNotFoundError):
            await kv.get("k")
        self.assertEqual(await kv.keys(), ["other"])
        self.assertEqual(await kv.create("k", b"again"), 8)
        await kv.purge("k")
        self.assertEqual([e.operation for e in await kv.history("k")], ["PURGE"])
        status = await kv.status()
        self.assertEqual((status.bucket, status.history, status.values), ("config", 3, 2))

    async def test_watch(self):
        _, kv = await self.start()
        await kv.put("a", b"1")
        await kv.put("b", b"1")
        watcher = await kv.watchall()
        seen = []

        async def take(n):
            while len(seen) < n:
                e = await watcher.updates(timeout=5)
                seen.append(e and (e.key, e.value, e.operation))

        await take(3)
        await kv.put("a", b"2")
        await kv.delete("b")
        await asyncio.wait_for(take(5), 10)
        self.assertEqual(seen, [("a", b"1", None), ("b", b"1", None), None, ("a", b"2", None), ("b", b"", "DEL")])
        await watcher.stop()

    async def test_time_to_live(self):
        _, kv = await self.start(ttl=1)
        await kv.put("short", b"x")
        self.assertEqual((await kv.get("short")).value, b"x")
        for _ in range(100):
            try:
                await kv.get("short")
            except KeyNotFoundError:
                return
            await asyncio.sleep(0.1)
        self.fail("the key outlived its second by far")
