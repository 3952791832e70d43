//! What two servers agree on, or ask of each other, before a connection gets its place: whether to compress, and which
//! certificates are let in.

use std::time::Duration;

use identity::{Attempt, Authenticator, Check, Decision};

use crate::{Socket, tls::PeerCert};
pub use wire::s2::Level;

/// Whether routes are compressed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Compression {
    /// Never.
    #[default]
    Off,
    /// If the other end wants it.
    Accept,
    /// By the round trip: up to the first of these not, then fast, better, best. Zero skips a level.
    Auto(Vec<Duration>),
    /// Always.
    Fixed(Level),
}

impl Compression {
    /// Its name in INFO.
    pub fn name(&self) -> &'static str {
        match self {
            Compression::Off => "off",
            Compression::Accept => "accept",
            Compression::Auto(_) => "s2_auto",
            Compression::Fixed(level) => level.name(),
        }
    }
    /// How we write to a server whose INFO names that mode; `None` if neither end compresses. As nats-server 2.15.1 does it.
    pub(super) fn agreed(&self, theirs: &str) -> Option<Level> {
        if matches!(theirs, "" | "off" | "not supported") {
            return None;
        }
        match self {
            Compression::Off => None,
            Compression::Accept => match theirs {
                "accept" => None,
                "s2_better" => Some(Level::Better),
                "s2_best" => Some(Level::Best),
                _ => Some(Level::Fast),
            },
            // Until the round trip is known.
            Compression::Auto(_) => Some(Level::Fast),
            Compression::Fixed(level) => Some(*level),
        }
    }
    /// The level for a round trip, where it depends on that.
    pub(super) fn by_round_trip(&self, rtt: Duration) -> Option<Level> {
        let Compression::Auto(limits) = self else { return None };
        let place = limits.iter().position(|limit| rtt <= *limit).unwrap_or(limits.len());
        Some(match place {
            0 => Level::Uncompressed,
            1 => Level::Fast,
            2 => Level::Better,
            _ => Level::Best,
        })
    }
}

/// Which certificates speak for a member; passwords do not count then.
pub struct Certificates {
    /// `verify_and_map`: finds the cluster's user by a certificate.
    pub by_user: Option<Authenticator>,
    /// That user's name.
    pub user: Option<String>,
    /// `verify_cert_and_check_known_urls`: hosts of the configured routes, one of which must be among the certificate's names.
    pub hosts: Vec<String>,
}

impl Certificates {
    /// Whether whoever was admitted by `before` would be by these.
    pub(super) fn admit_all_of(&self, before: &Certificates) -> bool {
        (before.user.is_none() || self.user == before.user)
            && before.hosts.iter().all(|h| self.hosts.contains(h))
    }
    /// Whether the owner of the certificate at the other end may be a member. Without one nobody is.
    pub(crate) fn admit_peer(&self, socket: &Socket) -> bool {
        socket.peer_cert().is_some_and(|c| self.admit(&c))
    }
    fn admit(&self, cert: &PeerCert) -> bool {
        let known = |name: &String| self.hosts.iter().any(|host| names(name, host));
        if cert.dns_names.iter().any(known) {
            return true;
        }
        let Some(users) = &self.by_user else { return false };
        let cert = cert.identity();
        let attempt = Attempt { tls: Some(&cert), ..Attempt::default() };
        matches!(users.check(&attempt), Check::Done(Decision::Accept(_)))
    }
}

/// Whether a certificate's name, whose first label may be a wildcard, is that of a host.
fn names(name: &str, host: &str) -> bool {
    match name.strip_prefix("*.") {
        Some(rest) => host.split_once('.').is_some_and(|(_, h)| h.eq_ignore_ascii_case(rest)),
        None => name.eq_ignore_ascii_case(host),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_agreed_on_as_by_nats_server() {
        let (off, accept) = (Compression::Off, Compression::Accept);
        let (fast, best) = (Compression::Fixed(Level::Fast), Compression::Fixed(Level::Best));
        let auto = Compression::Auto(vec![Duration::from_millis(10), Duration::from_millis(50)]);
        for c in [&off, &accept, &fast, &best, &auto] {
            assert_eq!((c.agreed("off"), c.agreed("")), (None, None), "{c:?}");
            assert_eq!(off.agreed(c.name()), None);
        }
        let by_accept = ["accept", "s2_fast", "s2_better", "s2_best", "s2_auto"].map(|m| accept.agreed(m));
        let (f, b) = (Some(Level::Fast), Some(Level::Best));
        assert_eq!(by_accept, [None, f, Some(Level::Better), b, f]);
        assert_eq!((best.agreed("accept"), best.agreed("s2_auto"), auto.agreed("accept")), (b, b, f));
    }

    #[test]
    fn the_level_follows_the_round_trip() {
        let ms = Duration::from_millis;
        let auto = Compression::Auto(vec![ms(10), ms(50), ms(100)]);
        let levels = [1, 10, 11, 60, 101].map(|n| auto.by_round_trip(ms(n)).unwrap());
        assert_eq!(
            levels,
            [Level::Uncompressed, Level::Uncompressed, Level::Fast, Level::Better, Level::Best]
        );
        let skips = Compression::Auto(vec![ms(0), ms(50)]);
        assert_eq!(skips.by_round_trip(ms(1)), Some(Level::Fast));
        assert_eq!(Compression::Accept.by_round_trip(ms(1)), None);
    }

    #[test]
    fn certificates_name_hosts() {
        assert!(names("n1.example.com", "N1.example.com") && names("*.example.com", "n1.example.com"));
        for (name, host) in
            [("*.example.com", "example.com"), ("*.example.com", "a.b.example.com"), ("n1", "n2")]
        {
            assert!(!names(name, host), "{name} {host}");
        }
    }
}
