//! A client of one server: does its steps, reads all the time, and notes what it sent and what came. In the calm it takes part in the last
//! round, in which everything must arrive.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use env::{Instant, sim::World, watch};
use parking_lot::Mutex;

use crate::{
    history::Violation,
    jet::nats::{Lost, Nats, frame},
    wire,
};

use super::plan::{Op, Step};

/// How long a write may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// Where a storm is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Phase {
    /// Steps are done.
    Storm,
    /// The mesh is whole again: all subscribe for the last round.
    Settle,
    /// All publish once more.
    Last,
    /// All leave.
    Leave,
}

/// A subscription.
#[derive(Clone, Debug)]
pub struct Sub {
    /// Whose.
    pub client: u64,
    /// On which connection.
    pub conn: u64,
    /// Pattern.
    pub filter: String,
    /// Queue name, or empty.
    pub queue: String,
    /// When SUB was confirmed by a PONG; none if it never was.
    pub sure_from: Option<u64>,
    /// When it ended, or was about to.
    pub until: Option<u64>,
}

/// A publish.
#[derive(Clone, Debug)]
pub struct Publish {
    /// On which connection.
    pub conn: u64,
    /// Whose.
    pub client: u64,
    /// Subject.
    pub subject: String,
    /// In the last round.
    pub last: bool,
}

/// A delivery.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The subscription, by number.
    pub sub: usize,
    /// The publish, by number; none if the payload is not what anybody sent.
    pub publish: Option<usize>,
    /// Subject.
    pub subject: String,
}

/// What the clients did and saw.
#[derive(Default)]
pub struct Record {
    /// Subscriptions.
    pub subs: Vec<Sub>,
    /// Publishes, in the order in which they were sent.
    pub publishes: Vec<Publish>,
    /// Deliveries, each subscription's in their order.
    pub deliveries: Vec<Delivery>,
    /// Connections so far.
    pub conns: u64,
    /// Clients that have done their steps.
    pub done: u64,
    /// Clients that are ready for the last round, and that have ended it.
    pub ready: u64,
    /// See `ready`.
    pub ended: u64,
    /// Counters.
    pub counts: std::collections::BTreeMap<&'static str, u64>,
    /// What is wrong.
    pub violations: Vec<Violation>,
}

impl Record {
    /// Counts.
    pub fn count(&mut self, what: &'static str, n: u64) {
        *self.counts.entry(what).or_default() += n;
    }
    /// Something is wrong.
    pub fn wrong(&mut self, id: &str, text: String) {
        self.violations.push(Violation::new(id, text));
    }
}

/// A record that many write.
pub type Shared = Arc<Mutex<Record>>;

/// A client.
pub struct Client {
    /// Its number.
    pub id: u64,
    /// Its server.
    pub server: SocketAddr,
    /// What it does.
    pub steps: Vec<Step>,
    /// Where it notes it.
    pub record: Shared,
    /// For the time.
    pub world: World,
    /// Where the storm is.
    pub phase: watch::Receiver<Phase>,
}

struct Conn {
    nats: Nats,
    number: u64,
    /// Its open subscriptions, by number.
    open: Vec<usize>,
}

impl Client {
    fn now(&self) -> u64 {
        self.world.elapsed().as_nanos() as u64
    }

    async fn connect(&self) -> Conn {
        loop {
            let number = {
                let mut r = self.record.lock();
                r.conns += 1;
                r.conns
            };
            if let Some(nats) = Nats::connect(self.server, &format!("m{}-{number}", self.id)).await {
                self.record.lock().count("connections", 1);
                return Conn { nats, number, open: Vec::new() };
            }
            env::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Reads until `end`.
    async fn read(&self, c: &mut Conn, end: Instant) -> Result<(), Lost> {
        while let Some(m) = c.nats.next(end).await? {
            // Its own requests' inbox has sid 1; subscriptions are numbered from 1000.
            let Some(sub) = m.sid.parse::<usize>().ok().and_then(|n| n.checked_sub(1000)) else { continue };
            let publish = wire::publish_of(&m.payload);
            let mut r = self.record.lock();
            r.count("deliveries", 1);
            r.deliveries.push(Delivery { sub, publish, subject: m.subject });
        }
        Ok(())
    }

    async fn subscribe(&self, c: &mut Conn, filter: &str, queue: &str) -> Result<usize, Lost> {
        let n = {
            let mut r = self.record.lock();
            r.count("subscriptions", 1);
            r.subs.push(Sub {
                client: self.id,
                conn: c.number,
                filter: filter.to_owned(),
                queue: queue.to_owned(),
                sure_from: None,
                until: None,
            });
            r.subs.len() - 1
        };
        c.open.push(n);
        let line = format!("SUB {filter} {queue} {}\r\n", n + 1000);
        c.nats.publish_raw(line.as_bytes(), env::now() + PATIENCE).await?;
        Ok(n)
    }

    async fn publish(
        &self,
        c: &mut Conn,
        subject: &str,
        size: usize,
        times: u64,
        last: bool,
    ) -> Result<(), Lost> {
        let mut out = Vec::new();
        {
            let mut r = self.record.lock();
            r.count("publishes", times);
            for _ in 0..times {
                let n = r.publishes.len();
                let (conn, client) = (c.number, self.id);
                r.publishes.push(Publish { conn, client, subject: subject.to_owned(), last });
                frame(&mut out, subject, "", &[], &wire::payload(n, size));
            }
        }
        c.nats.publish_raw(&out, env::now() + PATIENCE).await
    }

    /// Everything sent so far is done at its server; what came meanwhile is noted.
    async fn confirm(&self, c: &mut Conn) -> Result<(), Lost> {
        let end = env::now() + PATIENCE;
        c.nats.publish_raw(b"PING\r\n", end).await?;
        c.nats.pong(end).await?;
        self.read(c, env::now()).await?;
        let now = self.now();
        let mut r = self.record.lock();
        for n in &c.open {
            r.subs[*n].sure_from.get_or_insert(now);
        }
        Ok(())
    }

    fn lost(&self, c: &mut Conn) {
        let now = self.now();
        let mut r = self.record.lock();
        for n in c.open.drain(..) {
            r.subs[n].until = Some(now);
        }
    }

    async fn step(&self, c: &mut Conn, step: &Step) -> Result<(), Lost> {
        self.read(c, env::now() + Duration::from_micros(step.wait_us)).await?;
        match &step.op {
            Op::Sub { filter, queue } => {
                let queue = queue.clone().unwrap_or_default();
                self.subscribe(c, filter, &queue).await.map(drop)
            }
            Op::Unsub { nth } => {
                if c.open.is_empty() {
                    return Ok(());
                }
                let n = c.open.remove(nth % c.open.len());
                self.record.lock().subs[n].until = Some(self.now());
                c.nats.publish_raw(format!("UNSUB {}\r\n", n + 1000).as_bytes(), env::now() + PATIENCE).await
            }
            Op::Pub { subject, size, times } => self.publish(c, subject, *size, *times, false).await,
            Op::Leave => Err(Lost),
        }
    }

    /// Reads on until the storm is in this phase or behind it.
    async fn wait_for(&mut self, c: &mut Conn, phase: Phase) {
        loop {
            if *self.phase.borrow() >= phase {
                return;
            }
            if self.read(c, env::now() + Duration::from_millis(20)).await.is_err() {
                self.lost(c);
                if phase > Phase::Settle {
                    self.record
                        .lock()
                        .wrong("MS-6", format!("client {} lost its connection in the calm", self.id));
                }
                *c = self.connect().await;
            }
        }
    }

    /// Does all steps, and takes part in the calm.
    pub async fn run(mut self) {
        let mut c = self.connect().await;
        for step in std::mem::take(&mut self.steps) {
            if self.step(&mut c, &step).await.is_err() {
                self.lost(&mut c);
                c = self.connect().await;
            }
        }
        self.record.lock().done += 1;
        self.wait_for(&mut c, Phase::Settle).await;
        // All is well now: whoever loses the connection here has been wronged.
        while self.ready(&mut c).await.is_err() {
            self.lost(&mut c);
            c = self.connect().await;
        }
        self.record.lock().ready += 1;
        self.wait_for(&mut c, Phase::Last).await;
        for (subject, times) in
            [("last.a", 3), ("last.b", 3), ("last.q", 5), ("t.a", 1), ("q.a", 2), ("u.a", 1)]
        {
            if self.publish(&mut c, subject, 10, times, true).await.is_err() {
                self.record
                    .lock()
                    .wrong("MS-6", format!("client {} lost its connection in the calm", self.id));
            }
        }
        if self.confirm(&mut c).await.is_err() {
            self.record.lock().wrong("MS-6", format!("client {} got no PONG in the calm", self.id));
        }
        self.record.lock().ended += 1;
        self.wait_for(&mut c, Phase::Leave).await;
    }

    async fn ready(&self, c: &mut Conn) -> Result<(), Lost> {
        self.subscribe(c, "last.*", "").await?;
        self.subscribe(c, "last.q", "lastq").await?;
        self.confirm(c).await
    }
}
