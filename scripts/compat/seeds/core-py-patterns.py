"""Publish and subscribe, a queue group of workers, and request and reply, with nats-py."""
import asyncio
import json
import os

import nats


async def main():
    nc = await nats.connect(os.environ["NATS_URL"])
    done = {"a": 0, "b": 0}

    def worker(name):
        async def run(_):
            done[name] += 1
        return run

    for name in done:
        await nc.subscribe("sensor.>", queue="workers", cb=worker(name))
    audit = await nc.subscribe("sensor.*.temperature")
    for i in range(200):
        await nc.publish("sensor.us-east.temperature", str(i).encode())
    await nc.publish("sensor.eu-west.pressure", b"1")
    await nc.flush()
    got = [int((await audit.next_msg(timeout=5)).data) for _ in range(200)]
    assert got == list(range(200))

    async def find_user(msg):
        await msg.respond(json.dumps({"userId": json.loads(msg.data)["userId"], "role": "admin"}).encode())

    await nc.subscribe("api.users.get", cb=find_user)
    answer = await nc.request("api.users.get", json.dumps({"userId": "user-123"}).encode(), timeout=5)
    assert json.loads(answer.data) == {"userId": "user-123", "role": "admin"}
    await nc.drain()
    assert sum(done.values()) == 201 and min(done.values()) > 20, done


asyncio.run(main())
