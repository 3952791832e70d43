//! A storm as data: what each client does, one step after another, and what is done to machines and links at which time.
//! It can be printed, made smaller, stored and run again; nothing in a run draws from the plan's random streams.

use env::Rng;
use serde::{Deserialize, Serialize};

use crate::{
    options::{Fault, Options},
    world::{FILTERS, REQUESTS, SUBJECTS, USERS},
};

/// Bytes that are no protocol, or none that is allowed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Garbage {
    /// An unknown word.
    Word,
    /// A payload without CRLF behind it.
    NoCrlf,
    /// A size that is not a number.
    BadSize,
    /// A line longer than `max_control_line`.
    LongLine,
    /// A payload larger than `max_payload`, announced and not sent.
    TooLarge,
    /// Half an operation; the connection then stays silent until it is closed by its client.
    Half,
    /// CONNECT with a wrong password.
    WrongPassword,
}

/// What a client does.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    /// SUB with a new sid. One that responds answers messages that have a reply subject.
    Sub {
        /// Subject.
        filter: String,
        /// Queue name without the account's letter.
        queue: Option<String>,
        /// Answers requests.
        respond: bool,
    },
    /// UNSUB of the n-th subscription that is open (modulo their number).
    Unsub {
        /// Which.
        nth: u64,
        /// Maximum; 0 for at once.
        max: u64,
    },
    /// Publishes.
    Pub {
        /// Subject.
        subject: String,
        /// Bytes of payload.
        size: usize,
        /// With a header.
        header: bool,
        /// How often.
        times: u64,
    },
    /// Publishes with a reply subject in the own inbox.
    Request {
        /// Subject.
        subject: String,
        /// How often.
        times: u64,
    },
    /// PING.
    Ping {
        /// How often.
        times: u64,
    },
    /// UNSUB for all subscriptions, then PING.
    Drain,
    /// CONNECT again.
    Connect {
        /// Number of the user.
        user: usize,
    },
    /// Closes the connection.
    Close,
    /// Resets the connection.
    Abort,
    /// Ends the own direction and goes on reading until the server ends the other one.
    HalfClose,
    /// Does not read for so long.
    Rest {
        /// Milliseconds.
        ms: u64,
    },
    /// Reads at most so many bytes at a time from now on, with a pause of a millisecond between.
    Sip {
        /// Bytes; 0 without limit.
        bytes: usize,
    },
    /// Never reads again and answers nothing.
    Deaf,
    /// Sends what the server must refuse.
    Garbage {
        /// Which.
        what: Garbage,
    },
}

/// A step of a client.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Step {
    /// Microseconds after the step before.
    pub wait_us: u64,
    /// What.
    #[serde(flatten)]
    pub op: Op,
}

/// A client.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ClientPlan {
    /// Its number; its machine is `c<number>`.
    pub id: u64,
    /// Number of its user.
    pub user: usize,
    /// CONNECT: verbose.
    pub verbose: bool,
    /// CONNECT: echo.
    pub echo: bool,
    /// CONNECT: headers.
    pub headers: bool,
    /// CONNECT: no_responders (only with headers).
    pub no_responders: bool,
    /// What it does.
    pub steps: Vec<Step>,
}

/// Directions of a client's link.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// From the client to the server.
    Up,
    /// From the server to the client.
    Down,
    /// Both.
    Both,
}

/// What is done to machines and links.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// Cuts a link for a while.
    Cut {
        /// Whose.
        client: u64,
        /// Which direction.
        way: Way,
        /// Milliseconds.
        ms: u64,
    },
    /// Resets a client's connections.
    Reset {
        /// Whose.
        client: u64,
    },
    /// Makes a link slow for a while.
    Slow {
        /// Whose.
        client: u64,
        /// Added latency in microseconds.
        latency_us: u64,
        /// Probability of loss in percent.
        loss: u64,
        /// Bytes a second; 0 without limit.
        bandwidth: u64,
        /// Milliseconds.
        ms: u64,
    },
    /// Resets the connection, or cuts the link for a second, after so many more bytes.
    AtByte {
        /// Whose.
        client: u64,
        /// From the client, or to it.
        up: bool,
        /// Bytes.
        bytes: u64,
        /// A cut rather than a reset.
        cut: bool,
    },
    /// A client dies.
    KillClient {
        /// Which.
        client: u64,
        /// Without a word, as with lost power.
        power: bool,
    },
    /// The server dies, and starts again after a while.
    KillServer {
        /// Without a word, as with lost power.
        power: bool,
        /// Milliseconds until it starts again.
        ms: u64,
    },
    /// The server's process stops for a while.
    Pause {
        /// Milliseconds.
        ms: u64,
    },
    /// The configuration changes and is read again.
    Reload {
        /// Which configuration.
        variant: u64,
    },
    /// The server goes, and another starts once it is gone.
    LameDuck,
}

/// An event and its time.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Timed<E = Event> {
    /// Milliseconds after the clients began.
    pub at_ms: u64,
    /// What.
    #[serde(flatten)]
    pub event: E,
}

/// A storm.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// Sizes, limits and classes.
    pub options: Options,
    /// Clients.
    pub clients: Vec<ClientPlan>,
    /// Events in the order of their times.
    pub events: Vec<Timed>,
}

impl Plan {
    /// The plan of a seed.
    pub fn draw(seed: u64) -> Plan {
        Plan::of(Options::draw(seed))
    }
    /// A plan for these options.
    pub fn of(options: Options) -> Plan {
        let clients = (0..options.clients).map(|id| client(&options, id)).collect();
        let events = events(&options);
        Plan { options, clients, events }
    }
    /// Steps and events.
    pub fn len(&self) -> usize {
        self.clients.iter().map(|c| c.steps.len()).sum::<usize>() + self.events.len()
    }
    /// Whether nothing happens.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn client(o: &Options, id: u64) -> ClientPlan {
    let rng = &mut Rng::derived(o.seed, &format!("client/{id}"));
    let user = [0, 0, 1, 2, 2, 3][rng.below(6) as usize];
    let headers = rng.bool(0.7);
    let mut c = ClientPlan {
        id,
        user,
        verbose: rng.bool(0.15),
        echo: rng.bool(0.75),
        headers,
        no_responders: headers && rng.bool(0.8),
        steps: Vec::new(),
    };
    // What is meant to receive is mostly there before what is sent.
    for _ in 0..rng.below(4) {
        c.steps.push(Step { wait_us: rng.below(2_000), op: subscribe(rng) });
    }
    c.steps.push(Step { wait_us: rng.below(10_000), op: Op::Ping { times: 1 } });
    let wait_max = 2 * o.spread_ms * 1000 / o.steps.max(1);
    for _ in 0..o.steps {
        // Half of the steps follow at once, so that many operations share a read.
        let wait_us = if rng.bool(0.5) { rng.below(50) } else { rng.below(wait_max + 1) };
        let op = op(o, rng);
        if matches!(op, Op::Ping { times: 100.. }) && rng.bool(0.8) {
            // What a flood causes is worth most while nobody reads it.
            c.steps.push(Step { wait_us: 0, op: Op::Rest { ms: rng.between(100, 3_000) } });
        }
        c.steps.push(Step { wait_us, op });
    }
    c
}

fn pick<'a>(rng: &mut Rng, of: &[&'a str]) -> &'a str {
    rng.pick(of).copied().unwrap_or_default()
}

fn subscribe(rng: &mut Rng) -> Op {
    Op::Sub {
        filter: pick(rng, &FILTERS).to_owned(),
        queue: rng.bool(0.35).then(|| pick(rng, &["q1", "q2"]).to_owned()),
        respond: rng.bool(0.4),
    }
}

fn size(o: &Options, rng: &mut Rng) -> usize {
    let most = o.body_bytes_max as u64;
    let n = match rng.below(8) {
        0 | 1 => 0,
        2 => rng.below(20),
        3 => rng.below(300),
        4 => rng.between(1000, 5000),
        5 => rng.between(15 << 10, 17 << 10),
        6 => rng.below(64 << 10),
        _ => most,
    };
    n.min(most) as usize
}

fn op(o: &Options, rng: &mut Rng) -> Op {
    // A fault's operations are drawn from a range of their own, so that switching it off leaves the rest as it is.
    let fault = rng.below(100);
    match fault {
        0..2 if o.has(Fault::HalfClose) => return Op::HalfClose,
        2..7 if o.has(Fault::SlowReader) => return Op::Rest { ms: rng.below(o.spread_ms * 2 + 2) },
        7..9 if o.has(Fault::SlowReader) => {
            return Op::Sip { bytes: [0, 1, 100, 4000][rng.below(4) as usize] };
        }
        9..11 if o.has(Fault::Deaf) => return Op::Deaf,
        11..14 if o.has(Fault::Garbage) => return Op::Garbage { what: garbage(rng) },
        14..18 if o.has(Fault::Flood) => return flood(rng),
        18..21 if o.has(Fault::SecondConnect) => {
            return Op::Connect { user: rng.below(USERS.len() as u64) as usize };
        }
        21..27 if o.has(Fault::Churn) => return if rng.bool(0.7) { Op::Close } else { Op::Abort },
        _ => {}
    }
    match rng.below(100) {
        0..20 => subscribe(rng),
        20..28 => Op::Unsub { nth: rng.below(8), max: [0, 0, 1, 2, 5][rng.below(5) as usize] },
        28..30 => Op::Drain,
        30..38 => Op::Ping { times: 1 },
        38..55 => {
            Op::Request { subject: pick(rng, &REQUESTS).to_owned(), times: [1, 1, 3][rng.below(3) as usize] }
        }
        _ => Op::Pub {
            subject: pick(rng, &SUBJECTS).to_owned(),
            size: size(o, rng),
            header: rng.bool(0.3),
            times: [1, 1, 1, 4, 20][rng.below(5) as usize],
        },
    }
}

fn garbage(rng: &mut Rng) -> Garbage {
    use Garbage::*;
    [Word, NoCrlf, BadSize, LongLine, TooLarge, Half, WrongPassword][rng.below(7) as usize]
}

fn flood(rng: &mut Rng) -> Op {
    match rng.below(2) {
        0 => Op::Ping { times: rng.between(1_000, 60_000) },
        _ => Op::Pub {
            subject: pick(rng, &["t.c.a", "t.a"]).to_owned(),
            size: 0,
            header: false,
            times: rng.between(50, 500),
        },
    }
}

fn events(o: &Options) -> Vec<Timed> {
    let rng = &mut Rng::derived(o.seed, "events");
    let span = o.spread_ms * 3 / 2 + 10;
    let mut all = Vec::new();
    let mut add = |rng: &mut Rng, event| all.push(Timed { at_ms: rng.below(span), event });
    for id in 0..o.clients {
        if o.has(Fault::Cut) && rng.bool(0.4) {
            let way = [Way::Up, Way::Down, Way::Both][rng.below(3) as usize];
            let ms = [5, 300, 4_000][rng.below(3) as usize];
            add(rng, Event::Cut { client: id, way, ms });
        }
        if o.has(Fault::Reset) && rng.bool(0.3) {
            add(rng, Event::Reset { client: id });
        }
        if o.has(Fault::Slow) && rng.bool(0.4) {
            let latency_us = [100, 10_000, 200_000][rng.below(3) as usize];
            let loss = [0, 5, 40][rng.below(3) as usize];
            let bandwidth = [0, 2_000, 100_000][rng.below(3) as usize];
            let ms = rng.between(10, o.spread_ms * 2 + 10);
            add(rng, Event::Slow { client: id, latency_us, loss, bandwidth, ms });
        }
        if o.has(Fault::AtByte) && rng.bool(0.4) {
            let bytes = [5, 100, 3_000][rng.below(3) as usize];
            let (up, bytes, cut) = (rng.bool(0.5), rng.below(bytes), rng.bool(0.3));
            add(rng, Event::AtByte { client: id, up, bytes, cut });
        }
        if o.has(Fault::ClientDeath) && rng.bool(0.25) {
            let power = rng.bool(0.5);
            add(rng, Event::KillClient { client: id, power });
        }
    }
    if o.has(Fault::ServerDeath) {
        let (power, ms) = (rng.bool(0.4), rng.below(1_000));
        add(rng, Event::KillServer { power, ms });
    }
    if o.has(Fault::Pause) {
        let ms = [20, 400, 3_000][rng.below(3) as usize];
        add(rng, Event::Pause { ms });
    }
    if o.has(Fault::Reload) {
        for variant in 1..=rng.between(1, 3) {
            add(rng, Event::Reload { variant });
        }
    }
    if o.has(Fault::LameDuck) {
        add(rng, Event::LameDuck);
    }
    all.sort_by_key(|t| t.at_ms);
    all
}
