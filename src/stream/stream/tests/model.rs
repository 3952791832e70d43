//! Random runs against a naive model that decides and applies one message at a time, and against a second stream that applies the same
//! log. The model knows no tail, no misses, no checkpoints: whatever these do must not show.

use proptest::prelude::*;

use super::harness::{Flaky, Keep, Logged, Shell, apply_one};
use crate::command::Command;
use crate::errors::{self, ApiError};
use crate::memory::size;
use crate::publish::{Ack, Answer, Limits};
use crate::stream::Stream;
use crate::time::SECOND;

const WINDOW: i64 = 10 * SECOND;

/// A configuration as the model sees it. What removes messages by subject is not mixed with what removes the oldest: with both, how entries
/// are cut decides what is left, for limits are enforced once an entry.
#[derive(Clone, Copy, Debug)]
struct Rules {
    max_msgs: i64,
    max_bytes: i64,
    per_subject: i64,
    new: bool,
    new_per_subject: bool,
    rollup: bool,
}

impl Rules {
    fn json(self) -> String {
        let Rules { max_msgs, max_bytes, per_subject, new, new_per_subject, rollup } = self;
        let discard = if new { "new" } else { "old" };
        format!(
            r#"{{"name":"A","subjects":["s.*"],"max_msgs":{max_msgs},"max_bytes":{max_bytes},"max_msgs_per_subject":{per_subject},"discard":"{discard}","discard_new_per_subject":{new_per_subject},"allow_rollup_hdrs":{rollup},"duplicate_window":{WINDOW}}}"#
        )
    }
}

fn rules() -> impl Strategy<Value = Rules> {
    let limit = |of: std::ops::Range<i64>| prop_oneof![Just(-1i64), of];
    (limit(1..8), limit(30..300), limit(1..4), any::<bool>(), any::<bool>(), prop::bool::weighted(0.3))
        .prop_map(|(max_msgs, max_bytes, per_subject, new, new_per_subject, rollup)| {
            if rollup {
                return Rules {
                    max_msgs: -1,
                    max_bytes: -1,
                    per_subject: -1,
                    new: false,
                    new_per_subject: false,
                    rollup,
                };
            }
            let new_per_subject = new && new_per_subject && per_subject > 0;
            let per_subject = if !new && (max_msgs > 0 || max_bytes > 0) { -1 } else { per_subject };
            Rules { max_msgs, max_bytes, per_subject, new, new_per_subject, rollup }
        })
}

#[derive(Clone, Debug)]
enum Step {
    Publish {
        subject: u8,
        ask: Ask,
        payload: usize,
    },
    Apply,
    Purge {
        subject: Option<u8>,
        below: u64,
        keep: u64,
    },
    Delete {
        seq: u64,
    },
    Pass {
        seconds: i64,
    },
    Checkpoint,
    Crash,
    /// Leadership is lost, or a proposal refused: all that is decided and not applied is gone.
    Lose,
}

#[derive(Clone, Debug)]
enum Ask {
    Nothing,
    Id(u8),
    /// The stream's last sequence, so much off.
    Last(u64),
    /// The subject's, so much off; of any subject if told so.
    Subject(u64, bool),
    LastId(u8),
    RollupSubject,
    RollupAll,
}

fn step() -> impl Strategy<Value = Step> {
    let ask = prop_oneof![
        4 => Just(Ask::Nothing),
        3 => (0u8..6).prop_map(Ask::Id),
        2 => (0u64..2).prop_map(Ask::Last),
        3 => (0u64..2, prop::bool::weighted(0.2)).prop_map(|(off, wild)| Ask::Subject(off, wild)),
        1 => (0u8..6).prop_map(Ask::LastId),
        1 => Just(Ask::RollupSubject),
        1 => Just(Ask::RollupAll),
    ];
    prop_oneof![
        20 => (0u8..4, ask, 0usize..60).prop_map(|(subject, ask, payload)| Step::Publish { subject, ask, payload }),
        4 => Just(Step::Apply),
        1 => (prop::option::of(0u8..4), prop_oneof![Just(0u64), 1u64..30], 0u64..3)
            .prop_map(|(subject, below, keep)| Step::Purge { subject, below, keep: if below > 0 { 0 } else { keep } }),
        1 => (1u64..30).prop_map(|seq| Step::Delete { seq }),
        1 => (1i64..8).prop_map(|seconds| Step::Pass { seconds }),
        1 => Just(Step::Checkpoint),
        1 => Just(Step::Crash),
        1 => Just(Step::Lose),
    ]
}

#[derive(Clone, Debug, Default)]
struct Model {
    live: Vec<(u64, String, u64)>,
    last: u64,
    ids: Vec<(String, u64, i64)>,
    last_id: String,
}

impl Model {
    fn last_of(&self, subject: &str) -> u64 {
        self.live.iter().rev().find(|m| m.1 == subject).map_or(0, |m| m.0)
    }

    fn bytes(&self) -> u64 {
        self.live.iter().map(|m| m.2).sum()
    }

    fn count(&self, subject: &str) -> u64 {
        self.live.iter().filter(|m| m.1 == subject).count() as u64
    }

    fn publish(
        &mut self,
        r: Rules,
        subject: &str,
        ask: &Ask,
        headers: &[(&str, &str)],
        payload: usize,
        now: i64,
    ) -> Result<Answer, ApiError> {
        let wrong = |have: u64, want: u64| {
            if have == want { Ok(()) } else { Err(errors::STREAM_WRONG_LAST_SEQUENCE.with(have)) }
        };
        let number = |i: usize| headers[i].1.parse::<u64>().unwrap();
        let mut id = String::new();
        match ask {
            Ask::Nothing => {}
            Ask::Id(n) => id = n.to_string(),
            Ask::Last(_) => wrong(self.last, number(0))?,
            Ask::Subject(_, false) => wrong(self.last_of(subject), number(0))?,
            Ask::Subject(_, true) => wrong(self.live.last().map_or(0, |m| m.0), number(0))?,
            Ask::LastId(n) => {
                if self.last_id != n.to_string() {
                    return Err(errors::STREAM_WRONG_LAST_MSG_ID.with(&self.last_id));
                }
            }
            Ask::RollupSubject | Ask::RollupAll => {
                if !r.rollup {
                    return Err(errors::STREAM_ROLLUP_FAILED.with("rollup not permitted"));
                }
            }
        }
        if let Some((_, seq, _)) =
            self.ids.iter().rev().find(|(i, _, t)| !id.is_empty() && *i == id && now - t < WINDOW)
        {
            return Ok(Answer::Ack(Ack { seq: *seq, duplicate: true, extra: None }));
        }
        let block = super::harness::block(headers);
        let bytes = size(crate::config::Storage::File, subject.len(), block.len(), payload);
        let limit = |n: i64| if n > 0 { n as u64 } else { u64::MAX };
        if r.new {
            let failed = |text: &str| Err(errors::STREAM_STORE_FAILED.with(text));
            let replaces = self.count(subject) >= limit(r.per_subject);
            if r.new_per_subject && replaces {
                return failed("maximum messages per subject exceeded");
            }
            if self.live.len() as u64 >= limit(r.max_msgs) && !replaces {
                return failed("maximum messages exceeded");
            }
            if self.bytes() + bytes > limit(r.max_bytes) {
                let first = self.live.iter().find(|m| m.1 == subject).map_or(0, |m| m.2);
                if !replaces || first < bytes {
                    return failed("maximum bytes exceeded");
                }
            }
        }
        self.last += 1;
        self.live.push((self.last, subject.to_owned(), bytes));
        if !id.is_empty() {
            self.ids.push((id.clone(), self.last, now));
        }
        self.last_id = id;
        let last = self.last;
        match ask {
            Ask::RollupSubject => self.live.retain(|m| m.0 == last || m.1 != subject),
            Ask::RollupAll => self.live.retain(|m| m.0 == last),
            _ => {}
        }
        while self.count(subject) > limit(r.per_subject) {
            let at = self.live.iter().position(|m| m.1 == subject).unwrap();
            self.live.remove(at);
        }
        if !r.new {
            while self.live.len() as u64 > limit(r.max_msgs)
                || self.bytes() > limit(r.max_bytes) && !self.live.is_empty()
            {
                self.live.remove(0);
            }
        }
        Ok(Answer::ack(last))
    }

    fn purge(&mut self, subject: Option<&str>, below: u64, keep: u64) {
        let hits = |m: &(u64, String, u64)| subject.is_none_or(|s| m.1 == s) && (below == 0 || m.0 < below);
        let mut left = self.live.iter().filter(|m| hits(m)).count() as u64;
        left = left.saturating_sub(keep);
        self.live.retain(|m| {
            if left > 0 && hits(m) {
                left -= 1;
                return false;
            }
            true
        });
        if subject.is_none() && below > self.last + 1 {
            self.last = below - 1;
        }
    }
}

/// What a crash loses: everything since, but the log.
struct Saved {
    snapshot: bytes::Bytes,
    msgs: Flaky,
    log: usize,
}

fn run(r: Rules, steps: Vec<Step>, misses: u8) -> Result<(), TestCaseError> {
    let mut shell = Shell::new(&r.json());
    shell.msgs.misses = misses;
    let mut model = Model::default();
    // What is applied, for when the tail is lost.
    let mut applied = model.clone();
    let mut saved: Option<Saved> = None;
    let mut expected: Vec<(usize, Answer)> = Vec::new();
    let mut lost: Vec<usize> = Vec::new();
    for (tag, step) in steps.into_iter().enumerate() {
        shell.tag = tag;
        match step {
            Step::Publish { subject, ask, payload } => {
                let name = format!("s.{subject}");
                let value = match &ask {
                    Ask::Last(off) => (model.last + off).to_string(),
                    Ask::Subject(off, true) => (model.live.last().map_or(0, |m| m.0) + off).to_string(),
                    Ask::Subject(off, false) => (model.last_of(&name) + off).to_string(),
                    Ask::Id(n) | Ask::LastId(n) => n.to_string(),
                    _ => String::new(),
                };
                let headers: Vec<(&str, &str)> = match &ask {
                    Ask::Nothing => vec![],
                    Ask::Id(_) => vec![("Nats-Msg-Id", &value)],
                    Ask::Last(_) => vec![("Nats-Expected-Last-Sequence", &value)],
                    Ask::Subject(_, wild) => {
                        let mut h = vec![("Nats-Expected-Last-Subject-Sequence", &value[..])];
                        if *wild {
                            h.push(("Nats-Expected-Last-Subject-Sequence-Subject", "s.*"));
                        }
                        h
                    }
                    Ask::LastId(_) => vec![("Nats-Expected-Last-Msg-Id", &value)],
                    Ask::RollupSubject => vec![("Nats-Rollup", "sub")],
                    Ask::RollupAll => vec![("Nats-Rollup", "all")],
                };
                let before = shell.log.len();
                shell.publish(&name, &headers, &"x".repeat(payload));
                if shell.log.len() > before {
                    // It had to wait for all before it.
                    applied = model.clone();
                }
                let answer = model.publish(r, &name, &ask, &headers, payload, shell.now.wall);
                expected.push((tag, answer.unwrap_or_else(Answer::Error)));
                let now = shell.tagged.iter().find(|(t, _)| *t == tag);
                if let Some((_, answer)) = now {
                    prop_assert_eq!(answer, &expected.last().unwrap().1, "at once");
                }
            }
            Step::Apply => {
                shell.apply();
                applied = model.clone();
            }
            Step::Purge { subject, below, keep } => {
                let name = subject.map(|n| format!("s.{n}"));
                let filter = name.clone().unwrap_or_default().into_bytes().into();
                shell.propose(Command::Purge { filter, below, keep });
                model.purge(name.as_deref(), below, keep);
            }
            Step::Delete { seq } => {
                shell.propose(Command::Delete { seq, erase: false });
                model.live.retain(|m| m.0 != seq);
            }
            Step::Pass { seconds } => {
                shell.apply();
                applied = model.clone();
                shell.pass(seconds * SECOND);
                shell.time();
            }
            Step::Checkpoint => {
                shell.apply();
                applied = model.clone();
                saved = Some(Saved {
                    snapshot: shell.stream.snapshot(),
                    msgs: shell.msgs.clone(),
                    log: shell.log.len(),
                });
            }
            Step::Crash => {
                shell.apply();
                applied = model.clone();
                if let Some(saved) = &saved {
                    let mut stream = Stream::restore(&saved.snapshot, Limits::default()).unwrap();
                    let mut msgs = saved.msgs.clone();
                    for entry in &shell.log[saved.log..] {
                        apply_one(&mut stream, &mut msgs, &Keep, entry);
                    }
                    shell.stream = stream;
                    shell.msgs = msgs;
                }
            }
            Step::Lose => {
                let answered: Vec<usize> = shell.tagged.iter().map(|(t, _)| *t).collect();
                lost.extend(expected.iter().map(|(t, _)| *t).filter(|t| !answered.contains(t)));
                shell.lose_tail();
                model = applied.clone();
            }
        }
        if r.max_msgs > 0 {
            prop_assert!(shell.msgs.inner.iter().count() as i64 <= r.max_msgs, "J-3: messages");
        }
    }
    shell.apply();
    expected.retain(|(t, _)| !lost.contains(t));
    let mut answered = shell.tagged.clone();
    answered.sort_by_key(|(t, _)| *t);
    prop_assert_eq!(answered, expected);
    prop_assert_eq!(shell.seqs(), model.live.iter().map(|m| m.0).collect::<Vec<_>>());
    prop_assert_eq!(shell.stream.totals(&shell.msgs).last, model.last);
    replay(&mut shell, r)
}

/// J-4: the same log gives the same messages and the same state on a stream that never decided anything.
fn replay(shell: &mut Shell, r: Rules) -> Result<(), TestCaseError> {
    let mut replica =
        Stream::new(super::harness::config(&r.json()), shell.stream.created(), Limits::default());
    let mut msgs = Flaky { misses: 30, ..Flaky::default() };
    let mut last = 0;
    for entry in &shell.log {
        if let Logged::Messages(all) = entry {
            for m in all {
                prop_assert!(m.seq > last, "J-2: sequence {} after {last}", m.seq);
                last = m.seq;
            }
        }
        apply_one(&mut replica, &mut msgs, &Keep, entry);
    }
    prop_assert_eq!(&msgs.inner, &shell.msgs.inner, "J-4: messages");
    // A leader forgets ids also when only time passes: nobody can tell, for an id's age is looked at too.
    for stream in [&mut replica, &mut shell.stream] {
        let due = super::harness::again(|| stream.due(shell.now, &msgs));
        prop_assert_eq!(due, crate::stream::Due::default());
    }
    prop_assert_eq!(replica.snapshot(), shell.stream.snapshot(), "J-4: state");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]
    #[test]
    fn whatever_is_in_flight_the_answers_are_those_of_one_at_a_time(
        r in rules(),
        steps in prop::collection::vec(step(), 1..60),
        misses in prop_oneof![Just(0u8), Just(80u8)],
    ) {
        run(r, steps, misses)?;
    }
}
