//! The `jetstream` block.

use super::reader::set;
use super::top::Draft;
use super::{Reader, block};
use crate::options::types::{JetStreamLimits, JetStreamOptions, StoreCipher, SyncInterval};
use conf::{Entry, Map, Value};

/// Reads `jetstream: true`, `jetstream: enabled` or the block into the draft.
pub(crate) fn read(reader: &mut Reader, entry: &Entry, draft: &mut Draft) {
    let map = match &entry.node.value {
        Value::Bool(on) => {
            draft.jetstream_on = *on;
            return;
        }
        Value::String(word) => {
            match word.to_ascii_lowercase().as_str() {
                "enabled" | "enable" => draft.jetstream_on = true,
                "disabled" | "disable" => draft.jetstream_on = false,
                _ => {
                    let text = format!("Expected 'enabled' or 'disabled' for string value, got '{word}'");
                    reader.error(&entry.pos, text);
                }
            }
            return;
        }
        Value::Map(map) => map,
        other => {
            let text = format!("Expected map, bool or string to define JetStream, got {}", other.kind());
            reader.error(&entry.pos, text);
            return;
        }
    };
    // A block without `enabled` turns JetStream on by being there.
    draft.jetstream_on = true;
    let mut store_dir = None;
    let mut enabled = None;
    let o = &mut draft.jetstream;
    *o = JetStreamOptions::default();
    block!(reader, "jetstream", map, |e| {
        "enabled" | "enable" => set!(enabled, reader.boolean(e).map(Some)),
        "strict" => set!(o.strict, reader.boolean(e)),
        "store_dir" | "storedir" | "store" => set!(store_dir, reader.string(e).map(|s| Some((e, s)))),
        "max_memory_store" | "max_mem_store" | "max_mem" => {
            set!(o.max_memory, reader.storage_size(e, "max_mem_store"));
        },
        "max_file_store" | "max_file" => set!(o.max_file, reader.storage_size(e, "max_file_store")),
        "domain" => set!(o.domain, reader.text(e)),
        "sync" | "sync_interval" => if matches!(&e.node.value, Value::String(s) if s.eq_ignore_ascii_case("always")) {
            o.sync_interval = Some(SyncInterval::Always);
        } else if let Some(interval) = reader.duration(e) {
            o.sync_interval = Some(SyncInterval::Every(interval));
        },
        "key" | "ek" | "encryption_key" => set!(o.key, super::auth::secret(reader, e)),
        "prev_key" | "prev_ek" | "prev_encryption_key" => set!(o.previous_key, super::auth::secret(reader, e)),
        "cipher" => if let Some(name) = reader.string(e) {
            match name.to_ascii_lowercase().as_str() {
                "chacha" | "chachapoly" => o.cipher = StoreCipher::ChaCha,
                "aes" => o.cipher = StoreCipher::Aes,
                _ => reader.error(&e.pos, format!("Unknown cipher type: {name:?}")),
            }
        },
        "extension_hint" => set!(o.extension_hint, reader.text(e)),
        "limits" => limits(reader, e, &mut o.limits),
        "unique_tag" => set!(o.unique_tag, reader.text(e).map(|t| t.map(|t| t.trim().to_ascii_lowercase()))),
        "max_outstanding_catchup" => set!(o.max_outstanding_catchup, size(reader, e)),
        "max_buffered_size" => set!(o.max_buffered_size, size(reader, e)),
        "max_buffered_msgs" => set!(o.max_buffered_msgs, size(reader, e)),
        "request_queue_limit" => set!(o.request_queue_limit, size(reader, e)),
        "info_queue_limit" => set!(o.info_queue_limit, size(reader, e)),
        "meta_compact" => set!(o.meta_compact, absolute(reader, e)),
        "meta_compact_size" => set!(o.meta_compact_size, absolute(reader, e)),
        "meta_compact_sync" => set!(o.meta_compact_sync, reader.boolean(e)),
        "max_concurrent_io" => if let Some(n) = reader.int(e) {
            match u32::try_from(n).ok().filter(|n| (4..=8192).contains(n)) {
                Some(n) => o.max_concurrent_io = n,
                None => reader.error(
                    &e.pos,
                    format!("Expected an absolute size for \"max_concurrent_io\" between 4 and 8192, got {n}"),
                ),
            }
        },
    });
    if let Some(on) = enabled {
        draft.jetstream_on = on;
    }
    if let Some((e, dir)) = store_dir {
        set_store_dir(reader, e, dir, draft);
    }
}

/// `store_dir` may stand at the top or in the block, but only once.
pub(crate) fn set_store_dir(reader: &mut Reader, entry: &Entry, dir: &str, draft: &mut Draft) {
    if draft.store_dir.is_some() {
        reader.error(&entry.pos, "Duplicate 'store_dir' configuration");
    }
    draft.store_dir = Some(dir.to_string());
}

fn size(reader: &mut Reader, e: &Entry) -> Option<i64> {
    if let Value::Int(n) = e.node.value {
        return Some(n);
    }
    let text = format!("Expected a parseable size for {:?}, but it is {}", e.key, e.node.value.kind());
    reader.error(&e.pos, text);
    None
}

fn absolute(reader: &mut Reader, e: &Entry) -> Option<u64> {
    let n = size(reader, e)?;
    let read = u64::try_from(n).ok();
    if read.is_none() {
        reader.error(&e.pos, format!("Expected an absolute size for {:?}, got {n}", e.key));
    }
    read
}

fn limits(reader: &mut Reader, entry: &Entry, o: &mut JetStreamLimits) {
    let Value::Map(map) = &entry.node.value else {
        let text = format!("Expected a map to define JetStreamLimits, got {}", entry.node.value.kind());
        reader.error(&entry.pos, text);
        return;
    };
    block!(reader, "jetstream limits", map, |e| {
        "max_ack_pending" => set!(o.max_ack_pending, reader.int(e).map(Some)),
        "max_ha_assets" => set!(o.max_ha_assets, reader.int(e).map(Some)),
        "max_request_batch" => set!(o.max_request_batch, reader.int(e).map(Some)),
        "duplicate_window" => set!(o.duplicate_window, reader.duration_string(e).map(Some)),
        "default_max_consumers" => set!(o.default_max_consumers, reader.int(e).map(Some)),
        "batch" => match &e.node.value {
            Value::Map(map) => batch(reader, map, o),
            other => {
                let text = format!("Expected a map to define batch limits, got {}", other.kind());
                reader.error(&e.pos, text);
            }
        },
    });
}

fn batch(reader: &mut Reader, map: &Map, o: &mut JetStreamLimits) {
    block!(reader, "jetstream batch limits", map, |e| {
        "max_inflight_per_stream" => set!(o.batch_max_inflight_per_stream, reader.int(e).map(Some)),
        "max_inflight_total" => set!(o.batch_max_inflight_total, reader.int(e).map(Some)),
        "max_msgs" => set!(o.batch_max_messages, reader.int(e).map(Some)),
        "timeout" => set!(o.batch_timeout, reader.duration_string(e).map(Some)),
    });
}
