//! The broker as a whole, with transports that remember what was written.

use std::{
    collections::BTreeMap,
    io::{self, IoSlice},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::{rules::*, *};

/// A peer that takes what `room` allows and remembers it.
#[derive(Default)]
struct Wire {
    got: Mutex<Vec<u8>>,
    room: Mutex<Option<usize>>,
}

impl Transport for Wire {
    fn try_write(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut n = 0;
        for b in bufs {
            let mut room = self.room.lock();
            let take = room.map_or(b.len(), |r| r.min(b.len()));
            if let Some(r) = &mut *room {
                *r -= take;
            }
            self.got.lock().extend_from_slice(&b[..take]);
            n += take;
            if take < b.len() {
                break;
            }
        }
        if n == 0 && bufs.iter().any(|b| !b.is_empty()) {
            Err(io::ErrorKind::WouldBlock.into())
        } else {
            Ok(n)
        }
    }
}

struct Peer {
    link: Arc<Link>,
    wire: Arc<Wire>,
    router: Router,
}

impl Peer {
    fn new(b: &Arc<Broker>, account: &str) -> Peer {
        let wire = Arc::new(Wire::default());
        let link = Link::new(LinkOptions {
            id: b.next_id(),
            kind: Kind::Client,
            worker: 0,
            pending_bytes_max: 1 << 20,
            transport: Some(wire.clone()),
            inbound: None,
        });
        link.set_flags(LinkFlags::ECHO.with(LinkFlags::HEADERS).with(LinkFlags::NO_RESPONDERS));
        let account = b.account_or_new(account);
        assert!(account.bind(&account, &link));
        let router = Router::new(b.clone(), link.clone(), account, link.id);
        Peer { link, wire, router }
    }
    fn sub(&self, subject: &str, queue: &str, sid: &str) {
        let a = self.router.account();
        self.link.subscribe(a, sid.as_bytes(), subject.as_bytes(), queue.as_bytes(), false).unwrap();
    }
    fn unsub(&self, sid: &str, max: u64) {
        self.link.unsubscribe(self.router.account(), sid.as_bytes(), max);
    }
    fn publish(&mut self, subject: &str, reply: &str, body: &str) -> Outcome {
        let body = format!("{body}\r\n");
        self.publish_raw(subject, reply, 0, body.as_bytes())
    }
    fn publish_raw(&mut self, subject: &str, reply: &str, header_len: usize, body_crlf: &[u8]) -> Outcome {
        let (subject, reply) = (subject.as_bytes(), reply.as_bytes());
        let n = self.router.publish(&Message {
            subject,
            reply,
            header_len,
            body_crlf,
            shared: None,
            shown: None,
        });
        self.router.flush();
        n
    }
    fn got(&self) -> String {
        String::from_utf8(std::mem::take(&mut self.wire.got.lock())).unwrap()
    }
}

#[test]
fn b1_everybody_who_matches_gets_it_in_order() {
    let b = Arc::new(Broker::default());
    let (mut p, q) = (Peer::new(&b, "A"), Peer::new(&b, "A"));
    q.sub("foo.*", "", "1");
    q.sub("foo.>", "", "22");
    p.sub(">", "", "3");
    assert_eq!(p.publish("foo.bar", "", "one"), Outcome::Delivered(3));
    assert_eq!(p.publish("foo.baz", "re", "two"), Outcome::Delivered(3));
    let got = q.got();
    let at = |s: &str| got.find(s).unwrap_or_else(|| panic!("{s:?} is not in {got:?}"));
    assert!(at("MSG foo.bar 1 3\r\none\r\n") < at("MSG foo.baz 1 re 3\r\ntwo\r\n"));
    assert!(at("MSG foo.bar 22 3\r\none\r\n") < at("MSG foo.baz 22 re 3\r\ntwo\r\n"));
    assert_eq!(p.got(), "MSG foo.bar 3 3\r\none\r\nMSG foo.baz 3 re 3\r\ntwo\r\n");
    assert_eq!((q.link.out_traffic().msgs, b.stats.in_msgs.get(), b.stats.out_msgs.get()), (4, 2, 6));
}

/// What stands in shared memory is written from there, and its line's end behind it: for one receiver, who takes it as it is.
#[test]
fn b1_a_body_without_its_line_end_arrives_whole_and_in_order() {
    let b = Arc::new(Broker::default());
    let (p, q) = (Peer::new(&b, "A"), Peer::new(&b, "A"));
    q.sub("a", "", "1");
    let mut s = Sender::new(b.clone(), p.link.clone(), p.router.account().clone(), 1);
    let body = Bytes::from(vec![b'x'; 70_000]);
    let loose = Loose { subject: b"a", shown: b"shown", reply: b"", header_len: 0, body: &body };
    let whole =
        Message { subject: b"a", reply: b"", header_len: 0, body_crlf: b"y\r\n", shared: None, shown: None };
    assert_eq!((s.send_loose(&loose), s.send(&whole), s.send_loose(&loose)), (Some(1), 1, Some(1)));
    s.flush();
    let text = "x".repeat(70_000);
    let one = format!("MSG shown 1 70000\r\n{text}\r\n");
    assert!(q.got() == format!("{one}MSG a 1 1\r\ny\r\n{one}"));
    let sent = (q.link.out_traffic().msgs, q.link.out_traffic().bytes);
    assert_eq!(sent, (3, 140_001));
    // Headers are a part of it, and go to who takes headers.
    assert_eq!(s.send_loose(&Loose { header_len: 5, ..loose }), Some(1));
    s.flush();
    assert!(q.got().starts_with("HMSG shown 1 5 70000\r\nx"));
    q.link.set_flags(LinkFlags::ECHO);
    assert_eq!(s.send_loose(&Loose { header_len: 5, ..loose }), None);
    // Of several receivers each would have it in one piece.
    p.sub("a", "", "1");
    assert_eq!((s.send_loose(&loose), q.got().len()), (None, 0));
}

#[test]
fn b2_one_member_of_a_group_gets_it_and_all_get_their_share() {
    let b = Arc::new(Broker::default());
    let mut p = Peer::new(&b, "A");
    let members: Vec<_> = (0..4).map(|_| Peer::new(&b, "A")).collect();
    for (i, m) in members.iter().enumerate() {
        m.sub(if i % 2 == 0 { "q.>" } else { "q.*" }, "workers", "1");
    }
    for _ in 0..4000 {
        assert_eq!(p.publish("q.x", "", ""), Outcome::Delivered(1));
    }
    let shares: Vec<u64> = members.iter().map(|m| m.link.out_traffic().msgs).collect();
    assert_eq!(shares.iter().sum::<u64>(), 4000);
    assert!(shares.iter().all(|n| (800..1200).contains(n)), "{shares:?}");
}

#[test]
fn b4_a_maximum_is_kept() {
    let b = Arc::new(Broker::default());
    let mut p = Peer::new(&b, "A");
    let q = Peer::new(&b, "A");
    q.sub("foo", "", "1");
    q.unsub("1", 2);
    for _ in 0..4 {
        p.publish("foo", "", "x");
    }
    assert_eq!(q.got(), "MSG foo 1 1\r\nx\r\n".repeat(2));
    assert_eq!((q.link.subscriptions(), p.router.account().subscriptions()), (0, 0));
    // Already past it: it ends at once.
    q.sub("foo", "", "2");
    p.publish("foo", "", "x");
    q.unsub("2", 1);
    assert_eq!(q.link.subscriptions(), 0);
}

#[test]
fn a_sid_in_use_stays_as_it_is() {
    let b = Arc::new(Broker::default());
    let mut p = Peer::new(&b, "A");
    p.sub("foo", "", "1");
    p.sub("bar", "", "1");
    assert_eq!(p.publish("bar", "", ""), Outcome::Delivered(0));
    assert_eq!(p.publish("foo", "", ""), Outcome::Delivered(1));
}

#[test]
fn echo_headers_and_no_responders() {
    let b = Arc::new(Broker::default());
    let (mut p, q) = (Peer::new(&b, "A"), Peer::new(&b, "A"));
    p.link.set_flags(LinkFlags::HEADERS.with(LinkFlags::NO_RESPONDERS));
    q.link.set_flags(LinkFlags::ECHO);
    p.sub("foo", "", "1");
    p.sub("inbox.*", "", "2");
    q.sub("foo", "", "9");
    p.publish_raw("foo", "", 12, b"NATS/1.0\r\n\r\nhi\r\n");
    assert_eq!(p.got(), "");
    assert_eq!(q.got(), "MSG foo 9 2\r\nhi\r\n");
    p.publish("nobody", "inbox.1", "?");
    assert_eq!(p.got(), "HMSG inbox.1 2 38 38\r\nNATS/1.0 503\r\nNats-Subject: nobody\r\n\r\n\r\n");
    // No reply subscription of its own: no answer, to nobody.
    p.publish("nobody", "other", "?");
    assert_eq!(p.got(), "");
    // Answers of the server are no messages.
    assert_eq!((p.link.out_traffic().msgs, p.link.out_traffic().bytes), (0, 0));
    assert_eq!((b.stats.in_msgs.get(), b.stats.out_msgs.get(), b.stats.out_bytes.get()), (3, 1, 2));
    let a = p.router.account().stats.out_msgs.get();
    assert_eq!(a, 1);
}

#[test]
fn b5_who_does_not_read_is_closed() {
    let b = Arc::new(Broker::default());
    let mut p = Peer::new(&b, "A");
    let (slow, fast) = (Peer::new(&b, "A"), Peer::new(&b, "A"));
    slow.sub("foo", "", "1");
    fast.sub("foo", "", "1");
    *slow.wire.room.lock() = Some(1000);
    let body = "x".repeat(60_000);
    for _ in 0..40 {
        p.publish("foo", "", &body);
        assert!(slow.link.pending_bytes() <= (1 << 20) + 61_000);
        fast.got();
    }
    assert_eq!(slow.link.closed(), Some(Closed::SlowConsumerPendingBytes));
    assert_eq!(slow.link.pending_bytes(), 0);
    assert_eq!(fast.link.closed(), None);
    assert_eq!((fast.link.out_traffic().msgs, b.stats.slow_consumers.get()), (40, 1));
}

#[test]
fn b5_who_does_not_read_answers_is_closed() {
    let b = Arc::new(Broker::default());
    let p = Peer::new(&b, "A");
    b.add_link(&p.link);
    *p.wire.room.lock() = Some(1000);
    for _ in 0..300_000 {
        p.link.push(|out| out.extend_from_slice(b"PONG\r\n"));
        assert!(p.link.pending_bytes() <= (1 << 20) + 6);
    }
    assert_eq!(p.link.closed(), Some(Closed::SlowConsumerPendingBytes));
    b.remove_link(p.link.id);
    assert_eq!(b.stats.slow_consumers.get(), 1);
}

#[test]
fn partial_writes_lose_and_repeat_nothing() {
    let b = Arc::new(Broker::default());
    let mut p = Peer::new(&b, "A");
    let q = Peer::new(&b, "A");
    q.sub("foo", "", "1");
    let mut expected = String::new();
    for i in 0..200usize {
        let body = "y".repeat(i * 97 % 9000);
        *q.wire.room.lock() = Some(i * 31 % 5000);
        p.publish("foo", "", &body);
        expected += &format!("MSG foo 1 {}\r\n{body}\r\n", body.len());
    }
    *q.wire.room.lock() = None;
    q.link.flush();
    assert_eq!(q.got(), expected);
    assert_eq!((q.link.pending_bytes(), q.link.blocked_since()), (0, None));
}

#[test]
fn b6_many_outboxes_are_written_in_the_middle_of_a_batch_and_at_its_end() {
    let b = Arc::new(Broker::default());
    let mut p = Peer::new(&b, "A");
    let all: Vec<_> = (0..128).map(|_| Peer::new(&b, "A")).collect();
    all.iter().for_each(|q| q.sub("x", "", "1"));
    let body_crlf = format!("{}\r\n", "x".repeat(102));
    let mut most = 0;
    for _ in 0..1000 {
        p.router.publish(&Message {
            subject: b"x",
            reply: b"",
            header_len: 0,
            body_crlf: body_crlf.as_bytes(),
            shared: None,
            shown: None,
        });
        most = most.max(all.iter().map(|q| q.link.pending_bytes()).sum());
    }
    assert!((3 << 20..5 << 20).contains(&most), "{most}");
    assert_eq!(p.router.touched(), 128, "each is undertaken once");
    assert!(all.iter().all(|q| q.link.pending_bytes() > 0), "the rest waits for the end");
    p.router.flush();
    for q in &all {
        assert_eq!(
            (q.link.pending_bytes(), q.got().len()),
            (0, 1000 * ("MSG x 1 102\r\n".len() + 104)),
            "B-6"
        );
    }
}

fn rules(list: Vec<(&str, Rules)>) -> BTreeMap<Arc<str>, Rules> {
    list.into_iter().map(|(n, r)| (n.into(), r)).collect()
}

fn export(service: bool, subject: &str, responses: Responses) -> Export {
    Export {
        service,
        subject: subject.into(),
        accounts: None,
        account_token: 0,
        responses,
        threshold: Duration::from_secs(120),
        latency: None,
        allow_trace: false,
    }
}

fn import(service: bool, subject: &str, to: Option<&str>) -> Import {
    Import {
        service,
        account: "A".into(),
        subject: subject.into(),
        to: to.map(Into::into),
        share: false,
        allow_trace: false,
    }
}

#[test]
fn b3_streams_cross_by_import_only() {
    let b = Arc::new(Broker::default());
    let (mut a, other, early) = (Peer::new(&b, "A"), Peer::new(&b, "C"), Peer::new(&b, "B"));
    early.sub("p.foo.one", "", "7");
    let give = Rules { exports: vec![export(false, "foo.>", Responses::One)], ..Rules::default() };
    let take = Rules { imports: vec![import(false, "foo.>", Some("p.foo.>"))], ..Rules::default() };
    b.configure(&rules(vec![("A", give.clone()), ("B", take)])).unwrap();
    let late = Peer::new(&b, "B");
    for (subject, sid) in [(">", "1"), ("p.*.one", "2"), ("p.foo.two", "3"), ("foo.>", "4")] {
        late.sub(subject, "", sid);
    }
    other.sub(">", "", "1");
    a.publish("foo.one", "r", "x");
    a.publish("bar", "", "x");
    let mut got: Vec<_> = late.got().split_inclusive("x\r\n").map(str::to_string).collect();
    got.sort();
    assert_eq!(got, ["MSG p.foo.one 1 r 1\r\nx\r\n", "MSG p.foo.one 2 r 1\r\nx\r\n"]);
    assert_eq!(early.got(), "MSG p.foo.one 7 r 1\r\nx\r\n");
    assert_eq!(other.got(), "");
    // A maximum counts what comes by import too.
    late.unsub("1", 2);
    a.publish("foo.three", "", "x");
    a.publish("foo.four", "", "x");
    assert_eq!(late.got(), "MSG p.foo.three 1 1\r\nx\r\n");
    // The import goes: nothing crosses any more, and no shadow is left behind.
    b.configure(&rules(vec![("A", give)])).unwrap();
    a.publish("foo.one", "", "x");
    assert_eq!((early.got(), late.got()), (String::new(), String::new()));
    assert_eq!(a.router.account().subscriptions(), 0);
}

#[test]
fn services_cross_and_answers_come_back() {
    let b = Arc::new(Broker::default());
    let give = Rules {
        exports: vec![
            export(true, "svc.*", Responses::One),
            export(true, "many", Responses::Many),
            export(true, "chunks", Responses::Chunked),
        ],
        ..Rules::default()
    };
    let take = Rules {
        imports: vec![
            import(true, "svc.*", Some("my.*.svc")),
            import(true, "many", None),
            import(true, "chunks", None),
        ],
        ..Rules::default()
    };
    b.configure(&rules(vec![("A", give), ("B", take)])).unwrap();
    let (mut server, mut client) = (Peer::new(&b, "A"), Peer::new(&b, "B"));
    client.sub("inbox", "", "1");
    // Nobody serves: 503, and nothing waits.
    client.publish("my.x.svc", "inbox", "?");
    assert!(client.got().contains("NATS/1.0 503"));
    assert_eq!(server.router.account().waiting_requests(), 0);
    for (s, sid) in [("svc.*", "5"), ("many", "6"), ("chunks", "7")] {
        server.sub(s, "", sid);
    }
    let ask = |client: &mut Peer, subject: &str| {
        assert_eq!(client.publish(subject, "inbox", "?"), Outcome::Delivered(1));
        let got = server.got();
        let reply = got.split(' ').find(|w| w.starts_with("_R_.")).unwrap().to_string();
        (got, reply)
    };
    let (got, one) = ask(&mut client, "my.x.svc");
    assert!(got.starts_with("MSG svc.x 5 _R_."), "{got}");
    let (_, many) = ask(&mut client, "many");
    let (_, chunks) = ask(&mut client, "chunks");
    for (reply, bodies, through) in [(&one, ["a", "b"], 1), (&many, ["a", ""], 2), (&chunks, ["", "b"], 1)] {
        for body in bodies {
            server.publish(reply, "", body);
        }
        assert_eq!(client.got().matches("MSG inbox 1 ").count(), through, "{reply}");
    }
    assert_eq!(server.router.account().waiting_requests(), 1);
    let mut d = Deliveries::new(b.clone(), 1);
    server.router.account().sweep(&b, &mut d, env::now() + Duration::from_secs(121));
    assert_eq!(server.router.account().waiting_requests(), 0);
}

#[test]
fn an_import_may_name_the_exporters_wildcards_in_its_own_order() {
    let b = Arc::new(Broker::default());
    let give = Rules {
        exports: vec![export(true, "svc.*.*", Responses::One), export(false, "kv.*", Responses::One)],
        ..Rules::default()
    };
    let imports = vec![import(true, "svc.*.*", Some("my.$2.$1")), import(false, "kv.*", Some("$KV.*"))];
    b.configure(&rules(vec![("A", give.clone()), ("B", Rules { imports, ..Rules::default() })])).unwrap();
    let (mut server, mut client) = (Peer::new(&b, "A"), Peer::new(&b, "B"));
    server.sub("svc.>", "", "1");
    client.sub("$KV.x", "", "2");
    assert_eq!(client.publish("my.one.two", "", "?"), Outcome::Delivered(1));
    assert_eq!(server.got(), "MSG svc.two.one 1 1\r\n?\r\n");
    server.publish("kv.x", "", "!");
    assert_eq!(client.got(), "MSG $KV.x 2 1\r\n!\r\n");
    // One that there is not, and one that is left out.
    for to in ["my.$3.$1", "my.$1.x"] {
        let imports = vec![import(true, "svc.*.*", Some(to))];
        let all = rules(vec![("A", give.clone()), ("B", Rules { imports, ..Rules::default() })]);
        let wrong = b.configure(&all).unwrap_err();
        assert!(wrong.len() == 1 && wrong[0].contains("invalid mapping destination"), "{to}: {wrong:?}");
    }
}

/// The owner of a service moves it to another subject, or a part of its requests, wherever they come from.
#[test]
fn requests_from_other_accounts_follow_the_exporters_mappings() {
    let b = Arc::new(Broker::default());
    let mut mappings = subject::Mappings::new();
    mappings.add(subject::Mapping::simple(b"svc.old", b"svc.new").unwrap());
    let some = |s: &str| subject::Destination { subject: s.into(), weight: 0, cluster: None };
    mappings.add(subject::Mapping::new(b"svc.shut", &[some("svc.shut")]).unwrap());
    let exports = vec![export(true, "svc.*", Responses::One)];
    let give = Rules { exports, mappings, ..Rules::default() };
    let take = Rules { imports: vec![import(true, "svc.*", Some("my.*"))], ..Rules::default() };
    b.configure(&rules(vec![("A", give), ("B", take)])).unwrap();
    let (mut server, mut client) = (Peer::new(&b, "A"), Peer::new(&b, "B"));
    server.sub("svc.>", "", "1");
    client.sub("inbox", "", "2");
    assert_eq!(client.publish("my.old", "inbox", "?"), Outcome::Delivered(1));
    let got = server.got();
    let reply = got.strip_prefix("MSG svc.new 1 ").and_then(|r| r.split(' ').next()).unwrap().to_string();
    server.publish(&reply, "", "!");
    assert_eq!(client.got(), "MSG inbox 2 1\r\n!\r\n");
    client.publish("my.other", "", "?");
    assert_eq!(server.got(), "MSG svc.other 1 1\r\n?\r\n");
    // What they let nobody have is answered by nobody, in either account.
    client.publish("my.shut", "inbox", "?");
    server.sub("back", "", "3");
    server.publish("svc.shut", "back", "?");
    for (got, sid, subject) in [(client.got(), "inbox 2", "my.shut"), (server.got(), "back 3", "svc.shut")] {
        let header = format!("NATS/1.0 503\r\nNats-Subject: {subject}\r\n\r\n");
        assert_eq!(got, format!("HMSG {sid} {0} {0}\r\n{header}\r\n", header.len()));
    }
}

#[test]
fn mappings_rename_what_is_published() {
    let b = Arc::new(Broker::default());
    let mut mappings = subject::Mappings::new();
    mappings.add(subject::Mapping::simple(b"a.*", b"b.$1").unwrap());
    let half = |s: &str| subject::Destination { subject: s.into(), weight: 50, cluster: None };
    mappings.add(subject::Mapping::new(b"w", &[half("w.1"), half("w.2")]).unwrap());
    b.configure(&rules(vec![("A", Rules { mappings, ..Rules::default() })])).unwrap();
    let mut p = Peer::new(&b, "A");
    p.sub("b.*", "", "1");
    p.sub("a.*", "", "2");
    p.sub("w.1", "", "3");
    p.sub("w.2", "", "4");
    p.publish("a.x", "", "");
    assert_eq!(p.got(), "MSG b.x 1 0\r\n\r\n");
    for _ in 0..1000 {
        assert_eq!(p.publish("w", "", ""), Outcome::Delivered(1));
    }
    let ones = p.got().matches("MSG w.1 ").count();
    assert!((400..600).contains(&ones), "{ones}");
}

#[test]
fn a_full_account_takes_no_more() {
    let b = Arc::new(Broker::default());
    let limits = AccountLimits { connections_max: Some(1), ..AccountLimits::default() };
    b.configure(&rules(vec![("A", Rules { limits, ..Rules::default() })])).unwrap();
    let p = Peer::new(&b, "A");
    let extra = Link::new(LinkOptions {
        id: 99,
        kind: Kind::Client,
        worker: 0,
        pending_bytes_max: 1,
        transport: None,
        inbound: None,
    });
    let a = b.account("A").unwrap();
    assert!(!a.bind(&a, &extra));
    a.unbind(&p.link);
    assert!(a.bind(&a, &extra));
}

/// A receiver inside the server that takes at most so many messages together.
struct Mill {
    most: usize,
    got: Arc<Mutex<Vec<(String, bool)>>>,
}

impl Mill {
    fn take(&self, m: &Message<'_>, together: bool) {
        self.got.lock().push((String::from_utf8(m.payload().to_vec()).unwrap(), together));
    }
}

impl Inbound for Mill {
    fn serves(&self) -> bool {
        false
    }
    fn listens(&self, _: &[u8]) -> bool {
        true
    }
    fn deliver(&self, _: &mut Deliveries, _: &Sub, _: &Arc<Link>, m: &Message<'_>) -> bool {
        self.take(m, false);
        m.payload() != b"refused"
    }
    fn takes_runs(&self) -> bool {
        true
    }
    fn deliver_run(&self, _: &mut Deliveries, ms: &[Message<'_>]) -> usize {
        let taken = ms.iter().take(self.most).take_while(|m| m.payload() != b"refused");
        taken.map(|m| self.take(m, true)).count()
    }
}

/// Publishes as a connection does: what joins a run goes with it.
fn publish_together(p: &mut Peer, all: &[(&str, &str)]) {
    let bodies: Vec<String> = all.iter().map(|(_, body)| format!("{body}\r\n")).collect();
    let mut run = Run::default();
    for ((subject, _), body) in all.iter().zip(&bodies) {
        let (subject, reply, body_crlf) = (subject.as_bytes(), &b"inbox.1"[..], body.as_bytes());
        let m = Message { subject, reply, header_len: 0, body_crlf, shared: None, shown: None };
        if p.router.runs() && p.router.joins(&m) {
            run.push(m);
            if run.is_full() {
                p.router.publish_run(&mut run);
            }
        } else {
            p.router.publish_run(&mut run);
            p.router.publish(&m);
        }
    }
    p.router.publish_run(&mut run);
    p.router.flush();
}

#[test]
fn b1_what_goes_together_keeps_its_order_and_reaches_nobody_twice() {
    let b = Arc::new(Broker::default());
    let mut p = Peer::new(&b, "A");
    let q = Peer::new(&b, "A");
    let got = Arc::new(Mutex::new(Vec::new()));
    let mill = Link::new(LinkOptions {
        id: b.next_id(),
        kind: Kind::Internal,
        worker: 0,
        pending_bytes_max: 0,
        transport: None,
        inbound: Some(Box::new(Mill { most: 20, got: got.clone() })),
    });
    mill.subscribe(p.router.account(), b"1", b"m.>", b"", false).unwrap();
    q.sub("other", "", "1");
    p.sub("inbox.*", "", "9");
    let bodies: Vec<String> = (0..100).map(|i| i.to_string()).collect();
    let subject = |i: usize| if i % 50 == 30 { "other" } else { ["m.1", "m.2"][i % 2] };
    let mut all: Vec<(&str, &str)> = bodies.iter().enumerate().map(|(i, s)| (subject(i), &s[..])).collect();
    all[70].1 = "refused";
    publish_together(&mut p, &all);
    let (want, others): (Vec<_>, Vec<_>) = all.iter().partition(|(s, _)| s.starts_with("m."));
    let came: Vec<String> = got.lock().iter().map(|(body, _)| body.clone()).collect();
    assert_eq!(came, want.iter().map(|(_, body)| body.to_string()).collect::<Vec<_>>());
    assert!(got.lock().iter().filter(|(_, together)| *together).count() > 80, "{:?}", got.lock());
    assert_eq!(q.got().matches("MSG other 1 inbox.1").count(), others.len());
    // Who is refused hears of it, and only he.
    assert_eq!(p.got().matches("NATS/1.0 503").count(), 1);
    assert_eq!((b.stats.in_msgs.get(), p.link.in_msgs.get()), (100, 100));
    // Somebody else listens as well: nothing goes by another way than alone.
    got.lock().clear();
    q.sub("m.2", "", "2");
    publish_together(&mut p, &all[..30]);
    let came = got.lock().clone();
    assert_eq!(came.iter().map(|(body, _)| &body[..]).collect::<Vec<_>>(), bodies[..30]);
    assert!(came.iter().all(|(body, together)| !together || body.parse::<usize>().unwrap() % 2 == 0));
    assert_eq!(q.got().matches("MSG m.2 2 inbox.1").count(), 15);
    // The receiver has gone.
    mill.unsubscribe(p.router.account(), b"1", 0);
    publish_together(&mut p, &[("m.1", "x"); 3]);
    assert_eq!(p.got().matches("NATS/1.0 503").count(), 3);
}

/// A desk: it acts on what it is told, and nobody listens behind it.
struct Acts(Arc<Mutex<Vec<String>>>);

impl Inbound for Acts {
    fn deliver(&self, _: &mut Deliveries, _: &Sub, _: &Arc<Link>, m: &Message<'_>) -> bool {
        self.0.lock().push(String::from_utf8(m.payload().to_vec()).unwrap());
        true
    }
    fn serves(&self) -> bool {
        true
    }
    fn listens(&self, _: &[u8]) -> bool {
        false
    }
}

fn inside(b: &Broker, inbound: Box<dyn Inbound>) -> Arc<Link> {
    Link::new(LinkOptions {
        id: b.next_id(),
        kind: Kind::Internal,
        worker: 0,
        pending_bytes_max: 0,
        transport: None,
        inbound: Some(inbound),
    })
}

fn whole<'a>(subject: &'a str, reply: &'a str, body_crlf: &'a str) -> Message<'a> {
    let (subject, reply, body_crlf) = (subject.as_bytes(), reply.as_bytes(), body_crlf.as_bytes());
    Message { subject, reply, header_len: 0, body_crlf, shared: None, shown: None }
}

#[test]
fn b11_what_the_server_says_is_no_request() {
    let b = Arc::new(Broker::default());
    let told = Arc::new(Mutex::new(Vec::new()));
    let a = b.account_or_new("A");
    let desk = inside(&b, Box::new(Acts(told.clone())));
    desk.subscribe(&a, b"1", b"do.>", b"", false).unwrap();
    desk.subscribe(&a, b"2", b"do.>", LOCAL_FIRST, false).unwrap();
    let own = inside(&b, Box::new(Acts(told.clone())));
    let mut sender = Sender::new(b.clone(), own.clone(), a.clone(), 1);
    // What asks in the server's name is heard, what answers in its name is not.
    assert_eq!(sender.send(&whole("do.it", "", "asked\r\n")), 2);
    own.set_flags(LinkFlags::ECHO.with(LinkFlags::NO_REQUESTS));
    assert_eq!(sender.send(&whole("do.it", "", "answered\r\n")), 0);
    let q = Peer::new(&b, "A");
    q.sub("do.*", "", "1");
    assert_eq!(sender.send(&whole("do.it", "", "answered\r\n")), 1);
    sender.flush();
    assert_eq!(q.got(), "MSG do.it 1 8\r\nanswered\r\n");
    assert_eq!(*told.lock(), ["asked", "asked"]);
}

#[test]
fn b11_an_answer_from_another_account_is_no_request_in_ones_own() {
    let b = Arc::new(Broker::default());
    let exports = vec![export(true, "svc", Responses::One)];
    let imports = vec![import(true, "svc", None)];
    b.configure(&rules(vec![
        ("A", Rules { exports, ..Rules::default() }),
        ("B", Rules { imports, ..Rules::default() }),
    ]))
    .unwrap();
    let told = Arc::new(Mutex::new(Vec::new()));
    let desk = inside(&b, Box::new(Acts(told.clone())));
    desk.subscribe(&b.account_or_new("B"), b"1", b"do.>", b"", false).unwrap();
    let (mut service, mut client) = (Peer::new(&b, "A"), Peer::new(&b, "B"));
    service.sub("svc", "", "1");
    let mut answers = |client: &mut Peer, to: &str| {
        client.publish("svc", to, "?");
        let line = service.got();
        let reply = line.split(' ').nth(3).unwrap_or_else(|| panic!("{line}")).to_owned();
        let listens = b.account_or_new("A").listens(reply.as_bytes());
        (listens, service.publish(&reply, "", "!"))
    };
    assert_eq!(answers(&mut client, "do.it"), (false, Outcome::Delivered(0)));
    client.sub("inbox", "", "1");
    assert_eq!(answers(&mut client, "inbox"), (true, Outcome::Delivered(1)));
    assert_eq!(client.got(), "MSG inbox 1 1\r\n!\r\n");
    assert!(told.lock().is_empty(), "{:?}", told.lock());
    // Asked as anybody asks, it is done.
    client.publish("do.it", "", "now");
    assert_eq!(*told.lock(), ["now"]);
}

#[test]
fn who_listens_has_subscribed() {
    let b = Arc::new(Broker::default());
    let imports = vec![import(false, "news", None)];
    b.configure(&rules(vec![
        ("A", Rules { exports: vec![export(false, "news", Responses::One)], ..Rules::default() }),
        ("B", Rules { imports, ..Rules::default() }),
    ]))
    .unwrap();
    let a = b.account_or_new("A");
    let nobody = Arc::new(Mutex::new(Vec::new()));
    let desk = inside(&b, Box::new(Acts(nobody)));
    desk.subscribe(&a, b"1", b">", b"", false).unwrap();
    desk.subscribe(&b.account_or_new("B"), b"2", b"news", b"", false).unwrap();
    let listens = |subject: &str| a.listens(subject.as_bytes());
    let awaits = |subject: &str, queue: &str| a.awaits(subject.as_bytes(), queue.as_bytes());
    assert!(a.has_interest(b"news") && !listens("news"));
    // Behind the import, in a group, by itself.
    let (far, near) = (Peer::new(&b, "B"), Peer::new(&b, "A"));
    far.sub("news", "", "1");
    assert!(listens("news") && awaits("news", "") && !awaits("news", "g") && !listens("x"));
    near.sub("x", "g", "1");
    assert!(listens("x") && awaits("x", "g") && !awaits("x", "h") && !awaits("x", ""));
    // Who hears all there is listens, and awaits nothing.
    near.sub(">", "", "2");
    assert!(listens("y") && !awaits("y", "") && !awaits("x", ""));
    far.unsub("1", 0);
    near.unsub("1", 0);
    near.unsub("2", 0);
    assert!(!listens("news") && !listens("x") && !awaits("x", "g"));
}
