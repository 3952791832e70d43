//! `/routez`, `/gatewayz` and `/leafz`: links to other servers. There are no gateways and leaf nodes yet, and the answers say
//! so.

use std::{collections::BTreeMap, sync::Arc};

use broker::Sub;
use links::route::{Member, Route, Slot};
use serde::Serialize;
use wire::route::info::Subjects;

use super::{
    connz::SubDetail,
    json::{Time, age, duration, is_default},
    options::{GatewayzOptions, LeafzOptions, RoutezOptions},
    varz::Nothing,
};
use crate::{Server, options::SubjectPermission};

/// The answer of `/routez`.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs)]
pub struct Routez {
    pub server_id: String,
    pub server_name: String,
    pub now: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub import: Option<PermissionInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub export: Option<PermissionInfo>,
    pub num_routes: usize,
    pub routes: Vec<RouteInfo>,
    #[serde(skip_serializing_if = "is_default")]
    pub fulmar_peers: Vec<PeerLink>,
}

/// A link to another Fulmar node.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct PeerLink {
    pub node: String,
    pub name: String,
    pub version: u32,
    pub did_solicit: bool,
    pub generation: u64,
    pub ip: String,
    pub port: u16,
    pub start: Time,
    pub uptime: String,
    #[serde(skip_serializing_if = "is_default")]
    pub rtt: String,
    pub in_frames: u64,
    pub in_bytes: u64,
    pub out_frames: u64,
    pub out_bytes: u64,
    pub refused_frames: u64,
    pub pending: PeerPending,
}

/// Bytes that wait in a link's lanes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct PeerPending {
    pub beat: usize,
    pub consensus: usize,
    pub call: usize,
    pub bulk: usize,
}

fn peer_link(l: links::peer::PeerStats) -> PeerLink {
    let [beat, consensus, call, bulk] = l.pending;
    PeerLink {
        node: l.node.to_string(),
        name: l.name,
        version: l.version,
        did_solicit: l.solicited,
        generation: l.generation,
        ip: l.address.ip().to_string(),
        port: l.address.port(),
        start: Time(l.start),
        uptime: age(env::wall().since(l.start)),
        rtt: if l.rtt.is_zero() { String::new() } else { duration(l.rtt) },
        in_frames: l.in_frames,
        in_bytes: l.in_bytes,
        out_frames: l.out_frames,
        out_bytes: l.out_bytes,
        refused_frames: l.refused,
        pending: PeerPending { beat, consensus, call, bulk },
    }
}

/// A route.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs)]
pub struct RouteInfo {
    pub rid: u64,
    pub remote_id: String,
    pub remote_name: String,
    pub did_solicit: bool,
    pub is_configured: bool,
    pub ip: String,
    pub port: u16,
    pub start: Time,
    pub last_activity: Time,
    #[serde(skip_serializing_if = "is_default")]
    pub rtt: String,
    pub uptime: String,
    pub idle: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub import: Option<PermissionInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub export: Option<PermissionInfo>,
    pub pending_size: usize,
    pub in_msgs: u64,
    pub out_msgs: u64,
    pub in_bytes: u64,
    pub out_bytes: u64,
    pub subscriptions: usize,
    #[serde(skip_serializing_if = "is_default")]
    pub subscriptions_list: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub subscriptions_list_detail: Vec<SubDetail>,
    #[serde(skip_serializing_if = "is_default")]
    pub account: String,
    pub compression: &'static str,
}

/// Subjects that are allowed and denied.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct PermissionInfo {
    #[serde(skip_serializing_if = "is_default")]
    pub allow: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub deny: Vec<String>,
}

impl PermissionInfo {
    fn new(p: &SubjectPermission) -> PermissionInfo {
        PermissionInfo { allow: p.allow.clone().unwrap_or_default(), deny: p.deny.clone() }
    }
}

/// Routes to the other members of the cluster.
pub fn routez(s: &Server, asked: &RoutezOptions) -> Routez {
    let o = s.options();
    let permissions = o.cluster.as_ref().map(|c| &c.permissions);
    let mut routes = Vec::new();
    if let Some(mesh) = &s.cluster.mesh {
        let members: BTreeMap<String, Member> =
            mesh.members().into_iter().map(|m| (m.id.clone(), m)).collect();
        // Of two servers that have each other in their configuration both have asked for the connection, whichever stays.
        let of =
            |r: &Arc<Route>| route(r, asked, members.get(&r.remote_id), mesh.is_configured(&r.remote_id));
        routes = mesh.routes().iter().map(of).collect();
    }
    Routez {
        server_id: s.id().to_string(),
        server_name: s.name.clone(),
        now: Time(env::wall()),
        import: permissions.and_then(|p| p.import.as_ref()).map(PermissionInfo::new),
        export: permissions.and_then(|p| p.export.as_ref()).map(PermissionInfo::new),
        num_routes: routes.len(),
        routes,
        fulmar_peers: s.cluster.peers.links().into_iter().map(peer_link).collect(),
    }
}

/// What the server at the other end takes, or gives.
fn of_remote(s: &Option<Subjects>) -> Option<PermissionInfo> {
    s.as_ref().map(|s| PermissionInfo { allow: s.allow.clone(), deny: s.deny.clone() })
}

fn route(r: &Route, asked: &RoutezOptions, remote: Option<&Member>, configured: bool) -> RouteInfo {
    let now = env::wall();
    let sent = r.link.out_traffic();
    let listed = match asked.subscriptions || asked.subscriptions_detail {
        true => r.link.list_subscriptions(),
        false => Vec::new(),
    };
    let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
    let of = |s: &Sub| match (&r.slot, s.sid()) {
        (Slot::Account(a), _) => a.to_string(),
        (_, name) => text(name),
    };
    let detail = |s: &Arc<Sub>| SubDetail {
        account: of(s),
        account_tag: String::new(),
        subject: text(s.subject()),
        qgroup: text(s.queue()),
        sid: [text(s.sid()), text(s.subject()), text(s.queue())].join(" ").trim().to_string(),
        msgs: s.delivered(),
        max: 0,
        cid: r.link.id,
    };
    RouteInfo {
        rid: r.link.id,
        remote_id: r.remote_id.clone(),
        remote_name: r.remote_name.clone(),
        did_solicit: r.solicited || configured,
        is_configured: configured,
        ip: r.peer.ip().to_string(),
        port: r.peer.port(),
        start: Time(r.start),
        last_activity: Time(r.last_activity()),
        rtt: match r.rtt() {
            d if d.is_zero() => String::new(),
            d => duration(d),
        },
        uptime: age(now.since(r.start)),
        idle: age(now.since(r.last_activity())),
        import: remote.and_then(|m| of_remote(&m.info.import)),
        export: remote.and_then(|m| of_remote(&m.info.export)),
        pending_size: r.link.pending_bytes(),
        in_msgs: r.link.in_msgs.get(),
        out_msgs: sent.msgs,
        in_bytes: r.link.in_bytes.get(),
        out_bytes: sent.bytes,
        subscriptions: r.link.subscriptions(),
        subscriptions_list: match asked.subscriptions_detail {
            false => listed.iter().map(|s| text(s.subject())).collect(),
            true => Vec::new(),
        },
        subscriptions_list_detail: match asked.subscriptions_detail {
            true => listed.iter().map(detail).collect(),
            false => Vec::new(),
        },
        account: match &r.slot {
            Slot::Account(a) => a.to_string(),
            Slot::Pool(_) => String::new(),
        },
        compression: r.compression(),
    }
}

/// The answer of `/gatewayz`.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs)]
pub struct Gatewayz {
    pub server_id: String,
    pub now: Time,
    pub outbound_gateways: BTreeMap<String, Nothing>,
    pub inbound_gateways: BTreeMap<String, Vec<Nothing>>,
}

/// Gateways to other clusters.
pub fn gatewayz(s: &Server, _: &GatewayzOptions) -> Gatewayz {
    Gatewayz {
        server_id: s.id().to_string(),
        now: Time(env::wall()),
        outbound_gateways: BTreeMap::new(),
        inbound_gateways: BTreeMap::new(),
    }
}

/// The answer of `/leafz`.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs)]
pub struct Leafz {
    pub server_id: String,
    pub now: Time,
    pub leafnodes: usize,
    pub leafs: Vec<Nothing>,
}

/// Leaf nodes.
pub fn leafz(s: &Server, _: &LeafzOptions) -> Leafz {
    Leafz { server_id: s.id().to_string(), now: Time(env::wall()), leafnodes: 0, leafs: Vec::new() }
}
