// A service looks users up; a client asks it. Three instances in a queue group share the work, as the article promises
// for inference workers.
import assert from "node:assert/strict";
import { connect } from "@nats-io/transport-node";

const db = { findUser: async (userId) => ({ userId, name: `name of ${userId}` }) };
const services = [];
const handled = [0, 0, 0];
for (let i = 0; i < handled.length; i++) {
  const service = await connect({ servers: process.env.NATS_URL });
  services.push(service);
  const sub = service.subscribe("api.users.get", { queue: "users" });
  (async () => {
    for await (const msg of sub) {
      handled[i]++;
      const request = JSON.parse(msg.string());
      const user = await db.findUser(request.userId);
      msg.respond(JSON.stringify(user));
    }
  })();
  await service.flush();
}

const nc = await connect({ servers: process.env.NATS_URL });
for (let i = 0; i < 300; i++) {
  const response = await nc.request("api.users.get", JSON.stringify({ userId: `user-${i}` }), { timeout: 5000 });
  assert.equal(JSON.parse(response.string()).name, `name of user-${i}`);
}
assert.equal(handled.reduce((a, b) => a + b), 300);
assert.ok(Math.min(...handled) > 50, `uneven: ${handled}`);
await assert.rejects(nc.request("api.orders.get", "", { timeout: 5000 }), /no responders/i);
for (const c of [nc, ...services]) await c.drain();
