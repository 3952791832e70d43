//! What must hold in each state, and what must happen in some.
//!
//! Owns the properties of the crate's head. Those that a step breaks are noted in the state by the step itself
//! ([`State::broken`]); the others look at the whole state.

use std::sync::Arc;

use stateright::Property;

use crate::node::Node;
use crate::quorum_write::{Config, Persist, Promised, QuorumWrite, State};

/// All properties of a world.
#[must_use]
pub fn all(config: &Config) -> Vec<Property<QuorumWrite>> {
    let mut all = vec![
        Property::always("Q-1 one leader a term", |_, state: &State| !is_broken(state, "Q-1")),
        Property::always("Q-2 logs match", |_, state: &State| logs_match(&state.nodes)),
        Property::always("Q-3 committed prefixes agree", |_, state: &State| !is_broken(state, "Q-3")),
        Property::always("Q-4 what was promised is on a majority's disks", |_, state: &State| {
            promised(state).all(|p| is_on_majority(&state.nodes, p))
        }),
        Property::always("Q-5 a later leader has what was promised", |_, state: &State| {
            promised(state).all(|p| later_leaders_have(&state.nodes, p))
        }),
        Property::always("Q-6 no replica stops or complains", |_, state: &State| !is_broken(state, "Q-6")),
        Property::always("Q-7 logs and disks agree", |_, state: &State| !is_broken(state, "Q-7")),
        Property::sometimes("a term is led", |_, state: &State| !state.leaders.is_empty()),
    ];
    // A world in which these do not happen proves nothing.
    if config.budget.writes > 0 {
        all.push(Property::sometimes("all writes are acknowledged", |model: &QuorumWrite, state: &State| {
            state.acked.len() == usize::from(model.config.budget.writes)
        }));
    }
    if config.budget.timeouts > 1 {
        all.push(Property::sometimes("a later leader commits what an older one left", |_, state: &State| {
            state.committed.iter().any(|c| c.by > c.identity.0)
        }));
        // To be seen, the write that truncates has to wait.
        let waits = match config.persist {
            Persist::Explicit => true,
            Persist::WhileCrashesRemain => config.budget.crashes > 0,
            Persist::AtOnce => false,
        };
        if waits {
            all.push(Property::sometimes("a conflicting entry goes", |_, state: &State| {
                state.nodes.iter().flat_map(|n| &n.pending).any(|w| w.truncate.is_some())
            }));
        }
    }
    all
}

fn is_broken(state: &State, id: &str) -> bool {
    state.broken.as_ref().is_some_and(|b| b.id == id)
}

fn promised(state: &State) -> impl Iterator<Item = &Promised> {
    state.committed.iter().chain(&state.acked)
}

/// Q-2, of what is held and of what is on disk.
fn logs_match(nodes: &[Arc<Node>]) -> bool {
    nodes.iter().enumerate().all(|(at, a)| {
        nodes[..at].iter().all(|b| {
            // A chain names all that stands before it, so that each index is judged alone.
            let held = a.ahead.iter().zip(&b.ahead).all(|(x, y)| x.0 != y.0 || x.1 == y.1);
            let kept = a.log.iter().zip(&b.log).all(|(x, y)| x.term != y.term || x.chain == y.chain);
            held && kept
        })
    })
}

fn is_on_majority(nodes: &[Arc<Node>], promised: &Promised) -> bool {
    let have = nodes.iter().filter(|n| n.kept(promised.index) == Some(promised.identity)).count();
    have > nodes.len() / 2
}

fn later_leaders_have(nodes: &[Arc<Node>], promised: &Promised) -> bool {
    let later = |n: &&Arc<Node>| n.leads() && n.core.status().term > promised.by;
    nodes.iter().filter(later).all(|n| n.held(promised.index) == Some(promised.identity))
}
