//! The machine's clocks.

use std::{
    sync::OnceLock,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::time::{Instant, Wall};

/// The origin of [`Instant`]: one second before the first reading, so that no reading is zero.
fn origin() -> std::time::Instant {
    static ORIGIN: OnceLock<std::time::Instant> = OnceLock::new();
    *ORIGIN.get_or_init(|| {
        let now = std::time::Instant::now();
        now.checked_sub(Duration::from_secs(1)).unwrap_or(now)
    })
}

#[inline]
pub fn now() -> Instant {
    Instant(origin().elapsed().as_nanos() as u64)
}

#[inline]
pub fn wall() -> Wall {
    Wall(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as i64))
}

pub async fn sleep_until(deadline: Instant) {
    let at = origin() + Duration::from_nanos(deadline.0);
    tokio::time::sleep_until(at.into()).await
}
