"""Streams and consumers as nats-py sees them."""
import asyncio
import json

import nats
import nats.errors
from nats.js.api import (
    AckPolicy, ConsumerConfig, DeliverPolicy, DiscardPolicy, RetentionPolicy, StorageType, StreamConfig,
)
from nats.js.errors import APIError, BadRequestError, NotFoundError
from server import ServerTest, until


class JetStream(ServerTest):
    async def start(self, *flags, config=None):
        s = self.server("-js", *flags, config=config)
        nc = await self.connect(s)
        return s, nc, nc.jetstream(timeout=10)

    async def test_orders_with_limits(self):
        _, _, js = await self.start()
        info = await js.add_stream(StreamConfig(
            name="ORDERS", subjects=["orders.*"], retention=RetentionPolicy.LIMITS, storage=StorageType.FILE,
            max_msgs=5, max_bytes=1024**2, max_age=7 * 24 * 3600, duplicate_window=120,
        ))
        self.assertEqual((info.config.max_msgs, info.config.max_age, info.config.num_replicas), (5, 7 * 24 * 3600, 1))
        for i in range(1, 9):
            ack = await js.publish("orders.created", json.dumps({"id": i}).encode())
            self.assertEqual((ack.stream, ack.seq), ("ORDERS", i))
        state = (await js.stream_info("ORDERS")).state
        self.assertEqual((state.messages, state.first_seq, state.last_seq), (5, 4, 8))
        got = await js.get_msg("ORDERS", 4)
        self.assertEqual((got.subject, json.loads(got.data)["id"]), ("orders.created", 4))
        with self.assertRaises(NotFoundError):
            await js.get_msg("ORDERS", 3)

    async def test_discard_new_refuses_when_full(self):
        _, _, js = await self.start()
        await js.add_stream(StreamConfig(name="FULL", subjects=["full"], max_msgs=2, discard=DiscardPolicy.NEW))
        await js.publish("full", b"1")
        await js.publish("full", b"2")
        with self.assertRaises(APIError) as e:
            await js.publish("full", b"3")
        self.assertEqual((e.exception.err_code, e.exception.description), (10077, "maximum messages exceeded"))
        self.assertEqual((await js.stream_info("FULL")).state.messages, 2)

    async def test_duplicates_and_expectations(self):
        _, _, js = await self.start()
        await js.add_stream(name="ORDERS", subjects=["orders.*"])
        first = await js.publish("orders.created", b"a", headers={"Nats-Msg-Id": "1"})
        again = await js.publish("orders.created", b"a", headers={"Nats-Msg-Id": "1"})
        self.assertEqual((first.seq, first.duplicate, again.seq, again.duplicate), (1, None, 1, True))
        for headers, code in (({"Nats-Expected-Last-Sequence": "7"}, 10071), ({"Nats-Expected-Stream": "OTHER"}, 10060),
                              ({"Nats-Expected-Last-Msg-Id": "2"}, 10070),
                              ({"Nats-Expected-Last-Subject-Sequence": "9"}, 10071)):
            with self.assertRaises(APIError) as e:
                await js.publish("orders.created", b"x", headers=headers)
            self.assertEqual(e.exception.err_code, code, headers)
        good = {"Nats-Expected-Last-Sequence": "1", "Nats-Expected-Last-Msg-Id": "1", "Nats-Expected-Stream": "ORDERS"}
        self.assertEqual((await js.publish("orders.created", b"b", headers=good)).seq, 2)

    async def test_durable_pull_consumer(self):
        _, nc, js = await self.start()
        await js.add_stream(name="ORDERS", subjects=["orders.>"])
        for i in range(20):
            await js.publish(f"orders.{'created' if i % 2 == 0 else 'shipped'}", str(i).encode())
        sub = await js.pull_subscribe("orders.created", durable="proc", stream="ORDERS",
                                      config=ConsumerConfig(ack_policy=AckPolicy.EXPLICIT, max_ack_pending=100))
        first = await sub.fetch(4, timeout=5)
        self.assertEqual([m.data for m in first], [b"0", b"2", b"4", b"6"])
        self.assertEqual([m.metadata.num_pending for m in first], [9, 8, 7, 6])
        for m in first:
            await m.ack_sync()
        info = await sub.consumer_info()
        self.assertEqual((info.ack_floor.stream_seq, info.ack_floor.consumer_seq, info.num_pending), (7, 4, 6))
        await sub.unsubscribe()
        # Another client goes on where this one ended.
        other = await js.pull_subscribe_bind("proc", stream="ORDERS")
        rest = await other.fetch(100, timeout=1)
        self.assertEqual([m.data for m in rest], [b"8", b"10", b"12", b"14", b"16", b"18"])

    async def test_redelivery_nak_delay_and_term(self):
        _, _, js = await self.start()
        await js.add_stream(name="JOBS", subjects=["jobs"])
        for i in range(3):
            await js.publish("jobs", str(i).encode())
        sub = await js.pull_subscribe("jobs", durable="w", config=ConsumerConfig(ack_wait=1, max_deliver=3))
        a, b, c = await sub.fetch(3, timeout=5)
        await a.nak()
        await b.nak(delay=0.5)
        await c.term()
        (again,) = await sub.fetch(1, timeout=5)
        self.assertEqual((again.data, again.metadata.num_delivered), (b"0", 2))
        (late,) = await sub.fetch(1, timeout=5)
        self.assertIn(late.data, (b"1", b"0"))
        seen = {late.data}
        while len(seen) < 2:
            (m,) = await sub.fetch(1, timeout=5)
            seen.add(m.data)
            await m.ack_sync()
        self.assertEqual(seen, {b"0", b"1"})

    async def test_ack_wait_and_max_deliver(self):
        _, _, js = await self.start()
        await js.add_stream(name="JOBS", subjects=["jobs"])
        await js.publish("jobs", b"x")
        sub = await js.pull_subscribe("jobs", durable="w", config=ConsumerConfig(ack_wait=0.3, max_deliver=3))
        for n in (1, 2, 3):
            (m,) = await sub.fetch(1, timeout=5)
            self.assertEqual(m.metadata.num_delivered, n)
        with self.assertRaises(nats.errors.TimeoutError):
            await sub.fetch(1, timeout=1)

    async def test_push_consumer_and_queue(self):
        s, nc, js = await self.start()
        await js.add_stream(name="EVENTS", subjects=["events.>"])
        got = []

        async def take(m):
            got.append(m.data)
            await m.ack()

        subs = [await js.subscribe("events.>", queue="workers", durable="workers", cb=take, manual_ack=True) for _ in range(3)]
        for i in range(60):
            await js.publish(f"events.{i % 3}", str(i).encode())
        await until("sixty events", lambda: len(got) >= 60)
        self.assertEqual(sorted(map(int, got)), list(range(60)))
        self.assertTrue((await subs[0].consumer_info()).push_bound)

    async def test_ordered_consumer(self):
        _, _, js = await self.start()
        await js.add_stream(name="LOG", subjects=["log"])
        body = b"x" * 1000
        for i in range(500):
            await js.publish("log", body + str(i).encode())
        sub = await js.subscribe("log", ordered_consumer=True)
        got = [(await sub.next_msg(timeout=5)).data[1000:] for _ in range(500)]
        self.assertEqual(got, [str(i).encode() for i in range(500)])

    async def test_work_queue_with_several_workers(self):
        s, nc, js = await self.start()
        await js.add_stream(StreamConfig(name="JOBS", subjects=["jobs.>"], retention=RetentionPolicy.WORK_QUEUE))
        await js.add_consumer("JOBS", ConsumerConfig(durable_name="workers", ack_policy=AckPolicy.EXPLICIT, max_ack_pending=50))
        with self.assertRaises(BadRequestError) as e:
            await js.add_consumer("JOBS", ConsumerConfig(durable_name="second", ack_policy=AckPolicy.EXPLICIT))
        self.assertEqual(e.exception.err_code, 10099)
        total = 150
        for i in range(total):
            await js.publish(f"jobs.{i % 3}", str(i).encode())
        done = []

        async def work():
            conn = await self.connect(s)
            sub = await conn.jetstream().pull_subscribe_bind("workers", stream="JOBS")
            while len(done) < total:
                try:
                    for m in await sub.fetch(5, timeout=0.5):
                        await m.ack_sync()
                        done.append(int(m.data))
                except asyncio.TimeoutError:
                    pass

        await asyncio.gather(*(work() for _ in range(3)))
        self.assertEqual(sorted(done), list(range(total)))
        self.assertEqual((await js.stream_info("JOBS")).state.messages, 0)

    async def test_interest_keeps_until_all_have_acknowledged(self):
        _, _, js = await self.start()
        await js.add_stream(StreamConfig(name="I", subjects=["i"], retention=RetentionPolicy.INTEREST))
        await js.publish("i", b"nobody wants it")
        subs = [await js.pull_subscribe("i", durable=d) for d in ("a", "b")]
        await js.publish("i", b"both want it")
        self.assertEqual((await js.stream_info("I")).state.messages, 1)
        for n, sub in enumerate(subs):
            (m,) = await sub.fetch(1, timeout=5)
            self.assertEqual(m.data, b"both want it")
            await m.ack_sync()
            self.assertEqual((await js.stream_info("I")).state.messages, 1 - n)

    async def test_deliver_policies(self):
        _, _, js = await self.start()
        await js.add_stream(name="P", subjects=["p.*"])
        for i in range(10):
            await js.publish(f"p.{i % 2}", str(i).encode())
        for policy, start, want in (
            (DeliverPolicy.ALL, None, [str(i).encode() for i in range(10)]), (DeliverPolicy.LAST, None, [b"9"]),
            (DeliverPolicy.LAST_PER_SUBJECT, None, [b"8", b"9"]), (DeliverPolicy.BY_START_SEQUENCE, 8, [b"7", b"8", b"9"]),
        ):
            config = ConsumerConfig(deliver_policy=policy, opt_start_seq=start, filter_subject="p.*")
            sub = await js.pull_subscribe("p.*", config=config)
            got = [m.data for m in await sub.fetch(len(want), timeout=5)]
            self.assertEqual(got, want, policy)
            self.assertEqual((await sub.consumer_info()).num_pending, 0)

    async def test_a_killed_server_has_all_messages_that_it_acknowledged(self):
        s, nc, js = await self.start()
        await js.add_stream(name="ORDERS", subjects=["orders"])
        await js.add_consumer("ORDERS", ConsumerConfig(durable_name="d", ack_policy=AckPolicy.EXPLICIT, ack_wait=60))
        for i in range(50):
            await js.publish("orders", str(i).encode(), headers={"Nats-Msg-Id": str(i)})
        sub = await js.pull_subscribe_bind("d", stream="ORDERS")
        for m in await sub.fetch(20, timeout=5):
            await m.ack_sync()
        await nc.close()
        s.kill()
        s.start()
        nc = await self.connect(s)
        js = nc.jetstream()
        state = (await js.stream_info("ORDERS")).state
        self.assertEqual((state.messages, state.last_seq), (50, 50))
        self.assertTrue((await js.publish("orders", b"49", headers={"Nats-Msg-Id": "49"})).duplicate)
        # nats-server may forget the last acknowledgements; nobody may forget a message.
        floor = (await js.consumer_info("ORDERS", "d")).ack_floor.stream_seq
        self.assertLessEqual(floor, 20)
        sub = await js.pull_subscribe_bind("d", stream="ORDERS")
        got = await sub.fetch(100, timeout=2)
        self.assertEqual([m.data for m in got][-30:], [str(i).encode() for i in range(20, 50)])

    async def test_management(self):
        _, _, js = await self.start()
        for name in ("A", "B", "C"):
            await js.add_stream(name=name, subjects=[f"{name}.>"])
        self.assertEqual(sorted(i.config.name for i in await js.streams_info()), ["A", "B", "C"])
        self.assertEqual(await js.find_stream_name_by_subject("B.x"), "B")
        with self.assertRaises(NotFoundError):
            await js.find_stream_name_by_subject("D.x")
        with self.assertRaises(BadRequestError) as e:
            await js.add_stream(name="D", subjects=["A.b"])
        self.assertEqual(e.exception.err_code, 10065)
        with self.assertRaises(BadRequestError) as e:
            await js.add_stream(name="A", subjects=["other"])
        self.assertEqual(e.exception.err_code, 10058)
        for i in range(6):
            await js.publish(f"A.{i % 2}", b"x")
        await js.purge_stream("A", subject="A.1")
        info = await js.stream_info("A", subjects_filter=">")
        self.assertEqual(info.state.subjects, {"A.0": 3})
        await js.delete_msg("A", 3)
        self.assertEqual((await js.stream_info("A")).state.messages, 2)
        await js.update_stream(name="A", subjects=["A.>", "E"], max_msgs=1)
        self.assertEqual((await js.stream_info("A")).state.messages, 1)
        self.assertEqual((await js.publish("E", b"y")).seq, 7)
        await js.add_consumer("A", durable_name="c")
        self.assertEqual([c.name for c in await js.consumers_info("A")], ["c"])
        await js.delete_consumer("A", "c")
        with self.assertRaises(NotFoundError):
            await js.consumer_info("A", "c")
        account = await js.account_info()
        self.assertEqual((account.streams, account.consumers), (3, 0))
        await js.delete_stream("A")
        with self.assertRaises(NotFoundError):
            await js.stream_info("A")

    async def test_account_limits(self):
        config = """
            jetstream { max_mem: 64MB, max_file: 64MB }
            accounts { A { jetstream { max_streams: 1, max_consumers: 1 }, users [ { user: a, password: p } ] }, B { users [ { user: b, password: p } ] } }
        """
        s = self.server(config=config)
        nc = await self.connect(s, user="a", password="p")
        js = nc.jetstream()
        await js.add_stream(name="ONE", subjects=["one"])
        with self.assertRaises(APIError) as e:
            await js.add_stream(name="TWO", subjects=["two"])
        self.assertEqual(e.exception.err_code, 10027)
        off = await self.connect(s, user="b", password="p")
        with self.assertRaises(APIError) as e:
            await off.jetstream().account_info()
        self.assertEqual(e.exception.err_code, 10039)

    async def test_direct_get(self):
        _, nc, js = await self.start()
        await js.add_stream(StreamConfig(name="KV", subjects=["kv.>"], allow_direct=True, max_msgs_per_subject=1))
        for i in range(4):
            await js.publish(f"kv.{i % 2}", str(i).encode(), headers={"A": "b"})
        m = await js.get_last_msg("KV", "kv.1", direct=True)
        self.assertEqual((m.seq, m.data, m.headers["A"]), (4, b"3", "b"))
        m = await nc.request("$JS.API.DIRECT.GET.KV", b'{"seq":1}')
        self.assertEqual(m.headers["Status"], "404")
        self.assertEqual((await nc.request("$JS.API.DIRECT.GET.KV.kv.0", b"")).headers["Nats-Sequence"], "3")
