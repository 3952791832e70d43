//! Who a connection is, and what it may do: credentials, permissions, limits and keys.
//!
//! Floor 1. Opens no socket, reads no clock and no randomness: certificates arrive as facts, time as Unix nanoseconds,
//! nonces and seeds as bytes. Counts nothing: limits are data here.
//!
//! Start reading at [`Authenticator::check`], then [`Permissions`]. docs/design/0005-identity.md says why it is so and
//! where it differs from nats-server.

mod auth;
mod conn_type;
mod keys;
mod limits;
mod password;
mod permissions;
mod replies;
mod reserved;
mod secret;
mod tls;

pub use auth::{
    AUTHORIZATION_VIOLATION, Attempt, AuthConfig, Authenticator, BcryptJob, Check, ConfigError, Decision,
    GLOBAL_ACCOUNT, Identity, ListenerConfig, Reason, Renewal, SingleUser, Source, UserConfig,
};
pub use conn_type::{ConnectionType, ConnectionTypes};
pub use keys::{NONCE_LEN, NONCE_RAW_LEN, Nonce, ServerKey, is_public_account_key, is_public_user_key};
pub use limits::Limits;
pub use password::is_bcrypt;
pub use permissions::{
    Asker, PermissionError, Permissions, PermissionsConfig, ResponsePermission, SubjectPermission, Verdict,
};
pub use replies::{MAX_BYTES as MAX_GRANT_BYTES, MAX_GRANTS, ReplyGrants};
pub use reserved::{is_reserved_queue, is_reserved_reply, is_reserved_subject, is_system_subject};
pub use secret::Secret;
pub use tls::{Attribute, PeerCert, PinnedCerts, escaped};
