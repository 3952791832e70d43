//! URLs of servers, as routes name them: `nats://user:password@host:port`.

use super::secret::Secret;

/// A server's URL, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerUrl {
    /// `nats`, `nats-route`, `tls` …
    pub scheme: String,
    /// From before the `@`.
    pub user: Option<String>,
    /// From before the `@`.
    pub password: Option<Secret>,
    /// A name or an address, IPv6 without brackets.
    pub host: String,
    /// -1 for a random port; `None` when not given.
    pub port: Option<i32>,
}

impl ServerUrl {
    /// Takes a URL apart. Percent escapes are resolved in user and password.
    ///
    /// # Errors
    /// A reason, without the URL itself since that may hold a password.
    pub fn parse(text: &str) -> Result<ServerUrl, String> {
        let text = text.trim();
        let (scheme, rest) = text.split_once("://").ok_or("missing protocol scheme")?;
        if scheme.is_empty()
            || !scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
        {
            return Err("invalid protocol scheme".to_string());
        }
        let authority = rest.split(['/', '?', '#']).next().unwrap_or("");
        let (userinfo, hostport) = match authority.rsplit_once('@') {
            Some((userinfo, hostport)) => (Some(userinfo), hostport),
            None => (None, authority),
        };
        let (user, password) = match userinfo {
            None => (None, None),
            Some(info) => match info.split_once(':') {
                Some((user, password)) => (Some(unescape(user)?), Some(Secret::new(unescape(password)?))),
                None => (Some(unescape(info)?), None),
            },
        };
        let (host, port) = split_host_port(hostport)?;
        Ok(ServerUrl { scheme: scheme.to_ascii_lowercase(), user, password, host, port })
    }

    /// `scheme://host:port`, without credentials: what may be logged.
    pub fn without_credentials(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        match self.port {
            Some(port) => format!("{}://{host}:{port}", self.scheme),
            None => format!("{}://{host}", self.scheme),
        }
    }
}

fn unescape(text: &str) -> Result<String, String> {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(b) = bytes.next() {
        if b != b'%' {
            out.push(b);
            continue;
        }
        let hex = [bytes.next().unwrap_or(b' '), bytes.next().unwrap_or(b' ')];
        let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
        match (digit(hex[0]), digit(hex[1])) {
            (Some(high), Some(low)) => out.push(high * 16 + low),
            _ => return Err("invalid URL escape".to_string()),
        }
    }
    String::from_utf8(out).map_err(|_| "invalid URL escape".to_string())
}

/// `host`, `host:port`, `[::1]:port` or `:port`.
pub(crate) fn split_host_port(text: &str) -> Result<(String, Option<i32>), String> {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, tail) = rest.split_once(']').ok_or("missing ']' in host")?;
        match (tail.is_empty(), tail.strip_prefix(':')) {
            (true, _) => (host, None),
            (false, Some(port)) => (host, Some(port)),
            (false, None) => return Err("invalid host".to_string()),
        }
    } else {
        match text.rsplit_once(':') {
            Some((host, _)) if host.contains(':') => return Err("too many colons in address".to_string()),
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        }
    };
    if host.bytes().any(|b| b.is_ascii_whitespace() || b.is_ascii_control()) {
        return Err("invalid character in host name".to_string());
    }
    let port = match port {
        None | Some("") => None,
        Some(port) => {
            let n = port.parse::<i32>().ok().filter(|n| (-1..=65535).contains(n));
            Some(n.ok_or_else(|| format!("invalid port {port:?}"))?)
        }
    };
    Ok((host.to_string(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_urls_apart() {
        let url = ServerUrl::parse("nats-route://a%3Ab:p%40ss@[::1]:6222/x").unwrap();
        assert_eq!(url.user.as_deref(), Some("a:b"));
        assert_eq!(url.password.as_ref().map(Secret::reveal), Some("p@ss"));
        assert_eq!((url.host.as_str(), url.port), ("::1", Some(6222)));
        assert_eq!(url.without_credentials(), "nats-route://[::1]:6222");
        assert!(!format!("{url:?}").contains("p@ss"));
        assert_eq!(ServerUrl::parse("nats://127.0.0.1:-1").unwrap().port, Some(-1));
        assert_eq!(ServerUrl::parse("nats://host").unwrap().port, None);
    }

    #[test]
    fn refuses_what_is_no_url() {
        for text in [
            "::",
            "",
            "host:1",
            "://x",
            "nats://a:b:c",
            "nats://a:99999",
            "nats://a:x",
            "nats://[::1",
            "nats://%zz@a",
        ] {
            assert!(ServerUrl::parse(text).is_err(), "{text}");
        }
    }
}
