//! The record: an entry's envelope and the message records inside it. The same bytes are the replication payload, the
//! journal's frame and the segment's content. Layout: docs/design/0012-on-disk-format.md; golden bytes in the tests.
//!
//! Owns the layout of entries and messages. Does not own where they lie, or what a stream does with them.
//!
//! - S-10: nothing is read out of an envelope or a record before its own checksum was right.
//! - S-11: an envelope names its group and index, and a message's checksum covers its group, so bytes that landed in
//!   another place, or are another group's, are damage and not data.

use std::ops::Range;

use bytes::{Bytes, BytesMut};

use crate::{
    codec::{Get, u16_at, u32_at, u64_at},
    types::{Chain, GroupId, LogIndex, StreamSeq, Term},
};

/// The first bytes of every envelope: "FUE" and the high bit, which no message record's length can have.
pub(crate) const ENTRY_MAGIC: u32 = 0x8045_5546;
/// The version of the envelope and record layout that this code writes.
pub const FORMAT: u8 = 1;
/// Bytes of an envelope's header.
pub const ENTRY_HEADER: usize = 72;
/// Bytes of a message record before its optional fields.
pub const MESSAGE_HEADER: usize = 32;
/// Bytes of one message record at most.
pub const MESSAGE_MAX: usize = 1 << 30;
/// Bytes at the start of a payload of [`Kind::Messages`]: how many records, and how long they are together.
pub const PREAMBLE: usize = 8;

const FLAG_EXPIRES: u8 = 1;
const FLAG_REDACTED: u8 = 2;
const FLAGS_KNOWN: u8 = FLAG_EXPIRES | FLAG_REDACTED;

/// What an entry's payload is to the store. Numbers are on disk: append only.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Kind {
    /// A new leader's first entry; it carries nothing.
    Empty = 0,
    /// [`PREAMBLE`], message records, then bytes that belong to the layer above.
    Messages = 1,
    /// The group's members; opaque.
    Config = 2,
    /// Anything else of the layers above; opaque.
    Control = 3,
}

impl Kind {
    /// The kind with this number, if there is one.
    pub fn from_u8(n: u8) -> Option<Self> {
        Some(match n {
            0 => Self::Empty,
            1 => Self::Messages,
            2 => Self::Config,
            3 => Self::Control,
            _ => return None,
        })
    }
}

/// An entry's header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Head {
    /// What the payload is.
    pub kind: Kind,
    /// True once the entry is state and no longer log: its payload holds only what is still live, and the chain covers
    /// what it was.
    pub compacted: bool,
    /// Whose log.
    pub group: GroupId,
    /// Where in the log.
    pub index: LogIndex,
    /// The leader's reign.
    pub term: Term,
    /// The chain before this entry.
    pub prev: Chain,
    /// The chain with this entry.
    pub chain: Chain,
    /// The first message's sequence; 0 if there is none.
    pub first: StreamSeq,
    /// How many messages.
    pub count: u32,
    /// Bytes of payload.
    pub length: u32,
    /// crc32c of the payload.
    pub digest: u32,
}

impl Head {
    /// The header's bytes.
    pub fn encode(&self) -> [u8; ENTRY_HEADER] {
        let mut b = [0; ENTRY_HEADER];
        b[0..4].copy_from_slice(&ENTRY_MAGIC.to_le_bytes());
        b[4] = FORMAT;
        b[5] = self.kind as u8;
        b[6] = u8::from(self.compacted);
        for (at, v) in [
            (8, self.group.0),
            (16, self.index.0),
            (24, self.term.0),
            (32, self.prev.0),
            (40, self.chain.0),
            (48, self.first.0),
        ] {
            b[at..at + 8].copy_from_slice(&v.to_le_bytes());
        }
        b[56..60].copy_from_slice(&self.count.to_le_bytes());
        b[60..64].copy_from_slice(&self.length.to_le_bytes());
        b[64..68].copy_from_slice(&self.digest.to_le_bytes());
        let crc = checksum::crc32c(&b[..68]);
        b[68..72].copy_from_slice(&crc.to_le_bytes());
        b
    }

    /// Reads a header; `None` if it is not one or its checksum is wrong (S-10).
    pub fn decode(b: &[u8]) -> Option<Head> {
        let b = b.get(..ENTRY_HEADER)?;
        if u32_at(b, 0) != ENTRY_MAGIC || checksum::crc32c(&b[..68]) != u32_at(b, 68) || b[4] != FORMAT {
            return None;
        }
        Some(Head {
            kind: Kind::from_u8(b[5])?,
            compacted: b[6] & 1 != 0,
            group: GroupId(u64_at(b, 8)),
            index: LogIndex(u64_at(b, 16)),
            term: Term(u64_at(b, 24)),
            prev: Chain(u64_at(b, 32)),
            chain: Chain(u64_at(b, 40)),
            first: StreamSeq(u64_at(b, 48)),
            count: u32_at(b, 56),
            length: u32_at(b, 60),
            digest: u32_at(b, 64),
        })
    }

    /// The version that an envelope claims to be, for the message that refuses a newer one.
    pub fn claimed_version(b: &[u8]) -> Option<u8> {
        (b.len() >= ENTRY_HEADER && u32_at(b, 0) == ENTRY_MAGIC && b[4] != FORMAT).then(|| b[4])
    }

    /// Bytes of the whole entry.
    pub fn size(&self) -> u64 {
        ENTRY_HEADER as u64 + u64::from(self.length)
    }
}

/// One entry: its header and its payload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The header.
    pub head: Head,
    /// The payload.
    pub payload: Bytes,
}

/// What the layer above says of an entry that it appends; the store adds the rest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewEntry {
    /// What the payload is.
    pub kind: Kind,
    /// Where in the log.
    pub index: LogIndex,
    /// The leader's reign.
    pub term: Term,
    /// The chain before this entry.
    pub prev: Chain,
    /// The chain with this entry.
    pub chain: Chain,
    /// The payload; for [`Kind::Messages`] made by [`Batch`].
    pub payload: Bytes,
    /// crc32c of the payload if the proposer has computed it already; checked against the payload in either case. It covers the
    /// records and their own checksums, which were made just before it; without it each record's checksum is compared.
    pub digest: Option<u32>,
}

impl NewEntry {
    /// The entry as it will stand on disk, checked whole: this is the check at ingress and at a follower's receipt.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn seal(self, group: GroupId) -> std::result::Result<Entry, &'static str> {
        let digest = checksum::crc32c(&self.payload);
        if self.digest.is_some_and(|d| d != digest) {
            return Err("the payload is not what its proposer made");
        }
        self.sealed(group, digest)
    }

    /// The same for an entry that was proposed here: its digest was computed of these very bytes a moment ago.
    pub(crate) fn seal_own(self, group: GroupId) -> std::result::Result<Entry, &'static str> {
        let Some(digest) = self.digest else { return self.seal(group) };
        debug_assert_eq!(digest, checksum::crc32c(&self.payload), "S-10: the digest of an own entry");
        self.sealed(group, digest)
    }

    fn sealed(self, group: GroupId, digest: u32) -> std::result::Result<Entry, &'static str> {
        let Ok(length) = u32::try_from(self.payload.len()) else { return Err("the payload is too long") };
        let (first, count) = match self.kind {
            Kind::Messages => check_messages(group, &self.payload, self.digest.is_none())?,
            _ => (StreamSeq(0), 0),
        };
        let head = Head {
            kind: self.kind,
            compacted: false,
            group,
            index: self.index,
            term: self.term,
            prev: self.prev,
            chain: self.chain,
            first,
            count,
            length,
            digest,
        };
        Ok(Entry { head, payload: self.payload })
    }
}

/// Checks a payload of messages: every record whole, its checksum right if it is asked for, sequences rising.
fn check_messages(
    group: GroupId,
    payload: &[u8],
    checksums: bool,
) -> std::result::Result<(StreamSeq, u32), &'static str> {
    let (mut first, mut last, mut count) = (StreamSeq(0), StreamSeq(0), 0u32);
    let mut records = Records::of_payload(payload).ok_or("the payload's preamble is wrong")?;
    for raw in records.by_ref() {
        let raw = raw.ok_or("a record is cut off")?;
        let m = if checksums { Message::decode(group, raw) } else { Message::parse(raw) };
        let m = m.ok_or("a record's checksum is wrong")?;
        if m.seq <= last {
            return Err("sequences do not rise");
        }
        if count == 0 {
            first = m.seq;
        }
        last = m.seq;
        count += 1;
    }
    if count != records.count {
        return Err("the preamble's count is wrong");
    }
    Ok((first, count))
}

impl Entry {
    /// Reads an entry whose header was checked; `None` if the payload's checksum is wrong.
    pub fn with_payload(head: Head, payload: Bytes) -> Option<Entry> {
        (payload.len() == head.length as usize && checksum::crc32c(&payload) == head.digest)
            .then_some(Entry { head, payload })
    }

    /// The message records, each as its raw bytes. Nothing if the entry holds none.
    pub fn records(&self) -> Records<'_> {
        match self.head.kind {
            Kind::Messages => Records::of_payload(&self.payload).unwrap_or_default(),
            _ => Records::default(),
        }
    }

    /// What follows the messages in the payload, or the whole payload of another kind.
    pub fn rest(&self) -> Bytes {
        match self.head.kind {
            Kind::Messages => {
                let n = PREAMBLE + u32_at(&self.payload, 4) as usize;
                self.payload.slice(n.min(self.payload.len())..)
            }
            _ => self.payload.clone(),
        }
    }
}

/// Walks message records. Yields `None` once, and then ends, where a record does not fit in what is left.
#[derive(Clone, Default)]
pub struct Records<'a> {
    left: &'a [u8],
    /// Where the next record stands, from the start of the payload.
    pub(crate) at: usize,
    count: u32,
}

impl<'a> Records<'a> {
    /// Of a payload with its preamble.
    pub(crate) fn of_payload(payload: &'a [u8]) -> Option<Records<'a>> {
        let mut g = Get(payload);
        let count = g.u32()?;
        let len = g.u32()? as usize;
        Some(Records { left: g.take(len)?, at: PREAMBLE, count })
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Option<&'a [u8]>;
    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.left.is_empty() {
            return None;
        }
        let taken = record_len(self.left).and_then(|n| self.left.split_at_checked(n));
        match taken {
            Some((r, rest)) => {
                self.left = rest;
                self.at += r.len();
                Some(Some(r))
            }
            None => {
                self.left = &[];
                Some(None)
            }
        }
    }
}

/// The length that a record at the start of `b` claims, if it can be one.
#[inline]
pub(crate) fn record_len(b: &[u8]) -> Option<usize> {
    let n = u32_at(b.get(..4)?, 0) as usize;
    (MESSAGE_HEADER..=MESSAGE_MAX).contains(&n).then_some(n)
}

/// The sequence in a record's header, unchecked: good for finding one's way, not for an answer.
pub(crate) fn record_seq(b: &[u8]) -> Option<StreamSeq> {
    (b.len() >= MESSAGE_HEADER).then(|| StreamSeq(u64_at(b, 8)))
}

/// A message as it stands in a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Message<'a> {
    /// Its number in the stream.
    pub seq: StreamSeq,
    /// When the leader took it, in nanoseconds since 1970.
    pub time: i64,
    /// When it expires by itself, in nanoseconds since 1970; only for messages that carry a time to live.
    pub expires: Option<i64>,
    /// True if the body was securely deleted; the identity stays.
    pub redacted: bool,
    /// The subject.
    pub subject: &'a [u8],
    /// The NATS header block, empty if there is none.
    pub headers: &'a [u8],
    /// The body.
    pub body: &'a [u8],
}

impl<'a> Message<'a> {
    /// Bytes of its record.
    #[inline]
    pub fn record_size(&self) -> usize {
        let ttl = if self.expires.is_some() { 8 } else { 0 };
        MESSAGE_HEADER + ttl + self.subject.len() + self.headers.len() + self.body.len()
    }

    /// Appends its record.
    ///
    /// # Panics
    /// If the subject is longer than 65,535 bytes or the record longer than [`MESSAGE_MAX`]: the protocol's limits are
    /// far below.
    #[inline]
    pub fn encode(&self, group: GroupId, out: &mut BytesMut) {
        let len = self.record_size();
        assert!(len <= MESSAGE_MAX, "a record of {len} bytes");
        let subject_len = u16::try_from(self.subject.len()).expect("subjects are shorter than 64 KiB");
        let mut h = [0; MESSAGE_HEADER];
        h[0..4].copy_from_slice(&(len as u32).to_le_bytes());
        h[8..16].copy_from_slice(&self.seq.0.to_le_bytes());
        h[16..24].copy_from_slice(&self.time.to_le_bytes());
        h[24] = if self.expires.is_some() { FLAG_EXPIRES } else { 0 }
            | if self.redacted { FLAG_REDACTED } else { 0 };
        h[26..28].copy_from_slice(&subject_len.to_le_bytes());
        h[28..32].copy_from_slice(&(self.headers.len() as u32).to_le_bytes());
        out.reserve(len);
        let at = out.len();
        out.extend_from_slice(&h);
        if let Some(e) = self.expires {
            out.extend_from_slice(&e.to_le_bytes());
        }
        out.extend_from_slice(self.subject);
        out.extend_from_slice(self.headers);
        out.extend_from_slice(self.body);
        let crc = record_crc(group, &out[at..]);
        out[at + 4..at + 8].copy_from_slice(&crc.to_le_bytes());
    }

    /// Reads the record that `b` is; `None` if it is none of this group's or was changed (S-10, S-11).
    pub fn decode(group: GroupId, b: &'a [u8]) -> Option<Message<'a>> {
        if b.len() < MESSAGE_HEADER
            || u32_at(b, 0) as usize != b.len()
            || record_crc(group, b) != u32_at(b, 4)
        {
            return None;
        }
        Self::parse(b)
    }

    /// Reads a record that was checked before (S-10), as those of an entry in memory were when the entry was sealed.
    #[inline]
    pub fn parse(b: &'a [u8]) -> Option<Message<'a>> {
        if b.len() < MESSAGE_HEADER {
            return None;
        }
        let flags = b[24];
        if flags & !FLAGS_KNOWN != 0 {
            return None;
        }
        let mut g = Get(&b[MESSAGE_HEADER..]);
        let expires = if flags & FLAG_EXPIRES != 0 { Some(g.u64()? as i64) } else { None };
        let subject = g.take(u16_at(b, 26) as usize)?;
        let headers = g.take(u32_at(b, 28) as usize)?;
        Some(Message {
            seq: StreamSeq(u64_at(b, 8)),
            time: u64_at(b, 16) as i64,
            expires,
            redacted: flags & FLAG_REDACTED != 0,
            subject,
            headers,
            body: g.0,
        })
    }
}

fn record_crc(group: GroupId, b: &[u8]) -> u32 {
    let mut front = [0; 12];
    front[..8].copy_from_slice(&group.0.to_le_bytes());
    front[8..].copy_from_slice(&b[..4]);
    checksum::append(checksum::crc32c(&front), &b[8..])
}

/// Bytes of a record from which on its checksum is carried into that of what it stands in, instead of being computed of its bytes once more.
pub(crate) const CARRIED: usize = 16 << 10;

/// `crc` with a record behind what it covers. The record's own checksum was right a moment ago (S-10), and tells this one for a large record without a look at its bytes:
/// checksums are sums of what each part contributes, moved on by the bytes behind it.
pub(crate) fn append_record(crc: u32, group: GroupId, record: &[u8]) -> u32 {
    if record.len() < CARRIED {
        return checksum::append(crc, record);
    }
    let all = append_claimed(crc, group, record);
    debug_assert_eq!(all, checksum::append(crc, record), "S-10: a record's checksum is right");
    all
}

/// The same if the checksum that the record carries is right, and something else if it is not.
fn append_claimed(crc: u32, group: GroupId, record: &[u8]) -> u32 {
    let mut front = [0; 12];
    front[..8].copy_from_slice(&group.0.to_le_bytes());
    front[8..].copy_from_slice(&record[..4]);
    let before = checksum::append(crc, &record[..8]) ^ checksum::crc32c(&front);
    u32_at(record, 4) ^ moved_on(before, record.len() - 8)
}

/// Bytes and the checksum that they were found to have when they were read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Summed {
    /// The checksum of what stands before them.
    pub before: u32,
    /// And with them.
    pub with: u32,
}

impl Summed {
    /// Whether the record at `at` of `all` is whole and of this group (S-10, S-11). A large one is not looked at again: `all` having this checksum, the record's own is
    /// right if and only if the same comes out when it is worked out from that.
    pub(crate) fn vouches(self, group: GroupId, all: &[u8], at: &Range<usize>) -> bool {
        let record = &all[at.clone()];
        if record.len() < CARRIED || u32_at(record, 0) as usize != record.len() {
            return Message::decode(group, record).is_some();
        }
        let with = append_claimed(checksum::append(self.before, &all[..at.start]), group, record);
        checksum::append(with, &all[at.end..]) == self.with && Message::parse(record).is_some()
    }
}

/// What a difference of two checksums becomes when `bytes` more are covered by both: its polynomial times x to the power of their bits, modulo that of crc32c.
fn moved_on(crc: u32, bytes: usize) -> u32 {
    // The powers x^8, x^16, x^32 and so on.
    const POWERS: [u32; 40] = {
        let mut all = [0; 40];
        let (mut i, mut power) = (0, 1 << 23);
        while i < all.len() {
            all[i] = power;
            power = times(power, power);
            i += 1;
        }
        all
    };
    let ones = POWERS.iter().enumerate().filter(|(i, _)| bytes >> i & 1 == 1);
    ones.fold(crc, |crc, (_, power)| times(crc, *power))
}

/// The product of two polynomials modulo that of crc32c; the highest bit stands for 1, the lowest for x^31.
const fn times(a: u32, mut b: u32) -> u32 {
    let (mut product, mut bit) = (0, 1 << 31);
    while bit > 0 {
        if a & bit != 0 {
            product ^= b;
        }
        b = (b >> 1) ^ (0x82f6_3b78 & (b & 1).wrapping_neg());
        bit >>= 1;
    }
    product
}

/// Bytes that a batch reserves before it needs them, at most.
const BATCH_RESERVE_MAX: usize = (1 << 20) + (64 << 10);
/// And this part more than the one before took: batches of a busy publisher are alike and not the same, and the one that outgrows its room is copied.
const BATCH_MORE_PART: usize = 16;

/// Builds a payload of [`Kind::Messages`] in a buffer that is used again once nobody holds what was made from it.
#[derive(Debug, Default)]
pub struct Batch {
    buf: BytesMut,
    count: u32,
    group: GroupId,
    /// It holds a record that is large.
    large: bool,
    /// Bytes of the batch before: the next one is likely to need as many.
    usual: usize,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Batch {
        Batch::default()
    }
    /// Adds a message. Sequences must rise.
    #[inline]
    pub fn push(&mut self, group: GroupId, m: &Message<'_>) {
        if self.buf.is_empty() {
            // Growing on the way would copy everything again, up to once for each byte; what is left over serves later batches only if one fits.
            let wanted = (PREAMBLE + m.record_size()).max(self.usual.min(BATCH_RESERVE_MAX));
            if self.buf.capacity() < wanted {
                self.buf.reserve(wanted + wanted / BATCH_MORE_PART);
            }
            self.buf.extend_from_slice(&[0; PREAMBLE]);
        }
        let at = self.buf.len();
        m.encode(group, &mut self.buf);
        self.large |= self.buf.len() - at >= CARRIED;
        (self.group, self.count) = (group, self.count + 1);
    }
    /// A batch of records that were checked.
    pub(crate) fn of_records(records: &[Bytes]) -> Batch {
        let mut buf = BytesMut::zeroed(PREAMBLE);
        records.iter().for_each(|r| buf.extend_from_slice(r));
        Batch { buf, count: records.len() as u32, ..Batch::default() }
    }
    /// How many messages are in it.
    pub fn count(&self) -> u32 {
        self.count
    }
    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.buf.len()
    }
    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.buf.is_empty()
    }
    /// The payload, with `rest` after the messages; the batch is empty again.
    pub fn finish(&mut self, rest: &[u8]) -> Bytes {
        if self.buf.is_empty() {
            self.buf.extend_from_slice(&[0; PREAMBLE]);
        }
        let len = (self.buf.len() - PREAMBLE) as u32;
        self.buf[0..4].copy_from_slice(&self.count.to_le_bytes());
        self.buf[4..8].copy_from_slice(&len.to_le_bytes());
        self.buf.extend_from_slice(rest);
        (self.count, self.large) = (0, false);
        self.usual = self.buf.len();
        self.buf.split().freeze()
    }
    /// The same with its crc32c, for [`NewEntry::digest`].
    pub fn finish_digested(&mut self, rest: &[u8]) -> (Bytes, u32) {
        let (group, large) = (self.group, self.large);
        let payload = self.finish(rest);
        if !large {
            let digest = checksum::crc32c(&payload);
            return (payload, digest);
        }
        let (mut digest, mut end) = (checksum::crc32c(&payload[..PREAMBLE]), PREAMBLE);
        for r in Records::of_payload(&payload).unwrap_or_default().flatten() {
            (digest, end) = (append_record(digest, group, r), end + r.len());
        }
        let digest = checksum::append(digest, &payload[end..]);
        (payload, digest)
    }
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
