//! Requests of operators in the system account: another leader of the meta group, a server that will not come back.
//!
//! Owns their desk. What they do is the meta group's.

use std::sync::{Arc, Weak};

use broker::{Account, Deliveries, Inbound, Link, Message, Sub};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use stream::{ApiError, errors};

use super::calls::{Call, Reply};
use crate::{
    JetStream,
    account::{API, DESKS, internal},
    api::{Placement, response::Done, text},
    meta::{Command, NotAssigned},
    post::Posts,
};

/// The desk's subscription.
const SID: &[u8] = b"1";
/// How long the meta group's leader may take.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(4);

/// Takes the system account's requests.
pub(crate) struct SystemDesk {
    node: Weak<JetStream>,
    posts: Posts,
    link: Arc<Link>,
}

struct Ear(Weak<SystemDesk>);

impl Inbound for Ear {
    fn deliver(&self, d: &mut Deliveries, _: &Sub, _: &Arc<Link>, m: &Message<'_>) -> bool {
        let Some(desk) = self.0.upgrade() else { return false };
        let Some(node) = desk.node.upgrade().filter(|_| !d.is_trace_only()) else { return false };
        let Some(subject) = m.subject.get(API.len()..).and_then(|s| str::from_utf8(s).ok()) else {
            return false;
        };
        let Some(place) = node.place() else { return true };
        let (subject, reply, body) = (subject.to_owned(), m.reply.to_vec(), m.payload().to_vec());
        env::spawn(async move {
            let answer = node.operate(&subject, &body).await;
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

impl JetStream {
    /// Takes operators' requests in the system account. On a member of a cluster, once.
    pub fn serve_system(self: &Arc<JetStream>, account: &Arc<Account>) {
        if !self.is_clustered() {
            return;
        }
        let mut slot = self.system_desk.lock();
        if slot.is_some() {
            return;
        }
        let desk = Arc::new_cyclic(|me: &Weak<SystemDesk>| {
            let link = internal(self, Some(Box::new(Ear(me.clone()))));
            let posts = Posts::new(self.broker.clone(), link.clone(), account.clone());
            SystemDesk { node: Arc::downgrade(self), posts, link }
        });
        let subscribed = desk.link.subscribe(account, SID, b"$JS.API.>", DESKS, false);
        subscribed.expect("a new link is open and without limits");
        *slot = Some(desk);
    }

    /// Answers a request of an operator; `None` for what is no such request.
    async fn operate(self: &Arc<JetStream>, subject: &str, body: &[u8]) -> Option<Bytes> {
        let read = || match body.iter().all(u8::is_ascii_whitespace) {
            true => Ok(Asked::default()),
            false => serde_json::from_slice::<Asked>(body).map_err(|e| errors::INVALID_JSON.with(e)),
        };
        match subject {
            "META.LEADER.STEPDOWN" => {
                let r = match read() {
                    Ok(a) => self.step_down_meta(a.placement).await,
                    Err(e) => Err(e),
                };
                answer("io.nats.jetstream.api.v1.meta_leader_stepdown_response", r)
            }
            "SERVER.REMOVE" => {
                let r = match read() {
                    Ok(a) => self.remove_server(&a).await,
                    Err(e) => Err(e),
                };
                answer("io.nats.jetstream.api.v1.meta_server_remove_response", r)
            }
            _ => None,
        }
    }

    async fn step_down_meta(self: &Arc<JetStream>, p: Option<Placement>) -> Result<Done, ApiError> {
        let no = |why: &str| errors::CLUSTER_NO_PEERS.with(why);
        let leader = self.meta.leader(self.me).ok_or_else(|| errors::CLUSTER_NOT_AVAIL.error())?;
        let p = p.unwrap_or_default();
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

    async fn remove_server(self: &Arc<JetStream>, asked: &Asked) -> Result<Done, ApiError> {
        if asked.peer.is_empty() && asked.peer_id.is_empty() {
            return Err(errors::BAD_REQUEST.error());
        }
        let called = if asked.peer.is_empty() { &asked.peer_id } else { &asked.peer };
        let node = self.node_called(called).ok_or_else(|| errors::CLUSTER_SERVER_NOT_MEMBER.error())?;
        match self.change_meta(&Command::Remove(node)).await {
            Ok(_) => Ok(Done::YES),
            Err(NotAssigned::Refused(_)) => Err(errors::CLUSTER_SERVER_NOT_MEMBER.error()),
            Err(_) => Err(errors::CLUSTER_NOT_AVAIL.error()),
        }
    }
}
