//! The messages under way.
//!
//! Owns the set of them. A message that waits for ever is a lost one, and any may be taken first: so delay, loss and reordering need
//! no action of their own. Does not decide which messages are worth keeping: `quorum_write` does.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use raft::Message;
use rustc_hash::FxHasher;

/// A message and the key by which it is ordered and hashed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Envelope(Arc<(u64, Message)>);

impl Envelope {
    /// Wraps a message.
    #[must_use]
    pub fn new(message: Message) -> Self {
        Self(Arc::new((print(&message), message)))
    }

    /// What is inside.
    #[must_use]
    pub fn message(&self) -> &Message {
        &self.0.1
    }
}

impl Hash for Envelope {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0.0);
    }
}

/// A fingerprint that is the same in every run, so that counts of states can be compared.
pub(crate) fn print(what: &impl Hash) -> u64 {
    let mut hasher = FxHasher::default();
    what.hash(&mut hasher);
    // The hasher is fast and its low bits are weak; states are told apart by mixtures of these.
    let mut z = hasher.finish();
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The set, in order of the keys: equal sets are equal states.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Net(Vec<Envelope>);

impl Net {
    /// Puts a message in, unless it is there.
    pub fn insert(&mut self, message: Message) {
        let envelope = Envelope::new(message);
        let key = envelope.0.0;
        let at = self.0.partition_point(|e| e.0.0 < key);
        // Equal keys of unequal messages are kept side by side.
        if !self.0[at..].iter().take_while(|e| e.0.0 == key).any(|e| *e == envelope) {
            self.0.insert(at, envelope);
        }
    }

    /// Takes a message out.
    pub fn remove(&mut self, envelope: &Envelope) {
        self.0.retain(|e| e != envelope);
    }

    /// Lets go of those that `live` does not want.
    pub fn retain(&mut self, mut live: impl FnMut(&Message) -> bool) {
        self.0.retain(|e| live(e.message()));
    }

    /// In order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = &Envelope> {
        self.0.iter()
    }
}
