//! Copies: two origins that keep messages until they are done with, by interest and as a work queue, and two streams that source both. One takes everything; the
//! other is small and refuses what finds no room, until somebody has taken something out of it. A third mirrors the work queue.
//!
//! Owns what is done with them, in the storm and in the calm, and the verdict. In the storm anything may go unanswered; in the calm nothing may.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{history::Violation, wire};

use super::{
    actor::{Conn, PATIENCE, Run, consumer, consumer_config},
    check::{acked, wrong},
    nats::Lost,
    plan::{Act, Stream},
    record::{Outcome, Record},
};

/// The origins.
const ORIGINS: [Stream; 2] = [Stream::Interest, Stream::Work];
/// The copies: of both origins but for the mirror.
const COPIES: [Stream; 3] = [Stream::Copy, Stream::Sink, Stream::Mirror];
/// Those of which nothing is taken out.
const WHOLE: [Stream; 2] = [Stream::Copy, Stream::Mirror];
/// Messages that are published to each origin in each calm.
const CALM_MSGS: usize = 5;
/// How long the calm may take until something goes on.
const CALM: Duration = Duration::from_secs(120);

/// Makes them, and waits until each origin knows of both copies: from then on it keeps what they want.
pub async fn make(run: &Run, c: &mut Conn) -> Result<(), String> {
    let mut all: Vec<(String, String)> = Vec::new();
    for s in ORIGINS.into_iter().chain(COPIES) {
        all.push((format!("$JS.API.STREAM.CREATE.{}", s.name()), s.config(&run.options)));
    }
    let s = Stream::Sink;
    let subject = format!("$JS.API.CONSUMER.DURABLE.CREATE.{}.{}", s.name(), consumer(s));
    all.push((subject, consumer_config(s, &run.options)));
    for (subject, body) in all {
        run.until_configured(c, &subject, &body).await?;
    }
    let end = env::now() + CALM;
    for s in ORIGINS {
        let subject = format!("$JS.API.CONSUMER.NAMES.{}", s.name());
        let copies = if s == Stream::Work { 3 } else { 2 };
        loop {
            let v = run.ask(c, &subject, "", end).await.map(|m| m.json());
            if v.as_ref().is_some_and(|v| v["total"].as_u64() == Some(copies)) {
                break;
            }
            if env::now() >= end {
                return Err(format!("the copies of {} do not ask for it within {CALM:?}: {v:?}", s.name()));
            }
            env::sleep(Duration::from_millis(100)).await;
        }
    }
    Ok(())
}

impl Run {
    /// A step of the storm: publishes one after another to an origin, and makes room in the small copy.
    pub(super) async fn keep_copies(
        &self,
        c: &mut Conn,
        work: bool,
        times: u64,
        size: usize,
        take: u64,
    ) -> Result<(), Lost> {
        for _ in 0..times {
            self.publish_one(c, ORIGINS[usize::from(work)], size, env::now() + PATIENCE).await?;
        }
        if take > 0 {
            self.fetch(c, Stream::Sink, take, 50, &[Act::AckSync]).await?;
        }
        Ok(())
    }

    /// What the calm has to do with them, if there are any.
    pub async fn copies_in_calm(&self, c: &mut Conn) {
        if self.options.copies.is_some()
            && let Err(e) = self.calm_copies(c).await
        {
            self.record.lock().wrong("JS-20", e);
        }
    }

    /// Reads on in a copy of which nothing is taken out.
    async fn read_on(&self, c: &mut Conn, s: Stream) -> Result<(), String> {
        let last = |r: &Record| r.copied.get(&s).and_then(|m| m.keys().next_back().copied());
        let mut read = last(&self.record.lock()).unwrap_or_default();
        let Ok(Some(seen)) = self.info(c, s).await else { return Ok(()) };
        while read < seen.last {
            read += 1;
            let found = self.read(c, s, read, env::now() + CALM).await;
            let found = found.ok_or_else(|| format!("{} {read} is not answered", s.name()))?;
            let value = found.and_then(|(_, data)| wire::publish_of(&data));
            self.record.lock().copied.entry(s).or_default().insert(read, value);
        }
        Ok(())
    }

    /// All copies come to have all that was published, and the origins let go of it then (JS-20).
    async fn calm_copies(&self, c: &mut Conn) -> Result<(), String> {
        for s in ORIGINS {
            let mut left = CALM_MSGS;
            let end = env::now() + CALM;
            while left > 0 {
                match self.publish_one(c, s, 20, env::now() + PATIENCE).await {
                    Ok((_, Outcome::Acked { .. })) => left -= 1,
                    _ if env::now() >= end => {
                        return Err(format!("{} takes nothing within {CALM:?} of calm", s.name()));
                    }
                    Ok(_) => env::sleep(Duration::from_millis(100)).await,
                    Err(Lost) => *c = self.connect().await,
                }
            }
        }
        let (mut end, mut had) = (env::now() + CALM, (0, 0));
        loop {
            match self.fetch(c, Stream::Sink, 100, 200, &[Act::AckSync]).await {
                Ok(_) => {}
                Err(Lost) => *c = self.connect().await,
            }
            for s in WHOLE {
                self.read_on(c, s).await?;
            }
            let mut kept = Vec::new();
            for s in ORIGINS {
                kept.push(self.info(c, s).await.ok().flatten().map(|i| i.msgs));
            }
            let (missing, has) = {
                let r = self.record.lock();
                (missing(&r), (r.copied.values().map(BTreeMap::len).sum::<usize>(), taken(&r).len()))
            };
            if missing.is_none() && kept.iter().all(|n| *n == Some(0)) {
                return Ok(());
            }
            if has != had {
                (had, end) = (has, env::now() + CALM);
            }
            if env::now() >= end {
                let what =
                    missing.unwrap_or_else(|| format!("the origins keep {kept:?} that all copies have"));
                return Err(format!("nothing goes on for {CALM:?} of calm: {what}"));
            }
            env::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// What came out of the small copy: the sequences there, by value.
fn taken(r: &Record) -> BTreeMap<usize, BTreeSet<u64>> {
    let mut all = BTreeMap::<usize, BTreeSet<u64>>::new();
    for d in r.deliveries.iter().filter(|d| d.stream == Stream::Sink) {
        if let Some(value) = d.value {
            all.entry(value).or_default().insert(d.seq);
        }
    }
    all
}

/// Something that was acknowledged by an origin and is not in all copies.
fn missing(r: &Record) -> Option<String> {
    let none = BTreeMap::new();
    let of = |s| r.copied.get(&s).unwrap_or(&none);
    let copied: BTreeSet<usize> = of(Stream::Copy).values().flatten().copied().collect();
    let (mirrored, taken) = (of(Stream::Mirror), taken(r));
    for a in r.attempts.iter().filter(|a| ORIGINS.contains(&a.stream)) {
        let Some((seq, _)) = acked(a) else { continue };
        let is_mirrored = a.stream == Stream::Interest || mirrored.get(&seq) == Some(&Some(a.value));
        let (is_copied, is_taken) = (copied.contains(&a.value), taken.contains_key(&a.value));
        if !(is_mirrored && is_copied && is_taken) {
            return Some(format!(
                "value {}, which {} acknowledged as {seq}, is in {}: {is_copied}, came out of {}: {is_taken}, is mirrored: {is_mirrored}",
                a.value,
                a.stream.name(),
                Stream::Copy.name(),
                Stream::Sink.name(),
            ));
        }
    }
    None
}

/// What was acknowledged by an origin is in all copies, once, in the origin's order, and nothing else is (JS-19).
pub(super) fn check(r: &Record, out: &mut Vec<Violation>) {
    if let Some(text) = missing(r) {
        wrong(out, "JS-19", text);
    }
    let sent: BTreeMap<usize, &super::record::Attempt> =
        r.attempts.iter().filter(|a| ORIGINS.contains(&a.stream)).map(|a| (a.value, a)).collect();
    for (s, copied) in &r.copied {
        let name = s.name();
        let mut at = BTreeMap::new();
        let mut last: BTreeMap<Stream, (u64, u64)> = BTreeMap::new();
        for (seq, value) in copied {
            let Some(a) = value.and_then(|v| sent.get(&v)) else {
                // A mirror has no more than its origin had, which may have passed over numbers.
                if value.is_some() || *s != Stream::Mirror {
                    wrong(out, "JS-19", format!("{name} {seq} holds {value:?}, which nobody sent"));
                }
                continue;
            };
            if let Some(before) = at.insert(a.value, *seq) {
                wrong(out, "JS-19", format!("{name} has value {} at {before} and at {seq}", a.value));
            }
            if let Some((origin, _)) = acked(a)
                && let Some((b, there)) = last.insert(a.stream, (origin, *seq))
                && b >= origin
            {
                let of = a.stream.name();
                wrong(out, "JS-19", format!("{name} has {of} {b} at {there} and {of} {origin} at {seq}"));
            }
        }
    }
    for (value, seqs) in taken(r) {
        if seqs.len() > 1 {
            wrong(out, "JS-19", format!("{} had value {value} at each of {seqs:?}", Stream::Sink.name()));
        }
        if !sent.contains_key(&value) {
            wrong(out, "JS-19", format!("{} had value {value}, which nobody sent", Stream::Sink.name()));
        }
    }
}
