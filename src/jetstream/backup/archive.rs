//! What is in a backup: nats-server's second format, `NATSARC1`, entry by entry.
//!
//! Owns the bytes of entries and their meaning. Does not own compression (`s2`) nor what becomes of an entry (`restore`). Bounded: an entry
//! is held at most once, and is refused before it is longer than a record may be.
//!
//! An archive is the name of the format, then entries until one that is all empty: numbers for the lengths of name, headers and payload, a time and a
//! sequence, then the three. The first is `state.json`, then `consumers/NAME` for each consumer, then the messages, whose name is their subject.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use stream::{
    codec::put_number,
    consumer::{ConsumerConfig, backup::State},
};

use super::s2;
use crate::api::response::StreamState;

const MAGIC: &[u8] = b"NATSARC1";
const STATE: &[u8] = b"state.json";
const CONSUMERS: &[u8] = b"consumers/";
/// Bytes of a consumer's or the stream's state at most.
const STATE_MAX: usize = 64 << 20;
/// Bytes of a name and of headers at most.
const NAME_MAX: usize = 64 << 10;
/// Bytes of a message at most.
const MESSAGE_MAX: usize = 64 << 20;

/// A consumer as an archive has it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Consumer {
    /// Its configuration.
    pub config: ConsumerConfig,
    /// What was delivered.
    #[serde(default)]
    pub state: State,
}

/// What an archive holds.
#[derive(Clone, PartialEq, Debug)]
pub enum Entry {
    /// What the stream held when the backup was made.
    State(Box<StreamState>),
    /// A consumer, and its name.
    Consumer(String, Box<Consumer>),
    /// A message; it says nothing of when it expires.
    Message(stream::Stored),
    /// There is no more.
    End,
}

/// Makes an archive.
#[derive(Default)]
pub struct Writer {
    out: s2::Writer,
    head: Vec<u8>,
    begun: bool,
}

impl Writer {
    fn entry(&mut self, name: &[u8], time: i64, seq: u64, headers: &[u8], payload: &[u8]) {
        self.head.clear();
        if !std::mem::replace(&mut self.begun, true) {
            self.head.extend_from_slice(MAGIC);
        }
        put_number(&mut self.head, name.len() as u64);
        put_number(&mut self.head, ((time << 1) ^ (time >> 63)) as u64);
        for n in [seq, headers.len() as u64, payload.len() as u64] {
            put_number(&mut self.head, n);
        }
        for part in [&self.head, name, headers, payload] {
            self.out.put(part);
        }
    }
    /// The first entry.
    pub fn state(&mut self, s: &StreamState, now: i64) {
        self.entry(STATE, now, 0, b"", &serde_json::to_vec(s).expect("a state is plain data"));
    }
    /// A consumer.
    pub fn consumer(&mut self, name: &str, c: &Consumer, now: i64) {
        let json = serde_json::to_vec(c).expect("a consumer is plain data");
        self.entry(&[CONSUMERS, name.as_bytes()].concat(), now, 0, b"", &json);
    }
    /// A message.
    pub fn message(&mut self, m: &stream::Stored) {
        self.entry(&m.subject, m.time, m.seq, &m.headers, &m.payload);
    }
    /// The last entry.
    pub fn end(&mut self) {
        self.entry(b"", 0, 0, b"", b"");
        self.out.seal();
    }
    /// Bytes that can go.
    pub fn len(&self) -> usize {
        self.out.len()
    }
    /// Takes the first `n` of them, or all.
    pub fn take(&mut self, n: usize) -> Vec<u8> {
        self.out.take(n)
    }
}

/// Reads an archive that comes in pieces.
#[derive(Default)]
pub struct Reader {
    packed: s2::Reader,
    raw: Vec<u8>,
    at: usize,
    begun: bool,
    ended: bool,
}

struct Head {
    name: usize,
    time: i64,
    seq: u64,
    headers: usize,
    payload: usize,
}

/// `None` if it is not whole yet.
fn varint(b: &mut &[u8]) -> Result<Option<u64>, String> {
    let mut n = 0u64;
    for (i, x) in b.iter().enumerate() {
        if i == 9 && *x > 1 || i > 9 {
            return Err("archive entry is damaged".into());
        }
        n |= u64::from(x & 0x7f) << (7 * i);
        if *x < 0x80 {
            *b = &b[i + 1..];
            return Ok(Some(n));
        }
    }
    Ok(None)
}

fn head(b: &mut &[u8]) -> Result<Option<Head>, String> {
    let mut all = [0u64; 5];
    for n in &mut all {
        let Some(read) = varint(b)? else { return Ok(None) };
        *n = read;
    }
    let len = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    let time = (all[1] >> 1) as i64 ^ -((all[1] & 1) as i64);
    Ok(Some(Head { name: len(all[0]), time, seq: all[2], headers: len(all[3]), payload: len(all[4]) }))
}

impl Reader {
    /// Takes a piece.
    ///
    /// # Errors
    /// Why it is no backup.
    pub fn push(&mut self, piece: &[u8]) -> Result<(), String> {
        if self.at > 0 && self.at * 2 > self.raw.len() {
            self.raw.drain(..self.at);
            self.at = 0;
        }
        self.packed.push(piece, &mut self.raw).map_err(str::to_owned)
    }
    /// The next entry, if it is there.
    ///
    /// # Errors
    /// Why it is none.
    pub fn next(&mut self) -> Result<Option<Entry>, String> {
        let mut left = &self.raw[self.at..];
        if !self.begun {
            let Some(magic) = left.get(..MAGIC.len()) else { return Ok(None) };
            if magic != MAGIC {
                return Err("the archive is of an unknown format (nats-server before 2.15 makes such); \
                    restore it there and back it up with 2.15"
                    .into());
            }
            left = &left[MAGIC.len()..];
            self.begun = true;
            self.at += MAGIC.len();
        }
        if self.ended {
            return if left.is_empty() { Ok(None) } else { Err("the archive goes on behind its end".into()) };
        }
        let Some(h) = head(&mut left)? else { return Ok(None) };
        let is_state = h.seq == 0;
        let max = if is_state { STATE_MAX } else { MESSAGE_MAX };
        if h.name > NAME_MAX || h.headers > NAME_MAX || h.payload > max {
            return Err("an entry of the archive is too large".into());
        }
        let Some(body) = left.get(..h.name + h.headers + h.payload) else { return Ok(None) };
        let (name, rest) = body.split_at(h.name);
        let (headers, payload) = rest.split_at(h.headers);
        let entry = if h.name == 0 && is_state {
            self.ended = true;
            Entry::End
        } else if is_state {
            entry_of(name, payload)?
        } else {
            Entry::Message(stream::Stored {
                seq: h.seq,
                time: h.time,
                expires: None,
                subject: Bytes::copy_from_slice(name),
                headers: Bytes::copy_from_slice(headers),
                payload: Bytes::copy_from_slice(payload),
            })
        };
        let used = left.len() - body.len();
        self.at = self.raw.len() - used;
        Ok(Some(entry))
    }
    /// Whether all that belongs to an archive has come.
    ///
    /// # Errors
    /// What is missing.
    pub fn is_whole(&self) -> Result<(), String> {
        match (self.begun, self.ended, self.packed.is_whole()) {
            (_, true, true) => Ok(()),
            (false, _, true) => Err("EOF".into()),
            _ => Err("unexpected EOF".into()),
        }
    }
}

fn entry_of(name: &[u8], json: &[u8]) -> Result<Entry, String> {
    if name == STATE {
        let state = serde_json::from_slice(json).map_err(|e| format!("state.json: {e}"))?;
        return Ok(Entry::State(Box::new(state)));
    }
    let of = name.strip_prefix(CONSUMERS).and_then(|n| str::from_utf8(n).ok()).filter(|n| !n.is_empty());
    let Some(of) = of else { return Err(format!("unknown entry {:?}", String::from_utf8_lossy(name))) };
    let c: Consumer = serde_json::from_slice(json).map_err(|e| format!("consumer \"{of}\": {e}"))?;
    Ok(Entry::Consumer(of.to_owned(), Box::new(c)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(seq: u64) -> stream::Stored {
        stream::Stored {
            seq,
            time: 1_700_000_000_000_000_000 + seq as i64,
            expires: None,
            subject: Bytes::from(format!("s.{}", seq % 3)),
            headers: Bytes::from_static(if seq.is_multiple_of(2) {
                b""
            } else {
                b"NATS/1.0\r\nA: b\r\n\r\n"
            }),
            payload: Bytes::from(vec![seq as u8; seq as usize * 10]),
        }
    }
    fn archive() -> (Vec<Entry>, Vec<u8>) {
        let state = StreamState { messages: 300, last_seq: 300, ..StreamState::default() };
        let c = Consumer {
            config: ConsumerConfig { name: "c".into(), ..Default::default() },
            state: State::default(),
        };
        let mut w = Writer::default();
        w.state(&state, 5);
        w.consumer("c", &c, 5);
        let mut all = vec![Entry::State(Box::new(state)), Entry::Consumer("c".into(), Box::new(c))];
        for seq in 1..=300 {
            w.message(&message(seq));
            all.push(Entry::Message(message(seq)));
        }
        w.end();
        all.push(Entry::End);
        (all, w.take(usize::MAX))
    }
    fn read(b: &[u8], piece: usize) -> Result<Vec<Entry>, String> {
        let (mut r, mut all) = (Reader::default(), Vec::new());
        for p in b.chunks(piece) {
            r.push(p)?;
            while let Some(e) = r.next()? {
                all.push(e);
            }
        }
        r.is_whole()?;
        Ok(all)
    }

    #[test]
    fn an_archive_comes_back() {
        let (all, bytes) = archive();
        for piece in [1 << 20, 1000, 3] {
            assert_eq!(read(&bytes, piece).unwrap(), all);
        }
        for cut in [0, 5, 20, bytes.len() / 2, bytes.len() - 1] {
            assert!(read(&bytes[..cut], 100).is_err(), "{cut}");
        }
        assert_eq!(read(b"", 1), Err("EOF".into()));
        let mut twice = bytes.clone();
        twice.extend(&bytes);
        assert!(read(&twice, 1 << 20).is_err());
    }

    #[test]
    fn what_nats_server_made_is_read() {
        let all = read(include_bytes!("../testdata/backup-2.15.s2"), 100).unwrap();
        let Entry::State(s) = &all[0] else { panic!("{:?}", all[0]) };
        assert_eq!((s.messages, s.first_seq, s.last_seq), (19, 1, 20));
        assert_eq!(all.iter().filter(|e| matches!(e, Entry::Message(_))).count(), 19);
        assert_eq!(all.last(), Some(&Entry::End));
    }

    #[test]
    fn other_formats_are_refused_by_name() {
        let mut w = s2::Writer::default();
        w.put(&[b'x'; 600]);
        w.seal();
        assert!(read(&w.take(usize::MAX), 100).unwrap_err().contains("unknown format"));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn bytes_do_no_harm(b in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut w = s2::Writer::default();
            w.put(MAGIC);
            w.put(&b);
            w.seal();
            read(&w.take(usize::MAX), 1000).ok();
        }
    }
}
