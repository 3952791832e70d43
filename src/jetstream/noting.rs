//! What the leader of a stream does about the notes of its consumers in the meta group, if any are to be made ([`Keeps`]).
//!
//! Owns which consumers are yet to be noted, which command is on its way and what is not known of it. Pure: the task that asks and sends is
//! `cluster/notes`, what a command does is `meta/state`.
//!
//! A log in memory ends with the process, its consumers' notes do not. So each term has two steps. While it takes, nothing is decided on consumers; what is noted
//! and not in the log is made anew. From then on it keeps: what is in the log is brought into the notes, and whoever made, changed or deleted a consumer is answered
//! when that is committed. So whatever was answered is there after the process has ended at any moment, and of what was not answered either state.
//!
//! A log on one server's disk is another matter: it has its consumers, but for those that are in memory only, by `mem_storage`. Those are noted as above. Of the
//! others only the names are, in the background and for whoever asks while that server is away: nobody waits for that, and the log is right, whatever is noted.
//!
//! Nor does anybody wait for the note of a consumer that is made and is not durable: its client makes it anew if it is gone, as it has to if its server is. The note is
//! sent at once, and from then on, a round of the meta group later, it is there like the others. Its change and its end are waited for.
//!
//! - K-14: of a stream whose log is in memory a consumer whose making or change was acknowledged, and where it is not durable: noted, is there as it was last acknowledged
//!   after the log began anew, and one whose end was acknowledged is not. So with one in memory only, of a stream in files on one server, after that one's process
//!   began anew.

use std::{collections::BTreeSet, sync::Arc};

use crate::meta::{Command, Keeps, Noted, Notes};

/// What one command holds at most, about, in bytes: what has no room is in the next.
const COMMAND_BYTES_MAX: usize = 256 << 10;

/// The consumers of the log.
pub(crate) trait InLog {
    /// One of them, as it is to be noted; `None` if it is not.
    fn noted(&self, name: &str, keeps: Keeps) -> Option<Noted>;
    /// All that are to be noted, by name.
    fn names(&self) -> Vec<Arc<str>>;
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
enum Step {
    /// Nothing of this stream is noted.
    #[default]
    Off,
    /// What is noted is being made in the log; if it is closed nobody is served meanwhile.
    Taking { closed: bool },
    /// What is in the log is being noted.
    Keeping,
}

/// What is to be done next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Next {
    /// Nothing.
    Idle,
    /// The notes have come to another revision than was known: they are to be compared with the log, once it is sure that this node still leads.
    Compare,
    /// This goes to the meta group; [`Noting::done`] hears what became of it.
    Put(Command),
}

/// See the module.
#[derive(Default, Debug)]
pub(crate) struct Noting {
    step: Step,
    /// What is to be noted. If nothing is, what was noted is taken over, and noted no more.
    keeps: Keeps,
    /// The notes are those of a stream in files.
    filed: bool,
    /// The revision of the notes of which it is known that all but `dirty` and `sent` are as in the log; with `doubt` a command that was made for it
    /// may have taken effect.
    rev: u64,
    doubt: bool,
    dirty: BTreeSet<Arc<str>>,
    sent: BTreeSet<Arc<str>>,
    /// Those of both for which nobody waits.
    loose: BTreeSet<Arc<str>>,
    sending: bool,
    /// There are servers that do not know of notes: nobody waits for any.
    unable: bool,
    /// Counts beginnings and ends: a task that belongs to another one ends.
    life: u64,
    /// A task is at work.
    pub runs: bool,
}

impl Noting {
    /// This node leads. `filed`: the stream is one in files; `closed`: until all is taken nobody is served.
    pub fn begin(&mut self, keeps: Keeps, filed: bool, closed: bool) {
        let (step, life) = (Step::Taking { closed }, self.life + 1);
        *self = Noting { step, keeps, filed, life, ..Noting::default() };
    }
    /// Whether nothing of the stream is noted, by this node at least.
    pub fn is_off(&self) -> bool {
        self.step == Step::Off
    }
    /// Nothing is noted, or not any more by this node.
    pub fn end(&mut self) {
        *self = Noting { life: self.life + 1, ..Noting::default() };
    }
    /// What a task remembers, to know whether it is still wanted.
    pub fn life(&self) -> u64 {
        self.life
    }
    /// Nobody is served yet.
    pub fn is_closed(&self) -> bool {
        self.step == Step::Taking { closed: true }
    }
    /// Nothing is to be decided on consumers yet.
    pub fn is_taking(&self) -> bool {
        matches!(self.step, Step::Taking { .. })
    }
    /// Whether a task has something to do.
    pub fn has_work(&self) -> bool {
        match self.step {
            Step::Off => false,
            Step::Taking { .. } => true,
            Step::Keeping => self.doubt || !self.dirty.is_empty(),
        }
    }
    /// Whether all servers know of notes. True if that changed.
    pub fn set_able(&mut self, able: bool) -> bool {
        std::mem::replace(&mut self.unable, !able) == able
    }
    /// Only that a consumer is there is noted, if its state is in the log (`logged`).
    pub fn is_named_only(&self, logged: bool) -> bool {
        logged && self.keeps == Keeps::Filed
    }
    /// A consumer was made, changed or deleted; `logged`: in the log; `passing`: it was made and is not durable.
    pub fn touch(&mut self, name: &str, logged: bool, passing: bool) {
        if self.step != Step::Keeping {
            return;
        }
        // Until the end of one that is in memory only is noted, whoever deletes what took its place waits for that, too.
        let awaited = self.is_awaited(name);
        // While it is not known what became of a command, none may be noted for long.
        let follows = self.is_named_only(logged) || passing && !self.doubt;
        if follows && !awaited {
            self.loose.insert(name.into());
        } else {
            self.loose.remove(name);
        }
        self.dirty.insert(name.into());
    }
    /// Whether somebody waits for what is yet to be noted, or may.
    pub fn is_urgent(&self) -> bool {
        self.dirty.iter().chain(&self.sent).any(|name| !self.loose.contains(name))
    }
    /// Somebody waits until it is noted what became of a consumer, or will.
    fn is_awaited(&self, name: &str) -> bool {
        (self.dirty.contains(name) || self.sent.contains(name)) && !self.loose.contains(name)
    }
    /// What these notes say is in the log now, but for `unread`. They are those of now: a command of this term has made them, or there never were any.
    pub fn taken(&mut self, notes: &Notes, unread: &BTreeSet<Arc<str>>, log: &dyn InLog) {
        self.step = Step::Keeping;
        self.compare(notes, log);
        // Who cannot read something leaves it to whoever can.
        self.dirty.retain(|name| !unread.contains(name) || log.noted(name, self.keeps).is_some());
    }
    /// These are the notes that were made since.
    pub fn compare(&mut self, notes: &Notes, log: &dyn InLog) {
        (self.rev, self.doubt) = (notes.rev, false);
        let wanted = |name: &Arc<str>| log.noted(name, self.keeps);
        let other = |name: &&Arc<str>| wanted(name).as_ref() != notes.all.get(*name);
        self.dirty = log.names().iter().chain(notes.all.keys()).filter(other).cloned().collect();
        self.loose.retain(|name| self.dirty.contains(name));
    }
    /// The notes are at this revision here. Whether somebody else has changed them, or they can be made at last.
    pub fn sees(&mut self, rev: u64) -> bool {
        if self.step == Step::Keeping && !self.sending && rev > self.rev {
            self.doubt = true;
        }
        self.unable && self.has_work() || self.doubt
    }

    /// What is to be done; `rev` is the revision of the notes that is known here.
    pub fn next(&mut self, rev: u64, id: u64, log: &dyn InLog) -> Next {
        if self.step != Step::Keeping || self.sending {
            return Next::Idle;
        }
        if self.doubt && rev > self.rev {
            return Next::Compare;
        }
        if !self.doubt && self.dirty.is_empty() {
            if self.keeps == Keeps::Nothing {
                self.step = Step::Off;
            }
            return Next::Idle;
        }
        let mut command = (std::collections::BTreeMap::new(), BTreeSet::new());
        let mut bytes = 0;
        while bytes < COMMAND_BYTES_MAX
            && let Some(name) = self.dirty.pop_first()
        {
            bytes += name.len();
            match log.noted(&name, self.keeps) {
                Some(n) => {
                    bytes += n.json.len();
                    command.0.insert(name.clone(), n);
                }
                None if env::planted!("cl-notes-of-the-deleted-stay") => {}
                None => {
                    command.1.insert(name.clone());
                }
            }
            self.sent.insert(name);
        }
        self.sending = true;
        Next::Put(Command::note(self.filed, id, self.rev, command))
    }
    /// What became of the command that was sent last: it took effect, or nobody knows.
    pub fn done(&mut self, sure: bool) {
        self.sending = false;
        let mut sent = std::mem::take(&mut self.sent);
        if sure {
            // It was the only one of its revision, so none that was sent before has taken effect or will.
            (self.rev, self.doubt) = (self.rev + 1, false);
            self.loose.retain(|name| self.dirty.contains(name));
        } else {
            self.dirty.append(&mut sent);
            self.doubt = true;
        }
    }
    /// Whether a consumer's note is known to be as its log.
    #[cfg(test)]
    pub fn is_noted(&self, name: &str) -> bool {
        self.step == Step::Keeping && !self.doubt && !self.dirty.contains(name) && !self.sent.contains(name)
    }
    /// Whether a consumer's note is as its log, or cannot be: who waits for it goes on.
    pub fn is_settled(&self, name: &str) -> bool {
        match self.step {
            Step::Off => true,
            Step::Taking { .. } => false,
            Step::Keeping if self.unable => true,
            Step::Keeping if self.loose.contains(name) => true,
            Step::Keeping => !self.doubt && !self.is_awaited(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bytes::Bytes;
    use proptest::prelude::*;
    use replica::NodeId;

    use super::*;
    use crate::meta::{Assignment, State};

    const ID: u64 = 2;

    type Log = BTreeMap<Arc<str>, Noted>;

    impl InLog for Log {
        fn noted(&self, name: &str, keeps: Keeps) -> Option<Noted> {
            self.get(name).cloned().filter(|_| keeps != Keeps::Nothing)
        }
        fn names(&self) -> Vec<Arc<str>> {
            self.keys().cloned().collect()
        }
    }

    fn state(memory: bool) -> State {
        let mut s = State::default();
        let members = vec![NodeId::new(1, 0)];
        let a = Assignment {
            id: ID,
            account: "A".into(),
            name: "M".into(),
            created: 7,
            memory,
            config: Bytes::from_static(b"{}"),
            first: members.clone(),
            members,
            leaving: Vec::new(),
            left: Vec::new(),
        };
        s.apply_read(Command::Create(a), None).expect("it is the first");
        s
    }
    fn notes(s: &State) -> Notes {
        s.notes(ID).map(|n| (**n).clone()).unwrap_or_default()
    }
    fn consumer(created: i64) -> Noted {
        Noted { created, json: Bytes::from(format!("{{\"v\":{created}}}")) }
    }
    fn put(n: &mut Noting, rev: u64, log: &Log) -> Command {
        match n.next(rev, ID, log) {
            Next::Put(c) => c,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn many_changes_go_in_one_command_and_each_waits_for_its_own() {
        let (mut s, mut log, mut n) = (state(true), Log::new(), Noting::default());
        assert!(n.is_settled("a") && !n.has_work(), "no stream in memory");
        n.begin(Keeps::All, false, true);
        assert!(n.is_closed() && n.has_work() && !n.is_settled("a"));
        n.touch("a", true, false);
        n.taken(&notes(&s), &BTreeSet::new(), &log);
        assert!(!n.is_closed() && !n.has_work() && n.is_settled("a"));
        for name in ["a", "b"] {
            log.insert(name.into(), consumer(1));
            n.touch(name, true, false);
        }
        let first = put(&mut n, 0, &log);
        log.insert("c".into(), consumer(2));
        n.touch("c", true, false);
        assert_eq!(n.next(0, ID, &log), Next::Idle, "one at a time");
        assert!(["a", "b", "c"].iter().all(|x| !n.is_settled(x)));
        s.apply_read(first, None).expect("it is the first");
        n.done(true);
        assert!(n.is_settled("a") && n.is_settled("b") && !n.is_settled("c"));
        let second = put(&mut n, 0, &log);
        s.apply_read(second, None).expect("what is known here may be old");
        n.done(true);
        assert!(!n.has_work() && n.is_settled("c"));
        assert_eq!(notes(&s).all, log);
        n.end();
        assert!(n.is_settled("a") && !n.has_work());
    }

    #[test]
    fn nobody_waits_for_the_note_of_one_that_is_not_durable() {
        let (mut s, mut log, mut n) = (state(false), Log::new(), Noting::default());
        n.begin(Keeps::Filed, true, false);
        n.taken(&notes(&s), &BTreeSet::new(), &log);
        log.insert("a".into(), consumer(1));
        n.touch("a", false, true);
        assert!(n.is_settled("a") && n.has_work() && !n.is_noted("a"));
        let made = put(&mut n, 0, &log);
        // Its end is waited for, since its making is under way.
        log.remove("a");
        n.touch("a", false, false);
        assert!(!n.is_settled("a"));
        s.apply_read(made, None).expect("it is the first");
        n.done(true);
        assert!(!n.is_settled("a"));
        // So is what takes its place until then.
        log.insert("a".into(), consumer(2));
        n.touch("a", false, true);
        assert!(!n.is_settled("a"));
        let again = put(&mut n, 1, &log);
        n.done(false);
        drop(again);
        // Where it is not known what is noted nobody is told anything.
        log.insert("b".into(), consumer(3));
        n.touch("b", false, true);
        assert!(!n.is_settled("b"));
    }

    #[test]
    fn what_nobody_knows_of_is_asked_again_until_it_is_known() {
        let (mut s, mut log, mut n) = (state(true), Log::new(), Noting::default());
        n.begin(Keeps::All, false, true);
        n.taken(&notes(&s), &BTreeSet::new(), &log);
        log.insert("a".into(), consumer(1));
        n.touch("a", true, false);
        let lost = put(&mut n, 0, &log);
        n.done(false);
        // Meanwhile it is gone again.
        log.remove("a");
        n.touch("a", true, false);
        let again = put(&mut n, 0, &log);
        assert!(!n.is_settled("a"));
        s.apply_read(lost, None).expect("it came after all");
        assert!(s.apply_read(again, None).is_err());
        n.done(false);
        assert!(matches!(n.next(0, ID, &log), Next::Put(_)), "what is known here may be old");
        n.done(false);
        assert_eq!(n.next(1, ID, &log), Next::Compare);
        n.compare(&notes(&s), &log);
        assert!(!n.is_settled("a"), "it is noted, and there is none");
        let c = put(&mut n, 1, &log);
        s.apply_read(c, None).expect("it is known what is there");
        n.done(true);
        assert!(n.is_settled("a") && notes(&s).all.is_empty());
        assert!(!n.sees(2), "nobody else has changed them");
        assert!(n.sees(3) && !n.is_settled("a"));
    }

    #[test]
    fn where_somebody_does_not_know_of_notes_nobody_waits_for_them() {
        let (log, mut n) = (Log::from([("a".into(), consumer(1))]), Noting::default());
        n.begin(Keeps::All, false, false);
        n.taken(&Notes::default(), &BTreeSet::new(), &log);
        assert!(!n.is_settled("a") && n.set_able(false) && !n.set_able(false));
        assert!(n.is_settled("a") && n.sees(0), "once they can be made they are");
        assert!(n.set_able(true) && !n.is_settled("a"));
    }

    #[test]
    fn nobody_waits_for_the_names_of_what_is_in_a_log_on_a_disk() {
        let (mut s, mut log, mut n) = (state(false), Log::new(), Noting::default());
        n.begin(Keeps::Filed, true, false);
        n.taken(&notes(&s), &BTreeSet::new(), &log);
        assert!(n.is_named_only(true) && !n.is_named_only(false));
        for (name, logged) in [("logged", true), ("mem", false)] {
            log.insert(name.into(), consumer(1));
            n.touch(name, logged, false);
        }
        assert!(n.is_settled("logged") && !n.is_settled("mem") && n.has_work());
        assert!(n.is_urgent());
        let lost = put(&mut n, 0, &log);
        assert!(matches!(lost, Command::NoteFiled { .. }));
        assert!(n.is_settled("logged") && !n.is_settled("mem"));
        // Nobody knows what became of it.
        n.done(false);
        assert!(n.is_settled("logged") && !n.is_settled("other"));
        s.apply_read(lost, None).expect("it came after all");
        assert_eq!(n.next(1, ID, &log), Next::Compare);
        n.compare(&notes(&s), &log);
        assert!(!n.has_work() && ["logged", "mem", "other"].iter().all(|x| n.is_settled(x)));
        // What takes the place of one in memory before that one's end is noted is waited for: else its end might bring back the other.
        log.remove("mem");
        n.touch("mem", false, false);
        log.insert("mem".into(), consumer(2));
        n.touch("mem", true, false);
        assert!(!n.is_settled("mem"));
        let c = put(&mut n, 1, &log);
        n.touch("mem", true, false);
        assert!(!n.is_settled("mem"), "it is on its way");
        s.apply_read(c, None).expect("it is known what is there");
        n.done(true);
        let c = put(&mut n, 2, &log);
        s.apply_read(c, None).expect("it is known what is there");
        n.done(true);
        assert!(n.is_settled("mem"));
        n.touch("mem", true, false);
        assert!(n.is_settled("mem"), "now only its name is noted");
        assert!(n.has_work() && !n.is_urgent());
    }

    #[test]
    fn a_log_on_disks_takes_them_and_notes_none() {
        let mut s = state(true);
        let log = Log::from([("a".into(), consumer(1)), ("b".into(), consumer(2))]);
        let set = log.clone();
        s.apply_read(Command::Note { id: ID, rev: 0, set, gone: BTreeSet::new() }, None).expect("the first");
        let mut n = Noting::default();
        n.begin(Keeps::Nothing, false, false);
        n.taken(&notes(&s), &BTreeSet::new(), &log);
        assert!(!n.is_settled("a"), "it would come back under the next leader");
        let c = put(&mut n, 1, &log);
        s.apply_read(c, None).expect("it is known what is there");
        n.done(true);
        assert_eq!(n.next(2, ID, &log), Next::Idle);
        n.touch("c", true, false);
        assert!(notes(&s).all.is_empty() && n.is_settled("c") && !n.has_work());
    }

    #[test]
    fn what_cannot_be_read_stays() {
        let mut n = Noting::default();
        n.begin(Keeps::All, false, true);
        let unread = BTreeSet::from(["x".into()]);
        let there = Notes { rev: 4, all: Log::from([("x".into(), consumer(1)), ("y".into(), consumer(2))]) };
        let mut log = Log::from([("y".into(), consumer(2))]);
        n.taken(&there, &unread, &log);
        assert!(!n.has_work());
        log.insert("x".into(), consumer(3));
        n.touch("x", true, false);
        assert!(n.has_work(), "unless another takes its place");
    }

    /// What happens to the leader, the clients and the network.
    #[derive(Clone, Copy, Debug)]
    enum Event {
        /// A client makes or changes a consumer, or makes one of the name anew; one that is not durable, perhaps.
        Make(u8, bool),
        Delete(u8),
        /// The leader looks at what is to be done.
        Look,
        /// A command that was ever sent arrives, perhaps again.
        Arrive(usize),
        /// The leader hears what became of its last command.
        Hear,
        /// It hears nothing.
        Silence,
        /// What is known here comes closer to what is.
        Catch,
        /// The process ends and begins.
        Crash,
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            3 => (0u8..3, any::<bool>()).prop_map(|(n, passing)| Event::Make(n, passing)),
            2 => (0u8..3).prop_map(Event::Delete),
            6 => Just(Event::Look),
            8 => (0usize..6).prop_map(Event::Arrive),
            5 => Just(Event::Hear),
            2 => Just(Event::Silence),
            4 => Just(Event::Catch),
            1 => Just(Event::Crash),
        ]
    }

    /// A leader, its log, the meta group, and what clients may rely on.
    struct World {
        state: State,
        /// The notes as they were, oldest first; the last one is what is.
        views: Vec<Notes>,
        /// Which of them is known here.
        known: usize,
        log: Log,
        noting: Noting,
        /// Commands that were sent, the newest last, with what became of them first.
        net: Vec<(Command, Option<bool>)>,
        /// The last one's place, while it is waited for.
        waits: Option<usize>,
        /// What a name may be when the log begins anew: what was last acknowledged, and all that was asked for since.
        may_be: BTreeMap<Arc<str>, Vec<Option<Noted>>>,
        /// Changes that wait for their acknowledgement, or their note.
        open: BTreeSet<Arc<str>>,
        /// Those of them that were acknowledged at once.
        passing: BTreeSet<Arc<str>>,
        clock: i64,
        /// Before the first command of this life is known to have taken effect: those of earlier ones may.
        takes: bool,
    }

    impl World {
        fn new() -> World {
            let mut w = World {
                state: state(true),
                views: vec![Notes::default()],
                known: 0,
                log: Log::new(),
                noting: Noting::default(),
                net: Vec::new(),
                waits: None,
                may_be: BTreeMap::new(),
                open: BTreeSet::new(),
                passing: BTreeSet::new(),
                clock: 0,
                takes: true,
            };
            w.noting.begin(Keeps::All, false, true);
            w
        }
        fn name(n: u8) -> Arc<str> {
            ["a", "b", "c"][usize::from(n)].into()
        }
        fn change(&mut self, name: Arc<str>, to: Option<Noted>, passing: bool) {
            if self.takes {
                return;
            }
            self.may_be.entry(name.clone()).or_insert_with(|| vec![None]).push(to.clone());
            match to {
                Some(c) => drop(self.log.insert(name.clone(), c)),
                None => drop(self.log.remove(&name)),
            }
            self.noting.touch(&name, true, passing);
            if passing && self.noting.is_settled(&name) {
                self.passing.insert(name.clone());
            } else {
                self.passing.remove(&name);
            }
            self.open.insert(name);
        }
        fn send(&mut self, c: Command) {
            self.net.push((c, None));
            self.waits = Some(self.net.len() - 1);
        }
        fn look(&mut self) {
            let view = self.views[self.known].clone();
            if self.takes {
                if self.waits.is_some() {
                    return;
                }
                if view.rev > 0 {
                    let (set, gone) = Default::default();
                    return self.send(Command::Note { id: ID, rev: view.rev, set, gone });
                }
                // Without a command it takes what a barrier has shown to be all.
                self.known = self.views.len() - 1;
                if self.views[self.known].rev == 0 {
                    self.take(&Notes::default());
                }
                return;
            }
            match self.noting.next(view.rev, ID, &self.log) {
                Next::Idle => {}
                Next::Compare => self.noting.compare(&view, &self.log),
                Next::Put(c) => self.send(c),
            }
        }
        fn take(&mut self, from: &Notes) {
            self.takes = false;
            self.log = from.all.clone();
            self.noting.taken(from, &BTreeSet::new(), &self.log);
            for (name, may) in &mut self.may_be {
                let is = self.log.get(name).cloned();
                assert!(may.contains(&is), "K-14: {name} is {is:?} and may be {may:?}");
                if from.rev > 0 {
                    *may = vec![is];
                }
            }
        }
        fn settle(&mut self) {
            let done: Vec<_> = self.open.iter().filter(|n| self.noting.is_settled(n)).cloned().collect();
            for name in done {
                // Until it is noted one that is not durable may be gone, or be what it was; all others were waited for.
                if !self.noting.is_noted(&name) {
                    assert!(self.passing.contains(&name), "K-14: {name} is acknowledged and not noted");
                    continue;
                }
                self.passing.remove(&name);
                self.may_be.insert(name.clone(), vec![self.log.get(&name).cloned()]);
                self.open.remove(&name);
            }
        }
        fn hear(&mut self, sure: bool) {
            let Some(at) = self.waits.take() else { return };
            if !self.takes {
                return self.noting.done(sure);
            }
            if sure && let Command::Note { rev, .. } = &self.net[at].0 {
                let from = self.views.iter().find(|v| v.rev == rev + 1).cloned().expect("it took effect");
                self.take(&from);
            }
        }
        fn happens(&mut self, e: Event) {
            match e {
                Event::Make(n, passing) => {
                    self.clock += 1;
                    self.change(World::name(n), Some(consumer(self.clock)), passing);
                }
                Event::Delete(n) => self.change(World::name(n), None, false),
                Event::Look => self.look(),
                Event::Arrive(back) => {
                    let Some(at) = self.net.len().checked_sub(back + 1) else { return };
                    let done = self.state.apply_read(self.net[at].0.clone(), None).is_ok();
                    if done {
                        self.views.push(notes(&self.state));
                    }
                    self.net[at].1.get_or_insert(done);
                }
                Event::Hear => {
                    if let Some(done) = self.waits.and_then(|at| self.net[at].1) {
                        self.hear(done);
                    }
                }
                Event::Silence => self.hear(false),
                Event::Catch => {
                    self.known = (self.known + 1).min(self.views.len() - 1);
                    self.noting.sees(self.views[self.known].rev);
                }
                Event::Crash => {
                    self.log.clear();
                    self.open.clear();
                    self.passing.clear();
                    (self.waits, self.takes) = (None, true);
                    self.noting.begin(Keeps::All, false, true);
                }
            }
            self.settle();
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2000, ..ProptestConfig::default() })]
        #[test]
        fn k14_what_was_acknowledged_is_what_a_log_that_begins_anew_finds(all in proptest::collection::vec(event(), 0..150)) {
            let mut w = World::new();
            for e in all {
                w.happens(e);
            }
            // In the calm everything is acknowledged, and then the process ends once more.
            let mut calm = 0;
            let is_calm = |w: &World| {
                let all_known = w.known + 1 == w.views.len() && w.waits.is_none();
                !w.takes && all_known && !w.noting.has_work() && w.open.is_empty()
            };
            while !is_calm(&w) {
                for e in [Event::Look, Event::Arrive(0), Event::Hear, Event::Catch] {
                    w.happens(e);
                }
                calm += 1;
                prop_assert!(calm < 1000, "it comes to an end");
            }
            let before = w.log.clone();
            prop_assert_eq!(&notes(&w.state).all, &before);
            w.happens(Event::Crash);
            while w.takes {
                for e in [Event::Look, Event::Arrive(0), Event::Hear, Event::Catch] {
                    w.happens(e);
                }
            }
            prop_assert_eq!(w.log, before);
        }
    }
}
