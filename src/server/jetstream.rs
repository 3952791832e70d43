//! The engine of JetStream within the server: from options to its settings, its start and end, its lines in the log.

use std::{collections::BTreeSet, path::PathBuf, sync::Arc, sync::Weak, time::Duration};

use broker::{Account, Link};
use bytes::Bytes;
use env::disk::Disk;
use jetstream::{
    AccountLimits, AssetLimits, Cipher, ClientInfo, Durability, Host, JetStream, Key, Keys, Tunable,
    cluster::{Kind, Setup},
};
use replica::NodeId;

use crate::{
    Server,
    cluster::peers,
    files,
    options::{
        AccountJetStream, Change, Flags, JetStreamOptions, Options, Secret, ServerUrl, StoreCipher,
        SyncInterval, load,
    },
    settings::GLOBAL_ACCOUNT,
    start::API_LEVEL,
    store_dir,
};

/// The share of the machine's memory, and of the free disk, that streams may use where nothing is configured.
const SHARE: (u64, u64) = (3, 4);

/// Said with a refusal for want of a key.
const KEY_HINT: &str =
    ": nothing was changed; name it as jetstream.key, or as jetstream.prev_key with a new jetstream.key";

/// How long a reload waits for what a stopped engine still does.
const LET_GO_MAX: Duration = Duration::from_secs(2);

/// The server as the engine sees it.
struct Seen(Weak<Server>);

impl Host for Seen {
    fn name(&self) -> String {
        self.0.upgrade().map(|s| s.name.clone()).unwrap_or_default()
    }
    fn id(&self) -> String {
        self.0.upgrade().map(|s| s.id().to_string()).unwrap_or_default()
    }
    fn cluster(&self) -> String {
        let cluster = |s: Arc<Server>| s.options().cluster.as_ref().and_then(|c| c.name.clone());
        self.0.upgrade().and_then(cluster).unwrap_or_default()
    }
    fn client(&self, link: &Link, account: &str, headers: &[u8]) -> ClientInfo {
        match self.0.upgrade() {
            Some(s) => crate::events::client_of(&s, link, account, headers),
            None => ClientInfo::default(),
        }
    }
    fn system_account(&self) -> String {
        let name = |s: Arc<Server>| crate::settings::system_account(&s.options());
        self.0.upgrade().and_then(name).unwrap_or_default()
    }
    fn log(&self, level: &'static str, text: &str) {
        if let Some(s) = self.0.upgrade() {
            s.log.line(level, format_args!("{text}"));
        }
    }
}

/// The engine as the links see it.
struct Links(Weak<JetStream>);

impl peers::Receiver for Links {
    fn peer_up(&self, node: NodeId, name: &str) {
        if let Some(js) = self.0.upgrade() {
            js.peer_up(node, name);
        }
    }
    fn peer_down(&self, node: NodeId) {
        if let Some(js) = self.0.upgrade() {
            js.peer_down(node);
        }
    }
    fn received(&self, from: NodeId, kind: Kind, body: Bytes) {
        if let Some(js) = self.0.upgrade() {
            js.received(from, kind, body);
        }
    }
}

/// What makes the engine one of several, if the server is a member of a cluster.
fn setup(server: &Server, o: &Options, j: &JetStreamOptions) -> Option<Setup> {
    let c = o.cluster.as_ref().filter(|_| crate::cluster::is_on(o))?;
    // A configuration that all members share names this one too.
    let own = |u: &ServerUrl| u.port == Some(c.port) && (u.host == c.host || is_here(&u.host, &c.host));
    let others: BTreeSet<String> =
        c.routes.iter().filter(|u| !own(u)).map(|u| format!("{}:{:?}", u.host, u.port)).collect();
    Some(Setup {
        wires: server.cluster.peers.clone(),
        name: c.name.clone().unwrap_or_default(),
        others: others.len(),
        tags: o.server_tags.iter().cloned().collect(),
        unique_tag: j.unique_tag.clone().unwrap_or_default(),
    })
}

/// Whether a host of a URL is this machine, where the listener takes all of its addresses.
fn is_here(host: &str, listens: &str) -> bool {
    let everywhere = matches!(listens, "" | "0.0.0.0" | "::" | "localhost" | "127.0.0.1");
    everywhere && matches!(host, "localhost" | "127.0.0.1" | "::1" | "0.0.0.0" | "")
}

/// Where the data lies.
pub fn data_dir(j: &JetStreamOptions) -> PathBuf {
    let base = match &j.store_dir {
        Some(dir) => PathBuf::from(dir),
        None => std::env::temp_dir().join("nats"),
    };
    // As Go's cleaning: what stands for the same place is not shown.
    base.join("jetstream").components().filter(|c| *c != std::path::Component::CurDir).collect()
}

fn limits(j: &JetStreamOptions) -> AssetLimits {
    let none = AssetLimits::default();
    let l = &j.limits;
    let count =
        |n: Option<i64>, d: usize| n.and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0).unwrap_or(d);
    AssetLimits {
        max_ack_pending: l.max_ack_pending.filter(|n| *n > 0),
        max_request_batch: l.max_request_batch.filter(|n| *n > 0),
        max_ha_assets: l.max_ha_assets.filter(|n| *n > 0),
        duplicate_window: l.duplicate_window.filter(|d| !d.is_zero()),
        default_max_consumers: l.default_max_consumers.or(none.default_max_consumers).filter(|n| *n > 0),
        batch_inflight_per_stream: count(l.batch_max_inflight_per_stream, none.batch_inflight_per_stream),
        batch_inflight: count(l.batch_max_inflight_total, none.batch_inflight),
        batch_messages: count(l.batch_max_messages, none.batch_messages),
        batch_timeout: l.batch_timeout.filter(|d| !d.is_zero()).unwrap_or(none.batch_timeout),
    }
}

/// The keys of the data at rest that a configuration names, for tools that look at the data.
///
/// # Errors
/// What is wrong with the configuration.
pub async fn store_keys(config: &str) -> Result<Keys, String> {
    let flags = Flags::parse(&["-c", config])?;
    let loaded = files::with_files(|source| load(&flags, source)).await.map_err(|e| e.join("\n"))?;
    Ok(loaded.options.jetstream.as_ref().map(keys).unwrap_or_default())
}

/// The first key seals; what an earlier key, or the same one with the other cipher, has sealed can still be read.
fn keys(j: &JetStreamOptions) -> Keys {
    let there = |s: &&Secret| !s.reveal().is_empty();
    let Some(key) = j.key.as_ref().filter(there) else { return Keys::default() };
    let (now, before) = match j.cipher {
        StoreCipher::ChaCha => (Cipher::ChaCha, Cipher::Aes),
        StoreCipher::Aes => (Cipher::Aes, Cipher::ChaCha),
    };
    let secrets = [Some(key), j.previous_key.as_ref().filter(there)];
    let both = |s: &Secret| [now, before].map(|c| Key::new(c, s.reveal().as_bytes()));
    Keys(secrets.into_iter().flatten().flat_map(both).collect())
}

async fn settings(o: &Options, j: &JetStreamOptions) -> Result<jetstream::Options, String> {
    let dir = data_dir(j);
    let disk = Disk::os();
    disk.create_dir_all(&dir)
        .await
        .map_err(|e| format!("Can't start JetStream: could not create storage directory - {e}"))?;
    let free = disk.space(&dir).await.map(|s| s.free).unwrap_or(u64::MAX / SHARE.0);
    let share = |n: u64| n / SHARE.1 * SHARE.0;
    let or = |n: i64, d: usize| usize::try_from(n).ok().filter(|n| *n > 0).unwrap_or(d);
    Ok(jetstream::Options {
        dir,
        strict: j.strict,
        tunable: Tunable {
            memory_max: j.max_memory.unwrap_or_else(|| share(env::process::memory_total())),
            storage_max: j.max_file.unwrap_or_else(|| share(free)),
            limits: limits(j),
        },
        domain: j.domain.clone(),
        durability: match j.sync_interval {
            None | Some(SyncInterval::Always) => Durability::Durable,
            Some(SyncInterval::Every(d)) => Durability::Relaxed(d),
        },
        keys: keys(j),
        waiting_msgs_max: or(j.max_buffered_msgs, 100_000),
        waiting_bytes_max: or(j.max_buffered_size, 128 << 20),
        requests_max: or(j.request_queue_limit, 10_000),
        payload_max: o.max_payload,
    })
}

/// What accounts are promised by their limits must be there, all of it at a time; with several servers it may be elsewhere.
fn promised(o: &Options, t: &Tunable) -> Result<(), String> {
    let sum = |of: fn(&AccountJetStream) -> Option<i64>| -> u64 {
        let limits = o.accounts.iter().filter_map(|a| a.jetstream.as_ref()).filter_map(of);
        limits.filter_map(|n| u64::try_from(n).ok()).fold(0, u64::saturating_add)
    };
    let refused = if sum(|a| a.max_memory) > t.memory_max {
        "insufficient memory resources available (10028)"
    } else if sum(|a| a.max_store) > t.storage_max {
        "insufficient storage resources available (10047)"
    } else {
        return Ok(());
    };
    Err(format!("Can't start JetStream: Error enabling jetstream on configured accounts: {refused}"))
}

/// Opens the data and begins to serve. Once, before clients come.
///
/// # Errors
/// Sentences for the log.
pub async fn start(server: &Arc<Server>, o: &Options) -> Result<(), String> {
    let Some(j) = &o.jetstream else { return Ok(()) };
    let base = data_dir(j);
    let base = base.parent().unwrap_or(&base).to_string_lossy().into_owned();
    store_dir::check(&base).await?;
    let log = &server.log;
    let began = env::now();
    log.info(format_args!("Starting JetStream"));
    let settings = settings(o, j).await?;
    log.info(format_args!("---------------- JETSTREAM ----------------"));
    log.info(format_args!("  Strict:          {}", settings.strict));
    log.info(format_args!("  Max Memory:      {}", size(settings.tunable.memory_max)));
    log.info(format_args!("  Max Storage:     {}", size(settings.tunable.storage_max)));
    log.info(format_args!("  Store Directory: \"{}\"", settings.dir.display()));
    if let Some(d) = &settings.domain {
        log.info(format_args!("  Domain:          {d}"));
    }
    log.info(format_args!("  API Level:       {API_LEVEL}"));
    if !settings.keys.0.is_empty() {
        let cipher = match j.cipher {
            StoreCipher::ChaCha => "ChaCha20-Poly1305",
            StoreCipher::Aes => "AES-GCM",
        };
        log.info(format_args!("  Encryption:      {cipher}"));
    }
    match settings.durability {
        Durability::Durable => log.info(format_args!("  Acknowledged:    when durable")),
        Durability::Relaxed(d) => log.info(format_args!(
            "  Acknowledged:    before it is durable (sync_interval {})",
            crate::options::span(d)
        )),
    }
    log.info(format_args!("-------------------------------------------"));
    if j.store_dir.is_none() {
        log.warn(format_args!("Temporary storage directory used, data could be lost on system reboot"));
    }
    let host = Arc::new(Seen(Arc::downgrade(server)));
    let setup = setup(server, o, j);
    if setup.is_none() {
        promised(o, &settings.tunable)?;
    } else {
        log.info(format_args!("Starting JetStream cluster"));
    }
    let engine = JetStream::open(server.broker.clone(), settings, host, setup).await.map_err(|e| {
        let hint = if e.contains(jetstream::KEY_ABSENT) { KEY_HINT } else { "" };
        format!("Can't start JetStream: {e}{hint}")
    })?;
    *server.jetstream.write() = Some(engine.clone());
    if let Some(name) = crate::settings::system_account(o) {
        engine.serve_system(&server.broker.account_or_new(&name));
    }
    if engine.is_clustered() {
        peers::start(server, engine.node_id(), Arc::new(Links(Arc::downgrade(&engine))));
    }
    for account in server.broker.accounts() {
        account_made(server, &account);
    }
    log.info(format_args!("Took {} to start JetStream", took(began.elapsed())));
    Ok(())
}

/// Takes over what a reload has changed: limits, and whether there is JetStream at all. The new options are the server's already.
pub async fn reloaded(server: &Arc<Server>, changes: &[Change]) {
    let o = server.options();
    if changes.contains(&Change::JetStreamOff) {
        let engine = server.jetstream.read().as_ref().map(Arc::downgrade);
        stop(server).await;
        // Who turns it on again finds the directory free.
        let until = env::now() + LET_GO_MAX;
        while engine.as_ref().is_some_and(|e| e.strong_count() > 0) && env::now() < until {
            env::sleep(Duration::from_millis(1)).await;
        }
    }
    if changes.contains(&Change::JetStreamOn) {
        server.log.info(format_args!("Restarting JetStream"));
        if let Err(e) = start(server, &o).await {
            server.log.error(format_args!("{e}"));
        }
        return;
    }
    let engine = server.jetstream.read().clone();
    if let (Some(engine), Some(j)) = (engine, &o.jetstream) {
        let old = engine.tunable();
        let new = Tunable {
            memory_max: j.max_memory.unwrap_or(old.memory_max),
            storage_max: j.max_file.unwrap_or(old.storage_max),
            limits: limits(j),
        };
        if new != old {
            engine.tune(new);
        }
    }
}

/// There is an account: JetStream is on for it, or says that it is not.
pub fn account_made(server: &Arc<Server>, account: &Arc<Account>) {
    let Some(engine) = server.jetstream.read().clone() else { return };
    let o = server.options();
    if crate::settings::system_account(&o).as_deref() == Some(&*account.name) {
        // Its requests are operators', and have a desk of their own.
        return;
    }
    engine.set_account(account, account_limits(&o, &account.name));
}

/// Limits of an account; `None` if JetStream is off for it.
fn account_limits(o: &Options, name: &str) -> Option<AccountLimits> {
    if name == GLOBAL_ACCOUNT {
        return crate::settings::has_global_account_only(o).then(AccountLimits::default);
    }
    let account = o.accounts.iter().find(|a| a.name == name)?;
    account.jetstream.as_ref().map(limits_of)
}

fn limits_of(a: &AccountJetStream) -> AccountLimits {
    let or = |n: Option<i64>| n.unwrap_or(-1);
    AccountLimits {
        max_memory: or(a.max_memory),
        max_store: or(a.max_store),
        max_streams: or(a.max_streams),
        max_consumers: or(a.max_consumers),
        max_ack_pending: or(a.max_ack_pending),
        memory_max_stream_bytes: or(a.memory_max_stream_bytes),
        store_max_stream_bytes: or(a.store_max_stream_bytes),
        max_bytes_required: a.max_bytes_required,
    }
}

/// Others lead from now on what this server leads; it serves on.
pub async fn leave(server: &Server) {
    let engine = server.jetstream.read().clone();
    if let Some(engine) = engine {
        engine.leave().await;
    }
}

/// Hands over what this server leads, while it still serves.
pub async fn hand_over(server: &Server) {
    let engine = server.jetstream.read().clone();
    if let Some(engine) = engine {
        engine.hand_over().await;
    }
}

/// Tells those who wait for messages that the server shuts down, while they can still hear it.
pub fn farewell(server: &Server) {
    let engine = server.jetstream.read().clone();
    if let Some(engine) = engine {
        engine.farewell();
    }
}

/// Ends the engine: what is acknowledged is on disk when it returns.
pub async fn stop(server: &Server) {
    let engine = server.jetstream.write().take();
    if let Some(engine) = engine {
        server.log.info(format_args!("Initiating JetStream Shutdown..."));
        engine.close().await;
        server.log.info(format_args!("JetStream Shutdown"));
    }
}

/// A size as nats-server prints it: two digits after the point, in steps of 1024.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.2} {}", UNITS[unit])
}

fn took(d: Duration) -> String {
    crate::options::span(d)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_promised_no_more_than_there_is() {
        let of = |max_memory, max_store| crate::options::AccountOptions {
            jetstream: Some(AccountJetStream { max_memory, max_store, ..AccountJetStream::default() }),
            ..Default::default()
        };
        let there = Tunable { memory_max: 10, storage_max: 20, limits: AssetLimits::default() };
        for (accounts, missing) in [
            (vec![of(Some(5), Some(10)), of(Some(5), Some(10)), of(None, Some(-1))], None),
            (vec![of(Some(6), None), of(Some(5), Some(30))], Some("memory resources available (10028)")),
            (vec![of(None, Some(20)), of(None, Some(1))], Some("storage resources available (10047)")),
        ] {
            let refused = promised(&Options { accounts, ..Options::default() }, &there).err();
            assert_eq!(refused.is_some(), missing.is_some(), "{refused:?}");
            assert!(refused.unwrap_or_default().ends_with(missing.unwrap_or_default()));
        }
    }

    #[test]
    fn sizes_read_as_the_peers_do() {
        for (n, text) in
            [(512, "512 B"), (1024, "1.00 KB"), (18_957_376_512, "17.66 GB"), (50_105_020_416, "46.66 GB")]
        {
            assert_eq!(size(n), text);
        }
    }
}
