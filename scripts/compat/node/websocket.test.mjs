// The same server through its WebSocket listener, with @nats-io/nats-core's wsconnect.
import assert from "node:assert/strict";
import { test } from "node:test";
import { headers, wsconnect } from "@nats-io/nats-core";
import { connect } from "@nats-io/transport-node";
import WebSocket from "ws";
import { until, withServer } from "./server.mjs";

// Node 20 has no WebSocket of its own; wsconnect uses whatever is global. This one offers permessage-deflate.
globalThis.WebSocket = WebSocket;
const ws = { ws: true };

test("publish and subscribe over WebSocket and TCP", withServer("", async (s, keep) => {
  const w = keep(await wsconnect({ servers: s.wsUrl }));
  const t = keep(await connect({ servers: s.url }));
  const seen = [];
  w.subscribe("both.>", { callback: (_, m) => seen.push("ws " + m.string()) });
  t.subscribe("both.>", { callback: (_, m) => seen.push("tcp " + m.string()) });
  await w.flush();
  await t.flush();
  w.publish("both.a", "1");
  await until("two deliveries", () => seen.length === 2);
  t.publish("both.b", "2");
  await until("four deliveries", () => seen.length === 4);
  assert.deepEqual(seen.slice().sort(), ["tcp 1", "tcp 2", "ws 1", "ws 2"]);
}, ws));

test("requests, headers and no responders over WebSocket", withServer("", async (s, keep) => {
  const nc = keep(await wsconnect({ servers: s.wsUrl }));
  nc.subscribe("echo", { callback: (_, m) => m.respond(m.data, { headers: m.headers }) });
  const h = headers();
  h.set("K", "v");
  const m = await nc.request("echo", "x", { headers: h, timeout: 2000 });
  assert.equal(m.string(), "x");
  assert.equal(m.headers.get("K"), "v");
  await assert.rejects(nc.request("nobody", "", { timeout: 5000 }), /no responders/i);
}, ws));

test("large messages over a compressed WebSocket", withServer("", async (s, keep) => {
  const nc = keep(await wsconnect({ servers: s.wsUrl }));
  const data = new Uint8Array(900_000).map((_, i) => (i * 2654435761) >>> 13);
  const got = [];
  nc.subscribe("big", { callback: (_, m) => got.push(m.data) });
  // One at a time: what a client sends at once is one WebSocket message, which must not inflate beyond max_payload.
  for (let i = 0; i < 5; i++) {
    nc.publish("big", data);
    await nc.flush();
  }
  nc.publish("big", "a".repeat(500_000));
  await until("six messages", () => got.length === 6);
  assert.deepEqual(got[4], data);
  assert.equal(got[5].length, 500_000);
}, ws));

test("reconnect over WebSocket", withServer("", async (s, keep) => {
  const nc = keep(await wsconnect({ servers: s.wsUrl, reconnectTimeWait: 50, maxReconnectAttempts: -1 }));
  const events = [];
  (async () => {
    for await (const e of nc.status()) events.push(e.type);
  })();
  let seen = 0;
  nc.subscribe("r", { callback: () => seen++ });
  await nc.flush();
  await s.kill();
  await until("the disconnect", () => events.includes("disconnect"));
  await s.again();
  await until("the reconnect", () => events.includes("reconnect"));
  nc.publish("r");
  await until("a message", () => seen === 1);
}, ws));

test("authorization over WebSocket", withServer("authorization { user: u, password: p }", async (s, keep) => {
  keep(await wsconnect({ servers: s.wsUrl, user: "u", pass: "p" }));
  await assert.rejects(wsconnect({ servers: s.wsUrl, user: "u", pass: "x", reconnect: false }), /authorization/i);
}, ws));
