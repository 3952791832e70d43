//! Who makes trouble. Each kind has its own clock; the rules of what may be broken at the same time (the fault atlas) are
//! here too, so that every failure to recover is a bug.

use raft::{Change, EntryKind, Event, LogIndex, Members, NodeId, RoleName, SnapshotMeta};

use super::disk::Disk;
use super::invariants::Violation;
use super::plan::MS;
use super::world::{GROUP, What, World};

/// A kind of trouble.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A process dies and starts again.
    Crash,
    /// Some cannot reach some others.
    Partition,
    /// A process stops and goes on.
    Pause,
    /// Another membership.
    Change,
    /// Another leader.
    Transfer,
    /// A disk is emptied and comes back as another node.
    Wipe,
    /// An entry cannot be read.
    Damage,
    /// A group is ill on one node.
    Ill,
    /// One of the above, for whoever leads.
    Hunt,
    /// Somebody campaigns without reason.
    Campaign,
}

impl World<'_> {
    fn mean(&self, kind: Kind) -> u64 {
        match kind {
            Kind::Crash => self.plan.crash_ns,
            Kind::Partition => self.plan.partition_ns,
            Kind::Pause => self.plan.pause_ns,
            Kind::Change => self.plan.change_ns,
            Kind::Transfer => self.plan.transfer_ns,
            Kind::Wipe => self.plan.wipe_ns,
            Kind::Damage => self.plan.damage_ns,
            Kind::Ill => self.plan.ill_ns,
            Kind::Hunt => self.plan.hunt_ns,
            Kind::Campaign => self.plan.hunt_ns * 3,
        }
    }

    /// Sets all clocks of trouble.
    pub fn schedule_troubles(&mut self) {
        for kind in [
            Kind::Crash,
            Kind::Partition,
            Kind::Pause,
            Kind::Change,
            Kind::Transfer,
            Kind::Wipe,
            Kind::Damage,
            Kind::Ill,
            Kind::Hunt,
            Kind::Campaign,
        ] {
            self.again(kind);
        }
    }

    fn again(&mut self, kind: Kind) {
        let mean = self.mean(kind);
        if mean > 0 && !self.calm {
            let delay = self.fate.between(mean / 2, mean * 3 / 2);
            self.after(delay, What::Trouble(kind));
        }
    }

    fn anybody(&mut self) -> usize {
        self.fate.below(self.nodes.len() as u64) as usize
    }

    /// Trouble happens.
    pub fn trouble(&mut self, kind: Kind) -> Result<(), Violation> {
        if self.calm {
            return Ok(());
        }
        self.again(kind);
        self.stats.faults += 1;
        match kind {
            Kind::Crash => {
                let at = self.anybody();
                self.crash_and_restart(at)
            }
            Kind::Partition => {
                self.partition();
                Ok(())
            }
            Kind::Pause => {
                let at = self.anybody();
                self.pause(at);
                Ok(())
            }
            Kind::Change => self.change_members(),
            Kind::Transfer => {
                let (Some(leader), to) = (self.leader(), self.anybody()) else { return Ok(()) };
                let to = self.nodes[to].id;
                self.step(leader, Event::Transfer(to))
            }
            Kind::Wipe => self.wipe(),
            Kind::Damage => self.damage(),
            Kind::Ill => {
                let at = self.anybody();
                let ill = !self.nodes[at].is_ill;
                if self.nodes[at].core.is_none() {
                    return Ok(());
                }
                // A minority at most, or nobody could lead.
                if ill && self.nodes.iter().any(|n| n.is_ill) {
                    return Ok(());
                }
                self.nodes[at].is_ill = ill;
                self.step(at, Event::Ill(ill))
            }
            Kind::Hunt => {
                let Some(at) = self.nodes.iter().position(|n| {
                    n.core.as_ref().is_some_and(|c| c.status().role == RoleName::Leader)
                        && n.paused_until <= self.now
                }) else {
                    return Ok(());
                };
                match self.fate.below(4) {
                    0 => self.crash_and_restart(at),
                    1 => {
                        self.pause(at);
                        Ok(())
                    }
                    _ => {
                        self.isolate(at);
                        Ok(())
                    }
                }
            }
            Kind::Campaign => {
                let at = self.anybody();
                self.step(at, Event::Campaign)
            }
        }
    }

    fn crash_and_restart(&mut self, at: usize) -> Result<(), Violation> {
        self.crash(at)?;
        let delay = if self.fate.chance(500) {
            self.fate.below(10 * MS)
        } else {
            self.fate.between(10 * MS, 700 * MS)
        };
        self.after(delay, What::Start(at));
        Ok(())
    }

    fn pause(&mut self, at: usize) {
        let until = self.now + self.fate.between(20 * MS, 600 * MS);
        self.nodes[at].paused_until = until;
        let id = self.nodes[at].id;
        self.note(|| format!("{id} is paused until {:.3}", until as f64 / 1e6));
    }

    fn isolate(&mut self, at: usize) {
        let way = self.fate.below(3);
        for other in 0..self.nodes.len() {
            if other != at {
                self.cut[at][other] |= way != 0;
                self.cut[other][at] |= way != 1;
            }
        }
        let id = self.nodes[at].id;
        self.note(|| format!("{id} is isolated (way {way})"));
        let delay = self.fate.between(50 * MS, 700 * MS);
        self.after(delay, What::Mend);
    }

    fn partition(&mut self) {
        let one_way = self.fate.chance(300);
        let side: Vec<bool> = (0..self.nodes.len()).map(|_| self.fate.chance(500)).collect();
        for from in 0..side.len() {
            for to in 0..side.len() {
                if side[from] != side[to] && (side[from] || !one_way) {
                    self.cut[from][to] = true;
                }
            }
        }
        self.note(|| format!("partition {side:?} one way {one_way}"));
        let delay = self.fate.between(50 * MS, 900 * MS);
        self.after(delay, What::Mend);
    }

    fn change_members(&mut self) -> Result<(), Violation> {
        let at = self.anybody();
        // Whoever leads, or thinks so.
        let leads =
            |n: &super::node::Node| n.core.as_ref().is_some_and(|c| c.status().role == RoleName::Leader);
        let Some(leader) =
            (0..self.nodes.len()).map(|i| (at + i) % self.nodes.len()).find(|i| leads(&self.nodes[*i]))
        else {
            return Ok(());
        };
        let Some(core) = &self.nodes[leader].core else { return Ok(()) };
        let now: Members = core.members().1.clone();
        let whom = self.anybody();
        let id = self.nodes[whom].id;
        let mut change = Change { voters: now.voters.clone(), learners: now.learners.clone() };
        let older: Vec<NodeId> = now.all().into_iter().filter(|n| n.id == id.id && *n != id).collect();
        change.voters.retain(|n| !older.contains(n));
        change.learners.retain(|n| !older.contains(n));
        if now.learners.contains(&id) {
            change.learners.retain(|n| *n != id);
            if self.fate.chance(850) {
                change.voters.push(id);
            }
        } else if now.voters.contains(&id) {
            change.voters.retain(|n| *n != id);
            if self.fate.chance(500) {
                change.learners.push(id);
            }
            // Several at once: that is what joint membership is for.
            if self.fate.chance(300) && !change.learners.is_empty() {
                let learner = self.fate.pick(&change.learners.clone());
                if learner != id {
                    change.learners.retain(|n| *n != learner);
                    change.voters.push(learner);
                }
            }
        } else if older.is_empty() || self.fate.chance(500) {
            change.learners.push(id);
        }
        // A learner that is gone for good does not come back.
        change.learners.retain(|l| self.nodes.iter().any(|n| n.id == *l));
        if !self.survives(&change.voters) {
            return Ok(());
        }
        self.note(|| format!("change to {change:?}"));
        self.step(leader, Event::Change(change))
    }

    /// Whether a majority of these has its disk.
    fn survives(&self, voters: &[NodeId]) -> bool {
        let alive = voters.iter().filter(|v| self.nodes.iter().any(|n| n.id == **v)).count();
        alive * 2 > voters.len()
    }

    fn wipe(&mut self) -> Result<(), Violation> {
        let at = self.anybody();
        let all_up = self.nodes.iter().all(|n| n.core.is_some());
        let damaged = self.nodes.iter().any(|n| !n.disk.damaged.is_empty());
        if !all_up || damaged {
            return Ok(());
        }
        let old = self.nodes[at].id;
        let without = |voters: &[NodeId]| {
            let alive =
                voters.iter().filter(|v| **v != old && self.nodes.iter().any(|n| n.id == **v)).count();
            voters.is_empty() || !voters.contains(&old) || alive * 2 > voters.len()
        };
        // Every membership that anybody knows of, since any may turn out to be the one that counts.
        let safe = self.nodes.iter().all(|n| {
            n.core.as_ref().is_some_and(|c| {
                let (index, now) = c.members();
                let before = c.members_at(c.status().commit.min(index));
                [now, before].iter().all(|m| without(&m.voters) && without(&m.outgoing))
            })
        });
        if !safe {
            return Ok(());
        }
        self.crash(at)?;
        let id = NodeId::new(old.id, old.incarnation + 1);
        let node = &mut self.nodes[at];
        node.id = id;
        node.disk = Disk::new(SnapshotMeta::nothing(GROUP));
        node.shadow.clear();
        self.note(|| format!("{old} is wiped and will be {id}"));
        let delay = self.fate.below(300 * MS);
        self.after(delay, What::Start(at));
        Ok(())
    }

    fn damage(&mut self) -> Result<(), Violation> {
        let at = self.anybody();
        // One replica at a time, and a whole majority beside it.
        let whole = self.nodes.iter().enumerate().all(|(i, n)| i == at || n.disk.damaged.is_empty());
        let node = &self.nodes[at];
        if !whole || !node.disk.pending.is_empty() {
            return Ok(());
        }
        let enough = |m: &Members| {
            !m.is_joint()
                && m.voters.iter().filter(|v| **v != node.id && self.has_disk(**v)).count() * 2
                    > m.voters.len()
        };
        let known = self.nodes.iter().filter_map(|n| n.core.as_ref()).all(|c| enough(c.members().1));
        let all_up = self.nodes.iter().all(|n| n.core.is_some());
        if !known || !all_up {
            return Ok(());
        }
        let base = node.disk.checkpoint.meta.index.0;
        let candidates: Vec<u64> = node
            .disk
            .entries
            .iter()
            .filter(|(i, e)| **i > base && e.kind != EntryKind::Config)
            .map(|(i, _)| *i)
            .collect();
        if candidates.is_empty() {
            return Ok(());
        }
        let index = self.fate.pick(&candidates);
        let id = node.id;
        self.nodes[at].disk.damaged.insert(index);
        self.note(|| format!("{id} has a hole at {index}"));
        if self.fate.chance(400) {
            // Found at the next start.
            self.crash(at)?;
            self.after(20 * MS, What::Start(at));
            return Ok(());
        }
        self.step(at, Event::Damaged { first: LogIndex(index), last: LogIndex(index) })
    }

    fn has_disk(&self, id: NodeId) -> bool {
        self.nodes.iter().any(|n| n.id == id)
    }
}
