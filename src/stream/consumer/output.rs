//! What a consumer asks of its shell, and how statuses are written.
//!
//! Owns the vocabulary and the text of status lines. Does not own sending.

use std::borrow::Cow;
use std::io::Write;

use bytes::Bytes;

use crate::Carried;

/// Something for the shell to do. Outputs are to be carried out in their order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    /// Send a message to a client.
    Deliver(Deliver),
    /// Send a status, a message of headers only.
    Status(Status),
    /// Confirm an ack: send an empty message.
    AckReply {
        /// Where to.
        to: Bytes,
    },
    /// The consumer is done with the messages from `first` to `last`, each of which it had been delivered. For streams that keep by
    /// interest or as a work queue.
    Acked {
        /// The first.
        first: u64,
        /// The last.
        last: u64,
    },
    /// Tell whoever listens to the account's events.
    Advisory(Advisory),
    /// Nobody has used the consumer for its inactive threshold: delete it.
    Inactive,
}

/// A message for a client. Its reply subject is to be written with [`super::AckSubject`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Deliver {
    /// The message.
    pub message: Carried,
    /// Where to.
    pub to: Bytes,
    /// The number of this delivery within the consumer.
    pub dseq: u64,
    /// How often the message has been delivered, this time included.
    pub deliveries: u64,
    /// How many messages the consumer has yet to deliver for the first time.
    pub pending: u64,
    /// Whether the body stays behind; then the header `Nats-Msg-Size` says how long it is.
    pub headers_only: bool,
    /// What the header `Nats-Pin-Id` says, if there is to be one.
    pub pin: Option<Bytes>,
}

/// A status line with its headers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Status {
    /// Where to.
    pub to: Bytes,
    /// The reply subject; flow control requests have one.
    pub reply: Option<Bytes>,
    /// 100, 400, 404, 408, 409 or 423.
    pub code: u16,
    /// The text.
    pub text: Cow<'static, str>,
    /// Headers.
    pub headers: StatusHeaders,
}

/// The headers of a status.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StatusHeaders {
    /// None.
    None,
    /// What remains of a pull request.
    Remaining {
        /// `Nats-Pending-Messages`.
        messages: i64,
        /// `Nats-Pending-Bytes`.
        bytes: i64,
    },
    /// Where the consumer is, in a heartbeat.
    Last {
        /// `Nats-Last-Consumer`.
        consumer: u64,
        /// `Nats-Last-Stream`.
        stream: u64,
        /// `Nats-Consumer-Stalled`: the flow control request that has no answer yet.
        stalled: Option<Bytes>,
    },
}

impl Status {
    /// A status without headers.
    pub fn plain(to: Bytes, code: u16, text: impl Into<Cow<'static, str>>) -> Status {
        Status { to, reply: None, code, text: text.into(), headers: StatusHeaders::None }
    }

    /// Appends the header block: version line, headers, blank line.
    pub fn write(&self, out: &mut Vec<u8>) {
        // Writing to a vector does not fail.
        let _ = write!(out, "NATS/1.0 {} {}\r\n", self.code, self.text);
        match &self.headers {
            StatusHeaders::None => {}
            StatusHeaders::Remaining { messages, bytes } => {
                let _ = write!(out, "Nats-Pending-Messages: {messages}\r\nNats-Pending-Bytes: {bytes}\r\n");
            }
            StatusHeaders::Last { consumer, stream, stalled } => {
                let _ = write!(out, "Nats-Last-Consumer: {consumer}\r\nNats-Last-Stream: {stream}\r\n");
                if let Some(stalled) = stalled {
                    out.extend_from_slice(b"Nats-Consumer-Stalled: ");
                    out.extend_from_slice(stalled);
                    out.extend_from_slice(b"\r\n");
                }
            }
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// An event of a consumer. The shell adds the stream's and the consumer's names, an id and the time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Advisory {
    /// `CONSUMER.MAX_DELIVERIES`: a message was delivered as often as it may be and was not acknowledged.
    MaxDeliveries {
        /// The message.
        stream_seq: u64,
        /// How often it was delivered.
        deliveries: u64,
    },
    /// `CONSUMER.MSG_NAKED`: a client refused a message.
    Nak {
        /// The delivery.
        consumer_seq: u64,
        /// The message.
        stream_seq: u64,
        /// How often it was delivered.
        deliveries: u64,
    },
    /// `CONSUMER.MSG_TERMINATED`: a client does not want a message again, or it has left the stream unacknowledged.
    Terminated {
        /// The delivery.
        consumer_seq: u64,
        /// The message.
        stream_seq: u64,
        /// How often it was delivered.
        deliveries: u64,
        /// Why; empty if the client gave no reason.
        reason: String,
    },
    /// `METRIC.CONSUMER.ACK`: a sampled ack.
    Acked {
        /// The delivery.
        consumer_seq: u64,
        /// The message.
        stream_seq: u64,
        /// From the last delivery to the ack, in nanoseconds.
        ack_time: u64,
        /// How often it was delivered.
        deliveries: u64,
    },
    /// `CONSUMER.PAUSE`: paused or resumed.
    Pause {
        /// Which.
        paused: bool,
        /// Until when, in nanoseconds since 1970.
        until: i64,
    },
    /// `CONSUMER.PINNED`: a client was pinned.
    Pinned {
        /// The group.
        group: String,
        /// The pin.
        id: Bytes,
    },
    /// `CONSUMER.UNPINNED`: a client is no longer pinned.
    Unpinned {
        /// The group.
        group: String,
        /// `admin` or `timeout`.
        reason: &'static str,
    },
}

/// The numbers of a consumer that its info shows.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Info {
    /// The last delivery.
    pub delivered_consumer: u64,
    /// The last message delivered for the first time (or skipped at the start).
    pub delivered_stream: u64,
    /// When something was delivered last, in nanoseconds since 1970.
    pub delivered_last: Option<i64>,
    /// Every delivery up to this one is acknowledged.
    pub ack_floor_consumer: u64,
    /// Every message up to this one is acknowledged.
    pub ack_floor_stream: u64,
    /// When something was acknowledged last, in nanoseconds since 1970.
    pub ack_floor_last: Option<i64>,
    /// Messages that wait for their ack.
    pub num_ack_pending: u64,
    /// Messages that have been delivered more than once and are not acknowledged.
    pub num_redelivered: u64,
    /// Pull requests that wait.
    pub num_waiting: u64,
    /// Messages yet to be delivered for the first time.
    pub num_pending: u64,
    /// Whether somebody listens to the deliver subject.
    pub push_bound: bool,
    /// Whether it is paused, and for how long yet, in nanoseconds.
    pub pause_remaining: Option<i64>,
    /// The priority group with its pinned client and since when it is pinned.
    pub priority_group: Option<GroupInfo>,
}

/// A priority group in a consumer's info.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct GroupInfo {
    /// Its name.
    pub group: String,
    /// The pinned client; empty if none is.
    pub pinned_client_id: String,
    /// Since when, in nanoseconds since 1970.
    pub pinned_ts: Option<i64>,
}
