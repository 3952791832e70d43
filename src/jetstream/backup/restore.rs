//! Restoring a backup: chunks come to a subject, an empty one ends them.
//!
//! Owns the subject, the chunks that wait, and what is answered: each chunk when it is worked in, the last one with the stream. What went wrong is told at the
//! end, as nats-server does; until then chunks are taken and dropped.

use std::{
    collections::BTreeSet,
    mem,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::*},
    },
    time::Duration,
};

use broker::{Deliveries, Inbound, Link, Message, Sub};
use parking_lot::Mutex;
use stream::{
    ApiError,
    config::StreamConfig,
    errors,
    headers::{self, Ttl},
};
use tokio::sync::mpsc;

use super::{
    Item,
    archive::{Consumer, Entry, Reader},
    import::said,
};
use crate::{
    JetStream, Time,
    account::{Asked, Assets, internal},
    advisory,
    api::{self, Kind, event::Event, response},
    handlers::{Answered, Desk},
    meta::Assignment,
    shell::now,
};

/// How long nothing needs to come before it is given up.
const IDLE: Duration = Duration::from_secs(30);
/// How often is looked whether the server ends.
const LOOK: Duration = Duration::from_millis(250);
/// Bytes of chunks that may wait. Who waits for each answer has one there.
const WAITING_MAX: usize = 64 << 20;
/// Bytes of messages that go on together.
const BATCH: usize = 256 << 10;
/// Bytes of consumers that are kept until the messages are there.
const CONSUMERS_MAX: usize = 256 << 20;

/// Streams that backups are being restored into by this node, by account and name.
#[derive(Default)]
pub struct Restores(Arc<Mutex<BTreeSet<(String, String)>>>);

/// One of them, until it is dropped.
pub struct Hold(Restores, Option<(String, String)>);

impl Restores {
    /// One more.
    pub fn hold(&self, account: &str, name: &str) -> Hold {
        let key = (account.to_owned(), name.to_owned());
        self.0.lock().insert(key.clone());
        Hold(Restores(self.0.clone()), Some(key))
    }
    /// Whether it is one.
    pub fn holds(&self, account: &str, name: &str) -> bool {
        self.0.lock().contains(&(account.to_owned(), name.to_owned()))
    }
    fn release(&self, account: &str, name: &str) {
        self.0.lock().remove(&(account.to_owned(), name.to_owned()));
    }
}
impl Hold {
    /// It stays one.
    pub fn keep(mut self) {
        self.1 = None;
    }
}
impl Drop for Hold {
    fn drop(&mut self) {
        if let Some((account, name)) = self.1.take() {
            self.0.release(&account, &name);
        }
    }
}

/// Where the chunks go, as an answer to a request says.
pub fn upload_subject(answer: &[u8]) -> String {
    serde_json::from_slice::<response::Restore>(answer).map_or_else(|_| String::new(), |r| r.deliver_subject)
}

struct Chunk {
    reply: Vec<u8>,
    body: Vec<u8>,
}

struct Door {
    chunks: mpsc::UnboundedSender<Option<Chunk>>,
    waiting: Arc<AtomicUsize>,
}

impl Inbound for Door {
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
        let len = m.payload().len();
        if self.waiting.fetch_add(len, AcqRel).saturating_add(len) > WAITING_MAX {
            self.waiting.fetch_sub(len, AcqRel);
            // Nothing of what follows can be used.
            return self.chunks.send(None).is_ok();
        }
        let chunk = Chunk { reply: m.reply.to_vec(), body: m.payload().to_vec() };
        self.chunks.send(Some(chunk)).is_ok()
    }
}

struct Restoring {
    node: Arc<JetStream>,
    assets: Arc<Assets>,
    asked: Asked,
    config: StreamConfig,
    reader: Reader,
    /// The stream, once the archive's head has been read.
    made: Option<Assignment>,
    state: Option<response::StreamState>,
    consumers: Vec<(String, Consumer)>,
    consumers_bytes: usize,
    batch: Vec<Item>,
    batch_bytes: usize,
    messages: u64,
    last: u64,
    bytes: u64,
    ended: bool,
}

impl Desk<'_> {
    /// Begins a restore: where the chunks go.
    pub(crate) async fn restore(&self, config: StreamConfig) -> Result<response::Restore, ApiError> {
        if self.node.meta.find(&self.assets.account.name, &config.name).is_some() {
            return Err(errors::STREAM_NAME_EXIST_RESTORE_FAILED.error());
        }
        let id = self.node.ids.lock().next();
        let deliver_subject = format!("$JS.SNAPSHOT.RESTORE.{}.{id}", config.name);
        let (tx, rx) = mpsc::unbounded_channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let door = Door { chunks: tx, waiting: waiting.clone() };
        let link = internal(self.node, Some(Box::new(door)));
        link.subscribe(&self.assets.account, b"1", deliver_subject.as_bytes(), b"", false)
            .expect("a new link is open and without limits");
        let a = self.asked;
        let asked = Asked {
            full: a.full.clone(),
            reply: Vec::new(),
            headers: Vec::new(),
            body: Vec::new(),
            from: a.from.clone(),
        };
        let r = Restoring {
            node: self.node.clone(),
            assets: self.assets.clone(),
            asked,
            config,
            reader: Reader::default(),
            made: None,
            state: None,
            consumers: Vec::new(),
            consumers_bytes: 0,
            batch: Vec::new(),
            batch_bytes: 0,
            messages: 0,
            last: 0,
            bytes: 0,
            ended: false,
        };
        env::spawn(r.run(link, rx, waiting));
        Ok(response::Restore { deliver_subject })
    }
}

impl Restoring {
    async fn run(
        mut self,
        link: Arc<Link>,
        mut chunks: mpsc::UnboundedReceiver<Option<Chunk>>,
        waiting: Arc<AtomicUsize>,
    ) {
        let name = self.config.name.clone();
        let label = format!("'{} > {name}'", self.assets.account.name);
        let client = self.asked.client(&self.node, &self.assets.account);
        let start = now().wall;
        advisory::emit(&self.node, &self.assets, &Event::RestoreCreate { stream: &name, client: &client });
        self.node.host.log("INF", &format!("Starting restore for stream {label}"));
        let mut failed: Option<ApiError> = None;
        // Where the answer goes, if there is anybody to be answered.
        let end = loop {
            let Some(next) = self.next(&mut chunks).await else { break None };
            let Some(c) = next else {
                failed.get_or_insert_with(|| errors::STREAM_RESTORE.with("too many chunks are waiting"));
                continue;
            };
            waiting.fetch_sub(c.body.len(), AcqRel);
            if c.body.is_empty() {
                break Some(c.reply);
            }
            self.bytes += c.body.len() as u64;
            if failed.is_none()
                && let Err(e) = self.take(&c.body).await
            {
                failed = Some(e);
            }
            if !c.reply.is_empty() {
                self.assets.posts.take().plain(&c.reply, b"");
            }
        };
        link.unsubscribe_all(Some(&self.assets.account));
        let done = match (&end, failed) {
            (_, Some(e)) => Err(e),
            (None, None) => Err(errors::STREAM_RESTORE.with("nothing came any more")),
            (Some(_), None) => self.finish().await,
        };
        if done.is_err() {
            self.abandon().await;
        }
        self.node.restores.release(&self.assets.account.name, &name);
        let took = Duration::from_nanos(now().wall.saturating_sub(start).max(0).unsigned_abs());
        let (level, text) = match &done {
            Ok(_) => {
                ("INF", format!("Completed restore of {} bytes for stream {label} in {took:?}", self.bytes))
            }
            Err(e) => (
                "WRN",
                format!("Restore failed for {} bytes for stream {label} in {took:?}: {e}", self.bytes),
            ),
        };
        self.node.host.log(level, &text);
        let (start, finish) = (Time::from_nanos(start), Time::from_nanos(now().wall));
        let e =
            Event::RestoreComplete { stream: &name, start, end: finish, bytes: self.bytes, client: &client };
        advisory::emit(&self.node, &self.assets, &e);
        let Some(reply) = end.filter(|r| !r.is_empty()) else { return };
        let kind = Kind::StreamCreate;
        let done = done.map(|r| api::success(kind, &r));
        let answer = Answered::of((kind, done.map_err(|e| errors::STREAM_RESTORE.with(said(&e)))));
        self.assets.posts.take().plain(&reply, &answer.body);
    }

    /// What comes next; `None` if nothing does, or the server ends.
    async fn next(&self, chunks: &mut mpsc::UnboundedReceiver<Option<Chunk>>) -> Option<Option<Chunk>> {
        let until = env::now() + IDLE;
        while env::now() < until && !self.node.is_closed() {
            if let Ok(next) = env::timeout(LOOK, chunks.recv()).await {
                return next;
            }
        }
        None
    }

    fn desk(&self) -> Desk<'_> {
        Desk { node: &self.node, assets: &self.assets, asked: &self.asked }
    }

    /// Works a chunk in.
    async fn take(&mut self, chunk: &[u8]) -> Result<(), ApiError> {
        let wrong = |e: String| errors::STREAM_RESTORE.with(e);
        self.reader.push(chunk).map_err(wrong)?;
        while let Some(entry) = self.reader.next().map_err(wrong)? {
            match entry {
                Entry::State(s) if self.state.is_none() && self.made.is_none() => {
                    self.state = Some(*s);
                    let mut c = mem::take(&mut self.config);
                    let made = self.desk().begin_restore(&mut c).await;
                    self.config = c;
                    let text = |e| errors::STREAM_RESTORE.with(format!("error adding stream: {}", said(&e)));
                    self.made = Some(made.map_err(text)?);
                }
                Entry::Consumer(name, c) if self.made.is_some() && self.messages == 0 => {
                    self.consumers_bytes +=
                        256 + name.len() + (c.state.pending.len() + c.state.redelivered.len()) * 48;
                    if self.consumers_bytes > CONSUMERS_MAX {
                        return Err(errors::STREAM_RESTORE.with("the consumers' state is too large"));
                    }
                    self.consumers.push((name, *c));
                }
                Entry::Message(m) if self.made.is_some() && m.seq > self.last => self.message(m).await?,
                Entry::End => self.ended = true,
                _ => return Err(errors::STREAM_RESTORE.with("entries of the archive are out of order")),
            }
        }
        self.pass().await
    }

    async fn message(&mut self, mut m: stream::Stored) -> Result<(), ApiError> {
        if self.config.allow_msg_ttl {
            let ttl = headers::get(&m.headers, headers::TTL).and_then(Ttl::parse);
            m.expires = ttl.and_then(|t| t.expires(m.time));
        }
        (self.messages, self.last) = (self.messages + 1, m.seq);
        let item = Item::message(m);
        self.batch_bytes += item.size();
        self.batch.push(item);
        if self.batch_bytes >= BATCH { self.pass().await } else { Ok(()) }
    }

    /// What is gathered goes into the stream.
    async fn pass(&mut self) -> Result<(), ApiError> {
        let Some(a) = self.made.as_ref().filter(|_| !self.batch.is_empty()) else { return Ok(()) };
        self.batch_bytes = 0;
        self.node.import(a.id, mem::take(&mut self.batch)).await
    }

    async fn finish(&mut self) -> Result<response::StreamCreated, ApiError> {
        let wrong = |e: String| errors::STREAM_RESTORE.with(e);
        self.reader.is_whole().map_err(wrong)?;
        let (Some(a), Some(state), true) = (self.made.clone(), self.state.take(), self.ended) else {
            return Err(errors::STREAM_RESTORE.with("unexpected EOF"));
        };
        self.pass().await?;
        let (messages, last, time) =
            (self.messages, state.last_seq.max(state.first_seq.saturating_sub(1)), state.last_ts.nanos());
        let last = last.max(self.last);
        self.node.import(a.id, vec![Item::Complete { messages, last, time }]).await?;
        let stream = serde_json::to_vec(&self.config).map_err(|e| errors::STREAM_RESTORE.with(e))?;
        let stream = bytes::Bytes::from(stream);
        let account_max = self.assets.limits().map_or(-1, |l| l.max_consumers);
        for (name, c) in mem::take(&mut self.consumers) {
            let config = serde_json::to_vec(&c.config).map_err(|e| errors::CONSUMER_CREATE.with(e))?.into();
            let state = match c.state.is_untouched() {
                true => bytes::Bytes::new(),
                false => c.state.snapshot().map_err(|e| wrong(format!("consumer {name:?}: {e}")))?,
            };
            let item = Item::Consumer { name, config, state, stream: stream.clone(), account_max };
            self.node.import(a.id, vec![item]).await?;
        }
        self.desk().end_restore(&a, &self.config).await
    }

    /// What was made goes as it came (J-26).
    async fn abandon(&mut self) {
        self.node.restores.release(&self.assets.account.name, &self.config.name);
        if self.made.take().is_some() {
            self.node.end_abandoned_restores().await;
        }
    }
}
