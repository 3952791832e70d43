//! Properties: for any input, not for chosen ones.

use std::sync::Arc;

use proptest::prelude::*;

use super::bench_world::*;
use crate::*;

/// Any message at all, well-formed or not.
fn any_body() -> impl Strategy<Value = Body> {
    let index = || (0u64..9).prop_map(LogIndex);
    let term = || (0u64..5).prop_map(Term);
    let entry = (0u64..9, 0u64..5, any::<u64>(), 0u8..4).prop_map(|(i, t, c, k)| Entry {
        index: LogIndex(i),
        term: Term(t),
        chain: Chain(c),
        kind: EntryKind::from_u8(k).expect("four kinds"),
        digest: 0,
        payload: bytes::Bytes::from_static(b"\x01junk"),
    });
    prop_oneof![
        (index(), term()).prop_map(|(last, last_term)| Body::PreVote { last, last_term }),
        any::<bool>().prop_map(|granted| Body::PreVoteReply { granted }),
        (index(), term(), any::<bool>()).prop_map(|(last, last_term, transfer)| Body::Vote {
            last,
            last_term,
            transfer
        }),
        any::<bool>().prop_map(|granted| Body::VoteReply { granted }),
        (index(), term(), proptest::collection::vec(entry.clone(), 0..4), index()).prop_map(
            |(prev, prev_term, entries, commit)| Body::Append(Append {
                prev,
                prev_term,
                prev_chain: None,
                entries,
                commit,
                round: 0
            })
        ),
        (index(), index(), index(), proptest::option::of(index()), any::<u64>(), any::<u64>()).prop_map(
            |(accepted, durable, commit, repair_from, round, epoch)| Body::AppendOk {
                accepted,
                durable,
                commit,
                repair_from,
                round,
                epoch
            }
        ),
        (index(), index(), term()).prop_map(|(prev, hint, hint_term)| Body::AppendReject {
            prev,
            hint,
            hint_term,
            round: 0,
            epoch: 0
        }),
        (index(), any::<u64>()).prop_map(|(commit, round)| Body::Beat { commit, round }),
        (index(), any::<u64>(), any::<u64>()).prop_map(|(commit, round, epoch)| Body::BeatOk {
            commit,
            round,
            epoch
        }),
        index().prop_map(|index| Body::SnapshotFailed { index }),
        Just(Body::TimeoutNow),
        Just(Body::Resign),
        Just(Body::Behind),
        any::<u64>().prop_map(|id| Body::ReadIndex { id }),
        (any::<u64>(), proptest::option::of(index()))
            .prop_map(|(id, index)| Body::ReadIndexReply { id, index }),
        (index(), term(), index()).prop_map(|(first, term, last)| Body::RepairAsk { first, term, last }),
        proptest::collection::vec(entry, 0..3).prop_map(Body::RepairGive),
    ]
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => (2u64..5, 0u64..6, any_body())
            .prop_map(|(from, term, body)| Event::Message(Message { group: GROUP, from: n(from), to: n(1), term: Term(term), body })),
        1 => Just(Event::Tick),
        1 => Just(Event::Campaign),
        1 => (0u64..9, 0u64..5).prop_map(|(seq, term)| Event::Written(Token { seq, term: Term(term), index: LogIndex(3) })),
        1 => (0u64..9).prop_map(|i| Event::InstallFailed { index: LogIndex(i) }),
        1 => (0u64..9, 0u64..9).prop_map(|(f, l)| Event::Damaged { first: LogIndex(f), last: LogIndex(l) }),
        1 => (1u64..5).prop_map(|i| Event::Withdrawn(n(i))),
        1 => (1u64..5).prop_map(|i| Event::Transfer(n(i))),
        1 => (1u64..5, 0u64..6).prop_map(|(i, t)| Event::Excepted(n(i), Term(t))),
        1 => any::<u64>().prop_map(Event::Read),
        1 => any::<bool>().prop_map(Event::Ill),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    /// A peer can say what it likes: the core may refuse or stop the group, but it neither panics nor goes back.
    #[test]
    fn no_message_makes_it_panic(events in proptest::collection::vec(any_event(), 1..60), leads in any::<bool>()) {
        let mut t = Table::new(3, 0);
        if leads {
            t.elect(1);
            t.propose(1, &["a"]);
        }
        for event in events {
            let before = t.core(1).status();
            t.now += 50 * MS;
            t.step(1, event);
            if t.core(1).status().halted.is_none() {
                t.sync(1);
                // What is applied is not looked at here: nonsense may have been committed.
                if let Some(apply) = t.at(1).applies.pop_front() {
                    t.step(1, Event::Applied(apply.last));
                }
            }
            let after = t.core(1).status();
            prop_assert!(before.term <= after.term && before.commit <= after.commit && before.applied <= after.applied);
            t.messages.clear();
        }
    }

    /// The step is a function: equal cores and equal events give equal cores and equal work.
    #[test]
    fn a_step_is_a_function(events in proptest::collection::vec(any_event(), 1..30)) {
        let fresh = || {
            let base = SnapshotMeta::bootstrap(GROUP, Members::of((1..=3).map(n)));
            Core::new(GROUP, n(1), Arc::new(Options::default()), 5, Restored::fresh(base), &Liveness::without_table(0))
        };
        let (mut a, mut b) = (fresh(), fresh());
        for (at, event) in events.into_iter().enumerate() {
            let live = Liveness::without_table(at as u64 * 200 * MS);
            let (mut x, mut y) = (Ready::default(), Ready::default());
            a.step(event.clone(), &live, &mut x);
            b.step(event, &live, &mut y);
            prop_assert_eq!(&x, &y);
            prop_assert_eq!(&a, &b);
        }
    }

    /// Whatever the journal holds, a tail is taken whole or refused by name; it never has a gap.
    #[test]
    fn a_tail_has_no_gap(indexes in proptest::collection::vec(1u64..8, 0..10), base in 1u64..5) {
        let mut chains = vec![Chain(0)];
        for i in 1..8u64 {
            chains.push(chains[i as usize - 1].link(LogIndex(i), Term(1), EntryKind::Normal, 0));
        }
        let meta = SnapshotMeta { index: LogIndex(base), term: Term(1), chain: chains[base as usize], members: Members::default() };
        let mut tail = Tail::new(meta);
        let mut last = base;
        for i in indexes {
            let entry = Entry::after(chains[i as usize - 1], LogIndex(i), Term(1), EntryKind::Normal, 0, bytes::Bytes::new());
            let taken = tail.push(&entry);
            if i <= base {
                prop_assert_eq!(taken, Ok(false));
            } else if i == last + 1 {
                prop_assert_eq!(taken, Ok(true));
                last = i;
            } else {
                prop_assert_eq!(taken, Err(TailError::Gap { expected: LogIndex(last + 1), found: LogIndex(i) }));
            }
            prop_assert_eq!(tail.last(), LogIndex(last));
        }
    }
}

/// Idle groups are small: the budget is 1 KiB.
#[test]
fn an_idle_replica_is_small() {
    let mut t = Table::new(3, 0);
    t.elect(1);
    for _ in 0..50 {
        t.propose(1, &["some", "words", "to", "remember"]);
        t.settle(&[]);
    }
    // What the planted bugs need is not in a product build.
    let planted = size_of::<Option<Mutant>>().next_multiple_of(8) + size_of::<u64>();
    for id in 1..=3 {
        let core = t.at(id).core.as_mut().expect("up");
        core.shrink();
        let bytes = core.memory_bytes() - planted;
        println!("{id}: {bytes} bytes");
        assert!(bytes <= 1024, "{id}: {bytes} bytes");
    }
}

/// proposals beyond a limit are refused by name and leave no trace; they pass again once the backlog is gone.
#[test]
fn limits_refuse_by_name() {
    let mut t = Table::new(3, 0);
    let options = Options { uncommitted_bytes_max: 300, unapplied_bytes_max: 500, ..(*t.options).clone() };
    t.options = Arc::new(options);
    for id in 1..=3 {
        t.crash(id, 9);
        t.start(id);
    }
    t.elect(1);
    let live = t.at(1).live.clone();
    let one = || {
        vec![Proposal { kind: EntryKind::Normal, digest: 0, payload: bytes::Bytes::from_static(&[0; 36]) }]
    };
    let mut ready = Ready::default();
    let mut core = t.core(1).clone();
    for _ in 0..3 {
        assert!(core.propose(one(), &live, &mut ready).is_ok());
    }
    let before = core.clone();
    assert_eq!(core.propose(one(), &live, &mut ready), Err(Refusal::Uncommitted));
    assert_eq!(core, before, "a refusal leaves no trace");
    assert_eq!(
        t.at(2).core.as_mut().expect("up").propose(one(), &live, &mut ready),
        Err(Refusal::NotLeader(Some(n(1))))
    );
    let config = vec![Proposal { kind: EntryKind::Config, digest: 0, payload: bytes::Bytes::new() }];
    assert_eq!(core.propose(config, &live, &mut ready), Err(Refusal::BadProposal));
    // Committed but not applied: the other limit.
    for _ in 0..5 {
        t.propose(1, &["................................................"]);
        t.sync(1);
        t.deliver(&|m| m.to == n(2), false);
        t.sync(2);
        t.deliver(&|m| m.to == n(1), false);
    }
    let mut core = t.core(1).clone();
    assert_eq!(core.propose(one(), &live, &mut ready), Err(Refusal::Unapplied));
    t.settle(&[]);
    let mut core = t.core(1).clone();
    assert!(core.propose(one(), &live, &mut ready).is_ok());
}

/// A step without work hands out nothing.
#[test]
fn a_step_without_work_is_empty() {
    let mut t = Table::new(3, 0);
    t.elect(1);
    let live = t.at(1).live.clone();
    let mut ready = Ready::default();
    let core = t.at(1).core.as_mut().expect("up");
    for event in [Event::Tick, Event::Applied(LogIndex(1)), Event::SupportLost(n(9)), Event::Reachable(n(9))]
    {
        core.step(event, &live, &mut ready);
    }
    assert!(ready.is_empty());
    assert_eq!(ready.messages.capacity(), 0);
}

/// Replicas that differ only in when things happened are one state to a model checker.
#[test]
fn without_time_equal_histories_are_equal_states() {
    let mut tables = [Table::new(3, 0), Table::new(3, 0)];
    for (at, t) in tables.iter_mut().enumerate() {
        t.now += at as u64 * 77 * MS;
        t.elect(1);
        t.propose(1, &["a"]);
        t.settle(&[]);
    }
    for id in 1..=3 {
        let [a, b] = &mut tables;
        let (a, b) = (a.at(id).core.as_mut().expect("up"), b.at(id).core.as_mut().expect("up"));
        assert_ne!(a, b);
        a.forget_time();
        b.forget_time();
        // The mutants' clock is no part of a product's state.
        a.old_now = b.old_now;
        assert_eq!(a, b);
    }
}
