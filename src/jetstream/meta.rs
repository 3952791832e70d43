//! The meta group: the machine of group 1, which has the assignments and the nodes.
//!
//! Owns the way of a command into the log and of its outcome to whoever waits. What the log says is `meta/state`. Does not own the making of groups, nor what a
//! stream's configuration is at the moment: its own log says.

mod state;
mod tally;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use env::watch;
use parking_lot::Mutex;
use replica::{BoxFuture, Committed, Handle, Machine, NodeId, Role, Term};
use stream::{ApiError, config::StreamConfig, errors};
use tokio::sync::oneshot;

pub use state::{Assigned, Assignment, Command, Keeps, META_GROUP, Node, Noted, Notes, State};
pub use tally::{OfAccount, Tally, aside, stands_in};

use crate::leading::CONFIRM;

/// Why a change of the assignments did not happen, or is not known to have happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NotAssigned {
    /// This node does not lead the group; another may, this one if known.
    NotLeader(Option<NodeId>),
    /// It did not happen, for that reason.
    Refused(String),
    /// It did not happen: too much is under way. Try again.
    Busy,
    /// Leadership ended first: it may have happened.
    Open,
}

impl std::fmt::Display for NotAssigned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            NotAssigned::NotLeader(_) => f.write_str("the meta group is led elsewhere"),
            NotAssigned::Refused(why) => f.write_str(why),
            NotAssigned::Busy => f.write_str("too much is under way"),
            NotAssigned::Open => f.write_str("the meta group has lost its leader"),
        }
    }
}

type Outcome = Result<u64, NotAssigned>;

/// A command in the log.
pub struct Proposed(Result<oneshot::Receiver<Outcome>, NotAssigned>);

impl Proposed {
    /// Whether it is not in the log because too much is under way.
    pub fn is_busy(&self) -> bool {
        matches!(self.0, Err(NotAssigned::Busy))
    }
    /// Returns when it is applied, which is after it is durable.
    ///
    /// # Errors
    /// See [`NotAssigned`].
    pub async fn done(self) -> Outcome {
        self.0?.await.unwrap_or(Err(NotAssigned::Open))
    }
}

/// The machine.
#[derive(Default)]
pub struct Meta {
    inner: Mutex<Inner>,
    creating: Mutex<()>,
    ready: watch::Sender<Option<Result<(), String>>>,
    /// Counts changes: of the state, of who leads.
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct Inner {
    state: State,
    /// How often it began anew.
    anew: u64,
    /// Up to where the log is applied.
    applied: u64,
    /// Who waits for an entry, by its index.
    waiting: BTreeMap<u64, (Term, oneshot::Sender<Outcome>)>,
    /// Outcomes of this node's entries for which nobody waited yet: an entry may be applied before its proposer is back.
    early: BTreeMap<u64, Outcome>,
    /// Proposals that are on their way into the log.
    entering: usize,
    /// Groups that were changed and not looked at yet.
    touched: BTreeSet<u64>,
    /// The highest id given here, in the log or not.
    given: u64,
    /// Streams that this node has put into the log and not seen applied, by their groups: whoever counts streams counts them too.
    coming: BTreeMap<u64, Arc<Assigned>>,
    term: Option<Term>,
    leader: Option<NodeId>,
    since: i64,
    stopped: Option<Arc<str>>,
    /// Keeps the group alive, and the group this: let go of when it is stopped.
    handle: Option<Handle>,
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
    /// Looks at what is applied here.
    pub fn read<T>(&self, f: impl FnOnce(&State) -> T) -> T {
        f(&self.inner.lock().state)
    }
    /// An account's stream.
    pub fn find(&self, account: &str, name: &str) -> Option<Arc<Assigned>> {
        self.read(|s| s.find(account, name).cloned())
    }
    /// An account's streams, by name.
    pub fn of_account(&self, account: &str) -> Vec<Arc<Assigned>> {
        self.read(|s| s.of_account(account).cloned().collect())
    }
    /// What an account's streams add up to, and those that are on their way into the log: what limits and overlaps are judged by.
    pub fn claimed<R>(
        &self,
        account: &str,
        f: impl FnOnce(Option<&OfAccount>, &mut dyn Iterator<Item = &Arc<Assigned>>) -> R,
    ) -> R {
        let inner = self.inner.lock();
        let mut coming = inner.coming.values().filter(|a| *a.a.account == *account);
        f(inner.state.sum_of(account), &mut coming)
    }
    /// The configuration of a stream that this node is making, if it says what these bytes say.
    pub fn coming_config(&self, id: u64, json: &[u8]) -> Option<StreamConfig> {
        self.inner.lock().coming.get(&id).filter(|a| a.a.config == json)?.config.clone()
    }
    /// The state, and the streams that are on their way into it.
    pub fn with_coming<R>(&self, f: impl FnOnce(&State, &mut dyn Iterator<Item = &Arc<Assigned>>) -> R) -> R {
        let inner = self.inner.lock();
        f(&inner.state, &mut inner.coming.values())
    }
    /// Whether this node leads, and has applied everything from before (K-3).
    pub fn leads(&self) -> bool {
        self.inner.lock().term.is_some()
    }
    /// Returns when what is applied here is all that was acknowledged anywhere before the call (K-10).
    ///
    /// # Errors
    /// This node does not lead, or cannot say whether it still does.
    pub async fn confirm(&self) -> Result<(), ApiError> {
        let handle = {
            let inner = self.inner.lock();
            inner.term.and_then(|_| inner.handle.clone())
        };
        let not_leader = || errors::CLUSTER_NOT_LEADER.error();
        handle.ok_or_else(not_leader)?.confirm(CONFIRM).await.map_err(|_| not_leader())
    }
    /// Who leads, if known; `me` is this node.
    pub fn leader(&self, me: NodeId) -> Option<NodeId> {
        let inner = self.inner.lock();
        if inner.term.is_some() { Some(me) } else { inner.leader }
    }
    /// Since when it is so, in nanoseconds since 1970.
    pub fn since(&self) -> i64 {
        self.inner.lock().since
    }
    /// Why it does nothing any more, if so.
    pub fn fault(&self) -> Option<Arc<str>> {
        self.inner.lock().stopped.clone()
    }
    /// The group's handle, while it is open.
    pub fn handle(&self) -> Option<Handle> {
        self.inner.lock().handle.clone()
    }
    /// Which of the group's replicas on this node it is for, from 1 on.
    pub fn life(&self) -> u64 {
        self.inner.lock().anew + 1
    }
    /// Forgets what was applied and that it was stopped: another replica of the group, with nothing, takes the place of the one that was removed. What is open of
    /// the groups stays, and is looked at again when the state comes.
    pub fn begin_anew(&self) {
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        inner.anew += 1;
        (inner.state, inner.applied, inner.stopped) = (State::default(), 0, None);
        inner.early.clear();
    }
    /// Groups that were changed since the last call.
    pub fn take_touched(&self) -> BTreeSet<u64> {
        std::mem::take(&mut self.inner.lock().touched)
    }
    /// Up to where the log is applied here.
    pub fn applied(&self) -> u64 {
        // A state that was taken over brings no entries.
        let (applied, handle) = {
            let inner = self.inner.lock();
            (inner.applied, inner.handle.clone())
        };
        handle.map_or(applied, |h| h.status().applied.0.max(applied))
    }
    /// Returns when it is applied up to there.
    pub async fn reached(&self, index: u64) {
        let mut changed = self.changed.subscribe();
        while self.applied() < index {
            if changed.changed().await.is_err() {
                return;
            }
        }
    }
    /// Tells when the state or the leader changes.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
    fn touch(&self) {
        self.changed.send_modify(|n| *n += 1);
    }

    /// Gives a stream a log: its id (J-20), and the command on its way. `a.id` is ignored; `taken` is the highest id that this node's store knows.
    pub fn create(&self, mut a: Assignment, taken: u64) -> (u64, Proposed) {
        // Ids enter the log in the order in which they are given.
        let _one = self.creating.lock();
        a.id = self.next_id(taken);
        let id = a.id;
        self.inner.lock().coming.insert(id, Assigned::new(a.clone()));
        let begun = self.begin(&Command::Create(a));
        if begun.0.is_err() {
            self.inner.lock().coming.remove(&id);
        }
        (id, begun)
    }

    /// Gives a stream whose data is gone another log, under another id (J-20).
    pub fn renew(&self, id: u64, taken: u64) -> Proposed {
        let _one = self.creating.lock();
        let new = self.next_id(taken);
        self.begin(&Command::Renew { id, new })
    }
    fn next_id(&self, taken: u64) -> u64 {
        let mut inner = self.inner.lock();
        inner.given = inner.given.max(inner.state.last_id).max(taken).max(META_GROUP) + 1;
        inner.given
    }

    /// Puts a command into the log; it is there when this returns.
    pub fn begin(&self, c: &Command) -> Proposed {
        let (handle, term) = {
            let mut inner = self.inner.lock();
            match (&inner.stopped, &inner.handle, inner.term) {
                (Some(why), ..) => return Proposed(Err(NotAssigned::Refused(why.to_string()))),
                (None, Some(h), Some(t)) => {
                    let h = h.clone();
                    inner.entering += 1;
                    (h, t)
                }
                _ => return Proposed(Err(NotAssigned::NotLeader(inner.leader))),
            }
        };
        let put = handle.propose(replica::control(c.encode()));
        let mut inner = self.inner.lock();
        inner.entering -= 1;
        let answer = match put {
            Err(replica::Refusal::NotLeader(n)) => Err(NotAssigned::NotLeader(n)),
            Err(replica::Refusal::Busy | replica::Refusal::Settling) => Err(NotAssigned::Busy),
            Err(why) => Err(NotAssigned::Refused(why.to_string())),
            Ok(index) => {
                let (tx, rx) = oneshot::channel();
                if let Some(done) = inner.early.remove(&index.0) {
                    tx.send(done).ok();
                } else if inner.applied >= index.0 {
                    // Something else stands there.
                    tx.send(Err(NotAssigned::Open)).ok();
                } else {
                    inner.waiting.insert(index.0, (term, tx));
                }
                Ok(rx)
            }
        };
        if inner.entering == 0 {
            inner.early.clear();
        }
        Proposed(answer)
    }
}

impl Machine for Meta {
    fn attach(&self, handle: &Handle) {
        self.inner.lock().handle = Some(handle.clone());
        self.touch();
    }

    fn restore(&self, blob: &[u8]) -> Result<(), String> {
        let state = State::decode(blob).ok_or("the checkpoint of the meta group is of an unknown format")?;
        {
            let mut inner = self.inner.lock();
            let inner = &mut *inner;
            // What the state before had and this one has not is looked at too.
            let ids = |s: &State| -> Vec<u64> {
                s.assignments().map(|a| a.a.id).chain(s.outs().keys().copied()).collect()
            };
            inner.touched.extend(ids(&inner.state));
            inner.touched.extend(ids(&state));
            inner.state = state;
        }
        self.touch();
        Ok(())
    }

    fn apply<'a>(&'a self, batch: Vec<Committed>) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            let mut inner = self.inner.lock();
            let inner = &mut *inner;
            for e in batch {
                let index = e.head.index.0;
                inner.applied = index;
                let outcome = if e.head.kind == store::Kind::Control {
                    let command = Command::decode(&e.payload)
                        .ok_or_else(|| format!("entry {index} of the meta group is of an unknown format"))?;
                    if let Command::Renew { id, .. } = &command {
                        inner.touched.insert(*id);
                    }
                    let coming = match &command {
                        Command::Create(a) => inner.coming.remove(&a.id),
                        _ => None,
                    };
                    let done = inner
                        .state
                        .apply_read(command, coming)
                        .map_err(|why| NotAssigned::Refused(why.to_owned()));
                    inner.touched.extend(done.iter().copied().filter(|id| *id != 0));
                    Some(done)
                } else {
                    None
                };
                let waiter = inner.waiting.remove(&index);
                let Some(outcome) = outcome else {
                    if let Some((_, w)) = waiter {
                        w.send(Err(NotAssigned::Open)).ok();
                    }
                    continue;
                };
                match waiter {
                    Some((term, w)) if term.0 == e.head.term.0 => drop(w.send(outcome)),
                    Some((_, w)) => drop(w.send(Err(NotAssigned::Open))),
                    None if inner.entering > 0 && inner.term.is_some_and(|t| t.0 == e.head.term.0) => {
                        inner.early.insert(index, outcome);
                    }
                    None => {}
                }
            }
            self.touch();
            Ok(())
        })
    }

    fn role(&self, role: &Role) {
        {
            let mut inner = self.inner.lock();
            let inner = &mut *inner;
            let before = (inner.term, inner.leader);
            match role {
                Role::Leader { term } => {
                    inner.term = Some(*term);
                    inner.leader = None;
                    self.ready.send_replace(Some(Ok(())));
                }
                Role::Follower { leader, .. } => {
                    inner.term = None;
                    inner.leader = *leader;
                }
                Role::Stopped(why) => {
                    inner.term = None;
                    inner.leader = None;
                    inner.stopped = Some(why.clone());
                    inner.handle = None;
                    self.ready.send_replace(Some(Err(why.to_string())));
                }
            }
            if inner.term.is_none() {
                inner.coming.clear();
                // What waits may still be committed by another leader: that is for whoever asks again to see.
                for (_, (_, w)) in std::mem::take(&mut inner.waiting) {
                    w.send(Err(NotAssigned::Open)).ok();
                }
            }
            if before != (inner.term, inner.leader) {
                inner.since = env::wall().0;
            }
        }
        self.touch();
    }

    fn checkpoint(&self) -> Bytes {
        self.inner.lock().state.encode()
    }
}
