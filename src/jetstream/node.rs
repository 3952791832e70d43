//! The engine of a server: its store, its groups, its accounts.
//!
//! Start reading at [`JetStream::open`].

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::*},
    },
    time::Duration,
};

use broker::{Account, Broker, Counter};
use env::disk::Disk;
use parking_lot::{Mutex, RwLock};
use replica::{BoxFuture, GroupId, Members, New, NodeId, Others, Replicas};
use serde_json::{Value, json};
use store::{Damage, Store, Sync};

use crate::{
    AccountLimits, Durability, Host, Options, Tunable,
    account::Assets,
    advisory::{self, Ids},
    api::event::Event,
    backup::Restores,
    cluster::{self, Cluster, Setup},
    meta::{Assignment, Command, META_GROUP, Meta},
    quota::Quota,
    shell::Stream,
    sources::Followers,
    wheel::Wheel,
};

/// How long the start waits for all groups to have applied their logs. What is slower than that is opened all the same.
const SETTLE_MAX: Duration = Duration::from_secs(60);

/// How long the disk, and then the meta group, may take for a probe, and how long its outcome holds.
const PROBE_MAX: Duration = Duration::from_secs(2);
const PROBE_AGAIN: Duration = Duration::from_secs(1);

/// Streams and consumers of a server.
pub struct JetStream {
    pub(crate) broker: Arc<Broker>,
    pub(crate) options: Options,
    pub(crate) host: Arc<dyn Host>,
    pub(crate) replicas: Replicas,
    pub(crate) meta: Arc<Meta>,
    /// This node, in every group.
    pub(crate) me: NodeId,
    /// The others, if it is one of several.
    pub(crate) cluster: Option<Arc<Cluster>>,
    /// Who takes operators' requests in the system account.
    pub(crate) system_desk: Mutex<Option<Arc<cluster::system::SystemDesk>>>,
    /// Groups that are being opened.
    pub(crate) opening: Mutex<BTreeSet<u64>>,
    /// Groups up to this one that are not here may have been: rounds of the journal are gone. Larger than all while that is not known.
    pub(crate) suspect: AtomicU64,
    /// The meta group has others, or was to get some; durable (`formation`).
    pub(crate) shared: AtomicBool,
    /// For which of the meta group's replicas here everything was applied that was in its log as that began.
    pub(crate) current: AtomicU64,
    /// When it was last asked whether what is applied of the meta group is all of it, and what the answer was: who asked before is answered too.
    pub(crate) heard: tokio::sync::Mutex<(env::Instant, bool)>,
    /// Who changes the file of the formation once there is a group.
    pub(crate) noting: tokio::sync::Mutex<()>,
    /// The highest id of a group that the store had at the start.
    stored_max: u64,
    pub(crate) wheel: Arc<Wheel>,
    accounts: RwLock<BTreeMap<Arc<str>, Arc<Assets>>>,
    /// What all streams store, and may.
    pub(crate) quota: Arc<Quota>,
    tunable: RwLock<Tunable>,
    pub(crate) api_total: Counter,
    pub(crate) api_errors: Counter,
    in_flight: AtomicUsize,
    /// Streams that follow others.
    pub(crate) followers: Followers,
    dropped: AtomicU64,
    closed: AtomicBool,
    /// It is about to go.
    pub(crate) leaving: AtomicBool,
    pub(crate) ids: Mutex<Ids>,
    /// What the last probe found, and when.
    probed: tokio::sync::Mutex<Option<(env::Instant, Result<(), String>)>>,
    /// Backups that are being restored by this node.
    pub(crate) restores: Restores,
    /// Streams that could not be opened, with the reason.
    pub(crate) faults: Mutex<BTreeMap<String, String>>,
}

/// What a question about one asset's health names, and is not here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Absent {
    /// There is no such account, or JetStream is off for it.
    Account,
    /// There is no such stream.
    Stream,
    /// There is no such consumer.
    Consumer,
}

/// Says that a stream is stopped, if it is.
fn stopped(account: &str, s: &Stream) -> Option<String> {
    let why = s.fault()?;
    Some(format!("JetStream stream '{account} > {}' is stopped: {why}", s.name))
}

/// What is used and asked for, over all accounts.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Usage {
    /// Bytes in memory streams.
    pub memory: u64,
    /// Bytes in file streams.
    pub storage: u64,
    /// Bytes that memory streams have set aside with max_bytes.
    pub reserved_memory: u64,
    /// Bytes that file streams have set aside with max_bytes.
    pub reserved_storage: u64,
    /// Accounts with JetStream.
    pub accounts: usize,
    /// Streams.
    pub streams: usize,
    /// Consumers.
    pub consumers: usize,
    /// Messages in all streams.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Requests since the start.
    pub api_total: u64,
    /// Those answered with an error.
    pub api_errors: u64,
}

/// How much `/jsz` wants to know.
#[derive(Clone, Copy, Debug)]
pub struct Detail<'a> {
    /// Only this account; empty for all.
    pub account: &'a str,
    /// With streams.
    pub streams: bool,
    /// With consumers.
    pub consumers: bool,
    /// With configurations.
    pub config: bool,
    /// Only streams that this node leads.
    pub led: bool,
    /// With the names of groups.
    pub groups: bool,
}

/// A place among the requests that are being answered; free again when it is dropped.
pub struct Place(Arc<JetStream>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, AcqRel);
    }
}

impl JetStream {
    /// Opens what is in the directory, or makes it. On a server alone all streams are recovered when it returns; one of several returns at once, and
    /// its groups open as it hears of the others. Nothing is served before [`JetStream::set_account`].
    ///
    /// # Errors
    /// A sentence for the log.
    pub async fn open(
        broker: Arc<Broker>,
        options: Options,
        host: Arc<dyn Host>,
        setup: Option<Setup>,
    ) -> Result<Arc<JetStream>, String> {
        let disk = Disk::os();
        let dir = options.dir.clone();
        disk.create_dir_all(&dir).await.map_err(|e| format!("could not create storage directory - {e}"))?;
        let store =
            Store::open(disk.clone(), &dir, store_options(&options)).await.map_err(|e| e.to_string())?;
        // From here on the directory is this process's alone.
        let me = cluster::identity::node(&disk, &dir, &host.name()).await?;
        JetStream::open_on(store, me, broker, options, host, setup).await
    }

    /// As [`JetStream::open`], on a store that is open.
    pub(crate) async fn open_on(
        store: Store,
        me: NodeId,
        broker: Arc<Broker>,
        options: Options,
        host: Arc<dyn Host>,
        setup: Option<Setup>,
    ) -> Result<Arc<JetStream>, String> {
        let replicas = Replicas::new(store, me, replica::Options::default());
        replicas.spawn();
        let stored = replicas.stored();
        let (mut suspect, mut shared) = (0, false);
        let cluster = match setup {
            None => None,
            Some(setup) => {
                let mut saved = cluster::identity::formation(&Disk::os(), &options.dir).await?;
                let is_stored = stored.contains(&GroupId(META_GROUP));
                let is_there = is_stored && !replicas.is_orphan(GroupId(META_GROUP)).await;
                let before = saved.clone();
                // The store may not know that it has lost something: all of a journal is a journal that never was.
                let found = replicas.store().found_rounds();
                let is_news = found.iter().any(|(j, end, gone)| saved.is_news(*j, end.0, gone.map(|g| g.0)));
                if is_news || (saved.member || is_stored) && !is_there {
                    (saved.lost, saved.forgot) = (true, saved.forgot || !is_there);
                }
                saved.member |= is_there;
                if saved != before {
                    // K-5: durable before anything else, since the next life may not see any more that something is lost.
                    cluster::identity::save_formation(&Disk::os(), &options.dir, &saved).await?;
                }
                let floor = cluster::identity::lives(&Disk::os(), &options.dir).await?;
                let dir = options.dir.clone();
                let keep = move |floor| -> BoxFuture<'static, Result<(), String>> {
                    let dir = dir.clone();
                    Box::pin(async move { cluster::identity::save_lives(&Disk::os(), &dir, floor).await })
                };
                replicas.keep_numbers(floor, saved.lost, Box::new(keep)).await;
                shared = saved.shared;
                suspect = if saved.lost { u64::MAX } else { saved.lost_upto };
                if !is_there && saved.forgot {
                    host.log(
                        "ERR",
                        "JetStream: what this server knew of its cluster is lost with a part of its journal: it joins the cluster again as a new member \
                         when it sees one that has a leader",
                    );
                }
                let genesis = match is_there {
                    true => match cluster::identity::rescued(&Disk::os(), &options.dir).await? {
                        Some(since) => Some(since),
                        None => Some(genesis_of(&replicas)?),
                    },
                    false if saved.forgot || stored.is_empty() => None,
                    false => return Err(no_meta(&stored)),
                };
                let c = Cluster::new(setup, me, saved, genesis);
                replicas.join(Arc::new(cluster::Port(c.clone())));
                Some(c)
            }
        };
        // A server alone has nothing more to note than what its streams say of themselves.
        replicas.store().losses_noted();
        let node = Arc::new(JetStream {
            broker,
            host,
            replicas,
            meta: Arc::new(Meta::default()),
            me,
            cluster,
            system_desk: Mutex::default(),
            opening: Mutex::default(),
            suspect: AtomicU64::new(suspect),
            shared: AtomicBool::new(shared),
            current: AtomicU64::new(0),
            heard: tokio::sync::Mutex::default(),
            noting: tokio::sync::Mutex::default(),
            stored_max: stored.last().map_or(0, |g| g.0),
            wheel: Wheel::new(),
            accounts: RwLock::default(),
            quota: Arc::default(),
            tunable: RwLock::new(options.tunable.clone()),
            options,
            api_total: Counter::default(),
            api_errors: Counter::default(),
            in_flight: AtomicUsize::new(0),
            followers: Followers::default(),
            dropped: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
            ids: Mutex::new(Ids::new()),
            probed: tokio::sync::Mutex::default(),
            restores: Restores::default(),
            faults: Mutex::default(),
        });
        node.tune(node.tunable());
        if node.cluster.is_some() {
            let others: Arc<dyn store::Healer> =
                Arc::new(cluster::healing::OtherMembers::new(Arc::downgrade(&node)));
            node.replicas.store().heal_with(&others);
        }
        node.recover(stored).await?;
        for watch in node.replicas.store().watch_damage() {
            env::spawn(tell_damage(Arc::downgrade(&node), watch));
        }
        Ok(node)
    }

    /// Says that something on the disk is damaged: in the log, and to whoever listens for it in the stream's account.
    fn damaged(&self, d: &Damage) {
        let of = |s: &Arc<Stream>| s.group.get().is_some_and(|g| Some(g.id()) == d.group);
        let found = self.all_assets().into_iter().find_map(|a| Some((a.streams().into_iter().find(of)?, a)));
        let Some((s, assets)) = found else {
            return self.host.log("ERR", &format!("JetStream: damaged: {d}"));
        };
        // The group's number says nothing to whoever reads it.
        let d = Damage { group: None, ..d.clone() };
        self.host.log("ERR", &format!("JetStream stream '{} > {}': damaged: {d}", s.account, s.name));
        let e = Event::StreamDamaged {
            account: &s.account,
            stream: &s.name,
            server: &self.host.name(),
            messages: d.messages.map(|(a, b)| (a.0, b.0)),
            what: &d.what,
        };
        advisory::emit(self, &assets, &e);
    }

    async fn recover(self: &Arc<JetStream>, stored: Vec<GroupId>) -> Result<(), String> {
        let id = GroupId(META_GROUP);
        if self.cluster.as_ref().is_some_and(|c| c.genesis().is_none()) {
            // It is made or joined with others.
        } else if stored.contains(&id) {
            let others = if self.shared.load(Acquire) { Others::Some } else { Others::None };
            let opened = self.replicas.restore_among(id, self.meta_sync(), self.meta.clone(), others).await;
            let (voters, _) = opened.map_err(|e| format!("the meta group: {e}"))?.members();
            if self.cluster.is_none() && voters.iter().any(|n| *n != self.me) {
                return Err(format!(
                    "the data is that of a member of a cluster of {}: it needs a cluster block",
                    voters.len()
                ));
            }
        } else if !stored.is_empty() {
            return Err(no_meta(&stored));
        } else {
            let genesis = env::rng("genesis").next_u64().max(1);
            let made = self.make_meta(genesis, Members::of([self.me])).await;
            made.map_err(|e| format!("the meta group: {e}"))?;
        }
        if self.cluster.is_some() {
            env::spawn(cluster::keeper::keep(Arc::downgrade(self)));
            return Ok(());
        }
        self.meta.settled().await?;
        self.end_abandoned_restores().await;
        self.end_streams_in_memory().await;
        // J-21
        let outs: Vec<u64> = self.meta.read(|s| s.outs().keys().copied().collect());
        for gone in outs {
            if stored.contains(&GroupId(gone)) {
                self.replicas.remove(GroupId(gone)).await.map_err(|e| format!("group {gone}: {e}"))?;
            }
            self.gone(gone);
        }
        let mut opening = Vec::new();
        for a in self.meta.read(|s| s.assignments().cloned().collect::<Vec<_>>()) {
            let node = self.clone();
            let there = stored.contains(&GroupId(a.a.id));
            opening.push(env::spawn(async move {
                let label = format!("{} > {}", a.a.account, a.a.name);
                if let Err(e) = node.open_stream(a.a.clone(), there).await {
                    node.host.log("ERR", &format!("JetStream stream '{label}' could not be opened: {e}"));
                    node.faults.lock().insert(label, e);
                }
            }));
        }
        for task in opening {
            task.await.ok();
        }
        Ok(())
    }

    /// On a server alone a stream in memory ends with the process that held it, with its consumers, as it does with nats-server: whoever needs it makes it anew.
    async fn end_streams_in_memory(&self) {
        if env::planted!("js-memory-streams-stay") {
            return;
        }
        let all: Vec<_> =
            self.meta.read(|s| s.assignments().filter(|a| a.a.is_in_memory()).cloned().collect());
        let begun: Vec<_> = all.iter().map(|a| self.meta.begin(&Command::Delete(a.a.id))).collect();
        for (a, deleted) in all.iter().zip(begun) {
            let label = format!("'{} > {}'", a.a.account, a.a.name);
            let text = match deleted.done().await {
                Ok(_) => format!("JetStream stream {label} was in memory: it is gone with the process"),
                Err(_) => format!("JetStream stream {label} was in memory and could not be removed"),
            };
            self.host.log("INF", &text);
        }
    }

    /// The data of a stream that was deleted is removed. Forgotten if it cannot be noted: the next start finds nothing to remove.
    pub(crate) fn gone(&self, id: u64) {
        drop(self.meta.begin(&Command::Gone { id, node: self.me }));
    }
    /// The highest id of a group that is known to be used, whatever the meta group says.
    pub(crate) fn taken(&self) -> u64 {
        self.stored_max
    }

    /// Makes or restores the group of an assignment. The stream is registered as soon as it has a configuration; its role drives it.
    pub(crate) async fn open_group(
        self: &Arc<JetStream>,
        a: Assignment,
        there: bool,
    ) -> Result<Arc<Stream>, String> {
        let account = self.broker.account_or_new(&a.account);
        let assets = self.assets(&account);
        // A replica of several must not forget what it acknowledged, also where the stream's messages need not outlive a restart of all.
        let memory = a.is_in_memory();
        let sync = self.sync_of(memory);
        let (group, id) = (a.id, GroupId(a.id));
        let options = a.name.as_bytes().to_vec();
        let (members, first) = (a.members_for(self.me), a.first.first().copied());
        let stream = Stream::new(self, &assets, a)?;
        if there {
            let restore = |others| self.replicas.restore_among(id, sync, stream.clone(), others);
            let done = match restore(Others::Unknown).await {
                Err(replica::Error::WhoElse(term, index)) => {
                    restore(self.who_else_has(group, (term.0, index.0)).await?).await
                }
                done => done,
            };
            done.map_err(|e| e.to_string())?;
        } else {
            let new = New { id, memory, options: options.into(), members, sync };
            self.replicas.create_led_by(new, first, stream.clone()).await.map_err(|e| e.to_string())?;
        }
        Ok(stream)
    }
    /// As [`JetStream::open_group`] on a server alone: waits until it leads, with its configuration.
    pub(crate) async fn open_stream(
        self: &Arc<JetStream>,
        a: Assignment,
        there: bool,
    ) -> Result<Arc<Stream>, String> {
        let (wanted, read) = (a.config.clone(), self.meta.coming_config(a.id, &a.config));
        let stream = self.open_group(a, there).await?;
        stream.want_read(wanted, read);
        match env::timeout(SETTLE_MAX, stream.settled()).await {
            Ok(r) => r?,
            Err(_) => return Err("its log is not applied yet".into()),
        }
        if let Some(lost) = loss(&stream.account, &stream) {
            self.host.log("ERR", &lost);
        }
        Ok(stream)
    }

    /// What a change of the assignments waits for. On a server alone it is what its streams wait for: one journal holds both, so that a power
    /// failure takes back no assignment and leaves messages of its stream. Of several nodes each counts on what the others have.
    pub(crate) fn meta_sync(&self) -> Sync {
        if self.is_clustered() { Sync::Always } else { self.sync_of(false) }
    }
    fn sync_of(&self, memory: bool) -> Sync {
        match self.options.durability {
            Durability::Durable if !memory => Sync::Always,
            _ => Sync::Relaxed,
        }
    }

    /// The account's part, made if there is none.
    pub(crate) fn assets(self: &Arc<JetStream>, account: &Arc<Account>) -> Arc<Assets> {
        if let Some(a) = self.accounts.read().get(&account.name) {
            return a.clone();
        }
        self.accounts
            .write()
            .entry(account.name.clone())
            .or_insert_with(|| Assets::new(self, account))
            .clone()
    }

    /// Turns JetStream on (with limits) or off for an account; in both cases its requests are answered from now on.
    pub fn set_account(self: &Arc<JetStream>, account: &Arc<Account>, limits: Option<AccountLimits>) {
        self.assets(account).set_limits(self, limits);
    }
    /// Whether JetStream is on for an account.
    pub fn is_enabled(&self, account: &str) -> bool {
        self.accounts.read().get(account).is_some_and(|a| a.limits().is_some())
    }
    /// What may change while it runs, as it is now.
    pub fn tunable(&self) -> Tunable {
        self.tunable.read().clone()
    }
    /// Changes that. What is stored and asked for beyond it stays.
    pub fn tune(&self, t: Tunable) {
        let bytes = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        self.quota.set(bytes(t.memory_max), bytes(t.storage_max));
        self.quota.limit_batches(t.limits.batch_inflight);
        *self.tunable.write() = t;
        for s in self.all_assets().iter().flat_map(|a| a.streams()) {
            let limits = s.rule_limits();
            if let Some(r) = &mut s.core.lock().rules {
                r.set_limits(limits);
            }
        }
        if let Some(c) = &self.cluster {
            c.touch();
        }
    }
    /// What it was opened with.
    pub fn options(&self) -> &Options {
        &self.options
    }
    /// Accounts with JetStream, by name.
    pub(crate) fn accounts(&self) -> Vec<Arc<Assets>> {
        self.accounts.read().values().filter(|a| a.limits().is_some()).cloned().collect()
    }

    /// Takes a place for a request, if there is one.
    pub(crate) fn place(self: &Arc<JetStream>) -> Option<Place> {
        let before = self.in_flight.fetch_add(1, AcqRel);
        let place = Place(self.clone());
        (before < self.options.requests_max && !self.closed.load(Acquire)).then_some(place)
    }
    /// A request was dropped because too many are being answered.
    pub(crate) fn overloaded(&self, of: &Assets) {
        let dropped = self.dropped.fetch_add(1, AcqRel) + 1;
        advisory::limit_reached(self, of, dropped);
    }

    /// What is used.
    pub fn usage(&self) -> Usage {
        let mut u =
            Usage { api_total: self.api_total.get(), api_errors: self.api_errors.get(), ..Usage::default() };
        for a in self.accounts() {
            u.accounts += 1;
            a.add_usage(&mut u);
        }
        u
    }
    /// Accounts as `/jsz` lists them.
    pub async fn details(&self, d: &Detail<'_>, offset: usize, limit: usize) -> Vec<Value> {
        let mut all = self.accounts();
        all.retain(|a| d.account.is_empty() || *a.account.name == *d.account);
        let mut shown = Vec::new();
        for a in all.iter().skip(offset).take(limit) {
            shown.push(a.detail(d).await);
        }
        shown
    }
    /// One account as `/jsz` lists it; `None` if there is no such account with JetStream.
    pub async fn detail_of(&self, d: &Detail<'_>) -> Option<Value> {
        let a = self.accounts().into_iter().find(|a| *a.account.name == *d.account)?;
        Some(a.detail(d).await)
    }
    /// All accounts that there is something of, by name.
    pub(crate) fn all_assets(&self) -> Vec<Arc<Assets>> {
        self.accounts.read().values().cloned().collect()
    }
    /// An account's part, if there is one.
    pub(crate) fn account(&self, name: &str) -> Option<Arc<Assets>> {
        self.accounts.read().get(name).cloned()
    }
    /// Why not all of what is stored can be served, if so.
    pub fn unhealthy(&self) -> Option<String> {
        if let Some((stream, why)) = self.faults.lock().first_key_value() {
            return Some(format!("JetStream stream '{stream}' could not be recovered: {why}"));
        }
        let stopped = |a: &Arc<Assets>| a.streams().iter().find_map(|s| stopped(&a.account.name, s));
        let of_cluster = || self.unhealthy_meta().or_else(|| self.unhealthy_member(false, |_| true));
        self.accounts().iter().find_map(stopped).or_else(of_cluster)
    }
    /// Why this node does not serve what it holds of an account, or one stream of it, if so. Whether there is a consumer
    /// of that name is looked at as well, unless `consumer` is empty.
    ///
    /// # Errors
    /// What is asked about is not here: in a cluster, not for this node to hold.
    pub fn unhealthy_of(
        &self,
        account: &str,
        stream: &str,
        consumer: &str,
    ) -> Result<Option<String>, Absent> {
        if let Some(why) = self.unhealthy_meta() {
            return Ok(Some(why));
        }
        let assets = self.account(account).filter(|a| a.limits().is_some()).ok_or(Absent::Account)?;
        let is_asked = |name: &str| stream.is_empty() || stream == name;
        let label = |name: &str| format!("{account} > {name}");
        let broken = self.faults.lock().iter().find_map(|(of, why)| {
            let name = of.strip_prefix(&label(""))?;
            is_asked(name).then(|| format!("JetStream stream '{of}' could not be recovered: {why}"))
        });
        if broken.is_some() {
            return Ok(broken);
        }
        let held = assets.stream(stream);
        if !stream.is_empty() {
            let is_here = match self.is_clustered() {
                true => self.meta.find(account, stream).is_some_and(|a| a.a.members.contains(&self.me)),
                false => held.is_some(),
            };
            if !is_here {
                return Err(Absent::Stream);
            }
        }
        let asked = assets.streams();
        let fault = asked.iter().filter(|s| is_asked(&s.name)).find_map(|s| stopped(account, s));
        let of_member =
            || self.unhealthy_member(!stream.is_empty(), |a| *a.account == *account && is_asked(&a.name));
        if let Some(why) = fault.or_else(of_member) {
            return Ok(Some(why));
        }
        match held {
            Some(s) if !consumer.is_empty() && s.core.lock().consumers.get(consumer).is_none() => {
                Err(Absent::Consumer)
            }
            _ => Ok(None),
        }
    }

    /// Returns when the disk has made something durable, and the meta group has a leader that a majority hears: what any acknowledgement needs. What was found within
    /// the last second is said again.
    ///
    /// # Errors
    /// A sentence about what does not answer.
    pub async fn probe(&self) -> Result<(), String> {
        let mut last = self.probed.lock().await;
        if let Some((_, found)) = last.as_ref().filter(|(at, _)| at.elapsed() < PROBE_AGAIN) {
            return found.clone();
        }
        let found = match env::timeout(PROBE_MAX, self.replicas.probe()).await {
            Err(_) => Err(format!("JetStream storage has not answered for {} s", PROBE_MAX.as_secs())),
            Ok(Err(e)) => Err(format!("JetStream storage takes nothing: {e}")),
            Ok(Ok(())) => match self.meta.handle().filter(|_| self.is_clustered()) {
                None => Ok(()),
                Some(h) => match env::timeout(PROBE_MAX, h.read_barrier()).await {
                    Ok(Ok(_)) => Ok(()),
                    _ => Err("JetStream meta group does not answer".to_owned()),
                },
            },
        };
        *last = Some((env::now(), found.clone()));
        found
    }

    /// What streams have lost to damage, what only a store had that its server has no more, and what nobody leads because others are away, a sentence each.
    /// Everything else is served.
    pub fn losses(&self) -> Vec<String> {
        let all: Vec<_> = self.accounts.read().values().cloned().collect();
        let said = |a: &Arc<Assets>| {
            let name = a.account.name.clone();
            a.streams().iter().filter_map(|s| loss(&name, s)).collect::<Vec<_>>()
        };
        let kept = self.kept();
        let kept = kept.iter().map(|k| k.to_string());
        all.iter().flat_map(said).chain(kept).chain(self.outnumbered()).collect()
    }

    /// Takes no messages any more and tells all who wait for some that the server shuts down. To be called while connections are open.
    pub fn farewell(&self) {
        let all: Vec<_> = self.accounts.read().values().cloned().collect();
        for s in all.iter().flat_map(|a| a.streams()) {
            s.shut_down();
        }
    }

    /// Ends the engine. What was acknowledged is on disk when it returns.
    pub async fn close(&self) {
        self.closed.store(true, Release);
        if let Some(c) = &self.cluster {
            c.touch();
        }
        let all: Vec<_> = self.accounts.read().values().cloned().collect();
        for a in &all {
            for s in a.streams() {
                s.shut_down();
            }
            // The server may go on without it.
            a.desk.unsubscribe_all(Some(&a.account));
        }
        if let Err(e) = self.replicas.close().await {
            self.host.log(
                "ERR",
                &format!("JetStream: the last flush failed, the next start reads the journal: {e}"),
            );
        }
        if let Err(e) = self.replicas.store().clone().close().await {
            self.host.log("ERR", &format!("JetStream: the store did not close cleanly: {e}"));
        }
    }
    /// Takes no requests any more: those of the clients here go to the desks of other servers.
    pub(crate) fn close_desks(&self) {
        for a in self.accounts.read().values() {
            a.desk.unsubscribe_all(Some(&a.account));
        }
        if let Some(desk) = self.system_desk.lock().as_ref() {
            desk.close();
        }
    }
    /// Whether there are other servers that may have what is not here.
    pub(crate) fn reaches_others(&self) -> bool {
        self.broker.is_clustered()
    }
    /// Whether it has ended.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Acquire)
    }
}

/// Sequences that a sentence about a loss names at most; the stream's info has them all.
const NAMED_MAX: usize = 16;

/// What a stream has lost, if anything.
fn loss(account: &str, s: &Stream) -> Option<String> {
    let group = s.group.get()?;
    let lost = group.lost();
    let messages: Vec<_> = lost.iter().filter(|l| l.sure && l.first_seq.0 > 0).collect();
    let mut said = Vec::new();
    if !messages.is_empty() {
        let range = |l: &&store::Lost| match (l.first_seq.0, l.last_seq.0) {
            (a, b) if a == b => a.to_string(),
            (a, b) => format!("{a}-{b}"),
        };
        let count: u64 = messages.iter().map(|l| l.last_seq.0 - l.first_seq.0 + 1).sum();
        let mut names: Vec<String> = messages.iter().take(NAMED_MAX).map(range).collect();
        if messages.len() > NAMED_MAX {
            names.push("…".into());
        }
        said.push(format!("{count} messages are lost to damage: {}", names.join(", ")));
    }
    if let Some(l) = lost.iter().find(|l| !l.sure) {
        said.push(format!(
            "the end of its log is lost, and with it perhaps messages from {} on; it goes on behind {}",
            l.first_seq.0, l.last_seq.0
        ));
    }
    let commands: u64 = lost.iter().filter(|l| l.first_seq.0 == 0).map(|l| l.last.0 - l.first.0 + 1).sum();
    if commands > 0 {
        said.push(format!(
            "{commands} entries about consumers or configuration are lost: consumers may be given messages again"
        ));
    }
    (!said.is_empty()).then(|| format!("JetStream stream '{account} > {}': {}", s.name, said.join("; ")))
}

/// Hands on what the store finds damaged, at its opening, in reads and in its scrub.
async fn tell_damage(node: Weak<JetStream>, mut watch: store::DamageWatch) {
    while let Some(d) = watch.next().await {
        let Some(node) = node.upgrade() else { return };
        node.damaged(&d);
    }
}

/// Why a store with groups and without the meta group is not opened.
fn no_meta(stored: &[GroupId]) -> String {
    format!("the store holds {} groups, but not that of their assignments", stored.len())
}

/// What names the meta group that the store has.
fn genesis_of(replicas: &Replicas) -> Result<u64, String> {
    let (options, _) = replicas.options(GroupId(META_GROUP)).map_err(|e| format!("the meta group: {e}"))?;
    let bytes = options.as_ref().try_into().map_err(|_| "the meta group has no name".to_owned())?;
    Ok(u64::from_le_bytes(bytes))
}

fn store_options(o: &Options) -> store::Options {
    let mut s = store::Options::default();
    if let Durability::Relaxed(interval) = o.durability {
        s.sync_interval = Some(interval);
    }
    s.keys = o.keys.clone();
    s
}

impl Assets {
    /// Adds what this account uses.
    pub(crate) fn add_usage(&self, u: &mut Usage) {
        u.streams += self.streams().len();
        for s in self.streams() {
            let seen = s.seen();
            u.consumers += seen.consumers;
            u.messages += seen.msgs;
            u.bytes += seen.bytes;
            if s.memory {
                u.memory += seen.bytes;
                u.reserved_memory += seen.reserved;
            } else {
                u.storage += seen.bytes;
                u.reserved_storage += seen.reserved;
            }
        }
    }
    /// This account as `/jsz` lists it.
    async fn detail(&self, d: &Detail<'_>) -> Value {
        let mut u = Usage::default();
        self.add_usage(&mut u);
        let limit = |n: i64| n as u64;
        let l = self.limits().unwrap_or_default();
        let mut v = json!({
            "name": *self.account.name,
            "id": *self.account.name,
            "memory": u.memory,
            "storage": u.storage,
            "reserved_memory": limit(l.max_memory),
            "reserved_storage": limit(l.max_store),
            "accounts": 0,
            "ha_assets": 0,
            "api": { "level": 0, "total": self.api_total.get(), "errors": self.api_errors.get() },
        });
        let mut streams = Vec::new();
        if d.streams {
            for s in self.streams().iter().filter(|s| !d.led || s.leads()) {
                streams.extend(s.detail(d).await);
            }
        }
        if !streams.is_empty() {
            v["stream_detail"] = streams.into();
        }
        v
    }
}
