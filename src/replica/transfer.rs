//! A group's state from one node to another, for a replica that the log alone cannot help any more.
//!
//! Owns both ends of the way and what they may take of the node: bytes read out and not acknowledged, and states received at once. What a state is and how it
//! takes effect is the store's; when one is wanted is the core's. The receiver asks and the sender answers: every request names how far the receiver is and how
//! much more it takes, so a lost frame costs a repetition, and a sender that hears nothing forgets. The state is that of the sender's checkpoint when
//! the transfer began, whatever checkpoints follow.
//!
//! - D-10: a state takes effect between two applies: in the store, durably, then in the machine, then in the core. Nothing of the log
//!   goes before.
//! - D-11: bytes of states under way are bounded on a node at both ends.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use raft::{Chain, Event, GroupId, Install, LogIndex, NodeId, Ready, SnapshotMeta, Term};
use tokio::sync::{Notify, Semaphore};

use crate::{codec, frame::Frame, group::Group, replicas::Shared};

/// Bytes of one part at most.
const PART_BYTES: usize = 128 << 10;
/// Repetitions without an answer after which a transfer is given up.
const TRIES: u32 = 20;
/// Times of repetition without a word of the receiver after which a sender forgets it.
const FORGET: u32 = 2 * TRIES;

/// A piece of a state, as a frame carries it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Part {
    pub group: GroupId,
    /// The transfer, as its receiver named it.
    pub id: u64,
    pub offset: u64,
    /// The state ends with it.
    pub last: bool,
    pub bytes: Bytes,
}

/// A receiver's request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Fetch {
    pub group: GroupId,
    pub id: u64,
    /// The state has to be of this entry or a later one.
    pub index: LogIndex,
    /// All before this is there.
    pub offset: u64,
    /// And so many bytes after it are welcome.
    pub credit: u64,
    /// What was sent may be lost: again from `offset` on.
    pub again: bool,
}

/// What a sender knows of one receiver.
struct Session {
    id: u64,
    asked: Mutex<(u64, u64, bool)>,
    wake: Notify,
}

/// What has come for a transfer and was not taken yet, by offset.
#[derive(Default)]
struct Inbox {
    parts: BTreeMap<u64, (Bytes, bool)>,
    bytes: u64,
    refused: bool,
}

struct Arriving {
    id: u64,
    from: NodeId,
    inbox: Mutex<Inbox>,
    wake: Notify,
}

/// All transfers of a node.
pub(crate) struct Transfers {
    out: Mutex<BTreeMap<(GroupId, NodeId), Arc<Session>>>,
    arriving: Mutex<BTreeMap<GroupId, Arc<Arriving>>>,
    /// Bytes read out and not acknowledged (D-11).
    read_out: AtomicU64,
    room: Notify,
    turns: Semaphore,
    /// States taken over since the start.
    pub taken: AtomicU64,
}

impl Transfers {
    pub(crate) fn new(at_once: usize) -> Transfers {
        Transfers {
            out: Mutex::default(),
            arriving: Mutex::default(),
            read_out: AtomicU64::new(0),
            room: Notify::new(),
            turns: Semaphore::new(at_once.max(1)),
            taken: AtomicU64::new(0),
        }
    }

    /// States being read out and received, and bytes read out that are not acknowledged.
    pub(crate) fn under_way(&self) -> (usize, usize, u64) {
        (self.out.lock().len(), self.arriving.lock().len(), self.read_out.load(Ordering::Relaxed))
    }
}

/// Parts that were read out and are not acknowledged, and what of them was sent.
struct Window<'a> {
    transfers: &'a Transfers,
    parts: VecDeque<Part>,
    sent: usize,
    /// Where the next part begins.
    end: u64,
}

impl Window<'_> {
    fn push(&mut self, group: GroupId, id: u64, bytes: Bytes, last: bool) {
        let len = bytes.len() as u64;
        self.parts.push_back(Part { group, id, offset: self.end, last, bytes });
        self.end += len;
        self.transfers.read_out.fetch_add(len, Ordering::Relaxed);
    }
    fn pop(&mut self) {
        if let Some(p) = self.parts.pop_front() {
            self.sent = self.sent.saturating_sub(1);
            self.transfers.read_out.fetch_sub(p.bytes.len() as u64, Ordering::Relaxed);
        }
    }
    fn acknowledged(&mut self, upto: u64) {
        let before = self.parts.len();
        while self.parts.front().is_some_and(|p| p.offset + p.bytes.len() as u64 <= upto) {
            self.pop();
        }
        if self.parts.len() < before {
            self.transfers.room.notify_waiters();
        }
    }
}

impl Drop for Window<'_> {
    fn drop(&mut self) {
        while !self.parts.is_empty() {
            self.pop();
        }
        self.transfers.room.notify_waiters();
    }
}

impl Shared {
    /// A node wants a state, or more of it.
    pub(crate) fn on_fetch(self: &Arc<Self>, from: NodeId, f: Fetch) {
        let key = (f.group, from);
        let session = {
            let mut out = self.transfers.out.lock();
            match out.get(&key) {
                Some(s) if s.id == f.id => s.clone(),
                _ if f.offset > 0 => {
                    drop(out);
                    return self.net.frame(from, &Frame::NoState { group: f.group, id: f.id });
                }
                _ => {
                    let s =
                        Arc::new(Session { id: f.id, asked: Mutex::new((0, 0, false)), wake: Notify::new() });
                    out.insert(key, s.clone());
                    let (shared, session) = (self.clone(), s.clone());
                    env::spawn(async move {
                        if !shared.read_out(from, f, &session).await {
                            shared.net.frame(from, &Frame::NoState { group: f.group, id: f.id });
                        }
                        let mut out = shared.transfers.out.lock();
                        if out.get(&key).is_some_and(|s| s.id == f.id) {
                            out.remove(&key);
                        }
                    });
                    s
                }
            }
        };
        {
            let mut asked = session.asked.lock();
            // Requests may overtake each other.
            if f.offset >= asked.0 {
                *asked = (f.offset, asked.1.max(f.offset.saturating_add(f.credit)), asked.2 || f.again);
            }
        }
        session.wake.notify_one();
    }

    /// Reads a group's state out for one receiver, as fast as that one takes it. False if there is none to be had here.
    async fn read_out(&self, to: NodeId, f: Fetch, session: &Session) -> bool {
        let Some(group) = self.group(f.group) else { return false };
        let Some(mut out) = group.state_for_others().await else { return false };
        if out.checkpoint().index.0 < f.index.0 {
            return false;
        }
        let part =
            PART_BYTES.min(usize::try_from(self.options.transfer_window / 4).unwrap_or(PART_BYTES).max(4096));
        let mut w = Window { transfers: &self.transfers, parts: VecDeque::new(), sent: 0, end: 0 };
        let (mut ended, mut silent, mut acked) = (false, 0, 0);
        let pause = Duration::from_nanos(self.options.raft.resend_ns);
        loop {
            let (offset, upto) = {
                let mut asked = session.asked.lock();
                if std::mem::take(&mut asked.2) {
                    w.sent = 0;
                }
                (asked.0, asked.1)
            };
            w.acknowledged(offset);
            // From here on, so that what this one freed itself does not wake it.
            let room = self.transfers.room.notified();
            if offset > acked {
                (acked, silent) = (offset, 0);
            }
            while let Some(p) = w.parts.get(w.sent).filter(|p| p.offset < upto) {
                self.net.frame(to, &Frame::Part(p.clone()));
                w.sent += 1;
            }
            if ended && w.parts.is_empty() {
                return true;
            }
            let current = self.transfers.out.lock().get(&(f.group, to)).is_some_and(|s| s.id == f.id);
            if !current || self.is_closed() || group.inner.lock().stop.is_some() {
                return true;
            }
            let budget = self.options.transfer_bytes;
            let full = self.transfers.read_out.load(Ordering::Relaxed) >= budget;
            if !ended && w.end < upto && (!full || w.parts.is_empty()) {
                match out.next().await {
                    Ok(Some(mut b)) => {
                        while b.len() > part {
                            w.push(f.group, f.id, b.split_to(part), false);
                        }
                        w.push(f.group, f.id, b, false);
                    }
                    Ok(None) => {
                        w.push(f.group, f.id, Bytes::new(), true);
                        ended = true;
                    }
                    Err(e) => {
                        tracing::warn!(group = f.group.0, "its state cannot be read out for {to}: {e}");
                        return false;
                    }
                }
                continue;
            }
            let woken = async {
                env::select! {
                    _ = session.wake.notified() => {}
                    _ = room => {}
                }
            };
            if env::timeout(pause, woken).await.is_err() {
                silent += 1;
                if silent > FORGET {
                    return true;
                }
            }
        }
    }

    /// A piece of a state came.
    pub(crate) fn on_part(&self, from: NodeId, p: Part) {
        let Some(a) = self.transfers.arriving.lock().get(&p.group).cloned() else { return };
        if a.id != p.id || a.from.id != from.id {
            return;
        }
        {
            let mut inbox = a.inbox.lock();
            let len = p.bytes.len() as u64;
            // D-11: more than was asked for is dropped, and asked for again.
            if inbox.bytes + len > 2 * self.options.transfer_window.max(PART_BYTES as u64) {
                return;
            }
            if inbox.parts.insert(p.offset, (p.bytes, p.last)).is_none() {
                inbox.bytes += len;
            }
        }
        a.wake.notify_one();
    }

    /// A node does not have the state that it was asked for.
    pub(crate) fn on_no_state(&self, from: NodeId, group: GroupId, id: u64) {
        if let Some(a) =
            self.transfers.arriving.lock().get(&group).filter(|a| a.id == id && a.from.id == from.id)
        {
            a.inbox.lock().refused = true;
            a.wake.notify_one();
        }
    }
}

/// A state that a group was told to fetch.
pub(crate) enum Fetched {
    /// It is here and durable, apart from what the group has.
    Here(Box<store::Taken>),
    /// It could not be had.
    Failed(String),
}

impl Group {
    /// Begins to fetch another node's state. One at a time: an older one that is under way goes on, since a newer one would be fetched from its beginning.
    pub(crate) fn install(self: &Arc<Self>, install: Install) {
        if install.meta.index == LogIndex(1) {
            // The beginning of a group is its membership and nothing else, and that is in the offer.
            return self.install_first(install.meta);
        }
        {
            let mut inner = self.inner.lock();
            if inner.fetching {
                return;
            }
            inner.fetching = true;
        }
        let group = self.clone();
        env::spawn(async move {
            let fetched = match group.fetch(&install).await {
                Ok(taken) => Fetched::Here(Box::new(taken)),
                Err(why) => {
                    // A disk that is full, or a node that does not answer, would be asked again and again.
                    env::sleep(Duration::from_nanos(group.shared.options.raft.resend_ns)).await;
                    Fetched::Failed(why)
                }
            };
            group.inner.lock().rare().fetched = Some(fetched);
            group.poke();
        });
    }

    /// Fetches a state to the store, where it lies beside what the group has.
    async fn fetch(self: &Arc<Self>, install: &Install) -> Result<store::Taken, String> {
        let transfers = &self.shared.transfers;
        let _turn = transfers.turns.acquire().await.map_err(|e| e.to_string())?;
        let id = env::rng("replica transfers").next_u64();
        let arriving =
            Arc::new(Arriving { id, from: install.from, inbox: Mutex::default(), wake: Notify::new() });
        transfers.arriving.lock().insert(self.id, arriving.clone());
        let done = self.receive(install, &arriving).await;
        let mut all = transfers.arriving.lock();
        if all.get(&self.id).is_some_and(|a| a.id == id) {
            all.remove(&self.id);
        }
        done
    }

    async fn receive(
        self: &Arc<Self>,
        install: &Install,
        arriving: &Arriving,
    ) -> Result<store::Taken, String> {
        let options = &self.shared.options;
        let pause = Duration::from_nanos(options.raft.resend_ns);
        let mut incoming = self.store.incoming();
        let (mut have, mut told, mut tries) = (0u64, 0u64, 0);
        let ask = |offset, credit, again| {
            let f =
                Fetch { group: self.id, id: arriving.id, index: install.meta.index, offset, credit, again };
            self.shared.net.frame(install.from, &Frame::Fetch(f));
        };
        ask(0, options.transfer_window, false);
        loop {
            let woken = env::timeout(pause, arriving.wake.notified()).await.is_ok();
            if self.shared.is_closed() || self.inner.lock().stop.is_some() {
                return Err("the group is stopped".to_owned());
            }
            let mut moved = false;
            loop {
                let next = {
                    let mut inbox = arriving.inbox.lock();
                    if inbox.refused {
                        return Err(format!("{} does not have it", install.from));
                    }
                    while inbox.parts.first_key_value().is_some_and(|p| *p.0 < have) {
                        let old = inbox.parts.pop_first().map_or(0, |p| p.1.0.len() as u64);
                        inbox.bytes -= old;
                    }
                    let next = inbox.parts.remove(&have);
                    inbox.bytes -= next.as_ref().map_or(0, |p| p.0.len() as u64);
                    next
                };
                let Some((bytes, last)) = next else { break };
                have += bytes.len() as u64;
                moved = true;
                incoming.push(&bytes).await.map_err(|e| e.to_string())?;
                if last {
                    // The last word: nothing has to be kept for this one any more.
                    ask(have, 0, false);
                    return incoming.finish().await.map_err(|e| e.to_string());
                }
            }
            if moved {
                tries = 0;
                if have - told >= options.transfer_window / 4 {
                    told = have;
                    ask(have, options.transfer_window, false);
                }
            } else if !woken {
                tries += 1;
                if tries > TRIES {
                    return Err(format!("{} does not answer", install.from));
                }
                told = have;
                ask(have, options.transfer_window, true);
            }
        }
    }

    /// Takes up a state that was fetched (D-10). Called by the activity, between two applies, with no write waiting for room.
    pub(crate) async fn take_up(self: &Arc<Self>, fetched: Fetched, ready: &mut Ready) {
        let failed = match fetched {
            Fetched::Failed(why) => why,
            Fetched::Here(taken) => match self.take_over(*taken, ready).await {
                Ok(()) => return self.inner.lock().fetching = false,
                Err(why) => why,
            },
        };
        let mut inner = self.inner.lock();
        inner.fetching = false;
        if let Some((index, from)) = inner.core.installing() {
            tracing::warn!(group = self.id.0, "the state of entry {} from {from}: {failed}", index.0);
            self.step(&mut inner, Event::InstallFailed { index }, ready);
        }
    }

    async fn take_over(self: &Arc<Self>, taken: store::Taken, ready: &mut Ready) -> Result<(), String> {
        let c = taken.checkpoint();
        let (members, blob) =
            codec::read_members(&c.blob).ok_or_else(|| "its members cannot be read".to_owned())?;
        let meta = SnapshotMeta {
            index: LogIndex(c.index.0),
            term: Term(c.term.0),
            chain: Chain(c.chain.0),
            members,
        };
        {
            let inner = self.inner.lock();
            let s = inner.core.status();
            if s.role == raft::RoleName::Leader || s.applied >= meta.index || inner.stop.is_some() {
                // The log came to help meanwhile.
                return Err("it is not needed any more".to_owned());
            }
        }
        self.store.take_over(taken).await.map_err(|e| e.to_string())?;
        let restored = self.machine.restore(&blob);
        self.since_checkpoint.store(0, Ordering::Relaxed);
        self.shared.transfers.taken.fetch_add(1, Ordering::Relaxed);
        tracing::info!(group = self.id.0, "took over the state of entry {}", meta.index.0);
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        let index = meta.index;
        inner.apply.take_if(|a| a.last <= index);
        if let Some(a) = &mut inner.apply {
            a.first = a.first.max(index.next());
        }
        self.step(inner, Event::Installed(Box::new(meta)), ready);
        if let Err(why) = restored {
            // The store is there and the machine is not: only a restart can bring them together.
            self.fail(inner, format!("the state of entry {}: {why}", index.0), ready);
        }
        Ok(())
    }
}
