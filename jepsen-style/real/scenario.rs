//! The scenarios, and how one is run: nodes, stream, load and faults, calm, a probe, the full reading, the verdict.
//!
//! A scenario is data ([`Scenario`]); the same seed gives the same faults at the same times. What the clients meet depends
//! on the machine, as with all real processes.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::{sync::watch, task::JoinHandle, time::Instant};

use super::{
    Wrong, client,
    cluster::{Cluster, Shape},
    damage::{Dice, Target},
    nemesis::{self, Fault},
    recorder::Recorder,
    report::{Row, State},
    subject::{Kind, Subject},
    tell,
    workload::{self, CONSUMER, Load, STREAM, Worker},
};
use crate::check::{self, Rules};

/// What the clients do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Work {
    /// Unique values to a stream, read back in full.
    Append,
    /// Reads, writes, compare-and-set on a few keys.
    Registers,
    /// A work queue with several workers.
    Queue,
    /// A consumer that delivers again what is not confirmed, `max_deliver` times.
    Redelivery,
    /// One of many subjects is read out of a large stream.
    Filter,
    /// A work queue of which all but every hundredth message is confirmed, then a restart.
    Interior,
    /// A work queue of which one request deletes all but every thousandth message, then a restart.
    Purge,
    /// Many streams with consumers, then a restart, and the death of the node that leads them.
    Assets,
    /// The leader of a stream dies again and again, and hands over again and again.
    Failover,
    /// A subject for each message, then a restart.
    Subjects,
}

/// A scenario.
#[derive(Clone, PartialEq, Debug)]
pub struct Scenario {
    /// Its name on the command line.
    pub name: &'static str,
    /// Which of the twelve it belongs to.
    pub number: u32,
    /// What happens, for the table.
    pub title: &'static str,
    /// Nodes, and replicas of the stream.
    pub nodes: usize,
    /// Size of a node's image, where a real file system of its own is needed.
    pub image_mib: Option<u64>,
    /// What the clients do.
    pub work: Work,
    /// Length of the load in milliseconds.
    pub load_ms: u64,
    /// Faults at milliseconds of the load.
    pub faults: Vec<(u64, Fault)>,
    /// Publishes a second of each of the clients.
    pub rate: u64,
    /// Bytes of a body.
    pub size: usize,
    /// All disks are synced once the stream is there, so that its creation is not what is asked.
    pub settle: bool,
    /// Faults are drawn from the run's seed instead ([`nemesis::draw`]).
    pub storm: bool,
}

impl Scenario {
    fn new(number: u32, name: &'static str, nodes: usize, load_ms: u64, title: &'static str) -> Scenario {
        Scenario {
            name,
            number,
            title,
            nodes,
            image_mib: None,
            work: Work::Append,
            load_ms,
            faults: Vec::new(),
            rate: 2_000,
            size: 128,
            settle: true,
            storm: false,
        }
    }
    fn image(mut self, mib: u64) -> Scenario {
        self.image_mib = Some(mib);
        self
    }
    fn work(mut self, work: Work) -> Scenario {
        self.work = work;
        self
    }
    fn storm(mut self) -> Scenario {
        self.storm = true;
        self
    }
    fn faults(mut self, all: impl IntoIterator<Item = (u64, Fault)>) -> Scenario {
        self.faults = all.into_iter().collect();
        self
    }
}

/// All scenarios, in the order of the scoreboard.
pub fn all() -> Vec<Scenario> {
    use Fault::{
        Cut, Fill, Flip, Free, Heal, Isolate, Kill, Pause, Resume, Slow, Start, Stop, Truncate, Unplug,
        Upgrade, Wipe,
    };
    use Target::{Messages, Snapshots};
    let kills = |node, times: &[u64]| -> Vec<(u64, Fault)> {
        times.iter().flat_map(|t| [(*t, Kill(node)), (*t + 200, Start(node))]).collect()
    };
    let s = Scenario::new;
    vec![
        s(0, "kill", 1, 6_000, "1 node: kill -9 three times under load").faults(kills(0, &[1_000, 2_500, 4_000])),
        s(1, "flip", 1, 5_000, "1 node: 10 bits flipped in message files, restart")
            .faults([(2_500, Flip(0, Messages, 10)), (2_600, Kill(0)), (2_800, Start(0))]),
        s(1, "truncate", 1, 5_000, "1 node: the fullest message file loses its last 2 KiB while it is down, restart")
            .faults([(2_500, Kill(0)), (2_550, Truncate(0, Messages, 1, 2_048)), (2_800, Start(0))]),
        s(1, "minority-flip", 3, 12_000, "3 nodes, R3: 30 bits flipped and files cut on one node, then each node restarts in turn")
            .faults(
                [(3_000, Flip(1, Messages, 30)), (3_100, Kill(1)), (3_150, Truncate(1, Messages, 2, 4_096)), (3_400, Start(1))]
                    .into_iter()
                    .chain(kills(0, &[6_000]))
                    .chain(kills(2, &[9_000])),
            ),
        Scenario {
            // Large bodies: who keeps a long log must have written something else by the time that it is damaged.
            size: 16 << 10,
            rate: 250,
            ..s(2, "snapshots", 5, 20_000, "5 nodes, R5, bodies of 16 KiB: bits flipped in snapshots, manifests and the metadata group on two nodes, both restart")
                .faults([
                    (11_000, Flip(0, Snapshots, 20)),
                    (11_000, Flip(1, Snapshots, 20)),
                    (11_100, Kill(0)),
                    (11_100, Kill(1)),
                    (11_500, Start(0)),
                    (11_500, Start(1)),
                ])
        },
        s(3, "power", 1, 5_000, "1 node: loses power under load")
            .image(512)
            .faults([(3_000, Unplug(vec![0])), (3_300, Start(0))]),
        Scenario {
            settle: false,
            ..s(3, "power-new", 1, 2_500, "1 node: loses power two seconds after the stream was created")
                .image(512)
                .faults([(2_000, Unplug(vec![0])), (2_200, Start(0))])
        },
        s(3, "power-all", 3, 9_000, "3 nodes, R3: all lose power at once under load").image(512).faults([
            (4_000, Unplug(vec![0, 1, 2])),
            (4_500, Start(0)),
            (4_500, Start(1)),
            (4_500, Start(2)),
        ]),
        s(4, "os-crash", 3, 14_000, "3 nodes, R3: one loses power, the others pause, one-way cuts").image(512).faults([
            (3_000, Unplug(vec![0])),
            (4_000, Pause(1)),
            (5_000, Resume(1)),
            (5_500, Start(0)),
            (7_500, Cut(1, 2)),
            (9_500, Heal),
            (10_000, Pause(2)),
            (11_000, Resume(2)),
        ]),
        s(4, "partitions", 3, 14_000, "3 nodes, R3, registers: partitions, one-way cuts, slow and lossy links").work(Work::Registers).faults([
            (2_000, Isolate(0)),
            (4_000, Heal),
            (5_000, Cut(1, 2)),
            (6_500, Cut(0, 1)),
            (8_000, Heal),
            (9_000, Slow { delay_ms: 40, loss: 50 }),
            (11_500, Heal),
        ]),
        s(5, "wiped-node", 3, 12_000, "3 nodes, R3: one comes back with an empty disk under load, then another restarts").faults([
            (3_000, Stop(2)),
            (3_500, Wipe(2)),
            (3_600, Start(2)),
            (8_000, Kill(0)),
            (8_300, Start(0)),
        ]),
        s(6, "two-of-three", 3, 12_000, "3 nodes, R3 registers: two of three restart under load, health by a write probe")
            .work(Work::Registers)
            .faults([(3_000, Stop(0)), (3_000, Stop(1)), (4_000, Start(0)), (4_000, Start(1)), (7_000, Kill(1)), (7_000, Kill(2)), (8_000, Start(1)), (8_000, Start(2))]),
        s(7, "assets", 1, 0, "1 node: 10,000 streams with 10 consumers each, idle and restarted").work(Work::Assets),
        s(7, "assets-cluster", 3, 0, "3 nodes, R3: 10,000 streams with 10 consumers each, idle, all restarted, and the node that leads all of them dies")
            .work(Work::Assets),
        s(12, "failover", 3, 0, "3 nodes, R3: the leader dies and comes back, and hands over, again and again").work(Work::Failover),
        s(8, "subjects", 1, 0, "1 node: a subject for each message, restarted").work(Work::Subjects),
        s(8, "subjects-10m", 1, 0, "1 node: ten times as many subjects, restarted").work(Work::Subjects),
        s(9, "filter", 1, 0, "1 node: a consumer for one message in a thousand of a large stream").work(Work::Filter),
        s(10, "queue", 1, 6_000, "1 node: work queue, kill -9 twice under load")
            .work(Work::Queue)
            .faults(kills(0, &[2_000, 4_000])),
        s(10, "redelivery", 1, 6_000, "1 node: 40 % unconfirmed, max_deliver 4, kill -9 under load")
            .work(Work::Redelivery)
            .faults(kills(0, &[3_000])),
        s(10, "interior", 1, 0, "1 node: work queue with interior deletes, kill -9, restart").work(Work::Interior),
        s(10, "interior-50m", 1, 0, "1 node: work queue of 50 million of which a purge takes all but every thousandth, kill -9, restart")
            .work(Work::Purge),
        s(11, "disk-full", 1, 8_000, "1 node: disk full for 2 s under load, then freed")
            .image(96)
            .faults([(2_500, Fill(0)), (4_500, Free(0))]),
        s(12, "rolling", 3, 12_000, "3 nodes, R3: rolling restart under load").faults([
            (2_000, Stop(0)),
            (2_200, Start(0)),
            (5_000, Stop(1)),
            (5_200, Start(1)),
            (8_000, Stop(2)),
            (8_200, Start(2)),
        ]),
        s(12, "upgrade", 3, 12_000, "3 nodes, R3: rolling upgrade from an older version under load").faults(
            [0, 1, 2].into_iter().flat_map(|i| {
                let at = 2_000 + 3_000 * i as u64;
                [(at, Stop(i)), (at, Upgrade(i)), (at + 200, Start(i))]
            }),
        ),
        s(10, "queue-cluster", 3, 14_000, "3 nodes, R3: work queue, each node dies once, one is cut off, all under load")
            .work(Work::Queue)
            .faults(deaths_and_a_cut()),
        s(10, "redelivery-cluster", 3, 14_000, "3 nodes, R3: 40 % unconfirmed, max_deliver 4, each node dies once, one is cut off")
            .work(Work::Redelivery)
            .faults(deaths_and_a_cut()),
        s(0, "storm-append", 3, 25_000, "3 nodes, R3: faults of all kinds drawn from the seed").image(512).storm(),
        s(0, "storm-registers", 3, 25_000, "3 nodes, R3, registers: faults of all kinds drawn from the seed")
            .image(512)
            .work(Work::Registers)
            .storm(),
        s(0, "storm-queue", 3, 25_000, "3 nodes, R3, work queue: faults of all kinds drawn from the seed")
            .image(512)
            .work(Work::Queue)
            .storm(),
        s(0, "storm-redelivery", 3, 25_000, "3 nodes, R3, 40 % unconfirmed: faults of all kinds drawn from the seed")
            .image(512)
            .work(Work::Redelivery)
            .storm(),
    ]
}

/// Each node dies once and comes back, and between the deaths one is cut off: whichever led, it was met.
fn deaths_and_a_cut() -> Vec<(u64, Fault)> {
    vec![
        (2_000, Fault::Kill(0)),
        (2_700, Fault::Start(0)),
        (5_000, Fault::Isolate(1)),
        (7_000, Fault::Heal),
        (8_500, Fault::Kill(1)),
        (9_200, Fault::Start(1)),
        (11_000, Fault::Kill(2)),
        (11_700, Fault::Start(2)),
    ]
}

/// What a run may be told.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Options {
    /// Random places, and the clients' choices.
    pub seed: u64,
    /// Multiplies rates and sizes; 1.0 for the scoreboard's short runs.
    pub scale: f64,
    /// Where nodes, logs and histories lie.
    pub dir: PathBuf,
    /// Publishing clients.
    pub clients: u64,
}

/// How long nodes may take to serve at the start, and after the storm.
const SERVE: Duration = Duration::from_secs(40);
/// How long the full reading may take.
const READ: Duration = Duration::from_secs(60);
/// A stretch without any success counts as unavailable from here on.
const AWAY: Duration = Duration::from_millis(500);
/// Keys of the registers.
const KEYS: u64 = 5;
/// Of the queue's consumer.
const ACK_WAIT: Duration = Duration::from_secs(2);
/// Of the redelivery consumer.
const MAX_DELIVER: u64 = 4;

/// Runs a scenario. What cannot be run is a row that says so.
pub async fn run(s: &Scenario, subject: &Subject, o: &Options) -> Row {
    let mut row = Row { scenario: s.name.into(), subject: subject.kind.name().into(), ..Row::default() };
    let dir = o.dir.join(format!("{}-{}", s.name, subject.kind.name().replace(' ', "-")));
    let begun = Instant::now();
    let rec = Recorder::default();
    let done = attempt(s, subject, o, &dir, &rec, &mut row).await;
    row.real_s = begun.elapsed().as_secs_f64();
    if let Err((state, why)) = done {
        (row.state, row.note) = (state, why);
    }
    let path = dir.join("history.jsonl");
    let written = std::fs::File::create(&path).and_then(|f| rec.history().write(std::io::BufWriter::new(f)));
    if let Err(e) = written {
        tell(&format!("jepsen: {}: {e}", path.display()));
    }
    row
}

type Halt = (State, Wrong);

fn halt(state: State) -> impl Fn(Wrong) -> Halt {
    move |why| (state, why)
}

async fn attempt(
    s: &Scenario,
    subject: &Subject,
    o: &Options,
    dir: &Path,
    rec: &Recorder,
    row: &mut Row,
) -> Result<(), Halt> {
    let old = s.faults.iter().any(|f| matches!(f.1, Fault::Upgrade(_)));
    if old && subject.old.is_none() {
        return Err((State::NotHere, "no binary of an older version was named".into()));
    }
    let shape = Shape { nodes: s.nodes, image_mib: s.image_mib, old, direct: s.load_ms == 0 };
    let mut c = Cluster::prepare(subject.clone(), dir, shape).await.map_err(halt(State::NotHere))?;
    // A server that does not even begin is one that cannot do it yet, if it is ours.
    let idle = if subject.kind == Kind::Fulmar { State::NotYet } else { State::Broken };
    (0..s.nodes).try_for_each(|i| c.start(i)).map_err(halt(idle))?;
    c.greets(Instant::now() + SERVE).await.map_err(halt(idle))?;
    let (stop_tx, stop) = watch::channel(false);
    let load = Load {
        ports: c.ports(),
        rec: rec.clone(),
        stop,
        window: 64,
        rate: (s.rate as f64 * o.scale) as u64,
        size: s.size,
        seed: o.seed,
    };
    create(&load, s, subject.kind).await.map_err(halt(idle))?;
    if s.settle && s.image_mib.is_some() {
        c.nodes.iter().try_for_each(|n| n.disk.sync()).map_err(halt(State::NotHere))?;
    }
    if s.load_ms == 0 {
        return super::scale::run(s, o, &mut c, &load, &stop_tx, row).await;
    }
    rec.phase("load");
    let (clients, workers) = spawn(s, &load, o);
    let mut dice = Dice::new(o.seed);
    let faults = match s.storm {
        true => nemesis::draw(o.seed, s.nodes, s.load_ms, s.image_mib.is_some()),
        false => s.faults.clone(),
    };
    let stormed = nemesis::storm(&mut c, &faults, s.load_ms, &mut dice, rec).await;
    rec.phase("calm");
    stop_tx.send_replace(true);
    stormed.map_err(halt(State::NotHere))?;
    c.mend().map_err(halt(State::Broken))?;
    let deadline = Instant::now() + SERVE;
    // The others are asked for all that was acknowledged.
    let ended = c.rise(deadline, (s.nodes - 1) / 2).await.map_err(halt(State::Broken))?;
    for t in clients {
        t.await.map_err(|e| (State::Broken, e.to_string()))?;
    }
    let calm = Instant::now();
    let probed = match s.work {
        Work::Registers => workload::probe_key(&load, 0, deadline).await,
        _ => workload::probe(&load, "log.probe", deadline).await,
    };
    let mut drained = true;
    for t in workers {
        drained &= t.await.unwrap_or(false);
    }
    rec.phase("read");
    let read = match (&probed, s.work) {
        (_, Work::Append) => workload::read_all(&load, Instant::now() + READ).await.map(drop),
        (_, Work::Registers) => workload::read_keys(&load, KEYS, Instant::now() + READ).await,
        _ => Ok(()),
    };
    judge(s, rec, drained, row);
    for name in ended {
        row.note += &format!("{name} refuses to start with what is on its disk; ");
    }
    if let Err(e) = &probed {
        let waited = (deadline - calm).as_secs();
        (row.state, row.note) =
            (State::Broken, format!("not served again within {waited} s: {e}; {}", row.note));
    }
    if let Err(e) = read {
        (row.state, row.note) = (State::Broken, format!("{}{e}; ", row.note));
    }
    if let Ok(took) = probed
        && took > AWAY
    {
        row.note += &format!("served again {:.1} s after the load; ", took.as_secs_f64());
    }
    Ok(())
}

/// The stream, and the consumer where there is one.
async fn create(load: &Load, s: &Scenario, kind: Kind) -> Result<(), Wrong> {
    let client = client::connect(&load.ports, 0).await?;
    // While ours cannot do all of it, nobody waits long to be told so.
    let patience = if kind == Kind::Fulmar { SERVE / 4 } else { SERVE };
    let deadline = Instant::now() + patience;
    client::insist(&client, "INFO", &Value::Null, deadline).await?;
    let (name, subjects, per_subject) = match s.work {
        Work::Registers => (format!("KV_{STREAM}"), format!("$KV.{STREAM}.>"), 1),
        _ => (STREAM.to_owned(), "log.>".to_owned(), -1),
    };
    let retention =
        if matches!(s.work, Work::Queue | Work::Interior | Work::Purge) { "workqueue" } else { "limits" };
    let config = json!({
        "name": name, "subjects": [subjects], "retention": retention, "storage": "file",
        "num_replicas": s.nodes, "max_msgs_per_subject": per_subject, "discard": "new",
    });
    client::insist(&client, &format!("STREAM.CREATE.{name}"), &config, deadline).await?;
    if matches!(s.work, Work::Queue | Work::Redelivery | Work::Interior | Work::Purge) {
        let max = if s.work == Work::Redelivery { MAX_DELIVER as i64 } else { -1 };
        let config = json!({"stream_name": STREAM, "config": {
            "durable_name": CONSUMER, "ack_policy": "explicit", "ack_wait": ACK_WAIT.as_nanos() as u64,
            "max_deliver": max, "max_ack_pending": 10_000,
        }});
        let what = format!("CONSUMER.DURABLE.CREATE.{STREAM}.{CONSUMER}");
        client::insist(&client, &what, &config, deadline).await?;
    }
    Ok(())
}

type Tasks<T> = Vec<JoinHandle<T>>;

fn spawn(s: &Scenario, load: &Load, o: &Options) -> (Tasks<()>, Tasks<bool>) {
    let (mut clients, mut workers) = (Vec::new(), Vec::new());
    for p in 0..o.clients {
        let load = load.clone();
        clients.push(match s.work {
            Work::Registers => tokio::spawn(workload::register(load, p, KEYS)),
            Work::Queue | Work::Redelivery => {
                // Workers confirm one by one: what they cannot keep up with would only be read later.
                let load = Load { rate: load.rate / 8, ..load };
                tokio::spawn(workload::append(load, p, |n| format!("log.{}", n % 7)))
            }
            _ => tokio::spawn(workload::append(load, p, |n| format!("log.{}", n % 7))),
        });
    }
    if matches!(s.work, Work::Append | Work::Registers) {
        for n in 0..s.nodes as u64 {
            clients.push(tokio::spawn(workload::watch(load.clone(), n, s.work == Work::Registers)));
        }
    }
    if matches!(s.work, Work::Queue | Work::Redelivery) {
        let confirms = if s.work == Work::Redelivery { 60 } else { 100 };
        let w = Worker { confirms, quiet: ACK_WAIT * 2 + Duration::from_secs(1), limit: SERVE };
        for p in 0..4 {
            workers.push(tokio::spawn(workload::work(load.clone(), 100 + p, w)));
        }
    }
    (clients, workers)
}

/// Fills the row from the history.
fn judge(s: &Scenario, rec: &Recorder, drained: bool, row: &mut Row) {
    let h = rec.history();
    row.state = State::Done;
    row.away_ms = h.away(AWAY.as_nanos() as u64) / 1_000_000;
    match s.work {
        Work::Registers => {
            let r = check::register(&h);
            row.acknowledged = r.acknowledged;
            row.lost = r.lost;
            row.broken = r.broken.len() as u64;
            if let Some((key, why)) = r.broken.first() {
                row.note += &format!("key {key} is not linearizable: {why}; ");
            }
            if !r.undecided.is_empty() {
                row.note += &format!("{} keys undecided; ", r.undecided.len());
            }
        }
        Work::Queue | Work::Redelivery => {
            let max_deliver = (s.work == Work::Redelivery).then_some(MAX_DELIVER);
            let d =
                check::delivery(&h, &Rules { ack_wait: ACK_WAIT.as_nanos() as u64, max_deliver, drained });
            row.acknowledged = d.acknowledged;
            row.lost = d.lost.len() as u64;
            row.duplicated = d.revived.len() as u64;
            row.phantom = d.phantom.len() as u64;
            row.broken = (d.shared.len() + d.overdone.len()) as u64;
            let parts = [
                (d.revived.len(), "came again after their confirmation was confirmed"),
                (d.shared.len(), "came again before ack_wait"),
                (d.overdone.len(), "came more often than max_deliver"),
            ];
            parts.iter().filter(|p| p.0 > 0).for_each(|p| row.note += &format!("{} {}; ", p.0, p.1));
            if !drained {
                row.note += "the queue was not drained in time; ";
            }
        }
        _ => {
            let l = check::log(&h);
            row.acknowledged = l.acknowledged;
            row.unknown = l.unknown;
            row.lost = l.lost.len() as u64;
            row.duplicated = l.duplicated.len() as u64;
            row.reordered = l.reordered.len() as u64;
            row.phantom = l.phantom.len() as u64;
            if !l.moved.is_empty() {
                row.note +=
                    &format!("{} stand at another sequence than the acknowledged one; ", l.moved.len());
            }
        }
    }
}
