// The monitoring endpoints that the articles tell operators to look at.
import assert from "node:assert/strict";
import { connect } from "@nats-io/transport-node";

const nc = await connect({ servers: process.env.NATS_URL, name: "watched" });
const get = async (path) => {
  const r = await fetch(process.env.NATS_MONITOR + path);
  assert.equal(r.status, 200, path);
  return r.json();
};
assert.deepEqual(await get("/healthz"), { status: "ok" });
const varz = await get("/varz");
assert.equal(varz.connections, 1);
assert.equal(varz.version, nc.info.version);
const connz = await get("/connz");
assert.equal(connz.num_connections, 1);
assert.equal(connz.connections[0].name, "watched");
assert.equal((await get("/routez")).num_routes, 0);
assert.ok("num_subscriptions" in (await get("/subsz")));
assert.equal(typeof (await get("/jsz")).server_id, "string");
await nc.drain();
