//! Codecs of the NATS protocols: what stands on the wire and nothing else.
//!
//! Owns: cutting a byte stream into operations ([`client`]), the INFO and CONNECT objects ([`info`]), framing of
//! deliveries ([`frame`]), message headers ([`headers`]), what servers of a cluster say to each other ([`route`]), the frames between
//! Fulmar nodes ([`peer`]) and the format of compressed streams ([`s2`]). Does no I/O, keeps no connection state beyond what it is
//! handed, decides nothing (a limit is told to it), and allocates nothing per message.
//!
//! Invariants:
//! * W-1: any split of a byte stream gives the same operations as the whole.
//! * W-2: no input panics; what is not protocol is an [`client::Error`].

pub mod client;
pub mod frame;
pub mod headers;
pub mod info;
pub mod peer;
pub mod route;
pub mod s2;

/// What the front of a buffer holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Parsed<Op> {
    /// A whole operation of `used` bytes.
    Op {
        /// The operation.
        op: Op,
        /// Its length in the buffer.
        used: usize,
    },
    /// Not whole yet. The operation has at least `need` bytes in all (0: not known, the line has not ended).
    Partial {
        /// Bytes of the whole operation, if its line is complete.
        need: usize,
    },
}
