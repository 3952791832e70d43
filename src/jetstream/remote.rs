//! Copies of what is elsewhere: another server leads the origin, or another domain has it.
//!
//! Owns one task for each origin that is followed so, which asks the origin's API for a consumer that pushes, as any client would, and takes in
//! what comes. Does not own what is asked and what the answers mean (`stream::source`), nor what a copy becomes (`sources`).
//!
//! The origin's flow control bounds what is under way: it is answered when what came before is in the open batch; by an origin that keeps
//! messages until they are acknowledged, when it is applied (J-25). What is refused here is tried again where it is, and nothing is answered meanwhile.

use std::{sync::Arc, time::Duration};

use broker::{Deliveries, Inbound, Link, LinkFlags, Message, Sub};
use bytes::Bytes;
use serde_json::Value;
use stream::{
    ApiError, Stored,
    config::{Retention, Source, StreamConfig},
    errors, headers,
    source::{self, By, Came, Copier, Keeps, Session},
};
use tokio::sync::mpsc;

use crate::{
    account::internal,
    api::{Time, identity},
    post::Posts,
    shell::Stream,
    sources::{Facts, REFUSED_PAUSE, Taken, at_hand, time_at},
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

    /// Asks and waits: the answer, and the identity that it shows. What comes from the consumer meanwhile is left out: its first message is waited for afterwards, or
    /// a gap shows.
    async fn ask(
        &mut self,
        subject: &str,
        head: &[u8],
        body: &str,
        early: &mut Vec<Got>,
    ) -> Result<(Value, String), Unasked> {
        let to = self.inbox.as_bytes();
        // The name of an origin elsewhere is not looked at when a stream is configured.
        if !subject::is_strict(subject.as_bytes()) || !subject::is_literal(subject.as_bytes()) {
            return Err(Unasked::Nobody);
        }
        let parts = [head, body.as_bytes()];
        if self.posts.take().send(subject.as_bytes(), None, to, head.len(), &parts) == 0 {
            return Err(Unasked::Nobody);
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
                Ok(e) => Err(e.into()),
                Err(_) => {
                    let shown = headers::get(&got.headers, identity::HEADER).unwrap_or_default();
                    Ok((v, String::from_utf8_lossy(shown).into_owned()))
                }
            };
        }
    }
}

/// Why there is no answer, or what it refuses.
#[derive(PartialEq, Eq)]
enum Unasked {
    /// Nobody listens there.
    Nobody,
    Refused(ApiError),
}

impl From<ApiError> for Unasked {
    fn from(e: ApiError) -> Unasked {
        Unasked::Refused(e)
    }
}
impl From<Unasked> for ApiError {
    fn from(e: Unasked) -> ApiError {
        match e {
            Unasked::Nobody => gone(),
            Unasked::Refused(e) => e,
        }
    }
}

fn gone() -> ApiError {
    errors::CLUSTER_NOT_AVAIL.error()
}

/// How far what came was taken in.
enum Went {
    /// So many. What is behind them finds no room here, and is tried again.
    Upto(usize),
    /// The consumer has to begin anew, behind what is passed over here or where it is.
    Anew { passes: bool },
}

/// The consumer by which an origin keeps messages for a copy.
struct Held {
    facts: Facts,
    name: String,
    /// It is to begin anew behind what the copy has passed over: it is a mirror, and does not take what is before that.
    passes: bool,
}

/// The header block of a request to an origin of which nothing is known: who does not know consumers of copies refuses it, and so does a stream of another identity
/// (empty: of none).
fn request_head(identity: &str) -> Vec<u8> {
    let mut block = Vec::new();
    headers::add(&mut block, headers::REQUIRED_API_LEVEL, b"5");
    if !identity.is_empty() {
        headers::add(&mut block, identity::HEADER, identity.as_bytes());
    }
    block
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
        let mut held: Option<Held> = None;
        loop {
            // What was void is applied or gone before it is asked where the copy stands.
            self.tail_applied().await;
            let Some(facts) = self.facts(id).filter(|_| self.node.upgrade().is_some_and(|n| !n.is_closed()))
            else {
                if let Some(held) = held {
                    self.stop_keeping(held.facts, &held.name).await;
                }
                return;
            };
            if self.assets.upgrade().and_then(|a| at_hand(&a, &facts.source, facts.is_mirror)).is_some() {
                self.of_upstream(id, |u| {
                    (u.remote, u.next) = (false, 0);
                    u.troubles.taken(By::Origin, env::now().0);
                });
                return self.follow();
            }
            let mut came = false;
            if let Err(why) = self.session(facts, &mut came, &mut held).await {
                self.refused_copies(id, By::Origin, why);
            }
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
        let Some(who) = self.copier() else { return };
        let is_this = |s: &Source, is_mirror| source::kept_name(&who, s, is_mirror) == name;
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
            let _ = line.ask(&source::api_subject(&facts.source, &what), b"", "", &mut Vec::new()).await;
        }
    }

    /// As what this stream copies.
    fn copier(&self) -> Option<Copier> {
        let (node, assets) = (self.node.upgrade()?, self.assets.upgrade()?);
        Some(Copier {
            account: assets.account.name.to_string(),
            stream: self.name.to_string(),
            domain: node.options.domain.clone(),
        })
    }

    /// Asks the origin for a consumer: what is known of the origin then, and whether it keeps messages until they are acknowledged.
    async fn consumer_at(
        &self,
        line: &mut Line,
        facts: Facts,
        early: &mut Vec<Got>,
        held: &mut Option<Held>,
    ) -> Result<(Facts, bool), ApiError> {
        let who = self.copier().ok_or_else(gone)?;
        let (source, is_mirror) = (facts.source.clone(), facts.is_mirror);
        let subject = |what: String| source::api_subject(&source, &what);
        let name = source::kept_name(&who, &source, is_mirror);
        let deliver = line.deliver.clone();
        let request = |next, keeps| source::consumer_request(&source, &who, is_mirror, &deliver, next, keeps);
        let behind = |stands: u64| if stands > 0 { stands + 1 } else { 0 };
        let asked = line.ask(&subject(format!("STREAM.INFO.{}", source.name)), b"", "", early).await;
        let (facts, made, name) = match asked {
            Ok((v, _)) => {
                let created = v["created"].as_str().and_then(Time::parse).map(|at| at.nanos());
                let mut facts = facts.about(created.map_or_else(String::new, identity::of));
                let c: StreamConfig = serde_json::from_value(v["config"].clone()).unwrap_or_default();
                if c.retention == Retention::Limits {
                    let ask = request(behind(facts.stands), Keeps::Limits);
                    line.ask(&ask.subject, b"", &ask.body, early).await?;
                    return Ok((facts, false));
                }
                // Copies that do not say which stream they are of have nothing of one that was made after the last of them.
                let last = self.group().state().last_time;
                if !is_mirror && facts.known_as().is_empty() && created.is_some_and(|at| at > last) {
                    facts.stands = 0;
                }
                let is_first = held.is_none();
                let passes = held.take().is_some_and(|h| h.passes);
                *held = Some(Held { facts: facts.clone(), name: name.clone(), passes });
                // What it has and has not acknowledged comes again, and leaves the origin then.
                let ask = request(0, Keeps::Consumers(&name));
                let made = line.ask(&ask.subject, b"", &ask.body, early).await?.0;
                if is_first {
                    let before = source::kept_name_before(&self.name, &source, is_mirror);
                    let what = format!("CONSUMER.DELETE.{}.{before}", source.name);
                    let _ = line.ask(&subject(what), b"", "", early).await;
                }
                (facts, made, name)
            }
            // Only consumers may be asked for, as it is with a nats-server, which asks for nothing else. The origin says what it makes of it.
            Err(Unasked::Nobody) if source.external.is_some() => {
                let mut facts = facts;
                let named = if is_mirror { "" } else { facts.known_as() };
                let head = [named, ""].map(request_head);
                let ask = request(behind(facts.stands), Keeps::Unknown(&name));
                let mut answer = line.ask(&ask.subject, &head[0], &ask.body, early).await;
                let is_other = |e: &Unasked| matches!(e, Unasked::Refused(e) if e.err_code == errors::CONSUMER_STREAM_IDENTITY_MISMATCH.err_code);
                if answer.as_ref().is_err_and(is_other) {
                    let ask = request(0, Keeps::Unknown(&name));
                    answer = line.ask(&ask.subject, &head[1], &ask.body, early).await;
                }
                let (made, identity) = answer?;
                facts = facts.about(identity);
                if made["config"]["ack_policy"] != "flow_control" {
                    return Ok((facts, false));
                }
                let passes = held.take().is_some_and(|h| h.passes);
                *held = Some(Held { facts: facts.clone(), name: name.clone(), passes });
                (facts, made, name)
            }
            Err(e) => return Err(e.into()),
        };
        // It was there before, and begins anew behind what was acknowledged: a nats-server, and we, see to that when it is asked for; older ones of ours did not.
        let begins = early.iter().find(|g| !g.reply.is_empty()).is_some_and(|g| source::is_first(&g.reply));
        let delivered = !begins && made["delivered"]["consumer_seq"].as_u64().is_some_and(|n| n > 0);
        let passes = held.as_mut().is_some_and(|h| std::mem::take(&mut h.passes));
        if delivered || passes {
            let at = if passes { format!(r#"{{"seq":{}}}"#, facts.stands + 1) } else { String::new() };
            early.clear();
            line.ask(&subject(format!("CONSUMER.RESET.{}.{name}", source.name)), b"", &at, early).await?;
        }
        Ok((facts, true))
    }

    /// Takes in what came, as far as there is room.
    async fn take_all(self: &Arc<Stream>, facts: &Facts, batch: &[Stored]) -> Went {
        let mut at = 0;
        while at < batch.len() {
            match self.take_in(facts, &batch[at..]).await {
                Taken::Upto(n) => at += n,
                Taken::Passed(n) => {
                    let m = &batch[at + n];
                    let here = self.group().ask(|v| time_at(v, store::StreamSeq(m.seq))).await;
                    // J-25: what a mirror has passed over without having it stays where it is.
                    if !here.is_ok_and(|h| h.is_some_and(|(time, _)| time == m.time)) {
                        return Went::Anew { passes: true };
                    }
                    at += n + 1;
                }
                Taken::Refused(n, _) if env::planted!("js-full-copy-passes-over") => at += n + 1,
                Taken::Refused(n, why) => {
                    self.refused_copies(facts.id, By::Copy, why);
                    return Went::Upto(at + n);
                }
                Taken::Void => return Went::Anew { passes: false },
            }
        }
        Went::Upto(at)
    }

    /// One life of a consumer at the origin. `came` says whether it gave anything, `held` by which consumer the origin keeps messages for this stream.
    async fn session(
        self: &Arc<Stream>,
        facts: Facts,
        came: &mut bool,
        held: &mut Option<Held>,
    ) -> Result<(), ApiError> {
        let mut line = Line::open(self, &facts).ok_or_else(gone)?;
        let mut early = Vec::new();
        let own = facts.source.consumer.is_some();
        let (mut facts, kept) = match own {
            true => (facts.about(String::new()), true),
            false => self.consumer_at(&mut line, facts, &mut early, held).await?,
        };
        facts.keeps = kept && !own;
        let facts = &facts;
        self.of_upstream(facts.id, |u| u.troubles.taken(By::Origin, env::now().0));
        let mut session = Session::new(own);
        // What is to be taken in, and which delivery each is; what is to be answered, and up to which delivery that was done.
        let (mut batch, mut places): (Vec<Stored>, Vec<(u64, u64)>) = Default::default();
        let (mut flows, mut taken, mut answered) = (Vec::new(), (0, 0), (0, 0));
        let mut early = early.into_iter();
        loop {
            let mut got = match early.next() {
                Some(g) => Some(g),
                None if batch.is_empty() => env::timeout(HEALTH, line.rx.recv()).await.map_err(|_| gone())?,
                None => {
                    env::sleep(Duration::from_nanos(REFUSED_PAUSE)).await;
                    line.rx.try_recv().ok()
                }
            };
            let mut gap = false;
            while let Some(g) = got.take() {
                match session.take(&g.reply, g.subject, g.headers, g.payload) {
                    // A mirror looks at each, or it would acknowledge what it has passed over.
                    Came::Message(m) if m.seq > facts.stands || facts.is_mirror && facts.keeps => {
                        batch.push(m);
                        places.push(session.last());
                    }
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
            match self.take_all(facts, &batch).await {
                Went::Upto(0) => {}
                Went::Upto(n) => {
                    *came = true;
                    taken = places[n - 1];
                    batch.drain(..n);
                    places.drain(..n);
                }
                Went::Anew { passes } => {
                    if let Some(held) = held.as_mut() {
                        held.passes |= passes;
                    }
                    return Ok(());
                }
            }
            let (heard, lag) = (env::now().0, session.pending() + batch.len() as u64);
            self.of_upstream(facts.id, |u| {
                (u.heard, u.lag) = (Some(heard), lag);
                if batch.is_empty() {
                    u.troubles.taken(By::Copy, heard);
                }
            });
            let upto = if batch.is_empty() { session.last() } else { taken };
            if !flows.is_empty() && (batch.is_empty() || kept && upto > answered) {
                if kept {
                    self.tail_applied().await;
                    if self.facts(facts.id).is_none_or(|f| f.voids != facts.voids) {
                        return Ok(());
                    }
                }
                let head = if kept { Session::flow_answer(upto) } else { Vec::new() };
                let mut post = line.posts.take();
                for to in flows.drain(..) {
                    post.send(&to, None, b"", head.len(), &[&head]);
                }
                answered = upto;
            }
            if gap {
                return Ok(());
            }
        }
    }
}
