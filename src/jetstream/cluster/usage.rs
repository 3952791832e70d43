//! What an account's streams hold on other nodes.
//!
//! Owns the asking, which lasts as long as somebody publishes to streams of an account that has limits, and a while longer. Between two questions the account
//! may go beyond its limit by what comes meanwhile. Does not own the limits (`quota`).

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use replica::NodeId;

use super::calls::{Call, Reply};
use crate::{JetStream, account::Assets, shell::Stream};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// Between two questions, if half of what is allowed is used, and if less.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(2));
/// Questions after which nobody has published.
const IDLE_MAX: u32 = 10;

/// What a node holds of an account: in memory, and in files. Numbers of nodes that do not answer stay.
type Held = BTreeMap<NodeId, (u64, u64)>;

impl Stream {
    /// Sees to it that what other nodes hold of its account is known, if that has limits. Before its lock is taken.
    #[inline]
    pub(crate) fn look_around(&self) {
        // Alone there is nobody to ask: then it stays at this one look.
        if self.share.looks()
            && let (Some(node), Some(assets)) = (self.node.upgrade(), self.assets.upgrade())
            && node.is_clustered()
        {
            node.ask_around(&assets);
        }
    }
}

impl JetStream {
    #[cold]
    fn ask_around(self: &Arc<JetStream>, assets: &Arc<Assets>) {
        // Neither is kept from its end between two questions.
        let (node, assets) = (Arc::downgrade(self), Arc::downgrade(assets));
        env::spawn(async move {
            let (mut held, mut idle) = (Held::new(), 0);
            while idle < IDLE_MAX {
                let (Some(n), Some(a)) = (node.upgrade(), assets.upgrade()) else { return };
                if n.is_closed() {
                    return;
                }
                n.ask_what_is_held(&a, &mut held).await;
                let pause = if a.quota.is_filling() { PAUSES.0 } else { PAUSES.1 };
                drop((n, a));
                env::sleep(pause).await;
                let Some(a) = assets.upgrade() else { return };
                idle = if a.quota.takes_look() { 0 } else { idle + 1 };
            }
            if let Some(a) = assets.upgrade() {
                a.quota.forgets();
            }
        });
    }
    async fn ask_what_is_held(&self, assets: &Assets, held: &mut Held) {
        let call = Call::Usage(assets.account.name.clone());
        for (n, reply) in self.ask_all(&call, PATIENCE).await {
            let Reply::Json(b) = reply else { continue };
            if let Ok([memory, file, _]) = serde_json::from_slice::<[u64; 3]>(&b) {
                held.insert(n, (memory, file));
            }
        }
        // Who is out of the cluster counts no more.
        self.meta.read(|s| held.retain(|n, _| s.nodes().contains_key(n)));
        let (memory, file) =
            held.values().fold((0u64, 0u64), |(m, f), h| (m.saturating_add(h.0), f.saturating_add(h.1)));
        assets.quota.heard(memory, file);
    }
}
