//! Messages that were read together and go the same way.
//!
//! Owns their list. A publisher to a stream sends many messages that one receiver inside the server gets, and nobody else: handed over together they
//! share its lock, its look at the clocks and its wake-up. What goes elsewhere is no part of a run, and comes after it (B-1).

use crate::Message;

/// Messages at most: enough to share what can be shared, few enough to be in the processor's cache when they are handed over.
const RUN_MAX: usize = 32;

/// Messages that follow each other, for [`crate::Router::publish_run`].
pub struct Run<'a> {
    msgs: [Message<'a>; RUN_MAX],
    len: usize,
}

impl<'a> Default for Run<'a> {
    fn default() -> Run<'a> {
        let none =
            Message { subject: b"", reply: b"", header_len: 0, body_crlf: b"", shared: None, shown: None };
        Run { msgs: [none; RUN_MAX], len: 0 }
    }
}

impl<'a> Run<'a> {
    /// Adds a message that [`crate::Router::joins`] it. The run must not be full.
    #[inline]
    pub fn push(&mut self, m: Message<'a>) {
        self.msgs[self.len] = m;
        self.len += 1;
    }
    /// Whether it takes no more.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.len == RUN_MAX
    }
    /// All of them, in order.
    pub fn messages(&self) -> &[Message<'a>] {
        &self.msgs[..self.len]
    }
    pub(crate) fn clear(&mut self) {
        self.len = 0;
    }
}
