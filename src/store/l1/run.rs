//! Runs a plan.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use env::{
    rng::Rng,
    simdisk::{Fault, Options as DiskOptions, Planned, SimDisk},
};

use super::{
    inside,
    model::{Model, Msg, Version},
    plan::{Class, GROUPS, Op, Plan},
};
use crate::{
    Batch, Chain, Disk, Error, Group, GroupId, Kind, LogIndex, Message, NewEntry, Read, Round, Store,
    StreamSeq, Sync, Ticket, filter,
    round::FileHead,
    simio::{self, SimHandle},
};

/// What a run did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Outcome {
    /// Disk operations.
    pub disk_ops: u64,
    /// Restarts after a power failure or a death.
    pub restarts: u64,
    /// Appends that were called durable.
    pub acked: u64,
    /// Messages that were read and compared.
    pub reads: u64,
    /// Reads that said "damaged".
    pub damaged: u64,
    /// Appends refused because the disk was full or the journal was.
    pub refused: u64,
    /// Flushes that published a manifest.
    pub flushes: u64,
    /// Faults that struck, also those that a plan placed.
    pub faults: u64,
}

/// Disk operations of a plan that counts for something.
pub const DISK_OPS_MIN: u64 = 100;
/// Faults of a plan that counts: power failures and deaths after the first opening, and what the disk did.
pub const FAULTS_MIN: u64 = 2;

impl Outcome {
    /// Whether enough happened that the plan proves something.
    pub fn counts(&self) -> bool {
        self.disk_ops >= DISK_OPS_MIN && self.restarts.saturating_sub(1) + self.faults >= FAULTS_MIN
    }
}

type Task = Pin<Box<dyn Future<Output = bool>>>;

/// What a sync may do that says Ok.
const LIES: [Fault; 3] = [Fault::LostWrite, Fault::TornWrite, Fault::MisdirectedWrite];

thread_local! {
    /// Feeds the salts of sealed files, so that a run stays a function of its plan.
    static SALT: Cell<Option<u64>> = const { Cell::new(None) };
    /// A flush under way, which goes on whenever something else waits for the disk.
    static FLUSH: RefCell<Option<Task>> = const { RefCell::new(None) };
    /// How the last one ended.
    static FLUSHED: Cell<Option<bool>> = const { Cell::new(None) };
}

#[cfg(test)]
/// Salts on this thread come from this number from now on.
pub(crate) fn salts_from(n: u64) {
    SALT.set(Some(n));
}

/// The salt of the next sealed file, if a plan is running on this thread.
pub(crate) fn salt() -> Option<[u8; 16]> {
    let n = SALT.get()?;
    SALT.set(Some(n.wrapping_add(1)));
    let mut s = [0; 16];
    Rng::derived(n, "l1 salt").fill(&mut s);
    Some(s)
}

/// Lets the flush under way do one disk operation.
fn step_flush() {
    let Some(mut f) = FLUSH.with(|f| f.borrow_mut().take()) else { return };
    let mut cx = Context::from_waker(std::task::Waker::noop());
    match f.as_mut().poll(&mut cx) {
        Poll::Ready(ok) => FLUSHED.set(Some(ok)),
        Poll::Pending => FLUSH.with(|slot| *slot.borrow_mut() = Some(f)),
    }
}

fn is_flushing() -> bool {
    FLUSH.with(|f| f.borrow().is_some())
}

/// Polls a future to its end. Every operation of the simulated disk ends at once or after yielding once, so one that waits
/// longer, for something other than the flush under way, waits for ever.
fn now<F: Future>(f: F) -> F::Output {
    simio::finish(f, 100_000, step_flush)
}

/// Asks a view until it answers, as the engine does: with the group's own pins (S-91).
fn asked<T>(
    g: &Group,
    mut f: impl FnMut(&mut crate::View<'_>) -> Result<T, crate::Need>,
) -> Result<T, String> {
    for _ in 0..10_000 {
        let need = match f(&mut g.view()) {
            Ok(v) => return Ok(v),
            Err(n) => n,
        };
        now(g.fetch(need)).map_err(|e| e.to_string())?;
    }
    Err("S-91: asking and fetching does not end".to_owned())
}

struct World {
    plan: Plan,
    disk: SimHandle,
    store: Option<Store>,
    models: BTreeMap<u64, Model>,
    /// The group that each slot of the plan stands for now.
    slots: Vec<u64>,
    next_group: u64,
    /// Tickets with the group and the number of the version that they make durable.
    tickets: Vec<(u64, usize, Ticket)>,
    /// The steps are done: every append asks for its sync.
    ending: bool,
    /// Groups whose creation, or deletion, is not known to be durable.
    creating: BTreeMap<u64, Ticket>,
    deleting: BTreeMap<u64, (Ticket, Model)>,
    out: Outcome,
    rotten: bool,
    /// The operation at which the disk is to lie next.
    lie_at: Option<u64>,
    /// The step in which it did.
    lied: Option<usize>,
    /// How many of the last rounds may be gone without a word: what a lie at the journal's end took cannot be told from what was never
    /// written.
    blind: u64,
    /// The last round that can be left after a file was lost that nothing names.
    left: Option<Round>,
    /// The last round that is known to be synced.
    last_round: Round,
    /// The key of the last manifest that is known to be published: what earlier ones sealed is read without them (S-32).
    keyed: u64,
    /// Damage was met and checked; what follows damage is another plan.
    ended: bool,
}

/// Runs a plan; the error is a sentence that names what was broken.
pub fn run(plan: &Plan) -> Result<Outcome, String> {
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let mut w = World::new(plan.clone());
        w.all().map(|()| w.out)
    }));
    match caught {
        Ok(r) => r,
        Err(p) => {
            let text = p
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| p.downcast_ref::<&str>().map(|s| (*s).to_owned()));
            Err(format!("panic: {}", text.unwrap_or_default()))
        }
    }
}

/// The files of the journal (0), of the segments (1) or the manifest's slots (2), and the one of them that a pick means.
fn victim(d: &SimDisk, what: u8, pick: u16) -> Option<(Vec<String>, String)> {
    let dir = ["/journal/", "/segments/", "/manifest-"][usize::from(what) % 3];
    let files: Vec<String> = d.files().into_iter().filter(|f| f.contains(dir)).collect();
    let path = files.get(usize::from(pick) % files.len().max(1))?.clone();
    Some((files, path))
}

macro_rules! ensure {
    ($c:expr, $($t:tt)+) => { if !$c { return Err(format!($($t)+)) } };
}

impl World {
    fn new(plan: Plan) -> World {
        let mut options = DiskOptions { sector: 512, ..DiskOptions::default() };
        options.rates.clear();
        match plan.class {
            Class::Crash | Class::Rot | Class::Lies => {}
            Class::Errors => {
                options = options
                    .with(Fault::SyncError, 0.004)
                    .with(Fault::WriteError, 0.004)
                    .with(Fault::ReadError, 0.002)
                    .with(Fault::NameError, 0.004)
                    .with(Fault::NoSpace, 0.01);
            }
            Class::Reads => {
                options = options
                    .with(Fault::TransientFlip, 0.0005)
                    .with(Fault::MisdirectedRead, 0.0005)
                    .with(Fault::StaleRead, 0.0005);
            }
        }
        let mut disk = SimDisk::new(options.with(Fault::Slow, 0.01), Rng::derived(plan.seed, "l1 disk"));
        for (op, after) in &plan.crashes {
            disk.plan(*op, if *after { Planned::CrashAfter } else { Planned::CrashBefore });
        }
        FLUSH.with(|f| *f.borrow_mut() = None);
        FLUSHED.set(None);
        SALT.set(Some(plan.seed));
        World {
            disk: SimHandle::new(disk, plan.interleaves()),
            plan,
            store: None,
            models: BTreeMap::new(),
            slots: Vec::new(),
            next_group: 1,
            tickets: Vec::new(),
            ending: false,
            creating: BTreeMap::new(),
            deleting: BTreeMap::new(),
            out: Outcome::default(),
            rotten: false,
            lie_at: None,
            lied: None,
            blind: 0,
            left: None,
            last_round: Round(0),
            keyed: 0,
            ended: false,
        }
    }

    fn all(&mut self) -> Result<(), String> {
        self.restart(true)?;
        for i in 0..self.plan.ops.len() {
            if self.ended {
                break;
            }
            let op = self.plan.ops[i];
            self.plan_lie(i);
            let mut done = self.op(op);
            for _ in 0..(self.plan.seed >> 3).wrapping_add(i as u64) % 4 {
                step_flush();
            }
            if done.is_ok() && !self.note_lie() {
                done = self.flushed();
            }
            if !self.ended && self.note_lie() {
                // Nobody knows yet. Whatever comes of the next steps: what counts is what is found after them.
                let since = *self.lied.get_or_insert(i);
                let until = since + (self.plan.seed >> 5) as usize % 8;
                if i < until && i + 1 < self.plan.ops.len() && !self.disk.with(|d| d.crashed()) {
                    continue;
                }
                let power = self.plan.seed.is_multiple_of(3);
                self.restart(power).map_err(|e| format!("lie in step {since}, found in step {i}: {e}"))?;
                break;
            }
            done.map_err(|e| format!("step {i}, {op:?}: {e}"))?;
            if !self.ended && self.disk.with(|d| d.crashed()) {
                self.restart(true).map_err(|e| format!("crash in step {i}, {op:?}: {e}"))?;
            }
        }
        if !self.ended {
            self.disk.with(|d| d.options().capacity = 1 << 40);
            self.restart(true).map_err(|e| format!("last restart: {e}"))?;
        }
        // Liveness: on a well disk the store takes and keeps one more append for each group.
        self.disk.with(|d| d.options().rates.clear());
        if self.store.is_none() {
            self.restart(false)?;
        }
        if !self.rotten {
            self.end_again()?;
            for slot in 0..GROUPS {
                for group in 0..GROUPS {
                    // A log that nobody applies stays in the journal, which is finite.
                    self.op(Op::Apply { group, n: 255 })?;
                }
                for _ in 0..3 {
                    self.op(Op::Step)?;
                    self.op(Op::Flush)?;
                    while is_flushing() {
                        step_flush();
                    }
                    self.flushed()?;
                }
                let before = self.out.acked;
                self.ending = true;
                self.op(Op::Append { group: slot, msgs: 1, size: 10 })?;
                self.op(Op::Step)?;
                if self.disk.with(|d| d.crashed()) {
                    self.restart(true)?;
                } else {
                    ensure!(
                        self.out.acked > before,
                        "liveness: an append on a well disk was not acknowledged"
                    );
                }
            }
        }
        self.out.disk_ops = self.disk.with(|d| d.ops());
        // Being slow breaks nothing by itself.
        let harms = |c: &(&Fault, &u64)| *c.0 != Fault::Slow;
        self.out.faults = self.disk.with(|d| d.counts().iter().filter(harms).map(|c| c.1).sum());
        Ok(())
    }

    /// Groups whose end did not last have nobody who applies what they hold, and the journal is finite: the layer above ends them once more.
    fn end_again(&mut self) -> Result<(), String> {
        // What it last knew of the room on the disk may be old.
        self.op(Op::Step)?;
        let Some(store) = self.store() else { return Ok(()) };
        let back: Vec<u64> = self.models.keys().copied().filter(|id| !self.slots.contains(id)).collect();
        for id in back {
            // Where the power fails once more this is not what is asked about.
            let Ok(t) = store.delete(GroupId(id)) else { continue };
            let m = self.models.remove(&id).expect("it is known");
            self.deleting.insert(id, (t, m));
        }
        Ok(())
    }

    /// Has the disk lie at one of the next operations, from some step of the plan on and until it did.
    fn plan_lie(&mut self, step: usize) {
        if self.plan.class != Class::Lies || self.note_lie() {
            return;
        }
        let mut r = Rng::derived(self.plan.seed, "l1 lies");
        let ops = self.disk.with(|d| d.ops());
        if step < r.below(self.plan.ops.len() as u64) as usize || self.lie_at.is_some_and(|at| at >= ops) {
            return;
        }
        let fault = r.pick(&LIES).copied().unwrap_or(Fault::LostWrite);
        let at = ops + Rng::derived(self.plan.seed ^ ops, "l1 next lie").below(12);
        self.disk.with(|d| d.plan(at, Planned::Fault(fault)));
        self.lie_at = Some(at);
    }

    /// Whether the disk has lied; from then on damage may be met.
    fn note_lie(&mut self) -> bool {
        let told = self.disk.with(|d| LIES.into_iter().find(|f| d.counts().contains_key(f)));
        let Some(fault) = told else { return false };
        // A misdirected write takes what it should have written and what it hit.
        self.blind = if fault == Fault::MisdirectedWrite { 2 } else { 1 };
        self.rotten = true;
        true
    }

    /// Without the disk's own faults, which are for the store and not for those who check it.
    fn quietly<T>(&mut self, f: impl FnOnce(&mut World) -> T) -> T {
        if !matches!(self.plan.class, Class::Errors | Class::Reads) {
            return f(self);
        }
        let rates = self.disk.with(|d| std::mem::take(&mut d.options().rates));
        let r = f(self);
        self.disk.with(|d| d.options().rates = rates);
        r
    }

    /// Ends the store and opens it again, however often the power fails on the way.
    fn restart(&mut self, power: bool) -> Result<(), String> {
        self.store = None;
        FLUSH.with(|f| *f.borrow_mut() = None);
        FLUSHED.set(None);
        let mut power = power;
        for attempt in 0..64 {
            if power || self.disk.with(|d| d.crashed()) {
                self.disk.with(|d| d.power_failure());
            } else {
                self.disk.with(|d| d.process_death());
            }
            self.out.restarts += 1;
            let opts = self.plan.options(self.out.restarts, self.keyed);
            let r = now(Store::open(Disk::Sim(self.disk.clone()), "/s", opts));
            // What follows damage is another plan.
            self.ended |= self.note_lie() || self.rotten;
            if self.disk.with(|d| d.crashed()) {
                power = true;
                // It may have given up a bad last round, and removed its file, before anybody could ask it.
                self.blind = self.blind.max(u64::from(self.rotten));
                continue;
            }
            match r {
                Ok(s) => {
                    self.store = Some(s);
                    let reads = self.plan.class == Class::Reads;
                    let found = if reads { self.recovered() } else { self.quietly(World::recovered) };
                    match found {
                        Ok(()) => return Ok(()),
                        Err(_) if self.disk.with(|d| d.crashed()) => {
                            self.store = None;
                            self.blind = self.blind.max(u64::from(self.rotten));
                            power = true;
                            continue;
                        }
                        Err(e) => return Err(e),
                    }
                }
                Err(Error::Damaged(d)) if self.rotten => {
                    // Refusing to open says that the shard is damaged; the plan ends here.
                    ensure!(!d.what.is_empty(), "a refusal says why");
                    self.ended = true;
                    return Ok(());
                }
                Err(e) => {
                    // Errors of a bad or full disk go away.
                    ensure!(matches!(self.plan.class, Class::Errors), "the store does not open: {e}");
                    power = false;
                    self.disk.with(|d| d.options().capacity = 1 << 40);
                    ensure!(attempt < 60, "the store does not open: {e}");
                }
            }
        }
        Err("the store did not open in 64 attempts".to_owned())
    }

    fn store(&self) -> Option<Store> {
        self.store.clone()
    }

    /// Checks what a restart found against what must and may be there, and goes on from it.
    fn recovered(&mut self) -> Result<(), String> {
        self.settle();
        self.tickets.clear();
        let store = self.store().expect("just opened");
        let there = store.groups();
        let named = !store.damage().is_empty();
        ensure!(self.rotten || !named, "damage on a disk without any: {:?}", store.damage());
        for (id, (_, model)) in std::mem::take(&mut self.deleting) {
            // The deletion may or may not have become durable.
            if there.contains(&GroupId(id)) {
                self.models.insert(id, model);
            }
        }
        for id in std::mem::take(&mut self.creating).into_keys() {
            if !there.contains(&GroupId(id)) {
                self.models.remove(&id);
            }
        }
        let known: Vec<u64> = self.models.keys().copied().collect();
        for id in known {
            let Ok(group) = store.group(GroupId(id)) else {
                let gone = self.models[&id].versions[0].round > self.surely_left(&store);
                ensure!(self.rotten && (named || gone), "group {id} is gone");
                self.models.remove(&id);
                continue;
            };
            let mut model = self.models.remove(&id).expect("a known key");
            let r = if self.rotten {
                self.rotten_group(&group, &mut model)
            } else {
                self.group_is(&group, &mut model)
            };
            r.map_err(|e| format!("group {id}: {e}"))?;
            if self.rotten {
                continue;
            }
            self.models.insert(id, model);
        }
        if self.rotten {
            self.models.clear();
        } else {
            self.quietly(|_| now(inside::holds(&store)))?;
        }
        self.slots.retain(|id| self.models.contains_key(id));
        while self.slots.len() < GROUPS as usize {
            if !self.create()? {
                break;
            }
        }
        Ok(())
    }

    fn create(&mut self) -> Result<bool, String> {
        let Some(store) = self.store() else { return Ok(false) };
        let id = self.next_group;
        let r = match store.create(GroupId(id), false, b"opts") {
            Err(Error::Busy | Error::NoSpace(_)) => {
                now(store.step()).ok();
                now(store.flush()).ok();
                now(store.step()).ok();
                store.create(GroupId(id), false, b"opts")
            }
            r => r,
        };
        match r {
            Ok((_, t)) => {
                self.next_group += 1;
                self.models.insert(id, Model::new(t.round()));
                self.creating.insert(id, t);
                self.slots.push(id);
                Ok(true)
            }
            Err(Error::Busy | Error::NoSpace(_) | Error::Poisoned(_)) => Ok(false),
            Err(e) => Err(format!("create: {e}")),
        }
    }

    /// Notes what has become durable.
    fn settle(&mut self) {
        let mut acked: Vec<(u64, usize)> = Vec::new();
        let last = &mut self.last_round;
        self.tickets.retain(|(id, v, t)| match t.poll() {
            Some(Ok(_)) => {
                *last = t.round().max(*last);
                acked.push((*id, *v));
                false
            }
            Some(Err(_)) => false,
            None => true,
        });
        self.out.acked += acked.len() as u64;
        for (id, v) in acked {
            let models = self.models.get_mut(&id).or_else(|| self.deleting.get_mut(&id).map(|d| &mut d.1));
            if let Some(m) = models {
                // Versions before it can no longer be what a restart finds.
                m.durable = m.durable.max(v.min(m.versions.len() - 1));
            }
        }
        let last = &mut self.last_round;
        let mut open = |t: &Ticket| {
            let done = matches!(t.poll(), Some(Ok(_)));
            *last = if done { t.round().max(*last) } else { *last };
            !done
        };
        self.creating.retain(|_, t| open(t));
        self.deleting.retain(|_, (t, _)| open(t));
    }

    fn group_is(&mut self, g: &Group, m: &mut Model) -> Result<(), String> {
        let (last, _, chain) = g.last();
        let hard = g.hard_state().ok_or("the hard state is damaged")?;
        let is = |v: &Version| v.is(last, chain, &hard);
        // A log that was cut back is what it was before: the later rounds need not be there.
        let round = m.versions[m.durable..].iter().find(|v| is(v)).map_or(Round(0), |v| v.round);
        let found = m.versions[m.durable..].iter().rposition(is);
        let Some(found) = found else {
            let may = &m.versions[m.durable..];
            return Err(format!("S-1: found {} {chain:?} {hard:?}, must be one of {may:?}", last.0));
        };
        ensure!(g.lost().is_empty(), "lost {:?} on a disk without damage", g.lost());
        // The model's log becomes what was found, by its chain.
        let (mut log, mut at) = (BTreeMap::new(), chain);
        while at.0 != 0 {
            let e = m.by_chain.get(&at.0).ok_or("an entry that was never appended")?.clone();
            at = e.prev;
            log.insert(e.index.0, e);
        }
        m.log = log;
        m.hard = hard;
        m.durable += found;
        m.versions.truncate(m.durable + 1);
        m.versions[m.durable].round = round;
        self.last_round = self.last_round.max(round);
        let (applied, c) = g.applied();
        ensure!(applied == c.index, "applied {} beyond the checkpoint {}", applied.0, c.index.0);
        let snapshot =
            if c.blob.is_empty() { 0 } else { usize::from(c.blob[0]) + 256 * usize::from(c.blob[1]) };
        ensure!(
            snapshot >= m.durable_snapshot,
            "checkpoint {snapshot} was found, {} was durable",
            m.durable_snapshot
        );
        m.stream = m.snapshots[snapshot].clone();
        ensure!(
            m.stream.applied == c.index,
            "the checkpoint is at {}, not at {}",
            c.index.0,
            m.stream.applied.0
        );
        m.durable_snapshot = snapshot;
        self.stream_is(g, m)?;
        // The log above the checkpoint is whole.
        let mut at = c.index.next();
        while at <= last {
            let es = now(g.entries(at, 1000)).map_err(|e| format!("entry {}: {e}", at.0))?;
            ensure!(!es.is_empty(), "entry {} is not there", at.0);
            for e in es {
                let want = &m.log[&e.head.index.0];
                ensure!(
                    e.head.index == at && e.payload == want.payload && e.head.chain == want.chain,
                    "entry {} is not what was appended",
                    at.0
                );
                at = at.next();
            }
        }
        Ok(())
    }

    /// Every answer of the stream equals the model's.
    fn stream_is(&mut self, g: &Group, m: &Model) -> Result<(), String> {
        let s = g.state();
        let live = &m.stream.live;
        ensure!(s.msgs == live.len() as u64, "{} messages, must be {}", s.msgs, live.len());
        ensure!(s.last == m.stream.last, "last is {}, must be {}", s.last.0, m.stream.last.0);
        let first = live.keys().next().copied().unwrap_or(m.stream.last.0 + 1);
        ensure!(s.first.0 == first, "first is {}, must be {first}", s.first.0);
        now(g.verify()).map_err(|e| format!("verify: {e}"))?;
        for seq in 1..=m.stream.last.0 + 2 {
            let want = live.get(&seq);
            self.read_is(g, seq, want)?;
        }
        for f in ["s.1", "s.*", ">", "s.1.>", "t.>"] {
            let from = self.plan.seed % (m.stream.last.0 + 2);
            let want: Vec<u64> = live
                .range(from..)
                .filter(|(_, m)| filter::matches(f.as_bytes(), m.subject.as_bytes()))
                .map(|x| *x.0)
                .collect();
            let mut got = Vec::new();
            let mut at = StreamSeq(from);
            while let Some(q) = now(g.next_seq(f.as_bytes(), at)).map_err(|e| format!("next {f}: {e}"))? {
                got.push(q.0);
                at = q.next();
            }
            ensure!(got == want, "next {f} from {from}: {got:?}, must be {want:?}");
            let n = now(g.pending(f.as_bytes(), StreamSeq(from))).map_err(|e| format!("pending: {e}"))?;
            ensure!(n == want.len() as u64, "pending {f} from {from}: {n}, must be {}", want.len());
        }
        self.view_is(g, m).map_err(|e| format!("view: {e}"))?;
        let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
        live.values().for_each(|m| *counts.entry(&m.subject).or_default() += 1);
        let got = now(g.subjects(b">", 1000)).map_err(|e| format!("subjects: {e}"))?;
        let want: Vec<_> = counts.iter().map(|(s, c)| (Bytes::copy_from_slice(s.as_bytes()), *c)).collect();
        ensure!(got == want, "subjects {got:?}, must be {want:?}");
        Ok(())
    }

    /// The synchronous questions, each asked until it is answered.
    fn view_is(&self, g: &Group, m: &Model) -> Result<(), String> {
        let (live, last) = (&m.stream.live, m.stream.last);
        for s in ["s.0", "s.1", "s.2", "s.3", "s", "t"] {
            let of: Vec<u64> = live.iter().filter(|x| x.1.subject == s).map(|x| *x.0).collect();
            let want = of.first().zip(of.last()).map(|(a, b)| (of.len() as u64, *a, *b));
            let got = asked(g, |v| v.subject(s.as_bytes()))?.map(|t| (t.msgs, t.first.0, t.last.0));
            ensure!(got == want, "subject {s}: {got:?}, must be {want:?}");
            for upto in [last.0, last.0 / 2, self.plan.seed % (last.0 + 1)] {
                let want = of.iter().rfind(|q| **q <= upto).copied();
                let got = asked(g, |v| v.last_of(s.as_bytes(), StreamSeq(upto)))?.map(|q| q.0);
                ensure!(got == want, "last of {s} at {upto}: {got:?}, must be {want:?}");
            }
        }
        // What is not at hand takes a question of its own; the rest is right.
        let literal = ["s.2", "s", "none", "s.0", "t", "s.1", "s.3", "s.0"];
        let mut each = Vec::new();
        asked(g, |v| {
            each.clear();
            v.last_each(&literal.map(str::as_bytes), |i, last| {
                each.push((
                    i,
                    match last {
                        crate::Last::Message(m) => Some(Some((m.seq.0, m.time, m.body.to_vec()))),
                        crate::Last::Absent => Some(None),
                        crate::Last::Unsure => None,
                    },
                ));
            });
            Ok(())
        })?;
        ensure!(each.iter().map(|e| e.0).eq(0..literal.len()), "last of each: {each:?}");
        for (s, (_, got)) in literal.iter().zip(&each) {
            let want = live.iter().rfind(|x| x.1.subject == *s).map(|x| (*x.0, x.1.time, x.1.body.clone()));
            ensure!(
                got.as_ref().is_none_or(|got| *got == want),
                "last of each, {s}: {got:?}, must be {want:?}"
            );
        }
        let mut bounds = BTreeMap::new();
        for (q, m) in live {
            bounds.entry(m.subject.clone()).or_insert((0, *q, *q)).2 = *q;
            if let Some(b) = bounds.get_mut(&m.subject) {
                b.0 += 1;
            }
        }
        let got = asked(g, |v| {
            let mut all = BTreeMap::new();
            v.subjects(b">", |s, t| {
                all.insert(String::from_utf8_lossy(s).into_owned(), (t.msgs, t.first.0, t.last.0));
                true
            })?;
            Ok(all)
        })?;
        ensure!(got == bounds, "subjects: {got:?}, must be {bounds:?}");
        let sets: [&[&str]; 5] = [&[], &["s.1", "s.2"], &["t.>", "s.3"], &["*.0", "s.2", "s.3"], &["s.0"]];
        for filters in sets {
            for from in [0, 1, last.0 / 3, last.0 / 2, last.0, last.0 + 1] {
                let all: Vec<u64> = live
                    .range(from..)
                    .filter(|x| {
                        let hit = |f: &&str| filter::matches(f.as_bytes(), x.1.subject.as_bytes());
                        filters.is_empty() || filters.iter().any(hit)
                    })
                    .map(|x| *x.0)
                    .collect();
                let next = asked(g, |v| v.next(filters, StreamSeq(from)))?.map(|q| q.0);
                ensure!(
                    next == all.first().copied(),
                    "next {filters:?} from {from}: {next:?}, must be {:?}",
                    all.first()
                );
                let n = asked(g, |v| v.pending(filters, StreamSeq(from)))?;
                ensure!(n == all.len() as u64, "pending {filters:?} from {from}: {n}, must be {}", all.len());
            }
        }
        let times: Vec<i64> = live.values().map(|m| m.time).collect();
        for t in times.iter().flat_map(|t| [*t, *t + 1]).chain([0, i64::MAX]) {
            let want = live.iter().find(|x| x.1.time >= t).map_or(last.0 + 1, |x| *x.0);
            let got = asked(g, |v| v.at_time(t))?.0;
            ensure!(got == want, "at time {t}: {got}, must be {want}");
        }
        Ok(())
    }

    fn read_is(&mut self, g: &Group, seq: u64, want: Option<&Msg>) -> Result<(), String> {
        self.out.reads += 1;
        let got = now(g.get(StreamSeq(seq))).map_err(|e| format!("read {seq}: {e}"))?;
        match (&got, want) {
            (Read::Absent, None) => Ok(()),
            (Read::Valid(r), Some(m)) => {
                let r = r.message();
                ensure!(
                    r.subject == m.subject.as_bytes() && r.body == m.body && r.seq.0 == seq,
                    "message {seq} is not what was written"
                );
                Ok(())
            }
            (Read::Damaged(_), _) if self.rotten => {
                self.out.damaged += 1;
                Ok(())
            }
            (got, want) => Err(format!("message {seq}: {got:?}, must be {want:?}")),
        }
    }

    /// The last round that must be there, or be named, after damage.
    fn surely_left(&self, store: &Store) -> Round {
        let blind = self.blind.max(u64::from(store.torn_tail()));
        let upto = Round(self.last_round.0.saturating_sub(blind));
        self.left.map_or(upto, |l| l.min(upto))
    }

    /// After rot: every entry that was durable can be read as it was, or is named as lost or damaged.
    fn rotten_group(&mut self, g: &Group, m: &mut Model) -> Result<(), String> {
        let damage = self.store().expect("open").damage();
        // A last round that nothing vouches for and that is bad cannot be told from a torn one.
        let unknown = damage.iter().any(|d| d.group.is_none() && d.what.contains("not known"));
        let upto = self.surely_left(&self.store().expect("open"));
        let durable = m.bound(upto);
        let (last, ..) = g.last();
        ensure!(last >= durable || unknown, "entries {}..={} are gone and not named", last.0 + 1, durable.0);
        let (_, c) = g.applied();
        let lost = g.lost();
        for index in c.index.0 + 1..=last.0.min(durable.0) {
            let named = lost.iter().any(|l| l.first.0 <= index && index <= l.last.0);
            match now(g.entries(LogIndex(index), 1)) {
                Ok(es) => {
                    let known = es.first().is_some_and(|e| {
                        m.by_chain
                            .get(&e.head.chain.0)
                            .is_some_and(|w| w.payload == e.payload && w.index.0 == index)
                    });
                    ensure!(known || named, "entry {index} is not what was appended");
                }
                Err(Error::Damaged(_)) => self.out.damaged += 1,
                Err(e) => return Err(format!("entry {index}: {e}")),
            }
        }
        let snapshot =
            if c.blob.is_empty() { 0 } else { usize::from(c.blob[0]) + 256 * usize::from(c.blob[1]) };
        let live = m.snapshots[snapshot].live.clone();
        for seq in 1..=m.snapshots[snapshot].last.0 {
            self.read_is(g, seq, live.get(&seq))?;
        }
        Ok(())
    }

    fn op(&mut self, op: Op) -> Result<(), String> {
        let Some(store) = self.store() else { return Ok(()) };
        let slot = |g: u8| self.slots.get(g as usize % self.slots.len().max(1)).copied();
        match op {
            Op::Append { group, msgs, size } => {
                if let Some(id) = slot(group) {
                    self.append(&store, id, msgs, size)?;
                }
            }
            Op::Hard { group } => {
                let Some(id) = slot(group) else { return Ok(()) };
                let m = self.models.get_mut(&id).expect("slots have models");
                m.ids += 1;
                let hard = Bytes::from(format!("hard {}", m.ids));
                let Ok(g) = store.group(GroupId(id)) else { return Ok(()) };
                if let Ok(t) = g.set_hard_state(hard.clone()) {
                    m.hard = hard;
                    m.version(t.round());
                    self.tickets.push((id, m.versions.len() - 1, t));
                }
            }
            Op::Truncate { group, back } => {
                let Some(id) = slot(group) else { return Ok(()) };
                let m = self.models.get_mut(&id).expect("slots have models");
                let index = LogIndex(m.last().0.0.saturating_sub(u64::from(back)) + 1);
                let Ok(g) = store.group(GroupId(id)) else { return Ok(()) };
                if index <= m.last().0
                    && let Ok(t) = g.truncate(index)
                {
                    m.log.split_off(&index.0);
                    m.term.0 += 1;
                    m.version(t.round());
                    self.tickets.push((id, m.versions.len() - 1, t));
                }
            }
            Op::Apply { group, n } => {
                let Some(id) = slot(group) else { return Ok(()) };
                for _ in 0..n {
                    self.apply(&store, id)?;
                }
            }
            Op::Delete { group, pick } => {
                let Some(id) = slot(group) else { return Ok(()) };
                let m = self.models.get_mut(&id).expect("slots have models");
                let Some(seq) = m.stream.live.keys().nth(pick as usize % m.stream.live.len().max(1)).copied()
                else {
                    return Ok(());
                };
                let g = store.group(GroupId(id)).map_err(|e| e.to_string())?;
                if let Ok(gone) = now(g.delete(&[StreamSeq(seq)])) {
                    ensure!(gone == [StreamSeq(seq)], "delete {seq} took {gone:?}");
                    m.stream.live.remove(&seq);
                } else {
                    self.restart(false)?;
                }
            }
            Op::Purge { group, subject } => {
                let Some(id) = slot(group) else { return Ok(()) };
                let m = self.models.get_mut(&id).expect("slots have models");
                let g = store.group(GroupId(id)).map_err(|e| e.to_string())?;
                let s = format!("s.{subject}");
                if now(g.purge(s.as_bytes(), StreamSeq(u64::MAX), 1)).is_ok() {
                    let all: Vec<u64> =
                        m.stream.live.iter().filter(|x| x.1.subject == s).map(|x| *x.0).collect();
                    let keep = all.len().saturating_sub(1);
                    all[..keep].iter().for_each(|q| {
                        m.stream.live.remove(q);
                    });
                } else {
                    self.restart(false)?;
                }
            }
            Op::Clear { group } => {
                let Some(id) = slot(group) else { return Ok(()) };
                let m = self.models.get_mut(&id).expect("slots have models");
                let g = store.group(GroupId(id)).map_err(|e| e.to_string())?;
                if let Ok(n) = asked(&g, |v| v.clear()) {
                    let live = m.stream.live.len() as u64;
                    ensure!(n == live, "clear took {n} of {live}");
                    m.stream.live.clear();
                } else {
                    self.restart(false)?;
                }
            }
            Op::Checkpoint { group } => {
                let Some(id) = slot(group) else { return Ok(()) };
                let m = self.models.get_mut(&id).expect("slots have models");
                let n = m.snapshots.len();
                m.snapshots.push(m.stream.clone());
                let g = store.group(GroupId(id)).map_err(|e| e.to_string())?;
                g.checkpoint(Bytes::from(vec![n as u8, (n >> 8) as u8]));
            }
            Op::Step => match now(store.step()) {
                Ok(()) => self.settle(),
                Err(Error::Poisoned(_)) if !self.disk.with(|d| d.crashed()) => {
                    self.settle();
                    let power = self.plan.seed.is_multiple_of(2);
                    self.restart(power)?;
                }
                Err(_) => self.settle(),
            },
            Op::Flush => {
                while is_flushing() {
                    step_flush();
                }
                self.flushed()?;
                // Checking may have met a power failure.
                let Some(store) = self.store() else { return Ok(()) };
                let flush = async move { store.flush().await.is_ok() };
                if self.plan.interleaves() {
                    FLUSH.with(|f| *f.borrow_mut() = Some(Box::pin(flush)));
                } else {
                    FLUSHED.set(Some(now(flush)));
                    self.flushed()?;
                }
            }
            Op::Read { group, pick } => {
                let Some(id) = slot(group) else { return Ok(()) };
                let m = self.models[&id].clone();
                let g = store.group(GroupId(id)).map_err(|e| e.to_string())?;
                let seq = 1 + u64::from(pick) % (m.stream.last.0 + 2);
                let r = self.read_is(&g, seq, m.stream.live.get(&seq));
                if !self.disk.with(|d| d.crashed()) && self.plan.class != Class::Errors {
                    r?;
                }
            }
            Op::Drop { group } => {
                let Some(id) = slot(group) else { return Ok(()) };
                if self.creating.contains_key(&id) {
                    return Ok(());
                }
                if let Ok(t) = store.delete(GroupId(id)) {
                    let m = self.models.remove(&id).expect("slots have models");
                    self.deleting.insert(id, (t, m));
                    self.slots.retain(|s| *s != id);
                    self.create()?;
                }
            }
            Op::PowerFailure => self.restart(true)?,
            Op::Death => self.restart(false)?,
            Op::End => {
                // What went wrong with it is what the next life has to cope with.
                now(store.close()).ok();
                self.restart(self.plan.seed.is_multiple_of(2))?;
            }
            Op::Fill => self.disk.with(|d| {
                let used = d.space().0;
                d.options().capacity = used;
            }),
            Op::Free => self.disk.with(|d| d.options().capacity = 1 << 40),
            Op::Rot { what, file, at } => {
                // Only what a restart reads is of interest, and one bad sector at a time: the next step restarts.
                self.settle();
                let hit = self.disk.with(|d| {
                    let (_, path) = victim(d, what, file)?;
                    let len = d.stat(&path).ok()?.len;
                    d.rot(&path, u64::from(at) % len.max(1), (at % 8) as u8).ok()
                });
                if hit.is_some() {
                    self.rotten = true;
                    self.restart(false)?;
                }
            }
            Op::Lose { what, file, keep } => {
                self.settle();
                let hit = self.disk.with(|d| {
                    let (files, path) = victim(d, what, file)?;
                    let len = d.stat(&path).ok()?.len;
                    let keep = keep.map(|k| len * u64::from(k) / 100);
                    // The newest file of a journal is named nowhere but in itself.
                    let head = |f: &String| FileHead::decode(&d.pristine(f, 0..512).ok()?);
                    let heads: Vec<_> = files.iter().filter_map(head).collect();
                    let victim = head(&path).filter(|h| heads.iter().all(|o| o.epoch <= h.epoch));
                    d.damage_file(&path, keep).ok()?;
                    Some(victim.filter(|_| keep.is_none_or(|k| k < 512)).map(|h| h.first))
                });
                if let Some(first) = hit {
                    self.left = first.map(|f| Round(f.0.saturating_sub(1)));
                    self.rotten = true;
                    self.restart(false)?;
                }
            }
        }
        Ok(())
    }

    /// A flush has ended: what it made durable is noted, and everything is compared.
    fn flushed(&mut self) -> Result<(), String> {
        let (Some(ok), Some(store)) = (FLUSHED.take(), self.store()) else { return Ok(()) };
        if ok {
            self.out.flushes += 1;
            self.keyed = self.plan.turn(self.out.restarts).unwrap_or(0);
            for (id, m) in &mut self.models {
                let Ok(g) = store.group(GroupId(*id)) else { continue };
                let c = g.applied().1;
                if !c.blob.is_empty() {
                    m.durable_snapshot = usize::from(c.blob[0]) + 256 * usize::from(c.blob[1]);
                }
            }
        }
        if !self.disk.with(|d| d.crashed()) && self.plan.class != Class::Reads && !self.note_lie() {
            let ids: Vec<u64> = self.slots.clone();
            for id in ids {
                let (Ok(g), Some(m)) = (store.group(GroupId(id)), self.models.get(&id).cloned()) else {
                    continue;
                };
                let r = self.quietly(|w| w.stream_is(&g, &m));
                if self.disk.with(|d| d.crashed()) {
                    break;
                }
                r.map_err(|e| format!("group {id} after a flush: {e}"))?;
            }
        }
        Ok(())
    }

    fn append(&mut self, store: &Store, id: u64, msgs: u8, size: u16) -> Result<(), String> {
        let m = self.models.get_mut(&id).expect("slots have models");
        let (last, prev) = m.last();
        let (mut batch, mut written, mut seq) = (Batch::new(), Vec::new(), m.last_seq());
        for _ in 0..msgs {
            m.ids += 1;
            seq = seq.next();
            let subject = format!("s.{}", m.ids % 4);
            let body: Vec<u8> =
                (0..size).map(|i| (m.ids as u16).wrapping_mul(31).wrapping_add(i) as u8).collect();
            let msg = Message {
                seq,
                time: m.ids as i64,
                expires: None,
                redacted: false,
                subject: subject.as_bytes(),
                headers: b"",
                body: &body,
            };
            batch.push(GroupId(id), &msg);
            written.push((seq.0, Msg { time: m.ids as i64, subject, body }));
        }
        m.ids += 1;
        let rest = m.ids.to_le_bytes();
        let (kind, payload) = if msgs == 0 {
            (Kind::Control, Bytes::copy_from_slice(&rest))
        } else {
            (Kind::Messages, batch.finish(if m.ids.is_multiple_of(3) { &rest } else { b"" }))
        };
        let mix = |h: u64, v: u64| (h ^ v).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23) | 1;
        let chain = Chain(mix(mix(prev.0, last.0 + 1), m.ids));
        let e = NewEntry { kind, index: last.next(), term: m.term, prev, chain, payload, digest: None };
        let g = store.group(GroupId(id)).map_err(|e| e.to_string())?;
        let relaxed = self.plan.relaxes() && !self.ending && !m.ids.is_multiple_of(3);
        match g.append(vec![e.clone()], if relaxed { Sync::Relaxed } else { Sync::Always }) {
            Ok(t) => {
                m.log.insert(e.index.0, e.clone());
                m.by_chain.insert(chain.0, e);
                m.messages.insert(chain.0, written);
                m.version(t.round());
                self.tickets.push((id, m.versions.len() - 1, t));
            }
            Err(Error::Busy | Error::NoSpace(_)) => self.out.refused += 1,
            Err(Error::Poisoned(_)) => {}
            Err(e) => return Err(format!("append: {e}")),
        }
        Ok(())
    }

    fn apply(&mut self, store: &Store, id: u64) -> Result<(), String> {
        let m = self.models.get_mut(&id).expect("slots have models");
        if m.stream.applied >= m.last().0 {
            return Ok(());
        }
        let g = store.group(GroupId(id)).map_err(|e| e.to_string())?;
        let index = m.stream.applied.next();
        let head = match now(g.entries(index, 1)) {
            Ok(es) => es.first().ok_or("an entry to apply is not there")?.head,
            Err(_) if self.disk.with(|d| d.crashed()) || self.plan.class != Class::Crash => return Ok(()),
            Err(e) => return Err(format!("entry {}: {e}", index.0)),
        };
        if now(g.apply(&head)).is_ok() {
            m.apply();
        }
        Ok(())
    }
}
