//! What is told of leaders: advisories, lines in the log.

use std::{cell::LazyCell, sync::Arc, time::Duration};

use replica::{GroupId, Role};

use crate::{JetStream, advisory, api::event::Event, leading::Standing, shell::Stream};

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
        let leader = self.host.name();
        let of_stream = |replicas| Event::StreamLeader {
            account: &assets.account.name,
            stream: &s.name,
            leader: &leader,
            replicas,
        };
        if assets.posts.has_interest(of_stream(&[]).subject().as_bytes()) {
            advisory::emit(self, &assets, &of_stream(&replicas));
        }
        // A consumer's leader is its stream's.
        let names = s.core.lock().consumers.names();
        for consumer in &names {
            let of_consumer = |replicas| Event::ConsumerLeader {
                account: &assets.account.name,
                who: crate::api::event::Who { stream: &s.name, consumer },
                leader: &leader,
                replicas,
            };
            if assets.posts.has_interest(of_consumer(&[]).subject().as_bytes()) {
                advisory::emit(self, &assets, &of_consumer(&replicas));
            }
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
        let replicas = self.peers_of(&handle, &voters, None);
        let e =
            Event::StreamQuorumLost { account: &assets.account.name, stream: &s.name, replicas: &replicas };
        advisory::emit(self, &assets, &e);
    }
}
