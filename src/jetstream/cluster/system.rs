//! Requests of operators in the system account: another leader of the meta group, a server that will not come back or is to be emptied, a stream that
//! is to be elsewhere, a cluster of which most is gone.
//!
//! Owns their desk. What they do is the meta group's.

use std::sync::{Arc, Weak};

use broker::{Account, Deliveries, Inbound, Link, Message, Sub};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use stream::{ApiError, errors};

use replica::NodeId;

use super::{
    ask::GRACE,
    calls::{Call, Reply},
};
use crate::{
    JetStream,
    account::{API, DESKS, imports_api, internal},
    advisory,
    api::{
        self, Placement,
        event::Event,
        response::{Done, StreamInfo},
        strict::looks_like_json,
        text,
    },
    handlers::{Desk, info::dressed},
    leading::CONFIRM,
    meta::{Assigned, Command, NotAssigned},
    post::Posts,
};

/// The desk's subscription.
const SID: &[u8] = b"1";
/// How long the meta group's leader may take.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(4);

/// Takes the system account's requests.
pub(crate) struct SystemDesk {
    node: Weak<JetStream>,
    account: Arc<Account>,
    posts: Posts,
    link: Arc<Link>,
}

impl SystemDesk {
    /// Takes no requests any more.
    pub(crate) fn close(&self) {
        self.link.unsubscribe_all(Some(&self.account));
    }
}

struct Ear(Weak<SystemDesk>);

impl Inbound for Ear {
    fn serves(&self) -> bool {
        true
    }
    fn listens(&self, _: &[u8]) -> bool {
        false
    }
    fn deliver(&self, d: &mut Deliveries, _: &Sub, _: &Arc<Link>, m: &Message<'_>) -> bool {
        let Some(desk) = self.0.upgrade() else { return false };
        let Some(node) = desk.node.upgrade().filter(|_| !d.is_trace_only()) else { return false };
        let Some(subject) = m.subject.get(API.len()..).and_then(|s| str::from_utf8(s).ok()) else {
            return false;
        };
        let Some(place) = node.place() else { return true };
        let (subject, reply, body) = (subject.to_owned(), m.reply.to_vec(), m.payload().to_vec());
        env::spawn(async move {
            let answer = node.operate(&subject, &body).await.or_else(|| {
                // Unless it asks an account that has some.
                if imports_api(&desk.account) { None } else { no_streams(&subject) }
            });
            if let Some(answer) = answer.filter(|_| !reply.is_empty()) {
                desk.posts.take().plain(&reply, &answer);
            }
            drop(place);
        });
        true
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Asked {
    placement: Option<Placement>,
    peer: String,
    peer_id: String,
    /// The server that a stream is to leave.
    server: String,
    /// The cluster that it is to be in.
    cluster: String,
    /// The tags that its servers are to have.
    tags: Vec<String>,
}

impl Asked {
    /// What is no JSON at all is taken for nothing where nothing has to be said, as nats-server does.
    fn read_if_json(body: &[u8]) -> Result<Asked, ApiError> {
        Asked::read(if looks_like_json(body) { body } else { b"" })
    }
    fn read(body: &[u8]) -> Result<Asked, ApiError> {
        match body.iter().all(u8::is_ascii_whitespace) {
            true => Ok(Asked::default()),
            false => serde_json::from_slice::<Asked>(body).map_err(|e| errors::INVALID_JSON.with(e)),
        }
    }
    /// The server that is meant.
    fn node(&self, node: &JetStream) -> Result<NodeId, ApiError> {
        let called = if self.peer.is_empty() { &self.peer_id } else { &self.peer };
        if called.is_empty() {
            return Err(errors::BAD_REQUEST.error());
        }
        // Of two of one name the one that is gone is meant.
        node.nodes_called(called).last().copied().ok_or_else(|| errors::CLUSTER_SERVER_NOT_MEMBER.error())
    }
    /// K-13: the server that is meant, now that this node knows all of them: who bore the name when the request came, if it knew somebody `then`. One that took
    /// the name of a server that is gone, while this node waited for news, is not meant.
    fn node_since(&self, then: Option<NodeId>, node: &JetStream) -> Result<NodeId, ApiError> {
        match then {
            Some(n) if node.meta.read(|s| s.nodes().contains_key(&n)) => Ok(n),
            Some(_) => Err(errors::CLUSTER_SERVER_NOT_MEMBER.error()),
            None => self.node(node),
        }
    }
}

#[derive(Serialize)]
struct Answer<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a ApiError>,
    #[serde(flatten)]
    done: Done,
}

fn answer(kind: &'static str, r: Result<Done, ApiError>) -> Option<Bytes> {
    let (error, done) = match &r {
        Ok(done) => (None, *done),
        Err(e) => (Some(e), Done::default()),
    };
    Some(text::to_bytes(&Answer { kind, error, done }))
}

/// What the system account is told of whatever it cannot ask: it has no streams.
fn no_streams(subject: &str) -> Option<Bytes> {
    let e = errors::NOT_ENABLED_FOR_ACCOUNT.error();
    match subject {
        // Operators' requests that a server alone does not know.
        RESCUE | STEP_DOWN | REMOVE => None,
        _ if Order::of(subject).is_some() => None,
        "INFO" => Some(api::failure(api::Kind::AccountInfo, &e)),
        _ => answer("io.nats.jetstream.api.v1.system_response", Err(e)),
    }
}

/// Requests of operators that any server carries out.
const RESCUE: &str = "META.RESCUE";
const STEP_DOWN: &str = "META.LEADER.STEPDOWN";
const REMOVE: &str = "SERVER.REMOVE";
/// What the request to end all streams of an account begins with.
const PURGE: &str = "ACCOUNT.PURGE.";
/// How its answer is called.
const PURGED: &str = "io.nats.jetstream.api.v1.account_purge_response";
/// How a refused evacuation is called.
const EVACUATED: &str = "io.nats.jetstream.api.v1.meta_server_evacuate_response";
/// Pause before the leader is looked for again although nothing was heard to change.
const AGAIN: std::time::Duration = std::time::Duration::from_millis(50);

/// An answer with something in it.
#[derive(Serialize)]
struct Said<T> {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(flatten)]
    done: T,
}

#[derive(Serialize)]
struct Initiated {
    initiated: bool,
}

/// What only the leader of the meta group carries out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Order<'a> {
    Evacuate,
    Move { account: &'a str, stream: &'a str },
    CancelMove { account: &'a str, stream: &'a str },
    Purge { account: &'a str },
}

impl<'a> Order<'a> {
    fn of(subject: &'a str) -> Option<Order<'a>> {
        if subject == "SERVER.EVACUATE" {
            return Some(Order::Evacuate);
        }
        if let Some(account) = subject.strip_prefix(PURGE) {
            return (!account.is_empty() && !account.contains('.')).then_some(Order::Purge { account });
        }
        let names = |prefix: &str| {
            let (account, stream) = subject.strip_prefix(prefix)?.split_once('.')?;
            (!account.is_empty() && !stream.is_empty() && !stream.contains('.')).then_some((account, stream))
        };
        if let Some((account, stream)) = names("ACCOUNT.STREAM.MOVE.") {
            return Some(Order::Move { account, stream });
        }
        names("ACCOUNT.STREAM.CANCEL_MOVE.").map(|(account, stream)| Order::CancelMove { account, stream })
    }
    fn refused(self, e: &ApiError) -> Option<Bytes> {
        match self {
            Order::Evacuate => answer(EVACUATED, Err(e.clone())),
            Order::Purge { .. } => answer(PURGED, Err(e.clone())),
            Order::Move { .. } | Order::CancelMove { .. } => Some(api::failure(self.kind(), e)),
        }
    }
    /// How its answer is called where it is a stream's info.
    fn kind(self) -> api::Kind {
        if matches!(self, Order::CancelMove { .. }) {
            api::Kind::StreamCancelMove
        } else {
            api::Kind::StreamUpdate
        }
    }
}

impl JetStream {
    /// Whether anybody in the system account listens to a subject.
    pub(super) fn is_heard_in_system(&self, subject: &str) -> bool {
        self.system_desk.lock().as_ref().is_some_and(|d| d.posts.has_interest(subject.as_bytes()))
    }
    /// Tells the system account of an event.
    pub(super) fn tell_system(&self, e: &Event<'_>) {
        let Some(desk) = self.system_desk.lock().clone() else { return };
        advisory::send(self, &desk.posts, e);
    }

    /// Takes operators' requests in the system account, which has no streams. Once. A server alone knows of one only.
    pub fn serve_system(self: &Arc<JetStream>, account: &Arc<Account>) {
        let mut slot = self.system_desk.lock();
        if slot.is_some() {
            return;
        }
        let desk = Arc::new_cyclic(|me: &Weak<SystemDesk>| {
            let link = internal(self, Some(Box::new(Ear(me.clone()))));
            let posts = Posts::new(self.broker.clone(), link.clone(), account.clone());
            SystemDesk { node: Arc::downgrade(self), account: account.clone(), posts, link }
        });
        let queue = if self.is_clustered() { DESKS } else { b"" };
        let subscribed = desk.link.subscribe(account, SID, b"$JS.API.>", queue, false);
        subscribed.expect("a new link is open and without limits");
        *slot = Some(desk);
    }

    /// Answers a request of an operator; `None` for what is no such request.
    pub(super) async fn operate(self: &Arc<JetStream>, subject: &str, body: &[u8]) -> Option<Bytes> {
        let read = || Asked::read(body);
        match subject {
            RESCUE | STEP_DOWN | REMOVE if !self.is_clustered() => None,
            RESCUE => {
                let kind = "io.nats.jetstream.api.v1.meta_rescue_response";
                match self.rescue(body).await {
                    Ok(done) => Some(text::to_bytes(&Said { kind, done })),
                    Err(e) => answer(kind, Err(e)),
                }
            }
            STEP_DOWN => {
                let r = match Asked::read_if_json(body) {
                    Ok(a) => self.step_down_meta(a.placement).await,
                    Err(e) => Err(e),
                };
                answer("io.nats.jetstream.api.v1.meta_leader_stepdown_response", r)
            }
            REMOVE => {
                let r = match read() {
                    Ok(a) => self.remove_server(&a).await,
                    Err(e) => Err(e),
                };
                answer("io.nats.jetstream.api.v1.meta_server_remove_response", r)
            }
            _ if !self.is_clustered() => match Order::of(subject)? {
                Order::Purge { account } => Some(self.purge_account(account).await),
                _ => None,
            },
            _ => self.operate_at_leader(subject, body).await,
        }
    }

    /// Every stream ends that an account has, whether or not there still is such an account.
    async fn purge_account(self: &Arc<JetStream>, name: &str) -> Bytes {
        let streams = self.meta.of_account(name);
        if !streams.is_empty() {
            let assets = self.assets(&self.broker.account_or_new(name));
            let desk = Desk { node: self, assets: &assets, asked: &crate::account::Asked::default() };
            for a in streams {
                if let Err(e) = desk.delete_stream(&a.a.name).await {
                    let text = format!("Stream '{name} > {}' is not purged with its account: {e}", a.a.name);
                    self.host.log("WRN", &text);
                }
            }
        }
        text::to_bytes(&Said { kind: PURGED, done: Initiated { initiated: true } })
    }

    /// Has a request answered by the leader of the meta group.
    async fn operate_at_leader(self: &Arc<JetStream>, subject: &str, body: &[u8]) -> Option<Bytes> {
        let order = Order::of(subject)?;
        let c = self.cluster.clone()?;
        let until = env::now() + GRACE;
        loop {
            let mut changes = c.changed.subscribe();
            match self.meta.leader(self.me) {
                Some(n) if n == self.me => return self.operate_here(subject, body).await,
                Some(n) => {
                    let call = Call::Operate {
                        subject: Bytes::copy_from_slice(subject.as_bytes()),
                        body: Bytes::copy_from_slice(body),
                    };
                    if let Some(Reply::Json(b)) = c.calls.call(&*c.wires, n, &call, PATIENCE).await {
                        return Some(b);
                    }
                }
                None => {}
            }
            if env::now() >= until {
                return order.refused(&errors::CLUSTER_NOT_AVAIL.error());
            }
            env::timeout(AGAIN, changes.changed()).await.ok();
        }
    }

    /// Answers on the leader of the meta group.
    pub(crate) async fn operate_here(self: &Arc<JetStream>, subject: &str, body: &[u8]) -> Option<Bytes> {
        let order = Order::of(subject)?;
        let asked = match Asked::read(body) {
            Ok(asked) => asked,
            Err(e) => return order.refused(&e),
        };
        let then = asked.node(self).ok();
        if self.servers_known().await.is_err() || !self.meta.leads() {
            return order.refused(&errors::CLUSTER_NOT_AVAIL.error());
        }
        let done = match order {
            Order::Evacuate => {
                let done = match asked.node_since(then, self) {
                    Ok(out) => self.evacuate(out).await,
                    Err(e) => Err(e),
                };
                return answer(EVACUATED, done);
            }
            Order::Move { account, stream } => self.move_stream(account, stream, &asked).await,
            Order::CancelMove { account, stream } => self.cancel_move_of(account, stream).await,
            Order::Purge { account } => return Some(self.purge_account(account).await),
        };
        match done {
            Ok(info) => Some(api::success(order.kind(), &info)),
            Err(e) => order.refused(&e),
        }
    }

    /// Everything leaves a server, as far as there are others. It stays a member, and gets nothing new before it comes again.
    async fn evacuate(self: &Arc<JetStream>, out: NodeId) -> Result<Done, ApiError> {
        if let Some(c) = &self.cluster {
            c.evacuated.lock().insert(out);
        }
        let all: Vec<Arc<Assigned>> =
            self.meta.read(|s| s.assignments().filter(|a| a.a.members.contains(&out)).cloned().collect());
        let mut failed = None;
        for a in all {
            let account = self.broker.account_or_new(&a.a.account);
            let assets = self.assets(&account);
            let _one = assets.making.turn(&a.a.name).await;
            // It may have changed meanwhile.
            let Some(a) = self.meta.read(|s| s.get(a.a.id).cloned()).filter(|a| a.a.members.contains(&out))
            else {
                continue;
            };
            if let Err(e) = self.without(&a, out).await {
                failed.get_or_insert(e);
            }
        }
        failed.map_or(Ok(Done::YES), Err)
    }

    /// A stream leaves a server, or goes where it is wanted.
    async fn move_stream(
        self: &Arc<JetStream>,
        account: &str,
        stream: &str,
        asked: &Asked,
    ) -> Result<StreamInfo, ApiError> {
        if self.broker.account(account).is_none() && self.meta.of_account(account).is_empty() {
            return Err(errors::NO_ACCOUNT.error());
        }
        let a = {
            let assets = self.assets(&self.broker.account_or_new(account));
            let _one = assets.making.turn(stream).await;
            let a = self.meta.find(account, stream).ok_or_else(|| errors::STREAM_NOT_FOUND.error())?;
            if !a.a.leaving.is_empty() {
                return Err(errors::STREAM_MOVE_IN_PROGRESS.error());
            }
            let elsewhere = asked.cluster.is_empty() && asked.tags.is_empty();
            let out = match asked.server.is_empty() {
                // Who does not say what for wants it on other servers.
                true if elsewhere => a.a.members.clone(),
                true => Vec::new(),
                false => {
                    let nodes = self.nodes_called(&asked.server);
                    if nodes.is_empty() {
                        return Err(errors::CLUSTER_SERVER_NOT_MEMBER.error());
                    }
                    let node = nodes.into_iter().find(|n| a.a.members.contains(n));
                    vec![node.ok_or_else(|| errors::CLUSTER_PEER_NOT_MEMBER.error())?]
                }
            };
            let wanted = Placement {
                cluster: asked.cluster.clone(),
                tags: asked.tags.clone(),
                ..Placement::default()
            };
            self.place_anew(&a, &out, &wanted).await?;
            a
        };
        self.settle(a.a.id, a.a.config.clone()).await.map(dressed)
    }

    async fn cancel_move_of(
        self: &Arc<JetStream>,
        account: &str,
        stream: &str,
    ) -> Result<StreamInfo, ApiError> {
        let assets = self.assets(&self.broker.account_or_new(account));
        let a = {
            let _one = assets.making.turn(stream).await;
            self.stay(account, stream).await?
        };
        self.settle(a.a.id, a.a.config.clone()).await.map(dressed)
    }

    async fn step_down_meta(self: &Arc<JetStream>, p: Option<Placement>) -> Result<Done, ApiError> {
        let no = |why: &str| errors::CLUSTER_NO_PEERS.with(why);
        let leader = self.meta.leader(self.me).ok_or_else(|| errors::CLUSTER_NOT_AVAIL.error())?;
        let p = p.unwrap_or_default();
        if !p.preferred.is_empty() || !p.tags.is_empty() {
            self.servers_known().await?;
        }
        let own = self.cluster.as_ref().map(|c| c.name.clone()).unwrap_or_default();
        if !p.cluster.is_empty() && p.cluster != own {
            return Err(no("no replacement peer connected"));
        }
        if !p.preferred.is_empty() {
            match self.node_called(&p.preferred) {
                None => return Err(no(&format!("preferred server {:?} not known", p.preferred))),
                Some(n) if n == leader => {
                    return Err(no(&format!("preferred server {:?} is already leader", p.preferred)));
                }
                Some(_) => {}
            }
        }
        let fits = |n: &&crate::meta::Node| {
            n.id != leader
                && (p.preferred.is_empty() || *n.name == *p.preferred)
                && p.tags.iter().all(|t| n.tags.iter().any(|own| own.eq_ignore_ascii_case(t)))
        };
        let wanted = match p.preferred.is_empty() && p.tags.is_empty() {
            true => None,
            false => {
                let found = self.meta.read(|s| s.nodes().values().find(fits).map(|n| n.id));
                Some(found.ok_or_else(|| no("no replacement peer connected"))?)
            }
        };
        if leader == self.me {
            return match self.hand_over_meta(wanted) {
                true => Ok(Done::YES),
                false => Err(errors::CLUSTER_NOT_AVAIL.error()),
            };
        }
        let c = self.cluster.as_ref().ok_or_else(|| errors::CLUSTER_NOT_AVAIL.error())?;
        match c.calls.call(&*c.wires, leader, &Call::MetaStepDown(wanted), PATIENCE).await {
            Some(Reply::Done(_)) => Ok(Done::YES),
            _ => Err(errors::CLUSTER_NOT_AVAIL.error()),
        }
    }

    /// Returns when what this node knows of the servers is all that was decided before the call (K-10): after a start it knows none of them until it has
    /// heard how far the log goes.
    ///
    /// # Errors
    /// Nobody says so in time.
    async fn servers_known(&self) -> Result<(), ApiError> {
        let until = env::now() + GRACE;
        loop {
            if let Some(h) = self.meta.handle()
                && h.confirm(CONFIRM).await.is_ok()
            {
                return Ok(());
            }
            if env::now() >= until {
                return Err(errors::CLUSTER_NOT_AVAIL.error());
            }
            env::sleep(AGAIN).await;
        }
    }

    async fn remove_server(self: &Arc<JetStream>, asked: &Asked) -> Result<Done, ApiError> {
        let then = asked.node(self).ok();
        self.servers_known().await?;
        let node = asked.node_since(then, self)?;
        match self.change_meta(&Command::Remove(node)).await {
            Ok(_) => Ok(Done::YES),
            Err(NotAssigned::Refused(_)) => Err(errors::CLUSTER_SERVER_NOT_MEMBER.error()),
            Err(_) => Err(errors::CLUSTER_NOT_AVAIL.error()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_name_what_they_are_about() {
        let (account, stream) = ("A", "S");
        assert_eq!(Order::of("SERVER.EVACUATE"), Some(Order::Evacuate));
        assert_eq!(Order::of("ACCOUNT.STREAM.MOVE.A.S"), Some(Order::Move { account, stream }));
        assert_eq!(Order::of("ACCOUNT.STREAM.CANCEL_MOVE.A.S"), Some(Order::CancelMove { account, stream }));
        for other in
            ["ACCOUNT.STREAM.MOVE.A", "ACCOUNT.STREAM.MOVE..S", "ACCOUNT.STREAM.MOVE.A.S.T", "STREAM.INFO.S"]
        {
            assert_eq!(Order::of(other), None, "{other}");
        }
    }

    #[test]
    fn the_system_account_is_told_that_it_has_no_streams() {
        let said = |subject| no_streams(subject).map(|b| String::from_utf8_lossy(&b).into_owned());
        let error =
            r#""error":{"code":503,"err_code":10039,"description":"JetStream not enabled for account"}"#;
        let of = |kind: &str| Some(format!(r#"{{"type":"io.nats.jetstream.api.v1.{kind}_response",{error}"#));
        for (subject, kind) in [("INFO", "account_info"), ("STREAM.NAMES", "system"), ("X.Y", "system")] {
            let begins = said(subject).map(|s| s.chars().take(of(kind).map_or(0, |w| w.len())).collect());
            assert_eq!(begins, of(kind), "{subject}");
        }
        for subject in [RESCUE, STEP_DOWN, REMOVE, "SERVER.EVACUATE", "ACCOUNT.STREAM.MOVE.A.S"] {
            assert_eq!(said(subject), None, "{subject}");
        }
    }
}
