//! Accounts, interest, and the way of a message from one link to the others.
//!
//! Owns: [`Account`]s with their interest and limits, [`Link`]s (what the broker knows of a connection: its outbox, its
//! subscriptions, its counters), and the [`Router`] that each publisher has. Knows no socket and no stream; it frames
//! deliveries with `wire` and leaves the writing to the link's [`Transport`].
//!
//! The way of a message: [`Router::publish`] looks the subject up in the publisher's own cache of plans, appends the framed
//! message to each receiver's outbox, and remembers whose outbox it was the first to fill. [`Router::flush`], once for a
//! batch of messages, writes those out.
//!
//! Invariants:
//! * B-1: messages of one publisher reach one subscription in the order of publishing.
//! * B-2: of a queue group exactly one member gets a message.
//! * B-3: a message crosses from one account to another only by an import of the other's export.
//! * B-4: a subscription with a maximum gets no more than that.
//! * B-5: an outbox never holds more than its limit and one message.
//! * B-6: whoever makes an outbox non-empty sees to it that it is flushed; nobody else needs to.
//! * B-7: a message that is only to be traced reaches nobody.
//! * B-8 and B-9 stand in `routes`, B-10 in `gather`.
//! * B-11: what the server itself says (answers, deliveries, events; answers that come back from another account) is no request: no receiver that serves
//!   requests gets it, here or at another server. Its subject was chosen by somebody who may not be allowed to publish to it.

mod account;
mod gather;
mod imports;
mod link;
mod outbox;
mod plan;
mod router;
mod routes;
#[cfg(test)]
mod routes_tests;
pub mod rules;
mod run;
mod stats;
mod sub;
#[cfg(test)]
mod tests;
pub mod trace;

/// A queue group whose members on the publisher's own server come before all others. It is the engines' own: a client's subscription by that name
/// takes requests away from its server.
pub const LOCAL_FIRST: &[u8] = b"_fulmar.desks_";

/// Queue groups whose names begin so are never shared out: the server with the most members gets every message, of several the nearest. Who is to
/// leave joins once more before another comes: those who publish change once, and no message is overtaken by the next.
pub const MOST_FIRST: &[u8] = b"_fulmar.doors_";

pub use account::{Account, AccountLimits, Broker, Watch};
pub use gather::{Gathered, Gatherer};
pub use imports::{Crossing, Latency, REQUEST_INFO};
pub use link::{Closed, Inbound, Kind, Link, LinkFlags, LinkOptions, Transport};
pub use outbox::{Chunk, Out, SHARE_BYTES_MIN};
pub use router::{Deliveries, Loose, Message, Outcome, Router, Sender};
pub use routes::{Carries, RouteInbox, RouteOut};
pub use run::Run;
pub use stats::{Counter, Stats, Traffic};
pub use sub::{Sub, SubscribeError};
pub use trace::{Step, Trace};
