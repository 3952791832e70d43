//! The activity of a group: the task that exists while there is work, and only then.
//!
//! Owns the loop and the only two things that a group waits for besides the disk: its machine's apply, and a pause when the store has no
//! room. One activity runs per group at a time; everything that a machine is told is told by it, so the order is the loop's.
//!
//! Pipelining: a completed sync is told to the core first, then the next batch goes to the journal, so that the disk works while the
//! batch before is applied.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use raft::{Event, LogIndex, Ready};

use crate::{
    group::{Group, IDLE, Pipeline, RUNNING, WOKEN},
    machine::{Proposal, Refusal, Role},
};

/// Turns of one activity after which it lets other tasks of the worker run.
const TURNS_MAX: u32 = 32;

impl Group {
    /// Works until nothing is left to do.
    pub(crate) async fn activity(self: Arc<Self>) {
        let mut ready = Ready::default();
        let mut taken: Vec<Proposal> = Vec::new();
        let mut turns = 0;
        loop {
            turns += 1;
            if turns % TURNS_MAX == 0 {
                env::give_way().await;
            }
            // From here on a wake means: look again.
            self.run.swap(RUNNING, Ordering::AcqRel);
            self.look(&mut ready);
            self.tell_role();
            let pipeline = self.offer(&mut taken, &mut ready);
            let (apply, loads, installs, fetched) = {
                let mut inner = self.inner.lock();
                self.arm(&mut inner);
                // What a quorum has committed may wait here for room in the journal.
                let here = LogIndex(self.store.last().0.0);
                let waits = inner.rare.as_ref().is_some_and(|r| r.waits_for_others);
                let ready_for = |a: &mut raft::Apply| a.last <= here && !(waits && self.is_hole(a.first));
                let apply = inner.apply.take_if(ready_for);
                if waits && apply.is_some() {
                    inner.rare().waits_for_others = false;
                }
                // What waits for room would not fit on another log.
                let room = inner.stalled.is_empty();
                let fetched = inner.rare.as_mut().filter(|_| room).and_then(|r| r.fetched.take());
                let (loads, installs) =
                    (std::mem::take(&mut inner.loads), std::mem::take(&mut inner.installs));
                (apply, loads, installs, fetched)
            };
            loads.into_iter().for_each(|l| self.load(l));
            installs.into_iter().for_each(|i| self.install(i));
            if let Some(fetched) = fetched {
                if apply.is_some() {
                    self.inner.lock().apply = apply;
                }
                // Rare and large: an idle group begins an activity for every word that it hears.
                Box::pin(self.take_up(fetched, &mut ready)).await;
                continue;
            }
            if let Some(apply) = apply {
                // By itself: with it an activity takes three KiB, and a group that is idle but for a word of another node begins one for each.
                Box::pin(self.apply(apply, &mut ready)).await;
                self.tell_role();
                continue;
            }
            if self.serve_waiters(&pipeline, &mut ready) {
                continue;
            }
            let (ticket, stopped) = {
                let inner = self.inner.lock();
                if !inner.events.is_empty() || Group::has_completion(&inner) {
                    continue;
                }
                (Group::next_ticket(&inner), inner.stop.is_some())
            };
            match (pipeline, ticket) {
                (Pipeline::Stalled, _) if !stopped => {
                    env::sleep(Duration::from_nanos(self.shared.options.retry_ns)).await;
                }
                (pipeline, Some(ticket)) => {
                    // With a full pipeline a publisher's wake would be for nothing: it looks as if it had come already.
                    if matches!(pipeline, Pipeline::Full) {
                        self.run.store(WOKEN, Ordering::Release);
                    }
                    env::select! {
                        _ = ticket.settled() => {}
                        _ = self.notify.notified() => {}
                    }
                }
                (_, None) => {
                    let end = self.run.compare_exchange(RUNNING, IDLE, Ordering::AcqRel, Ordering::Acquire);
                    if end.is_ok() {
                        return;
                    }
                }
            }
        }
    }

    /// Tells the machine what the group is, if that changed. On the way from leading to anything else what could not be proposed is given
    /// back first (D-5).
    fn tell_role(self: &Arc<Self>) {
        let (role, held) = {
            let mut inner = self.inner.lock();
            if let Some(m) = inner.untold_members() {
                drop(inner);
                self.changed.notify_waiters();
                self.machine.members(&m);
                inner = self.inner.lock();
            }
            let role = Group::role(&inner);
            if inner.told.as_ref() == Some(&role) {
                return;
            }
            let held: Vec<Proposal> = match &role {
                Role::Leader { .. } => Vec::new(),
                _ => inner.held.drain(..).collect(),
            };
            if matches!(role, Role::Leader { .. }) {
                let s = inner.core.status();
                assert!(
                    s.settled,
                    "D-1: a machine that is told to lead has applied everything before its term"
                );
            } else {
                inner.open.clear();
                inner.open_bytes = 0;
            }
            inner.told = Some(role.clone());
            (role, held)
        };
        if !held.is_empty() {
            let why = match &role {
                Role::Stopped(why) => Refusal::Stopped(why.clone()),
                Role::Follower { leader, .. } => Refusal::NotLeader(*leader),
                Role::Leader { .. } => Refusal::Settling,
            };
            self.machine.refused(held, &why);
        }
        self.machine.role(&role);
    }

    /// Proposes what the machine has, as far as the pipeline takes it.
    fn offer(&self, taken: &mut Vec<Proposal>, ready: &mut Ready) -> Pipeline {
        loop {
            let (pipeline, held) = {
                let inner = self.inner.lock();
                (self.pipeline(&inner), !inner.held.is_empty())
            };
            if !matches!(pipeline, Pipeline::Free) {
                return pipeline;
            }
            if !held {
                self.machine.take_proposals(taken);
                if taken.is_empty() {
                    return Pipeline::Free;
                }
            }
            let (refused, stalled) = {
                let mut inner = self.inner.lock();
                inner.held.extend(taken.drain(..));
                self.put_held(&mut inner, ready)
            };
            if let Some((batch, why)) = refused {
                self.machine.refused(batch, &why);
            }
            if stalled {
                return Pipeline::Stalled;
            }
        }
    }

    /// Proposes what is held. What the core or the disk will not have comes back with everything behind it; what has to wait stays.
    fn put_held(
        &self,
        inner: &mut crate::group::Inner,
        ready: &mut Ready,
    ) -> (Option<(Vec<Proposal>, Refusal)>, bool) {
        while let Some(p) = inner.held.pop_front() {
            match self.put(inner, p, ready) {
                Ok(_) => {}
                Err((p, Refusal::Busy | Refusal::Settling)) => {
                    inner.held.push_front(p);
                    return (None, true);
                }
                Err((p, why)) => {
                    let batch = std::iter::once(p).chain(inner.held.drain(..)).collect();
                    return (Some((batch, why)), false);
                }
            }
        }
        (None, false)
    }

    /// Gives a committed range to the machine and tells the core. What cannot be read any more waits for the copy of another member.
    async fn apply(self: &Arc<Self>, mut apply: raft::Apply, ready: &mut Ready) {
        let mut given_up = false;
        let done = self.apply_range(&mut apply, &mut given_up).await;
        if !self.dirty.swap(true, Ordering::Relaxed) {
            self.shared.touched(self);
        }
        if given_up {
            // The log that is left is of no use to a member that comes later: from the checkpoint on it is state.
            self.shared.flush_soon();
        }
        match done {
            Ok(()) => {
                let mut inner = self.inner.lock();
                self.step(&mut inner, Event::Applied(apply.last), ready);
            }
            Err(Unapplied::Damaged(why)) => {
                self.found_damage(store::LogIndex(apply.first.0)).await;
                let mut inner = self.inner.lock();
                if !self.is_hole(apply.first) {
                    return self.fail(&mut inner, why, ready);
                }
                inner.rare().waits_for_others = true;
                inner.apply = Some(apply);
            }
            Err(Unapplied::Failed(why)) => {
                let mut inner = self.inner.lock();
                self.fail(&mut inner, why, ready);
            }
        }
    }

    fn is_hole(&self, index: LogIndex) -> bool {
        self.store.holes().iter().any(|h| h.first.0 <= index.0 && index.0 <= h.last.0)
    }

    /// What is applied is taken off the front of `apply`. Says whether entries were among it of which something is lost.
    async fn apply_range(&self, apply: &mut raft::Apply, given_up: &mut bool) -> Result<(), Unapplied> {
        while apply.first <= apply.last {
            let next = apply.first;
            let from = store::LogIndex(next.0);
            let mut entries = match self.store.entries(from, self.shared.options.apply_bytes).await {
                Err(e @ store::Error::Damaged(_)) => return Err(Unapplied::Damaged(e.to_string())),
                read => read?,
            };
            entries.truncate(usize::try_from(apply.last.0 - next.0 + 1).unwrap_or(usize::MAX));
            let Some(e) = entries.last() else {
                return Err(format!("entry {} is committed and not in the store", next.0).into());
            };
            assert_eq!(entries[0].head.index.0, next.0, "D-2: entries are applied in order");
            apply.first = LogIndex(e.head.index.0 + 1);
            *given_up |= entries.iter().any(|e| e.head.compacted);
            // What is no business of the machine's ends a batch, so that the machine sees the store as of each of its own entries.
            let mine = |e: &store::Entry| matches!(e.head.kind, store::Kind::Messages | store::Kind::Control);
            if entries.iter().all(mine) {
                self.apply_batch(entries).await?;
                continue;
            }
            let mut batch = Vec::new();
            for e in entries {
                if mine(&e) {
                    batch.push(e);
                    continue;
                }
                if !batch.is_empty() {
                    self.apply_batch(std::mem::take(&mut batch)).await?;
                }
                self.store.apply(&e.head).await?;
            }
            if !batch.is_empty() {
                self.apply_batch(batch).await?;
            }
        }
        Ok(())
    }

    async fn apply_batch(&self, batch: Vec<store::Entry>) -> Result<(), String> {
        let heads = (batch[0].head, batch[batch.len() - 1].head);
        // The machine may leave the joining to the driver; then their headers are needed afterwards.
        self.machine.apply(batch).await?;
        let done = self.store.applied().0;
        if done >= heads.1.index {
            return Ok(());
        }
        let mut at = done.next().max(heads.0.index);
        while at <= heads.1.index {
            for e in
                self.store.entries(at, self.shared.options.apply_bytes).await.map_err(|e| e.to_string())?
            {
                if e.head.index <= heads.1.index {
                    self.store.apply(&e.head).await.map_err(|e| e.to_string())?;
                    at = e.head.index.next();
                }
            }
        }
        Ok(())
    }

    /// Answers those who wait for a checkpoint or for quiet. True if the group has to be looked at again.
    fn serve_waiters(&self, pipeline: &Pipeline, ready: &mut Ready) -> bool {
        let wants =
            self.inner.lock().rare.as_mut().map(|r| std::mem::take(&mut r.wants_state)).unwrap_or_default();
        if !wants.is_empty() {
            wants.into_iter().for_each(|tx| drop(tx.send(self.state_of_now(ready))));
            return true;
        }
        let (checkpoint, quiet) = {
            let mut inner = self.inner.lock();
            if inner.wants_checkpoint.is_empty() && inner.wants_quiet.is_empty() {
                return false;
            }
            let stopped = inner.stop.is_some();
            let idle = inner.inflight.is_empty()
                && inner.apply.is_none()
                && inner.held.is_empty()
                && inner.events.is_empty()
                && !matches!(pipeline, Pipeline::Stalled);
            let s = inner.core.status();
            let quiet = if stopped || (idle && s.applied == s.last) {
                std::mem::take(&mut inner.wants_quiet)
            } else {
                Vec::new()
            };
            (std::mem::take(&mut inner.wants_checkpoint), quiet)
        };
        if !checkpoint.is_empty() {
            if self.inner.lock().stop.is_none() {
                self.take_checkpoint();
            }
            checkpoint.into_iter().for_each(tell);
            return true;
        }
        quiet.into_iter().for_each(tell);
        false
    }
}

/// Why not all of a range was applied.
enum Unapplied {
    /// The entry that is the first now cannot be read.
    Damaged(String),
    /// The replica cannot go on.
    Failed(String),
}

impl From<String> for Unapplied {
    fn from(why: String) -> Unapplied {
        Unapplied::Failed(why)
    }
}

impl From<store::Error> for Unapplied {
    fn from(e: store::Error) -> Unapplied {
        Unapplied::Failed(e.to_string())
    }
}

/// Whoever asked may have gone.
fn tell(tx: tokio::sync::oneshot::Sender<()>) {
    tx.send(()).ok();
}
