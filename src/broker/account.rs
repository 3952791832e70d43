//! Accounts: who shares a space of subjects.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::*},
    },
};

use parking_lot::{Mutex, RwLock};
use subject::Trie;

use crate::{Link, Stats, Sub, plan::Receivers};

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

/// A space of subjects with its interest.
pub struct Account {
    /// Its name; `$G` is the default one.
    pub name: Arc<str>,
    interest: RwLock<Trie<Arc<Sub>>>,
    generation: AtomicU64,
    links: Mutex<BTreeMap<u64, Arc<Link>>>,
    limits: RwLock<AccountLimits>,
    /// What it has seen.
    pub stats: Stats,
}

impl Account {
    /// An account without interest.
    pub fn new(name: &str) -> Arc<Account> {
        Arc::new(Account {
            name: name.into(),
            interest: RwLock::new(Trie::new(0)),
            generation: AtomicU64::new(1),
            links: Mutex::new(BTreeMap::new()),
            limits: RwLock::new(AccountLimits::default()),
            stats: Stats::default(),
        })
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

    pub(crate) fn insert(&self, sub: &Arc<Sub>) {
        self.interest
            .write()
            .insert(sub.subject(), sub.queue_name(), sub.clone())
            .expect("the subject was checked at SUB");
        self.touch();
    }
    pub(crate) fn remove(&self, sub: &Arc<Sub>) {
        self.interest.write().remove(sub.subject(), sub.queue_name(), |s| Arc::ptr_eq(s, sub));
        self.touch();
    }
    pub(crate) fn remove_all(&self, subs: &[Arc<Sub>]) {
        // In portions, so that other publishers get at the trie in between.
        for some in subs.chunks(256) {
            let mut interest = self.interest.write();
            for sub in some {
                interest.remove(sub.subject(), sub.queue_name(), |s| Arc::ptr_eq(s, sub));
            }
            drop(interest);
            self.touch();
        }
    }
    /// Adds who gets a message to `subject`.
    pub(crate) fn match_into(&self, subject: &[u8], into: &mut Receivers) {
        self.interest.read().visit(subject, |queue, sub| into.push(queue, sub));
    }
    /// Whether anybody listens to `subject`.
    pub fn has_interest(&self, subject: &[u8]) -> bool {
        self.interest.read().has_interest(subject)
    }
    /// Number of subscriptions, those of imports included.
    pub fn subscriptions(&self) -> usize {
        self.interest.read().len()
    }
    /// All subscriptions.
    pub fn list_subscriptions(&self) -> Vec<Arc<Sub>> {
        let mut all = Vec::new();
        self.interest.read().for_each(|_, _, s| all.push(s.clone()));
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
#[derive(Default)]
pub struct Broker {
    accounts: RwLock<BTreeMap<Arc<str>, Arc<Account>>>,
    links: Mutex<BTreeMap<u64, Arc<Link>>>,
    next_id: AtomicU64,
    /// What the server has seen.
    pub stats: Stats,
}

impl Broker {
    /// The account of that name, made if there is none.
    pub fn account_or_new(&self, name: &str) -> Arc<Account> {
        if let Some(a) = self.account(name) {
            return a;
        }
        self.accounts.write().entry(name.into()).or_insert_with(|| Account::new(name)).clone()
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
        self.links.lock().remove(&id);
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

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker").field("connections", &self.connections()).finish_non_exhaustive()
    }
}
