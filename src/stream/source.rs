//! Mirrors and sources: where a copied message comes from, and what becomes of its headers and subject.
//!
//! Owns the `Nats-Stream-Source` header and the renaming by a source's transforms; what is asked of an origin that is elsewhere, and what its
//! messages mean ([`Session`]). Does not subscribe, send or wait.

use bytes::Bytes;
use serde_json::json;
use subject::Transform;

use crate::Stored;
use crate::config::Source;
use crate::consumer::AckTokens;
use crate::errors::{self, ApiError};
use crate::headers;

/// Nanoseconds between the signs of life of a consumer that nothing is to be delivered by.
const HEARTBEAT: i64 = 1_000_000_000;
/// Nanoseconds after which the origin forgets a consumer of a copy that is gone.
const FORGOTTEN: i64 = 10_000_000_000;

/// What the subjects of flow control begin with.
const FLOW: &[u8] = b"$JS.FC.";

/// A request to an origin.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ask {
    /// Its subject.
    pub subject: String,
    /// Its payload.
    pub body: String,
}

/// The subject of a request of the origin's API.
pub fn api_subject(source: &Source, what: &str) -> String {
    let prefix = source.external.as_ref().map_or("$JS.API", |e| e.api.trim_end_matches('.'));
    format!("{prefix}.{what}")
}

/// Where the origin is to deliver: `$JS.M.` or `$JS.S.` and something that nobody else uses, or the same behind the prefix that the
/// origin's account exports.
pub fn deliver_subject(source: &Source, is_mirror: bool, unique: &str) -> String {
    if let Some(own) = source.consumer.as_ref().filter(|c| !c.deliver_subject.is_empty()) {
        return own.deliver_subject.clone();
    }
    match source.external.as_ref().map(|e| e.deliver.trim_end_matches('.')).filter(|d| !d.is_empty()) {
        Some(prefix) => format!("{prefix}.{unique}"),
        None if is_mirror => format!("$JS.M.{unique}"),
        None => format!("$JS.S.{unique}"),
    }
}

/// Who copies. Two copies of one name may share an origin: of two accounts, or of two domains.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Copier {
    /// Its account.
    pub account: String,
    /// Its stream.
    pub stream: String,
    /// Its domain, if it is in one.
    pub domain: Option<String>,
}

/// The name of the consumer by which a copy takes messages out of an origin that keeps them by interest or as a work queue.
pub fn kept_name(copier: &Copier, source: &Source, is_mirror: bool) -> String {
    let domain = copier.domain.as_deref().unwrap_or_default();
    let who = format!("{} {} {domain} {}", copier.stream, copier.account, source.index_name());
    format!("{}_{}", prefix(is_mirror), crate::config::short_hash(&who))
}

/// The name that this consumer had before 2026-11-24, when it did not say that it is for a copy. That cannot be changed, so it is another one now.
pub fn kept_name_before(copy: &str, source: &Source, is_mirror: bool) -> String {
    let hash = crate::config::short_hash(&format!("{copy} {}", source.index_name()));
    format!("{}_{hash}", prefix(is_mirror))
}

fn prefix(is_mirror: bool) -> &'static str {
    if is_mirror { "JS_MIRROR" } else { "JS_SRC" }
}

/// What is known of how an origin keeps messages, and so which consumer it is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Keeps<'a> {
    /// By its limits alone: one that nobody sees, and that begins anew each time.
    Limits,
    /// By interest or as a work queue: a durable one of this name, for which messages are kept until they are acknowledged by answers to its flow control.
    Consumers(&'a str),
    /// That is not known: it is asked as nats-server 2.15 asks, and the origin makes of this name the one or the other.
    Unknown(&'a str),
}

/// The request for the consumer that delivers from `next` on (0: where the configuration says).
pub fn consumer_request(
    source: &Source,
    copier: &Copier,
    is_mirror: bool,
    deliver: &str,
    next: u64,
    keeps: Keeps<'_>,
) -> Ask {
    let mut c = json!({
        "deliver_subject": deliver,
        "replay_policy": "instant",
        "flow_control": true,
        "idle_heartbeat": HEARTBEAT,
    });
    if next > 0 {
        c["deliver_policy"] = "by_start_sequence".into();
        c["opt_start_seq"] = next.into();
    } else if source.opt_start_seq > 0 {
        c["deliver_policy"] = "by_start_sequence".into();
        c["opt_start_seq"] = source.opt_start_seq.into();
    } else if let Some(t) = &source.opt_start_time {
        c["deliver_policy"] = "by_start_time".into();
        c["opt_start_time"] = json!(t);
    } else {
        c["deliver_policy"] = "all".into();
    }
    match &filters(source)[..] {
        [] => {}
        [one] => c["filter_subject"] = one.as_str().into(),
        all => c["filter_subjects"] = json!(all),
    }
    if keeps != Keeps::Limits {
        c["sourcing"] = true.into();
        let what = if is_mirror { "mirror" } else { "src" };
        let mut says = json!({});
        says[format!("_nats.{what}.stream")] = copier.stream.as_str().into();
        says[format!("_nats.{what}.acc")] = copier.account.as_str().into();
        if let Some(domain) = &copier.domain {
            says[format!("_nats.{what}.domain")] = domain.as_str().into();
        }
        c["metadata"] = says;
    }
    let what = match keeps {
        Keeps::Consumers(name) => {
            c["durable_name"] = name.into();
            c["ack_policy"] = "flow_control".into();
            format!("CONSUMER.DURABLE.CREATE.{}.{name}", source.name)
        }
        Keeps::Unknown(name) => {
            c["name"] = name.into();
            c["ack_policy"] = "none".into();
            c["direct"] = true.into();
            c["inactive_threshold"] = FORGOTTEN.into();
            format!("CONSUMER.CREATE.{}", source.name)
        }
        Keeps::Limits => {
            c["ack_policy"] = "none".into();
            c["mem_storage"] = true.into();
            c["num_replicas"] = 1.into();
            c["direct"] = true.into();
            c["inactive_threshold"] = FORGOTTEN.into();
            format!("CONSUMER.CREATE.{}", source.name)
        }
    };
    let body = json!({ "stream_name": source.name, "config": c }).to_string();
    Ask { subject: api_subject(source, &what), body }
}

/// What came from an origin's consumer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Came {
    /// A message to copy.
    Message(Stored),
    /// All before it is here: that is to be answered to this subject.
    Flow(Bytes),
    /// A sign of life, or something that is here already.
    Nothing,
    /// Something did not arrive: the consumer has to begin anew.
    Gap,
}

/// Whether a delivery, by its reply subject, is the first of its consumer.
pub fn is_first(reply: &[u8]) -> bool {
    AckTokens::parse(reply).is_some_and(|t| t.dseq == 1)
}

/// One life of a consumer at an origin, as its copy sees it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Session {
    /// The last delivery and its message; 0 before the first.
    last: (u64, u64),
    /// Any first delivery is right: it is not this copy's to number.
    joins: bool,
    /// What is yet to come.
    pending: u64,
}

impl Session {
    /// A consumer made for this copy, whose first delivery is the first; or one that was there before.
    pub fn new(joins: bool) -> Session {
        Session { joins, ..Session::default() }
    }
    /// The last delivery and the sequence of its message: what an answer to flow control names.
    pub fn last(&self) -> (u64, u64) {
        self.last
    }
    /// Messages that the origin had yet to deliver when the last one came.
    pub fn pending(&self) -> u64 {
        self.pending
    }

    /// Takes what came: its reply subject, the subject that it shows, its header block, its payload.
    pub fn take(&mut self, reply: &Bytes, subject: Bytes, headers: Bytes, payload: Bytes) -> Came {
        let Some(t) = AckTokens::parse(reply) else { return self.status(reply, &headers) };
        if t.sseq == 0 || t.dseq == 0 {
            return Came::Nothing;
        }
        let expected = self.last.0 + 1;
        if t.dseq < expected && t.sseq <= self.last.1 {
            return Came::Nothing;
        }
        if t.dseq != expected && !(self.joins && self.last.0 == 0) || t.sseq <= self.last.1 {
            return Came::Gap;
        }
        self.last = (t.dseq, t.sseq);
        self.pending = t.pending;
        let ttl = headers::get(&headers, headers::TTL).and_then(headers::Ttl::parse);
        let expires = ttl.and_then(|ttl| ttl.expires(t.time));
        Came::Message(Stored { seq: t.sseq, time: t.time, expires, subject, headers, payload })
    }

    fn status(&self, reply: &Bytes, block: &[u8]) -> Came {
        if !block.starts_with(b"NATS/1.0 100") {
            // Consumers that are deleted say so.
            return if block.starts_with(b"NATS/1.0 4") { Came::Gap } else { Came::Nothing };
        }
        let last = headers::get(block, b"Nats-Last-Consumer").and_then(headers::number);
        if last.is_some_and(|n| n > self.last.0) && !(self.joins && self.last.0 == 0) {
            return Came::Gap;
        }
        // An answer goes where the message says, in the copy's name: that may be flow control and nothing else, whoever has sent the message.
        let asks = |to: &[u8]| to.starts_with(FLOW);
        if !reply.is_empty() {
            return if asks(reply) { Came::Flow(reply.clone()) } else { Came::Nothing };
        }
        match headers::get(block, b"Nats-Consumer-Stalled") {
            Some(to) if asks(to) => Came::Flow(Bytes::copy_from_slice(to)),
            _ => Came::Nothing,
        }
    }

    /// The header block of an answer to flow control that acknowledges deliveries up to `upto`: delivery and sequence.
    pub fn flow_answer(upto: (u64, u64)) -> Vec<u8> {
        let mut block = Vec::new();
        headers::add(&mut block, b"Nats-Last-Consumer", upto.0.to_string().as_bytes());
        headers::add(&mut block, b"Nats-Last-Stream", upto.1.to_string().as_bytes());
        block
    }
}

/// Who refuses a copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum By {
    /// The copying stream: what comes finds no room in it.
    Copy,
    /// The origin, or nobody is there.
    Origin,
}

/// What stands in the way of a copy, and when that is to be told: once a reason, again when it was gone for a while, and of an origin only when it lasts, since
/// leaders change and servers start one after another.
#[derive(Clone, Debug, Default)]
pub struct Troubles {
    /// What it is, and since when.
    now: Option<(By, ApiError, u64)>,
    told: Option<(By, u16)>,
    well_since: Option<u64>,
}

/// Nanoseconds that an origin may refuse before it is told.
const LASTING: u64 = 10_000_000_000;
/// Nanoseconds without trouble after which the same is news again.
const QUIET: u64 = 60_000_000_000;

impl Troubles {
    /// What it is.
    pub fn error(&self) -> Option<&ApiError> {
        self.now.as_ref().map(|(_, why, _)| why)
    }
    /// It is refused at this time, on the monotonic clock in nanoseconds; whether that is to be told.
    pub fn refused(&mut self, by: By, why: ApiError, now: u64) -> bool {
        let key = (by, why.err_code);
        let since = match &self.now {
            Some((b, w, since)) if (*b, w.err_code) == key => *since,
            _ => now,
        };
        self.now = Some((by, why, since));
        if self.well_since.take().is_some_and(|at| now.saturating_sub(at) >= QUIET) {
            self.told = None;
        }
        let lasts = by == By::Copy || now.saturating_sub(since) >= LASTING;
        lasts && self.told.replace(key) != Some(key)
    }
    /// It is not refused any more.
    pub fn taken(&mut self, by: By, now: u64) {
        if self.now.as_ref().is_some_and(|(b, ..)| *b == by) {
            self.now = None;
            self.well_since = Some(now);
        }
    }
}

/// The sentences for the log: which copy is refused what, and what an operator can do.
pub fn told(account: &str, copy: &str, origin: &str, by: By, why: &ApiError) -> String {
    let (full, large) =
        (errors::STREAM_STORE_FAILED.err_code, errors::STREAM_MESSAGE_EXCEEDS_MAXIMUM.err_code);
    let (absent, nobody) = (errors::STREAM_NOT_FOUND.err_code, errors::CLUSTER_NOT_AVAIL.err_code);
    let remedy = match (by, why.err_code) {
        (By::Copy, code) if code == full => "Remove messages from it, or raise the limit",
        (By::Copy, code) if code == large => "Raise its max_msg_size, or delete the message there",
        (By::Origin, code) if code == absent => "Make that stream, or take it out of the configuration",
        (By::Origin, code) if code == nobody => {
            "See whether its servers are there, and whether this account may ask for its consumers"
        }
        _ => "See whether what both are configured to is meant so",
    };
    match by {
        By::Copy => format!(
            "JetStream stream '{account} > {copy}' takes nothing more from '{origin}': {why}. What it has yet to take stays there, and is tried again. {remedy}"
        ),
        By::Origin => {
            format!(
                "JetStream stream '{account} > {copy}' cannot copy '{origin}': {why}. It is tried again. {remedy}"
            )
        }
    }
}

/// What `Nats-Stream-Source` says: `<stream> <seq> <filters> <destinations> <subject> [<identity>]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Origin<'a> {
    /// The stream, with the hashes that tell it from others of the name.
    pub stream: &'a str,
    /// The sequence there.
    pub seq: u64,
    /// The filters, and the destinations.
    pub path: Option<(&'a str, &'a str)>,
    /// The subject there.
    pub subject: Option<&'a str>,
    /// The stream's identity.
    pub identity: Option<&'a str>,
}

impl<'a> Origin<'a> {
    /// Reads the header's value; `None` if it is none.
    pub fn parse(value: &'a [u8]) -> Option<Origin<'a>> {
        let mut fields = std::str::from_utf8(value).ok()?.split(' ');
        let (stream, seq) = (fields.next().filter(|s| !s.is_empty())?, fields.next()?);
        let seq = headers::number(seq.as_bytes())?;
        let path = match (fields.next(), fields.next()) {
            (Some(filters), Some(destinations)) => Some((filters, destinations)),
            (None, _) => None,
            (Some(_), None) => return None,
        };
        Some(Origin { stream, seq, path, subject: fields.next(), identity: fields.next() })
    }

    /// The name under which the source's position is kept: see [`Source::index_name`].
    pub fn index_name(&self) -> String {
        match self.path {
            Some((filters, destinations)) => format!("{} {filters} {destinations}", self.stream),
            None => self.stream.to_owned(),
        }
    }
}

/// What a message of an origin becomes in the stream that gathers it: its header block, into `out`. The names that would be checked
/// again, or belong to a batch or to an origin further up, are taken out.
pub fn gathered(block: &[u8], index_name: &str, seq: u64, subject: &[u8], identity: &str, out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(block);
    headers::remove(out, |n| n == headers::STREAM_SOURCE || is_asked(n));
    let (stream, path) = index_name.split_once(' ').unwrap_or((index_name, "> >"));
    let mut value = format!("{stream} {seq} {path} ").into_bytes();
    value.extend_from_slice(subject);
    if !identity.is_empty() {
        value.push(b' ');
        value.extend_from_slice(identity.as_bytes());
    }
    headers::add(out, headers::STREAM_SOURCE, &value);
}

/// What a message of an origin becomes in its mirror: its header block without what it asked of the origin.
pub fn mirrored(block: &Bytes) -> Bytes {
    if block.is_empty() {
        return Bytes::new();
    }
    let mut own = block.to_vec();
    headers::remove(&mut own, is_asked);
    if own.len() == block.len() { block.clone() } else { own.into() }
}

/// Whether a name asked something of the stream that a message was published to.
fn is_asked(name: &[u8]) -> bool {
    name.starts_with(b"Nats-Expected-") || name.starts_with(b"Nats-Batch-")
}

/// The transforms of a source or a mirror, ready to use.
#[derive(Clone, Debug, Default)]
pub struct Renames(Vec<Transform>);

impl Renames {
    /// Those of a checked configuration.
    pub fn new(source: &Source) -> Renames {
        let all = source.subject_transforms.iter().filter(|t| !t.dest.is_empty());
        Renames(all.filter_map(|t| Transform::new(t.src.as_bytes(), t.dest.as_bytes()).ok()).collect())
    }

    /// Writes what becomes of a subject into `out`: the first that matches decides. False if it stays as it is.
    pub fn apply(&self, subject: &[u8], mut random: impl FnMut(u32) -> u32, out: &mut Vec<u8>) -> bool {
        self.0.iter().any(|t| t.apply(subject, &mut random, out))
    }
}

/// The filters that a source's consumer gets; none for all.
pub fn filters(source: &Source) -> Vec<String> {
    if source.subject_transforms.is_empty() {
        return if source.filter_subject.is_empty() {
            Vec::new()
        } else {
            vec![source.filter_subject.clone()]
        };
    }
    source
        .subject_transforms
        .iter()
        .map(|t| if t.src.is_empty() { ">".to_owned() } else { t.src.clone() })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_takes_deliveries_in_order_and_notices_gaps() {
        let reply = |sseq: u64, dseq: u64| Bytes::from(format!("$JS.ACK.O.c.1.{sseq}.{dseq}.77.3"));
        let (subject, none) = (Bytes::from_static(b"a.b"), Bytes::new());
        let take = |s: &mut Session, sseq, dseq| {
            s.take(&reply(sseq, dseq), subject.clone(), none.clone(), Bytes::from_static(b"x"))
        };
        let mut s = Session::new(false);
        let Came::Message(m) = take(&mut s, 5, 1) else { panic!("it is the first") };
        assert_eq!((m.seq, m.time, &m.subject[..], &m.payload[..]), (5, 77, &b"a.b"[..], &b"x"[..]));
        assert!(matches!(take(&mut s, 9, 2), Came::Message(_)), "gaps in the origin are none here");
        assert_eq!((s.last(), s.pending()), ((2, 9), 3));
        assert_eq!(take(&mut s, 9, 2), Came::Nothing, "it came before");
        assert_eq!(take(&mut s.clone(), 12, 4), Came::Gap, "the third did not come");
        assert_eq!(take(&mut s.clone(), 4, 3), Came::Gap, "an origin that begins anew");
        let status = |s: &mut Session, block: &str, reply: &str| {
            s.take(&Bytes::from(reply.to_owned()), none.clone(), Bytes::from(block.to_owned()), none.clone())
        };
        let beat = |n: u64| format!("NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: {n}\r\n\r\n");
        assert_eq!(status(&mut s, &beat(2), ""), Came::Nothing);
        assert_eq!(status(&mut s, &beat(3), ""), Came::Gap);
        let flow = "NATS/1.0 100 FlowControl Request\r\n\r\n";
        assert_eq!(status(&mut s, flow, "$JS.FC.O.c.1"), Came::Flow(Bytes::from_static(b"$JS.FC.O.c.1")));
        let stalled = "NATS/1.0 100 Idle Heartbeat\r\nNats-Consumer-Stalled: $JS.FC.O.c.2\r\n\r\n";
        assert_eq!(status(&mut s, stalled, ""), Came::Flow(Bytes::from_static(b"$JS.FC.O.c.2")));
        // Nothing else is answered, whoever asks for it.
        assert_eq!(status(&mut s, flow, "$JS.API.STREAM.DELETE.X"), Came::Nothing);
        let stalled = stalled.replace("$JS.FC.O.c.2", "$JS.ACK.S.c.1.1.1.1.0");
        assert_eq!(status(&mut s, &stalled, ""), Came::Nothing);
        assert_eq!(status(&mut s, "NATS/1.0 409 Consumer Deleted\r\n\r\n", ""), Came::Gap);
        assert!(matches!(take(&mut Session::new(true), 40, 17), Came::Message(_)), "it was there before");
        assert_eq!(
            Session::flow_answer((3, 9)),
            b"NATS/1.0\r\nNats-Last-Consumer: 3\r\nNats-Last-Stream: 9\r\n\r\n"
        );
    }

    #[test]
    fn what_is_asked_of_an_origin() {
        let mut s = Source { name: "O".into(), filter_subject: "a.*".into(), ..Source::default() };
        let who = Copier { account: "A".into(), stream: "C".into(), domain: None };
        let asked = |s: &Source, to: &str, next, keeps| {
            let ask = consumer_request(s, &who, false, to, next, keeps);
            let v: serde_json::Value = serde_json::from_str(&ask.body).unwrap();
            (ask.subject, v["config"].clone())
        };
        let (subject, c) = asked(&s, "$JS.S.x", 7, Keeps::Limits);
        assert_eq!(subject, "$JS.API.CONSUMER.CREATE.O");
        assert_eq!((&c["opt_start_seq"], &c["filter_subject"]), (&7.into(), &"a.*".into()), "{c}");
        assert_eq!((&c["ack_policy"], &c["direct"]), (&"none".into(), &true.into()), "{c}");
        s.external = Some(crate::config::External { api: "JS.hub.API.".into(), deliver: "from.hub".into() });
        s.opt_start_seq = 3;
        let (subject, c) = asked(&s, "from.hub.x", 0, Keeps::Consumers("JS_SRC_1"));
        assert_eq!(subject, "JS.hub.API.CONSUMER.DURABLE.CREATE.O.JS_SRC_1");
        assert_eq!((&c["ack_policy"], &c["sourcing"]), (&"flow_control".into(), &true.into()), "{c}");
        assert_eq!(
            (&c["opt_start_seq"], &c["metadata"]["_nats.src.stream"]),
            (&3.into(), &"C".into()),
            "{c}"
        );
        let (subject, c) = asked(&s, "from.hub.x", 0, Keeps::Unknown("JS_SRC_1"));
        assert_eq!(subject, "JS.hub.API.CONSUMER.CREATE.O");
        let says = ["name", "direct", "sourcing"].map(|k| c[k].clone());
        assert_eq!(says, [json!("JS_SRC_1"), json!(true), json!(true)], "{c}");
        // What only the one of two kinds may have is left out.
        assert!(c["num_replicas"].is_null() && c["mem_storage"].is_null(), "{c}");
        assert_eq!(deliver_subject(&s, false, "x"), "from.hub.x");
        s.external = None;
        assert_eq!(
            (deliver_subject(&s, true, "x"), deliver_subject(&s, false, "x")),
            ("$JS.M.x".into(), "$JS.S.x".into())
        );
    }

    #[test]
    fn a_trouble_is_told_once_a_reason() {
        const S: u64 = 1_000_000_000;
        let (full, large) = (errors::STREAM_STORE_FAILED, errors::STREAM_MESSAGE_EXCEEDS_MAXIMUM);
        let mut t = Troubles::default();
        assert!(t.refused(By::Copy, full.with("maximum messages exceeded"), S));
        assert!(!t.refused(By::Copy, full.with("maximum messages exceeded"), 2 * S));
        t.taken(By::Origin, 2 * S);
        assert_eq!(t.error().map(|e| e.err_code), Some(full.err_code), "another's matter");
        t.taken(By::Copy, 3 * S);
        assert_eq!(t.error(), None);
        // A copy that has room for one message at a time is not told of each time.
        assert!(!t.refused(By::Copy, full.with("maximum messages exceeded"), 4 * S));
        assert!(t.refused(By::Copy, large.error(), 5 * S), "another reason");
        t.taken(By::Copy, 6 * S);
        assert!(t.refused(By::Copy, large.error(), 67 * S), "after a while");
        // An origin may be away for a moment.
        let away = || errors::CLUSTER_NOT_AVAIL.error();
        let told: Vec<bool> =
            [70, 75, 80, 85].into_iter().map(|s| t.refused(By::Origin, away(), s * S)).collect();
        assert_eq!(told, [false, false, true, false]);
        assert_eq!(
            super::told("A", "C", "O", By::Copy, &full.with("maximum messages exceeded")),
            "JetStream stream 'A > C' takes nothing more from 'O': maximum messages exceeded (10077). What it has yet to take stays there, and is tried again. Remove messages from it, or raise the limit"
        );
    }

    /// Two accounts may copy one origin into streams of one name: each has a consumer of its own.
    #[test]
    fn each_copy_has_a_name_of_its_own() {
        let s = Source { name: "O".into(), ..Source::default() };
        let part = Source { filter_subject: "a".into(), ..s.clone() };
        let who = |account: &str, stream: &str, domain: Option<&str>| Copier {
            account: account.into(),
            stream: stream.into(),
            domain: domain.map(Into::into),
        };
        let names = [
            kept_name(&who("A", "C", None), &s, false),
            kept_name(&who("B", "C", None), &s, false),
            kept_name(&who("A", "D", None), &s, false),
            kept_name(&who("A", "C", Some("hub")), &s, false),
            kept_name(&who("A", "C", None), &s, true),
            kept_name(&who("A", "C", None), &part, false),
            kept_name_before("C", &s, false),
        ];
        assert_eq!(names.iter().collect::<std::collections::BTreeSet<_>>().len(), names.len(), "{names:?}");
    }

    #[test]
    fn an_origin_reads_what_was_written() {
        let source = Source { name: "EU".into(), filter_subject: "a.*".into(), ..Source::default() };
        let mut out = Vec::new();
        let block = b"NATS/1.0\r\nNats-Expected-Last-Sequence: 4\r\nX: y\r\nNats-Batch-Id: z\r\n\r\n";
        gathered(block, &source.index_name(), 42, b"a.b", "id1", &mut out);
        assert_eq!(out, b"NATS/1.0\r\nX: y\r\nNats-Stream-Source: EU 42 a.* > a.b id1\r\n\r\n");
        let value = headers::get(&out, headers::STREAM_SOURCE).unwrap();
        let origin = Origin::parse(value).unwrap();
        assert_eq!(origin.index_name(), source.index_name());
        assert_eq!((origin.seq, origin.subject, origin.identity), (42, Some("a.b"), Some("id1")));
        assert_eq!(Origin::parse(b"EU 7").unwrap().index_name(), "EU");
        for bad in [&b""[..], b"EU", b"EU x", b"EU 1 a", b" 1 a b"] {
            assert_eq!(Origin::parse(bad), None);
        }
    }
}
