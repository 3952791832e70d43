//! a read sees everything that a client was told of before it began.

use std::collections::BTreeMap;

use raft::{LogIndex, Read};

use super::{Oracle, Violation, ensure};

/// What was acknowledged when each read began.
#[derive(Debug, Default)]
pub struct ReadsFresh {
    open: BTreeMap<u64, LogIndex>,
    /// Answers, by lease and by round.
    pub served: (u64, u64),
}

impl ReadsFresh {
    /// A read begins.
    pub fn begin(&mut self, id: u64, oracle: &Oracle) {
        self.open.insert(id, oracle.acked);
    }

    /// It is answered.
    pub fn check(&mut self, read: &Read) -> Result<(), Violation> {
        let floor = self.open.remove(&read.id);
        if let (Some(index), Some(floor)) = (read.index, floor) {
            ensure!(
                index >= floor,
                "R-11",
                "a read sees {} after {} was acknowledged (lease: {})",
                index.0,
                floor.0,
                read.lease
            );
            if read.lease {
                self.served.0 += 1;
            } else {
                self.served.1 += 1;
            }
        }
        Ok(())
    }
}
