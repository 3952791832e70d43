//! The scenarios of size: no storm, but much of something, and how the node bears it.

use std::{collections::BTreeSet, time::Duration};

use serde_json::json;
use tokio::{sync::watch, time::Instant};

use super::{
    Wrong, client,
    cluster::Cluster,
    report::{Row, State},
    scenario::{Options, Scenario, Work},
    workload::{self, CONSUMER, Load, STREAM},
};
use crate::{
    check,
    history::{HARNESS, Op, value},
};

/// Messages of the filtered, the interior and the subjects scenario at scale 1.
const MESSAGES: u64 = 100_000;
/// Streams at scale 1, each with ten consumers.
const STREAMS: u64 = 100;
/// How long each part may take.
const LIMIT: Duration = Duration::from_secs(60);

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
    let messages = (MESSAGES as f64 * o.scale) as u64;
    match s.work {
        Work::Filter => {
            publish(load, stop, messages, |n| {
                format!("log.{}", if n % 1_000 == 7 { "rare" } else { "many" })
            })
            .await;
            filter(load, row).await.map_err(late)?;
        }
        Work::Subjects => {
            publish(load, stop, messages, |n| format!("log.{n}.x")).await;
            restart(c, load, row).await.map_err(late)?;
            workload::read_all(load, Instant::now() + LIMIT).await.map_err(late)?;
            log(load, row);
        }
        Work::Interior => {
            publish(load, stop, messages, |n| format!("log.{}", n % 7)).await;
            let holes = interior(load, messages).await.map_err(late)?;
            restart(c, load, row).await.map_err(late)?;
            remaining(load, row, &holes).await.map_err(late)?;
        }
        _ => {
            let n = (STREAMS as f64 * o.scale).max(1.0) as u64;
            assets(load, n).await.map_err(late)?;
            row.note += &format!("{n} streams, {} consumers; ", n * 10);
            let cpu = c.cpu_ms(0);
            let idle = Duration::from_secs(3);
            tokio::time::sleep(idle).await;
            row.note += &format!(
                "idle {:.1} % of a core; ",
                (c.cpu_ms(0) - cpu) as f64 / idle.as_millis() as f64 * 100.0
            );
            restart(c, load, row).await.map_err(late)?;
            row.acknowledged = n * 11;
            row.lost = (n * 11).saturating_sub(count(load).await.map_err(late)?);
        }
    }
    row.state = State::Done;
    Ok(())
}

/// Publishes so many messages, as fast as they are acknowledged, by one client.
async fn publish(load: &Load, stop: &watch::Sender<bool>, count: u64, subject: impl Fn(u64) -> String) {
    load.rec.phase("load");
    let load = Load { rate: u64::from(u32::MAX), window: 512, stop: stop.subscribe(), ..load.clone() };
    let (tx, rec) = (stop.clone(), load.rec.clone());
    let begun = Instant::now();
    let appending = workload::append(load, 0, move |n| {
        // The last one's subject is asked for: nothing behind it.
        if n + 1 >= count || begun.elapsed() > LIMIT {
            tx.send_replace(true);
        }
        subject(n)
    });
    appending.await;
    rec.phase("calm");
}

fn log(load: &Load, row: &mut Row) {
    let l = check::log(&load.rec.history());
    row.acknowledged = l.acknowledged;
    row.unknown = l.unknown;
    row.lost = l.lost.len() as u64;
    row.duplicated = l.duplicated.len() as u64;
    row.reordered = l.reordered.len() as u64;
    row.phantom = l.phantom.len() as u64;
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
async fn filter(load: &Load, row: &mut Row) -> Result<(), Wrong> {
    let client = client::connect(&load.ports, 0).await?;
    let config = json!({"stream_name": STREAM, "config": {
        "durable_name": CONSUMER, "ack_policy": "none", "filter_subject": "log.rare",
    }});
    let what = format!("CONSUMER.DURABLE.CREATE.{STREAM}.{CONSUMER}");
    client::insist(&client, &what, &config, Instant::now() + LIMIT).await?;
    let begun = Instant::now();
    let (mut came, mut end) = (0, false);
    while !end && begun.elapsed() < LIMIT {
        let n = client::pull(&client, (STREAM, CONSUMER), 100, Duration::from_secs(1), |m| {
            load.rec.note(HARNESS, Op::Entry { seq: m.seq, v: value(&m.body) });
            end |= m.pending == 0;
        });
        came += n.await?;
    }
    let took = begun.elapsed().as_secs_f64();
    load.rec.note(HARNESS, Op::Complete { last: came });
    // Only the rare ones were asked for: the others are not looked for.
    let mut h = load.rec.history();
    h.records.retain(|r| match r.op {
        Op::Append { v, .. } => (v & 0xff_ffff_ffff) % 1_000 == 7,
        _ => true,
    });
    let l = check::log(&h);
    row.acknowledged = l.acknowledged;
    row.lost = l.lost.len() as u64;
    row.duplicated = l.duplicated.len() as u64;
    row.reordered = l.reordered.len() as u64;
    row.phantom = l.phantom.len() as u64;
    let all = load.rec.completed();
    row.note += &format!("{came} of {all} in {:.2} s, {:.0} a second; ", took, came as f64 / took.max(0.001));
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

/// What is left after the restart: all that was kept must come again; what was confirmed should not. What comes is
/// confirmed, so that it ends.
async fn remaining(load: &Load, row: &mut Row, holes: &Holes) -> Result<(), Wrong> {
    let client = client::connect(&load.ports, 0).await?;
    let mut came = BTreeSet::new();
    let deadline = Instant::now() + LIMIT;
    let mut quiet = 0;
    // Unconfirmed ones come again after ack_wait; four seconds without any are the end.
    while quiet < 4 && Instant::now() < deadline {
        let mut batch = Vec::new();
        let n =
            client::pull(&client, (STREAM, CONSUMER), 500, Duration::from_secs(1), |m| batch.push(m)).await?;
        for m in batch {
            came.insert(m.seq);
            client.publish(m.reply, "+ACK".into()).await.map_err(|e| e.to_string())?;
        }
        quiet = if n == 0 { quiet + 1 } else { 0 };
    }
    row.acknowledged = load.rec.completed() as u64;
    row.lost = holes.kept.difference(&came).count() as u64;
    row.duplicated = holes.confirmed.intersection(&came).count() as u64;
    row.note += &format!("{} confirmed, {} kept; ", holes.confirmed.len(), holes.kept.len());
    Ok(())
}

/// Creates streams with ten consumers each.
async fn assets(load: &Load, n: u64) -> Result<(), Wrong> {
    let client = client::connect(&load.ports, 0).await?;
    for i in 0..n {
        let name = format!("A{i}");
        let config = json!({"name": name, "subjects": [format!("a{i}.>")], "storage": "file"});
        client::insist(&client, &format!("STREAM.CREATE.{name}"), &config, Instant::now() + LIMIT).await?;
        for k in 0..10 {
            let config = json!({"stream_name": name, "config": {"durable_name": format!("c{k}"), "ack_policy": "explicit"}});
            let what = format!("CONSUMER.DURABLE.CREATE.{name}.c{k}");
            client::insist(&client, &what, &config, Instant::now() + LIMIT).await?;
        }
    }
    Ok(())
}

/// Streams and consumers of those that are there.
async fn count(load: &Load) -> Result<u64, Wrong> {
    let client = client::connect(&load.ports, 0).await?;
    let said = client::insist(&client, "INFO", &serde_json::Value::Null, Instant::now() + LIMIT).await?;
    // Without the stream that every run has.
    Ok((said["streams"].as_u64().unwrap_or(0) + said["consumers"].as_u64().unwrap_or(0)).saturating_sub(1))
}
