//! `/jsz` and JetStream's part of `/varz`. Nothing is stored yet: JetStream is reported as what it is, disabled, also
//! where it is configured.

use serde::Serialize;

use super::{json::Time, options::JszOptions, varz::Nothing};
use crate::Server;

/// JetStream's part of `/varz`; empty while it is off.
pub type JetStreamVarz = Nothing;

/// The answer, in the shape that it has while JetStream is off.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs)]
pub struct Jsz {
    pub memory: u64,
    pub storage: u64,
    pub reserved_memory: u64,
    pub reserved_storage: u64,
    pub accounts: usize,
    pub ha_assets: usize,
    pub api: ApiStats,
    pub server_id: String,
    pub now: Time,
    pub disabled: bool,
    pub config: JetStreamConfig,
    pub streams: usize,
    pub consumers: usize,
    pub messages: u64,
    pub bytes: u64,
    pub total: usize,
}

/// Requests to the JetStream API.
#[derive(Clone, Copy, Default, PartialEq, Debug, Serialize)]
#[allow(missing_docs)]
pub struct ApiStats {
    pub level: u64,
    pub total: u64,
    pub errors: u64,
}

/// What may be stored, in bytes.
#[derive(Clone, Copy, Default, PartialEq, Debug, Serialize)]
#[allow(missing_docs)]
pub struct JetStreamConfig {
    pub max_memory: u64,
    pub max_storage: u64,
}

/// What is stored.
pub fn jsz(s: &Server, _: &JszOptions) -> Jsz {
    Jsz {
        memory: 0,
        storage: 0,
        reserved_memory: 0,
        reserved_storage: 0,
        accounts: 0,
        ha_assets: 0,
        api: ApiStats::default(),
        server_id: s.id().to_string(),
        now: Time(env::wall()),
        disabled: true,
        config: JetStreamConfig::default(),
        streams: 0,
        consumers: 0,
        messages: 0,
        bytes: 0,
        total: 0,
    }
}

/// For `/varz`.
pub(super) fn in_varz(_: &Server) -> JetStreamVarz {
    Nothing {}
}
