//! Damage to a store's files between two lives: what is lost is what was damaged, it is named, and all else goes on.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::{
    Chain, Disk, Read, Store, Sync,
    simio::{self, SimHandle},
};

fn now<F: Future>(f: F) -> F::Output {
    simio::finish(f, 100_000, || {})
}

/// One step before the damage: entries of so many messages of so many bytes, then perhaps a flush, perhaps with a checkpoint.
#[derive(Clone, Copy, Debug)]
struct Step {
    msgs: u8,
    size: u16,
    flush: bool,
    checkpoint: bool,
    apply: bool,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let one = (0u8..7, 0u16..1500, prop::bool::weighted(0.15), any::<bool>(), prop::bool::weighted(0.7));
    let one =
        one.prop_map(|(msgs, size, flush, checkpoint, apply)| Step { msgs, size, flush, checkpoint, apply });
    prop::collection::vec(one, 3..25)
}

struct World {
    disk: SimHandle,
    store: Option<Store>,
    /// Subject and body of every message, by sequence.
    given: BTreeMap<u64, (String, Vec<u8>)>,
    log: BTreeMap<u64, NewEntry>,
    records: BTreeMap<u64, Vec<u8>>,
}

const G: GroupId = GroupId(1);

impl World {
    fn new() -> World {
        let disk = SimHandle::faultless(1);
        let mut w = World {
            disk,
            store: None,
            given: BTreeMap::new(),
            log: BTreeMap::new(),
            records: BTreeMap::new(),
        };
        w.open();
        w.store().create(G, false, b"opts").expect("new");
        now(w.store().step()).expect("a round");
        w
    }
    /// Another disk of the same content.
    fn copy(&self) -> World {
        World {
            disk: self.disk.copy(),
            store: None,
            given: self.given.clone(),
            log: self.log.clone(),
            records: self.records.clone(),
        }
    }
    fn open(&mut self) {
        self.store = None;
        self.disk.with(|d| d.process_death());
        let s = now(Store::open(Disk::Sim(self.disk.clone()), "/s", simio::small())).expect("it opens");
        self.store = Some(s);
    }
    fn store(&self) -> &Store {
        self.store.as_ref().expect("open")
    }
    fn group(&self) -> Group {
        self.store().group(G).expect("it is there")
    }

    fn append(&mut self, msgs: u8, size: u16) {
        let g = self.group();
        let (last, term, prev) = g.last();
        let mut seq = g.state.lock().log_seq();
        let mut batch = Batch::new();
        for _ in 0..msgs {
            seq = seq.next();
            let subject = format!("s.{}", seq.0 % 3);
            let body: Vec<u8> =
                (0..size).map(|i| (seq.0 as u16).wrapping_mul(31).wrapping_add(i) as u8).collect();
            let m = Message {
                seq,
                time: seq.0 as i64,
                expires: None,
                redacted: false,
                subject: subject.as_bytes(),
                headers: b"",
                body: &body,
            };
            batch.push(G, &m);
            let mut record = BytesMut::new();
            m.encode(G, &mut record);
            self.records.insert(seq.0, record.to_vec());
            self.given.insert(seq.0, (subject, body));
        }
        let (kind, payload) = match msgs {
            0 => (Kind::Control, Bytes::from_static(b"control")),
            _ => (Kind::Messages, batch.finish(b"")),
        };
        let chain = Chain((prev.0.wrapping_mul(31) + last.0) | 1);
        let term = term.max(Term(1));
        let e = NewEntry { kind, index: last.next(), term, prev, chain, payload, digest: None };
        self.log.insert(e.index.0, e.clone());
        g.append(vec![e], Sync::Always).expect("there is room");
        now(self.store().step()).expect("a round");
    }

    fn apply(&self) {
        let g = self.group();
        loop {
            let at = g.applied().0.next();
            if at > g.last().0 {
                return;
            }
            let all = now(g.entries(at, 1 << 20)).expect("what cannot be read was settled before");
            assert_eq!(all.first().map(|e| e.head.index), Some(at), "entries come in order");
            for e in all {
                now(g.apply(&e.head)).expect("in order");
            }
        }
    }

    fn run(&mut self, steps: &[Step]) {
        for s in steps {
            self.append(s.msgs, s.size);
            if s.apply || s.flush {
                self.apply();
            }
            if s.flush {
                if s.checkpoint {
                    self.group().checkpoint(Bytes::from_static(b"blob"));
                }
                now(self.store().flush()).expect("a well disk");
                now(self.store().step()).expect("a well disk");
            }
        }
        // The last round vouches for those before it.
        self.append(1, 1);
    }

    /// Journal and segment files that hold something.
    fn files(&self) -> Vec<String> {
        let all = self.disk.with(|d| d.files());
        let used = |f: &String| self.bytes(f).iter().any(|b| *b != 0);
        all.into_iter().filter(|f| f.contains("/journal/") || f.contains("/segments/")).filter(used).collect()
    }
    /// Journal files that were ever made, if none was removed.
    fn journals(&self) -> u64 {
        self.disk.with(|d| d.files()).iter().filter(|f| f.contains("/journal/")).count() as u64
    }
    fn bytes(&self, path: &str) -> Vec<u8> {
        self.disk.with(|d| {
            let len = d.stat(path).expect("it is there").len;
            d.pristine(path, 0..len).expect("it is there")
        })
    }
    /// Messages in whose record the byte lies.
    fn hit(&self, path: &str, at: usize) -> BTreeSet<u64> {
        let b = self.bytes(path);
        let sectors = (b.iter().rposition(|b| *b != 0).unwrap_or(0) + 1).next_multiple_of(512).min(b.len());
        let in_it = |r: &[u8]| {
            let from = at.saturating_sub(r.len() - 1);
            let whole = b[from..(at + r.len()).min(b.len())].windows(r.len()).any(|w| w == r);
            // Of what a round refers to whole sectors are in the segment, and the end of its last record is in the round.
            whole || (1..r.len()).any(|n| sectors - n.min(sectors) <= at && b[..sectors].ends_with(&r[..n]))
        };
        self.records.iter().filter(|(_, r)| in_it(r)).map(|(s, _)| *s).collect()
    }

    /// Brings the log to where it can be applied: what cannot be read is given up.
    fn settle(&self) {
        let g = self.group();
        let mut at = g.applied().1.index.next();
        while at <= g.last().0 {
            match now(g.entries(at, 1 << 20)) {
                Ok(e) => at = e.last().expect("at least one").head.index.next(),
                Err(Error::Damaged(_)) => {
                    assert!(now(g.survey(at)).expect("a well disk"), "what cannot be read is a hole");
                    self.give_up();
                }
                Err(e) => panic!("{e}"),
            }
        }
        self.give_up();
        assert!(!g.is_doubtful() && g.holes().is_empty());
    }
    fn give_up(&self) {
        let g = self.group();
        let mut busy = 0;
        loop {
            match g.give_up() {
                Ok(Some(t)) => {
                    now(self.store().step()).expect("a round");
                    assert!(matches!(t.poll(), Some(Ok(_))));
                    busy = 0;
                }
                Ok(None) => return,
                // No file that is there has the room: the step makes one.
                Err(Error::Busy) if busy < 2 => {
                    now(self.store().step()).expect("a file");
                    busy += 1;
                }
                Err(e) => panic!("there is room: {e}"),
            }
        }
    }

    /// Reads everything; the sequences that are damaged. All else has to be as it was given, up to the log's end.
    fn read(&self) -> BTreeSet<u64> {
        let g = self.group();
        let last = g.state().last.0;
        let mut lost = BTreeSet::new();
        for (seq, (subject, body)) in self.given.range(..=last) {
            match now(g.get(StreamSeq(*seq))).expect("a well disk") {
                Read::Valid(s) => {
                    let m = s.message();
                    assert_eq!((m.seq.0, m.subject, m.body), (*seq, subject.as_bytes(), &body[..]));
                }
                Read::Damaged(_) => {
                    lost.insert(*seq);
                }
                Read::Absent => {
                    // Behind the end of a journal that was cut nobody knows what was there.
                    let unsure = |l: &Lost| !l.sure && l.first_seq.0 <= *seq && *seq <= l.last_seq.0;
                    assert!(
                        g.lost().iter().any(unsure),
                        "message {seq} is gone and not named: {:?}",
                        g.lost()
                    );
                    lost.insert(*seq);
                }
            }
        }
        lost
    }

    /// A life after the damage, with more messages, a flush, and another life.
    fn goes_on(&mut self, lost: &BTreeSet<u64>) {
        let before = self.given.keys().next_back().copied().unwrap_or(0);
        // The last round alone, which is of one message, may count as torn.
        let last = self.group().state.lock().log_seq().0;
        assert!(last + 1 >= before, "S-112: {} is given again, {before} was the last", last + 1);
        for n in [2, 1] {
            self.append(n, 50);
        }
        self.apply();
        assert_eq!(&self.read(), lost);
        for checkpoint in [false, true] {
            if checkpoint {
                self.group().checkpoint(Bytes::from_static(b"after"));
            }
            now(self.store().flush()).expect("a well disk");
            assert_eq!(&self.read(), lost, "after a flush");
            self.open();
            self.settle();
            self.apply();
            assert_eq!(&self.read(), lost, "after another start");
        }
        // Below the checkpoint it is state, in which what is damaged stays so.
        let log = self.group().applied().1.index.next();
        assert!(!now(self.group().survey(log)).expect("a well disk"), "all of the log is whole again");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn s111_one_flipped_bit_loses_at_most_its_own_message(steps in steps(), file: prop::sample::Index, at: prop::sample::Index, bit in 0u8..8) {
        let mut w = World::new();
        w.run(&steps);
        let files = w.files();
        let path = files[file.index(files.len())].clone();
        let b = w.bytes(&path);
        let used = b.iter().rposition(|b| *b != 0).unwrap_or(0) + 1;
        let at = at.index(used);
        let hit = w.hit(&path, at);
        prop_assume!(w.disk.with(|d| d.rot(&path, at as u64, bit)).is_ok());
        w.open();
        // A bad last round cannot be told from one that was torn.
        prop_assume!(!w.store().torn_tail());
        w.settle();
        w.apply();
        let lost = w.read();
        prop_assert!(lost.is_subset(&hit), "S-111: lost {lost:?}, hit {hit:?}: {path} at {at}");
        let last = *w.given.keys().next_back().expect("some were given");
        prop_assert_eq!(w.group().state().last.0, last, "all sequences are accounted for");
        w.goes_on(&lost);
    }

    #[test]
    fn s110_s112_any_damage_is_named_and_the_rest_goes_on(
        steps in steps(), flips in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..12),
        cut in proptest::option::of((any::<prop::sample::Index>(), 1u64..20_000)),
    ) {
        let mut w = World::new();
        w.run(&steps);
        let files = w.files();
        for (file, at) in flips {
            let path = &files[file.index(files.len())];
            let b = w.bytes(path);
            let used = b.iter().rposition(|b| *b != 0).unwrap_or(0) + 1;
            w.disk.with(|d| d.rot(path, at.index(used) as u64, 3)).ok();
        }
        if let Some((file, bytes)) = cut {
            let path = &files[file.index(files.len())];
            let b = w.bytes(path);
            let used = b.iter().rposition(|b| *b != 0).unwrap_or(0) as u64 + 1;
            w.disk.with(|d| d.damage_file(path, Some(used.saturating_sub(bytes).max(512)))).expect("it is there");
        }
        w.open();
        prop_assume!(!w.store().torn_tail());
        if w.store().groups().is_empty() {
            // The group's very beginning was cut off.
            prop_assert!(!w.store().damage().is_empty());
            return Ok(());
        }
        w.settle();
        w.apply();
        let lost = w.read();
        w.goes_on(&lost);
    }

    #[test]
    fn s110_a_peers_entries_fill_the_holes(steps in steps(), flips in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 1..6)) {
        let mut w = World::new();
        w.run(&steps);
        let files = w.files();
        for (file, at) in flips {
            let path = &files[file.index(files.len())];
            let used = w.bytes(path).iter().rposition(|b| *b != 0).unwrap_or(0) + 1;
            w.disk.with(|d| d.rot(path, at.index(used) as u64, 3)).ok();
        }
        w.open();
        prop_assume!(!w.store().torn_tail());
        let g = w.group();
        let base = g.applied().1.index;
        now(g.survey(base.next())).expect("a well disk");
        let holes = g.holes();
        prop_assume!(holes.iter().all(|h| h.known) && !g.is_doubtful());
        for h in holes {
            for i in h.first.0..=h.last.0 {
                let e = w.log[&i].clone();
                let wrong = NewEntry { term: Term(e.term.0 + 1), ..e.clone() };
                prop_assert!(g.patch(vec![wrong]).is_err(), "another entry is no patch");
                g.patch(vec![e]).expect("it is the very entry");
            }
        }
        now(w.store().step()).expect("a round");
        for turn in 0..3 {
            let g = w.group();
            let mut at = g.applied().1.index.next();
            while at <= g.last().0 {
                for e in now(g.entries(at, 1)).expect("all of it is whole") {
                    let want = &w.log[&e.head.index.0];
                    prop_assert_eq!((&e.payload, e.head.chain, e.head.compacted), (&want.payload, want.chain, false));
                    at = e.head.index.next();
                }
            }
            w.apply();
            prop_assert!(g.lost().is_empty(), "{:?}", g.lost());
            let damaged = w.read();
            let log_begins = w.given.iter().find(|_| true).map_or(0, |_| base.0);
            let in_log = |s: &&u64| w.log.range(log_begins + 1..).any(|(_, e)| {
                e.payload.len() > 8 && e.kind == Kind::Messages && Entry::with_payload(e.clone().seal(G).expect("valid").head, e.payload.clone()).is_some_and(|e| e.records().flatten().any(|r| record_seq(r) == Some(StreamSeq(**s))))
            });
            prop_assert_eq!(damaged.iter().find(in_log), None, "S-110: above the checkpoint all is whole");
            if turn == 1 {
                now(w.store().flush()).expect("a well disk");
            }
            drop(g);
            w.open();
            now(w.group().survey(LogIndex(base.0 + 1))).expect("a well disk");
            prop_assert!(w.group().holes().is_empty(), "turn {turn}: {:?}", w.group().holes());
        }
    }
}

/// Flips a bit in the record of a message, wherever it stands.
fn rot_message(w: &World, seq: u64) {
    let record = &w.records[&seq];
    let mut hits = 0;
    for path in w.files() {
        let b = w.bytes(&path);
        for at in b.windows(record.len()).enumerate().filter(|(_, x)| x == record).map(|(at, _)| at) {
            w.disk.with(|d| d.rot(&path, (at + record.len() - 1) as u64, 2)).expect("it is there");
            hits += 1;
        }
    }
    assert!(hits > 0, "message {seq} stands somewhere");
}

/// The state up to entry 8, as another member with the same log has it.
fn state_of_eight() -> (World, Vec<u8>) {
    let mut a = World::new();
    (0..8).for_each(|_| a.append(2, 50));
    a.apply();
    a.group().checkpoint(Bytes::from_static(b"blob"));
    now(a.store().flush()).expect("a well disk");
    let mut out = a.group().outgoing().expect("there is a checkpoint");
    let mut bytes = Vec::new();
    while let Some(b) = now(out.next()).expect("it can be read") {
        bytes.extend_from_slice(&b);
    }
    (a, bytes)
}

#[test]
fn a_state_ends_the_holes_that_it_covers_and_keeps_what_agrees_behind() {
    let (_a, bytes) = state_of_eight();
    for damaged in 0u64..64 {
        // Among entries around the end of the state, which are the ones that decide.
        let bad: Vec<u64> = [3, 7, 8, 9, 10, 12]
            .into_iter()
            .enumerate()
            .filter(|(i, _)| damaged >> i & 1 == 1)
            .map(|(_, e)| e)
            .collect();
        let mut b = World::new();
        (0..13).for_each(|_| b.append(2, 50));
        bad.iter().for_each(|e| rot_message(&b, 2 * e));
        b.open();
        let g = b.group();
        let holes = |g: &Group| g.holes().iter().flat_map(|h| h.first.0..=h.last.0).collect::<Vec<_>>();
        assert_eq!(holes(&g), bad);
        let mut inc = g.incoming();
        now(inc.push(&bytes)).expect("it is right");
        now(g.take_over(now(inc.finish()).expect("it is whole"))).expect("it is taken");
        let left: Vec<u64> = bad.iter().copied().filter(|e| *e > 8).collect();
        for turn in 0..2 {
            let g = b.group();
            assert_eq!(holes(&g), left, "turn {turn}, damaged {bad:?}");
            assert_eq!(g.last().0, LogIndex(13), "what follows was counted on: damaged {bad:?}");
            assert_eq!(g.applied().1.index, LogIndex(8));
            b.open();
        }
        let g = b.group();
        g.patch(left.iter().map(|e| b.log[e].clone()).collect()).expect("they are the very entries");
        now(b.store().step()).expect("a round");
        for _ in 0..2 {
            b.apply();
            assert_eq!((b.read(), b.group().state().msgs), (BTreeSet::new(), 26), "damaged {bad:?}");
            assert!(b.group().lost().is_empty() && b.group().holes().is_empty());
            b.open();
        }
    }
}

#[test]
fn a_state_that_is_damaged_is_not_read_out() {
    for seq in 1..=16 {
        let (mut a, _) = state_of_eight();
        rot_message(&a, seq);
        a.open();
        let mut out = a.group().outgoing().expect("there is a checkpoint");
        let end = loop {
            match now(out.next()) {
                Ok(Some(_)) => {}
                end => break end,
            }
        };
        assert!(matches!(end, Err(Error::Damaged(_))), "message {seq}: {end:?}");
    }
}

/// What is left of an entry does not take the records of the next one whose header is damaged too.
#[test]
fn s111_neighbours_keep_their_own_records() {
    for header in 1..=60 {
        let mut w = World::new();
        (0..4).for_each(|_| w.append(3, 200));
        w.apply();
        now(w.store().flush()).expect("a well disk");
        now(w.store().step()).expect("a well disk");
        w.append(1, 1);
        let files = w.files();
        let path = files.iter().find(|f| f.contains("/segments/")).expect("it was flushed");
        let (b, r) = (w.bytes(path), w.records[&4].clone());
        let at = b.windows(r.len()).position(|x| x == r).expect("it stands there");
        rot_message(&w, 1);
        w.disk.with(|d| d.rot(path, (at - header) as u64, 3)).expect("it is there");
        w.open();
        w.settle();
        w.apply();
        let lost = w.read();
        assert!(lost.contains(&1) && lost.iter().all(|s| *s <= 3), "header byte {header}: {lost:?}");
        w.goes_on(&lost);
    }
}

/// The neighbours of a piece that is being mended are not merged around it: two pieces would lie over each other, and one of them would not be found.
#[test]
fn s110_a_piece_that_is_mended_stays_between_its_neighbours() {
    let mut w = World::new();
    for _ in 0..10 {
        w.append(1, 20);
        w.apply();
        now(w.store().flush()).expect("a well disk");
    }
    w.append(1, 1);
    let pieces = w.group().state.lock().pieces.len();
    assert!(pieces > simio::small().merge_at, "{pieces} pieces are enough for a merge");
    rot_message(&w, 2);
    w.open();
    w.settle();
    w.apply();
    let lost = w.read();
    assert_eq!(lost, [2].into());
    // One flush mends the piece and merges what is small.
    w.group().checkpoint(Bytes::from_static(b"blob"));
    now(w.store().flush()).expect("a well disk");
    let g = w.group();
    let all: Vec<_> = g.state.lock().pieces.iter().map(|p| (p.meta.first_index, p.meta.last_index)).collect();
    assert!(all.len() < pieces, "some were merged: {all:?}");
    assert!(all.windows(2).all(|p| p[0].1 < p[1].0), "S-41: {all:?}");
    drop(g);
    assert_eq!(w.read(), lost);
    w.goes_on(&lost);
}

/// With its header a journal file loses how long it was; what is left of it tells all the same that something is missing behind it.
#[test]
fn s112_a_cut_behind_a_damaged_header_is_named() {
    let world = || {
        let mut w = World::new();
        w.append(0, 0);
        (0..4).for_each(|_| w.append(1, 300));
        w.append(1, 1);
        w
    };
    let w = world();
    let path = w.files()[0].clone();
    let used = w.bytes(&path).iter().rposition(|b| *b != 0).expect("it was written") as u64 + 1;
    let (mut without_group, mut with_group) = (0, 0);
    for keep in (512..used).step_by(73).chain((512..used).step_by(512)).chain([0, 1, 12]) {
        let mut w = world();
        w.disk.with(|d| d.rot(&path, 20, 3)).expect("it is there");
        w.disk.with(|d| d.damage_file(&path, Some(keep))).expect("it is there");
        w.open();
        assert!(w.store().lost_rounds() && !w.store().torn_tail(), "cut to {keep}");
        let unknown = |d: &Damage| d.what.contains("was cut");
        assert!(w.store().damage().iter().any(unknown), "cut to {keep}: {:?}", w.store().damage());
        if w.store().groups().is_empty() {
            without_group += 1;
            continue;
        }
        with_group += 1;
        let given = *w.given.keys().next_back().expect("some were given");
        assert!(w.group().is_doubtful(), "cut to {keep}");
        w.settle();
        assert!(w.group().state.lock().log_seq().0 >= given, "S-112: cut to {keep}");
        w.apply();
        let lost = w.read();
        w.goes_on(&lost);
    }
    assert!(without_group > 2 && with_group > 20, "{without_group} {with_group}");
}

/// That a part of the journal is gone is told by every opening until the layer above has noted it and no group is in doubt; then the journal goes.
#[test]
fn s84_a_loss_is_told_until_it_is_noted() {
    let mut w = World::new();
    let epoch = |w: &World, f: &String| crate::round::FileHead::decode(&w.bytes(f)).map(|h| h.epoch.0);
    let journals =
        |w: &World| -> Vec<String> { w.files().into_iter().filter(|f| f.contains("/journal/")).collect() };
    while journals(&w).iter().filter_map(|f| epoch(&w, f)).max() < Some(3) {
        w.append(2, 400);
    }
    let oldest = journals(&w).into_iter().filter(|f| epoch(&w, f).is_some()).min_by_key(|f| epoch(&w, f));
    w.disk.with(|d| d.damage_file(&oldest.expect("there are three"), None)).expect("it is there");
    let flush = |w: &World| now(w.store().flush()).expect("a well disk");
    for settled in [false, true] {
        w.open();
        assert!(w.store().lost_rounds(), "settled: {settled}");
        if settled {
            w.settle();
        }
        // It is in pieces now, and the manifest would not need the journal.
        flush(&w);
    }
    w.open();
    assert!(w.store().lost_rounds(), "nobody has noted it");
    w.store().losses_noted();
    flush(&w);
    assert!(w.store().lost_rounds(), "this life has heard of it");
    w.open();
    assert!(!w.store().lost_rounds() && !w.group().is_doubtful());
    assert!(w.store().damage().iter().all(|d| d.group.is_some()), "{:?}", w.store().damage());
}

/// So is a cut by all openings behind the one that met it first, though that one has begun a file behind the place: whatever else becomes of the two files.
#[test]
fn s84_a_cut_is_told_behind_what_was_written_after_it() {
    let journals =
        |w: &World| w.files().into_iter().filter(|f| f.contains("/journal/")).collect::<BTreeSet<String>>();
    for worse in ["nothing", "header", "gone"] {
        let mut w = World::new();
        w.append(1, 300);
        w.apply();
        now(w.store().flush()).expect("a well disk");
        (0..6).for_each(|_| w.append(1, 300));
        let path = journals(&w).pop_last().expect("it was written");
        let used = w.bytes(&path).iter().rposition(|b| *b != 0).expect("it was written") as u64 + 1;
        w.disk.with(|d| d.damage_file(&path, Some(used / 2))).expect("it is there");
        let told = |w: &World| (w.store().lost_rounds(), w.group().is_doubtful());
        w.open();
        assert_eq!(told(&w), (true, true));
        let (before, last) = (journals(&w), w.group().last());
        // Another group goes on before anybody opens this one.
        w.store().create(GroupId(2), false, b"opts").expect("new");
        now(w.store().step()).expect("a round");
        w.store().losses_noted();
        let begun: Vec<String> = journals(&w).difference(&before).cloned().collect();
        let [begun] = &begun[..] else { panic!("{begun:?}") };
        w.disk
            .with(|d| match worse {
                "header" => d.rot(begun, 20, 3),
                "gone" => d.damage_file(&path, None),
                _ => Ok(()),
            })
            .expect("they are there");
        for flush in [false, true, false] {
            w.open();
            assert_eq!(told(&w), (true, true), "{worse}, flushed: {flush}");
            assert!(w.group().last() == last || worse == "gone");
            w.store().losses_noted();
            if flush {
                now(w.store().flush()).expect("a well disk");
            }
            w.store()
                .group(GroupId(2))
                .expect("it is there")
                .set_hard_state(Bytes::new())
                .expect("there is room");
            now(w.store().step()).expect("a round");
        }
        w.settle();
        w.apply();
        w.store().losses_noted();
        w.store().group(GroupId(2)).expect("it is there").trust();
        // Nobody is left to be told: it flushes by itself.
        now(w.group().shard.wake_flush.notified());
        now(w.store().flush()).expect("a well disk");
        w.open();
        assert_eq!(told(&w), (false, false), "{worse}");
    }
}

/// A damaged header alone costs nothing: a file that has room behind its last round, or what an older use left there, was not cut in what is needed.
#[test]
fn s112_a_damaged_header_alone_leaves_no_doubt() {
    let mut recycled = 0;
    for turns in 1..60 {
        let mut w = World::new();
        for i in 0..turns {
            w.append(3, 400);
            w.apply();
            if i % 12 == 11 {
                now(w.store().flush()).expect("a well disk");
                now(w.store().step()).expect("a well disk");
            }
        }
        // Two rounds of the newest file: the second one says that the first was synced, and the header with it.
        (0..2).for_each(|_| w.append(1, 1));
        let newest = |f: &String| crate::round::FileHead::decode(&w.bytes(f)).map(|h| h.epoch);
        let path = w
            .files()
            .into_iter()
            .filter(|f| f.contains("/journal/"))
            .max_by_key(newest)
            .expect("one is written");
        recycled += u64::from(newest(&path) > Some(crate::types::Epoch(w.journals())));
        w.disk.with(|d| d.rot(&path, 20, 3)).expect("it is there");
        w.open();
        assert!(!w.group().is_doubtful() && !w.store().lost_rounds(), "{turns}: {:?}", w.store().damage());
        assert_eq!(Some(&w.group().state.lock().log_seq().0), w.given.keys().next_back(), "{turns}");
    }
    assert!(recycled > 5, "{recycled} files were used again");
}

/// Numbers of a memory group are reserved in the journal: what may have been reserved in a part of it that is gone is not given again.
#[test]
fn s112_a_memory_group_gives_no_number_again_behind_a_cut() {
    const M: GroupId = GroupId(2);
    let batch = |i: u64| {
        let mut b = Batch::new();
        for seq in (i - 1) * 1000 + 1..=i * 1000 {
            let m = Message {
                seq: StreamSeq(seq),
                time: 1,
                expires: None,
                redacted: false,
                subject: b"s",
                headers: b"",
                body: b"",
            };
            b.push(M, &m);
        }
        b.finish(b"")
    };
    let w = {
        let mut w = World::new();
        w.store().create(M, true, b"opts").expect("new");
        now(w.store().step()).expect("a round");
        // Rounds of others go between.
        w.append(1, 1);
        let g = w.store().group(M).expect("it is there");
        for i in 1..=150 {
            let (last, term, prev) = g.last();
            let (index, term, payload) = (last.next(), term.max(Term(1)), batch(i));
            let e =
                NewEntry { kind: Kind::Messages, index, term, prev, chain: Chain(i), payload, digest: None };
            g.append(vec![e], Sync::Always).expect("there is room");
            now(w.store().step()).expect("a round");
            if i % 10 == 0 {
                w.append(1, 1);
            }
        }
        w
    };
    let path = w.files()[0].clone();
    let used = w.bytes(&path).iter().rposition(|b| *b != 0).expect("it was written") as u64 + 1;
    let mut met = 0;
    for (keep, header) in (1024..used).step_by(256).flat_map(|k| [(k, false), (k, true)]) {
        let mut w = w.copy();
        if header {
            w.disk.with(|d| d.rot(&path, 20, 3)).expect("it is there");
        }
        w.disk.with(|d| d.damage_file(&path, Some(keep))).expect("it is there");
        w.open();
        assert!(!w.store().damage().is_empty(), "cut to {keep}");
        let Ok(g) = w.store().group(M) else { continue };
        met += 1;
        let last = g.state.lock().log_seq().0;
        assert!(last >= 150_000, "S-112: cut to {keep}: it goes on behind {last}");
        assert!(!g.is_doubtful(), "it has no log to be doubted");
    }
    assert!(met > 20, "{met}");
}

/// A piece was cut off with its footers, and its entries were filled from another member. What they hold is known from then on, not only when the next flush
/// has written the piece anew: messages of no known subject stayed in the stream when their key was put again, on this member alone (rot 14000145).
#[test]
fn s40_subjects_of_a_piece_are_known_when_its_entries_are_filled() {
    let mut w = World::new();
    (0..9).for_each(|_| w.append(1, 20));
    w.apply();
    now(w.store().flush()).expect("a well disk");
    let segment = w.files().into_iter().find(|f| f.contains("/segments/")).expect("a flush made one");
    w.disk.with(|d| d.damage_file(&segment, Some(600))).expect("it is there");
    w.open();
    let g = w.group();
    now(g.survey(LogIndex(1))).expect("a well disk");
    assert!(!g.holes().is_empty());
    let all: Vec<NewEntry> = w
        .log
        .values()
        .filter(|e| g.holes().iter().any(|h| h.first <= e.index && e.index <= h.last))
        .cloned()
        .collect();
    // All but the last: asked now, nobody knows that one's subject.
    let (most, last) = all.split_at(all.len() - 1);
    for part in [most, last] {
        g.patch(part.to_vec()).expect("there is room");
        now(w.store().step()).expect("a round");
        while g.applied().0 < part.last().expect("not empty").index {
            let head = now(g.entries(g.applied().0.next(), 1)).expect("it was filled")[0].head;
            now(g.apply(&head)).expect("in order");
        }
        let upto = g.state().last.0;
        for key in 0..3 {
            let subject = format!("s.{key}");
            let found =
                now(g.ask(|v| v.subject(subject.as_bytes()))).expect("readable").map_or(0, |t| t.msgs);
            let given = w.given.iter().filter(|(seq, (s, _))| **seq <= upto && *s == subject).count();
            assert_eq!(found, given as u64, "{subject} up to {upto}");
        }
    }
    assert_eq!(g.state().last.0, 9);
}
