//! Requests that are answered together with the others of their batch.
//!
//! Owns what was gathered and for whom. What is read from a connection at once often asks one receiver many similar things; one that finds its answers
//! in memory at random waits for memory once for all of them instead of once for each. Does not know what is asked.
//!
//! - B-10: what was gathered is answered before the batch is written out, and gets no answer twice.

use std::sync::Arc;

use crate::{Deliveries, Link, Message, Sub};

/// Requests that are gathered at most before they are answered.
const GATHERED_MAX: usize = 64;

/// A receiver that takes several requests at once.
pub trait Gatherer: Send + Sync {
    /// Answers all that was gathered. Further messages may be sent through `d`.
    fn take(&self, d: &mut Deliveries, asked: &Gathered);
}

/// A payload of a request that can be gathered, at most.
const BODY_MAX: usize = 32;

/// Messages to subjects with a common beginning, with the same payload and without headers. For all of them somebody waits for an answer, or for none.
#[derive(Default)]
pub struct Gathered {
    to: Option<(Arc<Link>, Arc<dyn Gatherer>)>,
    prefix: Vec<u8>,
    body_crlf: Vec<u8>,
    asks: bool,
    text: Vec<u8>,
    /// Ends of the subject's rest and of the reply in `text`.
    ends: Vec<(u32, u32)>,
}

impl Gathered {
    /// What all subjects begin with.
    pub fn prefix(&self) -> &[u8] {
        &self.prefix
    }
    /// The payload of each.
    pub fn payload(&self) -> &[u8] {
        self.body_crlf.strip_suffix(b"\r\n").unwrap_or_default()
    }
    /// The rest of each subject, and where its answer goes.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let mut at = 0;
        self.ends.iter().map(move |&(a, b)| {
            let (rest, reply) = (&self.text[at..a as usize], &self.text[a as usize..b as usize]);
            at = b as usize;
            (rest, reply)
        })
    }
    /// How many there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    #[inline]
    fn push(&mut self, rest: &[u8], reply: &[u8]) {
        self.text.extend_from_slice(rest);
        let end = self.text.len() as u32;
        self.text.extend_from_slice(reply);
        self.ends.push((end, self.text.len() as u32));
    }
}

impl Deliveries {
    /// Keeps a request for `sub` until the end of the batch; `to` gets it with all others whose subjects begin with the same `prefix` bytes. False if it
    /// cannot wait: the caller answers it.
    pub fn gather(
        &mut self,
        sub: &Sub,
        prefix: usize,
        m: &Message<'_>,
        to: impl FnOnce() -> Arc<dyn Gatherer>,
    ) -> bool {
        let Some((prefix, rest)) = m.subject.split_at_checked(prefix) else { return false };
        let may_wait = m.header_len == 0 && m.body_crlf.len() <= BODY_MAX;
        if self.answers_gathered || self.trace.is_some() || !may_wait {
            return false;
        }
        self.answer_gathered();
        let g = &mut self.gathered;
        g.to = Some((sub.link.clone(), to()));
        g.asks = !m.reply.is_empty();
        g.body_crlf.extend_from_slice(m.body_crlf);
        g.prefix.extend_from_slice(prefix);
        g.push(rest, m.reply);
        true
    }

    /// Keeps a request if it goes where the ones before it went.
    #[inline]
    pub fn gather_more(&mut self, sub: &Sub, m: &Message<'_>) -> bool {
        let g = &mut self.gathered;
        let Some((link, _)) = &g.to else { return false };
        let alike = m.header_len == 0 && g.asks != m.reply.is_empty() && m.body_crlf == &g.body_crlf[..];
        if !alike || !Arc::ptr_eq(link, &sub.link) || self.trace.is_some() {
            return false;
        }
        let Some(rest) = m.subject.strip_prefix(&g.prefix[..]) else { return false };
        g.push(rest, m.reply);
        if g.len() >= GATHERED_MAX {
            self.answer_gathered();
        }
        true
    }

    /// Has all that was gathered answered (B-10): also before a message that must not come before it.
    #[inline]
    pub fn answer_gathered(&mut self) {
        if let Some((_, to)) = self.gathered.to.take() {
            self.hand_over(&*to);
        }
    }
    fn hand_over(&mut self, to: &dyn Gatherer) {
        // What is asked while this is being answered does not wait.
        let mut asked = std::mem::take(&mut self.gathered);
        self.answers_gathered = true;
        self.apart(|d| to.take(d, &asked));
        self.answers_gathered = false;
        asked.prefix.clear();
        asked.body_crlf.clear();
        asked.text.clear();
        asked.ends.clear();
        self.gathered = asked;
    }
}
