// A model file in an object store: put, get, list, and the digest in between.
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { connect } from "@nats-io/transport-node";
import { StorageType } from "@nats-io/jetstream";
import { Objm } from "@nats-io/obj";

const nc = await connect({ servers: process.env.NATS_URL });
const objm = new Objm(nc);
const store = await objm.create("models", { storage: StorageType.File, description: "ML model storage" });
const modelData = randomBytes(3_000_000);
const info = await store.putBlob({ name: "gpt-classifier/v2.3", description: "GPT-based text classifier, trained 2024-01" }, modelData);
assert.deepEqual([info.name, info.size, info.chunks], ["gpt-classifier/v2.3", 3_000_000, Math.ceil(3_000_000 / (128 * 1024))]);
assert.equal(info.digest, "SHA-256=" + createHash("sha256").update(modelData).digest("base64url") + "=".repeat((4 - (43 % 4)) % 4));

const result = await store.get("gpt-classifier/v2.3");
const parts = [];
for await (const part of result.data) parts.push(part);
assert.ok(Buffer.concat(parts).equals(modelData));
assert.ok(!(await result.error));

await store.putBlob({ name: "small" }, new TextEncoder().encode("hello"));
const models = await store.list();
assert.deepEqual(models.map((m) => [m.name, m.size]).sort(), [["gpt-classifier/v2.3", 3_000_000], ["small", 5]]);
await store.delete("small");
assert.equal(await store.get("small"), null);
assert.equal((await store.status()).description, "ML model storage");
await nc.drain();
