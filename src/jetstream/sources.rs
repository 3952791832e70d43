//! Mirrors and sources: streams that copy others of this server.
//!
//! Owns the way of a copy: read from the origin's store, rename, decide like any publish, join the open batch. There is no consumer in
//! between: origin and copy are in one process, and a copy is told when its origin has grown. Does not own where a copy stands
//! (`stream::Stream::source_at`, which the log says) nor what a copied message becomes (`stream::source`).
//!
//! A stream that follows others has one task while there is something to copy, and none otherwise.

use std::sync::Arc;

use bytes::Bytes;
use store::{Need, Read, StreamSeq};
use stream::{
    Decision, Publish, Stored,
    command::Command,
    config::{Retention, Source},
    errors,
    source::{self, Renames},
};

use crate::{
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

/// What is being followed.
#[derive(Default)]
pub(crate) struct Following {
    pub upstreams: Vec<Upstream>,
    /// A task copies.
    pub runs: bool,
    /// There may be more.
    pub again: bool,
}

/// One stream that is followed.
pub(crate) struct Upstream {
    source: Source,
    index_name: String,
    filters: Vec<Bytes>,
    renames: Arc<Renames>,
    is_mirror: bool,
    /// The next sequence to look at; 0 until it is known.
    next: u64,
    /// Something was copied or found, ever.
    heard: bool,
}

/// What a look at an origin found.
struct Found {
    messages: Vec<Stored>,
    /// Where to go on.
    next: u64,
    more: bool,
}

impl Upstream {
    fn new(source: &Source, is_mirror: bool) -> Upstream {
        Upstream {
            index_name: source.index_name(),
            filters: source::filters(source).into_iter().map(Bytes::from).collect(),
            renames: Arc::new(Renames::new(source)),
            source: source.clone(),
            is_mirror,
            next: 0,
            heard: false,
        }
    }
}

impl Stream {
    /// Takes what the configuration says of mirrors and sources; what stays keeps its place.
    pub(crate) fn follow_anew(self: &Arc<Stream>) {
        {
            let mut core = self.core.lock();
            let Some(rules) = &core.rules else { return };
            let c = rules.config();
            let mut new: Vec<Upstream> = c.mirror.iter().map(|m| Upstream::new(m, true)).collect();
            new.extend(c.sources.iter().map(|s| Upstream::new(s, false)));
            for u in &mut new {
                let old = core
                    .following
                    .upstreams
                    .iter()
                    .find(|o| o.source == u.source && o.is_mirror == u.is_mirror);
                if let Some(old) = old {
                    (u.next, u.heard) = (old.next, old.heard);
                }
            }
            if !new.is_empty()
                && let Some(node) = self.node.upgrade()
            {
                node.followers.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
            core.following.upstreams = new;
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

    /// Wakes those that follow this stream.
    pub(crate) fn tell_followers(&self) {
        let Some(assets) = self.assets.upgrade() else { return };
        let Some(node) = self.node.upgrade() else { return };
        if node.followers.load(std::sync::atomic::Ordering::Relaxed) == 0 {
            return;
        }
        for other in node.accounts() {
            let own = Arc::ptr_eq(&other, &assets);
            for s in other.streams() {
                let follows = s
                    .core
                    .lock()
                    .following
                    .upstreams
                    .iter()
                    .any(|u| u.source.name == *self.name && (own || u.source.external.is_some()));
                if follows {
                    s.follow();
                }
            }
        }
    }

    async fn copy(self: Arc<Stream>) {
        loop {
            let count = {
                let mut core = self.core.lock();
                core.following.again = false;
                core.following.upstreams.len()
            };
            let mut more = false;
            for i in 0..count {
                more |= self.copy_from(i).await;
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
    async fn copy_from(self: &Arc<Stream>, i: usize) -> bool {
        let Some(assets) = self.assets.upgrade() else { return false };
        // What was copied before is to be applied before much more is.
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
                    break;
                }
            }
            drained.await;
        }
        let (source, filters, renames, index_name, is_mirror, next, stands) = {
            let core = self.core.lock();
            let Some(u) = core.following.upstreams.get(i) else { return false };
            let Some(rules) = &core.rules else { return false };
            let stands = match u.is_mirror {
                true => rules.given_seq(),
                false => rules.source_at(&u.index_name).map_or(0, |at| at.seq),
            };
            (
                u.source.clone(),
                u.filters.clone(),
                u.renames.clone(),
                u.index_name.clone(),
                u.is_mirror,
                u.next,
                stands,
            )
        };
        let Some(origin) = origin(&assets, &source) else { return false };
        let found = loop {
            match look(&origin, &source, &filters, next, stands) {
                Ok(f) => break f,
                Err(need) => {
                    if origin.group().fetch(need).await.is_err() {
                        return false;
                    }
                }
            }
        };
        let mut taken = Vec::new();
        let mut at = 0;
        while at < found.messages.len() {
            let drained = self.drained.notified();
            tokio::pin!(drained);
            drained.as_mut().enable();
            let (done, handle) = {
                let mut core = self.core.lock();
                let done = self.join_copies(
                    &mut core,
                    &found.messages[at..],
                    &index_name,
                    &renames,
                    is_mirror,
                    &mut taken,
                );
                (done, core.log.has_work().then(|| core.handle.clone()).flatten())
            };
            if let Some(h) = handle {
                h.wake();
            }
            match done {
                Ok(n) if at + n == found.messages.len() => at += n,
                Ok(n) => {
                    at += n;
                    // A decision has to wait for what is on its way.
                    if !self.core.lock().log.has_tail() {
                        tokio::task::yield_now().await;
                        continue;
                    }
                    drained.await;
                }
                Err(need) => {
                    if self.group().fetch(need).await.is_err() {
                        return false;
                    }
                }
            }
        }
        if let Some(u) = self.core.lock().following.upstreams.get_mut(i) {
            (u.next, u.heard) = (found.next, true);
        }
        // Whoever copies from a work queue has done its work.
        if !taken.is_empty() && origin.config().retention == Retention::WorkQueue {
            origin.propose(Command::Remove { seqs: taken }, None).ok();
        }
        found.more
    }

    /// Decides copies in order until one has to wait; how many are done.
    fn join_copies(
        &self,
        core: &mut crate::shell::Core,
        all: &[Stored],
        index_name: &str,
        renames: &Renames,
        is_mirror: bool,
        taken: &mut Vec<u64>,
    ) -> Result<usize, Need> {
        let crate::shell::Core { rules: Some(rules), log, term: Some(_), .. } = core else {
            return Ok(all.len());
        };
        if core.voided {
            return Ok(0);
        }
        let view = self.view();
        let group = store::GroupId(self.id);
        let (mut subject, mut headers) = (Vec::new(), Vec::new());
        for (n, m) in all.iter().enumerate() {
            subject.clear();
            let renamed = renames.apply(&m.subject, |n| n / 2, &mut subject);
            let to: Bytes = if renamed { Bytes::copy_from_slice(&subject) } else { m.subject.clone() };
            let copy;
            let decision = if is_mirror {
                copy = Stored { subject: to, ..m.clone() };
                rules.mirrored(&copy)
            } else {
                headers.clear();
                source::gathered(&m.headers, index_name, m.seq, &m.subject, "", &mut headers);
                let p = Publish {
                    subject: &to,
                    reply: b"",
                    headers: &headers,
                    payload: &m.payload,
                    from: stream::From::Source,
                    no_room_for_batches: false,
                };
                rules.decide(&p, &view, now())?
            };
            match decision {
                Decision::Store { entry, .. } => publish::join(log, group, &entry),
                Decision::StoreAll { entries, .. } => {
                    for e in &entries {
                        publish::join(log, group, &stream::Entry::of(e));
                    }
                }
                // It is here already, or this stream does not take it: the next one.
                Decision::Answer { .. } => {}
                Decision::Wait => return Ok(n),
            }
            taken.push(m.seq);
        }
        Ok(all.len())
    }

    /// How what is followed gets on: the mirror first, if there is one.
    pub(crate) fn following_infos(&self, mirror: bool) -> Vec<SourceInfo> {
        let Some(assets) = self.assets.upgrade() else { return Vec::new() };
        let mut list = Vec::new();
        {
            let core = self.core.lock();
            for u in core.following.upstreams.iter().filter(|u| u.is_mirror == mirror) {
                let stands = core.rules.as_ref().map_or(0, |r| match u.is_mirror {
                    true => r.applied_seq(),
                    false => r.source_at(&u.index_name).map_or(0, |at| at.seq),
                });
                list.push((u.source.clone(), u.filters.clone(), stands, u.heard));
            }
        }
        list.into_iter()
            .map(|(s, filters, stands, heard)| {
                let origin = origin(&assets, &s);
                let behind =
                    |o: &Arc<Stream>| o.group().view().pending(&filters, StreamSeq(stands + 1)).unwrap_or(0);
                SourceInfo {
                    seq: if mirror { 0 } else { stands },
                    lag: origin.as_ref().map_or(0, behind),
                    active: if heard && origin.is_some() { 0 } else { -1 },
                    error: origin.is_none().then(|| errors::STREAM_NOT_FOUND.error()),
                    name: s.name,
                    external: s.external,
                    filter_subject: s.filter_subject,
                    subject_transforms: s.subject_transforms,
                }
            })
            .collect()
    }
}

/// The stream that a source names: of this account, or of the account from which the prefix of its API is imported.
fn origin(assets: &Arc<Assets>, s: &Source) -> Option<Arc<Stream>> {
    let Some(external) = &s.external else { return assets.stream(&s.name) };
    let node = assets.node.upgrade()?;
    let prefix = external.api.trim_end_matches('.');
    let own_domain = node.options.domain.as_ref().map(|d| format!("$JS.{d}.API"));
    if prefix == "$JS.API" || own_domain.as_deref() == Some(prefix) {
        return assets.stream(&s.name);
    }
    // What a request under the prefix would reach by a service import.
    let asked = format!("{prefix}.CONSUMER.CREATE.{}", s.name);
    let rules = assets.account.rules();
    let import =
        rules.imports.iter().find(|i| i.service && subject::matches(asked.as_bytes(), &i.local()))?;
    let exporter = node.broker.account(&import.account)?;
    node.assets(&exporter).stream(&s.name)
}

/// Reads the next messages of an origin.
fn look(origin: &Stream, s: &Source, filters: &[Bytes], next: u64, stands: u64) -> Result<Found, Need> {
    let v = origin.group().view();
    let start = if stands > 0 {
        next.max(stands + 1)
    } else if next > 0 {
        next
    } else if s.opt_start_seq > 0 {
        s.opt_start_seq
    } else if let Some(t) = &s.opt_start_time {
        v.at_time(t.ns)?.0
    } else {
        1
    };
    // An origin that begins anew has lower sequences than what is known of it.
    let last = v.totals().last.0;
    let mut at = start;
    let mut messages = Vec::new();
    while messages.len() < TURN {
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
