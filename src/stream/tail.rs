//! The tail: what is decided and not yet applied.
//!
//! Owns the subjects, sequences and sizes of those messages, so that a decision sees them as if they were stored. Does not own their
//! bytes: those are in the shell's batch. Adding one allocates nothing once the buffers have grown.

use std::collections::VecDeque;

use keyed::hash;

use crate::arena::Arena;

#[derive(Clone, Copy, Debug)]
struct Item {
    seq: u64,
    /// The subject's place.
    at: u64,
    len: u32,
    /// What it counts for in `max_bytes`.
    size: u32,
    /// It removes messages of other subjects too.
    sweeps: bool,
    /// It is a schedule.
    schedule: bool,
}

/// What is decided and not yet applied.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tail {
    items: VecDeque<Item>,
    /// The subjects' hashes, apart: looking one up reads nothing else.
    hashes: VecDeque<u64>,
    subjects: Arena,
    bytes: u64,
    sweeping: u32,
}

/// A message for the tail.
#[derive(Clone, Copy, Debug)]
pub(crate) struct New<'a> {
    pub seq: u64,
    pub subject: &'a [u8],
    pub size: u64,
    pub sweeps: bool,
    pub schedule: bool,
}

impl Tail {
    pub fn len(&self) -> usize {
        self.items.len()
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The first sequence in it.
    pub fn first(&self) -> Option<u64> {
        self.items.front().map(|i| i.seq)
    }

    /// What they all count for.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether some message in it removes messages of other subjects.
    pub fn sweeps(&self) -> bool {
        self.sweeping > 0
    }

    pub fn push(&mut self, m: New<'_>) {
        let at = self.subjects.push(m.subject);
        // A message is far below 4 GiB; what it counts for too.
        let size = u32::try_from(m.size).unwrap_or(u32::MAX);
        self.hashes.push_back(hash(m.subject));
        self.items.push_back(Item {
            seq: m.seq,
            at,
            len: m.subject.len() as u32,
            size,
            sweeps: m.sweeps,
            schedule: m.schedule,
        });
        self.bytes += u64::from(size);
        self.sweeping += u32::from(m.sweeps);
    }

    fn forget(&mut self, item: &Item) {
        self.bytes -= u64::from(item.size);
        self.sweeping -= u32::from(item.sweeps);
    }

    /// All up to `seq` have been applied.
    pub fn applied(&mut self, seq: u64) {
        let mut end = None;
        while let Some(item) = self.items.front().filter(|i| i.seq <= seq).copied() {
            self.items.pop_front();
            self.hashes.pop_front();
            self.forget(&item);
            end = Some(item.at + u64::from(item.len));
        }
        if let Some(end) = end {
            self.subjects.free_to(end);
        }
    }

    /// Takes back the latest until `len` are left.
    pub fn truncate(&mut self, len: usize) {
        while self.items.len() > len {
            let Some(item) = self.items.pop_back() else { return };
            self.hashes.pop_back();
            self.forget(&item);
            self.subjects.truncate(item.at);
        }
    }

    fn subject(&self, item: &Item) -> &[u8] {
        self.subjects.get(item.at, item.len as usize)
    }

    fn find(&self, subject: &[u8]) -> Option<&Item> {
        let h = hash(subject);
        let (a, b) = self.hashes.as_slices();
        let mut upto = self.hashes.len();
        loop {
            let at = if upto > a.len() {
                b[..upto - a.len()].iter().rposition(|x| *x == h).map(|i| i + a.len())
            } else {
                None
            };
            let at = at.or_else(|| a[..upto.min(a.len())].iter().rposition(|x| *x == h))?;
            let item = &self.items[at];
            if self.subject(item) == subject {
                return Some(item);
            }
            upto = at;
        }
    }

    /// The last message of a literal subject.
    pub fn last(&self, subject: &[u8]) -> Option<u64> {
        self.find(subject).map(|i| i.seq)
    }

    /// Whether the last message of a literal subject is a schedule; `None` if there is no message.
    pub fn is_schedule(&self, subject: &[u8]) -> Option<bool> {
        self.find(subject).map(|i| i.schedule)
    }

    /// The last message of any subject that matches.
    pub fn last_matching(&self, filter: &[u8]) -> Option<u64> {
        self.items.iter().rev().find(|i| subject::matches(self.subject(i), filter)).map(|i| i.seq)
    }

    /// How many messages of a literal subject there are.
    pub fn count(&self, subject: &[u8]) -> u64 {
        let h = hash(subject);
        let same = |(x, i): (&u64, &Item)| *x == h && self.subject(i) == subject;
        self.hashes.iter().zip(&self.items).filter(|(x, i)| same((x, i))).count() as u64
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn knows_what_a_list_knows(steps in proptest::collection::vec((0u8..10, 0u8..5, 1u64..9), 1..200)) {
            let mut tail = Tail::default();
            let mut list: Vec<(u64, String, u64, bool)> = Vec::new();
            let mut seq = 0;
            for (what, subject, n) in steps {
                match what {
                    0 => {
                        let upto = list.get(n as usize).map_or(seq, |m| m.0);
                        tail.applied(upto);
                        list.retain(|m| m.0 > upto);
                    }
                    1 => {
                        let keep = list.len().saturating_sub(n as usize);
                        tail.truncate(keep);
                        list.truncate(keep);
                    }
                    _ => {
                        seq += n;
                        let name = format!("s.{subject}");
                        tail.push(New { seq, subject: name.as_bytes(), size: n, sweeps: n == 8, schedule: n == 2 });
                        list.push((seq, name, n, n == 8));
                    }
                }
                prop_assert_eq!(tail.len(), list.len());
                prop_assert_eq!(tail.bytes(), list.iter().map(|m| m.2).sum::<u64>());
                prop_assert_eq!(tail.sweeps(), list.iter().any(|m| m.3));
                for s in 0..5 {
                    let name = format!("s.{s}");
                    let last = list.iter().rev().find(|m| m.1 == name);
                    prop_assert_eq!(tail.last(name.as_bytes()), last.map(|m| m.0));
                    prop_assert_eq!(tail.is_schedule(name.as_bytes()), last.map(|m| m.2 == 2));
                    prop_assert_eq!(tail.count(name.as_bytes()), list.iter().filter(|m| m.1 == name).count() as u64);
                }
                prop_assert_eq!(tail.last_matching(b"s.*"), list.last().map(|m| m.0));
            }
        }
    }
}
