//! `/routez`, `/gatewayz` and `/leafz`: links to other servers. There are none yet, and the answers say so.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{
    json::{Time, is_default},
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
    pub routes: Vec<Nothing>,
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
pub fn routez(s: &Server, _: &RoutezOptions) -> Routez {
    let o = s.options();
    let permissions = o.cluster.as_ref().map(|c| &c.permissions);
    Routez {
        server_id: s.id().to_string(),
        server_name: s.name.clone(),
        now: Time(env::wall()),
        import: permissions.and_then(|p| p.import.as_ref()).map(PermissionInfo::new),
        export: permissions.and_then(|p| p.export.as_ref()).map(PermissionInfo::new),
        num_routes: 0,
        routes: Vec::new(),
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
