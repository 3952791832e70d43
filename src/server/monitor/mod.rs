//! Monitoring: what the server says about itself, over HTTP and (through `events`) under $SYS.
//!
//! Owns the HTTP listeners, the endpoints' answers and their text. Each endpoint is a function of the server and its
//! options that returns a struct with nats-server's fields in nats-server's order; [`http`] and `events` only differ in
//! how they ask and how they wrap the answer. Counts nothing itself but requests: counters belong to who does the work.
//!
//! Invariants:
//! * M-1: no lock that a message needs is held while an answer is put together or written.
//! * M-2: a peer of the listener holds at most one bounded buffer and one task, for a bounded time.
//! * M-3: no answer holds a secret: no password, no token, no credentials of a URL.

mod accountz;
mod connz;
mod healthz;
mod http;
mod inner;
mod json;
mod jsz;
mod metrics;
mod options;
mod pages;
mod peers;
mod query;
mod root;
mod state;
mod subsz;
mod varz;

pub use accountz::{
    AccountInfo, AccountStat, AccountStatz, Accountz, DataStats, MsgBytes, account_info, accountz, accstatz,
};
pub use connz::{ConnInfo, Connz, SubDetail, connz};
pub use healthz::{Healthz, healthz, healthz_now};
pub use http::listen;
pub use inner::{Expvarz, IpQueue, Raftz, expvarz, ipqueuesz, raftz};
pub use json::{Time, age, compact, duration, pretty};
pub use jsz::{Jsz, jetstream_stats, jsz, jsz_account, jsz_accounts, jsz_is_meant};
pub use options::*;
pub use peers::{Gatewayz, Leafz, Routez, gatewayz, leafz, routez};
pub use state::State;
pub use subsz::{InterestStats, Subsz, subsz};
pub use varz::{ByKind, Varz, by_kind, varz};
