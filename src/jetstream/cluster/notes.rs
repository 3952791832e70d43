//! Notes of consumers in the meta group, for streams that one server alone has: the task of their leader.
//!
//! Owns when the notes are read, when they are taken into the log, who waits for them, and what they tell while that server is away. What is to be noted is
//! `noting`'s, what a note does `meta/state`'s.
//!
//! - K-14: see `noting`.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bytes::Bytes;
use replica::NodeId;
use stream::{ApiError, command::Command, consumer::ConsumerConfig, errors};

use super::{
    ask::GRACE,
    shell::{FILES, NOTES},
};
use crate::{
    JetStream,
    api::{
        Kind, Request,
        response::{ConsumerList, ConsumerNames},
    },
    consumers::is_logged,
    handlers::{Answer, done},
    log::Outcome,
    meta::{Assigned, Command as MetaCommand, Keeps, Noted, Notes},
    noting::{InLog, Next},
    shell::{Core, Stream, now},
};

/// Pause before what did not go is tried again, unless something is heard before.
const AGAIN: Duration = Duration::from_millis(50);
/// The same while it is not known what is noted: all streams of a server that starts may wait for it.
const LATER: Duration = Duration::from_millis(250);
/// How long it is waited for the meta group's word on what is committed.
const CURRENT: Duration = Duration::from_millis(500);
/// How long a request on consumers waits for what is being taken, before it looks for a leader again.
const TAKEN: Duration = Duration::from_millis(500);

impl InLog for Core {
    fn noted(&self, name: &str, keeps: Keeps) -> Option<Noted> {
        let slot = self.consumers.get(name).filter(|s| !s.rules.config().direct)?;
        let json = match keeps {
            Keeps::Nothing => return None,
            Keeps::Filed if slot.logged => Vec::new(),
            Keeps::Filed | Keeps::All => {
                serde_json::to_vec(slot.rules.config()).expect("a configuration is plain data")
            }
        };
        Some(Noted { created: slot.created, json: json.into() })
    }
    fn names(&self) -> Vec<Arc<str>> {
        self.consumers.slots().filter(|(_, s)| !s.rules.config().direct).map(|(n, _)| n.clone()).collect()
    }
}

/// What a leader finds noted when it begins.
#[derive(Default)]
pub(crate) struct Before {
    keeps: Keeps,
    /// It is a stream in files.
    filed: bool,
    notes: Option<Arc<Notes>>,
}

impl Before {
    /// Whether consumers of this stream are noted at all.
    fn is_any(&self) -> bool {
        self.keeps != Keeps::Nothing || self.notes.is_some()
    }
    fn rev(&self) -> u64 {
        self.notes.as_ref().map_or(0, |n| n.rev)
    }
}

impl Core {
    /// This node leads: what is noted is to be taken, if anything can be.
    pub(crate) fn begin_notes(&mut self, before: &Before) {
        if !before.is_any() {
            return self.notes.end();
        }
        // A log that has nothing yet, or has not all of it.
        let lacks = |n: &Arc<Notes>| n.all.keys().any(|name| self.consumers.get(name).is_none());
        let closed = !before.filed && (self.rules.is_none() || before.notes.as_ref().is_some_and(lacks));
        let mut notes = std::mem::take(&mut self.notes);
        notes.begin(before.keeps, before.filed, closed);
        // Of a stream in files that begins there is nothing to take: its consumers would come behind its configuration.
        if before.filed && self.rules.is_none() {
            notes.taken(&Notes::default(), &BTreeSet::new(), self);
        }
        self.notes = notes;
    }
}

impl JetStream {
    /// Whether every server of the cluster reads a format, as it is listed or, before that, has said itself. Also while there is no meta group here: then it
    /// takes nothing.
    pub(crate) fn all_read(&self, format: u32) -> bool {
        let (Some(c), Some(handle)) = (&self.cluster, self.meta.handle()) else { return true };
        let (voters, learners) = handle.members();
        let unlisted: Vec<NodeId> = self.meta.read(|s| {
            let members = voters.iter().chain(&learners).filter(|n| **n != self.me).copied();
            members.filter(|n| !s.nodes().contains_key(n)).collect()
        });
        let says = |n: &NodeId| c.peer(*n).and_then(|p| p.hello).is_some_and(|h| h.format >= format);
        unlisted.iter().all(says) && self.meta.read(|s| s.nodes().values().all(|n| n.format >= format))
    }
    /// Whether what is applied here is all that was acknowledged when this was called.
    async fn is_meta_current(&self) -> bool {
        let asked = env::now();
        // After a start all streams of a server ask at once.
        let mut heard = self.heard.lock().await;
        if heard.0 <= asked {
            let begun = env::now();
            let Some(handle) = self.meta.handle() else { return false };
            *heard = (begun, matches!(env::timeout(CURRENT, handle.read_barrier()).await, Ok(Ok(_))));
        }
        heard.1
    }
    /// The answer to a request on consumers of a stream whose server is away, as far as they are noted. As by nats-server 2.15.1, but that it is said of a
    /// consumer that it is offline, instead of nothing.
    pub(super) async fn answer_of_away(&self, r: &Request, a: &Assigned) -> Answer {
        let (keeps, kind) = match r {
            Request::ConsumerNames { .. } => (a.a.keeps(), Kind::ConsumerNames),
            Request::ConsumerList { .. } => (a.a.keeps(), Kind::ConsumerList),
            Request::ConsumerInfo { .. } => (a.a.keeps(), Kind::ConsumerInfo),
            _ => return None,
        };
        let format = match keeps {
            Keeps::Nothing => return None,
            Keeps::Filed => FILES,
            Keeps::All => NOTES,
        };
        if !self.all_read(format) || !self.is_meta_current().await {
            return None;
        }
        let notes = self.meta.read(|s| s.notes(a.a.id).cloned()).unwrap_or_default();
        let names = || notes.all.keys().map(|n| n.to_string()).collect();
        match r {
            Request::ConsumerNames { offset, .. } => {
                done(kind, Ok::<_, ApiError>(ConsumerNames::page_of(names(), *offset)))
            }
            Request::ConsumerList { offset, .. } => {
                done(kind, Ok::<_, ApiError>(ConsumerList::missing(names(), *offset)))
            }
            // One of a log on a disk may have been made just before its server went.
            Request::ConsumerInfo { consumer, .. }
                if keeps == Keeps::All && !notes.all.contains_key(&**consumer) =>
            {
                done(kind, Err::<ConsumerNames, _>(errors::CONSUMER_NOT_FOUND.error()))
            }
            _ => None,
        }
    }
}

impl Stream {
    /// What is noted of its consumers, as far as it is known here.
    pub(crate) fn noted_before(&self) -> Before {
        let Some(node) = self.node.upgrade().filter(|n| n.is_clustered()) else { return Before::default() };
        let (keeps, notes) = node
            .meta
            .read(|s| (s.get(self.id).map_or(Keeps::Nothing, |a| a.a.keeps()), s.notes(self.id).cloned()));
        Before { keeps: if self.forgets { Keeps::All } else { keeps }, filed: !self.memory, notes }
    }
    /// The format that notes of this stream are in.
    fn notes_format(&self) -> u32 {
        if self.memory { NOTES } else { FILES }
    }
    /// The notes may have changed, or can be made by now.
    pub(crate) fn look_at_notes(self: &Arc<Stream>) {
        let before = self.noted_before();
        let looks = {
            let mut core = self.core.lock();
            // It was on several servers when this one began to lead.
            let begins = core.term.is_some() && core.notes.is_off() && before.keeps != Keeps::Nothing;
            if begins {
                core.begin_notes(&before);
            }
            begins || core.notes.sees(before.rev())
        };
        if looks {
            self.keep_notes();
        }
    }
    /// Sees to it that what is to be taken or noted is.
    pub(crate) fn keep_notes(self: &Arc<Stream>) {
        let life = {
            let mut core = self.core.lock();
            if !core.notes.has_work() || core.rules.is_none() || std::mem::replace(&mut core.notes.runs, true)
            {
                return;
            }
            core.notes.life()
        };
        env::spawn(self.clone().note(life));
    }
    /// Returns when the note of a consumer is as the log has it: only then may somebody be told what was done with it.
    ///
    /// # Errors
    /// The meta group does not answer, or another node leads: what becomes of it is open.
    pub(crate) async fn noted(&self, name: &str) -> Result<(), ApiError> {
        let look = || {
            let core = self.core.lock();
            let leads = core.check_open().is_ok();
            (!leads || core.notes.is_settled(name)).then_some(leads)
        };
        let settled = match look() {
            Some(leads) => leads,
            None if env::planted!("cl-answered-before-noted") => true,
            None => env::timeout(GRACE, self.until(look)).await.unwrap_or(false),
        };
        // Where nothing is noted what was applied is enough.
        if settled || !self.noted_before().is_any() {
            return Ok(());
        }
        Err(errors::CLUSTER_NOT_AVAIL.error())
    }

    /// Returns when consumers can be decided on, or soon.
    pub(crate) async fn taken_soon(&self) {
        if self.core.lock().notes.is_taking() {
            env::timeout(TAKEN, self.notes_taken()).await.ok();
        }
    }
    /// Returns when consumers are decided on here, or this node does not lead any more.
    pub(crate) async fn notes_taken(&self) {
        self.until(|| (!self.core.lock().notes.is_taking()).then_some(())).await;
    }

    /// The task.
    async fn note(self: Arc<Stream>, life: u64) {
        let (taking, closed) = {
            let core = self.core.lock();
            (core.notes.is_taking(), core.notes.is_closed())
        };
        if taking {
            if !self.take_notes(life).await {
                return;
            }
            self.drained.notify_waiters();
            if closed {
                self.serve();
            } else {
                self.watch();
                self.pump();
                self.wound_up();
            }
        }
        loop {
            let Some(node) = self.node.upgrade().filter(|n| !n.is_closed()) else { return };
            let mut changes = node.meta.changes();
            let able = node.all_read(self.notes_format());
            let rev = self.notes_here(&node).rev;
            let next = {
                let mut guard = self.core.lock();
                let core = &mut *guard;
                if core.notes.life() != life {
                    return;
                }
                if core.notes.set_able(able) {
                    self.drained.notify_waiters();
                }
                let mut notes = std::mem::take(&mut core.notes);
                let next = if able { notes.next(rev, self.id, core) } else { Next::Idle };
                notes.runs = next != Next::Idle;
                core.notes = notes;
                next
            };
            let done = match next {
                Next::Idle => return,
                Next::Compare => {
                    let view = self.notes_here(&node);
                    // After the look at them: who has led since has changed them, and what is sent for these is void.
                    let leads = self.confirm().await.is_ok();
                    leads && self.change_notes(life, |notes, core| notes.compare(&view, core))
                }
                Next::Put(command) => {
                    let sure = node.change_meta(&command).await.is_ok();
                    self.change_notes(life, |notes, _| notes.done(sure)) && sure
                }
            };
            self.drained.notify_waiters();
            if !done {
                // Many streams may have names to note while the meta group cannot be reached, and nobody waits for those.
                let pause = if self.core.lock().notes.is_urgent() { AGAIN } else { LATER };
                env::timeout(pause, changes.changed()).await.ok();
            }
        }
    }
    fn notes_here(&self, node: &JetStream) -> Arc<Notes> {
        node.meta.read(|s| s.notes(self.id).cloned()).unwrap_or_default()
    }
    /// Runs `f` on what is known of the notes, if it is still of that life.
    fn change_notes(&self, life: u64, f: impl FnOnce(&mut crate::noting::Noting, &Core)) -> bool {
        let mut core = self.core.lock();
        if core.notes.life() != life {
            return false;
        }
        let mut notes = std::mem::take(&mut core.notes);
        f(&mut notes, &core);
        core.notes = notes;
        true
    }

    /// Takes what is noted into the log; false if it is not wanted any more.
    async fn take_notes(self: &Arc<Stream>, life: u64) -> bool {
        loop {
            let Some(node) = self.node.upgrade().filter(|n| !n.is_closed()) else { return false };
            let mut changes = node.meta.changes();
            if self.core.lock().notes.life() != life {
                return false;
            }
            if self.take_noted(&node, life).await {
                return true;
            }
            env::timeout(LATER, changes.changed()).await.ok();
        }
    }
    async fn take_noted(self: &Arc<Stream>, node: &Arc<JetStream>, life: u64) -> bool {
        let mut view = self.notes_here(node);
        // Where nothing is to be taken a late word of a predecessor is only compared with the log, which is right.
        let takes = self.memory || view.all.values().any(|n| !n.json.is_empty());
        if view.rev > 0 && takes && node.all_read(self.notes_format()) {
            // If it takes effect these are the notes of now, and what this node's predecessors have sent and is still on its way is void from here on.
            let mark = MetaCommand::note(!self.memory, self.id, view.rev, Default::default());
            if node.change_meta(&mark).await.is_err() {
                return false;
            }
            Arc::make_mut(&mut view).rev += 1;
        } else if !node.is_meta_current().await || self.notes_here(node).rev != view.rev {
            return false;
        }
        let Some(unread) = self.make_noted(&view).await else { return false };
        self.change_notes(life, |notes, core| notes.taken(&view, &unread, core))
    }
    /// Makes what is noted and not there; what could not be read. `None` if not all could be made.
    async fn make_noted(self: &Arc<Stream>, view: &Notes) -> Option<BTreeSet<Arc<str>>> {
        let mut unread = BTreeSet::new();
        let (mut waiting, mut unlogged) = (Vec::new(), Vec::new());
        let handle = {
            let mut core = self.core.lock();
            if core.term.is_none() || core.stopped.is_some() || core.voided {
                return None;
            }
            let of = core.rules.as_ref()?.config().clone();
            for (name, n) in &view.all {
                // Of what is in a log on a disk only the name is noted: what is not there any more was deleted.
                let is_name = n.json.is_empty();
                if is_name || core.consumers.get(name).is_some() || env::planted!("cl-notes-not-taken") {
                    continue;
                }
                let Ok(c) = serde_json::from_slice::<ConsumerConfig>(&n.json) else {
                    unread.insert(name.clone());
                    continue;
                };
                if !is_logged(&c, &of) {
                    unlogged.push((name, n.created, c));
                    continue;
                }
                let (tx, rx) = tokio::sync::oneshot::channel();
                let (name, json) = (Bytes::copy_from_slice(name.as_bytes()), n.json.clone());
                let create = Command::ConsumerCreate { name, created: n.created, json };
                core.enqueue(create, Outcome::Command(Some(tx)), now());
                waiting.push(rx);
            }
            core.handle.clone()
        };
        if let Some(h) = handle {
            h.wake();
        }
        if !unread.is_empty()
            && let Some(node) = self.node.upgrade()
        {
            let label = format!("{} > {}", self.account, self.name);
            let text =
                format!("JetStream stream '{label}': consumers that this version cannot read: {unread:?}");
            node.host.log("ERR", &text);
        }
        for made in waiting {
            made.await.ok()?.ok()?;
        }
        for (name, created, c) in unlogged {
            self.add_unlogged(name, created, &c).await.ok()?;
        }
        Some(unread)
    }
}
