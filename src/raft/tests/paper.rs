//! One test for each rule of the Raft paper (Ongaro and Ousterhout, extended version) and of Ongaro's dissertation that this core
//! keeps, named by its section.

use super::bench_world::*;
use crate::*;

fn bodies(t: &Table, of: &str) -> usize {
    t.messages.iter().filter(|m| kind(&m.body) == of).count()
}

fn message(from: u64, to: u64, term: u64, body: Body) -> Event {
    Event::Message(Message { group: GROUP, from: n(from), to: n(to), term: Term(term), body })
}

fn append(prev: u64, prev_term: u64, entries: Vec<Entry>, commit: u64) -> Body {
    Body::Append(Append {
        prev: LogIndex(prev),
        prev_term: Term(prev_term),
        prev_chain: None,
        entries,
        commit: LogIndex(commit),
        round: 0,
    })
}

fn entry(before: Chain, index: u64, term: u64) -> Entry {
    Entry::after(before, LogIndex(index), Term(term), EntryKind::Normal, 0, bytes::Bytes::new())
}

/// §5.1: whoever sees a newer term takes it and follows.
#[test]
fn s5_1_a_newer_term_makes_a_follower() {
    for role in ["follower", "candidate", "leader"] {
        let mut t = Table::new(3, 0);
        match role {
            "candidate" => t.step(1, Event::Campaign),
            "leader" => t.elect(1),
            _ => {}
        }
        t.step(1, message(2, 1, 9, append(1, 1, vec![], 1)));
        let s = t.core(1).status();
        assert_eq!((s.role, s.term, s.leader), (RoleName::Follower, Term(9), Some(n(2))), "{role}");
    }
}

/// §5.1: a message of an old term changes nothing; its sender is told.
#[test]
fn s5_1_an_older_term_is_refused() {
    let mut t = Table::new(3, 0);
    t.elect(1);
    t.elect_again(2);
    let before = t.core(3).clone();
    t.step(3, message(1, 3, 2, append(1, 1, vec![], 1)));
    assert_eq!(*t.core(3), before);
    assert_eq!(bodies(&t, "behind"), 1);
}

/// §5.2: a follower that hears nothing for an election time campaigns, and not before.
#[test]
fn s5_2_a_follower_campaigns_after_an_election_time() {
    let mut t = Table::new(3, 0);
    let deadline = t.core(1).deadline();
    assert!((1300 * MS..1600 * MS).contains(&deadline), "{deadline}");
    t.now = deadline - 1;
    t.step(1, Event::Tick);
    assert!(t.messages.is_empty());
    t.now = deadline;
    t.step(1, Event::Tick);
    assert_eq!(bodies(&t, "pre-vote"), 2);
}

/// §5.2: election times are drawn anew for each try, so that ties end.
#[test]
fn s5_2_election_times_are_random() {
    let t = Table::new(5, 0);
    let mut times: Vec<u64> = (1..=5).map(|i| t.core(i).deadline()).collect();
    times.sort_unstable();
    times.dedup();
    assert!(times.len() >= 4, "{times:?}");
}

/// §5.2: a candidate wins with a majority, and only then.
#[test]
fn s5_2_a_majority_elects() {
    for (voters, needed) in [(1u64, 1u64), (2, 2), (3, 2), (4, 3), (5, 3)] {
        for yes in 1..=voters {
            let mut t = Table::new(voters, 0);
            t.step(1, Event::Campaign);
            for v in 2..=voters {
                t.step(1, message(v, 1, 2, Body::PreVoteReply { granted: true }));
            }
            t.sync(1);
            for v in 2..=yes {
                t.step(1, message(v, 1, 2, Body::VoteReply { granted: true }));
            }
            assert_eq!(t.core(1).status().role == RoleName::Leader, yes >= needed, "{yes} of {voters}");
        }
    }
}

/// §5.2: one vote a term, first come first served; the same candidate may ask again.
#[test]
fn s5_2_one_vote_a_term() {
    let mut t = Table::new(3, 0);
    let ask = Body::Vote { last: LogIndex(1), last_term: Term(1), transfer: false };
    t.step(3, message(1, 3, 2, ask.clone()));
    t.step(3, message(2, 3, 2, ask.clone()));
    t.step(3, message(1, 3, 2, ask));
    t.sync(3);
    let votes: Vec<(u64, bool)> = t
        .messages
        .iter()
        .filter_map(|m| match m.body {
            Body::VoteReply { granted } => Some((m.to.id, granted)),
            _ => None,
        })
        .collect();
    assert_eq!(votes, [(1, true), (2, false), (1, true)]);
}

/// §5.3: a leader appends, sends in parallel, and commits when a majority is durable; followers learn of it.
#[test]
fn s5_3_a_majority_commits() {
    for (voters, answers, commits) in [(3u64, 0u64, false), (3, 1, true), (5, 1, false), (5, 2, true)] {
        let mut t = Table::new(voters, 0);
        t.elect(1);
        t.propose(1, &["a"]);
        t.sync(1);
        for v in 2..2 + answers {
            t.deliver(&|m| m.to == n(v), false);
            t.sync(v);
        }
        t.deliver(&|m| m.to == n(1), false);
        assert_eq!(t.core(1).status().commit == LogIndex(3), commits, "{answers} of {voters}");
    }
}

/// §5.3, figure 7: a leader brings every log in line with its own: too short, too long, or both.
#[test]
fn s5_3_followers_logs_are_brought_in_line() {
    // The leader's log, then those of figure 7 (f); the base is entry 1 of term 1, so that indexes are one higher.
    let leader = [1, 1, 1, 4, 4, 5, 5, 6, 6, 6];
    let followers: [&[u64]; 6] = [
        &[1, 1, 1, 4, 4, 5, 5, 6, 6],
        &[1, 1, 1, 4],
        &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6],
        &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7],
        &[1, 1, 1, 4, 4, 4, 4],
        &[1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3],
    ];
    for theirs in followers {
        let mut t = Table::new(3, 0);
        for (id, terms) in [(1, &leader[..]), (2, theirs), (3, &[][..])] {
            let r = t.at(id);
            let mut chain = r.applied.chain;
            for (at, term) in terms.iter().enumerate() {
                let e = entry(chain, at as u64 + 2, *term);
                chain = e.chain;
                r.disk.entries.insert(e.index.0, e);
            }
            // The vote of n3 elects n1 in term 8.
            r.disk.hard.term = Term(7);
            t.start(id);
        }
        t.step(1, Event::Campaign);
        t.settle(&[2]);
        assert_eq!(t.core(1).status().role, RoleName::Leader);
        t.now += 200 * MS;
        t.step(1, Event::Tick);
        t.settle(&[]);
        let chains =
            |id: u64| t.replicas[id as usize - 1].disk.entries.values().map(|e| e.chain).collect::<Vec<_>>();
        assert_eq!(chains(1), chains(2), "{theirs:?}");
        assert_eq!(t.core(2).status().commit, LogIndex(12));
    }
}

/// §5.3: entries that are there already are not truncated, even by a shorter append that comes late.
#[test]
fn s5_3_a_late_append_truncates_nothing() {
    let mut t = Table::new(3, 0);
    let chain = t.core(1).last_chain();
    let (a, b) = (entry(chain, 2, 2), entry(entry(chain, 2, 2).chain, 3, 2));
    t.step(2, message(1, 2, 2, append(1, 1, vec![a.clone(), b], 1)));
    t.step(2, message(1, 2, 2, append(1, 1, vec![a], 1)));
    assert_eq!(t.core(2).status().last, LogIndex(3));
}

/// §5.4.1: a vote only for a log that is at least as new: by the last term, then by length.
#[test]
fn s5_4_1_votes_for_newer_logs_only() {
    for (last, last_term, granted) in [(3, 2, true), (4, 2, true), (2, 2, false), (9, 1, false), (1, 3, true)]
    {
        let mut t = Table::new(3, 0);
        let chain = t.core(1).last_chain();
        let a = entry(chain, 2, 2);
        let b = entry(a.chain, 3, 2);
        t.step(2, message(1, 2, 2, append(1, 1, vec![a, b], 1)));
        t.sync(2);
        t.messages.clear();
        t.now += 1000 * MS;
        let ask = Body::Vote { last: LogIndex(last), last_term: Term(last_term), transfer: false };
        t.step(2, message(3, 2, 3, ask));
        t.sync(2);
        let got = t.messages.iter().any(|m| m.body == Body::VoteReply { granted: true });
        assert_eq!(got, granted, "{last}/{last_term}");
    }
}

/// §5.4.2: an old term's entry is committed only together with one of the own term.
#[test]
fn s5_4_2_only_the_own_term_is_counted() {
    let mut t = Table::new(3, 0);
    t.elect(1);
    t.propose(1, &["old"]);
    t.sync(1);
    t.messages.clear();
    t.crash(1, 0);
    t.start(1);
    t.now += 1000 * MS;
    t.step(1, Event::Campaign);
    t.settle(&[3]);
    let s = t.core(1).status();
    assert_eq!((s.commit, s.last, s.last_term), (LogIndex(4), LogIndex(4), Term(3)));
    // The script on figure 8 shows the moment in between.
}

/// §6: a node that is not in the newest membership is no voter and does not campaign; one that is asked votes.
#[test]
fn s6_a_learner_votes_when_asked_and_does_not_campaign() {
    let mut t = Table::new(3, 1);
    t.elect(1);
    t.step(1, Event::Change(Change { voters: vec![n(1), n(2), n(3)], learners: vec![n(4)] }));
    t.settle(&[]);
    t.now += 5000 * MS;
    t.step(4, Event::Tick);
    t.step(4, Event::Campaign);
    assert_eq!(bodies(&t, "pre-vote"), 0);
    let last = t.core(4).status();
    let ask = Body::Vote { last: last.last, last_term: last.last_term, transfer: false };
    t.step(4, message(2, 4, 3, ask));
    t.sync(4);
    assert!(t.messages.iter().any(|m| m.body == Body::VoteReply { granted: true }));
}

/// §6: a server that was removed cannot unseat a leader with its time-outs.
#[test]
fn s6_a_removed_server_disturbs_nobody() {
    let mut t = Table::new(4, 0);
    t.elect(1);
    t.step(1, Event::Change(Change { voters: vec![n(1), n(2), n(3)], learners: vec![] }));
    t.settle(&[4]);
    let term = t.core(1).status().term;
    t.now += 5000 * MS;
    t.step(1, Event::Tick);
    t.settle(&[4]);
    t.step(4, Event::Tick);
    t.settle(&[]);
    let s = t.core(1).status();
    assert_eq!((s.role, s.term), (RoleName::Leader, term));
}

/// §7: a snapshot replaces the log up to its index and keeps what follows it.
#[test]
fn s7_a_snapshot_keeps_what_follows_it() {
    let mut t = Table::new(3, 0);
    t.elect(1);
    t.propose(1, &["a", "b", "c"]);
    t.settle(&[]);
    // n2's own checkpoint at 3, as if a snapshot had come: entries 4 and 5 stay.
    let chain = t.at(2).disk.chain(LogIndex(3)).expect("entry 3 is on disk");
    t.step(2, Event::Compacted { index: LogIndex(3), chain });
    t.at(2).disk.checkpoint.meta = t.core(2).base().clone();
    t.sync(2);
    let s = t.core(2).status();
    assert_eq!((s.base, s.last, s.durable), (LogIndex(3), LogIndex(5), LogIndex(5)));
    assert_eq!(t.words(2), ["b", "c"]);
}

/// §8: a leader answers reads only after it has committed an entry of its own term.
#[test]
fn s8_a_new_leader_answers_no_read_before_its_first_commit() {
    let mut t = Table::new(3, 0);
    t.step(1, Event::Campaign);
    t.deliver(&|_| true, false);
    t.deliver(&|_| true, false);
    t.sync(1);
    t.deliver(&|_| true, false);
    t.sync(2);
    t.deliver(&|_| true, false);
    assert_eq!(t.core(1).status().role, RoleName::Leader);
    t.step(1, Event::Read(1));
    assert!(t.at(1).reads.is_empty());
    t.settle(&[]);
    assert_eq!(t.at(1).reads[0].index, Some(LogIndex(2)));
}

/// Dissertation §3.10: a transfer needs no time-out, and the receiver has the whole log.
#[test]
fn d3_10_transfer() {
    let mut t = Table::new(3, 0);
    t.elect(1);
    t.propose(1, &["a"]);
    t.step(1, Event::Transfer(n(2)));
    t.settle(&[]);
    let s = t.core(2).status();
    assert_eq!((s.role, s.commit), (RoleName::Leader, LogIndex(4)));
    assert_eq!(t.words(3), ["a"]);
}

/// Dissertation §6.2: a leader without a quorum steps down within an election time.
#[test]
fn d6_2_check_quorum() {
    let mut t = Table::new(3, 0);
    t.elect(1);
    for _ in 0..10 {
        t.now += 100 * MS;
        t.step(1, Event::Tick);
        t.messages.clear();
    }
    assert_eq!(t.core(1).status().role, RoleName::Follower);
}

/// Dissertation §9.6: a partitioned node asks in vain and raises no term.
#[test]
fn d9_6_pre_vote_raises_no_term() {
    let mut t = Table::new(3, 0);
    t.elect(1);
    for _ in 0..5 {
        t.now += 1000 * MS;
        t.step(3, Event::Tick);
        t.messages.clear();
    }
    assert_eq!(t.core(3).status().term, Term(2));
}

/// R-15, found by L0 (seed 330271): a voter that has learned of a newer term by another message is still bound by its promise to the
/// leader of the older one, and gives no vote in the newer.
#[test]
fn r15_a_promise_outlives_a_change_of_term() {
    let mut t = Table::new(3, 0);
    t.support(5, 5000 * MS);
    t.elect(1);
    t.now += 1000 * MS;
    t.step(3, message(2, 3, 9, Body::Behind));
    assert_eq!(t.core(3).status().term, Term(9));
    let ask = Body::Vote { last: LogIndex(9), last_term: Term(2), transfer: false };
    t.step(3, message(2, 3, 9, ask.clone()));
    t.sync(3);
    assert_eq!(bodies(&t, "vote-reply"), 1);
    assert!(!t.messages.iter().any(|m| m.body == Body::VoteReply { granted: true }));
    // Once the support is over it is free.
    let row = t.at(3).live.get(n(1)).copied().expect("a row");
    t.at(3).live.set(PeerLive { given: 0, ..row });
    t.step(3, message(2, 3, 9, ask));
    t.sync(3);
    assert!(t.messages.iter().any(|m| m.body == Body::VoteReply { granted: true }));
}

/// Dissertation §4.4.1 leaves a group without its majority to the operator: of two that are left the one with the better log goes on, has what
/// either of them had committed, and the other follows it.
#[test]
fn r20_what_is_left_of_a_group_goes_on() {
    let mut t = Table::new(5, 0);
    t.elect(1);
    t.propose(1, &["a"]);
    t.settle(&[]);
    let (committed, behind) = (t.core(2).status().commit, t.core(3).status().last);
    // One more reaches the second only, and then all but two are gone.
    t.propose(1, &["b"]);
    t.sync(1);
    t.deliver(&|m| m.to == n(2), false);
    t.sync(2);
    t.messages.clear();
    [1, 4, 5].into_iter().for_each(|id| t.crash(id, 0));
    assert!(t.core(2).status().last > behind, "one is ahead");
    assert!(t.force(1, &[1], 0).is_none(), "who is gone does not answer");
    let of = t.force(2, &[2, 3], 7).expect("it is taken");
    assert_eq!((t.core(2).status().role, t.core(2).status().term), (RoleName::Leader, Term(8)));
    assert!(t.core(2).status().commit < of, "R-20: a majority of those left must have it first");
    t.settle(&[]);
    for id in [2, 3] {
        let s = t.core(id).status();
        assert!(s.commit >= of && s.commit > committed, "{s:?}");
        assert_eq!((s.leader, t.core(id).members().1.voters.clone()), (Some(n(2)), vec![n(2), n(3)]));
    }
    assert_eq!(t.core(2).status().last_term, Term(8));
    assert!(t.force(2, &[2], 0).is_none(), "R-20: a leader needs no rescue");
    assert!(t.force(3, &[3, 9], 0).is_none(), "R-20: nobody comes in by it");
}

/// Not of the paper, in which disks forget nothing: a follower whose disk has lost the end of the log, and cannot tell, is fed again by the leader of the
/// same term although nobody proposes anything.
#[test]
fn a_follower_that_forgot_and_does_not_know_is_fed_by_the_next_beat() {
    let mut t = Table::new(3, 0);
    t.elect(1);
    t.propose(1, &["a", "b", "c"]);
    t.settle(&[]);
    let s = t.core(1).status();
    assert_eq!((s.commit, t.core(2).status().last), (s.last, s.last));
    t.crash(2, 0);
    let disk = &mut t.at(2).disk;
    drop(disk.entries.split_off(&2));
    disk.hard.commit = LogIndex(1);
    t.start(2);
    t.settle(&[]);
    assert_eq!(t.core(2).status().last, LogIndex(1), "the leader believes that it has everything");
    t.step(2, message(1, 2, s.term.0, Body::Beat { commit: s.commit, round: 0 }));
    t.settle(&[]);
    assert_eq!((t.core(2).status().last, t.core(2).status().commit), (s.last, s.last));
    assert_eq!(t.words(2), t.words(1));
}
