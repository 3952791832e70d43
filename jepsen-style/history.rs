//! What clients did and saw, and what was done to the servers: a list of records, a line of JSON each.
//!
//! An operation is invoked, and completed at most once:
//! * `ok`: it took effect, and the record says with which result;
//! * `fail`: it certainly took no effect, now or later;
//! * `info`: nobody knows; it may take effect at any time from then on, or never. An operation that was never completed
//!   is the same.
//!
//! What is no operation (a message of the final reading, a delivery, a fault) is a `note`.

use std::{
    collections::BTreeMap,
    io::{self, BufRead, Write},
};

use serde::{Deserialize, Serialize};

/// What a record says of its operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Event {
    /// It begins.
    Invoke,
    /// It took effect.
    Ok,
    /// It took no effect and never will.
    Fail,
    /// Nobody knows.
    Info,
    /// No operation: something that was seen or done at one moment.
    Note,
}

/// An operation, with what is known of its result.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub enum Op {
    /// A message is published to the log; `v` is its own, never given to another.
    Append {
        /// Value.
        v: u64,
        /// Stream sequence, once acknowledged.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        seq: Option<u64>,
    },
    /// A message of the log, read after everything (note).
    Entry {
        /// Stream sequence.
        seq: u64,
        /// Value; none if the body is none that was ever written.
        v: Option<u64>,
    },
    /// The final reading came to the stream's end (note).
    Complete {
        /// Last stream sequence.
        last: u64,
    },
    /// A key is read.
    Get {
        /// Key.
        key: u64,
        /// Revision, once answered; 0 for a key that is not there.
        #[serde(default)]
        rev: u64,
        /// Value; none if the key is not there, or the body is none that was ever written.
        #[serde(default)]
        v: Option<u64>,
    },
    /// A key is written, whatever it holds.
    Put {
        /// Key.
        key: u64,
        /// Value.
        v: u64,
        /// Revision, once acknowledged.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rev: Option<u64>,
    },
    /// A key is written if its revision is `expect`.
    Cas {
        /// Key.
        key: u64,
        /// Revision that it must have; 0 for a key that is not there.
        expect: u64,
        /// Value.
        v: u64,
        /// Revision, once acknowledged.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rev: Option<u64>,
        /// The server said that the revision was another; not so if it took no effect for another reason.
        #[serde(default)]
        other: bool,
    },
    /// A message came to a worker (note).
    Deliver {
        /// Value; none if the body is none that was ever written.
        v: Option<u64>,
        /// Stream sequence.
        seq: u64,
        /// The server's count of its deliveries, this one included.
        times: u64,
        /// When the request that it answers was sent: the server cannot have sent it earlier.
        asked: u64,
    },
    /// A worker confirms a message and waits for the server's word.
    Ack {
        /// Value.
        v: u64,
        /// Stream sequence.
        seq: u64,
    },
    /// A fault begins or ends (note).
    Fault {
        /// What and where.
        what: String,
    },
    /// A phase begins (note): `load`, `calm`, `read`.
    Phase {
        /// Its name.
        name: String,
    },
}

/// A line of a history.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Record {
    /// Nanoseconds since the run's start, by one monotonic clock for all processes.
    pub t: u64,
    /// Who: clients from 0; notes of the harness use [`HARNESS`].
    pub p: u64,
    /// The operation's number; the same in both its records.
    pub id: u64,
    /// What.
    pub e: Event,
    /// Of which operation.
    #[serde(flatten)]
    pub op: Op,
}

/// The process number of the harness itself.
pub const HARNESS: u64 = u64::MAX;

/// An operation with both its ends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Done {
    /// Who.
    pub p: u64,
    /// Its number.
    pub id: u64,
    /// When it was invoked.
    pub call: u64,
    /// When it was completed; none if its outcome is unknown, so that it may take effect at any later time.
    pub ret: Option<u64>,
    /// [`Event::Ok`], [`Event::Fail`] or [`Event::Info`].
    pub outcome: Event,
    /// With its result, where it has one.
    pub op: Op,
}

/// A run's records in the order of their times.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct History {
    /// The records.
    pub records: Vec<Record>,
}

impl History {
    /// Reads lines of JSON.
    ///
    /// # Errors
    /// Those of the reader, and [`io::ErrorKind::InvalidData`] with the line's number for one that is no record.
    pub fn read(from: impl BufRead) -> io::Result<History> {
        let mut records = Vec::new();
        for (i, line) in from.lines().enumerate() {
            let line = line?;
            if line.is_empty() {
                continue;
            }
            let record = serde_json::from_str(&line)
                .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, format!("line {}: {e}", i + 1)))?;
            records.push(record);
        }
        Ok(History { records })
    }

    /// Writes lines of JSON.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn write(&self, mut to: impl Write) -> io::Result<()> {
        for r in &self.records {
            serde_json::to_writer(&mut to, r)?;
            to.write_all(b"\n")?;
        }
        to.flush()
    }

    /// Operations with both their ends, in the order of their invocations.
    pub fn ops(&self) -> Vec<Done> {
        let mut all: Vec<Done> = Vec::new();
        let mut open: BTreeMap<u64, usize> = BTreeMap::new();
        for r in &self.records {
            match r.e {
                Event::Note => {}
                Event::Invoke => {
                    open.insert(r.id, all.len());
                    all.push(Done {
                        p: r.p,
                        id: r.id,
                        call: r.t,
                        ret: None,
                        outcome: Event::Info,
                        op: r.op.clone(),
                    });
                }
                Event::Ok | Event::Fail | Event::Info => {
                    // A completion without its beginning says nothing that could be judged.
                    let Some(done) = open.remove(&r.id).and_then(|i| all.get_mut(i)) else { continue };
                    done.outcome = r.e;
                    if r.e != Event::Info {
                        done.ret = Some(r.t);
                        done.op = r.op.clone();
                    }
                }
            }
        }
        all
    }

    /// Notes, in order.
    pub fn notes(&self) -> impl Iterator<Item = &Record> {
        self.records.iter().filter(|r| r.e == Event::Note)
    }

    /// When a phase began.
    pub fn phase(&self, name: &str) -> Option<u64> {
        self.notes().find(|r| matches!(&r.op, Op::Phase { name: n } if n == name)).map(|r| r.t)
    }

    /// Nanoseconds of the load phase in which the service was away: the sum of all stretches of at least `gap` in which
    /// nothing was completed with `ok`, though clients wanted it.
    pub fn away(&self, gap: u64) -> u64 {
        let (Some(from), Some(to)) = (self.phase("load"), self.phase("calm")) else { return 0 };
        let done = self.records.iter().filter(|r| r.e == Event::Ok && r.t >= from && r.t <= to).map(|r| r.t);
        let (mut last, mut sum) = (from, 0);
        for t in done.chain([to]) {
            let stretch = t.saturating_sub(last);
            if stretch >= gap {
                sum += stretch;
            }
            last = t;
        }
        sum
    }
}

/// The body of a message: the value in hexadecimal digits, then bytes that follow from it, `size` in all (16 at least).
pub fn body(v: u64, size: usize) -> Vec<u8> {
    let mut out = format!("{v:016x}").into_bytes();
    let mut x = v ^ 0x9e37_79b9_7f4a_7c15;
    while out.len() < size {
        x = x.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        out.push(b'a' + ((x >> 33) % 26) as u8);
    }
    out
}

/// The value of a body; none if any byte differs from what was written.
pub fn value(b: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(b.get(..16)?).ok()?;
    let v = u64::from_str_radix(digits, 16).ok()?;
    (body(v, b.len()) == b).then_some(v)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rec(t: u64, id: u64, e: Event, op: Op) -> Record {
        Record { t, p: 0, id, e, op }
    }

    #[test]
    fn a_history_survives_its_text_and_pairs_its_ends() {
        let append = |seq| Op::Append { v: 7, seq };
        let h = History {
            records: vec![
                rec(0, 0, Event::Note, Op::Phase { name: "load".into() }),
                rec(1, 1, Event::Invoke, append(None)),
                rec(2, 2, Event::Invoke, Op::Get { key: 1, rev: 0, v: None }),
                rec(3, 1, Event::Ok, append(Some(4))),
                rec(4, 2, Event::Info, Op::Get { key: 1, rev: 0, v: None }),
                rec(9, 0, Event::Note, Op::Phase { name: "calm".into() }),
            ],
        };
        let mut text = Vec::new();
        h.write(&mut text).unwrap();
        assert_eq!(History::read(&text[..]).unwrap(), h);
        let ops = h.ops();
        assert_eq!((ops[0].call, ops[0].ret, &ops[0].op), (1, Some(3), &append(Some(4))));
        assert_eq!((ops[1].outcome, ops[1].ret), (Event::Info, None));
        assert_eq!((h.away(4), h.away(6), h.away(1)), (6, 6, 9));
        assert!(History::read(&b"{\"t\":1}\n"[..]).unwrap_err().to_string().contains("line 1"));
    }

    #[test]
    fn one_changed_bit_makes_a_body_foreign() {
        let good = body(0xfeed, 100);
        assert_eq!((good.len(), value(&good)), (100, Some(0xfeed)));
        for i in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[i / 8] ^= 1 << (i % 8);
            // A flipped case of a digit reads as the same number, and is found by the comparison.
            assert_eq!(value(&bad), None, "bit {i}");
        }
        assert_eq!((value(b""), value(&good[..15])), (None, None));
    }
}
