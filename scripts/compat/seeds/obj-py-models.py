"""An object store with nats-py: put, get, list, delete, and the digest that the server never sees the use of."""
import asyncio
import base64
import hashlib
import os

import nats
from nats.js.errors import ObjectNotFoundError


async def main():
    nc = await nats.connect(os.environ["NATS_URL"])
    js = nc.jetstream()
    store = await js.create_object_store("models")
    data = os.urandom(1_000_000)
    info = await store.put("gpt-classifier-v2.3", data)
    assert (info.size, info.chunks) == (1_000_000, 8), info
    assert info.digest == "SHA-256=" + base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode(), info.digest
    assert (await store.get("gpt-classifier-v2.3")).data == data
    await store.put("small", b"hello")
    assert sorted(i.name for i in await store.list()) == ["gpt-classifier-v2.3", "small"]
    await store.delete("small")
    try:
        await store.get("small")
    except ObjectNotFoundError:
        pass
    else:
        raise AssertionError("a deleted object was found")
    assert (await store.status()).bucket == "models"
    await nc.drain()


asyncio.run(main())
