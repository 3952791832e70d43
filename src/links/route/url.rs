//! Where a member is reached.

use std::{fmt, net::SocketAddr};

use identity::Secret;
use wire::route::info::RouteInfo;

/// Host and port of a member's cluster port, and credentials for it.
#[derive(Clone, PartialEq)]
pub struct RouteUrl {
    /// Name or address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// User and password to show.
    pub credentials: Option<(String, Secret)>,
}

impl RouteUrl {
    /// Reads the `ip` of an INFO: `nats-route://host:port/`. Credentials are not expected there.
    pub fn from_gossip(text: &str) -> Option<RouteUrl> {
        let (_, rest) = text.split_once("://")?;
        let authority = rest.split('/').next()?;
        let (host, port) = authority.rsplit_once(':')?;
        let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        let odd = |c: char| c.is_whitespace() || c.is_control() || c == '@';
        if host.is_empty() || host.len() > 253 || host.contains(odd) {
            return None;
        }
        let port = port.parse().ok().filter(|p| *p != 0)?;
        Some(RouteUrl { host: host.to_owned(), port, credentials: None })
    }
    /// Where a member says that it listens; `peer` is where it came from, or where it was reached.
    pub(crate) fn of_member(info: &RouteInfo, peer: SocketAddr) -> Option<RouteUrl> {
        if !info.ip.is_empty() {
            return RouteUrl::from_gossip(&info.ip);
        }
        let port = u16::try_from(info.port).ok().filter(|p| *p != 0)?;
        // A server that listens everywhere is reached where it came from.
        let everywhere = matches!(&*info.host, "" | "0.0.0.0" | "::" | "[::]");
        let host = if everywhere { peer.ip().to_canonical().to_string() } else { info.host.clone() };
        Some(RouteUrl { host, port, credentials: None })
    }
    /// Host and port, with brackets where an address needs them.
    pub fn address(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
    /// Whether it is the same place.
    pub fn is_same_place(&self, o: &RouteUrl) -> bool {
        self.port == o.port && self.host.eq_ignore_ascii_case(&o.host)
    }
}

/// Secrets stay out of logs.
impl fmt::Debug for RouteUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gossip() {
        let at = |t: &str| RouteUrl::from_gossip(t).map(|u| u.address());
        assert_eq!(at("nats-route://127.0.0.1:6222/").as_deref(), Some("127.0.0.1:6222"));
        assert_eq!(at("nats-route://[::1]:6222/").as_deref(), Some("[::1]:6222"));
        for bad in ["", "127.0.0.1:1", "x://:1", "x://a:0", "x://a:99999", "x://u@a:1", "x://a b:1", "x://a"]
        {
            assert_eq!(at(bad), None, "{bad}");
        }
    }
}
