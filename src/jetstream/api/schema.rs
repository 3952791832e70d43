//! What the bodies of requests may hold: names and types, as nats-server spells them in its complaints.
//!
//! Owns the tables that [`super::strict`] reads by.

use serde_json::{Map, Value};

use super::strict;

/// An object with known fields.
#[derive(Debug)]
pub struct Struct {
    /// How a path begins.
    pub name: &'static str,
    /// Its type in a complaint.
    pub go: &'static str,
    /// Its fields.
    pub fields: &'static [(&'static str, Kind)],
}

/// The type of a value.
#[derive(Debug)]
pub enum Kind {
    /// A string.
    Text,
    /// True or false.
    Bool,
    /// A whole number: the type's name, the least and the greatest.
    Int(&'static str, i64, i64),
    /// A whole number from 0 on, of 64 bits.
    Uint,
    /// A time.
    Time,
    /// A time that may be missing.
    TimePointer,
    /// One of a few words.
    Word(Style, &'static [&'static str]),
    /// An array.
    List(&'static Kind),
    /// An object with any names.
    Map(&'static Kind),
    /// An object with known fields.
    Object(&'static Struct),
}

/// How a word that is not known is complained about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Style {
    /// `can not unmarshal "…"`.
    Quoted,
    /// The same; the words match in any case.
    AnyCase,
    /// `unknown compression algorithm`, or a mismatch if it is no string.
    Compression,
    /// `unknown consumer action: …`.
    Action,
    /// `unknown priority policy: …`.
    Priority,
}

impl Style {
    pub(super) fn read(
        self,
        json: &[u8],
        words: &[&str],
        mismatch: impl FnOnce() -> String,
    ) -> Result<Value, String> {
        // But for compression the word has to be spelled without escapes.
        let word = match (self, json) {
            (Style::Compression, [b'"', ..]) => Some(strict::text_of(json).into_owned()),
            (_, [b'"', inner @ .., b'"']) => std::str::from_utf8(inner).ok().map(str::to_owned),
            _ => None,
        };
        let known = word.and_then(|word| match self {
            Style::AnyCase => words.iter().find(|w| w.eq_ignore_ascii_case(&word)),
            _ => words.iter().find(|w| **w == word),
        });
        if let Some(known) = known {
            return Ok(Value::from(*known));
        }
        let raw = String::from_utf8_lossy(json);
        Err(match self {
            Style::Quoted | Style::AnyCase => format!("can not unmarshal {}", strict::quoted(&raw)),
            Style::Compression if json[0] == b'"' || json == b"null" => {
                "unknown compression algorithm".to_owned()
            }
            Style::Compression => mismatch(),
            Style::Action => format!("unknown consumer action: {raw}"),
            Style::Priority => format!("unknown priority policy: {raw}"),
        })
    }
}

impl Kind {
    /// The type's name in a complaint.
    pub(super) fn go_name(&self) -> String {
        match self {
            Kind::Text | Kind::Word(..) => "string".to_owned(),
            Kind::Bool => "bool".to_owned(),
            Kind::Int(name, ..) => (*name).to_owned(),
            Kind::Uint => "uint64".to_owned(),
            Kind::Time | Kind::TimePointer => "time.Time".to_owned(),
            // Only the list of sources is one of pointers.
            Kind::List(Kind::Object(of)) if of.name == SOURCE.name => format!("[]*{}", of.go),
            Kind::List(of) => format!("[]{}", of.go_name()),
            Kind::Map(of) => format!("map[string]{}", of.go_name()),
            Kind::Object(of) => of.go.to_owned(),
        }
    }

    /// Whether `null` takes a value away, and does not just leave it as it is.
    pub(super) fn is_nullable(&self) -> bool {
        matches!(self, Kind::TimePointer | Kind::List(_) | Kind::Map(_) | Kind::Object(_))
    }

    /// What `null` stands for inside a list or map.
    pub(super) fn zero(&self) -> Value {
        match self {
            Kind::Text | Kind::Word(..) => Value::from(""),
            Kind::Bool => Value::from(false),
            Kind::Int(..) | Kind::Uint => Value::from(0),
            Kind::Time | Kind::TimePointer => Value::from("0001-01-01T00:00:00Z"),
            Kind::List(_) => Value::Array(Vec::new()),
            Kind::Map(_) | Kind::Object(_) => Value::Object(Map::new()),
        }
    }
}

const INT: Kind = Kind::Int("int", i64::MIN, i64::MAX);
const INT64: Kind = Kind::Int("int64", i64::MIN, i64::MAX);
const INT32: Kind = Kind::Int("int32", i32::MIN as i64, i32::MAX as i64);
const DURATION: Kind = Kind::Int("time.Duration", i64::MIN, i64::MAX);
const TEXTS: Kind = Kind::List(&Kind::Text);
const METADATA: Kind = Kind::Map(&Kind::Text);

static PLACEMENT: Struct = Struct {
    name: "Placement",
    go: "server.Placement",
    fields: &[("cluster", Kind::Text), ("tags", TEXTS), ("preferred", Kind::Text)],
};

static TRANSFORM: Struct = Struct {
    name: "SubjectTransformConfig",
    go: "server.SubjectTransformConfig",
    fields: &[("src", Kind::Text), ("dest", Kind::Text)],
};

static EXTERNAL: Struct = Struct {
    name: "ExternalStream",
    go: "server.ExternalStream",
    fields: &[("api", Kind::Text), ("deliver", Kind::Text)],
};

static SOURCE_CONSUMER: Struct = Struct {
    name: "StreamConsumerSource",
    go: "server.StreamConsumerSource",
    fields: &[("name", Kind::Text), ("deliver_subject", Kind::Text)],
};

static SOURCE: Struct = Struct {
    name: "StreamSource",
    go: "server.StreamSource",
    fields: &[
        ("name", Kind::Text),
        ("opt_start_seq", Kind::Uint),
        ("opt_start_time", Kind::TimePointer),
        ("filter_subject", Kind::Text),
        ("subject_transforms", Kind::List(&Kind::Object(&TRANSFORM))),
        ("external", Kind::Object(&EXTERNAL)),
        ("consumer", Kind::Object(&SOURCE_CONSUMER)),
    ],
};

static REPUBLISH: Struct = Struct {
    name: "RePublish",
    go: "server.RePublish",
    fields: &[("src", Kind::Text), ("dest", Kind::Text), ("headers_only", Kind::Bool)],
};

static CONSUMER_LIMITS: Struct = Struct {
    name: "StreamConsumerLimits",
    go: "server.StreamConsumerLimits",
    fields: &[("inactive_threshold", DURATION), ("max_ack_pending", INT)],
};

macro_rules! stream_config {
    ($name:ident, $called:literal, $go:literal $(, $more:expr)*) => {
        /// A stream's configuration.
        pub static $name: Struct = Struct {
            name: $called,
            go: $go,
            fields: &[
                ("name", Kind::Text),
                ("description", Kind::Text),
                ("subjects", TEXTS),
                ("retention", Kind::Word(Style::Quoted, &["limits", "interest", "workqueue"])),
                ("max_consumers", INT),
                ("max_msgs", INT64),
                ("max_bytes", INT64),
                ("max_age", DURATION),
                ("max_msgs_per_subject", INT64),
                ("max_msg_size", INT32),
                ("discard", Kind::Word(Style::AnyCase, &["old", "new"])),
                ("storage", Kind::Word(Style::Quoted, &["file", "memory"])),
                ("num_replicas", INT),
                ("no_ack", Kind::Bool),
                ("duplicate_window", DURATION),
                ("placement", Kind::Object(&PLACEMENT)),
                ("mirror", Kind::Object(&SOURCE)),
                ("sources", Kind::List(&Kind::Object(&SOURCE))),
                ("compression", Kind::Word(Style::Compression, &["none", "s2"])),
                ("first_seq", Kind::Uint),
                ("subject_transform", Kind::Object(&TRANSFORM)),
                ("republish", Kind::Object(&REPUBLISH)),
                ("allow_direct", Kind::Bool),
                ("mirror_direct", Kind::Bool),
                ("discard_new_per_subject", Kind::Bool),
                ("sealed", Kind::Bool),
                ("deny_delete", Kind::Bool),
                ("deny_purge", Kind::Bool),
                ("allow_rollup_hdrs", Kind::Bool),
                ("consumer_limits", Kind::Object(&CONSUMER_LIMITS)),
                ("allow_msg_ttl", Kind::Bool),
                ("subject_delete_marker_ttl", DURATION),
                ("allow_msg_counter", Kind::Bool),
                ("allow_atomic", Kind::Bool),
                ("allow_msg_schedules", Kind::Bool),
                ("persist_mode", Kind::Word(Style::Quoted, &["default", "async", ""])),
                ("allow_batched", Kind::Bool),
                ("metadata", METADATA),
                $($more,)*
            ],
        };
    };
}

stream_config!(STREAM_CONFIG, "StreamConfig", "server.StreamConfig");
stream_config!(STREAM_REQUEST, "StreamConfigRequest", "server.StreamConfigRequest", ("pedantic", Kind::Bool));

/// A consumer's configuration.
pub static CONSUMER_CONFIG: Struct = Struct {
    name: "ConsumerConfig",
    go: "server.ConsumerConfig",
    fields: &[
        ("durable_name", Kind::Text),
        ("name", Kind::Text),
        ("description", Kind::Text),
        (
            "deliver_policy",
            Kind::Word(
                Style::Quoted,
                &["all", "last", "new", "by_start_sequence", "by_start_time", "last_per_subject"],
            ),
        ),
        ("opt_start_seq", Kind::Uint),
        ("opt_start_time", Kind::TimePointer),
        ("ack_policy", Kind::Word(Style::Quoted, &["none", "all", "explicit", "flow_control"])),
        ("ack_wait", DURATION),
        ("max_deliver", INT),
        ("backoff", Kind::List(&DURATION)),
        ("filter_subject", Kind::Text),
        ("filter_subjects", TEXTS),
        ("replay_policy", Kind::Word(Style::Quoted, &["instant", "original"])),
        ("rate_limit_bps", Kind::Uint),
        ("sample_freq", Kind::Text),
        ("max_waiting", INT),
        ("max_ack_pending", INT),
        ("flow_control", Kind::Bool),
        ("headers_only", Kind::Bool),
        ("max_batch", INT),
        ("max_expires", DURATION),
        ("max_bytes", INT),
        ("deliver_subject", Kind::Text),
        ("deliver_group", Kind::Text),
        ("idle_heartbeat", DURATION),
        ("inactive_threshold", DURATION),
        ("num_replicas", INT),
        ("mem_storage", Kind::Bool),
        ("direct", Kind::Bool),
        ("sourcing", Kind::Bool),
        ("metadata", METADATA),
        ("pause_until", Kind::TimePointer),
        ("priority_groups", TEXTS),
        (
            "priority_policy",
            Kind::Word(Style::Priority, &["none", "overflow", "pinned_client", "prioritized"]),
        ),
        ("priority_timeout", DURATION),
    ],
};

/// The body of CONSUMER.CREATE.
pub static CONSUMER_REQUEST: Struct = Struct {
    name: "CreateConsumerRequest",
    go: "server.CreateConsumerRequest",
    fields: &[
        ("stream_name", Kind::Text),
        ("config", Kind::Object(&CONSUMER_CONFIG)),
        ("action", Kind::Word(Style::Action, &["", "create", "update"])),
        ("pedantic", Kind::Bool),
    ],
};

static LOST: Struct = Struct {
    name: "LostStreamData",
    go: "server.LostStreamData",
    fields: &[("msgs", Kind::List(&Kind::Uint)), ("bytes", Kind::Uint)],
};

/// A stream's state.
pub static STREAM_STATE: Struct = Struct {
    name: "StreamState",
    go: "server.StreamState",
    fields: &[
        ("messages", Kind::Uint),
        ("bytes", Kind::Uint),
        ("first_seq", Kind::Uint),
        ("first_ts", Kind::Time),
        ("last_seq", Kind::Uint),
        ("last_ts", Kind::Time),
        ("num_subjects", INT),
        ("subjects", Kind::Map(&Kind::Uint)),
        ("num_deleted", INT),
        ("deleted", Kind::List(&Kind::Uint)),
        ("lost", Kind::Object(&LOST)),
        ("consumer_count", INT),
    ],
};

macro_rules! requests {
    ($($(#[$doc:meta])* $name:ident $go:literal { $($field:literal: $kind:expr),* })*) => {
        $(
            $(#[$doc])*
            pub static $name: Struct =
                Struct { name: $go, go: concat!("server.", $go), fields: &[$(($field, $kind)),*] };
        )*
    };
}

requests! {
    /// The body of STREAM.NAMES.
    STREAM_NAMES "JSApiStreamNamesRequest" { "offset": INT, "subject": Kind::Text }
    /// The body of STREAM.LIST.
    STREAM_LIST "JSApiStreamListRequest" { "offset": INT, "subject": Kind::Text }
    /// The body of STREAM.INFO.
    STREAM_INFO "JSApiStreamInfoRequest" { "offset": INT, "deleted_details": Kind::Bool, "subjects_filter": Kind::Text }
    /// The body of STREAM.PURGE.
    STREAM_PURGE "JSApiStreamPurgeRequest" { "seq": Kind::Uint, "filter": Kind::Text, "keep": Kind::Uint }
    /// The body of STREAM.MSG.GET and DIRECT.GET.
    MSG_GET "JSApiMsgGetRequest" {
        "seq": Kind::Uint, "last_by_subj": Kind::Text, "next_by_subj": Kind::Text, "batch": INT, "max_bytes": INT,
        "start_time": Kind::TimePointer, "multi_last": TEXTS, "up_to_seq": Kind::Uint, "up_to_time": Kind::TimePointer,
        "no_hdr": Kind::Bool
    }
    /// The body of STREAM.MSG.DELETE.
    MSG_DELETE "JSApiMsgDeleteRequest" { "seq": Kind::Uint, "no_erase": Kind::Bool }
    /// The body of STREAM.SNAPSHOT.
    SNAPSHOT "JSApiStreamSnapshotRequest" {
        "deliver_subject": Kind::Text, "no_consumers": Kind::Bool, "chunk_size": INT, "window_size": INT, "jsck": Kind::Bool
    }
    /// The body of STREAM.RESTORE.
    RESTORE "JSApiStreamRestoreRequest" { "config": Kind::Object(&STREAM_CONFIG), "state": Kind::Object(&STREAM_STATE) }
    /// The body of STREAM.PEER.REMOVE.
    STREAM_PEER_REMOVE "JSApiStreamRemovePeerRequest" { "peer": Kind::Text }
    /// The body of STREAM.PEER.EVACUATE.
    STREAM_PEER_EVACUATE "JSApiStreamEvacuatePeerRequest" { "peer": Kind::Text }
    /// The body of CONSUMER.PEER.REMOVE.
    CONSUMER_PEER_REMOVE "JSApiConsumerRemovePeerRequest" { "peer": Kind::Text }
    /// The body of CONSUMER.PEER.EVACUATE.
    CONSUMER_PEER_EVACUATE "JSApiConsumerEvacuatePeerRequest" { "peer": Kind::Text }
    /// The body of the step-downs.
    STEP_DOWN "JSApiLeaderStepdownRequest" { "placement": Kind::Object(&PLACEMENT) }
    /// The body of CONSUMER.NAMES and CONSUMER.LIST.
    CONSUMERS "JSApiConsumersRequest" { "offset": INT }
    /// The body of CONSUMER.PAUSE.
    PAUSE "JSApiConsumerPauseRequest" { "pause_until": Kind::Time }
    /// The body of CONSUMER.UNPIN.
    UNPIN "JSApiConsumerUnpinRequest" { "group": Kind::Text }
    /// The payload of CONSUMER.MSG.NEXT, which has no name in complaints.
    PULL "" {
        "expires": DURATION, "batch": INT, "max_bytes": INT, "no_wait": Kind::Bool, "idle_heartbeat": DURATION,
        "group": Kind::Text, "min_pending": INT64, "min_ack_pending": INT64, "id": Kind::Text, "priority": INT
    }
    /// The body of CONSUMER.RESET.
    RESET "JSApiConsumerResetRequest" { "seq": Kind::Uint }
}
