//! What is told of leaders: advisories, lines in the log.

use std::{cell::LazyCell, sync::Arc, time::Duration};

use replica::{GroupId, Role};

use crate::{
    JetStream,
    account::Assets,
    advisory,
    api::{
        event::{Event, Who},
        response::PeerInfo,
    },
    leading::Standing,
    shell::Stream,
};

/// A group that has been without a leader for that long is told of.
const QUORUM_LOST: Duration = Duration::from_secs(10);

impl JetStream {
    /// A stream's part in its group has changed.
    pub(crate) fn stood(self: &Arc<JetStream>, s: &Arc<Stream>, role: &Role) {
        let Some(c) = &self.cluster else { return };
        match role {
            Role::Leader { .. } => {
                // Its members may not be what is assigned.
                c.look_at(s.id);
                self.tell_leader(s);
            }
            Role::Follower { leader: None, .. } => {
                c.touch();
                let (me, s) = (Arc::downgrade(self), Arc::downgrade(s));
                env::spawn(async move {
                    env::sleep(QUORUM_LOST).await;
                    if let (Some(me), Some(s)) = (me.upgrade(), s.upgrade()) {
                        me.tell_quorum_lost(&s);
                    }
                });
            }
            // It may be one that comes back as another life.
            Role::Stopped(_) => c.look_at(s.id),
            Role::Follower { .. } => c.touch(),
        }
    }

    fn tell_leader(&self, s: &Arc<Stream>) {
        let Some(assets) = s.assets.upgrade() else { return };
        let Some(handle) = self.replicas.get(GroupId(s.id)) else { return };
        let text = format!("JetStream cluster new stream leader for '{} > {}'", assets.account.name, s.name);
        self.host.log("INF", &text);
        let (voters, _) = handle.members();
        if voters.len() < 2 {
            return;
        }
        // With many streams that change leaders at once it is mostly for nobody.
        let replicas = LazyCell::new(|| self.peers_of(&handle, &voters, None));
        let (account, leader) = (&*assets.account.name, self.host.name());
        self.tell(&assets, &replicas, account, |account, replicas| Event::StreamLeader {
            account,
            stream: &s.name,
            leader: &leader,
            replicas,
        });
        // A consumer's leader is its stream's.
        let names = s.core.lock().consumers.names();
        for consumer in &names {
            self.tell(&assets, &replicas, account, |account, replicas| Event::ConsumerLeader {
                account,
                who: Who { stream: &s.name, consumer },
                leader: &leader,
                replicas,
            });
        }
    }
    /// Tells whoever listens in the account, and in the system account, which hears whose it is.
    fn tell<'e, F: FnOnce() -> Vec<PeerInfo>>(
        &self,
        assets: &Assets,
        replicas: &'e LazyCell<Vec<PeerInfo>, F>,
        account: &'e str,
        of: impl Fn(&'e str, &'e [PeerInfo]) -> Event<'e>,
    ) {
        let subject = of("", &[]).subject();
        if assets.posts.has_interest(subject.as_bytes()) {
            advisory::emit(self, assets, &of("", replicas));
        }
        if self.is_heard_in_system(&subject) {
            self.tell_system(&of(account, replicas));
        }
    }
    /// Tells the system account that this node leads the meta group.
    pub(super) fn tell_meta_leader(&self) {
        let (Some(c), Some(handle)) = (&self.cluster, self.meta.handle()) else { return };
        let (leader, voters) = (self.host.name(), handle.members().0);
        let of = |replicas| Event::DomainLeader { leader: &leader, replicas, cluster: &c.name };
        if self.is_heard_in_system(&of(&[]).subject()) {
            self.tell_system(&of(&self.peers_of(&handle, &voters, None)));
        }
    }

    /// Tells of a group that is still without a leader.
    fn tell_quorum_lost(&self, s: &Arc<Stream>) {
        let age = env::wall().0.saturating_sub(s.stands_since());
        let lost = matches!(s.standing(), Standing::Follows(None))
            && u128::try_from(age).is_ok_and(|a| a >= QUORUM_LOST.as_nanos());
        let (Some(assets), Some(handle)) = (s.assets.upgrade(), self.replicas.get(GroupId(s.id))) else {
            return;
        };
        if !lost || self.is_closed() {
            return;
        }
        let (voters, _) = handle.members();
        let replicas = LazyCell::new(|| self.peers_of(&handle, &voters, None));
        let account = &*assets.account.name;
        self.tell(&assets, &replicas, account, |account, replicas| Event::StreamQuorumLost {
            account,
            stream: &s.name,
            replicas,
        });
        let names = s.core.lock().consumers.names();
        for consumer in &names {
            self.tell(&assets, &replicas, account, |account, replicas| Event::ConsumerQuorumLost {
                account,
                who: Who { stream: &s.name, consumer },
                replicas,
            });
        }
    }
}
