//! What the clients did and saw, in one order: times are virtual nanoseconds of the world, not of a machine's clock.
//!
//! "Confirmed" means that a PONG has come for a PING sent later on the same connection: the server handles the operations
//! of a connection in order, so it had handled this one.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// What was found wrong. The id is an invariant's.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Violation {
    /// The invariant's id.
    pub id: String,
    /// What happened.
    pub text: String,
}

impl Violation {
    /// A violation.
    pub fn new(id: &str, text: String) -> Violation {
        Violation { id: id.to_owned(), text }
    }
}

/// One TCP connection of a client.
#[derive(Clone, Debug, Default)]
pub struct Conn {
    /// Whose.
    pub client: u64,
    /// The server's start that it belongs to.
    pub boot: u64,
    /// The server's number for it, from INFO.
    pub cid: Option<u64>,
    /// When it was opened.
    pub opened_at: u64,
    /// Numbers of operations and the times at which they were confirmed, both rising.
    pub confirms: Vec<(u64, u64)>,
    /// When the client saw its end or ended it.
    pub closed_at: Option<u64>,
    /// When the server was seen to have forgotten it (never before it had).
    pub gone_at: Option<u64>,
    /// -ERR lines.
    pub errors: Vec<String>,
    /// It does not read and does not answer, for ever: the server must close it.
    pub deaf: bool,
    /// What the server must say before it closes it, because of what was sent.
    pub provoked: Option<&'static str>,
    /// Sent something after which the server may close it at any time.
    pub tainted: bool,
    /// The last barrier that was reached after the storm: 2 says that everything published before has come.
    pub barrier: u64,
    /// INFO said that the server goes.
    pub lame_duck: bool,
}

impl Conn {
    /// When the operation was confirmed.
    pub fn confirmed(&self, op: u64) -> Option<u64> {
        let i = self.confirms.partition_point(|c| c.0 < op);
        self.confirms.get(i).map(|c| c.1)
    }
    /// Whether it lived until the end, and everything meant for it has come.
    pub fn survived(&self) -> bool {
        self.barrier >= 2
    }
}

/// From one CONNECT to the next.
#[derive(Clone, Debug)]
pub struct Session {
    /// Its connection.
    pub conn: usize,
    /// Number of the user.
    pub user: usize,
    /// Own messages come back.
    pub echo: bool,
    /// Headers.
    pub headers: bool,
    /// Asks for 503.
    pub no_responders: bool,
    /// Number of the CONNECT among the connection's operations.
    pub op: u64,
    /// When the next CONNECT was sent, and its number.
    pub replaced: Option<(u64, u64)>,
    /// The password was wrong.
    pub refused: bool,
}

/// A subscription.
#[derive(Clone, Debug)]
pub struct Sub {
    /// Its session.
    pub session: usize,
    /// Its sid.
    pub sid: u64,
    /// Subject.
    pub filter: String,
    /// Queue name.
    pub queue: Option<String>,
    /// When it was sent.
    pub sent_at: u64,
    /// Number among the connection's operations.
    pub op: u64,
    /// Time, operation and maximum of UNSUBs, in order.
    pub unsubs: Vec<(u64, u64, u64)>,
    /// The limit of subscriptions may have refused it.
    pub doubtful: bool,
}

/// A publish.
#[derive(Clone, Debug)]
pub struct Pub {
    /// Its session.
    pub session: usize,
    /// When it was sent.
    pub sent_at: u64,
    /// Number among the connection's operations.
    pub op: u64,
    /// Subject.
    pub subject: String,
    /// Reply subject.
    pub reply: String,
    /// Bytes of payload.
    pub size: usize,
    /// Number of the publish that this one answers.
    pub answers: Option<usize>,
    /// The reply subject lies in the own inbox: an answer or 503 is wanted.
    pub request: bool,
}

/// A delivery.
#[derive(Clone, Debug)]
pub struct Msg {
    /// Number of the subscription.
    pub sub: usize,
    /// Number of the publish.
    pub publish: usize,
    /// Subject as delivered.
    pub subject: String,
    /// Reply as delivered.
    pub reply: String,
    /// When it was read.
    pub at: u64,
}

/// A storm's history.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Connections.
    pub conns: Vec<Conn>,
    /// Sessions.
    pub sessions: Vec<Session>,
    /// Subscriptions.
    pub subs: Vec<Sub>,
    /// Publishes; a body names its place here.
    pub pubs: Vec<Pub>,
    /// Deliveries in the order of reading.
    pub msgs: Vec<Msg>,
    /// Publishes that were answered with 503, how often.
    pub unserved: BTreeMap<usize, u64>,
    /// How many answers with 503 came to a subscription; they count for its maximum.
    pub unserved_to: BTreeMap<usize, u64>,
    /// Clients that have done all their steps, or are dead.
    pub done: BTreeSet<u64>,
    /// Clients whose machine died.
    pub dead: BTreeSet<u64>,
    /// Seen by a client, or on line.
    pub violations: Vec<Violation>,
    /// From then on nothing was published but answers and what the harness checks with.
    pub settled_at: u64,
    /// Counted for the report.
    pub counts: BTreeMap<&'static str, u64>,
}

/// A history that clients, server and harness share.
pub type Shared = Arc<Mutex<History>>;

impl History {
    /// Counts something.
    pub fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }
    /// The connection of a session.
    pub fn conn_of(&self, session: usize) -> &Conn {
        &self.conns[self.sessions[session].conn]
    }
    /// When a publish was certainly handled.
    pub fn pub_confirmed(&self, p: &Pub) -> Option<u64> {
        self.conn_of(p.session).confirmed(p.op)
    }
    /// Whether the subscription was in force all the time from `from` until the end, and everything meant for it has come.
    pub fn surely_live(&self, s: &Sub, from: u64) -> bool {
        let session = &self.sessions[s.session];
        let conn = &self.conns[session.conn];
        conn.survived()
            && !session.refused
            && !s.doubtful
            && session.replaced.is_none()
            && s.unsubs.is_empty()
            && conn.confirmed(s.op).is_some_and(|t| t < from)
    }
    /// Whether the subscription can have been in force at some time from `from` to `to`.
    pub fn maybe_live(&self, s: &Sub, from: u64, to: u64) -> bool {
        let session = &self.sessions[s.session];
        let conn = &self.conns[session.conn];
        let over = [
            s.unsubs.iter().filter(|u| u.2 == 0).find_map(|u| conn.confirmed(u.1)),
            session.replaced.and_then(|r| conn.confirmed(r.1)),
            conn.gone_at,
        ];
        let over = over.into_iter().flatten().min();
        !session.refused && s.sent_at < to && over.is_none_or(|t| from <= t)
    }
}
