//! Control entries of a stream's log: what happens to a stream besides messages, in its own versioned codec.
//!
//! Owns the bytes of `store`'s control entries. Does not say what a command does: that is [`crate::stream`] and, for consumers'
//! deltas, [`crate::consumer`]. Decoding never panics, and takes nothing that encoding would not write.
//!
//! Layout: version (1 byte), kind (1 byte), the leader's time (8 bytes, little-endian), then the fields: numbers as LEB128, bytes and
//! texts with their length before them. A reader refuses what is left over.

use crate::codec::{Reader, put_bytes, put_number};
use bytes::Bytes;

/// The version of the codec.
const VERSION: u8 = 1;

/// A control entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Control {
    /// When the leader made it, in nanoseconds since 1970.
    pub time: i64,
    /// What is to happen.
    pub command: Command,
}

/// What is to happen to a stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    /// The configuration, checked, as JSON. The first entry of every stream's log is one.
    Config {
        /// A [`crate::config::StreamConfig`].
        json: Bytes,
        /// When the stream was created, in nanoseconds since 1970.
        created: i64,
    },
    /// Messages go by subject, sequence or number.
    Purge {
        /// Which subjects; empty for all.
        filter: Bytes,
        /// Only messages before this sequence; 0 for no such bound.
        below: u64,
        /// So many of the latest stay; 0 for none.
        keep: u64,
    },
    /// One message goes, because a client says so.
    Delete {
        /// Which.
        seq: u64,
        /// Its bytes are to be overwritten too.
        erase: bool,
    },
    /// Messages go, because nobody needs them any more. Rising.
    Remove {
        /// Which.
        seqs: Vec<u64>,
    },
    /// All messages go that have expired at this time, in nanoseconds since 1970.
    Expire {
        /// When.
        at: i64,
    },
    /// The next message gets the sequence after this one, or a higher one.
    Advance {
        /// The last sequence that is not to be given any more.
        last: u64,
    },
    /// A consumer comes to be.
    ConsumerCreate {
        /// Its name.
        name: Bytes,
        /// When, in nanoseconds since 1970.
        created: i64,
        /// Its configuration, checked, as JSON.
        json: Bytes,
    },
    /// A consumer's configuration changes.
    ConsumerUpdate {
        /// Its name.
        name: Bytes,
        /// Its configuration, checked, as JSON.
        json: Bytes,
    },
    /// A consumer goes.
    ConsumerDelete {
        /// Its name.
        name: Bytes,
    },
    /// A consumer's state moves on.
    ConsumerDelta {
        /// Its name.
        name: Bytes,
        /// In the consumers' own codec.
        delta: Bytes,
    },
    /// Several consumers' states move on: what one activity gathered.
    ConsumerDeltas {
        /// Names and deltas.
        deltas: Vec<(Bytes, Bytes)>,
    },
    /// A consumer comes to be with a state that it had elsewhere: from a backup.
    ConsumerRestore {
        /// Its name.
        name: Bytes,
        /// When, in nanoseconds since 1970.
        created: i64,
        /// Its configuration, checked, as JSON.
        json: Bytes,
        /// As [`crate::consumer::Consumer::snapshot`] has it.
        state: Bytes,
    },
}

const CONFIG: u8 = 1;
const PURGE: u8 = 2;
const DELETE: u8 = 3;
const REMOVE: u8 = 4;
const EXPIRE: u8 = 5;
const ADVANCE: u8 = 6;
const CONSUMER_CREATE: u8 = 7;
const CONSUMER_UPDATE: u8 = 8;
const CONSUMER_DELETE: u8 = 9;
const CONSUMER_DELTA: u8 = 10;
const CONSUMER_DELTAS: u8 = 11;
const CONSUMER_RESTORE: u8 = 12;

impl Control {
    /// The bytes of the entry.
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(64);
        out.push(VERSION);
        out.push(self.command.kind());
        out.extend_from_slice(&self.time.to_le_bytes());
        match &self.command {
            Command::Config { json, created } => {
                out.extend_from_slice(&created.to_le_bytes());
                put_bytes(&mut out, json);
            }
            Command::Purge { filter, below, keep } => {
                put_bytes(&mut out, filter);
                put_number(&mut out, *below);
                put_number(&mut out, *keep);
            }
            Command::Delete { seq, erase } => {
                put_number(&mut out, *seq);
                out.push(u8::from(*erase));
            }
            Command::Remove { seqs } => {
                put_number(&mut out, seqs.len() as u64);
                let mut before = 0;
                for seq in seqs {
                    put_number(&mut out, seq.wrapping_sub(before));
                    before = *seq;
                }
            }
            Command::Expire { at } => out.extend_from_slice(&at.to_le_bytes()),
            Command::Advance { last } => put_number(&mut out, *last),
            Command::ConsumerCreate { name, created, json } => {
                put_bytes(&mut out, name);
                out.extend_from_slice(&created.to_le_bytes());
                put_bytes(&mut out, json);
            }
            Command::ConsumerUpdate { name, json } => {
                put_bytes(&mut out, name);
                put_bytes(&mut out, json);
            }
            Command::ConsumerDelete { name } => put_bytes(&mut out, name),
            Command::ConsumerDelta { name, delta } => {
                put_bytes(&mut out, name);
                put_bytes(&mut out, delta);
            }
            Command::ConsumerDeltas { deltas } => {
                put_number(&mut out, deltas.len() as u64);
                for (name, delta) in deltas {
                    put_bytes(&mut out, name);
                    put_bytes(&mut out, delta);
                }
            }
            Command::ConsumerRestore { name, created, json, state } => {
                put_bytes(&mut out, name);
                out.extend_from_slice(&created.to_le_bytes());
                put_bytes(&mut out, json);
                put_bytes(&mut out, state);
            }
        }
        out.into()
    }

    /// Reads an entry; `None` if it is none of ours. What it returns shares `entry`'s memory.
    pub fn decode(entry: &Bytes) -> Option<Control> {
        let mut r = Reader(entry);
        if r.u8()? != VERSION {
            return None;
        }
        let kind = r.u8()?;
        let time = r.i64()?;
        let share = |b: &[u8]| entry.slice_ref(b);
        let command = match kind {
            CONFIG => {
                let created = r.i64()?;
                Command::Config { created, json: share(r.bytes()?) }
            }
            PURGE => Command::Purge { filter: share(r.bytes()?), below: r.number()?, keep: r.number()? },
            DELETE => {
                let seq = r.number()?;
                Command::Delete { seq, erase: bool_of(r.u8()?)? }
            }
            REMOVE => {
                let n = r.count(1)?;
                let mut seqs = Vec::with_capacity(n);
                let mut before = 0u64;
                for _ in 0..n {
                    before = before.checked_add(r.number()?)?;
                    seqs.push(before);
                }
                Command::Remove { seqs }
            }
            EXPIRE => Command::Expire { at: r.i64()? },
            ADVANCE => Command::Advance { last: r.number()? },
            CONSUMER_CREATE => {
                let name = share(r.bytes()?);
                Command::ConsumerCreate { name, created: r.i64()?, json: share(r.bytes()?) }
            }
            CONSUMER_UPDATE => Command::ConsumerUpdate { name: share(r.bytes()?), json: share(r.bytes()?) },
            CONSUMER_DELETE => Command::ConsumerDelete { name: share(r.bytes()?) },
            CONSUMER_DELTA => Command::ConsumerDelta { name: share(r.bytes()?), delta: share(r.bytes()?) },
            CONSUMER_DELTAS => {
                let n = r.count(2)?;
                let mut deltas = Vec::with_capacity(n);
                for _ in 0..n {
                    deltas.push((share(r.bytes()?), share(r.bytes()?)));
                }
                Command::ConsumerDeltas { deltas }
            }
            CONSUMER_RESTORE => {
                let (name, created) = (share(r.bytes()?), r.i64()?);
                Command::ConsumerRestore { name, created, json: share(r.bytes()?), state: share(r.bytes()?) }
            }
            _ => return None,
        };
        r.end()?;
        Some(Control { time, command })
    }
}

fn bool_of(b: u8) -> Option<bool> {
    match b {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

impl Command {
    fn kind(&self) -> u8 {
        match self {
            Command::Config { .. } => CONFIG,
            Command::Purge { .. } => PURGE,
            Command::Delete { .. } => DELETE,
            Command::Remove { .. } => REMOVE,
            Command::Expire { .. } => EXPIRE,
            Command::Advance { .. } => ADVANCE,
            Command::ConsumerCreate { .. } => CONSUMER_CREATE,
            Command::ConsumerUpdate { .. } => CONSUMER_UPDATE,
            Command::ConsumerDelete { .. } => CONSUMER_DELETE,
            Command::ConsumerDelta { .. } => CONSUMER_DELTA,
            Command::ConsumerDeltas { .. } => CONSUMER_DELTAS,
            Command::ConsumerRestore { .. } => CONSUMER_RESTORE,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all() -> Vec<Command> {
        let b = Bytes::from_static;
        vec![
            Command::Config { json: b(b"{}"), created: -5 },
            Command::Purge { filter: b(b"a.>"), below: 300, keep: 0 },
            Command::Delete { seq: u64::MAX, erase: true },
            Command::Remove { seqs: vec![1, 2, 1 << 40, u64::MAX] },
            Command::Expire { at: i64::MAX },
            Command::Advance { last: 127 },
            Command::ConsumerCreate { name: b(b"c"), created: 1, json: b(b"{}") },
            Command::ConsumerUpdate { name: b(b"c"), json: b(b"") },
            Command::ConsumerDelete { name: b(b"c") },
            Command::ConsumerDelta { name: b(b"c"), delta: b(b"\x00\xff") },
            Command::ConsumerDeltas { deltas: vec![(b(b"a"), b(b"1")), (b(b"b"), b(b""))] },
            Command::ConsumerRestore { name: b(b"c"), created: 1, json: b(b"{}"), state: b(b"\x01\x00") },
        ]
    }

    #[test]
    fn commands_come_back() {
        for command in all() {
            let c = Control { time: 1_700_000_000_000_000_000, command };
            let bytes = c.encode();
            assert_eq!(Control::decode(&bytes), Some(c), "{bytes:?}");
            for cut in 0..bytes.len() {
                assert_eq!(Control::decode(&bytes.slice(..cut)), None);
            }
            let mut longer = bytes.to_vec();
            longer.push(0);
            assert_eq!(Control::decode(&longer.into()), None);
        }
    }

    #[test]
    fn the_bytes_stay_what_they_are() {
        let c = Control {
            time: 1,
            command: Command::Purge { filter: Bytes::from_static(b"a"), below: 300, keep: 2 },
        };
        assert_eq!(&c.encode()[..], [1, 2, 1, 0, 0, 0, 0, 0, 0, 0, 1, b'a', 0xac, 2, 2]);
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_was_written(raw in proptest::collection::vec(any::<u8>(), 0..60), kind in 0u8..14) {
            let mut b = vec![1, kind];
            b.extend(raw);
            let b = Bytes::from(b);
            if let Some(c) = Control::decode(&b) {
                prop_assert_eq!(c.encode(), b);
            }
        }
    }
}
