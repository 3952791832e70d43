//! Header blocks: what a publish's headers ask of the stream, and changes to a block.
//!
//! Owns the one pass over a block on the publish path, and the names. Names are compared as nats-server does: by their exact
//! letters, the first of a name counts. Bad blocks never panic: what cannot be understood is passed over. A block is its version
//! line, its lines and a blank line, each ended by CR LF; it is empty if there are no headers.

use memchr::memchr;

/// The first line of a block.
pub const VERSION: &[u8] = b"NATS/1.0\r\n";

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident $text:literal;)*) => { $($(#[$doc])* pub const $name: &[u8] = $text;)* };
}

names! {
    /// For duplicate detection.
    MSG_ID b"Nats-Msg-Id";
    /// The stream that the publisher means.
    EXPECTED_STREAM b"Nats-Expected-Stream";
    /// The stream's last sequence.
    EXPECTED_LAST_SEQ b"Nats-Expected-Last-Sequence";
    /// The subject's last sequence.
    EXPECTED_LAST_SUBJECT_SEQ b"Nats-Expected-Last-Subject-Sequence";
    /// Which subject that is.
    EXPECTED_LAST_SUBJECT_SEQ_SUBJECT b"Nats-Expected-Last-Subject-Sequence-Subject";
    /// The id of the last message.
    EXPECTED_LAST_MSG_ID b"Nats-Expected-Last-Msg-Id";
    /// Removes what is before: `sub` or `all`.
    ROLLUP b"Nats-Rollup";
    /// Time to live.
    TTL b"Nats-TTL";
    /// A counter's increment.
    INCR b"Nats-Incr";
    /// What of a counter came from which source.
    COUNTER_SOURCES b"Nats-Counter-Sources";
    /// Names an atomic batch.
    BATCH_ID b"Nats-Batch-Id";
    /// The place in it.
    BATCH_SEQ b"Nats-Batch-Sequence";
    /// Its end: `1` or `eob`.
    BATCH_COMMIT b"Nats-Batch-Commit";
    /// The pattern of a schedule.
    SCHEDULE b"Nats-Schedule";
    /// Its target subject.
    SCHEDULE_TARGET b"Nats-Schedule-Target";
    /// The subject whose last message is sent instead.
    SCHEDULE_SOURCE b"Nats-Schedule-Source";
    /// Time to live of what it produces.
    SCHEDULE_TTL b"Nats-Schedule-TTL";
    /// Rollup of what it produces.
    SCHEDULE_ROLLUP b"Nats-Schedule-Rollup";
    /// The time zone of a cron pattern.
    SCHEDULE_TIME_ZONE b"Nats-Schedule-Time-Zone";
    /// When it fires again, or `purge`.
    SCHEDULE_NEXT b"Nats-Schedule-Next";
    /// The subject of the schedule that produced a message.
    SCHEDULER b"Nats-Scheduler";
    /// The level of the API that the client needs.
    REQUIRED_API_LEVEL b"Nats-Required-Api-Level";
    /// Where a sourced message comes from.
    STREAM_SOURCE b"Nats-Stream-Source";
    /// Who asked, on requests across accounts.
    REQUEST_INFO b"Nats-Request-Info";
    /// Why a marker was left.
    MARKER_REASON b"Nats-Marker-Reason";
    /// What a key-value client did.
    KV_OPERATION b"KV-Operation";
}

/// What a publish's headers ask for. A value that is there and empty counts as absent, but where it says otherwise.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked<'a> {
    /// `Nats-Msg-Id`.
    pub msg_id: &'a [u8],
    /// `Nats-Expected-Stream`.
    pub expected_stream: &'a [u8],
    /// `Nats-Expected-Last-Sequence`.
    pub expected_last_seq: &'a [u8],
    /// `Nats-Expected-Last-Subject-Sequence`.
    pub expected_subject_seq: &'a [u8],
    /// `Nats-Expected-Last-Subject-Sequence-Subject`.
    pub expected_subject: &'a [u8],
    /// `Nats-Expected-Last-Msg-Id`.
    pub expected_last_msg_id: &'a [u8],
    /// `Nats-Rollup`.
    pub rollup: &'a [u8],
    /// `Nats-TTL`.
    pub ttl: &'a [u8],
    /// `Nats-Incr`.
    pub incr: &'a [u8],
    /// `Nats-Batch-Id`; an empty one is told from none by `has_batch_id`.
    pub batch_id: &'a [u8],
    /// `Nats-Batch-Sequence`.
    pub batch_seq: &'a [u8],
    /// `Nats-Batch-Commit`, also if it is empty.
    pub batch_commit: Option<&'a [u8]>,
    /// `Nats-Schedule`.
    pub schedule: &'a [u8],
    /// `Nats-Schedule-Target`.
    pub schedule_target: &'a [u8],
    /// `Nats-Schedule-Source`.
    pub schedule_source: &'a [u8],
    /// `Nats-Schedule-TTL`.
    pub schedule_ttl: &'a [u8],
    /// `Nats-Schedule-Rollup`.
    pub schedule_rollup: &'a [u8],
    /// `Nats-Schedule-Time-Zone`, also if it is empty.
    pub schedule_zone: Option<&'a [u8]>,
    /// `Nats-Schedule-Next`.
    pub schedule_next: &'a [u8],
    /// `Nats-Scheduler`.
    pub scheduler: &'a [u8],
    /// `Nats-Required-Api-Level`.
    pub required_api_level: &'a [u8],
    /// `Nats-Stream-Source`.
    pub stream_source: &'a [u8],
    /// `Nats-Request-Info`.
    pub request_info: Option<&'a [u8]>,
    /// `Nats-Marker-Reason`.
    pub marker_reason: &'a [u8],
    /// `KV-Operation`.
    pub kv_operation: &'a [u8],
    /// `Nats-Counter-Sources`.
    pub counter_sources: &'a [u8],
}

fn set<'a>(slot: &mut &'a [u8], value: &'a [u8]) {
    if slot.is_empty() {
        *slot = value;
    }
}

impl<'a> Asked<'a> {
    /// One pass over a block.
    pub fn parse(block: &'a [u8]) -> Asked<'a> {
        let mut asked = Asked::default();
        for (name, value) in lines(block) {
            if let Some(rest) = name.strip_prefix(b"Nats-") {
                asked.take(rest, value);
            } else if name == KV_OPERATION {
                set(&mut asked.kv_operation, value);
            }
        }
        asked
    }

    fn take(&mut self, name: &[u8], value: &'a [u8]) {
        // By first letter, so that a name that is none of ours costs one comparison.
        match name.first() {
            Some(b'M') => match name {
                b"Msg-Id" => set(&mut self.msg_id, value),
                b"Marker-Reason" => set(&mut self.marker_reason, value),
                _ => {}
            },
            Some(b'E') => match name {
                b"Expected-Last-Subject-Sequence" => set(&mut self.expected_subject_seq, value),
                b"Expected-Last-Sequence" => set(&mut self.expected_last_seq, value),
                b"Expected-Stream" => set(&mut self.expected_stream, value),
                b"Expected-Last-Msg-Id" => set(&mut self.expected_last_msg_id, value),
                b"Expected-Last-Subject-Sequence-Subject" => set(&mut self.expected_subject, value),
                _ => {}
            },
            Some(b'R') => match name {
                b"Rollup" => set(&mut self.rollup, value),
                b"Required-Api-Level" => set(&mut self.required_api_level, value),
                b"Request-Info" => self.request_info = self.request_info.or(Some(value)),
                _ => {}
            },
            Some(b'B') => match name {
                b"Batch-Id" => set(&mut self.batch_id, value),
                b"Batch-Sequence" => set(&mut self.batch_seq, value),
                b"Batch-Commit" => self.batch_commit = self.batch_commit.or(Some(value)),
                _ => {}
            },
            Some(b'S') => match name {
                b"Stream-Source" => set(&mut self.stream_source, value),
                b"Schedule" => set(&mut self.schedule, value),
                b"Schedule-Target" => set(&mut self.schedule_target, value),
                b"Schedule-Source" => set(&mut self.schedule_source, value),
                b"Schedule-TTL" => set(&mut self.schedule_ttl, value),
                b"Schedule-Rollup" => set(&mut self.schedule_rollup, value),
                b"Schedule-Time-Zone" => self.schedule_zone = self.schedule_zone.or(Some(value)),
                b"Schedule-Next" => set(&mut self.schedule_next, value),
                b"Scheduler" => set(&mut self.scheduler, value),
                _ => {}
            },
            Some(b'T') if name == b"TTL" => set(&mut self.ttl, value),
            Some(b'I') if name == b"Incr" => set(&mut self.incr, value),
            Some(b'C') if name == b"Counter-Sources" => set(&mut self.counter_sources, value),
            _ => {}
        }
    }

    /// Whether a message with these headers marks the end of its subject: it leaves no marker itself when it expires.
    pub fn is_marker(&self) -> bool {
        !self.marker_reason.is_empty() || self.kv_operation == b"PURGE"
    }

    /// What is asked of rollup, the letters' case aside.
    pub fn rollup(&self) -> Rollup {
        if self.rollup.is_empty() {
            Rollup::None
        } else if self.rollup.eq_ignore_ascii_case(b"sub") {
            Rollup::Subject
        } else if self.rollup.eq_ignore_ascii_case(b"all") {
            Rollup::All
        } else {
            Rollup::Unknown
        }
    }
}

/// What a rollup removes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rollup {
    /// Nothing is asked.
    None,
    /// The subject's messages before this one.
    Subject,
    /// All messages before this one.
    All,
    /// Something that nobody knows.
    Unknown,
}

/// Where the first CR LF stands. Blocks are short: two bytes are sought as one, which is quicker here than a search for two.
#[inline]
fn line_end(block: &[u8]) -> Option<usize> {
    let mut from = 0;
    loop {
        let at = from + memchr(b'\n', &block[from..])?;
        if at > 0 && block[at - 1] == b'\r' {
            return Some(at - 1);
        }
        from = at + 1;
    }
}

/// A value without the blanks before it.
#[inline]
fn value_of(value: &[u8]) -> &[u8] {
    let start = value.iter().position(|b| *b != b' ' && *b != b'\t').unwrap_or(value.len());
    &value[start..]
}

/// The lines of a block as names and values; lines without a colon are passed over.
pub fn lines(block: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut rest = match line_end(block) {
        Some(end) => &block[end + 2..],
        None => &[],
    };
    std::iter::from_fn(move || {
        loop {
            let end = line_end(rest)?;
            let line = &rest[..end];
            rest = &rest[end + 2..];
            if line.is_empty() {
                return None;
            }
            if let Some(colon) = memchr(b':', line) {
                return Some((&line[..colon], value_of(&line[colon + 1..])));
            }
        }
    })
}

/// The message id of a block that says nothing else; `None` for every other block.
#[inline]
pub fn sole_id(block: &[u8]) -> Option<&[u8]> {
    let line = block.strip_prefix(b"NATS/1.0\r\nNats-Msg-Id:")?;
    let end = line_end(line)?;
    let id = value_of(&line[..end]);
    (&line[end..] == b"\r\n\r\n" && !id.is_empty()).then_some(id)
}

/// The first value of a name.
pub fn get<'a>(block: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    lines(block).find(|(n, _)| *n == name).map(|(_, v)| v)
}

/// Adds a line at the end; an empty block gets its version line.
pub fn add(block: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    if block.is_empty() {
        block.extend_from_slice(VERSION);
    } else if block.ends_with(b"\r\n\r\n") {
        block.truncate(block.len() - 2);
    }
    block.extend_from_slice(name);
    block.extend_from_slice(b": ");
    block.extend_from_slice(value);
    block.extend_from_slice(b"\r\n\r\n");
}

/// Takes out all lines for whose name `drop` says true; a block without lines becomes empty.
pub fn remove(block: &mut Vec<u8>, mut drop: impl FnMut(&[u8]) -> bool) {
    let Some(first) = line_end(block).map(|i| i + 2) else { return };
    let (mut from, mut to, mut kept) = (first, first, false);
    while let Some(end) = line_end(&block[from..]).map(|i| from + i + 2) {
        let line = &block[from..end - 2];
        let name = memchr::memchr(b':', line).map_or(line, |colon| &line[..colon]);
        if line.is_empty() || !drop(name) {
            kept |= !line.is_empty();
            block.copy_within(from..end, to);
            to += end - from;
        }
        from = end;
    }
    block.truncate(to);
    if !kept {
        block.clear();
    }
}

/// Sets a name to a value: in place of its first line, else at the end.
pub fn set_value(block: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    let Some(old) = get(block, name) else { return add(block, name, value) };
    let start = old.as_ptr() as usize - block.as_ptr() as usize;
    let end = start + old.len();
    block.splice(start..end, value.iter().copied());
}

/// A number as nats-server reads one in a header: decimal digits only; `None` for anything else, also for what does not fit.
pub fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u64, |n, d| {
        let d = d.is_ascii_digit().then(|| u64::from(d - b'0'))?;
        n.checked_mul(10)?.checked_add(d)
    })
}

/// What a `Nats-TTL` or `Nats-Schedule-TTL` says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ttl {
    /// Nothing.
    None,
    /// So many seconds.
    Seconds(i64),
    /// The message never expires, not even by `max_age`.
    Never,
}

impl Ttl {
    /// Reads `never`, a number of seconds or a duration of at least a second; `None` for anything else.
    pub fn parse(text: &[u8]) -> Option<Ttl> {
        if text.is_empty() {
            return Some(Ttl::None);
        }
        if text.eq_ignore_ascii_case(b"never") {
            return Some(Ttl::Never);
        }
        let text = std::str::from_utf8(text).ok()?;
        // A duration first: `0` is one, and too short.
        let secs = match crate::time::parse_duration(text) {
            Some(ns) => ns / crate::time::SECOND,
            None => i64::try_from(number(text.as_bytes())?).ok()?,
        };
        (secs >= 1).then_some(Ttl::Seconds(secs))
    }

    /// When a message of this time expires, in nanoseconds since 1970.
    pub fn expires(self, time: i64) -> Option<i64> {
        match self {
            Ttl::None => None,
            Ttl::Never => Some(i64::MAX),
            Ttl::Seconds(s) => {
                // Just below what stands for never: a time to live of centuries is still one.
                Some(s.saturating_mul(crate::time::SECOND).saturating_add(time).min(i64::MAX - 1))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: &[u8] = b"NATS/1.0\r\nNats-Msg-Id: a1\r\nOther:x\r\nNats-TTL: 5s\r\nNats-Msg-Id: b\r\n\r\n";

    #[test]
    fn one_pass_finds_all() {
        let a = Asked::parse(BLOCK);
        assert_eq!((a.msg_id, a.ttl, a.rollup()), (&b"a1"[..], &b"5s"[..], Rollup::None));
        for bad in [
            &b""[..],
            b"NATS/1.0",
            b"\r\n",
            b"NATS/1.0\r\nNats-Msg-Id",
            b"NATS/1.0\r\nnats-msg-id: x\r\n\r\n",
        ] {
            assert!(Asked::parse(bad).msg_id.is_empty());
        }
        assert_eq!(get(BLOCK, b"Other"), Some(&b"x"[..]));
        let a = Asked::parse(b"NATS/1.0\r\nNats-Rollup: SUB\r\nKV-Operation: PURGE\r\n\r\n");
        assert!(a.is_marker() && a.rollup() == Rollup::Subject);
    }

    proptest::proptest! {
        #[test]
        fn lines_end_as_a_search_for_both_says(text in "[ab\r\n]{0,12}") {
            let two = text.as_bytes().windows(2).position(|w| w == b"\r\n");
            proptest::prop_assert_eq!(line_end(text.as_bytes()), two);
        }

        #[test]
        fn a_sole_id_is_all_that_is_said(text in "(Nats-Msg-Id|Nats-TTL|x): ?[a\r\n]{0,3}\r\n(Nats-Msg-Id:b\r\n)?(\r\n)?.{0,2}") {
            let block = format!("NATS/1.0\r\n{text}");
            let all = Asked::parse(block.as_bytes());
            if let Some(id) = sole_id(block.as_bytes()) {
                proptest::prop_assert_eq!((id, lines(block.as_bytes()).count()), (all.msg_id, 1));
            }
        }
    }

    #[test]
    fn a_block_with_an_id_alone() {
        let id = |lines: &str| sole_id(format!("NATS/1.0\r\n{lines}\r\n").as_bytes()).map(<[u8]>::to_vec);
        assert_eq!(id("Nats-Msg-Id: a b\r\n"), Some(b"a b".to_vec()));
        assert_eq!(id("Nats-Msg-Id:a\r\n"), Some(b"a".to_vec()));
        for more in ["", "Nats-Msg-Id: \r\n", "Nats-Msg-Id: a\r\nx: y\r\n", "Nats-Msg-Ids: a\r\n"] {
            assert_eq!(id(more), None, "{more}");
        }
    }

    #[test]
    fn blocks_are_changed() {
        let mut b = BLOCK.to_vec();
        remove(&mut b, |n| n == MSG_ID);
        assert_eq!(b, b"NATS/1.0\r\nOther:x\r\nNats-TTL: 5s\r\n\r\n");
        set_value(&mut b, TTL, b"10");
        add(&mut b, ROLLUP, b"sub");
        assert_eq!(b, b"NATS/1.0\r\nOther:x\r\nNats-TTL: 10\r\nNats-Rollup: sub\r\n\r\n");
        remove(&mut b, |n| n.starts_with(b"Nats-") || n == b"Other");
        assert!(b.is_empty());
        add(&mut b, b"A", b"1");
        assert_eq!(b, b"NATS/1.0\r\nA: 1\r\n\r\n");
    }

    #[test]
    fn ttls() {
        for (text, ttl) in [
            ("", Some(Ttl::None)),
            ("never", Some(Ttl::Never)),
            ("NEVER", Some(Ttl::Never)),
            ("5", Some(Ttl::Seconds(5))),
            ("1m1.9s", Some(Ttl::Seconds(61))),
            ("999ms", None),
            ("0", None),
            ("0s", None),
            ("-1", None),
            ("soon", None),
        ] {
            assert_eq!(Ttl::parse(text.as_bytes()), ttl, "{text}");
        }
        assert_eq!(Ttl::Seconds(i64::MAX).expires(5), Some(i64::MAX - 1));
    }
}
