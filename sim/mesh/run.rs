//! Runs a plan: several servers, their clients, the events; then calm: the mesh becomes whole, everything arrives, all leave and nothing is left.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use env::{
    sim::{Config, Link, NetOptions, World},
    watch,
};
use parking_lot::Mutex;

use crate::{
    fleet::Fleet,
    storm::{Report, in_world},
};

use super::{
    check,
    client::{Client, Phase, Record, Shared},
    plan::{Fault, Options, Plan},
};

/// How often things are looked at.
const TICK: Duration = Duration::from_millis(5);
/// How long the members may take to come together, in virtual milliseconds. Members that know of each other by gossip alone try every ten seconds.
const TOGETHER_MS: u64 = 60_000;
/// How long interest may take to get everywhere once they have.
const INTEREST_MS: u64 = 3_000;
/// How long the members must keep the same connections before the calm counts as one: longer than a connection that the other end has
/// given up can go unnoticed (pings every two seconds, two of them unanswered).
const STEADY_MS: u64 = 8_000;
/// What a slow link has taken in arrives as slowly as it was when it took it: a window of the largest size over the slowest one.
const BACKLOG_MS: u64 = 30_000;

/// Runs a plan in a world of its own.
pub fn run(plan: &Plan) -> Report {
    let o = &plan.options;
    let config = Config {
        virtual_limit: Duration::from_secs(4 * 3600),
        net: NetOptions {
            link: Link {
                latency_min_ns: 20_000,
                latency_max_ns: o.latency_max_us.max(20) * 1000,
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

struct Harness {
    w: World,
    plan: Plan,
    fleet: Fleet,
    record: Shared,
    phase: watch::Sender<Phase>,
}

/// The configuration of server `i`.
fn config(o: &Options, fleet: &Fleet, i: usize) -> String {
    let known = (0..o.servers).filter(|n| *n != i && (!o.gossip || *n == 0));
    let routes: Vec<String> =
        known.map(|n| format!("\"nats-route://{}:6222\"", fleet.machine(n).ip())).collect();
    let name = if o.unnamed { String::new() } else { "name: storm, ".to_owned() };
    format!(
        "{}listen: \"0.0.0.0:4222\"\nserver_name: s{i}\nping_interval: \"5s\"\nwrite_deadline: \"5s\"\n\
         cluster {{ {name}listen: \"0.0.0.0:6222\", pool_size: {}, ping_interval: \"2s\", ping_max: 2, routes: [{}] }}\n",
        crate::debug_line(),
        o.pool,
        routes.join(", ")
    )
}

impl Harness {
    fn new(w: World, plan: Plan) -> Harness {
        let fleet = Fleet::new(&w, plan.options.servers, plan.options.cores);
        let record = Arc::new(Mutex::new(Record::default()));
        Harness { w, plan, fleet, record, phase: watch::channel(Phase::Storm).0 }
    }

    fn ms(&self) -> u64 {
        self.w.elapsed().as_millis() as u64
    }
    fn wrong(&self, id: &str, text: String) {
        self.record.lock().wrong(id, text);
    }

    async fn until(&mut self, ms: u64, done: impl Fn(&Harness) -> bool) -> bool {
        let end = self.ms() + ms;
        loop {
            for text in self.fleet.keep() {
                self.wrong("MS-8", text);
            }
            if done(self) {
                return true;
            }
            if self.ms() >= end {
                return false;
            }
            env::sleep(TICK).await;
        }
    }

    /// Whether every server has every other, with all connections of the pool. The pools of both sides have the same size.
    fn is_whole(&self) -> bool {
        let others = self.plan.options.servers - 1;
        let each = usize::try_from(self.plan.options.pool).unwrap_or(1).max(1);
        self.fleet.hosts().iter().all(|h| {
            h.server().and_then(|s| s.cluster.mesh.as_ref().map(|m| m.counts())).is_some_and(
                |(routes, members)| {
                    // The system account, if there is one, has connections of its own.
                    members == others && routes >= others * each
                },
            )
        })
    }

    /// The connections between the servers, as each of them has them.
    fn connections(&self) -> Vec<Vec<u64>> {
        let of = |h: &crate::storm::Host| {
            let s = h.server()?;
            Some(s.cluster.mesh.as_ref()?.routes().iter().map(|r| r.link.id).collect())
        };
        self.fleet.hosts().iter().map(|h| of(h).unwrap_or_default()).collect()
    }

    /// Waits until the mesh is whole and stays so.
    async fn steady(&mut self, ms: u64) -> bool {
        let end = self.ms() + ms;
        while self.ms() < end {
            let left = end - self.ms();
            if !self.until(left, |h| h.fleet.all_serve() && h.is_whole()).await {
                return false;
            }
            let before = self.connections();
            if !self.until(STEADY_MS, |h| h.connections() != before).await {
                return true;
            }
        }
        false
    }

    fn subscriptions(&self) -> Vec<usize> {
        self.fleet.hosts().iter().map(|h| h.server().map_or(0, |s| s.broker.subscriptions())).collect()
    }

    async fn run(mut self) -> Report {
        let o = self.plan.options.clone();
        for i in 0..o.servers {
            let text = config(&o, &self.fleet, i);
            self.fleet.hosts()[i].configure(&text);
            self.fleet.start(i);
        }
        if !self.until(TOGETHER_MS, |h| h.fleet.all_serve() && h.is_whole()).await {
            self.wrong("MS-1", format!("the mesh is not whole {TOGETHER_MS} ms after the start"));
            return self.report();
        }
        self.until(INTEREST_MS, |_| false).await;
        let base = self.subscriptions();
        for (id, steps) in self.plan.walks.clone().into_iter().enumerate() {
            let machine = self.w.machine(&format!("c{id}"));
            let server = SocketAddr::new(self.fleet.machine(id % o.servers).ip(), 4222);
            let client = Client {
                id: id as u64,
                server,
                steps,
                record: self.record.clone(),
                world: self.w.clone(),
                phase: self.phase.subscribe(),
            };
            machine.start(client.run());
        }
        self.weather().await;
        self.calm(&base).await;
        let found = check::all(&self.record.lock());
        self.record.lock().violations.extend(found);
        self.report()
    }

    async fn weather(&mut self) {
        let start = self.ms();
        let mut events = self.plan.events.clone();
        events.reverse();
        let clients = self.plan.walks.len() as u64;
        while self.ms() < start + 300_000 {
            let now = self.ms();
            while events.last().is_some_and(|e| start + e.at_ms <= now) {
                if let Some(e) = events.pop() {
                    self.record.lock().count(e.event.name(), 1);
                    self.fleet.happen(&e.event);
                }
            }
            for text in self.fleet.keep() {
                self.wrong("MS-8", text);
            }
            if self.record.lock().done >= clients && events.is_empty() && self.fleet.is_quiet() {
                return;
            }
            env::sleep(TICK).await;
        }
        let done = self.record.lock().done;
        self.wrong("MS-6", format!("after 300 s {done} of {clients} clients have done their steps"));
    }

    async fn calm(&mut self, base: &[usize]) {
        self.fleet.heal();
        self.w.set_net(|o| {
            o.link.loss = 0.0;
            o.link.latency_max_ns = 200_000;
            o.window = o.window.max(16 << 10);
        });
        let backlog = if self.plan.options.has(Fault::Slow) { BACKLOG_MS } else { 0 };
        if !self.steady(TOGETHER_MS + backlog).await {
            let counts: Vec<_> = self
                .fleet
                .hosts()
                .iter()
                .map(|h| h.server().and_then(|s| s.cluster.mesh.as_ref().map(|m| m.counts())))
                .collect();
            let text = format!(
                "{} ms after all was mended the servers have (routes, members) {counts:?}, or keep losing them",
                TOGETHER_MS + backlog
            );
            return self.wrong("MS-1", text);
        }
        let clients = self.plan.walks.len() as u64;
        self.phase.send_replace(Phase::Settle);
        if !self.until(30_000, |h| h.record.lock().ready >= clients).await {
            let ready = self.record.lock().ready;
            return self.wrong("MS-6", format!("30 s into the calm {ready} of {clients} clients are served"));
        }
        self.until(INTEREST_MS + backlog, |_| false).await;
        let before = self.connections();
        self.phase.send_replace(Phase::Last);
        self.until(30_000, |h| h.record.lock().ended >= clients).await;
        self.until(INTEREST_MS + backlog, |_| false).await;
        if self.connections() != before {
            // What is on a connection that breaks is lost, as it may be; but nothing breaks it any more.
            self.wrong("MS-1", "a connection between servers broke long after all was mended".into());
        }
        self.phase.send_replace(Phase::Leave);
        let left = |h: &Harness| h.subscriptions();
        if !self.until(10_000, |h| left(h) == base).await {
            let text =
                format!("all have left, but {:?} subscriptions are there, {base:?} at the start", left(self));
            self.wrong("MS-7", text);
        }
        for i in 0..self.plan.options.servers {
            self.fleet.retire(i);
            self.fleet.end(i);
        }
        self.until(10_000, |h| h.fleet.hosts().iter().all(|h| !h.machine.is_running())).await;
        for (i, h) in self.fleet.hosts().iter().enumerate() {
            let code = *h.exit.lock();
            if code != Some(0) {
                self.wrong("MS-8", format!("s{i} told to end ended with {code:?}"));
            }
        }
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
}
