//! Many streams with ten consumers each, on one node or on three: how fast they are made, what they cost while idle, how long until each of them takes a
//! publish again when all nodes restart, and when the node that leads all of them dies. And what the death of one stream's leader costs, again and again.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use async_nats::{Client, Request};
use futures_util::future::join_all;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::{task::JoinSet, time::Instant};

use super::{
    Wrong, client,
    cluster::{Cluster, kib},
    report::{Row, State},
    scenario::{Options, Scenario},
    tell,
    workload::{Load, STREAM},
};

/// Streams at scale 1, each with as many consumers.
const STREAMS: u64 = 10_000;
const CONSUMERS: u64 = 10;
/// How long streams are made, and how long consumers. What there is then is gone on with.
const MAKING: [Duration; 2] = [Duration::from_secs(120), Duration::from_secs(240)];
/// The part of this machine's memory that the nodes may take before no more is made: beyond it the kernel would end somebody.
const MEMORY_SHARE: f64 = 0.6;
/// How many are made between two looks at that.
const LOOK: u64 = 200;
/// Requests at a time.
const AT_ONCE: usize = 64;
/// Streams that are published to at a time, until each has taken something.
const PUBLISHERS: usize = 128;
/// Pause before a stream is tried again that did not take it.
const AGAIN: Duration = Duration::from_millis(10);
/// How long each part may take, beside a share for each stream.
const LIMIT: Duration = Duration::from_secs(60);
const LIMIT_EACH: Duration = Duration::from_millis(20);
/// How long nodes are looked at while nothing is asked of them, after they came to rest.
const REST: Duration = Duration::from_secs(5);
const IDLE: Duration = Duration::from_secs(10);
/// Deaths and changes of a leader at scale 1.
const DEATHS: f64 = 20.0;
/// Time between two publishes while leaders die, and how long it is looked on after each death.
const PACE: Duration = Duration::from_millis(4);
const WATCH: Duration = Duration::from_millis(2_500);

type Halt = (State, Wrong);

/// Streams with consumers.
///
/// # Errors
/// With the state that the row then has.
pub async fn assets(
    s: &Scenario,
    o: &Options,
    c: &mut Cluster,
    load: &Load,
    row: &mut Row,
) -> Result<(), Halt> {
    let late = |e: Wrong| (State::Broken, e);
    let wanted = (STREAMS as f64 * o.scale).max(1.0) as u64;
    let limit = LIMIT + LIMIT_EACH * u32::try_from(wanted).unwrap_or(u32::MAX);
    let before = (0..s.nodes).map(|i| c.rss_kib(i)).max().unwrap_or(0) / 1024;
    let (n, consumers) = make(load, wanted, c, row).await.map_err(late)?;
    tokio::time::sleep(REST).await;
    let cpu: Vec<u64> = (0..s.nodes).map(|i| c.cpu_ms(i)).collect();
    tokio::time::sleep(IDLE).await;
    let most = (0..s.nodes).map(|i| c.cpu_ms(i) - cpu[i]).max().unwrap_or(0);
    say(row, &format!("idle {:.2} % of a core", most as f64 / IDLE.as_millis() as f64 * 100.0));
    let rss = (0..s.nodes).map(|i| c.rss_kib(i)).max().unwrap_or(0) / 1024;
    say(row, &format!("{rss} MiB a node, {before} before"));
    if s.nodes == 1 {
        c.kill(0);
    } else {
        let begun = Instant::now();
        c.stop_all(limit).await;
        say(row, &format!("ended in {:.1} s", begun.elapsed().as_secs_f64()));
    }
    let begun = Instant::now();
    (0..s.nodes).try_for_each(|i| c.start(i)).map_err(late)?;
    c.greets(begun + limit).await.map_err(late)?;
    let clients = connect(load, 0..s.nodes).await.map_err(late)?;
    let accepted = accept(&clients, n, begun, begun + limit).await;
    tell_accepted(row, "after a restart of all", &accepted, n);
    let cpu: u64 = (0..s.nodes).map(|i| c.cpu_ms(i)).sum();
    say(row, &format!("{:.1} s of CPU on all nodes", cpu as f64 / 1000.0));
    row.away_ms = accepted.last().map_or(0, |t| t.as_millis() as u64);
    if s.nodes > 1 {
        lead_all(&clients, n, row, limit).await.map_err(late)?;
        c.kill(0);
        let begun = Instant::now();
        let clients = connect(load, 1..s.nodes).await.map_err(late)?;
        let accepted = accept(&clients, n, begun, begun + limit).await;
        tell_accepted(row, "after the death of the node that led all", &accepted, n);
        c.start(0).map_err(late)?;
        c.greets(Instant::now() + limit).await.map_err(late)?;
    }
    row.acknowledged = n + consumers;
    row.lost = row.acknowledged.saturating_sub(count(load, row.acknowledged, limit).await.map_err(late)?);
    row.state = State::Done;
    Ok(())
}

fn say(row: &mut Row, text: &str) {
    tell(&format!("  {text}"));
    row.note += text;
    row.note += "; ";
}

fn tell_accepted(row: &mut Row, when: &str, accepted: &[Duration], n: u64) {
    let at = |i: usize| accepted.get(i).map_or(f64::NAN, Duration::as_secs_f64);
    let (some, last) = (accepted.len(), accepted.len().saturating_sub(1));
    say(
        row,
        &format!(
            "{when} the first of {n} takes a publish after {:.2} s, half of them after {:.2}, {some} after {:.2}",
            at(0),
            at(last / 2),
            at(last)
        ),
    );
}

async fn connect(load: &Load, nodes: std::ops::Range<usize>) -> Result<Vec<Client>, Wrong> {
    let mut all = Vec::new();
    for i in nodes {
        all.push(client::connect(&load.ports[i..=i], 0).await?);
    }
    Ok(all)
}

/// Calls something for each number, so many at a time, as long as `more` says so before each: how often it was called.
async fn each<F>(count: u64, mut more: impl FnMut(u64) -> bool, f: impl Fn(u64) -> F) -> Result<u64, Wrong>
where
    F: Future<Output = Result<(), Wrong>> + Send + 'static,
{
    let (mut open, mut begun) = (JoinSet::new(), 0);
    while begun < count && more(begun) {
        if open.len() >= AT_ONCE
            && let Some(done) = open.join_next().await
        {
            done.map_err(|e| e.to_string())??;
        }
        open.spawn(f(begun));
        begun += 1;
    }
    while let Some(done) = open.join_next().await {
        done.map_err(|e| e.to_string())??;
    }
    Ok(begun)
}

/// Whether there is time for one more, and memory.
fn room(c: &Cluster, until: Instant) -> impl FnMut(u64) -> bool {
    let most = kib("/proc/meminfo", "MemTotal:").map_or(u64::MAX, |all| (all as f64 * MEMORY_SHARE) as u64);
    move |i| {
        let taken = || (0..c.nodes.len()).map(|n| c.rss_kib(n)).sum::<u64>();
        Instant::now() < until && (i % LOOK != 0 || taken() < most)
    }
}

/// Makes the streams, then their consumers, one after the other: how many of each there are.
async fn make(load: &Load, n: u64, c: &Cluster, row: &mut Row) -> Result<(u64, u64), Wrong> {
    let client = client::connect(&load.ports, 0).await?;
    let replicas = c.nodes.len();
    let (begun, until) = (Instant::now(), Instant::now() + MAKING[0]);
    let streams = each(n, room(c, until), |i| {
        let client = client.clone();
        async move {
            let config = json!({"name": format!("A{i}"), "subjects": [format!("a{i}.>")], "storage": "file", "num_replicas": replicas});
            client::insist(&client, &format!("STREAM.CREATE.A{i}"), &config, until + LIMIT).await.map(drop)
        }
    })
    .await?;
    say_made(row, "streams", streams, n, begun.elapsed());
    let (begun, until) = (Instant::now(), Instant::now() + MAKING[1]);
    let consumers = each(streams * CONSUMERS, room(c, until), |i| {
        let client = client.clone();
        async move {
            let (s, k) = (i / CONSUMERS, i % CONSUMERS);
            let config = json!({"stream_name": format!("A{s}"), "config": {"durable_name": format!("c{k}"), "ack_policy": "explicit"}});
            let what = format!("CONSUMER.DURABLE.CREATE.A{s}.c{k}");
            client::insist(&client, &what, &config, until + LIMIT).await.map(drop)
        }
    })
    .await?;
    say_made(row, "consumers", consumers, streams * CONSUMERS, begun.elapsed());
    Ok((streams, consumers))
}

fn say_made(row: &mut Row, what: &str, made: u64, wanted: u64, took: Duration) {
    let secs = took.as_secs_f64();
    let of = if made < wanted { format!(" of {wanted}") } else { String::new() };
    say(row, &format!("{made}{of} {what} in {secs:.1} s ({:.0}/s)", made as f64 / secs));
}

/// Publishes to each stream until it has taken something; when that was, counted from `begun`, in order.
async fn accept(clients: &[Client], n: u64, begun: Instant, deadline: Instant) -> Vec<Duration> {
    let open = Arc::new(Mutex::new((0..n).collect::<VecDeque<u64>>()));
    let done = Arc::new(Mutex::new(Vec::new()));
    let workers = (0..PUBLISHERS).map(|w| {
        let (open, done, client) = (open.clone(), done.clone(), clients[w % clients.len()].clone());
        tokio::spawn(async move {
            while Instant::now() < deadline {
                let Some(i) = open.lock().pop_front() else { return };
                let request = Request::new().payload("x".into()).timeout(Some(client::PATIENCE));
                let said = client.send_request(format!("a{i}.x"), request).await;
                if said.is_ok_and(|m| is_ack(&m.payload)) {
                    done.lock().push(begun.elapsed());
                } else {
                    open.lock().push_back(i);
                    tokio::time::sleep(AGAIN).await;
                }
            }
        })
    });
    join_all(workers).await;
    let mut all = std::mem::take(&mut *done.lock());
    all.sort_unstable();
    all
}

fn is_ack(body: &[u8]) -> bool {
    serde_json::from_slice::<Value>(body).is_ok_and(|v| v.get("error").is_none() && v.get("seq").is_some())
}

/// Has the first node lead all streams.
async fn lead_all(clients: &[Client], n: u64, row: &mut Row, limit: Duration) -> Result<(), Wrong> {
    let (begun, deadline) = (Instant::now(), Instant::now() + limit);
    let moved = Arc::new(Mutex::new(0));
    each(
        n,
        |_| true,
        |i| {
            let (client, moved) = (clients[i as usize % clients.len()].clone(), moved.clone());
            async move {
                let mut asked = false;
                loop {
                    let info =
                        client::insist(&client, &format!("STREAM.INFO.A{i}"), &Value::Null, deadline).await?;
                    if info["cluster"]["leader"] == "n1" {
                        *moved.lock() += u64::from(asked);
                        return Ok(());
                    }
                    if Instant::now() > deadline {
                        return Err(format!("A{i} is not led by the first node"));
                    }
                    asked = true;
                    let wish = json!({"placement": {"preferred": "n1"}});
                    // If it did not work it is said again.
                    client::api(&client, &format!("STREAM.LEADER.STEPDOWN.A{i}"), &wish).await;
                }
            }
        },
    )
    .await?;
    let (secs, moved) = (begun.elapsed().as_secs_f64(), *moved.lock());
    say(row, &format!("{moved} leaders moved in {secs:.1} s"));
    Ok(())
}

/// How many streams and consumers there are.
async fn count(load: &Load, wanted: u64, limit: Duration) -> Result<u64, Wrong> {
    let client = client::connect(&load.ports, 0).await?;
    let deadline = Instant::now() + limit;
    loop {
        let said = client::insist(&client, "INFO", &Value::Null, deadline).await?;
        let of = |what: &str| said[what].as_u64().unwrap_or(0);
        // Without the stream that every run has.
        let there = (of("streams") + of("consumers")).saturating_sub(1);
        if there >= wanted || Instant::now() > deadline {
            return Ok(there);
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// When publishes were acknowledged.
type Acks = Arc<Mutex<Vec<Instant>>>;

/// The leader of one stream dies again and again, and hands over again and again, while somebody publishes without waiting for answers.
///
/// # Errors
/// With the state that the row then has.
pub async fn failover(
    s: &Scenario,
    o: &Options,
    c: &mut Cluster,
    load: &Load,
    row: &mut Row,
) -> Result<(), Halt> {
    let late = |e: Wrong| (State::Broken, e);
    let times = (DEATHS * o.scale).max(3.0) as usize;
    let (mut deaths, mut changes) = (Vec::new(), Vec::new());
    for _ in 0..times {
        let leader = current(load, s.nodes).await.map_err(late)?;
        let gap = watch(load, leader, || c.kill(leader), async {}).await.map_err(late)?;
        deaths.push(gap);
        c.start(leader).map_err(late)?;
        c.greets(Instant::now() + LIMIT).await.map_err(late)?;
    }
    for _ in 0..times {
        let leader = current(load, s.nodes).await.map_err(late)?;
        let other = client::connect(&load.ports, (leader + 1) % s.nodes).await.map_err(late)?;
        let ask = async {
            drop(client::api(&other, &format!("STREAM.LEADER.STEPDOWN.{STREAM}"), &Value::Null).await)
        };
        let gap = watch(load, leader, || {}, ask).await.map_err(late)?;
        changes.push(gap);
    }
    for (what, gaps) in [("deaths of the leader", &mut deaths), ("planned step-downs", &mut changes)] {
        gaps.sort_unstable();
        let ms = |d: Duration| d.as_secs_f64() * 1000.0;
        say(
            row,
            &format!(
                "{times} {what}: without an acknowledged publish for {:.0} ms (median), {:.0} to {:.0}",
                ms(gaps[times / 2]),
                ms(gaps[0]),
                ms(gaps[times - 1])
            ),
        );
    }
    row.away_ms = deaths[times / 2].as_millis() as u64;
    row.state = State::Done;
    Ok(())
}

/// Waits until all replicas are current; the leader's number.
async fn current(load: &Load, nodes: usize) -> Result<usize, Wrong> {
    let deadline = Instant::now() + LIMIT;
    let client = client::connect(&load.ports, 0).await?;
    loop {
        let info = client::insist(&client, &format!("STREAM.INFO.{STREAM}"), &Value::Null, deadline).await?;
        let cluster = &info["cluster"];
        let leader = (0..nodes).find(|i| cluster["leader"] == format!("n{}", i + 1));
        let well = |p: &Value| p["current"] == true && p["offline"] != true;
        let replicas = cluster["replicas"].as_array().map_or(0, |all| all.iter().filter(|p| well(p)).count());
        match leader {
            Some(leader) if replicas + 1 == nodes => return Ok(leader),
            _ if Instant::now() > deadline => return Err(format!("not all are current: {cluster}")),
            _ => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// The longest time without an acknowledgement while something happens to a leader, as a client of another node sees it.
async fn watch(
    load: &Load,
    leader: usize,
    happens: impl FnOnce(),
    asks: impl Future<Output = ()>,
) -> Result<Duration, Wrong> {
    let client = client::connect(&load.ports, (leader + 1) % load.ports.len()).await?;
    let acks: Acks = Acks::default();
    let publisher = {
        let (client, acks) = (client.clone(), acks.clone());
        tokio::spawn(async move {
            let mut pace = tokio::time::interval(PACE);
            let mut open = JoinSet::new();
            loop {
                pace.tick().await;
                while open.try_join_next().is_some() {}
                let (client, acks) = (client.clone(), acks.clone());
                open.spawn(async move {
                    let request = Request::new().payload("x".into()).timeout(Some(client::PATIENCE));
                    let said = client.send_request("log.x", request).await;
                    if said.is_ok_and(|m| is_ack(&m.payload)) {
                        acks.lock().push(Instant::now());
                    }
                });
            }
        })
    };
    let begun = Instant::now();
    while acks.lock().len() < 50 && begun.elapsed() < LIMIT {
        tokio::time::sleep(PACE).await;
    }
    let at = Instant::now();
    happens();
    asks.await;
    let served = || acks.lock().iter().rev().take(20).all(|t| *t > at);
    while at.elapsed() < WATCH || (!served() && at.elapsed() < LIMIT) {
        tokio::time::sleep(PACE).await;
    }
    publisher.abort();
    let mut all = std::mem::take(&mut *acks.lock());
    all.sort_unstable();
    let gaps = all.windows(2).filter(|w| w[1] >= at).map(|w| w[1] - w[0]);
    gaps.max().ok_or_else(|| "nothing was acknowledged any more".into())
}
