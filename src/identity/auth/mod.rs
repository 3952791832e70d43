//! Authentication: from what a client sends in CONNECT to who it is.
//!
//! The decision is pure and never waits. Where it needs bcrypt, [`Authenticator::check`] answers [`Check::Pending`] and
//! the shell runs [`BcryptJob::run`] on a thread that may be slow; everything else is decided at once.
//!
//! Order, as nats-server 2.15.1 evaluates it: legacy account fields, proxy signature, open server, nkey, certificate
//! mapping or user and password, token, single user. `no_auth_user` stands in where user, password, token and nkey are
//! all empty; a signature or JWT alone does not count as a credential.
//!
//! Invariants:
//! - `I-1: one answer for all`: whatever the reason, the client reads `Authorization Violation`; the [`Reason`] is for
//!   logs and closed-connection reports.
//! - `I-3: unknown users cost what known ones do`: where any password is a bcrypt hash, a login by name that fails
//!   early does the same work and uses the same memory of past checks, against a hash of the commonest cost.
//! - `I-4: a user without a password that a certificate can name is not open by name`: see [`AuthConfig::tls_mapped`].
//!
//! Room for more: operator JWTs and auth callout are further sources of the same [`Identity`]. A JWT is decided at
//! once, before the nkey step, from claims that the caller looked up; a callout is one more kind of `Pending`, whose
//! answer the shell awaits. Both fill [`Identity::expires_at_ns`] and [`Identity::user_tag`], which static credentials
//! leave empty.

mod check;
mod renew;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::conn_type::{ConnectionType, ConnectionTypes};
use crate::limits::Limits;
use crate::permissions::{PermissionError, Permissions, PermissionsConfig};
use crate::secret::Secret;
use crate::tls::PeerCert;

pub use check::{Authenticator, BcryptJob};
pub use renew::Renewal;

/// The account of users that are in no `accounts` block.
pub const GLOBAL_ACCOUNT: &str = "$G";

/// What the client reads for every refusal.
pub const AUTHORIZATION_VIOLATION: &str = "Authorization Violation";

/// A user or nkey entry of the configuration.
#[derive(Clone, Debug, Default)]
pub struct UserConfig {
    /// The name; empty where `nkey` is set.
    pub name: String,
    /// Plain or bcrypt; absent and empty are the same.
    pub password: Option<Secret>,
    /// The public key (`U…`) of an nkey user.
    pub nkey: Option<String>,
    /// The user's own permissions; without them the account's defaults hold.
    pub permissions: Option<PermissionsConfig>,
    /// Where the credential may be used.
    pub connection_types: ConnectionTypes,
    /// The account that the user belongs to.
    pub account: String,
    /// Whether the connection must come through a trusted proxy.
    pub proxy_required: bool,
    /// The user's own limits.
    pub limits: Limits,
}

/// The single user of an `authorization` block.
#[derive(Clone, Debug)]
pub struct SingleUser {
    /// The name.
    pub name: String,
    /// Plain or bcrypt, perhaps empty.
    pub password: Secret,
}

/// What may differ between the listeners of one server.
#[derive(Clone, Debug, Default)]
pub struct ListenerConfig {
    /// `verify_and_map`: users are found by their certificates, not by the name they send.
    pub tls_map: bool,
    /// The name or nkey of the user that stands in where no credentials are sent.
    pub no_auth_user: Option<String>,
    /// That one is of no configuration: INFO says all the same that credentials are looked at.
    pub made_up: bool,
    /// A token, plain or bcrypt.
    pub token: Option<Secret>,
    /// A single user.
    pub single: Option<SingleUser>,
}

/// Everything that static authentication knows.
#[derive(Clone, Debug, Default)]
pub struct AuthConfig {
    /// All users of all accounts.
    pub users: Vec<UserConfig>,
    /// Permissions by account, for its users without their own.
    pub default_permissions: BTreeMap<String, PermissionsConfig>,
    /// The account of token, single-user and open connections; empty means [`GLOBAL_ACCOUNT`].
    pub default_account: String,
    /// `proxy_required` of the `authorization` block: holds for everybody.
    pub proxy_required: bool,
    /// Public keys of trusted proxies.
    pub trusted_proxies: Vec<String>,
    /// The connection types that arrive on listeners with `tls_map`. A user without a password that may use one of
    /// them cannot log in by name on a listener without the mapping (I-4), unless it is the `no_auth_user`.
    pub tls_mapped: Vec<ConnectionType>,
    /// The listener's own part.
    pub listener: ListenerConfig,
}

/// Why a configuration was refused. The texts are those of nats-server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// Two users with one name.
    DuplicateUser(String),
    /// Two users with one nkey.
    DuplicateNkey(String),
    /// An entry with neither name nor nkey.
    UserRequired,
    /// An nkey entry with a name or password.
    NkeyWithPassword,
    /// Not a public user key.
    BadNkey(String),
    /// Not a public key of a proxy.
    BadProxyKey(String),
    /// `no_auth_user` names nobody.
    NoAuthUserUnknown(String),
    /// `no_auth_user` without any users.
    NoAuthUserWithoutUsers(String),
    /// A permission list is malformed.
    Permission(PermissionError),
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigError::DuplicateUser(u) => write!(f, "Duplicate user {u:?} detected"),
            ConfigError::DuplicateNkey(k) => write!(f, "Duplicate nkey {k:?} detected"),
            ConfigError::UserRequired => f.write_str("User entry requires a user"),
            ConfigError::NkeyWithPassword => f.write_str("Nkey users do not take usernames or passwords"),
            ConfigError::BadNkey(_) => f.write_str("Not a valid public nkey for a user"),
            ConfigError::BadProxyKey(k) => write!(f, "invalid trusted proxy key {k:?}"),
            ConfigError::NoAuthUserUnknown(u) => write!(
                f,
                "no_auth_user: {u:?} not present as user or nkey in authorization block or account configuration"
            ),
            ConfigError::NoAuthUserWithoutUsers(u) => {
                write!(f, "no_auth_user: {u:?} present, but users/nkeys are not defined")
            }
            ConfigError::Permission(e) => e.fmt(f),
        }
    }
}

impl std::error::Error for ConfigError {}

impl From<PermissionError> for ConfigError {
    fn from(e: PermissionError) -> Self {
        ConfigError::Permission(e)
    }
}

/// What a connection presents. Absent fields are empty.
#[derive(Clone, Copy, Default)]
pub struct Attempt<'a> {
    /// `user` of CONNECT.
    pub user: &'a str,
    /// `pass` of CONNECT.
    pub pass: &'a str,
    /// `auth_token` of CONNECT.
    pub token: &'a str,
    /// `nkey` of CONNECT.
    pub nkey: &'a str,
    /// `sig` of CONNECT.
    pub sig: &'a str,
    /// `jwt` of CONNECT; static authentication ignores it, as nats-server does outside operator mode.
    pub jwt: &'a str,
    /// `proxy_sig` of CONNECT.
    pub proxy_sig: &'a str,
    /// Whether CONNECT carried a non-empty `account` or a true `new_account`.
    pub legacy_account: bool,
    /// The nonce of our INFO as it was printed; empty where none was sent.
    pub nonce: &'a [u8],
    /// The peer's certificate, already verified against the listener's authorities.
    pub tls: Option<&'a PeerCert>,
    /// How the connection arrived.
    pub connection_type: ConnectionType,
}

impl<'a> Attempt<'a> {
    /// The name to show for this attempt: its nkey, its user, or `[REDACTED]` for a token.
    pub fn shown_name(&self) -> &'a str {
        match (self.nkey, self.user, self.token) {
            ("", "", "") => "",
            ("", "", _) => "[REDACTED]",
            ("", user, _) => user,
            (nkey, ..) => nkey,
        }
    }

    fn is_anonymous(&self) -> bool {
        self.user.is_empty() && self.pass.is_empty() && self.token.is_empty() && self.nkey.is_empty()
    }
}

impl fmt::Debug for Attempt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attempt")
            .field("name", &self.shown_name())
            .field("connection_type", &self.connection_type)
            .field("tls", &self.tls.is_some())
            .finish_non_exhaustive()
    }
}

/// What an identity rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The server asks nobody.
    Open,
    /// No credentials were sent, and a user stands in for that.
    NoAuthUser,
    /// A signed nonce.
    Nkey,
    /// A certificate.
    Certificate,
    /// A user of the list, by password.
    User,
    /// The token.
    Token,
    /// The single user.
    SingleUser,
}

/// Who a connection is and what it may do. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The name to show: user name, public nkey, or `[REDACTED]` for a token.
    pub name: Arc<str>,
    /// The account.
    pub account: Arc<str>,
    /// Compiled permissions, shared by all connections with the same ones; `None` restricts nothing.
    pub permissions: Option<Arc<Permissions>>,
    /// The user's limits; the account's and the server's are combined with them by [`Limits::min`].
    pub limits: Limits,
    /// What the identity rests on.
    pub source: Source,
    /// The public key of the trusted proxy that the connection came through.
    pub proxy: Option<Arc<str>>,
    /// When the credential lapses, Unix nanoseconds. Static credentials never do.
    pub expires_at_ns: Option<i64>,
    /// The name that a JWT gives its user, shown as `user_name`. Static users have none.
    pub user_tag: Option<Arc<str>>,
}

impl Identity {
    /// The `data` of an answer to `$SYS.REQ.USER.INFO`, fields in the order of nats-server. `account_name` is the
    /// account's printable name, which differs from its id only where accounts are keys.
    pub fn user_info(&self, account_name: &str, now_ns: i64) -> Value {
        let mut data = Map::new();
        data.insert("user".into(), Value::from(&*self.name));
        data.insert("account".into(), Value::from(&*self.account));
        data.insert("account_name".into(), Value::from(account_name));
        if let Some(tag) = &self.user_tag {
            data.insert("user_name".into(), Value::from(&**tag));
        }
        if let Some(permissions) = &self.permissions {
            data.insert("permissions".into(), permissions.to_json());
        }
        if let Some(at) = self.expires_at_ns {
            data.insert("expires".into(), Value::from(at.saturating_sub(now_ns)));
        }
        Value::Object(data)
    }
}

/// Why a connection is refused. Not told to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// `account` or `new_account` in CONNECT.
    LegacyAccount,
    /// Nothing to go by.
    NoCredentials,
    /// No such user.
    UnknownUser,
    /// No such nkey.
    UnknownNkey,
    /// The wrong password.
    WrongPassword,
    /// The wrong token.
    WrongToken,
    /// No signature, a malformed one, or one over something else.
    BadSignature,
    /// The credential may not be used on this kind of connection.
    ConnectionType,
    /// No user has a name that the certificate gives.
    UnknownCertificate,
    /// The user must be named by its certificate (I-4).
    CertificateRequired,
    /// `no_auth_user` names a user whose password is a bcrypt hash; nats-server refuses that too.
    NoAuthUserHashed,
    /// A proxy signed that is not trusted.
    ProxyNotTrusted,
    /// The credential needs a trusted proxy.
    ProxyRequired,
}

impl Reason {
    /// The reason for closing that monitoring and disconnect events show.
    pub fn closed_reason(self) -> &'static str {
        match self {
            Reason::ProxyNotTrusted => "Proxy Not Trusted",
            Reason::ProxyRequired => "Proxy Required",
            _ => "Authentication Failure",
        }
    }
}

/// The outcome.
#[derive(Clone, Debug)]
pub enum Decision {
    /// Let in as this.
    Accept(Identity),
    /// Send [`AUTHORIZATION_VIOLATION`] and close.
    Reject(Reason),
}

/// The answer of [`Authenticator::check`].
#[derive(Debug)]
pub enum Check {
    /// Decided.
    Done(Decision),
    /// Decided once the job has run.
    Pending(BcryptJob),
}
