//! WebSocket: the upgrade ([`upgrade`]) and the frames ([`Decoder`], [`Encoder`]).
//!
//! The NATS protocol is one stream of bytes: how a client cuts it into messages and frames means nothing, so the decoder
//! hands out payload bytes as they come and never gathers a frame or a message. Does no I/O.
//!
//! Invariants:
//! * L-6: decoding does not depend on how the bytes were split.
//! * L-7: a compressed message is inflated into the room that the reader gives, and no further than its limit.
//! * L-2 holds for the codecs: a (de)compressor belongs to the worker and is lent for one message.

mod decode;
mod encode;
pub mod upgrade;

use std::time::Duration;

use broker::Closed;
use wire::info::Info;

pub use decode::{Decoder, Violation};
pub use encode::{Encoder, push_frame};
pub use upgrade::{Accepted, Cookies, Refusal, Rules};

use crate::tls::TlsSettings;
use std::sync::Arc;

/// How WebSocket clients are served.
#[derive(Clone)]
pub struct WebSocketSettings {
    /// INFO as these clients are to see it: host and port of this listener, `connect_urls` being those of WebSocket.
    /// What belongs to one connection and the TLS fields are filled in.
    pub info: Info,
    /// Who may log in, where that differs from the client port.
    pub authenticator: Option<Arc<identity::Authenticator>>,
    /// How long a client may take to log in, where that differs.
    pub auth_timeout: Option<Duration>,
    /// TLS; none only where it was switched off on purpose.
    pub tls: Option<Arc<TlsSettings>>,
    /// What the TLS handshake and the upgrade may take together.
    pub handshake_timeout: Duration,
    /// What a request must fulfil and what it is answered.
    pub rules: Rules,
    /// Idle time after which a PING is sent, where that differs.
    pub ping_interval: Option<Duration>,
}

/// Operation codes of RFC 6455.
pub(crate) mod op {
    pub const CONTINUATION: u8 = 0;
    pub const TEXT: u8 = 1;
    pub const BINARY: u8 = 2;
    pub const CLOSE: u8 = 8;
    pub const PING: u8 = 9;
    pub const PONG: u8 = 10;
}

/// Close codes of RFC 6455.
pub mod status {
    /// Done.
    pub const NORMAL: u16 = 1000;
    /// The server or the connection is going away.
    pub const GOING_AWAY: u16 = 1001;
    /// The peer broke the protocol.
    pub const PROTOCOL_ERROR: u16 = 1002;
    /// A text is not UTF-8.
    pub const INVALID_DATA: u16 = 1007;
    /// The peer broke a rule of this server.
    pub const POLICY: u16 = 1008;
    /// A message is too large.
    pub const TOO_BIG: u16 = 1009;
    /// Something else.
    pub const INTERNAL: u16 = 1011;
    /// TLS failed.
    pub const TLS: u16 = 1015;
}

/// The close code for the end of a link.
pub fn close_status(reason: Closed) -> u16 {
    use Closed::*;
    match reason {
        ClientClosed => status::NORMAL,
        AuthenticationTimeout
        | AuthenticationFailure
        | SlowConsumerPendingBytes
        | SlowConsumerWriteDeadline
        | MaximumAccountConnectionsExceeded
        | MaximumConnectionsExceeded
        | MaximumControlLineExceeded
        | MaximumSubscriptionsExceeded
        | MissingAccount
        | AuthenticationExpired
        | CredentialsRevoked => status::POLICY,
        TlsHandshakeFailure => status::TLS,
        ParseError | ProtocolViolation | BadClientProtocolVersion => status::PROTOCOL_ERROR,
        MaximumMessagePayloadExceeded => status::TOO_BIG,
        WriteError | ReadError | StaleConnection | ServerShutdown => status::GOING_AWAY,
        _ => status::INTERNAL,
    }
}

/// Appends a close frame. The text is cut to what a control frame holds.
pub fn push_close(out: &mut Vec<u8>, status: u16, text: &str) {
    let mut end = text.len().min(123);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let body = [&status.to_be_bytes()[..], &text.as_bytes()[..end]].concat();
    push_frame(out, op::CLOSE, false, &body);
}

#[cfg(test)]
pub(crate) mod tests;
