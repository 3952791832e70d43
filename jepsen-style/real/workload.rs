//! What clients do. Each is a process of the history; unknown outcomes are recorded as such and never tried again under
//! the same value.

use std::{future::IntoFuture, time::Duration};

use async_nats::{
    Client,
    jetstream::context::{PublishError, PublishErrorKind},
};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use futures_util::{StreamExt, stream::FuturesUnordered};
use serde_json::{Value, json};
use tokio::{sync::watch, time::Instant};

use super::{
    Wrong,
    client::{self, Answer, PATIENCE, Pulled},
    damage::Dice,
    recorder::Recorder,
};
use crate::history::{Event, HARNESS, Op, body, value};

/// The stream of a run.
pub const STREAM: &str = "LOG";
/// Its consumer, where it has one.
pub const CONSUMER: &str = "workers";

/// How long before a reading's deadline a stream that is not there is given up.
const READ_AGAIN: Duration = Duration::from_secs(50);

/// What all clients know.
#[derive(Clone, Debug)]
pub struct Load {
    /// Where the nodes listen.
    pub ports: Vec<u16>,
    /// The history.
    pub rec: Recorder,
    /// Turns true when nothing new is to be begun.
    pub stop: watch::Receiver<bool>,
    /// Publishes of one client on their way.
    pub window: usize,
    /// Publishes a second of one client at most.
    pub rate: u64,
    /// Bytes of a body.
    pub size: usize,
    /// Random numbers.
    pub seed: u64,
}

impl Load {
    fn stopped(&self) -> bool {
        *self.stop.borrow()
    }
    async fn connect(&self, p: u64) -> Option<Client> {
        while !self.stopped() {
            match client::connect(&self.ports, p as usize).await {
                Ok(c) => return Some(c),
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
        None
    }
}

/// Whether a refused publish can never take effect: nobody got it, or the stream decided against it.
fn outcome(e: &PublishError) -> Event {
    match e.kind() {
        PublishErrorKind::StreamNotFound
        | PublishErrorKind::WrongLastSequence
        | PublishErrorKind::WrongLastMessageId => Event::Fail,
        _ => Event::Info,
    }
}

/// Publishes values of its own, many on their way at a time. `subject` names where, by the number of the message.
pub async fn append(load: Load, p: u64, subject: impl Fn(u64) -> String) {
    publish(load, p, subject, |v, seq| Op::Append { v, seq }).await;
}

/// The first process of those that only see whether the service is there.
const WATCH: u64 = 900;
/// Publishes a second of each of them.
const WATCH_RATE: u64 = 20;

/// Sees whether the service is there: publishes at a steady pace and never waits for an answer to go on, so that what was
/// on its way when a node died delays nothing. One for each node, each with another node as its first.
pub async fn watch(load: Load, n: u64, register: bool) {
    let load = Load { rate: WATCH_RATE, window: usize::MAX, ..load };
    if register {
        let put = |v, rev| Op::Put { key: 0, v, rev };
        publish(load, WATCH + n, |_| format!("$KV.{STREAM}.0"), put).await;
    } else {
        append(load, WATCH + n, |_| "log.watch".to_owned()).await;
    }
}

async fn publish(load: Load, p: u64, subject: impl Fn(u64) -> String, make: impl Fn(u64, Option<u64>) -> Op) {
    let Some(client) = load.connect(p).await else { return };
    let js = client::jetstream(&client);
    let begun = Instant::now();
    let mut open = FuturesUnordered::new();
    let mut n = 0;
    loop {
        let due = (begun.elapsed().as_millis() as u64 * load.rate / 1000).max(1);
        let stopped = load.stopped();
        if !stopped && open.len() < load.window && n < due {
            let v = p << 40 | n;
            let op = make(v, None);
            let id = load.rec.invoke(p, op.clone());
            match js.publish(subject(n), body(v, load.size).into()).await {
                Ok(ack) => open.push(async move { (id, v, ack.into_future().await) }),
                Err(_) => load.rec.end(p, id, Event::Info, op),
            }
            n += 1;
            continue;
        }
        if stopped && open.is_empty() {
            return;
        }
        let answered = tokio::select! {
            biased;
            Some(a) = open.next(), if !open.is_empty() => Some(a),
            () = tokio::time::sleep(Duration::from_millis(1)), if n >= due && !stopped => None,
        };
        let Some((id, v, said)) = answered else { continue };
        match said {
            Ok(ack) => load.rec.end(p, id, Event::Ok, make(v, Some(ack.sequence))),
            Err(e) => {
                load.rec.end(p, id, outcome(&e), make(v, None));
                // A server that refuses at once is not asked in a tight loop.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }
}

/// Reads, writes and compares-and-sets keys, one operation at a time.
pub async fn register(load: Load, p: u64, keys: u64) {
    let Some(client) = load.connect(p).await else { return };
    let js = client::jetstream(&client);
    let mut dice = Dice::new(load.seed ^ p << 20);
    let mut known = vec![0; keys as usize];
    let mut n = 0;
    while !load.stopped() {
        let key = dice.below(keys);
        n += 1;
        let v = p << 40 | n;
        match dice.below(4) {
            0 | 1 => {
                if let Some(rev) = get(&client, &load.rec, p, key).await {
                    known[key as usize] = rev;
                }
            }
            what => {
                let expect = (what == 2).then_some(known[key as usize]);
                let op = |rev, other| match expect {
                    Some(expect) => Op::Cas { key, expect, v, rev, other },
                    None => Op::Put { key, v, rev },
                };
                let id = load.rec.invoke(p, op(None, false));
                let mut publish =
                    async_nats::jetstream::message::PublishMessage::build().payload(body(v, 64).into());
                if let Some(e) = expect {
                    publish = publish.expected_last_subject_sequence(e);
                }
                let said = match js.send_publish(format!("$KV.{STREAM}.{key}"), publish).await {
                    Ok(ack) => ack.await,
                    Err(e) => Err(e),
                };
                match said {
                    Ok(ack) => {
                        known[key as usize] = ack.sequence;
                        load.rec.end(p, id, Event::Ok, op(Some(ack.sequence), false));
                    }
                    Err(e) => {
                        let other = e.kind() == PublishErrorKind::WrongLastSequence;
                        load.rec.end(p, id, outcome(&e), op(None, other));
                    }
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Reads a key from the stream's leader; its revision if the answer came.
async fn get(client: &Client, rec: &Recorder, p: u64, key: u64) -> Option<u64> {
    let id = rec.invoke(p, Op::Get { key, rev: 0, v: None });
    let ask = json!({"last_by_subj": format!("$KV.{STREAM}.{key}")});
    let (e, rev, v) = match client::api(client, &format!("STREAM.MSG.GET.KV_{STREAM}"), &ask).await {
        Answer::Good(said) => {
            let data = said["message"]["data"].as_str().and_then(|d| BASE64.decode(d).ok());
            let rev = said["message"]["seq"].as_u64().unwrap_or(0);
            (Event::Ok, rev, data.and_then(|d| value(&d)))
        }
        // No message found.
        Answer::Refused { code: 10037, .. } => (Event::Ok, 0, None),
        _ => (Event::Info, 0, None),
    };
    rec.end(p, id, e, Op::Get { key, rev, v });
    (e == Event::Ok).then_some(rev)
}

/// What a worker does with a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Worker {
    /// Confirms so many of 100; leaves the others to come again.
    pub confirms: u64,
    /// Ends once nothing has come for so long after `stop`.
    pub quiet: Duration,
    /// Ends then in any case, after `stop`.
    pub limit: Duration,
}

/// Takes messages from the consumer, until nothing comes any more; true if it ended for that reason.
pub async fn work(load: Load, p: u64, w: Worker) -> bool {
    let client = loop {
        match client::connect(&load.ports, p as usize).await {
            Ok(c) => break c,
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    };
    let mut dice = Dice::new(load.seed ^ p << 21);
    let mut stopped_at = None;
    let mut last = Instant::now();
    loop {
        if load.stopped() {
            let since = *stopped_at.get_or_insert_with(Instant::now);
            if last.max(since).elapsed() > w.quiet {
                return true;
            }
            if since.elapsed() > w.limit {
                return false;
            }
        }
        let asked = load.rec.now();
        let mut batch: Vec<Pulled> = Vec::new();
        let rec = &load.rec;
        let pulled = client::pull(&client, (STREAM, CONSUMER), 20, Duration::from_millis(300), |m| {
            rec.note(p, Op::Deliver { v: value(&m.body), seq: m.seq, times: m.times, asked });
            batch.push(m);
        });
        match pulled.await {
            Ok(0) | Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            Ok(_) => last = Instant::now(),
        }
        let confirm = batch.into_iter().filter(|_| dice.below(100) < w.confirms).map(|m| {
            let v = value(&m.body);
            let op = Op::Ack { v: v.unwrap_or(u64::MAX), seq: m.seq };
            let (client, rec) = (&client, &load.rec);
            async move {
                let id = rec.invoke(p, op.clone());
                let e = client::confirm(client, m.reply).await.map_or(Event::Info, |()| Event::Ok);
                rec.end(p, id, e, op);
            }
        });
        futures_util::future::join_all(confirm).await;
    }
}

/// Writes one value again and again, each time a new one, until it is acknowledged.
///
/// # Errors
/// None was in time.
pub async fn probe(load: &Load, subject: &str, deadline: Instant) -> Result<Duration, Wrong> {
    let begun = Instant::now();
    // Above all processes of a run.
    let p = 1_000;
    let mut n = 0;
    loop {
        let said: Result<(), Wrong> = async {
            let client = client::connect(&load.ports, n as usize).await?;
            let js = client::jetstream(&client);
            let v = p << 40 | n;
            let id = load.rec.invoke(p, Op::Append { v, seq: None });
            let ack = match js.publish(subject.to_owned(), body(v, load.size).into()).await {
                Ok(ack) => ack.await,
                Err(e) => Err(e),
            };
            let (e, seq) =
                ack.as_ref().map_or_else(|e| (outcome(e), None), |a| (Event::Ok, Some(a.sequence)));
            load.rec.end(p, id, e, Op::Append { v, seq });
            ack.map(drop).map_err(|e| e.to_string())
        }
        .await;
        match said {
            Ok(()) => return Ok(begun.elapsed()),
            Err(e) if Instant::now() > deadline => return Err(e),
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
        n += 1;
    }
}

/// Writes a key again and again, each time with a new value, until it is acknowledged.
///
/// # Errors
/// None was in time.
pub async fn probe_key(load: &Load, key: u64, deadline: Instant) -> Result<Duration, Wrong> {
    let begun = Instant::now();
    let p = 1_000;
    let mut n = 0;
    loop {
        let v = p << 40 | n;
        let id = load.rec.invoke(p, Op::Put { key, v, rev: None });
        let said = async {
            let client = client::connect(&load.ports, n as usize).await?;
            let js = client::jetstream(&client);
            let ack = js.publish(format!("$KV.{STREAM}.{key}"), body(v, 64).into()).await;
            let ack = ack.map_err(|e| e.to_string())?;
            ack.await.map_err(|e| e.to_string())
        };
        match said.await {
            Ok(ack) => {
                load.rec.end(p, id, Event::Ok, Op::Put { key, v, rev: Some(ack.sequence) });
                return Ok(begun.elapsed());
            }
            Err(e) => {
                load.rec.end(p, id, Event::Info, Op::Put { key, v, rev: None });
                if Instant::now() > deadline {
                    return Err(e);
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        n += 1;
    }
}

/// Reads the whole stream and notes each message.
///
/// # Errors
/// It did not come to the end in time.
pub async fn read_all(load: &Load, deadline: Instant) -> Result<u64, Wrong> {
    read_each(load, deadline, |seq, v| load.rec.note(HARNESS, Op::Entry { seq, v })).await
}

/// Reads the whole stream, giving sequence and value of each message; begins again behind the last one when nothing comes.
///
/// # Errors
/// It did not come to the end in time.
pub async fn read_each(
    load: &Load,
    deadline: Instant,
    mut each: impl FnMut(u64, Option<u64>),
) -> Result<u64, Wrong> {
    let client = client::connect(&load.ports, 0).await?;
    let last = loop {
        match client::api(&client, &format!("STREAM.INFO.{STREAM}"), &Value::Null).await {
            Answer::Good(info) => break info["state"]["last_seq"].as_u64().unwrap_or(0),
            // The server serves, and says that there is no such stream: all of it is gone.
            Answer::Refused { code: 10_059, .. } if Instant::now() > deadline - READ_AGAIN => {
                load.rec.note(HARNESS, Op::Complete { last: 0 });
                return Err("the stream is gone".into());
            }
            _ if Instant::now() > deadline => return Err("the stream's state cannot be read".into()),
            _ => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    };
    let (mut next, mut count, mut tries) = (1, 0, 0);
    while Instant::now() < deadline {
        tries += 1;
        let name = format!("reader{tries}");
        let config = json!({"stream_name": STREAM, "config": {
            "name": name, "deliver_policy": "by_start_sequence", "opt_start_seq": next, "ack_policy": "none",
            "replay_policy": "instant", "inactive_threshold": 60_000_000_000_u64, "mem_storage": true,
            "num_replicas": 1,
        }});
        if client::api(&client, &format!("CONSUMER.CREATE.{STREAM}.{name}"), &config).await.good().is_err() {
            tokio::time::sleep(Duration::from_millis(200)).await;
            continue;
        }
        let mut end = next > last;
        loop {
            let came = client::pull(&client, (STREAM, &name), 1_000, Duration::from_secs(1), |m| {
                each(m.seq, value(&m.body));
                next = next.max(m.seq + 1);
                end |= m.pending == 0 && m.seq >= last;
            })
            .await?;
            count += came;
            if end || came == 0 || Instant::now() > deadline {
                break;
            }
        }
        // Nothing may be left although the last sequence never came: it was removed.
        if !end {
            let said = client::api(&client, &format!("CONSUMER.INFO.{STREAM}.{name}"), &Value::Null).await;
            let left = said.good().ok().and_then(|v| v["num_pending"].as_u64());
            end = left == Some(0);
        }
        if end {
            load.rec.note(HARNESS, Op::Complete { last });
            return Ok(count);
        }
    }
    Err(format!("{count} messages were read, up to sequence {} of {last}", next - 1))
}

/// Reads every key once, from a client of its own, until each has answered.
///
/// # Errors
/// One did not in time.
pub async fn read_keys(load: &Load, keys: u64, deadline: Instant) -> Result<(), Wrong> {
    let client = client::connect(&load.ports, 0).await?;
    for key in 0..keys {
        while get(&client, &load.rec, 1_001, key).await.is_none() {
            if Instant::now() > deadline {
                return Err(format!("key {key} cannot be read"));
            }
            tokio::time::sleep(PATIENCE / 20).await;
        }
    }
    Ok(())
}
