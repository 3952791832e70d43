// Streams and consumers as @nats-io/jetstream sees them.
import assert from "node:assert/strict";
import { test } from "node:test";
import { AckPolicy, DeliverPolicy, jetstream, jetstreamManager, JetStreamApiError } from "@nats-io/jetstream";
import { connect, headers, nanos } from "@nats-io/transport-node";
import { until, withServer } from "./server.mjs";

/** A test with a server that has JetStream in its own folder. */
function withJetStream(body, more = "") {
  return async () => {
    await withServer(more, async (s, keep) => {
      const nc = keep(await connect({ servers: s.url }));
      await body({ s, keep, nc, js: jetstream(nc), jsm: await jetstreamManager(nc) });
    }, { js: true })();
  };
}

async function take(iter, n, each = () => {}) {
  const out = [];
  for await (const m of iter) {
    out.push(m);
    await each(m);
    if (out.length === n) break;
  }
  return out;
}

const code = (n) => (e) => e instanceof JetStreamApiError && e.code === n;

test("a stream with limits", withJetStream(async ({ js, jsm }) => {
  const made = await jsm.streams.add({ name: "ORDERS", subjects: ["orders.*"], max_msgs: 5, max_age: nanos(3_600_000) });
  assert.deepEqual([made.config.max_msgs, made.config.retention, made.config.storage], [5, "limits", "file"]);
  for (let i = 1; i <= 8; i++) assert.equal((await js.publish("orders.created", `${i}`)).seq, i);
  const { state } = await jsm.streams.info("ORDERS");
  assert.deepEqual([state.messages, state.first_seq, state.last_seq], [5, 4, 8]);
  assert.equal((await jsm.streams.getMessage("ORDERS", { seq: 4 })).string(), "4");
  assert.equal(await jsm.streams.getMessage("ORDERS", { seq: 3 }), null);
}));

test("duplicates and expectations", withJetStream(async ({ js, jsm }) => {
  await jsm.streams.add({ name: "ORDERS", subjects: ["orders"] });
  const first = await js.publish("orders", "a", { msgID: "1" });
  const again = await js.publish("orders", "a", { msgID: "1" });
  assert.deepEqual([first.seq, first.duplicate, again.seq, again.duplicate], [1, false, 1, true]);
  await assert.rejects(js.publish("orders", "x", { expect: { lastSequence: 7 } }), code(10071));
  await assert.rejects(js.publish("orders", "x", { expect: { lastMsgID: "2" } }), code(10070));
  await assert.rejects(js.publish("orders", "x", { expect: { streamName: "OTHER" } }), code(10060));
  assert.equal((await js.publish("orders", "b", { expect: { lastSequence: 1, lastMsgID: "1", streamName: "ORDERS" } })).seq, 2);
}));

test("a durable pull consumer goes on where it ended", withJetStream(async ({ s, keep, js, jsm }) => {
  await jsm.streams.add({ name: "ORDERS", subjects: ["orders.>"] });
  for (let i = 0; i < 20; i++) await js.publish(i % 2 ? "orders.shipped" : "orders.created", `${i}`);
  await jsm.consumers.add("ORDERS", { durable_name: "proc", ack_policy: AckPolicy.Explicit, filter_subject: "orders.created" });
  const consumer = await js.consumers.get("ORDERS", "proc");
  const first = await take(await consumer.fetch({ max_messages: 4, expires: 2000 }), 4, (m) => m.ackAck());
  assert.deepEqual(first.map((m) => [m.string(), m.info.pending]), [["0", 9], ["2", 8], ["4", 7], ["6", 6]]);
  const other = jetstream(keep(await connect({ servers: s.url })));
  const rest = await take(await (await other.consumers.get("ORDERS", "proc")).consume({ max_messages: 10 }), 6, (m) => m.ack());
  assert.deepEqual(rest.map((m) => m.string()), ["8", "10", "12", "14", "16", "18"]);
  await until("the acknowledgements", async () => (await jsm.consumers.info("ORDERS", "proc")).num_ack_pending === 0);
  const info = await jsm.consumers.info("ORDERS", "proc");
  assert.deepEqual([info.ack_floor.consumer_seq, info.num_pending], [10, 0]);
}));

test("redelivery", withJetStream(async ({ js, jsm }) => {
  await jsm.streams.add({ name: "JOBS", subjects: ["jobs"] });
  await js.publish("jobs", "x");
  await jsm.consumers.add("JOBS", { durable_name: "w", ack_policy: AckPolicy.Explicit, ack_wait: nanos(300), max_deliver: 4 });
  const c = await js.consumers.get("JOBS", "w");
  (await c.next()).nak();
  const second = await c.next();
  assert.equal(second.info.deliveryCount, 2);
  second.nak(400);
  const third = await c.next();
  assert.equal(third.info.deliveryCount, 3);
  // Not acknowledged at all: ack_wait brings it back, once more.
  assert.equal((await c.next()).info.deliveryCount, 4);
  assert.equal(await c.next({ expires: 1000 }), null);
}));

test("a work queue with several workers", withJetStream(async ({ s, keep, js, jsm }) => {
  await jsm.streams.add({ name: "JOBS", subjects: ["jobs.>"], retention: "workqueue" });
  await jsm.consumers.add("JOBS", { durable_name: "workers", ack_policy: AckPolicy.Explicit, max_ack_pending: 50 });
  await assert.rejects(jsm.consumers.add("JOBS", { durable_name: "second", ack_policy: AckPolicy.Explicit }), code(10099));
  const total = 150;
  for (let i = 0; i < total; i++) await js.publish(`jobs.${i % 3}`, `${i}`);
  const done = [];
  await Promise.all([0, 1, 2].map(async () => {
    const c = await jetstream(keep(await connect({ servers: s.url }))).consumers.get("JOBS", "workers");
    while (done.length < total) {
      for await (const m of await c.fetch({ max_messages: 10, expires: 1000 })) {
        assert.ok(await m.ackAck());
        done.push(Number(m.string()));
      }
    }
  }));
  assert.deepEqual(done.toSorted((a, b) => a - b), Array.from({ length: total }, (_, i) => i));
  assert.equal((await jsm.streams.info("JOBS")).state.messages, 0);
}));

test("an ordered consumer", withJetStream(async ({ js, jsm }) => {
  await jsm.streams.add({ name: "LOG", subjects: ["log.*"] });
  for (let i = 0; i < 200; i++) await js.publish(`log.${i % 2}`, `${i}`);
  const c = await js.consumers.get("LOG", { filter_subjects: ["log.1"], deliver_policy: DeliverPolicy.StartSequence, opt_start_seq: 101 });
  const got = await take(await c.consume(), 50);
  assert.deepEqual(got.map((m) => Number(m.string())), Array.from({ length: 50 }, (_, i) => 101 + 2 * i));
}));

test("a push consumer", withJetStream(async ({ js, jsm, nc }) => {
  await jsm.streams.add({ name: "E", subjects: ["e.>"] });
  await js.publish("e.old", "old");
  await jsm.consumers.add("E", {
    durable_name: "p", deliver_subject: "to.me", deliver_policy: DeliverPolicy.New, ack_policy: AckPolicy.Explicit, idle_heartbeat: nanos(500),
    flow_control: true,
  });
  const c = await js.consumers.getPushConsumer("E", "p");
  const messages = await c.consume();
  for (let i = 0; i < 30; i++) await js.publish("e.new", `${i}`);
  const got = await take(messages, 30, (m) => m.ack());
  assert.deepEqual(got.map((m) => m.string()), Array.from({ length: 30 }, (_, i) => `${i}`));
}));

test("a killed server has all messages that it acknowledged", withJetStream(async ({ s, keep, nc, js, jsm }) => {
  await jsm.streams.add({ name: "ORDERS", subjects: ["orders"] });
  await jsm.consumers.add("ORDERS", { durable_name: "d", ack_policy: AckPolicy.Explicit });
  for (let i = 0; i < 40; i++) await js.publish("orders", `${i}`);
  for await (const m of await (await js.consumers.get("ORDERS", "d")).fetch({ max_messages: 15, expires: 2000 })) await m.ackAck();
  await nc.close();
  await s.kill();
  await s.again();
  const nc2 = keep(await connect({ servers: s.url }));
  const info = await (await jetstreamManager(nc2)).consumers.info("ORDERS", "d");
  // nats-server may forget the last acknowledgements; nobody may forget a message.
  assert.ok(info.ack_floor.stream_seq <= 15 && info.num_pending >= 25, JSON.stringify(info));
  const rest = await (await jetstream(nc2).consumers.get("ORDERS", "d")).fetch({ max_messages: info.num_pending, expires: 5000 });
  const got = (await take(rest, info.num_pending)).map((m) => Number(m.string()));
  assert.deepEqual(got.slice(-25), Array.from({ length: 25 }, (_, i) => 15 + i));
}));

test("streams are listed, purged, changed, deleted", withJetStream(async ({ js, jsm }) => {
  for (const name of ["A", "B", "C"]) await jsm.streams.add({ name, subjects: [`${name}.>`] });
  assert.deepEqual((await jsm.streams.list().next()).map((i) => i.config.name).toSorted(), ["A", "B", "C"]);
  assert.equal(await jsm.streams.find("B.x"), "B");
  await assert.rejects(jsm.streams.add({ name: "D", subjects: ["A.b"] }), code(10065));
  await assert.rejects(jsm.streams.add({ name: "A", subjects: ["other"] }), code(10058));
  for (let i = 0; i < 6; i++) await js.publish(`A.${i % 2}`, "x");
  assert.equal((await jsm.streams.purge("A", { filter: "A.1" })).purged, 3);
  assert.deepEqual((await jsm.streams.info("A", { subjects_filter: ">" })).state.subjects, { "A.0": 3 });
  assert.equal(await jsm.streams.deleteMessage("A", 3), true);
  const changed = await jsm.streams.update("A", { subjects: ["A.>", "E"], max_msgs: 1 });
  assert.deepEqual([changed.config.subjects, changed.state.messages], [["A.>", "E"], 1]);
  const account = await jsm.getAccountInfo();
  assert.deepEqual([account.streams, account.consumers], [3, 0]);
  assert.equal(await jsm.streams.delete("A"), true);
  await assert.rejects(jsm.streams.info("A"), code(10059));
}));

test("a message with its own time to live", withJetStream(async ({ js, jsm }) => {
  await jsm.streams.add({ name: "T", subjects: ["t"], allow_msg_ttl: true });
  const h = headers();
  h.set("Nats-TTL", "1s");
  await js.publish("t", "short", { headers: h });
  await js.publish("t", "long");
  assert.equal((await jsm.streams.info("T")).state.messages, 2);
  await until("the end of the first", async () => (await jsm.streams.info("T")).state.messages === 1);
  assert.equal((await jsm.streams.info("T")).state.first_seq, 2);
}));
