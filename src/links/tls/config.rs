//! From options and the content of files to what rustls needs.

use std::{fmt, sync::Arc, time::Duration};

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme,
    SupportedProtocolVersion,
    client::{
        ResolvesClientCert,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier},
    sign::CertifiedKey,
    time_provider::TimeProvider,
    version::{TLS12, TLS13},
};

use super::{
    PeerCert,
    names::{self, Named},
};

/// A certificate chain and its key, as in the files.
#[derive(Clone, Default)]
pub struct KeyPair {
    /// Name of the certificate's file, for errors.
    pub cert_file: String,
    /// The chain in PEM, the server's own certificate first.
    pub cert: Vec<u8>,
    /// Name of the key's file, for errors.
    pub key_file: String,
    /// The key in PEM: PKCS#8, PKCS#1 or SEC1.
    pub key: Vec<u8>,
}

/// The lowest version that is spoken.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum MinVersion {
    /// TLS 1.2.
    #[default]
    Tls12,
    /// TLS 1.3.
    Tls13,
}

/// TLS options of a listener.
#[derive(Clone, Default)]
pub struct TlsConfig {
    /// Certificates; the client's server name chooses among several.
    pub certs: Vec<KeyPair>,
    /// Name of the file with the authorities, for errors.
    pub ca_file: String,
    /// Authorities in PEM that client certificates are checked against.
    pub ca: Vec<u8>,
    /// Client certificates are required.
    pub verify: bool,
    /// The lowest version.
    pub min_version: MinVersion,
    /// Go names of the cipher suites for TLS 1.2; empty takes all. Those of 1.3 are always on, as in Go.
    pub cipher_suites: Vec<String>,
    /// Go names of the curves, best first; empty takes all.
    pub curve_preferences: Vec<String>,
}

/// The outcome.
#[derive(Debug)]
pub struct Built {
    /// For [`super::TlsSettings`].
    pub config: Arc<ServerConfig>,
    /// What was asked for and cannot be had, in sentences for the log.
    pub warnings: Vec<String>,
}

/// Options that make no TLS.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigError(pub String);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl std::error::Error for ConfigError {}

fn error<T>(text: impl Into<String>) -> Result<T, ConfigError> {
    Err(ConfigError(text.into()))
}

/// Certificates are judged by the node's own clock.
#[derive(Debug)]
struct Clock;
impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        u64::try_from(env::wall().0).ok().map(|ns| UnixTime::since_unix_epoch(Duration::from_nanos(ns)))
    }
}

fn versions(o: &TlsConfig) -> &'static [&'static SupportedProtocolVersion] {
    static FROM_12: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
    match o.min_version {
        MinVersion::Tls12 => &FROM_12,
        MinVersion::Tls13 => &FROM_12[..1],
    }
}

fn incoherent<T>(e: rustls::Error) -> Result<T, ConfigError> {
    error(format!("these TLS versions, cipher suites and curves do not go together: {e}"))
}

/// Builds what a listener needs.
///
/// # Errors
/// What is wrong, and what to do about it.
pub fn server_config(o: &TlsConfig) -> Result<Built, ConfigError> {
    let mut warnings = Vec::new();
    let provider = Arc::new(provider(o, &mut warnings)?);
    let builder = ServerConfig::builder_with_details(provider.clone(), Arc::new(Clock))
        .with_protocol_versions(versions(o))
        .or_else(incoherent)?;
    let builder = if o.verify {
        let roots = Arc::new(authorities(o)?);
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone())
            .build()
            .or_else(|e| error(format!("cannot check client certificates with {:?}: {e}", o.ca_file)))?;
        builder.with_client_cert_verifier(verifier)
    } else {
        builder.with_no_client_auth()
    };
    let mut keys = Vec::new();
    for pair in &o.certs {
        keys.push(certified_key(pair, &provider)?);
    }
    if keys.is_empty() {
        return error("TLS needs a certificate: set cert_file and key_file, or certs");
    }
    let mut config = builder.with_cert_resolver(Arc::new(ByName { keys }));
    // Sessions are resumed from tickets, so that a thousand clients that come back cost no memory.
    config.ticketer = ring::Ticketer::new().or_else(|e| error(format!("no key for TLS tickets: {e}")))?;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.send_tls13_tickets = 1;
    Ok(Built { config: Arc::new(config), warnings })
}

/// The outcome for the other end.
#[derive(Debug)]
pub struct BuiltClient {
    /// For connections that this server opens.
    pub config: Arc<ClientConfig>,
    /// What was asked for and cannot be had, in sentences for the log.
    pub warnings: Vec<String>,
}

/// Builds what this server needs to connect to others: it shows the certificate of `o`, and checks theirs against its
/// authorities, unless `insecure`.
///
/// # Errors
/// What is wrong, and what to do about it.
pub fn client_config(o: &TlsConfig, insecure: bool) -> Result<BuiltClient, ConfigError> {
    let mut warnings = Vec::new();
    let provider = Arc::new(provider(o, &mut warnings)?);
    let builder = ClientConfig::builder_with_details(provider.clone(), Arc::new(Clock))
        .with_protocol_versions(versions(o))
        .or_else(incoherent)?;
    let builder = if insecure {
        let any = Arc::new(AnyServer { provider: provider.clone() });
        builder.dangerous().with_custom_certificate_verifier(any)
    } else {
        builder.with_root_certificates(authorities(o)?)
    };
    let config = match o.certs.first() {
        None => builder.with_no_client_auth(),
        Some(pair) => {
            let key = certified_key(pair, &provider)?.key;
            builder.with_client_cert_resolver(Arc::new(OwnCertificate { key }))
        }
    };
    Ok(BuiltClient { config: Arc::new(config), warnings })
}

/// The certificate that this server shows to those that it connects to.
#[derive(Debug)]
struct OwnCertificate {
    key: Arc<CertifiedKey>,
}

impl ResolvesClientCert for OwnCertificate {
    fn resolve(&self, _: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.key.key.choose_scheme(schemes).map(|_| self.key.clone())
    }
    fn has_certs(&self) -> bool {
        true
    }
}

/// Any certificate will do (`insecure`); that its owner has its key is checked all the same.
#[derive(Debug)]
struct AnyServer {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn provider(o: &TlsConfig, warnings: &mut Vec<String>) -> Result<CryptoProvider, ConfigError> {
    let mut provider = ring::default_provider();
    if !o.cipher_suites.is_empty() {
        let mut suites: Vec<_> =
            provider.cipher_suites.iter().copied().filter(|s| s.tls13().is_some()).collect();
        for name in &o.cipher_suites {
            match names::cipher(name) {
                Named::Known(s) if !suites.contains(&s) => suites.push(s),
                Named::Known(_) => {}
                Named::Unsupported => {
                    warnings.push(format!("cipher suite {name} is insecure and is not offered"));
                }
                Named::Unknown => return error(format!("unrecognized cipher {name}")),
            }
        }
        provider.cipher_suites = suites;
    }
    if !o.curve_preferences.is_empty() {
        let mut groups: Vec<&'static dyn rustls::crypto::SupportedKxGroup> = Vec::new();
        for name in &o.curve_preferences {
            match names::curve(name) {
                Named::Known(g) => groups.push(g),
                Named::Unsupported => {
                    warnings.push(format!("curve {name} is not supported and is not offered"));
                }
                Named::Unknown => return error(format!("unrecognized curve preference {name}")),
            }
        }
        if groups.is_empty() {
            return error("none of curve_preferences is supported: add X25519, CurveP256 or CurveP384");
        }
        provider.kx_groups = groups;
    }
    Ok(provider)
}

fn authorities(o: &TlsConfig) -> Result<RootCertStore, ConfigError> {
    if o.ca.is_empty() {
        return error("verify needs the authorities that sign client certificates: set ca_file");
    }
    let mut roots = RootCertStore::empty();
    for der in CertificateDer::pem_slice_iter(&o.ca) {
        let der = der.or_else(|e| error(format!("ca_file {:?} is no PEM: {e}", o.ca_file)))?;
        roots.add(der).or_else(|e| error(format!("ca_file {:?} holds a bad certificate: {e}", o.ca_file)))?;
    }
    if roots.is_empty() {
        return error(format!("failed to parse root ca certificate: {:?} holds none", o.ca_file));
    }
    Ok(roots)
}

/// A certificate with its key, and the names that it is for.
#[derive(Debug)]
struct Certificate {
    names: Vec<String>,
    key: Arc<CertifiedKey>,
}

fn certified_key(pair: &KeyPair, provider: &CryptoProvider) -> Result<Certificate, ConfigError> {
    let KeyPair { cert_file, cert, key_file, key } = pair;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(cert).collect();
    let chain = chain.or_else(|e| error(format!("cert_file {cert_file:?} is no PEM: {e}")))?;
    let Some(first) = chain.first() else {
        return error(format!("cert_file {cert_file:?} holds no certificate"));
    };
    let facts = PeerCert::parse(first)
        .or_else(|e| error(format!("cert_file {cert_file:?} holds a bad certificate: {e}")))?;
    let der = PrivateKeyDer::from_pem_slice(key).or_else(|e| {
        error(format!("key_file {key_file:?} holds no key that can be read (encrypted ones cannot): {e}"))
    })?;
    let key = provider
        .key_provider
        .load_private_key(der)
        .or_else(|e| error(format!("key_file {key_file:?} holds a key that cannot be used: {e}")))?;
    let key = CertifiedKey::new(chain, key);
    if let Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch)) = key.keys_match() {
        return error(format!("the key in {key_file:?} is not that of the certificate in {cert_file:?}"));
    }
    let mut names = facts.dns_names;
    names.iter_mut().for_each(|n| n.make_ascii_lowercase());
    Ok(Certificate { names, key: Arc::new(key) })
}

/// Chooses a certificate by the client's server name and signature schemes.
#[derive(Debug)]
struct ByName {
    keys: Vec<Certificate>,
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let fits = |k: &&Certificate| k.key.key.choose_scheme(hello.signature_schemes()).is_some();
        let named =
            |k: &&Certificate| hello.server_name().is_some_and(|n| k.names.iter().any(|p| matches(p, n)));
        let best = self.keys.iter().filter(named).find(fits).or_else(|| self.keys.iter().find(fits));
        best.or(self.keys.first()).map(|k| k.key.clone())
    }
}

/// Whether a certificate's name, whose first label may be `*`, is for a host.
pub(super) fn matches(pattern: &str, host: &str) -> bool {
    let host = host.to_ascii_lowercase();
    match pattern.strip_prefix("*.") {
        Some(rest) => host.split_once('.').is_some_and(|(label, tail)| !label.is_empty() && tail == rest),
        None => host == pattern,
    }
}
