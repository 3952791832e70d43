//! Requests about streams and their messages.

use std::sync::Arc;

use bytes::Bytes;
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
    AccountLimits,
    account::Assets,
    advisory,
    api::{
        metadata,
        request::{MsgGet, name_matches},
        response::{
            Done, LIST_LIMIT, MsgGot, Page, Purged, StoredMessage, StreamCreated, StreamInfo, StreamInfoPage,
            StreamList, StreamNames,
        },
    },
    meta::Assignment,
    shell::{Stream, now},
    view,
};

/// The account's other streams, as configurations are checked against.
struct Others<'a>(&'a Assets);

impl Streams for Others<'_> {
    fn find(&self, name: &str) -> Option<StreamConfig> {
        self.0.stream(name).map(|s| s.config())
    }
}

fn broken(text: String) -> ApiError {
    errors::STREAM_STORE_FAILED.with(text)
}

impl Desk<'_> {
    fn limits_for(&self, storage: Storage) -> (AccountLimits, ServerLimits) {
        let l = self.assets.limits().unwrap_or_default();
        let window = self.node.options.limits.duplicate_window;
        let server = ServerLimits {
            duplicate_window: window.and_then(|d| i64::try_from(d.as_nanos()).ok()).unwrap_or(0),
            max_bytes_required: l.max_bytes_required,
            max_stream_bytes: match storage {
                Storage::Memory => l.memory_max_stream_bytes,
                Storage::File => l.store_max_stream_bytes,
            },
            clustered: false,
        };
        (l, server)
    }

    /// Whether account and server have room for what a stream sets aside. `had` is what it has set aside already.
    fn reserve(&self, c: &StreamConfig, had: i64) -> Result<(), ApiError> {
        let more = c.max_bytes.max(0).saturating_sub(had.max(0));
        if more <= 0 {
            // What all others have set aside need not be added up.
            return Ok(());
        }
        let limits = self.assets.limits().unwrap_or_default();
        let (mut own, all) = (crate::Usage::default(), self.node.usage());
        self.assets.add_usage(&mut own);
        let (limit, reserved, server, promised, error) = match c.storage {
            Storage::Memory => (
                limits.max_memory,
                own.reserved_memory,
                self.node.options.memory_max,
                all.reserved_memory,
                errors::MEMORY_RESOURCES_EXCEEDED,
            ),
            Storage::File => (
                limits.max_store,
                own.reserved_storage,
                self.node.options.storage_max,
                all.reserved_storage,
                errors::STORAGE_RESOURCES_EXCEEDED,
            ),
        };
        if let Ok(limit) = u64::try_from(limit)
            && reserved.saturating_add(more.unsigned_abs()) > limit
        {
            return Err(error.error());
        }
        if promised.saturating_add(more.unsigned_abs()) > server {
            return Err(error.error());
        }
        Ok(())
    }

    fn check_overlap(&self, c: &StreamConfig) -> Result<(), ApiError> {
        for s in self.assets.streams() {
            if *s.name != *c.name && s.overlaps(&c.subjects) {
                return Err(errors::STREAM_SUBJECT_OVERLAP.error());
            }
        }
        Ok(())
    }

    pub(super) async fn create_stream(
        &self,
        mut c: StreamConfig,
        pedantic: bool,
    ) -> Result<StreamCreated, ApiError> {
        let (limits, server) = self.limits_for(c.storage);
        c.check(&server, &Others(self.assets), pedantic)?;
        metadata::store_stream(&mut c);
        let _one = self.assets.changing.lock().await;
        if let Some(there) = self.assets.stream(&c.name) {
            let old = there.config();
            let same = StreamConfig { metadata: Default::default(), ..old.clone() }
                == StreamConfig { metadata: Default::default(), ..c.clone() }
                && metadata::without_versions(&old.metadata) == metadata::without_versions(&c.metadata);
            if !same {
                return Err(errors::STREAM_NAME_EXIST.error());
            }
            return self.created(&there).await;
        }
        if limits.max_streams >= 0 && self.assets.streams().len() as i64 >= limits.max_streams {
            return Err(errors::MAXIMUM_STREAMS_LIMIT.error());
        }
        self.reserve(&c, 0)?;
        self.check_overlap(&c)?;
        let stream = self.make_stream(c).await?;
        advisory::stream_action(self.node, self.assets, &stream.name, advisory::Action::Create);
        self.created(&stream).await
    }

    /// Assigns a group to a stream and opens it. Under the account's lock of changes.
    pub(super) async fn make_stream(&self, c: StreamConfig) -> Result<Arc<Stream>, ApiError> {
        let config = serde_json::to_vec(&c).map_err(|e| errors::STREAM_CREATE.with(e))?;
        let mut a = Assignment {
            id: 0,
            account: self.assets.account.name.clone(),
            name: c.name.as_str().into(),
            created: now().wall,
            memory: c.storage == Storage::Memory,
            config: config.into(),
        };
        let failed = |e: String| errors::STREAM_CREATE.with(e);
        a.id = self.node.meta.create(a.clone()).await.map_err(|e| failed(e.0))?;
        let id = a.id;
        match self.node.open_stream(a, false).await {
            Ok(s) => Ok(s),
            Err(e) => {
                // Nobody has heard of it yet: it goes as it came.
                if let Some(s) = self.assets.stream(&c.name).filter(|s| s.id == id) {
                    self.assets.remove(&c.name);
                    s.retire();
                }
                self.node.meta.delete(id).await.ok();
                if self.node.replicas.remove(replica::GroupId(id)).await.is_ok() {
                    self.node.meta.gone(id);
                }
                Err(failed(e))
            }
        }
    }

    async fn created(&self, s: &Stream) -> Result<StreamCreated, ApiError> {
        // As in nats-server, this answer does not name the domain.
        let (info, _) = info::stream(s, &info::Wanted::default(), None).await.map_err(broken)?;
        Ok(StreamCreated { info: info::dressed(info), did_create: true })
    }

    pub(super) async fn update_stream(
        &self,
        name: &str,
        mut c: StreamConfig,
        pedantic: bool,
    ) -> Result<StreamInfo, ApiError> {
        let (_, server) = self.limits_for(c.storage);
        let _one = self.assets.changing.lock().await;
        let there = self.assets.stream(name);
        match &there {
            Some(s) => c.check_update(&s.config(), &server, &Others(self.assets), pedantic)?,
            None => c.check(&server, &Others(self.assets), pedantic)?,
        }
        name_matches(name, &c.name)?;
        let s = there.ok_or_else(|| errors::STREAM_NOT_FOUND.error())?;
        check_stream_limits(&c.consumer_limits, s.core.lock().consumers.configs())?;
        metadata::store_stream(&mut c);
        self.reserve(&c, s.config().max_bytes)?;
        self.check_overlap(&c)?;
        let json = serde_json::to_vec(&c).map_err(|e| errors::STREAM_UPDATE.with(e))?;
        s.command(Command::Config { json: json.into(), created: s.created }).await?;
        s.listen();
        advisory::stream_action(self.node, self.assets, &s.name, advisory::Action::Modify);
        let (info, _) = info::stream(&s, &info::Wanted::default(), self.domain()).await.map_err(broken)?;
        Ok(info::dressed(info))
    }

    /// Streams whose subjects have something in common with `subject`; empty for all.
    fn matching(&self, subject: &str) -> Vec<Arc<Stream>> {
        let all = self.assets.streams();
        if subject.is_empty() {
            return all;
        }
        let wanted = [subject.to_string()];
        all.into_iter().filter(|s| subjects_overlap(&s.config().subjects, &wanted)).collect()
    }
    pub(super) fn stream_names(&self, offset: usize, subject: &str) -> StreamNames {
        StreamNames::page_of(self.matching(subject).iter().map(|s| s.name.to_string()).collect(), offset)
    }
    pub(super) async fn stream_list(&self, offset: usize, subject: &str) -> Result<StreamList, ApiError> {
        let all = self.matching(subject);
        let (page, range) = Page::cut(all.len(), offset, LIST_LIMIT);
        let mut streams = Vec::with_capacity(range.len());
        for s in &all[range] {
            let (info, _) = info::stream(s, &info::Wanted::default(), self.domain()).await.map_err(broken)?;
            streams.push(info);
        }
        Ok(StreamList { page, streams, ..StreamList::default() })
    }
    pub(super) async fn stream_info(&self, name: &str, w: &info::Wanted) -> Result<StreamInfoPage, ApiError> {
        let s = self.stream(name)?;
        let (info, page) = info::stream(&s, w, self.domain()).await.map_err(broken)?;
        Ok(StreamInfoPage { page, info: info::led(info::dressed(info), self.node.host.name()) })
    }

    pub(super) async fn delete_stream(&self, name: &str) -> Result<Done, ApiError> {
        let _one = self.assets.changing.lock().await;
        let s = self.stream(name)?;
        let failed = |e: String| errors::STREAM_DELETE.with(e);
        self.node.meta.delete(s.id).await.map_err(|e| failed(e.0))?;
        self.assets.remove(name);
        s.retire();
        self.node.replicas.remove(replica::GroupId(s.id)).await.map_err(|e| failed(e.to_string()))?;
        self.node.meta.gone(s.id);
        advisory::stream_action(self.node, self.assets, &s.name, advisory::Action::Delete);
        Ok(Done::YES)
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
        if seq == 0 || seq > s.group().state().last.0 {
            return Err(errors::STREAM_MSG_DELETE_FAILED.with("stream store EOF"));
        }
        let done = s.command(Command::Delete { seq, erase: !no_erase }).await?;
        if done.removed == 0 {
            return Err(errors::STREAM_MSG_DELETE_FAILED.with("no message found"));
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
