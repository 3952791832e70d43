//! JetStream as a client library sees it: whole servers on temporary directories, spoken to by async-nats.
#![cfg(not(madsim))]
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use async_nats::{
    HeaderMap,
    jetstream::{
        self, AckKind, consumer,
        stream::{Config, DiscardPolicy, RetentionPolicy},
    },
};
use futures_util::{StreamExt, TryStreamExt};
use server::{
    Server,
    options::{Flags, JetStreamOptions, Options, Secret, StoreCipher},
};
use tokio::io::AsyncReadExt;

/// How long anything may take that must come.
const PATIENCE: Duration = Duration::from_secs(10);

/// A directory that goes with the test.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Dir {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let n = NEXT.fetch_add(1, Relaxed);
        let path = std::env::temp_dir().join(format!("fulmar-jetstream-{}-{n}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Dir(path)
    }
}
impl Drop for Dir {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

struct Running {
    server: Arc<Server>,
    task: env::task::JoinHandle<i32>,
}

impl Running {
    async fn start(dir: &Dir) -> Running {
        Running::start_with(dir, JetStreamOptions::default()).await
    }
    async fn start_with(dir: &Dir, jetstream: JetStreamOptions) -> Running {
        let jetstream =
            JetStreamOptions { store_dir: Some(dir.0.to_string_lossy().into_owned()), ..jetstream };
        let o =
            Options { host: "127.0.0.1".into(), port: -1, jetstream: Some(jetstream), ..Options::default() };
        Running::start_as(o).await
    }
    /// With this configuration, and its streams here.
    async fn start_text(dir: &Dir, text: &str) -> Running {
        let text = format!("{text}\njetstream {{ store_dir: {:?} }}", dir.0);
        let loaded =
            server::options::load_text("test.conf", &text, &Flags::default(), &conf::Memory::default());
        Running::start_as(loaded.unwrap().options).await
    }
    /// Whoever logs in by this name; everybody's password is `x`.
    async fn user(&self, name: &str) -> async_nats::Client {
        let address = self.server.bound.lock().client.unwrap().to_string();
        async_nats::ConnectOptions::with_user_and_password(name.into(), "x".into())
            .connect(address)
            .await
            .unwrap()
    }
    async fn start_as(o: Options) -> Running {
        let server = Server::new(o, Flags::default()).unwrap();
        let running = server.clone();
        let task = env::spawn(async move { running.run().await });
        let deadline = env::now() + PATIENCE;
        while server.bound.lock().client.is_none() {
            assert!(env::now() < deadline && !task.is_finished(), "the server does not listen");
            env::sleep(Duration::from_millis(1)).await;
        }
        Running { server, task }
    }
    async fn client(&self) -> jetstream::Context {
        let address = self.server.bound.lock().client.unwrap();
        let client = async_nats::connect(address.to_string()).await.unwrap();
        jetstream::new(client)
    }
    async fn stop(self) {
        self.server.stop();
        assert_eq!(env::timeout(PATIENCE, self.task).await.expect("it ends").unwrap(), 0);
        // The directory is free once the last task has let go of the store.
        let dir = self.server.options().jetstream.as_ref().and_then(|j| j.store_dir.clone()).unwrap();
        drop(self.server);
        let lock = format!("{dir}/jetstream/lock");
        let deadline = env::now() + PATIENCE;
        while env::disk::Disk::os().lock(&lock).await.is_err() {
            assert!(env::now() < deadline, "the store is not let go of");
            env::sleep(Duration::from_millis(1)).await;
        }
    }
}

fn run<F: Future<Output = ()>>(f: impl FnOnce(Dir) -> F) {
    env::run(f(Dir::new())).unwrap();
}

async fn publish(js: &jetstream::Context, subject: &str, body: &str) -> u64 {
    let ack = js.publish(subject.to_string(), body.to_string().into()).await.unwrap();
    ack.await.unwrap().sequence
}

/// Encryption at rest with the configuration's key, which is then replaced: nothing can be read on the disk, all can be read over it.
#[test]
fn what_is_sealed_with_the_configured_key_is_read_with_it_and_after_its_change() {
    fn holds(dir: &std::path::Path, text: &[u8]) -> bool {
        std::fs::read_dir(dir).unwrap().any(|e| {
            let path = e.unwrap().path();
            if path.is_dir() {
                return holds(&path, text);
            }
            std::fs::read(path).unwrap().windows(text.len()).any(|w| w == text)
        })
    }
    run(|dir| async move {
        let (first, second) = (Some(Secret::new("first")), Some(Secret::new("second")));
        let keyed = |key: &Option<Secret>, previous_key: &Option<Secret>, cipher| JetStreamOptions {
            key: key.clone(),
            previous_key: previous_key.clone(),
            cipher,
            ..Default::default()
        };
        let options = [
            keyed(&first, &None, StoreCipher::ChaCha),
            keyed(&first, &None, StoreCipher::Aes),
            keyed(&second, &first, StoreCipher::Aes),
        ];
        for (life, o) in options.into_iter().enumerate() {
            let server = Running::start_with(&dir, o).await;
            let js = server.client().await;
            let config = Config { name: "S".into(), subjects: vec!["hidden.>".into()], ..Default::default() };
            let stream = js.get_or_create_stream(config).await.unwrap();
            let body = format!("body of life {life}");
            assert_eq!(publish(&js, "hidden.subject", &body).await, life as u64 + 1);
            for seq in 0..=life {
                let m = stream.get_raw_message(seq as u64 + 1).await.unwrap();
                assert_eq!(m.payload, format!("body of life {seq}"));
            }
            server.stop().await;
            for text in [&b"body of life"[..], b"hidden.subject"] {
                assert!(!holds(&dir.0, text), "life {life}");
            }
        }
    });
}

/// As with nats-server a stream in memory ends with its process, and its consumers do. Whoever makes it anew publishes and receives as with any other: it was dead, and who published
/// to it was never answered.
#[test]
fn a_stream_in_memory_is_made_anew_after_each_restart() {
    run(|dir| async move {
        for life in 0..3 {
            let server = Running::start(&dir).await;
            let js = server.client().await;
            assert!(js.get_stream("M").await.is_err(), "life {life}: it went with the process");
            let config = Config {
                name: "M".into(),
                subjects: vec!["m.>".into()],
                storage: jetstream::stream::StorageType::Memory,
                ..Default::default()
            };
            let stream = js.create_stream(config).await.unwrap();
            let durable = consumer::pull::Config { durable_name: Some("d".into()), ..Default::default() };
            let c = stream.create_consumer(durable).await.unwrap();
            for i in 1..=5 {
                assert_eq!(publish(&js, "m.x", &format!("{life}:{i}")).await, i);
            }
            let mut got = c.fetch().max_messages(5).messages().await.unwrap();
            for i in 1..=5 {
                let m = got.next().await.unwrap().unwrap();
                assert_eq!(m.payload, format!("{life}:{i}"));
                m.double_ack().await.unwrap();
            }
            server.stop().await;
        }
    });
}

#[test]
fn a_stream_keeps_what_it_acknowledged_over_a_restart() {
    run(|dir| async move {
        let server = Running::start(&dir).await;
        let js = server.client().await;
        let config = Config { name: "S".into(), subjects: vec!["s.>".into()], ..Default::default() };
        let mut stream = js.create_stream(config.clone()).await.unwrap();
        for i in 1..=50 {
            assert_eq!(publish(&js, &format!("s.{}", i % 3), &i.to_string()).await, i);
        }
        assert_eq!(stream.info().await.unwrap().state.messages, 50);
        assert_eq!(&stream.get_raw_message(7).await.unwrap().payload[..], b"7");
        let durable = consumer::pull::Config { durable_name: Some("d".into()), ..Default::default() };
        let c = stream.create_consumer(durable).await.unwrap();
        let mut got = c.fetch().max_messages(10).messages().await.unwrap();
        let mut n = 0;
        while let Some(m) = got.next().await {
            n += 1;
            let m = m.unwrap();
            assert_eq!(m.payload, n.to_string());
            m.double_ack().await.unwrap();
        }
        assert_eq!(n, 10);
        // The same again is no error, another one is.
        js.create_stream(config.clone()).await.unwrap();
        assert!(js.create_stream(Config { max_messages: 3, ..config }).await.is_err());
        server.stop().await;

        let server = Running::start(&dir).await;
        let js = server.client().await;
        let mut stream = js.get_stream("S").await.unwrap();
        let state = stream.info().await.unwrap().state.clone();
        assert_eq!((state.messages, state.first_sequence, state.last_sequence), (50, 1, 50));
        assert_eq!(publish(&js, "s.x", "51").await, 51);
        let mut c: consumer::PullConsumer = stream.get_consumer("d").await.unwrap();
        assert_eq!(c.info().await.unwrap().num_pending, 41);
        assert_eq!(c.info().await.unwrap().ack_floor.stream_sequence, 10);
        let mut got = c.fetch().max_messages(100).messages().await.unwrap();
        let mut next = 11;
        while let Some(m) = got.next().await {
            let m = m.unwrap();
            assert_eq!(m.info().unwrap().stream_sequence, next);
            next += 1;
            m.ack().await.unwrap();
        }
        assert_eq!(next, 52);
        js.delete_stream("S").await.unwrap();
        assert!(js.get_stream("S").await.is_err());
        server.stop().await;
        let server = Running::start(&dir).await;
        assert!(server.client().await.get_stream("S").await.is_err());
        server.stop().await;
    });
}

#[test]
fn publishes_are_checked_and_deduplicated() {
    run(|dir| async move {
        let server = Running::start(&dir).await;
        let js = server.client().await;
        js.create_stream(Config {
            name: "S".into(),
            subjects: vec!["s".into()],
            max_messages: 3,
            discard: DiscardPolicy::Old,
            ..Default::default()
        })
        .await
        .unwrap();
        let send = async |id: &str, last: Option<u64>| {
            let mut headers = HeaderMap::new();
            headers.insert("Nats-Msg-Id", id);
            if let Some(n) = last {
                headers.insert("Nats-Expected-Last-Sequence", n.to_string().as_str());
            }
            js.publish_with_headers("s", headers, "x".into()).await.unwrap().await
        };
        assert_eq!(send("a", None).await.unwrap().sequence, 1);
        let again = send("a", None).await.unwrap();
        assert!(again.duplicate && again.sequence == 1);
        assert!(send("b", Some(7)).await.is_err());
        assert_eq!(send("b", Some(1)).await.unwrap().sequence, 2);
        for i in 3..10 {
            assert_eq!(publish(&js, "s", "x").await, i);
        }
        let state = js.get_stream("S").await.unwrap().info().await.unwrap().state.clone();
        assert_eq!((state.messages, state.first_sequence), (3, 7));
        server.stop().await;
    });
}

#[test]
fn a_work_queue_gives_each_message_to_one_worker_until_it_is_done() {
    run(|dir| async move {
        let server = Running::start(&dir).await;
        let js = server.client().await;
        let mut stream = js
            .create_stream(Config {
                name: "W".into(),
                subjects: vec!["w.>".into()],
                retention: RetentionPolicy::WorkQueue,
                ..Default::default()
            })
            .await
            .unwrap();
        let c = stream
            .create_consumer(consumer::pull::Config {
                durable_name: Some("workers".into()),
                ack_wait: Duration::from_secs(30),
                ..Default::default()
            })
            .await
            .unwrap();
        for i in 0..30 {
            publish(&js, "w.x", &i.to_string()).await;
        }
        let mut seen = Vec::new();
        for _ in 0..3 {
            let mut got = c.fetch().max_messages(10).messages().await.unwrap();
            while let Some(m) = got.next().await {
                let m = m.unwrap();
                seen.push(m.info().unwrap().stream_sequence);
                m.double_ack().await.unwrap();
            }
        }
        assert_eq!(seen, (1..=30).collect::<Vec<_>>());
        assert_eq!(stream.info().await.unwrap().state.messages, 0);
        // Refused, and so delivered again.
        publish(&js, "w.x", "again").await;
        let first = c.fetch().max_messages(1).messages().await.unwrap().next().await.unwrap().unwrap();
        first.ack_with(AckKind::Nak(None)).await.unwrap();
        let second = c.fetch().max_messages(1).messages().await.unwrap().next().await.unwrap().unwrap();
        assert_eq!(second.info().unwrap().delivered, 2);
        second.double_ack().await.unwrap();
        server.stop().await;
    });
}

#[test]
fn push_consumers_deliver_to_those_who_listen() {
    run(|dir| async move {
        let server = Running::start(&dir).await;
        let js = server.client().await;
        let stream = js
            .create_stream(Config { name: "P".into(), subjects: vec!["p.>".into()], ..Default::default() })
            .await
            .unwrap();
        for i in 1..=20 {
            publish(&js, "p.x", &i.to_string()).await;
        }
        let c = stream
            .create_consumer(consumer::push::Config {
                deliver_subject: "to.me".into(),
                durable_name: Some("push".into()),
                ..Default::default()
            })
            .await
            .unwrap();
        let mut messages = c.messages().await.unwrap();
        for i in 1..=20u64 {
            let m = env::timeout(PATIENCE, messages.next()).await.unwrap().unwrap().unwrap();
            assert_eq!(m.info().unwrap().stream_sequence, i);
            m.ack().await.unwrap();
        }
        assert_eq!(publish(&js, "p.y", "21").await, 21);
        let m = env::timeout(PATIENCE, messages.next()).await.unwrap().unwrap().unwrap();
        assert_eq!(m.payload, "21");
        let ordered = stream
            .create_consumer(consumer::push::OrderedConfig {
                deliver_subject: "ordered".into(),
                ..Default::default()
            })
            .await
            .unwrap();
        let got: Vec<_> = ordered.messages().await.unwrap().take(21).try_collect().await.unwrap();
        assert_eq!(got.len(), 21);
        server.stop().await;
    });
}

#[test]
fn buckets_of_keys_and_of_objects() {
    run(|dir| async move {
        let server = Running::start(&dir).await;
        let js = server.client().await;
        let kv = js
            .create_key_value(jetstream::kv::Config { bucket: "B".into(), history: 5, ..Default::default() })
            .await
            .unwrap();
        let first = kv.put("a", "1".into()).await.unwrap();
        let second = kv.update("a", "2".into(), first).await.unwrap();
        assert!(kv.update("a", "3".into(), first).await.is_err());
        assert_eq!(kv.get("a").await.unwrap().unwrap(), "2");
        assert_eq!(kv.entry("a").await.unwrap().unwrap().revision, second);
        assert!(kv.create("a", "x".into()).await.is_err());
        let mut watch = kv.watch("b").await.unwrap();
        kv.put("b", "seen".into()).await.unwrap();
        let entry = env::timeout(PATIENCE, watch.next()).await.unwrap().unwrap().unwrap();
        assert_eq!(entry.value, "seen");
        let history: Vec<_> = kv.history("a").await.unwrap().try_collect().await.unwrap();
        assert_eq!(history.len(), 2);
        kv.delete("a").await.unwrap();
        assert!(kv.get("a").await.unwrap().is_none());
        let keys: Vec<String> = kv.keys().await.unwrap().try_collect().await.unwrap();
        assert_eq!(keys, ["b"]);
        kv.purge("b").await.unwrap();

        let objects = js
            .create_object_store(jetstream::object_store::Config { bucket: "O".into(), ..Default::default() })
            .await
            .unwrap();
        let data: Vec<u8> = (0..500_000u32).map(|i| (i * 7 % 251) as u8).collect();
        objects.put("blob", &mut &data[..]).await.unwrap();
        let mut back = Vec::new();
        objects.get("blob").await.unwrap().read_to_end(&mut back).await.unwrap();
        assert_eq!(back, data);
        objects.delete("blob").await.unwrap();
        assert!(objects.get("blob").await.is_err());
        server.stop().await;
    });
}

async fn told(sub: &mut async_nats::Subscriber) -> async_nats::Message {
    env::timeout(PATIENCE, sub.next()).await.expect("something comes").expect("the subscription is open")
}

#[test]
fn who_waits_is_told_of_the_end_and_who_is_gone_takes_nothing() {
    run(|dir| async move {
        let server = Running::start(&dir).await;
        let address = server.server.bound.lock().client.unwrap();
        let client = async_nats::connect(address.to_string()).await.unwrap();
        let js = jetstream::new(client.clone());
        for name in ["A", "B"] {
            let config = Config { name: name.into(), subjects: vec![name.into()], ..Default::default() };
            let stream = js.create_stream(config).await.unwrap();
            let c = consumer::pull::Config {
                durable_name: Some("d".into()),
                ack_policy: consumer::AckPolicy::None,
                ..Default::default()
            };
            stream.create_consumer(c).await.unwrap();
        }
        let ask = async |stream: &str, to: &str| {
            let sub = client.subscribe(to.to_string()).await.unwrap();
            let next = format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.d");
            let body = r#"{"batch":5,"expires":60000000000}"#;
            client.publish_with_reply(next, to.to_string(), body.into()).await.unwrap();
            client.flush().await.unwrap();
            sub
        };
        // C-5: nothing is acknowledged here, so what goes to somebody who is gone would be lost.
        let mut gone = ask("A", "gone").await;
        gone.unsubscribe().await.unwrap();
        client.flush().await.unwrap();
        let mut here = ask("A", "here").await;
        for i in 1..=3 {
            publish(&js, "A", &i.to_string()).await;
            assert_eq!(told(&mut here).await.payload, i.to_string());
        }
        js.delete_stream("A").await.unwrap();
        let status = |m: &async_nats::Message| (m.status.map(|s| s.as_u16()), m.description.clone());
        assert_eq!(status(&told(&mut here).await), (Some(409), Some("Consumer Deleted".into())));
        let mut waits = ask("B", "waits").await;
        server.stop().await;
        assert_eq!(status(&told(&mut waits).await), (Some(409), Some("Server Shutdown".into())));
    });
}

#[test]
fn new_limits_of_a_stream_must_suit_its_consumers() {
    run(|dir| async move {
        let server = Running::start(&dir).await;
        let js = server.client().await;
        let mut config = Config { name: "S".into(), subjects: vec!["s".into()], ..Default::default() };
        let stream = js.create_stream(config.clone()).await.unwrap();
        let durable = consumer::pull::Config { durable_name: Some("d".into()), ..Default::default() };
        stream.create_consumer(durable).await.unwrap();
        let limits = |max_ack_pending| jetstream::stream::ConsumerLimits {
            inactive_threshold: Duration::ZERO,
            max_ack_pending,
        };
        config.consumer_limits = Some(limits(10));
        let refused = js.update_stream(config.clone()).await.unwrap_err().to_string();
        assert!(refused.contains("change to limits violates consumers: d"), "{refused}");
        config.consumer_limits = Some(limits(1000));
        js.update_stream(config).await.unwrap();
        server.stop().await;
    });
}

/// Messages to streams that stand beside each other in what is read go on their way together; what stands between them keeps its place, wherever a read ends.
#[test]
fn what_a_client_sends_at_once_is_published_in_its_order() {
    use std::fmt::Write;

    run(async |dir: Dir| {
        let server = Running::start(&dir).await;
        let js = server.client().await;
        for (name, subject) in [("A", "a.>"), ("B", "b.>")] {
            let config = Config { name: name.into(), subjects: vec![subject.into()], ..Config::default() };
            js.create_stream(config).await.unwrap();
        }
        let mut text =
            String::from("CONNECT {\"verbose\":false,\"headers\":true}\r\nSUB r.> 1\r\nSUB core 2\r\n");
        let (mut of_a, mut of_b, mut of_core, mut pings) = (Vec::new(), Vec::new(), Vec::new(), 0);
        for i in 0..2000 {
            match i % 100 {
                20..30 => {
                    write!(text, "PUB b.x r.{i} 1\r\nx\r\n").unwrap();
                    of_b.push(i);
                }
                40 | 71 => {
                    write!(text, "PUB core {}\r\n{i}\r\n", i.to_string().len()).unwrap();
                    of_core.push(i);
                }
                50 => {
                    text.push_str("PING\r\n");
                    pings += 1;
                }
                60 => text.push_str("SUB other 3\r\nUNSUB 3\r\n"),
                // A reply that is the servers' own is refused, and so is one message.
                80 => text.push_str("PUB a.y $JS.ACK.x 1\r\nx\r\n"),
                _ => {
                    let head = format!("NATS/1.0\r\nNats-Msg-Id: {i}\r\n\r\n");
                    let (h, all) = (head.len(), head.len() + 5);
                    write!(text, "HPUB a.x r.{i} {h} {all}\r\n{head}hello\r\n").unwrap();
                    of_a.push(i);
                }
            }
        }
        text.push_str("PING\r\n");
        pings += 1;
        let address = server.server.bound.lock().client.unwrap();
        let socket = env::net::TcpStream::connect(address).await.unwrap();
        let send = async {
            // Reads end in the middle of messages.
            for (n, mut part) in text.as_bytes().chunks(7001).enumerate() {
                while !part.is_empty() {
                    socket.writable().await.unwrap();
                    part = &part[socket.try_write(part).unwrap_or(0)..];
                }
                if n % 3 == 0 {
                    env::sleep(Duration::from_millis(2)).await;
                }
            }
        };
        let mut got = String::new();
        let receive = async {
            let answers = of_a.len() + of_b.len();
            let mut part = vec![0; 64 << 10];
            while got.matches("\"seq\":").count() < answers || got.matches("PONG\r\n").count() < pings {
                socket.readable().await.unwrap();
                let n = match socket.try_read(&mut part) {
                    Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => continue,
                    read => read.unwrap(),
                };
                assert!(n > 0, "the server hung up: {got}");
                got.push_str(std::str::from_utf8(&part[..n]).unwrap());
            }
        };
        env::timeout(PATIENCE, async { tokio::join!(send, receive) }).await.expect("all is answered");
        let acks = |stream: &str| -> Vec<(usize, usize)> {
            let body = format!("{{\"stream\":\"{stream}\",\"seq\":");
            let lines: Vec<&str> = got.lines().collect();
            let ack = |w: &[&str]| {
                let seq = w[1].strip_prefix(&body)?.strip_suffix('}')?;
                let reply = w[0].strip_prefix("MSG r.")?.split(' ').next()?;
                Some((reply.parse().unwrap(), seq.parse().unwrap()))
            };
            lines.windows(2).filter_map(ack).collect()
        };
        let want = |of: &[usize]| of.iter().copied().zip(1..).collect::<Vec<_>>();
        assert_eq!(acks("A"), want(&of_a));
        assert_eq!(acks("B"), want(&of_b));
        let core: Vec<usize> =
            got.split("MSG core 2 ").skip(1).map(|m| m.lines().nth(1).unwrap().parse().unwrap()).collect();
        assert_eq!(core, of_core);
        assert_eq!(got.matches("Permissions Violation for Publish with Reply").count(), 20);
        assert_eq!(got.matches("PONG\r\n").count(), pings);
        server.stop().await;
    });
}

/// Whoever exports the API to another account reads in its advisories which account asked, and who there only where that account shares it.
#[test]
fn advisories_say_no_more_of_a_foreign_client_than_its_import_shares() {
    run(|dir| async move {
        let text = r#"
            listen: "127.0.0.1:-1", server_name: here
            accounts {
                J { users [{user: j, password: x}], jetstream: enabled, exports [{service: "$JS.API.>", response_type: stream}] }
                P { users [{user: p, password: x}], imports [
                    {service: {account: J, subject: "$JS.API.>"}, to: "J.API.>"}
                    {service: {account: J, subject: "$JS.API.>"}, to: "S.API.>", share: true}] }
            }"#;
        let server = Running::start_text(&dir, text).await;
        let (j, p) = (server.user("j").await, server.user("p").await);
        let mut advisories = j.subscribe("$JS.EVENT.ADVISORY.API").await.unwrap();
        j.flush().await.unwrap();
        let here =
            ["start", "host", "id", "acc", "user", "lang", "ver", "rtt", "server", "kind", "client_type"];
        let shared = [
            "start",
            "host",
            "id",
            "acc",
            "svc",
            "user",
            "lang",
            "ver",
            "rtt",
            "server",
            "kind",
            "client_type",
        ];
        for (asker, api, keys) in [
            (&p, "J.API", &["acc", "svc", "rtt", "server"][..]),
            (&p, "S.API", &shared),
            (&j, "$JS.API", &here),
        ] {
            asker.request(format!("{api}.STREAM.NAMES"), "".into()).await.unwrap();
            let told = told(&mut advisories).await;
            let told: serde_json::Value = serde_json::from_slice(&told.payload).unwrap();
            let client = told["client"].as_object().unwrap();
            assert_eq!(client.keys().map(String::as_str).collect::<Vec<_>>(), keys, "{api}: {told}");
            assert_eq!((&client["acc"], &client["server"]), (&account_of(api), &"here".into()));
            assert_eq!(client.get("svc").is_some_and(|s| s == "J"), api != "$JS.API");
        }
        server.stop().await;
    });
}

fn account_of(api: &str) -> serde_json::Value {
    if api == "$JS.API" { "J".into() } else { "P".into() }
}

/// Whoever runs the server ends all streams of an account at once, and only he.
#[test]
fn clients_are_told_the_domain() {
    run(|dir| async move {
        for domain in [None, Some("hub".to_owned())] {
            let o = JetStreamOptions { domain: domain.clone(), ..JetStreamOptions::default() };
            let server = Running::start_with(&dir, o).await;
            let address = server.server.bound.lock().client.unwrap();
            let client = async_nats::connect(address.to_string()).await.unwrap();
            let info = client.server_info();
            assert_eq!((info.jetstream, info.domain.filter(|d| !d.is_empty())), (true, domain));
            server.stop().await;
        }
    });
}

#[test]
fn the_system_account_ends_the_streams_of_another() {
    run(|dir| async move {
        let text = r#"
            listen: "127.0.0.1:-1"
            accounts {
                A { users [{user: a, password: x}], jetstream: enabled }
                B { users [{user: b, password: x}], jetstream: enabled }
                SYS { users [{user: s, password: x}] }
            }
            system_account: SYS"#;
        let server = Running::start_text(&dir, text).await;
        let (a, b, s) = (server.user("a").await, server.user("b").await, server.user("s").await);
        let names = async |c: &async_nats::Client| -> serde_json::Value {
            let told = c.request("$JS.API.STREAM.NAMES", "".into()).await.unwrap();
            serde_json::from_slice::<serde_json::Value>(&told.payload).unwrap()["streams"].take()
        };
        for c in [&a, &b] {
            for name in ["S", "T"] {
                let config = format!(r#"{{"name":"{name}","subjects":["{name}"]}}"#);
                c.request(format!("$JS.API.STREAM.CREATE.{name}"), config.into()).await.unwrap();
            }
        }
        let purge = "$JS.API.ACCOUNT.PURGE.A";
        b.publish(purge, "".into()).await.unwrap();
        b.flush().await.unwrap();
        assert_eq!(names(&a).await, serde_json::json!(["S", "T"]));
        let told = s.request(purge, "".into()).await.unwrap();
        let told: serde_json::Value = serde_json::from_slice(&told.payload).unwrap();
        assert_eq!(told["initiated"], true);
        assert_eq!(
            (names(&a).await, names(&b).await),
            (serde_json::Value::Null, serde_json::json!(["S", "T"]))
        );
        for (subject, kind) in [("INFO", "account_info"), ("STREAM.NAMES", "system"), ("ANY.THING", "system")]
        {
            let told = s.request(format!("$JS.API.{subject}"), "".into()).await.unwrap();
            let told: serde_json::Value = serde_json::from_slice(&told.payload).unwrap();
            let kind = format!("io.nats.jetstream.api.v1.{kind}_response");
            assert_eq!((&told["type"], &told["error"]["err_code"]), (&kind.into(), &10039.into()));
        }
        server.stop().await;
    });
}

/// An account without JetStream that imports another's API as it is called there has that desk and no other.
#[test]
fn who_imports_the_whole_api_is_answered_by_its_owner_alone() {
    run(|dir| async move {
        let text = r#"
            listen: "127.0.0.1:-1"
            accounts {
                J { users [{user: j, password: x}], jetstream: enabled, exports [{service: "$JS.API.>", response_type: stream}] }
                P { users [{user: p, password: x}], imports [{service: {account: J, subject: "$JS.API.>"}}] }
                Q { users [{user: q, password: x}], imports [{service: {account: J, subject: "$JS.API.>"}, to: "J.API.>"}] }
            }"#;
        let server = Running::start_text(&dir, text).await;
        for (user, refused) in [("p", 0), ("q", 20)] {
            let c = server.user(user).await;
            let mut answers = c.subscribe("here").await.unwrap();
            // Were there two answers to each, the first as many would not all be the owner's.
            for _ in 0..20 {
                c.publish_with_reply("$JS.API.INFO", "here", "".into()).await.unwrap();
            }
            let mut n = 0;
            for _ in 0..20 {
                let told: serde_json::Value =
                    serde_json::from_slice(&told(&mut answers).await.payload).unwrap();
                n += i32::from(told["error"]["err_code"] == 10039);
            }
            assert_eq!(n, refused, "{user}");
        }
        // Who has no JetStream has no consumers either, and is told as if nobody were there.
        let q = server.user("q").await;
        for what in ["CONSUMER.MSG.NEXT.S.c", "DIRECT.GET.S", "DIRECT.GET.S.a"] {
            let none = q.request(format!("$JS.API.{what}"), "".into()).await.expect_err("nobody is there");
            assert_eq!(none.kind(), async_nats::client::RequestErrorKind::NoResponders, "{what}");
        }
        server.stop().await;
    });
}
