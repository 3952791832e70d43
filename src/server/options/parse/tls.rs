//! `tls` blocks.

use super::reader::set;
use super::{Reader, block};
use crate::options::types::{CertificateFiles, HandshakeFirst, TlsOptions, TlsVersion};
use conf::{Entry, Map, Pos, Value};
use std::time::Duration;

/// Suites that this server's TLS library has.
const CIPHER_SUITES: [&str; 9] = [
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
];

/// Older names of suites above.
const CIPHER_ALIASES: [(&str, &str); 2] = [
    ("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305", "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"),
    ("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305", "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256"),
];

/// Suites that nats-server knows and this server's TLS library left out for their weaknesses.
const WEAK_CIPHER_SUITES: [&str; 16] = [
    "TLS_RSA_WITH_RC4_128_SHA",
    "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_RSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
];

/// Key exchange groups that this server's TLS library has.
const CURVES: [&str; 3] = ["X25519", "CurveP256", "CurveP384"];
/// Groups that nats-server knows beyond those.
const OTHER_CURVES: [&str; 4] = ["CurveP521", "X25519MLKEM768", "SecP256r1MLKEM768", "SecP384r1MLKEM1024"];

/// How long the server waits for a handshake before it sends INFO under `handshake_first: auto`.
const AUTO_FALLBACK: Duration = Duration::from_millis(50);

/// Where a `tls` block stands: what it may say depends on it.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum TlsPlace {
    /// Clients, WebSocket.
    Listener,
    /// Cluster and gateway, whose members have known URLs.
    Mesh,
}

/// Reads a block. `None` when it is unusable; the reader knows why.
pub(crate) fn read(reader: &mut Reader, entry: &Entry, place: TlsPlace) -> Option<TlsOptions> {
    let map = reader.map(entry)?;
    let errors_before = reader.errors.len();
    let mut tls = TlsOptions::default();
    let (mut cert_file, mut key_file, mut certs_given) = (None, None, false);
    let mut check_known_urls_at: Option<Pos> = None;
    block!(reader, "tls", map, |e| {
        "cert_file" => set!(cert_file, path(reader, e)),
        "key_file" => set!(key_file, path(reader, e)),
        "ca_file" => set!(tls.ca_file, path(reader, e)),
        "certs" | "certificates" => {
            certs_given = true;
            tls.certificates = certificates(reader, e);
        },
        "verify" => set!(tls.verify, boolean(reader, e)),
        "verify_and_map" => set!(tls.verify_and_map, boolean(reader, e)),
        "verify_cert_and_check_known_urls" => {
            set!(tls.verify_known_urls, boolean(reader, e));
            check_known_urls_at = Some(e.pos.clone());
        },
        "insecure" => set!(tls.insecure, boolean(reader, e)),
        "timeout" => set!(tls.timeout, reader.timeout(e, "tls", false)),
        "cipher_suites" => set!(tls.cipher_suites, ciphers(reader, e)),
        "curve_preferences" => set!(tls.curve_preferences, curves(reader, e)),
        "allow_insecure_cipher_suites" => set!(tls.allow_insecure_cipher_suites, boolean(reader, e)),
        "min_version" => set!(tls.min_version, min_version(reader, e)),
        "pinned_certs" => pinned(reader, e, &mut tls),
        "connection_rate_limit" => rate_limit(reader, e, &mut tls),
        "handshake_first" | "first" | "immediate" => set!(tls.handshake_first, handshake_first(reader, e)),
    });
    tls.verify |= tls.verify_and_map || tls.verify_known_urls;
    if let Some(pos) = check_known_urls_at {
        if place != TlsPlace::Mesh {
            reader.error(&pos, "verify_cert_and_check_known_urls not supported in this context");
        } else if tls.verify_and_map && tls.verify_known_urls {
            reader.error(&pos, "verify_and_map and verify_cert_and_check_known_urls exclude each other");
        }
    }
    match (cert_file, key_file) {
        (None, None) => {}
        (Some(_), _) if certs_given => {
            let text = "error parsing tls config, cannot combine 'cert_file' option with 'certs' option";
            reader.error(&entry.pos, text);
        }
        (Some(cert_file), Some(key_file)) => {
            tls.certificates = vec![CertificateFiles { cert_file, key_file }]
        }
        (Some(_), None) => reader.error(&entry.pos, "missing 'key_file' in TLS configuration"),
        (None, Some(_)) => reader.error(&entry.pos, "missing 'cert_file' in TLS configuration"),
    }
    (reader.errors.len() == errors_before).then_some(tls)
}

fn boolean(reader: &mut Reader, e: &Entry) -> Option<bool> {
    if let Value::Bool(b) = e.node.value {
        return Some(b);
    }
    let key = e.key.to_ascii_lowercase();
    reader.error(&e.pos, format!("error parsing tls config, expected '{key}' to be a boolean"));
    None
}

fn path(reader: &mut Reader, e: &Entry) -> Option<Option<String>> {
    if let Value::String(s) = &e.node.value {
        return Some((!s.is_empty()).then(|| s.clone()));
    }
    let key = e.key.to_ascii_lowercase();
    reader.error(&e.pos, format!("error parsing tls config, expected '{key}' to be filename"));
    None
}

fn certificates(reader: &mut Reader, entry: &Entry) -> Vec<CertificateFiles> {
    let mut out = Vec::new();
    for item in reader.array(entry).unwrap_or_default() {
        let Value::Map(map) = &item.value else {
            let text =
                format!("error parsing certificates config: expected a map, got {}", item.value.kind());
            reader.error(&item.pos, text);
            continue;
        };
        match certificate(reader, map) {
            (Some(cert_file), Some(key_file)) => out.push(CertificateFiles { cert_file, key_file }),
            _ => reader.error(
                &item.pos,
                "error parsing certificates config: both 'cert_file' and 'cert_key' options are required",
            ),
        }
    }
    out
}

fn certificate(reader: &mut Reader, map: &Map) -> (Option<String>, Option<String>) {
    let (mut cert_file, mut key_file) = (None, None);
    block!(reader, "certs", map, |e| {
        "cert_file" => set!(cert_file, path(reader, e)),
        "key_file" => set!(key_file, path(reader, e)),
    });
    (cert_file, key_file)
}

fn ciphers(reader: &mut Reader, entry: &Entry) -> Option<Vec<String>> {
    if reader.array(entry)?.is_empty() {
        reader.error(&entry.pos, "error parsing tls config, 'cipher_suites' cannot be empty");
        return None;
    }
    let mut out = Vec::new();
    for (pos, name) in reader.strings(entry)? {
        let name = CIPHER_ALIASES.iter().find(|(old, _)| *old == name).map_or(name, |(_, new)| new);
        if CIPHER_SUITES.contains(&name) {
            out.push(name.to_string());
        } else if WEAK_CIPHER_SUITES.contains(&name) {
            reader.warn(pos, "cipher_suites", format!("{name} is not supported here and is left out"));
        } else {
            reader.error(pos, format!("unrecognized cipher {name}"));
            return None;
        }
    }
    if out.is_empty() {
        reader.error(&entry.pos, "none of the 'cipher_suites' is supported");
        return None;
    }
    Some(out)
}

fn curves(reader: &mut Reader, entry: &Entry) -> Option<Vec<String>> {
    if reader.array(entry)?.is_empty() {
        reader.error(&entry.pos, "error parsing tls config, 'curve_preferences' cannot be empty");
        return None;
    }
    let mut out = Vec::new();
    for (pos, name) in reader.strings(entry)? {
        if CURVES.contains(&name) {
            out.push(name.to_string());
        } else if OTHER_CURVES.contains(&name) {
            reader.warn(pos, "curve_preferences", format!("{name} is not supported here and is left out"));
        } else {
            reader.error(pos, format!("unrecognized curve preference {name}"));
            return None;
        }
    }
    if out.is_empty() {
        reader.error(&entry.pos, "none of the 'curve_preferences' is supported");
        return None;
    }
    Some(out)
}

fn min_version(reader: &mut Reader, e: &Entry) -> Option<TlsVersion> {
    let Value::String(text) = &e.node.value else {
        let text = format!("error parsing tls config: 'min_version' wrong type: {}", e.node.value.kind());
        reader.error(&e.pos, text);
        return None;
    };
    match text.as_str() {
        "1.2" | "TLS1.2" => Some(TlsVersion::V12),
        "1.3" | "TLS1.3" => Some(TlsVersion::V13),
        other => {
            reader.error(&e.pos, format!("error parsing tls config: unsupported TLS version: TLS {other}"));
            None
        }
    }
}

fn pinned(reader: &mut Reader, entry: &Entry, tls: &mut TlsOptions) {
    let Value::Array(items) = &entry.node.value else {
        reader.error(
            &entry.pos,
            "error parsing tls config, expected 'pinned_certs' to be a list of hex-encoded sha256 of DER encoded \
             SubjectPublicKeyInfo",
        );
        return;
    };
    if items.is_empty() {
        return;
    }
    for (pos, key) in reader.strings(entry).unwrap_or_default() {
        let key = key.to_ascii_lowercase();
        if key.len() == 64 && key.bytes().all(|b| b.is_ascii_hexdigit()) {
            tls.pinned_certs.insert(key);
        } else {
            reader.error(
                pos,
                format!(
                    "error parsing tls config, 'pinned_certs' key {key} does not look like hex-encoded sha256 of DER \
                     encoded SubjectPublicKeyInfo"
                ),
            );
        }
    }
}

fn rate_limit(reader: &mut Reader, e: &Entry, tls: &mut TlsOptions) {
    let Value::Int(n) = e.node.value else {
        reader.error(&e.pos, "error parsing tls config, 'connection_rate_limit' wrong type");
        return;
    };
    match u32::try_from(n) {
        Ok(n) => tls.connection_rate_limit = (n > 0).then_some(n),
        Err(_) => reader.error(&e.pos, "error parsing tls config, 'connection_rate_limit' is out of range"),
    }
}

fn handshake_first(reader: &mut Reader, e: &Entry) -> Option<HandshakeFirst> {
    match &e.node.value {
        Value::Bool(true) => Some(HandshakeFirst::Always),
        Value::Bool(false) => Some(HandshakeFirst::Off),
        Value::String(text) => {
            let text = text.to_ascii_lowercase();
            match text.as_str() {
                "on" | "true" => return Some(HandshakeFirst::Always),
                "off" | "false" => return Some(HandshakeFirst::Off),
                "auto" | "auto_fallback" => return Some(HandshakeFirst::Fallback(AUTO_FALLBACK)),
                _ => {}
            }
            match conf::duration::parse(&text).ok().and_then(|n| u64::try_from(n).ok()) {
                Some(nanos) => Some(HandshakeFirst::Fallback(Duration::from_nanos(nanos))),
                None => {
                    reader.error(&e.pos, format!("field {:?}'s value {text:?} is invalid", e.key));
                    None
                }
            }
        }
        other => {
            let text = format!("field {:?} should be a boolean or a string, got {}", e.key, other.kind());
            reader.error(&e.pos, text);
            None
        }
    }
}
