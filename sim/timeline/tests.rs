//! What was drawn is read again, element by element.

use super::*;
use crate::history::Violation;

/// A client asks, the server answers, dies, and what was on its way is never read.
const TRACE: &str = "\
trace               0 start            [1, 1]
trace             100 start            [2, 1]
server: [1100] started & <ready>
trace            2000 established      [7, 40000, 4222, 2, 1]
trace            3000 sent             [7, 0, 10]
trace            3500 sent             [7, 0, 5]
trace            9000 read             [7, 1, 12]
trace            9500 read             [7, 1, 3]
trace           12000 sent             [7, 1, 6]
trace           13000 cut              [2, 1]
trace         5000000 died             [1, 1]
trace      2000000000 start            [1, 2]
trace      2000000100 heal             [2, 1]
trace      2000000200 closed           [7, 0, 1]
write [1, 2]
{\"seed\":1}
";

fn timeline() -> Timeline {
    let names = ["harness", "server", "c0"].map(str::to_owned);
    let mut t = read(TRACE, &names);
    t.title = "seed 1 & more".into();
    t.violations = vec![Violation::new("B-1", "publish 3 (a.b by client 0 at 12000 ns) came twice".into())];
    t
}

#[test]
fn a_trace_is_read() {
    let t = timeline();
    assert_eq!((t.messages.len(), t.left_out), (3, 0));
    // Ten bytes were read with the first two of the next five; those five only with the last three.
    let read: Vec<Option<u64>> = t.messages.iter().map(|m| m.read).collect();
    assert_eq!(read, [Some(9_000), Some(9_500), None]);
    assert_eq!((t.messages[2].from, t.messages[2].to), (1, 2));
    let kinds: Vec<What> = t.points.iter().map(|p| p.what).collect();
    use What::{Close, Death, Fault, Heal, Log, Open, Start};
    assert_eq!(kinds, [Start, Start, Log, Open, Fault, Death, Start, Heal, Close]);
    assert_eq!((t.points[2].t, t.points[2].lane), (100, 1));
    assert_eq!(read_again(&t), read_again(&timeline()));
}

/// An element: name, attributes, text until the next tag.
type Element = (String, Vec<(String, String)>, String);

/// Reads a page strictly: every tag is closed in order, every attribute quoted, every ampersand an entity.
fn parse(page: &str) -> Vec<Element> {
    let body = page.strip_prefix("<!DOCTYPE html>\n").expect("a document type");
    let (mut all, mut open, mut rest) = (Vec::<Element>::new(), Vec::new(), body);
    while let Some(at) = rest.find('<') {
        let (text, tag) = rest.split_at(at);
        for part in text.split('&').skip(1) {
            let entity = part.split(';').next().unwrap_or_default();
            assert!(["amp", "lt", "gt", "quot"].contains(&entity), "a bare & in {text:?}");
        }
        if let Some(e) = all.last_mut().filter(|e| e.2.is_empty()) {
            e.2 = text.trim().to_owned();
        }
        let end = tag.find('>').expect("a tag ends");
        let inner = &tag[1..end];
        rest = &tag[end + 1..];
        if let Some(name) = inner.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(name), "tags are closed in order");
            continue;
        }
        let closed = inner.ends_with('/');
        let inner = inner.trim_end_matches('/');
        let (name, mut attributes) = inner.split_once(' ').unwrap_or((inner, ""));
        let mut found = Vec::new();
        while let Some((key, more)) = attributes.split_once("=\"") {
            let (value, more) = more.split_once('"').expect("a value ends");
            found.push((key.trim().to_owned(), value.to_owned()));
            attributes = more;
        }
        assert!(attributes.trim().is_empty(), "{inner}");
        all.push((name.to_owned(), found, String::new()));
        if !closed {
            open.push(name.to_owned());
        }
    }
    assert!(open.is_empty(), "left open: {open:?}");
    all
}

fn read_again(t: &Timeline) -> Vec<Element> {
    parse(&html(t))
}

fn class(e: &Element) -> &str {
    e.1.iter().find(|a| a.0 == "class").map_or("", |a| &a.1)
}
fn number(e: &Element, key: &str) -> u64 {
    let found = e.1.iter().find(|a| a.0 == key);
    found.unwrap_or_else(|| panic!("{key} in {e:?}")).1.parse().expect("a number")
}

#[test]
fn the_page_shows_all_of_it() {
    let t = timeline();
    let all = read_again(&t);
    let count = |name: &str| all.iter().filter(|e| class(e) == name).count();
    assert_eq!((count("lane"), count("name")), (3, 3));
    assert_eq!((count("message"), count("message unread")), (2, 1));
    assert_eq!(
        (count("start"), count("death"), count("fault"), count("heal"), count("log")),
        (3, 1, 1, 1, 1)
    );
    // The server was down once, and is up at the end.
    assert_eq!(count("down"), 1);
    // In the list and in the picture.
    assert_eq!(count("violation"), 2);
    let lanes: Vec<u64> = all.iter().filter(|e| class(e) == "lane").map(|e| number(e, "x1")).collect();
    for m in all.iter().filter(|e| class(e) == "message") {
        assert_eq!((number(m, "x1"), number(m, "x2")), (lanes[2], lanes[1]), "from the client to the server");
        assert!(number(m, "y2") > number(m, "y1"), "time runs downwards");
    }
    // The violation's line stands where its moment is: with the bytes that were sent then.
    let at = all.iter().position(|e| e.0 == "g" && class(e) == "violation").expect("it is drawn");
    let unread = all.iter().find(|e| class(e) == "message unread").expect("it is drawn");
    assert_eq!(number(&all[at + 1], "y1"), number(unread, "y1"));
    assert!(html(&t).contains("started &amp; &lt;ready&gt;"));
    assert!(!html(&t).contains("<script"));
    // The only ways lead from the list to the marks on the page itself.
    let to: Vec<&Element> = all.iter().filter(|e| e.0 == "a").collect();
    assert_eq!(to.len(), 1);
    assert!(to[0].1.iter().all(|a| a.0 == "href" && a.1 == "#v0"), "{to:?}");
    assert!(all.iter().any(|e| e.1.iter().any(|a| a.0 == "id" && a.1 == "v0")));
}

#[test]
fn an_empty_run_is_a_page_too() {
    let all = read_again(&read("", &[]));
    assert!(all.iter().any(|e| e.2 == "nothing was violated"), "{all:?}");
}

#[test]
fn a_long_run_keeps_its_end_and_its_faults() {
    let mut text = String::from(
        "trace 1 start [1, 1]\ntrace 2 cut [1, 2]\ntrace 3 established [7, 40000, 4222, 2, 1]\n",
    );
    for i in 0..20_000 {
        text += &format!("server: line {i}\ntrace {} sent [7, 0, 1]\n", 10 + i);
    }
    let t = read(&text, &["harness".into(), "server".into()]);
    assert_eq!((t.points.len(), t.messages.len()), (trace::POINTS_MAX, trace::MESSAGES_MAX));
    assert!(t.left_out > 30_000 && t.points[1].what == What::Fault);
    assert_eq!(t.points.last().map(|p| p.text.as_str()), Some("line 19999"));
    assert_eq!(t.lanes, ["harness", "server", "machine 2"]);
}

/// What the core's own simulator prints: a vote that waits for its write, an election, a commit, a crash, a cut.
const CORE: &str = r#"seed 9: R-6 at 190 ms: n2 votes twice in term 2
Plan { machines: 3, voters: 3, storm_ns: 1 }
     0.000 n1 starts
   100.000 partition [true, false, false] one way true
   101.000 n3 is paused until 150.500
   110.000 n1 Follower t1 d1 l1 c1 a1 <- Tick
            => Ready { messages: [], writes: [Write { token: Token { seq: 5 }, entries: [Entry { payload: b"}]\"(" }], replies: [Message { from: NodeId { id: 1, incarnation: 0 }, to: NodeId { id: 2, incarnation: 0 }, term: Term(2), body: Vote { last: 1 } }] }], notes: [] }
   120.000 n1 Candidate t2 d1 l1 c1 a1 <- Written(Token { seq: 5 })
            => Ready { messages: [], writes: [] }
   130.250 n2 Follower t2 d1 l1 c1 a1 <- Message(Message { from: NodeId { id: 1, incarnation: 0 }, to: NodeId { id: 2, incarnation: 0 }, term: Term(2), body: Vote { last: 1 } })
            => Ready { messages: [Message { from: NodeId { id: 2, incarnation: 0 }, to: NodeId { id: 1, incarnation: 0 }, term: Term(2), body: VoteReply { granted: true } }], writes: [] }
   140.000 n1 Leader t2 d1 l1 c1 a1 <- Tick
            => Ready { messages: [], writes: [] }
   145.000 mend
   160.000 n1 Leader t2 d1 l2 c2 a1 <- Tick
            => Ready { messages: [], writes: [] }
   190.000 n2 crashes, 0 unsynced writes survive
replay: cargo run
"#;

#[test]
fn a_trace_of_the_core_is_read() {
    let t = raft::read(CORE);
    assert_eq!(t.lanes, ["n1", "n2", "n3"]);
    let messages: Vec<(u64, Option<u64>, &str)> =
        t.messages.iter().map(|m| (m.sent / 1_000, m.read.map(|r| r / 1_000), m.label.as_str())).collect();
    // The vote left with its write, not with the decision; the answer was never taken.
    assert_eq!(
        messages,
        [(120_000, Some(130_250), "Vote, term 2"), (130_250, None, "VoteReply yes, term 2")]
    );
    let points: Vec<(u64, usize, What, &str)> =
        t.points.iter().map(|p| (p.t / 1_000_000, p.lane, p.what, p.text.as_str())).collect();
    use What::{Commit, Death, Elect, Fault, Heal, Pause, Resume, Role, Start};
    assert_eq!(
        points,
        [
            (0, 0, Start, "starts"),
            (100, 0, Fault, "cut from n2 n3 (one way)"),
            (101, 2, Pause, "stands still"),
            (110, 0, Role, "follows, term 1"),
            (120, 0, Role, "campaigns, term 2"),
            (130, 1, Role, "follows, term 2"),
            (140, 0, Elect, "leads, term 2"),
            (145, 0, Heal, "all cuts mend"),
            (150, 2, Resume, "goes on"),
            (160, 0, Commit, "commit 2"),
            (190, 1, Death, "n2 crashes, 0 unsynced writes survive"),
        ]
    );
    assert_eq!(t.violations[0].id, "R-6");
    let all = read_again(&t);
    let count = |name: &str| all.iter().filter(|e| class(e) == name).count();
    assert_eq!((count("elect"), count("commit"), count("label"), count("violation")), (1, 1, 2, 2));
    // Whatever is cut off or foreign, it is read without harm.
    for end in 0..CORE.len() {
        html(&raft::read(&CORE[..end]));
    }
}

#[test]
fn transitions_stand_in_their_machines_columns() {
    let text = table(&raft::read(CORE), 6);
    let lines: Vec<&str> = text.lines().collect();
    let column = |name: &str| lines[0].find(name).expect("the head names it");
    assert_eq!(lines.len(), 1 + 6 + 1, "{text}");
    let elected = lines.iter().find(|l| l.contains("leads")).expect("the election is there");
    assert_eq!(elected.find("leads"), Some(column("n1")), "{text}");
    let died = lines.iter().find(|l| l.contains("crashes")).expect("the death is there");
    assert_eq!(died.find("n2 crashes"), Some(column("n2")), "{text}");
    assert!(lines[7].starts_with("R-6: at 190000000 ns"), "{text}");
}
