//! A stream's part in its group: leading comes and goes, the stream stays open.
//!
//! Owns what begins and ends with leadership: subscriptions, watches, clocks, copies, promises to those who wait. Does not own who leads
//! (`replica`) nor what is decided (`stream`).
//!
//! | role | subscribes, watches, keeps clocks, delivers, copies | applies, answers direct gets |
//! |---|---|---|
//! | leader | yes | yes |
//! | follower | no | yes |
//! | stopped | no | gets only |
//!
//! - K-3: only who leads, and has applied everything from before its term, decides or answers for a stream.
//! - K-10: what is answered from applied state (infos, gets, deliveries, refusals) is at least as new as all that was acknowledged before it
//!   was asked for: the leader's grants say that nobody else can lead, or a round of the others does.
//! - J-24: a promise whose outcome is open when leadership ends is not answered; one that was never handed out is refused.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::Bytes;
use replica::{Handle, NodeId, Proposal, Refusal, Role, Term};
use stream::{ApiError, command::Command, config::StreamConfig, errors};

use crate::{
    log::{Lost, Outcome},
    shell::{Core, Stream, now},
};

/// Pause before what the stream does by itself is tried again after a refusal: a full disk is not asked a thousand times a second.
const RETRY: Duration = Duration::from_millis(500);

/// How long a leader without grants asks the others whether it still leads before it says that it does not know.
pub(crate) const CONFIRM: Duration = Duration::from_secs(1);

/// What a stream is on this node.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) enum Standing {
    /// Its group has not said yet.
    #[default]
    Opening,
    /// It decides and answers.
    Leads(Term),
    /// Another node does, this one if known.
    Follows(Option<NodeId>),
    /// It does nothing any more, with the reason.
    Stopped(Arc<str>),
}

// What a cluster's engine asks for; a server alone needs only some of it.
#[allow(dead_code)]
impl Stream {
    /// What it is on this node.
    pub(crate) fn standing(&self) -> Standing {
        self.core.lock().standing.clone()
    }
    /// Whether this node decides for it.
    pub(crate) fn leads(&self) -> bool {
        self.core.lock().term.is_some()
    }
    /// Whether it answers for it, too.
    pub(crate) fn answers(&self) -> bool {
        self.core.lock().serves()
    }
    /// Returns when what is applied here is all that was acknowledged anywhere before the call (K-10): a leader that stood still may have been
    /// followed by another and not know it. Costs nothing where its grants hold.
    ///
    /// # Errors
    /// It does not lead, or cannot say whether it still does.
    pub(crate) async fn confirm(&self) -> Result<(), ApiError> {
        let handle = {
            let core = self.core.lock();
            core.term.and_then(|_| core.handle.clone())
        };
        let Some(handle) = handle else { return Err(errors::CLUSTER_NOT_LEADER.error()) };
        handle.confirm(CONFIRM).await.map_err(|_| errors::CLUSTER_NOT_LEADER.error())
    }
    /// Whether what it has is good enough for a direct get: somebody leads.
    pub(crate) fn is_current(&self) -> bool {
        let core = self.core.lock();
        core.rules.is_some() && matches!(core.standing, Standing::Leads(_) | Standing::Follows(Some(_)))
    }
    /// Since when its standing is what it is, in nanoseconds since 1970.
    pub(crate) fn stands_since(&self) -> i64 {
        self.core.lock().since
    }
    /// Returns when it leads with a configuration, or is stopped.
    ///
    /// # Errors
    /// Why it never will, or why its first configuration could not be stored for now.
    pub(crate) async fn settled(&self) -> Result<(), String> {
        let mut ready = self.ready.subscribe();
        match ready.wait_for(Option::is_some).await {
            Ok(r) => r.clone().unwrap_or(Ok(())),
            Err(_) => Err("the server is shutting down".into()),
        }
    }

    /// Says which configuration it is to have, as JSON. Whoever leads, now or later, proposes it if it has another.
    pub(crate) fn want(self: &Arc<Stream>, config: Bytes) {
        self.want_read(config, None);
    }
    /// The same; `read` may be what it says, for a log that has no configuration yet.
    pub(crate) fn want_read(self: &Arc<Stream>, config: Bytes, read: Option<StreamConfig>) {
        {
            let mut core = self.core.lock();
            core.wanted_met &= core.wanted.as_ref() == Some(&config);
            core.wanted = Some(config);
            core.wanted_read = read.filter(|_| core.rules.is_none()).map(Box::new);
            core.wanted_sent = false;
        }
        self.push_config();
    }
    /// Returns when the configuration that is wanted now is applied.
    ///
    /// # Errors
    /// If this node does not lead, or not any more.
    pub(crate) async fn configured(&self) -> Result<(), ApiError> {
        self.until(|| {
            let core = self.core.lock();
            match core.check_open() {
                Err(_) if core.notes.is_closed() => None,
                Ok(()) => core.config_to_propose(self).is_none().then_some(Ok(())),
                Err(e) => Some(Err(e)),
            }
        })
        .await
    }
    /// Returns what `look` finds, which looks whenever something has changed.
    pub(crate) async fn until<T>(&self, look: impl Fn() -> Option<T>) -> T {
        loop {
            let drained = self.drained.notified();
            tokio::pin!(drained);
            drained.as_mut().enable();
            if let Some(found) = look() {
                return found;
            }
            drained.await;
        }
    }
    /// Proposes what is due, if this node leads.
    pub(crate) fn push_config(self: &Arc<Stream>) {
        let handle = { self.core.lock().propose_due(self) };
        if let Some(h) = handle {
            h.wake();
        }
    }

    /// Puts what consumers have noted into the log and returns when it is applied: before leadership is handed over, so that nothing
    /// of it is done twice.
    pub(crate) async fn log_notes(&self) {
        let (tx, rx) = tokio::sync::oneshot::channel();
        let handle = {
            let mut core = self.core.lock();
            if core.term.is_none() || core.voided {
                return;
            }
            let n = now();
            core.consumers.hurry();
            core.gather(n);
            // Whatever comes last is applied last: a removal of nothing.
            core.enqueue(Command::Remove { seqs: Vec::new() }, Outcome::Command(Some(tx)), n);
            core.handle.clone()
        };
        if let Some(h) = handle {
            h.wake();
        }
        rx.await.ok();
    }

    /// What the driver says.
    pub(crate) fn take_role(self: &Arc<Stream>, role: &Role) {
        match role {
            Role::Leader { term } => self.begin(*term),
            Role::Follower { leader, .. } => {
                self.cease(Standing::Follows(*leader), &errors::CLUSTER_NOT_AVAIL.error());
            }
            Role::Stopped(why) => {
                self.cease(Standing::Stopped(why.clone()), &errors::STREAM_STORE_FAILED.with(why));
                self.ready.send_replace(Some(Err(why.to_string())));
            }
        }
    }

    /// This node leads: all that its predecessors decided is applied.
    fn begin(self: &Arc<Stream>, term: Term) {
        if self.leads() {
            self.cease(Standing::Follows(None), &errors::CLUSTER_NOT_AVAIL.error());
        }
        let noted = self.noted_before();
        let (handle, configured) = {
            let mut core = self.core.lock();
            core.stand(Standing::Leads(term));
            core.term = Some(term);
            core.begin_notes(&noted);
            core.moving.over();
            core.lead(now());
            core.wanted_sent = false;
            (core.propose_due(self), core.rules.is_some())
        };
        if let Some(h) = handle {
            h.wake();
        }
        self.drained.notify_waiters();
        if configured {
            self.serve();
        }
    }

    /// A leader with a configuration opens its doors, once it has what its log may have forgotten.
    pub(crate) fn serve(self: &Arc<Stream>) {
        self.keep_notes();
        if self.core.lock().notes.is_closed() {
            return;
        }
        self.listen();
        self.watch();
        self.follow_anew();
        self.tell_followers();
        self.wake_slow();
        self.pump();
        self.wound_up();
        self.ready.send_replace(Some(Ok(())));
    }

    /// This node does not lead, or not any more: what was decided and is not applied is for its successor to say.
    fn cease(self: &Arc<Stream>, standing: Standing, error: &ApiError) {
        let stops = matches!(standing, Standing::Stopped(_));
        // Elsewhere it goes on.
        let goes_on = !stops && self.node.upgrade().is_some_and(|n| n.is_clustered() && !n.is_closed());
        let mut tasks = Vec::new();
        let (led, lost, watched, slow) = {
            let mut core = self.core.lock();
            if let Standing::Stopped(why) = &standing {
                core.stopped.get_or_insert_with(|| why.clone());
                core.handle = None;
            }
            core.stand(standing);
            let led = core.term.take().is_some();
            core.notes.end();
            let lost = core.give_up();
            let watched = if led { core.consumers.unlead(&mut tasks) } else { Vec::new() };
            core.cease_moving(led && goes_on);
            let slow = if goes_on { VecDeque::new() } else { core.take_waiting() };
            (led, lost, watched, slow)
        };
        if led {
            self.ready.send_replace(None);
            self.unfollow();
            if !goes_on {
                self.unlisten();
            }
            if let Some(assets) = self.assets.upgrade() {
                for (subject, id) in watched {
                    assets.account.unwatch(&subject, id);
                }
            }
            self.wound_up();
        }
        self.carry(&mut tasks);
        self.refuse_waiting(slow, error);
        self.fail(lost.void, error);
        if stops {
            // What was handed out may be durable, here or elsewhere: who published hears nothing rather than that it is refused.
            let commands = lost.open.into_iter().filter(|o| matches!(o, Outcome::Command(_)));
            self.fail(commands.collect(), error);
        }
        self.drained.notify_waiters();
        if goes_on {
            self.let_go();
            self.linger();
        }
    }

    /// These proposals are not in the log.
    pub(crate) fn take_refusal(self: &Arc<Stream>, batch: Vec<Proposal>, why: &Refusal) {
        let given_up = matches!(why, Refusal::NotLeader(_) | Refusal::Stopped(_));
        let (void, configless, retries) = {
            let mut core = self.core.lock();
            let Lost { void, notes, .. } = core.log.refused(batch);
            if core.term.is_some() {
                core.consumers.noted_again(notes, now());
            }
            core.voided = true;
            core.voids += 1;
            // Copies are looked for anew behind what is applied.
            core.following.upstreams.iter_mut().for_each(|u| u.next = 0);
            core.restart_if_void();
            core.wanted_sent = false;
            let retries = !given_up && !std::mem::replace(&mut core.retrying, true);
            (void, core.rules.is_none(), retries)
        };
        let error = refused(why);
        self.fail(void, &error);
        if configless {
            self.ready.send_replace(Some(Err(why.to_string())));
        }
        if retries {
            let me = self.clone();
            env::spawn(async move {
                env::sleep(RETRY).await;
                me.core.lock().retrying = false;
                me.push_config();
                me.follow();
                me.wound_up();
            });
        }
        self.drained.notify_waiters();
        self.wake_slow();
    }
}

/// What a refusal of the group is to a publisher.
fn refused(why: &Refusal) -> ApiError {
    match why {
        Refusal::NotLeader(_) | Refusal::Settling => errors::CLUSTER_NOT_AVAIL.error(),
        Refusal::Busy => errors::STREAM_TOO_MANY_REQUESTS.error(),
        Refusal::NoSpace(_) => errors::INSUFFICIENT_RESOURCES.error(),
        Refusal::TooLarge => errors::STREAM_MESSAGE_EXCEEDS_MAXIMUM.error(),
        Refusal::Stopped(s) => errors::STREAM_STORE_FAILED.with(s),
    }
}

impl Core {
    fn stand(&mut self, s: Standing) {
        // Another leader than before is not another standing.
        if std::mem::discriminant(&self.standing) != std::mem::discriminant(&s) {
            self.since = now().wall;
        }
        self.standing = s;
    }

    /// The configuration that a leader has to propose, if it has another.
    fn config_to_propose(&self, s: &Stream) -> Option<Bytes> {
        match (&self.rules, &self.wanted) {
            (None, wanted) => Some(wanted.clone().unwrap_or_else(|| s.first_config.clone())),
            (Some(_), None) => None,
            (Some(_), Some(_)) if self.wanted_met => None,
            (Some(r), Some(json)) => {
                let wanted: StreamConfig = serde_json::from_slice(json).ok()?;
                (wanted != *r.config()).then(|| json.clone())
            }
        }
    }
    /// Proposes what is wanted, if the configuration is another, and what a log that began anew has to say; who is to be woken for it.
    fn propose_due(&mut self, s: &Stream) -> Option<Handle> {
        self.propose_config(s);
        self.propose_floor();
        self.log.has_work().then(|| self.handle.clone()).flatten()
    }
    /// Proposes it, once.
    fn propose_config(&mut self, s: &Stream) {
        if self.term.is_none() || self.stopped.is_some() || self.voided || self.wanted_sent {
            return;
        }
        if let Some(json) = self.config_to_propose(s) {
            self.wanted_sent = true;
            self.enqueue(Command::Config { json, created: s.created }, Outcome::Command(None), now());
        }
    }

    /// A store in memory begins anew after a restart and gives no number that it may have given before (J-2): no more do the rules, on this node or any other
    /// that leads after it.
    fn propose_floor(&mut self) {
        let Some(last) = self.handle.as_ref().map(|h| h.store().state().last.0) else { return };
        let Some(r) = self.rules.as_mut().filter(|r| r.reached_seq() < last) else { return };
        if self.term.is_some() && self.stopped.is_none() && !env::planted!("js-memory-streams-stay") {
            // From now on, also if the log refuses it for now.
            r.pass_over(last);
            self.enqueue(Command::Advance { last }, Outcome::Command(None), now());
        }
    }

    /// After a refusal nothing is decided before what was handed out earlier is applied: only then is it known what the next
    /// message stands behind (J-2, J-22).
    pub(crate) fn restart_if_void(&mut self) {
        if !self.voided || self.log.is_under_way() {
            return;
        }
        self.voided = false;
        if let Some(r) = &mut self.rules {
            r.reset_tail();
        }
    }

    /// This node leads.
    fn lead(&mut self, now: stream::Now) {
        self.voided = false;
        if let Some(r) = &mut self.rules {
            r.reset_tail();
        }
        self.consumers.lead(self.term.map_or(0, |t| t.0), now);
    }
    /// This node proposes no more.
    fn give_up(&mut self) -> Lost {
        self.voided = false;
        self.voids += 1;
        if let Some(r) = &mut self.rules {
            r.reset_tail();
        }
        self.log.give_up()
    }
}
