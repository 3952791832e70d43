//! What the broker tells routes and takes from them, with routes that are buffers.

use std::{
    io::{self, IoSlice},
    sync::Arc,
};

use parking_lot::Mutex;

use crate::{rules::*, *};

/// A peer that takes all and remembers it.
#[derive(Default)]
struct Wire(Mutex<Vec<u8>>);

impl Transport for Wire {
    fn try_write(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut got = self.0.lock();
        bufs.iter().for_each(|b| got.extend_from_slice(b));
        Ok(bufs.iter().map(|b| b.len()).sum())
    }
}

fn link(b: &Broker, kind: Kind) -> (Arc<Link>, Arc<Wire>) {
    let wire = Arc::new(Wire::default());
    let link = Link::new(LinkOptions {
        id: b.next_id(),
        kind,
        worker: 0,
        pending_bytes_max: 1 << 20,
        transport: Some(wire.clone()),
        inbound: None,
    });
    link.set_flags(LinkFlags::ECHO.with(LinkFlags::HEADERS).with(LinkFlags::NO_RESPONDERS));
    (link, wire)
}

fn said(link: &Link, wire: &Wire) -> String {
    link.flush();
    String::from_utf8(std::mem::take(&mut wire.0.lock())).unwrap()
}

fn broker() -> Arc<Broker> {
    let b = Arc::new(Broker::default());
    b.enable_routes();
    b
}

struct Far {
    link: Arc<Link>,
    wire: Arc<Wire>,
    inbox: RouteInbox,
}

impl Far {
    fn new(b: &Arc<Broker>, carries: Carries) -> Far {
        let (link, wire) = link(b, Kind::Route);
        if let Carries::One(name) = &carries {
            link.carry_for(&b.account_or_new(name));
        }
        b.attach_route(RouteOut { link: link.clone(), carries, permissions: None });
        let inbox = RouteInbox::new(b.clone(), link.clone(), None, 7);
        Far { link, wire, inbox }
    }
    fn said(&self) -> String {
        said(&self.link, &self.wire)
    }
    fn wants(&self, b: &Broker, account: &str, subject: &str, queue: &str, weight: u32) {
        let a = b.account_or_new(account);
        let (s, q) = (subject.as_bytes(), queue.as_bytes());
        self.link.subscribe_route(&a, account.as_bytes(), s, q, weight).unwrap();
    }
    fn send(&mut self, account: &str, subject: &str, reply: &str, queues: &str, body: &str) {
        let body = format!("{body}\r\n");
        let m = Message {
            subject: subject.as_bytes(),
            reply: reply.as_bytes(),
            header_len: 0,
            body_crlf: body.as_bytes(),
            shared: None,
            shown: None,
        };
        self.inbox.publish(account.as_bytes(), &m, queues.as_bytes());
        self.inbox.flush();
    }
}

struct Near {
    link: Arc<Link>,
    wire: Arc<Wire>,
    router: Router,
}

impl Near {
    fn new(b: &Arc<Broker>, account: &str) -> Near {
        let (link, wire) = link(b, Kind::Client);
        let account = b.account_or_new(account);
        assert!(account.bind(&account, &link));
        let router = Router::new(b.clone(), link.clone(), account, link.id);
        Near { link, wire, router }
    }
    fn sub(&self, subject: &str, queue: &str, sid: &str) {
        let a = self.router.account();
        self.link.subscribe(a, sid.as_bytes(), subject.as_bytes(), queue.as_bytes(), false).unwrap();
    }
    fn unsub(&self, sid: &str) {
        self.link.unsubscribe(self.router.account(), sid.as_bytes(), 0);
    }
    fn publish(&mut self, subject: &str, reply: &str, body: &str) -> Outcome {
        let body = format!("{body}\r\n");
        let m = Message {
            subject: subject.as_bytes(),
            reply: reply.as_bytes(),
            header_len: 0,
            body_crlf: body.as_bytes(),
            shared: None,
            shown: None,
        };
        let n = self.router.publish(&m);
        self.router.flush();
        n
    }
    fn said(&self) -> String {
        said(&self.link, &self.wire)
    }
}

#[test]
fn b9_the_first_and_the_last_are_told() {
    let b = broker();
    let (p, q) = (Near::new(&b, "A"), Near::new(&b, "A"));
    p.sub("early", "", "0");
    let far = Far::new(&b, Carries::All);
    assert_eq!(far.said(), "RS+ A early\r\n");
    p.sub("foo", "", "1");
    q.sub("foo", "", "1");
    p.sub("foo", "g", "2");
    q.sub("foo", "g", "2");
    assert_eq!(far.said(), "RS+ A foo\r\nRS+ A foo g 1\r\nRS+ A foo g 2\r\n");
    p.unsub("1");
    p.unsub("2");
    assert_eq!(far.said(), "RS+ A foo g 1\r\n");
    q.link.unsubscribe_all(Some(q.router.account()));
    let gone = far.said();
    assert!(gone.contains("RS- A foo\r\n") && gone.contains("RS- A foo g\r\n") && gone.len() == 24, "{gone}");
    assert_eq!(b.account("A").unwrap().told(), 1);
    // Interest of others is told to nobody, and goes with its route.
    let other = Far::new(&b, Carries::All);
    assert_eq!(other.said(), "RS+ A early\r\n");
    far.wants(&b, "A", "theirs", "", 1);
    far.wants(&b, "N", "theirs", "q", 4);
    assert_eq!((far.said(), other.said()), (String::new(), String::new()));
    assert_eq!((b.account("A").unwrap().subscriptions(), b.account("N").unwrap().subscriptions()), (2, 1));
    b.detach_route(&far.link);
    assert_eq!((b.account("A").unwrap().subscriptions(), b.account("N").unwrap().subscriptions()), (1, 0));
    p.sub("more", "", "9");
    assert_eq!((far.said(), other.said()), (String::new(), "RS+ A more\r\n".into()));
}

#[test]
fn accounts_count_what_goes_and_comes_by_routes() {
    let b = broker();
    let (mut far, mut p, q) = (Far::new(&b, Carries::All), Near::new(&b, "A"), Near::new(&b, "A"));
    let other = Near::new(&b, "B");
    far.wants(&b, "A", "x", "", 1);
    p.sub("y", "", "1");
    q.sub("y", "", "1");
    other.sub("y", "", "1");
    let shown = |name: &str| {
        let s = &b.account(name).unwrap().stats;
        let received = [&s.in_msgs, &s.in_bytes, &s.route_in_msgs, &s.route_in_bytes];
        let sent = [&s.out_msgs, &s.out_bytes, &s.route_out_msgs, &s.route_out_bytes];
        (received.map(Counter::get), sent.map(Counter::get))
    };
    p.publish("x", "", "abc");
    assert_eq!(shown("A"), ([1, 3, 0, 0], [1, 3, 1, 3]));
    // What comes by a route is sent on to both who are here.
    far.send("A", "y", "", "", "hello");
    assert_eq!(shown("A"), ([2, 8, 1, 5], [3, 13, 1, 3]));
    far.send("B", "y", "", "", "hi");
    far.send("A", "nobody", "", "", "hi");
    assert_eq!(shown("A"), ([3, 10, 2, 7], [3, 13, 1, 3]));
    assert_eq!(shown("B"), ([1, 2, 1, 2], [1, 2, 0, 0]));
    assert_eq!((b.stats.out_msgs.get(), b.stats.route_out_msgs.get()), (4, 1));
}

#[test]
fn accounts_go_by_their_route() {
    let b = broker();
    let but: Arc<[Arc<str>]> = [Arc::from("P")].into();
    // With three, "A" falls on 0 and "$G" on 2.
    let share = |index| Carries::Share { index, size: 3, but: but.clone() };
    let far = [Far::new(&b, share(0)), Far::new(&b, share(2)), Far::new(&b, Carries::One("P".into()))];
    for name in ["A", "$G", "P"] {
        Near::new(&b, name).sub("x", "", "1");
    }
    let mut p = Near::new(&b, "P");
    p.sub("y", "q", "2");
    assert_eq!(far[0].said(), "RS+ A x\r\n");
    assert_eq!(far[1].said(), "RS+ $G x\r\n");
    assert_eq!(far[2].said(), "RS+ x\r\nRS+ y q 1\r\n");
    // A route of one account has lines without its name, both ways.
    let a = b.account("P").unwrap();
    far[2].link.subscribe_route(&a, b"", b"z", b"", 1).unwrap();
    p.publish("z", "", "hi");
    assert_eq!(far[2].said(), "RMSG z 2\r\nhi\r\n");
    // An account that gets a route of its own is told of there alone.
    b.withdraw_from_route(&far[0].link, "A");
    Near::new(&b, "A").sub("w", "", "1");
    assert_eq!(far[0].said(), "RS- A x\r\n");
}

#[test]
fn b9_other_permissions_tell_the_difference() {
    use identity::{Permissions, PermissionsConfig, SubjectPermission};
    let deny = |text: &str| SubjectPermission { deny: vec![text.to_owned()], ..SubjectPermission::default() };
    let config = PermissionsConfig { publish: deny("in.>"), subscribe: deny("out.>"), responses: None };
    let narrow = Some(Arc::new(Permissions::compile(&config).unwrap()));
    let b = broker();
    let near = Near::new(&b, "A");
    near.sub("in.x", "", "1");
    near.sub("in.q", "g", "2");
    near.sub("ok", "", "3");
    let mut far = Far::new(&b, Carries::All);
    far.wants(&b, "A", "out.x", "", 1);
    far.wants(&b, "A", "out.q", "g", 2);
    far.wants(&b, "A", "fine", "", 1);
    let sorted = |text: String| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    far.said();
    for _ in 0..2 {
        far.inbox.permit(narrow.clone());
        b.permit_route(&far.link, &narrow);
        assert_eq!(sorted(far.said()), ["RS- A in.q g", "RS- A in.x"]);
        assert_eq!(far.link.subscriptions(), 1, "what is not given is not known");
        assert_eq!(b.account("A").unwrap().subscriptions(), 4);
        near.sub("in.y", "", "4");
        far.send("A", "in.x", "", "", "no");
        assert_eq!((far.said(), near.said()), (String::new(), String::new()));
        // The same again says nothing.
        b.permit_route(&far.link, &narrow);
        assert_eq!(far.said(), "");
        far.inbox.permit(None);
        b.permit_route(&far.link, &None);
        assert_eq!(sorted(far.said()), ["RS+ A in.q g 1", "RS+ A in.x", "RS+ A in.y"]);
        far.send("A", "in.x", "", "", "yes");
        assert_eq!(near.said(), "MSG in.x 1 3\r\nyes\r\n");
        near.unsub("4");
        assert_eq!(far.said(), "RS- A in.y\r\n");
        far.wants(&b, "A", "out.x", "", 1);
    }
    // What the other end takes note of only now.
    b.repeat_to_route(&far.link, &|s, q| s == b"ok" || q == b"g");
    assert_eq!(sorted(far.said()), ["RS+ A in.q g 1", "RS+ A ok"]);
}

#[test]
fn b8_one_line_a_route_and_one_hop() {
    let b = broker();
    let (mut p, q) = (Near::new(&b, "A"), Near::new(&b, "A"));
    let (mut far, other) = (Far::new(&b, Carries::All), Far::new(&b, Carries::All));
    for pattern in ["foo.>", "foo.*", "foo.bar"] {
        far.wants(&b, "A", pattern, "", 1);
    }
    far.wants(&b, "A", "foo.bar", "g", 2);
    far.wants(&b, "A", "foo.*", "h", 1);
    other.wants(&b, "A", "foo.bar", "", 1);
    assert_eq!(p.publish("foo.bar", "re", "hi"), Outcome::Delivered(2));
    let line = far.said();
    assert!(
        line == "RMSG A foo.bar + re g h 2\r\nhi\r\n" || line == "RMSG A foo.bar + re h g 2\r\nhi\r\n",
        "{line}"
    );
    assert_eq!(other.said(), "RMSG A foo.bar re 2\r\nhi\r\n");
    // What comes from a route goes to clients alone, and to the groups that it names.
    q.sub("foo.bar", "", "1");
    q.sub("foo.bar", "g", "2");
    q.sub("foo.bar", "k", "3");
    far.said();
    other.said();
    far.send("A", "foo.bar", "", "", "one");
    assert_eq!(q.said(), "MSG foo.bar 1 3\r\none\r\n", "B-8");
    far.send("A", "foo.bar", "r", "k h", "two");
    assert_eq!(q.said(), "MSG foo.bar 1 r 3\r\ntwo\r\nMSG foo.bar 3 r 3\r\ntwo\r\n", "B-8");
    assert_eq!((far.said(), other.said()), (String::new(), String::new()), "B-8");
    // Nobody is made for an account that is not known, and a request that only a route hears has a responder.
    far.send("unknown", "foo.bar", "", "", "x");
    assert!(b.account("unknown").is_none());
    assert_eq!(p.publish("foo.none", "re", "?"), Outcome::Delivered(1));
    assert_eq!(p.publish("bar", "re", "?"), Outcome::Delivered(0));
}

#[test]
fn b2_members_are_drawn_by_weight() {
    let b = broker();
    let (mut p, q) = (Near::new(&b, "A"), Near::new(&b, "A"));
    let far = [Far::new(&b, Carries::All), Far::new(&b, Carries::All)];
    q.sub("w", "g", "1");
    far[0].wants(&b, "A", "w", "g", 1);
    far[0].wants(&b, "A", "w", "g", 2);
    far[1].wants(&b, "A", "w", "g", 3);
    let draw = |p: &mut Near| {
        far.iter().for_each(|f| drop(f.said()));
        q.said();
        for _ in 0..6000 {
            assert_eq!(p.publish("w", "", ""), Outcome::Delivered(1));
        }
        [
            q.said().matches("MSG w 1").count(),
            far[0].said().matches("RMSG A w | g 0").count(),
            far[1].said().matches("RMSG A w | g 0").count(),
        ]
    };
    let got = draw(&mut p);
    assert_eq!(got.iter().sum::<usize>(), 6000, "B-2");
    assert!(got.iter().zip([1000, 2000, 3000]).all(|(g, w)| g.abs_diff(w) < 200), "{got:?}");
    // A weight that changes counts from then on; a route that has closed gets nothing.
    far[1].wants(&b, "A", "w", "g", 1);
    let got = draw(&mut p);
    assert!(got.iter().zip([1500, 3000, 1500]).all(|(g, w)| g.abs_diff(w) < 200), "{got:?}");
    far[0].link.close(Closed::ReadError);
    let got = draw(&mut p);
    assert_eq!((got.iter().sum::<usize>(), got[1]), (6000, 0), "B-2");
    // The last member here leaves: the other server gets all.
    q.unsub("1");
    assert_eq!(draw(&mut p), [0, 0, 6000]);
}

#[test]
fn imports_are_done_once() {
    let b = broker();
    b.set_reply_token("tok");
    let give = Rules {
        exports: vec![Export {
            service: true,
            subject: b"svc".to_vec(),
            accounts: None,
            account_token: 0,
            responses: Responses::One,
            threshold: std::time::Duration::from_secs(120),
            latency: None,
            allow_trace: false,
        }],
        ..Rules::default()
    };
    let take = Rules {
        imports: vec![Import {
            service: true,
            account: "A".into(),
            subject: b"svc".to_vec(),
            to: None,
            share: false,
            allow_trace: false,
        }],
        ..Rules::default()
    };
    b.configure(&[("A".into(), give), ("B".into(), take)].into()).unwrap();
    let mut far = Far::new(&b, Carries::All);
    // The way back is told with this server's token; the import is not, since every server has it.
    assert_eq!(far.said(), "RS+ A _R_.tok.>\r\n");
    let (server, mut client) = (Near::new(&b, "A"), Near::new(&b, "B"));
    server.sub("svc", "", "1");
    client.sub("inbox", "", "1");
    far.said();
    // A request that has come by a route was imported where it came in.
    far.send("B", "svc", "r", "", "?");
    assert_eq!(server.said(), "");
    // A request from here is answered from afar.
    far.wants(&b, "A", "svc", "", 1);
    client.publish("svc", "inbox", "?");
    let line = far.said();
    let reply = line.split(' ').find(|w| w.starts_with("_R_.tok.")).unwrap_or_else(|| panic!("{line}"));
    assert!(line.starts_with("RMSG A svc _R_.tok."), "{line}");
    far.send("A", reply, "", "", "!");
    assert_eq!(client.said(), "MSG inbox 1 1\r\n!\r\n");
}

#[test]
fn a_group_that_is_not_shared_out_changes_hands_for_all_at_once() {
    let b = broker();
    let (one, two) = (Far::new(&b, Carries::All), Far::new(&b, Carries::All));
    let (here, mut publisher) = (Near::new(&b, "A"), Near::new(&b, "A"));
    let doors = format!("{}.7", String::from_utf8_lossy(MOST_FIRST));
    // Who gets the next hundred.
    let mut gets = || {
        (0..100).for_each(|_| drop(publisher.publish("s", "", "x")));
        let is_message = |l: &&str| l.starts_with("RMSG") || l.starts_with("MSG");
        [one.said(), two.said(), here.said()].map(|s| s.lines().filter(is_message).count())
    };
    one.wants(&b, "A", "s", &doors, 1);
    assert_eq!(gets(), [100, 0, 0]);
    // It says that it is about to leave; a second one joins: all go to the first as long as it is there.
    one.wants(&b, "A", "s", &doors, 2);
    two.wants(&b, "A", "s", &doors, 1);
    assert_eq!(gets(), [100, 0, 0]);
    one.link.unsubscribe_route(&b.account_or_new("A"), b"A", b"s", doors.as_bytes());
    assert_eq!(gets(), [0, 100, 0]);
    // The same with this server's own.
    two.wants(&b, "A", "s", &doors, 2);
    here.sub("s", &doors, "1");
    assert_eq!(gets(), [0, 100, 0]);
    two.wants(&b, "A", "s", &doors, 1);
    assert_eq!(gets(), [0, 0, 100], "of those with as many the nearest");
    here.sub("s", &doors, "2");
    one.wants(&b, "A", "s", &doors, 1);
    assert_eq!(gets(), [0, 0, 100]);
    here.unsub("2");
    // Others are shared out.
    here.unsub("1");
    for far in [&one, &two] {
        far.link.unsubscribe_route(&b.account_or_new("A"), b"A", b"s", doors.as_bytes());
    }
    one.wants(&b, "A", "s", "workers", 1);
    two.wants(&b, "A", "s", "workers", 1);
    let [a, c, _] = gets();
    assert!(a > 20 && c > 20 && a + c == 100, "{a} {c}");
}

/// A desk or a door at another server is nobody who listens, and what the server says goes to no desk there either.
#[test]
fn b11_what_the_server_says_goes_to_no_desk_of_another_server() {
    let b = broker();
    let far = Far::new(&b, Carries::All);
    let a = b.account_or_new("A");
    let (desks, doors) = (String::from_utf8_lossy(LOCAL_FIRST), String::from_utf8_lossy(MOST_FIRST));
    far.wants(&b, "A", "do.>", &desks, 1);
    far.wants(&b, "A", "s", &format!("{doors}.7"), 1);
    let listens = |subject: &str| a.listens(subject.as_bytes());
    assert!(a.has_interest(b"do.it") && !listens("do.it") && !listens("s"));
    let (own, _) = link(&b, Kind::Internal);
    own.set_flags(LinkFlags::ECHO.with(LinkFlags::NO_REQUESTS));
    let mut sender = Sender::new(b.clone(), own.clone(), a.clone(), 1);
    let mut says = |subject: &str| {
        let m = Message {
            subject: subject.as_bytes(),
            reply: b"",
            header_len: 0,
            body_crlf: b"x\r\n",
            shared: None,
            shown: None,
        };
        let n = sender.send(&m);
        sender.flush();
        (n, far.said())
    };
    assert_eq!(says("do.it"), (0, String::new()));
    assert_eq!(says("s").0, 1, "what is published again is stored there");
    // Whoever listens there is served, and he alone.
    far.wants(&b, "A", "do.*", "", 1);
    assert!(listens("do.it"));
    let (n, said) = says("do.it");
    assert!(n == 1 && said.starts_with("RMSG A do.it 1\r\n"), "{said}");
    own.set_flags(LinkFlags::ECHO);
    let (n, said) = says("do.it");
    assert!(n == 1 && said.contains(&*desks), "{said}");
}
