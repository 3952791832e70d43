//! What a message costs inside of the server, without sockets: `cargo bench -p fulmar-bench --bench message_path`.
//!
//! Each figure is the time of one message, since a batch is what a connection reads at once: parsing a batch, framing,
//! and the whole way through the broker into outboxes that are flushed into nothing once a batch. Figures to compare
//! with: docs/design/0006-message-path.md.

#![allow(missing_docs, reason = "criterion's macros document nothing")]

use std::{hint::black_box, io, io::IoSlice, sync::Arc, time::Duration};

use broker::{Broker, Kind, Link, LinkFlags, LinkOptions, Message, Outcome, Router, Transport};
use criterion::{
    BenchmarkGroup, Criterion, criterion_group, criterion_main,
    measurement::{Measurement, WallTime},
};
use fulmar_bench::Draw;
use identity::{Permissions, PermissionsConfig};
use wire::{
    Parsed,
    client::{Limits, Op, parse},
    frame::MsgHead,
};

/// Messages of a batch: what a read of 64 KiB brings of small ones.
const BATCH: usize = 512;
const LIMITS: Limits = Limits { max_control_line: 4096, max_payload: 1 << 20, headers: true };

/// Takes everything at once.
struct Nothing;

impl Transport for Nothing {
    fn try_write(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        Ok(black_box(bufs).iter().map(|b| b.len()).sum())
    }
}

fn link(broker: &Arc<Broker>) -> Arc<Link> {
    let link = Link::new(LinkOptions {
        id: broker.next_id(),
        kind: Kind::Client,
        worker: 0,
        pending_bytes_max: 64 << 20,
        transport: Some(Arc::new(Nothing)),
        inbound: None,
    });
    link.set_flags(LinkFlags::ECHO.with(LinkFlags::HEADERS).with(LinkFlags::NO_RESPONDERS));
    let account = broker.account_or_new("$G");
    assert!(account.bind(&account, &link), "the account has no limit");
    link
}

fn publisher(broker: &Arc<Broker>, link: Arc<Link>) -> Router {
    Router::new(broker.clone(), link, broker.account_or_new("$G"), 7)
}

fn subscribe(broker: &Arc<Broker>, n: usize, subject: &str, queue: &str) -> Vec<Arc<Link>> {
    let account = broker.account_or_new("$G");
    let one = |i: usize| {
        let link = link(broker);
        let sid = (i + 1).to_string();
        let sub = link.subscribe(&account, sid.as_bytes(), subject.as_bytes(), queue.as_bytes(), false);
        assert!(sub.is_ok_and(|s| s.is_some()), "a new sid");
        link
    };
    (0..n).map(one).collect()
}

/// A batch of PUBs as a client sends it.
fn batch(subject: impl Fn(usize) -> String, reply: &str, bytes: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for i in 0..BATCH {
        out.extend_from_slice(format!("PUB {} {reply}{bytes}\r\n", subject(i)).as_bytes());
        out.resize(out.len() + bytes, b'x');
        out.extend_from_slice(b"\r\n");
    }
    out
}

/// Cuts a batch into operations and hands each publish on.
#[inline]
fn each<'a>(mut buf: &'a [u8], mut f: impl FnMut(wire::client::Pub<'a>)) -> usize {
    let mut n = 0;
    while let Ok(Parsed::Op { op, used }) = parse(buf, &LIMITS) {
        if let Op::Pub(p) = op {
            f(p);
        }
        n += 1;
        buf = &buf[used..];
    }
    n
}

type Group<'a> = BenchmarkGroup<'a, WallTime>;

fn group<'a>(c: &'a mut Criterion, name: &str) -> Group<'a> {
    let mut group = c.benchmark_group(name);
    group.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1)).sample_size(50);
    group
}

/// Measures `f`, which does a batch, and reports the time of one message of it.
fn per_message(group: &mut Group<'_>, name: &str, mut f: impl FnMut()) {
    group.bench_function(name, |b| {
        b.iter_custom(|batches| {
            let start = WallTime.start();
            (0..batches).for_each(|_| f());
            WallTime.end(start) / BATCH as u32
        })
    });
}

fn parsing(c: &mut Criterion) {
    let mut group = group(c, "parse");
    for (name, reply, bytes) in
        [("PUB 16 B", "", 16), ("PUB 128 B", "", 128), ("PUB 128 B with a reply", "_INBOX.Yk3Qk0.4711 ", 128)]
    {
        let buf = batch(|_| "bench.subject".into(), reply, bytes);
        per_message(&mut group, name, || {
            let mut sum = 0;
            let n = each(black_box(&buf), |p| sum += p.subject.len() + p.reply.len() + p.body_crlf.len());
            assert_eq!(n, BATCH);
            black_box(sum);
        });
    }
    let block = "NATS/1.0\r\nNats-Msg-Id: 4711\r\n\r\n";
    let sizes = format!("{} {}", block.len(), block.len() + 128);
    let hpubs =
        format!("HPUB bench.subject {sizes}\r\n{block}{}\r\n", "x".repeat(128)).repeat(BATCH).into_bytes();
    let subs: Vec<u8> =
        (0..BATCH).flat_map(|i| format!("SUB orders.{i}.* workers {i}\r\n").into_bytes()).collect();
    for (name, buf) in [("HPUB 128 B", &hpubs), ("SUB", &subs)] {
        per_message(&mut group, name, || {
            let n = each(black_box(buf), |p| _ = black_box(p.header_len));
            assert_eq!(n, BATCH);
        });
    }
    group.finish();
}

fn framing(c: &mut Criterion) {
    let mut group = group(c, "frame");
    let mut head = MsgHead::default();
    per_message(&mut group, "head set", || {
        for _ in 0..BATCH {
            head.set(black_box(b"bench.subject"), black_box(b""), None, black_box(128));
        }
    });
    let mut out = Vec::with_capacity(64 * BATCH);
    per_message(&mut group, "head push", || {
        out.clear();
        for _ in 0..BATCH {
            head.push(black_box(b"17"), &mut out);
        }
        black_box(out.len());
    });
    group.finish();
}

/// The whole way of a batch: parse, plan, outboxes, one flush.
fn way(router: &mut Router, buf: &[u8], receivers: usize) {
    let n = each(buf, |p| {
        let m = Message {
            subject: p.subject,
            reply: p.reply,
            header_len: p.header_len,
            body_crlf: p.body_crlf,
            shared: None,
            shown: None,
        };
        let outcome = router.publish(&m);
        debug_assert_eq!(outcome, Outcome::Delivered(receivers));
        black_box(outcome);
    });
    assert_eq!(n, BATCH);
    router.flush();
}

fn publishing(c: &mut Criterion) {
    let mut group = group(c, "publish");
    for bytes in [16, 128] {
        for (name, subs, queue, reach) in [
            ("1 to 0", 0, "", 0),
            ("1 to 1", 1, "", 1),
            ("1 to 10", 10, "", 10),
            ("queue of 8", 8, "workers", 1),
        ] {
            let broker = Arc::new(Broker::default());
            let links = subscribe(&broker, subs, "bench.subject", queue);
            let mut router = publisher(&broker, link(&broker));
            let buf = batch(|_| "bench.subject".into(), "", bytes);
            per_message(&mut group, &format!("{name}, {bytes} B"), || {
                way(&mut router, black_box(&buf), reach)
            });
            let delivered: u64 = links.iter().map(|l| l.out_traffic().msgs).sum();
            assert_eq!(delivered > 0, reach > 0, "what was measured was delivered");
            assert!(links.iter().all(|l| l.pending_bytes() == 0), "and written");
        }
    }
    let broker = Arc::new(Broker::default());
    subscribe(&broker, 1, "bench.subject", "");
    let own = link(&broker);
    let mut config = PermissionsConfig::default();
    config.publish.allow.extend(["bench.>".to_string(), "_INBOX.*".to_string()]);
    own.set_permissions(Some(Arc::new(Permissions::compile(&config).expect("two subjects"))));
    let mut router = publisher(&broker, own);
    let buf = batch(|_| "bench.subject".into(), "", 128);
    per_message(&mut group, "1 to 1 with permissions, 128 B", || way(&mut router, black_box(&buf), 1));
    group.finish();
}

/// Finding the receivers: remembered under another subject than the last, and looked up in the trie.
fn plans(c: &mut Criterion) {
    let mut group = group(c, "plan");
    let broker = Arc::new(Broker::default());
    subscribe(&broker, 1, "bench.*", "");
    let mut draw = Draw(3);
    let mut others = Vec::new();
    for i in 0..20_000 {
        let a = draw.below(1000);
        others.extend(subscribe(&broker, 1, &format!("other.{a}.{i}"), ""));
    }
    let mut router = publisher(&broker, link(&broker));
    let two = batch(|i| format!("bench.{}", i % 2), "", 16);
    per_message(&mut group, "hit, 2 subjects in turn", || way(&mut router, black_box(&two), 1));
    let many = batch(|i| format!("bench.{i}"), "", 16);
    per_message(&mut group, "hit, 512 subjects in turn", || way(&mut router, black_box(&many), 1));
    // Far more subjects than are remembered come in turn, so each is met as if for the first time.
    let fresh: Vec<Vec<u8>> =
        (0..100).map(|n| batch(|i| format!("bench.{:05}", n * BATCH + i), "", 16)).collect();
    let mut turn = 0;
    per_message(&mut group, "miss, 20,000 subscriptions", || {
        turn = (turn + 1) % fresh.len();
        way(&mut router, black_box(&fresh[turn]), 1);
    });
    group.finish();
}

criterion_group!(benches, parsing, framing, publishing, plans);
criterion_main!(benches);
