//! Ack subjects and what an ack says.
//!
//! Owns the subjects' two layouts and the payloads. Does not own what an ack does: see [`super::Consumer::ack`].

use serde::Deserialize;
use subject::tokens;

use crate::time::parse_duration;

/// What the reply subject of a delivery says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AckTokens<'a> {
    /// Domain and account's hash, which stand before the stream in the newer layout. Whether they are right is for the shell to say.
    pub place: Option<[&'a [u8]; 2]>,
    /// The stream.
    pub stream: &'a [u8],
    /// The consumer.
    pub consumer: &'a [u8],
    /// How often the message had been delivered.
    pub deliveries: u64,
    /// The message.
    pub sseq: u64,
    /// The delivery.
    pub dseq: u64,
    /// When the message was stored, in nanoseconds since 1970.
    pub time: i64,
    /// How many messages were pending.
    pub pending: u64,
}

/// A decimal number without sign; `None` if it is none or does not fit.
fn number(token: &[u8]) -> Option<u64> {
    if token.is_empty() {
        return None;
    }
    let mut n = 0u64;
    let mut words = token.chunks_exact(8);
    for w in &mut words {
        let eight = eight_digits(u64::from_le_bytes([w[0], w[1], w[2], w[3], w[4], w[5], w[6], w[7]]))?;
        n = n.checked_mul(100_000_000)?.checked_add(eight)?;
    }
    words.remainder().iter().try_fold(n, |n, d| {
        let digit = d.is_ascii_digit().then(|| u64::from(d - b'0'))?;
        n.checked_mul(10)?.checked_add(digit)
    })
}

/// Eight digits at once: times are long, and one comes back with every acknowledgement.
#[inline]
fn eight_digits(word: u64) -> Option<u64> {
    const ZEROS: u64 = 0x3030_3030_3030_3030;
    const HIGH: u64 = 0xf0f0_f0f0_f0f0_f0f0;
    // Each byte is 0x30 to 0x39 exactly if its upper half is 3 and stays so when six are added; bytes below 0x3a carry nothing.
    if word & HIGH != ZEROS || (word + 0x0606_0606_0606_0606) & HIGH != ZEROS {
        return None;
    }
    let digits = word - ZEROS;
    // Neighbours make pairs, pairs make fours, fours make the number; the first digit stands lowest.
    let pairs = (digits * 10) + (digits >> 8);
    let (even, odd) = (pairs & 0x0000_00ff_0000_00ff, (pairs >> 16) & 0x0000_00ff_0000_00ff);
    let number =
        even.wrapping_mul(0x000f_4240_0000_0064).wrapping_add(odd.wrapping_mul(0x0000_2710_0000_0001));
    Some(number >> 32)
}

impl<'a> AckTokens<'a> {
    /// Reads `$JS.ACK.<stream>.<consumer>.<deliveries>.<sseq>.<dseq>.<time>.<pending>`, or the same behind
    /// `$JS.ACK.<domain>.<account hash>.` with whatever may follow; `None` for anything else.
    pub fn parse(subject: &'a [u8]) -> Option<AckTokens<'a>> {
        let rest = subject.strip_prefix(b"$JS.ACK.")?;
        let mut all = [&b""[..]; 9];
        let mut n = 0;
        for token in tokens(rest).take(9) {
            all[n] = token;
            n += 1;
        }
        let (t, place) = match n {
            7 => (&all[..7], None),
            9 => (&all[2..9], Some([all[0], all[1]])),
            _ => return None,
        };
        let read = AckTokens::of(t[0], t[1], [t[2], t[3], t[4], t[5], t[6]])?;
        Some(AckTokens { place, ..read })
    }

    /// Reads `<deliveries>.<sseq>.<dseq>.<time>.<pending>`, which stands behind the names; `None` for anything else.
    pub fn of_numbers(stream: &'a [u8], consumer: &'a [u8], numbers: &[u8]) -> Option<AckTokens<'a>> {
        let mut all = tokens(numbers);
        let five = [all.next()?, all.next()?, all.next()?, all.next()?, all.next()?];
        if all.next().is_none() { AckTokens::of(stream, consumer, five) } else { None }
    }

    fn of(stream: &'a [u8], consumer: &'a [u8], numbers: [&[u8]; 5]) -> Option<AckTokens<'a>> {
        let [deliveries, sseq, dseq, time, pending] = numbers;
        Some(AckTokens {
            place: None,
            stream,
            consumer,
            deliveries: number(deliveries)?,
            sseq: number(sseq)?,
            dseq: number(dseq)?,
            time: i64::try_from(number(time)?).ok()?,
            pending: number(pending)?,
        })
    }
}

/// What an ack's payload asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AckKind<'a> {
    /// Done.
    Ack,
    /// Deliver again, after so many nanoseconds.
    Nak(Option<i64>),
    /// Still at work: the wait begins anew.
    Progress,
    /// Done, and here is the next pull request.
    Next(&'a [u8]),
    /// Do not deliver again, for this reason (empty if none).
    Term(&'a [u8]),
    /// Nothing that is known.
    Unknown,
}

#[derive(Deserialize)]
struct NakOptions {
    #[serde(default)]
    delay: i64,
}

impl<'a> AckKind<'a> {
    /// Reads a payload. A nak whose delay cannot be read is one without delay.
    pub fn parse(payload: &'a [u8]) -> AckKind<'a> {
        match payload {
            b"" | b"+ACK" | b"+OK" => AckKind::Ack,
            b"+WPI" => AckKind::Progress,
            _ => {
                if let Some(rest) = payload.strip_prefix(b"+NXT") {
                    AckKind::Next(rest)
                } else if let Some(rest) = payload.strip_prefix(b"-NAK") {
                    AckKind::Nak(nak_delay(rest.trim_ascii()))
                } else if let Some(rest) = payload.strip_prefix(b"+TERM") {
                    AckKind::Term(rest.trim_ascii())
                } else {
                    AckKind::Unknown
                }
            }
        }
    }
}

fn nak_delay(text: &[u8]) -> Option<i64> {
    match text.first()? {
        b'{' => serde_json::from_slice::<NakOptions>(text).ok().map(|o| o.delay),
        _ => parse_duration(std::str::from_utf8(text).ok()?),
    }
}

/// Writes the reply subjects of a consumer's deliveries.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AckSubject {
    /// `$JS.ACK.<stream>.<consumer>.`
    prefix: Vec<u8>,
}

impl AckSubject {
    /// For a consumer of a stream.
    pub fn new(stream: &[u8], consumer: &[u8]) -> AckSubject {
        let mut prefix = Vec::with_capacity(stream.len() + consumer.len() + 10);
        for part in [&b"$JS.ACK."[..], stream, b".", consumer, b"."] {
            prefix.extend_from_slice(part);
        }
        AckSubject { prefix }
    }

    /// Appends the reply subject of a delivery.
    #[inline]
    pub fn write(&self, out: &mut Vec<u8>, deliveries: u64, sseq: u64, dseq: u64, time: i64, pending: u64) {
        out.reserve(self.prefix.len() + 5 * 21);
        out.extend_from_slice(&self.prefix);
        // Written together, from the end: a copy costs a call, whatever its length.
        let mut text = [b'.'; 5 * 20 + 4];
        let mut at = text.len() + 1;
        for n in [pending, time.max(0).unsigned_abs(), dseq, sseq, deliveries] {
            at = decimal(&mut text, at - 1, n);
        }
        out.extend_from_slice(&text[at..]);
    }

    /// How long that subject is.
    #[inline]
    pub fn len(&self, deliveries: u64, sseq: u64, dseq: u64, time: i64, pending: u64) -> usize {
        let numbers = [deliveries, sseq, dseq, time.max(0).unsigned_abs(), pending];
        self.prefix.len() + 4 + numbers.iter().map(|n| digits(*n)).sum::<usize>()
    }
}

#[inline]
fn digits(n: u64) -> usize {
    n.checked_ilog10().map_or(1, |d| d as usize + 1)
}

/// All numbers of two digits, one after the other.
const PAIRS: [u8; 200] = {
    let (mut all, mut i) = ([0; 200], 0);
    while i < 100 {
        (all[2 * i], all[2 * i + 1]) = (b'0' + (i / 10) as u8, b'0' + (i % 10) as u8);
        i += 1;
    }
    all
};

/// Writes a number that ends before `at`; where it begins. Eight digits at a time, which do not wait for each other.
#[inline]
fn decimal(text: &mut [u8], mut at: usize, mut n: u64) -> usize {
    let mut pair = |at: usize, two: u32| {
        text[at..at + 2].copy_from_slice(&PAIRS[2 * two as usize..2 * two as usize + 2]);
    };
    while n >= 100_000_000 {
        let low = (n % 100_000_000) as u32;
        n /= 100_000_000;
        at -= 8;
        let (a, b) = (low / 10_000, low % 10_000);
        [a / 100, a % 100, b / 100, b % 100]
            .into_iter()
            .enumerate()
            .for_each(|(i, two)| pair(at + 2 * i, two));
    }
    let mut n = n as u32;
    while n >= 100 {
        at -= 2;
        pair(at, n % 100);
        n /= 100;
    }
    if n >= 10 {
        pair(at - 2, n);
        return at - 2;
    }
    text[at - 1] = b'0' + n as u8;
    at - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_they_are_written() {
        let mut text = Vec::new();
        for n in (0..64).flat_map(|b| [1u64 << b, (1 << b) - 1, (1 << b) | 0x0123_4567_89ab_cdef]).chain([
            u64::MAX,
            12_345_678,
            87_654_321,
        ]) {
            let mut room = [0; 20];
            let at = decimal(&mut room, 20, n);
            text.clear();
            text.extend_from_slice(&room[at..]);
            assert_eq!((text.len(), number(&text)), (digits(n), Some(n)));
            for at in 0..text.len() {
                for bad in [b'/', b':', b'.', b'?', 0, 0xb5, 0xff] {
                    let was = std::mem::replace(&mut text[at], bad);
                    assert_eq!(number(&text), None, "{text:?}");
                    text[at] = was;
                }
            }
        }
        assert_eq!(
            (number(b""), number(b"18446744073709551616"), number(b"00000000000000000000000042")),
            (None, None, Some(42))
        );
        let t = AckTokens::of_numbers(b"S", b"C", b"2.7.9.1700000000000000000.5");
        assert_eq!(t, AckTokens::parse(b"$JS.ACK.S.C.2.7.9.1700000000000000000.5"));
        for bad in ["2.7.9.1700000000000000000", "2.7.9.1700000000000000000.5.6", "2.7.9..5", "", "a.7.9.1.5"]
        {
            assert_eq!(AckTokens::of_numbers(b"S", b"C", bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn both_layouts_are_read_and_others_refused() {
        let v1 = AckTokens::parse(b"$JS.ACK.ORDERS.c1.2.7.9.1700000000000000000.5").unwrap();
        assert_eq!((v1.stream, v1.consumer), (&b"ORDERS"[..], &b"c1"[..]));
        assert_eq!(
            (v1.deliveries, v1.sseq, v1.dseq, v1.time, v1.pending),
            (2, 7, 9, 1_700_000_000_000_000_000, 5)
        );
        let v2 = AckTokens::parse(b"$JS.ACK._.abcdefgh.ORDERS.c1.2.7.9.1700000000000000000.5").unwrap();
        assert_eq!((v1.place, v2.place), (None, Some([&b"_"[..], b"abcdefgh"])));
        assert_eq!(v1, AckTokens { place: None, ..v2 });
        let v3 = AckTokens::parse(b"$JS.ACK.hub.abcdefgh.ORDERS.c1.2.7.9.1700000000000000000.5.more.tokens")
            .unwrap();
        assert_eq!(v1, AckTokens { place: None, ..v3 });
        assert_eq!(v3.place, Some([&b"hub"[..], b"abcdefgh"]));
        for bad in [
            &b"$JS.ACK.S.c.1.2.3.4"[..],
            b"$JS.ACK.S.c.1.2.3.4.5.6",
            b"$JS.ACK.S.c.1.-2.3.4.5",
            b"$JS.ACK.S.c.1.2.3.99999999999999999999.5",
            b"$JS.ACK.S.c.1.2..4.5",
            b"$JS.API.S.c.1.2.3.4.5",
            b"",
        ] {
            assert_eq!(AckTokens::parse(bad), None, "{}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let subject = AckSubject::new(b"S", b"c");
        for n in [0, 1, 9, 10, 99, 100, 101, 12345, u64::MAX] {
            let mut text = Vec::new();
            subject.write(&mut text, 1, n, 3, 1_234, 0);
            assert_eq!(text, format!("$JS.ACK.S.c.1.{n}.3.1234.0").into_bytes());
            assert_eq!(text.len(), subject.len(1, n, 3, 1_234, 0));
        }
    }

    #[test]
    fn payloads_are_read() {
        for (payload, kind) in [
            (&b""[..], AckKind::Ack),
            (b"+ACK", AckKind::Ack),
            (b"+OK", AckKind::Ack),
            (b"-NAK", AckKind::Nak(None)),
            (b"-NAK 5s", AckKind::Nak(Some(5_000_000_000))),
            (b"-NAK {\"delay\": 7}", AckKind::Nak(Some(7))),
            (b"-NAK nonsense", AckKind::Nak(None)),
            (b"+WPI", AckKind::Progress),
            (b"+NXT 5", AckKind::Next(b" 5")),
            (b"+TERM", AckKind::Term(b"")),
            (b"+TERM because", AckKind::Term(b"because")),
            (b"hello", AckKind::Unknown),
        ] {
            assert_eq!(AckKind::parse(payload), kind);
        }
    }
}
