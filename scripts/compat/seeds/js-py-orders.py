"""The article's Go example with nats-py: the ORDERS stream, a publish with an id, a pull consumer, redelivery."""
import asyncio
import json
import os

import nats
from nats.js.api import AckPolicy, ConsumerConfig, RetentionPolicy, StorageType, StreamConfig


async def main():
    nc = await nats.connect(os.environ["NATS_URL"])
    js = nc.jetstream()
    await js.add_stream(StreamConfig(
        name="ORDERS", subjects=["orders.>"], storage=StorageType.FILE, retention=RetentionPolicy.LIMITS,
        max_age=7 * 24 * 3600, max_bytes=5 * 1024**3, duplicate_window=120,
    ))
    order = json.dumps({"id": "ord-002", "amount": 129.99}).encode()
    ack = await js.publish("orders.created", order, headers={"Nats-Msg-Id": "ord-002-created"})
    assert (ack.stream, ack.seq, ack.duplicate) == ("ORDERS", 1, None), ack
    ack = await js.publish("orders.created", order, headers={"Nats-Msg-Id": "ord-002-created"})
    assert (ack.seq, ack.duplicate) == (1, True), ack
    await js.publish("orders.shipped", b'{"id": "ord-001", "carrier": "DHL"}')

    config = ConsumerConfig(filter_subject="orders.>", ack_policy=AckPolicy.EXPLICIT, ack_wait=30, max_deliver=5)
    consumer = await js.pull_subscribe("orders.>", durable="order-processor", stream="ORDERS", config=config)
    first, second = await consumer.fetch(10, timeout=2)
    assert json.loads(first.data)["id"] == "ord-002" and first.metadata.sequence.stream == 1
    await first.nak()
    await second.ack_sync()
    (again,) = await consumer.fetch(10, timeout=2)
    assert (again.metadata.sequence.stream, again.metadata.num_delivered) == (1, 2)
    await again.ack_sync()
    try:
        await consumer.fetch(1, timeout=0.5)
    except nats.errors.TimeoutError:
        pass
    else:
        raise AssertionError("an empty fetch ends with a timeout")
    info = await consumer.consumer_info()
    assert (info.num_pending, info.num_ack_pending, info.ack_floor.stream_seq) == (0, 0, 2), info

    await consumer.unsubscribe()

    # Two streams cannot take the same subject.
    try:
        await js.add_stream(name="OTHER", subjects=["orders.created"])
    except nats.js.errors.BadRequestError as e:
        assert e.err_code == 10065, e
    else:
        raise AssertionError("overlapping subjects were accepted")
    await js.purge_stream("ORDERS")
    assert (await js.stream_info("ORDERS")).state.messages == 0
    await js.delete_stream("ORDERS")
    await nc.drain()


asyncio.run(main())
