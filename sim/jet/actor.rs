//! An actor: does its steps over a connection of its own and records what it did and what it learned.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use base64::Engine;
use env::{Instant, sim::World, watch};

use crate::wire;

use super::{
    nats::{Lost, Msg, Nats, frame},
    plan::{Act, Actor, Op, Options, Stream},
    record::{Attempt, Delivery, Get, Outcome, Said, Seen, Shared},
};

/// How long an answer is waited for.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);
/// How often a publish with an id is sent again.
const RETRIES: u64 = 20;
/// Publishes that may be under way.
const BURST: u64 = 64;

/// What a run of an actor needs.
pub struct Run {
    /// What it does.
    pub actor: Actor,
    /// The storm's options.
    pub options: Options,
    /// Where the servers are.
    pub servers: Vec<SocketAddr>,
    /// The one that it is connected to, or tries next.
    pub home: AtomicUsize,
    /// What has happened so far.
    pub record: Shared,
    /// For the time.
    pub world: World,
    /// The servers' number of starts.
    pub boots: watch::Receiver<u64>,
    /// As whom it logs in; nobody if empty.
    pub user: &'static str,
}

/// A connection and its number.
pub struct Conn {
    pub(super) nats: Nats,
    pub(super) number: u64,
    /// Where the actor last saw the stream end.
    last: BTreeMap<Stream, u64>,
}

/// The name of a stream's consumer.
pub fn consumer(s: Stream) -> &'static str {
    match s {
        Stream::Log => "log",
        Stream::Short => "short",
        Stream::Bucket => "bucket",
        Stream::Queue => "queue",
        Stream::Memory => "mem",
        Stream::Interest | Stream::Work | Stream::Copy | Stream::Mirror => "nobody",
        Stream::Sink => "sink",
        Stream::Filed => "filed",
    }
}

/// The request that creates it.
pub fn consumer_config(s: Stream, o: &Options) -> String {
    // A work queue must be emptied by its consumer: a message given up there would stay for ever. Nor is any to be given up of the stream in memory.
    let max_deliver =
        if matches!(s, Stream::Queue | Stream::Memory | Stream::Sink) { -1 } else { o.max_deliver };
    let max_ack_pending = if s == Stream::Memory { 1000 } else { o.max_ack_pending };
    format!(
        r#"{{"stream_name":"{}","config":{{"durable_name":"{}","ack_policy":"explicit","deliver_policy":"all","ack_wait":{},"max_deliver":{max_deliver},"max_ack_pending":{max_ack_pending}}}}}"#,
        s.name(),
        consumer(s),
        o.ack_wait_ms * 1_000_000,
    )
}

/// What the acknowledgement of a publish says.
pub fn outcome(m: &Msg) -> Outcome {
    let v = m.json();
    if let Some(code) = v["error"]["err_code"].as_u64() {
        return Outcome::Refused(code);
    }
    match v["seq"].as_u64() {
        Some(seq) => Outcome::Acked { seq, duplicate: v["duplicate"].as_bool() == Some(true) },
        // No responders: the stream is not there (yet). Nothing has taken it.
        None if m.status() == 503 => Outcome::Refused(503),
        None => Outcome::Unknown,
    }
}

impl Run {
    pub(super) fn now(&self) -> u64 {
        self.world.elapsed().as_nanos() as u64
    }

    /// Connects, again and again.
    pub async fn connect(&self) -> Conn {
        loop {
            let number = {
                let mut r = self.record.lock();
                r.count("connections");
                r.conns += 1;
                r.conns
            };
            let server = self.servers[self.home.load(Relaxed) % self.servers.len()];
            if let Some(nats) =
                Nats::connect_as(server, &format!("a{}-{number}", self.actor.id), self.user).await
            {
                return Conn { nats, number, last: BTreeMap::new() };
            }
            self.home.fetch_add(1, Relaxed);
            env::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Does all steps.
    pub async fn run(self) {
        let mut conn = self.connect().await;
        for step in self.actor.steps.clone() {
            env::sleep(Duration::from_micros(step.wait_us)).await;
            self.record.lock().count("steps");
            if self.step(&mut conn, step.op).await.is_err() {
                conn = self.connect().await;
            }
        }
        self.record.lock().done += 1;
    }

    async fn step(&self, c: &mut Conn, op: Op) -> Result<(), Lost> {
        match op {
            Op::Publish { stream, key, size, times, id, expect } => {
                let expected = if expect { c.last.get(&stream).copied() } else { None };
                self.burst(c, stream, key, size, times, id, expected).await
            }
            Op::Put { key, size } => self.write(c, key, size, None).await.map(drop),
            Op::Create { key } => self.write(c, key, 8, Some(0)).await.map(drop),
            Op::Update { key, size } => {
                if let Some(found) = self.get(c, key, false).await? {
                    self.write(c, key, size, Some(found)).await?;
                }
                Ok(())
            }
            Op::Get { key, direct } => self.get(c, key, direct).await.map(drop),
            Op::Fetch { batch, expires_ms, acts } => {
                self.fetch(c, self.actor.stream, batch, expires_ms, &acts).await.map(drop)
            }
            Op::Info { stream } => self.info(c, stream).await.map(drop),
            Op::Memory { times, size } => self.keep_memory(c, times, size).await,
            Op::Copies { work, times, size, take } => self.keep_copies(c, work, times, size, take).await,
            Op::Reconnect => Err(Lost),
        }
    }

    pub(super) fn attempt(&self, c: &Conn, value: usize, stream: Stream, subject: &str) -> Attempt {
        Attempt {
            actor: self.actor.id,
            conn: c.number,
            value,
            stream,
            subject: subject.to_owned(),
            id: false,
            expected_subject: None,
            expected: None,
            sent_at: self.now(),
            done_at: None,
            outcome: Outcome::Unknown,
        }
    }

    pub(super) fn value(&self) -> usize {
        let mut r = self.record.lock();
        r.values += 1;
        r.values
    }

    #[allow(clippy::too_many_arguments)]
    async fn burst(
        &self,
        c: &mut Conn,
        stream: Stream,
        key: u64,
        size: usize,
        times: u64,
        id: bool,
        expected: Option<u64>,
    ) -> Result<(), Lost> {
        let subject = stream.subject(key);
        let mut left: Vec<usize> = (0..times).map(|_| self.value()).collect();
        for round in 0..RETRIES {
            let mut lost = false;
            let mut waiting: BTreeMap<String, (usize, usize)> = BTreeMap::new();
            let mut out = Vec::new();
            for value in left.iter().copied().take(BURST as usize) {
                let reply = c.nats.inbox();
                let mut headers = Vec::new();
                if id {
                    headers.push(format!("Nats-Msg-Id: {value}"));
                }
                // Only the first can be right about where the stream ends.
                let expected = expected.filter(|_| waiting.is_empty() && round == 0);
                if let Some(e) = expected {
                    headers.push(format!("Nats-Expected-Last-Sequence: {e}"));
                }
                frame(&mut out, &subject, &reply, &headers, &wire::payload(value, size));
                let a = Attempt { id, expected, ..self.attempt(c, value, stream, &subject) };
                let mut r = self.record.lock();
                r.count("publishes");
                waiting.insert(reply, (r.attempts.len(), value));
                r.attempts.push(a);
            }
            let end = env::now() + PATIENCE;
            lost |= c.nats.publish_raw(&out, end).await.is_err();
            while !lost && !waiting.is_empty() {
                match c.nats.next(end).await {
                    Ok(Some(m)) => {
                        let Some((n, value)) = waiting.remove(&m.subject) else { continue };
                        self.answered(c, n, &m, stream, value, &mut left);
                    }
                    Ok(None) => break,
                    Err(Lost) => lost = true,
                }
            }
            // Without an id nobody can know whether sending again would double it.
            if left.is_empty() || !id {
                return if lost { Err(Lost) } else { Ok(()) };
            }
            if lost {
                *c = self.connect().await;
            }
            env::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    fn answered(&self, c: &mut Conn, n: usize, m: &Msg, stream: Stream, value: usize, left: &mut Vec<usize>) {
        let (now, o) = (self.now(), outcome(m));
        if let Outcome::Acked { seq, .. } = o {
            let last = c.last.entry(stream).or_default();
            *last = (*last).max(seq);
        }
        // What the server could not take just now may be sent again; what it refused by a rule not.
        let again = matches!(o, Outcome::Refused(503 | 10077 | 10023 | 10167 | 10008) | Outcome::Unknown);
        if !again {
            left.retain(|v| *v != value);
        }
        let mut r = self.record.lock();
        r.count(match o {
            Outcome::Acked { duplicate: true, .. } => "answers: duplicate",
            Outcome::Acked { .. } => "answers: stored",
            Outcome::Refused(_) => "answers: refused",
            Outcome::Unknown => "answers: none",
        });
        let a = &mut r.attempts[n];
        (a.done_at, a.outcome) = (Some(now), o);
    }

    /// Writes a key; its new revision, if that is known.
    async fn write(&self, c: &mut Conn, key: u64, size: usize, e: Option<u64>) -> Result<Option<u64>, Lost> {
        let (value, subject) = (self.value(), Stream::Bucket.subject(key));
        let headers: Vec<String> =
            e.iter().map(|e| format!("Nats-Expected-Last-Subject-Sequence: {e}")).collect();
        let a = Attempt { expected_subject: e, ..self.attempt(c, value, Stream::Bucket, &subject) };
        let n = {
            let mut r = self.record.lock();
            r.count("key writes");
            r.attempts.push(a);
            r.attempts.len() - 1
        };
        let end = env::now() + PATIENCE;
        let Some(m) = c.nats.request(&subject, &headers, &wire::payload(value, size), end).await? else {
            return Ok(None);
        };
        let (now, o) = (self.now(), outcome(&m));
        let mut r = self.record.lock();
        r.count(match o {
            Outcome::Acked { .. } => "key writes: stored",
            Outcome::Refused(10071) => "key writes: wrong revision",
            _ => "key writes: other",
        });
        let seq = if let Outcome::Acked { seq, .. } = o { Some(seq) } else { None };
        (r.attempts[n].done_at, r.attempts[n].outcome) = (Some(now), o);
        Ok(seq)
    }

    /// Reads a key; its revision (0: none), if there was an answer.
    async fn get(&self, c: &mut Conn, key: u64, direct: bool) -> Result<Option<u64>, Lost> {
        let subject = Stream::Bucket.subject(key);
        let sent_at = self.now();
        let end = env::now() + PATIENCE;
        let stream = Stream::Bucket.name();
        let m = if direct {
            c.nats.request(&format!("$JS.API.DIRECT.GET.{stream}.{subject}"), &[], b"", end).await?
        } else {
            let body = format!("{{\"last_by_subj\":\"{subject}\"}}");
            c.nats.request(&format!("$JS.API.STREAM.MSG.GET.{stream}"), &[], body.as_bytes(), end).await?
        };
        let Some(m) = m else { return Ok(None) };
        let Some(found) = (if direct { direct_found(&m) } else { got(&m) }) else { return Ok(None) };
        let mut r = self.record.lock();
        r.count("key reads");
        let rev = found.as_ref().map_or(0, |f| f.0);
        let found = found.map(|(seq, kept)| (seq, wire::publish_of(&kept)));
        r.gets.push(Get { subject, sent_at, done_at: self.now(), found, direct });
        Ok(Some(rev))
    }

    /// Asks for a stream's state.
    pub async fn info(&self, c: &mut Conn, stream: Stream) -> Result<Option<Seen>, Lost> {
        let sent_at = self.now();
        let end = env::now() + PATIENCE;
        let subject = format!("$JS.API.STREAM.INFO.{}", stream.name());
        let Some(m) = c.nats.request(&subject, &[], b"", end).await? else { return Ok(None) };
        let v = m.json();
        let s = &v["state"];
        let (Some(first), Some(last), Some(msgs)) =
            (s["first_seq"].as_u64(), s["last_seq"].as_u64(), s["messages"].as_u64())
        else {
            return Ok(None);
        };
        let seen = Seen { stream, sent_at, done_at: self.now(), first, last, msgs };
        c.last.insert(stream, last);
        let mut r = self.record.lock();
        r.count("stream infos");
        r.seen.push(seen);
        Ok(Some(seen))
    }

    /// Fetches from the consumer of `stream` and does `acts` in turn; how many came.
    pub async fn fetch(
        &self,
        c: &mut Conn,
        stream: Stream,
        batch: u64,
        expires_ms: u64,
        acts: &[Act],
    ) -> Result<u64, Lost> {
        let asked_at = self.now();
        let boot = *self.boots.borrow();
        let wait = Duration::from_millis(expires_ms) + PATIENCE;
        let (inbox, sid) = c.nats.subscribe(env::now() + wait).await?;
        let body = if expires_ms == 0 {
            format!("{{\"batch\":{batch},\"no_wait\":true}}")
        } else {
            format!("{{\"batch\":{batch},\"expires\":{}}}", expires_ms * 1_000_000)
        };
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{}.{}", stream.name(), consumer(stream));
        c.nats.publish(&subject, &inbox, &[], body.as_bytes(), env::now() + wait).await?;
        self.record.lock().count("fetches");
        let mut got = Vec::new();
        let end = env::now() + wait;
        while got.len() < batch as usize {
            let Some(m) = c.nats.next(end).await? else { break };
            if m.sid != sid {
                if let Some(d) = ack_parts(&m.reply) {
                    // An earlier request's, which was given up on: it came, and nothing is said of it.
                    self.delivered(stream, &m, d, 0, boot);
                }
                continue;
            }
            if m.status() >= 400 {
                break;
            }
            let Some(d) = ack_parts(&m.reply) else { continue };
            self.delivered(stream, &m, d, asked_at, boot);
            got.push((m.reply, d.0));
        }
        c.nats.unsubscribe(&sid, end).await?;
        for (i, (reply, seq)) in got.iter().enumerate() {
            self.say(c, stream, reply, *seq, acts[i % acts.len()]).await?;
        }
        Ok(got.len() as u64)
    }

    fn delivered(&self, stream: Stream, m: &Msg, (seq, count): (u64, u64), asked_at: u64, boot: u64) {
        let value = wire::publish_of(&m.payload);
        let mut r = self.record.lock();
        r.count(if count > 1 { "redeliveries" } else { "deliveries" });
        r.deliveries.push(Delivery { stream, seq, count, at: self.now(), asked_at, boot, value });
    }

    async fn say(&self, c: &mut Conn, stream: Stream, reply: &str, seq: u64, act: Act) -> Result<(), Lost> {
        let body = match act {
            Act::Ack | Act::AckSync => "+ACK".to_owned(),
            Act::Nak => "-NAK".to_owned(),
            Act::NakDelay(ms) => format!("-NAK {{\"delay\": {}}}", ms * 1_000_000),
            Act::Term => "+TERM".to_owned(),
            Act::Progress => "+WPI".to_owned(),
            Act::Forget => return Ok(()),
        };
        let ends = matches!(act, Act::Ack | Act::AckSync | Act::Term);
        let n = {
            let mut r = self.record.lock();
            r.count("answers to deliveries");
            let refusal = matches!(act, Act::Nak | Act::NakDelay(_));
            let sent_at = self.now();
            r.said.push(Said { stream, seq, refusal, ends, sent_at, confirmed_at: None });
            r.said.len() - 1
        };
        let end = env::now() + PATIENCE;
        if act == Act::AckSync {
            let answer = c.nats.request(reply, &[], body.as_bytes(), end).await?;
            if answer.is_some_and(|m| m.status() == 0) {
                let now = self.now();
                let mut r = self.record.lock();
                r.count("confirmed acknowledgements");
                r.said[n].confirmed_at = Some(now);
            }
            return Ok(());
        }
        c.nats.publish(reply, "", &[], body.as_bytes(), end).await
    }

    /// Publishes one message without an id and waits for the answer: its value, and what became of it.
    pub(super) async fn publish_one(
        &self,
        c: &mut Conn,
        stream: Stream,
        size: usize,
        end: Instant,
    ) -> Result<(usize, Outcome), Lost> {
        let memory = stream == Stream::Memory;
        let (value, subject) = (self.value(), stream.subject(0));
        let a = self.attempt(c, value, stream, &subject);
        let n = {
            let mut r = self.record.lock();
            r.count(if memory { "memory: publishes" } else { "copies: publishes" });
            r.attempts.push(a);
            r.attempts.len() - 1
        };
        let answer = c.nats.request(&subject, &[], &wire::payload(value, size), end).await?;
        let Some(o) = answer.map(|m| outcome(&m)) else { return Ok((value, Outcome::Unknown)) };
        let now = self.now();
        let mut r = self.record.lock();
        (r.attempts[n].done_at, r.attempts[n].outcome) = (Some(now), o.clone());
        if let Outcome::Acked { .. } = o {
            r.count(if memory { "memory: stored" } else { "copies: stored" });
        }
        Ok((value, o))
    }

    /// Makes a stream or a consumer. Several servers must find each other first; until then they say that they cannot.
    pub async fn until_configured(&self, c: &mut Conn, subject: &str, body: &str) -> Result<(), String> {
        let end = env::now() + Duration::from_secs(60);
        let mut last = None;
        loop {
            match self.ask(c, subject, body, end).await.map(|m| m.json()) {
                Some(v) if v["error"].is_null() && v["config"].is_object() => return Ok(()),
                Some(v) if env::now() < end && self.options.servers > 1 => {
                    last = Some(v);
                    env::sleep(Duration::from_millis(200)).await;
                }
                v => return Err(format!("{subject}: {v:?}, {last:?}")),
            }
        }
    }

    /// Asks for something until it is answered or the time is over.
    pub async fn ask(&self, c: &mut Conn, subject: &str, body: &str, end: Instant) -> Option<Msg> {
        while env::now() < end {
            match c.nats.request(subject, &[], body.as_bytes(), env::now() + PATIENCE).await {
                Ok(Some(m)) if m.status() != 503 && m.json()["error"]["code"].as_u64() != Some(503) => {
                    return Some(m);
                }
                Ok(_) => env::sleep(Duration::from_millis(100)).await,
                Err(Lost) => *c = self.connect().await,
            }
        }
        None
    }

    /// A message by its sequence: subject and payload, or that it is not there; `None` without an answer.
    pub async fn read(
        &self,
        c: &mut Conn,
        stream: Stream,
        seq: u64,
        end: Instant,
    ) -> Option<Option<(String, Vec<u8>)>> {
        let subject = format!("$JS.API.STREAM.MSG.GET.{}", stream.name());
        let m = self.ask(c, &subject, &format!("{{\"seq\":{seq}}}"), end).await?;
        let v = m.json();
        if v["error"]["code"].as_u64() == Some(404) {
            return Some(None);
        }
        let data = base64(v["message"]["data"].as_str().unwrap_or_default())?;
        Some(Some((v["message"]["subject"].as_str()?.to_owned(), data)))
    }
}

/// Sequence and payload of an answer to a direct get; `None` inside if there is none; `None` if it is no answer.
#[allow(clippy::type_complexity)]
fn direct_found(m: &Msg) -> Option<Option<(u64, Vec<u8>)>> {
    match m.status() {
        404 => Some(None),
        0 => Some(Some((m.header("Nats-Sequence")?.parse().ok()?, m.payload.clone()))),
        _ => None,
    }
}

/// The same of a message get.
#[allow(clippy::type_complexity)]
fn got(m: &Msg) -> Option<Option<(u64, Vec<u8>)>> {
    let v = m.json();
    if v["error"]["code"].as_u64() == Some(404) {
        return Some(None);
    }
    let message = &v["message"];
    Some(Some((message["seq"].as_u64()?, base64(message["data"].as_str().unwrap_or_default())?)))
}

/// Stream sequence and number of the delivery in an ack subject.
pub fn ack_parts(subject: &str) -> Option<(u64, u64)> {
    let t: Vec<&str> = subject.split('.').collect();
    if t.len() != 9 || t[0] != "$JS" || t[1] != "ACK" {
        return None;
    }
    Some((t[5].parse().ok()?, t[4].parse().ok()?))
}

fn base64(text: &str) -> Option<Vec<u8>> {
    base64::prelude::BASE64_STANDARD.decode(text).ok()
}
