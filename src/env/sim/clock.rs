//! Each machine's clocks: the run's virtual time, with a drift and an offset of its own.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use super::world::{self, World};
use crate::time::{Instant, Wall};

/// Where a machine's clocks stood at a virtual time, and how fast they run.
#[derive(Clone, Copy, Debug)]
pub struct ClockState {
    since: u64,
    mono: u64,
    wall: i64,
    /// Parts per million that this clock is fast.
    pub ppm: i64,
}

/// 2026-01-01T00:00:00Z, where every run begins.
const EPOCH: i64 = 1_767_225_600_000_000_000;
/// The first reading of a process's monotonic clock, as in production.
const MONO_START: u64 = 1_000_000_000;

impl ClockState {
    pub fn new() -> ClockState {
        ClockState { since: 0, mono: MONO_START, wall: EPOCH, ppm: 0 }
    }
    fn passed(&self, t: u64) -> u64 {
        let d = i128::from(t.saturating_sub(self.since));
        u64::try_from(d + d * i128::from(self.ppm) / 1_000_000).unwrap_or(0)
    }
    pub fn mono(&self, t: u64) -> u64 {
        self.mono + self.passed(t)
    }
    pub fn wall(&self, t: u64) -> i64 {
        self.wall.saturating_add(self.passed(t) as i64)
    }
    fn rebase(&mut self, t: u64) {
        *self = ClockState { since: t, mono: self.mono(t), wall: self.wall(t), ppm: self.ppm };
    }
    pub fn set_ppm(&mut self, t: u64, ppm: i64) {
        self.rebase(t);
        self.ppm = ppm;
    }
    pub fn jump(&mut self, t: u64, ns: i64) {
        self.rebase(t);
        self.wall = self.wall.saturating_add(ns);
    }
    /// A new process has a monotonic clock of its own.
    pub fn restart(&mut self, t: u64) {
        self.rebase(t);
        self.mono = MONO_START;
    }
    /// The virtual time that has to pass until this clock has gone `d` further, rounded up.
    fn real(&self, d: u64) -> u64 {
        let rate = 1_000_000 + i128::from(self.ppm);
        u64::try_from((i128::from(d) * 1_000_000 + rate - 1) / rate).unwrap_or(u64::MAX)
    }
}

pub fn now() -> Instant {
    World::with_here(|m, t| Instant(m.clock.mono(t))).unwrap_or(Instant(MONO_START))
}

pub fn wall() -> Wall {
    World::with_here(|m, t| Wall(m.clock.wall(t))).unwrap_or(Wall(EPOCH))
}

pub async fn sleep_until(deadline: Instant) {
    // A drift that changes meanwhile moves the end, so look again.
    while let Some(rest) = World::with_here(|m, t| {
        let rest = deadline.0.saturating_sub(m.clock.mono(t));
        (rest > 0).then(|| t.saturating_add(m.clock.real(rest)))
    })
    .flatten()
    {
        Pause::until(rest).await;
    }
}

/// Waits for a virtual time, to the nanosecond: the executor's own sleep never waits less than a millisecond unless its
/// deadline is set afterwards.
pub struct Pause {
    at: u64,
    sleep: Pin<Box<madsim::time::Sleep>>,
    /// Who was promised to be woken; asking twice would leave a second timer behind.
    asked: Option<Waker>,
}

impl Pause {
    pub fn until(at: u64) -> Pause {
        let h = madsim::time::TimeHandle::current();
        let wait = Duration::from_nanos(at.saturating_sub(h.elapsed().as_nanos() as u64));
        // Far beyond any run, and safe to add to a clock.
        let wait = wait.min(Duration::from_secs(100 * 365 * 86_400));
        let mut sleep = Box::pin(h.sleep(Duration::ZERO));
        sleep.as_mut().reset(h.now_instant() + wait);
        Pause { at, sleep, asked: None }
    }
}

impl Future for Pause {
    type Output = ();
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if world::elapsed().is_none_or(|t| t >= self.at) {
            return Poll::Ready(());
        }
        if self.asked.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
            return Poll::Pending;
        }
        self.asked = Some(cx.waker().clone());
        self.sleep.as_mut().poll(cx)
    }
}
