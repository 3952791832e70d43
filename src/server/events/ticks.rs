//! What is done by the clock: statistics, accounts' connections, requests without an answer.

use std::{
    sync::{Weak, atomic::Ordering::*},
    time::Duration,
};

use broker::Deliveries;

use super::{account_changed, statistics};
use crate::Server;

/// How often the clock is looked at: also the least time between statistics that are asked for.
const TICK: Duration = Duration::from_secs(1);
/// Time between statistics; the first come sooner, doubling up to this.
const STATISTICS: Duration = Duration::from_secs(10);
/// Time between events about the connections of an account where nothing changes.
const CONNECTIONS: Duration = Duration::from_secs(30);

/// Runs until the server is gone or stops.
pub(super) async fn run(server: Weak<Server>) {
    let Some(stopped) = server.upgrade().map(|s| s.stopped()) else { return };
    let mut stopped = std::pin::pin!(stopped);
    let mut interval = TICK;
    let mut statistics_due = env::now() + TICK;
    let mut connections_due = env::now() + CONNECTIONS;
    loop {
        env::select! {
            _ = &mut stopped => return,
            _ = env::sleep(TICK) => {}
        }
        let Some(server) = server.upgrade() else { return };
        let now = env::now();
        if server.events.statsz_wanted.swap(false, Relaxed) || statistics_due <= now {
            statistics(&server);
            statistics_due = now + interval;
            interval = (interval * 2).min(STATISTICS);
        }
        let again = connections_due <= now;
        if again {
            connections_due = now + CONNECTIONS;
        }
        for account in server.broker.accounts() {
            if account.waiting_requests() > 0 {
                let mut d = Deliveries::new(server.broker.clone(), now.0);
                account.sweep(&server.broker, &mut d, now);
            }
            if again && account.connections() > 0 {
                account_changed(&server, &account.name);
            }
        }
    }
}
