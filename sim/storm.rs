//! Runs a plan: the real server on one machine, every client on its own, events at their times; then calm, in which
//! everything must heal; then the verdict.
//!
//! The order of the calm: links heal, a new client is served (SIM-9), all confirm what they sent, all receive what was
//! sent to them, those that do not listen are closed (L-3), all leave and nothing is left of them (SIM-8), the server
//! ends when told so (SIM-10).

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use env::{
    disk::OpenOptions,
    signal::{Signal, Signals},
    sim::{Config, Death, Link, Machine, NetOptions, Trigger, World},
    watch,
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use server::{
    Server,
    options::{self, Flags},
};

use crate::{
    check,
    client::{Client, Phase},
    history::{History, Shared, Violation},
    plan::{ClientPlan, Event, Op, Plan, Step, Way},
    world,
};

/// The configuration file's path.
const CONFIG: &str = "/storm.conf";
/// How long the calm may take until everybody is served, in virtual seconds.
const HEAL_SECS: u64 = 150;
/// How often outboxes are looked at.
const TICK: Duration = Duration::from_millis(2);
/// The number of the client that comes after the storm.
const PROBE: u64 = 1_000;

/// What came of a run.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// What is wrong.
    pub violations: Vec<Violation>,
    /// Things that happened, by name.
    pub counts: BTreeMap<String, u64>,
    /// `sometimes!` marks that were hit.
    pub marks: BTreeMap<String, u64>,
    /// Virtual time.
    pub virtual_ms: u64,
    /// Hash of the trace.
    pub hash: u64,
    /// Events of the trace.
    pub events: u64,
}

/// Runs a plan in a world of its own.
pub fn run(plan: &Plan) -> Report {
    let o = &plan.options;
    let config = Config {
        virtual_limit: Duration::from_secs(4 * 3600),
        net: NetOptions {
            link: Link {
                latency_min_ns: o.latency_min_us * 1000,
                latency_max_ns: o.latency_max_us.max(o.latency_min_us) * 1000,
                loss: o.loss,
                bandwidth: 0,
            },
            window: o.window,
            short: o.short,
            ..NetOptions::default()
        },
        seed: o.seed,
        ..crate::config(o.seed)
    };
    let plan = plan.clone();
    in_world(config, |w| async move { Harness::new(w, plan).run().await })
}

/// Runs a harness in a world and on a thread of its own, and adds to its report what the trace and the marks say. The thread is
/// part of the world: what std and others keep for each thread, the keys of hash maps first of all, begins anew with it.
pub(crate) fn in_world<F>(config: Config, harness: impl FnOnce(World) -> F + Send) -> Report
where
    F: Future<Output = Report> + 'static,
{
    let on_its_thread = || {
        crate::said::show();
        env::check::take_marks();
        let mut report = env::sim::run(config, harness);
        let trace = env::sim::trace();
        (report.hash, report.events) = (trace.hash, trace.events);
        report.marks = env::check::take_marks().into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
        report
    };
    #[allow(clippy::disallowed_methods)]
    let done = std::thread::scope(|s| s.spawn(on_its_thread).join());
    done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// The server's process, as a harness sees it.
#[derive(Clone)]
pub(crate) struct Host {
    pub machine: Machine,
    server: Arc<Mutex<Option<Arc<Server>>>>,
    /// How it ended.
    pub exit: Arc<Mutex<Option<i32>>>,
    /// Its number of starts.
    pub boots: Arc<watch::Sender<u64>>,
}

struct Text(Vec<u8>);
impl conf::Source for Text {
    fn read(&self, _: &str) -> Result<Vec<u8>, String> {
        Ok(self.0.clone())
    }
    fn variable(&self, _: &str) -> Option<String> {
        None
    }
}

impl Host {
    pub fn new(machine: Machine) -> Host {
        Host { machine, server: Arc::default(), exit: Arc::default(), boots: Arc::default() }
    }
    /// Whether it listens.
    pub fn serves(&self) -> bool {
        self.server().is_some_and(|s| s.bound.lock().client.is_some())
    }
    /// Puts the configuration on the disk, durably.
    pub fn configure(&self, text: &str) {
        let done = self.machine.disk(|d| {
            let h = d.open(CONFIG, OpenOptions::TRUNCATE)?;
            d.write(h, 0, text.as_bytes())?;
            d.sync(h)?;
            d.close(h);
            d.sync_dir("/")
        });
        done.expect("no disk fault is switched on");
    }
    pub fn start(&self) {
        self.boots.send_modify(|n| *n += 1);
        *self.exit.lock() = None;
        let (slot, exit) = (self.server.clone(), self.exit.clone());
        *slot.lock() = None;
        self.machine.start(async move {
            let text = env::disk::Disk::os().read(CONFIG).await.expect("the harness wrote it");
            let mut flags = Flags::default();
            flags.config = Some(CONFIG.to_owned());
            let loaded = options::load(&flags, &Text(text)).expect("the storm's configuration is right");
            let server = Server::new(loaded.options, flags).expect("the storm's options are right");
            let signals = Signals::listen().expect("simulated signals always come");
            env::spawn(server.clone().follow_signals(signals));
            *slot.lock() = Some(server.clone());
            let code = server.run().await;
            *exit.lock() = Some(code);
        });
    }
    /// The server, while its process runs.
    pub fn server(&self) -> Option<Arc<Server>> {
        self.server.lock().clone().filter(|_| self.machine.is_running())
    }
}

enum Undo {
    Join(u64, Way),
    Fast(u64),
    Resume,
    Start,
}

struct Harness {
    w: World,
    plan: Plan,
    host: Host,
    clients: BTreeMap<u64, Machine>,
    history: Shared,
    phase: watch::Sender<Phase>,
    undo: Vec<(u64, Undo)>,
    variant: u64,
    /// When the server was told to go, if it was.
    going: Option<u64>,
    paused: bool,
    pending_max: usize,
    out_of_range: bool,
}

impl Harness {
    fn new(w: World, plan: Plan) -> Harness {
        let machine = w.machine("server");
        machine.set_cores(plan.options.cores);
        let host = Host::new(machine);
        Harness {
            w,
            host,
            clients: BTreeMap::new(),
            history: Arc::new(Mutex::new(History::default())),
            phase: watch::channel(Phase::Storm).0,
            undo: Vec::new(),
            variant: 0,
            going: None,
            paused: false,
            pending_max: plan.options.max_pending,
            out_of_range: false,
            plan,
        }
    }

    fn ms(&self) -> u64 {
        self.w.elapsed().as_millis() as u64
    }
    fn wrong(&self, id: &str, text: String) {
        self.history.lock().violations.push(Violation::new(id, text));
    }

    async fn run(mut self) -> Report {
        self.host.configure(&world::config(&self.plan.options, 0));
        self.host.start();
        let begun = self.until(5_000, |h| h.serves()).await;
        assert!(begun, "the server did not begin to listen");
        let base = self.host.server().map_or(0, |s| s.broker.subscriptions());
        for c in self.plan.clients.clone() {
            self.add_client(c);
        }
        self.weather().await;
        self.heal().await;
        self.calm(base).await;
        let mut report = self.judge();
        report.seed = self.plan.options.seed;
        report.virtual_ms = self.ms();
        report
    }

    fn serves(&self) -> bool {
        self.host.serves()
    }

    fn add_client(&mut self, plan: ClientPlan) {
        let machine = self.w.machine(&format!("c{}", plan.id));
        self.clients.insert(plan.id, machine.clone());
        let client = Client {
            options: self.plan.options.clone(),
            server: SocketAddr::new(self.host.machine.ip(), 4222),
            history: self.history.clone(),
            world: self.w.clone(),
            boots: self.host.boots.subscribe(),
            phase: self.phase.subscribe(),
            plan,
        };
        machine.start(client.run());
    }

    /// Waits until `done`, looking at everything on the way; false if that took longer than `ms`.
    async fn until(&mut self, ms: u64, mut done: impl FnMut(&mut Harness) -> bool) -> bool {
        let end = self.ms() + ms;
        loop {
            self.sample();
            if done(self) {
                return true;
            }
            if self.ms() >= end {
                return false;
            }
            // Long waits are looked at less often.
            env::sleep(if ms > 5_000 { TICK * 10 } else { TICK }).await;
        }
    }

    /// Looks at every outbox (B-5), and at which connections the server has forgotten.
    fn sample(&mut self) {
        let now = self.w.elapsed().as_nanos() as u64;
        let boot = *self.host.boots.borrow();
        let mut open = Vec::new();
        let server = self.host.server();
        if let Some(s) = &server {
            // One message more than the limit, with its line.
            let most = self.pending_max + self.plan.options.max_payload + 4096;
            for l in s.broker.links() {
                open.push(l.id);
                let n = l.pending_bytes();
                if n > most && !self.out_of_range {
                    self.out_of_range = true;
                    let id = l.id;
                    self.wrong(
                        "B-5",
                        format!("the outbox of cid {id} holds {n} bytes, at most {most} may wait"),
                    );
                }
            }
        }
        let mut h = self.history.lock();
        for c in &mut h.conns {
            let known = c.boot == boot && c.cid.is_none_or(|id| open.binary_search(&id).is_ok());
            if c.gone_at.is_none() && !known && (server.is_some() || c.boot < boot) {
                c.gone_at = Some(now);
            }
        }
    }

    /// The storm itself: until all clients have done their steps and all events have happened.
    async fn weather(&mut self) {
        let start = self.ms();
        let mut events = std::mem::take(&mut self.plan.events.clone());
        events.reverse();
        let end = start + 120_000;
        while self.ms() < end {
            let now = self.ms();
            while events.last().is_some_and(|e| start + e.at_ms <= now) {
                if let Some(e) = events.pop() {
                    self.happen(e.event, now);
                }
            }
            self.undo_due(now);
            self.sample();
            self.keep_running(now);
            let all = self.history.lock().done.len() >= self.plan.clients.len();
            if all && events.is_empty() && self.going.is_none() {
                break;
            }
            // Between the events that are left nothing changes but the clients.
            env::sleep(if all { TICK * 20 } else { TICK }).await;
        }
    }

    fn undo_due(&mut self, now: u64) {
        let due = std::mem::take(&mut self.undo);
        for (at, what) in due {
            if at <= now {
                self.undo(what);
            } else {
                self.undo.push((at, what));
            }
        }
    }

    /// A server that has ended is followed by another, unless an event has its own plan for that.
    fn keep_running(&mut self, now: u64) {
        if self.host.machine.is_running() || self.undo.iter().any(|u| matches!(u.1, Undo::Start)) {
            return;
        }
        let code = *self.host.exit.lock();
        match self.going.take() {
            Some(since) => self.check_gone(since, now, code),
            None => self.wrong("SIM-10", format!("the server ended by itself with {code:?}")),
        }
        self.undo.push((now + 20, Undo::Start));
    }

    /// A lame duck ends in its time and well (SIM-10).
    fn check_gone(&self, since: u64, now: u64, code: Option<i32>) {
        let took = now - since;
        if code != Some(0) || took > 40_000 {
            self.wrong("SIM-10", format!("the lame duck ended with {code:?} after {took} ms"));
        }
    }

    fn machine(&self, client: u64) -> Machine {
        self.clients[&client].clone()
    }

    fn happen(&mut self, e: Event, now: u64) {
        let server = self.host.machine.clone();
        let name = match &e {
            Event::Cut { .. } => "fault cut",
            Event::Reset { .. } => "fault reset",
            Event::Slow { .. } => "fault slow",
            Event::AtByte { .. } => "fault at byte",
            Event::KillClient { .. } => "fault client death",
            Event::KillServer { .. } => "fault server death",
            Event::Pause { .. } => "fault pause",
            Event::Reload { .. } => "fault reload",
            Event::LameDuck => "fault lame duck",
        };
        self.history.lock().count(name);
        match e {
            Event::Cut { client, way, ms } => {
                let c = self.machine(client);
                if way != Way::Down {
                    self.w.cut(&c, &server);
                }
                if way != Way::Up {
                    self.w.cut(&server, &c);
                }
                self.undo.push((now + ms, Undo::Join(client, way)));
            }
            Event::Reset { client } => self.w.reset(&self.machine(client), &server),
            Event::Slow { client, latency_us, loss, bandwidth, ms } => {
                let link = Link {
                    latency_min_ns: latency_us * 500,
                    latency_max_ns: latency_us * 1000,
                    loss: loss as f64 / 100.0,
                    bandwidth,
                };
                let c = self.machine(client);
                self.w.set_link(&c, &server, Some(link));
                self.w.set_link(&server, &c, Some(link));
                self.undo.push((now + ms, Undo::Fast(client)));
            }
            Event::AtByte { client, up, bytes, cut } => {
                let c = self.machine(client);
                let (from, to) = if up { (&c, &server) } else { (&server, &c) };
                self.w.after_bytes(from, to, bytes, if cut { Trigger::Cut } else { Trigger::Reset });
                if cut {
                    self.undo.push((now + 1_000, Undo::Join(client, if up { Way::Up } else { Way::Down })));
                }
            }
            Event::KillClient { client, power } => {
                self.machine(client).kill(if power { Death::Power } else { Death::Process });
                let mut h = self.history.lock();
                h.done.insert(client);
                h.dead.insert(client);
            }
            Event::KillServer { power, ms } => {
                if server.is_running() && self.going.is_none() {
                    self.wake();
                    server.kill(if power { Death::Power } else { Death::Process });
                    self.undo.push((now + ms, Undo::Start));
                }
            }
            Event::Pause { ms } => {
                if server.is_running() && !self.paused {
                    server.pause();
                    self.paused = true;
                    self.undo.push((now + ms, Undo::Resume));
                }
            }
            Event::Reload { variant } => {
                self.variant = variant;
                self.host.configure(&world::config(&self.plan.options, variant));
                if self.serves() {
                    server.signal(Signal::Hangup);
                }
            }
            Event::LameDuck => {
                if self.serves() && self.going.is_none() {
                    self.going = Some(now);
                    server.signal(Signal::User2);
                }
            }
        }
    }

    fn wake(&mut self) {
        if std::mem::take(&mut self.paused) {
            self.host.machine.resume();
        }
    }

    fn undo(&mut self, what: Undo) {
        let server = self.host.machine.clone();
        match what {
            Undo::Join(client, way) => {
                let c = self.machine(client);
                if way != Way::Down {
                    self.w.heal(&c, &server);
                }
                if way != Way::Up {
                    self.w.heal(&server, &c);
                }
            }
            Undo::Fast(client) => {
                let c = self.machine(client);
                self.w.set_link(&c, &server, None);
                self.w.set_link(&server, &c, None);
            }
            Undo::Resume => self.wake(),
            Undo::Start => self.host.start(),
        }
    }

    /// The storm is over: everything that was broken is mended, and a server runs.
    async fn heal(&mut self) {
        for (_, what) in std::mem::take(&mut self.undo) {
            self.undo(what);
        }
        let server = self.host.machine.clone();
        for c in self.clients.clone().into_values() {
            self.w.join(&c, &server);
            self.w.after_bytes(&c, &server, u64::MAX, Trigger::Cut);
            self.w.after_bytes(&server, &c, u64::MAX, Trigger::Cut);
        }
        // What a narrow window has left to carry over a long way must not take for ever.
        self.w.set_net(|o| {
            o.link.loss = 0.0;
            o.link.latency_min_ns = 20_000;
            o.link.latency_max_ns = 200_000;
        });
        if let Some(since) = self.going {
            let limit = (since + 45_000).saturating_sub(self.ms()).max(1);
            self.until(limit, |h| !h.host.machine.is_running()).await;
            let now = self.ms();
            self.check_gone(since, now, *self.host.exit.lock());
            self.going = None;
            self.host.start();
        }
        if !self.until(10_000, |h| h.serves()).await {
            self.wrong("SIM-9", "no server listens after the storm".into());
        }
    }

    /// All clients whose connection is expected to work have reached the barrier, or learned that it does not.
    fn all_reached(&self, barrier: Phase) -> Option<String> {
        let h = self.history.lock();
        let late = h.conns.iter().enumerate().find(|(_, c)| {
            c.closed_at.is_none() && !c.tainted && !h.dead.contains(&c.client) && c.barrier < barrier as u64
        });
        late.map(|(i, c)| format!("connection {i} of client {} (cid {:?})", c.client, c.cid))
    }

    /// When links that were slow have carried what they were given, in milliseconds of the run: nothing overtakes it.
    fn carries_until(&self) -> u64 {
        let server = &self.host.machine;
        let ends = self.clients.values().flat_map(|c| [(c, server), (server, c)]);
        ends.map(|(a, b)| self.w.carries_until(a, b)).max().unwrap_or(0) / 1_000_000
    }

    async fn barrier(&mut self, phase: Phase) {
        self.phase.send_replace(phase);
        let ms = HEAL_SECS * 1000 + self.carries_until().saturating_sub(self.ms());
        if !self.until(ms, |h| h.all_reached(phase).is_none()).await
            && let Some(who) = self.all_reached(phase)
        {
            self.wrong("SIM-9", format!("{who} got no PONG within {HEAL_SECS} s of calm ({phase:?})"));
        }
    }

    async fn calm(&mut self, base: usize) {
        let step = |wait_us, op| Step { wait_us, op };
        self.add_client(ClientPlan {
            id: PROBE,
            user: 0,
            verbose: false,
            echo: true,
            headers: true,
            no_responders: true,
            steps: vec![
                step(0, Op::Sub { filter: "probe.*".into(), queue: None, respond: false }),
                step(0, Op::Ping { times: 1 }),
                step(50_000, Op::Pub { subject: "probe.a".into(), size: 10, header: true, times: 3 }),
                step(0, Op::Request { subject: "nobody.home".into(), times: 1 }),
            ],
        });
        self.until(30_000, |h| h.history.lock().done.contains(&PROBE)).await;
        self.barrier(Phase::First).await;
        let now = self.w.elapsed().as_nanos() as u64;
        self.history.lock().settled_at = now;
        self.barrier(Phase::Second).await;
        let served = self.history.lock().conns.iter().any(|c| c.client == PROBE && c.survived());
        if !served {
            self.wrong("SIM-9", "a client that came after the storm was not served".into());
        }
        // Deadlines of those that do not listen.
        let o = &self.plan.options;
        let stale = ((o.ping_interval_s + 1) * (o.ping_max + 2) + 4) * 1000;
        let limit = stale.max(o.write_deadline_ms).max(2_000) + 10_000;
        if !self.until(limit, |h| h.strangers().is_empty()).await {
            let left = self.strangers();
            self.wrong(
                "L-3",
                format!(
                    "after {limit} ms the server still has the connections {left:?}, which do not answer"
                ),
            );
        }
        // What the server has closed the client still has to read: through a narrow window, behind all that was sent to it before.
        self.until(limit, |h| check::awaited(&h.history.lock(), &h.plan.options).is_none()).await;
        self.reload_holds();
        let stats = self.host.server();
        self.phase.send_replace(Phase::Leave);
        self.until(10_000, |h| h.host.server().is_some_and(|s| s.broker.connections() == 0)).await;
        self.residue(base);
        self.until((world::RESPONSE_SECS + 3) * 1000, |h| h.waiting() == 0).await;
        if self.waiting() > 0 {
            self.wrong("SIM-8", format!("{} requests of services still wait", self.waiting()));
        }
        if let Some(s) = &stats {
            let found = check::stats(&self.history.lock(), *self.host.boots.borrow(), &s.broker.stats);
            self.history.lock().violations.extend(found);
        }
        self.host.machine.signal(Signal::Terminate);
        self.until(5_000, |h| !h.host.machine.is_running()).await;
        let code = *self.host.exit.lock();
        if self.host.machine.is_running() || code != Some(0) {
            self.wrong("SIM-10", format!("the server told to end without clients ended with {code:?}"));
        }
    }

    /// Connections that the server has and that no client answers for.
    fn strangers(&self) -> Vec<u64> {
        let Some(s) = self.host.server() else { return Vec::new() };
        let boot = *self.host.boots.borrow();
        let h = self.history.lock();
        let well = |id: &u64| h.conns.iter().any(|c| c.boot == boot && c.cid == Some(*id) && c.survived());
        s.broker.links().iter().map(|l| l.id).filter(|id| !well(id)).collect()
    }

    /// The last configuration that was to be read is in force (SIM-12).
    fn reload_holds(&self) {
        let Some(s) = self.host.server() else { return };
        if self.variant > 0 && s.options().log.debug != (self.variant % 2 == 1) {
            self.wrong("SIM-12", format!("configuration {} is not in force", self.variant));
        }
    }

    fn waiting(&self) -> usize {
        self.host.server().map_or(0, |s| s.broker.accounts().iter().map(|a| a.waiting_requests()).sum())
    }

    /// Nothing is left of clients that are gone (SIM-8).
    fn residue(&self, base: usize) {
        let Some(s) = self.host.server() else { return };
        let (links, clients) = (s.broker.connections(), s.links.clients.len());
        let bound: usize = s.broker.accounts().iter().map(|a| a.connections()).sum();
        let subs = s.broker.subscriptions();
        if (links, clients, bound) != (0, 0, 0) {
            self.wrong(
                "SIM-8",
                format!(
                    "all have left, but {links} links, {clients} clients, {bound} bound to accounts are there"
                ),
            );
        }
        if subs != base {
            self.wrong(
                "SIM-8",
                format!("all have left, but {subs} subscriptions are there, {base} at the start"),
            );
        }
    }

    fn judge(&self) -> Report {
        let mut h = self.history.lock();
        let found = check::all(&h, &self.plan.options);
        h.violations.extend(found);
        Report {
            violations: h.violations.clone(),
            counts: h.counts.iter().map(|(k, v)| (k.to_string(), *v)).collect(),
            ..Report::default()
        }
    }
}
