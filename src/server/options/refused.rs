//! What nats-server can be told and this server cannot do yet. A later change that brings the feature deletes its line.

/// A key that is refused by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The block that the key stands in, "" for the top of the file.
    pub block: &'static str,
    /// The key, in lower case.
    pub key: &'static str,
    /// The feature that is missing.
    pub feature: &'static str,
}

const fn line(block: &'static str, key: &'static str, feature: &'static str) -> Refused {
    Refused { block, key, feature }
}

/// The table. `block` "tls" stands for every `tls` block. A value of `false` asks for nothing and is accepted.
pub const REFUSED: &[Refused] = &[
    line("", "gateway", "gateways"),
    line("", "leaf", "leaf nodes"),
    line("", "leafnodes", "leaf nodes"),
    line("", "mqtt", "MQTT"),
    line("", "operator", "operator mode"),
    line("", "operators", "operator mode"),
    line("", "root", "operator mode"),
    line("", "roots", "operator mode"),
    line("", "root_operator", "operator mode"),
    line("", "root_operators", "operator mode"),
    line("", "trusted", "operator mode"),
    line("", "trusted_keys", "operator mode"),
    line("", "resolver", "account resolvers"),
    line("", "account_resolver", "account resolvers"),
    line("", "resolver_tls", "account resolvers"),
    line("", "resolver_preload", "account resolvers"),
    line("", "resolver_pinned_accounts", "account resolvers"),
    line("", "default_sentinel", "operator mode"),
    line("", "ocsp", "OCSP stapling"),
    line("", "ocsp_cache", "OCSP"),
    line("authorization", "auth_callout", "auth callout"),
    line("authorization", "auth_hook", "auth callout"),
    line("tls", "ocsp_peer", "OCSP"),
    line("tls", "cert_store", "the Windows certificate store"),
    line("tls", "cert_match_by", "the Windows certificate store"),
    line("tls", "cert_match", "the Windows certificate store"),
    line("tls", "cert_match_skip_invalid", "the Windows certificate store"),
    line("tls", "ca_certs_match", "the Windows certificate store"),
    line("jetstream", "tpm", "keys in a TPM"),
];

/// The line for a key of a block, if it is refused; `key` in lower case.
pub fn find(block: &str, key: &str) -> Option<&'static Refused> {
    REFUSED.iter().find(|r| r.block == block && r.key == key)
}
