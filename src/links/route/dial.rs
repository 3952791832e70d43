//! Who opens connections, and how often it tries.
//!
//! One task for each server of the configuration, and for each that is known by gossip, holds the first connection of the
//! pool. Once that has its place, and a PING over it is answered, further tasks open the rest. A task that finds its place
//! taken waits until it is free. The tasks for the rest end when the first connection is no longer ours. A task stays on one
//! worker, with its connection.
//!
//! A nats-server opens the rest of the pool that it began, but the connections of accounts only to members that it was told of over one. So
//! these are for whoever is told first, as between two nats-servers.

use std::{sync::Arc, sync::atomic::Ordering::*, time::Duration};

use env::net::{TcpStream, resolve};

use super::{
    Mesh, RouteUrl, Slot,
    conn::{self, Dialed, End},
};

/// What a connection may take to be established.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// The wait after a failed attempt.
const RETRY: Duration = Duration::from_secs(1);
/// The longest wait, where waits grow.
const RETRY_MAX: Duration = Duration::from_secs(30);
/// A server that is known by gossip is tried that often, whatever the settings say: members that lost each other come
/// together again though no configuration names them. Waits grow to [`LEARNED_RETRY_MAX`].
const LEARNED_ATTEMPTS: u32 = 60;
/// See [`LEARNED_ATTEMPTS`].
const LEARNED_RETRY_MAX: Duration = Duration::from_secs(10);

/// Whom a task connects to.
#[derive(Clone)]
struct Target {
    url: RouteUrl,
    /// It is in the configuration.
    configured: bool,
    slot: Slot,
    /// The server's id, once it is known.
    id: Option<String>,
    /// It is the connection of an account, and a nats-server that gossip has told of.
    told: bool,
}

/// Begins to connect to a server of the configuration.
pub(super) fn start(mesh: &Arc<Mesh>, url: &RouteUrl) {
    spawn(mesh, Target { url: url.clone(), configured: true, slot: Slot::Pool(0), id: None, told: false });
}

/// Begins to connect to a server that is known by gossip.
pub(super) fn start_learned(mesh: &Arc<Mesh>, mut url: RouteUrl, id: String) {
    url.credentials.clone_from(&mesh.settings().credentials);
    spawn(mesh, Target { url, configured: false, slot: Slot::Pool(0), id: Some(id), told: false });
}

/// Begins to open the connection of an account to a server that is known by gossip.
pub(super) fn start_told(mesh: &Arc<Mesh>, mut url: RouteUrl, id: String, account: Arc<str>) {
    let slot = Slot::Account(account);
    if mesh.begin_dialing(&id, &slot) {
        url.credentials.clone_from(&mesh.settings().credentials);
        spawn(mesh, Target { url, configured: false, slot, id: Some(id), told: true });
    }
}

/// Opens the other connections to a server, the first of which has its place: the rest of the pool, and those of accounts.
pub(super) fn go_on(mesh: &Arc<Mesh>, d: &Dialed, id: &str, pool: u32) {
    let mut rest: Vec<Slot> = (1..pool).map(Slot::Pool).collect();
    if pool > 0 {
        rest.extend(mesh.settings().pinned.iter().map(|a| Slot::Account(a.clone())));
    }
    for slot in rest {
        if mesh.begin_dialing(id, &slot) {
            let (url, id) = (d.url.clone(), Some(id.to_owned()));
            spawn(mesh, Target { url, configured: d.configured, slot, id, told: false });
        }
    }
}

fn spawn(mesh: &Arc<Mesh>, target: Target) {
    let m = mesh.clone();
    mesh.next_worker().spawn(async move {
        match (&target.id, &target.slot) {
            (Some(id), slot) if *slot != Slot::Pool(0) => loop {
                run(&m, target.clone()).await;
                m.end_dialing(id, slot);
                // The first connection may have come back just after this task saw that it was gone.
                if m.stopping.load(Acquire) || !is_ours(&m, &target, id) || !m.begin_dialing(id, slot) {
                    return;
                }
                // Whatever ended it may be so still: others on this worker have their turn.
                pause(&m, &target, 0).await;
            },
            (Some(id), _) if !target.configured => {
                run(&m, target.clone()).await;
                m.unlearn(id);
            }
            _ => run(&m, target).await,
        }
    });
}

/// Whether the first connection to a server is ours, so that the rest is for us to open.
fn leads(mesh: &Mesh, id: &str) -> bool {
    mesh.route(id, &Slot::Pool(0)).is_some_and(|r| r.solicited)
}

/// Whether a connection behind the first is for us to open.
fn is_ours(mesh: &Mesh, t: &Target, id: &str) -> bool {
    leads(mesh, id) || (t.told && mesh.is_foreign(id) == Some(true))
}

async fn run(mesh: &Arc<Mesh>, mut t: Target) {
    let (mut failures, mut ever) = (0u32, false);
    loop {
        if !wait_for_turn(mesh, &t).await {
            return;
        }
        let failed = match connect(&t.url).await {
            Ok((tcp, peer)) => {
                let d = Dialed { url: t.url.clone(), configured: t.configured, slot: t.slot.clone() };
                let end = conn::dialed(mesh.clone(), tcp, peer, d).await;
                match end {
                    End::Own => {
                        mesh.hooks.log("DBG", &format!("Route to {} leads to this server", t.url.address()));
                        return;
                    }
                    End::Registered { id } | End::Duplicate { id } => {
                        t.id = Some(id);
                        (failures, ever) = (0, true);
                        None
                    }
                    End::Refused => Some(None),
                }
            }
            Err(e) => Some(Some(e)),
        };
        if let Some(why) = failed {
            failures = failures.saturating_add(1);
            if let Some(e) = why {
                report(mesh, &t, failures, ever, &e);
            }
            let s = mesh.settings();
            if !t.configured && failures > s.connect_retries.max(LEARNED_ATTEMPTS) {
                return;
            }
        }
        if mesh.stopping.load(Acquire) {
            return;
        }
        pause(mesh, &t, failures).await;
    }
}

/// Waits until the place is free. False if there is no more reason to connect.
async fn wait_for_turn(mesh: &Arc<Mesh>, t: &Target) -> bool {
    loop {
        let changed = mesh.changed.notified();
        let mut changed = std::pin::pin!(changed);
        changed.as_mut().enable();
        if mesh.stopping.load(Acquire) {
            return false;
        }
        let s = mesh.settings();
        // What comes behind the first connection ends with that one, which stays when its server goes from the configuration.
        let first = t.slot == Slot::Pool(0);
        if first && t.configured && !s.urls.iter().any(|u| u.is_same_place(&t.url)) {
            return false;
        }
        if let Some(id) = &t.id {
            if t.told && mesh.is_foreign(id).is_none() {
                // Its first connection may be on its way.
                match env::timeout(CONNECT_TIMEOUT, changed).await {
                    Ok(()) => continue,
                    Err(_) => return false,
                }
            }
            if !first && !is_ours(mesh, t, id) {
                return false;
            }
            if mesh.route(id, &t.slot).is_some_and(|r| r.link.closed().is_none()) {
                changed.await;
                continue;
            }
        }
        return true;
    }
}

async fn connect(url: &RouteUrl) -> Result<(TcpStream, std::net::SocketAddr), String> {
    let timed_out = |_| "i/o timeout".to_owned();
    let addresses = env::timeout(CONNECT_TIMEOUT, resolve(&url.host, url.port))
        .await
        .map_err(timed_out)?
        .map_err(|e| e.to_string())?;
    let mut failed = format!("lookup {}: no such host", url.host);
    for a in addresses {
        match env::timeout(CONNECT_TIMEOUT, TcpStream::connect(a)).await {
            Ok(Ok(tcp)) => return Ok((tcp, a)),
            Ok(Err(e)) => failed = format!("dial tcp {a}: {e}"),
            Err(_) => failed = format!("dial tcp {a}: i/o timeout"),
        }
    }
    Err(failed)
}

/// One attempt in many is an error in the log; the others are of use in debugging alone.
fn report(mesh: &Mesh, t: &Target, failures: u32, ever: bool, why: &str) {
    let s = mesh.settings();
    let every = if ever { s.reconnect_error_reports } else { s.connect_error_reports }.max(1);
    let level = if failures == 1 || failures.is_multiple_of(every) { "ERR" } else { "DBG" };
    let text = format!("Error trying to connect to route {} (attempt {failures}): {why}", t.url.address());
    mesh.hooks.log(level, &text);
}

async fn pause(mesh: &Mesh, t: &Target, failures: u32) {
    let s = mesh.settings();
    let doubled = |max: Duration| (RETRY * (1 << failures.saturating_sub(1).min(5))).min(max);
    let wait = match (t.configured, s.connect_backoff) {
        (true, false) => RETRY,
        (true, true) => doubled(RETRY_MAX),
        (false, true) => doubled(RETRY_MAX),
        (false, false) => doubled(LEARNED_RETRY_MAX),
    };
    // Two servers that lost each other do not come back at the same moment.
    let wait = wait + Duration::from_millis(mesh.random(100));
    let until = env::now() + wait;
    while env::now() < until && !mesh.stopping.load(Acquire) {
        env::select! {
            _ = env::sleep_until(until) => {}
            _ = mesh.changed.notified() => {}
        }
    }
}
