// Sessions in a key-value bucket: put, get, history, an update with the wrong revision, a watch. The article's keys have
// a colon, which clients refuse; a dot stands for it here.
import assert from "node:assert/strict";
import { connect } from "@nats-io/transport-node";
import { Kvm } from "@nats-io/kv";

const nc = await connect({ servers: process.env.NATS_URL });
const kvm = new Kvm(nc);
const kv = await kvm.create("sessions", {
  history: 5, // Keep last 5 values per key
  ttl: 3_600_000, // 1 hour, in this client's milliseconds
});
const key = "session.user-123";
await kv.put(key, JSON.stringify({ userId: "user-123", role: "admin" }));
const entry = await kv.get(key);
assert.equal(JSON.parse(entry.string()).role, "admin");
assert.equal(entry.revision, 1);

assert.equal(await kv.update(key, "newer", entry.revision), 2);
await assert.rejects(kv.update(key, "conflict", entry.revision), /wrong last sequence/i);
await assert.rejects(kv.create(key, "exists"), /wrong last sequence/i);
for (let i = 0; i < 6; i++) await kv.put(key, `v${i}`);
const history = [];
for await (const e of await kv.history({ key })) history.push([e.revision, e.string()]);
assert.deepEqual(history, [[4, "v1"], [5, "v2"], [6, "v3"], [7, "v4"], [8, "v5"]]);

const seen = [];
const watch = await kv.watch();
const watching = (async () => {
  for await (const update of watch) {
    seen.push([update.key, update.operation]);
    if (seen.length === 4) break;
  }
})();
await kv.put("session.user-456", "x");
await kv.delete("session.user-456");
await kv.purge(key);
await watching;
assert.deepEqual(seen, [[key, "PUT"], ["session.user-456", "PUT"], ["session.user-456", "DEL"], [key, "PURGE"]]);
assert.equal((await kv.get(key)).operation, "PURGE");
const status = await kv.status();
assert.deepEqual([status.bucket, status.history, status.ttl], ["sessions", 5, 3_600_000]);
await nc.drain();
