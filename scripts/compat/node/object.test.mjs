// Object stores as @nats-io/obj sees them.
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { test } from "node:test";
import { jetstreamManager } from "@nats-io/jetstream";
import { Objm } from "@nats-io/obj";
import { connect } from "@nats-io/transport-node";
import { withServer } from "./server.mjs";

function withStore(body) {
  return withServer("", async (s, keep) => {
    const nc = keep(await connect({ servers: s.url }));
    await body(await new Objm(nc).create("models"), nc);
  }, { js: true });
}

test("put, get, list, with a digest", withStore(async (store) => {
  const data = new Uint8Array(randomBytes(700_001));
  const info = await store.putBlob({ name: "classifier", description: "the first" }, data);
  assert.deepEqual([info.size, info.chunks], [700_001, 6]);
  const digest = createHash("sha256").update(data).digest("base64url");
  assert.equal(info.digest.replace(/=*$/, ""), `SHA-256=${digest}`);
  assert.deepEqual(await store.getBlob("classifier"), data);
  await store.putBlob({ name: "small" }, new TextEncoder().encode("hello"));
  assert.deepEqual((await store.list()).map((i) => i.name).toSorted(), ["classifier", "small"]);
  assert.equal(await store.getBlob("absent"), null);
}));

test("replace, delete, seal", withStore(async (store, nc) => {
  await store.putBlob({ name: "a" }, new Uint8Array(200_000).fill(1));
  await store.putBlob({ name: "a" }, new Uint8Array(300_000).fill(2));
  assert.deepEqual(await store.getBlob("a"), new Uint8Array(300_000).fill(2));
  // The chunks of what was replaced are gone: three chunks and the description are left.
  assert.equal((await (await jetstreamManager(nc)).streams.info("OBJ_models")).state.messages, 4);
  await store.delete("a");
  assert.equal(await store.getBlob("a"), null);
  await store.putBlob({ name: "b" }, new TextEncoder().encode("kept"));
  assert.equal((await store.seal()).sealed, true);
  await assert.rejects(store.putBlob({ name: "c" }, new Uint8Array(1)));
}));
