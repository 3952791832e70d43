//! What API requests ask for.
//!
//! Owns the way from subject, headers and body to a [`Request`], with all errors that can be told without looking at any stream,
//! in the order in which nats-server tells them. Errors that come after a look-up but are already known (a body that is no JSON
//! where the stream comes first) ride in the request.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use stream::ApiError;
use stream::consumer::config::Action;
use stream::consumer::request::{Asked, PullRequest, Refused};
use stream::errors;

use super::kind::Kind;
use super::response::{self, StreamState};
use super::schema::{self, Struct};
use super::strict;
use super::time::Time;
use super::{ConsumerConfig, LEVEL, Placement, StreamConfig};

/// What the reading of requests depends on besides their text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rules {
    /// Whether unknown fields are errors: `jetstream { strict }`, on unless turned off.
    pub strict: bool,
    /// Whether the asking account has JetStream.
    pub enabled: bool,
    /// Whether the server is in a cluster.
    pub clustered: bool,
}

impl Default for Rules {
    fn default() -> Rules {
        Rules { strict: true, enabled: true, clustered: false }
    }
}

/// What became of a message to `$JS.API`.
#[derive(Clone, PartialEq, Debug)]
pub enum Parsed {
    /// It asks for something.
    Ask(Request),
    /// It is to be answered by an error.
    Refuse(Refusal),
    /// It is not answered at all: there is no such request.
    Ignore,
}

/// An error for a request.
#[derive(Clone, PartialEq, Debug)]
pub struct Refusal {
    /// Which request.
    pub kind: Kind,
    /// Why.
    pub error: ApiError,
}

impl Refusal {
    /// The answer.
    pub fn answer(&self) -> bytes::Bytes {
        response::failure(self.kind, &self.error)
    }
}

/// A request. Names come from the subject.
#[derive(Clone, PartialEq, Debug)]
pub enum Request {
    /// Usage and limits of the account.
    AccountInfo,
    /// A new stream. Subject and configuration agree on the name.
    StreamCreate {
        /// As it was given, without defaults.
        config: Box<StreamConfig>,
        /// Whether values that would be adjusted are errors.
        pedantic: bool,
    },
    /// Changes to a stream.
    StreamUpdate {
        /// The stream.
        stream: String,
        /// As it was given. Its checks come first, then [`name_matches`], then the look-up.
        config: Box<StreamConfig>,
        /// Whether values that would be adjusted are errors.
        pedantic: bool,
    },
    /// Names of streams.
    StreamNames {
        /// Names to leave out before the first.
        offset: usize,
        /// Only streams whose subjects overlap with this; empty for all.
        subject: String,
    },
    /// Infos of streams.
    StreamList {
        /// Streams to leave out before the first.
        offset: usize,
        /// Only streams whose subjects overlap with this; empty for all.
        subject: String,
    },
    /// A stream.
    StreamInfo {
        /// The stream.
        stream: String,
        /// Whether to list deleted sequences.
        deleted_details: bool,
        /// Which subjects to count; empty for none.
        subjects_filter: String,
        /// Subjects to leave out before the first.
        offset: usize,
    },
    /// The end of a stream.
    StreamDelete {
        /// The stream.
        stream: String,
    },
    /// Messages to remove.
    StreamPurge {
        /// The stream.
        stream: String,
        /// Only messages of this subject; empty for all.
        filter: String,
        /// Only messages before this sequence; 0 for all.
        seq: u64,
        /// How many to keep; not together with `seq`.
        keep: u64,
    },
    /// A message.
    MsgGet {
        /// The stream.
        stream: String,
        /// Which.
        get: MsgGet,
    },
    /// A message to delete.
    MsgDelete {
        /// The stream.
        stream: String,
        /// Its sequence.
        seq: u64,
        /// Whether its bytes may stay on disk.
        no_erase: bool,
    },
    /// A backup.
    StreamSnapshot {
        /// The stream, which is looked up before the rest matters.
        stream: String,
        /// How.
        how: Result<Snapshot, ApiError>,
    },
    /// The return of a backup. Subject and configuration agree on the name.
    StreamRestore {
        /// As it was backed up.
        config: Box<StreamConfig>,
        /// As it was backed up.
        state: StreamState,
    },
    /// Another server in the place of one.
    StreamPeer {
        /// [`Kind::StreamPeerRemove`] or [`Kind::StreamPeerEvacuate`].
        kind: Kind,
        /// The stream.
        stream: String,
        /// The server's name or id.
        peer: String,
    },
    /// The end of a move.
    StreamCancelMove {
        /// The stream.
        stream: String,
    },
    /// Another leader.
    StreamStepDown {
        /// The stream.
        stream: String,
        /// Where, if it matters. An error in it is told after the stream was looked up.
        placement: Result<Option<Placement>, ApiError>,
    },
    /// A consumer, new or changed.
    ConsumerCreate(Box<ConsumerCreate>),
    /// Names of consumers.
    ConsumerNames {
        /// The stream.
        stream: String,
        /// Names to leave out before the first.
        offset: usize,
    },
    /// Infos of consumers.
    ConsumerList {
        /// The stream.
        stream: String,
        /// Consumers to leave out before the first.
        offset: usize,
    },
    /// A consumer.
    ConsumerInfo {
        /// The stream.
        stream: String,
        /// The consumer.
        consumer: String,
    },
    /// The end of a consumer.
    ConsumerDelete {
        /// The stream.
        stream: String,
        /// The consumer.
        consumer: String,
    },
    /// A pause, or its end.
    ConsumerPause {
        /// The stream.
        stream: String,
        /// The consumer.
        consumer: String,
        /// Until when; [`Time::ZERO`] to resume.
        until: Time,
    },
    /// Another client to pin.
    ConsumerUnpin {
        /// The stream.
        stream: String,
        /// The consumer.
        consumer: String,
        /// The priority group.
        group: String,
    },
    /// A new start of a consumer. Not answered if there is no such consumer.
    ConsumerReset {
        /// The stream.
        stream: String,
        /// The consumer.
        consumer: String,
        /// Where; 0 for behind its ack floor. An error is told only if there is such a consumer.
        seq: Result<u64, ApiError>,
    },
    /// Another leader.
    ConsumerStepDown {
        /// The stream.
        stream: String,
        /// The consumer.
        consumer: String,
        /// Where, if it matters. An error in it is told after the stream was looked up.
        placement: Result<Option<Placement>, ApiError>,
    },
    /// Another server in the place of one.
    ConsumerPeer {
        /// [`Kind::ConsumerPeerRemove`] or [`Kind::ConsumerPeerEvacuate`].
        kind: Kind,
        /// The stream.
        stream: String,
        /// The consumer.
        consumer: String,
        /// The server's name or id.
        peer: String,
    },
}

/// Which message is asked for.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(default)]
pub struct MsgGet {
    /// This one, or the first to look at.
    pub seq: u64,
    /// The last of a subject.
    pub last_by_subj: String,
    /// The next of a subject.
    pub next_by_subj: String,
    /// How many.
    pub batch: i64,
    /// How many bytes.
    pub max_bytes: i64,
    /// From when on.
    pub start_time: Option<Time>,
    /// The last ones of several subjects.
    pub multi_last: Vec<String>,
    /// Up to which sequence.
    pub up_to_seq: u64,
    /// Up to when.
    pub up_to_time: Option<Time>,
    /// Whether only the payload is wanted.
    pub no_hdr: bool,
}

/// How to make a backup.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Snapshot {
    /// Where chunks go.
    pub deliver_subject: String,
    /// Whether consumers stay out.
    pub no_consumers: bool,
    /// Bytes of a chunk; 0 for the default. See [`Snapshot::chunk`].
    pub chunk_size: i64,
    /// Bytes on the way; 0 for the default. See [`Snapshot::window`].
    pub window_size: i64,
    /// Whether to check all messages first.
    #[serde(rename = "jsck")]
    pub check: bool,
}

impl Snapshot {
    /// Bytes of a chunk, in its bounds.
    pub fn chunk(&self) -> usize {
        const DEFAULT: i64 = 128 * 1024;
        let asked = if self.chunk_size == 0 { DEFAULT } else { self.chunk_size };
        usize::try_from(asked.clamp(1024, 1024 * 1024)).expect("bounded by small positive numbers")
    }

    /// Bytes on the way, in their bounds.
    pub fn window(&self) -> usize {
        const DEFAULT: i64 = 8 * 1024 * 1024;
        let asked = if self.window_size <= 0 { DEFAULT } else { self.window_size };
        usize::try_from(asked.clamp(1024, 32 * 1024 * 1024)).expect("bounded by small positive numbers")
    }
}

/// A consumer, new or changed.
#[derive(Clone, PartialEq, Debug)]
pub struct ConsumerCreate {
    /// The stream.
    pub stream: String,
    /// As it was given, its name as the subject has it. An ephemeral's name may be empty.
    pub config: ConsumerConfig,
    /// Whether it has to be new, or has to exist.
    pub action: Action,
    /// Whether values that would be adjusted are errors.
    pub pedantic: bool,
    /// The identity that a mirror or source expects of the stream (`Nats-Stream-Identity`); empty if none.
    pub identity: String,
}

/// Whether subject and body agree on a stream's name.
///
/// # Errors
/// 10056 if not.
pub fn name_matches(subject: &str, body: &str) -> Result<(), ApiError> {
    if subject == body { Ok(()) } else { Err(errors::STREAM_MISMATCH.error()) }
}

/// Whether a request asks for a level that this server has.
///
/// # Errors
/// 10185 if not.
pub fn level_is_met(headers: &[u8]) -> Result<(), ApiError> {
    let Some(asked) = stream::headers::get(headers, b"Nats-Required-Api-Level").filter(|v| !v.is_empty())
    else {
        return Ok(());
    };
    let level = std::str::from_utf8(asked).ok().and_then(|level| level.parse::<i64>().ok());
    if level.is_some_and(|level| level <= i64::from(LEVEL)) {
        Ok(())
    } else {
        Err(errors::REQUIRED_API_LEVEL.error())
    }
}

/// Reads a pull request. What is no request is complained about as the other requests' bodies are.
pub fn pull(headers: &[u8], body: &[u8]) -> Asked {
    if !headers.is_empty() && level_is_met(headers).is_err() {
        return Err(Refused::level());
    }
    let again = |why| {
        let fields = strict::read_lenient(body.trim_ascii(), &schema::PULL)?;
        let read: PullRequest = serde_json::from_value(Value::Object(fields)).map_err(|_| why)?;
        Ok((read.checked()?, true))
    };
    PullRequest::parse(body).or_else(again).map_err(Refused::bad)
}

fn invalid_json(text: impl std::fmt::Display) -> ApiError {
    errors::INVALID_JSON.with(text)
}

/// Reads a request. The subject is without domain: `$JS.API.…`.
pub fn parse(subject: &str, headers: &[u8], body: &[u8], rules: Rules) -> Parsed {
    let tokens: Vec<&str> = subject.split('.').collect();
    let Some((kind, names)) = Kind::of(&tokens) else { return Parsed::Ignore };
    let at = |i: usize| tokens.get(names + i).map_or(String::new(), |t| (*t).to_owned());
    let reader = Reader { kind, stream: at(0), consumer: at(1), headers, body, rules };
    match reader.read(&tokens) {
        Ok(request) => Parsed::Ask(request),
        Err(error) => Parsed::Refuse(Refusal { kind, error }),
    }
}

struct Reader<'a> {
    kind: Kind,
    stream: String,
    consumer: String,
    headers: &'a [u8],
    body: &'a [u8],
    rules: Rules,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Listing {
    offset: i64,
    subject: String,
    deleted_details: bool,
    subjects_filter: String,
}

impl Listing {
    fn offset(&self) -> usize {
        usize::try_from(self.offset).unwrap_or(0)
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Numbers {
    seq: u64,
    keep: u64,
    filter: String,
    no_erase: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Words {
    peer: String,
    group: String,
    placement: Option<Placement>,
    pause_until: Time,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct CreateBody {
    stream_name: String,
    config: ConsumerConfig,
    action: Action,
    pedantic: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RestoreBody {
    config: StreamConfig,
    state: StreamState,
}

impl Reader<'_> {
    fn read(self, tokens: &[&str]) -> Result<Request, ApiError> {
        // What only a cluster can do is refused before anything else is looked at.
        if self.kind.needs_cluster() && !self.rules.clustered {
            return Err(errors::CLUSTER_REQUIRED.error());
        }
        match self.kind {
            Kind::AccountInfo => self.admitted().map(|()| Request::AccountInfo),
            Kind::StreamCreate => self.stream_create(),
            Kind::StreamUpdate => {
                self.admitted()?;
                let (config, pedantic) = self.stream_config()?;
                Ok(Request::StreamUpdate { stream: self.stream, config: Box::new(config), pedantic })
            }
            Kind::StreamNames => {
                let asked: Listing = self.optional(&schema::STREAM_NAMES)?;
                Ok(Request::StreamNames { offset: asked.offset(), subject: asked.subject })
            }
            Kind::StreamList => {
                let asked: Listing = self.optional(&schema::STREAM_LIST)?;
                Ok(Request::StreamList { offset: asked.offset(), subject: asked.subject })
            }
            Kind::StreamInfo => {
                let asked: Listing = self.optional(&schema::STREAM_INFO)?;
                Ok(Request::StreamInfo {
                    stream: self.stream,
                    offset: asked.offset(),
                    deleted_details: asked.deleted_details,
                    subjects_filter: asked.subjects_filter,
                })
            }
            Kind::StreamDelete => {
                self.admitted()?;
                self.nothing()?;
                Ok(Request::StreamDelete { stream: self.stream })
            }
            Kind::StreamPurge => {
                let asked: Numbers = self.optional(&schema::STREAM_PURGE)?;
                if asked.seq > 0 && asked.keep > 0 {
                    return Err(errors::BAD_REQUEST.error());
                }
                Ok(Request::StreamPurge {
                    stream: self.stream,
                    filter: asked.filter,
                    seq: asked.seq,
                    keep: asked.keep,
                })
            }
            Kind::MsgGet => self.msg_get(),
            Kind::MsgDelete => {
                self.admitted()?;
                self.something()?;
                let asked: Numbers = self.body(&schema::MSG_DELETE)?;
                Ok(Request::MsgDelete { stream: self.stream, seq: asked.seq, no_erase: asked.no_erase })
            }
            Kind::StreamSnapshot => {
                self.admitted()?;
                self.something()?;
                let how = self.body::<Snapshot>(&schema::SNAPSHOT).and_then(|how| {
                    let fine = subject::is_literal(how.deliver_subject.as_bytes());
                    if fine { Ok(how) } else { Err(errors::SNAPSHOT_DELIVER_SUBJECT_INVALID.error()) }
                });
                Ok(Request::StreamSnapshot { stream: self.stream, how })
            }
            Kind::StreamRestore => self.restore(),
            Kind::StreamPeerRemove => {
                let peer = self.peer(&schema::STREAM_PEER_REMOVE)?;
                Ok(Request::StreamPeer { kind: self.kind, stream: self.stream, peer })
            }
            Kind::StreamPeerEvacuate => {
                let peer = self.peer(&schema::STREAM_PEER_EVACUATE)?;
                Ok(Request::StreamPeer { kind: self.kind, stream: self.stream, peer })
            }
            Kind::StreamCancelMove => {
                self.admitted()?;
                Ok(Request::StreamCancelMove { stream: self.stream })
            }
            Kind::StreamStepDown => {
                let placement = self.placement();
                Ok(Request::StreamStepDown { stream: self.stream, placement })
            }
            Kind::ConsumerCreate => self.consumer_create(tokens),
            Kind::ConsumerNames => {
                let asked: Listing = self.optional(&schema::CONSUMERS)?;
                Ok(Request::ConsumerNames { stream: self.stream, offset: asked.offset() })
            }
            Kind::ConsumerList => {
                let asked: Listing = self.optional(&schema::CONSUMERS)?;
                Ok(Request::ConsumerList { stream: self.stream, offset: asked.offset() })
            }
            Kind::ConsumerInfo => {
                self.nothing()?;
                self.admitted()?;
                Ok(Request::ConsumerInfo { stream: self.stream, consumer: self.consumer })
            }
            Kind::ConsumerDelete => {
                self.admitted()?;
                self.nothing()?;
                Ok(Request::ConsumerDelete { stream: self.stream, consumer: self.consumer })
            }
            Kind::ConsumerPause => {
                let asked: Words = self.if_json(&schema::PAUSE)?;
                self.admitted()?;
                let until = asked.pause_until;
                Ok(Request::ConsumerPause { stream: self.stream, consumer: self.consumer, until })
            }
            Kind::ConsumerUnpin => self.unpin(),
            Kind::ConsumerReset => {
                let seq = self.reset_seq();
                Ok(Request::ConsumerReset { stream: self.stream, consumer: self.consumer, seq })
            }
            Kind::ConsumerStepDown => {
                let placement = self.placement();
                Ok(Request::ConsumerStepDown { stream: self.stream, consumer: self.consumer, placement })
            }
            Kind::ConsumerPeerRemove => {
                let peer = self.peer(&schema::CONSUMER_PEER_REMOVE)?;
                Ok(Request::ConsumerPeer {
                    kind: self.kind,
                    stream: self.stream,
                    consumer: self.consumer,
                    peer,
                })
            }
            Kind::ConsumerPeerEvacuate => {
                let peer = self.peer(&schema::CONSUMER_PEER_EVACUATE)?;
                Ok(Request::ConsumerPeer {
                    kind: self.kind,
                    stream: self.stream,
                    consumer: self.consumer,
                    peer,
                })
            }
        }
    }

    /// The level, then the account.
    fn admitted(&self) -> Result<(), ApiError> {
        level_is_met(self.headers)?;
        if self.rules.enabled { Ok(()) } else { Err(errors::NOT_ENABLED_FOR_ACCOUNT.error()) }
    }

    fn nothing(&self) -> Result<(), ApiError> {
        if strict::is_empty(self.body) { Ok(()) } else { Err(errors::NOT_EMPTY_REQUEST.error()) }
    }

    fn something(&self) -> Result<(), ApiError> {
        if strict::is_empty(self.body) { Err(errors::BAD_REQUEST.error()) } else { Ok(()) }
    }

    fn fields(&self, of: &'static Struct) -> Result<Map<String, Value>, ApiError> {
        strict::read(self.body, of, self.rules.strict).map_err(invalid_json)
    }

    fn body<T: DeserializeOwned>(&self, of: &'static Struct) -> Result<T, ApiError> {
        typed(self.fields(of)?)
    }

    /// A body that counts only if it looks like JSON.
    fn if_json<T: DeserializeOwned + Default>(&self, of: &'static Struct) -> Result<T, ApiError> {
        if strict::looks_like_json(self.body) { self.body(of) } else { Ok(T::default()) }
    }

    /// The same after the level and the account.
    fn optional<T: DeserializeOwned + Default>(&self, of: &'static Struct) -> Result<T, ApiError> {
        self.admitted()?;
        self.if_json(of)
    }

    fn peer(&self, of: &'static Struct) -> Result<String, ApiError> {
        self.admitted()?;
        self.something()?;
        let peer = self.body::<Words>(of)?.peer;
        if peer.is_empty() { Err(errors::BAD_REQUEST.error()) } else { Ok(peer) }
    }

    fn placement(&self) -> Result<Option<Placement>, ApiError> {
        self.optional::<Words>(&schema::STEP_DOWN).map(|asked| asked.placement)
    }

    fn stream_config(&self) -> Result<(StreamConfig, bool), ApiError> {
        let mut fields = self.fields(&schema::STREAM_REQUEST)?;
        let pedantic = fields.remove("pedantic") == Some(Value::Bool(true));
        Ok((typed(fields)?, pedantic))
    }

    fn stream_create(self) -> Result<Request, ApiError> {
        self.admitted()?;
        let (config, pedantic) = self.stream_config()?;
        name_matches(&self.stream, &config.name)?;
        if has_separator(&config.name) {
            return Err(errors::STREAM_NAME_CONTAINS_PATH_SEPARATORS.error());
        }
        if config.sealed {
            return Err(
                errors::STREAM_INVALID_CONFIG.with("stream configuration for create can not be sealed")
            );
        }
        if config.mirror_direct && config.mirror.is_none() {
            let text = "stream has no mirror but does have mirror direct";
            return Err(errors::STREAM_INVALID_CONFIG.with(text));
        }
        Ok(Request::StreamCreate { config: Box::new(config), pedantic })
    }

    fn restore(self) -> Result<Request, ApiError> {
        self.admitted()?;
        self.something()?;
        let RestoreBody { mut config, state } = self.body(&schema::RESTORE)?;
        if config.name.is_empty() {
            config.name.clone_from(&self.stream);
        }
        name_matches(&self.stream, &config.name)?;
        if has_separator(&self.stream) {
            return Err(errors::STREAM_NAME_CONTAINS_PATH_SEPARATORS.error());
        }
        Ok(Request::StreamRestore { config: Box::new(config), state })
    }

    fn msg_get(self) -> Result<Request, ApiError> {
        self.admitted()?;
        self.something()?;
        let get: MsgGet = self.body(&schema::MSG_GET)?;
        let (seq, last, next) = (get.seq > 0, !get.last_by_subj.is_empty(), !get.next_by_subj.is_empty());
        let time = get.start_time.is_some();
        let many = get.batch > 0 || get.max_bytes > 0;
        let none = !(seq || last || next || time);
        let conflict = (last && (seq || next || time)) || (seq && time);
        if many || none || conflict {
            return Err(errors::BAD_REQUEST.error());
        }
        Ok(Request::MsgGet { stream: self.stream, get })
    }

    fn unpin(self) -> Result<Request, ApiError> {
        level_is_met(self.headers)?;
        let asked = strict::read_lenient(self.body, &schema::UNPIN).map_err(invalid_json)?;
        let Words { group, .. } = typed(asked)?;
        if group.is_empty() {
            return Err(invalid_json("consumer group not specified"));
        }
        let fine = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'/' | b'=');
        if group.len() > 16 || !group.bytes().all(fine) {
            return Err(errors::CONSUMER_INVALID_GROUP_NAME.error());
        }
        self.admitted()?;
        Ok(Request::ConsumerUnpin { stream: self.stream, consumer: self.consumer, group })
    }

    fn reset_seq(&self) -> Result<u64, ApiError> {
        self.admitted()?;
        if self.body.is_empty() {
            return Ok(0);
        }
        let asked = strict::read_lenient(self.body, &schema::RESET).map_err(invalid_json)?;
        typed::<Numbers>(asked).map(|asked| asked.seq)
    }

    fn consumer_create(self, tokens: &[&str]) -> Result<Request, ApiError> {
        let CreateBody { stream_name, mut config, action, pedantic } =
            self.body(&schema::CONSUMER_REQUEST)?;
        self.admitted()?;
        let legacy_durable = tokens[3] == "DURABLE";
        let legacy_ephemeral = tokens.len() == 5;
        let name = if legacy_ephemeral { config.name.clone() } else { self.consumer };
        name_matches(&self.stream, &stream_name)?;
        if has_separator(&name) {
            return Err(errors::CONSUMER_NAME_CONTAINS_PATH_SEPARATORS.error());
        }
        if legacy_durable && config.durable_name.is_empty() {
            return Err(errors::CONSUMER_DURABLE_NAME_NOT_SET.error());
        }
        if legacy_ephemeral {
            if !config.durable_name.is_empty() {
                return Err(errors::CONSUMER_EPHEMERAL_WITH_DURABLE_NAME.error());
            }
        } else {
            if !config.durable_name.is_empty() && config.durable_name != name {
                return Err(errors::CONSUMER_DURABLE_NAME_NOT_MATCH_SUBJECT.error());
            }
            config.name = name;
        }
        let filter =
            if legacy_durable { String::new() } else { tokens.get(6..).unwrap_or_default().join(".") };
        if !filter.is_empty() {
            if !config.filter_subjects.is_empty() {
                return Err(errors::CONSUMER_MULTIPLE_FILTERS_NOT_ALLOWED.error());
            }
            if config.filter_subject != filter {
                return Err(errors::CONSUMER_CREATE_FILTER_SUBJECT_MISMATCH.error());
            }
        }
        if config.num_replicas > 1 && !self.rules.clustered {
            return Err(errors::STREAM_REPLICAS_NOT_SUPPORTED.error());
        }
        let identity = stream::headers::get(self.headers, super::identity::HEADER).unwrap_or_default();
        let identity = String::from_utf8_lossy(identity).into_owned();
        Ok(Request::ConsumerCreate(Box::new(ConsumerCreate {
            stream: self.stream,
            config,
            action,
            pedantic,
            identity,
        })))
    }
}

fn has_separator(name: &str) -> bool {
    name.contains(['/', '\\'])
}

/// A type from fields that have passed the schema.
fn typed<T: DeserializeOwned>(mut fields: Map<String, Value>) -> Result<T, ApiError> {
    for field in fields.values_mut() {
        tame(field);
    }
    for name in CONFIG_TIMES {
        tame_field(&mut fields, name);
    }
    serde_json::from_value(Value::Object(fields)).map_err(invalid_json)
}

/// Times in configurations, which know fewer years than the API does.
const CONFIG_TIMES: [&str; 2] = ["opt_start_time", "pause_until"];

/// Leaves out times that stand for "never" and brings others into the years that configurations know.
fn tame(value: &mut Value) {
    match value {
        Value::Array(list) => list.iter_mut().for_each(tame),
        Value::Object(fields) => {
            for name in CONFIG_TIMES {
                tame_field(fields, name);
            }
            fields.values_mut().for_each(tame);
        }
        _ => {}
    }
}

fn tame_field(fields: &mut Map<String, Value>, name: &str) {
    let Some(Value::String(text)) = fields.get_mut(name) else { return };
    let Some(time) = Time::parse(text) else { return };
    if time.is_zero() {
        fields.remove(name);
    } else if stream::Time::parse(text).is_none() {
        *text = Time::from_nanos(time.nanos()).to_string();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(subject: &str, body: &str) -> Request {
        match parse(subject, b"", body.as_bytes(), Rules::default()) {
            Parsed::Ask(request) => request,
            other => panic!("{subject} {body}: {other:?}"),
        }
    }

    #[test]
    fn names_come_from_the_subject() {
        let Request::ConsumerCreate(create) = ask(
            "$JS.API.CONSUMER.CREATE.S.C.f.*.>",
            r#"{"stream_name":"S","config":{"filter_subject":"f.*.>"}}"#,
        ) else {
            panic!("a consumer")
        };
        assert_eq!((create.stream.as_str(), create.config.name.as_str()), ("S", "C"));
        let Request::ConsumerCreate(create) = ask(
            "$JS.API.CONSUMER.DURABLE.CREATE.S.D",
            r#"{"stream_name":"S","config":{"durable_name":"D"},"action":"update"}"#,
        ) else {
            panic!("a consumer")
        };
        assert_eq!((create.config.name.as_str(), create.action), ("D", Action::Update));
        assert_eq!(
            ask("$JS.API.CONSUMER.UNPIN.S.C", r#"{"group":"g"}"#),
            Request::ConsumerUnpin { stream: "S".into(), consumer: "C".into(), group: "g".into() }
        );
        assert_eq!(
            ask("$JS.API.STREAM.MSG.DELETE.S", r#"{"seq":7,"no_erase":true}"#),
            Request::MsgDelete { stream: "S".into(), seq: 7, no_erase: true }
        );
        assert_eq!(
            ask("$JS.API.STREAM.PURGE.S", r#"{"seq":7,"filter":"a.>"}"#),
            Request::StreamPurge { stream: "S".into(), filter: "a.>".into(), seq: 7, keep: 0 }
        );
    }

    #[test]
    fn what_only_clusters_do() {
        let rules = Rules { clustered: true, ..Rules::default() };
        let told = |subject: &str, body: &str| match parse(subject, b"", body.as_bytes(), rules) {
            Parsed::Refuse(refusal) => refusal.error.description.into_owned(),
            other => format!("{other:?}"),
        };
        let mismatch = |of: &str| {
            format!(
                "invalid JSON: json: cannot unmarshal number into Go struct field {of}.peer of type string"
            )
        };
        let peer = r#"{"peer":5}"#;
        assert_eq!(told("$JS.API.STREAM.PEER.REMOVE.S", peer), mismatch("JSApiStreamRemovePeerRequest"));
        assert_eq!(told("$JS.API.STREAM.PEER.EVACUATE.S", peer), mismatch("JSApiStreamEvacuatePeerRequest"));
        assert_eq!(
            told("$JS.API.CONSUMER.PEER.REMOVE.S.C", peer),
            mismatch("JSApiConsumerRemovePeerRequest")
        );
        assert_eq!(told("$JS.API.CONSUMER.PEER.REMOVE.S.C", "{}"), "bad request");
        let down =
            parse("$JS.API.STREAM.LEADER.STEPDOWN.S", b"", br#"{"placement":{"preferred":"n1"}}"#, rules);
        let placement = Placement { preferred: "n1".into(), ..Placement::default() };
        let expected = Request::StreamStepDown { stream: "S".into(), placement: Ok(Some(placement)) };
        assert_eq!(down, Parsed::Ask(expected));
    }

    #[test]
    fn times_beyond_what_configurations_know_are_brought_in() {
        let until = |text: &str| {
            let body = format!(r#"{{"stream_name":"S","config":{{"pause_until":"{text}"}}}}"#);
            let Request::ConsumerCreate(create) = ask("$JS.API.CONSUMER.CREATE.S", &body) else {
                panic!("a consumer")
            };
            create.config.pause_until.map(|t| t.to_string())
        };
        assert_eq!(until("0001-01-01T00:00:00Z"), None);
        assert_eq!(until("2031-02-03T04:05:06Z").as_deref(), Some("2031-02-03T04:05:06Z"));
        assert_eq!(until("9999-01-01T00:00:00Z").as_deref(), Some("2262-04-11T23:47:16.854775807Z"));
        assert_eq!(
            ask("$JS.API.CONSUMER.PAUSE.S.C", r#"{"pause_until":"0001-01-01T00:00:00Z"}"#),
            Request::ConsumerPause { stream: "S".into(), consumer: "C".into(), until: Time::ZERO }
        );
    }

    #[test]
    fn backups_have_bounds() {
        let snapshot = |chunk_size, window_size| Snapshot { chunk_size, window_size, ..Snapshot::default() };
        assert_eq!((snapshot(0, 0).chunk(), snapshot(0, 0).window()), (128 << 10, 8 << 20));
        assert_eq!((snapshot(1, 1).chunk(), snapshot(1, 1).window()), (1 << 10, 1 << 10));
        assert_eq!(
            (snapshot(i64::MAX, i64::MAX).chunk(), snapshot(-1, i64::MAX).window()),
            (1 << 20, 32 << 20)
        );
    }

    #[test]
    fn api_2_depth_costs_no_stack() {
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            let body = format!("{}1{}", open.repeat(1_000_000), close.repeat(1_000_000));
            for strict in [false, true] {
                let told =
                    strict::read(body.as_bytes(), &schema::STREAM_REQUEST, strict).expect_err("too deep");
                assert!(told.starts_with("exceeded max depth"), "{told}");
            }
            assert!(!strict::is_empty(body.as_bytes()));
            let fine = format!("{{\"a\":{}1{}}}", open.repeat(9_999), close.repeat(9_999));
            assert_eq!(strict::read(fine.as_bytes(), &schema::STREAM_REQUEST, false), Ok(Map::new()));
        }
    }

    /// JSON that the table takes, with every field.
    fn sample(kind: &schema::Kind, odds: &mut impl FnMut(u64) -> u64) -> Value {
        use schema::Kind as K;
        match kind {
            K::Text => Value::from(["x", "a.b", "é\u{2028}"][odds(3) as usize]),
            K::Bool => Value::from(true),
            K::Int(_, least, most) => Value::from([1, *least, *most][odds(3) as usize]),
            K::Uint => Value::from([1, u64::MAX][odds(2) as usize]),
            K::Time | K::TimePointer => {
                let times =
                    ["2024-01-01T00:00:00Z", "1700-01-01T1:00:00,5+01:30", "9999-12-31T23:59:59-23:59"];
                Value::from(times[odds(3) as usize])
            }
            // Never the first: that is the default, which is left out of what is written.
            K::Word(_, words) => Value::from(words[1 + odds(words.len() as u64 - 1) as usize]),
            K::List(of) => {
                let null = if matches!(of, K::Object(_)) { sample(of, odds) } else { Value::Null };
                Value::from(vec![sample(of, odds), null])
            }
            K::Map(of) => serde_json::json!({ "k": sample(of, odds), "n": null }),
            K::Object(of) => {
                let fields = of.fields.iter().map(|(name, kind)| ((*name).to_owned(), sample(kind, odds)));
                Value::Object(fields.collect())
            }
        }
    }

    /// Reads a body in which every field is set, and what becomes of it when it is written again.
    fn all_fields<T: DeserializeOwned + serde::Serialize>(
        of: &'static Struct,
        seed: u64,
    ) -> Map<String, Value> {
        let mut state = seed;
        let mut odds = |n: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % n
        };
        let body = sample(&schema::Kind::Object(of), &mut odds).to_string();
        let fields = strict::read(body.as_bytes(), of, true).unwrap_or_else(|e| panic!("{e}: {body}"));
        let read: T = typed(fields).unwrap_or_else(|e| panic!("{e}: {body}"));
        let Ok(Value::Object(written)) = serde_json::to_value(&read) else { panic!("an object") };
        written
    }

    proptest::proptest! {
        #[test]
        fn api_1_what_the_table_takes_serde_takes(seed: u64) {
            let names = |of: &'static Struct| of.fields.iter().map(|(n, _)| (*n).to_owned()).collect::<Vec<_>>();
            let written = all_fields::<StreamConfig>(&schema::STREAM_CONFIG, seed);
            // What is default is left out, and all else arrives, in the order of the table.
            let mut expected = names(&schema::STREAM_CONFIG);
            expected.retain(|name| name != "persist_mode" || written.contains_key(name));
            proptest::prop_assert_eq!(written.keys().cloned().collect::<Vec<_>>(), expected);
            let written = all_fields::<ConsumerConfig>(&schema::CONSUMER_CONFIG, seed);
            proptest::prop_assert_eq!(written.keys().cloned().collect::<Vec<_>>(), names(&schema::CONSUMER_CONFIG));
            let written = all_fields::<StreamState>(&schema::STREAM_STATE, seed);
            // A negative count counts as none, which is left out.
            let mut expected = names(&schema::STREAM_STATE);
            expected.retain(|name| !name.starts_with("num_") || written.contains_key(name));
            proptest::prop_assert_eq!(written.keys().cloned().collect::<Vec<_>>(), expected);
            for of in [&schema::MSG_GET, &schema::SNAPSHOT, &schema::PAUSE, &schema::STREAM_INFO, &schema::STEP_DOWN] {
                let mut odds = |n: u64| seed % n;
                let body = sample(&schema::Kind::Object(of), &mut odds).to_string();
                let fields = strict::read(body.as_bytes(), of, true).expect("the table takes it");
                let fine = typed::<MsgGet>(fields.clone()).is_ok()
                    && typed::<Snapshot>(fields.clone()).is_ok()
                    && typed::<Listing>(fields.clone()).is_ok()
                    && typed::<Words>(fields).is_ok();
                proptest::prop_assert!(fine, "{}", body);
            }
        }

        #[test]
        // API-2
        fn api_2_no_body_panics(subject in "\\$JS\\.API\\.(STREAM|CONSUMER)\\.[A-Z]{0,9}(\\.[A-Z]{1,9}){0,4}", body: Vec<u8>, strict: bool) {
            let rules = Rules { strict, clustered: true, ..Rules::default() };
            let _ = parse(&subject, &body, &body, rules);
            for of in [&schema::STREAM_REQUEST, &schema::CONSUMER_REQUEST, &schema::RESTORE] {
                let _ = strict::read(&body, of, strict);
            }
        }

        #[test]
        fn api_2_no_json_panics(body in r#"([{}\[\],:"0-9a-z\\ _.+-]|"config"|"name"|"sources"|"metadata"|"subjects"|"opt_start_time"|"2024-0|\\u[d0-9a-f]{4}|null|é){0,40}"#) {
            for of in [&schema::STREAM_REQUEST, &schema::CONSUMER_REQUEST, &schema::RESTORE] {
                let strict = strict::read(body.as_bytes(), of, true);
                let lenient = strict::read(body.as_bytes(), of, false);
                // Whatever strict takes, lenient takes.
                proptest::prop_assert!(strict.is_err() || strict == lenient);
                if serde_json::from_str::<serde_json::Value>(&body).is_ok_and(|v| v == serde_json::json!({})) {
                    proptest::prop_assert!(strict::is_empty(body.as_bytes()));
                }
            }
        }
    }
}
