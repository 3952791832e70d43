//! The `websocket` block.

use super::reader::set;
use super::tls::{self, TlsPlace};
use super::{Reader, auth, block};
use crate::options::types::WebSocketOptions;
use conf::{Entry, Value};

/// Reads the block; the listener is off when it names no port.
pub(crate) fn read(reader: &mut Reader, entry: &Entry) -> Option<WebSocketOptions> {
    let Value::Map(map) = &entry.node.value else {
        reader.error(&entry.pos, format!("Expected websocket to be a map, got {}", entry.node.value.kind()));
        return None;
    };
    let mut o = WebSocketOptions::default();
    block!(reader, "websocket", map, |e| {
        "listen" => if let Some((host, port)) = reader.listen(e) {
            if let Some(host) = host {
                o.host = host;
            }
            o.port = port;
        },
        "port" => set!(o.port, reader.port(e)),
        "host" | "net" => set!(o.host, reader.string(e).map(str::to_string)),
        "advertise" => set!(o.advertise, reader.text(e)),
        "no_tls" => set!(o.no_tls, reader.boolean(e)),
        "tls" => o.tls = tls::read(reader, e, TlsPlace::Listener),
        "same_origin" => set!(o.same_origin, reader.boolean(e)),
        "allowed_origins" | "allowed_origin" | "allow_origins" | "allow_origin" | "origins" | "origin" => {
            if let Some(items) = reader.strings(e) {
                o.allowed_origins = items.into_iter().map(|(_, s)| s.to_string()).collect();
            }
        },
        "handshake_timeout" => set!(o.handshake_timeout, match &e.node.value {
            // Seconds without a warning, as in nats-server.
            Value::Int(n) => u64::try_from(*n).ok().map(std::time::Duration::from_secs),
            _ => reader.duration_string(e),
        }),
        "compress" | "compression" => set!(o.compression, reader.boolean(e)),
        "authorization" | "authentication" => {
            set!(o.authorization, auth::listener_authorization(reader, e));
        },
        "no_auth_user" => set!(o.no_auth_user, reader.text(e)),
        "jwt_cookie" => set!(o.jwt_cookie, reader.text(e)),
        "user_cookie" => set!(o.user_cookie, reader.text(e)),
        "pass_cookie" => set!(o.pass_cookie, reader.text(e)),
        "token_cookie" => set!(o.token_cookie, reader.text(e)),
        "headers" => if let Some(pairs) = reader.string_map(e) {
            o.headers = pairs.into_iter().collect();
        },
        "ping_interval" => set!(o.ping_interval, reader.duration(e).map(Some)),
    });
    (o.port != 0).then_some(o)
}
