//! The stream in memory. Of a server alone it ends with the process, as with nats-server, and whoever uses it makes it anew. In a cluster, where it has one replica, it
//! stays, without what was in it, and gives no sequence again; its consumer is made anew.
//!
//! Owns what is done with it, in the storm and in the calm, and the verdict. In the storm anything may go unanswered; in the calm nothing may.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use env::Instant;

use crate::{history::Violation, wire};

use super::{
    actor::{Conn, PATIENCE, Run, consumer, consumer_config, outcome},
    check::{acked, wrong},
    nats::Lost,
    plan::{Act, Options, Stream},
    record::{Attempt, Life, Outcome, Record},
};

/// Messages that are published in each calm.
const CALM_MSGS: usize = 5;
/// How long the calm may take for one thing.
const CALM: Duration = Duration::from_secs(60);

impl Run {
    /// Sees to it that there is the stream and its consumer; false if nobody answers.
    async fn have_memory(&self, c: &mut Conn, end: Instant) -> Result<bool, Lost> {
        let s = Stream::Memory;
        let boot = *self.boots.borrow();
        let subject = format!("$JS.API.STREAM.CREATE.{}", s.name());
        let config = s.config(&self.options);
        let Some(m) = c.nats.request(&subject, &[], config.as_bytes(), end).await? else { return Ok(false) };
        let Some(created) = m.json()["created"].as_str().map(str::to_owned) else { return Ok(false) };
        // Whoever answered had begun before it was asked, and nobody has begun since.
        let boot = Some(boot).filter(|b| *b == *self.boots.borrow());
        {
            let mut r = self.record.lock();
            let before = r.lives.last().map(|l| l.created.clone());
            if before.as_ref() != Some(&created) {
                r.count("memory: streams made");
            }
            if before.is_some_and(|b| b != created) {
                r.count("memory: streams made anew");
            }
            r.lives.push(Life { created, conn: c.number, boot });
        }
        let subject = format!("$JS.API.CONSUMER.DURABLE.CREATE.{}.{}", s.name(), consumer(s));
        let config = consumer_config(s, &self.options);
        let made = c.nats.request(&subject, &[], config.as_bytes(), end).await?;
        Ok(made.is_some_and(|m| m.json()["config"].is_object()))
    }

    /// Publishes one message and waits for the answer: its value, and what became of it.
    async fn publish_memory(
        &self,
        c: &mut Conn,
        size: usize,
        end: Instant,
    ) -> Result<(usize, Outcome), Lost> {
        let (value, subject) = (self.value(), Stream::Memory.subject(0));
        let a = self.attempt(c, value, Stream::Memory, &subject);
        let n = {
            let mut r = self.record.lock();
            r.count("memory: publishes");
            r.attempts.push(a);
            r.attempts.len() - 1
        };
        let answer = c.nats.request(&subject, &[], &wire::payload(value, size), end).await?;
        let Some(o) = answer.map(|m| outcome(&m)) else { return Ok((value, Outcome::Unknown)) };
        let now = self.now();
        let mut r = self.record.lock();
        (r.attempts[n].done_at, r.attempts[n].outcome) = (Some(now), o.clone());
        if let Outcome::Acked { .. } = o {
            r.count("memory: stored");
        }
        Ok((value, o))
    }

    /// A step of the storm.
    pub(super) async fn keep_memory(&self, c: &mut Conn, times: u64, size: usize) -> Result<(), Lost> {
        let end = env::now() + PATIENCE;
        if !self.have_memory(c, end).await? {
            return Ok(());
        }
        for _ in 0..times {
            self.publish_memory(c, size, end).await?;
        }
        self.fetch(c, Stream::Memory, times, 50, &[Act::Ack]).await.map(drop)
    }

    /// What the calm has to do with it, if there is one.
    pub async fn memory_in_calm(&self, c: &mut Conn) {
        if self.options.memory
            && let Err(e) = self.calm_memory(c).await
        {
            self.record.lock().wrong("JS-17", e);
        }
    }

    /// Nothing goes unanswered, and what is published is there and is delivered (JS-17).
    async fn calm_memory(&self, c: &mut Conn) -> Result<(), String> {
        let s = Stream::Memory;
        let end = env::now() + CALM;
        loop {
            match self.have_memory(c, env::now() + PATIENCE).await {
                Ok(true) => break,
                _ if env::now() >= end => return Err(format!("{} cannot be made within {CALM:?}", s.name())),
                Ok(false) => env::sleep(Duration::from_millis(100)).await,
                Err(Lost) => *c = self.connect().await,
            }
        }
        let mut wanted = BTreeMap::new();
        let mut last = 0;
        let end = env::now() + CALM;
        while wanted.len() < CALM_MSGS {
            let done = self.publish_memory(c, 20, env::now() + CALM).await;
            let (value, seq) = match done {
                Ok((value, Outcome::Acked { seq, .. })) => (value, seq),
                Ok((_, Outcome::Refused(_))) if self.options.servers > 1 && env::now() < end => {
                    // Where its leader is has yet to come around.
                    env::sleep(Duration::from_millis(100)).await;
                    continue;
                }
                _ => return Err(format!("a publish to {} is not acknowledged: {done:?}", s.name())),
            };
            if seq <= last {
                return Err(format!("{} gave {seq} after {last}", s.name()));
            }
            last = seq;
            wanted.insert(seq, value);
        }
        for (seq, value) in &wanted {
            let found = self.read(c, s, *seq, env::now() + CALM).await.flatten();
            let found = found.and_then(|(_, data)| wire::publish_of(&data));
            if found != Some(*value) {
                return Err(format!(
                    "{} {seq} was acknowledged for value {value} and holds {found:?}",
                    s.name()
                ));
            }
        }
        // What the storm has left comes before.
        let from = self.record.lock().deliveries.len();
        let mut end = env::now() + CALM;
        while env::now() < end {
            match self.fetch(c, s, 100, 200, &[Act::AckSync]).await {
                Ok(0) => {}
                Ok(_) => end = env::now() + CALM,
                Err(Lost) => *c = self.connect().await,
            }
            let r = self.record.lock();
            let came: BTreeSet<_> =
                r.deliveries[from..].iter().filter(|d| d.stream == s).map(|d| (d.seq, d.value)).collect();
            if wanted.iter().all(|(seq, v)| came.contains(&(*seq, Some(*v)))) {
                return Ok(());
            }
        }
        Err(format!("not all of {wanted:?} came from {} to its consumer", s.name()))
    }
}

/// Sequences of one life rise, and no life has two processes; several servers have but one life (JS-16).
pub(super) fn lives(r: &Record, o: &Options, out: &mut Vec<Violation>) {
    let mut boots: BTreeMap<&str, u64> = BTreeMap::new();
    for l in &r.lives {
        if o.servers > 1 {
            if l.created != r.lives[0].created {
                let text = format!("the stream in memory of {} is one of {}", r.lives[0].created, l.created);
                wrong(out, "JS-16", text);
            }
            continue;
        }
        let Some(boot) = l.boot else { continue };
        let first = *boots.entry(&l.created).or_insert(boot);
        if first != boot {
            let text =
                format!("the stream in memory of {} was there in start {first} and in {boot}", l.created);
            wrong(out, "JS-16", text);
        }
    }
    // A connection ends with the process, and so has met one life; of several servers there is one.
    let of: BTreeMap<u64, &str> = r.lives.iter().map(|l| (l.conn, &l.created[..])).collect();
    let mut last: BTreeMap<&str, &Attempt> = BTreeMap::new();
    for a in r.attempts.iter().filter(|a| a.stream == Stream::Memory) {
        let (Some((seq, _)), Some(life)) = (acked(a), of.get(&a.conn)) else { continue };
        if let Some(b) = last.insert(life, a)
            && acked(b).is_some_and(|(before, _)| before >= seq)
        {
            let text = format!(
                "the stream in memory of {life} gave {seq} to value {} after it had given {:?} to value {}",
                a.value, b.outcome, b.value
            );
            wrong(out, "JS-16", text);
        }
    }
}
