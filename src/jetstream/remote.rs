//! Copies of what is elsewhere: another server leads the origin, or another domain has it.
//!
//! Owns one task for each origin that is followed so, which asks the origin's API for a consumer that pushes, as any client would, and takes in
//! what comes. Does not own what is asked and what the answers mean (`stream::source`), nor what a copy becomes (`sources`).
//!
//! The origin's flow control bounds what is under way: it is answered when what came before is in the open batch; by an origin that keeps
//! messages until they are acknowledged, when it is applied (J-25).

use std::{sync::Arc, time::Duration};

use broker::{Deliveries, Inbound, Link, LinkFlags, Message, Sub};
use bytes::Bytes;
use serde_json::Value;
use stream::{
    ApiError, Stored,
    config::{Retention, Source, StreamConfig},
    errors,
    source::{self, Came, Session},
};
use tokio::sync::mpsc;

use crate::{
    account::internal,
    api::{Time, identity},
    post::Posts,
    shell::Stream,
    sources::{Facts, Taken, at_hand},
};

/// How long an answer of the API is waited for.
const ANSWER: Duration = Duration::from_secs(4);
/// Silence after which the origin's consumer is taken for gone: ten heartbeats.
const HEALTH: Duration = Duration::from_secs(10);
/// Pauses between attempts: the first and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));
/// Messages copied in one turn.
const TURN: usize = 256;
/// Messages that may lie unread. The origin's flow control keeps far below; who does not heed it is asked anew.
const UNREAD_MAX: usize = 1 << 17;

/// Where answers to requests come.
const SID_INBOX: &[u8] = b"1";
/// Where messages come.
const SID_MESSAGES: &[u8] = b"2";

/// Something that came.
struct Got {
    is_answer: bool,
    subject: Bytes,
    reply: Bytes,
    headers: Bytes,
    payload: Bytes,
}

struct Ear(mpsc::Sender<Got>);

impl Inbound for Ear {
    fn serves(&self) -> bool {
        false
    }
    fn listens(&self, _: &[u8]) -> bool {
        true
    }
    fn deliver(&self, d: &mut Deliveries, sub: &Sub, _: &Arc<Link>, m: &Message<'_>) -> bool {
        if d.is_trace_only() {
            return false;
        }
        let got = Got {
            is_answer: sub.sid() == SID_INBOX,
            subject: Bytes::copy_from_slice(m.shown.unwrap_or(m.subject)),
            reply: Bytes::copy_from_slice(m.reply),
            headers: Bytes::copy_from_slice(m.header()),
            payload: Bytes::copy_from_slice(m.payload()),
        };
        // What finds no room is missed, which shows as a gap.
        self.0.try_send(got).is_ok()
    }
}

/// A connection to the origin: a link of our own with two subscriptions.
struct Line {
    assets: Arc<crate::account::Assets>,
    link: Arc<Link>,
    posts: Posts,
    inbox: String,
    deliver: String,
    rx: mpsc::Receiver<Got>,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.link.unsubscribe_all(Some(&self.assets.account));
    }
}

impl Line {
    fn open(s: &Stream, facts: &Facts) -> Option<Line> {
        let (node, assets) = (s.node.upgrade()?, s.assets.upgrade()?);
        let (tx, rx) = mpsc::channel(UNREAD_MAX);
        let link = internal(&node, Some(Box::new(Ear(tx))));
        // This one asks, and what it asks follows from the configuration: see `Session` for what it answers.
        link.set_flags(LinkFlags::ECHO);
        let (inbox, unique) = {
            let mut ids = node.ids.lock();
            (format!("_INBOX.{}", ids.next()), ids.next()[..8].to_owned())
        };
        let deliver = source::deliver_subject(&facts.source, facts.is_mirror, &unique);
        for (sid, subject) in [(SID_INBOX, &inbox), (SID_MESSAGES, &deliver)] {
            link.subscribe(&assets.account, sid, subject.as_bytes(), b"", false).ok()?;
        }
        let posts = Posts::new(node.broker.clone(), link.clone(), assets.account.clone());
        Some(Line { assets, link, posts, inbox, deliver, rx })
    }

    /// Asks and waits. What comes from the consumer meanwhile is left out: its first message is waited for afterwards, or a gap shows.
    async fn ask(&mut self, subject: &str, body: &str, early: &mut Vec<Got>) -> Result<Value, ApiError> {
        let gone = || errors::CLUSTER_NOT_AVAIL.error();
        let to = self.inbox.as_bytes();
        // The name of an origin elsewhere is not looked at when a stream is configured.
        if !subject::is_strict(subject.as_bytes()) || !subject::is_literal(subject.as_bytes()) {
            return Err(gone());
        }
        if self.posts.take().send(subject.as_bytes(), None, to, 0, &[body.as_bytes()]) == 0 {
            return Err(gone());
        }
        let end = env::now() + ANSWER;
        loop {
            let left = end.since(env::now());
            let got = env::timeout(left, self.rx.recv()).await.ok().flatten().ok_or_else(gone)?;
            if !got.is_answer {
                early.push(got);
                continue;
            }
            let v: Value = serde_json::from_slice(&got.payload).map_err(|_| gone())?;
            return match serde_json::from_value::<ApiError>(v["error"].clone()) {
                Ok(e) => Err(e),
                Err(_) => Ok(v),
            };
        }
    }
}

impl Stream {
    /// Begins to fetch what is elsewhere, unless that is done already.
    pub(crate) fn fetch_remotely(self: &Arc<Stream>, id: u64) {
        let starts = {
            let mut core = self.core.lock();
            let u = core.following.upstreams.iter_mut().find(|u| u.id == id);
            u.is_some_and(|u| !std::mem::replace(&mut u.remote, true))
        };
        if starts {
            env::spawn(self.clone().fetch(id));
        }
    }

    async fn fetch(self: Arc<Stream>, id: u64) {
        let mut pause = PAUSES.0;
        let mut kept: Option<(Facts, String)> = None;
        loop {
            // What was void is applied or gone before it is asked where the copy stands.
            self.tail_applied().await;
            let Some(facts) = self.facts(id).filter(|_| self.node.upgrade().is_some_and(|n| !n.is_closed()))
            else {
                if let Some((facts, name)) = kept {
                    self.stop_keeping(facts, &name).await;
                }
                return;
            };
            if self.assets.upgrade().and_then(|a| at_hand(&a, &facts.source, facts.is_mirror)).is_some() {
                self.of_upstream(id, |u| (u.remote, u.error, u.next) = (false, None, 0));
                return self.follow();
            }
            let mut came = false;
            let error = self.session(facts, &mut came, &mut kept).await.err();
            self.of_upstream(id, |u| u.error = error);
            pause = if came { PAUSES.0 } else { (pause * 2).min(PAUSES.1) };
            env::sleep(pause).await;
        }
    }

    pub(crate) fn of_upstream(&self, id: u64, f: impl FnOnce(&mut crate::sources::Upstream)) {
        if let Some(u) = self.core.lock().following.upstreams.iter_mut().find(|u| u.id == id) {
            f(u);
        }
    }

    /// Ends the consumer by which an origin kept messages for this stream, when this stream does not copy it any more: it would keep them for ever.
    async fn stop_keeping(&self, facts: Facts, name: &str) {
        let (Some(node), Some(assets)) = (self.node.upgrade(), self.assets.upgrade()) else { return };
        let is_this = |s: &Source, is_mirror| source::kept_name(&self.name, s, is_mirror) == name;
        // By the assignments: this node may only have ceased to lead, and a stream of the same name goes on with the consumer.
        let assigned = node.meta.find(&assets.account.name, &self.name);
        let is_wanted = assigned.and_then(|a| a.config.clone()).is_some_and(|c| {
            c.mirror.iter().any(|m| is_this(m, true)) || c.sources.iter().any(|s| is_this(s, false))
        });
        if is_wanted || node.is_closed() {
            return;
        }
        if let Some(mut line) = Line::open(self, &facts) {
            let what = format!("CONSUMER.DELETE.{}.{name}", facts.source.name);
            let _ = line.ask(&source::api_subject(&facts.source, &what), "", &mut Vec::new()).await;
        }
    }

    /// One life of a consumer at the origin. `came` says whether it gave anything, `held` by which consumer the origin keeps messages for this stream.
    async fn session(
        self: &Arc<Stream>,
        facts: Facts,
        came: &mut bool,
        held: &mut Option<(Facts, String)>,
    ) -> Result<(), ApiError> {
        let gone = || errors::CLUSTER_NOT_AVAIL.error();
        let mut line = Line::open(self, &facts).ok_or_else(gone)?;
        let mut early = Vec::new();
        let mut is = String::new();
        let kept = match &facts.source.consumer {
            Some(own) => Some(own.name.clone()),
            None => {
                let info = source::api_subject(&facts.source, &format!("STREAM.INFO.{}", facts.source.name));
                let v = line.ask(&info, "", &mut early).await?;
                is = v["created"].as_str().and_then(Time::parse).map_or(is, |at| identity::of(at.nanos()));
                let c: StreamConfig = serde_json::from_value(v["config"].clone()).unwrap_or_default();
                let keeps = c.retention != Retention::Limits;
                keeps.then(|| source::kept_name(&self.name, &facts.source, facts.is_mirror))
            }
        };
        let facts = &facts.about(is);
        let own = facts.source.consumer.is_some();
        if !own {
            let next = if facts.stands > 0 { facts.stands + 1 } else { 0 };
            let ask = source::consumer_request(&facts.source, &line.deliver, next, kept.as_deref());
            *held = kept.clone().map(|name| (facts.clone(), name));
            let made = line.ask(&ask.subject, &ask.body, &mut early).await?;
            if let Some(name) = &kept
                && made["delivered"]["consumer_seq"].as_u64().is_some_and(|n| n > 0)
            {
                // It was there before: it begins anew behind what was acknowledged.
                let reset = format!("CONSUMER.RESET.{}.{name}", facts.source.name);
                early.clear();
                line.ask(&source::api_subject(&facts.source, &reset), "", &mut early).await?;
            }
        }
        self.of_upstream(facts.id, |u| u.error = None);
        let mut session = Session::new(own);
        let mut batch: Vec<Stored> = Vec::new();
        let mut early = early.into_iter();
        loop {
            let mut got = match early.next() {
                Some(g) => Some(g),
                None => env::timeout(HEALTH, line.rx.recv()).await.map_err(|_| gone())?,
            };
            let mut flows = Vec::new();
            let mut gap = false;
            while let Some(g) = got.take() {
                match session.take(&g.reply, g.subject, g.headers, g.payload) {
                    Came::Message(m) if m.seq > facts.stands => batch.push(m),
                    Came::Message(_) | Came::Nothing => {}
                    Came::Flow(to) => flows.push(to),
                    Came::Gap => gap = true,
                }
                if gap || batch.len() >= TURN {
                    break;
                }
                got = early.next().or_else(|| line.rx.try_recv().ok());
            }
            if self.facts(facts.id).is_none_or(|f| f.voids != facts.voids)
                || !self.has_room_for_copies().await
            {
                return Ok(());
            }
            *came |= !batch.is_empty();
            match self.take_in(facts, &batch).await {
                Taken::Upto(_) => {}
                // It comes again with the next consumer, after a pause that grows while nothing else comes.
                Taken::Refused(taken) => {
                    *came = taken > 0;
                    return Ok(());
                }
                Taken::Void => return Ok(()),
            }
            batch.clear();
            let (heard, lag) = (env::now().0, session.pending());
            self.of_upstream(facts.id, |u| (u.heard, u.lag) = (Some(heard), lag));
            if !flows.is_empty() {
                if kept.is_some() {
                    self.tail_applied().await;
                    if self.facts(facts.id).is_none_or(|f| f.voids != facts.voids) {
                        return Ok(());
                    }
                }
                let head = if kept.is_some() { Session::flow_answer(session.last()) } else { Vec::new() };
                let mut post = line.posts.take();
                for to in &flows {
                    post.send(to, None, b"", head.len(), &[&head]);
                }
            }
            if gap {
                return Ok(());
            }
        }
    }
}
