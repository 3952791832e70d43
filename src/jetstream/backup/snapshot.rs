//! Making a backup: an archive goes to a subject in chunks, a window of them at a time.
//!
//! Each chunk but the last wants an answer, whose subject says how many bytes it is for. The archive ends with an empty message that carries a status.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::*},
    },
    time::Duration,
};

use broker::{Deliveries, Inbound, Link, Message, Sub};
use store::{Read, StreamSeq};
use stream::{ApiError, Stored, consumer::backup::State, errors};
use tokio::sync::Notify;

use super::{
    PATIENCE,
    archive::{Consumer, Writer},
};
use crate::{
    ClientInfo, JetStream, Time,
    account::{Assets, internal},
    advisory,
    api::{
        event::Event,
        request::Snapshot,
        response::{self, StreamState},
    },
    handlers::{Desk, info},
    shell::{Stream, now},
    view,
};

/// Messages that are read at a time, and their bytes.
const TURN: usize = 256;
const TURN_BYTES: usize = 1 << 20;
/// How long nobody needs to listen before the backup is given up, and how often that is looked at.
const NOBODY: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(50);

/// Hears the answers to chunks.
#[derive(Default)]
struct Window {
    out: AtomicUsize,
    heard: Notify,
}

struct Acks(Arc<Window>);

impl Inbound for Acks {
    fn serves(&self) -> bool {
        true
    }
    fn listens(&self, _: &[u8]) -> bool {
        false
    }
    fn deliver(&self, d: &mut Deliveries, _: &Sub, _: &Arc<Link>, m: &Message<'_>) -> bool {
        if d.is_trace_only() {
            return false;
        }
        let size = subject::tokens(m.subject).nth(5).and_then(|t| str::from_utf8(t).ok()?.parse().ok());
        let size: usize = size.unwrap_or(0);
        self.0.out.fetch_update(AcqRel, Acquire, |n| Some(n.saturating_sub(size))).ok();
        self.0.heard.notify_one();
        true
    }
}

/// Why a backup ends before its end: the status that is sent, and what the advisory says.
struct Ended(String, String);

struct Sending {
    node: Arc<JetStream>,
    assets: Arc<Assets>,
    stream: Arc<Stream>,
    how: Snapshot,
    window: Arc<Window>,
    /// What answers are sent to, up to the size.
    acks: String,
    sent: usize,
    archive: Writer,
}

impl Desk<'_> {
    /// Begins a backup; it goes on behind the answer.
    pub(crate) async fn snapshot(
        &self,
        name: &str,
        how: Result<Snapshot, ApiError>,
    ) -> Result<response::Snapshot, ApiError> {
        let stream = self.stream(name)?;
        let how = how?;
        stream.tail_applied().await;
        if how.check
            && let Some(lost) = info::lost(&stream)
        {
            let n = lost.msgs.map_or(0, |m| m.len());
            return Err(errors::STREAM_SNAPSHOT.with(format!("{n} messages are lost to damage")));
        }
        let broken = |e| errors::STREAM_SNAPSHOT.with(e);
        let (state, _) = info::state(&stream, &info::Wanted::default()).await.map_err(broken)?;
        let client = self.asked.client(self.node, &self.assets.account);
        let config = stream.config();
        let id = self.node.ids.lock().next();
        let sending = Sending {
            node: self.node.clone(),
            assets: self.assets.clone(),
            acks: format!("$JS.SNAPSHOT.ACK.{name}.{id}"),
            stream,
            how,
            window: Arc::default(),
            sent: 0,
            archive: Writer::default(),
        };
        env::spawn(sending.run(state.clone(), client));
        Ok(response::Snapshot { config, state })
    }
}

impl Sending {
    async fn run(mut self, state: StreamState, client: ClientInfo) {
        let label = format!("'{} > {}'", self.assets.account.name, self.stream.name);
        let start = now().wall;
        let created = Event::SnapshotCreate { stream: &self.stream.name, state: &state, client: &client };
        advisory::emit(&self.node, &self.assets, &created);
        self.node.host.log("INF", &format!("Starting snapshot for stream {label}"));
        let link = internal(&self.node, Some(Box::new(Acks(self.window.clone()))));
        let to = format!("{}.>", self.acks);
        link.subscribe(&self.assets.account, b"1", to.as_bytes(), b"", false)
            .expect("a new link is open and without limits");
        let ended = self.send(state).await;
        link.unsubscribe_all(Some(&self.assets.account));
        // An empty message without headers says that all went well.
        let (head, error) = match ended {
            Ok(()) => Default::default(),
            Err(Ended(status, error)) => (format!("NATS/1.0 {status}\r\n\r\n"), error),
        };
        self.assets.posts.take().status(self.how.deliver_subject.as_bytes(), head.as_bytes());
        let end = now().wall;
        let took = Duration::from_nanos(end.saturating_sub(start).max(0).unsigned_abs());
        let (level, text) = match error.as_str() {
            "" => ("INF", format!("Completed snapshot for stream {label} in {took:?}")),
            e => ("WRN", format!("Snapshot for stream {label} failed after {took:?}: {e}")),
        };
        self.node.host.log(level, &text);
        let (start, end) = (Time::from_nanos(start), Time::from_nanos(end));
        let stream = &self.stream.name;
        let e = Event::SnapshotComplete { stream, start, end, client: &client, error: &error };
        advisory::emit(&self.node, &self.assets, &e);
    }

    async fn send(&mut self, mut state: StreamState) -> Result<(), Ended> {
        let n = now().wall;
        let consumers = if self.how.no_consumers { Vec::new() } else { self.consumers(n) };
        state.consumer_count = consumers.len();
        let (first, last) = (state.first_seq, state.last_seq);
        self.archive.state(&state, n);
        for (name, c) in &consumers {
            self.archive.consumer(name, c, n);
        }
        drop(consumers);
        let mut at = first;
        while at <= last {
            let (messages, next) = self.read(at, last).await?;
            for m in &messages {
                self.archive.message(m);
            }
            at = next;
            self.flush(false).await?;
        }
        self.archive.end();
        self.flush(true).await
    }

    fn consumers(&self, now: i64) -> Vec<(String, Consumer)> {
        let core = self.stream.core.lock();
        let all = core.consumers.slots().filter(|(_, s)| !s.rules.config().direct);
        all.map(|(name, s)| {
            let mut config = s.rules.config().clone();
            config.name = name.to_string();
            (name.to_string(), Consumer { config, state: State::of(s.rules.ledger(), now) })
        })
        .collect()
    }

    /// Messages from a sequence on, and where to go on. Some of what was there at the beginning may be gone, or damaged: the state says what there was.
    async fn read(&self, from: u64, last: u64) -> Result<(Vec<Stored>, u64), Ended> {
        let none: [&[u8]; 0] = [];
        let found = self.stream.group().ask(|v| {
            let (mut all, mut bytes, mut at) = (Vec::new(), 0, StreamSeq(from));
            while all.len() < TURN && bytes < TURN_BYTES {
                let next = match v.next(&none, at) {
                    Ok(next) => next.filter(|n| n.0 <= last),
                    Err(_) if !all.is_empty() => return Ok((all, at.0)),
                    Err(need) => return Err(need),
                };
                let Some(seq) = next else { return Ok((all, last + 1)) };
                match v.get(seq) {
                    Ok(Read::Valid(m)) => {
                        let m = view::stored(&m);
                        bytes += m.payload.len() + m.headers.len();
                        all.push(m);
                    }
                    Ok(Read::Absent | Read::Damaged(_)) => {}
                    // What is at hand goes first.
                    Err(_) if !all.is_empty() => return Ok((all, seq.0)),
                    Err(need) => return Err(need),
                }
                at = seq.next();
            }
            Ok((all, at.0))
        });
        found.await.map_err(|e| Ended(format!("500 {e}"), e.to_string()))
    }

    /// Sends whole chunks, and at the end what is left.
    async fn flush(&mut self, end: bool) -> Result<(), Ended> {
        let chunk = self.how.chunk();
        while self.archive.len() >= chunk || end && self.archive.len() > 0 {
            let body = self.archive.take(chunk);
            let whole = body.len() == chunk;
            let reply = match whole {
                true => {
                    self.room(body.len()).await?;
                    self.sent += 1;
                    self.window.out.fetch_add(body.len(), AcqRel);
                    format!("{}.{}.{}", self.acks, body.len(), self.sent)
                }
                false => String::new(),
            };
            self.listened().await?;
            let to = self.how.deliver_subject.as_bytes();
            self.assets.posts.take().send(to, None, reply.as_bytes(), 0, &[&body]);
            tokio::task::yield_now().await;
        }
        Ok(())
    }
    /// Returns when there is room for a chunk in the window.
    async fn room(&self, size: usize) -> Result<(), Ended> {
        while self.window.out.load(Acquire).saturating_add(size) > self.how.window().max(size) {
            self.listened().await?;
            if env::timeout(PATIENCE, self.window.heard.notified()).await.is_err() {
                return Err(Ended("408 No Flow Response".into(), "no flow response".into()));
            }
        }
        Ok(())
    }
    /// Returns when somebody listens.
    async fn listened(&self) -> Result<(), Ended> {
        let until = env::now() + NOBODY;
        while !self.assets.account.listens(self.how.deliver_subject.as_bytes()) {
            if env::now() >= until {
                return Err(Ended("408 No Interest".into(), "no interest".into()));
            }
            env::sleep(LOOK).await;
        }
        Ok(())
    }
}
