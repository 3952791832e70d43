// The ORDERS stream with limits, publishing with acknowledgement and deduplication, and a durable pull consumer.
import assert from "node:assert/strict";
import { connect } from "@nats-io/transport-node";
import { AckPolicy, DeliverPolicy, jetstream, jetstreamManager } from "@nats-io/jetstream";

const nc = await connect({ servers: process.env.NATS_URL });
const jsm = await jetstreamManager(nc);
const config = {
  name: "ORDERS",
  subjects: ["orders.*"],
  retention: "limits",
  max_msgs: 1_000_000,
  max_bytes: 1024 * 1024 * 1024, // 1GB
  max_age: 7 * 24 * 60 * 60 * 1_000_000_000, // 7 days in nanoseconds
};
const made = await jsm.streams.add(config);
for (const [k, v] of Object.entries(config)) assert.deepEqual(made.config[k], v, k);

const js = jetstream(nc);
const order = { orderId: "ORD-12345", customerId: "CUST-789", items: [{ sku: "WIDGET-01", quantity: 2 }], total: 49.99 };
const ack = await js.publish("orders.created", JSON.stringify(order));
assert.equal(ack.stream, "ORDERS");
assert.equal(ack.seq, 1);
assert.ok(!ack.duplicate);
const first = await js.publish("orders.created", JSON.stringify({ orderId: "ORD-12346" }), { msgID: "ORD-12346" });
const again = await js.publish("orders.created", JSON.stringify({ orderId: "ORD-12346" }), { msgID: "ORD-12346" });
assert.deepEqual([first.seq, first.duplicate ?? false, again.seq, again.duplicate], [2, false, 2, true]);
await js.publish("orders.shipped", "not for this consumer");

await jsm.consumers.add("ORDERS", {
  durable_name: "order-processor",
  ack_policy: AckPolicy.Explicit,
  deliver_policy: DeliverPolicy.All, // Start from beginning
  filter_subject: "orders.created",
  max_ack_pending: 100,
});
const consumer = await js.consumers.get("ORDERS", "order-processor");
const messages = await consumer.consume();
const processed = [];
for await (const msg of messages) {
  processed.push(JSON.parse(msg.string()).orderId);
  msg.ack();
  if (processed.length === 2) break;
}
assert.deepEqual(processed, ["ORD-12345", "ORD-12346"]);
await nc.flush();

const info = await jsm.streams.info("ORDERS");
assert.deepEqual([info.state.messages, info.state.first_seq, info.state.last_seq], [3, 1, 3]);
// The acknowledgements are on their way; the consumer's figures follow.
for (const end = Date.now() + 5000; ;) {
  const c = await jsm.consumers.info("ORDERS", "order-processor");
  if (c.num_ack_pending === 0) {
    assert.deepEqual([c.num_pending, c.ack_floor.stream_seq, c.ack_floor.consumer_seq], [0, 2, 2]);
    break;
  }
  assert.ok(Date.now() < end, JSON.stringify(c));
}
await nc.drain();
// Timers of the ended pull would keep the process for its 30 seconds.
process.exit(0);
