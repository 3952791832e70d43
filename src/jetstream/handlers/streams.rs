//! Requests about streams and their messages.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use replica::NodeId;
use store::{Read, StreamSeq};
use stream::{
    ApiError,
    command::Command,
    config::{ServerLimits, Storage, StreamConfig, Streams, subjects_overlap},
    consumer::check::check_stream_limits,
    errors,
};

use super::{Desk, info};
use crate::{
    AccountLimits, advisory,
    api::{
        Kind, metadata,
        request::{MsgGet, name_matches},
        response::{
            Done, LIST_LIMIT, MsgGot, Page, Purged, StoredMessage, StreamCreated, StreamInfo, StreamInfoPage,
            StreamList, StreamNames,
        },
    },
    cluster::{
        ask::settle_stream,
        calls::{Call, Reply},
    },
    meta::{Assigned, Assignment, Command as MetaCommand, NotAssigned, OfAccount, Proposed, State, aside},
    shell::now,
    view,
};

/// How long a list waits for the other servers.
const LIST_PATIENCE: Duration = Duration::from_secs(2);

/// How long the making of a stream waits for room in the journal, and how often it looks.
const ROOM_MAX: Duration = Duration::from_secs(4);
const ROOM_PAUSE: Duration = Duration::from_millis(2);

/// The account's other streams, as configurations are checked against.
pub(super) struct Others<'a>(pub &'a Desk<'a>);

impl Streams for Others<'_> {
    fn find(&self, name: &str) -> Option<StreamConfig> {
        self.0.node.meta.find(&self.0.assets.account.name, name)?.config.clone()
    }
}

/// What it is to a client that the assignments did not change.
pub(super) fn not_assigned(e: NotAssigned, error: errors::Known) -> ApiError {
    match e {
        NotAssigned::NotLeader(_) => errors::CLUSTER_NOT_LEADER.error(),
        NotAssigned::Open => errors::CLUSTER_NOT_AVAIL.error(),
        NotAssigned::Refused(why) => error.with(why),
        NotAssigned::Busy => error.with(e),
    }
}

/// What a message's removal says of one that is not there.
const NO_MESSAGE: &str = "no message found";
const BEYOND_LAST: &str = "stream store EOF";

/// Whether an error only says that the message to remove was not there: nats-server, alone, does not count that.
pub(crate) fn is_not_there(kind: Kind, e: &ApiError) -> bool {
    kind == Kind::MsgDelete
        && (errors::SEQUENCE_NOT_FOUND.is(e)
            || errors::STREAM_MSG_DELETE_FAILED.is(e) && [NO_MESSAGE, BEYOND_LAST].contains(&&*e.description))
}

fn broken(text: String) -> ApiError {
    errors::STREAM_STORE_FAILED.with(text)
}

impl Desk<'_> {
    pub(super) fn limits_for(&self, storage: Storage) -> (AccountLimits, ServerLimits) {
        let l = self.assets.limits().unwrap_or_default();
        let window = self.node.tunable().limits.duplicate_window;
        let server = ServerLimits {
            duplicate_window: window.and_then(|d| i64::try_from(d.as_nanos()).ok()).unwrap_or(0),
            max_bytes_required: l.max_bytes_required,
            max_stream_bytes: match storage {
                Storage::Memory => l.memory_max_stream_bytes,
                Storage::File => l.store_max_stream_bytes,
            },
            clustered: self.node.is_clustered(),
        };
        (l, server)
    }

    /// Whether the account allows as many consumers as a stream may have.
    fn check_consumers_max(&self, c: &StreamConfig) -> Result<(), ApiError> {
        let most = self.assets.limits().map_or(-1, |a| a.max_consumers);
        if most > 0 && c.max_consumers > most {
            return Err(errors::MAXIMUM_CONSUMERS_LIMIT.error());
        }
        Ok(())
    }

    /// Whether account and server have room for what a stream sets aside; `old` is what it was before. A new one that sets nothing aside needs room for a
    /// byte: where there is none it could never hold anything. One that is changed is judged whether it sets more aside or not: a limit that was lowered
    /// since holds for it too.
    pub(super) fn reserve(&self, c: &StreamConfig, old: Option<&StreamConfig>) -> Result<(), ApiError> {
        self.check_consumers_max(c)?;
        let before = old.map_or(0, aside);
        let wanted = if old.is_none() && c.max_bytes < 0 { 1 } else { aside(c) };
        let limits = self.assets.limits().unwrap_or_default();
        let coming = |all: &mut dyn Iterator<Item = &Arc<Assigned>>| {
            let of = all.filter_map(|a| a.config.as_ref()).filter(|o| o.storage == c.storage);
            of.fold(0u64, |sum, o| sum.saturating_add(aside(o)))
        };
        let own = self.claimed(|of, all| {
            let (memory, file) = of.map_or((0, 0), OfAccount::reserved);
            coming(all).saturating_add(if c.storage == Storage::Memory { memory } else { file })
        });
        // In a cluster it is the placement that knows who has room. Alone, all that there is lies here.
        let server = |max: u64| match self.node.is_clustered() {
            true => None,
            false => {
                let me = self.node.me;
                let used = |s: &State, all: &mut dyn Iterator<Item = &Arc<Assigned>>| {
                    s.load_of(me).reserved(c.storage).saturating_add(coming(all))
                };
                Some((self.node.meta.with_coming(used), max))
            }
        };
        let (limit, server, error) = match c.storage {
            Storage::Memory => {
                (limits.max_memory, server(self.node.tunable().memory_max), errors::MEMORY_RESOURCES_EXCEEDED)
            }
            Storage::File => (
                limits.max_store,
                server(self.node.tunable().storage_max),
                errors::STORAGE_RESOURCES_EXCEEDED,
            ),
        };
        let account = u64::try_from(limit).ok().map(|max| (own, max));
        let is_over = |(used, max): (u64, u64)| used.saturating_sub(before).saturating_add(wanted) > max;
        if [account, server].into_iter().flatten().any(is_over) {
            return Err(error.error());
        }
        Ok(())
    }

    pub(super) fn check_overlap(&self, c: &StreamConfig) -> Result<(), ApiError> {
        let overlaps =
            |other: &StreamConfig| other.name != c.name && subjects_overlap(&other.subjects, &c.subjects);
        let own = self.assigned(&c.name).map_or(0, |a| a.a.id);
        let taken = self.claimed(|of, coming| {
            of.is_some_and(|of| of.overlaps(&c.subjects, own))
                || coming.filter_map(|a| a.config.as_ref()).any(overlaps)
        });
        match taken {
            true => Err(errors::STREAM_SUBJECT_OVERLAP.error()),
            false => Ok(()),
        }
    }
    /// Whether there is room for a stream, beside those that are there.
    pub(super) fn fits(&self, c: &StreamConfig) -> Result<(), ApiError> {
        // In nats-server's order, which is another one in a cluster.
        if self.node.is_clustered() {
            self.check_overlap(c)?;
            return self.reserve(c, None);
        }
        self.reserve(c, None)?;
        self.check_overlap(c)
    }
    /// Whether there may be one more; who will have it.
    pub(super) fn admit(&self, c: &StreamConfig, limits: &AccountLimits) -> Result<Vec<NodeId>, ApiError> {
        if self.has_enough(limits) {
            return Err(errors::MAXIMUM_STREAMS_LIMIT.error());
        }
        self.fits(c)?;
        if self.node.is_clustered() { self.node.place_stream(c, &[]) } else { Ok(vec![self.node.me]) }
    }
    /// A server alone says first that there may be no more, then what is wrong with the configuration, and last that there is no room;
    /// decided is that later.
    fn check_early(
        &self,
        c: &mut StreamConfig,
        (limits, server): (&AccountLimits, &ServerLimits),
        pedantic: bool,
    ) -> Result<(), ApiError> {
        let others = Others(self);
        if self.node.is_clustered() {
            return c.check(server, &others, pedantic);
        }
        // It counts itself already.
        let new = self.assigned(&c.name).is_none() && self.assets.making.wait(&c.name).is_none();
        if new && self.has_enough(limits) {
            return Err(errors::MAXIMUM_STREAMS_LIMIT.error());
        }
        self.check_consumers_max(c)?;
        c.check(server, &others, pedantic)?;
        if new { self.reserve(c, None) } else { Ok(()) }
    }
    /// The account's streams.
    pub(super) fn own(&self) -> Vec<Arc<Assigned>> {
        self.node.meta.of_account(&self.assets.account.name)
    }
    /// What they add up to, and those that are being made: limits count them.
    fn claimed<R>(
        &self,
        f: impl FnOnce(Option<&OfAccount>, &mut dyn Iterator<Item = &Arc<Assigned>>) -> R,
    ) -> R {
        self.node.meta.claimed(&self.assets.account.name, f)
    }
    /// Whether the account has as many streams as it may.
    fn has_enough(&self, limits: &AccountLimits) -> bool {
        let count = || self.claimed(|of, coming| of.map_or(0, |of| of.names.len()) + coming.count());
        usize::try_from(limits.max_streams).is_ok_and(|max| count() >= max)
    }
    pub(super) fn assigned(&self, name: &str) -> Option<Arc<Assigned>> {
        self.node.meta.find(&self.assets.account.name, name)
    }

    pub(super) async fn create_stream(
        &self,
        mut c: StreamConfig,
        pedantic: bool,
    ) -> Result<StreamCreated, ApiError> {
        let (limits, server) = self.limits_for(c.storage);
        // Before the checks: it counts among the metadata.
        metadata::store_stream(&mut c);
        self.check_early(&mut c, (&limits, &server), pedantic)?;
        let one = self.assets.making.turn(&c.name).await;
        if let Some(there) = self.assigned(&c.name) {
            let old = there.config.clone().unwrap_or_default();
            let same = StreamConfig { metadata: Default::default(), ..old.clone() }
                == StreamConfig { metadata: Default::default(), ..c.clone() }
                && metadata::without_versions(&old.metadata) == metadata::without_versions(&c.metadata);
            if !same {
                return Err(errors::STREAM_NAME_EXIST.error());
            }
            drop(one);
            return self.created(&there.a).await;
        }
        let members = self.admit(&c, &limits)?;
        let (a, assigned) = self.begin_stream(&c, members).await?;
        // It counts from here on (`claimed`). What follows waits for disks and servers; the next change need not.
        let making = self.assets.making.begin(&c.name, ());
        drop(one);
        self.make_stream(&a, assigned).await?;
        drop(making);
        advisory::stream_action(self.node, self.assets, &a.name, advisory::Action::Create);
        self.created(&a).await
    }

    /// Assigns a group to a stream. Under the account's lock of changes.
    pub(super) async fn begin_stream(
        &self,
        c: &StreamConfig,
        members: Vec<NodeId>,
    ) -> Result<(Assignment, Proposed), ApiError> {
        let config = serde_json::to_vec(c).map_err(|e| errors::STREAM_CREATE.with(e))?;
        let mut a = Assignment {
            id: 0,
            account: self.assets.account.name.clone(),
            name: c.name.as_str().into(),
            created: now().wall,
            memory: c.storage == Storage::Memory,
            config: config.into(),
            first: members.clone(),
            members,
            leaving: Vec::new(),
            left: Vec::new(),
        };
        let until = env::now() + ROOM_MAX;
        let (id, assigned) = loop {
            let (id, assigned) = self.node.meta.create(a.clone(), self.node.taken());
            if !assigned.is_busy() || env::now() >= until {
                break (id, assigned);
            }
            // Others wait behind the lock: that is the back-pressure.
            env::sleep(ROOM_PAUSE).await;
        };
        a.id = id;
        Ok((a, assigned))
    }

    /// Waits until a stream is assigned and, on a server alone, opened.
    pub(super) async fn make_stream(&self, a: &Assignment, assigned: Proposed) -> Result<(), ApiError> {
        let id = a.id;
        if self.node.is_clustered() {
            assigned.done().await.map_err(|e| not_assigned(e, errors::STREAM_CREATE))?;
            return Ok(());
        }
        // One journal: whatever of the group is on the disk after a crash, its assignment is there too. Both are durable before anybody is told.
        let opened = self.node.open_stream(a.clone(), false).await;
        let assigned = assigned.done().await;
        let Err(e) = opened.and(assigned.map_err(|e| e.to_string())) else { return Ok(()) };
        // Nobody has heard of it yet: it goes as it came.
        if let Some(s) = self.assets.stream(&a.name).filter(|s| s.id == id) {
            self.assets.remove(&s);
            s.retire();
        }
        self.node.meta.begin(&MetaCommand::Delete(id)).done().await.ok();
        if self.node.replicas.remove(replica::GroupId(id)).await.is_ok() {
            self.node.gone(id);
        }
        Err(errors::STREAM_CREATE.with(e))
    }

    /// The info of a stream that has the configuration of its assignment, from wherever it is led.
    pub(super) async fn settled(&self, a: &Assignment) -> Result<StreamInfo, ApiError> {
        if self.node.is_clustered() {
            let info = self.node.settle(a.id, a.config.clone()).await;
            self.node.spread().await;
            return info;
        }
        let s = self.stream(&a.name)?;
        settle_stream(&s, a.config.clone()).await
    }
    async fn created(&self, a: &Assignment) -> Result<StreamCreated, ApiError> {
        // As in nats-server, this answer does not name the domain.
        let info = self.settled(a).await?;
        Ok(StreamCreated { info: info::dressed(info), did_create: true })
    }

    pub(super) async fn update_stream(
        &self,
        name: &str,
        mut c: StreamConfig,
        pedantic: bool,
    ) -> Result<StreamInfo, ApiError> {
        let (_, server) = self.limits_for(c.storage);
        metadata::store_stream(&mut c);
        // Who is told that it failed would not expect it to be so later.
        if let Some(a) = self.assigned(name)
            && self.node.is_away_for_long(&a).await
        {
            return Err(self.node.offline(&a, false));
        }
        let _one = self.assets.making.turn(name).await;
        let there = self.assigned(name);
        match there.as_ref().and_then(|a| a.config.as_ref()) {
            Some(old) => c.check_update(old, &server, &Others(self), pedantic)?,
            None => c.check_alone(&server, &Others(self), pedantic)?,
        }
        name_matches(name, &c.name)?;
        let there = there.ok_or_else(|| errors::STREAM_NOT_FOUND.error())?;
        if let Some(s) = self.node.stream_of(&there) {
            check_stream_limits(&c.consumer_limits, s.core.lock().consumers.configs())?;
        }
        let old = there.config.clone().unwrap_or_default();
        self.reserve(&c, Some(&old))?;
        self.check_overlap(&c)?;
        let config: Bytes = serde_json::to_vec(&c).map_err(|e| errors::STREAM_UPDATE.with(e))?.into();
        let mut a = there.a.clone();
        let moves = old.num_replicas != c.num_replicas || old.placement != c.placement;
        if self.node.is_clustered() && moves {
            let keep = self.node.leader_first(&there);
            a.members = self.node.place_stream(&c, &keep)?;
        }
        a.config = config.clone();
        let update = MetaCommand::Update { id: a.id, config, members: a.members.clone() };
        let proposed = self.node.meta.begin(&update);
        if self.node.is_clustered() {
            proposed.done().await.map_err(|e| not_assigned(e, errors::STREAM_UPDATE))?;
            let mut info = self.settled(&a).await?;
            info.domain = self.domain().unwrap_or_default().to_owned();
            advisory::stream_action(self.node, self.assets, &a.name, advisory::Action::Modify);
            return Ok(info::dressed(info));
        }
        // What is wanted stands in the journal before what is.
        let settled = self.settled(&a).await;
        proposed.done().await.map_err(|e| not_assigned(e, errors::STREAM_UPDATE))?;
        let mut info = settled?;
        info.domain = self.domain().unwrap_or_default().to_owned();
        advisory::stream_action(self.node, self.assets, &a.name, advisory::Action::Modify);
        Ok(info::dressed(info))
    }

    /// Streams whose subjects have something in common with `subject`; empty for all.
    fn matching(&self, subject: &str) -> Vec<Arc<Assigned>> {
        let all = self.own();
        if subject.is_empty() {
            return all;
        }
        let wanted = [subject.to_string()];
        let of =
            |a: &Arc<Assigned>| a.config.as_ref().is_some_and(|c| subjects_overlap(&c.subjects, &wanted));
        all.into_iter().filter(of).collect()
    }
    pub(super) fn stream_names(&self, offset: usize, subject: &str) -> StreamNames {
        let names = self.matching(subject).iter().map(|a| a.a.name.to_string()).collect();
        StreamNames::page_of(names, offset, self.node.is_clustered())
    }
    pub(super) async fn stream_list(&self, offset: usize, subject: &str) -> Result<StreamList, ApiError> {
        let all = self.matching(subject);
        let (page, range) = Page::cut(all.len(), offset, LIST_LIMIT);
        let mut streams = Vec::with_capacity(range.len());
        let mut elsewhere: Vec<Arc<str>> = Vec::new();
        for a in &all[range] {
            match self.node.stream_of(a).filter(|s| !self.node.is_clustered() || s.leads()) {
                Some(s) => {
                    let info = info::stream(&s, &info::Wanted::default(), self.domain()).await;
                    streams.push(info.map_err(broken)?.0);
                }
                None => elsewhere.push(a.a.name.clone()),
            }
        }
        let (mut missing, mut offline) = (Vec::new(), BTreeMap::new());
        if !elsewhere.is_empty() {
            let call = Call::Infos { account: self.assets.account.name.clone(), names: elsewhere.clone() };
            for (_, reply) in self.node.ask_all(&call, LIST_PATIENCE).await {
                let Reply::Json(b) = reply else { continue };
                for info in serde_json::from_slice::<Vec<StreamInfo>>(&b).unwrap_or_default() {
                    if let Some(at) = elsewhere.iter().position(|n| **n == *info.config.name) {
                        elsewhere.swap_remove(at);
                        streams.push(info);
                    }
                }
            }
            let away: Vec<_> = elsewhere.iter().filter_map(|n| self.assigned(n)).collect();
            streams.extend(away.iter().filter_map(|a| self.node.info_of_away(a)));
            offline = self.node.offline_of(&away);
            streams.sort_by(|a, b| a.config.name.cmp(&b.config.name));
            missing.extend(elsewhere.iter().map(|n| n.to_string()));
            missing.sort();
        }
        Ok(StreamList { page, streams, missing, offline })
    }
    pub(super) async fn stream_info(&self, name: &str, w: &info::Wanted) -> Result<StreamInfoPage, ApiError> {
        let s = self.stream(name)?;
        let (info, page) = info::stream(&s, w, self.domain()).await.map_err(broken)?;
        let mut info = info::dressed(info);
        info.alternates = self.node.alternates(&self.assets.account.name, name);
        let info = if self.node.is_clustered() { info } else { info::led(info, self.node.host.name()) };
        Ok(StreamInfoPage { page, info })
    }

    pub(crate) async fn delete_stream(&self, name: &str) -> Result<Done, ApiError> {
        let _one = self.assets.making.turn(name).await;
        let a = self.assigned(name).ok_or_else(|| errors::STREAM_NOT_FOUND.error())?;
        self.end_stream(&a).await?;
        advisory::stream_action(self.node, self.assets, &a.a.name, advisory::Action::Delete);
        Ok(Done::YES)
    }

    /// Deletes a stream. Under the account's lock of changes.
    pub(super) async fn end_stream(&self, a: &Arc<Assigned>) -> Result<(), ApiError> {
        let deleted = self.node.meta.begin(&MetaCommand::Delete(a.a.id)).done().await;
        deleted.map_err(|e| not_assigned(e, errors::STREAM_DELETE))?;
        if self.node.is_clustered() {
            // Every member removes its part by itself.
            self.node.spread().await;
        } else {
            if let Some(s) = self.node.stream_of(a) {
                advisory::consumers_gone(self.node, self.assets, &s);
                self.assets.remove(&s);
                s.retire();
            }
            let removed = self.node.replicas.remove(replica::GroupId(a.a.id)).await;
            removed.map_err(|e| errors::STREAM_DELETE.with(e))?;
            self.node.gone(a.a.id);
        }
        Ok(())
    }

    pub(super) async fn purge(
        &self,
        name: &str,
        filter: &str,
        seq: u64,
        keep: u64,
    ) -> Result<Purged, ApiError> {
        let s = self.stream(name)?;
        let c = s.config();
        if c.sealed {
            return Err(errors::STREAM_SEALED.error());
        }
        if c.deny_purge {
            return Err(errors::STREAM_PURGE_FAILED.with("stream purge not permitted"));
        }
        let command = Command::Purge { filter: Bytes::copy_from_slice(filter.as_bytes()), below: seq, keep };
        let done = s.command(command).await?;
        Ok(Purged { success: true, purged: done.removed })
    }

    pub(super) async fn delete_message(
        &self,
        name: &str,
        seq: u64,
        no_erase: bool,
    ) -> Result<Done, ApiError> {
        let s = self.stream(name)?;
        let c = s.config();
        if c.sealed {
            return Err(errors::STREAM_SEALED.error());
        }
        if c.deny_delete {
            return Err(errors::STREAM_MSG_DELETE_FAILED.with("message delete not permitted"));
        }
        // What lies outside is told apart where messages are in files, and is not where they are in memory.
        let state = s.group().state();
        // What is never given lies before the first, and is nowhere behind the last.
        let floor = s.core.lock().rules.as_ref().map_or(0, |r| r.floor());
        match c.storage {
            Storage::File if seq > state.last.0.max(floor) => {
                return Err(errors::STREAM_MSG_DELETE_FAILED.with(BEYOND_LAST));
            }
            Storage::File if seq < state.first.0.max(floor + 1) => {
                return Err(errors::STREAM_MSG_DELETE_FAILED.with(NO_MESSAGE));
            }
            Storage::Memory if seq == 0 || seq > state.last.0 => {
                return Err(errors::SEQUENCE_NOT_FOUND.with(seq));
            }
            Storage::File | Storage::Memory => {}
        }
        let done = s.command(Command::Delete { seq, erase: !no_erase }).await?;
        if done.removed == 0 {
            return Err(errors::SEQUENCE_NOT_FOUND.with(seq));
        }
        Ok(Done::YES)
    }

    pub(super) async fn get_message(&self, name: &str, get: &MsgGet) -> Result<MsgGot, ApiError> {
        let s = self.stream(name)?;
        // Whoever has seen a message leave for here, as a republished one, finds it.
        s.tail_applied().await;
        let none: [&[u8]; 0] = [];
        let found = s.group().ask(|v| {
            let seq = if !get.last_by_subj.is_empty() {
                last_matching(v, get.last_by_subj.as_bytes())?
            } else {
                let from = match get.start_time {
                    Some(t) => v.at_time(t.nanos())?,
                    None => StreamSeq(get.seq),
                };
                if !get.next_by_subj.is_empty() {
                    v.next(&[get.next_by_subj.as_bytes()], from)?
                } else if get.start_time.is_some() {
                    v.next(&none, from)?
                } else {
                    Some(from)
                }
            };
            match seq {
                Some(seq) => v.get(seq),
                None => Ok(Read::Absent),
            }
        });
        match found.await.map_err(|e| broken(e.to_string()))? {
            Read::Valid(m) => Ok(MsgGot { message: StoredMessage::new(&view::stored(&m), get.no_hdr) }),
            Read::Absent => Err(errors::NO_MESSAGE_FOUND.error()),
            Read::Damaged(d) => Err(broken(d.to_string())),
        }
    }
}

/// The last message whose subject matches.
pub fn last_matching(v: &store::View<'_>, filter: &[u8]) -> Result<Option<StreamSeq>, store::Need> {
    if subject::is_literal(filter) {
        return v.last_of(filter, StreamSeq(u64::MAX));
    }
    let mut last = None;
    v.subjects(filter, |_, s| {
        last = last.max(Some(s.last));
        true
    })?;
    Ok(last)
}
