//! What a seed decides before anything runs: sizes, limits, and which classes of faults there are.
//!
//! Each concern has its own stream, so that a new draw in one place shifts nothing in another. Lists whose order feeds a
//! draw only grow at their end. Sizes are drawn tiny as often as normal.

use std::collections::BTreeSet;

use env::Rng;
use serde::{Deserialize, Serialize};

/// A kind of trouble, switched on or off by the seed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// A link is cut in one direction or both, and healed later.
    Cut,
    /// All connections of a client are reset.
    Reset,
    /// A link is slow, lossy or narrow for a while.
    Slow,
    /// A connection is reset, or its link cut, after an exact number of bytes.
    AtByte,
    /// A client ends its direction of the connection and goes on reading.
    HalfClose,
    /// Clients do not read for a while, or little at a time.
    SlowReader,
    /// Clients never read again and answer no PING.
    Deaf,
    /// Bytes that are no protocol, lines that are too long, payloads that are too large, wrong passwords.
    Garbage,
    /// Floods of PINGs (and of refused operations) by clients that do not read what they cause.
    Flood,
    /// A client's process dies, or its machine loses power.
    ClientDeath,
    /// The server's process is killed, or its machine loses power, and it starts again.
    ServerDeath,
    /// The server stops for a while and goes on.
    Pause,
    /// The configuration is read again.
    Reload,
    /// The server is told to go, and another takes its place.
    LameDuck,
    /// A client sends CONNECT again, perhaps as somebody else.
    SecondConnect,
    /// Clients leave and come back all the time.
    Churn,
}

/// All faults, in the order in which they are drawn.
pub const FAULTS: [Fault; 16] = [
    Fault::Cut,
    Fault::Reset,
    Fault::Slow,
    Fault::AtByte,
    Fault::HalfClose,
    Fault::SlowReader,
    Fault::Deaf,
    Fault::Garbage,
    Fault::Flood,
    Fault::ClientDeath,
    Fault::ServerDeath,
    Fault::Pause,
    Fault::Reload,
    Fault::LameDuck,
    Fault::SecondConnect,
    Fault::Churn,
];

/// Everything about a storm but its steps. One printed line of JSON.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Options {
    /// Where everything comes from.
    pub seed: u64,
    /// Clients, each on a machine of its own.
    pub clients: u64,
    /// Steps of each client.
    pub steps: u64,
    /// Bytes that a direction of a connection holds.
    pub window: usize,
    /// Probability of a short read or write.
    pub short: f64,
    /// Shortest way between machines.
    pub latency_min_us: u64,
    /// Longest way.
    pub latency_max_us: u64,
    /// Probability that a segment is lost.
    pub loss: f64,
    /// Cores (workers) of the server's machine.
    pub cores: usize,
    /// Largest body that is published.
    pub body_bytes_max: usize,
    /// The server's `max_payload`.
    pub max_payload: usize,
    /// The server's `max_pending`.
    pub max_pending: usize,
    /// The server's `max_control_line`.
    pub max_control_line: usize,
    /// The server's `max_subscriptions`; 0 for none.
    pub max_subscriptions: usize,
    /// The server's `ping_interval`.
    pub ping_interval_s: u64,
    /// The server's `ping_max`.
    pub ping_max: u64,
    /// The server's `write_deadline`.
    pub write_deadline_ms: u64,
    /// The server's `no_fast_producer_stall`.
    pub no_stall: bool,
    /// Time that the steps of a client are spread over.
    pub spread_ms: u64,
    /// What may go wrong.
    pub faults: BTreeSet<Fault>,
}

impl Options {
    /// The options of a seed.
    pub fn draw(seed: u64) -> Options {
        let mut sizes = Rng::derived(seed, "options/sizes");
        let mut limits = Rng::derived(seed, "options/limits");
        let mut net = Rng::derived(seed, "options/net");
        let mut swarm = Rng::derived(seed, "options/faults");
        let window = *net.pick(&[64, 1000, 16 << 10, 256 << 10]).unwrap_or(&1000);
        let max_pending = *limits.pick(&[64 << 20, 1 << 20, 128 << 10, 16 << 10]).unwrap_or(&(1 << 20));
        let max_payload = *limits.pick(&[1 << 20, 64 << 10, 4 << 10]).unwrap_or(&(1 << 20));
        let max_payload: usize = max_payload.min(max_pending);
        // A narrow window turns every byte into an event: bodies are kept in proportion.
        // Headers count towards the limit too.
        let body_bytes_max = (max_payload - 64).min(64 << 10).min(window * 60);
        let calm = swarm.bool(0.1);
        let faults = FAULTS.into_iter().filter(|f| {
            // The rarer ones shorten a storm so much that they would hide the others at one half.
            let rate = match f {
                Fault::ServerDeath | Fault::LameDuck => 0.15,
                Fault::Pause | Fault::ClientDeath => 0.3,
                _ => 0.4,
            };
            swarm.bool(rate) && !calm
        });
        let faults = faults.collect();
        Options {
            seed,
            clients: *sizes.pick(&[2, 3, 5, 8, 13, 24]).unwrap_or(&5),
            steps: *sizes.pick(&[4, 10, 25, 60]).unwrap_or(&10),
            window,
            short: *net.pick(&[0.0, 0.1, 0.5, 0.9]).unwrap_or(&0.1),
            latency_min_us: *net.pick(&[20, 50, 500]).unwrap_or(&50),
            latency_max_us: *net.pick(&[500, 2_000, 20_000]).unwrap_or(&500),
            loss: *net.pick(&[0.0, 0.0, 0.0, 0.02, 0.1]).unwrap_or(&0.0),
            cores: *sizes.pick(&[1, 2, 4]).unwrap_or(&2),
            body_bytes_max,
            max_payload,
            max_pending,
            max_control_line: *limits.pick(&[4096, 512]).unwrap_or(&4096),
            max_subscriptions: *limits.pick(&[0, 0, 0, 6]).unwrap_or(&0),
            ping_interval_s: *limits.pick(&[1, 5, 120]).unwrap_or(&5),
            ping_max: *limits.pick(&[1, 2]).unwrap_or(&2),
            write_deadline_ms: *limits.pick(&[500, 2_000, 10_000]).unwrap_or(&2_000),
            no_stall: limits.bool(0.3),
            spread_ms: *sizes.pick(&[50, 500, 5_000]).unwrap_or(&500),
            faults,
        }
    }
    /// Whether a fault class is on.
    pub fn has(&self, f: Fault) -> bool {
        self.faults.contains(&f)
    }
}
