//! The scenarios of size: no storm, but much of something, and how the node bears it.

use std::{collections::BTreeSet, time::Duration};

use serde_json::json;
use tokio::{sync::watch, time::Instant};

use super::{
    Wrong,
    bulk::{self, Bulk},
    client::{self, Pulled},
    cluster::Cluster,
    report::{Row, State},
    scenario::{Options, Scenario, Work},
    workload::{self, CONSUMER, Load, STREAM},
};
use crate::history::value;

/// Messages at scale 1.
fn messages(s: &Scenario) -> u64 {
    match s.name {
        "subjects-10m" => 10_000_000,
        "interior" => 300_000,
        "interior-50m" => 50_000_000,
        _ => 1_000_000,
    }
}
/// How long each part may take. Publishing ends when it is over, and goes on with what there is then.
const LIMIT: Duration = Duration::from_secs(60);
/// Messages that a full reading must bring in a second, beyond [`LIMIT`].
const READ_RATE: u64 = 50_000;

/// Runs one of them.
///
/// # Errors
/// With the state that the row then has.
pub async fn run(
    s: &Scenario,
    o: &Options,
    c: &mut Cluster,
    load: &Load,
    stop: &watch::Sender<bool>,
    row: &mut Row,
) -> Result<(), (State, Wrong)> {
    let late = |e: Wrong| (State::Broken, e);
    let most = (messages(s) as f64 * o.scale) as u64;
    match s.work {
        Work::Filter => {
            let rare = |n: u64| n % 1_000 == 7;
            let subject = |n| format!("log.{}", if rare(n) { "rare" } else { "many" });
            let mut bulk = publish(load, stop, most, row, subject).await.map_err(late)?;
            filter(load, row, &mut bulk).await.map_err(late)?;
            bulk.judge(row, rare);
        }
        Work::Subjects => {
            let mut bulk = publish(load, stop, most, row, |n| format!("log.{n}.x")).await.map_err(late)?;
            restart(c, load, row).await.map_err(late)?;
            let deadline = Instant::now() + LIMIT + Duration::from_secs(bulk.acknowledged / READ_RATE);
            let read = workload::read_each(load, deadline, |seq, v| bulk.found(seq, v)).await;
            bulk.judge(row, |_| true);
            read.map_err(late)?;
        }
        Work::Interior => {
            let bulk = publish(load, stop, most, row, |n| format!("log.{}", n % 7)).await.map_err(late)?;
            row.acknowledged = bulk.acknowledged;
            let holes = interior(load, bulk.acknowledged).await.map_err(late)?;
            restart(c, load, row).await.map_err(late)?;
            let confirmed = |m: &Pulled| holes.confirmed.contains(&m.seq);
            remaining(load, row, &holes.kept, confirmed).await.map_err(late)?;
            row.note += &format!("{} confirmed, {} kept; ", holes.confirmed.len(), holes.kept.len());
        }
        Work::Purge => {
            let kept = |n: u64| n % 1_000 == 7;
            let subject = |n| format!("log.{}", if kept(n) { "kept" } else { "gone" });
            let bulk = publish(load, stop, most, row, subject).await.map_err(late)?;
            row.acknowledged = bulk.acknowledged;
            purge(load, row).await.map_err(late)?;
            restart(c, load, row).await.map_err(late)?;
            let all: BTreeSet<u64> = bulk.sequences(kept).collect();
            // Whatever is not one of those and no probe was deleted.
            let gone = |m: &Pulled| value(&m.body).is_some_and(|v| v < bulk::PROBES && !kept(v));
            remaining(load, row, &all, gone).await.map_err(late)?;
        }
        Work::Failover => return super::many::failover(s, o, c, load, row).await,
        _ => return super::many::assets(s, o, c, load, row).await,
    }
    row.state = State::Done;
    Ok(())
}

/// Publishes so many messages, as fast as they are acknowledged, by one client, and says how fast that was.
async fn publish(
    load: &Load,
    stop: &watch::Sender<bool>,
    count: u64,
    row: &mut Row,
    subject: impl Fn(u64) -> String,
) -> Result<Bulk, Wrong> {
    // Millions take their time on a small machine.
    let limit = match count {
        0..=2_000_000 => LIMIT,
        2_000_001..=20_000_000 => LIMIT * 4,
        _ => LIMIT * 5,
    };
    let bulk = bulk::publish(load, count, limit, subject).await?;
    stop.send_replace(true);
    let secs = bulk.took.as_secs_f64();
    row.note += &format!("{} of {count} published in {secs:.0} s; ", bulk.acknowledged);
    Ok(bulk)
}

/// Kills the node, starts it again and says how long until a publish is acknowledged, and its memory.
async fn restart(c: &mut Cluster, load: &Load, row: &mut Row) -> Result<(), Wrong> {
    row.note += &format!("{} MiB before; ", c.rss_kib(0) / 1024);
    c.kill(0);
    let begun = Instant::now();
    c.start(0)?;
    c.greets(begun + LIMIT).await?;
    workload::probe(load, "log.probe", begun + LIMIT).await?;
    row.away_ms = begun.elapsed().as_millis() as u64;
    row.note += &format!(
        "serves {:.2} s after kill -9, with {} MiB; ",
        begun.elapsed().as_secs_f64(),
        c.rss_kib(0) / 1024
    );
    Ok(())
}

/// Reads the rare messages through a filter.
async fn filter(load: &Load, row: &mut Row, bulk: &mut Bulk) -> Result<(), Wrong> {
    let client = client::connect(&load.ports, 0).await?;
    let config = json!({"stream_name": STREAM, "config": {
        "durable_name": CONSUMER, "ack_policy": "none", "filter_subject": "log.rare",
    }});
    let what = format!("CONSUMER.DURABLE.CREATE.{STREAM}.{CONSUMER}");
    let begun = Instant::now();
    client::insist(&client, &what, &config, begun + LIMIT).await?;
    let (mut came, mut end) = (0, false);
    while !end && begun.elapsed() < LIMIT {
        let n = client::pull(&client, (STREAM, CONSUMER), 100, Duration::from_secs(1), |m| {
            bulk.found(m.seq, value(&m.body));
            end |= m.pending == 0;
        });
        came += n.await?;
    }
    row.note += &format!("{came} of {} read in {:.2} s; ", bulk.acknowledged, begun.elapsed().as_secs_f64());
    Ok(())
}

/// Which messages of the queue were left, and which were confirmed to the end.
#[derive(Default)]
struct Holes {
    kept: BTreeSet<u64>,
    confirmed: BTreeSet<u64>,
}

/// Confirms all but every hundredth message. Only those count as confirmed for which the server's word came.
async fn interior(load: &Load, messages: u64) -> Result<Holes, Wrong> {
    let client = client::connect(&load.ports, 0).await?;
    let mut holes = Holes::default();
    let deadline = Instant::now() + LIMIT;
    while ((holes.kept.len() + holes.confirmed.len()) as u64) < messages {
        if Instant::now() > deadline {
            return Err(format!(
                "{} of {messages} messages were confirmed in {LIMIT:?}",
                holes.confirmed.len()
            ));
        }
        let mut batch = Vec::new();
        client::pull(&client, (STREAM, CONSUMER), 1_000, Duration::from_secs(1), |m| batch.push(m)).await?;
        let confirm = batch.into_iter().filter_map(|m| {
            if m.seq % 100 == 0 {
                holes.kept.insert(m.seq);
                return None;
            }
            let client = &client;
            Some(async move { client::confirm(client, m.reply).await.map(|()| m.seq) })
        });
        let confirm: Vec<_> = confirm.collect();
        let done = futures_util::future::join_all(confirm).await;
        holes.confirmed.extend(done.into_iter().flatten());
    }
    Ok(holes)
}

/// Deletes all but what is to be kept, by one request.
async fn purge(load: &Load, row: &mut Row) -> Result<(), Wrong> {
    let client = client::connect(&load.ports, 0).await?;
    let begun = Instant::now();
    let ask = json!({"filter": "log.gone"});
    let said =
        client::api_within(&client, &format!("STREAM.PURGE.{STREAM}"), &ask, LIMIT * 5).await.good()?;
    row.note += &format!("{} purged in {:.1} s; ", said["purged"], begun.elapsed().as_secs_f64());
    Ok(())
}

/// What is left after the restart: all that was kept must come again; what was confirmed or deleted, which `gone` tells, should not. What comes is
/// confirmed, so that it ends.
async fn remaining(
    load: &Load,
    row: &mut Row,
    kept: &BTreeSet<u64>,
    gone: impl Fn(&Pulled) -> bool,
) -> Result<(), Wrong> {
    let client = client::connect(&load.ports, 0).await?;
    let (mut came, mut again) = (BTreeSet::new(), BTreeSet::new());
    let deadline = Instant::now() + LIMIT;
    let mut quiet = 0;
    // Unconfirmed ones come again after ack_wait; four seconds without any are the end.
    while quiet < 4 && Instant::now() < deadline {
        let mut batch = Vec::new();
        let n =
            client::pull(&client, (STREAM, CONSUMER), 500, Duration::from_secs(1), |m| batch.push(m)).await?;
        for m in batch {
            if gone(&m) {
                again.insert(m.seq);
            }
            came.insert(m.seq);
            client.publish(m.reply, "+ACK".into()).await.map_err(|e| e.to_string())?;
        }
        quiet = if n == 0 { quiet + 1 } else { 0 };
    }
    row.lost = kept.difference(&came).count() as u64;
    row.duplicated = again.len() as u64;
    Ok(())
}
