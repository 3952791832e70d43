//! Accounts: who shares a space of subjects.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering::*},
    },
};

use parking_lot::{Mutex, RwLock};
use subject::{Mappings, Member, Trie};

use crate::{
    Kind, Link, LinkOptions, Stats, Sub,
    imports::{AnswerBack, Crossing, REPLY_PREFIX, Replies, ServiceImport, StreamImport},
    plan::{Named, Receivers},
    routes::{Advert, RouteOut},
    rules::{self, Rules},
};

/// Subscriptions by name that are looked at to find out that none of a family of subjects is among them.
const NAMES_LOOKED_AT: usize = 64;

/// Limits of an account; `None` is no limit.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct AccountLimits {
    /// Clients at a time.
    pub connections_max: Option<usize>,
    /// Subscriptions of all its clients.
    pub subscriptions_max: Option<usize>,
    /// Largest message in bytes.
    pub payload_bytes_max: Option<usize>,
    /// Leaf nodes at a time.
    pub leafnodes_max: Option<usize>,
}

/// Somebody who wants to know when the interest in a subject may have come or gone. Called in the task that changes it, after the
/// change; must be short and must not block.
pub trait Watch: Send + Sync {
    /// Something changed for this subject; ask [`Account::listens`].
    fn changed(&self, subject: &[u8]);
}

/// One who watches, with the number that ends it.
type Watcher = (u64, Arc<dyn Watch>);

/// Those who watch, by subject.
#[derive(Default)]
struct Watches {
    by_subject: BTreeMap<Vec<u8>, Vec<Watcher>>,
    last: u64,
}

/// A space of subjects with its interest.
pub struct Account {
    /// Its name; `$G` is the default one.
    pub name: Arc<str>,
    interest: RwLock<Trie<Arc<Sub>>>,
    generation: AtomicU64,
    links: Mutex<BTreeMap<u64, Arc<Link>>>,
    limits: RwLock<AccountLimits>,
    mappings: RwLock<Arc<Mappings>>,
    has_mappings: AtomicBool,
    has_trace: AtomicBool,
    stream_imports: RwLock<Arc<Vec<StreamImport>>>,
    /// Internal subscriptions that its rules ask for: service imports, and the way back of answers.
    internal: Mutex<Vec<Arc<Sub>>>,
    pub(crate) replies: Replies,
    rules: RwLock<Arc<Rules>>,
    watches: RwLock<Watches>,
    is_watched: AtomicBool,
    /// What routes are told, in a cluster.
    pub(crate) advert: Option<Mutex<Advert>>,
    /// What it has seen.
    pub stats: Stats,
}

impl Account {
    /// An account without interest.
    pub fn new(name: &str) -> Arc<Account> {
        Account::build(name, false)
    }
    fn build(name: &str, clustered: bool) -> Arc<Account> {
        Arc::new(Account {
            name: name.into(),
            interest: RwLock::new(Trie::new(0)),
            generation: AtomicU64::new(1),
            links: Mutex::new(BTreeMap::new()),
            limits: RwLock::new(AccountLimits::default()),
            mappings: RwLock::default(),
            has_mappings: AtomicBool::new(false),
            has_trace: AtomicBool::new(false),
            stream_imports: RwLock::default(),
            internal: Mutex::default(),
            replies: Replies::default(),
            rules: RwLock::default(),
            watches: RwLock::default(),
            is_watched: AtomicBool::new(false),
            advert: clustered.then(Mutex::default),
            stats: Stats::default(),
        })
    }
    /// Calls `w` whenever a subscription that matches this literal subject comes or goes. The number returned ends it.
    pub fn watch(&self, subject: &[u8], w: Arc<dyn Watch>) -> u64 {
        let mut all = self.watches.write();
        all.last += 1;
        let id = all.last;
        all.by_subject.entry(subject.to_vec()).or_default().push((id, w));
        self.is_watched.store(true, Release);
        id
    }
    /// Ends a watch.
    pub fn unwatch(&self, subject: &[u8], id: u64) {
        let mut all = self.watches.write();
        if let Some(some) = all.by_subject.get_mut(subject) {
            some.retain(|w| w.0 != id);
            if some.is_empty() {
                all.by_subject.remove(subject);
            }
        }
        let any = !all.by_subject.is_empty();
        self.is_watched.store(any, Release);
    }
    /// Tells those who watch a subject that `pattern` touches.
    #[cold]
    fn tell_watches(&self, pattern: &[u8]) {
        let mut told: Vec<(Vec<u8>, Arc<dyn Watch>)> = Vec::new();
        let all = self.watches.read();
        let mut add = |subject: &Vec<u8>, some: &Vec<Watcher>| {
            told.extend(some.iter().map(|w| (subject.clone(), w.1.clone())));
        };
        if subject::is_literal(pattern) {
            if let Some((subject, some)) = all.by_subject.get_key_value(pattern) {
                add(subject, some);
            }
        } else {
            for (subject, some) in &all.by_subject {
                if subject::matches(subject, pattern) {
                    add(subject, some);
                }
            }
        }
        drop(all);
        for (subject, w) in told {
            w.changed(&subject);
        }
    }
    /// Moves with every change of what a publisher must know; plans of an older generation are void.
    #[inline]
    pub fn generation(&self) -> u64 {
        self.generation.load(Acquire)
    }
    /// Voids all plans.
    pub fn touch(&self) {
        self.generation.fetch_add(1, Release);
    }
    /// Its limits.
    pub fn limits(&self) -> AccountLimits {
        *self.limits.read()
    }
    /// Sets its limits, for what comes next.
    pub fn set_limits(&self, l: AccountLimits) {
        *self.limits.write() = l;
    }

    /// What it was told last.
    pub fn rules(&self) -> Arc<Rules> {
        self.rules.read().clone()
    }
    pub(crate) fn stream_imports(&self) -> Arc<Vec<StreamImport>> {
        self.stream_imports.read().clone()
    }
    /// Whether published subjects may be renamed.
    #[inline]
    pub(crate) fn has_mappings(&self) -> bool {
        self.has_mappings.load(Relaxed)
    }
    /// Whether messages with a sampled `traceparent` are traced.
    #[inline]
    pub(crate) fn has_trace(&self) -> bool {
        self.has_trace.load(Relaxed)
    }
    pub(crate) fn mappings(&self) -> Arc<Mappings> {
        self.mappings.read().clone()
    }

    pub(crate) fn insert(&self, sub: &Arc<Sub>) {
        self.with_advert(sub, true, |a| {
            let mut interest = a.interest.write();
            let done = interest.insert(sub.subject(), sub.queue_name(), sub.clone());
            done.expect("the subject was checked at SUB");
            Some(())
        });
        self.stats.inserts.add(1);
        self.touch();
        if self.is_watched.load(Acquire) {
            self.tell_watches(sub.subject());
        }
    }
    pub(crate) fn remove(&self, sub: &Arc<Sub>) {
        self.with_advert(sub, false, |a| {
            a.interest.write().remove(sub.subject(), sub.queue_name(), sub.key())
        });
        self.stats.removes.add(1);
        self.touch();
        if self.is_watched.load(Acquire) {
            self.tell_watches(sub.subject());
        }
    }
    pub(crate) fn remove_all(&self, subs: &[Arc<Sub>]) {
        if self.advert.is_some() {
            for sub in subs {
                self.remove(sub);
            }
            return;
        }
        // In portions, so that other publishers get at the trie in between.
        for some in subs.chunks(256) {
            let mut interest = self.interest.write();
            for sub in some {
                interest.remove(sub.subject(), sub.queue_name(), sub.key());
            }
            drop(interest);
            self.stats.removes.add(some.len() as u64);
            self.touch();
            if self.is_watched.load(Acquire) {
                for sub in some {
                    self.tell_watches(sub.subject());
                }
            }
        }
    }
    /// Adds who gets a message to `subject`.
    pub(crate) fn match_into(&self, subject: &[u8], into: &mut Receivers) {
        self.stats.matches.add(1);
        self.interest.read().visit(subject, |queue, sub| into.push(queue, sub));
    }
    /// The same, and how many bytes of the subject have decided it; see [`subject::Trie::visit_wide`].
    pub(crate) fn match_wide(&self, subject: &[u8], into: &mut Receivers) -> Option<usize> {
        self.stats.matches.add(1);
        self.interest.read().visit_wide(subject, |queue, sub| into.push(queue, sub))
    }
    /// Whether somebody listens by name.
    #[inline]
    pub(crate) fn has_named(&self, n: Named<'_>) -> bool {
        match n {
            Named::Subject(subject) => self.interest.read().has_literal(subject),
            Named::Prefix(prefix) => self.interest.read().may_have_literal_in(prefix, NAMES_LOOKED_AT),
        }
    }
    /// The subscriptions that a message to `subject` reaches, queue members included.
    pub fn matching(&self, subject: &[u8]) -> Vec<Arc<Sub>> {
        let mut all = Vec::new();
        self.interest.read().visit(subject, |_, sub| all.push(sub.clone()));
        all
    }
    /// Whether anybody listens to `subject`.
    pub fn has_interest(&self, subject: &[u8]) -> bool {
        self.interest.read().has_interest(subject)
    }
    /// Whether somebody waits for messages to `subject`: a client, here or at another server, or whoever stands behind a receiver of this server's
    /// ([`Inbound::listens`]). Streams and services are told what comes, but nothing is sent for their sake: who may ask a consumer for messages would
    /// else choose what they are told.
    pub fn listens(&self, subject: &[u8]) -> bool {
        self.waits(subject, |_| true)
    }
    /// The same, where a subscription counts only if it is to just this subject, in just this queue group; the empty one stands for none. Who hears it by a
    /// wildcard may be no more than an observer of all there is.
    pub fn awaits(&self, subject: &[u8], queue: &[u8]) -> bool {
        self.waits(subject, |sub| sub.subject() == subject && sub.queue() == queue)
    }
    fn waits(&self, subject: &[u8], counts: impl Fn(&Sub) -> bool) -> bool {
        // Who has to be asked is asked without the lock: the answer may be another account's.
        let mut inside: Vec<Arc<Sub>> = Vec::new();
        let outside = self.interest.read().any(subject, |sub| {
            counts(sub)
                && sub.is_outside().unwrap_or_else(|| {
                    inside.push(sub.clone());
                    false
                })
        });
        outside || inside.iter().any(|sub| sub.inside().is_some_and(|i| i.listens(subject)))
    }
    /// Number of subscriptions, those of imports included.
    pub fn subscriptions(&self) -> usize {
        self.interest.read().len()
    }
    /// All subscriptions. Reads in portions, so that others get at the interest in between: what comes or goes meanwhile may be
    /// among them or not.
    pub fn list_subscriptions(&self) -> Vec<Arc<Sub>> {
        const SUBJECTS: usize = 512;
        let mut all = Vec::new();
        let mut at = Some(0);
        while let Some(from) = at {
            at = self.interest.read().for_some(from, SUBJECTS, |s| all.push(s.clone()));
        }
        all
    }

    /// Binds a link to this account. False if the account is full.
    pub fn bind(&self, this: &Arc<Account>, link: &Arc<Link>) -> bool {
        let mut links = self.links.lock();
        if let Some(max) = self.limits().connections_max
            && links.len() >= max
        {
            return false;
        }
        links.insert(link.id, link.clone());
        drop(links);
        link.set_account(Some(this.clone()));
        true
    }
    /// Unbinds a link.
    pub fn unbind(&self, link: &Link) {
        self.links.lock().remove(&link.id);
        link.set_account(None);
    }
    /// Links that are bound now, by id.
    pub fn links(&self) -> Vec<Arc<Link>> {
        self.links.lock().values().cloned().collect()
    }
    /// Number of links that are bound now.
    pub fn connections(&self) -> usize {
        self.links.lock().len()
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account").field("name", &self.name).finish_non_exhaustive()
    }
}

/// All accounts and links of a server.
pub struct Broker {
    accounts: RwLock<BTreeMap<Arc<str>, Arc<Account>>>,
    links: Mutex<BTreeMap<u64, Arc<Link>>>,
    next_id: AtomicU64,
    cluster: RwLock<Arc<[u8]>>,
    crossing: OnceLock<Box<dyn Crossing>>,
    pub(crate) clustered: AtomicBool,
    pub(crate) routes: RwLock<Vec<RouteOut>>,
    reply_prefix: OnceLock<Box<[u8]>>,
    /// What the server has seen.
    pub stats: Stats,
}

impl Broker {
    /// Says what is to be added to messages between accounts. Once, before the first configuration.
    pub fn set_crossing(&self, c: Box<dyn Crossing>) {
        self.crossing.set(c).ok();
    }
    /// Whether this server is, or may become, one of several.
    pub fn is_clustered(&self) -> bool {
        self.clustered.load(Acquire)
    }
    pub(crate) fn crossing<R>(&self, f: impl FnOnce(&dyn Crossing) -> R) -> Option<R> {
        self.crossing.get().map(|c| f(&**c))
    }
    /// Makes reply subjects of service imports this server's own: `token` stands in each, and must be one token that no other
    /// server of the cluster has. Once, before the first configuration.
    pub fn set_reply_token(&self, token: &str) {
        let prefix = [REPLY_PREFIX, token.as_bytes(), b"."].concat();
        self.reply_prefix.set(prefix.into()).ok();
    }
    /// Where reply subjects of service imports begin.
    pub(crate) fn reply_prefix(&self) -> &[u8] {
        self.reply_prefix.get().map_or(REPLY_PREFIX, |p| p)
    }
    /// The name of the cluster, by which mappings choose destinations.
    pub fn set_cluster(&self, name: &str) {
        *self.cluster.write() = name.as_bytes().into();
    }
    pub(crate) fn cluster(&self) -> Arc<[u8]> {
        self.cluster.read().clone()
    }

    /// Puts the rules of all accounts in force; accounts that are not named are left without rules. Subscriptions stay.
    /// Errors are sentences, and nothing is changed then.
    pub fn configure(self: &Arc<Broker>, all: &BTreeMap<Arc<str>, Rules>) -> Result<(), Vec<String>> {
        let wrong = rules::check(all);
        if !wrong.is_empty() {
            return Err(wrong);
        }
        let none = Rules::default();
        for name in all.keys() {
            self.account_or_new(name);
        }
        for account in self.accounts() {
            let rules = all.get(&account.name).unwrap_or(&none);
            self.apply(&account, rules, all).map_err(|e| vec![e])?;
        }
        Ok(())
    }

    fn apply(
        self: &Arc<Broker>,
        account: &Arc<Account>,
        rules: &Rules,
        all: &BTreeMap<Arc<str>, Rules>,
    ) -> Result<(), String> {
        account.set_limits(rules.limits);
        *account.mappings.write() = Arc::new(rules.mappings.clone());
        account.has_mappings.store(!rules.mappings.is_empty(), Relaxed);
        account.has_trace.store(rules.trace.is_some(), Relaxed);
        *account.rules.write() = Arc::new(rules.clone());
        for old in std::mem::take(&mut *account.internal.lock()) {
            old.close();
            account.remove(&old);
        }
        let mut streams = Vec::new();
        let mut internal = Vec::new();
        let mut subscribe = |pattern: &[u8], inbound: Box<dyn crate::Inbound>| {
            let link = Link::new(LinkOptions {
                id: 0,
                kind: Kind::Internal,
                worker: 0,
                pending_bytes_max: 0,
                transport: None,
                inbound: Some(inbound),
            });
            let sub = Arc::new(Sub::new(link, b"", pattern, b"", false));
            account.insert(&sub);
            internal.push(sub);
        };
        if rules.exports.iter().any(|e| e.service) {
            let back = AnswerBack { broker: Arc::downgrade(self), exporter: Arc::downgrade(account) };
            subscribe(&[self.reply_prefix(), b">"].concat(), Box::new(back));
        }
        for import in &rules.imports {
            let exporter = self.account_or_new(&import.account);
            if !import.service {
                streams.push(StreamImport::new(exporter, import)?);
                continue;
            }
            let Some(export) =
                all.get(&import.account).and_then(|r| rules::export_for(r, import, &account.name))
            else {
                continue;
            };
            let service = ServiceImport {
                broker: Arc::downgrade(self),
                importer: Arc::downgrade(account),
                exporter,
                outward: import.outward()?,
                export: export.clone(),
                share: import.share,
            };
            subscribe(&import.local(), Box::new(service));
        }
        *account.internal.lock() = internal;
        let had = !account.stream_imports().is_empty();
        let has = !streams.is_empty();
        *account.stream_imports.write() = Arc::new(streams);
        if had || has {
            for link in account.links() {
                link.renew_shadows(account);
            }
        }
        account.touch();
        Ok(())
    }
    /// The account of that name, made if there is none.
    pub fn account_or_new(&self, name: &str) -> Arc<Account> {
        if let Some(a) = self.account(name) {
            return a;
        }
        let mut made = None;
        let account = self
            .accounts
            .write()
            .entry(name.into())
            .or_insert_with(|| made.insert(Account::build(name, self.clustered.load(Acquire))).clone())
            .clone();
        if let Some(new) = made {
            self.tell_routes_of(&new);
            self.crossing(|c| c.account_made(&new));
        }
        account
    }
    /// The account of that name.
    pub fn account(&self, name: &str) -> Option<Arc<Account>> {
        self.accounts.read().get(name).cloned()
    }
    /// All accounts, by name.
    pub fn accounts(&self) -> Vec<Arc<Account>> {
        self.accounts.read().values().cloned().collect()
    }
    /// A new link id, from 1 up, never used twice.
    pub fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Relaxed) + 1
    }
    /// Makes a link known to monitoring.
    pub fn add_link(&self, link: &Arc<Link>) {
        self.links.lock().insert(link.id, link.clone());
        self.stats.connections_total.add(1);
    }
    /// Forgets a link.
    pub fn remove_link(&self, id: u64) {
        let gone = self.links.lock().remove(&id);
        if gone.is_some_and(|l| l.overfull.load(Relaxed)) {
            self.stats.slow_consumers.add(1);
        }
    }
    /// All links, by id.
    pub fn links(&self) -> Vec<Arc<Link>> {
        self.links.lock().values().cloned().collect()
    }
    /// The link of that id.
    pub fn link(&self, id: u64) -> Option<Arc<Link>> {
        self.links.lock().get(&id).cloned()
    }
    /// Number of links.
    pub fn connections(&self) -> usize {
        self.links.lock().len()
    }
    /// Number of subscriptions in all accounts.
    pub fn subscriptions(&self) -> usize {
        self.accounts.read().values().map(|a| a.subscriptions()).sum()
    }
}

impl Default for Broker {
    fn default() -> Broker {
        Broker {
            accounts: RwLock::default(),
            links: Mutex::default(),
            next_id: AtomicU64::new(0),
            cluster: RwLock::new((*b"").into()),
            crossing: OnceLock::new(),
            clustered: AtomicBool::new(false),
            routes: RwLock::default(),
            reply_prefix: OnceLock::new(),
            stats: Stats::default(),
        }
    }
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker").field("connections", &self.connections()).finish_non_exhaustive()
    }
}
