//! Runs a plan: the real server with JetStream on a disk that can lose power, the actors, the events; then calm: everything is read,
//! the consumers empty their streams, the server starts once more, and everything is read again.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use env::{
    signal::Signal,
    sim::{Config, Death, Link, Machine, NetOptions, World},
    simdisk,
};
use parking_lot::Mutex;

use crate::{
    storm::{Host, Report},
    wire,
};

use super::{
    actor::{Conn, Run, consumer, consumer_config},
    check,
    plan::{Act, Actor, Event, Plan, STREAMS, Stream},
    record::{Final, Kept, Record, Shared},
};

/// How often things are looked at.
const TICK: Duration = Duration::from_millis(2);
/// The number of the actor that makes the streams and reads them at the end.
const ADMIN: u64 = 1_000;
/// How long the calm may take for one thing.
const CALM: Duration = Duration::from_secs(60);
/// The streams that have a consumer.
const CONSUMED: [Stream; 2] = [Stream::Log, Stream::Queue];

/// Runs a plan in a world of its own.
pub fn run(plan: &Plan) -> Report {
    let o = &plan.options;
    let config = Config {
        virtual_limit: Duration::from_secs(4 * 3600),
        net: NetOptions {
            link: Link {
                latency_min_ns: 20_000,
                latency_max_ns: o.latency_max_us.max(20) * 1000,
                loss: 0.0,
                bandwidth: 0,
            },
            window: o.window,
            short: o.short,
            ..NetOptions::default()
        },
        disk: simdisk::Options { atomic_sectors: !o.torn, ..simdisk::Options::default() },
        seed: o.seed,
        ..crate::config(o.seed)
    };
    env::check::take_marks();
    let plan = plan.clone();
    let mut report = env::sim::run(config, |w| async move { Harness::new(w, plan).run().await });
    let trace = env::sim::trace();
    (report.hash, report.events) = (trace.hash, trace.events);
    report.marks = env::check::take_marks().into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
    report
}

enum Undo {
    Start,
    /// Paused since then, nanoseconds.
    Resume(u64),
    /// Cut off since then.
    Join(u64, u64),
}

struct Harness {
    w: World,
    plan: Plan,
    host: Host,
    record: Shared,
    machines: BTreeMap<u64, Machine>,
    undo: Vec<(u64, Undo)>,
    /// Told to end, since when.
    ending: Option<u64>,
    paused: bool,
    /// When it was last seen not to serve.
    down_since: Option<u64>,
}

impl Harness {
    fn new(w: World, plan: Plan) -> Harness {
        let machine = w.machine("server");
        machine.set_cores(plan.options.cores);
        let host = Host::new(machine);
        let record = Arc::new(Mutex::new(Record::default()));
        Harness {
            w,
            plan,
            host,
            record,
            machines: BTreeMap::new(),
            undo: Vec::new(),
            ending: None,
            paused: false,
            down_since: None,
        }
    }

    fn ms(&self) -> u64 {
        self.w.elapsed().as_millis() as u64
    }
    fn wrong(&self, id: &str, text: String) {
        self.record.lock().wrong(id, text);
    }

    fn actor(&mut self, actor: Actor) -> (Machine, Run) {
        let machine = self.w.machine(&format!("a{}", actor.id));
        self.machines.insert(actor.id, machine.clone());
        let run = Run {
            options: self.plan.options.clone(),
            server: SocketAddr::new(self.host.machine.ip(), 4222),
            record: self.record.clone(),
            world: self.w.clone(),
            boots: self.host.boots.subscribe(),
            actor,
        };
        (machine, run)
    }

    /// Runs something on the admin's machine and waits for it.
    async fn admin<T: Send + 'static, F>(&mut self, what: impl FnOnce(Run) -> F) -> Option<T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let (machine, run) = self.actor(Actor { id: ADMIN, stream: Stream::Log, steps: Vec::new() });
        let slot = Arc::new(Mutex::new(None));
        let (out, work) = (slot.clone(), what(run));
        machine.start(async move {
            let v = work.await;
            *out.lock() = Some(v);
        });
        let end = self.ms() + 7_200_000;
        loop {
            if let Some(v) = slot.lock().take() {
                return Some(v);
            }
            if self.ms() > end {
                return None;
            }
            self.keep_running();
            env::sleep(TICK).await;
        }
    }

    async fn run(mut self) -> Report {
        self.host.configure(
            "listen: \"0.0.0.0:4222\"\nserver_name: storm\njetstream { store_dir: \"/data\", max_mem: 64MB, max_file: 4GB }\n",
        );
        self.host.start();
        let o = self.plan.options.clone();
        let made = self
            .admin(move |run| async move {
                let mut c = run.connect().await;
                let end = env::now() + CALM;
                for s in STREAMS {
                    let subject = format!("$JS.API.STREAM.CREATE.{}", s.name());
                    let m = run.ask(&mut c, &subject, &s.config(&o), end).await;
                    match m.map(|m| m.json()) {
                        Some(v) if v["error"].is_null() && v["config"].is_object() => {}
                        v => return Err(format!("{}: {v:?}", s.name())),
                    }
                }
                for s in CONSUMED {
                    let subject = format!("$JS.API.CONSUMER.DURABLE.CREATE.{}.{}", s.name(), consumer(s));
                    let m = run.ask(&mut c, &subject, &consumer_config(s, &o), end).await;
                    match m.map(|m| m.json()) {
                        Some(v) if v["error"].is_null() && v["config"].is_object() => {}
                        v => return Err(format!("consumer of {}: {v:?}", s.name())),
                    }
                }
                Ok(())
            })
            .await;
        if let Err(e) = made.unwrap_or_else(|| Err("no answer".to_owned())) {
            self.wrong("JS-0", format!("the streams could not be made: {e}"));
            return self.report();
        }
        for a in self.plan.actors.clone() {
            let (machine, run) = self.actor(a);
            machine.start(run.run());
        }
        self.weather().await;
        self.heal().await;
        self.calm().await;
        let found = check::all(&self.record.lock(), &self.plan.options);
        self.record.lock().violations.extend(found);
        self.report()
    }

    fn report(&self) -> Report {
        let r = self.record.lock();
        Report {
            seed: self.plan.options.seed,
            violations: r.violations.clone(),
            counts: r.counts.iter().map(|(k, v)| (k.to_string(), *v)).collect(),
            virtual_ms: self.ms(),
            ..Report::default()
        }
    }

    async fn weather(&mut self) {
        let start = self.ms();
        let mut events = self.plan.events.clone();
        events.reverse();
        let end = start + 600_000;
        while self.ms() < end {
            let now = self.ms();
            while events.last().is_some_and(|e| start + e.at_ms <= now) {
                if let Some(e) = events.pop() {
                    self.happen(e.event, now);
                }
            }
            self.undo_due(now);
            self.keep_running();
            let all = self.record.lock().done >= self.plan.actors.len() as u64;
            if all && events.is_empty() && self.undo.is_empty() && self.ending.is_none() {
                return;
            }
            env::sleep(TICK).await;
        }
        let done = self.record.lock().done;
        self.wrong("JS-13", format!("after 600 s {done} of {} actors are done", self.plan.actors.len()));
    }

    fn undo_due(&mut self, now: u64) {
        for (at, what) in std::mem::take(&mut self.undo) {
            if at <= now {
                self.undo(what);
            } else {
                self.undo.push((at, what));
            }
        }
    }

    fn outage(&self, since: u64) {
        let now = self.w.elapsed().as_nanos() as u64;
        self.record.lock().outages.push((since, now));
    }

    fn undo(&mut self, what: Undo) {
        match what {
            Undo::Start => self.host.start(),
            Undo::Resume(since) => {
                if std::mem::take(&mut self.paused) {
                    self.host.machine.resume();
                    self.outage(since);
                }
            }
            Undo::Join(a, since) => {
                let m = self.machines[&a].clone();
                self.w.join(&m, &self.host.machine);
                // What was sent before comes after this only, together with what was sent since.
                self.outage(since);
            }
        }
    }

    /// A server that has ended is followed by another; times without one are noted.
    fn keep_running(&mut self) {
        let now = self.w.elapsed().as_nanos() as u64;
        let serves = self.host.serves() && self.host.machine.is_running();
        match (serves, self.down_since) {
            (false, None) => self.down_since = Some(now),
            (true, Some(since)) => {
                self.down_since = None;
                self.record.lock().outages.push((since, now));
            }
            _ => {}
        }
        if self.host.machine.is_running() || self.undo.iter().any(|u| matches!(u.1, Undo::Start)) {
            return;
        }
        let code = *self.host.exit.lock();
        match self.ending.take() {
            Some(_) if code == Some(0) => {}
            _ => self.wrong("JS-14", format!("the server ended by itself with {code:?}")),
        }
        self.undo.push((self.ms() + 5, Undo::Start));
    }

    fn happen(&mut self, e: Event, now: u64) {
        let server = self.host.machine.clone();
        let since = self.w.elapsed().as_nanos() as u64;
        let name = match &e {
            Event::Kill { power: false, .. } => "fault kill",
            Event::Kill { power: true, .. } => "fault power",
            Event::Restart => "fault restart",
            Event::Pause { .. } => "fault pause",
            Event::Reset { .. } => "fault reset",
            Event::Cut { .. } => "fault cut",
            Event::Clock { .. } => "fault clock",
        };
        self.record.lock().count(name);
        match e {
            Event::Kill { power, ms } => {
                if server.is_running() && self.ending.is_none() {
                    let (resume, rest) = std::mem::take(&mut self.undo)
                        .into_iter()
                        .partition(|u| matches!(u.1, Undo::Resume(_)));
                    self.undo = rest;
                    resume.into_iter().for_each(|(_, what): (u64, Undo)| self.undo(what));
                    server.kill(if power { Death::Power } else { Death::Process });
                    self.undo.push((now + ms, Undo::Start));
                }
            }
            Event::Restart => {
                if self.host.serves() && self.ending.is_none() {
                    self.ending = Some(now);
                    server.signal(Signal::Terminate);
                }
            }
            Event::Pause { ms } => {
                if server.is_running() && !self.paused {
                    server.pause();
                    self.paused = true;
                    self.undo.push((now + ms, Undo::Resume(since)));
                }
            }
            Event::Reset { actor } => self.w.reset(&self.machines[&actor], &server),
            Event::Cut { actor, ms } => {
                self.w.part(&self.machines[&actor], &server);
                self.undo.push((now + ms, Undo::Join(actor, since)));
            }
            Event::Clock { ms } => server.jump_wall(ms * 1_000_000),
        }
    }

    async fn heal(&mut self) {
        for (_, what) in std::mem::take(&mut self.undo) {
            self.undo(what);
        }
        for m in self.machines.clone().into_values() {
            self.w.join(&m, &self.host.machine);
        }
        self.w.set_net(|o| {
            o.link.latency_min_ns = 20_000;
            o.link.latency_max_ns = 200_000;
            o.window = 256 << 10;
            o.short = 0.0;
        });
        let end = self.ms() + 30_000;
        while self.ms() < end && !self.host.serves() {
            self.undo_due(self.ms());
            self.keep_running();
            env::sleep(TICK).await;
        }
        if !self.host.serves() {
            self.wrong("JS-13", "no server listens 30 s after the storm".into());
        }
    }

    async fn calm(&mut self) {
        let o = self.plan.options.clone();
        let wait = Duration::from_millis(o.ack_wait_ms);
        let done = self
            .admin(move |run| async move {
                let mut c = run.connect().await;
                let before = read_all(&run, &mut c).await?;
                for s in CONSUMED {
                    empty(&run, &mut c, s, wait).await?;
                }
                let after = read_all(&run, &mut c).await?;
                Ok::<_, String>((before, after))
            })
            .await;
        let (before, after) = match done {
            Some(Ok(x)) => x,
            Some(Err(e)) => return self.wrong("JS-13", e),
            None => return self.wrong("JS-13", "the calm does not end".into()),
        };
        for (s, f) in &after {
            let b = &before[s];
            self.record.lock().finals.insert(*s, Final { before: b.kept.clone(), ..f.clone() });
        }
        // A clean end and another start change nothing.
        self.ending = Some(self.ms());
        self.host.machine.signal(Signal::Terminate);
        let end = self.ms() + 30_000;
        while self.ms() < end && self.host.machine.is_running() {
            env::sleep(TICK).await;
        }
        if self.host.machine.is_running() {
            return self.wrong("JS-14", "the server does not end within 30 s".into());
        }
        self.keep_running();
        self.undo_due(u64::MAX);
        let again = self.admin(|run| async move {
            let mut c = run.connect().await;
            read_all(&run, &mut c).await
        });
        match again.await {
            Some(Ok(again)) => {
                for s in STREAMS {
                    let (a, b) = (&after[&s], &again[&s]);
                    if (a.first, a.last, &a.kept) != (b.first, b.last, &b.kept) {
                        self.wrong(
                            "JS-15",
                            format!(
                                "{} was {}..={} with {} messages before a clean restart, and is {}..={} with {} after it",
                                s.name(), a.first, a.last, a.kept.len(), b.first, b.last, b.kept.len()
                            ),
                        );
                    }
                }
            }
            Some(Err(e)) => self.wrong("JS-13", format!("after a clean restart: {e}")),
            None => self.wrong("JS-13", "after a clean restart nothing answers".into()),
        }
    }
}

/// Reads all streams as they are.
async fn read_all(run: &Run, c: &mut Conn) -> Result<BTreeMap<Stream, Final>, String> {
    let mut all = BTreeMap::new();
    for s in STREAMS {
        let end = env::now() + CALM;
        let mut seen = None;
        while seen.is_none() && env::now() < end {
            match run.info(c, s).await {
                Ok(Some(i)) => seen = Some(i),
                Ok(None) => env::sleep(Duration::from_millis(100)).await,
                Err(_) => *c = run.connect().await,
            }
        }
        let Some(i) = seen else { return Err(format!("{} has no info within {CALM:?} of calm", s.name())) };
        let mut kept = BTreeMap::new();
        for seq in i.first.max(1)..=i.last {
            let Some(m) = run.read(c, s, seq, env::now() + CALM).await else {
                return Err(format!("{}: message {seq} is not answered within {CALM:?}", s.name()));
            };
            if let Some((subject, data)) = m {
                kept.insert(seq, Kept { subject, value: wire::publish_of(&data) });
            }
        }
        let f = Final { first: i.first, last: i.last, msgs: i.msgs, kept, before: BTreeMap::new() };
        all.insert(s, f);
    }
    Ok(all)
}

/// Takes all that a consumer still has to give.
async fn empty(run: &Run, c: &mut Conn, s: Stream, wait: Duration) -> Result<(), String> {
    // As long as messages come it goes on: with one ack pending at a time a long stream takes its time.
    let patience = CALM * 3 + wait * 20;
    let mut end = env::now() + patience;
    let subject = format!("$JS.API.CONSUMER.INFO.{}.{}", s.name(), consumer(s));
    let mut last = String::new();
    while env::now() < end {
        match run.fetch(c, s, 100, 200, &[Act::AckSync]).await {
            Ok(n) if n > 0 => {
                end = env::now() + patience;
                continue;
            }
            Ok(_) => {}
            Err(_) => *c = run.connect().await,
        }
        let Some(m) = run.ask(c, &subject, "", env::now() + CALM).await else {
            return Err(format!("the consumer of {} has no info within {CALM:?}", s.name()));
        };
        let v = m.json();
        if (v["num_pending"].as_u64(), v["num_ack_pending"].as_u64()) == (Some(0), Some(0)) {
            return Ok(());
        }
        last = v.to_string();
        env::sleep(wait / 4 + Duration::from_millis(10)).await;
    }
    Err(format!("the consumer of {} does not come to its end: {last}", s.name()))
}
