//! What a seed decides: servers, their mesh, the clients' steps, the events with their times.

use std::collections::BTreeSet;

use env::Rng;
use serde::{Deserialize, Serialize};

use crate::{
    fleet::{self, Event},
    plan::Timed,
};

/// A kind of trouble.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// Links between servers are cut, in one direction or both.
    Cut,
    /// A part of the servers cannot reach the others.
    Part,
    /// Connections between servers are reset.
    Reset,
    /// Links between servers are slow, lossy or narrow.
    Slow,
    /// They break at an exact byte.
    AtByte,
    /// A server's process is killed.
    Kill,
    /// A server's machine loses power.
    Power,
    /// A server ends and starts again.
    Restart,
    /// A server stops for a while.
    Pause,
    /// Clients come and go.
    Churn,
}

/// All faults, in the order in which they are drawn.
pub const FAULTS: [Fault; 10] = [
    Fault::Cut,
    Fault::Part,
    Fault::Reset,
    Fault::Slow,
    Fault::AtByte,
    Fault::Kill,
    Fault::Power,
    Fault::Restart,
    Fault::Pause,
    Fault::Churn,
];

/// Everything about a storm but its steps.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Options {
    /// Where everything comes from.
    pub seed: u64,
    /// Servers.
    pub servers: usize,
    /// Clients; client `n` belongs to server `n` modulo the servers.
    pub clients: u64,
    /// Steps of each.
    pub steps: u64,
    /// Bytes that a direction of a connection holds.
    pub window: usize,
    /// Probability of a short read or write.
    pub short: f64,
    /// Longest way between machines.
    pub latency_max_us: u64,
    /// Probability that a segment is lost.
    pub loss: f64,
    /// Cores (workers) of a server's machine.
    pub cores: usize,
    /// The servers' `pool_size`.
    pub pool: i64,
    /// Servers know the first one only, and learn of the rest.
    pub gossip: bool,
    /// The servers' names of the cluster are made up.
    pub unnamed: bool,
    /// Time that a client's steps are spread over.
    pub spread_ms: u64,
    /// Largest body.
    pub body_bytes_max: usize,
    /// What may go wrong.
    pub faults: BTreeSet<Fault>,
}

/// Subjects to publish to.
pub const SUBJECTS: [&str; 6] = ["t.a", "t.b", "t.a.a", "t.a.b", "u.a", "q.a"];
/// Patterns to subscribe to.
pub const FILTERS: [&str; 8] = ["t.a", "t.*", "t.>", "t.a.*", "u.*", ">", "q.a", "q.>"];

/// A client's step.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    /// Subscribes.
    Sub {
        /// Pattern.
        filter: String,
        /// Queue name.
        queue: Option<String>,
    },
    /// Ends the n-th of the open subscriptions, modulo their number.
    Unsub {
        /// Which.
        nth: usize,
    },
    /// Publishes.
    Pub {
        /// Subject.
        subject: String,
        /// Bytes.
        size: usize,
        /// How often.
        times: u64,
    },
    /// Closes its connection, and opens another.
    Leave,
}

/// A step and the time before it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Step {
    /// Microseconds after the step before.
    pub wait_us: u64,
    /// What.
    #[serde(flatten)]
    pub op: Op,
}

/// A storm.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// Sizes and classes.
    pub options: Options,
    /// The clients' steps.
    pub walks: Vec<Vec<Step>>,
    /// Events in the order of their times.
    pub events: Vec<Timed<Event>>,
}

impl Options {
    /// The options of a seed.
    pub fn draw(seed: u64) -> Options {
        let mut net = Rng::derived(seed, "mesh/net");
        let mut sizes = Rng::derived(seed, "mesh/sizes");
        let mut swarm = Rng::derived(seed, "mesh/faults");
        let calm = swarm.bool(0.1);
        let faults = FAULTS.into_iter().filter(|_| swarm.bool(0.35) && !calm).collect();
        let window = *net.pick(&[1000, 16 << 10, 256 << 10]).unwrap_or(&1000);
        Options {
            seed,
            servers: *sizes.pick(&[2, 3, 3, 4]).unwrap_or(&3),
            clients: *sizes.pick(&[3, 6, 9]).unwrap_or(&6),
            steps: *sizes.pick(&[5, 15, 40]).unwrap_or(&15),
            window,
            short: *net.pick(&[0.0, 0.1, 0.5]).unwrap_or(&0.1),
            latency_max_us: *net.pick(&[100, 2_000, 20_000]).unwrap_or(&500),
            loss: *net.pick(&[0.0, 0.0, 0.02]).unwrap_or(&0.0),
            cores: *sizes.pick(&[1, 2, 4]).unwrap_or(&2),
            pool: *sizes.pick(&[-1, 1, 3, 3]).unwrap_or(&3),
            gossip: sizes.bool(0.5),
            unnamed: sizes.bool(0.2),
            spread_ms: *sizes.pick(&[200, 2_000, 15_000]).unwrap_or(&2_000),
            body_bytes_max: (window * 20).min(100_000),
            faults,
        }
    }
    /// Whether a fault class is on.
    pub fn has(&self, f: Fault) -> bool {
        self.faults.contains(&f)
    }
}

impl Plan {
    /// The plan of a seed.
    pub fn draw(seed: u64) -> Plan {
        let options = Options::draw(seed);
        let walks = (0..options.clients).map(|id| walk(&options, id)).collect();
        let events = events(&options);
        Plan { options, walks, events }
    }
    /// Steps and events.
    pub fn len(&self) -> usize {
        self.walks.iter().map(Vec::len).sum::<usize>() + self.events.len()
    }
    /// Whether nothing happens.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn pick<'a>(rng: &mut Rng, of: &[&'a str]) -> &'a str {
    rng.pick(of).copied().unwrap_or_default()
}

fn subscribe(rng: &mut Rng) -> Op {
    Op::Sub {
        filter: pick(rng, &FILTERS).to_owned(),
        queue: rng.bool(0.4).then(|| pick(rng, &["g1", "g2"]).to_owned()),
    }
}

fn walk(o: &Options, id: u64) -> Vec<Step> {
    let rng = &mut Rng::derived(o.seed, &format!("mesh/client/{id}"));
    let mut all = Vec::new();
    for _ in 0..rng.below(4) {
        all.push(Step { wait_us: rng.below(2_000), op: subscribe(rng) });
    }
    let wait_max = 2 * o.spread_ms * 1000 / o.steps.max(1);
    for _ in 0..o.steps {
        let wait_us = if rng.bool(0.4) { rng.below(50) } else { rng.below(wait_max + 1) };
        let op = match rng.below(100) {
            0..4 if o.has(Fault::Churn) => Op::Leave,
            0..22 => subscribe(rng),
            22..32 => Op::Unsub { nth: rng.below(8) as usize },
            _ => Op::Pub {
                subject: pick(rng, &SUBJECTS).to_owned(),
                size: match rng.below(5) {
                    0 => 0,
                    1 | 2 => rng.below(100) as usize,
                    3 => rng.below(3_000) as usize,
                    _ => rng.below(o.body_bytes_max as u64) as usize,
                },
                times: [1, 1, 5, 30][rng.below(4) as usize],
            },
        };
        all.push(Step { wait_us, op });
    }
    all
}

fn events(o: &Options) -> Vec<Timed<Event>> {
    let rng = &mut Rng::derived(o.seed, "mesh/events");
    let (n, span) = (o.servers, o.spread_ms * 3 / 2 + 10);
    let mut all = Vec::new();
    let mut add = |rng: &mut Rng, event| all.push(Timed { at_ms: rng.below(span), event });
    let long = |rng: &mut Rng| [5, 300, 4_000, 20_000][rng.below(4) as usize];
    let times = |rng: &mut Rng, o: &Options, f: Fault| if o.has(f) { rng.between(1, 4) } else { 0 };
    for _ in 0..times(rng, o, Fault::Cut) {
        let ((a, b), way, ms) = (fleet::two(rng, n), fleet::way(rng), long(rng));
        add(rng, Event::CutLink { a, b, way, ms });
    }
    for _ in 0..times(rng, o, Fault::Part) {
        let side: Vec<usize> = (0..n).filter(|_| rng.bool(0.5)).collect();
        let (way, ms) = (fleet::way(rng), long(rng));
        add(rng, Event::Part { side, way, ms });
    }
    for _ in 0..times(rng, o, Fault::Reset) {
        let (a, b) = fleet::two(rng, n);
        add(rng, Event::ResetLink { a, b });
    }
    for _ in 0..times(rng, o, Fault::Slow) {
        let (a, b) = fleet::two(rng, n);
        let latency_us = [100, 10_000, 200_000][rng.below(3) as usize];
        let loss = [0, 5, 40][rng.below(3) as usize];
        let bandwidth = [0, 20_000, 1_000_000][rng.below(3) as usize];
        let ms = rng.between(10, o.spread_ms * 2 + 10);
        add(rng, Event::SlowLink { a, b, latency_us, loss, bandwidth, ms });
    }
    for _ in 0..times(rng, o, Fault::AtByte) {
        let ((a, b), cut) = (fleet::two(rng, n), rng.bool(0.3));
        let bytes = [20, 500, 10_000][rng.below(3) as usize];
        let bytes = rng.below(bytes);
        add(rng, Event::AtByteLink { a, b, bytes, cut });
    }
    for (fault, power) in [(Fault::Kill, false), (Fault::Power, true)] {
        for _ in 0..times(rng, o, fault) {
            let (server, ms) = (rng.below(n as u64) as usize, rng.below(2_000));
            add(rng, Event::KillServer { server, power, ms });
        }
    }
    if o.has(Fault::Restart) {
        let server = rng.below(n as u64) as usize;
        add(rng, Event::RestartServer { server });
    }
    if o.has(Fault::Pause) {
        let (server, ms) = (rng.below(n as u64) as usize, long(rng));
        add(rng, Event::PauseServer { server, ms });
    }
    all.sort_by_key(|t| t.at_ms);
    all
}
