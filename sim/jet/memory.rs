//! The stream in memory. Of a server alone it ends with the process, as with nats-server, and whoever uses it makes it anew. In a cluster, where it has one replica, it
//! stays, without what was in it, and gives no sequence again; so do its consumers, of which some come and go. In half of the storms those are of a stream in files
//! with one replica, and are in memory by their own configuration.
//!
//! Owns what is done with it, in the storm and in the calm, and the verdict. In the storm anything may go unanswered; in the calm nothing may.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use env::Instant;

use crate::{history::Violation, wire};

use super::{
    actor::{Conn, PATIENCE, Run, consumer, consumer_config},
    check::{acked, wrong},
    nats::Lost,
    plan::{Act, Options, Stream},
    record::{Attempt, Life, Look, Outcome, Record, Wish},
};

/// Messages that are published in each calm.
const CALM_MSGS: usize = 5;
/// Consumers that come and go, at a time.
const WISHES_MAX: usize = 3;
/// The code of an answer that there is no such consumer.
const NO_CONSUMER: u64 = 10014;
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

    /// The stream that has the consumers that come and go.
    fn wished_of(&self) -> &'static str {
        if self.options.filed { Stream::Filed.name() } else { Stream::Memory.name() }
    }

    /// Makes, changes or ends one of the consumers that come and go, in turn, once each: what was asked for twice could take effect after what came in between.
    async fn wish(&self, c: &mut Conn, end: Instant) -> Result<(), Lost> {
        let of = |ends: bool| move |w: &(&String, &Wish)| w.1.acked > 0 && w.1.ends == ends;
        let (name, ends) = {
            let mut r = self.record.lock();
            let alive: Vec<String> = r.wishes.iter().filter(of(false)).map(|(n, _)| n.clone()).collect();
            let turn = r.counts.get("memory: wishes").copied().unwrap_or_default();
            r.count("memory: wishes");
            // What was not answered may yet come to pass.
            let known = |n: &String| r.wishes[n].acked == r.wishes[n].asked;
            match (alive.first(), alive.last()) {
                (Some(oldest), _) if alive.len() >= WISHES_MAX => (oldest.clone(), true),
                (_, Some(newest)) if turn % 3 == 1 && known(newest) => (newest.clone(), false),
                _ => (format!("w{:06}", r.wishes.len()), false),
            }
        };
        if ends {
            return self.end_wish(c, &name, end).await;
        }
        let version = {
            let mut r = self.record.lock();
            let w = r.wishes.entry(name.clone()).or_default();
            w.asked += 1;
            w.asked
        };
        let stream = self.wished_of();
        let subject = format!("$JS.API.CONSUMER.CREATE.{stream}.{name}");
        let body = format!(
            r#"{{"stream_name":"{stream}","action":"{}","config":{{"durable_name":"{name}","ack_policy":"explicit","description":"{version}"{}}}}}"#,
            if version == 1 { "create" } else { "update" },
            if self.options.filed { r#","mem_storage":true"# } else { "" },
        );
        let answer = c.nats.request(&subject, &[], body.as_bytes(), end).await?;
        if answer.is_some_and(|m| m.json()["config"].is_object()) {
            let mut r = self.record.lock();
            r.count(if version == 1 { "memory: consumers made" } else { "memory: consumers changed" });
            if self.options.filed {
                r.count("memory: of a stream in files");
            }
            r.wishes.entry(name).or_default().acked = version;
        }
        Ok(())
    }
    async fn end_wish(&self, c: &mut Conn, name: &str, end: Instant) -> Result<(), Lost> {
        let before =
            std::mem::replace(&mut self.record.lock().wishes.entry(name.to_owned()).or_default().ends, true);
        let subject = format!("$JS.API.CONSUMER.DELETE.{}.{name}", self.wished_of());
        let Some(v) = c.nats.request(&subject, &[], b"", end).await?.map(|m| m.json()) else { return Ok(()) };
        let gone = v["error"]["err_code"].as_u64() == Some(NO_CONSUMER);
        let mut r = self.record.lock();
        if gone && !before {
            let wish = Wish { ends: false, ..r.wishes[name] };
            r.looks.push(Look { name: name.to_owned(), at: self.now(), wish, found: None });
        }
        if gone || v["success"] == true {
            r.count("memory: consumers ended");
            r.wishes.entry(name.to_owned()).or_default().ended = true;
        }
        Ok(())
    }
    /// Looks at one of them; false if nobody says whether it is there.
    async fn look(&self, c: &mut Conn, name: &str, end: Instant) -> Result<bool, Lost> {
        let wish = self.record.lock().wishes[name];
        let subject = format!("$JS.API.CONSUMER.INFO.{}.{name}", self.wished_of());
        let Some(v) = c.nats.request(&subject, &[], b"", end).await?.map(|m| m.json()) else {
            return Ok(false);
        };
        let version = v["config"]["description"].as_str().and_then(|d| d.parse().ok());
        let gone = v["error"]["err_code"].as_u64() == Some(NO_CONSUMER);
        if version.is_none() && !gone {
            return Ok(false);
        }
        let mut r = self.record.lock();
        r.count("memory: looks");
        r.looks.push(Look { name: name.to_owned(), at: self.now(), wish, found: version });
        Ok(true)
    }
    /// Those of which something is known.
    fn wished(&self) -> Vec<String> {
        self.record.lock().wishes.iter().filter(|(_, w)| w.acked > 0).map(|(n, _)| n.clone()).collect()
    }

    /// A step of the storm.
    pub(super) async fn keep_memory(&self, c: &mut Conn, times: u64, size: usize) -> Result<(), Lost> {
        let end = env::now() + PATIENCE;
        if !self.have_memory(c, end).await? {
            return Ok(());
        }
        for _ in 0..times {
            self.publish_one(c, Stream::Memory, size, end).await?;
        }
        self.fetch(c, Stream::Memory, times, 50, &[Act::Ack]).await?;
        if self.options.servers > 1 {
            self.wish(c, env::now() + PATIENCE).await?;
            for name in self.wished().iter().rev().take(WISHES_MAX + 1) {
                self.look(c, name, env::now() + PATIENCE).await?;
            }
        }
        Ok(())
    }

    /// All that is known of them is answered in the calm.
    async fn look_in_calm(&self, c: &mut Conn) -> Result<(), String> {
        for name in self.wished() {
            let end = env::now() + CALM;
            loop {
                match self.look(c, &name, env::now() + PATIENCE).await {
                    Ok(true) => break,
                    _ if env::now() >= end => {
                        return Err(format!("nobody says within {CALM:?} whether {name} is there"));
                    }
                    Ok(false) => env::sleep(Duration::from_millis(100)).await,
                    Err(Lost) => *c = self.connect().await,
                }
            }
        }
        Ok(())
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
        if self.options.servers > 1 {
            // What is there now is there after the next start.
            self.look_in_calm(c).await?;
            for _ in 0..4 {
                if self.wish(c, env::now() + CALM).await.is_err() {
                    *c = self.connect().await;
                }
            }
            self.look_in_calm(c).await?;
        }
        let mut wanted = BTreeMap::new();
        let mut last = 0;
        let end = env::now() + CALM;
        while wanted.len() < CALM_MSGS {
            let done = self.publish_one(c, Stream::Memory, 20, env::now() + CALM).await;
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

/// A consumer of a stream in memory that was acknowledged is there, as it was last changed, and one that was deleted is not, whatever processes have ended
/// since (JS-18).
pub(super) fn consumers(r: &Record, out: &mut Vec<Violation>) {
    for l in &r.looks {
        let w = &l.wish;
        let right = match l.found {
            None => w.ends || w.acked == 0,
            Some(v) => !w.ended && w.acked <= v && v <= w.asked,
        };
        if !right {
            let text =
                format!("at {} ns consumer {} that is in memory was {:?}, of {w:?}", l.at, l.name, l.found);
            wrong(out, "JS-18", text);
        }
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
