//! The HTTP request that opens a WebSocket, and its answer (RFC 6455, 4.2).
//!
//! Bounds: a request head of [`REQUEST_BYTES_MAX`] bytes and [`HEADERS_MAX`] headers.

use std::net::IpAddr;

use base64::{Engine, engine::general_purpose::STANDARD};
use sha1::{Digest, Sha1};

/// Largest request head, in bytes. A cookie may hold a JWT of several KiB.
pub const REQUEST_BYTES_MAX: usize = 64 << 10;
/// Most headers of a request.
pub const HEADERS_MAX: usize = 128;
/// Appended to the key before it is hashed (RFC 6455, 1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// What a request must fulfil and what it is answered.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// The listener speaks TLS: decides the scheme and port of "same origin".
    pub secure: bool,
    /// An Origin must be that of the request's Host.
    pub same_origin: bool,
    /// Origins that may connect (`http://host[:port]`); empty allows all.
    pub allowed_origins: Vec<String>,
    /// permessage-deflate may be agreed on.
    pub compression: bool,
    /// Name of the cookie that holds a JWT.
    pub jwt_cookie: Option<String>,
    /// Name of the cookie that holds a user.
    pub user_cookie: Option<String>,
    /// Name of the cookie that holds a password.
    pub pass_cookie: Option<String>,
    /// Name of the cookie that holds a token.
    pub token_cookie: Option<String>,
    /// Further headers of the answer.
    pub headers: Vec<(String, String)>,
}

/// Credentials from cookies; they stand in for fields that CONNECT leaves empty.
#[derive(Clone, Default)]
pub struct Cookies {
    /// For `jwt`.
    pub jwt: String,
    /// For `user`.
    pub user: String,
    /// For `pass`.
    pub pass: String,
    /// For `auth_token`.
    pub token: String,
}

/// A request that opens a connection.
pub struct Accepted {
    /// The answer to send.
    pub response: Vec<u8>,
    /// Bytes of the request; what follows are frames.
    pub used: usize,
    /// permessage-deflate is agreed on.
    pub compress: bool,
    /// Client frames are not masked.
    pub no_masking: bool,
    /// Credentials from cookies.
    pub cookies: Cookies,
    /// The client's address in the words of a proxy (X-Forwarded-For). For logs only: anybody can write it.
    pub forwarded_for: Option<IpAddr>,
}

/// A request that is refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// The answer to send before the connection is closed.
    pub response: Vec<u8>,
    /// For the log.
    pub reason: String,
}

/// Reads a request. `None` asks for more bytes; then no more than [`REQUEST_BYTES_MAX`] are there.
///
/// # Errors
/// What to answer before closing.
pub fn accept(buf: &[u8], rules: &Rules) -> Result<Option<Accepted>, Refusal> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let head = &buf[..buf.len().min(REQUEST_BYTES_MAX)];
    let used = match request.parse(head) {
        Ok(httparse::Status::Complete(n)) => n,
        Ok(httparse::Status::Partial) if buf.len() >= REQUEST_BYTES_MAX => {
            return Err(closing(431, "request head too large"));
        }
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(closing(431, "too many headers")),
        Err(e) => return Err(closing(400, &e.to_string())),
    };
    let r = Request { headers: request.headers };
    let path = request.path.unwrap_or_default().split(['?', '#']).next().unwrap_or_default();
    if request.version == Some(1) && r.get("host").is_none() {
        return Err(closing(400, "missing required Host header"));
    }
    // Leaf nodes and MQTT have paths of their own; they are not served on this listener.
    if path.ends_with("/leafnode") || path.ends_with("/mqtt") {
        return Err(refuse(404, &format!("no service at {path:?}")));
    }
    if request.method != Some("GET") {
        return Err(refuse(405, "request method must be GET"));
    }
    let host =
        r.get("host").filter(|h| !h.is_empty()).ok_or_else(|| refuse(400, "'Host' missing in request"))?;
    if !r.has_token("upgrade", "websocket") {
        return Err(refuse(400, "invalid value for header 'Upgrade'"));
    }
    if !r.has_token("connection", "upgrade") {
        return Err(refuse(400, "invalid value for header 'Connection'"));
    }
    let key = r.get("sec-websocket-key").unwrap_or_default();
    if STANDARD.decode(key).map_or(0, |k| k.len()) != 16 {
        return Err(refuse(400, "key missing or not 16 bytes"));
    }
    if !r.has_token("sec-websocket-version", "13") {
        return Err(refuse(400, "invalid version"));
    }
    check_origin(&r, host, rules).map_err(|reason| refuse(403, &format!("origin not allowed: {reason}")))?;
    let compress = rules.compression && r.offers_deflate();
    let no_masking = r.get("nats-no-masking") == Some("true");
    Ok(Some(Accepted {
        response: response(key, compress, no_masking, rules),
        used,
        compress,
        no_masking,
        cookies: r.cookies(rules),
        forwarded_for: r.all("x-forwarded-for").find_map(|v| v.trim().parse().ok()),
    }))
}

fn response(key: &str, compress: bool, no_masking: bool, rules: &Rules) -> Vec<u8> {
    let accept = STANDARD.encode(Sha1::new().chain_update(key).chain_update(GUID).finalize());
    let mut out =
        String::from("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n");
    out += &format!("Sec-WebSocket-Accept: {accept}\r\n");
    if compress {
        out += "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; \
                client_no_context_takeover\r\n";
    }
    if no_masking {
        out += "Nats-No-Masking: true\r\n";
    }
    for (name, value) in &rules.headers {
        out += &format!("{name}: {value}\r\n");
    }
    out += "\r\n";
    out.into_bytes()
}

fn status_text(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        431 => "Request Header Fields Too Large",
        _ => "Internal Server Error",
    }
}

/// The answer to a request that is understood and refused.
fn refuse(status: u16, reason: &str) -> Refusal {
    let text = status_text(status);
    let response = format!(
        "HTTP/1.1 {status} {text}\r\nContent-Type: text/plain; charset=utf-8\r\nSec-Websocket-Version: 13\r\n\
         X-Content-Type-Options: nosniff\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{text}\n",
        text.len() + 1
    );
    Refusal { response: response.into_bytes(), reason: reason.to_owned() }
}

/// The answer to what is no request that can be read.
fn closing(status: u16, reason: &str) -> Refusal {
    let text = status_text(status);
    let response = format!(
        "HTTP/1.1 {status} {text}\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n{status} {text}"
    );
    Refusal { response: response.into_bytes(), reason: reason.to_owned() }
}

/// The answer when the request has not come in time.
pub(crate) fn too_late() -> Refusal {
    closing(400, "handshake timeout")
}

struct Request<'a> {
    headers: &'a [httparse::Header<'a>],
}

impl<'a> Request<'a> {
    fn all(&self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let same = self.headers.iter().filter(move |h| h.name.eq_ignore_ascii_case(name));
        same.filter_map(|h| std::str::from_utf8(h.value).ok())
    }
    fn get(&self, name: &'a str) -> Option<&'a str> {
        self.all(name).next()
    }
    /// Whether a comma-separated header holds a word, in any case.
    fn has_token(&self, name: &'a str, token: &str) -> bool {
        self.all(name).flat_map(|v| v.split(',')).any(|t| t.trim().eq_ignore_ascii_case(token))
    }
    fn offers_deflate(&self) -> bool {
        let offers = self.all("sec-websocket-extensions").flat_map(|v| v.split(','));
        offers
            .filter_map(|o| o.split(';').next())
            .any(|name| name.trim().eq_ignore_ascii_case("permessage-deflate"))
    }
    fn cookies(&self, rules: &Rules) -> Cookies {
        let named = |wanted: &Option<String>| {
            let Some(wanted) = wanted else { return String::new() };
            let pairs = self.all("cookie").flat_map(|v| v.split(';'));
            let value = pairs.filter_map(|p| p.trim().split_once('=')).find(|(name, _)| name == wanted);
            value
                .map_or("", |(_, v)| v.strip_prefix('"').and_then(|v| v.strip_suffix('"')).unwrap_or(v))
                .to_owned()
        };
        Cookies {
            jwt: named(&rules.jwt_cookie),
            user: named(&rules.user_cookie),
            pass: named(&rules.pass_cookie),
            token: named(&rules.token_cookie),
        }
    }
}

/// Scheme, host in lower case, port.
type Origin = (String, String, u16);

fn split_host_port(authority: &str, default: u16) -> Option<(String, u16)> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(v6) => {
            let (host, rest) = v6.split_once(']')?;
            (host, rest.strip_prefix(':').or(if rest.is_empty() { Some("") } else { None })?)
        }
        None => authority.split_once(':').unwrap_or((authority, "")),
    };
    let port = if port.is_empty() { default } else { port.parse().ok()? };
    (!host.is_empty()).then(|| (host.to_ascii_lowercase(), port))
}

fn parse_origin(text: &str) -> Option<Origin> {
    let (scheme, rest) = text.split_once("://")?;
    let scheme = scheme.to_ascii_lowercase();
    let default = if scheme == "https" { 443 } else { 80 };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (host, port) = split_host_port(authority, default)?;
    Some((scheme, host, port))
}

fn check_origin(r: &Request<'_>, host: &str, rules: &Rules) -> Result<(), &'static str> {
    if !rules.same_origin && rules.allowed_origins.is_empty() {
        return Ok(());
    }
    // Only browsers send an Origin, and only against them is this a protection.
    let Some(text) = r.get("origin").or_else(|| r.get("sec-websocket-origin")).filter(|o| !o.is_empty())
    else {
        return Ok(());
    };
    let origin = parse_origin(text).ok_or("not a valid origin")?;
    if rules.same_origin {
        let (scheme, default) = if rules.secure { ("https", 443) } else { ("http", 80) };
        let own = split_host_port(host, default);
        if own.is_none_or(|(host, port)| {
            (scheme, host.as_str(), port) != (&origin.0, origin.1.as_str(), origin.2)
        }) {
            return Err("not same origin");
        }
    }
    if !rules.allowed_origins.is_empty()
        && !rules.allowed_origins.iter().any(|a| parse_origin(a).is_some_and(|a| a == origin))
    {
        return Err("not in the allowed list");
    }
    Ok(())
}
