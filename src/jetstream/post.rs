//! What leaves: acknowledgements, deliveries, status messages.
//!
//! Owns the framing into one message and a pool of senders for each account. Nothing is sent while a lock of a stream is held: a
//! receiver may be another stream of this server.

use std::{
    ops::{Deref, DerefMut},
    sync::Arc,
};

use broker::{Account, Broker, Link, Loose, Message, SHARE_BYTES_MIN, Sender};
use bytes::Bytes;
use parking_lot::Mutex;

/// Senders that an account keeps for the next who needs one.
const SPARE_MAX: usize = 4;

/// A sender with room for one message.
pub struct Post {
    sender: Sender,
    body: Vec<u8>,
}

impl Post {
    /// Sends `parts`, of which the first `header_len` bytes are a header block; how many got it.
    #[inline]
    pub fn send(
        &mut self,
        to: &[u8],
        shown: Option<&[u8]>,
        reply: &[u8],
        header_len: usize,
        parts: &[&[u8]],
    ) -> usize {
        let len = parts.iter().map(|p| p.len()).sum::<usize>() + 2;
        if len >= SHARE_BYTES_MIN {
            return self.send_large(to, shown, reply, header_len, parts, len);
        }
        self.body.clear();
        for p in parts {
            self.body.extend_from_slice(p);
        }
        self.body.extend_from_slice(b"\r\n");
        let m = Message { subject: to, reply, header_len, body_crlf: &self.body, shared: None, shown };
        self.sender.send(&m)
    }
    /// The same for what is copied once and then shared by all that get it.
    fn send_large(
        &mut self,
        to: &[u8],
        shown: Option<&[u8]>,
        reply: &[u8],
        header_len: usize,
        parts: &[&[u8]],
        len: usize,
    ) -> usize {
        let mut body = Vec::with_capacity(len);
        for p in parts {
            body.extend_from_slice(p);
        }
        body.extend_from_slice(b"\r\n");
        let body = Bytes::from(body);
        let m = Message { subject: to, reply, header_len, body_crlf: &body, shared: Some(&body), shown };
        self.sender.send(&m)
    }
    /// Sends what stands in shared memory, without a copy; `None` if that cannot be.
    pub fn loose(
        &mut self,
        to: &[u8],
        shown: &[u8],
        reply: &[u8],
        header_len: usize,
        body: &Bytes,
    ) -> Option<usize> {
        self.sender.send_loose(&Loose { subject: to, shown, reply, header_len, body })
    }
    /// Sends a message without headers whose text ends with the line's end.
    #[inline]
    pub fn whole(&mut self, to: &[u8], body_crlf: &[u8]) -> usize {
        let (reply, header_len, shared, shown) = (&b""[..], 0, None, None);
        self.sender.send(&Message { subject: to, reply, header_len, body_crlf, shared, shown })
    }
    /// Sends a message without headers.
    #[inline]
    pub fn plain(&mut self, to: &[u8], body: &[u8]) -> usize {
        self.send(to, None, b"", 0, &[body])
    }
    /// Sends a header block without payload.
    pub fn status(&mut self, to: &[u8], head: &[u8]) -> usize {
        self.send(to, None, b"", head.len(), &[head])
    }
    /// Writes out what was sent.
    pub fn flush(&mut self) {
        self.sender.flush();
    }
    /// Whether a receiver is nearly full. Resets the mark.
    pub fn take_congestion(&mut self) -> bool {
        self.sender.take_congestion()
    }
}

/// The senders of an account.
pub struct Posts {
    broker: Arc<Broker>,
    link: Arc<Link>,
    account: Arc<Account>,
    spare: Mutex<Vec<Post>>,
}

impl Posts {
    /// For messages in the name of `link`.
    pub fn new(broker: Arc<Broker>, link: Arc<Link>, account: Arc<Account>) -> Posts {
        Posts { broker, link, account, spare: Mutex::default() }
    }
    /// A sender; flushed and given back when it is dropped.
    pub fn take(&self) -> Posting<'_> {
        let spare = self.spare.lock().pop();
        let post = spare.unwrap_or_else(|| {
            let seed = env::rng("jetstream sender").next_u64();
            let sender = Sender::new(self.broker.clone(), self.link.clone(), self.account.clone(), seed);
            Post { sender, body: Vec::new() }
        });
        Posting { post: Some(post), home: self }
    }
    /// Whether somebody would get a message to `subject`.
    pub fn has_interest(&self, subject: &[u8]) -> bool {
        self.account.has_interest(subject)
    }
}

/// A sender on loan.
pub struct Posting<'a> {
    post: Option<Post>,
    home: &'a Posts,
}

impl Deref for Posting<'_> {
    type Target = Post;
    fn deref(&self) -> &Post {
        self.post.as_ref().expect("taken only by drop")
    }
}
impl DerefMut for Posting<'_> {
    fn deref_mut(&mut self) -> &mut Post {
        self.post.as_mut().expect("taken only by drop")
    }
}
impl Drop for Posting<'_> {
    fn drop(&mut self) {
        if let Some(mut post) = self.post.take() {
            post.flush();
            if post.body.capacity() > 1 << 20 {
                post.body = Vec::new();
            }
            let mut spare = self.home.spare.lock();
            if spare.len() < SPARE_MAX {
                spare.push(post);
            }
        }
    }
}
