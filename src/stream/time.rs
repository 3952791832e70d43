//! Times and durations as NATS writes them: RFC 3339 with nanoseconds, and Go's duration texts.
//!
//! Reads no clock: every time comes in as data. Nanoseconds since 1970, UTC, as `i64` (years 1678 to 2262).

use std::fmt::{self, Write as _};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Nanoseconds in a second.
pub const SECOND: i64 = 1_000_000_000;
/// Nanoseconds in a millisecond.
pub const MILLISECOND: i64 = 1_000_000;

/// A point in time with the offset from UTC that it was written with, so that it is shown as it was given.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Time {
    /// Nanoseconds since 1970, UTC.
    pub ns: i64,
    /// Seconds east of UTC.
    pub offset: i32,
}

impl Time {
    /// The beginning of the year 1, which clients write for "no time". It is out of range but for this.
    pub const ZERO: Time = Time { ns: i64::MIN, offset: 0 };

    /// Whether it is the "no time" of clients.
    pub fn is_zero(self) -> bool {
        self.ns == i64::MIN
    }

    /// A time in UTC.
    pub const fn utc(ns: i64) -> Time {
        Time { ns, offset: 0 }
    }

    /// Reads RFC 3339, with or without a fraction of up to nine digits. `None` also for times out of range.
    pub fn parse(text: &str) -> Option<Time> {
        let b = text.as_bytes();
        let digits = |from: usize, to: usize| -> Option<i64> {
            let part = b.get(from..to)?;
            part.iter().try_fold(0i64, |n, d| d.is_ascii_digit().then(|| n * 10 + i64::from(d - b'0')))
        };
        let at = |i: usize, c: u8| b.get(i) == Some(&c);
        if !(at(4, b'-') && at(7, b'-') && at(10, b'T') && at(13, b':') && at(16, b':')) {
            return None;
        }
        let (year, month, day) = (digits(0, 4)?, digits(5, 7)?, digits(8, 10)?);
        let (hour, minute, second) = (digits(11, 13)?, digits(14, 16)?, digits(17, 19)?);
        if !(1..=12).contains(&month)
            || day < 1
            || day > days_in(year, month)
            || hour > 23
            || minute > 59
            || second > 59
        {
            return None;
        }
        let mut i = 19;
        let mut fraction = 0i64;
        if at(i, b'.') || at(i, b',') {
            let start = i + 1;
            i = start;
            while b.get(i).is_some_and(u8::is_ascii_digit) {
                // What is finer than a nanosecond is cut off.
                if i - start < 9 {
                    fraction = fraction * 10 + i64::from(b[i] - b'0');
                }
                i += 1;
            }
            if i == start {
                return None;
            }
            for _ in (i - start).min(9)..9 {
                fraction *= 10;
            }
        }
        let offset = match b.get(i)? {
            b'Z' if b.len() == i + 1 => 0,
            sign @ (b'+' | b'-') if b.len() == i + 6 && at(i + 3, b':') => {
                let (h, m) = (digits(i + 1, i + 3)?, digits(i + 4, i + 6)?);
                if h > 24 || m > 59 {
                    return None;
                }
                let east = h * 3600 + m * 60;
                if *sign == b'-' { -east } else { east }
            }
            _ => return None,
        };
        let secs = days_since_1970(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset;
        if (year, month, day, hour, minute, second) == (1, 1, 1, 0, 0, 0) {
            return Some(Time::ZERO);
        }
        let ns = secs.checked_mul(SECOND)?.checked_add(fraction)?;
        Some(Time { ns, offset: i32::try_from(offset).ok()? })
    }
}

impl fmt::Display for Time {
    /// RFC 3339 with as many digits of the fraction as are needed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_zero() {
            return f.write_str("0001-01-01T00:00:00Z");
        }
        let local = self.ns.div_euclid(SECOND) + i64::from(self.offset);
        let (year, month, day) = date(local.div_euclid(86_400));
        let s = local.rem_euclid(86_400);
        write!(f, "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60)?;
        let mut fraction = self.ns.rem_euclid(SECOND);
        if fraction != 0 {
            let mut width = 9;
            while fraction % 10 == 0 {
                fraction /= 10;
                width -= 1;
            }
            write!(f, ".{fraction:0width$}")?;
        }
        match self.offset {
            0 => f.write_char('Z'),
            o => {
                let (sign, o) = if o < 0 { ('-', -o) } else { ('+', o) };
                write!(f, "{sign}{:02}:{:02}", o / 3600, o / 60 % 60)
            }
        }
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Time, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(d)?;
        Time::parse(&text)
            .ok_or_else(|| serde::de::Error::custom(format_args!("parsing time {text:?}: not RFC 3339")))
    }
}

/// Nanoseconds since 1970 as RFC 3339 in UTC.
pub fn rfc3339(ns: i64) -> String {
    Time::utc(ns).to_string()
}

fn leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

/// How many days a month has.
pub fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 to a date of the proleptic Gregorian calendar.
pub fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    // Years that begin in March: the leap day is then a year's last.
    let y = if month <= 2 { year - 1 } else { year };
    let m = (month + 9) % 12;
    let in_year = (153 * m + 2) / 5 + day - 1;
    365 * y + y.div_euclid(4) - y.div_euclid(100) + y.div_euclid(400) + in_year - 719_468
}

/// The date that is so many days after 1970-01-01.
pub fn date(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let in_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let m = (5 * in_year + 2) / 153;
    let day = in_year - (153 * m + 2) / 5 + 1;
    let month = if m < 10 { m + 3 } else { m - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

/// Reads a duration as Go does: `1h30m`, `1.5s`, `-2ms`, `0`. `None` if it is none or out of range.
pub fn parse_duration(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: i64 = 0;
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(number_end);
        let unit_end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, next) = after.split_at(unit_end);
        let unit: i64 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => MILLISECOND,
            "s" => SECOND,
            "m" => 60 * SECOND,
            "h" => 3600 * SECOND,
            _ => return None,
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
            return None;
        }
        let whole: i64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        total = total.checked_add(whole.checked_mul(unit)?)?;
        let mut part: i128 = 0;
        let mut divisor: i128 = 1;
        for d in fraction.bytes().take(18) {
            part = part * 10 + i128::from(d - b'0');
            divisor *= 10;
        }
        total = total.checked_add(i64::try_from(part * i128::from(unit) / divisor).ok()?)?;
        rest = next;
    }
    Some(if negative { -total } else { total })
}

/// Writes a duration as Go does: `2m0s`, `1.5s`, `100ms`, `0s`.
pub fn duration(ns: i64) -> String {
    let mut out = String::new();
    let n = ns.unsigned_abs();
    if ns < 0 {
        out.push('-');
    }
    let fraction = |out: &mut String, whole: u64, part: u64, width: usize, unit: &str| {
        let _ = write!(out, "{whole}");
        if part != 0 {
            let text = format!("{part:0width$}");
            let _ = write!(out, ".{}", text.trim_end_matches('0'));
        }
        out.push_str(unit);
    };
    match n {
        0 => out.push_str("0s"),
        1..1_000 => fraction(&mut out, n, 0, 0, "ns"),
        1_000..1_000_000 => fraction(&mut out, n / 1_000, n % 1_000, 3, "µs"),
        1_000_000..1_000_000_000 => fraction(&mut out, n / 1_000_000, n % 1_000_000, 6, "ms"),
        _ => {
            let (secs, part) = (n / 1_000_000_000, n % 1_000_000_000);
            let (h, m, s) = (secs / 3600, secs / 60 % 60, secs % 60);
            if h > 0 {
                let _ = write!(out, "{h}h");
            }
            if h > 0 || m > 0 {
                let _ = write!(out, "{m}m");
            }
            fraction(&mut out, s, part, 9, "s");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_and_show_the_same() {
        for (text, ns) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2026-11-21T07:50:01.5Z", 1_795_247_401_500_000_000),
            ("2000-02-29T23:59:59.000000001Z", 951_868_799_000_000_001),
            ("1969-12-31T23:59:59.25Z", -750_000_000),
        ] {
            assert_eq!(Time::parse(text).unwrap().ns, ns, "{text}");
            assert_eq!(rfc3339(ns), text);
        }
        let t = Time::parse("2024-06-01T12:00:00+02:00").unwrap();
        assert_eq!(t.to_string(), "2024-06-01T12:00:00+02:00");
        assert_eq!(rfc3339(t.ns), "2024-06-01T10:00:00Z");
        for bad in [
            "",
            "2024-06-01",
            "2024-02-30T00:00:00Z",
            "2024-06-01T12:00:00",
            "2024-06-01 12:00:00Z",
            "9999-01-01T00:00:00Z",
        ] {
            assert_eq!(Time::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn durations_read_and_show_as_in_go() {
        for (text, ns) in [
            ("2m0s", 120 * SECOND),
            ("1h0m1.5s", 3601 * SECOND + SECOND / 2),
            ("100ms", 100 * MILLISECOND),
            ("1.000001s", SECOND + 1000),
            ("-3s", -3 * SECOND),
            ("1.5µs", 1500),
        ] {
            assert_eq!(parse_duration(text), Some(ns), "{text}");
            assert_eq!(duration(ns), text);
        }
        assert_eq!(parse_duration("1.5h"), Some(5400 * SECOND));
        assert_eq!(parse_duration("0"), Some(0));
        assert_eq!(duration(0), "0s");
        for bad in ["", "1", "s", ".s", "1x", "-", "1..5s", "9999999999h"] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
    }
}
