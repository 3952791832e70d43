//! The evaluation of an attempt.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::{
    Attempt, AuthConfig, Check, ConfigError, Decision, GLOBAL_ACCOUNT, Identity, ListenerConfig, Reason,
    SingleUser, Source, UserConfig,
};
use crate::conn_type::{ConnectionType, ConnectionTypes};
use crate::keys::{PublicKey, SigEncoding};
use crate::limits::Limits;
use crate::password::{PasswordCache, bcrypt_cost, bcrypt_matches, is_bcrypt};
use crate::permissions::{Permissions, PermissionsConfig};
use crate::secret::Secret;
use crate::tls::{DistinguishedName, map_user};

pub(super) struct User {
    name: Arc<str>,
    pub(super) password: Secret,
    pub(super) account: Arc<str>,
    permissions: Option<Arc<Permissions>>,
    types: ConnectionTypes,
    proxy_required: bool,
    limits: Limits,
}

pub(super) struct Nkey {
    key: PublicKey,
    pub(super) user: Arc<User>,
}

/// What all listeners of a server share.
pub(super) struct Shared {
    pub(super) users: BTreeMap<Arc<str>, Arc<User>>,
    pub(super) nkeys: BTreeMap<Arc<str>, Nkey>,
    /// Users whose names are distinguished names, in the order of their names.
    by_dn: Vec<(DistinguishedName, Arc<User>)>,
    pub(super) proxies: Vec<(Arc<str>, PublicKey)>,
    pub(super) proxy_required: bool,
    pub(super) default_account: Arc<str>,
    tls_mapped: Vec<ConnectionType>,
    cache: PasswordCache,
}

/// Decides who a connection is. One per listener; cheap to clone, immutable but for the memory of bcrypt checks.
#[derive(Clone)]
pub struct Authenticator {
    pub(super) shared: Arc<Shared>,
    pub(super) listener: Arc<ListenerConfig>,
    /// The hash that a refusal is tried against where there was no user to try (I-3).
    decoy: Option<Arc<str>>,
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shared { users, nkeys, .. } = &*self.shared;
        write!(f, "Authenticator({} users, {} nkeys)", users.len(), nkeys.len())
    }
}

impl Authenticator {
    /// Checks and compiles a configuration. `cache_key` are 32 secret random bytes that key the memory of bcrypt checks.
    ///
    /// # Errors
    /// The first entry that makes no sense.
    pub fn new(config: AuthConfig, cache_key: [u8; 32]) -> Result<Authenticator, ConfigError> {
        let AuthConfig { users, default_permissions, default_account, .. } = &config;
        let mut compiled = BTreeMap::new();
        let mut shared = Shared {
            users: BTreeMap::new(),
            nkeys: BTreeMap::new(),
            by_dn: Vec::new(),
            proxies: Vec::new(),
            proxy_required: config.proxy_required,
            default_account: if default_account.is_empty() { GLOBAL_ACCOUNT } else { default_account }.into(),
            tls_mapped: config.tls_mapped.clone(),
            cache: PasswordCache::new(cache_key),
        };
        for user in users {
            let account = if user.account.is_empty() { &*shared.default_account } else { &user.account };
            let permissions = match user.permissions.as_ref().or_else(|| default_permissions.get(account)) {
                Some(p) => Some(compile_once(&mut compiled, p)?),
                None => None,
            };
            let account = account.into();
            shared.add(user, account, permissions)?;
        }
        for (name, user) in &shared.users {
            if let Some(dn) = DistinguishedName::parse(name) {
                shared.by_dn.push((dn, user.clone()));
            }
        }
        for text in &config.trusted_proxies {
            let key = PublicKey::signer(text).ok_or_else(|| ConfigError::BadProxyKey(text.clone()))?;
            shared.proxies.push((text.as_str().into(), key));
        }
        Self::with_shared(Arc::new(shared), config.listener)
    }

    /// The same users for another listener.
    ///
    /// # Errors
    /// A `no_auth_user` that is not among the users.
    pub fn for_listener(&self, listener: ListenerConfig) -> Result<Authenticator, ConfigError> {
        Self::with_shared(self.shared.clone(), listener)
    }

    fn with_shared(shared: Arc<Shared>, listener: ListenerConfig) -> Result<Authenticator, ConfigError> {
        if let Some(name) = &listener.no_auth_user {
            if shared.users.is_empty() && shared.nkeys.is_empty() {
                return Err(ConfigError::NoAuthUserWithoutUsers(name.clone()));
            }
            if !shared.users.contains_key(name.as_str()) && !shared.nkeys.contains_key(name.as_str()) {
                return Err(ConfigError::NoAuthUserUnknown(name.clone()));
            }
        }
        let own = listener.single.as_ref().map(|s| s.password.expose());
        let all = shared.users.values().map(|u| u.password.expose()).chain(own);
        let mut by_cost: BTreeMap<u32, (usize, &str)> = BTreeMap::new();
        for stored in all {
            if let Some(cost) = bcrypt_cost(stored) {
                by_cost.entry(cost).or_insert((0, stored)).0 += 1;
            }
        }
        let decoy = by_cost.into_values().max_by_key(|(count, _)| *count).map(|(_, stored)| stored.into());
        Ok(Authenticator { shared, listener: Arc::new(listener), decoy })
    }

    /// Whether credentials are looked at at all. Without them everybody is let in to the default account.
    pub fn is_required(&self) -> bool {
        let Shared { users, nkeys, .. } = &*self.shared;
        !users.is_empty()
            || !nkeys.is_empty()
            || self.listener.token.is_some()
            || self.listener.single.is_some()
    }

    /// `auth_required` of INFO: not set where a configured user stands in for absent credentials.
    pub fn info_auth_required(&self) -> bool {
        self.is_required() && (self.listener.no_auth_user.is_none() || self.listener.made_up)
    }

    /// Whether INFO must carry a nonce.
    pub fn needs_nonce(&self) -> bool {
        !self.shared.nkeys.is_empty() || !self.shared.proxies.is_empty()
    }

    /// Whether a password or token is kept in the clear, which deserves a warning at start.
    pub fn has_plaintext_passwords(&self) -> bool {
        let single = self.listener.single.as_ref().map(|s| &s.password);
        let single = single.into_iter().filter(|p| !p.is_empty());
        // No password at all is a plain one, unless a certificate stands in for it.
        let mapped = self.listener.tls_map;
        let users = self.shared.users.values().map(|u| &u.password).filter(|p| !mapped || !p.is_empty());
        users.chain(single).any(|p| !is_bcrypt(p.expose()))
    }

    /// Decides, or says what slow work remains. Takes microseconds.
    pub fn check(&self, attempt: &Attempt<'_>) -> Check {
        self.evaluate(attempt).unwrap_or_else(|reason| Check::Done(Decision::Reject(reason)))
    }

    fn evaluate(&self, attempt: &Attempt<'_>) -> Result<Check, Reason> {
        if attempt.legacy_account {
            return Err(Reason::LegacyAccount);
        }
        let proxy = self.trusted_proxy(attempt)?;
        if self.shared.proxy_required && proxy.is_none() {
            return Err(Reason::ProxyRequired);
        }
        if !self.is_required() {
            return Ok(accept(self.nobody(attempt.shown_name(), Source::Open, proxy)));
        }
        let stand_in = self.listener.no_auth_user.as_deref().filter(|_| attempt.is_anonymous());
        if let Some(check) = self.by_nkey(attempt, stand_in, &proxy)? {
            return Ok(check);
        }
        if !self.shared.users.is_empty()
            && let Some(check) = self.by_user(attempt, stand_in, &proxy)?
        {
            return Ok(check);
        }
        if let Some(token) = &self.listener.token {
            if attempt.token.is_empty() {
                return Err(Reason::NoCredentials);
            }
            let identity = self.nobody(attempt.shown_name(), Source::Token, proxy);
            return self.by_password("", token, attempt.token, identity, Reason::WrongToken);
        }
        if let Some(SingleUser { name, password }) = &self.listener.single {
            if attempt.user != name {
                return self.refuse_slowly(attempt, Reason::UnknownUser);
            }
            let identity = self.nobody(name, Source::SingleUser, proxy);
            return self.by_password(name, password, attempt.pass, identity, Reason::WrongPassword);
        }
        Err(Reason::NoCredentials)
    }

    /// The proxy that signed the nonce. A signature counts only where proxies are configured, and then it must be good.
    fn trusted_proxy(&self, attempt: &Attempt<'_>) -> Result<Option<Arc<str>>, Reason> {
        let proxies = &self.shared.proxies;
        if proxies.is_empty() || attempt.proxy_sig.is_empty() {
            return Ok(None);
        }
        let signed = proxies
            .iter()
            .find(|(_, key)| key.verify(attempt.nonce, attempt.proxy_sig, SigEncoding::UrlOnly));
        signed.map(|(text, _)| Some(text.clone())).ok_or(Reason::ProxyNotTrusted)
    }

    fn by_nkey(
        &self,
        attempt: &Attempt<'_>,
        stand_in: Option<&str>,
        proxy: &Option<Arc<str>>,
    ) -> Result<Option<Check>, Reason> {
        let nkeys = &self.shared.nkeys;
        let (presented, source) = match stand_in {
            Some(name) if nkeys.contains_key(name) => (name, Source::NoAuthUser),
            _ => (attempt.nkey, Source::Nkey),
        };
        // An nkey sent to a server without nkey users is not looked at.
        if nkeys.is_empty() || presented.is_empty() {
            return Ok(None);
        }
        let Nkey { key, user } = nkeys.get(presented).ok_or(Reason::UnknownNkey)?;
        user.may_use(attempt.connection_type, proxy)?;
        // Whoever is let in without credentials is let in with a bad signature too, as in nats-server.
        let open = self.listener.no_auth_user.as_deref() == Some(presented);
        if !open && !key.verify(attempt.nonce, attempt.sig, SigEncoding::UrlOrStandard) {
            return Err(Reason::BadSignature);
        }
        Ok(Some(accept(user.identity(source, proxy))))
    }

    fn by_user(
        &self,
        attempt: &Attempt<'_>,
        stand_in: Option<&str>,
        proxy: &Option<Arc<str>>,
    ) -> Result<Option<Check>, Reason> {
        let Shared { users, by_dn, .. } = &*self.shared;
        if self.listener.tls_map {
            let usable = |u: &&Arc<User>| u.types.allows(attempt.connection_type);
            let cert = attempt.tls.ok_or(Reason::UnknownCertificate)?;
            let user = map_user(
                cert,
                |name| users.get(name).filter(usable),
                || by_dn.iter().map(|(dn, u)| (dn, u)).filter(|(_, u)| usable(u)).collect(),
            );
            let user = user.ok_or(Reason::UnknownCertificate)?;
            user.may_use(attempt.connection_type, proxy)?;
            let identity = user.identity(Source::Certificate, proxy);
            return self
                .by_password(&user.name, &user.password, attempt.pass, identity, Reason::WrongPassword)
                .map(Some);
        }
        if let Some(user) = stand_in.and_then(|name| users.get(name)) {
            user.may_use(attempt.connection_type, proxy)?;
            if is_bcrypt(user.password.expose()) {
                return Err(Reason::NoAuthUserHashed);
            }
            return Ok(Some(accept(user.identity(Source::NoAuthUser, proxy))));
        }
        if attempt.user.is_empty() {
            return Ok(None);
        }
        let Some(user) = users.get(attempt.user) else {
            return self.refuse_slowly(attempt, Reason::UnknownUser).map(Some);
        };
        if let Err(reason) = user.may_use(attempt.connection_type, proxy) {
            return self.refuse_slowly(attempt, reason).map(Some);
        }
        let stands_in = self.listener.no_auth_user.as_deref() == Some(attempt.user);
        if user.password.is_empty()
            && !stands_in
            && self.shared.tls_mapped.iter().any(|t| user.types.allows(*t))
        {
            return self.refuse_slowly(attempt, Reason::CertificateRequired).map(Some);
        }
        let identity = user.identity(Source::User, proxy);
        self.by_password(&user.name, &user.password, attempt.pass, identity, Reason::WrongPassword).map(Some)
    }

    fn by_password(
        &self,
        name: &str,
        stored: &Secret,
        given: &str,
        identity: Identity,
        otherwise: Reason,
    ) -> Result<Check, Reason> {
        let text = stored.expose();
        if !is_bcrypt(text) {
            return if stored.matches(given) { Ok(accept(identity)) } else { Err(otherwise) };
        }
        self.bcrypt(name, text.into(), given, Some(identity), otherwise)
    }

    /// I-3: refuses a login by name after the work that a wrong password would have cost.
    fn refuse_slowly(&self, attempt: &Attempt<'_>, reason: Reason) -> Result<Check, Reason> {
        match &self.decoy {
            Some(hash) => self.bcrypt(attempt.user, hash.clone(), attempt.pass, None, reason),
            None => Err(reason),
        }
    }

    fn bcrypt(
        &self,
        name: &str,
        stored: Arc<str>,
        given: &str,
        identity: Option<Identity>,
        otherwise: Reason,
    ) -> Result<Check, Reason> {
        // A hash that is cut short matches nothing.
        if bcrypt_cost(&stored).is_none() {
            return Err(otherwise);
        }
        let digest = self.shared.cache.digest(name, &stored, given);
        let given = Secret::new(given);
        let job = BcryptJob { shared: self.shared.clone(), stored, given, digest, identity, otherwise };
        match self.shared.cache.get(&digest) {
            Some(matched) => Ok(Check::Done(job.decide(matched))),
            None => Ok(Check::Pending(job)),
        }
    }

    /// The identity of a connection that no entry of the users' list describes.
    fn nobody(&self, name: &str, source: Source, proxy: Option<Arc<str>>) -> Identity {
        Identity {
            name: name.into(),
            account: self.shared.default_account.clone(),
            permissions: None,
            limits: Limits::UNLIMITED,
            source,
            proxy,
            expires_at_ns: None,
            user_tag: None,
        }
    }
}

impl Shared {
    fn add(
        &mut self,
        config: &UserConfig,
        account: Arc<str>,
        permissions: Option<Arc<Permissions>>,
    ) -> Result<(), ConfigError> {
        let password = config.password.clone().unwrap_or_default();
        let name: Arc<str> = config.nkey.as_ref().unwrap_or(&config.name).as_str().into();
        let has_password = !password.is_empty();
        let user = Arc::new(User {
            name: name.clone(),
            password,
            account,
            permissions,
            types: config.connection_types,
            proxy_required: config.proxy_required,
            limits: config.limits,
        });
        if config.nkey.is_some() {
            if !config.name.is_empty() || has_password {
                return Err(ConfigError::NkeyWithPassword);
            }
            let key = PublicKey::user(&name).ok_or_else(|| ConfigError::BadNkey(name.to_string()))?;
            if self.nkeys.insert(name.clone(), Nkey { key, user }).is_some() {
                return Err(ConfigError::DuplicateNkey(name.to_string()));
            }
            return Ok(());
        }
        if name.is_empty() {
            return Err(ConfigError::UserRequired);
        }
        if self.users.insert(name.clone(), user).is_some() {
            return Err(ConfigError::DuplicateUser(name.to_string()));
        }
        Ok(())
    }
}

impl User {
    pub(super) fn may_use(&self, connection: ConnectionType, proxy: &Option<Arc<str>>) -> Result<(), Reason> {
        if !self.types.allows(connection) {
            return Err(Reason::ConnectionType);
        }
        if self.proxy_required && proxy.is_none() {
            return Err(Reason::ProxyRequired);
        }
        Ok(())
    }

    pub(super) fn identity(&self, source: Source, proxy: &Option<Arc<str>>) -> Identity {
        Identity {
            name: self.name.clone(),
            account: self.account.clone(),
            permissions: self.permissions.clone(),
            limits: self.limits,
            source,
            proxy: proxy.clone(),
            expires_at_ns: None,
            user_tag: None,
        }
    }
}

fn accept(identity: Identity) -> Check {
    Check::Done(Decision::Accept(identity))
}

/// Users with equal permissions share one compiled form.
fn compile_once(
    compiled: &mut BTreeMap<PermissionsConfig, Arc<Permissions>>,
    config: &PermissionsConfig,
) -> Result<Arc<Permissions>, ConfigError> {
    if let Some(known) = compiled.get(config) {
        return Ok(known.clone());
    }
    let permissions = Arc::new(Permissions::compile(config)?);
    compiled.insert(config.clone(), permissions.clone());
    Ok(permissions)
}

/// A bcrypt comparison that remains to be done: pure computation, to be run where tens of milliseconds do not matter.
/// How many may run at once is the shell's to bound.
pub struct BcryptJob {
    shared: Arc<Shared>,
    stored: Arc<str>,
    given: Secret,
    digest: [u8; 32],
    /// Who it would be; `None` for a refusal that only takes its time.
    identity: Option<Identity>,
    otherwise: Reason,
}

impl BcryptJob {
    /// Compares, remembers the outcome and decides.
    pub fn run(self) -> Decision {
        // An equal job may have run in the meantime: a storm of reconnects queues many.
        let known = self.shared.cache.get(&self.digest);
        let matched = known.unwrap_or_else(|| bcrypt_matches(&self.stored, self.given.expose()));
        if known.is_none() {
            self.shared.cache.put(self.digest, matched);
        }
        self.decide(matched)
    }

    /// The work in bcrypt rounds, 2^cost: what a scheduler may weigh jobs by.
    pub fn rounds(&self) -> u64 {
        1 << bcrypt_cost(&self.stored).expect("a job is made only for a well-formed hash")
    }

    fn decide(self, matched: bool) -> Decision {
        match self.identity {
            Some(identity) if matched => Decision::Accept(identity),
            _ => Decision::Reject(self.otherwise),
        }
    }
}

impl fmt::Debug for BcryptJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BcryptJob({} rounds)", self.rounds())
    }
}
