//! What an account asks about itself, given on to the other servers of the cluster: who asks one server means all of them.
//!
//! The others are asked in the system account, where the subject names the account (Y-2), and answer to an inbox of this server's. What comes
//! there goes on to whoever asked.

use std::{
    collections::VecDeque,
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};

use broker::{Account, Deliveries, Inbound, Link, LinkFlags, Message, Sub};
use parking_lot::Mutex;

use super::{encode::Coding, internal, publish, send};
use crate::Server;

/// How long answers of others are given on; nobody waits longer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Questions that wait for answers at a time (Y-3).
const WAITING_MAX: usize = 4096;

/// A question that others have been asked.
struct Waiting {
    token: String,
    account: Weak<Account>,
    reply: Vec<u8>,
    until: env::Instant,
}

/// What this server has asked of others.
#[derive(Default)]
pub(super) struct Relay {
    /// Who asks. What it says is a request, other than what the server publishes else (B-11).
    link: OnceLock<Arc<Link>>,
    /// In the order of their ends.
    waiting: Mutex<VecDeque<Waiting>>,
}

impl Relay {
    /// Whether `link` is the one that asks: this server has answered already.
    pub fn asks_by(&self, link: &Link) -> bool {
        self.link.get().is_some_and(|l| l.id == link.id)
    }
    fn wait_for(&self, w: Waiting) -> bool {
        let mut waiting = self.waiting.lock();
        let now = env::now();
        while waiting.front().is_some_and(|w| w.until <= now) {
            waiting.pop_front();
        }
        let room = waiting.len() < WAITING_MAX;
        if room {
            waiting.push_back(w);
        }
        room
    }
    /// Who asked, if that is known still.
    fn asker(&self, token: &[u8]) -> Option<(Arc<Account>, Vec<u8>)> {
        let now = env::now();
        let waiting = self.waiting.lock();
        let w = waiting.iter().find(|w| w.token.as_bytes() == token && w.until > now)?;
        Some((w.account.upgrade()?, w.reply.clone()))
    }
}

struct Ear(Weak<Server>);

impl Inbound for Ear {
    fn serves(&self) -> bool {
        true
    }
    fn listens(&self, _: &[u8]) -> bool {
        false
    }
    fn deliver(&self, _: &mut Deliveries, _: &Sub, _: &Arc<Link>, m: &Message<'_>) -> bool {
        let Some(server) = self.0.upgrade() else { return false };
        let token = subject::tokens(m.subject).last().unwrap_or_default();
        let Some((account, reply)) = server.events.relay.asker(token) else { return false };
        let (head, body) = (m.header().to_vec(), m.payload().to_vec());
        env::spawn(async move {
            publish(&server, &account, &reply, &head, &body);
        });
        true
    }
}

fn inbox(server: &Server, token: &str) -> String {
    format!("$SYS._INBOX.{}.{token}", server.id())
}

/// Begins to listen for answers in the system account.
pub(super) fn start(server: &Arc<Server>, system: &Arc<Account>) {
    let link = internal(&server.broker, Some(Box::new(Ear(Arc::downgrade(server)))));
    link.set_flags(LinkFlags::ECHO);
    link.subscribe(system, b"1", inbox(server, "*").as_bytes(), b"", false)
        .expect("a new link is open and without limits");
    server.events.relay.link.set(link).ok();
}

/// Whether a name can be a token of a subject that means this account and nothing else.
fn is_plain(account: &str) -> bool {
    let name = account.as_bytes();
    account != "PING" && !account.contains('.') && subject::is_literal(name) && subject::is_strict(name)
}

/// Asks the other servers, if there are any, under `subject` in the system account.
pub(super) fn give_on(
    server: &Server,
    account: &Arc<Account>,
    subject: &str,
    reply: &[u8],
    body: &[u8],
    coding: Coding,
) {
    let others = server.cluster.mesh.as_ref().map_or(0, |m| m.counts().1);
    let (Some(system), Some(link)) = (server.events.system(), server.events.relay.link.get()) else { return };
    if others == 0 || !is_plain(&account.name) {
        return;
    }
    let token = server.events.id();
    let inbox = inbox(server, &token);
    let until = env::now() + PATIENCE;
    let w = Waiting { token, account: Arc::downgrade(account), reply: reply.to_vec(), until };
    if !server.events.relay.wait_for(w) {
        return server.events.dropped.add(1);
    }
    let mut d = Deliveries::new(server.broker.clone(), link.id);
    send(&mut d, &system, link, (subject.as_bytes(), inbox.as_bytes()), &coding.ask(), body);
}

#[cfg(test)]
mod tests {
    use super::is_plain;

    #[test]
    fn y2_names_that_would_mean_others_are_not_given_on() {
        assert!(["A", "$G", "a-b"].into_iter().all(is_plain));
        assert!(!["PING", "A.B", "*", ">", "", "A B", "A\tB"].into_iter().any(is_plain));
    }
}
