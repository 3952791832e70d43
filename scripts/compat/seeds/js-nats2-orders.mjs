// The same with the older client: push and pull consumers of one stream, and a work queue with competing workers.
import assert from "node:assert/strict";
import { AckPolicy, connect, DeliverPolicy, JSONCodec, RetentionPolicy, StorageType } from "nats";

const nc = await connect({ servers: process.env.NATS_URL });
const js = nc.jetstream();
const jsm = await nc.jetstreamManager();
const jc = JSONCodec();
await jsm.streams.add({
  name: "ORDERS",
  subjects: ["orders.>"],
  retention: RetentionPolicy.Limits,
  storage: StorageType.File,
  max_age: 7 * 24 * 60 * 60 * 1e9, // 7 days in nanoseconds
  max_msgs: -1, // unlimited
  num_replicas: 1,
  duplicate_window: 2 * 60 * 1e9, // 2-minute deduplication window
});
await js.publish("orders.created", jc.encode({ id: "ord-122" }), { msgID: "ord-122" });

// Push consumer: new messages only.
const pushed = [];
const delivered = nc.subscribe("_INBOX.payments");
(async () => {
  for await (const m of delivered) {
    pushed.push(jc.decode(m.data).id);
    m.respond("+ACK");
  }
})();
await jsm.consumers.add("ORDERS", {
  durable_name: "payment-service",
  deliver_subject: "_INBOX.payments",
  deliver_policy: DeliverPolicy.New,
  ack_policy: AckPolicy.Explicit,
  max_deliver: 5,
  ack_wait: 30 * 1e9,
  filter_subject: "orders.created",
});
await js.publish("orders.created", jc.encode({ id: "ord-123", customerId: "cust-456" }), { msgID: "ord-123" });
const twice = await js.publish("orders.created", jc.encode({ id: "ord-123", customerId: "cust-456" }), { msgID: "ord-123" });
assert.equal(twice.duplicate, true);
await js.publish("orders.payment.failed", jc.encode({ id: "ord-123" }));

// Pull consumer: a batch.
await jsm.consumers.add("ORDERS", { durable_name: "analytics", ack_policy: AckPolicy.Explicit, filter_subject: "orders.>" });
const seen = [];
for await (const msg of js.fetch("ORDERS", "analytics", { batch: 100, expires: 1000 })) {
  seen.push([msg.seq, msg.subject, jc.decode(msg.data).id]);
  msg.ack();
}
assert.deepEqual(seen, [[1, "orders.created", "ord-122"], [2, "orders.created", "ord-123"], [3, "orders.payment.failed", "ord-123"]]);
assert.deepEqual(pushed, ["ord-123"]);

// Work queue: each message goes to one worker, and is gone once acknowledged.
await jsm.streams.add({
  name: "EMAIL_JOBS",
  subjects: ["jobs.email.>"],
  retention: RetentionPolicy.Workqueue, // delete on ack; the article spells it WorkQueue, which this client does not know
  storage: StorageType.File,
  num_replicas: 1,
});
await jsm.consumers.add("EMAIL_JOBS", { durable_name: "email-workers", ack_policy: AckPolicy.Explicit, max_ack_pending: 50 });
const total = 200;
for (let i = 0; i < total; i++) await js.publish(`jobs.email.${i % 3}`, jc.encode({ n: i }));
const sent = [];
const shares = [];
await Promise.all([0, 1, 2].map(async (w) => {
  shares[w] = 0;
  const worker = await connect({ servers: process.env.NATS_URL });
  const consumer = await worker.jetstream().consumers.get("EMAIL_JOBS", "email-workers");
  const iter = await consumer.consume({ max_messages: 10 });
  const stop = setInterval(() => sent.length >= total && iter.stop(), 20);
  for await (const msg of iter) {
    sent.push(jc.decode(msg.data).n);
    shares[w]++;
    await msg.ackAck();
  }
  clearInterval(stop);
  await worker.drain();
}));
assert.deepEqual(sent.toSorted((a, b) => a - b), Array.from({ length: total }, (_, i) => i));
assert.ok(Math.min(...shares) > 0, `a worker had nothing: ${shares}`);
assert.equal((await jsm.streams.info("EMAIL_JOBS")).state.messages, 0);
await nc.drain();
// Timers of the ended pulls would keep the process for their 30 seconds.
process.exit(0);
