//! Random histories against a naive model: what was delivered when and how often, what was confirmed, what is live.
//!
//! A leader and a follower share a log that lags behind; the leader may be lost at any time with what is not applied.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;

use super::*;
use crate::{Memory, Messages, MessagesMut, Stored};

/// Whoever asked is there.
struct All;
impl super::Listeners for All {
    fn generation(&self) -> u64 {
        1
    }
    fn listens(&self, _: &[u8]) -> bool {
        true
    }
}

const WAIT: u64 = 1_000;
const MAX_DELIVER: u64 = 4;

#[derive(Clone, Copy, Debug)]
struct Setup {
    /// Whether deliveries wait for the log; then counts and times hold over changes of the leader too.
    strict: bool,
    filtered: bool,
    limited: bool,
    work_queue: bool,
}

struct World {
    setup: Setup,
    msgs: Memory,
    leader: Consumer,
    follower: Consumer,
    log: VecDeque<Bytes>,
    epoch: u64,
    now: Now,
    out: Vec<Output>,
    /// Deliveries that clients hold: sequence and delivery.
    held: Vec<(u64, u64)>,
    /// How often each message was delivered, as far as it counts.
    times: BTreeMap<u64, u64>,
    /// Before when a message must not be delivered.
    not_before: BTreeMap<u64, u64>,
    /// Those whose ack was confirmed.
    confirmed: BTreeSet<u64>,
    /// Those that a client was given at least once.
    seen: BTreeSet<u64>,
    /// Those given up.
    exceeded: BTreeSet<u64>,
    floors: (u64, u64),
    logged_floors: (u64, u64),
}

fn config(s: Setup) -> ConsumerConfig {
    let c = ConsumerConfig {
        durable_name: "c".into(),
        ack_policy: AckPolicy::Explicit,
        ack_wait: WAIT as i64,
        max_deliver: if s.limited { MAX_DELIVER as i64 } else { -1 },
        filter_subject: if s.filtered { "a".into() } else { String::new() },
        max_ack_pending: 8,
        max_waiting: 16,
        ..ConsumerConfig::default()
    };
    check::check(&c, &check::Parent { num_replicas: 1, ..Default::default() }, &Default::default(), false)
        .unwrap();
    c
}

fn consumer(s: Setup) -> Consumer {
    let identity = Identity { stream: "S", name: "c", seed: 3, retains: s.work_queue, max_payload: 0 };
    let mut c = Consumer::new(identity, config(s));
    c.set_logged(true);
    c.set_strict(s.strict);
    c
}

impl World {
    fn new(setup: Setup) -> World {
        let msgs = Memory::new();
        let (mut leader, mut follower) = (consumer(setup), consumer(setup));
        let (Ok(()), Ok(())) = (leader.start(&msgs, false), follower.start(&msgs, false));
        let now = Now { wall: 1_000_000, mono: 1_000_000 };
        leader.lead(1, now);
        World {
            setup,
            msgs,
            leader,
            follower,
            log: VecDeque::new(),
            epoch: 1,
            now,
            out: Vec::new(),
            held: Vec::new(),
            times: BTreeMap::new(),
            not_before: BTreeMap::new(),
            confirmed: BTreeSet::new(),
            seen: BTreeSet::new(),
            exceeded: BTreeSet::new(),
            floors: (0, 0),
            logged_floors: (0, 0),
        }
    }

    fn append(&mut self, subject: &'static str) {
        let seq = self.msgs.totals().last + 1;
        let subject = Bytes::from_static(subject.as_bytes());
        let (headers, payload) = (Bytes::new(), Bytes::new());
        self.msgs.push(Stored {
            seq,
            time: self.now.wall,
            expires: None,
            subject: subject.clone(),
            headers,
            payload,
        });
        self.leader.appended(seq, &subject);
        self.follower.appended(seq, &subject);
    }

    fn remove(&mut self, seq: u64) {
        let Ok(Some(meta)) = self.msgs.meta(seq) else { return };
        let Ok(_) = self.msgs.remove(seq);
        self.leader.removed(seq, &meta.subject, &mut self.out);
        self.follower.removed(seq, &meta.subject, &mut Vec::new());
    }

    /// The last sequence that the log may name.
    fn log_one(&mut self) {
        if let Some(delta) = self.leader.take_delta() {
            self.log.push_back(delta);
        }
    }

    fn apply_one(&mut self) {
        let Some(delta) = self.log.pop_front() else { return };
        let (mut of_leader, mut of_follower) = (Vec::new(), Vec::new());
        self.leader.apply_delta(&delta, &mut of_leader).unwrap();
        self.follower.apply_delta(&delta, &mut of_follower).unwrap();
        assert_eq!(of_leader, of_follower, "J-4");
        assert_eq!(self.leader.logged(), self.follower.logged(), "J-4");
        let logged = self.leader.logged();
        assert!(logged.is_sound());
        let floors = (logged.ack_dseq, logged.ack_seq);
        assert!(floors.0 >= self.logged_floors.0 && floors.1 >= self.logged_floors.1, "J-5");
        self.logged_floors = floors;
        for o in of_leader {
            let Output::Acked { first, last } = o else { panic!("{o:?}") };
            assert!(self.setup.work_queue);
            for seq in first..=last {
                self.remove(seq);
            }
        }
    }

    fn settle(&mut self) {
        let floors = (self.leader.ledger().ack_dseq, self.leader.ledger().ack_seq);
        assert!(floors.0 >= self.floors.0 && floors.1 >= self.floors.1, "J-5");
        self.floors = floors;
        assert!(self.leader.ledger().is_sound());
        let mut out = std::mem::take(&mut self.out);
        for o in out.drain(..) {
            match o {
                Output::Deliver(d) => self.delivered(&d),
                Output::AckReply { to } => {
                    let seq = std::str::from_utf8(&to).unwrap().parse().unwrap();
                    self.confirmed.insert(seq);
                }
                Output::Advisory(Advisory::MaxDeliveries { stream_seq, deliveries }) => {
                    assert!(self.setup.limited && deliveries <= MAX_DELIVER);
                    self.exceeded.insert(stream_seq);
                }
                Output::Advisory(_) | Output::Status(_) => {}
                Output::Acked { .. } | Output::Inactive => panic!("{o:?}"),
            }
        }
        self.out = out;
        let Ok(info) = self.leader.info(&self.msgs, self.now);
        let Ok(pending) = self.msgs.pending(self.leader.filters(), self.leader.ledger().next_seq);
        assert_eq!(info.num_pending, pending);
        assert!(info.num_ack_pending <= 8);
    }

    fn delivered(&mut self, d: &Deliver) {
        let seq = d.message.seq;
        assert!(!self.setup.filtered || d.message.subject() == b"a");
        assert!(!self.confirmed.contains(&seq), "C-3: {seq} was confirmed");
        let allowed = self.not_before.get(&seq).copied().unwrap_or(0);
        assert!(self.now.mono >= allowed, "J-6: {seq} at {} and not before {allowed}", self.now.mono);
        let times = self.times.entry(seq).or_default();
        *times += 1;
        assert!(!self.setup.limited || *times <= MAX_DELIVER, "J-6: {seq} was delivered {times} times");
        // One that was logged and lost with its leader before it left counts too.
        assert!(d.deliveries == *times || self.setup.strict && d.deliveries > *times, "the count of {seq}");
        *times = d.deliveries;
        self.not_before.insert(seq, self.now.mono + WAIT);
        self.seen.insert(seq);
        self.held.push((seq, d.dseq));
    }

    fn pump(&mut self) {
        let Ok(_) = self.leader.pump(&self.msgs, &All, self.now, 3, &mut self.out);
        self.settle();
    }

    /// A client acks something it holds.
    fn ack(&mut self, which: u8, payload: &str, confirm: bool) {
        if self.held.is_empty() {
            return;
        }
        let at = usize::from(which) % self.held.len();
        let (sseq, dseq) = self.held[at];
        let deliveries = self.times.get(&sseq).copied().unwrap_or(1);
        let tokens = AckTokens {
            place: None,
            stream: b"S",
            consumer: b"c",
            deliveries,
            sseq,
            dseq,
            time: 0,
            pending: 0,
        };
        let pending = self.leader.ledger().get(sseq).map(|e| e.state);
        let reply = Bytes::from(sseq.to_string());
        self.leader.ack(&tokens, payload.as_bytes(), confirm.then_some(&reply), self.now, &mut self.out);
        let in_range = dseq > self.leader.ledger().ack_dseq && dseq < self.leader.ledger().dseq;
        match (payload, pending) {
            ("", _) => {
                self.held.swap_remove(at);
            }
            ("+WPI", Some(ledger::State::Waiting)) => {
                self.not_before.insert(sseq, self.now.mono + WAIT);
            }
            ("-NAK", Some(ledger::State::Waiting)) if in_range => {
                self.not_before.insert(sseq, self.now.mono);
            }
            ("-NAK 3us", Some(ledger::State::Waiting | ledger::State::Queued)) if in_range => {
                self.not_before.insert(sseq, self.now.mono + 3_000);
            }
            _ => {}
        }
        self.settle();
    }

    fn change_leader(&mut self, restart: bool) {
        let mut out = Vec::new();
        self.leader.unlead(&mut out);
        assert_eq!(self.leader.ledger(), self.follower.ledger(), "what was not logged is forgotten");
        self.log.clear();
        self.out.clear();
        if restart {
            let mut c = consumer(self.setup);
            c.restore(&self.follower.snapshot()).unwrap();
            assert_eq!(c.ledger(), self.follower.ledger());
            self.leader = c;
        } else {
            std::mem::swap(&mut self.leader, &mut self.follower);
        }
        self.epoch += 1;
        self.leader.lead(self.epoch, self.now);
        let l = self.leader.ledger();
        self.floors = (l.ack_dseq, l.ack_seq);
        // A client's delay that the log has not said is lost; one that it has said, or else the wait, is kept all the same.
        for (seq, at) in &mut self.not_before {
            // Both clocks of this test are the same.
            let kept = l.delays.get(seq).map_or(self.now.mono + WAIT, |d| d.until.unsigned_abs());
            *at = (*at).min(kept);
        }
        // What the log has not said may happen again and anew, unless deliveries wait for the log.
        if !self.setup.strict {
            self.times = l.iter().map(|e| (e.seq, u64::from(e.deliveries))).collect();
            self.not_before.clear();
            self.exceeded = l.exceeded.keys().copied().collect();
        }
    }

    fn step(&mut self, op: u8, x: u8) {
        match op % 20 {
            0..=2 => self.append("a"),
            3 => self.append("b"),
            4..=6 => {
                let body = format!(r#"{{"batch":{},"no_wait":{},"expires":5000}}"#, x % 5 + 1, x > 200);
                self.leader.pull(&Bytes::from_static(b"r"), body.as_bytes(), self.now, &mut self.out);
                self.pump();
            }
            7 | 8 => self.ack(x, "", true),
            9 => self.ack(x, "", false),
            10 => self.ack(x, "-NAK", false),
            11 => self.ack(x, "-NAK 3us", false),
            12 => self.ack(x, "+WPI", false),
            13 => {
                let last = self.msgs.totals().last;
                if last > 0 && x < 100 {
                    self.remove(u64::from(x) % last + 1);
                    self.settle();
                }
            }
            14 => self.pass(u64::from(x) * 10),
            // To the very moment at which something is due.
            15 => {
                let due = self.leader.deadline(self.now);
                self.pass(due.map_or(0, |due| due.saturating_sub(self.now.mono)));
            }
            16 => self.log_one(),
            17 => self.apply_one(),
            18 => {
                self.log_one();
                self.apply_one();
                self.pump();
            }
            _ if x < 60 => self.change_leader(x.is_multiple_of(2)),
            _ => self.pump(),
        }
    }

    fn pass(&mut self, by: u64) {
        self.now.mono += by;
        self.now.wall += by as i64;
        self.pump();
    }

    /// Clients come back and do their work: then every message is done, given up or gone.
    fn finish(&mut self) {
        for _ in 0..2000 {
            self.leader.pull(&Bytes::from_static(b"r"), b"5", self.now, &mut self.out);
            self.pump();
            self.log_one();
            self.apply_one();
            self.pump();
            while !self.held.is_empty() {
                self.ack(0, "", true);
            }
            self.log_one();
            self.apply_one();
            self.pump();
            let Ok(info) = self.leader.info(&self.msgs, self.now);
            if info.num_pending == 0 && info.num_ack_pending == 0 && self.log.is_empty() {
                break;
            }
            self.now.mono += 500;
            self.now.wall += 500;
        }
        let Ok(info) = self.leader.info(&self.msgs, self.now);
        assert_eq!((info.num_pending, info.num_ack_pending), (0, 0), "C-1: everything is delivered and done");
        for m in self.msgs.iter().filter(|m| self.leader.matches(&m.subject)) {
            let given_up = self.exceeded.contains(&m.seq);
            assert!(self.seen.contains(&m.seq) || given_up, "C-1: {} was never delivered", m.seq);
            assert!(!self.setup.work_queue || given_up, "a work queue keeps {} that is done", m.seq);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_history_keeps_j_4_j_5_j_6_c_1_c_2_c_3(
        strict in any::<bool>(),
        filtered in any::<bool>(),
        limited in any::<bool>(),
        work_queue in any::<bool>(),
        steps in prop::collection::vec(any::<(u8, u8)>(), 0..160),
    ) {
        let mut w = World::new(Setup { strict, filtered, limited, work_queue });
        for (op, x) in steps {
            w.step(op, x);
        }
        w.finish();
    }
}

/// The naive pending set: a map.
#[derive(Default)]
struct Naive {
    entries: BTreeMap<u64, (u64, u32)>,
    dseq: u64,
    next: u64,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_ledger_is_a_map(steps in prop::collection::vec(any::<(u8, u16)>(), 0..400)) {
        let mut l = Ledger::starting_at(1);
        let mut n = Naive { dseq: 1, next: 1, ..Naive::default() };
        for (op, x) in steps {
            let seq = u64::from(x) % n.next.max(2);
            match op % 8 {
                0..=3 => {
                    let seq = n.next + u64::from(op % 8);
                    let dseq = l.deliver(seq, true, State::Waiting, 0);
                    prop_assert_eq!(dseq, n.dseq);
                    n.entries.insert(seq, (dseq, 1));
                    n.dseq += 1;
                    n.next = seq + 1;
                }
                4 | 5 => prop_assert_eq!(l.remove(seq).map(|e| e.dseq), n.entries.remove(&seq).map(|e| e.0)),
                6 => {
                    if let Some(e) = n.entries.get_mut(&seq) {
                        e.1 += 1;
                        n.dseq += 1;
                        l.redeliver(seq, e.1, true);
                    }
                }
                _ if x.is_multiple_of(16) => {
                    l.purge(seq, |_| {});
                    n.entries = n.entries.split_off(&seq);
                }
                _ => {
                    l.remove_upto(seq, 0, |_| {});
                    n.entries = n.entries.split_off(&(seq + 1));
                }
            }
            prop_assert!(l.is_sound());
            prop_assert!(l.iter().map(|e| (e.seq, (e.dseq, e.deliveries))).eq(n.entries.iter().map(|(s, e)| (*s, *e))));
            prop_assert_eq!(l.num_redelivered(), n.entries.values().filter(|e| e.1 > 1).count());
            prop_assert_eq!(&delta::restore(&delta::snapshot(&l)).unwrap(), &l);
        }
    }
}
