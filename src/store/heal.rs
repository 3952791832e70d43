//! Messages that are damaged here and that somebody else has.
//!
//! Owns the records that the layer above brought for such messages, in memory. Whoever reads a message that lies below the checkpoint, where no log can be filled
//! any more, and finds it damaged is answered with the very record, if anybody has it. What is on the disk stays as it is and is named as damage: after a
//! restart the record is brought again when it is read.
//!
//! - S-113: what was brought for a damaged message answers for it only if its own checksum, which covers group and sequence, is right.

use std::{collections::BTreeMap, future::Future, pin::Pin, time::Duration};

use bytes::Bytes;
use env::time::Instant;

use crate::{
    group::Place,
    record::Message,
    shard::Shard,
    store::Group,
    types::{Error, GroupId, Result, StreamSeq},
};

/// Bytes of records that are kept in a shard; those of the lowest groups and sequences go first, and are brought again.
const HELD_BYTES: usize = 64 << 20;
/// What a record counts beside its bytes.
const RECORD_COST: usize = 128;
/// Sequences that nobody gave are looked through when there are more.
const MISSING_MANY: usize = 1000;
/// After this long who had nothing is asked again.
const AGAIN: Duration = Duration::from_secs(2);

/// Who brings what is damaged here.
pub trait Healer: Send + Sync {
    /// The record of a message from somebody else who has it ([`Group::record`]); `None` if nobody gives it. Must not read the message here.
    fn record(
        &self,
        group: GroupId,
        seq: StreamSeq,
    ) -> Pin<Box<dyn Future<Output = Option<Bytes>> + Send + '_>>;
}

/// What was brought.
#[derive(Default)]
pub(crate) struct Healed {
    records: BTreeMap<(GroupId, StreamSeq), Bytes>,
    bytes: usize,
    /// What nobody gave, and when it is asked for again.
    missing: BTreeMap<(GroupId, StreamSeq), Instant>,
}

fn cost(r: &Bytes) -> usize {
    r.len() + RECORD_COST
}

impl Healed {
    fn put(&mut self, group: GroupId, seq: StreamSeq, r: Bytes) {
        self.bytes += cost(&r);
        let before = self.records.insert((group, seq), r);
        self.bytes -= before.as_ref().map_or(0, cost);
        while self.bytes > HELD_BYTES && self.records.len() > 1 {
            let at = self.records.keys().find(|k| **k != (group, seq)).copied();
            let gone = at.and_then(|k| self.records.remove(&k));
            self.bytes -= gone.as_ref().map_or(0, cost);
        }
    }
}

impl Shard {
    /// The record of a message that is damaged here.
    pub(crate) async fn heal(&self, group: GroupId, seq: StreamSeq) -> Option<Bytes> {
        let healer = self.healer.get()?;
        let at = (group, seq);
        {
            let mut healed = self.healed.lock();
            if let Some(r) = healed.records.get(&at) {
                return Some(r.clone());
            }
            let now = env::now();
            if healed.missing.get(&at).is_some_and(|due| *due > now) {
                return None;
            }
            if healed.missing.len() > MISSING_MANY {
                healed.missing.retain(|_, due| *due > now);
            }
        }
        // S-113
        let right = |r: &Bytes| Message::decode(group, r).is_some_and(|m| m.seq == seq);
        let found = healer.record(group, seq).await.filter(right);
        let mut healed = self.healed.lock();
        match &found {
            Some(r) => healed.put(group, seq, r.clone()),
            None => drop(healed.missing.insert(at, env::now() + AGAIN)),
        }
        found
    }
}

impl Group {
    /// A message's record as it is here, for somebody else whose own is damaged; `None` if it is not here, or damaged here too.
    ///
    /// # Errors
    /// What the disk said.
    pub async fn record(&self, seq: StreamSeq) -> Result<Option<Bytes>> {
        loop {
            let place = self.state.lock().place(seq);
            let p = match place {
                Place::Here(r) => return Ok(Some(r)),
                Place::Piece(p) => p,
                Place::Absent | Place::Lost(_) => return Ok(None),
            };
            match self.shard.message(&p.meta, seq).await {
                Ok(r) => return Ok(Some(r)),
                // Rewritten while it was read.
                Err(Error::Damaged(_)) if !self.state.lock().has_piece(&p.meta) => {}
                Err(Error::Damaged(_)) => {
                    return Ok(self.shard.healed.lock().records.get(&(self.id(), seq)).cloned());
                }
                Err(e) => return Err(e),
            }
        }
    }
}

#[cfg(test)]
#[path = "heal_tests.rs"]
mod tests;
