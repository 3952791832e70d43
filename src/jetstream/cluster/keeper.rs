//! The keeper: the task that brings what is there to what is wanted.
//!
//! Owns the order of that work on one node: the formation, the list of nodes, the opening and removing of groups, and the steps of memberships. Looks at
//! what is applied and at what is there, and does what is missing; whatever fails is looked at again. Decides nothing that is not in the meta group's log.
//!
//! - K-5: data goes only on a committed word (J-21), also when a node comes back after long.
//! - K-6: what an assignment wants and what a group has become equal again after every fault.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Weak,
        atomic::Ordering::{AcqRel, Acquire, Release},
    },
    time::Duration,
};

use replica::{GroupId, Members, New, NodeId, Reach};

use super::{
    Kind,
    calls::{Call, Reply},
    formation::{Action, Saved},
    identity,
    namesakes::Namesakes,
    shell::{Cluster, FILES, NOTES, SPENDS},
};
use crate::{
    JetStream, advisory,
    meta::{Assigned, Assignment, Command, META_GROUP, NotAssigned},
};

/// How often what is not finished is looked at.
const AGAIN: Duration = Duration::from_millis(100);
/// How often nodes say what they are although nothing has changed.
const HELLO: Duration = Duration::from_secs(5);
/// How long another node may take for a call of the keeper's.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long it is waited for the leader's word on what is committed.
const CURRENT: Duration = Duration::from_millis(500);
/// How often it is looked whether streams in memory are forgotten.
const REMEMBER: Duration = Duration::from_secs(1);
/// Groups that are opened at a time.
const OPENING_MAX: usize = 64;

/// What the keeper remembers between two looks.
#[derive(Default)]
struct Mind {
    /// What was said last.
    said: Option<bytes::Bytes>,
    /// When.
    said_at: u64,
    /// Who was told.
    told: BTreeSet<NodeId>,
    /// The leader of the meta group that was logged last.
    leader: Option<NodeId>,
    /// Nodes in whose place another of their name is there.
    namesakes: Namesakes,
    /// When streams in memory were looked at last.
    remembered_at: u64,
    /// The meta group's own replica is to come back as another life, until that is made. Set only by its own word: one that is not there may have been
    /// closed.
    renews: bool,
    /// Groups that are to be opened and wait until fewer are being opened: nothing else of them is looked at meanwhile.
    waiting: BTreeSet<u64>,
    /// All servers know of notes of consumers, and of those of streams in files.
    notes: [bool; 2],
}

/// What a look at a group found.
enum Kept {
    /// Nothing is left to do here.
    Done,
    /// It is being opened, and looked at again when that is done.
    Opens,
    /// It is to be opened, when others are.
    Waits,
    /// It is to be looked at again soon.
    Left,
}

/// Runs until the engine ends.
pub(crate) async fn keep(node: Weak<JetStream>) {
    let mut mind = Mind::default();
    loop {
        let Some(me) = node.upgrade().filter(|n| !n.is_closed()) else { return };
        let Some(c) = me.cluster.clone() else { return };
        let mut meta = me.meta.changes();
        let unfinished = me.look(&c, &mut mind).await;
        drop(me);
        let pause = if unfinished { AGAIN } else { HELLO };
        env::select! {
            _ = c.stir.notified() => {}
            _ = meta.changed() => c.tell(),
            _ = env::sleep(pause) => {}
        }
    }
}

impl JetStream {
    /// Does what is to be done; whether something is left.
    async fn look(self: &Arc<JetStream>, c: &Arc<Cluster>, mind: &mut Mind) -> bool {
        let forming = self.form(c, mind).await;
        self.speak(c, mind);
        self.log_leader(c, mind);
        let nodes = self.keep_nodes(c, &mind.namesakes).await;
        self.keep_notes(mind);
        self.replace_namesakes(&mut mind.namesakes).await;
        self.end_abandoned_restores().await;
        let groups = self.keep_groups(c, mind).await;
        let late = u128::from(env::now().0.saturating_sub(mind.remembered_at)) >= REMEMBER.as_nanos();
        let forgotten = late && self.keep_forgotten(c).await;
        if late {
            mind.remembered_at = env::now().0;
        }
        forming || nodes || groups || forgotten
    }

    /// Says what this node is, if that changed or somebody may not have heard it.
    fn speak(&self, c: &Cluster, mind: &mut Mind) {
        let hello = self.hello(c);
        let now = env::now().0;
        let up: BTreeSet<NodeId> = c.up().into_iter().collect();
        let changed = mind.said.as_ref() != Some(&hello);
        // While there is no group each word counts.
        let due = if c.genesis().is_some() { HELLO } else { AGAIN * 3 };
        let late = u128::from(now.saturating_sub(mind.said_at)) >= due.as_nanos();
        mind.told.retain(|n| up.contains(n));
        for n in &up {
            if (changed || late || !mind.told.contains(n)) && c.wires.send(*n, Kind::Hello, hello.clone()) {
                mind.told.insert(*n);
            }
        }
        if changed || late {
            (mind.said, mind.said_at) = (Some(hello), now);
        }
    }

    /// What could not be noted while there were older servers is noted now.
    fn keep_notes(&self, mind: &mut Mind) {
        let able = [NOTES, FILES].map(|format| self.all_read(format));
        let before = std::mem::replace(&mut mind.notes, able);
        if able.iter().zip(before).any(|(able, before)| *able && !before) {
            self.all_assets().iter().flat_map(|a| a.streams()).for_each(|s| s.look_at_notes());
        }
    }

    fn log_leader(&self, c: &Cluster, mind: &mut Mind) {
        let leader = self.meta.leader(self.me);
        if leader.is_none() || leader == mind.leader {
            return;
        }
        mind.leader = leader;
        match leader {
            Some(n) if n == self.me => {
                self.host.log("INF", "Self is new JetStream cluster metadata leader");
                self.tell_meta_leader();
            }
            Some(n) => {
                let text = format!("JetStream cluster new metadata leader: {}/{}", self.name_of(n), c.name);
                self.host.log("INF", &text);
            }
            None => {}
        }
    }

    /// A step of the formation.
    async fn form(self: &Arc<JetStream>, c: &Arc<Cluster>, mind: &mut Mind) -> bool {
        if let Some(genesis) = c.genesis() {
            let spent_below = c.spent_below.load(Acquire);
            let ends = |h: replica::Handle| u64::from(h.life()) < spent_below || h.status().contradicted;
            mind.renews |= self.replicas.get(GroupId(META_GROUP)).is_some_and(ends);
            if mind.renews {
                mind.renews = !self.renew_meta(genesis).await;
                return true;
            }
            let Some(newcomer) = self.meta.handle().filter(|h| h.members().0.is_empty()) else {
                return false;
            };
            // Its leader may take it for the one that it was, which has nothing to say.
            c.up().into_iter().for_each(|n| newcomer.announce(n));
            return true;
        }
        let disk = env::disk::Disk::os();
        loop {
            let random = env::rng("genesis").next_u64();
            let Some(action) = c.formation.lock().next(env::now().0, random) else { return true };
            let (genesis, members) = match action {
                Action::Save(saved) => {
                    match identity::save_formation(&disk, &self.options.dir, &saved).await {
                        Ok(()) => c.formation.lock().saved(),
                        Err(e) => {
                            // What is on disk is not known: this life promises nothing any more.
                            self.host.log("ERR", &format!("JetStream: the formation of the cluster: {e}"));
                        }
                    }
                    continue;
                }
                Action::Make(p) => (p.genesis, Members::of(p.members.iter().copied())),
                Action::Join { genesis, .. } => (genesis, Members::default()),
            };
            match self.make_meta(genesis, members).await {
                Ok(()) => {
                    c.joined(genesis);
                    if let Err(e) = self.note(|saved| saved.member = true).await {
                        // The next start does.
                        tracing::debug!("the formation of the cluster: {e}");
                    }
                    return true;
                }
                Err(e) => {
                    self.host.log("ERR", &format!("JetStream: the meta group could not be made: {e}"));
                    c.formation.lock().failed();
                    return true;
                }
            }
        }
    }

    /// The meta group's own replica comes back as another life, since its leader contradicts what it made of a damaged disk, or the group has left it behind. Whether
    /// it did.
    async fn renew_meta(self: &Arc<JetStream>, genesis: u64) -> bool {
        let done = async {
            // Durable before anything goes: who starts without a meta group then founds none, and comes as another life too.
            self.note(|saved| saved.forgot = true).await?;
            if self.replicas.has(GroupId(META_GROUP)) {
                self.replicas.remove(GroupId(META_GROUP)).await.map_err(|e| e.to_string())?;
            }
            self.meta.begin_anew();
            self.make_meta(genesis, Members::default()).await
        };
        match done.await {
            Ok(()) => {
                let text = "what the meta group's replica made of a damaged disk is not what its leader has, or others have taken its place: it comes back as a \
                     new member";
                self.host.log("WRN", &format!("JetStream: {text}"));
                true
            }
            // What is noted is enough for the next start.
            Err(_) if self.is_closed() => true,
            Err(e) => {
                let text = format!("JetStream: the meta group's replica could not be made anew: {e}");
                self.host.log("ERR", &text);
                env::sleep(AGAIN * 10).await;
                false
            }
        }
    }

    /// Makes the meta group on this node.
    pub(crate) async fn make_meta(
        self: &Arc<JetStream>,
        genesis: u64,
        members: Members,
    ) -> Result<(), String> {
        let new = New {
            id: GroupId(META_GROUP),
            memory: false,
            options: bytes::Bytes::copy_from_slice(&genesis.to_le_bytes()),
            members,
            sync: self.meta_sync(),
        };
        if self.replicas.is_orphan(new.id).await {
            // Nobody knows what it was, and another life takes its place.
            self.replicas.remove(new.id).await.map_err(|e| e.to_string())?;
        }
        self.replicas.create(new, self.meta.clone()).await.map(|_| ()).map_err(|e| e.to_string())
    }

    /// The leader sees to it that all nodes are listed and are members of the meta group, but for those whose disk is gone and kept a place for.
    async fn keep_nodes(self: &Arc<JetStream>, c: &Cluster, namesakes: &Namesakes) -> bool {
        let Some(handle) = self.meta.handle().filter(|_| self.meta.leads()) else { return false };
        let mut wanted = vec![self.record(c)];
        for (id, p) in c.peers() {
            if let Some(h) = p.hello.filter(|_| c.is_kin(id)) {
                wanted.push(crate::meta::Node {
                    id,
                    name: h.name.into(),
                    tags: h.tags,
                    memory_max: h.memory_max,
                    storage_max: h.storage_max,
                    format: h.format,
                });
            }
        }
        for n in wanted {
            let news = self.meta.read(|s| s.nodes().get(&n.id) != Some(&n) && !s.is_removed(n.id));
            if news && let Err(NotAssigned::NotLeader(_)) = self.meta.begin(&Command::Node(n)).done().await {
                return true;
            }
        }
        self.leave_removed().await;
        let (voters, learners) = handle.members();
        let target: BTreeSet<NodeId> = self.meta.read(|s| {
            let listed = s.nodes().keys().copied();
            let is_parted = |n: NodeId| self.is_parted(s, namesakes, n);
            // Nobody else leaves who was not removed.
            listed.chain(voters.iter().copied()).filter(|n| !s.is_removed(*n) && !is_parted(*n)).collect()
        });
        let there = learners.is_empty() && voters.iter().copied().collect::<BTreeSet<_>>() == target;
        let alone = learners.is_empty() && voters.len() == 1;
        if alone && self.shared.load(Acquire) == there && !self.note_shared(!there).await {
            return true;
        }
        if there {
            return false;
        }
        let target: Vec<NodeId> = target.into_iter().collect();
        match handle.step_towards(&target) {
            Ok(Reach::Done) => false,
            Ok(Reach::Asking(nodes)) => {
                // No change is under way, so that what left it behind is committed.
                nodes.iter().filter_map(|n| handle.left_behind(*n)).for_each(|r| self.say_spent(c, r));
                true
            }
            Ok(_) => true,
            Err(e) => {
                tracing::debug!("the meta group's members: {e}");
                true
            }
        }
    }

    /// K-12, for the meta group, which no assignment names: who is alone in it notes durably that others come before it takes them in, and that it is alone again.
    async fn note_shared(&self, shared: bool) -> bool {
        let noted = self.note(|saved| saved.shared = shared).await;
        match &noted {
            Ok(()) => self.shared.store(shared, Release),
            Err(e) => self
                .host
                .log("ERR", &format!("JetStream: who else is in the meta group could not be noted: {e}")),
        }
        noted.is_ok()
    }

    /// Streams that are on a server which was removed get another instead, if there is one.
    async fn leave_removed(self: &Arc<JetStream>) {
        let hit: Vec<(Arc<Assigned>, NodeId)> = self.meta.read(|s| {
            if !s.is_any_on_removed() {
                return Vec::new();
            }
            let gone = |a: &Arc<Assigned>| a.a.members.iter().copied().find(|n| s.is_removed(*n));
            s.assignments().filter_map(|a| Some((a.clone(), gone(a)?))).collect()
        });
        for (a, n) in hit {
            let account = self.broker.account_or_new(&a.a.account);
            let assets = self.assets(&account);
            let _one = assets.making.turn(&a.a.name).await;
            if let Err(e) = self.without(&a, n).await {
                tracing::debug!(group = a.a.id, "no other server: {e}");
            }
        }
    }

    /// Opens, changes and removes groups until they are as assigned.
    async fn keep_groups(self: &Arc<JetStream>, c: &Cluster, mind: &mut Mind) -> bool {
        let mut ids = self.meta.take_touched();
        ids.append(&mut c.due.lock());
        // K-5: while the log is being applied again this node may be out of a group of which it is a member again since.
        let any_out = self.meta.read(|s| ids.iter().any(|id| s.is_out(*id, self.me)));
        let current = any_out && self.is_current().await;
        let mut room = OPENING_MAX.saturating_sub(self.opening.lock().len());
        for _ in 0..room.min(mind.waiting.len()) {
            ids.extend(mind.waiting.pop_first());
        }
        let mut left = BTreeSet::new();
        for id in ids {
            match self.keep_group(c, id, room > 0, current).await {
                Kept::Done => {}
                Kept::Opens => room = room.saturating_sub(1),
                Kept::Waits => drop(mind.waiting.insert(id)),
                Kept::Left => drop(left.insert(id)),
            }
        }
        let unfinished = !left.is_empty() || !mind.waiting.is_empty();
        c.due.lock().append(&mut left);
        unfinished
    }

    /// Looks at one group. `current`: it is known to which group this node does not belong any more.
    async fn keep_group(self: &Arc<JetStream>, c: &Cluster, id: u64, room: bool, current: bool) -> Kept {
        let (assigned, out, spent) =
            self.meta.read(|s| (s.get(id).cloned(), s.is_out(id, self.me), s.spent(id, self.me)));
        let done = |done: bool| if done { Kept::Done } else { Kept::Left };
        if out && !current {
            return Kept::Left;
        }
        if out {
            let gone = self.drop_group(id).await;
            return done(gone && self.change_meta(&Command::Gone { id, node: self.me }).await.is_ok());
        }
        let Some(assigned) = assigned.filter(|a| a.a.concerns(self.me)) else { return Kept::Done };
        let Some(handle) = self.replicas.get(GroupId(id)) else {
            if !room {
                return Kept::Waits;
            }
            // Its opening says when it is to be looked at again.
            if self.opening.lock().insert(id) {
                self.open_assigned(&assigned);
            }
            return Kept::Opens;
        };
        // Its leader has all that was acknowledged, and contradicts what this replica made of a damaged disk.
        if handle.status().contradicted && spent.is_none_or(|life| handle.life() > life) {
            self.spend(id, NodeId::new(self.me.id, handle.life())).await;
            return Kept::Left;
        }
        // What comes in its place is looked at next.
        if spent.is_some_and(|life| handle.life() <= life) {
            self.drop_group(id).await;
            return Kept::Left;
        }
        if let Some(stream) = self.stream_of(&assigned) {
            stream.want(assigned.a.config.clone());
            stream.look_at_notes();
        }
        if handle.members().0.is_empty() && (spent.is_some() || self.may_have_had(&assigned.a)) {
            // Its members have no reason to ask for it: they take it for the one that they know, who has nothing to say.
            let others = assigned.a.members.iter().filter(|n| **n != self.me);
            others.for_each(|n| handle.announce(*n));
            return Kept::Left;
        }
        done(self.keep_members(c, &assigned, &handle).await)
    }

    /// Opens a group beside the keeper.
    fn open_assigned(self: &Arc<JetStream>, assigned: &Arc<Assigned>) {
        let id = assigned.a.id;
        let (me, mut assigned) = (self.clone(), assigned.clone());
        env::spawn(async move {
            let mut there = me.replicas.has(GroupId(id));
            if there && me.replicas.is_orphan(GroupId(id)).await && me.goes_on_elsewhere(&assigned.a).await {
                // Its log could be kept, but nobody knows what it was: it comes back with nothing, as somebody else.
                there = me.replicas.remove(GroupId(id)).await.is_err();
            }
            if !there {
                match me.still_assigned(id).await {
                    Some(now) => assigned = now,
                    None => {
                        // Nobody leads the meta group yet, or the group is not for this node after all.
                        env::sleep(AGAIN).await;
                        me.opening.lock().remove(&id);
                        if let Some(c) = &me.cluster {
                            c.look_at(id);
                        }
                        return;
                    }
                }
            }
            let label = format!("{} > {}", assigned.a.account, assigned.a.name);
            let mut a = assigned.a.clone();
            if !there && me.may_have_had(&a) {
                a.left.push(me.me);
            }
            match me.open_group(a, there).await {
                Ok(stream) => {
                    stream.want(assigned.a.config.clone());
                    me.faults.lock().remove(&label);
                }
                Err(e) => {
                    let said = me.faults.lock().insert(label.clone(), e.clone());
                    if said.as_ref() != Some(&e) {
                        me.host.log("ERR", &format!("JetStream stream '{label}' could not be opened: {e}"));
                    }
                    // What the disk refuses now it may do later, but not in the next moment.
                    env::sleep(AGAIN * 10).await;
                }
            }
            me.opening.lock().remove(&id);
            if let Some(c) = &me.cluster {
                c.look_at(id);
            }
        });
    }

    /// What is assigned once this node's view of the meta group is not older than its own life. K-5: after a start the log is applied again, and on the
    /// way it says of groups that this node has left since that they are to be made. A replica made of such a word would have forgotten what it
    /// once acknowledged, and could make a leader together with others like it.
    pub(super) async fn still_assigned(self: &Arc<JetStream>, id: u64) -> Option<Arc<Assigned>> {
        if !self.is_current().await {
            return None;
        }
        self.meta.read(|s| {
            let out = s.is_out(id, self.me);
            s.get(id).filter(|a| !out && a.a.concerns(self.me)).cloned()
        })
    }

    /// Whether this node's view of the meta group is not older than its own life, and than that of the replica from which it has it. Waits a moment for it.
    async fn is_current(&self) -> bool {
        let life = self.meta.life();
        if self.current.load(Acquire) == life {
            return true;
        }
        let Some(handle) = self.meta.handle() else { return false };
        let Ok(Ok(_)) = env::timeout(CURRENT, handle.read_barrier()).await else { return false };
        if self.suspect.load(Acquire) == u64::MAX && !self.name_suspects().await {
            return false;
        }
        self.current.fetch_max(life, AcqRel);
        self.meta.life() == life
    }

    /// Changes what is noted of this node and its group, durably.
    async fn note(&self, change: impl FnOnce(&mut Saved)) -> Result<(), String> {
        let _one = self.noting.lock().await;
        let (disk, dir) = (env::disk::Disk::os(), &self.options.dir);
        let mut saved = identity::formation(&disk, dir).await?;
        let before = saved.clone();
        change(&mut saved);
        if saved == before { Ok(()) } else { identity::save_formation(&disk, dir, &saved).await }
    }

    /// Rounds of the journal are gone: notes which groups this node may have had, all that there are now, since the life that lost them may have ended before it
    /// made them anew; and that numbers of replicas are passed over for them (D-9), which the next life does not know to do.
    async fn name_suspects(&self) -> bool {
        let noted = async {
            self.replicas.settle_numbers().await.map_err(|e| e.to_string())?;
            // In this order: what the rounds have is of no later group.
            let told =
                self.replicas.store().synced_rounds().into_iter().map(|(j, round)| (j, round.0)).collect();
            let last = self.meta.read(|s| s.last_id);
            self.note(|saved| (saved.lost, saved.lost_upto, saved.told) = (false, last, told)).await?;
            Ok::<_, String>(last)
        };
        match noted.await {
            Ok(last) => self.suspect.store(last, Release),
            Err(e) => {
                self.host.log("ERR", &format!("JetStream: which groups may be lost could not be noted: {e}"))
            }
        }
        self.suspect.load(Acquire) != u64::MAX
    }

    /// Whether this node may have been a member of a group that it does not have: it has lost a part of its journal, in this life or an earlier one, and
    /// the group is older than that. K-5: it is made as one that comes later then, since what it acknowledged and voted for is forgotten. A group that has no
    /// other members has lost everything, and begins again.
    fn may_have_had(&self, a: &Assignment) -> bool {
        a.id <= self.suspect.load(Acquire) && a.members.len() > 1
    }

    /// Whether another member of a group has more of it than its beginning.
    async fn goes_on_elsewhere(self: &Arc<JetStream>, a: &Assignment) -> bool {
        let Some(c) = &self.cluster else { return false };
        for n in a.members.iter().filter(|n| **n != self.me && c.is_up(**n)) {
            let left = self.left_at(c, *n, &[a.id]).await.unwrap_or_default();
            if left.iter().any(|l| l.last.1 > 1) {
                return true;
            }
        }
        false
    }

    /// Removes what this node has of a group: it is out of it (K-5), or was left behind. Whether it is gone.
    async fn drop_group(self: &Arc<JetStream>, id: u64) -> bool {
        if self.opening.lock().contains(&id) {
            return false;
        }
        if let Some(stream) = self.stream_by_id(id) {
            if let Some(assets) = stream.assets.upgrade() {
                if stream.leads() && self.meta.read(|s| s.get(id).is_none()) {
                    advisory::consumers_gone(self, &assets, &stream);
                }
                assets.remove(&stream);
            }
            stream.retire();
        }
        if self.replicas.has(GroupId(id))
            && let Err(e) = self.replicas.remove(GroupId(id)).await
        {
            self.host.log("ERR", &format!("JetStream: group {id} could not be removed: {e}"));
            return false;
        }
        true
    }

    /// The leader of a group brings its members to what is assigned.
    async fn keep_members(
        self: &Arc<JetStream>,
        c: &Cluster,
        assigned: &Arc<Assigned>,
        handle: &replica::Handle,
    ) -> bool {
        let a = &assigned.a;
        let (voters, learners) = handle.members();
        let wanted: BTreeSet<NodeId> = a.members.iter().copied().collect();
        let there = learners.is_empty() && voters.iter().copied().collect::<BTreeSet<_>>() == wanted;
        if there && a.leaving.is_empty() {
            return true;
        }
        if !handle.status().settled {
            return false;
        }
        let removed: Vec<NodeId> =
            self.meta.read(|s| a.members.iter().copied().filter(|n| s.is_removed(*n)).collect());
        let target: Vec<NodeId> = a.members.iter().copied().filter(|n| !removed.contains(n)).collect();
        match handle.step_towards(&target) {
            Ok(Reach::Done) => {
                let nodes = a.leaving.clone();
                // For those who wait for the members. The keeper itself is not stirred: while nobody leads the meta group it would turn without a pause.
                c.tell();
                nodes.is_empty() || self.change_meta(&Command::Out { id: a.id, nodes }).await.is_ok()
            }
            Ok(Reach::Asking(nodes)) => {
                self.renew_left_behind(a.id, handle, &nodes).await;
                false
            }
            Ok(_) => false,
            Err(e) => {
                tracing::debug!(group = a.id, "members: {e}");
                false
            }
        }
    }

    /// Who was wanted again after the group had left it behind and before its node was told to leave still has the replica that left. It can never be a
    /// member again, and nobody would tell it to go: that is done here.
    async fn renew_left_behind(&self, id: u64, handle: &replica::Handle, nodes: &[NodeId]) {
        for replica in nodes.iter().filter_map(|n| handle.left_behind(*n)) {
            self.spend(id, replica).await;
        }
    }

    /// A replica can never count again: its node is to remove it and to come as another life. Said once, and only when all nodes read it.
    async fn spend(&self, id: u64, replica: NodeId) {
        let is_news = self.meta.read(|s| {
            let known = s.spent(id, replica).is_some_and(|life| life >= replica.incarnation);
            !known && s.nodes().values().all(|n| n.format >= SPENDS)
        });
        if is_news && let Err(e) = self.change_meta(&Command::Spent { id, replica }).await {
            tracing::debug!(group = id, "a replica that is spent: {e:?}");
        }
    }

    /// Puts a command into the meta group's log, wherever that is led.
    ///
    /// # Errors
    /// See [`NotAssigned`].
    pub(crate) async fn change_meta(&self, command: &Command) -> Result<u64, NotAssigned> {
        match self.meta.begin(command).done().await {
            Err(NotAssigned::NotLeader(_)) => {}
            done => return done,
        }
        let leader = self.meta.leader(self.me).filter(|n| *n != self.me);
        let (Some(c), Some(leader)) = (&self.cluster, leader) else {
            return Err(NotAssigned::NotLeader(leader));
        };
        let call = Call::Propose(command.encode());
        match c.calls.call(&*c.wires, leader, &call, PATIENCE).await {
            Some(Reply::Done(n)) => Ok(n),
            Some(Reply::Refused(why)) => Err(NotAssigned::Refused(why)),
            Some(Reply::Elsewhere(n)) => Err(NotAssigned::NotLeader(n)),
            _ => Err(NotAssigned::Open),
        }
    }
}
