//! How a replica begins: new, or from what its store has.
//!
//! Owns the first entry of a group, the reading back of hard state, checkpoint and log, and what becomes of entries that cannot be read.
//! Does not wait for an election.
//!
//! - D-13: a sole member gives up what it cannot read by a durable decision that names it, before it serves; a member of several never does.
//! - D-15: who has lost a part of a log and takes itself for the only member goes on alone only on somebody's word that nobody else has the group.
//! - D-12: a member that may have forgotten what it acknowledged or voted for neither votes nor leads before it has caught up.

use std::{sync::Arc, time::Duration};

use raft::{Chain, Core, HardState, LogIndex, Members, NodeId, Restored, SnapshotMeta, Term};
use store::{Kind, NewEntry, Sync};

use crate::{
    codec,
    group::{Inner, from_store, own_options},
    machine::Machine,
    net::is_sole,
    options::{Error, Others},
    replicas::Shared,
};

/// Bytes of log that are read at once.
const READ_BYTES: u64 = 4 << 20;

/// The first members' first entry. It makes the store's log begin where raft's does.
pub(crate) async fn bootstrap(group: &store::Group, members: &Members) -> Result<(), Error> {
    if let Some(begun) = begin(group, members, Sync::Always)? {
        begun.durable().await?;
    }
    Ok(())
}

/// The same without waiting for the sync.
pub(crate) fn begin(
    group: &store::Group,
    members: &Members,
    sync: Sync,
) -> store::Result<Option<store::Ticket>> {
    if members.voters.is_empty() {
        // A newcomer has nothing and waits for a snapshot.
        return Ok(None);
    }
    let meta = SnapshotMeta::bootstrap(raft::GroupId(group.id().0), members.clone());
    Ok(Some(group.append(vec![begin_with(group, &meta)], sync)?))
}

fn begin_with(group: &store::Group, meta: &SnapshotMeta) -> NewEntry {
    NewEntry {
        kind: Kind::Config,
        index: store::LogIndex(1),
        term: store::Term(meta.term.0),
        prev: group.last().2,
        chain: store::Chain(meta.chain.0),
        payload: meta.members.encode(),
        digest: None,
    }
}

/// A replica whose log was in memory, of a group that others have too. What it was called acknowledged what it does not have any more, and voted: it is somebody else
/// now, who has nothing, and whom the others take in (D-9).
async fn forgotten(shared: &Arc<Shared>, group: &store::Group) -> Result<Inner, Error> {
    let id = raft::GroupId(group.id().0);
    let me = NodeId::new(shared.me.id, shared.next_incarnation().await?);
    group.begin_anew();
    let tail = raft::Tail::new(SnapshotMeta::nothing(id));
    let restored = Restored { hard: HardState::default(), applied: LogIndex::ZERO, tail, damage: Vec::new() };
    let seed = env::rng("raft elections").next_u64();
    let core =
        shared.with_live(false, |live| Core::new(id, me, shared.options.raft.clone(), seed, restored, live));
    let mut inner = Inner::new(core);
    inner.forgot = true;
    Ok(inner)
}

/// Builds the core of a group from its store, gives the checkpoint to the machine, and joins what comes before the log.
///
/// Entries that cannot be read are given up if this node is the only member: nobody else has them, what is left of them and everything
/// else goes on, and what is lost is named. Of a group of several they stay holes in the log, which the others fill.
pub(crate) async fn open(
    shared: &Arc<Shared>,
    group: &store::Group,
    machine: &Arc<dyn Machine>,
    fresh: bool,
    others: Others,
) -> Result<Inner, Error> {
    let id = raft::GroupId(group.id().0);
    let unfit = |what: &str| Error::Unfit(format!("group {}: {what}", id.0));
    let (first_members, _) = own_options(group).ok_or_else(|| unfit("its options cannot be read"))?;
    let hard = group.hard_state();
    let known = if group.is_memory() { hard.as_ref().and_then(codec::read_memory_members) } else { None };
    let known = known.unwrap_or_else(|| first_members.clone());
    let own = |m: &Members| m.all().into_iter().find(|n| n.id == shared.me.id);
    let me = own(&known).or_else(|| own(&first_members)).unwrap_or(shared.me);
    if group.is_memory() && !fresh {
        if !is_sole(&known, me) || group.is_doubtful() && others == Others::Some {
            return forgotten(shared, group).await;
        }
        if group.is_doubtful() && others == Others::Unknown {
            return Err(Error::WhoElse(Term(0), LogIndex::ZERO));
        }
    }
    if group.last().0 == store::LogIndex(0) && !group.is_doubtful() {
        // The process died between making the group and its first entry, or the bodies were in memory only.
        bootstrap(group, &first_members).await?;
    }
    let (applied, checkpoint) = group.applied();
    let read = |b: bytes::Bytes| {
        codec::read_hard_state(&b[..b.len().min(codec::HARD_STATE)])
            .ok_or_else(|| unfit("its hard state cannot be read"))
    };
    let mut hard = hard.map(read).transpose()?;
    let doubted = hard.is_some_and(|h| h.doubt);
    let state = if checkpoint.index.0 != 0 && !group.is_memory() {
        let read = codec::read_members(&checkpoint.blob);
        Some(read.ok_or_else(|| unfit("its checkpoint cannot be read"))?)
    } else {
        None
    };
    let mut sole = is_sole(state.as_ref().map_or(&first_members, |s| &s.0), me);
    let first = checkpoint.index.next();
    let who_else = || Error::WhoElse(Term(checkpoint.term.0), LogIndex(checkpoint.index.0));
    if sole && (doubted || group.is_doubtful() || !group.holes().is_empty()) {
        match others {
            Others::Unknown => return Err(who_else()),
            Others::None => give_up(shared, group).await?,
            Others::Some => sole = false,
        }
    }
    if let Some((_, blob)) = &state {
        machine.restore(blob).map_err(|e| unfit(&e))?;
    }
    let base = match state.map(|s| s.0) {
        _ if checkpoint.index.0 == 0 => first_entry(group, &first_members)
            .await?
            .ok_or_else(|| unfit("its first entry cannot be read"))?,
        members => SnapshotMeta {
            index: LogIndex(checkpoint.index.0),
            term: Term(checkpoint.term.0),
            chain: Chain(checkpoint.chain.0),
            // Of a group in memory nothing outlives a restart but the numbers that it may have given.
            members: members.unwrap_or(first_members),
        },
    };
    let mut tail = raft::Tail::new(base.clone());
    let mut damage = Vec::new();
    let (mut surveyed, mut unsure) = (false, LogIndex(u64::MAX));
    // Where rounds of the journal are gone between others, nobody knows the terms of what stood there, nor whether a later entry took the place of an earlier one.
    let mut forgot =
        hard.is_none() || doubted || group.is_doubtful() || group.holes().iter().any(|h| !h.known);
    forgot &= !sole;
    if forgot && !doubted {
        // First of all: the next life must not take what this one mends for all that there ever was.
        let known = hard.unwrap_or(HardState { term: Term(group.last().1.0), ..HardState::default() });
        let doubtful = HardState { doubt: true, ..known };
        if !group.is_memory() {
            group.set_hard_state(codec::hard_state(&doubtful))?.durable().await?;
        }
        hard = Some(doubtful);
    }
    let mut at = store::LogIndex(base.index.0.max(1));
    if checkpoint.index.0 != 0 {
        at = first;
    }
    let no_log = |e: raft::TailError| unfit(&format!("its log is none: {e:?}"));
    while at <= group.last().0 {
        let found = match group.entries(at, READ_BYTES).await {
            Ok(found) => found,
            Err(store::Error::Damaged(_)) if !surveyed => {
                // What is damaged in segments shows when it is read.
                surveyed = true;
                group.survey(first).await?;
                match others {
                    Others::Unknown if sole => return Err(who_else()),
                    Others::None if sole => give_up(shared, group).await?,
                    _ => sole = false,
                }
                continue;
            }
            Err(store::Error::Damaged(d)) => {
                let hole = group.holes().into_iter().find(|h| h.first <= at && at <= h.last);
                let hole = hole.ok_or_else(|| unfit(&d.to_string()))?;
                if !hole.known && !sole {
                    // What stands behind it is good, but cannot be compared with a leader's log entry by entry, and this replica's copies count
                    // for nothing before it has caught up.
                    match group.truncate(at) {
                        Ok(ticket) => {
                            ticket.durable().await?;
                            break;
                        }
                        // In a segment whose index is gone too: it was committed. Its terms are taken for the highest that they can be.
                        Err(store::Error::Invalid(_)) => unsure = unsure.min(LogIndex(at.0).prev()),
                        Err(e) => return Err(e.into()),
                    }
                }
                for i in at.0..=hole.last.0 {
                    let chain = if i == hole.last.0 { Chain(hole.chain.0) } else { Chain::default() };
                    let term = Term(hole.term.0).max(tail.last_term());
                    tail.push_known(LogIndex(i), term, chain).map_err(no_log)?;
                }
                tracing::error!(
                    group = id.0,
                    "entries {}..={} cannot be read here and are asked for at the other members",
                    at.0,
                    hole.last.0
                );
                damage.push((LogIndex(at.0), LogIndex(hole.last.0)));
                at = hole.last.next();
                continue;
            }
            Err(e) => return Err(e.into()),
        };
        for e in found {
            if applied < e.head.index && e.head.index.0 <= base.index.0 {
                // The first entry: it is the base and nobody's to apply.
                group.apply(&e.head).await?;
            }
            if e.head.compacted {
                let (term, chain) = (Term(e.head.term.0), Chain(e.head.chain.0));
                tail.push_known(LogIndex(e.head.index.0), term.max(tail.last_term()), chain)
                    .map_err(no_log)?;
            } else {
                tail.push(&from_store(&e)).map_err(no_log)?;
            }
            at = e.head.index.next();
        }
    }
    // With one voter nobody else could have been voted for: the log says which terms there were.
    let mut hard = hard.unwrap_or(HardState { term: tail.last_term(), ..HardState::default() });
    hard.commit = hard.commit.min(unsure).max(base.index);
    hard.doubt = forgot || unsure < LogIndex(u64::MAX);
    let restored = Restored { hard, applied: base.index, tail, damage };
    let seed = env::rng("raft elections").next_u64();
    let core =
        shared.with_live(sole, |live| Core::new(id, me, shared.options.raft.clone(), seed, restored, live));
    if hard.doubt {
        tracing::error!(
            group = id.0,
            "the end of its log is lost here: it follows, and votes for nobody until it has caught up"
        );
    }
    let mut inner = Inner::new(core);
    // An answer to a read of an earlier life must not look like one to a read of this one.
    inner.next_read = env::rng("replica reads").next_u64() >> 1;
    Ok(inner)
}

/// Whether nothing here says what the group is, or what its log stands on. What cannot be read just now is told by whoever opens it.
pub(crate) async fn is_orphan(group: &store::Group) -> bool {
    let Some((first_members, _)) = own_options(group) else { return true };
    if group.is_memory() || !first_members.voters.is_empty() || group.applied().1.index.0 != 0 {
        return false;
    }
    first_entry(group, &first_members).await.is_ok_and(|base| base.is_none())
}

/// What the log of a group without a checkpoint stands on: the first members' first entry. `None` if it is lost and nothing else says it.
async fn first_entry(group: &store::Group, first: &Members) -> Result<Option<SnapshotMeta>, Error> {
    let id = raft::GroupId(group.id().0);
    let found = match group.entries(store::LogIndex(1), 1).await {
        Ok(found) => found,
        Err(store::Error::Damaged(_)) => {
            // What is damaged in a segment is a hole only once it was looked at, and only holes can be filled.
            group.survey(store::LogIndex(1)).await?;
            Vec::new()
        }
        Err(e) => return Err(e.into()),
    };
    let Some(e) = found.first().filter(|e| !e.head.compacted) else {
        if group.last().0 == store::LogIndex(0) {
            return Ok(Some(SnapshotMeta::nothing(id)));
        }
        if first.voters.is_empty() {
            return Ok(None);
        }
        // It is the same on all members, and what the group was made with says it too.
        let meta = SnapshotMeta::bootstrap(id, first.clone());
        if found.is_empty() {
            group.patch(vec![begin_with(group, &meta)])?.durable().await?;
        }
        return Ok(Some(meta));
    };
    // The first entry is the base: its chain is the one that all members have.
    Ok(Members::decode(&e.payload).map(|members| SnapshotMeta {
        index: LogIndex(e.head.index.0),
        term: Term(e.head.term.0),
        chain: Chain(e.head.chain.0),
        members,
    }))
}

/// Gives up what cannot be read, durably, before anything is built on it.
async fn give_up(shared: &Arc<Shared>, group: &store::Group) -> Result<(), Error> {
    let id = group.id().0;
    for h in group.holes() {
        tracing::error!(group = id, "entries {}..={} are damaged; nobody else has them", h.first.0, h.last.0);
    }
    let mut last = None;
    loop {
        match group.give_up() {
            Ok(Some(ticket)) => last = Some(ticket),
            Ok(None) => break,
            Err(store::Error::Busy) => env::sleep(Duration::from_nanos(shared.options.retry_ns)).await,
            Err(e) => return Err(e.into()),
        }
    }
    if let Some(ticket) = last {
        ticket.durable().await?;
        group.trust();
    }
    for l in group.lost() {
        match (l.first_seq.0, l.sure) {
            (0, _) => tracing::error!(group = id, "entries {}..={} are given up", l.first.0, l.last.0),
            (a, true) => tracing::error!(group = id, "messages {a}..={} are lost", l.last_seq.0),
            (a, false) => {
                tracing::error!(
                    group = id,
                    "messages {a}..={} may have been given and are lost",
                    l.last_seq.0
                );
            }
        }
    }
    Ok(())
}
