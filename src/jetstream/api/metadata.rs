//! What an asset's metadata says of API levels.
//!
//! Owns the three keys: `_nats.req.level`, the level that the asset needs, is stored; `_nats.ver` and `_nats.level`, what the server
//! is, stand only in answers about one asset (not in lists).

use std::collections::BTreeMap;

use stream::config::PersistMode;
use stream::consumer::config::{AckPolicy, PriorityPolicy};

use super::{ConsumerConfig, LEVEL, StreamConfig, VERSION};

const REQUIRED: &str = "_nats.req.level";
const SERVER_VERSION: &str = "_nats.ver";
const SERVER_LEVEL: &str = "_nats.level";

/// The level that a stream's configuration needs.
pub fn stream_level(config: &StreamConfig) -> u32 {
    let mut level = 0;
    let mut needs = |is: bool, at: u32| level = if is { level.max(at) } else { level };
    needs(config.allow_msg_ttl || config.subject_delete_marker_ttl > 0, 1);
    needs(config.allow_msg_counter || config.allow_atomic || config.allow_msg_schedules, 2);
    needs(config.persist_mode == PersistMode::Async, 2);
    needs(config.allow_batched, 4);
    level
}

/// The level that a consumer's configuration needs.
pub fn consumer_level(config: &ConsumerConfig) -> u32 {
    let grouped = config.priority_policy != PriorityPolicy::None
        || config.priority_timeout != 0
        || !config.priority_groups.is_empty();
    match () {
        () if config.ack_policy == AckPolicy::FlowControl => 4,
        () if config.pause_until.is_some() || grouped => 1,
        () => 0,
    }
}

/// Makes a stream's configuration as it is stored: with the level it needs, without what the server is. Before every create and
/// update.
pub fn store_stream(config: &mut StreamConfig) {
    let level = stream_level(config);
    store(&mut config.metadata, level);
}

/// The same for a consumer; also when it is paused or resumed.
pub fn store_consumer(config: &mut ConsumerConfig) {
    let level = consumer_level(config);
    store(&mut config.metadata, level);
}

/// Adds what the server is, for the answer to a create, update or info of a stream.
pub fn show_stream(config: &mut StreamConfig) {
    show(&mut config.metadata);
}

/// The same for a consumer.
pub fn show_consumer(config: &mut ConsumerConfig) {
    show(&mut config.metadata);
}

/// Metadata without the three keys, for comparisons of what users have asked for.
pub fn without_versions(metadata: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let ours = [REQUIRED, SERVER_VERSION, SERVER_LEVEL];
    metadata
        .iter()
        .filter(|(k, _)| !ours.contains(&k.as_str()))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect()
}

/// Whether this server can serve an asset that was stored with that metadata.
pub fn is_supported(metadata: &BTreeMap<String, String>) -> bool {
    match metadata.get(REQUIRED) {
        Some(level) if !level.is_empty() => level.parse::<u32>().is_ok_and(|level| level <= LEVEL),
        _ => true,
    }
}

fn store(metadata: &mut BTreeMap<String, String>, level: u32) {
    metadata.remove(SERVER_VERSION);
    metadata.remove(SERVER_LEVEL);
    metadata.remove(stream::config::RESTORING);
    metadata.insert(REQUIRED.to_owned(), level.to_string());
}

fn show(metadata: &mut BTreeMap<String, String>) {
    metadata.insert(SERVER_VERSION.to_owned(), VERSION.to_owned());
    metadata.insert(SERVER_LEVEL.to_owned(), LEVEL.to_string());
}
