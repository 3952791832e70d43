//! TLS: its configuration from plain data ([`server_config`]), what a certificate says ([`PeerCert`]), and the engine that
//! turns records into bytes and back ([`Session`]).
//!
//! rustls does the protocol, with ring as its only provider. Files are read by `server`, which hands over their bytes. No
//! I/O here. A certificate is matched with a user by `identity`.

mod cert;
mod config;
mod names;
mod session;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use env::Instant;
use parking_lot::Mutex;

pub use cert::PeerCert;
pub use config::{
    Built, BuiltClient, ConfigError, KeyPair, MinVersion, TlsConfig, client_config, server_config,
};
pub use names::{cipher_name, version_name};
pub use session::Session;

/// How long a client that starts TLS by itself is waited for before INFO goes out after all (`handshake_first: auto`).
pub const AUTO_FALLBACK: Duration = Duration::from_millis(50);

/// Whether TLS comes before INFO.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum HandshakeFirst {
    /// INFO first, as NATS began.
    #[default]
    Off,
    /// The client must begin with TLS.
    On,
    /// The client may begin with TLS within that time; after it INFO goes out. See [`AUTO_FALLBACK`].
    Auto(Duration),
}

/// TLS of a listener.
#[derive(Clone)]
pub struct TlsSettings {
    /// Certificates, versions, ciphers.
    pub server_config: Arc<rustls::ServerConfig>,
    /// What a handshake may take.
    pub timeout: Duration,
    /// Client certificates are asked for and must be good; `server_config` was built so. For INFO.
    pub verify: bool,
    /// The certificate names the user.
    pub map: bool,
    /// SHA-256 digests of the public keys (SPKI) that clients may have; empty allows all.
    pub pinned_spki_sha256: BTreeSet<[u8; 32]>,
    /// Whether TLS comes before INFO.
    pub handshake_first: HandshakeFirst,
    /// Clients may do without TLS.
    pub allow_non_tls: bool,
    /// Handshakes a second.
    pub rate: Arc<RateLimit>,
}

impl TlsSettings {
    /// Settings with the defaults of nats-server: two seconds, no client certificates, no limits.
    pub fn new(server_config: Arc<rustls::ServerConfig>) -> TlsSettings {
        TlsSettings {
            server_config,
            timeout: Duration::from_secs(2),
            verify: false,
            map: false,
            pinned_spki_sha256: BTreeSet::new(),
            handshake_first: HandshakeFirst::Off,
            allow_non_tls: false,
            rate: Arc::new(RateLimit::new(None)),
        }
    }
}

/// A number of events that is allowed in each second.
#[derive(Debug)]
pub struct RateLimit {
    per_second: Option<u32>,
    /// The second's start, and what has happened in it.
    window: Mutex<(Instant, u32)>,
}

impl RateLimit {
    /// `None` allows everything.
    pub fn new(per_second: Option<u32>) -> RateLimit {
        RateLimit { per_second, window: Mutex::default() }
    }
    /// Counts one more event; false if it is one too many.
    pub fn allow(&self, now: Instant) -> bool {
        let Some(max) = self.per_second else { return true };
        let mut w = self.window.lock();
        if now.since(w.0) >= Duration::from_secs(1) {
            *w = (now, 0);
        }
        let ok = w.1 < max;
        w.1 = w.1.saturating_add(u32::from(ok));
        ok
    }
}

#[cfg(test)]
pub(crate) mod tests;
