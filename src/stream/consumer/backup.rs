//! A consumer's state as backups have it: the JSON that nats-server's archives carry.
//!
//! Owns the translation between that and a [`Ledger`]. What an archive says is checked, never trusted.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::delta::{self, Damaged};
use super::ledger::Ledger;

/// A pair of numbers: of deliveries and of messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Pair {
    /// Of deliveries.
    pub consumer_seq: u64,
    /// Of messages.
    pub stream_seq: u64,
}

/// A message whose ack is awaited.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Pending {
    /// Its first delivery.
    pub sequence: u64,
    /// When it was delivered, nanoseconds since 1970.
    pub timestamp: i64,
}

/// What an archive says of a consumer besides its configuration.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// What was delivered last.
    pub delivered: Pair,
    /// Up to where all is acknowledged.
    pub ack_floor: Pair,
    /// Awaited acks, by message.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub pending: BTreeMap<u64, Pending>,
    /// How often messages were delivered again.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub redelivered: BTreeMap<u64, u64>,
}

impl State {
    /// Of a consumer's ledger, written at a time.
    pub fn of(l: &Ledger, now: i64) -> State {
        let again = |n: u32| u64::from(n.saturating_sub(1));
        let twice = l.iter().filter(|e| e.deliveries > 1).map(|e| (e.seq, again(e.deliveries)));
        let given_up = l.exceeded.iter().map(|(seq, n)| (*seq, again(*n).max(1)));
        State {
            delivered: Pair { consumer_seq: l.dseq - 1, stream_seq: l.delivered },
            ack_floor: Pair { consumer_seq: l.ack_dseq, stream_seq: l.ack_seq },
            pending: l.iter().map(|e| (e.seq, Pending { sequence: e.dseq, timestamp: now })).collect(),
            redelivered: twice.chain(given_up).collect(),
        }
    }

    /// Whether nothing was delivered: such a consumer begins as its configuration says.
    pub fn is_untouched(&self) -> bool {
        self.delivered.consumer_seq == 0 && self.pending.is_empty()
    }

    /// What [`super::Consumer::restore`] takes.
    ///
    /// # Errors
    /// If it cannot be any consumer's state.
    pub fn snapshot(&self) -> Result<Bytes, Damaged> {
        let (given, floor) = (self.delivered, self.ack_floor);
        let next = |n: u64| n.checked_add(1).filter(|n| *n < u64::MAX).ok_or(Damaged);
        let mut l = Ledger::starting_at(next(given.stream_seq)?);
        l.dseq = next(given.consumer_seq)?;
        if floor.consumer_seq >= l.dseq || floor.stream_seq > given.stream_seq {
            return Err(Damaged);
        }
        (l.ack_dseq, l.ack_seq) = (floor.consumer_seq, floor.stream_seq);
        // A message's number of delivery must be below that of the next one: what was delivered again may have a later one there.
        let mut entries = Vec::with_capacity(self.pending.len());
        let mut below = l.dseq;
        for (seq, p) in self.pending.iter().rev() {
            let dseq = p.sequence.min(below - 1);
            if dseq == 0 || *seq <= floor.stream_seq || *seq > given.stream_seq {
                return Err(Damaged);
            }
            entries.push((*seq, dseq));
            below = dseq;
        }
        let times = |seq: &u64| {
            let again = self.redelivered.get(seq).copied().unwrap_or(0);
            u32::try_from(again.saturating_add(1)).unwrap_or(u32::MAX)
        };
        for (seq, dseq) in entries.into_iter().rev() {
            if !l.restore_entry(seq, dseq, times(&seq)) {
                return Err(Damaged);
            }
        }
        let given_up = self.redelivered.keys().filter(|seq| !self.pending.contains_key(seq));
        for seq in given_up.filter(|seq| **seq > 0 && **seq <= given.stream_seq) {
            l.exceeded.insert(*seq, times(seq));
        }
        // It has begun, and what is replayed at the original pace lies behind it.
        let mut bytes = vec![1, 0];
        bytes.extend(delta::snapshot(&l));
        Ok(bytes.into())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RECORDED: &str = r#"{"delivered":{"consumer_seq":6,"stream_seq":8},"ack_floor":{"consumer_seq":2,"stream_seq":2},"pending":{"3":{"Sequence":3,"Timestamp":1795271697767366269},"8":{"Sequence":5,"Timestamp":1795271697991393451}},"redelivered":{"8":1}}"#;

    fn ledger(s: &State) -> Ledger {
        delta::restore(&s.snapshot().unwrap()[2..]).unwrap()
    }

    #[test]
    fn what_nats_server_writes_is_read_and_written_alike() {
        let s: State = serde_json::from_str(RECORDED).unwrap();
        assert_eq!(serde_json::to_string(&s).unwrap(), RECORDED);
        let l = ledger(&s);
        assert!(l.is_sound());
        assert_eq!((l.next_seq, l.dseq, l.delivered, l.ack_dseq, l.ack_seq), (9, 7, 8, 2, 2));
        let all: Vec<_> = l.iter().map(|e| (e.seq, e.dseq, e.deliveries)).collect();
        assert_eq!(all, [(3, 3, 1), (8, 5, 2)]);
        let mut again = State::of(&l, 0);
        again.pending.iter_mut().for_each(|(seq, p)| p.timestamp = s.pending[seq].timestamp);
        assert_eq!(again, s);
    }

    #[test]
    fn given_up_messages_and_odd_numbers_come_back() {
        let mut s: State = serde_json::from_str(RECORDED).unwrap();
        s.redelivered.insert(5, 3);
        s.pending.insert(4, Pending { sequence: 6, timestamp: 0 });
        let l = ledger(&s);
        assert!(l.is_sound());
        assert_eq!(l.exceeded.get(&5), Some(&4));
        assert_eq!(State::of(&l, 0).redelivered, s.redelivered);
        for wrong in [
            State { ack_floor: Pair { consumer_seq: 7, stream_seq: 2 }, ..s.clone() },
            State { ack_floor: Pair { consumer_seq: 2, stream_seq: 3 }, ..s.clone() },
            State { delivered: Pair { consumer_seq: 6, stream_seq: u64::MAX }, ..s.clone() },
            State { delivered: Pair { consumer_seq: 2, stream_seq: 8 }, ..s.clone() },
        ] {
            assert_eq!(wrong.snapshot(), Err(Damaged), "{wrong:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn whatever_is_read_is_sound(
            n in prop::array::uniform4(0u64..12),
            pending in prop::collection::btree_map(0u64..14, 0u64..14, 0..5),
            redelivered in prop::collection::btree_map(0u64..14, 0u64..5, 0..4),
        ) {
            let pending = pending.into_iter().map(|(s, d)| (s, Pending { sequence: d, timestamp: 1 })).collect();
            let s = State {
                delivered: Pair { consumer_seq: n[0], stream_seq: n[1] },
                ack_floor: Pair { consumer_seq: n[2], stream_seq: n[3] },
                pending,
                redelivered,
            };
            if let Ok(b) = s.snapshot() {
                prop_assert!(delta::restore(&b[2..]).unwrap().is_sound());
            }
        }
    }
}
