// The core protocol as @nats-io/transport-node sees it.
import assert from "node:assert/strict";
import { test } from "node:test";
import { connect, headers, nkeyAuthenticator, nkeys } from "@nats-io/transport-node";
import { Server, until, withServer } from "./server.mjs";

const KEY = nkeys.createUser();

async function take(sub, n) {
  const out = [];
  for await (const m of sub) {
    out.push(m);
    if (out.length === n) break;
  }
  return out;
}

test("info states a version that clients switch features on by", withServer("", async (s, keep) => {
  const nc = keep(await connect({ servers: s.url }));
  assert.match(nc.info.version, /^2\.(1[4-9]|[2-9]\d)\./);
  assert.equal(nc.info.headers, true);
  assert.equal(nc.info.max_payload, 1024 * 1024);
  assert.equal(nc.info.proto, 1);
  assert.ok(nc.info.server_id.startsWith("N"));
  assert.ok((await nc.rtt()) >= 0);
}));

test("publish and subscribe", withServer("", async (s, keep) => {
  const a = keep(await connect({ servers: s.url }));
  const b = keep(await connect({ servers: s.url }));
  const sub = a.subscribe("hello");
  await a.flush();
  for (let i = 0; i < 1000; i++) b.publish("hello", String(i));
  const got = await take(sub, 1000);
  assert.deepEqual(got.map((m) => m.string()), Array.from({ length: 1000 }, (_, i) => String(i)));
  assert.equal(got[0].subject, "hello");
}));

test("wildcards", withServer("", async (s, keep) => {
  const nc = keep(await connect({ servers: s.url }));
  const seen = { one: [], rest: [], both: [] };
  for (const [k, subject] of [["one", "orders.*"], ["rest", "orders.>"], ["both", "*.eu.>"]]) {
    nc.subscribe(subject, { callback: (_, m) => seen[k].push(m.subject) });
  }
  for (const subject of ["orders", "orders.new", "orders.eu.new", "stock.eu.a.b", "stock.us.a"]) nc.publish(subject);
  await nc.flush();
  assert.deepEqual(seen, {
    one: ["orders.new"],
    rest: ["orders.new", "orders.eu.new"],
    both: ["orders.eu.new", "stock.eu.a.b"],
  });
}));

test("a queue group gives each message to one member", withServer("", async (s, keep) => {
  const counts = [0, 0, 0, 0];
  for (let i = 0; i < counts.length; i++) {
    const nc = keep(await connect({ servers: s.url }));
    nc.subscribe("jobs", { queue: "workers", callback: () => counts[i]++ });
    await nc.flush();
  }
  let audit = 0;
  const nc = keep(await connect({ servers: s.url }));
  nc.subscribe("jobs", { callback: () => audit++ });
  const total = 2000;
  for (let i = 0; i < total; i++) nc.publish("jobs");
  await until("all deliveries", () => audit === total && counts.reduce((x, y) => x + y) >= total);
  await nc.flush();
  assert.equal(counts.reduce((x, y) => x + y), total);
  for (const c of counts) assert.ok(c > total / counts.length / 3, `uneven: ${counts}`);
}));

test("request and reply", withServer("", async (s, keep) => {
  const service = keep(await connect({ servers: s.url }));
  service.subscribe("double", { callback: (_, m) => m.respond(String(2 * Number(m.string()))) });
  await service.flush();
  const nc = keep(await connect({ servers: s.url }));
  const answers = await Promise.all(Array.from({ length: 100 }, (_, i) => nc.request("double", String(i))));
  assert.deepEqual(answers.map((m) => Number(m.string())), Array.from({ length: 100 }, (_, i) => 2 * i));
  const own = await nc.request("double", "4", { noMux: true, timeout: 2000 });
  assert.equal(own.string(), "8");
}));

test("many answers to one request", withServer("", async (s, keep) => {
  const nc = keep(await connect({ servers: s.url }));
  for (let i = 0; i < 3; i++) nc.subscribe("who", { callback: (_, m) => m.respond(String(i)) });
  const got = [];
  for await (const m of await nc.requestMany("who", "", { strategy: "count", maxMessages: 3, maxWait: 2000 })) {
    got.push(m.string());
  }
  assert.deepEqual(got.sort(), ["0", "1", "2"]);
}));

test("no responders", withServer("", async (s, keep) => {
  const nc = keep(await connect({ servers: s.url }));
  const start = Date.now();
  await assert.rejects(nc.request("nobody.there", "", { timeout: 5000 }), /no responders/i);
  assert.ok(Date.now() - start < 2000, "answered, not timed out");
}));

test("headers", withServer("", async (s, keep) => {
  const nc = keep(await connect({ servers: s.url }));
  const sub = nc.subscribe("h", { max: 2 });
  const h = headers();
  h.append("Trace", "1");
  h.append("Trace", "2");
  h.set("Content-Type", "text/plain; charset=utf-8");
  nc.publish("h", "body", { headers: h, reply: "answer.here" });
  nc.publish("h", "", { headers: h });
  const [m, empty] = await take(sub, 2);
  assert.deepEqual(m.headers.values("Trace"), ["1", "2"]);
  assert.equal(m.headers.get("Content-Type"), "text/plain; charset=utf-8");
  assert.equal(m.string(), "body");
  assert.equal(m.reply, "answer.here");
  assert.equal(empty.data.length, 0);
}));

test("payloads up to the limit and not beyond", withServer("max_payload: 65536", async (s, keep) => {
  const nc = keep(await connect({ servers: s.url }));
  assert.equal(nc.info.max_payload, 65536);
  const sub = nc.subscribe("big", { max: 1 });
  const data = new Uint8Array(65536).map((_, i) => i * 31);
  nc.publish("big", data);
  const [m] = await take(sub, 1);
  assert.deepEqual(m.data, data);
  assert.throws(() => nc.publish("big", new Uint8Array(65537)), /size|payload/i);
}));

test("unsubscribe after a number of messages", withServer("", async (s, keep) => {
  const nc = keep(await connect({ servers: s.url }));
  const sub = nc.subscribe("n");
  sub.unsubscribe(5);
  for (let i = 0; i < 20; i++) nc.publish("n", String(i));
  const got = [];
  for await (const m of sub) got.push(m.string());
  assert.deepEqual(got, ["0", "1", "2", "3", "4"]);
  await until("the server to forget the subscription", async () => (await s.varz()).subscriptions === (await subscriptionsOfItself(s)));
}));

// What a server counts with no client subscribed differs by product and version; measured on a fresh one of the same.
async function subscriptionsOfItself(s) {
  if (s.base === undefined) {
    const fresh = await Server.start("");
    s.base = (await fresh.varz()).subscriptions;
    await fresh.stop();
  }
  return s.base;
}

test("no echo", withServer("", async (s, keep) => {
  const quiet = keep(await connect({ servers: s.url, noEcho: true }));
  const other = keep(await connect({ servers: s.url }));
  const seen = [];
  quiet.subscribe("e", { callback: (_, m) => seen.push(m.string()) });
  await quiet.flush();
  quiet.publish("e", "own");
  await quiet.flush();
  other.publish("e", "other");
  await until("the other's message", () => seen.length > 0);
  assert.deepEqual(seen, ["other"]);
}));

test("verbose and pedantic", withServer("", async (s, keep) => {
  const nc = keep(await connect({ servers: s.url, verbose: true, pedantic: true }));
  const sub = nc.subscribe("v", { max: 1 });
  nc.publish("v", "x");
  assert.equal((await take(sub, 1))[0].string(), "x");
}));

test("drain delivers what was sent and then closes", withServer("", async (s, keep) => {
  const a = keep(await connect({ servers: s.url }));
  const b = keep(await connect({ servers: s.url }));
  let n = 0;
  a.subscribe("d", { callback: () => n++ });
  await a.flush();
  for (let i = 0; i < 500; i++) b.publish("d");
  await b.flush();
  await a.drain();
  assert.equal(n, 500);
  assert.ok(a.isClosed());
}));

test("reconnect to a server that was killed and came back", withServer("", async (s, keep) => {
  const nc = keep(await connect({ servers: s.url, reconnectTimeWait: 50, maxReconnectAttempts: -1 }));
  const events = [];
  (async () => {
    for await (const e of nc.status()) events.push(e.type);
  })();
  const sub = nc.subscribe("r");
  await nc.flush();
  await s.kill();
  await until("the disconnect", () => events.includes("disconnect"));
  await s.again();
  await until("the reconnect", () => events.includes("reconnect"));
  await nc.flush();
  nc.publish("r", "after");
  assert.equal((await take(sub, 1))[0].string(), "after");
}));

test("lame duck mode tells its clients and lets them go", withServer('lame_duck_duration: "30s"\nlame_duck_grace_period: "1s"', async (s, keep) => {
  const nc = keep(await connect({ servers: s.url, reconnect: false }));
  const events = [];
  (async () => {
    for await (const e of nc.status()) events.push(e.type);
  })();
  await nc.flush();
  s.signal("SIGUSR2");
  await until("the notice", () => events.includes("ldm"));
  await nc.closed();
}));

test("passwords, tokens and nkeys", withServer(`
  authorization {
    users = [
      { user: alice, password: secret }
      { nkey: ${KEY.getPublicKey()} }
    ]
  }`, async (s, keep) => {
  keep(await connect({ servers: s.url, user: "alice", pass: "secret" }));
  keep(await connect({ servers: s.url, authenticator: nkeyAuthenticator(KEY.getSeed()) }));
  for (const o of [{}, { user: "alice", pass: "wrong" }, { user: "bob", pass: "secret" }, { token: "secret" },
    { authenticator: nkeyAuthenticator(nkeys.createUser().getSeed()) }]) {
    await assert.rejects(connect({ servers: s.url, reconnect: false, ...o }), /authorization/i);
  }
  // From users to a single token a reload of nats-server leaves the users valid; so users stay users here.
  await s.reload("authorization { users = [ { user: alice, password: changed } ] }");
  keep(await connect({ servers: s.url, user: "alice", pass: "changed" }));
  for (const o of [{ user: "alice", pass: "secret" }, { authenticator: nkeyAuthenticator(KEY.getSeed()) }]) {
    await assert.rejects(connect({ servers: s.url, reconnect: false, ...o }), /authorization/i);
  }
}));

test("a token", withServer("authorization { token: t0ken }", async (s, keep) => {
  keep(await connect({ servers: s.url, token: "t0ken" }));
  for (const o of [{}, { token: "wrong" }, { user: "t0ken" }, { user: "a", pass: "t0ken" }]) {
    await assert.rejects(connect({ servers: s.url, reconnect: false, ...o }), /authorization/i);
  }
}));

test("permissions", withServer(`
  authorization {
    users = [
      { user: a, password: a, permissions: {
          publish: { allow: ["ok.>", "_INBOX.>"], deny: "ok.not" }, subscribe: ["ok.>", "_INBOX.>"] } }
      { user: s, password: s, permissions: { publish: { deny: ">" }, subscribe: "ok.service", allow_responses: true } }
      { user: all, password: all }
    ]
  }`, async (s, keep) => {
  const nc = keep(await connect({ servers: s.url, user: "a", pass: "a" }));
  const all = keep(await connect({ servers: s.url, user: "all", pass: "all" }));
  const errors = [];
  (async () => {
    for await (const e of nc.status()) if (e.type === "error") errors.push(e.error.message);
  })();
  const seen = [];
  all.subscribe(">", { callback: (_, m) => seen.push(m.subject) });
  await all.flush();
  for (const subject of ["ok.yes", "ok.not", "no"]) nc.publish(subject);
  await nc.flush();
  await until("two refusals", () => errors.length === 2);
  assert.match(errors[0], /Permissions Violation for Publish to "ok.not"/i);
  assert.match(errors[1], /Permissions Violation for Publish to "no"/i);
  await all.flush();
  assert.deepEqual(seen.filter((x) => !x.startsWith("_INBOX")), ["ok.yes"]);

  const refused = nc.subscribe("secret");
  await assert.rejects((async () => {
    for await (const _ of refused);
  })(), /Permissions Violation for Subscription to "secret"/i);

  const service = keep(await connect({ servers: s.url, user: "s", pass: "s" }));
  service.subscribe("ok.service", { callback: (_, m) => m.respond("done") });
  await service.flush();
  assert.equal((await nc.request("ok.service", "")).string(), "done");
}));

test("accounts are apart, but for what they export", withServer(`
  accounts {
    A { users: [{ user: a, password: a }], exports: [{ stream: "pub.>" }, { service: "ask" }] }
    B { users: [{ user: b, password: b }], imports: [{ stream: { account: A, subject: "pub.>" }, prefix: "from.a" },
                                                     { service: { account: A, subject: "ask" }, to: "ask.a" }] }
  }`, async (s, keep) => {
  const a = keep(await connect({ servers: s.url, user: "a", pass: "a" }));
  const b = keep(await connect({ servers: s.url, user: "b", pass: "b" }));
  const seen = [];
  b.subscribe(">", { callback: (_, m) => seen.push(m.subject) });
  b.subscribe("from.a.pub.>", { callback: (_, m) => seen.push("imported " + m.subject) });
  a.subscribe("ask", { callback: (_, m) => m.respond("answer of a") });
  await b.flush();
  await a.flush();
  a.publish("private");
  a.publish("pub.x");
  await a.flush();
  await until("the import", () => seen.includes("imported from.a.pub.x"));
  assert.ok(!seen.includes("private"));
  assert.equal((await b.request("ask.a", "")).string(), "answer of a");
}));

test("a slow start: many connections and subscriptions at once", withServer("", async (s, keep) => {
  const ncs = await Promise.all(Array.from({ length: 50 }, () => connect({ servers: s.url })));
  ncs.forEach(keep);
  let n = 0;
  for (const [i, nc] of ncs.entries()) {
    for (let k = 0; k < 20; k++) nc.subscribe(`m.${i}.${k}`, { callback: () => n++ });
  }
  await Promise.all(ncs.map((nc) => nc.flush()));
  for (let i = 0; i < 50; i++) for (let k = 0; k < 20; k++) ncs[(i + 7) % 50].publish(`m.${i}.${k}`);
  await until("1000 deliveries", () => n === 1000);
}));

test("SIGTERM ends it with status 0", async () => {
  const s = await Server.start("");
  const nc = await connect({ servers: s.url, reconnect: false });
  assert.equal(await s.stop(), 0);
  await nc.closed();
});
