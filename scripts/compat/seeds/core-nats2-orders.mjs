// Orders by publish and subscribe, wildcards of both kinds, and a lookup service, with the older JavaScript client.
import assert from "node:assert/strict";
import { connect, JSONCodec, StringCodec } from "nats";

const nc = await connect({ servers: process.env.NATS_URL });
const sc = StringCodec();
const jc = JSONCodec();
const orders = [], star = [], all = [];
(async () => {
  for await (const msg of nc.subscribe("orders.created")) orders.push(JSON.parse(sc.decode(msg.data)).id);
})();
nc.subscribe("orders.*", { callback: (_, msg) => star.push(msg.subject) });
nc.subscribe("orders.>", { callback: (_, msg) => all.push(msg.subject) });

nc.publish("orders.created", sc.encode(JSON.stringify({ id: "ord-123", customerId: "cust-456", total: 99.99 })));
nc.publish("orders.cancelled");
nc.publish("orders.payment.failed");
await nc.flush();
for (const end = Date.now() + 5000; orders.length < 1; ) {
  assert.ok(Date.now() < end, "no order came");
  await new Promise((resolve) => setTimeout(resolve, 10));
}
assert.deepEqual(orders, ["ord-123"]);
assert.deepEqual(star, ["orders.created", "orders.cancelled"]);
assert.deepEqual(all, ["orders.created", "orders.cancelled", "orders.payment.failed"]);

const db = { findUser: async (id) => ({ id, plan: "pro" }) };
nc.subscribe("user.lookup", {
  callback: async (err, msg) => {
    const { userId } = jc.decode(msg.data);
    msg.respond(jc.encode(await db.findUser(userId)));
  },
});
const response = await nc.request("user.lookup", jc.encode({ userId: "123" }), { timeout: 5000 });
assert.deepEqual(jc.decode(response.data), { id: "123", plan: "pro" });
await nc.drain();
