//! Mirrors and sources: streams that copy others.
//!
//! Owns the way of a copy whose origin is in this process and keeps by its limits: read from the origin's store, rename, decide like any publish, join the open
//! batch. There is no consumer in between, and a copy is told when its origin has grown. What is elsewhere, or keeps for consumers, comes through `remote`. Does not own where
//! a copy stands (`stream::Stream::source_at`, which the log says) nor what a copied message becomes (`stream::source`).
//!
//! A stream that follows others has one task while there is something to copy, and none otherwise.
//!
//! - J-29: of another account nothing is copied but what requests by its imports would get.
//! - J-25: an origin that keeps by interest or as a work queue lets go only of what is applied in the copy.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use broker::{Account, rules::Import};
use bytes::Bytes;
use parking_lot::Mutex;
use store::{Need, Read, StreamSeq};
use stream::{
    Answer, ApiError, Decision, Publish, Stored,
    config::{Retention, Source},
    errors,
    source::{self, By, Renames, Troubles},
};
use subject::Transform;

use crate::{
    JetStream,
    account::Assets,
    api::response::SourceInfo,
    publish,
    shell::{Stream, now},
    view,
};

/// Messages copied in one turn.
const TURN: usize = 256;
/// Copied messages that may wait to be applied.
const WAITING_MAX: usize = 4096;

/// Nanoseconds between the signs of life of an origin.
const HEARTBEAT: u64 = 1_000_000_000;
/// Nanoseconds after which what this stream refused is tried again.
pub(crate) const REFUSED_PAUSE: u64 = 1_000_000_000;
/// Pause before what became void is copied again.
const VOID_PAUSE: std::time::Duration = std::time::Duration::from_millis(250);

/// What is being followed.
#[derive(Default)]
pub(crate) struct Following {
    pub upstreams: Vec<Upstream>,
    last_id: u64,
    /// A task copies.
    pub runs: bool,
    /// There may be more.
    pub again: bool,
}

/// Who follows whom on this server, by the origin's name: so that a stream that grows wakes its followers and nobody else.
#[derive(Default)]
pub(crate) struct Followers {
    any: AtomicUsize,
    by_name: Mutex<BTreeMap<String, BTreeMap<u64, Weak<Stream>>>>,
}

impl Followers {
    /// Stream `id` follows these from now on, and no others.
    fn set(&self, id: u64, who: &Arc<Stream>, names: &[&str]) {
        if names.is_empty() && self.any.load(Relaxed) == 0 {
            return;
        }
        let mut all = self.by_name.lock();
        all.retain(|_, of| {
            of.remove(&id);
            !of.is_empty()
        });
        for n in names {
            all.entry((*n).to_owned()).or_default().insert(id, Arc::downgrade(who));
        }
        self.any.store(all.len(), Relaxed);
    }
    /// Who follows a stream of this name, in any account.
    fn of(&self, name: &str) -> Vec<Arc<Stream>> {
        if self.any.load(Relaxed) == 0 {
            return Vec::new();
        }
        let all = self.by_name.lock();
        all.get(name).into_iter().flat_map(|of| of.values().filter_map(Weak::upgrade)).collect()
    }
}

/// One stream that is followed.
pub(crate) struct Upstream {
    /// Tells it from all that were followed before.
    pub id: u64,
    pub source: Source,
    index_name: String,
    filters: Vec<Bytes>,
    renames: Arc<Renames>,
    pub is_mirror: bool,
    /// The next sequence to look at; 0 until it is known.
    pub next: u64,
    /// The stream that `next` is about, by its identity: another one of its name may take its place.
    identity: String,
    /// When something was heard of it last, on the monotonic clock.
    pub heard: Option<u64>,
    /// It is elsewhere: a task of its own fetches.
    pub remote: bool,
    /// What it has yet to give, if it is elsewhere.
    pub lag: u64,
    /// What is wrong.
    pub troubles: Troubles,
    /// When its next message was refused here, on the monotonic clock.
    refused: Option<u64>,
}

/// What one turn of copying has to know.
#[derive(Clone)]
pub(crate) struct Facts {
    pub id: u64,
    pub source: Source,
    pub filters: Vec<Bytes>,
    renames: Arc<Renames>,
    index_name: String,
    pub is_mirror: bool,
    pub next: u64,
    /// The last sequence of the origin that is here.
    pub stands: u64,
    /// The stream that it is of, by its identity; empty if that is not known.
    stands_in: String,
    /// The stream that `next` is about, and that is copied: see [`Facts::about`].
    identity: String,
    /// How often something was void here.
    pub voids: u64,
    /// The origin keeps messages until the copy has them.
    pub keeps: bool,
    /// When the next message was refused here, on the monotonic clock.
    refused: Option<u64>,
}

impl Facts {
    /// The identity of the stream that the copies here are of; empty if that is not known.
    pub(crate) fn known_as(&self) -> &str {
        &self.stands_in
    }
    /// The same about the origin that is there, by its identity (empty if it is not known): what was copied of another one of its name says nothing of where this one
    /// begins. A mirror keeps its origin's numbers, so it can go on with none but higher ones.
    pub(crate) fn about(mut self, identity: String) -> Facts {
        let differ = |a: &str, b: &str| !a.is_empty() && !b.is_empty() && a != b;
        if !self.is_mirror && differ(&self.stands_in, &identity) {
            self.stands = 0;
        }
        if !self.is_mirror && differ(&self.identity, &identity) {
            self.next = 0;
        }
        self.identity = identity;
        self
    }
}

/// How far copies were taken in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Taken {
    /// So many, and nothing speaks against the next.
    Upto(usize),
    /// So many; the next one is refused by this stream. It is tried again, for whoever goes on behind it loses it (J-25).
    Refused(usize, ApiError),
    /// So many; the next one has a number that this mirror has reached already, with it or without it. Said only where the origin keeps it until it is told.
    Passed(usize),
    /// This node copies no more, or what the copies stand on is void.
    Void,
}

/// What a look at an origin found.
struct Found {
    messages: Vec<Stored>,
    /// Where to go on.
    next: u64,
    more: bool,
}

impl Upstream {
    fn new(id: u64, source: &Source, is_mirror: bool) -> Upstream {
        Upstream {
            id,
            index_name: source.index_name(),
            filters: source::filters(source).into_iter().map(Bytes::from).collect(),
            renames: Arc::new(Renames::new(source)),
            source: source.clone(),
            is_mirror,
            next: 0,
            identity: String::new(),
            heard: None,
            remote: false,
            lag: 0,
            troubles: Troubles::default(),
            refused: None,
        }
    }
    /// The last sequence of the origin that is here, and the identity of that origin, if it is known. What a mirror's log passes over it does not take.
    fn stands<'a>(&self, rules: &'a stream::Stream) -> (u64, &'a str) {
        if self.is_mirror {
            return (rules.reached_seq(), "");
        }
        rules.source_at(&self.index_name).map_or((0, ""), |at| (at.seq, &at.identity))
    }
}

impl Stream {
    /// Takes what the configuration says of mirrors and sources; what stays keeps its place.
    pub(crate) fn follow_anew(self: &Arc<Stream>) {
        {
            let mut core = self.core.lock();
            let Some(rules) = &core.rules else { return };
            let c = rules.config();
            if core.term.is_none() || core.stopped.is_some() || c.is_restoring() {
                return;
            }
            let mut id = core.following.last_id;
            let mut number = || {
                id += 1;
                id
            };
            let mut new: Vec<Upstream> = c.mirror.iter().map(|m| Upstream::new(number(), m, true)).collect();
            new.extend(c.sources.iter().map(|s| Upstream::new(number(), s, false)));
            core.following.last_id = id;
            for u in &mut new {
                let same = |o: &&mut Upstream| o.source == u.source && o.is_mirror == u.is_mirror;
                if let Some(old) = core.following.upstreams.iter_mut().find(same) {
                    // Whoever fetches for it goes on.
                    (u.id, u.next, u.heard) = (old.id, old.next, old.heard);
                    u.identity.clone_from(&old.identity);
                    (u.remote, u.lag, u.troubles) = (old.remote, old.lag, std::mem::take(&mut old.troubles));
                    u.refused = old.refused;
                }
            }
            core.following.upstreams = new;
            let names: Vec<&str> = core.following.upstreams.iter().map(|u| u.source.name.as_str()).collect();
            if let Some(node) = self.node.upgrade() {
                node.followers.set(self.id, self, &names);
            }
        }
        self.follow();
    }

    /// Copies what there is to copy, if this stream follows others.
    pub(crate) fn follow(self: &Arc<Stream>) {
        let starts = {
            let mut core = self.core.lock();
            if core.following.upstreams.is_empty() || core.term.is_none() || core.stopped.is_some() {
                return;
            }
            core.following.again = true;
            !std::mem::replace(&mut core.following.runs, true)
        };
        if starts {
            env::spawn(self.clone().copy());
        }
    }

    /// Follows nobody any more.
    pub(crate) fn unfollow(self: &Arc<Stream>) {
        self.core.lock().following.upstreams.clear();
        if let Some(node) = self.node.upgrade() {
            node.followers.set(self.id, self, &[]);
        }
    }

    /// Wakes those that follow this stream.
    pub(crate) fn tell_followers(&self) {
        let Some(node) = self.node.upgrade() else { return };
        for s in node.followers.of(&self.name) {
            s.follow();
        }
    }

    async fn copy(self: Arc<Stream>) {
        loop {
            let ids: Vec<u64> = {
                let mut core = self.core.lock();
                core.following.again = false;
                core.following.upstreams.iter().filter(|u| !u.remote).map(|u| u.id).collect()
            };
            let mut more = false;
            for id in ids {
                more |= self.copy_from(id).await;
            }
            if more {
                tokio::task::yield_now().await;
                continue;
            }
            let mut core = self.core.lock();
            if core.stopped.is_some() || core.term.is_none() || !core.following.again {
                core.following.runs = false;
                return;
            }
        }
    }

    /// Copies one turn from one origin; whether there is more.
    async fn copy_from(self: &Arc<Stream>, id: u64) -> bool {
        let Some(assets) = self.assets.upgrade() else { return false };
        if !self.has_room_for_copies().await {
            return false;
        }
        let Some(facts) = self.facts(id) else { return false };
        let Some(origin) = at_hand(&assets, &facts.source, facts.is_mirror) else {
            if is_elsewhere(&assets, &facts.source)
                || origin(&assets, &facts.source, facts.is_mirror).is_some()
            {
                self.fetch_remotely(id);
            }
            return false;
        };
        if facts.refused.is_some_and(|at| env::now().0 < at.saturating_add(REFUSED_PAUSE)) {
            return false;
        }
        let facts = facts.about(origin.identity().to_owned());
        let found = loop {
            match look(&origin, &facts) {
                Ok(f) => break f,
                Err(need) => {
                    if origin.group().fetch(need).await.is_err() {
                        return false;
                    }
                }
            }
        };
        let refused = match self.take_in(&facts, &found.messages).await {
            Taken::Upto(_) => None,
            Taken::Refused(n, why) => {
                self.refused_copies(id, By::Copy, why);
                found.messages.get(n)
            }
            Taken::Passed(n) => found.messages.get(n),
            Taken::Void => return self.begins_anew(&facts).await,
        };
        {
            let mut core = self.core.lock();
            if core.voids == facts.voids
                && let Some(u) = core.following.upstreams.iter_mut().find(|u| u.id == id)
            {
                let at = env::now().0;
                (u.next, u.heard) = (refused.map_or(found.next, |m| m.seq), Some(at));
                u.refused = refused.map(|_| at);
                if refused.is_none() {
                    u.troubles.taken(By::Copy, at);
                }
                u.identity.clone_from(&facts.identity);
            }
        }
        if refused.is_some() {
            self.follow_later();
        }
        found.more && refused.is_none()
    }

    /// Notes that copies are refused, and says so in the log where that is news.
    pub(crate) fn refused_copies(&self, id: u64, by: By, why: ApiError) {
        let (Some(node), Some(assets)) = (self.node.upgrade(), self.assets.upgrade()) else { return };
        let text = {
            let mut core = self.core.lock();
            let Some(u) = core.following.upstreams.iter_mut().find(|u| u.id == id) else { return };
            let text = source::told(&assets.account.name, &self.name, &u.source.name, by, &why);
            u.troubles.refused(by, why, env::now().0).then_some(text)
        };
        if let Some(text) = text {
            node.host.log("WRN", &text);
        }
    }

    /// Tries again what this stream refused, when there may be room.
    fn follow_later(self: &Arc<Stream>) {
        let stream = self.clone();
        env::spawn(async move {
            env::sleep(std::time::Duration::from_nanos(REFUSED_PAUSE)).await;
            stream.follow();
        });
    }

    /// Whether copying begins anew where the copy stands, because what was decided became void: not at once, the disk may be full.
    async fn begins_anew(&self, facts: &Facts) -> bool {
        env::sleep(VOID_PAUSE).await;
        self.facts(facts.id).is_some_and(|f| f.voids != facts.voids)
    }

    /// What a turn has to know; `None` if it is not followed any more, or not from here.
    pub(crate) fn facts(&self, id: u64) -> Option<Facts> {
        let core = self.core.lock();
        if core.stopped.is_some() || core.term.is_none() {
            return None;
        }
        let u = core.following.upstreams.iter().find(|u| u.id == id)?;
        let rules = core.rules.as_ref()?;
        let (stands, stands_in) = u.stands(rules);
        Some(Facts {
            id,
            source: u.source.clone(),
            filters: u.filters.clone(),
            renames: u.renames.clone(),
            index_name: u.index_name.clone(),
            is_mirror: u.is_mirror,
            next: u.next,
            stands,
            stands_in: stands_in.to_owned(),
            identity: u.identity.clone(),
            voids: core.voids,
            keeps: false,
            refused: u.refused,
        })
    }

    /// Returns when more copies may join: what was copied before is to be applied before much more is. False if this node copies no more.
    pub(crate) async fn has_room_for_copies(&self) -> bool {
        loop {
            let drained = self.drained.notified();
            tokio::pin!(drained);
            drained.as_mut().enable();
            {
                let core = self.core.lock();
                if core.stopped.is_some() || core.term.is_none() {
                    return false;
                }
                if core.log.waiting().0 < WAITING_MAX {
                    return true;
                }
            }
            drained.await;
        }
    }

    /// Decides copies in order, and lets them join the open batch.
    pub(crate) async fn take_in(self: &Arc<Stream>, facts: &Facts, all: &[Stored]) -> Taken {
        let mut at = 0;
        while at < all.len() {
            let drained = self.drained.notified();
            tokio::pin!(drained);
            drained.as_mut().enable();
            let (done, handle, tail) = {
                let mut core = self.core.lock();
                if core.term.is_none() || core.stopped.is_some() || core.voids != facts.voids {
                    return Taken::Void;
                }
                let done = self.join_copies(&mut core, &all[at..], facts);
                (done, core.log.has_work().then(|| core.handle.clone()).flatten(), core.log.has_tail())
            };
            if let Some(h) = handle {
                h.wake();
            }
            match done {
                Ok(Taken::Void) => return Taken::Void,
                Ok(Taken::Refused(n, why)) => return Taken::Refused(at + n, why),
                Ok(Taken::Passed(n)) => return Taken::Passed(at + n),
                Ok(Taken::Upto(n)) if at + n == all.len() => at += n,
                Ok(Taken::Upto(n)) => {
                    at += n;
                    // A decision has to wait for what is on its way.
                    if tail {
                        drained.await;
                    } else {
                        tokio::task::yield_now().await;
                    }
                }
                Err(need) => {
                    if self.group().fetch(need).await.is_err() {
                        return Taken::Void;
                    }
                }
            }
        }
        Taken::Upto(all.len())
    }

    /// Decides copies in order until one has to wait, is refused or asks for the disk; how many are done. The disk is named only where none is done.
    fn join_copies(
        &self,
        core: &mut crate::shell::Core,
        all: &[Stored],
        facts: &Facts,
    ) -> Result<Taken, Need> {
        if core.voided {
            return Ok(Taken::Upto(0));
        }
        let crate::shell::Core { rules: Some(rules), log, .. } = core else {
            return Ok(Taken::Upto(all.len()));
        };
        let view = self.view();
        let group = store::GroupId(self.id);
        let (mut subject, mut headers) = (Vec::new(), Vec::new());
        for (n, m) in all.iter().enumerate() {
            subject.clear();
            let renamed = facts.renames.apply(&m.subject, |n| n / 2, &mut subject);
            let to: Bytes = if renamed { Bytes::copy_from_slice(&subject) } else { m.subject.clone() };
            let mut copy;
            let decision = if facts.is_mirror {
                copy = Stored { subject: to, headers: source::mirrored(&m.headers), ..m.clone() };
                match rules.copied(&mut copy, &view) {
                    Ok(d) => d,
                    Err(need) if n == 0 => return Err(need),
                    Err(_) => return Ok(Taken::Upto(n)),
                }
            } else {
                headers.clear();
                source::gathered(
                    &m.headers,
                    &facts.index_name,
                    m.seq,
                    &m.subject,
                    &facts.identity,
                    &mut headers,
                );
                let p = Publish {
                    subject: &to,
                    reply: b"",
                    headers: &headers,
                    payload: &m.payload,
                    from: stream::From::Source,
                    no_room_for_batches: false,
                    unwanted: false,
                };
                match rules.decide(&p, &view, now()) {
                    Ok(d) => d,
                    Err(need) if n == 0 => return Err(need),
                    Err(_) => return Ok(Taken::Upto(n)),
                }
            };
            match decision {
                Decision::Store { entry, .. } => publish::join(log, group, &entry),
                Decision::StoreAll { entries, .. } => {
                    for e in &entries {
                        publish::join(log, group, &stream::Entry::of(e));
                    }
                }
                Decision::Answer { answers: [Some(Answer::Error(why)), _], .. } => {
                    return Ok(Taken::Refused(n, why));
                }
                Decision::Answer { .. } if facts.is_mirror && facts.keeps => return Ok(Taken::Passed(n)),
                // It is here already: the next one.
                Decision::Answer { .. } => {}
                Decision::Wait => return Ok(Taken::Upto(n)),
            }
        }
        Ok(Taken::Upto(all.len()))
    }

    /// How what is followed gets on: the mirror first, if there is one.
    pub(crate) fn following_infos(&self, mirror: bool) -> Vec<SourceInfo> {
        let Some(assets) = self.assets.upgrade() else { return Vec::new() };
        let mut list = Vec::new();
        {
            let core = self.core.lock();
            for u in core.following.upstreams.iter().filter(|u| u.is_mirror == mirror) {
                let stands = core.rules.as_ref().map_or(0, |r| u.stands(r).0);
                let (away, error) = (u.remote.then_some(u.lag), u.troubles.error().cloned());
                list.push((u.source.clone(), u.filters.clone(), stands, u.heard, away, error));
            }
        }
        let now = env::now().0;
        list.into_iter()
            .map(|(s, filters, stands, heard, away, error)| {
                let (lag, error, active) = match away {
                    Some(lag) => (lag, error, heard.map_or(-1, |at| now.saturating_sub(at) as i64)),
                    None => {
                        let origin = at_hand(&assets, &s, mirror);
                        let behind = |o: &Arc<Stream>| {
                            let v = o.group().view();
                            let from = start(&v, &s, 0, stands).unwrap_or(1);
                            v.pending(&filters, StreamSeq(from)).unwrap_or(0)
                        };
                        let is_there = self::origin(&assets, &s, mirror).is_some();
                        let error = if is_there { error } else { Some(errors::STREAM_NOT_FOUND.error()) };
                        let active = heard.map_or(-1, |at| silence(now.saturating_sub(at), origin.is_some()));
                        (origin.as_ref().map_or(0, behind), error, active)
                    }
                };
                SourceInfo {
                    seq: if mirror { 0 } else { stands },
                    lag,
                    active,
                    error,
                    name: s.name,
                    external: s.external,
                    filter_subject: s.filter_subject,
                    subject_transforms: s.subject_transforms,
                }
            })
            .collect()
    }
}

/// The stream that a source names, if its store is read in this process. J-25: one that keeps by interest or as a work queue is asked for a consumer wherever it is
/// led, since it lets go of nothing that its consumers want: of several copies none takes a message from another.
pub(crate) fn at_hand(assets: &Arc<Assets>, s: &Source, is_mirror: bool) -> Option<Arc<Stream>> {
    if s.consumer.is_some() {
        return None;
    }
    let o = origin(assets, s, is_mirror)?;
    let keeps_by_limits = {
        let core = o.core.lock();
        core.rules.as_ref().is_some_and(|r| r.config().retention == Retention::Limits)
    };
    keeps_by_limits.then_some(o)
}

/// Nanoseconds since something was heard of an origin in this process, the last turn of copying being so long ago: while it is there it gives a sign of
/// life each second, as one that is elsewhere does.
fn silence(since: u64, is_there: bool) -> i64 {
    let since = if is_there { since % HEARTBEAT } else { since };
    i64::try_from(since).unwrap_or(i64::MAX)
}

/// Whether a source may be reached through requests: on a server alone, without anybody else's API, there is nobody to ask.
fn is_elsewhere(assets: &Arc<Assets>, s: &Source) -> bool {
    let Some(node) = assets.node.upgrade() else { return false };
    s.consumer.is_some()
        || s.external.as_ref().is_some_and(|e| !is_own(&node, &e.api))
        || node.reaches_others()
}

/// Whether a prefix of an API is this account's own.
fn is_own(node: &JetStream, api: &str) -> bool {
    let prefix = api.trim_end_matches('.');
    let own_domain = node.options.domain.as_ref().map(|d| format!("$JS.{d}.API"));
    prefix == "$JS.API" || own_domain.as_deref() == Some(prefix)
}

/// The stream that a source names: of this account; or of the one whose API answers under the source's prefix, if its deliveries would come here as well.
fn origin(assets: &Arc<Assets>, s: &Source, is_mirror: bool) -> Option<Arc<Stream>> {
    let Some(external) = &s.external else { return assets.stream(&s.name) };
    let node = assets.node.upgrade()?;
    if is_own(&node, &external.api) {
        return assets.stream(&s.name);
    }
    let rules = assets.account.rules();
    let exporter = exporter(&node, &assets.account.name, &rules.imports, s, is_mirror)?;
    node.assets(&exporter).stream(&s.name)
}

/// J-29: the account whose stream may be copied here. A request by the source's prefix has to reach its API for just this stream by a service import, and
/// what the consumer delivers has to come back by a stream import under the subject at which it is listened for. Anything else is left to requests, which
/// get as far as the imports carry them.
fn exporter(
    node: &JetStream,
    importer: &str,
    imports: &[Import],
    s: &Source,
    is_mirror: bool,
) -> Option<Arc<Account>> {
    let what = format!("CONSUMER.CREATE.{}", s.name);
    let asks = source::api_subject(s, &what);
    let listens = source::deliver_subject(s, is_mirror, "x");
    let leads = |i: &Import, way: Result<Transform, String>, from: &str, to: &str| {
        let mut out = Vec::new();
        let granted = node
            .broker
            .account(&i.account)
            .is_some_and(|exporter| broker::rules::export_for(&exporter.rules(), i, importer).is_some());
        granted && way.is_ok_and(|t| t.apply(from.as_bytes(), |_| 0, &mut out)) && out == to.as_bytes()
    };
    let domain = node.options.domain.as_ref().map(|d| format!("$JS.{d}.API.{what}"));
    let plain = Some(format!("$JS.API.{what}"));
    let api = |i: &&Import| {
        i.service && [&plain, &domain].into_iter().flatten().any(|to| leads(i, i.outward(), &asks, to))
    };
    let brings = |from: &str, i: &Import| {
        !i.service && *i.account == *from && leads(i, i.inward(), &listens, &listens)
    };
    let found = imports.iter().filter(api).find(|i| imports.iter().any(|d| brings(&i.account, d)))?;
    node.broker.account(&found.account)
}

/// The time and the subject of a message, if it is there.
pub(crate) fn time_at(v: &store::View<'_>, seq: StreamSeq) -> Result<Option<(i64, Bytes)>, Need> {
    Ok(match v.get(seq)? {
        Read::Valid(m) => Some((m.message().time, Bytes::copy_from_slice(m.message().subject))),
        Read::Absent | Read::Damaged(_) => None,
    })
}

/// The sequence at which copying goes on.
fn start(v: &store::View<'_>, s: &Source, next: u64, stands: u64) -> Result<u64, Need> {
    Ok(if stands > 0 {
        next.max(stands + 1)
    } else if next > 0 {
        next
    } else if s.opt_start_seq > 0 {
        s.opt_start_seq
    } else if let Some(t) = &s.opt_start_time {
        v.at_time(t.ns)?.0
    } else {
        1
    })
}

/// Reads the next messages of an origin.
fn look(origin: &Stream, facts: &Facts) -> Result<Found, Need> {
    let v = origin.group().view();
    let start = start(&v, &facts.source, facts.next, facts.stands)?;
    // What was refused is tried alone: it may be refused for long.
    let turn = if facts.refused.is_some() { 1 } else { TURN };
    let filters = &facts.filters;
    // An origin that begins anew has lower sequences than what is known of it.
    let last = v.totals().last.0;
    let mut at = start;
    let mut messages = Vec::new();
    while messages.len() < turn {
        let Some(seq) = v.next(filters, StreamSeq(at))? else {
            return Ok(Found { messages, next: at.max(last + 1), more: false });
        };
        match v.get(seq) {
            Ok(Read::Valid(m)) => messages.push(view::stored(&m)),
            Ok(Read::Absent | Read::Damaged(_)) => {}
            // What is at hand is copied first.
            Err(_) if !messages.is_empty() => return Ok(Found { messages, next: at, more: true }),
            Err(need) => return Err(need),
        }
        at = seq.0 + 1;
    }
    Ok(Found { messages, next: at, more: true })
}

#[cfg(test)]
mod tests {
    #[test]
    fn an_origin_at_hand_is_heard_of_each_second() {
        let all = [(0, true), (999, true), (2_500_000_000, true), (2_500_000_000, false)];
        assert_eq!(all.map(|(ns, there)| super::silence(ns, there)), [0, 999, 500_000_000, 2_500_000_000]);
    }
}
