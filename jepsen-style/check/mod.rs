//! What a history must show. Each checker is a function of the history; what it cannot know it leaves out rather than
//! guesses, so that a finding is a fact.
//!
//! | id | says | where |
//! |---|---|---|
//! | P-1 | what was acknowledged is in the log, once, at its sequence | `log` |
//! | P-2 | the log holds nothing that was not written, or was refused | `log` |
//! | P-3 | what was acknowledged before another was sent stands before it | `log` |
//! | P-4 | every key is a linearizable register | `register` |
//! | P-5 | every acknowledged message reaches a worker | `delivery` |
//! | P-6 | a message belongs to one worker at a time: none comes again before its time | `delivery` |
//! | P-7 | none comes again after its confirmation was confirmed | `delivery` |
//! | P-8 | none comes more often than `max_deliver` | `delivery` |

mod delivery;
mod log;
mod register;
#[cfg(test)]
mod tests;

pub use delivery::{Delivered, Rules, delivery};
pub use log::{Log, log};
pub use register::{Register, register};
