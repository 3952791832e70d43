//! Names of protocol versions, cipher suites and curves as nats-server writes them, which are those of Go.

use rustls::{CipherSuite, NamedGroup, ProtocolVersion, SupportedCipherSuite, crypto::ring};

/// The version as monitoring shows it.
pub fn version_name(v: ProtocolVersion) -> String {
    match v {
        ProtocolVersion::TLSv1_3 => "1.3".into(),
        ProtocolVersion::TLSv1_2 => "1.2".into(),
        other => format!("Unknown [0x{:x}]", u16::from(other)),
    }
}

/// The cipher suite as monitoring shows it and as `cipher_suites` names it.
pub fn cipher_name(c: CipherSuite) -> String {
    let name = c.as_str().unwrap_or("Unknown");
    match name.strip_prefix("TLS13_") {
        Some(rest) => format!("TLS_{rest}"),
        None => name.to_owned(),
    }
}

/// What a configured name of a cipher suite or curve means.
pub(super) enum Named<T> {
    /// It is used.
    Known(T),
    /// It exists, but this server has no use for it.
    Unsupported,
    /// There is no such name.
    Unknown,
}

/// The cipher suite of that name.
pub(super) fn cipher(name: &str) -> Named<SupportedCipherSuite> {
    let plain = name.to_ascii_uppercase();
    // Go has a shorter second name for two suites.
    let full = if plain.ends_with("CHACHA20_POLY1305") { format!("{plain}_SHA256") } else { plain };
    let mut all = ring::ALL_CIPHER_SUITES.iter().copied();
    if let Some(suite) = all.find(|s| cipher_name(s.suite()) == full) {
        return Named::Known(suite);
    }
    // CBC, RC4 and static RSA: nats-server offers them, rustls never will.
    let old =
        full.starts_with("TLS_") && ["_CBC_", "_RC4_", "TLS_RSA_WITH_"].iter().any(|p| full.contains(p));
    if old { Named::Unsupported } else { Named::Unknown }
}

/// The curve of that name.
pub(super) fn curve(name: &str) -> Named<&'static dyn rustls::crypto::SupportedKxGroup> {
    let group = match name {
        "CurveP256" => NamedGroup::secp256r1,
        "CurveP384" => NamedGroup::secp384r1,
        "X25519" => NamedGroup::X25519,
        "CurveP521" | "X25519MLKEM768" | "SecP256r1MLKEM768" | "SecP384r1MLKEM1024" => {
            return Named::Unsupported;
        }
        _ => return Named::Unknown,
    };
    let found = ring::ALL_KX_GROUPS.iter().copied().find(|g| g.name() == group);
    found.map_or(Named::Unsupported, Named::Known)
}
