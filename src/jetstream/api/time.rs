//! Times as the API writes them: RFC 3339 in UTC with the nanoseconds that are not zero at the end.
//!
//! Owns the type and its text. Does not read a clock.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use stream::time::{date, days_in, days_since_1970};

use super::strict::quoted;

/// The seconds from year 1 to 1970: the zero time of the API lies that far before 1970.
const YEAR_ONE: i64 = -62_135_596_800;
const NANOS: i64 = 1_000_000_000;

/// A moment, from year 0 to year 9999, to the nanosecond.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Time {
    /// Whole seconds since 1970.
    secs: i64,
    /// Nanoseconds after them.
    nanos: u32,
}

impl Default for Time {
    fn default() -> Time {
        Time::ZERO
    }
}

impl Time {
    /// The API's "never": `0001-01-01T00:00:00Z`.
    pub const ZERO: Time = Time { secs: YEAR_ONE, nanos: 0 };

    /// The moment that lies so many nanoseconds after 1970.
    pub fn from_nanos(nanos: i64) -> Time {
        let below = u32::try_from(nanos.rem_euclid(NANOS)).expect("a remainder below 10^9 fits");
        Time { secs: nanos.div_euclid(NANOS), nanos: below }
    }

    /// As [`Time::from_nanos`], but 0 is "never".
    pub fn or_never(nanos: i64) -> Time {
        if nanos == 0 { Time::ZERO } else { Time::from_nanos(nanos) }
    }

    /// Whether it is the zero time.
    pub fn is_zero(self) -> bool {
        self == Time::ZERO
    }

    /// Nanoseconds since 1970, held at the ends of what 64 bits can say (1677 to 2262).
    pub fn nanos(self) -> i64 {
        let wide = i128::from(self.secs) * i128::from(NANOS) + i128::from(self.nanos);
        i64::try_from(wide).unwrap_or(if wide < 0 { i64::MIN } else { i64::MAX })
    }

    /// Appends the text. For hot paths: [`fmt::Display`] is slower.
    pub fn push(self, out: &mut Vec<u8>) {
        let two = |out: &mut Vec<u8>, n: i64| {
            let n = u8::try_from(n).expect("parts of a time have two digits");
            out.extend_from_slice(&[b'0' + n / 10, b'0' + n % 10]);
        };
        let (year, month, day) = date(self.secs.div_euclid(86_400));
        let of_day = self.secs.rem_euclid(86_400);
        two(out, year / 100);
        two(out, year % 100);
        for (mark, part) in
            [(b'-', month), (b'-', day), (b'T', of_day / 3600), (b':', of_day / 60 % 60), (b':', of_day % 60)]
        {
            out.push(mark);
            two(out, part);
        }
        if self.nanos != 0 {
            out.push(b'.');
            let (mut digits, mut left) = ([b'0'; 9], self.nanos);
            for d in digits.iter_mut().rev() {
                *d += (left % 10) as u8;
                left /= 10;
            }
            let zeros = digits.iter().rev().take_while(|d| **d == b'0').count();
            out.extend_from_slice(&digits[..digits.len() - zeros]);
        }
        out.push(b'Z');
    }

    /// Reads an RFC 3339 time with any offset, as leniently as the API does: an hour may have one digit, and a comma may
    /// stand before the fraction. Nanoseconds are kept, finer digits dropped.
    pub fn parse(text: &str) -> Option<Time> {
        read(text).ok()
    }
}

/// What is wrong with a time.
enum Wrong<'a> {
    /// Another thing was expected where the rest begins.
    At(&'a str, &'static str),
    /// A part is out of range.
    Range(&'static str),
    /// There is more than a time.
    Extra(&'a str),
}

/// Whether a text is a time.
///
/// # Errors
/// What the API says of it if not.
pub fn explain(text: &str) -> Result<(), String> {
    let Err(wrong) = read(text) else { return Ok(()) };
    Err(match wrong {
        Wrong::At(rest, expected) => {
            format!(
                "parsing time {} as \"2006-01-02T15:04:05Z07:00\": cannot parse {} as \"{expected}\"",
                quoted(text),
                quoted(rest)
            )
        }
        Wrong::Range(part) => format!("parsing time {}: {part} out of range", quoted(text)),
        Wrong::Extra(rest) => format!("parsing time {}: extra text: {}", quoted(text), quoted(rest)),
    })
}

/// Takes a text apart from its beginning.
struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    /// A number of so many digits; `expected` names it when it is not there.
    fn digits(&mut self, count: usize, expected: &'static str) -> Result<i64, Wrong<'a>> {
        let digits = self.rest.get(..count).filter(|d| d.bytes().all(|c| c.is_ascii_digit()));
        let digits = digits.ok_or(Wrong::At(self.rest, expected))?;
        let n = digits.parse().map_err(|_| Wrong::At(self.rest, expected))?;
        self.rest = &self.rest[count..];
        Ok(n)
    }

    fn mark(&mut self, mark: char, name: &'static str) -> Result<(), Wrong<'a>> {
        self.rest = self.rest.strip_prefix(mark).ok_or(Wrong::At(self.rest, name))?;
        Ok(())
    }

    fn hour(&mut self) -> Result<i64, Wrong<'a>> {
        let one = self.rest.as_bytes().get(1).is_none_or(|c| !c.is_ascii_digit());
        self.digits(if one { 1 } else { 2 }, "15")
    }

    fn fraction(&mut self) -> u32 {
        let Some(after) = self.rest.strip_prefix(['.', ',']) else { return 0 };
        let digits = after.bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 {
            return 0;
        }
        self.rest = &after[digits..];
        let nano = |i: usize| if i < digits { u32::from(after.as_bytes()[i] - b'0') } else { 0 };
        (0..9).fold(0, |n, i| n * 10 + nano(i))
    }

    /// Seconds east of UTC.
    fn zone(&mut self) -> Result<i64, Wrong<'a>> {
        if let Some(rest) = self.rest.strip_prefix('Z') {
            self.rest = rest;
            return Ok(0);
        }
        let bad = Wrong::At(self.rest, "Z07:00");
        let zone = self.rest.get(..6).filter(|z| z.as_bytes()[3] == b':');
        let (Some(zone), Some(rest)) = (zone, self.rest.get(6..)) else { return Err(bad) };
        let number = |from: usize| {
            let digits = zone.get(from..from + 2).filter(|d| d.bytes().all(|c| c.is_ascii_digit()))?;
            digits.parse::<i64>().ok()
        };
        let (sign, Some(hours), Some(minutes)) = (zone.as_bytes()[0], number(1), number(4)) else {
            return Err(bad);
        };
        let east = match sign {
            b'+' => 1,
            b'-' => -1,
            _ => return Err(bad),
        };
        if hours > 24 {
            return Err(Wrong::Range("time zone offset hour"));
        }
        if minutes > 60 {
            return Err(Wrong::Range("time zone offset minute"));
        }
        self.rest = rest;
        Ok(east * (hours * 3600 + minutes * 60))
    }
}

fn read(text: &str) -> Result<Time, Wrong<'_>> {
    let mut reader = Reader { rest: text };
    let check = |fine: bool, part: &'static str| if fine { Ok(()) } else { Err(Wrong::Range(part)) };
    let year = reader.digits(4, "2006")?;
    reader.mark('-', "-")?;
    let month = reader.digits(2, "01")?;
    check((1..=12).contains(&month), "month")?;
    reader.mark('-', "-")?;
    let day = reader.digits(2, "02")?;
    reader.mark('T', "T")?;
    let hour = reader.hour()?;
    check(hour < 24, "hour")?;
    reader.mark(':', ":")?;
    let minute = reader.digits(2, "04")?;
    check(minute < 60, "minute")?;
    reader.mark(':', ":")?;
    let second = reader.digits(2, "05")?;
    check(second < 60, "second")?;
    let nanos = reader.fraction();
    let offset = reader.zone()?;
    if !reader.rest.is_empty() {
        return Err(Wrong::Extra(reader.rest));
    }
    check((1..=days_in(year, month)).contains(&day), "day")?;
    let secs = days_since_1970(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset;
    // An offset can reach out of the years that have four digits; it does not get there.
    Ok(Time {
        secs: secs.clamp(days_since_1970(0, 1, 1) * 86_400, days_since_1970(9999, 12, 31) * 86_400 + 86_399),
        nanos,
    })
}

/// The longest text, with zeros for digits.
const BLANK: [u8; 30] = *b"0000-00-00T00:00:00.000000000Z";

impl Time {
    /// The text, in a buffer of the caller's: each answer about a stream has several, and the formatter takes longer for them than for all the rest.
    fn text<'a>(&self, out: &'a mut [u8; BLANK.len()]) -> &'a str {
        *out = BLANK;
        let (year, month, day) = date(self.secs.div_euclid(86_400));
        let of_day = self.secs.rem_euclid(86_400);
        let mut put = |at: usize, width: usize, mut n: i64| {
            for place in out[at..at + width].iter_mut().rev() {
                *place = b'0' + u8::try_from(n.rem_euclid(10)).expect("a digit");
                n /= 10;
            }
        };
        put(0, 4, year);
        put(5, 2, month);
        put(8, 2, day);
        put(11, 2, of_day / 3600);
        put(14, 2, of_day / 60 % 60);
        put(17, 2, of_day % 60);
        put(20, 9, i64::from(self.nanos));
        // Without the zeros at the end, and without the point if there is nothing behind it.
        let mut end = if self.nanos == 0 { 19 } else { 29 };
        while end > 20 && out[end - 1] == b'0' {
            end -= 1;
        }
        out[end] = b'Z';
        str::from_utf8(&out[..=end]).expect("digits and marks")
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text(&mut BLANK.clone()))
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.text(&mut BLANK.clone()))
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Time, D::Error> {
        let text = String::deserialize(from)?;
        Time::parse(&text).ok_or_else(|| serde::de::Error::custom("not a time of RFC 3339"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_round_trip() {
        for text in [
            "0001-01-01T00:00:00Z",
            "0000-02-29T00:00:00Z",
            "1970-01-01T00:00:00Z",
            "1969-12-31T23:59:59.999999999Z",
            "2024-02-29T23:59:59.5Z",
            "2026-11-21T07:34:33.033085852Z",
            "9999-12-31T23:59:59.000000001Z",
        ] {
            assert_eq!(Time::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(
            Time::parse("2024-01-01T01:02:03.4500+02:00").unwrap().to_string(),
            "2023-12-31T23:02:03.45Z"
        );
        assert_eq!(Time::from_nanos(1_700_000_000_000_000_001).to_string(), "2023-11-14T22:13:20.000000001Z");
        assert_eq!(
            Time::parse("2023-11-14T22:13:20.0000000019Z").unwrap().nanos(),
            1_700_000_000_000_000_001
        );
        assert_eq!(Time::parse("9999-01-01T00:00:00Z").unwrap().nanos(), i64::MAX);
        assert!(Time::or_never(0).is_zero());
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "2024-01-01",
            "2024-01-01T00:00:00",
            "2024-13-01T00:00:00Z",
            "2024-00-01T00:00:00Z",
            "2023-02-29T00:00:00Z",
            "2024-01-01T24:00:00Z",
            "2024-01-01T00:60:00Z",
            "2024-01-01T00:00:60Z",
            "2024-01-01T00:00:00.Z",
            "2024-01-01t00:00:00Z",
            "2024-01-01T00:00:00+25:00",
            "2024-01-01T00:00:00Zx",
            "2024-01-01T00:00:00+0100",
            "20é4-01-01T00:00:00Z",
        ] {
            assert_eq!(Time::parse(text), None, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_moment_round_trips(nanos: i64) {
            let time = Time::from_nanos(nanos);
            let mut text = Vec::new();
            time.push(&mut text);
            proptest::prop_assert_eq!(String::from_utf8(text).unwrap(), time.to_string());
            proptest::prop_assert_eq!(time.nanos(), nanos);
            proptest::prop_assert_eq!(Time::parse(&time.to_string()), Some(time));
        }
    }
}
