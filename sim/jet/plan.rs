//! What a seed decides: sizes, faults, the streams' settings, every actor's steps, and the events with their times.

use std::collections::BTreeSet;

use env::Rng;
use serde::{Deserialize, Serialize};

use crate::{fleet, plan::Timed};

/// A kind of trouble.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The server's process is killed.
    Kill,
    /// The server's machine loses power: what was not synced is lost or torn.
    Power,
    /// The server stops for a while.
    Pause,
    /// Connections are reset.
    Reset,
    /// Links are cut for a while.
    Cut,
    /// The wall clock jumps.
    Clock,
    /// The server ends when told so, and starts again.
    Restart,
}

/// All faults, in the order in which they are drawn.
pub const FAULTS: [Fault; 7] =
    [Fault::Kill, Fault::Power, Fault::Pause, Fault::Reset, Fault::Cut, Fault::Clock, Fault::Restart];

/// Everything about a storm but its steps.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Options {
    /// Where everything comes from.
    pub seed: u64,
    /// Bytes that a direction of a connection holds.
    pub window: usize,
    /// Probability of a short read or write.
    pub short: f64,
    /// Longest way between machines.
    pub latency_max_us: u64,
    /// Cores (workers) of the server's machine.
    pub cores: usize,
    /// Sectors that were not synced may tear at a power failure.
    pub torn: bool,
    /// Time that an actor's steps are spread over.
    pub spread_ms: u64,
    /// Revisions that the bucket keeps of a key.
    pub history: u64,
    /// Messages that the limited stream keeps.
    pub log_max_msgs: u64,
    /// The consumers' ack_wait.
    pub ack_wait_ms: u64,
    /// The consumers' max_deliver; -1 for none.
    pub max_deliver: i64,
    /// The consumers' max_ack_pending.
    pub max_ack_pending: u64,
    /// What may go wrong.
    pub faults: BTreeSet<Fault>,
    /// Servers.
    #[serde(default = "one")]
    pub servers: usize,
    /// Replicas of each stream, in the order of [`STREAMS`].
    #[serde(default = "ones")]
    pub replicas: [usize; 4],
    /// What may go wrong between servers.
    #[serde(default)]
    pub woes: BTreeSet<Woe>,
    /// In the calm one server stays dead until the others have shown that they do without it.
    #[serde(default)]
    pub one_stays_dead: bool,
    /// There is a stream in memory, too, of one replica, and somebody who makes it, or its consumer, anew when they are gone.
    #[serde(default)]
    pub memory: bool,
    /// The consumers that come and go are those of a stream in files with one replica, and in memory themselves.
    #[serde(default)]
    pub filed: bool,
    /// There are origins with copies, too (`copies.rs`).
    #[serde(default)]
    pub copies: Option<Copies>,
}

/// Origins and copies.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Copies {
    /// Replicas of each: the two origins, the two that source both, and the mirror.
    pub replicas: [usize; 5],
    /// Messages that the small copy takes.
    pub room: u64,
}

fn one() -> usize {
    1
}
fn ones() -> [usize; 4] {
    [1; 4]
}

/// A kind of trouble that several servers can have.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Woe {
    /// Links between servers are cut, in one direction or both.
    Cut,
    /// A part of the servers cannot reach the others.
    Part,
    /// Connections between servers are reset.
    Reset,
    /// Links between servers are slow, lossy or narrow.
    Slow,
    /// A server dies and starts again.
    Kill,
    /// The same, without a word, and what was not synced is lost or torn.
    Power,
    /// All servers lose power at once.
    Blackout,
    /// A server ends and starts again.
    Restart,
    /// Servers end and start again one after another.
    Rolling,
    /// A server stops for a while.
    Pause,
    /// A server's wall clock jumps.
    Clock,
    /// Leaders are told to step down.
    StepDown,
    /// Streams get more or fewer replicas.
    Scale,
    /// Disks are full for a while.
    Full,
    /// Disks are slow for a while.
    SlowDisk,
    /// What is stored on one server goes bad.
    Rot,
    /// Replicas are taken from servers, and put elsewhere where there is room.
    PeerRemove,
    /// A server is there only from some time on.
    Late,
    /// A server loses its disk: an operator takes it out of the cluster, and it comes back with an empty one.
    Wipe,
}

/// All woes, in the order in which they are drawn.
pub const WOES: [Woe; 13] = [
    Woe::Cut,
    Woe::Part,
    Woe::Reset,
    Woe::Slow,
    Woe::Kill,
    Woe::Power,
    Woe::Blackout,
    Woe::Restart,
    Woe::Rolling,
    Woe::Pause,
    Woe::Clock,
    Woe::StepDown,
    Woe::Scale,
];

/// Woes that came later. They are drawn by themselves, so that a seed keeps what it meant before.
pub const MORE_WOES: [Woe; 6] = [Woe::Full, Woe::SlowDisk, Woe::Rot, Woe::PeerRemove, Woe::Late, Woe::Wipe];

/// The streams of a storm.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// Keeps everything.
    Log,
    /// Keeps the last messages only.
    Short,
    /// A key-value bucket.
    Bucket,
    /// A work queue.
    Queue,
    /// In memory, and none of [`STREAMS`] (`memory.rs`).
    Memory,
    /// An origin that keeps by interest (`copies.rs`).
    Interest,
    /// An origin that is a work queue.
    Work,
    /// What sources both and takes everything.
    Copy,
    /// What sources both and is soon full.
    Sink,
    /// In files, of one replica, with consumers that are in memory (`memory.rs`).
    Filed,
    /// What mirrors the work queue.
    Mirror,
}

/// All streams that are on disks.
pub const STREAMS: [Stream; 4] = [Stream::Log, Stream::Short, Stream::Bucket, Stream::Queue];

impl Stream {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Stream::Log => "LOG",
            Stream::Short => "SHORT",
            Stream::Bucket => "KV_b",
            Stream::Queue => "QUEUE",
            Stream::Memory => "MEM",
            Stream::Interest => "CI",
            Stream::Work => "CW",
            Stream::Copy => "COPY",
            Stream::Sink => "SINK",
            Stream::Filed => "FILED",
            Stream::Mirror => "MIRROR",
        }
    }
    /// One of its subjects.
    pub fn subject(self, k: u64) -> String {
        match self {
            Stream::Log => format!("log.{k}"),
            Stream::Short => format!("short.{k}"),
            Stream::Bucket => format!("$KV.b.{k}"),
            Stream::Queue => format!("queue.{k}"),
            Stream::Memory => format!("mem.{k}"),
            Stream::Interest => format!("ci.{k}"),
            Stream::Work => format!("cw.{k}"),
            Stream::Copy | Stream::Sink | Stream::Mirror => "nobody publishes there".to_owned(),
            Stream::Filed => format!("filed.{k}"),
        }
    }
    /// Its place among [`STREAMS`].
    pub fn index(self) -> usize {
        self as usize
    }
    /// The request that creates it, with the replicas that it begins with.
    pub fn config(self, o: &Options) -> String {
        let of_copies = |c: &Copies| {
            let at = [Stream::Interest, Stream::Work, Stream::Copy, Stream::Sink, Stream::Mirror]
                .iter()
                .position(|s| *s == self);
            at.and_then(|at| c.replicas.get(at).copied())
        };
        let replicas = o.replicas.get(self.index()).copied();
        self.config_with(o, replicas.or_else(|| o.copies.as_ref().and_then(of_copies)).unwrap_or(1))
    }
    /// The same with so many replicas.
    pub fn config_with(self, o: &Options, replicas: usize) -> String {
        let text = self.config_of_one(o);
        match replicas {
            1 => text,
            n => format!("{},\"num_replicas\":{n}}}", text.trim_end_matches('}')),
        }
    }
    fn config_of_one(self, o: &Options) -> String {
        let name = self.name();
        match self {
            Stream::Log => {
                format!(r#"{{"name":"{name}","subjects":["log.>"],"storage":"file","allow_direct":true}}"#)
            }
            Stream::Short => format!(
                r#"{{"name":"{name}","subjects":["short.>"],"storage":"file","max_msgs":{},"discard":"old"}}"#,
                o.log_max_msgs
            ),
            Stream::Bucket => format!(
                r#"{{"name":"{name}","subjects":["$KV.b.>"],"storage":"file","max_msgs_per_subject":{},"discard":"new","allow_rollup_hdrs":true,"deny_delete":true,"allow_direct":true}}"#,
                o.history
            ),
            Stream::Queue => {
                format!(
                    r#"{{"name":"{name}","subjects":["queue.>"],"storage":"file","retention":"workqueue"}}"#
                )
            }
            Stream::Memory => format!(r#"{{"name":"{name}","subjects":["mem.>"],"storage":"memory"}}"#),
            Stream::Interest => format!(r#"{{"name":"{name}","subjects":["ci.>"],"retention":"interest"}}"#),
            Stream::Work => format!(r#"{{"name":"{name}","subjects":["cw.>"],"retention":"workqueue"}}"#),
            Stream::Copy => format!(r#"{{"name":"{name}","sources":[{{"name":"CI"}},{{"name":"CW"}}]}}"#),
            Stream::Sink => format!(
                r#"{{"name":"{name}","sources":[{{"name":"CI"}},{{"name":"CW"}}],"retention":"workqueue","discard":"new","max_msgs":{}}}"#,
                o.copies.map_or(1, |c| c.room)
            ),
            Stream::Filed => format!(r#"{{"name":"{name}","subjects":["filed.>"]}}"#),
            Stream::Mirror => format!(r#"{{"mirror":{{"name":"CW"}},"name":"{name}"}}"#),
        }
    }
}

/// What a consumer does with a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Act {
    /// Acknowledges and does not wait.
    Ack,
    /// Acknowledges and waits for the confirmation.
    AckSync,
    /// Refuses it.
    Nak,
    /// Refuses it for so many milliseconds.
    NakDelay(u64),
    /// Gives it up.
    Term,
    /// Asks for more time.
    Progress,
    /// Does nothing.
    Forget,
}

/// A step.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    /// Publishes so many messages at once and waits for all answers.
    Publish {
        /// Where to.
        stream: Stream,
        /// Which subject.
        key: u64,
        /// Bytes.
        size: usize,
        /// How many.
        times: u64,
        /// With message ids; what is not answered is sent again with the same id until it is.
        id: bool,
        /// Expects the stream to end where this actor last saw it end.
        expect: bool,
    },
    /// Puts a value into the bucket.
    Put {
        /// The key.
        key: u64,
        /// Bytes.
        size: usize,
    },
    /// Reads the key, then writes it, expecting the revision that was read.
    Update {
        /// The key.
        key: u64,
        /// Bytes.
        size: usize,
    },
    /// Writes the key, expecting it not to exist.
    Create {
        /// The key.
        key: u64,
    },
    /// Reads a key.
    Get {
        /// The key.
        key: u64,
        /// By a direct get.
        direct: bool,
    },
    /// Fetches messages and does something with each, in turn.
    Fetch {
        /// Most that are fetched.
        batch: u64,
        /// Waits so long for them; 0 does not wait.
        expires_ms: u64,
        /// What is done, over and over.
        acts: Vec<Act>,
    },
    /// Looks at the stream's state.
    Info {
        /// Which.
        stream: Stream,
    },
    /// Makes the stream in memory and its consumer, if they are not there, publishes one after another and fetches.
    Memory {
        /// How many.
        times: u64,
        /// Bytes.
        size: usize,
    },
    /// Publishes one after another to an origin, and takes out of the small copy.
    Copies {
        /// The work queue; else the one that keeps by interest.
        work: bool,
        /// How many.
        times: u64,
        /// Bytes.
        size: usize,
        /// How many are taken out at most.
        take: u64,
    },
    /// Leaves and comes back.
    Reconnect,
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

/// An actor.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Actor {
    /// Its number; its machine is `a<number>`.
    pub id: u64,
    /// The stream whose consumer it works for.
    pub stream: Stream,
    /// What it does.
    pub steps: Vec<Step>,
}

/// What is done to machines and links.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The server dies and starts again.
    Kill {
        /// Unsynced data is lost.
        power: bool,
        /// Milliseconds until it starts again.
        ms: u64,
    },
    /// The server is told to end, and starts again.
    Restart,
    /// The server stops for a while.
    Pause {
        /// Milliseconds.
        ms: u64,
    },
    /// An actor's connections are reset.
    Reset {
        /// Whose.
        actor: u64,
    },
    /// An actor's link is cut.
    Cut {
        /// Whose.
        actor: u64,
        /// Milliseconds.
        ms: u64,
    },
    /// The server's wall clock jumps.
    Clock {
        /// Milliseconds, forward or back.
        ms: i64,
    },
    /// To one of several servers, or between them.
    Servers(fleet::Event),
    /// A leader is told to step down: a stream's, or that of the meta group.
    StepDown {
        /// Whose.
        stream: Option<Stream>,
    },
    /// A consumer's leader is told to step down.
    ConsumerStepDown {
        /// The stream with the consumer.
        stream: Stream,
    },
    /// A server is to give its replica of a stream up.
    PeerRemove {
        /// Which stream.
        stream: Stream,
        /// Which server.
        server: usize,
    },
    /// The server that was kept back starts.
    Join,
    /// A server dies and its disk is emptied. It starts again, as another node of its name.
    Wipe {
        /// Which.
        server: usize,
        /// Milliseconds that it is dead at least.
        ms: u64,
        /// Nobody removes the node that it was from the cluster before: the others have to find out.
        #[serde(default)]
        alone: bool,
    },
    /// A stream is to have so many replicas.
    Scale {
        /// Which.
        stream: Stream,
        /// How many.
        replicas: usize,
    },
}

/// A storm.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// Sizes, limits and classes.
    pub options: Options,
    /// Actors.
    pub actors: Vec<Actor>,
    /// Events in the order of their times.
    pub events: Vec<Timed<Event>>,
}

/// From here on a window between servers takes any burst.
const WIDE_WINDOW: usize = 256 << 10;
/// Bytes of one burst through narrower ones, in windows: each takes as long as an answer from another server.
const BURST_WINDOWS: usize = 8;
/// The number of the actor that uses the stream in memory, where there are several servers.
const KEEPER: u64 = 900;
/// The number of the actor that uses the copies.
const COPIER: u64 = 901;
/// How often each server is asked how far the streams are, where one stands still.
const WATCHES: u64 = 60;

impl Options {
    /// The options of a seed.
    pub fn draw(seed: u64) -> Options {
        let mut net = Rng::derived(seed, "jet/net");
        let mut sizes = Rng::derived(seed, "jet/sizes");
        let mut swarm = Rng::derived(seed, "jet/faults");
        let calm = swarm.bool(0.1);
        let faults = FAULTS.into_iter().filter(|_| swarm.bool(0.4) && !calm).collect();
        Options {
            seed,
            window: *net.pick(&[1000, 16 << 10, 256 << 10]).unwrap_or(&1000),
            short: *net.pick(&[0.0, 0.1, 0.5]).unwrap_or(&0.1),
            latency_max_us: *net.pick(&[100, 2_000, 20_000]).unwrap_or(&500),
            cores: *sizes.pick(&[1, 2, 4]).unwrap_or(&2),
            torn: sizes.bool(0.7),
            spread_ms: *sizes.pick(&[100, 1_000, 5_000]).unwrap_or(&1_000),
            history: *sizes.pick(&[1, 2, 5]).unwrap_or(&1),
            log_max_msgs: *sizes.pick(&[1, 5, 40]).unwrap_or(&5),
            ack_wait_ms: *sizes.pick(&[200, 1_000, 5_000]).unwrap_or(&1_000),
            max_deliver: *sizes.pick(&[-1, -1, 1, 3]).unwrap_or(&-1),
            max_ack_pending: *sizes.pick(&[1, 10, 1000]).unwrap_or(&1000),
            faults,
            servers: 1,
            replicas: [1; 4],
            woes: BTreeSet::new(),
            one_stays_dead: false,
            memory: Rng::derived(seed, "jet/memory").bool(0.3),
            filed: false,
            copies: {
                let mut rng = Rng::derived(seed, "jet/copies");
                let there = rng.bool(0.4);
                let room = *rng.pick(&[1, 3, 20]).unwrap_or(&3);
                there.then_some(Copies { replicas: [1; 5], room })
            },
        }
    }
    /// The options of a seed for several servers.
    pub fn draw_cluster(seed: u64) -> Options {
        Options::draw_cluster_with(seed, false)
    }
    /// The same with or without what takes stored bytes away: rot, and a disk that is wiped.
    pub fn draw_cluster_with(seed: u64, rot: bool) -> Options {
        let mut o = Options::draw(seed);
        let mut sizes = Rng::derived(seed, "cluster/sizes");
        let mut swarm = Rng::derived(seed, "cluster/faults");
        o.servers = *sizes.pick(&[3, 3, 3, 3, 3, 1, 2, 5, 5, 7]).unwrap_or(&3);
        // One server's faults are the woes of several.
        o.faults.retain(|f| matches!(f, Fault::Reset | Fault::Cut));
        let calm = swarm.bool(0.15);
        o.woes = WOES.into_iter().filter(|_| swarm.bool(0.25) && !calm).collect();
        let most = [1, 3, 5].into_iter().filter(|r| *r <= o.servers).max().unwrap_or(1);
        for r in &mut o.replicas {
            *r = *sizes.pick(&[most, most, 3.min(most), 1]).unwrap_or(&1);
        }
        o.one_stays_dead = swarm.bool(0.3) && o.replicas.iter().all(|r| *r >= 3);
        let mut later = Rng::derived(seed, "cluster/more faults");
        let more: Vec<Woe> = MORE_WOES.into_iter().filter(|_| later.bool(0.2) && !calm).collect();
        if o.servers >= 3 && more.iter().any(|w| matches!(w, Woe::Rot | Woe::Wipe)) {
            // One server's disk may go bad where the others have everything.
            o.replicas.iter_mut().for_each(|r| *r = (*r).max(3));
            o.woes.remove(&Woe::Scale);
        }
        let most = o.replicas.iter().copied().max().unwrap_or(1);
        o.woes.extend(more.into_iter().filter(|w| match w {
            // In storms of their own only: something of what they find is open (docs/design/0022-known-bugs.md).
            Woe::Wipe | Woe::Rot => o.servers >= 3 && rot,
            // There must be others to put the replica on, and as many as a stream asks for without the one that comes late.
            Woe::PeerRemove => most < o.servers,
            Woe::Late => o.servers >= 4 && most < o.servers,
            _ => true,
        }));
        // Every stored byte stays on a majority: one thing only takes replicas away.
        if o.has_woe(Woe::Rot) {
            o.woes.remove(&Woe::Wipe);
        }
        if o.has_woe(Woe::Rot) || o.has_woe(Woe::Wipe) {
            o.woes.remove(&Woe::PeerRemove);
        }
        if o.has_woe(Woe::Wipe) {
            o.one_stays_dead = false;
        }
        // Its one replica must stay where it is.
        let stays = [Woe::Wipe, Woe::Rot, Woe::PeerRemove].into_iter().all(|w| !o.has_woe(w));
        o.memory &= stays && !o.one_stays_dead;
        o.filed = o.memory && o.servers > 1 && Rng::derived(seed, "cluster/filed").bool(0.5);
        if !stays || o.one_stays_dead {
            o.copies = None;
        }
        if let Some(c) = &mut o.copies {
            // Alike, or with one replica each, which are on different servers then.
            let mut rng = Rng::derived(seed, "cluster/copies");
            for r in &mut c.replicas {
                *r = *rng.pick(&[1, 1, 3.min(most)]).unwrap_or(&1);
            }
        }
        // A change of leaders takes its time: the steps are spread so that there is something to disturb.
        o.spread_ms = *sizes.pick(&[1_000, 5_000, 20_000]).unwrap_or(&5_000);
        o
    }
    /// Whether a fault class is on.
    pub fn has(&self, f: Fault) -> bool {
        self.faults.contains(&f)
    }
    /// Whether a woe is on.
    pub fn has_woe(&self, w: Woe) -> bool {
        self.woes.contains(&w)
    }
    /// The server to which happens what may happen to one only: it stays dead, or its disk goes bad.
    pub fn victim(&self) -> usize {
        (self.seed % self.servers as u64) as usize
    }
    /// The server that is there only later, if one is.
    pub fn late(&self) -> Option<usize> {
        self.has_woe(Woe::Late).then_some(self.servers - 1)
    }
}

impl Plan {
    /// The plan of a seed.
    pub fn draw(seed: u64) -> Plan {
        let options = Options::draw(seed);
        let rng = &mut Rng::derived(seed, "jet/actors");
        let count = *rng.pick(&[2, 4, 8]).unwrap_or(&4);
        let steps = *rng.pick(&[5, 15, 40]).unwrap_or(&15);
        let mut actors: Vec<Actor> = (0..count).map(|id| actor(&options, id, steps)).collect();
        if options.memory {
            actors.push(keeper(&options, count, steps));
        }
        if options.copies.is_some() {
            actors.push(copier(&options, steps));
        }
        let events = events(&options, count);
        Plan { options, actors, events }
    }
    /// The plan of a seed for several servers.
    pub fn draw_cluster(seed: u64) -> Plan {
        Plan::draw_cluster_with(seed, false)
    }
    /// The same with or without what takes stored bytes away: rot, and a disk that is wiped.
    pub fn draw_cluster_with(seed: u64, rot: bool) -> Plan {
        let options = Options::draw_cluster_with(seed, rot);
        let rng = &mut Rng::derived(seed, "cluster/actors");
        let count = *rng.pick(&[2, 4, 8]).unwrap_or(&4);
        let steps = *rng.pick(&[5, 15, 40]).unwrap_or(&15);
        let mut actors: Vec<Actor> = (0..count).map(|id| actor(&options, id, steps)).collect();
        // What is not answered within three seconds is sent again, all of it: so it must get through between the servers in that time.
        if options.window < WIDE_WINDOW {
            for op in actors.iter_mut().flat_map(|a| &mut a.steps).map(|s| &mut s.op) {
                if let Op::Publish { size, times, .. } = op {
                    *size = (*size).min(BURST_WINDOWS * options.window / *times as usize);
                }
            }
        }
        if options.memory {
            actors.push(keeper(&options, KEEPER, steps));
        }
        if options.copies.is_some() {
            actors.push(copier(&options, steps));
        }
        if options.has_woe(Woe::Pause) {
            actors.extend((count..count + options.servers as u64).map(|id| watcher(&options, id)));
        }
        let mut all = events(&options, count);
        all.extend(woes(&options));
        all.extend(more_woes(&options));
        all.sort_by_key(|t| t.at_ms);
        Plan { options, actors, events: all }
    }
    /// Steps and events.
    pub fn len(&self) -> usize {
        self.actors.iter().map(|a| a.steps.len()).sum::<usize>() + self.events.len()
    }
    /// Whether nothing happens.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn actor(o: &Options, id: u64, steps: u64) -> Actor {
    let rng = &mut Rng::derived(o.seed, &format!("jet/actor/{id}"));
    let stream = STREAMS[rng.below(4) as usize];
    // Half of the actors mostly publish, a quarter mostly uses the bucket, a quarter mostly consumes.
    let bent = rng.below(4);
    let wait_max = 2 * o.spread_ms * 1000 / steps.max(1);
    let steps = (0..steps)
        .map(|_| {
            let wait_us = if rng.bool(0.4) { rng.below(50) } else { rng.below(wait_max + 1) };
            Step { wait_us, op: op(rng, bent) }
        })
        .collect();
    Actor { id, stream, steps }
}

/// Asks the server that it is connected to how far the streams are, again and again: also one that has stood still meanwhile.
fn watcher(o: &Options, id: u64) -> Actor {
    let rng = &mut Rng::derived(o.seed, &format!("cluster/watcher/{id}"));
    let wait_max = o.spread_ms * 2_000 / WATCHES + 100_000;
    let mut steps =
        || Step { wait_us: rng.below(wait_max), op: Op::Info { stream: STREAMS[rng.below(4) as usize] } };
    Actor { id, stream: Stream::Log, steps: (0..WATCHES).map(|_| steps()).collect() }
}

/// Uses the stream in memory, and sees to it that there is one.
fn keeper(o: &Options, id: u64, steps: u64) -> Actor {
    let rng = &mut Rng::derived(o.seed, "jet/memory/steps");
    let wait_max = 2 * o.spread_ms * 1000 / steps.max(1);
    let mut step = || Step {
        wait_us: rng.below(wait_max + 1),
        op: Op::Memory { times: [1, 3, 10][rng.below(3) as usize], size: rng.below(1_000) as usize },
    };
    Actor { id, stream: Stream::Memory, steps: (0..steps).map(|_| step()).collect() }
}

/// Publishes what is copied, and makes room for it.
fn copier(o: &Options, steps: u64) -> Actor {
    let rng = &mut Rng::derived(o.seed, "jet/copies/steps");
    let wait_max = 2 * o.spread_ms * 1000 / steps.max(1);
    let mut step = || Step {
        wait_us: rng.below(wait_max + 1),
        op: Op::Copies {
            work: rng.bool(0.5),
            times: [1, 3, 10][rng.below(3) as usize],
            size: rng.below(1_000) as usize,
            take: [0, 0, 1, 20][rng.below(4) as usize],
        },
    };
    Actor { id: COPIER, stream: Stream::Sink, steps: (0..steps).map(|_| step()).collect() }
}

fn size(rng: &mut Rng) -> usize {
    match rng.below(6) {
        0 => 0,
        1 | 2 => rng.below(64) as usize,
        3 => rng.below(1_000) as usize,
        4 => rng.below(10_000) as usize,
        _ => rng.below(100_000) as usize,
    }
}

fn op(rng: &mut Rng, bent: u64) -> Op {
    let kind = match (rng.below(10), bent) {
        (0..6, 0 | 1) => 0,
        (0..6, 2) => 1,
        (0..6, _) => 2,
        (n, _) => n - 6,
    };
    match kind {
        0 => Op::Publish {
            stream: [Stream::Log, Stream::Short, Stream::Queue, Stream::Log][rng.below(4) as usize],
            key: rng.below(4),
            size: size(rng),
            times: [1, 1, 3, 10, 50][rng.below(5) as usize],
            id: rng.bool(0.5),
            expect: rng.bool(0.15),
        },
        1 => {
            let key = rng.below(3);
            match rng.below(8) {
                0 | 1 => Op::Put { key, size: size(rng).min(2_000) },
                2..5 => Op::Update { key, size: size(rng).min(2_000) },
                5 => Op::Create { key },
                _ => Op::Get { key, direct: rng.bool(0.5) },
            }
        }
        2 => {
            let acts = (0..rng.between(1, 6))
                .map(|_| match rng.below(12) {
                    0..5 => Act::Ack,
                    5..8 => Act::AckSync,
                    8 => Act::Nak,
                    9 => Act::NakDelay(rng.below(2_000)),
                    10 => [Act::Term, Act::Progress][rng.below(2) as usize],
                    _ => Act::Forget,
                })
                .collect();
            Op::Fetch {
                batch: [1, 2, 10, 100][rng.below(4) as usize],
                expires_ms: [0, 50, 500][rng.below(3) as usize],
                acts,
            }
        }
        _ => match rng.below(3) {
            0 => Op::Reconnect,
            _ => Op::Info { stream: STREAMS[rng.below(4) as usize] },
        },
    }
}

fn events(o: &Options, actors: u64) -> Vec<Timed<Event>> {
    let rng = &mut Rng::derived(o.seed, "jet/events");
    let span = o.spread_ms * 3 / 2 + 10;
    let mut all = Vec::new();
    let mut add = |rng: &mut Rng, event| all.push(Timed { at_ms: rng.below(span), event });
    for (fault, power) in [(Fault::Kill, false), (Fault::Power, true)] {
        if o.has(fault) {
            for _ in 0..rng.between(1, 4) {
                let ms = rng.below(500);
                add(rng, Event::Kill { power, ms });
            }
        }
    }
    if o.has(Fault::Restart) {
        add(rng, Event::Restart);
    }
    if o.has(Fault::Pause) {
        let ms = [20, 400, 3_000][rng.below(3) as usize];
        add(rng, Event::Pause { ms });
    }
    if o.has(Fault::Clock) {
        let ms = [-3_600_000, -2_000, 2_000, 60_000][rng.below(4) as usize];
        add(rng, Event::Clock { ms });
    }
    for actor in 0..actors {
        if o.has(Fault::Reset) && rng.bool(0.5) {
            add(rng, Event::Reset { actor });
        }
        if o.has(Fault::Cut) && rng.bool(0.5) {
            let ms = [5, 300, 3_000][rng.below(3) as usize];
            add(rng, Event::Cut { actor, ms });
        }
    }
    all.sort_by_key(|t| t.at_ms);
    all
}

/// What happens to several servers.
fn woes(o: &Options) -> Vec<Timed<Event>> {
    use fleet::Event as F;
    let rng = &mut Rng::derived(o.seed, "cluster/events");
    let (n, span) = (o.servers, o.spread_ms * 3 / 2 + 10);
    let mut all: Vec<Timed<Event>> = Vec::new();
    let mut add = |at_ms: u64, event| all.push(Timed { at_ms, event });
    let has = |w: Woe| o.woes.contains(&w);
    let times = |rng: &mut Rng, w: Woe, most: u64| if has(w) { rng.between(1, most) } else { 0 };
    let long = |rng: &mut Rng| [50, 1_000, 4_000, 15_000][rng.below(4) as usize];
    let any = |rng: &mut Rng| rng.below(n as u64) as usize;
    if n > 1 {
        for _ in 0..times(rng, Woe::Cut, 4) {
            let ((a, b), way, ms) = (fleet::two(rng, n), fleet::way(rng), long(rng));
            add(rng.below(span), Event::Servers(F::CutLink { a, b, way, ms }));
        }
        for _ in 0..times(rng, Woe::Part, 3) {
            let side: Vec<usize> = match rng.below(3) {
                0 => vec![any(rng)],
                _ => (0..n).filter(|_| rng.bool(0.5)).collect(),
            };
            let (way, ms) = (fleet::way(rng), long(rng));
            add(rng.below(span), Event::Servers(F::Part { side, way, ms }));
        }
        for _ in 0..times(rng, Woe::Reset, 4) {
            let (a, b) = fleet::two(rng, n);
            add(rng.below(span), Event::Servers(F::ResetLink { a, b }));
        }
        for _ in 0..times(rng, Woe::Slow, 3) {
            let (a, b) = fleet::two(rng, n);
            let latency_us = [1_000, 50_000, 400_000][rng.below(3) as usize];
            let loss = [0, 5, 30][rng.below(3) as usize];
            let bandwidth = [0, 100_000, 2_000_000][rng.below(3) as usize];
            let ms = rng.between(100, o.spread_ms + 100);
            add(rng.below(span), Event::Servers(F::SlowLink { a, b, latency_us, loss, bandwidth, ms }));
        }
    }
    for (woe, power) in [(Woe::Kill, false), (Woe::Power, true)] {
        for _ in 0..times(rng, woe, 4) {
            let (server, ms) = (any(rng), rng.below(6_000));
            add(rng.below(span), Event::Servers(F::KillServer { server, power, ms }));
        }
    }
    if has(Woe::Blackout) {
        let at = rng.below(span);
        for server in 0..n {
            let ms = rng.below(2_000);
            add(at, Event::Servers(F::KillServer { server, power: true, ms }));
        }
    }
    if has(Woe::Restart) {
        let server = any(rng);
        add(rng.below(span), Event::Servers(F::RestartServer { server }));
    }
    if has(Woe::Rolling) {
        let (at, gap) = (rng.below(span), [500, 4_000, 10_000][rng.below(3) as usize]);
        for server in 0..n {
            add(at + gap * server as u64, Event::Servers(F::RestartServer { server }));
        }
    }
    for _ in 0..times(rng, Woe::Pause, 2) {
        let (server, ms) = (any(rng), long(rng));
        add(rng.below(span), Event::Servers(F::PauseServer { server, ms }));
    }
    if has(Woe::Clock) {
        let (server, ms) = (any(rng), [-3_600_000, -2_000, 2_000, 60_000][rng.below(4) as usize]);
        add(rng.below(span), Event::Servers(F::ClockServer { server, ms }));
    }
    for _ in 0..times(rng, Woe::StepDown, 4) {
        let stream = if rng.bool(0.3) { None } else { rng.pick(&STREAMS).copied() };
        add(rng.below(span), Event::StepDown { stream });
    }
    for _ in 0..times(rng, Woe::Scale, 3) {
        let stream = STREAMS[rng.below(4) as usize];
        let fits: Vec<usize> = [1, 3, 5].into_iter().filter(|r| *r <= n).collect();
        let replicas = rng.pick(&fits).copied().unwrap_or(1);
        add(rng.below(span), Event::Scale { stream, replicas });
    }
    all
}

/// What happens to several servers, of the woes that came later.
fn more_woes(o: &Options) -> Vec<Timed<Event>> {
    use fleet::{Event as F, Hit, Ruin};
    let rng = &mut Rng::derived(o.seed, "cluster/more events");
    let (n, span) = (o.servers, o.spread_ms * 3 / 2 + 10);
    let mut all: Vec<Timed<Event>> = Vec::new();
    let mut add = |at_ms: u64, event| all.push(Timed { at_ms, event });
    let times = |rng: &mut Rng, w: Woe, most: u64| if o.has_woe(w) { rng.between(1, most) } else { 0 };
    let long = |rng: &mut Rng| [50, 1_000, 4_000, 15_000][rng.below(4) as usize];
    let any = |rng: &mut Rng| rng.below(n as u64) as usize;
    for _ in 0..times(rng, Woe::Full, 2) {
        // One server, or all of them at a time.
        let (at, ms, spare) = (rng.below(span), long(rng), [0, 4_096, 200_000][rng.below(3) as usize]);
        let which = if rng.bool(0.5) { vec![any(rng)] } else { (0..n).collect() };
        for server in which {
            add(at, Event::Servers(F::FullDisk { server, spare, ms }));
        }
    }
    for _ in 0..times(rng, Woe::SlowDisk, 3) {
        let (server, percent, ms) = (any(rng), [2, 20, 100][rng.below(3) as usize], long(rng));
        add(rng.below(span), Event::Servers(F::SlowDisk { server, percent, ms }));
    }
    for _ in 0..times(rng, Woe::Rot, 2) {
        let hits = (0..[1, 2, 8][rng.below(3) as usize])
            .map(|_| Hit {
                file: rng.below(1_000),
                at: [rng.below(600), rng.below(100_000), rng.below(1 << 30)][rng.below(3) as usize],
                what: [Ruin::Flip, Ruin::Flip, Ruin::Cut, Ruin::Flip][rng.below(4) as usize],
            })
            .collect();
        let down_ms = if rng.bool(0.6) { Some(rng.below(4_000)) } else { None };
        add(rng.below(span), Event::Servers(F::Damage { server: o.victim(), hits, down_ms }));
    }
    for _ in 0..times(rng, Woe::PeerRemove, 2) {
        let (stream, server) = (STREAMS[rng.below(4) as usize], any(rng));
        add(rng.below(span), Event::PeerRemove { stream, server });
    }
    if o.has_woe(Woe::Wipe) {
        let ms = rng.below(4_000);
        add(rng.below(span), Event::Wipe { server: o.victim(), ms, alone: rng.bool(0.5) });
    }
    if o.has_woe(Woe::Late) {
        add(rng.below(span), Event::Join);
    }
    for _ in 0..times(rng, Woe::StepDown, 2) {
        let stream = [Stream::Log, Stream::Queue][rng.below(2) as usize];
        add(rng.below(span), Event::ConsumerStepDown { stream });
    }
    all
}
