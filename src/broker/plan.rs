//! Where a publisher's messages go, remembered by subject.
//!
//! A connection has its own table, so that nothing is locked on the way of a message. A plan is good as long as the
//! account's generation has not moved. Two places a subject; a miss overwrites the older and re-uses its memory, so
//! that a publisher of ever new subjects allocates nothing either.

use std::sync::Arc;

use keyed::hash;
use subject::QueueId;

use crate::{
    Kind, Sub,
    routes::{Group, Remote},
};

/// Who gets a message: plain subscriptions, queue groups of which one member gets it, and routes.
#[derive(Default)]
pub(crate) struct Receivers {
    plain: Vec<Arc<Sub>>,
    /// The first `live` count; those behind are kept for their buffers.
    groups: Vec<Group>,
    live: usize,
    remote: Vec<Remote>,
}

impl Receivers {
    #[inline]
    pub fn plain(&self) -> &[Arc<Sub>] {
        &self.plain
    }
    #[inline]
    pub fn groups(&self) -> &[Group] {
        &self.groups[..self.live]
    }
    /// Each route once that has a subscription among them.
    #[inline]
    pub fn remote(&self) -> &[Remote] {
        &self.remote
    }
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.plain.is_empty() && self.live == 0 && self.remote.is_empty()
    }
    /// The only receiver, if there is just one and on this server.
    #[inline]
    pub fn sole(&self) -> Option<&Arc<Sub>> {
        match (&self.plain[..], self.groups(), &self.remote[..]) {
            ([sub], [], []) => Some(sub),
            ([], [group], []) if group.members.len() == 1 && group.remote_weight == 0 => {
                group.members.first()
            }
            _ => None,
        }
    }
    /// Subscriptions in all.
    pub fn len(&self) -> usize {
        self.plain.len() + self.groups().iter().map(|g| g.members.len()).sum::<usize>() + self.remote.len()
    }
    pub fn clear(&mut self) {
        self.plain.clear();
        for g in &mut self.groups[..self.live] {
            g.clear();
        }
        self.live = 0;
        self.remote.clear();
    }
    pub fn push(&mut self, queue: Option<QueueId>, sub: &Arc<Sub>) {
        if env::planted!("wild-skips-last") && sub.subject().ends_with(b"*") && !self.plain.is_empty() {
            return;
        }
        let is_remote = sub.link.kind == Kind::Route;
        let Some(queue) = queue else {
            if is_remote {
                let i = self.remote_of(sub);
                self.remote[i].plain = true;
                return;
            }
            return self.plain.push(sub.clone());
        };
        let i = match self.groups[..self.live].iter().position(|g| g.id == queue) {
            Some(i) => i,
            None => {
                self.live += 1;
                match self.groups.get_mut(self.live - 1) {
                    Some(spare) => spare.id = queue,
                    None => self.groups.push(Group::new(queue)),
                }
                self.live - 1
            }
        };
        if is_remote {
            let place = self.remote_of(sub);
            return self.groups[i].push_remote(place, sub);
        }
        self.groups[i].members.push(sub.clone());
    }
    /// The place of a subscription's route.
    fn remote_of(&mut self, sub: &Arc<Sub>) -> usize {
        self.remote.iter().position(|r| Arc::ptr_eq(&r.sub.link, &sub.link)).unwrap_or_else(|| {
            self.remote.push(Remote { sub: sub.clone(), plain: false });
            self.remote.len() - 1
        })
    }
    /// The first receiver of this server that `pick` likes, members of queue groups left out.
    pub fn find_plain(&self, pick: impl Fn(&Sub) -> bool) -> Option<&Arc<Sub>> {
        self.plain.iter().find(|s| pick(s))
    }
}

/// Plans for whole families of subjects that a table keeps.
const WIDE_MAX: usize = 8;
/// Entries of a table at its largest: a power of two.
const ENTRIES_MAX: usize = 1024;
/// Receivers held by all plans of a table together; beyond it the table is emptied.
const RECEIVERS_MAX: usize = 256 << 10;

/// Where messages to one subject go.
#[derive(Default)]
pub(crate) struct Plan {
    subject: Vec<u8>,
    generation: u64,
    /// Whether the publisher may publish it.
    pub allowed: bool,
    /// Whether it is a subject without wildcards and empty tokens.
    pub literal: bool,
    /// Who gets it.
    pub matched: Receivers,
}

/// What somebody may listen to by name.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Named<'a> {
    /// Exactly this subject.
    Subject(&'a [u8]),
    /// Any subject that begins so; if that is much to find out, the answer may be that somebody does.
    Prefix(&'a [u8]),
}

/// A plan for all subjects that begin as its own does, have as many tokens, and that nobody listens to by name.
struct Wide {
    plan: Box<Plan>,
    /// Bytes of the plan's subject that others share.
    prefix: usize,
    /// Dots behind them.
    dots: usize,
    /// Somebody may listen to one of them by name: that is asked for each.
    named: bool,
}

impl Wide {
    #[inline]
    fn covers(&self, subject: &[u8], generation: u64) -> bool {
        let prefix = &self.plan.subject[..self.prefix];
        self.plan.generation == generation
            && subject.starts_with(prefix)
            && dots(&subject[self.prefix..]) == Some(self.dots)
    }
}

/// How many dots are in the rest of a subject; `None` if one of its tokens is empty. Eight bytes at a time: it is asked for each message.
#[inline]
fn dots(rest: &[u8]) -> Option<usize> {
    // What stands before the rest, and what would follow it: an empty token is a dot beside another, or at either end.
    let (mut n, mut before, mut empty) = (0, 0x80, 0);
    let mut words = rest.chunks_exact(8);
    for w in &mut words {
        let marks = dot_marks(u64::from_le_bytes([w[0], w[1], w[2], w[3], w[4], w[5], w[6], w[7]]));
        empty |= marks & (marks << 8 | before);
        before = marks >> 56;
        n += marks.count_ones();
    }
    let tail = words.remainder();
    let mut word = [0; 8];
    word[..tail.len()].copy_from_slice(tail);
    let marks = dot_marks(u64::from_le_bytes(word));
    empty |= marks & (marks << 8 | before);
    n += marks.count_ones();
    (empty == 0 && rest.last().is_some_and(|b| *b != b'.')).then_some(n as usize)
}
/// The highest bit of each byte that is a dot.
#[inline]
fn dot_marks(word: u64) -> u64 {
    const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    let x = word ^ 0x2e2e_2e2e_2e2e_2e2e;
    !(((x & LOW) + LOW) | x | LOW)
}

/// A publisher's plans.
#[derive(Default)]
pub(crate) struct Plans {
    /// The one that was used last comes first.
    wide: Vec<Wide>,
    /// The family of the last subject that was looked up: its prefix's hash, and the dots behind it.
    candidate: Option<(u64, usize)>,
    entries: Vec<Option<Box<Plan>>>,
    used: usize,
    receivers: usize,
    last: usize,
}

impl Plans {
    /// The plan for `subject`, made by `fill` if there is none of this generation.
    #[inline]
    pub fn get(&mut self, subject: &[u8], generation: u64, fill: impl FnOnce(&mut Plan)) -> &Plan {
        // The same subject as last time is the common case.
        if let Some(Some(p)) = self.entries.get(self.last)
            && (p.generation == generation || env::planted!("stale-plans"))
            && p.subject == subject
        {
            return self.at(self.last);
        }
        self.look_up(subject, generation, fill)
    }

    /// The same where `fill` can say that the plan is good for more subjects: all that share so many bytes, as
    /// [`subject::Trie::visit_wide`] has it; `is_named` says whether somebody listens by name. So a publisher of ever
    /// new subjects, such as acknowledgements or keys, does not look each of them up.
    #[inline]
    pub fn get_wide(
        &mut self,
        subject: &[u8],
        generation: u64,
        is_named: impl Fn(Named<'_>) -> bool,
        fill: impl FnOnce(&mut Plan) -> Option<usize>,
    ) -> &Plan {
        if let Some(Some(p)) = self.entries.get(self.last)
            && (p.generation == generation || env::planted!("stale-plans"))
            && p.subject == subject
        {
            return self.at(self.last);
        }
        self.look_wide(subject, generation, is_named, fill)
    }

    fn look_wide(
        &mut self,
        subject: &[u8],
        generation: u64,
        is_named: impl Fn(Named<'_>) -> bool,
        fill: impl FnOnce(&mut Plan) -> Option<usize>,
    ) -> &Plan {
        if let Some(i) = self.wide.iter().position(|w| w.covers(subject, generation))
            && !(self.wide[i].named && is_named(Named::Subject(subject)))
        {
            if i > 0 {
                self.wide.swap(0, i);
            }
            return &self.wide[0].plan;
        }
        let mut prefix = None;
        self.look_up(subject, generation, |p| prefix = fill(p));
        // It moves from the table to the wide ones, where the next of its kind finds it.
        let Some(prefix) = prefix else { return self.at(self.last) };
        // Once is no family: a publisher of all kinds of subjects keeps to the table.
        let dots = dots(&subject[prefix..]).unwrap_or_default();
        let kind = Some((hash(&subject[..prefix]), dots));
        if std::mem::replace(&mut self.candidate, kind) != kind {
            return self.at(self.last);
        }
        let plan = self.entries[self.last].take().expect("the place was just filled");
        self.used -= 1;
        self.receivers -= plan.matched.len();
        self.wide.retain(|w| w.plan.generation == generation);
        self.wide.truncate(WIDE_MAX - 1);
        // As long as the generation is the same, so is the answer.
        let named = is_named(Named::Prefix(&subject[..prefix]));
        self.wide.insert(0, Wide { plan, prefix, dots, named });
        &self.wide[0].plan
    }

    #[inline]
    fn at(&self, i: usize) -> &Plan {
        self.entries[i].as_deref().expect("the place was just found or filled")
    }

    fn look_up(&mut self, subject: &[u8], generation: u64, fill: impl FnOnce(&mut Plan)) -> &Plan {
        if self.entries.is_empty() {
            self.entries.resize_with(4, || None);
        }
        let i = self.place(subject);
        for i in [i, i ^ 1] {
            if let Some(p) = &self.entries[i]
                && p.generation == generation
                && p.subject == subject
            {
                self.last = i;
                return self.at(i);
            }
        }
        self.make(subject, generation, fill)
    }

    fn place(&self, subject: &[u8]) -> usize {
        hash(subject) as usize & (self.entries.len() - 1)
    }

    fn make(&mut self, subject: &[u8], generation: u64, fill: impl FnOnce(&mut Plan)) -> &Plan {
        if self.used * 4 > self.entries.len() * 3 && self.entries.len() < ENTRIES_MAX {
            self.grow();
        }
        if self.receivers > RECEIVERS_MAX {
            self.clear();
            self.entries.resize_with(4, || None);
        }
        let i = self.place(subject);
        // An empty place, or a stale plan, or the one that was not used last.
        let score = |i: usize| match &self.entries[i] {
            None => 0,
            Some(p) if p.generation != generation => 1,
            Some(_) => 2 + usize::from(i == self.last),
        };
        let i = if score(i) <= score(i ^ 1) { i } else { i ^ 1 };
        let mut plan = match self.entries[i].take() {
            Some(p) => {
                self.receivers -= p.matched.len();
                p
            }
            None => {
                self.used += 1;
                Box::default()
            }
        };
        plan.subject.clear();
        plan.subject.extend_from_slice(subject);
        plan.generation = generation;
        plan.matched.clear();
        fill(&mut plan);
        self.receivers += plan.matched.len();
        self.last = i;
        self.entries[i] = Some(plan);
        self.at(i)
    }

    fn grow(&mut self) {
        let bigger = self.entries.len() * 4;
        let old = std::mem::take(&mut self.entries);
        self.entries.resize_with(bigger, || None);
        (self.used, self.receivers, self.last) = (0, 0, 0);
        for p in old.into_iter().flatten() {
            let i = self.place(&p.subject);
            if let Some(i) = [i, i ^ 1].into_iter().find(|&i| self.entries[i].is_none()) {
                self.used += 1;
                self.receivers += p.matched.len();
                self.entries[i] = Some(p);
            }
        }
    }

    /// Forgets everything (other account, other permissions).
    pub fn clear(&mut self) {
        *self = Plans::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_made_once_a_generation() {
        let mut plans = Plans::default();
        let mut made = 0;
        for generation in [1, 1, 2, 2] {
            for s in ["a", "b", "a"] {
                let p = plans.get(s.as_bytes(), generation, |p| {
                    made += 1;
                    p.allowed = true;
                });
                assert!(p.allowed && p.subject == s.as_bytes());
            }
        }
        assert_eq!(made, 4);
    }

    #[test]
    fn a_family_is_looked_up_twice() {
        let mut plans = Plans::default();
        let mut made = 0;
        let named = |s: &str| s == "a.b.7";
        let mut get = |s: &str, generation| {
            let before = made;
            let fill = |p: &mut Plan| {
                made += 1;
                p.allowed = s.len() > 2;
                (!named(s) && s.len() > 4 && s.starts_with("a.b.")).then_some(4)
            };
            let is_named = |n: Named<'_>| match n {
                Named::Subject(s) => named(str::from_utf8(s).expect("a text")),
                Named::Prefix(p) => "a.b.7".as_bytes().starts_with(p),
            };
            let p = plans.get_wide(s.as_bytes(), generation, is_named, fill);
            assert_eq!(p.allowed, s.len() > 2, "{s}");
            made - before
        };
        assert_eq!((get("a.b.1", 1), get("a.b.2", 1), get("a.b.3", 1), get("a.b.44", 1)), (1, 1, 0, 0));
        // Others: as many tokens but another beginning, more tokens, an empty one, one that somebody named.
        assert_eq!((get("a.c.3", 1), get("a.b.3.4", 1), get("a.b.", 1), get("a.b.7", 1)), (1, 1, 1, 1));
        assert_eq!((get("a.b.5", 1), get("a.b.6", 2), get("a.b.8", 2), get("a.b.9", 2)), (0, 1, 1, 0));
        assert!(plans.wide.len() <= WIDE_MAX);
    }

    #[test]
    fn dots_are_counted_between_tokens() {
        let all = ["a", "a.b", "a..b", ".a", "a.", "", "$JS.x.1"];
        let counted = all.map(|s| dots(s.as_bytes()));
        assert_eq!(counted, [Some(0), Some(1), None, None, None, None, Some(2)]);
    }

    #[test]
    fn a_family_without_names_is_not_asked_for_them() {
        let (mut plans, asked) = (Plans::default(), std::cell::Cell::new(0));
        let is_named = |n: Named<'_>| {
            asked.set(asked.get() + usize::from(matches!(n, Named::Subject(_))));
            false
        };
        for i in 0..100 {
            plans.get_wide(format!("a.{i}").as_bytes(), 1, is_named, |_| Some(2));
        }
        assert_eq!((asked.get(), plans.wide.len()), (0, 1));
    }

    proptest::proptest! {
        #[test]
        fn dots_are_counted_as_one_by_one(s in "[ab.]{0,40}") {
            let tokens: Vec<&str> = s.split('.').collect();
            let want = tokens.iter().all(|t| !t.is_empty()).then_some(tokens.len() - 1);
            proptest::prop_assert_eq!(dots(s.as_bytes()), want);
        }
    }

    #[test]
    fn ever_new_subjects_stay_bounded_and_right() {
        let mut plans = Plans::default();
        for i in 0..20_000u32 {
            let s = format!("s.{i}");
            let p = plans.get(s.as_bytes(), 1, |p| p.allowed = i % 2 == 0);
            assert_eq!(p.allowed, i % 2 == 0);
        }
        assert!(plans.entries.len() <= ENTRIES_MAX && plans.used <= plans.entries.len());
    }
}
