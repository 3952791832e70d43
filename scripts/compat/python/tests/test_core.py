"""The core protocol as nats-py sees it."""
import asyncio

import nats
import nats.errors
from server import ServerTest, settle, until


class Core(ServerTest):
    async def test_info(self):
        s = self.server()
        nc = await self.connect(s)
        self.assertGreaterEqual((nc.connected_server_version.major, nc.connected_server_version.minor), (2, 14))
        self.assertEqual(nc.max_payload, 1024 * 1024)
        self.assertGreater(nc.client_id, 0)

    async def test_publish_subscribe_in_order(self):
        s = self.server()
        a, b = await self.connect(s), await self.connect(s)
        sub = await a.subscribe("hello.*")
        await settle(a)
        for i in range(1000):
            await b.publish("hello.x", str(i).encode())
        await settle(b)
        got = [(await sub.next_msg(timeout=5)).data for _ in range(1000)]
        self.assertEqual(got, [str(i).encode() for i in range(1000)])

    async def test_wildcards(self):
        s = self.server()
        nc = await self.connect(s)
        seen = []

        async def note(m):
            seen.append(m.subject)

        await nc.subscribe("a.*.c", cb=note)
        await nc.subscribe("b.>", cb=note)
        for subject in ("a.b.c", "a.b", "a.b.c.d", "b", "b.c", "b.c.d"):
            await nc.publish(subject)
        await settle(nc)
        await until("three messages", lambda: len(seen) >= 3)
        self.assertEqual(sorted(seen), ["a.b.c", "b.c", "b.c.d"])

    async def test_queue_group(self):
        s = self.server()
        counts = [0] * 3

        def member(i):
            async def take(_):
                counts[i] += 1
            return take

        for i in range(3):
            nc = await self.connect(s)
            await nc.subscribe("jobs", queue="workers", cb=member(i))
            await settle(nc)
        nc = await self.connect(s)
        for _ in range(900):
            await nc.publish("jobs")
        await settle(nc)
        await until("900 jobs", lambda: sum(counts) >= 900)
        self.assertEqual(sum(counts), 900)
        self.assertGreater(min(counts), 100, counts)

    async def test_request_reply(self):
        s = self.server()
        service, nc = await self.connect(s), await self.connect(s)

        async def double(m):
            await m.respond(str(2 * int(m.data)).encode())

        await service.subscribe("double", cb=double)
        await settle(service)
        answers = await asyncio.gather(*(nc.request("double", str(i).encode(), timeout=5) for i in range(100)))
        self.assertEqual([int(m.data) for m in answers], [2 * i for i in range(100)])
        old = await nc.request("double", b"21", timeout=5, old_style=True)
        self.assertEqual(old.data, b"42")

    async def test_no_responders(self):
        nc = await self.connect(self.server())
        with self.assertRaises(nats.errors.NoRespondersError):
            await nc.request("nobody.there", timeout=5)

    async def test_headers(self):
        nc = await self.connect(self.server())
        sub = await nc.subscribe("h")
        await nc.publish("h", b"body", headers={"K": "v", "Content-Type": "text/plain; charset=utf-8"})
        await nc.publish("h", b"", headers={"Only": "a header"})
        m = await sub.next_msg(timeout=5)
        self.assertEqual((m.headers["K"], m.headers["Content-Type"], m.data), ("v", "text/plain; charset=utf-8", b"body"))
        m = await sub.next_msg(timeout=5)
        self.assertEqual((m.headers["Only"], m.data), ("a header", b""))

    async def test_payload_limit(self):
        nc = await self.connect(self.server(config="max_payload: 1000"))
        self.assertEqual(nc.max_payload, 1000)
        sub = await nc.subscribe("p")
        await nc.publish("p", b"x" * 1000)
        self.assertEqual(len((await sub.next_msg(timeout=5)).data), 1000)
        with self.assertRaises(nats.errors.MaxPayloadError):
            await nc.publish("p", b"x" * 1001)

    async def test_unsubscribe_after(self):
        s = self.server()
        nc = await self.connect(s)
        sub = await nc.subscribe("n")
        await sub.unsubscribe(limit=3)
        for i in range(10):
            await nc.publish("n", str(i).encode())
        await settle(nc)
        self.assertEqual([(await sub.next_msg(timeout=5)).data for _ in range(3)], [b"0", b"1", b"2"])
        # Three of ten went out, and the server knows of no subscription of this client any more.
        self.assertEqual(s.get("/varz")["out_msgs"], 3)
        (conn,) = s.get("/connz?subs=true")["connections"]
        self.assertEqual(conn["subscriptions"], 0)

    async def test_no_echo(self):
        s = self.server()
        quiet, other = await self.connect(s, no_echo=True), await self.connect(s)
        sub = await quiet.subscribe("e")
        await quiet.publish("e", b"own")
        await settle(quiet)
        await other.publish("e", b"other")
        self.assertEqual((await sub.next_msg(timeout=5)).data, b"other")

    async def test_verbose_and_pedantic(self):
        nc = await self.connect(self.server(), verbose=True, pedantic=True)
        sub = await nc.subscribe("v")
        await nc.publish("v", b"x")
        self.assertEqual((await sub.next_msg(timeout=5)).data, b"x")

    async def test_drain(self):
        s = self.server()
        a, b = await self.connect(s), await self.connect(s)
        count = 0

        async def take(_):
            nonlocal count
            count += 1

        await a.subscribe("d", cb=take)
        await settle(a)
        for _ in range(500):
            await b.publish("d")
        await settle(b)
        await a.drain()
        self.assertEqual(count, 500)
        self.assertTrue(a.is_closed)

    async def test_reconnect_after_a_kill(self):
        s = self.server()
        back = asyncio.Event()

        async def reconnected():
            back.set()

        async def quiet(_):
            pass

        nc = await self.connect(s, reconnect_time_wait=0.05, max_reconnect_attempts=-1, reconnected_cb=reconnected, error_cb=quiet)
        sub = await nc.subscribe("r")
        await settle(nc)
        s.kill()
        s.start()
        await asyncio.wait_for(back.wait(), 10)
        await settle(nc)
        await nc.publish("r", b"after")
        self.assertEqual((await sub.next_msg(timeout=5)).data, b"after")

    async def test_lame_duck_mode(self):
        s = self.server(config='lame_duck_duration: "30s"\nlame_duck_grace_period: "1s"')
        told, closed = asyncio.Event(), asyncio.Event()

        async def on_ldm():
            told.set()

        async def on_closed():
            closed.set()

        nc = await self.connect(s, allow_reconnect=False, lame_duck_mode_cb=on_ldm, closed_cb=on_closed)
        await settle(nc)
        s.lame_duck()
        await asyncio.wait_for(told.wait(), 10)
        await asyncio.wait_for(closed.wait(), 10)

    async def test_counters_of_varz_and_connz(self):
        s = self.server()
        a, b = await self.connect(s, name="taker"), await self.connect(s, name="giver")
        await a.subscribe("c.>")
        await a.subscribe("c.1")
        await settle(a)
        for i in range(10):
            await b.publish(f"c.{i}", b"12345")
        await settle(b)
        await settle(a)

        def counters():
            v = s.get("/varz")
            return v if (v["in_msgs"], v["out_msgs"]) == (10, 11) else None

        # A server may add a connection's figures up a little after it has answered that connection's PING.
        varz = await until("the counters", counters)
        self.assertEqual((varz["in_msgs"], varz["out_msgs"], varz["in_bytes"], varz["out_bytes"]), (10, 11, 50, 55))
        self.assertEqual(varz["connections"], 2)
        conns = {c["name"]: c for c in s.get("/connz?subs=true")["connections"]}
        self.assertEqual(sorted(conns["taker"]["subscriptions_list"]), ["c.1", "c.>"])
        self.assertEqual((conns["giver"]["in_msgs"], conns["taker"]["out_msgs"]), (10, 11))
        self.assertEqual(conns["giver"]["lang"], "python3")


class Auth(ServerTest):
    async def refused(self, server, **options):
        seen = []

        async def note(e):
            seen.append(str(e))

        with self.assertRaises(Exception):
            await nats.connect(options.pop("url", server.url), allow_reconnect=False, max_reconnect_attempts=1, connect_timeout=3, error_cb=note, **options)
        self.assertTrue(any("authorization" in e.lower() for e in seen), seen)

    async def test_user_and_password_by_flag(self):
        s = self.server("--user", "alice", "--pass", "secret")
        await self.connect(s, user="alice", password="secret")
        await self.connect(s, url=f"nats://alice:secret@127.0.0.1:{s.port}")
        await self.refused(s, user="alice", password="wrong")
        await self.refused(s)

    async def test_token_by_flag(self):
        s = self.server("--auth", "t0ken")
        await self.connect(s, token="t0ken")
        await self.connect(s, url=f"nats://t0ken@127.0.0.1:{s.port}")
        await self.refused(s, token="wrong")

    async def test_bcrypt_password(self):
        # bcrypt of "secret", cost 4.
        s = self.server(config=f'authorization {{ user: alice, password: "{BCRYPT}" }}')
        await self.connect(s, user="alice", password="secret")
        await self.refused(s, user="alice", password=BCRYPT)

    async def test_permissions(self):
        s = self.server(config="""
            authorization { users = [
                { user: a, password: a, permissions: { publish: "ok.*", subscribe: { allow: ">", deny: "no.>" } } }
            ] }""")
        errors = []

        async def note(e):
            errors.append(str(e))

        nc = await self.connect(s, user="a", password="a", error_cb=note)
        sub = await nc.subscribe("ok.>")
        await nc.publish("ok.x", b"1")
        await nc.publish("bad", b"2")
        await nc.subscribe("no.thing")
        await settle(nc)
        self.assertEqual((await sub.next_msg(timeout=5)).data, b"1")
        await until("two refusals", lambda: len(errors) >= 2)
        text = " ".join(errors).lower()
        self.assertIn('permissions violation for publish to "bad"', text)
        self.assertIn('permissions violation for subscription to "no.thing"', text)

    async def test_no_auth_user(self):
        s = self.server(config="""
            no_auth_user: guest
            accounts {
                G { users: [ { user: guest, password: g } ] }
                H { users: [ { user: host, password: h } ] }
            }""")
        guest, host = await self.connect(s), await self.connect(s, user="host", password="h")
        sub = await guest.subscribe(">")
        await settle(guest)
        await host.publish("apart", b"")
        await settle(host)
        await guest.publish("own", b"")
        self.assertEqual((await sub.next_msg(timeout=5)).subject, "own")
        await self.refused(s, user="host", password="wrong")


BCRYPT = "$2b$04$I87kYAy1dT3xJuxlumb4Ke7F9CoYEj54Yhkf9uQOqsOSQZaIkzw6a"


class WebSocket(ServerTest):
    async def test_publish_subscribe(self):
        from server import free_ports
        (port,) = free_ports(1)
        s = self.server(config=f'websocket {{ listen: "127.0.0.1:{port}", no_tls: true }}')
        w, t = await self.connect(s, url=f"ws://127.0.0.1:{port}"), await self.connect(s)
        sub = await w.subscribe("x")
        await settle(w)
        await t.publish("x", b"y" * 100_000, headers={"K": "v"})
        m = await sub.next_msg(timeout=5)
        self.assertEqual((len(m.data), m.headers["K"]), (100_000, "v"))
