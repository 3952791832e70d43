//! What is told to whoever listens to an account's events.
//!
//! An event costs a look at the interest while nobody listens. Its words are `api::event`'s.

use std::sync::Arc;

use env::Rng;

pub use crate::api::event::Action;
use crate::{
    JetStream,
    account::{Asked, Assets},
    api::{
        Time,
        event::{Delivery, Event, Unpinned, Who},
    },
    post::{Post, Posts},
    shell::{Stream, now},
};

/// Names of events: 22 digits that nobody else uses.
pub struct Ids(Rng);

impl Ids {
    /// Drawn from the server's randomness.
    pub fn new() -> Ids {
        Ids(env::rng("jetstream events"))
    }
    /// The next one.
    pub fn next(&mut self) -> String {
        const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
        (0..22).map(|_| char::from(DIGITS[self.0.below(62) as usize])).collect()
    }
}

fn emit_with(node: &JetStream, assets: &Assets, post: &mut Post, e: &Event<'_>) {
    let subject = e.subject();
    if assets.posts.has_interest(subject.as_bytes()) {
        write(node, post, &subject, e);
    }
}

fn write(node: &JetStream, post: &mut Post, subject: &str, e: &Event<'_>) {
    let id = node.ids.lock().next();
    let domain = node.options.domain.as_deref().unwrap_or_default();
    let body = e.body(&id, Time::from_nanos(now().wall), domain);
    post.plain(subject.as_bytes(), &body);
}

pub(crate) fn emit(node: &JetStream, assets: &Assets, e: &Event<'_>) {
    send(node, &assets.posts, e);
}
/// Tells whoever listens where these senders send.
pub(crate) fn send(node: &JetStream, posts: &Posts, e: &Event<'_>) {
    let subject = e.subject();
    if posts.has_interest(subject.as_bytes()) {
        write(node, &mut posts.take(), &subject, e);
    }
}

/// An API request was answered.
pub(crate) fn audit(node: &JetStream, assets: &Assets, asked: &Asked, response: &[u8]) {
    if !assets.posts.has_interest(b"$JS.EVENT.ADVISORY.API") {
        return;
    }
    if asked.from.is_none() {
        return;
    }
    let client = asked.client(node, &assets.account);
    let (server, subject) = (node.host.name(), String::from_utf8_lossy(&asked.full));
    let (request, response) = (String::from_utf8_lossy(&asked.body), String::from_utf8_lossy(response));
    let e = Event::Api {
        server: &server,
        client: &client,
        subject: &subject,
        request: &request,
        response: &response,
    };
    emit(node, assets, &e);
}

/// Requests were dropped.
pub(crate) fn limit_reached(node: &JetStream, assets: &Assets, dropped: u64) {
    emit(node, assets, &Event::ApiLimit { server: &node.host.name(), dropped });
}

/// A stream came, changed or went.
pub(crate) fn stream_action(node: &JetStream, assets: &Assets, stream: &str, action: Action) {
    emit(node, assets, &Event::Stream { stream, action });
}

/// A consumer came or went.
pub(crate) fn consumer_action(
    node: &JetStream,
    assets: &Assets,
    stream: &str,
    consumer: &str,
    action: Action,
) {
    emit(node, assets, &Event::Consumer { who: Who { stream, consumer }, action });
}

/// A consumer is paused, and somebody has asked for it again.
pub(crate) fn paused(node: &JetStream, assets: &Assets, stream: &str, consumer: &str, until: i64) {
    let until = Time::from_nanos(until);
    emit(node, assets, &Event::Pause { who: Who { stream, consumer }, paused: true, until });
}

/// A stream goes, and with it all of its consumers.
pub(crate) fn consumers_gone(node: &JetStream, assets: &Assets, s: &Stream) {
    let names: Vec<String> = s.core.lock().consumers.configs().map(|(n, _)| n.to_owned()).collect();
    for name in names {
        consumer_action(node, assets, &s.name, &name, Action::Delete);
    }
}

/// What a consumer's rules want to be told.
pub(crate) fn consumer(
    node: &JetStream,
    assets: &Assets,
    s: &Arc<Stream>,
    consumer: &str,
    a: &stream::consumer::Advisory,
    post: &mut Post,
) {
    use stream::consumer::Advisory as A;
    let who = Who { stream: &s.name, consumer };
    let account = &*assets.account.name;
    let delivery = |consumer_seq: &u64, stream_seq: &u64| Delivery {
        consumer_seq: *consumer_seq,
        stream_seq: *stream_seq,
    };
    let text;
    let e = match a {
        A::MaxDeliveries { stream_seq, deliveries } => {
            Event::MaxDeliver { who, stream_seq: *stream_seq, deliveries: *deliveries }
        }
        A::Nak { consumer_seq, stream_seq, deliveries } => {
            Event::Nak { who, delivery: delivery(consumer_seq, stream_seq), deliveries: *deliveries }
        }
        A::Terminated { consumer_seq, stream_seq, deliveries, reason } => {
            let delivery = delivery(consumer_seq, stream_seq);
            Event::Terminated { who, delivery, deliveries: *deliveries, reason }
        }
        A::Acked { consumer_seq, stream_seq, ack_time, deliveries } => Event::Acked {
            who,
            delivery: delivery(consumer_seq, stream_seq),
            ack_time: i64::try_from(*ack_time).unwrap_or(i64::MAX),
            deliveries: *deliveries,
        },
        A::Pause { paused, until } => Event::Pause { who, paused: *paused, until: Time::or_never(*until) },
        A::Pinned { group, id } => {
            text = String::from_utf8_lossy(id).into_owned();
            Event::Pinned { account, who, group, id: &text }
        }
        A::Unpinned { group, reason } => {
            let reason = if *reason == "admin" { Unpinned::Admin } else { Unpinned::Timeout };
            Event::Unpinned { account, who, group, reason }
        }
    };
    emit_with(node, assets, post, &e);
}

/// Batches that were given up.
pub(crate) fn abandoned(
    node: &JetStream,
    assets: &Assets,
    stream: &str,
    all: &[(String, stream::Abandoned)],
) {
    use crate::api::event::Abandoned as To;
    for (batch, why) in all {
        let reason = match why {
            stream::Abandoned::Timeout => To::Timeout,
            stream::Abandoned::Large => To::Large,
            stream::Abandoned::Incomplete => To::Incomplete,
            stream::Abandoned::Unsupported => To::Unsupported,
        };
        emit(node, assets, &Event::BatchAbandoned { stream, batch, reason });
    }
}
