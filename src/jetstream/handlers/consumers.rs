//! Requests about consumers.

use std::sync::Arc;

use stream::{
    ApiError,
    config::Retention,
    consumer::{
        AckPolicy, ConsumerConfig, Output,
        check::{Limits, Verdict},
    },
    errors,
};

use super::{Desk, info};
use crate::{
    advisory,
    api::{
        Time, identity, metadata,
        request::ConsumerCreate,
        response::{
            ConsumerInfo, ConsumerList, ConsumerNames, ConsumerResetDone, Done, Empty, LIST_LIMIT, Page,
            Paused, ResetSeq,
        },
    },
    consumers::{admit, parent},
    shell::{Stream, now},
};

fn broken(text: String) -> ApiError {
    errors::CONSUMER_STORE_FAILED.with(text)
}

impl Desk<'_> {
    fn consumer_limits(&self) -> Limits {
        let l = self.node.tunable().limits;
        Limits {
            max_ack_pending: l.max_ack_pending.unwrap_or(0),
            max_request_batch: l.max_request_batch.unwrap_or(0),
            account_max_ack_pending: self.assets.limits().map_or(0, |a| a.max_ack_pending.max(0)),
        }
    }

    pub(super) async fn create_consumer(&self, r: ConsumerCreate) -> Result<ConsumerInfo, ApiError> {
        let s = self.stream(&r.stream)?;
        let mut c = r.config;
        self.make_source_consumer(&s, &mut c);
        if identity::is_shown(&c) {
            let own = s.identity();
            if !r.identity.is_empty() && r.identity != own {
                return Err(errors::CONSUMER_STREAM_IDENTITY_MISMATCH.with(own));
            }
        }
        let account_max = self.assets.limits().map_or(-1, |a| a.max_consumers);
        let default_max = self.node.tunable().limits.default_max_consumers.unwrap_or(0);
        let limits = self.consumer_limits();
        // Decided one at a time, so that two requests of one name, or two of a work queue, see each other. Made side by side.
        let one = s.making.turn(c.given_name()).await;
        s.taken_soon().await;
        let coming: Vec<ConsumerConfig> = s.making.each(|all| all.cloned().collect());
        let verdict = {
            let core = s.core.lock();
            core.check_consumers()?;
            let rules = core.rules.as_ref().ok_or_else(|| errors::STREAM_OFFLINE.error())?;
            let parent = parent(rules.config(), account_max, default_max);
            if let Some(there) = core.consumers.get(c.given_name()) {
                let there = there.rules.config();
                // Only a request to pause or resume does that: whatever an update says of it is passed over.
                c.pause_until = there.pause_until;
                if c.sourcing && c.is_durable() {
                    // Where it goes on is what its acknowledgements say.
                    c.deliver_policy = there.deliver_policy;
                    (c.opt_start_seq, c.opt_start_time) = (there.opt_start_seq, there.opt_start_time);
                }
            }
            // Before defaults and checks: the level is that of what was asked for, and counts among the metadata.
            metadata::store_consumer(&mut c);
            admit(&core, &coming, &mut c, r.action, &parent, &limits, r.pedantic)?
        };
        let name = match c.given_name() {
            "" => loop {
                let name = self.node.ids.lock().next()[..8].to_string();
                if s.making.wait(&name).is_none() {
                    break name;
                }
            },
            given => given.to_string(),
        };
        if !c.deliver_subject.is_empty() && cycles(&s, &c) {
            return Err(errors::CONSUMER_DELIVER_CYCLE.error());
        }
        // A name that was not asked for does not stand in the configuration, but whoever decides meanwhile has to know it.
        let making = s.making.begin(&name, ConsumerConfig { name: name.clone(), ..c.clone() });
        drop(one);
        let pause_until = c.pause_until.map_or(0, |until| until.ns);
        // Whoever asks again for what he copies by begins anew behind what he has acknowledged; before deliveries go to him.
        if c.sourcing && verdict != Verdict::Create {
            s.reset_consumer(&name, 0).await.transpose()?;
        }
        match verdict {
            // It may be on its way into the notes.
            Verdict::Same => s.noted(&name).await?,
            Verdict::Create => {
                s.log_consumer(&name, c, true).await?;
                advisory::consumer_action(self.node, self.assets, &s.name, &name, advisory::Action::Create);
            }
            Verdict::Update => s.log_consumer(&name, c, false).await?,
        }
        drop(making);
        if pause_until > now().wall {
            advisory::paused(self.node, self.assets, &s.name, &name, pause_until);
        }
        self.info_of(&s, &name).await
    }

    /// A source asks for its consumer under the same name again and again, from where it stands: each is a new one. On a stream that keeps messages until
    /// somebody is done with them it is one that stays, whose acknowledgements are the answers to flow control.
    fn make_source_consumer(&self, s: &Stream, c: &mut ConsumerConfig) {
        if !(c.direct && c.sourcing) || c.name.is_empty() {
            return;
        }
        if s.config().retention != Retention::Limits {
            c.direct = false;
            c.durable_name.clone_from(&c.name);
            c.ack_policy = AckPolicy::FlowControl;
            (c.ack_wait, c.max_deliver, c.inactive_threshold) = (0, 0, 0);
        } else {
            c.name = format!("{}-{}", c.name, &self.node.ids.lock().next()[..8]);
        }
    }

    async fn info_of(&self, s: &Arc<Stream>, name: &str) -> Result<ConsumerInfo, ApiError> {
        info::consumer(s, name, true).await.map_err(broken)?.ok_or_else(|| errors::CONSUMER_NOT_FOUND.error())
    }

    pub(super) async fn consumer_names(
        &self,
        stream: &str,
        offset: usize,
    ) -> Result<ConsumerNames, ApiError> {
        let s = self.stream(stream)?;
        s.taken_soon().await;
        let names = s.core.lock().consumers.names();
        Ok(ConsumerNames::page_of(names, offset))
    }
    pub(super) async fn consumer_list(&self, stream: &str, offset: usize) -> Result<ConsumerList, ApiError> {
        let s = self.stream(stream)?;
        s.taken_soon().await;
        let names = s.core.lock().consumers.names();
        let (page, range) = Page::cut(names.len(), offset, LIST_LIMIT);
        let mut consumers = Vec::with_capacity(range.len());
        for name in &names[range] {
            consumers.extend(info::consumer(&s, name, false).await.map_err(broken)?);
        }
        Ok(ConsumerList { page, consumers, ..ConsumerList::default() })
    }
    pub(super) async fn consumer_info(&self, stream: &str, consumer: &str) -> Result<ConsumerInfo, ApiError> {
        let s = self.stream(stream)?;
        let is_known = s.core.lock().consumers.get(consumer).is_some();
        if !is_known {
            s.taken_soon().await;
        }
        self.info_of(&s, consumer).await
    }
    pub(super) async fn delete_consumer(&self, stream: &str, consumer: &str) -> Result<Done, ApiError> {
        let s = self.stream(stream)?;
        match s.remove_consumer(consumer).await? {
            true => Ok(Done::YES),
            false => Err(errors::CONSUMER_NOT_FOUND.error()),
        }
    }
    fn config_of(&self, s: &Stream, consumer: &str) -> Result<ConsumerConfig, ApiError> {
        let core = s.core.lock();
        core.check_consumers()?;
        let slot = core.consumers.get(consumer).ok_or_else(|| errors::CONSUMER_NOT_FOUND.error())?;
        Ok(slot.rules.config().clone())
    }
    pub(super) async fn pause(&self, stream: &str, consumer: &str, until: Time) -> Result<Paused, ApiError> {
        let s = self.stream(stream)?;
        // An update decided meanwhile would keep the pause of before.
        let one = s.making.turn(consumer).await;
        s.taken_soon().await;
        let mut c = self.config_of(&s, consumer)?;
        c.pause_until = (!until.is_zero()).then(|| stream::Time::utc(until.nanos()));
        metadata::store_consumer(&mut c);
        let making = s.making.begin(consumer, ConsumerConfig { name: consumer.to_owned(), ..c.clone() });
        drop(one);
        s.log_consumer(consumer, c, false).await?;
        drop(making);
        Ok(Paused::new(until, now().wall))
    }
    pub(super) fn unpin(&self, stream: &str, consumer: &str, group: &str) -> Result<Empty, ApiError> {
        let s = self.stream(stream)?;
        let mut found = Vec::new();
        let unpinned = s.with_consumer(consumer, false, |slot, _, out: &mut Vec<Output>| {
            let known = slot.rules.unpin(group, out);
            found.push(known);
            known
        });
        match unpinned {
            None => Err(errors::CONSUMER_NOT_FOUND.error()),
            Some(false) => Err(errors::CONSUMER_INVALID_PRIORITY_GROUP.error()),
            Some(true) => Ok(Empty {}),
        }
    }
    /// `None` if there is no such consumer: then nothing is answered.
    pub(super) async fn reset(
        &self,
        stream: &str,
        consumer: &str,
        seq: Result<u64, ApiError>,
    ) -> Option<Result<ConsumerResetDone, ApiError>> {
        let s = self.stream(stream).ok()?;
        let seq = match seq {
            Ok(seq) => seq,
            Err(e) => return s.with_consumer(consumer, false, |_, _, _| Err(e)),
        };
        let at = match s.reset_consumer(consumer, seq).await? {
            Ok(at) => at,
            Err(e) => return Some(Err(e)),
        };
        let info = self.info_of(&s, consumer).await;
        Some(info.map(|info| ConsumerResetDone { info, seq: ResetSeq { reset_seq: at } }))
    }
}

/// Whether what a consumer delivers would come back into its stream.
fn cycles(s: &Stream, c: &ConsumerConfig) -> bool {
    s.config().subjects.iter().any(|mine| subject::collides(mine.as_bytes(), c.deliver_subject.as_bytes()))
}
