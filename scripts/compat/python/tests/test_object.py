"""Object stores as nats-py sees them."""
import base64
import hashlib
import io
import os

from nats.js.api import ObjectMeta
from nats.js.errors import ObjectNotFoundError
from server import ServerTest


class ObjectStore(ServerTest):
    async def start(self):
        nc = await self.connect(self.server("-js"))
        js = nc.jetstream(timeout=10)
        return js, await js.create_object_store("models")

    async def test_put_get_list_with_digest(self):
        _, store = await self.start()
        data = os.urandom(700_001)
        info = await store.put("classifier", data, meta=ObjectMeta(description="the first"))
        self.assertEqual((info.size, info.chunks), (700_001, 6))
        self.assertEqual(info.digest, "SHA-256=" + base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode())
        got = await store.get("classifier")
        self.assertEqual((got.data, got.info.description), (data, "the first"))
        await store.put("small", b"hello")
        self.assertEqual(sorted(i.name for i in await store.list()), ["classifier", "small"])
        out = io.BytesIO()
        await store.get("classifier", writeinto=out)
        self.assertEqual(out.getvalue(), data)

    async def test_replace_delete_and_seal(self):
        js, store = await self.start()
        await store.put("a", b"1" * 200_000)
        await store.put("a", b"2" * 300_000)
        self.assertEqual((await store.get("a")).data, b"2" * 300_000)
        # The chunks of what was replaced are gone: three chunks and the description are left.
        self.assertEqual((await js.stream_info("OBJ_models")).state.messages, 4)
        await store.delete("a")
        with self.assertRaises(ObjectNotFoundError):
            await store.get("a")
        await store.put("b", b"kept")
        await store.seal()
        self.assertTrue((await store.status()).sealed)
        self.assertEqual((await store.get("b")).data, b"kept")
