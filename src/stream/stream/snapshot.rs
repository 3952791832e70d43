//! What a checkpoint keeps of a stream's rules.
//!
//! Owns the codec. Message ids and expiries are left out where they would make it large: they stand in the messages, and
//! [`Stream::rebuild`] reads them there. A checkpoint is taken between entries, when nothing is left to enforce.

use bytes::Bytes;

use super::{SourceAt, Stream};
use crate::codec::{Reader, put_bytes, put_number};
use crate::config::StreamConfig;
use crate::headers::{self, Asked};
use crate::messages::Messages;
use crate::publish::Limits;
use crate::schedule;

const VERSION: u8 = 1;
/// So many bytes of ids, and so many of expiries, are kept.
const KEPT_MAX: usize = 64 * 1024;

impl Stream {
    /// The checkpoint's bytes.
    pub fn snapshot(&self) -> Bytes {
        self.snapshot_within(KEPT_MAX)
    }

    /// As `snapshot`, with another bound for what may be left out.
    pub(super) fn snapshot_within(&self, kept_max: usize) -> Bytes {
        assert!(self.todo.is_empty() && !self.unfinished, "J-3: a checkpoint between entries");
        let mut out = vec![VERSION];
        put_number(&mut out, self.floor);
        put_number(&mut out, self.applied);
        out.extend_from_slice(&self.applied_time.to_le_bytes());
        out.extend_from_slice(&self.created.to_le_bytes());
        put_bytes(&mut out, &serde_json::to_vec(&self.config).expect("a configuration is plain data"));
        put_bytes(&mut out, &self.last_id);
        put_number(&mut out, self.sources.len() as u64);
        for (name, at) in &self.sources {
            put_bytes(&mut out, name.as_bytes());
            put_number(&mut out, at.seq);
            put_bytes(&mut out, at.identity.as_bytes());
        }
        put_number(&mut out, self.schedules.by_subject.len() as u64);
        for (subject, (seq, at)) in &self.schedules.by_subject {
            put_bytes(&mut out, subject);
            put_number(&mut out, *seq);
            out.extend_from_slice(&at.to_le_bytes());
        }
        let mut ids = Vec::new();
        let since = self.applied_time.saturating_sub(self.config.duplicate_window);
        let applied = self.dedup.iter().filter(|(_, seq, time)| *seq <= self.applied && *time > since);
        for (id, seq, time) in applied {
            put_bytes(&mut ids, id);
            put_number(&mut ids, seq);
            ids.extend_from_slice(&time.to_le_bytes());
            if ids.len() > kept_max {
                break;
            }
        }
        let mut expiring = Vec::new();
        for (at, seq) in &self.expiring {
            expiring.extend_from_slice(&at.to_le_bytes());
            put_number(&mut expiring, *seq);
            if expiring.len() > kept_max {
                break;
            }
        }
        let whole = self.missing.is_none() && ids.len() <= kept_max && expiring.len() <= kept_max;
        out.push(u8::from(whole));
        if whole {
            put_bytes(&mut out, &ids);
            put_bytes(&mut out, &expiring);
        }
        out.into()
    }

    /// A stream from its checkpoint; `None` if it cannot be read. If [`Stream::needs_rebuild`] then says so, `rebuild` comes before the log.
    pub fn restore(snapshot: &[u8], limits: Limits) -> Option<Stream> {
        let mut r = Reader(snapshot);
        if r.u8()? != VERSION {
            return None;
        }
        let (floor, applied) = (r.number()?, r.number()?);
        let (applied_time, created) = (r.i64()?, r.i64()?);
        let config: StreamConfig = serde_json::from_slice(r.bytes()?).ok()?;
        let mut s = Stream::new(config, created, limits);
        s.floor = floor;
        s.applied = applied;
        s.applied_time = applied_time;
        s.last_id = r.bytes()?.to_vec();
        let text = |b: &[u8]| std::str::from_utf8(b).ok().map(str::to_owned);
        for _ in 0..r.count(3)? {
            let name = text(r.bytes()?)?;
            let seq = r.number()?;
            s.sources.insert(name, SourceAt { seq, identity: text(r.bytes()?)? });
        }
        for _ in 0..r.count(10)? {
            let (subject, seq) = (r.bytes()?, r.number()?);
            s.schedules.set(subject, seq, r.i64()?);
        }
        match r.u8()? {
            0 => s.missing = Some(0),
            1 => {
                let mut ids = Reader(r.bytes()?);
                while ids.end().is_none() {
                    let (id, seq) = (ids.bytes()?, ids.number()?);
                    let time = ids.i64()?;
                    if seq > applied || seq < s.dedup.last_seq() {
                        return None;
                    }
                    s.dedup.push(id, seq, time);
                }
                let mut expiring = Reader(r.bytes()?);
                while expiring.end().is_none() {
                    let at = expiring.i64()?;
                    s.expiring.insert((at, expiring.number()?));
                }
            }
            _ => return None,
        }
        r.end()?;
        s.reset_tail();
        Some(s)
    }

    /// Whether the checkpoint left something out that is still to be read from the messages.
    pub fn needs_rebuild(&self) -> bool {
        self.missing.is_some()
    }

    /// Reads what the checkpoint left out from the messages. On a miss the caller fetches and calls again.
    pub fn rebuild<M: Messages>(&mut self, msgs: &M) -> Result<(), M::Miss> {
        let Some(mut from) = self.missing else { return Ok(()) };
        let since = self.applied_time.saturating_sub(self.config.duplicate_window);
        while let Some(seq) = msgs.next(&[], from)?.filter(|seq| *seq <= self.applied) {
            let Some(meta) = msgs.meta(seq)? else { break };
            let ids = self.config.duplicate_window > 0 && !self.config.is_mirror() && meta.time > since;
            if ids
                && let Some(m) = msgs.get(seq)?
                && let Some(id) = headers::get(&m.headers, headers::MSG_ID).filter(|id| !id.is_empty())
            {
                self.dedup.push(id, seq, m.time);
            }
            if let Some(at) = meta.expires.filter(|at| *at != i64::MAX) {
                self.expiring.insert((at, seq));
            }
            from = seq + 1;
            // What is done is done, also if the next message is a miss.
            self.missing = Some(from);
        }
        self.missing = None;
        Ok(())
    }

    /// Makes the rules of a stream whose messages are there and nothing else: a restored backup. On a miss the caller fetches and calls
    /// again with the same stream. To be followed by `rebuild`.
    pub fn adopt<M: Messages>(&mut self, msgs: &M) -> Result<(), M::Miss> {
        let t = self.totals(msgs);
        self.applied = t.last;
        self.applied_time = t.last_time;
        if let Some(m) = msgs.get(t.last)? {
            self.last_id = Asked::parse(&m.headers).msg_id.to_vec();
        }
        if self.config.allow_msg_schedules {
            let mut from = 0;
            while let Some(seq) = msgs.next(&[], from)? {
                if let Some(m) = msgs.get(seq)?
                    && let Ok(Some(fires)) = schedule::next(&Asked::parse(&m.headers), m.time, m.time)
                {
                    self.schedules.set(&m.subject, seq, fires.at);
                }
                from = seq + 1;
            }
        }
        self.missing = Some(0);
        self.reset_tail();
        Ok(())
    }
}
