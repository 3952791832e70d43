//! What a certificate says.

use identity::escaped;
use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use x509_parser::{
    certificate::X509Certificate, extensions::GeneralName, oid_registry::Oid, prelude::FromDer,
};

/// Attribute types that Go names, in the order in which it prints them.
const NAMED: [(&str, &str); 9] = [
    ("2.5.4.5", "SERIALNUMBER"),
    ("2.5.4.3", "CN"),
    ("2.5.4.11", "OU"),
    ("2.5.4.10", "O"),
    ("2.5.4.17", "POSTALCODE"),
    ("2.5.4.9", "STREET"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.6", "C"),
];

/// The facts of a certificate that its peer has proved to own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerCert {
    /// E-mail subject alternative names, in the certificate's order.
    pub emails: Vec<String>,
    /// DNS subject alternative names.
    pub dns_names: Vec<String>,
    /// URI subject alternative names.
    pub uris: Vec<String>,
    /// The subject: relative distinguished names in the order of their encoding, each with its attributes as dotted object
    /// identifier and text.
    pub subject: Vec<Vec<(String, String)>>,
    /// SHA-256 of the DER of the subject public key info.
    pub spki_sha256: [u8; 32],
    /// SHA-256 of the certificate's DER.
    pub cert_sha256: [u8; 32],
}

impl PeerCert {
    /// The same as `identity` wants it.
    pub fn identity(&self) -> identity::PeerCert {
        let attribute =
            |(oid, value): &(String, String)| identity::Attribute { oid: oid.clone(), value: value.clone() };
        identity::PeerCert {
            emails: self.emails.clone(),
            dns_names: self.dns_names.clone(),
            uris: self.uris.clone(),
            subject: self.subject.iter().map(|rdn| rdn.iter().map(attribute).collect()).collect(),
            spki_sha256: self.spki_sha256,
        }
    }
    /// Reads a certificate.
    ///
    /// # Errors
    /// What is wrong with the encoding.
    pub fn parse(der: &[u8]) -> Result<PeerCert, String> {
        let (_, c) = X509Certificate::from_der(der).map_err(|e| e.to_string())?;
        let mut cert = PeerCert {
            spki_sha256: Sha256::digest(c.public_key().raw).into(),
            cert_sha256: Sha256::digest(der).into(),
            ..PeerCert::default()
        };
        for rdn in c.subject().iter_rdn() {
            let pair = |a: &x509_parser::x509::AttributeTypeAndValue<'_>| (oid(a.attr_type()), text(a));
            cert.subject.push(rdn.iter().map(pair).collect());
        }
        let names = c.subject_alternative_name().map_err(|e| e.to_string())?;
        for name in names.into_iter().flat_map(|n| &n.value.general_names) {
            match name {
                GeneralName::RFC822Name(n) => cert.emails.push((*n).to_owned()),
                GeneralName::DNSName(n) => cert.dns_names.push((*n).to_owned()),
                GeneralName::URI(n) => cert.uris.push((*n).to_owned()),
                _ => {}
            }
        }
        Ok(cert)
    }
    /// The certificates of a peer, its own first; those that cannot be read are left out.
    pub(crate) fn chain(ders: &[CertificateDer<'_>]) -> Vec<PeerCert> {
        ders.iter().filter_map(|d| PeerCert::parse(d).ok()).collect()
    }
    /// The subject as monitoring shows it: the types that Go has names for in its order, then the others from the last to
    /// the first.
    pub fn subject_text(&self) -> String {
        let all = || self.subject.iter().flatten();
        let mut parts = Vec::new();
        for (oid, name) in NAMED {
            let mut values: Vec<_> =
                all().filter(|(o, _)| o == oid).map(|(_, v)| format!("{name}={}", escaped(v))).collect();
            if matches!(name, "CN" | "SERIALNUMBER") && values.len() > 1 {
                values.drain(..values.len() - 1);
            }
            if !values.is_empty() {
                parts.push(values.join("+"));
            }
        }
        let others: Vec<_> = all().filter(|(o, _)| !NAMED.iter().any(|(n, _)| n == o)).collect();
        parts.extend(others.iter().rev().map(|(o, v)| format!("{o}={}", escaped(v))));
        parts.join(",")
    }
}

fn oid(o: &Oid<'_>) -> String {
    o.to_id_string()
}

fn text(a: &x509_parser::x509::AttributeTypeAndValue<'_>) -> String {
    match a.as_str() {
        Ok(s) => s.to_owned(),
        // BMPString, UniversalString and TeletexString are no UTF-8.
        Err(_) => String::from_utf8_lossy(a.as_slice()).into_owned(),
    }
}
