//! The little that monitoring remembers: how often each endpoint was asked, and the processor's load.

use std::{collections::BTreeMap, time::Duration};

use broker::Counter;
use env::Instant;
use parking_lot::Mutex;

/// Endpoints whose requests are counted, in order.
pub const COUNTED: [&str; 17] = [
    "/",
    "/accountz",
    "/accstatz",
    "/connz",
    "/debug/vars",
    "/gatewayz",
    "/healthz",
    "/ipqueuesz",
    "/jsz",
    "/leafz",
    "/metrics",
    "/raftz",
    "/routez",
    "/stacksz",
    "/subscriptionsz",
    "/subsz",
    "/varz",
];

/// How long a measured load stays valid.
const CPU_SAMPLE: Duration = Duration::from_secs(1);

/// What monitoring remembers.
pub struct State {
    requests: [Counter; COUNTED.len()],
    cpu: Mutex<Cpu>,
    /// Where answers that go over all connections are put together, so that no worker's messages wait for them (M-1).
    pub elsewhere: links::Cpu,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("requests", &self.requests()).finish_non_exhaustive()
    }
}

#[derive(Clone, Copy, Debug)]
struct Cpu {
    at: Instant,
    seconds: f64,
    percent: f64,
}

impl State {
    /// Begins to measure now.
    pub fn new() -> State {
        State {
            requests: Default::default(),
            cpu: Mutex::new(Cpu { at: env::now(), seconds: env::process::cpu_seconds(), percent: 0.0 }),
            elsewhere: links::Cpu::default(),
        }
    }
    /// Notes a request to an endpoint.
    pub fn count(&self, path: &str) {
        if let Ok(i) = COUNTED.binary_search(&path) {
            self.requests[i].add(1);
        }
    }
    /// Requests so far, of endpoints that had any.
    pub fn requests(&self) -> BTreeMap<&'static str, u64> {
        COUNTED.into_iter().zip(&self.requests).map(|(p, n)| (p, n.get())).filter(|(_, n)| *n > 0).collect()
    }
    /// Percent of one processor that the server has used since the measurement before this one (a second ago at
    /// least), to one decimal.
    pub fn cpu_percent(&self) -> f64 {
        let mut cpu = self.cpu.lock();
        let now = env::now();
        let wall = now.since(cpu.at);
        if wall >= CPU_SAMPLE {
            let seconds = env::process::cpu_seconds();
            let percent = (seconds - cpu.seconds).max(0.0) / wall.as_secs_f64() * 100.0;
            *cpu = Cpu { at: now, seconds, percent: (percent * 10.0).round() / 10.0 };
        }
        cpu.percent
    }
}

impl Default for State {
    fn default() -> State {
        State::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_endpoint() {
        assert!(COUNTED.is_sorted());
        let s = State::new();
        for p in ["/varz", "/connz", "/varz", "/nothing"] {
            s.count(p);
        }
        assert_eq!(s.requests(), BTreeMap::from([("/connz", 1), ("/varz", 2)]));
        assert!((0.0..100_000.0).contains(&s.cpu_percent()));
    }
}
