//! What the log does: committed entries, applied in order on every replica.
//!
//! Owns the order within an entry: its messages join the store, the rules hear of each, limits are enforced, consumers learn what came
//! and went. Does not own the rules. Everything here depends on the entries and on nothing else (J-4), but for what consumers of a
//! leader are told.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes};
use replica::Committed;
use store::{Kind, Message, Need, StreamSeq};
use stream::{
    Interest, Messages, MessagesMut, Meta, Stored, SubjectTotals, Totals,
    command::{Command, Control},
    config::StreamConfig,
    consumer::ConsumerConfig,
    publish::Entry,
};

use crate::{
    codec::Get,
    consumers::Consumers,
    deliver::Task,
    log::{Answers, Applied, Outcome},
    shell::{Core, Stream, now},
    view::StoreView,
};

/// The version of the checkpoint.
const FORMAT: u8 = 1;

/// How far a batch of entries is applied, and what came of it.
#[derive(Default)]
pub(crate) struct Progress {
    entry: usize,
    /// The entry's messages are in the store.
    joined: bool,
    /// Its records that the rules know of.
    record: usize,
    /// Its command's effect on consumers is done.
    begun: bool,
    control: Option<Control>,
    outcomes: Vec<Outcome>,
    tasks: Vec<Task>,
    reconfigured: bool,
    /// It has got its first configuration.
    new: bool,
    unwatch: Vec<(Vec<u8>, u64)>,
    republish: Vec<Republished>,
    /// What the entry's messages come after on their subjects, where they are republished.
    before: Vec<u64>,
    loose: Option<Answers>,
    /// Consumers are to be noted.
    notes: bool,
}

/// A message that is to be republished.
pub(crate) struct Republished {
    pub stored: Stored,
    /// The message of its subject before it, as the stream was when it came; 0 if there was none.
    pub last: u64,
}

/// Why applying does not go on.
pub(crate) enum Stop {
    /// The disk has to answer first.
    Need(Need),
    /// The log says what cannot be.
    Broken(String),
}

impl From<Need> for Stop {
    fn from(n: Need) -> Stop {
        Stop::Need(n)
    }
}

/// Consumers as the rules of retention ask for them.
struct Interested<'a>(&'a Consumers);

impl Interest for Interested<'_> {
    fn wanted(&self, subject: &[u8]) -> bool {
        self.0.any_matches(subject)
    }
    fn needed(&self, seq: u64, subject: &[u8]) -> bool {
        !self.0.nobody_needs(seq, subject)
    }
}

/// The store's messages for an apply: it notes what is removed, for the consumers that have to know.
struct Removing<'a, 'v> {
    view: &'a mut StoreView<'v>,
    /// Somebody wants to know.
    notes: bool,
    removed: Vec<(u64, Bytes)>,
    /// All before this one are removed.
    below: u64,
}

impl Messages for Removing<'_, '_> {
    type Miss = Need;
    fn totals(&self) -> Totals {
        self.view.totals()
    }
    fn num_subjects(&self) -> Result<u64, Need> {
        self.view.num_subjects()
    }
    fn subject(&self, subject: &[u8]) -> Result<Option<SubjectTotals>, Need> {
        self.view.subject(subject)
    }
    fn subject_of(&self, seq: u64, subject: &[u8]) -> Result<Option<SubjectTotals>, Need> {
        self.view.subject_of(seq, subject)
    }
    fn subjects(&self, filter: &[u8], f: &mut dyn FnMut(&[u8], SubjectTotals) -> bool) -> Result<(), Need> {
        self.view.subjects(filter, f)
    }
    fn last_of(&self, subject: &[u8], upto: u64) -> Result<Option<u64>, Need> {
        self.view.last_of(subject, upto)
    }
    fn next(&self, filters: &[Bytes], from: u64) -> Result<Option<u64>, Need> {
        self.view.next(filters, from)
    }
    fn pending(&self, filters: &[Bytes], from: u64) -> Result<u64, Need> {
        self.view.pending(filters, from)
    }
    fn at_time(&self, time: i64) -> Result<u64, Need> {
        self.view.at_time(time)
    }
    fn meta(&self, seq: u64) -> Result<Option<Meta>, Need> {
        self.view.meta(seq)
    }
    fn get(&self, seq: u64) -> Result<Option<Stored>, Need> {
        self.view.get(seq)
    }
}

impl MessagesMut for Removing<'_, '_> {
    fn remove(&mut self, seq: u64) -> Result<bool, Need> {
        let subject = if self.notes { self.view.meta(seq)?.map(|m| m.subject) } else { None };
        let gone = self.view.remove(seq)?;
        if gone && self.notes {
            self.removed.push((seq, subject.unwrap_or_default()));
        }
        Ok(gone)
    }
    fn remove_below(&mut self, seq: u64) -> Result<(), Need> {
        let t = self.view.totals();
        if seq > t.last {
            self.view.store_mut().clear()?;
        } else {
            let none: [&[u8]; 0] = [];
            while let Some(at) = self.view.store().next(&none, StreamSeq(0))?.filter(|at| at.0 < seq) {
                self.view.remove(at.0)?;
            }
        }
        self.below = self.below.max(seq.min(t.last + 1));
        Ok(())
    }
}

impl Stream {
    /// Applies as much of a batch as goes without the disk. Called again with the same progress after a need.
    pub(crate) fn apply_some(&self, batch: &[Committed], at: &mut Progress) -> Result<(), Stop> {
        let mut core = self.core.lock();
        let core = &mut *core;
        let mut view = self.view();
        while let Some(e) = batch.get(at.entry) {
            if !at.joined {
                at.before = match e.head.kind {
                    Kind::Messages if core.republishes() => last_before(e, &view)?,
                    _ => Vec::new(),
                };
                view.store_mut().apply(&e.head)?;
                at.joined = true;
            }
            let mut applied = Applied::default();
            match e.head.kind {
                Kind::Messages => core.apply_messages(self, e, &mut view, at)?,
                Kind::Control => applied = core.apply_control(self, e, &mut view, at)?,
                Kind::Empty | Kind::Config => {}
            }
            if matches!(e.head.kind, Kind::Messages | Kind::Control)
                && core.term.is_some_and(|t| t.0 == e.head.term.0)
                && let Some(outcome) = core.log.applied(e.head.kind == Kind::Messages)
            {
                match outcome {
                    Outcome::Command(Some(w)) => {
                        w.send(Ok(applied)).ok();
                    }
                    o => at.outcomes.push(o),
                }
                core.restart_if_void();
            }
            (at.entry, at.joined, at.record, at.begun, at.control) = (at.entry + 1, false, 0, false, None);
        }
        self.share.note(view.totals().bytes);
        if let Some(r) = &core.rules {
            self.share.note_batches(r.open_batches());
        }
        at.loose = core.log.take_loose();
        at.notes = core.notes.has_work();
        Ok(())
    }

    /// Sends what a batch has set free, and lets those go on who waited for it.
    pub(crate) fn applied(self: &std::sync::Arc<Stream>, mut at: Progress) {
        // Before the answers: whoever has his answer may look for what was republished.
        if !at.republish.is_empty() {
            self.republish(&at.republish);
        }
        if let Some(a) = at.loose.take() {
            at.outcomes.push(Outcome::Answers(a));
        }
        self.settle(at.outcomes);
        self.carry(&mut at.tasks);
        if let Some(assets) = self.assets.upgrade() {
            for (subject, id) in at.unwatch {
                assets.account.unwatch(&subject, id);
            }
        }
        self.drained.notify_waiters();
        if at.new {
            self.register();
            if self.leads() {
                self.push_config();
                self.serve();
            }
        }
        if at.reconfigured {
            self.suit();
        }
        if at.reconfigured && self.answers() {
            self.listen();
            self.follow_anew();
        }
        if at.notes {
            self.keep_notes();
        }
        self.tell_followers();
        self.wake_slow();
        self.pump();
        self.wound_up();
    }
}

/// The message of its subject before each message of an entry that is not in the store yet. Asked before the limits remove it: who keeps one message a
/// subject is told of the one that it replaces.
fn last_before(e: &Committed, view: &StoreView<'_>) -> Result<Vec<u64>, Need> {
    let mut of_entry: BTreeMap<&[u8], u64> = BTreeMap::new();
    let mut all = Vec::new();
    for m in e.records().flatten().map_while(Message::parse) {
        let last = match of_entry.insert(m.subject, m.seq.0) {
            Some(last) => last,
            None => view.last_of(m.subject, m.seq.0.saturating_sub(1))?.unwrap_or(0),
        };
        all.push(last);
    }
    Ok(all)
}

impl Core {
    /// Whether what is applied is published again from here.
    fn republishes(&self) -> bool {
        self.term.is_some() && self.rules.as_ref().is_some_and(|r| r.config().republish.is_some())
    }

    fn apply_messages(
        &mut self,
        s: &Stream,
        e: &Committed,
        view: &mut StoreView<'_>,
        at: &mut Progress,
    ) -> Result<(), Stop> {
        if e.head.compacted && self.rules.is_none() {
            // The entry with its configuration may be among those that were damaged; it is also in the assignment.
            let config: StreamConfig = serde_json::from_slice(&s.first_config).map_err(|e| {
                Stop::Broken(format!("the stream's configuration is lost, and so is its copy: {e}"))
            })?;
            self.rules = Some(stream::Stream::new(config, s.created, s.rule_limits()));
        }
        let republishes = self.republishes();
        let Core { rules: Some(rules), consumers, .. } = self else {
            return Err(Stop::Broken("the log has messages before the stream's configuration".into()));
        };
        for raw in e.records().skip(at.record) {
            let m = raw.and_then(Message::parse);
            let Some(m) = m else { return Err(Stop::Broken("a record of the log cannot be read".into())) };
            let entry = Entry {
                seq: m.seq.0,
                time: m.time,
                expires: m.expires,
                subject: m.subject,
                headers: m.headers,
                payload: m.body,
            };
            rules.applied(&entry);
            consumers.appended(m.seq.0, m.subject);
            if republishes {
                let stored = Stored {
                    seq: m.seq.0,
                    time: m.time,
                    expires: m.expires,
                    subject: Bytes::copy_from_slice(m.subject),
                    headers: Bytes::copy_from_slice(m.headers),
                    payload: Bytes::copy_from_slice(m.body),
                };
                let last = at.before.get(at.record).copied().unwrap_or(0);
                at.republish.push(Republished { stored, last });
            }
            at.record += 1;
        }
        if e.head.compacted {
            // What was lost of a damaged entry has had its sequences (J-2).
            rules.lost_upto(view.totals().last);
        }
        self.enforce(view, at)
    }

    /// Removes what has to go, and tells the consumers.
    fn enforce(&mut self, view: &mut StoreView<'_>, at: &mut Progress) -> Result<(), Stop> {
        let Core { rules: Some(rules), consumers, .. } = self else { return Ok(()) };
        let mut msgs = Removing { view, notes: consumers.len() > 0, removed: Vec::new(), below: 0 };
        let r = rules.enforce(&mut msgs, &Interested(consumers));
        let (removed, below) = (msgs.removed, msgs.below);
        tell(consumers, &removed, below, false, &mut at.tasks);
        Ok(r?)
    }

    fn apply_control(
        &mut self,
        s: &Stream,
        e: &Committed,
        view: &mut StoreView<'_>,
        at: &mut Progress,
    ) -> Result<Applied, Stop> {
        let control = match at.control.take() {
            Some(c) => c,
            None => Control::decode(&e.payload)
                .ok_or_else(|| Stop::Broken(format!("entry {} is of an unknown format", e.head.index.0)))?,
        };
        let r = self.apply_command(s, &control, view, at);
        at.control = Some(control);
        r
    }

    fn apply_command(
        &mut self,
        s: &Stream,
        control: &Control,
        view: &mut StoreView<'_>,
        at: &mut Progress,
    ) -> Result<Applied, Stop> {
        if let (Command::Config { json, created }, None) = (&control.command, &self.rules) {
            self.wanted_met = self.wanted.as_ref() == Some(json);
            let config: StreamConfig = match self.wanted_read.take().filter(|_| self.wanted_met) {
                Some(read) => *read,
                None => serde_json::from_slice(json)
                    .map_err(|e| Stop::Broken(format!("the stream's configuration cannot be read: {e}")))?,
            };
            self.rules = Some(stream::Stream::new(config, *created, s.rule_limits()));
            at.new = true;
            return Ok(Applied::default());
        }
        if !at.begun {
            self.begin_command(s, control, view, at)?;
            at.begun = true;
        }
        let Core { rules: Some(rules), consumers, .. } = self else {
            return Err(Stop::Broken("the log has commands before the stream's configuration".into()));
        };
        let mut msgs = Removing { view, notes: consumers.len() > 0, removed: Vec::new(), below: 0 };
        let r = rules.apply_command(control, &mut msgs, &Interested(consumers));
        let (removed, below) = (msgs.removed, msgs.below);
        let purges = matches!(control.command, Command::Purge { .. });
        tell(consumers, &removed, below, purges, &mut at.tasks);
        let outcome = r?;
        if let Command::Config { json, .. } = &control.command {
            self.wanted_met = self.wanted.as_ref() == Some(json);
            at.reconfigured = true;
            consumers.reconfigured(rules.config());
        }
        Ok(Applied { removed: outcome.removed })
    }

    /// What a command does to consumers, once.
    fn begin_command(
        &mut self,
        s: &Stream,
        control: &Control,
        view: &StoreView<'_>,
        at: &mut Progress,
    ) -> Result<(), Stop> {
        let text = |b: &Bytes| String::from_utf8_lossy(b).into_owned();
        let config = |json: &Bytes| {
            serde_json::from_slice::<ConsumerConfig>(json)
                .map_err(|e| Stop::Broken(format!("a consumer's configuration cannot be read: {e}")))
        };
        match &control.command {
            Command::ConsumerCreate { name, created, json } => {
                let name = text(name);
                if self.consumers.get(&name).is_none() {
                    self.add_consumer(s, view, &name, *created, config(json)?, true)?;
                }
            }
            Command::ConsumerRestore { name, created, json, state } => {
                let name = text(name);
                if self.consumers.get(&name).is_none() {
                    let identity = self.identity(s, &name);
                    self.restore_consumer(identity, config(json)?, *created, state, true)
                        .map_err(Stop::Broken)?;
                }
            }
            Command::ConsumerUpdate { name, json } => {
                self.update_consumer(&text(name), config(json)?, now(), &mut at.tasks);
                if let Some(r) = &mut self.rules {
                    r.interest_changed();
                }
            }
            Command::ConsumerDelete { name } => {
                at.unwatch.extend(self.delete_consumer(&text(name), &mut at.tasks));
                if let Some(r) = &mut self.rules {
                    r.interest_changed();
                }
            }
            Command::ConsumerDelta { name, delta } => self.delta(name, delta)?,
            Command::ConsumerDeltas { deltas } => {
                for (name, delta) in deltas {
                    self.delta(name, delta)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn delta(&mut self, name: &[u8], delta: &[u8]) -> Result<(), Stop> {
        if env::planted!("js-delta-skipped-on-replay") && self.term.is_none() {
            return Ok(());
        }
        let done = self.apply_delta(name, delta).map_err(Stop::Broken)?;
        if let Some(r) = &mut self.rules {
            for (first, last) in done {
                if env::planted!("js-acked-stays-in-queue") {
                    continue;
                }
                r.acked(first, last);
            }
        }
        Ok(())
    }

    /// The state after the last entry applied.
    pub(crate) fn checkpoint(&self) -> Bytes {
        let mut out = vec![FORMAT];
        let Some(rules) = &self.rules else { return out.into() };
        let put = |out: &mut Vec<u8>, b: &[u8]| {
            out.put_u32_le(u32::try_from(b.len()).expect("a stream's state is far below 4 GiB"));
            out.extend_from_slice(b);
        };
        put(&mut out, &rules.snapshot());
        let logged: Vec<_> = self.consumers.slots().filter(|(_, s)| s.logged).collect();
        out.put_u32_le(logged.len() as u32);
        for (name, slot) in logged {
            put(&mut out, name.as_bytes());
            out.put_i64_le(slot.created);
            put(&mut out, &serde_json::to_vec(slot.rules.config()).expect("a configuration is plain data"));
            put(&mut out, &slot.rules.snapshot());
        }
        out.into()
    }
    /// Takes up a checkpoint.
    pub(crate) fn restore(&mut self, s: &Stream, blob: &[u8]) -> Result<(), String> {
        let damaged = || "the checkpoint is of an unknown format".to_string();
        let mut left = Get(blob);
        if left.u8() != Some(FORMAT) {
            return Err(damaged());
        }
        if blob.len() == 1 {
            return Ok(());
        }
        let state = left.bytes().ok_or_else(damaged)?;
        let rules = stream::Stream::restore(state, s.rule_limits()).ok_or_else(damaged)?;
        let count = left.u32().ok_or_else(damaged)?;
        self.rules = Some(rules);
        self.wanted_met = false;
        // What a snapshot brings takes the place of what was there; a follower has nothing to tell anybody.
        self.consumers.retire(&mut Vec::new());
        for _ in 0..count {
            let name = left.bytes().ok_or_else(damaged)?;
            let created = left.u64().ok_or_else(damaged)? as i64;
            let json = left.bytes().ok_or_else(damaged)?;
            let state = left.bytes().ok_or_else(damaged)?;
            let name = str::from_utf8(name).map_err(|_| damaged())?;
            let config: ConsumerConfig = serde_json::from_slice(json).map_err(|e| e.to_string())?;
            let identity = self.identity(s, name);
            self.restore_consumer(identity, config, created, state, true)?;
        }
        Ok(())
    }
}

/// Tells the consumers what has left the stream; `purges`: by a purge.
fn tell(consumers: &mut Consumers, removed: &[(u64, Bytes)], below: u64, purges: bool, out: &mut Vec<Task>) {
    if below > 0 {
        consumers.purged(below);
    }
    for (seq, subject) in removed {
        consumers.removed(*seq, subject, purges, out);
    }
}
