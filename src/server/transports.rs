//! TLS and WebSocket of the listeners: from options and files to what `links` takes.

use std::sync::Arc;

use env::disk::Disk;
use identity::Authenticator;
use links::{
    TlsSettings, WebSocketSettings,
    route::RouteTls,
    tls::{self, HandshakeFirst, KeyPair, MinVersion, RateLimit, TlsConfig},
    ws::Rules,
};
use wire::info::Info;

use crate::{
    files,
    options::{self, Options, TlsOptions, TlsVersion},
    settings,
};

/// What was built, with what could not be had, in sentences for the log.
#[derive(Clone, Default)]
pub struct Transports {
    /// TLS of the client port.
    pub tls: Option<Arc<TlsSettings>>,
    /// TLS between the members of the cluster.
    pub cluster_tls: Option<RouteTls>,
    /// TLS of the WebSocket port, if it has its own.
    pub websocket_tls: Option<Arc<TlsSettings>>,
    /// TLS of the monitoring port: that of the client port, but nobody is asked for a certificate.
    pub https_tls: Option<Arc<TlsSettings>>,
    /// For the log.
    pub warnings: Vec<String>,
}

/// Reads the certificates and builds everything.
///
/// # Errors
/// A sentence that names the file or option.
pub async fn build(o: &Options) -> Result<Transports, String> {
    let mut out = Transports::default();
    if let Some(t) = &o.tls {
        out.tls = Some(tls_settings(t, o.allow_non_tls, &mut out.warnings).await?);
    }
    if let Some(t) = o.websocket.as_ref().and_then(|w| w.tls.as_ref()) {
        out.websocket_tls = Some(tls_settings(t, false, &mut out.warnings).await?);
    }
    if let Some(t) = o.cluster.as_ref().and_then(|c| c.tls.as_ref()) {
        let server = tls_settings(t, false, &mut out.warnings).await?;
        let mut config = tls_config(t).await?;
        if config.ca.is_empty() && !t.insecure {
            // As in Go, the system's authorities stand in.
            config.ca_file = SYSTEM_AUTHORITIES.to_owned();
            config.ca = read(SYSTEM_AUTHORITIES).await.unwrap_or_default();
        }
        let client = tls::client_config(&config, t.insecure).map_err(|e| format!("cluster: {e}"))?;
        out.cluster_tls = Some(RouteTls { server, client: client.config });
    }
    if let (Some(_), Some(t)) = (&o.https, &o.tls) {
        let open = TlsOptions {
            verify: false,
            verify_and_map: false,
            verify_known_urls: false,
            ca_file: None,
            ..t.clone()
        };
        // The client port has said what there is to be said.
        out.https_tls = Some(tls_settings(&open, false, &mut Vec::new()).await?);
    }
    Ok(out)
}

async fn read(path: &str) -> Result<Vec<u8>, String> {
    Disk::os().read(path).await.map_err(|e| format!("open {path}: {}", files::plain(&e)))
}

/// Where systems keep the authorities that they trust.
const SYSTEM_AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

async fn tls_config(t: &TlsOptions) -> Result<TlsConfig, String> {
    let mut config = TlsConfig {
        verify: t.verify || t.verify_and_map || t.verify_known_urls,
        min_version: match t.min_version {
            TlsVersion::V12 => MinVersion::Tls12,
            TlsVersion::V13 => MinVersion::Tls13,
        },
        cipher_suites: t.cipher_suites.clone(),
        curve_preferences: t.curve_preferences.clone(),
        ..TlsConfig::default()
    };
    for c in &t.certificates {
        config.certs.push(KeyPair {
            cert_file: c.cert_file.clone(),
            cert: read(&c.cert_file).await?,
            key_file: c.key_file.clone(),
            key: read(&c.key_file).await?,
        });
    }
    if let Some(ca) = &t.ca_file {
        config.ca_file.clone_from(ca);
        config.ca = read(ca).await?;
    }
    Ok(config)
}

async fn tls_settings(
    t: &TlsOptions,
    allow_non_tls: bool,
    warnings: &mut Vec<String>,
) -> Result<Arc<TlsSettings>, String> {
    let config = tls_config(t).await?;
    let built = tls::server_config(&config).map_err(|e| e.to_string())?;
    warnings.extend(built.warnings);
    let mut pinned = std::collections::BTreeSet::new();
    for digest in &t.pinned_certs {
        let byte = |i: usize| digest.get(2 * i..2 * i + 2).and_then(|h| u8::from_str_radix(h, 16).ok());
        let mut raw = [0; 32];
        for (i, b) in raw.iter_mut().enumerate() {
            *b = byte(i).ok_or_else(|| format!("pinned_certs: {digest:?} is not 64 hexadecimal digits"))?;
        }
        pinned.insert(raw);
    }
    Ok(Arc::new(TlsSettings {
        timeout: t.timeout,
        verify: config.verify,
        map: t.verify_and_map,
        pinned_spki_sha256: pinned,
        handshake_first: match t.handshake_first {
            options::HandshakeFirst::Off => HandshakeFirst::Off,
            options::HandshakeFirst::Always => HandshakeFirst::On,
            options::HandshakeFirst::Fallback(d) => HandshakeFirst::Auto(d),
        },
        allow_non_tls,
        rate: Arc::new(RateLimit::new(t.connection_rate_limit)),
        ..TlsSettings::new(built.config)
    }))
}

/// How WebSocket clients are served, if they are. `info` is that of the client port.
///
/// # Errors
/// A sentence about the listener's own users.
pub fn websocket(
    o: &Options,
    info: &Info,
    port: Option<u16>,
    clients: &Authenticator,
    tls: Option<Arc<TlsSettings>>,
) -> Result<Option<Arc<WebSocketSettings>>, String> {
    let Some(w) = &o.websocket else { return Ok(None) };
    let logins = settings::logins(o);
    let own = settings::websocket_logins(o, &logins.listener);
    let authenticator = match own {
        Some(own) => Some(Arc::new(clients.for_listener(own).map_err(|e| e.to_string())?)),
        None => None,
    };
    let mut info = info.clone();
    info.host.clone_from(&w.host);
    if let Some(p) = port {
        info.port = p;
    }
    info.connect_urls = std::mem::take(&mut info.ws_connect_urls);
    if let Some(a) = &authenticator {
        // Here nats-server does not count who stands in for absent credentials.
        info.auth_required = a.is_required();
    }
    Ok(Some(Arc::new(WebSocketSettings {
        info,
        authenticator,
        auth_timeout: w.authorization.timeout,
        handshake_timeout: w.handshake_timeout,
        rules: Rules {
            secure: tls.is_some(),
            same_origin: w.same_origin,
            allowed_origins: w.allowed_origins.clone(),
            compression: w.compression,
            jwt_cookie: w.jwt_cookie.clone(),
            user_cookie: w.user_cookie.clone(),
            pass_cookie: w.pass_cookie.clone(),
            token_cookie: w.token_cookie.clone(),
            headers: w.headers.iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
        },
        tls,
        ping_interval: w.ping_interval,
    })))
}
