//! Streams that come out of backups: the assignments around a restore.
//!
//! Owns the beginning (a stream that takes nothing), the end (its configuration) and the removal of what was not finished. The messages in between
//! are `backup`'s.

use std::sync::Arc;

use bytes::Bytes;
use stream::{ApiError, config::StreamConfig, errors};

use super::{
    Desk, info,
    streams::{Others, not_assigned},
};
use crate::{
    JetStream, advisory,
    api::response::{StreamCreated, StreamInfo},
    meta::{Assignment, Command},
};

impl Desk<'_> {
    /// Makes the stream that a backup is restored into. `c` is filled in.
    pub(crate) async fn begin_restore(&self, c: &mut StreamConfig) -> Result<Assignment, ApiError> {
        let (limits, server) = self.limits_for(c.storage);
        c.metadata.remove(stream::config::RESTORING);
        c.check_existing(&server, &Others(self), false)?;
        let _one = self.assets.making.turn(&c.name).await;
        if self.assigned(&c.name).is_some() {
            return Err(errors::STREAM_NAME_EXIST_RESTORE_FAILED.error());
        }
        let members = self.admit(c, &limits)?;
        let hold = self.node.restores.hold(&self.assets.account.name, &c.name);
        let (a, assigned) = self.begin_stream(&c.while_restoring(), members).await?;
        self.make_stream(&a, assigned).await?;
        if let Err(e) = self.settled(&a).await {
            drop(hold);
            self.node.end_abandoned_restores().await;
            return Err(e);
        }
        hold.keep();
        Ok(a)
    }

    /// Gives the stream its configuration: from now on it is one as any other.
    pub(crate) async fn end_restore(
        &self,
        a: &Assignment,
        c: &StreamConfig,
    ) -> Result<StreamCreated, ApiError> {
        let _one = self.assets.making.turn(&a.name).await;
        let there = self.assigned(&a.name).filter(|t| t.a.id == a.id);
        let there = there.ok_or_else(|| errors::STREAM_NOT_FOUND.error())?;
        self.fits(c)?;
        let config: Bytes = serde_json::to_vec(c).map_err(|e| errors::STREAM_RESTORE.with(e))?.into();
        let a = Assignment { config: config.clone(), ..there.a.clone() };
        let update = Command::Update { id: a.id, config, members: a.members.clone() };
        let assigned = self.node.meta.begin(&update).done().await;
        assigned.map_err(|e| not_assigned(e, errors::STREAM_RESTORE))?;
        let info: StreamInfo = self.settled(&a).await?;
        advisory::stream_action(self.node, self.assets, &a.name, advisory::Action::Create);
        Ok(StreamCreated { info: info::dressed(info), did_create: false })
    }
}

impl JetStream {
    /// Deletes streams into which a backup was being restored by somebody who is gone (J-26). Only the leader of the assignments can; and only it
    /// restores, so what it does not know of is nobody's.
    pub(crate) async fn end_abandoned_restores(self: &Arc<JetStream>) {
        if !self.meta.leads() {
            return;
        }
        let left: Vec<_> = self.meta.read(|s| {
            s.restoring().filter(|a| !self.restores.holds(&a.a.account, &a.a.name)).cloned().collect()
        });
        for a in left {
            let label = format!("'{} > {}'", a.a.account, a.a.name);
            self.host.log("WRN", &format!("The restore of stream {label} was not finished: it is removed"));
            self.meta.begin(&Command::Delete(a.a.id)).done().await.ok();
            let Some(s) = self.stream_of(&a).filter(|_| !self.is_clustered()) else { continue };
            if let Some(assets) = self.account(&a.a.account) {
                assets.remove(&s);
            }
            s.retire();
            if self.replicas.remove(replica::GroupId(a.a.id)).await.is_ok() {
                self.gone(a.a.id);
            }
        }
    }
}
