//! identity.
mod conn_type;
mod keys;
mod limits;
mod permissions;
mod replies;
mod reserved;
mod secret;
pub use conn_type::*;
pub use keys::*;
pub use limits::*;
pub use permissions::*;
pub use replies::*;
pub use reserved::*;
pub use secret::*;
