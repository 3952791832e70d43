//! A handful of replicas on a table: nothing moves unless it is told to, and everything that happens is printed.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::Arc;

use crate::l0::disk::Disk;
use crate::*;

pub const GROUP: GroupId = GroupId(1);
pub const MS: u64 = 1_000_000;

pub fn n(id: u64) -> NodeId {
    NodeId::new(id, 0)
}

pub struct Replica {
    pub id: NodeId,
    pub core: Option<Core>,
    pub disk: Disk,
    pub live: Liveness,
    pub applies: VecDeque<Apply>,
    pub loads: Vec<Load>,
    pub installs: Vec<Install>,
    /// Durable writes of which the core has not heard.
    pub tokens: VecDeque<Token>,
    pub applied: SnapshotMeta,
    pub reads: Vec<Read>,
    starts: u64,
}

pub struct Table {
    pub replicas: Vec<Replica>,
    pub messages: VecDeque<Message>,
    pub now: u64,
    pub options: Arc<Options>,
    /// What happened since it was last taken.
    pub log: String,
    pub mutant: Option<Mutant>,
}

impl Table {
    /// `voters` voters, then `spare` machines outside the group.
    pub fn new(voters: u64, spare: u64) -> Self {
        let first = SnapshotMeta::bootstrap(GROUP, Members::of((1..=voters).map(n)));
        let options =
            Options { election_ns: 300 * MS, resend_ns: 100 * MS, drift_ns: 10 * MS, ..Options::default() };
        let mut table = Self {
            replicas: Vec::new(),
            messages: VecDeque::new(),
            now: 1000 * MS,
            options: Arc::new(options),
            log: String::new(),
            mutant: None,
        };
        for id in 1..=voters + spare {
            let base = if id <= voters { first.clone() } else { SnapshotMeta::nothing(GROUP) };
            table.replicas.push(Replica {
                id: n(id),
                core: None,
                disk: Disk::new(base.clone()),
                live: Liveness::without_table(table.now),
                applies: VecDeque::new(),
                loads: Vec::new(),
                installs: Vec::new(),
                tokens: VecDeque::new(),
                applied: base,
                reads: Vec::new(),
                starts: 0,
            });
            table.start(id);
        }
        table.log.clear();
        table
    }

    pub fn at(&mut self, id: u64) -> &mut Replica {
        &mut self.replicas[id as usize - 1]
    }

    pub fn core(&self, id: u64) -> &Core {
        self.replicas[id as usize - 1].core.as_ref().expect("the replica is up")
    }

    pub fn start(&mut self, id: u64) {
        let options = self.options.clone();
        let mutant = self.mutant;
        let r = self.at(id);
        r.starts += 1;
        let meta = r.disk.checkpoint.meta.clone();
        let mut tail = Tail::new(meta.clone());
        for entry in r.disk.entries.values() {
            tail.push(entry).expect("the disk holds a log");
        }
        r.applied = meta;
        let damage = r.disk.damaged.iter().map(|i| (LogIndex(*i), LogIndex(*i))).collect();
        let restored = Restored { hard: r.disk.hard, tail, applied: r.applied.index, damage };
        let mut core = Core::new(GROUP, r.id, options, id * 1000 + r.starts, restored, &r.live);
        core.plant(mutant);
        r.core = Some(core);
    }

    pub fn crash(&mut self, id: u64, keep: usize) {
        let r = self.at(id);
        r.core = None;
        r.disk.crash(keep).expect("the disk obeys");
        r.tokens.clear();
        r.applies.clear();
        r.loads.clear();
        r.installs.clear();
    }

    /// One step; what comes out goes to its place and into the log.
    pub fn step(&mut self, id: u64, event: Event) {
        let now = self.now;
        let mut ready = Ready::default();
        let r = self.at(id);
        r.live.now = now;
        let Some(core) = r.core.as_mut() else { return };
        core.step(event, &r.live, &mut ready);
        self.take(id, ready);
    }

    /// Makes these all the members, without asking anybody.
    pub fn force(&mut self, id: u64, voters: &[u64], above: u64) -> Option<LogIndex> {
        let now = self.now;
        let mut ready = Ready::default();
        let r = self.at(id);
        r.live.now = now;
        let voters: Vec<NodeId> = voters.iter().map(|v| n(*v)).collect();
        let answer = r.core.as_mut()?.force(&voters, Term(above), &r.live, &mut ready).ok();
        self.take(id, ready);
        answer
    }

    pub fn take(&mut self, id: u64, ready: Ready) {
        let me = self.at(id).id;
        for (_, note) in &ready.notes {
            let _ = writeln!(self.log, "{me} note {}", show_note(note));
        }
        for message in ready.messages {
            let _ = writeln!(self.log, "{}", show(&message));
            self.messages.push_back(message);
        }
        for write in ready.writes {
            let _ = writeln!(self.log, "{me} writes{}", show_write(&write));
            self.at(id).disk.pending.push_back(write);
        }
        for apply in ready.applies {
            let from = if apply.entries.is_empty() { " from disk" } else { "" };
            let _ = writeln!(self.log, "{me} applies {}..{}{from}", apply.first.0, apply.last.0);
            self.at(id).applies.push_back(apply);
        }
        for load in ready.loads {
            let _ = writeln!(self.log, "{me} loads {}..{} for {}", load.first.0, load.last.0, load.to);
            self.at(id).loads.push(load);
        }
        for install in ready.installs {
            let _ = writeln!(
                self.log,
                "{me} fetches the state at {} from {}",
                install.meta.index.0, install.from
            );
            self.at(id).installs.push(install);
        }
        for read in ready.reads {
            let how = if read.lease { " by lease" } else { "" };
            let _ = match read.index {
                Some(index) => writeln!(self.log, "{me} read {} sees {}{how}", read.id, index.0),
                None => writeln!(self.log, "{me} read {} is not answered", read.id),
            };
            self.at(id).reads.push(read);
        }
    }

    /// Makes the oldest write durable; its replies leave. The core hears of it with [`Table::written`].
    pub fn persist(&mut self, id: u64) -> bool {
        let next = match self.at(id).disk.sync_one() {
            Ok(next) => next,
            Err(refused) => {
                // A store that is asked for nonsense refuses, and the group stops.
                let _ = writeln!(self.log, "{} store refuses: {}", n(id), refused.text);
                self.step(id, Event::WriteFailed(Token { seq: 0, term: Term(0), index: LogIndex(0) }));
                return false;
            }
        };
        let Some(write) = next else { return false };
        for reply in write.replies {
            let _ = writeln!(self.log, "{}", show(&reply));
            self.messages.push_back(reply);
        }
        self.at(id).tokens.push_back(write.token);
        true
    }

    pub fn written(&mut self, id: u64) -> bool {
        let Some(token) = self.at(id).tokens.pop_front() else { return false };
        self.step(id, Event::Written(token));
        true
    }

    pub fn sync(&mut self, id: u64) {
        while self.persist(id) {}
        while self.written(id) {}
    }

    pub fn apply(&mut self, id: u64) -> bool {
        let Some(apply) = self.at(id).applies.pop_front() else { return false };
        let r = self.at(id);
        for index in apply.first.0..=apply.last.0 {
            let entry = apply
                .entries
                .iter()
                .find(|e| e.index.0 == index)
                .or_else(|| r.disk.entries.get(&index))
                .cloned();
            let entry = entry.expect("what is applied can be read");
            r.applied.index = entry.index;
            r.applied.term = entry.term;
            r.applied.chain = entry.chain;
            if entry.kind == EntryKind::Config {
                r.applied.members = Members::decode(&entry.payload).expect("a membership can be read");
            }
        }
        self.step(id, Event::Applied(apply.last));
        true
    }

    pub fn compact(&mut self, id: u64) {
        let r = self.at(id);
        r.disk.checkpoint.meta = r.applied.clone();
        let (index, chain) = (r.applied.index, r.applied.chain);
        self.step(id, Event::Compacted { index, chain });
    }

    pub fn load(&mut self, id: u64) -> bool {
        let r = self.at(id);
        let Some(load) = r.loads.pop() else { return false };
        let entries: Vec<Entry> =
            (load.first.0..=load.last.0).map_while(|i| r.disk.entries.get(&i).cloned()).collect();
        let prev_chain = r.disk.chain(load.first.prev());
        self.step(
            id,
            Event::Loaded(Loaded {
                to: load.to,
                repair: load.repair,
                first: load.first,
                prev_chain,
                entries,
            }),
        );
        true
    }

    pub fn install(&mut self, id: u64) -> bool {
        let Some(install) = self.at(id).installs.pop() else { return false };
        let there = self.at(install.from.id).disk.checkpoint.clone();
        let r = self.at(id);
        r.applied = there.meta.clone();
        r.disk.checkpoint = there.clone();
        self.step(id, Event::Installed(Box::new(there.meta)));
        true
    }

    /// Hands the messages that match to their receivers; `keep` leaves them under way as well.
    pub fn deliver(&mut self, matches: &dyn Fn(&Message) -> bool, keep: bool) -> usize {
        let (now, later): (Vec<Message>, Vec<Message>) =
            std::mem::take(&mut self.messages).into_iter().partition(|m| matches(m));
        self.messages.extend(later);
        let count = now.len();
        for message in now {
            if keep {
                self.messages.push_back(message.clone());
            }
            self.step(message.to.id, Event::Message(message));
        }
        count
    }

    /// Everything that can happen without time passing happens, among those who are up and not cut off.
    pub fn settle(&mut self, cut: &[u64]) {
        for _ in 0..10_000 {
            let mut busy = false;
            for id in (1..=self.replicas.len() as u64).filter(|id| !cut.contains(id)) {
                busy |= !self.at(id).disk.pending.is_empty() && self.at(id).core.is_some();
                if self.at(id).core.is_some() {
                    self.sync(id);
                    while self.apply(id) || self.load(id) || self.install(id) {
                        busy = true;
                    }
                }
            }
            self.messages.retain(|m| !cut.contains(&m.from.id) && !cut.contains(&m.to.id));
            if self.deliver(&|_| true, false) == 0 && !busy {
                return;
            }
        }
        panic!("it never settles");
    }

    /// Makes `id` the leader and everybody quiet.
    pub fn elect(&mut self, id: u64) {
        self.step(id, Event::Campaign);
        self.settle(&[]);
        assert!(self.core(id).status().settled, "elected");
    }

    pub fn propose(&mut self, id: u64, words: &[&str]) {
        let batch = words
            .iter()
            .map(|w| Proposal {
                kind: EntryKind::Normal,
                digest: checksum::crc32c(w.as_bytes()),
                payload: bytes::Bytes::copy_from_slice(w.as_bytes()),
            })
            .collect();
        self.step(id, Event::Propose(batch));
    }

    /// Every node supports every other in this epoch for so long.
    pub fn support(&mut self, epoch: u64, for_ns: u64) {
        let ids: Vec<NodeId> = self.replicas.iter().map(|r| r.id).collect();
        let until = self.now + for_ns;
        for r in &mut self.replicas {
            r.live.strangers_reachable = false;
            for id in ids.iter().filter(|i| **i != r.id) {
                r.live.set(PeerLive {
                    node: *id,
                    reachable: true,
                    given: epoch,
                    got: epoch,
                    got_until: until,
                });
            }
        }
    }

    /// The payloads that a replica has on disk, in order.
    pub fn words(&self, id: u64) -> Vec<String> {
        let entries = self.replicas[id as usize - 1].disk.entries.values();
        entries
            .filter(|e| e.kind == EntryKind::Normal)
            .map(|e| String::from_utf8_lossy(&e.payload).into_owned())
            .collect()
    }

    pub fn status(&mut self, id: u64) {
        let r = self.at(id);
        let me = r.id;
        let line = match &r.core {
            None => "is down".to_owned(),
            Some(core) => {
                let s = core.status();
                let leader = s.leader.map_or("nobody".to_owned(), |l| l.to_string());
                let mut line = format!(
                    "{:?} of {leader} in t{}, base {} durable {} last {}/{} commit {} applied {}",
                    s.role, s.term.0, s.base.0, s.durable.0, s.last.0, s.last_term.0, s.commit.0, s.applied.0
                );
                if s.damaged {
                    line += ", damaged";
                }
                if let Some(fault) = s.halted {
                    let _ = write!(line, ", halted: {fault:?}");
                }
                line + &format!(", {}", show_members(core.members().1))
            }
        };
        let _ = writeln!(self.log, "{me}: {line}");
    }
}

pub fn show_members(m: &Members) -> String {
    let list = |nodes: &[NodeId]| nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    let mut text = format!("voters({})", list(&m.voters));
    if m.is_joint() {
        let _ = write!(text, " outgoing({})", list(&m.outgoing));
    }
    if !m.learners.is_empty() {
        let _ = write!(text, " learners({})", list(&m.learners));
    }
    text
}

fn show_entry(e: &Entry) -> String {
    let what = match e.kind {
        EntryKind::Empty => "-".to_owned(),
        EntryKind::Config => Members::decode(&e.payload).map_or("?".to_owned(), |m| show_members(&m)),
        EntryKind::Normal | EntryKind::Control => String::from_utf8_lossy(&e.payload).into_owned(),
    };
    format!("{}/{}:{what}", e.index.0, e.term.0)
}

fn show_entries(entries: &[Entry]) -> String {
    entries.iter().map(show_entry).collect::<Vec<_>>().join(" ")
}

/// One word for what a message is.
pub fn kind(body: &Body) -> &'static str {
    match body {
        Body::PreVote { .. } => "pre-vote",
        Body::PreVoteReply { .. } => "pre-vote-reply",
        Body::Vote { .. } => "vote",
        Body::VoteReply { .. } => "vote-reply",
        Body::Append(_) => "append",
        Body::AppendOk { .. } => "append-ok",
        Body::AppendReject { .. } => "append-reject",
        Body::Beat { .. } => "beat",
        Body::BeatOk { .. } => "beat-ok",
        Body::Snapshot(_) => "snapshot",
        Body::SnapshotFailed { .. } => "snapshot-failed",
        Body::TimeoutNow => "timeout-now",
        Body::Resign => "resign",
        Body::Behind => "behind",
        Body::ReadIndex { .. } => "read-index",
        Body::ReadIndexReply { .. } => "read-index-reply",
        Body::RepairAsk { .. } => "repair-ask",
        Body::RepairGive(_) => "repair-give",
    }
}

pub fn show(m: &Message) -> String {
    let yes = |g: bool| if g { " yes" } else { " no" }.to_owned();
    let more = match &m.body {
        Body::PreVote { last, last_term } => format!(" last {}/{}", last.0, last_term.0),
        Body::Vote { last, last_term, transfer } => {
            format!(" last {}/{}{}", last.0, last_term.0, if *transfer { " transfer" } else { "" })
        }
        Body::PreVoteReply { granted } | Body::VoteReply { granted } => yes(*granted),
        Body::Append(a) => format!(
            " after {}/{} [{}] commit {}",
            a.prev.0,
            a.prev_term.0,
            show_entries(&a.entries),
            a.commit.0
        ),
        Body::AppendOk { accepted, durable, commit, repair_from, epoch, .. } => {
            let mut s = format!(" accepted {} durable {} commit {}", accepted.0, durable.0, commit.0);
            if let Some(from) = repair_from {
                let _ = write!(s, " repair from {}", from.0);
            }
            if *epoch > 0 {
                let _ = write!(s, " epoch {epoch}");
            }
            s
        }
        Body::AppendReject { prev, hint, hint_term, .. } => {
            format!(" after {} hint {}/{}", prev.0, hint.0, hint_term.0)
        }
        Body::Beat { commit, round } => format!(" commit {} round {round}", commit.0),
        Body::BeatOk { commit, round, epoch } => {
            let mut s = format!(" commit {} round {round}", commit.0);
            if *epoch > 0 {
                let _ = write!(s, " epoch {epoch}");
            }
            s
        }
        Body::Snapshot(meta) => format!(" {}/{} {}", meta.index.0, meta.term.0, show_members(&meta.members)),
        Body::SnapshotFailed { index } => format!(" {}", index.0),
        Body::ReadIndex { id } => format!(" {id}"),
        Body::ReadIndexReply { id, index } => format!(" {id} at {:?}", index.map(|i| i.0)),
        Body::RepairAsk { first, term, last } => format!(" {}/{} to {}", first.0, term.0, last.0),
        Body::RepairGive(entries) => format!(" [{}]", show_entries(entries)),
        Body::TimeoutNow | Body::Resign | Body::Behind => String::new(),
    };
    format!("{}->{} t{} {}{more}", m.from, m.to, m.term.0, kind(&m.body))
}

fn show_write(w: &Write) -> String {
    let mut s = String::new();
    if let Some(h) = w.hard {
        let _ = write!(s, " t{} vote {}", h.term.0, h.vote.map_or("none".to_owned(), |v| v.to_string()));
    }
    if let Some(base) = &w.reset {
        let _ = write!(s, " base {}/{}", base.index.0, base.term.0);
    }
    if let Some(from) = w.truncate {
        let _ = write!(s, " truncate from {}", from.0);
    }
    if !w.patch.is_empty() {
        let _ = write!(s, " patch [{}]", show_entries(&w.patch));
    }
    if !w.entries.is_empty() {
        let _ = write!(s, " [{}]", show_entries(&w.entries));
    }
    if !w.replies.is_empty() {
        let _ = write!(s, " then {} messages", w.replies.len());
    }
    s
}

fn show_note(note: &Note) -> String {
    match note {
        Note::Leads(t) => format!("leads t{}", t.0),
        Note::Campaigns(t) => format!("campaigns for t{}", t.0),
        Note::Follows(t, leader) => {
            format!("follows {} in t{}", leader.map_or("nobody".to_owned(), |l| l.to_string()), t.0)
        }
        Note::QuorumLost(t) => format!("lost its quorum in t{}", t.0),
        Note::Members(i) => format!("has a new membership at {}", i.0),
        Note::StaleWrite(t) => format!("ignores a stale completion of t{} index {}", t.term.0, t.index.0),
        Note::Hole(a, b) => format!("has a hole {}..{}", a.0, b.0),
        Note::Patched(i) => format!("fills {}", i.0),
        Note::Halted(fault) => format!("halts: {fault:?}"),
        other => format!("{other:?}"),
    }
}

impl Table {
    /// Makes `id` the leader although there is one: time passes first.
    pub fn elect_again(&mut self, id: u64) {
        self.now += 1000 * MS;
        self.step(id, Event::Campaign);
        let leader = (1..=self.replicas.len() as u64)
            .find(|i| *i != id && self.core(*i).status().role == RoleName::Leader);
        self.settle(leader.as_slice());
        assert!(self.core(id).status().settled, "elected");
        self.messages.clear();
    }
}
