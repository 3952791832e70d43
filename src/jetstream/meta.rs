//! The meta group: which streams there are, and which replicated log is whose.
//!
//! Owns the assignments and their ids, as the machine of group 1. Does not own what a stream is configured to be after its
//! creation (its own log says), nor the making of its group: whoever proposed an assignment is told when it is applied.
//!
//! - J-20: a group's id is given once; also the id of a stream that is gone is never given again.
//! - J-21: a stream's data is removed only on the word of a committed deletion, never because something does not mention it.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use bytes::{BufMut, Bytes};
use parking_lot::Mutex;
use replica::{BoxFuture, Committed, Handle, Machine, Proposal, Refusal, Role};
use tokio::sync::{oneshot, watch};

/// The group of the assignments themselves.
pub const META_GROUP: u64 = 1;
/// The version of the commands and of the checkpoint.
const FORMAT: u8 = 1;

/// A stream and its log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Assignment {
    /// The group (J-20).
    pub id: u64,
    /// Whose it is.
    pub account: Arc<str>,
    /// The stream's name.
    pub name: Arc<str>,
    /// When it was created, in nanoseconds since 1970.
    pub created: i64,
    /// Its messages are in memory only.
    pub memory: bool,
    /// The configuration that it was created with, as JSON: what its log begins with.
    pub config: Bytes,
}

enum Command {
    Create(Assignment),
    Delete(u64),
    /// Its data is removed.
    Gone(u64),
}

/// Why a change of the assignments did not happen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NotAssigned(pub String);

type Waiter = oneshot::Sender<Result<u64, NotAssigned>>;

/// The machine.
#[derive(Default)]
pub struct Meta {
    inner: Mutex<Inner>,
    ready: watch::Sender<Option<Result<(), String>>>,
}

#[derive(Default)]
struct Inner {
    state: State,
    open: VecDeque<(Proposal, Waiter)>,
    in_flight: VecDeque<Waiter>,
    term: Option<replica::Term>,
    stopped: Option<Arc<str>>,
    /// Keeps the group alive, and the group this: let go of when it is stopped.
    handle: Option<Handle>,
}

/// What the log says.
#[derive(Default)]
struct State {
    last_id: u64,
    assignments: BTreeMap<u64, Assignment>,
    /// Deleted, and perhaps not removed from the disk yet.
    deleted: BTreeSet<u64>,
}

impl State {
    fn apply(&mut self, c: Command) -> u64 {
        match c {
            Command::Create(a) => {
                self.last_id = self.last_id.max(META_GROUP) + 1;
                let id = self.last_id;
                let old = self.assignments.insert(id, Assignment { id, ..a });
                assert!(old.is_none() && !self.deleted.contains(&id), "J-20: group {id} is given twice");
                id
            }
            Command::Delete(id) => {
                if self.assignments.remove(&id).is_some() {
                    self.deleted.insert(id);
                }
                id
            }
            Command::Gone(id) => {
                self.deleted.remove(&id);
                id
            }
        }
    }
}

fn put(out: &mut Vec<u8>, b: &[u8]) {
    out.put_u32_le(u32::try_from(b.len()).expect("names and configurations are shorter than 4 GiB"));
    out.extend_from_slice(b);
}

/// Reads what [`put`] and its neighbours wrote.
struct Get<'a>(&'a [u8]);

impl<'a> Get<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (a, b) = self.0.split_at_checked(n)?;
        self.0 = b;
        Some(a)
    }
    fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|b| b[0])
    }
    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }
    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }
    fn bytes(&mut self) -> Option<&'a [u8]> {
        let n = self.u32()?;
        self.take(usize::try_from(n).ok()?)
    }
    fn text(&mut self) -> Option<Arc<str>> {
        Some(str::from_utf8(self.bytes()?).ok()?.into())
    }
}

impl Assignment {
    fn push(&self, out: &mut Vec<u8>) {
        out.put_u64_le(self.id);
        put(out, self.account.as_bytes());
        put(out, self.name.as_bytes());
        out.put_i64_le(self.created);
        out.push(u8::from(self.memory));
        put(out, &self.config);
    }
    fn read(g: &mut Get<'_>) -> Option<Assignment> {
        Some(Assignment {
            id: g.u64()?,
            account: g.text()?,
            name: g.text()?,
            created: g.u64()? as i64,
            memory: g.u8()? != 0,
            config: Bytes::copy_from_slice(g.bytes()?),
        })
    }
}

impl Command {
    fn encode(&self) -> Bytes {
        let mut out = vec![FORMAT];
        match self {
            Command::Create(a) => {
                out.push(1);
                a.push(&mut out);
            }
            Command::Delete(id) => {
                out.push(2);
                out.put_u64_le(*id);
            }
            Command::Gone(id) => {
                out.push(3);
                out.put_u64_le(*id);
            }
        }
        out.into()
    }
    fn decode(b: &[u8]) -> Option<Command> {
        let mut g = Get(b);
        if g.u8()? != FORMAT {
            return None;
        }
        let c = match g.u8()? {
            1 => Command::Create(Assignment::read(&mut g)?),
            2 => Command::Delete(g.u64()?),
            3 => Command::Gone(g.u64()?),
            _ => return None,
        };
        g.0.is_empty().then_some(c)
    }
}

impl Meta {
    /// Returns when the group leads, with all of its log applied.
    ///
    /// # Errors
    /// Why it never will.
    pub async fn settled(&self) -> Result<(), String> {
        let mut ready = self.ready.subscribe();
        match ready.wait_for(Option::is_some).await {
            Ok(r) => r.clone().unwrap_or(Ok(())),
            Err(_) => Err("the server is shutting down".into()),
        }
    }
    /// Every assignment, by id.
    pub fn assignments(&self) -> Vec<Assignment> {
        self.inner.lock().state.assignments.values().cloned().collect()
    }
    /// Groups that were deleted and may still have data.
    pub fn deleted(&self) -> Vec<u64> {
        self.inner.lock().state.deleted.iter().copied().collect()
    }
    /// Gives a stream a log. `a.id` is ignored; the id is returned once the assignment is durable.
    ///
    /// # Errors
    /// Why it is not assigned.
    pub async fn create(&self, a: Assignment) -> Result<u64, NotAssigned> {
        self.propose(Command::Create(a)).await
    }
    /// Takes an assignment back. Its data may be removed from then on (J-21).
    ///
    /// # Errors
    /// Why it stays.
    pub async fn delete(&self, id: u64) -> Result<u64, NotAssigned> {
        self.propose(Command::Delete(id)).await
    }
    /// The data of a deleted stream is removed. Forgotten if it cannot be noted: the next start finds nothing to remove.
    pub fn gone(&self, id: u64) {
        self.enqueue(Command::Gone(id));
    }

    fn enqueue(&self, c: Command) -> oneshot::Receiver<Result<u64, NotAssigned>> {
        let (tx, rx) = oneshot::channel();
        let mut inner = self.inner.lock();
        match &inner.stopped {
            Some(why) => {
                tx.send(Err(NotAssigned(why.to_string()))).ok();
            }
            None => inner.open.push_back((replica::control(c.encode()), tx)),
        }
        let handle = inner.handle.clone();
        drop(inner);
        if let Some(h) = handle {
            h.wake();
        }
        rx
    }
    async fn propose(&self, c: Command) -> Result<u64, NotAssigned> {
        match self.enqueue(c).await {
            Ok(r) => r,
            Err(_) => Err(NotAssigned("the server is shutting down".into())),
        }
    }
}

impl Machine for Meta {
    fn attach(&self, handle: &Handle) {
        self.inner.lock().handle = Some(handle.clone());
    }

    fn restore(&self, blob: &[u8]) -> Result<(), String> {
        let read = || {
            let mut g = Get(blob);
            let mut s = State::default();
            if g.u8()? != FORMAT {
                return None;
            }
            s.last_id = g.u64()?;
            for _ in 0..g.u32()? {
                s.deleted.insert(g.u64()?);
            }
            for _ in 0..g.u32()? {
                let a = Assignment::read(&mut g)?;
                s.assignments.insert(a.id, a);
            }
            g.0.is_empty().then_some(s)
        };
        self.inner.lock().state = read().ok_or("the checkpoint of the meta group is of an unknown format")?;
        Ok(())
    }

    fn apply<'a>(&'a self, batch: Vec<Committed>) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            let mut inner = self.inner.lock();
            for e in batch {
                if e.head.kind != store::Kind::Control {
                    continue;
                }
                let command = Command::decode(&e.payload).ok_or_else(|| {
                    format!("entry {} of the meta group is of an unknown format", e.head.index.0)
                })?;
                let id = inner.state.apply(command);
                if inner.term.is_some_and(|t| t.0 == e.head.term.0)
                    && let Some(w) = inner.in_flight.pop_front()
                {
                    w.send(Ok(id)).ok();
                }
            }
            Ok(())
        })
    }

    fn role(&self, role: &Role) {
        let mut inner = self.inner.lock();
        match role {
            Role::Leader { term } => {
                inner.term = Some(*term);
                self.ready.send_replace(Some(Ok(())));
            }
            Role::Follower { .. } => {
                inner.term = None;
                // Whether they are applied is for the next leader to say.
                inner.in_flight.clear();
            }
            Role::Stopped(why) => {
                inner.term = None;
                inner.in_flight.clear();
                inner.stopped = Some(why.clone());
                inner.handle = None;
                self.ready.send_replace(Some(Err(why.to_string())));
                for (_, w) in inner.open.drain(..) {
                    w.send(Err(NotAssigned(why.to_string()))).ok();
                }
            }
        }
    }

    fn checkpoint(&self) -> Bytes {
        let inner = self.inner.lock();
        let s = &inner.state;
        let mut out = vec![FORMAT];
        out.put_u64_le(s.last_id);
        out.put_u32_le(s.deleted.len() as u32);
        for d in &s.deleted {
            out.put_u64_le(*d);
        }
        out.put_u32_le(s.assignments.len() as u32);
        for a in s.assignments.values() {
            a.push(&mut out);
        }
        out.into()
    }

    fn take_proposals(&self, out: &mut Vec<Proposal>) {
        let mut inner = self.inner.lock();
        while let Some((p, w)) = inner.open.pop_front() {
            out.push(p);
            inner.in_flight.push_back(w);
        }
    }

    fn refused(&self, batch: Vec<Proposal>, why: &Refusal) {
        let mut inner = self.inner.lock();
        let keep = inner.in_flight.len().saturating_sub(batch.len());
        for w in inner.in_flight.split_off(keep) {
            w.send(Err(NotAssigned(why.to_string()))).ok();
        }
    }
}
