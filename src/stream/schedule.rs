//! Schedules: when a pattern fires next.
//!
//! Owns the patterns (`@at`, `@every`, the named ones, cron with six fields) and time zones. Time zones come from a table that is built
//! in, not from the host's files: the same log then gives the same times on every replica (J-4).

use jiff::Timestamp;
use jiff::tz::{TimeZone, TimeZoneDatabase};

use crate::errors::{self, ApiError};
use crate::headers::Asked;
use crate::time::{SECOND, Time, parse_duration};

/// When a schedule fires.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Fires {
    /// Nanoseconds since 1970. May be past: then at once.
    pub at: i64,
    /// Whether it fires again after that.
    pub again: bool,
}

/// When the schedule in these headers fires after `from`; `None` if there is none. A repeating one that has missed times fires once.
pub fn next(asked: &Asked<'_>, from: i64, now: i64) -> Result<Option<Fires>, ApiError> {
    let zone = match asked.schedule_zone {
        None => None,
        Some(name) => Some(zone(name).ok_or_else(|| errors::MESSAGE_SCHEDULES_TIME_ZONE_INVALID.error())?),
    };
    if asked.schedule.is_empty() {
        return Ok(None);
    }
    let pattern = std::str::from_utf8(asked.schedule).ok();
    let fires = pattern.and_then(|p| fires(p, zone, from, now));
    fires.map(Some).ok_or_else(|| errors::MESSAGE_SCHEDULES_PATTERN_INVALID.error())
}

fn zone(name: &[u8]) -> Option<TimeZone> {
    let name = std::str::from_utf8(name).ok()?;
    match name {
        "" => None,
        // A server has no place; the host's zone is nobody's business.
        "Local" | "UTC" => Some(TimeZone::UTC),
        _ => TimeZoneDatabase::bundled().get(name).ok(),
    }
}

/// To the nearest second.
fn round(ns: i64) -> i64 {
    (ns.saturating_add(SECOND / 2)).div_euclid(SECOND) * SECOND
}

fn fires(pattern: &str, zone: Option<TimeZone>, from: i64, now: i64) -> Option<Fires> {
    if let Some(text) = pattern.strip_prefix("@at ") {
        return zone.is_none().then(|| Time::parse(text))?.map(|t| Fires { at: t.ns, again: false });
    }
    if let Some(text) = pattern.strip_prefix("@every ") {
        let every = parse_duration(text).filter(|d| *d >= SECOND && zone.is_none())?;
        let at = round(from).checked_add(every)?;
        let at = if at < now { round(now).checked_add(every)? } else { at };
        return Some(Fires { at, again: true });
    }
    let cron = Cron::parse(match pattern {
        "@yearly" | "@annually" => "0 0 0 1 1 *",
        "@monthly" => "0 0 0 1 * *",
        "@weekly" => "0 0 0 * * 0",
        "@daily" | "@midnight" => "0 0 0 * * *",
        "@hourly" => "0 0 * * * *",
        other => other,
    })?;
    let zone = zone.unwrap_or(TimeZone::UTC);
    let at = cron.after(&zone, from)?;
    let at = if at < now { cron.after(&zone, round(now))? } else { at };
    Some(Fires { at, again: true })
}

/// A field's values as bits, and whether it was left open by a star.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Field {
    bits: u64,
    star: bool,
}

impl Field {
    fn has(self, n: i64) -> bool {
        u32::try_from(n).is_ok_and(|n| n < 64 && self.bits >> n & 1 == 1)
    }

    /// A list of ranges: `*`, `n`, `a-b`, each with `/step`.
    fn parse(text: &str, min: u32, max: u32, names: &[&str]) -> Option<Field> {
        let value = |text: &str| -> Option<u32> {
            if let Some(i) = names.iter().position(|n| n.eq_ignore_ascii_case(text)) {
                return u32::try_from(i).ok()?.checked_add(min);
            }
            text.strip_prefix('+').unwrap_or(text).parse().ok()
        };
        let mut field = Field { bits: 0, star: false };
        for part in text.split(',').filter(|p| !p.is_empty()) {
            let mut halves = part.split('/');
            let (range, step) = (halves.next()?, halves.next());
            if halves.next().is_some() {
                return None;
            }
            let mut ends = range.split('-');
            let (low, high) = (ends.next()?, ends.next());
            if ends.next().is_some() {
                return None;
            }
            let star = low == "*" || low == "?";
            let (first, mut last) = if star {
                (min, max)
            } else {
                let first = value(low)?;
                (first, high.map_or(Some(first), value)?)
            };
            let step = match step {
                None => 1,
                Some(s) => {
                    // `n/step` runs to the end.
                    if high.is_none() {
                        last = max;
                    }
                    value_of_step(s)?
                }
            };
            if first < min || last > max || first > last || step == 0 {
                return None;
            }
            field.star |= star && step == 1;
            let mut n = first;
            while n <= last {
                field.bits |= 1 << n;
                n = n.saturating_add(step);
            }
        }
        Some(field)
    }
}

fn value_of_step(text: &str) -> Option<u32> {
    text.strip_prefix('+').unwrap_or(text).parse().ok()
}

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

struct Cron {
    second: Field,
    minute: Field,
    hour: Field,
    day: Field,
    month: Field,
    weekday: Field,
}

impl Cron {
    fn parse(text: &str) -> Option<Cron> {
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [second, minute, hour, day, month, weekday] = fields[..] else { return None };
        Some(Cron {
            second: Field::parse(second, 0, 59, &[])?,
            minute: Field::parse(minute, 0, 59, &[])?,
            hour: Field::parse(hour, 0, 23, &[])?,
            day: Field::parse(day, 1, 31, &[])?,
            month: Field::parse(month, 1, 12, &MONTHS)?,
            weekday: Field::parse(weekday, 0, 6, &DAYS)?,
        })
    }

    /// If one of the two day fields was left open, the other decides; else either is enough.
    fn on(&self, day: i64, weekday: i64) -> bool {
        let (a, b) = (self.day.has(day), self.weekday.has(weekday));
        if self.day.star || self.weekday.star { a && b } else { a || b }
    }

    /// The first time after `from` that matches, within five years. Steps over what cannot match in the largest unit, in absolute time: an
    /// hour that a change of the clocks skips never matches, one that comes twice matches twice.
    fn after(&self, zone: &TimeZone, from: i64) -> Option<i64> {
        let mut t = Timestamp::from_second(from.div_euclid(SECOND) + 1).ok()?.to_zoned(zone.clone());
        let limit = t.year() + 5;
        loop {
            if t.year() > limit {
                return None;
            }
            let next = if !self.month.has(i64::from(t.month())) {
                t.date().last_of_month().tomorrow().ok()?.to_zoned(zone.clone()).ok()?
            } else if !self.on(i64::from(t.day()), i64::from(t.weekday().to_sunday_zero_offset())) {
                t.date().tomorrow().ok()?.to_zoned(zone.clone()).ok()?
            } else {
                let (hour, minute, second) =
                    (i64::from(t.hour()), i64::from(t.minute()), i64::from(t.second()));
                let step = if !self.hour.has(hour) {
                    3600 - minute * 60 - second
                } else if !self.minute.has(minute) {
                    60 - second
                } else if !self.second.has(second) {
                    1
                } else {
                    return t.timestamp().as_second().checked_mul(SECOND);
                };
                let at = t.timestamp().as_second() + step;
                Timestamp::from_second(at).ok()?.to_zoned(zone.clone())
            };
            // A day whose midnight a change of the clocks skips begins later; never earlier than where we are.
            t = if next > t { next } else { return None };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> i64 {
        Time::parse(text).unwrap().ns
    }

    fn first(pattern: &str, zone: Option<&str>, from: &str) -> Result<String, u16> {
        let asked = Asked {
            schedule: pattern.as_bytes(),
            schedule_zone: zone.map(str::as_bytes),
            ..Asked::default()
        };
        let from = at(from);
        match next(&asked, from, from) {
            Ok(fires) => Ok(crate::time::rfc3339(fires.unwrap().at)),
            Err(e) => Err(e.err_code),
        }
    }

    #[test]
    fn patterns_fire_when_they_say() {
        let from = "2026-11-21T07:50:01.7Z";
        for (pattern, zone, fires) in [
            ("@at 2030-01-01T00:00:00Z", None, "2030-01-01T00:00:00Z"),
            ("@every 90s", None, "2026-11-21T07:51:32Z"),
            ("@hourly", None, "2026-11-21T08:00:00Z"),
            ("@daily", None, "2026-11-22T00:00:00Z"),
            ("@weekly", None, "2026-11-22T00:00:00Z"),
            ("@monthly", None, "2026-12-01T00:00:00Z"),
            ("@yearly", None, "2027-01-01T00:00:00Z"),
            ("*/10 * * * * *", None, "2026-11-21T07:50:10Z"),
            ("0 30 9 * * mon-fri", Some("America/New_York"), "2026-11-23T14:30:00Z"),
            ("0 0 0 29 feb *", None, "2028-02-29T00:00:00Z"),
            ("0 0 12 13 * FRI", None, "2026-11-27T12:00:00Z"),
            ("5,10 0 7/8 * * ?", None, "2026-11-21T15:00:05Z"),
        ] {
            assert_eq!(first(pattern, zone, from).as_deref(), Ok(fires), "{pattern}");
        }
    }

    #[test]
    fn changes_of_the_clocks() {
        let zone = Some("Europe/Berlin");
        // 02:30 is skipped on 2026-03-29 and comes twice on 2026-10-25.
        assert_eq!(
            first("0 30 2 * * *", zone, "2026-03-28T12:00:00Z").as_deref(),
            Ok("2026-03-30T00:30:00Z")
        );
        assert_eq!(
            first("0 30 2 * * *", zone, "2026-10-25T00:00:00Z").as_deref(),
            Ok("2026-10-25T00:30:00Z")
        );
        assert_eq!(
            first("0 30 2 * * *", zone, "2026-10-25T00:30:00Z").as_deref(),
            Ok("2026-10-25T01:30:00Z")
        );
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        let pattern = errors::MESSAGE_SCHEDULES_PATTERN_INVALID.err_code;
        for bad in [
            "x",
            "@at now",
            "@every 999ms",
            "@every",
            "* * * * *",
            "60 * * * * *",
            "* * * 0 * *",
            "5-1 * * * * *",
            "*/0 * * * * *",
            "1/2/3 * * * * *",
            "1-2-3 * * * * *",
            "0 0 0 31 feb *",
            "-1 * * * * *",
        ] {
            assert_eq!(first(bad, None, "2026-11-21T07:50:01Z"), Err(pattern), "{bad}");
        }
        assert_eq!(first("@every 5s", Some("UTC"), "2026-11-21T07:50:01Z"), Err(pattern));
        let zone = errors::MESSAGE_SCHEDULES_TIME_ZONE_INVALID.err_code;
        assert_eq!(first("@hourly", Some("Mars/Olympus"), "2026-11-21T07:50:01Z"), Err(zone));
        assert_eq!(first("@hourly", Some(""), "2026-11-21T07:50:01Z"), Err(zone));
    }

    #[test]
    fn missed_times_fire_once() {
        let asked = Asked { schedule: b"@every 10s", ..Asked::default() };
        let (from, now) = (at("2026-01-01T00:00:00Z"), at("2026-01-01T00:05:03Z"));
        assert_eq!(next(&asked, from, now).unwrap().unwrap().at, at("2026-01-01T00:05:13Z"));
    }
}
