// Key-value buckets as @nats-io/kv sees them.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Kvm } from "@nats-io/kv";
import { connect } from "@nats-io/transport-node";
import { until, withServer } from "./server.mjs";

function withBucket(options, body) {
  return withServer("", async (s, keep) => {
    const kvm = new Kvm(keep(await connect({ servers: s.url })));
    await body(await kvm.create("config", options), kvm);
  }, { js: true });
}

test("put, get, update with a revision", withBucket({ history: 5 }, async (kv) => {
  assert.equal(await kv.put("log.level", "info"), 1);
  const entry = await kv.get("log.level");
  assert.deepEqual([entry.string(), entry.revision, entry.operation], ["info", 1, "PUT"]);
  assert.equal(await kv.update("log.level", "debug", 1), 2);
  await assert.rejects(kv.update("log.level", "warn", 1), /wrong last sequence/i);
  await assert.rejects(kv.create("log.level", "x"), /wrong last sequence/i);
  assert.equal(await kv.create("other", "x"), 3);
  assert.equal((await kv.get("log.level", { revision: 1 })).string(), "info");
  assert.equal(await kv.get("absent"), null);
}));

test("history, delete, purge, keys", withBucket({ history: 3 }, async (kv) => {
  for (let i = 0; i < 5; i++) await kv.put("k", `${i}`);
  await kv.put("other", "y");
  const history = [];
  for await (const e of await kv.history({ key: "k" })) history.push([e.revision, e.string()]);
  assert.deepEqual(history, [[3, "2"], [4, "3"], [5, "4"]]);
  await kv.delete("k");
  const keys = [];
  for await (const k of await kv.keys()) keys.push(k);
  assert.deepEqual(keys, ["other"]);
  assert.equal(await kv.create("k", "again"), 8);
  await kv.purge("k");
  assert.equal((await kv.get("k")).operation, "PURGE");
  const status = await kv.status();
  assert.deepEqual([status.bucket, status.history, status.values], ["config", 3, 2]);
}));

test("a watch sees what is there and what comes", withBucket({}, async (kv) => {
  await kv.put("a", "1");
  const seen = [];
  const watch = await kv.watch();
  const watching = (async () => {
    for await (const e of watch) {
      seen.push([e.key, e.operation]);
      if (seen.length === 3) break;
    }
  })();
  await until("the first", () => seen.length === 1);
  await kv.put("b", "1");
  await kv.delete("a");
  await watching;
  assert.deepEqual(seen, [["a", "PUT"], ["b", "PUT"], ["a", "DEL"]]);
}));

test("keys end with their time to live", withBucket({ ttl: 1000 }, async (kv) => {
  await kv.put("short", "x");
  assert.equal((await kv.get("short")).string(), "x");
  await until("its end", async () => (await kv.get("short")) === null);
}));

test("buckets are listed and destroyed", withBucket({}, async (kv, kvm) => {
  await kvm.create("more");
  const names = async () => {
    const out = [];
    for await (const s of kvm.list()) out.push(s.bucket);
    return out.toSorted();
  };
  assert.deepEqual(await names(), ["config", "more"]);
  assert.equal(await kv.destroy(), true);
  assert.deepEqual(await names(), ["more"]);
}));
