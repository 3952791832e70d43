//! Requests of `$JS.API`, each answered in a task of its own.
//!
//! Owns the order: read, look up, check, change, answer, tell the audit. Does not own the texts (`api`) or rules (`stream`).

pub mod consumers;
pub mod direct;
pub mod info;
pub mod peers;
pub mod restores;
pub mod streams;

use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use stream::{ApiError, errors};

use crate::{
    JetStream,
    account::{Asked, Assets},
    advisory,
    api::{
        self, Kind, Parsed, Request, Rules, identity,
        response::{AccountInfo, AccountLimits, ApiStats, Tier},
    },
    cluster::{
        ask::{Responsible, responsible},
        calls::{Call, Reply},
    },
    meta::OfAccount,
    node::Usage,
    shell::Stream,
};

/// How long the account's info waits for the other servers.
const USAGE_PATIENCE: std::time::Duration = std::time::Duration::from_secs(1);

/// An answer: of which kind, and what. `None` where nothing is answered.
pub(crate) type Answer = Option<(Kind, Result<Bytes, ApiError>)>;

/// What is sent to whoever asked.
pub struct Answered {
    /// Of which kind.
    pub kind: Kind,
    /// It is an error.
    pub failed: bool,
    /// It counts among the API's errors.
    pub counts: bool,
    /// A header block; empty if none.
    pub head: Vec<u8>,
    /// The JSON.
    pub body: Bytes,
}

impl Answered {
    /// As bytes.
    pub fn of((kind, answer): (Kind, Result<Bytes, ApiError>)) -> Answered {
        let failed = answer.is_err();
        let body = answer.unwrap_or_else(|e| api::failure(kind, &e));
        Answered { kind, failed, counts: failed, head: Vec::new(), body }
    }
}

/// What handlers work with.
pub struct Desk<'a> {
    pub node: &'a Arc<JetStream>,
    pub assets: &'a Arc<Assets>,
    pub asked: &'a Asked,
}

/// Answers a request.
pub(crate) async fn serve(node: &Arc<JetStream>, assets: &Arc<Assets>, asked: Asked) {
    let desk = Desk { node, assets, asked: &asked };
    let Some(Answered { kind, failed, counts, head, body }) = desk.answer().await else { return };
    if !asked.reply.is_empty() {
        assets.posts.take().send(&asked.reply, None, b"", head.len(), &[&head, &body]);
    }
    // Who has no JetStream is told so, and not counted.
    if kind.is_audited(failed) && assets.limits().is_some() {
        for counter in [&node.api_total, &assets.api_total] {
            counter.add(1);
        }
        if counts {
            node.api_errors.add(1);
            assets.api_errors.add(1);
        }
        advisory::audit(node, assets, &asked, &body);
    }
}

/// The JSON of an answer.
fn good<T: Serialize>(kind: Kind, body: &T) -> Answer {
    Some((kind, Ok(api::success(kind, body))))
}

impl Desk<'_> {
    /// Reads the request.
    pub(crate) fn parse(&self) -> Parsed {
        let Ok(subject) = str::from_utf8(&self.asked.full) else { return Parsed::Ignore };
        let rules = Rules {
            strict: self.node.options.strict,
            enabled: self.assets.limits().is_some(),
            clustered: self.node.is_clustered(),
        };
        api::request::parse(subject, &self.asked.headers, &self.asked.body, rules)
    }

    async fn answer(&self) -> Option<Answered> {
        match self.parse() {
            Parsed::Ask(r) => {
                let kind = Kind::of_subject(str::from_utf8(&self.asked.full).ok()?)?;
                // Before the answer: of a stream that is made anew meanwhile, the one that is not there any more is named, which is noticed the next time.
                let identity = self.identity_shown(&r);
                let mut answered = self.answer_anywhere(r, kind).await?;
                if let Some(identity) = identity.filter(|_| !answered.failed) {
                    stream::headers::add(&mut answered.head, identity::HEADER, identity.as_bytes());
                }
                Some(answered)
            }
            Parsed::Refuse(r) => Some(Answered::of((r.kind, Err(r.error)))),
            Parsed::Ignore => None,
        }
    }

    /// The stream's identity, if the answer is to show it.
    fn identity_shown(&self, r: &Request) -> Option<String> {
        let stream = match r {
            Request::ConsumerCreate(c) if identity::is_shown(&c.config) => &c.stream,
            Request::ConsumerReset { stream, .. }
                if stream::headers::get(&self.asked.headers, identity::HEADER).is_some() =>
            {
                stream
            }
            _ => return None,
        };
        Some(identity::of(self.assigned(stream)?.a.created))
    }

    /// Answers a request for which this node is responsible, as far as it knows: before anything is read it makes sure of that (K-10).
    pub(crate) async fn run(&self, request: Request) -> Answer {
        if self.node.is_clustered()
            && let Err(e) = self.confirm(&request).await
        {
            let kind = str::from_utf8(&self.asked.full).ok().and_then(Kind::of_subject)?;
            return Some((kind, Err(e)));
        }
        self.run_confirmed(request).await
    }

    /// Returns when what is applied here is all that was acknowledged before.
    async fn confirm(&self, request: &Request) -> Result<(), ApiError> {
        let stream = match responsible(request) {
            Responsible::Anybody => return Ok(()),
            Responsible::Meta => None,
            Responsible::Stream(name) => self.assets.stream(name),
        };
        match stream {
            Some(s) => s.confirm().await,
            // Also of a stream that is not there: whoever leads the meta group says so.
            None => self.node.meta.confirm().await,
        }
    }

    async fn run_confirmed(&self, request: Request) -> Answer {
        match request {
            Request::AccountInfo => good(Kind::AccountInfo, &self.account_info().await),
            Request::StreamCreate { config, pedantic } => {
                done(Kind::StreamCreate, self.create_stream(*config, pedantic).await)
            }
            Request::StreamUpdate { stream, config, pedantic } => {
                done(Kind::StreamUpdate, self.update_stream(&stream, *config, pedantic).await)
            }
            Request::StreamNames { offset, subject } => {
                good(Kind::StreamNames, &self.stream_names(offset, &subject))
            }
            Request::StreamList { offset, subject } => {
                done(Kind::StreamList, self.stream_list(offset, &subject).await)
            }
            Request::StreamInfo { stream, deleted_details, subjects_filter, offset } => {
                let wanted = info::Wanted { deleted: deleted_details, subjects: subjects_filter, offset };
                done(Kind::StreamInfo, self.stream_info(&stream, &wanted).await)
            }
            Request::StreamDelete { stream } => done(Kind::StreamDelete, self.delete_stream(&stream).await),
            Request::StreamPurge { stream, filter, seq, keep } => {
                done(Kind::StreamPurge, self.purge(&stream, &filter, seq, keep).await)
            }
            Request::MsgGet { stream, get } => done(Kind::MsgGet, self.get_message(&stream, &get).await),
            Request::MsgDelete { stream, seq, no_erase } => {
                done(Kind::MsgDelete, self.delete_message(&stream, seq, no_erase).await)
            }
            Request::StreamSnapshot { stream, how } => {
                done(Kind::StreamSnapshot, self.snapshot(&stream, how).await)
            }
            Request::StreamRestore { config, .. } => done(Kind::StreamRestore, self.restore(*config).await),
            Request::StreamPeer { kind, stream, peer } => done(kind, self.replace_peer(&stream, &peer).await),
            Request::ConsumerPeer { kind, stream, consumer, peer } => {
                done(kind, Err::<(), _>(self.keeps_consumer(&stream, &consumer, &peer)))
            }
            Request::StreamCancelMove { stream } => {
                done(Kind::StreamCancelMove, self.cancel_move(&stream).await)
            }
            Request::StreamStepDown { stream, placement } => {
                done(Kind::StreamStepDown, self.step_down(&stream, placement).await)
            }
            Request::ConsumerStepDown { stream, consumer, placement } => {
                let r = match self.known_consumer(&stream, &consumer) {
                    Ok(()) => self.step_down(&stream, placement).await,
                    Err(e) => Err(e),
                };
                done(Kind::ConsumerStepDown, r)
            }
            Request::ConsumerCreate(c) => done(Kind::ConsumerCreate, self.create_consumer(*c).await),
            Request::ConsumerNames { stream, offset } => {
                done(Kind::ConsumerNames, self.consumer_names(&stream, offset).await)
            }
            Request::ConsumerList { stream, offset } => {
                done(Kind::ConsumerList, self.consumer_list(&stream, offset).await)
            }
            Request::ConsumerInfo { stream, consumer } => {
                done(Kind::ConsumerInfo, self.consumer_info(&stream, &consumer).await)
            }
            Request::ConsumerDelete { stream, consumer } => {
                done(Kind::ConsumerDelete, self.delete_consumer(&stream, &consumer).await)
            }
            Request::ConsumerPause { stream, consumer, until } => {
                done(Kind::ConsumerPause, self.pause(&stream, &consumer, until).await)
            }
            Request::ConsumerUnpin { stream, consumer, group } => {
                done(Kind::ConsumerUnpin, self.unpin(&stream, &consumer, &group))
            }
            Request::ConsumerReset { stream, consumer, seq } => {
                self.reset(&stream, &consumer, seq).await.and_then(|r| done(Kind::ConsumerReset, r))
            }
        }
    }

    /// A stream of the asking account.
    pub(crate) fn stream(&self, name: &str) -> Result<Arc<Stream>, ApiError> {
        match self.assets.stream(name) {
            // K-3
            Some(s) if !self.node.is_clustered() || s.answers() => Ok(s),
            Some(_) => Err(errors::CLUSTER_NOT_LEADER.error()),
            // It may be here in a moment.
            None if self.node.meta.find(&self.assets.account.name, name).is_some() => {
                let clustered = self.node.is_clustered();
                Err(if clustered { errors::CLUSTER_NOT_LEADER } else { errors::STREAM_OFFLINE }.error())
            }
            None => Err(errors::STREAM_NOT_FOUND.error()),
        }
    }
    fn domain(&self) -> Option<&str> {
        self.node.options.domain.as_deref()
    }

    async fn account_info(&self) -> AccountInfo {
        let mut u = Usage::default();
        self.assets.add_usage(&mut u);
        if self.node.is_clustered() {
            let name = &self.assets.account.name;
            u.consumers =
                self.assets.streams().iter().filter(|s| s.leads()).map(|s| s.seen().consumers).sum();
            for (_, reply) in self.node.ask_all(&Call::Usage(name.clone()), USAGE_PATIENCE).await {
                let Reply::Json(b) = reply else { continue };
                let Ok([memory, storage, consumers]) = serde_json::from_slice::<[u64; 3]>(&b) else {
                    continue;
                };
                u.memory += memory;
                u.storage += storage;
                u.consumers += usize::try_from(consumers).unwrap_or(0);
            }
            let (streams, reserved) = self.node.meta.read(|s| {
                let of = s.sum_of(name);
                (of.map_or(0, |of| of.names.len()), of.map_or((0, 0), OfAccount::asked_for))
            });
            (u.streams, u.reserved_memory, u.reserved_storage) = (streams, reserved.0, reserved.1);
        }
        let l = self.assets.limits().unwrap_or_default();
        AccountInfo {
            total: Tier {
                memory: u.memory,
                storage: u.storage,
                reserved_memory: u.reserved_memory,
                reserved_storage: u.reserved_storage,
                streams: u.streams,
                consumers: u.consumers,
                limits: AccountLimits {
                    max_memory: l.max_memory,
                    max_storage: l.max_store,
                    max_streams: l.max_streams,
                    max_consumers: l.max_consumers,
                    max_ack_pending: l.max_ack_pending,
                    memory_max_stream_bytes: l.memory_max_stream_bytes,
                    storage_max_stream_bytes: l.store_max_stream_bytes,
                    max_bytes_required: l.max_bytes_required,
                },
            },
            domain: self.domain().unwrap_or_default().to_string(),
            api: ApiStats {
                level: api::LEVEL,
                total: self.assets.api_total.get(),
                errors: self.assets.api_errors.get(),
                inflight: 0,
            },
            tiers: Default::default(),
        }
    }
}

pub(crate) fn done<T: Serialize>(kind: Kind, r: Result<T, ApiError>) -> Answer {
    Some((kind, r.map(|body| api::success(kind, &body))))
}
