//! `/jsz` and JetStream's part of `/varz`. Without JetStream, or before its data is open, it is reported as disabled.

use jetstream::{Detail, JetStream};
use serde::Serialize;
use serde_json::Value;

use super::{
    json::{Time, is_default},
    options::JszOptions,
};
use crate::{
    Server,
    options::{Options, SyncInterval},
    start::API_LEVEL,
};

/// What nats-server says of its sync interval where nothing is configured, in nanoseconds. Tools show it; ours is shorter.
const SYNC_INTERVAL_NS: u64 = 120_000_000_000;

/// The answer.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs)]
pub struct Jsz {
    #[serde(flatten)]
    pub stats: JetStreamStats,
    pub server_id: String,
    pub now: Time,
    #[serde(skip_serializing_if = "is_default")]
    pub disabled: bool,
    pub config: JetStreamConfig,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<JetStreamLimits>,
    pub streams: usize,
    /// Of these, how many this server leads; only for those who ask about groups.
    #[serde(skip_serializing_if = "is_default")]
    pub streams_leader: usize,
    pub consumers: usize,
    #[serde(skip_serializing_if = "is_default")]
    pub consumers_leader: usize,
    pub messages: u64,
    pub bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub meta_cluster: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account_details: Option<Vec<Value>>,
    pub total: usize,
}

/// What is used.
#[derive(Clone, Copy, Default, PartialEq, Debug, Serialize)]
#[allow(missing_docs)]
pub struct JetStreamStats {
    pub memory: u64,
    pub storage: u64,
    pub reserved_memory: u64,
    pub reserved_storage: u64,
    pub accounts: usize,
    pub ha_assets: usize,
    pub api: ApiStats,
}

/// Requests to the JetStream API.
#[derive(Clone, Copy, Default, PartialEq, Debug, Serialize)]
#[allow(missing_docs)]
pub struct ApiStats {
    pub level: u64,
    pub total: u64,
    pub errors: u64,
}

/// How JetStream is configured; sizes in bytes, times in nanoseconds.
#[derive(Clone, Default, PartialEq, Debug, Serialize)]
#[allow(missing_docs)]
pub struct JetStreamConfig {
    pub max_memory: u64,
    pub max_storage: u64,
    #[serde(skip_serializing_if = "is_default")]
    pub store_dir: String,
    #[serde(skip_serializing_if = "is_default")]
    pub sync_interval: u64,
    #[serde(skip_serializing_if = "is_default")]
    pub sync_always: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub domain: String,
    #[serde(skip_serializing_if = "is_default")]
    pub unique_tag: String,
    /// Routes to other servers may be compressed; only in clusters.
    #[serde(skip_serializing_if = "is_default")]
    pub compress_ok: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub strict: bool,
    /// Ours: whether publishes are acknowledged before they are durable, because a `sync_interval` is configured.
    #[serde(skip_serializing_if = "is_default")]
    pub acknowledged_early: bool,
}

/// Limits on single assets; only those that are set.
#[derive(Clone, Copy, Default, PartialEq, Debug, Serialize)]
#[allow(missing_docs)]
pub struct JetStreamLimits {
    #[serde(skip_serializing_if = "is_default")]
    pub max_request_batch: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub max_ack_pending: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub max_ha_assets: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub max_duplicate_window: u64,
    #[serde(skip_serializing_if = "is_default")]
    pub default_max_consumers: i64,
}

/// JetStream's part of `/varz`; empty while it is off.
#[derive(Clone, Default, PartialEq, Debug, Serialize)]
#[allow(missing_docs)]
pub struct JetStreamVarz {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<JetStreamConfig>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stats: Option<JetStreamStats>,
    /// The meta group; only in clusters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub meta: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<JetStreamLimits>,
}

fn config(js: &JetStream, o: &Options) -> JetStreamConfig {
    let (s, t) = (js.options(), js.tunable());
    let sync = o.jetstream.as_ref().and_then(|j| j.sync_interval);
    JetStreamConfig {
        max_memory: t.memory_max,
        max_storage: t.storage_max,
        store_dir: s.dir.to_string_lossy().into_owned(),
        sync_interval: match sync {
            Some(SyncInterval::Every(d)) => u64::try_from(d.as_nanos()).unwrap_or(u64::MAX),
            _ => SYNC_INTERVAL_NS,
        },
        sync_always: sync == Some(SyncInterval::Always),
        domain: s.domain.clone().unwrap_or_default(),
        unique_tag: o.jetstream.as_ref().and_then(|j| j.unique_tag.clone()).unwrap_or_default(),
        compress_ok: js.is_clustered(),
        strict: s.strict,
        acknowledged_early: matches!(sync, Some(SyncInterval::Every(_))),
    }
}

fn limits(js: &JetStream) -> JetStreamLimits {
    let l = js.tunable().limits;
    JetStreamLimits {
        max_request_batch: l.max_request_batch.unwrap_or(0),
        max_ack_pending: l.max_ack_pending.unwrap_or(0),
        max_ha_assets: l.max_ha_assets.unwrap_or(0),
        max_duplicate_window: l
            .duplicate_window
            .map_or(0, |d| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)),
        default_max_consumers: l.default_max_consumers.unwrap_or(0),
    }
}

fn stats(js: &JetStream) -> JetStreamStats {
    let u = js.usage();
    JetStreamStats {
        memory: u.memory,
        storage: u.storage,
        reserved_memory: u.reserved_memory,
        reserved_storage: u.reserved_storage,
        accounts: u.accounts,
        ha_assets: js.shared(),
        api: ApiStats { level: API_LEVEL, total: u.api_total, errors: u.api_errors },
    }
}

fn detail(o: &JszOptions) -> Detail<'_> {
    Detail {
        account: &o.account,
        streams: o.streams || o.consumers || o.config,
        consumers: o.consumers,
        config: o.config,
        led: o.stream_leader_only,
        groups: o.raft_groups,
    }
}

/// The accounts that are to be listed, if any are: their streams may have to be read from a disk.
pub async fn jsz_accounts(s: &Server, o: &JszOptions) -> Option<Vec<Value>> {
    let wanted = o.accounts || o.streams || o.consumers || !o.account.is_empty();
    let js = s.jetstream.read().clone().filter(|_| wanted)?;
    let offset = usize::try_from(o.offset).unwrap_or(0);
    let limit = usize::try_from(o.limit).ok().filter(|n| *n > 0).unwrap_or(1024);
    Some(js.details(&detail(o), offset, limit).await)
}

/// One account as an answer to a request about it; `None` if it has no JetStream.
pub async fn jsz_account(s: &Server, o: &JszOptions) -> Option<Value> {
    let js = s.jetstream.read().clone()?;
    js.detail_of(&Detail { streams: o.streams, ..detail(o) }).await
}

/// Whether this server answers: of a cluster, if only the leader of the meta group is wanted, the others do not.
pub fn jsz_is_meant(s: &Server, o: &JszOptions) -> bool {
    let clustered = |js: &JetStream| js.led().is_some() && !js.leads_meta();
    !(o.leader_only && s.jetstream.read().as_deref().is_some_and(clustered))
}

/// What is stored, with the accounts of [`jsz_accounts`].
pub fn jsz(s: &Server, o: &JszOptions, account_details: Option<Vec<Value>>) -> Jsz {
    let (server_id, now) = (s.id().to_string(), Time(env::wall()));
    let Some(js) = s.jetstream.read().clone() else {
        return Jsz {
            stats: JetStreamStats::default(),
            server_id,
            now,
            disabled: true,
            config: JetStreamConfig::default(),
            limits: None,
            streams: 0,
            streams_leader: 0,
            consumers: 0,
            consumers_leader: 0,
            messages: 0,
            bytes: 0,
            meta_cluster: None,
            account_details: None,
            total: 0,
        };
    };
    let u = js.usage();
    // A server alone leads all that it has.
    let led = if o.raft_groups { js.led().unwrap_or((u.streams, u.consumers)) } else { (0, 0) };
    Jsz {
        stats: stats(&js),
        server_id,
        now,
        disabled: false,
        config: config(&js, &s.options()),
        limits: Some(limits(&js)),
        streams: u.streams,
        streams_leader: led.0,
        consumers: u.consumers,
        consumers_leader: led.1,
        messages: u.messages,
        bytes: u.bytes,
        meta_cluster: js.meta_cluster(),
        account_details: account_details.filter(|d| !d.is_empty()),
        total: u.accounts,
    }
}

/// For `/varz`.
pub(super) fn in_varz(s: &Server) -> JetStreamVarz {
    match s.jetstream.read().clone() {
        None => JetStreamVarz::default(),
        Some(js) => JetStreamVarz {
            config: Some(config(&js, &s.options())),
            stats: Some(stats(&js)),
            meta: js.meta_cluster(),
            limits: Some(limits(&js)),
        },
    }
}

/// For the server's statistics: what `/varz` has, without the place of the data. `None` while JetStream is off.
pub fn jetstream_stats(s: &Server) -> Option<JetStreamVarz> {
    let mut of = in_varz(s);
    of.config.as_mut()?.store_dir.clear();
    Some(of)
}
