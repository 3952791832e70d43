//! Advisories and metrics: what JetStream tells about itself.
//!
//! Owns their subjects and texts. Does not decide when one is due, who may hear it, or where ids and times come from.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::response::{PeerInfo, StreamState};
use super::text::to_bytes;
use super::time::Time;

/// What stands before the subjects of advisories.
pub const ADVISORY: &str = "$JS.EVENT.ADVISORY";
/// What stands before the subjects of metrics.
pub const METRIC: &str = "$JS.EVENT.METRIC";

/// Who asked, as far as advisories tell.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ClientInfo {
    /// Since when it is connected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<Time>,
    /// From where.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub host: String,
    /// Its number on its server.
    #[serde(skip_serializing_if = "is_zero")]
    pub id: u64,
    /// Its account.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub acc: String,
    /// The account whose service it uses.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub svc: String,
    /// Its user.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// The name that it gave itself.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The language of its library.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub lang: String,
    /// The version of its library.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub ver: String,
    /// The way there and back, in nanoseconds.
    #[serde(skip_serializing_if = "is_zero")]
    pub rtt: u64,
    /// Its server's name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub server: String,
    /// Its server's cluster.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cluster: String,
    /// When it left.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop: Option<Time>,
    /// The key that issued its user.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub issuer_key: String,
    /// The name tag of its user.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name_tag: String,
    /// The tags of its user.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// What kind of connection it is: `Client`, `Leafnode`, …
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// What kind of client it is: `nats`, `mqtt`, `websocket`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub client_type: String,
    /// Its MQTT id.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub client_id: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it by reference")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// What an action did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It made something.
    Create,
    /// It changed something.
    Modify,
    /// It removed something.
    Delete,
}

/// Why a batch was given up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Abandoned {
    /// Nothing came for too long.
    Timeout,
    /// It had too many messages.
    Large,
    /// A message was missing.
    Incomplete,
    /// Its commit was refused.
    Unsupported,
}

/// Why a client is no longer pinned.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Unpinned {
    /// Somebody asked for it.
    Admin,
    /// It was silent for too long.
    Timeout,
}

/// A consumer and its stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Who<'a> {
    /// The stream.
    pub stream: &'a str,
    /// The consumer.
    pub consumer: &'a str,
}

/// A delivery, as advisories tell of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Delivery {
    /// The consumer's count of deliveries at it.
    pub consumer_seq: u64,
    /// The message.
    pub stream_seq: u64,
}

/// Something to tell.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Event<'a> {
    /// An API request was answered.
    Api {
        /// This server.
        server: &'a str,
        /// Who asked.
        client: &'a ClientInfo,
        /// Under which subject.
        subject: &'a str,
        /// The body.
        request: &'a str,
        /// The answer.
        response: &'a str,
    },
    /// API requests were dropped: too many waited.
    ApiLimit {
        /// This server.
        server: &'a str,
        /// How many.
        dropped: u64,
    },
    /// A stream was made, changed or removed.
    Stream {
        /// The stream.
        stream: &'a str,
        /// What happened to it.
        action: Action,
    },
    /// A consumer was made or removed.
    Consumer {
        /// The consumer.
        who: Who<'a>,
        /// What happened to it.
        action: Action,
    },
    /// A consumer was paused or resumed.
    Pause {
        /// The consumer.
        who: Who<'a>,
        /// Whether it is paused now.
        paused: bool,
        /// Until when; [`Time::ZERO`] if it is not.
        until: Time,
    },
    /// A client was pinned.
    Pinned {
        /// The account.
        account: &'a str,
        /// The consumer.
        who: Who<'a>,
        /// The priority group.
        group: &'a str,
        /// The client's id.
        id: &'a str,
    },
    /// A client is pinned no longer.
    Unpinned {
        /// The account.
        account: &'a str,
        /// The consumer.
        who: Who<'a>,
        /// The priority group.
        group: &'a str,
        /// Why.
        reason: Unpinned,
    },
    /// A message will not be delivered again.
    MaxDeliver {
        /// The consumer.
        who: Who<'a>,
        /// The message.
        stream_seq: u64,
        /// How often it was delivered.
        deliveries: u64,
    },
    /// A message was refused.
    Nak {
        /// The consumer.
        who: Who<'a>,
        /// The delivery.
        delivery: Delivery,
        /// How often it was delivered.
        deliveries: u64,
    },
    /// A message was given up.
    Terminated {
        /// The consumer.
        who: Who<'a>,
        /// The delivery.
        delivery: Delivery,
        /// How often it was delivered.
        deliveries: u64,
        /// Why, if it was said.
        reason: &'a str,
    },
    /// A message was acknowledged (metric).
    Acked {
        /// The consumer.
        who: Who<'a>,
        /// The delivery.
        delivery: Delivery,
        /// Nanoseconds from delivery to ack.
        ack_time: i64,
        /// How often it was delivered.
        deliveries: u64,
    },
    /// A backup began.
    SnapshotCreate {
        /// The stream.
        stream: &'a str,
        /// What it holds.
        state: &'a StreamState,
        /// Who asked.
        client: &'a ClientInfo,
    },
    /// A backup ended.
    SnapshotComplete {
        /// The stream.
        stream: &'a str,
        /// When it began.
        start: Time,
        /// When it ended.
        end: Time,
        /// Who asked.
        client: &'a ClientInfo,
        /// What went wrong; empty if nothing.
        error: &'a str,
    },
    /// A restore began.
    RestoreCreate {
        /// The stream.
        stream: &'a str,
        /// Who asked.
        client: &'a ClientInfo,
    },
    /// A restore ended.
    RestoreComplete {
        /// The stream.
        stream: &'a str,
        /// When it began.
        start: Time,
        /// When it ended.
        end: Time,
        /// How many bytes came.
        bytes: u64,
        /// Who asked.
        client: &'a ClientInfo,
    },
    /// A batch was given up.
    BatchAbandoned {
        /// The stream.
        stream: &'a str,
        /// The batch's id.
        batch: &'a str,
        /// Why.
        reason: Abandoned,
    },
    /// A domain has a new leader.
    DomainLeader {
        /// The leader.
        leader: &'a str,
        /// The members.
        replicas: &'a [PeerInfo],
        /// The cluster.
        cluster: &'a str,
    },
    /// A stream has a new leader.
    StreamLeader {
        /// The account.
        account: &'a str,
        /// The stream.
        stream: &'a str,
        /// The leader.
        leader: &'a str,
        /// The members.
        replicas: &'a [PeerInfo],
    },
    /// A stream has lost its majority.
    StreamQuorumLost {
        /// The account.
        account: &'a str,
        /// The stream.
        stream: &'a str,
        /// The members.
        replicas: &'a [PeerInfo],
    },
    /// A consumer has a new leader.
    ConsumerLeader {
        /// The account.
        account: &'a str,
        /// The consumer.
        who: Who<'a>,
        /// The leader.
        leader: &'a str,
        /// The members.
        replicas: &'a [PeerInfo],
    },
    /// A consumer has lost its majority.
    ConsumerQuorumLost {
        /// The account.
        account: &'a str,
        /// The consumer.
        who: Who<'a>,
        /// The members.
        replicas: &'a [PeerInfo],
    },
    /// A server has no room left.
    OutOfStorage {
        /// The server.
        server: &'a str,
        /// Its id.
        server_id: &'a str,
        /// The stream that met it; empty if none.
        stream: &'a str,
        /// The cluster.
        cluster: &'a str,
    },
    /// Messages of a stream cannot be read here. An event of our own: the original has none.
    StreamDamaged {
        /// The account.
        account: &'a str,
        /// The stream.
        stream: &'a str,
        /// The server that has the damage.
        server: &'a str,
        /// The first and the last message that it may have hit, if that is known.
        messages: Option<(u64, u64)>,
        /// What was found.
        what: &'a str,
    },
    /// A server was removed from the cluster.
    ServerRemoved {
        /// The server.
        server: &'a str,
        /// Its id.
        server_id: &'a str,
        /// The cluster.
        cluster: &'a str,
    },
}

/// Everything that any event has. Each fills in its own; the order is that of the original in each.
#[derive(Serialize, Default)]
struct Body<'a> {
    #[serde(rename = "type")]
    kind: String,
    id: &'a str,
    timestamp: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_id: Option<&'a str>,
    #[serde(rename = "client", skip_serializing_if = "Option::is_none")]
    asker: Option<&'a ClientInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    account: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    consumer: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    action: Option<Action>,
    #[serde(skip_serializing_if = "Option::is_none")]
    paused: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pause_until: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    consumer_seq: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_seq: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ack_time: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deliveries: Option<u64>,
    #[serde(rename = "reason", skip_serializing_if = "Option::is_none")]
    said: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'a StreamState>,
    #[serde(skip_serializing_if = "Option::is_none")]
    start: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<&'a ClientInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    leader: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    replicas: Option<&'a [PeerInfo]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    domain: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dropped: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pinned_id: Option<&'a str>,
    #[serde(rename = "reason", skip_serializing_if = "Option::is_none")]
    unpinned: Option<Unpinned>,
    #[serde(skip_serializing_if = "Option::is_none")]
    batch: Option<&'a str>,
    #[serde(rename = "reason", skip_serializing_if = "Option::is_none")]
    abandoned: Option<Abandoned>,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_seq: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_seq: Option<u64>,
}

fn given(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

impl<'a> Event<'a> {
    /// Where it is published, and the last part of its type.
    fn place(&self) -> (String, &'static str) {
        let stream = |what: &str, stream: &str| format!("{ADVISORY}.STREAM.{what}.{stream}");
        let consumer =
            |what: &str, who: &Who<'_>| format!("{ADVISORY}.CONSUMER.{what}.{}.{}", who.stream, who.consumer);
        match self {
            Event::Api { .. } => (format!("{ADVISORY}.API"), "api_audit"),
            Event::ApiLimit { .. } => (format!("{ADVISORY}.API.LIMIT_REACHED"), "api_limit_reached"),
            Event::Stream { stream: name, action } => {
                let what = match action {
                    Action::Create => "CREATED",
                    Action::Modify => "UPDATED",
                    Action::Delete => "DELETED",
                };
                (stream(what, name), "stream_action")
            }
            Event::Consumer { who, action } => {
                let what = match action {
                    Action::Create => "CREATED",
                    Action::Modify => "UPDATED",
                    Action::Delete => "DELETED",
                };
                (consumer(what, who), "consumer_action")
            }
            Event::Pause { who, .. } => (consumer("PAUSE", who), "consumer_pause"),
            Event::Pinned { who, .. } => (consumer("PINNED", who), "consumer_group_pinned"),
            Event::Unpinned { who, .. } => (consumer("UNPINNED", who), "consumer_group_unpinned"),
            Event::MaxDeliver { who, .. } => (consumer("MAX_DELIVERIES", who), "max_deliver"),
            Event::Nak { who, .. } => (consumer("MSG_NAKED", who), "nak"),
            Event::Terminated { who, .. } => (consumer("MSG_TERMINATED", who), "terminated"),
            Event::Acked { who, .. } => {
                (format!("{METRIC}.CONSUMER.ACK.{}.{}", who.stream, who.consumer), "consumer_ack")
            }
            Event::SnapshotCreate { stream: name, .. } => {
                (stream("SNAPSHOT_CREATE", name), "snapshot_create")
            }
            Event::SnapshotComplete { stream: name, .. } => {
                (stream("SNAPSHOT_COMPLETE", name), "snapshot_complete")
            }
            Event::RestoreCreate { stream: name, .. } => (stream("RESTORE_CREATE", name), "restore_create"),
            Event::RestoreComplete { stream: name, .. } => {
                (stream("RESTORE_COMPLETE", name), "restore_complete")
            }
            Event::BatchAbandoned { stream: name, .. } => {
                (stream("BATCH_ABANDONED", name), "stream_batch_abandoned")
            }
            Event::DomainLeader { .. } => {
                (format!("{ADVISORY}.DOMAIN.LEADER_ELECTED"), "domain_leader_elected")
            }
            Event::StreamLeader { stream: name, .. } => {
                (stream("LEADER_ELECTED", name), "stream_leader_elected")
            }
            Event::StreamQuorumLost { stream: name, .. } => {
                (stream("QUORUM_LOST", name), "stream_quorum_lost")
            }
            Event::ConsumerLeader { who, .. } => (consumer("LEADER_ELECTED", who), "consumer_leader_elected"),
            Event::ConsumerQuorumLost { who, .. } => (consumer("QUORUM_LOST", who), "consumer_quorum_lost"),
            Event::OutOfStorage { .. } => {
                (format!("{ADVISORY}.SERVER.OUT_OF_STORAGE"), "server_out_of_space")
            }
            Event::StreamDamaged { stream: name, .. } => (stream("DAMAGED", name), "stream_damaged"),
            Event::ServerRemoved { .. } => (format!("{ADVISORY}.SERVER.REMOVED"), "server_removed"),
        }
    }

    /// Where it is published. Ask whether anybody listens before writing the rest.
    pub fn subject(&self) -> String {
        self.place().0
    }

    /// Its text, with an id that is unique, the time, and the domain (empty for none).
    pub fn body(&self, id: &'a str, time: Time, domain: &'a str) -> Bytes {
        let family = if matches!(self, Event::Acked { .. }) { "metric" } else { "advisory" };
        let owner = if matches!(self, Event::StreamDamaged { .. }) { "io.fulmar" } else { "io.nats" };
        let kind = format!("{owner}.jetstream.{family}.v1.{}", self.place().1);
        let mut body = Body { kind, id, timestamp: time, domain: given(domain), ..Body::default() };
        self.fill(&mut body);
        to_bytes(&body)
    }

    fn fill(&self, to: &mut Body<'a>) {
        let consumer = |to: &mut Body<'a>, who: &Who<'a>| {
            (to.stream, to.consumer) = (Some(who.stream), Some(who.consumer));
        };
        let delivery = |to: &mut Body<'a>, delivery: &Delivery| {
            (to.consumer_seq, to.stream_seq) = (Some(delivery.consumer_seq), Some(delivery.stream_seq));
        };
        match *self {
            Event::Api { server, client, subject, request, response } => {
                (to.server, to.asker, to.subject) = (Some(server), Some(client), Some(subject));
                (to.request, to.response) = (given(request), Some(response));
            }
            Event::ApiLimit { server, dropped } => (to.server, to.dropped) = (Some(server), Some(dropped)),
            Event::Stream { stream, action } => (to.stream, to.action) = (Some(stream), Some(action)),
            Event::Consumer { who, action } => {
                consumer(to, &who);
                to.action = Some(action);
            }
            Event::Pause { who, paused, until } => {
                consumer(to, &who);
                (to.paused, to.pause_until) = (Some(paused), Some(until));
            }
            Event::Pinned { account, who, group, id } => {
                consumer(to, &who);
                (to.account, to.group, to.pinned_id) = (given(account), Some(group), Some(id));
            }
            Event::Unpinned { account, who, group, reason } => {
                consumer(to, &who);
                (to.account, to.group, to.unpinned) = (given(account), Some(group), Some(reason));
            }
            Event::MaxDeliver { who, stream_seq, deliveries } => {
                consumer(to, &who);
                (to.stream_seq, to.deliveries) = (Some(stream_seq), Some(deliveries));
            }
            Event::Nak { who, delivery: at, deliveries } => {
                consumer(to, &who);
                delivery(to, &at);
                to.deliveries = Some(deliveries);
            }
            Event::Terminated { who, delivery: at, deliveries, reason } => {
                consumer(to, &who);
                delivery(to, &at);
                (to.deliveries, to.said) = (Some(deliveries), given(reason));
            }
            Event::Acked { who, delivery: at, ack_time, deliveries } => {
                consumer(to, &who);
                delivery(to, &at);
                (to.ack_time, to.deliveries) = (Some(ack_time), Some(deliveries));
            }
            Event::SnapshotCreate { stream, state, client } => {
                (to.stream, to.state, to.client) = (Some(stream), Some(state), Some(client));
            }
            Event::SnapshotComplete { stream, start, end, client, error } => {
                (to.stream, to.start, to.end) = (Some(stream), Some(start), Some(end));
                (to.client, to.error) = (Some(client), given(error));
            }
            Event::RestoreCreate { stream, client } => (to.stream, to.client) = (Some(stream), Some(client)),
            Event::RestoreComplete { stream, start, end, bytes, client } => {
                (to.stream, to.start, to.end) = (Some(stream), Some(start), Some(end));
                (to.bytes, to.client) = (Some(bytes), Some(client));
            }
            Event::BatchAbandoned { stream, batch, reason } => {
                (to.stream, to.batch, to.abandoned) = (Some(stream), Some(batch), Some(reason));
            }
            Event::DomainLeader { leader, replicas, cluster } => {
                (to.leader, to.replicas, to.cluster) = (Some(leader), Some(replicas), Some(cluster));
            }
            Event::StreamLeader { account, stream, leader, replicas } => {
                (to.account, to.stream) = (given(account), Some(stream));
                (to.leader, to.replicas) = (Some(leader), Some(replicas));
            }
            Event::StreamQuorumLost { account, stream, replicas } => {
                (to.account, to.stream, to.replicas) = (given(account), Some(stream), Some(replicas));
            }
            Event::ConsumerLeader { account, who, leader, replicas } => {
                consumer(to, &who);
                (to.account, to.leader, to.replicas) = (given(account), Some(leader), Some(replicas));
            }
            Event::ConsumerQuorumLost { account, who, replicas } => {
                consumer(to, &who);
                (to.account, to.replicas) = (given(account), Some(replicas));
            }
            Event::OutOfStorage { server, server_id, stream, cluster } => {
                (to.server, to.server_id) = (Some(server), Some(server_id));
                (to.stream, to.cluster) = (given(stream), Some(cluster));
            }
            Event::StreamDamaged { account, stream, server, messages, what } => {
                (to.account, to.stream, to.server) = (given(account), Some(stream), Some(server));
                (to.first_seq, to.last_seq) = messages.unzip();
                to.error = Some(what);
            }
            Event::ServerRemoved { server, server_id, cluster } => {
                (to.server, to.server_id, to.cluster) = (Some(server), Some(server_id), Some(cluster));
            }
        }
    }
}
