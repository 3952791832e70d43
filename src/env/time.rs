//! Clocks as data: a monotonic [`Instant`] and a wall clock [`Wall`], both plain integers of nanoseconds.

use std::{
    fmt,
    future::Future,
    ops::{Add, AddAssign, Sub},
    time::Duration,
};

use crate::imp;

/// A point on this node's monotonic clock, in nanoseconds since an arbitrary origin (never zero when read).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Instant(pub u64);

/// A point on this node's wall clock, in nanoseconds since 1970-01-01T00:00:00Z. It can jump.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Wall(pub i64);

/// The deadline of [`timeout`] passed first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Elapsed;

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("deadline has elapsed")
    }
}
impl std::error::Error for Elapsed {}

/// The monotonic clock.
#[inline]
pub fn now() -> Instant {
    imp::clock::now()
}

/// The wall clock.
#[inline]
pub fn wall() -> Wall {
    imp::clock::wall()
}

/// Waits until `deadline`.
pub async fn sleep_until(deadline: Instant) {
    imp::clock::sleep_until(deadline).await
}

/// Waits for `d`.
pub async fn sleep(d: Duration) {
    sleep_until(now() + d).await
}

/// Runs `f` for at most `d`.
pub async fn timeout<F: Future>(d: Duration, f: F) -> Result<F::Output, Elapsed> {
    let mut f = std::pin::pin!(f);
    crate::select! {
        v = &mut f => Ok(v),
        _ = sleep(d) => Err(Elapsed),
    }
}

impl Instant {
    /// The time from `earlier` to `self`; zero if `earlier` is later.
    pub fn since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
    /// The time since then.
    pub fn elapsed(self) -> Duration {
        now().since(self)
    }
}
impl Add<Duration> for Instant {
    type Output = Instant;
    fn add(self, d: Duration) -> Instant {
        Instant(self.0.saturating_add(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)))
    }
}
impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, d: Duration) {
        *self = *self + d
    }
}
impl Sub for Instant {
    type Output = Duration;
    fn sub(self, o: Instant) -> Duration {
        self.since(o)
    }
}

impl Wall {
    /// RFC 3339 in UTC with up to nine digits of fraction and no trailing zeros, as NATS prints times.
    pub fn rfc3339(self) -> String {
        let (secs, nanos) = (self.0.div_euclid(1_000_000_000), self.0.rem_euclid(1_000_000_000));
        let (y, mo, d) = civil_from_days(secs.div_euclid(86_400));
        let s = secs.rem_euclid(86_400);
        let mut out = format!("{y:04}-{mo:02}-{d:02}T{:02}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60);
        if nanos != 0 {
            let frac = format!(".{nanos:09}");
            out.push_str(frac.trim_end_matches('0'));
        }
        out.push('Z');
        out
    }
    /// `self + d`.
    pub fn plus(self, d: Duration) -> Wall {
        Wall(self.0.saturating_add(i64::try_from(d.as_nanos()).unwrap_or(i64::MAX)))
    }
    /// The time from `earlier` to `self`; zero if `earlier` is later.
    pub fn since(self, earlier: Wall) -> Duration {
        Duration::from_nanos(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}
impl fmt::Debug for Wall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.rfc3339())
    }
}

/// Year, month and day of a count of days since 1970-01-01 (proleptic Gregorian; Howard Hinnant's algorithm).
pub fn civil_from_days(days: i64) -> (i64, u32, u32) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let (d, m) = ((doy - (153 * mp + 2) / 5 + 1) as u32, (if mp < 10 { mp + 3 } else { mp - 9 }) as u32);
    (yoe + era * 400 + i64::from(m <= 2), m, d)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc3339_trims_zeros() {
        assert_eq!(Wall(0).rfc3339(), "1970-01-01T00:00:00Z");
        assert_eq!(Wall(1_700_000_000_120_000_000).rfc3339(), "2023-11-14T22:13:20.12Z");
        assert_eq!(Wall(951_782_400_000_000_001).rfc3339(), "2000-02-29T00:00:00.000000001Z");
        assert_eq!(Wall(-1).rfc3339(), "1969-12-31T23:59:59.999999999Z");
    }
}
