// User sign-ups are published; whoever subscribes with a wildcard sees them.
import assert from "node:assert/strict";
import { connect } from "@nats-io/transport-node";

const nc = await connect({ servers: process.env.NATS_URL });
const sub = nc.subscribe("events.user.*");
await nc.flush();
const sent = { userId: "user-123", email: "dev@example.com", timestamp: Date.now() };
await nc.publish("events.user.signup", JSON.stringify(sent));
await nc.publish("events.order.created", "not for this subscriber");
await nc.publish("events.user.login", "second");

const got = [];
for await (const msg of sub) {
  got.push([msg.subject, msg.string()]);
  if (got.length === 2) break;
}
assert.deepEqual(got, [["events.user.signup", JSON.stringify(sent)], ["events.user.login", "second"]]);
await nc.drain();
