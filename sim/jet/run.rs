//! Runs a plan: one or several real servers with JetStream on disks that can lose power, the actors, the events; then calm: everything is
//! read, the consumers empty their streams, the servers start once more, and everything is read again.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use env::{
    sim::{Config, Link, Machine, NetOptions, World},
    simdisk,
};
use jetstream::audit::Audit;
use parking_lot::Mutex;

use crate::{
    fleet::{self, Fleet},
    storm::{Report, in_world},
    wire,
};

use super::{
    actor::{Conn, Run, consumer, consumer_config},
    check, copies,
    plan::{Act, Actor, Event, Options, Plan, STREAMS, Stream, Woe},
    record::{Final, Kept, Record, Shared},
};

/// How often things are looked at.
const TICK: Duration = Duration::from_millis(2);
/// The number of the actor that makes the streams and reads them at the end.
const ADMIN: u64 = 1_000;
/// The first number of those who carry out what the plan asks of the operator.
const OPERATOR: u64 = 2_000;
/// How long the calm may take for one thing.
const CALM: Duration = Duration::from_secs(60);
/// How long after a trouble between servers has ended leaders may still change, in nanoseconds.
const UNREST_NS: u64 = 10_000_000_000;
/// How often the replicas of several servers are compared, in nanoseconds.
const AUDIT_NS: u64 = 100_000_000;
/// The code of an answer that names a server which is no member.
const NOT_A_MEMBER: u64 = 10044;
/// The streams' duplicate window, which is nats-server's default, in milliseconds.
pub const DUPLICATE_WINDOW_MS: u64 = 120_000;
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
    let plan = plan.clone();
    in_world(config, |w| async move { Harness::new(w, plan).run().await })
}

struct Harness {
    w: World,
    plan: Plan,
    fleet: Fleet,
    record: Shared,
    machines: BTreeMap<u64, Machine>,
    /// Links of actors that are cut: the actor, since when in nanoseconds, until when in milliseconds.
    cut: Vec<(u64, u64, u64)>,
    /// Since when not all is as it should be.
    troubled_since: Option<u64>,
    operators: u64,
    /// Changes that were asked for and not answered yet.
    asking: Arc<AtomicUsize>,
    /// Servers that have lost their disks: since when they may start again, in milliseconds, and whether the operator is done.
    wiped: Vec<(usize, u64, Arc<AtomicBool>)>,
    /// By group and term: who led.
    led: BTreeMap<(u64, u64), usize>,
    audited_at: u64,
}

/// The configuration of server `i`.
fn config(o: &Options, fleet: &Fleet, i: usize) -> String {
    let text = "listen: \"0.0.0.0:4222\"\njetstream { store_dir: \"/data\", max_mem: 64MB, max_file: 4GB }\n"
        .to_owned()
        + crate::debug_line();
    if o.servers == 1 {
        return format!("{text}server_name: storm\n");
    }
    let others = (0..o.servers).filter(|n| *n != i);
    let routes: Vec<String> =
        others.map(|n| format!("\"nats-route://{}:6222\"", fleet.machine(n).ip())).collect();
    // The operator who removes a server speaks through the system account; all others need no name.
    let accounts = match o.has_woe(Woe::Wipe) {
        false => "",
        true => {
            "accounts { APP { jetstream: enabled, users: [{user: app, password: app}] }, SYS { users: [{user: sys, password: sys}] } }\n\
             system_account: SYS\nno_auth_user: app\n"
        }
    };
    format!(
        "{text}{accounts}server_name: s{i}\ncluster {{ name: storm, listen: \"0.0.0.0:6222\", ping_interval: \"2s\", ping_max: 2, routes: [{}] }}\n",
        routes.join(", ")
    )
}

impl Harness {
    fn new(w: World, plan: Plan) -> Harness {
        let fleet = Fleet::new(&w, plan.options.servers, plan.options.cores);
        let record = Arc::new(Mutex::new(Record::default()));
        Harness {
            w,
            plan,
            fleet,
            record,
            machines: BTreeMap::new(),
            cut: Vec::new(),
            troubled_since: None,
            operators: OPERATOR,
            asking: Arc::default(),
            wiped: Vec::new(),
            led: BTreeMap::new(),
            audited_at: 0,
        }
    }

    fn ms(&self) -> u64 {
        self.w.elapsed().as_millis() as u64
    }
    fn ns(&self) -> u64 {
        self.w.elapsed().as_nanos() as u64
    }
    fn wrong(&self, id: &str, text: String) {
        self.record.lock().wrong(id, text);
    }

    fn actor(&mut self, actor: Actor) -> (Machine, Run) {
        let machine = self.w.machine(&format!("a{}", actor.id));
        self.machines.insert(actor.id, machine.clone());
        let n = self.plan.options.servers;
        let run = Run {
            options: self.plan.options.clone(),
            servers: (0..n).map(|i| SocketAddr::new(self.fleet.machine(i).ip(), 4222)).collect(),
            home: AtomicUsize::new(actor.id as usize),
            record: self.record.clone(),
            world: self.w.clone(),
            boots: self.fleet.boots(),
            user: "",
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
            self.keep();
            env::sleep(TICK).await;
        }
    }

    async fn run(mut self) -> Report {
        let o = self.plan.options.clone();
        for i in 0..o.servers {
            let text = config(&o, &self.fleet, i);
            self.fleet.hosts()[i].configure(&text);
            if o.late() == Some(i) {
                self.fleet.keep_back(i);
            } else {
                self.fleet.start(i);
            }
        }
        let made = self.admin(move |run| make(run, o)).await;
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
            self.keep();
            let all = self.record.lock().done >= self.plan.actors.len() as u64;
            if all
                && events.is_empty()
                && self.fleet.is_quiet()
                && self.cut.is_empty()
                && self.wiped.is_empty()
            {
                return;
            }
            env::sleep(TICK).await;
        }
        let done = self.record.lock().done;
        self.wrong("JS-13", format!("after 600 s {done} of {} actors are done", self.plan.actors.len()));
    }

    /// Undoes what is due and starts again what has ended; times in which not all is well are noted.
    fn keep(&mut self) {
        for text in self.fleet.keep() {
            self.wrong("JS-14", text);
        }
        let now = self.ms();
        for (actor, since, until) in std::mem::take(&mut self.cut) {
            if until <= now {
                self.link(actor, |w, a, s| w.join(a, s));
                // What was sent before comes after this only, together with what was sent since, and with retries that wait longer each time.
                let now = self.ns();
                self.record.lock().outages.push((since, now + (now - since)));
            } else {
                self.cut.push((actor, since, until));
            }
        }
        self.bring_back();
        let several = self.plan.options.servers > 1;
        if several && self.ns() >= self.audited_at + AUDIT_NS {
            self.audited_at = self.ns();
            self.audit();
        }
        let well = self.fleet.all_serve() && (!several || self.fleet.is_quiet());
        let now = self.ns();
        match (well, self.troubled_since) {
            (false, None) => self.troubled_since = Some(now),
            (true, Some(since)) => {
                self.troubled_since = None;
                let until = if several { now + UNREST_NS } else { now };
                self.record.lock().outages.push((since, until));
            }
            _ => {}
        }
    }

    /// What each server knows of its groups.
    fn audits(&self) -> Vec<(usize, Vec<Audit>)> {
        let of =
            |h: &crate::storm::Host| h.server().and_then(|s| s.jetstream.read().clone()).map(|e| e.audit());
        self.fleet.hosts().iter().enumerate().filter_map(|(i, h)| Some((i, of(h)?))).collect()
    }

    /// One leader a term (CL-1), and no replica gives up (CL-2).
    fn audit(&mut self) {
        let mut wrong = Vec::new();
        for (i, all) in self.audits() {
            for a in all {
                if a.leads
                    && let Some(other) = self.led.insert((a.group, a.term), i)
                    && other != i
                {
                    wrong.push((
                        "CL-1",
                        format!("s{i} and s{other} led group {} in term {}", a.group, a.term),
                    ));
                }
                if let Some(why) = a.stopped {
                    wrong.push((
                        "CL-2",
                        format!("the replica of group {} on s{i} has stopped: {why}", a.group),
                    ));
                }
            }
        }
        let mut r = self.record.lock();
        for (id, text) in wrong {
            if !r.violations.iter().any(|v| v.id == id) {
                r.wrong(id, text);
            }
        }
    }

    /// What differs between replicas that should be equal, if anything (CL-3).
    fn difference(&self) -> Option<String> {
        let all = self.audits();
        let leaders: Vec<&Audit> = all.iter().flat_map(|(_, g)| g).filter(|a| a.leads).collect();
        let groups: std::collections::BTreeSet<u64> =
            all.iter().flat_map(|(_, g)| g).map(|a| a.group).collect();
        for group in groups {
            let newest = leaders.iter().filter(|a| a.group == group).max_by_key(|a| a.term);
            let Some(leader) = newest else { return Some(format!("nobody leads group {group}")) };
            let mut voters = 0;
            for (i, groups) in &all {
                let Some(a) = groups.iter().find(|a| a.group == group) else { continue };
                voters += 1;
                if (a.applied, a.last, a.stored) != (leader.commit, leader.last, leader.stored) || a.mending {
                    return Some(format!("group {group}: the leader has {leader:?}, s{i} has {a:?}"));
                }
            }
            if voters != leader.voters.len() {
                return Some(format!("group {group} is on {voters} servers, and {:?} decide", leader.voters));
            }
        }
        None
    }

    /// All replicas become equal once nothing happens any more.
    async fn converge(&mut self) {
        let end = self.ms() + 60_000;
        let mut last = self.difference();
        while last.is_some() && self.ms() < end {
            for _ in 0..25 {
                self.keep();
                env::sleep(TICK).await;
            }
            last = self.difference();
        }
        if let Some(text) = last {
            self.wrong("CL-3", format!("after a minute of calm: {text}"));
        }
    }

    /// Does something to an actor's links with all servers.
    fn link(&self, actor: u64, f: impl Fn(&World, &Machine, &Machine)) {
        let Some(m) = self.machines.get(&actor) else { return };
        for h in self.fleet.hosts() {
            f(&self.w, m, &h.machine);
        }
    }

    fn note_jump(&self, ms: i64) {
        let now = self.ns();
        self.record.lock().jumps.push((now, ms.max(0) as u64 * 1_000_000));
    }

    fn happen(&mut self, e: Event, now: u64) {
        let name = match &e {
            Event::Kill { power: false, .. } => "fault kill",
            Event::Kill { power: true, .. } => "fault power",
            Event::Restart => "fault restart",
            Event::Pause { .. } => "fault pause",
            Event::Reset { .. } => "fault reset",
            Event::Cut { .. } => "fault cut",
            Event::Clock { .. } => "fault clock",
            Event::Servers(e) => e.name(),
            Event::StepDown { .. } => "change step-down",
            Event::ConsumerStepDown { .. } => "change consumer step-down",
            Event::PeerRemove { .. } => "change peer remove",
            Event::Join => "change join",
            Event::Wipe { .. } => "fault wipe",
            Event::Scale { .. } => "change scale",
        };
        self.record.lock().count(name);
        if self.plan.options.servers > 1 {
            // A change of leaders may follow, also of what happens in no time.
            let now = self.ns();
            let mut record = self.record.lock();
            let record = &mut *record;
            let in_peace = matches!(e, Event::StepDown { .. } | Event::ConsumerStepDown { .. });
            let times = if in_peace { &mut record.moves } else { &mut record.outages };
            times.push((now, now + UNREST_NS));
        }
        match e {
            Event::Kill { power, ms } => {
                self.fleet.happen(&fleet::Event::KillServer { server: 0, power, ms });
            }
            Event::Restart => self.fleet.happen(&fleet::Event::RestartServer { server: 0 }),
            Event::Pause { ms } => {
                self.fleet.happen(&fleet::Event::PauseServer { server: 0, ms });
                let now = self.ns();
                self.record.lock().outages.push((now, now + ms * 1_000_000));
            }
            Event::Clock { ms } => {
                self.note_jump(ms);
                self.fleet.happen(&fleet::Event::ClockServer { server: 0, ms });
            }
            Event::Servers(e) => {
                if let fleet::Event::ClockServer { ms, .. } = &e {
                    self.note_jump(*ms);
                    if ms.unsigned_abs() >= DUPLICATE_WINDOW_MS {
                        self.record.lock().clocks_apart = true;
                    }
                }
                self.fleet.happen(&e);
            }
            Event::Reset { actor } => self.link(actor, |w, a, s| w.reset(a, s)),
            Event::Cut { actor, ms } => {
                self.link(actor, |w, a, s| w.part(a, s));
                self.cut.push((actor, self.ns(), now + ms));
            }
            Event::StepDown { stream } => {
                let subject = match stream {
                    Some(s) => format!("$JS.API.STREAM.LEADER.STEPDOWN.{}", s.name()),
                    None => "$JS.API.META.LEADER.STEPDOWN".to_owned(),
                };
                self.operate(subject, String::new());
            }
            Event::ConsumerStepDown { stream } => {
                let (s, c) = (stream.name(), consumer(stream));
                self.operate(format!("$JS.API.CONSUMER.LEADER.STEPDOWN.{s}.{c}"), String::new());
            }
            Event::PeerRemove { stream, server } => {
                let body = format!("{{\"peer\":\"s{server}\"}}");
                self.operate(format!("$JS.API.STREAM.PEER.REMOVE.{}", stream.name()), body);
            }
            Event::Wipe { server, ms, alone } => self.wipe(server, now + ms, alone),
            Event::Join => {
                // One that was wiped before it ever came does so when the operator who removes it is done.
                let is_wiped = |i: &usize| self.wiped.iter().any(|w| w.0 == *i);
                if let Some(i) = self.plan.options.late().filter(|i| !is_wiped(i)) {
                    self.fleet.recall(i);
                }
            }
            Event::Scale { stream, replicas } => {
                let text = stream.config_with(&self.plan.options, replicas);
                self.operate(format!("$JS.API.STREAM.UPDATE.{}", stream.name()), text);
            }
        }
    }

    /// An operator asks for a change, once. Whether it comes to it is open.
    fn operate(&mut self, subject: String, body: String) {
        self.operators += 1;
        let (machine, run) = self.actor(Actor { id: self.operators, stream: Stream::Log, steps: Vec::new() });
        let asking = self.asking.clone();
        asking.fetch_add(1, Relaxed);
        machine.start(async move {
            let mut c = run.connect().await;
            let answer = run.ask(&mut c, &subject, &body, env::now() + Duration::from_secs(5)).await;
            let done = answer.is_some_and(|m| m.json()["error"].is_null());
            run.record.lock().count(if done { "changes: done" } else { "changes: refused" });
            asking.fetch_sub(1, Relaxed);
        });
    }

    /// A server loses its disk, and an operator sees to it that the cluster does not wait for the node that it was.
    fn wipe(&mut self, server: usize, from: u64, alone: bool) {
        if server >= self.plan.options.servers || self.wiped.iter().any(|w| w.0 == server) {
            return;
        }
        self.fleet.bury(server, true);
        self.fleet.erase(server);
        let done = Arc::new(AtomicBool::new(alone));
        self.wiped.push((server, from, done.clone()));
        if alone {
            return;
        }
        self.operators += 1;
        let (machine, run) = self.actor(Actor { id: self.operators, stream: Stream::Log, steps: Vec::new() });
        let run = Run { user: "sys", ..run };
        machine.start(async move {
            let mut c = run.connect().await;
            let body = format!("{{\"peer\":\"s{server}\"}}");
            let mut tries = 0;
            loop {
                let end = env::now() + Duration::from_secs(5);
                let v = run.ask(&mut c, "$JS.API.SERVER.REMOVE", &body, end).await.map(|m| m.json());
                let code = v.as_ref().and_then(|v| v["error"]["err_code"].as_u64());
                let said = v.is_some_and(|v| v["success"] == true);
                // Not a member: an earlier attempt, whose answer was lost, has done it.
                if said || (tries > 0 && code == Some(NOT_A_MEMBER)) {
                    break done.store(true, Relaxed);
                }
                tries += 1;
                env::sleep(Duration::from_millis(200)).await;
            }
        });
    }

    /// Servers that have lost their disks start again once the operator is done, if one is to come.
    fn bring_back(&mut self) {
        let now = self.ms();
        let ready: Vec<usize> =
            self.wiped.iter().filter(|w| w.1 <= now && w.2.load(Relaxed)).map(|w| w.0).collect();
        self.wiped.retain(|w| !ready.contains(&w.0));
        for i in ready {
            self.fleet.recall(i);
            let now = self.ns();
            self.record.lock().outages.push((now, now + UNREST_NS));
        }
    }

    async fn heal(&mut self) {
        self.fleet.heal();
        self.cut.clear();
        for a in self.machines.keys().copied().collect::<Vec<_>>() {
            self.link(a, |w, a, s| w.join(a, s));
        }
        self.w.set_net(|o| {
            o.link.latency_min_ns = 20_000;
            o.link.latency_max_ns = 200_000;
            o.window = 256 << 10;
            o.short = 0.0;
        });
        if !self.all_serve_within(30_000).await {
            self.wrong("JS-13", "no server listens 30 s after the storm".into());
        }
        if self.plan.options.one_stays_dead {
            let victim = self.plan.options.victim();
            // A stream that was told to have one replica is where it is, and one that has yet to get its others needs those that it has.
            let moving =
                [Woe::Scale, Woe::PeerRemove, Woe::Late].into_iter().any(|w| self.plan.options.has_woe(w));
            let end = self.ms() + CALM.as_millis() as u64;
            while moving && !self.can_spare(victim) && self.ms() < end {
                self.keep();
                env::sleep(TICK * 10).await;
            }
            if moving && !self.can_spare(victim) {
                return self.record.lock().count("no server can stay dead");
            }
            self.record.lock().count("a server stays dead");
            self.fleet.bury(victim, true);
        }
    }

    /// Whether every group has a majority without this server, and no change of its members is under way or asked for.
    fn can_spare(&self, server: usize) -> bool {
        if self.asking.load(Relaxed) > 0 {
            return false;
        }
        let all = self.audits();
        let groups: std::collections::BTreeSet<u64> =
            all.iter().flat_map(|(_, g)| g).map(|a| a.group).collect();
        groups.into_iter().all(|group| {
            let on = || all.iter().filter_map(|(i, g)| Some((*i, g.iter().find(|a| a.group == group)?)));
            let Some((_, leader)) = on().filter(|(_, a)| a.leads).max_by_key(|(_, a)| a.term) else {
                return false;
            };
            let without = on().filter(|(i, _)| *i != server).count();
            on().count() == leader.voters.len()
                && without * 2 > leader.voters.len()
                && !on().any(|(_, a)| a.moving)
        })
    }

    async fn all_serve_within(&mut self, ms: u64) -> bool {
        let end = self.ms() + ms;
        while self.ms() < end && !self.fleet.all_serve() {
            self.keep();
            env::sleep(TICK).await;
        }
        self.fleet.all_serve()
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
                run.memory_in_calm(&mut c).await;
                run.copies_in_calm(&mut c).await;
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
        let end = self.ms() + CALM.as_millis() as u64;
        while !self.wiped.is_empty() && self.ms() < end {
            self.keep();
            env::sleep(TICK).await;
        }
        if let Some((i, ..)) = self.wiped.first() {
            return self
                .wrong("JS-13", format!("nobody takes s{i}, which lost its disk, out of the cluster"));
        }
        // A clean end and another start change nothing.
        let n = self.plan.options.servers;
        (0..n).for_each(|i| self.fleet.recall(i));
        if n > 1 {
            self.all_serve_within(30_000).await;
            self.converge().await;
        }
        for i in 0..n {
            if self.fleet.serves(i) {
                self.fleet.end(i);
            }
        }
        let is_up = |h: &Harness| (0..n).any(|i| h.fleet.machine(i).is_running());
        let end = self.ms() + 30_000;
        while self.ms() < end && is_up(self) {
            env::sleep(TICK).await;
        }
        if is_up(self) {
            return self.wrong("JS-14", "the servers do not end within 30 s".into());
        }
        self.all_serve_within(30_000).await;
        let again = self.admin(|run| async move {
            let mut c = run.connect().await;
            run.memory_in_calm(&mut c).await;
            run.copies_in_calm(&mut c).await;
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

/// Makes the streams and their consumers.
async fn make(run: Run, o: Options) -> Result<(), String> {
    let mut c = run.connect().await;
    let mut all: Vec<(String, String)> = Vec::new();
    for s in STREAMS {
        all.push((format!("$JS.API.STREAM.CREATE.{}", s.name()), s.config(&o)));
    }
    for s in CONSUMED {
        let subject = format!("$JS.API.CONSUMER.DURABLE.CREATE.{}.{}", s.name(), consumer(s));
        all.push((subject, consumer_config(s, &o)));
    }
    if o.filed {
        let s = Stream::Filed;
        all.push((format!("$JS.API.STREAM.CREATE.{}", s.name()), s.config(&o)));
    }
    for (subject, body) in all {
        run.until_configured(&mut c, &subject, &body).await?;
    }
    if o.copies.is_some() {
        copies::make(&run, &mut c).await?;
    }
    Ok(())
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
