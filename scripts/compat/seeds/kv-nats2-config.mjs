// Feature flags in a bucket that is watched, with the older client.
import assert from "node:assert/strict";
import { connect, JSONCodec } from "nats";

const nc = await connect({ servers: process.env.NATS_URL });
const jc = JSONCodec();
const kv = await nc.jetstream().views.kv("config", { ttl: 3_600_000, replicas: 1 });
await kv.put("feature-flags", jc.encode({ darkMode: true, newCheckout: false }));
const entry = await kv.get("feature-flags");
assert.deepEqual(jc.decode(entry.value), { darkMode: true, newCheckout: false });

const watcher = await kv.watch({ key: "feature-flags" });
await kv.put("other", "unseen");
await kv.put("feature-flags", jc.encode({ darkMode: true, newCheckout: true }));
const seen = [];
for await (const e of watcher) {
  seen.push(jc.decode(e.value).newCheckout);
  if (seen.length === 2) break;
}
assert.deepEqual(seen, [false, true]);
await nc.drain();
