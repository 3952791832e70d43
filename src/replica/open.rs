//! How a replica begins: new, or from what its store has.
//!
//! Owns the first entry of a group and the reading back of hard state, checkpoint and log. Does not wait for an election.

use std::sync::Arc;

use raft::{Chain, Core, HardState, LogIndex, Members, Restored, SnapshotMeta, Term};
use store::{Kind, NewEntry, Sync};

use crate::{
    codec,
    group::{Inner, from_store, own_options},
    machine::Machine,
    options::Error,
    replicas::Shared,
};

/// Bytes of log that are read at once.
const READ_BYTES: u64 = 4 << 20;

/// The first members' first entry. It makes the store's log begin where raft's does.
pub(crate) async fn bootstrap(group: &store::Group, members: &Members) -> Result<(), Error> {
    if let Some(begun) = begin(group, members)? {
        begun.durable().await?;
    }
    Ok(())
}

/// The same without waiting for the sync.
pub(crate) fn begin(group: &store::Group, members: &Members) -> Result<Option<store::Ticket>, Error> {
    if members.voters.is_empty() {
        // A newcomer has nothing and waits for a snapshot.
        return Ok(None);
    }
    let meta = SnapshotMeta::bootstrap(raft::GroupId(group.id().0), members.clone());
    let entry = NewEntry {
        kind: Kind::Config,
        index: store::LogIndex(1),
        term: store::Term(meta.term.0),
        prev: group.last().2,
        chain: store::Chain(meta.chain.0),
        payload: members.encode(),
        digest: None,
    };
    Ok(Some(group.append(vec![entry], Sync::Always)?))
}

/// Builds the core of a group from its store, gives the checkpoint to the machine, and joins what comes before the log.
pub(crate) async fn open(
    shared: &Arc<Shared>,
    group: &store::Group,
    machine: &Arc<dyn Machine>,
) -> Result<Inner, Error> {
    let id = raft::GroupId(group.id().0);
    let unfit = |what: &str| Error::Unfit(format!("group {}: {what}", id.0));
    let (first_members, _) = own_options(group).ok_or_else(|| unfit("its options cannot be read"))?;
    let me = first_members.all().into_iter().find(|n| n.id == shared.me.id).unwrap_or(shared.me);
    if group.last().0 == store::LogIndex(0) {
        // The process died between making the group and its first entry, or the bodies were in memory only.
        bootstrap(group, &first_members).await?;
    }
    let (applied, checkpoint) = group.applied();
    let base = if checkpoint.index.0 == 0 {
        match group.entries(store::LogIndex(1), 1).await?.first() {
            None => SnapshotMeta::nothing(id),
            // The first entry is the base: its chain is the one that all members have.
            Some(e) => SnapshotMeta {
                index: LogIndex(e.head.index.0),
                term: Term(e.head.term.0),
                chain: Chain(e.head.chain.0),
                members: Members::decode(&e.payload)
                    .ok_or_else(|| unfit("its first entry cannot be read"))?,
            },
        }
    } else if group.is_memory() {
        // Nothing of it outlives a restart but the numbers that it may have given.
        let (index, term) = (LogIndex(checkpoint.index.0), Term(checkpoint.term.0));
        SnapshotMeta { index, term, chain: Chain(checkpoint.chain.0), members: first_members }
    } else {
        let (members, blob) =
            codec::read_members(&checkpoint.blob).ok_or_else(|| unfit("its checkpoint cannot be read"))?;
        machine.restore(&blob).map_err(|e| unfit(&e))?;
        SnapshotMeta {
            index: LogIndex(checkpoint.index.0),
            term: Term(checkpoint.term.0),
            chain: Chain(checkpoint.chain.0),
            members,
        }
    };
    let mut tail = raft::Tail::new(base.clone());
    let last = group.last().0;
    if let Some(l) = group.lost().iter().find(|l| l.last.0 > base.index.0) {
        return Err(unfit(&format!("entries {}..={} are damaged", l.first.0, l.last.0)));
    }
    let mut at = store::LogIndex(base.index.0.max(1));
    if checkpoint.index.0 != 0 {
        at = checkpoint.index.next();
    }
    while at <= last {
        for e in group.entries(at, READ_BYTES).await? {
            if applied < e.head.index && e.head.index.0 <= base.index.0 {
                // The first entry: it is the base and nobody's to apply.
                group.apply(&e.head).await?;
            }
            tail.push(&from_store(&e)).map_err(|e| unfit(&format!("its log is none: {e:?}")))?;
            at = e.head.index.next();
        }
    }
    let hard = match group.hard_state() {
        Some(b) => codec::read_hard_state(&b).ok_or_else(|| unfit("its hard state cannot be read"))?,
        // With one voter nobody else could have been voted for: the log says which terms there were.
        None if base.members.voters == [me] => {
            HardState { term: Term(group.last().1.0), vote: None, commit: base.index }
        }
        None => return Err(unfit("its hard state is damaged")),
    };
    let sole = base.members.all() == [me];
    let restored = Restored { hard, applied: base.index, tail, damage: Vec::new() };
    let seed = env::rng("raft elections").next_u64();
    let core =
        shared.with_live(sole, |live| Core::new(id, me, shared.options.raft.clone(), seed, restored, live));
    Ok(Inner::new(core))
}
