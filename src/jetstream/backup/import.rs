//! What comes from a backup goes into a stream's log, where the stream is led.
//!
//! Owns the way there, also to another node, and the order: messages, the end of the messages, consumers.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use stream::{
    ApiError, Stored,
    command::Command,
    consumer::{Action, ConsumerConfig, check},
    errors,
    publish::Decision,
};

use crate::{
    JetStream,
    cluster::{
        ask::{At, GRACE},
        calls::{Call, Reply},
    },
    consumers::{admit, is_logged, parent},
    publish::join,
    shell::{Stream, now},
};

/// How often a restore looks for a leader.
const AGAIN: Duration = Duration::from_millis(50);
/// How long another node may take to store a part.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of messages that may wait to be applied.
const WAITING_MAX: usize = 16 << 20;

/// A part of a backup, in the order of the archive but for the consumers, which come last.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Item {
    /// A message.
    Message {
        /// Its number.
        seq: u64,
        /// Its time, nanoseconds since 1970.
        time: i64,
        /// When it expires by its own time to live.
        expires: Option<i64>,
        /// Its subject.
        subject: Bytes,
        /// Its header block.
        headers: Bytes,
        /// Its payload.
        payload: Bytes,
    },
    /// All messages came, so many; sequences up to `last` are taken.
    Complete {
        /// Messages.
        messages: u64,
        /// The last sequence.
        last: u64,
        /// Its time, nanoseconds since 1970.
        time: i64,
    },
    /// A consumer.
    Consumer {
        /// Its name.
        name: String,
        /// Its configuration as the archive has it, as JSON.
        config: Bytes,
        /// As [`stream::consumer::Consumer::restore`] takes it; empty if it begins as configured.
        state: Bytes,
        /// The configuration that the stream gets, as JSON.
        stream: Bytes,
        /// Consumers of a stream at most, in this account.
        account_max: i64,
    },
}

impl Item {
    /// A message, that expires as it says.
    pub fn message(m: Stored) -> Item {
        let Stored { seq, time, expires, subject, headers, payload } = m;
        Item::Message { seq, time, expires, subject, headers, payload }
    }
    /// Bytes, about.
    pub fn size(&self) -> usize {
        match self {
            Item::Message { subject, headers, payload, .. } => {
                64 + subject.len() + headers.len() + payload.len()
            }
            Item::Complete { .. } => 64,
            Item::Consumer { config, state, stream, .. } => 64 + config.len() + state.len() + stream.len(),
        }
    }
}

impl JetStream {
    /// Puts a part of a backup into the log of a group, wherever it is led.
    ///
    /// # Errors
    /// Why it is not there, or not known to be. The restore is over then.
    pub(crate) async fn import(self: &Arc<JetStream>, group: u64, items: Vec<Item>) -> Result<(), ApiError> {
        let until = env::now() + GRACE;
        loop {
            let Some(a) = self.meta.read(|s| s.get(group).cloned()) else {
                return Err(errors::STREAM_NOT_FOUND.error());
            };
            match (self.at_group(&a), &self.cluster) {
                (At::Here, _) => {
                    let Some(s) = self.stream_of(&a) else { return Err(errors::STREAM_OFFLINE.error()) };
                    return s.import(items).await;
                }
                (At::Node(n), Some(c)) => {
                    let call = Call::Import { group, items: items.clone() };
                    match c.calls.call(&*c.wires, n, &call, PATIENCE).await {
                        Some(Reply::Done(_)) => return Ok(()),
                        Some(Reply::Refused(why)) => return Err(wrong(&why)),
                        // Nothing was done there.
                        Some(Reply::Elsewhere(_)) => {}
                        _ => return Err(wrong("the stream's leader did not answer")),
                    }
                }
                _ => {}
            }
            if env::now() >= until {
                return Err(errors::CLUSTER_NOT_AVAIL.error());
            }
            env::sleep(AGAIN).await;
        }
    }
    /// The same for a group that another node believes to be led here.
    pub(crate) async fn import_here(self: &Arc<JetStream>, group: u64, items: Vec<Item>) -> Reply {
        let led = self
            .meta
            .read(|s| s.get(group).cloned())
            .and_then(|a| self.stream_of(&a))
            .filter(|s| s.answers());
        let Some(s) = led else { return Reply::Elsewhere(None) };
        match s.import(items).await {
            Ok(()) => Reply::Done(0),
            Err(e) => Reply::Refused(said(&e)),
        }
    }
}

/// An error within the text of [`errors::STREAM_RESTORE`], as nats-server words it.
pub fn said(e: &ApiError) -> String {
    match errors::STREAM_RESTORE.is(e) {
        true => e.description.trim_start_matches("restore failed: ").to_owned(),
        false => format!("{} ({})", e.description, e.err_code),
    }
}

fn wrong(text: &str) -> ApiError {
    errors::STREAM_RESTORE.with(text)
}

impl Stream {
    /// Puts a part of a backup into the log. What it says of messages is durable when [`Item::Complete`] is done.
    ///
    /// # Errors
    /// Why it cannot. The restore is over then.
    pub(crate) async fn import(self: &Arc<Stream>, all: Vec<Item>) -> Result<(), ApiError> {
        for item in all {
            match item {
                Item::Message { seq, time, expires, subject, headers, payload } => {
                    let m = Stored { seq, time, expires, subject, headers, payload };
                    self.import_message(&m).await?;
                }
                Item::Complete { messages, last, time } => self.import_end(messages, last, time).await?,
                Item::Consumer { name, config, state, stream, account_max } => {
                    let of = serde_json::from_slice(&stream).map_err(|e| errors::STREAM_RESTORE.with(e))?;
                    let done = self.import_consumer(&name, &config, &state, &of, account_max).await;
                    done.map_err(|e| {
                        errors::STREAM_RESTORE.with(format!("failed to add consumer {name:?}: {}", said(&e)))
                    })?;
                }
            }
        }
        Ok(())
    }

    async fn import_message(&self, m: &Stored) -> Result<(), ApiError> {
        loop {
            let drained = self.drained.notified();
            tokio::pin!(drained);
            drained.as_mut().enable();
            let handle = {
                let mut core = self.core.lock();
                core.check_open()?;
                let crate::shell::Core { rules: Some(rules), log, voided: false, handle, .. } = &mut *core
                else {
                    return Err(errors::INSUFFICIENT_RESOURCES.error());
                };
                if !rules.config().is_restoring() {
                    return Err(wrong("the stream is not being restored"));
                }
                if log.waiting().1 < WAITING_MAX {
                    match rules.mirrored(m) {
                        Decision::Store { entry, .. } => {
                            join(log, store::GroupId(self.id), &entry);
                            if let Some(h) = handle.clone() {
                                drop(core);
                                h.wake();
                            }
                            return Ok(());
                        }
                        Decision::Answer { .. } => return Err(wrong("messages are out of order")),
                        Decision::Wait | Decision::StoreAll { .. } => {}
                    }
                }
                log.has_work().then(|| handle.clone()).flatten()
            };
            if let Some(h) = handle {
                h.wake();
            }
            drained.await;
        }
    }

    async fn import_end(&self, messages: u64, last: u64, time: i64) -> Result<(), ApiError> {
        let given = self.core.lock().rules.as_ref().map_or(0, |r| r.given_seq());
        if last > given {
            // The last ones were deleted: what stands for them is deleted too.
            let subject = Bytes::copy_from_slice(self.name.as_bytes());
            let none = Bytes::new();
            let mark =
                Stored { seq: last, time, expires: None, subject, headers: none.clone(), payload: none };
            self.import_message(&mark).await?;
            self.command(Command::Delete { seq: last, erase: false }).await?;
        }
        self.tail_applied().await;
        self.core.lock().check_open()?;
        let there = self.group().state();
        if there.msgs != messages || there.last.0 < last {
            return Err(wrong("not all messages could be stored"));
        }
        Ok(())
    }

    async fn import_consumer(
        self: &Arc<Stream>,
        name: &str,
        config: &[u8],
        state: &Bytes,
        of: &stream::config::StreamConfig,
        account_max: i64,
    ) -> Result<(), ApiError> {
        let mut c: ConsumerConfig =
            serde_json::from_slice(config).map_err(|e| errors::CONSUMER_CREATE.with(e))?;
        c.name = name.to_owned();
        let limits = check::Limits::default();
        let one = self.making.turn(name).await;
        {
            let core = self.core.lock();
            core.check_consumers()?;
            let parent = parent(of, account_max, 0);
            admit(&core, &[], &mut c, Action::Create, &parent, &limits, false)?;
        }
        if state.is_empty() {
            return self.log_consumer(name, c, true).await;
        }
        let created = now().wall;
        if is_logged(&c, of) {
            let json: Bytes = serde_json::to_vec(&c).map_err(|e| errors::CONSUMER_CREATE.with(e))?.into();
            let name = Bytes::copy_from_slice(name.as_bytes());
            self.command(Command::ConsumerRestore { name, created, json, state: state.clone() }).await?;
        } else {
            let mut core = self.core.lock();
            let identity = core.identity(self, name);
            let done = core.restore_consumer(identity, c, created, state, false);
            done.map_err(|e| errors::CONSUMER_CREATE.with(e))?;
        }
        drop(one);
        self.watch();
        self.pump();
        self.wound_up();
        self.keep_notes();
        self.noted(name).await
    }
}
